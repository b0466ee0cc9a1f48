//! Views to and from the `ndarray` crate.

use crate::{Element, Error, Result, Tensor};
use ndarray::{ArrayView, ArrayViewD, Dimension, IxDyn, ShapeBuilder};

impl Tensor {
    /// A view of the same memory as an `ndarray` array, with the same strides.
    ///
    /// # Errors
    /// `T` is not the type of the elements, or the tensor was expanded and so repeats elements.
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayViewD<'_, T>> {
        let memory = &self.buffer_slice::<T>()?[self.layout().offset()..];
        if self.shape().iter().zip(self.strides()).any(|(dim, stride)| *stride == 0 && *dim > 1) {
            return Err(Error::shape("to_ndarray", format!("{self:?} repeats elements; call contiguous() first")));
        }
        let shape = IxDyn(self.shape()).strides(IxDyn(self.strides()));
        ArrayView::from_shape(shape, memory).map_err(|error| Error::shape("to_ndarray", error.to_string()))
    }

    /// A copy of an `ndarray` array or view of any memory order, row-major.
    ///
    /// # Errors
    /// The rank is too large.
    pub fn from_ndarray<T: Element, D: Dimension>(array: &ArrayView<'_, T, D>) -> Result<Tensor> {
        let mut out = Tensor::empty(array.shape(), T::DTYPE)?;
        for (to, from) in out.memory_mut::<T>()?.iter_mut().zip(array.iter()) {
            *to = *from;
        }
        Ok(out)
    }
}
