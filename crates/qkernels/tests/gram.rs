//! Gram matrices against nested loops in f64: windows of all kinds, memory orders, subsets of places, mini-batches, threads, long sums.

mod common;

use common::{ARRANGEMENTS, arranged, values};
use qkernels::gram::{Gram, GramMatrices, Grouping, Inputs, Patches, Sources, Window, rows_of};
use qkernels::naive::gram::{Walk, products, rows};
use qkernels::{Conv2dParams, par};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Error, Result, Tensor};
use std::collections::HashSet;

/// Batch, channels, height, width; kernel, stride, padding, dilation, groups.
type Case = ([usize; 4], [usize; 2], [usize; 2], [usize; 2], [usize; 2], usize);

const CASES: [Case; 16] = [
    ([2, 5, 7, 6], [3, 3], [1, 1], [1, 1], [1, 1], 1),
    ([3, 4, 9, 8], [3, 3], [2, 2], [1, 1], [1, 1], 1),
    ([2, 6, 9, 11], [3, 3], [1, 1], [2, 2], [2, 2], 2),
    ([2, 16, 6, 5], [3, 3], [1, 1], [1, 1], [1, 1], 16),
    ([2, 37, 5, 7], [3, 3], [2, 1], [0, 1], [1, 2], 37),
    ([2, 27, 4, 5], [1, 1], [1, 1], [0, 0], [1, 1], 1),
    ([1, 9, 5, 4], [1, 1], [2, 2], [0, 0], [1, 1], 3),
    ([2, 3, 11, 9], [5, 5], [1, 1], [2, 2], [1, 1], 1),
    ([2, 18, 9, 9], [5, 5], [2, 2], [2, 2], [1, 1], 18),
    ([1, 1, 13, 12], [7, 7], [1, 1], [3, 3], [1, 1], 1),
    ([2, 8, 6, 17], [2, 3], [1, 2], [1, 0], [1, 1], 4),
    ([1, 3, 40, 30], [3, 3], [1, 1], [1, 1], [1, 1], 3),
    ([2, 20, 1, 3], [3, 3], [1, 1], [4, 2], [1, 1], 20),
    ([1, 40, 5, 5], [3, 3], [1, 1], [1, 1], [1, 1], 1),
    ([3, 12, 20, 21], [1, 3], [1, 1], [0, 1], [1, 1], 2),
    ([1, 2, 3, 700], [3, 3], [1, 1], [1, 1], [1, 1], 2),
];

fn inputs(case: &Case, grouping: Grouping, patches: Patches) -> Inputs {
    let (shape, kernel, stride, padding, dilation, groups) = *case;
    let params = Conv2dParams { stride, padding, dilation, groups, ..Default::default() };
    Inputs { window: Window::Conv2d { params, kernel }, channels: shape[1], grouping, patches }
}

fn key(index: u64) -> StreamKey {
    StreamKey { seed: 5, purpose: Purpose::Test, epoch: 2, index }
}

/// Checks each sum against `Σ a_i b_j` and the rounding errors that f32 may make of `Σ |a_i b_j|`.
#[track_caller]
fn assert_sums(found: &[f64], a: &[Vec<f64>], b: &[Vec<f64>]) {
    let magnitude =
        |rows: &[Vec<f64>]| rows.iter().map(|row| row.iter().map(|x| x.abs()).collect()).collect::<Vec<Vec<f64>>>();
    let (expected, bound) = (products(a, b), products(&magnitude(a), &magnitude(b)));
    assert_eq!(found.len(), expected.len());
    let unit = f64::from(f32::EPSILON) * (a.len().min(1024) as f64 + 1.0);
    for (i, ((found, expected), bound)) in found.iter().zip(&expected).zip(bound).enumerate() {
        assert!((found - expected).abs() <= unit * bound, "sum {i}: {found} instead of {expected}");
    }
}

