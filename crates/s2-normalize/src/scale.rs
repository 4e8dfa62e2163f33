//! Scaling to the range of a network's input.

use ndarray::{ArrayView2, ArrayViewMut2, Zip};

use crate::{BandStatistics, Error, Result};

impl BandStatistics {
    /// The network input for a digital number, in −1 to 1:
    /// `2 * (reflectance - low) / (high - low) - 1`, clipped.
    ///
    /// All in `f64`, from left to right as written, then rounded once to `f32`. With `dn + offset` an exact
    /// integer this gives the same bits for a scene stored under two radiometric offsets.
    ///
    /// Nodata (DN 0) becomes −1, the dark end. A network takes no `NaN`, and zero would be the middle of the
    /// range, an ordinary land surface. That the pixel has no data is told by the one-hot channel of its scene
    /// class, or by a mask.
    pub fn normalize(&self, dn: u16) -> f32 {
        if dn == 0 {
            return -1.0;
        }
        let reflectance = self.radiometry().reflectance_f64(dn);
        let scaled = 2.0 * (reflectance - self.low) / (self.high - self.low) - 1.0;
        #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
        let clipped = scaled.clamp(-1.0, 1.0) as f32;
        clipped
    }

    /// [`Self::normalize`] for a whole window, `[row, column]`. Where there are more than twice as many pixels as digital
    /// numbers up to the largest, each number is scaled once, in a table of up to 256 KiB.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when the shapes differ; `out` is unchanged then.
    pub fn normalize_into(&self, dn: ArrayView2<'_, u16>, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        if dn.dim() != out.dim() {
            return Err(Error::Shape { what: "normalised output", expected: dn.dim(), found: out.dim() });
        }
        let largest = dn.fold(0, |largest, &dn| dn.max(largest));
        if dn.len() / 2 > usize::from(largest) {
            // Digital numbers come again and again: each is scaled once.
            let table: Vec<f32> = (0..=largest).map(|dn| self.normalize(dn)).collect();
            Zip::from(out).and(dn).for_each(|out, &dn| *out = table[usize::from(dn)]);
        } else {
            Zip::from(out).and(dn).for_each(|out, &dn| *out = self.normalize(dn));
        }
        Ok(())
    }
}
