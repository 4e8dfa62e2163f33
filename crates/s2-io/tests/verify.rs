//! Products compared with their manifests, and archives unpacked: whole ones, and ones that are wrong in one point each.

mod common;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use common::{SMALL, SMALL_IMAGES, chain, own, shared};
use proptest::prelude::*;
use s2_io::{
    Algorithm, Checksum, Error, Product, UnpackLimits, unpack, unpack_with_limits, unpacked_bytes, verify,
};
use tempfile::TempDir;
use zip::CompressionMethod::{self, Deflated, Stored};
use zip::write::SimpleFileOptions;

const INSPIRE: &str = "INSPIRE.xml";
const METADATA: &str = "MTD_MSIL2A.xml";
const B02: &str =
    "GRANULE/L2A_T29RKH_A024342_20200219T112111/IMG_DATA/R10m/T29RKH_20200219T112111_B02_10m.jp2";

/// The files of a product, relative to it.
type Files = Vec<(String, Vec<u8>)>;

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn data_object(href: &str, data: &[u8], name: &str, checksum: &str) -> String {
    format!(
        "<dataObject ID=\"x\"><byteStream mimeType=\"octet\" size=\"{}\"><fileLocation locatorType=\"URL\" \
         href=\"{href}\"/><checksum checksumName=\"{name}\">{checksum}</checksum></byteStream></dataObject>\n",
        data.len()
    )
}

fn hex(algorithm: Algorithm, data: &[u8]) -> String {
    Checksum::of(algorithm, data).unwrap().hex()
}

/// A manifest as ESA writes them: MD5 in lower case before baseline 04.00, then SHA3-256 in either.
fn manifest(files: &[(String, Vec<u8>)]) -> String {
    let objects = files.iter().enumerate().map(|(index, (file, data))| {
        let (name, checksum) = match index % 3 {
            0 => ("SHA3-256", hex(Algorithm::Sha3_256, data).to_uppercase()),
            1 => ("MD5", hex(Algorithm::Md5, data)),
            _ => ("SHA3-256", hex(Algorithm::Sha3_256, data)),
        };
        data_object(&format!("./{file}"), data, name, &checksum)
    });
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xfdu:XFDU xmlns:xfdu=\"urn:ccsds:schema:xfdu:1\">\
         <dataObjectSection>\n{}</dataObjectSection></xfdu:XFDU>",
        objects.collect::<String>()
    )
}

/// A small product without its manifest.
fn content() -> Files {
    [
        (METADATA, b"<a><PRODUCT_URI>S2</PRODUCT_URI></a>".repeat(40)),
        (INSPIRE, b"<inspire/>".to_vec()),
        (B02, noise(300_001)),
        ("DATASTRIP/DS_x/QI_DATA/GENERAL_QUALITY.xml", b"<quality>fine</quality>".repeat(100)),
        ("GRANULE/L2A_T29RKH_A024342_20200219T112111/MTD_TL.xml", Vec::new()),
    ]
    .map(|(file, data)| (file.to_owned(), data))
    .to_vec()
}

fn with_manifest(mut files: Files) -> Files {
    files.push(("manifest.safe".to_owned(), manifest(&files).into_bytes()));
    files
}

fn product() -> Files {
    with_manifest(content())
}

/// A product with other text in its manifest; the text must be there.
fn product_with(from: &str, to: &str) -> Files {
    let mut files = content();
    let text = manifest(&files);
    assert!(text.contains(from), "{from} in the manifest");
    files.push(("manifest.safe".to_owned(), text.replacen(from, to, 1).into_bytes()));
    files
}

fn data<'a>(files: &'a mut Files, file: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(name, _)| name == file).unwrap().1
}

fn without(mut files: Files, file: &str) -> Files {
    files.retain(|(name, _)| name != file);
    files
}

fn zip_bytes(files: &[(String, Vec<u8>)], prefix: &str, method: CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, data) in files {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("{prefix}{name}"), options).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An archive as CDSE makes them.
fn stored(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    zip_bytes(files, &format!("{SMALL}/"), Stored)
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}

/// Where the archive's directory describes a member.
fn central(bytes: &[u8], name: &str) -> usize {
    let entries = bytes.windows(4).enumerate().filter(|(_, window)| window == b"PK\x01\x02");
    entries.map(|(at, _)| at).find(|at| bytes[at + 46..].starts_with(name.as_bytes())).unwrap()
}

