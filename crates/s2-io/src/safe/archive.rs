//! The members of a product's zip archive: names that are safe on every system, read once and compared with what the
//! archive and the manifest say.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use zip::ZipArchive;
use zip::read::ZipReadOptions;

use super::manifest::{self, Listed};
use super::product_level;
use super::source::{is_inside, no_metadata, open_archive, root, zip_error};
use super::verify::{Found, Verified, pass, report};
use crate::{Error, Result};

/// Names in archives with their folders: those of products have some 200 bytes and 6 parts. The limits keep the work
/// for a name small.
const MAX_NAME: usize = 1024;
const MAX_PARTS: usize = 32;
/// Bytes that a thread reads at once.
pub(super) const BUFFER: usize = 1 << 18;

/// A file in an archive, as the archive's directory describes it.
#[derive(Debug)]
pub(super) struct Member {
    index: usize,
    pub(super) name: String,
    pub(super) size: u64,
    crc32: u32,
}

/// A product in an archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    /// What comes before the product's paths: its top folder with a `/` at its end, or nothing.
    pub(super) root: String,
    /// How many files and folders the archive's directory lists.
    pub(super) entries: usize,
    /// All files of the archive.
    pub(super) members: Vec<Member>,
    /// All folders of the archive, with or without members of their own.
    folders: Vec<String>,
    /// What the manifest lists, if there is one.
    pub(super) listed: Option<Vec<Listed>>,
}

