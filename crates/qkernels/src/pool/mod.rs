//! Pooling of images `[N, C, H, W]`. Results are channels-last in memory, or have the batch innermost where the input has; f32 in both orders is fast.

mod order;
mod vector;

use crate::isa::Stored;
use crate::naive;
use order::{Order, ordered_as};
use qtensor::{DType, Error, Result, Tensor, bf16};
use std::ops::Range;

/// Window, steps and borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolParams {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows and columns of border on each side, at most half the window.
    pub padding: [usize; 2],
    /// Whether a last window that leaves the padded image counts, as long as it starts inside the image or its leading border.
    pub ceil_mode: bool,
    /// Whether averages count the border as zeros.
    pub count_include_pad: bool,
}

impl PoolParams {
    /// Square windows of side `kernel` side by side, no border.
    pub fn new(kernel: usize) -> Self {
        PoolParams {
            kernel: [kernel; 2],
            stride: [kernel; 2],
            padding: [0; 2],
            ceil_mode: false,
            count_include_pad: true,
        }
    }
}

/// The windows of one pooling: everything that follows from the parameters and the shape of the input.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Images.
    pub images: usize,
    /// Channels.
    pub channels: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    params: PoolParams,
}

impl Windows {
    /// Checks the parameters against an input shape.
    ///
    /// # Errors
    /// The rank is not 4, a zero kernel or stride, padding above half the kernel, or a window larger than the padded image.
    pub fn new(op: &'static str, shape: &[usize], params: &PoolParams) -> Result<Self> {
        let [images, channels, height, width] = *shape else {
            return Err(Error::shape(op, format!("images must be [N, C, H, W], found {shape:?}")));
        };
        let input = [height, width];
        if input.iter().any(|d| i32::try_from(*d).is_err()) || i32::try_from(height * width).is_err() {
            return Err(Error::shape(op, format!("an image of {height}×{width} has too many places")));
        }
        let mut output = [0; 2];
        for axis in 0..2 {
            let (kernel, stride, padding) = (params.kernel[axis], params.stride[axis], params.padding[axis]);
            if kernel == 0 || stride == 0 || padding > kernel / 2 {
                return Err(Error::argument(
                    op,
                    format!("{params:?}: kernel and stride must be positive, padding at most half the kernel"),
                ));
            }
            let Some(room) = (input[axis] + 2 * padding).checked_sub(kernel) else {
                return Err(Error::shape(
                    op,
                    format!("a window of {:?} does not fit images of {height}×{width}", params.kernel),
                ));
            };
            output[axis] = if params.ceil_mode { room.div_ceil(stride) } else { room / stride } + 1;
            if params.ceil_mode && (output[axis] - 1) * stride >= input[axis] + padding {
                output[axis] -= 1;
            }
        }
        Ok(Windows { images, channels, input, output, params: *params })
    }

    /// Shape of the output.
    pub fn output_shape(&self) -> [usize; 4] {
        [self.images, self.channels, self.output[0], self.output[1]]
    }

    /// Images times channels.
    pub fn planes(&self) -> usize {
        self.images * self.channels
    }

    /// Rows (axis 0) or columns (axis 1) of the input that window `index` covers.
    #[inline(always)]
    pub fn span(&self, axis: usize, index: usize) -> Range<usize> {
        let start = index * self.params.stride[axis];
        let end = (start + self.params.kernel[axis]).saturating_sub(self.params.padding[axis]);
        start.saturating_sub(self.params.padding[axis])..end.min(self.input[axis])
    }

    /// The place `row · width + column` in window (`output row`, `output column`) of a row and a column of the input that it covers.
    #[inline(always)]
    pub fn place(&self, output: [usize; 2], input: [usize; 2]) -> usize {
        let [row, column] = [0, 1].map(|axis| self.within(axis, output[axis], input[axis]));
        row * self.params.kernel[1] + column
    }

    #[inline(always)]
    fn within(&self, axis: usize, output: usize, input: usize) -> usize {
        input + self.params.padding[axis] - output * self.params.stride[axis]
    }

    /// Places of a window.
    pub fn places(&self) -> usize {
        self.params.kernel[0] * self.params.kernel[1]
    }

    /// What the sum of a window is divided by.
    pub fn divisor(&self, row: usize, column: usize) -> usize {
        let side = |axis: usize, index: usize| {
            let start = index * self.params.stride[axis];
            (start + self.params.kernel[axis]).min(self.input[axis] + 2 * self.params.padding[axis]) - start
        };
        if self.params.count_include_pad {
            side(0, row) * side(1, column)
        } else {
            self.span(0, row).len() * self.span(1, column).len()
        }
    }

