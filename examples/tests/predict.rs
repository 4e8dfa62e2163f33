//! The program `predict` as a shell runs it: killed and started again, in strips and in windows of any size, in all views.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use examples::input::{STACK, Scene};
use examples::scene::write_scene;
use ndarray::{Array3, Axis, s};
use s2_io::{CogOptions, GeoTiff, write_cog};
use unet_burn::burn::tensor::Device;
use unet_burn::{Bundle, Padding, UNetConfig};

/// Rows of the scene without data, at the top.
const EMPTY_ROWS: usize = 130;

struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    /// A prepared scene of 384 × 384 whose top has no data, and a network that nobody trained.
    fn new() -> Self {
        Self::of_size(384)
    }

    fn of_size(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let product = write_scene(&folder.path().join("product"), size, 1, &|_| Ok(())).unwrap().product;
        let setup = Self { folder };
        examples::prepare::prepare(&product, &setup.scene(), false, true).unwrap();
        setup.change_stack(|stack| {
            stack.slice_mut(s![.., ..EMPTY_ROWS, ..]).fill(0);
            stack.slice_mut(s![.., 300.., 40..60]).fill(0);
        });
        setup.save_model(8);
        setup
    }

    fn change_stack(&self, change: impl Fn(&mut Array3<u16>)) {
        let scene = Scene::open(&self.scene()).unwrap();
        let mut stack = scene.stack.read::<u16>().unwrap();
        change(&mut stack.data);
        let bands = stack.data.dim().0;
        let options = CogOptions {
            nodata: Some(0.0),
            band_names: scene.stack.band_names().to_vec(),
            scale_offset: (0..bands).map(|band| scene.stack.scale_offset(band)).collect(),
            metadata: scene.stack.metadata().clone().into_iter().collect(),
            ..CogOptions::default()
        };
        write_cog(self.scene().join(STACK), stack.data.view(), &stack.grid, &options).unwrap();
    }

    fn save_model(&self, filters: usize) {
        let scene = Scene::open(&self.scene()).unwrap();
        let device = Device::flex();
        device.seed(4);
        let recipe = scene.recipe();
        let config =
            UNetConfig { in_channels: recipe.channels.len(), levels: 2, filters, ..UNetConfig::default() };
        let model = config.init(&device).unwrap();
        let bundle = Bundle { model, recipe, threshold: Some(0.01), training: None };
        bundle.save(&self.model()).unwrap();
    }

    fn scene(&self) -> PathBuf {
        self.folder.path().join("prepared")
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, out: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_predict"));
        command.arg(self.scene()).arg("--model").arg(self.model()).arg("--out").arg(out);
        command.args(["--device", "cpu", "--threads", "2"]).args(options);
        command
    }

    /// Runs to the end; what was said.
    fn run(&self, out: &Path, options: &[&str]) -> String {
        let output = self.command(out, options).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{options:?}: {text}");
        assert_eq!(files(out), ["mask.tif", "mines.geojson", "probability.tif"], "nothing else is left");
        text
    }

    /// Starts, and sends a signal once it has finished some rows, but not all.
    fn stop(&self, out: &Path, options: &[&str], signal: &str, rows: usize) -> Output {
        // What an earlier run has finished says nothing of this one.
        let rows = rows.max(journal(out) + 1);
        let mut child = self.command(out, options).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_rows(&mut child, out, rows);
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(status.success(), "the signal was sent");
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "it was stopped before the end");
        assert!(journal(out) >= rows, "rows are kept");
        let visible: Vec<_> = files(out).into_iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(visible, Vec::<String>::new(), "no half map bears its name");
        output
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Finished bands or rows of windows.
fn journal(out: &Path) -> usize {
    let json = fs::read(out.join(".probability.tif.rows.json")).unwrap_or_default();
    let journal: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
    journal["heights"].as_array().map_or(0, Vec::len)
}

