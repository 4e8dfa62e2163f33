//! From a stack and a model to probabilities, a mask and polygons.
//!
//! ```text
//! stack.tif ─► windows, normalised ─► network ─► rows of windows ─► unfinished map  ─► probability.tif, mask.tif ─► mines.geojson
//!              several threads        batches     stitched           survives a kill   block rows, one thread
//! ```
//!
//! Of the scene a few rows of windows are held (one is stitched, one kept and written), and the mask, one byte a pixel. On
//! the CPU strips take the place of windows, and of each some hundred rows are held.

use std::fs::{self, File};
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, Scope};
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use s2_io::{Algorithm, Checksum, Grid};
use s2_patches::{Geometry, PatchWindow, WindowPlan, extract, stitch};
use unet_burn::burn::module::Module;
use unet_burn::{Bundle, Padding, Predictor, PredictorConfig, UNetConfig, UpConvolution};

use crate::cli::{check_interrupt, make_folder, peak_memory_bytes, progress_bar};
use crate::device::Chosen;
use crate::input::{STACK, STATISTICS, Scene, no_data, require_file};
use crate::prepare::made_by;

pub use maps::About;
use maps::Maps;
use unfinished::{Origin, Unfinished};
pub use window::WindowSize;
use window::{Fit, LARGEST};

mod maps;
mod strips;
mod unfinished;
mod window;

/// File names of the fixed contract.
pub const PROBABILITY: &str = "probability.tif";
/// See [`PROBABILITY`].
pub const MASK: &str = "mask.tif";
/// See [`PROBABILITY`].
pub const POLYGONS: &str = "mines.geojson";
/// Dataset item that carries the threshold of the model.
pub const THRESHOLD: &str = "THRESHOLD";
/// Mask value of pixels without data.
pub const MASK_NODATA: u8 = 255;

/// Rows of a map in memory that are written at a time: those of a row of tiles.
const ROWS_AT_ONCE: usize = 512;

/// How to go over a scene.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Side of the windows.
    pub window: WindowSize,
    /// Windows that the network gets at a time.
    pub batch: usize,
    /// How the network looks at them.
    pub views: PredictorConfig,
}

/// How windows of a network fit together.
///
/// # Errors
///
/// For a network that pads its convolutions: what it says of a pixel depends on where the window ends, so that maps of
/// windows have seams.
pub fn geometry(config: &UNetConfig) -> Result<Geometry> {
    ensure!(
        config.padding == Padding::Valid,
        "a network with same padding cannot be stitched: use valid padding"
    );
    let geometry = Geometry::try_new(config.levels, config.kernel)?;
    Ok(match config.up {
        UpConvolution::Upsample => geometry.with_padded_up_convolution(),
        UpConvolution::Transposed => geometry,
    })
}

/// Checksum of the weights of the bundle in a folder, by which maps name their model.
pub fn weights_checksum(model: &Path) -> Result<String> {
    let path = model.join("model.safetensors");
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Checksum::of(Algorithm::Sha256, file)
        .with_context(|| format!("cannot read {}", path.display()))?
        .to_string())
}

