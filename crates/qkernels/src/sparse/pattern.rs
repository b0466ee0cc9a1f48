//! Which weights of a layer there are.

use crate::par;
use qtensor::{DType, Error, Result, Shape, Tensor};
use std::ops::Range;

/// The places of the weights that are not zero, in compressed rows: a row for each output, with the rising places of its weights in the flattened rest of the dense tensor, which has the
/// shape `[outputs, inputs]` or `[O, C/groups, KH, KW]`. Values belong to it as one f32 vector in this order. A row may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    shape: Shape,
    /// The first weight of each row, and the end of the last.
    starts: Vec<usize>,
    columns: Vec<u32>,
}

/// What is left of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The weights that stay.
    pub pattern: Pattern,
    /// Where each was in the values before.
    pub places: Vec<u32>,
}

const OP: &str = "sparse pattern";
/// Places in a dense tensor that one thread takes at a time.
const PIECE: usize = 256 * 1024;

impl Pruned {
    /// Of values, momentum or anything else of the old pattern what stays.
    ///
    /// # Errors
    /// `old` is no f32 vector, or shorter than the old pattern.
    pub fn take(&self, old: &Tensor) -> Result<Tensor> {
        let old = old.to_vec::<f32>()?;
        let values: Option<Vec<f32>> = self.places.iter().map(|place| old.get(*place as usize).copied()).collect();
        let short = || Error::shape(OP, format!("{} values are fewer than the old pattern has", old.len()));
        let values = values.ok_or_else(short)?;
        Tensor::from_vec([values.len()], values)
    }
}

impl Pattern {
    /// The places of a dense f32 tensor that are not zero (NaN is not).
    ///
    /// # Errors
    /// Another type, a rank other than 2 and 4, or more weights than 32 bits count.
    pub fn from_dense(dense: &Tensor) -> Result<Self> {
        Self::from_flags(dense.shape(), dense.to_vec::<f32>()?.into_iter().map(|w| w != 0.0))
    }

    /// The places of a mask of any type that are not zero.
    ///
    /// # Errors
    /// A rank other than 2 and 4, or more weights than 32 bits count.
    pub fn from_mask(mask: &Tensor) -> Result<Self> {
        Self::from_flags(mask.shape(), mask.to_dtype(DType::F64)?.to_vec::<f64>()?.into_iter().map(|m| m != 0.0))
    }

    fn from_flags(shape: &Shape, flags: impl Iterator<Item = bool>) -> Result<Self> {
        let length = row_length(shape)?.max(1);
        let mut starts = Vec::with_capacity(shape[0] + 1);
        let mut columns = Vec::new();
        starts.push(0);
        for (place, is_there) in flags.enumerate() {
            if is_there {
                columns.push((place % length) as u32);
            }
            if (place + 1) % length == 0 {
                starts.push(columns.len());
            }
        }
        // Rows without any place.
        starts.resize(shape[0] + 1, columns.len());
        Pattern { shape: *shape, starts, columns }.counted()
    }

