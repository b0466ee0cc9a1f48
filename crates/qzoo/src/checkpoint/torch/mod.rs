//! The checkpoint files of PyTorch: what `torch.save` writes, in its zip and its legacy format.
//!
//! Reading executes nothing. A pickle is a program; before its values are looked at, every instruction is checked against the few that
//! a file of tensors needs, and every type that it names against a list of known ones, as `torch.load(weights_only=True)` does. A file that names
//! anything else, such as `os.system`, is refused with that name. The values are then interpreted by the `pytorch-reader` crate, and no tensor
//! is read that would take more bytes than the whole file.
//!
//! Writing gives the zip format with a plain dictionary of tensors.

#[cfg(feature = "import-torch")]
mod outline;
mod pickle;
#[cfg(feature = "import-torch")]
mod read;
mod write;

#[cfg(feature = "import-torch")]
pub(crate) use read::LONGEST_VALUE;
#[cfg(feature = "import-torch")]
pub use read::{TorchFile, TorchFormat, TorchTensor, read};
pub use write::write;
