//! Training on burn's own loop: Adam, focal loss, the weights of the best epoch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::optim::AdamConfig;
use burn::store::ModuleRecord;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::checkpoint::{Checkpoint, Checkpointer, CheckpointerError, MetricCheckpointingStrategy};
use burn::train::logger::{EvaluationProgressLogger, MetricLogger, TrainingProgressLogger};
use burn::train::metric::store::{Aggregate, Direction, EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{Adaptor, LossInput, LossMetric, MetricDefinition, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use burn::train::{
    InferenceStep, Interrupter, ItemLazy, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use serde::{Deserialize, Serialize};

use crate::{Error, FocalLoss, Patch, PatchBatch, PatchBatcher, Result, UNet};

/// Settings of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// Passes over the training set.
    pub epochs: usize,
    /// Patches of a step.
    pub batch_size: usize,
    /// Adam's step size (paper: 1e-3).
    pub learning_rate: f64,
    /// The loss.
    pub loss: FocalLoss,
    /// Seed of the order of the patches and of dropout.
    pub seed: u64,
    /// Threads that fetch patches ahead of the device; 0 fetches in the training thread.
    pub workers: usize,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch_size: 4,
            learning_rate: 1e-3,
            loss: FocalLoss::default(),
            seed: 0,
            workers: 1,
        }
    }
}

/// Mean losses of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss over the training patches, while they were learned.
    pub training_loss: f64,
    /// Mean loss over the validation patches, after the epoch.
    pub validation_loss: f64,
}

/// What a training run reports while it goes on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// A step is done.
    Patches {
        /// Number of the epoch, from 1.
        epoch: usize,
        /// Training patches of this epoch that were seen.
        done: usize,
        /// Training patches of an epoch.
        total: usize,
    },
    /// An epoch is done.
    Epoch(Epoch),
}

/// The outcome of a training run.
#[derive(Debug)]
pub struct Trained {
    /// The network with the weights of the best epoch, in inference mode.
    pub model: UNet,
    /// All epochs.
    pub history: Vec<Epoch>,
    /// The epoch with the lowest validation loss.
    pub best_epoch: usize,
    /// Whether it was stopped before its last epoch.
    pub interrupted: bool,
}

