//! A scene in strips that the network goes down row by row, for networks that take images so: those on the CPU.
//!
//! ```text
//! stack.tif ─► rows of a strip, normalised ─► network, row by row ─► rows of the map ─► a band of all strips
//!              a thread for each              another one, and the   wait for the band
//!                                             pool of all strips
//! ```
//!
//! Strips overlap to the left and right as windows do, but from top to bottom no pixel is computed twice. All strips go
//! down side by side, so that the map comes in whole rows, and that where one waits for the last part of a layer the others
//! have work for the threads: they are a band or two apart. Where a strip has no data for longer than it computes
//! ahead, it stops, and begins again behind the gap.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, Scope};

use anyhow::{Context, Result, ensure};
use ndarray::{Array2, Array3, Axis, s};
use s2_patches::{PatchWindow, Window, mirror};
use unet_burn::RowPredictor;

use super::{Job, TakeRows};
use crate::cli::check_interrupt;
use crate::input::no_data;

/// Rows of a band at least: the map is kept band by band, and a killed run goes on at a band.
const BAND: usize = 64;
/// Rows that the network gets at a time.
const CHUNK: usize = 64;
/// Rows of the stack that are read at a time: those of a row of its tiles.
const READ: usize = 512;
/// Chunks that wait for the network of a strip.
const WAITING: usize = 2;

/// What a reading thread has for a strip.
enum Read {
    /// The network begins; the first row of the next band is the first of its map.
    Start(Box<RowPredictor>),
    /// The next rows of the network's channels.
    Rows(Array3<f32>),
    /// The rows for a band have come, and here is where it has no data; nothing if it has none at all: the network stops.
    Band(Option<Array2<bool>>),
}

/// How a scene is cut into strips and bands.
pub(super) struct StripPlan {
    /// The first window of each strip: its columns are the strip's.
    windows: Vec<PatchWindow>,
    /// Columns that the network gets.
    pub(super) width: usize,
    /// Rows of a band.
    band: usize,
    /// Rows of the scene.
    height: usize,
    /// Memory that all strips need at once, files and weights included, in bytes.
    bytes: u64,
}

impl StripPlan {
    fn bands(&self) -> usize {
        self.height.div_ceil(self.band)
    }

    fn rows(&self, band: usize) -> Range<usize> {
        band * self.band..self.height.min((band + 1) * self.band)
    }

    /// Whether a share of the free memory suffices.
    pub(super) fn fits(&self, bytes: Option<u64>) -> bool {
        bytes.is_none_or(|bytes| self.bytes <= bytes)
    }
}

/// A strip on its way down.
#[derive(Default)]
struct Strip {
    network: Option<Box<RowPredictor>>,
    /// Rows of the map that no band has taken yet.
    rows: Vec<Array2<f32>>,
}

