//! Archives unpacked: within limits, with their names and folders, beside what is there, by many at once.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use proptest::prelude::*;
use s2_io::{Error, Product, UnpackLimits, unpack, unpack_with_limits, unpacked_bytes, verify};
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::SimpleFileOptions;

use crate::common::{SMALL, SMALL_IMAGES, chain, own};
use crate::{
    B02, Files, INSPIRE, METADATA, Place, content, data, files_of, list, product, sorted, stored,
    with_manifest, zip_bytes,
};

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_comes_back_from_its_archive(
        tree in proptest::collection::btree_map(
            "[a-k]{1,3}(/[a-k]{1,3}){0,3}\\.x",
            proptest::collection::vec(any::<u8>(), 0..2000),
            0..12,
        ),
        deflate in any::<bool>(),
        flip in any::<(bool, prop::sample::Index, u8)>(),
    ) {
        // Only files end in ".x", and letters have one case: no name contradicts another. Up to "k" none is one of
        // those that Windows keeps for devices ("nul", "con").
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
            Place::with(&bytes).right_or_refused(&files, &format!("byte {at}"));
        }
    }
}
