//! A serde deserializer over parsed TOML values whose errors know what was found, what was expected and where.

use std::fmt;
use std::ops::Range;

use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeString, DeValue};

/// A key of a table.
pub(super) type Key<'s> = Spanned<DeString<'s>>;
/// A value with its place.
pub(super) type Item<'s> = Spanned<DeValue<'s>>;

/// What does not fit.
#[derive(Debug)]
pub(super) enum Misfit {
    /// Another type or another number was expected.
    Kind { found: String, expected: String },
    /// Not one of the valid values.
    Name { found: String, valid: &'static [&'static str] },
    /// Not one of the table's keys.
    Key { valid: &'static [&'static str] },
    /// Anything else.
    Other(String),
}

/// A misfit and its place.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) span: Option<Range<usize>>,
    pub(super) misfit: Misfit,
}

impl Mismatch {
    fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl From<Misfit> for Mismatch {
    fn from(misfit: Misfit) -> Self {
        Mismatch { span: None, misfit }
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.misfit {
            Misfit::Kind { found, expected } => write!(f, "expected {expected}, found {found}"),
            Misfit::Name { found, valid } => write!(f, "unknown name {found:?}, not one of {valid:?}"),
            Misfit::Key { valid } => write!(f, "unknown key, not one of {valid:?}"),
            Misfit::Other(message) => f.write_str(message),
        }
    }
}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Misfit::Other(message.to_string()).into()
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Misfit::Kind { found: describe(found), expected: plain(&expected.to_string()) }.into()
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let found = format!("{length} {}", if length == 1 { "element" } else { "elements" });
        Misfit::Kind { found, expected: plain(&expected.to_string()) }.into()
    }

    fn unknown_variant(found: &str, valid: &'static [&'static str]) -> Self {
        Misfit::Name { found: found.to_owned(), valid }.into()
    }

    fn unknown_field(_: &str, valid: &'static [&'static str]) -> Self {
        Misfit::Key { valid }.into()
    }
}

/// What was found, in the file's own words.
fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(text) if text.chars().count() > 40 => {
            format!("the string {:?}...", text.chars().take(40).collect::<String>())
        }
        Unexpected::Str(text) => format!("the string {text:?}"),
        Unexpected::Seq => "an array".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

/// Rust's names of types in the words of a configuration file.
fn plain(expected: &str) -> String {
    match expected {
        "f64" => "a number",
        "usize" | "u64" => "a whole number, 0 or larger",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "a table",
        "an array of length 2" => "an array of 2 numbers",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    }
    .to_owned()
}

/// Deserializer of one value.
pub(super) struct Value<'a, 's>(pub(super) &'a Item<'s>);

impl<'de> Deserializer<'de> for Value<'_, '_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let result = match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => Err(Misfit::Other("the number does not fit into 64 bits".into()).into()),
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(value) => visitor.visit_f64(value),
                Err(_) => Err(Misfit::Other("the number cannot be read".into()).into()),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => Err(de::Error::invalid_type(Unexpected::Other("a date or time"), &visitor)),
            DeValue::Array(items) => {
                let length = items.len();
                let mut elements = Elements { rest: items.iter(), taken: 0 };
                visitor.visit_seq(&mut elements).and_then(|value| match elements.taken {
                    taken if taken == length => Ok(value),
                    taken => Err(de::Error::invalid_length(length, &format!("an array of {taken} numbers").as_str())),
                })
            }
            DeValue::Table(table) => visitor.visit_map(Entries::new(table.iter())),
        };
        result.map_err(|mismatch| mismatch.at(self.0.span()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The elements of an array.
struct Elements<'a, 's> {
    rest: std::slice::Iter<'a, Item<'s>>,
    taken: usize,
}

impl<'de> SeqAccess<'de> for &mut Elements<'_, '_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some(item) = self.rest.next() else { return Ok(None) };
        self.taken += 1;
        seed.deserialize(Value(item)).map(Some)
    }
}

/// Keys and values of a table, or some of them, as a map; also a deserializer of structs.
pub(super) struct Entries<'a, 's, I: Iterator<Item = (&'a Key<'s>, &'a Item<'s>)>>
where
    's: 'a,
{
    rest: I,
    value: Option<&'a Item<'s>>,
}

impl<'a, 's, I: Iterator<Item = (&'a Key<'s>, &'a Item<'s>)>> Entries<'a, 's, I> {
    pub(super) fn new(rest: I) -> Self {
        Entries { rest, value: None }
    }
}

impl<'a, 'de, 's, I: Iterator<Item = (&'a Key<'s>, &'a Item<'s>)>> MapAccess<'de> for Entries<'a, 's, I> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let name: &str = key.get_ref();
        seed.deserialize(de::value::StrDeserializer::new(name))
            .map(Some)
            .map_err(|mismatch: Mismatch| mismatch.at(key.span()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        match self.value.take() {
            Some(value) => seed.deserialize(Value(value)),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

impl<'a, 'de, 's, I: Iterator<Item = (&'a Key<'s>, &'a Item<'s>)>> Deserializer<'de> for Entries<'a, 's, I> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
