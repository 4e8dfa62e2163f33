//! A work folder as a shell goes through it: what is missing or changed is made, once; what is damaged, killed or not
//! ours is told and left as it is.
#![cfg(unix)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use zip::CompressionMethod;

use place::{L1C, L2A, MADE, OTHER, Place, copy, product, text, touch, tree, zip_product};

mod place;

#[test]
fn an_l2a_archive_becomes_a_stack_and_a_rerun_does_nothing() {
    let place = Place::with_l2a();
    let archive = format!("archive/{L2A}.SAFE.zip");
    let stack = format!("stack/{L2A}/stack.tif");
    assert_eq!(place.states(0), ["given", "absent", "absent", "absent", "absent"]);
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L2A}: made archive, stack")), "{said}");
    assert_eq!(place.files("archive"), [format!("{L2A}.SAFE.json"), format!("{L2A}.SAFE.zip")]);
    assert_eq!(place.files(&format!("stack/{L2A}")), ["made.json", "stack.tif", "statistics.json"]);
    assert_eq!((place.files("l1c").len(), place.files("l2a").len()), (0, 0), "it is read from the archive");
    assert_eq!(place.states(0), ["current", "absent", "absent", "current", "absent"]);

    // The same as of the product itself.
    let out = place.path("out");
    let mut alone = Command::new(env!("CARGO_BIN_EXE_prepare"));
    assert!(alone.arg(product()).arg("--out").arg(&out).status().unwrap().success(), "prepare");
    for file in ["stack.tif", "statistics.json"] {
        let same = fs::read(out.join(file)).unwrap()
            == fs::read(place.path(&format!("stack/{L2A}/{file}"))).unwrap();
        assert!(same, "{file}");
    }

    let record: Value =
        serde_json::from_slice(&fs::read(place.path(&format!("stack/{L2A}/made.json"))).unwrap()).unwrap();
    assert_eq!(record["inputs"][0]["path"], format!("../../{archive}"));
    assert_eq!(record["versions"]["baseline"], "05.11");
    assert_eq!(record["parameters"]["resolution_m"], "10");

    let times = |place: &Place| {
        [&archive, &stack, &format!("stack/{L2A}/made.json"), &format!("archive/{L2A}.SAFE.json")]
            .map(|file| place.modified(file))
    };
    let before = times(&place);
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L2A}: nothing to do")), "{said}");
    assert_eq!(times(&place), before, "nothing is written");

    touch(&place.path(&archive));
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L2A}: nothing to do")), "{said}");
    assert_eq!(place.modified(&stack), before[1], "a touched archive has not changed");
}

#[test]
fn what_is_gone_or_made_of_something_else_is_made_again() {
    let place = Place::with_l2a();
    place.prepare(&[]);
    let stack = place.path(&format!("stack/{L2A}/stack.tif"));
    let whole = fs::read(&stack).unwrap();

    fs::remove_file(&stack).unwrap();
    assert_eq!(place.states(0)[3], "freed");
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L2A}: made stack")), "{said}");
    assert!(fs::read(&stack).unwrap() == whole, "the same stack");

    fs::write(&stack, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(place.states(0)[3], "damaged");
    let said = place.prepare(&[]);
    assert!(said.contains("stack is made again: stack.tif has "), "{said}");
    assert!(fs::read(&stack).unwrap() == whole, "whole again");

    let record = place.path(&format!("stack/{L2A}/made.json"));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("percentiles 2 and 98", "percentiles 1 and 99")).unwrap();
    let table = place.status();
    assert!(
        table.contains(" outdated") && table.contains("stack: normalization was percentiles 1"),
        "{table}"
    );
    let said = place.prepare(&[]);
    assert!(said.contains("stack is made again: normalization was percentiles 1"), "{said}");

    // The same product in another archive.
    let archive = place.path(&format!("archive/{L2A}.SAFE.zip"));
    zip_product(product(), &archive, CompressionMethod::Deflated);
    assert_eq!(place.states(0)[0], "outdated");
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L2A}: made archive, stack")), "{said}");
    assert!(said.contains(&format!("archive is made again: {L2A}.SAFE.zip has changed")), "{said}");

    // Somebody's own files are not lost with an outdated stack.
    fs::remove_file(&stack).unwrap();
    fs::write(stack.with_file_name("mask.tif"), "mine").unwrap();
    let said = place.fails(&[]);
    assert!(said.contains("mask.tif in it is none of its files: move that away"), "{said}");
    assert_eq!(place.files("stack"), [L2A], "nothing half");
}

