//! The same bits for any number of threads and any number of loader workers.

mod common;

use common::{digest, finish, quartz, tiny};

#[test]
fn threads_and_workers_do_not_change_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = tiny(folder.path());
    let train = |threads: usize, workers: usize| {
        let run = folder.path().join(format!("run-{threads}-{workers}"));
        let (threads, workers) = (threads.to_string(), format!("data.workers={workers}"));
        let arguments = ["train", "--quiet", "--epochs", "1", "--threads", &threads, "--set", &workers, "--out"];
        finish(quartz().args(arguments).arg(&run).arg(&experiment), 0);
        digest(&run)
    };
    let expected = train(1, 1);
    for (threads, workers) in [(2, 1), (3, 2), (4, 3)] {
        assert_eq!(train(threads, workers), expected, "{threads} threads, {workers} workers");
    }
}
