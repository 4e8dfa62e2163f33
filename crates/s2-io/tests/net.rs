//! Catalogues and downloads against a server on loopback that answers, and fails, as the services do.
#![cfg(feature = "net")]

mod common;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::shared;
use ndarray::{Array3, s};
use s2_io::net::{
    Account, Archive, Catalog, Client, Credentials, Downloader, Error, Fetched, HubOrders, Item, OData,
    OrderState, ProductOrders, Query, Remote, RemoteProduct, RetryPolicy, Stac, WaitOnly, area_of_bbox, best,
};
use s2_io::{Algorithm, Band, CogOptions, Grid, Layer, Level, Overviews, Window, ndarray, write_cog};
use serde_json::{Value, json};
use server::{FAULTS, Fault, PASSWORD, Product, Server, USER, archive};
use tempfile::TempDir;

const NAME: &str = "S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000";

/// Waits are short, so that the tests are.
fn client() -> Client {
    Client::new(RetryPolicy {
        first_wait: Duration::from_millis(4),
        longest_wait: Duration::from_millis(20),
        busy_wait: Duration::from_millis(30),
        idle_timeout: Duration::from_millis(300),
        ..RetryPolicy::default()
    })
    .unwrap()
}

struct Site {
    server: Server,
    folder: TempDir,
    client: Client,
}

impl Site {
    /// A server with one product of 200 kB.
    fn new() -> Self {
        let server = Server::start();
        server.lock().products.push(Product::new(0, NAME, archive(NAME, 200_000, 0)));
        Self { server, folder: tempfile::tempdir().unwrap(), client: client() }
    }

    fn account(&self, password: &str) -> Account {
        let state = self.folder.path().join("state");
        Account::at(Credentials::new(USER, password), &self.server.token_url(), &state).unwrap()
    }

    fn downloader(&self) -> Downloader {
        Downloader::new(&self.client).with_account(self.account(PASSWORD))
    }

    fn odata(&self) -> OData {
        OData::at(&self.client, &self.server.at("/catalogue"), &self.server.at("/download"))
    }

    /// What the catalogue knows of the product.
    fn remote(&self) -> Remote {
        self.odata().product(NAME).unwrap().unwrap().archive.unwrap()
    }

    fn target(&self) -> std::path::PathBuf {
        self.folder.path().join("archive").join(format!("{NAME}.SAFE.zip"))
    }

    fn fetch(&self) -> Result<Fetched, Error> {
        let remote = self.remote();
        self.downloader().fetch(&remote, &self.target(), &|_| {})
    }

    fn expected(&self) -> Vec<u8> {
        self.server.lock().products[0].archive.to_vec()
    }

    fn left(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder.path().join("archive")) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn query(level: Level, from: &str, to: &str) -> Query {
    Query::new(level, from.parse().unwrap(), to.parse().unwrap())
}

#[test]
fn a_product_is_brought_checked_and_not_brought_twice() {
    let site = Site::new();
    let fetched = site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), site.expected());
    assert_eq!(fetched.checksum.unwrap().algorithm, Algorithm::Md5);
    assert_eq!(site.left(), [format!("{NAME}.SAFE.zip")]);
    let again = site.fetch().unwrap();
    assert!(again.was_there && again.bytes == fetched.bytes, "it is there");
    assert_eq!((site.server.count("/download/"), site.server.lock().password_grants), (1, 1));
}

#[test]
fn every_failure_that_passes_is_survived() {
    for ranges in [false, true] {
        for fault in FAULTS {
            let site = Site::new();
            site.server.lock().ignores_ranges = !ranges;
            site.server.lock().faults = vec![fault];
            site.fetch().unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert_eq!(std::fs::read(site.target()).unwrap(), site.expected(), "{fault:?}");
            assert_eq!(site.server.count("/download/"), 2, "{fault:?}");
            // A cut costs no second time what was received where ranges work.
            let bytes = site.server.lock().bytes;
            if ranges && fault == Fault::Cut {
                assert!(bytes < 370_000, "{bytes} bytes");
            }
            let state = site.server.lock();
            let grants = (state.password_grants, state.refresh_grants);
            assert_eq!(grants, (1, usize::from(fault == Fault::TokenExpired)), "{fault:?}");
        }
    }
}

