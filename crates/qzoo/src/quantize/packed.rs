use super::bits::Storage;
use crate::checkpoint::{Checkpoint, CheckpointError, State};
use crate::nn::{Codes, Given, InputGrid, Inputs};
use qgraph::{Error, Result};
use qkernels::feedback::Grid;
use qkernels::i8::Quantization;
use qtensor::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// A quantized tensor of weights: numbers of characters and what makes values of them.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Name, shape and storage.
    pub about: PackedTensor,
    codes: Vec<u16>,
    grid: Grid,
    /// Columns whose weights are 0 although that is no character, since no image ever showed them: `group · columns + column`.
    dead: Vec<i32>,
}

/// What a checkpoint's state says of a quantized tensor.
///
/// The value of row `r` and column `c` of the weights, as a matrix with a row for each output, is `units[r] · (levels[code] - zero_points[r])` in f32, where one unit or one
/// zero point stands for all rows; it is 0 in the columns that `dead` names. Codes lie row after row. The tensors are named `codes:`, `levels:`, `units:`, `zero_points:`
/// and `dead:` before the name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedTensor {
    /// Name of the weights.
    pub name: String,
    /// Their shape.
    pub shape: Vec<usize>,
    /// Groups of rows that see different inputs.
    pub groups: usize,
    /// How codes lie in bytes.
    pub storage: Storage,
    /// How the input of the layer becomes small whole numbers, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<PackedInput>,
}

/// The grid of a layer's input: `(number - zero_point) · scale` for numbers from 0 to `levels`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedInput {
    /// Step, above 0.
    pub scale: f32,
    /// The number of 0.
    pub zero_point: u8,
    /// The largest number.
    pub levels: u8,
}

impl PackedInput {
    /// The grid as layers take it.
    pub fn grid(self) -> InputGrid {
        let quantization = Quantization { scale: self.scale, zero_point: self.zero_point };
        InputGrid { quantization, levels: self.levels }
    }
}

/// What a checkpoint's state says of quantization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedState {
    /// The quantized tensors.
    pub tensors: Vec<PackedTensor>,
}

const PARTS: [&str; 5] = ["codes:", "levels:", "units:", "zero_points:", "dead:"];

