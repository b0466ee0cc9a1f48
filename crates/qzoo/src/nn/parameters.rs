use qtensor::{Error, Result, Tensor};
use std::collections::BTreeSet;
use std::ops::Range;

/// What a parameter does in its layer; optimizers treat the kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// Weights of a linear or convolutional layer.
    Weight,
    /// Added to a layer's output.
    Bias,
    /// Factor of a normalisation.
    NormScale,
    /// Shift of a normalisation.
    NormShift,
    /// Slope of a learnt activation.
    Slope,
}

impl ParameterKind {
    /// Whether weight decay is meant for it: all but weights are exempt where an experiment spares norms and biases.
    pub fn is_weight(self) -> bool {
        self == ParameterKind::Weight
    }
}

/// A tensor that training changes.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name as in PyTorch, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// Its value, f32.
    pub value: Tensor,
    /// What it is.
    pub kind: ParameterKind,
}

/// A tensor that belongs to a model but has no gradient: running statistics and their counters.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Its name as in PyTorch, such as `bn1.running_mean`.
    pub name: String,
    /// Its value.
    pub value: Tensor,
}

/// All tensors of a model as flat lists. Layers know theirs by position; optimizers, averages, checkpoints and exports go by
/// position and name, and never look at layers.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    parameters: Vec<Parameter>,
    buffers: Vec<Buffer>,
    /// Positions of the second-order part.
    quadratic: BTreeSet<usize>,
}

impl Parameters {
    /// The parameters, in the order of the layers.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The buffers, in the order of the layers.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// Whether a parameter belongs to the second-order part of a quadratic neuron.
    pub fn is_quadratic(&self, index: usize) -> bool {
        self.quadratic.contains(&index)
    }

    /// Says that these parameters belong to the second-order part of a quadratic neuron.
    pub fn mark_quadratic(&mut self, indices: Range<usize>) {
        self.quadratic.extend(indices);
    }

    /// The value of a parameter, for an update in place. Its shape and element type must stay.
    pub fn parameter_mut(&mut self, index: usize) -> &mut Tensor {
        &mut self.parameters[index].value
    }

    /// The values of all parameters, by position, for updates in place. Their shapes and element types must stay.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.parameters.iter_mut().map(|parameter| &mut parameter.value)
    }

    /// The value of a buffer, for an update in place. Its shape and element type must stay.
    pub fn buffer_mut(&mut self, index: usize) -> &mut Tensor {
        &mut self.buffers[index].value
    }

    /// Multiplies each row of a parameter, along its first axis, by a number.
    ///
    /// # Errors
    /// Another number of rows.
    pub(crate) fn scale_rows(&mut self, index: usize, factors: &[f64]) -> Result<()> {
        let old = &self.parameters[index].value;
        let shape = *old.shape();
        if shape.first() != Some(&factors.len()) {
            return Err(Error::shape("fold", format!("{} factors for weights of shape {shape}", factors.len())));
        }
        let mut rows = old.to_vec::<f32>()?;
        let row = rows.len() / factors.len().max(1);
        for (row, factor) in rows.chunks_mut(row.max(1)).zip(factors) {
            row.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
        }
        self.parameters[index].value = Tensor::from_vec(shape, rows)?;
        Ok(())
    }

    /// Replaces the values of a parameter with one axis.
    ///
    /// # Errors
    /// Another number of values.
    pub(crate) fn set_values(&mut self, index: usize, values: &[f64]) -> Result<()> {
        let shape = *self.parameters[index].value.shape();
        self.parameters[index].value = Tensor::from_vec(shape, values.iter().map(|v| *v as f32).collect())?;
        Ok(())
    }

    /// Number of learnt values.
    pub fn count(&self) -> usize {
        self.parameters.iter().map(|p| p.value.numel()).sum()
    }

    /// Number of values in buffers, counters not included.
    pub fn buffer_count(&self) -> usize {
        self.buffers.iter().filter(|b| b.value.dtype().is_float()).map(|b| b.value.numel()).sum()
    }

    /// Names and values of all parameters, then of all buffers: the contents of a checkpoint.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let parameters = self.parameters.iter().map(|p| (p.name.as_str(), &p.value));
        parameters.chain(self.buffers.iter().map(|b| (b.name.as_str(), &b.value)))
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.named().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Sets the parameter or buffer of that name, keeping its memory order.
    ///
    /// # Errors
    /// No such name, or another shape or element type.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let parameter = self.parameters.iter_mut().find(|p| p.name == name).map(|p| &mut p.value);
        let place = match parameter {
            Some(place) => place,
            None => match self.buffers.iter_mut().find(|b| b.name == name) {
                Some(buffer) => &mut buffer.value,
                None => return Err(Error::argument("parameters", format!("the model has no tensor named {name}"))),
            },
        };
        if place.shape() != value.shape() || place.dtype() != value.dtype() {
            return Err(Error::shape("parameters", format!("{name} is {place:?}, the new value is {value:?}")));
        }
        let mut fresh = place.empty_like();
        fresh.copy_from(value)?;
        *place = fresh;
        Ok(())
    }

    /// Sets every tensor by name.
    ///
    /// # Errors
    /// A name that the model does not have, a tensor of the model that is not given, or another shape or element type. The
    /// message names it. Values may have been set before the mistake was found.
    pub fn load<'a>(&mut self, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
        let mut missing: Vec<String> = self.named().map(|(name, _)| name.to_string()).collect();
        for (name, value) in tensors {
            self.set(name, value)?;
            missing.retain(|m| m != name);
        }
        match missing.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => {
                Err(Error::argument("parameters", format!("{first} is not given, nor are {} others", rest.len())))
            }
        }
    }

    /// Adds a parameter; returns its position. Names must differ.
    pub fn push(&mut self, parameter: Parameter) -> usize {
        self.parameters.push(parameter);
        self.parameters.len() - 1
    }

    /// Adds a buffer; returns its position. Names must differ.
    pub fn push_buffer(&mut self, buffer: Buffer) -> usize {
        self.buffers.push(buffer);
        self.buffers.len() - 1
    }
}
