//! Views and copies against index arithmetic done the slow way.

use proptest::prelude::*;
use qtensor::{DType, Error, Tensor, bf16};

fn counting(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::from_vec(shape, (0..n as i32).collect()).unwrap()
}

/// All indices of a shape in row-major order.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, &d| {
        all.iter().flat_map(|p| (0..d).map(move |i| p.iter().copied().chain([i]).collect())).collect()
    })
}

fn permutation(rank: usize, seed: u64) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    for i in (1..rank).rev() {
        axes.swap(i, (seed >> (7 * i)) as usize % (i + 1));
    }
    axes
}

proptest! {
    #[test]
    fn permuted_elements_are_where_they_should_be(shape in prop::collection::vec(0usize..5, 0..5), seed: u64) {
        let x = counting(&shape);
        let axes = permutation(shape.len(), seed);
        let y = x.permute(&axes).unwrap();
        for index in indices(y.shape()) {
            let mut original = vec![0; shape.len()];
            axes.iter().zip(&index).for_each(|(a, i)| original[*a] = *i);
            prop_assert_eq!(y.get::<i32>(&index).unwrap(), x.get::<i32>(&original).unwrap());
        }
        let dense = y.contiguous();
        prop_assert!(dense.layout().is_contiguous());
        let expected: Vec<i32> = indices(y.shape()).iter().map(|i| y.get(i).unwrap()).collect();
        prop_assert_eq!(dense.as_slice::<i32>().unwrap(), &expected[..]);
        prop_assert!(y.layout().is_dense());
        let copy = y.copy();
        prop_assert_eq!(copy.strides(), y.strides());
        prop_assert_eq!(y.copy().to_vec::<i32>().unwrap(), expected);
    }

    #[test]
    fn reshape_keeps_the_logical_order(shape in prop::collection::vec(1usize..5, 1..5), seed: u64, cut in 0usize..4) {
        let y = counting(&shape).permute(&permutation(shape.len(), seed)).unwrap();
        let cut = cut.min(shape.len());
        let (a, b): (usize, usize) = (y.shape()[..cut].iter().product(), y.shape()[cut..].iter().product());
        let z = y.reshape([a, 1, b]).unwrap();
        prop_assert_eq!(z.to_vec::<i32>().unwrap(), y.to_vec::<i32>().unwrap());
        let back = z.reshape(y.shape()).unwrap();
        prop_assert_eq!(back.to_vec::<i32>().unwrap(), y.to_vec::<i32>().unwrap());
    }

    #[test]
    fn slices_and_selections(shape in prop::collection::vec(1usize..6, 1..4), axis in 0usize..3, start in 0usize..6, step in 1usize..3) {
        let axis = axis % shape.len();
        let x = counting(&shape);
        let start = start % shape[axis];
        let y = x.slice_step(axis, start..shape[axis], step).unwrap();
        for index in indices(y.shape()) {
            let mut original = index.clone();
            original[axis] = start + index[axis] * step;
            prop_assert_eq!(y.get::<i32>(&index).unwrap(), x.get::<i32>(&original).unwrap());
        }
        let one = x.select(axis, start).unwrap();
        prop_assert_eq!(one.to_vec::<i32>().unwrap(), x.slice(axis, start..start + 1).unwrap().to_vec::<i32>().unwrap());
        prop_assert_eq!(one.rank(), shape.len() - 1);
    }

    #[test]
    fn channels_last_round_trip(n in 0usize..4, c in 1usize..6, h in 1usize..5, w in 1usize..5) {
        let x = counting(&[n, c, h, w]);
        let y = x.to_channels_last();
        prop_assert!(y.layout().is_channels_last());
        prop_assert_eq!(y.to_vec::<i32>().unwrap(), x.to_vec::<i32>().unwrap());
        prop_assert_eq!(y.memory::<i32>().unwrap().to_vec(), x.permute(&[0, 2, 3, 1]).unwrap().to_vec::<i32>().unwrap());
    }

    #[test]
    fn expansion_repeats(shape in prop::collection::vec(1usize..4, 0..3), front in 1usize..4) {
        let x = counting(&shape);
        let target: Vec<usize> = std::iter::once(front).chain(shape.iter().map(|d| if *d == 1 { 3 } else { *d })).collect();
        let y = x.expand(&target).unwrap();
        for index in indices(&target) {
            let original: Vec<usize> = index[1..].iter().zip(&shape).map(|(i, d)| if *d == 1 { 0 } else { *i }).collect();
            prop_assert_eq!(y.get::<i32>(&index).unwrap(), x.get::<i32>(&original).unwrap());
        }
    }

    #[test]
    fn concatenation_is_undone_by_slices(a in 0usize..4, b in 1usize..4, other in 1usize..4, axis in 0usize..2) {
        let dims = |n| if axis == 0 { [n, other] } else { [other, n] };
        let (x, y) = (counting(&dims(a)), counting(&dims(b)).t().unwrap().contiguous().t().unwrap());
        let z = Tensor::concatenate(&[x.clone(), y.clone()], axis).unwrap();
        prop_assert_eq!(z.slice(axis, 0..a).unwrap().to_vec::<i32>().unwrap(), x.to_vec::<i32>().unwrap());
        prop_assert_eq!(z.slice(axis, a..a + b).unwrap().to_vec::<i32>().unwrap(), y.to_vec::<i32>().unwrap());
    }
}

