//! Patterns of sparse layers: round trips, pruning, and what a file may hold that is no pattern.

use proptest::prelude::*;
use qkernels::sparse::Pattern;
use qtensor::{DType, Tensor};

fn dense(shape: [usize; 4], flat: bool, values: &[i8]) -> Tensor {
    let [outputs, depth, height, width] = shape;
    let numbers: Vec<f32> = values.iter().cycle().take(shape.iter().product()).map(|v| f32::from(*v)).collect();
    let shape = if flat { vec![outputs, depth * height * width] } else { shape.to_vec() };
    Tensor::from_vec(shape, numbers).unwrap()
}

/// Row starts and columns as tensors.
fn tensors(starts: &[i64], columns: &[i32]) -> [Tensor; 2] {
    [Tensor::from_slice([starts.len()], starts).unwrap(), Tensor::from_slice([columns.len()], columns).unwrap()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_come_back(
        shape in [0usize..6, 0usize..5, 1usize..4, 1usize..4],
        flat: bool,
        values in prop::collection::vec(-1i8..2, 1..60),
    ) {
        let dense = dense(shape, flat, &values);
        let pattern = Pattern::from_dense(&dense).unwrap();
        let values = pattern.gather(&dense).unwrap();
        let numbers = dense.to_vec::<f32>().unwrap();
        let there = numbers.iter().filter(|x| **x != 0.0).count();
        prop_assert_eq!(pattern.len(), there);
        prop_assert_eq!(pattern.is_empty(), there == 0);
        prop_assert!((pattern.density() * numbers.len() as f64 - there as f64).abs() < 1e-9);
        prop_assert_eq!(pattern.to_dense(&values).unwrap().to_vec::<f32>().unwrap(), numbers);
        prop_assert_eq!(&Pattern::from_mask(&dense.to_dtype(DType::I8).unwrap()).unwrap(), &pattern);
        let [starts, columns] = pattern.to_tensors().unwrap();
        prop_assert_eq!(&Pattern::from_tensors(dense.shape(), &starts, &columns).unwrap(), &pattern);
        let rows: usize = (0..pattern.rows()).map(|o| pattern.columns(o).len()).sum();
        prop_assert_eq!(rows, pattern.len());
    }

    #[test]
    fn pruned_patterns_are_those_of_pruned_weights(
        shape in [1usize..6, 1usize..5, 1usize..4, 1usize..4],
        values in prop::collection::vec(-1i8..2, 1..60),
        keep in prop::collection::vec(any::<bool>(), 1..60),
    ) {
        let dense = dense(shape, false, &values);
        let pattern = Pattern::from_dense(&dense).unwrap();
        let values = pattern.gather(&dense).unwrap();
        let keep: Vec<bool> = keep.into_iter().cycle().take(pattern.len()).collect();
        let kept: Vec<f32> =
            values.to_vec::<f32>().unwrap().into_iter().zip(&keep).map(|(v, k)| if *k { v } else { 0.0 }).collect();
        let expected = pattern.to_dense(&Tensor::from_vec([kept.len()], kept).unwrap()).unwrap();
        let pruned = pattern.prune(&keep).unwrap();
        prop_assert_eq!(&pruned.pattern, &Pattern::from_dense(&expected).unwrap());
        let left = pruned.take(&values).unwrap();
        prop_assert_eq!(pruned.pattern.to_dense(&left).unwrap().to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    }

    #[test]
    fn whatever_a_file_holds_is_a_pattern_or_an_error(
        shape in [0usize..4, 0usize..4],
        starts in prop::collection::vec(-1i64..5, 0..6),
        columns in prop::collection::vec(-1i32..5, 0..6),
    ) {
        let [a, b] = tensors(&starts, &columns);
        if let Ok(pattern) = Pattern::from_tensors(&shape, &a, &b) {
            // Then it is the one of its own dense weights.
            let ones = Tensor::full([pattern.len()], 1.0f32).unwrap();
            let dense = pattern.to_dense(&ones).unwrap();
            prop_assert_eq!(dense.shape().dims(), &shape);
            prop_assert_eq!(Pattern::from_dense(&dense).unwrap(), pattern);
        }
    }
}

#[test]
fn malformed_patterns_are_refused_with_the_place() {
    let refused = |shape: &[usize], starts: &[i64], columns: &[i32], part: &str| {
        let [starts, columns] = tensors(starts, columns);
        let message = Pattern::from_tensors(shape, &starts, &columns).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    refused(&[2, 3], &[0, 1], &[0], "2 row starts, expected 3");
    refused(&[2, 3], &[1, 1, 1], &[0], "start at 1");
    refused(&[2, 3], &[0, 1, 2], &[0], "end at 2 of 1");
    refused(&[3, 3], &[0, 2, 1, 2], &[0, 1], "row 1 starts at 2 and ends at 1");
    refused(&[2, 3], &[0, 2, 2], &[1, 1], "row 0 has column 1 before 1");
    refused(&[2, 3], &[0, 0, 2], &[2, 1], "row 1 has column 2 before 1");
    refused(&[2, 3], &[0, 0, 1], &[3], "row 1 has column 3");
    refused(&[2, 3], &[0, 0, 1], &[-1], "row 1 has column -1");
    refused(&[2, 0], &[0, 0, 1], &[0], "below 0");
    refused(&[2, 3, 4], &[0, 0, 0], &[], "two axes or four");
    refused(&[1, 1 << 20, 1 << 12, 1], &[0, 0], &[], "too long");
    let [starts, columns] = tensors(&[0, 1], &[0]);
    assert!(Pattern::from_tensors(&[1, 1], &columns, &starts).is_err(), "types are checked");
}

#[test]
fn values_of_another_pattern_are_refused() {
    let dense = Tensor::from_vec([2, 2], vec![1.0f32, 0.0, f32::NAN, 2.0]).unwrap();
    let pattern = Pattern::from_dense(&dense).unwrap();
    assert_eq!((pattern.len(), pattern.columns(1)), (3, &[0, 1][..]));
    assert!(pattern.to_dense(&Tensor::full([2], 1.0f32).unwrap()).is_err());
    assert!(pattern.to_dense(&Tensor::full([3], 1.0f64).unwrap()).is_err());
    assert!(pattern.gather(&Tensor::full([4], 1.0f32).unwrap()).is_err());
    assert!(pattern.prune(&[true, false]).is_err());
    let pruned = pattern.prune(&[false, true, true]).unwrap();
    assert_eq!(pruned.places, [1, 2]);
    assert!(pruned.take(&Tensor::full([2], 1.0f32).unwrap()).is_err());
    assert!(Pattern::from_dense(&Tensor::full([2], 1.0f32).unwrap()).is_err());
    assert!(Pattern::from_dense(&Tensor::full([2, 2], 1.0f64).unwrap()).is_err());
}
