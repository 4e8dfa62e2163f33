//! Files behind an HTTP server on loopback: the same pixels as on disk, for few requests and few bytes.
#![cfg(feature = "net")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::{SMALL, SMALL_IMAGES, chain, own, part};
use ndarray::Array3;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use s2_io::{CogOptions, GeoTiff, Grid, Overviews, RemoteFile, Source, Window, ndarray, read_jp2, write_cog};

/// What the server has, how it behaves, and what was asked of it.
#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// Changes when a file is replaced.
    version: u32,
    /// Answers with the whole file, whatever was asked for.
    ignores_ranges: bool,
    requests: Vec<(usize, usize)>,
}

struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { address, state }
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let options = ClientOptions::new().with_allow_http(true);
        let builder =
            HttpBuilder::new().with_url(&self.address).with_client_options(options).with_retry(retry);
        Arc::new(builder.build().unwrap())
    }

    fn add(&self, name: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(name.to_owned(), bytes);
    }

    /// Requests and bytes since the last call.
    fn asked(&self) -> (usize, usize) {
        let requests = std::mem::take(&mut self.state.lock().unwrap().requests);
        (requests.len(), requests.iter().map(|(start, end)| end - start).sum())
    }

    fn open(&self, name: &str) -> std::io::Result<RemoteFile> {
        RemoteFile::open(self.store(), &Path::from(name))
    }
}

/// Answers the requests of a connection.
fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let name = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
        let (mut range, mut if_match) = (None, None);
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let (key, value) = line.split_once(": ").unwrap();
            match key.to_ascii_lowercase().as_str() {
                "range" => {
                    let (start, last) = value.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                    range = Some((start.parse::<usize>().unwrap(), last.parse::<usize>().unwrap() + 1));
                }
                "if-match" => if_match = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut state = state.lock().unwrap();
        let e_tag = format!("\"{}\"", state.version);
        let (status, extra, body) = match (state.files.get(&name), range) {
            (None, _) => ("404 Not Found", String::new(), Vec::new()),
            _ if if_match.is_some_and(|asked| asked != e_tag) => {
                ("412 Precondition Failed", String::new(), Vec::new())
            }
            (Some(file), Some((start, end))) if !state.ignores_ranges && start < file.len() => {
                let end = end.min(file.len());
                let extra = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, file.len());
                let body = file[start..end].to_vec();
                state.requests.push((start, end));
                ("206 Partial Content", extra, body)
            }
            (Some(_), Some(_)) if !state.ignores_ranges => {
                ("416 Range Not Satisfiable", String::new(), Vec::new())
            }
            (Some(file), _) => ("200 OK", String::new(), file.clone()),
        };
        drop(state);
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: {e_tag}\r\n{extra}\r\n", body.len());
        let mut out = stream;
        if out.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// Noise, which does not shrink: a block of 128 x 128 has 64 KiB.
fn noise() -> Array3<u16> {
    let mut state = 1_u64;
    Array3::from_shape_simple_fn((2, 1000, 900), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u16::try_from(state >> 48).unwrap()
    })
}

const BLOCK: usize = 128 * 128 * 2 * 2;

