//! Weights under the names and in the shapes of a PyTorch module of the same layout: SafeTensors both ways, `.pt`
//! in.
//!
//! `encoder.0.convs.first.weight`, `encoder.0.norm.running_mean`, `decoder.3.up.bias`, `head.weight`, …: the README
//! lists them all.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use burn::store::{
    ApplyError, ApplyResult, BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, PytorchStore,
    SafetensorsStore,
};

use serde_json::Value;

use crate::{Error, Result, UNet};

/// The same file with the entries of its header in order: equal weights have equal bytes.
///
/// A file is the length of its header (8 bytes, little endian), the header (JSON, padded by blanks to a multiple of 8),
/// and the values.
fn sorted(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (header, values) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let mut entries: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(header).ok()?;
    let about = entries.remove("__metadata__");
    let mut header = serde_json::to_string(&entries).ok()?;
    if let Some(about) = about {
        let comma = if entries.is_empty() { "" } else { "," };
        header.insert_str(1, &format!("\"__metadata__\":{}{comma}", serde_json::to_string(&about).ok()?));
    }
    let padded = header.len().next_multiple_of(8);
    let mut out = (padded as u64).to_le_bytes().to_vec();
    out.extend(header.bytes().chain(std::iter::repeat_n(b' ', padded - header.len())));
    out.extend(values);
    Some(out)
}

/// PyTorch's count of the batches that a norm has seen: no weight.
const BATCH_COUNT: &str = "num_batches_tracked";

impl UNet {
    /// The weights as the bytes of a SafeTensors file.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] when they cannot be read from the device.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let mut store =
            SafetensorsStore::from_bytes(None).with_to_adapter(BurnToPyTorchAdapter).skip_enum_variants(true);
        let device_error = |error: String| Error::Device { message: error };
        self.save_into(&mut store).map_err(|error| device_error(error.to_string()))?;
        let bytes = store.get_bytes().map_err(|error| device_error(error.to_string()))?;
        Ok(sorted(&bytes).unwrap_or(bytes))
    }

    /// Replaces the weights by those of a SafeTensors file; `path` is named in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Weights`] names the first tensor that is missing, of another shape, or one too many;
    /// [`Error::UnreadableWeights`] is for what is no whole SafeTensors file.
    pub fn load_safetensors(mut self, bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let mut store = SafetensorsStore::from_bytes(Some(bytes))
            .with_from_adapter(PyTorchToBurnAdapter)
            .skip_enum_variants(true)
            .allow_partial(true)
            .validate(false);
        let applied = self.load_from(&mut store);
        check(applied, path).map(|()| self)
    }

    /// Replaces the weights by those of a PyTorch file (`.pt`, `.pth`): a `state_dict()` as `torch.save` writes it. It is read
    /// without running anything in it.
    ///
    /// # Errors
    ///
    /// [`Error::Weights`] names the first tensor that is missing, of another shape, or one too many;
    /// [`Error::UnreadableWeights`] is for what cannot be read.
    pub fn load_pytorch(mut self, path: &Path) -> Result<Self> {
        let mut store =
            PytorchStore::from_file(path).map_indices_contiguous(false).allow_partial(true).validate(false);
        let applied = self.load_from(&mut store);
        check(applied, path).map(|()| self)
    }
}

/// The first difference between a file and the network.
fn check(applied: Result<ApplyResult, impl Display>, path: &Path) -> Result<()> {
    let mismatch = |message: String| Err(Error::Weights { path: path.to_path_buf(), message });
    let applied = match applied {
        Ok(applied) => applied,
        Err(error) => {
            return Err(Error::UnreadableWeights { path: path.to_path_buf(), message: error.to_string() });
        }
    };
    match applied.errors.first() {
        Some(ApplyError::ShapeMismatch { path, expected, found }) => {
            let (name, found, expected) = (pytorch_name(path), &found[..], &expected[..]);
            return mismatch(format!("{name} is {found:?} in the file, but {expected:?} in the network"));
        }
        Some(error) => return mismatch(error.to_string()),
        None => {}
    }
    if let Some((name, _)) = applied.missing.first() {
        return mismatch(format!("the file has no {}", pytorch_name(name)));
    }
    if let Some(name) = applied.unused.iter().find(|name| !name.ends_with(BATCH_COUNT)) {
        return mismatch(format!("the network has no {name}"));
    }
    Ok(())
}

/// burn has other names for the two weights of a norm.
fn pytorch_name(name: &str) -> String {
    let suffixes = [(".gamma", ".weight"), (".beta", ".bias")];
    let renamed =
        suffixes.iter().find_map(|(ours, theirs)| Some(format!("{}{theirs}", name.strip_suffix(ours)?)));
    renamed.unwrap_or_else(|| name.into())
}
