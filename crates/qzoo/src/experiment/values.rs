//! A key that takes one number, several, or a range: each is a point of a grid.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Most numbers that a range may give.
const MOST: usize = 1000;

/// Numbers in the order in which they were given: `4`, `[1.58, 2, 3]`, `"1.58,2,3"`, `"1:6"` for 1, 2, … 6, or `"1:2:0.25"` with a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Values(Vec<f64>);

impl Values {
    /// One number.
    pub fn one(value: f64) -> Self {
        Values(vec![value])
    }

    /// These numbers.
    pub fn new(values: Vec<f64>) -> Self {
        Values(values)
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// Reads numbers and ranges between commas, as a command line gives them.
    ///
    /// # Errors
    /// What is no number, or a range that is empty or endless.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut values = Vec::new();
        for part in text.split(',') {
            let numbers = part.split(':').map(|number| {
                let number = number.trim();
                let value = number.parse().ok().filter(|value: &f64| value.is_finite());
                value.ok_or_else(|| {
                    format!("{number:?} is no number; give 4, 1.58,2,3 or a range such as 1:6 or 1:2:0.25")
                })
            });
            match numbers.collect::<Result<Vec<f64>, _>>()?[..] {
                [value] => values.push(value),
                [first, last] => values.extend(range(first, last, 1.0)?),
                [first, last, step] => values.extend(range(first, last, step)?),
                _ => return Err(format!("{part:?} is no range; a range is first:last or first:last:step")),
            }
        }
        Ok(Values(values))
    }
}

fn range(first: f64, last: f64, step: f64) -> Result<Vec<f64>, String> {
    // Rounding must not take the last number away.
    let count = ((last - first) / step + 1e-9).floor() + 1.0;
    if step <= 0.0 || !(1.0..=MOST as f64).contains(&count) {
        return Err(format!("the range {first}:{last}:{step} is empty or has more than {MOST} numbers"));
    }
    Ok((0..count as usize).map(|i| first + step * i as f64).collect())
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(f64::to_string).collect();
        f.write_str(&numbers.join(", "))
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0[..] {
            [value] => serializer.serialize_f64(value),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Numbers)
    }
}

struct Numbers;

impl<'de> Visitor<'de> for Numbers {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, an array of numbers, or a range such as \"1:6\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Values, E> {
        Ok(Values::one(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Values, E> {
        Ok(Values::one(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Values, E> {
        Ok(Values::one(value as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Values, E> {
        Values::parse(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Values, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = numbers.next_element()? {
            values.push(value);
        }
        Ok(Values(values))
    }
}

#[cfg(test)]
mod tests {
    use super::Values;

    #[test]
    fn numbers_and_ranges() {
        let of = |text: &str| Values::parse(text).unwrap().0;
        assert_eq!(of("4"), [4.0]);
        assert_eq!(of("1.58, 2,3"), [1.58, 2.0, 3.0]);
        assert_eq!(of("1:3"), [1.0, 2.0, 3.0]);
        assert_eq!(of("1:2:0.25,9"), [1.0, 1.25, 1.5, 1.75, 2.0, 9.0]);
        assert_eq!(of("0.1:0.3:0.1").len(), 3);
        for bad in ["", "x", "1:", "3:1", "1:2:0", "1:2:3:4", "inf", "0:1e9", "1,,2"] {
            assert!(Values::parse(bad).is_err(), "{bad}");
        }
    }
}
