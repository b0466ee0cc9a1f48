//! Weights of a foreign checkpoint in a model: names, shapes, biases before batch normalisations, what is missing and what is lost.

#![cfg(feature = "import-torch")]

use qtensor::Tensor;
use qzoo::checkpoint::torch;
use qzoo::experiment::{Import, ModelName, NeuronName};
use qzoo::import::{ImportOptions, Imported, import};
use qzoo::models::Model;
use std::io::Cursor;

fn model(neuron: NeuronName, seed: u64) -> Model {
    let name = ModelName::ResNet10;
    let config = qzoo::experiment::Model { name, neuron, width: 0.25, ..Default::default() };
    let mut model = Model::build(&config, [3, 32, 32], 10, seed).unwrap();
    // Statistics that are not those of a new network.
    for i in 0..model.parameters().buffers().len() {
        let buffer = model.parameters_mut().buffer_mut(i);
        match buffer.memory_mut::<f32>() {
            Ok(values) => values.iter_mut().enumerate().for_each(|(k, v)| *v += ((i * 7 + k * 3) % 11) as f32 / 16.0),
            Err(_) => *buffer = Tensor::scalar(i as i64),
        }
    }
    model
}

type Tensors = Vec<(String, Tensor)>;

fn named(model: &Model, prefix: &str) -> Tensors {
    model.parameters().named().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
}

fn imported(tensors: &Tensors, model: &Model, options: &ImportOptions) -> Result<Imported, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.pth");
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    torch::write(&mut file, &tensors).unwrap();
    std::fs::write(&path, file.into_inner()).unwrap();
    import(&path, model, options).map_err(|error| error.to_string())
}

fn digest(parameters: &qzoo::nn::Parameters) -> String {
    qzoo::checkpoint::weights_digest(parameters.named()).unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    let values = (0..2 * 3 * 32 * 32).map(|i| (0.1 * i as f32).sin()).collect();
    let images = Tensor::from_vec([2, 3, 32, 32], values).unwrap();
    model.infer(&images).unwrap().to_vec::<f32>().unwrap()
}

#[test]
fn prefixes_and_other_names_end_in_the_same_bits() {
    let (source, target) = (model(NeuronName::Ours, 1), model(NeuronName::Ours, 2));
    assert_ne!(digest(source.parameters()), digest(target.parameters()));
    for prefix in ["", "net.", "state_dict.module."] {
        let all = imported(&named(&source, prefix), &target, &ImportOptions::default()).unwrap();
        assert_eq!(digest(&all.parameters), digest(source.parameters()), "{prefix}");
        assert_eq!((all.report.dropped.len(), all.report.guessed().count()), (0, 0));
    }
    let mut renamed = named(&source, "net.");
    for (name, _) in &mut renamed {
        *name = name.replace("net.fc.", "net.head.").replace(".conv1.", ".first.");
    }
    let all = imported(&renamed, &target, &ImportOptions::default()).unwrap();
    assert_eq!(digest(&all.parameters), digest(source.parameters()), "a guess by order");
    assert!(all.report.guessed().count() > 40);
    // What order cannot tell apart, a rule can.
    renamed.insert(0, ("net.other.weight".into(), Tensor::full([10, 16], 0.0f32).unwrap()));
    let message = imported(&renamed, &target, &ImportOptions::default()).unwrap_err();
    assert!(message.contains("foreign.pth") && message.contains("[import.names]"), "{message}");
    let names = [
        ("head.*", "fc.*"),
        ("first.*", "conv1.*"),
        ("*.first.*", "*.conv1.*"),
        ("*.first.first.*", "*.conv1.conv1.*"),
    ];
    let names = names.map(|(pattern, name)| (pattern.to_string(), name.to_string())).into();
    let options = ImportOptions { rules: Import { names, ..Import::default() }, ..ImportOptions::default() };
    let all = imported(&renamed, &target, &options).unwrap();
    assert_eq!(digest(&all.parameters), digest(source.parameters()));
    assert_eq!(all.report.prefix, "net");

    let mut head = named(&source, "");
    head.iter_mut().for_each(|(name, _)| *name = name.replace("fc.", "classifier."));
    let all = imported(&head, &target, &ImportOptions::default()).unwrap();
    assert_eq!(digest(&all.parameters), digest(source.parameters()));
    let guessed: Vec<&str> = all.report.guessed().map(|tensor| tensor.from.as_str()).collect();
    assert_eq!(guessed, ["classifier.weight", "classifier.bias"]);
}

