//! Softmax over rows of `width` values.

/// Logarithm of the softmax of each row.
pub fn log_softmax(x: &[f64], width: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(width.max(1)) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = row.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max;
        y.extend(row.iter().map(|x| x - log_sum));
    }
    y
}

/// `dy - exp(y) · Σ dy` of each row, where `y` is the log-softmax.
pub fn log_softmax_grad(y: &[f64], dy: &[f64], width: usize) -> Vec<f64> {
    let mut dx = Vec::with_capacity(y.len());
    for (y, dy) in y.chunks(width.max(1)).zip(dy.chunks(width.max(1))) {
        let sum: f64 = dy.iter().sum();
        dx.extend(y.iter().zip(dy).map(|(y, dy)| dy - y.exp() * sum));
    }
    dx
}

/// Mean loss `-Σ q log p / N` and its gradient `(p Σ q - q) / N` with respect to the logits, for targets `q` of the same size.
pub fn cross_entropy(x: &[f64], targets: &[f64], width: usize) -> (f64, Vec<f64>) {
    let rows = (x.len() / width.max(1)) as f64;
    let log_p = log_softmax(x, width);
    let loss = -log_p.iter().zip(targets).map(|(p, q)| if *q == 0.0 { 0.0 } else { p * q }).sum::<f64>() / rows;
    let mut residual = Vec::with_capacity(x.len());
    for (p, q) in log_p.chunks(width.max(1)).zip(targets.chunks(width.max(1))) {
        let mass: f64 = q.iter().sum();
        residual.extend(p.iter().zip(q).map(|(p, q)| (p.exp() * mass - q) / rows));
    }
    (loss, residual)
}