fn wait_for_rows(child: &mut Child, out: &Path, rows: usize) {
    let start = Instant::now();
    while journal(out) < rows {
        assert!(child.try_wait().unwrap().is_none(), "it ended before {rows} rows were finished");
        assert!(start.elapsed().as_secs() < 300, "process {} finishes no row", child.id());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn map(out: &Path) -> Array3<f32> {
    GeoTiff::open(out.join("probability.tif")).unwrap().read::<f32>().unwrap().data
}

/// The largest difference; NaN must meet NaN.
fn difference(a: &Array3<f32>, b: &Array3<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| {
        assert_eq!(a.is_nan(), b.is_nan(), "no data at the same pixels");
        if a.is_nan() { worst } else { worst.max((a - b).abs()) }
    })
}

fn same_files(a: &Path, b: &Path) {
    for name in ["probability.tif", "mask.tif", "mines.geojson"] {
        assert!(fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap(), "{name} differs");
    }
}

// Strides of 16 rows: 24 rows of windows, a third of them without data.
const SMALL: [&str; 2] = ["--window", "60"];

#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let setup = Setup::new();
    let (whole, killed) = (setup.out("whole"), setup.out("killed"));
    let text = setup.run(&whole, &SMALL);
    assert!(text.contains("pixels in") && text.contains("a second"), "time and throughput: {text}");

    setup.stop(&killed, &SMALL, "-KILL", 10);
    let interrupted = setup.stop(&killed, &SMALL, "-INT", 12);
    assert_eq!(interrupted.status.code(), Some(130), "Ctrl-C");
    setup.stop(&killed, &SMALL, "-KILL", 14);
    // As if the machine had lost power while it wrote: rows that the journal does not count.
    let rows = killed.join(".probability.tif.rows");
    let counted = fs::metadata(&rows).unwrap().len();
    let mut bytes = fs::read(&rows).unwrap();
    bytes.resize(bytes.len() + 1000, 7);
    fs::write(&rows, bytes).unwrap();
    let text = setup.run(&killed, &SMALL);
    assert!(text.contains("going on with") && text.contains("rows are predicted"), "{text}");
    assert!(counted > 0, "rows were kept");
    same_files(&whole, &killed);
}

#[cfg(unix)]
#[test]
fn what_was_begun_otherwise_is_begun_anew() {
    let setup = Setup::new();
    let (whole, killed) = (setup.out("whole"), setup.out("killed"));
    let other = ["--window", "64"];
    setup.run(&whole, &other);

    setup.stop(&killed, &SMALL, "-KILL", 10);
    let text = setup.run(&killed, &other);
    assert!(text.contains("starting anew: the unfinished") && text.contains("another window"), "{text}");
    same_files(&whole, &killed);
    fs::remove_dir_all(&killed).unwrap();

    // auto goes on with the window that it finds.
    setup.run(&whole, &SMALL);
    setup.stop(&killed, &SMALL, "-KILL", 10);
    let text = setup.run(&killed, &["--window", "auto"]);
    assert!(text.contains("going on with"), "{text}");
    same_files(&whole, &killed);
    fs::remove_dir_all(&killed).unwrap();

    // Rows that the journal counts are missing.
    setup.stop(&killed, &SMALL, "-KILL", 10);
    let rows = killed.join(".probability.tif.rows");
    let bytes = fs::read(&rows).unwrap();
    fs::write(&rows, &bytes[..bytes.len() / 2]).unwrap();
    let text = setup.run(&killed, &SMALL);
    assert!(text.contains("starting anew: rows") && text.contains("are missing"), "{text}");
    same_files(&whole, &killed);
    fs::remove_dir_all(&killed).unwrap();

    // Another network.
    setup.stop(&killed, &SMALL, "-KILL", 10);
    let mut bundle = Bundle::load(&setup.model(), &Device::flex()).unwrap();
    Device::flex().seed(5);
    bundle.model = bundle.model.config().clone().init(&Device::flex()).unwrap();
    bundle.save(&setup.model()).unwrap();
    let text = setup.run(&killed, &SMALL);
    assert!(text.contains("another weights"), "{text}");
    let ours = map(&killed);
    setup.run(&whole, &SMALL);
    assert_eq!(difference(&ours, &map(&whole)), 0.0, "rows of the first network are gone");
}