    /// Calls `work(row, column)` for every output in row-major order.
    pub fn each_output(&self, mut work: impl FnMut(usize, usize)) {
        for row in 0..self.output[0] {
            for column in 0..self.output[1] {
                work(row, column);
            }
        }
    }
}

/// The largest value of each window and its place `row · KW + column` in the window, border included, of the same shape: u8 where a window has at most 256 places, else i32. Of equal values
/// the first in row-major order wins, but NaN wins over all and the last NaN over the others; the border never wins.
///
/// # Errors
/// See [`Windows::new`]; a type other than f32, bf16 and f64.
pub fn max_pool2d(x: &Tensor, params: &PoolParams) -> Result<(Tensor, Tensor)> {
    let windows = Windows::new("max_pool2d", x.shape(), params)?;
    let shape = windows.output_shape();
    match x.dtype() {
        DType::F32 => return max_pool2d_of::<f32>(x, &windows),
        DType::BF16 => return max_pool2d_of::<bf16>(x, &windows),
        _ => {}
    }
    let (y, places) = naive::pool::max_pool(&naive::values("max_pool2d", x)?, &windows);
    let y = naive::tensor(shape, y, x.dtype())?;
    let places = Tensor::from_vec(shape, places)?.to_dtype(place_type(&windows))?;
    Ok((ordered_as(x, &y)?, ordered_as(x, &places)?))
}

/// The smallest type that holds the places of a window.
fn place_type(windows: &Windows) -> DType {
    if windows.places() <= 1 << 8 { DType::U8 } else { DType::I32 }
}

fn max_pool2d_of<T: Stored>(x: &Tensor, windows: &Windows) -> Result<(Tensor, Tensor)> {
    let (order, x) = Order::of(x)?;
    let windows = order.windows(windows);
    let mut y = Tensor::empty_channels_last(windows.output_shape(), T::DTYPE)?;
    let mut places = Tensor::empty_channels_last(windows.output_shape(), place_type(&windows))?;
    match places.dtype() {
        DType::U8 => vector::max_pool::<T, u8>(x.memory()?, &windows, y.memory_mut()?, places.memory_mut()?),
        _ => vector::max_pool::<T, i32>(x.memory()?, &windows, y.memory_mut()?, places.memory_mut()?),
    }
    Ok((order.back(&y)?, order.back(&places)?))
}

/// Gradient of [`max_pool2d`] with respect to its input of shape `x_shape`, from the places that it returned.
///
/// # Errors
/// Shapes that do not fit, places of another type or outside the window, or gradients of a type other than f32, bf16 and f64.
pub fn max_pool2d_grad(dy: &Tensor, places: &Tensor, x_shape: &[usize], params: &PoolParams) -> Result<Tensor> {
    const OP: &str = "max_pool2d_grad";
    let windows = Windows::new(OP, x_shape, params)?;
    check_output(OP, dy, &windows)?;
    check_output(OP, places, &windows)?;
    let expected = place_type(&windows);
    if places.dtype() != expected {
        return Err(Error::DType { op: OP, expected, found: places.dtype() });
    }
    let (order, places) = Order::of(places)?;
    let size = windows.places();
    let largest = match expected {
        DType::U8 => places.memory::<u8>()?.iter().max().map(|place| usize::from(*place)),
        // Negative ones become large.
        _ => places.memory::<i32>()?.iter().map(|place| *place as u32 as usize).max(),
    };
    if let Some(bad) = largest.filter(|place| *place >= size) {
        return Err(Error::argument(OP, format!("place {bad} is outside a window of {size}")));
    }
    match dy.dtype() {
        DType::F32 => return max_pool2d_grad_of::<f32>(dy, (order, &places), &windows),
        DType::BF16 => return max_pool2d_grad_of::<bf16>(dy, (order, &places), &windows),
        _ => {}
    }
    let places = order.back(&places)?.to_dtype(DType::I32)?.to_vec::<i32>()?;
    let dx = naive::pool::max_pool_grad(&naive::values(OP, dy)?, &places, &windows);
    Ok(naive::tensor(x_shape, dx, dy.dtype())?.to_channels_last())
}

fn max_pool2d_grad_of<T: Stored>(dy: &Tensor, (order, places): (Order, &Tensor), windows: &Windows) -> Result<Tensor> {
    let (dy, windows) = (order.bring(dy)?, order.windows(windows));
    let [height, width] = windows.input;
    let mut dx = Tensor::empty_channels_last([windows.images, windows.channels, height, width], T::DTYPE)?;
    match places.dtype() {
        DType::U8 => vector::max_pool_grad::<T, u8>(dy.memory()?, places.memory()?, &windows, dx.memory_mut()?),
        _ => vector::max_pool_grad::<T, i32>(dy.memory()?, places.memory()?, &windows, dx.memory_mut()?),
    }
    order.back(&dx)
}

