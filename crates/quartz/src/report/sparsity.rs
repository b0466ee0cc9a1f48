//! The pruned layers in the report.

use super::html::{bar, escape, table as html_table};
use crate::format::{count, percent};
use qzoo::sparse::LayerSparsity;

/// One row a layer, and one for all of them.
pub(super) fn table(layers: &[LayerSparsity]) -> String {
    let weights = |layer: &LayerSparsity| layer.shape.iter().product::<usize>() as u64;
    let row = |name: String, shape: String, weights: u64, left: u64| {
        let zeros = 1.0 - left as f64 / weights.max(1) as f64;
        vec![name, shape, count(weights), count(left), bar(&percent(zeros), zeros)]
    };
    let mut rows: Vec<Vec<String>> = layers
        .iter()
        .map(|layer| row(escape(&layer.name), format!("{:?}", layer.shape), weights(layer), layer.nonzeros))
        .collect();
    let all = (layers.iter().map(weights).sum(), layers.iter().map(|layer| layer.nonzeros).sum());
    rows.push(row("all pruned layers".into(), String::new(), all.0, all.1));
    html_table(&["layer", "shape", "weights", "left", "zeros"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_their_sum() {
        let layer = |name: &str, nonzeros, sparsity| LayerSparsity {
            name: name.into(),
            shape: vec![4, 25],
            nonzeros,
            sparsity,
        };
        let html = table(&[layer("fc<1>", 10, 0.9), layer("fc2", 40, 0.6)]);
        for expected in ["fc&lt;1&gt;", "[4, 25]", ">90.00 %<", ">60.00 %<", ">75.00 %<", "<td>50</td>"] {
            assert!(html.contains(expected), "{expected} in {html}");
        }
    }
}
