//! The plot of a training run.

use anyhow::{Result, ensure};
use image::RgbImage;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use unet_burn::Epoch;

use super::page::{FAINT, INK, PAGE, as_f64, draw, style};

/// Training and validation loss by epoch, the epoch of the lowest validation loss marked.
///
/// The axis is logarithmic when the largest loss is more than 20 times the smallest. Losses that are not finite
/// leave a gap.
///
/// # Errors
///
/// When no epoch has a finite loss.
pub fn loss_curve(history: &[Epoch]) -> Result<RgbImage> {
    let losses =
        || history.iter().flat_map(|e| [e.training_loss, e.validation_loss]).filter(|loss| loss.is_finite());
    let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    ensure!(low <= high, "no epoch of the {} has a finite loss: nothing to draw", history.len());
    let first = history.iter().map(|e| e.epoch).min().unwrap_or(1);
    let last = history.iter().map(|e| e.epoch).max().unwrap_or(1);
    // A single epoch has room on both sides.
    let epochs = as_f64(first) - if first == last { 1.0 } else { 0.0 }
        ..as_f64(last) + if first == last { 1.0 } else { 0.0 };
    if low > 0.0 && high / low > 20.0 {
        draw_losses(history, epochs, (low / 1.3..high * 1.3).log_scale())
    } else {
        let room = 0.06 * (high - low).max(high.abs() * 1e-3).max(1e-9);
        let bottom = if low >= 0.0 && low < 0.3 * high { 0.0 } else { low - room };
        draw_losses(history, epochs, bottom..high + room)
    }
}

fn draw_losses<Y>(history: &[Epoch], epochs: std::ops::Range<f64>, losses: Y) -> Result<RgbImage>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    const TRAINING: RGBColor = RGBColor(0, 96, 168);
    const VALIDATION: RGBColor = RGBColor(214, 92, 0);
    draw((960, 600), |page| {
        let mut chart = ChartBuilder::on(page)
            .margin(28)
            .margin_right(44)
            .x_label_area_size(58)
            .y_label_area_size(88)
            .build_cartesian_2d(epochs.clone(), losses)?;
        chart
            .configure_mesh()
            .x_desc("epoch")
            .y_desc("loss")
            .axis_desc_style(style(22))
            .label_style(style(19))
            .axis_style(INK)
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .x_labels((history.len() + 1).clamp(3, 11))
            .y_labels(8)
            .x_label_formatter(&|epoch| {
                // Between two epochs there is nothing to name.
                if epoch.fract().abs() < 1e-9 { format!("{epoch:.0}") } else { String::new() }
            })
            .y_label_formatter(&|loss| number(*loss))
            .draw()?;

        let mut line = |name: &str, color: RGBColor, loss: fn(&Epoch) -> f64| -> Result<()> {
            let mut label = Some(name.to_owned());
            for run in history.split(|e| !loss(e).is_finite()).filter(|run| !run.is_empty()) {
                let points = || run.iter().map(|e| (as_f64(e.epoch), loss(e)));
                let drawn = chart.draw_series(LineSeries::new(points(), color.stroke_width(3)))?;
                if let Some(name) = label.take() {
                    drawn
                        .label(name)
                        .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 26, y + 2)], color.filled()));
                }
                if history.len() <= 40 || run.len() == 1 {
                    chart.draw_series(points().map(|point| Circle::new(point, 4, color.filled())))?;
                }
            }
            Ok(())
        };
        line("training", TRAINING, |e| e.training_loss)?;
        line("validation", VALIDATION, |e| e.validation_loss)?;

        let best = history
            .iter()
            .filter(|e| e.validation_loss.is_finite())
            .min_by(|a, b| a.validation_loss.total_cmp(&b.validation_loss));
        if let Some(best) = best {
            let at = (as_f64(best.epoch), best.validation_loss);
            let name = format!("lowest: {} in epoch {}", number(best.validation_loss), best.epoch);
            chart
                .draw_series([Circle::new(at, 9, VALIDATION.stroke_width(2))])?
                .label(name)
                .legend(|(x, y)| Circle::new((x + 13, y), 7, VALIDATION.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .margin(14)
            .legend_area_size(38)
            .label_font(style(20))
            .background_style(RGBColor(PAGE[0], PAGE[1], PAGE[2]).mix(0.9))
            .border_style(FAINT)
            .draw()?;
        Ok(())
    })
}

/// A loss in about three significant digits, without zeros that say nothing.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        small if small < 1e-4 => return format!("{value:.1e}"),
        small if small < 0.1 => 4,
        small if small < 1.0 => 3,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_history_is_drawn() -> Result<()> {
        let epoch =
            |epoch: usize, loss: f64| Epoch { epoch, training_loss: loss, validation_loss: loss * 1.1 };
        let constant: Vec<_> = (1..=5).map(|e| epoch(e, 0.25)).collect();
        let falling: Vec<_> = (1..=300).map(|e| epoch(e, 1.0 / as_f64(e))).collect();
        let with_gap = [epoch(1, 1.0), epoch(2, f64::NAN), epoch(3, 0.5)];
        let zero = [epoch(1, 0.0), epoch(2, 0.0)];
        for history in [&constant[..], &falling, &with_gap, &zero, &constant[..1]] {
            let plot = loss_curve(history)?;
            let colored =
                plot.pixels().filter(|p| p.0.iter().max() > p.0.iter().min().map(|v| v + 60).as_ref());
            assert!(colored.count() > 100, "no line in the plot of {} epochs", history.len());
        }
        Ok(())
    }

    #[test]
    fn a_history_without_a_finite_loss_is_refused() {
        let diverged = Epoch { epoch: 1, training_loss: f64::NAN, validation_loss: f64::INFINITY };
        let wrong = loss_curve(&[diverged]).unwrap_err().to_string();
        assert!(wrong.contains("no epoch of the 1"), "{wrong}");
    }

    #[test]
    fn losses_are_written_without_zeros_that_say_nothing() {
        let written = [0.0, 0.2, 0.02, 0.0184, 1.0, 2.345, 100.0, 0.000_012].map(number);
        assert_eq!(written, ["0", "0.2", "0.02", "0.0184", "1", "2.35", "100", "1.2e-5"]);
    }
}
