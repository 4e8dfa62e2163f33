//! Patches for the network, from prepared scenes or from folders of chips.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use s2_io::{Band, GeoTiff};
use s2_normalize::{BandStatistics, Definition, Histogram, Radiometry};
use s2_patches::{Dihedral, Split, Window, check_split, extract};
use unet_burn::burn::data::dataset::{Dataset, DatasetError};
use unet_burn::burn::train::Interrupter;
use unet_burn::{
    Bundle, IGNORE_INDEX, Patch, Progress, Recipe, Trained, TrainingConfig, TrainingRecord, UNetConfig,
};

use crate::cli::{check_interrupt, progress_bar};
use crate::device::Chosen;
use crate::evaluate::Truth;
use crate::input::{Scene, no_data, normalization};

/// An image in memory that patches are cut from.
pub trait Source: Send + Sync {
    /// Rows and columns.
    fn size(&self) -> (usize, usize);
    /// Channels of a square, mirrored outside; `[channel, row, column]`.
    fn channels(&self, row: isize, col: isize, size: usize) -> Result<Array3<f32>>;
    /// Truth, `[row, column]`: 0, 1 or [`IGNORE_INDEX`].
    fn truth(&self) -> ArrayView2<'_, u8>;
}

/// A prepared scene; its patches are normalised when they are cut.
#[derive(Debug)]
pub struct SceneSource {
    scene: Scene,
    stack: Array3<u16>,
    truth: Array2<u8>,
}

impl SceneSource {
    /// Reads the stack into memory. Pixels without data or without truth take no part.
    pub fn new(scene: Scene, truth: &Truth) -> Result<Self> {
        let stack = scene.stack.read::<u16>()?.data;
        let classes = ndarray::Zip::from(&truth.mines)
            .and(&truth.valid)
            .and(&no_data(stack.slice(s![..-1, .., ..])))
            .map_collect(
                |&mine, &valid, &no_data| if valid && !no_data { u8::from(mine) } else { IGNORE_INDEX },
            );
        Ok(Self { scene, stack, truth: classes })
    }
}

impl SceneSource {
    /// The scene itself.
    #[must_use]
    pub fn scene(&self) -> &Scene {
        &self.scene
    }
}

impl Source for SceneSource {
    fn size(&self) -> (usize, usize) {
        self.truth.dim()
    }

    fn channels(&self, row: isize, col: isize, size: usize) -> Result<Array3<f32>> {
        self.scene.channels(extract(self.stack.view(), row, col, size, size).view())
    }

    fn truth(&self) -> ArrayView2<'_, u8> {
        self.truth.view()
    }
}

/// A chip: a small image with its mask.
#[derive(Debug)]
pub struct Chip {
    image: Array3<f32>,
    truth: Array2<u8>,
}

impl Source for Chip {
    fn size(&self) -> (usize, usize) {
        self.truth.dim()
    }

    fn channels(&self, row: isize, col: isize, size: usize) -> Result<Array3<f32>> {
        Ok(extract(self.image.view(), row, col, size, size))
    }

    fn truth(&self) -> ArrayView2<'_, u8> {
        self.truth.view()
    }
}

/// A rectangle of labelled pixels that patches may be cut for.
pub struct Region {
    /// The image.
    pub source: Arc<dyn Source>,
    /// The part of it; each patch's output lies inside.
    pub window: Window,
}

/// Patches of some regions.
///
/// With a seed, each item is a random place (every other one around a positive pixel, if the region has any)
/// turned and mirrored at random, another one each time it is asked for; without, it is the next place of a
/// grid over all regions.
pub struct Patches {
    regions: Vec<Region>,
    input: usize,
    output: usize,
    items: Items,
}

enum Items {
    Random { seed: u64, positives: Vec<Vec<(usize, usize)>>, visits: Vec<AtomicU64> },
    Grid(Vec<(usize, usize, usize)>),
}