#[test]
fn what_another_run_received_is_used_if_the_file_is_the_same() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    let expected = site.expected();
    let part = site.target().with_file_name(format!("{NAME}.SAFE.zip.part"));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, &expected[..150_000]).unwrap();
    let before = site.server.lock().bytes;
    site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), expected);
    let bytes = site.server.lock().bytes - before;
    assert!(bytes < expected.len() - 150_000 + 3000, "{bytes} bytes: only the rest came");

    // The part is of something else: the checksum tells, and the file comes whole.
    std::fs::remove_file(site.target()).unwrap();
    std::fs::write(&part, vec![b'P'; 150_000]).unwrap();
    site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), expected);

    // More is there than the file has.
    std::fs::remove_file(site.target()).unwrap();
    std::fs::write(&part, vec![b'P'; 300_000]).unwrap();
    site.fetch().unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), expected);
}

#[test]
fn a_file_that_is_replaced_between_two_tries_is_not_mixed() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    // Nothing but the version tells: there is no checksum.
    let first: Vec<u8> = vec![b'a'; 100_000];
    site.server.lock().files.insert("/file.bin".into(), Arc::new(first.clone()));
    let remote = Remote::new(site.server.at("/file.bin"));
    let target = site.folder.path().join("file.bin");
    std::fs::write(target.with_file_name("file.bin.part"), &first[..40_000]).unwrap();
    let record = json!({ "url": remote.url, "validator": "\"v0\"" }).to_string();
    std::fs::write(target.with_file_name("file.bin.part.json"), record).unwrap();
    let second: Vec<u8> = vec![b'b'; 90_000];
    site.server.lock().files.insert("/file.bin".into(), Arc::new(second.clone()));
    site.server.lock().version = 1;
    let fetched = site.downloader().fetch(&remote, &target, &|_| {}).unwrap();
    assert_eq!((std::fs::read(&target).unwrap() == second, fetched.checksum), (true, None));
}

#[test]
fn a_wrong_checksum_is_told_and_leaves_nothing() {
    let site = Site::new();
    site.server.lock().products[0].md5 = Some("0".repeat(32));
    let error = site.fetch().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Damaged { .. }), "{text}");
    assert!(
        text.contains("its checksum is MD5 ") && text.contains("the catalogue says MD5 000000"),
        "{text}"
    );
    assert!(!site.target().exists(), "nothing stands at the target");
    assert_eq!(site.server.count("/download/"), 2, "it is tried once more only");
}

#[test]
fn an_archive_without_checksum_is_checked_by_its_content() {
    let site = Site::new();
    site.server.lock().products[0].md5 = None;
    let fetched = site.fetch().unwrap();
    assert_eq!(fetched.checksum, None);
    // One byte of a file in it differs: CRC and manifest tell.
    let site = Site::new();
    let mut bytes = site.expected();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    {
        let mut state = site.server.lock();
        state.products[0].md5 = None;
        state.products[0].archive = Arc::new(bytes);
    }
    let text = site.fetch().unwrap_err().to_string();
    assert!(text.contains("band.bin"), "{text}");
    assert!(!site.target().exists(), "nothing stands at the target");
}

#[test]
fn processes_and_threads_share_one_token_and_four_connections() {
    let site = Site::new();
    let names: Vec<_> =
        (0..12).map(|n| NAME.replace("20200219T14", &format!("202002{:02}T14", n + 10))).collect();
    for (number, name) in names.iter().enumerate() {
        site.server.lock().products.push(Product::new(number + 1, name, archive(name, 50_000, number)));
    }
    site.server.lock().latency = Duration::from_millis(10);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            // Each with an account of its own, as processes have.
            scope.spawn(|| {
                let downloader = Downloader::new(&site.client).with_account(site.account(PASSWORD));
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let remote = site.odata().product(name).unwrap().unwrap().archive.unwrap();
                    let target = site.folder.path().join("archive").join(format!("{name}.SAFE.zip"));
                    downloader.fetch(&remote, &target, &|_| {}).unwrap();
                }
            });
        }
    });
    let state = site.server.lock();
    assert_eq!((state.password_grants, state.refresh_grants), (1, 0));
    assert!((2..=4).contains(&state.most_connections), "{} connections", state.most_connections);
    assert_eq!(
        state.requests.iter().filter(|line| line.contains("/download/")).count(),
        12,
        "none was refused"
    );
}

#[test]
fn two_that_want_the_same_file_fetch_it_once() {
    let site = Site::new();
    site.server.lock().latency = Duration::from_millis(20);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| site.fetch().unwrap().was_there)).collect();
        let there = threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(()));
        assert_eq!(there.count(), 3);
    });
    assert_eq!(site.server.count("/download/"), 1);
    assert_eq!(site.left(), [format!("{NAME}.SAFE.zip")]);
}

