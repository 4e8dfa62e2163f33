//! Weights as SafeTensors, under the names that a PyTorch module of the same layout gives them.
//!
//! `encoder.0.convs.first.weight`, `encoder.0.norm.running_mean`, `decoder.3.up.bias`, `head.weight`, …: shapes
//! and names are those of `state_dict()`, so that the file loads in PyTorch and comes back.

use std::path::Path;

use burn::store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};

use crate::{Error, Result, UNet};

impl UNet {
    /// The weights as the bytes of a SafeTensors file.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] when they cannot be read from the device.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let mut store = SafetensorsStore::from_bytes(None).with_to_adapter(BurnToPyTorchAdapter);
        let device_error = |error: String| Error::Device { message: error };
        self.save_into(&mut store).map_err(|error| device_error(error.to_string()))?;
        store.get_bytes().map_err(|error| device_error(error.to_string()))
    }

    /// Replaces the weights by those of a SafeTensors file; `path` is named in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Weights`] names the first tensor that is missing, of another shape, or one too many.
    pub fn load_safetensors(mut self, bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let mismatch = |message: String| Error::Weights { path: path.to_path_buf(), message };
        let mut store = SafetensorsStore::from_bytes(Some(bytes))
            .with_from_adapter(PyTorchToBurnAdapter)
            .allow_partial(true)
            .validate(false);
        let applied = self.load_from(&mut store).map_err(|error| mismatch(error.to_string()))?;
        if let Some(error) = applied.errors.first() {
            return Err(mismatch(error.to_string()));
        }
        if let Some((name, _)) = applied.missing.first() {
            return Err(mismatch(format!("{name} is missing")));
        }
        if let Some(name) = applied.unused.first() {
            return Err(mismatch(format!("the network has no {name}")));
        }
        Ok(self)
    }
}
