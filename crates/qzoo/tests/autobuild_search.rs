//! Whole searches on small generated images: the same files however often the process ends, and answers that keep their limits.

use qtensor::random::{Purpose, Stream, StreamKey};
use qzoo::autobuild::{Ended, Images, Search, SearchEvent, SearchOptions, SearchResult, Watch};
use qzoo::experiment::{Experiment, Override};
use qzoo::run::RunReader;
use qzoo::train::{Event, Observer, Silent, StopFlag};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const IMAGES: Images = Images { shape: [3, 8, 8], classes: 4 };

const TINY: &str = r#"
name = "tiny"
seed = 3
[data]
dataset = "folder"
path = "squares"
image_size = 8
validation = 0.3
[model]
name = "vgg11"
layers = [6, "pool", 6, 6, "pool", 8, 8, "pool"]
[train]
epochs = 1
batch_size = 16
eval_batch_size = 32
[optim]
name = "sgd"
lr = 0.02
momentum = 0.9
[autobuild]
images = 20
seeds = 2
recalibrate = true
calibration_images = 33
max_macs = 0.7
changes_per_round = 1
"#;

fn experiment(sets: &[&str]) -> Experiment {
    let sets: Vec<Override> = sets.iter().map(|set| Override::set(set)).collect();
    Experiment::parse("tiny.toml", TINY, &sets).unwrap_or_else(|e| panic!("{e}"))
}

/// An image folder of four classes, 20 training and 10 test images each: a bright quarter in noise.
fn data() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let root = tempfile::tempdir().unwrap();
        for (split, count) in [("train", 20), ("test", 10)] {
            for class in 0..4u32 {
                let folder = root.path().join("squares").join(split).join(format!("class{class}"));
                fs::create_dir_all(&folder).unwrap();
                for number in 0..count {
                    let (epoch, index) = (u32::from(split == "test"), u64::from(class) * 1000 + number);
                    let mut random = Stream::new(StreamKey { seed: 9, purpose: Purpose::Test, epoch, index });
                    let image = image::RgbImage::from_fn(8, 8, |x, y| {
                        let bright = u32::from(x / 4 + 2 * (y / 4) == class) * 60;
                        image::Rgb([0; 3].map(|_: u8| (bright + random.below(180)) as u8))
                    });
                    image.save(folder.join(format!("{number}.png"))).unwrap();
                }
            }
        }
        root
    });
    FOLDER.path()
}

fn search(experiment: &Experiment, path: &Path, run: Option<&Path>, stop: &StopFlag) -> qzoo::Result<Search> {
    let options = SearchOptions {
        data_root: data().into(),
        run: run.map(Path::to_path_buf),
        stop: stop.clone(),
        ..SearchOptions::default()
    };
    Search::open(experiment, IMAGES, path, options)
}

fn whole(experiment: &Experiment, path: &Path, run: Option<&Path>) -> SearchResult {
    search(experiment, path, run, &StopFlag::default()).unwrap().run(&mut Silent).unwrap().unwrap()
}

/// Counts what is done, and stops after so many steps of any kind.
#[derive(Default)]
struct Stopper {
    left: usize,
    stop: StopFlag,
    /// Training steps of the whole search.
    steps: usize,
    /// Accuracies of the whole search.
    measured: Vec<String>,
}

impl Stopper {
    fn step(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.stop.stop();
        }
    }
}

impl Observer for Stopper {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Step(_) = event {
            self.steps += 1;
            self.step();
        }
    }
}

impl Watch for Stopper {
    fn search(&mut self, event: &SearchEvent<'_>) {
        if let SearchEvent::Measured { layer, draw, done, total, .. } = event {
            self.measured.push(format!("{layer:?} {draw} {done}/{total}"));
            self.step();
        }
    }
}

/// The files of a search that must not depend on interruptions: results, tables, experiments, and the weights of every network.
fn files(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap().path();
            let name = entry.file_name().unwrap().to_str().unwrap();
            let short = entry.strip_prefix(path).unwrap().to_path_buf();
            if name == "run" {
                let result = RunReader::open(&entry).unwrap().result().unwrap().unwrap();
                found.insert(short, result.weights_sha256);
            } else if entry.is_dir() {
                folders.push(entry);
            } else if name != "lock" {
                found.insert(short, fs::read_to_string(&entry).unwrap());
            }
        }
    }
    found
}

