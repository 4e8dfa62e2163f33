//! Sen2Cor, ESA's processor of L1C to L2A products: found, run under limits, and believed only when its output is
//! complete. Linux and macOS; on Windows, where Sen2Cor runs as well, this module is absent.
//!
//! Sen2Cor ends with exit code 0 after some failures, leaves half products behind and stumbles over those of earlier
//! runs. So each run has a fresh folder, and a product leaves that folder only when exit code, last message and
//! images say that it is whole.
//!
//! What is known of Sen2Cor was read in the source of version 2.8.0 (`L2A_Process.py`, `L2A_Config.py`) and in reports
//! about others; where versions after 2.8 differ is not known, so nothing that may work is refused.

mod error;
mod process;
mod tree;

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::process::End;
use crate::xml::Element;
use crate::{Baseline, Level, Product, ProductName};

pub use self::error::{Error, Failure, Result};

const PROGRAM: &str = "L2A_Process";
/// Python and its libraries may come from a slow network file system.
const PROBE_LIMIT: Duration = Duration::from_secs(120);
/// The longest part of a line that is looked at. Lines of Sen2Cor have some 100 bytes.
const MAX_LINE: usize = 4096;
/// Lines of the log that errors repeat, and the characters of each.
const LAST_LINES: usize = 5;
const LAST_LINE_CHARS: usize = 200;
/// What a log may have, bytes; the rest is left out.
const MAX_LOG: usize = 64 << 20;
/// How often the caller hears of a run that says nothing.
const SILENCE: Duration = Duration::from_secs(1);

/// The first version that knows the format of a baseline and later.
///
/// Baseline 04.00 (January 2022) brought the radiometric offset. Sen2Cor 2.9 is of November 2020 (its release note,
/// S2-PDGS-MPC-L2A-SRN-V2.9.0), and 2.8 takes newer products for old ones after a warning (`setProductVersion`): the
/// result would be wrong by 1000 DN. 2.10 announces products up to version 14.9 of their specification.
///
/// Not refused, because it is not known to fail: baseline 03.00 with 2.8 (there are complaints, pyeo#79), 05.10 and
/// later with 2.10 and 2.11, baselines before 04.00 with Sen2Cor 3.
const KNOWN_SINCE: [(Baseline, Version); 1] = [(Baseline::WITH_OFFSET, WITH_OFFSET)];
const WITH_OFFSET: Version = Version { major: 2, minor: 10, patch: 0 };
/// Earlier versions have no `--output_dir` and write beside their input, under its name with another level.
const WITH_OUTPUT_DIR: Version = Version { major: 2, minor: 8, patch: 0 };

/// The images that a product of a resolution must have, whatever the settings (Products Specification Document, L2A
/// image data; the same for all baselines since 02.05).
const IMAGES: [(u32, &[&str]); 3] = [
    (10, &["B02", "B03", "B04", "B08"]),
    (20, &["B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12", "SCL"]),
    (60, &["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B09", "B11", "B12", "SCL"]),
];

/// Version of Sen2Cor. Installers write `02.10.01`, older programs `2.8.0`; this writes `2.10.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The number before the first point.
    pub major: u32,
    /// The number after the first point.
    pub minor: u32,
    /// The number after the second point; 0 where there is none.
    pub patch: u32,
}

impl Version {
    /// Reads the version at the start of a text.
    fn at_start(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].trim_end_matches('.').split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let patch = numbers.next().transpose().ok()?.unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}.{}", self.major, self.minor, self.patch))
    }
}

