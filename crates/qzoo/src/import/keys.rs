use crate::experiment::Import;
use std::collections::{BTreeSet, HashMap};

/// A named tensor of a file or a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dimensions.
    pub shape: &'a [usize],
}

/// How a tensor was matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// By its name.
    Name,
    /// By the last part of its name, its shape and the order of the file: a guess.
    Order,
}

/// Which tensor of a file becomes which of a model; tensors are given by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// What stood before the names in the file.
    pub prefix: String,
    /// Position in the file for each tensor of the model; none for those that are not in it.
    pub of_model: Vec<Option<usize>>,
    /// Tensors of the model that were matched by order: a guess.
    pub guessed: Vec<usize>,
    /// Tensors of the file behind the prefix that the model lacks.
    pub dropped: Vec<usize>,
    /// Tensors of the file that stand elsewhere, such as those of an optimizer.
    pub elsewhere: Vec<usize>,
}

/// Ends the names of counters, which files of PyTorch before 0.4.1 do not have.
pub(super) const COUNTER: &str = "num_batches_tracked";

/// Finds each tensor of the model in the file.
///
/// The names in the file, after the prefix and renamed by `rules`, are those of the model; where no prefix is given it is the one with which most names fit.
/// If that leaves tensors of the model unmatched and there are no rules, the order of the others is tried. Where some names fitted, the rest must have, for each
/// last part of a name (`weight`, `bias`, …) and each shape, as many tensors in the file as in the model. Where none did, the file must have as many tensors as the
/// model for each last part, of the same shapes one after the other. Where that fails too, the match by names is returned with what it lacks.
pub fn match_keys(file: &[Key<'_>], model: &[Key<'_>], rules: &Import) -> Matching {
    let by_names = by_names(file, model, rules);
    if by_names.missing(model).next().is_none() || !rules.names.is_empty() {
        return by_names;
    }
    let guess = match by_names.of_model.iter().flatten().next() {
        Some(_) => by_names.completed(file, model),
        None => by_order(file, model, rules),
    };
    guess.unwrap_or(by_names)
}

impl Matching {
    /// Tensors of the model that must be in the file and are not. Counters need not be.
    pub fn missing<'m>(&'m self, model: &'m [Key<'_>]) -> impl Iterator<Item = usize> + 'm {
        let absent = (0..model.len()).filter(|i| self.of_model[*i].is_none());
        absent.filter(|i| leaf(model[*i].name) != COUNTER)
    }

    /// With what is missing matched by order, class by class of last part and shape.
    fn completed(&self, file: &[Key<'_>], model: &[Key<'_>]) -> Option<Matching> {
        let class = |key: &Key<'_>, wanted: &Key<'_>| leaf(key.name) == leaf(wanted.name) && key.shape == wanted.shape;
        let absent: Vec<usize> = (0..model.len()).filter(|i| self.of_model[*i].is_none()).collect();
        let mut of_model = self.of_model.clone();
        for i in &absent {
            let alike = absent.iter().filter(|other| class(&model[**other], &model[*i]));
            let place = alike.clone().take_while(|other| *other != i).count();
            let candidates: Vec<usize> =
                self.dropped.iter().copied().filter(|other| class(&file[*other], &model[*i])).collect();
            if candidates.len() == alike.count() {
                of_model[*i] = Some(candidates[place]);
            } else if leaf(model[*i].name) != COUNTER {
                return None;
            }
        }
        let guessed = absent.into_iter().filter(|i| of_model[*i].is_some()).collect();
        Some(Matching { guessed, ..Matching::new(&self.prefix, file, of_model) })
    }

    fn new(prefix: &str, file: &[Key<'_>], of_model: Vec<Option<usize>>) -> Self {
        let used: BTreeSet<usize> = of_model.iter().flatten().copied().collect();
        let unused = (0..file.len()).filter(|i| !used.contains(i));
        let (dropped, elsewhere) = unused.partition(|i| behind(prefix, file[*i].name).is_some());
        Matching { prefix: prefix.to_string(), of_model, guessed: Vec::new(), dropped, elsewhere }
    }
}

