//! The auto-builder's parts: tables against published ones, masks, importance, reduction.

use qzoo::autobuild::{
    Blueprint, Budget, Change, Images, Mask, Plan, Rules, Share, Size, importance, parts, reduce, shares,
};
use qzoo::experiment::{self, Experiment, Masking, ModelName, NeuronName, Override, ReductionName};
use qzoo::models::Model;
use qzoo::nn::Parameters;
use qzoo::train::Score;

const CIFAR: Images = Images { shape: [3, 32, 32], classes: 10 };

fn config(name: ModelName, width: f64) -> experiment::Model {
    experiment::Model { name, width, neuron: NeuronName::Ours, ..experiment::Model::default() }
}

fn build(config: &experiment::Model) -> Model {
    Model::build(config, CIFAR.shape, CIFAR.classes, 1).unwrap()
}

/// QVGG-13 of Xu et al. (2022): 44 182 986 parameters, 939.595 million multiplications. P_M counts the filters, biases and inner normalisations of a layer.
#[test]
fn shares_of_qvgg13_are_the_published_ones() {
    let model = build(&config(ModelName::Vgg16, 1.0));
    assert_eq!(model.parameters().count(), 44_182_986);
    let macs = model.summary().unwrap().iter().map(|row| row.macs).sum::<u64>();
    assert_eq!(format!("{:.3}", macs as f64 / 1e6), "939.595");
    let expected = [
        ("0", "0.00013", "0.00565", "7.365e-7"),
        ("3", "0.00252", "0.12053", "3.033e-4"),
        ("7", "0.00503", "0.06026", "3.033e-4"),
        ("10", "0.01004", "0.12053", "1.210e-3"),
        ("14", "0.02008", "0.06026", "1.210e-3"),
        ("17", "0.04010", "0.12053", "4.833e-3"),
        ("20", "0.04010", "0.12053", "4.833e-3"),
        ("24", "0.08020", "0.06026", "4.833e-3"),
        ("27", "0.16030", "0.12053", "1.932e-2"),
        ("30", "0.16030", "0.12053", "1.932e-2"),
        ("34", "0.16030", "0.03013", "4.830e-3"),
        ("37", "0.16030", "0.03013", "4.830e-3"),
        ("40", "0.16030", "0.03013", "4.830e-3"),
    ];
    let found = shares(&model, &parts(&model)).unwrap();
    assert_eq!(found.len(), expected.len());
    for (share, (name, p_m, p_w, product)) in found.iter().zip(expected) {
        assert_eq!(share.name, format!("features.{name}"));
        assert_eq!([format!("{:.5}", share.parameter_share), format!("{:.5}", share.mac_share)], [p_m, p_w], "{name}");
        assert_eq!(format!("{:.3e}", share.parameter_share * share.mac_share), product, "{name}");
    }
}

fn values(parameters: &Parameters, name: &str) -> Vec<f32> {
    parameters.get(name).unwrap_or_else(|| panic!("no {name}")).to_vec().unwrap()
}

/// Rows of zeros along the first axis.
fn zero_rows(values: &[f32], rows: usize) -> Vec<usize> {
    let row = values.len() / rows;
    (0..rows).filter(|r| values[r * row..(r + 1) * row].iter().all(|v| *v == 0.0)).collect()
}

fn mask(masking: Masking, ratio: f64, draw: u32) -> Mask {
    Mask { masking, ratio, seed: 7, draw }
}

/// Everything but the layer below `prefix` keeps its bits, running statistics included.
fn assert_untouched(before: &Parameters, after: &Parameters, prefixes: &[&str]) {
    for ((name, old), (_, new)) in before.named().zip(after.named()) {
        if old.dtype().is_float() && !prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            assert_eq!(old.to_vec::<f32>().unwrap(), new.to_vec::<f32>().unwrap(), "{name}");
        }
    }
}