#[test]
fn a_short_lived_token_is_renewed_in_time_and_kept_from_others() {
    let site = Site::new();
    site.server.lock().token_life_s = 1;
    let remote = site.remote();
    let downloader = site.downloader();
    for _ in 0..3 {
        downloader.fetch(&remote, &site.target(), &|_| {}).unwrap();
        std::fs::remove_file(site.target()).unwrap();
        std::thread::sleep(Duration::from_millis(800));
    }
    let grants = |state: &server::State| (state.password_grants, state.refresh_grants);
    assert_eq!(grants(&site.server.lock()), (1, 2));
    assert_eq!(site.server.count("/download/"), 3, "no token was refused");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(site.folder.path().join("state")).unwrap() {
        files.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    #[cfg(unix)]
    for file in files.iter().filter(|file| file.ends_with("token.json")) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "others cannot read it");
    }
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(PASSWORD) && !text.contains("horse"), "{}", file.display());
    }
}

#[test]
fn wrong_credentials_are_told_without_showing_them() {
    let site = Site::new();
    let remote = site.remote();
    let wrong = Downloader::new(&site.client).with_account(site.account("wrong horse"));
    let error = wrong.fetch(&remote, &site.target(), &|_| {}).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Credentials { .. }), "{text}");
    assert!(text.contains("Invalid user credentials") && !text.contains("horse"), "{text}");
    assert_eq!(site.server.lock().password_grants, 1, "a password that was refused is not tried again");
    let real = Remote::new("https://download.dataspace.copernicus.eu/odata/v1/Products(1)/$value");
    let text = Downloader::new(&site.client).fetch(&real, &site.target(), &|_| {}).unwrap_err().to_string();
    assert!(text.contains("CDSE_USERNAME"), "{text}");
}

#[test]
fn a_refusal_says_what_the_service_says() {
    let site = Site::new();
    let mut remote = site.remote();
    remote.url = remote.url.replace("000000000000)", "000000000099)");
    let error = site.downloader().fetch(&remote, &site.target(), &|_| {}).unwrap_err();
    assert!(matches!(error, Error::Refused { status: 404, .. }), "{error}");
    assert!(error.to_string().ends_with("answers 404: Product not found"), "{error}");
    assert_eq!(site.server.count("/download/"), 1);
}

#[test]
fn a_token_follows_a_redirection_but_not_to_strangers() {
    let site = Site::new();
    let other = Server::with(Arc::clone(&site.server.state));
    site.server.lock().download_host = Some(other.address.clone());
    let mut remote = site.remote();
    remote.url = remote.url.replace("/download/", "/catalogue/");
    site.downloader().fetch(&remote, &site.target(), &|_| {}).unwrap();
    assert_eq!(std::fs::read(site.target()).unwrap(), site.expected());

    // The same server under another name than that of this machine is a stranger.
    let stranger = other.address.replace("127.0.0.1", "localhost") + "/foreign";
    site.server.lock().download_host = Some(stranger);
    std::fs::remove_file(site.target()).unwrap();
    let _ = site.downloader().fetch(&remote, &site.target(), &|_| {});
    assert!(site.server.count("/foreign/") > 0, "it was asked");
    assert_eq!(site.server.lock().leaked, 0, "without the token");
}

#[test]
fn patience_ends_with_the_last_problem() {
    let site = Site::new();
    site.server.lock().faults = vec![Fault::Status(503); 100];
    let error = site.fetch().unwrap_err();
    assert!(matches!(error, Error::GaveUp { tries: 8, .. }), "{error}");
    assert!(error.to_string().contains("HTTP 503: try later"), "{error}");
    let policy =
        RetryPolicy { run_retries: 3, first_wait: Duration::from_millis(1), ..RetryPolicy::default() };
    let poor = Site { client: Client::new(policy).unwrap(), ..Site::new() };
    poor.server.lock().faults = vec![Fault::Status(503); 100];
    let error = poor.fetch().unwrap_err().to_string();
    assert!(error.contains("number of retries is used up"), "{error}");
    let policy = RetryPolicy { run_time: Some(Duration::from_millis(50)), ..RetryPolicy::default() };
    let late = Site { client: Client::new(policy).unwrap(), ..Site::new() };
    late.server.lock().faults = vec![Fault::TooMany; 100];
    let start = Instant::now();
    let error = late.fetch().unwrap_err().to_string();
    assert!(error.contains("time is used up") && error.contains("Max session number"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "it does not wait for what cannot come");
    let nobody = Remote::new("http://127.0.0.1:9/file.bin");
    let error =
        Downloader::new(&client()).fetch(&nobody, &site.folder.path().join("x"), &|_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[test]
fn a_run_is_cancelled_soon_and_goes_on_later() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    site.server.lock().faults = vec![Fault::Stall];
    let patient = RetryPolicy { idle_timeout: Duration::from_secs(60), ..RetryPolicy::default() };
    let first = Site { client: Client::new(patient).unwrap(), ..Site::new() };
    let downloader = Downloader::new(&first.client).with_account(site.account(PASSWORD));
    let remote = site.remote();
    let cancelled = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let progress = |progress: s2_io::net::Progress| {
            if progress.received > 90_000 && !cancelled.swap(true, Ordering::Relaxed) {
                let client = first.client.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(300));
                    client.cancel();
                });
            }
        };
        let target = site.target();
        let fetch =
            scope.spawn(move || downloader.fetch(&remote, &target, &progress).unwrap_err().to_string());
        assert_eq!(fetch.join().unwrap(), "interrupted");
    });
    assert!(start.elapsed() < Duration::from_secs(10), "not after the stalled connection timed out");
    let part = site.target().with_file_name(format!("{NAME}.SAFE.zip.part"));
    let there = std::fs::metadata(&part).unwrap().len();
    assert!(there > 90_000, "half of it is there: {there}");
    // The server counts what it sent once it sees that the connection is closed.
    std::thread::sleep(Duration::from_millis(500));
    let before = site.server.lock().bytes;
    site.fetch().unwrap();
    assert!(site.server.lock().bytes - before < 150_000, "only the rest came");
    assert_eq!(std::fs::read(site.target()).unwrap(), site.expected());
}

