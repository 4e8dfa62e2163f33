//! The rows of a map that are predicted already, kept so that a killed run can go on.
//!
//! Two hidden files lie beside the map: its rows as plain `f32`, and a journal of what they are and how many count. Rows
//! are synced to disk before the journal counts them, and the journal is replaced as a whole, so what it counts is whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};
use unet_burn::{PredictorConfig, UNetConfig};

use crate::cli::write_json;

/// Everything that decides the values of a map. What was begun with another one is begun anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The program and its version.
    pub made_by: String,
    /// Checksum of the network's weights.
    pub weights: String,
    /// Its layout.
    pub network: UNetConfig,
    /// How it looks at patches.
    pub views: PredictorConfig,
    /// The device, without its number of threads: the map does not depend on it.
    pub device: String,
    /// The product that the stack was made from.
    pub product: String,
    /// Length and time of the last change of the stack, checksum of its statistics.
    pub stack: String,
    /// Channels, rows and columns of the map.
    pub shape: [usize; 3],
    /// Whether it was predicted in strips, else in windows.
    pub strips: bool,
    /// Width of the strips or side of the windows.
    pub window: usize,
    /// Windows at a time; 0 in strips.
    pub batch: usize,
}

impl Origin {
    /// What differs, by name.
    fn differences(&self, other: &Self) -> String {
        let fields = |origin: &Self| match serde_json::to_value(origin) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let other = fields(other);
        let differing = fields(self).into_iter().filter(|(name, value)| other.get(name) != Some(value));
        differing.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Journal {
    origin: Origin,
    /// Rows of the scene in each finished band or row of windows.
    heights: Vec<usize>,
}

impl Journal {
    /// Nothing that can be read is nothing to go on from.
    fn read(path: &Path) -> Option<Self> {
        let found = serde_json::from_slice(&fs::read(path).ok()?).ok();
        if found.is_none() {
            tracing::warn!("starting anew: {} cannot be understood", path.display());
        }
        found
    }
}

/// How a map was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// In strips, else in windows.
    pub strips: bool,
    /// Width of the strips or side of the windows.
    pub window: usize,
}

/// A map that is not finished yet.
#[derive(Debug)]
pub struct Unfinished {
    journal: Journal,
    journal_path: PathBuf,
    rows: File,
    rows_path: PathBuf,
}

impl Unfinished {
    /// Goes on with what lies beside `map` if it is of the same origin, and else begins anew.
    pub fn open(map: &Path, origin: Origin) -> Result<Self> {
        let (rows_path, journal_path) = paths(map);
        let cannot = format!("cannot open {}", rows_path.display());
        let rows = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&rows_path);
        let rows = rows.with_context(|| cannot.clone())?;
        match rows.try_lock() {
            Err(TryLockError::WouldBlock) => bail!("another process is predicting {}", map.display()),
            // Without locks on this file system nobody is kept out.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let found = Journal::read(&journal_path).filter(|journal| {
            let differences = journal.origin.differences(&origin);
            if !differences.is_empty() {
                tracing::info!("starting anew: the unfinished {} is of another {differences}", map.display());
            }
            differences.is_empty()
        });
        let mut unfinished = Self {
            journal: found.unwrap_or(Journal { origin, heights: Vec::new() }),
            journal_path,
            rows,
            rows_path,
        };
        let counted = unfinished.counted_bytes();
        if unfinished.rows.metadata().with_context(|| cannot.clone())?.len() < counted {
            tracing::warn!("starting anew: rows of the unfinished {} are missing", map.display());
            unfinished.journal.heights.clear();
        }
        if unfinished.journal.heights.is_empty() {
            // An older journal must not count what comes now.
            write_json(&unfinished.journal_path, &unfinished.journal)?;
        } else {
            tracing::info!("going on with {}: {} rows are predicted", map.display(), unfinished.height());
        }
        let counted = unfinished.counted_bytes();
        unfinished.rows.set_len(counted).with_context(|| cannot.clone())?;
        unfinished.rows.seek(SeekFrom::End(0)).with_context(|| cannot.clone())?;
        Ok(unfinished)
    }

    /// How a map was begun that else is of this origin. A run that did not finish a single part may have been killed for
    /// its size.
    pub fn begun(map: &Path, origin: &Origin) -> Option<Begun> {
        let Journal { origin: found, heights } = Journal::read(&paths(map).1)?;
        let Origin { strips, window, .. } = found;
        let batch = if strips { 0 } else { origin.batch };
        let same = Origin { strips, window, batch, ..origin.clone() } == found;
        (same && !heights.is_empty()).then_some(Begun { strips, window })
    }

    /// How many bands or rows of windows are finished.
    pub fn parts(&self) -> usize {
        self.journal.heights.len()
    }

    /// How many rows of the scene are finished.
    pub fn height(&self) -> usize {
        self.journal.heights.iter().sum()
    }

    fn counted_bytes(&self) -> u64 {
        let [channels, _, width] = self.journal.origin.shape;
        (channels * self.height() * width * size_of::<f32>()) as u64
    }

    /// Keeps the next rows, `[channel, row, column]`.
    pub fn push(&mut self, rows: ArrayView3<'_, f32>) -> Result<()> {
        let (channels, height, width) = rows.dim();
        let [expected, _, expected_width] = self.journal.origin.shape;
        ensure!((channels, width) == (expected, expected_width), "rows of another map");
        let cannot = || format!("cannot write {}", self.rows_path.display());
        let mut bytes = vec![0; width * size_of::<f32>()];
        for row in rows.rows() {
            bytes.as_chunks_mut().0.iter_mut().zip(row).for_each(|(to, value)| *to = value.to_le_bytes());
            self.rows.write_all(&bytes).with_context(cannot)?;
        }
        self.rows.sync_data().with_context(cannot)?;
        self.journal.heights.push(height);
        write_json(&self.journal_path, &self.journal)
    }

    /// Hands out the finished rows again in the parts in which they came.
    pub fn read(&mut self, mut part: impl FnMut(ArrayView3<'_, f32>) -> Result<()>) -> Result<()> {
        let cannot = || format!("cannot read {}", self.rows_path.display());
        let [channels, _, width] = self.journal.origin.shape;
        self.rows.rewind().with_context(cannot)?;
        for &height in &self.journal.heights {
            let mut bytes = vec![0; channels * height * width * size_of::<f32>()];
            self.rows.read_exact(&mut bytes).with_context(cannot)?;
            let (values, _) = bytes.as_chunks();
            let values = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
            part(Array3::from_shape_vec((channels, height, width), values)?.view())?;
        }
        Ok(())
    }

    /// Removes both files: the map is written.
    pub fn remove(mut self) {
        self.journal.heights.clear(); // what is dropped with nothing leaves nothing
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.journal.heights.is_empty() {
            // What stays behind is overwritten by the next run.
            let _ = fs::remove_file(&self.journal_path);
            let _ = fs::remove_file(&self.rows_path);
        }
    }
}

fn paths(map: &Path) -> (PathBuf, PathBuf) {
    let name = map.file_name().unwrap_or_default().to_string_lossy();
    (map.with_file_name(format!(".{name}.rows")), map.with_file_name(format!(".{name}.rows.json")))
}