    /// From what [`to_tensors`](Self::to_tensors) gave, for weights of the dense shape `shape`. Nothing of it is trusted.
    ///
    /// # Errors
    /// Other types, starts that do not rise from 0 to the number of columns, or columns that do not rise within their row or leave it.
    pub fn from_tensors(shape: &[usize], starts: &Tensor, columns: &Tensor) -> Result<Self> {
        let shape = Shape::new(shape)?;
        let length = row_length(&shape)?;
        let (starts, columns) = (starts.to_vec::<i64>()?, columns.to_vec::<i32>()?);
        let wrong = |what: String| Error::argument(OP, format!("weights of shape {shape}: {what}"));
        if starts.len() != shape[0] + 1 {
            return Err(wrong(format!("{} row starts, expected {}", starts.len(), shape[0] + 1)));
        }
        if starts[0] != 0 || starts[shape[0]] != columns.len() as i64 {
            let (first, last) = (starts[0], starts[shape[0]]);
            return Err(wrong(format!("rows start at {first} and end at {last} of {} columns", columns.len())));
        }
        if let Some(row) = starts.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(wrong(format!("row {row} starts at {} and ends at {}", starts[row], starts[row + 1])));
        }
        // Rising from 0 to a length, so all of them are lengths.
        let starts: Vec<usize> = starts.into_iter().map(|start| start as usize).collect();
        for (row, range) in starts.windows(2).enumerate() {
            let row_columns = &columns[range[0]..range[1]];
            if let Some(pair) = row_columns.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(wrong(format!("row {row} has column {} before {}; columns must rise", pair[0], pair[1])));
            }
            if let Some(column) = row_columns.iter().find(|c| usize::try_from(**c).map_or(true, |c| c >= length)) {
                return Err(wrong(format!("row {row} has column {column}, but its columns are below {length}")));
            }
        }
        let columns = columns.into_iter().map(|column| column as u32).collect();
        Pattern { shape, starts, columns }.counted()
    }

    /// Row starts (i64, one more than outputs) and columns (i32), as a checkpoint holds them.
    ///
    /// # Errors
    /// There is no room.
    pub fn to_tensors(&self) -> Result<[Tensor; 2]> {
        let starts: Vec<i64> = self.starts.iter().map(|start| *start as i64).collect();
        let columns: Vec<i32> = self.columns.iter().map(|column| *column as i32).collect();
        Ok([Tensor::from_vec([starts.len()], starts)?, Tensor::from_vec([columns.len()], columns)?])
    }

    /// Refuses more weights than 32 bits count.
    fn counted(self) -> Result<Self> {
        if u32::try_from(self.columns.len()).is_err() {
            return Err(Error::argument(OP, format!("{} weights are more than 32 bits count", self.columns.len())));
        }
        Ok(self)
    }

    /// The dense tensor with these values, zero elsewhere.
    ///
    /// # Errors
    /// `values` is no f32 vector of [`len`](Self::len).
    pub fn to_dense(&self, values: &Tensor) -> Result<Tensor> {
        let values = self.check_values("sparse to_dense", values)?;
        let values = values.as_slice::<f32>()?;
        let mut dense = Tensor::empty(self.shape, DType::F32)?;
        let (length, rows) = (self.row_length(), self.rows_of_piece());
        par::for_each_chunk(dense.memory_mut::<f32>()?, rows * length, |piece, part| {
            part.fill(0.0);
            for (i, row) in part.chunks_exact_mut(length).enumerate() {
                let output = piece * rows + i;
                let places = self.columns(output).iter().zip(&values[self.row(output)]);
                places.for_each(|(column, value)| row[*column as usize] = *value);
            }
        });
        Ok(dense)
    }

    /// The values of a dense f32 tensor at the places of this pattern: weights, or gradients, or momentum.
    ///
    /// # Errors
    /// Another shape or type.
    pub fn gather(&self, dense: &Tensor) -> Result<Tensor> {
        if dense.shape() != &self.shape {
            let message = format!("a pattern of shape {} has no places in {}", self.shape, dense.shape());
            return Err(Error::shape("sparse gather", message));
        }
        let dense = dense.contiguous();
        let dense = dense.as_slice::<f32>()?;
        let (length, rows) = (self.row_length(), self.rows_of_piece());
        let mut values = vec![0.0; self.len()];
        // The values of some rows each.
        let mut rest = &mut values[..];
        let mut parts = Vec::new();
        for first in (0..self.rows()).step_by(rows) {
            let count = self.starts[(first + rows).min(self.rows())] - self.starts[first];
            parts.push(rest.split_off_mut(..count).unwrap_or_default());
        }
        par::for_each_chunk(&mut parts, 1, |piece, part| {
            let mut part = part[0].iter_mut();
            for output in piece * rows..((piece + 1) * rows).min(self.rows()) {
                let row = &dense[output * length..][..length];
                self.columns(output).iter().zip(&mut part).for_each(|(column, value)| *value = row[*column as usize]);
            }
        });
        Tensor::from_vec([self.len()], values)
    }

    /// The weights for which `keep` is true, one truth value a weight.
    ///
    /// # Errors
    /// Another number of truth values.
    pub fn prune(&self, keep: &[bool]) -> Result<Pruned> {
        if keep.len() != self.len() {
            let message = format!("{} truth values for a pattern of {} weights", keep.len(), self.len());
            return Err(Error::shape("sparse prune", message));
        }
        let places: Vec<u32> = (0..self.len() as u32).filter(|place| keep[*place as usize]).collect();
        let columns = places.iter().map(|place| self.columns[*place as usize]).collect();
        let starts = self.starts.iter().map(|start| places.partition_point(|p| (*p as usize) < *start)).collect();
        Ok(Pruned { pattern: Pattern { shape: self.shape, starts, columns }, places })
    }

    /// The shape of the dense weights: `[outputs, inputs]` or `[O, C/groups, KH, KW]`.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Weights.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no weight at all.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The share of places that have a weight; 0 for no places.
    pub fn density(&self) -> f64 {
        self.len() as f64 / self.shape.numel().max(1) as f64
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// The weights of an output as a range of the values.
    ///
    /// # Panics
    /// There is no such output.
    pub fn row(&self, output: usize) -> Range<usize> {
        self.starts[output]..self.starts[output + 1]
    }

    /// The rising places of an output's weights in its flattened dense row.
    ///
    /// # Panics
    /// There is no such output.
    pub fn columns(&self, output: usize) -> &[u32] {
        &self.columns[self.row(output)]
    }

    /// Places of a row in the dense tensor.
    fn row_length(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Rows that one thread takes at a time on the way from or to dense tensors.
    fn rows_of_piece(&self) -> usize {
        (PIECE / self.row_length().max(1)).max(1)
    }

    /// Values of this pattern, contiguous.
    ///
    /// # Errors
    /// No f32 vector of the right length.
    pub(super) fn check_values(&self, op: &'static str, values: &Tensor) -> Result<Tensor> {
        if values.dtype() != DType::F32 {
            return Err(Error::DType { op, expected: DType::F32, found: values.dtype() });
        }
        if values.shape() != [self.len()] {
            let message = format!("a pattern of {} weights needs as many values, found {}", self.len(), values.shape());
            return Err(Error::shape(op, message));
        }
        Ok(values.contiguous())
    }
}

/// Places of a row.
fn row_length(shape: &Shape) -> Result<usize> {
    if !matches!(shape.rank(), 2 | 4) {
        return Err(Error::shape(OP, format!("weights have two axes or four, found {shape}")));
    }
    let length = shape[1..].iter().product::<usize>();
    // A checkpoint has columns as i32.
    if i32::try_from(length).is_err() {
        return Err(Error::shape(OP, format!("rows of {length} places in {shape} are too long")));
    }
    Ok(length)
}