/// The mean of each window.
///
/// # Errors
/// See [`Windows::new`]; a type other than f32 and f64.
pub fn avg_pool2d(x: &Tensor, params: &PoolParams) -> Result<Tensor> {
    let windows = Windows::new("avg_pool2d", x.shape(), params)?;
    if x.dtype() == DType::F32 {
        let (order, x) = Order::of(x)?;
        let windows = order.windows(&windows);
        let mut y = Tensor::empty_channels_last(windows.output_shape(), DType::F32)?;
        vector::avg_pool(x.memory()?, &windows, y.memory_mut()?);
        return order.back(&y);
    }
    let y = naive::pool::avg_pool(&naive::values("avg_pool2d", x)?, &windows);
    ordered_as(x, &naive::tensor(windows.output_shape(), y, x.dtype())?)
}

/// Gradient of [`avg_pool2d`] with respect to its input of shape `x_shape`.
///
/// # Errors
/// Shapes that do not fit, or a type other than f32 and f64.
pub fn avg_pool2d_grad(dy: &Tensor, x_shape: &[usize], params: &PoolParams) -> Result<Tensor> {
    let windows = Windows::new("avg_pool2d_grad", x_shape, params)?;
    check_output("avg_pool2d_grad", dy, &windows)?;
    if dy.dtype() == DType::F32 {
        let (order, dy) = Order::of(dy)?;
        let windows = order.windows(&windows);
        let x_shape = order.shape(image_shape("avg_pool2d_grad", x_shape)?);
        let mut dx = Tensor::empty_channels_last(x_shape, DType::F32)?;
        vector::avg_pool_grad(dy.memory()?, &windows, dx.memory_mut()?);
        return order.back(&dx);
    }
    let dx = naive::pool::avg_pool_grad(&naive::values("avg_pool2d_grad", dy)?, &windows);
    ordered_as(dy, &naive::tensor(x_shape, dx, dy.dtype())?)
}

/// The mean of each plane, `[N, C]`.
///
/// # Errors
/// `x` is not `[N, C, H, W]`, or a type other than f32 and f64.
pub fn global_avg_pool2d(x: &Tensor) -> Result<Tensor> {
    if x.rank() != 4 {
        return Err(Error::shape("global_avg_pool2d", format!("images must be [N, C, H, W], found {}", x.shape())));
    }
    if x.dtype() == DType::F32 {
        let (order, x) = Order::of(x)?;
        let [images, channels, height, width] = image_shape("global_avg_pool2d", x.shape())?;
        let mut y = Tensor::empty([images, channels, 1, 1], DType::F32)?;
        vector::mean_of_places(x.memory()?, channels, height * width, y.memory_mut()?);
        let y = order.back(&y)?;
        return y.reshape([y.shape()[0], y.shape()[1]]);
    }
    crate::reduce::mean(x, &[2, 3], false)
}

/// Gradient of [`global_avg_pool2d`] with respect to its input of shape `x_shape`.
///
/// # Errors
/// `dy` is not `[N, C]` of `x_shape`, or a type other than f32 and f64.
pub fn global_avg_pool2d_grad(dy: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
    const OP: &str = "global_avg_pool2d_grad";
    let shape @ [images, channels, height, width] = image_shape(OP, x_shape)?;
    if dy.shape().dims() != [images, channels] {
        return Err(Error::shape(OP, format!("a gradient of shape {} for images {x_shape:?}", dy.shape())));
    }
    let share = 1.0 / (height * width) as f64;
    if dy.dtype() == DType::F32 {
        let (order, dy) = Order::of(&dy.reshape([images, channels, 1, 1])?)?;
        let x_shape = order.shape(shape);
        let mut dx = Tensor::empty_channels_last(x_shape, DType::F32)?;
        vector::spread(dy.memory()?, x_shape[1], height * width, share as f32, dx.memory_mut()?);
        return order.back(&dx);
    }
    let share = crate::elementwise::scale(dy, share)?;
    Ok(share.reshape([images, channels, 1, 1])?.expand(x_shape)?.to_channels_last())
}

fn image_shape(op: &'static str, shape: &[usize]) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(shape).map_err(|_| Error::shape(op, format!("images must be [N, C, H, W], found {shape:?}")))
}

fn check_output(op: &'static str, t: &Tensor, windows: &Windows) -> Result<()> {
    if t.shape().dims() == windows.output_shape() {
        return Ok(());
    }
    Err(Error::shape(op, format!("{t:?} for an output of shape {:?}", windows.output_shape())))
}
