//! Filters of i8 in the order in which the register tiles read them.

use super::tile::TileShape;
use super::winograd::Points;
use crate::conv::Conv2dParams;
use crate::{isa, par};
use qtensor::{DType, Error, Result, Tensor};

/// The filters of a convolution, or a matrix, of i8: real weight = scale of the filter times i8. Packed once for the instruction set in use.
///
/// Filters of 3×3 keep eight more bytes for each weight from their first use by Winograd's algorithm on.
pub struct PackedWeights {
    /// `[O, C/groups, KH, KW]`
    shape: [usize; 4],
    params: Conv2dParams,
    scales: Vec<f32>,
    sums: Vec<i32>,
    /// Lanes of a vector.
    vector: usize,
    /// Filters that share panels.
    group: usize,
    packed: Packed,
    points: Option<Points>,
}

/// The order in memory.
pub(super) enum Packed {
    /// Panels of words.
    Words(Tensor),
    /// One channel a group: for each tap a whole number in f32 for each lane.
    Taps(Vec<f32>),
}

/// How the values under a kernel follow each other in memory: `count` runs of `bytes`, each filled up to whole words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) count: usize,
    bytes: usize,
    pub(super) words: usize,
    /// Whether a run is a kernel row, and not a tap.
    pub(super) is_row: bool,
}

impl Runs {
    fn new([_, channels, height, width]: [usize; 4], params: &Conv2dParams) -> Self {
        let is_row = params.groups == 1 && params.dilation[1] == 1;
        let (count, bytes) = if is_row { (height, width * channels) } else { (height * width, channels) };
        Runs { count, bytes, words: bytes.div_ceil(4), is_row }
    }

    /// Words of all runs.
    pub(super) fn depth(self) -> usize {
        self.count * self.words
    }
}

/// Products of a u8 and an i8 of which the sum stays in an i32, whatever their values.
const DEEPEST: usize = i32::MAX as usize / (255 * 128);
/// Taps of which the sum of products is exact in f32.
const EXACT_TAPS: usize = (1 << 24) / (255 * 128);

impl PackedWeights {
    /// Packs `w`, i8 `[O, C/groups, KH, KW]`, with the scale of each filter, or one for all, for convolutions with `params`.
    ///
    /// # Errors
    /// Another type or shape, scales that are not finite or of another number, groups that do not divide the filters, or more than 65 793 weights a filter, whose sum of products might
    /// not fit an i32.
    pub fn filters(w: &Tensor, scales: &[f32], params: &Conv2dParams) -> Result<Self> {
        let op = "PackedWeights::filters";
        let Ok(shape) = <[usize; 4]>::try_from(&w.shape()[..]) else {
            return Err(Error::shape(op, format!("filters must be [O, C/groups, KH, KW], found {}", w.shape())));
        };
        Self::pack(op, w, shape, scales, params)
    }

    /// Packs `w`, i8 `[N, K]`, the transposed right operand of a product, with the scale of each of its rows, or one for all.
    ///
    /// # Errors
    /// As [`filters`](Self::filters).
    pub fn matrix(w: &Tensor, scales: &[f32]) -> Result<Self> {
        let op = "PackedWeights::matrix";
        let &[rows, columns] = &w.shape()[..] else {
            return Err(Error::shape(op, format!("a matrix must be [N, K], found {}", w.shape())));
        };
        Self::pack(op, w, [rows, columns, 1, 1], scales, &Conv2dParams::default())
    }

    fn pack(op: &'static str, w: &Tensor, shape: [usize; 4], scales: &[f32], params: &Conv2dParams) -> Result<Self> {
        let [filters, channels, height, width] = shape;
        if w.dtype() != DType::I8 {
            return Err(Error::DType { op, expected: DType::I8, found: w.dtype() });
        }
        if params.groups == 0 || !filters.is_multiple_of(params.groups) {
            return Err(Error::argument(op, format!("{} groups must divide {filters} filters", params.groups)));
        }
        let depth = channels.saturating_mul(height).saturating_mul(width);
        if depth > DEEPEST {
            return Err(Error::argument(
                op,
                format!("{depth} weights a filter; at most {DEEPEST} keep sums in 32 bits"),
            ));
        }
        let scales = match *scales {
            [scale] => vec![scale; filters],
            _ if scales.len() == filters => scales.to_vec(),
            _ => return Err(Error::argument(op, format!("{} scales for {filters} filters", scales.len()))),
        };
        if let Some(bad) = scales.iter().find(|scale| !scale.is_finite()) {
            return Err(Error::argument(op, format!("scales must be finite, found {bad}")));
        }
        let w = w.contiguous();
        let values = w.as_slice::<i8>()?;
        let sum = |o: usize| values[o * depth..(o + 1) * depth].iter().map(|w| i32::from(*w)).sum();
        let sums = (0..filters).map(sum).collect();
        let vector = isa::current().lanes();
        let is_depthwise = params.groups > 1 && params.groups == filters && channels == 1 && depth <= EXACT_TAPS;
        let group = if is_depthwise { filters } else { filters / params.groups };
        let packed = Packed::Taps(Vec::new());
        let points = Points::of(&w, params);
        let mut weights = PackedWeights { shape, params: *params, scales, sums, vector, group, packed, points };
        weights.packed = match is_depthwise {
            true => Packed::Taps(weights.taps(values)),
            false => Packed::Words(weights.panels(values)?),
        };
        Ok(weights)
    }

