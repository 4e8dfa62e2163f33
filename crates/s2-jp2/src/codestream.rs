//! The markers of a codestream (ISO/IEC 15444-1 Annex A): image and tile sizes, and where the data of each tile lie.

use std::borrow::Cow;
use std::ops::Range;

use crate::boxes::be;
use crate::rect::Rect;
use crate::source::Data;
use crate::{Component, Error, Limits, Result};

/// Marker codes (Table A.2), without their leading 0xff.
pub(crate) mod marker {
    pub(crate) const SOC: u8 = 0x4f;
    pub(crate) const CAP: u8 = 0x50;
    pub(crate) const SIZ: u8 = 0x51;
    pub(crate) const COD: u8 = 0x52;
    pub(crate) const COC: u8 = 0x53;
    pub(crate) const TLM: u8 = 0x55;
    pub(crate) const PLM: u8 = 0x57;
    pub(crate) const PLT: u8 = 0x58;
    pub(crate) const QCD: u8 = 0x5c;
    pub(crate) const QCC: u8 = 0x5d;
    pub(crate) const RGN: u8 = 0x5e;
    pub(crate) const POC: u8 = 0x5f;
    pub(crate) const PPM: u8 = 0x60;
    pub(crate) const PPT: u8 = 0x61;
    pub(crate) const CRG: u8 = 0x63;
    pub(crate) const COM: u8 = 0x64;
    pub(crate) const SOT: u8 = 0x90;
    pub(crate) const SOD: u8 = 0x93;
    pub(crate) const EOC: u8 = 0xd9;
}

/// Image and tile sizes (A.5.1). Positions are those of the reference grid.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) x: Range<u32>,
    pub(crate) y: Range<u32>,
    pub(crate) tile_x0: u32,
    pub(crate) tile_y0: u32,
    pub(crate) tile_width: u32,
    pub(crate) tile_height: u32,
    pub(crate) components: Vec<Component>,
}

/// A marker segment, with its marker.
pub(crate) struct Segment<'a> {
    pub(crate) offset: usize,
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// A tile-part: where it begins, the segments of its header that decoding needs, and where its packets lie.
pub(crate) struct TilePart<'a> {
    pub(crate) start: usize,
    pub(crate) segments: Vec<Segment<'a>>,
    pub(crate) body: Range<usize>,
}

/// The index of a codestream: header segments that decoding needs, and the tile-parts of each tile.
pub(crate) struct Codestream<'a> {
    pub(crate) data: Data<'a>,
    pub(crate) size: Size,
    /// The marker segments of the main header, SIZ first.
    pub(crate) header: Vec<Segment<'a>>,
    pub(crate) parts: Vec<Vec<TilePart<'a>>>,
    /// Decomposition levels that all components have, as the main header says.
    pub(crate) levels: u32,
}

