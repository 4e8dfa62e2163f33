//! Which window size the memory of the device allows, and which one the scene wants.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use s2_patches::{Geometry, WindowPlan};
use unet_burn::ndarray::Array4;
use unet_burn::{Error, Predictor, UNetConfig};

use crate::device::gib;

/// Memory of the host that windows take at most where nothing else is asked for: with the files of a tile and the program it is
/// within 2 GiB.
const WINDOW_BYTES: u64 = 7 << 28;
/// Smaller windows spend too much on margins to be taken for the sake of that.
const SMALL: usize = 572;
/// Windows that wait for the device may fill so much memory, or be one.
const READ_AHEAD_BYTES: u64 = 512 << 20;
/// More threads than these do not read windows faster.
const MAX_READERS: usize = 4;

/// Beyond this windows hardly spend less on margins: of a tile, 1.25 pixels are computed for each one that is kept, in
/// windows of 572 it is 2.44.
pub const LARGEST: usize = 2108;

/// The side of the windows, as the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowSize {
    /// What fits.
    Auto,
    /// So many pixels, or an error.
    Pixels(usize),
}

impl FromStr for WindowSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Pixels).map_err(|_| "neither auto nor a number of pixels".into()),
        }
    }
}

/// What windows have to fit.
#[derive(Clone, Copy, Debug)]
pub struct Fit<'a> {
    /// Rows of the scene.
    pub height: usize,
    /// Columns of the scene.
    pub width: usize,
    /// The network.
    pub network: &'a UNetConfig,
    /// Its geometry.
    pub geometry: Geometry,
    /// Whether windows are seen in all eight views.
    pub all_views: bool,
    /// Windows at a time.
    pub batch: usize,
    /// Maps that come out: the probability and, if asked for, its spread.
    pub num_maps: usize,
    /// Memory that no window changes: of the weights and of the files that are written meanwhile, in bytes.
    pub fixed_bytes: u64,
}

