//! Matrix products against the definition in f64: shapes at the edges of the tiles, strides of every kind, epilogues, threads.

use proptest::prelude::*;
use qkernels::{Activation, Gemm, matmul, naive, par};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

fn random(seed: u64, shape: [usize; 2]) -> Result<Tensor> {
    Stream::new(StreamKey { seed, purpose: Purpose::Test, epoch: 0, index: 0 }).uniform_tensor(shape, -1.0, 1.0)
}

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug)]
enum Storage {
    Plain,
    Transposed,
    /// A window of a larger matrix: rows with gaps and an offset.
    Window,
    /// Every second column of a larger matrix.
    EverySecond,
    TransposedEverySecond,
    /// One row for all.
    OneRow,
    /// One column for all.
    OneColumn,
}

const STORAGES: [Storage; 7] = [
    Storage::Plain,
    Storage::Transposed,
    Storage::Window,
    Storage::EverySecond,
    Storage::TransposedEverySecond,
    Storage::OneRow,
    Storage::OneColumn,
];

fn stored(storage: Storage, seed: u64, rows: usize, columns: usize) -> Result<Tensor> {
    match storage {
        Storage::Plain => random(seed, [rows, columns]),
        Storage::Transposed => random(seed, [columns, rows])?.t(),
        Storage::Window => random(seed, [rows + 3, columns + 5])?.slice(0, 2..rows + 2)?.slice(1, 1..columns + 1),
        Storage::EverySecond => random(seed, [rows, 2 * columns])?.slice_step(1, 0..2 * columns, 2),
        Storage::TransposedEverySecond => random(seed, [columns, 2 * rows])?.slice_step(1, 0..2 * rows, 2)?.t(),
        Storage::OneRow => random(seed, [1, columns])?.expand([rows, columns]),
        Storage::OneColumn => random(seed, [rows, 1])?.expand([rows, columns]),
    }
}

/// What rounding may do to each element: a unit for each of the `k` terms and of the epilogue, of the sum of their magnitudes.
fn tolerance(gemm: &Gemm, old: Option<&Tensor>) -> Result<Tensor> {
    let k = gemm.a.shape()[1] as f64;
    let unit = if gemm.a.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let magnitude = |t: &Tensor| {
        let values: Vec<f64> = t.to_dtype(DType::F64)?.to_vec::<f64>()?.into_iter().map(f64::abs).collect();
        Tensor::from_vec(t.shape(), values)
    };
    let (a, b) = (magnitude(gemm.a)?, magnitude(gemm.b)?);
    let bias = gemm.bias.map(magnitude).transpose()?;
    let old = old.map(magnitude).transpose()?;
    let (alpha, beta) = (gemm.alpha.abs() * unit * (k + 4.0), gemm.beta.abs() * unit * (k + 4.0));
    let sum =
        naive::gemm::gemm(&Gemm { alpha, beta, bias: None, activation: Activation::None, a: &a, b: &b }, old.as_ref())?;
    let extra = bias.as_ref().map(Tensor::to_vec::<f64>).transpose()?;
    let values = sum
        .to_vec::<f64>()?
        .into_iter()
        .enumerate()
        .map(|(i, x)| x + 4.0 * unit * extra.as_ref().map_or(0.0, |bias| bias[i % bias.len()]));
    Tensor::from_vec(sum.shape(), values.collect())
}

fn compare(found: &Tensor, expected: &Tensor, tolerance: &Tensor) {
    assert_eq!(found.shape(), expected.shape());
    let found = found.to_dtype(DType::F64).and_then(|t| t.to_vec::<f64>()).unwrap();
    let expected = expected.as_slice::<f64>().unwrap().iter().zip(tolerance.as_slice::<f64>().unwrap());
    for (i, (x, (y, tolerance))) in found.iter().zip(expected).enumerate() {
        assert!((x - y).abs() <= *tolerance, "element {i}: {x} instead of {y}, tolerance {tolerance:e}");
    }
}

fn check(gemm: &Gemm, old: Option<&Tensor>) {
    let expected = naive::gemm::gemm(gemm, old).unwrap();
    let found = match old {
        None => gemm.run().unwrap(),
        Some(old) => {
            let mut out = old.clone();
            gemm.run_into(&mut out).unwrap();
            out
        }
    };
    compare(&found, &expected, &tolerance(gemm, old.filter(|_| gemm.beta != 0.0)).unwrap());
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        0usize..4,
        1usize..70,
        prop::sample::select(vec![15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 127, 129, 200])
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_storage_and_epilogue(
        (m, k, n) in (size(), size(), size()),
        (a, b) in (prop::sample::select(&STORAGES[..]), prop::sample::select(&STORAGES[..])),
        (alpha, beta) in prop::sample::select(vec![(1.0, 0.0), (0.5, 0.0), (1.0, 1.0), (-2.0, 0.25), (0.0, 1.0)]),
        with_bias in any::<bool>(),
        activation in prop::sample::select(vec![Activation::None, Activation::Relu, Activation::Relu6, Activation::LeakyRelu(0.1)]),
        into in prop::sample::select(vec![None, Some(Storage::Plain), Some(Storage::Transposed), Some(Storage::Window)]),
        double in prop::bool::weighted(0.1),
    ) {
        let dtype = if double { DType::F64 } else { DType::F32 };
        let a = stored(a, 1, m, k)?.to_dtype(dtype)?;
        let b = stored(b, 2, k, n)?.to_dtype(dtype)?;
        let bias = random(3, [1, 2 * n])?.to_dtype(dtype)?.select(0, 0)?.slice_step(0, 0..2 * n, 2)?;
        let bias = with_bias.then_some(&bias);
        let old = into.map(|storage| stored(storage, 4, m, n)).transpose()?.map(|t| t.to_dtype(dtype)).transpose()?;
        let beta = if old.is_some() { beta } else { 0.0 };
        check(&Gemm { a: &a, b: &b, alpha, beta, bias, activation }, old.as_ref());
    }
}