/// A name in header and directory becomes another of the same length: one that writers of archives refuse.
fn rename(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "{from}");
    let entry = central(&bytes, from);
    let header = u32::from_le_bytes(bytes[entry + 42..entry + 46].try_into().unwrap()) as usize;
    for at in [entry + 46, header + 30] {
        assert!(bytes[at..].starts_with(from.as_bytes()), "{from} at {at}");
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// A folder for an archive, and an empty one to unpack it into.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Self { folder }
    }

    fn with(archive: &[u8]) -> Self {
        let place = Self::new();
        fs::write(place.archive(), archive).unwrap();
        place
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join(format!("{SMALL}.zip"))
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Writes the files of a product as a folder.
    fn tree(&self, files: &[(String, Vec<u8>)]) -> PathBuf {
        let root = self.folder.path().join(SMALL);
        for (file, data) in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), data).unwrap();
        }
        root
    }

    fn unpack(&self) -> Result<PathBuf, Error> {
        unpack(self.archive(), self.out())
    }

    /// Unpacks what cannot be unpacked; nothing may be left.
    fn refused(&self) -> String {
        let error = self.unpack().unwrap_err();
        assert!(fs::read_dir(self.out()).unwrap().next().is_none(), "left behind after {error}");
        chain(&error)
    }

    /// What `verify` and `unpack` say, which is the same.
    fn both(&self) -> String {
        let error = chain(&verify(self.archive()).unwrap_err());
        assert_eq!(self.refused(), error, "unpacked and verified");
        error
    }
}

/// Everything in a folder, folders with a `/` at their end.
fn list(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if path.is_dir() {
                found.push((format!("{name}/"), Vec::new()));
                open.push(path);
            } else {
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn files_of(root: &Path) -> Files {
    let mut files = list(root);
    files.retain(|(name, _)| !name.ends_with('/'));
    files
}

fn sorted(mut files: Files) -> Files {
    files.sort();
    files
}

#[test]
fn whole_products_are_counted() {
    let place = Place::new();
    let files = product();
    let bytes: usize = files.iter().map(|(_, data)| data.len()).sum();
    let mut paths = vec![place.tree(&files)];
    for (name, method) in [("stored", Stored), ("deflated", Deflated)] {
        paths.push(place.folder.path().join(name));
        fs::write(paths.last().unwrap(), zip_bytes(&files, &format!("{SMALL}/"), method)).unwrap();
    }
    for path in paths {
        let verified = verify(&path).unwrap();
        assert_eq!((verified.files, verified.bytes), (6, bytes as u64), "{}", path.display());
        assert_eq!((verified.checked, verified.without_checksum), (5, 0), "{}", path.display());
    }
}

#[test]
fn files_beside_the_manifest_are_read_in_archives_only() {
    let mut files = product();
    files.push(("notes.txt".to_owned(), b"mine".to_vec()));
    let place = Place::with(&stored(&files));
    assert_eq!(verify(place.archive()).unwrap().files, 7);
    assert_eq!(verify(place.tree(&files)).unwrap().files, 6);
    assert_eq!(files_of(&place.unpack().unwrap()), sorted(files.clone()));

    let mut bytes = stored(&files);
    let at = find(&bytes, b"mine");
    bytes[at] ^= 1;
    let error = Place::with(&bytes).both();
    assert!(error.contains("notes.txt has the CRC-32 "), "{error}");
}

#[test]
fn algorithms_that_are_not_known_are_counted_not_refused() {
    let whirlpool = "checksumName=\"WHIRLPOOL\"";
    let place = Place::with(&stored(&product_with("checksumName=\"MD5\"", whirlpool)));
    let verified = verify(place.archive()).unwrap();
    assert_eq!((verified.files, verified.checked, verified.without_checksum), (6, 4, 1));
    let verified = verify(place.unpack().unwrap()).unwrap();
    assert_eq!((verified.checked, verified.without_checksum), (4, 1));
}

#[test]
fn each_damage_of_a_folder_is_found_and_named() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 6] = [
        ("missing", |path| fs::remove_file(path).unwrap(), "is missing"),
        ("no folder", |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(), "is missing"),
        (
            "longer",
            |path| fs::write(path, noise(300_002)).unwrap(),
            "has 300002 bytes, manifest.safe says 300001",
        ),
        ("shorter", |path| fs::write(path, noise(1)).unwrap(), "has 1 bytes, manifest.safe says 300001"),
        (
            "changed",
            |path| {
                let mut data = fs::read(path).unwrap();
                data[290_000] ^= 4;
                fs::write(path, data).unwrap();
            },
            "has the SHA3-256 checksum ",
        ),
        (
            "folder",
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            "is not a file",
        ),
    ];
    for (what, damage, message) in cases {
        let place = Place::new();
        let root = place.tree(&product());
        damage(&root.join(B02));
        let error = verify(&root).unwrap_err();
        let Error::Damaged { path, problem, more } = &error else { panic!("{what}: {error}") };
        assert_eq!((path, *more), (&root.join(B02), 0), "{what}");
        assert!(problem.starts_with(message), "{what}: {problem}");
        assert!(error.to_string().ends_with("; get the product again"), "{what}: {error}");
    }
}

