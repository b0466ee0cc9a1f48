//! What layers make of single images.

use super::energy::{Energy, Window, energy, squares};
use super::report::Analyzer;
use super::watch::{Sink, Watch};
use super::{LayerInfo, OUTPUT};
use crate::data::{self, read_image};
use crate::nn::{Leaves, Phase, marks};
use crate::{Error, Result};
use qgraph::{Pass, Tape, Var};
use qkernels::par;
use qtensor::Tensor;
use std::path::Path;

/// An image to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its number in the test set, or its file.
    pub label: String,
    /// Its class, where that is known.
    pub class: Option<String>,
    /// Planes of bytes in the size that the network takes.
    pub planes: Vec<u8>,
}

/// The activations of a place for one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// [`OUTPUT`], [`SECOND_ORDER`](marks::SECOND_ORDER) or [`LINEAR`](marks::LINEAR).
    pub place: &'static str,
    /// The channel; `None` for the mean over all.
    pub channel: Option<usize>,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Row by row.
    pub values: Vec<f32>,
    /// Where the squares are: of that channel, or of all together.
    pub energy: Option<Energy>,
}

/// The maps of a layer for one image: the means, then each channel that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMaps {
    /// The layer.
    pub layer: LayerInfo,
    /// Its maps; none where its results are no images.
    pub maps: Vec<Map>,
}

/// The places that have maps, in their order.
const PLACES: [&str; 3] = [OUTPUT, marks::SECOND_ORDER, marks::LINEAR];

/// Keeps what the layers give.
#[derive(Debug, Default)]
struct Kept(Vec<(usize, &'static str, Tensor)>);

impl Sink for Kept {
    fn take(&mut self, layer: usize, place: &str, pass: Pass, tensor: &Tensor) -> Result<()> {
        let place = PLACES.into_iter().find(|known| *known == place);
        if let (Some(place), Pass::Forward, 4) = (place, pass, tensor.rank()) {
            self.0.push((layer, place, tensor.clone()));
        }
        Ok(())
    }
}

impl Analyzer {
    /// The test images of those numbers.
    ///
    /// # Errors
    /// The data cannot be had, are not those of the training, or have fewer images.
    pub fn test_pictures(&self, numbers: &[usize], data_root: &Path) -> Result<Vec<Picture>> {
        let dataset = data::open_test(&self.evaluator().experiment().data, data_root)?;
        self.evaluator().expect_same_data(dataset.info())?;
        let mut scratch = Vec::new();
        let mut picture = |number: usize| {
            if number >= dataset.len() {
                let message = format!("there is no test image {number}: there are {}, counted from 0", dataset.len());
                return Err(Error::Config(message));
            }
            Ok(Picture {
                label: format!("test image {number}"),
                class: dataset.info().classes.get(dataset.label(number) as usize).cloned(),
                planes: dataset.image(number, &mut scratch)?.to_vec(),
            })
        };
        numbers.iter().map(|number| picture(*number)).collect()
    }

    /// A PNG or JPEG file, resized to the network's input.
    ///
    /// # Errors
    /// The file cannot be read or is no sound image.
    pub fn picture(&self, path: &Path) -> Result<Picture> {
        let planes =
            read_image(path, data::framing(&self.evaluator().experiment().data, self.evaluator().state().shape()))?;
        Ok(Picture { label: path.display().to_string(), class: None, planes })
    }

    /// What some layers make of an image: the means over all channels and the given channels, of the layers' results and of the parts of quadratic neurons.
    ///
    /// # Errors
    /// The image has another size, or a layer has no such channel.
    pub fn maps(
        &self,
        picture: &Picture,
        layers: &[usize],
        channels: &[usize],
        window: &Window,
    ) -> Result<Vec<LayerMaps>> {
        let state = self.evaluator().state();
        let image = Var::constant(state.normalization.apply(&picture.planes, state.shape())?);
        let watch = Watch::new(self.layers(), Kept::default());
        par::install(|| {
            let leaves = Leaves::constant(self.model().parameters());
            self.model().forward(&mut Tape::new().probe(&watch.probe()), &leaves, &image, Phase::Evaluate)
        })?;
        let kept = watch.with(std::mem::take)?.0;
        let of_layer = |index: usize| {
            let layer = self.layers()[index].clone();
            let found = |place: &str| kept.iter().find(|(l, p, _)| (*l, *p) == (index, place));
            let tensors = PLACES.into_iter().filter_map(|place| found(place).map(|(.., tensor)| (place, tensor)));
            let tensors: Vec<(&'static str, &Tensor)> = tensors.collect();
            let mut maps = Vec::new();
            for channel in std::iter::once(None).chain(channels.iter().copied().map(Some)) {
                for (place, tensor) in &tensors {
                    maps.push(map(&layer, place, tensor, channel, window)?);
                }
            }
            Ok(LayerMaps { layer, maps })
        };
        layers.iter().map(|index| of_layer(*index)).collect()
    }
}

/// The map of a channel of `[1, C, H, W]`, or of the mean over all.
fn map(
    layer: &LayerInfo,
    place: &'static str,
    tensor: &Tensor,
    channel: Option<usize>,
    window: &Window,
) -> Result<Map> {
    let (channels, size) = (tensor.shape()[1], [tensor.shape()[2], tensor.shape()[3]]);
    let tensor = match channel {
        Some(channel) if channel >= channels => {
            let name = &layer.name;
            return Err(Error::Config(format!("{name} has no channel {channel}: it has {channels}, counted from 0")));
        }
        Some(channel) => tensor.slice(1, channel..channel + 1)?,
        None => tensor.clone(),
    };
    let shown = tensor.shape()[1];
    let mut sums = vec![0.0f64; size[0] * size[1]];
    for plane in tensor.to_vec::<f32>()?.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(plane).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let squares = squares(&tensor)?.into_iter().next().unwrap_or_default();
    Ok(Map {
        place,
        channel,
        size,
        values: sums.into_iter().map(|sum| (sum / shown.max(1) as f64) as f32).collect(),
        energy: energy(&squares, size[1], window),
    })
}
