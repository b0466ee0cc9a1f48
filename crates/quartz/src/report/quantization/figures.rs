//! Curves, bars and histograms of a quantized run.

use super::super::html::{escape, figure};
use super::super::plots::{COLOURS, INK, Labels, Series, Style, keyed_curves, short};
use super::share;
use crate::commands::quantize::show::number;
use plotters::style::RGBColor;
use qzoo::analysis::Histogram;
use qzoo::quantize::{Cumulative, LayerResult, Point, SearchResult, WeightHistograms};
use std::fmt::Write as _;

/// A named curve.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    style: Style,
}

fn chart(curves: &[Curve], labels: &Labels) -> Option<String> {
    let one = |curve: &Curve| (curve.points.clone(), curve.style);
    let series: Vec<Series<'_>> = curves
        .iter()
        .map(|curve| {
            let (points, style) = one(curve);
            Series { name: &curve.name, points, style }
        })
        .collect();
    keyed_curves(&series, labels)
}

/// Accuracy against the scalar, one line a number of bits; against the bits where there is one scalar.
pub(super) fn grid(result: &SearchResult) -> Option<String> {
    type Key = fn(&Point) -> f64;
    let values = |key: Key| {
        let mut values: Vec<f64> = Vec::new();
        for value in result.points.iter().map(key) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    };
    let (bits, scalars) = (values(|point| point.bits), values(|point| point.alphabet_scalar));
    let by_scalar = scalars.len() > 1;
    let across: Key = if by_scalar { |point| point.alphabet_scalar } else { |point| point.bits };
    let lines: Vec<Option<f64>> = if by_scalar { bits.iter().copied().map(Some).collect() } else { vec![None] };
    let mut curves = Vec::new();
    for (i, bits) in lines.iter().enumerate() {
        let colour = Some(COLOURS[i % COLOURS.len()]);
        let curve = |dashed, accuracy: &dyn Fn(&Point) -> f64| {
            let points = result.points.iter().filter(|point| bits.is_none_or(|bits| point.bits == bits));
            let mut points: Vec<(f64, f64)> = points.map(|point| (across(point), accuracy(point))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let method = if dashed { "msq" } else { &result.method };
            let name = bits
                .filter(|_| lines.len() > 1)
                .map_or_else(|| method.to_string(), |bits| format!("{method}, {} bits", number(bits)));
            Curve { name, points, style: Style { colour, dashed } }
        };
        curves.push(curve(false, &|point| share(&point.score)));
        curves.push(curve(true, &|point| share(&point.msq)));
    }
    let ends =
        result.points.iter().map(across).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    curves.push(level("original", ends, share(&result.analog)));
    let x = if by_scalar { "alphabet scalar" } else { "bits" };
    chart(&curves, &Labels { x, y: "top-1 accuracy", percent: true })
}

/// Accuracy by the number of quantized layers.
pub(super) fn cumulative(method: &str, cumulative: &Cumulative) -> Option<String> {
    let share = |correct: u64| correct as f64 / cumulative.images.max(1) as f64;
    let points = |corrects: &[u64]| {
        let all = std::iter::once(&cumulative.original).chain(corrects).enumerate();
        all.map(|(layers, correct)| (layers as f64, share(*correct))).collect()
    };
    let style = |place: usize, dashed| Style { colour: Some(COLOURS[place]), dashed };
    let curves = [
        Curve { name: method.to_string(), points: points(&cumulative.quantized), style: style(0, false) },
        Curve { name: "msq".into(), points: points(&cumulative.msq), style: style(1, true) },
        level("original", (0.0, cumulative.quantized.len() as f64), share(cumulative.original)),
    ];
    chart(&curves, &Labels { x: "quantized layers", y: "top-1 accuracy", percent: true })
}

/// A horizontal line.
fn level(name: &str, (from, to): (f64, f64), value: f64) -> Curve {
    let style = Style { colour: Some(RGBColor(140, 146, 158)), dashed: true };
    Curve { name: name.into(), points: vec![(from, value), (to, value)], style }
}

fn css(RGBColor(red, green, blue): RGBColor) -> String {
    format!("rgb({red},{green},{blue})")
}

/// Errors of the layers as two bars each.
pub(super) fn errors(method: &str, layers: &[LayerResult]) -> String {
    // Few layers have room beside the curve, many need to be close.
    let (row, bar) = if layers.len() > 8 { (22, 8) } else { (30, 11) };
    let longest = layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0);
    let left = (7 * longest + 16).clamp(60, 240);
    let (width, height) = (560, row * layers.len() + 8);
    let room = (width - left - 56) as f64;
    let most = layers.iter().map(|layer| layer.relative_error.max(layer.msq_error)).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"relative error by layer\" font-size=\"12\">"
    );
    for (i, layer) in layers.iter().enumerate() {
        let y = 4 + i * row;
        let name = escape(&layer.name);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"{}\">{name}</text>",
            left - 8,
            y + bar + 6,
            css(INK)
        );
        for (place, (who, error)) in [(method, layer.relative_error), ("msq", layer.msq_error)].into_iter().enumerate()
        {
            let (length, top) = ((error / most * room).max(1.0), y + 2 + (bar + 1) * place);
            let _ = write!(
                svg,
                "<rect x=\"{left}\" y=\"{top}\" width=\"{length:.1}\" height=\"{bar}\" fill=\"{}\" fill-opacity=\"0.8\"><title>{name}, {}: {error:.4}</title></rect>\
                 <text x=\"{:.1}\" y=\"{}\" fill=\"{}\" font-size=\"10\">{error:.3}</text>",
                css(COLOURS[place]),
                escape(who),
                left as f64 + length + 5.0,
                top + bar - 1,
                css(INK)
            );
        }
    }
    let key = |place: usize, name: &str| {
        format!("<span class=\"key\" style=\"--key:{}\">{}</span>", css(COLOURS[place]), escape(name))
    };
    format!("{svg}</svg><div class=\"keys\">{}{}</div>", key(0, method), key(1, "msq, this layer alone"))
}

