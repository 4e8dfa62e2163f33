//! The state of a run on disk after each epoch, and the way back from it.
//!
//! ```text
//! folder/epoch-000012/   state.json      network, settings, facts, history
//!                        model.bpk       weights and statistics of the last epoch
//!                        optimizer.bpk   Adam's moments
//!                        best.bpk        weights and statistics of the best epoch so far
//! ```
//!
//! A checkpoint is written into a hidden folder, synced, and renamed: what bears the name of an epoch is whole.
//! The order of the patches, their augmentation and dropout follow from the seed and the number of the epoch,
//! the step size from the history, so no generator's state is kept.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use burn::train::checkpoint::{Checkpointer, CheckpointerError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::{self, History};
use super::{Failure, Schedule, TrainingConfig, lock};
use crate::{Epoch, Error, Result, UNetConfig};

const FORMAT: u32 = 1;
const STATE: &str = "state.json";
const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const BEST: &str = "best.bpk";
const PREFIX: &str = "epoch-";
const PART: &str = ".part-";

/// Where a run keeps its state, and whether it goes on from there.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    /// The folder; it is made if it is missing.
    pub folder: PathBuf,
    /// Goes on after the last finished epoch, if there is one. A run that does not resume is refused where
    /// another one left its checkpoint.
    pub resume: bool,
    /// What else must be the same for the run to go on, such as the size of the windows.
    pub facts: BTreeMap<String, String>,
}

/// What a run is; a checkpoint of another one is refused.
#[derive(Serialize)]
pub(super) struct Identity<'a> {
    pub(super) network: &'a UNetConfig,
    pub(super) training: &'a TrainingConfig,
    pub(super) devices: usize,
    pub(super) training_patches: usize,
    pub(super) validation_patches: usize,
    pub(super) data: &'a BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    made_by: String,
    run: Value,
    history: Vec<Epoch>,
}

/// A checkpoint in memory.
pub(super) struct Checkpoint {
    pub(super) history: Vec<Epoch>,
    pub(super) best: Vec<u8>,
    pub(super) model: ModuleRecord,
    pub(super) optimizer: OptimizerRecord,
}

impl Checkpoints {
    /// The last checkpoint in the folder.
    fn latest(&self) -> Result<Option<PathBuf>> {
        Ok(entries(&self.folder)?
            .into_iter()
            .filter_map(|path| Some((epoch_of(&path)?, path)))
            .max()
            .map(|(_, path)| path))
    }

    /// The settings of the run that left its checkpoint here, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Checkpoint`] and [`Error::Version`] for a checkpoint that cannot be read.
    pub fn settings(&self) -> Result<Option<TrainingConfig>> {
        let Some(path) = self.latest()? else { return Ok(None) };
        let settings = TrainingConfig::deserialize(&state(&path)?.run["training"]);
        let broken = |error: serde_json::Error| Error::Checkpoint {
            path: path.join(STATE),
            message: error.to_string(),
        };
        settings.map(Some).map_err(broken)
    }

