//! How large an image may be before it is refused.

/// Sizes beyond which an image is refused before any memory is taken for it.
///
/// The defaults let every Sentinel-2 band through, also when it was written as a single tile, and keep the memory
/// of one decoding thread to about 3 GiB whatever a damaged header claims: 12 bytes for each sample of a tile, and some
/// 180 for each code-block and packet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Samples of the whole image: height × width × components. Default 2³⁰.
    pub max_samples: u64,
    /// Samples of one tile: height × width × components. Default 2²⁷. A tile may have a sixteenth as many
    /// code-blocks (times quality layers) and precincts.
    pub max_tile_samples: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_samples: 1 << 30, max_tile_samples: 1 << 27 }
    }
}
