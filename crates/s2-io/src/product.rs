//! Names of Sentinel-2 products, compact (since December 2016) and old (ESA's product specification, file naming).

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Processing level of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Top-of-atmosphere reflectance.
    L1C,
    /// Bottom-of-atmosphere reflectance, with scene classification.
    L2A,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::L1C => "L1C",
            Self::L2A => "L2A",
        })
    }
}

/// Processing baseline, the version of ESA's processing chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Baseline {
    /// The number before the point.
    pub major: u8,
    /// The number after the point.
    pub minor: u8,
}

impl Baseline {
    /// The first baseline whose products have a radiometric offset.
    pub const WITH_OFFSET: Self = Self { major: 4, minor: 0 };
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}.{:02}", self.major, self.minor)
    }
}

/// Reads `"05.09"` and, as product names write it, `"N0509"`.
impl FromStr for Baseline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = match text.strip_prefix('N') {
            Some(digits) if digits.len() == 4 => digits.split_at_checked(2),
            _ => text.split_once('.'),
        };
        let number = |part: &str| {
            let digits = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        parts
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| Error::Name {
                text: text.to_owned(),
                expected: "a processing baseline such as 05.09",
            })
    }
}

/// What the name of a product tells.
///
/// # Examples
///
/// ```
/// use s2_io::{Level, ProductName};
///
/// let name: ProductName = "S2A_MSIL2A_20200219T112111_N0214_R037_T29RKH_20200219T140000.SAFE".parse()?;
/// assert_eq!(name.level, Level::L2A);
/// assert_eq!(name.tile.as_deref(), Some("29RKH"));
/// assert_eq!(name.baseline.map(|baseline| baseline.to_string()).as_deref(), Some("02.14"));
/// # Ok::<(), s2_io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProductName {
    /// `"S2A"`, `"S2B"`, …
    pub satellite: String,
    /// Processing level.
    pub level: Level,
    /// Start of sensing, UTC: `"20200219T112111"`. In compact names that of the datatake, not of the tile.
    pub sensing_time: String,
    /// Processing baseline; old names have none.
    pub baseline: Option<Baseline>,
    /// Relative orbit, 1 to 143.
    pub relative_orbit: u16,
    /// MGRS tile without a leading T: `"29RKH"`; old names have none.
    pub tile: Option<String>,
    /// The time that ends a compact name, or the creation time of an old one. It only tells products of the same
    /// datatake apart.
    pub discriminator: String,
}

/// Reads compact and old names, with or without `.SAFE` and `.zip` at the end. Catalogues that leave the baseline
/// out of compact names are understood too.
impl FromStr for ProductName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let stem = text.strip_suffix(".zip").unwrap_or(text);
        let parts: Vec<_> = stem.strip_suffix(".SAFE").unwrap_or(stem).split('_').collect();
        let name = match parts[..] {
            [satellite, level, sensing, baseline, orbit, tile, discriminator] => {
                compact(satellite, level, sensing, Some(baseline), orbit, tile, discriminator)
            }
            [satellite, level, sensing, orbit, tile, discriminator] => {
                compact(satellite, level, sensing, None, orbit, tile, discriminator)
            }
            [satellite, "OPER" | "USER", "PRD", level, _, created, orbit, sensing, _] => {
                old(satellite, level, created, orbit, sensing)
            }
            _ => None,
        };
        name.ok_or_else(|| Error::Name {
            text: text.to_owned(),
            expected: "the name of an L1C or L2A product",
        })
    }
}

fn compact(
    satellite: &str,
    level_text: &str,
    sensing: &str,
    baseline: Option<&str>,
    orbit: &str,
    tile: &str,
    discriminator: &str,
) -> Option<ProductName> {
    Some(ProductName {
        baseline: baseline
            .map(|n| n.starts_with('N').then(|| n.parse().ok()).flatten().ok_or(()))
            .transpose()
            .ok()?,
        tile: Some(tile_id(tile)?.to_owned()),
        ..old(satellite, level_text, discriminator, orbit, &format!("V{sensing}"))?
    })
}