    /// `[O, C/groups, KH, KW]`; a matrix has one tap.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// How convolutions walk their images.
    pub fn params(&self) -> &Conv2dParams {
        &self.params
    }

    /// The scale of each filter.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The sum of each filter's weights.
    pub(super) fn sums(&self) -> &[i32] {
        &self.sums
    }

    pub(super) fn packed(&self) -> &Packed {
        &self.packed
    }

    /// The filters at the points of Winograd's algorithm, where they fit it.
    pub(super) fn points(&self) -> Option<&Points> {
        self.points.as_ref()
    }

    pub(super) fn runs(&self) -> Runs {
        Runs::new(self.shape, &self.params)
    }

    /// Whether nothing is read behind the last pixel that a filter sees.
    pub(super) fn read_whole(&self) -> bool {
        match self.packed {
            Packed::Words(_) => self.runs().bytes.is_multiple_of(4),
            Packed::Taps(_) => self.shape[0].is_multiple_of(self.vector),
        }
    }

    /// Whether every filter is one tap at the place of its output.
    pub(super) fn is_pointwise(&self) -> bool {
        self.shape[2..] == [1; 2] && self.params.stride == [1; 2] && self.params.padding == [0; 2]
    }

    /// Filters of a group, and the lanes that they take: whole vectors. Depthwise filters count as one group.
    pub(super) fn group_lanes(&self) -> [usize; 2] {
        [self.group, self.group.next_multiple_of(self.vector)]
    }

    /// One value for each lane from one for each filter; 0 in lanes without a filter.
    pub(super) fn spread<T: Copy + Default>(&self, values: impl Iterator<Item = T>) -> Vec<T> {
        let [group, lanes] = self.group_lanes();
        let mut all = vec![T::default(); self.shape[0].checked_div(group).unwrap_or(0) * lanes];
        values.enumerate().for_each(|(o, value)| all[o / group * lanes + o % group] = value);
        all
    }

    /// First filter and number of filters of each vector of lanes.
    pub(super) fn vectors(&self) -> Vec<[usize; 2]> {
        let filters = |first: usize| [first, (self.group - first % self.group).min(self.vector)];
        let firsts = (0..self.shape[0]).step_by(self.group.max(1));
        firsts.flat_map(|g| (g..g + self.group).step_by(self.vector)).map(filters).collect()
    }

    /// First lane and vectors of each panel of a group.
    pub(super) fn group_panels(&self) -> Vec<(usize, usize)> {
        let [_, lanes] = self.group_lanes();
        let width = TileShape::MAX_VECTORS * self.vector;
        (0..lanes)
            .step_by(width)
            .map(|first| (first, ((lanes - first) / self.vector).min(TileShape::MAX_VECTORS)))
            .collect()
    }

    fn taps(&self, values: &[i8]) -> Vec<f32> {
        let taps = self.shape[2] * self.shape[3];
        (0..taps).flat_map(|tap| self.spread((0..self.shape[0]).map(|o| f32::from(values[o * taps + tap])))).collect()
    }

    /// Panel after panel, group after group: for each word of each run a vector or two of filters.
    fn panels(&self, values: &[i8]) -> Result<Tensor> {
        let runs = self.runs();
        let [group, lanes] = self.group_lanes();
        let depth = runs.depth();
        let mut packed = Tensor::zeros([self.params.groups, depth, lanes], DType::I32)?;
        let mut rest = packed.memory_mut::<i32>()?;
        let mut panels = Vec::new();
        for g in 0..self.params.groups {
            for (first, vectors) in self.group_panels() {
                let (panel, after) = rest.split_at_mut(vectors * self.vector * depth);
                rest = after;
                let filters = (group - first).min(vectors * self.vector);
                panels.push((g * group + first, filters, vectors * self.vector, panel));
            }
        }
        par::for_each_chunk(&mut panels, 1, |_, panel| {
            for (first, filters, width, memory) in panel {
                for lane in 0..*filters {
                    self.pack_filter(values, *first + lane, runs, memory.iter_mut().skip(lane).step_by(*width));
                }
            }
        });
        Ok(packed)
    }

    /// The words of one filter, run by run.
    fn pack_filter<'a>(&self, values: &[i8], o: usize, runs: Runs, mut to: impl Iterator<Item = &'a mut i32>) {
        let [_, channels, height, width] = self.shape;
        let taps = height * width;
        let filter = &values[o * channels * taps..];
        let value = |run: usize, place: usize| match place < runs.bytes {
            true if runs.is_row => filter[place % channels * taps + run * width + place / channels],
            true => filter[place * taps + run],
            false => 0,
        };
        for run in 0..runs.count {
            for word in 0..runs.words {
                let bytes = [0, 1, 2, 3].map(|byte| value(run, 4 * word + byte).to_le_bytes()[0]);
                if let Some(to) = to.next() {
                    *to = i32::from_le_bytes(bytes);
                }
            }
        }
    }
}
