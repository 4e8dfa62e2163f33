//! From a stack and a model to probabilities, a mask and polygons.

use std::path::Path;
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use s2_io::{CogOptions, GeoTiff, Grid, Overviews, write_cog};
use s2_patches::{Geometry, PatchWindow, WindowPlan, extract, stitch};
use s2_vector::{Feature, FeatureCollection, Utm, area_ha_utm, polygonize, write_geojson};
use serde_json::json;
use unet_burn::{Bundle, UNetConfig};

use crate::cli::{check_interrupt, make_folder, progress_bar};
use crate::device::Chosen;
use crate::input::{Scene, no_data};
use crate::prepare::made_by;

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

/// How windows of a network fit together.
pub fn geometry(config: &UNetConfig) -> Result<Geometry> {
    Ok(Geometry::try_new(config.levels, config.kernel)?.with_padded_up_convolution())
}

/// Probabilities of a whole scene, `[row, column]`; NaN where the scene has no data.
///
/// Windows are read and normalised by a thread of their own while the device computes; memory is bounded by
/// the window size but for the result.
pub fn probabilities(
    scene: &Scene,
    bundle: &Bundle,
    device: &Chosen,
    window: usize,
    quiet: bool,
) -> Result<Array2<f32>> {
    bundle.recipe.check(&scene.recipe())?;
    let Grid { height, width, .. } = *scene.stack.grid();
    let geometry = geometry(bundle.model.config())?;
    let plan = WindowPlan::try_new(height, width, geometry, window)?;
    let bar = progress_bar(quiet, plan.len(), "predict");
    let mut probabilities = Array3::from_elem((1, height, width), f32::NAN);
    std::thread::scope(|scope| -> Result<()> {
        let (send, windows) = sync_channel(2);
        let plan = &plan;
        scope.spawn(move || {
            for window in plan.iter() {
                let input = read_window(scene, &window);
                let failed = input.is_err();
                if send.send((window, input)).is_err() || failed {
                    return; // the other side has stopped, or will now
                }
            }
        });
        for (window, input) in windows {
            check_interrupt()?;
            let (channels, no_data) = input?;
            let batch = channels.insert_axis(Axis(0));
            let mut output = unet_burn::predict(&bundle.model, batch.view(), &device.device)?;
            let kept = output.slice_mut(s![0, 0, ..window.output.height, ..window.output.width]);
            ndarray::Zip::from(kept).and(&no_data).for_each(|probability, &no_data| {
                if no_data {
                    *probability = f32::NAN;
                }
            });
            stitch(probabilities.view_mut(), output.index_axis(Axis(0), 0), &window)?;
            bar.inc(1);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(probabilities.index_axis_move(Axis(0), 0))
}

/// The channels of a window, mirrored at the edges of the scene, and where its kept part has no data.
fn read_window(scene: &Scene, window: &PatchWindow) -> Result<(Array3<f32>, Array2<bool>)> {
    let Grid { height, width, .. } = *scene.stack.grid();
    let part = window.footprint(height, width);
    let read = s2_io::Window { row: part.row, col: part.col, height: part.height, width: part.width };
    let stack = scene.stack.read_window::<u16>(read)?.data;
    let output = window.output;
    let (row, col) = (output.row - part.row, output.col - part.col);
    let num_bands = scene.statistics.bands.len();
    let kept = stack.slice(s![..num_bands, row..row + output.height, col..col + output.width]);
    let no_data = no_data(kept);
    let (first_row, first_col) =
        (window.input_row - part.row.cast_signed(), window.input_col - part.col.cast_signed());
    let patch = extract(stack.view(), first_row, first_col, window.input_size, window.input_size);
    Ok((scene.channels(patch.view())?, no_data))
}

/// Predicts a prepared scene and writes `probability.tif`, `mask.tif` and `mines.geojson`.
pub fn predict(
    folder: &Path,
    bundle: &Bundle,
    device: &Chosen,
    out: &Path,
    window: usize,
    threshold: Option<f64>,
    quiet: bool,
) -> Result<()> {
    make_folder(out)?;
    let scene = Scene::open(folder)?;
    let threshold =
        threshold.or(bundle.threshold).context("the model has no threshold: name one with --threshold")?;
    ensure!((0.0..=1.0).contains(&threshold), "threshold {threshold} is no probability");
    let probabilities = probabilities(&scene, bundle, device, window, quiet)?;
    write_maps(out, &scene.stack, &scene.statistics.product, probabilities.view(), threshold, quiet)
}

/// Writes the probabilities, the mask above the threshold and its polygons.
pub fn write_maps(
    out: &Path,
    stack: &GeoTiff,
    product: &str,
    probabilities: ArrayView2<'_, f32>,
    threshold: f64,
    quiet: bool,
) -> Result<()> {
    let grid = *stack.grid();
    let metadata = vec![
        ("PRODUCT".to_owned(), product.to_owned()),
        (THRESHOLD.to_owned(), threshold.to_string()),
        ("MADE_BY".to_owned(), made_by()),
    ];
    let options = CogOptions {
        overviews: Overviews::Average,
        nodata: Some(f64::NAN),
        band_names: vec!["probability".into()],
        metadata: metadata.clone(),
        ..CogOptions::default()
    };
    write_cog(out.join(PROBABILITY), probabilities.insert_axis(Axis(0)), &grid, &options)?;
    check_interrupt()?;

    let mask = probabilities.mapv(|probability| match probability {
        p if p.is_nan() => MASK_NODATA,
        p => u8::from(p >= threshold as f32),
    });
    // Forest-floor grey and the vermilion of Okabe and Ito's palette.
    let colors = vec![[40, 40, 40], [213, 94, 0]];
    let options = CogOptions {
        overviews: Overviews::Mode,
        nodata: Some(f64::from(MASK_NODATA)),
        band_names: vec!["mine".into()],
        metadata,
        colors: Some(colors),
        ..CogOptions::default()
    };
    write_cog(out.join(MASK), mask.view().insert_axis(Axis(0)), &grid, &options)?;
    check_interrupt()?;
    write_polygons(
        &out.join(POLYGONS),
        &grid,
        mask.mapv(|class| class == 1).view(),
        product,
        threshold,
        quiet,
    )
}

fn write_polygons(
    path: &Path,
    grid: &Grid,
    mask: ArrayView2<'_, bool>,
    product: &str,
    threshold: f64,
    quiet: bool,
) -> Result<()> {
    let epsg = grid.epsg.ok_or_else(|| anyhow!("the stack has no coordinate reference system"))?;
    let utm = Utm::from_epsg(epsg)?;
    let mut total_ha = 0.0;
    let mut features = Vec::new();
    for (index, polygon) in polygonize(mask, &grid.transform).iter().enumerate() {
        let area_ha = area_ha_utm(polygon, utm);
        total_ha += area_ha;
        let properties = json!({ "id": index + 1, "area_ha": (area_ha * 1e4).round() / 1e4 });
        let serde_json::Value::Object(properties) = properties else { bail!("properties are an object") };
        features.push(Feature { polygon: s2_vector::to_lonlat(polygon, utm), properties });
    }
    let about =
        json!({ "product": product, "threshold": threshold, "total_ha": total_ha, "made_by": made_by() });
    let serde_json::Value::Object(about) = about else { bail!("metadata are an object") };
    let features = FeatureCollection { features, metadata: about };
    write_geojson(path, &features)?;
    if !quiet {
        tracing::info!("{} polygons, {total_ha:.1} ha at probability {threshold}", features.features.len());
    }
    Ok(())
}