/// Histograms of every layer's weights.
pub(super) fn weights(layers: &[WeightHistograms]) -> String {
    if layers.is_empty() {
        return String::new();
    }
    let figures: String = layers.iter().map(|layer| figure(&histograms(layer), &layer.name)).collect();
    let about = "Shaded: the weights as they were. Lines: the characters that they became, where each output channel may have its own. Each is drawn to its own height.";
    format!("<p class=\"dim\">{about}</p><div class=\"small\">{figures}</div>")
}

/// Both histograms in one frame, each to its own height.
fn histograms(layer: &WeightHistograms) -> String {
    const SIZE: (f64, f64) = (260.0, 120.0);
    const FLOOR: f64 = 100.0;
    let heights = |histogram: &Histogram| -> Vec<f64> {
        let most = histogram.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
        histogram.counts.iter().map(|count| (FLOOR - 8.0) * *count as f64 / most).collect()
    };
    let bins = layer.before.counts.len().max(1);
    let step = (SIZE.0 - 16.0) / bins as f64;
    let name = escape(&layer.name);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"weights of {name}\" font-size=\"11\">",
        SIZE.0, SIZE.1
    );
    let mut area = format!("M8 {FLOOR}");
    for (i, height) in heights(&layer.before).iter().enumerate() {
        let (x, y) = (8.0 + step * i as f64, FLOOR - height);
        let _ = write!(area, "L{x:.1} {y:.1}L{:.1} {y:.1}", x + step);
    }
    let _ = write!(
        svg,
        "<path d=\"{area}L{:.1} {FLOOR}Z\" fill=\"{}\" fill-opacity=\"0.3\"/>",
        8.0 + step * bins as f64,
        css(COLOURS[0])
    );
    for (i, height) in heights(&layer.after).iter().enumerate().filter(|(_, height)| **height > 0.0) {
        let middle = 8.0 + step * (i as f64 + 0.5);
        let _ = write!(
            svg,
            "<line x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{FLOOR}\" y2=\"{:.1}\" stroke=\"{}\" stroke-width=\"2\"/>",
            FLOOR - height,
            css(COLOURS[1])
        );
    }
    let ink = css(INK);
    let _ = write!(
        svg,
        "<line x1=\"8\" x2=\"{}\" y1=\"{FLOOR}\" y2=\"{FLOOR}\" stroke=\"{ink}\" stroke-opacity=\"0.5\"/>",
        SIZE.0 - 8.0
    );
    for (anchor, x, value) in
        [("start", 8.0, layer.before.low), ("middle", SIZE.0 / 2.0, 0.0), ("end", SIZE.0 - 8.0, layer.before.high)]
    {
        let _ =
            write!(svg, "<text x=\"{x}\" y=\"114\" text-anchor=\"{anchor}\" fill=\"{ink}\">{}</text>", short(value));
    }
    svg + "</svg>"
}
