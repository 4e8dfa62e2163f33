//! The page that pictures lie on: paper, ink, text and legends, with a font from inside the program.

use std::sync::Once;

use anyhow::{Context, Result, anyhow};
use image::{Rgb, RgbImage, imageops};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A page is at least so wide, that a legend has room, in pixels.
const NARROWEST_PAGE: u32 = 560;

pub(super) const PAGE: [u8; 3] = [246, 246, 248];
pub(super) const INK: RGBColor = RGBColor(40, 40, 46);
pub(super) const FAINT: RGBColor = RGBColor(226, 226, 230);

pub(super) fn page_width(image: &RgbImage) -> u32 {
    image.width().max(NARROWEST_PAGE)
}

pub(super) fn text_size(page_width: u32) -> u32 {
    (page_width / 52).clamp(16, 28)
}

/// The picture on a page, with colours and their names below it, in as many lines as they need.
pub(super) fn with_legend(image: &RgbImage, entries: &[([u8; 3], String)]) -> Result<RgbImage> {
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

pub(super) type Page<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// The picture, in the middle of a page as wide as it or as a legend needs, above a strip that `below` draws.
pub(super) fn with_strip(
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
pub(super) fn draw(
    (width, height): (u32, u32),
    content: impl FnOnce(&Page<'_>) -> Result<()>,
) -> Result<RgbImage> {
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

pub(super) fn style(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Writes with the middle of the small letters at the height of `at`.
pub(super) fn write(
    page: &Page<'_>,
    text: &str,
    size: u32,
    (x, y): (i32, i32),
    horizontal: HPos,
) -> Result<()> {
    let style = style(size).pos(Pos::new(horizontal, VPos::Center));
    Ok(page.draw_text(text, &style, (x, y + int(size) / 10))?)
}

pub(super) fn as_f64(count: usize) -> f64 {
    count as f64
}

pub(super) fn int(size: u32) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}
