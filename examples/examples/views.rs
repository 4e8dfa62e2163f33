//! Scores a model on the validation chips of a folder: in one view, in half precision, and in all eight views (test-time
//! augmentation).
//!
//!     views CHIPS MODEL [WINDOW]      (444)
//!
//! Prints the IoU at the best of 1,000 thresholds, as training counts it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use examples::device::{DeviceChoice, open};
use examples::input::parse_bands;
use examples::predict::geometry;
use examples::train::{ChipFolder, score_chips};
use unet_burn::{Bundle, PredictorConfig};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (chips, model, window) = match arguments.as_slice() {
        [chips, model] => (chips, model, 444),
        [chips, model, window] => (chips, model, window.parse()?),
        _ => bail!("which chips and which model: two folders"),
    };
    let device = open(DeviceChoice::Cpu)?.device;
    let bundle = Bundle::load(Path::new(model), &device)?;
    let chips = ChipFolder::open(Path::new(chips), &parse_bands(&bundle.recipe.channels.join(","))?)?;
    bundle.recipe.check(&chips.recipe)?;
    let geometry = geometry(bundle.model.config())?;
    let once = PredictorConfig::default();
    let ways = [
        ("one view", once),
        ("half precision", PredictorConfig { half: true, ..once }),
        ("eight views", PredictorConfig { all_views: true, ..once }),
    ];
    for (name, config) in ways {
        let predictor = config.init(&bundle.model, &device)?;
        let histogram = score_chips(&predictor, geometry, &chips.validation, window)?;
        let (threshold, confusion) =
            histogram.best_threshold(|confusion| confusion.iou()).context("the chips show no mine")?;
        let iou = confusion.iou().context("the chips show no mine")?;
        println!("{name}: IoU {iou:.4} at threshold {threshold:.3}");
    }
    Ok(())
}
