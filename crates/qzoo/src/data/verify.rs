//! Which data sets are there, and whether their files are the published ones.

use super::cifar::{RecordFormat, read_records};
use super::dataset::Split;
use super::digest::{digest, file_digest};
use super::error::{DataError, Result};
use super::idx::{read_images, read_labels};
use super::input::Input;
use super::manifest::{DataFile, Format, Holds, Manifest};
use super::tiny_imagenet;
use std::path::{Path, PathBuf};

/// How much of a data set is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It needs no files.
    Generated,
    /// All files are there.
    Complete,
    /// Some files are there; these are not.
    Partial(Vec<String>),
    /// No file is there.
    Absent,
}

/// A data set and how much of it is there.
#[derive(Clone, Debug)]
pub struct Listing {
    /// What it is.
    pub manifest: Manifest,
    /// Its folder.
    pub folder: PathBuf,
    /// How much of it is there.
    pub presence: Presence,
}

/// All data sets with a manifest, and what of them is below `root`. Opens no file.
///
/// # Errors
/// A manifest of the binary is not valid.
pub fn list(root: &Path) -> Result<Vec<Listing>> {
    let listing =
        |manifest: Manifest| Listing { folder: manifest.folder(root), presence: presence(&manifest, root), manifest };
    Ok(Manifest::all()?.into_iter().map(listing).collect())
}

/// How much of a data set is below `root`.
pub fn presence(manifest: &Manifest, root: &Path) -> Presence {
    if manifest.format == Format::Shapes {
        return Presence::Generated;
    }
    let (wanted, absent): (usize, Vec<String>) = if manifest.format == Format::TinyImagenet {
        let parts = tiny_imagenet::PARTS;
        let absent = parts.into_iter().filter(|part| !manifest.folder(root).join(part).exists());
        (parts.len(), absent.map(String::from).collect())
    } else {
        let absent = manifest.files.iter().filter(|file| manifest.locate(root, file).is_err());
        (manifest.files.len(), absent.map(|file| file.name.clone()).collect())
    };
    match absent.len() {
        0 => Presence::Complete,
        n if n == wanted => Presence::Absent,
        _ => Presence::Partial(absent),
    }
}

/// What was found out about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Its digest is that of the published file.
    Published,
    /// It is sound and complete, but the manifest knows no digest to compare with.
    Unchecked,
    /// It is sound, but it is not the published file: another digest or another number of samples.
    Different(String),
    /// It is not there.
    Missing,
    /// It cannot be read as what it should be.
    Damaged(String),
}

/// A file and what was found out about it.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// Where it is or should be.
    pub path: PathBuf,
    /// Images, labels or records in it, where it is sound.
    pub count: Option<u64>,
    /// What was found out.
    pub state: FileState,
}

/// What [`verify`] found out.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Name of the data set.
    pub name: String,
    /// Its files, in the manifest's order; none for a generated set.
    pub files: Vec<FileReport>,
}

impl Verification {
    /// Whether every file is the published one, as far as that can be known.
    pub fn passed(&self) -> bool {
        self.files.iter().all(|file| matches!(file.state, FileState::Published | FileState::Unchecked))
    }

    /// Whether every file can be read, the published one or not.
    pub fn readable(&self) -> bool {
        !self.files.iter().any(|file| matches!(file.state, FileState::Missing | FileState::Damaged(_)))
    }
}

/// Reads every file of the data set below `root`, counts its samples and compares its digest. Of a tree of images the lists are read and the images
/// counted, not decoded.
///
/// # Errors
/// Only where the operating system refuses to read; what is wrong with a file is part of the report.
pub fn verify(manifest: &Manifest, root: &Path) -> Result<Verification> {
    if manifest.format == Format::TinyImagenet {
        let splits = [(Split::Train, "train"), (Split::Test, "val")].into_iter();
        let files = splits.map(|(split, name)| verify_tree(manifest, root, split, name));
        let mut files = files.collect::<Result<Vec<_>>>()?;
        // What both need is missing once.
        files.dedup_by(|a, b| a.path == b.path);
        return Ok(Verification { name: manifest.name.clone(), files });
    }
    let files = manifest.files.iter().map(|file| verify_file(manifest, root, file)).collect::<Result<_>>()?;
    Ok(Verification { name: manifest.name.clone(), files })
}

