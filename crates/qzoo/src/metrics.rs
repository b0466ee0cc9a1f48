//! What is counted over a pass through a data set: loss, top-1 and top-5 accuracy, and the confusion matrix.

use qtensor::{Error, Result, Tensor};

/// Running counts over batches. Every batch is added; counts of two halves can be merged.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    classes: usize,
    loss: f64,
    /// Samples without a loss, because their logits are not finite.
    overflowed: u64,
    top5: u64,
    /// Row = true class, column = predicted class.
    confusion: Vec<u64>,
}

impl Metrics {
    /// Nothing counted yet, for that many classes.
    pub fn new(classes: usize) -> Self {
        Metrics { classes, loss: 0.0, overflowed: 0, top5: 0, confusion: vec![0; classes * classes] }
    }

    /// Counts a batch: logits `[N, classes]` in f32, labels `[N]` in i64, and the mean loss over the batch, the cross-entropy. Where that is not finite, samples whose
    /// own loss is finite count by it, and the others are [`overflowed`](Self::overflowed): one extreme image should not hide what a network makes of the rest.
    ///
    /// The prediction is the first of the largest logits. A logit that is not a number ranks above every number, so a broken model
    /// never scores by it.
    ///
    /// # Errors
    /// Another shape or type, or a label that is no class.
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor, mean_loss: f64) -> Result<()> {
        let count = labels.numel();
        if logits.shape().as_ref() != [count, self.classes] || labels.rank() != 1 {
            return Err(Error::shape("metrics", format!("{logits:?} and {labels:?} for {} classes", self.classes)));
        }
        let (logits, labels) = (logits.contiguous(), labels.contiguous());
        let rows = logits.as_slice::<f32>()?.chunks_exact(self.classes.max(1));
        let labels = labels.as_slice::<i64>()?;
        let valid = |label: &i64| usize::try_from(*label).is_ok_and(|l| l < self.classes);
        if let Some(wrong) = labels.iter().find(|l| !valid(l)) {
            return Err(Error::argument("metrics", format!("label {wrong} is none of {} classes", self.classes)));
        }
        for (row, label) in rows.zip(labels) {
            let label = *label as usize;
            if !mean_loss.is_finite() {
                match cross_entropy(row, label) {
                    loss if loss.is_finite() => self.loss += loss,
                    _ => self.overflowed += 1,
                }
            }
            self.confusion[label * self.classes + predicted(row)] += 1;
            self.top5 += u64::from(rank(row, label) < 5);
        }
        if mean_loss.is_finite() {
            self.loss += mean_loss * count as f64;
        }
        Ok(())
    }

    /// Adds the counts of another part of the same pass.
    ///
    /// # Errors
    /// Another number of classes.
    pub fn merge(&mut self, other: &Metrics) -> Result<()> {
        if other.classes != self.classes {
            return Err(Error::argument("metrics", format!("{} classes and {} classes", self.classes, other.classes)));
        }
        self.loss += other.loss;
        self.overflowed += other.overflowed;
        self.top5 += other.top5;
        self.confusion.iter_mut().zip(&other.confusion).for_each(|(a, b)| *a += b);
        Ok(())
    }

    /// Samples counted.
    pub fn count(&self) -> u64 {
        self.confusion.iter().sum()
    }

    /// Mean loss over the samples that have one; 0 where there are no samples, NaN where none of them has a loss.
    pub fn loss(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.loss / (self.count() - self.overflowed) as f64 }
    }

    /// Samples whose logits are not finite, so that they have no loss.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Samples whose prediction is right.
    pub fn correct(&self) -> u64 {
        (0..self.classes).map(|c| self.confusion[c * self.classes + c]).sum()
    }

    /// Share of samples whose prediction is right.
    pub fn top1(&self) -> f64 {
        self.share(self.correct() as f64)
    }

    /// Share of samples whose class is among the five likeliest.
    pub fn top5(&self) -> f64 {
        self.share(self.top5 as f64)
    }

    /// Share of each class's samples that are predicted right; `None` for a class without samples.
    pub fn per_class(&self) -> Vec<Option<f64>> {
        let rows = self.confusion.chunks(self.classes.max(1)).enumerate();
        rows.map(|(class, row)| {
            let total: u64 = row.iter().sum();
            (total > 0).then(|| row[class] as f64 / total as f64)
        })
        .collect()
    }

    /// Number of samples of each true class (row) by predicted class (column).
    pub fn confusion(&self) -> Vec<&[u64]> {
        self.confusion.chunks(self.classes.max(1)).collect()
    }

    fn share(&self, sum: f64) -> f64 {
        match self.count() {
            0 => 0.0,
            count => sum / count as f64,
        }
    }
}

