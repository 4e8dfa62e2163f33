//! The work folder: what every stage has left of every product, and what of it is current.
//!
//! ```text
//! DIR/archive/<name>.SAFE.zip          and its record <name>.SAFE.json: that it was verified
//! DIR/l1c/<name>.SAFE                  <name>.SAFE.json
//! DIR/l2a/<name>.SAFE                  <name>.SAFE.json, which links what Sen2Cor made to its L1C product
//! DIR/stack/<L2A name>/                stack.tif, statistics.json, made.json
//! DIR/normalised/<L2A name>/           normalised.tif, made.json
//! ```
//!
//! Each output is made in a hidden folder that ends in `.part`, and renamed when it is whole and its record is written.
//! So an output without a record is somebody else's: it is used, never replaced and never removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use s2_io::stage::Record;
use s2_io::{Band, Level, Product, ProductName};
use s2_normalize::Definition;

use crate::input::{SCL, STACK, STATISTICS, normalization};
use crate::prepare::NORMALISED;

/// A stage of the way from the archive to what the network gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The product as it was downloaded.
    Archive,
    /// An unpacked L1C product.
    L1c,
    /// An L2A product: what Sen2Cor made, or an unpacked one.
    L2a,
    /// Ten bands and SCL at 10 m, and their statistics.
    Stack,
    /// What the network gets.
    Normalised,
}

impl Stage {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 5] = [Self::Archive, Self::L1c, Self::L2a, Self::Stack, Self::Normalised];

    /// Its name, which is that of its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::L1c => "l1c",
            Self::L2a => "l2a",
            Self::Stack => "stack",
            Self::Normalised => "normalised",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is known of one stage of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was not made.
    Absent,
    /// It was begun: a process works on it, or was killed.
    Unfinished,
    /// It is there, whole and made of what is there.
    Current,
    /// It is there without a record: somebody else put it there. An archive of this state is not verified yet.
    Given,
    /// It was made and is gone, and what it was made of has not changed.
    Freed,
    /// It is not what was written, but what it was made of has not changed. The reason follows.
    Damaged(String),
    /// What it was made of has changed: what was made of it is outdated as well. The reason follows.
    Outdated(String),
}

impl State {
    /// Whether something can be made of it. Of an archive it is [`State::Current`] only.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Current | Self::Given)
    }
}

/// The states of a product's stages, in their order.
pub type States = [(Stage, State); 5];

/// A product with all that was made of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// The name of the first product, without `.SAFE`: what was downloaded.
    pub name: String,
    /// The level of that product.
    pub level: Level,
    /// Its MGRS tile, `"29RKH"`; empty where neither its name nor its metadata tell.
    pub tile: String,
    /// Start of sensing, UTC: `"20200219T112111"`.
    pub sensing_time: String,
    /// The name of the L2A product, once there is one.
    pub l2a: Option<String>,
    /// L2A products that Sen2Cor made before, which that one replaces.
    pub superseded: Vec<String>,
}

impl Item {
    /// The name of the product that a stage has; `None` for one that the product does not go through, or whose name is
    /// not known yet.
    #[must_use]
    pub fn name_of(&self, stage: Stage) -> Option<&str> {
        match (stage, self.level) {
            (Stage::Archive, _) | (Stage::L1c, Level::L1C) => Some(&self.name),
            (Stage::L1c, Level::L2A) => None,
            _ => self.l2a.as_deref(),
        }
    }
}

/// The work folder.
#[derive(Clone, Debug)]
pub struct Work {
    root: PathBuf,
}