/// The search that nothing disturbed.
fn calm() -> &'static (tempfile::TempDir, SearchResult) {
    static CALM: LazyLock<(tempfile::TempDir, SearchResult)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let result = whole(&experiment(&[]), folder.path(), None);
        (folder, result)
    });
    &CALM
}

#[test]
fn a_search_meets_its_budget_and_its_answer_is_an_experiment() {
    let (folder, result) = calm();
    let full = result.rounds[0].size;
    assert_eq!((result.ended, result.met, result.answer + 1), (Ended::BudgetMet, true, result.rounds.len()));
    assert_eq!(result.metric, "validation_top1", "held-out images judge where there are such");
    let answer = &result.rounds[result.answer];
    assert!(answer.size.macs <= (0.7 * full.macs as f64) as u64 && answer.size.parameters < full.parameters);
    for round in &result.rounds[..result.answer] {
        let table = round.importance.as_ref().unwrap();
        assert_eq!((table.split.as_str(), table.images, table.recalibrated), ("validation", 20, true));
        assert!(table.layers.iter().all(|layer| layer.drops.len() == 2 && layer.importance > 0.0));
        assert!(round.number == 0 || round.changes.len() == 1);
        // The removed layer is the first by importance of those that may go: not the only one of its group.
        let next = &result.rounds[round.number + 1].changes[0];
        let alone = |name: &str| match round.number {
            0 => name == "features.0",
            _ => false,
        };
        let best = table.layers.iter().filter(|layer| !alone(&layer.share.name));
        let best = best.max_by(|a, b| a.importance.total_cmp(&b.importance)).unwrap();
        assert!(round.number > 0 || next.to_string() == format!("{} removed", best.share.name), "{next}");
    }
    let reduced = Experiment::load(folder.path().join("reduced.toml"), &[]).unwrap();
    assert_eq!((reduced.autobuild, reduced.model.width), (None, 1.0));
    let run = RunReader::open(&folder.path().join(format!("round-{}/run", result.answer))).unwrap();
    let trained = Experiment::parse("config.resolved.toml", run.experiment().unwrap(), &[]).unwrap();
    assert_eq!(trained.model, reduced.model, "and is what was trained");
    assert_eq!(run.result().unwrap().unwrap().best_top1, Some(answer.test_top1));
}

#[test]
fn an_interruption_after_any_step_changes_nothing_and_repeats_nothing() {
    let (expected, result) = calm();
    let mut undisturbed = Stopper { left: usize::MAX, ..Stopper::default() };
    let other = tempfile::tempdir().unwrap();
    let found = search(&experiment(&[]), other.path(), None, &undisturbed.stop).unwrap().run(&mut undisturbed);
    assert_eq!(&found.unwrap().unwrap(), result);
    for every in [1, 3, 7] {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Stopper::default();
        let mut processes = 0;
        let found = loop {
            processes += 1;
            assert!(processes < 300, "the search does not get on");
            (watch.left, watch.stop) = (every, StopFlag::default());
            let stop = watch.stop.clone();
            if let Some(found) = search(&experiment(&[]), folder.path(), None, &stop).unwrap().run(&mut watch).unwrap()
            {
                break found;
            }
        };
        let steps = undisturbed.steps + undisturbed.measured.len();
        assert!(processes >= steps / every, "it ended after {processes} processes");
        assert_eq!((&found, files(folder.path())), (result, files(expected.path())), "stopped after every {every}");
        assert_eq!((watch.steps, &watch.measured), (undisturbed.steps, &undisturbed.measured));
    }
    // A finished search is only read again.
    let mut again = Stopper { left: usize::MAX, ..Stopper::default() };
    let stop = again.stop.clone();
    let found = search(&experiment(&[]), expected.path(), None, &stop).unwrap().run(&mut again).unwrap().unwrap();
    assert_eq!((&found, again.steps, again.measured.len()), (result, 0, 0));
}

