//! Updates of many parameters as one pass over all of them: most parameters of a network are too small to share among threads.

use super::rules::{Doubles, Rule, Vectorised};
use crate::elementwise::operands::{aligned, dense, same};
use crate::elementwise::sweep::sweep_here;
use crate::par;
use qtensor::{DType, Element, Result, Tensor};

/// Values that one task updates.
const TASK: usize = 32 * 1024;

/// Updates that wait for their common pass. Dropped without [`run`](Self::run), they change nothing.
#[derive(Default)]
pub struct Updates<'a> {
    pieces: Vec<Piece<'a>>,
}

/// A part of one update.
struct Piece<'a> {
    length: usize,
    work: Box<dyn FnOnce() + Send + 'a>,
}

impl<'a> Updates<'a> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs all of them.
    pub fn run(self) {
        let mut tasks: Vec<Vec<Piece<'a>>> = Vec::new();
        let mut free = 0;
        for piece in self.pieces {
            match tasks.last_mut() {
                Some(task) if piece.length <= free => {
                    free -= piece.length;
                    task.push(piece);
                }
                _ => {
                    free = TASK.saturating_sub(piece.length);
                    tasks.push(vec![piece]);
                }
            }
        }
        par::for_each_chunk(&mut tasks, 1, |_, tasks| {
            tasks.iter_mut().flat_map(std::mem::take).for_each(|piece| (piece.work)());
        });
    }

    /// Adds the update of a parameter and its state, after the checks that all updates share.
    pub(super) fn add<R: Rule<W> + 'a, const W: usize>(
        &mut self,
        op: &'static str,
        gradient: &Tensor,
        mut state: [&'a mut Tensor; W],
        rule: R,
    ) -> Result<()> {
        for t in &state {
            same(op, gradient, t)?;
        }
        let first = dense(state[0]);
        for t in &mut state {
            **t = aligned(t, &first)?;
        }
        let gradient = aligned(gradient, &first)?;
        drop(first);
        match gradient.dtype() {
            DType::F32 => self.cut(&gradient, memories(state)?, move |gradient: &[f32], writes| {
                sweep_here(Vectorised(rule), [gradient], [], writes);
            }),
            _ => self.cut(&gradient, memories(state)?, move |gradient: &[f64], mut writes: [&mut [f64]; W]| {
                for (i, g) in gradient.iter().enumerate() {
                    let mut values = [0.0; W];
                    values.iter_mut().zip(&writes).for_each(|(v, w)| *v = w[i]);
                    rule.apply(Doubles, *g, &mut values);
                    writes.iter_mut().zip(values).for_each(|(w, v)| w[i] = v);
                }
            }),
        }
    }

    /// Cuts an update into pieces of at most one task.
    fn cut<T: Element, const W: usize>(
        &mut self,
        gradient: &Tensor,
        mut rest: [&'a mut [T]; W],
        update: impl Fn(&[T], [&mut [T]; W]) + Copy + Send + 'a,
    ) -> Result<()> {
        let all = gradient.memory::<T>()?.len();
        for start in (0..all).step_by(TASK) {
            let length = TASK.min(all - start);
            let mut writes: [&'a mut [T]; W] = std::array::from_fn(|_| <&mut [T]>::default());
            for (rest, taken) in rest.iter_mut().zip(&mut writes) {
                (*taken, *rest) = std::mem::take(rest).split_at_mut(length);
            }
            let gradient = gradient.clone();
            let work = Box::new(move || {
                // The type was looked at above.
                if let Ok(values) = gradient.memory::<T>() {
                    update(&values[start..start + length], writes);
                }
            });
            self.pieces.push(Piece { length, work });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Updates<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values: usize = self.pieces.iter().map(|piece| piece.length).sum();
        write!(f, "Updates({values} values)")
    }
}

fn memories<'a, T: Element, const W: usize>(state: [&'a mut Tensor; W]) -> Result<[&'a mut [T]; W]> {
    let mut slices: [&'a mut [T]; W] = std::array::from_fn(|_| <&mut [T]>::default());
    for (slice, t) in slices.iter_mut().zip(state) {
        *slice = t.memory_mut()?;
    }
    Ok(slices)
}