/// `ln Σ exp(logits) - logits[label]`
fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    sum.ln() - f64::from(logits[label] - largest)
}

/// Place of the first of the largest values; of the first value that is not a number, if any.
fn predicted(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if row[best].is_nan() {
            break;
        }
        if *value > row[best] || value.is_nan() {
            best = i;
        }
    }
    best
}

/// How many classes are placed before `label`: those with a larger value, or an equal one and a smaller number.
fn rank(row: &[f32], label: usize) -> usize {
    let own = row[label];
    if own.is_nan() {
        return usize::MAX;
    }
    let before = |(i, value): (usize, &f32)| value.is_nan() || *value > own || (*value == own && i < label);
    row.iter().enumerate().filter(|(i, v)| before((*i, v))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(logits: &[f32], labels: &[i64], classes: usize) -> Metrics {
        let mut metrics = Metrics::new(classes);
        let logits = Tensor::from_slice([labels.len(), classes], logits).unwrap();
        metrics.add(&logits, &Tensor::from_slice([labels.len()], labels).unwrap(), 0.5).unwrap();
        metrics
    }

    #[test]
    fn accuracies_and_confusion() {
        let metrics = counted(&[1.0, 2.0, 0.0, 3.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 5.0], &[1, 1, 0, 2], 3);
        assert_eq!((metrics.count(), metrics.correct(), metrics.top1(), metrics.top5()), (4, 3, 0.75, 1.0));
        assert_eq!(metrics.confusion(), [&[1, 0, 0][..], &[1, 1, 0], &[0, 0, 1]]);
        assert_eq!(metrics.per_class(), [Some(1.0), Some(0.5), Some(1.0)]);
        assert_eq!(metrics.loss(), 0.5);
    }

    #[test]
    fn top5_counts_ranks_with_ties_by_number() {
        let row = [7.0, 6.0, 5.0, 4.0, 3.0, 3.0, 1.0];
        assert_eq!((0..7).map(|l| rank(&row, l)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        let rows: Vec<f32> = (0..7).flat_map(|_| row).collect();
        let metrics = counted(&rows, &[0, 1, 2, 3, 4, 5, 6], 7);
        assert_eq!((metrics.top1(), metrics.top5()), (1.0 / 7.0, 5.0 / 7.0));
    }

    #[test]
    fn not_a_number_never_scores() {
        let nan = f32::NAN;
        let metrics = counted(&[nan, nan, nan, 0.0, nan, 1.0], &[2, 2], 3);
        assert_eq!((metrics.correct(), metrics.confusion()[2]), (0, &[1, 1, 0][..]));
    }

    #[test]
    fn an_overflow_leaves_the_loss_of_the_others() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let mut metrics = Metrics::new(2);
        let logits = Tensor::from_slice([4, 2], &[0.0, 0.0, inf, 1.0, nan, 0.0, 3.0, 3.0]).unwrap();
        metrics.add(&logits, &Tensor::from_slice([4], &[0i64, 1, 1, 1]).unwrap(), f64::NAN).unwrap();
        assert_eq!((metrics.count(), metrics.overflowed(), metrics.correct()), (4, 2, 1));
        assert!((metrics.loss() - 2f64.ln()).abs() < 1e-12, "two classes alike");
        let mut lost = Metrics::new(2);
        lost.add(
            &Tensor::from_slice([1, 2], &[nan, nan]).unwrap(),
            &Tensor::from_slice([1], &[0i64]).unwrap(),
            f64::NAN,
        )
        .unwrap();
        assert!(lost.loss().is_nan(), "nothing is left to take the mean of");
    }

    #[test]
    fn merging_equals_counting_at_once() {
        let logits: Vec<f32> = (0..60).map(|i| ((i * 37) % 11) as f32).collect();
        let labels: Vec<i64> = (0..10).map(|i| i % 6).collect();
        let whole = counted(&logits, &labels, 6);
        let mut halves = counted(&logits[..24], &labels[..4], 6);
        halves.merge(&counted(&logits[24..], &labels[4..], 6)).unwrap();
        assert_eq!(halves, whole);
        assert!(halves.merge(&Metrics::new(5)).is_err());
    }

    #[test]
    fn mistakes_are_refused() {
        let mut metrics = Metrics::new(3);
        let logits = Tensor::from_slice([1, 3], &[0.0f32; 3]).unwrap();
        for label in [-1i64, 3, i64::MAX] {
            assert!(metrics.add(&logits, &Tensor::from_slice([1], &[label]).unwrap(), 0.0).is_err());
        }
        assert!(metrics.add(&logits, &Tensor::from_slice([2], &[0i64, 1]).unwrap(), 0.0).is_err());
        assert_eq!((metrics.count(), metrics.top1(), metrics.per_class()), (0, 0.0, vec![None; 3]));
    }
}
