//! What the repository shows its users: experiments that check, and commands of the README that the program understands.

mod common;

use common::{finish, quartz};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_experiment_checks() {
    let entries = std::fs::read_dir(root().join("experiments")).unwrap();
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = files.iter().filter(|file| file.extension().is_some_and(|e| e == "toml")).collect();
    assert!(files.len() >= 20);
    for file in files {
        // The images of a folder are the user's own.
        let code = if std::fs::read_to_string(file).unwrap().contains("dataset = \"folder\"") { 3 } else { 0 };
        finish(quartz().arg("train").arg(file).arg("--check"), code);
    }
}

/// Trainings of the README are checked; of every other command the help must exist, and each of its options in it.
#[test]
fn every_command_of_the_readme_is_understood() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let commands = commands(&text);
    assert!(commands.iter().any(|words| words[0] == "train"));
    for words in commands {
        match words[0] {
            "ci" | "test" | "golden" => {}
            "train" if words.get(1).is_some_and(|file| file.ends_with(".toml")) => {
                let kept = words.iter().take_while(|word| **word != "--data" && **word != "--resume");
                finish(quartz().current_dir(root()).args(kept).arg("--check"), 0);
            }
            name => {
                let help = finish(quartz().args([name, "--help"]), 0);
                let help = String::from_utf8_lossy(&help.stdout).into_owned();
                for option in words.iter().filter(|word| word.starts_with("--")) {
                    assert!(help.contains(option), "{name} has no {option}");
                }
            }
        }
    }
}

/// The words after `cargo xtask` of every such line in a fenced block.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let mut fenced = false;
    let mut all = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let Some(rest) = line.trim().strip_prefix("cargo xtask ").filter(|_| fenced) else { continue };
        let code = rest.split(" #").next().unwrap_or(rest);
        let words: Vec<&str> = code.split_whitespace().collect();
        if !words.is_empty() {
            all.push(words);
        }
    }
    all
}

#[test]
fn only_fenced_lines_are_commands() {
    let text = "cargo xtask no\n```sh\ncargo xtask train a.toml --data D   # a comment\nls\n```\n`cargo xtask no`\n";
    assert_eq!(commands(text), [vec!["train", "a.toml", "--data", "D"]]);
}