#[test]
fn a_long_answer_of_odata_is_read_to_its_end() {
    let site = Site::new();
    {
        let mut state = site.server.lock();
        state.products.clear();
        for number in 0..10_700 {
            let (day, second) = (number / 3600, number % 3600);
            let sensed = format!("202001{:02}T10{:02}{:02}", day + 1, second / 60, second % 60);
            let name = format!("S2A_MSIL2A_{sensed}_N0509_R037_T29RKH_20200219T140000");
            state.products.push(Product::new(number, &name, Vec::from([0; 40])));
        }
    }
    let mut all = query(Level::L2A, "2020-01-01", "2020-01-31");
    all.tiles = vec!["29RKH".to_owned()];
    let found = site.odata().search(&all).unwrap();
    assert_eq!(found.len(), 10_700);
    assert!(site.server.count("Products") < 20, "thousand by thousand");
    // The last day is searched to its end.
    let mut first = query(Level::L2A, "2020-01-01", "2020-01-01");
    first.tiles = vec!["T29RKH".to_owned()];
    assert_eq!(site.odata().search(&first).unwrap().len(), 3600);
    first.tiles = vec!["29RKJ".to_owned()];
    assert_eq!(site.odata().search(&first).unwrap().len(), 0);
}

#[test]
fn a_catalogue_that_answers_with_a_web_page_gives_one_line() {
    let site = Site::new();
    site.server.lock().maintenance = true;
    let mut all = query(Level::L2A, "2020-01-01", "2020-01-31");
    all.tiles = vec!["29RKH".to_owned()];
    for error in [
        site.odata().search(&all).unwrap_err(),
        Stac::earth_search(&site.client).at(&site.server.at("/es")).search(&all).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("a web page (\"Scheduled maintenance\") instead of data"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

fn feature(name: &str, cloud: f64) -> Value {
    json!({ "type": "Feature", "id": name, "properties": {
        "datetime": "2020-02-19T11:21:11.024Z", "eo:cloud_cover": cloud, "s2:product_uri": format!("{name}.SAFE"),
        "s2:processing_baseline": "05.09", "grid:code": "MGRS-29RKH" },
        "geometry": { "type": "Polygon", "coordinates": [[[-9, 29], [-8, 29], [-8, 30], [-9, 30], [-9, 29]]] },
        "assets": {} })
}

#[test]
fn pages_of_stac_are_followed_to_the_end() {
    let site = Site::new();
    for tile in 0..25 {
        let name = NAME.replace("29RKH", &format!("29R{}H", char::from(b'A' + tile)));
        site.server.lock().features.push(feature(&name, f64::from(tile)));
    }
    site.server.lock().page = 10;
    let mut all = query(Level::L2A, "2020-02-01", "2020-02-29");
    all.area = Some(area_of_bbox([-8.6, 29.2, -8.5, 29.3]).unwrap());
    for (stac, path) in [
        (Stac::earth_search(&site.client), "/es"),
        (Stac::planetary_computer(&site.client), "/pc"),
        (Stac::cdse(&site.client), "/cdse"),
    ] {
        let stac = stac.at(&site.server.at(path));
        assert_eq!(stac.search(&all).unwrap().len(), 25, "{path}");
        // What the service does not filter is filtered here.
        let few = Query { max_cloud: Some(5.0), ..all.clone() };
        assert_eq!(stac.search(&few).unwrap().len(), 6, "{path}");
        let orbit = Query { relative_orbit: Some(38), ..all.clone() };
        assert_eq!(stac.search(&orbit).unwrap().len(), 0, "{path}");
        let elsewhere = area_of_bbox([1.0, 1.0, 2.0, 2.0]).unwrap();
        assert_eq!(stac.search(&Query { area: Some(elsewhere), ..all.clone() }).unwrap().len(), 0, "{path}");
    }
    let l1c = query(Level::L1C, "2020-02-01", "2020-02-29");
    let l1c = Query { tiles: vec!["29RKH".to_owned()], ..l1c };
    let text = Stac::earth_search(&site.client).search(&l1c).unwrap_err().to_string();
    assert!(text.contains("ask cdse"), "{text}");
}

/// Serves recorded answers of a STAC catalogue.
fn recorded(stac: impl Fn(&Client) -> Stac, path: &Path) -> Vec<Item> {
    let site = Site::new();
    let answer: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let features = answer["features"].as_array().cloned().unwrap_or_else(|| vec![answer.clone()]);
    site.server.lock().features = features;
    let stac = stac(&site.client).at(&site.server.at("/es"));
    let world = area_of_bbox([-89.0, -80.0, 89.0, 80.0]).unwrap();
    let west = area_of_bbox([-179.0, -80.0, -1.0, 80.0]).unwrap();
    let mut items = Vec::new();
    for area in [world, west] {
        let all = Query { area: Some(area), ..query(Level::L2A, "2015-01-01", "2030-01-01") };
        items.extend(stac.search(&all).unwrap());
    }
    items.sort_by(|a, b| a.id.cmp(&b.id));
    items.dedup_by(|a, b| a.id == b.id);
    items
}

#[test]
fn recorded_answers_of_catalogues_are_understood() {
    let Some(folder) = shared() else { return };
    let folder = folder.join("api_fixtures");
    let urls = |item: &Item| item.assets.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let images = "B01_60m B02_10m B03_10m B04_10m B05_20m B06_20m B07_20m B08_10m B8A_20m B09_60m B11_20m B12_20m SCL_20m";

    let items = recorded(
        Stac::earth_search_c1,
        &folder.join("rustac/crates/server/data/sentinel-2/item-collection.json"),
    );
    assert_eq!(items.len(), 10);
    let item = items.iter().find(|item| item.id == "S2A_T13TDE_20240422T174753_L2A").unwrap();
    assert_eq!(item.product, "S2A_MSIL2A_20240422T173911_N0510_R098_T13TDE_20240423T004950");
    assert_eq!((urls(item).as_str(), item.offset, item.cloud_cover), (images, Some(-1000), Some(81.344_962)));
    let red = item.assets.iter().find(|(key, _)| key.to_string() == "B04_10m").unwrap().1;
    assert_eq!((red.size, red.checksums[0].algorithm), (Some(50_135_369), Algorithm::Sha256));
    assert!(red.url.ends_with("S2A_T13TDE_20240422T174753_L2A/B04.tif"), "{}", red.url);

    let items =
        recorded(Stac::planetary_computer, &folder.join("rustac/crates/core/data/two-sentinel-2-items.json"));
    assert_eq!(items.len(), 2);
    assert_eq!((urls(&items[0]).as_str(), items[0].offset), (images, Some(-1000)));
    let signed = items[0].assets.values().next().unwrap().signed_by.clone().unwrap();
    assert!(signed.ends_with("/sas/token/sentinel2l2a01/sentinel2-l2"), "{signed}");
    let old = folder.join("odc_stac_planetary/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json");
    let old = recorded(Stac::planetary_computer, &old);
    assert_eq!((old[0].offset, old[0].name.baseline.unwrap().to_string().as_str()), (Some(0), "02.12"));

    // The pixels of Earth Search's first collection have lost their offset, whatever is written beside them.
    let cassette = std::fs::read_to_string(
        folder.join("pystac_client_vcr/test_item_search/test_multiple_collections.yaml"),
    );
    let cassette = cassette.unwrap();
    assert!(cassette.contains("\"earthsearch:boa_offset_applied\":true"), "the recording has the flag");

    let site = Site::new();
    let answer = std::fs::read(folder.join("eodag/provider_responses/cop_dataspace_search.json")).unwrap();
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    answer["@odata.nextLink"] = Value::Null;
    site.server
        .lock()
        .files
        .insert("/recorded/odata/v1/Products".into(), Arc::new(answer.to_string().into_bytes()));
    let odata =
        OData::at(&site.client, &site.server.at("/recorded"), "https://download.dataspace.copernicus.eu");
    let all = Query { tiles: vec!["54PXA".to_owned()], ..query(Level::L1C, "2020-08-08", "2020-08-08") };
    let items = odata.search(&all).unwrap();
    let item = items.iter().find(|item| item.id == "05edf2bb-d103-49f1-a677-9e474138d84f").unwrap();
    assert_eq!(item.product, "S2A_MSIL1C_20200808T010311_N0500_R045_T54PXA_20230413T212505");
    assert!(
        item.online && item.cloud_cover.is_some_and(|cloud| (cloud - 95.136_736).abs() < 1e-5),
        "{item:?}"
    );
    let archive = item.archive.as_ref().unwrap();
    assert_eq!(
        archive.checksums.iter().map(|sum| sum.algorithm).collect::<Vec<_>>(),
        [Algorithm::Md5, Algorithm::Blake3]
    );
    assert!(
        archive.url.starts_with("https://download.dataspace.copernicus.eu/odata/v1/Products(05edf2bb"),
        "{archive:?}"
    );
    assert_eq!(item.footprint.0.len(), 1, "the footprint is read");
    assert_eq!(best(items.clone(), None).len(), best(items, all.area.as_ref()).len());
}

/// A band of noise as a cloud optimized GeoTIFF.
fn cog(folder: &Path, resolution: f64, size: usize, seed: u64) -> (Array3<u16>, Vec<u8>) {
    let mut state = seed;
    let data = Array3::from_shape_simple_fn((1, size, size), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (state >> 52) as u16
    });
    let grid = Grid {
        transform: [699_960.0, resolution, 0.0, 3_300_000.0, 0.0, -resolution],
        epsg: Some(32629),
        height: size,
        width: size,
    };
    let path = folder.join("band.tif");
    let options = CogOptions { nodata: Some(0.0), overviews: Overviews::Nearest, ..CogOptions::default() };
    write_cog(&path, data.view(), &grid, &options).unwrap();
    (data, std::fs::read(path).unwrap())
}

#[test]
fn a_window_costs_the_blocks_that_it_touches() {
    const FINE: usize = 5120;
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    let mut item = feature(NAME, 1.0);
    let mut bands = Vec::new();
    let mut layers = Vec::new();
    for (number, band) in Band::TEN_AND_TWENTY.into_iter().enumerate() {
        let resolution = band.resolution_m() as usize;
        let (data, bytes) = cog(site.folder.path(), resolution as f64, FINE * 10 / resolution, number as u64);
        let path = format!("/blob/sentinel2-l2/{band}.tif");
        item["assets"][band.name()] = json!({ "href": site.server.at(&path), "type": "image/tiff; application=geotiff; profile=cloud-optimized" });
        site.server.lock().files.insert(path, Arc::new(bytes));
        bands.push((resolution, data));
        layers.push(Layer::Band(band));
    }
    site.server.lock().features = vec![item];
    let stac = Stac::planetary_computer(&site.client).at(&site.server.at("/pc"));
    let all = Query { tiles: vec!["29RKH".to_owned()], ..query(Level::L2A, "2020-02-01", "2020-02-29") };
    let items = stac.search(&all).unwrap();
    let product = RemoteProduct::new(&Downloader::new(&site.client), &items[0]);
    assert_eq!(product.grid().unwrap().height, FINE);

    // The clock of this machine is an hour late: signatures live by the server's.
    site.server.lock().clock_ahead = 3600;
    let window = Window { row: 1111, col: 2222, height: 1450, width: 1450 };
    site.server.lock().bytes = 0;
    let repeat = |dn: ndarray::ArrayView2<'_, u16>| {
        ndarray::Array2::from_shape_fn((2 * dn.nrows(), 2 * dn.ncols()), |(row, col)| dn[[row / 2, col / 2]])
    };
    let stack = product.read_stack(&layers, window, repeat).unwrap();
    let moved = site.server.lock().bytes;
    let mut touched = 0;
    for (number, (resolution, data)) in bands.iter().enumerate() {
        let factor = resolution / 10;
        let expected = ndarray::Array2::from_shape_fn((1450, 1450), |(row, col)| {
            data[[0, (window.row + row) / factor, (window.col + col) / factor]]
        });
        assert_eq!(stack.data.slice(s![number, .., ..]), expected, "{}", layers[number]);
        // Blocks of 512 x 512; those of 20 m with one pixel around.
        let blocks = |start: usize, size: usize| (start + size).div_ceil(512) - start / 512;
        let (row, col, size) = (window.row / factor, window.col / factor, 1450 / factor);
        touched += blocks(row, size) * blocks(col, size) * 512 * 512 * 12 / 8;
    }
    let ratio = moved as f64 / touched as f64;
    assert!(ratio < 1.3, "{moved} bytes for {touched} in the blocks: {ratio:.2}");
    println!("{moved} bytes moved, {touched} in the touched blocks: {ratio:.2}");

    // A signature that the service takes back is replaced.
    site.server.lock().signatures.clear();
    product.read_stack(&layers[..1], Window { row: 3000, ..window }, repeat).unwrap();
    // A file that is replaced is not mixed with its old directory.
    site.server.lock().version = 1;
    let error = product.read_stack(&layers[..1], Window { row: 0, ..window }, repeat).unwrap_err();
    let text = common::chain(&error);
    assert!(text.contains("replaced meanwhile"), "{text}");
}

/// A list of three products that are offline for some polls.
fn offline(polls: usize) -> (Site, Archive) {
    let site = Site::new();
    site.server.lock().products.clear();
    for number in 0..3 {
        let name = NAME.replace("T14", &format!("T1{number}"));
        let mut product = Product::new(number, &name, archive(&name, 5000, number));
        product.offline_polls = Some(polls);
        site.server.lock().products.push(product);
    }
    let list = Archive::open(site.folder.path().join("orders").join("list.json")).unwrap();
    let all = Query { tiles: vec!["29RKH".to_owned()], ..query(Level::L2A, "2020-02-01", "2020-02-29") };
    for item in site.odata().search(&all).unwrap() {
        assert!(!item.online, "all are offline");
        list.add(&site.client, &item).unwrap();
        list.add(&site.client, &item).unwrap();
    }
    (site, list)
}

fn states(list: &Archive) -> Vec<OrderState> {
    list.entries().unwrap().into_iter().map(|entry| entry.state).collect()
}

#[test]
fn an_offline_product_is_ordered_once_and_waited_for() {
    let (site, list) = offline(3);
    let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Requested; 3]);
    assert!(list.entries().unwrap().iter().all(|entry| entry.order.is_some()), "the orders have numbers");
    site.server.lock().order_states.values_mut().for_each(|state| "in_progress".clone_into(state));
    // Another process goes on.
    let list = Archive::open(site.folder.path().join("orders").join("list.json")).unwrap();
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Staging; 3]);
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Online; 3]);
    assert_eq!(site.server.lock().orders.len(), 3, "each was ordered once");
    let first = list.entries().unwrap().remove(0);
    list.settle(&site.client, &first.product, Ok(())).unwrap();
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Downloaded, OrderState::Online, OrderState::Online]);
}

