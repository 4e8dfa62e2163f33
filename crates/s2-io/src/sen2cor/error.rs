//! What can go wrong with Sen2Cor, sorted by whose fault it is.

use std::path::PathBuf;
use std::time::Duration;

use super::Version;
use crate::Baseline;

/// The result of this module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no L2A product.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Sen2Cor on this machine.
    #[error("no L2A_Process in {looked_in}; install Sen2Cor, or name its folder in S2_SEN2COR")]
    NotFound {
        /// The places that were searched.
        looked_in: String,
    },
    /// The path that was given is no Sen2Cor.
    #[error(
        "{} is neither an executable file nor a folder with bin/L2A_Process; give the folder that Sen2Cor is installed in",
        path.display()
    )]
    NotSen2Cor {
        /// The path.
        path: PathBuf,
    },
    /// The program does not say which version of Sen2Cor it is.
    #[error("{} is not a Sen2Cor that runs: with --help it {problem}", path.display())]
    Probe {
        /// The program.
        path: PathBuf,
        /// What it did instead.
        problem: String,
    },
    /// An option has a value that Sen2Cor does not know, or that this system cannot do.
    #[error("{option} cannot be {value}: {problem}")]
    Option {
        /// The field of [`Options`](super::Options).
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it, and what is possible.
        problem: &'static str,
    },
    /// The input has a name or form that Sen2Cor refuses.
    #[error("Sen2Cor cannot process {}: {problem}", path.display())]
    Input {
        /// The input.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The input is no product, or a damaged one.
    #[error("cannot open the L1C product {}", path.display())]
    Product {
        /// The input.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<crate::Error>,
    },
    /// This version of Sen2Cor would give wrong results.
    #[error(
        "{} has baseline {baseline}, which Sen2Cor {version} does not know; use Sen2Cor {needed} or later",
        path.display()
    )]
    UnsupportedBaseline {
        /// The input.
        path: PathBuf,
        /// Its baseline.
        baseline: Baseline,
        /// The version that was to run.
        version: Version,
        /// The first version that knows the baseline.
        needed: Version,
    },
    /// The output folder has a product of this name already; it was left as it is.
    #[error("{} is there already; move it away, or choose another output folder", path.display())]
    Exists {
        /// The product.
        path: PathBuf,
    },
    /// Sen2Cor ran, and there is no complete product.
    #[error(
        "Sen2Cor {version} failed on {}: {failure}{}; {}", input.display(),
        if last_lines.is_empty() { String::new() } else { format!("; last lines: {last_lines}") },
        log.as_ref().map_or("the log could not be kept".to_owned(), |log| format!("log: {}", log.display()))
    )]
    Failed {
        /// The input.
        input: PathBuf,
        /// Version of Sen2Cor.
        version: Version,
        /// What went wrong.
        failure: Box<Failure>,
        /// The last lines that Sen2Cor wrote, shortened and with ` | ` between them.
        last_lines: String,
        /// A file with everything that Sen2Cor wrote; `None` where it could not be written.
        log: Option<PathBuf>,
    },
    /// A program could not be started or watched.
    #[error("cannot run {}", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
}

/// How a run of Sen2Cor failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It ended with an exit code that is not 0.
    #[error("exit code {code}")]
    ExitCode {
        /// The code.
        code: i32,
    },
    /// Something else ended it.
    #[error("killed by signal {signal}{}", if *signal == 9 { " (by hand, or because memory ran out)" } else { "" })]
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// It took longer than [`Options::time_limit`](super::Options::time_limit) and was ended.
    #[error("not done within {} s, the time limit", limit.as_secs_f64())]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// It failed and had complained about memory, under [`Options::memory_limit`](super::Options::memory_limit).
    #[error("more memory needed than {limit} bytes, the memory limit")]
    MemoryLimit {
        /// The limit, bytes.
        limit: u64,
    },
    /// The caller of the run asked for its end.
    #[error("interrupted")]
    Interrupted,
    /// Exit code 0, but the last message on progress is not that of success.
    #[error("exit code 0, but no \"Application terminated successfully.\" at the end")]
    NotConfirmed,
    /// Exit code 0 and "Product already processed.", which cannot be in a fresh folder.
    #[error("it took the product for \"already processed\", in a fresh folder")]
    AlreadyProcessed,
    /// Success was claimed, and there is no L2A product.
    #[error("it claims success, but made no L2A product")]
    NoOutput,
    /// Success was claimed, and there is more than one L2A product.
    #[error("it made {} L2A products instead of one: {}", names.len(), names.join(", "))]
    SeveralOutputs {
        /// Their names.
        names: Vec<String>,
    },
    /// Success was claimed, and the product is not that of the input.
    #[error("its output {name} is not of the same {differs} as the input")]
    OtherProduct {
        /// The product's name.
        name: String,
        /// What differs.
        differs: &'static str,
    },
    /// Success was claimed, and the product cannot be opened.
    // The causes are part of the text: this is no source of an error, but what an error says.
    #[error(
        "its output cannot be opened: {error}{}",
        std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"))
    )]
    Unreadable {
        /// What is wrong with it.
        error: crate::Error,
    },
    /// Success was claimed, and an image is missing or empty.
    #[error("its output {name} has {problem}")]
    Incomplete {
        /// The product's name.
        name: String,
        /// Which image.
        problem: String,
    },
}
