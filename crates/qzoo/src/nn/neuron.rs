//! Quadratic neurons: one row of a table each.

use crate::experiment::NeuronName;
use qkernels::quadratic::Rule;

/// What a projection of a quadratic neuron is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// `x`
    Input,
    /// `x²`, element by element
    Square,
}

/// A quadratic neuron: linear projections of `x` or `x²`, and how they are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neuron {
    /// What each projection sees; those of one kind follow each other.
    pub sees: &'static [Sees],
    /// The number of the weights of each projection: two may share theirs.
    pub weights: &'static [usize],
    /// How the projections are combined; `None` where there is one, as it is.
    pub rule: Option<Rule>,
}

impl Neuron {
    /// The row of a name; `None` for the first-order neuron.
    pub fn of(name: NeuronName) -> Option<Neuron> {
        use Sees::{Input, Square};
        let row = |sees, weights, rule| Some(Neuron { sees, weights, rule });
        match name {
            NeuronName::Linear => None,
            NeuronName::Type2 => row(&[Square], &[0], None),
            NeuronName::Type3 => row(&[Input], &[0], Some(Rule::Square)),
            NeuronName::Type4 => row(&[Input, Input], &[0, 1], Some(Rule::Product)),
            NeuronName::Type2And4 => row(&[Input, Input, Square], &[0, 1, 2], Some(Rule::ProductAndSum)),
            NeuronName::Type2And4Shared => row(&[Input, Input, Square], &[0, 1, 1], Some(Rule::ProductAndSum)),
            NeuronName::Ours => row(&[Input, Input, Input], &[0, 1, 2], Some(Rule::ProductAndSum)),
            NeuronName::QRes => row(&[Input, Input], &[0, 1], Some(Rule::ProductAndFirst)),
        }
    }

    /// Matrices of weights: the factor of its parameters against a first-order neuron.
    pub fn matrices(&self) -> usize {
        self.weights.iter().max().map_or(0, |last| last + 1)
    }

    /// Projections: the factor of its multiplications against a first-order neuron.
    pub fn projections(&self) -> usize {
        self.sees.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_consistent() {
        for name in NeuronName::ALL {
            let Some(neuron) = Neuron::of(*name) else { continue };
            assert_eq!(neuron.sees.len(), neuron.weights.len(), "{name}");
            assert_eq!(neuron.rule.map_or(1, Rule::parts), neuron.projections(), "{name}");
            assert!(neuron.sees.is_sorted_by_key(|sees| *sees == Sees::Square), "{name}: kinds follow each other");
            assert!((0..neuron.matrices()).all(|matrix| neuron.weights.contains(&matrix)), "{name}");
        }
    }
}