#[test]
fn several_processes_order_each_product_once() {
    let (site, list) = offline(100);
    site.server.lock().latency = Duration::from_millis(5);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
                list.poll(&site.client, &orders).unwrap();
            });
        }
    });
    assert_eq!(site.server.lock().orders.len(), 3);
    assert_eq!(states(&list), [OrderState::Requested; 3]);
}

#[test]
fn an_order_of_which_nobody_knows_is_not_placed_again() {
    let (site, list) = offline(3);
    // A process was killed while it ordered.
    let path = site.folder.path().join("orders").join("list.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"offline\"", "\"ordering\"", 1)).unwrap();
    let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
    for _ in 0..3 {
        list.poll(&site.client, &orders).unwrap();
    }
    assert_eq!(site.server.lock().orders.len(), 2, "the first was not ordered again");
    assert_eq!(states(&list), [OrderState::Online; 3]);
}

#[test]
fn an_order_that_is_cancelled_is_told() {
    let (site, list) = offline(100);
    let orders = ProductOrders::new(&site.client, &site.odata(), site.account(PASSWORD));
    list.poll(&site.client, &orders).unwrap();
    site.server.lock().order_states.values_mut().for_each(|state| "cancelled".clone_into(state));
    let entries = list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Failed; 3]);
    assert!(entries[0].problem.as_ref().unwrap().contains("is cancelled"), "{entries:?}");
}

