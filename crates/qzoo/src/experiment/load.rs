//! Reading an experiment from its file and the command line, and writing it back.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeArray, DeTable};

use super::check::{Checker, PathPart, Problem};
use super::decode::Decoder;
use super::diagnostics::Diagnostics;
use super::overrides::{Override, merge};
use super::source::{Finding, Sources};
use super::suggest::nearest;
use super::{Experiment, sections};

/// Largest experiment file in bytes.
pub const LARGEST_FILE: u64 = 1 << 20;

impl Experiment {
    /// Reads an experiment file of at most [`LARGEST_FILE`] bytes and applies the overrides, later ones last.
    ///
    /// # Errors
    /// Every mistake in the file and in the overrides, with its place.
    pub fn load(path: impl AsRef<Path>, overrides: &[Override]) -> Result<Experiment, Diagnostics> {
        let path = path.as_ref();
        let fail = |message: String, hint| Diagnostics::of_file(path, message, hint);
        let file = std::fs::File::open(path)
            .map_err(|error| fail(format!("cannot open the experiment: {error}"), neighbour(path)))?;
        let mut bytes = Vec::new();
        file.take(LARGEST_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| fail(format!("cannot read the experiment: {error}"), None))?;
        if bytes.len() as u64 > LARGEST_FILE {
            let message = format!("the file is larger than {LARGEST_FILE} bytes: not an experiment");
            return Err(fail(message, None));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(path, text, overrides),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                // The valid part is the same in both, so the place holds.
                let finding = Finding {
                    span: valid..valid + 1,
                    message: "the file is not UTF-8 text".into(),
                    hint: Some("save it with the encoding UTF-8".into()),
                };
                Err(Sources::new(path, text).report(vec![finding]))
            }
        }
    }

    /// Like [`Experiment::load`], from a text that is already in memory; `path` is only shown in messages.
    ///
    /// # Errors
    /// Every mistake in the text and in the overrides, with its place.
    pub fn parse(
        path: impl AsRef<Path>,
        text: impl Into<String>,
        overrides: &[Override],
    ) -> Result<Experiment, Diagnostics> {
        let mut sources = Sources::new(path.as_ref(), text.into());
        if sources.file().len() as u64 > LARGEST_FILE {
            let message = format!("the text is larger than {LARGEST_FILE} bytes: not an experiment");
            return Err(Diagnostics::of_file(path.as_ref(), message, None));
        }
        for one in overrides {
            sources.push_option(one.text().to_owned());
        }
        let (text, mut errors) = without_bare_keys(sources.file());
        let (root, others) = DeTable::parse_recoverable(&text);
        errors.extend(others);
        let syntax = syntax_findings(&sources, &errors);
        let mut root = root.into_inner();
        let mut decoder = Decoder::default();
        merge(&mut root, overrides, &sources, &mut decoder.findings);
        let experiment = sections::experiment(&root, &mut decoder);
        let mut findings = decoder.findings;
        let clean = findings.is_empty() && syntax.is_empty();
        for problem in experiment.validate() {
            let (span, exact) = locate(&root, &problem);
            // Beside other mistakes only what is wrong by itself, really written and readable can be trusted.
            let unread = |finding: &Finding| span.start <= finding.span.start && finding.span.end <= span.end;
            if clean || (exact && !problem.relative && !findings.iter().any(unread)) {
                findings.push(Finding { span, message: problem.message, hint: problem.hint });
            }
        }
        if !syntax.is_empty() {
            findings = beside_syntax(&sources, syntax, findings);
        }
        if findings.is_empty() { Ok(experiment) } else { Err(sources.report(findings)) }
    }

    /// The experiment as a file, every default written out; reading it gives the same experiment.
    ///
    /// # Errors
    /// A seed that does not fit into TOML's signed 64 bits; never for an experiment in which
    /// [`Experiment::validate`] finds no problem.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The values that make no sense, by themselves or together. Empty for every experiment that was read.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check(&mut Checker::new(&mut problems));
        problems
    }
}

