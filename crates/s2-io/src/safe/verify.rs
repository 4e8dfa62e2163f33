//! Verification of products: are all files there, and are they those that were delivered?

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::archive::{Archive, BUFFER};
use super::manifest::{self, Listed};
use super::source::is_folder;
use crate::{Checksum, Error, Hasher, Result};

/// What [`verify`] has read and found to be right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Files that were read: the manifest, those that it lists and, in an archive, all others.
    pub files: usize,
    /// Bytes of these files.
    pub bytes: u64,
    /// Files that fit the checksum in the manifest.
    pub checked: usize,
    /// Files that the manifest lists without a checksum or with one of an unknown algorithm: their size is right,
    /// their content was not checked.
    pub without_checksum: usize,
}

/// Compares the files of a product with its manifest: a SAFE folder, or a zip archive with one in it.
///
/// Every file that `manifest.safe` lists must be there with its size and its checksum (MD5, SHA3-256, SHA-256 or
/// BLAKE3). In an archive every member, listed or not, must also fit the size and the CRC-32 in the archive's
/// directory, and names that are unsafe to unpack are refused. The metadata are not parsed: this works for products
/// that cannot be opened, and says what is wrong with them. Files of a folder that the manifest does not list are not
/// looked at.
///
/// Each file is read once, in pieces, in the threads of the current `rayon` pool.
///
/// # Errors
///
/// - [`Error::Damaged`] names the first damaged or missing file, in the order of the manifest, and the number of others.
/// - [`Error::NoManifest`] when there is no manifest, [`Error::Xml`] and [`Error::Metadata`] when it is damaged or
///   lists nothing, [`Error::UnsafePath`] when it lists a file outside the product.
/// - [`Error::Zip`], [`Error::UnsafePath`] and [`Error::UnsafeMember`] when an archive is damaged as a whole, as one
///   that was cut off is, or unsafe to unpack; [`Error::NotAProduct`] when there is no product in it.
/// - [`Error::Read`] when the folder, archive or manifest cannot be read at all.
///
/// # Examples
///
/// ```
/// let product = tempfile::tempdir()?;
/// let manifest = r#"<XFDU><dataObject ID="INSPIRE_Metadata"><byteStream size="3">
///     <fileLocation locatorType="URL" href="./INSPIRE.xml"/>
///     <checksum checksumName="MD5">900150983CD24FB0D6963F7D28E17F72</checksum>
/// </byteStream></dataObject></XFDU>"#;
/// std::fs::write(product.path().join("manifest.safe"), manifest)?;
/// std::fs::write(product.path().join("INSPIRE.xml"), "abc")?;
/// assert_eq!(s2_io::verify(product.path())?.checked, 1);
///
/// std::fs::write(product.path().join("INSPIRE.xml"), "abd")?;
/// let error = s2_io::verify(product.path()).unwrap_err().to_string();
/// assert!(error.contains("INSPIRE.xml has the MD5 checksum 4911e516e5aa21d327512e0c8b197616"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify(path: impl AsRef<Path>) -> Result<Verified> {
    let path = path.as_ref();
    if !is_folder(path)? {
        let archive = Archive::open(path)?;
        return match archive.listed {
            Some(_) => archive.read_members(None),
            None => Err(Error::NoManifest { path: path.to_owned() }),
        };
    }
    let manifest = path.join(manifest::NAME);
    let document = match read_small(&manifest) {
        Ok(document) => document,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoManifest { path: path.to_owned() });
        }
        Err(source) => return Err(Error::Read { path: manifest, source }),
    };
    if document.len() as u64 > manifest::MAX_SIZE {
        let problem = format!("has more than {} bytes", manifest::MAX_SIZE);
        return Err(Error::Damaged { path: manifest, problem, more: 0 });
    }
    let listed = manifest::parse(&manifest, &document)?;
    let verified = verify_folder(path, &listed)?;
    Ok(Verified { files: verified.files + 1, bytes: verified.bytes + document.len() as u64, ..verified })
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    File::open(path)?.take(manifest::MAX_SIZE + 1).read_to_end(&mut data)?;
    Ok(data)
}