impl Archive {
    /// Reads the archive's directory and the manifest, and refuses names that are unsafe to unpack.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut archive = open_archive(path)?;
        let (members, folders) = members(path, &archive)?;
        let is_part = |file: &str| file == manifest::NAME || product_level(file).is_some();
        let Some(root) = root(path, members.iter().map(|member| &member.name), is_part)? else {
            return Err(no_metadata(path));
        };
        let entries = archive.len();
        let mut product = Self { path: path.to_owned(), root, entries, members, folders, listed: None };
        let name = format!("{}{}", product.root, manifest::NAME);
        if let Some(member) = product.members.iter().find(|member| member.name == name) {
            let document = product.read_small(&mut archive, member)?;
            product.listed = Some(manifest::parse(&path.join(&name), &document)?);
        }
        Ok(product)
    }

    /// The folders of the product, relative to it.
    pub(super) fn folders(&self) -> impl Iterator<Item = &str> {
        self.folders
            .iter()
            .filter_map(|name| name.strip_prefix(&self.root))
            .filter(|folder| !folder.is_empty())
    }

    /// The files of the product; an archive may hold others beside it.
    pub(super) fn files(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.name.starts_with(&self.root))
    }

    /// A member's path for messages.
    pub(super) fn path_of(&self, member: &Member) -> PathBuf {
        self.path.join(&member.name)
    }

    /// The metadata of the product, the newest level first, if there are any and they can be read.
    pub(super) fn metadata(&self) -> Option<Vec<u8>> {
        let level = |member: &&Member| member.name.strip_prefix(&self.root).and_then(product_level);
        let member = self.members.iter().filter(|member| level(member).is_some()).max_by_key(level)?;
        self.read_small(&mut open_archive(&self.path).ok()?, member).ok()
    }

    /// Reads a manifest or metadata into memory.
    fn read_small<R: Read + Seek>(&self, archive: &mut ZipArchive<R>, member: &Member) -> Result<Vec<u8>> {
        let path = self.path_of(member);
        if member.size > manifest::MAX_SIZE {
            let problem = format!("has {} bytes, at most {} are read", member.size, manifest::MAX_SIZE);
            return Err(Error::Damaged { path, problem, more: 0 });
        }
        let mut data = Vec::new();
        match read_member(archive, member, None, &mut data, &mut vec![0; BUFFER]) {
            Ok(Ok(_)) => Ok(data),
            Ok(Err(problem)) => Err(Error::Damaged { path, problem, more: 0 }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Reads members to their ends, in threads and each once, and compares them with the archive's directory and the
    /// manifest: those of the product, written below `into`, or, where there is no such folder, all of them.
    pub(super) fn read_members(&self, into: Option<&Path>) -> Result<Verified> {
        let mut listed: HashMap<_, _> = self
            .listed
            .iter()
            .flatten()
            .enumerate()
            .map(|(order, listed)| (&*listed.file, (order, listed)))
            .collect();
        let mut work: Vec<_> = self
            .members
            .iter()
            .map(|member| {
                let file = member.name.strip_prefix(&self.root);
                (member, file, file.and_then(|file| listed.remove(file)))
            })
            .filter(|(_, file, _)| file.is_some() || into.is_none())
            .collect();
        let missing = listed.into_values().map(|(order, listed)| Found {
            path: self.path.join(&self.root).join(&listed.file),
            listed: Some((order, listed)),
            result: Err("is missing".to_owned()),
        });
        // Threads take one after the other, so that a large one does not begin when the others have nothing left.
        work.sort_by_key(|(member, ..)| Reverse(member.size));
        let found = work.into_iter().par_bridge().map_init(
            || (None, vec![0; BUFFER]),
            |(archive, buffer), (member, file, listed)| {
                let archive = match archive {
                    Some(archive) => archive,
                    None => archive.insert(open_archive(&self.path)?),
                };
                let mut read = |sink: &mut dyn Write| {
                    read_member(archive, member, listed.map(|(_, listed)| listed), sink, buffer)
                };
                let path = self.path_of(member);
                let result = match file.zip(into) {
                    Some((file, folder)) => write_new(&folder.join(file), read)
                        .map_err(|source| Error::Write { path: folder.join(file), source })?,
                    None => {
                        read(&mut io::sink()).map_err(|source| Error::Read { path: path.clone(), source })?
                    }
                };
                Ok(Found { path, listed, result })
            },
        );
        let mut found = found.collect::<Result<Vec<_>>>()?;
        found.extend(missing);
        report(found)
    }
}

/// Writes a new file and syncs it.
fn write_new<T>(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    let mut file = File::create_new(path)?;
    let filled = fill(&mut file)?;
    file.sync_all()?;
    Ok(filled)
}

/// Reads a member to its end into `sink`. What is wrong with the member is the inner error, the outer is that of the
/// sink.
fn read_member<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    member: &Member,
    listed: Option<&Listed>,
    sink: &mut dyn Write,
    buffer: &mut [u8],
) -> io::Result<Result<u64, String>> {
    if let Some(listed) = listed.filter(|listed| listed.size != member.size) {
        return Ok(Err(format!("has {} bytes, {} says {}", member.size, manifest::NAME, listed.size)));
    }
    // The CRC is computed here, because the crate `zip` does not tell which one it found.
    match archive.by_index_with_options(member.index, ZipReadOptions::new().ignore_crc32(true)) {
        Ok(data) => {
            let checksum = listed.and_then(|listed| listed.checksum.as_ref());
            pass(data, sink, member.size, Some(member.crc32), checksum, buffer)
        }
        Err(error) => Ok(Err(format!("cannot be read from the archive: {error}"))),
    }
}

/// The files and folders of an archive.
fn members<R: Read + Seek>(path: &Path, archive: &ZipArchive<R>) -> Result<(Vec<Member>, Vec<String>)> {
    if archive.has_duplicate_names() {
        // They have become one before they can be seen here.
        return Err(zip_error(path, "it holds two members of the same name"));
    }
    let (mut files, mut names) = (Vec::with_capacity(archive.len()), Names::default());
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(|source| zip_error(path, source))?;
        let name = entry.name().map_err(|source| zip_error(path, source))?.into_owned();
        if !is_inside(&name) {
            return Err(Error::UnsafePath { path: path.to_owned(), member: name });
        }
        let added = if entry.is_symlink() { Err("is a symbolic link") } else { names.add(&name) };
        if let Err(problem) = added {
            return Err(Error::UnsafeMember { path: path.to_owned(), member: name, problem });
        }
        if !name.ends_with('/') {
            files.push(Member { index, name, size: entry.size(), crc32: entry.crc32() });
        }
    }
    let folders = names.0.into_values().filter(|known| known.is_folder).map(|known| known.name).collect();
    Ok((files, folders))
}

