//! The program `download` as a shell runs it, against a server on loopback that answers, and fails, as the services do.

#[path = "../../crates/s2-io/tests/server/mod.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::s;
use s2_io::{Band, GeoTiff};
use serde_json::json;
use server::{PASSWORD, Product, Server, USER, archive, cog, noise};

/// A program beside a server; the waits are short.
struct Place {
    server: Server,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
        let services = json!({
            "catalogue": server.at("/catalogue"), "download": server.at("/download"), "identity": server.token_url(),
            "stac": server.at("/es"), "first_wait_s": 0.002, "longest_wait_s": 0.01, "busy_wait_s": 0.02,
            "idle_s": 0.3, "poll_s": 0.05,
        });
        fs::write(folder.path().join("services.json"), services.to_string()).unwrap();
        Self { server, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_download"));
        command
            .arg("--services")
            .arg(self.path("services.json"))
            .arg("--out")
            .arg(self.path("out"))
            .args(arguments)
            .env("CDSE_USERNAME", USER)
            .env("CDSE_PASSWORD", PASSWORD)
            .env_remove("RUST_LOG");
        command
    }

    /// The program, looking at February 2020.
    fn february(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.args(["--from", "2020-02-01", "--to", "2020-02-29"]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.february(arguments).output().unwrap()
    }

    /// Exit code 1 and one line that holds all the words.
    fn fails(&self, arguments: &[&str], words: &[&str]) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one line for the error: {text}");
        for word in words {
            assert!(errors[0].contains(word), "{word} is not in: {text}");
        }
        assert!(!text.contains(PASSWORD), "no password: {text}");
    }

    fn add(&self, number: usize, size: usize) -> String {
        let name = format!(
            "S2A_MSIL2A_202002{:02}T11{:02}{:02}_N0509_R037_T29RKH_20200301T140000",
            1 + number / 20,
            number % 20,
            number % 60
        );
        self.server.lock().products.push(Product::new(number, &name, archive(&name, size, number)));
        name
    }

