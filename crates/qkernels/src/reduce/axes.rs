//! Reductions of f32 tensors over any axes, as one or a few reductions of matrices.

use super::columns::{Columns, columns};
use crate::elementwise::operands::dense;
use crate::par;
use qtensor::{Result, Tensor};

/// Values that one thread takes at a time.
const PIECE: usize = 32 * 1024;
/// Runs shorter than this are added one value at a time.
const SHORT: usize = 128;

/// Reduces the axes for which `reduced` is true and multiplies the result by `factor`. The axes that stay keep their order in memory.
pub(super) fn reduce<C: Columns<1, 0, 1>>(rule: C, x: &Tensor, reduced: &[bool], factor: f64) -> Result<Tensor> {
    let x = dense(x);
    let mut order: Vec<usize> = (0..x.rank()).collect();
    // Stable, so that axes of length 1, whose strides mean nothing, cannot part the others more than they must.
    order.sort_by_key(|a| std::cmp::Reverse(if x.shape()[*a] == 1 { usize::MAX } else { x.strides()[*a] }));
    // Runs of neighbouring axes that are all reduced or all kept, slowest first.
    let mut groups: Vec<(bool, usize)> = Vec::new();
    for axis in order.iter().filter(|a| x.shape()[**a] != 1) {
        match groups.last_mut() {
            Some((kind, length)) if *kind == reduced[*axis] => *length *= x.shape()[*axis],
            _ => groups.push((reduced[*axis], x.shape()[*axis])),
        }
    }
    let mut partial: Option<Vec<f32>> = None;
    let mut totals: Option<Vec<f64>> = None;
    while let Some(last) = groups.iter().rposition(|(reduced, _)| *reduced) {
        let outer = groups[..last].iter().map(|(_, length)| length).product();
        let inner = groups[last + 1..].iter().map(|(_, length)| length).product();
        let source = partial.as_deref().map_or_else(|| x.memory::<f32>(), Ok)?;
        let result = middle(rule, source, [outer, groups[last].1, inner]);
        groups.remove(last);
        partial = Some(result.iter().map(|v| *v as f32).collect());
        totals = Some(result);
    }
    let totals = match totals {
        Some(totals) => totals,
        None => x.memory::<f32>()?.iter().map(|v| f64::from(*v)).collect(),
    };
    let kept: Vec<usize> = order.into_iter().filter(|a| !reduced[*a]).collect();
    let dims: Vec<usize> = kept.iter().map(|a| x.shape()[*a]).collect();
    let values = totals.into_iter().map(|v| (v * factor) as f32).collect();
    let mut back: Vec<usize> = (0..kept.len()).collect();
    back.sort_by_key(|i| kept[*i]);
    Tensor::from_vec(dims, values)?.permute(&back)
}

/// `[outer, length, inner]` reduced to `[outer, inner]`.
fn middle<C: Columns<1, 0, 1>>(rule: C, x: &[f32], [outer, length, inner]: [usize; 3]) -> Vec<f64> {
    let size = length * inner;
    if outer == 0 || inner == 0 || length == 0 {
        return vec![f64::from(C::START); outer * inner];
    }
    if outer == 1 && !(inner == 1 && length < SHORT) {
        let [totals] = columns(rule, [x], [], inner);
        return totals;
    }
    let together = (PIECE / size).max(1);
    let parts = par::map(outer.div_ceil(together), |i| {
        let part = &x[i * together * size..outer.min((i + 1) * together) * size];
        let mut totals = Vec::with_capacity(part.len() / length);
        for matrix in part.chunks(size) {
            if inner == 1 && length < SHORT {
                let total = matrix.iter().fold(f64::from(C::START), |t, x| rule.join_f64(t, f64::from(*x)));
                totals.push(total);
            } else {
                let [mut total] = columns(rule, [matrix], [], inner);
                totals.append(&mut total);
            }
        }
        totals
    });
    parts.concat()
}
