//! A server on loopback that answers as the services do: identity, catalogues (`OData`, STAC), downloads with their
//! quotas and errors, signatures. What it was asked, and how often, can be read from it.
//!
//! It is written after recorded answers and the services' documentation; see `docs/ACQUISITION.md`.
#![allow(dead_code, reason = "each test takes a part of it")]

mod http;
mod images;
mod services;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use s2_io::{Algorithm, Checksum};
use serde_json::Value;

use self::http::serve;
pub(crate) use self::images::{cog, noise};

/// What goes wrong with an answer of the download service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends in the middle, with the full length promised.
    Cut,
    /// Nothing more comes.
    Stall,
    /// A status and nothing else.
    Status(u16),
    /// DAT-ZIP-100.
    TooMany,
    /// A web page with status 200.
    Html,
    /// An error in JSON with status 200.
    Json,
    /// The token is gone.
    TokenExpired,
    /// One byte differs.
    WrongByte,
}

pub(crate) const FAULTS: [Fault; 9] = [
    Fault::Cut,
    Fault::Stall,
    Fault::Status(500),
    Fault::Status(503),
    Fault::TooMany,
    Fault::Html,
    Fault::Json,
    Fault::TokenExpired,
    Fault::WrongByte,
];

/// A product of the catalogue.
#[derive(Clone)]
pub(crate) struct Product {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) archive: Arc<Vec<u8>>,
    /// How often the catalogue says that it is offline before it is restored; none is never.
    pub(crate) offline_polls: Option<usize>,
    /// The MD5 that the catalogue gives; none is none.
    pub(crate) md5: Option<String>,
}

impl Product {
    pub(crate) fn new(number: usize, name: &str, archive: Vec<u8>) -> Self {
        let md5 = Checksum::of(Algorithm::Md5, &archive[..]).unwrap().hex();
        Self {
            name: name.to_owned(),
            id: format!("00000000-0000-4000-8000-{number:012}"),
            archive: Arc::new(archive),
            offline_polls: Some(0),
            md5: Some(md5),
        }
    }
}

/// What the server has, how it behaves, and what was asked of it.
pub(crate) struct State {
    pub(crate) products: Vec<Product>,
    pub(crate) files: HashMap<String, Arc<Vec<u8>>>,
    /// Items of the STAC catalogues.
    pub(crate) features: Vec<Value>,
    pub(crate) token_life_s: u64,
    /// Products that the catalogue knows and the download service does not.
    pub(crate) gone: HashSet<String>,
    /// How many of thousand downloads fail.
    pub(crate) failures_of_1000: usize,
    /// The next downloads fail so, in turn.
    pub(crate) faults: Vec<Fault>,
    pub(crate) ignores_ranges: bool,
    pub(crate) latency: Duration,
    /// Changes when files are replaced.
    pub(crate) version: u32,
    /// The catalogue hands downloads on to this address.
    pub(crate) download_host: Option<String>,
    /// Answers with a page of maintenance.
    pub(crate) maintenance: bool,
    /// Ahead of the true time.
    pub(crate) clock_ahead: i64,
    pub(crate) signature_life_s: i64,
    pub(crate) page: usize,
    // What was asked.
    pub(crate) tokens: HashMap<String, Instant>,
    pub(crate) refreshes: HashSet<String>,
    pub(crate) password_grants: usize,
    pub(crate) refresh_grants: usize,
    pub(crate) signatures: HashSet<String>,
    pub(crate) requests: Vec<String>,
    pub(crate) bytes: usize,
    pub(crate) most_connections: usize,
    pub(crate) served: HashMap<String, usize>,
    pub(crate) polls: HashMap<String, usize>,
    pub(crate) orders: Vec<String>,
    pub(crate) order_states: HashMap<String, String>,
    /// Tokens that were taken back before their time.
    pub(crate) tokens_lost: usize,
    /// Tokens that came to other addresses than they should.
    pub(crate) leaked: usize,
    random: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            products: Vec::new(),
            files: HashMap::new(),
            features: Vec::new(),
            token_life_s: 600,
            gone: HashSet::new(),
            failures_of_1000: 0,
            faults: Vec::new(),
            ignores_ranges: true,
            latency: Duration::ZERO,
            version: 0,
            download_host: None,
            maintenance: false,
            clock_ahead: 0,
            signature_life_s: 3600,
            page: 1000,
            tokens: HashMap::new(),
            refreshes: HashSet::new(),
            password_grants: 0,
            refresh_grants: 0,
            signatures: HashSet::new(),
            requests: Vec::new(),
            bytes: 0,
            most_connections: 0,
            served: HashMap::new(),
            polls: HashMap::new(),
            orders: Vec::new(),
            order_states: HashMap::new(),
            tokens_lost: 0,
            leaked: 0,
            random: 1,
        }
    }
}

impl State {
    /// A number, the same ones in each run.
    fn random(&mut self) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 40).unwrap()
    }
}

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
    connections: Arc<AtomicUsize>,
}

pub(crate) const USER: &str = "me@example.org";
pub(crate) const PASSWORD: &str = "correct horse";

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(Arc::default())
    }

    /// A server with the state of another one: a second host.
    pub(crate) fn with(state: Arc<Mutex<State>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (shared, here, count) = (Arc::clone(&state), address.clone(), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, here, count) = (Arc::clone(&shared), here.clone(), Arc::clone(&count));
                std::thread::spawn(move || serve(&stream, &state, &here, &count));
            }
        });
        Self { address, state, connections }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub(crate) fn token_url(&self) -> String {
        self.at("/identity/token")
    }

    /// Requests whose line contains a text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.lock().requests.iter().filter(|line| line.contains(text)).count()
    }
}

/// A product that passes verification: a manifest and one file of noise, stored in a zip archive.
pub(crate) fn archive(name: &str, size: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(size)
    .collect();
    let object = |href: &str, data: &[u8]| {
        let sum = Checksum::of(Algorithm::Md5, data).unwrap().hex();
        format!(
            "<dataObject ID=\"{href}\"><byteStream mimeType=\"x\" size=\"{}\"><fileLocation locatorType=\"URL\" \
             href=\"./{href}\"/><checksum checksumName=\"MD5\">{sum}</checksum></byteStream></dataObject>",
            data.len()
        )
    };
    let metadata = b"<Level-2A_User_Product/>";
    let manifest = format!(
        "<?xml version=\"1.0\"?><XFDU><dataObjectSection>{}{}</dataObjectSection></XFDU>",
        object("MTD_MSIL2A.xml", metadata),
        object("GRANULE/band.bin", &noise)
    );
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (file, data) in [
        ("manifest.safe", manifest.as_bytes()),
        ("MTD_MSIL2A.xml", &metadata[..]),
        ("GRANULE/band.bin", &noise),
    ] {
        zip.start_file(format!("{name}.SAFE/{file}"), stored).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
