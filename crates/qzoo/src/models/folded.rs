use super::Model;
use crate::nn::{Context, Leaves, Sequential};
use qgraph::{Result, Tape, Var};
use qkernels::par;
use qtensor::Tensor;

/// A network prepared for answers only: every batch normalisation that directly follows a convolution or a linear layer is part of its weights and its
/// bias, and activations are applied where the result is computed. The logits are those of [`Model::infer`] up to rounding.
///
/// ```
/// use qgraph::Tensor;
/// use qzoo::{experiment, models::Model};
/// let config = experiment::Model { name: experiment::ModelName::ResNet20, width: 0.25, ..Default::default() };
/// let folded = Model::build(&config, [3, 32, 32], 10, 0)?.folded()?;
/// assert_eq!(*folded.infer(&Tensor::full([2, 3, 32, 32], 0.5f32)?)?.shape(), [2, 10]);
/// # Ok::<(), qgraph::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Folded {
    /// With the folded parameters.
    model: Model,
    leaves: Leaves,
}

impl Folded {
    pub(super) fn new(model: &Model, network: &Sequential) -> Result<Self> {
        let mut model = model.clone();
        network.composites().into_iter().try_for_each(|composite| composite.fold(model.parameters_mut()))?;
        let leaves = Leaves::constant(model.parameters());
        Ok(Folded { model, leaves })
    }

    /// Logits `[N, classes]` for images `[N, C, H, W]`, with running statistics and without dropout.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn infer(&self, images: &Tensor) -> Result<Tensor> {
        let images = Var::constant(images.clone());
        let context = Context::folded(&self.leaves, Default::default());
        par::install(|| Ok(self.model.forward_in(&mut Tape::new(), &images, &context)?.into_value()))
    }
}
