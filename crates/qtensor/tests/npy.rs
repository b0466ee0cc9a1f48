//! The `.npy` reader against files that NumPy wrote, and against damaged ones.

use proptest::prelude::*;
use qtensor::{DType, Error, Tensor, npy};

/// `numpy.save` of `np.asfortranarray(np.arange(6, dtype='<f4').reshape(2, 3))`.
fn from_numpy() -> Vec<u8> {
    let mut header = b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }".to_vec();
    header.resize(117, b' ');
    header.push(b'\n');
    let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    file.extend(header);
    [0.0f32, 3.0, 1.0, 4.0, 2.0, 5.0].iter().for_each(|v| file.extend(v.to_le_bytes()));
    file
}

#[test]
fn fortran_order() {
    let x = npy::read(&from_numpy()[..]).unwrap();
    assert_eq!(x.shape(), [2, 3]);
    assert_eq!(x.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn the_header_is_numpy_s_own() {
    let mut file = Vec::new();
    npy::write(&mut file, &Tensor::zeros([3], DType::I64).unwrap()).unwrap();
    assert_eq!(&file[..10], b"\x93NUMPY\x01\x00\x76\x00");
    assert!(file[10..].starts_with(b"{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }"));
    assert_eq!((file[127], file.len()), (b'\n', 128 + 24));
}

proptest! {
    #[test]
    fn round_trip(shape in prop::collection::vec(0usize..4, 0..4), which in 0usize..6) {
        let dtype = [DType::F32, DType::F64, DType::I8, DType::U8, DType::I32, DType::I64][which];
        let n = shape.iter().product::<usize>();
        let x = Tensor::from_vec(&shape, (0..n).map(|i| i as f64 * 3.0).collect()).unwrap().to_dtype(dtype).unwrap();
        let mut file = Vec::new();
        npy::write(&mut file, &x).unwrap();
        let y = npy::read(&file[..]).unwrap();
        prop_assert_eq!(y.dtype(), dtype);
        prop_assert_eq!(y.shape(), x.shape());
        let plain = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
        prop_assert_eq!(plain(&y), plain(&x));
    }
}

#[test]
fn every_prefix_is_refused_with_an_offset() {
    let file = from_numpy();
    for length in 0..file.len() {
        match npy::read(&file[..length]) {
            Err(Error::Format { offset, .. }) => assert!(offset as usize <= length),
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    assert!(npy::read(&[&file[..], &[0]].concat()[..]).is_err(), "bytes after the data");
}

#[test]
fn hostile_headers_are_refused_before_memory_is_taken() {
    for shape in [
        "(18446744073709551615, 2)",
        "(0, 18446744073709551615, 3)",
        "(4000000000000, )",
        "(-1,)",
        "(1,1,1,1,1,1,1,1,1)",
        "((1,)",
        "3",
    ] {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend([0; 16]);
        assert!(npy::read(&file[..]).is_err(), "{shape}");
    }
    let file = [b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes(), &[0; 64]].concat();
    assert!(npy::read(&file[..]).is_err());
}

#[test]
fn mutations_never_panic() {
    use qtensor::random::{Purpose, Stream, StreamKey};
    let file = from_numpy();
    let mut random = Stream::new(StreamKey { seed: 1, purpose: Purpose::Test, epoch: 0, index: 0 });
    for _ in 0..100_000 {
        let mut mutant = file.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(mutant.len() as u32) as usize;
            mutant[at] = random.next_u32() as u8;
        }
        if let Ok(tensor) = npy::read(&mutant[..]) {
            assert!(tensor.numel() * tensor.dtype().size() <= file.len());
        }
    }
}
