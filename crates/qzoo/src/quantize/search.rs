use super::csv;
use super::details::Networks;
use super::mixed::{Budget, Sensitivity, assign};
use super::packed::{Packed, inputs, pack};
use super::quantizer::{Progress, Quantized, Quantizer, Recipe};
use super::result::{Accuracy, LayerResult, Point, SearchResult};
use crate::checkpoint::{CheckpointFolder, Purpose, State};
use crate::experiment::{Experiment, Quantize};
use crate::nn::Parameters;
use crate::run::{Environment, EvaluationReport, LogFile, RunError, RunFolder, RunReader, read_json};
use crate::train::{CalibrationImages, EvaluateOptions, Evaluator, Observer, Probe, ProbeOptions, Score, StopFlag};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a search is told beside its network.
#[derive(Clone, Debug, Default)]
pub struct SearchOptions {
    /// Where the data sets are.
    pub data_root: PathBuf,
    /// Images that networks are compared on; 0 = all of the split.
    pub images: usize,
    /// Of these, the most that are spent on networks of which only the first layers are quantized; 0 = there are no such networks.
    pub cumulative_images: usize,
    /// Where and how the process runs.
    pub environment: Option<Environment>,
    /// Set by another thread to stop.
    pub stop: StopFlag,
}

/// What a [`Search`] tells while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum SearchEvent<'a> {
    /// What a layer matters was measured.
    Sensitivity {
        /// The layer.
        layer: &'a Sensitivity,
    },
    /// A network of the grid begins.
    Begins {
        /// Its number, from 0.
        number: usize,
        /// Networks in all.
        total: usize,
        /// Bits of its weights.
        bits: f64,
        /// Factor of its radii.
        alphabet_scalar: f64,
    },
    /// A layer is quantized.
    Layer {
        /// Layers done.
        done: usize,
        /// Layers in all.
        total: usize,
        /// What became of it.
        result: &'a LayerResult,
    },
    /// A network is done, or was done before the search was taken up again.
    Point {
        /// Its number, from 0.
        number: usize,
        /// Networks in all.
        total: usize,
        /// What became of it.
        point: &'a Point,
    },
}

/// Hears of a search, and of the evaluations within.
pub trait Watch: Observer {
    /// What happens.
    fn search(&mut self, event: &SearchEvent<'_>);
}

/// The quantization of a trained network for every point of a grid, in the folder of a run of its own. A search that was stopped or killed goes on with the points
/// that are missing, and ends with the same network.
#[derive(Debug)]
pub struct Search {
    folder: RunFolder,
    evaluator: Evaluator,
    experiment: Experiment,
    settings: Quantize,
    options: SearchOptions,
}

/// What a search began with: `quantize.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Beginning {
    /// SHA-256 of the weights.
    weights: String,
    settings: Quantize,
    seed: u64,
}

const BEGINNING: &str = "quantize.json";
const POINTS: &str = "points";
/// What the search came to, in the folder of its run.
pub const RESULT: &str = "quantization.json";
/// The best network layer by layer, in the folder of its run.
pub const DETAILS: &str = "quantization_details.json";

