//! Brings a file from a server, checks it, and says how long that took.
//!
//!     fetch URL OUT [--md5 HEX]
//!
//! It is written beside its place and renamed when it is whole; what was cut off goes on where it stopped.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use s2_io::net::{Client, Downloader, Remote, RetryPolicy};
use s2_io::{Algorithm, Checksum};

const USAGE: &str = "usage: fetch URL OUT [--md5 HEX]";

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut remote = Remote::new(arguments.next().ok_or(USAGE)?);
    let out = PathBuf::from(arguments.next().ok_or(USAGE)?);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => {}
        (Some("--md5"), Some(hex)) => {
            remote.checksums =
                vec![Checksum::from_hex(Algorithm::Md5, &hex).ok_or("32 hexadecimal digits, please")?];
        }
        _ => return Err(USAGE.into()),
    }
    let start = Instant::now();
    let fetched = Downloader::new(&Client::new(RetryPolicy::default())?).fetch(&remote, &out, &|_| {})?;
    let seconds = start.elapsed().as_secs_f64();
    // Linux alone tells the peak.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("not known").trim().to_owned();
    Ok(format!("{} bytes, peak {peak}, {seconds:.4} s", fetched.bytes))
}