impl Patches {
    /// `len` random patches an epoch.
    pub fn random(
        regions: Vec<Region>,
        config: &UNetConfig,
        input: usize,
        len: usize,
        seed: u64,
    ) -> Result<Self> {
        let output = config.output_size(input)?;
        check_regions(&regions, output)?;
        let positives = regions
            .iter()
            .map(|region| {
                let Window { row, col, height, width } = region.window;
                let truth = region.source.truth();
                let part = truth.slice(s![row..row + height, col..col + width]);
                part.indexed_iter()
                    .filter(|(_, class)| **class == 1)
                    .map(|((r, c), _)| (row + r, col + c))
                    .collect()
            })
            .collect();
        let visits = (0..len).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { regions, input, output, items: Items::Random { seed, positives, visits } })
    }

    /// Patches side by side over all regions; the last of a row or column overlaps the one before.
    pub fn grid(regions: Vec<Region>, config: &UNetConfig, input: usize) -> Result<Self> {
        let output = config.output_size(input)?;
        check_regions(&regions, output)?;
        let starts = |start: usize, length: usize| {
            let last = start + length - output;
            (start..last).step_by(output).chain([last]).collect::<Vec<_>>()
        };
        let mut places = Vec::new();
        for (index, Region { window, .. }) in regions.iter().enumerate() {
            for row in starts(window.row, window.height) {
                places.extend(starts(window.col, window.width).into_iter().map(|col| (index, row, col)));
            }
        }
        Ok(Self { regions, input, output, items: Items::Grid(places) })
    }

    /// The patch whose output begins at a place of a region.
    fn patch(&self, region: usize, row: usize, col: usize, turn: Dihedral) -> Result<Patch> {
        let source = &self.regions[region].source;
        let margin = (self.input - self.output) / 2;
        let image = source.channels(
            row.cast_signed() - margin.cast_signed(),
            col.cast_signed() - margin.cast_signed(),
            self.input,
        )?;
        let truth = source.truth();
        let truth = truth.slice(s![row..row + self.output, col..col + self.output]);
        let truth = turn.apply(truth.insert_axis(Axis(0))).index_axis_move(Axis(0), 0);
        Ok(Patch {
            image: turn.apply(image.view()).as_standard_layout().into_owned(),
            truth: truth.as_standard_layout().into_owned(),
        })
    }

    fn item(&self, index: usize) -> Result<Patch> {
        match &self.items {
            Items::Grid(places) => {
                let (region, row, col) = places[index];
                self.patch(region, row, col, Dihedral::Identity)
            }
            Items::Random { seed, positives, visits } => {
                // One stream for each item and visit: the same patches whatever thread asks first.
                let visit = visits[index].fetch_add(1, Ordering::Relaxed);
                let mut rng = ChaCha8Rng::seed_from_u64(*seed);
                rng.set_stream(visit * visits.len() as u64 + index as u64);
                let region = rng.random_range(0..self.regions.len());
                let Window { row, col, height, width } = self.regions[region].window;
                let (last_row, last_col) = (row + height - self.output, col + width - self.output);
                let (row, col) = if index.is_multiple_of(2) && !positives[region].is_empty() {
                    let (r, c) = positives[region][rng.random_range(0..positives[region].len())];
                    let mut around = |pixel: usize, first: usize, last: usize| {
                        (pixel.saturating_sub(rng.random_range(0..self.output))).clamp(first, last)
                    };
                    (around(r, row, last_row), around(c, col, last_col))
                } else {
                    (rng.random_range(row..=last_row), rng.random_range(col..=last_col))
                };
                self.patch(region, row, col, Dihedral::ALL[rng.random_range(0..Dihedral::ALL.len())])
            }
        }
    }
}

fn check_regions(regions: &[Region], output: usize) -> Result<()> {
    for Region { window, .. } in regions {
        ensure!(
            window.height >= output && window.width >= output,
            "a region of {} x {} pixels is too small for the network's output of {output}: choose a smaller --window",
            window.height,
            window.width
        );
    }
    Ok(())
}

impl Dataset<Patch> for Patches {
    fn get(&self, index: usize) -> Result<Patch, DatasetError> {
        self.item(index).map_err(|error| DatasetError::new(std::io::Error::other(format!("{error:#}"))))
    }

    fn len(&self) -> usize {
        match &self.items {
            Items::Random { visits, .. } => visits.len(),
            Items::Grid(places) => places.len(),
        }
    }
}