impl Search {
    /// Begins in the folder, which is made where it does not exist, or takes up the search that is there.
    ///
    /// # Errors
    /// The folder holds something else than this search.
    pub fn open(evaluator: Evaluator, settings: &Quantize, path: &Path, options: SearchOptions) -> Result<Self> {
        Self::accepts(&evaluator)?;
        let experiment = Experiment { quantize: Some(settings.clone()), ..evaluator.experiment().clone() };
        let beginning = Beginning { weights: evaluator.digest()?, settings: settings.clone(), seed: experiment.seed };
        let folder = RunFolder::take(path)?;
        match read_json::<Beginning>(&path.join(BEGINNING))? {
            Some(other) if other == beginning => {}
            Some(_) => {
                let message = "holds the quantization of another network or with other settings; choose another folder with --out";
                return Err(RunError::NotARun { path: path.to_path_buf(), message: message.into() }.into());
            }
            None => {
                let mut entries = fs::read_dir(path).map_err(RunError::io(path, "read"))?;
                if entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "lock")) {
                    return Err(RunError::Exists { path: path.to_path_buf() }.into());
                }
                folder.write_json(BEGINNING, &beginning)?;
            }
        }
        fs::create_dir_all(path.join(POINTS)).map_err(RunError::io(&path.join(POINTS), "create"))?;
        Ok(Search { folder, evaluator, experiment, settings: settings.clone(), options })
    }

    /// Refuses a network that is quantized already.
    ///
    /// # Errors
    /// It is.
    pub fn accepts(evaluator: &Evaluator) -> Result<()> {
        if evaluator.packed().is_empty() {
            return Ok(());
        }
        let message = "its weights are quantized already; name the run that trained it";
        Err(Error::Config(format!("{}: {message}", evaluator.path().display())))
    }

    /// Whether the folder holds a search of this network with these settings.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn is_at(evaluator: &Evaluator, settings: &Quantize, path: &Path) -> Result<bool> {
        let seed = evaluator.experiment().seed;
        let beginning = Beginning { weights: evaluator.digest()?, settings: settings.clone(), seed };
        Ok(read_json::<Beginning>(&path.join(BEGINNING))?.is_some_and(|other| other == beginning))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Quantizes the network for all points that are missing. `None` where it was stopped; what is done is saved then.
    ///
    /// # Errors
    /// The data, the disk or the engine fails.
    pub fn run(&mut self, watch: &mut dyn Watch) -> Result<Option<SearchResult>> {
        if RunReader::open(self.path()).is_ok()
            && let Some(result) = read_json(&self.path().join(RESULT))?
        {
            return Ok(Some(result));
        }
        let images = CalibrationImages::open(&self.evaluator, &self.options.data_root, self.settings.samples)?;
        let mut quantizer = Quantizer::new(self.evaluator.model(), &self.settings, self.experiment.seed, images)?;
        let probe = self.probe(self.options.images)?;
        let Some(analog) = self.analog(&probe, watch)? else { return Ok(None) };
        let Some(recipes) = self.recipes(&mut quantizer, watch)? else { return Ok(None) };
        let checkpoints = CheckpointFolder::open(&self.folder.checkpoints(), 1)?;
        let mut points: Vec<Point> = Vec::new();
        let total = recipes.len();
        for (number, recipe) in recipes.iter().enumerate() {
            // Budgets rise, so the first network that is good enough is the smallest.
            if points.last().is_some_and(|point| self.is_enough(point, analog)) {
                break;
            }
            if let Some(point) = read_json::<Point>(&self.path().join(file(number)))? {
                watch.search(&SearchEvent::Point { number, total, point: &point });
                points.push(point);
                continue;
            }
            let Recipe { bits, alphabet_scalar, .. } = *recipe;
            watch.search(&SearchEvent::Begins { number, total, bits, alphabet_scalar });
            let Some((point, quantized)) = self.point(&mut quantizer, &probe, recipe, watch)? else {
                return Ok(None);
            };
            // The network first: a search that is killed in between does this point again.
            if self.is_enough(&point, analog)
                || best(&points).is_none_or(|best| point.score.correct > points[best].score.correct)
            {
                let state = self.state()?;
                checkpoints.save_best(&pack(state, named(&quantized.parameters), &quantized.packed)?)?;
            }
            self.folder.write_json(&file(number), &point)?;
            watch.search(&SearchEvent::Point { number, total, point: &point });
            points.push(point);
        }
        let chosen = match points.last() {
            Some(point) if self.is_enough(point, analog) => points.len() - 1,
            _ => best(&points).ok_or_else(|| Error::Config("the grid has no point".into()))?,
        };
        let found = Found { split: probe.split(), analog, points, best: chosen };
        self.finish(&quantizer, &recipes[chosen], found, watch)
    }

    /// The networks to make, in order.
    fn recipes(&self, quantizer: &mut Quantizer, watch: &mut dyn Watch) -> Result<Option<Vec<Recipe>>> {
        let Quantize { bits, alphabet_scalar, mixed, budget, max_drop, .. } = &self.settings;
        let (bits, scalars) = (bits.as_slice(), alphabet_scalar.as_slice());
        let grid = |bits: &[f64], of: &dyn Fn(f64, f64) -> Result<Recipe>| {
            let points = bits.iter().flat_map(|bits| scalars.iter().map(|scalar| of(*bits, *scalar)));
            points.collect::<Result<Vec<_>>>().map(Some)
        };
        if !mixed {
            return grid(bits, &|bits, scalar| Ok(Recipe::uniform(bits, scalar)));
        }
        let Some(layers) = self.sensitivities(quantizer, watch)? else { return Ok(None) };
        let assigned = |budget: Budget, bits: f64, alphabet_scalar: f64| {
            let too_much = || {
                Error::Config(format!(
                    "{} bits for every layer are more than the budget allows",
                    layers[0].choices[0].bits
                ))
            };
            let layers = assign(&layers, budget).ok_or_else(too_much)?;
            Ok(Recipe { bits, alphabet_scalar, layers })
        };
        if let Some(bytes) = self.settings.max_bytes() {
            return grid(&bits[..1], &|bits, scalar| assigned(Budget::Bytes(bytes), bits, scalar));
        }
        let budgets = match (budget, max_drop) {
            (Some(budget), _) => budget.as_slice().to_vec(),
            _ => {
                let (low, high) =
                    bits.iter().fold((8.0f64, 1.0f64), |(low, high), bits| (low.min(*bits), high.max(*bits)));
                let steps = ((high - low) / 0.5).ceil() as usize;
                (0..=steps).map(|i| (low + 0.5 * i as f64).min(high)).collect()
            }
        };
        grid(&budgets, &|budget, scalar| assigned(Budget::MeanBits(budget), budget, scalar))
    }

    /// What each layer matters, from the folder where it was measured before.
    fn sensitivities(&self, quantizer: &mut Quantizer, watch: &mut dyn Watch) -> Result<Option<Vec<Sensitivity>>> {
        const FILE: &str = "sensitivity.json";
        if let Some(layers) = read_json(&self.path().join(FILE))? {
            return Ok(Some(layers));
        }
        let (bits, scalar) = (self.settings.bits.as_slice(), self.settings.alphabet_scalar.as_slice()[0]);
        let layers = quantizer.sensitivities(bits, scalar, |layer| {
            watch.search(&SearchEvent::Sensitivity { layer });
            !self.options.stop.is_set()
        })?;
        let Some(layers) = layers else { return Ok(None) };
        if layers.is_empty() {
            return Err(Error::Config("there is no layer to quantize".into()));
        }
        self.folder.write_json(FILE, &layers)?;
        Ok(Some(layers))
    }

    /// Whether a network loses no more than it may, where the smallest such is looked for.
    fn is_enough(&self, point: &Point, analog: Score) -> bool {
        let share = |score: &Score| score.correct as f64 / score.images.max(1) as f64;
        // Differences of fractions are not exact to the last bit.
        self.settings.max_drop.is_some_and(|most| 100.0 * (share(&analog) - share(&point.score)) <= most + 1e-9)
    }

    /// The network with at most so many of the images that networks are compared on; 0 = all of them.
    fn probe(&self, images: usize) -> Result<Probe> {
        let options = ProbeOptions {
            data_root: self.options.data_root.clone(),
            images,
            calibration_images: 0,
            stop: self.options.stop.clone(),
        };
        Probe::new(self.evaluator.clone(), &options)
    }

    /// Top-1 accuracy of the original network on the images that networks are compared on.
    fn analog(&self, probe: &Probe, watch: &mut dyn Watch) -> Result<Option<Score>> {
        const FILE: &str = "points/analog.json";
        if let Some(score) = read_json(&self.path().join(FILE))? {
            return Ok(Some(score));
        }
        let Some(score) = probe.score(self.evaluator.parameters().clone(), watch)? else { return Ok(None) };
        self.folder.write_json(FILE, &score)?;
        Ok(Some(score))
    }

    fn point(
        &self,
        quantizer: &mut Quantizer,
        probe: &Probe,
        recipe: &Recipe,
        watch: &mut dyn Watch,
    ) -> Result<Option<(Point, Quantized)>> {
        let start = Instant::now();
        let mut progress = Told { watch, stop: &self.options.stop };
        let Some(mut quantized) = quantizer.quantize(recipe, &mut progress)? else { return Ok(None) };
        if self.settings.recalibrate > 0 {
            quantizer.recalibrate(&self.evaluator, &mut quantized.parameters)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let Some(score) = probe.score_with(quantized.parameters.clone(), quantized.inputs()?, watch)? else {
            return Ok(None);
        };
        let Some(msq) = probe.score(quantizer.round(recipe)?, watch)? else { return Ok(None) };
        let point = Point {
            bits: recipe.bits,
            alphabet_scalar: recipe.alphabet_scalar,
            score,
            msq,
            seconds,
            size_bytes: size(&quantized.parameters, &quantized.packed),
            layers: quantized.layers.clone(),
            left: quantized.left.clone(),
        };
        Ok(Some((point, quantized)))
    }

    /// Evaluates the best network on the test images and makes the folder that of a run.
    fn finish(
        &self,
        quantizer: &Quantizer,
        recipe: &Recipe,
        found: Found,
        watch: &mut dyn Watch,
    ) -> Result<Option<SearchResult>> {
        let Found { split, analog, points, best } = found;
        let kept = Evaluator::open(&CheckpointFolder::open(&self.folder.checkpoints(), 1)?.best())?;
        let rounded = self.evaluator.with_parameters(&quantizer.round(recipe)?)?;
        let positions = kept.parameters().parameters();
        let networks = Networks {
            model: quantizer.model(),
            quantized: kept.parameters(),
            inputs: inputs(kept.packed(), |name| positions.iter().position(|parameter| parameter.name == name))?,
            rounded: rounded.parameters(),
            layers: points[best].layers.iter().map(|layer| layer.name.as_str()).collect(),
        };
        let few = match (self.options.cumulative_images, self.options.images) {
            (0, _) => None,
            (most, 0) => Some(self.probe(most)?),
            (most, images) => Some(self.probe(most.min(images))?),
        };
        let Some(details) = networks.details(few.as_ref(), watch)? else { return Ok(None) };
        self.folder.write_json(DETAILS, &details)?;
        let mut reports = Vec::new();
        for evaluator in [&self.evaluator, &rounded, &kept] {
            let options = EvaluateOptions {
                data_root: self.options.data_root.clone(),
                stop: self.options.stop.clone(),
                ..EvaluateOptions::default()
            };
            let Some(evaluation) = evaluator.evaluate(&options, watch)? else { return Ok(None) };
            reports.push(evaluation.report);
        }
        let accuracy =
            |report: &EvaluationReport| Accuracy { top1: report.top1, top5: report.top5, images: report.images };
        let [analog_test, msq_test, test] = [0, 1, 2].map(|i| accuracy(&reports[i]));
        let evaluation = EvaluationReport { checkpoint: "best".into(), ..reports[2].clone() };
        let result = SearchResult {
            name: self.experiment.name.clone(),
            run: self.evaluator.path().display().to_string(),
            method: self.settings.method.name().to_string(),
            split: split.to_string(),
            samples: self.settings.samples,
            analog,
            analog_test,
            msq_test,
            test,
            size_before: size(self.evaluator.parameters(), &[]),
            best,
            points,
        };
        self.folder
            .write("quantization.csv", csv::grid(&result, &self.settings, self.experiment.data.dataset.name()))?;
        self.folder.write("quantization_layers.csv", csv::layers(&result.points))?;
        self.folder.write_json("evaluation.json", &evaluation)?;
        self.folder.write_json(RESULT, &result)?;
        if let Some(environment) = &self.options.environment {
            self.folder.write_json("env.json", environment)?;
        }
        let origin = format!("quantized from {} by {}", result.run, result.method);
        LogFile::open(&self.path().join("log.txt"))?.line(&origin)?;
        // Last, because it makes the folder that of a run.
        let text = self
            .experiment
            .to_toml()
            .map_err(|e| Error::Config(format!("the experiment cannot be written as TOML: {e}")))?;
        self.folder.write("config.resolved.toml", text)?;
        Ok(Some(result))
    }

    /// The state that the quantized network's checkpoint has.
    fn state(&self) -> Result<State> {
        let text = self
            .experiment
            .to_toml()
            .map_err(|e| Error::Config(format!("the experiment cannot be written as TOML: {e}")))?;
        Ok(State { purpose: Purpose::Weights, experiment: text, ..self.evaluator.state().clone() })
    }
}

