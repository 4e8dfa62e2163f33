//! Training: patches from prepared scenes or from folders of chips, and the run over them.
//!
//! ```text
//! scene::SceneSource ─┐
//!                     ├─► Source ─► patches::Patches ─► run::Run ─► bundle
//! chips::Chip ────────┘
//! ```

use ndarray::ArrayView2;
use s2_normalize::BandStatistics;
use unet_burn::{RawImage, Scale};

mod chips;
mod patches;
mod run;
mod scene;

pub use chips::{Chip, ChipFolder, score_chips, whole};
pub use patches::{Draw, Patches, Region, Sampler};
pub use run::{CHECKPOINT, Display, Keep, Run};
pub use scene::{SceneSource, scene_regions, strips};

/// An image in memory that patches are cut from.
pub trait Source: Send + Sync {
    /// What it is, for messages.
    fn name(&self) -> &str;
    /// Rows and columns.
    fn size(&self) -> (usize, usize);
    /// Stored counts of a square, mirrored outside.
    fn image(&self, row: isize, col: isize, size: usize) -> RawImage;
    /// Truth, `[row, column]`: 0, 1 or [`IGNORE_INDEX`](unet_burn::IGNORE_INDEX).
    fn truth(&self) -> ArrayView2<'_, u8>;
}

/// The ends of a band's range in digital numbers.
fn scale(band: &BandStatistics) -> Scale {
    let dn = |reflectance: f64| reflectance * f64::from(band.quantification) - f64::from(band.offset);
    Scale { low: dn(band.low), high: dn(band.high) }
}
