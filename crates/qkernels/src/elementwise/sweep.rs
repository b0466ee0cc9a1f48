//! One pass over memory: several slices read, several updated, vector by vector, on all threads.

use crate::isa::{Isa, Kernel, Stored, dispatch};
use crate::par;

/// Values that one thread takes at a time: enough work to be worth waking it, few enough to stay in its cache.
const PIECE: usize = 32 * 1024;
/// Parameter vectors shorter than this are repeated, so that short rows fill vectors.
const SHORTEST_PERIOD: usize = 64;
/// Vectors in a row of the unrolled loop.
const UNROLLED: usize = 4;

/// What a pass does with each vector: `R` values read, `P` parameters that repeat along the memory, `W` values updated in place.
pub(crate) trait Sweep<const R: usize, const P: usize, const W: usize>: Copy + Send + Sync {
    /// Updates `write`, whose content is the old one.
    fn step<I: Isa>(self, isa: I, read: [I::F32; R], parameters: [I::F32; P], write: &mut [I::F32; W]);
}

/// A function of `N` values without any other effect.
pub(crate) trait Map<const N: usize>: Copy + Send + Sync {
    /// The function of each lane.
    fn of<I: Isa>(self, isa: I, x: [I::F32; N]) -> I::F32;
}

/// Writes the function of what is read.
#[derive(Clone, Copy)]
pub(crate) struct Into<M>(pub(crate) M);

impl<M: Map<N>, const N: usize> Sweep<N, 0, 1> for Into<M> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, read: [I::F32; N], _: [I::F32; 0], write: &mut [I::F32; 1]) {
        write[0] = self.0.of(isa, read);
    }
}

/// Replaces the last operand by the result.
#[derive(Clone, Copy)]
pub(crate) struct Over<M>(pub(crate) M);

impl<M: Map<1>> Sweep<0, 0, 1> for Over<M> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, _: [I::F32; 0], _: [I::F32; 0], write: &mut [I::F32; 1]) {
        write[0] = self.0.of(isa, *write);
    }
}

impl<M: Map<2>> Sweep<1, 0, 1> for Over<M> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, read: [I::F32; 1], _: [I::F32; 0], write: &mut [I::F32; 1]) {
        write[0] = self.0.of(isa, [read[0], write[0]]);
    }
}

/// The second operand is a parameter that repeats.
#[derive(Clone, Copy)]
pub(crate) struct Tiled<M>(pub(crate) M);

impl<M: Map<2>> Sweep<1, 1, 1> for Tiled<M> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, read: [I::F32; 1], [b]: [I::F32; 1], write: &mut [I::F32; 1]) {
        write[0] = self.0.of(isa, [read[0], b]);
    }
}

impl<M: Map<2>> Sweep<0, 1, 1> for Tiled<M> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, _: [I::F32; 0], [b]: [I::F32; 1], write: &mut [I::F32; 1]) {
        write[0] = self.0.of(isa, [write[0], b]);
    }
}

/// The first operand is a parameter that repeats.
#[derive(Clone, Copy)]
pub(crate) struct TiledFirst<M>(pub(crate) M);

impl<M: Map<2>> Sweep<1, 1, 1> for TiledFirst<M> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, read: [I::F32; 1], [a]: [I::F32; 1], write: &mut [I::F32; 1]) {
        write[0] = self.0.of(isa, [a, read[0]]);
    }
}

/// Runs a pass. All of `reads` and `writes` have one length; all of `parameters` have one length, their period.
pub(crate) fn sweep<S, T, const R: usize, const P: usize, const W: usize>(
    sweep: S,
    reads: [&[T]; R],
    parameters: [&[f32]; P],
    writes: [&mut [T]; W],
) where
    S: Sweep<R, P, W>,
    T: Stored,
{
    sweep_then(sweep, reads, parameters, writes, |_| ());
}

/// Runs a pass and looks at each piece of the first of `writes`, as soon as it is written. A piece holds whole periods.
pub(crate) fn sweep_then<S, T, X, const R: usize, const P: usize, const W: usize>(
    sweep: S,
    reads: [&[T]; R],
    parameters: [&[f32]; P],
    writes: [&mut [T]; W],
    look: impl Fn(&mut [T]) -> X + Sync,
) -> Vec<X>
where
    S: Sweep<R, P, W>,
    T: Stored,
    X: Send,
{
    let Some(length) = writes.first().map(|w| w.len()).filter(|length| *length > 0) else { return Vec::new() };
    let given = parameters.first().map_or(length, |p| p.len());
    if given == 0 {
        return Vec::new();
    }
    let repeats = if P == 0 { 1 } else { repeats(given).min(length.div_ceil(given)) };
    let repeated = parameters.map(|p| if repeats > 1 { p.repeat(repeats) } else { Vec::new() });
    let period = given * repeats;
    let parameters: [&[f32]; P] = std::array::from_fn(|i| if repeats > 1 { &repeated[i][..] } else { parameters[i] });
    let piece = if P == 0 { PIECE } else { period * PIECE.div_ceil(period) };
    let run = |reads: [&[T]; R], mut writes: [&mut [T]; W]| {
        dispatch(Piece { sweep, reads, parameters, period, writes: writes.each_mut().map(|w| &mut **w) });
        writes.into_iter().next().map(&look)
    };
    if length <= piece {
        return run(reads, writes).into_iter().collect();
    }
    let mut pieces: Vec<[&mut [T]; W]> = Vec::with_capacity(length.div_ceil(piece));
    let mut rest = writes;
    while !rest[0].is_empty() {
        let count = piece.min(rest[0].len());
        let mut taken = std::array::from_fn(|_| <&mut [T]>::default());
        for (rest, taken) in rest.iter_mut().zip(&mut taken) {
            (*taken, *rest) = std::mem::take(rest).split_at_mut(count);
        }
        pieces.push(taken);
    }
    let seen = par::map_chunks(&mut pieces, 1, |i, parts| {
        let [writes] = parts else { return None };
        let range = i * piece..i * piece + writes[0].len();
        run(reads.map(|r| &r[range.clone()]), writes.each_mut().map(|w| &mut **w))
    });
    seen.into_iter().flatten().collect()
}

