//! Archives of products unpacked: whole and verified, or not at all.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::archive::{Archive, is_portable};
use super::metadata::text;
use super::source::is_folder;
use super::verify::verify_folder;
use crate::stage::free_bytes;
use crate::xml::Element;
use crate::{Error, ProductName, Result};

/// How much an archive may unpack to, checked before anything is written. Members that turn out to be larger than the
/// archive's directory says are cut off there and reported as damaged.
///
/// # Examples
///
/// ```
/// let limits = s2_io::UnpackLimits { bytes: 2 << 30, ..Default::default() };
/// assert_eq!(limits.files, 10_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Members of the archive, folders included: 10 000. Products of one tile have some 130, old ones with many
    /// granules some thousands.
    pub files: usize,
    /// Bytes of one file: 4 GiB. The bands of 10 m have some 130 MB.
    pub file_bytes: u64,
    /// Bytes of all files: 20 GiB. Products of one tile have at most some 1.2 GB, old ones some 7 GB.
    pub bytes: u64,
    /// Bytes of all files for each byte of the archive: 100. Images hardly compress, and CDSE stores them as they are.
    /// Archives that unpack to less than 64 MiB are not measured by it.
    pub ratio: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { files: 10_000, file_bytes: 4 << 30, bytes: 20 << 30, ratio: 100 }
    }
}

/// What the files of any archive may take, however small it is.
const SMALL: u64 = 64 << 20;
/// Folders of every product, some of them empty, which archives of CDSE leave out and Sen2Cor asks for.
const FOLDERS: [&str; 3] = ["AUX_DATA", "HTML", "rep_info"];
/// Files fill whole blocks of a disk.
const BLOCK: u64 = 4096;

/// Unpacks the archive of a product into `folder/<name>.SAFE` and returns that path. `folder` must exist.
///
/// The product is verified as it is written, as [`verify`](crate::verify) does: every file fits the archive's CRC-32
/// and the manifest, none is missing. An archive without a manifest, as some tools make them, is compared with its
/// CRC-32 only. The name is that of the archive's top folder; where it has none, that in the metadata or else the
/// archive's own. The folders `AUX_DATA`, `HTML`, `rep_info` and `GRANULE/*/AUX_DATA`, which archives leave out when
/// they are empty, are made. What lies beside the product in the archive stays there. Times and permissions of the
/// archive are not kept.
///
/// The product grows in a temporary folder beside it (a hidden name that ends in `.part`), is synced to disk and
/// renamed: it is there as a whole or not at all. On errors nothing is left; only a killed process leaves a `.part`
/// folder behind.
///
/// A product that is already there is compared with the archive's manifest and returned when nothing is missing or
/// damaged, so that a repeated run costs a read. It is never replaced.
///
/// Archives are not trusted: names that lead out of the folder, links, and names that mean another file on another
/// system are refused, as are archives beyond the default [`UnpackLimits`]. Files are read in pieces, in the threads
/// of the current `rayon` pool.
///
/// # Errors
///
/// - [`Error::Damaged`] names the first damaged or missing file and the number of others. The manifest itself can be
///   damaged as well: [`Error::Xml`], [`Error::Metadata`].
/// - [`Error::Zip`] when the archive is damaged as a whole, as one that was cut off is; [`Error::NotAProduct`] when
///   there is no product in it, or no name for it.
/// - [`Error::UnsafePath`], [`Error::UnsafeMember`], [`Error::UnpackLimit`] when it is not safe to unpack.
/// - [`Error::Exists`] when something else is already there, or a part of the product, or when an archive without a
///   manifest cannot tell.
/// - [`Error::NoSpace`] when the disk is too full to begin (asked on Unix only), [`Error::Write`] when writing fails.
/// - [`Error::Read`] when the archive cannot be read.
///
/// # Examples
///
/// ```no_run
/// let archive = "S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE.zip";
/// let product = s2_io::unpack(archive, "products")?;
/// assert!(product.ends_with("S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE"));
/// # Ok::<(), s2_io::Error>(())
/// ```
pub fn unpack(archive: impl AsRef<Path>, folder: impl AsRef<Path>) -> Result<PathBuf> {
    unpack_with_limits(archive, folder, UnpackLimits::default())
}

/// Unpacks the archive of a product as [`unpack`] does, within other limits.
///
/// # Errors
///
/// As [`unpack`].
pub fn unpack_with_limits(
    archive: impl AsRef<Path>,
    folder: impl AsRef<Path>,
    limits: UnpackLimits,
) -> Result<PathBuf> {
    let (path, folder) = (archive.as_ref(), folder.as_ref());
    if is_folder(path)? {
        let reason = "it is a folder, not an archive that could be unpacked".to_owned();
        return Err(Error::NotAProduct { path: path.to_owned(), reason });
    }
    let archive = Archive::open(path)?;
    let target = folder.join(name(path, &archive)?);
    if target.symlink_metadata().is_ok() {
        return existing(path, &archive, target);
    }
    let bytes = limits.check(path, &archive)?;
    check_space(folder, bytes.saturating_add(archive.room()))?;

    let failed = |source| Error::Write { path: target.clone(), source };
    let part = tempfile::Builder::new().prefix(".").suffix(".part").tempdir_in(folder).map_err(failed)?;
    make_folders(part.path(), &archive).map_err(failed)?;
    archive.read_members(Some(part.path())).map_err(|error| match error {
        // Nobody will find the temporary file.
        Error::Write { path, source } => {
            let file = path.strip_prefix(part.path()).unwrap_or(&path);
            Error::Write { path: target.join(file), source }
        }
        error => error,
    })?;
    sync_folders(part.path(), &archive);
    match fs::rename(part.path(), &target) {
        Ok(()) => {
            // There is nothing left to remove.
            let _ = part.keep();
            sync_folder(folder);
            Ok(target)
        }
        // Somebody else was faster.
        Err(_) if target.symlink_metadata().is_ok() => existing(path, &archive, target),
        Err(source) => Err(failed(source)),
    }
}