fn cog() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.tif");
    let transform = [199_980.0, 10.0, 0.0, 3_400_020.0, 0.0, -10.0];
    let grid = Grid { height: 1000, width: 900, transform, epsg: Some(32629) };
    let options = CogOptions { block_size: 128, overviews: Overviews::Average, ..CogOptions::default() };
    write_cog(&path, noise().view(), &grid, &options).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_window_costs_a_request_for_each_row_of_blocks_and_no_more_than_these() {
    let server = Server::start();
    server.add("tiles/noise.tif", cog());
    let file = Arc::new(server.open("tiles/noise.tif").unwrap());
    let tiff =
        GeoTiff::from_source("http://server/tiles/noise.tif", Arc::<RemoteFile>::clone(&file)).unwrap();
    let (requests, bytes) = server.asked();
    assert_eq!((requests, bytes), (1, 32 << 10), "opening");
    // Blocks 1 to 3 down and 2 to 4 across.
    let window = Window { row: 130, col: 300, height: 300, width: 280 };
    let read = tiff.read_window::<u16>(window).unwrap();
    assert_eq!(read.data, part(&noise(), window));
    let (requests, bytes) = server.asked();
    assert_eq!(requests, 3, "the blocks of a row lie side by side");
    assert!(bytes < 9 * BLOCK * 101 / 100, "{bytes} bytes, the blocks have {}", 9 * BLOCK);
    let overviews = tiff.overviews().unwrap();
    assert_eq!(overviews.iter().map(|small| small.grid().height).collect::<Vec<_>>(), [500, 250, 125]);
    assert_eq!(server.asked().0, 0, "the directories came with the head");
    let small = overviews[2].read::<u16>().unwrap();
    assert_eq!(small.data.dim(), (2, 125, 113));
    assert_eq!(server.asked().0, 1, "one block");
    // Read from several threads, and whole.
    let whole = tiff.read::<u16>().unwrap();
    assert_eq!(whole.data, noise());
}

#[test]
fn small_reads_far_from_the_head_share_a_request() {
    let server = Server::start();
    server.add("x", (0..200_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect());
    let file = server.open("x").unwrap();
    let mut byte = [0];
    for offset in 100_000..100_200_u32 {
        file.read_exact_at(&mut byte, offset.into()).unwrap();
        assert_eq!(u32::from(byte[0]), offset % 251);
    }
    assert_eq!(server.asked().0, 2, "opening, and once more");
    assert!(file.read_exact_at(&mut byte, 200_000).is_err(), "beyond the end");
    assert!(file.read_ranges(&[0..1, 199_999..200_001]).is_err(), "beyond the end");
    assert_eq!(
        file.read_ranges(&[7..7, 3..5, 2..2]).unwrap(),
        [vec![], vec![3, 4], vec![]],
        "nothing is something"
    );
}

#[test]
fn a_band_of_a_product_is_read_from_afar() {
    let server = Server::start();
    let path = own(SMALL).join(SMALL_IMAGES).join("R10m/T29RKH_20200219T112111_B04_10m.jp2");
    server.add("B04.jp2", std::fs::read(&path).unwrap());
    let file = server.open("B04.jp2").unwrap();
    let image = s2_jp2::Image::open(&file, &s2_jp2::Limits::default()).unwrap();
    let mut samples = vec![0_u16; 48 * 48];
    image.decode(&mut samples).unwrap();
    assert_eq!(samples, read_jp2::<u16>(&path).unwrap().data.into_raw_vec_and_offset().0);
}

#[test]
fn what_goes_wrong_is_told() {
    let server = Server::start();
    assert_eq!(server.open("missing.tif").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    server.add("noise.tif", cog());
    let file = Arc::new(server.open("noise.tif").unwrap());
    let tiff = GeoTiff::from_source("noise.tif", file).unwrap();
    // Replaced by another one of the same size: its blocks must not be mixed with the old directory.
    server.state.lock().unwrap().version = 1;
    let error = chain(&tiff.read::<u16>().unwrap_err());
    assert!(error.starts_with("cannot read noise.tif: ") && error.contains("412"), "{error}");
    server.state.lock().unwrap().ignores_ranges = true;
    let error = server.open("noise.tif").unwrap_err().to_string();
    assert!(error.to_lowercase().contains("range"), "{error}");
    let nobody = Server { address: "http://127.0.0.1:9".to_owned(), state: Arc::default() };
    let error = nobody.open("noise.tif").unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:9"), "{error}");
}

#[test]
fn it_can_be_used_inside_an_asynchronous_runtime() {
    let server = Server::start();
    server.add("noise.tif", cog());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tiff = runtime
        .block_on(async { GeoTiff::from_source("noise.tif", Arc::new(server.open("noise.tif").unwrap())) })
        .unwrap();
    assert_eq!(tiff.num_bands(), 2);
}
