//! Decoding of one tile by `hayro-jpeg2000`: what our own decoder leaves to it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use crate::boxes::be;
use crate::codestream::{Codestream, marker, unsupported};
use crate::rect::Rect;
use crate::tile::{Request, Samples};
use crate::{Error, Result};

/// Images have colour and transparency at most: more it does not tell apart.
const MAX_COMPONENTS: usize = 4;

/// Decodes a part of a tile as [`tile::decode`](crate::tile::decode) does, though always the whole tile for it.
///
/// The decoder works in `f32`, which is exact for the reversible transform: a sample of up to 16 bits grows by a few
/// bits in it and stays far below 2²⁴.
pub(crate) fn decode(codestream: &Codestream<'_>, request: &Request) -> Result<Vec<Samples>> {
    let tile = request.tile;
    if codestream.size.components.iter().any(|component| component.signed) {
        return Err(unsupported("signed samples coded in a rare style"));
    }
    if codestream.size.components.len() > MAX_COMPONENTS {
        return Err(unsupported("more than 4 components coded in a rare style"));
    }
    // It counts layers in the bits of a word.
    let coding = codestream.header.iter().filter(|segment| segment.bytes[1] == marker::COD);
    if coding.into_iter().any(|segment| be(&segment.bytes[6..8]) > 32) {
        return Err(unsupported("more than 32 quality layers coded in a rare style"));
    }
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Tile {
        tile,
        offset: codestream.tile_offset(tile),
        source,
    };
    let stream = one_tile(codestream, tile)?;
    let whole = codestream.size.tile_rect(tile);
    let need = request.need;
    let (top, left) = ((need.y0 - whole.y0) as usize, (need.x0 - whole.x0) as usize);
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
        let components = decoded.components().iter().zip(&codestream.size.components);
        components
            .map(|(decoded, component)| {
                if decoded.samples().len() != whole.width() * whole.height() {
                    return Err(failed("wrong number of samples".into()));
                }
                #[expect(clippy::cast_precision_loss, reason = "a power of two")]
                let shift = component.level_shift() as f32;
                let rows = decoded.samples().chunks_exact(whole.width()).skip(top).take(need.height());
                let part = rows.flat_map(|row| row[left..][..need.width()].iter().map(|value| value - shift));
                Ok(Samples::Irreversible(part.collect()))
            })
            .collect()
    }))
    .unwrap_or_else(|_| Err(failed("the decoder panicked".into())))
}

/// A codestream of its own that holds one tile, at its place on the reference grid: precincts and code-blocks
/// are anchored there, so the tile decodes as it does in the whole image.
fn one_tile(codestream: &Codestream<'_>, tile: usize) -> Result<Vec<u8>> {
    let Rect { x0, y0, x1, y1 } = codestream.size.tile_rect(tile);
    let mut out = vec![0xff, marker::SOC];
    let siz = out.len();
    for segment in &codestream.header {
        out.extend_from_slice(&segment.bytes);
    }
    // Image and tile both begin at the tile's first pixel. Positions of the fields: Table A.9, after the marker.
    for (at, value) in [(6, x1), (10, y1), (14, x0), (18, y0), (30, x0), (34, y0)] {
        out[siz + at..siz + at + 4].copy_from_slice(&value.to_be_bytes());
    }
    for part in &codestream.parts[tile] {
        let sot = out.len();
        let bytes = codestream.data.get(part.start..part.body.end)?.unwrap_or_default();
        out.extend_from_slice(&bytes);
        // Table A.5: tile number 0, and a length also where the last tile-part leaves it open. Lengths come
        // from 32-bit fields or from the end of the data, which the decoder finds by itself.
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        out[sot + 4..sot + 6].fill(0);
        out[sot + 6..sot + 10].copy_from_slice(&length.to_be_bytes());
    }
    out.extend([0xff, marker::EOC]);
    Ok(out)
}
