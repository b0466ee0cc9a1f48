//! How mistakes in experiment files and overrides are shown, and what a correct file means.

use qzoo::experiment::{
    BackwardMode, Dataset, Diagnostics, Experiment, ModelName, Optim, OptimName, Origin, Override, Rule, ScheduleUnit,
    Shape,
};

const HEAD: &str = "name = \"t\"\n[data]\ndataset = \"shapes\"\n[model]\nname = \"small_cnn\"\n";

fn parse(text: &str, overrides: &[Override]) -> Result<Experiment, Diagnostics> {
    Experiment::parse("x.toml", text, overrides)
}

/// The messages for a file that is [`HEAD`] (lines 1 to 5) and `rest` (from line 6).
fn shown(rest: &str) -> String {
    parse(&format!("{HEAD}{rest}"), &[]).unwrap_err().to_string()
}

/// The messages for a correct file and these arguments of `--set`.
fn shown_set(arguments: &[&str]) -> String {
    let overrides: Vec<Override> = arguments.iter().map(|argument| Override::set(argument)).collect();
    parse(&format!("{HEAD}[optim]\nname = \"sgd\"\nlr = 0.1\n"), &overrides).unwrap_err().to_string()
}

#[test]
fn an_unknown_key() {
    assert_eq!(
        shown("[optim]\nname = \"sgd\"\nmomentun = 0.9\n"),
        "x.toml:8:1: unknown key \"momentun\" in [optim]
  8 | momentun = 0.9
    | ^^^^^^^^ did you mean \"momentum\"?"
    );
}

#[test]
fn an_unknown_section_and_a_key_of_another_section() {
    assert_eq!(
        shown("[optim]\nname = \"sgd\"\nbatch_size = 3\n[trian]\nepochs = 3\n"),
        "x.toml:8:1: unknown key \"batch_size\" in [optim]
  8 | batch_size = 3
    | ^^^^^^^^^^ \"batch_size\" belongs in [train]
x.toml:9:2: unknown section [trian]
  9 | [trian]
    |  ^^^^^ did you mean [train]?"
    );
}

#[test]
fn sections_that_nothing_resembles_are_unknown() {
    let text = shown("[optim]\nname = \"sgd\"\n[distributed]\nnodes = 2\n");
    assert!(text.starts_with("x.toml:8:2: unknown section [distributed]\n"), "{text}");
}

#[test]
fn a_wrong_type_in_a_section_with_variants() {
    assert_eq!(
        shown(
            "[optim]\nname = \"adam\"\nlr = \"0.1\"\nbetas = [0.9, 0.99, 0.999]\n[schedule]\nname = \"step\"\nstep_size = 1.5"
        ),
        "x.toml:8:6: \"lr\" must be a number, not the string \"0.1\"
  8 | lr = \"0.1\"
    |      ^^^^^ remove the quotes: lr = 0.1
x.toml:9:9: \"betas\" must be an array of 2 numbers, not 3 elements
  9 | betas = [0.9, 0.99, 0.999]
    |         ^^^^^^^^^^^^^^^^^^
x.toml:12:13: \"step_size\" must be a whole number, 0 or larger, not 1.5
  12 | step_size = 1.5
     |             ^^^"
    );
}

#[test]
fn a_key_of_another_variant() {
    assert_eq!(
        shown("[optim]\nname = \"adam\"\nmomentum = 0.9\n[schedule]\nname = \"constant\"\ngamma = 0.1"),
        "x.toml:8:1: \"momentum\" does not apply to adam in [optim]
  8 | momentum = 0.9
    | ^^^^^^^^ it is a key of sgd
x.toml:11:1: \"gamma\" does not apply to constant in [schedule]
  11 | gamma = 0.1
     | ^^^^^ it is a key of step, multi_step"
    );
}

#[test]
fn a_key_of_another_model() {
    let text = HEAD.replace("small_cnn", "resnet20");
    let error = parse(&format!("{text}widths = [5]\nbatch_norm = true\n[optim]\nname = \"sgd\""), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.toml:6:1: \"widths\" does not apply to the model resnet20
  6 | widths = [5]
    | ^^^^^^ only to mlp
x.toml:7:1: \"batch_norm\" does not apply to the model resnet20
  7 | batch_norm = true
    | ^^^^^^^^^^ only to mlp, vgg7, vgg11, vgg13, vgg16, vgg19"
    );
}

