//! Convolutions and products: the public fronts, and the driver that cuts them into bands of output pixels and panels of filters.

use super::depthwise::Depthwise;
use super::ending::Ending;
use super::operands::Operands;
use super::stage::{Band, Steps, rows_collide, span, stage};
use super::tile::{self, Run, Target, Tile, TileShape};
use super::weights::{Packed, PackedWeights};
use super::winograd;
use crate::conv::{Geometry, even_piece};
use crate::isa::{self, Isa, Kernel};
use crate::par;
use qtensor::{Error, Result, Tensor};
use std::ops::Range;

/// The convolution of a quantized layer: `[N, O, OH, OW]`, channels-last, with the arithmetic of [this module](super).
///
/// # Errors
/// Shapes, element types or scales that do not fit; padding or dilation of which a row of the padded image would not fit memory.
pub fn conv2d(operands: &Operands) -> Result<Tensor> {
    run("i8::conv2d", operands, operands.x)
}

/// The product `x wᵀ` of a quantized layer, `[M, N]` from `x` `[M, K]`, with the arithmetic of [this module](super).
///
/// # Errors
/// Shapes, element types or scales that do not fit; weights that are filters of a convolution.
pub fn matmul(operands: &Operands) -> Result<Tensor> {
    let op = "i8::matmul";
    let weights = operands.weights;
    let &[rows, depth] = &operands.x.shape()[..] else {
        return Err(Error::shape(op, format!("x must be [M, K], found {}", operands.x.shape())));
    };
    let [columns, expected, ..] = weights.shape();
    if !weights.is_pointwise() || weights.params().groups != 1 || depth != expected {
        return Err(Error::shape(op, format!("x {rows}×{depth} and weights {:?}", weights.shape())));
    }
    let image = |x: &Tensor| x.reshape([x.shape()[0], x.shape()[1], 1, 1]);
    let x = image(operands.x)?;
    let residual = match operands.residual {
        Some((r, _)) if r.rank() != 2 => {
            return Err(Error::shape(op, format!("a residual of {} for a matrix {rows}×{columns}", r.shape())));
        }
        Some((r, quantization)) => Some((image(r)?, quantization)),
        None => None,
    };
    let residual = residual.as_ref().map(|(r, quantization)| (r, *quantization));
    run(op, &Operands { residual, ..*operands }, &x)?.reshape([rows, columns])
}

fn run(op: &'static str, operands: &Operands, x: &Tensor) -> Result<Tensor> {
    let weights = operands.weights;
    let whole = Geometry::new(op, x.shape(), &weights.shape(), weights.params())?;
    operands.check(op, &whole.output_shape())?;
    let mut out = Tensor::empty_channels_last(whole.output_shape(), operands.output.dtype())?;
    if out.numel() == 0 {
        return Ok(out);
    }
    let line = span(&whole, 0, 1).saturating_mul(span(&whole, 1, whole.out[1])).saturating_mul(whole.channels);
    if line > LONGEST_LINE.max(x.numel().saturating_mul(4)) {
        return Err(Error::shape(
            op,
            format!("images {} with {:?} are almost all padding", x.shape(), weights.params()),
        ));
    }
    // A pixel of a 1×1 convolution is a row of a matrix, whichever image it belongs to.
    let g = match weights.is_pointwise() {
        true => {
            let pixels = [whole.batch * whole.input[0] * whole.input[1], 1];
            Geometry { batch: 1, input: pixels, out: pixels, ..whole }
        }
        false => whole,
    };
    let x = x.to_channels_last();
    let residual = operands.residual.map(|(r, _)| r.to_channels_last());
    let ending = Ending::new(operands, residual.as_ref(), &mut out)?;
    let (images, zero_point) = (x.memory()?, operands.input.zero_point);
    if !winograd::run(&g, weights, images, zero_point, &ending)? {
        Convolution { g, weights, images, zero_point, ending }.run()?;
    }
    Ok(out)
}

