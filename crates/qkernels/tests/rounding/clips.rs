//! Chosen ranges.

use super::*;
use qkernels::rounding::{Clip, Format, Groups, Quantizer, Sawb};

fn choose(x: &Tensor, format: Format, clip: Clip) -> Quantizer {
    Quantizer::choose(x, Groups::Tensor, format, clip).unwrap()
}

/// Codes to nearest, and their values.
fn round_trip(x: &Tensor, quantizer: &Quantizer) -> (Vec<i32>, Tensor) {
    let found = quantizer.quantize(x, Rounding::Nearest).unwrap();
    (codes(&found), quantizer.dequantize(&found).unwrap())
}

fn distinct(codes: &[i32]) -> usize {
    codes.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn largest_magnitudes_and_percentiles() {
    for count in [1, 2, 10, 4097, 30_000] {
        let x = gaussian(&[count], 1);
        let mut sorted: Vec<f64> = x.to_vec::<f32>().unwrap().iter().map(|x| f64::from(x.abs())).collect();
        sorted.sort_by(f64::total_cmp);
        for percentile in [0.5, 50.0, 99.0, 99.9, 100.0] {
            let rank = percentile / 100.0 * (count - 1) as f64;
            let low = sorted[rank as usize];
            let expected = low + rank.fract() * (sorted[(rank as usize + 1).min(count - 1)] - low);
            let scale = choose(&x, Format::Signed, Clip::Percentile(percentile)).scales()[0];
            assert!((f64::from(scale) * 127.0 / expected - 1.0).abs() < 1e-6);
        }
        for (format, steps) in [(Format::Signed, 127.0), (Format::Offset, 127.0), (Format::Unsigned, 255.0)] {
            assert_eq!(choose(&x, format, Clip::AbsMax).scales(), [(sorted[count - 1] / steps) as f32]);
        }
    }
    // A percentile of 0 would give every value the outermost code.
    let mut sparse = vec![0.0f32; 100];
    sparse[7] = -3.0;
    let x = Tensor::from_vec([100], sparse).unwrap();
    assert_eq!(choose(&x, Format::Signed, Clip::Percentile(50.0)).scales(), [3.0 / 127.0]);
}

/// `Σ (x − Q(x))²` with codes from `lowest` to `highest`.
fn square_error(x: &[f32], clip: f64, [lowest, highest]: [f64; 2]) -> f64 {
    let step = clip / highest;
    let error = |x: f64| x - (x / step).round().clamp(lowest, highest) * step;
    x.iter().map(|x| error(f64::from(*x)).powi(2)).sum()
}

#[test]
fn the_least_square_error_is_found() {
    let laplace = |x: f32| x.signum() * -(1.0 - x.abs()).max(1e-7).ln();
    let uniform = stream(3).uniform_tensor([20_000], -1.0, 1.0).unwrap().to_vec::<f32>().unwrap();
    let normal = gaussian(&[20_000], 4).to_vec::<f32>().unwrap();
    // A few large values, and one that is so large that it must be given up.
    let mut outliers = normal.clone();
    outliers[77] = 40.0;
    let mut extreme = gaussian(&[2_000_000], 5).to_vec::<f32>().unwrap();
    extreme[1_234_567] = 1000.0;
    let cases = [
        normal[..50].to_vec(),
        normal[..3000].to_vec(),
        uniform.iter().map(|x| laplace(*x)).collect(),
        uniform,
        normal,
        outliers,
        pruned(30_000, 0.9).to_vec::<f32>().unwrap(),
    ];
    for (format, limits) in [(Format::Signed, [-127.0, 127.0]), (Format::Unsigned, [0.0, 255.0])] {
        for x in &cases {
            let tensor = Tensor::from_slice([x.len()], x).unwrap();
            let clip = f64::from(choose(&tensor, format, Clip::Mse).scales()[0]) * limits[1];
            let absmax = x.iter().fold(0.0f64, |m, x| m.max(f64::from(x.abs())));
            let best =
                (1..=400).map(|i| square_error(x, absmax * f64::from(i) / 400.0, limits)).fold(f64::INFINITY, f64::min);
            let found = square_error(x, clip, limits);
            assert!(
                found <= 1.02 * best,
                "{format:?}, {} values: {found} with clip {clip}, {best} is possible",
                x.len()
            );
        }
    }
    let tensor = Tensor::from_slice([extreme.len()], &extreme).unwrap();
    let clip = f64::from(choose(&tensor, Format::Signed, Clip::Mse).scales()[0]) * 127.0;
    let error = |clip: f64| square_error(&extreme, clip, [-127.0, 127.0]);
    let best =
        [3.0, 4.0, 5.0, 10.0, 30.0, 100.0, 300.0, 900.0, 1000.0].into_iter().map(error).fold(f64::INFINITY, f64::min);
    assert!(error(clip) <= 1.02 * best && clip < 300.0, "clip {clip}");
}

#[test]
fn published_constants_and_their_collapse() {
    // 1, 2, … 64 and 64 once more.
    let x = Tensor::from_vec([65], (1..=65).map(|i| i.min(64) as f32).collect()).unwrap();
    let clip = f64::from(choose(&x, Format::Signed, Clip::SawbWith(Sawb::FOUR_BITS)).scales()[0]) * 127.0;
    assert!((2.0 * clip / 255.0 - 0.4439).abs() < 5e-5, "{}", 2.0 * clip / 255.0);
    let published = Quantizer::new(Format::Signed, Groups::Tensor, vec![(2.0 * clip / 255.0) as f32]).unwrap();
    let found = round_trip(&x, &published).0;
    assert_eq!(found[..6], [2, 5, 7, 9, 11, 14]);
    assert_eq!((found[55], &found[56..]), (126, &[127; 9][..]));
    // On what magnitude pruning leaves these constants clip everything to two codes; those that fit do not.
    for share in [0.9, 0.95, 0.98] {
        let x = pruned(200_000, share);
        let (published, back) = round_trip(&x, &choose(&x, Format::Signed, Clip::SawbWith(Sawb::FOUR_BITS)));
        if share < 0.98 {
            assert_eq!(distinct(&published), 2);
            assert!(relative_error(&back, &x) > 0.85);
        }
        for clip in [Clip::Sawb, Clip::Mse, Clip::AbsMax, Clip::Percentile(99.9)] {
            let (found, back) = round_trip(&x, &choose(&x, Format::Signed, clip));
            let (codes, error) = (distinct(&found), relative_error(&back, &x));
            assert!(codes > 60 && error < 0.02, "{clip:?} at {share}: {codes} codes, error {error}");
            let dense = [x.to_vec::<f32>().unwrap(), vec![0.0; 1000]].concat();
            let dense = Tensor::from_slice([dense.len()], &dense).unwrap();
            if clip != Clip::Percentile(99.9) {
                // Zeros have a code in any case, so they change no range.
                assert_eq!(choose(&dense, Format::Signed, clip).scales(), choose(&x, Format::Signed, clip).scales());
            }
        }
    }
}

#[test]
fn errors_of_whole_channels_of_pruned_weights() {
    // Channels of very different magnitudes, as folded norms leave them, pruned to a tenth.
    let mut weights = gaussian(&[32, 64, 3, 3], 8).to_vec::<f32>().unwrap();
    for (i, w) in weights.iter_mut().enumerate() {
        *w = if w.abs() < 1.645 { 0.0 } else { *w * 2f32.powi((i / 576) as i32 % 12) };
    }
    let x = Tensor::from_slice([32, 64, 3, 3], &weights).unwrap();
    for clip in [Clip::AbsMax, Clip::Mse, Clip::Sawb] {
        let error = |groups: Groups| {
            let quantizer = Quantizer::choose(&x, groups, Format::Signed, clip).unwrap();
            let back = round_trip(&x, &quantizer).1;
            (0..32).map(|c| relative_error(&back.select(0, c).unwrap(), &x.select(0, c).unwrap())).fold(0.0, f64::max)
        };
        let (by_channel, whole) = (error(Groups::Channels), error(Groups::Tensor));
        assert!(by_channel < 0.02 && whole > 0.2, "{clip:?}: {by_channel} by channel, {whole} with one scale");
    }
}

#[test]
fn dither_steps_are_deviations() {
    let x = Tensor::from_vec([65], (-32..=32).map(|i| i as f32).collect()).unwrap();
    let quantizer = choose(&x, Format::Signed, Clip::Dither(0.03));
    assert!((quantizer.scales()[0] - 0.5628).abs() < 5e-5);
    let found = round_trip(&x, &quantizer).0;
    assert_eq!(found[..4], [-57, -55, -53, -52]);
    assert_eq!((found[30], &found[32..37], found[64]), (-4, &[0, 2, 4, 5, 7][..], 57));
    // Wide steps stay wide, and what is beyond the last code does not wrap around.
    let mut values = vec![0.0f32; 131_072];
    values[5] = 1.0;
    let x = Tensor::from_slice([131_072], &values).unwrap();
    assert_eq!(round_trip(&x, &choose(&x, Format::Signed, Clip::Dither(1.0))).0[5], 127);
    let wide = choose(&gaussian(&[10_000], 3), Format::Signed, Clip::Dither(1.0));
    assert!((wide.scales()[0] - 1.0).abs() < 0.05);
    // Without any deviation the step follows from the magnitude.
    let constant = Tensor::full([100], -0.3f32).unwrap();
    assert_eq!(round_trip(&constant, &choose(&constant, Format::Signed, Clip::Dither(1.0))).0, [-127; 100]);
}
