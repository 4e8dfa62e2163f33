//! Trains a U-Net on prepared scenes or on chips.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use examples::cli::{Common, run};
use examples::device::{self, Chosen};
use examples::evaluate::{self, read_truth};
use examples::input::{STACK, Scene, parse_bands};
use examples::train::{
    CHECKPOINT, ChipFolder, Display, Draw, Keep, Patches, Run, Sampler, SceneSource, scene_regions,
    score_chips, strips, whole,
};
use examples::{predict, quicklook};
use seg_metrics::{Confusion, ScoreHistogram};
use unet_burn::burn::train::Interrupter;
use unet_burn::{
    Bundle, Clipping, Criterion, CrossEntropyLoss, FocalLoss, Layout, Loss, PredictorConfig, Recipe,
    Schedule, TrainingConfig, TverskyLoss, UNetConfig, UpConvolution,
};

/// Trains a U-Net, chooses its threshold on validation, and writes a model bundle and its curves.
///
/// DATA is a folder that `prepare` wrote (then --truth names the polygons; the scene is split into strips from
/// west to east: training, validation, test) or a folder of chips: split.csv (id,split), images/img_ID.tif,
/// masks/mask_ID.tif. After each epoch the output folder has history.csv, history.json and a checkpoint; a run
/// that was killed goes on from it with the same command and --resume.
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
    /// Side of the input windows in pixels; not every size fits a network, and the error names the nearest that do.
    #[arg(long, default_value_t = 444)]
    window: usize,
    /// Blocks of the network: asm_map (as released), seed (batch norm after each convolution), vanilla (Ronneberger
    /// 2015) or residual.
    #[arg(long, default_value = "asm_map")]
    layout: Layout,
    /// Steps up: upsample (and a 2x2 convolution) or transposed.
    #[arg(long, default_value = "upsample")]
    up: UpConvolution,
    /// Filters of the first level.
    #[arg(long, default_value_t = 16)]
    filters: usize,
    /// Poolings of the network.
    #[arg(long, default_value_t = 4)]
    levels: usize,
    /// Side of the convolution kernels, odd.
    #[arg(long, default_value_t = 3)]
    kernel: usize,
    /// Share of values that dropout sets to zero, 0 to below 1.
    #[arg(long, default_value_t = 0.3)]
    dropout: f64,
    /// Passes over the training patches.
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Random patches of an epoch; 0 takes one for each chip, or 64 of a scene.
    #[arg(long, default_value_t = 0)]
    patches: usize,
    /// Share of the random patches that lie around a positive pixel, 0 to 1.
    #[arg(long, default_value_t = 0.5, help_heading = "Patches")]
    positive_share: f64,
    /// What is equally likely when a patch is drawn: each chip (or scene), or each of their pixels.
    #[arg(long, value_enum, default_value_t = Draw::Region, help_heading = "Patches")]
    draw: Draw,
    /// Augmentation: largest summand of the bands in -1 to 1, for half of the patches.
    #[arg(long, default_value_t = 0.2, help_heading = "Patches")]
    brightness: f64,
    /// Augmentation: largest change of the factor of the bands, for half of the patches.
    #[arg(long, default_value_t = 0.2, help_heading = "Patches")]
    contrast: f64,
    /// Threads that cut patches ahead of the device; 0 cuts in the training thread.
    #[arg(long, default_value_t = 1, help_heading = "Patches")]
    workers: usize,
    /// Patches that are on the device at once.
    #[arg(long, default_value_t = 2, help_heading = "Optimizer")]
    batch_size: usize,
    /// Batches whose gradients are averaged for a step.
    #[arg(long, default_value_t = 1, help_heading = "Optimizer")]
    accumulate: usize,
    /// Halves the batches until the memory holds them, and averages the gradients of twice as many: steps stay as large,
    /// but batch norm sees fewer patches at once.
    #[arg(long, help_heading = "Optimizer")]
    smaller_batches: bool,
    /// Mixed precision: maps of half precision in training, for devices that have it.
    #[arg(long, help_heading = "Optimizer")]
    mixed_precision: bool,
    /// Adam's step size.
    #[arg(long, default_value_t = 1e-3, help_heading = "Optimizer")]
    learning_rate: f64,
    /// How the step size changes from epoch to epoch.
    #[arg(long, value_enum, default_value_t = ScheduleChoice::Constant, help_heading = "Optimizer")]
    schedule: ScheduleChoice,
    /// Smallest step size of a schedule.
    #[arg(long, default_value_t = 0.0, help_heading = "Optimizer")]
    learning_rate_floor: f64,
    /// Plateau: epochs without a better one before the step size is lowered.
    #[arg(long, default_value_t = 5, help_heading = "Optimizer")]
    plateau_epochs: usize,
    /// Plateau: what the step size is multiplied by.
    #[arg(long, default_value_t = 0.5, help_heading = "Optimizer")]
    plateau_factor: f64,
    /// Shortens the gradient of each weight tensor to this norm, above 0; off if not given.
    #[arg(long, allow_negative_numbers = true, conflicts_with = "clip_value", help_heading = "Optimizer")]
    clip_norm: Option<f64>,
    /// Cuts each component of the gradients off at this value, above 0; off if not given.
    #[arg(long, allow_negative_numbers = true, help_heading = "Optimizer")]
    clip_value: Option<f64>,
    /// What training makes small; several, as in focal,dice, are added.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "focal", help_heading = "Optimizer")]
    loss: Vec<LossChoice>,
    /// Cross-entropy: weight of the positive class.
    #[arg(long, default_value_t = 1.0, help_heading = "Optimizer")]
    positive_weight: f64,
    /// Focal loss: weight of the positive class.
    #[arg(long, default_value_t = FocalLoss::default().alpha, help_heading = "Optimizer")]
    alpha: f64,
    /// Focal loss: discount of well classified pixels.
    #[arg(long, default_value_t = FocalLoss::default().gamma, help_heading = "Optimizer")]
    gamma: f64,
    /// Chooses the best epoch on validation, and the threshold (loss, precision and recall leave that to F0.5): loss, f0.5,
    /// f1, f2, iou, mcc, precision or recall.
    #[arg(long, default_value_t = Criterion::default(), help_heading = "Run")]
    criterion: Criterion,
    /// Stops after so many epochs without a better one, 1 or more; runs all epochs if not given.
    #[arg(long, help_heading = "Run")]
    patience: Option<usize>,
    /// Seed of weights, patches and dropout.
    #[arg(long, default_value_t = 0, help_heading = "Run")]
    seed: u64,
    /// Graphics cards; each step takes a batch on each of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..), help_heading = "Run")]
    devices: u8,
    /// Goes on after the last finished epoch of the same command; begins if there is none.
    #[arg(long, help_heading = "Run")]
    resume: bool,
    /// Keeps the checkpoint of the last epoch, so that --epochs can be raised later.
    #[arg(long, help_heading = "Run")]
    keep_checkpoint: bool,
    /// A bar and one line an epoch instead of the dashboard that a terminal shows.
    #[arg(long, help_heading = "Run")]
    plain: bool,
    #[command(flatten)]
    common: Common,
}

