//! Records of what an output was made of, beside the output: whether it has to be made again is a question to them.
//!
//! Processing goes by stages (archive, L1C, L2A, stack, …), each of which leaves files. A [`Record`] names the inputs of
//! one output with their checksums, the parameters, the versions of what made it, and the output's files. It is written
//! last: an output without a record is not finished, or somebody else's.
//!
//! # Examples
//!
//! ```
//! use std::fs;
//!
//! use s2_io::stage::{Change, Input, Output, Record};
//!
//! let folder = tempfile::tempdir()?;
//! fs::write(folder.path().join("bands.tif"), "pixels")?;
//! fs::write(folder.path().join("mean.txt"), "42")?;
//!
//! let mut record = Record::new("mean", "29RKH");
//! record.inputs.push(Input::of(folder.path(), "bands.tif")?);
//! record.parameters.insert("nodata".to_owned(), "0".to_owned());
//! record.outputs.push(Output::of(folder.path(), "mean.txt")?);
//! let path = folder.path().join("mean.json");
//! record.write(&path)?;
//!
//! let record = Record::read(&path)?.unwrap();
//! assert_eq!(record.change(folder.path(), &["bands.tif"], &record.parameters)?, None);
//! fs::write(folder.path().join("bands.tif"), "other pixels")?;
//! let change = record.change(folder.path(), &["bands.tif"], &record.parameters)?.unwrap();
//! assert_eq!(change.to_string(), "bands.tif has changed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::safe::product_level;
use crate::{Algorithm, Checksum, Error, Result, write_atomic};

/// The file that identifies a SAFE folder: it holds the checksums of all others.
const MANIFEST: &str = "manifest.safe";
/// Images of products lie three folders below `GRANULE`.
const MAX_DEPTH: usize = 16;

/// What an output was made of, by what, and which files it has.
///
/// Paths are relative to the folder that the record lies in, with `/` between their parts, so that a whole tree of
/// stages can be moved.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// The stage's name: `"stack"`.
    pub stage: String,
    /// The product's name, without `.SAFE`.
    pub product: String,
    /// When the record was made, UTC.
    pub made: DateTime<Utc>,
    /// What was read.
    pub inputs: Vec<Input>,
    /// What else decides the result, by name.
    pub parameters: BTreeMap<String, String>,
    /// What made it, by name: programs, crates, Sen2Cor, the processing baseline. Other versions alone do not make an
    /// output outdated.
    pub versions: BTreeMap<String, String>,
    /// What was written.
    pub outputs: Vec<Output>,
}

/// A file or product that was read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Input {
    /// Where it lies, relative to the record.
    pub path: String,
    /// Length of the file; of a SAFE folder that of the file that identifies it.
    pub bytes: u64,
    /// When that file was last changed, as its file system tells.
    pub modified: DateTime<Utc>,
    /// SHA3-256 of that file, in hexadecimal digits. A SAFE folder is identified by its `manifest.safe`, which has the
    /// checksums of all its files, or by the product's metadata where there is none.
    pub sha3_256: String,
    /// Length of each image of a SAFE folder, by its path in the product; nothing for a file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, u64>,
}

/// A file or folder that was written.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Output {
    /// Where it lies, relative to the record.
    pub path: String,
    /// Its length; of a folder that of all files in it.
    pub bytes: u64,
    /// When it was last changed.
    pub modified: DateTime<Utc>,
}

/// Why an output is not current.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It was made of other inputs.
    Inputs {
        /// The inputs that it was made of.
        recorded: Vec<String>,
    },
    /// An input is not what it was.
    Input {
        /// The input.
        path: String,
    },
    /// A parameter is not what it was.
    Parameter {
        /// The parameter.
        name: String,
        /// What it was, if it was given.
        recorded: Option<String>,
        /// What it is now, if it is given.
        asked: Option<String>,
    },
    /// An output is gone.
    Missing {
        /// The output.
        path: String,
    },
    /// An output has another length.
    Length {
        /// The output.
        path: String,
        /// Bytes that were written.
        recorded: u64,
        /// Bytes that are there.
        found: u64,
    },
}

impl Change {
    /// Whether the output itself is gone or damaged, while all that it was made of is as it was.
    #[must_use]
    pub fn of_output(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Length { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Self::Inputs { recorded } => write!(f, "it was made of {}", recorded.join(", ")),
            Self::Input { path } => write!(f, "{path} has changed"),
            Self::Parameter { name, recorded, asked } => {
                write!(f, "{name} was {}, is now {}", value(recorded), value(asked))
            }
            Self::Missing { path } => write!(f, "{path} is gone"),
            Self::Length { path, recorded, found } => {
                write!(f, "{path} has {found} bytes, {recorded} were written")
            }
        }
    }
}

