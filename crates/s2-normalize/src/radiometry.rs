//! Digital numbers to reflectance.

/// How a band stores reflectance: `reflectance = (dn + offset) / quantification`.
///
/// Both numbers stand in the product metadata: `BOA_QUANTIFICATION_VALUE` and `BOA_ADD_OFFSET` at Level-2A,
/// `QUANTIFICATION_VALUE` and `RADIO_ADD_OFFSET` at Level-1C. Products without an offset have 0; since processing
/// baseline 04.00 it is −1000, so that reflectance may be slightly negative. DN 0 is nodata, whatever the
/// offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Radiometry {
    /// Added to the DN: 0 or −1000.
    pub offset: i32,
    /// Divides the sum: 10 000, in products of 2015 also 1000.
    pub quantification: u32,
}

impl Radiometry {
    /// The reflectance of a digital number; `NaN` for DN 0, nodata.
    ///
    /// The sum is made in integers and divided once in `f64`, so that one scene stored under two baselines
    /// (DN and DN + 1000 with offset −1000) has the same reflectance to the last bit.
    pub fn reflectance(self, dn: u16) -> f32 {
        if dn == 0 {
            return f32::NAN;
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
        let reflectance = self.reflectance_f64(dn) as f32;
        reflectance
    }

    /// As [`Self::reflectance`] in `f64`, without regard to nodata.
    pub(crate) fn reflectance_f64(self, dn: u16) -> f64 {
        // In f64 the sum of these two integers is exact, like in any wider integer.
        (f64::from(dn) + f64::from(self.offset)) / f64::from(self.quantification)
    }
}
