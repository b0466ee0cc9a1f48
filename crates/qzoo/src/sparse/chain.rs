//! The choice of kernels along a chain of layers: sparse ones keep another memory order than dense ones, and every border between the two costs its change.

use super::decision::{Decision, Kernels};

/// How much faster sparse kernels must be before layers take them: measurements of short layers vary by a few percent.
const MARGIN: f64 = 0.95;

/// What a layer may run on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Offer {
    kernels: Kernels,
    /// Seconds between layers in the same memory order.
    within: f64,
    /// Seconds that a border to a layer in another order adds; it has two of them alone.
    border: f64,
}

/// What a layer may run on; dense kernels first.
fn offers(layer: &Decision) -> Vec<Offer> {
    let offer = |kernels| {
        let timing = layer.timing(kernels)?;
        let border = ((timing.alone - timing.within) / 2.0).max(0.0);
        Some(Offer { kernels, within: timing.within, border })
    };
    let dense = offer(Kernels::Dense).map_or(0.0, |offer| MARGIN * offer.within);
    let dense = Offer { kernels: Kernels::Dense, within: dense, border: 0.0 };
    let sparse = Kernels::ALL.into_iter().filter(|kernels| *kernels != Kernels::Dense);
    std::iter::once(dense).chain(sparse.filter_map(offer)).collect()
}

/// Seconds of the border between two layers.
fn border(one: Option<Offer>, other: Option<Offer>) -> f64 {
    let is_innermost = |offer: Option<Offer>| offer.is_some_and(|offer| offer.kernels.is_innermost());
    let cost = |offer: Option<Offer>| offer.map_or(0.0, |offer| offer.border);
    if is_innermost(one) == is_innermost(other) { 0.0 } else { cost(one) + cost(other) }
}

/// Gives every layer the kernels with which all of them together take the least time, borders included, and says why. What lies outside is dense.
pub(super) fn settle(layers: &mut [Decision]) {
    let offers: Vec<Vec<Offer>> = layers.iter().map(offers).collect();
    // The least seconds up to each offer of a layer, and the offer of the layer before on that way.
    let mut best: Vec<(f64, usize)> = Vec::new();
    let mut ways: Vec<Vec<usize>> = Vec::with_capacity(layers.len());
    for (i, own) in offers.iter().enumerate() {
        let least = |offer: &Offer| match i.checked_sub(1) {
            None => (offer.within + border(None, Some(*offer)), 0),
            Some(before) => {
                let way = |(from, (seconds, _)): (usize, &(f64, usize))| {
                    (seconds + border(Some(offers[before][from]), Some(*offer)) + offer.within, from)
                };
                best.iter().enumerate().map(way).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((offer.within, 0))
            }
        };
        let next: Vec<(f64, usize)> = own.iter().map(least).collect();
        ways.push(next.iter().map(|(_, from)| *from).collect());
        best = next;
    }
    let Some(last) = offers.last() else { return };
    let end = |i: usize| best[i].0 + border(Some(last[i]), None);
    let mut at = (0..last.len()).min_by(|a, b| end(*a).total_cmp(&end(*b))).unwrap_or(0);
    let mut chosen = vec![0; layers.len()];
    for i in (0..layers.len()).rev() {
        chosen[i] = at;
        at = ways[i][at];
    }
    let is_innermost = |i: usize| chosen.get(i).is_some_and(|offer| offers[i][*offer].kernels.is_innermost());
    for (i, layer) in layers.iter_mut().enumerate().filter(|(_, layer)| !layer.timings.is_empty()) {
        let neighbours = [i.checked_sub(1).is_some_and(is_innermost), is_innermost(i + 1)];
        layer.choice = offers[i][chosen[i]].kernels;
        layer.why = reason(&offers[i], chosen[i], neighbours);
    }
}

/// Why a layer runs on an offer, between neighbours of which these have the batch innermost.
fn reason(offers: &[Offer], chosen: usize, neighbours: [bool; 2]) -> String {
    let borders = neighbours.into_iter().filter(|innermost| !innermost).count() as f64;
    let time = |offer: &Offer| offer.within + borders * offer.border;
    let sparse = match chosen {
        0 => offers[1..].iter().min_by(|a, b| time(a).total_cmp(&time(b))),
        _ => offers.get(chosen),
    };
    let Some(sparse) = sparse else { return "nothing else is allowed".into() };
    let place = match neighbours {
        // Wherever it stands.
        _ if !sparse.kernels.is_innermost() => "",
        [true, true] => " between sparse layers",
        [false, false] => " alone among dense layers",
        _ => " at the end of sparse layers",
    };
    let verdict = match (chosen, time(sparse) < offers[0].within) {
        (0, _) => "does not pay",
        (_, true) => "pays",
        (_, false) => "saves its neighbours a change of the memory order",
    };
    let (own, dense) = (1e3 * time(sparse), 1e3 * offers[0].within / MARGIN);
    format!("{} {verdict}{place}: {own:.2} ms against {dense:.2} dense", sparse.kernels)
}

