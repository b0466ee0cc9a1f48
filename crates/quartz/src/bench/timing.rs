//! Timing as PyTorch's figures are taken: at least half a second of warm-up, then the median of the repetitions. Short work is repeated until a fifth of a second has passed: threads that
//! are held up for a moment would decide the median of a few short calls.

use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(500);
const LEAST: Duration = Duration::from_millis(200);

/// The median time of one call in seconds.
pub(super) fn median<E>(repeat: u32, mut work: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let timed = || {
        let begin = Instant::now();
        work()?;
        Ok([begin.elapsed().as_secs_f64()])
    };
    medians(repeat, timed).map(|[seconds]| seconds)
}

/// The median of each of the times that a call measures of its parts, in seconds.
pub(super) fn medians<const N: usize, E>(
    repeat: u32,
    mut work: impl FnMut() -> Result<[f64; N], E>,
) -> Result<[f64; N], E> {
    let start = Instant::now();
    loop {
        work()?;
        if start.elapsed() >= WARM_UP {
            break;
        }
    }
    let start = Instant::now();
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for round in 0.. {
        if round >= repeat && start.elapsed() >= LEAST {
            break;
        }
        times.iter_mut().zip(work()?).for_each(|(times, time)| times.push(time));
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 }
    }))
}