/// A folder of chips: `split.csv` (`id,split,…` with `train` and `val`), `images/img_ID.tif`, `masks/mask_ID.tif`.
#[derive(Debug)]
pub struct ChipFolder {
    /// Chips to learn from.
    pub training: Vec<Arc<Chip>>,
    /// Chips to choose weights and threshold by.
    pub validation: Vec<Arc<Chip>>,
    /// What the channels are.
    pub recipe: Recipe,
}

impl ChipFolder {
    /// Reads all chips; the reflectances of each are scaled by its own percentiles.
    pub fn open(folder: &Path, bands: &[Band]) -> Result<Self> {
        let path = folder.join("split.csv");
        let table =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let definition = Definition { excluded_classes: Vec::new(), ..Definition::default() };
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for (number, line) in table.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
            let mut fields = line.split(',').map(str::trim);
            let (Some(id), Some(split)) = (fields.next(), fields.next()) else {
                bail!("{} line {}: expected id,split", path.display(), number + 1);
            };
            let chip = Arc::new(read_chip(folder, id, bands, &definition)?);
            match split {
                "train" => training.push(chip),
                "val" | "validation" => validation.push(chip),
                other => {
                    bail!("{} line {}: split {other} is neither train nor val", path.display(), number + 1)
                }
            }
        }
        ensure!(
            !training.is_empty() && !validation.is_empty(),
            "{} needs chips of both splits",
            path.display()
        );
        let recipe = Recipe {
            channels: bands.iter().map(|band| band.name().to_owned()).collect(),
            resolution_m: 10.0,
            normalization: normalization(&definition),
        };
        Ok(Self { training, validation, recipe })
    }
}

fn read_chip(folder: &Path, id: &str, bands: &[Band], definition: &Definition) -> Result<Chip> {
    let path = folder.join("images").join(format!("img_{id}.tif"));
    let image = GeoTiff::open(&path)?.read::<u16>()?;
    ensure!(
        image.data.len_of(Axis(0)) == bands.len(),
        "{} has {} bands, but --bands names {}",
        path.display(),
        image.data.len_of(Axis(0)),
        bands.len()
    );
    let (_, height, width) = image.data.dim();
    let nothing = Array2::from_elem((height, width), false);
    let mut channels = Array3::zeros(image.data.dim());
    for ((band, dn), out) in bands.iter().zip(image.data.outer_iter()).zip(channels.outer_iter_mut()) {
        let mut histogram = Histogram::new();
        histogram.add(dn, nothing.view())?;
        let radiometry = Radiometry { offset: 0, quantification: 10_000 };
        BandStatistics::from_histogram(band.name(), &histogram, radiometry, definition)
            .with_context(|| path.display().to_string())?
            .normalize_into(dn, out)?;
    }
    let path = folder.join("masks").join(format!("mask_{id}.tif"));
    let mask = GeoTiff::open(&path)?.read::<u8>()?.data.index_axis_move(Axis(0), 0);
    ensure!(
        mask.dim() == (height, width),
        "{} is {} x {}, but its image is {height} x {width}",
        path.display(),
        mask.nrows(),
        mask.ncols()
    );
    let no_data = no_data(image.data.view());
    let truth = ndarray::Zip::from(&mask).and(&no_data).map_collect(|&class, &no_data| match class {
        _ if no_data => IGNORE_INDEX,
        0 => 0,
        1 => 1,
        _ => IGNORE_INDEX,
    });
    Ok(Chip { image: channels, truth })
}

/// Whole chips as regions.
pub fn whole(chips: &[Arc<Chip>]) -> Vec<Region> {
    chips
        .iter()
        .map(|chip| {
            let (height, width) = chip.size();
            let source: Arc<dyn Source> = chip.clone();
            Region { source, window: Window { row: 0, col: 0, height, width } }
        })
        .collect()
}

/// Columns of a scene from west to east in three strips: 50 % training, 20 % validation, 30 % test, each
/// `gap` pixels from the next.
#[must_use]
pub fn strips(width: usize, gap: usize) -> [Range<usize>; 3] {
    let usable = width.saturating_sub(2 * gap);
    let (training, validation) = (usable / 2, usable / 5);
    let second = training + gap;
    let third = second + validation + gap;
    [0..training, second..second + validation, third..width]
}

