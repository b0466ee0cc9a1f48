//! Checkpoints: exact to the bit, and never a damaged one taken for sound.

use qtensor::random::{Purpose as Draw, Stream, StreamKey};
use qtensor::{DType, Tensor};
use qzoo::checkpoint::{
    self, Checkpoint, CheckpointError, CheckpointFolder, Normalization, Position, Purpose, RunningTotals, State,
};
use std::io::{self, Write};
use std::path::Path;

fn state(step: u64) -> State {
    State {
        purpose: Purpose::Training,
        experiment: "name = \"tiny\"\n".into(),
        classes: vec!["cat".into(), "døg".into()],
        image_shape: [3, 8, 8],
        normalization: Normalization { mean: vec![0.25], std: vec![f64::from(0.3f32)] },
        limit_batches: None,
        epochs: 3,
        position: Position { epoch: 1, step_in_epoch: 2, step },
        totals: RunningTotals { images: 96, loss: 0.1 + 0.2, correct: 1.0 / 3.0 },
        history: Vec::new(),
        best: None,
        metric_lines: 3,
        finished: false,
        quantization: None,
    }
}

fn tiny(step: u64) -> Checkpoint {
    let odd = vec![f32::NAN, -0.0, f32::from_bits(1), f32::MAX, step as f32, f32::from_bits(0x7fc0_1234)];
    let weight = Tensor::from_vec([2, 3], odd).unwrap();
    let tensors = vec![
        ("fc.weight".into(), weight.clone()),
        ("fc.bias".into(), Tensor::from_vec([2], vec![0.1f32, 0.2]).unwrap()),
        ("bn.num_batches_tracked".into(), Tensor::scalar(step as i64)),
        ("empty".into(), Tensor::zeros([0, 4], DType::F64).unwrap()),
        ("optimizer:momentum:fc.weight".into(), weight.permute(&[1, 0]).unwrap()),
    ];
    Checkpoint { state: state(step), tensors }
}

fn bytes(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut bytes = Vec::new();
    checkpoint.write_to(&mut bytes).unwrap();
    bytes
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_round_trip_keeps_every_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    let saved = tiny(7);
    saved.save(&path).unwrap();
    let loaded = Checkpoint::load(&path).unwrap();
    assert_eq!(loaded.state, saved.state);
    assert_eq!(loaded.state.totals.loss.to_bits(), (0.1f64 + 0.2).to_bits());
    assert_eq!(loaded.tensors.len(), saved.tensors.len());
    for ((name, tensor), (saved_name, saved)) in loaded.tensors.iter().zip(&saved.tensors) {
        assert_eq!(name, saved_name);
        assert_eq!((tensor.shape(), tensor.dtype()), (saved.shape(), saved.dtype()));
    }
    assert_eq!(bits(&loaded.tensors[0].1), bits(&saved.tensors[0].1));
    assert_eq!(bits(&loaded.tensors[4].1), bits(&saved.tensors[4].1));
    assert_eq!(loaded.get("bn.num_batches_tracked").unwrap().item().unwrap(), 7.0);
    assert_eq!(loaded.with_prefix("optimizer:momentum:").map(|(n, _)| n).collect::<Vec<_>>(), ["fc.weight"]);
    assert_eq!(loaded.weights_digest().unwrap(), saved.weights_digest().unwrap());
    assert_ne!(tiny(8).weights_digest().unwrap(), saved.weights_digest().unwrap());
    assert_eq!(bytes(&loaded), bytes(&saved), "the same checkpoint is the same bytes");
}

#[test]
fn other_readers_of_the_format_agree() {
    let bytes = bytes(&tiny(7));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("fc.bias").unwrap();
    assert_eq!((view.dtype(), view.shape()), (safetensors::Dtype::F32, [2].as_slice()));
    assert_eq!(view.data(), bytemuck::cast_slice::<f32, u8>(&[0.1, 0.2]));
    assert_eq!(bytes.len() % 2, 0);
}

