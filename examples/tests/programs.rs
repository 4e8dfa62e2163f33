//! The programs as a shell runs them: exit codes, one line for an error, no half files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use examples::scene::write_scene;
use ndarray::Array3;
use s2_io::{CogOptions, Grid, write_cog};

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
    let output =
        run(program("predict").arg(&again).arg("--model").arg(demo.join("model")).arg("--out").arg(&maps));
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

/// A folder of chips with bright squares: four to learn from, two to validate.
fn chips(folder: &Path) -> PathBuf {
    let data = folder.join("chips");
    let mut table = String::from("id,split\n");
    for (id, split) in [(1, "train"), (2, "train"), (3, "train"), (4, "train"), (5, "val"), (6, "val")] {
        table += &format!("{id},{split}\n");
        let square =
            |row: usize, col: usize| (40 + 3 * id..60 + 3 * id).contains(&row) && (50..75).contains(&col);
        let image = Array3::from_shape_fn((3, 120, 120), |(band, row, col)| {
            let noise = (row * 7919 + col * 104_729 + band * 31 + id * 997) % 500;
            (1000 + noise + if square(row, col) { 900 } else { 0 }) as u16
        });
        let mask = Array3::from_shape_fn((1, 120, 120), |(_, row, col)| u8::from(square(row, col)));
        let grid = Grid {
            height: 120,
            width: 120,
            transform: [0.0, 10.0, 0.0, 0.0, 0.0, -10.0],
            epsg: Some(32_629),
        };
        for (name, extension) in [("images", "img"), ("masks", "mask")] {
            fs::create_dir_all(data.join(name)).unwrap();
            let path = data.join(name).join(format!("{extension}_{id}.tif"));
            match name {
                "images" => write_cog(path, image.view(), &grid, &CogOptions::default()).unwrap(),
                _ => write_cog(path, mask.view(), &grid, &CogOptions::default()).unwrap(),
            }
        }
    }
    fs::write(data.join("split.csv"), table).unwrap();
    data
}

/// The numbers of a table with a heading.
fn numbers(path: &Path) -> Vec<Vec<f64>> {
    let table = fs::read_to_string(path).unwrap_or_default();
    table.lines().skip(1).map(|line| line.split(',').map(|field| field.parse().unwrap()).collect()).collect()
}

/// The smallest network that there is use for.
const TINY: [&str; 6] = ["--window", "76", "--levels", "2", "--filters", "2"];

