use crate::{Error, MAX_RANK, Result, Shape};

/// Where the elements of a tensor lie in its buffer: shape, strides and offset, all in elements. A stride of 0 repeats an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl Layout {
    /// Row-major, from the start of the buffer.
    pub fn contiguous(shape: Shape) -> Self {
        let order: [usize; MAX_RANK] = std::array::from_fn(|i| i);
        Self::ordered(shape, &order[..shape.rank()])
    }

    /// `N, H, W, C` in memory for a logical `N, C, H, W`: rank 4; other ranks are row-major.
    pub fn channels_last(shape: Shape) -> Self {
        if shape.rank() == 4 { Self::ordered(shape, &[0, 2, 3, 1]) } else { Self::contiguous(shape) }
    }

    /// Dense, with the axes in memory in the given order, slowest first.
    fn ordered(shape: Shape, order: &[usize]) -> Self {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for &axis in order.iter().rev() {
            strides[axis] = step;
            step *= shape[axis].max(1);
        }
        Layout { shape, strides, offset: 0 }
    }

    /// The dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Elements from one index to the next along each axis.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.rank()]
    }

    /// Index of the first element in the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// One more than the largest buffer index in use; 0 where there are no elements.
    pub fn end(&self) -> usize {
        if self.shape.numel() == 0 {
            return 0;
        }
        self.offset + self.shape.iter().zip(self.strides()).map(|(d, s)| (d - 1) * s).sum::<usize>() + 1
    }

    /// Row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.matches(&Layout::contiguous(self.shape))
    }

    /// Rank 4 and `N, H, W, C` in memory without gaps.
    pub fn is_channels_last(&self) -> bool {
        self.shape.rank() == 4 && self.matches(&Layout::channels_last(self.shape))
    }

    /// The same strides on every axis longer than 1.
    fn matches(&self, other: &Layout) -> bool {
        self.shape.numel() == 0
            || (0..self.shape.rank()).all(|i| self.shape[i] == 1 || self.strides[i] == other.strides[i])
    }

    /// Without gaps or repeats, in any order of the axes.
    pub fn is_dense(&self) -> bool {
        let mut step = 1;
        self.memory_order().all(|axis| {
            let fits = self.shape[axis] == 1 || self.strides[axis] == step;
            step *= self.shape[axis];
            fits
        }) || self.shape.numel() == 0
    }

    /// Axes from the fastest in memory to the slowest.
    fn memory_order(&self) -> impl Iterator<Item = usize> + use<> {
        let mut axes: [usize; MAX_RANK] = std::array::from_fn(|i| i);
        let rank = self.shape.rank();
        axes[..rank].sort_by_key(|&a| (self.strides[a], self.shape[a], std::cmp::Reverse(a)));
        axes.into_iter().take(rank)
    }

    /// A dense layout of the same shape with the axes in the same memory order, where this one is dense; row-major otherwise.
    pub fn like(&self) -> Layout {
        if self.is_dense() { Layout { offset: 0, ..*self } } else { Layout::contiguous(self.shape) }
    }

    /// The axes in a new order: axis `i` of the result is axis `axes[i]` of this.
    ///
    /// # Errors
    /// `axes` is not a permutation of `0..rank`.
    pub fn permute(&self, axes: &[usize]) -> Result<Layout> {
        let rank = self.shape.rank();
        let mut seen = [false; MAX_RANK];
        let valid = axes.len() == rank && axes.iter().all(|&a| a < rank && !std::mem::replace(&mut seen[a], true));
        if !valid {
            return Err(Error::shape(
                "permute",
                format!("axes {axes:?} are no permutation of the {rank} axes of {}", self.shape),
            ));
        }
        let dims: Vec<usize> = axes.iter().map(|&a| self.shape[a]).collect();
        let mut out = Layout { shape: Shape::new(&dims)?, strides: [0; MAX_RANK], offset: self.offset };
        axes.iter().enumerate().for_each(|(i, &a)| out.strides[i] = self.strides[a]);
        Ok(out)
    }

    /// Indices `start, start + step, …` below `end` of one axis.
    ///
    /// # Errors
    /// No such axis, a range that leaves it, or a step of 0.
    pub fn slice(&self, axis: usize, range: std::ops::Range<usize>, step: usize) -> Result<Layout> {
        if axis >= self.shape.rank() || range.start > range.end || range.end > self.shape[axis] || step == 0 {
            return Err(Error::shape(
                "slice",
                format!("range {range:?} by {step} of axis {axis} does not fit shape {}", self.shape),
            ));
        }
        let mut dims = self.shape.to_vec();
        dims[axis] = (range.end - range.start).div_ceil(step);
        let mut out = *self;
        out.shape = Shape::new(&dims)?;
        out.offset += range.start * self.strides[axis];
        out.strides[axis] *= step;
        Ok(out)
    }

    /// Stretches axes of length 1, and adds axes in front, by NumPy's broadcasting rule.
    ///
    /// # Errors
    /// The shape does not broadcast to `shape`.
    pub fn expand(&self, shape: &[usize]) -> Result<Layout> {
        let target = Shape::new(shape)?;
        let fits = target.rank() >= self.shape.rank();
        let added = target.rank().wrapping_sub(self.shape.rank());
        if !fits || (0..self.shape.rank()).any(|i| self.shape[i] != target[i + added] && self.shape[i] != 1) {
            return Err(Error::shape("expand", format!("shape {} does not broadcast to {target}", self.shape)));
        }
        let mut out = Layout { shape: target, strides: [0; MAX_RANK], offset: self.offset };
        for i in 0..self.shape.rank() {
            out.strides[i + added] = if self.shape[i] == 1 && target[i + added] != 1 { 0 } else { self.strides[i] };
        }
        Ok(out)
    }

    /// The same elements in row-major order under another shape, or `None` where that needs a copy.
    pub fn reshape(&self, shape: Shape) -> Option<Layout> {
        if shape.numel() != self.shape.numel() {
            return None;
        }
        let mut out = Layout { offset: self.offset, ..Layout::contiguous(shape) };
        if self.shape.numel() == 0 || self.is_contiguous() {
            return Some(out);
        }
        // Walk both shapes from the fastest axis, matching groups of axes with equal products; a group of old axes must be one run.
        let old: Vec<(usize, usize)> =
            self.shape.iter().zip(self.strides()).filter(|(d, _)| **d != 1).map(|(d, s)| (*d, *s)).collect();
        let (mut new_axis, mut run) = (shape.rank(), old.as_slice());
        while let Some(((dim, stride), rest)) = run.split_last() {
            let (mut length, mut rest) = (*dim, rest);
            let mut filled = 1;
            loop {
                while filled < length && new_axis > 0 {
                    new_axis -= 1;
                    out.strides[new_axis] = stride * filled;
                    filled *= shape[new_axis];
                }
                if filled == length {
                    break;
                }
                let ((d, s), before) = rest.split_last()?;
                if *s != stride * length {
                    return None;
                }
                length *= d;
                rest = before;
            }
            run = rest;
        }
        Some(out)
    }

    /// An extra axis of length 1 before `axis`.
    ///
    /// # Errors
    /// `axis` beyond the rank, or the rank already [`MAX_RANK`].
    pub fn insert_axis(&self, axis: usize) -> Result<Layout> {
        let mut dims = self.shape.to_vec();
        if axis > dims.len() {
            return Err(Error::shape("insert_axis", format!("no place {axis} in shape {}", self.shape)));
        }
        dims.insert(axis, 1);
        let mut out = Layout { shape: Shape::new(&dims)?, strides: [0; MAX_RANK], offset: self.offset };
        out.strides[..axis].copy_from_slice(&self.strides[..axis]);
        out.strides[axis + 1..dims.len()].copy_from_slice(&self.strides[axis..dims.len() - 1]);
        Ok(out)
    }

    /// Buffer index of an element; `None` where the index leaves the shape.
    pub fn index(&self, index: &[usize]) -> Option<usize> {
        if index.len() != self.shape.rank() || index.iter().zip(self.shape.iter()).any(|(i, d)| i >= d) {
            return None;
        }
        Some(self.offset + index.iter().zip(self.strides()).map(|(i, s)| i * s).sum::<usize>())
    }
}
