//! What all programs share: options, logs, progress bars, Ctrl-C, exit codes.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use s2_io::write_atomic;
use unet_burn::burn::train::Interrupter;

use crate::device::DeviceChoice;

/// Options of every program.
#[derive(clap::Args, Debug)]
pub struct Common {
    /// Where the network runs; auto takes a GPU if there is one and else the CPU.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Threads of the CPU work, up to 1024; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub threads: u16,
    /// Say nothing but errors and results.
    #[arg(long)]
    pub quiet: bool,
}

/// Options of programs without a network.
#[derive(clap::Args, Debug)]
pub struct Plain {
    /// Threads of the CPU work, up to 1024; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub threads: u16,
    /// Say nothing but errors and results.
    #[arg(long)]
    pub quiet: bool,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The end of a program that was asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Fails once Ctrl-C was pressed; long loops call it between two units of work, so that files are removed or
/// finished, never left half.
pub fn check_interrupt() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Interrupted.into());
    }
    Ok(())
}

/// Runs a program: logs to standard error, one line for an error, exit code 1 (130 after Ctrl-C).
pub fn run(common: &Common, program: impl FnOnce(&Interrupter) -> Result<()>) -> ExitCode {
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    guarded(common.quiet, common.threads.into(), move || stop.stop(Some("Ctrl-C")), || program(&interrupter))
}

/// The same for a program without a network.
pub fn run_plain(plain: &Plain, program: impl FnOnce() -> Result<()>) -> ExitCode {
    guarded(plain.quiet, plain.threads.into(), || {}, program)
}

fn guarded(
    quiet: bool,
    threads: usize,
    stop: impl Fn() + Send + 'static,
    program: impl FnOnce() -> Result<()>,
) -> ExitCode {
    // burn's loop logs the errors that it gives back as well, and cubecl each kernel that went without memory.
    let level = match quiet {
        true => "error,burn_train=off",
        false => {
            "warn,burn_train=off,cubecl_runtime=error,cubecl_wgpu=error,examples=info,demo=info,train=info"
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
    match start(threads, stop).and_then(|()| program()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("interrupted: files that are complete were kept");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(threads: usize, stop: impl Fn() + Send + 'static) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().context("cannot start the thread pool")?;
    ctrlc::set_handler(move || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130); // the second time: at once
        }
        stop();
        eprintln!("stopping after the current step (once more: at once)");
    })
    .context("cannot listen for Ctrl-C")
}

/// A bar on standard error; invisible with `--quiet` and where there is no terminal.
pub fn progress_bar(quiet: bool, steps: usize, what: &'static str) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:>12} {bar:40} {pos}/{len} [{elapsed}, {eta} left]")
        .expect("the template is valid");
    let bar = ProgressBar::new(steps as u64).with_style(style).with_message(what);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Writes a value as pretty JSON, whole or not at all.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    Ok(write_atomic(path, |file| std::io::Write::write_all(file, &json))?)
}

/// Makes an output folder.
pub fn make_folder(path: &Path) -> Result<()> {
    if path.is_file() {
        bail!("{} is a file: name a folder with --out", path.display());
    }
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Largest resident memory of this process so far in bytes, where the system tells it (Linux).
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
