//! `export`: a trained network, or its weights, as a file for other programs.

use crate::args::{Export, ExportFormat};
use crate::failure::Failure;
use crate::format::{bytes, count};
use qzoo::checkpoint::atomic::{self, AtomicFile};
use qzoo::checkpoint::{safetensors, torch};
use qzoo::onnx::{self, Quantization};
use qzoo::train::Evaluator;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes the file and prints its path.
pub(crate) fn run(arguments: &Export) -> Result<(), Failure> {
    if arguments.raw_pixels && arguments.format != ExportFormat::Onnx {
        return Err(Failure::usage(
            "--raw-pixels is only for --format onnx: the other formats hold nothing but weights",
        ));
    }
    let evaluator = Evaluator::open(&arguments.run)?;
    let tensors: Vec<_> = evaluator.parameters().named().collect();
    let path = arguments.out.clone().unwrap_or_else(|| beside(&arguments.run, arguments.format));
    if path.exists() && !arguments.force {
        return Err(Failure::usage(format!(
            "{}: exists; name another file with --out, or add --force",
            path.display()
        )));
    }
    let refused = |error: std::io::Error| Failure::run(format!("{}: cannot write: {error}", path.display()));
    match arguments.format {
        ExportFormat::Safetensors => {
            let mut writer = BufWriter::new(AtomicFile::create(&path).map_err(refused)?);
            safetensors::write(&mut writer, &tensors, &[("format", "pt")]).map_err(refused)?;
            let file = writer.into_inner().map_err(|error| refused(error.into_error()))?;
            file.commit().map_err(refused)?;
        }
        ExportFormat::Pth => {
            // The archive's directory points back into the file, so it is made in memory and written at once.
            let mut archive = std::io::Cursor::new(Vec::new());
            torch::write(&mut archive, &tensors).map_err(refused)?;
            let mut file = AtomicFile::create(&path).map_err(refused)?;
            file.write_all(archive.get_ref()).and_then(|()| file.commit()).map_err(refused)?;
        }
        ExportFormat::Onnx => {
            let state = evaluator.state();
            let about = onnx::About {
                name: &evaluator.experiment().name,
                classes: &state.classes,
                normalization: &state.normalization,
                raw_pixels: arguments.raw_pixels,
            };
            let bytes = onnx::export(evaluator.model(), &about, &integers(&evaluator)?)?;
            atomic::write(&path, bytes).map_err(refused)?;
        }
    }
    let size = File::open(&path).and_then(|file| file.metadata()).map_err(refused)?.len();
    // An ONNX file has other tensors: normalisations are folded.
    let stored = (arguments.format != ExportFormat::Onnx).then_some(tensors.len());
    if arguments.output.json {
        println!("{}", json!({ "file": path, "tensors": stored, "bytes": size }));
    } else {
        println!("{}", path.display());
        if !arguments.output.quiet {
            let what = stored.map_or("a network of ONNX operators".into(), |n| format!("{} tensors", count(n as u64)));
            anstream::eprintln!("{what}, {}", bytes(size));
        }
    }
    Ok(())
}

/// The weights that a quantized network stores as integers; those of other characters stay f32.
fn integers(evaluator: &Evaluator) -> Result<Quantization, Failure> {
    let (quantization, left) = qzoo::onnx::quantization(evaluator.model(), evaluator.packed())?;
    for name in left {
        anstream::eprintln!(
            "{name} stays f32: its characters are not whole multiples, from -128 to 127, of one unit for each output"
        );
    }
    Ok(quantization)
}

/// The file that is written where none is named: in the folder of a run, or beside a checkpoint.
fn beside(run: &Path, format: ExportFormat) -> PathBuf {
    let extension = match format {
        ExportFormat::Safetensors => "safetensors",
        ExportFormat::Pth => "pth",
        ExportFormat::Onnx => "onnx",
    };
    if run.is_dir() {
        run.join("export").with_extension(extension)
    } else {
        run.with_extension(format!("export.{extension}"))
    }
}
