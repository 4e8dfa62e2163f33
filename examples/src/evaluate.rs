//! From truth and probabilities to scores.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array2, Axis};
use s2_io::{GeoTiff, Grid, SampleType};
use s2_vector::{Utm, rasterize, read_geojson, to_utm};
use seg_metrics::{Confusion, ScoreHistogram, Scores};

use crate::predict::THRESHOLD;

/// Truth on the grid of a map: 1 is a mine, `valid` is false where the truth says nothing.
#[derive(Debug)]
pub struct Truth {
    /// Mines, `[row, column]`.
    pub mines: Array2<bool>,
    /// Where the truth counts, `[row, column]`.
    pub valid: Array2<bool>,
}

/// Reads truth from GeoJSON polygons (`.geojson`, `.json`) or from a raster of 0 and 1 on the same grid.
pub fn read_truth(path: &Path, grid: &Grid) -> Result<Truth> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "geojson" | "json" => {
            let epsg = grid.epsg.context("the map has no coordinate reference system to put the truth on")?;
            let utm = Utm::from_epsg(epsg)?;
            let polygons: Vec<_> =
                read_geojson(path)?.features.iter().map(|feature| to_utm(&feature.polygon, utm)).collect();
            let mines = rasterize(&polygons, &grid.transform, grid.height, grid.width)?;
            Ok(Truth { mines, valid: Array2::from_elem((grid.height, grid.width), true) })
        }
        "tif" | "tiff" => {
            let file = GeoTiff::open(path)?;
            ensure!(file.sample_type() == SampleType::U8, "{} is no mask of bytes (0, 1)", path.display());
            let raster = file.read::<u8>()?;
            ensure!(
                (raster.grid.height, raster.grid.width) == (grid.height, grid.width)
                    && raster.grid.transform == grid.transform
                    && raster.grid.epsg == grid.epsg,
                "{} lies on another grid than the map: give polygons instead",
                path.display()
            );
            let classes = raster.data.index_axis_move(Axis(0), 0);
            let valid = classes.mapv(|class| Some(f64::from(class)) != raster.nodata);
            let mines = classes.mapv(|class| class == 1);
            if let Some(&class) =
                classes.iter().zip(&valid).find(|(class, valid)| **valid && **class > 1).map(|c| c.0)
            {
                bail!("{} holds the value {class}: a mask has 0, 1 and its nodata value", path.display());
            }
            Ok(Truth { mines, valid })
        }
        _ => bail!("{}: truth is a .geojson of polygons or a .tif mask", path.display()),
    }
}

/// Scores of a probability map at a threshold; without one, at the threshold that the map carries.
pub fn evaluate(truth: &Path, probability: &Path, threshold: Option<f64>) -> Result<Scores> {
    let map = GeoTiff::open(probability)?;
    let threshold = match (threshold, map.metadata().get(THRESHOLD)) {
        (Some(threshold), _) => threshold,
        (None, Some(text)) => {
            text.parse().with_context(|| format!("{THRESHOLD} in {}", probability.display()))?
        }
        (None, None) => bail!("{} carries no threshold: name one with --threshold", probability.display()),
    };
    ensure!((0.0..=1.0).contains(&threshold), "--threshold {threshold} is no probability");
    ensure!(
        map.sample_type() == SampleType::F32 && (1..=2).contains(&map.num_bands()), // the second is the spread
        "{} is no probability map: it has {} bands of {:?}",
        probability.display(),
        map.num_bands(),
        map.sample_type()
    );
    let probabilities = map.read::<f32>()?.data.index_axis_move(Axis(0), 0);
    let truth = read_truth(truth, map.grid())?;
    let valid = &truth.valid & &probabilities.mapv(|probability| !probability.is_nan());
    let predicted = probabilities.mapv(|probability| probability >= threshold as f32);
    let mut confusion = Confusion::new();
    confusion.add(predicted.view(), truth.mines.view(), Some(valid.view()))?;
    ensure!(confusion.pixels() > 0, "{} and the truth share no valid pixel", probability.display());
    Ok(confusion.scores(Some(threshold)))
}

/// The counts of all thresholds in a part of the map, a range of columns.
pub fn histogram(
    probabilities: &Array2<f32>,
    truth: &Truth,
    columns: std::ops::Range<usize>,
) -> Result<ScoreHistogram> {
    let part = ndarray::s![.., columns];
    let mut histogram = ScoreHistogram::new();
    histogram.add(probabilities.slice(part), truth.mines.slice(part), Some(truth.valid.slice(part)))?;
    Ok(histogram)
}

type Score = fn(&Scores) -> Option<f64>;

/// Scores side by side, for the terminal.
#[must_use]
pub fn table(columns: &[(&str, &Scores)]) -> String {
    let score = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
    let rows: [(&str, Score); 8] = [
        ("IoU", |scores| scores.iou),
        ("precision", |scores| scores.precision),
        ("recall", |scores| scores.recall),
        ("F1", |scores| scores.f1),
        ("F0.5", |scores| scores.f05),
        ("MCC", |scores| scores.mcc),
        ("prevalence", |scores| scores.prevalence),
        ("threshold", |scores| scores.threshold),
    ];
    let line = |name: &str, values: Vec<String>| {
        let cells: String = values.iter().map(|value| format!("{value:>12}")).collect();
        format!("{name:<12}{cells}\n")
    };
    let mut text = line("", columns.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (name, get) in rows {
        text += &line(name, columns.iter().map(|(_, scores)| score(get(scores))).collect());
    }
    text + &line("pixels", columns.iter().map(|(_, scores)| scores.pixels.to_string()).collect())
}
