//! Coefficient bits of a code-block (ISO/IEC 15444-1 Annex D): three coding passes over each bit-plane.
//!
//! A block is scanned in stripes of four rows, column by column. Two representations serve two questions. *Which
//! coefficients does a pass meet?* Words of 64 bits hold what is known of 16 columns of a stripe in the order of the
//! scan, so that a few shifts answer for all of them, and a pass goes from set bit to set bit. *In which context?* A
//! flag word for each column holds the significance of its four coefficients and of all their neighbours (3 columns ×
//! 6 rows, bit `3 row + column`), so that the neighbourhood of row `k` is nine bits at `3 k`. Signs have words of their
//! own, so that no context of a significance waits for a sign that has just been decoded.

use crate::mq::{Context, Mq};
use crate::wavelet::Coefficient;

/// Coefficients of a block at most (A.6.1), and a power of two: indices into a block are masked, not checked.
const AREA: usize = 4096;
const MASK: usize = AREA - 1;

/// Significance of the 3 × 6 neighbourhood in a flag word.
const SIGNIFICANT: u32 = 0x3_ffff;
/// Place of the column's own significance, row 0.
const OWN: u32 = 4;

/// Columns of a word; bit `4 column + row`.
const GROUP: usize = 16;
/// Words of a block at most, with a border of one on all sides, padded to a power of two.
const WORDS: usize = 1024;
/// The first and the last row of all columns of a word.
const FIRST_ROW: u64 = 0x1111_1111_1111_1111;
const LAST_ROW: u64 = FIRST_ROW << 3;
/// By row: the neighbours of a coefficient that come after it in the scan, as places after its own.
const AFTER: [u64; 4] = [0b11_0010, 0b11_1010, 0b11_1010, 0b01_1000];

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

#[expect(clippy::cast_possible_truncation, reason = "2 at most")]
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
    /// A flag word for each column of each stripe, with a border of one on all sides.
    flags: Box<[u32; AREA]>,
    /// The signs of the middle column of the flag word, bit `3 row`.
    signs: Box<[u32; AREA]>,
    /// Stripe by stripe, column by column, four rows each: the sign in the top bit, below it twice the magnitude,
    /// plus half of the last bit-plane known.
    data: Box<[u32; AREA]>,
    /// One bit for each coefficient: whether it is significant,
    significant: Box<[u64; WORDS]>,
    /// whether the significance pass of this bit-plane has coded it,
    coded: Box<[u64; WORDS]>,
    /// and whether it has been refined before.
    refined: Box<[u64; WORDS]>,
}

/// Some columns of a stripe: 16, or what is left of the width.
struct Columns {
    /// Their word.
    word: usize,
    /// Words from one stripe to the next.
    word_stride: usize,
    /// The flag word of the first, and how many are in a stripe.
    flag: usize,
    flag_stride: usize,
    /// The first coefficient.
    data: usize,
    /// The coefficients that the block has.
    valid: u64,
}

impl Block {
    fn stripes(&self) -> usize {
        self.height.div_ceil(4)
    }

    fn groups(&self) -> usize {
        self.width.div_ceil(GROUP)
    }

    #[inline(always)]
    fn columns(&self, stripe: usize, group: usize) -> Columns {
        let (word_stride, flag_stride) = (self.groups() + 2, self.width + 2);
        let col = GROUP * group;
        let rows = match self.height - 4 * stripe {
            rows @ 0..4 => FIRST_ROW * ((1 << rows) - 1),
            _ => u64::MAX,
        };
        Columns {
            word: (stripe + 1) * word_stride + group + 1,
            word_stride,
            flag: (stripe + 1) * flag_stride + col + 1,
            flag_stride,
            data: 4 * (stripe * self.width + col),
            valid: match self.width - col {
                cols @ 0..GROUP => rows & ((1 << (4 * cols)) - 1),
                _ => rows,
            },
        }
    }
}

impl Default for Tier1 {
    fn default() -> Self {
        Self {
            flags: Box::new([0; AREA]),
            signs: Box::new([0; AREA]),
            data: Box::new([0; AREA]),
            significant: Box::new([0; WORDS]),
            coded: Box::new([0; WORDS]),
            refined: Box::new([0; WORDS]),
        }
    }
}