#[test]
fn a_value_out_of_range() {
    assert_eq!(
        shown("[optim]\nname = \"sgd\"\nlr = -1\n[train]\nbatch_size = 0"),
        "x.toml:8:6: \"lr\" must be a finite number above 0, not -1
  8 | lr = -1
    |      ^^
x.toml:10:14: \"batch_size\" must be from 1 to 65536, not 0
  10 | batch_size = 0
     |              ^"
    );
}

#[test]
fn an_unknown_value() {
    assert_eq!(
        shown("[optim]\nname = \"sdg\"\n[schedule]\nname = \"zigzag\""),
        "x.toml:7:8: unknown value \"sdg\" for \"name\"
  7 | name = \"sdg\"
    |        ^^^^^ did you mean \"sgd\"?
x.toml:9:8: unknown value \"zigzag\" for \"name\"
  9 | name = \"zigzag\"
    |        ^^^^^^^^ one of \"constant\", \"step\", \"multi_step\", \"cosine\", \"cosine_restarts\", \"poly\", \"one_cycle\""
    );
}

#[test]
fn a_duplicate_key() {
    assert_eq!(
        shown("[optim]\nname = \"sgd\"\nlr = 0.1\nlr = 0.2\n"),
        "x.toml:9:1: duplicate key
  9 | lr = 0.2
    | ^^"
    );
}

#[test]
fn syntax_errors_beside_other_mistakes() {
    assert_eq!(
        shown("[optim]\nname = sgd\nlr =\nweight_decay = -1\nmomentum 0.9\n[log]\nkeeep = 1"),
        "x.toml:7:8: \"sgd\" is not a value
  7 | name = sgd
    |        ^^^ a string is quoted: \"sgd\"
x.toml:8:5: missing value
  8 | lr =
    |     ^ write one after the =
x.toml:9:16: \"weight_decay\" must be a finite number, 0 or larger, not -1
  9 | weight_decay = -1
    |                ^^
x.toml:10:10: key with no value, expected `=`
  10 | momentum 0.9
     |          ^
x.toml:12:1: unknown key \"keeep\" in [log]
  12 | keeep = 1
     | ^^^^^ did you mean \"keep\"?"
    );
}

