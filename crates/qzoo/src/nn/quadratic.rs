use super::batch_norm::EPS;
use super::context::QuadraticRules;
use super::neuron::{Neuron, NeuronConfig, Sees, Term};
use super::start::{Start, marked};
use super::{
    Activation, BatchNorm, Builder, Context, Map, Parameters, Projection, ProjectionConfig, Walk, marks, projection,
};
use qgraph::ops::{Combine, Keep, NormalisedCombine, Projections};
use qgraph::{Error, Result, Tape, Var};
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
    /// Of each projection.
    activations: Vec<Activation>,
}

impl Quadratic {
    /// Builds the projections as `config` says, with its initial values for each, or so that the neuron starts first-order.
    ///
    /// # Errors
    /// As [`projection`], and a neuron that cannot start first-order.
    pub fn build(
        builder: &mut Builder<'_>,
        config: ProjectionConfig<'_>,
        neuron: Neuron,
        branches: NeuronConfig,
    ) -> Result<Self> {
        let start = Start::of(builder, &config, &neuron, branches)?;
        let mut scope = builder.scope(config.name);
        let kind = if matches!(config.map, Map::Linear(_)) { "fc" } else { "conv" };
        let matrices = (0..neuron.matrices()).map(|i| {
            let name = format!("{kind}{}", i + 1);
            let config = start.projection(ProjectionConfig { name: &name, sees: neuron.sees_of(i), ..config }, i);
            marked(&mut scope, neuron.role_of(i), |scope| projection(scope, config))
        });
        let matrices = matrices.collect::<Result<Vec<_>>>()?;
        let roles = neuron.roles();
        let norms = roles.iter().zip(1..).filter(|_| branches.branch_norm).map(|(role, i)| {
            let values = start.norm(*role);
            marked(&mut scope, *role, |scope| {
                BatchNorm::starting_at(scope, &format!("bn{i}"), config.map.outputs(), values)
            })
        });
        let norms = norms.collect::<Result<_>>()?;
        let activations = roles.iter().zip(1..).filter_map(|(role, i)| Some((role, i, branches.branch_activation?)));
        let activations = activations.map(|(role, i, name)| {
            marked(&mut scope, *role, |scope| Activation::build(scope, &format!("activation{i}"), name))
        });
        let activations = activations.collect::<Result<_>>()?;
        Ok(Quadratic { name: config.name.to_string(), neuron, matrices, norms, activations })
    }

