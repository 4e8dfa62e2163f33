//! Training on burn's own loop: Adam, the weights of the best epoch, checkpoints.

mod checkpoint;
mod config;
mod criterion;
mod history;
mod loader;
mod mixed;
mod progress;
mod schedule;
mod score;
mod trainee;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device, FloatDType};
use burn::train::metric::LossMetric;
use burn::train::renderer::MetricsRenderer;
use burn::train::{ExecutionStrategy, Interrupter, Learner, MultiDeviceOptim, SupervisedTraining};

pub use checkpoint::Checkpoints;
pub use config::{Clipping, TrainingConfig};
pub use criterion::Criterion;
pub use history::{Epoch, history_csv};
pub use loader::PatchSet;
pub use progress::Progress;
pub use schedule::Schedule;

use crate::predict::device_error;
use crate::{Error, Result, UNet};
use checkpoint::{Checkpoint, Identity, Saver, Store};
use history::{EveryEpoch, History, Logger, Patience};
use loader::{Loader, Shape};
use progress::{Report, Reporter, Silent};
use schedule::Scheduler;
use score::ScoreMetric;
use trainee::Trainee;

/// Where a run takes place.
pub struct Execution {
    /// The devices, one or more. With several, each step takes a batch on each of them and averages their gradients on the
    /// first (burn's `MultiDevice` strategy), so a step is as large as a batch times the devices; their random
    /// numbers then come in the order of the threads, and a run is not repeatable to the bit.
    pub devices: Vec<Device>,
    /// Stops the run after the current batch; epochs that were finished count.
    pub interrupter: Interrupter,
    /// Where the state is kept after each epoch, if anywhere.
    pub checkpoints: Option<Checkpoints>,
    /// burn's display, such as its terminal dashboard.
    pub renderer: Option<Box<dyn MetricsRenderer>>,
    /// Told of each batch and epoch, on other threads than the caller's.
    pub progress: Box<dyn Fn(Progress<'_>) + Send + Sync>,
}

impl Execution {
    /// On one device, without checkpoints, silently.
    #[must_use]
    pub fn on(device: &Device) -> Self {
        Self {
            devices: vec![device.clone()],
            interrupter: Interrupter::new(),
            checkpoints: None,
            renderer: None,
            progress: Box::new(|_| {}),
        }
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, checkpoints, .. } = self;
        f.debug_struct("Execution")
            .field("devices", devices)
            .field("checkpoints", checkpoints)
            .finish_non_exhaustive()
    }
}

/// The outcome of a training run.
#[derive(Debug)]
pub struct Trained {
    /// The network with the weights of the best epoch, in inference mode.
    pub model: UNet,
    /// All epochs.
    pub history: Vec<Epoch>,
    /// The epoch that was best by the criterion.
    pub best_epoch: usize,
    /// Whether it was interrupted before its last epoch.
    pub interrupted: bool,
    /// How long the device waited for patches; more `workers` shorten it.
    pub waited: Duration,
}