/// Predicts a prepared scene and writes `probability.tif`, `mask.tif` and `mines.geojson`.
///
/// A run that was killed goes on where it stopped when the same is asked for again, to the same bytes on the CPU.
pub fn predict(
    folder: &Path,
    model: &Path,
    device: &Chosen,
    out: &Path,
    options: Options,
    threshold: Option<f64>,
    quiet: bool,
) -> Result<()> {
    require_file(model, "model.json", "name with --model a folder that train wrote")?;
    let bundle = Bundle::load(model, &device.device)?;
    let scene = Scene::open(folder)?;
    let threshold =
        threshold.or(bundle.threshold).context("the model has no threshold: name one with --threshold")?;
    ensure!(
        (0.0..=1.0).contains(&threshold),
        "the threshold {threshold} of {} is not in 0 to 1: name one with --threshold",
        model.display()
    );
    let job = Job::new(&scene, &bundle, device, options, quiet)?;
    let about =
        About { product: scene.statistics.product.clone(), model: weights_checksum(model)?, threshold };
    let Grid { height, width, .. } = *scene.stack.grid();
    let origin = Origin {
        made_by: made_by(),
        weights: about.model.clone(),
        network: bundle.model.config().clone(),
        views: options.views,
        device: device.identity.clone(),
        product: about.product.clone(),
        stack: identity(folder)?,
        shape: [job.predictor.num_maps(), height, width],
        strips: false,
        window: 0,
        batch: options.batch,
    };
    make_folder(out)?;
    let map = out.join(PROBABILITY);

    let free = device.free_bytes();
    // What was begun goes on in its own way and size, unless that no longer fits; new strips are to leave half of the memory.
    let auto = options.window == WindowSize::Auto;
    let found = if auto { Unfinished::begun(&map, &origin) } else { None };
    let windows_begun = found.filter(|found| !found.strips);
    let begun = windows_begun.and_then(|found| job.plan(WindowSize::Pixels(found.window), free).ok());
    let strips = if auto && begun.is_none() { job.strips(LARGEST)? } else { None };
    let share = if found.is_some_and(|found| found.strips) { free } else { free.map(|free| free / 2) };
    let strips = strips.filter(|plan| plan.fits(share));
    let open = |origin| -> Result<MapOutput> {
        // First of all, so that nobody else writes here.
        let unfinished = Unfinished::open(&map, origin)?;
        let maps = Maps::create(out, scene.stack.grid(), &about, job.predictor.num_maps())?;
        Ok(MapOutput { unfinished, maps })
    };
    let output = if let Some(plan) = strips {
        // The batch is that of windows.
        let origin = Origin { strips: true, window: plan.width, batch: 0, ..origin };
        open(origin)?.fill(|first, write| job.predict_strips(&plan, first, write))?
    } else {
        let plan = begun.map_or_else(|| job.plan(options.window, free), Ok)?;
        let attempt = |plan: &WindowPlan| {
            let origin = Origin { window: plan.input_size(), ..origin.clone() };
            open(origin)?.fill(|first, write| job.predict_windows(plan, first, write))
        };
        let runs = |size| window::runs(&job.predictor, options.batch, origin.network.in_channels, size);
        job.fit.attempt(options.window, plan, attempt, runs)?
    };
    output.maps.finish(quiet)?;
    output.unfinished.remove();
    if let Some(bytes) = peak_memory_bytes().filter(|_| !quiet) {
        tracing::info!("{:.2} GiB of memory at most", bytes as f64 / f64::from(1 << 30));
    }
    Ok(())
}

/// Probabilities of a whole scene in memory, `[row, column]`; NaN where the scene has no data. Where the network cannot take
/// the scene row by row, or has too little memory for it, it gets windows of a size; the map is the same but for rounding.
pub fn probabilities(
    scene: &Scene,
    bundle: &Bundle,
    device: &Chosen,
    window: usize,
    quiet: bool,
) -> Result<Array2<f32>> {
    let options = Options { window: WindowSize::Pixels(window), batch: 1, views: PredictorConfig::default() };
    let job = Job::new(scene, bundle, device, options, quiet)?;
    let Grid { height, width, .. } = *scene.stack.grid();
    let mut map = Array2::from_elem((height, width), f32::NAN);
    let mut done = 0;
    let mut write = |rows: Array3<f32>| {
        let rows = rows.index_axis(Axis(0), 0);
        map.slice_mut(s![done..done + rows.nrows(), ..]).assign(&rows);
        done += rows.nrows();
        Ok(())
    };
    let half = device.free_bytes().map(|free| free / 2);
    match job.strips(LARGEST)?.filter(|plan| plan.fits(half)) {
        Some(plan) => job.predict_strips(&plan, 0, &mut write)?,
        None => job.predict_windows(&job.fit.plan(window)?, 0, &mut write)?,
    }
    Ok(map)
}