#[test]
fn what_a_killed_process_left_is_no_obstacle() {
    let (expected, result) = calm();
    let folder = tempfile::tempdir().unwrap();
    // Killed before the run wrote its experiment, and before the search wrote its own.
    fs::create_dir_all(folder.path().join("round-0/run")).unwrap();
    fs::write(folder.path().join("round-0/run/lock"), "1\n").unwrap();
    fs::write(folder.path().join("lock"), "1\n").unwrap();
    let refused = search(&experiment(&[]), folder.path(), None, &StopFlag::default()).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "a folder without a search is left alone: {refused}");
    for name in ["search.toml", "search.json"] {
        fs::copy(expected.path().join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("round-0/.measurements.json.1-0.partial"), "{").unwrap();
    assert_eq!(&whole(&experiment(&[]), folder.path(), None), result);
    assert_eq!(files(folder.path()), files(expected.path()));
}

#[test]
fn a_trained_run_can_be_the_beginning() {
    let (calm, result) = calm();
    let folder = tempfile::tempdir().unwrap();
    let run = calm.path().join("round-0/run");
    assert_eq!(&whole(&experiment(&[]), folder.path(), Some(&run)), result);
    assert!(!folder.path().join("round-0/run").exists(), "nothing was trained again");
    let open = |sets: &[&str], path: &Path, run: Option<&Path>| {
        search(&experiment(sets), path, run, &StopFlag::default()).err().map(|error| error.to_string())
    };
    // The same folder does not take another search.
    for (sets, run) in [(vec!["autobuild.seeds=3"], Some(run.as_path())), (vec![], None)] {
        let error = open(&sets, folder.path(), run).unwrap();
        assert!(error.contains("--out"), "{error}");
    }
    let other = tempfile::tempdir().unwrap();
    for (set, word) in [("model.branch_norm=false", "network"), ("data.validation=0", "held-out")] {
        let error = open(&[set], other.path(), Some(&run)).unwrap();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0, "a refusal leaves nothing behind");
}

#[test]
fn the_accuracy_limit_ends_a_search_without_other_limits() {
    let sets = |drop: &str| {
        let autobuild = format!("autobuild={{ seeds = 1, max_drop = {drop}, masking = \"unstructured\" }}");
        experiment(&["data.validation=0", "data.train_limit=16", &autobuild])
    };
    let folder = tempfile::tempdir().unwrap();
    // Nothing is too much to lose, so all that can go goes, one layer a round.
    let all = whole(&sets("100"), &folder.path().join("all"), None);
    assert_eq!((all.ended, all.met, all.answer, all.rounds.len()), (Ended::NothingLeft, true, 2, 3));
    assert_eq!((all.rounds[2].layers.as_str(), all.metric.as_str()), ("6 pool 6 pool 8 pool", "test_top1"));
    // By a limit that the first smaller network breaks, or that none does.
    let strict = whole(&sets("0"), &folder.path().join("strict"), None);
    let lost: Vec<f64> = strict.rounds.iter().map(|round| strict.points_lost(round)).collect();
    let first_broken = lost.iter().position(|lost| *lost > 1e-9);
    assert_eq!(strict.ended == Ended::AccuracyLimit, first_broken.is_some(), "{lost:?}");
    assert_eq!(strict.answer, first_broken.map_or(strict.rounds.len() - 1, |round| round - 1), "{lost:?}");
    assert_eq!(folder.path().join("strict/reduced.toml").exists(), strict.answer > 0);
}

#[test]
fn residual_networks_lose_blocks() {
    let model = "model={ name = \"resnet14\", width = 0.25 }";
    let autobuild = "autobuild={ seeds = 1, max_parameters = 0.5 }";
    let folder = tempfile::tempdir().unwrap();
    let result = whole(&experiment(&[model, autobuild, "data.train_limit=16"]), folder.path(), None);
    assert_eq!((result.ended, result.rounds.len()), (Ended::BudgetMet, 2), "all at once without changes_per_round");
    let reduced = Experiment::load(folder.path().join("reduced.toml"), &[]).unwrap();
    let blocks = reduced.model.blocks.unwrap();
    assert_eq!(blocks.iter().sum::<usize>() + result.rounds[1].changes.len(), 6);
    assert_eq!(reduced.model.width, 0.25);
}
