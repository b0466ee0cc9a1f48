use super::batch_norm::EPS;
use super::neuron::{Neuron, Sees};
use super::{Activation, BatchNorm, Builder, Context, Map, Parameters, Projection, ProjectionConfig, Walk, projection};
use qgraph::ops::{Combine, NormalisedCombine};
use qgraph::{Result, Tape, Var};
use qkernels::Activation as Epilogue;
use qkernels::quadratic::Rule;

/// The projections of a quadratic neuron, each perhaps batch-normalised, and their combination.
///
/// The parts are named as in QuadraLib: `conv1`, `bn1`, `conv2` and so on below the layer's name.
#[derive(Clone, Debug)]
pub struct Quadratic {
    name: String,
    neuron: Neuron,
    /// One for each matrix of weights.
    matrices: Vec<Projection>,
    /// One for each projection, or none.
    norms: Vec<BatchNorm>,
}

impl Quadratic {
    /// Builds the projections as `config` says, with its initial values for each.
    ///
    /// # Errors
    /// As [`projection`].
    pub fn build(builder: &mut Builder<'_>, config: ProjectionConfig<'_>, neuron: Neuron, norm: bool) -> Result<Self> {
        let mut scope = builder.scope(config.name);
        let kind = if matches!(config.map, Map::Linear(_)) { "fc" } else { "conv" };
        let matrices = (1..=neuron.matrices()).map(|i| {
            let name = format!("{kind}{i}");
            projection(&mut scope, ProjectionConfig { name: &name, ..config })
        });
        let matrices = matrices.collect::<Result<Vec<_>>>()?;
        let count = if norm { neuron.projections() } else { 0 };
        let norms = (1..=count).map(|i| BatchNorm::build(&mut scope, &format!("bn{i}"), config.map.outputs()));
        Ok(Quadratic { name: config.name.to_string(), neuron, matrices, norms: norms.collect::<Result<_>>()? })
    }