#[test]
fn every_prefix_is_refused_with_file_and_offset() {
    let bytes = bytes(&tiny(7));
    assert!(bytes.len() <= 4096);
    for length in 0..bytes.len() {
        let error = Checkpoint::parse(&bytes[..length], Path::new("cut.safetensors")).unwrap_err();
        assert!(matches!(&error, CheckpointError::Damaged { offset, .. } if *offset <= length as u64), "{error}");
        assert!(error.to_string().starts_with("cut.safetensors: "), "{error}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Checkpoint::parse(&longer, Path::new("long")).is_err());
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut bytes = bytes(&tiny(7));
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Checkpoint::parse(&bytes, Path::new("flipped")).is_err(), "bit {bit} changed unseen");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    Checkpoint::parse(&bytes, Path::new("restored")).unwrap();
}

/// A hostile file may carry a right digest or none at all, so the parser is also attacked behind it.
#[test]
fn mutations_neither_panic_nor_allocate_without_bound() {
    let checkpoint = bytes(&tiny(7));
    let mut plain = Vec::new();
    let header = br#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"I8","shape":[4],"data_offsets":[24,28]},"__metadata__":{"k":"v"}}"#;
    plain.extend((header.len() as u64).to_le_bytes());
    plain.extend(header);
    plain.extend([7; 28]);
    checkpoint::safetensors::parse(&plain, Path::new("plain")).unwrap();
    let mut random = Stream::new(StreamKey { seed: 1, purpose: Draw::Test, epoch: 0, index: 0 });
    let mut accepted = 0;
    for round in 0..120_000 {
        let seed = if round % 3 == 0 { &checkpoint } else { &plain };
        let mut bytes = seed.clone();
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, &mut random);
        }
        if bytes == *seed {
            continue;
        }
        match checkpoint::safetensors::parse(&bytes, Path::new("mutated")) {
            Ok(file) => {
                assert!(round % 3 != 0 || !file.has_digest, "a damaged checkpoint was accepted");
                let size: usize = file.tensors.iter().map(|(_, t)| t.numel() * t.dtype().size()).sum();
                assert!(size <= bytes.len(), "{size} bytes of elements from {} bytes", bytes.len());
                accepted += 1;
            }
            Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
        }
        if round % 3 == 0 {
            assert!(Checkpoint::parse(&bytes, Path::new("mutated")).is_err());
        }
    }
    assert!(accepted > 100, "mutations must reach past the header: {accepted}");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Stream) {
    let at = random.below(bytes.len().max(1) as u32) as usize;
    match random.below(6) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = random.next_u32() as u8,
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.next_u32() as u8),
        4 if !bytes.is_empty() => bytes[at] = b"0123456789[]{},:\"-"[random.below(18) as usize],
        _ => {
            let end = (at + random.below(16) as usize).min(bytes.len());
            let piece = bytes[at.min(end)..end].to_vec();
            let target = random.below(bytes.len().max(1) as u32) as usize;
            bytes.splice(target..target, piece);
        }
    }
}

#[test]
fn hostile_headers_are_refused() {
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(std::iter::repeat_n(0, data));
        checkpoint::safetensors::parse(&bytes, Path::new("hostile")).map(|_| ()).map_err(|e| e.to_string())
    };
    let entry =
        |shape: &str, offsets: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
    assert_eq!(file(&entry("[2]", "[0,8]"), 8), Ok(()));
    for (shape, offsets, data) in [
        ("[0,18446744073709551615]", "[0,0]", 0),
        ("[4294967296,4294967296]", "[0,0]", 0),
        ("[4611686018427387904,4]", "[0,0]", 0),
        ("[-1]", "[0,4]", 4),
        ("[2]", "[0,4]", 4),
        ("[2]", "[8,0]", 8),
        ("[2]", "[4,12]", 12),
        ("[2]", "[0,8]", 9),
        ("[1,1,1,1,1,1,1,1,1]", "[0,4]", 4),
    ] {
        assert!(file(&entry(shape, offsets), data).is_err(), "{shape} {offsets}");
    }
    let twice =
        r#"{"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}"#;
    assert!(file(twice, 0).unwrap_err().contains("two tensors have the name `a`"));
    let half = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;
    assert!(file(half, 2).unwrap_err().contains("not supported"));
    assert!(file(&"[".repeat(100_000), 0).is_err());
    assert!(file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0).is_err());
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.push(b'{');
    assert!(checkpoint::safetensors::parse(&huge, Path::new("huge")).is_err());
}

