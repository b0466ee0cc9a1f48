//! Numbers as people read them.

/// A count with thin groups of three digits, as in `1 234 567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the largest binary unit that keeps the number above 1.
pub(crate) fn bytes(value: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = value as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{size:.*} {}", if size < 10.0 { 2 } else { 1 }, units[unit]) }
}

/// A loss: with four decimals, or as a power of ten where a few extreme samples make it huge.
pub(crate) fn loss(value: f64) -> String {
    if value.abs() < 1e4 { format!("{value:.4}") } else { format!("{value:.1e}") }
}

/// A fraction in percent with two decimals.
pub(crate) fn percent(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}

/// A rate in GFLOP/s, or a dash where nothing is multiplied.
pub(crate) fn rate(gflops: f64) -> String {
    if gflops > 0.0 { format!("{gflops:.0}") } else { "–".into() }
}

/// The share of a peak that a rate is, or a dash where either is nothing.
pub(crate) fn share_of_peak(gflops: f64, peak: f64) -> String {
    if gflops > 0.0 && peak > 0.0 { format!("{:.0} %", 100.0 * gflops / peak) } else { "–".into() }
}

/// A duration in its natural unit.
pub(crate) fn seconds(value: f64) -> String {
    if value < 1e-3 {
        format!("{:.0} µs", value * 1e6)
    } else if value < 1.0 {
        format!("{:.1} ms", value * 1e3)
    } else if value < 60.0 {
        format!("{value:.1} s")
    } else {
        let whole = value.round() as u64;
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        if hours > 0 { format!("{hours} h {minutes:02} min") } else { format!("{minutes} min {seconds:02} s") }
    }
}

/// Lines of cells as a table: numbers and names on the right of their column, the first and the last column on the left.
pub(crate) fn columns(lines: &[Vec<String>]) -> Vec<String> {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| lines.iter().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let cell = |(column, cell): (usize, &String)| match (column, widths[column]) {
        (column, _) if column + 1 == count => cell.clone(),
        (0, width) => format!("{cell:width$}"),
        (_, width) => format!("{cell:>width$}"),
    };
    lines.iter().map(|cells| cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let lines = [["layer", "ms", "why"], ["a", "12.5", "it pays"], ["conv 3×3", "-", ""]];
        let lines: Vec<Vec<String>> = lines.iter().map(|cells| cells.map(String::from).to_vec()).collect();
        assert_eq!(columns(&lines), ["layer       ms  why", "a         12.5  it pays", "conv 3×3     -  "]);
        assert!(columns(&[]).is_empty());
    }

    #[test]
    fn numbers() {
        assert_eq!([loss(0.5), loss(9999.0), loss(1.25e30)], ["0.5000", "9999.0000", "1.2e30"]);
        assert_eq!(count(1_234_567).replace('\u{202f}', " "), "1 234 567");
        assert_eq!(
            (count(999), bytes(1023), bytes(1536), bytes(20 << 20)),
            ("999".into(), "1023 B".into(), "1.50 KiB".into(), "20.0 MiB".into())
        );
        assert_eq!(
            (seconds(2e-5), seconds(0.25), seconds(59.94), seconds(61.0), seconds(7260.0)),
            ("20 µs".into(), "250.0 ms".into(), "59.9 s".into(), "1 min 01 s".into(), "2 h 01 min".into())
        );
        assert_eq!(percent(0.9805), "98.05 %");
    }
}
