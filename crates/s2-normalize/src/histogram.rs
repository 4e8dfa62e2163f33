//! Exact percentiles by counting.

use ndarray::{ArrayView2, Zip};

use crate::{Error, Result};

/// How often each digital number occurs among the valid pixels of a band.
///
/// A band has at most 65 536 different values, so counts (512 KiB) hold all that percentiles need: a tile of 120
/// million pixels may be added window by window, and the result is that of sorting all of it.
///
/// ```
/// use s2_normalize::Histogram;
/// use s2_normalize::ndarray::array;
///
/// let dn = array![[0_u16, 1200], [1300, 9000]];
/// let cloud = array![[false, false], [false, true]];
/// let mut histogram = Histogram::new();
/// histogram.add(dn.view(), cloud.view())?;
/// assert_eq!(histogram.count(), 2);
/// assert_eq!(histogram.percentile(50.0), Some(1250.0));
/// # Ok::<(), s2_normalize::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    /// One count for each DN; the one of DN 0 stays 0.
    counts: Vec<u64>,
}

impl Histogram {
    /// Without pixels.
    pub fn new() -> Self {
        Self { counts: vec![0; usize::from(u16::MAX) + 1] }
    }

    /// Counts the pixels of `dn` that are neither nodata (DN 0) nor `excluded`. Both are `[row, column]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when the shapes differ; nothing is counted then.
    pub fn add(&mut self, dn: ArrayView2<'_, u16>, excluded: ArrayView2<'_, bool>) -> Result<()> {
        if dn.dim() != excluded.dim() {
            return Err(Error::Shape {
                what: "mask of excluded pixels",
                expected: dn.dim(),
                found: excluded.dim(),
            });
        }
        Zip::from(dn).and(excluded).for_each(|&dn, &excluded| {
            self.counts[usize::from(dn)] += u64::from(dn != 0 && !excluded);
        });
        Ok(())
    }

    /// Adds the counts of another histogram: of another window, or from another thread.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The number of pixels counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The `q`-th percentile, in DN, by linear interpolation between the two nearest ranks (definition 7 of
    /// Hyndman and Fan 1996, the default of `numpy.percentile`).
    ///
    /// The floating-point steps are those of numpy, in its order, so the result is equal to numpy's to the last
    /// bit. `None` without pixels, and when `q` is not between 0 and 100.
    pub fn percentile(&self, q: f64) -> Option<f64> {
        self.percentile_plus(q, 0)
    }

    /// The percentile of DN + `offset`: the offset is added to the integers, before anything is rounded.
    #[expect(clippy::cast_precision_loss, reason = "counts of pixels are far below 2^53")]
    pub(crate) fn percentile_plus(&self, q: f64, offset: i32) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=100.0).contains(&q) {
            return None;
        }
        let last = count - 1;
        let rank = last as f64 * (q / 100.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= rank <= last")]
        let below = (rank.floor() as u64).min(last);
        let t = rank - below as f64;
        let value = |rank| f64::from(self.dn_at(rank)) + f64::from(offset);
        let (a, b) = (value(below), value((below + 1).min(last)));
        // The upper half is reckoned from b, which keeps the result monotonic in t and exact at t = 1.
        Some(if t < 0.5 { a + (b - a) * t } else { b - (b - a) * (1.0 - t) })
    }

    /// The DN at this rank, from 0, among the sorted pixels.
    fn dn_at(&self, rank: u64) -> u16 {
        let mut seen = 0;
        (0..=u16::MAX)
            .zip(&self.counts)
            .find(|&(_, &count)| {
                seen += count;
                rank < seen
            })
            .map_or(u16::MAX, |(dn, _)| dn)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Histogram").field("count", &self.count()).finish_non_exhaustive()
    }
}
