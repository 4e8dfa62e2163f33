//! Trains a U-Net on prepared scenes or on chips.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use examples::cli::{Common, run};
use examples::device::{self, Chosen};
use examples::evaluate::{self, read_truth};
use examples::input::{Scene, parse_bands};
use examples::train::{
    ChipFolder, Patches, Run, SceneSource, chip_truth, predict_chip, scene_regions, strips, whole,
};
use examples::{predict, quicklook};
use seg_metrics::ScoreHistogram;
use unet_burn::burn::train::Interrupter;
use unet_burn::{Bundle, FocalLoss, TrainingConfig, UNetConfig};

/// Trains a U-Net, chooses its threshold on validation, and writes a model bundle and a loss curve.
///
/// DATA is a folder that `prepare` wrote (then --truth names the polygons; the scene is split into strips from
/// west to east: training, validation, test) or a folder of chips: split.csv (id,split), images/img_ID.tif,
/// masks/mask_ID.tif.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A prepared scene or a folder of chips.
    data: PathBuf,
    /// Folder for the model bundle.
    #[arg(long)]
    out: PathBuf,
    /// Truth polygons (GeoJSON) or mask (GeoTIFF) of a prepared scene.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Bands of the chips, in the order of the files.
    #[arg(long, default_value = "B02,B03,B04")]
    bands: String,
    /// Side of the input windows in pixels.
    #[arg(long, default_value_t = 444)]
    window: usize,
    /// Filters of the first level.
    #[arg(long, default_value_t = 16)]
    filters: usize,
    /// Poolings of the network.
    #[arg(long, default_value_t = 4)]
    levels: usize,
    /// Side of the convolution kernels, odd.
    #[arg(long, default_value_t = 3)]
    kernel: usize,
    /// Share of values that dropout sets to zero.
    #[arg(long, default_value_t = 0.3)]
    dropout: f64,
    /// Passes over the training patches.
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Random patches of an epoch; 0 takes one for each chip, or 64 of a scene.
    #[arg(long, default_value_t = 0)]
    patches: usize,
    /// Patches of a step.
    #[arg(long, default_value_t = 2)]
    batch_size: usize,
    /// Adam's step size.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Focal loss: weight of the positive class.
    #[arg(long, default_value_t = FocalLoss::default().alpha)]
    alpha: f64,
    /// Focal loss: discount of well classified pixels.
    #[arg(long, default_value_t = FocalLoss::default().gamma)]
    gamma: f64,
    /// Seed of weights, patches and dropout.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(&args.common, |interrupter| {
        let device = device::open(args.common.device)?;
        let bundle = if args.data.join("split.csv").is_file() {
            train_chips(&args, &device, interrupter)?
        } else {
            train_scene(&args, &device, interrupter)?
        };
        bundle.save(&args.out)?;
        let history = &bundle.training.as_ref().context("a trained model has its record")?.history;
        quicklook::save(&args.out.join("loss.png"), &quicklook::loss_curve(history)?)?;
        Ok(())
    })
}

impl Args {
    fn network(&self, in_channels: usize) -> UNetConfig {
        UNetConfig {
            in_channels,
            levels: self.levels,
            filters: self.filters,
            kernel: self.kernel,
            dropout: self.dropout,
            ..UNetConfig::default()
        }
    }

    fn training(&self) -> TrainingConfig {
        TrainingConfig {
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            loss: FocalLoss { alpha: self.alpha, gamma: self.gamma },
            seed: self.seed,
            ..TrainingConfig::default()
        }
    }
}

fn train_chips(args: &Args, device: &Chosen, interrupter: &Interrupter) -> Result<Bundle> {
    let bands = parse_bands(&args.bands)?;
    let chips = ChipFolder::open(&args.data, &bands)?;
    let network = args.network(bands.len());
    let count = if args.patches == 0 { chips.training.len() } else { args.patches };
    let training = Patches::random(whole(&chips.training), &network, args.window, count, args.seed)?;
    let validation = Patches::grid(whole(&chips.validation), &network, args.window)?;
    let run = Run {
        network,
        training: args.training(),
        recipe: chips.recipe.clone(),
        sources: vec![args.data.display().to_string()],
        device,
        interrupter,
        quiet: args.common.quiet,
    };
    let mut bundle = run.train(training, validation)?;
    let mut histogram = ScoreHistogram::new();
    for chip in &chips.validation {
        let probabilities = predict_chip(&bundle, device, chip, args.window)?;
        let truth = chip_truth(chip);
        histogram.add(probabilities.view(), truth.mines.view(), Some(truth.valid.view()))?;
    }
    choose_threshold(&mut bundle, &histogram)?;
    Ok(bundle)
}

fn train_scene(args: &Args, device: &Chosen, interrupter: &Interrupter) -> Result<Bundle> {
    let scene = Scene::open(&args.data)?;
    let truth =
        args.truth.as_deref().context("a prepared scene needs its truth: name a file with --truth")?;
    let truth = read_truth(truth, scene.stack.grid())?;
    let recipe = scene.recipe();
    let network = args.network(recipe.channels.len());
    let margin = predict::geometry(&network)?.margin();
    let strips = strips(scene.stack.grid().width, 2 * margin + 1);
    ensure!(strips.iter().all(|strip| !strip.is_empty()), "the scene is too small for three strips");
    let product = scene.statistics.product.clone();
    let source = Arc::new(SceneSource::new(scene, &truth)?);
    let [training, validation, _] = scene_regions(&source, &strips, margin)?;
    let count = if args.patches == 0 { 64 } else { args.patches };
    let run = Run {
        training: args.training(),
        recipe,
        sources: vec![product],
        device,
        interrupter,
        quiet: args.common.quiet,
        network: network.clone(),
    };
    let mut bundle = run.train(
        Patches::random(vec![training], &network, args.window, count, args.seed)?,
        Patches::grid(vec![validation], &network, args.window)?,
    )?;
    let probabilities =
        predict::probabilities(source.scene(), &bundle, device, args.window, args.common.quiet)?;
    let histogram = evaluate::histogram(&probabilities, &truth, strips[1].clone())?;
    choose_threshold(&mut bundle, &histogram)?;
    Ok(bundle)
}

/// Freezes the threshold of the best F0.5 on validation, the paper's criterion.
fn choose_threshold(bundle: &mut Bundle, histogram: &ScoreHistogram) -> Result<()> {
    let best = histogram.best_threshold(|confusion| confusion.f_beta(0.5));
    let (threshold, confusion) =
        best.context("the validation part holds no mine to choose a threshold by")?;
    bundle.threshold = Some(threshold);
    println!("validation scores at the threshold of the best F0.5:");
    print!("{}", evaluate::table(&[("validation", &confusion.scores(Some(threshold)))]));
    Ok(())
}