/// What follows the prefix and its dot.
pub(super) fn behind<'n>(prefix: &str, name: &'n str) -> Option<&'n str> {
    if prefix.is_empty() { Some(name) } else { name.strip_prefix(prefix)?.strip_prefix('.') }
}

/// The last part of a name.
fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn by_names(file: &[Key<'_>], model: &[Key<'_>], rules: &Import) -> Matching {
    let positions: HashMap<&str, usize> = model.iter().enumerate().map(|(i, key)| (key.name, i)).collect();
    let prefix = rules.prefix.clone().unwrap_or_else(|| likeliest_prefix(file, &positions, rules).to_string());
    let mut of_model = vec![None; model.len()];
    for (i, key) in file.iter().enumerate() {
        let Some(rest) = behind(&prefix, key.name) else { continue };
        if let Some(position) = positions.get(rules.name_of(rest).as_str()) {
            // Of two with one name the first holds, and the other one is dropped.
            of_model[*position].get_or_insert(i);
        }
    }
    Matching::new(&prefix, file, of_model)
}

/// The prefix with which most names are those of the model, the shortest among equals.
fn likeliest_prefix<'f>(file: &[Key<'f>], positions: &HashMap<&str, usize>, rules: &Import) -> &'f str {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for key in file {
        let splits = std::iter::once(("", key.name))
            .chain(key.name.match_indices('.').map(|(dot, _)| (&key.name[..dot], &key.name[dot + 1..])));
        for (prefix, rest) in splits {
            if positions.contains_key(rules.name_of(rest).as_str()) {
                *counts.entry(prefix).or_default() += 1;
            }
        }
    }
    let best = counts.into_iter().max_by_key(|(prefix, count)| (*count, std::cmp::Reverse((prefix.len(), *prefix))));
    best.map_or("", |(prefix, _)| prefix)
}

/// The first part of the file whose order fits.
fn by_order(file: &[Key<'_>], model: &[Key<'_>], rules: &Import) -> Option<Matching> {
    let mut prefixes: Vec<&str> = Vec::new();
    match &rules.prefix {
        Some(prefix) => prefixes.push(prefix),
        None => {
            let mut seen = BTreeSet::new();
            let first = file.iter().filter_map(|key| Some(key.name.split_once('.')?.0));
            prefixes.extend(first.filter(|first| seen.insert(*first)));
            prefixes.push("");
        }
    }
    prefixes.into_iter().find_map(|prefix| {
        let of_model = in_order(prefix, file, model)?;
        let guessed = (0..model.len()).filter(|i| of_model[*i].is_some()).collect();
        Some(Matching { guessed, ..Matching::new(prefix, file, of_model) })
    })
}