/// Trains a network and returns it with the weights of the epoch of lowest validation loss.
///
/// `training` may give another patch each time that an index is asked for (augmentation). `interrupter` stops
/// the run after the current step; epochs that were finished count. Adam runs with Keras' ε of 1e-7.
///
/// # Errors
///
/// [`Error::NoPatches`] for an empty set, [`Error::InputShape`] and [`Error::InvalidSize`] when the first patch
/// does not fit the network, [`Error::Diverged`] when a loss is no finite number, [`Error::Training`] when
/// burn's loop fails or stops before the first epoch is done.
pub fn train(
    model: UNet,
    config: &TrainingConfig,
    training: impl Dataset<Patch> + 'static,
    validation: impl Dataset<Patch> + 'static,
    device: &Device,
    interrupter: &Interrupter,
    progress: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<Trained> {
    check_first(&model, &training, "training")?;
    check_first(&model, &validation, "validation")?;
    device.seed(config.seed);
    let loader = || {
        DataLoaderBuilder::new(PatchBatcher).batch_size(config.batch_size.max(1)).num_workers(config.workers)
    };
    let training = loader().shuffle(config.seed).build(training);
    let validation = loader().build(validation);

    let history = History::default();
    let progress: Report = Arc::new(progress);
    let best = BestWeights::default();
    let trainee = Trainee { unet: model.train(), loss: config.loss };
    let learner = Learner::new(trainee, AdamConfig::new().with_epsilon(1e-7).init(), config.learning_rate);
    let result = SupervisedTraining::new(".", training, validation)
        .metrics((LossMetric::new(),))
        .num_epochs(config.epochs)
        .with_application_logger(None)
        .with_metric_logger(Logger {
            history: history.clone(),
            interrupter: interrupter.clone(),
            progress: progress.clone(),
        })
        .renderer(Box::new(Renderer { epoch: 0, total: None, progress }))
        .with_custom_checkpointers(best.clone(), Discard, Discard)
        .with_checkpointing_strategy(MetricCheckpointingStrategy::new(
            &LossMetric::new(),
            Aggregate::Mean,
            Direction::Lowest,
            Split::Valid,
        ))
        .with_interrupter(interrupter.clone())
        .launch(learner);

    let epochs = history.epochs();
    if let Some(error) = history.diverged() {
        return Err(error);
    }
    if let Some(error) = result.error {
        return Err(Error::Training { message: error.to_string() });
    }
    let Some((best_epoch, record)) = best.take() else {
        return Err(Error::Training { message: "it was interrupted before the first epoch was done".into() });
    };
    Ok(Trained {
        model: result.model.load_record(record).unet,
        history: epochs,
        best_epoch,
        interrupted: result.interrupted.is_some(),
    })
}

fn check_first(model: &UNet, patches: &impl Dataset<Patch>, split: &'static str) -> Result<()> {
    if patches.is_empty() {
        return Err(Error::NoPatches { split });
    }
    let patch = patches.get(0).map_err(|error| Error::Training { message: error.to_string() })?;
    let (channels, height, width) = patch.image.dim();
    let in_channels = model.config().in_channels;
    let output = (model.config().output_size(height)?, model.config().output_size(width)?);
    if channels != in_channels || patch.truth.dim() != output {
        return Err(Error::InputShape { actual: vec![1, channels, height, width], in_channels });
    }
    Ok(())
}

/// The network and its loss, as burn's loop wants them.
#[derive(Module, Debug)]
struct Trainee {
    unet: UNet,
    #[module(skip)]
    loss: FocalLoss,
}

impl Trainee {
    fn losses(&self, batch: PatchBatch) -> Tensor<1> {
        let logits = self.unet.forward(batch.images).expect("the first patch fits, and a set has one shape");
        self.loss.forward(logits, batch.truth, batch.valid)
    }
}

impl TrainStep for Trainee {
    type Input = PatchBatch;
    type Output = Losses;

    fn step(&self, batch: PatchBatch) -> TrainOutput<Losses> {
        let losses = self.losses(batch);
        let gradients = losses.clone().mean().backward();
        TrainOutput::new(self, gradients, Losses(losses))
    }
}

impl InferenceStep for Trainee {
    type Input = PatchBatch;
    type Output = Losses;

    fn step(&self, batch: PatchBatch) -> Losses {
        Losses(self.losses(batch))
    }
}

/// One loss for each patch of a batch.
struct Losses(Tensor<1>);

impl Adaptor<LossInput> for Losses {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.0.clone())
    }
}

