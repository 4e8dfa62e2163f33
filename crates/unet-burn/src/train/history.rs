//! The epochs of a run, and what follows from them: the best one, the next step size, when to stop.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::logger::MetricLogger;
use burn::train::metric::store::{Aggregate, EpochSummary, EventStoreClient, MetricsUpdate, Split};
use burn::train::metric::{LossMetric, Metric, MetricDefinition, MetricId, NumericEntry};
use burn::train::{EarlyStoppingStrategy, Interrupter};
use serde::{Deserialize, Serialize};

use super::{Failure, Progress, Report, TrainingConfig, lock};
use crate::Error;

/// What an epoch gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Epoch {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss over the training patches, while they were learned.
    pub training_loss: f64,
    /// Mean loss over the validation patches, after the epoch.
    pub validation_loss: f64,
    /// The [`Criterion`](super::Criterion) on the validation patches; `None` if it is the loss, or if they hold
    /// no positive pixel.
    pub score: Option<f64>,
    /// Probability from which pixels were counted as positive for the score, the best of 0.000, 0.001, … 1.000.
    pub threshold: Option<f64>,
    /// Adam's step size.
    pub learning_rate: f64,
}

/// Whether an epoch is better: by its score, and by its loss if the scores are equal or missing.
pub(super) fn improves(epoch: &Epoch, best: &Epoch) -> bool {
    let score = |epoch: &Epoch| epoch.score.unwrap_or(f64::NEG_INFINITY);
    match score(epoch).total_cmp(&score(best)) {
        std::cmp::Ordering::Equal => epoch.validation_loss < best.validation_loss,
        order => order.is_gt(),
    }
}

/// The first of the best epochs.
pub(super) fn best(history: &[Epoch]) -> Option<&Epoch> {
    history.iter().reduce(|best, epoch| if improves(epoch, best) { epoch } else { best })
}

/// Whether as many epochs as `patience` says were not better than the best.
pub(super) fn exhausted(history: &[Epoch], patience: Option<usize>) -> bool {
    let last = history.last().map_or(0, |epoch| epoch.epoch);
    patience.zip(best(history)).is_some_and(|(patience, best)| last - best.epoch >= patience)
}

/// The epochs as a table of comma-separated values with a heading; missing scores are empty.
#[must_use]
pub fn history_csv(history: &[Epoch]) -> String {
    let mut csv = String::from("epoch,training_loss,validation_loss,score,threshold,learning_rate\n");
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for epoch in history {
        let Epoch { epoch, training_loss, validation_loss, score, threshold, learning_rate } = *epoch;
        let (score, threshold) = (optional(score), optional(threshold));
        writeln!(csv, "{epoch},{training_loss},{validation_loss},{score},{threshold},{learning_rate}")
            .expect("a string takes all");
    }
    csv
}

/// The epochs so far, shared by the parts of burn's loop.
///
/// Metrics report to it from their own thread; an epoch is added once all of them did, on the training thread.
pub(super) struct History {
    config: TrainingConfig,
    state: Mutex<State>,
    report: Report,
}

#[derive(Default)]
struct State {
    training_loss: Option<f64>,
    validation_loss: Option<f64>,
    score: Option<(f64, f64)>,
    epochs: Vec<Epoch>,
}

impl History {
    pub(super) fn new(config: &TrainingConfig, epochs: Vec<Epoch>, report: Report) -> Self {
        Self { config: config.clone(), state: Mutex::new(State { epochs, ..State::default() }), report }
    }

    pub(super) fn epochs(&self) -> Vec<Epoch> {
        lock(&self.state).epochs.clone()
    }

    pub(super) fn learning_rate(&self) -> f64 {
        let TrainingConfig { schedule, learning_rate, epochs, .. } = self.config;
        schedule.learning_rate(learning_rate, epochs, &lock(&self.state).epochs)
    }

    pub(super) fn set_score(&self, score: Option<(f64, f64)>) {
        lock(&self.state).score = score;
    }

    fn set_loss(&self, split: &Split, loss: f64) {
        let mut state = lock(&self.state);
        *(if *split == Split::Train { &mut state.training_loss } else { &mut state.validation_loss }) =
            Some(loss);
    }

    fn add(&self, epoch: usize) {
        let learning_rate = self.learning_rate();
        let mut state = lock(&self.state);
        let score = state.score.take();
        let epoch = Epoch {
            epoch,
            training_loss: state.training_loss.take().unwrap_or(f64::NAN),
            validation_loss: state.validation_loss.take().unwrap_or(f64::NAN),
            score: score.map(|(score, _)| score),
            threshold: score.map(|(_, threshold)| threshold),
            learning_rate,
        };
        state.epochs.push(epoch);
        (self.report)(Progress::Epoch(&state.epochs));
    }
}