impl<'a> Codestream<'a> {
    /// Reads all headers of the codestream at `range` of `data` and checks that every tile-part lies inside.
    ///
    /// What is wrong after the main header is an error, or goes into `damage` where that is given: then the tile-parts
    /// that are there are kept, also the beginning of one.
    pub(crate) fn parse(
        data: Data<'a>,
        range: Range<usize>,
        limits: &Limits,
        mut damage: Option<&mut Vec<Error>>,
    ) -> Result<Self> {
        let end = range.end.min(data.len());
        let mut walk = Walk { data, end, at: range.start, tiles: Vec::new() };
        walk.expect(marker::SOC)?;
        walk.expect(marker::SIZ)?;
        let siz = walk.segment()?;
        let siz_offset = siz.offset;
        let size = size(&siz, limits)?;
        walk.tiles = (0..size.tile_count()).map(|_| Tile::default()).collect();

        let mut style = Style { size: &size, limits, layers: 1, levels: u32::MAX };
        let mut header = vec![siz];
        let (mut has_cod, mut has_qcd) = (false, false);
        loop {
            let offset = walk.at;
            match walk.marker()? {
                marker::SOT => {
                    walk.at = offset;
                    break;
                }
                code @ (marker::COD | marker::COC) => {
                    let segment = walk.segment()?;
                    style.check(code, &segment)?;
                    has_cod |= code == marker::COD;
                    header.push(segment);
                }
                code @ (marker::QCD | marker::QCC | marker::RGN | marker::POC) => {
                    header.push(walk.segment()?);
                    has_qcd |= code == marker::QCD;
                }
                // Lengths of tile-parts and packets, offsets of components and comments are not needed.
                marker::TLM | marker::PLM | marker::CRG | marker::COM => {
                    walk.skip_segment()?;
                }
                0x30..=0x3f => {}
                marker::CAP => return Err(unsupported("high-throughput JPEG 2000 (CAP marker)")),
                marker::PPM => return Err(unsupported("packet headers in the main header (PPM marker)")),
                code => return Err(unexpected(offset, code, "the main header")),
            }
        }
        for (has, name) in [(has_cod, "COD"), (has_qcd, "QCD")] {
            if !has {
                return Err(damaged(siz_offset, format!("a main header without {name} marker")));
            }
        }
        loop {
            let start = walk.at;
            match (walk.tile_part(&style, damage.is_some()), &mut damage) {
                (Ok(true), _) => {}
                (Ok(false), _) => break,
                (Err(error), None) => return Err(error),
                (Err(error), Some(damage)) => {
                    damage.push(error);
                    // No data of a tile look like this (B.10.1, C.2.2).
                    let Some(next) = find(data, start + 1..end, [0xff, marker::SOT, 0, 10])? else { break };
                    walk.at = next;
                }
            }
        }
        let missing = if range.end > data.len() { Some(walk.truncated()) } else { walk.incomplete() };
        match (missing, damage) {
            (None, _) => {}
            (Some(error), None) => return Err(error),
            // It may be the consequence of what is already there.
            (Some(error), Some(damage)) => damage.extend(damage.is_empty().then_some(error)),
        }
        let parts = walk.tiles.into_iter().map(|tile| tile.parts).collect();
        let levels = style.levels;
        Ok(Self { data, size, header, parts, levels })
    }

    /// Where the first tile-part of a tile begins.
    pub(crate) fn tile_offset(&self, tile: usize) -> usize {
        self.parts[tile].first().map_or(0, |part| part.start)
    }

    /// The marker segments in the headers of a tile.
    pub(crate) fn tile_segments(&self, tile: usize) -> impl Iterator<Item = &Segment<'a>> {
        self.parts[tile].iter().flat_map(|part| &part.segments)
    }

    /// The packets of a tile.
    pub(crate) fn tile_data(&self, tile: usize) -> Result<Cow<'a, [u8]>> {
        let body = |part: &TilePart<'a>| Ok(self.data.get(part.body.clone())?.unwrap_or_default());
        match &self.parts[tile][..] {
            [part] => body(part),
            parts => {
                let bodies = parts.iter().map(body).collect::<Result<Vec<_>>>()?;
                Ok(Cow::Owned(bodies.concat()))
            }
        }
    }
}

/// Where these bytes begin first.
fn find(data: Data<'_>, range: Range<usize>, bytes: [u8; 4]) -> Result<Option<usize>> {
    const STEP: usize = 1 << 20;
    for start in range.clone().step_by(STEP) {
        // The last ones may begin in this step and end in the next.
        let part = data.get(start..(start + STEP + bytes.len() - 1).min(range.end))?.unwrap_or_default();
        if let Some(found) = part.windows(bytes.len()).position(|window| window == bytes) {
            return Ok(Some(start + found));
        }
    }
    Ok(None)
}

impl Size {
    pub(crate) fn height(&self) -> u32 {
        self.y.end - self.y.start
    }