impl Work {
    /// Opens a folder that exists.
    pub fn open(root: &Path) -> Result<Self> {
        ensure!(root.is_dir(), "{} is no folder: name the one that `download --out` made", root.display());
        Ok(Self { root: root.to_owned() })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a stage's output of a product lies.
    #[must_use]
    pub fn output(&self, stage: Stage, name: &str) -> PathBuf {
        let file = match stage {
            Stage::Archive => format!("{name}.SAFE.zip"),
            Stage::L1c | Stage::L2a => format!("{name}.SAFE"),
            Stage::Stack | Stage::Normalised => name.to_owned(),
        };
        self.root.join(stage.name()).join(file)
    }

    /// Where the record of that output lies.
    #[must_use]
    pub fn record(&self, stage: Stage, name: &str) -> PathBuf {
        match stage {
            Stage::Archive | Stage::L1c | Stage::L2a => {
                self.root.join(stage.name()).join(format!("{name}.SAFE.json"))
            }
            Stage::Stack | Stage::Normalised => self.output(stage, name).join(MADE),
        }
    }

    /// Where that output is while it is made.
    #[must_use]
    pub fn part(&self, stage: Stage, name: &str) -> PathBuf {
        self.root.join(stage.name()).join(format!(".{name}.part"))
    }

    /// Whether an output is there. A stack that was removed leaves its folder, with the record.
    #[must_use]
    pub fn exists(&self, stage: Stage, name: &str) -> bool {
        let output = self.output(stage, name);
        match stage {
            Stage::Archive | Stage::L1c | Stage::L2a => output.exists(),
            Stage::Stack => output.join(STACK).exists(),
            Stage::Normalised => output.join(NORMALISED).exists(),
        }
    }

    /// All products, by tile and then by time.
    pub fn items(&self) -> Result<Vec<Item>> {
        let mut names = BTreeSet::new();
        // Sen2Cor's products by the name of their L1C product, the newest at the end.
        let mut made: BTreeMap<String, Vec<(_, String)>> = BTreeMap::new();
        for stage in Stage::ALL {
            for file in files(&self.root.join(stage.name()))? {
                let ending = match stage {
                    Stage::Archive => ".SAFE.zip",
                    Stage::L1c | Stage::L2a => ".SAFE",
                    Stage::Stack | Stage::Normalised => "",
                };
                let record = file.strip_suffix(".SAFE.json").filter(|_| !ending.is_empty());
                let Some(name) = record.or_else(|| file.strip_suffix(ending)) else { continue };
                // Products lie in the folder of their level.
                let level = name.parse::<ProductName>().ok().map(|name| name.level);
                let fits = match stage {
                    Stage::Archive => level.is_some(),
                    Stage::L1c => level == Some(Level::L1C),
                    Stage::L2a => level == Some(Level::L2A),
                    Stage::Stack | Stage::Normalised => {
                        let holds = self.exists(stage, name) || self.record(stage, name).exists();
                        level == Some(Level::L2A) && holds
                    }
                };
                if !fits || name.contains('.') {
                    continue;
                }
                names.insert(name.to_owned());
                if stage == Stage::L2a
                    && record.is_some()
                    // One that cannot be read is told when the product's turn has come.
                    && let Ok(Some(record)) = Record::read(self.record(stage, name))
                    && let Some(l1c) = made_of(&record)
                    && l1c.parse::<ProductName>().is_ok()
                {
                    made.entry(l1c.to_owned()).or_default().push((record.made, name.to_owned()));
                }
            }
        }
        let of_sen2cor: BTreeSet<_> = made.values().flatten().map(|(_, name)| name.clone()).collect();
        names.extend(made.keys().cloned());
        let mut items = Vec::new();
        for name in names.difference(&of_sen2cor) {
            let parsed: ProductName = name.parse()?;
            let mut l2a = made.remove(name).unwrap_or_default();
            l2a.sort();
            let newest = l2a.pop().map(|(_, name)| name);
            let mut item = Item {
                name: name.clone(),
                level: parsed.level,
                tile: parsed.tile.clone().unwrap_or_default(),
                sensing_time: parsed.sensing_time,
                l2a: if parsed.level == Level::L2A { Some(name.clone()) } else { newest },
                superseded: l2a.into_iter().map(|(_, name)| name).collect(),
            };
            if item.tile.is_empty() {
                // Old names have none.
                item.tile = self.product(&item).map_or_else(String::new, |product| product.tile().to_owned());
            }
            items.push(item);
        }
        items.sort_by(|a, b| (&a.tile, &a.sensing_time, &a.name).cmp(&(&b.tile, &b.sensing_time, &b.name)));
        Ok(items)
    }

    /// The product itself, wherever it is.
    #[must_use]
    pub fn product(&self, item: &Item) -> Option<Product> {
        [Stage::L2a, Stage::L1c, Stage::Archive].into_iter().find_map(|stage| {
            let path = self.output(stage, item.name_of(stage)?);
            if path.exists() { Product::open(path).ok() } else { None }
        })
    }

    /// What is known of all stages of a product. `sen2cor` are the parameters that Sen2Cor would run with; without them
    /// those that it ran with are taken.
    pub fn states(&self, item: &Item, sen2cor: Option<&Parameters>) -> Result<States> {
        let mut states = Stage::ALL.map(|stage| (stage, State::Absent));
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            states[index].1 = self.state(item, stage, &states, sen2cor)?;
        }
        Ok(states)
    }

