//! IDX, the format of MNIST: a big-endian header, then unsigned bytes.
//!
//! `00 00 08 03 | count | rows | columns | pixels` for images, `00 00 08 01 | count | labels` for labels.

use super::dataset::{Dataset, DatasetInfo, ImageShape, MemoryImages, Split};
use super::error::{DataError, Result};
use super::input::Input;
use super::manifest::{Holds, Manifest};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads one split of the data set that `manifest` describes, its files plain or with `.gz` added.
///
/// # Errors
/// A file is missing, damaged or does not fit the other.
pub fn open(manifest: &Manifest, root: &Path, split: Split) -> Result<Dataset> {
    let shape = manifest.shape;
    let (images_path, most) = find(manifest, root, split, Holds::Images)?;
    let (labels_path, _) = find(manifest, root, split, Holds::Labels)?;
    let labels = read_labels(Input::open(&labels_path)?, manifest.labels(), most)?;
    let pixels = read_images(Input::open(&images_path)?, shape, most)?;
    let images = pixels.len() / shape.pixels();
    if images != labels.len() {
        let message = format!("{} labels for the {images} images of {}", labels.len(), images_path.display());
        return Err(DataError::unfit(&labels_path, message));
    }
    let info = Arc::new(DatasetInfo::from(manifest));
    Dataset::new(info, Arc::new(MemoryImages::new(pixels, shape)), labels.into_iter().map(u32::from).collect())
}

/// Where a file of the split lies, and how many entries it may have.
fn find(manifest: &Manifest, root: &Path, split: Split, holds: Holds) -> Result<(PathBuf, u64)> {
    let file = manifest
        .files
        .iter()
        .find(|file| file.split == split && file.holds == holds)
        .ok_or_else(|| manifest.invalid(format!("no file holds the {holds} of {split}")))?;
    Ok((manifest.locate(root, file)?, file.count))
}

/// Pixels of all images, one image after another, rows from the top.
///
/// # Errors
/// Not an IDX file of images of this height and width; more than `most` images; cut or too long.
pub fn read_images(mut input: Input<'_>, shape: ImageShape, most: u64) -> Result<Vec<u8>> {
    let [count, rows, columns] = header(&mut input)?;
    if count > most {
        return Err(input.refuse(4, format!("{count} images, at most {most} expected")));
    }
    if (rows, columns) != (shape.height as u64, shape.width as u64) {
        let message = format!("images of {rows}x{columns} pixels, {}x{} expected", shape.height, shape.width);
        return Err(input.refuse(8, message));
    }
    let length = count
        .checked_mul(rows)
        .and_then(|n| n.checked_mul(columns))
        .ok_or_else(|| input.refuse(4, format!("{count} images of {rows}x{columns} pixels overflow")))?;
    let pixels = input.vector(length)?;
    input.end()?;
    Ok(pixels)
}

/// The labels, each below `classes`.
///
/// # Errors
/// Not an IDX file of labels; more than `most` labels; a label out of range; cut or too long.
pub fn read_labels(mut input: Input<'_>, classes: usize, most: u64) -> Result<Vec<u8>> {
    let [count] = header(&mut input)?;
    if count > most {
        return Err(input.refuse(4, format!("{count} labels, at most {most} expected")));
    }
    let start = input.offset();
    let labels = input.vector(count)?;
    if let Some(at) = labels.iter().position(|&label| usize::from(label) >= classes) {
        let message = format!("label {} of sample {at} is not below the number of classes, {classes}", labels[at]);
        return Err(input.refuse(start + at as u64, message));
    }
    input.end()?;
    Ok(labels)
}

/// The dimensions; their number is fixed by what is read.
fn header<const RANK: usize>(input: &mut Input<'_>) -> Result<[u64; RANK]> {
    let mut word = [0; 4];
    input.exactly(&mut word)?;
    let expected = [0, 0, 8, RANK as u8];
    if word != expected {
        let message = format!("the file begins with {word:02x?}, an IDX file of this kind with {expected:02x?}");
        return Err(input.refuse(0, message));
    }
    let mut dims = [0; RANK];
    for dim in &mut dims {
        input.exactly(&mut word)?;
        *dim = u64::from(u32::from_be_bytes(word));
    }
    Ok(dims)
}