    pub(crate) fn width(&self) -> u32 {
        self.x.end - self.x.start
    }

    pub(crate) fn tile_cols(&self) -> usize {
        (self.x.end - self.tile_x0).div_ceil(self.tile_width) as usize
    }

    pub(crate) fn tile_rows(&self) -> usize {
        (self.y.end - self.tile_y0).div_ceil(self.tile_height) as usize
    }

    fn tile_count(&self) -> usize {
        self.tile_rows() * self.tile_cols()
    }

    /// The image on the reference grid.
    pub(crate) fn rect(&self) -> Rect {
        Rect { x0: self.x.start, y0: self.y.start, x1: self.x.end, y1: self.y.end }
    }

    /// A tile on the reference grid (B-7 to B-10).
    pub(crate) fn tile_rect(&self, tile: usize) -> Rect {
        let span = |index: usize, origin: u32, length: u32, image: &Range<u32>| {
            let start = u64::from(origin) + index as u64 * u64::from(length);
            let clip = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).clamp(image.start, image.end);
            clip(start)..clip(start + u64::from(length))
        };
        let (row, col) = (tile / self.tile_cols(), tile % self.tile_cols());
        let x = span(col, self.tile_x0, self.tile_width, &self.x);
        let y = span(row, self.tile_y0, self.tile_height, &self.y);
        Rect { x0: x.start, y0: y.start, x1: x.end, y1: y.end }
    }
}

/// The tile-parts of a tile found so far.
#[derive(Default)]
struct Tile<'a> {
    parts: Vec<TilePart<'a>>,
    /// How many there should be, once a tile-part says so.
    expected: Option<usize>,
}

impl Tile<'_> {
    fn is_whole(&self) -> bool {
        !self.parts.is_empty() && self.expected.is_none_or(|expected| self.parts.len() == expected)
    }
}

/// A walk along the markers of a codestream.
struct Walk<'a> {
    data: Data<'a>,
    end: usize,
    at: usize,
    tiles: Vec<Tile<'a>>,
}

impl<'a> Walk<'a> {
    fn truncated(&self) -> Error {
        let whole_tiles = self.tiles.iter().filter(|tile| tile.is_whole()).count();
        Error::Truncated { offset: self.end, whole_tiles, tiles: self.tiles.len() }
    }

    fn skip(&mut self, length: usize) -> Result<Range<usize>> {
        let end =
            self.at.checked_add(length).filter(|&end| end <= self.end).ok_or_else(|| self.truncated())?;
        Ok(std::mem::replace(&mut self.at, end)..end)
    }

