//! The descriptions in `datasets/*.toml`, which are part of the binary.

use super::dataset::{ImageShape, Split};
use super::error::{DataError, Result};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The text of every manifest. A new one is added here.
const MANIFESTS: [&str; 6] = [
    include_str!("../../../../datasets/mnist.toml"),
    include_str!("../../../../datasets/fashion-mnist.toml"),
    include_str!("../../../../datasets/cifar10.toml"),
    include_str!("../../../../datasets/cifar100.toml"),
    include_str!("../../../../datasets/tiny-imagenet.toml"),
    include_str!("../../../../datasets/shapes.toml"),
];

/// Which reader opens the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Images and labels in files of their own: [`idx`](super::idx).
    Idx,
    /// Records of a label and an image: [`cifar`](super::cifar).
    Cifar,
    /// A tree of folders with lists: [`tiny_imagenet`](super::tiny_imagenet).
    TinyImagenet,
    /// No files: [`shapes`](super::shapes).
    Shapes,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Labels and images together.
    #[default]
    Records,
    /// Images.
    Images,
    /// Labels.
    Labels,
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Holds::Records => "records",
            Holds::Images => "images",
            Holds::Labels => "labels",
        })
    }
}

/// A file that readers open, unpacked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Name inside the folder of the data set.
    pub name: String,
    /// The split that it belongs to.
    pub split: Split,
    /// What it holds.
    #[serde(default)]
    pub holds: Holds,
    /// Number of images, labels or records in the published file, and the most that a reader accepts.
    pub count: u64,
    /// Size of the published file.
    pub bytes: u64,
    /// Digest of the published file in hexadecimal, where one is known.
    pub sha256: Option<String>,
}

/// How a download becomes files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpack {
    /// It is one of the files, or that file with `.gz` added, and stays as it is.
    #[default]
    None,
    /// It is a compressed tar archive that holds the folder.
    TarGz,
    /// It is an archive that the user unpacks in the data root.
    ByHand,
}

/// A file to fetch.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Name that it is stored under: an archive below the data root, any other file in the folder of the data set.
    pub name: String,
    /// Addresses to try, in this order.
    pub urls: Vec<String>,
    /// Size.
    pub bytes: u64,
    /// Digest in hexadecimal.
    pub sha256: String,
    /// What to do with it.
    #[serde(default)]
    pub unpack: Unpack,
}

/// Numbers of images.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Training images.
    pub train: u32,
    /// Test images.
    pub test: u32,
}

/// A data set: what it is, where it comes from and how to tell that it is complete.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name, as in an experiment file.
    pub name: String,
    /// One line that says what it is.
    pub title: String,
    /// The authors' page.
    #[serde(default)]
    pub homepage: String,
    /// The publication to cite.
    #[serde(default)]
    pub citation: String,
    /// Which reader opens the files.
    pub format: Format,
    /// CIFAR only: a coarse label precedes the label.
    #[serde(default)]
    pub coarse_label: bool,
    /// Folder below the data root.
    #[serde(default)]
    pub folder: String,
    /// Size of every image.
    #[serde(deserialize_with = "image_shape")]
    pub shape: ImageShape,
    /// What each label means; empty where the data set's own files say that.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Number of classes that have their names in the data set's own files.
    #[serde(default)]
    pub unnamed_classes: usize,
    /// Mean of each channel over the training images, pixels being in [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation of each channel over the training images, pixels being in [0, 1].
    pub std: Vec<f32>,
    /// The files that the reader opens.
    #[serde(default, rename = "file")]
    pub files: Vec<DataFile>,
    /// Where they come from.
    #[serde(default, rename = "download")]
    pub downloads: Vec<Download>,
    /// For generated sets: how many.
    pub generated: Option<Counts>,
    /// For trees of images: how many there are in the published one.
    pub counted: Option<Counts>,
}