#[test]
fn structured_masks_silence_the_same_channels_of_every_projection() {
    let model = build(&config(ModelName::Vgg16, 0.25));
    let part = &parts(&model)[4];
    assert_eq!((part.name.as_str(), part.units.len()), ("features.14", 1));
    let channels = 64;
    for (ratio, expected) in [(0.5, 32), (0.3, 19), (1.0, 64), (0.001, 0)] {
        let masked = mask(Masking::Structured, ratio, 0).apply(model.parameters(), part).unwrap();
        let silent = zero_rows(&values(&masked, "features.14.conv1.weight"), channels);
        assert_eq!(silent.len(), expected, "{ratio}");
        for i in 1..=3 {
            assert_eq!(zero_rows(&values(&masked, &format!("features.14.conv{i}.weight")), channels), silent);
            // Scales begin at 1, so zeros are those of the mask; shifts and biases begin at 0.
            assert_eq!(zero_rows(&values(&masked, &format!("features.14.bn{i}.weight")), channels), silent);
            let (before, after) = (
                values(model.parameters(), &format!("features.14.conv{i}.weight")),
                values(&masked, &format!("features.14.conv{i}.weight")),
            );
            let row = before.len() / channels;
            for (place, (old, new)) in before.iter().zip(&after).enumerate() {
                let kept = !silent.contains(&(place / row));
                assert!(!kept || old.to_bits() == new.to_bits(), "what is left is not rescaled");
            }
        }
        assert_untouched(model.parameters(), &masked, &["features.14."]);
    }
}

#[test]
fn unstructured_masks_take_single_weights_of_every_matrix() {
    let model = build(&config(ModelName::Vgg7, 0.125));
    let part = &parts(&model)[2];
    let masked = mask(Masking::Unstructured, 0.3, 0).apply(model.parameters(), part).unwrap();
    let mut places = Vec::new();
    for i in 1..=3 {
        let name = format!("{}.conv{i}.weight", part.name);
        let (before, after) = (values(model.parameters(), &name), values(&masked, &name));
        let zero: Vec<usize> = (0..after.len()).filter(|p| after[*p] == 0.0).collect();
        assert_eq!(zero.len(), (0.3 * before.len() as f64).round() as usize);
        assert!(before.iter().zip(&after).all(|(old, new)| *new == 0.0 || old.to_bits() == new.to_bits()));
        for other in [format!("{}.conv{i}.bias", part.name), format!("{}.bn{i}.weight", part.name)] {
            assert_eq!(values(model.parameters(), &other), values(&masked, &other), "{other}");
        }
        places.push(zero);
    }
    assert!(places[0] != places[1] && places[1] != places[2], "each matrix has its own draw");
    let prefix = format!("{}.conv", part.name);
    assert_untouched(model.parameters(), &masked, &[&prefix]);
}

#[test]
fn draws_repeat_and_differ() {
    let model = build(&config(ModelName::Vgg7, 0.25));
    let part = &parts(&model)[1];
    for masking in [Masking::Structured, Masking::Unstructured] {
        let name = format!("{}.conv1.weight", part.name);
        let draw = |mask: Mask| values(&mask.apply(model.parameters(), part).unwrap(), &name);
        let first = draw(mask(masking, 0.5, 0));
        assert_eq!(first, draw(mask(masking, 0.5, 0)));
        assert_ne!(first, draw(mask(masking, 0.5, 1)));
        assert_ne!(first, draw(Mask { seed: 8, ..mask(masking, 0.5, 0) }));
    }
}

#[test]
fn blocks_are_masked_in_their_main_branch() {
    let model = build(&config(ModelName::ResNet14, 1.0));
    let all = parts(&model);
    let names: Vec<&str> = all.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"]);
    let masked = mask(Masking::Structured, 0.5, 0).apply(model.parameters(), &all[2]).unwrap();
    for conv in ["conv1", "conv2"] {
        let weights = values(&masked, &format!("layer2.0.{conv}.conv1.weight"));
        assert_eq!(zero_rows(&weights, 32).len(), 16);
    }
    assert_untouched(model.parameters(), &masked, &["layer2.0.conv1.", "layer2.0.conv2."]);
    assert!(model.parameters().get("layer2.0.shortcut.0.weight").is_some(), "and the shortcut is among the others");
}

