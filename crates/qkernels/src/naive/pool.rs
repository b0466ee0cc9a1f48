//! Pooling over row-major images, one output value at a time.

use crate::pool::Windows;

/// Maxima and their places `row · width + column` in the window, border included, `[N, C, OH, OW]`; the first of equal values wins, the last NaN over all.
pub fn max_pool(x: &[f64], w: &Windows) -> (Vec<f64>, Vec<i32>) {
    let (mut y, mut places) = (Vec::new(), Vec::new());
    for plane in 0..w.planes() {
        let x = &x[plane * w.input[0] * w.input[1]..];
        w.each_output(|i, j| {
            let (rows, columns) = (w.span(0, i), w.span(1, j));
            let mut best = (f64::NEG_INFINITY, [rows.start, columns.start]);
            for [r, c] in rows.flat_map(|r| columns.clone().map(move |c| [r, c])) {
                let x = x[r * w.input[1] + c];
                if x > best.0 || x.is_nan() {
                    best = (x, [r, c]);
                }
            }
            y.push(best.0);
            places.push(w.place([i, j], best.1) as i32);
        });
    }
    (y, places)
}

/// Each output's gradient goes to the place of its maximum; to none where that is in the border.
pub fn max_pool_grad(dy: &[f64], places: &[i32], w: &Windows) -> Vec<f64> {
    let size = w.input[0] * w.input[1];
    let mut dx = vec![0.0; w.planes() * size];
    let mut outputs = dy.iter().zip(places);
    for plane in 0..w.planes() {
        w.each_output(|i, j| {
            let Some((dy, place)) = outputs.next() else { return };
            for [r, c] in w.span(0, i).flat_map(|r| w.span(1, j).map(move |c| [r, c])) {
                if w.place([i, j], [r, c]) == *place as usize {
                    dx[plane * size + r * w.input[1] + c] += dy;
                }
            }
        });
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