/// Compares the files of a folder with a manifest.
pub(super) fn verify_folder(root: &Path, listed: &[Listed]) -> Result<Verified> {
    let mut files: Vec<_> = listed.iter().enumerate().collect();
    // Threads take one after the other, so that a large one does not begin when the others have nothing left.
    files.sort_by_key(|(_, listed)| Reverse(listed.size));
    let found = files.into_iter().par_bridge().map_init(
        || vec![0; BUFFER],
        |buffer, (order, listed)| {
            let path = root.join(&listed.file);
            let result = verify_file(&path, listed, buffer);
            Found { path, listed: Some((order, listed)), result }
        },
    );
    report(found.collect())
}

fn verify_file(path: &Path, listed: &Listed, buffer: &mut [u8]) -> Result<u64, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "is missing".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    // Asked before it is opened: a pipe would wait for ever.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if metadata.len() != listed.size {
        return Err(format!("has {} bytes, {} says {}", metadata.len(), manifest::NAME, listed.size));
    }
    let file = File::open(path).map_err(failed)?;
    pass(file, &mut io::sink(), listed.size, None, listed.checksum.as_ref(), buffer).map_err(failed)?
}

/// What reading a file came to.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) path: PathBuf,
    /// Its place in the manifest, and what is said there.
    pub(super) listed: Option<(usize, &'a Listed)>,
    /// Its length, or what is wrong with it in words that follow its name.
    pub(super) result: Result<u64, String>,
}

/// Counts what was found, or says what is wrong: in the order of the manifest, with unlisted files at the end.
pub(super) fn report(mut found: Vec<Found<'_>>) -> Result<Verified> {
    let order = |file: &Found<'_>| file.listed.map_or(usize::MAX, |(order, _)| order);
    found.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.path.cmp(&b.path)));
    let mut verified = Verified::default();
    let mut damaged = Vec::new();
    for file in found {
        match file.result {
            Ok(length) => {
                let has_checksum = file.listed.map(|(_, listed)| listed.checksum.is_some());
                verified.files += 1;
                verified.bytes += length;
                verified.checked += usize::from(has_checksum == Some(true));
                verified.without_checksum += usize::from(has_checksum == Some(false));
            }
            Err(problem) => damaged.push((file.path, problem)),
        }
    }
    let more = damaged.len().saturating_sub(1);
    match damaged.into_iter().next() {
        Some((path, problem)) => Err(Error::Damaged { path, problem, more }),
        None => Ok(verified),
    }
}

/// Passes a file on to `sink` in pieces and compares it with its size, with the CRC-32 of an archive, and with the
/// checksum of a manifest. What is wrong with the file is the inner error, the outer is that of the sink.
pub(super) fn pass(
    mut data: impl Read,
    sink: &mut dyn Write,
    size: u64,
    crc32: Option<u32>,
    checksum: Option<&Checksum>,
    buffer: &mut [u8],
) -> io::Result<Result<u64, String>> {
    let source = if crc32.is_some() { "the archive's directory" } else { manifest::NAME };
    let mut hasher = checksum.map(|checksum| checksum.algorithm.hasher());
    let mut crc = libdeflater::Crc::new();
    let mut length = 0_u64;
    loop {
        let count = match data.read(buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(format!("cannot be read after {length} bytes: {error}"))),
        };
        length += count as u64;
        // Nothing is written beyond the size that limits were checked with.
        if length > size {
            return Ok(Err(format!("has more than the {size} bytes that {source} says")));
        }
        let part = &buffer[..count];
        if crc32.is_some() {
            crc.update(part);
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(part);
        }
        sink.write_all(part)?;
    }
    if length != size {
        return Ok(Err(format!("has {length} bytes, {source} says {size}")));
    }
    if let Some(expected) = crc32.filter(|expected| *expected != crc.sum()) {
        return Ok(Err(format!("has the CRC-32 {:08x}, {source} says {expected:08x}", crc.sum())));
    }
    if let Some((found, expected)) = hasher.map(Hasher::finish).zip(checksum)
        && found != *expected
    {
        let (algorithm, found, expected) = (found.algorithm, found.hex(), expected.hex());
        let source = manifest::NAME;
        return Ok(Err(format!("has the {algorithm} checksum {found}, {source} says {expected}")));
    }
    Ok(Ok(length))
}