#[test]
fn the_old_hub_orders_by_asking_and_its_quota_is_no_failure() {
    let (site, list) = offline(2);
    let credentials = Credentials::new(USER, PASSWORD);
    let orders = HubOrders::new(&site.client, &site.server.at("/dhus"), credentials);
    // Twenty orders of others: the quota is used up.
    site.server.lock().orders = vec![String::new(); 20];
    let entries = list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Offline; 3]);
    assert!(entries[0].problem.as_ref().unwrap().contains("quota exceeded"), "{entries:?}");
    assert_eq!(site.server.count("/dhus/"), 2, "nothing more is asked after that");
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(site.server.count("/dhus/"), 2, "nor for an hour");

    let (site, list) = offline(2);
    let orders = HubOrders::new(&site.client, &site.server.at("/dhus"), Credentials::new(USER, PASSWORD));
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Requested; 3]);
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Online; 3]);
    assert_eq!(site.server.lock().orders.len(), 3);
}

#[test]
fn a_product_that_is_ordered_by_hand_is_waited_for() {
    let (site, list) = offline(3);
    let orders = WaitOnly::new(&site.odata());
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Requested; 3]);
    list.poll(&site.client, &orders).unwrap();
    list.poll(&site.client, &orders).unwrap();
    assert_eq!(states(&list), [OrderState::Online; 3]);
    assert_eq!(site.server.lock().orders.len(), 0);
    std::fs::write(site.folder.path().join("orders").join("list.json"), "[]").unwrap();
    let error = list.entries().unwrap_err();
    assert!(common::chain(&error).contains("no list of orders"), "{error}");
}