/// Checks everything that is known of the blocks against the rows of `X~` and of `X`.
#[track_caller]
fn assert_matrices(found: &GramMatrices, quantized: &[Vec<Vec<f64>>], analog: &[Vec<Vec<f64>>]) {
    assert_eq!(found.blocks(), quantized.len());
    for (block, (x, y)) in quantized.iter().zip(analog).enumerate() {
        let size = x[0].len();
        assert_eq!((found.size(), found.rows()), (size, x.len() as u64));
        assert_sums(found.h(block), x, x);
        assert_sums(found.c(block), x, y);
        for (i, j) in (0..size).flat_map(|i| (0..i).map(move |j| (i, j))) {
            assert_eq!(found.h(block)[i * size + j], found.h(block)[j * size + i]);
        }
        // A column of ones on the left gives sums.
        let ones: Vec<Vec<f64>> = vec![vec![1.0; size]; x.len()];
        assert_sums(&found.quantized_sums(block).repeat(size), &ones, x);
        assert_sums(&found.analog_sums(block).repeat(size), &ones, y);
        let diagonal: Vec<f64> = products(y, y).into_iter().step_by(size + 1).collect();
        for (found, expected) in found.analog_squares(block).iter().zip(diagonal) {
            assert!((found - expected).abs() <= 1e-4 * expected, "{found} instead of {expected}");
        }
    }
}

fn check(case: &Case, grouping: Grouping, patches: Patches, sources: Sources) -> Result<()> {
    let inputs = inputs(case, grouping, patches);
    let x = values(&case.0, 3, 1.0);
    let y = values(&case.0, 1000, 2.0);
    let (_, kernel, ..) = *case;
    let Window::Conv2d { params, .. } = inputs.window else { unreachable!("these cases are convolutions") };
    let out = [0, 1].map(|i| {
        (case.0[2 + i] + 2 * params.padding[i] - params.dilation[i] * (kernel[i] - 1) - 1) / params.stride[i] + 1
    });
    let taken: HashSet<(usize, usize)> = (0..case.0[0])
        .flat_map(|n| patches.of_image(n as u64, (out[0] * out[1]) as u32).into_iter().map(move |p| (n, p as usize)))
        .collect();
    let walk = Walk { params, kernel, blocks: inputs.blocks(), counts: &|n, place| taken.contains(&(n, place)) };
    let (quantized, analog) = (rows(&x, &walk)?, rows(&y, &walk)?);
    for how in 0..ARRANGEMENTS {
        let mut gram = Gram::new(inputs, sources)?;
        let other = arranged(&y, how + 1);
        gram.add(&arranged(&x, how), (sources == Sources::Two).then_some(&other))?;
        assert_eq!(gram.rows(), quantized[0].len() as u64);
        let found = gram.finish()?;
        assert_eq!(found.is_of_two(), sources == Sources::Two);
        assert_matrices(&found, &quantized, if sources == Sources::Two { &analog } else { &quantized });
    }
    // The rows themselves are those of the loops, to the bit.
    let found = rows_of(&inputs, &x)?;
    let expected: Vec<f32> = (0..quantized[0].len())
        .flat_map(|row| quantized.iter().flat_map(move |block| block[row].iter().map(|x| *x as f32)))
        .collect();
    assert_eq!(found.shape(), [quantized[0].len(), inputs.blocks() * inputs.size()]);
    assert_eq!(found.to_vec::<f32>()?, expected);
    Ok(())
}

#[test]
fn convolutions_are_those_of_the_loops() -> Result<()> {
    for case in &CASES {
        for grouping in [Grouping::WholeFilter, Grouping::PerChannel] {
            for sources in [Sources::One, Sources::Two] {
                check(case, grouping, Patches::All, sources)?;
            }
        }
    }
    Ok(())
}

#[test]
fn subsets_of_places_are_those_of_the_loops() -> Result<()> {
    for case in &CASES {
        for grouping in [Grouping::WholeFilter, Grouping::PerChannel] {
            for share in [0.3, 0.9] {
                check(case, grouping, Patches::Share { share, key: key(7) }, Sources::Two)?;
            }
        }
    }
    Ok(())
}

