//! Characters of the methods, and the alphabets, layers and forms that they are chosen with.

use super::support::{self, *};
use qkernels::feedback::{Rounding, Ties};
use qkernels::naive::feedback::{Neuron, gpfq};
use qkernels::par;
use qzoo::quantize::{Quantized, Quantizer, Recipe};
use qzoo::train::CalibrationImages;
use std::path::Path;

const REFERENCE: [&str; 4] = [
    "quantize.method=\"gpfq\"",
    "quantize.radius=\"median\"",
    "quantize.per_output=false",
    "quantize.alphabet=\"mid_rise\"",
];

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
fn patterns_choose_layers_and_bits() {
    let sets = ["quantize.skip=[\"fc3\"]", "quantize.layer_bits={ fc2 = 8 }"];
    let (_root, experiment, evaluator) = evaluator(&sets);
    let found = quantize(&evaluator, &experiment, 2.0);
    let layers: Vec<_> = found.layers.iter().map(|layer| (layer.name.as_str(), layer.bits)).collect();
    assert_eq!(layers, [("fc1", 2.0), ("fc2", 8.0)]);
    assert_eq!(values(&found.parameters, "fc3.weight"), values(evaluator.parameters(), "fc3.weight"));
    let ends: &[&str] = &["quantize.first_last_bits=6", "quantize.layer_bits={ fc3 = 4 }"];
    let (_other, experiment, evaluator) = support::evaluator(ends);
    let found = quantize(&evaluator, &experiment, 2.0);
    assert_eq!(found.layers.iter().map(|layer| layer.bits).collect::<Vec<_>>(), [6.0, 2.0, 4.0]);
    let mut wrong = experiment.quantize.clone().unwrap();
    wrong.layers = vec!["conv*".into()];
    let images = CalibrationImages::open(&evaluator, Path::new("absent"), 9).unwrap();
    let error = Quantizer::new(evaluator.model(), &wrong, 0, images).unwrap_err().to_string();
    assert!(error.contains("no layer matches conv*; the layers are fc1, fc2, fc3"), "{error}");
}
