//! The inverse wavelet transforms (ISO/IEC 15444-1 Annex F), on any part of a resolution.

use crate::rect::Rect;

/// Columns that are lifted together, so that all their rows stay in the cache.
const STRIP: usize = 64;

/// The kind of coefficients: `i32` for the reversible 5/3 transform, `f32` for the irreversible 9/7.
pub(crate) trait Coefficient: Copy + Default + Send + Sync + 'static {
    /// Lifting steps: samples at even and at odd places in turn, each from its two neighbours. As far as this many
    /// samples away, others have an influence.
    const STEPS: u8;
    /// A coefficient from its sign, in the top bit, and twice its quantised magnitude (E.1).
    fn dequantise(doubled: u32, step: f32) -> Self;
    /// One lifting step: `x` between its neighbours `a` and `b`.
    fn lift(step: u8, x: &mut [Self], a: &[Self], b: &[Self]);
    /// What comes before the first step.
    fn scale(low: &mut [Self], high: &mut [Self]);
    /// A single sample at an odd place (F.3.6).
    fn halve(self) -> Self;
}

impl Coefficient for i32 {
    const STEPS: u8 = 2;

    #[inline]
    fn dequantise(doubled: u32, _: f32) -> Self {
        let negative = doubled.cast_signed() >> 31;
        ((doubled << 1 >> 2).cast_signed() ^ negative) - negative
    }

    // F.3.8.2.1. Wrapping, as only damaged data overflow.
    #[inline]
    fn lift(step: u8, x: &mut [Self], a: &[Self], b: &[Self]) {
        let neighbours = a.iter().zip(b).map(|(&a, &b)| a.wrapping_add(b));
        if step == 0 {
            x.iter_mut().zip(neighbours).for_each(|(x, ab)| *x = x.wrapping_sub(ab.wrapping_add(2) >> 2));
        } else {
            x.iter_mut().zip(neighbours).for_each(|(x, ab)| *x = x.wrapping_add(ab >> 1));
        }
    }

    fn scale(_: &mut [Self], _: &mut [Self]) {}

    fn halve(self) -> Self {
        self / 2
    }
}

impl Coefficient for f32 {
    const STEPS: u8 = 4;

    #[expect(clippy::cast_precision_loss, reason = "beyond 24 bits the last ones do not matter")]
    #[inline]
    fn dequantise(doubled: u32, step: f32) -> Self {
        let magnitude = (doubled & 0x7fff_ffff) as Self * (0.5 * step);
        magnitude.copysign(if doubled >> 31 == 0 { 1.0 } else { -1.0 })
    }

    #[inline]
    fn lift(step: u8, x: &mut [Self], a: &[Self], b: &[Self]) {
        // Table F.4: δ, γ, β, α.
        let factor = [0.443_506_87, 0.882_911_1, -0.052_980_12, -1.586_134_3][usize::from(step)];
        for (x, (a, b)) in x.iter_mut().zip(a.iter().zip(b)) {
            *x -= factor * (a + b);
        }
    }

    fn scale(low: &mut [Self], high: &mut [Self]) {
        const K: f32 = 1.230_174_1;
        low.iter_mut().for_each(|x| *x *= K);
        high.iter_mut().for_each(|x| *x *= 1.0 / K);
    }

    fn halve(self) -> Self {
        self / 2.0
    }
}

/// Undoes one decomposition: `plane` holds the four sub-bands of `rect`, LL and HL side by side above LH and HH. The rows
/// of the result are handed to `row` with their place in `rect`.
pub(crate) fn synthesise<C: Coefficient>(rect: &Rect, plane: &mut [C], mut row: impl FnMut(usize, &[C])) {
    let (width, height) = (rect.width(), rect.height());
    if rect.is_empty() {
        return;
    }
    let low = rect.sub_band(false, false);
    let mut line = vec![C::default(); width];
    for samples in plane.chunks_exact_mut(width) {
        let (lows, highs) = samples.split_at_mut(low.width());
        if width == 1 {
            highs.iter_mut().for_each(|x| *x = x.halve());
            continue;
        }
        C::scale(lows, highs);
        for step in 0..C::STEPS {
            let (target, other): (&mut [C], &[C]) =
                if step.is_multiple_of(2) { (&mut *lows, &*highs) } else { (&mut *highs, &*lows) };
            lift_line(step, target, other, before(step, rect.x0));
        }
        let (first, second) = if rect.x0.is_multiple_of(2) { (&*lows, &*highs) } else { (&*highs, &*lows) };
        for (pair, (&a, &b)) in line.chunks_exact_mut(2).zip(first.iter().zip(second)) {
            (pair[0], pair[1]) = (a, b);
        }
        if width % 2 == 1 {
            line[width - 1] = first[width / 2];
        }
        samples.copy_from_slice(&line);
    }

    let (lows, highs) = plane.split_at_mut(low.height() * width);
    if height == 1 {
        highs.iter_mut().for_each(|x| *x = x.halve());
    } else {
        C::scale(lows, highs);
        for start in (0..width).step_by(STRIP) {
            let strip = start..(start + STRIP).min(width);
            for step in 0..C::STEPS {
                let (target, other): (&mut [C], &[C]) =
                    if step.is_multiple_of(2) { (&mut *lows, &*highs) } else { (&mut *highs, &*lows) };
                let last = other.len() / width - 1;
                let before = before(step, rect.y0);
                for (index, target) in target.chunks_exact_mut(width).enumerate() {
                    let a = index.saturating_sub(before).min(last) * width;
                    let b = (index + 1 - before).min(last) * width;
                    C::lift(
                        step,
                        &mut target[strip.clone()],
                        &other[a..][strip.clone()],
                        &other[b..][strip.clone()],
                    );
                }
            }
        }
    }
    let odd_start = (rect.y0 % 2) as usize;
    for index in 0..height {
        let source = if (index + odd_start).is_multiple_of(2) { &*lows } else { &*highs };
        row(index, &source[index / 2 * width..][..width]);
    }
}

/// Which neighbour comes first: of the sample `i` of one kind, the samples `i - before` and `i - before + 1` of the other
/// kind are the neighbours. Beyond the ends, the extension (F.3.7) mirrors onto the nearest one.
fn before(step: u8, start: u32) -> usize {
    usize::from(step.is_multiple_of(2)) ^ (start % 2) as usize
}

fn lift_line<C: Coefficient>(step: u8, target: &mut [C], other: &[C], before: usize) {
    let (count, last) = (target.len(), other.len() - 1);
    let inner = before.min(count)..count.min(last + before);
    let mut edge = |index: usize| {
        let a = index.saturating_sub(before).min(last);
        let b = (index + 1 - before).min(last);
        C::lift(step, &mut target[index..=index], &other[a..=a], &other[b..=b]);
    };
    (0..inner.start).for_each(&mut edge);
    (inner.end.max(inner.start)..count).for_each(&mut edge);
    if inner.start < inner.end {
        let (start, length) = (inner.start - before, inner.len());
        C::lift(step, &mut target[inner], &other[start..][..length], &other[start + 1..][..length]);
    }
}