/// Writes probabilities that are in memory, the mask above the threshold and its polygons.
pub fn write_maps(
    out: &Path,
    grid: &Grid,
    probabilities: ArrayView2<'_, f32>,
    about: &About,
    quiet: bool,
) -> Result<()> {
    let mut maps = Maps::create(out, grid, about, 1)?;
    for rows in probabilities.axis_chunks_iter(Axis(0), ROWS_AT_ONCE) {
        check_interrupt()?;
        maps.push(rows.insert_axis(Axis(0)))?;
    }
    maps.finish(quiet)
}

/// Where predicted rows go.
struct MapOutput {
    unfinished: Unfinished,
    maps: Maps,
}

impl MapOutput {
    /// Predicts from the first part that is missing on. A thread keeps and writes the rows meanwhile: while one part of the map
    /// is predicted, the one before it is written.
    fn fill(self, predict: impl FnOnce(usize, &mut TakeRows<'_>) -> Result<()>) -> Result<Self> {
        let Self { mut unfinished, mut maps } = self;
        let first = unfinished.parts();
        let (send, receive) = sync_channel::<Array3<f32>>(0);
        thread::scope(|scope| {
            let writer = scope.spawn(move || -> Result<Self> {
                unfinished.read(|rows| {
                    check_interrupt()?;
                    maps.push(rows)
                })?;
                for rows in receive {
                    unfinished.push(rows.view())?;
                    maps.push(rows.view())?;
                }
                Ok(Self { unfinished, maps })
            });
            let predicted =
                predict(first, &mut |rows| send.send(rows).context("the writing thread has stopped"));
            drop(send);
            // If it has failed, nobody took the rows any more: that is the error to tell.
            let output = writer.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            predicted.map(|()| output)
        })
    }
}

/// Takes the next rows of a map, `[map, row, column]`.
type TakeRows<'a> = dyn FnMut(Array3<f32>) -> Result<()> + 'a;

/// Which stack and statistics lie in a folder. The stack is known by its length and time of change: to read
/// gigabytes for a checksum would take longer than a GPU predicts them.
pub fn identity(folder: &Path) -> Result<String> {
    let (stack, statistics) = (folder.join(STACK), folder.join(STATISTICS));
    let cannot = |path: &Path| format!("cannot read {}", path.display());
    let metadata = fs::metadata(&stack).with_context(|| cannot(&stack))?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let file = File::open(&statistics).with_context(|| cannot(&statistics))?;
    let statistics = Checksum::of(Algorithm::Sha256, file).with_context(|| cannot(&statistics))?;
    Ok(format!("{} bytes, changed at {modified} ns, statistics {statistics}", metadata.len()))
}

/// A scene, and a network to go over it.
struct Job<'a> {
    scene: &'a Scene,
    predictor: Predictor,
    fit: Fit<'a>,
    quiet: bool,
}

/// What is done of a map.
struct Progress {
    bar: ProgressBar,
    start: Instant,
    quiet: bool,
    /// Parts of the map, those of them without data, and pixels of them all.
    done: usize,
    empty: usize,
    pixels: usize,
}

impl Progress {
    fn add(&mut self, part: s2_patches::Window, has_data: bool) {
        self.bar.inc(1);
        self.done += 1;
        self.empty += usize::from(!has_data);
        self.pixels += part.height * part.width;
    }

    /// Says how fast it was, and what the parts were.
    fn finish(self, parts: &str) {
        let Self { bar, start, quiet, done, empty, pixels } = self;
        bar.finish_and_clear();
        if !quiet && done > 0 {
            let seconds = start.elapsed().as_secs_f64();
            tracing::info!(
                "predicted {pixels} pixels in {seconds:.1} s, {:.0} a second: {parts}, {empty} without data",
                pixels as f64 / seconds
            );
        }
    }
}

/// A window as it was read.
struct Input {
    window: PatchWindow,
    /// The network's channels, and where the part to keep has no data; nothing if it has none at all.
    patch: Option<(Array3<f32>, Array2<bool>)>,
}

