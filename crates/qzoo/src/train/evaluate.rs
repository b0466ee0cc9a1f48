use super::network::Network;
use super::recorder::Recorder;
use super::trainer::Trainer;
use super::{Event, feed::EvaluationFeed};
use crate::Result;
use crate::metrics::Metrics;
use qtensor::Tensor;

/// One batch of an evaluation with what the network made of it.
pub(super) struct Judged<'a> {
    /// `[N, classes]`.
    pub logits: &'a Tensor,
    /// `[N]`, i64.
    pub labels: &'a Tensor,
    /// Position of the first image in the split.
    pub start: u64,
}

/// Runs the network over a split in its own order. `each` sees every batch with the batches done and in all; false stops.
/// Returns `None` where it was stopped.
pub(super) fn evaluate(
    network: &Network,
    feed: &EvaluationFeed,
    mut each: impl FnMut(&Judged<'_>, u64, u64) -> Result<bool>,
) -> Result<Option<Metrics>> {
    let mut metrics = Metrics::new(feed.info().classes.len());
    let total = feed.batches();
    let mut start = 0;
    let network = network.folded()?;
    for (done, batch) in feed.pass()?.enumerate() {
        let batch = batch?;
        let logits = network.infer(&batch.images)?;
        let (loss, _) = qkernels::softmax::softmax_cross_entropy(&logits, &batch.labels, 0.0)?;
        metrics.add(&logits, &batch.labels, loss.item()?)?;
        let judged = Judged { logits: &logits, labels: &batch.labels, start };
        if !each(&judged, done as u64 + 1, total)? {
            return Ok(None);
        }
        start += batch.labels.numel() as u64;
    }
    Ok(Some(metrics))
}

impl Trainer {
    /// Evaluates the current weights (the averaged ones where there are such), or `None` where the run must stop.
    pub(super) fn evaluate_split(&mut self, split: &str, recorder: &mut Recorder<'_>) -> Result<Option<Metrics>> {
        let network = self.evaluated_network();
        let feed = match (split, &self.feed.validation) {
            ("validation", Some(validation)) => validation,
            _ => &self.feed.test,
        };
        let metrics = evaluate(&network, feed, |_, done, total| {
            recorder.tell(&Event::Evaluating { split, done, total });
            Ok(done == total || self.must_stop(recorder).is_none())
        })?;
        if let Some(metrics) = metrics.as_ref().filter(|metrics| metrics.overflowed() > 0) {
            let (overflowed, count) = (metrics.overflowed(), metrics.count());
            recorder.warn(&format!(
                "the logits of {overflowed} of {count} {split} images are not finite: they count as wrong, and the loss is the mean over the others"
            ))?;
        }
        Ok(metrics)
    }
}
