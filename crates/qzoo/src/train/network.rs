use crate::checkpoint::weights_digest;
use crate::experiment::{Backward, BackwardMode, Experiment, Precision};
use crate::models::{Folded, Model};
use crate::nn::{Leaves, Parameters, Phase};
use crate::{Error, Result};
use qgraph::{Effect, Profile, Retained, Tape, Var};
use qkernels::par;
use qtensor::Tensor;
use std::time::{Duration, Instant};

/// A model, ready to be trained or asked.
#[derive(Clone, Debug)]
pub(super) struct Network {
    model: Model,
}

/// The images of a training pass, with what they should give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson<'a> {
    /// `[N, C, H, W]`.
    pub(super) images: &'a Tensor,
    /// Classes, i64 `[N]`, or probabilities `[N, classes]`.
    pub(super) targets: &'a Tensor,
    /// Share of the target's probability spread over all classes.
    pub(super) label_smoothing: f64,
    /// The numbers of the pass.
    pub(super) precision: Precision,
    /// The seed of the experiment.
    pub(super) seed: u64,
    /// Number of this pass over the whole run, which names its noise.
    pub(super) pass: u64,
}

/// What a forward and backward pass give.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) loss: f64,
    pub(super) logits: Tensor,
    /// One a parameter, by position.
    pub(super) gradients: Vec<Option<Tensor>>,
    /// To be applied where the step counts.
    pub(super) effects: Vec<Effect>,
}

/// What a profiled pass costs as a whole.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) forward: Duration,
    pub(super) backward: Duration,
    pub(super) retained: Retained,
}

impl Network {
    /// A new network for images of that shape, with initial weights drawn by the experiment's seed.
    pub(super) fn build(experiment: &Experiment, image_shape: [usize; 3], classes: usize) -> Result<Self> {
        let refused = |error: qgraph::Error| Error::Config(format!("{}: {error}", experiment.model.name));
        let mut model = Model::build(&experiment.model, image_shape, classes, experiment.seed).map_err(refused)?;
        model.set_backward(&experiment.backward).map_err(refused)?;
        Ok(Network { model })
    }

    /// The model by itself.
    pub(super) fn into_model(self) -> Model {
        self.model
    }

    /// The same network with other backward modes.
    pub(super) fn with_backward(&self, backward: &Backward) -> Result<Network> {
        let mut network = self.clone();
        network.model.set_backward(backward)?;
        Ok(network)
    }

    /// Names of the innermost layers whose backward mode can be chosen.
    pub(super) fn units(&self) -> Vec<String> {
        self.model.units().into_iter().map(String::from).collect()
    }

