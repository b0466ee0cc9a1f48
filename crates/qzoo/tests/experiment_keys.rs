//! Every key of every section: a typo, a wrong type and an impossible value are reported at their exact line and column.

use std::collections::BTreeSet;

use qzoo::experiment::{Diagnostic, Experiment, ModelName, OptimName, ScheduleName};

/// One key: where it stands and values of each sort, as TOML text.
struct Case {
    /// The section, with what selects the variant that has the key.
    section: &'static str,
    selector: &'static str,
    key: &'static str,
    good: &'static str,
    wrong_type: &'static [&'static str],
    /// Right in type but impossible.
    impossible: &'static [&'static str],
}

const fn case(
    place: (&'static str, &'static str),
    key: &'static str,
    good: &'static str,
    wrong_type: &'static [&'static str],
    impossible: &'static [&'static str],
) -> Case {
    Case { section: place.0, selector: place.1, key, good, wrong_type, impossible }
}

const TOP: (&str, &str) = ("", "");
const DATA: (&str, &str) = ("data", "dataset = \"shapes\"");
const FOLDER: (&str, &str) = ("data", "dataset = \"folder\"\npath = \"a/b\"\nimage_size = 32");
const AUGMENT: (&str, &str) = ("data.augment", "");
const MLP: (&str, &str) = ("model", "name = \"mlp\"");
const CNN: (&str, &str) = ("model", "name = \"small_cnn\"");
const FORM: (&str, &str) = ("model", "name = \"mlp\"\nneuron = \"type1\"");
const AUTO: (&str, &str) = ("backward", "mode = \"auto\"\nmemory_budget = \"1GiB\"");
const VGG: (&str, &str) = ("model", "name = \"vgg11\"");
const RESNET: (&str, &str) = ("model", "name = \"resnet20\"");
const BACKWARD: (&str, &str) = ("backward", "");
const TRAIN: (&str, &str) = ("train", "");
const SGD: (&str, &str) = ("optim", "name = \"sgd\"");
const ADAM: (&str, &str) = ("optim", "name = \"adam\"");
const ADAMW: (&str, &str) = ("optim", "name = \"adamw\"");
const ADADELTA: (&str, &str) = ("optim", "name = \"adadelta\"");
const CONSTANT: (&str, &str) = ("schedule", "name = \"constant\"");
const STEP: (&str, &str) = ("schedule", "name = \"step\"");
const MULTI_STEP: (&str, &str) = ("schedule", "name = \"multi_step\"\nmilestones = [3]");
const COSINE: (&str, &str) = ("schedule", "name = \"cosine\"");
const RESTARTS: (&str, &str) = ("schedule", "name = \"cosine_restarts\"");
const POLY: (&str, &str) = ("schedule", "name = \"poly\"");
const ONE_CYCLE: (&str, &str) = ("schedule", "name = \"one_cycle\"");
const LOG: (&str, &str) = ("log", "");
const IMPORT: (&str, &str) = ("import", "");
const AUTOBUILD: (&str, &str) = ("autobuild", "max_drop = 1.0");
const QUANTIZE: (&str, &str) = ("quantize", "");
const SPARSE: (&str, &str) = ("sparse", "");
const GMP: (&str, &str) = ("sparse.gmp", "");
const ACDC: (&str, &str) = ("sparse.acdc", "");
const INT8: (&str, &str) = ("sparse.int8", "");
const MIXED: (&str, &str) = ("quantize", "mixed = true");
const DROP: (&str, &str) = ("quantize", "max_drop = 0.5");
const BUDGET: (&str, &str) = ("autobuild", "max_macs = 0.5");

const NO_NAME: &[&str] = &["1", "true", "[]", "1979-05-27"];
const NO_BOOL: &[&str] = &["1", "\"true\"", "[]", "{}"];
const NO_COUNT: &[&str] = &["1.5", "\"1\"", "true", "-1", "[1]", "{ a = 1 }", "99999999999999999999", "07:32:00"];
const NO_NUMBER: &[&str] = &["\"1\"", "true", "[1.0]", "{}", "1979-05-27"];
const NO_PAIR: &[&str] = &["0.9", "\"x\"", "[0.9]", "[0.9, 0.9, 0.9]", "{}"];
const NO_SHARE: &[&str] = &["-0.1", "1", "1.0", "1.5", "nan", "inf"];
const NO_CLOSED_SHARE: &[&str] = &["-0.1", "1.1", "nan", "-inf"];
const NOT_POSITIVE: &[&str] = &["0", "0.0", "-1", "inf", "nan", "1e999"];
const NEGATIVE: &[&str] = &["-1", "-1e-9", "inf", "nan"];
const NO_CHOICE: &[&str] = &["\"nonsense\"", "\"\"", "\"SGD\""];