/// How Sen2Cor is run.
///
/// # Examples
///
/// ```
/// # #[cfg(any(target_os = "linux", target_os = "macos"))] {
/// use std::time::Duration;
///
/// use s2_io::sen2cor::Options;
///
/// let options = Options { resolution_m: Some(20), ..Options::default() };
/// assert_eq!(options.time_limit, Duration::from_secs(6 * 60 * 60));
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Resolution of the output, metres: 10, 20 or 60. `None`, the default, is Sen2Cor's own default, 20 m and then
    /// 10 m.
    pub resolution_m: Option<u32>,
    /// Settings of the user, a `L2A_GIPP.xml`; start from the one of the installation and change single elements.
    /// `None`, the default, is Sen2Cor's own, `~/sen2cor/<version>/cfg/L2A_GIPP.xml`.
    pub gipp: Option<PathBuf>,
    /// The run is ended after this time, 6 hours by default. A tile takes tens of minutes; downloads of
    /// elevation models have been seen to hang. [`Duration::MAX`] is no limit.
    pub time_limit: Duration,
    /// Address space that each process of Sen2Cor may have, bytes; Linux only. No limit by default.
    ///
    /// It is a limit of each process, not of all together, and of address space (`ulimit -v`), which is larger than
    /// the resident memory: libraries and mapped files count. Sen2Cor takes some 8 GB for a tile. What goes over it
    /// fails with a message of its own; for a limit of resident memory use a control group.
    pub memory_limit: Option<u64>,
    /// Where the work folder is made, which holds the output until it is complete, and is removed at the end. `None`, the default, is the output folder. On another file system than that, the product is copied at the
    /// end. Some versions of Sen2Cor fail when the path has spaces in it or lies on a network file system.
    pub work_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            resolution_m: None,
            gipp: None,
            time_limit: Duration::from_secs(6 * 60 * 60),
            memory_limit: None,
            work_dir: None,
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Sen2Cor's estimate, 0 to 100; 0 until it gives one. Not proportional to time.
    pub percent: f64,
    /// Time since the start.
    pub elapsed: Duration,
    /// The last line that Sen2Cor wrote; empty until it writes one. Bytes that are not UTF-8 are replaced, control
    /// characters too, and a long line is cut.
    pub line: &'a str,
}

/// An installation of Sen2Cor that has told its version.
///
/// # Examples
///
/// ```no_run
/// # #[cfg(any(target_os = "linux", target_os = "macos"))]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::ops::ControlFlow;
///
/// use s2_io::sen2cor::{Options, Sen2Cor};
///
/// let sen2cor = Sen2Cor::find(None)?;
/// println!("Sen2Cor {} at {}", sen2cor.version(), sen2cor.executable().display());
/// let l1c = "archive/S2A_MSIL1C_20200219T112111_N0500_R037_T29RKH_20230425T050621.SAFE";
/// let l2a = sen2cor.run(l1c, "l2a", &Options::default(), &mut |progress| {
///     eprint!("\r{:5.1} % after {} s", progress.percent, progress.elapsed.as_secs());
///     ControlFlow::Continue(())
/// })?;
/// let product = s2_io::Product::open(l2a)?;
/// # Ok(())
/// # }
/// # #[cfg(not(any(target_os = "linux", target_os = "macos")))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Sen2Cor {
    executable: PathBuf,
    version: Version,
    product_versions: Option<String>,
}

