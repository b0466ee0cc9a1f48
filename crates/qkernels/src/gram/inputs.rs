//! What the neurons of a layer see.

use super::OP;
use crate::conv::{Conv2dParams, Geometry};
use qtensor::random::{Stream, StreamKey};
use qtensor::{Error, Result};

/// How a layer walks its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// A neuron sees all features of a sample.
    Dense,
    /// A neuron sees the patch under its kernel, zeros in the padding.
    Conv2d {
        /// Stride, padding, dilation and groups.
        params: Conv2dParams,
        /// Height and width of the kernel.
        kernel: [usize; 2],
    },
}

/// What counts as one neuron of a convolution. A dense layer has but one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// A whole filter: a block of matrices for each group of the convolution, `N = channels/groups · kernel height · kernel width`, in the order channel, row, column of a filter.
    WholeFilter,
    /// The part of a filter that meets one channel: a block for each channel, `N = kernel height · kernel width`.
    PerChannel,
}

/// Which places of an image a convolution's neurons are judged at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Patches {
    /// All.
    All,
    /// Some of each image, drawn without replacement, the same for both tensors.
    Share {
        /// The part of all places, above 0 and at most 1; at least one place of an image is drawn.
        share: f64,
        /// The name of the random numbers of the first image; the index of later ones counts on from there.
        key: StreamKey,
    },
}

impl Patches {
    /// How many of `places` count.
    pub(super) fn count(&self, places: usize) -> usize {
        match self {
            Patches::All => places,
            Patches::Share { share, .. } => ((share * places as f64).round() as usize).clamp(places.min(1), places),
        }
    }

    /// The places of the image of that number, counted row by row, ascending. At most 2^32 - 1 places are told apart.
    pub fn of_image(&self, image: u64, places: u32) -> Vec<u32> {
        let Patches::Share { key, .. } = self else { return (0..places).collect() };
        let mut stream = Stream::new(StreamKey { index: key.index.wrapping_add(image), ..*key });
        // Selection sampling: each place is taken with the probability that makes all subsets equally likely.
        let mut wanted = self.count(places as usize) as u32;
        let mut taken = Vec::with_capacity(wanted as usize);
        for place in 0..places {
            if wanted > 0 && stream.below(places - place) < wanted {
                taken.push(place);
                wanted -= 1;
            }
        }
        taken
    }
}

/// Whether the two networks see the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// They do, as in the first layer: `C = H`.
    One,
    /// `X~` and `X` are two tensors.
    Two,
}

impl Sources {
    pub(super) fn count(self) -> usize {
        match self {
            Sources::One => 1,
            Sources::Two => 2,
        }
    }
}

/// What the neurons of one layer see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    /// How the layer walks its input.
    pub window: Window,
    /// Features of a dense layer, channels of a convolution.
    pub channels: usize,
    /// What counts as one neuron.
    pub grouping: Grouping,
    /// Which places count.
    pub patches: Patches,
}

impl Inputs {
    /// Those of a dense layer.
    pub fn dense(features: usize) -> Self {
        Inputs { window: Window::Dense, channels: features, grouping: Grouping::WholeFilter, patches: Patches::All }
    }

    /// Those of a convolution's whole filters at all places.
    pub fn conv2d(channels: usize, kernel: [usize; 2], params: Conv2dParams) -> Self {
        let window = Window::Conv2d { params, kernel };
        Inputs { window, channels, grouping: Grouping::WholeFilter, patches: Patches::All }
    }

    /// Refuses what is no layer.
    ///
    /// # Errors
    /// No channels, groups that do not divide them, an empty kernel, a stride or a dilation of 0, or a share of patches that is not above 0 and at most 1.
    pub fn check(&self) -> Result<()> {
        if self.channels == 0 {
            return Err(Error::argument(OP, "a layer must have at least one feature or channel"));
        }
        match self.patches {
            Patches::Share { share, .. } if !(share > 0.0 && share <= 1.0) => {
                return Err(Error::argument(OP, format!("the share of patches is {share}; it must be in (0, 1]")));
            }
            _ => {}
        }
        let Window::Conv2d { params, kernel } = self.window else { return Ok(()) };
        // The smallest image without padding that the kernel fits.
        let reach = [0, 1].map(|i| kernel[i].saturating_sub(1).saturating_mul(params.dilation[i]).saturating_add(1));
        self.geometry(&[1, self.channels, reach[0], reach[1]])?;
        Ok(())
    }

    /// The sizes of a walk over a tensor of that shape.
    pub(super) fn geometry(&self, shape: &[usize]) -> Result<Geometry> {
        let shape_error =
            |expected: String| Error::shape(OP, format!("inputs of shape {shape:?} instead of {expected}"));
        match (self.window, shape) {
            (Window::Dense, &[samples, features]) if features == self.channels => {
                Geometry::new(OP, &[samples, features, 1, 1], &[1, features, 1, 1], &Conv2dParams::default())
            }
            (Window::Dense, _) => Err(shape_error(format!("N×{}", self.channels))),
            (Window::Conv2d { params, kernel }, &[_, channels, _, _]) if channels == self.channels => {
                let depth = channels.checked_div(params.groups).unwrap_or(channels);
                Geometry::new(OP, shape, &[params.groups, depth, kernel[0], kernel[1]], &params)
            }
            (Window::Conv2d { .. }, _) => Err(shape_error(format!("N×{}×H×W", self.channels))),
        }
    }

    /// Pairs of matrices: 1 of a dense layer, one for each group of whole filters, one for each channel.
    pub fn blocks(&self) -> usize {
        match (self.window, self.grouping) {
            (Window::Dense, _) => 1,
            (Window::Conv2d { .. }, Grouping::PerChannel) => self.channels,
            (Window::Conv2d { params, .. }, Grouping::WholeFilter) => params.groups,
        }
    }

    /// `N`, the inputs of a neuron, which are the rows and columns of a matrix; the inputs must have passed [`check`](Self::check).
    pub fn size(&self) -> usize {
        self.depth() * self.taps()
    }

    /// Channels that a neuron sees.
    pub(super) fn depth(&self) -> usize {
        self.channels / self.blocks().max(1)
    }

    /// Pixels that a neuron sees.
    pub(super) fn taps(&self) -> usize {
        match self.window {
            Window::Dense => 1,
            Window::Conv2d { kernel, .. } => kernel[0] * kernel[1],
        }
    }

    /// Of one kind of matrix.
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.blocks(), self.size(), self.size()]
    }

    /// Whether neurons see one channel, so that lanes of a vector may be channels.
    pub(super) fn is_by_lanes(&self) -> bool {
        self.depth() == 1 && self.window != Window::Dense
    }

    /// Whether the order in which rows are gathered, channels fastest, is that of a filter's weights.
    pub(super) fn is_in_order(&self) -> bool {
        self.depth() == 1 || self.taps() == 1
    }
}