impl<'a> Job<'a> {
    fn new(
        scene: &'a Scene,
        bundle: &'a Bundle,
        device: &Chosen,
        options: Options,
        quiet: bool,
    ) -> Result<Self> {
        bundle.recipe.check(&scene.recipe())?;
        ensure!(options.batch > 0, "--batch 0: the network needs one window at a time or more");
        let predictor = options.views.init(&bundle.model, &device.device)?;
        let Grid { height, width, .. } = *scene.stack.grid();
        let network = bundle.model.config();
        let fit = Fit {
            height,
            width,
            network,
            geometry: geometry(network)?,
            all_views: options.views.all_views,
            batch: options.batch,
            num_maps: predictor.num_maps(),
            // Weights as they were read, with norms folded, and as the kernels take them.
            fixed_bytes: Maps::bytes(scene.stack.grid(), predictor.num_maps())
                + 4 * (bundle.model.num_params() * size_of::<f32>()) as u64,
        };
        Ok(Self { scene, predictor, fit, quiet })
    }

    /// The windows of a choice, with so many bytes of memory free.
    fn plan(&self, choice: WindowSize, free: Option<u64>) -> Result<WindowPlan> {
        let network = |size| self.predictor.bytes(self.fit.batch, size).unwrap_or(u64::MAX);
        self.fit.choose(choice, network, free)
    }

    /// Predicts from a row of windows on, and hands out each finished one, `[map, row, column]`: the probability and,
    /// if asked for, its spread; NaN where the scene has no data.
    fn predict_windows(&self, plan: &WindowPlan, first: usize, write: &mut TakeRows<'_>) -> Result<()> {
        let windows = first * plan.per_row()..plan.len();
        let mut progress = self.progress(plan.len(), windows.start);
        let mut strip = Array3::default((0, 0, 0));
        thread::scope(|scope| -> Result<()> {
            let mut waiting = Vec::new();
            for input in self.read_ahead(scope, *plan, windows.clone()) {
                check_interrupt()?;
                let input = input?;
                let is_last = plan.get(plan.len() - 1) == Some(input.window);
                waiting.push(input);
                let patches = waiting.iter().filter(|input| input.patch.is_some()).count();
                // Windows without data need not wait, but for those before them.
                if patches > 0 && patches < self.fit.batch && !is_last {
                    continue;
                }
                for (window, maps) in self.predict_batch(&mut waiting)? {
                    let (output, has_data) = (window.output, maps.is_some());
                    if output.col == 0 {
                        let shape = (self.predictor.num_maps(), output.height, self.fit.width);
                        strip = Array3::from_elem(shape, f32::NAN);
                    }
                    if let Some(maps) = maps {
                        let in_strip = s2_patches::Window { row: 0, ..output };
                        let window = PatchWindow { output: in_strip, ..window };
                        stitch(strip.view_mut(), maps.view(), &window)?;
                    }
                    if output.cols().end == self.fit.width {
                        write(std::mem::take(&mut strip))?;
                    }
                    progress.add(output, has_data);
                }
            }
            Ok(())
        })?;
        progress.finish(&format!("{} windows of {}", windows.len(), plan.input_size()));
        Ok(())
    }

    /// Shows how many of some parts of the map are done.
    fn progress(&self, parts: usize, done: usize) -> Progress {
        let bar = progress_bar(self.quiet, parts, "predict");
        bar.set_position(done as u64);
        Progress { bar, start: Instant::now(), quiet: self.quiet, done: 0, pixels: 0, empty: 0 }
    }

