//! What happens to a network besides its weights: folded norms, corrected biases, rounded inputs, packed files.

use super::support::{self, *};
use qtensor::Tensor;
use qzoo::checkpoint::Checkpoint;
use qzoo::quantize::{Quantizer, Recipe, Search, SearchOptions, unpack};
use qzoo::train::{CalibrationImages, Evaluator, Silent};
use std::path::Path;

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
    let (_root, experiment, evaluator) = support::evaluator(&[NETWORKS[1], &["quantize.fold=true"]].concat());
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