impl Fit<'_> {
    /// The plan of a window size.
    pub fn plan(&self, size: usize) -> Result<WindowPlan, s2_patches::Error> {
        let plan = if self.all_views { WindowPlan::for_all_views } else { WindowPlan::try_new };
        plan(self.height, self.width, self.geometry, size)
    }

    /// Of the windows of up to `largest` that fit, those that give the network the fewest pixels.
    fn cheapest(&self, largest: usize, fits: impl Fn(usize) -> bool) -> Option<WindowPlan> {
        let plan = |size: usize| fits(size).then(|| self.plan(size).ok()).flatten();
        WindowPlan::cheapest(plan, self.geometry, largest)
    }

    /// The plan for a choice, with the memory that the network needs for a batch of windows of a size. On a device with so many
    /// bytes of memory free, if anybody knows: the CPU, whose memory is the host's.
    pub fn choose(
        &self,
        choice: WindowSize,
        network_bytes: impl Fn(usize) -> u64,
        free_bytes: Option<u64>,
    ) -> Result<WindowPlan> {
        let needed =
            |size: usize| network_bytes(size).saturating_add(self.window_bytes(size) + self.fixed_bytes);
        match choice {
            WindowSize::Auto => {
                // Half, because the estimate may be off and others want memory, too.
                let fits = |size: usize| free_bytes.is_none_or(|free| needed(size) <= free / 2);
                let largest = self.cheapest(LARGEST, fits).with_context(|| match free_bytes {
                    Some(free) if self.cheapest(LARGEST, |_| true).is_some() => {
                        format!(
                            "{} of memory are too little for the smallest window of this network",
                            gib(free)
                        )
                    }
                    _ => format!("no window of up to {LARGEST} fits this network"),
                })?;
                let held = |size: usize| size <= SMALL || self.window_bytes(size) <= WINDOW_BYTES;
                let plan = self.cheapest(LARGEST, |size| fits(size) && held(size)).unwrap_or(largest);
                if self.batch > 1 && plan.input_size() < largest.input_size() {
                    tracing::info!(
                        "windows of {} in place of {}, so that the host holds batches of {}: a smaller --batch gets larger ones",
                        plan.input_size(),
                        largest.input_size(),
                        self.batch
                    );
                }
                Ok(plan)
            }
            WindowSize::Pixels(size) => {
                let plan = self.plan(size)?;
                if let Some(free) = free_bytes.filter(|&free| needed(size) > free) {
                    bail!(
                        "windows of {size} need about {} of memory and {} are free: {}",
                        gib(needed(size)),
                        gib(free),
                        advice(self.largest(size, |size| needed(size) <= free))
                    );
                }
                Ok(plan)
            }
        }
    }

    /// Memory that the windows of a size take on the host, about: those that are read or wait, a batch of them on its way to the
    /// device, and rows of them of the map on their way to the files.
    fn window_bytes(&self, size: usize) -> u64 {
        // A window that is read has the pixels of the stack beside it, half as many bytes; a batch is there once more in a row.
        let windows = (3 * self.readers(size)).div_ceil(2) + 2 * self.batch;
        let row = (self.num_maps * self.width * size * size_of::<f32>()) as u64;
        windows as u64 * self.input_bytes(size) + 3 * row
    }

    /// Threads that read windows ahead.
    pub fn readers(&self, size: usize) -> usize {
        let threads = rayon::current_num_threads().min(MAX_READERS);
        usize::try_from(READ_AHEAD_BYTES / self.input_bytes(size))
            .map_or(threads, |ready| ready.clamp(1, threads))
    }

    /// Memory of a window's channels.
    fn input_bytes(&self, size: usize) -> u64 {
        (self.network.in_channels * size.pow(2) * size_of::<f32>()) as u64
    }

    /// The largest window size up to `largest` that fits and makes a plan.
    fn largest(&self, largest: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut size = self.geometry.valid_input_at_most(largest)?;
        while !fits(size) {
            size = self.geometry.valid_input_at_most(size - 1)?;
        }
        self.plan(size).ok().map(|_| size)
    }

    /// The largest window size with at most half the pixels of this one.
    fn half_of(&self, size: usize) -> Option<usize> {
        let size = self.geometry.valid_input_at_most((size as f64 / f64::sqrt(2.0)) as usize)?;
        self.plan(size).ok().map(|_| size)
    }

    /// Predicts with a plan. When the device runs out of memory, `auto` goes on with smaller windows until these fit; for
    /// a size that was asked for the error names one that fits, found by trial, since no graphics device tells what it
    /// has left.
    pub fn attempt<T>(
        &self,
        choice: WindowSize,
        mut plan: WindowPlan,
        mut predict: impl FnMut(&WindowPlan) -> Result<T>,
        fits: impl Fn(usize) -> bool,
    ) -> Result<T> {
        loop {
            let error = match predict(&plan) {
                Err(error) if matches!(error.downcast_ref(), Some(Error::OutOfMemory { .. })) => error,
                other => return other,
            };
            let size = plan.input_size();
            let smaller = std::iter::successors(self.half_of(size), |&size| self.half_of(size));
            let next = match choice {
                WindowSize::Auto => self.half_of(size).and_then(|half| self.cheapest(half, |_| true)),
                WindowSize::Pixels(_) => None,
            };
            let Some(next) = next else {
                let advice = advice(smaller.into_iter().find(|&size| fits(size)));
                return Err(error.context(format!("windows of {size} are too large: {advice}")));
            };
            tracing::warn!("windows of {size} are too large for the device: trying {}", next.input_size());
            plan = next;
        }
    }
}

/// Whether the network runs on an empty batch of windows.
pub fn runs(predictor: &Predictor, batch: usize, in_channels: usize, size: usize) -> bool {
    predictor.predict(Array4::zeros((batch, in_channels, size, size))).is_ok()
}

