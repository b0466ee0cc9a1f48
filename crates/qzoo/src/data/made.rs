//! Images that are made when they are first asked for: decoded, drawn or resized.

use super::dataset::{ImageShape, ImageSource};
use super::error::Result;
use std::sync::OnceLock;

/// Images are kept once they are made if all of them together need at most this many bytes.
const MOST_KEPT_BYTES: usize = 1 << 30;

/// As many images as `count`, made by a function of their number, which gives the same each time.
pub(super) struct MadeImages<F> {
    count: usize,
    make: F,
    /// Empty where all of them would need too much memory.
    kept: Vec<OnceLock<Box<[u8]>>>,
}

impl<F: Fn(usize) -> Result<Vec<u8>>> MadeImages<F> {
    /// Images of that shape.
    pub(super) fn new(count: usize, shape: ImageShape, make: F) -> Self {
        let is_kept = count.checked_mul(shape.pixels()).is_some_and(|bytes| bytes <= MOST_KEPT_BYTES);
        let kept = if is_kept { (0..count).map(|_| OnceLock::new()).collect() } else { Vec::new() };
        MadeImages { count, make, kept }
    }
}

impl<F: Fn(usize) -> Result<Vec<u8>> + Send + Sync> ImageSource for MadeImages<F> {
    fn len(&self) -> usize {
        self.count
    }

    fn image<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let place = self.kept.get(index);
        if let Some(image) = place.and_then(OnceLock::get) {
            return Ok(image);
        }
        *scratch = (self.make)(index)?;
        match place {
            Some(place) => Ok(place.get_or_init(|| scratch.as_slice().into())),
            None => Ok(scratch),
        }
    }
}
