use crate::{Error, Result};
use std::fmt;

/// The most dimensions that a tensor may have.
pub const MAX_RANK: usize = 8;

/// The dimensions of a tensor, at most [`MAX_RANK`] of them, kept in place. The product fits `isize` even for 8-byte elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// Checks the rank and that the byte size cannot overflow.
    ///
    /// # Errors
    /// More than [`MAX_RANK`] dimensions, or a size that does not fit the address space (zero dimensions do not hide an overflow).
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.len() > MAX_RANK {
            return Err(Error::shape("shape", format!("{} dimensions; at most {MAX_RANK} are supported", dims.len())));
        }
        let bytes = dims.iter().filter(|d| **d != 0).try_fold(8usize, |n, d| n.checked_mul(*d));
        if bytes.is_none_or(|b| b > isize::MAX as usize) {
            return Err(Error::Overflow { op: "shape", shape: dims.to_vec() });
        }
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements: the product of the dimensions, 1 for a scalar.
    pub fn numel(&self) -> usize {
        self.dims().iter().product()
    }

    /// The shape of `self` and `other` broadcast together by NumPy's rule: aligned at the last axis, 1 stretches.
    ///
    /// # Errors
    /// Dimensions that differ where neither is 1; the message names `op` and both shapes.
    pub fn broadcast(&self, other: &Shape, op: &'static str) -> Result<Shape> {
        let rank = self.rank().max(other.rank());
        let mut dims = [1; MAX_RANK];
        for (i, dim) in dims.iter_mut().enumerate().take(rank) {
            let of = |s: &Shape| if i + s.rank() >= rank { s.dims[i + s.rank() - rank] } else { 1 };
            *dim = match (of(self), of(other)) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return Err(Error::shape(op, format!("shapes {self} and {other} do not broadcast together"))),
            };
        }
        Shape::new(&dims[..rank])
    }
}

impl std::ops::Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        self.dims()
    }
}

impl AsRef<[usize]> for Shape {
    fn as_ref(&self) -> &[usize] {
        self.dims()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.dims().iter().map(usize::to_string).collect();
        f.write_str(&if text.is_empty() { "scalar".to_string() } else { text.join("×") })
    }
}

impl PartialEq<[usize]> for Shape {
    fn eq(&self, other: &[usize]) -> bool {
        self.dims() == other
    }
}

impl<const N: usize> PartialEq<[usize; N]> for Shape {
    fn eq(&self, other: &[usize; N]) -> bool {
        self.dims() == other
    }
}

impl<const N: usize> PartialEq<[usize; N]> for &Shape {
    fn eq(&self, other: &[usize; N]) -> bool {
        self.dims() == other
    }
}
