//! The whole tree of an experiment file to the whole [`Experiment`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::decode::{Decoder, Pairs, Place, keys_of, kind, shorten, take_item};
use super::suggest::{did_you_mean, nearest, one_of};
use super::value::Item;
use super::{
    AcDc, Adadelta, Adam, AdamW, Augment, Autobuild, Backward, Constant, Cosine, CosineRestarts, Data, Experiment,
    Finetune, Gmp, Group, Import, Log, Model, ModelName, MultiStep, Named, OneCycle, Optim, OptimName, Poly, Quantize,
    Rule, Schedule, ScheduleName, ScheduleUnit, Sgd, Shape, Sparse, SparseInt8, Step, Train,
};

/// The keys above the first section.
const TOP: &[&str] = &["name", "seed"];
/// The sections.
const SECTIONS: &[&str] =
    &["data", "model", "backward", "train", "optim", "schedule", "log", "import", "autobuild", "quantize", "sparse"];

/// The keys that every optimizer has. Those that are missing have a default that depends on the optimizer.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OptimKeys {
    lr: Option<f64>,
    weight_decay: Option<f64>,
    decay_norms_and_biases: Option<bool>,
    quadratic_lr: Option<f64>,
}

/// The keys that every schedule has.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScheduleKeys {
    unit: Option<ScheduleUnit>,
    warmup_epochs: Option<f64>,
    warmup_start: Option<f64>,
}

/// Reads the tree; the mistakes go to the decoder, and what is wrong or missing keeps its default.
pub(super) fn experiment(root: &DeTable<'_>, decoder: &mut Decoder) -> Experiment {
    let mut experiment = Experiment::default();
    let mut pairs: Pairs<'_, '_> = root.iter().collect();
    pairs.retain(|(key, item)| {
        let name: &str = key.get_ref();
        let known = TOP.contains(&name) || SECTIONS.contains(&name);
        if !known {
            unknown_at_top(decoder, name, key.span(), item);
        }
        known
    });
    match decoder.take(&mut pairs, "name") {
        Some(name) => experiment.name = name.unwrap_or_default(),
        None => decoder.find(0..0, "missing key \"name\"".into(), Some("name = \"my-experiment\"".into())),
    }
    if let Some(Some(seed)) = decoder.take(&mut pairs, "seed") {
        experiment.seed = seed;
    }
    let mut section =
        |decoder: &mut Decoder, name: &'static str, read: &mut dyn FnMut(&mut Decoder, Section<'_, '_>)| {
            let Some(item) = take_item(&mut pairs, name) else { return false };
            if let Some(table) = decoder.table(name, item) {
                read(decoder, Section { name, item, pairs: table.iter().collect() });
            }
            true
        };
    if !section(decoder, "data", &mut |decoder, section| experiment.data = data(decoder, section)) {
        missing_section(decoder, "data", "dataset = \"shapes\"");
    }
    if !section(decoder, "model", &mut |decoder, section| experiment.model = model(decoder, section)) {
        missing_section(decoder, "model", "name = \"small_cnn\"");
    }
    if !section(decoder, "optim", &mut |decoder, section| experiment.optim = optim(decoder, section)) {
        missing_section(decoder, "optim", "name = \"sgd\"");
    }
    section(decoder, "backward", &mut |decoder, section| experiment.backward = backward(decoder, section));
    section(decoder, "schedule", &mut |decoder, section| experiment.schedule = schedule(decoder, section));
    section(decoder, "train", &mut |decoder, section| experiment.train = plain::<Train>(decoder, section));
    section(decoder, "log", &mut |decoder, section| experiment.log = plain::<Log>(decoder, section));
    section(decoder, "import", &mut |decoder, section| experiment.import = import(decoder, section));
    section(decoder, "quantize", &mut |decoder, section| experiment.quantize = Some(quantize(decoder, section)));
    section(decoder, "sparse", &mut |decoder, section| experiment.sparse = Some(sparse(decoder, section)));
    section(decoder, "autobuild", &mut |decoder, section| {
        experiment.autobuild = Some(plain::<Autobuild>(decoder, section));
    });
    experiment
}

/// A section as it stands in the file.
struct Section<'a, 's> {
    name: &'static str,
    item: &'a Item<'s>,
    pairs: Pairs<'a, 's>,
}

fn missing_section(decoder: &mut Decoder, name: &str, example: &str) {
    decoder.find(0..0, format!("missing section [{name}]"), Some(format!("add [{name}] with at least {example}")));
}