#[test]
fn the_map_is_the_same_in_windows_and_batches_of_any_size() {
    let setup = Setup::new();
    let out = setup.out("out");
    setup.run(&out, &["--window", "480"]);
    let expected = map(&out);
    assert!(expected.slice(s![.., ..EMPTY_ROWS, ..]).iter().all(|p| p.is_nan()), "no data stays no data");
    assert!(expected.slice(s![.., 300.., 40..60]).iter().all(|p| p.is_nan()), "in windows with data, too");
    let nan = expected.iter().filter(|p| p.is_nan()).count();
    assert_eq!(nan, 384 * EMPTY_ROWS + 84 * 20, "and nothing else becomes no data");
    for options in [&["--window", "auto"][..], &["--window", "100"], &["--window", "116", "--batch", "3"]] {
        let text = setup.run(&out, options);
        // As in `seams.rs`: a few roundings.
        let difference = difference(&map(&out), &expected);
        assert!(difference <= 4e-6, "{options:?}: {difference}");
        let empty = text.split(" without data").next().unwrap().rsplit(' ').next().unwrap();
        assert_ne!(empty, "0", "windows without data are skipped: {text}");
        assert_eq!(text.contains(" strips of "), options.contains(&"auto"), "rows on the CPU: {text}");
    }
}

#[test]
fn strips_stop_where_there_is_no_data_and_begin_again() {
    let setup = Setup::new();
    let out = setup.out("out");
    // Six bands: one with data, two without, one with some, one without, one with.
    let has_data = |row: usize| row < 64 || (200..250).contains(&row) || row >= 330;
    setup.change_stack(|stack| {
        for (row, mut rows) in stack.axis_iter_mut(Axis(1)).enumerate() {
            if !has_data(row) {
                rows.fill(0);
            } else if row < EMPTY_ROWS {
                rows.fill(1000);
                rows.row_mut(10).fill(4);
            }
        }
    });
    setup.run(&out, &["--window", "480"]);
    let expected = map(&out);
    let text = setup.run(&out, &[]);
    assert!(text.contains("6 bands of 1 strips") && text.contains(" 3 without data"), "{text}");
    let found = map(&out);
    let difference = difference(&found, &expected);
    assert!(difference <= 4e-6, "{difference}");
    assert!(found.slice(s![0, .., 0]).iter().enumerate().all(|(row, p)| p.is_nan() != has_data(row)));
}

#[cfg(unix)]
#[test]
fn killed_strips_go_on_to_the_same_bytes() {
    let setup = Setup::of_size(1020);
    setup.save_model(24);
    let (whole, killed) = (setup.out("whole"), setup.out("killed"));
    let text = setup.run(&whole, &[]);
    assert!(text.contains(" strips of "), "{text}");
    // The first two of 16 bands are empty.
    setup.stop(&killed, &[], "-KILL", 3);
    let interrupted = setup.stop(&killed, &[], "-INT", 6);
    assert_eq!(interrupted.status.code(), Some(130), "Ctrl-C");
    let text = setup.run(&killed, &[]);
    assert!(text.contains("going on with") && text.contains("rows are predicted"), "{text}");
    same_files(&whole, &killed);

    // Rows of windows are no bands.
    fs::remove_dir_all(&killed).unwrap();
    setup.stop(&killed, &[], "-KILL", 3);
    let text = setup.run(&killed, &["--window", "480"]);
    assert!(text.contains("starting anew: the unfinished"), "{text}");
    assert!(text.contains("another batch, strips, window"), "{text}");
    let difference = difference(&map(&killed), &map(&whole));
    assert!(difference > 0.0 && difference <= 4e-6, "{difference}");
}

#[test]
fn all_views_and_their_spread_are_seamless_bands() {
    let setup = Setup::new();
    let (out, again) = (setup.out("out"), setup.out("again"));
    let views = ["--views", "8", "--spread"];
    setup.run(&out, &[&views[..], &["--window", "480"]].concat());
    let file = GeoTiff::open(out.join("probability.tif")).unwrap();
    assert_eq!(file.band_names(), ["probability", "spread"]);
    let maps = map(&out);
    let spread = maps.slice(s![1, EMPTY_ROWS..300, ..]);
    assert!(spread.iter().all(|s| (0.0..=0.5).contains(s)) && spread.iter().any(|&s| s > 1e-5), "a spread");
    setup.run(&again, &[&views[..], &["--window", "116", "--batch", "2"]].concat());
    let difference = difference(&map(&again), &maps);
    assert!(difference <= 4e-6, "{difference}");

    setup.run(&again, &["--views", "8"]);
    assert_eq!(map(&again).dim().0, 1, "the spread is a choice");
}