/// Bytes of the padded input rows of one output row that are always accepted.
const LONGEST_LINE: usize = 64 << 20;

/// A convolution whose operands were checked.
struct Convolution<'a> {
    g: Geometry,
    weights: &'a PackedWeights,
    /// Channels-last.
    images: &'a [u8],
    zero_point: u8,
    ending: Ending<'a>,
}

/// Output pixels of a band at most: their inputs are read again for every panel.
const BAND_PIXELS: usize = 768;
/// Output pixels of a band at least, so that a panel is used for some tiles.
const FEW_PIXELS: usize = 96;
/// Bytes of a band's inputs: a part of a second-level cache.
const BAND_BYTES: usize = 192 << 10;
/// Tasks that keep a few threads evenly busy.
const TASKS: usize = 24;

/// Sizes of the pieces that a convolution is cut into.
struct Blocks {
    images: usize,
    rows: usize,
    /// Panels of each group.
    panels: usize,
}

impl Blocks {
    fn new(g: &Geometry, panels: usize) -> Self {
        let [height, width] = g.out;
        let bands = |pixels: usize| {
            let bytes = |rows: usize| span(g, 0, rows).saturating_mul(span(g, 1, width)) * g.channels.max(1);
            let mut rows = even_piece(height, pixels / width);
            // Without a second axis rows are pixels, of which a whole number of tiles is best, and some for panels that no cache holds.
            let fewest = if width == 1 { FEW_PIXELS / 2 } else { 1 };
            while rows > fewest && bytes(rows) > BAND_BYTES {
                rows = rows.div_ceil(2).max(fewest);
            }
            if width == 1 {
                rows = rows.next_multiple_of(TileShape::MAX_ROWS);
            }
            let together = (pixels / (height * width)).min(BAND_BYTES / bytes(height)).max(1);
            let images = if rows >= height { even_piece(g.batch, together) } else { 1 };
            (images, rows.min(height))
        };
        let count = |(images, rows): (usize, usize)| g.batch.div_ceil(images) * height.div_ceil(rows);
        let mut pixels = BAND_PIXELS;
        while pixels > FEW_PIXELS && count(bands(pixels)) < TASKS {
            pixels /= 2;
        }
        let (images, rows) = bands(pixels);
        let mut share = panels;
        while share > 2 && count((images, rows)) * panels.div_ceil(share) < TASKS {
            share = share.div_ceil(2);
        }
        Blocks { images, rows, panels: share }
    }
}

impl Convolution<'_> {
    fn run(&self) -> Result<()> {
        let g = &self.g;
        let panels = self.weights.group_panels();
        let blocks = Blocks::new(g, panels.len());
        let row_bands = g.out[0].div_ceil(blocks.rows);
        let shares = panels.len().div_ceil(blocks.panels);
        let is_direct = g.padding == [0; 2] && self.weights.read_whole() && !rows_collide(g);
        par::map(g.batch.div_ceil(blocks.images) * row_bands * shares, |task| {
            let (band, share) = (task / shares, task % shares * blocks.panels);
            let (image, row) = (band / row_bands * blocks.images, band % row_bands * blocks.rows);
            let band = Band {
                images: image..(image + blocks.images).min(g.batch),
                rows: row..(row + blocks.rows).min(g.out[0]),
            };
            let staged = if is_direct { None } else { Some(stage(g, self.images, &band, self.zero_point)?) };
            let (source, steps) = match &staged {
                Some(staged) => (staged.memory::<u8>()?, Steps::of_band(g, band.rows.len())),
                None => {
                    let steps = Steps::of_input(g);
                    (&self.images[band.images.start * steps.image + row * g.stride[0] * steps.row..], steps)
                }
            };
            let panels = &panels[share..(share + blocks.panels).min(panels.len())];
            isa::dispatch(Task { work: self, panels, source, steps, band });
            Ok(())
        })
        .into_iter()
        .collect()
    }
}

