use crate::experiment::{AlphabetName, RadiusName, Sparsity};
use qgraph::{Error, Result};
use qkernels::feedback::{Grid, Mode, Rounding, Ties};

/// What the characters of a layer are made by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alphabet {
    /// Which characters.
    pub name: AlphabetName,
    /// Bits of a weight; 1.58 for ternary.
    pub bits: f64,
    /// What the largest character is.
    pub radius: RadiusName,
    /// Whether each neuron has a radius of its own.
    pub per_output: bool,
    /// For [`RadiusName::Percentile`].
    pub percentile: f64,
    /// Factor of the radius.
    pub scalar: f64,
    /// What makes weights sparse.
    pub sparsity: Sparsity,
    /// For sparsity, in units of the weights.
    pub threshold: f64,
}

impl Alphabet {
    /// Number of characters: `2^bits`, one more or one less. 1.58 bits are three characters.
    pub fn count(&self) -> usize {
        let power = self.bits.exp2().round() as usize;
        match self.name {
            AlphabetName::MidRise | AlphabetName::Asymmetric => power,
            AlphabetName::MidTread if power % 2 == 1 => power,
            AlphabetName::MidTread => (power - 1).max(2),
            AlphabetName::MidTreadPlus | AlphabetName::MidRiseZero if power % 2 == 1 => power,
            AlphabetName::MidTreadPlus | AlphabetName::MidRiseZero => power + 1,
        }
    }

    /// How numbers become characters, where the method does not round at random.
    pub fn mode(&self, ties: Ties) -> Mode {
        match self.sparsity {
            Sparsity::None => Mode::Nearest(ties),
            Sparsity::L1 => Mode::Soft { threshold: self.threshold },
            Sparsity::L0 => Mode::Hard { threshold: self.threshold },
        }
    }
}

/// The characters for weights of `neurons` rows.
///
/// # Errors
/// Weights that are not finite, or a threshold that leaves no character but 0.
pub fn alphabet(alphabet: &Alphabet, weights: &[f32], neurons: usize) -> Result<Grid> {
    if let Some(i) = weights.iter().position(|w| !w.is_finite()) {
        return Err(Error::argument("quantize", format!("weight {i} is infinite or not a number")));
    }
    let row = weights.len() / neurons.max(1);
    if row == 0 {
        return Err(Error::argument("quantize", "a layer without weights"));
    }
    if alphabet.name == AlphabetName::Asymmetric {
        return asymmetric(alphabet, weights, row);
    }
    let radii: Vec<f64> = if alphabet.per_output {
        weights.chunks_exact(row).map(|row| alphabet.scalar * radius(alphabet, row, row.len())).collect()
    } else {
        vec![alphabet.scalar * radius(alphabet, weights, row)]
    };
    symmetric(alphabet, &radii)
}

fn symmetric(alphabet: &Alphabet, radii: &[f64]) -> Result<Grid> {
    let count = alphabet.count();
    if alphabet.sparsity == Sparsity::L0 {
        return hard(alphabet, radii, count);
    }
    if alphabet.name == AlphabetName::MidRiseZero
        && count % 2 == 1
        && (alphabet.bits.exp2().round() as usize).is_multiple_of(2)
    {
        // The even characters of mid-rise are odd numbers; 0 comes between them.
        let half = (count - 1) as f32 - 1.0;
        let mut levels: Vec<f32> = (0..count - 1).map(|i| 2.0 * i as f32 - half).collect();
        levels.insert(count / 2, 0.0);
        return Ok(Grid::new(levels, units(radii, f64::from(half)))?);
    }
    let last = if count % 2 == 1 { count / 2 } else { count - 1 };
    Ok(Grid::uniform(count, units(radii, last as f64))?)
}

/// 0 and ± (λ + k δ), so that the largest character stays where it is (Zhang, Zhou and Saab 2023): one radius, since λ is in units of the weights.
fn hard(alphabet: &Alphabet, radii: &[f64], count: usize) -> Result<Grid> {
    let (radius, steps) = (radii.iter().sum::<f64>() / radii.len() as f64, (count / 2).max(1));
    if alphabet.threshold >= radius {
        let message = format!("a threshold of {} leaves no character but 0 below {radius:.4}", alphabet.threshold);
        return Err(Error::argument("quantize", message));
    }
    let step = (radius - alphabet.threshold) / steps as f64;
    let unit = radius / steps as f64;
    let positive: Vec<f32> = (0..=steps).map(|k| ((alphabet.threshold + step * k as f64) / unit) as f32).collect();
    let levels = positive.iter().rev().map(|level| -level).chain([0.0]).chain(positive.iter().copied()).collect();
    Ok(Grid::new(levels, vec![unit as f32])?)
}

