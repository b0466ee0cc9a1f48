//! The README's commands: each must be one that the command line understands.

use crate::shell;

/// Runs every `cargo xtask train` line of the README with `--check`, and asks every other command for its help.
pub(crate) fn check() -> Result<(), String> {
    let text =
        std::fs::read_to_string(shell::root().join("README.md")).map_err(|error| format!("README.md: {error}"))?;
    let commands: Vec<Vec<&str>> = commands(&text).collect();
    if commands.is_empty() {
        return Err("README.md shows no `cargo xtask` command".into());
    }
    let mut seen = Vec::new();
    for words in commands {
        let name = words[0];
        let arguments = match name {
            "ci" | "test" | "golden" => continue,
            "train" if words.get(1).is_some_and(|file| file.ends_with(".toml")) => {
                let kept = words.iter().take_while(|word| **word != "--data" && **word != "--resume");
                kept.copied().chain(["--check"]).collect()
            }
            _ => vec![name, "--help"],
        };
        if !seen.contains(&arguments) {
            let line =
                format!("run --release --quiet --locked --package quartz --bin quartz -- {}", arguments.join(" "));
            quietly(&line)?;
            seen.push(arguments);
        }
    }
    Ok(())
}

fn quietly(line: &str) -> Result<(), String> {
    eprintln!("   cargo {line}");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(line.split_whitespace())
        .current_dir(shell::root())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`cargo {line}` failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// The words after `cargo xtask` of every such line in a fenced block.
fn commands(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut fenced = false;
    text.lines().filter_map(move |line| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let rest = line.trim().strip_prefix("cargo xtask ").filter(|_| fenced)?;
        let code = rest.split(" #").next().unwrap_or(rest);
        let words: Vec<&str> = code.split_whitespace().collect();
        (!words.is_empty()).then_some(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fenced_lines_are_commands() {
        let text =
            "cargo xtask no\n```sh\ncargo xtask train a.toml --data D   # a comment\nls\n```\n`cargo xtask no`\n";
        assert_eq!(commands(text).collect::<Vec<_>>(), [vec!["train", "a.toml", "--data", "D"]]);
    }
}
