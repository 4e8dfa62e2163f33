//! Decoding of one tile, by `hayro-jpeg2000`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use crate::codestream::Codestream;
use crate::{Error, Result};

/// Decodes a tile and hands each component's samples to `take`: row by row, level-shifted, neither rounded nor
/// clamped.
///
/// The decoder works in `f32`, which is exact for the reversible transform: a sample of up to 16 bits grows by a few
/// bits in it and stays far below 2²⁴.
pub(crate) fn decode(
    codestream: &Codestream<'_>,
    tile: usize,
    mut take: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Tile {
        tile,
        offset: codestream.tile_offset(tile),
        source,
    };
    let stream = codestream.one_tile(tile);
    let (x, y) = codestream.size.tile(tile);
    let expected = x.len() * y.len();
    let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    // The decoder indexes without a way to fail. None of the mutated files of the tests makes it panic, yet that is no
    // proof, and a panic would end the caller's whole pool. Nothing of ours is shared with it, so nothing is left
    // broken behind.
    catch_unwind(AssertUnwindSafe(|| {
        let image = Image::new(&stream, &settings).map_err(|e| failed(Box::new(e)))?;
        let mut context = DecoderContext::default();
        let decoded = image.decode(&mut context).map_err(|e| failed(Box::new(e)))?;
        if decoded.components().len() != codestream.size.components.len() {
            return Err(failed("wrong number of components".into()));
        }
        for (index, component) in decoded.components().iter().enumerate() {
            if component.samples().len() != expected {
                return Err(failed("wrong number of samples".into()));
            }
            take(index, component.samples());
        }
        Ok(())
    }))
    .unwrap_or_else(|_| Err(failed("the decoder panicked".into())))
}