#[test]
fn checksums_that_differ_are_both_named() {
    let data = content()[1].1.clone();
    let (right, wrong) = (hex(Algorithm::Md5, &data), hex(Algorithm::Md5, b"other"));
    for given in [wrong.clone(), wrong.to_uppercase()] {
        let files = product_with(&right, &given);
        let place = Place::with(&stored(&files));
        let problem = format!("{INSPIRE} has the MD5 checksum {right}, manifest.safe says {wrong}; get");
        for error in [place.both(), chain(&verify(place.tree(&files)).unwrap_err())] {
            assert!(error.contains(&problem), "{error}");
        }
    }
}

#[test]
fn all_damage_is_reported_at_once() {
    let mut files = product();
    data(&mut files, B02)[0] ^= 1;
    data(&mut files, METADATA).push(0);
    let files = without(files, INSPIRE);
    let place = Place::with(&stored(&files));
    for error in [place.both(), chain(&verify(place.tree(&files)).unwrap_err())] {
        let message =
            format!("{METADATA} has 1441 bytes, manifest.safe says 1440, and 2 more files are damaged;");
        assert!(error.contains(&message), "{error}");
    }
    let files = without(product(), INSPIRE);
    let files = without(files, B02);
    let error = Place::with(&stored(&files)).both();
    assert!(error.contains(&format!("{INSPIRE} is missing, and 1 more file is damaged;")), "{error}");
}

#[test]
fn a_flipped_byte_in_a_member_is_found() {
    let files = product();
    let mut bytes = stored(&files);
    let at = find(&bytes, &noise(16)) + 200_000;
    bytes[at] ^= 0x20;
    let error = Place::with(&bytes).both();
    assert!(error.contains("B02_10m.jp2 has the CRC-32 "), "{error}");
    assert!(error.contains(", the archive's directory says "), "{error}");

    // Small, as every byte has its turn.
    let files = with_manifest(without(content(), B02));
    let name = format!("{SMALL}/DATASTRIP/DS_x/QI_DATA/GENERAL_QUALITY.xml");
    let bytes = zip_bytes(&files, &format!("{SMALL}/"), Deflated);
    let (start, length) = {
        let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
        let member = archive.by_name(&name).unwrap();
        (usize::try_from(member.data_start().unwrap()).unwrap(), member.compressed_size())
    };
    for at in start..start + usize::try_from(length).unwrap() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x20;
        let place = Place::with(&bytes);
        match verify(place.archive()) {
            // Bits behind the end of the last block mean nothing.
            Ok(_) => assert_eq!(files_of(&place.unpack().unwrap()), sorted(files.clone()), "byte {at}"),
            Err(_) => assert!(place.both().contains("GENERAL_QUALITY.xml "), "byte {at}"),
        }
    }
}

#[test]
fn no_byte_of_an_archive_can_change_what_is_unpacked() {
    let files = with_manifest(vec![(METADATA.to_owned(), b"abc".to_vec())]);
    for method in [Stored, Deflated] {
        let bytes = zip_bytes(&files, &format!("{SMALL}/"), method);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x41;
            let place = Place::with(&bytes);
            if let Ok(root) = place.unpack() {
                let found = files_of(&root);
                let agrees = files.iter().all(|file| found.contains(file));
                // Dates and the like; or a manifest by another name, which is one file more.
                assert!(agrees || !root.join("manifest.safe").exists(), "byte {at}: {found:?}");
            } else {
                place.refused();
            }
        }
    }
}

