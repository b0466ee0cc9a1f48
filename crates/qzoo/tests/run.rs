//! The folder of a run: never overwritten, never written by two, readable after any death.

use qzoo::checkpoint::EpochRecord;
use qzoo::run::tensorboard::{Event, EventFile, read_records, write_record};
use qzoo::run::{
    Environment, EpochLine, EvaluationReport, LogFile, MetricsFile, Record, RunError, RunFolder, RunReader, StepLine,
    latest, read_metrics,
};
use std::fs;
use std::path::Path;

fn step(step: u64) -> Record {
    Record::Step(StepLine {
        epoch: 1,
        step,
        loss: 0.1 + 0.2,
        top1: 1.0 / 3.0,
        step_loss: 2.5,
        lr: 0.1,
        grad_norm: 1.5,
        images_per_s: 1000.0,
        seconds: 3.25,
        time: 1.7e9,
    })
}

fn epoch(epoch: u64) -> Record {
    let record =
        EpochRecord { epoch, step: 10 * epoch, train_loss: 0.7, test_top1: 2.0 / 3.0, ..EpochRecord::default() };
    Record::Epoch(EpochLine { record, images_per_s: 900.0, seconds: 5.0, time: 1.7e9 })
}

fn started(path: &Path) -> RunFolder {
    let run = RunFolder::create_at(path).unwrap();
    run.write("config.resolved.toml", "name = \"x\"\n").unwrap();
    run
}

#[test]
fn folders_are_numbered_and_never_taken_twice() {
    let root = tempfile::tempdir().unwrap();
    let runs = root.path().join("runs");
    assert_eq!(latest(&runs, None).unwrap(), None);
    let first = RunFolder::create(&runs, "mnist").unwrap();
    let second = RunFolder::create(&runs, "mnist").unwrap();
    let other = RunFolder::create(&runs, "mnist-mlp").unwrap();
    assert!(first.path().ends_with("mnist-1") && second.path().ends_with("mnist-2"));
    assert!(other.path().ends_with("mnist-mlp-1"));
    fs::create_dir(runs.join("mnist-41")).unwrap();
    assert!(RunFolder::create(&runs, "mnist").unwrap().path().ends_with("mnist-42"));
    for name in ["", "..", "a/b", "/abs", ".hidden", "nul\0"] {
        assert!(matches!(RunFolder::create(&runs, name), Err(RunError::NotARun { .. })), "{name:?}");
    }
}

#[test]
fn many_threads_get_many_folders() {
    let root = tempfile::tempdir().unwrap();
    let make = || RunFolder::create(root.path(), "same").unwrap();
    let runs: Vec<RunFolder> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut paths: Vec<_> = runs.iter().map(|r| r.path().to_path_buf()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 8);
}

#[test]
fn nothing_is_overwritten_and_two_writers_are_kept_apart() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("deep").join("run");
    let run = started(&path);
    assert!(matches!(RunFolder::create_at(&path), Err(RunError::Exists { .. })));
    let error = RunFolder::open(&path).unwrap_err();
    assert!(matches!(&error, RunError::Locked { holder, .. } if *holder == std::process::id().to_string()), "{error}");
    drop(run);
    fs::write(path.join(".env.json.9-9.partial"), "half").unwrap();
    let again = RunFolder::open(&path).unwrap();
    assert!(!path.join(".env.json.9-9.partial").exists(), "half-written files are removed");
    drop(again);
    assert!(matches!(RunFolder::open(root.path()), Err(RunError::NotARun { .. })));
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(RunFolder::create_at(&file).is_err());
}

#[test]
fn the_latest_run_is_the_one_written_to_last() {
    let root = tempfile::tempdir().unwrap();
    let old = started(&root.path().join("a-1"));
    let new = started(&root.path().join("a-b-1"));
    fs::create_dir(root.path().join("a-2")).unwrap();
    let at = |run: &RunFolder, seconds| {
        let file = fs::File::create(run.path().join("metrics.jsonl")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    };
    at(&old, 1000);
    at(&new, 2000);
    assert_eq!(latest(root.path(), None).unwrap().as_deref(), Some(new.path()));
    assert_eq!(latest(root.path(), Some("a")).unwrap().as_deref(), Some(old.path()));
    assert_eq!(latest(root.path(), Some("c")).unwrap(), None);
}

#[test]
fn metrics_round_trip_and_a_resume_cuts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut file = MetricsFile::open(&path, 0).unwrap();
    for record in [step(5), step(10), epoch(1), step(15)] {
        file.append(&record).unwrap();
    }
    assert_eq!(file.lines(), 4);
    let metrics = read_metrics(&path).unwrap();
    assert_eq!(metrics.steps.iter().map(|s| s.step).collect::<Vec<_>>(), [5, 10, 15]);
    assert_eq!(Record::Epoch(metrics.epochs[0].clone()), epoch(1));
    assert_eq!(metrics.steps[0].loss.to_bits(), (0.1f64 + 0.2).to_bits());

    let whole = fs::read_to_string(&path).unwrap();
    let three: usize = whole.split_inclusive('\n').take(3).map(str::len).sum();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let read = read_metrics(&path).unwrap();
        let lines = whole[..length].matches('\n').count();
        // The last line may be whole but for its line break.
        assert!((lines..=lines + 1).contains(&(read.steps.len() + read.epochs.len())));
        let resumed = MetricsFile::open(&path, 3).unwrap();
        assert_eq!(resumed.lines(), lines.min(3) as u64);
        assert!(whole.starts_with(&fs::read_to_string(&path).unwrap()));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), whole[..three]);
    let mut resumed = MetricsFile::open(&path, 3).unwrap();
    resumed.append(&step(15)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), whole);
}