#[test]
fn a_product_in_an_object_store_becomes_a_folder() {
    use object_store::ObjectStore;
    let site = Site::new();
    // The store is a local folder with an unpacked product in it.
    let root = site.folder.path().join("store");
    let packed = site.folder.path().join("packed.SAFE.zip");
    std::fs::write(&packed, site.expected()).unwrap();
    std::fs::create_dir_all(root.join("Sentinel-2")).unwrap();
    let source = s2_io::unpack(&packed, root.join("Sentinel-2")).unwrap();
    let store: Arc<dyn ObjectStore> =
        Arc::new(object_store::local::LocalFileSystem::new_with_prefix(&root).unwrap());
    let prefix = format!("Sentinel-2/{}", source.file_name().unwrap().to_str().unwrap());
    let target = site.folder.path().join("out").join(format!("{NAME}.SAFE"));
    // One file was cut off by an earlier run.
    let part = target.with_file_name(format!("{NAME}.SAFE.part")).join("GRANULE");
    std::fs::create_dir_all(&part).unwrap();
    let band = std::fs::read(source.join("GRANULE/band.bin")).unwrap();
    std::fs::write(part.join("band.bin.part"), &band[..70_000]).unwrap();
    let least = std::sync::Mutex::new(u64::MAX);
    let downloader = Downloader::new(&site.client);
    let progress = |progress: s2_io::net::Progress| {
        let mut least = least.lock().unwrap();
        *least = progress.received.min(*least);
    };
    downloader.fetch_folder(&store, &prefix, &target, &progress).unwrap();
    assert_eq!(std::fs::read(target.join("GRANULE/band.bin")).unwrap(), band);
    assert!(target.join("AUX_DATA").is_dir() && s2_io::verify(&target).is_ok(), "it is whole");

    // What differs from the manifest is not taken for a product.
    std::fs::write(source.join("GRANULE/band.bin"), vec![0; band.len()]).unwrap();
    let other = site.folder.path().join("other").join(format!("{NAME}.SAFE"));
    let error = downloader.fetch_folder(&store, &prefix, &other, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("band.bin") && !other.exists(), "{error}");
    let error = downloader.fetch_folder(&store, "nothing", &other, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("there is nothing at nothing"), "{error}");
}