#[test]
fn an_archive_that_is_cut_off_is_refused() {
    let bytes = stored(&product());
    for length in [0, 1, 3, 40, 1000, bytes.len() / 2, bytes.len() - 700, bytes.len() - 22, bytes.len() - 1] {
        let place = Place::with(&bytes[..length]);
        let error = place.both();
        let cut =
            error.contains("cannot read the zip archive") && error.contains("if it is damaged, get it again");
        assert!(
            cut || (length < 2 && error.contains("neither a folder nor a zip archive")),
            "{length}: {error}"
        );
    }
    // The middle is gone, the directory is there.
    let at = find(&bytes, &noise(16));
    let place = Place::with(&[&bytes[..at], &bytes[at + 1000..]].concat());
    place.both();
}

#[test]
fn a_page_instead_of_an_archive_is_refused() {
    let error = Place::with(b"<html>Maintenance</html>").both();
    assert!(
        error.ends_with("is not a Sentinel-2 product: it is neither a folder nor a zip archive"),
        "{error}"
    );
    let place = Place::with(&zip_bytes(&[("a.txt".to_owned(), vec![1])], "", Stored));
    assert!(place.both().contains("no MTD_MSIL1C.xml or MTD_MSIL2A.xml in it"), "another archive");
    let error = unpack(place.folder.path(), place.out()).unwrap_err().to_string();
    assert!(error.contains("it is a folder, not an archive"), "{error}");
    let error = chain(&verify(place.folder.path().join("none")).unwrap_err());
    assert!(error.starts_with("cannot read "), "{error}");
}

#[test]
fn manifests_that_are_missing_empty_or_damaged_are_told_apart() {
    let place = Place::new();
    let root = place.tree(&content());
    assert!(matches!(verify(&root), Err(Error::NoManifest { path }) if path == root), "a folder");
    fs::write(place.archive(), stored(&content())).unwrap();
    assert!(matches!(verify(place.archive()), Err(Error::NoManifest { .. })), "an archive");
    // Its members still fit their CRC-32.
    assert_eq!(files_of(&place.unpack().unwrap()), sorted(content()));

    let whole = manifest(&content());
    for (text, message) in [
        ("<XFDU/>", "manifest.safe: dataObject is missing"),
        ("", "manifest.safe: it holds no element"),
        (&whole[..whole.len() / 2], "manifest.safe: "),
        ("\u{0}", "manifest.safe"),
    ] {
        let mut files = content();
        files.push(("manifest.safe".to_owned(), text.as_bytes().to_vec()));
        let place = Place::with(&stored(&files));
        for error in [place.both(), chain(&verify(place.tree(&files)).unwrap_err())] {
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }
    let mut bytes = stored(&product());
    let at = find(&bytes, b"<dataObjectSection>");
    bytes[at + 1] = b'D';
    let error = Place::with(&bytes).both();
    assert!(error.contains("manifest.safe has the CRC-32 "), "{error}");
}

#[test]
fn a_manifest_cannot_point_outside() {
    for href in ["../INSPIRE.xml", "/etc/passwd", "C:/INSPIRE.xml", "a/../../b", "file:///etc/passwd"] {
        let files = product_with(&format!("./{INSPIRE}"), href);
        let place = Place::with(&stored(&files));
        for error in [place.both(), chain(&verify(place.tree(&files)).unwrap_err())] {
            assert!(error.contains(&format!("the path {href:?} in it leads out")), "{error}");
        }
    }
}

#[test]
fn members_that_would_be_written_elsewhere_are_refused() {
    for evil in [
        "../evil.xml",
        "../../evil.xml",
        "/tmp/evil.xml",
        "C:/evil.xml",
        "C:evil.xml",
        "\\\\host\\evil.xml",
        "a/../../evil",
        "x/..",
        "..",
        "..\\evil.xml",
        "a/..\\..\\evil",
    ] {
        let mut files = product();
        let placeholder = "E".repeat(evil.len());
        files.push((placeholder.clone(), b"evil".to_vec()));
        // In the product's folder and beside it.
        for prefix in [format!("{SMALL}/"), String::new()] {
            let bytes = zip_bytes(&files, &prefix, Stored);
            let to = format!("{prefix}{evil}");
            if prefix.is_empty() || !evil.starts_with(['/', '\\']) {
                let error = Place::with(&rename(bytes, &format!("{prefix}{placeholder}"), &to)).both();
                assert!(error.contains("leads out of the product"), "{to}: {error}");
            }
        }
    }
}

#[test]
fn members_that_mean_another_file_elsewhere_are_refused() {
    let portable = "has a name that is not allowed on every system";
    for (evil, problem) in [
        ("a\\b.xml", portable),
        ("a//b.xml", portable),
        ("./b.xml", portable),
        ("INSPIRE.xml.", portable),
        ("INSPIRE.xml ", portable),
        ("NUL", portable),
        ("a\0b", portable),
        ("Inspire.xml", "differs from another member only in case"),
        ("granule/x", "differs from another member only in case"),
        ("INSPIRE.xml/x", "is a file and a folder"),
        ("GRANULE", "is a file and a folder"),
        ("/evil", portable),
    ] {
        let mut files = product();
        let placeholder = "E".repeat(evil.len());
        files.push((placeholder.clone(), b"evil".to_vec()));
        let bytes = rename(stored(&files), &format!("{SMALL}/{placeholder}"), &format!("{SMALL}/{evil}"));
        let error = Place::with(&bytes).both();
        assert!(error.ends_with(&format!("{evil:?} in it {problem}")[1..]), "{evil}: {error}");
    }
}

#[test]
fn two_members_of_one_name_are_refused() {
    let mut files = product();
    files.push(("INSPIRE.xmL".to_owned(), b"evil".to_vec()));
    let bytes = rename(stored(&files), &format!("{SMALL}/INSPIRE.xmL"), &format!("{SMALL}/INSPIRE.xml"));
    let error = Place::with(&bytes).both();
    assert!(error.ends_with("it holds two members of the same name"), "{error}");
}

#[test]
fn links_are_refused() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink(format!("{SMALL}/AUX_DATA"), "/etc", SimpleFileOptions::default()).unwrap();
    for (name, data) in product() {
        zip.start_file(format!("{SMALL}/{name}"), SimpleFileOptions::default()).unwrap();
        zip.write_all(&data).unwrap();
    }
    let error = Place::with(&zip.finish().unwrap().into_inner()).both();
    assert!(error.ends_with("AUX_DATA\" in it is a symbolic link"), "{error}");
}

