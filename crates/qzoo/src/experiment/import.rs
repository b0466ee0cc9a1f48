//! `[import]`: which tensor of a foreign checkpoint becomes which of the model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::data::check_path;
use super::pattern;

/// `[import]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Import {
    /// The checkpoint, as a path below the data root: `quantize` imports it where there is no run of the experiment yet, and `import` takes it where none is
    /// named. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What stands before every name in the file, without the last dot, such as `net` or `state_dict.module`. Default: the one with which
    /// most names fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Pattern of names in the file (after the prefix; `*` any characters) to the name in the model, which has as many `*`: each stands for
    /// what it stood for in the pattern. Where several match, the longest pattern wins; names that none matches stay. Default none.
    pub names: BTreeMap<String, String>,
}

impl Import {
    /// The model's name for a name in the file, after the prefix.
    pub fn name_of(&self, name: &str) -> String {
        let renamed = self
            .names
            .iter()
            .filter_map(|(wanted, new)| Some((wanted.chars().count(), fill(new, &captures(wanted, name)?))))
            .max_by_key(|(length, _)| *length);
        renamed.map_or_else(|| name.to_string(), |(_, name)| name)
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if let Some(path) = &self.file {
            check_path("file", path, checker);
        }
        if let Some(prefix) = self.prefix.as_deref().filter(|prefix| !prefix.is_empty())
            && let Some(mistake) = mistake(prefix, 0)
        {
            checker.wrong(
                "prefix",
                format!("\"prefix\" is no beginning of names: {mistake}"),
                Some("prefix = \"net\""),
            );
        }
        let mut checker = checker.within("names");
        for (wanted, new) in &self.names {
            let stars = wanted.matches('*').count();
            if let Some(mistake) = mistake(wanted, stars) {
                checker.wrong_key(wanted, format!("{wanted:?} is no pattern of names in the file: {mistake}"));
            } else if let Some(mistake) = mistake(new, stars) {
                let message = format!("{new:?} is no name for what {wanted:?} matches: {mistake}");
                checker.wrong(wanted.as_str(), message, None);
            }
        }
    }
}

/// What is wrong with a name that should have so many stars, if anything.
fn mistake(name: &str, stars: usize) -> Option<String> {
    if name.contains('?') {
        return Some("`?` cannot be carried over; use `*`".into());
    }
    match name.matches('*').count() {
        count if count != stars => Some(format!("it has {count} `*` and should have {stars}")),
        _ => pattern::mistake(name),
    }
}

/// What each star of the pattern stands for, as little as possible from left to right; none where it does not match.
fn captures<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let mut parts = pattern.split('*');
    let mut rest = name.strip_prefix(parts.next()?)?;
    let mut captures = Vec::new();
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        // The last part must reach the end.
        let at = if parts.peek().is_none() { rest.strip_suffix(part)?.len() } else { rest.find(part)? };
        captures.push(&rest[..at]);
        rest = &rest[at + part.len()..];
    }
    rest.is_empty().then_some(captures)
}

fn fill(name: &str, captures: &[&str]) -> String {
    let mut captures = captures.iter();
    let mut filled = String::new();
    for (i, part) in name.split('*').enumerate() {
        if i > 0 {
            filled.push_str(captures.next().unwrap_or(&""));
        }
        filled.push_str(part);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_carried_over() {
        let names = [("features.*.conv*", "layer*.conv.*"), ("features.*", "stem.*"), ("head", "fc")];
        let import = Import { names: names.map(|(a, b)| (a.to_string(), b.to_string())).into(), ..Import::default() };
        for (name, expected) in [
            ("features.3.conv.weight", "layer3.conv..weight"),
            ("features.0.bn.bias", "stem.0.bn.bias"),
            ("head", "fc"),
            ("head.weight", "head.weight"),
            ("a.features.1", "a.features.1"),
        ] {
            assert_eq!(import.name_of(name), expected);
        }
        assert_eq!(captures("a*b*", "aXbYb"), Some(vec!["X", "Yb"]));
        assert_eq!(captures("*b", "ab b"), Some(vec!["ab "]));
        assert_eq!(captures("ab", "abc"), None);
        assert_eq!(captures("a*a", "a"), None);
    }
}
