//! A run that is killed again and again ends with the same bits as one that was left alone.
//!
//! `QUARTZ_KILLS` sets how many kills there are (10 by default, so that the test is quick).

mod common;

use common::{digest, finish, json, quartz, tiny};
use qtensor::random::{Purpose, Stream, StreamKey};
use std::time::{Duration, Instant};

#[test]
fn killed_runs_end_with_the_same_bits() {
    let kills: u32 = std::env::var("QUARTZ_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let folder = tempfile::tempdir().unwrap();
    let experiment = tiny(folder.path());
    let begin = Instant::now();
    let calm = folder.path().join("calm");
    let output = finish(quartz().args(["train", "--quiet", "--json", "--out"]).arg(&calm).arg(&experiment), 0);
    let whole = begin.elapsed().as_millis() as u32;
    let expected = digest(&calm);
    assert_eq!(json(&output)["epochs"], 3);

    let mut random = Stream::new(StreamKey { seed: 5, purpose: Purpose::Test, epoch: 0, index: 0 });
    let (mut done, mut number) = (0, 0);
    while done < kills {
        let run = folder.path().join(format!("killed-{number}"));
        number += 1;
        loop {
            let mut command = quartz();
            command.args(["train", "--quiet"]);
            // Before the first checkpoint is there, a killed run has nothing to go on from, and the same command starts it anew.
            if run.join("checkpoints").is_dir() {
                command.arg("--resume").arg(&run);
            } else {
                let _ = std::fs::remove_dir_all(&run);
                command.arg("--out").arg(&run).arg(&experiment);
            }
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(u64::from(random.below(whole + whole / 4))));
            if done >= kills || child.try_wait().unwrap().is_some() {
                let status = child.wait().unwrap();
                assert!(status.success(), "{command:?}: {status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            done += 1;
        }
        assert_eq!(digest(&run), expected, "run {number} after {done} kills");
        std::fs::remove_dir_all(&run).unwrap();
    }
}
