//! Coefficient bits of a code-block (ISO/IEC 15444-1 Annex D): three coding passes over each bit-plane.
//!
//! A block is scanned in stripes of four rows, column by column. One flag word stands for the four coefficients of a
//! column: the significance of these and of all their neighbours (3 columns × 6 rows, bit `3 row + column`), so that the
//! neighbourhood of row `k` is nine bits at `3 k`; then signs, and which coefficients this bit-plane has met.

use crate::mq::{Context, Mq};
use crate::wavelet::Coefficient;

/// Coefficients of a block at most (A.6.1), and a power of two: indices into a block are masked, not checked.
const AREA: usize = 4096;
const MASK: usize = AREA - 1;

/// The four rows of a column within a flag word; the row is `shift / 3`.
const ROWS: u32 = 0b001_001_001_001;
/// Significance of the 3 × 6 neighbourhood.
const SIGNIFICANT: u32 = 0x3_ffff;
/// Place of the column's own significance, row 0.
const OWN: u32 = 4;
/// Sign of the coefficient above the column; the four of the column follow, three bits apart, and the one below.
const SIGN_ABOVE: u32 = 18;
const SIGN: u32 = 19;
/// Whether a coefficient has been refined before.
const REFINED: u32 = 20;
/// Whether the significance pass of this bit-plane has coded it.
const VISITED: u32 = 21;
const SIGN_BELOW: u32 = 31;

/// Contexts (Table D.7): 0 to 8 significance, 9 to 13 sign, 14 to 16 refinement.
const REFINEMENT: usize = 14;
const RUN_LENGTH: usize = 17;
const UNIFORM: usize = 18;
type Contexts = [Context; 32];

const CONTEXTS: Contexts = {
    let mut contexts = [Context::new(0); 32];
    contexts[0] = Context::new(4);
    contexts[RUN_LENGTH] = Context::new(3);
    contexts[UNIFORM] = Context::new(46);
    contexts
};

/// Significance contexts (Table D.1) by the nine bits of a neighbourhood, for LL and LH, for HL, and for HH.
static SIGNIFICANCE: [[u8; 512]; 3] = {
    let mut table = [[0; 512]; 3];
    let mut bits = 0;
    while bits < 512 {
        let horizontal = on2(bits, 3, 5);
        let vertical = on2(bits, 1, 7);
        let diagonal = on2(bits, 0, 2) + on2(bits, 6, 8);
        table[0][bits] = low(horizontal, vertical, diagonal);
        table[1][bits] = low(vertical, horizontal, diagonal);
        table[2][bits] = match (diagonal, horizontal + vertical) {
            (3.., _) => 8,
            (2, 1..) => 7,
            (2, 0) => 6,
            (1, 2..) => 5,
            (1, 1) => 4,
            (1, 0) => 3,
            (_, 2..) => 2,
            (_, near) => near,
        };
        bits += 1;
    }
    table
};

const fn on2(bits: usize, a: usize, b: usize) -> u8 {
    ((bits >> a & 1) + (bits >> b & 1)) as u8
}

const fn low(horizontal: u8, vertical: u8, diagonal: u8) -> u8 {
    match (horizontal, vertical, diagonal) {
        (2, _, _) => 8,
        (1, 1.., _) => 7,
        (1, 0, 1..) => 6,
        (1, 0, 0) => 5,
        (_, 2, _) => 4,
        (_, 1, _) => 3,
        (_, _, 2..) => 2,
        (_, _, diagonal) => diagonal,
    }
}