#[test]
fn a_damaged_line_is_reported_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut file = MetricsFile::open(&path, 0).unwrap();
    file.append(&step(5)).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{good}{{\"kind\":\"step\"}}\n{good}")).unwrap();
    match read_metrics(&path).unwrap_err() {
        RunError::Damaged { offset, message, .. } => {
            assert_eq!(offset, good.len() as u64);
            assert!(message.contains("line 2"), "{message}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_reader_sees_what_was_written_while_the_run_is_locked() {
    let root = tempfile::tempdir().unwrap();
    let run = started(&root.path().join("r"));
    let reader = RunReader::open(run.path()).unwrap();
    assert_eq!(reader.evaluation().unwrap(), None);
    assert!(reader.metrics().unwrap().epochs.is_empty());
    let report = EvaluationReport { top1: 0.1 + 0.2, confusion: vec![vec![1, 2], vec![3, 4]], ..Default::default() };
    run.write_json("evaluation.json", &report).unwrap();
    let environment = Environment { threads: 2, ..Environment::default() };
    run.write_json("env.json", &environment).unwrap();
    MetricsFile::open(&run.path().join("metrics.jsonl"), 0).unwrap().append(&epoch(1)).unwrap();
    assert_eq!(reader.evaluation().unwrap(), Some(report));
    assert_eq!(reader.environment().unwrap(), Some(environment));
    assert_eq!(reader.metrics().unwrap().epochs.len(), 1);
    assert_eq!(reader.experiment().unwrap(), "name = \"x\"\n");
    fs::write(run.path().join("profile.json"), "{\n  \"batch\": }").unwrap();
    let error = reader.profile().unwrap_err();
    assert!(matches!(error, RunError::Damaged { offset: 13, .. }), "{error}");
}

#[test]
fn log_entries_have_times_and_stay_one_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.txt");
    LogFile::open(&path).unwrap().line("first\nwith a second line\n").unwrap();
    LogFile::open(&path).unwrap().line("next").unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], "    with a second line");
    assert!(lines[0].ends_with("Z first") && lines[2].ends_with("Z next"));
}

#[test]
fn event_files_hold_whole_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = [EventFile::create(folder.path(), 0).unwrap(), EventFile::create(folder.path(), 7).unwrap()];
    files[0].scalars(1, &[("train/loss", 0.5), ("train/lr", 0.1)]).unwrap();
    files.iter_mut().for_each(|file| file.flush().unwrap());
    let mut counts = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let (records, error) = read_records(&bytes);
        assert_eq!(error, None);
        assert!(records[0].ends_with(b"brain.Event:2"));
        counts.push(records.len());
        for length in 0..bytes.len() {
            let (cut, error) = read_records(&bytes[..length]);
            assert!(cut.len() <= records.len());
            assert!(error.is_some() || cut.iter().map(|r| r.len() + 16).sum::<usize>() == length);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_records(&flipped).1.is_some(), "bit {bit}");
        }
    }
    counts.sort_unstable();
    assert_eq!(counts, [2, 3]);
}

/// What TensorBoard's own writer makes of the same events.
#[test]
fn records_are_those_of_tensorboard() {
    let time = 1_700_000_000.25;
    let hex = |event: Event| {
        let mut bytes = Vec::new();
        write_record(&mut bytes, event.bytes()).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(
        hex(Event::version(time)),
        "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"
    );
    assert_eq!(
        hex(Event::session_start(time, 300)),
        "100000000000000095fbfe180900001040fc54d94110ac023a0208016b3b88f1"
    );
    assert_eq!(
        hex(Event::scalars(time, 300, &[("train/loss", 0.5), ("lr", 0.1)])),
        "2c00000000000000f4aecc450900001040fc54d94110ac022a1e0a110a0a747261696e2f6c6f7373150000003f0a090a026c7215cdcccc3d\
         0d668dce"
    );
}

#[test]
fn records_are_bounded_by_the_file() {
    let mut bytes = Vec::new();
    write_record(&mut bytes, Event::scalars(0.0, 1, &[("a", 1.0)]).bytes()).unwrap();
    bytes.extend([0xff; 12]);
    let (records, error) = read_records(&bytes);
    assert_eq!((records.len(), error.unwrap().offset), (1, bytes.len() - 12));
}
