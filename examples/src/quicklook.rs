//! Quick-looks: pictures of a scene, its classes, its map and its training, for people to look at.
//!
//! Every function takes views `[row, col]` and gives an [`RgbImage`], which [`save`] writes. A scene longer than
//! [`LONGEST_SIDE`] is reduced by whole blocks, a very small one is enlarged by whole pixels, and both are on one
//! scale, so that the pictures of a scene lie on each other. Text is drawn with a font from inside the program.

use std::io;
use std::path::Path;

use anyhow::{Result, ensure};
use image::{ImageFormat, Rgb, RgbImage};
use ndarray::{Array2, ArrayView2, Zip};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use s2_io::write_atomic;
use s2_scl::SceneClass;

pub use self::loss_curve::loss_curve;
use self::page::{INK, as_f64, int, page_width, style, text_size, with_legend, with_strip, write};

mod loss_curve;
mod page;

/// No picture of a scene has a longer side, in pixels (the strip with the legend comes on top of it).
pub const LONGEST_SIDE: usize = 1600;
/// Scenes with a shorter longest side are enlarged by whole pixels, as far as this side allows.
const SMALL_SIDE: usize = 800;
const NODATA: [u8; 3] = [58, 58, 62];
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

/// 0..=1 to 0..=255, clipped.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255 before")]
fn byte(level: f32) -> u8 {
    (level * 255.0).round().clamp(0.0, 255.0) as u8
}

#[allow(clippy::cast_possible_truncation, reason = "a fraction between 0 and 1")]
fn single(fraction: f64) -> f32 {
    fraction as f32
}

/// Sizes of pictures are a few thousand pixels.
fn px(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
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
        let picture = RgbImage::new(7, 7);
        let wrong = mask_over_image(&picture, a.mapv(|_| true).view(), None).unwrap_err().to_string();
        assert!(wrong.contains("7 rows"), "{wrong}");
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
}
