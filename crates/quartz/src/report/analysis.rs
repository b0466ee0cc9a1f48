//! `analysis.html`: what goes on inside a trained network.

mod figures;
mod maps;

use super::html::{escape, page, section, table};
use crate::format::{loss, percent};
use qzoo::analysis::{CheckpointReport, Energy, LayerMaps, LayerReport, OUTPUT, Picture, PlaceReport, Window};
use qzoo::data::ImageShape;
use qzoo::experiment::Experiment;
use qzoo::nn::marks;

/// Everything on the page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    /// Of the run.
    pub(crate) name: String,
    pub(crate) experiment: &'a Experiment,
    /// Of the images.
    pub(crate) shape: ImageShape,
    /// Names of the layers that are shown in maps and histograms.
    pub(crate) chosen: Vec<String>,
    /// Checkpoints in the order of their steps, at least one.
    pub(crate) stages: Vec<Stage>,
    /// The one that maps and tables are of.
    pub(crate) main: usize,
    pub(crate) beside: Option<Beside>,
    pub(crate) shown: Vec<Shown>,
    pub(crate) window: Window,
    /// Whether somebody said where the object is.
    pub(crate) window_is_given: bool,
    /// Of the images of the statistics.
    pub(crate) split: String,
}

/// A checkpoint.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) report: CheckpointReport,
}

/// Another run.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) name: String,
    pub(crate) report: CheckpointReport,
}

/// An image with its maps.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) picture: Picture,
    pub(crate) maps: Vec<LayerMaps>,
    /// Those of the other run's layers, one for each.
    pub(crate) beside: Vec<LayerMaps>,
}

impl Page<'_> {
    fn main(&self) -> &CheckpointReport {
        &self.stages[self.main].report
    }

    /// The chosen layers of a report.
    fn chosen_of<'r>(&self, report: &'r CheckpointReport) -> impl Iterator<Item = &'r LayerReport> {
        report.layers.iter().filter(|layer| self.chosen.contains(&layer.layer.name))
    }
}

/// The page; `stages` must hold the main one.
pub(crate) fn render(analysis: &Page<'_>) -> String {
    let mut body = heading(analysis);
    body += &section("Activation maps", &maps::of_images(analysis));
    body += &section("Energy on the object", &energies(analysis));
    body += &section("Second-order and linear parts by depth", &figures::parts(analysis));
    body += &section("Gradients by depth", &figures::gradients(analysis));
    body += &section("Over training", &figures::training(analysis));
    body += &section("Histograms", &figures::histograms(analysis));
    body += &section("Activations and gradients", &places(analysis));
    body += &section("Weights", &weights(analysis));
    page(&format!("{}: analysis", analysis.name), &body)
}

fn heading(analysis: &Page<'_>) -> String {
    let main = analysis.main();
    let model = &analysis.experiment.model;
    let mut about = format!(
        "{} with neuron {}; checkpoint {} after epoch {}, step {}; statistics of {} {} images as in training passes (batch statistics), with a mean loss of {}; maps as in an evaluation.",
        model.name,
        model.neuron,
        analysis.stages[analysis.main].name,
        main.epoch,
        main.step,
        main.samples,
        analysis.split,
        loss(main.loss)
    );
    if let Some(beside) = &analysis.beside {
        about += &format!(" Beside it: {} after epoch {}.", beside.name, beside.report.epoch);
    }
    let parts = "The second-order part of a neuron is the sum of its products and squares (with inner normalisation: of normalised projections, shifts included), the linear part what is added to \
         it of the first degree, both before the normalisation and activation behind the neuron. Both have the gradient of their sum, which stands at “neuron”. “output” is behind normalisation, \
         residual and activation; “branch” is a single projection. Gradients are those of the loss of each image.";
    format!(
        "<h1>{}</h1><div class=\"dim\">{}</div><p class=\"dim\">{}</p>\n",
        escape(&analysis.name),
        escape(&about),
        escape(parts)
    )
}

/// A place, in words.
fn place_name(place: &str) -> String {
    match place {
        marks::SECOND_ORDER => "second-order part".into(),
        marks::LINEAR => "linear part".into(),
        place => match place.strip_prefix(marks::BRANCH) {
            Some(number) => format!("branch {number}"),
            None => place.into(),
        },
    }
}