impl Record {
    /// A record of nothing yet, made now.
    #[must_use]
    pub fn new(stage: impl Into<String>, product: impl Into<String>) -> Self {
        Self {
            stage: stage.into(),
            product: product.into(),
            made: Utc::now(),
            inputs: Vec::new(),
            parameters: BTreeMap::new(),
            versions: BTreeMap::from([("s2-io".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            outputs: Vec::new(),
        }
    }

    /// Reads a record; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] when the file cannot be read, [`Error::Record`] when it is no record.
    pub fn read(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = path.as_ref();
        match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|source| Error::Record { path: path.to_owned(), source: source.into() }),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// Writes the record as JSON, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] when the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            io::Write::write_all(file, b"\n")
        })
    }

    /// Why the outputs are not what these inputs and parameters give, or `None` when they are current. `folder` is that
    /// of the record, `inputs` are paths relative to it, in any order.
    ///
    /// An input with its recorded length and time of change is taken for unchanged; one with another time is read, and
    /// is unchanged when its checksum is. An input that is not there is compared by its path alone: what was made of it
    /// stays current when it is removed to save space. Outputs must be there with their lengths; they are not read.
    /// Versions are not compared. What differs in inputs and parameters is told before what differs in outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] when an input or output is there and cannot be read.
    pub fn change(
        &self,
        folder: &Path,
        inputs: &[&str],
        parameters: &BTreeMap<String, String>,
    ) -> Result<Option<Change>> {
        let mut recorded: Vec<_> = self.inputs.iter().map(|input| &*input.path).collect();
        let mut asked = inputs.to_vec();
        recorded.sort_unstable();
        asked.sort_unstable();
        if recorded != asked {
            let recorded = recorded.into_iter().map(str::to_owned).collect();
            return Ok(Some(Change::Inputs { recorded }));
        }
        let names = self.parameters.keys().chain(parameters.keys());
        if let Some(name) = names.into_iter().find(|name| self.parameters.get(*name) != parameters.get(*name))
        {
            return Ok(Some(Change::Parameter {
                name: name.clone(),
                recorded: self.parameters.get(name).cloned(),
                asked: parameters.get(name).cloned(),
            }));
        }
        for input in &self.inputs {
            if input.changed(folder)? {
                return Ok(Some(Change::Input { path: input.path.clone() }));
            }
        }
        for Output { path, bytes: recorded, .. } in &self.outputs {
            match disk_use(&folder.join(path))? {
                None => return Ok(Some(Change::Missing { path: path.clone() })),
                Some(found) if found != *recorded => {
                    let (path, recorded) = (path.clone(), *recorded);
                    return Ok(Some(Change::Length { path, recorded, found }));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }

    /// Notes the times at which the inputs were last changed, so that those that were only touched or copied are not
    /// read again by the next [`Record::change`], and returns whether any was other than recorded. To be called when
    /// that has said that nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] when an input is there and cannot be read.
    pub fn note_times(&mut self, folder: &Path) -> Result<bool> {
        let mut noted = false;
        for input in &mut self.inputs {
            let path = folder.join(&input.path);
            let Some(metadata) = metadata(&path)? else { continue };
            let file = if metadata.is_dir() { identity(&path)? } else { path };
            let modified = modified(&file)?;
            noted |= modified != input.modified;
            input.modified = modified;
        }
        Ok(noted)
    }
}

impl Input {
    /// Reads a file or SAFE folder at a path relative to `folder`, that of the record: a file whole, of a SAFE folder
    /// the manifest and the lengths of its images.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] when it cannot be read, [`Error::NotAProduct`] for a folder without manifest and metadata.
    pub fn of(folder: &Path, path: &str) -> Result<Self> {
        let root = folder.join(path);
        let is_folder = fs::metadata(&root).map_err(read(&root))?.is_dir();
        let file = if is_folder { identity(&root)? } else { root.clone() };
        let (bytes, modified) = (fs::metadata(&file).map_err(read(&file))?.len(), modified(&file)?);
        let images = if is_folder { images(&root)? } else { BTreeMap::new() };
        Ok(Self { path: path.to_owned(), bytes, modified, sha3_256: sha3_256(&file)?, images })
    }

    /// Whether it is there and is not what was recorded.
    fn changed(&self, folder: &Path) -> Result<bool> {
        let root = folder.join(&self.path);
        let Some(metadata) = metadata(&root)? else { return Ok(false) };
        let file = match metadata.is_dir() {
            true if self.images.is_empty() || images(&root)? != self.images => return Ok(true),
            true => identity(&root)?,
            false if !self.images.is_empty() => return Ok(true),
            false => root,
        };
        if fs::metadata(&file).map_err(read(&file))?.len() != self.bytes {
            return Ok(true);
        }
        Ok(modified(&file)? != self.modified && sha3_256(&file)? != self.sha3_256)
    }
}

impl Output {
    /// Measures a file or folder at a path relative to `folder`, that of the record.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] when it is not there or cannot be read.
    pub fn of(folder: &Path, path: &str) -> Result<Self> {
        let whole = folder.join(path);
        let bytes = disk_use(&whole)?.ok_or_else(|| read(&whole)(io::ErrorKind::NotFound.into()))?;
        Ok(Self { path: path.to_owned(), bytes, modified: modified(&whole)? })
    }
}

/// The length of a file, or of all files in a folder and the folders below it; `None` where there is nothing. Links
/// count as what they are, not as what they lead to.
///
/// # Errors
///
/// [`Error::Read`] when a folder cannot be read.
pub fn disk_use(path: &Path) -> Result<Option<u64>> {
    let mut bytes = 0_u64;
    let mut found = false;
    each_file(path, &mut |_, metadata| {
        bytes = bytes.saturating_add(metadata.len());
        found = true;
    })?;
    Ok((found || path.is_dir()).then_some(bytes))
}

/// The bytes that a new file may take on the disk of a folder; `None` where the system does not tell (it is asked on
/// Unix only, and some network file systems do not know).
///
/// # Errors
///
/// [`Error::Read`] when the folder cannot be asked.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Result<Option<u64>> {
    let disk = rustix::fs::statvfs(folder).map_err(|error| read(folder)(error.into()))?;
    // Network file systems that do not know give zeros.
    Ok((disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize)))
}

/// The bytes that a new file may take on the disk of a folder; `None` where the system does not tell (it is asked on
/// Unix only, and some network file systems do not know).
///
/// # Errors
///
/// [`Error::Read`] when the folder cannot be asked.
#[cfg(not(unix))]
pub fn free_bytes(_folder: &Path) -> Result<Option<u64>> {
    Ok(None)
}

/// The lengths of the images of a product, by their paths in it.
fn images(product: &Path) -> Result<BTreeMap<String, u64>> {
    let mut images = BTreeMap::new();
    each_file(&product.join("GRANULE"), &mut |path, metadata| {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jp2")) {
            let inside = path.strip_prefix(product).unwrap_or(path);
            let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
            images.insert(parts.join("/"), metadata.len());
        }
    })?;
    Ok(images)
}

