//! A folder of images: `train/CLASS/*.png`, and `test/` or `val/` the same. The class is the folder's name; classes and files are sorted
//! by name. PNG and JPEG files count, files that begin with a dot or end otherwise do not.

use super::dataset::{Dataset, DatasetInfo, ImageShape, ImageSource, Split};
use super::error::{DataError, Result};
use super::image_file::{Framing, read_image};
use super::made::MadeImages;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Training images, evenly spaced, from which the mean and the standard deviation of the channels are computed.
const MEASURED_IMAGES: usize = 2048;

/// Reads one split of the image folder `path`, every image framed with three channels. The mean and the standard
/// deviation are those of (at most 2048, evenly spaced) training images.
///
/// # Errors
/// A folder is missing or has no class, a class of the test images is none of the training images, or an image that is measured is damaged.
pub fn open(path: &Path, framing: Framing, split: Split) -> Result<Dataset> {
    let shape = framing.shape;
    let train = path.join("train");
    let classes = class_names(&train)?;
    let (files, labels) = image_files(&train, &classes)?;
    let measured = images(files, framing);
    let (mean, std) = measure(&measured, shape)?;
    let name = path.file_name().map_or_else(|| "folder".into(), |name| name.to_string_lossy().into_owned());
    let info = Arc::new(DatasetInfo { name, shape, classes, mean, std });
    if split == Split::Train {
        return Dataset::new(info, Arc::new(measured), labels);
    }
    let test = held_out_folder(path)?;
    for class in class_names(&test)? {
        if !info.classes.contains(&class) {
            let message = format!("there is no folder of that name in {}", train.display());
            return Err(DataError::unfit(&test.join(class), message));
        }
    }
    let (files, labels) = image_files(&test, &info.classes)?;
    Dataset::new(info, Arc::new(images(files, framing)), labels)
}

/// `test/`, or else `val/`.
fn held_out_folder(path: &Path) -> Result<PathBuf> {
    let candidates = ["test", "val"].map(|name| path.join(name));
    match candidates.iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder.clone()),
        None => Err(DataError::missing(&candidates[0], "an image folder has train/ and test/ (or val/)")),
    }
}

/// Names of the folders in `folder`, sorted.
fn class_names(folder: &Path) -> Result<Vec<String>> {
    const MOST_CLASSES: usize = 1 << 16;
    if !folder.is_dir() {
        return Err(DataError::missing(folder, "an image folder has train/CLASS/ and test/CLASS/ (or val/CLASS/)"));
    }
    let mut classes = Vec::new();
    for path in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let name = path.file_name().and_then(|name| name.to_str());
        classes.push(name.ok_or_else(|| DataError::unfit(&path, "the name of a class must be UTF-8"))?.to_string());
    }
    match classes.len() {
        0 => Err(DataError::unfit(folder, "there are no folders of classes in it")),
        1..=MOST_CLASSES => Ok(classes),
        n => Err(DataError::unfit(folder, format!("{n} classes; at most {MOST_CLASSES} are accepted"))),
    }
}

/// All images of the classes, and their labels.
fn image_files(folder: &Path, classes: &[String]) -> Result<(Vec<PathBuf>, Vec<u32>)> {
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        let folder = folder.join(class);
        if !folder.is_dir() {
            continue;
        }
        let before = files.len();
        files.extend(entries(&folder)?.into_iter().filter(|path| is_image(path)));
        if files.len() == before {
            return Err(DataError::unfit(&folder, "there is no .png, .jpg or .jpeg file in it"));
        }
        labels.resize(files.len(), label as u32);
    }
    Ok((files, labels))
}

/// Paths in a folder without those that begin with a dot, sorted.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io(folder, "list"))? {
        let entry = entry.map_err(DataError::io(folder, "list"))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

pub(super) fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
}

/// Mean and standard deviation of each channel, pixels being in [0, 1].
fn measure(images: &impl ImageSource, shape: ImageShape) -> Result<(Vec<f32>, Vec<f32>)> {
    let step = images.len().div_ceil(MEASURED_IMAGES).max(1);
    let (mut sums, mut squares, mut count) = (vec![0u64; shape.channels], vec![0u64; shape.channels], 0u64);
    let mut scratch = Vec::new();
    for index in (0..images.len()).step_by(step) {
        let image = images.image(index, &mut scratch)?;
        for (channel, plane) in image.chunks_exact(shape.plane()).enumerate() {
            sums[channel] += plane.iter().map(|&v| u64::from(v)).sum::<u64>();
            squares[channel] += plane.iter().map(|&v| u64::from(v).pow(2)).sum::<u64>();
        }
        count += shape.plane() as u64;
    }
    let moments = sums.iter().zip(&squares).map(|(&sum, &square)| {
        let mean = sum as f64 / count as f64;
        let variance = (square as f64 / count as f64 - mean * mean).max(0.0);
        // A channel that never changes is shifted only.
        let deviation = if variance > 0.0 { variance.sqrt() / 255.0 } else { 1.0 };
        ((mean / 255.0) as f32, deviation as f32)
    });
    Ok(moments.unzip())
}

/// The images of these files, framed.
pub(super) fn images(files: Vec<PathBuf>, framing: Framing) -> impl ImageSource {
    MadeImages::new(files.len(), framing.shape, move |index| read_image(&files[index], framing))
}
