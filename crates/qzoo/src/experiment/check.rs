//! Values that have the right type but make no sense.

use std::fmt::{self, Display};

/// One step of the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPart {
    /// The value of this key.
    Key(String),
    /// This element of an array, from 0.
    Index(usize),
}

impl From<&str> for PathPart {
    fn from(key: &str) -> Self {
        PathPart::Key(key.to_owned())
    }
}

impl From<usize> for PathPart {
    fn from(index: usize) -> Self {
        PathPart::Index(index)
    }
}

/// An impossible value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value is.
    pub path: Vec<PathPart>,
    /// What is wrong with it; begins with the key.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the last key of the path is wrong itself, not its value.
    pub key: bool,
    /// Whether the value is wrong only beside another one.
    pub(super) relative: bool,
}

impl Display for Problem {
    /// `optim.lr: "lr" must be above 0, not 0`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.path.iter().enumerate() {
            match step {
                PathPart::Key(key) if index == 0 => f.write_str(key)?,
                PathPart::Key(key) => write!(f, ".{key}")?,
                PathPart::Index(index) => write!(f, "[{index}]")?,
            }
        }
        write!(f, ": {}", self.message)
    }
}

/// A list of problems that grows, seen from one section.
pub(super) struct Checker<'p> {
    problems: &'p mut Vec<Problem>,
    path: Vec<PathPart>,
}

impl<'p> Checker<'p> {
    pub(super) fn new(problems: &'p mut Vec<Problem>) -> Self {
        Checker { problems, path: Vec::new() }
    }

    /// The same list, seen from one step further down.
    pub(super) fn within(&mut self, step: impl Into<PathPart>) -> Checker<'_> {
        let mut path = self.path.clone();
        path.push(step.into());
        Checker { problems: self.problems, path }
    }

    /// A value that is wrong by itself.
    pub(super) fn wrong(&mut self, step: impl Into<PathPart>, message: String, hint: Option<&str>) {
        self.add(step.into(), message, hint, false, false);
    }

    /// A value that is wrong only beside another one.
    pub(super) fn conflict(&mut self, step: impl Into<PathPart>, message: String, hint: Option<&str>) {
        self.add(step.into(), message, hint, false, true);
    }

    /// A key that is wrong itself.
    pub(super) fn wrong_key(&mut self, key: &str, message: String) {
        self.add(key.into(), message, None, true, false);
    }

    fn add(&mut self, step: PathPart, message: String, hint: Option<&str>, key: bool, relative: bool) {
        let mut path = self.path.clone();
        path.push(step);
        self.problems.push(Problem { path, message, hint: hint.map(str::to_owned), key, relative });
    }

    /// Demands a whole number from `low` to `high`.
    pub(super) fn whole(&mut self, key: &str, value: usize, low: usize, high: usize) {
        if value < low || value > high {
            self.wrong(key, format!("{key:?} must be from {low} to {high}, not {value}"), None);
        }
    }

    /// Demands a number in [0, 1).
    pub(super) fn share(&mut self, key: &str, value: f64) {
        if !(0.0..1.0).contains(&value) {
            self.wrong(key, format!("{key:?} must be 0 or larger and below 1, not {value}"), None);
        }
    }

    /// Demands a number in [0, 1].
    pub(super) fn closed_share(&mut self, key: &str, value: f64) {
        if !(0.0..=1.0).contains(&value) {
            self.wrong(key, format!("{key:?} must be from 0 to 1, not {value}"), None);
        }
    }

    /// Demands a finite number above 0.
    pub(super) fn positive(&mut self, key: &str, value: f64) {
        if !(value > 0.0 && value.is_finite()) {
            self.wrong(key, format!("{key:?} must be a finite number above 0, not {value}"), None);
        }
    }

    /// Demands a finite number, 0 or larger.
    pub(super) fn not_negative(&mut self, key: &str, value: f64) {
        if !(value >= 0.0 && value.is_finite()) {
            self.wrong(key, format!("{key:?} must be a finite number, 0 or larger, not {value}"), None);
        }
    }
}
