//! Decoding of one tile, or of what a window needs of it.

use rayon::prelude::*;

use crate::codestream::Codestream;
use crate::coding::Coding;
use crate::packet::{CodeBlock, Resolution, SubBand, TileComponent, read_packets};
use crate::rect::Rect;
use crate::tier1::{Block, Tier1};
use crate::wavelet::{Coefficient, synthesise};
use crate::{Error, Result};

/// Coefficients that a thread decodes before it looks for other work: a code-block of the usual size.
const GRAIN: usize = 4096;

/// The part of a tile that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) tile: usize,
    /// How often width and height are halved.
    pub(crate) reduce: u32,
    /// What of the reduced tile.
    pub(crate) need: Rect,
    /// Code-blocks are decoded in the current rayon pool.
    pub(crate) parallel: bool,
}

/// Decoded samples of a component, row by row, neither level-shifted nor clamped.
pub(crate) enum Samples {
    Reversible(Vec<i32>),
    Irreversible(Vec<f32>),
}

/// Memory that one tile leaves to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    tier1: Tier1,
    reversible: Vec<Vec<i32>>,
    irreversible: Vec<Vec<f32>>,
}

impl Scratch {
    /// Takes back the samples of a tile.
    pub(crate) fn recycle(&mut self, samples: Vec<Samples>) {
        for samples in samples {
            match samples {
                Samples::Reversible(samples) => self.reversible.push(samples),
                Samples::Irreversible(samples) => self.irreversible.push(samples),
            }
        }
    }
}

/// Decodes a part of a tile: the samples of each component. What is wrong with its packets is an error, or goes into
/// `damage` where that is given: then everything before it is decoded.
pub(crate) fn decode(
    codestream: &Codestream<'_>,
    request: &Request,
    scratch: &mut Scratch,
    damage: Option<&mut Vec<Error>>,
) -> Result<Vec<Samples>> {
    let index = request.tile;
    let data = codestream.tile_data(index)?;
    if data.is_empty() {
        let source = "there are no data of it".into();
        return Err(Error::Tile { tile: index, offset: codestream.tile_offset(index), source });
    }
    let coding = Coding::of(codestream, index)?;
    if let Some(found) = coding.components.iter().map(|c| c.levels).find(|&levels| levels < request.reduce) {
        return Err(Error::Reduction { wanted: request.reduce, levels: found });
    }
    let tile = codestream.size.tile_rect(index);
    let mut components: Vec<_> = coding
        .components
        .iter()
        .zip(&codestream.size.components)
        .map(|(coding, component)| TileComponent::new(&tile, coding, component.bits))
        .collect();
    if let Err(wrong) = read_packets(&mut components, &coding, request.reduce, &data) {
        let offset = codestream.tile_offset(index);
        let source = format!("{} (byte {} of its packets)", wrong.what, wrong.at).into();
        let error = Error::Tile { tile: index, offset, source };
        match damage {
            Some(damage) => damage.push(error),
            None => return Err(error),
        }
    }

    let mut samples: Vec<_> = components
        .iter()
        .zip(&coding.components)
        .map(|(component, coding)| {
            let resolutions = &component.resolutions[..=(coding.levels - request.reduce) as usize];
            let work = Work {
                data: &data,
                parallel: request.parallel,
                reset_contexts: coding.reset_contexts,
                segmentation_symbols: coding.segmentation_symbols,
            };
            if coding.reversible {
                let Scratch { tier1, reversible, .. } = scratch;
                Samples::Reversible(work.component(resolutions, &request.need, tier1, reversible))
            } else {
                let Scratch { tier1, irreversible, .. } = scratch;
                Samples::Irreversible(work.component(resolutions, &request.need, tier1, irreversible))
            }
        })
        .collect();
    if coding.colour_transform
        && let [y, cb, cr, ..] = &mut samples[..]
    {
        undo_colour_transform(y, cb, cr);
    }
    Ok(samples)
}

