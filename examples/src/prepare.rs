//! From a SAFE product to a stack and its statistics.

use std::path::Path;

use anyhow::{Context, Result};
use ndarray::{Array3, Axis, s};
use rayon::prelude::*;
use s2_io::{Band, CogOptions, Grid, Layer, Overviews, Product, Window, write_cog};
use s2_normalize::{BandStatistics, Definition, Histogram, Radiometry, Statistics, upsample_bilinear};
use s2_scl::{ClassSet, mask};

use crate::cli::{check_interrupt, make_folder, progress_bar};
use crate::input::{SCL, STACK, STATISTICS, Scene};

/// File name of the normalised raster that `--normalised` asks for.
pub const NORMALISED: &str = "normalised.tif";

/// Reads the ten bands of 10 and 20 m and the scene classes of a product, brings them to 10 m, and writes
/// `stack.tif` and `statistics.json`.
pub fn prepare(product: &Path, out: &Path, normalised: bool, quiet: bool) -> Result<()> {
    make_folder(out)?;
    let product = Product::open(product)?;
    let (grid, stack) = read_stack(&product, quiet)?;
    save(&Origin::of(&product), &grid, &stack, out)?;
    if normalised {
        check_interrupt()?;
        write_normalised(out, &out.join(NORMALISED))?;
    }
    Ok(())
}

/// Where a stack is from, and what its DN mean.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The product's name.
    pub product: String,
    /// Its processing baseline.
    pub baseline: String,
    /// From DN to reflectance, for each of the ten bands.
    pub radiometry: [Radiometry; 10],
}

impl Origin {
    fn of(product: &Product) -> Self {
        let quantification = product.quantification();
        let radiometry = |band| Radiometry { offset: product.offset(band), quantification };
        Self {
            product: product.name().to_owned(),
            baseline: product.baseline().to_string(),
            radiometry: Band::TEN_AND_TWENTY.map(radiometry),
        }
    }
}

/// Writes the ten bands and SCL, `[band, row, column]`, as `stack.tif` and their `statistics.json`.
pub fn save(origin: &Origin, grid: &Grid, stack: &Array3<u16>, out: &Path) -> Result<()> {
    let statistics = statistics(origin, stack)?;
    check_interrupt()?;
    write_stack(&out.join(STACK), stack, grid, origin)?;
    statistics.save(out.join(STATISTICS))?;
    tracing::info!(
        "{}: {} x {} pixels, {} bands and SCL",
        origin.product,
        grid.height,
        grid.width,
        statistics.bands.len()
    );
    Ok(())
}

