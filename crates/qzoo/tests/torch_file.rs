//! Checkpoint files of PyTorch: what torch.save has written, what we write, and what nobody should read.

#![cfg(feature = "import-torch")]

use qtensor::{DType, Tensor};
use qzoo::checkpoint::torch::{self, TorchFormat};
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

const ZIP: &[u8] = include_bytes!("golden/zip.pth");
const LEGACY: &[u8] = include_bytes!("golden/legacy.pth");

/// The values that `xtask/golden/checkpoints.py` writes, row-major.
fn values(count: usize) -> Vec<f64> {
    (0..count).map(|i| ((7 * i * i % 31) as f64 - 15.0) / 8.0).collect()
}

/// Rows become columns.
fn transposed(values: &[f64], rows: usize) -> Vec<f64> {
    let columns = values.len() / rows;
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("file.pth");
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
}

#[test]
fn what_torch_has_saved_is_read() {
    let folder = Folder::new();
    for (bytes, format) in [(ZIP, TorchFormat::Zip), (LEGACY, TorchFormat::Legacy)] {
        let file = torch::read(&folder.file(bytes)).unwrap();
        assert_eq!(file.format, format);
        let tiny: Vec<f64> = values(2).iter().map(|v| v * 2f64.powi(-20)).collect();
        let expected = [
            ("net.module.conv.weight", vec![2, 1, 3, 3], DType::F32, values(18)),
            ("net.module.conv.bias", vec![2], DType::F32, tiny),
            ("net.module.bn.weight", vec![2], DType::F32, values(2)),
            ("net.module.bn.bias", vec![2], DType::BF16, values(2)),
            ("net.module.bn.running_mean", vec![2], DType::F64, values(2)),
            ("net.module.bn.running_var", vec![2], DType::F32, vec![values(6)[0], values(6)[2]]),
            ("net.module.bn.num_batches_tracked", vec![], DType::I64, vec![39200.0]),
            ("net.module.fc.weight", vec![3, 2], DType::F32, transposed(&values(6), 2)),
            ("optimizer.state.0.momentum_buffer", vec![4], DType::F32, values(4)),
        ];
        assert_eq!(file.tensors.len(), expected.len());
        for (tensor, (name, shape, dtype, values)) in file.tensors.iter().zip(expected) {
            assert_eq!((tensor.name.as_str(), tensor.shape()), (name, shape.as_slice()));
            let read = tensor.read().unwrap();
            assert_eq!((read.dtype(), doubles(&read)), (dtype, values), "{name}");
        }
        let found: Vec<(&str, String)> = file.values.iter().map(|(name, v)| (name.as_str(), v.to_string())).collect();
        let expected = [("acc", "93.25"), ("epoch", "7"), ("note", "\"best\""), ("best", "true")];
        // `best` stands first as the value of `note`.
        assert_eq!(found.len(), 4);
        assert!(expected.iter().all(|(name, value)| found.contains(&(*name, value.to_string()))), "{found:?}");
    }
}

/// Tensors of every element type, of no, one and several dimensions, empty and strided.
fn many() -> Vec<(&'static str, Tensor)> {
    let bits: Vec<f32> = [0u32, 0x8000_0000, 1, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_1234].map(f32::from_bits).into();
    let matrix = Tensor::from_vec([2, 3], bits).unwrap();
    vec![
        ("b.weight", matrix.clone()),
        ("a.strided", matrix.permute(&[1, 0]).unwrap()),
        ("a.num_batches_tracked", Tensor::scalar(-5i64)),
        ("empty", Tensor::from_vec([0, 3], Vec::<f32>::new()).unwrap()),
        ("f64", Tensor::from_vec([2], vec![1.0f64, -0.0]).unwrap()),
        ("bf16", matrix.to_dtype(DType::BF16).unwrap()),
        ("i8", Tensor::from_vec([1, 2], vec![-1i8, 127]).unwrap()),
        ("u8", Tensor::from_vec([1, 1, 2], vec![0u8, 255]).unwrap()),
        ("i32", Tensor::from_vec([1], vec![i32::MIN]).unwrap()),
        ("a name with \"quotes\" and ümläuts", Tensor::scalar(2.5f32)),
    ]
}

fn written(tensors: &[(&str, Tensor)]) -> Vec<u8> {
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    torch::write(&mut file, &tensors).unwrap();
    file.into_inner()
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let mut file = Vec::new();
    qzoo::checkpoint::safetensors::write(&mut file, &[("x", tensor)], &[]).unwrap();
    file
}

#[test]
fn what_is_written_is_read_bit_for_bit() {
    let (folder, many) = (Folder::new(), many());
    let bytes = written(&many);
    assert_eq!(bytes, written(&many), "equal tensors give equal bytes");
    let file = torch::read(&folder.file(&bytes)).unwrap();
    assert_eq!(file.tensors.len(), many.len());
    for (read, (name, tensor)) in file.tensors.iter().zip(&many) {
        assert_eq!((read.name.as_str(), read.shape()), (*name, tensor.shape().as_ref()));
        assert_eq!(bytes_of(&read.read().unwrap()), bytes_of(tensor), "{name}");
    }
    let twice: Vec<(&str, &Tensor)> = vec![("x", &many[0].1), ("x", &many[0].1)];
    assert!(torch::write(Cursor::new(Vec::new()), &twice).is_err());
}

/// Reads all of a file; the message of its first error.
fn read_all(path: &Path) -> Result<(), String> {
    let file = torch::read(path).map_err(|error| error.to_string())?;
    file.tensors.iter().try_for_each(|tensor| tensor.read().map(drop).map_err(|error| error.to_string()))
}

