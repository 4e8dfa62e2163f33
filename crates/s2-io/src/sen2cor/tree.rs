//! Folder trees: a view of a product that may be written to, copies, and their way to disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{Error, Result};

/// Files of a product lie five folders deep.
const MAX_DEPTH: usize = 16;
/// Sen2Cor copies or reads these without asking whether they are there. They are empty in products, and many
/// archives and downloads drop empty folders (sen2r#348, sentinelhub-py#12).
const FOLDERS: [&str; 3] = ["AUX_DATA", "HTML", "rep_info"];
const FOLDERS_BELOW: [(&str, &str); 2] = [("DATASTRIP", "QI_DATA"), ("GRANULE", "AUX_DATA")];

/// Makes a view of an L1C product at `view`: images are links, all else is copied, and the folders that Sen2Cor needs
/// are there. Sen2Cor 2.8 takes its input for its work folder, so nothing that it might change in place may be the
/// original.
pub(super) fn view(product: &Path, view: &Path) -> Result<()> {
    // A link needs a target that does not depend on where the link lies.
    let product = product.canonicalize().map_err(read(product))?;
    mirror(&product, view, MAX_DEPTH, &|from, to| match from
        .extension()
        .is_some_and(|extension| extension == "jp2")
    {
        true => link(from, to),
        false => copy(from, to),
    })?;
    let make = |path: &Path| fs::create_dir_all(path).map_err(write(path));
    for folder in FOLDERS {
        make(&view.join(folder))?;
    }
    for (parent, folder) in FOLDERS_BELOW {
        let parent = view.join(parent);
        if parent.is_dir() {
            for entry in fs::read_dir(&parent).map_err(read(&parent))? {
                let path = entry.map_err(read(&parent))?.path();
                if path.is_dir() {
                    make(&path.join(folder))?;
                }
            }
        }
    }
    Ok(())
}

/// Moves a folder to a place where there is none; across file systems by copying it beside the place first.
pub(super) fn move_folder(from: &Path, to: &Path) -> Result<()> {
    sync(from)?;
    let parent = crate::store::folder_of(to);
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let beside = tempfile::Builder::new()
                .prefix(".")
                .suffix(".part")
                .tempdir_in(parent)
                .map_err(write(parent))?;
            let copied = beside.path().join("product");
            mirror(from, &copied, MAX_DEPTH, &copy)?;
            sync(&copied)?;
            fs::rename(&copied, to)
        }
        result => result,
    }
    .map_err(write(to))?;
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(write(parent))
}

/// Mirrors a folder; `leaf` makes the files. Links of the source are followed.
fn mirror(from: &Path, to: &Path, depth: usize, leaf: &dyn Fn(&Path, &Path) -> io::Result<()>) -> Result<()> {
    // A link to a folder above itself never ends.
    if depth == 0 {
        let source = io::Error::other("its folders are too deep");
        return Err(Error::Read { path: from.to_owned(), source });
    }
    fs::create_dir(to).map_err(write(to))?;
    for entry in fs::read_dir(from).map_err(read(from))? {
        let entry = entry.map_err(read(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if fs::metadata(&path).map_err(read(&path))?.is_dir() {
            mirror(&path, &target, depth - 1, leaf)?;
        } else {
            leaf(&path, &target).map_err(write(&target))?;
        }
    }
    Ok(())
}

/// A symbolic link; where the file system has none a hard link; else a copy.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(from, to).or_else(|_| fs::hard_link(from, to)).or_else(|_| copy(from, to))
}

/// Copies the contents only: the copy of a write-protected file can be written.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut File::open(from)?, &mut File::create_new(to)?).map(|_| ())
}

/// Syncs all files and folders. A link is replaced by what it points to: a product that points into its input, or into a
/// work folder, is not complete.
fn sync(path: &Path) -> Result<()> {
    if path.is_symlink() {
        let target = path.canonicalize().map_err(read(path))?;
        fs::remove_file(path).and_then(|()| copy(&target, path)).map_err(write(path))?;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(read(path))? {
            sync(&entry.map_err(read(path))?.path())?;
        }
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(write(path))
}

pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Read { path: path.to_owned(), source }
}

pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}