    fn zip(&self, name: &str) -> PathBuf {
        self.path("out").join("archive").join(format!("{name}.SAFE.zip"))
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn products_of_a_tile_are_found_brought_and_not_brought_twice() {
    let place = Place::new();
    let names: Vec<_> = (0..3).map(|number| place.add(number, 50_000)).collect();
    let arguments = ["--source", "cdse", "--tile", "T29RKH", "--max-cloud", "20"];
    let output = place.run(&[&arguments[..], &["--list"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert!(names.iter().all(|name| text(&output).contains(name)), "{}", text(&output));
    assert!(!place.path("out").exists(), "only said");
    let output = place.run(&arguments);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("MD5 is right"), "{}", text(&output));
    for (number, name) in names.iter().enumerate() {
        assert_eq!(fs::read(place.zip(name)).unwrap(), *place.server.lock().products[number].archive);
    }
    let asked = place.server.count("/download/");
    let output = place.run(&arguments);
    assert!(output.status.success() && text(&output).matches("is there").count() == 3, "{}", text(&output));
    assert_eq!(place.server.count("/download/"), asked, "nothing was asked for again");
}

#[test]
fn a_command_that_cannot_work_says_why() {
    let place = Place::new();
    place.fails(&["--source", "cdse", "--tile", "29RK"], &["\"29RK\" is not an MGRS tile"]);
    place.fails(&["--source", "cdse", "--tile", "29RKH"], &["no product meets the query", "--max-cloud"]);
    place.fails(&["--bbox", "179,5,-179,6"], &["antimeridian"]);
    place.fails(&["--bbox", "3,5,2,4"], &["is empty"]);
    fs::write(place.path("empty.geojson"), r#"{"type":"FeatureCollection","features":[]}"#).unwrap();
    let aoi = place.path("empty.geojson");
    place.fails(&["--aoi", aoi.to_str().unwrap()], &["empty.geojson has no polygon"]);
    place.fails(&["--tile", "29RKH", "--level", "l1c"], &["ask cdse"]);
    place.server.lock().maintenance = true;
    place.fails(&["--source", "cdse", "--tile", "29RKH"], &["a web page (\"Scheduled maintenance\")"]);
    place.server.lock().maintenance = false;
    place.add(0, 1000);
    let mut without = place.february(&["--source", "cdse", "--tile", "29RKH"]);
    without.env_remove("CDSE_USERNAME").env_remove("CDSE_PASSWORD").env("NETRC", "/nonexistent");
    let output = without.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("error: downloads from the Copernicus Data Space want"),
        "{}",
        text(&output)
    );
    let output =
        place.february(&["--source", "cdse", "--tile", "29RKH"]).env("CDSE_PASSWORD", "no").output().unwrap();
    assert!(text(&output).contains("Invalid user credentials"), "{}", text(&output));
    let output = place.run(&["--source", "cdse"]);
    assert_eq!(output.status.code(), Some(2), "nothing says where: {}", text(&output));
}

#[test]
fn an_area_costs_its_blocks_and_becomes_a_stack() {
    const SIZE: usize = 2048;
    let place = Place::new();
    place.server.lock().ignores_ranges = false;
    let utm = s2_vector::Utm::from_epsg(32629).unwrap();
    let name = "S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000";
    let mut assets = serde_json::Map::new();
    let mut red = None;
    let keys =
        ["blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22"];
    let layers = Band::TEN_AND_TWENTY.into_iter().zip(keys).map(|(band, key)| (key, band.resolution_m()));
    for (number, (key, resolution)) in layers.chain([("scl", 20)]).enumerate() {
        let size = SIZE * 10 / resolution as usize;
        let mut noise = noise(number as u64);
        let sample = || if key == "scl" { 4 } else { 1000 + noise() };
        let (data, bytes) = cog(place.folder.path(), 700_000.0, f64::from(resolution), size, sample);
        let href = format!("/cogs/{key}.tif");
        assets.insert(
            key.to_owned(),
            json!({ "href": place.server.at(&href), "type": "image/tiff; application=geotiff; profile=cloud-optimized" }),
        );
        place.server.lock().files.insert(href, Arc::new(bytes));
        red = if key == "red" { Some(data) } else { red };
    }
    let corner = |x: f64, y: f64| {
        let (lon, lat) = utm.inverse(x, y);
        [lon, lat]
    };
    let outline = [
        corner(699_000.0, 3_301_000.0),
        corner(721_000.0, 3_301_000.0),
        corner(721_000.0, 3_279_000.0),
        corner(699_000.0, 3_279_000.0),
        corner(699_000.0, 3_301_000.0),
    ];
    place.server.lock().features = vec![json!({ "type": "Feature", "id": "S2A_29RKH_20200219_0_L2A",
        "geometry": { "type": "Polygon", "coordinates": [outline] }, "assets": assets,
        "properties": { "datetime": "2020-02-19T11:21:11Z", "eo:cloud_cover": 1.0, "s2:product_uri": format!("{name}.SAFE"),
            "s2:processing_baseline": "05.09", "grid:code": "MGRS-29RKH", "earthsearch:boa_offset_applied": true } })];
    // Half a square of four kilometres; its edges are straight in degrees, so bent by less than a pixel here.
    let area = [(705_005.0, 3_294_995.0), (708_995.0, 3_294_995.0), (708_995.0, 3_291_005.0)];
    let area: Vec<_> = area.into_iter().cycle().take(4).map(|(x, y)| corner(x, y)).collect();
    let aoi = place.path("box.geojson");
    let geojson = json!({ "type": "FeatureCollection", "features": [{ "type": "Feature", "properties": {},
        "geometry": { "type": "Polygon", "coordinates": [area] } }] });
    fs::write(&aoi, geojson.to_string()).unwrap();

    let output = place.run(&["--aoi", aoi.to_str().unwrap(), "--source", "earth-search"]);
    assert!(output.status.success(), "{}", text(&output));
    let folder = place.path("out").join("stack").join(name);
    let stack = GeoTiff::open(folder.join("stack.tif")).unwrap();
    assert_eq!(stack.grid().transform, [705_000.0, 10.0, 0.0, 3_295_000.0, 0.0, -10.0]);
    let samples = stack.read::<u16>().unwrap().data;
    assert_eq!(samples.dim(), (11, 400, 400));
    assert_eq!(samples.slice(s![2, .., ..]), red.unwrap().slice(s![0, 500..900, 500..900]), "the red band");
    assert!(samples.slice(s![10, .., ..]).iter().all(|class| *class == 4), "SCL is behind the bands");
    // Earth Search has subtracted the offset already: it is not subtracted twice.
    assert!((stack.scale_offset(0).1).abs() < f64::EPSILON, "no offset");
    let statistics = fs::read_to_string(folder.join("statistics.json")).unwrap();
    assert!(statistics.contains("\"offset\": 0"), "{statistics}");
    let again = place.run(&["--aoi", aoi.to_str().unwrap(), "--source", "earth-search"]);
    assert!(text(&again).contains(&format!("{name}: is there")), "{}", text(&again));
}

#[test]
fn offline_products_are_listed_and_brought_when_they_are_restored() {
    let place = Place::new();
    let names: Vec<_> = (0..3).map(|number| place.add(number, 2000)).collect();
    for (number, polls) in [(0, Some(3)), (2, None)] {
        place.server.lock().products[number].offline_polls = polls;
    }
    let arguments = ["--source", "cdse", "--tile", "29RKH"];
    let output = place.run(&arguments);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("2 products are offline and listed in"), "{}", text(&output));
    assert!(!place.zip(&names[0]).exists() && place.zip(&names[1]).exists(), "{}", text(&output));
    let mut watching = place.february(&[&arguments[..], &["--watch"]].concat());
    let mut watching = watching.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(|| place.zip(&names[0]).exists());
    assert!(watching.try_wait().unwrap().is_none(), "it waits for the other one");
    end(&mut watching);
    assert_eq!(place.server.lock().orders.len(), 0, "who waits does not order");
    place.server.lock().products[2].offline_polls = Some(0);
    let output = place.run(&[&arguments[..], &["--watch"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert!(names.iter().all(|name| place.zip(name).exists()), "{}", text(&output));
    let list = fs::read_to_string(place.path("out").join("archive").join("offline.json")).unwrap();
    assert_eq!(list.matches("\"downloaded\"").count(), 2, "{list}");
}

#[test]
fn offline_products_are_ordered_once_where_the_service_takes_orders() {
    let place = Place::new();
    let name = place.add(0, 2000);
    place.server.lock().products[0].offline_polls = Some(8);
    let arguments = ["--source", "cdse", "--tile", "29RKH", "--watch", "--order"];
    let mut killed = place.february(&arguments);
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(|| !place.server.lock().orders.is_empty());
    end(&mut killed);
    let output = place.run(&arguments);
    assert!(output.status.success() && place.zip(&name).exists(), "{}", text(&output));
    assert_eq!(place.server.lock().orders.len(), 1, "one order, though the program was killed");
}

/// All files below a folder.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { tree(&path) } else { vec![path] }).collect()
}

#[test]
fn from_a_catalogue_to_a_stack_with_two_commands() {
    let place = Place::new();
    let product = examples::scene::write_scene(&place.path("scene"), 384, 1, &|_| Ok(())).unwrap().product;
    let name = product.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for file in tree(&product) {
        let member = file.strip_prefix(product.parent().unwrap()).unwrap();
        zip.start_file(member.to_str().unwrap(), stored).unwrap();
        std::io::Write::write_all(&mut zip, &fs::read(&file).unwrap()).unwrap();
    }
    let archive = zip.finish().unwrap().into_inner();
    place.server.lock().products.push(Product::new(0, &name, archive));
    let (day, tile) = (name.split('_').nth(2).unwrap(), name.split('_').nth(5).unwrap());
    let day = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..8]);
    let mut download = place.command(&["--source", "cdse", "--tile", tile]);
    let output = download.args(["--from", &day, "--to", &day]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let mut prepare = Command::new(env!("CARGO_BIN_EXE_prepare"));
    let output = prepare.args(["--device", "cpu", "--work"]).arg(place.path("out")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let stack = GeoTiff::open(place.path("out").join("stack").join(&name).join("stack.tif")).unwrap();
    assert_eq!((stack.num_bands(), stack.grid().height), (11, 384));
    let output = Command::new(env!("CARGO_BIN_EXE_status")).arg(place.path("out")).output().unwrap();
    assert!(output.status.success() && text(&output).contains(&tile[1..]), "{}", text(&output));
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// 200 products, a fifth of the requests fails in some way, some products never are as the catalogue says, some are
/// offline at first, and the program is killed five times.
#[test]
fn two_hundred_products_arrive_whatever_happens() {
    const PRODUCTS: usize = 200;
    const WRONG: [usize; 2] = [17, 93];
    const GONE: usize = 120;
    const OFFLINE: [usize; 4] = [5, 50, 150, 199];
    let place = Place::new();
    let names: Vec<_> =
        (0..PRODUCTS).map(|number| place.add(number, 2000 + (number * 7919) % 400_000)).collect();
    {
        let mut state = place.server.lock();
        state.failures_of_1000 = 200;
        state.latency = Duration::from_millis(2);
        for number in WRONG {
            state.products[number].md5 = Some("0".repeat(32));
        }
        for number in OFFLINE {
            state.products[number].offline_polls = Some(4);
        }
        let gone = state.products[GONE].id.clone();
        state.gone.insert(gone);
    }
    let arguments = ["--source", "cdse", "--tile", "29RKH", "--watch", "--quiet"];
    let archives = place.path("out").join("archive");
    let whole = |folder: &Path| names_in(folder).iter().filter(|name| name.ends_with(".zip")).count();
    for kill in 1..=5 {
        let mut child = place.february(&arguments);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until(|| {
            archives.exists() && whole(&archives) >= kill * 30 || child.try_wait().unwrap().is_some()
        });
        end(&mut child);
        // Whatever stands there is whole, at any time.
        for (number, name) in names.iter().enumerate().filter(|(_, name)| place.zip(name).exists()) {
            let archive = Arc::clone(&place.server.lock().products[number].archive);
            assert_eq!(fs::read(place.zip(name)).unwrap(), *archive, "{name}");
        }
    }
    let output = place.run(&arguments);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "some cannot be brought: {text}");
    for (number, name) in names.iter().enumerate() {
        let reported = text.lines().find(|line| line.starts_with("failed: ") && line.contains(name.as_str()));
        if WRONG.contains(&number) {
            assert!(
                reported.is_some_and(|line| line.contains("the catalogue says MD5 0000")),
                "{name}: {text}"
            );
        } else if number == GONE {
            assert!(reported.is_some_and(|line| line.contains("404: Product not found")), "{name}: {text}");
        } else {
            let archive = Arc::clone(&place.server.lock().products[number].archive);
            assert!(fs::read(place.zip(name)).is_ok_and(|bytes| bytes == *archive), "{name}: {text}");
        }
    }
    assert_eq!(whole(&archives), PRODUCTS - 3);
    let state = place.server.lock();
    assert!(state.most_connections <= 4, "{} connections", state.most_connections);
    let tokens = state.password_grants + state.refresh_grants;
    // One, one for each that the server took back, and one for each process that was killed while it got one.
    assert!(tokens <= 1 + state.tokens_lost + 5, "{tokens} tokens, {} were lost", state.tokens_lost);
    let downloads = state.requests.iter().filter(|line| line.contains("/download/")).count();
    println!(
        "{downloads} downloads for {PRODUCTS} products, {tokens} tokens ({} taken back), at most {} connections",
        state.tokens_lost, state.most_connections
    );
}
