//! Curves by depth and over training, and histograms.

use super::super::html::{escape, figure};
use super::super::plots::{Labels, Series, Style, curves};
use super::{Page, place_name};
use qzoo::analysis::{CheckpointReport, Histogram, LayerReport, OUTPUT};
use qzoo::nn::marks;

/// Curves are told apart up to so many.
const MOST_CURVES: usize = 4;
const DEPTH: &str = "depth: 0 the first layer, 1 the last";

type Points = Vec<(f64, f64)>;

/// A named curve.
struct Curve {
    name: String,
    points: Points,
}

fn chart(curves_of: &[Curve], x: &'static str, y: &'static str) -> Option<String> {
    let series: Vec<Series<'_>> = curves_of
        .iter()
        .filter(|curve| !curve.points.is_empty())
        .take(MOST_CURVES)
        .map(|curve| Series { name: &curve.name, points: curve.points.clone(), style: Style::default() })
        .collect();
    curves(&series, &Labels { x, y, percent: false })
}

fn charts(all: impl IntoIterator<Item = (Option<String>, String)>) -> String {
    let figures: String = all.into_iter().filter_map(|(svg, caption)| Some(figure(&svg?, &caption))).collect();
    if figures.is_empty() { figures } else { format!("<div class=\"charts\">{figures}</div>") }
}

/// A value of every layer by its share of the depth; logarithms to base 10.
fn by_depth(report: &CheckpointReport, value: impl Fn(&LayerReport) -> Option<f64>) -> Points {
    let last = report.layers.len().saturating_sub(1).max(1) as f64;
    let point = |(i, layer): (usize, &LayerReport)| Some((i as f64 / last, value(layer).filter(|x| *x > 0.0)?.log10()));
    report.layers.iter().enumerate().filter_map(point).collect()
}

fn rms(layer: &LayerReport, place: &str) -> Option<f64> {
    Some(layer.place(place)?.values.rms)
}

fn gradient(layer: &LayerReport, place: &str) -> Option<f64> {
    Some(layer.place(place)?.gradients.as_ref()?.rms)
}

/// The main checkpoint and the other run.
fn compared<'p>(analysis: &'p Page<'_>) -> Vec<(String, &'p CheckpointReport)> {
    let other = analysis.beside.iter().map(|beside| (beside.name.clone(), &beside.report));
    std::iter::once((analysis.name.clone(), analysis.main())).chain(other).collect()
}

/// How large the parts are, and their ratio.
pub(super) fn parts(analysis: &Page<'_>) -> String {
    let main = analysis.main();
    let sizes = [marks::SECOND_ORDER, marks::LINEAR]
        .map(|place| Curve { name: place_name(place), points: by_depth(main, |layer| rms(layer, place)) });
    if sizes.iter().all(|curve| curve.points.is_empty()) {
        return String::new();
    }
    let ratios = stages(analysis).map(|(name, report)| Curve { name, points: by_depth(report, |layer| layer.ratio) });
    let ratios: Vec<Curve> = ratios.collect();
    charts([
        (chart(&sizes, DEPTH, "log10 of the RMS"), "RMS of the two parts of each quadratic neuron".to_string()),
        (
            chart(&ratios, DEPTH, "log10 of the ratio"),
            "RMS of the second-order part over that of the linear part; above 0 the second-order part is larger".into(),
        ),
    ])
}

/// The first, the last and the main checkpoint, as far as they differ.
fn stages<'p>(analysis: &'p Page<'_>) -> impl Iterator<Item = (String, &'p CheckpointReport)> {
    let last = analysis.stages.len() - 1;
    let mut chosen = vec![0, analysis.main, last];
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().map(|index| {
        let stage = &analysis.stages[index];
        (format!("{} (epoch {})", stage.name, stage.report.epoch), &stage.report)
    })
}

/// How gradients fade on their way to the first layer.
pub(super) fn gradients(analysis: &Page<'_>) -> String {
    let compared = compared(analysis);
    let curves_of = |value: &dyn Fn(&LayerReport) -> Option<f64>| -> Vec<Curve> {
        let curve = |(name, report): &(String, &CheckpointReport)| Curve {
            name: name.clone(),
            points: by_depth(report, value),
        };
        compared.iter().map(curve).collect()
    };
    let outputs = curves_of(&|layer| gradient(layer, OUTPUT));
    let norms = curves_of(&|layer| {
        let squares: f64 = layer.weights.iter().map(|weights| weights.gradient_norm.powi(2)).sum();
        Some(squares.sqrt())
    });
    let main = analysis.main();
    let branches: Vec<Curve> = (0..MOST_CURVES)
        .map(|i| Curve {
            name: format!("weights {}", i + 1),
            points: by_depth(main, |layer| {
                Some(layer.weights.get(i).filter(|_| layer.weights.len() > 1)?.gradient_norm)
            }),
        })
        .collect();
    charts([
        (chart(&outputs, DEPTH, "log10 of the RMS"), "Gradient with respect to each layer's output".to_string()),
        (
            chart(&norms, DEPTH, "log10 of the norm"),
            "Gradient with respect to each layer's weights, all branches".into(),
        ),
        (
            chart(&branches, DEPTH, "log10 of the norm"),
            "Gradient with respect to the weights of each branch of the quadratic neurons".into(),
        ),
    ])
}