    fn take(&mut self, length: usize) -> Result<Cow<'a, [u8]>> {
        let range = self.skip(length)?;
        self.data.get(range)?.ok_or_else(|| self.truncated())
    }

    fn marker(&mut self) -> Result<u8> {
        match self.take(2)?.as_ref() {
            &[0xff, code] => Ok(code),
            other => Err(damaged(self.at - 2, format!("{other:02x?} where a marker should be"))),
        }
    }

    fn expect(&mut self, code: u8) -> Result<()> {
        let offset = self.at;
        match self.marker()? {
            found if found == code => Ok(()),
            found => Err(damaged(offset, format!("marker ff{found:02x} where ff{code:02x} should be"))),
        }
    }

    /// The segment of the marker just read, with its marker.
    fn segment(&mut self) -> Result<Segment<'a>> {
        let range = self.skip_segment()?;
        let bytes = self.data.get(range.clone())?.ok_or_else(|| self.truncated())?;
        Ok(Segment { offset: range.start, bytes })
    }

    /// Where the segment of the marker just read lies.
    fn skip_segment(&mut self) -> Result<Range<usize>> {
        let start = self.at - 2;
        let length = usize::try_from(be(&self.take(2)?)).unwrap_or(0);
        let body = length.checked_sub(2);
        self.skip(body.ok_or_else(|| damaged(start, format!("a marker segment of {length} bytes")))?)?;
        Ok(start..self.at)
    }

    /// Reads the headers of a tile-part (A.4.2) and goes to its end; false at the end of the codestream. A tile-part
    /// that is cut off is an error, though `keep_beginning` remembers what is there of it.
    fn tile_part(&mut self, style: &Style<'_>, keep_beginning: bool) -> Result<bool> {
        let start = self.at;
        match self.marker()? {
            marker::SOT => {}
            marker::EOC => return Ok(false),
            code => return Err(unexpected(start, code, "the row of tile-parts")),
        }
        let sot = self.segment()?;
        let Some((&[i0, i1, l0, l1, l2, l3, part, parts], [])) = sot.bytes[4..].split_first_chunk() else {
            return Err(damaged(start, "a SOT marker of the wrong length"));
        };
        let index = usize::from(u16::from_be_bytes([i0, i1]));
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        // A.4.2: length 0 means that the tile-part reaches to the end of the codestream.
        let end = match usize::try_from(length).unwrap_or(usize::MAX) {
            0 => self.end.checked_sub(2).filter(|&end| end >= self.at).ok_or_else(|| self.truncated())?,
            length => start.saturating_add(length),
        };
        let Some(tile) = self.tiles.get(index) else {
            return Err(damaged(start, format!("tile {index} of {}", self.tiles.len())));
        };
        if usize::from(part) != tile.parts.len() {
            let expected = tile.parts.len();
            return Err(damaged(
                start,
                format!("tile-part {part} of tile {index} where {expected} should be"),
            ));
        }
        if end < self.at {
            return Err(damaged(start, format!("a tile-part of {length} bytes")));
        }
        let codestream_end = self.end;
        if end > codestream_end {
            let error = self.truncated();
            if keep_beginning && let Ok(part) = self.tile_part_headers(style, start) {
                self.tiles[index].parts.push(part);
            }
            return Err(error);
        }
        self.end = end;
        let part = self.tile_part_headers(style, start);
        self.end = codestream_end;
        let mut part = part?;
        if length == 0 && self.data.get(end..self.end)?.is_none_or(|eoc| *eoc != [0xff, marker::EOC]) {
            let error = self.truncated();
            if keep_beginning {
                part.body.end = self.end;
                self.tiles[index].parts.push(part);
            }
            return Err(error);
        }
        self.at = end;
        let tile = &mut self.tiles[index];
        tile.parts.push(part);
        if parts > 0 {
            tile.expected = Some(usize::from(parts));
        }
        Ok(true)
    }

    /// Reads the marker segments of a tile-part up to its data. `self.end` is the end of the tile-part.
    fn tile_part_headers(&mut self, style: &Style<'_>, start: usize) -> Result<TilePart<'a>> {
        let leaves = |offset: usize| {
            move |error| match error {
                Error::Read { .. } => error,
                _ => damaged(offset, "a segment that leaves its tile-part"),
            }
        };
        let mut segments = Vec::new();
        loop {
            let offset = self.at;
            if offset + 2 > self.end {
                return Err(damaged(start, "a tile-part without data (SOD marker)"));
            }
            match self.marker()? {
                marker::SOD => return Ok(TilePart { start, segments, body: self.at..self.end }),
                code @ (marker::COD | marker::COC) => {
                    let segment = self.segment().map_err(leaves(offset))?;
                    style.check_tile(code, &segment)?;
                    segments.push(segment);
                }
                marker::PPT => {
                    return Err(unsupported("packet headers in tile-part headers (PPT marker)"));
                }
                marker::QCD | marker::QCC | marker::RGN | marker::POC => {
                    segments.push(self.segment().map_err(leaves(offset))?);
                }
                marker::PLT | marker::COM => {
                    self.skip_segment().map_err(leaves(offset))?;
                }
                0x30..=0x3f => {}
                code => return Err(unexpected(offset, code, "a tile-part header")),
            }
        }
    }

    /// A tile that does not have all of its tile-parts.
    fn incomplete(&self) -> Option<Error> {
        let tile = self.tiles.iter().position(|tile| !tile.is_whole())?;
        let (found, expected) = (self.tiles[tile].parts.len(), self.tiles[tile].expected.unwrap_or(1));
        Some(damaged(self.at, format!("the end, but tile {tile} has {found} of {expected} tile-parts")))
    }
}

