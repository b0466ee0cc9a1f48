use super::layers::Stage;
use crate::Result;
use crate::nn::{Context, Inputs, Leaves, Phase, marks};
use crate::train::CalibrationImages;
use qgraph::{Pass, Probe, SightingKind, Tape, Var};
use qkernels::par;
use qtensor::Tensor;
use std::sync::{Arc, Mutex};

/// The calibration images of one network on their way through its stages. What the stage at hand is given is kept for as many mini-batches as the
/// budget allows; for the others it is computed again from the images.
#[derive(Clone, Debug)]
pub(super) struct Activations {
    /// Number of the stage whose inputs are kept.
    stage: usize,
    kept: Vec<Option<Tensor>>,
    /// Images in all.
    images: usize,
    budget: u64,
}

impl Activations {
    /// The images themselves.
    pub(super) fn begin(images: &mut CalibrationImages, budget: u64) -> Result<Self> {
        let (mut bytes, mut kept) = (0, Vec::new());
        for number in 0..images.batches() {
            let batch = if bytes < budget { Some(images.batch(number)?) } else { None };
            bytes += batch.as_ref().map_or(0, Tensor::buffer_bytes) as u64;
            kept.push(batch);
        }
        Ok(Activations { stage: 0, kept, images: images.images(), budget })
    }

    /// Mini-batches.
    pub(super) fn batches(&self) -> usize {
        self.kept.len()
    }

    /// Images in all.
    pub(super) fn images(&self) -> usize {
        self.images
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.kept.iter().flatten().map(|x| x.buffer_bytes() as u64).sum()
    }

    /// What the stage at hand is given for a mini-batch.
    pub(super) fn input(&self, number: usize, network: &Network<'_>, images: &mut CalibrationImages) -> Result<Tensor> {
        match &self.kept[number] {
            Some(x) => Ok(x.clone()),
            None => network.run(0..self.stage, images.batch(number)?),
        }
    }

    /// Goes on to a later stage.
    pub(super) fn advance(&mut self, to: usize, network: &Network<'_>, images: &mut CalibrationImages) -> Result<()> {
        let mut bytes = 0;
        for number in 0..self.kept.len() {
            if bytes >= self.budget {
                self.kept[number] = None;
                continue;
            }
            let x = self.input(number, network, images)?;
            // The old values go before the new ones come.
            self.kept[number] = None;
            let y = network.run(self.stage..to, x)?;
            bytes += y.buffer_bytes() as u64;
            self.kept[number] = Some(y);
        }
        self.stage = to;
        Ok(())
    }
}

/// Stages with parameters.
pub(super) struct Network<'a> {
    pub(super) stages: &'a [Stage<'a>],
    pub(super) leaves: Leaves,
    /// Projections whose inputs are quantized.
    pub(super) inputs: Arc<Inputs>,
}

impl Network<'_> {
    /// The result of these stages.
    pub(super) fn run(&self, stages: std::ops::Range<usize>, x: Tensor) -> Result<Tensor> {
        self.stages[stages].iter().try_fold(x, |x, stage| self.forward(stage, &x, Tape::new()))
    }

    /// What the projection of that name is given within a stage.
    pub(super) fn input_of(&self, name: &str, stage: usize, x: &Tensor) -> Result<Tensor> {
        let seen = Arc::new(Mutex::new(None));
        let (scope, place) = (name.to_string(), seen.clone());
        let probe = Probe::new(move |sighting| {
            let is_input = sighting.kind == SightingKind::Mark && sighting.name == marks::INPUT;
            if is_input && sighting.scope == scope && sighting.pass == Pass::Forward {
                *place.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(sighting.tensor.clone());
            }
        });
        self.forward(&self.stages[stage], x, Tape::new().probe(&probe))?;
        let seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let missing = || qgraph::Error::argument("quantize", format!("the network never ran its layer {name}"));
        Ok(seen.ok_or_else(missing)?)
    }

    fn forward(&self, stage: &Stage<'_>, x: &Tensor, mut tape: Tape) -> Result<Tensor> {
        let context = Context::new(Phase::Evaluate, &self.leaves, Arc::default()).with_inputs(self.inputs.clone());
        let y = par::install(|| stage.forward(&mut tape, &Var::constant(x.clone()), &context))?;
        Ok(y.into_value())
    }
}
