//! A training run: what it shows, and what it keeps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use s2_io::write_atomic;
use unet_burn::burn::train::Interrupter;
use unet_burn::burn::train::renderer::MetricsRenderer;
use unet_burn::burn::train::renderer::tui::TuiMetricsRendererWrapper;
use unet_burn::{
    Bundle, Checkpoints, Criterion, Epoch, Error, Execution, PatchSet, Progress, Recipe, Trained,
    TrainingConfig, TrainingRecord, UNetConfig, history_csv, training_bytes,
};

use super::Patches;
use crate::cli::{Interrupted, check_interrupt, make_folder, progress_bar, write_json};
use crate::device::{Chosen, gib};
use crate::predict::geometry;

/// Folder of a run's checkpoint, in its output folder.
pub const CHECKPOINT: &str = "checkpoint";

/// What to do where the memory is too small for a run that is under way.
const ITS_OWN_BATCHES: &str = "the run goes on with the batches that it was begun with: resume it with more memory, or begin anew in another folder";

/// Everything that a training run needs besides its patches.
pub struct Run<'a> {
    /// The network.
    pub network: UNetConfig,
    /// The settings.
    pub training: TrainingConfig,
    /// Halves the batches until the memory holds them; gradients of as many more are averaged, so that steps stay as large.
    pub smaller_batches: bool,
    /// What the channels are.
    pub recipe: Recipe,
    /// Where the patches came from.
    pub sources: Vec<String>,
    /// The devices; each step takes a batch on each.
    pub devices: &'a [Chosen],
    /// Stops the run.
    pub interrupter: &'a Interrupter,
    /// What is shown.
    pub display: Display,
    /// Where the run keeps its history and its state, if anywhere.
    pub keep: Option<Keep>,
}

/// What is shown of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// Nothing.
    Quiet,
    /// A bar and one line an epoch.
    Plain,
    /// burn's dashboard on the whole terminal.
    Dashboard,
}

/// The files of a run under way.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Folder of `history.csv`, `history.json` and `checkpoint/`.
    pub folder: PathBuf,
    /// Goes on after the last finished epoch.
    pub resume: bool,
    /// How the patches are made: a checkpoint of other patches is refused.
    pub facts: BTreeMap<String, String>,
}

impl Keep {
    fn write_history(&self, history: &[Epoch]) -> Result<()> {
        write_json(&self.folder.join("history.json"), &history)?;
        let csv = history_csv(history);
        Ok(write_atomic(self.folder.join("history.csv"), |file| {
            std::io::Write::write_all(file, csv.as_bytes())
        })?)
    }
}