#[test]
fn an_l1c_archive_goes_through_sen2cor() {
    let place = Place::with_l1c();
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L1C}: made archive, l1c, l2a, stack")), "{said}");
    let made = format!("{MADE}1");
    assert_eq!(place.files("l1c"), [format!("{L1C}.SAFE"), format!("{L1C}.SAFE.json")]);
    assert_eq!(place.files("l2a"), [format!("{made}.SAFE"), format!("{made}.SAFE.json")]);
    assert_eq!(place.files("stack"), [&*made]);
    let record = fs::read(place.path(&format!("l2a/{made}.SAFE.json"))).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["inputs"][0]["path"], format!("../l1c/{L1C}.SAFE"), "the link to its L1C product");
    assert_eq!(record["versions"]["sen2cor"], "2.12.3");
    assert_eq!(record["parameters"]["gipp"], "default");

    let json = place.json();
    assert_eq!(json["products"].as_array().unwrap().len(), 1, "one product, not two: {json}");
    assert_eq!(json["products"][0]["l2a"], made);
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L1C}: nothing to do")), "{said}");

    // Other settings: another L2A product, which replaces the first one.
    let gipp = place.path("L2A_GIPP.xml");
    fs::write(&gipp, "<a/>").unwrap();
    let said = place.prepare(&["--sen2cor-gipp", gipp.to_str().unwrap()]);
    assert!(said.contains("l2a is made again: gipp was default, is now SHA3-256 "), "{said}");
    assert!(said.contains(&format!("{L1C}: made l2a, stack")), "{said}");
    let made = format!("{MADE}2");
    assert_eq!(place.files("l2a"), [format!("{made}.SAFE"), format!("{made}.SAFE.json")]);
    assert_eq!(place.files("stack"), [&*made]);
    assert_eq!(place.files(&format!("stack/{made}")), ["made.json", "stack.tif", "statistics.json"]);
}

#[test]
fn what_is_not_kept_is_freed_and_not_made_again() {
    let place = Place::with_l1c();
    let said = place.prepare(&["--keep", "archive,stack"]);
    let made = format!("{MADE}1");
    for stage in ["l1c", "l2a"] {
        assert!(said.contains(&format!("{L1C}: freed {stage}, ")), "{said}");
    }
    assert_eq!(place.files("l1c"), [format!("{L1C}.SAFE.json")], "the record stays");
    assert_eq!(place.files("l2a"), [format!("{made}.SAFE.json")], "the record stays");
    assert_eq!(place.states(0), ["current", "freed", "freed", "current", "absent"]);
    for options in [&["--keep", "archive,stack"][..], &[]] {
        let said = place.prepare(options);
        assert!(said.contains(&format!("{L1C}: nothing to do")), "{said}");
    }

    // The next stage needs the stack only, and then nothing but itself.
    let said = place.prepare(&["--keep", "archive", "--normalised"]);
    assert!(said.contains(&format!("{L1C}: made normalised")), "{said}");
    assert_eq!(place.states(0), ["current", "freed", "freed", "freed", "current"]);
    assert_eq!(place.files(&format!("stack/{made}")), ["made.json"]);
    assert_eq!(place.files(&format!("normalised/{made}")), ["made.json", "normalised.tif"]);

    // A stack that is wanted again is made of the archive again.
    let said = place.prepare(&["--keep", "archive"]);
    assert!(said.contains(&format!("{L1C}: made l1c, l2a, stack")), "{said}");
    assert_eq!(place.files("stack"), [format!("{MADE}2")]);

    // Without an archive there is nothing to make it of.
    fs::remove_file(place.path(&format!("archive/{L1C}.SAFE.zip"))).unwrap();
    fs::remove_file(place.path(&format!("stack/{MADE}2/stack.tif"))).unwrap();
    let said = place.fails(&[]);
    let words = [
        &format!("{L1C}: nothing to make its stack of: "),
        "SAFE.zip is not there; download it again",
        "error: 1 of 1 products failed",
    ];
    assert!(words.iter().all(|words| said.contains(words)), "{said}");
}

#[test]
fn an_l2a_archive_is_unpacked_only_to_be_kept() {
    let place = Place::with_l2a();
    let input = || {
        let record = fs::read(place.path(&format!("stack/{L2A}/made.json"))).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        record["inputs"][0]["path"].as_str().unwrap().to_owned()
    };
    let said = place.prepare(&["--keep", "archive,l2a"]);
    assert!(said.contains(&format!("{L2A}: made archive, l2a, stack")), "{said}");
    assert_eq!(input(), format!("../../l2a/{L2A}.SAFE"));

    // It does not read what was unpacked of another archive.
    let archive = place.path(&format!("archive/{L2A}.SAFE.zip"));
    zip_product(product(), &archive, CompressionMethod::Deflated);
    assert_eq!(place.states(0), ["outdated", "absent", "outdated", "outdated", "absent"]);
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L2A}: made archive, stack")), "{said}");
    assert_eq!(input(), format!("../../archive/{L2A}.SAFE.zip"));
    assert_eq!(place.states(0), ["current", "absent", "outdated", "current", "absent"]);

    let said = place.prepare(&["--keep", "l2a"]);
    assert!(said.contains(&format!("{L2A}: made l2a")), "{said}");
    assert_eq!(place.states(0), ["freed", "absent", "current", "current", "absent"]);
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L2A}: nothing to do")), "{said}");
}