impl Sen2Cor {
    /// Finds Sen2Cor and asks it for its version.
    ///
    /// `given` is `L2A_Process` or the folder that Sen2Cor is installed in. Without it the environment variable
    /// `S2_SEN2COR` says the same. Without both these are searched, in this order: the folders that `SEN2COR_HOME` and
    /// `SEN2COR_BIN` name and those above them (Sen2Cor's own `L2A_Bashrc` sets them to folders of settings and of
    /// Python files); `PATH`; `Sen2Cor-*` in the home folder and in `/opt`, the newest version first.
    ///
    /// # Errors
    ///
    /// There is no `L2A_Process`, or it does not run or tells no version within two minutes.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        Self::probe(locate(
            given,
            &|name| env::var_os(name).filter(|value| !value.is_empty()),
            Path::new("/opt"),
        )?)
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The program, `L2A_Process`.
    #[must_use]
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// The versions of ESA's Products Specification Document whose L1C products it announces to support, in its own
    /// words: `"14.2 - 14.9"`, `"<= 14.5"`.
    #[must_use]
    pub fn product_versions(&self) -> Option<&str> {
        self.product_versions.as_deref()
    }

    fn probe(executable: PathBuf) -> Result<Self> {
        let mut command = Command::new(&executable);
        command.arg("--help");
        let mut help = Vec::new();
        let end = process::watch(command, PROBE_LIMIT, &mut |chunk| {
            help.extend_from_slice(&chunk[..chunk.len().min((1 << 20) - help.len())]);
            ControlFlow::Continue(())
        })
        .map_err(|source| Error::Run { path: executable.clone(), source })?;
        // The description is broken into lines where it happens to be long.
        let help = printable(&help);
        let problem = match end {
            End::Exited(status) if status.success() => {
                let version =
                    help.split("Version:").nth(1).and_then(|rest| Version::at_start(rest.trim_start()));
                match version {
                    Some(version) => {
                        let product_versions = product_versions(&help);
                        return Ok(Self { executable, version, product_versions });
                    }
                    None => format!("tells no version, but {:?}", shortened(&help)),
                }
            }
            End::Exited(status) => format!("ends with {status}: {:?}", shortened(&help)),
            End::TimeLimit | End::Interrupted => format!("does not end within {} s", PROBE_LIMIT.as_secs()),
        };
        Err(Error::Probe { path: executable, problem })
    }

    /// Makes the L2A product of an L1C product in the folder `out` and returns its path.
    ///
    /// `l1c` is an unpacked SAFE folder of one granule, with the name that ESA gave it; it is not changed. Sen2Cor
    /// gets a view of it in which the empty folders exist that it needs, in a fresh work folder
    /// ([`Options::work_dir`]). It runs as a process group of its own with the environment of this process and
    /// `PYTHONUNBUFFERED`, so that its messages come at once; versions 2.8 and 2.9 are told to keep the baseline of
    /// the input, because they would write 99.99, which promises an offset that they do not know.
    ///
    /// `progress` is called for each line that Sen2Cor writes and at least every second or so; when it
    /// breaks, or the time limit is over, all processes of the group are ended (SIGTERM, five seconds, SIGKILL). As the
    /// group is not that of the terminal, Ctrl-C does not reach Sen2Cor: a program that is to end with it handles the
    /// signal and breaks here.
    ///
    /// A run has succeeded when the exit code is 0, the last message on progress is "Application terminated
    /// successfully.", and there is exactly one L2A product, of the satellite, sensing time, orbit and tile of the
    /// input, that [`Product::open`] opens and that has all images of the resolution, none of them empty: those of the
    /// product specification, and those that its metadata name. They are not decoded. The product is then synced and
    /// renamed into `out`.
    ///
    /// After a failure nothing is left in `out` but the log, `<name of the input>.sen2cor.log`; the next run of the
    /// input removes it.
    ///
    /// # Errors
    ///
    /// Before the run: an option, the input or its baseline is none that this version can do. After it:
    /// [`Error::Failed`] with the log, or [`Error::Exists`]. A file system that cannot be read or written.
    pub fn run(
        &self,
        l1c: impl AsRef<Path>,
        out: impl AsRef<Path>,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<PathBuf> {
        let (l1c, out) = (l1c.as_ref(), out.as_ref());
        let gipp = options.check()?;
        let input = Input::open(l1c)?;
        for (baseline, needed) in KNOWN_SINCE {
            if input.product.baseline() >= baseline && self.version < needed {
                let (path, baseline) = (l1c.to_owned(), input.product.baseline());
                return Err(Error::UnsupportedBaseline { path, baseline, version: self.version, needed });
            }
        }
        // Later versions put the time into the name.
        if self.version < WITH_OUTPUT_DIR {
            refuse_existing(&out.join(input.file_name.replace("_MSIL1C_", "_MSIL2A_")))?;
        }

        fs::create_dir_all(out).map_err(tree::write(out))?;
        let work_dir = options.work_dir.as_deref().unwrap_or(out);
        let work = tempfile::Builder::new()
            .prefix(&format!(".{}.", input.stem()))
            .suffix(".sen2cor")
            .tempdir_in(work_dir)
            .map_err(tree::write(work_dir))?;
        // Sen2Cor runs elsewhere.
        let root = work.path().canonicalize().map_err(tree::read(work.path()))?;
        let folders = [root.join("input"), root.join("output")];
        for folder in &folders {
            fs::create_dir(folder).map_err(tree::write(folder))?;
        }
        let view = folders[0].join(&input.file_name);
        tree::view(l1c, &view)?;

        let command = self.command(&view, &folders[1], &root, gipp.as_deref(), &input, options);
        let log = root.join("log");
        let kept_log = out.join(format!("{}.sen2cor.log", input.stem()));
        if kept_log.exists() {
            fs::remove_file(&kept_log).map_err(tree::write(&kept_log))?;
        }
        let mut output = Output::new(File::create_new(&log).map_err(tree::write(&log))?, progress);
        let end = process::watch(command, options.time_limit, &mut |chunk| output.take(chunk))
            .map_err(|source| Error::Run { path: self.executable.clone(), source })?;
        output.end_line();

        let made = output
            .judge(&end, options)
            .and_then(|()| find_output(&folders, &input, options.resolution_m))
            .map_err(|failure| Error::Failed {
                input: l1c.to_owned(),
                version: self.version,
                failure: Box::new(failure),
                last_lines: output.last_lines(),
                log: keep(&log, &kept_log),
            })?;
        let path = out.join(made.file_name().unwrap_or_default());
        refuse_existing(&path)?;
        tree::move_folder(&made, &path)?;
        Ok(path)
    }

    fn command(
        &self,
        view: &Path,
        output: &Path,
        root: &Path,
        gipp: Option<&Path>,
        input: &Input,
        options: &Options,
    ) -> Command {
        let mut command = match options.memory_limit {
            Some(bytes) => {
                // The limit must be there before the first process of Sen2Cor starts another, which it would not be
                // if it were set from here (`prlimit`); to set it in between takes unsafe code.
                let mut command = Command::new("/bin/sh");
                let kibibytes = (bytes.min(address_space()) / 1024).to_string();
                command.args(["-c", "ulimit -v \"$1\" && shift && exec \"$@\"", "sh", &kibibytes]);
                command.arg(&self.executable);
                command
            }
            None => Command::new(&self.executable),
        };
        if let Some(resolution_m) = options.resolution_m {
            command.arg("--resolution").arg(resolution_m.to_string());
        }
        if let Some(gipp) = gipp {
            command.arg("--GIP_L2A").arg(gipp);
        }
        if self.version >= WITH_OUTPUT_DIR {
            command.arg("--output_dir").arg(output);
            if self.version < WITH_OFFSET {
                command.arg("--processing_baseline").arg(input.product.baseline().to_string());
            }
        }
        command.arg(view).current_dir(root).env("PYTHONUNBUFFERED", "1");
        command
    }
}