    /// The combined projections.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        tape.scope(&self.name, |tape| {
            let mut first = 0;
            let mut sum: Option<Var> = None;
            for term in &self.neuron.terms {
                let y = self.term(tape, term, first, x, context)?;
                first += term.sees.len();
                sum = Some(match sum {
                    Some(sum) => tape.add(&sum, &y)?,
                    None => y,
                });
            }
            let sum = sum.ok_or_else(|| Error::argument("quadratic", "a neuron without projections"))?;
            tape.mark(marks::NEURON, &sum);
            Ok(sum)
        })
    }

    /// A term, whose projections follow the `first` of the neuron.
    fn term(&self, tape: &mut Tape, term: &Term, first: usize, x: &Var, context: &Context) -> Result<Var> {
        let range = first..first + term.sees.len();
        let norms = if self.is_folded(context) { &[][..] } else { self.norms.get(range.clone()).unwrap_or(&[]) };
        if self.is_sparse(term, context) {
            let parts = self.separate(tape, term, first, x, context)?;
            return self.elementary(tape, term, first, (parts, norms), context);
        }
        let z = self.projections(tape, term, first, x, context)?;
        let rule = match term.rule {
            Some(rule) if self.is_one_node(term, context) => rule,
            _ => {
                let parts = self.parts(tape, term, &z)?;
                return self.elementary(tape, term, first, (parts, norms), context);
            }
        };
        if norms.is_empty() {
            return tape.apply(Combine { rule, activation: Epilogue::None }, &[&z]);
        }
        if !context.training() {
            let normalised = self
                .parts(tape, term, &z)?
                .into_iter()
                .zip(norms)
                .map(|(z, norm)| norm.forward(tape, &z, None, Activation::Identity, context));
            let normalised = normalised.collect::<Result<Vec<_>>>()?;
            let z = tape.concatenate(&normalised.iter().collect::<Vec<_>>(), 0)?;
            return tape.combine(rule, &z);
        }
        let scales = norms.iter().map(|norm| norm.scale(context)).collect::<Result<Vec<_>>>()?;
        let shifts = norms.iter().map(|norm| norm.shift(context)).collect::<Result<Vec<_>>>()?;
        let keys = norms.iter().map(BatchNorm::statistics).collect();
        let keep = match context.quadratic() {
            QuadraticRules::KeepNormalised => Keep::Normalised,
            _ => Keep::Projections,
        };
        tape.normalised_combine(NormalisedCombine { rule, eps: EPS, keys, keep }, &z, &scales, &shifts)
    }

    /// A term as recorded ops, from its projections and their normalisations.
    fn elementary(
        &self,
        tape: &mut Tape,
        term: &Term,
        first: usize,
        (mut parts, norms): (Vec<Var>, &[BatchNorm]),
        context: &Context,
    ) -> Result<Var> {
        for (i, part) in parts.iter_mut().enumerate() {
            let activation = self.activations.get(first + i).copied().unwrap_or(Activation::Identity);
            *part = match norms.get(i) {
                Some(norm) => norm.forward(tape, part, None, activation, context)?,
                None => activation.forward(tape, part, context)?,
            };
            tape.mark(format_args!("{}{}", marks::BRANCH, first + i + 1), part);
        }
        elementary(tape, term, &parts)
    }

    /// Whether projections of a term run on sparse kernels, each by itself.
    fn is_sparse(&self, term: &Term, context: &Context) -> bool {
        term.weights.iter().any(|matrix| context.sparse(self.matrices[*matrix].weight()).is_some())
    }

    /// The projections of a term, each by itself.
    fn separate(&self, tape: &mut Tape, term: &Term, first: usize, x: &Var, context: &Context) -> Result<Vec<Var>> {
        let mut square: Option<Var> = None;
        let mut parts = Vec::with_capacity(term.sees.len());
        for (i, (sees, matrix)) in term.sees.iter().zip(&term.weights).enumerate() {
            let projection = &self.matrices[*matrix];
            let bias = self.bias(first + i, projection, context)?;
            let seen = match sees {
                Sees::Square if square.is_none() => square.insert(tape.square(x)?),
                Sees::Square => square.as_ref().unwrap_or(x),
                _ => x,
            };
            parts.push(projection.forward_with_bias(tape, seen, Epilogue::None, bias, context)?);
        }
        Ok(parts)
    }

    /// Whether a term is one node with a rule of its own: where there is nothing between projections and combination that the rule does not know.
    fn is_one_node(&self, term: &Term, context: &Context) -> bool {
        term.rule.is_some() && context.quadratic() != QuadraticRules::Elementary && self.activations.is_empty()
    }

    /// All projections of a term, one after the other along the batch.
    fn projections(&self, tape: &mut Tape, term: &Term, first: usize, x: &Var, context: &Context) -> Result<Var> {
        let used: Vec<&Projection> = term.weights.iter().map(|matrix| &self.matrices[*matrix]).collect();
        let weights = used.iter().map(|p| context.parameter(p.weight())).collect::<Result<Vec<_>>>()?;
        used.iter().for_each(|projection| tape.scope(projection.name(), |tape| tape.mark(marks::INPUT, x)));
        // All projections of a term see the same.
        let given = context.given(used[0].weight());
        let rounded = given.map(|given| given.rounded(x)).transpose()?;
        let x = rounded.as_ref().unwrap_or(x);
        let biases = used.iter().enumerate().map(|(i, p)| self.bias(first + i, p, context));
        let biases: Vec<&Var> = biases.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let op = Projections {
            map: used[0].linear_map(),
            sees: term.sees.clone(),
            bias: !biases.is_empty(),
            again: context.training() && context.quadratic() == QuadraticRules::KeepInput,
            measures: context.training() && self.is_one_node(term, context) && !self.norms.is_empty(),
        };
        tape.projections(op, x, &weights, &biases)
    }

    /// The bias of a projection; that of a folded normalisation is its shift.
    fn bias<'a>(&self, i: usize, projection: &Projection, context: &'a Context) -> Result<Option<&'a Var>> {
        match self.norms.get(i) {
            Some(norm) if self.is_folded(context) => norm.shift(context).map(Some),
            _ => projection.bias().map(|bias| context.parameter(bias)).transpose(),
        }
    }

    /// Joined projections apart.
    fn parts(&self, tape: &mut Tape, term: &Term, z: &Var) -> Result<Vec<Var>> {
        let count = term.sees.len();
        if count == 1 {
            return Ok(vec![z.clone()]);
        }
        let images = z.shape()[0] / count;
        (0..count).map(|i| tape.slice(z, 0, i * images..(i + 1) * images)).collect()
    }

    /// Positions of the weights of each projection and of its normalisation's running mean.
    pub(crate) fn normalised(&self) -> Vec<[usize; 2]> {
        let weights =
            self.neuron.terms.iter().flat_map(|term| &term.weights).map(|matrix| self.matrices[*matrix].weight());
        weights.zip(&self.norms).map(|(weight, norm)| [weight, norm.statistics()]).collect()
    }

    /// Makes the normalisation of each projection part of its weights, where no two share them.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub(crate) fn fold(&self, parameters: &mut Parameters) -> Result<()> {
        for (i, norm) in self.norms.iter().enumerate().filter(|_| self.folds()) {
            let Some(matrix) = self.matrix_of(i) else { continue };
            let projection = &self.matrices[matrix];
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
    pub fn takes_outer(&self) -> bool {
        self.ends().is_some()
    }

    /// Weights and, once folded, biases of the first and the third projection of `z1 · z2 + z3`, where no other shares them.
    fn ends(&self) -> Option<[(usize, usize); 2]> {
        let is_apart = self.neuron.matrices() == self.neuron.projections();
        let [Term { rule: Some(Rule::ProductAndSum), weights, .. }] = &self.neuron.terms[..] else { return None };
        if !is_apart || !self.activations.is_empty() {
            return None;
        }
        let end = |i: usize| {
            let projection = &self.matrices[weights[i]];
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
            let z = self.projections(tape, &self.neuron.terms[0], 0, x, context)?;
            let inputs: Vec<&Var> = std::iter::once(&z).chain(residual).collect();
            tape.apply(Combine { rule: Rule::ProductAndSum, activation }, &inputs)
        })
    }

    /// Whether the normalisations of the projections can be folded into them: shared weights have one scale for each use.
    pub fn folds(&self) -> bool {
        self.neuron.matrices() == self.neuron.projections() && !self.norms.is_empty()
    }

    /// The weights of a projection.
    fn matrix_of(&self, projection: usize) -> Option<usize> {
        self.neuron.terms.iter().flat_map(|term| &term.weights).nth(projection).copied()
    }

    fn is_folded(&self, context: &Context) -> bool {
        context.is_folded() && self.folds()
    }

    /// The row of the table.
    pub fn neuron(&self) -> &Neuron {
        &self.neuron
    }

    /// One projection for each matrix of weights.
    pub fn matrices(&self) -> &[Projection] {
        &self.matrices
    }

    /// The normalisation of each projection, or none.
    pub fn norms(&self) -> &[BatchNorm] {
        &self.norms
    }

    /// The activation of each projection, or none.
    pub fn activations(&self) -> &[Activation] {
        &self.activations
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
                let macs = self.neuron.uses(matrix) as u64 * projection.macs(output);
                walk.row(projection.name(), projection.kind(), output, projection.parameters(), macs);
            }
            for norm in &self.norms {
                walk.row(norm.name(), "batch_norm".into(), output, norm.parameters(), 0);
            }
        });
    }
}

/// A combination made of ops that know nothing of each other. Its summands are marked by their degree in the input of the neuron.
fn elementary(tape: &mut Tape, term: &Term, n: &[Var]) -> Result<Var> {
    let of = |sees: Sees| if sees == Sees::Input { marks::LINEAR } else { marks::SECOND_ORDER };
    let (y, mark, also) = match term.rule {
        None => (n[0].clone(), of(term.sees[0]), None),
        Some(Rule::Square) => (tape.square(&n[0])?, marks::SECOND_ORDER, None),
        Some(Rule::Product) => (tape.mul(&n[0], &n[1])?, marks::SECOND_ORDER, None),
        Some(Rule::ProductAndSum) => (tape.mul(&n[0], &n[1])?, marks::SECOND_ORDER, Some(2)),
        Some(Rule::ProductAndFirst) => (tape.mul(&n[0], &n[1])?, marks::SECOND_ORDER, Some(0)),
    };
    tape.mark(mark, &y);
    let Some(also) = also else { return Ok(y) };
    tape.mark(of(term.sees[also]), &n[also]);
    tape.add(&y, &n[also])
}
