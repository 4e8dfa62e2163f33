//! From a work folder of archives to stacks, stage by stage: what is missing or outdated is made, the rest is left.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::DecimalBytes;
use s2_io::stage::{Input, Output, Record, disk_use, free_bytes};
use s2_io::{Algorithm, Checksum, Error, GeoTiff, Level, Product, unpack, unpacked_bytes, verify};

use crate::cli::{Interrupted, check_interrupt, make_folder};
use crate::input::{STACK, STATISTICS};
use crate::prepare::{NORMALISED, made_by, prepare, write_normalised};
use crate::work::{Item, MADE, Parameters, Stage, State, States, Work, inputs, parameters};

/// Pixels of a tile at 10 m, where a product does not tell.
const TILE_PIXELS: u64 = 10_980 * 10_980;
/// Samples of a stack: ten bands and SCL of two bytes.
const STACK_BYTES: u64 = 11 * 2;
/// Channels of a normalised raster: ten bands and twelve classes of four bytes.
const NORMALISED_BYTES: u64 = 22 * 4;
/// What compressed rasters take of their samples, overviews included, in percent. Guesses to the safe side: the bands of
/// products, with a better compression, take some 55 % of theirs, and overviews add a third; the classes of a
/// normalised raster take next to nothing.
const STACK_PERCENT: u64 = 80;
const NORMALISED_PERCENT: u64 = 60;
/// What Sen2Cor needs beside an L1C product, in percent of it: L2A products of the archive have some 150 %, its
/// temporary files are a guess.
const SEN2COR_PERCENT: u64 = 250;

/// What is to be made in a work folder, and what stays.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The stages that stay beside the last one; all of them without it.
    pub keep: Option<Vec<Stage>>,
    /// Whether the last stage is the normalised raster and not the stack.
    pub normalised: bool,
    /// Where Sen2Cor is.
    pub sen2cor: Option<PathBuf>,
    /// Its settings.
    pub gipp: Option<PathBuf>,
    /// The tiles that are looked at; all without any.
    pub tiles: Vec<String>,
    /// Whether nothing but errors is told.
    pub quiet: bool,
}

impl Options {
    fn last(&self) -> Stage {
        if self.normalised { Stage::Normalised } else { Stage::Stack }
    }

    fn keeps(&self, stage: Stage) -> bool {
        stage == self.last() || self.keep.as_ref().is_none_or(|keep| keep.contains(&stage))
    }

    /// Whether the archive of an L2A product is to be unpacked, which its stack does not need.
    fn unpacks(&self) -> bool {
        self.keep.as_ref().is_some_and(|keep| keep.contains(&Stage::L2a))
    }

    /// The parameters of Sen2Cor.
    fn sen2cor(&self) -> Result<Parameters> {
        let gipp = match &self.gipp {
            None => "default".to_owned(),
            Some(path) => {
                let failed = || format!("cannot read {}", path.display());
                let file = File::open(path).with_context(failed)?;
                Checksum::of(Algorithm::Sha3_256, file).with_context(failed)?.to_string()
            }
        };
        Ok(Parameters::from([("gipp".to_owned(), gipp)]))
    }
}

/// Makes the missing and outdated stages of all products of a work folder, one product after the other. A product that
/// fails is told in a line; it does not stop the others, but the whole fails at the end.
pub fn prepare_work(work: &Work, options: &Options) -> Result<()> {
    let mut items = work.items()?;
    let found = items.len();
    items.retain(|item| options.tiles.is_empty() || options.tiles.contains(&item.tile));
    if items.is_empty() {
        let of = if found == 0 { String::new() } else { format!(" of tile {}", options.tiles.join(", ")) };
        bail!("no product{of} in {}: `download` puts archives there", work.root().display());
    }
    let maker = Maker { work, options, parameters: options.sen2cor()? };
    check_space(work.root(), maker.forecast(&items), free_bytes(work.root())?)?;
    let (mut made, mut failed) = (0, 0);
    for item in &items {
        check_interrupt()?;
        match maker.finish(item) {
            Ok(stages) if stages.is_empty() => tracing::info!("{}: nothing to do", item.name),
            Ok(stages) => {
                made += 1;
                let names: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
                tracing::info!("{}: made {}", item.name, names.join(", "));
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                failed += 1;
                tracing::error!("{}: {error:#}", item.name);
            }
        }
    }
    tracing::info!(
        "{} products: {made} made, {} current, {failed} failed",
        items.len(),
        items.len() - made - failed
    );
    ensure!(failed == 0, "{failed} of {} products failed", items.len());
    Ok(())
}

