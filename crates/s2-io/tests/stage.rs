//! Records of what outputs were made of, and what they say after files have changed.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::{SMALL, SMALL_IMAGES, own};
use s2_io::stage::{Change, Input, Output, Record, disk_use, free_bytes};
use s2_io::{Error, unpacked_bytes};
use tempfile::TempDir;

/// A stack made of an archive and a table, with its record.
struct Place {
    folder: TempDir,
    record: Record,
}

const INPUTS: [&str; 2] = ["../archive/scene.zip", "../table.csv"];

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (file, text) in
            [("archive/scene.zip", "archive"), ("table.csv", "a,b"), ("stack/stack.tif", "pixels")]
        {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        let stack = root.join("stack");
        let mut record = Record::new("stack", "scene");
        record.inputs = INPUTS.iter().map(|path| Input::of(&stack, path).unwrap()).collect();
        record.parameters.insert("percentiles".to_owned(), "2 and 98".to_owned());
        record.outputs.push(Output::of(&stack, "stack.tif").unwrap());
        Self { folder, record }
    }

    fn stack(&self) -> PathBuf {
        self.folder.path().join("stack")
    }

    fn change(&self) -> Option<Change> {
        self.record.change(&self.stack(), &INPUTS, &self.record.parameters).unwrap()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// The small product of this crate, to be changed.
fn small_product(folder: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
            match path.is_dir() {
                true => copy(&path, &to.join(name)),
                false => drop(fs::copy(&path, to.join(name)).unwrap()),
            }
        }
    }
    let product = folder.join(SMALL);
    copy(&own(SMALL), &product);
    product
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let place = Place::new();
    let path = place.path("stack/made.json");
    assert_eq!(Record::read(&path).unwrap(), None, "there is none yet");
    place.record.write(&path).unwrap();
    assert_eq!(Record::read(&path).unwrap().as_ref(), Some(&place.record));

    let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((&json["stage"], &json["inputs"][0]["path"]), (&"stack".into(), &INPUTS[0].into()));
    // FIPS 202, of the text "archive", by Python's hashlib.
    assert_eq!(
        json["inputs"][0]["sha3_256"],
        "c17e41f6ed9ca0e7feebe1523a71e0b7aa3a0d62ee12a8c1af47a1fe5b7c8551",
    );
    assert_eq!(json["inputs"][0].get("images"), None, "a file has none");
    assert_eq!(json["versions"]["s2-io"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["outputs"][0]["bytes"], 6);
}

