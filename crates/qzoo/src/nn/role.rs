//! Which projections of a quadratic neuron are its first-order part, and how it starts first-order.

use super::neuron::{Neuron, Sees};
use qkernels::quadratic::Rule;

/// What a projection is to its neuron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first-order part: all that the neuron computes where the others give what their role says.
    Linear,
    /// Of the second-order part, of no effect where its partner gives a constant.
    Factor,
    /// Of the second-order part, gone where it gives 0.
    Zero,
    /// Of the second-order part, the factor that leaves the first-order part as it is where it gives 1.
    One,
}

impl Role {
    /// Whether the projection belongs to the second-order part.
    pub fn is_quadratic(self) -> bool {
        self != Role::Linear
    }

    /// What the projection gives for every input while the neuron is first-order; `None` for its usual values.
    pub fn constant(self) -> Option<f64> {
        match self {
            Role::Linear | Role::Factor => None,
            Role::Zero => Some(0.0),
            Role::One => Some(1.0),
        }
    }
}

impl Neuron {
    /// The role of each projection. The first-order part is the linear term where there is one; where there is none it is the first factor of the first
    /// product, whose second factor starts as 1 (ReLinear: Fan et al., 2021, arXiv:2110.06081). Squares and full forms alone have no first-order part.
    pub fn roles(&self) -> Vec<Role> {
        let has_linear = self.terms.iter().any(|term| match term.rule {
            None => term.sees == [Sees::Input],
            Some(Rule::ProductAndSum) => term.sees[2] == Sees::Input,
            Some(Rule::ProductAndFirst) => true,
            Some(Rule::Square | Rule::Product) => false,
        });
        let mut carried = has_linear;
        let mut roles = Vec::with_capacity(self.projections());
        for term in &self.terms {
            let beside = |sees: Sees| if sees == Sees::Input { Role::Linear } else { Role::Zero };
            let mut product = || {
                if std::mem::replace(&mut carried, true) {
                    [Role::Factor, Role::Zero]
                } else {
                    [Role::Linear, Role::One]
                }
            };
            match term.rule {
                None => roles.push(beside(term.sees[0])),
                Some(Rule::Square) => roles.push(Role::Zero),
                Some(Rule::Product) => roles.extend(product()),
                Some(Rule::ProductAndSum) => {
                    roles.extend(product());
                    roles.push(beside(term.sees[2]));
                }
                Some(Rule::ProductAndFirst) => roles.extend([Role::Linear, Role::Zero]),
            }
        }
        roles
    }

    /// Whether the neuron has a first-order part to start as.
    pub fn starts_linear(&self) -> bool {
        self.roles().contains(&Role::Linear)
    }

    /// The role of a matrix of weights: that of the first projection that uses it.
    pub fn role_of(&self, matrix: usize) -> Role {
        let weights = self.terms.iter().flat_map(|term| &term.weights);
        let role = weights.zip(self.roles()).find(|(weights, _)| **weights == matrix).map(|(_, role)| role);
        role.unwrap_or(Role::Factor)
    }
}

#[cfg(test)]
mod tests {
    use super::Role::{Factor, Linear, One, Zero};
    use super::*;
    use crate::experiment::NeuronName;

    #[test]
    fn every_row_has_the_first_order_part_of_its_formula() {
        let roles = |name, rank| Neuron::of(name, rank).unwrap().roles();
        let full: [(_, &[Role]); 10] = [
            (NeuronName::Type1, &[Zero, Linear]),
            (NeuronName::Type1Pure, &[Zero]),
            (NeuronName::Type1And2, &[Zero, Zero]),
            (NeuronName::Type2, &[Zero]),
            (NeuronName::Type3, &[Zero]),
            (NeuronName::Type4, &[Linear, One]),
            (NeuronName::Type2And4, &[Linear, One, Zero]),
            (NeuronName::Type2And4Shared, &[Linear, One, Zero]),
            (NeuronName::Ours, &[Factor, Zero, Linear]),
            (NeuronName::QRes, &[Linear, Zero]),
        ];
        for (name, expected) in full {
            assert_eq!(roles(name, None), expected, "{name}");
        }
        assert_eq!(full.len(), NeuronName::ALL.len() - 1);
        assert_eq!(roles(NeuronName::Type1, Some(2)), [Factor, Zero, Linear, Factor, Zero]);
        assert_eq!(roles(NeuronName::Type1Pure, Some(2)), [Linear, One, Factor, Zero]);
        assert_eq!(roles(NeuronName::Type1And2, Some(2)), [Linear, One, Zero, Factor, Zero]);
    }
}