impl Options {
    /// Checks all options; returns the whole path of the settings.
    fn check(&self) -> Result<Option<PathBuf>> {
        if let Some(resolution_m) = self.resolution_m
            && !IMAGES.iter().any(|(known, _)| *known == resolution_m)
        {
            let (value, problem) = (resolution_m.to_string(), "Sen2Cor makes 10, 20 or 60");
            return Err(Error::Option { option: "resolution_m", value, problem });
        }
        if let Some(bytes) = self.memory_limit
            && !cfg!(target_os = "linux")
        {
            let (value, problem) = (bytes.to_string(), "only Linux limits address space");
            return Err(Error::Option { option: "memory_limit", value, problem });
        }
        let missing = |option, path: &Path, problem| {
            let value = path.display().to_string();
            Err(Error::Option { option, value, problem })
        };
        if let Some(work_dir) = self.work_dir.as_deref().filter(|folder| !folder.is_dir()) {
            return missing("work_dir", work_dir, "there is no such folder");
        }
        match self.gipp.as_deref() {
            Some(gipp) if !gipp.is_file() => missing("gipp", gipp, "there is no such file"),
            Some(gipp) => gipp.canonicalize().map(Some).map_err(tree::read(gipp)),
            None => Ok(None),
        }
    }
}

/// An L1C product that Sen2Cor accepts by its name.
struct Input {
    file_name: String,
    name: ProductName,
    product: Product,
}

