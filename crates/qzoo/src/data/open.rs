//! From `[data]` of an experiment to data sets.

use super::dataset::{Dataset, DatasetInfo, ImageShape, Split};
use super::error::{DataError, Result};
use super::image_file::{Framing, resize_planes};
use super::made::MadeImages;
use super::manifest::{Format, Manifest};
use super::{cifar, folder, idx, shapes, tiny_imagenet};
use crate::experiment;
use qtensor::random::{Purpose, Stream, StreamKey};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The parts of a data set that a training needs.
#[derive(Clone, Debug)]
pub struct Splits {
    /// What to learn from.
    pub train: Dataset,
    /// Held out of the training images to choose the best checkpoint on; none where `data.validation` is 0.
    pub validation: Option<Dataset>,
    /// What the result is judged by.
    pub test: Dataset,
}

/// The data root: what was named, else the environment variable `QUARTZ_DATA`, else `datasets/data`.
pub fn data_root(named: Option<&Path>) -> PathBuf {
    let from_environment = || std::env::var_os("QUARTZ_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
    named.map(Path::to_path_buf).or_else(from_environment).unwrap_or_else(|| Path::new("datasets").join("data"))
}

/// Opens what `data` names below `root`. Which training images are held out, and which are used where their number is limited, depends
/// on `seed` only.
///
/// # Errors
/// A file is missing or damaged, or nothing is left to train on.
pub fn open(data: &experiment::Data, root: &Path, seed: u64) -> Result<Splits> {
    let all = sized_split(data, root, Split::Train)?;
    let count = all.len() as u32;
    if !(0.0..1.0).contains(&data.validation) {
        return Err(DataError::Argument(format!("data.validation is {}, not in [0, 1)", data.validation)));
    }
    let held = (f64::from(count) * data.validation).round() as usize;
    if held == count as usize {
        return Err(DataError::Argument(format!("all {count} training images would be held out for validation")));
    }
    let limit = if data.train_limit == 0 { usize::MAX } else { data.train_limit };
    let test = sized_split(data, root, Split::Test)?;
    if held == 0 && limit >= all.len() {
        return Ok(Splits { train: all, validation: None, test });
    }
    let mut order = Stream::new(StreamKey { seed, purpose: Purpose::Split, epoch: 0, index: 0 }).permutation(count);
    let mut used: Vec<u32> = order.split_off(held);
    used.truncate(limit);
    used.sort_unstable();
    order.sort_unstable();
    let validation = if held > 0 { Some(all.subset(&order)?) } else { None };
    Ok(Splits { train: all.subset(&used)?, validation, test })
}

/// Opens only the test images of what `data` names below `root`.
///
/// # Errors
/// A file is missing or damaged.
pub fn open_test(data: &experiment::Data, root: &Path) -> Result<Dataset> {
    sized_split(data, root, Split::Test)
}

/// What the images of `data` are, without reading any; only an image folder has to be there for that. Without its tree the classes of Tiny ImageNet
/// have no names.
///
/// # Errors
/// An image folder is missing or damaged.
pub fn describe(data: &experiment::Data, root: &Path) -> Result<DatasetInfo> {
    if data.dataset == experiment::Dataset::Folder {
        return Ok(open_test(data, root)?.info().clone());
    }
    let manifest = Manifest::of(data.dataset.name())?;
    let mut info = DatasetInfo::from(&manifest);
    if manifest.format == Format::TinyImagenet {
        info.classes = tiny_imagenet::class_names(&manifest, root)?;
    }
    if let Some(size) = data.image_size {
        check_size(size)?;
        info.shape = ImageShape { height: size, width: size, ..info.shape };
    }
    normalized(data, info)
}

/// Test images in a file of their own, plain or gzip: records as in the test file of the data set of `data`, which has to be CIFAR-10 or CIFAR-100.
///
/// # Errors
/// Another data set, or the file is missing or damaged.
pub fn open_test_file(data: &experiment::Data, path: &Path) -> Result<Dataset> {
    let records = match data.dataset {
        experiment::Dataset::Folder => None,
        other => Some(Manifest::of(other.name())?).filter(|manifest| manifest.format == Format::Cifar),
    };
    let Some(manifest) = records else {
        let message = format!("the images of {} are not in one file: only those of CIFAR are", data.dataset);
        return Err(DataError::Argument(message));
    };
    adjusted(data, cifar::open_file(&manifest, path)?)
}

/// One split of the data set of that manifest below `root`, images in their own size.
///
/// # Errors
/// A file is missing or damaged.
pub fn read_split(manifest: &Manifest, root: &Path, split: Split) -> Result<Dataset> {
    match manifest.format {
        Format::Idx => idx::open(manifest, root, split),
        Format::Cifar => cifar::open(manifest, root, split),
        Format::TinyImagenet => tiny_imagenet::open(manifest, root, split, manifest.shape.height),
        Format::Shapes => shapes::open(manifest, split),
    }
}

fn sized_split(data: &experiment::Data, root: &Path, split: Split) -> Result<Dataset> {
    if data.dataset == experiment::Dataset::Folder {
        let (Some(path), Some(size)) = (&data.path, data.image_size) else {
            return Err(DataError::Argument("an image folder needs data.path and data.image_size".to_string()));
        };
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(DataError::Argument(format!("data.path is {path:?}, not a path below the data root")));
        }
        check_size(size)?;
        let shape = ImageShape { channels: 3, height: size, width: size };
        return adjusted(data, folder::open(&root.join(path), framing(data, shape), split)?);
    }
    let manifest = Manifest::of(data.dataset.name())?;
    if let (Format::TinyImagenet, Some(size)) = (manifest.format, data.image_size) {
        // Decoded in that size when they are asked for, rather than all at once.
        check_size(size)?;
        return adjusted(data, tiny_imagenet::open(&manifest, root, split, size)?);
    }
    adjusted(data, read_split(&manifest, root, split)?)
}