fn in_order(prefix: &str, file: &[Key<'_>], model: &[Key<'_>]) -> Option<Vec<Option<usize>>> {
    let leaves: BTreeSet<&str> = model.iter().map(|key| leaf(key.name)).collect();
    let mut of_model = vec![None; model.len()];
    for wanted in leaves {
        let of = |keys: &[Key<'_>], prefix: &str| -> Vec<usize> {
            let has = |key: &Key<'_>| behind(prefix, key.name).is_some_and(|rest| leaf(rest) == wanted);
            (0..keys.len()).filter(|i| has(&keys[*i])).collect()
        };
        let (ours, theirs) = (of(model, ""), of(file, prefix));
        if theirs.is_empty() && wanted == COUNTER {
            continue;
        }
        if ours.len() != theirs.len() {
            return None;
        }
        for (our, their) in ours.into_iter().zip(theirs) {
            if model[our].shape != file[their].shape {
                return None;
            }
            of_model[our] = Some(their);
        }
    }
    Some(of_model)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &[Key<'static>] = &[
        Key { name: "conv1.weight", shape: &[4, 3, 3, 3] },
        Key { name: "bn1.weight", shape: &[4] },
        Key { name: "bn1.bias", shape: &[4] },
        Key { name: "fc.weight", shape: &[2, 4] },
        Key { name: "fc.bias", shape: &[2] },
        Key { name: "bn1.num_batches_tracked", shape: &[] },
    ];

    fn file<'a>(names: &[&'a str]) -> Vec<Key<'a>> {
        let shape = |i: usize| MODEL.get(i).map_or(&[][..], |key| key.shape);
        names.iter().enumerate().map(|(i, name)| Key { name, shape: shape(i) }).collect()
    }

    #[test]
    fn prefixes_are_found_and_what_stands_elsewhere_is_told_apart() {
        for prefix in ["", "net", "state_dict.module"] {
            let dotted = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
            let mut names: Vec<String> = MODEL.iter().map(|key| format!("{dotted}{}", key.name)).collect();
            names.push(format!("{dotted}conv1.bias"));
            names.push("optimizer.state.0.momentum_buffer".into());
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let matching = match_keys(&file(&names), MODEL, &Import::default());
            assert_eq!((matching.guessed.len(), matching.prefix.as_str()), (0, prefix));
            assert_eq!(matching.of_model, (0..6).map(Some).collect::<Vec<_>>());
            let (dropped, elsewhere) = if prefix.is_empty() { (vec![6, 7], vec![]) } else { (vec![6], vec![7]) };
            assert_eq!((matching.dropped, matching.elsewhere), (dropped, elsewhere));
        }
    }

    #[test]
    fn rules_rename_and_counters_may_be_missing() {
        let rules = Import {
            prefix: Some("m".into()),
            names: [("stem.*", "conv1.*"), ("norm.*", "bn1.*")].map(|(a, b)| (a.into(), b.into())).into(),
            ..Import::default()
        };
        let found = file(&["m.stem.weight", "m.norm.weight", "m.norm.bias", "m.fc.weight", "m.fc.bias"]);
        let matching = match_keys(&found, MODEL, &rules);
        assert_eq!(matching.of_model[..5], [Some(0), Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!((matching.of_model[5], matching.missing(MODEL).count()), (None, 0));
    }

    #[test]
    fn order_is_tried_only_where_it_fits_whole() {
        let names = ["a.0.weight", "a.1.weight", "a.1.bias", "a.9.weight", "a.9.bias"];
        let matching = match_keys(&file(&names), MODEL, &Import::default());
        assert_eq!((matching.guessed.as_slice(), matching.prefix.as_str()), (&[0, 1, 2, 3, 4][..], "a"));
        assert_eq!(matching.of_model[..5], [Some(0), Some(1), Some(2), Some(3), Some(4)]);
        let fewer = match_keys(&file(&names[..4]), MODEL, &Import::default());
        assert_eq!((fewer.guessed.len(), fewer.missing(MODEL).count()), (0, 5));
        let mut other = file(&names);
        other[3].shape = &[4, 2];
        assert_eq!(match_keys(&other, MODEL, &Import::default()).missing(MODEL).count(), 5);
    }

    #[test]
    fn a_layer_of_another_name_is_completed_unless_it_is_ambiguous() {
        let names = ["conv1.weight", "bn1.weight", "bn1.bias", "linear.weight", "linear.bias"];
        let matching = match_keys(&file(&names), MODEL, &Import::default());
        assert_eq!(
            (matching.guessed.as_slice(), matching.of_model[3], matching.of_model[4]),
            (&[3, 4][..], Some(3), Some(4))
        );
        let mut two = file(&names);
        two.push(Key { name: "other.bias", shape: &[2] });
        let matching = match_keys(&two, MODEL, &Import::default());
        assert_eq!((matching.guessed.len(), matching.missing(MODEL).count()), (0, 2));
    }
}