impl Manifest {
    /// Reads and checks the text of a manifest.
    ///
    /// # Errors
    /// Not valid TOML, unknown or missing keys, or values that do not fit each other.
    pub fn parse(text: &str) -> Result<Self> {
        let manifest: Manifest = toml::from_str(text).map_err(|error| DataError::Manifest {
            name: "manifest".to_string(),
            message: error.to_string().trim_end().to_string(),
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Every manifest of the binary.
    ///
    /// # Errors
    /// A file in `datasets/` is not valid.
    pub fn all() -> Result<Vec<Self>> {
        MANIFESTS.iter().map(|text| Self::parse(text)).collect()
    }

    /// The manifest of that name.
    ///
    /// # Errors
    /// There is none; the message lists the names there are.
    pub fn of(name: &str) -> Result<Self> {
        let mut all = Self::all()?;
        if let Some(at) = all.iter().position(|manifest| manifest.name == name) {
            return Ok(all.swap_remove(at));
        }
        let names: Vec<&str> = all.iter().map(|manifest| manifest.name.as_str()).collect();
        let nearest = names.iter().map(|n| (strsim::damerau_levenshtein(n, name), n)).min();
        let hint = nearest.filter(|(far, _)| *far <= 3).map_or(String::new(), |(_, n)| format!("; did you mean {n}?"));
        Err(DataError::Argument(format!("there is no data set {name:?}, but {}{hint}", names.join(", "))))
    }

    /// Folder of the files below `root`.
    pub fn folder(&self, root: &Path) -> PathBuf {
        root.join(&self.folder)
    }

    /// Where `file` lies, plain or with `.gz` added.
    ///
    /// # Errors
    /// Neither is there.
    pub fn locate(&self, root: &Path, file: &DataFile) -> Result<PathBuf> {
        let plain = self.folder(root).join(&file.name);
        let packed = self.folder(root).join(format!("{}.gz", file.name));
        [&plain, &packed].into_iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
            let advice = format!("run `cargo xtask data fetch {}` or name another data root with --data", self.name);
            DataError::missing(&plain, advice)
        })
    }

    /// Number of classes.
    pub fn labels(&self) -> usize {
        self.classes.len() + self.unnamed_classes
    }

    /// Number of samples of a split as published.
    pub fn samples(&self, split: Split) -> u64 {
        if let Some(counts) = self.generated.or(self.counted) {
            return u64::from(if split == Split::Train { counts.train } else { counts.test });
        }
        let counted = |file: &&DataFile| file.split == split && file.holds != Holds::Labels;
        self.files.iter().filter(counted).map(|file| file.count).sum()
    }

    pub(crate) fn invalid(&self, message: impl Into<String>) -> DataError {
        DataError::Manifest { name: self.name.clone(), message: message.into() }
    }

    fn check(&self) -> Result<()> {
        let channels = self.shape.channels;
        let ImageShape { height, width, .. } = self.shape;
        if !matches!(channels, 1 | 3) || !(1..=4096).contains(&height) || !(1..=4096).contains(&width) {
            return Err(self.invalid("shape must be 1 or 3 channels and 1 to 4096 rows and columns"));
        }
        let is_named = self.unnamed_classes == 0;
        if !(1..=256).contains(&self.labels()) || self.classes.is_empty() == is_named {
            return Err(self.invalid("there must be 1 to 256 classes, all of them with names or none"));
        }
        if self.mean.len() != channels || self.std.len() != channels || self.std.iter().any(|s| !s.is_normal()) {
            return Err(self.invalid("mean and std must have one number a channel, those of std not 0"));
        }
        let names = self.files.iter().map(|f| &f.name).chain(self.downloads.iter().map(|d| &d.name));
        for name in names.chain((self.format != Format::Shapes).then_some(&self.folder)) {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
                return Err(self.invalid(format!("{name:?} is no plain name of a file or folder")));
            }
        }
        let digests = self.files.iter().filter_map(|f| f.sha256.as_ref());
        for digest in digests.chain(self.downloads.iter().map(|d| &d.sha256)) {
            if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(self.invalid(format!("{digest:?} is no SHA-256 in lower-case hexadecimal")));
            }
        }
        if self.downloads.iter().any(|d| d.urls.is_empty()) {
            return Err(self.invalid("a download has no address"));
        }
        let complete = self.samples(Split::Train) > 0 && self.samples(Split::Test) > 0;
        let is_tree = self.format == Format::TinyImagenet;
        let is_counted = is_tree == self.counted.is_some() && is_tree != is_named;
        if !complete || (self.format == Format::Shapes) != self.generated.is_some() || !is_counted {
            let message = "both splits need files, or for shapes the numbers to generate and for trees those to expect";
            return Err(self.invalid(message));
        }
        Ok(())
    }
}

fn image_shape<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ImageShape, D::Error> {
    let [channels, height, width] = Deserialize::deserialize(deserializer)?;
    Ok(ImageShape { channels, height, width })
}
