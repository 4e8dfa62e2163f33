//! Whole products are counted; each damage of a folder or an archive is found and named.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use s2_io::{Algorithm, Error, unpack, verify};
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::SimpleFileOptions;

use crate::common::{SMALL, chain};
use crate::{
    B02, INSPIRE, METADATA, Place, central, content, data, files_of, find, hex, manifest, noise, product,
    product_with, rename, sorted, stored, with_manifest, without, zip_bytes,
};

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
            Place::with(&bytes).right_or_refused(&files, &format!("byte {at}"));
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
        "/evil.xml",
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
