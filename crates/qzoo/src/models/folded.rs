use super::Model;
use crate::nn::{Body, Composite, Context, Inputs, Leaves, Phase, Sequential, hand_over_bytes};
use qgraph::{Result, Tape, Var};
use qkernels::par;
use qtensor::Tensor;
use std::sync::Arc;

/// A network prepared for answers only: every batch normalisation that directly follows a convolution or a linear layer is part of its weights and its
/// bias, and activations are applied where the result is computed. A batch goes through the network in slices that stay in the caches. The logits are those of [`Model::infer`] up to rounding.
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
    /// Images that go through the network together.
    slice: usize,
}

/// Bytes of the largest activation of a slice: a core's cache holds it and what is computed from it.
const SLICE_BYTES: u64 = 1 << 20;
/// Weights are prepared again for each slice, which takes as many times their bytes, and should be a small part of the work.
const PREPARATION: u64 = 8;

/// How many images fit the caches while they go through the network, or all where preparing the weights for each slice would cost more than that saves.
/// It depends on nothing but the network, so that results do not depend on the number of threads.
fn slice(model: &Model) -> Result<usize> {
    let rows = model.summary()?;
    let weights: u64 = rows.iter().map(|row| 4 * row.parameters as u64).sum();
    let activations = rows.iter().map(|row| row.activation_bytes);
    let slice = (SLICE_BYTES / activations.clone().max().unwrap_or(1).max(1)).max(1);
    Ok(if PREPARATION * weights <= slice * activations.sum::<u64>() { slice as usize } else { usize::MAX })
}

/// The quantized projections of a network with weights for integer kernels, which hand bytes to one another where they can; the scale of a normalisation that is folded into them in their scales.
fn integers(model: &Model) -> Result<Inputs> {
    let mut inputs = Inputs::clone(model.inputs());
    for unit in model.network().composites().into_iter().flat_map(Composite::units) {
        let Body::Unit(unit) = unit.body() else { continue };
        let Some((projection, norm)) = unit.first_order() else { continue };
        let Some(given) = inputs.get_mut(&projection.weight()) else { continue };
        let Some(codes) = &given.codes else { continue };
        let affine = norm.map(|norm| norm.affine(model.parameters())).transpose()?;
        let factors = affine.as_ref().map(|[scale, _]| scale.as_slice());
        given.weights = Some(Arc::new(codes.pack(projection, factors)?));
    }
    hand_over_bytes(model.network(), &mut inputs);
    Ok(inputs)
}

impl Folded {
    pub(super) fn new(model: &Model, network: &Sequential) -> Result<Self> {
        let mut model = model.clone();
        model.set_inputs(integers(&model)?);
        network.composites().into_iter().try_for_each(|composite| composite.fold(model.parameters_mut()))?;
        let leaves = Leaves::constant(model.parameters());
        let slice = slice(&model)?;
        Ok(Folded { model, leaves, slice })
    }

