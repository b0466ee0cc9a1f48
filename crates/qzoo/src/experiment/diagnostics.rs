//! Mistakes in an experiment, each with its place, and how they are shown.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a mistake was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In this file.
    File(PathBuf),
    /// In this option of the command line, given in full, such as `--set optim.lr=0`.
    CommandLine(String),
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file or the option.
    pub origin: Origin,
    /// Line, from 1. Always 1 for an option.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The offending line, or the part of it around the mistake where the line is very long. Holds no control characters
    /// but tabs.
    pub source_line: String,
    /// Characters of `source_line` before the mistake. `column - 1` unless the line was shortened.
    pub caret: usize,
    /// Characters that the mistake covers in `source_line`, at least 1.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Every mistake that was found, in order of appearance; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// The mistakes, at most [`Diagnostics::MOST`].
    pub list: Vec<Diagnostic>,
    /// How many more there were.
    pub omitted: usize,
}

impl Diagnostics {
    /// Mistakes listed at most.
    pub const MOST: usize = 50;

    /// A single mistake that concerns a file as a whole, for example that it cannot be read.
    pub(super) fn of_file(path: &Path, message: String, hint: Option<String>) -> Self {
        let diagnostic = Diagnostic {
            origin: Origin::File(path.to_path_buf()),
            line: 0,
            column: 0,
            source_line: String::new(),
            caret: 0,
            length: 1,
            message,
            hint,
        };
        Diagnostics { list: vec![diagnostic], omitted: 0 }
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    /// Place and message, the line with its number, the caret with the hint. No colours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match &self.origin {
            Origin::File(path) if self.line == 0 => {
                write!(f, "{}: {}", path.display(), self.message)?;
                return match &self.hint {
                    Some(hint) => write!(f, "\n  {hint}"),
                    None => Ok(()),
                };
            }
            Origin::File(path) => {
                writeln!(f, "{}:{}:{}: {}", path.display(), self.line, self.column, self.message)?;
                self.line.to_string()
            }
            Origin::CommandLine(option) => {
                writeln!(f, "{option}: {}", self.message)?;
                String::new()
            }
        };
        let gutter = number.len();
        writeln!(f, "  {number} | {}", self.source_line)?;
        write!(f, "  {:gutter$} | {}{}", "", blank(&self.source_line, self.caret), self.underline())?;
        match &self.hint {
            Some(hint) => write!(f, " {hint}"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    fn underline(&self) -> String {
        let covered = self.source_line.chars().skip(self.caret).take(self.length);
        let cells: usize = covered.map(|c| if c == '\t' { 1 } else { cells(c) }).sum();
        "^".repeat(cells.max(1))
    }
}

/// White space as wide as the first `count` characters of `line`: a tab stays a tab, so any tab width lines up.
fn blank(line: &str, count: usize) -> String {
    line.chars().take(count).map(|c| if c == '\t' { "\t".to_owned() } else { " ".repeat(cells(c)) }).collect()
}

/// Terminal cells of a character: 0 for the common combining marks, 2 for the wide East Asian blocks and emoji, else 1.
fn cells(c: char) -> usize {
    match c as u32 {
        0x0300..=0x036f | 0x200b..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe4f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}
