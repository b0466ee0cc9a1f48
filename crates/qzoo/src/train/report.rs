use super::evaluate::{Judged, evaluate};
use super::recorder::Recorder;
use super::trainer::Trainer;
use super::{End, Event};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::metrics::Metrics;
use crate::run::{ClassResult, EvaluationReport, Sample};
use qtensor::Tensor;
use std::cmp::Ordering;

/// Wrong and right predictions that a report shows, at most so many of each.
const SAMPLES: usize = 16;

impl Trainer {
    /// Evaluates the best weights in full and measures a step, for the report.
    pub(super) fn report(&mut self, recorder: &mut Recorder<'_>) -> Result<End> {
        self.write_profile()?;
        self.write_memory()?;
        if let Some(pruner) = &self.pruner {
            self.folder.write_json("sparsity.json", &pruner.masks().table(self.network.parameters()))?;
        }
        let mut network = self.evaluated_network();
        let mut which = "last";
        if self.state.best.is_some() && self.checkpoints.best().exists() {
            match Checkpoint::load(&self.checkpoints.best()) {
                Ok(best) => {
                    network.load(best.weights())?;
                    which = "best";
                }
                Err(error) => recorder.warn(&format!("{error}; the report shows the last epoch instead"))?,
            }
        }
        let split = "test";
        let mut samples = Samples::default();
        let metrics = evaluate(&network, &self.feed.test, |judged, done, total| {
            recorder.tell(&Event::Evaluating { split, done, total });
            samples.add(judged)?;
            Ok(done == total || self.must_stop(recorder).is_none())
        })?;
        let Some(metrics) = metrics else { return Ok(self.must_stop(recorder).unwrap_or(End::Interrupted)) };
        let mut report = evaluation_report(&metrics, &self.state.classes, samples);
        (report.split, report.checkpoint) = (split.into(), which.into());
        self.folder.write_json("evaluation.json", &report)?;
        Ok(self.natural_end())
    }
}

/// The figures of an evaluation, as a report shows them.
pub(super) fn evaluation_report(metrics: &Metrics, classes: &[String], samples: Samples) -> EvaluationReport {
    let confusion: Vec<Vec<u64>> = metrics.confusion().into_iter().map(<[u64]>::to_vec).collect();
    let class = |(index, name): (usize, &String)| {
        let images = confusion[index].iter().sum();
        let taken: u64 = confusion.iter().map(|row| row[index]).sum();
        let share = |of: u64| (of > 0).then(|| confusion[index][index] as f64 / of as f64);
        ClassResult { name: name.clone(), images, recall: share(images), precision: share(taken) }
    };
    EvaluationReport {
        images: metrics.count(),
        loss: metrics.loss(),
        top1: metrics.top1(),
        top5: metrics.top5(),
        classes: classes.iter().enumerate().map(class).collect(),
        samples: samples.chosen(),
        confusion,
        ..EvaluationReport::default()
    }
}

/// Collects the predictions that a report shows: the surest of the wrong ones, and right ones of as many classes as possible.
#[derive(Debug, Default)]
pub(super) struct Samples {
    wrong: Vec<Sample>,
    right: Vec<Sample>,
}

impl Samples {
    /// Looks through a batch.
    pub(super) fn add(&mut self, judged: &Judged<'_>) -> Result<()> {
        // An image whose logits overflow has no probabilities to show.
        let all = predictions(judged.logits, judged.labels, judged.start)?;
        for sample in all.into_iter().filter(|s| s.probability.is_finite() && s.label_probability.is_finite()) {
            if sample.label != sample.predicted {
                self.wrong.push(sample);
            } else if self.right.iter().filter(|s| s.label == sample.label).count() < SAMPLES {
                self.right.push(sample);
            }
        }
        self.wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.index.cmp(&b.index)));
        self.wrong.truncate(SAMPLES);
        Ok(())
    }

    /// The wrong ones, surest first, then the right ones, class by class.
    fn chosen(mut self) -> Vec<Sample> {
        // The first of each class comes before the second of any.
        let turn = |right: &[Sample], i: usize| right[..i].iter().filter(|s| s.label == right[i].label).count();
        let mut order: Vec<(usize, usize)> = (0..self.right.len()).map(|i| (turn(&self.right, i), i)).collect();
        order.sort_by(|a, b| {
            a.0.cmp(&b.0).then(self.right[a.1].label.cmp(&self.right[b.1].label)).then(Ordering::Equal)
        });
        let right = order.into_iter().take(SAMPLES).map(|(_, i)| self.right[i].clone());
        self.wrong.extend(right);
        self.wrong
    }
}

/// Each row's prediction with its probabilities.
fn predictions(logits: &Tensor, labels: &Tensor, start: u64) -> Result<Vec<Sample>> {
    let classes = logits.shape()[1];
    let log_probabilities = qkernels::softmax::log_softmax(logits)?.to_vec::<f32>()?;
    let rows = log_probabilities.chunks_exact(classes.max(1)).zip(labels.to_vec::<i64>()?);
    let sample = |(row, (values, label)): (usize, (&[f32], i64))| {
        let predicted = (1..classes).fold(0, |best, class| if values[class] > values[best] { class } else { best });
        let probability = |class: usize| values.get(class).map_or(0.0, |v| f64::from(*v).exp());
        let label = label as usize;
        let (index, label_probability) = (start + row as u64, probability(label));
        Sample { index, label, predicted, probability: probability(predicted), label_probability }
    };
    Ok(rows.enumerate().map(sample).collect())
}