/// A file whose network has a bias in every convolution, and means that take it off again, is the network without.
#[test]
fn biases_before_batch_norms_are_absorbed() {
    for neuron in [NeuronName::Linear, NeuronName::Ours, NeuronName::Type2And4Shared] {
        let (source, mut target) = (model(neuron, 1), model(neuron, 2));
        let mut tensors = named(&source, "");
        let mut biases = Tensors::new();
        for [weight, mean] in source.normalised() {
            let bias = weight.replace(".weight", ".bias");
            let at = tensors.iter().position(|(name, _)| name == mean).unwrap();
            let means = tensors[at].1.to_vec::<f32>().unwrap();
            // Sums of these and the statistics are exact.
            let values: Vec<f32> = (0..means.len()).map(|k| (k % 5) as f32 / 4.0 - 0.5).collect();
            let shifted = means.iter().zip(&values).map(|(mean, bias)| mean + bias).collect();
            tensors[at].1 = Tensor::from_vec([means.len()], shifted).unwrap();
            if !biases.iter().any(|(name, _)| *name == bias) {
                biases.push((bias, Tensor::from_vec([means.len()], values).unwrap()));
            }
        }
        let count = biases.len();
        tensors.extend(biases);
        let all = imported(&tensors, &target, &ImportOptions::default()).unwrap();
        assert_eq!((all.report.absorbed.len(), all.report.dropped.len()), (count, 0), "{neuron}");
        assert!(count > 5 && all.report.absorbed.iter().all(|bias| bias.largest == 0.5));
        assert_eq!(digest(&all.parameters), digest(source.parameters()), "{neuron}");
        *target.parameters_mut() = all.parameters;
        assert_eq!(logits(&target), logits(&source));
    }
}

#[test]
fn what_is_missing_misshapen_not_finite_or_lost_is_an_error() {
    let (source, target) = (model(NeuronName::Ours, 1), model(NeuronName::Ours, 2));
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = named(&source, "");
        change(&mut tensors);
        imported(&tensors, &target, &ImportOptions::default()).unwrap_err()
    };
    let set = |tensors: &mut Tensors, name: &str, value: Tensor| {
        tensors.iter_mut().find(|(n, _)| n == name).unwrap().1 = value;
    };
    let missing = refused(&|tensors| tensors.retain(|(name, _)| name != "conv1.weight"));
    assert!(missing.contains("conv1.weight [4, 3, 3, 3]") && missing.contains("no others"), "{missing}");
    let shape = refused(&|tensors| set(tensors, "fc.bias", Tensor::full([11], 0.0f32).unwrap()));
    assert!(shape.contains("fc.bias is [10] in the model and [11] in the file"), "{shape}");
    let kind = refused(&|tensors| set(tensors, "fc.bias", Tensor::full([10], 0i64).unwrap()));
    assert!(kind.contains("`fc.bias` has elements of type i64, not f32"), "{kind}");
    let nan = refused(&|tensors| set(tensors, "fc.bias", Tensor::full([10], f32::NAN).unwrap()));
    assert!(nan.contains("`fc.bias` holds values that are not finite"), "{nan}");
    for value in [0.25f32, f32::NAN] {
        let lost = refused(&|tensors| tensors.push(("fc2.weight".into(), Tensor::full([2, 2], value).unwrap())));
        assert!(lost.contains("`fc2.weight`") && lost.contains("--allow-dropped"), "{lost}");
    }

    let mut more = named(&source, "");
    more.push(("fc2.weight".into(), Tensor::full([2, 2], -0.25f32).unwrap()));
    more.push(("fc3.weight".into(), Tensor::full([2], 9e-6f32).unwrap()));
    more.retain(|(name, _)| !name.ends_with("num_batches_tracked"));
    let options = ImportOptions { allow_dropped: true, ..ImportOptions::default() };
    let all = imported(&more, &target, &options).unwrap();
    let dropped: Vec<_> = all.report.dropped.iter().map(|tensor| (tensor.name.as_str(), tensor.largest)).collect();
    assert_eq!(dropped, [("fc2.weight", 0.25), ("fc3.weight", f64::from(9e-6f32))]);
    assert!(!all.report.initial.is_empty() && all.report.initial.iter().all(|n| n.ends_with("num_batches_tracked")));
    more.retain(|(name, _)| name != "fc2.weight");
    assert!(imported(&more, &target, &ImportOptions::default()).is_ok(), "what is negligible needs no consent");
}
