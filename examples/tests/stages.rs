//! A work folder as a shell goes through it: what is missing or changed is made, once; what is damaged, killed or not
//! ours is told and left as it is.
#![cfg(unix)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use examples::scene::write_scene;
use s2_io::{Algorithm, Checksum};
use serde_json::Value;
use tempfile::TempDir;
use zip::CompressionMethod;

const L1C: &str = "S2A_MSIL1C_20250116T110401_N0511_R080_T29NPJ_20250116T130312";
const L2A: &str = "S2A_MSIL2A_20250116T110401_N0511_R080_T29NPJ_20250116T142003";
/// What the fake Sen2Cor calls its products, but for the last digit.
const MADE: &str = "S2A_MSIL2A_20250116T110401_N0511_R080_T29NPJ_20250117T00000";
/// An older product, of another tile.
const OTHER: &str = "S2B_MSIL1C_20200219T112111_N0500_R037_T29RKH_20230425T050621";

/// A synthetic L2A product, made once.
fn product() -> &'static Path {
    static PRODUCT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PRODUCT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let product = write_scene(folder.path(), 384, 1, &|_| Ok(())).unwrap().product;
        (folder, product)
    });
    path
}

/// All files below a folder, by path.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(tree(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in tree(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

fn zip_product(product: &Path, archive: &Path, method: CompressionMethod) {
    let mut zip = zip::ZipWriter::new(File::create(archive).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for file in tree(product) {
        let name = file.strip_prefix(product.parent().unwrap()).unwrap();
        zip.start_file(name.to_str().unwrap(), options).unwrap();
        zip.write_all(&fs::read(&file).unwrap()).unwrap();
    }
    zip.finish().unwrap();
}

/// An L1C product that Sen2Cor would take, but for its images; with a manifest that verifies.
fn write_l1c(folder: &Path, name: &str) -> PathBuf {
    let parts: Vec<_> = name.split('_').collect();
    let (tile, baseline) = (parts[5], format!("{}.{}", &parts[3][1..3], &parts[3][3..]));
    let granule = format!("GRANULE/L1C_{tile}_A049984_20250116T111037");
    let image = format!("{granule}/IMG_DATA/{tile}_{}_B02", parts[2]);
    let offsets: String =
        (0..13).map(|id| format!("<RADIO_ADD_OFFSET band_id=\"{id}\">-1000</RADIO_ADD_OFFSET>")).collect();
    let safe = folder.join(format!("{name}.SAFE"));
    let mut manifest = String::new();
    for (file, text) in [
        (format!("{image}.jp2"), "image".to_owned()),
        ("DATASTRIP/DS_1/MTD_DS.xml".to_owned(), "<a/>".to_owned()),
        (
            "MTD_MSIL1C.xml".to_owned(),
            format!(
                "<a><PRODUCT_START_TIME>2025-01-16T11:04:01.024Z</PRODUCT_START_TIME>\
                 <PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL>\
                 <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><IMAGE_FILE>{image}</IMAGE_FILE>\
                 <QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>{offsets}</a>"
            ),
        ),
        (
            format!("{granule}/MTD_TL.xml"),
            format!(
                "<a><TILE_ID>S2A_OPER_MSI_L1C_TL_FAKE_20250116T130000_A049984_{tile}_N05.11</TILE_ID>\
                 <HORIZONTAL_CS_CODE>EPSG:32629</HORIZONTAL_CS_CODE></a>"
            ),
        ),
    ] {
        let sum = Checksum::of(Algorithm::Sha3_256, text.as_bytes()).unwrap().hex();
        manifest += &format!(
            "<dataObject><byteStream size=\"{}\"><fileLocation href=\"./{file}\"/>\
             <checksum checksumName=\"SHA3-256\">{sum}</checksum></byteStream></dataObject>",
            text.len()
        );
        fs::create_dir_all(safe.join(&file).parent().unwrap()).unwrap();
        fs::write(safe.join(&file), text).unwrap();
    }
    fs::write(safe.join("manifest.safe"), format!("<XFDU>{manifest}</XFDU>")).unwrap();
    safe
}

/// A work folder, and a Sen2Cor that copies the synthetic product, each time under another name.
struct Place {
    _folder: TempDir,
    work: PathBuf,
    sen2cor: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (work, sen2cor) = (folder.path().join("work"), folder.path().join("sen2cor"));
        for folder in [work.join("archive"), sen2cor.join("bin")] {
            fs::create_dir_all(folder).unwrap();
        }
        let script = format!(
            r#"#!/bin/sh
if [ "$1" = --help ]; then
    echo "Sentinel-2 Level 2A Processor (Sen2Cor). Version: 02.12.03, created: 2024.01.01"
    exit 0
fi
here=$(dirname "$0")
while [ $# -gt 0 ]; do
    case $1 in
    --output_dir) output=$2; shift 2 ;;
    *) shift ;;
    esac
done
echo "Progress[%]: 14.20 : PID-1, L2A_AtmCorr, elapsed time[s]: 0.100, total: 0:00:01"
count=$(cat "$here/count" 2>/dev/null || echo 0)
count=$((count + 1))
echo $count >"$here/count"
# The next run is not as slow.
[ -f "$here/slow" ] && rm "$here/slow" && sleep 20
name={MADE}$count.SAFE
cp -R "{product}" "$output/$name"
sed -i.old "s/{L2A}/$name/;s/.SAFE.SAFE/.SAFE/" "$output/$name/MTD_MSIL2A.xml"
rm "$output/$name/MTD_MSIL2A.xml.old"
# Sen2Cor brings all bands to 20 m.
cd "$output/$name"/GRANULE/*/IMG_DATA/R20m
for band in B02 B03 B04; do cp ./*_B05_20m.jp2 T29NPJ_20250116T110401_${{band}}_20m.jp2; done
[ -f "$here/fail" ] && echo "Traceback: no LUT" && exit 1
echo "Progress[%]: 100.00 : Application terminated successfully."
"#,
            product = product().display()
        );
        fs::write(sen2cor.join("L2A_Process.sh"), script).unwrap();
        // By another process: a file that is open for writing cannot be run.
        let target = sen2cor.join("bin/L2A_Process");
        for command in [
            Command::new("cp").arg(sen2cor.join("L2A_Process.sh")).arg(&target),
            Command::new("chmod").arg("755").arg(&target),
        ] {
            assert!(command.status().unwrap().success(), "{command:?}");
        }
        Self { _folder: folder, work, sen2cor }
    }

    fn with_l2a() -> Self {
        let place = Self::new();
        zip_product(product(), &place.path(&format!("archive/{L2A}.SAFE.zip")), CompressionMethod::Stored);
        place
    }

    fn with_l1c() -> Self {
        let place = Self::new();
        place.add_l1c(L1C);
        place
    }

    fn add_l1c(&self, name: &str) {
        let folder = tempfile::tempdir().unwrap();
        let product = write_l1c(folder.path(), name);
        let archive = self.path(&format!("archive/{name}.SAFE.zip"));
        zip_product(&product, &archive, CompressionMethod::Stored);
    }

    fn path(&self, file: &str) -> PathBuf {
        self.work.join(file)
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepare"));
        command.args(["--device", "cpu", "--work"]).arg(&self.work);
        command.arg("--sen2cor").arg(&self.sen2cor).args(options);
        command
    }

    /// Prepares; what it says.
    fn prepare(&self, options: &[&str]) -> String {
        let output = self.command(options).output().unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        text
    }

    /// Prepares, and fails with exit code 1.
    fn fails(&self, options: &[&str]) -> String {
        let output = self.command(options).output().unwrap();
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    fn status(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_status")).arg(&self.work).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_status")).arg(&self.work).arg("--json").output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    }

    /// The states of the stages of a product, in their order.
    fn states(&self, product: usize) -> Vec<String> {
        let json = self.json();
        let stages = json["products"][product]["stages"].as_array().unwrap();
        stages.iter().map(|stage| stage["state"].as_str().unwrap().to_owned()).collect()
    }

    /// What lies in a folder, hidden files as well.
    fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn modified(&self, file: &str) -> SystemTime {
        fs::metadata(self.path(file)).unwrap().modified().unwrap()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn touch(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

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