fn old(satellite: &str, level: &str, created: &str, orbit: &str, sensing: &str) -> Option<ProductName> {
    let time = |text: &str| {
        let digits =
            |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('T')
            .is_some_and(|(date, time)| digits(date, 8) && digits(time, 6))
            .then(|| text.to_owned())
    };
    let letter = satellite.strip_prefix("S2")?;
    let orbit = orbit.strip_prefix('R').filter(|digits| digits.len() == 3)?;
    Some(ProductName {
        satellite: (letter.len() == 1 && letter.bytes().all(|byte| byte.is_ascii_uppercase()))
            .then(|| satellite.to_owned())?,
        level: match level {
            "MSIL1C" => Level::L1C,
            "MSIL2A" | "MSIL2Ap" => Level::L2A,
            _ => return None,
        },
        sensing_time: time(sensing.strip_prefix('V')?)?,
        baseline: None,
        relative_orbit: orbit.parse().ok()?,
        tile: None,
        discriminator: time(created)?,
    })
}

/// The MGRS tile in a part of a name: `"29RKH"` of `"T29RKH"`.
pub(crate) fn tile_id(part: &str) -> Option<&str> {
    let tile = part.strip_prefix('T')?;
    match tile.as_bytes() {
        [zone @ .., a, b, c]
            if zone.len() == 2
                && zone.iter().all(u8::is_ascii_digit)
                && [a, b, c].iter().all(|letter| letter.is_ascii_uppercase()) =>
        {
            Some(tile)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPACT: &str = "S2B_MSIL1C_20230823T095559_N0509_R122_T34UCF_20230823T120234";
    const OLD: &str = "S2A_OPER_PRD_MSIL1C_PDMC_20160910T174323_R071_V20160701T204642_20160701T204643";

    #[test]
    fn a_compact_name_gives_all_its_fields() {
        for ending in ["", ".SAFE", ".zip", ".SAFE.zip"] {
            let name: ProductName = format!("{COMPACT}{ending}").parse().unwrap();
            let expected = ProductName {
                satellite: "S2B".to_owned(),
                level: Level::L1C,
                sensing_time: "20230823T095559".to_owned(),
                baseline: Some(Baseline { major: 5, minor: 9 }),
                relative_orbit: 122,
                tile: Some("34UCF".to_owned()),
                discriminator: "20230823T120234".to_owned(),
            };
            assert_eq!(name, expected, "with {ending:?} at the end");
        }
    }

    #[test]
    fn an_old_name_has_neither_baseline_nor_tile() {
        let name: ProductName = format!("{OLD}.SAFE").parse().unwrap();
        assert_eq!((name.baseline, name.tile.as_deref(), name.relative_orbit), (None, None, 71));
        assert_eq!((&*name.sensing_time, &*name.discriminator), ("20160701T204642", "20160910T174323"));
        let user: ProductName = OLD.replace("OPER", "USER").replace("MSIL1C", "MSIL2A").parse().unwrap();
        assert_eq!(user.level, Level::L2A);
    }

    #[test]
    fn a_name_without_baseline_is_understood() {
        let name: ProductName = COMPACT.replace("_N0509", "").parse().unwrap();
        assert_eq!((name.baseline, name.tile.as_deref()), (None, Some("34UCF")));
    }

    #[test]
    fn other_names_are_refused_by_name() {
        for text in [
            "",
            "S2A",
            &COMPACT.replace("L1C", "L1B"),
            &COMPACT.replace("N0509", "0509"),
            &COMPACT.replace("N0509", "N05.9"),
            &COMPACT.replace("R122", "122"),
            &COMPACT.replace("T34UCF", "34UCF"),
            &COMPACT.replace("T34UCF", "TéUCF"),
            &COMPACT.replace("20230823T095559", "20230823"),
            &COMPACT.replace("S2B", "S3B"),
        ] {
            let error = text.parse::<ProductName>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is not the name of an L1C or L2A product"));
        }
    }

    #[test]
    fn baselines_are_ordered_and_read_back() {
        let old: Baseline = "02.14".parse().unwrap();
        assert!(old < Baseline::WITH_OFFSET && Baseline::WITH_OFFSET < "N0509".parse().unwrap(), "order");
        assert_eq!(old.to_string(), "02.14");
        assert_eq!("2.9".parse::<Baseline>().unwrap().to_string(), "02.09");
        for text in ["", "5", "N509", "05.091", "+5.09", "a.b", "5.", "Né09"] {
            assert!(text.parse::<Baseline>().is_err(), "{text:?}");
        }
    }
}