/// A band of output pixels by some panels of every group.
struct Task<'a> {
    work: &'a Convolution<'a>,
    panels: &'a [(usize, usize)],
    /// What the first output of the band sees, and what follows.
    source: &'a [u8],
    steps: Steps,
    band: Band,
}

impl Kernel for Task<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Convolution { g, weights, ending, .. } = self.work;
        let (places, pixels) = self.places();
        let [_, lanes] = weights.group_lanes();
        let runs = weights.runs();
        let packed = match weights.packed() {
            Packed::Words(packed) => packed.memory::<i32>().expect("packed words"),
            Packed::Taps(taps) => {
                let (runs, source, panels) = (&self.runs(0)[..], self.source, self.panels);
                let (places, pixels) = (&places[..], &pixels[..]);
                // Where the pixels under three neighbouring taps are those of neighbouring outputs.
                let near = g.kernel[1] == 3 && g.stride[1] == 1 && g.dilation[1] == 1;
                let near = near.then_some(g.channels);
                return isa.outline(Depthwise { ending, taps, lanes, panels, source, runs, places, pixels, near });
            }
        };
        for group in 0..g.groups {
            let runs_here = self.runs(group);
            for &(first, vectors) in self.panels {
                let lane = group * lanes + first;
                let panel = packed[lane * runs.depth()..].as_ptr();
                let tallest = TileShape::for_rows::<I>(vectors, usize::MAX).rows;
                for range in strips(places.len(), tallest) {
                    let shape = TileShape::for_rows::<I>(vectors, range.len());
                    let mut rows = [self.source.as_ptr(); TileShape::MAX_ROWS];
                    for (i, row) in rows[..shape.rows].iter_mut().enumerate() {
                        *row = row.wrapping_add(places[range.start + i.min(range.len() - 1)]);
                    }
                    let tile = Tile {
                        rows: &rows[..shape.rows],
                        runs: &runs_here,
                        panel,
                        wanted: range.len(),
                        target: Target::Pixels(ending, &pixels[range], lane),
                    };
                    // SAFETY: the source holds all that the kernel sees from these places, with whole words at the end of each run; the panel was packed for these runs, and
                    // no other task writes these pixels and lanes.
                    unsafe { tile::run::<I, false>(isa, shape, &tile) };
                }
            }
        }
    }
}

impl Task<'_> {
    /// For each output of the band where its kernel begins in the source, and its number among all pixels of the output.
    #[inline(always)]
    fn places(&self) -> (Vec<usize>, Vec<usize>) {
        let g = &self.work.g;
        let Band { images, rows } = &self.band;
        let count = images.len() * rows.len() * g.out[1];
        let (mut places, mut pixels) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for image in 0..images.len() {
            for row in 0..rows.len() {
                let place = image * self.steps.image + row * g.stride[0] * self.steps.row;
                let pixel = ((images.start + image) * g.out[0] + rows.start + row) * g.out[1];
                places.extend((0..g.out[1]).map(|column| place + column * g.stride[1] * self.steps.pixel));
                pixels.extend(pixel..pixel + g.out[1]);
            }
        }
        (places, pixels)
    }

    /// The runs under a kernel, for a group.
    #[inline(always)]
    fn runs(&self, group: usize) -> Vec<Run> {
        let g = &self.work.g;
        let runs = self.work.weights.runs();
        let columns = if runs.is_row { 1 } else { g.kernel[1] };
        let run = |index: usize| {
            let (row, column) = (index / columns * g.dilation[0], index % columns * g.dilation[1]);
            let offset = row * self.steps.row + column * self.steps.pixel + group * (g.channels / g.groups);
            Run { offset, words: runs.words }
        };
        (0..runs.count).map(run).collect()
    }
}

/// Cuts `rows` into strips for tiles of at most `tallest`; two last ones of about the same height where one would be low.
pub(super) fn strips(rows: usize, tallest: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = rows - start;
        let low = left > tallest && left < tallest + tallest.div_ceil(3);
        let length = if low { left.div_ceil(2) } else { left.min(tallest) };
        start += length;
        (length > 0).then_some(start - length..start)
    })
}