#[test]
fn half_precision_is_near() {
    let setup = Setup::new();
    let (single, half) = (setup.out("single"), setup.out("half"));
    setup.run(&single, &[]);
    setup.run(&half, &["--half"]);
    let difference = difference(&map(&single), &map(&half));
    assert!(difference > 0.0 && difference < 5e-3, "{difference}");
}

#[test]
fn maps_that_could_not_be_finished_are_finished_by_the_next_run() {
    let setup = Setup::new();
    let (whole, late) = (setup.out("whole"), setup.out("late"));
    setup.run(&whole, &SMALL);
    // All rows are predicted, but the polygons have no place.
    let place = late.join("mines.geojson");
    fs::create_dir_all(place.join("full")).unwrap();
    let output = setup.command(&late, &SMALL).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("mines.geojson"), "{text}");
    fs::remove_dir_all(&place).unwrap();
    let text = setup.run(&late, &SMALL);
    assert!(text.contains("going on with") && text.contains("384 rows are predicted"), "{text}");
    same_files(&whole, &late);
}

#[test]
fn other_instructions_give_the_same_map_but_for_rounding() {
    let setup = Setup::new();
    let (best, portable) = (setup.out("best"), setup.out("portable"));
    setup.run(&best, &[]);
    let status = setup.command(&portable, &[]).env("UNET_BURN_INSTRUCTIONS", "portable").status().unwrap();
    assert!(status.success(), "portable instructions");
    let output = setup.command(&portable, &[]).env("UNET_BURN_INSTRUCTIONS", "avx3").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let words = "UNET_BURN_INSTRUCTIONS=avx3: this processor has ";
    assert!(output.status.code() == Some(1) && text.contains(words), "{text}");
    let difference = difference(&map(&best), &map(&portable));
    // As for windows: a few roundings. None would mean that the variable is passed over.
    assert!(difference <= 4e-6, "{difference}");
    assert!(difference > 0.0 || unet_burn::cpu_instructions().unwrap() == "portable", "{difference}");
}

#[test]
fn what_cannot_be_predicted_ends_in_one_line_and_no_files() {
    let setup = Setup::new();
    let out = setup.out("out");
    for (options, words) in [
        (&["--window", "57"][..], &["57 does not fit", "56 and 60"][..]),
        // 4e5² × 22 channels: 30 TB.
        (&["--window", "400000"], &["windows of 400000 need about", "are free: --window", "fits"]),
        (&["--window", "44"], &["44 gives 1 usable", "use 48 or more"]),
        (&["--spread"], &["--spread", "--views 8"]),
        (&["--batch", "0"], &["--batch 0"]),
        (&["--threshold", "1.5"], &["1.5"]),
    ] {
        let output = setup.command(&out, options).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{options:?}: {text}");
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{text}");
        assert!(!text.contains("panicked"), "{text}");
        for word in words {
            assert!(errors[0].contains(word), "{word} is not in: {text}");
        }
        assert!(!out.exists() || files(&out).is_empty(), "{options:?} left {:?}", files(&out));
    }
    let refused = |words: &str| {
        let output = setup.command(&out, &[]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(words), "{words} is not in: {text}");
    };
    let mut bundle = Bundle::load(&setup.model(), &Device::flex()).unwrap();
    let padded = UNetConfig { padding: Padding::Same, ..bundle.model.config().clone() };
    bundle.model = padded.init(&Device::flex()).unwrap();
    bundle.save(&setup.model()).unwrap();
    refused("a network with same padding cannot be stitched: use valid padding");
    fs::remove_file(setup.scene().join(STACK)).unwrap();
    refused("prepared has no stack.tif: name a folder that prepare wrote");
    fs::remove_file(setup.model().join("model.json")).unwrap();
    refused("model has no model.json: name with --model a folder that train wrote");
    // One process at a time.
    let setup = Setup::new();
    let out = setup.out("out");
    fs::create_dir_all(&out).unwrap();
    let rows = fs::File::create(out.join(".probability.tif.rows")).unwrap();
    rows.lock().unwrap();
    let output = setup.command(&out, &[]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("another process is predicting"), "{text}");
}
