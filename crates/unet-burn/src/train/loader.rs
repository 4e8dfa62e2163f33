//! Batches in an order that follows from the seed and the epoch, made ahead by worker threads.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;

use super::Failure;
use crate::{Error, PackedBatch, Patch, PatchBatch, Result};

/// Batches that each worker thread keeps ready.
const AHEAD: usize = 2;

/// Patches to learn from, by epoch and number.
///
/// The same epoch and number give the same patch, whoever asks and when: that makes a run repeatable, and lets
/// it go on where it was killed. Another epoch may give another patch (augmentation, random places). Every
/// burn dataset of patches is one, with the same patches in each epoch.
pub trait PatchSet: Send + Sync {
    /// Patches of an epoch.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them: `epoch` from 1, and always 1 for validation; `index` from 0 to below [`len`](Self::len).
    /// Called by several threads.
    ///
    /// # Errors
    ///
    /// When it cannot be read; the error names what.
    fn patch(&self, epoch: usize, index: usize) -> Result<Patch, Box<dyn std::error::Error + Send + Sync>>;
}

impl<D: Dataset<Patch>> PatchSet for D {
    fn len(&self) -> usize {
        Dataset::len(self)
    }

    fn patch(&self, _: usize, index: usize) -> Result<Patch, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.get(index)?)
    }
}

/// What all patches of a run have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) image: (usize, usize, usize),
    pub(super) truth: (usize, usize),
}

impl Shape {
    fn check(&self, patch: &Patch) -> Result<()> {
        let Self { image: (channels, height, width), truth: (rows, cols) } = *self;
        if (patch.image.dim(), patch.truth.dim()) == (self.image, self.truth) {
            return Ok(());
        }
        let problem = format!(
            "its image {:?} with the truth {:?} does not fit the others: {channels} channels of {height} x {width} \
             pixels, a truth of {rows} x {cols}",
            patch.image.dim(),
            patch.truth.dim()
        );
        Err(Error::Patch { name: patch.name.clone(), problem })
    }
}

/// The patches of a set, in order or shuffled, as batches on a device.
pub(super) struct Loader {
    set: Arc<dyn PatchSet>,
    shape: Shape,
    /// Places in the order of the epoch: all, or one device's share.
    part: Range<usize>,
    batch_size: usize,
    /// Batches of a step.
    accumulation: usize,
    /// Devices of a step.
    devices: usize,
    workers: usize,
    /// Shuffles, and seeds the device for dropout, anew in each epoch.
    seed: Option<u64>,
    /// The epoch of the next iteration.
    epoch: AtomicUsize,
    device: Device,
    failure: Failure,
    waited: Arc<AtomicU64>,
}

impl Loader {
    /// All patches in the order of the set.
    pub(super) fn new(
        set: Arc<dyn PatchSet>,
        shape: Shape,
        batch_size: usize,
        workers: usize,
        device: &Device,
        failure: Failure,
    ) -> Self {
        Self {
            part: 0..set.len(),
            set,
            shape,
            batch_size,
            accumulation: 1,
            devices: 1,
            workers,
            seed: None,
            epoch: AtomicUsize::new(1),
            device: device.clone(),
            failure,
            waited: Arc::default(),
        }
    }

    /// In another order in each epoch, beginning with `epoch`, for steps of some batches on some devices.
    pub(super) fn shuffled(self, seed: u64, epoch: usize, accumulation: usize, devices: usize) -> Self {
        Self { seed: Some(seed), epoch: AtomicUsize::new(epoch), accumulation, devices, ..self }
    }

    /// Nanoseconds that the device waited for a batch so far.
    pub(super) fn waited(&self) -> Arc<AtomicU64> {
        self.waited.clone()
    }

    fn copy(&self) -> Self {
        Self {
            set: self.set.clone(),
            part: self.part.clone(),
            epoch: AtomicUsize::new(self.epoch.load(Ordering::Relaxed)),
            device: self.device.clone(),
            failure: self.failure.clone(),
            waited: self.waited.clone(),
            ..*self
        }
    }

    fn batches(&self, epoch: usize) -> Batches {
        let order = match self.seed {
            Some(seed) => shuffle(self.set.len(), mix(seed, epoch as u64)),
            None => (0..self.set.len()).collect(),
        };
        Batches {
            set: self.set.clone(),
            shape: self.shape,
            epoch,
            order: order[self.part.clone()].to_vec(),
            batch_size: self.batch_size,
        }
    }
}