    /// The state to go on from; `None` to begin.
    pub(super) fn open(&self, run: &Identity<'_>) -> Result<Option<Checkpoint>> {
        let Some(path) = self.latest()? else { return Ok(None) };
        if !self.resume {
            return Err(Error::CheckpointExists { path });
        }
        let read = |name: &str| read(&path.join(name));
        let broken = |name: &str, message: String| Error::Checkpoint { path: path.join(name), message };
        let state = state(&path)?;
        let here = to_value(run).map_err(|error| broken(STATE, error.to_string()))?;
        let free = free_to_change(run.training);
        let mut there = state.run;
        // Settings that the checkpoint is too old to name have their defaults.
        if let Some(Value::Object(training)) = there.get_mut("training")
            && let Ok(Value::Object(defaults)) = to_value(&TrainingConfig::default())
        {
            for (field, value) in defaults {
                training.entry(field).or_insert(value);
            }
        }
        if let Some((field, expected, actual)) = difference(String::new(), &there, &here, &free) {
            return Err(Error::CheckpointMismatch { path, field, expected, actual });
        }
        let model = ModuleRecord::from_bytes(Bytes::from_bytes_vec(read(MODEL)?));
        let optimizer = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(read(OPTIMIZER)?));
        let best = read(BEST)?;
        ModuleRecord::from_bytes(Bytes::from_bytes_vec(best.clone()))
            .map_err(|error| broken(BEST, error.to_string()))?;
        Ok(Some(Checkpoint {
            history: state.history,
            best,
            model: model.map_err(|error| broken(MODEL, error.to_string()))?,
            optimizer: optimizer.map_err(|error| broken(OPTIMIZER, error.to_string()))?,
        }))
    }

    /// Writes the checkpoint of an epoch, then removes the older ones.
    fn write(&self, epoch: usize, files: [(&str, &[u8]); 4]) -> Result<()> {
        let target = self.folder.join(format!("{PREFIX}{epoch:06}"));
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut builder = tempfile::Builder::new();
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777)); // less the umask
            let part = builder.prefix(PART).tempdir_in(&self.folder)?;
            for (name, bytes) in files {
                let mut file = fs::File::create(part.path().join(name))?;
                file.write_all(bytes)?;
                file.sync_all()?;
            }
            sync_folder(part.path())?;
            fs::rename(part.path(), &target)?;
            let _ = part.keep(); // it is no temporary folder any more
            sync_folder(&self.folder)
        };
        write().map_err(|source| Error::Write { path: target.clone(), source })?;
        for path in entries(&self.folder)? {
            let half = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PART));
            if half || epoch_of(&path).is_some_and(|old| old < epoch) {
                fs::remove_dir_all(&path).map_err(|source| Error::Write { path, source })?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::Read { path: path.into(), source })
}

fn state(checkpoint: &Path) -> Result<State> {
    let path = checkpoint.join(STATE);
    let broken =
        |error: serde_json::Error| Error::Checkpoint { path: path.clone(), message: error.to_string() };
    let state: Value = serde_json::from_slice(&read(&path)?).map_err(broken)?;
    // Before all else: a newer format may have other fields.
    let found = state.get("format").and_then(Value::as_u64).unwrap_or(0);
    if found > u64::from(FORMAT) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(Error::Version { path, found, known: FORMAT });
    }
    serde_json::from_value(state).map_err(broken)
}

/// A folder's name has reached the disk once the folder above is synced; other systems than Unix do not let us.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |source| Error::Read { path: folder.into(), source };
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(read)?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(read(error)),
    }
}

fn epoch_of(path: &Path) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

/// Through text, so that numbers are rounded as those that were read.
fn to_value(value: &impl Serialize) -> serde_json::Result<Value> {
    serde_json::from_str(&serde_json::to_string(value)?)
}

/// Settings that change nothing of the epochs that are done.
fn free_to_change(config: &TrainingConfig) -> Vec<&'static str> {
    let mut free = vec!["training.workers", "training.patience"];
    // A cosine is as long as the run.
    if !matches!(config.schedule, Schedule::Cosine { .. }) {
        free.push("training.epochs");
    }
    free
}

/// The first difference: the name of the field, its value in the checkpoint, its value here.
fn difference(name: String, there: &Value, here: &Value, free: &[&str]) -> Option<(String, String, String)> {
    if there == here || free.contains(&name.as_str()) {
        return None;
    }
    if let (Value::Object(a), Value::Object(b)) = (there, here) {
        let missing = a.keys().filter(|key| !b.contains_key(*key));
        return b.keys().chain(missing).find_map(|key| {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            difference(name, &value(a), &value(b), free)
        });
    }
    Some((name, there.to_string(), here.to_string()))
}

/// Keeps the best weights in memory, and with checkpoints everything on disk.
///
/// burn hands over the parts of a checkpoint one after the other, each on a thread of its own; the last one
/// writes. The next epoch may have ended by then and handed over parts of its own, so all parts bear their epoch, and
/// history and best weights are those up to the epoch that is saved.
pub(super) struct Store {
    history: Arc<History>,
    failure: Failure,
    target: Option<(Checkpoints, Value)>,
    parts: Mutex<Parts>,
}

/// Weights or an optimizer's state, in bytes.
type Part = Arc<[u8]>;

#[derive(Default)]
struct Parts {
    /// The weights of each epoch that was the best one when it ended, as long as a checkpoint may need them.
    best: BTreeMap<usize, Part>,
    model: BTreeMap<usize, Part>,
    optimizer: BTreeMap<usize, Part>,
    model_before: Option<ModuleRecord>,
    optimizer_before: Option<OptimizerRecord>,
}