/// The names of an archive and all folders in them, by what they are where case does not count.
#[derive(Default)]
struct Names(HashMap<String, Known>);

struct Known {
    name: String,
    is_folder: bool,
}

impl Names {
    /// Adds a member with the folders that it lies in; those with a `/` at their end are folders themselves.
    fn add(&mut self, member: &str) -> Result<(), &'static str> {
        let name = member.strip_suffix('/').unwrap_or(member);
        if name.len() > MAX_NAME || name.split('/').count() > MAX_PARTS {
            return Err("has a name that is too long");
        }
        if !name.split('/').all(is_portable) {
            return Err("has a name that is not allowed on every system");
        }
        for (end, _) in name.match_indices('/') {
            self.enter(&name[..end], true)?;
        }
        self.enter(name, member.ends_with('/'))
    }

    fn enter(&mut self, name: &str, is_folder: bool) -> Result<(), &'static str> {
        match self.0.entry(name.to_lowercase()) {
            Entry::Vacant(place) => {
                place.insert(Known { name: name.to_owned(), is_folder });
                Ok(())
            }
            Entry::Occupied(place) => match place.get() {
                known if known.name != name => Err("differs from another member only in case"),
                known if known.is_folder != is_folder => Err("is a file and a folder"),
                known if known.is_folder => Ok(()),
                _ => Err("is there twice"),
            },
        }
    }
}

/// Whether a part of a path means the same file on Linux, macOS and Windows.
pub(super) fn is_portable(part: &str) -> bool {
    // Naming Files, Paths, and Namespaces (Microsoft): Windows drops dots and spaces at the end, keeps some characters
    // for itself, and means devices by some names, whatever their ending.
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let is_device = match stem.strip_prefix("COM").or(stem.strip_prefix("LPT")) {
        Some(number) => number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit()),
        None => matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL"),
    };
    let is_reserved = |c: char| c.is_control() || r#"\/:*?"<>|"#.contains(c);
    !part.is_empty() && !part.ends_with(['.', ' ']) && !is_device && !part.contains(is_reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_else_on_another_system_are_known() {
        for part in [
            "", ".", "a.", "a ", "a\\b", "a:b", "con", "NUL.txt", "aux .xml", "com1", "a\0", "a\n", "?",
            "...",
        ] {
            assert!(!is_portable(part), "{part:?}");
        }
        for part in
            ["manifest.safe", "AUX_DATA", ".hidden", "a b", "é", "COM", "COM10", "NULL", "console.txt"]
        {
            assert!(is_portable(part), "{part:?}");
        }
    }

    #[test]
    fn names_agree_with_all_that_were_there_before() {
        let add = |names: &[&str]| {
            let mut known = Names::default();
            names.iter().try_for_each(|name| known.add(name))
        };
        assert_eq!(add(&["a/b/c", "a/", "a/b/", "a/b/d", "b"]), Ok(()));
        let case = Err("differs from another member only in case");
        assert_eq!(add(&["a/b", "A/c"]), case, "folders");
        assert_eq!(add(&["a/b", "a/B"]), case);
        assert_eq!(add(&["a/é", "a/É"]), case);
        let both = Err("is a file and a folder");
        assert_eq!(add(&["a", "a/b"]), both);
        assert_eq!(add(&["a/b", "a"]), both);
        assert_eq!(add(&["a", "a/"]), both);
        assert_eq!(add(&["a", "a"]), Err("is there twice"));
        assert_eq!(add(&[&"a/".repeat(33)]), Err("has a name that is too long"));
        assert_eq!(add(&[&"a".repeat(1025)]), Err("has a name that is too long"));
        assert_eq!(add(&["a//b"]), Err("has a name that is not allowed on every system"));
    }
}
