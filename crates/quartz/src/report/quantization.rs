//! The sections of a quantized run.

mod figures;

use super::html::{self, bar, escape, figure, section, table};
use crate::commands::quantize::show::number;
use crate::format::{bytes, count, percent, seconds};
use qzoo::quantize::{Details, LayerResult, Point, SearchResult};
use qzoo::train::Score;

/// What came of it, the grid, the layers and their weights.
pub(super) fn sections(result: &SearchResult, details: Option<&Details>) -> String {
    let best = &result.points[result.best];
    let mut body = format!("<div class=\"dim\">{}</div>\n", escape(&origin(result)));
    body += &tiles(result);
    body += &section("Before and after", &networks(result));
    if result.points.len() > 1 {
        body += &section("Grid", &grid(result));
    }
    body += &section("Layers", &layers(result, best, details));
    if let Some(details) = details {
        body += &section("Weights before and after", &figures::weights(&details.weights));
    }
    body
}

fn origin(result: &SearchResult) -> String {
    let images = count(result.samples as u64);
    format!("{} quantized by {}, calibrated with up to {images} training images", result.run, result.method)
}

fn tiles(result: &SearchResult) -> String {
    let best = &result.points[result.best];
    let factor = result.size_before as f64 / best.size_bytes.max(1) as f64;
    html::tiles(&[
        ("top-1 accuracy", percent(result.test.top1)),
        ("of the original network", percent(result.analog_test.top1)),
        ("bits of a weight", number(best.mean_bits())),
        ("size", bytes(best.size_bytes)),
        ("times smaller", format!("{factor:.1}")),
        ("quantization", seconds(best.seconds)),
    ])
}

fn networks(result: &SearchResult) -> String {
    let best = &result.points[result.best];
    let rows = [
        ("original".to_string(), &result.analog_test, result.size_before),
        ("weights rounded one by one (msq)".to_string(), &result.msq_test, best.size_bytes),
        (result.method.clone(), &result.test, best.size_bytes),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, accuracy, size)| {
            let lost = 100.0 * (result.analog_test.top1 - accuracy.top1);
            vec![
                escape(&name),
                bar(&percent(accuracy.top1), accuracy.top1),
                bar(&percent(accuracy.top5), accuracy.top5),
                format!("{:.2}", lost + 0.0),
                bar(&bytes(size), size as f64 / result.size_before.max(1) as f64),
            ]
        })
        .collect();
    let about = format!(
        "On {} test images. Both quantized networks have the alphabet of the best point: {} bits, scalar {}.",
        count(result.test.images),
        number(best.bits),
        number(best.alphabet_scalar)
    );
    let head = ["network", "top-1", "top-5", "points lost", "size"];
    format!("{}<p class=\"dim\">{}</p>", table(&head, &rows), escape(&about))
}

fn share(score: &Score) -> f64 {
    score.correct as f64 / score.images.max(1) as f64
}

fn grid(result: &SearchResult) -> String {
    let row = |(i, point): (usize, &Point)| {
        let cells = [
            number(point.bits),
            number(point.alphabet_scalar),
            bar(&percent(share(&point.score)), share(&point.score)),
            bar(&percent(share(&point.msq)), share(&point.msq)),
            bytes(point.size_bytes),
            seconds(point.seconds),
        ];
        let is_best = i == result.best;
        cells.map(|cell| if is_best { format!("<b>{cell}</b>") } else { cell }).to_vec()
    };
    let rows: Vec<Vec<String>> = result.points.iter().enumerate().map(row).collect();
    let head = ["bits", "scalar", result.method.as_str(), "msq", "size", "time"];
    let chart = figures::grid(result).map_or_else(String::new, |chart| {
        figure(&chart, "Dashed: weights rounded one by one, with the same alphabet. Grey: the original network.")
    });
    let about = format!(
        "Networks are compared on {} {} images; the best is in bold.",
        count(result.analog.images),
        result.split
    );
    format!("<div class=\"charts\">{chart}{}</div><p class=\"dim\">{}</p>", table(&head, &rows), escape(&about))
}

fn layers(result: &SearchResult, best: &Point, details: Option<&Details>) -> String {
    let errors = figure(
        &figures::errors(&result.method, &best.layers),
        "Relative error of each layer's result: of the method with the errors of all layers before it, of msq with that layer's alone.",
    );
    let cumulative = details.and_then(|details| details.cumulative.as_ref()).map_or_else(String::new, |cumulative| {
        let chart = figures::cumulative(&result.method, cumulative).unwrap_or_default();
        let (images, split) = (count(cumulative.images), &result.split);
        figure(&chart, &format!("Top-1 accuracy with the first layers quantized and the others as they were, on {images} {split} images."))
    });
    let most = best.layers.iter().map(|layer| layer.weights).max().unwrap_or(1).max(1);
    let worst =
        best.layers.iter().map(|layer| layer.relative_error.max(layer.msq_error)).fold(f64::MIN_POSITIVE, f64::max);
    let row = |layer: &LayerResult| {
        vec![
            escape(&layer.name),
            bar(&count(layer.weights as u64), layer.weights as f64 / most as f64),
            number(layer.bits),
            format!("{} of {}", layer.distinct, layer.characters),
            bar(&percent(layer.zeros), layer.zeros),
            format!("{:.4}", layer.radius),
            bar(&format!("{:.4}", layer.relative_error), layer.relative_error / worst),
            bar(&format!("{:.4}", layer.msq_error), layer.msq_error / worst),
            format!("{:.1} dB", layer.sqnr),
            layer.form.name().to_string(),
            seconds(layer.seconds),
        ]
    };
    let rows: Vec<Vec<String>> = best.layers.iter().map(row).collect();
    let head =
        ["layer", "weights", "bits", "characters", "zeros", "largest", "error", "msq alone", "SQNR", "form", "time"];
    let left: String = best
        .left
        .iter()
        .map(|(name, reason)| format!("<li>{} is left as it is: it {}</li>", escape(name), escape(reason)))
        .collect();
    let left = if left.is_empty() { left } else { format!("<ul>{left}</ul>") };
    format!("<div class=\"charts\">{cumulative}{errors}</div>{}{left}", table(&head, &rows))
}
