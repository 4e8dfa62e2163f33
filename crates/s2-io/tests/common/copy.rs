//! Copies of the small product, in a folder or an archive, that tests may change.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use s2_io::Product;
use tempfile::TempDir;

use super::{SMALL, SMALL_IMAGES, chain, own};

pub(crate) const GRANULE: &str = "GRANULE/L2A_T29RKH_A024342_20200219T112111";

/// The files of a folder, relative to it.
pub(crate) fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

/// A copy of the small product that a test may change.
pub(crate) struct Copy {
    _folder: TempDir,
    pub(crate) root: PathBuf,
}

impl Copy {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // As `Product` sees it.
        let root = folder.path().canonicalize().unwrap().join(SMALL);
        for file in files(&own(SMALL)) {
            fs::create_dir_all(root.join(&file).parent().unwrap()).unwrap();
            fs::copy(own(SMALL).join(&file), root.join(&file)).unwrap();
        }
        Self { _folder: folder, root }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    pub(crate) fn image(&self, name: &str) -> PathBuf {
        let resolution = name.rsplit('_').next().unwrap();
        self.path(&format!("{SMALL_IMAGES}/R{resolution}/T29RKH_20200219T112111_{name}.jp2"))
    }

    /// Changes a metadata file; the text must be there.
    pub(crate) fn replace(self, file: &str, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{from} in {file}");
        fs::write(self.path(file), text.replace(from, to)).unwrap();
        self
    }

    pub(crate) fn open_error(&self) -> String {
        chain(&Product::open(&self.root).unwrap_err())
    }

    pub(crate) fn zip(&self, inside: &str) -> PathBuf {
        let path = self.root.with_extension("SAFE.zip");
        let members: Vec<_> =
            files(&self.root).into_iter().map(|file| (format!("{inside}{file}"), self.path(&file))).collect();
        write_zip(&path, members.iter().map(|(name, file)| (&**name, fs::read(file).unwrap())));
        path
    }
}

pub(crate) fn write_zip<'a>(path: &Path, members: impl IntoIterator<Item = (&'a str, Vec<u8>)>) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, data) in members {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&data).unwrap();
    }
    zip.finish().unwrap();
}
