//! Quick-looks: pictures of a scene, its classes, its map and its training, for people to look at.
//!
//! Every function takes views `[row, col]` and gives an [`RgbImage`], which [`save`] writes. A scene longer than
//! [`LONGEST_SIDE`] is reduced by whole blocks, a very small one is enlarged by whole pixels, and both are on one
//! scale, so that the pictures of a scene lie on each other. Text is drawn with a font from inside the program.

use std::io;
use std::path::Path;
use std::sync::Once;

use anyhow::{Context, Result, anyhow, ensure};
use image::{ImageFormat, Rgb, RgbImage, imageops};
use ndarray::{Array2, ArrayView2, Zip};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use s2_io::write_atomic;
use s2_scl::SceneClass;
use unet_burn::Epoch;

/// No picture of a scene has a longer side, in pixels (the strip with the legend comes on top of it).
pub const LONGEST_SIDE: usize = 1600;
/// Scenes with a shorter longest side are enlarged by whole pixels, as far as this side allows.
const SMALL_SIDE: usize = 800;
/// A page is at least so wide, that a legend has room, in pixels.
const NARROWEST_PAGE: u32 = 560;

const NODATA: [u8; 3] = [58, 58, 62];
const PAGE: [u8; 3] = [246, 246, 248];
const INK: RGBColor = RGBColor(40, 40, 46);
const FAINT: RGBColor = RGBColor(226, 226, 230);

/// Display gamma: brightens the dark end, where vegetation and water are told apart.
const GAMMA: f32 = 1.6;
/// Clouds must not turn the land black: the stretch ends at this reflectance, which few land covers pass, or at
/// twice the median, as in a desert.
const BRIGHT_LAND: f32 = 0.30;

// Colours that people with any of the common colour deficiencies tell apart, also by lightness: the order of
// lightness is missed > found > false.
const TRUE_POSITIVE: [u8; 3] = [64, 200, 255];
const FALSE_POSITIVE: [u8; 3] = [214, 20, 120];
const FALSE_NEGATIVE: [u8; 3] = [255, 228, 50];

/// Writes a picture as PNG; the file appears when it is whole.
///
/// # Errors
///
/// When the file cannot be written.
pub fn save(path: &Path, picture: &RgbImage) -> Result<()> {
    Ok(write_atomic(path, |file| picture.write_to(file, ImageFormat::Png).map_err(io::Error::other))?)
}

/// The scene as the eye would see it: reflectance of B04, B03, B02, `NaN` where nodata (dark grey).
///
/// One stretch for the three bands, so that hues are kept: from the 2nd to the 98th percentile of the three
/// together, but not beyond both 0.30 and twice the median (clouds), then a gamma of 1.6.
///
/// # Errors
///
/// When the bands differ in size or are empty.
pub fn true_colour(
    red: ArrayView2<'_, f32>,
    green: ArrayView2<'_, f32>,
    blue: ArrayView2<'_, f32>,
) -> Result<RgbImage> {
    ensure!(
        red.dim() == green.dim() && red.dim() == blue.dim(),
        "true colour needs three bands of one size, these have {:?}, {:?} and {:?}",
        red.dim(),
        green.dim(),
        blue.dim()
    );
    let scale = Scale::of(red.dim())?;
    let [red, green, blue] = [red, green, blue].map(|band| scale.block_means(band));
    let mut values: Vec<f32> =
        red.iter().chain(&green).chain(&blue).copied().filter(|v| v.is_finite()).collect();
    let low = percentile(&mut values, 0.02).unwrap_or(0.0);
    let median = percentile(&mut values, 0.5).unwrap_or(0.0);
    let high =
        percentile(&mut values, 0.98).unwrap_or(1.0).min(BRIGHT_LAND.max(2.0 * median)).max(low + 1e-3);
    let level = |reflectance: f32| ((reflectance - low) / (high - low)).clamp(0.0, 1.0).powf(1.0 / GAMMA);
    let mut colors = Array2::from_elem(red.dim(), NODATA);
    Zip::from(&mut colors).and(&red).and(&green).and(&blue).for_each(|color, &r, &g, &b| {
        if r.is_finite() && g.is_finite() && b.is_finite() {
            *color = [r, g, b].map(|v| byte(level(v)));
        }
    });
    Ok(scale.image(&colors))
}