impl Job<'_> {
    /// The network for a strip of a width from a row of the scene on, whose map begins with that row.
    fn network_from(&self, row: usize, width: usize) -> Result<Option<RowPredictor>> {
        let geometry = self.fit.geometry;
        let least = self.fit.height - row + 2 * geometry.margin() + geometry.spoiled();
        Ok(self.predictor.by_rows(geometry.valid_input_at_least(least), width)?)
    }

    /// The strips of up to so many columns that give the network the fewest pixels, where it can go row by row.
    pub(super) fn strips(&self, largest: usize) -> Result<Option<StripPlan>> {
        let geometry = self.fit.geometry;
        let sizes = (geometry.smallest_input()..=largest).step_by(geometry.step());
        let plans = sizes.filter_map(|size| self.fit.plan(size).ok());
        let Some(plan) = plans.min_by_key(|plan| plan.per_row() * plan.input_size()) else { return Ok(None) };
        let width = plan.input_size();
        Ok(self.network_from(0, width)?.map(|network| StripPlan {
            windows: plan.iter().take(plan.per_row()).collect(),
            width,
            // A map must not depend on where the network began again.
            band: BAND.next_multiple_of(network.restart_step()),
            height: self.fit.height,
            bytes: plan.per_row() as u64 * (network.bytes() + self.waiting_bytes(width))
                + self.fit.fixed_bytes,
        }))
    }

    /// Memory of the rows of a strip that its network does not have yet: chunks that are made, wait or are pushed, and two
    /// rows of tiles.
    fn waiting_bytes(&self, width: usize) -> u64 {
        let chunks = (WAITING + 2) * CHUNK * self.fit.network.in_channels * size_of::<f32>();
        let tiles = 2 * READ * self.scene.stack.num_bands() * size_of::<u16>();
        (width * (chunks + tiles)) as u64
    }

    /// Predicts from a band on, and hands out each finished one, `[1, row, column]`; NaN where the scene has no data.
    pub(super) fn predict_strips(
        &self,
        plan: &StripPlan,
        first: usize,
        write: &mut TakeRows<'_>,
    ) -> Result<()> {
        let windows = &plan.windows;
        let mut progress = self.progress(plan.bands() * windows.len(), first * windows.len());
        thread::scope(|scope| -> Result<()> {
            let strips: Vec<_> =
                windows.iter().map(|window| self.strip(scope, plan, *window, first)).collect();
            for band in first..plan.bands() {
                let rows = plan.rows(band);
                let mut map = Array3::from_elem((1, rows.len(), self.fit.width), f32::NAN);
                for (strip, window) in strips.iter().zip(windows) {
                    let part = strip.recv().context("the thread of a strip ended early")??;
                    let output = Window { row: rows.start, height: rows.len(), ..window.output };
                    if let Some(part) = &part {
                        map.slice_mut(s![.., .., output.cols()]).assign(part);
                    }
                    progress.add(output, part.is_some());
                }
                write(map)?;
            }
            Ok(())
        })?;
        let bands = (plan.bands() - first) * windows.len();
        progress.finish(&format!("{bands} bands of {} strips of {}", windows.len(), plan.width));
        Ok(())
    }

    /// Predicts a strip from a band on: one thread reads and normalises, another one drives the network. The parts of the
    /// bands come in order, `[1, row, column]`; nothing where there is no data.
    fn strip<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        plan: &'scope StripPlan,
        window: PatchWindow,
        first: usize,
    ) -> Receiver<Result<Option<Array3<f32>>>> {
        let (send_rows, rows) = sync_channel(WAITING);
        scope.spawn(move || {
            let mut reader = Reader::new(self, plan, window);
            for band in first..plan.bands() {
                // The other side hangs up when it has stopped.
                match reader.read_band(band, &mut |read| send_rows.send(Ok(read)).is_ok()) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        let _ = send_rows.send(Err(error));
                        return;
                    }
                }
            }
        });
        let (send, receive) = sync_channel(1);
        scope.spawn(move || {
            let mut strip = Strip::default();
            for band in first..plan.bands() {
                let range = plan.rows(band);
                let output = Window { row: range.start, height: range.len(), ..window.output };
                let part = strip.next_band(self, &rows, &PatchWindow { output, ..window });
                let failed = part.is_err();
                if send.send(part).is_err() || failed {
                    return;
                }
            }
        });
        receive
    }
}

impl Strip {
    /// Lets the network go on until the rows for a band have come, and gives its part of the map.
    fn next_band(
        &mut self,
        job: &Job<'_>,
        queue: &Receiver<Result<Read>>,
        window: &PatchWindow,
    ) -> Result<Option<Array3<f32>>> {
        loop {
            check_interrupt()?;
            match queue.recv().context("a reading thread ended early")?? {
                Read::Start(network) => *self = Self { network: Some(network), rows: Vec::new() },
                Read::Rows(rows) => {
                    let network = self.network.as_mut().context("rows without a network")?;
                    self.rows.push(network.push(rows.view())?);
                }
                Read::Band(Some(no_data)) => {
                    let mut part = self.take(window.output)?;
                    job.hide_no_data(&mut part, &no_data, window)?;
                    return Ok(no_data.iter().any(|no_data| !no_data).then_some(part));
                }
                Read::Band(None) => {
                    *self = Self::default();
                    return Ok(None);
                }
            }
        }
    }

    /// The next rows of the map, `[1, row, column]`.
    fn take(&mut self, output: Window) -> Result<Array3<f32>> {
        let views: Vec<_> = self.rows.iter().map(|rows| rows.slice(s![.., ..output.width])).collect();
        let rows = ndarray::concatenate(Axis(0), &views)?;
        ensure!(rows.nrows() >= output.height, "{} of {} rows of the map came", rows.nrows(), output.height);
        let (band, rest) = rows.view().split_at(Axis(0), output.height);
        self.rows = vec![rest.to_owned()];
        Ok(band.to_owned().insert_axis(Axis(0)))
    }
}

/// Reads a strip of the stack.
struct Reader<'a> {
    job: &'a Job<'a>,
    plan: &'a StripPlan,
    window: PatchWindow,
    /// The last two rows of tiles that were read, `[band, row, column]`, and their numbers.
    tiles: Vec<(usize, Array3<u16>)>,
    /// Where the network began, and how many rows of its input have come.
    network: Option<Begun>,
}

struct Begun {
    /// First row of its map.
    row: usize,
    /// Rows of its input that have come.
    rows: usize,
    /// The rows with which each of the next bands is computed, the last one first.
    needed: Vec<usize>,
    /// Bands that are computed ahead.
    ahead: usize,
}

impl<'a> Reader<'a> {
    fn new(job: &'a Job<'a>, plan: &'a StripPlan, window: PatchWindow) -> Self {
        Self { job, plan, window, tiles: Vec::new(), network: None }
    }

