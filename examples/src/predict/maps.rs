//! From probabilities to files: the map, the mask above the threshold, its polygons. Block row by block row.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use ndarray::{Array2, ArrayView2, Axis, s};
use s2_io::{CogOptions, CogWriter, GeoTiff, Grid, Overviews, Window};
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

/// Starts `probability.tif`: one band, or two with the spread of the views.
pub fn probability_writer(out: &Path, grid: &Grid, about: &About, bands: usize) -> Result<CogWriter<f32>> {
    let options = CogOptions {
        overviews: Overviews::Average,
        nodata: Some(f64::NAN),
        band_names: ["probability", "spread"].iter().take(bands).map(|name| (*name).to_owned()).collect(),
        metadata: about.metadata(),
        ..CogOptions::default()
    };
    Ok(CogWriter::create(out.join(PROBABILITY), bands, grid, &options)?)
}

/// Writes the mask and the polygons of the `probability.tif` that lies in a folder.
///
/// Only the mask is in memory as a whole, one byte a pixel (120 MB of a tile), because polygons may cross all of it.
pub fn write_mask_and_polygons(out: &Path, about: &About, quiet: bool) -> Result<()> {
    let map = GeoTiff::open(out.join(PROBABILITY))?;
    let grid = *map.grid();
    let options = CogOptions {
        overviews: Overviews::Mode,
        nodata: Some(f64::from(MASK_NODATA)),
        band_names: vec!["mine".into()],
        metadata: about.metadata(),
        // Forest-floor grey and the vermilion of Okabe and Ito's palette.
        colors: Some(vec![[40, 40, 40], [213, 94, 0]]),
        ..CogOptions::default()
    };
    let mut writer = CogWriter::create(out.join(MASK), 1, &grid, &options)?;
    let mut mines = Array2::from_elem((grid.height, grid.width), false);
    for row in (0..grid.height).step_by(options.block_size) {
        check_interrupt()?;
        let height = options.block_size.min(grid.height - row);
        let part = map.read_window::<f32>(Window { row, col: 0, height, width: grid.width })?.data;
        let mask = part.index_axis(Axis(0), 0).mapv(|probability| match probability {
            p if p.is_nan() => MASK_NODATA,
            p => u8::from(p >= about.threshold as f32),
        });
        mines.slice_mut(s![row..row + height, ..]).assign(&mask.mapv(|class| class == 1));
        writer.write_rows(mask.view().insert_axis(Axis(0)))?;
    }
    writer.finish()?;
    check_interrupt()?;
    write_polygons(&out.join(POLYGONS), &grid, mines.view(), about, quiet)
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
