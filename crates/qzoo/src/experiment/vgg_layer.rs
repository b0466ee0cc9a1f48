use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// Most channels of a convolution.
pub(super) const MOST_CHANNELS: usize = 65536;

/// An element of the table of a VGG network: in a file a number of channels, or `"pool"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VggLayer {
    /// A convolution of 3x3 with that many output channels, its batch norm and its activation.
    Conv(usize),
    /// A maximum over windows of 2x2, which halves both sides.
    Pool,
}

impl Serialize for VggLayer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            VggLayer::Conv(channels) => serializer.serialize_u64(*channels as u64),
            VggLayer::Pool => serializer.serialize_str("pool"),
        }
    }
}

impl<'de> Deserialize<'de> for VggLayer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Element)
    }
}

struct Element;

impl Visitor<'_> for Element {
    type Value = VggLayer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of channels or \"pool\"")
    }

    fn visit_i64<E: de::Error>(self, channels: i64) -> Result<VggLayer, E> {
        let wrong = |_| E::invalid_value(de::Unexpected::Signed(channels), &self);
        usize::try_from(channels).map(VggLayer::Conv).map_err(wrong)
    }

    fn visit_u64<E: de::Error>(self, channels: u64) -> Result<VggLayer, E> {
        let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(channels), &self);
        usize::try_from(channels).map(VggLayer::Conv).map_err(wrong)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<VggLayer, E> {
        if text == "pool" { Ok(VggLayer::Pool) } else { Err(E::unknown_variant(text, &["pool"])) }
    }
}