/// Trains a network and returns it with the weights of the best epoch.
///
/// Batch by batch of the shuffled training set, Adam (with Keras' ε of 1e-7) follows the gradient of the mean
/// loss. After each epoch the validation set gives a loss and a score, by which the best epoch is chosen, the
/// step size lowered and the run stopped, as the settings say. Worker threads read the patches, check them and
/// pack them; they are expanded on the device.
///
/// Seeds decide everything: the same call gives the same losses on the CPU, and so does a run that was killed
/// and resumed from its checkpoint. burn's random numbers are one stream for the whole process, so this holds
/// as long as nothing else draws from it.
///
/// # Errors
///
/// - [`Error::InvalidConfig`] for impossible settings, for a network of several classes (the losses are of two) and for
///   mixed precision on a device that has none; [`Error::NoPatches`] for an empty set
/// - [`Error::InvalidSize`] and [`Error::InputShape`] when the first patch does not fit the network
/// - [`Error::Patch`] and [`Error::ReadPatch`] for one that cannot be read or learned from
/// - [`Error::Diverged`] when a loss is no finite number, or the mean of an epoch ten times the largest of at
///   least three epochs before
/// - [`Error::CheckpointExists`], [`Error::CheckpointMismatch`] and [`Error::Checkpoint`] for a checkpoint of
///   another run or a damaged one, [`Error::Read`] and [`Error::Write`] for its files
/// - [`Error::OutOfMemory`] when the device cannot hold the maps of a batch ([`training_bytes`](crate::training_bytes))
/// - [`Error::Training`] when burn's loop fails or stops before the first epoch is done
pub fn train(
    model: UNet,
    config: &TrainingConfig,
    training: impl PatchSet + 'static,
    validation: impl PatchSet + 'static,
    execution: Execution,
) -> Result<Trained> {
    // Dropped last: the memory of the maps goes back to the system.
    #[cfg(feature = "flex")]
    let _memory = crate::cpu::Release;
    let Execution { devices, interrupter, checkpoints, renderer, progress } = execution;
    config.check()?;
    model.config().check_binary()?;
    let Some(main) = devices.first().cloned() else {
        let requirement = "it has to be 1 or more";
        return Err(Error::InvalidConfig { field: "devices", value: "0".into(), requirement });
    };
    if config.mixed_precision && !devices.iter().all(|device| device.supports_dtype(FloatDType::F16)) {
        let requirement = "this device computes in single precision only";
        return Err(Error::InvalidConfig { field: "mixed_precision", value: "true".into(), requirement });
    }
    let model = model.to_device(&main);
    let shapes = [shape(&model, &training, "training")?, shape(&model, &validation, "validation")?];
    let network = model.config().clone();
    let facts = checkpoints.as_ref().map(|checkpoints| checkpoints.facts.clone()).unwrap_or_default();
    let run = Identity {
        network: &network,
        training: config,
        devices: devices.len(),
        training_patches: training.len(),
        validation_patches: validation.len(),
        data: &facts,
    };
    let checkpoint = match &checkpoints {
        Some(checkpoints) => checkpoints.open(&run)?,
        None => None,
    };

    let report: Report = Arc::from(progress);
    let (before, best, restored) = match checkpoint {
        Some(Checkpoint { history, best, model, optimizer }) => {
            report(Progress::Resumed(&history));
            let best = history::best(&history).map(|epoch| (epoch.epoch, best));
            (history, best, Some((model, optimizer)))
        }
        None => (Vec::new(), None, None),
    };
    let done = before.len();
    if done > config.epochs {
        let requirement = "the checkpoint has more epochs than that";
        return Err(Error::InvalidConfig { field: "epochs", value: config.epochs.to_string(), requirement });
    }
    let finished = done >= config.epochs || history::exhausted(&before, config.patience);
    let history = Arc::new(History::new(config, before, report.clone()));
    let failure = Failure::default();
    let store = Arc::new(Store::try_new(history.clone(), failure.clone(), checkpoints, &run, best)?);

    let load = |set: Arc<dyn PatchSet>, shape| {
        Loader::new(set, shape, config.batch_size, config.workers, &main, failure.clone())
    };
    let training = load(Arc::new(training), shapes[0]).shuffled(
        config.seed,
        done + 1,
        config.accumulation,
        devices.len(),
    );
    let validation = load(Arc::new(validation), shapes[1]);
    let waited = [training.waited(), validation.waited()];

    let trainee = |unet| Trainee { unet, loss: config.loss.clone(), mixed_precision: config.mixed_precision };
    let trainee = if finished {
        trainee(model)
    } else {
        let trainee = trainee(model.train());
        let learner = Learner::new(trainee, config.optimizer(), Scheduler(history.clone()));
        let mut supervised = SupervisedTraining::new(".", Arc::new(training), Arc::new(validation))
            .metrics((LossMetric::new(),))
            .num_epochs(config.epochs)
            .grads_accumulation(config.accumulation)
            .with_application_logger(None)
            .with_metric_logger(Logger {
                history: history.clone(),
                failure: failure.clone(),
                interrupter: interrupter.clone(),
            })
            .with_progress_logger(Reporter::new(report))
            .renderer(renderer.unwrap_or_else(|| Box::new(Silent)))
            .with_custom_checkpointers(Saver(store.clone()), Saver(store.clone()), Saver(store.clone()))
            .with_checkpointing_strategy(EveryEpoch(history.clone()))
            .with_interrupter(interrupter);
        if config.criterion != Criterion::Loss {
            supervised = supervised.metric_valid_numeric(ScoreMetric::new(config.criterion, history.clone()));
        }
        if config.patience.is_some() {
            supervised = supervised.early_stopping(Patience(history.clone()));
        }
        if devices.len() > 1 {
            let strategy = ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice);
            supervised = supervised.with_training_strategy(strategy.into());
        }
        if let Some((model, optimizer)) = restored {
            store.restore(model, optimizer);
            supervised = supervised.checkpoint(done);
        }
        let result = supervised.launch(learner);
        if let Some(error) = failure.take() {
            return Err(error);
        }
        if let Some(error) = result.error {
            return Err(failed(error.to_string()));
        }
        result.model
    };

    let epochs = history.epochs();
    let (Some(best), Some(weights)) = (history::best(&epochs), store.take_best()) else {
        return Err(Error::Training { message: "it was interrupted before the first epoch was done".into() });
    };
    let weights = ModuleRecord::from_bytes(Bytes::from_bytes_vec(weights));
    let model = weights.and_then(|weights| trainee.try_load_record(weights));
    Ok(Trained {
        model: model.map_err(|error| Error::Training { message: error.to_string() })?.unet,
        best_epoch: best.epoch,
        interrupted: epochs.len() < config.epochs && !history::exhausted(&epochs, config.patience),
        waited: Duration::from_nanos(waited.iter().map(|waited| waited.load(Ordering::Relaxed)).sum()),
        history: epochs,
    })
}

/// A failure of burn's loop, in burn's words.
fn failed(message: String) -> Error {
    match device_error(message) {
        Error::Device { message } => Error::Training { message },
        other => other,
    }
}

/// The shape of the first patch, if the network takes it.
fn shape(model: &UNet, patches: &impl PatchSet, split: &'static str) -> Result<Shape> {
    if patches.is_empty() {
        return Err(Error::NoPatches { split });
    }
    let patch = patches.patch(1, 0).map_err(|source| Error::ReadPatch { index: 0, source })?;
    let (channels, height, width) = patch.image.dim();
    let in_channels = model.config().in_channels;
    let output = (model.config().output_size(height)?, model.config().output_size(width)?);
    if channels != in_channels {
        return Err(Error::InputShape { actual: vec![1, channels, height, width], in_channels });
    }
    if patch.truth.dim() != output {
        let problem = format!("its truth is {:?}, but the network's output is {output:?}", patch.truth.dim());
        return Err(Error::Patch { name: patch.name, problem });
    }
    Ok(Shape { image: patch.image.dim(), truth: output })
}

/// The first error of any thread.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    fn set(&self, error: Error) {
        lock(&self.0).get_or_insert(error);
    }

    fn take(&self) -> Option<Error> {
        lock(&self.0).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_an_error_of_its_own() {
        let lack = failed("Buffer error: out of device memory allocating 1073741824 bytes".into());
        assert!(matches!(lack, Error::OutOfMemory { .. }), "{lack}");
        let other = failed("the checkpoint was lost".into());
        assert_eq!(other.to_string(), "training stopped: the checkpoint was lost");
    }
}
