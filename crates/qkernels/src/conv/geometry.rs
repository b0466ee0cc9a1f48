//! The sizes of one convolution, checked once.

use super::Conv2dParams;
use qtensor::{DType, Error, Result, Shape, Tensor};

/// Sizes and steps of a convolution; pairs are (height, width).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) filters: usize,
    pub(crate) groups: usize,
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) out: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) winograd: bool,
}

impl Geometry {
    /// Sizes from the shapes of input and weights.
    ///
    /// # Errors
    /// Shapes or parameters that do not fit each other; the message names `op` and both shapes.
    pub(crate) fn new(op: &'static str, x: &[usize], w: &[usize], params: &Conv2dParams) -> Result<Self> {
        let wrong = |why: String| {
            let [x, w] = [x, w].map(|s| s.iter().map(usize::to_string).collect::<Vec<_>>().join("×"));
            Error::shape(op, format!("input {x}, weights {w}: {why}"))
        };
        let (&[batch, channels, height, width], &[filters, depth, kernel_height, kernel_width]) = (x, w) else {
            return Err(wrong("both must have four axes, N×C×H×W and O×C/groups×KH×KW".into()));
        };
        let Conv2dParams { stride, padding, dilation, groups, winograd } = *params;
        if stride.contains(&0) || dilation.contains(&0) || groups == 0 {
            return Err(wrong(format!(
                "stride {stride:?}, dilation {dilation:?} and groups {groups} must be positive"
            )));
        }
        if !channels.is_multiple_of(groups) || !filters.is_multiple_of(groups) {
            return Err(wrong(format!("{groups} groups must divide {channels} channels and {filters} filters")));
        }
        if depth != channels / groups {
            return Err(wrong(format!(
                "filters must be {} channels deep ({channels} channels in {groups} groups)",
                channels / groups
            )));
        }
        let (input, kernel) = ([height, width], [kernel_height, kernel_width]);
        if kernel.contains(&0) {
            return Err(wrong("the kernel must cover at least one pixel".into()));
        }
        let mut out = [0; 2];
        for axis in 0..2 {
            let padded = padding[axis].checked_mul(2).and_then(|p| p.checked_add(input[axis]));
            let reach = (kernel[axis] - 1).checked_mul(dilation[axis]).and_then(|r| r.checked_add(1));
            out[axis] = match (padded, reach) {
                // Addresses are formed as signed numbers, hence the bound.
                (Some(p), Some(r)) if r <= p && p <= isize::MAX as usize / 4 => (p - r) / stride[axis] + 1,
                _ => {
                    return Err(wrong(format!(
                        "a kernel of {} at dilation {} does not fit the input of {} with padding {} along the {}",
                        kernel[axis],
                        dilation[axis],
                        input[axis],
                        padding[axis],
                        ["height", "width"][axis]
                    )));
                }
            };
        }
        let geometry =
            Geometry { batch, channels, filters, groups, input, kernel, out, stride, padding, dilation, winograd };
        for shape in [x, w, &geometry.output_shape()] {
            Shape::new(shape)?;
        }
        Ok(geometry)
    }

    /// Sizes of `conv2d(x, w)`, whose element types must fit.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`check_float`].
    pub(crate) fn of_forward(op: &'static str, x: &Tensor, w: &Tensor, params: &Conv2dParams) -> Result<Self> {
        check_float(op, x, w)?;
        Self::new(op, x.shape(), w.shape(), params)
    }

    /// `[N, C, H, W]`
    pub(crate) fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.channels, self.input[0], self.input[1]]
    }

    /// `[O, C/groups, KH, KW]`
    pub(crate) fn weights_shape(&self) -> [usize; 4] {
        [self.filters, self.channels / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// `[N, O, OH, OW]`
    pub(crate) fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.filters, self.out[0], self.out[1]]
    }

    /// Refuses a gradient that does not have the output's shape.
    ///
    /// # Errors
    /// Another shape.
    pub(crate) fn check_output(&self, op: &'static str, dy: &Tensor) -> Result<()> {
        if dy.shape() == self.output_shape() {
            return Ok(());
        }
        let expected = Shape::new(&self.output_shape())?;
        Err(Error::shape(op, format!("the output has shape {expected}, its gradient {}", dy.shape())))
    }

    /// The input row under output row `row` and kernel row `k`; `None` in the padding.
    #[inline(always)]
    pub(crate) fn input_row(&self, row: usize, k: usize) -> Option<usize> {
        self.input_place(0, row, k)
    }

    /// The input column under output column `column` and kernel column `k`; `None` in the padding.
    #[inline(always)]
    pub(crate) fn input_column(&self, column: usize, k: usize) -> Option<usize> {
        self.input_place(1, column, k)
    }

    #[inline(always)]
    fn input_place(&self, axis: usize, place: usize, k: usize) -> Option<usize> {
        (place * self.stride[axis] + k * self.dilation[axis])
            .checked_sub(self.padding[axis])
            .filter(|place| *place < self.input[axis])
    }
}

/// Refuses images that are neither f32, bf16 nor f64, and parameters of another type; those of bf16 images are f32.
///
/// # Errors
/// As said.
pub(crate) fn check_float(op: &'static str, images: &Tensor, parameters: &Tensor) -> Result<()> {
    check_same(op, images, images)?;
    let expected = images.dtype().of_parameters();
    if parameters.dtype() != expected {
        return Err(Error::DType { op, expected, found: parameters.dtype() });
    }
    Ok(())
}

/// Refuses images that are neither f32, bf16 nor f64, and two types that differ.
///
/// # Errors
/// As said.
pub(crate) fn check_same(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if !a.dtype().is_float() {
        return Err(Error::DType { op, expected: DType::F32, found: a.dtype() });
    }
    if b.dtype() != a.dtype() {
        return Err(Error::DType { op, expected: a.dtype(), found: b.dtype() });
    }
    Ok(())
}
