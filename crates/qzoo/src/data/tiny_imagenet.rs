//! The folder tree of Tiny ImageNet as it is published:
//!
//! ```text
//! wnids.txt                        one WordNet number a line; the line is the label
//! words.txt                        WordNet number, tab, words
//! train/WNID/images/*.JPEG         and train/WNID/WNID_boxes.txt: file name, tab, box
//! val/images/*.JPEG                and val/val_annotations.txt: file name, tab, WNID, tab, box
//! ```
//!
//! Boxes are not looked at. Images of `val` are the test images; grey ones become colour images of three equal channels.

use super::dataset::{Dataset, DatasetInfo, ImageShape, Split};
use super::error::{DataError, Result};
use super::folder::{self, entries, is_image};
use super::manifest::Manifest;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Larger lists are refused; `words.txt` has less than 3 MiB.
const MOST_LIST_BYTES: u64 = 64 << 20;
const CLASSES: &str = "wnids.txt";
const WORDS: &str = "words.txt";
const ANNOTATIONS: &str = "val_annotations.txt";

/// What has to be in the folder.
pub(super) const PARTS: [&str; 4] = [CLASSES, WORDS, "train", "val"];

/// Files of a split and their labels.
struct Listing {
    files: Vec<PathBuf>,
    labels: Vec<u32>,
}

/// Reads one split of the tree that `manifest` describes, every image resized to `size` squared. Images are decoded when they are first asked for.
///
/// # Errors
/// A file or folder is missing, a list is damaged, or names an image that is not there.
pub fn open(manifest: &Manifest, root: &Path, split: Split, size: usize) -> Result<Dataset> {
    let tree = Tree::open(manifest, root)?;
    let Listing { files, labels } = tree.list(split)?;
    let published = manifest.samples(split);
    if (files.len() as u64) < published {
        let folder = tree.folder.display();
        tracing::warn!("{folder}: {} {split} images, the published tree has {published}", files.len());
    }
    let shape = ImageShape { height: size, width: size, ..manifest.shape };
    let info = DatasetInfo { classes: tree.names()?, shape, ..DatasetInfo::from(manifest) };
    Dataset::new(Arc::new(info), Arc::new(folder::images(files, shape.into())), labels)
}

/// Names of the classes in the order of their labels; without the tree, as many as it has in the manifest, without names.
///
/// # Errors
/// The tree is there and its lists are damaged.
pub fn class_names(manifest: &Manifest, root: &Path) -> Result<Vec<String>> {
    match Tree::open(manifest, root) {
        Ok(tree) => tree.names(),
        Err(DataError::Missing { .. }) => Ok(DatasetInfo::from(manifest).classes),
        Err(error) => Err(error),
    }
}

/// Number of images of a split that the lists name and that are there. No image is decoded.
///
/// # Errors
/// As [`open`].
pub fn count(manifest: &Manifest, root: &Path, split: Split) -> Result<u64> {
    Ok(Tree::open(manifest, root)?.list(split)?.files.len() as u64)
}

/// The folder and its classes.
struct Tree<'a> {
    folder: PathBuf,
    manifest: &'a Manifest,
    /// WordNet numbers in the order of the labels.
    wnids: Vec<String>,
}

impl<'a> Tree<'a> {
    fn open(manifest: &'a Manifest, root: &Path) -> Result<Self> {
        let folder = manifest.folder(root);
        for part in PARTS {
            let path = folder.join(part);
            if !path.exists() {
                let advice = format!(
                    "run `cargo xtask data fetch {}`, unpack the archive in the data root, or name another data root with --data",
                    manifest.name
                );
                return Err(DataError::missing(&path, advice));
            }
        }
        let list = folder.join(CLASSES);
        let text = read_list(&list)?;
        let wnids: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
        if wnids.is_empty() || wnids.len() > manifest.labels() {
            let message = format!("{} classes; 1 to {} are expected, one a line", wnids.len(), manifest.labels());
            return Err(DataError::unfit(&list, message));
        }
        let mut seen = HashSet::new();
        for (number, wnid) in wnids.iter().enumerate() {
            let is_number = wnid.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !is_number || !seen.insert(wnid) {
                let message = format!("line {}: {wnid:?} is no WordNet number, or stands here twice", number + 1);
                return Err(DataError::unfit(&list, message));
            }
        }
        Ok(Tree { folder, manifest, wnids })
    }

