//! Patterns of layer and parameter names: `*` stands for any characters (none and dots included), `?` for exactly one.

use std::collections::BTreeMap;

/// Longest pattern accepted, in bytes.
pub const LONGEST: usize = 256;

/// Whether `name` matches `pattern` as a whole. Linear backtracking: at most `pattern.len() * name.len()` steps.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to resume when the text after the last star does not fit: one character further.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            retry = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((after_star, start)) = retry {
            retry = Some((after_star, start + 1));
            p = after_star;
            n = start + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// The value of the pattern that fits a name: the longest, the last in alphabetical order among equals.
pub fn longest<'a, V>(patterns: &'a BTreeMap<String, V>, name: &str) -> Option<&'a V> {
    let fitting = patterns.iter().filter(|(pattern, _)| matches(pattern, name));
    fitting.max_by_key(|(pattern, _)| pattern.chars().count()).map(|(_, value)| value)
}

/// What is wrong with a pattern, if anything: only names and wildcards can match a layer or parameter name.
pub fn mistake(pattern: &str) -> Option<String> {
    if pattern.is_empty() {
        return Some("an empty pattern matches nothing".into());
    }
    if pattern.len() > LONGEST {
        return Some(format!("a pattern has at most {LONGEST} bytes"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '?');
    if let Some(bad) = pattern.chars().find(|&c| !allowed(c)) {
        return Some(format!("{bad:?} cannot occur in a pattern"));
    }
    if pattern.starts_with('.') || pattern.ends_with('.') || pattern.contains("..") {
        return Some("a name has no empty part between dots".into());
    }
    None
}