    /// Hands out what a band needs; ends with `false` when nobody takes it.
    fn read_band(&mut self, band: usize, hand_out: &mut impl FnMut(Read) -> bool) -> Result<bool> {
        let (job, plan) = (self.job, self.plan);
        let rows = plan.rows(band);
        let no_data = self.no_data(rows.clone())?;
        if no_data.iter().all(|&no_data| no_data) && self.stops(band)? {
            self.network = None;
            return Ok(hand_out(Read::Band(None)));
        }
        let mut begun = match self.network.take() {
            Some(begun) => begun,
            None => {
                let network =
                    job.network_from(rows.start, plan.width)?.context("a network that goes by rows")?;
                let needed = |band| network.input_rows(plan.rows(band).end - rows.start);
                let begun = Begun {
                    row: rows.start,
                    rows: 0,
                    needed: (band..plan.bands()).rev().map(needed).collect(),
                    ahead: network.input_rows(1).div_ceil(plan.band),
                };
                if !hand_out(Read::Start(Box::new(network))) {
                    return Ok(false);
                }
                begun
            }
        };
        let needed = begun.needed.pop().context("a band behind the last")?;
        let first = begun.row.cast_signed() - job.fit.geometry.margin().cast_signed();
        while begun.rows < needed {
            let count = CHUNK.min(needed - begun.rows);
            let pixels = self.pixels(first + begun.rows.cast_signed(), count)?;
            if !hand_out(Read::Rows(job.scene.channels(pixels.view())?)) {
                return Ok(false);
            }
            begun.rows += count;
        }
        self.network = Some(begun);
        Ok(hand_out(Read::Band(Some(no_data))))
    }

