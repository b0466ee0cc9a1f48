//! Quantizers with error feedback as their papers define them, a neuron and a feature at a time.

/// Calibration data and the weights of one neuron, in f64.
#[derive(Clone, Copy, Debug)]
pub struct Neuron<'a> {
    /// Inputs of the original network, row-major `[samples, N]`.
    pub analog: &'a [f64],
    /// Inputs of the quantized network, of the same shape.
    pub quantized: &'a [f64],
    /// The weights, `N`.
    pub weights: &'a [f64],
}

/// GPFQ as its definition says (Lybrand and Saab 2021, equations 2 and 3; Zhang, Zhou and Saab 2023 where `restarts` is false): the characters
/// that `round(feature, argument)` chooses, and the error `X w - X~ q` of each sample.
pub fn gpfq(neuron: &Neuron, restarts: bool, round: impl Fn(usize, f64) -> f64) -> (Vec<f64>, Vec<f64>) {
    let features = neuron.weights.len();
    let samples = neuron.analog.len() / features;
    let column = |data: &[f64], t: usize| -> Vec<f64> { (0..samples).map(|i| data[i * features + t]).collect() };
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let mut u = vec![0.0; samples];
    let mut characters = Vec::new();
    for (t, &w) in neuron.weights.iter().enumerate() {
        let (x, seen) = (column(neuron.analog, t), column(neuron.quantized, t));
        let square = dot(&seen, &seen);
        let related = dot(&seen, &u);
        let q = match (square.sqrt() < 1e-16, restarts) {
            (true, true) => 0.0,
            (true, false) => round(t, 0.0),
            (false, true) if related.abs() < 1e-10 => round(t, w),
            _ => round(t, (related + w * dot(&seen, &x)) / square),
        };
        u.iter_mut().zip(x.iter().zip(&seen)).for_each(|(u, (x, seen))| *u += w * x - q * seen);
        characters.push(q);
    }
    (characters, u)
}

/// GPTQ as its definition says (Frantar et al. 2022): each weight is rounded, and those after it take its error up by the rows of the inverse of
/// `H + λ I`, which shrinks by a feature at a time. `h` is `[N, N]`, symmetric.
pub fn gptq(h: &[f64], damping: f64, weights: &[f64], round: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let n = weights.len();
    let mut w = weights.to_vec();
    for t in 0..n {
        // The inverse for the features that are left, by Gauss and Jordan.
        let left = n - t;
        let mut rows: Vec<Vec<f64>> = (0..left)
            .map(|i| {
                let mut row: Vec<f64> = (0..left).map(|j| h[(t + i) * n + t + j]).collect();
                row[i] += damping;
                row.extend((0..left).map(|j| if i == j { 1.0 } else { 0.0 }));
                row
            })
            .collect();
        for i in 0..left {
            let pivot = rows[i][i];
            rows[i].iter_mut().for_each(|x| *x /= pivot);
            let own = rows[i].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|(j, _)| *j != i) {
                let factor = row[i];
                row.iter_mut().zip(&own).for_each(|(x, y)| *x -= factor * y);
            }
        }
        let inverse = |i: usize| rows[i][left];
        let q = round(t, w[t]);
        let error = (w[t] - q) / inverse(0);
        for i in 1..left {
            w[t + i] -= error * inverse(i);
        }
        w[t] = q;
    }
    w
}
