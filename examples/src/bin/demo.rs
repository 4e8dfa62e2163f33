//! The whole way on a scene that the program makes itself.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use examples::cli::{Common, check_interrupt, make_folder, peak_memory_bytes, run, write_json};
use examples::device::{self, Chosen};
use examples::evaluate::{self, Truth, read_truth, table};
use examples::input::Scene;
use examples::prepare::{made_by, prepare};
use examples::scene::write_scene;
use examples::train::{Display, Patches, Run, Sampler, SceneSource, scene_regions, strips};
use examples::{predict, quicklook};
use ndarray::{Array2, Axis};
use s2_io::Band;
use s2_vector::{Feature, FeatureCollection, Utm, to_lonlat, write_geojson};
use seg_metrics::{Confusion, Scores};
use serde::Serialize;
use unet_burn::burn::train::Interrupter;
use unet_burn::{FocalLoss, TrainingConfig, UNetConfig};

/// Goes the whole way from a Sentinel-2 product to a map of mines, without network, account, GPU or files.
///
/// It makes a synthetic scene, writes it as a real L2A SAFE product with JPEG 2000 bands, reads and prepares
/// it, trains a small U-Net on the western strip, chooses the threshold on the middle one, scores the eastern
/// one, and writes maps, polygons, pictures and summary.json.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Folder for everything.
    #[arg(long, default_value = "demo")]
    out: PathBuf,
    /// Side of the scene in pixels of 10 m, a multiple of 6.
    #[arg(long, default_value_t = 1536)]
    size: usize,
    /// Passes over the training patches.
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Seed of the scene, the weights and the patches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

/// summary.json.
#[derive(Serialize)]
struct Summary {
    made_by: String,
    device: String,
    seed: u64,
    product: String,
    protocol: String,
    seconds: BTreeMap<&'static str, f64>,
    peak_memory_bytes: Option<u64>,
    validation: Scores,
    test: Scores,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(&args.common, |interrupter| demo(&args, interrupter))
}

/// Seconds of each stage.
#[derive(Default)]
struct Clock(BTreeMap<&'static str, f64>);

impl Clock {
    fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        check_interrupt()?;
        let start = Instant::now();
        let result = work()?;
        self.0.insert(stage, (start.elapsed().as_secs_f64() * 1e3).round() / 1e3);
        Ok(result)
    }
}

