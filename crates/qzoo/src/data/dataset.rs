use super::error::{DataError, Result};
use super::manifest::Manifest;
use std::fmt;
use std::sync::Arc;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What a network learns from.
    Train,
    /// What it is judged by.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Test => "test",
        })
    }
}

/// Size of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Bytes of an image.
    pub fn pixels(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Bytes of one channel.
    pub fn plane(&self) -> usize {
        self.height * self.width
    }
}

/// What all splits of a data set share.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetInfo {
    /// Name, as in an experiment file.
    pub name: String,
    /// Size of every image.
    pub shape: ImageShape,
    /// What each label means.
    pub classes: Vec<String>,
    /// Mean of each channel over the training images, pixels being in [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation of each channel over the training images, pixels being in [0, 1].
    pub std: Vec<f32>,
}

impl From<&Manifest> for DatasetInfo {
    fn from(manifest: &Manifest) -> Self {
        DatasetInfo {
            name: manifest.name.clone(),
            shape: manifest.shape,
            classes: match manifest.unnamed_classes {
                0 => manifest.classes.clone(),
                count => (0..count).map(|label| format!("class {label}")).collect(),
            },
            mean: manifest.mean.clone(),
            std: manifest.std.clone(),
        }
    }
}

/// Where the pixels of a data set come from.
pub trait ImageSource: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Planes (channels, height, width) of image `index < len()`. A source that keeps no decoded images writes to `scratch` and
    /// returns it.
    ///
    /// # Errors
    /// The image cannot be read or decoded.
    fn image<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]>;
}

/// Images one after another in memory.
pub struct MemoryImages {
    pixels: Vec<u8>,
    shape: ImageShape,
}

impl MemoryImages {
    /// Images of that shape; bytes after the last whole image are not looked at.
    pub fn new(pixels: Vec<u8>, shape: ImageShape) -> Self {
        MemoryImages { pixels, shape }
    }
}

impl ImageSource for MemoryImages {
    fn len(&self) -> usize {
        self.pixels.len() / self.shape.pixels()
    }

    fn image<'a>(&'a self, index: usize, _: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let size = self.shape.pixels();
        Ok(&self.pixels[index * size..(index + 1) * size])
    }
}

/// Labelled images: one split of a data set, or a part of one. Cloning shares everything.
#[derive(Clone)]
pub struct Dataset {
    info: Arc<DatasetInfo>,
    images: Arc<dyn ImageSource>,
    labels: Arc<[u32]>,
    /// Which images of the source these are; none: all.
    part: Option<Arc<[u32]>>,
}

impl Dataset {
    /// Joins images and their labels.
    ///
    /// # Errors
    /// Their numbers differ, a label is not below the number of classes, or there are more than 2^32 - 1 images.
    pub fn new(info: Arc<DatasetInfo>, images: Arc<dyn ImageSource>, labels: Vec<u32>) -> Result<Self> {
        let name = &info.name;
        if images.len() != labels.len() || u32::try_from(labels.len()).is_err() {
            let message = format!("data set {name}: {} images and {} labels", images.len(), labels.len());
            return Err(DataError::Argument(message));
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= info.classes.len()) {
            let message = format!("data set {name}: label {label} with {} classes", info.classes.len());
            return Err(DataError::Argument(message));
        }
        Ok(Dataset { info, images, labels: labels.into(), part: None })
    }

    /// What all splits share.
    pub fn info(&self) -> &DatasetInfo {
        &self.info
    }

    /// The same images under another description, of the same number of classes and channels.
    pub(super) fn with_info(&self, info: DatasetInfo) -> Self {
        Dataset { info: Arc::new(info), ..self.clone() }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.part.as_ref().map_or(self.labels.len(), |part| part.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.info.classes.len()
    }

    /// Class of sample `index < len()`.
    pub fn label(&self, index: usize) -> u32 {
        self.labels[self.position(index)]
    }

    /// Planes (channels, height, width) of sample `index < len()`; `scratch` is room for sources that decode on the fly.
    ///
    /// # Errors
    /// The image cannot be read or decoded.
    pub fn image<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        self.images.image(self.position(index), scratch)
    }

    /// The samples of these indices, in this order.
    ///
    /// # Errors
    /// An index is not below [`len`](Self::len).
    pub fn subset(&self, indices: &[u32]) -> Result<Self> {
        if let Some(index) = indices.iter().find(|&&index| index as usize >= self.len()) {
            return Err(DataError::Argument(format!("sample {index} of {} was asked for", self.len())));
        }
        let part = indices.iter().map(|&index| self.position(index as usize) as u32).collect();
        Ok(Dataset { part: Some(part), ..self.clone() })
    }

    fn position(&self, index: usize) -> usize {
        self.part.as_ref().map_or(index, |part| part[index] as usize)
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset").field("name", &self.info.name).field("len", &self.len()).finish_non_exhaustive()
    }
}