impl Input {
    fn open(path: &Path) -> Result<Self> {
        let refused = |problem: String| Error::Input { path: path.to_owned(), problem };
        if !fs::metadata(path).map_err(tree::read(path))?.is_dir() {
            return Err(refused("it is not a folder; unpack it".to_owned()));
        }
        // The name of a link counts, not that of its target: the view is made under it.
        let absolute = std::path::absolute(path).map_err(tree::read(path))?;
        let file_name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // `S2?_MSIL1C*.SAFE` and `S2?_OPER_PRD_MSIL1C*.SAFE` in `readNamingConvention`.
        let name = file_name.parse::<ProductName>().ok();
        let name = name.filter(|name| {
            name.level == Level::L1C && file_name.ends_with(".SAFE") && !file_name.contains("_USER_")
        });
        let Some(name) = name else {
            let form = "S2?_MSIL1C_*.SAFE or S2?_OPER_PRD_MSIL1C_*.SAFE";
            return Err(refused(format!(
                "{file_name:?} is not the name of an L1C folder, {form}; give it back its name"
            )));
        };
        let product = Product::open(path)
            .map_err(|source| Error::Product { path: path.to_owned(), source: Box::new(source) })?;
        if product.level() != Level::L1C {
            return Err(refused(format!("its metadata say {}, not L1C", product.level())));
        }
        Ok(Self { file_name, name, product })
    }

    fn stem(&self) -> &str {
        self.file_name.strip_suffix(".SAFE").unwrap_or(&self.file_name)
    }
}

/// What Sen2Cor writes: kept in the log, passed on line by line, and judged at the end.
struct Output<'a> {
    log: File,
    log_left: usize,
    progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    stopped: bool,
    started: Instant,
    reported: Instant,
    percent: f64,
    /// The line that has not ended yet, up to [`MAX_LINE`].
    unfinished: Vec<u8>,
    line: String,
    last: VecDeque<String>,
    /// The text of the last message on progress.
    message: String,
    out_of_memory: bool,
}

impl<'a> Output<'a> {
    fn new(log: File, progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> Self {
        let now = Instant::now();
        Self {
            log,
            log_left: MAX_LOG,
            progress,
            stopped: false,
            started: now,
            reported: now,
            percent: 0.0,
            unfinished: Vec::new(),
            line: String::new(),
            last: VecDeque::new(),
            message: String::new(),
            out_of_memory: false,
        }
    }

    fn take(&mut self, chunk: &[u8]) -> ControlFlow<()> {
        let kept = self.log_left.min(chunk.len());
        self.log_left -= kept;
        if self.log.write_all(&chunk[..kept]).is_err() {
            // Most likely the disk is full. Sen2Cor will complain as well, and its last lines are more useful.
            self.log_left = 0;
        }
        for part in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let room = MAX_LINE - self.unfinished.len();
            self.unfinished.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") || part.ends_with(b"\r") {
                self.end_line();
            }
        }
        if self.reported.elapsed() >= SILENCE {
            self.report();
        }
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn end_line(&mut self) {
        let line = printable(&self.unfinished);
        self.unfinished.clear();
        if line.is_empty() {
            return;
        }
        if let Some((percent, message)) = progress_of(&line) {
            self.percent = percent;
            message.clone_into(&mut self.message);
        }
        // What Python, C++ and the C library say.
        self.out_of_memory |= ["MemoryError", "std::bad_alloc", "Cannot allocate memory"]
            .iter()
            .any(|complaint| line.contains(complaint));
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(shortened(&line).to_owned());
        self.line = line;
        self.report();
    }

    fn report(&mut self) {
        // Who has stopped hears nothing any more.
        if !self.stopped {
            self.reported = Instant::now();
            let elapsed = self.started.elapsed();
            let progress = Progress { percent: self.percent, elapsed, line: &self.line };
            self.stopped = (self.progress)(progress).is_break();
        }
    }

    fn last_lines(&self) -> String {
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }

    /// Whether exit code and last message say that all went well.
    fn judge(&self, end: &End, options: &Options) -> Result<(), Failure> {
        let status = match end {
            End::Interrupted => return Err(Failure::Interrupted),
            End::TimeLimit => return Err(Failure::TimeLimit { limit: options.time_limit }),
            End::Exited(status) => *status,
        };
        let failure = match (status.code(), status.signal()) {
            (Some(0), _) if self.message == "Application terminated successfully." => return Ok(()),
            (Some(0), _) if self.message == "Product already processed." => Failure::AlreadyProcessed,
            (Some(0), _) => Failure::NotConfirmed,
            (Some(code), _) => Failure::ExitCode { code },
            (None, signal) => Failure::Killed { signal: signal.unwrap_or_default() },
        };
        match options.memory_limit {
            Some(limit) if self.out_of_memory => Err(Failure::MemoryLimit { limit }),
            _ => Err(failure),
        }
    }
}