fn demo(args: &Args, interrupter: &Interrupter) -> Result<()> {
    let (out, quiet) = (args.out.as_path(), args.common.quiet);
    let mut clock = Clock::default();
    make_folder(out)?;
    let device = device::open(args.common.device)?;

    let folder = out.join("scene");
    let made = clock.time("scene", || {
        make_folder(&folder)?;
        let made = write_scene(&folder, args.size, args.seed, &|_| check_interrupt())?;
        let utm = Utm::from_epsg(made.epsg)?;
        let feature =
            |polygon| Feature { polygon: to_lonlat(polygon, utm), properties: serde_json::Map::new() };
        let features = made.truth.iter().map(feature).collect();
        let truth = FeatureCollection { features, ..FeatureCollection::default() };
        write_geojson(folder.join("truth.geojson"), &truth)?;
        Ok(made)
    })?;
    clock.time("prepare", || prepare(&made.product, out, false, quiet))?;

    let scene = Scene::open(out)?;
    let product = scene.statistics.product.clone();
    let truth = read_truth(&folder.join("truth.geojson"), scene.stack.grid())?;
    let recipe = scene.recipe();
    let network = UNetConfig {
        in_channels: recipe.channels.len(),
        levels: 3,
        filters: 8,
        dropout: 0.1,
        ..UNetConfig::default()
    };
    let margin = predict::geometry(&network)?.margin();
    let strips = strips(scene.stack.grid().width, 2 * margin + 1);
    let window = 284;
    let shortest = strips.iter().map(Range::len).min().unwrap_or(0);
    let output = network.output_size(window)?;
    ensure!(
        shortest >= output,
        "--size {}: a strip of {shortest} pixels cannot hold a patch of {output}: choose 1200 or more",
        args.size
    );
    let mut bundle = clock.time("train", || {
        let source = Arc::new(SceneSource::new(scene, &truth)?);
        let [training, validation, _] = scene_regions(&source, &strips, margin)?;
        let run = Run {
            training: TrainingConfig {
                epochs: args.epochs,
                batch_size: 2,
                learning_rate: 2e-3,
                loss: FocalLoss { alpha: 0.5, ..FocalLoss::default() }.into(),
                seed: args.seed,
                ..TrainingConfig::default()
            },
            smaller_batches: false,
            recipe,
            sources: vec![product.clone()],
            devices: std::slice::from_ref(&device),
            interrupter,
            display: if quiet { Display::Quiet } else { Display::Plain },
            keep: None,
            network: network.clone(),
        };
        run.train(
            Patches::random(
                vec![training],
                &network,
                window,
                Sampler { len: 32, seed: args.seed, ..Sampler::default() },
            )?,
            Patches::grid(vec![validation], &network, window)?,
        )
    })?;

    let scene = Scene::open(out)?;
    let probabilities =
        clock.time("predict", || predict::probabilities(&scene, &bundle, &device, 580, quiet))?;
    let (validation, test) = clock.time("evaluate", || {
        let best =
            evaluate::histogram(&probabilities, &truth, strips[1].clone())?.best_threshold(Confusion::iou);
        let (threshold, confusion) = best.context("the validation strip holds no mine")?;
        let test = evaluate::histogram(&probabilities, &truth, strips[2].clone())?.confusion_at(threshold)?;
        bundle.threshold = Some(threshold);
        Ok((confusion.scores(Some(threshold)), test.scores(Some(threshold))))
    })?;
    let threshold = bundle.threshold.context("the threshold was chosen")?;
    clock.time("write", || {
        let folder = out.join("model");
        bundle.save(&folder)?;
        let model = predict::weights_checksum(&folder)?;
        let about = predict::About { product: product.clone(), model, threshold };
        predict::write_maps(out, scene.stack.grid(), probabilities.view(), &about, quiet)
    })?;
    clock.time("pictures", || {
        let record = bundle.training.as_ref().context("a trained model has its record")?;
        let curve = quicklook::loss_curve(&record.history, record.config.criterion, record.best_epoch)?;
        quicklook::save(&out.join("loss.png"), &curve)?;
        pictures(out, &scene, &probabilities, &truth, threshold)
    })?;

    let summary = Summary {
        made_by: made_by(),
        device: device.name.clone(),
        seed: args.seed,
        product,
        protocol: format!(
            "one synthetic scene in strips from west to east, {} pixels apart: columns {:?} train, {:?} choose \
             weights and threshold (best IoU), {:?} test once",
            2 * margin + 1,
            strips[0],
            strips[1],
            strips[2]
        ),
        seconds: clock.0,
        peak_memory_bytes: peak_memory_bytes(),
        validation,
        test,
    };
    write_json(&out.join("summary.json"), &summary)?;
    report(&summary, &device, out);
    Ok(())
}

fn pictures(
    out: &Path,
    scene: &Scene,
    probabilities: &Array2<f32>,
    truth: &Truth,
    threshold: f64,
) -> Result<()> {
    let stack = scene.stack.read::<u16>()?.data;
    let reflectance = |band: Band| -> Result<Array2<f32>> {
        let index = scene.statistics.bands.iter().position(|known| known.band == band.name());
        let index = index.with_context(|| format!("the stack has no {band}"))?;
        let radiometry = scene.statistics.bands[index].radiometry();
        Ok(stack.index_axis(Axis(0), index).mapv(|dn| radiometry.reflectance(dn)))
    };
    let (red, green, blue) = (reflectance(Band::B04)?, reflectance(Band::B03)?, reflectance(Band::B02)?);
    let colour = quicklook::true_colour(red.view(), green.view(), blue.view())?;
    let scl = examples::input::classes(stack.index_axis(Axis(0), scene.statistics.bands.len()));
    let predicted = probabilities.mapv(|probability| probability >= threshold as f32);
    let overlay = quicklook::mask_over_image(&colour, predicted.view(), Some(truth.mines.view()))?;
    quicklook::save(&out.join("true_colour.png"), &colour)?;
    quicklook::save(&out.join("scl.png"), &quicklook::scl(scl.view())?)?;
    quicklook::save(&out.join("probability.png"), &quicklook::probability(probabilities.view())?)?;
    quicklook::save(&out.join("mask.png"), &overlay)
}

fn report(summary: &Summary, device: &Chosen, out: &Path) {
    println!("{}", table(&[("validation", &summary.validation), ("test", &summary.test)]));
    println!("{}", summary.protocol);
    let total: f64 = summary.seconds.values().sum();
    let stages: Vec<String> = summary.seconds.iter().map(|(stage, s)| format!("{stage} {s:.1}")).collect();
    let memory = summary
        .peak_memory_bytes
        .map_or_else(String::new, |bytes| format!(", {:.2} GiB at most", bytes as f64 / f64::from(1 << 30)));
    println!("{total:.0} s on {} ({}){memory}; see {}", device.name, stages.join(", "), out.display());
}