#[test]
fn a_run_with_smaller_batches_than_were_asked_for_goes_on_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = chips(folder.path());
    let out = folder.path().join("out");
    let train = |options: &[&str]| {
        let mut command = program("train");
        command.arg(&data).arg("--out").arg(&out).args(TINY).args(options);
        command.args(["--patches", "8", "--keep-checkpoint", "--loss", "focal,dice"]);
        command
    };
    let output = run(&mut train(&["--batch-size", "2", "--accumulate", "4", "--epochs", "1"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let more = ["--batch-size", "8", "--epochs", "2", "--resume", "--plain"];
    fails(&mut train(&more), &["belongs to another run: training."]);
    let output = run(train(&more).arg("--smaller-batches"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("goes on after epoch 1"), "{text}");
    let model: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("model.json")).unwrap()).unwrap();
    let config = &model["training"]["config"];
    assert_eq!((&config["batch_size"], &config["accumulation"]), (&2.into(), &4.into()), "{config}");
    let sum = &config["loss"]["sum"];
    assert!(sum[0][1].get("focal").is_some() && sum[1][1].get("tversky").is_some(), "{config}");
}

#[test]
fn a_killed_training_run_goes_on_to_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = chips(folder.path());
    let train = |out: &Path, epochs: usize| {
        let mut command = program("train");
        command.arg(&data).arg("--out").arg(out).args(TINY).arg("--epochs").arg(epochs.to_string()).args([
            "--patches",
            "24",
            "--accumulate",
            "2",
            "--schedule",
            "plateau",
            "--plateau-epochs",
            "1",
            "--clip-norm",
            "1",
            "--workers",
            "2",
            "--plain",
        ]);
        command
    };
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));

    // It has more epochs to do than it can before it is killed.
    let mut child = train(&killed, 100_000)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = std::time::Instant::now();
    while numbers(&killed.join("history.csv")).len() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(start.elapsed().as_secs() < 120, "three epochs take too long");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap(); // SIGKILL: nothing can be tidied up
    child.wait().unwrap();
    assert!(!killed.join("model.json").exists(), "no model yet");
    let epochs = numbers(&killed.join("history.csv")).len() + 4;

    let words = ["checkpoint/epoch-00000", "is the checkpoint of a run: resume it"];
    fails(&mut train(&killed, epochs), &words);
    let differences = [
        (["--seed", "5"], "training.seed is 5 here, but 0 there"),
        (["--contrast", "0.1"], "data.contrast is \"0.1\" here, but \"0.2\" there"),
    ];
    for (option, difference) in differences {
        let words = format!("belongs to another run: {difference}");
        fails(train(&killed, epochs).arg("--resume").args(option), &[words.as_str()]);
    }
    let mask = data.join("masks/mask_3.tif");
    let (before, other) = (fs::read(&mask).unwrap(), fs::read(data.join("masks/mask_1.tif")).unwrap());
    fs::write(&mask, other).unwrap();
    fails(train(&killed, epochs).arg("--resume"), &["belongs to another run: data.files is"]);
    fs::write(&mask, before).unwrap();

    let output = run(train(&killed, epochs).arg("--resume"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("goes on after epoch") && !text.contains("epoch 1:"), "{text}");

    let output = run(&mut train(&whole, epochs));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let last = format!("epoch {epochs}: training loss");
    assert!(text.contains(&last) && text.contains("F0.5"), "plain lines: {text}");
    let expected = ["history.csv", "history.json", "loss.png", "model.json", "model.safetensors"];
    assert_eq!(files(&whole), expected, "no checkpoint is left");
    let (resumed, uninterrupted) =
        (numbers(&killed.join("history.csv")), numbers(&whole.join("history.csv")));
    assert_eq!((resumed.len(), uninterrupted.len()), (epochs, epochs), "all epochs");
    for (resumed, uninterrupted) in resumed.iter().flatten().zip(uninterrupted.iter().flatten()) {
        // JSON may round the last digit.
        assert!((resumed - uninterrupted).abs() <= 1e-14 * uninterrupted.abs(), "{resumed} {uninterrupted}");
    }
    // The same once more as JSON, with names.
    let json: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(&fs::read(whole.join("history.json")).unwrap()).unwrap();
    let csv = fs::read_to_string(whole.join("history.csv")).unwrap();
    let names: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    assert_eq!(json.len(), epochs, "all epochs");
    for (epoch, row) in json.iter().zip(&uninterrupted) {
        let values: Vec<f64> = names.iter().map(|name| epoch[*name].as_f64().unwrap()).collect();
        assert_eq!((&values, epoch.len()), (row, names.len()), "as in the table");
    }

    // SafeTensors: eight bytes of length, a header that has its entries in any order, the values.
    let weights = |out: &Path| {
        let bytes = fs::read(out.join("model.safetensors")).unwrap();
        let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        (serde_json::from_slice::<serde_json::Value>(&bytes[8..header]).unwrap(), bytes[header..].to_vec())
    };
    assert!(weights(&killed) == weights(&whole), "the same model bit for bit");
    assert_eq!(files(&killed), files(&whole), "the same files");
}

