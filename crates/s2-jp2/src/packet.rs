//! Packets (ISO/IEC 15444-1 Annex B): which come in which order, and what their headers say about code-blocks.

use std::borrow::Cow;
use std::ops::Range;

use crate::coding::{Coding, Component};
use crate::rect::{Rect, ceil_shift};

/// A tile-component: its resolutions, from the smallest.
pub(crate) struct TileComponent {
    pub(crate) resolutions: Vec<Resolution>,
}

/// A resolution, with the sub-bands that it adds: LL, or HL, LH and HH.
pub(crate) struct Resolution {
    pub(crate) rect: Rect,
    pub(crate) bands: Vec<SubBand>,
    /// Where its precincts begin on the reference grid, row by row: for the order of packets.
    precincts: Vec<(u64, u64)>,
}

/// A sub-band and its code-blocks.
pub(crate) struct SubBand {
    /// 0 LL, 1 HL, 2 LH, 3 HH.
    pub(crate) orientation: u8,
    pub(crate) planes: u32,
    pub(crate) step: f32,
    pub(crate) blocks: Vec<CodeBlock>,
    precincts: Vec<Precinct>,
}

/// The code-blocks of a sub-band that share packets.
struct Precinct {
    blocks: Range<usize>,
    cols: usize,
    inclusion: TagTree,
    zero_planes: TagTree,
}

/// A code-block and where its data lie in the tile.
pub(crate) struct CodeBlock {
    pub(crate) rect: Rect,
    pub(crate) passes: u32,
    pub(crate) zero_planes: u32,
    length_bits: u32,
    first: Range<usize>,
    /// Contributions of further layers.
    more: Vec<Range<usize>>,
}

impl CodeBlock {
    /// The codeword segment.
    pub(crate) fn segment<'d>(&self, data: &'d [u8]) -> Cow<'d, [u8]> {
        let first = data.get(self.first.clone()).unwrap_or_default();
        if self.more.is_empty() {
            return Cow::Borrowed(first);
        }
        let more = self.more.iter().flat_map(|range| data.get(range.clone()).unwrap_or_default());
        Cow::Owned(first.iter().chain(more).copied().collect())
    }
}

impl TileComponent {
    /// The structure of a tile's component (B.5 to B.7).
    pub(crate) fn new(tile: &Rect, coding: &Component, bits: u8) -> Self {
        let resolutions = (0..=coding.levels)
            .map(|level| {
                let down = coding.levels - level;
                let rect = tile.reduce(down);
                let (ppx, ppy) = coding.precincts[level as usize];
                let index = |start: u32, end: u32, log: u32| match start < end {
                    true => start >> log..ceil_shift(end, log),
                    false => 0..0,
                };
                let (cols, rows) = (index(rect.x0, rect.x1, ppx), index(rect.y0, rect.y1, ppy));
                let start = |index: u32, log: u32, origin: u32| {
                    (u64::from(index) << (log + down)).max(u64::from(origin))
                };
                let precincts = rows
                    .clone()
                    .flat_map(|row| {
                        cols.clone().map(move |col| (start(row, ppy, tile.y0), start(col, ppx, tile.x0)))
                    })
                    .collect();
                let kinds: &[u8] = if level == 0 { &[0] } else { &[1, 2, 3] };
                let half = u32::from(level > 0);
                let (log_x, log_y) = (ppx - half, ppy - half);
                let bands = (0..).zip(kinds).map(|(nth, &orientation)| {
                    let band = match level {
                        0 => rect,
                        _ => rect.sub_band(orientation & 1 != 0, orientation & 2 != 0),
                    };
                    let mut sub_band = SubBand {
                        orientation,
                        planes: coding.planes(level, nth),
                        step: coding.step_size(level, nth, bits),
                        blocks: Vec::new(),
                        precincts: Vec::with_capacity(rows.len() * cols.len()),
                    };
                    for row in rows.clone() {
                        for col in cols.clone() {
                            let cell = cell(col, row, log_x, log_y).intersect(&band);
                            sub_band.add_precinct(
                                &cell,
                                coding.block.0.min(log_x),
                                coding.block.1.min(log_y),
                            );
                        }
                    }
                    sub_band
                });
                Resolution { rect, bands: bands.collect(), precincts }
            })
            .collect();
        Self { resolutions }
    }
}

/// A cell of a grid of cells of `2^log_x` columns and `2^log_y` rows.
fn cell(col: u32, row: u32, log_x: u32, log_y: u32) -> Rect {
    let side = |index: u32, log: u32| {
        let clip = |v: u64| u32::try_from(v).unwrap_or(u32::MAX);
        (clip(u64::from(index) << log), clip(u64::from(index + 1) << log))
    };
    let ((x0, x1), (y0, y1)) = (side(col, log_x), side(row, log_y));
    Rect { x0, y0, x1, y1 }
}