/// Finds the one product in the work folder and checks that it is that of the input, and complete. Versions before 2.8
/// write it beside the input.
fn find_output(folders: &[PathBuf], input: &Input, resolution_m: Option<u32>) -> Result<PathBuf, Failure> {
    let mut found = Vec::new();
    for path in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let name = path.file_name().to_string_lossy().into_owned();
        if name.starts_with("S2") && name.contains("_MSIL2A") && name.ends_with(".SAFE") {
            found.push((name, path.path()));
        }
    }
    found.sort();
    let (name, path) = match <[_; 1]>::try_from(found) {
        Ok([one]) => one,
        Err(none) if none.is_empty() => return Err(Failure::NoOutput),
        Err(several) => {
            return Err(Failure::SeveralOutputs {
                names: several.into_iter().map(|(name, _)| name).collect(),
            });
        }
    };
    let product = match Product::open(&path) {
        Ok(product) => product,
        Err(error) => return Err(Failure::Unreadable { error }),
    };
    if product.level() != Level::L2A {
        let problem = format!("the metadata of an {} product", product.level());
        return Err(Failure::Incomplete { name, problem });
    }
    // For an input with an old name Sen2Cor 2.8 makes a name of no known form; what can be compared then is less.
    let named = name.parse::<ProductName>().ok().filter(|_| input.name.tile.is_some());
    let same =
        |same: fn(&ProductName, &ProductName) -> bool| named.as_ref().is_none_or(|n| same(n, &input.name));
    let differs = [
        ("satellite", name.get(..3) == Some(&*input.name.satellite)),
        ("sensing time", same(|a, b| a.sensing_time == b.sensing_time)),
        ("orbit", same(|a, b| a.relative_orbit == b.relative_orbit)),
        ("tile", product.tile() == input.product.tile()),
    ];
    if let Some((differs, _)) = differs.into_iter().find(|(_, same)| !same) {
        return Err(Failure::OtherProduct { name, differs });
    }
    match lacking(&path, resolution_m) {
        Some(problem) => Err(Failure::Incomplete { name, problem }),
        None => Ok(path),
    }
}

/// What a product lacks of the images of a resolution.
fn lacking(product: &Path, resolution_m: Option<u32>) -> Option<String> {
    let mut sizes = BTreeMap::new();
    for granule in fs::read_dir(product.join("GRANULE")).into_iter().flatten().flatten() {
        images(&granule.path().join("IMG_DATA"), 2, &mut sizes);
    }
    if let Some((empty, _)) = sizes.iter().find(|(_, size)| **size == 0) {
        return Some(format!("an empty image, {empty}.jp2"));
    }
    let asked = |resolution| match resolution_m {
        Some(asked) => asked == resolution,
        None => resolution < 60,
    };
    for (resolution, layers) in IMAGES.into_iter().filter(|(resolution, _)| asked(*resolution)) {
        let of_resolution = format!("{resolution}m");
        for layer in layers {
            let has = |stem: &String| {
                let mut parts = stem.rsplit('_');
                parts.next() == Some(&of_resolution) && parts.any(|part| part == *layer)
            };
            if !sizes.keys().any(has) {
                return Some(format!("no {layer} at {resolution} m"));
            }
        }
        for stem in
            named_images(product).into_iter().filter(|stem| stem.ends_with(&format!("_{of_resolution}")))
        {
            if !sizes.contains_key(&stem) {
                return Some(format!("no {stem}.jp2, which its metadata name"));
            }
        }
    }
    None
}

/// The sizes of the images in a folder, by name without ending.
fn images(folder: &Path, depth: usize, sizes: &mut BTreeMap<String, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match (fs::metadata(&path), path.extension(), path.file_stem()) {
            (Ok(metadata), ..) if metadata.is_dir() && depth > 0 => images(&path, depth - 1, sizes),
            (Ok(metadata), Some(extension), Some(stem)) if extension == "jp2" => {
                sizes.insert(stem.to_string_lossy().into_owned(), metadata.len());
            }
            _ => {}
        }
    }
}