fn size(siz: &Segment<'_>, limits: &Limits) -> Result<Size> {
    let bytes = &siz.bytes[..];
    let wrong = |what: &str| damaged(siz.offset, format!("a SIZ marker with {what}"));
    let field = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::try_from(be(b)).unwrap_or(0));
    let count = bytes.get(38..40).map_or(0, |b| usize::try_from(be(b)).unwrap_or(0));
    if count == 0 || bytes.len() != 40 + 3 * count {
        return Err(wrong("the wrong length"));
    }
    let size = Size {
        x: field(14)..field(6),
        y: field(18)..field(10),
        tile_x0: field(30),
        tile_y0: field(34),
        tile_width: field(22),
        tile_height: field(26),
        components: bytes[40..]
            .as_chunks::<3>()
            .0
            .iter()
            .map(|&[depth, _, _]| Component { bits: (depth & 0x7f) + 1, signed: depth & 0x80 != 0 })
            .collect(),
    };
    if size.x.is_empty() || size.y.is_empty() {
        return Err(wrong("no pixels"));
    }
    // B-3 and B-4: the first tile holds pixels of the image.
    let first = |origin: u32, length: u32, start: u32| {
        length > 0 && origin <= start && u64::from(origin) + u64::from(length) > u64::from(start)
    };
    if !first(size.tile_x0, size.tile_width, size.x.start)
        || !first(size.tile_y0, size.tile_height, size.y.start)
    {
        return Err(wrong("a first tile outside the image"));
    }
    if bytes[40..].as_chunks::<3>().0.iter().any(|&[_, dx, dy]| (dx, dy) != (1, 1)) {
        return Err(unsupported("subsampled components"));
    }
    if let Some(component) = size.components.iter().find(|c| c.bits > 16) {
        return Err(unsupported(&format!("{}-bit samples", component.bits)));
    }
    let samples = |height: u32, width: u32| {
        (u64::from(height) * u64::from(width)).saturating_mul(size.components.len() as u64)
    };
    within("samples", samples(size.height(), size.width()), limits.max_samples)?;
    let tile = samples(size.tile_height.min(size.height()), size.tile_width.min(size.width()));
    within("samples in a tile", tile, limits.max_tile_samples)?;
    // A.4.2: tile numbers have 16 bits, and the last one is reserved.
    if size.tile_rows().saturating_mul(size.tile_cols()) > 65_535 {
        return Err(wrong("more than 65535 tiles"));
    }
    Ok(size)
}

/// Checks of coding styles (COD and COC, A.6.1 and A.6.2): what the decoder takes memory for, and what it lacks.
struct Style<'a> {
    size: &'a Size,
    limits: &'a Limits,
    layers: u64,
    levels: u32,
}

