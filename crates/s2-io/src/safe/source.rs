//! Where the files of a product lie: a folder, or a zip archive that is read without unpacking it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use zip::{CompressionMethod, ZipArchive};

use super::product_level;
use crate::{Error, Result};

/// Images lie three folders below `GRANULE`.
const MAX_DEPTH: usize = 8;
/// The largest files of a product, bands of 10 m, have some 130 MB.
const MAX_FILE: u64 = 2 << 30;

/// The files of a product, by paths relative to its root and with `/` between their parts.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// What comes before the relative paths in the archive; `None` for a folder.
    prefix: Option<String>,
    files: Vec<String>,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let source = if is_folder(path)? {
            let mut files = Vec::new();
            // Only a product's folder is searched, and only where images are.
            list(path, "", 0, &mut files)?;
            if path.join("GRANULE").is_dir() && files.iter().any(|file| product_level(file).is_some()) {
                list(path, "GRANULE/", MAX_DEPTH, &mut files)?;
            }
            Self { path: path.to_owned(), prefix: None, files }
        } else {
            Self::archive(path)?
        };
        if !source.files.iter().any(|file| product_level(file).is_some()) {
            return Err(no_metadata(path));
        }
        Ok(Self { files: sorted(source.files), ..source })
    }

    /// The product of an archive lies in its one top folder, or at its root.
    fn archive(path: &Path) -> Result<Self> {
        let archive = open_archive(path)?;
        let mut members = Vec::with_capacity(archive.len());
        for name in archive.file_names() {
            let name = name.map_err(|source| zip_error(path, source))?;
            if !is_inside(&name) {
                return Err(Error::UnsafePath { path: path.to_owned(), member: name.into_owned() });
            }
            if !name.ends_with('/') {
                members.push(name.into_owned());
            }
        }
        let Some(root) = root(path, &members, |file| product_level(file).is_some())? else {
            return Err(no_metadata(path));
        };
        let files =
            members.iter().filter_map(|member| Some(member.strip_prefix(&root)?.to_owned())).collect();
        Ok(Self { path: path.to_owned(), prefix: Some(root), files })
    }

    /// All files, sorted.
    pub(super) fn files(&self) -> &[String] {
        &self.files
    }

    /// The product's folder or archive.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file's path for messages: below the folder, or below the archive as if that were one.
    pub(super) fn path_of(&self, file: &str) -> PathBuf {
        self.path.join(self.prefix.as_deref().unwrap_or_default()).join(file)
    }

    /// A file that is read where it is needed, also in an archive that stores it as it is; a compressed member is
    /// unpacked into memory.
    pub(super) fn open_image(&self, file: &str) -> Result<Box<dyn s2_jp2::Source>> {
        let path = self.path_of(file);
        if let Some(prefix) = &self.prefix {
            let mut archive = open_archive(&self.path)?;
            let member =
                archive.by_name(&format!("{prefix}{file}")).map_err(|source| zip_error(&path, source))?;
            let (start, length) = (member.data_start(), member.size());
            if member.compression() != CompressionMethod::Stored {
                drop(member);
                return Ok(Box::new(self.read(file)?));
            }
            drop(member);
            let start = start.ok_or_else(|| zip_error(&path, "a member that begins nowhere"))?;
            let file = archive.into_inner().into_inner();
            return Ok(Box::new(Stored { file, start, length }));
        }
        let file = File::open(&path).map_err(|source| Error::Read { path, source })?;
        Ok(Box::new(file))
    }

    /// Reads a file into memory.
    pub(super) fn read(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.path_of(file);
        let Some(prefix) = &self.prefix else {
            return std::fs::read(&path).map_err(|source| Error::Read { path, source });
        };
        let mut archive = open_archive(&self.path)?;
        let member =
            archive.by_name(&format!("{prefix}{file}")).map_err(|source| zip_error(&path, source))?;
        let mut data = Vec::new();
        // The size in the archive's directory is a claim: memory grows with what is really there.
        let read = member.take(MAX_FILE).read_to_end(&mut data);
        match read {
            Ok(length) if length as u64 == MAX_FILE => Err(zip_error(&path, "a member of more than 2 GiB")),
            Ok(_) => Ok(data),
            Err(source) => Err(zip_error(&path, source)),
        }
    }
}

/// A part of a file.
struct Stored {
    file: File,
    start: u64,
    length: u64,
}

impl s2_jp2::Source for Stored {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        s2_jp2::Source::read_exact_at(&self.file, buffer, self.start.saturating_add(offset))
    }
}

/// Whether a product lies in a folder; if not, in a zip archive.
pub(super) fn is_folder(path: &Path) -> Result<bool> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(true);
    }
    let mut magic = Vec::new();
    File::open(path).and_then(|file| file.take(2).read_to_end(&mut magic)).map_err(failed)?;
    if magic != *b"PK" {
        let reason = "it is neither a folder nor a zip archive".to_owned();
        return Err(Error::NotAProduct { path: path.to_owned(), reason });
    }
    Ok(false)
}

/// Where in an archive the product lies: its top folder, with a `/` at its end, or its root. It is known by the files
/// that `is_part` recognises.
pub(super) fn root<'a>(
    path: &Path,
    members: impl IntoIterator<Item = &'a String>,
    is_part: impl Fn(&str) -> bool,
) -> Result<Option<String>> {
    let mut roots: Vec<_> = members
        .into_iter()
        .map(|member| {
            member.rsplit_once('/').map_or((String::new(), &**member), |(r, f)| (format!("{r}/"), f))
        })
        .filter(|(root, file)| root.matches('/').count() < 2 && is_part(file))
        .map(|(root, _)| root)
        .collect();
    roots.sort();
    roots.dedup();
    if roots.len() > 1 {
        let reason = format!("it holds several: {}; keep one in an archive", roots.join(", "));
        return Err(Error::NotAProduct { path: path.to_owned(), reason });
    }
    Ok(roots.pop())
}

pub(super) fn open_archive(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    ZipArchive::new(BufReader::new(file)).map_err(|source| zip_error(path, source))
}

pub(super) fn zip_error(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Zip { path: path.to_owned(), source: source.into() }
}

pub(super) fn no_metadata(path: &Path) -> Error {
    Error::NotAProduct {
        path: path.to_owned(),
        reason: "no MTD_MSIL1C.xml or MTD_MSIL2A.xml in it".to_owned(),
    }
}

/// Whether a path stays inside the folder that it is relative to, on every system.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.starts_with(['/', '\\']) && !path.contains(':') && path.split(['/', '\\']).all(|part| part != "..")
}

fn list(root: &Path, below: &str, depth: usize, files: &mut Vec<String>) -> Result<()> {
    let folder = root.join(below);
    let failed = |source| Error::Read { path: folder.clone(), source };
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // Names of a product are ASCII; others belong to something else.
        let Some(name) = name.to_str() else { continue };
        let relative = format!("{below}{name}");
        if root.join(&relative).is_dir() {
            if depth > 0 {
                list(root, &format!("{relative}/"), depth - 1, files)?;
            }
        } else {
            files.push(relative);
        }
    }
    Ok(())
}

fn sorted(mut files: Vec<String>) -> Vec<String> {
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_are_recognised() {
        for path in ["../a", "a/../../b", "/a", "\\a", "a\\..\\b", "C:/a", "a/.."] {
            assert!(!is_inside(path), "{path}");
        }
        for path in ["a", "a/b.c", "a..b/c", "GRANULE/x/"] {
            assert!(is_inside(path), "{path}");
        }
    }
}
