//! Sen2Cor, played by a shell script (`data/L2A_Process.sh`) that succeeds or fails in all the ways that are known. Its
//! images are no JPEG 2000 files: whether they can be decoded is not what is asked here.
#![cfg(any(target_os = "linux", target_os = "macos"))]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{chain, own};
use s2_io::Product;
use s2_io::sen2cor::{Error, Failure, Options, Progress, Sen2Cor, Version};
use tempfile::TempDir;

const V2_11: &str = "02.11.00, created: 2022.11.15,\nsupporting Level-1C product version 14.2 - 14.9";
const V2_8: &str = "2.8.0, created: 2019.02.20,\nsupporting Level-1C product version 14.2 - 14.5";
const L1C: &str = "S2A_MSIL1C_20200219T112111_N0500_R037_T29RKH_20230425T050621";
const GRANULE: &str = "GRANULE/L1C_T29RKH_A024342_20200219T112111";

/// A fake Sen2Cor, an L1C product and an output folder.
struct Place {
    _folder: TempDir,
    root: PathBuf,
    l1c: PathBuf,
    out: PathBuf,
}

impl Place {
    fn new(mode: &str) -> Self {
        Self::with(mode, V2_11, L1C, "here")
    }

    fn with(mode: &str, version: &str, l1c: &str, folder: &str) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap().join(folder);
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/mode"), mode).unwrap();
        fs::write(root.join("bin/version"), version).unwrap();
        // By another process: a thread that starts one while the file is open for writing here would hand it on, and
        // a file that is open for writing cannot be run.
        let script = root.join("bin/L2A_Process");
        assert!(Command::new("cp").arg(own("L2A_Process.sh")).arg(&script).status().unwrap().success(), "cp");
        assert!(Command::new("chmod").arg("755").arg(&script).status().unwrap().success(), "chmod");

        // Old names tell none.
        let baseline = l1c.split('_').find_map(|part| part.strip_prefix('N')).unwrap_or("0204");
        let baseline = format!("{}.{}", &baseline[..2], &baseline[2..]);
        let l1c = root.join(format!("{l1c}.SAFE"));
        let offsets: String = (0..13)
            .map(|id| format!("<RADIO_ADD_OFFSET band_id=\"{id}\">-1000</RADIO_ADD_OFFSET>"))
            .collect();
        let image = format!("{GRANULE}/IMG_DATA/T29RKH_20200219T112111_B02");
        for (file, text) in [
            ("manifest.safe".to_owned(), String::new()),
            ("DATASTRIP/DS_1/MTD_DS.xml".to_owned(), "<a/>".to_owned()),
            (format!("{image}.jp2"), "image".to_owned()),
            (
                "MTD_MSIL1C.xml".to_owned(),
                format!(
                    "<a><PRODUCT_START_TIME>2020-02-19T11:21:11.024Z</PRODUCT_START_TIME>\
                     <PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL>\
                     <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><IMAGE_FILE>{image}</IMAGE_FILE>\
                     <QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>{offsets}</a>"
                ),
            ),
            (
                format!("{GRANULE}/MTD_TL.xml"),
                "<a><TILE_ID>S2A_OPER_MSI_L1C_TL_FAKE_20200219T130000_A024342_T29RKH_N05.00</TILE_ID>\
                 <HORIZONTAL_CS_CODE>EPSG:32629</HORIZONTAL_CS_CODE></a>"
                    .to_owned(),
            ),
        ] {
            fs::create_dir_all(l1c.join(&file).parent().unwrap()).unwrap();
            fs::write(l1c.join(&file), text).unwrap();
        }
        let out = root.join("l2a");
        Self { _folder: temporary, root, l1c, out }
    }

    fn sen2cor(&self) -> Sen2Cor {
        Sen2Cor::find(Some(&self.root)).unwrap()
    }

    fn run(&self, options: &Options) -> Result<PathBuf, Error> {
        self.sen2cor().run(&self.l1c, &self.out, options, &mut |_| ControlFlow::Continue(()))
    }

    /// What lies in the output folder.
    fn left(&self) -> Vec<String> {
        names(&self.out)
    }

    fn arguments(&self) -> String {
        fs::read_to_string(self.root.join("bin/arguments")).unwrap()
    }

    /// Runs what must fail. Nothing but the log may be left; returns the failure as the message tells it, with the
    /// last lines.
    fn failure(&self, options: &Options) -> String {
        let error = self.run(options).unwrap_err();
        self.told(&error)
    }

    fn told(&self, error: &Error) -> String {
        let text = chain(error);
        let log = format!("{}.sen2cor.log", self.l1c.file_stem().unwrap().to_str().unwrap());
        assert_eq!(self.left(), [&*log], "after {text}");
        assert!(!text.contains('\n'), "one line: {text}");
        let text = text.strip_prefix(&format!("Sen2Cor 2.11.0 failed on {}: ", self.l1c.display())).unwrap();
        text.strip_suffix(&format!("; log: {}", self.out.join(log).display())).unwrap().to_owned()
    }

    /// Whether a process that the fake has started in the background still lives.
    fn is_alive(&self) -> bool {
        let beat = self.root.join("bin/beat");
        assert!(beat.exists(), "it has lived");
        fs::remove_file(&beat).unwrap();
        sleep(Duration::from_millis(500));
        beat.exists()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All files and folders below a folder, with their contents.
fn contents(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(names(&path).iter().map(|name| path.join(name)));
        }
        found.push((path.clone(), fs::read(&path).ok()));
    }
    found
}

