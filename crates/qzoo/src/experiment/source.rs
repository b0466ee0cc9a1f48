//! The texts that an experiment is read from (the file, then each override), laid end to end so that one byte range names a
//! place in any of them.

use std::ops::Range;
use std::path::Path;

use super::diagnostics::{Diagnostic, Diagnostics, Origin};

/// Characters shown of a very long line.
const WINDOW: usize = 120;

/// A mistake before its place is worked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

struct Source {
    origin: Origin,
    text: String,
    base: usize,
}

/// The texts in order.
pub(super) struct Sources {
    list: Vec<Source>,
}

impl Sources {
    pub(super) fn new(path: &Path, text: String) -> Self {
        Sources { list: vec![Source { origin: Origin::File(path.to_path_buf()), text, base: 0 }] }
    }

    /// Adds an option of the command line.
    pub(super) fn push_option(&mut self, text: String) {
        let base = self.list.last().map_or(0, |last| last.base + last.text.len() + 1);
        let shown: String = text.chars().map(printable).take(WINDOW).collect();
        self.list.push(Source { origin: Origin::CommandLine(shown), text, base });
    }

    /// The text of the file.
    pub(super) fn file(&self) -> &str {
        &self.list[0].text
    }

    /// Text and base of the option number `index`, from 0.
    pub(super) fn option(&self, index: usize) -> (&str, usize) {
        let source = &self.list[index + 1];
        (&source.text, source.base)
    }

    /// The findings with their places, in order of appearance.
    pub(super) fn report(&self, mut findings: Vec<Finding>) -> Diagnostics {
        findings.sort_by(|a, b| (a.span.start, a.span.end, &a.message).cmp(&(b.span.start, b.span.end, &b.message)));
        findings.dedup();
        let omitted = findings.len().saturating_sub(Diagnostics::MOST);
        let list = findings.into_iter().take(Diagnostics::MOST).map(|finding| self.locate(finding)).collect();
        Diagnostics { list, omitted }
    }

    /// Number, from 0, of the line of the file that holds this position; `None` outside the file.
    pub(super) fn line_of(&self, position: usize) -> Option<usize> {
        let text = self.file();
        (position <= text.len()).then(|| text.as_bytes()[..position].iter().filter(|&&byte| byte == b'\n').count())
    }

    fn locate(&self, finding: Finding) -> Diagnostic {
        let index = self.list.partition_point(|source| source.base <= finding.span.start).saturating_sub(1);
        let source = &self.list[index];
        let start = boundary(&source.text, finding.span.start - source.base);
        let end = boundary(&source.text, finding.span.end.max(finding.span.start) - source.base).max(start);
        let line_start = source.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = source.text[line_start..].find('\n').map_or(source.text.len(), |length| line_start + length);
        let line = source.text[line_start..line_end].trim_end_matches('\r');
        let start = start.min(line_start + line.len());
        let before = source.text[line_start..start].chars().count();
        let length = source.text[start..end.clamp(start, line_start + line.len())].chars().count();
        // A long line is shown from a little before the mistake.
        let skip = if line.chars().count() <= WINDOW { 0 } else { before.saturating_sub(WINDOW / 3) };
        let shown: String = line.chars().skip(skip).take(WINDOW).map(printable).collect();
        let room = shown.chars().count().saturating_sub(before - skip);
        Diagnostic {
            origin: source.origin.clone(),
            line: source.text[..start].matches('\n').count() + 1,
            column: before + 1,
            caret: before - skip,
            length: length.min(room).max(1),
            source_line: shown,
            message: finding.message,
            hint: finding.hint,
        }
    }
}

/// The nearest character boundary at or before `position`.
fn boundary(text: &str, position: usize) -> usize {
    let mut position = position.min(text.len());
    while !text.is_char_boundary(position) {
        position -= 1;
    }
    position
}

/// Control characters and direction marks could rewrite the terminal: they are shown as the replacement character.
fn printable(c: char) -> char {
    let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if (c.is_control() && c != '\t') || direction { char::REPLACEMENT_CHARACTER } else { c }
}