#[test]
fn members_larger_than_they_claim_are_cut_off() {
    for method in [Stored, Deflated] {
        let mut files = product();
        files.push(("bomb.xml".to_owned(), vec![0; 30_000_000]));
        let mut bytes = zip_bytes(&files, &format!("{SMALL}/"), method);
        let at = central(&bytes, &format!("{SMALL}/bomb.xml"));
        bytes[at + 24..at + 28].copy_from_slice(&1000_u32.to_le_bytes());
        let error = Place::with(&bytes).both();
        assert!(error.contains("bomb.xml "), "{error}");

        // Claiming too much is no better.
        bytes[at + 24..at + 28].copy_from_slice(&30_000_001_u32.to_le_bytes());
        let error = Place::with(&bytes).both();
        assert!(
            error.contains("bomb.xml has 30000000 bytes, the archive's directory says 30000001"),
            "{error}"
        );
    }
}

#[test]
fn archives_beyond_the_limits_are_refused_before_anything_is_written() {
    let place = Place::with(&zip_bytes(&product(), &format!("{SMALL}/"), Deflated));
    let bytes: usize = product().iter().map(|(_, data)| data.len()).sum();
    let bytes = bytes as u64;
    let with = |limits: UnpackLimits| unpack_with_limits(place.archive(), place.out(), limits);
    // Files fill whole blocks, and a few folders come with them.
    let room = unpacked_bytes(place.archive()).unwrap() - bytes;
    assert!((1..=64 * 1024).contains(&room), "{room}");
    let default = UnpackLimits::default();
    for (limits, message) in [
        (UnpackLimits { files: 5, ..default }, "it unpacks to 6 members, the limit is 5"),
        (
            UnpackLimits { file_bytes: 300_000, ..default },
            "B02_10m.jp2: refused, because it unpacks to 300001 bytes, the limit is 300000",
        ),
        (UnpackLimits { bytes: bytes - 1, ..default }, "bytes, the limit is "),
    ] {
        let error = with(limits).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(list(&place.out()).is_empty(), "nothing is left");
    }
    with(UnpackLimits { files: 6, file_bytes: 300_001, bytes, ..default }).unwrap();

    // 65 MiB of zeros in an archive that is mostly these.
    let mut files = with_manifest(vec![(METADATA.to_owned(), b"abc".to_vec())]);
    files.push(("zeros".to_owned(), vec![0; 65 << 20]));
    let place = Place::with(&zip_bytes(&files, &format!("{SMALL}/"), Deflated));
    let error = place.refused();
    assert!(error.contains("bytes, much more than it has itself, the limit is 67108864"), "{error}");
    let limits = UnpackLimits { ratio: 2000, ..default };
    unpack_with_limits(place.archive(), place.out(), limits).unwrap();
}