/// What a grid gave.
struct Found {
    split: &'static str,
    analog: Score,
    points: Vec<Point>,
    best: usize,
}

/// Tells of layers, and stops where it should.
struct Told<'a> {
    watch: &'a mut dyn Watch,
    stop: &'a StopFlag,
}

impl Progress for Told<'_> {
    fn layer(&mut self, done: usize, total: usize, result: &LayerResult) -> bool {
        self.watch.search(&SearchEvent::Layer { done, total, result });
        !self.stop.is_set()
    }
}

fn file(number: usize) -> String {
    format!("{POINTS}/{number:04}.json")
}

/// The point of the most right answers, the first of equals.
fn best(points: &[Point]) -> Option<usize> {
    (0..points.len()).reduce(|best, i| if points[i].score.correct > points[best].score.correct { i } else { best })
}

fn named(parameters: &Parameters) -> Vec<(String, qtensor::Tensor)> {
    parameters.named().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
}

/// Bytes of all parameters and statistics, quantized ones packed.
fn size(parameters: &Parameters, packed: &[Packed]) -> u64 {
    let floats = parameters
        .named()
        .filter(|(name, tensor)| tensor.dtype().is_float() && !packed.iter().any(|packed| packed.about.name == *name));
    let floats: usize = floats.map(|(_, tensor)| 4 * tensor.numel()).sum();
    (floats + packed.iter().map(Packed::bytes).sum::<usize>()) as u64
}

/// Watches nothing.
impl Watch for crate::train::Silent {
    fn search(&mut self, _: &SearchEvent<'_>) {}
}
