//! `data`: which data sets there are, getting them, checking them.

use crate::args::{DataAction, DataCommand};
use crate::failure::Failure;
use crate::format::count;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qzoo::data::{FileState, Listing, Manifest, Presence, Progress, Split, data_root, fetch, list, verify};
use std::path::Path;

/// Lists, fetches or verifies.
pub(crate) fn run(arguments: &DataCommand) -> Result<(), Failure> {
    match &arguments.action {
        DataAction::List(root) => print_list(&data_root(root.data.as_deref())),
        DataAction::Fetch(set) => {
            let root = data_root(set.root.data.as_deref());
            fetch(&Manifest::of(&set.name)?, &root, &mut Bar::default())?;
            check(&set.name, &root)
        }
        DataAction::Verify(set) => check(&set.name, &data_root(set.root.data.as_deref())),
    }
}

fn print_list(root: &Path) -> Result<(), Failure> {
    println!("data root: {}", root.display());
    for Listing { manifest, presence, .. } in list(root)? {
        let shape = manifest.shape;
        println!(
            "{:<14} {:<10} {}×{}×{}, {:>3} classes, {:>6} training and {:>6} test images: {}",
            manifest.name,
            word(&presence),
            shape.channels,
            shape.height,
            shape.width,
            manifest.labels(),
            count(manifest.samples(Split::Train)),
            count(manifest.samples(Split::Test)),
            manifest.title
        );
    }
    println!(
        "{:<14} {:<10} any folder with train/CLASS/ and test/CLASS/ or val/CLASS/ of PNG and JPEG images",
        "folder", ""
    );
    Ok(())
}

/// How much of a data set is there, in a word.
pub(crate) fn word(presence: &Presence) -> &'static str {
    match presence {
        Presence::Generated => "generated",
        Presence::Complete => "here",
        Presence::Partial(_) => "incomplete",
        Presence::Absent => "not here",
    }
}

/// Checks every file and says what was found; files that are not the published ones are an error.
fn check(name: &str, root: &Path) -> Result<(), Failure> {
    let manifest = Manifest::of(name)?;
    let verification = verify(&manifest, root)?;
    for file in &verification.files {
        let held = file.count.map_or_else(String::new, |n| format!(" ({} items)", count(n)));
        let state = match &file.state {
            FileState::Published => "the published file".to_string(),
            FileState::Unchecked => "complete; no digest is known to compare with".to_string(),
            FileState::Different(how) => format!("readable, but not the published file: {how}"),
            FileState::Missing => format!("missing; get it with: data fetch {name}"),
            FileState::Damaged(how) => format!("damaged: {how}"),
        };
        println!("{}: {state}{held}", file.path.display());
    }
    if verification.files.is_empty() {
        println!("{name} is generated: there is nothing to check");
    }
    if verification.passed() {
        return Ok(());
    }
    let readable = if verification.readable() { "; it can be trained on all the same" } else { "" };
    Err(Failure::data(format!("{name} below {} is not the published data set{readable}", root.display())))
}

/// A bar for the download in progress; it hides itself where stderr is no terminal.
#[derive(Default)]
struct Bar {
    bar: Option<ProgressBar>,
}

impl Progress for Bar {
    fn begin(&mut self, name: &str, done: u64, total: u64) {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        // The template is fixed and known to be right; a bar without it would only be plainer.
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left")
        {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_message(name.to_string());
        bar.set_position(done);
        if bar.is_hidden() {
            anstream::eprintln!("downloading {name}: {} of {} bytes there", count(done), count(total));
        }
        self.bar = Some(bar);
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn note(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| anstream::eprintln!("{message}")),
            None => anstream::eprintln!("{message}"),
        }
    }
}
