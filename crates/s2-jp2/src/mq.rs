//! The MQ arithmetic decoder (ISO/IEC 15444-1 Annex C).
//!
//! The code register has 64 bits: `Chigh` of the standard lies in the top 16, and below it up to 48 bits of the stream
//! that the next symbols will need, so that bytes are fetched six or seven at a time instead of one. The interval
//! register lies in the top 16 bits as well. A decision is made without branches: which way it goes is what the
//! coder could not predict, nor can the processor.

use std::hint::select_unpredictable;

/// Table C.2: probability `Qe`, next state after the more and the less probable symbol, and whether the sense of the
/// more probable symbol switches.
const STATES: [(u16, u8, u8, bool); 47] = [
    (0x5601, 1, 1, true),
    (0x3401, 2, 6, false),
    (0x1801, 3, 9, false),
    (0x0ac1, 4, 12, false),
    (0x0521, 5, 29, false),
    (0x0221, 38, 33, false),
    (0x5601, 7, 6, true),
    (0x5401, 8, 14, false),
    (0x4801, 9, 14, false),
    (0x3801, 10, 14, false),
    (0x3001, 11, 17, false),
    (0x2401, 12, 18, false),
    (0x1c01, 13, 20, false),
    (0x1601, 29, 21, false),
    (0x5601, 15, 14, true),
    (0x5401, 16, 14, false),
    (0x5101, 17, 15, false),
    (0x4801, 18, 16, false),
    (0x3801, 19, 17, false),
    (0x3401, 20, 18, false),
    (0x3001, 21, 19, false),
    (0x2801, 22, 19, false),
    (0x2401, 23, 20, false),
    (0x2201, 24, 21, false),
    (0x1c01, 25, 22, false),
    (0x1801, 26, 23, false),
    (0x1601, 27, 24, false),
    (0x1401, 28, 25, false),
    (0x1201, 29, 26, false),
    (0x1101, 30, 27, false),
    (0x0ac1, 31, 28, false),
    (0x09c1, 32, 29, false),
    (0x08a1, 33, 30, false),
    (0x0521, 34, 31, false),
    (0x0441, 35, 32, false),
    (0x02a1, 36, 33, false),
    (0x0221, 37, 34, false),
    (0x0141, 38, 35, false),
    (0x0111, 39, 36, false),
    (0x0085, 40, 37, false),
    (0x0049, 41, 38, false),
    (0x0025, 42, 39, false),
    (0x0015, 43, 40, false),
    (0x0009, 44, 41, false),
    (0x0005, 45, 42, false),
    (0x0001, 45, 43, false),
    (0x5601, 46, 46, false),
];

/// The state of a context in one word, so that one load brings all of it: `Qe` in the top 16 bits, and the number of the
/// state with its more probable symbol in the lowest eight.
#[derive(Clone, Copy)]
pub(crate) struct Context(u64);

impl Context {
    pub(crate) const fn new(state: usize) -> Self {
        Self::with_symbol(state, 0)
    }

    const fn with_symbol(state: usize, symbol: u32) -> Self {
        Self((STATES[state].0 as u64) << 48 | (state as u64) << 1 | symbol as u64)
    }
}

/// By state and symbol (padded to 8 bits): the next context after the expected decision and that after the other. Both are
/// loaded before it is known which is needed.
static NEXT: [[u64; 2]; 256] = {
    let mut next = [[0; 2]; 256];
    let mut state = 0;
    while state < STATES.len() {
        let (_, more, less, switches) = STATES[state];
        let mut symbol = 0;
        while symbol < 2 {
            let other = if switches { 1 - symbol } else { symbol };
            let expected = Context::with_symbol(more as usize, symbol).0;
            let unexpected = Context::with_symbol(less as usize, other).0;
            next[2 * state + symbol as usize] = [expected, unexpected];
            symbol += 1;
        }
        state += 1;
    }
    next
};

/// A decoder of one codeword segment.
#[derive(Clone)]
pub(crate) struct Mq<'a> {
    interval: u64,
    code: u64,
    /// Bits of look-ahead in `code` beyond the 15 that a renormalisation may shift out at once.
    ahead: i32,
    data: &'a [u8],
    at: usize,
    /// The byte before was 0xff: the next one has 7 bits, or is a marker that ends the segment.
    after_ff: bool,
}

impl<'a> Mq<'a> {
    /// Begins a segment (C.3.5). The first bit of the register is always 0.
    pub(crate) fn new(data: &'a [u8]) -> Self {
        let mut mq = Self { interval: 0x8000 << 48, code: 0, ahead: -15, data, at: 0, after_ff: false };
        mq.fill();
        mq
    }

    /// Decodes a symbol (C.3.2) and adapts its context.
    #[inline(always)]
    pub(crate) fn decode(&mut self, context: &mut Context) -> u32 {
        let Context(state) = *context;
        let qe = state & 0xffff << 48;
        let next = NEXT[(state & 255) as usize];
        let interval = self.interval.wrapping_sub(qe);
        let (code, lower) = self.code.overflowing_sub(qe);
        // The decision is not the expected one in the lower part, and the other way round when the parts are
        // exchanged because the lower one is the larger (C.3.2, conditional exchange).
        let unexpected = lower ^ (interval < qe);
        // Contexts adapt only when the interval is renormalised: always after what was not expected.
        let expected = select_unpredictable(interval.cast_signed() < 0, state, next[0]);
        *context = Context(select_unpredictable(unexpected, next[1], expected));
        let code = select_unpredictable(lower, self.code, code);
        let interval = select_unpredictable(lower, qe, interval);
        let shift = interval.leading_zeros();
        self.interval = interval << shift;
        self.code = code << shift;
        self.ahead -= shift.cast_signed();
        if self.ahead < 0 {
            self.fill();
        }
        (state & 1) as u32 ^ u32::from(unexpected)
    }