fn limit(seconds: f64) -> Options {
    Options { time_limit: Duration::from_secs_f64(seconds), ..Options::default() }
}

#[test]
fn a_complete_product_is_moved_to_the_output_folder() {
    // The fake insists on the empty folders, which the input lacks.
    let place = Place::new("success");
    let before = contents(&place.l1c);
    let mut heard = Vec::new();
    let path = place
        .sen2cor()
        .run(&place.l1c, &place.out, &Options::default(), &mut |progress: Progress<'_>| {
            heard.push((progress.percent, progress.line.to_owned()));
            ControlFlow::Continue(())
        })
        .unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("S2A_MSIL2A_20200219T112111_N9999_R037_T29RKH_2"), "{name}");
    assert_eq!(place.left(), [name], "no log, no work folder");
    assert_eq!(Product::open(&path).unwrap().bands().count(), 13);
    assert_eq!(contents(&place.l1c), before, "the input");

    let percents: Vec<_> = heard.iter().map(|(percent, _)| *percent).collect();
    assert_eq!(percents, [0.0, 0.42, 14.2, 100.0]);
    assert!(
        heard[0].1.starts_with("Sentinel-2 Level 2A Processor (Sen2Cor). Version: 02.11.00"),
        "{heard:?}"
    );
    assert!(heard[2].1.contains("L2A_AtmCorr"), "{heard:?}");
    let arguments = place.arguments();
    assert!(!arguments.contains("--resolution") && !arguments.contains("--GIP_L2A"), "{arguments}");
    assert!(!arguments.contains("--processing_baseline"), "{arguments}");
}

#[test]
fn a_product_that_is_there_is_left_as_it_is() {
    let place = Place::new("slow_clock");
    let first = place.run(&Options::default()).unwrap();
    let before = contents(&first);
    let text = format!("{} is there already; move it away, or choose another output folder", first.display());
    assert_eq!(chain(&place.run(&Options::default()).unwrap_err()), text);
    assert_eq!(contents(&first), before);
    assert_eq!(place.left().len(), 1, "nothing else is left");
}

