//! Counts, orders and phases of pruning, against their definitions.

use super::*;
use crate::experiment::{AcDc, Gmp, Model as ModelConfig, ModelName, NeuronName, Sparse, SparseScope, SparsifierName};
use crate::models::Model;
use crate::nn::Parameters;
use qtensor::Tensor;

fn mlp(widths: &[usize]) -> Model {
    let config = ModelConfig { name: ModelName::Mlp, widths: widths.to_vec(), ..ModelConfig::default() };
    Model::build(&config, [1, 5, 5], 7, 11).unwrap()
}

/// All layers, at that sparsity.
fn all_at(sparsity: f64) -> Sparse {
    Sparse { sparsity, skip: Some(Vec::new()), ..Sparse::default() }
}

fn draw(model: &Model, settings: &Sparse) -> Masks {
    Sparsifier::new(model, settings, 3).unwrap().draw(model.parameters(), 0.0).unwrap()
}

fn values(parameters: &Parameters, position: usize) -> Vec<f32> {
    parameters.parameters()[position].value.to_vec().unwrap()
}

/// Whether each weight is kept, row-major.
fn flags(masks: &Masks, position: usize) -> Vec<bool> {
    let pattern = masks.pattern(position).unwrap();
    let ones = Tensor::full([pattern.len()], 1.0f32).unwrap();
    pattern.to_dense(&ones).unwrap().to_vec::<f32>().unwrap().into_iter().map(|w| w != 0.0).collect()
}

/// Magnitudes of the weights that go and of those that stay.
fn split(weights: &[f32], kept: &[bool]) -> (Vec<f32>, Vec<f32>) {
    let (stay, go): (Vec<_>, Vec<_>) = weights.iter().zip(kept).partition(|(_, kept)| **kept);
    let magnitudes = |list: Vec<(&f32, &bool)>| list.into_iter().map(|(w, _)| w.abs()).collect();
    (magnitudes(go), magnitudes(stay))
}

#[test]
fn a_uniform_scope_has_exact_counts_and_takes_the_smallest() {
    let model = mlp(&[30, 17]);
    for sparsity in [0.0, 0.1, 0.5, 0.77, 0.9] {
        let masks = draw(&model, &all_at(sparsity));
        let layers = layers(&model, &all_at(sparsity)).unwrap();
        assert_eq!(layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["fc1", "fc2", "fc3"]);
        for layer in layers {
            let kept = flags(&masks, layer.position);
            let zeros = kept.iter().filter(|kept| !**kept).count();
            assert_eq!(zeros, (sparsity * layer.weights() as f64).round() as usize, "{}", layer.name);
            let weights = values(model.parameters(), layer.position);
            let (go, stay) = split(&weights, &kept);
            let largest = go.iter().copied().fold(0.0, f32::max);
            let row = layer.shape[1];
            for (weights, kept) in weights.chunks(row).zip(kept.chunks(row)) {
                let of_row = weights.iter().map(|w| w.abs()).fold(0.0, f32::max);
                let fits = |w: f32| w >= largest || w == of_row;
                assert!(weights.iter().zip(kept).all(|(w, kept)| !kept || fits(w.abs())), "{}", layer.name);
            }
            assert!(sparsity > 0.8 || stay.iter().all(|w| *w >= largest), "no output would be empty");
        }
    }
}

#[test]
fn a_global_scope_compares_all_layers() {
    let mut model = mlp(&[40, 40]);
    let all: Vec<_> = layers(&model, &all_at(0.5)).unwrap();
    // The second layer's weights are far smaller than those of the others.
    let small = model.parameters_mut().parameter_mut(all[1].position);
    small.memory_mut::<f32>().unwrap().iter_mut().for_each(|w| *w *= 0.05);
    let settings = Sparse { scope: SparseScope::Global, ..all_at(0.6) };
    let masks = draw(&model, &settings);
    let total: usize = all.iter().map(PrunableLayer::weights).sum();
    let left: usize = masks.patterns().map(|(_, pattern)| pattern.len()).sum();
    assert_eq!(total - left, (0.6 * total as f64).round() as usize);
    assert!((masks.sparsity() - 0.6).abs() < 1.0 / total as f64);
    let table = masks.table(model.parameters());
    assert_eq!(table[1].nonzeros, 40, "one weight for each output, protected from the comparison");
    assert_eq!((table[1].name.as_str(), table[1].shape.as_slice()), ("fc2", [40, 40].as_slice()));
    assert!((table[1].sparsity - 0.975).abs() < 1e-12);
    let (mut go, mut stay) = (Vec::new(), Vec::new());
    for layer in [&all[0], &all[2]] {
        let (g, s) = split(&values(model.parameters(), layer.position), &flags(&masks, layer.position));
        go.extend(g);
        stay.extend(s);
    }
    let largest = go.iter().copied().fold(0.0, f32::max);
    assert!(stay.iter().all(|w| *w >= largest), "one threshold for all layers");
}