#[test]
fn what_is_no_record_is_an_error_that_names_it() {
    let place = Place::new();
    let path = place.path("stack/made.json");
    place.record.write(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for bytes in [&whole[..whole.len() / 2], b"", b"[]", b"{\"stage\": 1}"] {
        fs::write(&path, bytes).unwrap();
        let error = Record::read(&path).unwrap_err();
        assert!(matches!(error, Error::Record { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "{} is no record of what was made beside it; remove it, and that is made again",
                path.display()
            )
        );
    }
    let error = Record::read(place.path("stack")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "a folder: {error:?}");
}

#[test]
fn nothing_changed_is_current() {
    let place = Place::new();
    assert_eq!(place.change(), None);
    let [archive, table] = INPUTS;
    let other_order = place.record.change(&place.stack(), &[table, archive], &place.record.parameters);
    assert_eq!(other_order.unwrap(), None, "in any order");
}

#[test]
fn a_tree_that_moves_stays_current() {
    let mut place = Place::new();
    let moved = tempfile::tempdir().unwrap();
    for part in ["archive", "stack", "table.csv"] {
        fs::rename(place.path(part), moved.path().join(part)).unwrap();
    }
    place.folder = moved;
    assert_eq!(place.change(), None);
}

#[test]
fn a_touched_input_is_current_and_a_changed_one_is_not() {
    let mut place = Place::new();
    let archive = place.path("archive/scene.zip");
    set_time(&archive, 1_000_000_000);
    assert_eq!(place.change(), None, "touched");
    assert!(place.record.note_times(&place.stack()).unwrap(), "another time");
    assert!(!place.record.note_times(&place.stack()).unwrap(), "the same time");
    let noted = place.record.inputs[0].modified.timestamp();
    assert_eq!((noted, place.change()), (1_000_000_000, None));

    let changed = Some(Change::Input { path: INPUTS[0].to_owned() });
    fs::write(&archive, "ARCHIVE").unwrap();
    assert_eq!(place.change(), changed, "of the same length");
    assert_eq!(changed.as_ref().unwrap().to_string(), "../archive/scene.zip has changed");
    fs::write(&archive, "archive and more").unwrap();
    set_time(&archive, 1_000_000_000);
    assert_eq!(place.change(), changed, "of the same time");
}

#[test]
fn a_file_with_its_length_and_time_is_not_read() {
    let place = Place::new();
    let archive = place.path("archive/scene.zip");
    let time = fs::metadata(&archive).unwrap().modified().unwrap();
    fs::write(&archive, "ARCHIVE").unwrap();
    File::options().write(true).open(&archive).unwrap().set_modified(time).unwrap();
    assert_eq!(place.change(), None, "that is the price of a quick answer");
}

#[test]
fn an_input_that_was_removed_leaves_its_output_current() {
    let mut place = Place::new();
    fs::remove_dir_all(place.path("archive")).unwrap();
    assert_eq!(place.change(), None);
    assert!(!place.record.note_times(&place.stack()).unwrap(), "there is nothing to note");
}

#[test]
fn other_inputs_and_parameters_are_told() {
    let place = Place::new();
    let (stack, parameters) = (place.stack(), &place.record.parameters);
    let change = place.record.change(&stack, &INPUTS[..1], parameters).unwrap().unwrap();
    assert_eq!(change.to_string(), "it was made of ../archive/scene.zip, ../table.csv");

    let change = |parameters: &[(&str, &str)]| {
        let parameters: BTreeMap<_, _> =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let change = place.record.change(&stack, &INPUTS, &parameters).unwrap().unwrap();
        assert!(!change.of_output(), "{change}");
        change.to_string()
    };
    assert_eq!(change(&[("percentiles", "1 and 99")]), "percentiles was 2 and 98, is now 1 and 99");
    assert_eq!(change(&[]), "percentiles was 2 and 98, is now nothing");
    assert_eq!(change(&[("gipp", "x"), ("percentiles", "2 and 98")]), "gipp was nothing, is now x");
}

#[test]
fn outputs_that_are_gone_or_cut_off_are_told() {
    let place = Place::new();
    let stack = place.path("stack/stack.tif");
    fs::write(&stack, "pix").unwrap();
    let change = place.change().unwrap();
    assert_eq!(change.to_string(), "stack.tif has 3 bytes, 6 were written");
    assert!(change.of_output(), "{change:?}");
    fs::remove_file(&stack).unwrap();
    let change = place.change().unwrap();
    assert_eq!(change, Change::Missing { path: "stack.tif".to_owned() });
    assert!(change.of_output(), "{change:?}");
    fs::write(place.path("archive/scene.zip"), "changed").unwrap();
    fs::write(place.path("table.csv"), "changed").unwrap();
    assert!(!place.change().unwrap().of_output(), "inputs come first");
}

#[test]
fn a_safe_folder_is_its_manifest_and_the_lengths_of_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let product = small_product(folder.path());
    let image = fs::read_dir(product.join(SMALL_IMAGES).join("R20m")).unwrap().next().unwrap().unwrap();
    let (image, pixels) = (image.path(), fs::read(image.path()).unwrap());
    let manifest = product.join("manifest.safe");
    let metadata = product.join("MTD_MSIL2A.xml");

    for identity in [&metadata, &manifest] {
        if identity == &manifest {
            fs::write(&manifest, "<manifest/>").unwrap();
        }
        let mut record = Record::new("stack", SMALL);
        record.inputs.push(Input::of(folder.path(), SMALL).unwrap());
        assert_eq!(record.inputs[0].bytes, fs::metadata(identity).unwrap().len());
        let key = format!("{SMALL_IMAGES}/R20m/{}", image.file_name().unwrap().to_str().unwrap());
        assert_eq!(record.inputs[0].images.get(&key), Some(&(pixels.len() as u64)), "{key}");
        let change = || record.change(folder.path(), &[SMALL], &BTreeMap::new()).unwrap();
        let changed = Some(Change::Input { path: SMALL.to_owned() });

        assert_eq!(change(), None);
        set_time(identity, 1_000_000_000);
        set_time(&image, 1_000_000_000);
        assert_eq!(change(), None, "touched");
        fs::write(&image, &pixels[1..]).unwrap();
        assert_eq!(change(), changed, "an image of another length");
        fs::remove_file(&image).unwrap();
        assert_eq!(change(), changed, "without an image");
        fs::write(&image, &pixels).unwrap();
        assert_eq!(change(), None, "whole again");

        let text = fs::read(identity).unwrap();
        fs::write(identity, text.to_ascii_uppercase()).unwrap();
        assert_eq!(change(), changed, "another {}", identity.display());
        fs::write(identity, text).unwrap();
    }

    for file in [&manifest, &metadata] {
        fs::remove_file(file).unwrap();
    }
    let error = Input::of(folder.path(), SMALL).unwrap_err().to_string();
    assert!(error.ends_with("neither manifest.safe nor product metadata in it"), "{error}");
}

#[test]
fn a_folder_takes_what_all_its_files_take() {
    let place = Place::new();
    assert_eq!(disk_use(place.folder.path()).unwrap(), Some(7 + 3 + 6));
    assert_eq!(disk_use(&place.path("table.csv")).unwrap(), Some(3));
    assert_eq!(disk_use(&place.path("nothing")).unwrap(), None);
    fs::create_dir(place.path("empty")).unwrap();
    assert_eq!(disk_use(&place.path("empty")).unwrap(), Some(0));
    let output = Output::of(place.folder.path(), "stack").unwrap();
    assert_eq!(output.bytes, 6);
    assert!(matches!(Output::of(place.folder.path(), "nothing"), Err(Error::Read { .. })), "nothing");
}

#[cfg(unix)]
#[test]
fn a_disk_tells_its_free_bytes() {
    let folder = tempfile::tempdir().unwrap();
    assert!(free_bytes(folder.path()).unwrap().is_some_and(|free| free > 0), "a disk that is not full");
    assert!(matches!(free_bytes(&folder.path().join("none")), Err(Error::Read { .. })), "no such folder");
}

#[test]
fn an_archive_that_is_none_tells_no_size() {
    let place = Place::new();
    let error = unpacked_bytes(place.path("archive/scene.zip")).unwrap_err();
    assert!(matches!(error, Error::Zip { .. }), "{error:?}");
}
