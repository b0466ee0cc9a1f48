//! `[backward] mode = "auto"`: the backward modes that meet a memory budget at the least time, from measured costs.

use super::memory::{measure, profile};
use super::network::{Lesson, Network};
use super::trainer::Trainer;
use crate::experiment::{Backward, BackwardMode};
use crate::run::{LayerMemory, MemoryPlan, MemoryProfile};
use crate::{Error, Result};

/// Plans that are tried: what a mode saves at the peak of a step is only known when it runs.
const TRIES: usize = 8;
/// Steps into which the bytes to be saved are divided.
const GRAIN: usize = 512;

/// A mode that a layer may take in place of `symbolic`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Offer {
    mode: BackwardMode,
    saved: u64,
    seconds: f64,
}

impl Trainer {
    /// Chooses the modes where the experiment leaves that to the run, and tells which.
    pub(super) fn plan_memory(&mut self) -> Result<Option<String>> {
        let Some(budget) = self.experiment.backward.budget() else { return Ok(None) };
        let held = self.held_bytes();
        let (backward, plan) = self.on_first_batch(|network, lesson| {
            let costs = profile(network, lesson)?;
            meet(network, lesson, &costs, [budget, held])
        })?;
        self.network = self.network.with_backward(&backward)?;
        let message = describe(&plan);
        self.plan = Some(plan);
        Ok(Some(message))
    }

    /// Bytes that live between steps beside the parameters: state of the optimizer, averaged weights, summed gradients.
    fn held_bytes(&self) -> u64 {
        let parameters: usize =
            self.network.parameters().parameters().iter().map(|p| p.value.numel() * p.value.dtype().size()).sum();
        let copies = self.optimizer.slots()
            + usize::from(self.ema.is_some())
            + usize::from(self.experiment.train.accumulate > 1);
        (parameters * copies) as u64
    }
}

fn describe(plan: &MemoryPlan) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let chosen: Vec<String> = plan.layers.iter().map(|(layer, mode)| format!("{layer} {mode}")).collect();
    let chosen = if chosen.is_empty() { "every layer symbolic".to_string() } else { chosen.join(", ") };
    let (peak, budget) = (mib(plan.peak_bytes), mib(plan.budget_bytes));
    format!(
        "backward modes for {budget:.1} MiB: {chosen}; {peak:.1} MiB at the peak, {:.1} ms a pass",
        plan.seconds * 1e3
    )
}

/// The modes of all layers for a budget, and what a step then takes; `held` bytes are alive beside those of the pass.
fn meet(
    network: &Network,
    lesson: &Lesson<'_>,
    costs: &MemoryProfile,
    [budget, held]: [u64; 2],
) -> Result<(Backward, MemoryPlan)> {
    let layers: Vec<&LayerMemory> = costs.layers.iter().filter(|layer| !layer.name.is_empty()).collect();
    let offers: Vec<Vec<Offer>> = layers.iter().map(|layer| offers(layer, costs)).collect();
    let peak =
        costs.modes.iter().find(|mode| mode.mode == BackwardMode::Symbolic.to_string()).map_or(0, |m| m.peak_bytes);
    let most: u64 = offers.iter().map(|offers| offers.iter().map(|offer| offer.saved).max().unwrap_or(0)).sum();
    let mut wanted = (peak + held).saturating_sub(budget);
    let mut least = u64::MAX;
    for attempt in 1..=TRIES {
        // The last word has the plan that saves most.
        if attempt == TRIES {
            wanted = most;
        }
        let chosen = cheapest(&offers, wanted.min(most));
        let pairs = layers.iter().zip(&chosen).filter_map(|(layer, offer)| Some((layer.name.clone(), (*offer)?.mode)));
        let backward = Backward { mode: BackwardMode::Symbolic, layers: pairs.collect(), ..Backward::default() };
        let (total, _) = measure(&network.with_backward(&backward)?, lesson, &[])?;
        let peak_bytes = total.peak_bytes + held;
        least = least.min(peak_bytes);
        if peak_bytes <= budget {
            let layers = backward.layers.iter().map(|(layer, mode)| (layer.clone(), mode.to_string())).collect();
            return Ok((backward, MemoryPlan { budget_bytes: budget, peak_bytes, seconds: total.seconds, layers }));
        }
        if wanted >= most {
            break;
        }
        wanted += (peak_bytes - budget).max(most / GRAIN as u64);
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::Config(format!(
        "backward.memory_budget is {} MiB, but a step of {} images takes {} MiB even where layers are computed again; allow more, or use a smaller train.batch_size",
        mib(budget),
        costs.batch,
        mib(least)
    )))
}