/// Adds the epoch that just ended, before anything is decided by it, and saves every epoch.
pub(super) struct EveryEpoch(pub(super) Arc<History>);

impl CheckpointingStrategy for EveryEpoch {
    fn checkpointing(&mut self, epoch: usize, store: &EventStoreClient) -> Vec<CheckpointingAction> {
        // The losses come through a thread of burn's own: once it answers, they are there.
        let _ = store.find_metric(&LossMetric::new().name(), epoch, Aggregate::Mean, &Split::Valid);
        self.0.add(epoch);
        vec![CheckpointingAction::Save]
    }
}

/// Stops the run when no epoch was better for a while; burn asks after the epoch was added.
#[derive(Clone)]
pub(super) struct Patience(pub(super) Arc<History>);

impl EarlyStoppingStrategy for Patience {
    fn should_stop(&mut self, _: usize, _: &EventStoreClient) -> bool {
        exhausted(&lock(&self.0.state).epochs, self.0.config.patience)
    }
}

/// An epoch whose training loss is so many times the largest of those before has diverged, if those are enough to tell.
const EXPLODED: f64 = 10.0;
/// Epochs that are enough to tell.
const ENOUGH: usize = 3;

/// Passes burn's losses to the history, and stops the run at the first one that is no number, or after an epoch that was
/// far worse than all before.
pub(super) struct Logger {
    pub(super) history: Arc<History>,
    pub(super) failure: Failure,
    pub(super) interrupter: Interrupter,
}

impl MetricLogger for Logger {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        let loss = MetricId::new(LossMetric::new().name());
        for update in update.entries_numeric.into_iter().filter(|update| update.entry.metric_id == loss) {
            let Some(entry) = update.numeric_entry else { continue };
            let loss = entry.current();
            let exploded = || {
                let before = self.history.epochs();
                let largest = before.iter().map(|epoch| epoch.training_loss).fold(0.0, f64::max);
                before.len() >= ENOUGH && largest > 0.0 && loss > EXPLODED * largest
            };
            // The mean of an epoch is no number only where burn stopped at an error before the first batch was counted: that
            // error is the cause.
            let of_epoch = matches!(entry, NumericEntry::Final(_));
            let diverges = if of_epoch { *split == Split::Train && exploded() } else { !loss.is_finite() };
            if diverges {
                let split = if *split == Split::Train { "training" } else { "validation" };
                self.failure.set(Error::Diverged { split, epoch, loss });
                self.interrupter.stop(Some("the loss diverges"));
            }
            if let NumericEntry::Final(mean) = entry {
                self.history.set_loss(split, mean);
            }
        }
    }

    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _: EpochSummary) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: usize, score: Option<f64>, validation_loss: f64) -> Epoch {
        Epoch { epoch, score, validation_loss, ..Epoch::default() }
    }

    #[test]
    fn the_best_epoch_has_the_best_score_then_the_lowest_loss_then_is_the_first() {
        let by_score = [epoch(1, Some(0.2), 0.1), epoch(2, Some(0.4), 0.9), epoch(3, Some(0.3), 0.05)];
        assert_eq!(best(&by_score).unwrap().epoch, 2);
        let by_loss = [epoch(1, Some(0.0), 0.4), epoch(2, Some(0.0), 0.3), epoch(3, Some(0.0), 0.3)];
        assert_eq!(best(&by_loss).unwrap().epoch, 2);
        let no_score = [epoch(1, None, 0.4), epoch(2, None, 0.5)];
        assert_eq!(best(&no_score).unwrap().epoch, 1);
        assert!(best(&[]).is_none(), "no epoch");
    }

    #[test]
    fn patience_ends_after_as_many_epochs_as_it_has() {
        let history = [epoch(1, Some(0.2), 0.1), epoch(2, Some(0.4), 0.9), epoch(3, Some(0.3), 0.05)];
        assert!(!exhausted(&history, Some(2)), "one epoch was not better");
        assert!(exhausted(&history, Some(1)), "that is enough");
        assert!(!exhausted(&history, None) && !exhausted(&[], Some(1)), "nothing to wait for");
    }

    #[test]
    fn the_table_leaves_missing_scores_empty() {
        let history = [epoch(1, Some(0.25), 0.5), epoch(2, None, 0.125)];
        let csv = "epoch,training_loss,validation_loss,score,threshold,learning_rate\n1,0,0.5,0.25,,0\n2,0,0.125,,,0\n";
        assert_eq!(history_csv(&history), csv);
    }
}