/// The images that the metadata of a product name, without folders and ending. That the metadata can be read was seen
/// when the product was opened; those of old products have other names and are left out. An elevation model is named
/// as well, but lies elsewhere.
fn named_images(product: &Path) -> Vec<String> {
    let path = product.join("MTD_MSIL2A.xml");
    let root = fs::read(&path).ok().and_then(|text| Element::parse(&path, &text).ok()).unwrap_or_default();
    let names =
        root.find_all("IMAGE_FILE").filter_map(|element| element.text.trim().split_once("/IMG_DATA/"));
    let stem = |(_, file): (&str, &str)| {
        let name = file.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".jp2").unwrap_or(name).to_owned()
    };
    names.map(stem).collect()
}

/// Brings the log to where it is kept, if that can be done.
fn keep(log: &Path, kept: &Path) -> Option<PathBuf> {
    // A renamed file takes no space, of which there may be none left.
    let renamed = fs::rename(log, kept).is_ok();
    let copied =
        || crate::write_atomic(kept, |file| io::copy(&mut File::open(log)?, file).map(|_| ())).is_ok();
    (renamed || copied()).then(|| kept.to_owned())
}

fn refuse_existing(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Error::Exists { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// The address space that this process may give at most: a higher limit cannot be set, and is not needed.
fn address_space() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::As).maximum.unwrap_or(u64::MAX)
}

/// The program that [`Sen2Cor::find`] means. `variable` and `opt` stand for the environment and `/opt`.
fn locate(given: Option<&Path>, variable: &dyn Fn(&str) -> Option<OsString>, opt: &Path) -> Result<PathBuf> {
    let chosen = given.map(Path::to_owned).or_else(|| variable("S2_SEN2COR").map(PathBuf::from));
    if let Some(path) = chosen {
        let program = if is_program(&path) { Some(path.clone()) } else { program_in(&path) };
        let program = program.ok_or_else(|| Error::NotSen2Cor { path: path.clone() })?;
        // Sen2Cor runs in its work folder.
        return std::path::absolute(program).map_err(tree::read(&path));
    }
    for folder in ["SEN2COR_HOME", "SEN2COR_BIN"].iter().filter_map(|name| variable(name)) {
        if let Some(program) = Path::new(&folder).ancestors().find_map(program_in) {
            return Ok(program);
        }
    }
    let path = variable("PATH").unwrap_or_default();
    // An empty entry is the present folder, from which nothing should be run by accident.
    let mut on_path = env::split_paths(&path).filter(|folder| folder.is_absolute());
    if let Some(program) =
        on_path.find_map(|folder| Some(folder.join(PROGRAM)).filter(|path| is_program(path)))
    {
        return Ok(program);
    }
    let mut installed = Vec::new();
    for folder in variable("HOME").map(PathBuf::from).into_iter().chain([opt.to_owned()]) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.strip_prefix("Sen2Cor-").and_then(Version::at_start);
            if let (Some(version), Some(program)) = (version, program_in(&entry.path())) {
                installed.push((version, program));
            }
        }
    }
    installed.into_iter().max().map(|(_, program)| program).ok_or_else(|| Error::NotFound {
        looked_in: format!("SEN2COR_HOME, SEN2COR_BIN, PATH, ~/Sen2Cor-* and {}/Sen2Cor-*", opt.display()),
    })
}