/// What each mode that computes again saves in a layer against `symbolic`, and what it costs.
fn offers(layer: &LayerMemory, costs: &MemoryProfile) -> Vec<Offer> {
    let cost = |mode: BackwardMode| {
        let place = costs.modes.iter().position(|total| total.mode == mode.to_string())?;
        layer.modes.get(place)
    };
    let Some(base) = cost(BackwardMode::Symbolic) else { return Vec::new() };
    [BackwardMode::SymbolicRecompute, BackwardMode::Recompute]
        .into_iter()
        .filter_map(|mode| {
            let cost = cost(mode)?;
            let saved = base.kept_bytes.saturating_sub(cost.kept_bytes);
            (saved > 0).then_some(Offer { mode, saved, seconds: (cost.seconds - base.seconds).max(0.0) })
        })
        .collect()
}

/// The offers, at most one a layer, that together save `wanted` bytes in the least time: a knapsack by dynamic programming over the bytes saved, in steps of
/// a fraction of what is wanted. Savings are rounded down, so that they never fall short.
fn cheapest(offers: &[Vec<Offer>], wanted: u64) -> Vec<Option<Offer>> {
    if wanted == 0 {
        return vec![None; offers.len()];
    }
    let all: u64 = offers.iter().map(|offers| offers.iter().map(|offer| offer.saved).max().unwrap_or(0)).sum();
    let unit = (wanted / GRAIN as u64).max(1);
    let steps = wanted.div_ceil(unit) as usize;
    // The least seconds that save so many units, and the choice of each layer on the way there.
    let mut best = vec![f64::INFINITY; steps + 1];
    best[0] = 0.0;
    let mut choices = Vec::with_capacity(offers.len());
    for offers in offers {
        let mut next = best.clone();
        let mut choice: Vec<(Option<Offer>, usize)> = (0..=steps).map(|saved| (None, saved)).collect();
        for offer in offers {
            let units = (offer.saved / unit) as usize;
            for (saved, seconds) in best.iter().enumerate().filter(|(_, seconds)| seconds.is_finite()) {
                let to = (saved + units).min(steps);
                if seconds + offer.seconds < next[to] {
                    next[to] = seconds + offer.seconds;
                    choice[to] = (Some(*offer), saved);
                }
            }
        }
        best = next;
        choices.push(choice);
    }
    if best[steps].is_infinite() || wanted >= all {
        let largest = |offers: &Vec<Offer>| offers.iter().copied().max_by_key(|offer| offer.saved);
        return offers.iter().map(largest).collect();
    }
    let mut at = steps;
    let mut chosen = vec![None; offers.len()];
    for (layer, choice) in choices.iter().enumerate().rev() {
        let (offer, before) = choice[at];
        chosen[layer] = offer;
        at = before;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtensor::random::{Purpose, Stream, StreamKey};

    /// Every choice of one offer or none a layer.
    fn exhaustive(offers: &[Vec<Offer>], wanted: u64) -> f64 {
        let Some((first, rest)) = offers.split_first() else {
            return if wanted == 0 { 0.0 } else { f64::INFINITY };
        };
        let with = |offer: &Offer| offer.seconds + exhaustive(rest, wanted.saturating_sub(offer.saved));
        first.iter().map(with).fold(exhaustive(rest, wanted), f64::min)
    }

    #[test]
    fn plans_are_the_cheapest_that_save_enough() {
        for index in 0..40 {
            let key = StreamKey { seed: 4, purpose: Purpose::Test, epoch: 0, index };
            let mut stream = Stream::new(key);
            let mut offer = |mode| Offer {
                mode,
                saved: 1 + (f64::from(stream.uniform()) * 60.0) as u64,
                seconds: f64::from(stream.uniform()),
            };
            let offers: Vec<Vec<Offer>> = (0..6)
                .map(|layer| {
                    let modes = [BackwardMode::SymbolicRecompute, BackwardMode::Recompute];
                    modes[..1 + layer % 2].iter().map(|mode| offer(*mode)).collect()
                })
                .collect();
            for wanted in [0, 1, 20, 50, 90] {
                let chosen = cheapest(&offers, wanted);
                let saved: u64 = chosen.iter().flatten().map(|offer| offer.saved).sum();
                let most: u64 = offers.iter().map(|o| o.iter().map(|offer| offer.saved).max().unwrap()).sum();
                if wanted >= most {
                    assert_eq!(saved, most);
                    continue;
                }
                let seconds: f64 = chosen.iter().flatten().map(|offer| offer.seconds).sum();
                assert!(saved >= wanted, "{saved} of {wanted}");
                assert!((seconds - exhaustive(&offers, wanted)).abs() < 1e-9, "{wanted}: {seconds}");
            }
        }
    }
}