/// A pass over slices that are one thread's share of the work. All of `parameters` have one length, their period, which must fill vectors to be fast.
pub(crate) fn sweep_here<S, T, const R: usize, const P: usize, const W: usize>(
    sweep: S,
    reads: [&[T]; R],
    parameters: [&[f32]; P],
    writes: [&mut [T]; W],
) where
    S: Sweep<R, P, W>,
    T: Stored,
{
    let length = writes.first().map_or(0, |w| w.len());
    let period = parameters.first().map_or(length, |p| p.len());
    if period > 0 {
        dispatch(Piece { sweep, reads, parameters, period, writes });
    }
}

/// How often a period is repeated so that it fills whole vectors of any instruction set.
pub(crate) fn repeats(period: usize) -> usize {
    const LANES: usize = 16;
    if period == 0 || period > LANES * SHORTEST_PERIOD {
        return 1;
    }
    let mut repeats = (LANES >> period.trailing_zeros().min(LANES.trailing_zeros())).max(1);
    while repeats * period < SHORTEST_PERIOD {
        repeats *= 2;
    }
    repeats
}

struct Piece<'a, S, T, const R: usize, const P: usize, const W: usize> {
    sweep: S,
    reads: [&'a [T]; R],
    parameters: [&'a [f32]; P],
    period: usize,
    writes: [&'a mut [T]; W],
}

impl<S: Sweep<R, P, W>, T: Stored, const R: usize, const P: usize, const W: usize> Kernel for Piece<'_, S, T, R, P, W> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let length = self.writes[0].len();
        let mut row = 0;
        while row < length {
            let end = length.min(row + self.period);
            let mut at = row;
            while at + UNROLLED * I::LANES <= end {
                self.block::<I, UNROLLED>(isa, at, at - row);
                at += UNROLLED * I::LANES;
            }
            while at + I::LANES <= end {
                self.block::<I, 1>(isa, at, at - row);
                at += I::LANES;
            }
            if at < end {
                let (mut read, mut parameters, mut write) = ([isa.zero(); R], [isa.zero(); P], [isa.zero(); W]);
                for (x, from) in read.iter_mut().zip(&self.reads) {
                    *x = T::load_part(isa, &from[at..end]);
                }
                for (x, from) in parameters.iter_mut().zip(&self.parameters) {
                    *x = isa.load_part(&from[at - row..end - row]);
                }
                for (x, from) in write.iter_mut().zip(&self.writes) {
                    *x = T::load_part(isa, &from[at..end]);
                }
                self.sweep.step(isa, read, parameters, &mut write);
                for (x, to) in write.into_iter().zip(self.writes.iter_mut()) {
                    T::store_part(isa, &mut to[at..end], x);
                }
            }
            row = end;
        }
    }
}

impl<S: Sweep<R, P, W>, T: Stored, const R: usize, const P: usize, const W: usize> Piece<'_, S, T, R, P, W> {
    /// `V` vectors from `at`, whose parameters start at `place`: the bounds are looked at once for all of them.
    #[inline(always)]
    fn block<I: Isa, const V: usize>(&mut self, isa: I, at: usize, place: usize) {
        let (mut reads, mut parameters): ([&[T]; R], [&[f32]; P]) = ([&[]; R], [&[]; P]);
        for (to, from) in reads.iter_mut().zip(&self.reads) {
            *to = &from[at..at + V * I::LANES];
        }
        for (to, from) in parameters.iter_mut().zip(&self.parameters) {
            *to = &from[place..place + V * I::LANES];
        }
        let mut writes: [&mut [T]; W] = std::array::from_fn(|_| Default::default());
        for (to, from) in writes.iter_mut().zip(&mut self.writes) {
            *to = &mut from[at..at + V * I::LANES];
        }
        for v in 0..V {
            let (mut read, mut parameter, mut write) = ([isa.zero(); R], [isa.zero(); P], [isa.zero(); W]);
            for (x, from) in read.iter_mut().zip(&reads) {
                *x = T::load(isa, &from[v * I::LANES..]);
            }
            for (x, from) in parameter.iter_mut().zip(&parameters) {
                *x = isa.load(&from[v * I::LANES..]);
            }
            for (x, from) in write.iter_mut().zip(&writes) {
                *x = T::load(isa, &from[v * I::LANES..]);
            }
            self.sweep.step(isa, read, parameter, &mut write);
            for (x, to) in write.into_iter().zip(writes.iter_mut()) {
                T::store(isa, &mut to[v * I::LANES..], x);
            }
        }
    }
}