fn unknown_at_top(decoder: &mut Decoder, name: &str, span: std::ops::Range<usize>, item: &Item<'_>) {
    let (what, sections) = match item.get_ref().as_table() {
        Some(_) => (format!("unknown section [{}]", shorten(name).escape_debug()), true),
        None => (format!("unknown key {:?} at the top level", shorten(name)), false),
    };
    let names = if sections { SECTIONS } else { TOP };
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) if sections => format!("did you mean [{near}]?"),
        Some(near) => format!("did you mean {near:?}?"),
        None => match owner_of(name, "") {
            Some(owner) => format!("{name:?} belongs in {owner}"),
            None if sections => format!("the sections are {}", SECTIONS.join(", ")),
            None => format!("the keys here are {}; all others stand in sections", TOP.join(" and ")),
        },
    };
    decoder.find(span, what, Some(hint));
}

/// The keys of every section, whatever is named in them.
fn all_keys() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut optim = optim_keys();
    optim.extend(OptimName::ALL.iter().flat_map(|name| rule_keys(*name)));
    let mut schedule = schedule_keys();
    schedule.extend(ScheduleName::ALL.iter().flat_map(|name| shape_keys(*name)));
    vec![
        ("", TOP.to_vec()),
        ("data", keys_of::<Data>().to_vec()),
        ("data.augment", keys_of::<Augment>().to_vec()),
        ("model", keys_of::<Model>().to_vec()),
        ("backward", keys_of::<Backward>().to_vec()),
        ("train", keys_of::<Train>().to_vec()),
        ("optim", optim),
        ("schedule", schedule),
        ("log", keys_of::<Log>().to_vec()),
        ("import", keys_of::<Import>().to_vec()),
        ("autobuild", keys_of::<Autobuild>().to_vec()),
        ("quantize", keys_of::<Quantize>().to_vec()),
        ("sparse", keys_of::<Sparse>().to_vec()),
        ("sparse.gmp", keys_of::<Gmp>().to_vec()),
        ("sparse.acdc", keys_of::<AcDc>().to_vec()),
        ("sparse.int8", keys_of::<SparseInt8>().to_vec()),
        ("sparse.finetune", keys_of::<Finetune>().to_vec()),
    ]
}

/// The section other than `here` that has this key, as messages name it.
fn owner_of(key: &str, here: &str) -> Option<String> {
    let (owner, _) = all_keys().into_iter().find(|(section, keys)| *section != here && keys.contains(&key))?;
    Some(if owner.is_empty() { "the top level, above the first section".into() } else { format!("[{owner}]") })
}

/// Refuses the keys that a section does not have.
fn refuse_unknown(decoder: &mut Decoder, pairs: &mut Pairs<'_, '_>, section: &str, keys: Vec<&'static str>) {
    let elsewhere = |key: &str| {
        let owner = if key == "name" { None } else { owner_of(key, section) };
        owner.map(|owner| format!("{key:?} belongs in {owner}"))
    };
    decoder.refuse_unknown(pairs, &Place { name: &format!("in [{section}]"), keys, elsewhere: &elsewhere });
}

/// A section that is one struct.
fn plain<T: DeserializeOwned + Default>(decoder: &mut Decoder, section: Section<'_, '_>) -> T {
    let mut pairs = section.pairs;
    refuse_unknown(decoder, &mut pairs, section.name, keys_of::<T>().to_vec());
    decoder.fields(&pairs)
}

/// Reports a key that its section cannot do without.
fn missing_key<N: Named>(decoder: &mut Decoder, section: &Section<'_, '_>, key: &str) {
    let names = N::ENTRIES.iter().map(|entry| entry.name);
    let message = format!("missing key {key:?} in [{}]", section.name);
    decoder.find(section.item.span(), message, Some(one_of(names)));
}