fn asymmetric(alphabet: &Alphabet, weights: &[f32], row: usize) -> Result<Grid> {
    let count = alphabet.count();
    let of = |weights: &[f32]| {
        let low = alphabet.scalar * f64::from(weights.iter().copied().fold(0.0f32, f32::min));
        let high = alphabet.scalar * f64::from(weights.iter().copied().fold(0.0f32, f32::max));
        let unit = (high - low) / (count - 1) as f64;
        // 0 must be a character, so that what is 0 stays so.
        (unit as f32, if unit > 0.0 { (-low / unit).round() as f32 } else { 0.0 })
    };
    let (units, points): (Vec<f32>, Vec<f32>) =
        if alphabet.per_output { weights.chunks_exact(row).map(of).unzip() } else { [of(weights)].into_iter().unzip() };
    let levels = (0..count).map(|i| i as f32).collect();
    Ok(Grid::new(levels, units)?.with_zero_points(points)?)
}

fn units(radii: &[f64], last: f64) -> Vec<f32> {
    radii.iter().map(|radius| (radius / last.max(1.0)) as f32).collect()
}

/// The largest character before the scalar, for neurons of `row` weights each.
fn radius(alphabet: &Alphabet, weights: &[f32], row: usize) -> f64 {
    let mean_of = |quantile: f64| {
        let neurons = weights.chunks_exact(row);
        let count = neurons.len() as f64;
        neurons.map(|row| percentile(row, quantile)).sum::<f64>() / count
    };
    match alphabet.radius {
        RadiusName::Median => percentile(weights, 0.5),
        RadiusName::RowMax => mean_of(1.0),
        RadiusName::Percentile => mean_of(alphabet.percentile),
        RadiusName::Max => percentile(weights, 1.0),
        RadiusName::Mse => least_squares(alphabet, weights),
    }
}

