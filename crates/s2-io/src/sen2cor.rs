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
mod installation;
mod output;
mod process;
mod product;
mod tree;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::output::Output;
use self::product::{IMAGES, find_output};
use crate::{Baseline, Level, Product, ProductName};

pub use self::error::{Error, Failure, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
