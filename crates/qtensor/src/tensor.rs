use crate::storage::Buffer;
use crate::{DType, Element, Error, Layout, Result, Shape};
use std::fmt;
use std::sync::Arc;

/// A strided view of a shared buffer. Cloning shares the buffer; writing to a shared buffer copies it first.
#[derive(Clone)]
pub struct Tensor {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
}

impl Tensor {
    /// Elements of unspecified value in row-major order, for a kernel to write to.
    ///
    /// # Errors
    /// The rank or the size is too large.
    pub fn empty(shape: impl AsRef<[usize]>, dtype: DType) -> Result<Self> {
        Ok(Self::with_layout(Layout::contiguous(Shape::new(shape.as_ref())?), dtype))
    }

    /// Elements of unspecified value, `N, H, W, C` in memory for a logical shape of `N, C, H, W`.
    ///
    /// # Errors
    /// The rank or the size is too large.
    pub fn empty_channels_last(shape: impl AsRef<[usize]>, dtype: DType) -> Result<Self> {
        Ok(Self::with_layout(Layout::channels_last(Shape::new(shape.as_ref())?), dtype))
    }

    /// Elements of unspecified value of another type with the shape and, where it is dense, the memory order of `self`.
    pub fn empty_like_of(&self, dtype: DType) -> Self {
        Self::with_layout(self.layout.like(), dtype)
    }

    /// Elements of unspecified value with the shape, the type and, where it is dense, the memory order of `self`.
    pub fn empty_like(&self) -> Self {
        Self::with_layout(self.layout.like(), self.dtype)
    }

    fn with_layout(layout: Layout, dtype: DType) -> Self {
        let buffer = Arc::new(Buffer::new(layout.shape().numel() * dtype.size()));
        Tensor { buffer, dtype, layout }
    }

    /// All elements equal to `value`, which also gives the type.
    ///
    /// # Errors
    /// The rank or the size is too large.
    pub fn full<T: Element>(shape: impl AsRef<[usize]>, value: T) -> Result<Self> {
        let mut tensor = Self::empty(shape, T::DTYPE)?;
        tensor.memory_mut::<T>()?.fill(value);
        Ok(tensor)
    }

    /// All elements 0.
    ///
    /// # Errors
    /// The rank or the size is too large.
    pub fn zeros(shape: impl AsRef<[usize]>, dtype: DType) -> Result<Self> {
        let mut tensor = Self::empty(shape, dtype)?;
        tensor.fill_zero();
        Ok(tensor)
    }

    /// Zeros with the shape, type and memory order of `self`.
    pub fn zeros_like(&self) -> Self {
        let mut tensor = self.empty_like();
        tensor.fill_zero();
        tensor
    }

    /// A fresh tensor's whole buffer set to 0, which is the number 0 in every element type.
    fn fill_zero(&mut self) {
        if let Some(buffer) = Arc::get_mut(&mut self.buffer) {
            buffer.bytes_mut().fill(0);
        }
    }

    /// Rank 0, one element.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::full([], value).expect("a scalar fits")
    }

    /// Row-major elements.
    ///
    /// # Errors
    /// The number of values is not the product of the shape.
    pub fn from_slice<T: Element>(shape: impl AsRef<[usize]>, values: &[T]) -> Result<Self> {
        let mut tensor = Self::empty(shape, T::DTYPE)?;
        if tensor.numel() != values.len() {
            return Err(Error::shape("from_slice", format!("{} values for shape {}", values.len(), tensor.shape())));
        }
        tensor.memory_mut::<T>()?.copy_from_slice(values);
        Ok(tensor)
    }

    /// As [`from_slice`](Self::from_slice).
    ///
    /// # Errors
    /// The number of values is not the product of the shape.
    pub fn from_vec<T: Element>(shape: impl AsRef<[usize]>, values: Vec<T>) -> Result<Self> {
        Self::from_slice(shape, &values)
    }

    /// The dimensions.
    pub fn shape(&self) -> &Shape {
        self.layout.shape()
    }

    /// Elements from one index to the next along each axis.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// Shape, strides and offset together.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape().numel()
    }

    /// Identity of the buffer: equal for all views of one buffer while any of them lives.
    pub fn buffer_id(&self) -> usize {
        Arc::as_ptr(&self.buffer) as usize
    }

    /// Bytes of the whole buffer that this view keeps alive.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether this is the only handle on its buffer, so that writing copies nothing.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.buffer) == 1
    }

    /// The whole buffer as elements, whatever this view covers; index it with [`layout`](Self::layout).
    ///
    /// # Errors
    /// `T` is not the type of the elements.
    pub fn buffer_slice<T: Element>(&self) -> Result<&[T]> {
        self.expect::<T>("read")?;
        Ok(bytemuck::cast_slice(self.buffer.bytes()))
    }

    /// The elements in logical (row-major) order.
    ///
    /// # Errors
    /// Another element type, or strides that are not row-major: call [`contiguous`](Self::contiguous) first.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if !self.layout.is_contiguous() {
            return Err(Error::shape("as_slice", format!("{self:?} is not row-major in memory")));
        }
        Ok(&self.buffer_slice()?[self.dense_range()])
    }

    /// The elements in memory order, whichever order of the axes that is.
    ///
    /// # Errors
    /// Another element type, or strides with gaps or repeats.
    pub fn memory<T: Element>(&self) -> Result<&[T]> {
        if !self.layout.is_dense() {
            return Err(Error::shape("memory", format!("{self:?} has gaps or repeats in memory")));
        }
        Ok(&self.buffer_slice()?[self.dense_range()])
    }

    /// The elements in memory order, for writing. A shared buffer, or one with gaps, is copied first, so that no other tensor changes.
    ///
    /// # Errors
    /// Another element type.
    pub fn memory_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        self.expect::<T>("write")?;
        if !self.layout.is_dense() || Arc::get_mut(&mut self.buffer).is_none() {
            *self = self.copy();
        }
        let range = self.dense_range();
        let buffer = Arc::get_mut(&mut self.buffer).expect("unique: just checked or just copied");
        Ok(&mut bytemuck::cast_slice_mut(buffer.bytes_mut())[range])
    }

    fn dense_range(&self) -> std::ops::Range<usize> {
        let start = if self.numel() == 0 { 0 } else { self.layout.offset() };
        start..start + self.numel()
    }

    fn expect<T: Element>(&self, op: &'static str) -> Result<()> {
        if self.dtype == T::DTYPE {
            return Ok(());
        }
        Err(Error::DType { op, expected: T::DTYPE, found: self.dtype })
    }

    /// One element.
    ///
    /// # Errors
    /// Another element type, or an index outside the shape.
    pub fn get<T: Element>(&self, index: &[usize]) -> Result<T> {
        let place = self
            .layout
            .index(index)
            .ok_or_else(|| Error::shape("get", format!("index {index:?} leaves shape {}", self.shape())))?;
        Ok(self.buffer_slice()?[place])
    }

    /// The value of a tensor with one element, converted to `f64`.
    ///
    /// # Errors
    /// There is not exactly one element.
    pub fn item(&self) -> Result<f64> {
        if self.numel() != 1 {
            return Err(Error::shape("item", format!("shape {} does not have exactly one element", self.shape())));
        }
        Ok(self.to_dtype(DType::F64)?.contiguous().as_slice::<f64>()?[0])
    }

    /// The elements in logical order.
    ///
    /// # Errors
    /// Another element type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        Ok(self.contiguous().as_slice()?.to_vec())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?}, strides {:?})", self.dtype, self.shape(), self.strides())
    }
}