    /// The combined projections.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        tape.scope(&self.name, |tape| {
            let folded = self.is_folded(context);
            let z = self.projections(tape, x, context)?;
            let Some(rule) = self.neuron.rule else {
                return match self.norms.first() {
                    Some(norm) if !folded => norm.forward(tape, &z, None, Activation::Identity, context),
                    _ => Ok(z),
                };
            };
            if self.norms.is_empty() || folded {
                return tape.apply(Combine { rule, activation: Epilogue::None }, &[&z]);
            }
            if !context.training() {
                let normalised = self
                    .parts(tape, &z)?
                    .into_iter()
                    .zip(&self.norms)
                    .map(|(z, norm)| norm.forward(tape, &z, None, Activation::Identity, context));
                let normalised = normalised.collect::<Result<Vec<_>>>()?;
                let z = tape.concatenate(&normalised.iter().collect::<Vec<_>>(), 0)?;
                return tape.combine(rule, &z);
            }
            let scales = self.norms.iter().map(|norm| norm.scale(context)).collect::<Result<Vec<_>>>()?;
            let shifts = self.norms.iter().map(|norm| norm.shift(context)).collect::<Result<Vec<_>>>()?;
            let keys = self.norms.iter().map(BatchNorm::statistics).collect();
            tape.normalised_combine(NormalisedCombine { rule, eps: EPS, keys }, &z, &scales, &shifts)
        })
    }

    /// All projections, one after the other along the batch.
    fn projections(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        let mut joined = Vec::new();
        for sees in [Sees::Input, Sees::Square] {
            let which: Vec<usize> = (0..self.neuron.projections()).filter(|i| self.neuron.sees[*i] == sees).collect();
            if which.is_empty() {
                continue;
            }
            let x = if sees == Sees::Square { tape.square(x)? } else { x.clone() };
            let projections: Vec<&Projection> = which.iter().map(|i| &self.matrices[self.neuron.weights[*i]]).collect();
            let biases = which.iter().zip(&projections).map(|(i, p)| self.bias(*i, p, context));
            let biases = biases.collect::<Result<Vec<_>>>()?;
            joined.push(Projection::forward_stacked(tape, &projections, &x, &biases, context)?);
        }
        match joined.as_slice() {
            [one] => Ok(one.clone()),
            all => tape.concatenate(&all.iter().collect::<Vec<_>>(), 0),
        }
    }

    /// The bias of a projection; that of a folded normalisation is its shift.
    fn bias<'a>(&self, i: usize, projection: &Projection, context: &'a Context) -> Result<Option<&'a Var>> {
        match self.norms.get(i) {
            Some(norm) if self.is_folded(context) => norm.shift(context).map(Some),
            _ => projection.bias().map(|bias| context.parameter(bias)).transpose(),
        }
    }

    /// Joined projections apart.
    fn parts(&self, tape: &mut Tape, z: &Var) -> Result<Vec<Var>> {
        let count = self.neuron.projections();
        let images = z.shape()[0] / count;
        (0..count).map(|i| tape.slice(z, 0, i * images..(i + 1) * images)).collect()
    }

    /// Positions of the weights of each projection and of its normalisation's running mean.
    pub(crate) fn normalised(&self) -> Vec<[usize; 2]> {
        let weights = self.neuron.weights.iter().map(|matrix| self.matrices[*matrix].weight());
        weights.zip(&self.norms).map(|(weight, norm)| [weight, norm.statistics()]).collect()
    }

    /// Makes the normalisation of each projection part of its weights, where no two share them.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub(crate) fn fold(&self, parameters: &mut Parameters) -> Result<()> {
        for (i, norm) in self.norms.iter().enumerate().filter(|_| self.folds()) {
            let projection = &self.matrices[self.neuron.weights[i]];
            norm.fold(parameters, projection.weight(), projection.bias())?;
        }
        Ok(())
    }

    /// Makes the normalisation behind the combination part of the projections too, where it is `z1 · z2 + z3` of projections with biases: the scale goes to
    /// the first and the third, the shift to the third.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub(crate) fn fold_outer(&self, parameters: &mut Parameters, norm: &BatchNorm) -> Result<()> {
        let Some([first, third]) = self.ends() else { return Ok(()) };
        let [scale, shift] = norm.affine(parameters)?;
        for ((weight, bias), shift) in [first, third].into_iter().zip([None, Some(shift)]) {
            parameters.scale_rows(weight, &scale)?;
            parameters.scale_rows(bias, &scale)?;
            if let Some(shift) = shift {
                let old = parameters.parameters()[bias].value.to_vec::<f32>()?;
                let sum: Vec<f64> = old.iter().zip(shift).map(|(old, shift)| f64::from(*old) + shift).collect();
                parameters.set_values(bias, &sum)?;
            }
        }
        Ok(())
    }

    /// Whether a normalisation behind the combination can be folded.
    pub(crate) fn takes_outer(&self) -> bool {
        self.ends().is_some()
    }

    /// Weights and, once folded, biases of the first and the third projection of `z1 · z2 + z3`, where no other shares them.
    fn ends(&self) -> Option<[(usize, usize); 2]> {
        let is_apart = self.neuron.matrices() == self.neuron.projections();
        if self.neuron.rule != Some(Rule::ProductAndSum) || !is_apart {
            return None;
        }
        let end = |i: usize| {
            let projection = &self.matrices[self.neuron.weights[i]];
            let bias = self.norms.get(i).map(BatchNorm::shift_position).or(projection.bias())?;
            Some((projection.weight(), bias))
        };
        Some([end(0)?, end(2)?])
    }

    /// `epilogue(combination + residual)` with folded weights, in one pass, where the neuron [takes](Self::takes_outer) the normalisation behind it.
    ///
    /// # Errors
    /// The input or the residual does not fit.
    pub(crate) fn forward_folded(
        &self,
        tape: &mut Tape,
        x: &Var,
        residual: Option<&Var>,
        activation: Epilogue,
        context: &Context,
    ) -> Result<Var> {
        tape.scope(&self.name, |tape| {
            let z = self.projections(tape, x, context)?;
            let inputs: Vec<&Var> = std::iter::once(&z).chain(residual).collect();
            tape.apply(Combine { rule: Rule::ProductAndSum, activation }, &inputs)
        })
    }

    /// Whether [`fold`](Self::fold) can: shared weights have one scale for each use.
    fn folds(&self) -> bool {
        self.neuron.matrices() == self.neuron.projections() && !self.norms.is_empty()
    }

    fn is_folded(&self, context: &Context) -> bool {
        context.is_folded() && self.folds()
    }

    /// Its name within the scope of its parent.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The map of each projection.
    pub fn map(&self) -> &Map {
        self.matrices[0].map()
    }

    /// Adds a row for each projection and normalisation.
    pub(crate) fn describe(&self, output: &[usize], walk: &mut Walk) {
        walk.scope(&self.name, |walk| {
            for (matrix, projection) in self.matrices.iter().enumerate() {
                let uses = self.neuron.weights.iter().filter(|used| **used == matrix).count() as u64;
                let macs = uses * projection.macs(output);
                walk.row(projection.name(), projection.kind(), output, projection.parameters(), macs);
            }
            for norm in &self.norms {
                walk.row(norm.name(), "batch_norm".into(), output, norm.parameters(), 0);
            }
        });
    }
}