/// A scene classification with the legend of the classes that occur and their shares.
///
/// A reduced scene shows the pixel in the middle of each block: classes are never mixed. A number that is no class
/// is drawn in magenta.
///
/// # Errors
///
/// When the scene is empty.
pub fn scl(classes: ArrayView2<'_, u8>) -> Result<RgbImage> {
    let class = |value: u8| {
        SceneClass::try_from(value).map_or(("no class", [255, 0, 255]), |class| (class.name(), class.color()))
    };
    let scale = Scale::of(classes.dim())?;
    let mut counts = [0_usize; 256];
    for &value in classes {
        counts[usize::from(value)] += 1;
    }
    let total = as_f64(classes.len());
    let legend: Vec<_> = (0..=255_u8)
        .filter(|&value| counts[usize::from(value)] > 0)
        .map(|value| {
            let (name, color) = class(value);
            let percent = 100.0 * as_f64(counts[usize::from(value)]) / total;
            (color, format!("{value} {name} {percent:.1} %"))
        })
        .collect();
    let colors = scale.block_middles(classes).mapv(|value| class(value).1);
    with_legend(&scale.image(&colors), &legend)
}

/// A map of probabilities, 0 to 1, with a colour bar; `NaN` is nodata (dark grey).
///
/// Equal steps of probability are equal steps of lightness (see `color_of`). A reduced scene shows block means.
///
/// # Errors
///
/// When the map is empty.
pub fn probability(probabilities: ArrayView2<'_, f32>) -> Result<RgbImage> {
    let scale = Scale::of(probabilities.dim())?;
    let colors = scale.block_means(probabilities).mapv(|p| if p.is_finite() { color_of(p) } else { NODATA });
    let image = scale.image(&colors);
    let text = text_size(page_width(&image));
    with_strip(&image, text * 4, |page| {
        let (width, height) = page.dim_in_pixel();
        let label = "probability";
        let (label_width, _) = page.estimate_text_size(label, &style(text))?;
        let middle = int(height * 2 / 5);
        write(page, label, text, (int(text), middle), HPos::Left)?;
        let (left, right) = (int(text * 2 + label_width), int(width - text * 2));
        let (top, bottom) = (middle - int(text) / 2, middle + int(text) / 2);
        let length = f64::from(right - left);
        for x in left..=right {
            let [r, g, b] = color_of(single(f64::from(x - left) / length));
            page.draw(&Rectangle::new([(x, top), (x + 1, bottom)], RGBColor(r, g, b).filled()))?;
        }
        for tenth in (0..=10).step_by(2) {
            let x = left + (right - left) * tenth / 10;
            page.draw(&PathElement::new([(x, bottom), (x, bottom + int(text) / 4)], INK))?;
            let number = format!("{:.1}", f64::from(tenth) / 10.0);
            write(page, &number, text * 4 / 5, (x, bottom + int(text) * 7 / 8), HPos::Center)?;
        }
        Ok(())
    })
}