impl ItemLazy for Losses {
    fn sync(self) -> std::result::Result<Self, ExecutionError> {
        self.0.device().flush()?;
        Ok(Self(self.0.without_autodiff()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is told of the progress.
type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// Losses by epoch, training and validation: burn's entries as they come.
#[derive(Clone, Default)]
struct History(Arc<Mutex<Entries>>);

/// burn's entries by split and epoch.
type Entries = HashMap<(Split, usize), Vec<NumericEntry>>;

impl History {
    fn mean(&self, split: &Split, epoch: usize) -> Option<f64> {
        let entries = lock(&self.0);
        let entries = entries.get(&(split.clone(), epoch))?;
        if let Some(NumericEntry::Final(value)) = entries.last() {
            return Some(*value);
        }
        let weighted = entries.iter().map(|entry| match entry {
            NumericEntry::Value(value) | NumericEntry::Final(value) => (*value, 1),
            NumericEntry::Aggregated { aggregated_value, count } => (*aggregated_value, *count),
        });
        #[expect(clippy::cast_precision_loss, reason = "counts of patches are far below 2^52")]
        let (sum, count) =
            weighted.fold((0.0, 0.0), |(sum, all), (value, n)| (sum + value * n as f64, all + n as f64));
        Some(sum / count)
    }

    fn epochs(&self) -> Vec<Epoch> {
        (1..)
            .map_while(|epoch| {
                Some(Epoch {
                    epoch,
                    training_loss: self.mean(&Split::Train, epoch)?,
                    validation_loss: self.mean(&Split::Valid, epoch)?,
                })
            })
            .collect()
    }

    /// The first loss that is no finite number.
    fn diverged(&self) -> Option<Error> {
        let entries = lock(&self.0);
        let broken = entries.iter().filter_map(|((split, epoch), entries)| {
            let loss = entries.iter().map(NumericEntry::current).find(|loss| !loss.is_finite())?;
            let split = if *split == Split::Train { "training" } else { "validation" };
            Some((*epoch, split, loss))
        });
        let (epoch, split, loss) = broken.min_by_key(|&(epoch, split, _)| (epoch, split))?;
        Some(Error::Diverged { split, epoch, loss })
    }
}

/// Keeps burn's losses, and stops the run at the first one that is no number.
struct Logger {
    history: History,
    interrupter: Interrupter,
    progress: Report,
}

impl MetricLogger for Logger {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        for entry in update.entries_numeric.into_iter().filter_map(|update| update.numeric_entry) {
            if !entry.current().is_finite() {
                self.interrupter.stop(Some("the loss is no number"));
            }
            lock(&self.history.0).entry((split.clone(), epoch)).or_default().push(entry);
        }
    }

    fn read_numeric(
        &mut self,
        _name: &str,
        epoch: usize,
        split: &Split,
    ) -> std::result::Result<Vec<NumericEntry>, String> {
        Ok(lock(&self.history.0).get(&(split.clone(), epoch)).cloned().unwrap_or_default())
    }

    fn log_metric_definition(&mut self, _definition: MetricDefinition) {}

    /// burn logs the end of an epoch behind all of its losses.
    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        if summary.split == Split::Valid
            && let Some(epoch) = self.history.epochs().get(summary.epoch_number - 1)
        {
            (self.progress)(Progress::Epoch(*epoch));
        }
    }
}

/// The weights of the best epoch so far, in memory.
#[derive(Clone, Default)]
struct BestWeights(Arc<Mutex<Option<(usize, ModuleRecord)>>>);

impl BestWeights {
    fn take(&self) -> Option<(usize, ModuleRecord)> {
        lock(&self.0).take()
    }
}

impl Checkpointer<ModuleRecord> for BestWeights {
    fn save(&self, epoch: usize, record: ModuleRecord) -> std::result::Result<(), CheckpointerError> {
        *lock(&self.0) = Some((epoch, record));
        Ok(())
    }

    /// The strategy deletes the former best after the new one was saved in its place.
    fn delete(&self, _epoch: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, epoch: usize) -> std::result::Result<ModuleRecord, CheckpointerError> {
        Err(CheckpointerError::Unknown(format!("epoch {epoch} is not restored by the loop")))
    }
}

/// Keeps nothing: the states of optimizer and scheduler are not needed after the run.
struct Discard;

impl<R: Checkpoint> Checkpointer<R> for Discard {
    fn save(&self, _epoch: usize, _record: R) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn delete(&self, _epoch: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, epoch: usize) -> std::result::Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown(format!("epoch {epoch} was not kept")))
    }
}

/// Passes burn's progress on.
struct Renderer {
    epoch: usize,
    /// Patches of the training split while it runs.
    total: Option<usize>,
    progress: Report,
}

impl TrainingProgressLogger for Renderer {
    fn start(&mut self, _epochs: usize, starting_epoch: usize, _items: Option<usize>, _label: Option<&str>) {
        self.epoch = starting_epoch;
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        self.total = split.eq_ignore_ascii_case("train").then_some(total_items);
    }

    fn update_split(&mut self, done: usize) {
        if let Some(total) = self.total {
            (self.progress)(Progress::Patches { epoch: self.epoch, done, total });
        }
    }

    fn end_split(&mut self) {}

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererTraining for Renderer {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, _state: MetricState) {}
}

impl EvaluationProgressLogger for Renderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Renderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for Renderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}