#[test]
fn layers_have_shares_of_their_own_whatever_the_scope() {
    let model = mlp(&[30, 17]);
    for scope in [SparseScope::Uniform, SparseScope::Global] {
        let layers = [("fc*".to_string(), 0.5), ("fc2".to_string(), 0.8)].into();
        let masks = draw(&model, &Sparse { scope, layers, ..all_at(0.9) });
        let table = masks.table(model.parameters());
        for (row, share) in table.iter().zip([0.5, 0.8, 0.5]) {
            let weights = row.shape.iter().product::<usize>();
            assert_eq!(weights - row.nonzeros as usize, (share * weights as f64).round() as usize, "{row:?}");
        }
    }
}

#[test]
fn every_output_keeps_a_weight() {
    let model = mlp(&[30, 17]);
    for scope in [SparseScope::Uniform, SparseScope::Global] {
        for method in [SparsifierName::Magnitude, SparsifierName::Random] {
            let masks = draw(&model, &Sparse { scope, method, ..all_at(0.999) });
            for (_, pattern) in masks.patterns() {
                assert_eq!(pattern.len(), pattern.rows());
                assert!((0..pattern.rows()).all(|row| pattern.row(row).len() == 1));
            }
        }
    }
    let weights = values(model.parameters(), 0);
    let masks = draw(&model, &all_at(0.999));
    let kept = flags(&masks, 0);
    for (row, kept) in weights.chunks(25).zip(kept.chunks(25)) {
        let largest = row.iter().map(|w| w.abs()).fold(0.0, f32::max);
        assert!(row.iter().zip(kept).all(|(w, kept)| *kept == (w.abs() == largest)), "it is the largest");
    }
}

#[test]
fn of_equal_weights_those_at_the_front_stay() {
    let mut model = mlp(&[4]);
    let ones = Tensor::full([4, 25], -1.0f32).unwrap();
    model.parameters_mut().set("fc1.weight", &ones).unwrap();
    let kept = flags(&draw(&model, &all_at(0.5)), 0);
    // 50 stay: the first of each row, then from the front.
    let expected: Vec<bool> = (0..100).map(|place| place < 48 || place == 50 || place == 75).collect();
    assert_eq!(kept, expected);
}

#[test]
fn n_of_m_holds_in_every_group() {
    let model = mlp(&[30, 17]);
    for [n, m] in [[2, 4], [1, 4], [3, 5], [1, 2], [1, 16]] {
        let masks = draw(&model, &Sparse { n_of_m: Some([n, m]), ..all_at(0.3) });
        for (position, pattern) in masks.patterns() {
            let row = pattern.shape()[1];
            let (weights, kept) = (values(model.parameters(), position), flags(&masks, position));
            for (weights, kept) in weights.chunks(row).zip(kept.chunks(row)) {
                for (weights, kept) in weights.chunks(m).zip(kept.chunks(m)) {
                    let (go, stay) = split(weights, kept);
                    assert_eq!(stay.len(), n.min(weights.len()));
                    let largest = go.iter().copied().fold(0.0, f32::max);
                    assert!(stay.iter().all(|w| *w >= largest));
                }
            }
        }
    }
}

#[test]
fn random_masks_follow_the_seed_and_not_the_weights() {
    let (model, mut other) = (mlp(&[30, 17]), mlp(&[30, 17]));
    let weights = other.parameters_mut().parameter_mut(0);
    weights.memory_mut::<f32>().unwrap().iter_mut().for_each(|w| *w = 1.0 - *w);
    let settings = Sparse { method: SparsifierName::Random, ..all_at(0.5) };
    let drawn = |model: &Model, seed| {
        let masks = Sparsifier::new(model, &settings, seed).unwrap().draw(model.parameters(), 0.0).unwrap();
        (flags(&masks, 0), masks.sparsity())
    };
    assert_eq!(drawn(&model, 1), drawn(&other, 1));
    assert_ne!(drawn(&model, 1).0, drawn(&model, 2).0);
    assert!((drawn(&model, 1).1 - 0.5).abs() < 2e-3);
    let magnitude = flags(&draw(&model, &all_at(0.5)), 0);
    assert_ne!(drawn(&model, 3).0, magnitude);
}

