//! Coefficient bits of a code-block (ISO/IEC 15444-1 Annex D): three coding passes over each bit-plane.
//!
//! A block is scanned in stripes of four rows, column by column. Words of 64 bits hold what is known of eight columns of
//! a stripe in the order of the scan: bit `6 column + row`, with a column to the left and to the right, a row above and
//! one below. So a few shifts tell which coefficients of a word a pass meets, a pass goes from set bit to set bit, the
//! neighbourhood of a coefficient is nine bits of the word that is in a register, and to become significant is to set a
//! bit of it. What lies beside a word's own coefficients is told by its neighbours when a pass leaves them.

use std::ops::Range;

use crate::context::{
    CONTEXTS, Contexts, REFINEMENT, RUN_LENGTH, SIGN, UNIFORM, neighbour_signs, neighbours, significance,
};
use crate::mq::Mq;
use crate::wavelet::Coefficient;

/// Columns of a word, and bits of a column.
const GROUP: usize = 8;
const COLUMN: usize = 6;
/// The first coefficient of a word. Places are counted from it: the neighbourhood of a place begins where it does in a
/// word that is shifted by it.
const FIRST: u32 = 7;
/// The places of the first coefficient of each column.
const FIRST_ROW: u64 = 0x0410_4104_1041;
/// The neighbours of a coefficient that come after it in the scan, as places after its own.
const AFTER: u64 = 0b1110_0010;
/// All six rows of three columns.
const THREE_COLUMNS: u64 = (1 << (3 * COLUMN)) - 1;
/// The column to the right of a word, and the first and the last row of all its columns and of those beside.
const RIGHT: u64 = 0x3f << 54;
const TOP: u64 = 0x0082_0820_8208_2082;
const BOTTOM: u64 = TOP << 3;

/// Words of a block at most, with a border of one on all sides, padded to a power of two: indices are masked, not checked.
const WORDS: usize = 1024;
/// Places for the coefficients of a block, at most 4096 (A.6.1): two more for each column of four, and a word beside each
/// stripe.
const PLACES: usize = 16384;

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
    words: Box<[Word; WORDS]>,
    /// Word by word, in the order of their bits: the sign in the top bit, below it twice the magnitude, plus half of the
    /// last bit-plane known.
    data: Box<[u32; PLACES]>,
}

/// What is known of eight columns of a stripe, and of what is beside them.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Word {
    /// Which coefficients the block has,
    valid: u64,
    /// which are significant, also beside the word,
    significant: u64,
    /// which of these are negative,
    negative: u64,
    /// which the significance pass of this bit-plane has coded,
    coded: u64,
    /// and which have been refined before.
    refined: u64,
}

impl Block {
    fn stripes(&self) -> usize {
        self.height.div_ceil(4)
    }

    fn groups(&self) -> usize {
        self.width.div_ceil(GROUP)
    }

    fn is_one_word(&self) -> bool {
        self.width <= GROUP && self.height <= 4
    }

    /// Words from one stripe to the next: one more than there are, for what is beside the first and the last.
    fn stride(&self) -> usize {
        self.groups() + 1
    }

    /// The words of the block in the order of the scan, with one that has nothing between stripes.
    fn words(&self) -> Range<usize> {
        let first = self.stride() + 1;
        first..(first + self.stripes() * self.stride() - 1).min(WORDS)
    }

    /// Places for the coefficients of a word.
    fn places(&self) -> usize {
        COLUMN * self.width.min(GROUP)
    }

    /// The coefficients of a word that the block has.
    fn valid(&self, stripe: usize, group: usize) -> u64 {
        let cols = (self.width - GROUP * group).min(GROUP);
        let rows = (self.height - 4 * stripe).min(4);
        (FIRST_ROW & ((1 << (COLUMN * cols)) - 1)) * ((1 << rows) - 1)
    }
}