    /// Reads and normalises windows on several threads; they come in order.
    fn read_ahead<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        plan: WindowPlan,
        windows: Range<usize>,
    ) -> impl Iterator<Item = Result<Input>> + use<'scope, 'a> {
        let readers = self.fit.readers(plan.input_size());
        // Each thread has every n-th window and keeps one ready until it is taken.
        let queues: Vec<Receiver<Result<Input>>> = (0..readers)
            .map(|reader| {
                let (send, receive) = sync_channel(0);
                let own = windows.clone().skip(reader).step_by(readers);
                scope.spawn(move || {
                    for window in own.filter_map(|index| plan.get(index)) {
                        let input = self.read(window);
                        let failed = input.is_err();
                        if send.send(input).is_err() || failed {
                            return; // the other side has stopped, or will now
                        }
                    }
                });
                receive
            })
            .collect();
        (0..windows.len()).map(move |i| queues[i % readers].recv().context("a reading thread ended early")?)
    }

    /// Reads a window, mirrored at the edges of the scene.
    fn read(&self, window: PatchWindow) -> Result<Input> {
        let part = window.footprint(self.fit.height, self.fit.width);
        let read = s2_io::Window { row: part.row, col: part.col, height: part.height, width: part.width };
        let stack = self.scene.stack.read_window::<u16>(read)?.data;
        let output = window.output;
        let (row, col) = (output.row - part.row, output.col - part.col);
        let num_bands = self.scene.statistics.bands.len();
        let no_data =
            no_data(stack.slice(s![..num_bands, row..row + output.height, col..col + output.width]));
        if no_data.iter().all(|&no_data| no_data) {
            return Ok(Input { window, patch: None });
        }
        let (first_row, first_col) =
            (window.input_row - part.row.cast_signed(), window.input_col - part.col.cast_signed());
        let patch = extract(stack.view(), first_row, first_col, window.input_size, window.input_size);
        Ok(Input { window, patch: Some((self.scene.channels(patch.view())?, no_data)) })
    }

    /// The network's output for each of the windows that wait, NaN where there is no data; nothing where there is none
    /// at all.
    fn predict_batch(&self, waiting: &mut Vec<Input>) -> Result<Vec<(PatchWindow, Option<Array3<f32>>)>> {
        let (mut patches, mut masks, mut windows) = (Vec::new(), Vec::new(), Vec::new());
        for Input { window, patch } in waiting.drain(..) {
            windows.push((window, patch.is_some()));
            if let Some((patch, no_data)) = patch {
                patches.push(patch);
                masks.push(no_data);
            }
        }
        if patches.is_empty() {
            return Ok(windows.into_iter().map(|(window, _)| (window, None)).collect());
        }
        let batch = if patches.len() == 1 {
            patches.remove(0).insert_axis(Axis(0)) // moved, not copied
        } else {
            let views: Vec<_> = patches.iter().map(|patch| patch.view()).collect();
            ndarray::stack(Axis(0), &views)?
        };
        drop(patches);
        let maps = self.predictor.predict(batch)?;
        let mut results = maps.outer_iter().zip(&masks);
        let finish = |(window, has_data): (PatchWindow, bool)| {
            let Some((maps, no_data)) = has_data.then(|| results.next()).flatten() else {
                return Ok((window, None));
            };
            let mut maps = maps.to_owned();
            self.hide_no_data(&mut maps, no_data, &window)?;
            Ok((window, Some(maps)))
        };
        windows.into_iter().map(finish).collect()
    }

    /// Writes NaN where the part that is kept has no data. NaN of the network's own would pass for that, so it is an
    /// error.
    fn hide_no_data(
        &self,
        maps: &mut Array3<f32>,
        no_data: &Array2<bool>,
        window: &PatchWindow,
    ) -> Result<()> {
        let PatchWindow { skipped, output, .. } = *window;
        let kept = s![.., skipped..skipped + output.height, skipped..skipped + output.width];
        let mut finite = true;
        for map in maps.slice_mut(kept).outer_iter_mut() {
            ndarray::Zip::from(map).and(no_data).for_each(|value, &no_data| {
                finite &= no_data || value.is_finite();
                if no_data {
                    *value = f32::NAN;
                }
            });
        }
        let advice = match self.predictor.config().half {
            true => "its values exceed half precision, leave --half out",
            false => "its weights are broken",
        };
        ensure!(finite, "the network gave no number in the {output}: {advice}");
        Ok(())
    }
}