impl Parts {
    /// Model, optimizer and best weights of an epoch, once all are there; what older epochs have left goes.
    fn take(&mut self, epoch: usize) -> Option<[Part; 3]> {
        if !self.model.contains_key(&epoch) || !self.optimizer.contains_key(&epoch) {
            return None;
        }
        let (model, optimizer) = (self.model.remove(&epoch)?, self.optimizer.remove(&epoch)?);
        let (&best_epoch, best) = self.best.range(..=epoch).next_back()?;
        let parts = [model, optimizer, best.clone()];
        self.model.retain(|&other, _| other > epoch);
        self.optimizer.retain(|&other, _| other > epoch);
        self.best.retain(|&other, _| other >= best_epoch);
        Some(parts)
    }
}

impl Store {
    pub(super) fn try_new(
        history: Arc<History>,
        failure: Failure,
        checkpoints: Option<Checkpoints>,
        run: &Identity<'_>,
        best: Option<(usize, Vec<u8>)>,
    ) -> Result<Self> {
        let target = match checkpoints {
            Some(checkpoints) => {
                let path = checkpoints.folder.join(STATE);
                let run = to_value(run).map_err(|source| Error::Description { path, source })?;
                Some((checkpoints, run))
            }
            None => None,
        };
        let best = best.into_iter().map(|(epoch, weights)| (epoch, weights.into())).collect();
        Ok(Self { history, failure, target, parts: Mutex::new(Parts { best, ..Parts::default() }) })
    }

    /// What burn will ask for before the first epoch.
    pub(super) fn restore(&self, model: ModuleRecord, optimizer: OptimizerRecord) {
        let mut parts = lock(&self.parts);
        (parts.model_before, parts.optimizer_before) = (Some(model), Some(optimizer));
    }

    /// The weights of the best epoch.
    pub(super) fn take_best(&self) -> Option<Vec<u8>> {
        lock(&self.parts).best.pop_last().map(|(_, weights)| weights.to_vec())
    }

    fn save_part(
        &self,
        epoch: usize,
        put: impl FnOnce(&mut Parts),
    ) -> std::result::Result<(), CheckpointerError> {
        let mut parts = lock(&self.parts);
        put(&mut parts);
        let Some((checkpoints, run)) = &self.target else { return Ok(()) };
        let Some([model, optimizer, best]) = parts.take(epoch) else { return Ok(()) };
        let state = State {
            format: FORMAT,
            made_by: concat!("unet-burn ", env!("CARGO_PKG_VERSION")).into(),
            run: run.clone(),
            history: self.up_to(epoch),
        };
        let fail = |error: Error| {
            let message = error.to_string();
            self.failure.set(error);
            CheckpointerError::Unknown(message)
        };
        let path = || checkpoints.folder.join(STATE);
        let state = serde_json::to_vec_pretty(&state)
            .map_err(|source| fail(Error::Description { path: path(), source }))?;
        let files = [(MODEL, &*model), (OPTIMIZER, &*optimizer), (BEST, &*best), (STATE, &state)];
        checkpoints.write(epoch, files).map_err(fail)
    }

    fn up_to(&self, epoch: usize) -> Vec<Epoch> {
        let mut history = self.history.epochs();
        history.truncate(epoch);
        history
    }
}

/// The parts of a checkpoint, as burn names them.
#[derive(Clone)]
pub(super) struct Saver(pub(super) Arc<Store>);

impl Checkpointer<ModuleRecord> for Saver {
    fn save(&self, epoch: usize, record: ModuleRecord) -> std::result::Result<(), CheckpointerError> {
        let is_best = history::best(&self.0.up_to(epoch)).is_some_and(|best| best.epoch == epoch);
        if !is_best && self.0.target.is_none() {
            return Ok(());
        }
        let bytes: Part = record.into_bytes().map_err(CheckpointerError::Record)?.to_vec().into();
        self.0.save_part(epoch, |parts| {
            if is_best {
                parts.best.insert(epoch, bytes.clone());
            }
            if self.0.target.is_some() {
                parts.model.insert(epoch, bytes);
            }
        })
    }

    fn delete(&self, _: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, epoch: usize) -> std::result::Result<ModuleRecord, CheckpointerError> {
        lock(&self.0.parts).model_before.take().ok_or_else(|| missing(epoch))
    }
}