impl Run<'_> {
    /// Trains and puts the result into a bundle that has no threshold yet.
    pub fn train(mut self, training: Patches, validation: Patches) -> Result<Bundle> {
        let first = self.devices.first().context("a run needs a device")?;
        self.training.check()?;
        ensure!(validation.any_positive(), "the validation part holds no mine to choose a threshold by");
        let is_begun = self.go_on_as_begun()?;
        while let Some(refusal) = self.lacks_memory(first, &training)? {
            let refusal = anyhow!(refusal);
            if is_begun {
                return Err(refusal.context(ITS_OWN_BATCHES));
            }
            self.take_smaller_batches().ok_or(refusal)?;
        }
        if let Some(keep) = &self.keep {
            make_folder(&keep.folder)?;
        }
        let attempt = |run: &Self| run.attempt(first, training.clone(), validation.clone());
        let Trained { model, history, best_epoch, interrupted, waited } =
            self.until_it_fits(training.window(), attempt)?;
        if interrupted {
            return Err(Interrupted.into());
        }
        tracing::info!(
            "epoch {best_epoch} was the best; the device waited {:.1} s for patches",
            waited.as_secs_f64()
        );
        let record = TrainingRecord {
            config: self.training,
            history,
            best_epoch,
            sources: self.sources,
            device: first.name.clone(),
        };
        Ok(Bundle { model, recipe: self.recipe, threshold: None, training: Some(record) })
    }

    /// Attempts it with smaller batches as long as the device lacks memory, if the run may make them smaller.
    fn until_it_fits<T>(&mut self, window: usize, attempt: impl Fn(&Self) -> Result<T>) -> Result<T> {
        loop {
            let error = match attempt(self) {
                Err(error) if matches!(error.downcast_ref(), Some(Error::OutOfMemory { .. })) => error,
                other => return other,
            };
            if self.begun()?.is_some() {
                return Err(error.context(ITS_OWN_BATCHES));
            }
            self.take_smaller_batches().ok_or_else(|| error.context(self.advice(window)))?;
        }
    }

    /// What is wrong, where the device tells what it has free and that is too little.
    fn lacks_memory(&self, device: &Chosen, training: &Patches) -> Result<Option<String>> {
        let Some(free) = device.free_bytes() else { return Ok(None) };
        // On the CPU all of them share its memory, and none gets more windows than there are.
        let devices = self.devices.len();
        let most = training.len().div_ceil(devices);
        lacks_memory(&self.network, training.window(), &self.training, [devices, most], free)
    }

    /// The settings of the run that left its checkpoint where this one keeps its own.
    fn begun(&self) -> Result<Option<TrainingConfig>> {
        Ok(self.checkpoints().map_or(Ok(None), |checkpoints| checkpoints.settings())?)
    }

    /// A run that was begun with smaller batches than were asked for goes on with them. Tells whether one goes on.
    fn go_on_as_begun(&mut self) -> Result<bool> {
        if self.keep.as_ref().is_none_or(|keep| !keep.resume) {
            return Ok(false);
        }
        let Some(TrainingConfig { batch_size, accumulation, .. }) = self.begun()? else { return Ok(false) };
        let asked = &mut self.training;
        if self.smaller_batches
            && batch_size < asked.batch_size
            && batch_size * accumulation == asked.batch_size * asked.accumulation
        {
            tracing::info!("going on as begun, with --batch-size {batch_size} --accumulate {accumulation}");
            (asked.batch_size, asked.accumulation) = (batch_size, accumulation);
        }
        Ok(true)
    }

    /// Halves the batches, if the run may.
    fn take_smaller_batches(&mut self) -> Option<()> {
        let batch = self.training.batch_size;
        let (size, accumulation) =
            smaller_batch(batch / 2, &self.training).filter(|_| self.smaller_batches)?;
        tracing::warn!(
            "batches of {batch} are too large: going on with --batch-size {size} --accumulate {accumulation}"
        );
        self.training.batch_size = size;
        self.training.accumulation = accumulation;
        Some(())
    }

    /// What to do about batches that are too large for a device that does not tell what it has free.
    fn advice(&self, window: usize) -> String {
        let batch = self.training.batch_size;
        let smaller = || geometry(&self.network).ok()?.valid_input_at_most(window * 3 / 4);
        let smaller = smaller_batch(batch / 2, &self.training)
            .map(in_words)
            .or_else(|| smaller().map(|size| format!("--window {size}")));
        let smaller = smaller.unwrap_or_else(|| "fewer --filters".into());
        format!("windows of {window}, {batch} at a time, do not fit into the device: try {smaller}")
    }

    fn checkpoints(&self) -> Option<Checkpoints> {
        self.keep.as_ref().map(|keep| Checkpoints {
            folder: keep.folder.join(CHECKPOINT),
            resume: keep.resume,
            facts: keep.facts.clone(),
        })
    }

    /// One go at the training.
    fn attempt(&self, device: &Chosen, training: Patches, validation: Patches) -> Result<Trained> {
        // The attempt before stopped it.
        self.interrupter.reset();
        check_interrupt()?;
        self.devices.iter().for_each(|chosen| chosen.device.memory_cleanup());
        device.device.seed(self.training.seed);
        let model = self.network.init(&device.device)?;
        let steps = self.training.epochs * training.len();
        let bar = progress_bar(self.display != Display::Plain, steps, "train");
        let (shown, per_epoch, keep, criterion) =
            (bar.clone(), training.len(), self.keep.clone(), self.training.criterion);
        let display = self.display;
        let say = move |line: String| match display {
            Display::Plain => shown.suspend(|| tracing::info!("{line}")),
            Display::Quiet | Display::Dashboard => {}
        };
        let (moved, interrupter) = (bar.clone(), self.interrupter.clone());
        let unwritten = Arc::new(Mutex::new(None));
        let failed = unwritten.clone();
        let progress = move |progress: Progress<'_>| match progress {
            Progress::Resumed(history) => say(format!("goes on after epoch {}", history.len())),
            Progress::Patches { epoch, done, .. } => {
                moved.set_position(((epoch - 1) * per_epoch + done) as u64);
            }
            Progress::Epoch(history) => {
                if let Some(epoch) = history.last() {
                    say(line(epoch, criterion));
                }
                if let Some(Err(error)) = keep.as_ref().map(|keep| keep.write_history(history)) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    interrupter.stop(Some("the history cannot be written"));
                }
            }
            _ => {}
        };
        let renderer = (display == Display::Dashboard).then(|| -> Box<dyn MetricsRenderer> {
            Box::new(TuiMetricsRendererWrapper::new(self.interrupter.clone(), None))
        });
        let execution = Execution {
            devices: self.devices.iter().map(|chosen| chosen.device.clone()).collect(),
            interrupter: self.interrupter.clone(),
            checkpoints: self.checkpoints(),
            renderer,
            progress: Box::new(progress),
        };
        let outcome = unet_burn::train(model, &self.training, training, validation, execution);
        bar.finish_and_clear();
        if let Some(error) = unwritten.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        check_interrupt()?;
        Ok(outcome?)
    }
}

