//! The step size by epoch.

use std::sync::Arc;

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use serde::{Deserialize, Serialize};

use super::history::{History, improves};
use crate::{Epoch, Error, Result};

/// How the step size changes from epoch to epoch; within one it stays the same.
///
/// It follows from the number of the epoch and the epochs before it alone, so a resumed run goes on with the
/// step size that it would have had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The same for all epochs.
    #[default]
    Constant,
    /// Half a cosine from the full step size in the first epoch towards `floor` after the last:
    /// `floor + (rate − floor) (1 + cos(π (epoch − 1) / epochs)) / 2` (Loshchilov & Hutter 2017,
    /// arXiv:1608.03983, equation 5, one period).
    Cosine {
        /// Step size at the end.
        floor: f64,
    },
    /// Times `factor` whenever `patience` epochs in a row were not better than the best before them; the count
    /// starts anew after each reduction.
    Plateau {
        /// Epochs to wait.
        patience: usize,
        /// What the step size is multiplied by, in (0, 1).
        factor: f64,
        /// Smallest step size.
        floor: f64,
    },
}

impl Schedule {
    /// The step size of the epoch that follows `history`.
    pub(super) fn learning_rate(&self, base: f64, epochs: usize, history: &[Epoch]) -> f64 {
        match *self {
            Self::Constant => base,
            #[expect(clippy::cast_precision_loss, reason = "numbers of epochs are far below 2^52")]
            Self::Cosine { floor } => {
                let phase = std::f64::consts::PI * history.len() as f64 / epochs as f64;
                floor + (base - floor) * (1.0 + phase.cos()) / 2.0
            }
            Self::Plateau { patience, factor, floor } => {
                let (mut rate, mut waited, mut best) = (base, 0, None::<&Epoch>);
                for epoch in history {
                    if best.is_none_or(|best| improves(epoch, best)) {
                        (best, waited) = (Some(epoch), 0);
                        continue;
                    }
                    waited += 1;
                    if waited >= patience {
                        (rate, waited) = ((rate * factor).max(floor).min(base), 0);
                    }
                }
                rate
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let error = |field, value: f64, requirement| {
            Err(Error::InvalidConfig { field, value: value.to_string(), requirement })
        };
        match *self {
            Self::Cosine { floor } | Self::Plateau { floor, .. } if !(floor >= 0.0 && floor.is_finite()) => {
                error("floor", floor, "it has to be 0 or more")
            }
            Self::Plateau { factor, .. } if !(factor > 0.0 && factor < 1.0) => {
                error("factor", factor, "it has to be between 0 and 1")
            }
            Self::Plateau { patience: 0, .. } => error("patience", 0.0, "it has to be 1 or more"),
            _ => Ok(()),
        }
    }
}

/// Gives burn's loop the step size that the history holds for the present epoch.
#[derive(Clone)]
pub(super) struct Scheduler(pub(super) Arc<History>);

impl LrScheduler for Scheduler {
    fn step(&mut self) -> f64 {
        self.0.learning_rate()
    }

    /// Nothing: the step size follows from the history.
    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new()
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(scores: &[f64]) -> Vec<Epoch> {
        let epoch = |(index, &score)| Epoch { epoch: index + 1, score: Some(score), ..Epoch::default() };
        scores.iter().enumerate().map(epoch).collect()
    }

    #[test]
    fn a_cosine_falls_from_the_rate_to_its_floor() {
        let schedule = Schedule::Cosine { floor: 1e-5 };
        let rate = |done: usize| schedule.learning_rate(1e-3, 4, &history(&vec![0.0; done]));
        // PyTorch 2.15: CosineAnnealingLR(lr=1e-3, T_max=4, eta_min=1e-5), stepped once an epoch.
        let golden = [1e-3, 0.000_855_017_856_687_341, 0.000_505, 0.000_154_982_143_312_659, 1e-5];
        for (done, golden) in golden.into_iter().enumerate() {
            assert!((rate(done) - golden).abs() < 1e-15, "after {done} epochs: {} {golden}", rate(done));
        }
    }

    #[test]
    fn a_plateau_lowers_the_rate_until_its_floor() {
        let schedule = Schedule::Plateau { patience: 2, factor: 0.1, floor: 2e-5 };
        let rate = |scores: &[f64]| schedule.learning_rate(1e-3, 99, &history(scores));
        assert_eq!(rate(&[0.5, 0.6, 0.6]), 1e-3, "one epoch that is not better");
        assert_eq!(rate(&[0.5, 0.6, 0.6, 0.1]), 1e-4, "two");
        assert_eq!(rate(&[0.5, 0.6, 0.6, 0.1, 0.1]), 1e-4, "the count starts anew");
        assert_eq!(rate(&[0.5, 0.6, 0.6, 0.1, 0.7, 0.7]), 1e-4, "a better one resets it");
        assert_eq!(rate(&[0.5, 0.6, 0.6, 0.1, 0.1, 0.1]), 2e-5, "not below the floor");
    }

    #[test]
    fn impossible_schedules_are_refused() {
        let error = Schedule::Plateau { patience: 2, factor: 1.5, floor: 0.0 }.check().unwrap_err();
        assert_eq!(error.to_string(), "factor is 1.5: it has to be between 0 and 1");
        assert!(Schedule::Cosine { floor: f64::NAN }.check().is_err(), "no number");
    }
}
