//! The generated data set.

use qzoo::data::{Manifest, Split, data_root, read_split};

#[test]
fn shapes_are_balanced_reproducible_and_different() {
    let manifest = Manifest::of("shapes").unwrap();
    let root = data_root(None);
    for (split, count) in [(Split::Train, 10_000), (Split::Test, 2_000)] {
        let data = read_split(&manifest, &root, split).unwrap();
        let again = read_split(&manifest, &root, split).unwrap();
        assert_eq!(data.len(), count);
        let mut per_class = [0; 10];
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut seen = std::collections::HashSet::new();
        for i in 0..count {
            per_class[data.label(i) as usize] += 1;
            let image = data.image(i, &mut a).unwrap();
            assert_eq!(image, again.image(i, &mut b).unwrap());
            assert!(seen.insert(image.to_vec()), "image {i} occurs twice");
        }
        assert_eq!(per_class, [count / 10; 10]);
    }
}

#[test]
fn the_manifest_has_the_mean_and_deviation_of_the_training_images() {
    let manifest = Manifest::of("shapes").unwrap();
    let data = read_split(&manifest, &data_root(None), Split::Train).unwrap();
    let mut scratch = Vec::new();
    for channel in 0..3 {
        let (mut sum, mut square) = (0.0, 0.0);
        for i in 0..data.len() {
            for &v in &data.image(i, &mut scratch).unwrap()[channel * 1024..(channel + 1) * 1024] {
                sum += f64::from(v) / 255.0;
                square += (f64::from(v) / 255.0).powi(2);
            }
        }
        let count = (data.len() * 1024) as f64;
        let (mean, variance) = (sum / count, square / count - (sum / count).powi(2));
        assert!((mean - f64::from(manifest.mean[channel])).abs() < 5e-4, "channel {channel}: mean {mean}");
        let deviation = variance.sqrt();
        assert!((deviation - f64::from(manifest.std[channel])).abs() < 5e-4, "channel {channel}: std {deviation}");
    }
}