/// That percentile of `|w|`, between two values by their distance, as numpy has it.
fn percentile(weights: &[f32], share: f64) -> f64 {
    let mut values: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    values.sort_unstable_by(f32::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let (low_value, high_value) = (f64::from(values[low]), f64::from(values[high]));
    low_value + (place - low as f64) * (high_value - low_value)
}

/// Steps of the search for a radius, from a share of the largest weight to all of it.
const STEPS: usize = 64;

/// The radius at which rounding has the least squared error.
fn least_squares(alphabet: &Alphabet, weights: &[f32]) -> f64 {
    let largest = percentile(weights, 1.0);
    if largest == 0.0 {
        return 0.0;
    }
    let plain = Alphabet { sparsity: Sparsity::None, ..*alphabet };
    let error = |radius: f64| -> f64 {
        let Ok(grid) = symmetric(&plain, &[radius]) else { return f64::INFINITY };
        let rounding = Rounding::nearest(grid);
        // Many weights tell no more than some of them.
        let step = weights.len().div_ceil(1 << 14);
        weights
            .iter()
            .step_by(step)
            .map(|w| (f64::from(*w) - f64::from(rounding.round(0, 0, f64::from(*w)))).powi(2))
            .sum()
    };
    let radii = (1..=STEPS).map(|i| largest * (0.1 + 0.9 * i as f64 / STEPS as f64));
    let errors = radii.map(|radius| (error(radius), radius));
    errors.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(largest, |(_, radius)| radius)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Alphabet = Alphabet {
        name: AlphabetName::MidRise,
        bits: 2.0,
        radius: RadiusName::Median,
        per_output: false,
        percentile: 1.0,
        scalar: 1.0,
        sparsity: Sparsity::None,
        threshold: 0.0,
    };

    fn characters(grid: &Grid, neuron: usize) -> Vec<f32> {
        (0..grid.levels().len()).map(|i| grid.character(neuron, i)).collect()
    }

    #[test]
    fn the_median_of_an_even_number_is_between_two() {
        let grid = alphabet(&Alphabet { scalar: 2.0, ..PLAIN }, &[0.3, -0.7, 0.2, 0.9], 1).unwrap();
        let found = characters(&grid, 0);
        for (found, expected) in found.iter().zip([-1.0, -1.0 / 3.0, 1.0 / 3.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn counts() {
        let of = |name, bits| Alphabet { name, bits, ..PLAIN }.count();
        let ternary = 3f64.log2();
        for (name, counts) in [
            (AlphabetName::MidRise, [3, 4, 16, 256]),
            (AlphabetName::MidTread, [3, 3, 15, 255]),
            (AlphabetName::MidTreadPlus, [3, 5, 17, 257]),
            (AlphabetName::MidRiseZero, [3, 5, 17, 257]),
            (AlphabetName::Asymmetric, [3, 4, 16, 256]),
        ] {
            assert_eq!([ternary, 2.0, 4.0, 8.0].map(|bits| of(name, bits)), counts, "{name}");
            assert_eq!(of(name, 1.58), 3, "{name}");
            let weights: Vec<f32> = (0..50).map(|i| i as f32 / 25.0 - 0.8).collect();
            let grid = alphabet(&Alphabet { name, bits: 3.0, ..PLAIN }, &weights, 5).unwrap();
            let count = Alphabet { name, bits: 3.0, ..PLAIN }.count();
            assert_eq!(grid.levels().len(), count, "{name}");
            let has_zero = characters(&grid, 0).contains(&0.0);
            assert_eq!(has_zero, name != AlphabetName::MidRise, "{name}");
        }
    }

    #[test]
    fn radii() {
        let weights = [0.1, -0.4, 0.2, 0.3, 1.0, -0.5, 0.5, 0.25];
        let largest = |radius, per_output| {
            let settings = Alphabet { radius, per_output, ..PLAIN };
            let grid = alphabet(&settings, &weights, 2).unwrap();
            [0, 1].map(|neuron| *characters(&grid, neuron * usize::from(per_output)).last().unwrap())
        };
        assert_eq!(largest(RadiusName::Max, false), [1.0, 1.0]);
        for (radius, per_output, expected) in [
            (RadiusName::Max, true, [0.4, 1.0]),
            (RadiusName::RowMax, false, [0.7, 0.7]),
            (RadiusName::Median, true, [0.25, 0.5]),
        ] {
            let found: [f32; 2] = largest(radius, per_output);
            let near = found.iter().zip(expected).all(|(found, expected): (&f32, f32)| (found - expected).abs() < 1e-6);
            assert!(near, "{radius}: {found:?} instead of {expected:?}");
        }
    }

    #[test]
    fn the_least_squared_error_beats_the_largest_weight() {
        let weights: Vec<f32> = (0..4000).map(|i| ((i * 7919 % 4001) as f32 / 2000.5 - 1.0).powi(5)).collect();
        let error = |radius| {
            let settings = Alphabet { radius, name: AlphabetName::MidTread, bits: 3.0, ..PLAIN };
            let rounding = Rounding::nearest(alphabet(&settings, &weights, 1).unwrap());
            weights.iter().map(|w| (w - rounding.round(0, 0, f64::from(*w))).powi(2)).sum::<f32>()
        };
        assert!(error(RadiusName::Mse) < 0.9 * error(RadiusName::Max));
    }

    #[test]
    fn hard_thresholds_keep_the_largest_character() {
        let settings = Alphabet {
            radius: RadiusName::Max,
            sparsity: Sparsity::L0,
            threshold: 0.4,
            bits: 3.0,
            name: AlphabetName::MidTread,
            ..PLAIN
        };
        let grid = alphabet(&settings, &[1.0, -0.2, 0.3], 1).unwrap();
        let found = characters(&grid, 0);
        for (found, expected) in found.iter().zip([-1.0, -0.8, -0.6, -0.4, 0.0, 0.4, 0.6, 0.8, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
        assert!(alphabet(&Alphabet { threshold: 2.0, ..settings }, &[1.0], 1).is_err());
    }

    #[test]
    fn bad_weights_are_refused() {
        assert!(alphabet(&PLAIN, &[0.0, f32::NAN], 1).is_err());
        assert!(alphabet(&PLAIN, &[], 1).is_err());
        // A layer of zeros has the one character 0.
        let grid = alphabet(&PLAIN, &[0.0; 4], 1).unwrap();
        assert_eq!(characters(&grid, 0), [-0.0, -0.0, 0.0, 0.0]);
    }
}