#[test]
fn an_unpacked_product_is_its_source_and_the_folders_that_were_empty() {
    for method in [Stored, Deflated] {
        let mut files = product();
        let place = Place::with(&zip_bytes(&files, &format!("{SMALL}/"), method));
        let root = place.unpack().unwrap();
        assert_eq!(root, place.out().join(SMALL));
        assert_eq!(fs::read_dir(place.out()).unwrap().count(), 1, "only the product");
        let granule = "GRANULE/L2A_T29RKH_A024342_20200219T112111/";
        for folder in [
            "AUX_DATA/",
            "HTML/",
            "rep_info/",
            "DATASTRIP/",
            "DATASTRIP/DS_x/",
            "DATASTRIP/DS_x/QI_DATA/",
            "GRANULE/",
            granule,
            &format!("{granule}AUX_DATA/"),
            &format!("{granule}IMG_DATA/"),
            &format!("{granule}IMG_DATA/R10m/"),
        ] {
            files.push((folder.to_owned(), Vec::new()));
        }
        assert_eq!(list(&root), sorted(files));
        assert_eq!(verify(&root).unwrap(), verify(place.archive()).unwrap());
    }
}

#[cfg(unix)]
#[test]
fn an_unpacked_product_has_the_permissions_of_new_files() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with(&stored(&product()));
    let root = place.unpack().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (file, folder) = (place.out().join("new"), place.folder.path().join("new"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&folder).unwrap();
    assert_eq!((mode(&root), mode(&root.join(INSPIRE))), (mode(&folder), mode(&file)));
}

#[test]
fn folders_of_the_archive_and_files_in_those_that_can_be_empty_are_kept() {
    let mut files = product();
    files.push(("HTML/star_bg.jpg".to_owned(), vec![1]));
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for folder in ["", "/HTML", "/rep_info", "/GRANULE/g2/QI_DATA"] {
        zip.add_directory(format!("{SMALL}{folder}"), SimpleFileOptions::default()).unwrap();
    }
    for (name, data) in &files {
        zip.start_file(format!("{SMALL}/{name}"), SimpleFileOptions::default()).unwrap();
        zip.write_all(data).unwrap();
    }
    let place = Place::with(&zip.finish().unwrap().into_inner());
    let root = place.unpack().unwrap();
    assert_eq!(files_of(&root), sorted(files));
    for folder in ["HTML", "rep_info", "AUX_DATA", "GRANULE/g2/QI_DATA", "GRANULE/g2/AUX_DATA"] {
        assert!(root.join(folder).is_dir(), "{folder}");
    }
}

#[test]
fn a_product_without_a_top_folder_gets_its_name() {
    let uri = "S2B_MSIL2A_20230823T095559_N0509_R122_T34UCF_20230823T124759.SAFE";
    let metadata = |name: &str| format!("<a><PRODUCT_URI>{name}</PRODUCT_URI></a>");
    for (text, expected) in [
        (metadata(uri), uri),
        (metadata(uri.trim_end_matches(".SAFE")), uri),
        // Not the name of a product: that of the archive.
        (metadata("../../evil"), SMALL),
        (metadata("evil"), SMALL),
        ("<a/>".to_owned(), SMALL),
        ("<a>".to_owned(), SMALL),
    ] {
        let files = with_manifest(vec![(METADATA.to_owned(), text.clone().into_bytes())]);
        let place = Place::with(&zip_bytes(&files, "", Stored));
        let root = place.unpack().unwrap();
        assert_eq!(root, place.out().join(expected), "{text}");
        assert_eq!(files_of(&root), sorted(files), "{text}");
    }
    let files = with_manifest(vec![(METADATA.to_owned(), metadata("x").into_bytes())]);
    let place = Place::new();
    let path = place.folder.path().join("download.zip");
    fs::write(&path, zip_bytes(&files, "", Stored)).unwrap();
    let error = unpack(&path, place.out()).unwrap_err().to_string();
    assert!(error.contains("neither a top folder nor its metadata nor its own name"), "{error}");
    assert!(list(&place.out()).is_empty(), "nothing is left");
}