/// Refuses work that the disk has no room for.
fn check_space(root: &Path, needed: u64, free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if needed > free => bail!(
            "{}: some {} are needed for the missing stages, {} are free; free some, choose fewer products with --tile, \
             or let --keep free stages on the way",
            root.display(),
            DecimalBytes(needed),
            DecimalBytes(free)
        ),
        _ => Ok(()),
    }
}

struct Maker<'a> {
    work: &'a Work,
    options: &'a Options,
    /// Those of Sen2Cor.
    parameters: Parameters,
}

impl Maker<'_> {
    /// Makes what a product lacks and frees what is not kept; returns what was made.
    fn finish(&self, item: &Item) -> Result<Vec<Stage>> {
        let _lock = self.lock(item)?;
        let mut item = item.clone();
        self.clean(&item)?;
        let mut made = Vec::new();
        loop {
            let states = self.states(&item)?;
            let Some(&stage) = self.missing(&item, &states)?.first() else {
                self.settle(&item, &states)?;
                return Ok(made);
            };
            ensure!(
                !made.contains(&stage),
                "its {stage} is not current after it was made: do its inputs change?"
            );
            if let State::Outdated(why) | State::Damaged(why) = &states[stage as usize].1 {
                tracing::info!("{}: {stage} is made again: {why}", item.name);
            }
            self.make(&mut item, stage, &states)?;
            made.push(stage);
            check_interrupt()?;
        }
    }

    /// Keeps other processes away from a product.
    fn lock(&self, item: &Item) -> Result<File> {
        let folder = self.work.root().join(".locks");
        make_folder(&folder)?;
        let path = folder.join(&item.name);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => bail!("another process works on it"),
            // Some network file systems know no locks.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    /// Removes what killed runs have left.
    fn clean(&self, item: &Item) -> Result<()> {
        for stage in Stage::ALL {
            for name in [Some(&item.name), item.l2a.as_ref()].into_iter().flatten() {
                remove(&self.work.part(stage, name))?;
                remove(&self.old(stage, name))?;
            }
        }
        Ok(())
    }

    /// Where an output is while it is removed, so that no half one is ever in its place.
    fn old(&self, stage: Stage, name: &str) -> PathBuf {
        self.work.root().join(stage.name()).join(format!(".{name}.old"))
    }

    fn states(&self, item: &Item) -> Result<States> {
        self.work.states(item, Some(&self.parameters))
    }

    /// The stages that have to be made, in their order.
    fn missing(&self, item: &Item, states: &States) -> Result<Vec<Stage>> {
        let state = |stage: Stage| &states[stage as usize].1;
        let usable = |stage: Stage| match stage {
            // Somebody else's archive is verified first.
            Stage::Archive => *state(stage) == State::Current,
            _ => state(stage).is_usable(),
        };
        let there = |stage: Stage| item.name_of(stage).is_some_and(|name| self.work.exists(stage, name));
        let mut wanted = vec![self.options.last()];
        if item.level == Level::L2A && self.options.unpacks() && there(Stage::Archive) {
            wanted.push(Stage::L2a);
        }
        let mut missing = Vec::new();
        for mut stage in wanted {
            while !usable(stage) && !missing.contains(&stage) {
                missing.push(stage);
                let from = inputs(item, stage).into_iter().map(|(from, _)| from);
                let from: Vec<_> = from.filter(|from| *from != stage).collect();
                // What is there is read; else the last one is made, and the archive is the last of all.
                let next = from.iter().copied().find(|from| usable(*from)).or(from.last().copied());
                match next {
                    Some(next) => stage = next,
                    None if there(Stage::Archive) => break,
                    None => bail!(
                        "nothing to make its {} of: {} is not there; download it again, or remove its records to forget it",
                        missing[0],
                        self.work.output(Stage::Archive, &item.name).display()
                    ),
                }
            }
        }
        missing.sort_unstable();
        Ok(missing)
    }

    /// The most that the disk needs at any time, bytes.
    fn forecast(&self, items: &[Item]) -> u64 {
        let (mut needed, mut freed, mut most) = (0_u64, 0_u64, 0_u64);
        for item in items {
            // What fails here fails again when its turn has come, and is told then.
            let Ok(states) = self.states(item) else { continue };
            let Ok(missing) = self.missing(item, &states) else { continue };
            let mut left = 0_u64;
            for &stage in &missing {
                let bytes = self.estimate(item, stage);
                needed = needed.saturating_add(bytes);
                if !self.options.keeps(stage) {
                    // An archive is there already.
                    let there = if stage == Stage::Archive { self.bytes(item, stage) } else { bytes };
                    left = left.saturating_add(there);
                }
            }
            most = most.max(needed.saturating_sub(freed));
            freed = freed.saturating_add(left);
            for (stage, state) in states {
                if state == State::Current && !self.options.keeps(stage) && !missing.contains(&stage) {
                    freed = freed.saturating_add(self.bytes(item, stage));
                }
            }
        }
        most
    }

    /// What a stage will take on disk, bytes.
    fn estimate(&self, item: &Item, stage: Stage) -> u64 {
        let percent = |bytes: u64, percent: u64| bytes / 100 * percent;
        let archive = self.work.output(Stage::Archive, &item.name);
        let unpacked = || unpacked_bytes(&archive).unwrap_or_else(|_| self.bytes(item, Stage::Archive));
        match stage {
            Stage::Archive => 0,
            Stage::L2a if item.level == Level::L1C => {
                let l1c = self.bytes(item, Stage::L1c);
                percent(if l1c > 0 { l1c } else { unpacked() }, SEN2COR_PERCENT)
            }
            Stage::L1c | Stage::L2a => unpacked(),
            Stage::Stack => percent(self.pixels(item) * STACK_BYTES, STACK_PERCENT),
            Stage::Normalised => percent(self.pixels(item) * NORMALISED_BYTES, NORMALISED_PERCENT),
        }
    }

    fn bytes(&self, item: &Item, stage: Stage) -> u64 {
        let path = item.name_of(stage).map(|name| self.work.output(stage, name));
        path.and_then(|path| disk_use(&path).ok().flatten()).unwrap_or(0)
    }

    fn pixels(&self, item: &Item) -> u64 {
        let grid = self.work.product(item).and_then(|product| product.grid(10).ok());
        let grid = grid.or_else(|| {
            let stack = self.work.output(Stage::Stack, item.l2a.as_deref()?).join(STACK);
            Some(*GeoTiff::open(stack).ok()?.grid())
        });
        grid.map_or(TILE_PIXELS, |grid| grid.height as u64 * grid.width as u64)
    }

    fn make(&self, item: &mut Item, stage: Stage, states: &States) -> Result<()> {
        if stage == Stage::Archive {
            return self.verify(&item.name);
        }
        let name = item.name_of(stage).unwrap_or(&item.name).to_owned();
        let part = self.work.part(stage, &name);
        make_folder(&part)?;
        let made = match stage {
            Stage::L2a if item.level == Level::L1C => self.correct(item, &part),
            Stage::Stack if states[Stage::L2a as usize].1.is_usable() => self.stack(item, Stage::L2a, &part),
            Stage::Stack => self.stack(item, Stage::Archive, &part),
            Stage::Normalised => self.normalise(item, &part),
            _ => self.unpack(&name, stage, &part),
        };
        if made.is_err() {
            remove(&part)?;
        }
        made
    }

    /// Compares an archive with its manifest, and notes that it fits.
    fn verify(&self, name: &str) -> Result<()> {
        let path = self.work.output(Stage::Archive, name);
        tracing::info!("{name}: verify the archive");
        match verify(&path) {
            Err(error @ Error::NoManifest { .. }) => tracing::warn!("{error}; it is taken as it is"),
            verified => drop(verified?),
        }
        let product = Product::open(&path)?;
        ensure!(product.name() == name, "{} holds {}: give it that name", path.display(), product.name());
        let mut record = self.started(Stage::Archive, name, &product);
        let (folder, file) = (self.work.root().join(Stage::Archive.name()), format!("{name}.SAFE.zip"));
        record.inputs.push(Input::of(&folder, &file)?);
        record.outputs.push(Output::of(&folder, &file)?);
        Ok(record.write(self.work.record(Stage::Archive, name))?)
    }

    fn unpack(&self, name: &str, stage: Stage, part: &Path) -> Result<()> {
        let archive = self.work.output(Stage::Archive, name);
        tracing::info!("{name}: unpack");
        let product = unpack(&archive, part)?;
        let safe = format!("{name}.SAFE");
        ensure!(product == part.join(&safe), "{} holds {}", archive.display(), product.display());
        let mut record = self.started(stage, name, &Product::open(&product)?);
        record.inputs.push(self.archive(name, &format!("../archive/{safe}.zip"))?);
        record.outputs.push(Output::of(part, &safe)?);
        self.place(stage, name, &product, Some(&record))?;
        remove(part)
    }

    /// Runs Sen2Cor. The product is linked to that of the input by its record.
    fn correct(&self, item: &mut Item, part: &Path) -> Result<()> {
        let l1c = self.work.output(Stage::L1c, &item.name);
        let (product, version) = run_sen2cor(&l1c, part, self.options)?;
        let file = product.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = file.trim_end_matches(".SAFE").to_owned();
        let mut record = self.started(Stage::L2a, &name, &Product::open(&product)?);
        record.parameters = self.parameters.clone();
        record.versions.insert("sen2cor".to_owned(), version);
        record.inputs.push(Input::of(part.parent().unwrap_or(part), &format!("../l1c/{}.SAFE", item.name))?);
        record.outputs.push(Output::of(part, &file)?);
        self.place(Stage::L2a, &name, &product, Some(&record))?;
        item.superseded.extend(item.l2a.replace(name));
        item.superseded.retain(|old| item.l2a.as_ref() != Some(old));
        remove(part)
    }

    fn stack(&self, item: &Item, from: Stage, part: &Path) -> Result<()> {
        let name = item.l2a.as_deref().unwrap_or(&item.name);
        let product = self.work.output(from, name);
        prepare(&product, part, false, self.options.quiet)?;
        let mut record = self.started(Stage::Stack, name, &Product::open(&product)?);
        record.inputs.push(match from {
            Stage::Archive => self.archive(name, &format!("../../archive/{name}.SAFE.zip"))?,
            _ => Input::of(part, &format!("../../l2a/{name}.SAFE"))?,
        });
        for file in [STACK, STATISTICS] {
            record.outputs.push(Output::of(part, file)?);
        }
        record.write(part.join(MADE))?;
        self.place(Stage::Stack, name, part, None)
    }

    fn normalise(&self, item: &Item, part: &Path) -> Result<()> {
        let name = item.l2a.as_deref().unwrap_or(&item.name);
        tracing::info!("{name}: normalise");
        write_normalised(&self.work.output(Stage::Stack, name), &part.join(NORMALISED))?;
        let mut record = self.begun(Stage::Normalised, name);
        for file in [STACK, STATISTICS] {
            record.inputs.push(Input::of(part, &format!("../../stack/{name}/{file}"))?);
        }
        record.outputs.push(Output::of(part, NORMALISED)?);
        record.write(part.join(MADE))?;
        self.place(Stage::Normalised, name, part, None)
    }

    fn begun(&self, stage: Stage, name: &str) -> Record {
        let mut record = Record::new(stage.name(), name);
        record.parameters = parameters(stage);
        record.versions.insert("programs".to_owned(), made_by());
        record
    }

    fn started(&self, stage: Stage, name: &str, product: &Product) -> Record {
        let mut record = self.begun(stage, name);
        record.versions.insert("baseline".to_owned(), product.baseline().to_string());
        record
    }

    /// An archive as an input, with the checksum that was made when it was verified.
    fn archive(&self, name: &str, path: &str) -> Result<Input> {
        let record = Record::read(self.work.record(Stage::Archive, name))?;
        let input = record.and_then(|record| record.inputs.into_iter().next());
        let mut input = input.ok_or_else(|| anyhow!("its archive was not verified"))?;
        path.clone_into(&mut input.path);
        Ok(input)
    }

    /// Puts what is whole into its place, instead of what was there.
    fn place(&self, stage: Stage, name: &str, made: &Path, record: Option<&Record>) -> Result<()> {
        let output = self.work.output(stage, name);
        if output.exists() {
            ensure!(
                self.work.record(stage, name).exists(),
                "{} is there already, without a record: move it away",
                output.display()
            );
            self.refuse_others(stage, &output)?;
            rename(&output, &self.old(stage, name))?;
        }
        if let Some(record) = record {
            record.write(self.work.record(stage, name))?;
        }
        rename(made, &output)?;
        remove(&self.old(stage, name))
    }

    /// Refuses to replace the folder of a stack with files that it was not made with.
    fn refuse_others(&self, stage: Stage, folder: &Path) -> Result<()> {
        if !matches!(stage, Stage::Stack | Stage::Normalised) {
            return Ok(());
        }
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && ![STACK, STATISTICS, NORMALISED, MADE].contains(&&*name) {
                bail!(
                    "{} is to be replaced, and {name} in it is none of its files: move that away",
                    folder.display()
                );
            }
        }
        Ok(())
    }

    /// Frees what is not kept of a product whose last stage is there, and notes the times of what was only touched.
    fn settle(&self, item: &Item, states: &States) -> Result<()> {
        for (stage, state) in states {
            let (Some(name), State::Current) = (item.name_of(*stage), state) else { continue };
            let path = self.work.record(*stage, name);
            if let Some(mut record) = Record::read(&path)?
                && record.note_times(path.parent().unwrap_or(&path))?
            {
                record.write(&path)?;
            }
        }
        let last = self.options.last();
        if states[last as usize].1 != State::Current {
            return Ok(());
        }
        for name in &item.superseded {
            for stage in [Stage::L2a, Stage::Stack, Stage::Normalised] {
                let record = self.work.record(stage, name);
                if record.exists() {
                    self.free(stage, name)?;
                    remove(&record)?;
                    // The folder of a stack goes when nothing else is in it.
                    let _ = fs::remove_dir(self.work.output(stage, name));
                }
            }
        }
        for (stage, state) in states {
            let Some(name) = item.name_of(*stage) else { continue };
            if self.options.keeps(*stage) || !self.work.exists(*stage, name) {
                continue;
            }
            if *state == State::Given {
                let path = self.work.output(*stage, name);
                tracing::info!(
                    "{}: {} stays: it has no record, so it is not ours",
                    item.name,
                    path.display()
                );
                continue;
            }
            let bytes = self.bytes(item, *stage);
            self.free(*stage, name)?;
            tracing::info!("{}: freed {stage}, {}", item.name, DecimalBytes(bytes));
        }
        Ok(())
    }

    /// Removes an output; its record stays.
    fn free(&self, stage: Stage, name: &str) -> Result<()> {
        let output = self.work.output(stage, name);
        match stage {
            Stage::Archive => remove(&output),
            Stage::L1c | Stage::L2a if output.exists() => {
                let old = self.old(stage, name);
                rename(&output, &old)?;
                remove(&old)
            }
            Stage::L1c | Stage::L2a => Ok(()),
            // The first one is what the output is known by.
            Stage::Stack => remove(&output.join(STACK)).and_then(|()| remove(&output.join(STATISTICS))),
            Stage::Normalised => remove(&output.join(NORMALISED)),
        }
    }
}

