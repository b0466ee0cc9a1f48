//! A folder of images: `train/CLASS/*.png`, and `test/` or `val/` the same. The class is the folder's name; classes and files are sorted
//! by name. PNG and JPEG files count, files that begin with a dot or end otherwise do not.

use super::dataset::{Dataset, DatasetInfo, ImageShape, ImageSource, Split};
use super::error::{DataError, Result};
use super::image_file::{Framing, read_image};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Decoded images are kept if all of a split together need at most this many bytes.
pub const MOST_CACHED_BYTES: usize = 1 << 30;
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
    let measured = FolderImages::new(files, framing);
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
    Dataset::new(info, Arc::new(FolderImages::new(files, framing)), labels)
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
fn measure(images: &FolderImages, shape: ImageShape) -> Result<(Vec<f32>, Vec<f32>)> {
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

/// Images that are decoded when they are first asked for.
pub(super) struct FolderImages {
    files: Vec<PathBuf>,
    framing: Framing,
    /// Empty where all of them would need too much memory.
    decoded: Vec<OnceLock<Box<[u8]>>>,
}

impl FolderImages {
    /// The images of these files, framed.
    pub(super) fn new(files: Vec<PathBuf>, framing: Framing) -> Self {
        let kept = files.len().checked_mul(framing.shape.pixels()).is_some_and(|bytes| bytes <= MOST_CACHED_BYTES);
        let decoded = if kept { files.iter().map(|_| OnceLock::new()).collect() } else { Vec::new() };
        FolderImages { files, framing, decoded }
    }
}

impl ImageSource for FolderImages {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn image<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let kept = self.decoded.get(index);
        if let Some(image) = kept.and_then(OnceLock::get) {
            return Ok(image);
        }
        *scratch = read_image(&self.files[index], self.framing)?;
        match kept {
            Some(cell) => Ok(cell.get_or_init(|| scratch.as_slice().into())),
            None => Ok(scratch),
        }
    }
}
