//! `data`: which data sets there are, getting them, checking them.

use crate::args::{DataAction, DataCommand};
use crate::failure::Failure;
use crate::format::count;
use qzoo::data::{Manifest, Split, data_root};
use std::path::Path;

/// Lists, fetches or verifies.
pub(crate) fn run(arguments: &DataCommand) -> Result<(), Failure> {
    match &arguments.action {
        DataAction::List(root) => list(&data_root(root.data.as_deref())),
        DataAction::Fetch(set) => super::fetch::run(&set.name, &data_root(set.root.data.as_deref())),
        DataAction::Verify(set) => super::verify::run(&set.name, &data_root(set.root.data.as_deref())),
    }
}

fn list(root: &Path) -> Result<(), Failure> {
    println!("data root: {}", root.display());
    for (manifest, (_, here)) in Manifest::all()?.iter().zip(present(root)?) {
        let shape = manifest.shape;
        println!(
            "{:<14} {:<9} {}×{}×{}, {} classes, {} training and {} test images: {}",
            manifest.name,
            if here { "here" } else { "not here" },
            shape.channels,
            shape.height,
            shape.width,
            manifest.classes.len(),
            count(manifest.samples(Split::Train)),
            count(manifest.samples(Split::Test)),
            manifest.title
        );
    }
    println!("{:<14} {:<9} any folder with train/CLASS/ and test/CLASS/ or val/CLASS/ of PNG and JPEG images", "folder", "");
    Ok(())
}

/// The known data sets, and whether all their files are there.
pub(crate) fn present(root: &Path) -> Result<Vec<(String, bool)>, Failure> {
    let here = |manifest: &Manifest| manifest.files.iter().all(|file| manifest.locate(root, file).is_ok());
    Ok(Manifest::all()?.iter().map(|manifest| (manifest.name.clone(), here(manifest))).collect())
}
