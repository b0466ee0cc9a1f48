//! The binary format of CIFAR-10 and CIFAR-100: records of a label (CIFAR-100: a coarse, then a fine one) and the red, green and blue
//! planes. The file has no header, so its length alone says how many records there are.

use super::dataset::{Dataset, DatasetInfo, ImageShape, MemoryImages, Split};
use super::error::Result;
use super::input::Input;
use super::manifest::Manifest;
use std::path::Path;
use std::sync::Arc;

/// What a record is.
#[derive(Clone, Copy, Debug)]
pub struct RecordFormat {
    /// The image that follows the label.
    pub shape: ImageShape,
    /// Labels are below this.
    pub classes: usize,
    /// A coarse label, which is read past, precedes the label.
    pub coarse_label: bool,
    /// More records than this are refused.
    pub most: u64,
}

impl RecordFormat {
    /// The records of that data set, as many as there are.
    pub fn of(manifest: &Manifest) -> Self {
        RecordFormat {
            shape: manifest.shape,
            classes: manifest.labels(),
            coarse_label: manifest.coarse_label,
            most: u64::MAX,
        }
    }
}

/// Reads one split of the data set that `manifest` describes, its files in the manifest's order.
///
/// # Errors
/// A file is missing or damaged.
pub fn open(manifest: &Manifest, root: &Path, split: Split) -> Result<Dataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in manifest.files.iter().filter(|file| file.split == split) {
        let path = manifest.locate(root, file)?;
        let format = RecordFormat { most: file.count, ..RecordFormat::of(manifest) };
        let before = labels.len();
        read_records(Input::open(&path)?, format, &mut pixels, &mut labels)?;
        let found = (labels.len() - before) as u64;
        if found < file.count {
            tracing::warn!("{}: {found} records, the published file has {}", path.display(), file.count);
        }
    }
    dataset(manifest, pixels, labels)
}

/// Reads records of the data set that `manifest` describes from a file of any name.
///
/// # Errors
/// The file is missing or damaged.
pub fn open_file(manifest: &Manifest, path: &Path) -> Result<Dataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    read_records(Input::open(path)?, RecordFormat::of(manifest), &mut pixels, &mut labels)?;
    dataset(manifest, pixels, labels)
}

fn dataset(manifest: &Manifest, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Dataset> {
    let info = Arc::new(DatasetInfo::from(manifest));
    Dataset::new(info, Arc::new(MemoryImages::new(pixels, manifest.shape)), labels)
}

/// Appends the planes and the labels of all records.
///
/// # Errors
/// The last record is cut, there is none or there are too many, or a label is out of range.
pub fn read_records(
    mut input: Input<'_>,
    format: RecordFormat,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u32>,
) -> Result<()> {
    let head = 1 + usize::from(format.coarse_label);
    let mut record = vec![0; head + format.shape.pixels()];
    let mut count = 0u64;
    loop {
        let start = input.offset();
        let read = input.up_to(&mut record)?;
        if read == 0 && count > 0 {
            return input.end();
        }
        if read < record.len() {
            let message = format!("record {count} is cut: {read} of its {} bytes are there", record.len());
            return Err(input.refuse(start, message));
        }
        if count == format.most {
            return Err(input.refuse(start, format!("more than the expected {count} records")));
        }
        let label = record[head - 1];
        if usize::from(label) >= format.classes {
            let message =
                format!("label {label} of record {count} is not below the number of classes, {}", format.classes);
            return Err(input.refuse(start + head as u64 - 1, message));
        }
        labels.push(u32::from(label));
        pixels.extend_from_slice(&record[head..]);
        count += 1;
    }
}