/// The kinds of [`Loss`].
#[derive(Clone, Copy, ValueEnum)]
enum LossChoice {
    /// Lin et al. 2017, with --alpha and --gamma.
    Focal,
    /// Binary cross-entropy, with --positive-weight.
    CrossEntropy,
    /// Salehi et al. 2017: false positives weigh 0.3, false negatives 0.7.
    Tversky,
    /// Abraham and Khan 2018: the same to the power of 3/4.
    FocalTversky,
    /// Milletari et al. 2016.
    Dice,
}

/// The kinds of [`Schedule`].
#[derive(Clone, Copy, ValueEnum)]
enum ScheduleChoice {
    /// The same for all epochs.
    Constant,
    /// Half a cosine down to the floor.
    Cosine,
    /// Lower whenever validation stops improving.
    Plateau,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(&args.common, |interrupter| {
        if args.is_done()? {
            return Ok(());
        }
        let chips = args.data.join("split.csv").is_file();
        ensure!(args.data.is_dir(), "there is no folder {}", args.data.display());
        ensure!(
            chips || args.data.join(STACK).is_file(),
            "{} holds neither split.csv (chips) nor {STACK} (a scene; see prepare)",
            args.data.display()
        );
        ensure!(!chips || args.truth.is_none(), "--truth is for scenes: chips have their masks");
        let devices = device::open_several(args.common.device, args.devices.into())?;
        let bundle = match chips {
            true => train_chips(&args, &devices, interrupter)?,
            false => train_scene(&args, &devices, interrupter)?,
        };
        bundle.save(&args.out)?;
        let record = bundle.training.as_ref().context("a trained model has its record")?;
        let curve = quicklook::loss_curve(&record.history, record.config.criterion, record.best_epoch)?;
        quicklook::save(&args.out.join("loss.png"), &curve)?;
        if !args.keep_checkpoint {
            let checkpoint = args.out.join(CHECKPOINT);
            std::fs::remove_dir_all(&checkpoint)
                .with_context(|| format!("cannot remove {}", checkpoint.display()))?;
        }
        Ok(())
    })
}

