//! Folders of chips as sources of patches, and chips as a network sees them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array2, Array3, ArrayView2, Axis};
use s2_io::{Algorithm, Band, Checksum, GeoTiff};
use s2_normalize::{BandStatistics, Definition, Histogram, Radiometry};
use s2_patches::{Geometry, Window, WindowPlan, extract};
use seg_metrics::ScoreHistogram;
use unet_burn::{IGNORE_INDEX, Photometric, Predictor, RawImage, Recipe};

use super::{Region, Source, scale};
use crate::cli::check_interrupt;
use crate::evaluate::Truth;
use crate::input::{no_data, normalization};

/// A chip: a small image with its mask.
#[derive(Debug)]
pub struct Chip {
    pub(super) name: String,
    pub(super) dn: Array3<u16>,
    pub(super) bands: Vec<BandStatistics>,
    pub(super) truth: Array2<u8>,
}

impl Chip {
    /// Channels of a square, mirrored outside; `[channel, row, column]`.
    pub(super) fn channels(&self, row: isize, col: isize, size: usize) -> Result<Array3<f32>> {
        let dn = extract(self.dn.view(), row, col, size, size);
        let mut channels = Array3::zeros(dn.dim());
        for ((band, dn), out) in self.bands.iter().zip(dn.outer_iter()).zip(channels.outer_iter_mut()) {
            band.normalize_into(dn, out)?;
        }
        Ok(channels)
    }
}

impl Source for Chip {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> (usize, usize) {
        self.truth.dim()
    }

    fn image(&self, row: isize, col: isize, size: usize) -> RawImage {
        RawImage {
            bands: extract(self.dn.view(), row, col, size, size),
            scales: self.bands.iter().map(scale).collect(),
            classes: None,
            photometric: Photometric::default(),
        }
    }

    fn truth(&self) -> ArrayView2<'_, u8> {
        self.truth.view()
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
        ensure!(
            table.lines().next().is_some_and(|line| line.trim().to_lowercase().starts_with("id,split")),
            "{} has to begin with a line id,split",
            path.display()
        );
        let mut ids = BTreeSet::new();
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for (number, line) in table.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
            let mut fields = line.split(',').map(str::trim);
            let (Some(id), Some(split)) = (fields.next(), fields.next()) else {
                bail!("{} line {}: expected id,split", path.display(), number + 1);
            };
            ensure!(ids.insert(id), "{} line {}: chip {id} is there twice", path.display(), number + 1);
            let chip = read_chip(folder, id, bands, &definition);
            let chip = Arc::new(chip.with_context(|| {
                format!("{} line {}: chip {id} cannot be used", path.display(), number + 1)
            })?);
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
            "{} needs chips of both splits: it has {} of train and {} of val",
            path.display(),
            training.len(),
            validation.len()
        );
        let recipe = Recipe {
            channels: bands.iter().map(|band| band.name().to_owned()).collect(),
            resolution_m: 10.0,
            normalization: normalization(&definition),
        };
        Ok(Self { training, validation, recipe })
    }

    /// SHA-256 of all counts and labels.
    pub fn checksum(&self) -> Result<String> {
        let chips = || self.training.iter().chain(&self.validation);
        let bytes: Vec<u8> = chips()
            .flat_map(|chip| chip.dn.iter().flat_map(|dn| dn.to_le_bytes()).chain(chip.truth.iter().copied()))
            .collect();
        Ok(Checksum::of(Algorithm::Sha256, bytes.as_slice())?.to_string())
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
    let statistics = |(band, dn): (&Band, ArrayView2<'_, u16>)| -> Result<BandStatistics> {
        let mut histogram = Histogram::new();
        histogram.add(dn, nothing.view())?;
        let radiometry = Radiometry { offset: 0, quantification: 10_000 };
        BandStatistics::from_histogram(band.name(), &histogram, radiometry, definition)
            .with_context(|| path.display().to_string())
    };
    let bands = bands.iter().zip(image.data.outer_iter()).map(statistics).collect::<Result<_>>()?;
    let name = path.display().to_string();
    let path = folder.join("masks").join(format!("mask_{id}.tif"));
    let mask = GeoTiff::open(&path)?.read::<u8>()?.data.index_axis_move(Axis(0), 0);
    ensure!(
        mask.dim() == (height, width),
        "{} is {} x {}, but its image is {height} x {width}",
        path.display(),
        mask.nrows(),
        mask.ncols()
    );
    if let Some(((row, col), class)) =
        mask.indexed_iter().find(|(_, class)| ![0, 1, IGNORE_INDEX].contains(*class))
    {
        bail!(
            "{}: the label at row {row}, column {col} is {class}: it has to be 0, 1 or {IGNORE_INDEX} (to ignore)",
            path.display()
        );
    }
    let no_data = no_data(image.data.view());
    let truth = ndarray::Zip::from(&mask).and(&no_data).map_collect(|&class, &no_data| match class {
        _ if no_data => IGNORE_INDEX,
        class => class,
    });
    Ok(Chip { name, dn: image.data, bands, truth })
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

/// Counts of all chips at each threshold.
///
/// # Errors
///
/// For a window that the network does not take, when the device fails, and after Ctrl-C.
pub fn score_chips(
    predictor: &Predictor,
    geometry: Geometry,
    chips: &[Arc<Chip>],
    window: usize,
) -> Result<ScoreHistogram> {
    let mut histogram = ScoreHistogram::new();
    for chip in chips {
        check_interrupt()?;
        let probabilities = predict_chip(predictor, geometry, chip, window)?;
        let truth = chip_truth(chip);
        histogram.add(probabilities.view(), truth.mines.view(), Some(truth.valid.view()))?;
    }
    Ok(histogram)
}

/// Probabilities of a chip: windows as in prediction, `[row, column]`.
fn predict_chip(
    predictor: &Predictor,
    geometry: Geometry,
    chip: &Chip,
    window: usize,
) -> Result<Array2<f32>> {
    let (height, width) = chip.size();
    let plan = if predictor.config().all_views { WindowPlan::for_all_views } else { WindowPlan::try_new };
    let plan = plan(height, width, geometry, window)?;
    let mut probabilities = Array3::from_elem((1, height, width), f32::NAN);
    for window in plan.iter() {
        let image = chip.channels(window.input_row, window.input_col, window.input_size)?;
        let output = predictor.predict(image.insert_axis(Axis(0)))?;
        s2_patches::stitch(probabilities.view_mut(), output.index_axis(Axis(0), 0), &window)?;
    }
    Ok(probabilities.index_axis_move(Axis(0), 0))
}

/// Truth of a chip for scoring: where it is a mine, and where it counts.
fn chip_truth(chip: &Chip) -> Truth {
    Truth {
        mines: chip.truth.mapv(|class| class == 1),
        valid: chip.truth.mapv(|class| class != IGNORE_INDEX),
    }
}
