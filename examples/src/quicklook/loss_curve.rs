//! The plots of a training run.

use anyhow::{Result, ensure};
use image::RgbImage;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use unet_burn::{Criterion, Epoch};

use super::page::{FAINT, INK, PAGE, Page, as_f64, draw, style};

const TRAINING: RGBColor = RGBColor(0, 96, 168);
const VALIDATION: RGBColor = RGBColor(214, 92, 0);
const SCORE: RGBColor = RGBColor(0, 128, 96);

/// Training and validation loss by epoch, and below them the score on validation, if there is one; the best epoch
/// is marked in both.
///
/// The axis of the losses is logarithmic when the largest is more than 20 times the smallest. Values that are not
/// finite leave a gap.
///
/// # Errors
///
/// When no epoch has a finite loss.
pub fn loss_curve(history: &[Epoch], criterion: Criterion, best_epoch: usize) -> Result<RgbImage> {
    let (low, high) = range(history.iter().flat_map(|e| [e.training_loss, e.validation_loss]));
    ensure!(low <= high, "no epoch of the {} has a finite loss: nothing to draw", history.len());
    let best = history.iter().find(|epoch| epoch.epoch == best_epoch);
    let losses = [
        Line { name: "training".into(), color: TRAINING, value: |e| e.training_loss, mark: None },
        Line {
            name: "validation".into(),
            color: VALIDATION,
            value: |e| e.validation_loss,
            mark: best.filter(|best| best.validation_loss.is_finite()).map(|best| {
                (best_epoch, format!("{} in the best epoch, {best_epoch}", number(best.validation_loss)))
            }),
        },
    ];
    let score: fn(&Epoch) -> f64 = |e| e.score.unwrap_or(f64::NAN);
    let scores = range(history.iter().map(score));
    let has_score = scores.0 <= scores.1;
    let height = 600;
    draw((960, if has_score { 2 * height } else { height }), |page| {
        let (upper, lower) = page.split_vertically(height);
        if low > 0.0 && high / low > 20.0 {
            panel(
                &upper,
                history,
                "loss",
                (low / 1.3..high * 1.3).log_scale(),
                SeriesLabelPosition::UpperRight,
                &losses,
            )?;
        } else {
            panel(&upper, history, "loss", with_room(low, high), SeriesLabelPosition::UpperRight, &losses)?;
        }
        if has_score {
            let mark = best.and_then(|best| best.score.zip(best.threshold)).map(|(score, threshold)| {
                (best_epoch, format!("{score:.3} at the threshold {threshold:.3}"))
            });
            let line = Line { name: "validation".into(), color: SCORE, value: score, mark };
            // Room for the legend below the lowest one.
            let bottom = (scores.0 - 0.2 * (scores.1 - scores.0)).max(scores.0.min(0.0));
            panel(
                &lower,
                history,
                &criterion.to_string(),
                with_room(bottom, scores.1),
                SeriesLabelPosition::LowerRight,
                &[line],
            )?;
        }
        Ok(())
    })
}

/// The smallest and the largest finite value; the wrong way round if there is none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

fn with_room(low: f64, high: f64) -> std::ops::Range<f64> {
    let room = 0.06 * (high - low).max(high.abs() * 1e-3).max(1e-9);
    let bottom = if low >= 0.0 && low < 0.3 * high { 0.0 } else { low - room };
    bottom..high + room
}

/// A value by epoch.
struct Line {
    name: String,
    color: RGBColor,
    value: fn(&Epoch) -> f64,
    /// An epoch to mark, and what the legend says of it.
    mark: Option<(usize, String)>,
}

/// A diagram with a legend.
fn panel<Y>(
    page: &Page<'_>,
    history: &[Epoch],
    what: &str,
    values: Y,
    legend: SeriesLabelPosition,
    lines: &[Line],
) -> Result<()>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let first = history.iter().map(|e| e.epoch).min().unwrap_or(1);
    let last = history.iter().map(|e| e.epoch).max().unwrap_or(1);
    // A single epoch has room on both sides.
    let room = if first == last { 1.0 } else { 0.0 };
    let mut chart = ChartBuilder::on(page)
        .margin(28)
        .margin_right(44)
        .x_label_area_size(58)
        .y_label_area_size(88)
        .build_cartesian_2d(as_f64(first) - room..as_f64(last) + room, values)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(what)
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
        .y_label_formatter(&|value| number(*value))
        .draw()?;
    for Line { name, color, value, mark } in lines {
        let color = *color;
        let mut label = Some(name);
        for run in history.split(|e| !value(e).is_finite()).filter(|run| !run.is_empty()) {
            let points = || run.iter().map(|e| (as_f64(e.epoch), value(e)));
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
        if let Some((epoch, text)) = mark
            && let Some(marked) = history.iter().find(|e| e.epoch == *epoch)
        {
            let at = (as_f64(*epoch), value(marked));
            chart
                .draw_series([Circle::new(at, 9, color.stroke_width(2))])?
                .label(text)
                .legend(move |(x, y)| Circle::new((x + 13, y), 7, color.stroke_width(2)));
        }
    }
    chart
        .configure_series_labels()
        .position(legend)
        .margin(14)
        .legend_area_size(38)
        .label_font(style(20))
        .background_style(RGBColor(PAGE[0], PAGE[1], PAGE[2]).mix(0.9))
        .border_style(FAINT)
        .draw()?;
    Ok(())
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
        let epoch = |epoch: usize, loss: f64| Epoch {
            epoch,
            training_loss: loss,
            validation_loss: loss * 1.1,
            ..Epoch::default()
        };
        let constant: Vec<_> = (1..=5).map(|e| epoch(e, 0.25)).collect();
        let falling: Vec<_> = (1..=300).map(|e| epoch(e, 1.0 / as_f64(e))).collect();
        let with_gap = [epoch(1, 1.0), epoch(2, f64::NAN), epoch(3, 0.5)];
        let zero = [epoch(1, 0.0), epoch(2, 0.0)];
        let scored: Vec<_> = (1..=12)
            .map(|e| Epoch {
                score: (e != 4).then_some(0.7 - 0.6 / as_f64(e)),
                threshold: Some(0.42),
                ..epoch(e, 0.9 / as_f64(e))
            })
            .collect();
        for history in [&constant[..], &falling, &with_gap, &zero, &constant[..1], &scored] {
            let plot = loss_curve(history, Criterion::default(), 3)?;
            assert_eq!(
                plot.height(),
                if history[0].score.is_some() { 1200 } else { 600 },
                "a panel for the score"
            );
            let colored =
                plot.pixels().filter(|p| p.0.iter().max() > p.0.iter().min().map(|v| v + 60).as_ref());
            assert!(colored.count() > 100, "no line in the plot of {} epochs", history.len());
        }
        Ok(())
    }

    #[test]
    fn a_history_without_a_finite_loss_is_refused() {
        let diverged =
            Epoch { epoch: 1, training_loss: f64::NAN, validation_loss: f64::INFINITY, ..Epoch::default() };
        let wrong = loss_curve(&[diverged], Criterion::Loss, 1).unwrap_err().to_string();
        assert!(wrong.contains("no epoch of the 1"), "{wrong}");
    }

    #[test]
    fn losses_are_written_without_zeros_that_say_nothing() {
        let written = [0.0, 0.2, 0.02, 0.0184, 1.0, 2.345, 100.0, 0.000_012].map(number);
        assert_eq!(written, ["0", "0.2", "0.02", "0.0184", "1", "2.35", "100", "1.2e-5"]);
    }
}
