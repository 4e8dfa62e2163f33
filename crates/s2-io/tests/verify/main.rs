//! Products compared with their manifests, and archives unpacked: whole ones, and ones that are wrong in one point each.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod unpacked;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use common::{SMALL, chain, shared};
use s2_io::{Algorithm, Checksum, Error, Product, unpack, verify};
use tempfile::TempDir;
use zip::CompressionMethod::{self, Stored};
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

    /// Unpacks an archive of files in which something was changed: either the files are right, or it is refused. Dates and
    /// the like may change; and a manifest by another name is one file more.
    fn right_or_refused(&self, files: &Files, change: &str) {
        let Ok(root) = self.unpack() else {
            self.refused();
            return;
        };
        let found = files_of(&root);
        let right = files.iter().all(|file| found.contains(file));
        assert!(right || !root.join("manifest.safe").exists(), "{change}: {found:?}");
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
