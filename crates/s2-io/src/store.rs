//! Files that are whole or absent: written under a temporary name beside the target, synced, renamed.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use crate::{Error, Result};

/// Writes a file so that readers see the old file or the whole new one, never a part.
///
/// `write` fills a temporary file in the target's folder (a hidden name that ends in `.part`), which is then
/// synced to disk and renamed to `path`. When `write` or the disk fails the temporary file is removed and an
/// existing file at `path` stays as it was; only a killed process leaves a `.part` file behind. The new file
/// has the permissions of any newly created file (`0666` less the umask).
///
/// # Errors
///
/// [`Error::Write`] with the target's path: a missing folder, a full disk, or whatever `write` returned.
///
/// # Examples
///
/// ```
/// use std::io::Write;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("summary.json");
/// s2_io::write_atomic(&path, |file| file.write_all(b"{}"))?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomic(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    replace(path, write).map_err(|source| Error::Write { path: path.to_path_buf(), source })
}

fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".part");
    // The default of `tempfile` is 0600, which would outlive the rename.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let (file, temporary) = builder.tempfile_in(folder_of(path))?.into_parts();
    let mut writer = BufWriter::new(file);
    write(&mut writer)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    temporary.persist(path).map_err(|error| error.error)
}

/// The folder of a file; of one without a folder, that of the program.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