#[test]
fn dense_layers_are_those_of_the_loops() -> Result<()> {
    for (samples, features) in [(1, 1), (7, 3), (1030, 40), (70, 600)] {
        let x = values(&[samples, features], 1, 1.0);
        let y = values(&[samples, features], 77, 1.0);
        let of = |x: &Tensor| -> Result<Vec<Vec<f64>>> {
            let values = x.to_dtype(DType::F64)?.to_vec::<f64>()?;
            Ok(values.chunks(features).map(<[f64]>::to_vec).collect())
        };
        let (quantized, analog) = ([of(&x)?], [of(&y)?]);
        for how in 0..ARRANGEMENTS {
            let (x, y) = (arranged(&x, how), arranged(&y, how + 2));
            let mut one = Gram::new(Inputs::dense(features), Sources::One)?;
            one.add(&x, None)?;
            assert_matrices(&one.finish()?, &quantized, &quantized);
            let mut two = Gram::new(Inputs::dense(features), Sources::Two)?;
            two.add(&x, Some(&y))?;
            assert_matrices(&two.finish()?, &quantized, &analog);
            assert_eq!(rows_of(&Inputs::dense(features), &x)?.to_vec::<f32>()?, x.to_vec::<f32>()?);
        }
    }
    Ok(())
}

/// All that is known, bit by bit.
fn bits(gram: &GramMatrices) -> Vec<u64> {
    let of_block = |block| {
        let sums = [gram.quantized_sums(block), gram.analog_sums(block), gram.analog_squares(block)];
        [&[gram.h(block), gram.c(block)][..], &sums].concat().concat()
    };
    (0..gram.blocks()).flat_map(of_block).map(f64::to_bits).collect()
}

/// The sums of images added in mini-batches of that size.
fn in_batches(inputs: Inputs, [x, y]: [&Tensor; 2], size: usize) -> Result<GramMatrices> {
    let mut gram = Gram::new(inputs, Sources::Two)?;
    for start in (0..x.shape()[0]).step_by(size) {
        let range = start..(start + size).min(x.shape()[0]);
        gram.add(&x.slice(0, range.clone())?, Some(&y.slice(0, range)?))?;
    }
    gram.finish()
}

#[test]
fn mini_batches_and_threads_change_nothing() -> Result<()> {
    let share = Patches::Share { share: 0.4, key: key(0) };
    for (channels, grouping, patches) in [
        (20, Grouping::WholeFilter, Patches::All),
        (20, Grouping::WholeFilter, share),
        (40, Grouping::PerChannel, Patches::All),
        (19, Grouping::PerChannel, share),
    ] {
        let case = ([12, channels, 40, 30], [3, 3], [1, 1], [1, 1], [1, 1], 1);
        let (x, y) = (values(&case.0, 9, 1.0).to_channels_last(), values(&case.0, 2, 1.0).to_channels_last());
        let inputs = inputs(&case, grouping, patches);
        let whole = in_batches(inputs, [&x, &y], 12)?;
        let parts = in_batches(inputs, [&x, &y], 5)?;
        assert_eq!(whole.rows(), parts.rows());
        let (found, expected) = (bits(&parts), bits(&whole));
        if grouping == Grouping::WholeFilter {
            // Sums of squares and of columns are taken tile by tile too.
            assert!(found == expected, "another cut into mini-batches gives other bits");
        }
        let scale = 1e-6 * whole.rows() as f64;
        for (a, b) in found.iter().zip(&expected) {
            assert!((f64::from_bits(*a) - f64::from_bits(*b)).abs() < scale);
        }
        for threads in 1..=4 {
            let again = par::with_threads(threads, || in_batches(inputs, [&x, &y], 12).map(|gram| bits(&gram)))??;
            assert!(again == expected, "{threads} threads give other bits");
        }
    }
    Ok(())
}

#[test]
fn long_sums_of_positive_values_keep_their_digits() -> Result<()> {
    const BATCHES: usize = 64;
    let case = ([16, 16, 32, 32], [3, 3], [1, 1], [1, 1], [1, 1], 1);
    let x = Stream::new(key(1)).uniform_tensor([16, 16, 32, 32], 0.0, 1.0)?.to_channels_last();
    for grouping in [Grouping::PerChannel, Grouping::WholeFilter] {
        let inputs = inputs(&case, grouping, Patches::All);
        let mut gram = Gram::new(inputs, Sources::One)?;
        (0..BATCHES).try_for_each(|_| gram.add(&x, None))?;
        assert_eq!(gram.rows(), 1 << 20);
        let found = gram.finish()?;
        let one = rows_of(&inputs, &x)?.to_dtype(DType::F64)?;
        let exact = qkernels::matmul(&one.t()?, &one)?;
        for block in 0..found.blocks() {
            for (i, j) in (0..found.size()).flat_map(|i| (0..found.size()).map(move |j| (i, j))) {
                let first = block * found.size();
                let expected = exact.get::<f64>(&[first + i, first + j])? * BATCHES as f64;
                let error = (found.h(block)[i * found.size() + j] - expected).abs() / expected;
                assert!(error < 1e-6, "block {block}, element {i}, {j}: relative error {error:e}");
            }
        }
    }
    Ok(())
}