/// What the code-blocks of a tile-component share.
struct Work<'a> {
    data: &'a [u8],
    parallel: bool,
    reset_contexts: bool,
    segmentation_symbols: bool,
}

/// What one resolution takes part in.
struct Plane<C> {
    /// The part of the resolution that is wanted, and with the samples around it that it depends on.
    wanted: Rect,
    rect: Rect,
    /// The sub-bands of `rect` side by side: LL and HL above LH and HH. The lowest resolution has LL only.
    coefficients: Vec<C>,
}

impl<C: Coefficient> Plane<C> {
    /// The part of a sub-band in this plane, and where its first sample lies.
    fn quadrant(&self, orientation: u8, lowest: bool) -> (Rect, usize) {
        if lowest {
            return (self.rect, 0);
        }
        let (high_x, high_y) = (orientation & 1 != 0, orientation & 2 != 0);
        let low = self.rect.sub_band(false, false);
        let col = if high_x { low.width() } else { 0 };
        let row = if high_y { low.height() } else { 0 };
        (self.rect.sub_band(high_x, high_y), row * self.rect.width() + col)
    }

    /// Copies what a code-block shares with this plane.
    fn place(&mut self, job: &Job<'_>, coefficients: &[C]) {
        let (block, stride) = (&job.block.rect, self.rect.width());
        let shared = block.intersect(&job.part);
        let (top, left) = ((shared.y0 - block.y0) as usize, (shared.x0 - block.x0) as usize);
        let first =
            job.origin + (shared.y0 - job.part.y0) as usize * stride + (shared.x0 - job.part.x0) as usize;
        let rows = coefficients.chunks_exact(block.width()).skip(top).take(shared.height());
        for (target, row) in self.coefficients[first..].chunks_mut(stride).zip(rows) {
            target[..shared.width()].copy_from_slice(&row[left..][..shared.width()]);
        }
    }
}

/// A code-block to decode, and where it goes.
struct Job<'a> {
    level: usize,
    band: &'a SubBand,
    block: &'a CodeBlock,
    /// The part of the sub-band that the plane of its level has, and where that begins.
    part: Rect,
    origin: usize,
}