impl Args {
    /// Whether there is nothing to do: a finished model is not trained again.
    fn is_done(&self) -> Result<bool> {
        let model = self.out.join("model.json");
        if !model.is_file() || self.out.join(CHECKPOINT).is_dir() {
            return Ok(false);
        }
        ensure!(
            self.resume,
            "{} is a finished model: name another folder with --out, or remove it",
            model.display()
        );
        if !self.common.quiet {
            tracing::info!("{} is finished: nothing to do", model.display());
        }
        Ok(true)
    }

    fn network(&self, in_channels: usize) -> UNetConfig {
        UNetConfig {
            layout: self.layout,
            up: self.up,
            in_channels,
            levels: self.levels,
            filters: self.filters,
            kernel: self.kernel,
            dropout: self.dropout,
            ..UNetConfig::default()
        }
    }

    fn training(&self) -> TrainingConfig {
        let floor = self.learning_rate_floor;
        let (norm, value) = (self.clip_norm.map(Clipping::Norm), self.clip_value.map(Clipping::Value));
        TrainingConfig {
            epochs: self.epochs,
            batch_size: self.batch_size,
            accumulation: self.accumulate,
            learning_rate: self.learning_rate,
            schedule: match self.schedule {
                ScheduleChoice::Constant => Schedule::Constant,
                ScheduleChoice::Cosine => Schedule::Cosine { floor },
                ScheduleChoice::Plateau => {
                    Schedule::Plateau { patience: self.plateau_epochs, factor: self.plateau_factor, floor }
                }
            },
            loss: match self.loss.as_slice() {
                &[choice] => self.loss(choice),
                several => Loss::Sum(several.iter().map(|&choice| (1.0, self.loss(choice))).collect()),
            },
            clipping: norm.or(value),
            criterion: self.criterion,
            patience: self.patience,
            seed: self.seed,
            workers: self.workers,
            mixed_precision: self.mixed_precision,
        }
    }

    fn loss(&self, choice: LossChoice) -> Loss {
        match choice {
            LossChoice::Focal => FocalLoss { alpha: self.alpha, gamma: self.gamma }.into(),
            LossChoice::CrossEntropy => CrossEntropyLoss { positive_weight: self.positive_weight }.into(),
            LossChoice::Tversky => TverskyLoss::salehi2017().into(),
            LossChoice::FocalTversky => TverskyLoss::abraham2018().into(),
            LossChoice::Dice => TverskyLoss::dice().into(),
        }
    }

    fn sampler(&self, default_len: usize) -> Sampler {
        Sampler {
            len: if self.patches == 0 { default_len } else { self.patches },
            seed: self.seed,
            positive_share: self.positive_share,
            draw: self.draw,
            brightness: self.brightness,
            contrast: self.contrast,
        }
    }

