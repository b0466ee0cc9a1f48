//! Unpacking an archive: only regular files that the manifest names, and only if they are as long as it says.

use super::digest::hexadecimal;
use super::error::{DataError, Result};
use super::fetch::with_suffix;
use super::manifest::{DataFile, Manifest};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use tar::{Archive, EntryType};

/// Unpacks the files of the manifest from `archive` into its folder below `root`. Names, links and permissions in the archive have no
/// effect: every file is written under the manifest's name, and they appear only once all of them are complete.
///
/// # Errors
/// The archive is damaged, holds a file twice or not at all, or one of another length or digest.
pub fn unpack(manifest: &Manifest, root: &Path, archive: &Path) -> Result<()> {
    let folder = manifest.folder(root);
    fs::create_dir_all(&folder).map_err(DataError::io(&folder, "create"))?;
    let parts: Vec<PathBuf> =
        manifest.files.iter().map(|file| with_suffix(&folder.join(&file.name), ".part")).collect();
    let unpacked = extract(manifest, archive, &parts);
    if unpacked.is_err() {
        // A file that was never begun is not there to be removed.
        parts.iter().for_each(|part| drop(fs::remove_file(part)));
        return unpacked;
    }
    for (part, file) in parts.iter().zip(&manifest.files) {
        fs::rename(part, folder.join(&file.name)).map_err(DataError::io(part, "rename"))?;
    }
    Ok(())
}

fn extract(manifest: &Manifest, path: &Path, parts: &[PathBuf]) -> Result<()> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    // Other entries are read past, but not without end.
    let most = manifest.files.iter().map(|file| file.bytes).sum::<u64>().saturating_mul(2).saturating_add(1 << 20);
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(file)).take(most));
    let damaged = |error: std::io::Error| DataError::unfit(path, format!("not a sound .tar.gz archive: {error}"));
    let mut done = vec![false; parts.len()];
    // Raw: entries that lengthen the name of the next one are entries like others, and none is ever held in memory.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let wanted =
            |file: &DataFile| entry.path_bytes().as_ref() == format!("{}/{}", manifest.folder, file.name).as_bytes();
        let Some(at) = manifest.files.iter().position(wanted) else { continue };
        let file = &manifest.files[at];
        if !matches!(entry.header().entry_type(), EntryType::Regular) {
            return Err(DataError::unfit(path, format!("{} is no regular file in it", file.name)));
        }
        if entry.size() != file.bytes || done[at] {
            let message = format!("{} occurs twice or is not {} bytes long in it", file.name, file.bytes);
            return Err(DataError::unfit(path, message));
        }
        write_file(&mut entry, file, &parts[at], path)?;
        done[at] = true;
        if done.iter().all(|done| *done) {
            return Ok(());
        }
    }
    let missing = manifest.files.iter().zip(&done).find(|(_, done)| !**done).map_or("", |(file, _)| &file.name);
    Err(DataError::unfit(path, format!("{}/{missing} is not in it", manifest.folder)))
}

fn write_file(entry: &mut impl Read, file: &DataFile, part: &Path, archive: &Path) -> Result<()> {
    let mut output = File::create(part).map_err(DataError::io(part, "create"))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut written = 0u64;
    loop {
        let read = entry
            .read(&mut buffer)
            .map_err(|error| DataError::unfit(archive, format!("{} cannot be unpacked: {error}", file.name)))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        output.write_all(&buffer[..read]).map_err(DataError::io(part, "write"))?;
        written += read as u64;
    }
    if written != file.bytes {
        let message = format!("{} ends after {written} of {} bytes", file.name, file.bytes);
        return Err(DataError::unfit(archive, message));
    }
    output.sync_all().map_err(DataError::io(part, "sync"))?;
    let found = hexadecimal(hasher);
    match &file.sha256 {
        Some(expected) if *expected != found => {
            Err(DataError::unfit(archive, format!("{} has the SHA-256 {found}, expected {expected}", file.name)))
        }
        _ => Ok(()),
    }
}