/// The predicted mines over a picture of the scene (one by [`true_colour`]), compared with the true ones if known.
///
/// Found pixels are blue, missed ones yellow, false ones magenta: outlined and lightly tinted. A block of a reduced
/// scene takes the most frequent of the three when they fill a quarter of it, so that a small mine does not vanish.
/// The legend gives the shares of all marked pixels.
///
/// # Errors
///
/// When the masks differ in size, are empty, or are not those of the picture's scene.
pub fn mask_over_image(
    image: &RgbImage,
    predicted: ArrayView2<'_, bool>,
    truth: Option<ArrayView2<'_, bool>>,
) -> Result<RgbImage> {
    let scale = Scale::of(predicted.dim())?;
    let (height, width) = scale.size_out(predicted.dim());
    ensure!(
        image.dimensions() == (px(width), px(height)),
        "the picture has {} rows and {} columns, a mask of {:?} needs {height} and {width}",
        image.height(),
        image.width(),
        predicted.dim()
    );
    let mut marks = Array2::from_elem(predicted.dim(), UNMARKED);
    match truth {
        None => {
            Zip::from(&mut marks)
                .and(predicted)
                .for_each(|mark, &p| *mark = if p { FOUND } else { UNMARKED });
        }
        Some(truth) => {
            ensure!(
                truth.dim() == predicted.dim(),
                "the predicted mask is {:?}, the true one {:?}",
                predicted.dim(),
                truth.dim()
            );
            Zip::from(&mut marks).and(predicted).and(truth).for_each(|mark, &p, &t| {
                *mark = match (p, t) {
                    (true, true) => FOUND,
                    (true, false) => FALSE,
                    (false, true) => MISSED,
                    (false, false) => UNMARKED,
                }
            });
        }
    }
    let mut counts = [0_usize; 4];
    for &mark in &marks {
        counts[usize::from(mark)] += 1;
    }

    let small = scale.block_marks(&marks);
    let mark_at = |row: i64, col: i64| -> u8 {
        let inside = |at: i64, len: usize| {
            usize::try_from(at).ok().map(|at| at / scale.enlarge).filter(|&at| at < len)
        };
        match (inside(row, small.nrows()), inside(col, small.ncols())) {
            (Some(row), Some(col)) => small[[row, col]],
            _ => UNMARKED,
        }
    };
    // The outline lies inside the mark; 2 pixels wide where the picture has room for it.
    let reach = if width.max(height) > 500 { 2 } else { 1 };
    let mut picture = image.clone();
    for (col, row, pixel) in picture.enumerate_pixels_mut() {
        let (row, col) = (i64::from(row), i64::from(col));
        let mark = mark_at(row, col);
        if mark != UNMARKED {
            let edge =
                (-reach..=reach).any(|d| mark_at(row + d, col) != mark || mark_at(row, col + d) != mark);
            let strength = if edge { 0.95 } else { 0.30 };
            *pixel = blend(*pixel, MARK_COLORS[usize::from(mark)], strength);
        }
    }

    let legend = if truth.is_some() {
        let marked = as_f64((counts[1] + counts[2] + counts[3]).max(1));
        [(FOUND, "found"), (MISSED, "missed"), (FALSE, "false")]
            .map(|(mark, name)| {
                let percent = 100.0 * as_f64(counts[usize::from(mark)]) / marked;
                (MARK_COLORS[usize::from(mark)], format!("{name} {percent:.0} %"))
            })
            .to_vec()
    } else {
        vec![(MARK_COLORS[usize::from(FOUND)], "predicted".to_owned())]
    };
    with_legend(&picture, &legend)
}

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

// The marks of `mask_over_image`, and their colours in this order.
const UNMARKED: u8 = 0;
const FOUND: u8 = 1;
const MISSED: u8 = 2;
const FALSE: u8 = 3;
const MARK_COLORS: [[u8; 3]; 4] = [[0; 3], TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE];

/// How a scene becomes a picture: blocks of `reduce` × `reduce` pixels to one, then one pixel to `enlarge` × `enlarge`.
#[derive(Clone, Copy)]
struct Scale {
    reduce: usize,
    enlarge: usize,
}

impl Scale {
    fn of((height, width): (usize, usize)) -> Result<Self> {
        ensure!(height > 0 && width > 0, "a picture needs pixels, the scene has {height} × {width}");
        let longest = height.max(width);
        Ok(Self { reduce: longest.div_ceil(LONGEST_SIDE), enlarge: (SMALL_SIDE / longest).max(1) })
    }

    fn reduced(self, (height, width): (usize, usize)) -> (usize, usize) {
        (height.div_ceil(self.reduce), width.div_ceil(self.reduce))
    }

    fn size_out(self, size: (usize, usize)) -> (usize, usize) {
        let (height, width) = self.reduced(size);
        (height * self.enlarge, width * self.enlarge)
    }

    /// The mean of the finite values of each block, `NaN` when there is none.
    fn block_means(self, values: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut sums = Array2::<(f32, f32)>::default(self.reduced(values.dim()));
        for ((row, col), &value) in values.indexed_iter() {
            if value.is_finite() {
                let (sum, count) = &mut sums[[row / self.reduce, col / self.reduce]];
                *sum += value;
                *count += 1.0;
            }
        }
        sums.mapv(|(sum, count)| sum / count)
    }

