//! Files that are exchanged with PyTorch itself, where `python3` has it.

#![cfg(feature = "import-torch")]

use qtensor::{DType, Tensor};
use qzoo::checkpoint::{safetensors, torch};
use qzoo::experiment::{ModelName, NeuronName};
use qzoo::models::Model;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

/// Loads our files, compares them with each other, and saves what it has loaded in both formats; prints what every tensor is.
const LOAD: &str = "
import sys, hashlib, torch
folder = sys.argv[1]
state = torch.load(folder + '/ours.pth', weights_only=True)
try:
    import safetensors.torch
    other = safetensors.torch.load_file(folder + '/ours.safetensors')
    assert set(other) == set(state)
    for name, value in state.items():
        assert other[name].dtype == value.dtype and other[name].shape == value.shape, name
        assert other[name].reshape(-1).view(torch.uint8).equal(value.reshape(-1).view(torch.uint8)), name
    print('safetensors')
except ImportError:
    print('no safetensors')
for name, value in state.items():
    digest = hashlib.sha256(bytes(value.contiguous().reshape(-1).view(torch.uint8).tolist())).hexdigest()
    print(name, str(value.dtype), list(value.shape), digest)
torch.save(state, folder + '/zip.pth')
torch.save(state, folder + '/legacy.pth', _use_new_zipfile_serialization=False)
";

fn python(arguments: &[&str]) -> Option<String> {
    let output = Command::new("python3").args(arguments).output().ok()?;
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let missing = message.contains("No module named 'torch'");
    assert!(missing, "{message}");
    None
}

fn digest(tensor: &Tensor) -> String {
    use sha2::Digest;
    let tensor = tensor.contiguous();
    let bytes: Vec<u8> = match tensor.dtype() {
        DType::F32 => tensor.to_vec::<f32>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ => tensor.to_vec::<i64>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn pytorch_reads_what_we_write_and_we_read_what_it_writes() {
    let config = qzoo::experiment::Model {
        name: ModelName::ResNet10,
        neuron: NeuronName::Ours,
        width: 0.25,
        ..Default::default()
    };
    let model = Model::build(&config, [3, 32, 32], 10, 1).unwrap();
    let tensors: Vec<(&str, &Tensor)> = model.parameters().named().collect();
    let folder = tempfile::tempdir().unwrap();
    let mut file = Cursor::new(Vec::new());
    torch::write(&mut file, &tensors).unwrap();
    std::fs::write(folder.path().join("ours.pth"), file.into_inner()).unwrap();
    let mut file = Vec::new();
    safetensors::write(&mut file, &tensors, &[("format", "pt")]).unwrap();
    std::fs::write(folder.path().join("ours.safetensors"), file).unwrap();

    let Some(said) = python(&["-c", LOAD, folder.path().to_str().unwrap()]) else {
        eprintln!("skipped: python3 with torch is not installed");
        return;
    };
    let mut lines = said.lines();
    if lines.next() == Some("no safetensors") {
        eprintln!("not compared: python3 has torch, but not safetensors");
    }
    let found: Vec<&str> = lines.collect();
    let expected: Vec<String> = tensors
        .iter()
        .map(|(name, tensor)| {
            let dtype = if tensor.dtype() == DType::I64 { "torch.int64" } else { "torch.float32" };
            format!("{name} {dtype} {:?} {}", tensor.shape().to_vec(), digest(tensor))
        })
        .collect();
    assert_eq!(found, expected);
    for file in ["ours.pth", "zip.pth", "legacy.pth"] {
        same(&folder.path().join(file), &tensors);
    }
}

fn same(path: &Path, expected: &[(&str, &Tensor)]) {
    let file = torch::read(path).unwrap();
    assert_eq!(file.tensors.len(), expected.len());
    for (read, (name, tensor)) in file.tensors.iter().zip(expected) {
        assert_eq!((read.name.as_str(), read.shape()), (*name, tensor.shape().as_ref()), "{}", path.display());
        let value = read.read().unwrap();
        assert_eq!((value.dtype(), digest(&value)), (tensor.dtype(), digest(tensor)), "{name}");
    }
}