/// Sign contexts (Tables D.2 and D.3). Index: sign of W, significance of N, sign of E, significance of W, sign of N,
/// significance of E, sign of S, significance of S. Value: context, and in bit 7 what the decision is xor-ed with.
static SIGN_CONTEXT: [u8; 256] = {
    let mut table = [0; 256];
    let mut bits = 0;
    while bits < 256 {
        let horizontal = contribution(bits, 3, 0) + contribution(bits, 5, 2);
        let vertical = contribution(bits, 1, 4) + contribution(bits, 7, 6);
        table[bits] = match (horizontal.signum(), vertical.signum()) {
            (1, 1) => 13,
            (1, 0) => 12,
            (1, _) => 11,
            (0, 1) => 10,
            (0, 0) => 9,
            (0, _) => 10 | 0x80,
            (_, 1) => 11 | 0x80,
            (_, 0) => 12 | 0x80,
            (_, _) => 13 | 0x80,
        };
        bits += 1;
    }
    table
};

const fn contribution(bits: usize, significant: usize, negative: usize) -> i32 {
    match (bits >> significant & 1, bits >> negative & 1) {
        (0, _) => 0,
        (_, 0) => 1,
        _ => -1,
    }
}

/// What a code-block is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 0 LL, 1 HL, 2 LH, 3 HH.
    pub(crate) orientation: u8,
    /// Bit-planes that are coded, 30 at most.
    pub(crate) planes: u32,
    /// Coding passes, `3 planes - 2` at most.
    pub(crate) passes: u32,
    /// Contexts start anew with each pass (Table A.19).
    pub(crate) reset_contexts: bool,
    /// Four symbols close each bit-plane.
    pub(crate) segmentation_symbols: bool,
}

/// The memory that decoding a code-block takes.
pub(crate) struct Tier1 {
    /// One word for each column of each stripe, with a border of one on all sides.
    flags: Box<[u32; AREA]>,
    /// Stripe by stripe, column by column, four rows each: the sign in the top bit, below it twice the magnitude,
    /// plus half of the last bit-plane known.
    data: Box<[u32; AREA]>,
    /// Coefficients that the refinement pass will meet, with their contexts in bits 12 and 13.
    refined: Box<[u16; AREA]>,
}

impl Tier1 {
    pub(crate) fn new() -> Self {
        Self { flags: Box::new([0; AREA]), data: Box::new([0; AREA]), refined: Box::new([0; AREA]) }
    }

    /// Decodes the passes of a block from its codeword segment.
    pub(crate) fn decode(&mut self, segment: &[u8], block: &Block) {
        let (width, stripes) = (block.width, block.height.div_ceil(4));
        self.flags[..((width + 2) * (stripes + 2)).min(AREA)].fill(0);
        self.data[..(4 * width * stripes).min(AREA)].fill(0);
        let mut contexts = CONTEXTS;
        let mut mq = Mq::new(segment);
        // The first bit-plane has a cleanup pass only.
        for pass in 2..block.passes + 2 {
            let plane = block.planes - 1 - pass / 3;
            match pass % 3 {
                0 => self.significance_pass(&mut mq, &mut contexts, block, plane),
                1 => self.refinement_pass(&mut mq, &mut contexts, block, plane),
                _ => {
                    self.cleanup_pass(&mut mq, &mut contexts, block, plane);
                    if block.segmentation_symbols {
                        for _ in 0..4 {
                            mq.decode(&mut contexts[UNIFORM]);
                        }
                    }
                }
            }
            if block.reset_contexts {
                contexts = CONTEXTS;
            }
        }
    }

    /// Appends the decoded coefficients row by row.
    pub(crate) fn append<C: Coefficient>(&self, block: &Block, step: f32, out: &mut Vec<C>) {
        for row in 0..block.height {
            let stripe = row / 4 * block.width;
            out.extend((0..block.width).map(|col| {
                let value = self.data[(4 * (stripe + col) + row % 4) & MASK];
                let magnitude = (value & 0x7fff_ffff).cast_signed();
                C::dequantise(if value >> 31 == 0 { magnitude } else { -magnitude }, step)
            }));
        }
    }

