//! Layers with few weights ([`crate::sparse`]) by their dense definition.

use super::conv;
use crate::sparse::Pattern;
use crate::{Activation, Conv2dParams};
use qtensor::{DType, Result, Tensor};

/// A layer with its values: of a linear one, the parameters are the default.
pub struct Layer<'a> {
    /// Which weights there are.
    pub pattern: &'a Pattern,
    /// f32, one for each of them.
    pub values: &'a Tensor,
    /// How filters walk the images.
    pub params: Conv2dParams,
}

impl Layer<'_> {
    /// The dense weights with four axes.
    fn filters(&self) -> Result<Tensor> {
        images(&self.pattern.to_dense(self.values)?)
    }

    /// `activation(W x + bias)` in f64, row-major.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
        let y = conv::conv2d(&images(x)?, &self.filters()?, bias, &self.params, activation)?;
        y.reshape(&y.shape()[..x.rank()])
    }

    /// The gradient with respect to inputs of that shape, in f64, row-major.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn input_grad(&self, dy: &Tensor, x_shape: &[usize]) -> Result<Tensor> {
        let mut shape = x_shape.to_vec();
        shape.resize(4, 1);
        let dx = conv::conv2d_input_grad(&images(dy)?, &self.filters()?, &shape, &self.params)?;
        dx.reshape(x_shape)
    }

    /// The gradient with respect to the values, in f64.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn weight_grad(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let (filters, pattern) = (self.filters()?, self.pattern);
        let dense = conv::conv2d_weight_grad(&images(x)?, &images(dy)?, filters.shape(), &self.params)?;
        let dense = dense.to_dtype(DType::F64)?.to_vec::<f64>()?;
        let length = dense.len() / pattern.rows().max(1);
        let row = |o: usize| pattern.columns(o).iter().map(move |column| o * length + *column as usize);
        Tensor::from_vec([pattern.len()], (0..pattern.rows()).flat_map(row).map(|place| dense[place]).collect())
    }
}

/// With four axes.
fn images(x: &Tensor) -> Result<Tensor> {
    let mut shape = x.shape().to_vec();
    shape.resize(4, 1);
    x.reshape(shape)
}
