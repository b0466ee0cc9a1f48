//! Pooling over row-major images, one output value at a time.

use crate::pool::Windows;

/// Maxima and their places `row · width + column` in the plane, `[N, C, OH, OW]`; the first of equal values wins, the last NaN over all.
pub fn max_pool(x: &[f64], w: &Windows) -> (Vec<f64>, Vec<i32>) {
    let (mut y, mut places) = (Vec::new(), Vec::new());
    for plane in 0..w.planes() {
        let x = &x[plane * w.input[0] * w.input[1]..];
        w.each_output(|i, j| {
            let (rows, columns) = (w.span(0, i), w.span(1, j));
            let mut best = (f64::NEG_INFINITY, rows.start * w.input[1] + columns.start);
            for place in rows.flat_map(|r| columns.clone().map(move |c| r * w.input[1] + c)) {
                if x[place] > best.0 || x[place].is_nan() {
                    best = (x[place], place);
                }
            }
            y.push(best.0);
            places.push(best.1 as i32);
        });
    }
    (y, places)
}

/// Each output's gradient goes to the place of its maximum, in `planes` planes of `size` places.
pub fn max_pool_grad(dy: &[f64], places: &[i32], planes: usize, size: usize) -> Vec<f64> {
    let outputs = (dy.len() / planes.max(1)).max(1);
    let mut dx = vec![0.0; planes * size];
    for (i, (dy, place)) in dy.iter().zip(places).enumerate() {
        dx[i / outputs * size + *place as usize] += dy;
    }
    dx
}

/// Means of the windows.
pub fn avg_pool(x: &[f64], w: &Windows) -> Vec<f64> {
    let mut y = Vec::new();
    for plane in 0..w.planes() {
        let x = &x[plane * w.input[0] * w.input[1]..];
        w.each_output(|i, j| {
            let sum: f64 = w.span(0, i).flat_map(|r| w.span(1, j).map(move |c| x[r * w.input[1] + c])).sum();
            y.push(sum / w.divisor(i, j) as f64);
        });
    }
    y
}

/// Each output's gradient is shared by its window.
pub fn avg_pool_grad(dy: &[f64], w: &Windows) -> Vec<f64> {
    let size = w.input[0] * w.input[1];
    let mut dx = vec![0.0; w.planes() * size];
    let mut dy = dy.iter();
    for plane in 0..w.planes() {
        w.each_output(|i, j| {
            let share = dy.next().map_or(0.0, |dy| dy / w.divisor(i, j) as f64);
            for place in w.span(0, i).flat_map(|r| w.span(1, j).map(move |c| r * w.input[1] + c)) {
                dx[plane * size + place] += share;
            }
        });
    }
    dx
}