#[test]
fn a_run_after_a_failure_removes_its_log() {
    let place = Place::new("exit_1");
    place.failure(&Options::default());
    fs::write(place.root.join("bin/mode"), "success").unwrap();
    let path = place.run(&Options::default()).unwrap();
    assert_eq!(place.left(), [path.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn what_sen2cor_does_to_its_input_does_not_reach_the_input() {
    let place = Place::new("rude");
    let before = contents(&place.l1c);
    let path = place.run(&Options::default()).unwrap();
    assert_eq!(contents(&place.l1c), before);
    let linked = path.join("MTD_DS.xml");
    assert!(!linked.is_symlink(), "a link into the work folder is replaced");
    assert_eq!(fs::read_to_string(linked).unwrap(), "<a/>");
}

#[test]
fn resolution_and_settings_are_handed_on() {
    let place = Place::new("success");
    let gipp = place.root.join("L2A_GIPP.xml");
    fs::write(&gipp, "<a/>").unwrap();
    let options = Options { resolution_m: Some(60), gipp: Some(gipp.clone()), ..Options::default() };
    let path = place.run(&options).unwrap();
    let arguments = place.arguments();
    let expected = format!("--resolution 60 --GIP_L2A {} --output_dir ", gipp.display());
    assert!(arguments.starts_with(&expected), "{arguments}");
    let bands: Vec<_> = Product::open(&path).unwrap().bands().collect();
    assert!(bands.len() == 11 && bands.iter().all(|(_, resolution_m)| *resolution_m == 60), "{bands:?}");
}

#[test]
fn paths_may_have_spaces() {
    let place = Place::with("success", V2_11, L1C, "my data (of 2020)");
    place.run(&Options::default()).unwrap();
    let place = Place::with("exit_1", V2_11, L1C, "two  spaces");
    place.failure(&Options::default());
}

#[test]
fn the_work_folder_may_lie_elsewhere() {
    let work = tempfile::tempdir().unwrap();
    // Another file system, where there is one.
    let work = tempfile::tempdir_in("/dev/shm").unwrap_or(work);
    for mode in ["success", "exit_1"] {
        let place = Place::new(mode);
        let options = Options { work_dir: Some(work.path().to_owned()), ..Options::default() };
        match place.run(&options) {
            Ok(path) => assert_eq!(Product::open(path).unwrap().bands().count(), 13),
            Err(error) => drop(place.told(&error)),
        }
        assert_eq!(place.left().len(), 1, "the product or the log");
        assert!(names(work.path()).is_empty(), "the work folder is removed");
    }
}

#[test]
fn every_failure_is_told_and_leaves_only_the_log() {
    let started = "last lines: Sentinel-2 Level 2A Processor (Sen2Cor). Version: 02.11.00";
    let done = "Progress[%]: 100.00 : Application terminated successfully.";
    for (mode, failure, last) in [
        (
            "exit_1",
            "exit code 1",
            "Traceback: IOError: no LUT | Progress[%]: 100.00 : Application terminated with at least one error.",
        ),
        (
            "exit_0_with_error",
            "exit code 0, but no \"Application terminated successfully.\" at the end",
            "at least one error.",
        ),
        ("killed", "killed by signal 9 (by hand, or because memory ran out)", "total: 0:00:01"),
        ("empty_folder", "its output S2A_MSIL2A_DATE.SAFE has no B02 at 10 m", done),
        (
            "empty_image",
            "its output S2A_MSIL2A_DATE.SAFE has an empty image, T29RKH_20200219T112111_SCL_20m.jp2",
            done,
        ),
        (
            "missing_image",
            "its output S2A_MSIL2A_DATE.SAFE has no T29RKH_20200219T112111_TCI_10m.jp2, which its metadata name",
            done,
        ),
        ("no_metadata", "its output cannot be opened: ", done),
        ("other_tile", "its output S2A_MSIL2A_DATE.SAFE is not of the same tile as the input", done),
        ("two", "it made 2 L2A products instead of one: S2A_MSIL2A_DATE.SAFE, S2A_MSIL2A_DATE.SAFE", done),
        ("none", "it claims success, but made no L2A product", done),
        (
            "already",
            "it took the product for \"already processed\", in a fresh folder",
            "Product already processed.",
        ),
    ] {
        let place = Place::new(mode);
        let text = place.failure(&Options::default());
        let (told, lines) = text.split_once("; last lines: ").unwrap();
        // The names of products tell the time.
        let mut parts: Vec<String> = told.split("S2A_MSIL2A_").map(str::to_owned).collect();
        for part in &mut parts[1..] {
            if let Some((_, rest)) = part.split_once(".SAFE") {
                *part = format!("DATE.SAFE{rest}");
            }
        }
        let told = parts.join("S2A_MSIL2A_");
        match mode {
            "no_metadata" => {
                assert!(told.starts_with(failure) && told.contains("is not a Sentinel-2 product"), "{told}");
            }
            _ => assert_eq!(told, failure, "{mode}"),
        }
        assert!(lines.ends_with(last), "{mode}: {lines}");
        assert!(text.contains(started), "{mode}: {text}");
        let log = fs::read_to_string(place.out.join(format!("{L1C}.sen2cor.log"))).unwrap();
        assert!(log.contains("\nProgress[%]: 14.20 : PID-"), "{mode}: {log}");
    }
}

#[test]
fn a_failure_can_be_told_by_its_type() {
    let place = Place::new("exit_1");
    let Err(Error::Failed { failure, version, log: Some(log), .. }) = place.run(&Options::default()) else {
        panic!("it failed and has a log");
    };
    assert!(matches!(*failure, Failure::ExitCode { code: 1 }), "{failure:?}");
    assert_eq!(version, Version { major: 2, minor: 11, patch: 0 });
    assert!(log.is_file(), "{}", log.display());
}

#[test]
fn the_time_limit_ends_all_processes() {
    let place = Place::new("hang");
    let text = place.failure(&limit(3.0));
    assert!(text.starts_with("not done within 3 s, the time limit; last lines: "), "{text}");
    assert!(!place.is_alive(), "a child of the fake lives on");
}

#[test]
fn processes_that_ignore_sigterm_are_killed() {
    let place = Place::new("stubborn");
    let started = Instant::now();
    place.failure(&limit(3.0));
    assert!(started.elapsed() < Duration::from_secs(30), "the grace is 5 s");
    assert!(!place.is_alive(), "a child of the fake lives on");
}

#[test]
fn the_caller_can_interrupt() {
    let place = Place::new("hang");
    let mut heard = 0;
    let error = place.sen2cor().run(&place.l1c, &place.out, &Options::default(), &mut |progress| {
        heard += 1;
        // The fake is silent by then: the caller hears of the time as well.
        if progress.elapsed > Duration::from_secs(3) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let text = place.told(&error.unwrap_err());
    assert!(text.starts_with("interrupted; last lines: "), "{text}");
    assert!((4..30).contains(&heard), "three lines and once a second: {heard}");
    assert!(!place.is_alive(), "a child of the fake lives on");
}

#[test]
fn a_panic_of_the_caller_ends_all_processes() {
    let place = Place::new("hang");
    let sen2cor = place.sen2cor();
    let caught = std::panic::catch_unwind(|| {
        sen2cor.run(&place.l1c, &place.out, &Options::default(), &mut |progress| {
            assert!(progress.elapsed < Duration::from_secs(3), "on purpose");
            ControlFlow::Continue(())
        })
    });
    assert!(caught.is_err(), "it panicked");
    assert!(!place.is_alive(), "a child of the fake lives on");
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn what_runs_on_after_the_end_is_killed() {
    let place = Place::new("daemon");
    place.run(&Options::default()).unwrap();
    assert!(!place.is_alive(), "a child of the fake lives on");
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_limit_holds() {
    let place = Place::new("memory");
    let options = Options { memory_limit: Some(512 << 20), ..Options::default() };
    let text = place.failure(&options);
    assert!(
        text.starts_with("more memory needed than 536870912 bytes, the memory limit; last lines: "),
        "{text}"
    );
    // The second is more than any system has.
    for bytes in [4 << 30, u64::MAX] {
        let path = place.run(&Options { memory_limit: Some(bytes), ..Options::default() }).unwrap();
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn garbage_in_the_output_is_survived() {
    let place = Place::new("garbage");
    let mut heard = Vec::new();
    place
        .sen2cor()
        .run(&place.l1c, &place.out, &Options::default(), &mut |progress| {
            heard.push((progress.percent, progress.line.to_owned()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(heard.iter().all(|(percent, _)| (0.0..=100.0).contains(percent)), "{:?}", heard.last());
    assert!(
        heard.iter().all(|(_, line)| line.len() <= 4096 && !line.contains(char::is_control)),
        "long or wild"
    );
    assert!(heard.iter().any(|(_, line)| line == "\u{fffd}\u{fffd} [31m"), "not UTF-8, but heard");
    assert_eq!(heard.last().unwrap().1, "Progress[%]: 100.00 : Application terminated successfully.");
}

#[test]
fn baselines_that_a_version_does_not_know_are_refused_before_the_run() {
    let place = Place::with("success", V2_8, L1C, "here");
    let text = format!(
        "{} has baseline 05.00, which Sen2Cor 2.8.0 does not know; use Sen2Cor 2.10.0 or later",
        place.l1c.display()
    );
    assert_eq!(chain(&place.run(&Options::default()).unwrap_err()), text);
    assert!(!place.out.exists() && !place.root.join("bin/arguments").exists(), "nothing was done");
    let version = "02.10.01, created: 2022.02.01, supporting Level-1C product version 14.2 - 14.9";
    Place::with("success", version, L1C, "here").run(&Options::default()).unwrap();
}

#[test]
fn versions_without_offsets_keep_the_baseline_of_the_input() {
    let l1c = L1C.replace("N0500", "N0207");
    let path = Place::with("success", V2_8, &l1c, "here").run(&Options::default()).unwrap();
    assert!(path.to_str().unwrap().contains("_N0207_"), "{}", path.display());
}

#[test]
fn versions_that_write_beside_their_input_are_understood() {
    let version = "2.5.5, created: 2018.03.19, supporting\nLevel-1C product version <= 14.5";
    let l1c = L1C.replace("N0500", "N0206");
    let place = Place::with("success", version, &l1c, "here");
    assert_eq!(place.sen2cor().product_versions(), Some("<= 14.5"));
    // The fake calls it 99.99 all the same.
    let path = place.run(&Options::default()).unwrap();
    assert_eq!(path.parent().unwrap(), place.out);
    assert!(!place.arguments().contains("--output_dir"), "{}", place.arguments());
    // Its own name tells no time: what is there is refused before the run.
    let same = place.out.join(l1c.replace("MSIL1C", "MSIL2A") + ".SAFE");
    fs::create_dir(&same).unwrap();
    fs::remove_file(place.root.join("bin/arguments")).unwrap();
    let text = chain(&place.run(&Options::default()).unwrap_err());
    assert_eq!(
        text,
        format!("{} is there already; move it away, or choose another output folder", same.display())
    );
    assert!(!place.root.join("bin/arguments").exists(), "it did not run");
}

#[test]
fn products_with_old_names_are_processed() {
    let l1c = "S2A_OPER_PRD_MSIL1C_PDMC_20160910T174323_R037_V20160701T204642_20160701T204643";
    let place = Place::with("success", V2_8, l1c, "here");
    // What Sen2Cor 2.8 calls the output has no known form either.
    let path = place.run(&Options::default()).unwrap();
    assert_eq!(Product::open(&path).unwrap().tile(), "29RKH");
    fs::write(place.root.join("bin/mode"), "other_tile").unwrap();
    let text = chain(&place.run(&Options::default()).unwrap_err());
    assert!(text.contains(" is not of the same tile as the input; "), "{text}");
}

#[test]
fn options_that_cannot_be_are_refused_before_the_run() {
    let place = Place::new("success");
    let nowhere = Some(PathBuf::from("/nowhere/L2A_GIPP.xml"));
    for (options, text) in [
        (
            Options { gipp: nowhere.clone(), ..Options::default() },
            "gipp cannot be /nowhere/L2A_GIPP.xml: there is no such file",
        ),
        (
            Options { work_dir: nowhere, ..Options::default() },
            "work_dir cannot be /nowhere/L2A_GIPP.xml: there is no such folder",
        ),
        (
            Options { resolution_m: Some(30), ..Options::default() },
            "resolution_m cannot be 30: Sen2Cor makes 10, 20 or 60",
        ),
    ] {
        assert_eq!(chain(&place.run(&options).unwrap_err()), text);
        assert!(!place.out.exists(), "nothing was done");
    }
}

#[test]
fn inputs_that_sen2cor_refuses_are_refused_before_the_run() {
    let place = Place::new("success");
    let sen2cor = place.sen2cor();
    let run = |path: &Path| {
        chain(
            &sen2cor
                .run(path, &place.out, &Options::default(), &mut |_| ControlFlow::Continue(()))
                .unwrap_err(),
        )
    };
    let zip = place.root.join(format!("{L1C}.SAFE.zip"));
    fs::write(&zip, "PK").unwrap();
    assert_eq!(run(&zip), format!("Sen2Cor cannot process {}: it is not a folder; unpack it", zip.display()));
    let missing = place.root.join(format!("{L1C}.SAF"));
    assert!(run(&missing).starts_with(&format!("cannot read {}: ", missing.display())), "{}", run(&missing));

    for name in [L1C.to_owned(), format!("{}.SAFE", L1C.replace("L1C", "L2A")), "scene.SAFE".to_owned()] {
        let link = place.root.join(&name);
        std::os::unix::fs::symlink(&place.l1c, &link).unwrap();
        let text = format!(
            "Sen2Cor cannot process {}: {name:?} is not the name of an L1C folder, S2?_MSIL1C_*.SAFE or \
             S2?_OPER_PRD_MSIL1C_*.SAFE; give it back its name",
            link.display()
        );
        assert_eq!(run(&link), text);
    }
    let metadata = place.l1c.join("MTD_MSIL1C.xml");
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text.replace("Level-1C", "Level-2A")).unwrap();
    let error = run(&place.l1c);
    assert!(
        error.ends_with("its metadata say L2A, not L1C") || error.contains("cannot open the L1C"),
        "{error}"
    );
    fs::remove_file(&metadata).unwrap();
    let error = run(&place.l1c);
    assert!(error.starts_with(&format!("cannot open the L1C product {}: ", place.l1c.display())), "{error}");
    assert!(!place.out.exists(), "nothing was done");
}

#[test]
fn it_is_found_by_its_folder_or_program_and_tells_its_version() {
    let place = Place::new("success");
    for path in [place.root.clone(), place.root.join("bin"), place.root.join("bin/L2A_Process")] {
        let sen2cor = Sen2Cor::find(Some(&path)).unwrap();
        assert_eq!(sen2cor.version().to_string(), "2.11.0");
        assert_eq!(sen2cor.product_versions(), Some("14.2 - 14.9"));
        assert_eq!(sen2cor.executable(), place.root.join("bin/L2A_Process"));
    }
    let path = place.root.join("bin/mode");
    let text = format!(
        "{} is neither an executable file nor a folder with bin/L2A_Process; give the folder that Sen2Cor is \
         installed in",
        path.display()
    );
    assert_eq!(chain(&Sen2Cor::find(Some(&path)).unwrap_err()), text);
}

#[test]
fn a_program_that_is_not_sen2cor_is_refused() {
    for (mode, problem) in [
        ("mute", "tells no version, but \"usage: something else\""),
        ("broken", "ends with exit status: 1: \"ImportError: No module named glymur\""),
    ] {
        let place = Place::new(mode);
        let path = place.root.join("bin/L2A_Process");
        let text = format!("{} is not a Sen2Cor that runs: with --help it {problem}", path.display());
        assert_eq!(chain(&Sen2Cor::find(Some(&path)).unwrap_err()), text);
    }
}