#[test]
fn a_top_folder_gives_the_name_and_what_lies_beside_it_stays() {
    let mut files: Files = product().into_iter().map(|(name, data)| (format!("mine/{name}"), data)).collect();
    files.push(("__MACOSX/mine/._MTD_MSIL2A.xml".to_owned(), vec![1]));
    files.push(("readme.txt".to_owned(), vec![2]));
    let place = Place::with(&zip_bytes(&files, "", Deflated));
    assert_eq!(verify(place.archive()).unwrap().files, 8);
    let root = place.unpack().unwrap();
    assert_eq!(root, place.out().join("mine.SAFE"));
    assert_eq!(files_of(&root), sorted(product()));

    let mut files: Files = product().into_iter().map(|(name, data)| (format!("a/{name}"), data)).collect();
    files.push((format!("b/{METADATA}"), vec![1]));
    let error = Place::with(&zip_bytes(&files, "", Stored)).both();
    assert!(error.contains("it holds several: a/, b/"), "{error}");
}

#[test]
fn a_product_that_is_there_is_returned_when_it_is_whole() {
    let place = Place::with(&stored(&product()));
    let root = place.unpack().unwrap();
    // What others have added does not matter.
    fs::write(root.join("mine.txt"), "mine").unwrap();
    assert_eq!(place.unpack().unwrap(), root);
    assert!(root.join("mine.txt").exists(), "it is left as it was");

    let changed = |files: &Files| {
        fs::write(place.archive(), stored(files)).unwrap();
        let before = list(&place.out());
        let error = place.unpack().unwrap_err();
        assert!(matches!(&error, Error::Exists { path, .. } if *path == root), "{error}");
        assert_eq!(list(&place.out()), before, "nothing has changed");
        chain(&error)
    };
    let mut other = content();
    data(&mut other, INSPIRE)[3] = b'J';
    let error = changed(&with_manifest(other));
    assert!(error.contains("is already there and is not known to be what the archive holds"), "{error}");
    assert!(error.contains("INSPIRE.xml has the MD5 checksum"), "{error}");
    assert!(changed(&content()).ends_with("so it is not known what its files must be"), "no manifest");

    fs::remove_file(root.join(B02)).unwrap();
    assert!(changed(&product()).contains("B02_10m.jp2 is missing"), "a part");
    fs::remove_dir_all(&root).unwrap();
    fs::write(&root, "a file").unwrap();
    assert!(changed(&product()).contains("is missing"), "a file");
}

#[test]
fn a_folder_that_is_missing_is_not_made() {
    let place = Place::with(&stored(&product()));
    let error = unpack(place.archive(), place.out().join("none")).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
    assert!(list(&place.out()).is_empty(), "nothing is left");
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_nothing_is_left() {
    // It lies where a folder must be.
    let mut files = content();
    files.push(("HTML".to_owned(), vec![1]));
    let place = Place::with(&stored(&with_manifest(files)));
    verify(place.archive()).unwrap();
    let error = place.refused();
    let path = place.out().join(SMALL).join("HTML");
    assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
}

#[test]
fn many_can_unpack_the_same_product_at_once() {
    let place = Place::with(&stored(&product()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(place.unpack().unwrap(), place.out().join(SMALL)));
        }
    });
    assert_eq!(fs::read_dir(place.out()).unwrap().count(), 1, "only the product");
}

#[test]
fn the_small_product_opens_after_it_was_unpacked() {
    // It comes without a manifest.
    let files = files_of(&own(SMALL));
    assert!(matches!(verify(own(SMALL)), Err(Error::NoManifest { .. })), "the fixture");
    let place = Place::with(&stored(&with_manifest(files)));
    let root = place.unpack().unwrap();
    assert!(verify(&root).unwrap().checked > 5, "images and metadata");
    let product = Product::open(&root).unwrap();
    assert_eq!(product.name(), SMALL.trim_end_matches(".SAFE"));
    assert!(root.join(SMALL_IMAGES).parent().unwrap().join("AUX_DATA").is_dir(), "of the granule");
}

#[test]
fn manifests_of_esa_are_understood() {
    let Some(shared) = shared() else { return };
    for (file, first, objects) in [
        ("api_fixtures/cdsetool/tests/download/mock/sentinel_2/manifest.safe", "MTD_MSIL1C.xml", 59),
        ("api_fixtures/eodag/safe_build/manifest.safe.S2_MSI_L1C", "MTD_MSIL1C.xml", 97),
        ("api_fixtures/eodag/safe_build/manifest.safe.S2_MSI_L2A", "MTD_MSIL2A.xml", 123),
    ] {
        let text = fs::read(shared.join(file)).unwrap();
        let place = Place::new();
        let root = place.tree(&[("manifest.safe".to_owned(), text)]);
        let error = verify(&root).unwrap_err();
        let Error::Damaged { path, problem, more } = &error else { panic!("{file}: {error}") };
        assert_eq!((path, &**problem, *more), (&root.join(first), "is missing", objects - 1), "{file}");
    }
}