#[test]
fn every_size_near_a_tile() {
    for m in 1..=33 {
        for n in [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 49, 63, 64, 65] {
            let (a, b) = (random(1, [m, 19]).unwrap(), random(2, [19, n]).unwrap());
            check(&Gemm::new(&a, &b), None);
        }
    }
}

/// Long and skinny shapes that cross every block of the caches.
const LARGE: [[usize; 3]; 10] = [
    [64, 576, 2048],
    [16, 144, 5000],
    [128, 784, 300],
    [300, 3000, 40],
    [5, 5000, 7],
    [3000, 5, 7],
    [7, 5, 3000],
    [1, 2000, 2000],
    [2000, 700, 1],
    // Rows that share a set of the first-level cache.
    [33, 1024, 77],
];

#[test]
fn large_shapes_in_all_transpositions() {
    for [m, k, n] in LARGE {
        for (a, b) in [
            (Storage::Plain, Storage::Plain),
            (Storage::Plain, Storage::Transposed),
            (Storage::Transposed, Storage::Plain),
            (Storage::Transposed, Storage::Transposed),
        ] {
            let (a, b) = (stored(a, 1, m, k).unwrap(), stored(b, 2, k, n).unwrap());
            check(&Gemm::new(&a, &b), None);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for [m, k, n] in LARGE.into_iter().chain([[257, 511, 130], [500, 128, 784], [128, 2100, 128]]) {
        for (a, b) in [(Storage::Plain, Storage::Transposed), (Storage::Transposed, Storage::Plain)] {
            let (a, b) = (stored(a, 1, m, k).unwrap(), stored(b, 2, k, n).unwrap());
            let bits = |threads| {
                let out = par::with_threads(threads, || matmul(&a, &b).unwrap()).unwrap();
                out.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = bits(1);
            for threads in 2..=4 {
                assert!(bits(threads) == one, "{threads} threads give other bits for {m}×{k}×{n}");
            }
        }
    }
}

#[test]
fn old_values_are_not_read_when_beta_is_zero() {
    for [m, k, n] in [[5, 3, 7], [40, 70, 90], [3, 0, 2], [1, 600, 33], [16, 5, 200]] {
        let (a, b) = (random(1, [m, k]).unwrap(), random(2, [k, n]).unwrap());
        let gemm = Gemm::new(&a, &b);
        check(&gemm, Some(&Tensor::full([m, n], f32::NAN).unwrap()));
    }
}

#[test]
fn not_a_number_passes_through_every_activation() {
    let a = Tensor::from_vec([2, 2], vec![f32::NAN, 1.0, 1.0, 1.0]).unwrap();
    let b = Tensor::full([2, 40], 1.0f32).unwrap();
    for activation in [Activation::None, Activation::Relu, Activation::Relu6, Activation::LeakyRelu(0.1)] {
        let out = Gemm { activation, ..Gemm::new(&a, &b) }.run().unwrap().to_vec::<f32>().unwrap();
        assert!(out[..40].iter().all(|x| x.is_nan()), "{activation:?} hides NaN");
        assert!(out[40..].iter().all(|x| *x == 2.0));
    }
}

#[test]
fn one_operand_on_both_sides() {
    let a = random(9, [37, 37]).unwrap();
    check(&Gemm::new(&a, &a), None);
    let mut out = a.clone();
    Gemm { beta: 1.0, ..Gemm::new(&a, &a) }.run_into(&mut out).unwrap();
    let gemm = Gemm { beta: 1.0, ..Gemm::new(&a, &a) };
    let expected = naive::gemm::gemm(&gemm, Some(&a)).unwrap();
    compare(&out, &expected, &tolerance(&gemm, Some(&a)).unwrap());
}

#[test]
fn wrong_arguments_are_errors_that_name_the_shapes() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let inner = message(matmul(&zeros(&[2, 3]), &zeros(&[4, 5])));
    assert!(inner.contains("2×3") && inner.contains("4×5"), "{inner}");
    assert!(message(matmul(&zeros(&[3]), &zeros(&[3, 5]))).contains("matrices"));
    let (a, b) = (zeros(&[2, 3]), zeros(&[3, 5]));
    let bias = zeros(&[4]);
    let with_bias = Gemm { bias: Some(&bias), ..Gemm::new(&a, &b) };
    assert!(message(with_bias.run()).contains("bias"));
    assert!(matmul(&a, &b.to_dtype(DType::F64).unwrap()).is_err());
    assert!(matmul(&a.to_dtype(DType::I32).unwrap(), &b.to_dtype(DType::I32).unwrap()).is_err());
    assert!(Gemm::new(&a, &b).run_into(&mut zeros(&[5, 2])).is_err());
}