fn program_in(folder: &Path) -> Option<PathBuf> {
    [folder.join("bin").join(PROGRAM), folder.join(PROGRAM)].into_iter().find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The words between "Level-1C product version" and the end of the sentence.
fn product_versions(help: &str) -> Option<String> {
    let (_, rest) = help.split_once("Level-1C product version")?;
    let words: Vec<_> = rest
        .trim_start_matches(':')
        .split_whitespace()
        .map(|word| word.trim_end_matches('.'))
        .take_while(|word| matches!(*word, "-" | "<=") || word.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Percent and text of `Progress[%]: 14.20 : PID-…, text`.
fn progress_of(line: &str) -> Option<(f64, &str)> {
    let (percent, text) = line.split_once("Progress[%]:")?.1.split_once(" : ")?;
    let percent: f64 = percent.trim().parse().ok()?;
    percent.is_finite().then(|| (percent.clamp(0.0, 100.0), text.trim()))
}

/// Text on one line that a terminal shows as it is.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace(char::is_control, " ");
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The start of a text.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(LAST_LINE_CHARS).map_or(text.len(), |(index, _)| index);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder.join("bin")).unwrap();
        let path = folder.join("bin").join(PROGRAM);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn it_is_looked_for_where_it_is_usually_installed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let find = |given: Option<&Path>, variables: &[(&str, PathBuf)]| {
            let variable = |name: &str| {
                variables
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| value.clone().into_os_string())
            };
            locate(given, &variable, &root.join("opt"))
        };
        let home = ("HOME", root.join("home"));
        let nothing = find(None, std::slice::from_ref(&home)).unwrap_err().to_string();
        assert!(
            nothing.starts_with("no L2A_Process in SEN2COR_HOME, SEN2COR_BIN, PATH, ~/Sen2Cor-* and "),
            "{nothing}"
        );
        assert!(nothing.ends_with("; install Sen2Cor, or name its folder in S2_SEN2COR"), "{nothing}");

        // The first in alphabetical order, and the first folder, are not the newest.
        program(&root.join("home/Sen2Cor-02.05.05-Linux64"));
        let newest = program(&root.join("home/Sen2Cor-02.12.03-Linux64"));
        program(&root.join("opt/Sen2Cor-02.08.00-Linux64"));
        fs::create_dir_all(root.join("opt/Sen2Cor-03.00.00-without-a-program")).unwrap();
        assert_eq!(find(None, std::slice::from_ref(&home)).unwrap(), newest);

        let on_path = program(&root.join("path"));
        let path = ("PATH", PathBuf::from(format!(":/nowhere:{}", root.join("path/bin").display())));
        assert_eq!(find(None, &[home.clone(), path.clone()]).unwrap(), on_path);

        // As `L2A_Bashrc` sets them: settings of the user, and Python files of the installation.
        let installed = program(&root.join("installed"));
        let python = root.join("installed/lib/python2.7/site-packages/sen2cor");
        let bashrc = [("SEN2COR_HOME", root.join("home/sen2cor/2.11")), ("SEN2COR_BIN", python)];
        let mut variables = vec![home, path];
        variables.extend(bashrc);
        assert_eq!(find(None, &variables).unwrap(), installed);

        let chosen = program(&root.join("chosen"));
        variables.push(("S2_SEN2COR", root.join("chosen")));
        assert_eq!(find(None, &variables).unwrap(), chosen);
        assert_eq!(find(Some(&newest), &variables).unwrap(), newest);
        // Who chooses gets that or an error, not another version.
        let error = find(Some(&root.join("gone")), &variables).unwrap_err();
        assert!(matches!(error, Error::NotSen2Cor { .. }), "{error}");
    }

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        let read = |text| Version::at_start(text).map(|version| version.to_string());
        assert_eq!(read("2.8.0, created: 2019.02.20").as_deref(), Some("2.8.0"));
        assert_eq!(read("02.10.01-Linux64").as_deref(), Some("2.10.1"));
        assert_eq!(read("2.11.").as_deref(), Some("2.11.0"));
        for text in ["", "two", "2", ".", "2..1", "99999999999.1"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert!(Version::at_start("2.8.0") < Version::at_start("02.10.00"), "8 is less than 10");
    }

    #[test]
    fn announced_product_versions_end_with_the_sentence() {
        for (help, expected) in [
            ("supporting Level-1C product version 14.2 - 14.5. positional arguments", Some("14.2 - 14.5")),
            ("supporting Level-1C product version <= 14.5. positional", Some("<= 14.5")),
            ("supporting Level-1C product version: 14. positional", Some("14")),
            ("supporting Level-1C product version 15.0 started", Some("15.0")),
            ("supporting Level-1C product version", None),
            ("usage", None),
        ] {
            assert_eq!(product_versions(help).as_deref(), expected, "{help}");
        }
    }

    #[test]
    fn progress_is_read_from_its_lines_only() {
        let line = "Progress[%]: 14.20 : PID-12, L2A_AtmCorr: preparation, elapsed time[s]: 1.2";
        let text = "PID-12, L2A_AtmCorr: preparation, elapsed time[s]: 1.2";
        assert_eq!(progress_of(line), Some((14.2, text)));
        for line in ["", "14.20 : x", "Progress[%]:", "Progress[%]: x : y", "Progress[%]: nan : y"] {
            assert_eq!(progress_of(line), None, "{line:?}");
        }
    }
}
