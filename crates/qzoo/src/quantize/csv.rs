//! The tables of a search for other programs, as comma-separated values (RFC 4180). Accuracies are shares of the images that networks are compared on.

use super::result::{Point, SearchResult};
use crate::experiment::Quantize;
use crate::train::Score;
use std::fmt::Display;

/// The columns of the GPFQ reference's tables, then those of its own.
const GRID: [&str; 20] = [
    "data_set",
    "serialized_model",
    "q_train_size",
    "ignore_layers",
    "bits",
    "alphabet_scalar",
    "analog_test_acc",
    "sd_test_acc",
    "msq_test_acc",
    "quantization_time",
    "method",
    "size_bytes",
    "conv_mode",
    "alphabet",
    "radius",
    "per_output",
    "mean_bits",
    "activation_bits",
    "split",
    "is_best",
];

const LAYERS: [&str; 14] = [
    "bits",
    "alphabet_scalar",
    "layer",
    "weights",
    "layer_bits",
    "characters",
    "distinct",
    "zeros",
    "largest_character",
    "relative_error",
    "msq_error",
    "sqnr_db",
    "form",
    "seconds",
];

/// One row a point of the grid: `quantization.csv`.
pub(super) fn grid(result: &SearchResult, settings: &Quantize, data_set: &str) -> String {
    let mut text = line(&GRID.map(String::from));
    for (i, point) in result.points.iter().enumerate() {
        text += &line(&[
            quoted(data_set),
            quoted(&result.run),
            result.samples.to_string(),
            quoted(&settings.skip.join(";")),
            point.bits.to_string(),
            point.alphabet_scalar.to_string(),
            share(&result.analog),
            share(&point.score),
            share(&point.msq),
            point.seconds.to_string(),
            result.method.clone(),
            point.size_bytes.to_string(),
            settings.conv_mode.to_string(),
            settings.alphabet.to_string(),
            settings.radius.to_string(),
            settings.per_output.to_string(),
            point.mean_bits().to_string(),
            settings.activation_bits.map_or_else(String::new, |bits| bits.to_string()),
            result.split.clone(),
            (i == result.best).to_string(),
        ]);
    }
    text
}

/// One row a layer of a point: `quantization_layers.csv`.
pub(super) fn layers(points: &[Point]) -> String {
    let mut text = line(&LAYERS.map(String::from));
    for (point, layer) in points.iter().flat_map(|point| point.layers.iter().map(move |layer| (point, layer))) {
        let numbers: [&dyn Display; 11] = [
            &layer.weights,
            &layer.bits,
            &layer.characters,
            &layer.distinct,
            &layer.zeros,
            &layer.radius,
            &layer.relative_error,
            &layer.msq_error,
            &layer.sqnr,
            &layer.form.name(),
            &layer.seconds,
        ];
        let mut cells = vec![point.bits.to_string(), point.alphabet_scalar.to_string(), quoted(&layer.name)];
        cells.extend(numbers.iter().map(ToString::to_string));
        text += &line(&cells);
    }
    text
}

fn share(score: &Score) -> String {
    (score.correct as f64 / score.images.max(1) as f64).to_string()
}

fn line(cells: &[String]) -> String {
    cells.join(",") + "\n"
}

/// A text as one cell.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_cell() {
        assert_eq!(["a b", "a,b", "a\"b", "a\nb"].map(quoted), ["a b", "\"a,b\"", "\"a\"\"b\"", "\"a\nb\""]);
    }
}