    /// The first word of each class, with all of them or the number where that is not enough to tell it from others.
    fn names(&self) -> Result<Vec<String>> {
        let path = self.folder.join(WORDS);
        let text = read_list(&path)?;
        let words: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('\t')).collect();
        let of = |wnid: &String| words.get(wnid.as_str()).map_or(wnid.as_str(), |words| words.trim()).to_string();
        let first = |words: &str| words.split(',').next().unwrap_or(words).trim().to_string();
        let all: Vec<String> = self.wnids.iter().map(of).collect();
        let short: Vec<String> = all.iter().map(|words| first(words)).collect();
        let is_alone = |names: &[String], name: &String| names.iter().filter(|other| *other == name).count() == 1;
        let names = all.iter().zip(&short).zip(&self.wnids).map(|((all_words, short_word), wnid)| {
            if is_alone(&short, short_word) {
                short_word.clone()
            } else if is_alone(&all, all_words) {
                all_words.clone()
            } else {
                wnid.clone()
            }
        });
        Ok(names.collect())
    }

    fn list(&self, split: Split) -> Result<Listing> {
        let mut listing = Listing { files: Vec::new(), labels: Vec::new() };
        match split {
            Split::Train => {
                let folder = self.folder.join("train");
                for (label, wnid) in self.wnids.iter().enumerate() {
                    self.list_class(&folder.join(wnid), wnid, label as u32, &mut listing)?;
                }
            }
            Split::Test => self.list_annotated(&self.folder.join("val"), &mut listing)?,
        }
        let most = self.manifest.samples(split);
        if listing.files.len() as u64 > most {
            let message = format!("{} {split} images; the published tree has {most}", listing.files.len());
            return Err(DataError::unfit(&self.folder, message));
        }
        Ok(listing)
    }

    /// The images that the list of a class names, or without a list all that are there.
    fn list_class(&self, folder: &Path, wnid: &str, label: u32, listing: &mut Listing) -> Result<()> {
        let images = folder.join("images");
        let present = present(&images)?;
        let list = folder.join(format!("{wnid}_boxes.txt"));
        let before = listing.files.len();
        if list.is_file() {
            for (number, line) in read_list(&list)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let name = line.split('\t').next().unwrap_or(line).trim();
                listing.files.push(find(&present, name, &images, (&list, number))?);
            }
        } else {
            listing.files.extend(present.iter().map(|name| images.join(name)));
        }
        if listing.files.len() == before {
            return Err(DataError::unfit(&images, format!("there are no images of class {wnid} in it")));
        }
        listing.labels.resize(listing.files.len(), label);
        Ok(())
    }

    fn list_annotated(&self, folder: &Path, listing: &mut Listing) -> Result<()> {
        let images = folder.join("images");
        let present = present(&images)?;
        let list = folder.join(ANNOTATIONS);
        let labels: HashMap<&str, u32> = self.wnids.iter().map(String::as_str).zip(0..).collect();
        for (number, line) in read_list(&list)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut columns = line.split('\t').map(str::trim);
            let (Some(name), Some(wnid)) = (columns.next(), columns.next()) else {
                let message = format!("line {}: expected a file name, a tab and a WordNet number", number + 1);
                return Err(DataError::unfit(&list, message));
            };
            let Some(label) = labels.get(wnid) else {
                return Err(DataError::unfit(&list, format!("line {}: {wnid:?} is not in {CLASSES}", number + 1)));
            };
            listing.files.push(find(&present, name, &images, (&list, number))?);
            listing.labels.push(*label);
        }
        if listing.files.is_empty() {
            return Err(DataError::unfit(&list, "there are no images in it"));
        }
        Ok(())
    }
}

/// Names of the images in a folder, sorted.
fn present(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Err(DataError::missing(folder, "unpack the archive of Tiny ImageNet again: this folder is part of it"));
    }
    let images = entries(folder)?.into_iter().filter(|path| is_image(path));
    Ok(images.filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect())
}

/// The path of an image that a line of a list names.
fn find(present: &[String], name: &str, folder: &Path, (list, line): (&Path, usize)) -> Result<PathBuf> {
    match present.binary_search_by(|other| other.as_str().cmp(name)) {
        Ok(_) => Ok(folder.join(name)),
        Err(_) => {
            let message = format!(
                "line {}: there is no image {name:?} in {}; unpack the archive again",
                line + 1,
                folder.display()
            );
            Err(DataError::unfit(list, message))
        }
    }
}

fn read_list(path: &Path) -> Result<String> {
    if !path.is_file() {
        return Err(DataError::missing(path, "unpack the archive of Tiny ImageNet again: this list is part of it"));
    }
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut bytes = Vec::new();
    file.take(MOST_LIST_BYTES + 1).read_to_end(&mut bytes).map_err(DataError::io(path, "read"))?;
    if bytes.len() as u64 > MOST_LIST_BYTES {
        return Err(DataError::unfit(path, format!("larger than {} MiB", MOST_LIST_BYTES >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        DataError::damaged(path, error.utf8_error().valid_up_to() as u64, "the list is no UTF-8 text from here on")
    })
}
