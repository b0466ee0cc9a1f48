//! `report`: the HTML page of a run, made anew.

use crate::args::Report;
use crate::failure::Failure;
use qzoo::run::RunReader;

/// Writes the report and prints its path on stdout.
pub(crate) fn run(arguments: &Report) -> Result<(), Failure> {
    let reader = RunReader::open(&arguments.run)?;
    let path = crate::report::write_with_images(&reader, arguments.root.data.as_deref())?;
    println!("{}", path.display());
    Ok(())
}
