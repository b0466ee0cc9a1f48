//! Views, which share the buffer, and the copies that make a tensor dense again.

use crate::copy::{convert, copy_strided};
use crate::{DType, Element, Error, Layout, Result, Shape, Tensor, bf16};
use std::ops::Range;

/// Runs `$body` with `$T` as the Rust type of `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            DType::I8 => {
                type $T = i8;
                $body
            }
            DType::U8 => {
                type $T = u8;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
        }
    };
}

impl Tensor {
    fn with_view(&self, layout: Layout) -> Tensor {
        Tensor { layout, ..self.clone() }
    }

    /// The axes in another order, as a view: axis `i` of the result is axis `axes[i]`.
    ///
    /// # Errors
    /// `axes` is no permutation of the axes.
    pub fn permute(&self, axes: &[usize]) -> Result<Tensor> {
        Ok(self.with_view(self.layout.permute(axes)?))
    }

    /// Rank 2 with its axes exchanged, as a view.
    ///
    /// # Errors
    /// The rank is not 2.
    pub fn t(&self) -> Result<Tensor> {
        self.permute(&[1, 0])
    }

    /// The indices in `range` of one axis, as a view.
    ///
    /// # Errors
    /// No such axis or a range that leaves it.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Tensor> {
        Ok(self.with_view(self.layout.slice(axis, range, 1)?))
    }

    /// Every `step`-th index of `range` of one axis, as a view.
    ///
    /// # Errors
    /// No such axis, a range that leaves it, or a step of 0.
    pub fn slice_step(&self, axis: usize, range: Range<usize>, step: usize) -> Result<Tensor> {
        Ok(self.with_view(self.layout.slice(axis, range, step)?))
    }

    /// One index of an axis, which disappears, as a view.
    ///
    /// # Errors
    /// No such axis or index.
    pub fn select(&self, axis: usize, index: usize) -> Result<Tensor> {
        let narrowed = self.layout.slice(axis, index..index.saturating_add(1), 1)?;
        let order: Vec<usize> = (0..self.rank()).filter(|a| *a != axis).collect();
        let dims: Vec<usize> = order.iter().map(|a| self.shape()[*a]).collect();
        // Bring the axis of length 1 to the front, where dropping it is always a view.
        let front: Vec<usize> = std::iter::once(axis).chain(order).collect();
        let layout = narrowed.permute(&front)?.reshape(Shape::new(&dims)?);
        layout
            .map(|layout| self.with_view(layout))
            .ok_or_else(|| Error::shape("select", format!("cannot drop axis {axis} of {}", self.shape())))
    }

    /// Broadcast to `shape` by NumPy's rule, as a view whose stretched axes have stride 0.
    ///
    /// # Errors
    /// The shape does not broadcast to `shape`.
    pub fn expand(&self, shape: impl AsRef<[usize]>) -> Result<Tensor> {
        Ok(self.with_view(self.layout.expand(shape.as_ref())?))
    }

    /// An extra axis of length 1 before `axis`, as a view.
    ///
    /// # Errors
    /// `axis` is beyond the rank, or there would be too many axes.
    pub fn insert_axis(&self, axis: usize) -> Result<Tensor> {
        Ok(self.with_view(self.layout.insert_axis(axis)?))
    }

    /// The same elements in logical order under another shape: a view where the strides allow it, a copy otherwise.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Result<Tensor> {
        let target = Shape::new(shape.as_ref())?;
        if target.numel() != self.numel() {
            return Err(Error::shape(
                "reshape",
                format!("{} has {} elements, {target} has {}", self.shape(), self.numel(), target.numel()),
            ));
        }
        match self.layout.reshape(target) {
            Some(layout) => Ok(self.with_view(layout)),
            None => self.contiguous().reshape(target.dims()),
        }
    }

    /// Row-major in memory: this tensor where it already is, a copy otherwise.
    pub fn contiguous(&self) -> Tensor {
        if self.layout.is_contiguous() { self.clone() } else { self.copied_to(Layout::contiguous(*self.shape())) }
    }

    /// `N, H, W, C` in memory: this tensor where it already is, a copy otherwise. Ranks other than 4 become row-major.
    pub fn to_channels_last(&self) -> Tensor {
        let target = Layout::channels_last(*self.shape());
        let already = if self.rank() == 4 { self.layout.is_channels_last() } else { self.layout.is_contiguous() };
        if already { self.clone() } else { self.copied_to(target) }
    }

    /// A copy with a buffer of its own, in the same memory order where this one is dense.
    pub fn copy(&self) -> Tensor {
        self.copied_to(self.layout.like())
    }

    fn copied_to(&self, layout: Layout) -> Tensor {
        let mut out = Tensor::empty(self.shape(), self.dtype).expect("the shape was checked when this tensor was made");
        out.layout = layout;
        with_element!(self.dtype, T => out.write::<T>(self));
        out
    }

    fn write<T: Element>(&mut self, from: &Tensor) {
        let layout = self.layout;
        let source = from.buffer_slice::<T>().expect("same type");
        copy_strided(source, from.layout(), self.memory_mut::<T>().expect("same type"), &layout);
    }

    /// Overwrites all elements with those of `from`, which must have the same shape and type; the memory order is kept.
    ///
    /// # Errors
    /// Shapes or types differ.
    pub fn copy_from(&mut self, from: &Tensor) -> Result<()> {
        if self.shape() != from.shape() {
            return Err(Error::shape("copy_from", format!("cannot copy {} to {}", from.shape(), self.shape())));
        }
        if self.dtype != from.dtype {
            return Err(Error::DType { op: "copy_from", expected: self.dtype, found: from.dtype });
        }
        if !self.is_unique() || !self.layout.is_dense() {
            *self = self.empty_like();
        }
        // A dense view may start inside its buffer; `memory_mut` starts at the view, so the target layout starts at 0.
        let layout = self.layout.like();
        with_element!(self.dtype, T => {
            let source = from.buffer_slice::<T>()?;
            copy_strided(source, from.layout(), self.memory_mut::<T>()?, &layout);
        });
        Ok(())
    }

    /// The elements converted to another type in the same memory order: floats to integers truncate toward 0 and saturate, floats to bf16 round to nearest even.
    ///
    /// # Errors
    /// None today; kept fallible for types that may refuse.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        let source = if self.layout.is_dense() { self.clone() } else { self.contiguous() };
        let mut out = source.empty_like();
        out.dtype = dtype;
        out.buffer = std::sync::Arc::new(crate::storage::Buffer::new(self.numel() * dtype.size()));
        with_element!(self.dtype, From => with_element!(dtype, To => {
            convert::<From, To>(source.memory()?, out.memory_mut()?);
        }));
        Ok(out)
    }

    /// Tensors of one type joined along an axis; all other dimensions must agree.
    ///
    /// # Errors
    /// No tensors, no such axis, or dimensions or types that differ.
    pub fn concatenate(tensors: &[Tensor], axis: usize) -> Result<Tensor> {
        let first = tensors.first().ok_or_else(|| Error::argument("concatenate", "no tensors"))?;
        let fits = |t: &Tensor| {
            t.rank() == first.rank()
                && (0..t.rank()).all(|a| a == axis || t.shape()[a] == first.shape()[a])
                && t.dtype == first.dtype
        };
        if axis >= first.rank() || !tensors.iter().all(fits) {
            let list: Vec<String> = tensors.iter().map(|t| format!("{} {}", t.dtype, t.shape())).collect();
            return Err(Error::shape("concatenate", format!("cannot join {} along axis {axis}", list.join(", "))));
        }
        let mut dims = first.shape().to_vec();
        dims[axis] = tensors.iter().map(|t| t.shape()[axis]).sum();
        let mut out = Tensor::empty(&dims, first.dtype)?;
        let mut start = 0;
        for tensor in tensors {
            let part = out.layout.slice(axis, start..start + tensor.shape()[axis], 1)?;
            with_element!(first.dtype, T => {
                copy_strided(tensor.buffer_slice::<T>()?, tensor.layout(), out.memory_mut::<T>()?, &part);
            });
            start += tensor.shape()[axis];
        }
        Ok(out)
    }

    /// Values drawn one by one in logical order.
    ///
    /// # Errors
    /// The rank or the size is too large.
    pub fn from_fn<T: Element>(shape: impl AsRef<[usize]>, mut value: impl FnMut() -> T) -> Result<Tensor> {
        let mut out = Tensor::empty(shape, T::DTYPE)?;
        out.memory_mut::<T>()?.iter_mut().for_each(|x| *x = value());
        Ok(out)
    }
}