    /// D.3.1: coefficients that are not significant but have a significant neighbour.
    #[inline(never)]
    fn significance_pass(
        &mut self,
        decoder: &mut Mq<'_>,
        contexts: &mut Contexts,
        block: &Block,
        plane: u32,
    ) {
        let mut mq = decoder.clone();
        let table = significance_table(block);
        for stripe in 0..block.height.div_ceil(4) {
            let rows = rows_in(block, stripe);
            for col in 0..block.width {
                let at = (stripe + 1) * (block.width + 2) + col + 1;
                let flags = self.flags[at & MASK];
                if flags & SIGNIFICANT == 0 {
                    continue;
                }
                let mut candidates = with_neighbour(flags) & !(flags >> OWN) & rows;
                while candidates != 0 {
                    let shift = candidates.trailing_zeros();
                    let flags = self.flags[at & MASK];
                    let context = table[(flags >> shift) as usize & 511];
                    let bit = mq.decode(&mut contexts[usize::from(context) & 31]);
                    self.flags[at & MASK] |= 1 << (VISITED + shift);
                    if bit == 0 {
                        candidates &= candidates - 1;
                    } else {
                        self.sign(&mut mq, contexts, block, plane, stripe, col, shift);
                        // Rows below may have become candidates by that.
                        let flags = self.flags[at & MASK];
                        candidates =
                            with_neighbour(flags) & !(flags >> OWN) & rows & (u32::MAX << shift << 1);
                    }
                }
            }
        }
        *decoder = mq;
    }

    /// D.3.3: one more bit of coefficients that were significant before. Their contexts do not depend on what the pass
    /// decodes, so they are gathered first, and decoding is one tight loop.
    #[inline(never)]
    fn refinement_pass(&mut self, decoder: &mut Mq<'_>, contexts: &mut Contexts, block: &Block, plane: u32) {
        let mut count = 0;
        for stripe in 0..block.height.div_ceil(4) {
            for col in 0..block.width {
                let at = (stripe + 1) * (block.width + 2) + col + 1;
                let flags = self.flags[at & MASK];
                let members = (flags >> OWN) & !(flags >> VISITED) & ROWS;
                if members == 0 {
                    continue;
                }
                let near = with_neighbour(flags);
                let first = 4 * (stripe * block.width + col);
                for row in 0..4 {
                    let shift = 3 * row;
                    let refined = flags >> (REFINED + shift) & 1;
                    let context = refined << 1 | (near >> shift & 1 & !refined);
                    let entry = (first as u32 + row) & MASK as u32 | context << 12;
                    self.refined[count & MASK] = entry as u16;
                    count += (members >> shift & 1) as usize;
                }
                self.flags[at & MASK] = flags | members << REFINED;
            }
        }
        let mut mq = decoder.clone();
        let [a, b, c] = [0, 1, 2].map(|context| contexts[REFINEMENT + context]);
        let mut local = [a, b, c, c];
        for &entry in &self.refined[..count.min(AREA)] {
            let bit = mq.decode(&mut local[usize::from(entry >> 12) & 3]);
            // Half of the plane above stands where this plane's bit belongs: it stays or goes, and half of this
            // plane is added.
            let value = &mut self.data[usize::from(entry) & MASK];
            *value = value.wrapping_add((2 * bit).wrapping_sub(1) << plane);
        }
        contexts[REFINEMENT..REFINEMENT + 3].copy_from_slice(&local[..3]);
        *decoder = mq;
    }

