//! Post-training quantization of whole networks, against its definition, and in the folder of a run.

use qkernels::feedback::{Rounding, Ties};
use qkernels::naive::feedback::{Neuron, gpfq};
use qkernels::par;
use qtensor::Tensor;
use qzoo::checkpoint::Checkpoint;
use qzoo::data;
use qzoo::experiment::{Experiment, Override};
use qzoo::models::Model;
use qzoo::nn::Parameters;
use qzoo::quantize::{
    LayerResult, Progress, Quantized, Quantizer, Recipe, Search, SearchEvent, SearchOptions, Storage, Watch, unpack,
};
use qzoo::run::RunFolder;
use qzoo::train::{
    Beginning, CalibrationImages, Evaluator, Event, Observer, Silent, StopFlag, begin_with, build_model,
};
use std::path::{Path, PathBuf};

const BASE: &str = r#"
name = "small"
seed = 5
[data]
dataset = "shapes"
image_size = 12
train_limit = 60
[model]
name = "mlp"
[train]
eval_batch_size = 32
[optim]
name = "sgd"
[quantize]
samples = 50
"#;

fn experiment(sets: &[&str]) -> Experiment {
    // Only a perceptron has widths.
    let widths = (!sets.iter().any(|set| set.starts_with("model.name"))).then_some("model.widths=[24, 12]");
    let sets: Vec<Override> = sets.iter().copied().chain(widths).map(Override::set).collect();
    Experiment::parse("small.toml", BASE, &sets).unwrap_or_else(|e| panic!("{e}"))
}

/// The folder of a run with the initial weights of an experiment.
fn run(root: &Path, experiment: &Experiment) -> PathBuf {
    let info = data::describe(&experiment.data, Path::new("absent")).unwrap();
    let model = build_model(experiment, &info).unwrap();
    let begin = |name: &str, parameters: &Parameters| {
        let beginning = Beginning { experiment, info: &info, parameters, environment: None, origin: "by hand" };
        begin_with(&beginning, &RunFolder::create_at(&root.join(name)).unwrap()).unwrap();
        root.join(name)
    };
    // Running statistics like those of a trained network.
    let fresh = Evaluator::open(&begin("fresh", model.parameters())).unwrap();
    let mut images = CalibrationImages::open(&fresh, Path::new("absent"), 60).unwrap();
    begin("run", &images.recalibrate(&fresh, fresh.parameters(), 60).unwrap())
}

/// Goes on to the end.
struct Patient;

impl Progress for Patient {
    fn layer(&mut self, done: usize, total: usize, _: &LayerResult) -> bool {
        assert!(done <= total);
        true
    }
}

fn quantizer(evaluator: &Evaluator, experiment: &Experiment) -> Quantizer {
    let settings = experiment.quantize.clone().unwrap();
    let images = CalibrationImages::open(evaluator, Path::new("absent"), settings.samples).unwrap();
    Quantizer::new(evaluator.model(), &settings, experiment.seed, images).unwrap()
}

fn quantize(evaluator: &Evaluator, experiment: &Experiment, bits: f64) -> Quantized {
    let scalar = experiment.quantize.as_ref().unwrap().alphabet_scalar.as_slice()[0];
    quantizer(evaluator, experiment).quantize(&Recipe::uniform(bits, scalar), &mut Patient).unwrap().unwrap()
}

fn same(a: &Parameters, b: &Parameters) -> bool {
    a.named().zip(b.named()).all(|((name, x), (other, y))| {
        let bits = |x: &Tensor| x.to_vec::<f32>().map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        name == other && bits(x).ok() == bits(y).ok()
    })
}

fn evaluator(sets: &[&str]) -> (tempfile::TempDir, Experiment, Evaluator) {
    let (root, experiment) = (tempfile::tempdir().unwrap(), experiment(sets));
    let evaluator = Evaluator::open(&run(root.path(), &experiment)).unwrap();
    (root, experiment, evaluator)
}