impl Work<'_> {
    /// The samples of `need` of the last of these resolutions.
    fn component<C: Coefficient>(
        &self,
        resolutions: &[Resolution],
        need: &Rect,
        tier1: &mut Tier1,
        free: &mut Vec<Vec<C>>,
    ) -> Vec<C> {
        let mut planes = Vec::with_capacity(resolutions.len());
        let mut wanted = *need;
        for (level, resolution) in resolutions.iter().enumerate().rev() {
            let margin = if level == 0 { 0 } else { u32::from(C::STEPS) };
            let rect = wanted.grow(margin, &resolution.rect);
            let mut coefficients = take_largest(free);
            coefficients.resize(rect.width() * rect.height(), C::default());
            planes.push(Plane { wanted, rect, coefficients });
            wanted = rect.sub_band(false, false);
        }
        planes.reverse();
        self.code_blocks(resolutions, &mut planes, tier1);

        let mut planes = planes.into_iter();
        let mut samples = planes.next().map_or_else(Vec::new, |lowest| lowest.coefficients);
        for Plane { wanted, rect, mut coefficients } in planes {
            let low = rect.sub_band(false, false).width().max(1);
            for (target, row) in coefficients.chunks_mut(rect.width().max(1)).zip(samples.chunks_exact(low)) {
                target[..low].copy_from_slice(row);
            }
            free.push(samples);
            samples = take_largest(free);
            samples.reserve_exact(wanted.width() * wanted.height());
            let (top, left) = ((wanted.y0 - rect.y0) as usize, (wanted.x0 - rect.x0) as usize);
            synthesise(&rect, &mut coefficients, |row, line| {
                if (top..top + wanted.height()).contains(&row) {
                    samples.extend_from_slice(&line[left..][..wanted.width()]);
                }
            });
            free.push(coefficients);
        }
        samples
    }

    /// Decodes the code-blocks that these planes need.
    fn code_blocks<C: Coefficient>(
        &self,
        resolutions: &[Resolution],
        planes: &mut [Plane<C>],
        tier1: &mut Tier1,
    ) {
        let mut jobs = Vec::new();
        for (level, (resolution, plane)) in resolutions.iter().zip(&*planes).enumerate() {
            for band in &resolution.bands {
                let (part, origin) = plane.quadrant(band.orientation, level == 0);
                let needed =
                    band.blocks.iter().filter(|b| b.passes > 0 && !b.rect.intersect(&part).is_empty());
                jobs.extend(needed.map(|block| Job { level, band, block, part, origin }));
            }
        }
        if !self.parallel {
            let mut coefficients = Vec::with_capacity(GRAIN);
            for job in &jobs {
                coefficients.clear();
                self.code_block(tier1, job, &mut coefficients);
                planes[job.level].place(job, &coefficients);
            }
            return;
        }
        let mut samples = 0;
        let chunks: Vec<_> = jobs
            .chunk_by(|a, _| {
                samples += a.block.rect.width() * a.block.rect.height();
                samples < GRAIN || std::mem::take(&mut samples) == 0
            })
            .collect();
        let decoded: Vec<_> = chunks
            .into_par_iter()
            .map_init(Tier1::default, |tier1, jobs| {
                let mut coefficients = Vec::with_capacity(2 * GRAIN);
                jobs.iter().for_each(|job| self.code_block(tier1, job, &mut coefficients));
                (jobs, coefficients)
            })
            .collect();
        for (jobs, coefficients) in decoded {
            let mut rest = &coefficients[..];
            for job in jobs {
                let (block, others) = rest.split_at(job.block.rect.width() * job.block.rect.height());
                planes[job.level].place(job, block);
                rest = others;
            }
        }
    }

    /// Decodes a code-block and appends its coefficients.
    fn code_block<C: Coefficient>(&self, tier1: &mut Tier1, job: &Job<'_>, out: &mut Vec<C>) {
        let block = Block {
            width: job.block.rect.width(),
            height: job.block.rect.height(),
            orientation: job.band.orientation,
            planes: job.band.planes - job.block.zero_planes,
            passes: job.block.passes,
            reset_contexts: self.reset_contexts,
            segmentation_symbols: self.segmentation_symbols,
        };
        tier1.decode(&job.block.segment(self.data), &block);
        tier1.append(&block, job.band.step, out);
    }
}

/// The largest vector of memory that is free, emptied.
fn take_largest<C>(free: &mut Vec<Vec<C>>) -> Vec<C> {
    let largest = (0..free.len()).max_by_key(|&index| free[index].capacity());
    let mut taken = largest.map_or_else(Vec::new, |index| free.swap_remove(index));
    taken.clear();
    taken
}

/// The inverse colour transforms (G.2.2 and G.3.2), in place.
fn undo_colour_transform(y: &mut Samples, cb: &mut Samples, cr: &mut Samples) {
    match (y, cb, cr) {
        (Samples::Reversible(y), Samples::Reversible(cb), Samples::Reversible(cr)) => {
            for ((y, cb), cr) in y.iter_mut().zip(cb).zip(cr) {
                let green = y.wrapping_sub(cb.wrapping_add(*cr) >> 2);
                (*y, *cb, *cr) = (cr.wrapping_add(green), green, cb.wrapping_add(green));
            }
        }
        (Samples::Irreversible(y), Samples::Irreversible(cb), Samples::Irreversible(cr)) => {
            for ((y, cb), cr) in y.iter_mut().zip(cb).zip(cr) {
                let green = *y - 0.344_13 * *cb - 0.714_14 * *cr;
                (*y, *cb, *cr) = (*y + 1.402 * *cr, green, *y + 1.772 * *cb);
            }
        }
        // `Coding` refuses a mixture.
        _ => {}
    }
}
