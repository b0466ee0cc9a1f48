//! The driver of forward pass and input gradient: bands of output pixels by panels of filters.

use super::Measured;
use super::algorithm::{Blocks, even_piece};
use super::measure::Region;
use super::plan::{AxisPhase, Plan};
use super::stage::{Band, Images, Scratch, Steps, stage};
use super::tile::{Finish, Place, Run, Strip, strip};
use super::weights::{Packed, Weights};
use crate::Activation;
use crate::isa::{self, Isa, Kernel};
use crate::norm::Moments;
use crate::norm::moments::Piece;
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// A correlation and what happens to its result.
pub(super) struct Correlation<'a> {
    pub(super) plan: Plan,
    pub(super) source: Images<'a>,
    pub(super) weights: Weights<'a>,
    /// One value for each output channel.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
    /// Whether mean and variance of each channel of the result are taken.
    pub(super) is_measured: bool,
}

impl Correlation<'_> {
    /// The result, channels-last, and its statistics, if they are wanted.
    ///
    /// # Errors
    /// A size overflows.
    pub(super) fn run(&self) -> Result<Measured> {
        let plan = &self.plan;
        let blocks = Blocks::of(plan, isa::current());
        let direct = self.source.strides[1] == 1 && plan.rows.is_inside() && plan.columns.is_inside();
        let blocks = Blocks { channels: if direct { plan.source_channels } else { blocks.channels }, ..blocks };
        let packed = Packed::new(self.weights, plan, [blocks.width, blocks.vector], blocks.channels)?;
        let channels = plan.channels * plan.groups;
        let shape = [plan.batch, channels, plan.rows.output, plan.columns.output];
        let mut output = Tensor::empty_channels_last(shape, DType::F32)?;
        let out = SharedOut::new(output.memory_mut::<f32>()?);
        let row_bands = plan.rows.longest().div_ceil(blocks.rows);
        let bands = plan.batch.div_ceil(blocks.images) * row_bands;
        let lane_blocks = plan.channels.div_ceil(blocks.lanes);
        let panels = packed.buffer.memory::<f32>()?;
        let pieces = bands * lane_blocks;
        // A task takes several bands where they are small, so that its preparations and its start are not a large part of it.
        let at_once = pieces.div_ceil(MOST_TASKS);
        let measured = par::map(pieces.div_ceil(at_once), |task| {
            isa::dispatch(Tasks {
                correlation: self,
                blocks,
                packed: &packed,
                panels,
                direct,
                row_bands,
                lane_blocks,
                pieces: task * at_once..((task + 1) * at_once).min(pieces),
                out,
            })
        });
        let measured: Vec<Piece> = measured.into_iter().flatten().collect();
        let moments = self.is_measured.then(|| Moments::of_pieces(channels, &measured));
        Ok((output, moments))
    }
}

/// Tasks that keep any number of threads busy.
const MOST_TASKS: usize = 96;

/// Consecutive pieces of the output, each a band of pixels and a block of lanes.
struct Tasks<'a> {
    correlation: &'a Correlation<'a>,
    blocks: Blocks,
    packed: &'a Packed,
    panels: &'a [f32],
    direct: bool,
    row_bands: usize,
    lane_blocks: usize,
    pieces: Range<usize>,
    out: SharedOut<f32>,
}

impl Kernel for Tasks<'_> {
    type Output = Vec<Piece>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<Piece> {
        let Tasks { correlation, blocks, .. } = self;
        let plan = &correlation.plan;
        let mut scratch = Scratch::new();
        let mut prepared = Vec::new();
        let mut measured = Vec::new();
        for piece in self.pieces {
            let (band, lanes) = (piece / self.lane_blocks, piece % self.lane_blocks * blocks.lanes);
            let (images, rows) = (band / self.row_bands * blocks.images, band % self.row_bands * blocks.rows);
            let task = Task {
                correlation,
                blocks,
                packed: self.packed,
                panels: self.panels,
                direct: self.direct,
                images: images..(images + blocks.images).min(plan.batch),
                rows: rows..(rows + blocks.rows).min(plan.rows.longest()),
                lanes: lanes..(lanes + blocks.lanes).min(plan.channels),
                out: self.out,
            };
            task.run(isa, &mut scratch, &mut prepared);
            if correlation.is_measured {
                task.measure(isa, &mut measured);
            }
        }
        measured
    }
}