    fn block_middles(self, values: ArrayView2<'_, u8>) -> Array2<u8> {
        let (height, width) = values.dim();
        let middle = |block: usize, len: usize| (block * self.reduce + self.reduce / 2).min(len - 1);
        Array2::from_shape_fn(self.reduced((height, width)), |(row, col)| {
            values[[middle(row, height), middle(col, width)]]
        })
    }

    fn block_marks(self, marks: &Array2<u8>) -> Array2<u8> {
        let mut counts = Array2::<[usize; 4]>::default(self.reduced(marks.dim()));
        for ((row, col), &mark) in marks.indexed_iter() {
            counts[[row / self.reduce, col / self.reduce]][usize::from(mark)] += 1;
        }
        counts.mapv(|counts| {
            let pixels: usize = counts.iter().sum();
            let marked = pixels - counts[usize::from(UNMARKED)];
            let most =
                (FOUND..=FALSE).rev().max_by_key(|&mark| counts[usize::from(mark)]).unwrap_or(UNMARKED);
            if marked * 4 >= pixels { most } else { UNMARKED }
        })
    }

    fn image(self, colors: &Array2<[u8; 3]>) -> RgbImage {
        let (height, width) = colors.dim();
        RgbImage::from_fn(px(width * self.enlarge), px(height * self.enlarge), |col, row| {
            Rgb(colors[[row as usize / self.enlarge, col as usize / self.enlarge]])
        })
    }
}

/// The colour of a probability: near black, violet, red, orange, pale yellow.
///
/// A path in `OKLab` on which lightness rises linearly, so that equal steps look equal, also in grey: L 0.13 to
/// 0.95, hue 290° to 460° (through red at 380°), chroma as an arch that stays inside sRGB.
fn color_of(probability: f32) -> [u8; 3] {
    let t = probability.clamp(0.0, 1.0);
    let lightness = 0.13 + 0.82 * t;
    let hue = (290.0 + 170.0 * t).to_radians();
    let chroma = 0.045 + 0.12 * (std::f32::consts::PI * t).sin() + 0.04 * t;
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    // B. Ottosson, "A perceptual color space for image processing" (2020): OKLab to linear sRGB.
    let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    [
        4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
        -1.268_438 * l + 2.609_757_4 * m - 0.341_319_38 * s,
        -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
    ]
    .map(|linear| {
        // IEC 61966-2-1, the sRGB transfer function.
        byte(if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 })
    })
}

/// The `fraction` quantile by selection (nearest rank), `None` of nothing; reorders `values`.
fn percentile(values: &mut [f32], fraction: f64) -> Option<f32> {
    let last = values.len().checked_sub(1)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ≤ fraction ≤ 1")]
    let rank = (as_f64(last) * fraction).round() as usize;
    Some(*values.select_nth_unstable_by(rank.min(last), f32::total_cmp).1)
}

fn blend(Rgb(under): Rgb<u8>, over: [u8; 3], strength: f32) -> Rgb<u8> {
    let mix = |channel: usize| {
        byte((f32::from(under[channel]) * (1.0 - strength) + f32::from(over[channel]) * strength) / 255.0)
    };
    Rgb([mix(0), mix(1), mix(2)])
}

fn page_width(image: &RgbImage) -> u32 {
    image.width().max(NARROWEST_PAGE)
}

fn text_size(page_width: u32) -> u32 {
    (page_width / 52).clamp(16, 28)
}