#[test]
fn folders_of_somebody_else_are_used_and_stay() {
    let place = Place::new();
    let l2a = place.path(&format!("l2a/{L2A}.SAFE"));
    copy(product(), &l2a);
    assert_eq!(place.states(0), ["absent", "absent", "given", "absent", "absent"]);
    let said = place.prepare(&["--keep", "stack"]);
    assert!(
        said.contains(&format!("{} stays: it has no record, so it is not ours", l2a.display())),
        "{said}"
    );
    assert_eq!(place.states(0), ["absent", "absent", "given", "current", "absent"]);
    assert_eq!(tree(&l2a).len(), tree(product()).len(), "all files");

    // An image is replaced, and the stack is outdated.
    let image = tree(&l2a).into_iter().find(|path| path.to_string_lossy().contains("_B04_10m")).unwrap();
    let other = tree(&l2a).into_iter().find(|path| path.to_string_lossy().contains("_B03_10m")).unwrap();
    fs::copy(other, image).unwrap();
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("stack is made again: ../../l2a/{L2A}.SAFE has changed")), "{said}");

    // As `download` makes it of single bands.
    let record = place.path(&format!("stack/{L2A}/made.json"));
    fs::remove_file(&record).unwrap();
    fs::remove_dir_all(&l2a).unwrap();
    let said = place.prepare(&["--keep", "archive"]);
    assert!(said.contains(&format!("{L2A}: nothing to do")), "{said}");
    assert_eq!(place.states(0)[3], "given");
}

#[test]
fn a_product_that_fails_does_not_stop_the_others() {
    let place = Place::with_l2a();
    place.add_l1c(OTHER);
    let archive = place.path(&format!("archive/{OTHER}.SAFE.zip"));
    let mut bytes = fs::read(&archive).unwrap();
    let at = bytes.windows(5).position(|part| part == b"image").unwrap();
    bytes[at] = b'I';
    fs::write(&archive, bytes).unwrap();

    let said = place.fails(&[]);
    assert!(said.contains("_B02.jp2 has the CRC-32 "), "{said}");
    assert_eq!(
        said.lines().filter(|line| line.contains(OTHER) && line.contains("ERROR")).count(),
        1,
        "{said}"
    );
    assert!(said.contains(&format!("{L2A}: made archive, stack")), "{said}");
    assert!(said.ends_with("error: 1 of 2 products failed\n"), "{said}");
    assert_eq!(place.states(1), ["given", "absent", "absent", "absent", "absent"]);

    // Only the good one, by its tile.
    let said = place.prepare(&["--tile", "T29NPJ"]);
    assert!(said.contains("1 products: 0 made, 1 current, 0 failed"), "{said}");
    let said = place.fails(&["--tile", "30NXX"]);
    assert!(said.contains("error: no product of tile 30NXX in "), "{said}");

    // Repaired.
    place.add_l1c(OTHER);
    fs::write(place.sen2cor.join("bin/fail"), "").unwrap();
    let said = place.fails(&[]);
    assert!(said.contains("Sen2Cor 2.12.3 failed on "), "{said}");
    let log = place.path(&format!("l2a/{OTHER}.sen2cor.log"));
    assert!(said.contains(&format!("log: {}", log.display())), "{said}");
    assert_eq!(place.files("l2a"), [format!("{OTHER}.sen2cor.log")], "nothing but the log");
    assert_eq!(place.states(1), ["current", "current", "absent", "absent", "absent"]);
}