impl Packed {
    /// Characters `[outputs, inputs]` of an alphabet, for weights of that shape.
    ///
    /// # Errors
    /// A value that is no character of its neuron, other than a 0 for which its whole column stands.
    pub(crate) fn new(
        name: &str,
        shape: &[usize],
        groups: usize,
        (characters, grid): (&Tensor, &Grid),
    ) -> Result<Self> {
        let &[outputs, columns] = &characters.shape()[..] else {
            return Err(Error::shape("pack", format!("characters must be a matrix, found {}", characters.shape())));
        };
        let (values, each) = (characters.to_vec::<f32>()?, outputs / groups.max(1));
        let (mut codes, mut dead) = (Vec::with_capacity(values.len()), Vec::new());
        for (i, value) in values.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            codes.push(match grid.level_of(row, *value) {
                Some(level) => level as u16,
                None if *value == 0.0 => {
                    let group = row / each.max(1);
                    let place = group * columns + column;
                    if row % each.max(1) == 0 {
                        dead.push(place as i32);
                    } else if !dead.contains(&(place as i32)) {
                        return Err(Error::argument("pack", format!("{name}: 0 is no character of row {row}")));
                    }
                    0
                }
                None => return Err(Error::argument("pack", format!("{name}: {value} is no character of row {row}"))),
            });
        }
        let storage = Storage::for_count(grid.levels().len());
        let about = PackedTensor { name: name.to_string(), shape: shape.to_vec(), groups, storage, input: None };
        Ok(Packed { about, codes, grid: grid.clone(), dead })
    }

    /// Bytes of the codes and of what makes values of them.
    pub fn bytes(&self) -> usize {
        let floats = self.grid.levels().len() + self.grid.units().len() + self.grid.zero_points().len();
        self.about.storage.bytes(self.codes.len()) + 4 * (floats + self.dead.len())
    }

    /// The alphabet.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Number of the character of each weight, row after row.
    pub fn codes(&self) -> &[u16] {
        &self.codes
    }

    /// The weights as whole numbers of a unit, for integer kernels; `None` where they are not such, or do not fit i8.
    ///
    /// # Errors
    /// None for what was packed here.
    pub fn integers(&self) -> Result<Option<Codes>> {
        let outputs = self.about.shape.first().copied().unwrap_or(0);
        let units: Vec<f32> =
            (0..outputs).map(|row| self.grid.units()[if self.grid.units().len() == 1 { 0 } else { row }]).collect();
        let whole =
            Grid::new(self.grid.levels().to_vec(), vec![1.0])?.with_zero_points(self.grid.zero_points().to_vec())?;
        let values = Packed { grid: whole, ..self.clone() }.values()?;
        let numbers = values.to_vec::<f32>()?;
        let fits = |x: &f32| x.fract() == 0.0 && (-128.0..=127.0).contains(x);
        // A product of a unit and a whole number is the character to the bit.
        Ok(if numbers.iter().all(fits) {
            let numbers: Vec<i8> = numbers.iter().map(|x| *x as i8).collect();
            Some(Codes { values: Tensor::from_vec(&self.about.shape, numbers)?, units })
        } else {
            None
        })
    }

    /// The weights in f32.
    ///
    /// # Errors
    /// None for what was packed here.
    pub fn values(&self) -> Result<Tensor> {
        let outputs = self.about.shape.first().copied().unwrap_or(0);
        let columns = self.codes.len() / outputs.max(1);
        let each = outputs / self.about.groups.max(1);
        let mut values: Vec<f32> = Vec::with_capacity(self.codes.len());
        values.extend(
            self.codes.iter().enumerate().map(|(i, code)| self.grid.character(i / columns, usize::from(*code))),
        );
        for place in &self.dead {
            let (group, column) = (*place as usize / columns, *place as usize % columns);
            (group * each..(group + 1) * each).for_each(|row| values[row * columns + column] = 0.0);
        }
        Ok(Tensor::from_vec(&self.about.shape, values)?)
    }

    fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let bytes = self.about.storage.pack(&self.codes);
        let floats = |values: &[f32]| Tensor::from_slice([values.len()], values);
        let tensors = [
            Tensor::from_slice([bytes.len()], &bytes)?,
            floats(self.grid.levels())?,
            floats(self.grid.units())?,
            floats(self.grid.zero_points())?,
            Tensor::from_slice([self.dead.len()], &self.dead)?,
        ];
        Ok(PARTS.iter().zip(tensors).map(|(part, tensor)| (format!("{part}{}", self.about.name), tensor)).collect())
    }

    fn from_tensors(about: &PackedTensor, get: impl Fn(&str) -> Option<Tensor>) -> Result<Self, String> {
        let part = |part: &str| get(part).ok_or_else(|| format!("it lacks {part}{}", about.name));
        let wrong = |part: &'static str| move |error: qtensor::Error| format!("{part}{}: {error}", about.name);
        let floats = |name: &str| part(name)?.to_vec::<f32>().map_err(wrong("a tensor of "));
        let count = about.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let outputs = about.shape.first().copied().unwrap_or(0);
        let sound =
            |input: &PackedInput| input.scale > 0.0 && input.scale.is_finite() && input.zero_point <= input.levels;
        if about.input.as_ref().is_some_and(|input| !sound(input)) {
            return Err(format!("the input of {} has an impossible grid", about.name));
        }
        let fits = about.groups > 0 && outputs > 0 && outputs % about.groups == 0 && about.storage.is_known();
        let Some(count) = count.filter(|count| fits && count % outputs == 0) else {
            return Err(format!("{} has an impossible shape or storage", about.name));
        };
        let bytes = part("codes:")?.to_vec::<u8>().map_err(wrong("codes:"))?;
        let codes = about.storage.unpack(&bytes, count);
        let codes = codes
            .ok_or_else(|| format!("codes:{} has {} bytes, not those of {count} weights", about.name, bytes.len()))?;
        let (levels, units, zero_points) = (floats("levels:")?, floats("units:")?, floats("zero_points:")?);
        if let Some(code) = codes.iter().find(|code| usize::from(**code) >= levels.len()) {
            return Err(format!("codes:{} has a code {code} for {} levels", about.name, levels.len()));
        }
        let dead = part("dead:")?.to_vec::<i32>().map_err(wrong("dead:"))?;
        let columns = count / outputs;
        if let Some(place) =
            dead.iter().find(|place| usize::try_from(**place).map_or(true, |place| place >= about.groups * columns))
        {
            return Err(format!("dead:{} names column {place}, which is not there", about.name));
        }
        let grid =
            Grid::new(levels, units).and_then(|grid| grid.with_zero_points(zero_points)).map_err(wrong("levels:"))?;
        let rows = |values: &[f32]| values.len() == 1 || values.len() == outputs;
        if !rows(grid.units()) || !rows(grid.zero_points()) {
            return Err(format!("units:{} has not one value for each of {outputs} rows", about.name));
        }
        Ok(Packed { about: about.clone(), codes, grid, dead })
    }
}

/// A checkpoint of a network with these tensors quantized: their codes stand in the place of the weights.
///
/// # Errors
/// None for what was packed here.
pub fn pack(state: State, tensors: Vec<(String, Tensor)>, packed: &[Packed]) -> Result<Checkpoint> {
    let mut kept: Vec<(String, Tensor)> = Vec::new();
    for (name, tensor) in tensors {
        match packed.iter().find(|packed| packed.about.name == name) {
            Some(packed) => kept.extend(packed.tensors()?),
            None => kept.push((name, tensor)),
        }
    }
    let quantization = PackedState { tensors: packed.iter().map(|packed| packed.about.clone()).collect() };
    Ok(Checkpoint { state: State { quantization: Some(quantization), ..state }, tensors: kept })
}

/// The quantized tensors of a checkpoint; none where nothing is quantized.
///
/// # Errors
/// Parts are missing or do not fit each other; `path` is for messages only.
pub fn unpack(checkpoint: &Checkpoint, path: &Path) -> Result<Vec<Packed>, CheckpointError> {
    let Some(state) = &checkpoint.state.quantization else { return Ok(Vec::new()) };
    let tensors = state.tensors.iter().map(|about| {
        let get = |part: &str| checkpoint.get(&format!("{part}{}", about.name)).cloned();
        Packed::from_tensors(about, get).map_err(|message| CheckpointError::incompatible(path, message))
    });
    tensors.collect()
}

/// What a network does with the inputs of its quantized projections; `position` finds the weights of a name.
///
/// # Errors
/// None for what was packed or read here.
pub(crate) fn inputs(packed: &[Packed], position: impl Fn(&str) -> Option<usize>) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    for packed in packed {
        let (Some(input), Some(position)) = (packed.about.input, position(&packed.about.name)) else { continue };
        let codes = packed.integers()?.map(Arc::new);
        inputs.insert(position, Given::new(input.grid(), codes));
    }
    Ok(inputs)
}
