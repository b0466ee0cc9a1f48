use qgraph::{Error, Result, Tape, Var};
use qkernels::i8;
use qkernels::pool::PoolParams;
use qtensor::DType;

/// What a pooling layer takes from each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest value.
    Max,
    /// The mean.
    Average,
}

/// Pooling over square windows of `[N, C, H, W]`.
#[derive(Clone, Debug)]
pub struct Pool {
    kind: PoolKind,
    params: PoolParams,
}

impl Pool {
    /// Windows of side `kernel`, `stride` apart, with a border of `padding`.
    pub fn new(kind: PoolKind, kernel: usize, stride: usize, padding: usize) -> Self {
        let params = PoolParams { stride: [stride; 2], padding: [padding; 2], ..PoolParams::new(kernel) };
        Pool { kind, params }
    }

    /// The pooled image. The largest of bytes that a quantized layer hands over are those of the numbers that they stand for.
    ///
    /// # Errors
    /// `x` is no image, or smaller than a window.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        match self.kind {
            PoolKind::Max if x.value().dtype() == DType::U8 => {
                Ok(Var::constant(i8::max_pool2d(x.value(), &self.params)?))
            }
            PoolKind::Max => tape.max_pool2d(x, self.params),
            PoolKind::Average => tape.avg_pool2d(x, self.params),
        }
    }

    /// `[C, H, W]` of the result for an input of `[C, H, W]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn output(&self, input: &[usize]) -> Result<Vec<usize>> {
        let PoolParams { kernel, stride, padding, .. } = self.params;
        windows(
            "pool",
            input,
            input.first().copied().unwrap_or(0),
            Windows { kernel, stride, padding, dilation: [1; 2] },
        )
    }

    /// What is taken from each window, and how the windows lie.
    pub fn windows(&self) -> (PoolKind, PoolParams) {
        (self.kind, self.params)
    }

    /// Its name in a summary.
    pub fn kind(&self) -> String {
        let [side, _] = self.params.kernel;
        match self.kind {
            PoolKind::Max => format!("max_pool {side}x{side}"),
            PoolKind::Average => format!("avg_pool {side}x{side}"),
        }
    }
}

/// How a window moves over an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 2],
    pub(super) dilation: [usize; 2],
}

/// `[channels, H, W]` of the places at which a window fits into `[C, H, W]`.
pub(super) fn windows(op: &'static str, input: &[usize], channels: usize, windows: Windows) -> Result<Vec<usize>> {
    let &[_, height, width] = input else {
        return Err(Error::shape(op, format!("expected an image [C, H, W], found {input:?}")));
    };
    let mut output = vec![channels];
    for (axis, size) in [height, width].into_iter().enumerate() {
        let reach = windows.dilation[axis] * (windows.kernel[axis] - 1) + 1;
        let room = (size + 2 * windows.padding[axis])
            .checked_sub(reach)
            .ok_or_else(|| Error::shape(op, format!("a window of {reach} does not fit an image of {input:?}")))?;
        output.push(room / windows.stride[axis] + 1);
    }
    Ok(output)
}