#[test]
fn importance_follows_its_formula_and_counts_no_drop_as_half_an_image() {
    let share = Share { parameter_share: 0.2, mac_share: 0.1, ..Share::default() };
    let score = |correct| Score { correct, images: 200 };
    let one = importance(share.clone(), score(180), &[score(160), score(150), score(170)]);
    // Drops 0.1, 0.15, 0.05: mean 0.1, deviation 0.05.
    assert!((one.mean_drop - 0.1).abs() < 1e-12 && (one.drop_deviation.unwrap() - 0.05).abs() < 1e-12);
    for (found, expected) in [(one.importance, 0.2), (one.lowest, 0.02 / 0.15), (one.highest, 0.4)] {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }
    assert!(!one.below_resolution);
    // A mask that helps: half of one in 200 images counts.
    let none = importance(share.clone(), score(180), &[score(190), score(180)]);
    assert!(none.below_resolution && none.mean_drop < 0.0);
    let all = [none.importance, none.lowest, none.highest];
    assert!(all.iter().all(|found| (found - 0.02 / 0.0025).abs() < 1e-12), "{all:?}");
    let mixed = importance(share.clone(), score(180), &[score(190), score(160)]);
    assert!((mixed.importance - 0.02 / 0.025).abs() < 1e-12 && (mixed.highest - 8.0).abs() < 1e-12);
    assert_eq!(importance(share, score(180), &[score(170)]).drop_deviation, None);
}

/// What a model of that blueprint costs.
fn size(model: &experiment::Model) -> impl Fn(&Blueprint) -> qzoo::Result<Size> {
    let model = model.clone();
    move |blueprint| {
        let mut model = model.clone();
        blueprint.write(&mut model);
        let rows = build(&model).summary()?;
        let parameters = rows.iter().map(|row| row.parameters as u64).sum();
        Ok(Size { parameters, macs: rows.iter().map(|row| row.macs).sum() })
    }
}

fn scored(scores: &[f64]) -> Vec<(String, f64)> {
    scores.iter().enumerate().map(|(i, score)| (format!("l{i}"), *score)).collect()
}

fn rules(how: ReductionName, budget: Budget) -> Rules {
    Rules { how, shrink: 0.5, budget, most: usize::MAX }
}

#[test]
fn removal_leaves_one_convolution_a_group_and_goes_by_importance() {
    let model = config(ModelName::Vgg16, 0.0625);
    let blueprint = Blueprint::of(&model).unwrap();
    assert_eq!(blueprint.to_string(), "4 4 pool 8 8 pool 16 16 16 pool 32 32 32 pool 32 32 32 pool");
    let scores: Vec<f64> = (0..13).map(f64::from).collect();
    let size = size(&model);
    let full = size(&blueprint).unwrap();
    let budget = Budget { parameters: Some(full.parameters * 2 / 5), macs: None };
    let reduced = reduce(&blueprint, &scored(&scores), &rules(ReductionName::Remove, budget), &size).unwrap();
    assert!(budget.holds(reduced.size) && reduced.size == size(&reduced.blueprint).unwrap());
    let names: Vec<String> = reduced.changes.iter().map(ToString::to_string).collect();
    assert_eq!(names[..3], ["l12 removed", "l11 removed", "l9 removed"], "the last of a group stays");
    let fewer = Rules { most: names.len() - 1, ..rules(ReductionName::Remove, budget) };
    let before = reduce(&blueprint, &scored(&scores), &fewer, &size).unwrap();
    assert!(!budget.holds(before.size), "no more changes than needed");
    let nothing = Budget { parameters: Some(1), macs: None };
    let least = reduce(&blueprint, &scored(&scores), &rules(ReductionName::Remove, nothing), &size).unwrap();
    assert_eq!(least.blueprint.to_string(), "4 pool 8 pool 16 pool 32 pool 32 pool");
    assert!(!nothing.holds(least.size));
}

#[test]
fn the_width_that_a_group_hands_on_stays() {
    let layers = "model={ name = \"vgg11\", layers = [8, 16, \"pool\", 16, 16, 4] }";
    let base = "name = \"t\"\n[data]\ndataset = \"shapes\"\n[model]\nname = \"mlp\"\n[optim]\nname = \"sgd\"\n";
    let model = Experiment::parse("t.toml", base, &[Override::set(layers)]).unwrap().model;
    let blueprint = Blueprint::of(&model).unwrap();
    let can: Vec<bool> = (0..5).map(|part| blueprint.without(part).is_some()).collect();
    assert_eq!(can, [true, false, true, true, false]);
    let mut written = model.clone();
    blueprint.without(3).unwrap().write(&mut written);
    assert_eq!(Blueprint::of(&written).unwrap().to_string(), "8 16 pool 16 4");
}

