use super::packed::PackedInput;
use crate::experiment::{Quantize, RangeName};
use qgraph::{Error, Result};
use qtensor::Tensor;

/// Most values that a range is chosen by.
const MOST: usize = 1 << 18;
/// Ranges that are tried for the least squared error.
const STEPS: usize = 50;

/// The grid for values like these, in `bits` bits: without negative numbers where there are no negative values.
///
/// # Errors
/// Values that are infinite or not numbers.
pub(super) fn grid(values: &[Tensor], settings: &Quantize, bits: usize) -> Result<PackedInput> {
    let count: usize = values.iter().map(Tensor::numel).sum();
    let mut all = Vec::with_capacity(count.min(2 * MOST));
    for x in values {
        all.extend(x.to_vec::<f32>()?.into_iter().step_by(count.div_ceil(MOST).max(1)));
    }
    if all.iter().any(|x| !x.is_finite()) {
        return Err(Error::argument("quantize", "activations are infinite or not numbers"));
    }
    all.sort_unstable_by(f32::total_cmp);
    let at =
        |share: f64| all.get((share * all.len().saturating_sub(1) as f64).round() as usize).copied().unwrap_or(0.0);
    let levels = ((1u32 << bits) - 1) as u8;
    // 0 is always a number of the grid: borders of convolutions are 0.
    let between = |low: f32, high: f32| of(low.min(0.0), high.max(0.0), levels);
    Ok(match settings.activation_range {
        RangeName::MinMax => between(at(0.0), at(1.0)),
        RangeName::Percentile => {
            let share = settings.activation_percentile;
            between(at(1.0 - share), at(share))
        }
        RangeName::Mse => {
            let step = all.len().div_ceil(1 << 14).max(1);
            let error = |grid: &PackedInput| -> f64 {
                all.iter().step_by(step).map(|x| f64::from(x - rounded(grid, *x)).powi(2)).sum()
            };
            let shares = (1..=STEPS).map(|i| i as f32 / STEPS as f32);
            let grids = shares.map(|share| between(share * at(0.0), share * at(1.0))).map(|grid| (error(&grid), grid));
            grids.min_by(|a, b| a.0.total_cmp(&b.0)).map_or_else(|| between(0.0, 0.0), |(_, grid)| grid)
        }
    })
}

fn of(low: f32, high: f32, levels: u8) -> PackedInput {
    let scale = (high - low) / f32::from(levels);
    if scale <= f32::MIN_POSITIVE {
        // Nothing but 0.
        return PackedInput { scale: 1.0, zero_point: 0, levels };
    }
    PackedInput { scale, zero_point: (-low / scale).round().clamp(0.0, f32::from(levels)) as u8, levels }
}

fn rounded(grid: &PackedInput, x: f32) -> f32 {
    let number = (x / grid.scale).round_ties_even() + f32::from(grid.zero_point);
    (number.clamp(0.0, f32::from(grid.levels)) - f32::from(grid.zero_point)) * grid.scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(range: RangeName) -> Quantize {
        Quantize { activation_range: range, activation_percentile: 0.9, ..Quantize::default() }
    }

    #[test]
    fn positive_values_begin_at_zero() {
        let x = Tensor::from_vec([101], (0..101).map(|i| i as f32 / 50.0).collect()).unwrap();
        let grid = grid(std::slice::from_ref(&x), &settings(RangeName::MinMax), 8).unwrap();
        assert_eq!((grid.zero_point, grid.levels), (0, 255));
        assert!((grid.scale - 2.0 / 255.0).abs() < 1e-7);
        let percentile = super::grid(&[x], &settings(RangeName::Percentile), 4).unwrap();
        assert!((percentile.scale - 1.8 / 15.0).abs() < 1e-6, "{percentile:?}");
    }

    #[test]
    fn zero_is_a_number_of_every_grid() {
        for (low, high) in [(-1.0f32, 3.0), (-2.0, -1.0), (0.5, 0.7), (-1e-3, 1e3)] {
            let x = Tensor::from_vec([2], vec![low, high]).unwrap();
            for range in [RangeName::MinMax, RangeName::Mse] {
                let grid = grid(std::slice::from_ref(&x), &settings(range), 8).unwrap();
                assert_eq!(rounded(&grid, 0.0), 0.0, "{low} {high} {range}");
                let worst = [low, high].map(|x| (x - rounded(&grid, x)).abs());
                assert!(
                    range == RangeName::Mse || worst.iter().all(|e| *e <= 0.51 * grid.scale),
                    "{low} {high}: {worst:?}"
                );
            }
        }
        let zeros = Tensor::zeros([9], qtensor::DType::F32).unwrap();
        assert_eq!(rounded(&grid(std::slice::from_ref(&zeros), &settings(RangeName::Mse), 8).unwrap(), 0.0), 0.0);
        let bad = Tensor::from_vec([1], vec![f32::NAN]).unwrap();
        assert!(grid(std::slice::from_ref(&bad), &settings(RangeName::Mse), 8).is_err());
    }

    #[test]
    fn few_outliers_are_cut_where_that_loses_less() {
        let mut values: Vec<f32> = (0..10_000).map(|i| (i % 100) as f32 / 100.0).collect();
        values.push(4.0);
        let x = Tensor::from_vec([values.len()], values).unwrap();
        let [all, best] = [RangeName::MinMax, RangeName::Mse]
            .map(|range| grid(std::slice::from_ref(&x), &settings(range), 3).unwrap().scale);
        assert!(best < 0.5 * all, "{best} {all}");
    }
}
