//! The metadata of a product: the values that its XML files must give.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::Source;
use crate::xml::Element;
use crate::{Band, Baseline, Error, Grid, Level, ProductName, Result};

/// An XML file of a product.
pub(super) struct Metadata {
    pub(super) path: PathBuf,
    pub(super) root: Element,
}

impl Metadata {
    pub(super) fn read(source: &Source, file: &str) -> Result<Self> {
        let path = source.path_of(file);
        let root = Element::parse(&path, &source.read(file)?)?;
        Ok(Self { path, root })
    }

    pub(super) fn wrong(&self, element: &str, value: &str) -> Error {
        Error::Metadata {
            path: self.path.clone(),
            element: element.to_owned(),
            value: Some(value.to_owned()),
        }
    }

    /// The text of the first element that has one of these names.
    pub(super) fn text(&self, names: &[&str]) -> Result<&str> {
        text(&self.path, &self.root, names)
    }

    fn number(&self, element: &Element, names: &[&str]) -> Result<f64> {
        let text = text(&self.path, element, names)?;
        text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| self.wrong(names[0], text))
    }

    /// A number without decimals, however it is written (`10000`, `1000.0`).
    fn integer<T: TryFrom<i64>>(&self, element: &Element, names: &[&str]) -> Result<T> {
        let number = self.number(element, names)?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        let whole = (number.fract() == 0.0 && number.abs() < 1e9).then_some(number as i64);
        whole
            .and_then(|whole| T::try_from(whole).ok())
            .ok_or_else(|| self.wrong(names[0], &number.to_string()))
    }

    pub(super) fn baseline(&self, names: [&Option<String>; 2]) -> Result<Baseline> {
        let metadata = match self.text(&["PROCESSING_BASELINE"]) {
            Ok(text) => Some(text.parse().map_err(|_| self.wrong("PROCESSING_BASELINE", text))?),
            Err(_) => None,
        };
        let mut baseline = metadata;
        for name in names.into_iter().flatten() {
            let Some(named) = name.parse::<ProductName>().ok().and_then(|name| name.baseline) else {
                continue;
            };
            match baseline {
                Some(metadata) if metadata != named => {
                    let (path, name) = (self.path.clone(), name.clone());
                    return Err(Error::BaselineMismatch { path, metadata, name, named });
                }
                _ => baseline = Some(named),
            }
        }
        let (path, element) = (self.path.clone(), "PROCESSING_BASELINE".to_owned());
        baseline.ok_or(Error::Metadata { path, element, value: None })
    }

    pub(super) fn quantification(&self, level: Level) -> Result<u32> {
        let names: &[_] = match level {
            Level::L1C => &["QUANTIFICATION_VALUE"],
            Level::L2A => &["BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"],
        };
        match self.integer(&self.root, names)? {
            0 => Err(self.wrong(names[0], "0")),
            value => Ok(value),
        }
    }

    pub(super) fn offsets(&self, level: Level, baseline: Baseline) -> Result<[i32; 13]> {
        let name = match level {
            Level::L1C => "RADIO_ADD_OFFSET",
            Level::L2A => "BOA_ADD_OFFSET",
        };
        let mut offsets = [None; 13];
        for element in self.root.find_all(name) {
            // Everywhere else in the metadata the attribute is called `bandId`.
            let id = element.attribute("band_id").or(element.attribute("bandId")).unwrap_or_default();
            let slot = id.parse::<usize>().ok().and_then(|id| offsets.get_mut(id));
            let value = element.text.trim();
            let slot = slot.ok_or_else(|| self.wrong(&format!("band_id of {name}"), id))?;
            *slot = Some(value.parse::<i32>().map_err(|_| self.wrong(name, value))?);
        }
        for band in Band::ALL {
            let required = baseline >= Baseline::WITH_OFFSET && (level, band) != (Level::L2A, Band::B10);
            if required && offsets[usize::from(band.band_id())].is_none() {
                return Err(Error::MissingOffset { path: self.path.clone(), band, baseline });
            }
        }
        Ok(offsets.map(Option::unwrap_or_default))
    }

    /// The grids of a tile, by resolution. `ULX` and `ULY` are the outer corner of the first pixel.
    pub(super) fn grids(&self) -> Result<BTreeMap<u32, Grid>> {
        let code = self.text(&["HORIZONTAL_CS_CODE"])?;
        let epsg = code.strip_prefix("EPSG:").and_then(|code| code.parse().ok());
        let epsg = Some(epsg.ok_or_else(|| self.wrong("HORIZONTAL_CS_CODE", code))?);
        let resolution = |element: &Element| {
            let text = element.attribute("resolution").unwrap_or_default();
            text.parse::<u32>().map_err(|_| self.wrong("resolution", text))
        };
        let mut grids = BTreeMap::new();
        for place in self.root.find_all("Geoposition") {
            let resolution_m = resolution(place)?;
            for size in self.root.find_all("Size") {
                if resolution(size)? != resolution_m {
                    continue;
                }
                let [x0, y0] = [self.number(place, &["ULX"])?, self.number(place, &["ULY"])?];
                let [dx, dy] = [self.number(place, &["XDIM"])?, self.number(place, &["YDIM"])?];
                grids.insert(
                    resolution_m,
                    Grid {
                        height: self.integer(size, &["NROWS"])?,
                        width: self.integer(size, &["NCOLS"])?,
                        transform: [x0, dx, 0.0, y0, 0.0, dy],
                        epsg,
                    },
                );
            }
        }
        Ok(grids)
    }
}

pub(super) fn text<'a>(path: &Path, element: &'a Element, names: &[&str]) -> Result<&'a str> {
    let found = names.iter().find_map(|name| element.find(name));
    found.map(|element| element.text.trim()).ok_or_else(|| Error::Metadata {
        path: path.to_owned(),
        element: names[0].to_owned(),
        value: None,
    })
}