impl DataLoader<PatchBatch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<PatchBatch> + 'a> {
        // Without a seed it is validation, which is the same after each epoch.
        let epoch = self.seed.map_or(1, |seed| {
            let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
            self.device.seed(mix(!seed, epoch as u64));
            epoch
        });
        let batches = Arc::new(self.batches(epoch));
        let workers = self.workers.min(batches.count());
        let queues = (0..workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(AHEAD);
                let batches = batches.clone();
                std::thread::spawn(move || {
                    for number in (worker..batches.count()).step_by(workers) {
                        let batch = batches.make(number);
                        let failed = batch.is_err();
                        if sender.send(batch).is_err() || failed {
                            break;
                        }
                    }
                });
                receiver
            })
            .collect();
        Box::new(Iter { loader: self, batches, queues, next: 0 })
    }

    fn num_items(&self) -> usize {
        self.part.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<PatchBatch>> {
        Arc::new(Self { device: device.clone(), ..self.copy() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<PatchBatch>> {
        let first = self.part.start;
        Arc::new(Self { part: first + start..first + end, ..self.copy() })
    }
}

/// The batches of an epoch.
struct Batches {
    set: Arc<dyn PatchSet>,
    shape: Shape,
    epoch: usize,
    order: Vec<usize>,
    batch_size: usize,
}

impl Batches {
    fn count(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    fn make(&self, number: usize) -> Result<PackedBatch> {
        let indices = self.order.chunks(self.batch_size).nth(number).unwrap_or_default();
        let patch = |&index: &usize| {
            let patch =
                self.set.patch(self.epoch, index).map_err(|source| Error::ReadPatch { index, source })?;
            self.shape.check(&patch)?;
            Ok(patch)
        };
        PackedBatch::try_new(&indices.iter().map(patch).collect::<Result<Vec<_>>>()?)
    }
}

/// An epoch under way. Dropping it closes the queues, and the workers end.
struct Iter<'a> {
    loader: &'a Loader,
    batches: Arc<Batches>,
    queues: Vec<Receiver<Result<PackedBatch>>>,
    next: usize,
}

impl Iter<'_> {
    fn batch(&mut self) -> Result<PackedBatch> {
        match self.queues.get(self.next % self.queues.len().max(1)) {
            Some(queue) => queue.recv().unwrap_or_else(|_| {
                Err(Error::Training { message: "a thread that reads patches panicked".into() })
            }),
            None => self.batches.make(self.next),
        }
    }

    /// The batch's patches over those of its step.
    #[expect(clippy::cast_precision_loss, reason = "numbers of patches are far below 2^52")]
    fn share(&self, patches: usize) -> f64 {
        let step = self.loader.accumulation * self.loader.batch_size;
        let first = self.next * self.loader.batch_size / step * step;
        let whole = step.min(self.batches.order.len() - first);
        patches as f64 / whole as f64 / self.loader.devices as f64
    }
}

impl Iterator for Iter<'_> {
    type Item = std::result::Result<PatchBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.batches.count() {
            return None;
        }
        let start = Instant::now();
        let batch = self.batch();
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.loader.waited.fetch_add(waited, Ordering::Relaxed);
        Some(match batch {
            Ok(batch) => {
                let share = self.share(batch.num_patches());
                self.next += 1;
                Ok(PatchBatch { share, ..batch.into_device(&self.loader.device) })
            }
            Err(error) => {
                let message = error.to_string();
                self.loader.failure.set(error);
                Err(DatasetError::new(std::io::Error::other(message)))
            }
        })
    }
}

impl DataLoaderIterator<PatchBatch> for Iter<'_> {
    fn progress(&self) -> Progress {
        let total = self.batches.order.len();
        Progress::new((self.next * self.batches.batch_size).min(total), total, Some("patches".into()))
    }
}

/// `SplitMix64` (Steele et al. 2014, doi:10.1145/2714064.2660195): a permutation of all 64-bit numbers.
fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seed from a seed and a number.
fn mix(seed: u64, number: u64) -> u64 {
    split_mix(split_mix(seed).wrapping_add(number))
}