    /// D.3.4: everything that the other passes have left, with run lengths over columns where nothing is near.
    #[inline(never)]
    fn cleanup_pass(&mut self, decoder: &mut Mq<'_>, contexts: &mut Contexts, block: &Block, plane: u32) {
        let mut mq = decoder.clone();
        let table = significance_table(block);
        for stripe in 0..block.height.div_ceil(4) {
            let rows = rows_in(block, stripe);
            for col in 0..block.width {
                let at = (stripe + 1) * (block.width + 2) + col + 1;
                let flags = self.flags[at & MASK];
                let mut left = !(flags >> OWN) & !(flags >> VISITED) & rows;
                let mut known = false;
                if rows == ROWS && flags & (SIGNIFICANT | ROWS << VISITED) == 0 {
                    if mq.decode(&mut contexts[RUN_LENGTH]) == 0 {
                        continue;
                    }
                    let high = mq.decode(&mut contexts[UNIFORM]);
                    let row = high << 1 | mq.decode(&mut contexts[UNIFORM]);
                    left &= u32::MAX << (3 * row);
                    known = true;
                }
                while left != 0 {
                    let shift = left.trailing_zeros();
                    left &= left - 1;
                    let bit = known || {
                        let context = table[(self.flags[at & MASK] >> shift) as usize & 511];
                        mq.decode(&mut contexts[usize::from(context) & 31]) != 0
                    };
                    known = false;
                    if bit {
                        self.sign(&mut mq, contexts, block, plane, stripe, col, shift);
                    }
                }
                self.flags[at & MASK] &= !(ROWS << VISITED);
            }
        }
        *decoder = mq;
    }

    /// D.3.2: the sign of a coefficient that has become significant; tells its neighbours.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined into two passes")]
    fn sign(
        &mut self,
        mq: &mut Mq<'_>,
        contexts: &mut Contexts,
        block: &Block,
        plane: u32,
        stripe: usize,
        col: usize,
        shift: u32,
    ) {
        let stride = block.width + 2;
        let at = (stripe + 1) * stride + col + 1;
        let flags = self.flags[at & MASK];
        let above = if shift == 0 { flags >> SIGN_ABOVE } else { flags >> (SIGN + shift - 3) };
        let index = (flags >> shift & 0b1010_1010)
            | (self.flags[(at - 1) & MASK] >> (SIGN + shift) & 1)
            | (self.flags[(at + 1) & MASK] >> (SIGN + shift) & 1) << 2
            | (above & 1) << 4
            | (flags >> (SIGN + 3 + shift) & 1) << 6;
        let context = SIGN_CONTEXT[index as usize & 255];
        let negative = mq.decode(&mut contexts[usize::from(context) & 31]) ^ u32::from(context >> 7);

        let row = (shift / 3) as usize;
        self.data[(4 * (stripe * block.width + col) + row) & MASK] = negative << 31 | 3 << plane;
        let flags = &mut self.flags;
        flags[(at - 1) & MASK] |= 1 << (OWN + 1 + shift);
        flags[(at + 1) & MASK] |= 1 << (OWN - 1 + shift);
        flags[at & MASK] |= 1 << (OWN + shift) | negative << (SIGN + shift);
        if shift == 0 {
            let above = at - stride;
            flags[(above - 1) & MASK] |= 1 << 17;
            flags[above & MASK] |= 1 << 16 | negative << SIGN_BELOW;
            flags[(above + 1) & MASK] |= 1 << 15;
        } else if shift == 9 {
            let below = at + stride;
            flags[(below - 1) & MASK] |= 1 << 2;
            flags[below & MASK] |= 1 << 1 | negative << SIGN_ABOVE;
            flags[(below + 1) & MASK] |= 1;
        }
    }
}

fn significance_table(block: &Block) -> &'static [u8; 512] {
    match block.orientation {
        0 | 2 => &SIGNIFICANCE[0],
        1 => &SIGNIFICANCE[1],
        _ => &SIGNIFICANCE[2],
    }
}

/// The rows of a stripe that the block has.
fn rows_in(block: &Block, stripe: usize) -> u32 {
    match block.height - 4 * stripe {
        rows @ 0..4 => ROWS & ((1 << (3 * rows)) - 1),
        _ => ROWS,
    }
}

/// Bit `3 row`: whether one of the eight neighbours is significant.
#[inline(always)]
fn with_neighbour(flags: u32) -> u32 {
    let all = flags & SIGNIFICANT;
    // Of each of the six rows: any of the three columns, and the left or the right one.
    let row = (all | all >> 1 | all >> 2) & 0o111_111;
    let sides = (all | all >> 2) & 0o111_111;
    (row | sides >> 3 | row >> 6) & ROWS
}