/// The file that tells one SAFE folder from another.
fn identity(product: &Path) -> Result<PathBuf> {
    let manifest = product.join(MANIFEST);
    if manifest.is_file() {
        return Ok(manifest);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(product).map_err(read(product))? {
        let name = entry.map_err(read(product))?.file_name().to_string_lossy().into_owned();
        found.extend(product_level(&name).map(|level| (level, name)));
    }
    let newest = found.into_iter().max().map(|(_, name)| product.join(name));
    newest.ok_or_else(|| Error::NotAProduct {
        path: product.to_owned(),
        reason: format!("neither {MANIFEST} nor product metadata in it"),
    })
}

/// Calls `visit` with every file below a path, or with the file that the path is. Where there is nothing, with none.
fn each_file(path: &Path, visit: &mut dyn FnMut(&Path, &Metadata)) -> Result<()> {
    let mut open = vec![(path.to_owned(), 0)];
    while let Some((path, depth)) = open.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => continue,
            Err(source) => return Err(Error::Read { path, source }),
        };
        // The work folder of a user may be a link; what lies deeper is not followed.
        let is_folder = metadata.is_dir() || (depth == 0 && path.is_dir());
        if !is_folder {
            visit(&path, &metadata);
        } else if depth < MAX_DEPTH {
            for entry in fs::read_dir(&path).map_err(read(&path))? {
                open.push((entry.map_err(read(&path))?.path(), depth + 1));
            }
        }
    }
    Ok(())
}

fn sha3_256(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(read(path))?;
    Ok(Checksum::of(Algorithm::Sha3_256, file).map_err(read(path))?.hex())
}

fn modified(path: &Path) -> Result<DateTime<Utc>> {
    let time = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(read(path))?;
    Ok(time.into())
}

fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}
