//! The experiments of the repository, the written form, and what mutated files do.

use std::path::{Path, PathBuf};

use qzoo::experiment::{
    ActivationName, Anneal, Arithmetic, BackwardMode, CropMode, Dataset, Entry, Experiment, InitName, Int8Gradients,
    Int8Range, Masking, ModelName, Named, NeuronName, OptimName, Override, Precision, QuadraticInit, ReductionName,
    Rule, ScheduleName, ScheduleUnit, Shape, SparseScope, SparsifierName, pattern,
};

fn experiments() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn again(experiment: &Experiment) -> Experiment {
    let text = experiment.to_toml().unwrap();
    Experiment::parse("written.toml", text.clone(), &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_experiment_of_the_repository_is_correct() {
    let files = experiments();
    assert!(files.len() >= 20);
    for path in files {
        let experiment = Experiment::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again(&experiment), experiment);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(experiment.name, stem.replace('_', "-"), "the name follows the file's");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# "), "{} says what it is", path.display());
    }
}

#[test]
fn the_short_resnet_recipe_is_the_documented_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/cifar_resnet_short.toml");
    let experiment = Experiment::load(path, &[]).unwrap();
    let Rule::Sgd(sgd) = &experiment.optim.rule else { panic!("{:?}", experiment.optim) };
    assert_eq!((experiment.optim.lr, sgd.momentum, sgd.nesterov), (0.1, 0.9, true));
    assert_eq!((experiment.optim.weight_decay, experiment.optim.decay_norms_and_biases), (5e-4, true));
    assert_eq!((experiment.train.epochs, experiment.train.batch_size), (10, 128));
    assert_eq!((experiment.data.augment.crop_padding, experiment.data.augment.flip), (4, true));
    assert!(matches!(&experiment.schedule.shape, Shape::Cosine(shape) if shape.final_lr == 0.0));
    assert_eq!(experiment.schedule.warmup_epochs, 1.0);
}

/// QuadraLib's recipe, whatever the network: the networks and the data sets that it is compared on differ in nothing else.
#[test]
fn the_full_recipes_differ_in_network_and_data_only() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let load = |name: &str| Experiment::load(folder.join(format!("{name}.toml")), &[]).unwrap();
    let model = load("cifar_resnet");
    assert_eq!((model.model.name, model.model.neuron), (ModelName::ResNet14, NeuronName::Ours));
    let vgg = load("tiny_imagenet_vgg");
    assert_eq!(
        (vgg.model.name, vgg.data.dataset, vgg.data.image_size),
        (ModelName::Vgg16, Dataset::TinyImagenet, Some(32))
    );
    for (name, epochs, final_lr) in [
        ("cifar_resnet", 200, 1e-4),
        ("cifar_resnet32", 200, 1e-4),
        ("cifar_vgg", 200, 1e-4),
        ("cifar_mobilenet", 250, 1e-5),
        ("cifar100_resnet", 200, 1e-4),
        ("cifar100_resnet32", 200, 1e-4),
        ("cifar100_vgg", 200, 1e-4),
        ("cifar100_mobilenet", 250, 1e-5),
        ("tiny_imagenet_vgg", 200, 1e-4),
    ] {
        let experiment = load(name);
        let Rule::Sgd(sgd) = &experiment.optim.rule else { panic!("{:?}", experiment.optim) };
        let sgd = (experiment.optim.lr, sgd.momentum, sgd.dampening, sgd.nesterov);
        assert_eq!(sgd, (0.1, 0.9, 0.0, false), "{name}");
        assert_eq!((experiment.optim.weight_decay, experiment.optim.decay_norms_and_biases), (5e-4, true), "{name}");
        let train = (experiment.train.epochs, experiment.train.batch_size, experiment.train.clip_norm);
        assert_eq!(train, (epochs, 256, 0.5), "{name}");
        assert_eq!((experiment.data.augment.crop_padding, experiment.data.augment.flip), (4, true), "{name}");
        assert!(matches!(&experiment.schedule.shape, Shape::Cosine(shape) if shape.final_lr == final_lr), "{name}");
        assert_eq!((experiment.schedule.unit, experiment.schedule.warmup_epochs), (ScheduleUnit::Epoch, 0.0), "{name}");
        if name.starts_with("cifar100") {
            let ten = load(&name.replace("100", ""));
            assert_eq!((experiment.data.dataset, &experiment.model), (Dataset::Cifar100, &ten.model), "{name}");
        }
        let short = load(&format!("{name}_short").replace("cifar_resnet_short", "cifar_qresnet_short"));
        assert_eq!((short.data.dataset, &short.model), (experiment.data.dataset, &experiment.model), "{name}");
        assert!((5..=10).contains(&short.train.epochs), "{name}");
    }
}

