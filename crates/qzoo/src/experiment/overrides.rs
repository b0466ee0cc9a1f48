//! Overrides from the command line: `--set optim.lr=0.05`, and flags of their own such as `--epochs 3`.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::{Finding, Sources};
use super::value::Item;

/// One key that the command line sets, whatever the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The option as it is shown in messages.
    text: String,
    /// The key of a flag of its own; `None` where the text itself says `KEY=VALUE`.
    flag_key: Option<String>,
    /// Where in `text` the option's argument begins.
    argument: usize,
}

impl Override {
    /// `--set KEY=VALUE`; `argument` is the part `KEY=VALUE`. The value is a TOML value, or a bare word that stands for a
    /// string. Keys of sections are joined with dots; a part with dots of its own is quoted.
    pub fn set(argument: &str) -> Self {
        Override { text: format!("--set {argument}"), flag_key: None, argument: "--set ".len() }
    }

    /// A flag that sets one key: `Override::flag("--epochs", "train.epochs", 3)`.
    pub fn flag(flag: &str, key: &str, value: impl std::fmt::Display) -> Self {
        Override { text: format!("{flag} {value}"), flag_key: Some(key.to_owned()), argument: flag.len() + 1 }
    }

    /// The option as it is shown in messages.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Most parts of a key: far more than any key has, few enough to nest.
const DEEPEST: usize = 16;

/// A part of a key and its place in the joined texts.
type Part<'s> = Spanned<Cow<'s, str>>;

/// Merges the overrides into the tree of the file. `sources` holds their texts, in the same order.
pub(super) fn merge<'s>(
    root: &mut DeTable<'s>,
    overrides: &'s [Override],
    sources: &'s Sources,
    findings: &mut Vec<Finding>,
) {
    for (index, one) in overrides.iter().enumerate() {
        let (text, base) = sources.option(index);
        let outcome = read(one, text, base).and_then(|(parts, value)| insert(root, parts, value));
        if let Err(finding) = outcome {
            findings.push(finding);
        }
    }
}

fn finding(span: Range<usize>, message: String, hint: &str) -> Finding {
    Finding { span, message, hint: (!hint.is_empty()).then(|| hint.to_owned()) }
}

/// Splits an option into the parts of its key and its value.
fn read<'s>(one: &'s Override, text: &'s str, base: usize) -> Result<(Vec<Part<'s>>, Item<'s>), Finding> {
    if let Some(key) = &one.flag_key {
        let span = base..base + one.argument - 1;
        let parts = key.split('.').map(|part| Spanned::new(span.clone(), Cow::Borrowed(part))).collect();
        return Ok((parts, value(text, one.argument, base)?));
    }
    let mut parts = Vec::new();
    let mut position = one.argument;
    loop {
        let rest = &text[position..];
        let (part, range, consumed) = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => match rest[1..].find(quote) {
                Some(length) => (&rest[1..1 + length], position..position + length + 2, length + 2),
                None => {
                    let message = "the quoted part of the key does not end".to_owned();
                    return Err(finding(base + position..base + text.len(), message, ""));
                }
            },
            _ => {
                let length = rest.find(['.', '=']).unwrap_or(rest.len());
                let part = rest[..length].trim();
                let lead = rest[..length].len() - rest[..length].trim_start().len();
                (part, position + lead..position + lead + part.len(), length)
            }
        };
        let span = base + range.start..base + range.end;
        if part.is_empty() {
            let message = "a part of the key is missing".to_owned();
            return Err(finding(span, message, "write KEY=VALUE, for example optim.lr=0.05"));
        }
        if parts.len() == DEEPEST {
            return Err(finding(span, "the key has too many parts".into(), ""));
        }
        parts.push(Spanned::new(span.clone(), Cow::Borrowed(part)));
        position += consumed;
        match text[position..].trim_start().chars().next() {
            Some('.') => position += text[position..].find('.').map_or(0, |dot| dot + 1),
            Some('=') => {
                position += text[position..].find('=').map_or(0, |equals| equals + 1);
                break;
            }
            _ => {
                let message = "a value is missing".to_owned();
                return Err(finding(span, message, "write KEY=VALUE, for example optim.lr=0.05"));
            }
        }
    }
    Ok((parts, value(text, position, base)?))
}

/// Reads the value that begins at `position` of an option's text.
fn value(text: &str, position: usize, base: usize) -> Result<Item<'_>, Finding> {
    let lead = text[position..].len() - text[position..].trim_start().len();
    let position = position + lead;
    let rest = text[position..].trim_end();
    let offset = base + position;
    let whole = offset..offset + rest.len();
    if rest.is_empty() {
        return Err(finding(whole, "a value is missing".into(), "an empty string is written \"\""));
    }
    match DeValue::parse(rest) {
        Ok(parsed) => Ok(shift(parsed, offset)),
        Err(error) if rest.starts_with(['[', '{', '"', '\'']) => {
            let span = error.span().map_or(whole, |span| offset + span.start..offset + span.end);
            Err(finding(span, error.message().to_owned(), ""))
        }
        Err(_) => Ok(Spanned::new(whole, DeValue::String(Cow::Borrowed(rest)))),
    }
}

/// The same value with every place moved by `offset`. As deep as the parser's recursion limit allows.
fn shift(item: Item<'_>, offset: usize) -> Item<'_> {
    let span = item.span().start + offset..item.span().end + offset;
    let value = match item.into_inner() {
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(|item| shift(item, offset)).collect()),
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(key, item)| {
                    let span = key.span().start + offset..key.span().end + offset;
                    (Spanned::new(span, key.into_inner()), shift(item, offset))
                })
                .collect(),
        ),
        scalar => scalar,
    };
    Spanned::new(span, value)
}

fn insert<'s>(root: &mut DeTable<'s>, mut parts: Vec<Part<'s>>, value: Item<'s>) -> Result<(), Finding> {
    let Some(last) = parts.pop() else { return Ok(()) };
    let mut table = root;
    for part in parts {
        let name = part.get_ref().clone();
        let span = part.span();
        let next =
            table.entry(part).or_insert_with(|| Spanned::new(span.clone(), DeValue::Table(DeTable::new()))).get_mut();
        table = match next {
            DeValue::Table(inner) => inner,
            DeValue::Array(_) => {
                let message = format!("{name:?} is an array: it can only be set as a whole");
                return Err(finding(span, message, ""));
            }
            _ => return Err(finding(span, format!("{name:?} is a single value, not a section"), "")),
        };
    }
    // The old entry goes first: inserting over it would keep the old key's place.
    table.remove(&last);
    table.insert(last, value);
    Ok(())
}
