//! The statistics of a scene, and the small JSON file that keeps them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::{Error, Histogram, Radiometry, Result};

/// What the two bounds of a band are.
///
/// Two scenes are normalised alike when their definitions are equal, and a model takes only scenes normalised
/// as its training data were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The percent of valid pixels below the lower bound.
    pub low_percent: f64,
    /// The percent of valid pixels below the upper bound.
    pub high_percent: f64,
    /// How a percentile that falls between two pixels is found.
    pub method: Method,
    /// The scene classes (SCL numbers) that are left out, ascending.
    pub excluded_classes: Vec<u8>,
    /// The DN that is left out: 0 in all Sentinel-2 products.
    pub nodata: u16,
}

/// How a percentile that falls between two pixels is found.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Linear interpolation between the two nearest ranks, as [`Histogram::percentile`].
    Linear,
}

impl Definition {
    fn check(&self) -> Result<()> {
        let Self { low_percent, high_percent, nodata, .. } = *self;
        if !(0.0 <= low_percent && low_percent < high_percent && high_percent <= 100.0) {
            return Err(Error::Percents { low_percent, high_percent });
        }
        if nodata != 0 {
            return Err(Error::Nodata { nodata });
        }
        Ok(())
    }
}

impl Default for Definition {
    /// Percentiles 2 and 98 without classes 0, 1, 8, 9 (no data, saturated or defective, cloud of medium and
    /// high probability): Couttenier et al. 2022, with class 0 added.
    fn default() -> Self {
        Self {
            low_percent: 2.0,
            high_percent: 98.0,
            method: Method::Linear,
            excluded_classes: vec![0, 1, 8, 9],
            nodata: 0,
        }
    }
}

/// The scaling bounds of one band of one scene.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BandStatistics {
    /// The band, such as `B02`.
    pub band: String,
    /// The reflectance that is scaled to −1.
    pub low: f64,
    /// The reflectance that is scaled to 1.
    pub high: f64,
    /// The pixels that the bounds were taken from.
    pub count: u64,
    /// [`Radiometry::offset`] of the digital numbers.
    pub offset: i32,
    /// [`Radiometry::quantification`] of the digital numbers.
    pub quantification: u32,
}

impl BandStatistics {
    /// The bounds of a band from the counts of its digital numbers.
    ///
    /// The percentiles are those of the integers DN + offset, divided by the quantification value afterwards,
    /// which makes them equal to the last bit for a scene stored under two radiometric offsets.
    ///
    /// # Errors
    ///
    /// [`Error::NoValidPixel`] when nothing was counted, [`Error::Constant`] when both percentiles are equal;
    /// [`Error::Percents`], [`Error::Nodata`] and [`Error::Quantification`] for a definition or radiometry
    /// that cannot be.
    pub fn from_histogram(
        band: impl Into<String>,
        histogram: &Histogram,
        radiometry: Radiometry,
        definition: &Definition,
    ) -> Result<Self> {
        let band = band.into();
        let Radiometry { offset, quantification } = radiometry;
        let Definition { low_percent, high_percent, method: Method::Linear, .. } = *definition;
        definition.check()?;
        if quantification == 0 {
            return Err(Error::Quantification { band });
        }
        let percentile = |q| histogram.percentile_plus(q, offset);
        let (Some(low), Some(high)) = (percentile(low_percent), percentile(high_percent)) else {
            return Err(Error::NoValidPixel { band });
        };
        let count = histogram.count();
        if low >= high {
            return Err(Error::Constant { band, low_percent, high_percent, count, value: low });
        }
        let quantification_f64 = f64::from(quantification);
        Ok(Self {
            band,
            low: low / quantification_f64,
            high: high / quantification_f64,
            count,
            offset,
            quantification,
        })
    }

    /// How the digital numbers of the band store reflectance.
    pub fn radiometry(&self) -> Radiometry {
        Radiometry { offset: self.offset, quantification: self.quantification }
    }

    fn check(&self) -> Result<()> {
        let (band, low, high) = (self.band.clone(), self.low, self.high);
        if self.quantification == 0 {
            return Err(Error::Quantification { band });
        }
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(Error::Bounds { band, low, high });
        }
        Ok(())
    }
}

/// The statistics of a scene: all that is needed to normalise its digital numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Version of the file format: [`Self::VERSION`].
    pub version: u32,
    /// What the bounds are.
    pub definition: Definition,
    /// The name of the product that the digital numbers come from.
    pub product: String,
    /// Its processing baseline, such as `05.09`.
    pub baseline: String,
    /// The bands, in the order of the stack.
    pub bands: Vec<BandStatistics>,
    /// The program and version that made this.
    pub made_by: String,
}

/// Read first: a file of another version may have other fields.
#[derive(Deserialize)]
struct Head {
    version: u64,
}

impl Statistics {
    /// The version of the file format that this crate writes and reads.
    pub const VERSION: u32 = 1;

    /// The statistics of the band with this name.
    pub fn band(&self, name: &str) -> Option<&BandStatistics> {
        self.bands.iter().find(|band| band.band == name)
    }

    /// Reads a statistics file (JSON). Every number comes back to the last bit.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]; [`Error::Format`] when the file is not JSON of the known fields; [`Error::Version`] when
    /// it has another version; [`Error::Values`] when a value cannot be used.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let format = |source| Error::Format { path: path.to_owned(), source: Box::new(source) };
        let text = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let Head { version } = serde_json::from_slice(&text).map_err(format)?;
        if version != u64::from(Self::VERSION) {
            return Err(Error::Version { path: path.to_owned(), found: version, supported: Self::VERSION });
        }
        let statistics: Self = serde_json::from_slice(&text).map_err(format)?;
        statistics.check(path)?;
        Ok(statistics)
    }

    /// Writes a statistics file (JSON, with the permissions of any new file): to a temporary name beside it,
    /// synced, then renamed, so that `path` is never a part of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], and what [`Self::load`] would refuse. An older file at `path` is kept then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if self.version != Self::VERSION {
            let found = u64::from(self.version);
            return Err(Error::Version { path: path.to_owned(), found, supported: Self::VERSION });
        }
        self.check(path)?;
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::Format { path: path.to_owned(), source: Box::new(source) })?;
        text.push(b'\n');
        let temporary = temporary_beside(path);
        write_synced(&temporary, &text).and_then(|()| fs::rename(&temporary, path)).map_err(|source| {
            // The first failure is the one to report.
            let _ = fs::remove_file(&temporary);
            Error::Write { path: path.to_owned(), source }
        })
    }

    fn check(&self, path: &Path) -> Result<()> {
        self.definition
            .check()
            .and_then(|()| self.bands.iter().try_for_each(BandStatistics::check))
            .map_err(|source| Error::Values { path: path.to_owned(), source: Box::new(source) })
    }
}

/// `.statistics.json.1234-0.tmp` for `statistics.json`: no other process or thread has it.
fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

fn write_synced(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}
