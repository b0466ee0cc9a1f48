//! Quantized layers that hand bytes to one another: a result that a single quantized layer reads is rounded to that layer's grid where it is computed, and is never f32.

use super::{Body, Composite, Inputs, Layer, PoolKind, Sequential, Unit};
use qkernels::Activation as Epilogue;

/// Lets each layer on integer kernels give what the layer behind it takes, where nothing but poolings of maxima and changes of shape lies between them: these
/// give the same numbers before and after rounding. What is added to something else, averaged or normalised stays f32.
pub(crate) fn hand_over_bytes(network: &Sequential, inputs: &mut Inputs) {
    Chain { inputs, giver: None }.sequential(network);
}

struct Chain<'a> {
    inputs: &'a mut Inputs,
    /// Position of the weights of the layer whose result comes next, if that may be bytes.
    giver: Option<usize>,
}

impl Chain<'_> {
    fn sequential(&mut self, layers: &Sequential) {
        layers.layers().iter().for_each(|layer| self.layer(layer));
    }

    fn layer(&mut self, layer: &Layer) {
        match layer {
            Layer::Composite(composite) => self.composite(composite),
            Layer::Sequential(layers) => self.sequential(layers),
            Layer::Flatten | Layer::Dropout(_) => {}
            Layer::Pool(pool) if pool.windows().0 == PoolKind::Max => {}
            Layer::Pool(_) | Layer::GlobalAveragePool | Layer::BatchNorm(_) | Layer::Activation(_) => self.giver = None,
        }
    }

    fn composite(&mut self, composite: &Composite) {
        match composite.body() {
            Body::Unit(unit) => self.unit(unit),
            // The block's input goes two ways, and so what it gives is a sum.
            Body::Residual(block) => {
                for branch in [block.main_branch().collect::<Vec<_>>(), block.shortcut().into_iter().collect()] {
                    self.giver = None;
                    branch.into_iter().for_each(|composite| self.composite(composite));
                }
                self.giver = None;
            }
        }
    }

    fn unit(&mut self, unit: &Unit) {
        let giver = self.giver.take();
        let Some((projection, norm)) = unit.first_order() else { return };
        // An activation that is no epilogue runs behind the kernel.
        let epilogue = unit.activation().epilogue();
        let Some(given) = self.inputs.get(&projection.weight()) else { return };
        if !given.runs_on_integers(epilogue.unwrap_or(Epilogue::None)) {
            return;
        }
        // Kernels give all 256 numbers.
        let taken = (given.grid.levels == u8::MAX).then_some(given.grid.quantization);
        if let Some(giver) = giver.and_then(|position| self.inputs.get_mut(&position)) {
            giver.result = taken;
        }
        let nothing_follows = epilogue.is_some() && (norm.is_some() || unit.norm().is_none());
        self.giver = nothing_follows.then_some(projection.weight());
    }
}
