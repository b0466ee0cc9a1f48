//! Closed sets of names: one line a variant gives the enum, its serde form, its description and its listing.

use std::fmt;

/// One entry of a listing such as `quartz list models`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as the experiment file spells it.
    pub name: &'static str,
    /// One line saying what it is.
    pub description: &'static str,
}

/// An enum whose variants are the valid values of a key.
pub trait Named: Copy + 'static {
    /// Every name with its description, in the order of the variants.
    const ENTRIES: &'static [Entry];
    /// The name as the experiment file spells it.
    fn name(self) -> &'static str;
    /// The variant of that name.
    fn from_name(name: &str) -> Option<Self>;
}

/// Reads a string and finds it in a list.
pub(crate) struct Names {
    pub(crate) names: &'static [&'static str],
}

impl serde::de::Visitor<'_> for Names {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<usize, E> {
        let found = self.names.iter().position(|name| *name == text);
        found.ok_or_else(|| E::unknown_variant(text, self.names))
    }
}

/// Declares an enum from lines `Variant = "name", "description";`.
macro_rules! named_enum {
    ($(#[$meta:meta])* $type:ident { $($variant:ident = $name:tt, $description:tt;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type {
            $(#[doc = $description] $variant,)+
        }

        impl $type {
            /// Every variant, in the order of the listing.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Every name, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($name),+];
            /// Every name with its description.
            pub const ENTRIES: &'static [$crate::experiment::Entry] =
                &[$($crate::experiment::Entry { name: $name, description: $description }),+];

            /// The name as the experiment file spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// One line saying what it is.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description),+ }
            }
        }

        impl $crate::experiment::Named for $type {
            const ENTRIES: &'static [$crate::experiment::Entry] = Self::ENTRIES;
            fn name(self) -> &'static str {
                self.name()
            }
            fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.name() == name)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let names = $crate::experiment::named::Names { names: Self::NAMES };
                // The visitor returns an index into NAMES, which has the length and order of ALL.
                Ok(Self::ALL[deserializer.deserialize_str(names)?])
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(crate) use named_enum;