/// Everything that a training run needs besides its patches.
pub struct Run<'a> {
    /// The network.
    pub network: UNetConfig,
    /// The settings.
    pub training: TrainingConfig,
    /// What the channels are.
    pub recipe: Recipe,
    /// Where the patches came from.
    pub sources: Vec<String>,
    /// The device.
    pub device: &'a Chosen,
    /// Stops the run.
    pub interrupter: &'a Interrupter,
    /// No bars.
    pub quiet: bool,
}

impl Run<'_> {
    /// Trains and puts the result into a bundle that has no threshold yet.
    pub fn train(self, training: Patches, validation: Patches) -> Result<Bundle> {
        let Chosen { device, name, .. } = self.device;
        device.seed(self.training.seed);
        let model = self.network.init(device)?;
        let steps = self.training.epochs * training.len();
        let (bar, per_epoch) = (progress_bar(self.quiet, steps, "train"), training.len());
        let (shown, quiet) = (bar.clone(), self.quiet);
        let progress = move |progress: Progress| match progress {
            Progress::Patches { epoch, done, .. } => {
                shown.set_position(((epoch - 1) * per_epoch + done) as u64)
            }
            Progress::Epoch(epoch) if !quiet => shown.suspend(|| {
                tracing::info!(
                    "epoch {}: training loss {:.5}, validation loss {:.5}",
                    epoch.epoch,
                    epoch.training_loss,
                    epoch.validation_loss
                );
            }),
            _ => {}
        };
        let outcome =
            unet_burn::train(model, &self.training, training, validation, device, self.interrupter, progress);
        bar.finish_and_clear();
        check_interrupt()?;
        let Trained { model, history, best_epoch, .. } = outcome?;
        let record = TrainingRecord {
            config: self.training,
            history,
            best_epoch,
            sources: self.sources,
            device: name.clone(),
        };
        Ok(Bundle { model, recipe: self.recipe, threshold: None, training: Some(record) })
    }
}

/// Probabilities of a chip: windows as in prediction, `[row, column]`.
pub fn predict_chip(bundle: &Bundle, device: &Chosen, chip: &Chip, window: usize) -> Result<Array2<f32>> {
    let (height, width) = chip.size();
    let plan = s2_patches::WindowPlan::try_new(
        height,
        width,
        crate::predict::geometry(bundle.model.config())?,
        window,
    )?;
    let mut probabilities = Array3::from_elem((1, height, width), f32::NAN);
    for window in plan.iter() {
        let image = chip.channels(window.input_row, window.input_col, window.input_size)?;
        let output = unet_burn::predict(&bundle.model, image.view().insert_axis(Axis(0)), &device.device)?;
        s2_patches::stitch(probabilities.view_mut(), output.index_axis(Axis(0), 0), &window)?;
    }
    Ok(probabilities.index_axis_move(Axis(0), 0))
}

/// Truth of a chip for scoring: where it is a mine, and where it counts.
#[must_use]
pub fn chip_truth(chip: &Chip) -> Truth {
    Truth {
        mines: chip.truth.mapv(|class| class == 1),
        valid: chip.truth.mapv(|class| class != IGNORE_INDEX),
    }
}

/// The three strips of a scene as regions, refused when the input footprints of two of them touch.
pub fn scene_regions(
    source: &Arc<SceneSource>,
    strips: &[Range<usize>; 3],
    margin: usize,
) -> Result<[Region; 3]> {
    let (height, width) = source.size();
    let windows =
        strips.each_ref().map(|strip| Window { row: 0, col: strip.start, height, width: strip.len() });
    let footprint = |window: &Window| {
        let first = window.col.saturating_sub(margin);
        let last = (window.col + window.width + margin).min(width);
        Window { row: 0, col: first, height, width: last - first }
    };
    let names = ["training", "validation", "test"];
    let footprints = windows.each_ref().map(|window| [footprint(window)]);
    let splits = std::array::from_fn::<_, 3, _>(|i| Split { name: names[i], footprints: &footprints[i] });
    check_split(&splits)?;
    Ok(windows.map(|window| Region { source: source.clone(), window }))
}
