//! Order, resume, augmentation and shutdown of the loader.

use qtensor::{DType, Tensor};
use qzoo::data::{
    Batch, DataError, Dataset, DatasetInfo, ImageShape, ImageSource, Loader, LoaderOptions, MemoryImages,
};
use qzoo::experiment::{Augment, CropMode};
use std::sync::Arc;

const SHAPE: ImageShape = ImageShape { channels: 3, height: 6, width: 5 };

fn info() -> Arc<DatasetInfo> {
    Arc::new(DatasetInfo {
        name: "test".to_string(),
        shape: SHAPE,
        classes: ["a", "b", "c"].map(String::from).to_vec(),
        mean: vec![0.5, 0.25, 0.75],
        std: vec![0.5, 0.25, 0.125],
    })
}

/// Images whose bytes are all different within an image.
fn dataset(count: usize) -> Dataset {
    let pixels = (0..count * SHAPE.pixels()).map(|i| (i % 251) as u8).collect();
    let labels = (0..count as u32).map(|i| i % 3).collect();
    Dataset::new(info(), Arc::new(MemoryImages::new(pixels, SHAPE)), labels).unwrap()
}

fn everything() -> Augment {
    Augment { crop_padding: 2, crop_mode: CropMode::Reflect, flip: true, cutout: 3, mixup: 0.4 }
}