#[test]
fn every_prefix_is_refused() {
    let folder = Folder::new();
    for whole in [written(&many()), ZIP.to_vec(), LEGACY.to_vec()] {
        for length in 0..whole.len() {
            let message = read_all(&folder.file(&whole[..length])).expect_err("a prefix");
            assert!(message.contains("file.pth"), "{length}: {message}");
        }
        read_all(&folder.file(&whole)).unwrap();
    }
}

#[test]
fn flipped_bits_and_mutations_never_panic() {
    let folder = Folder::new();
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % below.max(1)
    };
    for whole in [written(&many()), ZIP.to_vec(), LEGACY.to_vec()] {
        let mut refused = 0;
        for byte in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1 << next(8);
            refused += usize::from(read_all(&folder.file(&bytes)).is_err());
        }
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..=next(4) {
                bytes.extend(bytes.is_empty().then_some(0));
                let (at, other, length) = (next(bytes.len()), next(bytes.len()), next(40));
                match next(4) {
                    0 => bytes[at] = next(256) as u8,
                    1 => drop(bytes.drain(at..(at + length).min(bytes.len()))),
                    2 => bytes.splice(at..at, std::iter::repeat_n(next(256) as u8, length)).for_each(drop),
                    _ => {
                        let copied = bytes[other..(other + length).min(bytes.len())].to_vec();
                        bytes.splice(at..at, copied).for_each(drop);
                    }
                }
            }
            refused += usize::from(read_all(&folder.file(&bytes)).is_err());
        }
        assert!(refused > 1000, "only {refused} were refused");
    }
}

/// The zip file with another pickle.
fn with_pickle(change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut old = zip::ZipArchive::new(Cursor::new(ZIP)).unwrap();
    let mut new = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for i in 0..old.len() {
        let mut member = old.by_index(i).unwrap();
        let (name, mut bytes) = (member.name().unwrap().to_string(), Vec::new());
        member.read_to_end(&mut bytes).unwrap();
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        new.start_file(&name, options).unwrap();
        new.write_all(&if name.ends_with("data.pkl") { change(&bytes) } else { bytes }).unwrap();
    }
    new.finish().unwrap().into_inner()
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("it is there");
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

#[test]
fn foreign_objects_are_refused_by_name() {
    let folder = Folder::new();
    let system = b"\x80\x02cos\nsystem\nX\x0a\x00\x00\x00touch /tmp\x85R.";
    let message = read_all(&folder.file(&with_pickle(|_| system.to_vec()))).unwrap_err();
    assert!(
        message.contains("`os.system`") && message.contains("file.pth") && message.contains("state_dict"),
        "{message}"
    );
    // Hidden in a sound file, in both formats.
    let hide = |bytes: &[u8]| replaced(bytes, b"ccollections\nOrderedDict\n", b"cbuiltins\nexec\n");
    for bytes in [with_pickle(hide), hide(LEGACY)] {
        let message = read_all(&folder.file(&bytes)).unwrap_err();
        assert!(message.contains("`builtins.exec`"), "{message}");
    }
    // In the pickles before that of the tensors.
    let early = [b"\x80\x02cposix\nsystem\n.", LEGACY].concat();
    assert!(read_all(&folder.file(&early)).unwrap_err().contains("`posix.system`"));
}

#[test]
fn huge_sizes_are_refused_before_memory_is_taken() {
    let folder = Folder::new();
    // A shape of 2 x 1 x 3 x 3 with strides: BININT1s in a tuple after a MARK.
    let shape = b"(K\x02K\x01K\x03K\x03t";
    for huge in [
        &b"(K\x02K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"[..],
        b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft",
        b"(J\xff\xff\xff\xffK\x01K\x03K\x03t",
        b"(K\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft",
    ] {
        for bytes in [with_pickle(|bytes| replaced(bytes, shape, huge)), replaced(LEGACY, shape, huge)] {
            let outcome = read_all(&folder.file(&bytes));
            assert!(outcome.is_err(), "{huge:?}");
        }
    }
    // Strides of 0 let two billion elements stand on one.
    let expanded = |bytes: &[u8]| {
        let wide = replaced(bytes, shape, b"(K\x01K\x01K\x01J\x00\x00\x00\x70t");
        replaced(&wide, b"(K\x09K\x09K\x03K\x01t", b"(K\x00K\x00K\x00K\x00t")
    };
    for bytes in [with_pickle(expanded), expanded(LEGACY)] {
        let message = read_all(&folder.file(&bytes)).unwrap_err();
        assert!(message.contains("net.module.conv.weight") && message.contains("whole file"), "{message}");
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let folder = Folder::new();
    let mut other = zip::ZipWriter::new(Cursor::new(Vec::new()));
    other
        .start_file(
            "a.txt",
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
        )
        .unwrap();
    for (bytes, expected) in [
        (Vec::new(), "neither"),
        (bytes_of(&Tensor::scalar(1.0f32)), "neither"),
        (b"\x80\x04}.".to_vec(), "neither"),
        (b"\x80\x02}.".to_vec(), "cut"),
        (other.finish().unwrap().into_inner(), "without data.pkl"),
        (with_pickle(|_| b"\x80\x02K\x01.".to_vec()), "dictionary"),
    ] {
        let message = read_all(&folder.file(&bytes)).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert!(read_all(folder.0.path()).unwrap_err().contains("is not a file"));
    assert!(read_all(&folder.0.path().join("absent.pth")).unwrap_err().contains("absent.pth"));
}
