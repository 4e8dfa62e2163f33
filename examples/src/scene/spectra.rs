//! Surface reflectance of the covers in the twelve bands of a Level-2A product.
//!
//! Rounded values in the range that spectral libraries (USGS splib07, ECOSTRESS) and published Sentinel-2 studies of
//! West African savanna and gold mines show; none is copied from one sample.

/// Reflectance in [`BANDS`]' order.
pub(super) type Spectrum = [f32; 12];

/// The bands of a Level-2A product with their native resolution in metres, in the order of the metadata.
pub(super) const BANDS: [(&str, u32); 12] = [
    ("B01", 60),
    ("B02", 10),
    ("B03", 10),
    ("B04", 10),
    ("B05", 20),
    ("B06", 20),
    ("B07", 20),
    ("B08", 10),
    ("B8A", 20),
    ("B09", 60),
    ("B11", 20),
    ("B12", 20),
];

pub(super) const DENSE_FOREST: Spectrum =
    [0.019, 0.022, 0.042, 0.024, 0.074, 0.205, 0.255, 0.270, 0.290, 0.295, 0.138, 0.058];
pub(super) const WOODLAND: Spectrum =
    [0.028, 0.036, 0.060, 0.052, 0.100, 0.190, 0.225, 0.240, 0.258, 0.265, 0.200, 0.108];
pub(super) const DRY_GRASS: Spectrum =
    [0.046, 0.058, 0.090, 0.118, 0.155, 0.198, 0.220, 0.236, 0.252, 0.262, 0.315, 0.205];
pub(super) const GREEN_GRASS: Spectrum =
    [0.030, 0.038, 0.072, 0.055, 0.112, 0.225, 0.270, 0.290, 0.305, 0.310, 0.230, 0.118];
pub(super) const CROP: Spectrum =
    [0.026, 0.034, 0.070, 0.042, 0.105, 0.270, 0.340, 0.360, 0.380, 0.385, 0.205, 0.098];
pub(super) const STUBBLE: Spectrum =
    [0.065, 0.085, 0.128, 0.172, 0.208, 0.240, 0.258, 0.274, 0.290, 0.300, 0.390, 0.285];
pub(super) const BROWN_SOIL: Spectrum =
    [0.060, 0.080, 0.120, 0.178, 0.210, 0.230, 0.244, 0.258, 0.272, 0.282, 0.365, 0.305];
pub(super) const PALE_SOIL: Spectrum =
    [0.104, 0.136, 0.190, 0.252, 0.283, 0.300, 0.311, 0.325, 0.336, 0.342, 0.412, 0.348];
pub(super) const LATERITE: Spectrum =
    [0.056, 0.076, 0.126, 0.222, 0.256, 0.273, 0.287, 0.301, 0.315, 0.321, 0.381, 0.313];
pub(super) const BURNT: Spectrum =
    [0.033, 0.038, 0.048, 0.058, 0.068, 0.080, 0.088, 0.098, 0.108, 0.114, 0.165, 0.155];
pub(super) const ROOFS: Spectrum =
    [0.150, 0.175, 0.195, 0.215, 0.225, 0.235, 0.245, 0.255, 0.260, 0.260, 0.285, 0.255];
pub(super) const SAND: Spectrum =
    [0.124, 0.159, 0.217, 0.273, 0.300, 0.315, 0.325, 0.340, 0.350, 0.352, 0.410, 0.352];
pub(super) const RIVER: Spectrum =
    [0.046, 0.058, 0.086, 0.082, 0.068, 0.044, 0.042, 0.036, 0.034, 0.028, 0.012, 0.008];
pub(super) const MUDDY_RIVER: Spectrum =
    [0.060, 0.080, 0.122, 0.150, 0.130, 0.088, 0.082, 0.068, 0.060, 0.046, 0.013, 0.008];
pub(super) const GRAVEL: Spectrum =
    [0.120, 0.155, 0.213, 0.270, 0.299, 0.312, 0.321, 0.333, 0.341, 0.340, 0.398, 0.330];
pub(super) const RED_EARTH: Spectrum =
    [0.064, 0.087, 0.140, 0.234, 0.266, 0.282, 0.294, 0.308, 0.320, 0.324, 0.376, 0.300];
pub(super) const MILKY_POND: Spectrum =
    [0.098, 0.124, 0.168, 0.185, 0.165, 0.128, 0.120, 0.102, 0.090, 0.070, 0.022, 0.013];
pub(super) const BROWN_POND: Spectrum =
    [0.056, 0.078, 0.124, 0.165, 0.152, 0.112, 0.104, 0.088, 0.078, 0.058, 0.018, 0.011];
pub(super) const GREEN_POND: Spectrum =
    [0.045, 0.060, 0.090, 0.070, 0.062, 0.046, 0.042, 0.036, 0.033, 0.028, 0.012, 0.008];
pub(super) const CLOUD: Spectrum =
    [0.600, 0.610, 0.610, 0.620, 0.630, 0.640, 0.650, 0.655, 0.660, 0.520, 0.440, 0.330];
/// Share of the light that thin cirrus adds; it barely reaches the short-wave infrared.
pub(super) const CIRRUS: Spectrum =
    [0.420, 0.400, 0.390, 0.380, 0.375, 0.370, 0.370, 0.365, 0.360, 0.330, 0.230, 0.170];
/// Share of the light that is left in a full cloud shadow: the sky still shines, most in the blue.
pub(super) const SHADE: Spectrum = [0.62, 0.56, 0.49, 0.43, 0.40, 0.38, 0.37, 0.36, 0.35, 0.34, 0.29, 0.27];

/// Covers the share `opacity` of the ground with another spectrum.
pub(super) fn cover(ground: &mut Spectrum, with: &Spectrum, opacity: f32) {
    for (ground, with) in ground.iter_mut().zip(with) {
        *ground += (with - *ground) * opacity;
    }
}

/// The spectrum between two.
pub(super) fn blend(a: &Spectrum, b: &Spectrum, share: f32) -> Spectrum {
    let mut spectrum = *a;
    cover(&mut spectrum, b, share);
    spectrum
}

/// Multiplies all bands.
pub(super) fn scale(ground: &mut Spectrum, factor: f32) {
    ground.iter_mut().for_each(|value| *value *= factor);
}
