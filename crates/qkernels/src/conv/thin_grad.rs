//! The input gradient of a convolution whose input has few channels, such as an image: kernel columns share the lanes of a vector with the channels.
//!
//! The plain correlation would fill a vector with three channels. Here a pixel of the output gradient is multiplied with all kernel columns and channels at once,
//! summed over filters and kernel rows; then every input pixel collects its share from the neighbours whose windows hold it.

use super::Geometry;
use super::algorithm::even_piece;
use super::depthwise::view;
use super::plan::{AxisPhase, Plan};
use super::stage::Scratch;
use super::tile::{Finish, Place, Run, Strip, strip};
use crate::isa::{self, Isa, Kernel};
use crate::layout::channels_innermost;
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// Vectors for all kernel columns of all channels, at most.
pub(super) const MOST_VECTORS: usize = 3;
/// Multiply-adds of a task: enough to outweigh its start.
const TASK: usize = 4 << 20;

/// The gradient with respect to the input, channels-last. The convolution has one group, and its kernel columns and channels fit [`MOST_VECTORS`].
///
/// # Errors
/// A size overflows.
pub(super) fn input_grad(dy: &Tensor, w: &Tensor, g: &Geometry) -> Result<Tensor> {
    let dy = channels_innermost(dy)?;
    let plan = Plan::input_grad(g);
    let vector = isa::current().lanes();
    let width = (g.channels * g.kernel[1]).next_multiple_of(vector);
    let panels = pack(w, &plan, g.kernel[1], width)?;
    let mut dx = Tensor::empty_channels_last(g.input_shape(), DType::F32)?;
    let out = SharedOut::new(dx.memory_mut::<f32>()?);
    let (source, [n, _, h, step]) = view(&dy)?;
    let line = g.out[1] * g.filters * g.kernel[0] * width;
    let rows = even_piece(g.batch * g.input[0], (TASK / line.max(1)).max(1));
    let places: Vec<Place> = (0..g.out[1]).map(|j| Place { source: j * step, output: j * width }).collect();
    par::for_each((g.batch * g.input[0]).div_ceil(rows), |task| {
        isa::dispatch(Task {
            g,
            plan: &plan,
            source,
            steps: [n, h],
            panels: &panels,
            places: &places,
            width,
            rows: task * rows..((task + 1) * rows).min(g.batch * g.input[0]),
            out,
        });
    });
    Ok(dx)
}

/// For each phase of rows: for each of its taps in order, for each filter, a row of `width` lanes: kernel columns, within them channels.
fn pack(w: &Tensor, plan: &Plan, columns: usize, width: usize) -> Result<Vec<Vec<f32>>> {
    let (buffer, [o_step, c_step, h_step, w_step]) = view(w)?;
    let (filters, channels) = (plan.source_channels, plan.channels);
    let phase = |phase: &AxisPhase| {
        let mut panel = vec![0.0f32; phase.taps.len() * filters * width];
        for (i, row) in panel.chunks_exact_mut(width).enumerate() {
            let from = phase.taps[i / filters].kernel * h_step + i % filters * o_step;
            for (lane, value) in row[..columns * channels].iter_mut().enumerate() {
                *value = buffer[from + lane / channels * w_step + lane % channels * c_step];
            }
        }
        panel
    };
    Ok(plan.rows.phases.iter().map(phase).collect())
}

/// Some rows of the input gradient.
struct Task<'a> {
    g: &'a Geometry,
    plan: &'a Plan,
    source: &'a [f32],
    /// Elements of the output gradient to the next image and row.
    steps: [usize; 2],
    /// For each phase of rows.
    panels: &'a [Vec<f32>],
    /// The pixels of a row of the output gradient.
    places: &'a [Place],
    /// Lanes of all kernel columns and channels, in whole vectors.
    width: usize,
    /// Rows of all images in turn.
    rows: Range<usize>,
    out: SharedOut<f32>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Task { g, plan, width, .. } = self;
        let mut scratch = Scratch::new();
        // The last pixel may be read a vector beyond its lanes.
        let shares = scratch.take(g.out[1] * width + I::LANES);
        let mut runs = Vec::new();
        let depth = g.filters;
        for row in self.rows.clone() {
            let (n, h) = (row / g.input[0], row % g.input[0]);
            let (phase, i) = (h % plan.rows.step, h / plan.rows.step);
            let taps = &plan.rows.phases[phase].taps;
            // Taps are ordered by offset, so those inside the image are neighbours.
            let skipped = taps.iter().take_while(|tap| plan.rows.source_of(i, tap).is_none()).count();
            runs.clear();
            let inside = taps.iter().filter_map(|tap| plan.rows.source_of(i, tap));
            runs.extend(inside.map(|row| Run { offset: row * self.steps[1], length: depth }));
            let work = Strip {
                source: self.source[n * self.steps[0]..].as_ptr(),
                output: shares.as_mut_ptr(),
                places: self.places,
                runs: &runs,
                panel: self.panels[phase].as_ptr().wrapping_add(skipped * depth * width),
                lanes: width,
                resume: false,
                finish: None::<Finish>,
            };
            // SAFETY: the rows of the runs and the pixels of the places exist; the panel has a row for each filter of each tap.
            unsafe {
                match width / I::LANES {
                    1 => strip::<I, 1>(isa, &work),
                    2 => strip::<I, 2>(isa, &work),
                    _ => strip::<I, MOST_VECTORS>(isa, &work),
                }
            }
            // SAFETY: the row of the input gradient belongs to this task, and the shares hold every output pixel.
            unsafe { self.collect(isa, shares, self.out.at(row * g.input[1] * g.channels)) };
        }
    }
}

impl Task<'_> {
    /// Adds the shares of the pixels of one row.
    ///
    /// # Safety
    /// `to` must be a row of the input gradient, used by nobody else.
    #[inline(always)]
    unsafe fn collect<I: Isa>(&self, isa: I, shares: &[f32], to: *mut f32) {
        let (channels, axis) = (self.g.channels, &self.plan.columns);
        for phase in &axis.phases {
            for i in 0..phase.count {
                let to = to.wrapping_add((phase.first + i * axis.step) * channels);
                for c in (0..channels).step_by(I::LANES) {
                    let mut sum = isa.zero();
                    for tap in &phase.taps {
                        if let Some(column) = axis.source_of(i, tap) {
                            let from = &shares[column * self.width + tap.kernel * channels + c..];
                            sum = isa.add(sum, isa.load(from));
                        }
                    }
                    // SAFETY: the caller's promise.
                    unsafe { isa.store_part_at(to.wrapping_add(c), I::LANES.min(channels - c), sum) };
                }
            }
        }
    }
}