/// Makes an L2A product in a folder; its path, and the version of Sen2Cor.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn run_sen2cor(l1c: &Path, out: &Path, options: &Options) -> Result<(PathBuf, String)> {
    use std::ops::ControlFlow;

    use s2_io::sen2cor::{self, Sen2Cor};

    let program = Sen2Cor::find(options.sen2cor.as_deref())?;
    let settings = sen2cor::Options { gipp: options.gipp.clone(), ..sen2cor::Options::default() };
    tracing::info!("{}: Sen2Cor {}", l1c.display(), program.version());
    let bar = crate::cli::progress_bar(options.quiet, 100, "Sen2Cor");
    let made = program.run(l1c, out, &settings, &mut |progress| {
        bar.set_position(progress.percent as u64);
        if check_interrupt().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    bar.finish_and_clear();
    let product = made.map_err(|mut error| {
        // The folder goes, its log stays.
        if let sen2cor::Error::Failed { log: Some(log), .. } = &mut error
            && let (Some(folder), Some(name)) = (out.parent(), log.file_name())
            && let kept = folder.join(name)
            && fs::rename(&*log, &kept).is_ok()
        {
            *log = kept;
        }
        check_interrupt().err().unwrap_or_else(|| error.into())
    })?;
    Ok((product, program.version().to_string()))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn run_sen2cor(l1c: &Path, _out: &Path, _options: &Options) -> Result<(PathBuf, String)> {
    bail!("{}: Sen2Cor is run on Linux and macOS only: download the L2A product", l1c.display())
}

/// Removes a file or folder, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told_in_numbers() {
        let root = Path::new("work");
        check_space(root, 5, Some(5)).unwrap();
        check_space(root, u64::MAX, None).unwrap();
        let error = check_space(root, 3_000_000_000, Some(2_000_000_000)).unwrap_err().to_string();
        let words = "work: some 3.00 GB are needed for the missing stages, 2.00 GB are free; free some, ";
        assert!(error.starts_with(words), "{error}");
    }

    #[test]
    fn the_forecast_is_the_most_that_is_needed_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let archives = folder.path().join("archive");
        fs::create_dir(&archives).unwrap();
        for day in [1, 2] {
            let name = format!("S2A_MSIL1C_2020010{day}T112111_N0500_R037_T29RKH_20230425T050621.SAFE.zip");
            fs::write(archives.join(name), [0; 1000]).unwrap();
        }
        let forecast = |keep: Option<Vec<Stage>>, normalised| {
            let work = Work::open(folder.path()).unwrap();
            let options = Options { keep, normalised, ..Options::default() };
            let maker = Maker { work: &work, options: &options, parameters: Parameters::new() };
            maker.forecast(&work.items().unwrap())
        };
        let (l1c, l2a) = (1000, 2500);
        let stack = 10_980 * 10_980 * 22 / 100 * 80;
        let normalised = 10_980 * 10_980 * 88 / 100 * 60;
        assert_eq!(forecast(None, false), 2 * (l1c + l2a + stack), "all stay");
        assert_eq!(forecast(Some(vec![Stage::Archive]), false), 2 * stack + l1c + l2a, "the first is freed");
        assert_eq!(
            forecast(Some(vec![Stage::L1c]), true),
            2 * (l1c + normalised) + l2a + stack - 1000,
            "and its stack and archive, too"
        );
    }
}