/// The bytes that an archive unpacks to on a disk, by its directory: what [`unpack`] asks for before it begins.
///
/// # Errors
///
/// [`Error::Zip`], [`Error::UnsafePath`] and [`Error::UnsafeMember`] when the archive is damaged as a whole or unsafe to
/// unpack, [`Error::NotAProduct`] when there is no product in it, [`Error::Read`] when it cannot be read.
pub fn unpacked_bytes(archive: impl AsRef<Path>) -> Result<u64> {
    let archive = Archive::open(archive.as_ref())?;
    let bytes = archive.files().fold(0_u64, |bytes, member| bytes.saturating_add(member.size));
    Ok(bytes.saturating_add(archive.room()))
}

impl Archive {
    /// What its files take beyond their lengths.
    fn room(&self) -> u64 {
        BLOCK * self.members.len() as u64
    }
}

impl UnpackLimits {
    /// What an archive unpacks to, in bytes, if that is allowed.
    fn check(&self, path: &Path, archive: &Archive) -> Result<u64> {
        let within = |path: PathBuf, what, found: u64, limit: u64| match found > limit {
            true => Err(Error::UnpackLimit { path, what, found, limit }),
            false => Ok(()),
        };
        let entries = archive.entries as u64;
        within(path.to_owned(), "members", entries, u64::try_from(self.files).unwrap_or(u64::MAX))?;
        let mut bytes = 0_u64;
        for member in archive.files() {
            within(archive.path_of(member), "bytes", member.size, self.file_bytes)?;
            bytes = bytes.saturating_add(member.size);
        }
        within(path.to_owned(), "bytes", bytes, self.bytes)?;
        let length =
            fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?.len();
        let limit = length.saturating_mul(self.ratio).max(SMALL);
        within(path.to_owned(), "bytes, much more than it has itself", bytes, limit)?;
        Ok(bytes)
    }
}

/// The name of the product's folder.
fn name(path: &Path, archive: &Archive) -> Result<String> {
    let stem = |name: &str| {
        let name = name.strip_suffix(".zip").unwrap_or(name);
        name.strip_suffix(".SAFE").unwrap_or(name).to_owned()
    };
    if let Some(top) = archive.root.strip_suffix('/') {
        return Ok(format!("{}.SAFE", stem(top)));
    }
    let in_metadata = || {
        let root = Element::parse(path, &archive.metadata()?).ok()?;
        text(path, &root, &["PRODUCT_URI", "PRODUCT_URI_2A"]).map(stem).ok()
    };
    let of_archive = || path.file_name().map(|name| stem(&name.to_string_lossy()));
    // What a file says becomes a path only when it is the name of a product.
    let is_name = |name: &String| is_portable(name) && name.parse::<ProductName>().is_ok();
    let name = in_metadata().filter(is_name).or_else(|| of_archive().filter(is_name));
    name.map(|name| format!("{name}.SAFE")).ok_or_else(|| {
        let reason =
            "neither a top folder nor its metadata nor its own name tell the product's name".to_owned();
        Error::NotAProduct { path: path.to_owned(), reason }
    })
}

/// A product that is already there, if it is what the archive holds.
fn existing(path: &Path, archive: &Archive, target: PathBuf) -> Result<PathBuf> {
    let same = match &archive.listed {
        Some(listed) => verify_folder(&target, listed).map(|_| ()),
        None => Err(Error::NoManifest { path: path.to_owned() }),
    };
    match same {
        Ok(()) => Ok(target),
        Err(source) => Err(Error::Exists { path: target, source: Box::new(source) }),
    }
}

/// The folders of a product, relative to it: those of the archive, and those that it leaves out when they are empty.
fn folders(archive: &Archive) -> BTreeSet<String> {
    let mut folders: BTreeSet<_> = archive.folders().map(str::to_owned).collect();
    let granules: Vec<_> = folders
        .iter()
        .filter(|folder| folder.strip_prefix("GRANULE/").is_some_and(|granule| !granule.contains('/')))
        .map(|granule| format!("{granule}/AUX_DATA"))
        .collect();
    folders.extend(FOLDERS.map(str::to_owned));
    folders.extend(granules);
    folders
}

fn make_folders(root: &Path, archive: &Archive) -> io::Result<()> {
    folders(archive).iter().try_for_each(|folder| fs::create_dir_all(root.join(folder)))
}

fn sync_folders(root: &Path, archive: &Archive) {
    for folder in folders(archive) {
        sync_folder(&root.join(folder));
    }
    sync_folder(root);
}

/// Makes the entries of a folder last, where the system can: Windows and some network file systems cannot.
fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Checks that a folder's disk has room.
fn check_space(folder: &Path, needed: u64) -> Result<()> {
    let failed = |error| match error {
        Error::Read { path, source } => Error::Write { path, source },
        error => error,
    };
    match free_bytes(folder).map_err(failed)? {
        Some(free) if free < needed => Err(Error::NoSpace { path: folder.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_says_how_much_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        check_space(folder.path(), 0).unwrap();
        let error = check_space(folder.path(), u64::MAX).unwrap_err();
        let Error::NoSpace { path, needed, free } = &error else { panic!("{error}") };
        assert_eq!((path.as_path(), *needed), (folder.path(), u64::MAX));
        assert!(*free > 0, "{error}");
        check_space(&folder.path().join("none"), 0).unwrap_err();
    }
}
