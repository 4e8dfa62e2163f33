//! A trained network with everything that its use needs: `model.json` and `model.safetensors` in a folder.

use std::fs;
use std::io::Write;
use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::{Epoch, Error, Result, TrainingConfig, UNet, UNetConfig};

const FORMAT: u32 = 1;
const DESCRIPTION: &str = "model.json";
const WEIGHTS: &str = "model.safetensors";

/// What the input channels are. Prediction refuses an input of another recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Names of the channels in order, such as `B02`, …, `SCL=4`.
    pub channels: Vec<String>,
    /// Side of a pixel in metres.
    pub resolution_m: f64,
    /// How the values were normalised, in words that name every number.
    pub normalization: String,
}

impl Recipe {
    /// Checks that an input was made by this recipe.
    ///
    /// # Errors
    ///
    /// [`Error::RecipeMismatch`] names the first difference.
    pub fn check(&self, input: &Self) -> Result<()> {
        let differ = |field, expected: String, actual: String| {
            if expected == actual { Ok(()) } else { Err(Error::RecipeMismatch { field, expected, actual }) }
        };
        differ("the list of channels", self.channels.join(" "), input.channels.join(" "))?;
        differ("the resolution in metres", self.resolution_m.to_string(), input.resolution_m.to_string())?;
        differ("the normalisation", self.normalization.clone(), input.normalization.clone())
    }
}

/// How a network was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// The settings.
    pub config: TrainingConfig,
    /// Losses of each epoch.
    pub history: Vec<Epoch>,
    /// The epoch whose weights were kept.
    pub best_epoch: usize,
    /// Where the patches came from: products, files.
    pub sources: Vec<String>,
    /// The device, in words.
    pub device: String,
}

/// A network that is ready to predict.
#[derive(Debug)]
pub struct Bundle {
    /// The network in inference mode.
    pub model: UNet,
    /// What its channels are.
    pub recipe: Recipe,
    /// Probability from which a pixel counts as positive, chosen on validation.
    pub threshold: Option<f64>,
    /// How it was trained.
    pub training: Option<TrainingRecord>,
}

/// The JSON beside the weights.
#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    made_by: String,
    unet: UNetConfig,
    recipe: Recipe,
    threshold: Option<f64>,
    training: Option<TrainingRecord>,
}

impl Bundle {
    /// Writes the bundle into a folder, which is made if it is missing.
    ///
    /// Each file is written beside its target and renamed; the description comes last, so that a folder with a
    /// description has its weights.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] names the file; [`Error::Device`] when the weights cannot be read from the device.
    pub fn save(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).map_err(|source| Error::Write { path: directory.into(), source })?;
        let description = Description {
            format: FORMAT,
            made_by: concat!("unet-burn ", env!("CARGO_PKG_VERSION")).into(),
            unet: self.model.config().clone(),
            recipe: self.recipe.clone(),
            threshold: self.threshold,
            training: self.training.clone(),
        };
        let path = directory.join(DESCRIPTION);
        let json = serde_json::to_vec_pretty(&description)
            .map_err(|source| Error::Description { path: path.clone(), source })?;
        // An older description must not stand beside newer weights.
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Write { path, source });
            }
            _ => {}
        }
        write_atomic(&directory.join(WEIGHTS), &self.model.to_safetensors()?)?;
        write_atomic(&path, &json)
    }

    /// Reads a bundle and puts its network on a device.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Description`], [`Error::Version`], [`Error::UnreadableWeights`]
    /// and [`Error::Weights`] name the file.
    pub fn load(directory: &Path, device: &Device) -> Result<Self> {
        let path = directory.join(DESCRIPTION);
        let json = read(&path)?;
        let version: serde_json::Value = serde_json::from_slice(&json)
            .map_err(|source| Error::Description { path: path.clone(), source })?;
        let found = version.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if found > u64::from(FORMAT) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(Error::Version { path, found, known: FORMAT });
        }
        let description: Description =
            serde_json::from_value(version).map_err(|source| Error::Description { path, source })?;
        let weights = directory.join(WEIGHTS);
        let model = description.unet.init(device)?.load_safetensors(read(&weights)?, &weights)?;
        Ok(Self {
            model,
            recipe: description.recipe,
            threshold: description.threshold,
            training: description.training,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// Writes beside the target, syncs, renames: a half file never bears the target's name.
fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
        let mut file = builder.tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| Error::Write { path: path.into(), source })
}
