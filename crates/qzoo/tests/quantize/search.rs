//! Grids, and bits under a budget.

use super::support::*;
use qzoo::experiment::Experiment;
use qzoo::nn::Parameters;
use qzoo::quantize::{LayerResult, Recipe, Search, SearchEvent, SearchOptions, Storage, Watch};
use qzoo::train::{Evaluator, Event, Observer, Silent, StopFlag};

/// Stops a search after so many points.
struct Impatient {
    stop: StopFlag,
    points: usize,
    begun: usize,
}

impl Observer for Impatient {
    fn event(&mut self, _: &Event<'_>) {}
}

impl Watch for Impatient {
    fn search(&mut self, event: &SearchEvent<'_>) {
        match event {
            SearchEvent::Begins { .. } => self.begun += 1,
            SearchEvent::Point { number, .. } if number + 1 == self.points => self.stop.stop(),
            _ => {}
        }
    }
}

#[test]
fn a_search_that_was_stopped_goes_on_to_the_same_network() {
    let sets = ["quantize.bits=[2, 3]", "quantize.alphabet_scalar=[1, 2]"];
    let (root, experiment, evaluator) = evaluator(&sets);
    let settings = experiment.quantize.clone().unwrap();
    let open = |name: &str, stop: &StopFlag| {
        let options = SearchOptions { data_root: "absent".into(), stop: stop.clone(), ..SearchOptions::default() };
        Search::open(evaluator.clone(), &settings, &root.path().join(name), options).unwrap()
    };
    let whole = open("whole", &StopFlag::default()).run(&mut Silent).unwrap().unwrap();
    assert_eq!(whole.points.len(), 4);
    let mut begun = 0;
    for points in 1..=3 {
        let stop = StopFlag::default();
        let mut watch = Impatient { stop: stop.clone(), points, begun: 0 };
        assert_eq!(open("parts", &stop).run(&mut watch).unwrap(), None);
        begun += watch.begun;
    }
    let mut watch = Impatient { stop: StopFlag::default(), points: 99, begun: 0 };
    let parts = open("parts", &StopFlag::default()).run(&mut watch).unwrap().unwrap();
    // A point that the stop interrupts in its first layer is begun again; none that is done.
    assert!(begun + watch.begun <= 7, "{begun} and {} points were begun", watch.begun);
    assert_eq!((parts.best, parts.test), (whole.best, whole.test));
    let bytes = |name: &str| std::fs::read(root.path().join(name).join("checkpoints/best.safetensors")).unwrap();
    assert_eq!(bytes("parts"), bytes("whole"));

    // The network runs from its packed weights.
    let quantized = Evaluator::open(&root.path().join("whole")).unwrap();
    let again = quantize_best(&evaluator, &experiment, &whole);
    assert!(same(quantized.parameters(), &again));
    let message = Search::open(quantized, &settings, &root.path().join("again"), SearchOptions::default()).unwrap_err();
    assert!(message.to_string().contains("quantized already"), "{message}");
    let mut other = settings.clone();
    other.samples = 49;
    let message =
        Search::open(evaluator.clone(), &other, &root.path().join("whole"), SearchOptions::default()).unwrap_err();
    assert!(message.to_string().contains("choose another folder"), "{message}");
}

fn quantize_best(evaluator: &Evaluator, experiment: &Experiment, result: &qzoo::quantize::SearchResult) -> Parameters {
    let best = &result.points[result.best];
    quantizer(evaluator, experiment)
        .quantize(&Recipe::uniform(best.bits, best.alphabet_scalar), &mut Patient)
        .unwrap()
        .unwrap()
        .parameters
}

#[test]
fn mixed_bits_keep_their_budget() {
    let of = |sets: &[&str]| {
        let (root, experiment, evaluator) =
            evaluator(&[NETWORKS[2], &["quantize.bits=[2, 3, 4, 8]", "quantize.mixed=true"], sets].concat());
        let options = SearchOptions { data_root: "absent".into(), ..SearchOptions::default() };
        let mut search =
            Search::open(evaluator, experiment.quantize.as_ref().unwrap(), &root.path().join("out"), options).unwrap();
        search.run(&mut Silent).unwrap().unwrap()
    };
    let mean = |layers: &[LayerResult]| {
        let weights: usize = layers.iter().map(|layer| layer.weights).sum();
        layers.iter().map(|layer| layer.bits * layer.weights as f64).sum::<f64>() / weights as f64
    };
    let result = of(&["quantize.budget=[2.5, 4]"]);
    for (point, budget) in result.points.iter().zip([2.5, 4.0]) {
        assert!(mean(&point.layers) <= budget + 1e-9, "{budget}");
        let bits: std::collections::BTreeSet<_> = point.layers.iter().map(|layer| layer.bits as u32).collect();
        assert!(bits.len() > 1, "{bits:?}");
    }
    let result = of(&["quantize.max_drop=100"]);
    assert_eq!((result.points.len(), result.best), (1, 0), "the smallest network is good enough");
    assert_eq!(mean(&result.points[0].layers), 2.0);
    let result = of(&["quantize.max_size=\"2KiB\""]);
    let layers = &result.points[0].layers;
    let codes = layers.iter().map(|layer| Storage::for_count(layer.characters).bytes(layer.weights)).sum::<usize>();
    assert!((1700..=2048).contains(&codes), "{codes} bytes");
    assert!(result.points[0].size_bytes < result.size_before);
}
