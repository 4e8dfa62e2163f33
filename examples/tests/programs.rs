//! The programs as a shell runs them: exit codes, one line for an error, no half files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use examples::scene::write_scene;

fn program(name: &str) -> Command {
    let path = match name {
        "demo" => env!("CARGO_BIN_EXE_demo"),
        "prepare" => env!("CARGO_BIN_EXE_prepare"),
        "predict" => env!("CARGO_BIN_EXE_predict"),
        "evaluate" => env!("CARGO_BIN_EXE_evaluate"),
        "train" => env!("CARGO_BIN_EXE_train"),
        other => panic!("no program {other}"),
    };
    let mut command = Command::new(path);
    command.args(["--device", "cpu"]);
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Exit code 1, and one line on standard error that holds all the words.
fn fails(command: &mut Command, words: &[&str]) {
    let output = run(command);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {text}");
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one line for the error: {text}");
    assert!(!text.contains("panicked"), "no panic: {text}");
    for word in words {
        assert!(errors[0].contains(word), "{word} is not in: {text}");
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|entries| {
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// A small product of our own.
fn product(folder: &Path) -> PathBuf {
    write_scene(folder, 384, 1, &|_| Ok(())).unwrap().product
}

#[test]
fn the_whole_way_in_small() {
    let out = tempfile::tempdir().unwrap();
    let demo = out.path().join("demo");
    let output = run(program("demo")
        .args(["--size", "1200", "--epochs", "1", "--seed", "1", "--quiet", "--out"])
        .arg(&demo));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = [
        "loss.png",
        "mask.png",
        "mask.tif",
        "mines.geojson",
        "model",
        "probability.png",
        "probability.tif",
        "scene",
        "scl.png",
        "stack.tif",
        "statistics.json",
        "summary.json",
        "true_colour.png",
    ];
    assert_eq!(files(&demo), expected, "the fixed contract");
    assert_eq!(files(&demo.join("model")), ["model.json", "model.safetensors"], "the bundle");

    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(demo.join("summary.json")).unwrap()).unwrap();
    for part in ["validation", "test"] {
        for score in ["iou", "precision", "recall", "f1", "f05", "mcc", "pixels", "prevalence", "threshold"] {
            assert!(summary[part].get(score).is_some(), "{part} has {score}");
        }
    }
    assert!(summary["device"].as_str().unwrap().starts_with("cpu"), "{}", summary["device"]);
    assert!(summary["seconds"]["train"].as_f64().unwrap() > 0.0, "seconds by stage");

    // The separate programs give what the demo gave.
    let again = out.path().join("again");
    let product = demo.join("scene").join(format!("{}.SAFE", summary["product"].as_str().unwrap()));
    assert!(
        run(program("prepare").arg(&product).arg("--out").arg(&again).arg("--quiet")).status.success(),
        "prepare"
    );
    for file in ["stack.tif", "statistics.json"] {
        assert!(fs::read(again.join(file)).unwrap() == fs::read(demo.join(file)).unwrap(), "{file}");
    }
    let maps = out.path().join("maps");
    let output = run(program("predict")
        .arg(&again)
        .arg("--model")
        .arg(demo.join("model"))
        .arg("--out")
        .arg(&maps)
        .args(["--window", "580"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["probability.tif", "mask.tif", "mines.geojson"] {
        assert!(fs::read(maps.join(file)).unwrap() == fs::read(demo.join(file)).unwrap(), "{file}");
    }
    let output = run(program("evaluate")
        .args(["--json", "--truth"])
        .arg(demo.join("scene/truth.geojson"))
        .arg("--probability")
        .arg(maps.join("probability.tif")));
    let scores: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(scores["threshold"], summary["test"]["threshold"], "the map carries the threshold");
    assert!(scores["pixels"].as_u64().unwrap() > 1_000_000, "the whole map counts: {scores}");

    fails(
        program("predict")
            .arg(&again)
            .arg("--model")
            .arg(demo.join("model"))
            .arg("--out")
            .arg(&maps)
            .args(["--window", "573"]),
        &["input size 573 does not fit", "572 and 580"],
    );

    // A model of another recipe.
    let description = demo.join("model/model.json");
    let json = fs::read_to_string(&description).unwrap();
    fs::write(&description, json.replace("\"B12\"", "\"B10\"")).unwrap();
    fails(
        program("predict").arg(&again).arg("--model").arg(demo.join("model")).arg("--out").arg(&maps),
        &["the model was trained on other input", "B12", "B10"],
    );
}

#[test]
fn bad_products_give_one_line_and_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let prepare = |product: &Path, words: &[&str]| {
        fails(program("prepare").arg(product).arg("--out").arg(&out), words);
        assert_eq!(files(&out), Vec::<String>::new(), "no file is left");
    };
    prepare(&folder.path().join("nothing.SAFE"), &["nothing.SAFE"]);

    let good = product(folder.path());
    let granule = fs::read_dir(good.join("GRANULE")).unwrap().next().unwrap().unwrap().path();
    let image = |resolution: &str, band: &str| {
        let entries = fs::read_dir(granule.join("IMG_DATA").join(resolution)).unwrap();
        let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.into_iter().find(|path| path.to_string_lossy().contains(band)).unwrap()
    };
    let spoil = |path: &Path, bytes: &[u8], words: &[&str]| {
        let whole = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        prepare(&good, words);
        fs::write(path, whole).unwrap();
    };
    let b04 = image("R10m", "_B04_");
    let whole = fs::read(&b04).unwrap();
    spoil(&b04, &whole[..whole.len() / 2], &["_B04_10m.jp2", "truncated"]);
    spoil(&b04, b"II*\0\x08\0\0\0\0\0", &["_B04_10m.jp2", "TIFF"]);
    spoil(&image("R20m", "_SCL_"), &fs::read(image("R60m", "_B01_")).unwrap(), &["_SCL_20m.jp2"]);

    let hidden = b04.with_extension("away");
    fs::rename(&b04, &hidden).unwrap();
    prepare(&good, &["B04", "10"]);
    fs::rename(&hidden, &b04).unwrap();

    let metadata = good.join("MTD_MSIL2A.xml");
    let xml = fs::read_to_string(&metadata).unwrap();
    let start = xml.find("<BOA_ADD_OFFSET_VALUES_LIST>").unwrap();
    let end = xml.find("</BOA_ADD_OFFSET_VALUES_LIST>").unwrap() + "</BOA_ADD_OFFSET_VALUES_LIST>".len();
    spoil(
        &metadata,
        [&xml[..start], &xml[end..]].concat().as_bytes(),
        &["MTD_MSIL2A.xml", "no radiometric offset", "05.11"],
    );

    // The product itself is whole again, and works.
    assert!(
        run(program("prepare").arg(&good).arg("--out").arg(&out).arg("--quiet")).status.success(),
        "good product"
    );
    assert_eq!(files(&out), ["stack.tif", "statistics.json"], "the fixed contract");

    // Something at the place of a map.
    let model = folder.path().join("model");
    fails(
        program("predict").arg(&out).arg("--model").arg(&model).arg("--out").arg(folder.path().join("maps")),
        &["model.json"],
    );
    fails(
        program("evaluate").args(["--truth", "truth.txt", "--probability"]).arg(out.join("stack.tif")),
        &["stack.tif", "threshold"],
    );
    fails(program("train").arg(&out).arg("--out").arg(&model), &["--truth"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = product(folder.path());
    let out = folder.path().join("out");
    // A limit on the size of files behaves like a full disk once its signal is ignored.
    let shell = format!(
        "trap '' XFSZ; ulimit -f 100; exec '{}' '{}' --out '{}' --quiet",
        env!("CARGO_BIN_EXE_prepare"),
        good.display(),
        out.display()
    );
    fails(Command::new("bash").args(["-c", &shell]), &["cannot write", "stack.tif"]);
    assert_eq!(files(&out), Vec::<String>::new(), "nothing is left");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130_and_no_half_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let child = program("demo")
        .args(["--size", "1200", "--epochs", "1000", "--out"])
        .arg(&out)
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // In training: the stack is written, the model is not.
    let start = std::time::Instant::now();
    while !out.join("statistics.json").is_file() {
        assert!(start.elapsed().as_secs() < 300, "prepare takes too long");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success(), "the signal was sent");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(files(&out), ["scene", "stack.tif", "statistics.json"], "whole files only");
}