fn data(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Data {
    if !section.pairs.iter().any(|(key, _)| key.get_ref() == "dataset") {
        missing_key::<super::Dataset>(decoder, &section, "dataset");
    }
    let augment = inner(decoder, &mut section, "augment", "data.augment");
    Data { augment, ..plain(decoder, section) }
}

fn model(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Model {
    let name: Option<ModelName> = match decoder.take(&mut section.pairs, "name") {
        Some(name) => name,
        None => {
            missing_key::<ModelName>(decoder, &section, "name");
            None
        }
    };
    let mut pairs = section.pairs;
    refuse_unknown(decoder, &mut pairs, "model", keys_of::<Model>().to_vec());
    let Some(name) = name else { return decoder.fields(&pairs) };
    pairs.retain(|(key, _)| {
        let taken = name.takes(key.get_ref());
        if !taken {
            let takers: Vec<&str> =
                ModelName::ALL.iter().filter(|model| model.takes(key.get_ref())).map(|model| model.name()).collect();
            let message = format!("{:?} does not apply to the model {name}", key.get_ref());
            decoder.find(key.span(), message, Some(format!("only to {}", takers.join(", "))));
        }
        taken
    });
    Model { name, ..decoder.fields(&pairs) }
}

fn backward(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Backward {
    let layers = by_pattern(decoder, &mut section, "layers");
    Backward { layers, ..plain(decoder, section) }
}

fn import(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Import {
    let names = by_pattern(decoder, &mut section, "names");
    Import { names, ..plain(decoder, section) }
}

fn quantize(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Quantize {
    let layer_bits = by_pattern(decoder, &mut section, "layer_bits");
    Quantize { layer_bits, ..plain(decoder, section) }
}

fn sparse(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Sparse {
    let layers = by_pattern(decoder, &mut section, "layers");
    let gmp = inner(decoder, &mut section, "gmp", "sparse.gmp");
    let acdc = inner(decoder, &mut section, "acdc", "sparse.acdc");
    let int8 = inner(decoder, &mut section, "int8", "sparse.int8");
    let is_finetuned = section.pairs.iter().any(|(key, _)| key.get_ref() == "finetune");
    let finetune = inner(decoder, &mut section, "finetune", "sparse.finetune");
    let finetune = is_finetuned.then_some(finetune);
    Sparse { layers, gmp, acdc, int8, finetune, ..plain(decoder, section) }
}

/// The section of that key within a section, which is one struct; `name` is its full name.
fn inner<T: DeserializeOwned + Default>(
    decoder: &mut Decoder,
    section: &mut Section<'_, '_>,
    key: &str,
    name: &'static str,
) -> T {
    let Some(item) = take_item(&mut section.pairs, key) else { return T::default() };
    let Some(table) = decoder.table(name, item) else { return T::default() };
    plain(decoder, Section { name, item, pairs: table.iter().collect() })
}

/// The table of that name within a section, which has a value for each pattern.
fn by_pattern<T: DeserializeOwned>(
    decoder: &mut Decoder,
    section: &mut Section<'_, '_>,
    name: &str,
) -> BTreeMap<String, T> {
    let mut values = BTreeMap::new();
    let Some(item) = take_item(&mut section.pairs, name) else { return values };
    if let Some(table) = decoder.table(&format!("{}.{name}", section.name), item) {
        for (pattern, item) in table {
            if let Some(value) = decoder.value(pattern.get_ref(), item) {
                values.insert(pattern.get_ref().clone().into_owned(), value);
            }
        }
    }
    values
}

fn optim_keys() -> Vec<&'static str> {
    [&["name", "groups"], keys_of::<OptimKeys>()].concat()
}

/// The keys that only this optimizer has.
fn rule_keys(name: OptimName) -> &'static [&'static str] {
    match name {
        OptimName::Sgd => keys_of::<Sgd>(),
        OptimName::Adam => keys_of::<Adam>(),
        OptimName::AdamW => keys_of::<AdamW>(),
        OptimName::Adadelta => keys_of::<Adadelta>(),
    }
}

fn optim(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Optim {
    let name = variant(decoder, &mut section, &optim_keys(), rule_keys);
    let mut optim = Optim::of(name.unwrap_or(OptimName::Sgd));
    if let Some(item) = take_item(&mut section.pairs, "groups") {
        optim.groups = groups(decoder, item);
    }
    let (common, own) = split(section.pairs, keys_of::<OptimKeys>());
    let keys: OptimKeys = decoder.fields(&common);
    optim.lr = keys.lr.unwrap_or(optim.lr);
    optim.weight_decay = keys.weight_decay.unwrap_or(optim.weight_decay);
    optim.decay_norms_and_biases = keys.decay_norms_and_biases.unwrap_or(optim.decay_norms_and_biases);
    optim.quadratic_lr = keys.quadratic_lr.unwrap_or(optim.quadratic_lr);
    match name {
        Some(OptimName::Sgd) => optim.rule = Rule::Sgd(decoder.fields(&own)),
        Some(OptimName::Adam) => optim.rule = Rule::Adam(decoder.fields(&own)),
        Some(OptimName::AdamW) => optim.rule = Rule::AdamW(decoder.fields(&own)),
        Some(OptimName::Adadelta) => optim.rule = Rule::Adadelta(decoder.fields(&own)),
        None => {}
    }
    optim
}

fn groups(decoder: &mut Decoder, item: &Item<'_>) -> Vec<Group> {
    let Some(items) = item.get_ref().as_array() else {
        let message = format!("\"groups\" must be an array of tables, not {}", kind(item.get_ref()));
        decoder.find(item.span(), message, Some("groups = [{ pattern = \"fc.*\", lr = 0.01 }]".into()));
        return Vec::new();
    };
    let mut groups = Vec::with_capacity(items.len());
    for item in items {
        let Some(table) = item.get_ref().as_table() else {
            let message = format!("an element of \"groups\" must be a table, not {}", kind(item.get_ref()));
            decoder.find(item.span(), message, Some("{ pattern = \"fc.*\", lr = 0.01 }".into()));
            // Keeps the place of the ones that follow.
            groups.push(Group::default());
            continue;
        };
        let mut pairs: Pairs<'_, '_> = table.iter().collect();
        if !pairs.iter().any(|(key, _)| key.get_ref() == "pattern") {
            let hint = "pattern = \"fc.*\"".to_owned();
            decoder.find(item.span(), "missing key \"pattern\" in an element of \"groups\"".into(), Some(hint));
        }
        let place =
            Place { name: "in an element of \"groups\"", keys: keys_of::<Group>().to_vec(), elsewhere: &|_| None };
        decoder.refuse_unknown(&mut pairs, &place);
        groups.push(decoder.fields(&pairs));
    }
    groups
}

fn schedule_keys() -> Vec<&'static str> {
    [&["name"], keys_of::<ScheduleKeys>()].concat()
}

/// The keys that only this schedule has.
fn shape_keys(name: ScheduleName) -> &'static [&'static str] {
    match name {
        ScheduleName::Constant => keys_of::<Constant>(),
        ScheduleName::Step => keys_of::<Step>(),
        ScheduleName::MultiStep => keys_of::<MultiStep>(),
        ScheduleName::Cosine => keys_of::<Cosine>(),
        ScheduleName::CosineRestarts => keys_of::<CosineRestarts>(),
        ScheduleName::Poly => keys_of::<Poly>(),
        ScheduleName::OneCycle => keys_of::<OneCycle>(),
    }
}

fn schedule(decoder: &mut Decoder, mut section: Section<'_, '_>) -> Schedule {
    let header = section.item.span();
    let name = variant(decoder, &mut section, &schedule_keys(), shape_keys);
    let (common, own) = split(section.pairs, keys_of::<ScheduleKeys>());
    if name == Some(ScheduleName::MultiStep) && !own.iter().any(|(key, _)| key.get_ref() == "milestones") {
        let hint = "milestones = [100, 150]".to_owned();
        decoder.find(header, "missing key \"milestones\" in [schedule]".into(), Some(hint));
    }
    let keys: ScheduleKeys = decoder.fields(&common);
    let default = Schedule::default();
    let shape = match name {
        Some(ScheduleName::Constant) | None => default.shape,
        Some(ScheduleName::Step) => Shape::Step(decoder.fields(&own)),
        Some(ScheduleName::MultiStep) => Shape::MultiStep(decoder.fields(&own)),
        Some(ScheduleName::Cosine) => Shape::Cosine(decoder.fields(&own)),
        Some(ScheduleName::CosineRestarts) => Shape::CosineRestarts(decoder.fields(&own)),
        Some(ScheduleName::Poly) => Shape::Poly(decoder.fields(&own)),
        Some(ScheduleName::OneCycle) => Shape::OneCycle(decoder.fields(&own)),
    };
    Schedule {
        shape,
        unit: keys.unit.unwrap_or(default.unit),
        warmup_epochs: keys.warmup_epochs.unwrap_or(default.warmup_epochs),
        warmup_start: keys.warmup_start.unwrap_or(default.warmup_start),
    }
}

/// Reads `name`, the key that says which further keys there are, and refuses those that it does not have.
fn variant<N: Named + DeserializeOwned + std::fmt::Display>(
    decoder: &mut Decoder,
    section: &mut Section<'_, '_>,
    common: &[&'static str],
    own: fn(N) -> &'static [&'static str],
) -> Option<N> {
    let all = || N::ENTRIES.iter().filter_map(|entry| N::from_name(entry.name));
    let name: Option<N> = match decoder.take(&mut section.pairs, "name") {
        Some(name) => name,
        None => {
            missing_key::<N>(decoder, section, "name");
            None
        }
    };
    let mut keys = common.to_vec();
    let Some(name) = name else {
        // Nothing says which keys belong here: refuse only those that no variant has.
        keys.extend(all().flat_map(own));
        refuse_unknown(decoder, &mut section.pairs, section.name, keys);
        return None;
    };
    keys.extend(own(name));
    section.pairs.retain(|(key, _)| {
        let text: &str = key.get_ref();
        let owners: Vec<&str> = all().filter(|other| own(*other).contains(&text)).map(N::name).collect();
        if keys.contains(&text) || owners.is_empty() {
            return true;
        }
        let hint = did_you_mean(text, own(name).iter().copied());
        let hint = hint.unwrap_or_else(|| format!("it is a key of {}", owners.join(", ")));
        decoder.find(key.span(), format!("{text:?} does not apply to {name} in [{}]", section.name), Some(hint));
        false
    });
    refuse_unknown(decoder, &mut section.pairs, section.name, keys);
    Some(name)
}

/// The pairs with these keys, and the others.
fn split<'a, 's>(pairs: Pairs<'a, 's>, keys: &[&str]) -> (Pairs<'a, 's>, Pairs<'a, 's>) {
    pairs.into_iter().partition(|(key, _)| keys.contains(&&**key.get_ref()))
}