/// The picture on a page, with colours and their names below it, in as many lines as they need.
fn with_legend(image: &RgbImage, entries: &[([u8; 3], String)]) -> Result<RgbImage> {
    let width = page_width(image);
    let text = text_size(width);
    let (line, square, gap) = (text * 7 / 4, text, text / 2);
    let mut places = Vec::with_capacity(entries.len());
    let (mut x, mut y) = (gap * 2, gap);
    draw((width, 1), |page| {
        for (_, name) in entries {
            let (name_width, _) = page.estimate_text_size(name, &style(text))?;
            let needed = square + gap + name_width;
            if x > gap * 2 && x + needed + gap * 2 > width {
                (x, y) = (gap * 2, y + line);
            }
            places.push((x, y));
            x += needed + gap * 3;
        }
        Ok(())
    })?;
    with_strip(image, y + line + gap, |page| {
        for ((color, name), &(x, y)) in entries.iter().zip(&places) {
            let corners =
                [(int(x), int(y + (line - square) / 2)), (int(x + square), int(y + (line + square) / 2))];
            let [r, g, b] = *color;
            page.draw(&Rectangle::new(corners, RGBColor(r, g, b).filled()))?;
            page.draw(&Rectangle::new(corners, INK))?;
            write(page, name, text, (int(x + square + gap), int(y + line / 2)), HPos::Left)?;
        }
        Ok(())
    })
}

type Page<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// The picture, in the middle of a page as wide as it or as a legend needs, above a strip that `below` draws.
fn with_strip(
    image: &RgbImage,
    height: u32,
    below: impl FnOnce(&Page<'_>) -> Result<()>,
) -> Result<RgbImage> {
    let width = page_width(image);
    let strip = draw((width, height), below)?;
    let mut page = RgbImage::from_pixel(width, image.height() + height, Rgb(PAGE));
    imageops::replace(&mut page, image, i64::from((width - image.width()) / 2), 0);
    imageops::replace(&mut page, &strip, 0, i64::from(image.height()));
    Ok(page)
}

/// A page `(width, height)` that `content` draws on.
fn draw((width, height): (u32, u32), content: impl FnOnce(&Page<'_>) -> Result<()>) -> Result<RgbImage> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // It fails only for a broken font; then the first text says so.
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, font);
    });
    let mut image = RgbImage::from_pixel(width, height, Rgb(PAGE));
    {
        let page = BitMapBackend::with_buffer(&mut image, (width, height)).into_drawing_area();
        content(&page).context("cannot draw the picture")?;
        page.present().map_err(|error| anyhow!("cannot draw the picture: {error}"))?;
    }
    Ok(image)
}

