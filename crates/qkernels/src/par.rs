//! Threads: the only user of rayon.
//!
//! Work is cut into pieces whose number depends on the problem alone, never on the number of threads, and partial results are combined in
//! the order of the pieces. So every result is the same to the bit for any number of threads.

use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread that has run out of work stays awake for more. Waking one takes tens of microseconds, which is longer than many kernels run and than what lies between them.
const LINGER: Duration = Duration::from_micros(200);

thread_local! {
    /// Whether kernels keep to this thread.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Threads that kernels use.
pub fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Runs `work` with kernels that use this thread alone.
fn alone<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    work()
}

/// Sees to it that the other threads of this pool look for work until there was none for [`LINGER`]: each is given a task that does nothing else, and lets other programs run meanwhile.
fn stay_awake() {
    static AWAKE: AtomicUsize = AtomicUsize::new(0);
    struct Awake;
    impl Drop for Awake {
        fn drop(&mut self) {
            AWAKE.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let Some(here) = rayon::current_thread_index() else { return };
    let is_enough = |awake: usize| awake + 1 >= rayon::current_num_threads();
    if is_enough(AWAKE.load(Ordering::Relaxed)) {
        return;
    }
    let awake = Awake;
    if is_enough(AWAKE.fetch_add(1, Ordering::Relaxed)) {
        return;
    }
    rayon::spawn(move || {
        let _awake = awake;
        // The thread that called has work of its own.
        let is_other = rayon::current_thread_index() != Some(here);
        let mut last = Instant::now();
        while is_other && last.elapsed() < LINGER {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => last = Instant::now(),
                _ => std::thread::yield_now(),
            }
        }
    });
}

/// Sets the number of threads for the whole process; 0 means one for each core that the process may use. It can be set once, before the first kernel runs.
///
/// # Errors
/// The thread pool runs already, or the operating system refuses a thread.
pub fn set_threads(threads: usize) -> Result<(), qtensor::Error> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| qtensor::Error::argument("set_threads", error.to_string()))
}

/// Runs `work` with a pool of its own of that many threads, which all kernels inside use: for tests and comparisons.
///
/// # Errors
/// The operating system refuses a thread.
pub fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R, qtensor::Error> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| qtensor::Error::argument("with_threads", error.to_string()))?;
    Ok(pool.install(work))
}

/// Runs `work` on a thread of the pool. Work that calls one kernel after the other should run so as a whole: kernels then share their pieces with the other
/// threads directly, without a message from an outside thread, which sleeps until the answer, for each of them.
pub fn install<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if threads() == 1 { work() } else { rayon::scope(|_| work()) }
}

/// Runs both, each on a thread of its own at first: for work that shares little of what it reads and writes. Threads that are done take over pieces of the other.
pub fn join<A: Send, B: Send>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B + Send) -> (A, B) {
    if threads() == 1 {
        return (first(), second());
    }
    stay_awake();
    rayon::join(first, second)
}

/// Runs `work(i)` for every `i` below `count`, on all threads. Each piece should take at least some microseconds.
pub fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    if count <= 1 || threads() == 1 {
        (0..count).for_each(work);
    } else {
        stay_awake();
        (0..count).into_par_iter().with_max_len(1).for_each(&work);
    }
}

/// Runs `work(i)` for every `i` below `count` and returns the results in that order.
pub fn map<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    if count <= 1 || threads() == 1 {
        (0..count).map(work).collect()
    } else {
        stay_awake();
        (0..count).into_par_iter().with_max_len(1).map(&work).collect()
    }
}

/// Runs `work(i)` for every `i` below `count`, `piece` of them at a time, and returns the results in that order: for short work.
pub fn collect<R: Send>(count: usize, piece: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    if count <= piece || threads() == 1 {
        (0..count).map(work).collect()
    } else {
        stay_awake();
        (0..count).into_par_iter().with_min_len(piece).map(&work).collect()
    }
}

/// As [`map`], for work that calls many kernels one after the other on values that a core's cache holds: each `work(i)` keeps to one thread where there are
/// enough of them for all, else they run in turn, each on all threads.
pub fn map_whole<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    if count < threads() { (0..count).map(work).collect() } else { map(count, |i| alone(|| work(i))) }
}

/// As [`map_whole`], with an item for each piece of work to write to.
pub fn map_whole_items<T: Send, R: Send>(items: &mut [T], work: impl Fn(&mut T) -> R + Sync) -> Vec<R> {
    if items.len() < threads() {
        items.iter_mut().map(work).collect()
    } else {
        map_chunks(items, 1, |_, item| alone(|| work(&mut item[0])))
    }
}

/// Cuts `0..length` into pieces of `piece` (the last may be shorter) and runs `work` on each.
pub fn for_each_range(length: usize, piece: usize, work: impl Fn(Range<usize>) + Sync) {
    let piece = piece.max(1);
    for_each(length.div_ceil(piece), |i| work(i * piece..((i + 1) * piece).min(length)));
}

/// Cuts a slice into pieces of `piece` items (the last may be shorter) and runs `work(index of the piece, items)` on each.
pub fn for_each_chunk<T: Send>(items: &mut [T], piece: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let piece = piece.max(1);
    if items.len() <= piece || threads() == 1 {
        items.chunks_mut(piece).enumerate().for_each(|(i, part)| work(i, part));
    } else {
        stay_awake();
        items.par_chunks_mut(piece).enumerate().with_max_len(1).for_each(|(i, part)| work(i, part));
    }
}

/// Cuts a slice into pieces of `piece` items (the last may be shorter), runs `work(index of the piece, items)` on each, and returns the results in that order.
pub fn map_chunks<T: Send, R: Send>(
    items: &mut [T],
    piece: usize,
    work: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let piece = piece.max(1);
    if items.len() <= piece || threads() == 1 {
        items.chunks_mut(piece).enumerate().map(|(i, part)| work(i, part)).collect()
    } else {
        stay_awake();
        items.par_chunks_mut(piece).enumerate().with_max_len(1).map(|(i, part)| work(i, part)).collect()
    }
}

/// A pointer that threads may share to write to disjoint places of one buffer.
#[derive(Clone, Copy)]
pub struct SharedOut<T>(*mut T);

// SAFETY: a `SharedOut` only carries the address; every write goes through an unsafe block that promises disjoint places.
unsafe impl<T: Send> Send for SharedOut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedOut<T> {}

impl<T> SharedOut<T> {
    /// The start of `buffer`, which must outlive all uses.
    pub fn new(buffer: &mut [T]) -> Self {
        SharedOut(buffer.as_mut_ptr())
    }

    /// The address of item `index`.
    ///
    /// # Safety
    /// `index` must lie inside (or one past) the buffer, the buffer must still live, and no two threads may use one place at the same time.
    #[inline(always)]
    pub unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}
