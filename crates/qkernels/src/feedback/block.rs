use super::Rounding;

/// What happens at features that the data say nothing about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The argument is 0 where the feature's inputs are all 0: the character next to 0.
    Nearest,
    /// The character is 0 exactly, in the alphabet or not, where the norm of the feature's inputs is below 1e-16; and where the error so far has less than
    /// 1e-10 in common with them, each weight is rounded by itself (the program of Lybrand and Saab 2021).
    Lybrand2021,
}

/// A run of features whose matrices and arguments are at hand, for a panel of neurons.
pub(super) struct Block<'a> {
    /// Number of the first feature.
    pub(super) feature: usize,
    /// Number of the first neuron.
    pub(super) neuron: usize,
    pub(super) features: usize,
    pub(super) neurons: usize,
    /// `F` of these features, `features²`, before the division.
    pub(super) feedback: Option<&'a [f64]>,
    /// Of each feature.
    pub(super) divisors: Option<&'a [f64]>,
    /// The diagonal of `E` before the division.
    pub(super) own: Option<&'a [f64]>,
    pub(super) rule: Rule,
}

impl Block<'_> {
    /// Chooses the characters of the block from the arguments `s` before division, `[features, neurons]`, that hold what all other features say. The characters come in the place of
    /// what `q` held: those of a former pass, whose part is in `s` without those of the block, or 0.
    pub(super) fn run(&self, s: &mut [f64], weights: &[f64], q: &mut [f64], rounding: &Rounding, is_later_pass: bool) {
        let p = self.neurons;
        let mut characters = vec![0.0; p];
        if is_later_pass && let Some(feedback) = self.feedback {
            for t in 0..self.features {
                for j in t + 1..self.features {
                    subtract(&mut s[t * p..(t + 1) * p], feedback[t * self.features + j], &q[j * p..(j + 1) * p]);
                }
            }
        }
        for t in 0..self.features {
            let row = t * p..(t + 1) * p;
            self.characters(t, &s[row.clone()], &weights[row.clone()], &mut characters, rounding);
            q[row].copy_from_slice(&characters);
            let Some(feedback) = self.feedback else { continue };
            for (later, s) in s.chunks_exact_mut(p).enumerate().skip(t + 1) {
                subtract(s, feedback[later * self.features + t], &characters);
            }
        }
    }

    fn characters(&self, t: usize, s: &[f64], weights: &[f64], characters: &mut [f64], rounding: &Rounding) {
        let feature = self.feature + t;
        let divisor = self.divisors.map_or(1.0, |divisors| divisors[t]);
        let round = |i: usize, argument: f64| f64::from(rounding.round(feature, self.neuron + i, argument));
        if divisor < DEAD {
            let of_zero = |i| if self.rule == Rule::Lybrand2021 { 0.0 } else { round(i, 0.0) };
            return characters.iter_mut().enumerate().for_each(|(i, q)| *q = of_zero(i));
        }
        let own = self.own.map_or(1.0, |own| own[t]);
        for (i, (q, (s, w))) in characters.iter_mut().zip(s.iter().zip(weights)).enumerate() {
            let is_free = self.rule == Rule::Lybrand2021 && (s - own * w).abs() < UNRELATED;
            *q = round(i, if is_free { *w } else { s / divisor });
        }
    }
}

/// Below this the square of a norm is that of a feature whose inputs are all 0.
const DEAD: f64 = 1e-32;
/// Below this two vectors are orthogonal for [`Rule::Lybrand2021`].
const UNRELATED: f64 = 1e-10;

fn subtract(s: &mut [f64], factor: f64, q: &[f64]) {
    if factor != 0.0 {
        s.iter_mut().zip(q).for_each(|(s, q)| *s -= factor * q);
    }
}
