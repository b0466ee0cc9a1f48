//! The house rules that a compiler does not check: which crate may depend on which, and where `unsafe` may stand.

use crate::shell;
use std::path::{Path, PathBuf};

struct Rule {
    crate_name: &'static str,
    /// Crates of the workspace that it may use.
    may_use: &'static [&'static str],
    /// Paths below `src` that may contain `unsafe`; none means that the crate must forbid it.
    unsafe_in: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { crate_name: "qtensor", may_use: &[], unsafe_in: &["storage.rs"] },
    Rule {
        crate_name: "qkernels",
        may_use: &["qtensor"],
        unsafe_in: &["isa/", "par.rs", "pack", "gemm", "conv", "sparse", "layout", "i8"],
    },
    Rule { crate_name: "qgraph", may_use: &["qtensor", "qkernels"], unsafe_in: &[] },
    Rule { crate_name: "qzoo", may_use: &["qtensor", "qkernels", "qgraph"], unsafe_in: &[] },
    Rule { crate_name: "quartz", may_use: &["qtensor", "qkernels", "qgraph", "qzoo"], unsafe_in: &[] },
];

/// Checks every rule and lists all that is wrong.
pub(crate) fn check() -> Result<(), String> {
    let mut wrong = Vec::new();
    for rule in RULES {
        let folder = shell::root().join("crates").join(rule.crate_name);
        let manifest = read(&folder.join("Cargo.toml"))?;
        for other in RULES.iter().filter(|other| !rule.may_use.contains(&other.crate_name)) {
            if other.crate_name != rule.crate_name && dependencies(&manifest).any(|name| name == other.crate_name) {
                wrong.push(format!(
                    "{} depends on {}, against the arrows of docs/architecture.md",
                    rule.crate_name, other.crate_name
                ));
            }
        }
        check_unsafe(rule, &folder.join("src"), &mut wrong)?;
    }
    let xtask = read(&shell::root().join("xtask/Cargo.toml"))?;
    if let Some(name) = dependencies(&xtask).next() {
        wrong.push(format!("xtask depends on {name}; it may use nothing but std"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n       ")) }
}

fn check_unsafe(rule: &Rule, source: &Path, wrong: &mut Vec<String>) -> Result<(), String> {
    if rule.unsafe_in.is_empty() {
        let root = if rule.crate_name == "quartz" { "main.rs" } else { "lib.rs" };
        if !read(&source.join(root))?.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{}/src/{root} lacks #![forbid(unsafe_code)]", rule.crate_name));
        }
        return Ok(());
    }
    for file in rust_files(source)? {
        let relative = file.strip_prefix(source).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        if rule.unsafe_in.iter().any(|allowed| relative.starts_with(allowed)) {
            continue;
        }
        for (number, line) in read(&file)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                wrong.push(format!(
                    "{}/src/{relative}:{}: unsafe is not allowed in this file",
                    rule.crate_name,
                    number + 1
                ));
            }
        }
    }
    Ok(())
}

/// Names below `[dependencies]`.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_their_section_only() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nqtensor.workspace = true\nserde = \"1\"\n\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(dependencies(manifest).collect::<Vec<_>>(), ["qtensor", "serde"]);
    }

    #[test]
    fn the_workspace_keeps_its_rules() {
        check().unwrap();
    }
}