impl SubBand {
    fn add_precinct(&mut self, cell_of: &Rect, log_x: u32, log_y: u32) {
        let start = self.blocks.len();
        let (mut rows, mut cols) = (0..0, 0..0);
        if !cell_of.is_empty() {
            rows = cell_of.y0 >> log_y..ceil_shift(cell_of.y1, log_y);
            cols = cell_of.x0 >> log_x..ceil_shift(cell_of.x1, log_x);
        }
        for row in rows.clone() {
            for col in cols.clone() {
                self.blocks.push(CodeBlock {
                    rect: cell(col, row, log_x, log_y).intersect(cell_of),
                    passes: 0,
                    zero_planes: 0,
                    length_bits: 3,
                    first: 0..0,
                    more: Vec::new(),
                });
            }
        }
        self.precincts.push(Precinct {
            blocks: start..self.blocks.len(),
            cols: cols.len().max(1),
            inclusion: TagTree::new(cols.len(), rows.len()),
            zero_planes: TagTree::new(cols.len(), rows.len()),
        });
    }
}

/// A packet: component, resolution, precinct, layer.
type Packet = (usize, usize, usize, u32);

/// The packets of a tile in the order of the codestream (B.12), up to the last one of the lowest resolutions that
/// are wanted: of each component all but the `reduce` largest.
fn packets(components: &[TileComponent], coding: &Coding, reduce: u32) -> Vec<Packet> {
    let mut packets = Vec::new();
    for (c, component) in components.iter().enumerate() {
        for (r, resolution) in component.resolutions.iter().enumerate() {
            for (p, &(y, x)) in resolution.precincts.iter().enumerate() {
                for l in 0..coding.layers {
                    let (layer, c64, r64) = (u64::from(l), c as u64, r as u64);
                    let key = match coding.progression {
                        0 => [layer, r64, c64, 0, 0],
                        1 => [r64, layer, c64, 0, 0],
                        2 => [r64, y, x, c64, layer],
                        3 => [y, x, c64, r64, layer],
                        _ => [c64, y, x, r64, layer],
                    };
                    packets.push((key, (c, r, p, l)));
                }
            }
        }
    }
    // Stable, so that precincts stay in their order.
    packets.sort_by_key(|&(key, _)| key);
    let wanted = |&(_, (c, r, ..)): &(_, Packet)| r + (reduce as usize) < components[c].resolutions.len();
    packets.truncate(packets.iter().rposition(wanted).map_or(0, |last| last + 1));
    packets.into_iter().map(|(_, packet)| packet).collect()
}

/// Reads the headers of all packets (B.10), so that the code-blocks know their data.
///
/// On damage, says what is wrong and at which byte of `data`; the code-blocks know what came before.
pub(crate) fn read_packets(
    components: &mut [TileComponent],
    coding: &Coding,
    reduce: u32,
    data: &[u8],
) -> Result<(), Damage> {
    let mut at = 0;
    let mut contributions = Vec::new();
    for (component, resolution, precinct, layer) in packets(components, coding, reduce) {
        if coding.sop && data.get(at..at + 2) == Some(&[0xff, 0x91]) {
            at += 6;
        }
        let bands = &mut components[component].resolutions[resolution].bands;
        let mut bits = Bits { data, at, left: 0, byte: 0 };
        contributions.clear();
        if bits.bit()? == 1 {
            for (index, band) in bands.iter_mut().enumerate() {
                band.read_header(&mut bits, precinct, layer, index, &mut contributions)?;
            }
        }
        at = bits.end();
        if coding.eph && data.get(at..at + 2) == Some(&[0xff, 0x92]) {
            at += 2;
        }
        for &Contribution { band, block, passes, length } in &contributions {
            let range = at..at + length;
            if range.end > data.len() {
                return Err(Damage {
                    at,
                    what: format!("{length} bytes of a code-block that leave its tile"),
                });
            }
            at = range.end;
            let block: &mut CodeBlock = &mut bands[band].blocks[block];
            block.passes += passes;
            if block.first.is_empty() {
                block.first = range;
            } else if length > 0 {
                block.more.push(range);
            }
        }
    }
    Ok(())
}