    /// The modes that differ for this network: those of quadratic neurons only where it has some.
    pub(super) fn distinct_modes(&self) -> &'static [BackwardMode] {
        use BackwardMode::{Ad, Recompute, Symbolic, SymbolicNormalised, SymbolicRecompute};
        match self.model.is_quadratic() {
            true => &[Ad, Symbolic, SymbolicNormalised, SymbolicRecompute, Recompute],
            false => &[Symbolic, Recompute],
        }
    }

    /// The model.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The model, for a change of what it does beside its parameters.
    pub(super) fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The parameters and buffers.
    pub(super) fn parameters(&self) -> &Parameters {
        self.model.parameters()
    }

    /// The parameters and buffers, for an update.
    pub(super) fn parameters_mut(&mut self) -> &mut Parameters {
        self.model.parameters_mut()
    }

    /// Sets all parameters and buffers.
    pub(super) fn load<'a>(&mut self, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> qtensor::Result<()> {
        self.parameters_mut().load(tensors)
    }

    /// The same model with other values.
    pub(super) fn with_parameters(&self, parameters: Parameters) -> Network {
        let mut network = self.clone();
        *network.parameters_mut() = parameters;
        network
    }

    /// Measures the running statistics anew: their means over the batches. Dropout draws its noise by `seed` and the number of the batch.
    pub(super) fn recalibrate(&mut self, batches: impl Iterator<Item = Result<Tensor>>, seed: u64) -> Result<()> {
        for (step, images) in batches.enumerate() {
            let (images, leaves) = (Var::constant(images?), Leaves::constant(self.parameters()));
            let phase = Phase::Train { seed, step: step as u64 };
            let effects = par::install(|| -> Result<Vec<Effect>> {
                let mut tape = Tape::new();
                self.model.forward(&mut tape, &leaves, &images, phase)?;
                Ok(tape.take_effects())
            })?;
            drop(leaves);
            self.model.apply_share(&effects, 1.0 / (step + 1) as f64)?;
        }
        Ok(())
    }

    /// Takes the batch statistics of a step into the running ones.
    pub(super) fn apply(&mut self, effects: &[Effect]) -> Result<()> {
        Ok(self.model.apply(effects)?)
    }

    /// Names and handles of all parameters and buffers.
    pub(super) fn named(&self) -> Vec<(String, Tensor)> {
        self.parameters().named().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
    }

    /// SHA-256 of the parameters and buffers.
    pub(super) fn digest(&self) -> Result<String> {
        weights_digest(self.parameters().named()).map_err(|e| qtensor::Error::from(e).into())
    }

    /// The model prepared for answers with the weights that it has now.
    pub(super) fn folded(&self) -> Result<Folded> {
        Ok(self.model.folded()?)
    }

    /// A forward and a backward pass.
    pub(super) fn learn(&self, lesson: &Lesson<'_>) -> Result<Answer> {
        par::install(|| self.learn_here(lesson))
    }

    fn learn_here(&self, lesson: &Lesson<'_>) -> Result<Answer> {
        let mut tape = Tape::new();
        let (loss, logits, leaves) = self.forward(&mut tape, lesson)?;
        let value = loss.value().item()?;
        let effects = tape.take_effects();
        let gradients = tape.backward(&loss)?;
        Ok(Answer { loss: value, logits: logits.into_value(), gradients: leaves.into_gradients(gradients), effects })
    }

    /// Looks for the first value of a pass that is infinite or not a number.
    pub(super) fn find_not_finite(&self, lesson: &Lesson<'_>) -> Option<String> {
        let mut tape = Tape::new().check_finite();
        let passed = self.forward(&mut tape, lesson).map(|(loss, ..)| loss);
        match passed.and_then(|loss| Ok(tape.backward(&loss)?)) {
            Err(Error::Graph(error @ qgraph::Error::NotFinite { .. })) => Some(error.to_string()),
            _ => None,
        }
    }

    /// A pass with a stopwatch on every op.
    pub(super) fn profile(&self, lesson: &Lesson<'_>, profile: &Profile) -> Result<Cost> {
        par::install(|| self.profile_here(lesson, profile))
    }

    fn profile_here(&self, lesson: &Lesson<'_>, profile: &Profile) -> Result<Cost> {
        let start = Instant::now();
        let mut tape = Tape::new().profile(profile);
        let (loss, logits, leaves) = self.forward(&mut tape, lesson)?;
        drop(logits);
        let forward = start.elapsed();
        let held = self.parameters().named().map(|(_, tensor)| tensor).chain([lesson.images, lesson.targets]);
        let retained = tape.retained_except(held);
        let start = Instant::now();
        drop(leaves.into_gradients(tape.backward(&loss)?));
        Ok(Cost { forward, backward: start.elapsed(), retained })
    }

    fn forward(&self, tape: &mut Tape, lesson: &Lesson<'_>) -> Result<(Var, Var, Leaves)> {
        let leaves = Leaves::on(tape, self.parameters());
        let phase = Phase::Train { seed: lesson.seed, step: lesson.pass };
        let images = Var::constant(lesson.precision.of_images(lesson.images)?);
        let logits = self.model.forward(tape, &leaves, &images, phase)?;
        let loss = tape.cross_entropy(&logits, lesson.targets, lesson.label_smoothing)?;
        Ok((loss, logits, leaves))
    }
}
