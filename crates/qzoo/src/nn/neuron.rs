//! Quadratic neurons: one row of a table each.

use crate::experiment::{ActivationName, NeuronName, QuadraticInit};
pub use qgraph::ops::Sees;
use qkernels::quadratic::Rule;

/// What a model says about the neuron of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeuronConfig {
    /// The row of the table.
    pub name: NeuronName,
    /// Products of two projections that stand for the full quadratic form of a Type 1 neuron; `None` for the form itself.
    pub rank: Option<usize>,
    /// Whether each projection is batch-normalised before they are combined.
    pub branch_norm: bool,
    /// What is applied to each projection before they are combined; `None` for nothing.
    pub branch_activation: Option<ActivationName>,
    /// How the second-order part starts.
    pub init: QuadraticInit,
}

impl NeuronConfig {
    /// The first-order neuron.
    pub const LINEAR: NeuronConfig = NeuronConfig {
        name: NeuronName::Linear,
        rank: None,
        branch_norm: false,
        branch_activation: None,
        init: QuadraticInit::Default,
    };
}

/// Projections of one input, and how they are combined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// What each projection sees; those of one kind follow each other.
    pub sees: Vec<Sees>,
    /// The number of the weights of each projection: two may share theirs.
    pub weights: Vec<usize>,
    /// How the projections are combined; `None` where there is one, as it is.
    pub rule: Option<Rule>,
}

/// A quadratic neuron: a sum of terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neuron {
    /// What is added.
    pub terms: Vec<Term>,
}

impl Neuron {
    /// The row of a name, where a Type 1 form may be replaced by one of a given rank; `None` for the first-order neuron.
    pub fn of(name: NeuronName, rank: Option<usize>) -> Option<Neuron> {
        use Rule::{Product, ProductAndFirst, ProductAndSum, Square as Squared};
        use Sees::{Input, Square};
        let one = |sees: &[Sees], weights: &[usize], rule| Neuron {
            terms: vec![Term { sees: sees.to_vec(), weights: weights.to_vec(), rule }],
        };
        Some(match name {
            NeuronName::Linear => return None,
            NeuronName::Type1 => Self::of_form(rank, Some(Input)),
            NeuronName::Type1Pure => Self::of_form(rank, None),
            NeuronName::Type1And2 => Self::of_form(rank, Some(Square)),
            NeuronName::Type2 => one(&[Square], &[0], None),
            NeuronName::Type3 => one(&[Input], &[0], Some(Squared)),
            NeuronName::Type4 => one(&[Input, Input], &[0, 1], Some(Product)),
            NeuronName::Type2And4 => one(&[Input, Input, Square], &[0, 1, 2], Some(ProductAndSum)),
            NeuronName::Type2And4Shared => one(&[Input, Input, Square], &[0, 1, 1], Some(ProductAndSum)),
            NeuronName::Ours => one(&[Input, Input, Input], &[0, 1, 2], Some(ProductAndSum)),
            NeuronName::QRes => one(&[Input, Input], &[0, 1], Some(ProductAndFirst)),
        })
    }

    /// A quadratic form of the input, or a sum of as many products as its rank, and a projection beside it.
    fn of_form(rank: Option<usize>, beside: Option<Sees>) -> Neuron {
        let term = |sees: Vec<Sees>, first: usize, rule| {
            let weights = (first..first + sees.len()).collect();
            Term { sees, weights, rule }
        };
        let Some(rank) = rank else {
            let all = std::iter::once(Sees::Pairs).chain(beside).enumerate();
            return Neuron { terms: all.map(|(i, sees)| term(vec![sees], i, None)).collect() };
        };
        // What stands beside the form joins the first product.
        let extra = usize::from(beside.is_some());
        let product = |i: usize| {
            let mut sees = vec![Sees::Input; 2];
            match (i, beside) {
                (0, Some(beside)) => {
                    sees.push(beside);
                    term(sees, 0, Some(Rule::ProductAndSum))
                }
                _ => term(sees, 2 * i + extra, Some(Rule::Product)),
            }
        };
        Neuron { terms: (0..rank.max(1)).map(product).collect() }
    }