impl SubBand {
    fn read_header(
        &mut self,
        bits: &mut Bits<'_>,
        precinct: usize,
        layer: u32,
        index: usize,
        contributions: &mut Vec<Contribution>,
    ) -> Result<(), Damage> {
        let precinct = &mut self.precincts[precinct];
        for (nth, number) in precinct.blocks.clone().enumerate() {
            let block = &mut self.blocks[number];
            let (col, row) = (nth % precinct.cols, nth / precinct.cols);
            let seen = block.passes > 0;
            let included = match seen {
                true => bits.bit()? == 1,
                false => precinct.inclusion.at_most(bits, col, row, layer)?.is_some(),
            };
            if !included {
                continue;
            }
            if !seen {
                let zero_planes = precinct.zero_planes.at_most(bits, col, row, self.planes)?;
                block.zero_planes =
                    zero_planes.ok_or_else(|| bits.damage("more empty bit-planes than there are"))?;
            }
            let passes = bits.passes()?;
            while bits.bit()? == 1 {
                block.length_bits += 1;
            }
            let planes = self.planes - block.zero_planes;
            if block.passes + passes > (3 * planes).saturating_sub(2) {
                return Err(bits.damage("more coding passes than bit-planes allow"));
            }
            let count = block.length_bits + passes.ilog2();
            if count > 31 {
                return Err(bits.damage("a length of more than 31 bits"));
            }
            let length = bits.number(count)? as usize;
            contributions.push(Contribution { band: index, block: number, passes, length });
        }
        Ok(())
    }
}

/// What a packet has for a code-block.
struct Contribution {
    /// Which sub-band of the resolution.
    band: usize,
    block: usize,
    passes: u32,
    length: usize,
}

/// What is wrong in the packets of a tile, and at which of its bytes.
pub(crate) struct Damage {
    pub(crate) at: usize,
    pub(crate) what: String,
}

/// The bits of packet headers: after a byte 0xff, the next one has seven (B.10.1).
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    left: u32,
    byte: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<u32, Damage> {
        if self.left == 0 {
            let byte =
                *self.data.get(self.at).ok_or_else(|| self.damage("the end within a packet header"))?;
            self.left = if self.byte == 0xff { 7 } else { 8 };
            self.byte = byte;
            self.at += 1;
        }
        self.left -= 1;
        Ok(u32::from(self.byte >> self.left & 1))
    }

    fn number(&mut self, bits: u32) -> Result<u32, Damage> {
        (0..bits).try_fold(0, |value, _| Ok(value << 1 | self.bit()?))
    }

    /// Number of coding passes (Table B.4).
    fn passes(&mut self) -> Result<u32, Damage> {
        for (bits, first) in [(1, 1), (1, 2), (2, 3), (5, 6)] {
            let value = self.number(bits)?;
            if value < (1 << bits) - 1 {
                return Ok(first + value);
            }
        }
        Ok(37 + self.number(7)?)
    }

    /// Where the header ends: a last byte 0xff is followed by a stuffed one.
    fn end(&self) -> usize {
        self.at + usize::from(self.byte == 0xff)
    }

    fn damage(&self, what: &str) -> Damage {
        Damage { at: self.at, what: what.to_owned() }
    }
}

/// A tag tree (B.10.2): for each place of a grid a number, told bit by bit for a whole neighbourhood at a time.
struct TagTree {
    /// Columns of each level and where its nodes begin, from the leaves.
    levels: Vec<(usize, usize)>,
    nodes: Vec<Node>,
}

#[derive(Clone, Default)]
struct Node {
    /// The number is at least this; exactly this when known.
    value: u32,
    known: bool,
}

impl TagTree {
    fn new(cols: usize, rows: usize) -> Self {
        let (mut cols, mut rows, mut count) = (cols, rows, 0);
        let mut levels = Vec::new();
        while cols * rows > 0 {
            levels.push((cols, count));
            count += cols * rows;
            if cols * rows == 1 {
                break;
            }
            (cols, rows) = (cols.div_ceil(2), rows.div_ceil(2));
        }
        Self { levels, nodes: vec![Node::default(); count] }
    }

    /// Reads on until it is clear whether the number at a place is `limit` or less, and which it is then.
    fn at_most(
        &mut self,
        bits: &mut Bits<'_>,
        col: usize,
        row: usize,
        limit: u32,
    ) -> Result<Option<u32>, Damage> {
        let mut least = 0;
        let mut known = false;
        for (level, &(cols, start)) in self.levels.iter().enumerate().rev() {
            let node = &mut self.nodes[start + (row >> level) * cols + (col >> level)];
            node.value = node.value.max(least);
            while !node.known && node.value <= limit {
                if bits.bit()? == 1 {
                    node.known = true;
                } else {
                    node.value += 1;
                }
            }
            least = node.value;
            known = node.known;
        }
        Ok((known && least <= limit).then_some(least))
    }
}