    fn state(
        &self,
        item: &Item,
        stage: Stage,
        before: &States,
        sen2cor: Option<&Parameters>,
    ) -> Result<State> {
        let part = match (stage, item.level) {
            (Stage::L2a, Level::L1C) => Some(&*item.name), // Sen2Cor has yet to choose a name
            _ => item.name_of(stage),
        };
        let absent = match part {
            Some(name) if self.part(stage, name).exists() => State::Unfinished,
            _ => State::Absent,
        };
        let Some(name) = item.name_of(stage) else { return Ok(absent) };
        let exists = self.exists(stage, name);
        let path = self.record(stage, name);
        let Some(record) = Record::read(&path)? else {
            return Ok(if exists { State::Given } else { absent });
        };
        let parameters = match (stage, sen2cor) {
            (Stage::L2a, None) => record.parameters.clone(),
            (Stage::L2a, Some(asked)) if item.level == Level::L1C => asked.clone(),
            _ => parameters(stage),
        };
        // An L2A product can lie in two places: the one that was read counts.
        let possible = inputs(item, stage);
        let of = |path: &str| record.inputs.iter().any(|input| input.path == path);
        let read = possible.iter().find(|(_, paths)| paths.iter().all(|path| of(path))).or(possible.first());
        let Some((from, paths)) = read else { return Ok(State::Given) };
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        let folder = path.parent().unwrap_or(&self.root);
        Ok(match record.change(folder, &paths, &parameters)? {
            Some(change) if !change.of_output() => State::Outdated(change.to_string()),
            // What it was made of may be gone, and have to be made again.
            _ if let Some((_, State::Outdated(_))) =
                before.iter().find(|(stage, _)| stage == from && *from != Stage::Archive) =>
            {
                State::Outdated(format!("its {from} is outdated"))
            }
            None => State::Current,
            Some(_) if !exists => State::Freed,
            Some(change) => State::Damaged(change.to_string()),
        })
    }
}

/// Parameters of a stage, by name.
pub type Parameters = BTreeMap<String, String>;

/// File name of the record of a stack or normalised raster.
pub const MADE: &str = "made.json";

/// The parameters of the stages that nothing can be chosen for.
#[must_use]
pub fn parameters(stage: Stage) -> Parameters {
    let normalization = || ("normalization".to_owned(), normalization(&Definition::default()));
    match stage {
        Stage::Archive | Stage::L1c | Stage::L2a => Parameters::new(),
        Stage::Stack => {
            let bands: Vec<_> = Band::TEN_AND_TWENTY.iter().map(|band| band.name()).chain([SCL]).collect();
            let resolution = ("resolution_m".to_owned(), "10".to_owned());
            Parameters::from([("bands".to_owned(), bands.join(" ")), resolution, normalization()])
        }
        Stage::Normalised => Parameters::from([normalization()]),
    }
}

/// What a stage can be made of: a stage, and its files relative to the record. The best comes first.
#[must_use]
pub fn inputs(item: &Item, stage: Stage) -> Vec<(Stage, Vec<String>)> {
    let name = &item.name;
    let l2a = item.l2a.as_deref().unwrap_or_default();
    match (stage, item.level) {
        (Stage::Archive, _) => vec![(Stage::Archive, vec![format!("{name}.SAFE.zip")])],
        (Stage::L1c, _) | (Stage::L2a, Level::L2A) => {
            vec![(Stage::Archive, vec![format!("../archive/{name}.SAFE.zip")])]
        }
        (Stage::L2a, Level::L1C) => vec![(Stage::L1c, vec![format!("../l1c/{name}.SAFE")])],
        (Stage::Stack, level) => {
            let mut possible = vec![(Stage::L2a, vec![format!("../../l2a/{l2a}.SAFE")])];
            if level == Level::L2A {
                possible.push((Stage::Archive, vec![format!("../../archive/{l2a}.SAFE.zip")]));
            }
            possible
        }
        (Stage::Normalised, _) => {
            let files = [STACK, STATISTICS].map(|file| format!("../../stack/{l2a}/{file}"));
            vec![(Stage::Stack, files.to_vec())]
        }
    }
}

/// The L1C product that an L2A product was made of.
fn made_of(record: &Record) -> Option<&str> {
    record.inputs.iter().find_map(|input| input.path.strip_prefix("../l1c/")?.strip_suffix(".SAFE"))
}

/// The names of the files and folders in a folder, which need not be there; hidden ones are left out.
fn files(folder: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot read {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.with_context(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with('.'));
    Ok(names)
}
