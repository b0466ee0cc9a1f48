//! Which weights of a network there are.

use super::table::{LayerSparsity, row};
use crate::nn::Parameters;
use qkernels::sparse::Pattern;
use qtensor::{DType, Error, Result, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Masks by the position of a parameter. A parameter without one is dense; no masks at all are a dense network.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    masks: BTreeMap<usize, Mask>,
    generation: u64,
}

/// The weights of one parameter that there are.
#[derive(Clone, Debug)]
struct Mask {
    /// 1 where there is a weight, row-major u8 of the parameter's shape.
    kept: Tensor,
    pattern: Arc<Pattern>,
}

const OP: &str = "masks";

impl Mask {
    fn new(kept: Tensor) -> Result<Self> {
        let pattern = Arc::new(Pattern::from_mask(&kept)?);
        Ok(Mask { kept, pattern })
    }

    fn apply(&self, values: &mut Tensor) -> Result<()> {
        if values.shape() != self.kept.shape() {
            let message = format!("a mask of shape {} does not fit {}", self.kept.shape(), values.shape());
            return Err(Error::shape(OP, message));
        }
        // In the memory order of the values, so that both are walked side by side.
        let kept = if values.layout().like().strides() == self.kept.strides() {
            self.kept.clone()
        } else {
            let mut ordered = values.empty_like_of(DType::U8);
            ordered.copy_from(&self.kept)?;
            ordered
        };
        let values = values.memory_mut::<f32>()?;
        for (value, kept) in values.iter_mut().zip(kept.memory::<u8>()?) {
            *value = if *kept == 0 { 0.0 } else { *value };
        }
        Ok(())
    }
}

impl Masks {
    /// From positions of parameters, each with one truth value a weight, row-major.
    ///
    /// # Errors
    /// Another number of truth values than there are weights, or a position without a parameter.
    pub fn new(parameters: &Parameters, kept: impl IntoIterator<Item = (usize, Vec<bool>)>) -> Result<Self> {
        let mut masks = BTreeMap::new();
        for (position, flags) in kept {
            let Some(parameter) = parameters.parameters().get(position) else {
                return Err(Error::argument(OP, format!("there is no parameter {position}")));
            };
            let kept = flags.into_iter().map(u8::from).collect();
            masks.insert(position, Mask::new(Tensor::from_vec(*parameter.value.shape(), kept)?)?);
        }
        Ok(Masks { masks, generation: 0 })
    }

    /// Whether the network is dense.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// A number that is another one after every change of these masks in this process: what was made of patterns has to be made anew then.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The weights of the parameter at that position that there are; `None` where it is dense.
    pub fn pattern(&self, position: usize) -> Option<&Arc<Pattern>> {
        self.masks.get(&position).map(|mask| &mask.pattern)
    }

    /// Positions and patterns of all parameters that have a mask.
    pub fn patterns(&self) -> impl Iterator<Item = (usize, &Arc<Pattern>)> {
        self.masks.iter().map(|(position, mask)| (*position, &mask.pattern))
    }

    /// Takes over other masks, and with them a new generation. A pattern that is the same as before stays the one in memory.
    pub fn replace(&mut self, other: Masks) {
        let before = std::mem::replace(&mut self.masks, other.masks);
        for (position, mask) in &mut self.masks {
            if let Some(same) = before.get(position).filter(|old| old.pattern == mask.pattern) {
                mask.pattern = same.pattern.clone();
            }
        }
        self.generation += 1;
    }

    /// Sets to zero the values of a parameter, its gradient or anything else of its shape, f32, where there is no weight.
    ///
    /// # Errors
    /// Another shape or type than the parameter's.
    pub fn apply(&self, position: usize, values: &mut Tensor) -> Result<()> {
        self.masks.get(&position).map_or(Ok(()), |mask| mask.apply(values))
    }

    /// [`apply`](Self::apply) for all parameters.
    ///
    /// # Errors
    /// They are those of another model.
    pub fn mask_parameters(&self, parameters: &mut Parameters) -> Result<()> {
        self.masks.iter().try_for_each(|(position, mask)| match *position < parameters.parameters().len() {
            true => mask.apply(parameters.parameter_mut(*position)),
            false => Err(Error::argument(OP, format!("there is no parameter {position}"))),
        })
    }

    /// [`apply`](Self::apply) for all gradients, by the position of their parameters.
    ///
    /// # Errors
    /// They are those of another model.
    pub fn mask_gradients(&self, gradients: &mut [Option<Tensor>]) -> Result<()> {
        self.masks.iter().try_for_each(|(position, mask)| match gradients.get_mut(*position) {
            Some(Some(gradient)) => mask.apply(gradient),
            Some(None) => Ok(()),
            None => {
                Err(Error::argument(OP, format!("{} gradients have none for parameter {position}", gradients.len())))
            }
        })
    }

    /// The masks by the names of their parameters, as a checkpoint holds them: u8, 1 where there is a weight.
    pub fn export(&self, parameters: &Parameters) -> Vec<(String, Tensor)> {
        let named = parameters.parameters().iter().enumerate();
        named.filter_map(|(i, p)| Some((p.name.clone(), self.masks.get(&i)?.kept.clone()))).collect()
    }

    /// Takes over what [`export`](Self::export) gave.
    ///
    /// # Errors
    /// A name that the model does not have, or a tensor of another shape or type. The masks are then unchanged.
    pub fn import<'a>(
        &mut self,
        parameters: &Parameters,
        tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<()> {
        let mut masks = BTreeMap::new();
        for (name, kept) in tensors {
            let position = parameters.parameters().iter().position(|p| p.name == name);
            let Some(position) = position else {
                return Err(Error::argument(OP, format!("the model has no parameter {name} to be masked")));
            };
            let shape = parameters.parameters()[position].value.shape();
            if kept.dtype() != DType::U8 || kept.shape() != shape {
                return Err(Error::shape(
                    OP,
                    format!("the mask of {name} should be u8 of shape {shape}, not {kept:?}"),
                ));
            }
            masks.insert(position, Mask::new(kept.contiguous())?);
        }
        self.replace(Masks { masks, generation: 0 });
        Ok(())
    }

    /// The share of weights that are not there, of all weights of masked parameters; 0 for a dense network.
    pub fn sparsity(&self) -> f64 {
        let all: usize = self.masks.values().map(|mask| mask.kept.numel()).sum();
        let left: usize = self.masks.values().map(|mask| mask.pattern.len()).sum();
        if all == 0 { 0.0 } else { 1.0 - left as f64 / all as f64 }
    }

    /// One row a masked parameter.
    pub fn table(&self, parameters: &Parameters) -> Vec<LayerSparsity> {
        let named = parameters.parameters().iter().enumerate();
        named.filter_map(|(i, p)| Some(row(p, self.masks.get(&i)?.pattern.len()))).collect()
    }
}