impl Style<'_> {
    fn check(&mut self, code: u8, segment: &Segment<'_>) -> Result<()> {
        if code == marker::COD {
            self.layers = segment.bytes.get(6..8).map_or(0, be);
        }
        let levels = self.check_tile(code, segment)?;
        self.levels = self.levels.min(levels);
        Ok(())
    }

    /// Checks a segment of a tile and gives its number of decomposition levels.
    fn check_tile(&self, code: u8, segment: &Segment<'_>) -> Result<u32> {
        let wrong = |what: &str| damaged(segment.offset, format!("a coding style with {what}"));
        // Positions after the marker and the length (Tables A.12 and A.22).
        let (style_at, levels_at) = match code {
            marker::COD => (4, 9),
            _ if self.size.components.len() < 257 => (5, 6),
            _ => (6, 7),
        };
        let bytes = &segment.bytes[..];
        let (Some(style), Some(&[levels, block_width, block_height, block_style, transform])) =
            (bytes.get(style_at), bytes.get(levels_at..).and_then(|b| b.first_chunk()))
        else {
            return Err(wrong("the wrong length"));
        };
        let mut layers = self.layers;
        if code == marker::COD {
            layers = be(&bytes[6..8]);
            if bytes[5] > 4 {
                return Err(wrong("an unknown progression order"));
            }
        }
        if layers == 0 {
            return Err(wrong("no quality layer"));
        }
        if block_style & 0x40 != 0 {
            return Err(unsupported("high-throughput JPEG 2000 code-blocks"));
        }
        if levels > 32
            || transform > 1
            || block_width > 8
            || block_height > 8
            || block_width + block_height > 8
        {
            return Err(wrong("values out of range"));
        }
        // Table A.21: one byte for each resolution; 2^15 where there are none.
        let precincts = match style & 1 {
            0 => vec![0xff; usize::from(levels) + 1],
            _ => bytes[levels_at + 5..].to_vec(),
        };
        if precincts.len() != usize::from(levels) + 1 {
            return Err(wrong("the wrong number of precinct sizes"));
        }
        let mut count = 0_u64;
        for (resolution, &precinct) in (0_u8..).zip(&precincts) {
            let blocks_and_precincts = |length: u32, precinct: u8, block: u8| -> Option<(u64, u64)> {
                // B.7: a code-block is no larger than its precinct, which halves in the sub-bands.
                let half = u8::from(resolution > 0);
                let block = (block + 2).min(precinct.checked_sub(half)?);
                let length = u64::from(length).div_ceil(1 << (levels - resolution)) + 1;
                Some((
                    length.div_ceil(1 << half).div_ceil(1 << block) + 1,
                    length.div_ceil(1 << precinct) + 1,
                ))
            };
            let width = self.size.tile_width.min(self.size.width());
            let height = self.size.tile_height.min(self.size.height());
            let (Some(x), Some(y)) = (
                blocks_and_precincts(width, precinct & 15, block_width),
                blocks_and_precincts(height, precinct >> 4, block_height),
            ) else {
                return Err(wrong("a precinct size of 1"));
            };
            let bands = if resolution == 0 { 1 } else { 3 };
            count =
                count.saturating_add((x.0 * y.0).saturating_mul(bands * layers)).saturating_add(x.1 * y.1);
        }
        let count = count.saturating_mul(self.size.components.len() as u64);
        // Few of either never matter, however small the tile.
        within("code-blocks in a tile", count, (self.limits.max_tile_samples / 16).max(4096))?;
        Ok(u32::from(levels))
    }
}

fn within(what: &'static str, value: u64, limit: u64) -> Result<()> {
    if value > limit { Err(Error::TooLarge { what, value, limit }) } else { Ok(()) }
}

fn damaged(offset: usize, what: impl Into<String>) -> Error {
    Error::Damaged { offset, what: what.into() }
}

pub(crate) fn unsupported(feature: &str) -> Error {
    Error::Unsupported { feature: feature.to_owned() }
}

/// A marker at the wrong place, or one that this crate does not know.
fn unexpected(offset: usize, code: u8, place: &str) -> Error {
    match code {
        marker::SOC..=marker::COC
        | marker::TLM..=marker::PLT
        | marker::QCD..=marker::PPT
        | marker::CRG..=marker::COM
        | marker::SOT..=marker::SOD
        | marker::EOC => damaged(offset, format!("marker ff{code:02x} in {place}")),
        _ => unsupported(&format!("marker ff{code:02x} in {place} at byte {offset}")),
    }
}
