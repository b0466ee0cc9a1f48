//! From bytes to a batch of normalised floats.

use super::augment::Change;
use super::dataset::{Dataset, DatasetInfo};
use super::error::{DataError, Result};
use super::mixup;
use crate::experiment::{Augment, CropMode};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Tensor};

/// Samples for one step.
#[derive(Clone, Debug)]
pub struct Batch {
    /// f32, shape (samples, channels, height, width), channels-last in memory.
    pub images: Tensor,
    /// i64, shape (samples).
    pub labels: Tensor,
    /// With mixup: the probabilities of the classes, f32, shape (samples, classes).
    pub targets: Option<Tensor>,
    /// Which samples of the data set these are.
    pub indices: Vec<u32>,
}

/// Which batch of a run: the name of its random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) seed: u64,
    pub(super) epoch: u32,
    pub(super) batch: u64,
}

/// Makes batches; every batch depends only on its samples and its position.
pub(super) struct Assembler {
    dataset: Dataset,
    augment: Option<Augment>,
    /// For each channel the value of each byte.
    tables: Vec<[f32; 256]>,
    /// For each channel the value of a hole: the mean of the data set.
    hole: Vec<f32>,
}

impl Assembler {
    pub(super) fn new(dataset: Dataset, augment: Option<Augment>, normalize: bool) -> Result<Self> {
        let DatasetInfo { shape, mean, std, .. } = dataset.info();
        if mean.len() != shape.channels || std.len() != shape.channels {
            return Err(DataError::Argument(format!("data set {}: no mean and std a channel", dataset.info().name)));
        }
        if let Some(augment) = &augment {
            let side = shape.height.min(shape.width);
            if augment.crop_mode == CropMode::Reflect && augment.crop_padding >= side {
                let message = format!("crop_padding {} cannot reflect images of {side} pixels", augment.crop_padding);
                return Err(DataError::Argument(message));
            }
            if augment.crop_padding > 1024 || !(0.0..=100.0).contains(&augment.mixup) {
                return Err(DataError::Argument("crop_padding is at most 1024, and mixup in 0 to 100".to_string()));
            }
        }
        let scale = |c: usize, value: f32| if normalize { (value - mean[c]) / std[c] } else { value };
        let table = |c: usize| std::array::from_fn(|byte| scale(c, byte as f32 / 255.0));
        let tables = (0..shape.channels).map(table).collect();
        let hole = (0..shape.channels).map(|c| scale(c, mean[c])).collect();
        Ok(Assembler { dataset, augment, tables, hole })
    }

    /// The batch of those samples.
    pub(super) fn assemble(&self, indices: &[u32], at: Position) -> Result<Batch> {
        let shape = self.dataset.info().shape;
        let mut images =
            Tensor::empty_channels_last([indices.len(), shape.channels, shape.height, shape.width], DType::F32)?;
        let (mut scratch, mut changed) = (Vec::new(), vec![0; shape.pixels()]);
        for (&index, to) in indices.iter().zip(images.memory_mut::<f32>()?.chunks_exact_mut(shape.pixels())) {
            let image = self.dataset.image(index as usize, &mut scratch)?;
            let Some(augment) = &self.augment else {
                write_channels_last(image, &self.tables, to);
                continue;
            };
            let key = StreamKey { seed: at.seed, purpose: Purpose::Augment, epoch: at.epoch, index: u64::from(index) };
            let change = Change::draw(augment, shape, &mut Stream::new(key));
            change.apply(augment, shape, image, &mut changed);
            write_channels_last(&changed, &self.tables, to);
            let [rows, columns] = change.hole(augment, shape);
            let row_length = shape.width * shape.channels;
            for row in to.chunks_exact_mut(row_length).skip(rows.start).take(rows.len()) {
                let hole = &mut row[columns.start * shape.channels..columns.end * shape.channels];
                hole.chunks_exact_mut(shape.channels).for_each(|pixel| pixel.copy_from_slice(&self.hole));
            }
        }
        let labels: Vec<i64> = indices.iter().map(|&index| i64::from(self.dataset.label(index as usize))).collect();
        let mixup = self.augment.as_ref().map_or(0.0, |augment| augment.mixup);
        let (images, targets) = if mixup > 0.0 {
            let key = StreamKey { seed: at.seed, purpose: Purpose::Mixup, epoch: at.epoch, index: at.batch };
            let (images, targets) = mixup::mix(&images, &labels, self.dataset.classes(), mixup, &mut Stream::new(key))?;
            (images, Some(targets))
        } else {
            (images, None)
        };
        let labels = Tensor::from_vec([labels.len()], labels)?;
        Ok(Batch { images, labels, targets, indices: indices.to_vec() })
    }
}

/// Planes of bytes to interleaved floats.
fn write_channels_last(planes: &[u8], tables: &[[f32; 256]], to: &mut [f32]) {
    match tables {
        [grey] => to.iter_mut().zip(planes).for_each(|(to, &v)| *to = grey[usize::from(v)]),
        [red, green, blue] => {
            let (r, rest) = planes.split_at(planes.len() / 3);
            let (g, b) = rest.split_at(r.len());
            for (((to, &r), &g), &b) in to.chunks_exact_mut(3).zip(r).zip(g).zip(b) {
                to.copy_from_slice(&[red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)]]);
            }
        }
        _ => {
            let plane = planes.len() / tables.len();
            for (channel, (table, plane)) in tables.iter().zip(planes.chunks_exact(plane)).enumerate() {
                let targets = to.iter_mut().skip(channel).step_by(tables.len());
                targets.zip(plane).for_each(|(to, &v)| *to = table[usize::from(v)]);
            }
        }
    }
}
