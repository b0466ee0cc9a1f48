//! Where pruned layers train on sparse kernels, and that they learn the same there.

use qgraph::ops::{SparseArithmetic, SparseInt8};
use qgraph::{Tape, Var};
use qtensor::Tensor;
use qzoo::experiment::{self, ModelName, NeuronName, Precision, Sparse};
use qzoo::models::Model;
use qzoo::nn::{Leaves, Phase, SparseLayers};
use qzoo::sparse::{Kernels, Masks, Swap, SwapOptions, SwapTable, images, prune, sites};

fn options(kernels: &[Kernels]) -> SwapOptions {
    let int8 = SparseArithmetic::Int8(SparseInt8::default());
    SwapOptions { threshold: 0.8, kernels: kernels.to_vec(), int8, precision: Precision::F32 }
}

fn pruned(config: &experiment::Model, sparsity: f64) -> (Model, Masks) {
    let mut model = Model::build(config, [3, 16, 16], 10, 3).unwrap();
    let settings = Sparse { sparsity, ..Sparse::default() };
    let masks = prune(&mut model, &settings, 0).unwrap();
    (model, masks)
}

fn decide(swap: &mut Swap, model: &Model, masks: &Masks) -> SwapTable {
    let images = images(model, 8).unwrap();
    swap.decide(model, &images, |position| masks.pattern(position).map(|pattern| &**pattern)).unwrap()
}

/// All layers that a table has measured on these kernels, whatever pays on this machine.
fn forced(model: &Model, masks: &Masks, kernels: Kernels) -> SparseLayers {
    let mut swap = Swap::new(options(&[kernels]));
    let mut table = decide(&mut swap, model, masks);
    for layer in table.layers.iter_mut().filter(|layer| !layer.timings.is_empty()) {
        layer.choice = kernels;
    }
    let images = images(model, 8).unwrap();
    swap.layers(&table, model, &images, |position| masks.pattern(position).map(|pattern| &**pattern)).unwrap()
}

/// Logits and the gradient of every parameter.
fn learn(model: &Model) -> (Tensor, Vec<Option<Tensor>>) {
    let mut tape = Tape::new();
    let leaves = Leaves::on(&mut tape, model.parameters());
    let images = Var::constant(images(model, 8).unwrap());
    let logits = model.forward(&mut tape, &leaves, &images, Phase::Train { seed: 0, step: 0 }).unwrap();
    let labels: Vec<i64> = (0..8).collect();
    let loss = tape.cross_entropy(&logits, &Tensor::from_vec([8], labels).unwrap(), 0.0).unwrap();
    let gradients = leaves.into_gradients(tape.backward(&loss).unwrap());
    (logits.into_value(), gradients)
}

fn error(exact: &Tensor, found: &Tensor) -> f64 {
    let (exact, found) = (exact.to_vec::<f32>().unwrap(), found.to_vec::<f32>().unwrap());
    let square: f64 = exact.iter().zip(&found).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = exact.iter().map(|a| f64::from(*a).powi(2)).sum();
    (square / norm.max(1e-30)).sqrt()
}

fn networks() -> Vec<experiment::Model> {
    let base = experiment::Model { width: 0.5, ..experiment::Model::default() };
    let of = |name, neuron| experiment::Model { name, neuron, branch_norm: true, ..base.clone() };
    vec![
        of(ModelName::ResNet10, NeuronName::Linear),
        of(ModelName::ResNet10, NeuronName::Ours),
        of(ModelName::ResNet10, NeuronName::Type2And4),
        experiment::Model {
            name: ModelName::Vgg11,
            layers: Some("8 p 16 p".split(' ').map(layer).collect()),
            ..base.clone()
        },
    ]
}

fn layer(word: &str) -> experiment::VggLayer {
    word.parse().map_or(experiment::VggLayer::Pool, experiment::VggLayer::Conv)
}