#[test]
fn the_ends_of_the_network_stay_dense_by_default() {
    let model = mlp(&[30, 17, 9]);
    let names = |settings: &Sparse| -> Vec<String> {
        layers(&model, settings).unwrap().into_iter().map(|layer| layer.name).collect()
    };
    assert_eq!(names(&Sparse::default()), ["fc2", "fc3"]);
    assert_eq!(names(&Sparse { skip: Some(vec!["fc3".into()]), ..Sparse::default() }), ["fc1", "fc2", "fc4"]);
    let wrong = Sparse { skip: Some(vec!["conv".into()]), ..Sparse::default() };
    assert!(layers(&model, &wrong).unwrap_err().to_string().contains("no layer matches conv; the layers are fc1, fc2"));
    let wrong = Sparse { layers: [("x*".to_string(), 0.5)].into(), ..Sparse::default() };
    assert!(layers(&model, &wrong).unwrap_err().to_string().contains("no layer matches x*"));
    let error = layers(&mlp(&[30]), &Sparse::default()).unwrap_err().to_string();
    assert!(error.contains("leaves no layer to prune") && error.contains("skip = []"), "{error}");
}

#[test]
fn every_matrix_of_a_quadratic_neuron_is_pruned() {
    for (neuron, each) in [(NeuronName::Ours, 3), (NeuronName::Type2And4Shared, 2), (NeuronName::Type1, 2)] {
        let config = ModelConfig { name: ModelName::Mlp, widths: vec![6, 5], neuron, ..ModelConfig::default() };
        let mut model = Model::build(&config, [1, 4, 4], 3, 0).unwrap();
        let settings = all_at(0.75);
        let masks = prune(&mut model, &settings, 0).unwrap();
        let found = layers(&model, &settings).unwrap();
        assert_eq!(found.len(), 2 * each + 1, "{neuron}: {found:?}");
        for layer in &found {
            let parameter = &model.parameters().parameters()[layer.position];
            assert!(parameter.kind.is_weight() && parameter.name == format!("{}.weight", layer.name));
            let weights = values(model.parameters(), layer.position);
            let zeros = weights.iter().filter(|w| **w == 0.0).count();
            assert_eq!(zeros, (0.75 * weights.len() as f64).round() as usize);
            assert_eq!(weights.len() - zeros, masks.pattern(layer.position).unwrap().len());
        }
        let others = model.parameters().parameters().iter().enumerate().filter(|(i, _)| masks.pattern(*i).is_none());
        assert!(others.clone().count() > 0 && others.into_iter().all(|(_, p)| !p.kind.is_weight()));
    }
}

#[test]
fn weights_without_a_size_are_named() {
    let mut model = mlp(&[30, 17]);
    model.parameters_mut().parameter_mut(0).memory_mut::<f32>().unwrap()[3] = f32::NAN;
    let error = prune(&mut model, &all_at(0.5), 0).unwrap_err().to_string();
    assert_eq!(error, "weight 3 of fc1 is NaN: it cannot be pruned by its size");
}

#[test]
fn masks_go_by_any_memory_order_and_through_a_checkpoint() {
    let config = ModelConfig { name: ModelName::SmallCnn, ..ModelConfig::default() };
    let model = Model::build(&config, [3, 12, 12], 4, 1).unwrap();
    let mut masks = draw(&model, &all_at(0.8));
    let position = masks.patterns().map(|(position, _)| position).nth(1).unwrap();
    let value = &model.parameters().parameters()[position].value;
    assert_eq!(value.rank(), 4);
    let (mut last, mut first) = (value.to_channels_last(), value.contiguous());
    masks.apply(position, &mut last).unwrap();
    masks.apply(position, &mut first).unwrap();
    assert_eq!(last.to_vec::<f32>().unwrap(), first.to_vec::<f32>().unwrap());
    let kept = flags(&masks, position);
    let expected: Vec<f32> =
        value.to_vec::<f32>().unwrap().iter().zip(&kept).map(|(w, kept)| if *kept { *w } else { 0.0 }).collect();
    assert_eq!(first.to_vec::<f32>().unwrap(), expected);
    assert!(masks.apply(position, &mut Tensor::full([3], 1.0f32).unwrap()).is_err());

    let saved = masks.export(model.parameters());
    let named = || saved.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let mut again = Masks::default();
    again.import(model.parameters(), named()).unwrap();
    assert_eq!(again.generation(), 1);
    assert!(again.patterns().eq(masks.patterns()));
    let before = (again.generation(), masks.pattern(position).unwrap().clone());
    let unknown = [("nowhere.weight", &saved[0].1)];
    assert!(again.import(model.parameters(), unknown).unwrap_err().to_string().contains("nowhere.weight"));
    let other = [(saved[0].0.as_str(), &saved[1].1)];
    assert!(again.import(model.parameters(), other).unwrap_err().to_string().contains(&saved[0].0));
    assert_eq!(
        (again.generation(), again.pattern(position).unwrap()),
        (before.0, &before.1),
        "mistakes change nothing"
    );

    // The same masks again are another generation with the same patterns in memory.
    let kept = masks.pattern(position).unwrap().clone();
    masks.replace(draw(&model, &all_at(0.8)));
    assert_eq!(masks.generation(), 1);
    assert!(std::sync::Arc::ptr_eq(&kept, masks.pattern(position).unwrap()));
}

