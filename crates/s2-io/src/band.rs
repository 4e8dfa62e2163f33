//! The 13 bands of Sentinel-2's imager MSI.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A band of the Multi-Spectral Instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Coastal aerosol, 442 nm, 60 m.
    B01,
    /// Blue, 492 nm, 10 m.
    B02,
    /// Green, 559 nm, 10 m.
    B03,
    /// Red, 665 nm, 10 m.
    B04,
    /// Red edge, 704 nm, 20 m.
    B05,
    /// Red edge, 740 nm, 20 m.
    B06,
    /// Red edge, 781 nm, 20 m.
    B07,
    /// Near infrared, 833 nm, 10 m.
    B08,
    /// Narrow near infrared, 864 nm, 20 m.
    B8A,
    /// Water vapour, 944 nm, 60 m.
    B09,
    /// Cirrus, 1375 nm, 60 m; not part of L2A products.
    B10,
    /// Short-wave infrared, 1612 nm, 20 m.
    B11,
    /// Short-wave infrared, 2194 nm, 20 m.
    B12,
}

impl Band {
    /// All bands, in the order of the metadata's band numbers.
    pub const ALL: [Self; 13] = [
        Self::B01,
        Self::B02,
        Self::B03,
        Self::B04,
        Self::B05,
        Self::B06,
        Self::B07,
        Self::B08,
        Self::B8A,
        Self::B09,
        Self::B10,
        Self::B11,
        Self::B12,
    ];

    /// The ten bands whose native resolution is 10 or 20 m.
    pub const TEN_AND_TWENTY: [Self; 10] = [
        Self::B02,
        Self::B03,
        Self::B04,
        Self::B05,
        Self::B06,
        Self::B07,
        Self::B08,
        Self::B8A,
        Self::B11,
        Self::B12,
    ];

    /// The name in file names, `"B02"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The common name of the STAC electro-optical extension, `"blue"`.
    #[must_use]
    pub fn common_name(self) -> &'static str {
        self.row().1
    }

    /// Central wavelength, nanometres (Couttenier et al. 2022, table S1).
    #[must_use]
    pub fn wavelength_nm(self) -> u32 {
        self.row().2
    }

    /// Native resolution, metres: 10, 20 or 60.
    #[must_use]
    pub fn resolution_m(self) -> u32 {
        self.row().3
    }

    /// The number of the band in product metadata (`band_id`, `bandId`): 0 for B01, 7 for B08, 8 for B8A, 12 for B12.
    #[must_use]
    pub fn band_id(self) -> u8 {
        self as u8
    }

    /// Name, common name, wavelength in nanometres and resolution in metres.
    fn row(self) -> (&'static str, &'static str, u32, u32) {
        match self {
            Self::B01 => ("B01", "coastal", 442, 60),
            Self::B02 => ("B02", "blue", 492, 10),
            Self::B03 => ("B03", "green", 559, 10),
            Self::B04 => ("B04", "red", 665, 10),
            Self::B05 => ("B05", "rededge071", 704, 20),
            Self::B06 => ("B06", "rededge075", 740, 20),
            Self::B07 => ("B07", "rededge078", 781, 20),
            Self::B08 => ("B08", "nir", 833, 10),
            Self::B8A => ("B8A", "nir08", 864, 20),
            Self::B09 => ("B09", "nir09", 944, 60),
            Self::B10 => ("B10", "cirrus", 1375, 60),
            Self::B11 => ("B11", "swir16", 1612, 20),
            Self::B12 => ("B12", "swir22", 2194, 20),
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Reads `"B08"`, `"B8"` (as metadata write it) and `"b08"`.
impl FromStr for Band {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let band = Self::ALL.into_iter().find(|band| {
            let name = band.name();
            let short = name.replace("B0", "B");
            text.eq_ignore_ascii_case(name) || text.eq_ignore_ascii_case(&short)
        });
        band.ok_or_else(|| Error::Name { text: text.to_owned(), expected: "a band (B01 to B12, B8A)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_gives_the_band_back() {
        for (id, band) in (0_u8..).zip(Band::ALL) {
            assert_eq!(band.band_id(), id, "{band} is at its metadata number");
            for text in [band.to_string(), band.name().to_lowercase(), band.name().replace("B0", "B")] {
                assert_eq!(text.parse::<Band>().unwrap(), band, "{text}");
            }
        }
        assert_eq!(Band::ALL[8], Band::B8A, "B8A comes between B08 and B09");
    }

    #[test]
    fn other_texts_are_no_bands() {
        for text in ["", "B", "B00", "B13", "B8a1", "8A", "B008", "SCL"] {
            let error = text.parse::<Band>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is not a band (B01 to B12, B8A)"));
        }
    }

    #[test]
    fn ten_and_twenty_metre_bands_are_those_by_resolution() {
        let by_resolution: Vec<_> = Band::ALL.into_iter().filter(|b| b.resolution_m() < 60).collect();
        assert_eq!(by_resolution, Band::TEN_AND_TWENTY);
    }
}