    /// As [`decode`](Self::decode), for a context that nearly always gives what it expects and leaves the interval wide:
    /// then a branch is cheaper than what it saves.
    #[inline(always)]
    pub(crate) fn decode_expected(&mut self, context: &mut Context) -> u32 {
        let Context(state) = *context;
        let qe = state & 0xffff << 48;
        let interval = self.interval.wrapping_sub(qe);
        if self.code >= qe && interval.cast_signed() < 0 {
            self.code -= qe;
            self.interval = interval;
            return (state & 1) as u32;
        }
        self.decode(context)
    }

    /// Fetches bytes (C.3.4): as many as fit at once where none of them is 0xff.
    #[inline(always)]
    fn fill(&mut self) {
        if let Some(&bytes) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>())
            && !self.after_ff
        {
            let bytes = u64::from_be_bytes(bytes);
            let count = (48 - self.ahead) >> 3;
            let taken = !0_u64 << (64 - 8 * count);
            // The top bit of each byte that is 0xff, and possibly of ones above such a byte.
            let ff = (!bytes).wrapping_sub(0x0101_0101_0101_0101) & bytes & 0x8080_8080_8080_8080;
            if ff & taken == 0 {
                self.code = self.code.wrapping_add((bytes & taken) >> (16 + self.ahead));
                self.ahead += 8 * count;
                self.at += count.cast_unsigned() as usize;
                return;
            }
        }
        *self = self.clone().filled_bytewise();
    }

    /// By value, so that the registers need not lie in memory.
    #[cold]
    #[inline(never)]
    fn filled_bytewise(mut self) -> Self {
        while self.ahead <= 40 {
            // Beyond the end, and at a marker, the stream goes on with ones.
            let byte = self.data.get(self.at).copied().filter(|&byte| !self.after_ff || byte <= 0x8f);
            let bits = if self.after_ff && byte.is_some() { 7 } else { 8 };
            let value = u64::from(byte.unwrap_or(0xff));
            self.code = self.code.wrapping_add(value << (48 - self.ahead - bits));
            self.ahead += bits;
            if byte.is_some() {
                self.at += 1;
                self.after_ff = value == 0xff;
            } else {
                self.at = self.data.len();
                self.after_ff = false;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoder as the standard draws it (Figures C.15 to C.20), byte by byte.
    struct Standard<'a> {
        a: u32,
        c: u32,
        ct: u32,
        at: usize,
        data: &'a [u8],
    }

    impl<'a> Standard<'a> {
        fn new(data: &'a [u8]) -> Self {
            let mut decoder = Self { a: 0x8000, c: 0, ct: 0, at: 0, data };
            decoder.c = u32::from(decoder.byte(0)) << 16;
            decoder.byte_in();
            decoder.c <<= 7;
            decoder.ct -= 7;
            decoder
        }

        fn byte(&self, at: usize) -> u8 {
            self.data.get(at).copied().unwrap_or(0xff)
        }

        fn byte_in(&mut self) {
            if self.byte(self.at) == 0xff {
                if self.byte(self.at + 1) > 0x8f {
                    self.c += 0xff00;
                    self.ct = 8;
                } else {
                    self.at += 1;
                    self.c += u32::from(self.byte(self.at)) << 9;
                    self.ct = 7;
                }
            } else {
                self.at += 1;
                self.c += u32::from(self.byte(self.at)) << 8;
                self.ct = 8;
            }
        }

        fn decode(&mut self, state: &mut (usize, u32)) -> u32 {
            let (qe, more, less, switches) = STATES[state.0];
            let qe = u32::from(qe);
            self.a -= qe;
            let mps = if (self.c >> 16) < qe {
                let mps = self.a < qe;
                self.a = qe;
                mps
            } else {
                self.c -= qe << 16;
                if self.a & 0x8000 != 0 {
                    return state.1;
                }
                self.a >= qe
            };
            let symbol = if mps { state.1 } else { 1 - state.1 };
            if mps {
                state.0 = usize::from(more);
            } else {
                state.1 = if switches { 1 - state.1 } else { state.1 };
                state.0 = usize::from(less);
            }
            while self.a & 0x8000 == 0 {
                if self.ct == 0 {
                    self.byte_in();
                }
                self.a <<= 1;
                self.c <<= 1;
                self.ct -= 1;
            }
            symbol
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
        /// On any bytes, 0xff among them often, also beyond their end.
        #[test]
        fn equals_the_decoder_as_the_standard_draws_it(
            bytes in proptest::collection::vec(proptest::prop_oneof![3 => proptest::num::u8::ANY, 1 => 0xff..=0xff_u8], 0..200),
            order in proptest::collection::vec(0..19_usize, 2000),
        ) {
            let (mut fast, mut slow) = (Mq::new(&bytes), Standard::new(&bytes));
            let mut contexts = [Context::new(0); 19];
            let mut states = [(0, 0); 19];
            for context in order {
                let found = match context {
                    0..9 => fast.decode(&mut contexts[context]),
                    _ => fast.decode_expected(&mut contexts[context]),
                };
                let expected = slow.decode(&mut states[context]);
                proptest::prop_assert_eq!(found, expected);
            }
        }
    }
}