#[cfg(test)]
mod tests {
    use super::super::decision::Timing;
    use super::*;

    /// A layer by its milliseconds on dense kernels, and on f32 ones within a chain and alone.
    fn layer(dense: f64, within: f64, alone: f64) -> Decision {
        let timing = |kernels, within: f64, alone: f64| Timing { kernels, within: within / 1e3, alone: alone / 1e3 };
        Decision {
            layer: "layer".into(),
            kind: String::new(),
            input: Vec::new(),
            nonzeros: 1,
            sparsity: 0.9,
            timings: vec![timing(Kernels::Dense, dense, dense), timing(Kernels::F32, within, alone)],
            choice: Kernels::Dense,
            why: String::new(),
        }
    }

    fn choices(layers: &[Decision]) -> String {
        layers.iter().map(|layer| if layer.choice == Kernels::Dense { 'd' } else { 's' }).collect()
    }

    fn settled(mut layers: Vec<Decision>) -> (String, Vec<String>) {
        settle(&mut layers);
        (choices(&layers), layers.into_iter().map(|layer| layer.why).collect())
    }

    #[test]
    fn a_chain_pays_for_its_ends_together() {
        // Alone or at an end none of them would pay.
        let slow = || layer(5.5, 3.8, 7.4);
        assert_eq!(settled(vec![slow()]).0, "d");
        assert_eq!(settled(vec![slow(), slow()]).0, "dd");
        let (chosen, why) = settled((0..6).map(|_| slow()).collect());
        assert_eq!(chosen, "ssssss");
        assert!(why[2].contains("pays between sparse layers: 3.80 ms against 5.50 dense"), "{}", why[2]);
    }

    #[test]
    fn a_layer_that_pays_alone_needs_no_neighbours() {
        let mut fixed = layer(0.0, 0.0, 0.0);
        fixed.timings.clear();
        let (chosen, why) = settled(vec![fixed.clone(), layer(5.0, 1.0, 3.0), fixed]);
        assert_eq!(chosen, "dsd");
        assert!(why[1].contains("pays alone among dense layers: 3.00 ms against 5.00"), "{}", why[1]);
    }

    #[test]
    fn a_layer_between_two_chains_may_join_them() {
        let (chosen, why) = settled(vec![layer(9.0, 1.0, 7.0), layer(1.0, 1.2, 1.4), layer(9.0, 1.0, 7.0)]);
        assert_eq!(chosen, "sss");
        assert!(why[1].contains("saves its neighbours"), "{}", why[1]);
    }

    #[test]
    fn kernels_along_rows_are_beside_dense_ones_what_those_are() {
        let rows = |mut layer: Decision, seconds: f64| {
            let [within, alone] = [seconds / 1e3; 2];
            layer.timings.push(Timing { kernels: Kernels::F32Rows, within, alone });
            layer
        };
        // Faster alone, and slower where the change of the order is saved.
        let pointwise = || rows(layer(5.0, 1.0, 3.0), 2.0);
        let mut alone = vec![pointwise()];
        settle(&mut alone);
        assert_eq!(alone[0].choice, Kernels::F32Rows);
        assert_eq!(alone[0].why, "f32 rows pays: 2.00 ms against 5.00 dense");
        let mut chain = vec![layer(9.0, 1.0, 2.0), pointwise(), layer(9.0, 1.0, 2.0)];
        settle(&mut chain);
        assert!(chain.iter().all(|layer| layer.choice == Kernels::F32));
        // Between two chains it costs both of them their change.
        let mut between = vec![layer(9.0, 1.0, 7.0), rows(layer(1.0, 2.5, 2.6), 0.5), layer(9.0, 1.0, 7.0)];
        settle(&mut between);
        assert!(between.iter().all(|layer| layer.choice == Kernels::F32), "{between:?}");
    }

    #[test]
    fn choices_are_the_best_of_all() {
        let times = [(3.0, 1.0, 4.0), (2.0, 1.9, 2.5), (5.0, 4.0, 9.0), (1.0, 0.2, 1.5), (2.0, 2.5, 2.6)];
        for shift in 0..times.len() {
            let layers: Vec<Decision> = (0..5)
                .map(|i| times[(i + shift) % 5])
                .map(|(dense, within, alone)| layer(dense, within, alone))
                .collect();
            let cost = |mask: usize| -> f64 {
                let sparse = |i: i32| (0..5).contains(&i) && mask >> i & 1 == 1;
                (0..5i32)
                    .map(|i| {
                        let (dense, within, alone) = times[(i as usize + shift) % 5];
                        let borders = [i - 1, i + 1].into_iter().filter(|j| !sparse(*j)).count() as f64;
                        if sparse(i) { within + borders * (alone - within) / 2.0 } else { MARGIN * dense }
                    })
                    .sum()
            };
            let best = (0..32).map(cost).fold(f64::INFINITY, f64::min);
            let found = settled(layers).0.chars().rev().fold(0, |mask, c| mask << 1 | usize::from(c == 's'));
            assert!((cost(found) - best).abs() < 1e-9, "{shift}: {} and {best}", cost(found));
        }
    }
}