#[test]
fn training_goes_on_several_devices_and_in_mixed_precision() {
    let folder = tempfile::tempdir().unwrap();
    let data = chips(folder.path());
    let train = |out: &Path, options: &[&str]| {
        let mut command = program("train");
        command
            .arg(&data)
            .arg("--out")
            .arg(out)
            .args(TINY)
            .args(["--epochs", "3", "--seed", "3"])
            .args(options);
        command
    };
    let runs = [
        ("one", &[][..]),
        ("two", &["--devices", "2"]),
        ("mixed", &["--mixed-precision", "--criterion", "iou"]),
    ];
    let [one, two, mixed] = runs.map(|(name, options)| {
        let out = folder.path().join(name);
        let output = train(&out, options).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}");
        let best = if name == "mixed" { "best IoU" } else { "best F0.5" };
        assert!(String::from_utf8_lossy(&output.stdout).contains(best), "{name} has a threshold");
        let rows = numbers(&out.join("history.csv"));
        assert_eq!(rows.len(), 3, "{name}: all epochs");
        rows.into_iter().map(|row| row[1]).collect::<Vec<_>>()
    });
    assert_ne!(one, two, "half as many steps, twice as large");
    let off = (mixed[0] / one[0] - 1.0).abs();
    assert!(
        off > 0.0 && off < 0.05,
        "the first epoch is the same to the digits of halves: {mixed:?} {one:?}"
    );

    let huge = folder.path().join("huge");
    let words =
        ["10000000 windows of 76 need about", "of memory to learn from", "are free: use --batch-size"];
    fails(&mut train(&huge, &["--batch-size", "10000000", "--patches", "10000000"]), &words);
    fails(&mut train(&huge, &["--batch-size", "0"]), &["batch_size is 0: it has to be 1 or more"]);
    assert!(!huge.exists(), "nothing is left");
}

/// Says so past the test harness, which keeps what a test prints.
#[cfg(target_os = "linux")]
fn skipped(why: &str) {
    use std::io::Write as _;

    let _ = writeln!(std::io::stderr(), "skipped: no terminal for the dashboard ({why})");
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_the_dashboard_and_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = chips(folder.path());
    let mut train = program("train");
    train.arg(&data).arg("--out").arg(folder.path().join("model")).args(TINY);
    // Long enough to be drawn more than once.
    train.args(["--epochs", "40", "--patches", "48"]);
    let words: Vec<String> = std::iter::once(train.get_program())
        .chain(train.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    // `script` of util-linux runs it with a terminal of its own.
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &format!("stty rows 40 cols 120; {}", words.join(" "))]);
    let output = match script.arg("/dev/null").env("TERM", "xterm-256color").output() {
        Ok(output) => output,
        Err(error) => return skipped(&format!("script cannot be run: {error}")),
    };
    let (screen, problem) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if ["pseudo-terminal", "unrecognized option"].iter().any(|words| problem.contains(words)) {
        return skipped(&problem);
    }
    assert!(output.status.success(), "{screen}{problem}");
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    assert_eq!(
        (screen.matches(enter).count(), screen.matches(leave).count()),
        (1, 1),
        "the screen: {screen}"
    );
    let (drawn, after) = screen.split_once(leave).unwrap();
    for word in ["Train", "Valid"] {
        assert!(drawn.matches(word).count() > 1, "{word} is drawn more than once: {drawn}");
    }
    assert!(after.contains("validation scores at the threshold"), "the scores come after it: {after}");
}

#[test]
fn a_bad_label_is_refused_with_the_name_of_its_chip() {
    let folder = tempfile::tempdir().unwrap();
    let data = chips(folder.path());
    let grid =
        Grid { height: 120, width: 120, transform: [0.0, 10.0, 0.0, 0.0, 0.0, -10.0], epsg: Some(32_629) };
    let mask = Array3::from_elem((1, 120, 120), 3_u8);
    write_cog(data.join("masks/mask_3.tif"), mask.view(), &grid, &CogOptions::default()).unwrap();
    let out = folder.path().join("out");
    fails(
        program("train").arg(&data).arg("--out").arg(&out).args(TINY),
        &[
            "split.csv line 4: chip 3 cannot be used:",
            "mask_3.tif: the label at row 0, column 0 is 3: it has to be 0, 1 or 255",
        ],
    );
    fs::remove_file(data.join("images/img_2.tif")).unwrap();
    fails(
        program("train").arg(&data).arg("--out").arg(&out).args(TINY),
        &["split.csv line 3: chip 2 cannot be used: cannot read", "img_2.tif"],
    );
    assert!(!out.join("model.json").exists(), "no model");
}