#[test]
fn the_written_form_reads_back_for_every_variant() {
    let base = "name = \"t\"\n[data]\ndataset = \"shapes\"\n[model]\nname = \"mlp\"\n[optim]\nname = \"sgd\"\n";
    let milestones = |name: &str| if name == "multi_step" { ", milestones = [2, 5]" } else { "" };
    let mut arguments: Vec<String> = Vec::new();
    arguments.extend(ModelName::NAMES.iter().map(|name| format!("model={{ name = \"{name}\", dropout = 0.25 }}")));
    arguments.extend(OptimName::NAMES.iter().map(|name| format!("optim={{ name = \"{name}\" }}")));
    arguments
        .extend(ScheduleName::NAMES.iter().map(|name| format!("schedule={{ name = \"{name}\"{} }}", milestones(name))));
    arguments.push("model.widths=[]".into());
    arguments.push("model={ name = \"vgg16\", width = 0.5, layers = [64, \"pool\", 7] }".into());
    arguments.push("model={ name = \"resnet50\", blocks = [1, 2, 3, 4] }".into());
    arguments.push("autobuild={ max_macs = 1000000000000, max_drop = 0, epochs = 3, reduce = \"shrink\" }".into());
    arguments
        .push("sparse={ method = \"acdc\", n_of_m = [1, 4], skip = [], acdc = { finish = 1, warmup = 0 } }".into());
    arguments
        .push("sparse={ layers = { \"a.*\" = 0.5, b = 0 }, scope = \"global\", int8 = { weights = \"mse\" } }".into());
    arguments.push("optim.lr=1e-300".into());
    arguments.push("data={ dataset = \"folder\", path = \"a \\\"b\\\" é\", image_size = 9 }".into());
    arguments.push("backward.layers={ \"a.*\" = \"symbolic\", b = \"recompute\" }".into());
    arguments.push("optim.groups=[{ pattern = \"a*\", lr = 0.0 }, { pattern = \"b\", weight_decay = 1 }]".into());
    arguments.push("backward={ mode = \"auto\", memory_budget = \"1.5GiB\" }".into());
    arguments
        .push("model={ name = \"mlp\", neurons = { fc1 = \"type1\" }, rank = 2, branch_activation = \"relu\" }".into());
    arguments.push(format!("seed={}", i64::MAX));
    for argument in arguments {
        let experiment = Experiment::parse("t.toml", base, &[Override::set(&argument)]);
        let experiment = experiment.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again(&experiment), experiment, "{argument}");
        // The state of a checkpoint is JSON: it takes the same type.
        let json = serde_json::to_value(&experiment).unwrap();
        assert_eq!(json["optim"]["name"], experiment.optim.rule.name().name());
    }
}

#[test]
fn names_lead_to_their_variants_and_back() {
    fn check<N: Named + PartialEq + std::fmt::Debug>(all: &[N]) {
        assert_eq!(all.len(), N::ENTRIES.len());
        for (one, entry) in all.iter().zip(N::ENTRIES) {
            assert_eq!((one.name(), N::from_name(entry.name)), (entry.name, Some(*one)));
            assert!(!entry.description.is_empty());
        }
        assert_eq!(N::from_name("nonsense"), None);
    }
    check(ModelName::ALL);
    check(OptimName::ALL);
    check(ScheduleName::ALL);
    check(ActivationName::ALL);
}

/// The reference names every value that can be chosen and every key that a written experiment has.
#[test]
fn the_reference_is_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/experiments.md");
    let reference = std::fs::read_to_string(path).unwrap();
    let entries: [&[Entry]; 20] = [
        Dataset::ENTRIES,
        CropMode::ENTRIES,
        ModelName::ENTRIES,
        NeuronName::ENTRIES,
        Precision::ENTRIES,
        ActivationName::ENTRIES,
        InitName::ENTRIES,
        QuadraticInit::ENTRIES,
        BackwardMode::ENTRIES,
        OptimName::ENTRIES,
        ScheduleName::ENTRIES,
        ScheduleUnit::ENTRIES,
        Anneal::ENTRIES,
        Masking::ENTRIES,
        ReductionName::ENTRIES,
        SparsifierName::ENTRIES,
        SparseScope::ENTRIES,
        Arithmetic::ENTRIES,
        Int8Range::ENTRIES,
        Int8Gradients::ENTRIES,
    ];
    for Entry { name, description } in entries.into_iter().flatten() {
        assert!(reference.contains(&format!("| `{name}` | {description} |")), "{name}: {description}");
    }
    let mut texts = Vec::new();
    for name in ModelName::NAMES {
        texts.push(format!("model={{ name = \"{name}\", dropout = 0.1 }}"));
    }
    for name in OptimName::NAMES {
        texts
            .push(format!("optim={{ name = \"{name}\", groups = [{{ pattern = \"a\", lr = 1, weight_decay = 1 }}] }}"));
    }
    for name in ScheduleName::NAMES {
        let more = if *name == "multi_step" { ", milestones = [1]" } else { "" };
        texts.push(format!("schedule={{ name = \"{name}\"{more} }}"));
    }
    texts.push("model={ name = \"vgg11\", layers = [1] }".into());
    texts.push("model={ name = \"resnet20\", blocks = [1, 1, 1] }".into());
    texts.push("sparse={ n_of_m = [2, 4], skip = [], gmp = { end = 1 } }".into());
    texts.push("autobuild={ max_parameters = 1, max_macs = 1, max_drop = 1, epochs = 1, reduced_epochs = 1 }".into());
    for text in texts {
        let written = Experiment::parse("rich.toml", RICH, &[Override::set(&text)]).unwrap().to_toml().unwrap();
        for key in written.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key) {
            // Quoted keys are patterns of layers, `b` among them.
            if !key.starts_with('"') && key != "b" {
                assert!(reference.contains(&format!("| `{key}` | ")), "{key}");
            }
        }
    }
}

