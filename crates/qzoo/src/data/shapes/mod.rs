//! A generated data set: shapes and textures of random colours, places, sizes and angles among clutter and noise, 32x32 pixels.
//!
//! Colours are drawn without regard to the class and every shape may lie anywhere at any angle, so no pixel tells anything alone.
//! Image `index` of a split is a pure function of (split, index); its class is `index` modulo ten.

mod canvas;
mod figure;

use canvas::{Canvas, Colour, SIDE};
use figure::Figure;

use super::dataset::{Dataset, DatasetInfo, ImageShape, Split};
use super::error::Result;
use super::made::MadeImages;
use super::manifest::Manifest;
use qtensor::random::{Purpose, Stream, StreamKey};
use std::f32::consts::TAU;
use std::sync::Arc;

/// The data set is the same for every experiment.
const SEED: u64 = 0x5eed_5a9e;
const CLASSES: u32 = 10;

/// One split, whose images are drawn when they are first asked for.
///
/// # Errors
/// The manifest is not one of ten classes and 3x32x32 pixels.
pub fn open(manifest: &Manifest, split: Split) -> Result<Dataset> {
    let shape = ImageShape { channels: 3, height: SIDE, width: SIDE };
    if manifest.shape != shape || manifest.classes.len() != CLASSES as usize {
        return Err(manifest.invalid("the generator makes ten classes of 3x32x32 pixels"));
    }
    let count = manifest.samples(split) as usize;
    let draw = move |index| {
        let mut planes = vec![0; shape.pixels()];
        generate(split, index as u32, &mut planes);
        Ok(planes)
    };
    let labels = (0..count as u32).map(class_of).collect();
    Dataset::new(Arc::new(DatasetInfo::from(manifest)), Arc::new(MadeImages::new(count, shape, draw)), labels)
}

fn class_of(index: u32) -> u32 {
    index % CLASSES
}

/// Draws image `index` of a split as planes (3, 32, 32).
fn generate(split: Split, index: u32, planes: &mut [u8]) {
    let epoch = u32::from(split == Split::Test);
    let mut stream = Stream::new(StreamKey { seed: SEED, purpose: Purpose::Data, epoch, index: u64::from(index) });
    let random = &mut stream;
    let background = colour(random);
    let mut canvas = Canvas::gradient(background, shifted(background, 50.0, random), random.uniform_in(0.0, TAU));
    for _ in 0..2 + random.below(4) {
        clutter(&mut canvas, random);
    }
    let figure = Figure::draw(class_of(index), random);
    let first = apart_from(&[background], random);
    let colours = [first, shifted(first, 25.0, random), apart_from(&[background, first], random)];
    figure.paint(&mut canvas, colours);
    if random.chance(0.5) {
        line(&mut canvas, random);
    }
    canvas.write(planes, random.uniform_in(3.0, 15.0), random);
}

fn colour(random: &mut Stream) -> Colour {
    std::array::from_fn(|_| random.uniform_in(0.0, 255.0))
}

/// A colour whose channels differ by at most `most` from those of `base`.
fn shifted(base: Colour, most: f32, random: &mut Stream) -> Colour {
    base.map(|v| (v + random.uniform_in(-most, most)).clamp(0.0, 255.0))
}

/// A random colour that the eye tells from the others.
fn apart_from(others: &[Colour], random: &mut Stream) -> Colour {
    const NEAREST: f32 = 120.0;
    loop {
        let candidate = colour(random);
        let distance = |other: &Colour| other.iter().zip(&candidate).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        if others.iter().all(|other| distance(other) > NEAREST) {
            return candidate;
        }
    }
}

/// A thin line or a small blob.
fn clutter(canvas: &mut Canvas, random: &mut Stream) {
    if random.chance(0.5) {
        return line(canvas, random);
    }
    let centre = point(random);
    let radius = random.uniform_in(0.8, 2.2);
    canvas.blob(centre, radius, colour(random));
}

fn line(canvas: &mut Canvas, random: &mut Stream) {
    let from = point(random);
    let (angle, length) = (random.uniform_in(0.0, TAU), random.uniform_in(6.0, 20.0));
    let to = [from[0] + length * angle.cos(), from[1] + length * angle.sin()];
    canvas.line([from, to], random.uniform_in(0.3, 0.7), colour(random));
}

fn point(random: &mut Stream) -> [f32; 2] {
    [random.uniform_in(0.0, SIDE as f32), random.uniform_in(0.0, SIDE as f32)]
}