#[test]
fn a_killed_run_is_resumed() {
    let place = Place::with_l1c();
    let work = place.path(&format!("l2a/.{L1C}.part"));
    let start = || {
        fs::write(place.sen2cor.join("bin/slow"), "").unwrap();
        let child = place.command(&[]).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while place.sen2cor.join("bin/slow").exists() {
            assert!(started.elapsed().as_secs() < 60, "Sen2Cor is not started");
            std::thread::sleep(Duration::from_millis(50));
        }
        child
    };

    // By Ctrl-C: nothing half is left.
    let child = start();
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success(), "the signal was sent");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(!work.exists(), "no work folder is left");
    assert_eq!(place.states(0), ["current", "current", "absent", "absent", "absent"]);

    // At once: half of it is left, and is not taken for whole.
    let mut child = start();
    let refused = place.fails(&[]);
    assert!(refused.contains(&format!("{L1C}: another process works on it")), "{refused}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(work.exists(), "a killed process tidies nothing");
    fs::create_dir_all(place.path(&format!("l1c/.{L1C}.old/GRANULE"))).unwrap();
    assert_eq!(place.states(0), ["current", "current", "unfinished", "absent", "absent"]);
    let l1c = place.modified(&format!("l1c/{L1C}.SAFE"));
    let said = place.prepare(&[]);
    assert!(said.contains(&format!("{L1C}: made l2a, stack")), "{said}");
    assert_eq!(place.states(0), ["current", "current", "current", "current", "absent"]);
    assert_eq!(place.modified(&format!("l1c/{L1C}.SAFE")), l1c, "what was whole is not made again");
    for folder in ["archive", "l1c", "l2a", "stack"] {
        let files = place.files(folder);
        assert!(!files.iter().any(|file| file.starts_with('.')), "{folder}: {files:?}");
    }
}

#[test]
fn the_table_shows_what_is_there() {
    let place = Place::with_l2a();
    place.prepare(&["--normalised"]);
    place.add_l1c(OTHER);
    let list = format!(
        r#"{{"products": [
            {{"product": "{OTHER}", "id": "1", "state": "downloaded", "since": "2026-01-01T00:00:00Z"}},
            {{"product": "{}", "id": "2", "state": "staging", "since": "2026-01-01T00:00:00Z"}}
        ]}}"#,
        OTHER.replace("20200219", "20200119")
    );
    fs::write(place.path("archive/offline.json"), list).unwrap();

    let table = place.status();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let header = ["tile", "sensing", "level", "archive", "l1c", "l2a", "stack", "normalised", "offline"];
    assert_eq!(rows[0], header);
    // A size is two words.
    assert_eq!(rows[1][..3], ["29NPJ", "2025-01-16", "L2A"]);
    assert_eq!((&rows[1][5..7], rows[1].len()), (&["-", "-"][..], 12), "{table}");
    assert_eq!(rows[2], ["29RKH", "2020-01-19", "L1C", "-", "-", "-", "-", "-", "staging"]);
    assert_eq!(rows[3][..3], ["29RKH", "2020-02-19", "L1C"]);
    assert_eq!(rows[3][5..], ["given", "-", "-", "-", "-", "downloaded"], "{table}");
    assert_eq!((rows[4][0], rows[5][2], rows.len()), ("total", "free", 6), "{table}");

    let json = place.json();
    let [first, second] = [0, 1].map(|index| &json["products"][index]);
    assert_eq!((&first["tile"], &first["sensing_time"]), (&"29NPJ".into(), &"20250116T110401".into()));
    let length = fs::metadata(place.path(&format!("archive/{L2A}.SAFE.zip"))).unwrap().len();
    assert_eq!(first["stages"][0]["bytes"], length);
    assert_eq!((&second["offline"], &second["stages"]), (&"staging".into(), &Value::Array(Vec::new())));
    assert_eq!(json["totals"][0]["products"], 2);
    assert_eq!(json["totals"][3]["stage"], "stack");
    assert!(json["free_bytes"].as_u64().unwrap() > 0, "{json}");

    // What is no record is told, and changes nothing.
    fs::write(place.path(&format!("stack/{L2A}/made.json")), "{").unwrap();
    let table = place.status();
    assert!(table.contains("made.json is no record of what was made beside it; remove it"), "{table}");
    let said = place.fails(&["--tile", "29NPJ"]);
    assert!(said.contains("made.json is no record of what was made beside it; remove it"), "{said}");
}

#[test]
fn wrong_command_lines_are_refused() {
    let place = Place::new();
    for options in [
        &[][..],
        &["product.SAFE"],
        &["--out", "out"],
        &["--work", "work", "--out", "out"],
        &["product.SAFE", "--out", "out", "--keep", "l2a"],
        &["--work", "work", "--keep", "everything"],
        &["--work", "work", "--tile", "29"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_prepare")).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", text(&output));
    }
    let said = place.fails(&[]);
    assert!(
        said.contains("error: no product in ") && said.contains("`download` puts archives there"),
        "{said}"
    );
    let nowhere = place.path("nowhere");
    for program in [env!("CARGO_BIN_EXE_prepare"), env!("CARGO_BIN_EXE_status")] {
        let mut command = Command::new(program);
        if program.ends_with("prepare") {
            command.arg("--work");
        }
        let output = command.arg(&nowhere).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("nowhere is no folder: name the one that"), "{}", text(&output));
    }
}
