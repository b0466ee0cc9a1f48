//! What a person sees of a run: a bar on a terminal, a line every so often elsewhere. All of it goes to stderr.

use crate::format::{bytes, count, loss, percent, seconds};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qzoo::train::{Event, Observer, Started, StepEvent};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Draws the progress of a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    interval: Duration,
    last_line: Instant,
}

impl Progress {
    /// `interval` is the time between two lines where stderr is no terminal.
    pub(crate) fn new(quiet: bool, interval: Duration) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            // The template is fixed and known to be right; a bar without it would only be plainer.
            if let Ok(style) = ProgressStyle::with_template("{prefix:>14} {bar:24} {pos}/{len} {msg}") {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar
        });
        Progress { bar, quiet, interval, last_line: Instant::now() }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a line beside the bar, unless it is to be quiet.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| anstream::eprintln!("{text}")),
            None if self.quiet => {}
            None => anstream::eprintln!("{text}"),
        }
    }

    /// Shows how far a part of the work has come: on the bar, or as a line every so often.
    pub(crate) fn part(&mut self, name: &str, done: u64, total: u64, about: &str) {
        self.draw(name, done, total, about);
        if self.bar.is_none() && self.last_line.elapsed() >= self.interval {
            self.last_line = Instant::now();
            self.say(&format!("{name} {done}/{total}  {about}"));
        }
    }

    fn draw(&self, name: &str, done: u64, total: u64, about: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(name.to_string());
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(about.to_string());
        }
    }

    fn started(&mut self, s: &Started<'_>) {
        let resumed = s.resumed.as_ref().map_or_else(String::new, |p| format!(", going on after step {}", p.step));
        self.say(&format!(
            "{}: {} parameters; {} training and {} test images; {} epochs of {} steps{resumed}",
            s.model,
            count(s.parameters as u64),
            count(s.train_images as u64),
            count(s.test_images as u64),
            s.epochs,
            s.steps_per_epoch
        ));
        self.say(&format!("run folder: {}", s.run.display()));
    }

    fn step(&mut self, s: &StepEvent) {
        let state = format!(
            "loss {:.4}  accuracy {}  lr {:.4}  {} images/s",
            s.loss,
            percent(s.top1),
            s.lr,
            count(s.images_per_s.round() as u64)
        );
        let left = seconds(s.eta_seconds);
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("epoch {}/{}", s.epoch, s.epochs));
            bar.set_length(s.steps_per_epoch);
            bar.set_position(s.step_in_epoch);
            bar.set_message(format!("{state}  {left} left"));
        } else if self.last_line.elapsed() >= self.interval {
            self.last_line = Instant::now();
            self.say(&format!(
                "epoch {}/{}  step {}/{}  {state}  {left} left",
                s.epoch, s.epochs, s.step_in_epoch, s.steps_per_epoch
            ));
        }
    }
}

impl Observer for Progress {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started(started) => self.started(started),
            Event::Step(step) => self.step(step),
            Event::Evaluating { split, done, total } => self.draw(split, *done, *total, ""),
            Event::Epoch { line, best } => {
                let e = &line.record;
                let sparsity = e.sparsity.map(|share| format!("  zeros {}", percent(share))).unwrap_or_default();
                self.last_line = Instant::now();
                self.say(&format!(
                    "epoch {:>3}  training loss {}  accuracy {}  test loss {}  accuracy {}{sparsity}{}",
                    e.epoch,
                    loss(e.train_loss),
                    percent(e.train_top1),
                    loss(e.test_loss),
                    percent(e.test_top1),
                    if *best { "  best so far" } else { "" }
                ));
            }
            Event::Note(text) => self.say(text),
            Event::Warning(text) => match &self.bar {
                Some(bar) => bar.suspend(|| anstream::eprintln!("warning: {text}")),
                None => anstream::eprintln!("warning: {text}"),
            },
            Event::Finished(result) => {
                self.clear();
                let speed = match result.images_per_s {
                    // Nothing was left to train.
                    0.0 => String::new(),
                    speed => format!("{} images/s, ", count(speed.round() as u64)),
                };
                let (time, peak) = (seconds(result.seconds), bytes(result.peak_bytes));
                self.say(&format!("{} epochs in {time}, {speed}peak tensor memory {peak}", result.epochs));
            }
            _ => {}
        }
    }
}