/// What the window stands for.
fn window_in_words(analysis: &Page<'_>) -> String {
    let Window { left, top, right, bottom } = analysis.window;
    let origin = if analysis.window_is_given {
        "The box that was given"
    } else {
        "The data have no boxes, so the middle of the image stands for the object: the box"
    };
    format!(
        "{origin} from ({left}, {top}) to ({right}, {bottom}), in shares of width and height from the upper left corner. A map without structure has {} of its energy there.",
        percent(analysis.window.area())
    )
}

fn energies(analysis: &Page<'_>) -> String {
    let cells = |energy: Option<Energy>| match energy {
        Some(e) => [percent(e.share), format!("{:.2}, {:.2}", e.x, e.y)],
        None => ["–".into(), "–".into()],
    };
    let shown = [OUTPUT, marks::SECOND_ORDER, marks::LINEAR];
    let rows_of = |name: &str, report: &CheckpointReport| -> Vec<Vec<String>> {
        let layers = report.layers.iter().filter(|layer| layer.layer.is_convolution);
        let row = |layer: &LayerReport| {
            let energies = shown.iter().flat_map(|place| cells(layer.place(place).and_then(|place| place.energy)));
            std::iter::once(escape(&format!("{name}{}", layer.layer.name))).chain(energies).collect()
        };
        layers.map(row).collect()
    };
    let mut rows = rows_of("", analysis.main());
    if let Some(beside) = &analysis.beside {
        rows.extend(rows_of(&format!("{}: ", beside.name), &beside.report));
    }
    if rows.is_empty() {
        return String::new();
    }
    let about = format!(
        "Share of the squared activations inside the box, and their centre of mass (x, y); means over the {} images of the statistics. {}",
        analysis.main().samples,
        window_in_words(analysis)
    );
    let head = ["layer", "output", "centre", "second-order part", "centre", "linear part", "centre"];
    format!("<p class=\"dim\">{}</p>{}", escape(&about), table(&head, &rows))
}

fn places(analysis: &Page<'_>) -> String {
    let mut rows = Vec::new();
    for layer in &analysis.main().layers {
        for place in &layer.places {
            rows.push(place_row(layer, place));
        }
    }
    let head = [
        "layer",
        "place",
        "shape",
        "mean",
        "RMS",
        "least",
        "greatest",
        "zeros",
        "dead",
        "saturated",
        "2nd / linear",
        "gradient RMS",
        "not finite",
    ];
    let about = "Zeros: share of values that are exactly 0. Dead: share of channels or features that have one value everywhere. Saturated: share of values within 1 % of a bound of the activation, \
         where it has an upper one. 2nd / linear: RMS of the second-order part over that of the linear part.";
    format!("<p class=\"dim\">{about}</p>{}", table(&head, &rows))
}

fn place_row(layer: &LayerReport, place: &PlaceReport) -> Vec<String> {
    let (s, is_output) = (&place.values, place.place == OUTPUT);
    let shape: Vec<String> = place.shape.iter().map(usize::to_string).collect();
    let only = |shown: bool, text: String| if shown { text } else { String::new() };
    vec![
        only(is_output, escape(&layer.layer.name)),
        escape(&place_name(&place.place)),
        shape.join("×"),
        number(s.mean),
        number(s.rms),
        number(s.min),
        number(s.max),
        percent(s.zeros),
        percent(s.dead),
        s.saturated.map_or_else(|| "–".into(), percent),
        only(place.place == marks::NEURON, layer.ratio.map_or_else(|| "–".into(), number)),
        place.gradients.as_ref().map_or_else(|| "–".into(), |gradients| number(gradients.rms)),
        only(s.not_finite > 0, s.not_finite.to_string()),
    ]
}

fn weights(analysis: &Page<'_>) -> String {
    let rows = analysis.main().layers.iter().flat_map(|layer| &layer.weights).map(|weights| {
        let share = if weights.norm > 0.0 { number(weights.gradient_norm / weights.norm) } else { "–".into() };
        vec![
            escape(&weights.name),
            weights.values.count.to_string(),
            number(weights.values.mean),
            number(weights.values.rms),
            number(weights.values.min),
            number(weights.values.max),
            number(weights.norm),
            number(weights.gradient_norm),
            share,
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let head = ["weights", "values", "mean", "RMS", "least", "greatest", "norm", "gradient norm", "gradient / weights"];
    table(&head, &rows)
}

/// A number with three significant digits.
fn number(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if !(1e-3..1e5).contains(&value.abs()) {
        format!("{value:.2e}")
    } else {
        let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 5) as usize;
        format!("{value:.digits$}")
    }
}