fn advice(fitting: Option<usize>) -> String {
    fitting.map_or_else(
        || "no window of this network fits".to_owned(),
        |size| format!("--window {size} fits, --window auto finds what fits"),
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use unet_burn::prediction_bytes;

    use super::*;
    use crate::predict::geometry;

    fn fit(network: &UNetConfig) -> Fit<'_> {
        let geometry = geometry(network).unwrap();
        Fit {
            height: 5490,
            width: 5490,
            network,
            geometry,
            all_views: false,
            batch: 1,
            num_maps: 1,
            fixed_bytes: 40 << 20,
        }
    }

    /// Of a network that does not go row by row.
    fn bytes(network: &UNetConfig) -> impl Fn(usize) -> u64 {
        |size| prediction_bytes(network, size).unwrap()
    }

    #[test]
    fn auto_takes_larger_windows_where_there_is_more_memory() {
        let network = UNetConfig { in_channels: 22, filters: 16, ..UNetConfig::default() };
        let fit = fit(&network);
        let gib = 1 << 30;
        let sizes = [gib / 4, gib, 4 * gib, 64 * gib]
            .map(|free| fit.choose(WindowSize::Auto, bytes(&network), Some(free)).unwrap().input_size());
        assert!(sizes.is_sorted() && sizes[0] < 1000 && sizes[3] > 2000, "{sizes:?}");
        for (free, size) in [gib / 4, gib, 4 * gib].into_iter().zip(sizes) {
            let needed = fit.window_bytes(size) + fit.fixed_bytes + bytes(&network)(size);
            assert!(needed <= free / 2, "{size} in {free} bytes");
        }
        let on_a_card = |batch: usize| {
            let fit = Fit { batch, width: 10980, height: 10980, ..fit };
            let size = fit.choose(WindowSize::Auto, bytes(&network), None).unwrap().input_size();
            assert!(size <= SMALL || fit.window_bytes(size) <= WINDOW_BYTES, "{size} in batches of {batch}");
            size
        };
        assert!(on_a_card(1) > 1500, "the network does not count: {}", on_a_card(1));
        let sizes = [2, 4, 8, 400].map(on_a_card);
        assert!(sizes.is_sorted_by(|a, b| a > b) && sizes[2] > SMALL && sizes[3] > 500, "{sizes:?}");
        let error = fit.choose(WindowSize::Auto, bytes(&network), Some(1 << 20)).unwrap_err();
        assert!(error.to_string().contains("too little"), "{error}");
    }

    #[test]
    fn a_window_beyond_the_memory_is_refused_with_one_that_fits() {
        let network = UNetConfig { in_channels: 22, ..UNetConfig::default() };
        let fit = fit(&network);
        let free = 2 << 30;
        let error =
            fit.choose(WindowSize::Pixels(4012), bytes(&network), Some(free)).unwrap_err().to_string();
        assert!(
            error.starts_with("windows of 4012 need about") && error.contains("2.0 GiB are free"),
            "{error}"
        );
        let size = error.split("--window ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(
            fit.choose(WindowSize::Pixels(size), bytes(&network), Some(free)).is_ok(),
            "{size} is named and fits"
        );
        assert!(
            fit.choose(WindowSize::Pixels(size + 16), bytes(&network), Some(free)).is_err(),
            "it is the largest"
        );
    }

    /// A device that has memory for windows below 1000, and the sizes that it was asked for.
    fn small_device(asked: &RefCell<Vec<usize>>, size: usize) -> Result<usize> {
        asked.borrow_mut().push(size);
        if size < 1000 {
            Ok(size)
        } else {
            Err(Error::OutOfMemory { message: "can't allocate".into() }.into())
        }
    }

    #[test]
    fn auto_goes_on_with_windows_that_fit() {
        let network = UNetConfig { in_channels: 22, ..UNetConfig::default() };
        let fit = fit(&network);
        let asked = RefCell::default();
        let plan = fit.choose(WindowSize::Auto, bytes(&network), None).unwrap();
        let attempt = |plan: &WindowPlan| small_device(&asked, plan.input_size());
        let size = fit.attempt(WindowSize::Auto, plan, attempt, |_| true).unwrap();
        let asked = asked.into_inner();
        assert!(
            asked.windows(2).all(|pair| 2 * pair[1].pow(2) <= pair[0].pow(2)),
            "half the pixels: {asked:?}"
        );
        assert!(
            asked.last() == Some(&size) && asked.len() > 1 && asked[asked.len() - 2] >= 1000,
            "{asked:?}"
        );
    }

    #[test]
    fn a_size_that_does_not_fit_ends_with_one_that_does() {
        let network = UNetConfig { in_channels: 22, ..UNetConfig::default() };
        let fit = fit(&network);
        let asked = RefCell::default();
        let choice = WindowSize::Pixels(2108);
        let attempt = |plan: &WindowPlan| small_device(&asked, plan.input_size());
        let fits = |size: usize| small_device(&asked, size).is_ok();
        let error = fit.attempt(choice, fit.plan(2108).unwrap(), attempt, fits).unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(*asked.borrow(), [2108, 1484, 1036, 732], "each with at most half the pixels");
        assert!(text.starts_with("windows of 2108 are too large: --window 732 fits"), "{text}");
        assert!(text.ends_with("the device is out of memory: can't allocate"), "{text}");

        let error = fit.attempt(choice, fit.plan(2108).unwrap(), attempt, |_| false).unwrap_err();
        assert!(error.to_string().contains("no window of this network fits"), "{error}");
        let other = |_: &WindowPlan| -> Result<()> { bail!("something else") };
        let error = fit.attempt(choice, fit.plan(2108).unwrap(), other, |_| true).unwrap_err();
        assert_eq!(error.to_string(), "something else", "other errors stay as they are");
    }
}