/// Some images, rows of all phases, and channels of every group.
struct Task<'a> {
    correlation: &'a Correlation<'a>,
    blocks: Blocks,
    packed: &'a Packed,
    panels: &'a [f32],
    direct: bool,
    images: Range<usize>,
    rows: Range<usize>,
    lanes: Range<usize>,
    out: SharedOut<f32>,
}

/// The addresses of a phase, which bands of the same size share.
struct Prepared {
    /// Phase, images, rows of the phase, rows of the band, first source channel.
    key: [usize; 5],
    places: Vec<Place>,
    chunks: Vec<Chunk>,
}

/// Values to sum, in pieces of which each keeps its part of a panel in cache.
struct Chunk {
    runs: Vec<Run>,
    /// The first row of the panel.
    row: usize,
}

impl Task<'_> {
    /// What its outputs tell of each group's channels, where the plan has one phase.
    #[inline(always)]
    fn measure<I: Isa>(&self, isa: I, pieces: &mut Vec<Piece>) {
        let plan = &self.correlation.plan;
        let [height, width] = [&plan.rows, &plan.columns].map(|axis| axis.output);
        let line = |n: usize, row: usize| (n * height + row) * width;
        let runs: Vec<_> = self.images.clone().map(|n| line(n, self.rows.start)..line(n, self.rows.end)).collect();
        for group in 0..plan.groups {
            pieces.push(isa.outline(Region {
                memory: self.out,
                runs: &runs,
                pixel: plan.channels * plan.groups,
                channels: group * plan.channels + self.lanes.start..group * plan.channels + self.lanes.end,
                first: 0,
            }));
        }
    }

    #[inline(always)]
    fn run<I: Isa>(&self, isa: I, scratch: &mut Scratch, prepared: &mut Vec<Prepared>) {
        let plan = &self.correlation.plan;
        let source = self.correlation.source;
        for group in 0..plan.groups {
            for first in (0..plan.source_channels).step_by(self.blocks.channels) {
                let depth = self.blocks.channels.min(plan.source_channels - first);
                let start = group * plan.source_channels + first;
                let band = Band {
                    images: self.images.clone(),
                    first_row: plan.rows.origin + (self.rows.start * plan.rows.source_step) as isize,
                    rows: plan.rows.span(self.rows.len()),
                    columns: plan.columns.span(plan.columns.longest()),
                    channels: start..start + depth,
                };
                let (from, steps) = if self.direct {
                    let [n, _, h, w] = source.strides;
                    let skip =
                        band.images.start * n + band.first_row as usize * h + plan.columns.origin as usize * w + start;
                    // SAFETY: the band lies in the image: the correlation never leaves it when `direct` holds.
                    (unsafe { source.start().add(skip) }, Steps { image: n, row: h, pixel: w })
                } else {
                    let (steps, size) = band.layout();
                    let staged = scratch.take(size);
                    stage(isa, source, &band, [&plan.rows, &plan.columns], staged);
                    (staged.as_ptr(), steps)
                };
                for (phase, (rows, columns)) in plan.phases().enumerate() {
                    let rows_here = self.rows.start.min(rows.count)..self.rows.end.min(rows.count);
                    let key = [phase, self.images.len(), rows_here.len(), self.rows.len(), first];
                    let known = prepared.iter().position(|p| p.key == key).unwrap_or_else(|| {
                        let places = self.places(columns, steps, rows_here.len());
                        let chunks = self.chunks([rows, columns], steps, first..first + depth);
                        prepared.push(Prepared { key, places, chunks });
                        prepared.len() - 1
                    });
                    let Prepared { places, chunks, .. } = &prepared[known];
                    let line = self.images.start * plan.rows.output + rows.first + rows_here.start * plan.rows.step;
                    let output = (line * plan.columns.output + columns.first) * plan.channels * plan.groups;
                    let block = Block { from, output, phase, group, places, chunks, first, depth };
                    // SAFETY: places and runs come from the band's own layout; tasks differ in their places or lanes.
                    unsafe { self.multiply(isa, &block) };
                }
            }
        }
    }
}