fn verify_tree(manifest: &Manifest, root: &Path, split: Split, name: &str) -> Result<FileReport> {
    let path = manifest.folder(root).join(name);
    let (count, state) = match tiny_imagenet::count(manifest, root, split) {
        Ok(count) if count == manifest.samples(split) => (Some(count), FileState::Unchecked),
        Ok(count) => {
            let published = manifest.samples(split);
            (Some(count), FileState::Different(format!("{count} images, {published} published")))
        }
        Err(DataError::Missing { path, .. }) => {
            return Ok(FileReport { path, count: None, state: FileState::Missing });
        }
        Err(error @ DataError::Io { .. }) => return Err(error),
        Err(error) => (None, FileState::Damaged(error.to_string())),
    };
    Ok(FileReport { path, count, state })
}

fn verify_file(manifest: &Manifest, root: &Path, file: &DataFile) -> Result<FileReport> {
    let path = match manifest.locate(root, file) {
        Ok(path) => path,
        Err(DataError::Missing { path, .. }) => return Ok(FileReport { path, count: None, state: FileState::Missing }),
        Err(error) => return Err(error),
    };
    let count = match count(manifest, file, &path) {
        Ok(count) => count,
        Err(error @ DataError::Io { .. }) => return Err(error),
        Err(error) => {
            return Ok(FileReport { path, count: None, state: FileState::Damaged(error.to_string()) });
        }
    };
    let state = if is_published(manifest, file, &path)? {
        FileState::Published
    } else if count != file.count {
        FileState::Different(format!("{count} {}, {} published", file.holds, file.count))
    } else if file.sha256.is_some() || download_digest(manifest, &path).is_some() {
        FileState::Different("its SHA-256 is not the published one".to_string())
    } else {
        FileState::Unchecked
    };
    Ok(FileReport { path, count: Some(count), state })
}

/// Whether the file, unpacked or as it was downloaded, has the published digest.
pub(super) fn is_published(manifest: &Manifest, file: &DataFile, path: &Path) -> Result<bool> {
    if let Some(expected) = download_digest(manifest, path)
        && file_digest(path)? == expected
    {
        return Ok(true);
    }
    let Some(expected) = &file.sha256 else { return Ok(false) };
    let mut input = Input::open(path)?;
    Ok(&digest(|buffer| input.up_to(buffer))? == expected)
}

/// The published digest of a file that stays as it was downloaded.
fn download_digest<'a>(manifest: &'a Manifest, path: &Path) -> Option<&'a str> {
    let name = path.file_name()?;
    manifest.downloads.iter().find(|download| name == download.name.as_str()).map(|download| download.sha256.as_str())
}

fn count(manifest: &Manifest, file: &DataFile, path: &Path) -> Result<u64> {
    let input = Input::open(path)?;
    let (shape, classes) = (manifest.shape, manifest.labels());
    match (manifest.format, file.holds) {
        (Format::Idx, Holds::Labels) => Ok(read_labels(input, classes, file.count)?.len() as u64),
        (Format::Idx, _) => Ok((read_images(input, shape, file.count)?.len() / shape.pixels()) as u64),
        (Format::Cifar, _) => {
            let format = RecordFormat { shape, classes, coarse_label: manifest.coarse_label, most: file.count };
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            read_records(input, format, &mut pixels, &mut labels)?;
            Ok(labels.len() as u64)
        }
        (Format::TinyImagenet | Format::Shapes, _) => {
            Err(manifest.invalid("a generated data set or a tree of images has no such files"))
        }
    }
}
