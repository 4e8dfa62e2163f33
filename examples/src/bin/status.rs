//! Shows what a work folder holds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::cli::{Plain, run_plain};
use examples::status::status;
use examples::work::Work;

/// Shows the stages of every product in a work folder, what they take of the disk, and what is free.
///
/// A size alone is a stage that is current. "given" has no record: somebody else put it there, or `prepare` has not
/// verified it yet. "unfinished" is in work, or was left by a killed run. "freed" was there and was removed, by --keep or by hand. "damaged" and
/// "outdated" stages are made again by `prepare`; the reasons stand below the table. The last column is the state in the
/// list of offline products.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The work folder.
    dir: PathBuf,
    /// Print all of it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    plain: Plain,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run_plain(&args.plain, || {
        let status = status(&Work::open(&args.dir)?)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&status)?);
        } else {
            print!("{status}");
        }
        Ok(())
    })
}