    /// All projections in turn, with their terms one after the other.
    pub fn sees(&self) -> impl Iterator<Item = Sees> {
        self.terms.iter().flat_map(|term| term.sees.iter().copied())
    }

    /// What the projections with those weights see.
    pub fn sees_of(&self, matrix: usize) -> Sees {
        let all = self.terms.iter().flat_map(|term| term.weights.iter().zip(&term.sees));
        all.filter(|(weights, _)| **weights == matrix).map(|(_, sees)| *sees).next().unwrap_or(Sees::Input)
    }

    /// How many projections use those weights.
    pub fn uses(&self, matrix: usize) -> usize {
        self.terms.iter().flat_map(|term| &term.weights).filter(|weights| **weights == matrix).count()
    }

    /// Matrices of weights: where no form is among them, the factor of its parameters against a first-order neuron.
    pub fn matrices(&self) -> usize {
        self.terms.iter().flat_map(|term| &term.weights).max().map_or(0, |last| last + 1)
    }

    /// Projections: where no form is among them, the factor of its multiplications against a first-order neuron.
    pub fn projections(&self) -> usize {
        self.terms.iter().map(|term| term.sees.len()).sum()
    }

    /// Factors of parameters and multiplications against a first-order neuron, in words: `n` is the number of values that a filter sees.
    pub fn factors(&self) -> [String; 2] {
        let forms = self.sees().filter(|sees| *sees == Sees::Pairs).count();
        let others = [self.matrices() - forms, self.projections() - forms];
        let [parameters, products] = others;
        match (forms, parameters) {
            (0, _) => others.map(|factor| factor.to_string()),
            (_, 0) => ["(n + 1) / 2".into(), "n + 1".into()],
            _ => [format!("(n + 1) / 2 + {parameters}"), format!("n + {}", 1 + products)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_consistent() {
        for (name, rank) in NeuronName::ALL.iter().flat_map(|name| [None, Some(1), Some(3)].map(|rank| (*name, rank))) {
            let Some(neuron) = Neuron::of(name, rank) else { continue };
            for term in &neuron.terms {
                assert_eq!(term.sees.len(), term.weights.len(), "{name}");
                assert_eq!(term.rule.map_or(1, Rule::parts), term.sees.len(), "{name}");
                assert!(term.sees.is_sorted_by_key(|sees| *sees != Sees::Input), "{name}: kinds follow each other");
            }
            assert!((0..neuron.matrices()).all(|matrix| neuron.uses(matrix) > 0), "{name}");
            assert_eq!((0..neuron.matrices()).map(|m| neuron.uses(m)).sum::<usize>(), neuron.projections(), "{name}");
        }
    }

    #[test]
    fn a_form_of_rank_1_is_a_product() {
        let of = |name, rank| Neuron::of(name, rank).unwrap();
        assert_eq!(of(NeuronName::Type1, Some(1)), of(NeuronName::Ours, None));
        assert_eq!(of(NeuronName::Type1Pure, Some(1)), of(NeuronName::Type4, None));
        assert_eq!(of(NeuronName::Type1And2, Some(1)), of(NeuronName::Type2And4, None));
        assert_eq!(of(NeuronName::Type1, Some(3)).matrices(), 7);
    }

    #[test]
    fn factors_are_those_of_the_published_table() {
        let factors = |name| Neuron::of(name, None).unwrap().factors().join(", ");
        assert_eq!(factors(NeuronName::Type1), "(n + 1) / 2 + 1, n + 2");
        assert_eq!(factors(NeuronName::Type1Pure), "(n + 1) / 2, n + 1");
        assert_eq!(factors(NeuronName::Type2And4Shared), "2, 3");
        assert_eq!(factors(NeuronName::Ours), "3, 3");
    }
}
