//! From tables to typed sections, key by key: each key is tried by itself, so that one mistake does not hide the next and
//! every mistake has the place of its own key or value.

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::source::Finding;
use super::suggest::{did_you_mean, one_of};
use super::value::{Entries, Item, Key, Misfit, Mismatch, Value};

/// Keys and values still to be read.
pub(super) type Pairs<'a, 's> = Vec<(&'a Key<'s>, &'a Item<'s>)>;

/// A section as messages name it, and what may stand in it.
pub(super) struct Place<'n> {
    /// `in [optim]`
    pub(super) name: &'n str,
    /// Every key that may stand there.
    pub(super) keys: Vec<&'static str>,
    /// Where a key that may not stand there belongs, if it is one of another section.
    pub(super) elsewhere: &'n dyn Fn(&str) -> Option<String>,
}

/// The mistakes found so far.
#[derive(Default)]
pub(super) struct Decoder {
    pub(super) findings: Vec<Finding>,
}

/// The keys of a section's type, asked of its own deserializer.
pub(super) fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let none: Item<'static> = toml::Spanned::new(0..0, DeValue::Boolean(false));
    let key: Key<'static> = toml::Spanned::new(0..0, "".into());
    match T::deserialize(Entries::new(std::iter::once((&key, &none)))) {
        Err(Mismatch { misfit: Misfit::Key { valid }, .. }) => valid,
        _ => &[],
    }
}

impl Decoder {
    pub(super) fn find(&mut self, span: std::ops::Range<usize>, message: String, hint: Option<String>) {
        self.findings.push(Finding { span, message, hint });
    }

    /// The table of a section; a mistake if the key holds something else.
    pub(super) fn table<'a, 's>(&mut self, name: &str, item: &'a Item<'s>) -> Option<&'a DeTable<'s>> {
        let table = item.get_ref().as_table();
        if table.is_none() {
            let message = format!("expected a section [{name}], found {}", kind(item.get_ref()));
            self.find(item.span(), message, None);
        }
        table
    }

    /// Takes out the keys that may not stand here, each a mistake.
    pub(super) fn refuse_unknown(&mut self, pairs: &mut Pairs<'_, '_>, place: &Place<'_>) {
        pairs.retain(|(key, _)| {
            let name: &str = key.get_ref();
            if place.keys.contains(&name) {
                return true;
            }
            let hint = (place.elsewhere)(name)
                .or_else(|| did_you_mean(name, place.keys.iter().copied()))
                .or_else(|| (!place.keys.is_empty()).then(|| format!("the keys are {}", place.keys.join(", "))));
            self.find(key.span(), format!("unknown key {:?} {}", shorten(name), place.name), hint);
            false
        });
    }

    /// Reads a section's struct from those keys that it has and that fit it; the others keep their defaults.
    pub(super) fn fields<T: DeserializeOwned + Default>(&mut self, pairs: &Pairs<'_, '_>) -> T {
        let mut good = Vec::with_capacity(pairs.len());
        for &(key, item) in pairs {
            match T::deserialize(Entries::new(std::iter::once((key, item)))) {
                Ok(_) => good.push((key, item)),
                Err(mismatch) => self.mismatch(key.get_ref(), item, mismatch),
            }
        }
        T::deserialize(Entries::new(good.into_iter())).unwrap_or_else(|mismatch| {
            self.find(mismatch.span.clone().unwrap_or(0..0), mismatch.to_string(), None);
            T::default()
        })
    }

    /// Reads one value.
    pub(super) fn value<T: DeserializeOwned>(&mut self, key: &str, item: &Item<'_>) -> Option<T> {
        T::deserialize(Value(item)).map_err(|mismatch| self.mismatch(key, item, mismatch)).ok()
    }

    /// Reads the key of that name and takes it out. `None` if it is missing, `Some(None)` if it is wrong.
    pub(super) fn take<T: DeserializeOwned>(&mut self, pairs: &mut Pairs<'_, '_>, name: &str) -> Option<Option<T>> {
        let item = take_item(pairs, name)?;
        Some(self.value(name, item))
    }

    fn mismatch(&mut self, key: &str, item: &Item<'_>, mismatch: Mismatch) {
        let span = mismatch.span.unwrap_or(item.span());
        let key = shorten(key);
        match mismatch.misfit {
            Misfit::Kind { found, expected } if span == item.span() => {
                let hint = requote(&key, item.get_ref(), &expected);
                self.find(span, format!("{key:?} must be {expected}, not {found}"), hint);
            }
            Misfit::Kind { found, expected } => {
                self.find(span, format!("an element of {key:?} must be {expected}, not {found}"), None);
            }
            Misfit::Name { found, valid } => {
                let hint = did_you_mean(&found, valid.iter().copied()).unwrap_or_else(|| one_of(valid.iter().copied()));
                self.find(span, format!("unknown value {:?} for {key:?}", shorten(&found)), Some(hint));
            }
            Misfit::Key { valid } => {
                self.find(span, format!("unknown key in {key:?}"), Some(one_of(valid.iter().copied())));
            }
            Misfit::Other(message) => self.find(span, format!("{key:?}: {message}"), None),
        }
    }
}

/// Takes the key of that name out.
pub(super) fn take_item<'a, 's>(pairs: &mut Pairs<'a, 's>, name: &str) -> Option<&'a Item<'s>> {
    let index = pairs.iter().position(|(key, _)| key.get_ref() == name)?;
    Some(pairs.remove(index).1)
}

/// The hint for a value that is right but for its quotes.
fn requote(key: &str, value: &DeValue<'_>, expected: &str) -> Option<String> {
    match value {
        DeValue::String(text) if expected == "true or false" && (text == "true" || text == "false") => {
            Some(format!("remove the quotes: {key} = {text}"))
        }
        DeValue::String(text) if expected.starts_with('a') && text.parse::<f64>().is_ok_and(f64::is_finite) => {
            Some(format!("remove the quotes: {key} = {text}"))
        }
        DeValue::Integer(number) if expected == "a string" && number.radix() == 10 => {
            Some(format!("add quotes: {key} = \"{}\"", number.as_str()))
        }
        DeValue::Float(number) if expected == "a string" => {
            Some(format!("add quotes: {key} = \"{}\"", number.as_str()))
        }
        _ => None,
    }
}

/// The kind of a value in the words of the messages.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A name short enough for a message.
pub(super) fn shorten(name: &str) -> String {
    if name.chars().count() <= 40 {
        name.to_owned()
    } else {
        format!("{}...", name.chars().take(40).collect::<String>())
    }
}