/// The numbers below `len` in random order (Fisher and Yates). Our own, so that no update of a library changes
/// the order and with it a run that is resumed.
fn shuffle(len: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        // The high half of the product is uniform on 0 ..= last to 2^-64 · len.
        let product = u128::from(mix(seed, last as u64)) * (last as u128 + 1);
        order.swap(last, usize::try_from(product >> 64).unwrap_or(last));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IGNORE_INDEX, Image};
    use ndarray::{Array2, Array3};
    use std::time::Duration;

    const SHAPE: Shape = Shape { image: (1, 2, 2), truth: (1, 1) };

    /// Patches that tell their epoch and number.
    struct Numbers {
        len: usize,
        /// Patches that were asked for.
        read: Arc<AtomicUsize>,
        fault: Option<usize>,
    }

    impl PatchSet for Numbers {
        fn len(&self) -> usize {
            self.len
        }

        fn patch(
            &self,
            epoch: usize,
            index: usize,
        ) -> Result<Patch, Box<dyn std::error::Error + Send + Sync>> {
            self.read.fetch_add(1, Ordering::SeqCst);
            let label = if self.fault == Some(index) { 7 } else { IGNORE_INDEX };
            Ok(Patch {
                name: format!("number {index}"),
                image: Image::Normalised(Array3::from_elem((1, 2, 2), (1000 * epoch + index) as f32)),
                truth: Array2::from_elem((1, 1), label),
            })
        }
    }

    fn loader(len: usize, workers: usize) -> Loader {
        let set = Numbers { len, read: Arc::default(), fault: None };
        Loader::new(Arc::new(set), SHAPE, 4, workers, &Device::flex(), Failure::default())
    }

    /// Numbers of the batches of an epoch, and the batches' shares.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
    fn epoch(loader: &dyn DataLoader<PatchBatch>) -> (Vec<Vec<usize>>, Vec<f64>) {
        let number = |batch: &PatchBatch| {
            let values = batch.images.clone().into_data().try_to_vec::<f32>().unwrap();
            values.chunks(4).map(|patch| patch[0] as usize).collect::<Vec<_>>()
        };
        loader.iter().map(|batch| batch.unwrap()).map(|batch| (number(&batch), batch.share)).unzip()
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_and_not_on_threads() {
        let of = |workers: usize, first: usize| loader(11, workers).shuffled(5, first, 1, 1);
        let (two, three) = (of(0, 2), of(3, 2));
        let second = epoch(&two).0;
        assert_eq!(second, epoch(&three).0, "threads");
        let third = epoch(&two).0;
        assert_eq!(third, epoch(&of(2, 3)).0, "begun with the third epoch");
        let flat = |batches: &[Vec<usize>], offset: usize| {
            batches.concat().iter().map(|n| n - offset).collect::<Vec<_>>()
        };
        assert_ne!(flat(&second, 2000), flat(&third, 3000), "another order in each epoch");
        let mut sorted = flat(&third, 3000);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..11).collect::<Vec<_>>(), "each patch once");
        assert_eq!(
            epoch(&loader(11, 2)).0.concat(),
            (1000..1011).collect::<Vec<_>>(),
            "validation is in order"
        );
    }

    #[test]
    fn shares_of_a_step_sum_to_one() {
        let accumulated = loader(11, 1).shuffled(5, 1, 2, 1);
        assert_eq!(epoch(&accumulated).1, [0.5, 0.5, 1.0], "4 + 4 patches, then the last 3");
        let two_devices = loader(11, 1).shuffled(5, 1, 1, 2);
        let slices = [two_devices.slice(0, 5), two_devices.slice(5, 11)].map(|slice| epoch(slice.as_ref()));
        assert_eq!(slices[0].1, [0.5, 0.5], "each device half");
        let mut all = [slices[0].0.concat(), slices[1].0.concat()].concat();
        all.sort_unstable();
        assert_eq!(all, (1000..1011).collect::<Vec<_>>(), "the devices share the patches");
    }

    #[test]
    fn workers_read_while_the_device_computes() {
        let read = Arc::new(AtomicUsize::new(0));
        let set = Numbers { len: 48, read: read.clone(), fault: None };
        let loader = Loader::new(Arc::new(set), SHAPE, 4, 2, &Device::flex(), Failure::default());
        let mut batches = loader.iter();
        let _first = batches.next();
        // Nobody asks for the second batch, and it is read all the same. A minute is only there for a test that fails.
        let given_up = Instant::now() + Duration::from_secs(60);
        while read.load(Ordering::SeqCst) < 8 && Instant::now() < given_up {
            std::thread::yield_now();
        }
        assert!(read.load(Ordering::SeqCst) >= 8, "two batches of four");
    }

    #[test]
    fn a_faulty_patch_ends_the_epoch_with_its_name() {
        for workers in [0, 1, 3] {
            let set = Numbers { len: 20, read: Arc::default(), fault: Some(9) };
            let failure = Failure::default();
            let loader = Loader::new(Arc::new(set), SHAPE, 4, workers, &Device::flex(), failure.clone());
            let errors: Vec<_> = loader.iter().take(3).filter_map(Result::err).collect();
            assert_eq!(errors.len(), 1, "the third batch");
            let error = failure.take().unwrap().to_string();
            assert!(error.starts_with("number 9 cannot be learned from: the truth"), "{error}");
        }
    }
}
