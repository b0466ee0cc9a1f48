use super::{Builder, Neuron, NeuronConfig, ProjectionConfig, Role};
use crate::experiment::QuadraticInit;
use crate::init::Init;
use qgraph::{Error, Result};

/// How the parts of a quadratic neuron start: what the experiment says of its second-order part.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The roles of the matrices, where the neuron is to start first-order.
    linear: Option<Vec<Role>>,
    /// Whether normalisations behind the projections give the constants.
    normalised: bool,
}

impl Start {
    /// For the projections of a neuron in the layer that `config` names within the builder's path.
    ///
    /// # Errors
    /// The neuron is to start first-order and has no first-order part, or one whose other factor is to be 1 without a bias or a normalisation for that.
    pub(super) fn of(
        builder: &Builder<'_>,
        config: &ProjectionConfig<'_>,
        neuron: &Neuron,
        branches: NeuronConfig,
    ) -> Result<Start> {
        let normalised = branches.branch_norm;
        if branches.init == QuadraticInit::Default {
            return Ok(Start { linear: None, normalised });
        }
        let refuse = |why: &str| {
            let layer = builder.join(config.name);
            let message = format!("{layer} cannot start linear: the neuron {} {why}", branches.name);
            Err(Error::argument("quadratic_init", message))
        };
        if !neuron.starts_linear() {
            return refuse("has no first-order part; choose another neuron or quadratic_init = \"default\"");
        }
        if neuron.roles().contains(&Role::One) && !normalised && !config.bias {
            return refuse("then needs branch_norm = true or a layer with biases");
        }
        Ok(Start { linear: Some((0..neuron.matrices()).map(|i| neuron.role_of(i)).collect()), normalised })
    }

    /// The projection number `matrix` with its initial values.
    pub(super) fn projection<'a>(&self, config: ProjectionConfig<'a>, matrix: usize) -> ProjectionConfig<'a> {
        let role = self.linear.as_ref().filter(|_| !self.normalised).and_then(|roles| roles.get(matrix));
        match role.and_then(|role| role.constant()) {
            Some(value) => {
                ProjectionConfig { weight_init: Init::Constant(0.0), bias_init: Some(Init::Constant(value)), ..config }
            }
            None => config,
        }
    }

    /// Scale and shift of the normalisation behind a projection of that role. A scale of 0 rather than weights of 0: the variance of what it normalises
    /// stays as usual, and so do the gradients.
    pub(super) fn norm(&self, role: Role) -> [f64; 2] {
        let constant = self.linear.as_ref().and_then(|_| role.constant());
        constant.map_or([1.0, 0.0], |value| [0.0, value])
    }
}

/// Builds a part of a projection of that role, and marks its parameters if they are of the second-order part.
pub(super) fn marked<T>(
    builder: &mut Builder<'_>,
    role: Role,
    build: impl FnOnce(&mut Builder<'_>) -> Result<T>,
) -> Result<T> {
    let first = builder.position();
    let part = build(builder)?;
    if role.is_quadratic() {
        builder.mark_quadratic(first);
    }
    Ok(part)
}
