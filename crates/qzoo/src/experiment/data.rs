//! `[data]`: which images, how much of them, and how they are augmented.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::named::named_enum;

named_enum! {
    /// The data sets that an experiment can name.
    Dataset {
        Mnist = "mnist", "handwritten digits, 28x28 grey, 10 classes, 60000 + 10000 images";
        FashionMnist = "fashion-mnist", "articles of clothing, 28x28 grey, 10 classes, 60000 + 10000 images";
        Cifar10 = "cifar10", "photographs, 32x32 colour, 10 classes, 50000 + 10000 images";
        Cifar100 = "cifar100", "photographs, 32x32 colour, 100 classes, 50000 + 10000 images";
        TinyImagenet = "tiny-imagenet", "photographs, 64x64 colour, 200 classes, 100000 + 10000 images";
        Folder = "folder", "a folder of PNG or JPEG images: train/ and test/ or val/, one folder a class";
        Shapes = "shapes", "procedural shapes, 32x32 colour, 10 classes, generated: nothing to download";
    }
}

named_enum! {
    /// What lies outside the image when a crop reaches over its edge.
    CropMode {
        Zero = "zero", "pixels of value zero (black, before normalisation)";
        Reflect = "reflect", "the image mirrored at its edge, the edge pixel not repeated";
    }
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// The data set. Required in the file.
    pub dataset: Dataset,
    /// Folder data sets only, and required there: the folder's path below the data root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Side in pixels of the square that images are resized to, 1 to 4096. Required for `folder`; the other sets keep
    /// their own size unless it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Folder data sets only: the shorter side of every image is resized to this many pixels, 1 to 4096 and at least `image_size`, and the middle square is cut
    /// out, as networks for ImageNet expect it. Default: the whole image is resized to the square.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorter_side: Option<usize>,
    /// Share of the training set that is held out, in [0, 1). If it is not 0 the best checkpoint is chosen on it.
    /// Default 0.
    pub validation: f64,
    /// Use only this many training images (the first ones of a seeded order); 0 = all of them. Default 0.
    pub train_limit: usize,
    /// Threads that prepare batches ahead of the trainer, 1 to 256. The result does not depend on it. Default 1.
    pub workers: usize,
    /// Subtract the data set's mean and divide by its standard deviation, channel by channel. Default true.
    pub normalize: bool,
    /// One number a channel, pixels being in [0, 1], instead of the data set's mean: a published network needs those of its training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// One number above 0 a channel instead of the data set's standard deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// `[data.augment]`: random changes of the training images.
    pub augment: Augment,
}

/// `[data.augment]`. Every random choice depends only on (seed, epoch, index of the sample).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Pad every side by this many pixels and cut a random window of the original size, at most 1024; 0 = off.
    /// Default 0.
    pub crop_padding: usize,
    /// What the padding holds. Default `zero`.
    pub crop_mode: CropMode,
    /// Mirror left and right with probability 1/2. Default false.
    pub flip: bool,
    /// Side in pixels of one square hole at a random place, at most 4096; 0 = off (DeVries and Taylor 2017). Default 0.
    pub cutout: usize,
    /// Mix pairs of samples with a weight drawn from Beta(alpha, alpha), at most 100; 0 = off (Zhang et al. 2018).
    /// Default 0.
    pub mixup: f64,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            dataset: Dataset::Shapes,
            path: None,
            image_size: None,
            shorter_side: None,
            validation: 0.0,
            train_limit: 0,
            workers: 1,
            normalize: true,
            mean: None,
            std: None,
            augment: Augment::default(),
        }
    }
}

impl Default for Augment {
    fn default() -> Self {
        Augment { crop_padding: 0, crop_mode: CropMode::Zero, flip: false, cutout: 0, mixup: 0.0 }
    }
}

impl Data {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.share("validation", self.validation);
        checker.whole("workers", self.workers, 1, 256);
        if let Some(size) = self.image_size {
            checker.whole("image_size", size, 1, 4096);
        }
        if let Some(side) = self.shorter_side {
            checker.whole("shorter_side", side, 1, 4096);
            if self.dataset != Dataset::Folder {
                let message = format!("\"shorter_side\" does not apply to the data set {}", self.dataset);
                checker.conflict("shorter_side", message, Some("only to folder"));
            } else if (1..self.image_size.unwrap_or(0)).contains(&side) {
                let message = format!("\"shorter_side\" is {side}, which holds no square of \"image_size\"");
                checker.conflict("shorter_side", message, None);
            }
        }
        for (key, least, values) in [("mean", 0.0, &self.mean), ("std", 1e-6, &self.std)] {
            let Some(values) = values else { continue };
            if !matches!(values.len(), 1 | 3) {
                let message = format!("{key:?} has one number a channel, 1 or 3, not {}", values.len());
                checker.wrong(key, message, None);
            }
            for (index, value) in values.iter().enumerate().filter(|(_, value)| !(least..=1e3).contains(*value)) {
                let message = format!("an element of {key:?} must be from {least} to 1000, not {value}");
                checker.within(key).wrong(index, message, None);
            }
        }
        match (&self.path, self.dataset) {
            (Some(path), Dataset::Folder) => check_path("path", path, checker),
            (Some(_), other) => {
                let message = format!("\"path\" does not apply to the data set {other}");
                checker.conflict("path", message, Some("only to folder"));
            }
            (None, Dataset::Folder) => {
                let message = "the data set folder needs the key \"path\"".to_owned();
                checker.conflict("dataset", message, Some("path = \"FOLDER\" below the data root"));
            }
            (None, _) => {}
        }
        if self.dataset == Dataset::Folder && self.image_size.is_none() {
            let message = "the data set folder needs the key \"image_size\"".to_owned();
            checker.conflict("dataset", message, Some("image_size = 32 resizes every image to 32x32"));
        }
        self.augment.check(&mut checker.within("augment"));
    }
}

/// A path stays below the data root.
pub(super) fn check_path(key: &'static str, path: &str, checker: &mut Checker<'_>) {
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || path.contains('\0') || !Path::new(path).components().all(normal) {
        let message = format!("{key:?} must be a path below the data root, not {path:?}");
        checker.wrong(key, message, Some("no leading / and no .."));
    }
}

impl Augment {
    fn check(&self, checker: &mut Checker<'_>) {
        checker.whole("crop_padding", self.crop_padding, 0, 1024);
        checker.whole("cutout", self.cutout, 0, 4096);
        if !(0.0..=100.0).contains(&self.mixup) {
            checker.wrong("mixup", format!("\"mixup\" must be from 0 to 100, not {}", self.mixup), None);
        }
    }
}
