//! Bits of each layer under a budget: those layers get many that the network's answers depend on.

use super::bits::Storage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the network's answers lose when one layer alone is rounded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Full name of the layer.
    pub name: String,
    /// Number of its weights.
    pub weights: usize,
    /// For each number of bits, ascending, what they cost and lose.
    pub choices: Vec<Choice>,
}

/// A number of bits for a layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Bits of a weight.
    pub bits: f64,
    /// Characters that they give.
    pub characters: usize,
    /// The mean Kullback-Leibler divergence of the network's probabilities from the original ones, in nats an image.
    pub divergence: f64,
}

/// What bits may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Bits of a weight, as a mean over all weights that are quantized.
    MeanBits(f64),
    /// Bytes of all codes.
    Bytes(u64),
}

impl Sensitivity {
    fn bytes(&self, choice: usize) -> u64 {
        Storage::for_count(self.choices[choice].characters).bytes(self.weights) as u64
    }

    fn cost(&self, choice: usize, budget: Budget) -> f64 {
        match budget {
            Budget::MeanBits(_) => self.choices[choice].bits * self.weights as f64,
            Budget::Bytes(_) => self.bytes(choice) as f64,
        }
    }
}

/// Bits for each layer that keep the budget, or `None` where even the fewest are too many.
///
/// All layers begin with the fewest bits. The one whose next step gains most for its cost takes it, until no step fits any more: the best choice where gains
/// shrink with every step, and near it elsewhere.
pub fn assign(layers: &[Sensitivity], budget: Budget) -> Option<BTreeMap<String, f64>> {
    let weights: usize = layers.iter().map(|layer| layer.weights).sum();
    let limit = match budget {
        Budget::MeanBits(bits) => bits * weights as f64 * (1.0 + 1e-12),
        Budget::Bytes(bytes) => bytes as f64,
    };
    let mut chosen = vec![0; layers.len()];
    let mut cost: f64 = layers.iter().map(|layer| layer.cost(0, budget)).sum();
    if cost > limit {
        return None;
    }
    loop {
        let steps = layers.iter().enumerate().flat_map(|(i, layer)| {
            let now = chosen[i];
            (now + 1..layer.choices.len()).map(move |next| (i, next, layer, now))
        });
        let steps = steps.filter_map(|(i, next, layer, now)| {
            let price = layer.cost(next, budget) - layer.cost(now, budget);
            let gain = layer.choices[now].divergence - layer.choices[next].divergence;
            // A step that costs nothing is taken where it does not hurt.
            let worth = if price > 0.0 { gain / price } else { f64::INFINITY };
            (cost + price <= limit && gain > 0.0).then_some((worth, price, i, next))
        });
        let Some((_, price, i, next)) =
            steps.max_by(|a, b| a.0.total_cmp(&b.0).then(b.2.cmp(&a.2)).then(b.3.cmp(&a.3)))
        else {
            break;
        };
        chosen[i] = next;
        cost += price;
    }
    Some(layers.iter().zip(chosen).map(|(layer, choice)| (layer.name.clone(), layer.choices[choice].bits)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, weights: usize, divergences: [f64; 3]) -> Sensitivity {
        let choices = [(2.0, 3), (4.0, 15), (8.0, 255)].into_iter().zip(divergences);
        let choices = choices.map(|((bits, characters), divergence)| Choice { bits, characters, divergence }).collect();
        Sensitivity { name: name.into(), weights, choices }
    }

    fn mean(layers: &[Sensitivity], bits: &BTreeMap<String, f64>) -> f64 {
        let weights: usize = layers.iter().map(|layer| layer.weights).sum();
        layers.iter().map(|layer| bits[&layer.name] * layer.weights as f64).sum::<f64>() / weights as f64
    }

    #[test]
    fn sensitive_layers_get_more_bits() {
        let layers =
            [layer("a", 100, [1.0, 0.1, 0.01]), layer("b", 1000, [0.2, 0.02, 0.0]), layer("c", 10, [3.0, 0.5, 0.1])];
        let bits = assign(&layers, Budget::MeanBits(2.5)).unwrap();
        assert_eq!(bits.values().copied().collect::<Vec<_>>(), [4.0, 2.0, 8.0]);
        for budget in [2.0, 2.3, 3.0, 4.0, 6.0, 8.0] {
            let bits = assign(&layers, Budget::MeanBits(budget)).unwrap();
            assert!(mean(&layers, &bits) <= budget + 1e-9, "{budget}: {bits:?}");
        }
        assert_eq!(assign(&layers, Budget::MeanBits(8.0)).unwrap().values().sum::<f64>(), 24.0);
        assert_eq!(assign(&layers, Budget::MeanBits(1.9)), None);
    }

    #[test]
    fn bytes_are_those_of_the_codes() {
        let layers = [layer("a", 100, [1.0, 0.1, 0.01]), layer("b", 1000, [0.2, 0.02, 0.0])];
        // Three characters take a fifth of a byte each, fifteen half a byte.
        assert_eq!(assign(&layers, Budget::Bytes(219)), None);
        assert_eq!(assign(&layers, Budget::Bytes(220)).unwrap().values().copied().collect::<Vec<_>>(), [2.0, 2.0]);
        assert_eq!(assign(&layers, Budget::Bytes(250)).unwrap().values().copied().collect::<Vec<_>>(), [4.0, 2.0]);
    }

    #[test]
    fn the_greedy_choice_is_the_best_where_gains_shrink() {
        let layers =
            [layer("a", 30, [0.9, 0.3, 0.05]), layer("b", 50, [1.5, 0.2, 0.1]), layer("c", 20, [0.4, 0.1, 0.0])];
        let loss = |bits: &BTreeMap<String, f64>| -> f64 {
            let of =
                |layer: &Sensitivity| layer.choices.iter().find(|c| c.bits == bits[&layer.name]).unwrap().divergence;
            layers.iter().map(of).sum()
        };
        for budget in [4.0, 8.0] {
            let found = loss(&assign(&layers, Budget::MeanBits(budget)).unwrap());
            let mut best = f64::INFINITY;
            for code in 0..27 {
                let bits: BTreeMap<String, f64> = layers
                    .iter()
                    .enumerate()
                    .map(|(i, layer)| (layer.name.clone(), layer.choices[code / 3usize.pow(i as u32) % 3].bits))
                    .collect();
                if mean(&layers, &bits) <= budget {
                    best = best.min(loss(&bits));
                }
            }
            assert!(found <= best + 0.15, "budget {budget}: {found}, best {best}");
        }
    }
}
