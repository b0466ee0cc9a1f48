//! Other shapes of the same elements: reshape, flatten, permute, slice, concatenate. All but the last give views where possible.

use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qtensor::{Shape, Tensor};
use std::ops::Range;

/// The same elements in logical order under another shape.
#[derive(Clone, Debug)]
pub struct Reshape {
    /// The new shape.
    pub shape: Shape,
}

impl Vjp for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_shape(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy.reshape(saved.take_shape()?)?)])
    }
}

impl Op for Reshape {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(x.reshape(self.shape)?)
    }
}

/// The axes in another order: axis `i` of the result is axis `axes[i]` of the input.
#[derive(Clone, Debug)]
pub struct Permute {
    /// A permutation of the axes.
    pub axes: Vec<usize>,
}

impl Vjp for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn vjp(&self, _: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let mut inverse = vec![0; self.axes.len()];
        self.axes.iter().enumerate().for_each(|(i, axis)| inverse[*axis] = i);
        Ok(vec![Some(dy.permute(&inverse)?)])
    }
}

impl Op for Permute {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(x.permute(&self.axes)?)
    }
}

/// The indices in `range` of one axis.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Which axis.
    pub axis: usize,
    /// Which indices.
    pub range: Range<usize>,
}

impl Vjp for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_shape(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let mut before = saved.take_shape()?.to_vec();
        let mut after = before.clone();
        after[self.axis] -= self.range.end;
        before[self.axis] = self.range.start;
        let parts = [Tensor::zeros(before, dy.dtype())?, dy.clone(), Tensor::zeros(after, dy.dtype())?];
        Ok(vec![Some(Tensor::concatenate(&parts, self.axis)?)])
    }
}

impl Op for Slice {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(x.slice(self.axis, self.range.clone())?)
    }
}

/// Tensors joined along an axis.
#[derive(Clone, Debug)]
pub struct Concatenate {
    /// Which axis.
    pub axis: usize,
}

impl Vjp for Concatenate {
    fn name(&self) -> &'static str {
        "concatenate"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        record.inputs.iter().for_each(|x| saved.keep_shape(x));
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let mut start = 0;
        let mut part = |need: &bool| {
            let end = start + saved.take_shape()?[self.axis];
            let range = std::mem::replace(&mut start, end)..end;
            if *need { Ok(Some(dy.slice(self.axis, range)?)) } else { Ok(None) }
        };
        needs.iter().map(&mut part).collect()
    }
}

impl Op for Concatenate {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        Ok(Tensor::concatenate(x, self.axis)?)
    }
}

impl Tape {
    /// The same elements in logical order under another shape; a view where the strides allow it.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&mut self, x: &Var, shape: impl AsRef<[usize]>) -> Result<Var> {
        self.apply(Reshape { shape: Shape::new(shape.as_ref())? }, &[x])
    }

    /// `[N, …]` to `[N, product of the rest]`.
    ///
    /// # Errors
    /// `x` has rank 0.
    pub fn flatten(&mut self, x: &Var) -> Result<Var> {
        let Some((batch, rest)) = x.shape().split_first() else {
            return Err(Error::shape("flatten", "a scalar has no batch axis"));
        };
        let features = rest.iter().product();
        self.reshape(x, [*batch, features])
    }

    /// The axes in another order, as a view: axis `i` of the result is axis `axes[i]` of `x`.
    ///
    /// # Errors
    /// `axes` is no permutation of the axes.
    pub fn permute(&mut self, x: &Var, axes: &[usize]) -> Result<Var> {
        self.apply(Permute { axes: axes.to_vec() }, &[x])
    }

    /// The indices in `range` of one axis, as a view.
    ///
    /// # Errors
    /// No such axis, or a range that leaves it.
    pub fn slice(&mut self, x: &Var, axis: usize, range: Range<usize>) -> Result<Var> {
        self.apply(Slice { axis, range }, &[x])
    }

    /// Variables joined along an axis; all other dimensions agree.
    ///
    /// # Errors
    /// No variables, no such axis, or dimensions or types that differ.
    pub fn concatenate(&mut self, parts: &[&Var], axis: usize) -> Result<Var> {
        self.apply(Concatenate { axis }, parts)
    }
}