/// Everything that one phase sums over one block of source channels.
struct Block<'a> {
    from: *const f32,
    /// The first output pixel.
    output: usize,
    phase: usize,
    group: usize,
    places: &'a [Place],
    chunks: &'a [Chunk],
    /// First source channel, and how many.
    first: usize,
    depth: usize,
}

impl Task<'_> {
    /// All panels by all chunks by all places.
    ///
    /// # Safety
    /// The block's places and runs must lie in its source and in the output, and no other thread may write to these places.
    #[inline(always)]
    unsafe fn multiply<I: Isa>(&self, isa: I, block: &Block) {
        let Correlation { plan, bias, activation, .. } = self.correlation;
        let is_last = block.first + block.depth == plan.source_channels;
        let width = self.blocks.width;
        for first in self.lanes.clone().step_by(width) {
            let lanes = width.min(self.lanes.end - first);
            let vectors = lanes.div_ceil(I::LANES);
            let channel = block.group * plan.channels + first;
            let panel = &self.panels[self.packed.panel(block.phase, block.group, first)..];
            let bias = bias.map_or(std::ptr::null(), |b| b[channel..channel + lanes].as_ptr());
            for (i, chunk) in block.chunks.iter().enumerate() {
                let ends = is_last && i + 1 == block.chunks.len();
                let work = Strip {
                    source: block.from,
                    // SAFETY: the first pixel of the block has this channel.
                    output: unsafe { self.out.at(block.output + channel) },
                    places: block.places,
                    runs: &chunk.runs,
                    panel: panel[chunk.row * vectors * I::LANES..].as_ptr(),
                    lanes,
                    resume: block.first > 0 || i > 0,
                    finish: ends.then_some(Finish { bias, activation: *activation }),
                };
                // SAFETY: the caller's promise; the panel was packed for this phase with a row for each value of the runs.
                unsafe {
                    match vectors {
                        1 => strip::<I, 1>(isa, &work),
                        2 => strip::<I, 2>(isa, &work),
                        _ => strip::<I, 3>(isa, &work),
                    }
                }
            }
        }
    }

    /// The output pixels of `height` rows of a phase, from the first on.
    fn places(&self, columns: &AxisPhase, steps: Steps, height: usize) -> Vec<Place> {
        let plan = &self.correlation.plan;
        let channels = plan.channels * plan.groups;
        let mut places = Vec::with_capacity(self.images.len() * height * columns.count);
        for n in 0..self.images.len() {
            for i in 0..height {
                let source = n * steps.image + i * plan.rows.source_step * steps.row;
                let line = (n * plan.rows.output + i * plan.rows.step) * plan.columns.output;
                places.extend((0..columns.count).map(|j| Place {
                    source: source + j * plan.columns.source_step * steps.pixel,
                    output: (line + j * plan.columns.step) * channels,
                }));
            }
        }
        places
    }

    /// The values that a phase sums over some channels: at least one chunk, empty where no tap reaches the phase.
    fn chunks(&self, [rows, columns]: [&AxisPhase; 2], steps: Steps, channels: Range<usize>) -> Vec<Chunk> {
        let taps = rows.taps.len() * columns.taps.len();
        let start = taps * channels.start;
        let piece = even_piece(taps * channels.len(), self.blocks.sums);
        let mut chunks = vec![Chunk { runs: Vec::new(), row: start }];
        let mut free = piece;
        for (row, column) in rows.taps.iter().flat_map(|row| columns.taps.iter().map(move |column| (row, column))) {
            let mut run = Run { offset: row.offset * steps.row + column.offset * steps.pixel, length: channels.len() };
            while run.length > 0 {
                if free == 0 {
                    let row = start + (chunks.len() * piece);
                    chunks.push(Chunk { runs: Vec::new(), row });
                    free = piece;
                }
                let length = run.length.min(free);
                let runs = &mut chunks.last_mut().expect("never empty").runs;
                match runs.last_mut() {
                    Some(last) if last.offset + last.length == run.offset => last.length += length,
                    _ => runs.push(Run { offset: run.offset, length }),
                }
                run = Run { offset: run.offset + length, length: run.length - length };
                free -= length;
            }
        }
        chunks
    }
}