/// What is wrong where the memory cannot hold the windows of so many devices at once, up to so many each, and what it can.
fn lacks_memory(
    network: &UNetConfig,
    window: usize,
    training: &TrainingConfig,
    [devices, most]: [usize; 2],
    free: u64,
) -> Result<Option<String>> {
    let bytes = |size: usize| -> Result<u64> {
        let bytes = training_bytes(network, size)?;
        // The CPU computes halves in single precision, and holds both.
        Ok(if training.mixed_precision { bytes / 2 * 3 } else { bytes })
    };
    let each = bytes(window)?;
    let windows = training.batch_size.min(most) * devices;
    let needed = each.saturating_mul(windows as u64);
    if needed <= free {
        return Ok(None);
    }
    let geometry = geometry(network)?;
    let next = |&size: &usize| geometry.valid_input_at_most(size - 1);
    let mut smaller_windows = std::iter::successors(geometry.valid_input_at_most(window - 1), next);
    let fits = |&size: &usize| bytes(size).is_ok_and(|bytes| bytes <= free / devices as u64);
    let fit = usize::try_from(free / each).unwrap_or(usize::MAX) / devices;
    let smaller = smaller_batch(fit, training)
        .map(in_words)
        .or_else(|| smaller_windows.find(fits).map(|size| format!("--window {size} --batch-size 1")));
    Ok(Some(format!(
        "{windows} windows of {window} need about {} of memory to learn from, and {} are free: use {}",
        gib(needed),
        gib(free),
        smaller.unwrap_or_else(|| "fewer --filters".into())
    )))
}

/// Size and number of smaller batches, of up to so many windows, whose steps are as large as those that were asked for.
fn smaller_batch(fit: usize, training: &TrainingConfig) -> Option<(usize, usize)> {
    let TrainingConfig { batch_size, accumulation, .. } = *training;
    let size = (1..=fit.min(batch_size - 1)).rev().find(|&size| batch_size.is_multiple_of(size))?;
    Some((size, accumulation * (batch_size / size)))
}

fn in_words((size, accumulation): (usize, usize)) -> String {
    format!("--batch-size {size} --accumulate {accumulation} (steps stay as large)")
}

