//! What can go wrong, sorted by whose fault it is.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a network could not be made, trained, stored or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A window size that the network's poolings and convolutions cannot divide.
    #[error(
        "{size} is no valid input size for {levels} levels and kernel {kernel}: use {}{above}",
        below.map_or_else(String::new, |below| format!("{below} or "))
    )]
    InvalidSize {
        /// The size asked for, in pixels.
        size: usize,
        /// Number of poolings.
        levels: usize,
        /// Side of the convolution kernels.
        kernel: usize,
        /// The next smaller valid size, if there is one.
        below: Option<usize>,
        /// The next larger valid size.
        above: usize,
    },
    /// A configuration that describes no network or no loss.
    #[error("{field} is {value}: {requirement}")]
    InvalidConfig {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        requirement: &'static str,
    },
    /// Patches of another shape than the network takes.
    #[error("input is {actual:?}, but the network takes [batch, {in_channels}, size, size]")]
    InputShape {
        /// The shape given.
        actual: Vec<usize>,
        /// Channels that the network takes.
        in_channels: usize,
    },
    /// A patch that no network can learn from.
    #[error("{name} cannot be learned from: {problem}")]
    Patch {
        /// The patch's name.
        name: String,
        /// Its fault, with its place and value.
        problem: String,
    },
    /// A patch that could not be read.
    #[error("cannot read patch {index} of its set")]
    ReadPatch {
        /// Its number, from 0.
        index: usize,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The training or validation set holds no patch.
    #[error("the {split} set holds no patch")]
    NoPatches {
        /// `training` or `validation`.
        split: &'static str,
    },
    /// The input of a prediction was made by another recipe than the network's training data.
    #[error("the model was trained on other input: {field} is {actual} here, but {expected} in the model")]
    RecipeMismatch {
        /// The part of the recipe that differs first.
        field: &'static str,
        /// The model's value.
        expected: String,
        /// The input's value.
        actual: String,
    },
    /// The loss is no number any more, or that of an epoch ten times the largest of at least three before.
    #[error(
        "the {split} loss became {loss} in epoch {epoch}{}: lower the learning rate, or look at the patches",
        if loss.is_finite() { ", ten times what it has been" } else { "" }
    )]
    Diverged {
        /// `training` or `validation`.
        split: &'static str,
        /// The epoch, from 1.
        epoch: usize,
        /// The loss.
        loss: f64,
    },
    /// Another run left its checkpoint where this one would begin.
    #[error("{} is the checkpoint of a run: resume it, or remove it", path.display())]
    CheckpointExists {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The checkpoint of another network, other settings or other data.
    #[error("{} belongs to another run: {field} is {actual} here, but {expected} there", path.display())]
    CheckpointMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The first thing that differs.
        field: String,
        /// Its value in the checkpoint.
        expected: String,
        /// Its value in this run.
        actual: String,
    },
    /// A damaged checkpoint.
    #[error("{} is no part of a checkpoint: {message}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The training loop stopped on an error.
    #[error("training stopped: {message}")]
    Training {
        /// burn's own words.
        message: String,
    },
    /// Instructions that the processor does not have.
    #[error("UNET_BURN_INSTRUCTIONS={asked}: this processor has {available}; leave it out to use the first")]
    Instructions {
        /// What the variable says.
        asked: String,
        /// What there is, the fastest first.
        available: String,
    },
    /// The device failed while it computed or copied.
    #[error("the device failed: {message}")]
    Device {
        /// burn's own words.
        message: String,
    },
    /// The device has too little memory for what it was asked to compute.
    #[error("the device is out of memory: {message}")]
    OutOfMemory {
        /// burn's own words.
        message: String,
    },
    /// A file of a model bundle cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of a model bundle cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The description of a model bundle is no valid JSON of its kind.
    #[error("{} is no description of a model", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// A model bundle of a version that this release does not know.
    #[error("{} has format version {found}, but this release reads version {known}: update unet-burn", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version that is known.
        known: u32,
    },
    /// A file of weights that cannot be read.
    #[error("{} is no whole file of weights ({message}): was it cut off? Copy it again", path.display())]
    UnreadableWeights {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        message: String,
    },
    /// Weights that do not fit the network that the description names.
    #[error("the weights of {} do not fit the network: {message}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The first mismatch.
        message: String,
    },
}
