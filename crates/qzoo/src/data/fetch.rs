//! Fetching the files of a data set: what is there is kept, what is missing is downloaded, checked and put into place.

use super::archive::unpack;
use super::digest::file_digest;
use super::error::{DataError, Result};
use super::http::transfer;
use super::manifest::{Download, Manifest, Unpack};
use super::tiny_imagenet;
use super::verify::{Presence, is_published, presence};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Is told how a fetch goes on.
pub trait Progress {
    /// A download begins, or goes on at `done` of its `total` bytes. Called again where a transfer had to be resumed or restarted.
    fn begin(&mut self, name: &str, done: u64, total: u64);
    /// That many more bytes have arrived.
    fn advance(&mut self, bytes: u64);
    /// Something worth a line: a file that is there already, a connection that was lost, an archive being unpacked.
    fn note(&mut self, message: &str);
}

/// Fetches what of the data set is missing below `root`. An archive that was put there by hand is used instead of the network.
///
/// # Errors
/// A download cannot be completed, a file is not the published one (it is kept under another name), or the disk refuses.
pub fn fetch(manifest: &Manifest, root: &Path, progress: &mut dyn Progress) -> Result<()> {
    if let Presence::Generated = presence(manifest, root) {
        progress.note(&format!("{} is generated: there is nothing to fetch", manifest.name));
        return Ok(());
    }
    let folder = manifest.folder(root);
    fs::create_dir_all(&folder).map_err(DataError::io(&folder, "create"))?;
    for download in &manifest.downloads {
        match download.unpack {
            Unpack::None => fetch_file(manifest, root, download, progress)?,
            Unpack::TarGz => fetch_archive(manifest, root, download, progress)?,
            Unpack::ByHand => fetch_for_unpacking(manifest, root, download, progress)?,
        }
    }
    Ok(())
}

fn fetch_file(manifest: &Manifest, root: &Path, download: &Download, progress: &mut dyn Progress) -> Result<()> {
    let target = manifest.folder(root).join(&download.name);
    let unpacked = download.name.strip_suffix(".gz").unwrap_or(&download.name);
    let file = manifest.files.iter().find(|file| file.name == unpacked);
    if let Some(file) = file
        && let Ok(path) = manifest.locate(root, file)
    {
        if path != target && file.sha256.is_none() {
            progress.note(&format!("{} is there; its SHA-256 is not known", path.display()));
            return Ok(());
        }
        if !is_published(manifest, file, &path)? {
            return Err(DataError::Checksum { found: file_digest(&path)?, expected: download.sha256.clone(), path });
        }
        progress.note(&format!("{} is there", path.display()));
        return Ok(());
    }
    obtain(download, &target, progress)
}

fn fetch_archive(manifest: &Manifest, root: &Path, download: &Download, progress: &mut dyn Progress) -> Result<()> {
    let Some((archive, by_hand)) = obtain_archive(manifest, root, download, progress)? else { return Ok(()) };
    progress.note(&format!("unpacking {}", archive.display()));
    unpack(manifest, root, &archive)?;
    if !by_hand {
        fs::remove_file(&archive).map_err(DataError::io(&archive, "remove"))?;
    }
    Ok(())
}

/// An archive that the user unpacks: it stays in the data root.
fn fetch_for_unpacking(
    manifest: &Manifest,
    root: &Path,
    download: &Download,
    progress: &mut dyn Progress,
) -> Result<()> {
    let Some((archive, _)) = obtain_archive(manifest, root, download, progress)? else { return Ok(()) };
    let advice = format!("unpack {} in {}, and what is missing is there", archive.display(), root.display());
    Err(DataError::missing(&manifest.folder(root).join(tiny_imagenet::PARTS[0]), advice))
}

/// The verified archive in the data root, and whether it was put there by hand; none where the data set is complete without it.
fn obtain_archive(
    manifest: &Manifest,
    root: &Path,
    download: &Download,
    progress: &mut dyn Progress,
) -> Result<Option<(PathBuf, bool)>> {
    if presence(manifest, root) == Presence::Complete {
        progress.note(&format!("the files of {} are in {}", manifest.name, manifest.folder(root).display()));
        return Ok(None);
    }
    let archive = root.join(&download.name);
    let by_hand = archive.is_file();
    if by_hand {
        let found = file_digest(&archive)?;
        if found != download.sha256 {
            return Err(DataError::Checksum { path: archive, expected: download.sha256.clone(), found });
        }
    } else {
        obtain(download, &archive, progress)?;
    }
    Ok(Some((archive, by_hand)))
}

/// Downloads to `target`, which appears only when it is complete and its digest is right.
fn obtain(download: &Download, target: &Path, progress: &mut dyn Progress) -> Result<()> {
    let part = with_suffix(target, ".part");
    let mut last = None;
    for url in &download.urls {
        let transferred = transfer(url, download, &part, progress).map_err(|message| DataError::Download {
            url: url.clone(),
            message,
            bytes: download.bytes,
            target: target.to_path_buf(),
        });
        match transferred.and_then(|()| accept(download, &part, target)) {
            Ok(()) => return Ok(()),
            Err(error) => {
                progress.note(&error.to_string());
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| DataError::Argument(format!("{} has no address", download.name))))
}

/// Gives a complete download its name, or a telling one where its digest is wrong.
fn accept(download: &Download, part: &Path, target: &Path) -> Result<()> {
    let found = file_digest(part)?;
    let right = found == download.sha256;
    if right {
        File::open(part).and_then(|file| file.sync_all()).map_err(DataError::io(part, "sync"))?;
    }
    let name = if right { target.to_path_buf() } else { with_suffix(target, ".wrong") };
    fs::rename(part, &name).map_err(DataError::io(part, "rename"))?;
    match right {
        true => Ok(()),
        false => Err(DataError::Checksum { path: name, expected: download.sha256.clone(), found }),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