/// An epoch in words.
fn line(epoch: &Epoch, criterion: Criterion) -> String {
    let Epoch { epoch, training_loss, validation_loss, score, threshold, .. } = *epoch;
    let score = match score.zip(threshold) {
        Some((score, threshold)) => format!(", {criterion} {score:.4} at threshold {threshold:.3}"),
        None => String::new(),
    };
    format!("epoch {epoch}: training loss {training_loss:.5}, validation loss {validation_loss:.5}{score}")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::*;

    #[test]
    fn what_the_memory_cannot_hold_is_refused_with_what_it_can() {
        let network = UNetConfig { in_channels: 22, ..UNetConfig::default() };
        let each = training_bytes(&network, 572).unwrap();
        let lacks = |window: usize, batch_size: usize, limits: [usize; 2], free: u64| {
            let training = TrainingConfig { batch_size, accumulation: 3, ..TrainingConfig::default() };
            lacks_memory(&network, window, &training, limits, free).unwrap()
        };
        let words = |batch: usize, free: u64| lacks(572, batch, [1, 1000], free).unwrap();
        assert!(lacks(572, 4, [1, 1000], 4 * each).is_none(), "just enough");
        assert!(lacks(572, 1000, [2, 2], 4 * each).is_none(), "there are no more windows");
        let expected = "are free: use --batch-size 2 --accumulate 6 (steps stay as large)";
        assert!(words(4, 3 * each).ends_with(expected), "{}", words(4, 3 * each));
        assert!(words(3, 2 * each).contains("--batch-size 1 --accumulate 9"), "{}", words(3, 2 * each));
        let few = lacks(572, 1000, [2, 8], 10 * each).unwrap();
        assert!(few.starts_with("16 windows") && few.contains("--batch-size 5 --accumulate 600"), "{few}");
        let text = words(2, each / 2);
        let size: usize = text.split("--window ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(lacks(size, 1, [1, 1000], each / 2).is_none() && size > 380, "{text}");
        assert!(words(1, 1000).ends_with("use fewer --filters"), "{}", words(1, 1000));
    }

    /// A run without data.
    fn run(interrupter: &Interrupter, batch_size: usize, smaller_batches: bool) -> Run<'_> {
        Run {
            network: UNetConfig { in_channels: 22, ..UNetConfig::default() },
            training: TrainingConfig { batch_size, accumulation: 3, ..TrainingConfig::default() },
            smaller_batches,
            recipe: Recipe { channels: Vec::new(), resolution_m: 10.0, normalization: String::new() },
            sources: Vec::new(),
            devices: &[],
            interrupter,
            display: Display::Quiet,
            keep: None,
        }
    }

    #[test]
    fn batches_are_halved_and_steps_stay_as_large() {
        let interrupter = Interrupter::new();
        assert!(run(&interrupter, 8, false).take_smaller_batches().is_none(), "only if it may");
        for (asked, halved) in [(8, vec![4, 2, 1]), (6, vec![3, 1]), (5, vec![1]), (1, vec![])] {
            let mut run = run(&interrupter, asked, true);
            let mut sizes = Vec::new();
            while run.take_smaller_batches().is_some() {
                sizes.push(run.training.batch_size);
                assert_eq!(run.training.batch_size * run.training.accumulation, 3 * asked, "a step");
            }
            assert_eq!(sizes, halved, "of {asked}");
        }
    }

    #[test]
    fn a_device_that_lacks_memory_gets_smaller_batches_if_it_may() {
        let interrupter = Interrupter::new();
        let asked = RefCell::new(Vec::new());
        // It holds batches of up to so many windows.
        let device = |holds: usize| {
            let asked = &asked;
            move |run: &Run<'_>| -> Result<usize> {
                let size = run.training.batch_size;
                asked.borrow_mut().push(size);
                ensure!(size <= holds, Error::OutOfMemory { message: "can't allocate".into() });
                Ok(size)
            }
        };
        let mut smaller = run(&interrupter, 8, true);
        assert_eq!(smaller.until_it_fits(572, device(2)).unwrap(), 2);
        assert_eq!(asked.take(), [8, 4, 2]);
        assert_eq!(smaller.training.accumulation, 3 * 4, "steps stay as large");

        let error = format!("{:#}", run(&interrupter, 8, false).until_it_fits(572, device(2)).unwrap_err());
        let advice = "windows of 572, 8 at a time, do not fit into the device: try --batch-size 4 --accumulate 6 (steps stay as large): ";
        assert!(error.starts_with(advice) && error.ends_with("can't allocate"), "{error}");
        assert_eq!(asked.take(), [8], "once");

        let error = format!("{:#}", run(&interrupter, 2, true).until_it_fits(572, device(0)).unwrap_err());
        assert!(
            error.starts_with("windows of 572, 1 at a time, do not fit into the device: try --window "),
            "{error}"
        );
        assert_eq!(asked.take(), [2, 1], "to the last");

        let other = |_: &Run<'_>| -> Result<()> { bail!("something else") };
        let error = run(&interrupter, 8, true).until_it_fits(572, other).unwrap_err();
        assert_eq!(error.to_string(), "something else", "other errors stay as they are");
    }
}
