use std::time::{Duration, Instant};

/// The speed of training in this process, without evaluation and saving.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    images: u64,
    steps: u64,
    time: Duration,
}

impl Pace {
    /// A step of so many images that began at `since` is done.
    pub(super) fn add(&mut self, images: u64, since: Instant) {
        self.images += images;
        self.steps += 1;
        self.time += since.elapsed();
    }

    /// Images a second; 0 before the first step.
    pub(super) fn images_per_s(&self) -> f64 {
        per(self.images as f64, self.time.as_secs_f64())
    }

    /// Seconds a step; 0 before the first.
    pub(super) fn seconds_per_step(&self) -> f64 {
        per(self.time.as_secs_f64(), self.steps as f64)
    }
}

fn per(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
