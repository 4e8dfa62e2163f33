//! What a run tells while it goes on.

use std::sync::Arc;

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};

use crate::Epoch;

/// What a training run reports while it goes on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The run goes on from a checkpoint: the epochs before it.
    Resumed(&'a [Epoch]),
    /// A batch is done.
    Patches {
        /// Number of the epoch, from 1.
        epoch: usize,
        /// Training patches of this epoch that were seen.
        done: usize,
        /// Training patches of an epoch.
        total: usize,
    },
    /// An epoch is done, the last of these.
    Epoch(&'a [Epoch]),
}

/// Who is told of the progress.
pub(super) type Report = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

/// Passes burn's progress on.
pub(super) struct Reporter {
    epoch: usize,
    /// Patches of the training split while it runs.
    total: Option<usize>,
    report: Report,
}

impl Reporter {
    pub(super) fn new(report: Report) -> Self {
        Self { epoch: 0, total: None, report }
    }
}

impl TrainingProgressLogger for Reporter {
    fn start(&mut self, _epochs: usize, starting_epoch: usize, _items: Option<usize>, _label: Option<&str>) {
        self.epoch = starting_epoch;
    }

    fn start_split(&mut self, split: &str, total_items: usize) {
        self.total = split.eq_ignore_ascii_case("train").then_some(total_items);
    }

    fn update_split(&mut self, done: usize) {
        if let Some(total) = self.total {
            (self.report)(Progress::Patches { epoch: self.epoch, done, total });
        }
    }

    fn end_split(&mut self) {
        self.total = None;
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

/// Shows nothing, where no renderer was given.
pub(super) struct Silent;

impl TrainingProgressLogger for Silent {
    fn start(&mut self, _epochs: usize, _epoch: usize, _items: Option<usize>, _label: Option<&str>) {}

    fn start_split(&mut self, _split: &str, _items: usize) {}

    fn update_split(&mut self, _done: usize) {}

    fn end_split(&mut self) {}

    fn update_epoch(&mut self, _epoch: usize) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererTraining for Silent {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, _state: MetricState) {}
}

impl EvaluationProgressLogger for Silent {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Silent {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for Silent {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}