/// Figures of the chosen layers at every checkpoint.
pub(super) fn training(analysis: &Page<'_>) -> String {
    if analysis.stages.len() < 2 {
        return String::new();
    }
    let steps_only = analysis.stages.iter().all(|stage| stage.report.epoch == analysis.stages[0].report.epoch);
    let x = if steps_only { "step" } else { "epoch" };
    let at = |report: &CheckpointReport| if steps_only { report.step as f64 } else { report.epoch as f64 };
    let curves_of = |value: &dyn Fn(&LayerReport) -> Option<f64>| -> Vec<Curve> {
        let points = |name: &String| -> Points {
            let stages = analysis.stages.iter().filter_map(|stage| {
                let layer = stage.report.layers.iter().find(|layer| layer.layer.name == *name)?;
                Some((at(&stage.report), value(layer)?))
            });
            stages.collect()
        };
        analysis.chosen.iter().map(|name| Curve { name: name.clone(), points: points(name) }).collect()
    };
    let dead = |layer: &LayerReport| Some(layer.place(OUTPUT)?.values.dead);
    let has_dead =
        analysis.stages.iter().any(|stage| analysis.chosen_of(&stage.report).filter_map(dead).any(|share| share > 0.0));
    let weights = |layer: &LayerReport| {
        let squares: f64 = layer.weights.iter().map(|weights| weights.norm.powi(2)).sum();
        Some(squares.sqrt())
    };
    charts([
        (
            chart(&curves_of(&|layer| layer.ratio), x, "ratio"),
            "RMS of the second-order part over that of the linear part".to_string(),
        ),
        (chart(&curves_of(&|layer| rms(layer, OUTPUT)), x, "RMS"), "Output of the chosen layers".into()),
        (chart(&curves_of(&|layer| gradient(layer, OUTPUT)), x, "RMS"), "Gradient with respect to the output".into()),
        (chart(&curves_of(&weights), x, "norm"), "Weights, all branches".into()),
        (has_dead.then(|| chart(&curves_of(&dead), x, "share")).flatten(), "Dead channels".into()),
    ])
}

/// Activations, gradients and weights of the chosen layers.
pub(super) fn histograms(analysis: &Page<'_>) -> String {
    let mut body = String::new();
    for layer in analysis.chosen_of(analysis.main()) {
        let of = |names: &dyn Fn(&str) -> bool| -> Vec<Curve> {
            let places = layer.places.iter().filter(|place| names(&place.place));
            let curve = |place: &qzoo::analysis::PlaceReport| {
                spread(&place_name(&place.place), place.values.histogram.as_ref())
            };
            places.map(curve).collect()
        };
        let main = of(&|place| !place.starts_with(marks::BRANCH) && place != marks::NEURON);
        let branches = of(&|place| place.starts_with(marks::BRANCH));
        let slopes = layer.places.iter().filter_map(|place| Some((place, place.gradients.as_ref()?)));
        let slopes: Vec<Curve> =
            slopes.map(|(place, slopes)| spread(&place_name(&place.place), slopes.histogram.as_ref())).collect();
        let short = |name: &str| name.strip_prefix(&layer.layer.name).unwrap_or(name).trim_matches('.').to_string();
        let weights: Vec<Curve> =
            layer.weights.iter().map(|w| spread(&short(&w.name), w.values.histogram.as_ref())).collect();
        let gradients: Vec<Curve> =
            layer.weights.iter().map(|w| spread(&short(&w.name), w.gradients.histogram.as_ref())).collect();
        let drawn = [
            (&main, "value", "Activations"),
            (&branches, "value", "Activations of the branches"),
            (&slopes, "gradient", "Gradients"),
            (&weights, "weight", "Weights"),
            (&gradients, "gradient", "Gradients of the weights"),
        ];
        let drawn = drawn.map(|(curves, x, caption)| (chart(curves, x, "log10 of the density"), caption.to_string()));
        body += &format!("<h3>{}</h3>{}", escape(&layer.layer.name), charts(drawn));
    }
    if body.is_empty() {
        return body;
    }
    let about =
        "Densities in 48 bins; values beyond the ends are counted in the outer ones. The first four curves are drawn.";
    format!("<p class=\"dim\">{about}</p>{body}")
}

/// The logarithm of a histogram's density at the middle of each bin that is not empty.
fn spread(name: &str, histogram: Option<&Histogram>) -> Curve {
    let points = histogram.map_or_else(Vec::new, |histogram| {
        let total = histogram.counts.iter().sum::<u64>().max(1) as f64;
        let width = (histogram.high - histogram.low) / histogram.counts.len().max(1) as f64;
        let bins = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        bins.map(|(i, count)| (histogram.low + (i as f64 + 0.5) * width, (*count as f64 / total / width).log10()))
            .collect()
    });
    Curve { name: name.into(), points }
}