impl Tier1 {
    /// Decodes the passes of a block from its codeword segment.
    pub(crate) fn decode(&mut self, segment: &[u8], block: &Block) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
        {
            // SAFETY: the processor has the instructions that the function is compiled for.
            #[expect(unsafe_code, reason = "5 % of the time of a whole band")]
            return unsafe { self.decode_with_bit_instructions(segment, block) };
        }
        self.decode_portably(segment, block);
    }

    /// The portable code, compiled for processors that shift and count zeros in one instruction.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "bmi1,bmi2,lzcnt")]
    fn decode_with_bit_instructions(&mut self, segment: &[u8], block: &Block) {
        self.decode_portably(segment, block);
    }

    #[inline(always)]
    fn decode_portably(&mut self, segment: &[u8], block: &Block) {
        let (width, stripes) = (block.width, block.stripes());
        let words = (block.groups() + 2) * (stripes + 2);
        for flags in [&mut self.flags, &mut self.signs] {
            flags[..((width + 2) * (stripes + 2)).min(AREA)].fill(0);
        }
        self.data[..(4 * width * stripes).min(AREA)].fill(0);
        for bits in [&mut self.significant, &mut self.coded, &mut self.refined] {
            bits[..words.min(WORDS)].fill(0);
        }
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

    /// The coefficients of a word that have a significant neighbour.
    #[inline(always)]
    fn near(&self, columns: &Columns) -> u64 {
        // Above, below, and there itself.
        let vertical = |word: usize| {
            let own = self.significant[word & (WORDS - 1)];
            let above = self.significant[(word - columns.word_stride) & (WORDS - 1)];
            let below = self.significant[(word + columns.word_stride) & (WORDS - 1)];
            let inside = (own << 1 & !FIRST_ROW) | (own >> 1 & !LAST_ROW);
            let others = inside | (above >> 3 & FIRST_ROW) | (below << 3 & LAST_ROW);
            (others, others | own)
        };
        let (others, all) = vertical(columns.word);
        let (_, left) = vertical(columns.word - 1);
        let (_, right) = vertical(columns.word + 1);
        others | all << 4 | all >> 4 | left >> 60 | right << 60
    }

    /// D.3.1: coefficients that are not significant but have a significant neighbour.
    #[inline(always)]
    fn significance_pass(
        &mut self,
        decoder: &mut Mq<'_>,
        contexts: &mut Contexts,
        block: &Block,
        plane: u32,
    ) {
        let mut mq = decoder.clone();
        let table = significance_table(block);
        for stripe in 0..block.stripes() {
            for group in 0..block.groups() {
                let columns = block.columns(stripe, group);
                let mut significant = self.significant[columns.word & (WORDS - 1)];
                let mut left = self.near(&columns) & !significant & columns.valid;
                let mut coded = left;
                while left != 0 {
                    let place = left.trailing_zeros();
                    left &= left - 1;
                    let flags = self.flags[(columns.flag + place as usize / 4) & MASK];
                    let context = table[(flags >> (3 * (place % 4))) as usize & 511];
                    if mq.decode(&mut contexts[usize::from(context) & 31]) != 0 {
                        self.sign(&mut mq, contexts, &columns, place, plane);
                        significant |= 1 << place;
                        // Neighbours become candidates by that.
                        let more = AFTER[place as usize % 4] << place & !significant & columns.valid;
                        left |= more;
                        coded |= more;
                    }
                }
                self.significant[columns.word & (WORDS - 1)] = significant;
                self.coded[columns.word & (WORDS - 1)] = coded;
            }
        }
        *decoder = mq;
    }

    /// D.3.3: one more bit of coefficients that were significant before.
    #[inline(always)]
    fn refinement_pass(&mut self, decoder: &mut Mq<'_>, contexts: &mut Contexts, block: &Block, plane: u32) {
        let mut mq = decoder.clone();
        let [a, b, c] = [0, 1, 2].map(|context| contexts[REFINEMENT + context]);
        let mut local = [a, b, c, c];
        for stripe in 0..block.stripes() {
            for group in 0..block.groups() {
                let columns = block.columns(stripe, group);
                let word = columns.word & (WORDS - 1);
                let mut left = self.significant[word] & !self.coded[word];
                if left == 0 {
                    continue;
                }
                let refined = self.refined[word];
                let near = self.near(&columns) & !refined;
                self.refined[word] = refined | left;
                while left != 0 {
                    let place = left.trailing_zeros();
                    left &= left - 1;
                    let context =
                        usize::from(refined >> place & 1 != 0) << 1 | usize::from(near >> place & 1 != 0);
                    let bit = mq.decode(&mut local[context & 3]);
                    // Half of the plane above stands where this plane's bit belongs: it stays or goes, and half of this
                    // plane is added.
                    let value = &mut self.data[(columns.data + place as usize) & MASK];
                    *value = value.wrapping_add((2 * bit).wrapping_sub(1) << plane);
                }
            }
        }
        contexts[REFINEMENT..REFINEMENT + 3].copy_from_slice(&local[..3]);
        *decoder = mq;
    }

    /// D.3.4: everything that the other passes have left, with run lengths over columns where nothing is near.
    #[inline(always)]
    fn cleanup_pass(&mut self, decoder: &mut Mq<'_>, contexts: &mut Contexts, block: &Block, plane: u32) {
        let mut mq = decoder.clone();
        let table = significance_table(block);
        for stripe in 0..block.stripes() {
            for group in 0..block.groups() {
                let columns = block.columns(stripe, group);
                let word = columns.word & (WORDS - 1);
                let mut significant = self.significant[word];
                let mut left = !(significant | self.coded[word]) & columns.valid;
                while left != 0 {
                    let mut place = left.trailing_zeros();
                    let flags = self.flags[(columns.flag + place as usize / 4) & MASK];
                    if place.is_multiple_of(4) && left >> place & 15 == 15 && flags & SIGNIFICANT == 0 {
                        if mq.decode_expected(&mut contexts[RUN_LENGTH]) == 0 {
                            left &= !(15 << place);
                            continue;
                        }
                        place |= mq.decode(&mut contexts[UNIFORM]) << 1;
                        place |= mq.decode(&mut contexts[UNIFORM]);
                        left &= !1 << place;
                    } else {
                        left &= left - 1;
                        let context = table[(flags >> (3 * (place % 4))) as usize & 511];
                        if mq.decode(&mut contexts[usize::from(context) & 31]) == 0 {
                            continue;
                        }
                    }
                    self.sign(&mut mq, contexts, &columns, place, plane);
                    significant |= 1 << place;
                }
                self.significant[word] = significant;
            }
        }
        *decoder = mq;
    }

    /// D.3.2: the sign of a coefficient that has become significant; tells its neighbours.
    #[inline(always)]
    fn sign(&mut self, mq: &mut Mq<'_>, contexts: &mut Contexts, columns: &Columns, place: u32, plane: u32) {
        let stride = columns.flag_stride;
        let (at, shift) = (columns.flag + place as usize / 4, 3 * (place % 4));
        let (signs, sign) = (&mut self.signs, shift + 3);
        let index = (self.flags[at & MASK] >> shift & 0b1010_1010)
            | (signs[(at - 1) & MASK] >> sign & 1)
            | (signs[(at + 1) & MASK] >> sign & 1) << 2
            | (signs[at & MASK] >> shift & 1) << 4
            | (signs[at & MASK] >> shift & 1 << 6);
        let context = SIGN_CONTEXT[index as usize & 255];
        let negative = mq.decode(&mut contexts[usize::from(context) & 31]) ^ u32::from(context >> 7);

        self.data[(columns.data + place as usize) & MASK] = negative << 31 | 3 << plane;
        let flags = &mut self.flags;
        flags[(at - 1) & MASK] |= 1 << (OWN + 1 + shift);
        flags[at & MASK] |= 1 << (OWN + shift);
        flags[(at + 1) & MASK] |= 1 << (OWN - 1 + shift);
        signs[at & MASK] |= negative << sign;
        if shift == 0 {
            let above = at - stride;
            flags[(above - 1) & MASK] |= 1 << 17;
            flags[above & MASK] |= 1 << 16;
            flags[(above + 1) & MASK] |= 1 << 15;
            signs[above & MASK] |= negative << 15;
        } else if shift == 9 {
            let below = at + stride;
            flags[(below - 1) & MASK] |= 1 << 2;
            flags[below & MASK] |= 1 << 1;
            flags[(below + 1) & MASK] |= 1;
            signs[below & MASK] |= negative;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// Any bytes are a codeword segment.
        #[test]
        fn bit_instructions_change_nothing(
            segment in prop::collection::vec(any::<u8>(), 0..600),
            (log_width, log_height) in (0..=6_u32, 0..=6_u32),
            (orientation, planes, passes) in (0..4_u8, 1..=30_u32, 1..=88_u32),
            reset_contexts in any::<bool>(),
        ) {
            let block = Block {
                width: (1 << log_width) - usize::from(log_width > 2),
                height: (1 << log_height) - usize::from(log_height > 2),
                orientation,
                planes,
                passes: passes.min(3 * planes - 2),
                reset_contexts,
                segmentation_symbols: !reset_contexts,
            };
            let [mut portable, mut chosen] = [Tier1::default(), Tier1::default()];
            portable.decode_portably(&segment, &block);
            chosen.decode(&segment, &block);
            prop_assert!(portable.data == chosen.data);
        }
    }
}
