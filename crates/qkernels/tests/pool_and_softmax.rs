//! f32 pooling and softmax against the f64 path, and softmax against published values.

mod common;

use common::*;
use proptest::prelude::*;
use qkernels::pool::*;
use qkernels::softmax::*;
use qkernels::sparse::is_batch_innermost;
use qtensor::{DType, Error, Tensor};

fn parameters() -> impl Strategy<Value = PoolParams> {
    ((1usize..5, 1usize..5), (1usize..4, 1usize..4), (0usize..3, 0usize..3), any::<(bool, bool)>()).prop_map(
        |(kernel, stride, padding, (ceil_mode, count_include_pad))| PoolParams {
            kernel: [kernel.0, kernel.1],
            stride: [stride.0, stride.1],
            padding: [padding.0.min(kernel.0 / 2), padding.1.min(kernel.1 / 2)],
            ceil_mode,
            count_include_pad,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pools(params in parameters(), n in 0usize..3, c in 0usize..40, h in 1usize..10, w in 1usize..10, how in 0..ARRANGEMENTS) {
        let x = arranged(&values(&[n, c, h, w], 1, 3.0), how);
        let Ok((y, places)) = max_pool2d(&x, &params) else {
            prop_assert!(params.kernel[0] > h + 2 * params.padding[0] || params.kernel[1] > w + 2 * params.padding[1]);
            return Ok(());
        };
        let (expected, expected_places) = max_pool2d(&f64s(&x), &params).unwrap();
        let is_ordered = if x.layout().is_channels_last() || !is_batch_innermost(&x) { |t: &Tensor| t.layout().is_channels_last() } else { is_batch_innermost };
        prop_assert!(is_ordered(&y) && is_ordered(&places));
        assert_close(&y, &expected, 0.0, 0.0);
        prop_assert_eq!(places.to_vec::<u8>().unwrap(), expected_places.to_vec::<u8>().unwrap());
        let dy = arranged(&values(y.shape(), 7, 1.0), how + 1);
        let dx = max_pool2d_grad(&dy, &places, x.shape(), &params).unwrap();
        assert_close(&dx, &max_pool2d_grad(&f64s(&dy), &places, x.shape(), &params).unwrap(), 1e-6, 1e-6);
        assert_close(&avg_pool2d(&x, &params).unwrap(), &avg_pool2d(&f64s(&x), &params).unwrap(), 1e-6, 1e-6);
        let dx = avg_pool2d_grad(&dy, x.shape(), &params).unwrap();
        assert_close(&dx, &avg_pool2d_grad(&f64s(&dy), x.shape(), &params).unwrap(), 1e-6, 1e-6);
        assert_close(&global_avg_pool2d(&x).unwrap(), &global_avg_pool2d(&f64s(&x)).unwrap(), 1e-6, 1e-6);
        let dy = values(&[n, c], 3, 1.0);
        let dx = global_avg_pool2d_grad(&dy, x.shape()).unwrap();
        assert_close(&dx, &global_avg_pool2d_grad(&f64s(&dy), x.shape()).unwrap(), 1e-6, 0.0);
    }

    #[test]
    fn softmaxes(rows in 0usize..20, width in 1usize..300, how in 0..ARRANGEMENTS, scale in prop::sample::select(vec![1.0f32, 30.0, 200.0])) {
        let x = arranged(&values(&[rows, width], 1, scale), how);
        let dy = arranged(&values(&[rows, width], 9, 1.0), how + 1);
        let y = log_softmax(&x).unwrap();
        assert_close(&y, &log_softmax(&f64s(&x)).unwrap(), 1e-6, 1e-6);
        let dx = log_softmax_grad(&y, &dy).unwrap();
        assert_close(&dx, &log_softmax_grad(&f64s(&y), &f64s(&dy)).unwrap(), 1e-5, 1e-5);
    }

    #[test]
    fn cross_entropy(rows in 1usize..50, classes in 1usize..200, how in 0..ARRANGEMENTS, smoothing in prop::sample::select(vec![0.0, 0.1, 1.0]), salt: u32, soft: bool) {
        let x = arranged(&values(&[rows, classes], 1, 8.0), how);
        let labels: Vec<i64> = (0..rows).map(|i| ((i as u64 * 7919 + u64::from(salt)) % classes as u64) as i64).collect();
        let (targets, wide) = if soft {
            let q = qkernels::unary(qkernels::UnaryOp::Abs, &arranged(&values(&[rows, classes], 5, 0.1), how + 2)).unwrap();
            let wide = f64s(&q);
            (q, wide)
        } else {
            let labels = Tensor::from_vec([rows], labels).unwrap();
            (labels.clone(), labels)
        };
        let (loss, residual) = softmax_cross_entropy(&x, &targets, smoothing).unwrap();
        let (expected, expected_residual) = softmax_cross_entropy(&f64s(&x), &wide, smoothing).unwrap();
        assert_close(&loss, &expected, 1e-6, 1e-6);
        assert_close(&residual, &expected_residual, 1e-5, 1e-7);
        let dx = softmax_cross_entropy_grad(&residual, &Tensor::scalar(3.0f32)).unwrap();
        let expected = softmax_cross_entropy_grad(&expected_residual, &Tensor::scalar(3.0f64)).unwrap();
        assert_close(&dx, &expected, 1e-5, 1e-6);
    }
}

#[test]
fn cross_entropy_of_known_rows() {
    // ln(1 + e⁻¹ + e⁻²) and the like, worked out by hand.
    let x = Tensor::from_vec([2, 3], vec![2.0f32, 1.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    let labels = Tensor::from_vec([2], vec![0i64, 2]).unwrap();
    let (loss, residual) = softmax_cross_entropy(&x, &labels, 0.0).unwrap();
    assert!((loss.item().unwrap() - (0.407_605_964 + 1.098_612_289) / 2.0).abs() < 1e-6);
    let expected = [-0.167_379_53, 0.122_364_24, 0.045_015_29, 1.0 / 6.0, 1.0 / 6.0, -1.0 / 3.0];
    assert_close(&residual, &Tensor::from_vec([2, 3], expected.to_vec()).unwrap(), 1e-6, 1e-7);
}

#[test]
fn extreme_logits() {
    let x = Tensor::from_vec([3, 2], vec![1e30f32, -1e30, f32::NEG_INFINITY, 0.0, f32::NAN, 0.0]).unwrap();
    let y = log_softmax(&x).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(y[..4], [0.0, -2e30, f32::NEG_INFINITY, 0.0]);
    assert!(y[4].is_nan() && y[5].is_nan());
    let labels = Tensor::from_vec([2], vec![0i64, 1]).unwrap();
    let (loss, residual) = softmax_cross_entropy(&x.slice(0, 0..2).unwrap(), &labels, 0.0).unwrap();
    assert_eq!(loss.item().unwrap(), 0.0);
    assert_eq!(residual.to_vec::<f32>().unwrap(), [0.0; 4]);
}

#[test]
fn nan_wins_a_window() {
    let x = Tensor::from_vec([1, 1, 2, 3], vec![1.0f32, f32::NAN, 2.0, f32::NEG_INFINITY, 5.0, 3.0]).unwrap();
    let params = PoolParams { kernel: [2, 2], stride: [1, 1], ..PoolParams::new(2) };
    let (y, places) = max_pool2d(&x, &params).unwrap();
    assert!(y.to_vec::<f32>().unwrap().iter().all(|v| v.is_nan()));
    assert_eq!(places.to_vec::<u8>().unwrap(), [1, 0]);
    let low = Tensor::full([1, 2, 2, 2], f32::NEG_INFINITY).unwrap();
    let (y, places) = max_pool2d(&low, &PoolParams::new(2)).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [f32::NEG_INFINITY; 2]);
    assert_eq!(places.to_vec::<u8>().unwrap(), [0, 0]);
}

#[test]
fn windows_of_more_places_than_a_byte_has() {
    let x = values(&[2, 5, 20, 19], 3, 1.0);
    let params = PoolParams { stride: [2, 1], padding: [3, 8], ..PoolParams::new(17) };
    let (y, places) = max_pool2d(&x, &params).unwrap();
    let (expected, expected_places) = max_pool2d(&f64s(&x), &params).unwrap();
    assert_close(&y, &expected, 0.0, 0.0);
    assert_eq!(places.to_vec::<i32>().unwrap(), expected_places.to_vec::<i32>().unwrap());
    let dy = values(y.shape(), 4, 1.0);
    let dx = max_pool2d_grad(&dy, &places, x.shape(), &params).unwrap();
    assert_close(&dx, &max_pool2d_grad(&f64s(&dy), &places, x.shape(), &params).unwrap(), 1e-6, 1e-5);
    let far = Tensor::full(*places.shape(), -1i32).unwrap();
    assert!(
        max_pool2d_grad(&dy, &far, x.shape(), &params).unwrap_err().to_string().contains("outside a window of 289")
    );
}

#[test]
fn output_sizes_follow_the_rule_of_pytorch() {
    let size = |length: usize, kernel: usize, stride: usize, padding: usize, ceil_mode: bool| {
        let params = PoolParams {
            kernel: [kernel, 1],
            stride: [stride, 1],
            padding: [padding, 0],
            ceil_mode,
            count_include_pad: true,
        };
        avg_pool2d(&values(&[1, 1, length, 1], 1, 1.0), &params).unwrap().shape()[2]
    };
    assert_eq!([size(112, 3, 2, 1, false), size(112, 3, 2, 1, true)], [56, 57]);
    assert_eq!([size(5, 2, 2, 0, false), size(5, 2, 2, 0, true)], [2, 3]);
    // The last window would start in the trailing border.
    assert_eq!([size(4, 2, 3, 1, true), size(3, 2, 2, 1, true)], [2, 2]);
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let x = values(&[9, 24, 40, 41], 5, 3.0);
    let (logits, params) = (values(&[1000, 100], 1, 5.0), PoolParams { stride: [1, 1], ..PoolParams::new(3) });
    let labels = Tensor::from_vec([1000], (0..1000).map(|i| i % 100).collect::<Vec<i64>>()).unwrap();
    assert_same_for_any_threads(|| {
        let (y, places) = max_pool2d(&x, &params).unwrap();
        let (loss, residual) = softmax_cross_entropy(&logits, &labels, 0.1).unwrap();
        vec![
            max_pool2d_grad(&y, &places, x.shape(), &params).unwrap(),
            avg_pool2d_grad(&y, x.shape(), &params).unwrap(),
            avg_pool2d(&x, &params).unwrap(),
            global_avg_pool2d(&x).unwrap(),
            y,
            log_softmax(&logits).unwrap(),
            loss,
            residual,
        ]
    });
}

#[test]
fn errors() {
    let x = values(&[1, 2, 4, 4], 1, 1.0);
    for wrong in [
        PoolParams::new(0),
        PoolParams::new(5),
        PoolParams { stride: [0, 1], ..PoolParams::new(2) },
        PoolParams { padding: [2, 0], ..PoolParams::new(2) },
    ] {
        assert!(max_pool2d(&x, &wrong).is_err() && avg_pool2d(&x, &wrong).is_err());
    }
    let dy = values(&[1, 2, 2, 2], 1, 1.0);
    let message =
        |places: &Tensor, params: PoolParams| max_pool2d_grad(&dy, places, x.shape(), &params).unwrap_err().to_string();
    let found = message(&Tensor::full([1, 2, 2, 2], 4u8).unwrap(), PoolParams::new(2));
    assert!(found.contains("place 4") && found.contains("window of 4"), "{found}");
    let found = message(&Tensor::full([1, 2, 2, 2], 0i32).unwrap(), PoolParams::new(2));
    assert!(found.contains("u8") && found.contains("i32"), "{found}");
    let found = message(&Tensor::full([1, 2, 2, 2], 0u8).unwrap(), PoolParams::new(4));
    assert!(found.contains("output of shape"), "{found}");
    assert!(global_avg_pool2d_grad(&values(&[1, 3], 1, 1.0), x.shape()).is_err());

    let logits = values(&[3, 4], 1, 1.0);
    let labels = Tensor::from_vec([3], vec![0i64, 3, 4]).unwrap();
    let message = softmax_cross_entropy(&logits, &labels, 0.0).unwrap_err().to_string();
    assert!(message.contains("label 4 of row 2"), "{message}");
    let negative = Tensor::from_vec([3], vec![0i64, -1, 2]).unwrap();
    assert!(softmax_cross_entropy(&logits, &negative, 0.0).unwrap_err().to_string().contains("row 1"));
    let fine = Tensor::from_vec([3], vec![0i64, 1, 2]).unwrap();
    assert!(softmax_cross_entropy(&logits, &fine, 1.5).is_err());
    assert!(softmax_cross_entropy(&logits, &values(&[3, 5], 1, 1.0), 0.0).is_err());
    let none = Tensor::zeros([0, 4], DType::F32).unwrap();
    let nobody = Tensor::zeros([0], DType::I64).unwrap();
    assert!(matches!(softmax_cross_entropy(&none, &nobody, 0.0), Err(Error::Shape { .. })));
}