fn training(workers: usize, augment: Option<Augment>) -> LoaderOptions {
    LoaderOptions { workers, augment, ..LoaderOptions::training(4, 7) }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

fn bits(batches: &[Batch]) -> Vec<(Vec<u32>, Vec<u32>, Vec<i64>)> {
    let bits = |b: &Batch| values(&b.images).iter().map(|v| v.to_bits()).collect();
    batches.iter().map(|b| (bits(b), b.indices.clone(), b.labels.to_vec().unwrap())).collect()
}

fn epoch(loader: &Loader, epoch: u32, first: usize) -> Vec<Batch> {
    loader.epoch(epoch, first).unwrap().map(Result::unwrap).collect()
}

#[test]
fn batches_do_not_depend_on_workers_or_on_where_an_epoch_starts() {
    let reference = Loader::new(dataset(35), training(0, Some(everything()))).unwrap();
    assert_eq!((reference.batches(), reference.samples()), (9, 35));
    for number in [0, 5] {
        let whole = bits(&epoch(&reference, number, 0));
        for workers in [1, 2, 3, 16] {
            let loader = Loader::new(dataset(35), training(workers, Some(everything()))).unwrap();
            for first in [0, 1, 4, 8, 9, 20] {
                assert_eq!(bits(&epoch(&loader, number, first)), whole[first.min(9)..], "{workers} workers, {first}");
            }
        }
    }
    assert_ne!(bits(&epoch(&reference, 0, 0)), bits(&epoch(&reference, 1, 0)));
}

#[test]
fn an_epoch_has_every_sample_once() {
    for (drop_last, count) in [(false, 35), (true, 32)] {
        let options = LoaderOptions { drop_last, ..training(2, None) };
        let loader = Loader::new(dataset(35), options).unwrap();
        let mut seen: Vec<u32> = epoch(&loader, 3, 0).into_iter().flat_map(|b| b.indices).collect();
        assert_eq!((seen.len(), loader.samples()), (count, count));
        assert!(!seen.is_sorted());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}

#[test]
fn evaluation_normalises_and_keeps_the_order() {
    let data = dataset(7);
    let loader = Loader::new(data.clone(), LoaderOptions::evaluation(4)).unwrap();
    let batches = epoch(&loader, 0, 0);
    assert_eq!(batches.iter().map(|b| b.indices.len()).collect::<Vec<_>>(), [4, 3]);
    let mut scratch = Vec::new();
    for (batch, start) in batches.iter().zip([0, 4]) {
        assert_eq!(batch.images.dtype(), DType::F32);
        assert_eq!(batch.images.to_channels_last().strides(), batch.images.strides());
        let logical = values(&batch.images);
        for (i, image) in logical.chunks_exact(SHAPE.pixels()).enumerate() {
            let bytes = data.image(start + i, &mut scratch).unwrap();
            for (at, (value, &byte)) in image.iter().zip(bytes).enumerate() {
                let channel = at / SHAPE.plane();
                let expected = (f32::from(byte) / 255.0 - info().mean[channel]) / info().std[channel];
                assert!((value - expected).abs() < 1e-6);
            }
        }
    }
    assert_eq!(batches[1].labels.to_vec::<i64>().unwrap(), [1, 2, 0]);
    assert!(batches.iter().all(|b| b.targets.is_none()));
}

/// Where a window at (dy, dx) of an image padded by `pad` takes its pixel from, written without regard to speed.
fn textbook(image: &[u8], mode: CropMode, pad: isize, [dy, dx]: [isize; 2], flip: bool) -> Vec<u8> {
    let (h, w) = (SHAPE.height as isize, SHAPE.width as isize);
    let mut out = Vec::new();
    for c in 0..SHAPE.channels as isize {
        for y in 0..h {
            for x in 0..w {
                let x = if flip { w - 1 - x } else { x };
                let (mut sy, mut sx) = (y + dy - pad, x + dx - pad);
                if mode == CropMode::Reflect {
                    (sy, sx) = (h - 1 - (h - 1 - sy.abs()).abs(), w - 1 - (w - 1 - sx.abs()).abs());
                }
                let inside = (0..h).contains(&sy) && (0..w).contains(&sx);
                out.push(if inside { image[((c * h + sy) * w + sx) as usize] } else { 0 });
            }
        }
    }
    out
}

#[test]
fn every_augmented_image_is_a_window_of_the_padded_image_and_all_windows_occur() {
    for (mode, pad) in [(CropMode::Zero, 2), (CropMode::Zero, 9), (CropMode::Reflect, 2), (CropMode::Reflect, 4)] {
        let data = dataset(1);
        let augment = Augment { crop_padding: pad as usize, crop_mode: mode, flip: true, ..Augment::default() };
        let loader =
            Loader::new(data.clone(), LoaderOptions { normalize: false, ..training(0, Some(augment)) }).unwrap();
        let mut scratch = Vec::new();
        let image = data.image(0, &mut scratch).unwrap().to_vec();
        let mut windows = std::collections::HashMap::new();
        for dy in 0..=2 * pad {
            for dx in 0..=2 * pad {
                for flip in [false, true] {
                    windows.insert(textbook(&image, mode, pad, [dy, dx], flip), false);
                }
            }
        }
        for number in 0..4000 {
            let batch = &epoch(&loader, number, 0)[0];
            let bytes: Vec<u8> = values(&batch.images).iter().map(|v| (v * 255.0).round() as u8).collect();
            *windows.get_mut(&bytes).expect("a window of the padded image") = true;
        }
        let missed = windows.values().filter(|seen| !**seen).count();
        assert!(missed * 50 < windows.len(), "{missed} of {} windows never occur", windows.len());
    }
}

#[test]
fn cutout_puts_one_square_of_the_mean_into_the_image() {
    let augment = Augment { cutout: 3, ..Augment::default() };
    let loader = Loader::new(dataset(1), training(0, Some(augment))).unwrap();
    let plain = values(&epoch(&Loader::new(dataset(1), training(0, None)).unwrap(), 0, 0)[0].images);
    let mut sizes = std::collections::HashSet::new();
    for number in 0..200 {
        let image = values(&epoch(&loader, number, 0)[0].images);
        let changed: Vec<usize> = (0..image.len()).filter(|&i| image[i] != plain[i]).collect();
        assert!(changed.iter().all(|&i| image[i].abs() < 1e-6));
        let place = |i: &usize| (i % SHAPE.plane() / SHAPE.width, i % SHAPE.width);
        let (rows, columns): (Vec<_>, Vec<_>) = changed.iter().map(place).unzip();
        let height = rows.iter().max().unwrap() - rows.iter().min().unwrap() + 1;
        let width = columns.iter().max().unwrap() - columns.iter().min().unwrap() + 1;
        assert_eq!(changed.len(), height * width * SHAPE.channels);
        sizes.insert((height, width));
    }
    assert!(sizes.contains(&(3, 3)) && sizes.iter().all(|&(h, w)| (2..=3).contains(&h) && (2..=3).contains(&w)));
}

#[test]
fn mixup_mixes_images_as_it_mixes_labels() {
    let augment = Augment { mixup: 1.0, ..Augment::default() };
    let plain = Loader::new(dataset(12), LoaderOptions { batch_size: 6, ..training(0, None) }).unwrap();
    let mixed = Loader::new(dataset(12), LoaderOptions { batch_size: 6, ..training(1, Some(augment)) }).unwrap();
    let mut weights = Vec::new();
    for (a, b) in epoch(&plain, 2, 0).iter().zip(&epoch(&mixed, 2, 0)) {
        assert_eq!(a.indices, b.indices);
        let targets = b.targets.as_ref().unwrap();
        assert_eq!(&targets.shape()[..], [6, 3]);
        let (from, to, targets) = (values(&a.images), values(&b.images), values(targets));
        let labels: Vec<i64> = a.labels.to_vec().unwrap();
        let size = SHAPE.pixels();
        for i in 0..6 {
            let row = &targets[3 * i..3 * i + 3];
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            let own = row[labels[i] as usize];
            let fits = (0..6).any(|j| {
                let same = labels[i] == labels[j];
                let candidates = if same { vec![] } else { vec![own] };
                candidates.iter().any(|w| {
                    (0..size).all(|k| {
                        let expected = w * from[i * size + k] + (1.0 - w) * from[j * size + k];
                        (to[i * size + k] - expected).abs() < 1e-4
                    })
                })
            });
            if own < 1.0 {
                assert!(fits, "sample {i} is no mixture in the proportion of its targets");
                weights.push(own);
            }
        }
    }
    assert!(!weights.is_empty());
}

/// Fails in one of three ways when the sample 17 is wanted.
struct Failing {
    images: MemoryImages,
    panics: bool,
}

impl ImageSource for Failing {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn image<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], DataError> {
        match (index, self.panics) {
            (17, true) => panic!("sample 17 is cursed"),
            (17, false) => Err(DataError::Argument("sample 17 cannot be read".to_string())),
            _ => self.images.image(index, scratch),
        }
    }
}

#[test]
fn errors_and_panics_of_workers_arrive_in_their_place() {
    for panics in [false, true] {
        for workers in [0, 1, 3] {
            let images = MemoryImages::new(vec![0; 40 * SHAPE.pixels()], SHAPE);
            let source = Arc::new(Failing { images, panics });
            let data = Dataset::new(info(), source, vec![0; 40]).unwrap();
            let loader = Loader::new(data, LoaderOptions { workers, ..LoaderOptions::evaluation(4) }).unwrap();
            let results: Vec<_> = loader.epoch(0, 0).unwrap().collect();
            assert_eq!(results.len(), 5);
            assert!(results[..4].iter().all(Result::is_ok));
            let message = results[4].as_ref().unwrap_err().to_string();
            assert!(message.contains("sample 17"), "{message}");
        }
    }
}

#[test]
fn dropping_an_epoch_half_way_ends_the_workers() {
    let source = Arc::new(MemoryImages::new(vec![0; 400 * SHAPE.pixels()], SHAPE));
    let held: Arc<dyn ImageSource> = source.clone();
    let data = Dataset::new(info(), held, vec![0; 400]).unwrap();
    let loader = Loader::new(data, LoaderOptions { workers: 4, ..LoaderOptions::evaluation(2) }).unwrap();
    for taken in [0, 1, 3] {
        let mut batches = loader.epoch(0, 0).unwrap();
        assert_eq!(batches.by_ref().take(taken).filter(Result::is_ok).count(), taken);
    }
    drop(loader);
    assert_eq!(Arc::strong_count(&source), 1, "a worker still holds the images");
}

#[test]
fn impossible_options_are_refused() {
    let new = |options| Loader::new(dataset(3), options).map(|_| ());
    assert!(new(LoaderOptions::evaluation(0)).is_err());
    assert!(new(LoaderOptions { workers: 257, ..LoaderOptions::evaluation(1) }).is_err());
    let reflect = Augment { crop_padding: 5, crop_mode: CropMode::Reflect, ..Augment::default() };
    assert!(new(training(1, Some(reflect))).is_err());
    assert!(new(training(1, Some(Augment { mixup: f64::NAN, ..Augment::default() }))).is_err());
    let empty = Loader::new(dataset(0), LoaderOptions::evaluation(4)).unwrap();
    assert_eq!((empty.batches(), epoch(&empty, 0, 0).len()), (0, 0));
}