    /// Logits `[N, classes]` for images `[N, C, H, W]`, with running statistics and without dropout.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn infer(&self, images: &Tensor) -> Result<Tensor> {
        let count = images.shape().first().copied().unwrap_or(0);
        let slices = count.div_ceil(self.slice);
        if slices < 2 {
            return par::install(|| self.infer_slice(images.clone()));
        }
        let size = count.div_ceil(slices);
        let infer = |i: usize| self.infer_slice(images.slice(0, (i * size).min(count)..((i + 1) * size).min(count))?);
        let logits = par::install(|| par::map_whole(slices, infer)).into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Tensor::concatenate(&logits, 0)?)
    }

    fn infer_slice(&self, images: Tensor) -> Result<Tensor> {
        let context = Context::folded(&self.leaves, Default::default())
            .with_inputs(self.model.inputs().clone())
            .with_sparse(self.model.sparse_in(Phase::Evaluate));
        Ok(self.model.forward_in(&mut Tape::new(), &Var::constant(images), &context)?.into_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{self, ModelName, Quantize, QuantizerName};
    use crate::quantize::{Quantizer, Recipe};
    use crate::train::{CalibrationImages, Silent};
    use qtensor::DType;

    /// Images of a smooth pattern.
    fn images(count: usize) -> Tensor {
        let mut images = Tensor::empty([count, 3, 32, 32], DType::F32).unwrap();
        let values = images.memory_mut::<f32>().unwrap();
        values.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 37 % 101) as f32 / 50.0 - 1.0);
        images
    }

    /// Names of the layers that hand bytes to the next one, and how far the logits are from those with f32 between all layers, as a share of their size.
    fn bytes_between_layers(name: ModelName) -> (Vec<String>, f64) {
        let config = experiment::Model { name, width: 0.25, ..Default::default() };
        let (model, images) = (Model::build(&config, [3, 32, 32], 10, 0).unwrap(), images(8));
        let settings = Quantize { method: QuantizerName::Msq, activation_bits: Some(8), ..Quantize::default() };
        let given = CalibrationImages::of(vec![images.clone()]).unwrap();
        let mut quantizer = Quantizer::new(&model, &settings, 0, given).unwrap();
        let found = quantizer.quantize(&Recipe::uniform(8.0, 1.0), &mut Silent).unwrap().unwrap();
        let folded = found.model(&model).unwrap().folded().unwrap();
        let mut apart = folded.clone();
        let mut inputs = Inputs::clone(apart.model.inputs());
        inputs.values_mut().for_each(|given| given.result = None);
        apart.model.set_inputs(inputs);
        let [together, apart] = [&folded, &apart].map(|folded| folded.infer(&images).unwrap().to_vec::<f32>().unwrap());
        let (mut error, mut size) = (0.0, 0.0);
        for (a, b) in together.iter().zip(&apart) {
            error += f64::from(a - b).powi(2);
            size += f64::from(*b).powi(2);
        }
        let names = folded.model.inputs().iter().filter(|(_, given)| given.result.is_some());
        let names = names.map(|(position, _)| model.parameters().parameters()[*position].name.clone());
        (names.collect(), (error / size).sqrt())
    }

    #[test]
    fn layers_on_integers_hand_over_bytes() {
        let (names, apart) = bytes_between_layers(ModelName::Vgg7);
        assert_eq!(
            names,
            [0, 3, 7, 10, 14, 18, 22].map(|i| format!("features.{i}.weight")),
            "the classifier gives logits"
        );
        // The same numbers, but for products that another rounding of the scale puts on the other side of a middle.
        assert!(apart < 0.02, "{apart}");
        let (names, apart) = bytes_between_layers(ModelName::ResNet20);
        let expected: Vec<String> = (0..9).map(|i| format!("layer{}.{}.conv1.weight", i / 3 + 1, i % 3)).collect();
        assert_eq!(names, expected, "sums of a block stay f32");
        assert!(apart < 0.02, "{apart}");
    }

    #[test]
    fn slices_give_the_logits_of_the_whole_batch() {
        let config = experiment::Model { name: ModelName::ResNet20, width: 0.5, ..Default::default() };
        let model = Model::build(&config, [3, 32, 32], 10, 0).unwrap();
        let images = images(5);
        let folded = model.folded().unwrap();
        let logits = |slice| {
            let infer = || Folded { slice, ..folded.clone() }.infer(&images).unwrap().to_vec::<f32>().unwrap();
            let one = par::with_threads(1, infer).unwrap();
            for threads in 2..=4 {
                assert_eq!(par::with_threads(threads, infer).unwrap(), one, "{threads} threads, slices of {slice}");
            }
            one
        };
        let whole = logits(usize::MAX);
        for slice in 1..=4 {
            for (found, expected) in logits(slice).iter().zip(&whole) {
                assert!((found - expected).abs() <= 1e-4, "slices of {slice}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn small_networks_of_large_activations_are_sliced() {
        let slice_of = |name| {
            let config = experiment::Model { name, ..Default::default() };
            Model::build(&config, [3, 32, 32], 10, 0).unwrap().folded().unwrap().slice
        };
        assert_eq!(slice_of(ModelName::ResNet20), 16);
        assert_eq!(slice_of(ModelName::Vgg13), usize::MAX, "its weights are larger than its activations");
    }
}