const REFERENCE: [&str; 4] = [
    "quantize.method=\"gpfq\"",
    "quantize.radius=\"median\"",
    "quantize.per_output=false",
    "quantize.alphabet=\"mid_rise\"",
];

/// All calibration images as they are, `[N, C · H · W]` in f64, row-major.
fn images(evaluator: &Evaluator, count: usize) -> Tensor {
    let mut images = CalibrationImages::open(evaluator, Path::new("absent"), count).unwrap();
    let batches: Vec<Tensor> = (0..images.batches()).map(|i| images.batch(i).unwrap().contiguous()).collect();
    Tensor::concatenate(&batches, 0).unwrap()
}

fn values(model: &Parameters, name: &str) -> Vec<f64> {
    model.get(name).unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// The first two layers of a perceptron, by the definition: the second one sees what the first one gives once it is quantized.
#[test]
fn a_perceptron_is_quantized_as_gpfq_is_defined() {
    let (_root, experiment, evaluator) =
        evaluator(&[&REFERENCE[..], &["quantize.alphabet_scalar=2", "model.batch_norm=false"]].concat());
    let found = quantize(&evaluator, &experiment, 2.0);
    let x: Vec<f64> = images(&evaluator, 50).to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    let inputs = x.len() / 50;
    let model = evaluator.parameters();
    let (mut analog, mut quantized, mut columns) = (x.clone(), x, inputs);
    for (layer, outputs) in [("fc1", 24), ("fc2", 12)] {
        let weights = values(model, &format!("{layer}.weight"));
        let mut magnitudes: Vec<f64> = weights.iter().map(|w| w.abs()).collect();
        magnitudes.sort_by(f64::total_cmp);
        let half = magnitudes.len() / 2;
        let radius = 2.0
            * if magnitudes.len().is_multiple_of(2) {
                (magnitudes[half - 1] + magnitudes[half]) / 2.0
            } else {
                magnitudes[half]
            };
        let character = |x: f64| {
            (0..4)
                .map(|i| radius * (2.0 * f64::from(i) / 3.0 - 1.0))
                .min_by(|a, b| (a - x).abs().total_cmp(&(b - x).abs()))
                .unwrap()
        };
        let packed = values(&found.parameters, &format!("{layer}.weight"));
        let mut wrong = 0;
        for j in 0..outputs {
            let neuron =
                Neuron { analog: &analog, quantized: &quantized, weights: &weights[j * columns..(j + 1) * columns] };
            let (expected, _) = gpfq(&neuron, true, |_, x| character(x));
            let differs = |t: usize| (packed[j * columns + t] - expected[t]).abs() > 1e-5;
            wrong += usize::from((0..columns).any(differs));
        }
        // Activations were rounded to f32 on the way, which may turn a character of a middle and then all behind it.
        assert!(wrong <= outputs / 12, "{layer}: {wrong} of {outputs} neurons differ from the definition");
        let forward = |x: &[f64], weights: &[f64]| -> Vec<f64> {
            let bias = values(model, &format!("{layer}.bias"));
            let of =
                |x: &[f64], j: usize| bias[j] + x.iter().zip(&weights[j * columns..]).map(|(x, w)| x * w).sum::<f64>();
            x.chunks(columns).flat_map(|x| (0..outputs).map(move |j| of(x, j).max(0.0)).collect::<Vec<_>>()).collect()
        };
        (analog, quantized) = (forward(&analog, &weights), forward(&quantized, &packed));
        columns = outputs;
    }
}

const NETWORKS: [&[&str]; 5] = [
    &["model.name=\"mlp\"", "model.widths=[24, 12]"],
    &["model.name=\"cifar_cnn\"", "model.width=0.125", "data.image_size=16"],
    &["model.name=\"resnet10\"", "model.width=0.25", "data.image_size=16"],
    &["model.name=\"resnet10\"", "model.width=0.125", "data.image_size=16", "model.neuron=\"type2&4\""],
    &["model.name=\"mobilenet_v1\"", "model.width=0.1", "data.image_size=32"],
];

#[test]
fn every_method_and_network_gives_characters_that_are_packed_without_loss() {
    let methods = ["msq", "gpfq", "sgpfq", "spfq", "ldlq", "aligned_ldlq", "qronos", "beacon"];
    for (i, network) in NETWORKS.iter().enumerate() {
        for (j, method) in methods.iter().enumerate() {
            // Every network meets some methods, every method some networks.
            if (i + j) % 3 != 0 && i > 0 {
                continue;
            }
            let mode = if j % 2 == 0 && *method != "beacon" { "per_channel" } else { "full_filter" };
            let (method, mode) = (format!("quantize.method=\"{method}\""), format!("quantize.conv_mode=\"{mode}\""));
            let sets = [network, &[method.as_str(), mode.as_str(), "quantize.samples=20"][..]].concat();
            let (_root, experiment, evaluator) = evaluator(&sets);
            for bits in if i == 0 { vec![1.58, 4.0] } else { vec![[1.58, 4.0][j % 2]] } {
                let found = quantize(&evaluator, &experiment, bits);
                assert_eq!(found.packed.len(), found.layers.len());
                assert!(found.left.is_empty(), "{:?}", found.left);
                for (packed, layer) in found.packed.iter().zip(&found.layers) {
                    let weights = found.parameters.get(&packed.about.name).unwrap().to_vec::<f32>().unwrap();
                    assert_eq!(packed.values().unwrap().to_vec::<f32>().unwrap(), weights, "{sets:?}: {}", layer.name);
                    assert!(layer.distinct <= layer.characters, "{layer:?}");
                    assert!(layer.relative_error.is_finite(), "{layer:?}");
                }
            }
        }
    }
}

/// The mean error of all layers of a network.
fn loss(found: &Quantized) -> f64 {
    found.layers.iter().map(|layer| layer.relative_error).sum::<f64>() / found.layers.len() as f64
}

#[test]
fn methods_that_read_data_lose_less() {
    for network in [NETWORKS[1], NETWORKS[2]] {
        let of = |method: &str| {
            let method = format!("quantize.method=\"{method}\"");
            let (_root, experiment, evaluator) = evaluator(&[network, &[method.as_str()]].concat());
            loss(&quantize(&evaluator, &experiment, 3.0))
        };
        let [msq, gpfq, aligned] = ["msq", "gpfq", "aligned_ldlq"].map(of);
        assert!(gpfq < msq, "gpfq {gpfq}, msq {msq}");
        assert!(aligned < gpfq, "aligned_ldlq {aligned}, gpfq {gpfq}");
    }
}

#[test]
fn threads_memory_and_the_order_of_a_grid_change_no_bit() {
    let sets = [
        &NETWORKS[2][..2],
        &["data.image_size=32", "train.eval_batch_size=8", "quantize.samples=60", "quantize.method=\"gpfq\""],
    ]
    .concat();
    let (_root, experiment, evaluator) = evaluator(&sets);
    let expected = quantize(&evaluator, &experiment, 4.0).parameters;
    for threads in 1..=3 {
        let found = par::with_threads(threads, || quantize(&evaluator, &experiment, 4.0).parameters).unwrap();
        assert!(same(&found, &expected), "{threads} threads");
    }
    let mut other = experiment.clone();
    // Too little for all activations: some are computed again from the images. Matrices have room.
    other.quantize.as_mut().unwrap().memory = "3.5MiB".into();
    assert!(same(&quantize(&evaluator, &other, 4.0).parameters, &expected), "with a small budget");
    let mut grid = experiment.clone();
    grid.quantize.as_mut().unwrap().bits = qzoo::experiment::Values::new(vec![2.0, 4.0]);
    let mut quantizer = quantizer(&evaluator, &grid);
    for bits in [2.0, 4.0] {
        let found = quantizer.quantize(&Recipe::uniform(bits, 1.0), &mut Patient).unwrap().unwrap();
        assert!(bits != 4.0 || same(&found.parameters, &expected), "as second point of a grid");
    }
}

fn logits(parameters: &Parameters, model: &Model, images: &Tensor) -> Vec<f32> {
    model.infer_with(parameters, images).unwrap().to_vec().unwrap()
}

#[test]
fn folding_changes_no_answer_and_is_refused_where_it_is_not_exact() {
    // Norms behind convolutions, and norms behind activations with a linear layer next.
    for network in [NETWORKS[2], NETWORKS[0]] {
        let (_root, experiment, evaluator) = evaluator(&[network, &["quantize.fold=true"]].concat());
        let images = images(&evaluator, 10);
        let images = images.slice(0, 0..10).unwrap();
        let quantizer = quantizer(&evaluator, &experiment);
        let weight = &evaluator.parameters().parameters().last().unwrap().name.replace("bias", "weight");
        let [old, new] = [evaluator.parameters(), quantizer.model().parameters()].map(|p| values(p, weight));
        assert_eq!(old != new, network == NETWORKS[0], "{weight} takes a norm up where one is in front of it");
        let before = logits(evaluator.parameters(), evaluator.model(), &images);
        let after = logits(quantizer.model().parameters(), evaluator.model(), &images);
        let size = before.iter().fold(0.0f32, |size, x| size.max(x.abs()));
        for (before, after) in before.iter().zip(&after) {
            assert!((before - after).abs() <= 1e-4 * size, "{before} became {after}");
        }
    }
    // A pooling takes the largest, which a negative scale would turn round.
    let (_root, experiment, evaluator) = self::evaluator(&[NETWORKS[1], &["quantize.fold=true"]].concat());
    let settings = experiment.quantize.clone().unwrap();
    let images = CalibrationImages::open(&evaluator, Path::new("absent"), 9).unwrap();
    let error = Quantizer::new(evaluator.model(), &settings, 0, images).unwrap_err().to_string();
    assert!(error.contains("neither directly follows"), "{error}");
}

#[test]
fn bias_correction_and_new_statistics_bring_means_back() {
    let of = |sets: &[&str]| {
        let (_root, experiment, evaluator) = evaluator(&[NETWORKS[1], &["quantize.method=\"msq\""], sets].concat());
        let mut quantizer = quantizer(&evaluator, &experiment);
        let mut found = quantizer.quantize(&Recipe::uniform(2.0, 1.0), &mut Patient).unwrap().unwrap();
        if experiment.quantize.as_ref().unwrap().recalibrate > 0 {
            quantizer.recalibrate(&evaluator, &mut found.parameters).unwrap();
        }
        let images = images(&evaluator, 50);
        let wanted = logits(evaluator.parameters(), evaluator.model(), &images);
        let found = logits(&found.parameters, evaluator.model(), &images);
        let classes = evaluator.model().classes();
        let mean = |x: &[f32], c: usize| x.iter().skip(c).step_by(classes).map(|x| f64::from(*x)).sum::<f64>() / 50.0;
        (0..classes).map(|c| (mean(&wanted, c) - mean(&found, c)).powi(2)).sum::<f64>()
    };
    let plain = of(&[]);
    assert!(of(&["quantize.bias_correction=true"]) < 0.5 * plain);
    assert!(of(&["quantize.recalibrate=50"]) != plain);
}

/// Stops a search after so many points.
struct Impatient {
    stop: StopFlag,
    points: usize,
    begun: usize,
}

impl Observer for Impatient {
    fn event(&mut self, _: &Event<'_>) {}
}

impl Watch for Impatient {
    fn search(&mut self, event: &SearchEvent<'_>) {
        match event {
            SearchEvent::Begins { .. } => self.begun += 1,
            SearchEvent::Point { number, .. } if number + 1 == self.points => self.stop.stop(),
            _ => {}
        }
    }
}

#[test]
fn a_search_that_was_stopped_goes_on_to_the_same_network() {
    let sets = ["quantize.bits=[2, 3]", "quantize.alphabet_scalar=[1, 2]"];
    let (root, experiment, evaluator) = evaluator(&sets);
    let settings = experiment.quantize.clone().unwrap();
    let open = |name: &str, stop: &StopFlag| {
        let options = SearchOptions { data_root: "absent".into(), stop: stop.clone(), ..SearchOptions::default() };
        Search::open(evaluator.clone(), &settings, &root.path().join(name), options).unwrap()
    };
    let whole = open("whole", &StopFlag::default()).run(&mut Silent).unwrap().unwrap();
    assert_eq!(whole.points.len(), 4);
    let mut begun = 0;
    for points in 1..=3 {
        let stop = StopFlag::default();
        let mut watch = Impatient { stop: stop.clone(), points, begun: 0 };
        assert_eq!(open("parts", &stop).run(&mut watch).unwrap(), None);
        begun += watch.begun;
    }
    let mut watch = Impatient { stop: StopFlag::default(), points: 99, begun: 0 };
    let parts = open("parts", &StopFlag::default()).run(&mut watch).unwrap().unwrap();
    // A point that the stop interrupts in its first layer is begun again; none that is done.
    assert!(begun + watch.begun <= 7, "{begun} and {} points were begun", watch.begun);
    assert_eq!((parts.best, parts.test), (whole.best, whole.test));
    let bytes = |name: &str| std::fs::read(root.path().join(name).join("checkpoints/best.safetensors")).unwrap();
    assert_eq!(bytes("parts"), bytes("whole"));

    // The network runs from its packed weights.
    let quantized = Evaluator::open(&root.path().join("whole")).unwrap();
    let again = self::quantize_best(&evaluator, &experiment, &whole);
    assert!(same(quantized.parameters(), &again));
    let message = Search::open(quantized, &settings, &root.path().join("again"), SearchOptions::default()).unwrap_err();
    assert!(message.to_string().contains("quantized already"), "{message}");
    let mut other = settings.clone();
    other.samples = 49;
    let message =
        Search::open(evaluator.clone(), &other, &root.path().join("whole"), SearchOptions::default()).unwrap_err();
    assert!(message.to_string().contains("choose another folder"), "{message}");
}

fn quantize_best(evaluator: &Evaluator, experiment: &Experiment, result: &qzoo::quantize::SearchResult) -> Parameters {
    let best = &result.points[result.best];
    quantizer(evaluator, experiment)
        .quantize(&Recipe::uniform(best.bits, best.alphabet_scalar), &mut Patient)
        .unwrap()
        .unwrap()
        .parameters
}

#[test]
fn damaged_codes_are_refused() {
    let (root, experiment, evaluator) = evaluator(&["quantize.bits=2"]);
    let settings = experiment.quantize.clone().unwrap();
    let options = SearchOptions { data_root: "absent".into(), ..SearchOptions::default() };
    let path = root.path().join("out");
    Search::open(evaluator, &settings, &path, options).unwrap().run(&mut Silent).unwrap().unwrap();
    let sound = Checkpoint::load(&path.join("checkpoints/best.safetensors")).unwrap();
    assert!(unpack(&sound, Path::new("x")).is_ok());
    let refused = |change: &dyn Fn(&mut Checkpoint)| {
        let mut damaged = sound.clone();
        change(&mut damaged);
        unpack(&damaged, Path::new("x")).unwrap_err().to_string()
    };
    let drop_part =
        |part: &'static str| move |c: &mut Checkpoint| c.tensors.retain(|(name, _)| !name.starts_with(part));
    for part in ["codes:", "levels:", "units:", "zero_points:", "dead:"] {
        assert!(refused(&drop_part(part)).contains(part), "{part}");
    }
    let put = |part: &'static str, tensor: Tensor| {
        move |c: &mut Checkpoint| {
            c.tensors.iter_mut().filter(|(name, _)| name.starts_with(part)).for_each(|(_, t)| *t = tensor.clone())
        }
    };
    let floats = |values: &[f32]| Tensor::from_slice([values.len()], values).unwrap();
    for (part, tensor) in [
        ("codes:", Tensor::from_slice([3], &[1u8, 2, 3]).unwrap()),
        ("codes:", floats(&[1.0])),
        ("levels:", floats(&[])),
        ("levels:", floats(&[1.0])),
        ("levels:", floats(&[2.0, 1.0, 3.0])),
        ("units:", floats(&[f32::NAN])),
        ("units:", floats(&[1.0, 2.0, 3.0])),
        ("dead:", Tensor::from_slice([1], &[-1i32]).unwrap()),
        ("dead:", Tensor::from_slice([1], &[i32::MAX]).unwrap()),
    ] {
        assert!(!refused(&put(part, tensor)).is_empty(), "{part}");
    }
    for shape in [vec![], vec![0, 3], vec![usize::MAX, 2], vec![5, 7]] {
        assert!(
            !refused(&|c: &mut Checkpoint| c.state.quantization.as_mut().unwrap().tensors[0].shape = shape.clone())
                .is_empty()
        );
    }
}

#[test]
fn patterns_choose_layers_and_bits() {
    let sets = ["quantize.skip=[\"fc3\"]", "quantize.layer_bits={ fc2 = 8 }"];
    let (_root, experiment, evaluator) = evaluator(&sets);
    let found = quantize(&evaluator, &experiment, 2.0);
    let layers: Vec<_> = found.layers.iter().map(|layer| (layer.name.as_str(), layer.bits)).collect();
    assert_eq!(layers, [("fc1", 2.0), ("fc2", 8.0)]);
    assert_eq!(values(&found.parameters, "fc3.weight"), values(evaluator.parameters(), "fc3.weight"));
    let ends: &[&str] = &["quantize.first_last_bits=6", "quantize.layer_bits={ fc3 = 4 }"];
    let (_other, experiment, evaluator) = self::evaluator(ends);
    let found = quantize(&evaluator, &experiment, 2.0);
    assert_eq!(found.layers.iter().map(|layer| layer.bits).collect::<Vec<_>>(), [6.0, 2.0, 4.0]);
    let mut wrong = experiment.quantize.clone().unwrap();
    wrong.layers = vec!["conv*".into()];
    let images = CalibrationImages::open(&evaluator, Path::new("absent"), 9).unwrap();
    let error = Quantizer::new(evaluator.model(), &wrong, 0, images).unwrap_err().to_string();
    assert!(error.contains("no layer matches conv*; the layers are fc1, fc2, fc3"), "{error}");
}

/// Dense layers with more inputs than it pays to square are walked through on their data, with the same characters.
#[test]
fn both_forms_of_gpfq_agree() {
    let sets = [&REFERENCE[..], &["quantize.samples=10"]].concat();
    let (_root, experiment, evaluator) = evaluator(&sets);
    let walked = quantize(&evaluator, &experiment, 4.0);
    assert_eq!(walked.layers[0].form, qzoo::quantize::Form::Data, "432 inputs and 10 samples");
    let mut swept = experiment.clone();
    // The order by norms is not for data; without ties it is another path, so only the form is compared.
    swept.quantize.as_mut().unwrap().order = qzoo::experiment::FeatureOrder::Descending;
    let by_matrices = quantize(&evaluator, &swept, 4.0);
    assert_eq!(by_matrices.layers[0].form, qzoo::quantize::Form::Gram);
    assert!(by_matrices.layers[0].relative_error < 0.5 && walked.layers[0].relative_error < 0.5);
    let rounding =
        Rounding { grid: walked.packed[0].grid().clone(), mode: qkernels::feedback::Mode::Nearest(Ties::Down) };
    assert_eq!(rounding.grid.levels().len(), 16);
}

#[test]
fn mixed_bits_keep_their_budget() {
    let of = |sets: &[&str]| {
        let (root, experiment, evaluator) =
            evaluator(&[NETWORKS[2], &["quantize.bits=[2, 3, 4, 8]", "quantize.mixed=true"], sets].concat());
        let options = SearchOptions { data_root: "absent".into(), ..SearchOptions::default() };
        let mut search =
            Search::open(evaluator, experiment.quantize.as_ref().unwrap(), &root.path().join("out"), options).unwrap();
        search.run(&mut Silent).unwrap().unwrap()
    };
    let mean = |layers: &[LayerResult]| {
        let weights: usize = layers.iter().map(|layer| layer.weights).sum();
        layers.iter().map(|layer| layer.bits * layer.weights as f64).sum::<f64>() / weights as f64
    };
    let result = of(&["quantize.budget=[2.5, 4]"]);
    for (point, budget) in result.points.iter().zip([2.5, 4.0]) {
        assert!(mean(&point.layers) <= budget + 1e-9, "{budget}");
        let bits: std::collections::BTreeSet<_> = point.layers.iter().map(|layer| layer.bits as u32).collect();
        assert!(bits.len() > 1, "{bits:?}");
    }
    let result = of(&["quantize.max_drop=100"]);
    assert_eq!((result.points.len(), result.best), (1, 0), "the smallest network is good enough");
    assert_eq!(mean(&result.points[0].layers), 2.0);
    let result = of(&["quantize.max_size=\"2KiB\""]);
    let layers = &result.points[0].layers;
    let codes = layers.iter().map(|layer| Storage::for_count(layer.characters).bytes(layer.weights)).sum::<usize>();
    assert!((1700..=2048).contains(&codes), "{codes} bytes");
    assert!(result.points[0].size_bytes < result.size_before);
}

/// Inputs in 8 bits: the checkpoint runs on integer kernels and answers as the network with rounded numbers in f32 does.
#[test]
fn quantized_inputs_run_on_integers() {
    // A quadratic network that is not trained loses its signal after few layers.
    let quadratic: &[&str] = &["model.name=\"small_cnn\"", "model.width=0.25", "model.neuron=\"type2&4\""];
    for network in [NETWORKS[0], NETWORKS[1], NETWORKS[2], quadratic] {
        let (root, experiment, evaluator) = evaluator(&[network, &["quantize.activation_bits=8"]].concat());
        let options = SearchOptions { data_root: "absent".into(), ..SearchOptions::default() };
        let path = root.path().join("out");
        let result = Search::open(evaluator.clone(), experiment.quantize.as_ref().unwrap(), &path, options)
            .unwrap()
            .run(&mut Silent)
            .unwrap()
            .unwrap();
        let quantized = Evaluator::open(&path).unwrap();
        assert!(quantized.packed().iter().all(|packed| packed.about.input.is_some()));
        let images = images(&evaluator, 20).slice(0, 0..20).unwrap();
        let integers = quantized.model().folded().unwrap().infer(&images).unwrap().to_vec::<f32>().unwrap();
        let rounded = quantized.model().infer(&images).unwrap().to_vec::<f32>().unwrap();
        let plain = evaluator.model().infer(&images).unwrap().to_vec::<f32>().unwrap();
        let distance = |a: &[f32], b: &[f32]| -> f32 {
            let (error, size) = a.iter().zip(b).fold((0.0, 0.0), |(e, s), (a, b)| (e + (a - b) * (a - b), s + b * b));
            (error / size).sqrt()
        };
        // A sum that is rounded otherwise turns a number of the next layer's input now and then, and through many layers that adds up to as much as the rounding itself.
        let (apart, lost) = (distance(&integers, &rounded), distance(&rounded, &plain));
        assert!(apart < lost.min(0.1), "{network:?}: {apart} apart, {lost} lost");
        assert!(result.points[0].layers.iter().all(|layer| layer.relative_error < 0.6), "{network:?}");
    }
}
