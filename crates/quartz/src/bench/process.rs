//! What the operating system says about this process. Linux alone tells.

use std::fs;

/// A line of `/proc/self/status`, such as `VmHWM:` for the most memory so far, in bytes.
pub(super) fn status(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Page faults so far that needed no disk: first touches of fresh memory.
pub(super) fn minor_faults() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything; the faults are the eighth field behind it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}
