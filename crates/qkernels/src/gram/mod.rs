//! Gram matrices of a layer's inputs, on which post-training quantizers work in place of the inputs themselves.
//!
//! A neuron with `N` inputs sees one row of `N` numbers for each sample or each place of its window. With the rows `X` of the analog network and the rows `X~` of the
//! partly quantized one, the path-following quantizers (Lybrand and Saab, "A greedy algorithm for quantizing neural networks", JMLR 22(156), 2021) and their
//! descendants need no more of the data than
//!
//! `H = X~ᵀ X~` and `C = X~ᵀ X`, both `N×N`.
//!
//! A [`Gram`] takes mini-batches and keeps nothing of them but these sums, in f64. Products are added in f32 over at most 1024 rows before they are added there: sums in
//! f32 over a million rows would lose too much, since inputs behind a ReLU make `H` nearly of rank one and what a quantizer reads of it cancels.
//!
//! Two ways lead there. Neurons that see several channels have their rows gathered in tiles, whose products the matrix product takes. Neurons that see one channel have
//! matrices far too small for that; there each lane of a vector is a channel of its own.

mod batch;
mod channels;
mod inputs;
mod lanes;
mod matrices;
mod products;
mod tiles;
mod totals;

use batch::Batch;
use channels::add_channels;
pub use inputs::{Grouping, Inputs, Patches, Sources, Window};
pub use matrices::GramMatrices;
use qtensor::{Error, Result, Tensor};
use tiles::Tiles;
use totals::Totals;

/// The name of the operation in errors.
const OP: &str = "gram";
/// Rows whose products are added in f32.
const ROWS: usize = 1024;

/// The Gram matrices of a layer's inputs while mini-batches come in.
///
/// ```
/// use qkernels::gram::{Gram, Inputs, Sources};
/// use qtensor::Tensor;
/// let mut gram = Gram::new(Inputs::dense(2), Sources::One)?;
/// gram.add(&Tensor::from_vec([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?, None)?;
/// gram.add(&Tensor::from_vec([1, 2], vec![5.0f32, 6.0])?, None)?;
/// let matrices = gram.finish()?;
/// assert_eq!(matrices.h(0), [35.0, 44.0, 44.0, 56.0]);
/// assert_eq!(matrices.quantized_sums(0), [9.0, 12.0]);
/// # Ok::<(), qtensor::Error>(())
/// ```
#[derive(Debug)]
pub struct Gram {
    inputs: Inputs,
    sources: Sources,
    totals: Totals,
    /// Rows on their way to the matrix product; none where lanes are channels.
    tiles: Option<Tiles>,
    images: u64,
    rows: u64,
}

impl Gram {
    /// Sums of nothing, for inputs from one or from two tensors.
    ///
    /// # Errors
    /// Inputs that do not fit themselves, as [`Inputs::check`]; matrices that do not fit the address space.
    pub fn new(inputs: Inputs, sources: Sources) -> Result<Self> {
        inputs.check()?;
        let totals = Totals::new(&inputs, sources)?;
        let tiles = if inputs.is_by_lanes() { None } else { Some(Tiles::new(&inputs, sources)?) };
        Ok(Gram { inputs, sources, totals, tiles, images: 0, rows: 0 })
    }

    /// The most bytes that such sums take at any time, the end included, without the mini-batches themselves and a little scratch memory of each thread.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bytes(inputs: &Inputs, sources: Sources) -> Result<usize> {
        inputs.check()?;
        let matrix = Totals::matrix_bytes(inputs)?;
        let while_adding = if inputs.is_by_lanes() { 0 } else { Tiles::bytes(inputs, sources)? };
        let at_the_end = if inputs.is_in_order() { 0 } else { matrix };
        matrix
            .checked_mul(sources.count())
            .and_then(|bytes| bytes.checked_add(while_adding.max(at_the_end)))
            .ok_or_else(|| Error::Overflow { op: OP, shape: inputs.shape().to_vec() })
    }

    /// Adds a mini-batch: `[N, features]` of a dense layer, `[N, C, H, W]` of a convolution, f32, of any strides (row-major and channels-last are used in place).
    /// Both tensors have one shape. Without `analog` both networks see the same values, though they may be added to sums of two tensors.
    ///
    /// The sums are the same to the bit for any number of threads. Where neurons see several channels they do not depend on the cut into mini-batches either.
    ///
    /// # Errors
    /// Shapes that differ or that the layer does not take, another type than f32, or `analog` where the sums are those of one tensor.
    pub fn add(&mut self, quantized: &Tensor, analog: Option<&Tensor>) -> Result<()> {
        let batch = Batch::new(&self.inputs, quantized, self.images)?;
        if let Some(analog) = analog {
            if self.sources == Sources::One {
                return Err(Error::argument(OP, "an analog tensor, but the sums are those of one tensor"));
            }
            if analog.shape() != quantized.shape() {
                let message = format!("inputs of shape {} and analog inputs of {}", quantized.shape(), analog.shape());
                return Err(Error::shape(OP, message));
            }
            if analog.dtype() != quantized.dtype() {
                return Err(Error::DType { op: OP, expected: quantized.dtype(), found: analog.dtype() });
            }
        }
        let mut tensors = vec![quantized.to_channels_last()];
        if self.sources == Sources::Two {
            tensors.push(analog.unwrap_or(quantized).to_channels_last());
        }
        let images = tensors.iter().map(Tensor::memory).collect::<Result<Vec<&[f32]>>>()?;
        match &mut self.tiles {
            Some(tiles) => tiles.add(&batch, &images, &mut self.totals)?,
            None => add_channels(&batch, &images, &mut self.totals)?,
        }
        self.images += batch.images() as u64;
        self.rows += batch.rows() as u64;
        Ok(())
    }

    /// Rows so far: samples of a dense layer, patches of a convolution.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The sums of all mini-batches.
    ///
    /// # Errors
    /// There is no room to put them in order.
    pub fn finish(mut self) -> Result<GramMatrices> {
        if let Some(mut tiles) = self.tiles.take() {
            tiles.flush(&mut self.totals)?;
        }
        GramMatrices::new(&self.inputs, self.totals, self.rows)
    }
}

/// The rows themselves, `[rows, blocks · N]`, each block's columns in the order of its matrices: for tests, and for layers small enough to be quantized on their data. The
/// rows of a dense layer are the tensor itself. Images are numbered from 0 where [`Patches`] draws.
///
/// # Errors
/// As [`Gram::add`].
pub fn rows_of(inputs: &Inputs, tensor: &Tensor) -> Result<Tensor> {
    inputs.check()?;
    let batch = Batch::new(inputs, tensor, 0)?;
    if inputs.window == Window::Dense {
        return Ok(tensor.clone());
    }
    let tensor = tensor.to_channels_last();
    let rows = batch.all_rows(tensor.memory()?)?;
    let [blocks, taps, depth] = [inputs.blocks(), inputs.taps(), inputs.depth()];
    let in_order = rows.reshape([batch.rows(), blocks, taps, depth])?.permute(&[0, 1, 3, 2])?;
    in_order.reshape([batch.rows(), blocks * taps * depth])
}
