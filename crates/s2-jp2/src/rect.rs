//! Rectangles on the reference grid, of resolutions and of sub-bands (ISO/IEC 15444-1 Annex B).

/// Columns `x0..x1` and rows `y0..y1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x0: u32,
    pub(crate) y0: u32,
    pub(crate) x1: u32,
    pub(crate) y1: u32,
}

impl Rect {
    pub(crate) fn width(&self) -> usize {
        self.x1.saturating_sub(self.x0) as usize
    }

    pub(crate) fn height(&self) -> usize {
        self.y1.saturating_sub(self.y0) as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.width() == 0 || self.height() == 0
    }

    pub(crate) fn intersect(&self, other: &Self) -> Self {
        Self {
            x0: self.x0.max(other.x0),
            y0: self.y0.max(other.y0),
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
        }
    }

    /// This rectangle grown by `margin` on all sides, but not beyond `bounds`.
    pub(crate) fn grow(&self, margin: u32, bounds: &Self) -> Self {
        Self {
            x0: self.x0.saturating_sub(margin),
            y0: self.y0.saturating_sub(margin),
            x1: self.x1.saturating_add(margin),
            y1: self.y1.saturating_add(margin),
        }
        .intersect(bounds)
    }

    /// The same place when every length is divided by `2^levels` (B-14).
    pub(crate) fn reduce(&self, levels: u32) -> Self {
        let half = |v: u32| ceil_shift(v, levels);
        Self { x0: half(self.x0), y0: half(self.y0), x1: half(self.x1), y1: half(self.y1) }
    }

    /// The part of a sub-band that one decomposition of this rectangle gives (B-15): samples at even places go to the
    /// low band, those at odd places to the high one.
    pub(crate) fn sub_band(&self, high_x: bool, high_y: bool) -> Self {
        let half = |v: u32, high: bool| if high { v / 2 } else { v.div_ceil(2) };
        Self {
            x0: half(self.x0, high_x),
            y0: half(self.y0, high_y),
            x1: half(self.x1, high_x),
            y1: half(self.y1, high_y),
        }
    }
}

/// `⌈value / 2^shift⌉`.
pub(crate) fn ceil_shift(value: u32, shift: u32) -> u32 {
    match shift {
        0 => value,
        1..32 => (value >> shift) + u32::from(value & ((1 << shift) - 1) != 0),
        _ => u32::from(value > 0),
    }
}
