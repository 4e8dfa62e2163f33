//! From a place and some days to products, bands or stacks on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use geo_types::{Coord, LineString, MultiPolygon, Polygon};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use s2_io::net::{
    Account, Archive, Area, AssetKey, Catalog, Client, Credentials, Downloader, Entry, Error, Item, OData,
    OrderDriver, OrderState, ProductOrders, Progress, Query, Remote, RemoteProduct, RetryPolicy, Stac,
    WaitOnly, best,
};
use s2_io::{Band, Grid, Layer, Window};
use s2_normalize::{Radiometry, upsample_bilinear};
use s2_vector::{Utm, to_utm};
use serde::Deserialize;

use crate::cli::{check_interrupt, make_folder};
use crate::input::STACK;
use crate::prepare::{Origin, save};

/// Folder of the products as they come, below `--out`.
pub const ARCHIVE: &str = "archive";
/// Folder of single images.
pub const BANDS: &str = "bands";
/// Folder of stacks, one folder for each product.
pub const STACKS: &str = "stack";
/// The list of products that have to be restored first.
pub const OFFLINE: &str = "offline.json";
/// Edges of an area are bent in the map of a tile: so many points of each are looked at.
const POINTS_OF_EDGE: usize = 16;
/// Parts of a pixel that come from the way to degrees and back.
const ROUNDING: f64 = 1e-6;
/// What DN are divided by in all products that catalogues of GeoTIFFs offer.
const QUANTIFICATION: u32 = 10_000;

/// A catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Element 84: L2A as cloud optimized GeoTIFFs, no account.
    EarthSearch,
    /// Its Collection 1: baseline 05.00 and later, with checksums.
    EarthSearchC1,
    /// Microsoft: L2A as cloud optimized GeoTIFFs, no account.
    PlanetaryComputer,
    /// Copernicus Data Space: whole products, L1C and L2A, with an account.
    Cdse,
}

/// What to bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Whole products, as zip archives.
    Products,
    /// The bands of 10 and 20 m and SCL, each as it is.
    Bands,
    /// A stack of the area only, as `prepare` makes it of a whole tile.
    Area,
}

/// Other addresses and waits than the usual ones: of a mirror, or of a test.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Services {
    /// Host of CDSE's catalogue; `/odata/v1/Products` is added.
    pub catalogue: Option<String>,
    /// Host of CDSE's downloads; the same is added.
    pub download: Option<String>,
    /// Token endpoint of CDSE.
    pub identity: Option<String>,
    /// Root of the STAC API.
    pub stac: Option<String>,
    /// Limit of the first wait before a request is tried again, seconds.
    pub first_wait_s: Option<f64>,
    /// Limit of all waits, seconds.
    pub longest_wait_s: Option<f64>,
    /// Wait when an account has too many connections, seconds.
    pub busy_wait_s: Option<f64>,
    /// Time without a byte after which a connection is given up, seconds.
    pub idle_s: Option<f64>,
    /// Time between two questions for offline products, seconds.
    pub poll_s: Option<f64>,
}

impl Services {
    /// Reads a JSON file.
    pub fn load(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&json).with_context(|| format!("{} is not as it must be", path.display()))
    }
}

/// What a download needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to look for.
    pub query: Query,
    /// Where.
    pub source: Source,
    /// What to bring of it; `None` is what suits the source.
    pub what: Option<What>,
    /// The most products, the best first.
    pub limit: Option<usize>,
    /// Where to put them.
    pub out: PathBuf,
    /// Only say what there is.
    pub list: bool,
    /// Wait for offline products.
    pub watch: bool,
    /// Order them, too; else somebody does that by hand.
    pub order: bool,
    /// Files at once.
    pub connections: usize,
    /// Time for all of it.
    pub time_limit: Option<Duration>,
    /// Addresses and waits.
    pub services: Services,
    /// No progress.
    pub quiet: bool,
}

/// Reads the polygons of a `GeoJSON` file in longitude and latitude.
pub fn read_area(path: &Path) -> Result<Area> {
    let polygons: Vec<_> =
        s2_vector::read_geojson(path)?.features.into_iter().map(|feature| feature.polygon).collect();
    if polygons.is_empty() {
        bail!("{} has no polygon", path.display());
    }
    Ok(MultiPolygon(polygons))
}