#[test]
fn networks_learn_the_same_on_sparse_kernels() {
    for config in networks() {
        let (mut model, masks) = pruned(&config, 0.85);
        let (logits, gradients) = learn(&model);
        for kernels in Kernels::ALL.into_iter().filter(|kernels| *kernels != Kernels::Dense) {
            let bounds = if kernels.is_f32() { [1e-4, 1e-3] } else { [0.2, 0.5] };
            let layers = forced(&model, &masks, kernels);
            let name = format!("{} {} {kernels}", config.name, config.neuron);
            assert_eq!(layers.len(), masks.patterns().count(), "{name}");
            model.set_sparse(layers);
            let (found, mut sparse) = learn(&model);
            assert!(error(&logits, &found) < bounds[0], "{name}: {}", error(&logits, &found));
            masks.mask_gradients(&mut sparse).unwrap();
            let mut dense = gradients.clone();
            masks.mask_gradients(&mut dense).unwrap();
            for (position, (dense, sparse)) in dense.iter().zip(&sparse).enumerate() {
                let (Some(dense), Some(sparse)) = (dense, sparse) else { continue };
                if masks.pattern(position).is_some() {
                    let error = error(dense, sparse);
                    assert!(error < bounds[1], "{name}: parameter {position}: {error}");
                }
            }
            // Answers are those of dense kernels to the bit, or, from sparse ones in f32, but for rounding.
            let answer = |model: &Model| model.infer(&images(model, 2).unwrap()).unwrap();
            let folded = |model: &Model| model.folded().unwrap().infer(&images(model, 2).unwrap()).unwrap();
            let swapped = answer(&model);
            let answers = model.sparse().iter().map(|(position, layer)| (*position, layer.in_f32())).collect();
            model.set_sparse_answers(answers);
            let sparse = [answer(&model), folded(&model)];
            model.set_sparse(SparseLayers::new());
            assert_eq!(answer(&model).to_vec::<f32>().unwrap(), swapped.to_vec::<f32>().unwrap());
            for (found, dense) in sparse.iter().zip([swapped, folded(&model)]) {
                let error = error(&dense, found);
                // Without trained statistics the second-order parts of a deep network vanish, and its logits are the same either way.
                let differs = error > 0.0 || config.neuron != NeuronName::Linear;
                assert!(differs && error < 1e-4, "{name}: {error}");
            }
        }
    }
}

#[test]
fn every_layer_has_a_row_that_says_why() {
    let config = experiment::Model { name: ModelName::ResNet10, ..experiment::Model::default() };
    let (model, masks) = pruned(&config, 0.9);
    let table = decide(&mut Swap::new(options(&[Kernels::F32, Kernels::Int8])), &model, &masks);
    assert_eq!(table.layers.len(), sites(&model, &images(&model, 8).unwrap()).unwrap().len());
    for layer in &table.layers {
        assert!(!layer.why.is_empty());
        let is_pruned = layer.sparsity > 0.0;
        assert!(if is_pruned { (3..=5).contains(&layer.timings.len()) } else { layer.timings.is_empty() }, "{layer:?}");
        assert!(layer.timings.iter().all(|timing| timing.within > 0.0 && timing.alone > 0.0));
        assert!(is_pruned || (layer.choice == Kernels::Dense && layer.why == "not pruned"));
        // A choice is faster between layers alike than dense kernels, or spares the layers beside it more than it loses.
        let time = |kernels| layer.timing(kernels).map(|timing| timing.within);
        if layer.choice != Kernels::Dense {
            let spares = layer.why.contains("saves its neighbours");
            assert!(spares || time(layer.choice) < time(Kernels::Dense), "{layer:?}");
        }
    }
    let text = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<SwapTable>(&text).unwrap(), table);
}

#[test]
fn layers_are_measured_in_the_numbers_of_the_training() {
    let config = experiment::Model { name: ModelName::ResNet10, width: 0.5, ..experiment::Model::default() };
    let (model, masks) = pruned(&config, 0.9);
    let half = SwapOptions { precision: Precision::Bf16, ..options(&[Kernels::F32, Kernels::Int8]) };
    let table = decide(&mut Swap::new(half), &model, &masks);
    assert_eq!(table.precision, Precision::Bf16);
    assert!(table.layers.iter().filter(|layer| layer.sparsity > 0.0).all(|layer| layer.timings.len() >= 3));
    // Tables of before there was a choice were of f32.
    let mut value = serde_json::to_value(&table).unwrap();
    value.as_object_mut().unwrap().remove("precision");
    assert_eq!(serde_json::from_value::<SwapTable>(value).unwrap().precision, Precision::F32);
}

#[test]
fn layers_with_too_many_weights_stay_dense() {
    let config = experiment::Model { name: ModelName::ResNet10, ..experiment::Model::default() };
    let (model, masks) = pruned(&config, 0.5);
    let table = decide(&mut Swap::new(options(&[Kernels::F32])), &model, &masks);
    assert!(!table.is_swapped() && table.layers.iter().all(|layer| layer.timings.is_empty()));
    assert!(table.layers[1].why.contains("threshold of 80 %"), "{}", table.layers[1].why);
    let (model, masks) = pruned(&config, 0.9);
    let table = decide(&mut Swap::new(options(&[])), &model, &masks);
    assert!(!table.is_swapped() && table.layers[1].why.contains("dense kernels"), "{}", table.layers[1].why);
}

#[test]
fn a_table_knows_its_network() {
    let config = experiment::Model { name: ModelName::ResNet10, ..experiment::Model::default() };
    let (model, masks) = pruned(&config, 0.9);
    let table = decide(&mut Swap::new(options(&[])), &model, &masks);
    let left = |masks: &Masks, name: &str| {
        let parameters = model.parameters().parameters();
        let position = parameters.iter().position(|p| p.name == format!("{name}.weight"))?;
        Some(masks.pattern(position).map_or(parameters[position].value.numel(), |pattern| pattern.len()))
    };
    assert!(table.fits(|name| left(&masks, name)));
    let (_, other) = pruned(&config, 0.8);
    assert!(!table.fits(|name| left(&other, name)));
}
