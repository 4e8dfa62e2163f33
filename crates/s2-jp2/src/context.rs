//! Contexts of coefficient bits (ISO/IEC 15444-1 Tables D.1 to D.3 and D.7), by the neighbourhood of a coefficient.
//!
//! A neighbourhood lies in the lowest bits of a word: three columns of six rows, of which the upper three count; the
//! coefficient itself is in the middle, at bit 7.

use crate::mq::Context;

/// Three rows of three columns.
const NEIGHBOURHOOD: u64 = 0b111_000_111_000_111;

/// Contexts (Table D.7): 0 to 8 significance, 9 to 13 sign, 14 to 16 refinement.
pub(crate) const REFINEMENT: usize = 14;
pub(crate) const RUN_LENGTH: usize = 17;
pub(crate) const UNIFORM: usize = 18;
pub(crate) type Contexts = [Context; 32];

pub(crate) const CONTEXTS: Contexts = {
    let mut contexts = [Context::new(0); 32];
    contexts[0] = Context::new(4);
    contexts[RUN_LENGTH] = Context::new(3);
    contexts[UNIFORM] = Context::new(46);
    contexts
};

/// Significance contexts (Table D.1) by the neighbourhood as [`neighbours`] gives it, for LL and LH, for HL, and for HH.
static SIGNIFICANCE: [[u8; 512]; 3] = {
    let mut table = [[0; 512]; 3];
    let mut bits = 0;
    while bits < 512 {
        let horizontal = on2(bits, 1, 4);
        let vertical = on2(bits, 6, 8);
        let diagonal = on2(bits, 0, 2) + on2(bits, 3, 5);
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

/// Sign contexts (Tables D.2 and D.3). Index as [`neighbour_signs`] gives it. Value: context, and in bit 7 what the
/// decision is xor-ed with.
pub(crate) static SIGN: [u8; 512] = {
    let mut table = [0; 512];
    let mut bits = 0;
    while bits < 512 {
        let horizontal = contribution(bits, 0, 1) + contribution(bits, 2, 3);
        let vertical = contribution(bits, 5, 6) + contribution(bits, 7, 8);
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

/// The neighbourhood in the lowest bits of `around`, three rows of three columns, as nine bits: the column to the west,
/// that to the east, its own.
#[inline(always)]
pub(crate) fn neighbours(around: u64) -> usize {
    let bits = around & NEIGHBOURHOOD;
    ((bits | bits >> 9) & 511) as usize
}

/// The neighbours to the west, east, north and south in the lowest bits of `around`, each with its sign after it, at
/// bits 0, 2, 5 and 7.
#[inline(always)]
pub(crate) fn neighbour_signs(around: u64, negative: u64) -> usize {
    const CROSS: u64 = 1 << 1 | 1 << 6 | 1 << 8 | 1 << 13;
    let bits = (around & CROSS) | (negative & CROSS) << 1;
    ((bits | bits >> 10) >> 1 & 511) as usize
}

/// The significance contexts of a sub-band: 0 LL, 1 HL, 2 LH, 3 HH.
pub(crate) fn significance(orientation: u8) -> &'static [u8; 512] {
    match orientation {
        0 | 2 => &SIGNIFICANCE[0],
        1 => &SIGNIFICANCE[1],
        _ => &SIGNIFICANCE[2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From west to east, from north to south, without the middle: row and column of each neighbour.
    const PLACES: [(usize, usize); 8] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)];

    fn word(set: impl Fn(usize) -> bool) -> u64 {
        PLACES
            .iter()
            .enumerate()
            .filter(|(index, _)| set(*index))
            .map(|(_, (row, col))| 1 << (6 * col + row))
            .sum()
    }

    /// What a sum has to be for a row of a table: any, exactly, or at least.
    #[derive(Clone, Copy)]
    enum Sum {
        Any,
        Is(usize),
        From(usize),
    }
    use Sum::{Any, From, Is};

    impl Sum {
        fn holds(self, sum: usize) -> bool {
            match self {
                Any => true,
                Is(wanted) => sum == wanted,
                From(least) => sum >= least,
            }
        }
    }

    /// Table D.1 as it is printed: the rows for LL and LH by horizontal, vertical and diagonal neighbours, those for HH by
    /// the first two together and the diagonal ones.
    const LOW: [(Sum, Sum, Sum, u8); 9] = [
        (Is(2), Any, Any, 8),
        (Is(1), From(1), Any, 7),
        (Is(1), Is(0), From(1), 6),
        (Is(1), Is(0), Is(0), 5),
        (Is(0), Is(2), Any, 4),
        (Is(0), Is(1), Any, 3),
        (Is(0), Is(0), From(2), 2),
        (Is(0), Is(0), Is(1), 1),
        (Is(0), Is(0), Is(0), 0),
    ];
    const HIGH: [(Sum, Sum, u8); 9] = [
        (Any, From(3), 8),
        (From(1), Is(2), 7),
        (Is(0), Is(2), 6),
        (From(2), Is(1), 5),
        (Is(1), Is(1), 4),
        (Is(0), Is(1), 3),
        (From(2), Is(0), 2),
        (Is(1), Is(0), 1),
        (Is(0), Is(0), 0),
    ];

    #[test]
    fn significance_contexts_are_those_of_table_d1() {
        for bits in 0..256 {
            let set = |index: usize| bits >> index & 1 != 0;
            let count = |places: [usize; 2]| places.into_iter().filter(|&index| set(index)).count();
            let (horizontal, vertical) = (count([3, 4]), count([1, 6]));
            let diagonal = count([0, 2]) + count([5, 7]);
            let low = |horizontal: usize, vertical: usize| {
                let row = |&(h, v, d, context): &(Sum, Sum, Sum, u8)| {
                    (h.holds(horizontal) && v.holds(vertical) && d.holds(diagonal)).then_some(context)
                };
                LOW.iter().find_map(row).expect("the table is complete")
            };
            let row = |&(near, d, context): &(Sum, Sum, u8)| {
                (near.holds(horizontal + vertical) && d.holds(diagonal)).then_some(context)
            };
            let high = HIGH.iter().find_map(row).expect("the table is complete");
            let expected =
                [low(horizontal, vertical), low(vertical, horizontal), low(horizontal, vertical), high];
            for (orientation, expected) in (0..).zip(expected) {
                let found = significance(orientation)[neighbours(word(set))];
                assert_eq!(found, expected, "neighbours {bits:08b} in sub-band {orientation}");
            }
        }
    }

    #[test]
    fn sign_contexts_are_those_of_tables_d2_and_d3() {
        // Context and what the decision is xor-ed with, by the contributions −1, 0 and 1: vertical inside horizontal.
        const D3: [[(u8, u8); 3]; 3] =
            [[(13, 1), (12, 1), (11, 1)], [(10, 1), (9, 0), (10, 0)], [(11, 0), (12, 0), (13, 0)]];
        for bits in 0..256_usize {
            // Neighbours 1, 3, 4 and 6: whether they are significant, and their signs.
            let cross = [1, 3, 4, 6];
            let state =
                |index: usize| cross.iter().position(|&place| place == index).map(|at| bits >> (2 * at) & 3);
            let significant = |index: usize| state(index).is_some_and(|state| state & 1 != 0);
            let negative = |index: usize| state(index).is_some_and(|state| state == 3);
            // The contributions, one higher: 0, 1 and 2.
            let one = |index: usize| match (significant(index), negative(index)) {
                (false, _) => 1_usize,
                (true, false) => 2,
                (true, true) => 0,
            };
            let sum = |a: usize, b: usize| (one(a) + one(b)).clamp(1, 3) - 1;
            let (context, exclusive) = D3[sum(3, 4)][sum(1, 6)];
            let found = SIGN[neighbour_signs(word(significant), word(negative))];
            assert_eq!((found & 31, found >> 7), (context, exclusive), "signs {bits:08b}");
        }
    }
}