fn style(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Writes with the middle of the small letters at the height of `at`.
fn write(page: &Page<'_>, text: &str, size: u32, (x, y): (i32, i32), horizontal: HPos) -> Result<()> {
    let style = style(size).pos(Pos::new(horizontal, VPos::Center));
    Ok(page.draw_text(text, &style, (x, y + int(size) / 10))?)
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

/// 0..=1 to 0..=255, clipped.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255 before")]
fn byte(level: f32) -> u8 {
    (level * 255.0).round().clamp(0.0, 255.0) as u8
}

fn as_f64(count: usize) -> f64 {
    count as f64
}

#[allow(clippy::cast_possible_truncation, reason = "a fraction between 0 and 1")]
fn single(fraction: f64) -> f32 {
    fraction as f32
}

/// Sizes of pictures are a few thousand pixels.
fn px(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn int(size: u32) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn equal_steps_of_probability_are_equal_steps_of_lightness_inside_srgb() {
        // Back to OKLab's lightness by the inverse of the two matrices (B. Ottosson 2020).
        let lightness = |color: [u8; 3]| {
            let [r, g, b] = color.map(|v| {
                let v = f64::from(v) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            });
            let l = 0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b;
            let m = 0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b;
            let s = 0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b;
            0.210_454_255_3 * l.cbrt() + 0.793_617_785 * m.cbrt() - 0.004_072_046_8 * s.cbrt()
        };
        for step in 0..=100_u8 {
            let t = f64::from(step) / 100.0;
            let found = lightness(color_of(single(t)));
            // A clipped channel or a wrong coefficient would move the lightness; 8-bit rounding moves it by less.
            assert!((found - (0.13 + 0.82 * t)).abs() < 0.012, "lightness {found} at {t}");
        }
    }

    #[test]
    fn block_means_leave_nodata_out_and_edges_are_smaller_blocks() {
        let nan = f32::NAN;
        let values = array![[1.0, 3.0, 5.0], [nan, 2.0, nan], [nan, nan, nan]];
        let means = Scale { reduce: 2, enlarge: 1 }.block_means(values.view());
        assert_eq!(means[[0, 0]], 2.0);
        assert_eq!(means[[0, 1]], 5.0);
        assert!(means[[1, 0]].is_nan() && means[[1, 1]].is_nan());
    }

    #[test]
    fn a_small_mine_survives_the_reduction_and_a_single_pixel_does_not() {
        let mut marks = Array2::from_elem((8, 8), UNMARKED);
        marks[[0, 0]] = FALSE;
        marks.slice_mut(ndarray::s![4..6, 4..6]).fill(MISSED);
        let small = Scale { reduce: 4, enlarge: 1 }.block_marks(&marks);
        assert_eq!(small, array![[UNMARKED, UNMARKED], [UNMARKED, MISSED]]);
    }

    #[test]
    fn pictures_of_one_scene_lie_on_each_other_at_any_size() -> Result<()> {
        for (height, width) in [(1, 1), (30, 50), (801, 20), (1601, 3)] {
            let band = Array2::from_elem((height, width), 0.1_f32);
            let picture = true_colour(band.view(), band.view(), band.view())?;
            let mask = Array2::from_elem((height, width), true);
            let over = mask_over_image(&picture, mask.view(), Some(mask.view()))?;
            assert!(picture.height() <= px(LONGEST_SIDE) && picture.width() <= px(LONGEST_SIDE));
            assert!(over.width() >= picture.width() && over.height() > picture.height());
            assert!(probability(band.view())?.width() == over.width());
            assert!(scl(band.mapv(|_| 4).view())?.width() == over.width());
        }
        Ok(())
    }

    #[test]
    fn nodata_is_grey_and_an_all_nodata_scene_is_drawn_too() -> Result<()> {
        let nothing = Array2::from_elem((900, 900), f32::NAN);
        let picture = true_colour(nothing.view(), nothing.view(), nothing.view())?;
        assert!(picture.pixels().all(|&pixel| pixel == Rgb(NODATA)));
        assert_eq!(*probability(nothing.view())?.get_pixel(5, 5), Rgb(NODATA));
        Ok(())
    }

    #[test]
    fn bad_input_is_an_error_that_says_what_is_wrong() {
        let (a, b) = (Array2::from_elem((2, 3), 0.1_f32), Array2::from_elem((3, 2), 0.1_f32));
        let wrong = true_colour(a.view(), b.view(), a.view()).unwrap_err().to_string();
        assert!(wrong.contains("(2, 3), (3, 2)"), "{wrong}");
        let none = Array2::<f32>::zeros((0, 5));
        let wrong = probability(none.view()).unwrap_err().to_string();
        assert!(wrong.contains("0 × 5"), "{wrong}");
        let diverged = Epoch { epoch: 1, training_loss: f64::NAN, validation_loss: f64::INFINITY };
        let wrong = loss_curve(&[diverged]).unwrap_err().to_string();
        assert!(wrong.contains("no epoch of the 1"), "{wrong}");
        let picture = RgbImage::new(7, 7);
        let wrong = mask_over_image(&picture, a.mapv(|_| true).view(), None).unwrap_err().to_string();
        assert!(wrong.contains("7 rows"), "{wrong}");
    }

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
    fn a_number_that_is_no_class_is_drawn_and_named() -> Result<()> {
        let picture = scl(array![[4, 12]].view())?;
        let magenta = picture.pixels().filter(|pixel| **pixel == Rgb([255, 0, 255]));
        // Half of the scene, and the square in the legend.
        assert!(magenta.count() > 400 * 400, "the unknown class is not to be seen");
        Ok(())
    }

    #[test]
    fn a_saved_picture_is_read_back_equal() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("scl.png");
        let picture = scl(array![[4, 5], [6, 9]].view())?;
        save(&path, &picture)?;
        assert_eq!(image::open(&path)?.into_rgb8(), picture);
        assert!(save(&folder.path().join("missing/scl.png"), &picture).is_err());
        Ok(())
    }

    #[test]
    fn losses_are_written_without_zeros_that_say_nothing() {
        let written = [0.0, 0.2, 0.02, 0.0184, 1.0, 2.345, 100.0, 0.000_012].map(number);
        assert_eq!(written, ["0", "0.2", "0.02", "0.0184", "1", "2.35", "100", "1.2e-5"]);
    }
}
