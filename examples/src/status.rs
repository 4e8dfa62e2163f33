//! What a work folder holds: every product's stages, and the disk that they use.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use indicatif::DecimalBytes;
use s2_io::net::{Archive, OrderState};
use s2_io::stage::{disk_use, free_bytes};
use s2_io::{Level, ProductName};
use serde::Serialize;

use crate::work::{Item, Stage, State, Work};

/// The list of offline products that `download` keeps beside the archives.
const OFFLINE: &str = "archive/offline.json";

/// What a work folder holds.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its products, by tile and then by time.
    pub products: Vec<ProductStatus>,
    /// What each stage takes of the disk.
    pub totals: Vec<Total>,
    /// What the disk has left, where the system tells.
    pub free_bytes: Option<u64>,
}

/// What is there of a product.
#[derive(Clone, Debug, Serialize)]
pub struct ProductStatus {
    /// MGRS tile.
    pub tile: String,
    /// Start of sensing, UTC: `"20200219T112111"`.
    pub sensing_time: String,
    /// `"L1C"` or `"L2A"`: what was downloaded.
    pub level: String,
    /// The name of what was downloaded.
    pub product: String,
    /// The name of its L2A product, once there is one.
    pub l2a: Option<String>,
    /// Its stages, in their order.
    pub stages: Vec<StageStatus>,
    /// How far it is on the list of offline products, if it is on it.
    pub offline: Option<OrderState>,
    /// Why its stages cannot be told.
    pub problem: Option<String>,
}

/// A stage of a product.
#[derive(Clone, Debug, Serialize)]
pub struct StageStatus {
    /// The stage.
    pub stage: Stage,
    /// `"absent"`, `"unfinished"`, `"current"`, `"given"` (without a record: not ours, or not verified yet), `"freed"`,
    /// `"damaged"` or `"outdated"`.
    pub state: &'static str,
    /// Why it is damaged or outdated.
    pub why: Option<String>,
    /// What it takes of the disk, with what an unfinished run has left.
    pub bytes: u64,
}

/// What a stage of all products takes of the disk.
#[derive(Clone, Debug, Serialize)]
pub struct Total {
    /// The stage.
    pub stage: Stage,
    /// Products that are there.
    pub products: usize,
    /// Bytes of its folder.
    pub bytes: u64,
}

/// Looks at a work folder; nothing is changed.
pub fn status(work: &Work) -> Result<Status> {
    let list = work.root().join(OFFLINE);
    let entries = if list.is_file() { Archive::open(list)?.entries()? } else { Vec::new() };
    let mut products = Vec::new();
    for item in work.items()? {
        let mut product = ProductStatus::new(&item.name, &item.tile, &item.sensing_time, item.level);
        product.offline = entries.iter().find(|entry| entry.product == item.name).map(|entry| entry.state);
        match stages(work, &item) {
            Ok(stages) => product.stages = stages,
            Err(error) => product.problem = Some(format!("{error:#}")),
        }
        product.l2a = item.l2a;
        products.push(product);
    }
    // What is waited for is not there yet.
    for entry in entries {
        if products.iter().any(|product| product.product == entry.product) {
            continue;
        }
        let Ok(name) = entry.product.parse::<ProductName>() else { continue };
        let tile = name.tile.unwrap_or_default();
        let product = ProductStatus::new(&entry.product, &tile, &name.sensing_time, name.level);
        products.push(ProductStatus { offline: Some(entry.state), ..product });
    }
    let key = |product: &ProductStatus| {
        (product.tile.clone(), product.sensing_time.clone(), product.product.clone())
    };
    products.sort_by_key(key);
    let mut totals = Vec::new();
    for (index, stage) in Stage::ALL.into_iter().enumerate() {
        let of_stage = products.iter().filter_map(|product| product.stages.get(index));
        totals.push(Total {
            stage,
            products: of_stage
                .filter(|stage| !matches!(stage.state, "absent" | "unfinished" | "freed"))
                .count(),
            bytes: disk_use(&work.root().join(stage.name()))?.unwrap_or(0),
        });
    }
    Ok(Status { products, totals, free_bytes: free_bytes(work.root())? })
}

fn stages(work: &Work, item: &Item) -> Result<Vec<StageStatus>> {
    let mut stages = Vec::new();
    for (stage, state) in work.states(item, None)? {
        let (state, why) = match state {
            State::Absent => ("absent", None),
            State::Unfinished => ("unfinished", None),
            State::Current => ("current", None),
            State::Given => ("given", None),
            State::Freed => ("freed", None),
            State::Damaged(why) => ("damaged", Some(why)),
            State::Outdated(why) => ("outdated", Some(why)),
        };
        let size = |path: &Path| disk_use(path).map(Option::unwrap_or_default);
        let name = item.name_of(stage);
        let output = name.map_or(Ok(0), |name| size(&work.output(stage, name)))?;
        let part = size(&work.part(stage, name.unwrap_or(&item.name)))?;
        // What is freed leaves its record.
        let bytes = if state == "freed" { 0 } else { output + part };
        stages.push(StageStatus { stage, state, why, bytes });
    }
    Ok(stages)
}

impl ProductStatus {
    fn new(product: &str, tile: &str, sensing_time: &str, level: Level) -> Self {
        Self {
            tile: tile.to_owned(),
            sensing_time: sensing_time.to_owned(),
            level: level.to_string(),
            product: product.to_owned(),
            l2a: None,
            stages: Vec::new(),
            offline: None,
            problem: None,
        }
    }
}

impl fmt::Display for StageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = DecimalBytes(self.bytes);
        let text = match self.state {
            "absent" => "-".to_owned(),
            "current" => size.to_string(),
            "freed" => "freed".to_owned(),
            state => format!("{size} {state}"),
        };
        f.pad(&text)
    }
}

/// A table with a line for each product, and the totals below it.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["tile", "sensing", "level"].map(str::to_owned).to_vec()];
        rows[0].extend(Stage::ALL.iter().map(ToString::to_string).chain(["offline".to_owned()]));
        for product in &self.products {
            let time = &product.sensing_time;
            let date = match (time.get(..4), time.get(4..6), time.get(6..8)) {
                (Some(year), Some(month), Some(day)) => format!("{year}-{month}-{day}"),
                _ => time.clone(),
            };
            let mut row = vec![product.tile.clone(), date, product.level.clone()];
            row.extend(product.stages.iter().map(ToString::to_string));
            row.resize(3 + Stage::ALL.len(), "-".to_owned());
            row.push(product.offline.map_or_else(|| "-".to_owned(), |state| state.to_string()));
            rows.push(row);
        }
        let mut total = vec!["total".to_owned(), String::new(), String::new()];
        total.extend(self.totals.iter().map(|total| DecimalBytes(total.bytes).to_string()));
        rows.push(total);

        let mut widths = vec![0; rows[0].len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.len().max(*width);
            }
        }
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for product in &self.products {
            let of_stage = |stage: &StageStatus| Some(format!("{}: {}", stage.stage, stage.why.as_ref()?));
            for why in product.problem.clone().into_iter().chain(product.stages.iter().filter_map(of_stage)) {
                writeln!(f, "{}: {why}", product.product)?;
            }
        }
        match self.free_bytes {
            Some(free) => writeln!(f, "{} free", DecimalBytes(free)),
            None => Ok(()),
        }
    }
}