impl Checkpointer<OptimizerRecord> for Saver {
    fn save(&self, epoch: usize, record: OptimizerRecord) -> std::result::Result<(), CheckpointerError> {
        if self.0.target.is_none() {
            return Ok(());
        }
        let bytes = record.into_bytes().map_err(CheckpointerError::Record)?.to_vec();
        self.0.save_part(epoch, |parts| _ = parts.optimizer.insert(epoch, bytes.into()))
    }

    fn delete(&self, _: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, epoch: usize) -> std::result::Result<OptimizerRecord, CheckpointerError> {
        lock(&self.0.parts).optimizer_before.take().ok_or_else(|| missing(epoch))
    }
}

/// The step size follows from the history: nothing to keep.
impl Checkpointer<LrSchedulerRecord> for Saver {
    fn save(&self, _: usize, _: LrSchedulerRecord) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn delete(&self, _: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _: usize) -> std::result::Result<LrSchedulerRecord, CheckpointerError> {
        Ok(LrSchedulerRecord::new())
    }
}

fn missing(epoch: usize) -> CheckpointerError {
    CheckpointerError::Unknown(format!("epoch {epoch} was restored already"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &[u8]); 4] = [(MODEL, b"m"), (OPTIMIZER, b"o"), (BEST, b"b"), (STATE, b"{}")];

    fn names(folder: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries(folder).unwrap().iter().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn parts_of_two_epochs_do_not_mix() {
        let part = |byte: u8| -> Part { vec![byte].into() };
        let mut parts = Parts::default();
        // The second epoch, a better one, hands over its model before the first has handed over its optimizer.
        for epoch in [1, 2_u8] {
            parts.model.insert(epoch.into(), part(epoch));
            parts.best.insert(epoch.into(), part(10 + epoch));
        }
        assert!(parts.take(1).is_none() && parts.take(2).is_none(), "no optimizer yet");
        parts.optimizer.insert(1, part(21));
        assert_eq!(parts.take(1).unwrap().map(|part| part[0]), [1, 21, 11], "the first");
        parts.optimizer.insert(2, part(22));
        assert_eq!(parts.take(2).unwrap().map(|part| part[0]), [2, 22, 12], "the second");
        // A third one that is not better keeps the best of the second.
        parts.model.insert(3, part(3));
        parts.optimizer.insert(3, part(23));
        assert_eq!(parts.take(3).unwrap().map(|part| part[0]), [3, 23, 12], "the third");
        assert_eq!(
            (parts.model.len(), parts.optimizer.len(), parts.best.len()),
            (0, 0, 1),
            "nothing is left over"
        );
    }

    #[test]
    fn one_whole_checkpoint_is_left_and_half_ones_are_never_taken() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints { folder: folder.path().join("run"), ..Checkpoints::default() };
        assert!(checkpoints.latest().unwrap().is_none(), "no folder yet");
        checkpoints.write(9, FILES).unwrap();
        let half = checkpoints.folder.join(".part-killed");
        fs::create_dir(&half).unwrap();
        fs::write(half.join(MODEL), b"hal").unwrap();
        assert_eq!(
            checkpoints.latest().unwrap().unwrap(),
            checkpoints.folder.join("epoch-000009"),
            "the whole one"
        );
        checkpoints.write(10, FILES).unwrap();
        assert_eq!(names(&checkpoints.folder), ["epoch-000010"], "the old and the half one are gone");
        assert_eq!(names(&checkpoints.folder.join("epoch-000010")), [BEST, MODEL, OPTIMIZER, STATE]);
    }

    #[test]
    fn the_first_difference_is_named() {
        let there =
            serde_json::json!({"network": {"levels": 2, "kernel": 3}, "training": {"epochs": 3, "seed": 1}});
        let mut here = there.clone();
        here["training"]["epochs"] = 5.into();
        assert_eq!(difference(String::new(), &there, &here, &["training.epochs"]), None, "free");
        here["training"]["seed"] = 2.into();
        let found = difference(String::new(), &there, &here, &["training.epochs"]).unwrap();
        assert_eq!(found, ("training.seed".into(), "1".into(), "2".into()));
        here["network"] = serde_json::json!({"levels": 2});
        let found = difference(String::new(), &there, &here, &[]).unwrap();
        assert_eq!(found, ("network.kernel".into(), "3".into(), "null".into()));
    }
}