impl Default for Tier1 {
    fn default() -> Self {
        Self { words: Box::new([Word::default(); WORDS]), data: Box::new([0; PLACES]) }
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
        self.clear(block);
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

    fn clear(&mut self, block: &Block) {
        let Range { start, end } = block.words();
        self.words[..(end + start).min(WORDS)].fill(Word::default());
        for (stripe, words) in self.words[start..end].chunks_mut(block.stride()).enumerate() {
            for (group, word) in words.iter_mut().take(block.groups()).enumerate() {
                word.valid = block.valid(stripe, group);
            }
        }
        self.data[..(block.places() * (end - start)).min(PLACES)].fill(0);
    }

    /// Appends the decoded coefficients row by row.
    pub(crate) fn append<C: Coefficient>(&self, block: &Block, step: f32, out: &mut Vec<C>) {
        let (width, height) = (block.width, block.height);
        let start = out.len();
        out.resize(start + width * height, C::default());
        let stripes = self.data.chunks(block.places() * block.stride());
        for (rows, words) in out[start..].chunks_mut(4 * width).zip(stripes) {
            let columns = words.chunks_exact(COLUMN);
            for (col, column) in columns.take(width).enumerate() {
                for (row, &value) in rows.chunks_exact_mut(width).zip(column) {
                    row[col] = C::dequantise(value, step);
                }
            }
        }
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
        let table = significance(block.orientation);
        for (nth, at) in block.words().enumerate() {
            let Word { valid, significant: before, mut negative, .. } = self.words[at];
            let mut significant = before;
            let mut left = (near(significant) & !significant) >> FIRST & valid;
            let mut coded = left;
            if left == 0 {
                self.words[at].coded = 0;
                continue;
            }
            let data = nth * block.places();
            while left != 0 {
                let place = left.trailing_zeros();
                left &= left - 1;
                let around = significant >> place;
                let context = table[neighbours(around)];
                if mq.decode(&mut contexts[usize::from(context) & 31]) != 0 {
                    let minus = sign(&mut mq, contexts, around, negative >> place);
                    significant |= 1 << FIRST << place;
                    negative |= u64::from(minus) << FIRST << place;
                    self.data[(data + place as usize) & (PLACES - 1)] = minus << 31 | 3 << plane;
                    // Neighbours become candidates by that.
                    let more = AFTER << place & !(significant >> FIRST) & valid;
                    left |= more;
                    coded |= more;
                }
            }
            let word = &mut self.words[at];
            (word.significant, word.negative, word.coded) = (significant, negative, coded);
            self.tell(block, at, significant & !before, negative & !before);
        }
        *decoder = mq;
    }

    /// D.3.3: one more bit of coefficients that were significant before.
    #[inline(always)]
    fn refinement_pass(&mut self, decoder: &mut Mq<'_>, contexts: &mut Contexts, block: &Block, plane: u32) {
        let mut mq = decoder.clone();
        for (nth, at) in block.words().enumerate() {
            let word = &mut self.words[at];
            let mut left = word.significant >> FIRST & !word.coded & word.valid;
            if left == 0 {
                continue;
            }
            let refined = word.refined;
            let near = near(word.significant) >> FIRST | refined;
            word.refined |= left;
            let data = nth * block.places();
            while left != 0 {
                let place = left.trailing_zeros();
                left &= left - 1;
                let context =
                    REFINEMENT + usize::from(refined >> place & 1 != 0) + usize::from(near >> place & 1 != 0);
                let bit = mq.decode(&mut contexts[context]);
                // Half of the plane above stands where this plane's bit belongs: it stays or goes, and half of this plane
                // is added.
                let value = &mut self.data[(data + place as usize) & (PLACES - 1)];
                *value = value.wrapping_add((2 * bit).wrapping_sub(1) << plane);
            }
        }
        *decoder = mq;
    }

    /// D.3.4: everything that the other passes have left, with run lengths over columns where nothing is near.
    #[inline(always)]
    fn cleanup_pass(&mut self, decoder: &mut Mq<'_>, contexts: &mut Contexts, block: &Block, plane: u32) {
        let mut mq = decoder.clone();
        let table = significance(block.orientation);
        for (nth, at) in block.words().enumerate() {
            let Word { valid, significant: before, mut negative, coded, .. } = self.words[at];
            let mut significant = before;
            let mut left = !(significant >> FIRST | coded) & valid;
            if left == 0 {
                continue;
            }
            let data = nth * block.places();
            while left != 0 {
                let mut place = left.trailing_zeros();
                let mut around = significant >> place;
                if FIRST_ROW >> place & 1 != 0 && left >> place & 15 == 15 && around & THREE_COLUMNS == 0 {
                    if mq.decode_expected(&mut contexts[RUN_LENGTH]) == 0 {
                        left &= !(15 << place);
                        continue;
                    }
                    let run = mq.decode(&mut contexts[UNIFORM]) << 1 | mq.decode(&mut contexts[UNIFORM]);
                    left &= !(((2 << run) - 1) << place);
                    place += run;
                    around >>= run;
                } else {
                    left &= left - 1;
                    let context = table[neighbours(around)];
                    if mq.decode(&mut contexts[usize::from(context) & 31]) == 0 {
                        continue;
                    }
                }
                let minus = sign(&mut mq, contexts, around, negative >> place);
                significant |= 1 << FIRST << place;
                negative |= u64::from(minus) << FIRST << place;
                self.data[(data + place as usize) & (PLACES - 1)] = minus << 31 | 3 << plane;
            }
            let word = &mut self.words[at];
            (word.significant, word.negative) = (significant, negative);
            self.tell(block, at, significant & !before, negative & !before);
        }
        *decoder = mq;
    }

    /// Tells the words around one which of its coefficients have become significant, and which of these are negative.
    #[inline(always)]
    fn tell(&mut self, block: &Block, word: usize, significant: u64, negative: u64) {
        if significant == 0 || block.is_one_word() {
            return;
        }
        let stride = block.stride();
        let mut tell = |word: usize, significant: u64, negative: u64| {
            let word = &mut self.words[word & (WORDS - 1)];
            word.significant |= significant;
            word.negative |= negative;
        };
        let left = [significant, negative].map(|bits| bits << (GROUP * COLUMN) & RIGHT);
        let right = [significant, negative].map(|bits| bits >> (GROUP * COLUMN));
        tell(word - 1, left[0], left[1]);
        tell(word + 1, right[0], right[1]);
        for (word, [significant, negative]) in
            [(word - 1, left), (word, [significant, negative]), (word + 1, right)]
        {
            tell(word - stride, (significant & TOP) << 4, (negative & TOP) << 4);
            tell(word + stride, (significant & BOTTOM) >> 4, (negative & BOTTOM) >> 4);
        }
    }
}

/// The places of a word that have a significant neighbour.
#[inline(always)]
fn near(significant: u64) -> u64 {
    let others = significant << 1 | significant >> 1;
    let all = others | significant;
    others | all << COLUMN | all >> COLUMN
}

/// D.3.2: 1 for a coefficient that is negative, with the neighbourhood in the lowest bits of `around` and `negative`.
#[inline(always)]
fn sign(mq: &mut Mq<'_>, contexts: &mut Contexts, around: u64, negative: u64) -> u32 {
    let context = SIGN[neighbour_signs(around, negative)];
    mq.decode(&mut contexts[usize::from(context) & 31]) ^ u32::from(context >> 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of the logarithms of width and height; miri is slow.
    const LARGEST: u32 = if cfg!(miri) { 3 } else { 10 };

    /// The passes as the standard describes them, coefficient by coefficient, on a grid with a border.
    struct Slow {
        stride: usize,
        significant: Vec<bool>,
        negative: Vec<bool>,
        coded: Vec<bool>,
        refined: Vec<bool>,
        magnitude: Vec<i32>,
        /// What lies in the middle of what a magnitude can still be.
        half: Vec<i32>,
    }

    impl Slow {
        fn decode(segment: &[u8], block: &Block) -> Vec<i32> {
            let stride = block.width + 2;
            let area = stride * (block.height + 2);
            let [significant, negative, coded, refined] = [(); 4].map(|()| vec![false; area]);
            let [magnitude, half] = [(); 2].map(|()| vec![0; area]);
            let mut slow = Self { stride, significant, negative, coded, refined, magnitude, half };
            let place = |row: usize, col: usize| (row + 1) * stride + col + 1;
            let columns: Vec<Vec<_>> = (0..block.height)
                .step_by(4)
                .flat_map(|top| (0..block.width).map(move |col| (top, col)))
                .map(|(top, col)| (top..block.height.min(top + 4)).map(|row| place(row, col)).collect())
                .collect();
            let (mut mq, mut contexts) = (Mq::new(segment), CONTEXTS);
            for pass in 2..block.passes + 2 {
                let plane = block.planes - 1 - pass / 3;
                match pass % 3 {
                    0 => columns.iter().flatten().for_each(|&at| {
                        slow.coded[at] = !slow.significant[at] && slow.near(at) != 0;
                        if slow.coded[at] {
                            slow.significance(&mut mq, &mut contexts, block, plane, at);
                        }
                    }),
                    1 => columns.iter().flatten().for_each(|&at| {
                        if slow.significant[at] && !slow.coded[at] {
                            let context = match (slow.refined[at], slow.near(at)) {
                                (true, _) => 16,
                                (false, 0) => 14,
                                (false, _) => 15,
                            };
                            slow.refined[at] = true;
                            let bit = mq.decode(&mut contexts[context]).cast_signed();
                            slow.magnitude[at] |= bit << plane;
                            slow.half[at] = (1 << plane) / 2;
                        }
                    }),
                    _ => {
                        for column in &columns {
                            slow.cleanup(&mut mq, &mut contexts, block, plane, column);
                        }
                        if block.segmentation_symbols {
                            (0..4).for_each(|_| _ = mq.decode(&mut contexts[UNIFORM]));
                        }
                    }
                }
                if block.reset_contexts {
                    contexts = CONTEXTS;
                }
            }
            let value = |at: usize| {
                let magnitude = slow.magnitude[at] + slow.half[at];
                if slow.negative[at] { -magnitude } else { magnitude }
            };
            (0..block.height)
                .flat_map(|row| (0..block.width).map(move |col| place(row, col)))
                .map(value)
                .collect()
        }

        /// The significant neighbours, by the bits of [`neighbours`].
        fn near(&self, at: usize) -> usize {
            let stride = self.stride;
            let (above, below) = (at - stride, at + stride);
            let around = [above - 1, at - 1, below - 1, above + 1, at + 1, below + 1, above, at, below];
            (0..9).filter(|&bit| bit != 7 && self.significant[around[bit]]).map(|bit| 1 << bit).sum()
        }

        fn significance(
            &mut self,
            mq: &mut Mq<'_>,
            contexts: &mut Contexts,
            block: &Block,
            plane: u32,
            at: usize,
        ) {
            let context = significance(block.orientation)[self.near(at)];
            if mq.decode(&mut contexts[usize::from(context)]) != 0 {
                self.sign(mq, contexts, plane, at);
            }
        }

        fn sign(&mut self, mq: &mut Mq<'_>, contexts: &mut Contexts, plane: u32, at: usize) {
            let around = [(0, at - 1), (2, at + 1), (5, at - self.stride), (7, at + self.stride)];
            let bits = |(bit, at): (usize, usize)| {
                usize::from(self.significant[at]) << bit | usize::from(self.negative[at]) << (bit + 1)
            };
            let context = SIGN[around.map(bits).iter().sum::<usize>()];
            let decision = mq.decode(&mut contexts[usize::from(context & 31)]);
            self.significant[at] = true;
            self.negative[at] = (decision != 0) != (context >= 0x80);
            (self.magnitude[at], self.half[at]) = (1 << plane, (1 << plane) / 2);
        }

        fn cleanup(
            &mut self,
            mq: &mut Mq<'_>,
            contexts: &mut Contexts,
            block: &Block,
            plane: u32,
            column: &[usize],
        ) {
            let waits = |slow: &Self, at: usize| !slow.significant[at] && !slow.coded[at];
            let mut rest = column;
            if column.len() == 4 && column.iter().all(|&at| waits(self, at) && self.near(at) == 0) {
                if mq.decode(&mut contexts[RUN_LENGTH]) == 0 {
                    return;
                }
                let run = mq.decode(&mut contexts[UNIFORM]) << 1 | mq.decode(&mut contexts[UNIFORM]);
                self.sign(mq, contexts, plane, column[run as usize]);
                rest = &column[run as usize + 1..];
            }
            for &at in rest {
                if waits(self, at) {
                    self.significance(mq, contexts, block, plane, at);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 300 }))]
        /// Any bytes are a codeword segment, and code-blocks at the edge of a tile have any size.
        #[test]
        fn equals_the_standard_coefficient_by_coefficient(
            segment in prop::collection::vec(any::<u8>(), 0..if cfg!(miri) { 20 } else { 1000 }),
            (log_width, log_height) in (0..=LARGEST, 0..=LARGEST),
            (less_width, less_height) in (0..20_usize, 0..20_usize),
            (orientation, planes, passes) in (0..4_u8, 1..=30_u32, 1..=88_u32),
            reset_contexts in any::<bool>(),
        ) {
            let (width, height) = (1_usize << log_width, 1_usize << log_height.min(12 - log_width));
            let block = Block {
                width: width.saturating_sub(less_width).max(1),
                height: height.saturating_sub(less_height).max(1),
                orientation,
                planes,
                passes: passes.min(3 * planes - 2),
                reset_contexts,
                segmentation_symbols: !reset_contexts,
            };
            let expected = Slow::decode(&segment, &block);
            let [mut portable, mut chosen] = [Tier1::default(), Tier1::default()];
            portable.decode_portably(&segment, &block);
            chosen.decode(&segment, &block);
            for tier1 in [portable, chosen] {
                let mut found = Vec::<i32>::new();
                tier1.append(&block, 1.0, &mut found);
                prop_assert!(found == expected);
            }
        }
    }
}