#[test]
fn writing_never_changes_another_tensor() {
    let x = counting(&[2, 3]);
    let mut row = x.select(0, 1).unwrap();
    row.memory_mut::<i32>().unwrap().fill(9);
    assert_eq!(row.to_vec::<i32>().unwrap(), [9, 9, 9]);
    assert_eq!(x.to_vec::<i32>().unwrap(), [0, 1, 2, 3, 4, 5]);
    let mut column = x.slice(1, 1..2).unwrap();
    column.copy_from(&Tensor::from_vec([2, 1], vec![7, 8]).unwrap()).unwrap();
    assert_eq!(column.to_vec::<i32>().unwrap(), [7, 8]);
    assert_eq!(x.to_vec::<i32>().unwrap(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_unique_view_is_written_in_place() {
    let mut x = counting(&[3, 4]).slice(0, 1..3).unwrap();
    let id = x.buffer_id();
    x.copy_from(&counting(&[2, 4])).unwrap();
    assert_eq!((x.buffer_id(), x.to_vec::<i32>().unwrap()), (id, (0..8).collect()));
}

#[test]
fn conversions_round_and_saturate() {
    let x = Tensor::from_vec([4], vec![1.0f32, -2.7, 300.0, f32::NAN]).unwrap();
    assert_eq!(x.to_dtype(DType::I8).unwrap().to_vec::<i8>().unwrap(), [1, -2, 127, 0]);
    let halfway = Tensor::from_vec([2], vec![1.0f32 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]).unwrap();
    let rounded = halfway.to_dtype(DType::BF16).unwrap().to_vec::<bf16>().unwrap();
    assert_eq!(rounded.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), [1.0, 1.0 + 4.0 / 256.0]);
    assert_eq!(Tensor::scalar(3i64).item().unwrap(), 3.0);
}

#[test]
fn impossible_sizes_and_shapes_are_errors() {
    assert!(matches!(Tensor::empty([usize::MAX, 2], DType::F32), Err(Error::Overflow { .. })));
    assert!(matches!(Tensor::empty([0, usize::MAX, 2], DType::I8), Err(Error::Overflow { .. })));
    assert!(matches!(Tensor::empty([1; 9], DType::F32), Err(Error::Shape { .. })));
    let x = counting(&[2, 3]);
    for result in [
        x.reshape([7]),
        x.permute(&[0, 0]),
        x.permute(&[0]),
        x.slice(2, 0..1),
        x.slice(0, 1..3),
        x.slice_step(0, 0..2, 0),
        x.select(0, usize::MAX),
        x.expand([3, 2, 4]),
        x.insert_axis(3),
        Tensor::concatenate(&[], 0),
        Tensor::concatenate(&[x.clone(), counting(&[2])], 0),
    ] {
        assert!(result.is_err());
    }
    assert!(x.as_slice::<f32>().unwrap_err().to_string().contains("expected elements of type f32, found i32"));
    assert!(Tensor::from_vec([2, 2], vec![1.0f32]).is_err());
    assert!(x.item().is_err() && x.get::<i32>(&[2, 0]).is_err());
}

#[test]
fn dropped_buffers_come_back_from_the_pool() {
    // No other test of this binary uses this size.
    let x = Tensor::empty([12_345_678], DType::U8).unwrap();
    let (id, live) = (x.memory::<u8>().unwrap().as_ptr(), qtensor::pool::usage().live);
    assert!(live >= 12_345_678 && qtensor::pool::usage().peak >= live);
    drop(x);
    let y = Tensor::empty([12_345_600], DType::U8).unwrap();
    assert_eq!(y.memory::<u8>().unwrap().as_ptr(), id);
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_sees_the_same_memory() {
    let x = counting(&[2, 3, 4]).permute(&[2, 0, 1]).unwrap().slice(0, 1..3).unwrap();
    let view = x.to_ndarray::<i32>().unwrap();
    assert_eq!(view.shape(), [2, 2, 3]);
    assert_eq!(view.iter().copied().collect::<Vec<_>>(), x.to_vec::<i32>().unwrap());
    assert_eq!(view.as_ptr(), &raw const x.buffer_slice::<i32>().unwrap()[x.layout().offset()]);
    let back = Tensor::from_ndarray(&view.t()).unwrap();
    assert_eq!(back.to_vec::<i32>().unwrap(), x.permute(&[2, 1, 0]).unwrap().to_vec::<i32>().unwrap());
    assert!(x.insert_axis(0).unwrap().expand([5, 2, 2, 3]).unwrap().to_ndarray::<i32>().is_err());
}