#[test]
fn files_of_esa_fit_their_manifests() {
    let Some(shared) = shared() else { return };
    let gdal = shared.join("gdal_fake_safe/autotest/gdrivers/data/sentinel2");
    // GDAL keeps the metadata of real products and has left out or replaced the rest.
    for (root, damaged, objects) in [
        (
            "fake_l1c_processing_baseline_5_09/S2B_MSIL1C_20230823T095559_N0509_R122_T34UCF_20230823T120234.SAFE",
            48,
            59,
        ),
        (
            "fake_l2a_processing_baseline_5_09/S2B_MSIL2A_20230823T095559_N0509_R122_T34UCF_20230823T124759.SAFE",
            71,
            86,
        ),
    ] {
        let root = gdal.join(root);
        let objects_listed =
            fs::read_to_string(root.join("manifest.safe")).unwrap().matches("<dataObject ").count();
        assert_eq!(objects_listed, objects, "{}", root.display());
        let error = verify(&root).unwrap_err();
        let Error::Damaged { path, problem, more } = &error else { panic!("{error}") };
        // MTD_MSI*.xml and INSPIRE.xml come before it: they fit.
        assert_eq!(
            (path, &**problem, more + 1),
            (&root.join("HTML/UserProduct_index.html"), "is missing", damaged)
        );
    }
}

#[test]
fn shared_products_are_verified_as_far_as_they_can_be() {
    let Some(shared) = shared() else { return };
    let l1c = "S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911";
    // Made without manifests.
    for product in [format!("mini_safe_29RKH/{SMALL}"), format!("safe_l1c_0206/{l1c}")] {
        let product = shared.join(product);
        assert!(matches!(verify(&product), Err(Error::NoManifest { .. })), "{}", product.display());
    }
    let archive = shared.join(format!("safe_l1c_0206/{l1c}.zip"));
    let place = Place::new();
    let root = unpack(&archive, place.out()).unwrap();
    assert_eq!(root, place.out().join(format!("{l1c}.SAFE")), "named by its metadata");
    // The metadata of the folder differ from those in the archive in a few bytes; its image is the same.
    let files = |root: &Path| -> Vec<_> {
        let named = |(name, bytes): (String, Vec<u8>)| {
            let image = name.ends_with(".jp2").then_some(bytes);
            (name, image)
        };
        files_of(root).into_iter().map(named).collect()
    };
    assert_eq!(files(&root), files(&shared.join("safe_l1c_0206").join(l1c)));
    assert_eq!(Product::open(&root).unwrap().tile(), "31TDH");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_comes_back_from_its_archive(
        tree in proptest::collection::btree_map(
            "[a-z]{1,3}(/[a-z]{1,3}){0,3}\\.x",
            proptest::collection::vec(any::<u8>(), 0..2000),
            0..12,
        ),
        deflate in any::<bool>(),
        flip in any::<(bool, prop::sample::Index, u8)>(),
    ) {
        // Only files end in ".x", and letters have one case: no name contradicts another.
        let mut files: Files = tree.into_iter().collect();
        files.push((METADATA.to_owned(), b"<a/>".to_vec()));
        let files = with_manifest(files);
        let mut bytes = zip_bytes(&files, &format!("{SMALL}/"), if deflate { Deflated } else { Stored });
        let place = Place::with(&bytes);
        let root = place.unpack().unwrap();
        prop_assert_eq!(files_of(&root), sorted(files.clone()));
        let verified = verify(&root).unwrap();
        prop_assert_eq!(verified, verify(place.archive()).unwrap());
        prop_assert_eq!(verified.checked + 1, files.len());

        // Whatever is changed in an archive, what is unpacked is right.
        let (flip, at, mask) = flip;
        if flip {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            let place = Place::with(&bytes);
            if let Ok(root) = place.unpack() {
                let found = files_of(&root);
                let kept = files.iter().all(|file| found.contains(file));
                prop_assert!(kept || !root.join("manifest.safe").exists(), "byte {at}");
            } else {
                place.refused();
            }
        }
    }
}