#[test]
fn shrinking_halves_the_least_needed_layers() {
    let model = config(ModelName::Vgg7, 0.125);
    let blueprint = Blueprint::of(&model).unwrap();
    let size = size(&model);
    let full = size(&blueprint).unwrap();
    let budget = Budget { parameters: None, macs: Some(full.macs / 2) };
    let scores = [1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 3.0];
    let reduced = reduce(&blueprint, &scored(&scores), &rules(ReductionName::Shrink, budget), &size).unwrap();
    assert!(budget.holds(reduced.size));
    // 9 becomes 9/4 after the first change, so that 3 is next.
    let (l2, l6) = (
        Change::Shrunk { layer: "l2".into(), from: 16, to: 8 },
        Change::Shrunk { layer: "l6".into(), from: 64, to: 32 },
    );
    assert_eq!(reduced.changes[..2], [l2, l6]);
    let tight = Budget { parameters: Some(1), macs: None };
    let both = reduce(&blueprint, &scored(&scores), &rules(ReductionName::RemoveThenShrink, tight), &size).unwrap();
    assert_eq!(both.blueprint.to_string(), "1 pool 1 pool 1 pool 1 pool 1 pool");
    let removed = |change: &Change| matches!(change, Change::Removed { .. });
    assert_eq!(both.changes.iter().filter(|c| removed(c)).count(), 2);
    assert!(both.changes[..2].iter().all(removed), "layers go before others shrink");
}

#[test]
fn blocks_of_a_stage_can_go_but_not_its_first() {
    let model = config(ModelName::ResNet20, 0.25);
    let blueprint = Blueprint::of(&model).unwrap();
    let size = size(&model);
    let budget = Budget { parameters: Some(1), macs: None };
    let least = reduce(&blueprint, &scored(&[1.0; 9]), &rules(ReductionName::Remove, budget), &size).unwrap();
    assert_eq!((least.blueprint.to_string().as_str(), least.changes.len()), ("1-1-1 blocks", 6));
    let error = reduce(&blueprint, &scored(&[1.0; 9]), &rules(ReductionName::Shrink, budget), &size).unwrap_err();
    assert!(error.to_string().contains("VGG"), "{error}");
}

fn plan(sets: &[&str]) -> Result<Plan, String> {
    let base = "name = \"t\"\n[data]\ndataset = \"shapes\"\n[model]\nname = \"vgg7\"\nwidth = 0.125\n[optim]\nname = \"sgd\"\n[schedule]\nname = \"cosine\"\nwarmup_epochs = 2.0\n";
    let sets: Vec<Override> = sets.iter().map(|set| Override::set(set)).collect();
    let experiment = Experiment::parse("t.toml", base, &sets).unwrap_or_else(|e| panic!("{e}"));
    Plan::new(&experiment, CIFAR).map_err(|error| {
        assert_eq!(error.class(), qzoo::Class::Config);
        error.to_string()
    })
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_trained() {
    let refused = |sets: &[&str], words: &[&str]| {
        let error = plan(sets).err().unwrap_or_else(|| panic!("{sets:?} was accepted"));
        words.iter().for_each(|word| assert!(error.contains(word), "{sets:?}: {error}"));
    };
    refused(&[], &["[autobuild]", "--set"]);
    refused(&["autobuild.max_macs=0.5", "model={ name = \"mlp\" }"], &["mlp", "vgg16", "resnet50"]);
    refused(&["autobuild.max_macs=0.5", "model.neuron=type4"], &["type4", "ours"]);
    refused(&["autobuild.max_parameters=0.05"], &["at best", "remove"]);
    refused(&["autobuild.max_macs=0.6", "autobuild.reduced_epochs=1"], &["round 1", "warmup_epochs"]);
    refused(
        &["autobuild={ max_macs = 0.9, reduce = \"shrink\" }", "model={ name = \"resnet20\" }"],
        &["VGG", "blocks"],
    );
}

#[test]
fn limits_are_shares_or_numbers() {
    let full = plan(&["autobuild.max_drop=1"]).unwrap().full();
    let shares = plan(&["autobuild.max_parameters=0.98", "autobuild.max_macs=0.8"]).unwrap();
    assert_eq!(shares.budget().parameters, Some((0.98 * full.parameters as f64) as u64));
    assert_eq!(shares.budget().macs, Some((0.8 * full.macs as f64) as u64));
    assert!(shares.budget().holds(shares.smallest()) && !shares.budget().holds(full));
    let number = format!("autobuild.max_parameters={}", full.parameters - 1);
    assert_eq!(plan(&[&number]).unwrap().budget().parameters, Some(full.parameters - 1));
}