    /// Whether the network stops at a band without data: it does where it has not begun, and where no band that it would
    /// compute ahead has data.
    fn stops(&mut self, band: usize) -> Result<bool> {
        let ahead = self.network.as_ref().map_or(1, |begun| begun.ahead);
        for band in (band + 1..self.plan.bands()).take(ahead - 1) {
            if !self.no_data(self.plan.rows(band))?.iter().all(|&no_data| no_data) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Rows of the strip, mirrored at the edges of the scene.
    fn pixels(&mut self, first: isize, count: usize) -> Result<Array3<u16>> {
        let PatchWindow { input_col, input_size, .. } = self.window;
        let width = self.job.fit.width;
        let left = self.columns().start;
        let col = |col: usize| mirror(input_col + col.cast_signed(), width) - left;
        // The columns that are not mirrored.
        let inside = (-input_col).clamp(0, input_size.cast_signed()).cast_unsigned()
            ..(width.cast_signed() - input_col).clamp(0, input_size.cast_signed()).cast_unsigned();
        let from = col(inside.start);
        let mirrored: Vec<(usize, usize)> =
            (0..inside.start).chain(inside.end..input_size).map(|to| (to, col(to))).collect();
        let bands = self.job.scene.stack.num_bands();
        let mut pixels = Array3::zeros((bands, count, input_size));
        for (index, mut pixels) in pixels.axis_iter_mut(Axis(1)).enumerate() {
            let row = self.row(mirror(first + index.cast_signed(), self.job.fit.height))?;
            for (mut out, row) in pixels.outer_iter_mut().zip(row.outer_iter()) {
                out.slice_mut(s![inside.clone()]).assign(&row.slice(s![from..from + inside.len()]));
                for &(to, from) in &mirrored {
                    out[to] = row[from];
                }
            }
        }
        Ok(pixels)
    }

    /// Where rows of the strip's part of the map have no data.
    fn no_data(&mut self, rows: Range<usize>) -> Result<Array2<bool>> {
        let (cols, left) = (self.window.output.cols(), self.columns().start);
        let num_bands = self.job.scene.statistics.bands.len();
        let mut found = Array2::default((rows.len(), cols.len()));
        for (mut found, row) in found.outer_iter_mut().zip(rows) {
            let row = self.row(row)?.insert_axis(Axis(1));
            let part = row.slice(s![..num_bands, .., cols.start - left..cols.end - left]);
            found.assign(&no_data(part).index_axis(Axis(0), 0));
        }
        Ok(found)
    }

    /// The columns of the scene that the strip reads.
    fn columns(&self) -> Range<usize> {
        self.window.footprint(self.job.fit.height, self.job.fit.width).cols()
    }

    /// A row of the scene, `[band, column]`.
    fn row(&mut self, row: usize) -> Result<ndarray::ArrayView2<'_, u16>> {
        let number = row / READ;
        if !self.tiles.iter().any(|(found, _)| *found == number) {
            let cols = self.columns();
            let first = number * READ;
            let height = READ.min(self.job.fit.height - first);
            let read = s2_io::Window { row: first, col: cols.start, height, width: cols.len() };
            let stack = &self.job.scene.stack;
            let shape = (stack.num_bands(), height, cols.len());
            // The older one of two makes room.
            let old = if self.tiles.len() < 2 { None } else { self.tiles.pop() };
            let old = old.map(|(_, tiles)| tiles).filter(|tiles| tiles.dim() == shape);
            let mut tiles = old.unwrap_or_else(|| Array3::zeros(shape));
            stack.read_window_into(read, tiles.view_mut())?;
            self.tiles.insert(0, (number, tiles));
        }
        let (_, tiles) =
            self.tiles.iter().find(|(found, _)| *found == number).context("tiles that were read")?;
        Ok(tiles.index_axis(Axis(1), row % READ))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use s2_io::{CogOptions, write_cog};
    use unet_burn::burn::tensor::Device;
    use unet_burn::{Bundle, PredictorConfig, UNetConfig};

    use super::*;
    use crate::device::{DeviceChoice, open};
    use crate::input::{STACK, Scene};
    use crate::predict::{Options, WindowSize};
    use crate::prepare::prepare;
    use crate::scene::write_scene;

    /// A prepared scene that has data where its bands of 64 rows and its columns say so.
    fn scene(folder: &Path, has_data: impl Fn(usize, usize) -> bool) -> Scene {
        let product = write_scene(&folder.join("product"), 384, 1, &|_| Ok(())).unwrap().product;
        let prepared = folder.join("prepared");
        prepare(&product, &prepared, false, true).unwrap();
        let scene = Scene::open(&prepared).unwrap();
        let mut stack = scene.stack.read::<u16>().unwrap();
        for ((_, row, col), dn) in stack.data.indexed_iter_mut() {
            if !has_data(row / 64, col) {
                *dn = 0;
            }
        }
        let options = CogOptions {
            nodata: Some(0.0),
            band_names: scene.stack.band_names().to_vec(),
            scale_offset: (0..stack.data.dim().0).map(|band| scene.stack.scale_offset(band)).collect(),
            metadata: scene.stack.metadata().clone().into_iter().collect(),
            ..CogOptions::default()
        };
        write_cog(prepared.join(STACK), stack.data.view(), &stack.grid, &options).unwrap();
        Scene::open(&prepared).unwrap()
    }

    #[test]
    fn many_strips_stop_and_begin_again_each_for_itself_and_go_on_at_any_band() {
        let folder = tempfile::tempdir().unwrap();
        // Towards the east data begins later; in the middle a band is missing, and in the west it ends early.
        let scene = scene(folder.path(), |band, col| {
            let begins = band * 80 >= col.saturating_sub(100);
            begins && (band != 3 || !(150..250).contains(&col)) && (band < 4 || col > 60)
        });
        Device::flex().seed(4);
        let recipe = scene.recipe();
        let in_channels = recipe.channels.len();
        let config = UNetConfig { in_channels, levels: 2, filters: 4, ..UNetConfig::default() };
        let model = config.init(&Device::flex()).unwrap();
        let bundle = Bundle { model, recipe, threshold: None, training: None };
        let device = open(DeviceChoice::Cpu).unwrap();
        let options = Options { window: WindowSize::Auto, batch: 1, views: PredictorConfig::default() };
        let job = Job::new(&scene, &bundle, &device, options, true).unwrap();
        let values = |rows: Array3<f32>| rows.into_raw_vec_and_offset().0;
        let bits = |bands: &[Vec<f32>]| bands.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>();

        let mut expected = Vec::new();
        let whole = job.fit.plan(480).unwrap();
        job.predict_windows(&whole, 0, &mut |rows| {
            expected.push(values(rows));
            Ok(())
        })
        .unwrap();
        for (largest, count) in [(80, 11), (120, 6), (2000, 1)] {
            let plan = job.strips(largest).unwrap().expect("a network that goes by rows");
            assert_eq!(plan.windows.len(), count, "strips of {}", plan.width);
            let from = |first: usize| {
                let mut bands = Vec::new();
                job.predict_strips(&plan, first, &mut |rows| {
                    bands.push(values(rows));
                    Ok(())
                })
                .unwrap();
                bands
            };
            let bands = from(0);
            assert_eq!(bands.len(), 6);
            for (a, b) in bands.concat().iter().zip(expected.concat()) {
                // As for windows: a few roundings.
                let same = a.is_nan() && b.is_nan() || (a - b).abs() <= 4e-6;
                assert!(same, "{a} and {b} in strips of {}", plan.width);
            }
            for first in 1..=6 {
                let same = bits(&from(first)) == bits(&bands[first..]);
                assert!(same, "from band {first} in strips of {}", plan.width);
            }
            assert!(plan.fits(None) && plan.fits(Some(1 << 30)) && !plan.fits(Some(1000)));
        }
    }
}