#[test]
fn places_are_drawn_without_replacement_for_each_image() {
    let patches = Patches::Share { share: 0.25, key: key(3) };
    let draws: Vec<Vec<u32>> = (0..200).map(|image| patches.of_image(image, 100)).collect();
    let mut counts = [0; 100];
    for draw in &draws {
        assert_eq!(draw.len(), 25);
        assert!(draw.is_sorted_by(|a, b| a < b) && draw.iter().all(|place| *place < 100));
        draw.iter().for_each(|place| counts[*place as usize] += 1);
    }
    // 50 are expected; the standard deviation is about 6.
    assert!(counts.iter().all(|count| (20..80).contains(count)), "{counts:?}");
    assert!(draws.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(draws[5], Patches::Share { share: 0.25, key: key(8) }.of_image(0, 100));
    assert_eq!(Patches::Share { share: 1e-9, key: key(3) }.of_image(0, 100).len(), 1);
    assert_eq!(Patches::All.of_image(9, 4), [0, 1, 2, 3]);
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let conv =
        |groups: usize, kernel: [usize; 2]| Inputs::conv2d(6, kernel, Conv2dParams { groups, ..Default::default() });
    let share = |share| Inputs { patches: Patches::Share { share, key: key(0) }, ..conv(1, [3, 3]) };
    let huge = Inputs::dense(usize::MAX / 3);
    for wrong in [
        Inputs::dense(0),
        conv(4, [3, 3]),
        conv(0, [3, 3]),
        conv(1, [0, 3]),
        share(0.0),
        share(1.5),
        share(f64::NAN),
        huge,
    ] {
        assert!(Gram::new(wrong, Sources::One).is_err(), "{wrong:?}");
        assert!(Gram::bytes(&wrong, Sources::Two).is_err(), "{wrong:?}");
    }
    let mut gram = Gram::new(conv(1, [3, 3]), Sources::Two)?;
    let images = |shape: [usize; 4]| Tensor::zeros(shape, DType::F32);
    assert!(matches!(gram.add(&images([1, 5, 8, 8])?, None), Err(Error::Shape { .. })));
    assert!(gram.add(&images([1, 6, 2, 8])?, None).is_err());
    assert!(gram.add(&images([1, 6, 8, 8])?, Some(&images([1, 6, 8, 9])?)).is_err());
    assert!(gram.add(&Tensor::zeros([1, 6, 8, 8], DType::F64)?, None).is_err());
    assert!(gram.add(&images([1, 6, 8, 8])?, Some(&Tensor::zeros([1, 6, 8, 8], DType::BF16)?)).is_err());
    gram.add(&images([0, 6, 8, 8])?, None)?;
    assert_eq!(gram.rows(), 0);
    assert!(gram.finish()?.c(0).iter().all(|x| *x == 0.0));
    let mut one = Gram::new(Inputs::dense(3), Sources::One)?;
    let x = Tensor::zeros([2, 3], DType::F32)?;
    assert!(one.add(&x, Some(&x)).is_err());
    Ok(())
}

#[test]
fn the_bytes_are_those_of_the_matrices_and_of_some_tiles() -> Result<()> {
    for (inputs, size, slack) in
        [(Inputs::conv2d(128, [3, 3], Conv2dParams::default()), 1152, 2.5), (Inputs::dense(16384), 16384, 0.2)]
    {
        let matrix = (size * size * size_of::<f64>()) as f64;
        for (sources, matrices) in [(Sources::One, matrix), (Sources::Two, 2.0 * matrix)] {
            let bytes = Gram::bytes(&inputs, sources)? as f64;
            assert!(bytes >= matrices && bytes <= matrices + slack * matrix, "{bytes} for {matrices} of {inputs:?}");
        }
    }
    Ok(())
}
