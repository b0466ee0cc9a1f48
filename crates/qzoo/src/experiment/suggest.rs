//! The nearest valid name to one that is not.

/// Names that people know from elsewhere, and what they are called here.
const KNOWN_AS: &[(&str, &str)] = &[
    ("learning_rate", "lr"),
    ("wd", "weight_decay"),
    ("l2", "weight_decay"),
    ("optimizer", "optim"),
    ("optimiser", "optim"),
    ("scheduler", "schedule"),
    ("lr_schedule", "schedule"),
    ("training", "train"),
    ("normalise", "normalize"),
    ("hidden", "widths"),
    ("bn", "batch_norm"),
];

/// The candidate that `word` was probably meant to be, if one is near enough.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Longer than any name: not worth a quadratic comparison.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace(['-', ' '], "_");
    let known_as = KNOWN_AS.iter().find(|(foreign, _)| *foreign == word).map(|(_, here)| *here);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let plain = candidate.to_lowercase().replace('-', "_");
            let distance = strsim::damerau_levenshtein(&word, &plain);
            let near = distance <= 1 + word.chars().count() / 4;
            let part = word.len() >= 3 && plain.len() >= 3 && (plain.contains(&word) || word.contains(&plain));
            let rank = if known_as == Some(candidate) || distance == 0 {
                0
            } else if near && distance < plain.chars().count().max(2) {
                distance
            } else if part {
                distance + 100
            } else {
                return None;
            };
            Some((rank, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// `did you mean "x"?`
pub(crate) fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    nearest(word, candidates).map(|name| format!("did you mean {name:?}?"))
}

/// `one of "a", "b", "c"`
pub(super) fn one_of<'c>(names: impl IntoIterator<Item = &'c str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    format!("one of {}", quoted.join(", "))
}