#[test]
fn a_programmatic_experiment_is_validated() {
    let mut experiment = Experiment { name: "t".into(), ..Experiment::default() };
    assert_eq!(experiment.validate(), []);
    experiment.seed = u64::MAX;
    experiment.optim.groups = vec![Default::default()];
    let problems: Vec<String> = experiment.validate().iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].starts_with("seed: \"seed\" must be at most"), "{problems:?}");
    assert!(problems[1].starts_with("optim.groups[0].pattern: \"\" is no pattern"), "{problems:?}");
}

#[test]
fn patterns_match_whole_names() {
    for (text, name, expected) in [
        ("fc.*", "fc.weight", true),
        ("fc.*", "fc", false),
        ("fc*", "fc", true),
        ("*", "", true),
        ("*.bias", "layer1.0.conv1.bias", true),
        ("layer?.*.conv1.*", "layer1.0.conv1.weight", true),
        ("layer?.*.conv1.*", "layer10.0.conv1.weight", false),
        ("*a*b", "xaxxb", true),
        ("*a*b", "xaxxbc", false),
        ("conv1", "conv1.weight", false),
    ] {
        assert_eq!(pattern::matches(text, name), expected, "{text} {name}");
    }
    // A pattern with many stars stays cheap.
    assert!(!pattern::matches(&"*a".repeat(128), &"a".repeat(5000).replace("aa", "ab")[..100]));
}

/// A small generator for the choice of mutations.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

const RICH: &str = r#"name = "rich" # every kind of value
seed = 3
[data]
dataset = "folder"
path = "some/folder"
image_size = 32
[data.augment]
crop_mode = 'reflect'
flip = true
[model]
name = "mlp"
widths = [
  10, # ten
  20,
]
[backward]
layers = { "fc.*" = "recompute", b = "symbolic" }
[train]
epochs = 1_0
label_smoothing = 1e-1
[optim]
name = "sgd"
lr = 0.1
momentum = 0.9
nesterov = true
[[optim.groups]]
pattern = "*.bias"
lr = 0.01
[schedule]
name = "multi_step"
milestones = [3, 6]
"#;

const PIECES: &[&str] = &[
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r\n",
    "\t",
    "\\",
    "-",
    "1e999",
    "nan",
    "inf",
    "0x",
    "é",
    "漢",
    "\u{feff}",
    "\0",
    "\u{1b}[0m",
    "true",
    "name",
    "optim",
    "[model]\n",
    "9999999999999999999",
    "lr = ",
    "2020-01-01",
];

fn mutate(text: &str, random: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            3 => drop(bytes.splice(at..end, PIECES[random.below(PIECES.len())].bytes())),
            4 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => bytes.truncate(bytes.len() - random.below(3).min(bytes.len())),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// No panic, places inside the text, messages fit for a terminal; what is accepted also reads back.
#[test]
fn mutated_files_are_read_or_refused() {
    assert!(Experiment::parse("rich.toml", RICH, &[]).is_ok());
    let mut random = Random(1);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..100_000 {
        let text = mutate(RICH, &mut random);
        match Experiment::parse("m.toml", text.clone(), &[]) {
            Ok(experiment) => {
                accepted += 1;
                assert_eq!(experiment.validate(), []);
                assert_eq!(again(&experiment), experiment);
            }
            Err(error) => {
                refused += 1;
                let lines: Vec<&str> = text.split('\n').collect();
                assert!(!error.list.is_empty());
                for one in &error.list {
                    let line = lines.get(one.line - 1).unwrap_or_else(|| panic!("{one:?}\n{text}"));
                    assert!(one.column <= line.chars().count() + 1, "{one:?}\n{text}");
                    assert!(one.length >= 1);
                }
                let shown = error.to_string();
                assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
            }
        }
    }
    assert!(accepted > 1000 && refused > 10_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn mutated_overrides_are_read_or_refused() {
    let seeds = [
        "optim.lr=0.05",
        "backward.layers.\"a.b\"=ad",
        "optim.groups=[{pattern=\"a\",lr=1}]",
        "name = x",
        "model={name=\"mlp\"}",
    ];
    let mut random = Random(2);
    for index in 0..20_000 {
        let argument = mutate(seeds[index % seeds.len()], &mut random);
        let overrides = [Override::set(&argument), Override::flag("--epochs", "train.epochs", &argument)];
        for one in &overrides {
            match Experiment::parse("rich.toml", RICH, std::slice::from_ref(one)) {
                Ok(experiment) => assert_eq!(again(&experiment), experiment),
                Err(error) => {
                    let shown = error.to_string();
                    assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
                }
            }
        }
    }
}