#[test]
fn a_broken_header_hides_what_it_makes_doubtful() {
    assert_eq!(
        shown("[optim\nname = \"sgd\"\nlr = 0.1\n"),
        "x.toml:6:7: unclosed table, expected `]`
  6 | [optim
    |       ^"
    );
}

#[test]
fn missing_keys_and_sections() {
    assert_eq!(
        parse("[data]\nworkers = 1\n[optim]\nlr = 1\n[schedule]\nname = \"multi_step\"", &[]).unwrap_err().to_string(),
        "x.toml:1:1: missing key \"name\"
  1 | [data]
    | ^ name = \"my-experiment\"
x.toml:1:1: missing section [model]
  1 | [data]
    | ^ add [model] with at least name = \"small_cnn\"
x.toml:1:1: missing key \"dataset\" in [data]
  1 | [data]
    | ^^^^^^ one of \"mnist\", \"fashion-mnist\", \"cifar10\", \"cifar100\", \"tiny-imagenet\", \"folder\", \"shapes\"
x.toml:3:1: missing key \"name\" in [optim]
  3 | [optim]
    | ^^^^^^^ one of \"sgd\", \"adam\", \"adamw\", \"adadelta\"
x.toml:5:1: missing key \"milestones\" in [schedule]
  5 | [schedule]
    | ^^^^^^^^^^ milestones = [100, 150]"
    );
    assert_eq!(parse("", &[]).unwrap_err().list.len(), 4);
}

#[test]
fn values_that_conflict() {
    assert_eq!(
        shown("[optim]\nname = \"sgd\"\nnesterov = true\n"),
        "x.toml:8:12: \"nesterov\" needs a momentum above 0
  8 | nesterov = true
    |            ^^^^ momentum = 0.9, or nesterov = false"
    );
    assert_eq!(
        shown(
            "[optim]\nname = \"sgd\"\nlr = 0.01\n[schedule]\nname = \"cosine\"\nfinal_lr = 0.1\nwarmup_epochs = 11\n"
        ),
        "x.toml:11:12: \"final_lr\" is 0.1, above the rate that it starts from
  11 | final_lr = 0.1
     |            ^^^ at most optim.lr, which is 0.01
x.toml:12:17: \"warmup_epochs\" is 11, but the run has 10
  12 | warmup_epochs = 11
     |                 ^^ at most train.epochs"
    );
    let text = HEAD.replace("shapes", "folder");
    let error = parse(&format!("{text}[optim]\nname = \"sgd\""), &[]).unwrap_err().to_string();
    assert!(error.contains("x.toml:3:11: the data set folder needs the key \"path\""), "{error}");
    assert!(error.contains("x.toml:3:11: the data set folder needs the key \"image_size\""), "{error}");
}

#[test]
fn layers_and_groups() {
    assert_eq!(
        shown(
            "[backward]\nlayers = { \"a b\" = \"ad\", \"c.*\" = \"foo\" }\n[optim]\nname = \"sgd\"\ngroups = [{ patern = \"fc\", lr = 1 }, 3, { pattern = \"a..b\", lr = -1 }]"
        ),
        "x.toml:7:12: \"a b\" is no pattern of layer names: ' ' cannot occur in a pattern
  7 | layers = { \"a b\" = \"ad\", \"c.*\" = \"foo\" }
    |            ^^^^^
x.toml:7:34: unknown value \"foo\" for \"c.*\"
  7 | layers = { \"a b\" = \"ad\", \"c.*\" = \"foo\" }
    |                                  ^^^^^ one of \"ad\", \"symbolic\", \"symbolic_normalised\", \"symbolic_recompute\", \"recompute\", \"auto\"
x.toml:10:11: missing key \"pattern\" in an element of \"groups\"
  10 | groups = [{ patern = \"fc\", lr = 1 }, 3, { pattern = \"a..b\", lr = -1 }]
     |           ^^^^^^^^^^^^^^^^^^^^^^^^^ pattern = \"fc.*\"
x.toml:10:13: unknown key \"patern\" in an element of \"groups\"
  10 | groups = [{ patern = \"fc\", lr = 1 }, 3, { pattern = \"a..b\", lr = -1 }]
     |             ^^^^^^ did you mean \"pattern\"?
x.toml:10:38: an element of \"groups\" must be a table, not a whole number
  10 | groups = [{ patern = \"fc\", lr = 1 }, 3, { pattern = \"a..b\", lr = -1 }]
     |                                      ^ { pattern = \"fc.*\", lr = 0.01 }
x.toml:10:53: \"a..b\" is no pattern of parameter names: a name has no empty part between dots
  10 | groups = [{ patern = \"fc\", lr = 1 }, 3, { pattern = \"a..b\", lr = -1 }]
     |                                                     ^^^^^^
x.toml:10:66: \"lr\" must be a finite number, 0 or larger, not -1
  10 | groups = [{ patern = \"fc\", lr = 1 }, 3, { pattern = \"a..b\", lr = -1 }]
     |                                                                  ^^"
    );
}

#[test]
fn tabs_and_wide_characters_keep_the_caret_below_the_mistake() {
    assert_eq!(
        shown("[optim]\nname = \"sgd\"\r\n\t\tlr\t= \"schnell\" # höher\r\n[log]\n\"größe\" = 1\n'漢字' = 2"),
        "x.toml:8:8: \"lr\" must be a number, not the string \"schnell\"
  8 | \t\tlr\t= \"schnell\" # höher
    | \t\t  \t  ^^^^^^^^^
x.toml:10:1: unknown key \"größe\" in [log]
  10 | \"größe\" = 1
     | ^^^^^^^ the keys are interval_seconds, checkpoint_every_steps, keep, keep_every, tensorboard
x.toml:11:1: unknown key \"漢字\" in [log]
  11 | '漢字' = 2
     | ^^^^^^ the keys are interval_seconds, checkpoint_every_steps, keep, keep_every, tensorboard"
    );
    let text = shown("[optim]\nname = \"sgd\"\ngroups = [{ pattern = \"漢\", lr = \"x\" }]\n");
    let caret = format!("\n    | {}^^^", " ".repeat("groups = [{ pattern = \"..\", lr = ".len()));
    assert!(text.ends_with(&caret), "{text}");
}

#[test]
fn long_lines_and_control_characters_are_shown_safely() {
    let long = format!("[optim]\nname = \"sgd\"\nlr = {}\"x\"\n", " ".repeat(10_000));
    let error = parse(&format!("{HEAD}{long}"), &[]).unwrap_err();
    assert_eq!((error.list[0].line, error.list[0].column, error.list[0].caret), (8, 10_006, 40));
    assert!(error.to_string().len() < 400);
    let error = shown("[optim]\nname = \"\u{1b}[31m\u{202e}\"\n");
    assert!(!error.chars().any(|c| c.is_control() && c != '\n') && !error.contains('\u{202e}'), "{error:?}");
}

#[test]
fn the_list_is_bounded() {
    let many: String = (0..1000).map(|index| format!("k{index} = 1\n")).collect();
    let error = parse(&format!("{HEAD}[optim]\nname = \"sgd\"\n{many}"), &[]).unwrap_err();
    assert_eq!((error.list.len(), error.omitted), (Diagnostics::MOST, 950));
    assert!(error.to_string().ends_with("\nand 950 more"));
}

#[test]
fn mistakes_in_overrides() {
    assert_eq!(
        shown_set(&["optim.lrr=0.1", "lr=3", "optm.lr=3", "seed.x=1", "optim.lr=fast", "train.epochs=0"]),
        "--set optim.lrr=0.1: unknown key \"lrr\" in [optim]
   | --set optim.lrr=0.1
   |             ^^^ did you mean \"lr\"?
--set lr=3: unknown key \"lr\" at the top level
   | --set lr=3
   |       ^^ \"lr\" belongs in [optim]
--set optm.lr=3: unknown section [optm]
   | --set optm.lr=3
   |       ^^^^ did you mean [optim]?
--set seed.x=1: \"seed\" must be a whole number, 0 or larger, not a table
   | --set seed.x=1
   |       ^^^^
--set optim.lr=fast: \"lr\" must be a number, not the string \"fast\"
   | --set optim.lr=fast
   |                ^^^^
--set train.epochs=0: \"epochs\" must be from 1 to 1000000, not 0
   | --set train.epochs=0
   |                    ^"
    );
    assert_eq!(
        shown_set(&["optim.lr", "optim.lr=", "=3", "optim..lr=3", "name.x=1", "optim.\"lr=1", "model.widths=[1,"]),
        "--set optim.lr: a value is missing
   | --set optim.lr
   |             ^^ write KEY=VALUE, for example optim.lr=0.05
--set optim.lr=: a value is missing
   | --set optim.lr=
   |                ^ an empty string is written \"\"
--set =3: a part of the key is missing
   | --set =3
   |       ^ write KEY=VALUE, for example optim.lr=0.05
--set optim..lr=3: a part of the key is missing
   | --set optim..lr=3
   |             ^ write KEY=VALUE, for example optim.lr=0.05
--set name.x=1: \"name\" is a single value, not a section
   | --set name.x=1
   |       ^^^^
--set optim.\"lr=1: the quoted part of the key does not end
   | --set optim.\"lr=1
   |             ^^^^^
--set model.widths=[1,: unclosed array, expected `]`
   | --set model.widths=[1,
   |                       ^"
    );
    let error = parse(&format!("{HEAD}[optim]\nname = \"sgd\""), &[Override::flag("--epochs", "train.epochs", 0)]);
    let error = error.unwrap_err();
    assert_eq!(error.list[0].origin, Origin::CommandLine("--epochs 0".into()));
    assert_eq!(
        error.to_string(),
        "--epochs 0: \"epochs\" must be from 1 to 1000000, not 0
   | --epochs 0
   |          ^"
    );
}

#[test]
fn an_override_beats_the_file_even_where_the_file_is_wrong() {
    let text = format!("{HEAD}[optim]\nname = \"sgd\"\nlr = 0\n");
    let overrides = [
        Override::set("optim.lr=0.05"),
        Override::set("optim.lr = 0.025"),
        Override::set("schedule.name=cosine"),
        Override::set("model={name = \"mlp\", widths = [7]}"),
        Override::set("backward.layers.\"fc.*\"=recompute"),
        Override::set("optim.groups=[{pattern = \"fc.*\", lr = 1}]"),
        Override::flag("--seed", "seed", 9),
    ];
    let experiment = parse(&text, &overrides).unwrap();
    assert_eq!((experiment.optim.lr, experiment.seed), (0.025, 9));
    assert_eq!((experiment.model.name, experiment.model.widths.as_slice()), (ModelName::Mlp, [7].as_slice()));
    assert!(matches!(experiment.schedule.shape, Shape::Cosine(_)));
    assert_eq!(experiment.backward.mode_of("fc.1"), BackwardMode::Recompute);
    assert_eq!(experiment.optim.group_of("fc.1.weight").and_then(|group| group.lr), Some(1.0));
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let experiment = parse(&format!("{HEAD}[optim]\nname = \"adamw\""), &[]).unwrap();
    assert_eq!(experiment.optim, Optim::of(OptimName::AdamW));
    assert_eq!((experiment.optim.lr, experiment.optim.weight_decay), (0.001, 0.01));
    assert!(matches!(&experiment.optim.rule, Rule::AdamW(rule) if rule.betas == [0.9, 0.999] && rule.eps == 1e-8));
    assert_eq!(
        (experiment.data.dataset, experiment.data.workers, experiment.data.normalize),
        (Dataset::Shapes, 1, true)
    );
    assert_eq!((experiment.train.epochs, experiment.train.batch_size, experiment.train.accumulate), (10, 128, 1));
    assert!(matches!(experiment.schedule.shape, Shape::Constant(_)));
    assert_eq!(experiment.schedule.unit, ScheduleUnit::Step);
    assert_eq!((experiment.log.keep, experiment.log.interval_seconds), (1, 10.0));
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cifar_vgg.toml"), "").unwrap();
    let error = Experiment::load(folder.path().join("cifar_vg.toml"), &[]).unwrap_err().to_string();
    assert!(error.contains("cannot open the experiment") && error.contains("cifar_vgg.toml?"), "{error}");
    let big = folder.path().join("big.toml");
    std::fs::write(&big, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(Experiment::load(&big, &[]).unwrap_err().to_string().contains("larger than 1048576 bytes"));
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"name = \"t\"\nx = \"caf\xe9\"\n").unwrap();
    let error = Experiment::load(&latin, &[]).unwrap_err();
    assert_eq!((error.list[0].line, error.list[0].column), (2, 9));
    assert_eq!(error.list[0].message, "the file is not UTF-8 text");
    assert!(Experiment::load(folder.path(), &[]).unwrap_err().to_string().contains("cannot read the experiment"));
}

#[test]
fn deep_nesting_is_an_error() {
    for text in [
        format!("x = {}", "[".repeat(500_000)),
        format!("x = {}", "{a=".repeat(300_000)),
        format!("{}a = 1", "a.".repeat(500_000)),
        format!("[{}a]\nb = 1", "a.".repeat(500_000)),
    ] {
        let error = parse(&text, &[]).unwrap_err();
        let message = &error.list[0].message;
        assert!(message.contains("recurs"), "{message}");
    }
    let argument = format!("model.widths={}", "[".repeat(100_000));
    assert!(parse(HEAD, &[Override::set(&argument)]).is_err());
    let argument = format!("{}a=1", "a.".repeat(100_000));
    let error = parse(HEAD, &[Override::set(&argument)]).unwrap_err();
    assert!(error.to_string().contains("too many parts"), "{error}");
}