#[test]
fn gradual_pruning_follows_the_cubic_formula() {
    let gmp = Gmp { start: 2, end: Some(12), every: 3, initial_sparsity: 0.1 };
    let settings = Sparse { method: SparsifierName::Gmp, sparsity: 0.9, gmp, ..Sparse::default() };
    let phases = Phases::new(&settings, 20);
    for epoch in 0..20u64 {
        let expected = match epoch {
            0 | 1 => 0.0,
            2..12 => {
                let t = ((epoch - 2) / 3 * 3) as f64;
                0.9 + (0.1 - 0.9) * (1.0 - t / 10.0).powi(3)
            }
            _ => 0.9,
        };
        assert!((phases.sparsity(epoch) - expected).abs() < 1e-12, "{epoch}: {}", phases.sparsity(epoch));
        let prunes = matches!(phases.change(epoch), Change::Prune { .. });
        assert_eq!(prunes, [2, 5, 8, 11, 12].contains(&epoch), "{epoch}");
        assert_eq!(phases.is_settled(epoch), epoch >= 12);
    }
    let model = mlp(&[30, 17]);
    let settings = Sparse { skip: Some(Vec::new()), ..settings };
    let mut pruner = Pruner::new(&model, &settings, 0, 20).unwrap();
    let mut parameters = model.parameters().clone();
    let mut before: Option<Masks> = None;
    for epoch in 0..20 {
        assert_eq!(pruner.begin_epoch(epoch, &mut parameters).unwrap(), phases.change(epoch) != Change::Keep);
        for row in pruner.masks().table(&parameters) {
            let weights = row.shape.iter().product::<usize>();
            let expected = (phases.sparsity(epoch) * weights as f64).round() as u64;
            assert_eq!(weights as u64 - row.nonzeros, expected, "{epoch}: {row:?}");
        }
        let now = pruner.masks().clone();
        for (position, _) in before.iter().flat_map(Masks::patterns) {
            let (then, now) = (flags(before.as_ref().unwrap(), position), flags(&now, position));
            assert!(then.iter().zip(&now).all(|(then, now)| *then || !now), "what is gone stays gone");
        }
        before = Some(now);
    }
}

#[test]
fn the_default_end_of_gradual_pruning_leaves_a_quarter_of_the_epochs() {
    let settings = Sparse { method: SparsifierName::Gmp, ..Sparse::default() };
    for (epochs, end) in [(1, 0), (4, 3), (10, 7), (100, 75)] {
        let phases = Phases::new(&settings, epochs);
        assert!(phases.is_settled(end) && (end == 0 || !phases.is_settled(end - 1)), "{epochs}");
        assert_eq!(phases.sparsity(end), 0.9);
    }
}

#[test]
fn alternating_phases() {
    let acdc = AcDc { warmup: 2, sparse: 3, dense: 1, finish: 4 };
    let settings = Sparse { method: SparsifierName::AcDc, acdc, ..all_at(0.5) };
    let phases = Phases::new(&settings, 15);
    let shown: String = (0..18).map(|epoch| if phases.sparsity(epoch) > 0.0 { 's' } else { 'd' }).collect();
    assert_eq!(shown, "ddsssdsssdssssssss");
    let changes: Vec<u64> = (0..18).filter(|epoch| phases.change(*epoch) != Change::Keep).collect();
    assert_eq!(changes, [2, 5, 6, 9, 10]);
    assert!(phases.is_settled(11) && !phases.is_settled(10));

    let model = mlp(&[30, 17]);
    let mut pruner = Pruner::new(&model, &settings, 0, 15).unwrap();
    let mut parameters = model.parameters().clone();
    for epoch in 0..15 {
        pruner.begin_epoch(epoch, &mut parameters).unwrap();
        assert_eq!(pruner.masks().is_empty(), phases.sparsity(epoch) == 0.0, "{epoch}");
        assert!((pruner.masks().sparsity() - phases.sparsity(epoch)).abs() < 2e-3);
    }
    assert_eq!(pruner.masks().generation(), 5);
}