#[test]
fn wrong_kinds_of_file_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let plain = [("a", &Tensor::scalar(1.0f32))];
    let mut bytes = Vec::new();
    checkpoint::safetensors::write(&mut bytes, &plain, &[]).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    assert!(Checkpoint::load(&path).unwrap_err().to_string().contains("not a checkpoint"));
    bytes.clear();
    checkpoint::safetensors::write(&mut bytes, &plain, &[("format", "quartz-checkpoint"), ("version", "99")]).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    assert!(Checkpoint::load(&path).unwrap_err().to_string().contains("version 99"));
    assert!(Checkpoint::load(folder.path()).unwrap_err().to_string().contains("is not a file"));
    assert!(Checkpoint::load(&folder.path().join("no")).unwrap_err().to_string().contains("cannot open"));
}

#[test]
fn names_must_be_unique_when_writing() {
    let one = Tensor::scalar(1.0f32);
    let mut out = Vec::new();
    assert!(checkpoint::safetensors::write(&mut out, &[("a", &one), ("a", &one)], &[]).is_err());
    assert!(checkpoint::safetensors::write(&mut out, &[("__metadata__", &one)], &[]).is_err());
    assert!(checkpoint::safetensors::write(&mut out, &[("a", &one)], &[("sha256", "0")]).is_err());
}

/// A disk that is full after so many bytes.
struct FullAfter<W> {
    inner: W,
    left: usize,
}

impl<W: Write> Write for FullAfter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = self.inner.write(&bytes[..bytes.len().min(self.left)])?;
        self.left -= count;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    tiny(1).save(&path).unwrap();
    let size = bytes(&tiny(2)).len();
    for left in 0..size {
        let mut file = checkpoint::atomic::AtomicFile::create(&path).unwrap();
        let error = tiny(2).write_to(&mut FullAfter { inner: &mut file, left }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        drop(file);
        assert_eq!(Checkpoint::load(&path).unwrap().state.position.step, 1);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

fn names(path: &Path) -> Vec<String> {
    let list = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = list.collect();
    names.sort();
    names
}

#[test]
fn earlier_checkpoints_are_kept_and_used_when_the_last_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints");
    let mut checkpoints = CheckpointFolder::open(&path, 1).unwrap();
    assert!(checkpoints.load_newest().unwrap().is_none());
    for step in [10, 20, 30, 30] {
        checkpoints.save_last(&tiny(step)).unwrap();
    }
    assert_eq!(names(&path), ["last.safetensors", "step-20.safetensors"]);

    let sound = std::fs::read(checkpoints.last()).unwrap();
    std::fs::write(checkpoints.last(), &sound[..sound.len() / 2]).unwrap();
    std::fs::write(path.join(".last.safetensors.1-1.partial"), "left by a killed process").unwrap();
    let mut reopened = CheckpointFolder::open(&path, 1).unwrap();
    let loaded = reopened.load_newest().unwrap().unwrap();
    assert_eq!((loaded.checkpoint.state.position.step, loaded.damaged.len()), (20, 1));
    assert!(loaded.damaged[0].to_string().contains("last.safetensors"));
    // The damaged file is replaced, and does not get a second name.
    reopened.save_last(&tiny(30)).unwrap();
    assert_eq!(names(&path), ["last.safetensors", "step-20.safetensors"]);
    assert_eq!(Checkpoint::load(&reopened.last()).unwrap().state.position.step, 30);

    std::fs::remove_file(reopened.last()).unwrap();
    let mut without_last = CheckpointFolder::open(&path, 2).unwrap();
    assert_eq!(without_last.load_newest().unwrap().unwrap().checkpoint.state.position.step, 20);
    for step in [30, 40] {
        without_last.save_last(&tiny(step)).unwrap();
    }
    assert_eq!(names(&path), ["last.safetensors", "step-20.safetensors", "step-30.safetensors"]);

    for name in names(&path) {
        std::fs::write(path.join(name), "x").unwrap();
    }
    let error = CheckpointFolder::open(&path, 1).unwrap().load_newest().unwrap_err();
    assert!(error.to_string().contains("last.safetensors"), "{error}");
}
