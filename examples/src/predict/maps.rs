//! From probabilities to files: the map, the mask above the threshold, its polygons.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis, s};
use s2_io::{CogOptions, CogWriter, Grid, Overviews};
use s2_vector::{Feature, FeatureCollection, Utm, area_ha_utm, polygonize, write_geojson};
use serde_json::json;

use super::{MASK, MASK_NODATA, POLYGONS, PROBABILITY, THRESHOLD};
use crate::cli::check_interrupt;
use crate::prepare::made_by;

/// What the files say about themselves.
#[derive(Clone, Debug)]
pub struct About {
    /// The product that was predicted.
    pub product: String,
    /// Checksum of the network's weights.
    pub model: String,
    /// Probability from which a pixel is a mine.
    pub threshold: f64,
}

impl About {
    fn metadata(&self) -> Vec<(String, String)> {
        vec![
            ("PRODUCT".to_owned(), self.product.clone()),
            ("MODEL".to_owned(), self.model.clone()),
            (THRESHOLD.to_owned(), self.threshold.to_string()),
            ("MADE_BY".to_owned(), made_by()),
        ]
    }
}

/// The maps of a scene, written while it is predicted.
///
/// Only where mines are is in memory as a whole, one byte a pixel (120 MB of a tile), because polygons may cross all of it.
pub struct Maps {
    out: PathBuf,
    grid: Grid,
    about: About,
    probability: CogWriter<f32>,
    mask: CogWriter<u8>,
    mines: Array2<bool>,
    /// Rows that have come.
    height: usize,
}

impl Maps {
    /// Memory of the maps of a grid while they are written: the mines, and the rows of both files that do not fill a row of
    /// tiles yet, at all levels of the overviews.
    pub fn bytes(grid: &Grid, bands: usize) -> u64 {
        let rows = 2 * CogOptions::default().block_size * (bands * size_of::<f32>() + size_of::<u8>());
        (grid.width * (grid.height + rows)) as u64
    }

    /// Starts the files in a folder: the probability, and with two bands the spread of the views as its second one.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn create(out: &Path, grid: &Grid, about: &About, bands: usize) -> Result<Self> {
        let names = ["probability", "spread"];
        let probability = CogOptions {
            overviews: Overviews::Average,
            nodata: Some(f64::NAN),
            band_names: names.iter().take(bands).map(|name| (*name).to_owned()).collect(),
            metadata: about.metadata(),
            ..CogOptions::default()
        };
        let mask = CogOptions {
            overviews: Overviews::Mode,
            nodata: Some(f64::from(MASK_NODATA)),
            band_names: vec!["mine".into()],
            metadata: about.metadata(),
            // Forest-floor grey and the vermilion of Okabe and Ito's palette.
            colors: Some(vec![[40, 40, 40], [213, 94, 0]]),
            ..CogOptions::default()
        };
        Ok(Self {
            out: out.to_owned(),
            grid: *grid,
            about: about.clone(),
            probability: CogWriter::create(out.join(PROBABILITY), bands, grid, &probability)?,
            mask: CogWriter::create(out.join(MASK), 1, grid, &mask)?,
            mines: Array2::from_elem((grid.height, grid.width), false),
            height: 0,
        })
    }

    /// Writes the next rows from the north, `[band, row, column]` in 0 to 1; NaN is no data, in the mask [`MASK_NODATA`].
    ///
    /// # Errors
    ///
    /// The disk is full, or the rows do not fit the grid.
    pub fn push(&mut self, rows: ArrayView3<'_, f32>) -> Result<()> {
        self.probability.write_rows(rows)?;
        let rows = rows.index_axis_move(Axis(0), 0);
        let mask = rows.mapv(|probability| match probability {
            p if p.is_nan() => MASK_NODATA,
            p => u8::from(p >= self.about.threshold as f32),
        });
        self.mask.write_rows(mask.view().insert_axis(Axis(0)))?;
        let mut mines = self.mines.slice_mut(s![self.height..self.height + mask.nrows(), ..]);
        mines.zip_mut_with(&mask, |mine, &class| *mine = class == 1);
        self.height += mask.nrows();
        Ok(())
    }

    /// Puts the files at their places, once all rows have come: `probability.tif`, `mask.tif` and `mines.geojson`.
    ///
    /// # Errors
    ///
    /// Rows are missing, the grid is not in UTM, or the disk is full.
    pub fn finish(self, quiet: bool) -> Result<()> {
        self.probability.finish()?;
        self.mask.finish()?;
        check_interrupt()?;
        write_polygons(&self.out.join(POLYGONS), &self.grid, self.mines.view(), &self.about, quiet)
    }
}

fn write_polygons(
    path: &Path,
    grid: &Grid,
    mines: ArrayView2<'_, bool>,
    about: &About,
    quiet: bool,
) -> Result<()> {
    let About { product, model, threshold } = about;
    let epsg = grid.epsg.ok_or_else(|| anyhow!("the stack has no coordinate reference system"))?;
    let utm = Utm::from_epsg(epsg)?;
    let mut total_ha = 0.0;
    let mut features = Vec::new();
    for (index, polygon) in polygonize(mines, &grid.transform).iter().enumerate() {
        let area_ha = area_ha_utm(polygon, utm);
        total_ha += area_ha;
        let properties = json!({ "id": index + 1, "area_ha": (area_ha * 1e4).round() / 1e4 });
        let serde_json::Value::Object(properties) = properties else { bail!("properties are an object") };
        features.push(Feature { polygon: s2_vector::to_lonlat(polygon, utm), properties });
    }
    let metadata = json!({
        "product": product, "model": model, "threshold": threshold, "total_ha": total_ha, "made_by": made_by()
    });
    let serde_json::Value::Object(metadata) = metadata else { bail!("metadata are an object") };
    let features = FeatureCollection { features, metadata };
    write_geojson(path, &features)?;
    if !quiet {
        tracing::info!("{} polygons, {total_ha:.1} ha at probability {threshold}", features.features.len());
    }
    Ok(())
}