/// The text with every line blanked that has a key without a value, and those errors: the parser reads nothing after one.
fn without_bare_keys(text: &str) -> (Cow<'_, str>, Vec<toml::de::Error>) {
    let mut text = Cow::Borrowed(text);
    let mut found = Vec::new();
    for _ in 0..Diagnostics::MOST {
        let errors = DeTable::parse_recoverable(&text).1;
        let Some(error) = errors.into_iter().find(|error| error.message().starts_with("key with no value")) else {
            break;
        };
        let line = line_around(&text, error.span().map_or(0, |span| span.start));
        text.to_mut().replace_range(line.clone(), &" ".repeat(line.len()));
        found.push(error);
    }
    (text, found)
}

/// The parser's errors, the first of each line.
fn syntax_findings(sources: &Sources, errors: &[toml::de::Error]) -> Vec<Finding> {
    let text = sources.file();
    let mut findings: Vec<Finding> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            let covered = text.get(span.clone()).unwrap_or_default();
            let word =
                !covered.is_empty() && covered.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let (message, hint) = match error.message() {
                message if message.starts_with("string values must be quoted") && covered.is_empty() => {
                    ("missing value".to_owned(), Some("write one after the =".to_owned()))
                }
                message if message.starts_with("string values must be quoted") && word => {
                    (format!("{covered:?} is not a value"), Some(format!("a string is quoted: \"{covered}\"")))
                }
                message if message.starts_with("string values must be quoted") => {
                    ("not a value".to_owned(), Some("a string is quoted".to_owned()))
                }
                message => (message.to_owned(), None),
            };
            Finding { span, message, hint }
        })
        .collect();
    findings.sort_by_key(|finding| finding.span.start);
    findings.dedup_by_key(|finding| sources.line_of(finding.span.start));
    findings
}

/// The syntax errors, and those other findings that they cannot have caused.
fn beside_syntax(sources: &Sources, syntax: Vec<Finding>, others: Vec<Finding>) -> Vec<Finding> {
    let lines: Vec<Option<usize>> = syntax.iter().map(|finding| sources.line_of(finding.span.start)).collect();
    // After a broken header or an unfinished array the parser no longer knows the section.
    let lost = syntax.iter().any(|finding| {
        let line = &sources.file()[line_around(sources.file(), finding.span.start)];
        let message = finding.message.as_str();
        line.trim_start().starts_with('[')
            || message.contains("array")
            || message.contains("inline table")
            || message.contains("comma")
            || message.contains("recursion")
            || message.contains("string, expected")
    });
    let mut findings = syntax;
    findings.extend(others.into_iter().filter(|finding| {
        let line = sources.line_of(finding.span.start);
        let missing = finding.span == (0..0);
        line.is_none() || !(lost || missing || lines.contains(&line))
    }));
    findings
}

/// The line of `text` that holds this position, without its end.
fn line_around(text: &str, position: usize) -> Range<usize> {
    let Some((before, after)) = text.split_at_checked(position) else { return 0..0 };
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    start..after.find('\n').map_or(text.len(), |length| position + length)
}

/// The place of a problem, and whether what it speaks of is there at all; else the place of what it would stand in.
fn locate(root: &DeTable<'_>, problem: &Problem) -> (Range<usize>, bool) {
    let mut span = 0..0;
    let mut table = Some(root);
    let mut array: Option<&DeArray<'_>> = None;
    for (index, part) in problem.path.iter().enumerate() {
        let found = match part {
            PathPart::Key(key) => {
                table.and_then(|table| table.get_key_value(key.as_str())).map(|(key, item)| (Some(key.span()), item))
            }
            PathPart::Index(index) => array.and_then(|array| array.get(*index)).map(|item| (None, item)),
        };
        let Some((key, item)) = found else { return (span, false) };
        span = match key {
            Some(key) if problem.key && index + 1 == problem.path.len() => key,
            _ => item.span(),
        };
        table = item.get_ref().as_table();
        array = item.get_ref().as_array();
    }
    (span, true)
}

/// A hint naming the experiment beside the missing one with the nearest name.
fn neighbour(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .take(1000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(format!("did you mean {}?", path.with_file_name(near).display()))
}