    fn display(&self) -> Display {
        match () {
            () if self.common.quiet => Display::Quiet,
            () if self.plain || !std::io::stdout().is_terminal() => Display::Plain,
            () => Display::Dashboard,
        }
    }

    /// All that makes the patches what they are must be the same to go on.
    fn keep(&self, recipe: &Recipe, sampler: &Sampler, data: String) -> Keep {
        let facts = [
            ("files", data),
            ("channels", recipe.channels.join(" ")),
            ("normalisation", recipe.normalization.clone()),
            ("window", self.window.to_string()),
            ("positive-share", sampler.positive_share.to_string()),
            ("draw", format!("{:?}", sampler.draw)),
            ("brightness", sampler.brightness.to_string()),
            ("contrast", sampler.contrast.to_string()),
        ];
        let facts: BTreeMap<_, _> = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect();
        Keep { folder: self.out.clone(), resume: self.resume, facts }
    }
}

fn train_chips(args: &Args, devices: &[Chosen], interrupter: &Interrupter) -> Result<Bundle> {
    let bands = parse_bands(&args.bands)?;
    let chips = ChipFolder::open(&args.data, &bands)?;
    let network = args.network(bands.len());
    let sampler = args.sampler(chips.training.len());
    let keep = Some(args.keep(&chips.recipe, &sampler, chips.checksum()?));
    let training = Patches::random(whole(&chips.training), &network, args.window, sampler)?;
    let validation = Patches::grid(whole(&chips.validation), &network, args.window)?;
    let run = Run {
        network,
        training: args.training(),
        smaller_batches: args.smaller_batches,
        recipe: chips.recipe.clone(),
        sources: vec![args.data.display().to_string()],
        devices,
        interrupter,
        display: args.display(),
        keep,
    };
    let mut bundle = run.train(training, validation)?;
    let predictor = PredictorConfig::default().init(&bundle.model, &devices[0].device)?;
    let geometry = predict::geometry(bundle.model.config())?;
    let histogram = score_chips(&predictor, geometry, &chips.validation, args.window)?;
    choose_threshold(&mut bundle, &histogram)?;
    Ok(bundle)
}

fn train_scene(args: &Args, devices: &[Chosen], interrupter: &Interrupter) -> Result<Bundle> {
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
    let sampler = args.sampler(64);
    let data = format!("{}, truth {}", predict::identity(&args.data)?, source.truth_checksum()?);
    let keep = Some(args.keep(&recipe, &sampler, data));
    let run = Run {
        training: args.training(),
        smaller_batches: args.smaller_batches,
        recipe,
        sources: vec![product],
        devices,
        interrupter,
        display: args.display(),
        keep,
        network: network.clone(),
    };
    let mut bundle = run.train(
        Patches::random(vec![training], &network, args.window, sampler)?,
        Patches::grid(vec![validation], &network, args.window)?,
    )?;
    let probabilities =
        predict::probabilities(source.scene(), &bundle, &devices[0], args.window, args.common.quiet)?;
    let histogram = evaluate::histogram(&probabilities, &truth, strips[1].clone())?;
    choose_threshold(&mut bundle, &histogram)?;
    Ok(bundle)
}

/// Freezes the threshold of the best score on validation.
fn choose_threshold(bundle: &mut Bundle, histogram: &ScoreHistogram) -> Result<()> {
    let record = bundle.training.as_ref().context("a trained model has its record")?;
    let criterion = record.config.criterion.of_threshold();
    let best = histogram.best_threshold(|counts: &Confusion| {
        let Confusion { true_positives, false_positives, false_negatives, true_negatives, .. } = *counts;
        criterion.score(true_positives, false_positives, false_negatives, true_negatives)
    });
    let (threshold, confusion) =
        best.context("the validation part holds no mine to choose a threshold by")?;
    bundle.threshold = Some(threshold);
    println!("validation scores at the threshold of the best {criterion}:");
    print!("{}", evaluate::table(&[("validation", &confusion.scores(Some(threshold)))]));
    Ok(())
}