/// The bands at 10 m and SCL behind them, `[band, row, column]` in DN.
fn read_stack(product: &Product, quiet: bool) -> Result<(Grid, Array3<u16>)> {
    let grid = product.grid(10)?;
    let all = Window { row: 0, col: 0, height: grid.height, width: grid.width };
    let layers: Vec<_> = Band::TEN_AND_TWENTY.map(Layer::Band).into_iter().chain([Layer::Scl]).collect();
    let mut stack = Array3::<u16>::zeros((layers.len(), grid.height, grid.width));
    let bar = progress_bar(quiet, layers.len(), "read bands");
    for (layer, plane) in layers.into_iter().zip(stack.outer_iter_mut()) {
        check_interrupt()?;
        product.read_at_10m(layer, all, upsample_bilinear, plane)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((grid, stack))
}

fn statistics(origin: &Origin, stack: &Array3<u16>) -> Result<Statistics> {
    let definition = Definition::default();
    let scl = crate::input::classes(stack.index_axis(Axis(0), Band::TEN_AND_TWENTY.len()));
    let excluded = mask(scl.view(), ClassSet::PERCENTILE_EXCLUDED);
    let bands = Band::TEN_AND_TWENTY
        .par_iter()
        .zip(origin.radiometry)
        .zip(stack.axis_iter(Axis(0)).into_par_iter())
        .map(|((&band, radiometry), dn)| {
            check_interrupt()?;
            let mut histogram = Histogram::new();
            histogram.add(dn, excluded.view())?;
            BandStatistics::from_histogram(band.name(), &histogram, radiometry, &definition)
                .with_context(|| origin.product.clone())
        })
        .collect::<Vec<_>>();
    Ok(Statistics {
        version: Statistics::VERSION,
        definition,
        product: origin.product.clone(),
        baseline: origin.baseline.clone(),
        // Of several errors the first one in the order of the bands, not in that of the threads.
        bands: bands.into_iter().collect::<Result<_>>()?,
        made_by: made_by(),
    })
}

fn write_stack(path: &Path, stack: &Array3<u16>, grid: &Grid, origin: &Origin) -> Result<()> {
    let scaled = |radiometry: Radiometry| {
        let quantification = f64::from(radiometry.quantification);
        (1.0 / quantification, f64::from(radiometry.offset) / quantification)
    };
    let options = CogOptions {
        overviews: Overviews::Nearest, // SCL is among the bands: no class may be averaged
        nodata: Some(0.0),
        band_names: Band::TEN_AND_TWENTY
            .iter()
            .map(|band| band.name())
            .chain([SCL])
            .map(str::to_owned)
            .collect(),
        scale_offset: origin.radiometry.into_iter().map(scaled).chain([(1.0, 0.0)]).collect(),
        metadata: vec![
            ("PRODUCT".into(), origin.product.clone()),
            ("PROCESSING_BASELINE".into(), origin.baseline.clone()),
            ("MADE_BY".into(), made_by()),
        ],
        ..CogOptions::default()
    };
    Ok(write_cog(path, stack.view(), grid, &options)?)
}

/// Writes what the network gets of the scene in a folder, band by band: for looking at, or for other programs.
pub(crate) fn write_normalised(folder: &Path, out: &Path) -> Result<()> {
    let scene = Scene::open(folder)?;
    let stack = scene.stack.read::<u16>()?;
    let channels = scene.channels(stack.data.slice(s![.., .., ..]))?;
    let options = CogOptions {
        overviews: Overviews::Nearest,
        band_names: scene.recipe().channels,
        metadata: vec![
            ("PRODUCT".into(), scene.statistics.product.clone()),
            ("NORMALIZATION".into(), scene.recipe().normalization),
            ("MADE_BY".into(), made_by()),
        ],
        ..CogOptions::default()
    };
    Ok(write_cog(out, channels.view(), &stack.grid, &options)?)
}

/// Name and version of the programs, for the files that they write.
#[must_use]
pub fn made_by() -> String {
    concat!("s2-asm ", env!("CARGO_PKG_VERSION")).into()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::scene::{fill_layer, write_scene};

    const SIZE: usize = 192;

    /// Prepares a small product after a change: the error, and that no file is left.
    fn refused(change: impl FnOnce(&PathBuf)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let product = write_scene(folder.path(), SIZE, 1, &|_| Ok(())).unwrap().product;
        change(&product);
        let out = folder.path().join("out");
        let error = prepare(&product, &out, false, true).unwrap_err();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "no file is left");
        format!("{error:#}")
    }

    #[test]
    fn a_scene_of_clouds_is_refused() {
        let error = refused(|product| fill_layer(product, "SCL", 20, SIZE / 2, 9));
        assert!(error.contains("_T29NPJ_") && error.contains("band B02 has no valid pixel"), "{error}");
    }

    #[test]
    fn a_band_without_data_is_refused() {
        let error = refused(|product| fill_layer(product, "B11", 20, SIZE / 2, 0));
        assert!(error.contains("band B11 has no valid pixel, all are nodata"), "{error}");
    }

    #[test]
    fn a_constant_band_is_refused() {
        let error = refused(|product| fill_layer(product, "B04", 10, SIZE, 2000));
        assert!(error.contains("band B04 is constant") && error.contains("are both 1000"), "{error}");
    }
}