#[rustfmt::skip]
const CASES: &[Case] = &[
    case(TOP, "name", "\"a-1.b_c\"", NO_NAME, &["\"\"", "\"a/b\"", "\"..\"", "\".x\"", "\"a b\"", "\"-a\"", "\"é\""]),
    case(TOP, "seed", "7", NO_COUNT, &[]),
    case(DATA, "dataset", "\"shapes\"", NO_NAME, NO_CHOICE),
    case(FOLDER, "path", "\"x/y\"", NO_NAME, &["\"\"", "\"/etc\"", "\"../x\"", "\"a/../b\""]),
    case(DATA, "image_size", "28", NO_COUNT, &["0", "4097"]),
    case(FOLDER, "shorter_side", "40", NO_COUNT, &["0", "31", "4097"]),
    case(DATA, "validation", "0.1", NO_NUMBER, NO_SHARE),
    case(DATA, "train_limit", "100", NO_COUNT, &[]),
    case(DATA, "workers", "2", NO_COUNT, &["0", "257"]),
    case(DATA, "normalize", "false", NO_BOOL, &[]),
    case(DATA, "mean", "[0.5, 0.5, 0.5]", &["0.5", "\"x\"", "{}", "true"], &["[]", "[0.5, 0.5]"]),
    case(DATA, "std", "[0.25]", &["0.5", "\"x\"", "{}", "true"], &["[]"]),
    case(DATA, "augment", "{ flip = true }", &["1", "true", "\"flip\"", "[]"], &[]),
    case(AUGMENT, "crop_padding", "4", NO_COUNT, &["1025"]),
    case(AUGMENT, "crop_mode", "\"reflect\"", NO_NAME, NO_CHOICE),
    case(AUGMENT, "flip", "true", NO_BOOL, &[]),
    case(AUGMENT, "cutout", "8", NO_COUNT, &["4097"]),
    case(AUGMENT, "mixup", "0.2", NO_NUMBER, &["-0.1", "101", "nan", "inf"]),
    case(MLP, "name", "\"mlp\"", NO_NAME, NO_CHOICE),
    case(MLP, "widths", "[10, 20]", &["10", "\"10\"", "{}", "true"], &[]),
    case(MLP, "batch_norm", "false", NO_BOOL, &[]),
    case(MLP, "neuron", "\"type3\"", NO_NAME, NO_CHOICE),
    case(MLP, "neurons", "{ \"fc1\" = \"ours\" }", &["1", "\"ours\"", "[]"], &[]),
    case(FORM, "rank", "4", NO_COUNT, &["0", "1025"]),
    case(MLP, "branch_activation", "\"relu\"", NO_NAME, NO_CHOICE),
    case(CNN, "branch_norm", "false", NO_BOOL, &[]),
    case(CNN, "quadratic_init", "\"linear\"", NO_NAME, NO_CHOICE),
    case(MLP, "dropout", "0.5", NO_NUMBER, NO_SHARE),
    case(MLP, "activation", "\"tanh\"", NO_NAME, NO_CHOICE),
    case(MLP, "init", "\"kaiming_normal\"", NO_NAME, NO_CHOICE),
    case(CNN, "name", "\"small_cnn\"", NO_NAME, NO_CHOICE),
    case(CNN, "width", "0.5", NO_NUMBER, &["0", "-1", "65", "nan", "inf"]),
    case(CNN, "dropout", "0.5", NO_NUMBER, NO_SHARE),
    case(CNN, "activation", "\"relu6\"", NO_NAME, NO_CHOICE),
    case(CNN, "init", "\"xavier_uniform\"", NO_NAME, NO_CHOICE),
    case(CNN, "winograd", "false", NO_BOOL, &[]),
    case(VGG, "layers", "[8, \"pool\", 16]", &["8", "\"pool\"", "{}", "true"], &["[]", "[\"pool\"]"]),
    case(VGG, "classifier_widths", "[10, 20]", &["10", "\"10\"", "{}", "true"], &[]),
    case(RESNET, "blocks", "[1, 2, 3]", &["1", "\"1\"", "{}", "true"], &["[]", "[1, 2]", "[1, 2, 3, 4]"]),
    case(BACKWARD, "mode", "\"recompute\"", NO_NAME, NO_CHOICE),
    case(BACKWARD, "layers", "{ \"a.*\" = \"ad\" }", &["1", "\"ad\"", "[]"], &[]),
    case(AUTO, "memory_budget", "\"1.5 GiB\"", NO_NAME, &["\"\"", "\"512\"", "\"0MiB\"", "\"-1MiB\"", "\"512MB\""]),
    case(TRAIN, "epochs", "3", NO_COUNT, &["0", "1000001"]),
    case(TRAIN, "batch_size", "32", NO_COUNT, &["0", "65537"]),
    case(TRAIN, "precision", "\"bf16\"", NO_NAME, NO_CHOICE),
    case(TRAIN, "eval_batch_size", "32", NO_COUNT, &["0", "65537"]),
    case(TRAIN, "label_smoothing", "0.1", NO_NUMBER, NO_SHARE),
    case(TRAIN, "clip_norm", "1", NO_NUMBER, NEGATIVE),
    case(TRAIN, "ema_decay", "0.999", NO_NUMBER, NO_SHARE),
    case(TRAIN, "accumulate", "2", NO_COUNT, &["0", "65537"]),
    case(TRAIN, "early_stop", "3", NO_COUNT, &[]),
    case(SGD, "name", "\"sgd\"", NO_NAME, NO_CHOICE),
    case(SGD, "lr", "1", NO_NUMBER, NOT_POSITIVE),
    case(SGD, "weight_decay", "5e-4", NO_NUMBER, NEGATIVE),
    case(SGD, "decay_norms_and_biases", "false", NO_BOOL, &[]),
    case(SGD, "quadratic_lr", "0.1", NO_NUMBER, NEGATIVE),
    case(SGD, "groups", "[{ pattern = \"fc.*\", lr = 0.1 }]", &["1", "\"fc\"", "{}"], &[]),
    case(SGD, "momentum", "0.9", NO_NUMBER, NO_SHARE),
    case(SGD, "dampening", "0.1", NO_NUMBER, NO_CLOSED_SHARE),
    case(SGD, "nesterov", "false", NO_BOOL, &["true"]),
    case(ADAM, "betas", "[0.8, 0.99]", NO_PAIR, &[]),
    case(ADAM, "eps", "1e-6", NO_NUMBER, NOT_POSITIVE),
    case(ADAM, "lr", "1e-6", NO_NUMBER, NOT_POSITIVE),
    case(ADAMW, "betas", "[0.8, 0.99]", NO_PAIR, &[]),
    case(ADAMW, "eps", "1e-6", NO_NUMBER, NOT_POSITIVE),
    case(ADAMW, "weight_decay", "0.1", NO_NUMBER, NEGATIVE),
    case(ADADELTA, "rho", "0.95", NO_NUMBER, NO_SHARE),
    case(ADADELTA, "eps", "1e-6", NO_NUMBER, NOT_POSITIVE),
    case(CONSTANT, "name", "\"constant\"", NO_NAME, NO_CHOICE),
    case(CONSTANT, "unit", "\"epoch\"", NO_NAME, NO_CHOICE),
    case(CONSTANT, "warmup_epochs", "2.5", NO_NUMBER, &["-1", "inf", "nan", "11"]),
    case(CONSTANT, "warmup_start", "0.1", NO_NUMBER, NO_CLOSED_SHARE),
    case(STEP, "step_size", "5", NO_COUNT, &["0", "1000001"]),
    case(STEP, "gamma", "0.5", NO_NUMBER, &["0", "-0.1", "1.1", "nan"]),
    case(MULTI_STEP, "milestones", "[3, 6]", &["3", "\"3\"", "{}", "true"], &["[]"]),
    case(MULTI_STEP, "gamma", "0.5", NO_NUMBER, &["0", "-0.1", "1.1", "nan"]),
    case(COSINE, "final_lr", "1e-4", NO_NUMBER, &["-1", "inf", "nan", "0.2"]),
    case(RESTARTS, "period", "5", NO_COUNT, &["0", "1000001"]),
    case(RESTARTS, "period_factor", "2", NO_COUNT, &["0", "1001"]),
    case(RESTARTS, "final_lr", "1e-4", NO_NUMBER, &["-1", "inf", "nan", "0.2"]),
    case(POLY, "power", "0.9", NO_NUMBER, NOT_POSITIVE),
    case(POLY, "final_lr", "1e-4", NO_NUMBER, &["-1", "inf", "nan", "0.2"]),
    case(ONE_CYCLE, "pct_start", "0.2", NO_NUMBER, &["0", "1", "-0.1", "nan"]),
    case(ONE_CYCLE, "div_factor", "10", NO_NUMBER, &["0", "0.9", "-1", "inf"]),
    case(ONE_CYCLE, "final_div_factor", "100", NO_NUMBER, &["0", "0.9", "-1", "inf"]),
    case(ONE_CYCLE, "anneal", "\"linear\"", NO_NAME, NO_CHOICE),
    case(LOG, "interval_seconds", "1", NO_NUMBER, NOT_POSITIVE),
    case(LOG, "checkpoint_every_steps", "10", NO_COUNT, &[]),
    case(LOG, "keep", "2", NO_COUNT, &["0", "1001"]),
    case(LOG, "keep_every", "5", NO_COUNT, &["1000001"]),
    case(LOG, "tensorboard", "false", NO_BOOL, &[]),
    case(IMPORT, "file", "\"a/b.pth\"", NO_NAME, &["\"\"", "\"/etc/a.pth\"", "\"../a.pth\""]),
    case(IMPORT, "prefix", "\"net.module\"", NO_NAME, &["\"a..b\"", "\"net.\"", "\"net.*\"", "\"n?t\""]),
    case(IMPORT, "names", "{ \"a.*\" = \"b.*\" }", &["1", "\"a\"", "[]"], &[]),
    case(AUTOBUILD, "neuron", "\"type4\"", NO_NAME, NO_CHOICE),
    case(AUTOBUILD, "masking", "\"unstructured\"", NO_NAME, NO_CHOICE),
    case(AUTOBUILD, "ratio", "1", NO_NUMBER, &["0", "-0.1", "1.1", "nan", "inf"]),
    case(AUTOBUILD, "seeds", "5", NO_COUNT, &["0", "1001"]),
    case(AUTOBUILD, "recalibrate", "true", NO_BOOL, &[]),
    case(AUTOBUILD, "calibration_images", "100", NO_COUNT, &["1", "1000001"]),
    case(AUTOBUILD, "images", "100", NO_COUNT, &[]),
    case(AUTOBUILD, "max_parameters", "1000000", NO_NUMBER, &["0", "-1", "1.5", "nan", "inf"]),
    case(AUTOBUILD, "max_macs", "0.5", NO_NUMBER, &["0", "-1", "1.5", "nan", "inf"]),
    case(BUDGET, "max_drop", "0", NO_NUMBER, &["-0.1", "100.1", "nan", "inf"]),
    case(AUTOBUILD, "reduce", "\"shrink\"", NO_NAME, NO_CHOICE),
    case(AUTOBUILD, "shrink", "0.75", NO_NUMBER, &["0", "1", "-0.1", "nan"]),
    case(AUTOBUILD, "changes_per_round", "2", NO_COUNT, &[]),
    case(AUTOBUILD, "epochs", "5", NO_COUNT, &["0", "1000001"]),
    case(AUTOBUILD, "reduced_epochs", "5", NO_COUNT, &["0", "1000001"]),
    case(QUANTIZE, "method", "\"gpfq\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "compat", "\"zhang2023\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "bits", "[1.58, 4]", &["true", "{}"], &["0", "9", "nan"]),
    case(DROP, "mixed", "true", NO_BOOL, &[]),
    case(MIXED, "budget", "3.0", &["true", "{}"], &["0.5", "9"]),
    case(MIXED, "max_size", "\"100KiB\"", &["1", "true", "[]"], &["\"\"", "\"0KiB\"", "\"100KB\""]),
    case(MIXED, "max_drop", "0.5", NO_NUMBER, &["-1", "101", "nan"]),
    case(QUANTIZE, "alphabet", "\"mid_rise\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "radius", "\"median\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "per_output", "false", NO_BOOL, &[]),
    case(QUANTIZE, "percentile", "0.99", NO_NUMBER, &["0", "1.1", "nan"]),
    case(QUANTIZE, "alphabet_scalar", "\"1:4\"", &["true", "{}"], &["0", "-1", "inf"]),
    case(QUANTIZE, "conv_mode", "\"per_channel\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "order", "\"descending\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "damping", "0.1", NO_NUMBER, NEGATIVE),
    case(QUANTIZE, "sweeps", "3", NO_COUNT, &["101"]),
    case(QUANTIZE, "sparsity", "\"none\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "threshold", "0.2", NO_NUMBER, NOT_POSITIVE),
    case(QUANTIZE, "samples", "100", NO_COUNT, &["0", "100000001"]),
    case(QUANTIZE, "patches", "0.5", NO_NUMBER, &["0", "1.1", "nan"]),
    case(QUANTIZE, "layers", "[\"conv*\"]", &["1", "\"conv\"", "{}"], &[]),
    case(QUANTIZE, "skip", "[\"fc\"]", &["1", "\"fc\"", "{}"], &[]),
    case(QUANTIZE, "layer_bits", "{ fc = 8 }", &["1", "\"fc\"", "[]"], &[]),
    case(QUANTIZE, "first_last_bits", "8", NO_NUMBER, &["0", "9", "nan"]),
    case(QUANTIZE, "activation_bits", "8", NO_COUNT, &["1", "9"]),
    case(QUANTIZE, "activation_range", "\"percentile\"", NO_NAME, NO_CHOICE),
    case(QUANTIZE, "activation_percentile", "0.99", NO_NUMBER, &["0.5", "1.1", "nan"]),
    case(QUANTIZE, "bias_correction", "true", NO_BOOL, &[]),
    case(QUANTIZE, "recalibrate", "10", NO_COUNT, &[]),
    case(QUANTIZE, "fold", "true", NO_BOOL, &[]),
    case(QUANTIZE, "memory", "\"1GiB\"", &["1", "true", "[]"], &["\"\"", "\"0GiB\"", "\"1GB\""]),
    case(SPARSE, "sparsity", "0.95", NO_NUMBER, NO_SHARE),
    case(SPARSE, "method", "\"gmp\"", NO_NAME, NO_CHOICE),
    case(SPARSE, "scope", "\"global\"", NO_NAME, NO_CHOICE),
    case(SPARSE, "layers", "{ \"conv*\" = 0.5 }", &["1", "\"conv\"", "[]"], &[]),
    case(SPARSE, "n_of_m", "[2, 4]", &["2", "\"2:4\"", "[2]", "[1, 2, 4]", "{}"], &["[0, 4]", "[4, 4]", "[1, 1]", "[1, 65]"]),
    case(SPARSE, "skip", "[\"fc\"]", &["1", "\"fc\"", "{}"], &[]),
    case(SPARSE, "arithmetic", "\"int8\"", NO_NAME, NO_CHOICE),
    case(SPARSE, "threshold", "0.9", NO_NUMBER, NO_CLOSED_SHARE),
    case(SPARSE, "gmp", "{ every = 2 }", &["1", "true", "\"every\"", "[]"], &[]),
    case(SPARSE, "acdc", "{ warmup = 2 }", &["1", "true", "\"warmup\"", "[]"], &[]),
    case(SPARSE, "int8", "{ per_channel = false }", &["1", "true", "\"luq\"", "[]"], &[]),
    case(GMP, "start", "3", NO_COUNT, &["1000001"]),
    case(GMP, "end", "7", NO_COUNT, &["1000001"]),
    case(GMP, "every", "2", NO_COUNT, &["0", "1000001"]),
    case(GMP, "initial_sparsity", "0.5", NO_NUMBER, NO_SHARE),
    case(ACDC, "warmup", "0", NO_COUNT, &["1000001"]),
    case(ACDC, "sparse", "3", NO_COUNT, &["0", "1000001"]),
    case(ACDC, "dense", "3", NO_COUNT, &["0", "1000001"]),
    case(ACDC, "finish", "3", NO_COUNT, &["0", "1000001"]),
    case(INT8, "weights", "\"mse\"", NO_NAME, NO_CHOICE),
    case(INT8, "activations", "\"percentile\"", NO_NAME, NO_CHOICE),
    case(INT8, "gradients", "\"luq\"", NO_NAME, NO_CHOICE),
    case(INT8, "percentile", "0.99", NO_NUMBER, &["0.5", "1.1", "nan"]),
    case(INT8, "per_channel", "false", NO_BOOL, &[]),
];

/// Elements and entries one level further down: section, selector, the line up to the value, the value.
#[rustfmt::skip]
const INNER: &[(&str, &str, &str, &str)] = &[
    ("model", "name = \"mlp\"", "widths = [10, ", "0"),
    ("model", "name = \"mlp\"", "widths = [10, ", "65537"),
    ("model", "name = \"mlp\"", "widths = [10, ", "\"x\""),
    ("model", "name = \"mlp\"", "widths = [10, ", "1.5"),
    ("model", "name = \"vgg11\"", "classifier_widths = [10, ", "0"),
    ("model", "name = \"vgg11\"", "classifier_widths = [10, ", "65537"),
    ("data", "dataset = \"shapes\"", "mean = [0.5, 0.5, ", "-1"),
    ("data", "dataset = \"shapes\"", "std = [0.5, 0.5, ", "0"),
    ("data", "dataset = \"shapes\"", "std = [0.5, 0.5, ", "\"x\""),
    ("model", "name = \"vgg11\"", "layers = [8, \"pool\", ", "0"),
    ("model", "name = \"vgg11\"", "layers = [8, \"pool\", ", "65537"),
    ("model", "name = \"vgg11\"", "layers = [8, \"pool\", ", "-1"),
    ("model", "name = \"vgg11\"", "layers = [8, \"pool\", ", "1.5"),
    ("model", "name = \"vgg11\"", "layers = [8, \"pool\", ", "\"pol\""),
    ("model", "name = \"vgg11\"", "layers = [8, \"pool\", ", "[8]"),
    ("model", "name = \"resnet20\"", "blocks = [1, 2, ", "0"),
    ("model", "name = \"resnet20\"", "blocks = [1, 2, ", "257"),
    ("model", "name = \"resnet20\"", "blocks = [1, 2, ", "\"1\""),
    ("optim", "name = \"adam\"", "betas = [0.9, ", "1.0"),
    ("optim", "name = \"adam\"", "betas = [0.9, ", "true"),
    ("optim", "name = \"adamw\"", "betas = [0.9, ", "-0.5"),
    ("schedule", "name = \"multi_step\"", "milestones = [5, ", "5"),
    ("schedule", "name = \"multi_step\"", "milestones = [5, ", "4"),
    ("schedule", "name = \"multi_step\"", "milestones = [5, ", "0"),
    ("schedule", "name = \"multi_step\"", "milestones = [5, ", "\"6\""),
    ("backward", "", "layers = { a = \"ad\", b = ", "\"adx\""),
    ("backward", "", "layers = { a = \"ad\", b = ", "1"),
    ("backward", "", "layers = { a = \"ad\", ", "\"b c\" = \"ad\""),
    ("backward", "", "layers = { a = \"ad\", ", "\".b\" = \"ad\""),
    ("model", "name = \"mlp\"", "neurons = { a = \"ours\", b = ", "\"hours\""),
    ("model", "name = \"mlp\"", "neurons = { a = \"ours\", ", "\"b c\" = \"ours\""),
    ("sparse", "", "layers = { a = 0.5, b = ", "1"),
    ("sparse", "", "layers = { a = 0.5, b = ", "\"0.5\""),
    ("sparse", "", "layers = { a = 0.5, ", "\"b c\" = 0.5"),
    ("sparse", "", "skip = [\"a\", ", "\"b c\""),
    ("sparse", "", "skip = [\"a\", ", "1"),
    ("sparse", "", "n_of_m = [2, ", "true"),
    ("sparse", "", "n_of_m = [2, ", "-4"),
    ("import", "", "names = { a = \"b\", c = ", "1"),
    ("import", "", "names = { a = \"b\", \"c.*\" = ", "\"d\""),
    ("import", "", "names = { a = \"b\", ", "\"c?\" = \"d\""),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { lr = 1, pattern = ", "\"\""),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { lr = 1, pattern = ", "\"a$\""),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { lr = 1, pattern = ", "3"),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { pattern = \"b\", lr = ", "-1"),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { pattern = \"b\", lr = ", "\"1\""),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { pattern = \"b\", weight_decay = ", "-1"),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { pattern = \"b\", weight_decay = ", "[]"),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, ", "{ pattern = \"b\" }"),
    ("optim", "name = \"sgd\"", "groups = [{ pattern = \"a\", lr = 1 }, { pattern = \"b\", lr = 1, ", "wieght_decay = 1"),
];

/// A correct file but for one line, and the number of that line.
fn document(section: &str, selector: &str, key: &str, line: &str) -> (String, usize) {
    let required = [
        ("", "name = \"t\""),
        ("data", "dataset = \"shapes\""),
        ("data.augment", ""),
        ("model", "name = \"mlp\""),
        ("backward", ""),
        ("train", ""),
        ("optim", "name = \"sgd\""),
        ("schedule", "name = \"constant\""),
        ("log", ""),
        ("import", ""),
        ("autobuild", "max_drop = 1.0"),
        ("quantize", ""),
        ("sparse", ""),
        ("sparse.gmp", ""),
        ("sparse.acdc", ""),
        ("sparse.int8", ""),
    ];
    let mut text = String::from("# a comment: 漢字\n");
    let mut number = 0;
    for (name, lines) in required {
        // An inline table and a section of the same name exclude each other.
        if name.rsplit_once('.').is_some_and(|(_, inner)| inner == key) {
            continue;
        }
        if !name.is_empty() {
            text.push_str(&format!("[{name}]\n"));
        }
        let lines = if name == section && (!section.is_empty() || key == "name") { selector } else { lines };
        for other in lines.lines().filter(|other| name != section || !other.starts_with(&format!("{key} ="))) {
            text.push_str(&format!("{other}\n"));
        }
        if name == section {
            number = text.lines().count() + 1;
            text.push_str(&format!("{line}\n"));
        }
    }
    (text, number)
}

fn mistakes(text: &str) -> Vec<Diagnostic> {
    match Experiment::parse("t.toml", text, &[]) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.list,
    }
}

#[test]
fn a_good_value_is_accepted() {
    for Case { section, selector, key, good, .. } in CASES {
        let (text, _) = document(section, selector, key, &format!("  {key} = {good}"));
        assert_eq!(mistakes(&text), [], "{text}");
    }
}

#[test]
fn a_typo_is_found_at_the_key() {
    for Case { section, selector, key, good, .. } in CASES {
        let mut typos = vec![format!("{key}x")];
        if key.len() > 4 {
            typos.push(format!("{}{}", &key[..2], &key[3..]));
            typos.push(format!("{}{}{}{}", &key[..1], &key[2..3], &key[1..2], &key[3..]));
        }
        for typo in typos.iter().filter(|typo| typo != key) {
            let (text, line) = document(section, selector, key, &format!("  {typo} = {good}"));
            let found = mistakes(&text);
            let at = found.iter().find(|found| (found.line, found.column) == (line, 3));
            let at = at.unwrap_or_else(|| panic!("nothing at {line}:3 in\n{text}\n{found:#?}"));
            assert!(at.message.starts_with("unknown ") && at.message.contains(typo.as_str()), "{at:?}");
            assert_eq!(at.length, typo.len(), "{at:?}");
            assert_eq!(at.source_line, format!("  {typo} = {good}"));
            // A table at the top level is taken for a section.
            let hint = at.hint.as_deref().unwrap_or_default();
            assert!(hint.contains(key), "{typo}: {hint}");
        }
    }
}

#[test]
fn a_wrong_type_and_an_impossible_value_are_found_at_the_value() {
    for Case { section, selector, key, wrong_type, impossible, .. } in CASES {
        for value in wrong_type.iter().chain(*impossible) {
            let (text, line) = document(section, selector, key, &format!("  {key}  = {value} # é"));
            let found = mistakes(&text);
            let places: Vec<_> = found.iter().map(|found| (found.line, found.column, found.length)).collect();
            let column = 3 + key.len() + 4;
            assert_eq!(places, [(line, column, value.chars().count())], "{text}\n{found:#?}");
        }
    }
}

#[test]
fn mistakes_inside_arrays_and_tables_are_found_at_their_place() {
    for (section, selector, before, value) in INNER {
        let closing = if before.contains("groups") && !value.starts_with('{') {
            " }]"
        } else if before.contains('{') && !before.contains("groups") {
            " }"
        } else {
            "]"
        };
        let (text, line) = document(section, selector, "", &format!("\t{before}{value}{closing}"));
        let found = mistakes(&text);
        let places: Vec<_> = found.iter().map(|found| (found.line, found.column)).collect();
        let group = if value.starts_with('{') { "{ pattern = ".len() } else { 0 };
        assert_eq!(places, [(line, before.chars().count() + 2 + group)], "{text}\n{found:#?}");
    }
}

/// The tables above are complete: every key that a written experiment has, and every optional one, is in them.
#[test]
fn every_key_is_in_the_table() {
    let mut wanted = BTreeSet::new();
    let mut add = |text: String| {
        let experiment = Experiment::parse("t.toml", text, &[]).unwrap();
        let table: toml::Table = experiment.to_toml().unwrap().parse().unwrap();
        let mut queue: Vec<(String, toml::Table)> = vec![(String::new(), table)];
        while let Some((section, table)) = queue.pop() {
            for (key, value) in table {
                let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
                let is_section = matches!(section.as_str(), "" | "data" | "sparse") && value.is_table();
                if is_section && key != "layers" {
                    queue.push((path, value.as_table().unwrap().clone()));
                } else {
                    wanted.insert((section.clone(), key));
                }
            }
        }
    };
    let document = |model: &str, optim: &str, schedule: &str| {
        let more = if schedule == "multi_step" { "milestones = [1]" } else { "" };
        let own = match model {
            "vgg11" => "layers = [1]",
            "resnet20" => "blocks = [1, 1, 1]",
            _ => "",
        };
        format!(
            "name = \"t\"\n[data]\ndataset = \"folder\"\npath = \"p\"\nimage_size = 8\n[model]\nname = \"{model}\"\ndropout = 0.1\n\
             {own}\n[optim]\nname = \"{optim}\"\n[schedule]\nname = \"{schedule}\"\n{more}\n\
             [quantize]\nfirst_last_bits = 8\nactivation_bits = 8\n\
             [sparse]\nn_of_m = [2, 4]\nskip = []\n[sparse.gmp]\nend = 1\n\
             [autobuild]\nmax_parameters = 1\nmax_macs = 1\nmax_drop = 1\nepochs = 1\nreduced_epochs = 1\n"
        )
    };
    for model in ModelName::NAMES {
        add(document(model, "sgd", "constant"));
    }
    for optim in OptimName::NAMES {
        add(document("mlp", optim, "constant"));
    }
    for schedule in ScheduleName::NAMES {
        add(document("mlp", "sgd", schedule));
    }
    let tested: BTreeSet<_> = CASES.iter().map(|case| (case.section.to_owned(), case.key.to_owned())).collect();
    let missing: Vec<_> = wanted.difference(&tested).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

/// Sparse settings that make no sense together, each with a part of what is said.
#[test]
fn sparse_settings_that_exclude_each_other_are_refused() {
    for (lines, expected) in [
        ("n_of_m = [2, 4]\nscope = \"global\"", "scope \"global\" and \"n_of_m\" exclude each other"),
        ("n_of_m = [2, 4]\nlayers = { a = 0.5 }", "\"layers\" and \"n_of_m\" exclude each other"),
        ("n_of_m = [2, 4]\nmethod = \"gmp\"", "takes no \"n_of_m\""),
        ("method = \"gmp\"\n[sparse.gmp]\nend = 3", "before epoch 3, counted from 0, but there are 3 epochs"),
        ("method = \"gmp\"\n[sparse.gmp]\nstart = 3", "before epoch 3, counted from 0, but there are 3 epochs"),
        ("[sparse.gmp]\nstart = 3\nend = 2", "\"end\" must not be before \"start\": 2 is below 3"),
        ("method = \"acdc\"\n[sparse.acdc]\nwarmup = 2\nfinish = 2", "are more than the 3 of the run"),
    ] {
        let text = format!(
            "name = \"t\"\n[data]\ndataset = \"shapes\"\n[model]\nname = \"mlp\"\n[optim]\nname = \"sgd\"\n[train]\nepochs = 3\n[sparse]\n{lines}\n"
        );
        let found = mistakes(&text);
        assert!(found.len() == 1 && found[0].message.contains(expected), "{lines}: {found:#?}");
    }
}

#[test]
fn an_auto_builder_without_a_budget_is_refused() {
    let text = "name = \"t\"\n[data]\ndataset = \"shapes\"\n[model]\nname = \"vgg11\"\n[optim]\nname = \"sgd\"\n[autobuild]\nseeds = 2\n";
    let found = mistakes(text);
    assert_eq!(found.iter().map(|found| found.line).collect::<Vec<_>>(), [8], "{found:#?}");
    assert!(found[0].message.contains("budget") && found[0].hint.as_deref().is_some_and(|h| h.contains("max_drop")));
}