#[test]
fn a_product_comes_from_s3_with_keys_of_its_own() {
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    let packed = site.folder.path().join("packed.SAFE.zip");
    std::fs::write(&packed, site.expected()).unwrap();
    let source = s2_io::unpack(&packed, site.folder.path()).unwrap();
    let root = format!("Sentinel-2/MSI/L2A/2020/02/19/{NAME}.SAFE");
    for file in ["manifest.safe", "MTD_MSIL2A.xml", "GRANULE/band.bin"] {
        let bytes = std::fs::read(source.join(file)).unwrap();
        site.server.lock().files.insert(format!("/eodata/{root}/{file}"), Arc::new(bytes));
    }
    // The catalogue names the folder.
    let item = site.odata().product(NAME).unwrap().unwrap();
    assert_eq!(item.folder.as_deref(), Some(&*format!("s3://eodata/Sentinel-2/MSI/{NAME}.SAFE")));
    let store = s2_io::net::eodata_at(&site.server.address, "key", "secret").unwrap();
    let target = site.folder.path().join("s3").join(format!("{NAME}.SAFE"));
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    Downloader::new(&site.client).fetch_folder(&store, &root, &target, &|_| {}).unwrap();
    assert!(s2_io::verify(&target).is_ok() && target.join("HTML").is_dir(), "it is whole");
    let stranger = s2_io::net::eodata_at(&site.server.address, "stranger", "secret").unwrap();
    let other = target.with_file_name("other.SAFE");
    let downloader = Downloader::new(&site.client);
    let text = downloader.fetch_folder(&stranger, &root, &other, &|_| {}).unwrap_err().to_string();
    assert!(text.contains("Access Denied") || text.contains("403"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
