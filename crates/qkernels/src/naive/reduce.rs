//! Reductions over row-major values.

/// Folds the axes for which `reduced` is true; the result is row-major over the axes that stay.
pub fn fold(x: &[f64], shape: &[usize], reduced: &[bool], initial: f64, combine: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let kept: usize = shape.iter().zip(reduced).filter(|(_, r)| !**r).map(|(d, _)| d).product();
    let mut out = vec![initial; kept];
    for (i, x) in x.iter().enumerate() {
        let (mut rest, mut place, mut step) = (i, 0, 1);
        for (d, r) in shape.iter().zip(reduced).rev() {
            if !r {
                place += rest % d * step;
                step *= d;
            }
            rest /= d;
        }
        out[place] = combine(out[place], *x);
    }
    out
}

/// The larger; NaN where either is.
pub fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