/// Looks for products and brings them. Fails when one of them could not be brought, after trying all.
pub fn download(options: &Options) -> Result<()> {
    let client = Client::new(policy(options))?;
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Ctrl-C ends what waits for a server, too.
        scope.spawn(|| {
            while !finished.load(Ordering::Relaxed) {
                if check_interrupt().is_err() {
                    client.cancel();
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let outcome = search_and_bring(options, &client);
        finished.store(true, Ordering::Relaxed);
        check_interrupt()?;
        outcome
    })
}

fn policy(options: &Options) -> RetryPolicy {
    let usual = RetryPolicy::default();
    let services = &options.services;
    let wait = |given: Option<f64>, usual| given.map_or(usual, Duration::from_secs_f64);
    RetryPolicy {
        first_wait: wait(services.first_wait_s, usual.first_wait),
        longest_wait: wait(services.longest_wait_s, usual.longest_wait),
        busy_wait: wait(services.busy_wait_s, usual.busy_wait),
        idle_timeout: wait(services.idle_s, usual.idle_timeout),
        run_time: options.time_limit,
        ..usual
    }
}

fn search_and_bring(options: &Options, client: &Client) -> Result<()> {
    let (services, query) = (&options.services, &options.query);
    let what = options.what.unwrap_or(match options.source {
        Source::Cdse => What::Products,
        _ if query.area.is_some() => What::Area,
        _ => What::Bands,
    });
    let host = |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
    let odata = OData::at(
        client,
        &host(&services.catalogue, "https://catalogue.dataspace.copernicus.eu"),
        &host(&services.download, "https://download.dataspace.copernicus.eu"),
    );
    let stac = |stac: Stac| services.stac.as_ref().map_or(stac.clone(), |root| stac.at(root));
    let items = match options.source {
        Source::EarthSearch => stac(Stac::earth_search(client)).search(query)?,
        Source::EarthSearchC1 => stac(Stac::earth_search_c1(client)).search(query)?,
        Source::PlanetaryComputer => stac(Stac::planetary_computer(client)).search(query)?,
        Source::Cdse if what == What::Products => odata.search(query)?,
        Source::Cdse => stac(Stac::cdse(client)).search(query)?,
    };
    let mut items = best(items, query.area.as_ref());
    let found = items.len();
    items.truncate(options.limit.unwrap_or(found));
    if items.is_empty() {
        bail!(
            "no product meets the query: {} to {}, {}; try more days, more clouds (--max-cloud) or another source",
            query.from,
            query.to,
            query.level
        );
    }
    print!("{}", table(&items, query.area.as_ref()));
    if options.list {
        return Ok(());
    }
    let mut downloader = Downloader::new(client);
    let mut orders: Box<dyn OrderDriver> = Box::new(WaitOnly::new(&odata));
    if options.source == Source::Cdse {
        let credentials = Credentials::find()?;
        let account = match &services.identity {
            Some(identity) => Account::at(credentials, identity, &options.out.join(".account"))?,
            None => Account::new(credentials)?,
        };
        if options.order {
            orders = Box::new(ProductOrders::new(client, &odata, account.clone()));
        }
        downloader = downloader.with_account(account);
    }
    make_folder(&options.out)?;
    match what {
        What::Products => products(options, &downloader, &odata, &*orders, &items),
        What::Bands => bands(options, &downloader, &items),
        What::Area => areas(options, &downloader, &items),
    }
}

/// What was found, a line each.
fn table(items: &[Item], area: Option<&Area>) -> String {
    let mut text = format!("{:<62} {:>8} {:>6} {:>8}  {}\n", "product", "covers", "cloud", "size", "");
    for item in items {
        let covers = area.map_or(String::from("-"), |area| format!("{:.0} %", 100.0 * item.coverage(area)));
        let cloud = item.cloud_cover.map_or(String::from("-"), |cloud| format!("{cloud:.0} %"));
        let size = item.archive.as_ref().and_then(|archive| archive.size);
        let size = size.map_or(String::from("-"), |size| format!("{} MB", size.div_ceil(1_000_000)));
        let state = if item.online { "" } else { "offline" };
        let line = format!("{:<62} {covers:>8} {cloud:>6} {size:>8}  {state}", item.product);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One file to bring.
struct Job {
    name: String,
    remote: Remote,
    target: PathBuf,
}

/// Brings files, some at once, and returns how each ended.
fn bring(options: &Options, downloader: &Downloader, jobs: &[Job]) -> Vec<Result<(), Error>> {
    let bars = MultiProgress::new();
    if options.quiet {
        bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let style =
        ProgressStyle::with_template("{msg:>62} {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {eta:>5}")
            .expect("the template is valid");
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<BTreeMap<usize, Result<(), Error>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.connections.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { return };
                    let bar = bars.add(ProgressBar::new(job.remote.size.unwrap_or(0)));
                    bar.set_style(style.clone());
                    bar.set_message(job.name.clone());
                    let start = Instant::now();
                    let show = |progress: Progress| {
                        if let Some(total) = progress.total {
                            bar.set_length(total);
                        }
                        bar.set_position(progress.received);
                    };
                    let outcome = downloader.fetch(&job.remote, &job.target, &show);
                    bar.finish_and_clear();
                    bars.suspend(|| say(options, &job.name, &outcome, start.elapsed()));
                    let ended = outcome.map(drop);
                    outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(index, ended);
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect()
}

fn say(options: &Options, name: &str, outcome: &Result<s2_io::net::Fetched, Error>, took: Duration) {
    match outcome {
        Ok(_) if options.quiet => {}
        Ok(fetched) if fetched.was_there => println!("{name}: is there"),
        Ok(fetched) => {
            let size = u32::try_from(fetched.bytes / 1000).map_or(f64::INFINITY, f64::from) / 1000.0;
            let checked =
                fetched.checksum.as_ref().map_or("no checksum in the catalogue".to_owned(), |sum| {
                    format!("{} is right", sum.algorithm)
                });
            let rate = size / took.as_secs_f64().max(1e-3);
            println!("{name}: {size:.1} MB in {:.0} s ({rate:.1} MB/s), {checked}", took.as_secs_f64());
        }
        Err(Error::Interrupted) => {}
        Err(error) => eprintln!("failed: {name}: {:#}", Chain(error)),
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Whole products; those that are offline come on a list, and when they are restored.
fn products(
    options: &Options,
    downloader: &Downloader,
    catalogue: &OData,
    orders: &dyn OrderDriver,
    items: &[Item],
) -> Result<()> {
    let (client, folder) = (downloader.client(), options.out.join(ARCHIVE));
    make_folder(&folder)?;
    let list = Archive::open(folder.join(OFFLINE))?;
    let job = |product: &str, remote: &Remote| Job {
        name: product.to_owned(),
        remote: remote.clone(),
        target: folder.join(format!("{product}.SAFE.zip")),
    };
    let (mut jobs, mut waiting) = (Vec::new(), 0);
    for item in items {
        let archive = item.archive.as_ref();
        let archive =
            archive.ok_or_else(|| anyhow!("the catalogue offers no archive of {}", item.product))?;
        let job = job(&item.product, archive);
        if item.online || job.target.exists() {
            jobs.push(job);
        } else {
            list.add(client, item)?;
            waiting += 1;
        }
    }
    let mut failed = bring(options, downloader, &jobs).iter().filter(|outcome| outcome.is_err()).count();
    check_interrupt()?;
    if waiting > 0 && !options.watch {
        println!(
            "{waiting} products are offline and listed in {}: order them in the Data Workspace of \
             dataspace.copernicus.eu, then run the same command with --watch",
            folder.join(OFFLINE).display()
        );
    }
    if options.watch {
        failed += watch(options, downloader, catalogue, orders, &list, &job)?;
    }
    ended(failed)
}

/// Asks for the products of the list until all are here or given up; those that come online are brought at once.
fn watch(
    options: &Options,
    downloader: &Downloader,
    catalogue: &OData,
    orders: &dyn OrderDriver,
    list: &Archive,
    job: &dyn Fn(&str, &Remote) -> Job,
) -> Result<usize> {
    let client = downloader.client();
    let wait = Duration::from_secs_f64(options.services.poll_s.unwrap_or(600.0));
    loop {
        let entries = list.poll(client, orders)?;
        let online: Vec<_> = entries.iter().filter(|entry| entry.state == OrderState::Online).collect();
        let mut jobs = Vec::new();
        for entry in online {
            match catalogue.product(&entry.product)?.and_then(|item| item.archive) {
                Some(remote) => jobs.push(job(&entry.product, &remote)),
                None => {
                    list.settle(client, &entry.product, Err("the catalogue does not know it".to_owned()))?
                }
            }
        }
        for (job, outcome) in jobs.iter().zip(bring(options, downloader, &jobs)) {
            match outcome {
                // It may come back, or be cut off: it stays on the list.
                Err(
                    Error::Interrupted | Error::Budget { .. } | Error::GaveUp { .. } | Error::Offline { .. },
                ) => {}
                outcome => {
                    list.settle(client, &job.name, outcome.map_err(|error| Chain(&error).to_string()))?
                }
            }
        }
        check_interrupt()?;
        let entries = list.entries()?;
        let waits = |entry: &&Entry| !matches!(entry.state, OrderState::Downloaded | OrderState::Failed);
        let left = entries.iter().filter(waits).count();
        if left == 0 {
            return Ok(entries.iter().filter(|entry| entry.state == OrderState::Failed).count());
        }
        if !options.quiet {
            println!("{left} products are waited for; asking again in {:.0} s", wait.as_secs_f64());
        }
        let end = Instant::now() + wait;
        while Instant::now() < end {
            check_interrupt()?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn ended(failed: usize) -> Result<()> {
    if failed == 0 {
        return Ok(());
    }
    bail!("{failed} could not be brought (see above); the same command goes on with them")
}

/// The images that the network needs, one file each.
fn bands(options: &Options, downloader: &Downloader, items: &[Item]) -> Result<()> {
    let mut jobs = Vec::new();
    for item in items {
        let folder = options.out.join(BANDS).join(&item.product);
        for (layer, resolution_m) in layers() {
            let key = AssetKey { layer, resolution_m };
            let remote = item.assets.get(&key);
            let remote =
                remote.ok_or_else(|| anyhow!("the catalogue offers no {key} of {}", item.product))?;
            let ending = if remote.url.contains(".jp2") { "jp2" } else { "tif" };
            jobs.push(Job {
                name: format!("{} {key}", item.product),
                remote: remote.clone(),
                target: folder.join(format!("{key}.{ending}")),
            });
        }
    }
    ended(bring(options, downloader, &jobs).iter().filter(|outcome| outcome.is_err()).count())
}

/// The ten bands and SCL, with their resolutions.
fn layers() -> impl Iterator<Item = (Layer, u32)> {
    let bands = Band::TEN_AND_TWENTY.into_iter().map(|band| (Layer::Band(band), band.resolution_m()));
    bands.chain([(Layer::Scl, 20)])
}

/// A stack of the area from each item that has a part of it.
fn areas(options: &Options, downloader: &Downloader, items: &[Item]) -> Result<()> {
    let area = options.query.area.as_ref();
    let area = area.ok_or_else(|| anyhow!("which area? give --aoi or --bbox"))?;
    let mut failed = 0;
    for item in items {
        check_interrupt()?;
        let folder = options.out.join(STACKS).join(&item.product);
        if folder.join(STACK).exists() {
            println!("{}: is there", item.product);
            continue;
        }
        let start = Instant::now();
        match area_of(downloader, item, area, &folder) {
            Ok(Some(window)) => println!(
                "{}: {} x {} pixels in {:.0} s",
                item.product,
                window.height,
                window.width,
                start.elapsed().as_secs_f64()
            ),
            Ok(None) => println!("{}: its tile has nothing of the area", item.product),
            Err(error) => {
                check_interrupt()?;
                failed += 1;
                eprintln!("failed: {}: {error:#}", item.product);
            }
        }
    }
    ended(failed)
}

fn area_of(downloader: &Downloader, item: &Item, area: &Area, folder: &Path) -> Result<Option<Window>> {
    let offset = item.offset.context(
        "the catalogue does not tell the baseline, so it is not known whether the DN have an offset: take another source",
    )?;
    let product = RemoteProduct::new(downloader, item);
    let grid = product.grid()?;
    let Some(window) = window_of(area, &grid)? else { return Ok(None) };
    let layers: Vec<_> = layers().map(|(layer, _)| layer).collect();
    let stack = product.read_stack(&layers, window, upsample_bilinear)?;
    let origin = Origin {
        product: item.product.clone(),
        baseline: item.name.baseline.map_or_else(String::new, |baseline| baseline.to_string()),
        radiometry: [Radiometry { offset, quantification: QUANTIFICATION }; 10],
    };
    make_folder(folder)?;
    save(&origin, &stack.grid, &stack.data, folder)?;
    Ok(Some(window))
}

/// The pixels of a grid that hold an area; `None` when they have nothing in common.
fn window_of(area: &Area, grid: &Grid) -> Result<Option<Window>> {
    let epsg = grid.epsg.context("the images do not tell their coordinate system")?;
    let utm = Utm::from_epsg(epsg)?;
    let [x0, dx, _, y0, _, dy] = grid.transform;
    let (mut least, mut most) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for polygon in area {
        let outline = Polygon::new(dense(polygon.exterior()), Vec::new());
        for Coord { x, y } in &to_utm(&outline, utm).exterior().0 {
            for (axis, pixel) in [(y - y0) / dy, (x - x0) / dx].into_iter().enumerate() {
                least[axis] = least[axis].min(pixel);
                most[axis] = most[axis].max(pixel);
            }
        }
    }
    let range = |axis: usize, size: usize| {
        let clamp = |value: f64| num_of(value.clamp(0.0, u32::try_from(size).map_or(0.0, f64::from)));
        (clamp((least[axis] + ROUNDING).floor()), clamp((most[axis] - ROUNDING).ceil()))
    };
    let ((row, end_row), (col, end_col)) = (range(0, grid.height), range(1, grid.width));
    let window = Window { row, col, height: end_row - row, width: end_col - col };
    Ok((window.height > 0 && window.width > 0).then_some(window))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the size of a grid")]
fn num_of(value: f64) -> usize {
    value as usize
}

/// A ring with points between its corners.
fn dense(ring: &LineString<f64>) -> LineString<f64> {
    let steps = u32::try_from(POINTS_OF_EDGE).unwrap_or(1);
    ring.lines()
        .flat_map(|line| {
            (0..steps).map(move |step| line.start + line.delta() * (f64::from(step) / f64::from(steps)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use s2_io::net::area_of_bbox;

    use super::*;

    #[test]
    fn a_box_of_some_kilometres_is_a_window_of_as_many_pixels() {
        let grid = Grid {
            transform: [699_960.0, 10.0, 0.0, 3_300_000.0, 0.0, -10.0],
            epsg: Some(32629),
            height: 10_980,
            width: 10_980,
        };
        let utm = Utm::from_epsg(32629).unwrap();
        let (west, north) = utm.inverse(720_000.0, 3_280_000.0);
        let (east, south) = utm.inverse(734_500.0, 3_265_500.0);
        let window = window_of(&area_of_bbox([west, south, east, north]).unwrap(), &grid).unwrap().unwrap();
        // A box in degrees is a little larger than the square in metres whose corners it has.
        assert!((1960..=2004).contains(&window.col) && (1960..=2004).contains(&window.row), "{window:?}");
        assert!((1450..1550).contains(&window.width) && (1450..1550).contains(&window.height), "{window:?}");
        let elsewhere = area_of_bbox([west + 5.0, south, east + 5.0, north]).unwrap();
        assert_eq!(window_of(&elsewhere, &grid).unwrap(), None);
        let (west, north) = utm.inverse(690_000.0, 3_310_000.0);
        let corner = area_of_bbox([west, south, east, north]).unwrap();
        let window = window_of(&corner, &grid).unwrap().unwrap();
        assert_eq!((window.row, window.col), (0, 0), "clipped to the tile");
    }
}
