//! Timing as PyTorch's figures are taken: at least half a second of warm-up, then the median of the repetitions.

use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(500);

/// The median time of one call in seconds.
pub(super) fn median<E>(repeat: u32, mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    loop {
        work()?;
        if start.elapsed() >= WARM_UP {
            break;
        }
    }
    let mut times = Vec::with_capacity(repeat as usize);
    for _ in 0..repeat {
        let begin = Instant::now();
        work()?;
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    Ok(if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 })
}
