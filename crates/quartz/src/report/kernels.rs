//! Sparse and dense kernels in the report: what was measured, what was chosen and why; and networks finetuned on each.

use super::html::{escape, page, section, table as html_table, tiles};
use crate::format::{bytes, percent, seconds};
use qzoo::sparse::{Decision, FinetuneTable, SwapTable};

/// The last decision table of a run, one row a layer.
pub(super) fn decisions(tables: &[SwapTable]) -> String {
    let Some(table) = tables.last() else { return String::new() };
    let SwapTable { batch, threads, isa, precision, .. } = table;
    let plural = if *threads == 1 { "" } else { "s" };
    let conditions = format!("batches of {batch} in {precision}, {threads} thread{plural}, {isa}");
    let step = table.step.map_or(String::new(), |[dense, swapped]| {
        format!("; a whole pass takes {:.1} ms with these layers, {:.1} ms with dense ones", 1e3 * swapped, 1e3 * dense)
    });
    let evaluation = table.evaluation.map_or(String::new(), |[dense, sparse]| {
        format!("; an evaluation of a batch takes {:.1} ms with them in f32, {:.1} ms dense", 1e3 * sparse, 1e3 * dense)
    });
    let measured = table.measured();
    let row = |layer: &Decision| {
        let mut cells = vec![escape(&layer.layer), escape(&layer.kind), percent(layer.sparsity)];
        for kernels in &measured {
            cells.push(match layer.timing(*kernels) {
                None => "–".into(),
                Some(timing) if timing.within == timing.alone => format!("{:.2}", 1e3 * timing.within),
                Some(timing) => format!("{:.2} ({:.2})", 1e3 * timing.within, 1e3 * timing.alone),
            });
        }
        cells.push(format!("<b>{}</b>", layer.choice));
        cells.push(format!("<span class=\"wrap\">{}</span>", escape(&layer.why)));
        cells
    };
    let times: Vec<String> = measured.iter().map(|kernels| format!("{kernels} ms")).collect();
    let head: Vec<&str> = ["layer", "kind", "zeros"]
        .into_iter()
        .chain(times.iter().map(String::as_str))
        .chain(["choice", "why"])
        .collect();
    let rows: Vec<Vec<String>> = table.layers.iter().map(row).collect();
    let about = "Forward and backward pass of a layer between layers alike, and in brackets alone among dense ones";
    let conditions = escape(&(conditions + &step + &evaluation));
    format!("<p class=\"dim\">{about}; {conditions}.</p>\n{}", html_table(&head, &rows))
}

/// A page of its own for networks finetuned side by side.
pub(crate) fn finetuning(name: &str, table: &FinetuneTable) -> String {
    let rows: Vec<Vec<String>> = table
        .variants
        .iter()
        .map(|result| {
            let run = result.run.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let run = escape(&run);
            vec![
                format!("<a href=\"{run}/report.html\">{run}</a>"),
                percent(result.sparsity),
                format!("{} of {}", result.sparse_layers, result.pruned_layers),
                result.top1.map_or("–".into(), percent),
                seconds(result.epoch_seconds),
                format!("{:.1} ms", 1e3 * result.step_seconds),
                bytes(result.activation_bytes),
                bytes(result.peak_bytes),
            ]
        })
        .collect();
    let head =
        ["network", "zeros", "sparse layers", "top-1", "epoch", "step", "kept for the backward pass", "peak of a step"];
    let before = table.source_top1.map_or("–".into(), percent);
    let figures = tiles(&[
        ("top-1 before", before),
        ("epochs of finetuning", table.epochs.to_string()),
        ("images of a step", table.batch.to_string()),
    ]);
    let heading =
        format!("<h1>{}</h1>\n<p class=\"dim\">{}</p>\n", escape(name), escape(&table.source.display().to_string()));
    page(name, &(heading + &figures + &section("Finetuned networks", &html_table(&head, &rows))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use qzoo::experiment::Precision;
    use qzoo::sparse::{Kernels, Timing};

    #[test]
    fn a_row_says_why() {
        let decision = Decision {
            layer: "a<b".into(),
            kind: "linear 4 -> 2".into(),
            input: vec![8, 4],
            nonzeros: 1,
            sparsity: 0.875,
            timings: vec![
                Timing { kernels: Kernels::Dense, within: 0.004, alone: 0.004 },
                Timing { kernels: Kernels::Int8, within: 0.001, alone: 0.0025 },
            ],
            choice: Kernels::Int8,
            why: "int8 pays".into(),
        };
        let table = SwapTable {
            batch: 8,
            threads: 2,
            isa: "avx2".into(),
            precision: Precision::F32,
            step: Some([0.02, 0.01]),
            evaluation: Some([0.003, 0.002]),
            layers: vec![decision],
        };
        let html = decisions(&[table]);
        for expected in [
            "a&lt;b",
            "87.50 %",
            "4.00",
            "1.00 (2.50)",
            "<b>int8</b>",
            "int8 pays",
            "10.0 ms with these",
            "2.0 ms with them",
            "avx2",
        ] {
            assert!(html.contains(expected), "{expected} in {html}");
        }
        assert_eq!(decisions(&[]), "");
    }
}