/// What the images of an experiment become that come as files.
pub fn framing(data: &experiment::Data, shape: ImageShape) -> Framing {
    Framing { shape, shorter_side: data.shorter_side }
}

/// The images in the size, and with the mean and deviation, that `data` wants.
fn adjusted(data: &experiment::Data, dataset: Dataset) -> Result<Dataset> {
    let dataset = match data.image_size {
        Some(size) => resized(&dataset, size)?,
        None => dataset,
    };
    let info = normalized(data, dataset.info().clone())?;
    Ok(if info == *dataset.info() { dataset } else { dataset.with_info(info) })
}

/// With the mean and deviation of `data` where it has some.
fn normalized(data: &experiment::Data, info: DatasetInfo) -> Result<DatasetInfo> {
    let channels = info.shape.channels;
    let choose = |key: &str, wanted: &Option<Vec<f64>>, own: &Vec<f32>| match wanted {
        None => Ok(own.clone()),
        Some(values) if values.len() == channels => Ok(values.iter().map(|value| *value as f32).collect()),
        Some(values) => {
            let count = values.len();
            Err(DataError::Argument(format!("data.{key} has {count} numbers, but the images have {channels} channels")))
        }
    };
    let (mean, std) = (choose("mean", &data.mean, &info.mean)?, choose("std", &data.std, &info.std)?);
    Ok(DatasetInfo { mean, std, ..info })
}

fn check_size(size: usize) -> Result<()> {
    match size {
        1..=4096 => Ok(()),
        _ => Err(DataError::Argument(format!("data.image_size is {size}, not in 1 to 4096"))),
    }
}

/// The same samples, each resized to a square when it is first asked for.
fn resized(dataset: &Dataset, size: usize) -> Result<Dataset> {
    check_size(size)?;
    let from = dataset.info().shape;
    let to = ImageShape { height: size, width: size, ..from };
    if from == to {
        return Ok(dataset.clone());
    }
    let original = dataset.clone();
    let resize = move |index| resize_planes(original.image(index, &mut Vec::new())?, from, to);
    let info = Arc::new(DatasetInfo { shape: to, ..dataset.info().clone() });
    let labels = (0..dataset.len()).map(|index| dataset.label(index)).collect();
    Dataset::new(info, Arc::new(MadeImages::new(dataset.len(), to, resize)), labels)
}
