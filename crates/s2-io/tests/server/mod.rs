//! A server on loopback that answers as the services do: identity, catalogues (`OData`, STAC), downloads with their
//! quotas and errors, signatures. What it was asked, and how often, can be read from it.
//!
//! It is written after recorded answers and the services' documentation; see `docs/ACQUISITION.md`.
#![allow(dead_code, reason = "each test takes a part of it")]

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use s2_io::{Algorithm, Checksum};
use serde_json::{Value, json};

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

struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn read(reader: &mut BufReader<&TcpStream>) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let mut parts = line.split_whitespace();
        let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((key, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(key.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        Some(Self { method, path: decode(path), query: pairs(query), headers, body })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    fn header(&self, key: &str) -> Option<&str> {
        self.headers.get(key).map(String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decode(k), decode(v))).collect()
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.replace('+', " ").into_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
    /// Where the body begins and ends.
    range: (usize, usize),
    fault: Option<Fault>,
}

impl Answer {
    fn json(status: u16, value: &Value) -> Self {
        Self::bytes(status, "application/json", value.to_string().into_bytes())
    }

    fn bytes(status: u16, kind: &str, body: Vec<u8>) -> Self {
        let range = (0, body.len());
        let headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        Self { status, headers, body: Arc::new(body), range, fault: None }
    }

    fn code(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "trace-id": "058222c4", "code": code, "message": message }))
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>, here: &str, connections: &AtomicUsize) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader) {
        let protected = request.path.starts_with("/download/");
        let active = if protected { connections.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
        let latency = state.lock().unwrap().latency;
        if !latency.is_zero() {
            std::thread::sleep(latency);
        }
        let answer = {
            let mut state = state.lock().unwrap();
            let line = format!("{} {} {:?}", request.method, request.path, request.query);
            state.requests.push(line);
            if protected {
                state.most_connections = state.most_connections.max(active);
            }
            answer(&mut state, &request, here, active)
        };
        let clock_ahead = state.lock().unwrap().clock_ahead;
        let sent = send(stream, &answer, clock_ahead);
        state.lock().unwrap().bytes += answer.range.1 - answer.range.0;
        if protected {
            connections.fetch_sub(1, Ordering::SeqCst);
        }
        if !sent {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn send(mut stream: &TcpStream, answer: &Answer, clock_ahead: i64) -> bool {
    let (start, end) = answer.range;
    let date = chrono::Utc::now() + chrono::Duration::seconds(clock_ahead);
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, end - start);
    let _ = write!(head, "Date: {}\r\n", date.format("%a, %d %b %Y %H:%M:%S GMT"));
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    if stream.write_all(head.as_bytes()).is_err() {
        return false;
    }
    let body = &answer.body[start..end];
    match answer.fault {
        Some(Fault::Cut) => {
            let _ = stream.write_all(&body[..body.len() * 2 / 3]);
            false
        }
        Some(Fault::Stall) => {
            let _ = stream.write_all(&body[..body.len() / 2]);
            // Until the client gives up.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let _ = stream.read(&mut [0]);
            false
        }
        Some(Fault::WrongByte) => {
            let mut body = body.to_vec();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            stream.write_all(&body).is_ok()
        }
        _ => stream.write_all(body).is_ok(),
    }
}

fn answer(state: &mut State, request: &Request, here: &str, active: usize) -> Answer {
    if state.maintenance {
        let page =
            b"<!DOCTYPE html>\n<html><head><title>Scheduled maintenance</title></head></html>".to_vec();
        return Answer::bytes(200, "text/html", page);
    }
    let path = request.path.as_str();
    if path == "/identity/token" {
        return token(state, request);
    }
    if path == "/catalogue/odata/v1/Products" {
        return products(state, request, here);
    }
    if let Some(id) = between(path, "/catalogue/odata/v1/Products(", ")/$value") {
        let host = state.download_host.clone().unwrap_or_else(|| here.to_owned());
        let target = format!("{host}/download/odata/v1/Products({id})/$value");
        return Answer::bytes(301, "text/plain", Vec::new()).with("Location", &target);
    }
    if let Some(id) = between(path, "/catalogue/odata/v1/Products(", ")/OData.CSC.Order") {
        return order(state, request, id);
    }
    if path == "/catalogue/odata/v1/Orders" {
        let filter = request.get("$filter").unwrap_or_default();
        let id = filter.strip_prefix("Id eq ").unwrap_or_default().trim_matches('\'').to_owned();
        let value: Vec<_> = state
            .order_states
            .get(&id)
            .map(|status| json!({ "Id": id, "Status": status }))
            .into_iter()
            .collect();
        return Answer::json(200, &json!({ "value": value }));
    }
    if let Some(id) = between(path, "/download/odata/v1/Products(", ")/$value") {
        return download(state, request, id, active);
    }
    if let Some(id) = between(path, "/dhus/odata/v1/Products('", "')/$value") {
        return old_hub(state, request, id, false);
    }
    if let Some(id) = between(path, "/dhus/odata/v1/Products('", "')/Online/$value") {
        return old_hub(state, request, id, true);
    }
    if path.starts_with("/foreign/") {
        state.leaked += usize::from(request.header("authorization").is_some());
        return Answer::bytes(200, "application/zip", b"PK\x03\x04".to_vec());
    }
    if let Some(key) = path.strip_prefix("/eodata") {
        return bucket(state, request, key.trim_start_matches('/'));
    }
    if path.ends_with("/search") {
        return search(state, request, here);
    }
    if path.contains("/sas/token/") {
        let expiry = chrono::Utc::now()
            + chrono::Duration::seconds(state.clock_ahead)
            + chrono::Duration::seconds(state.signature_life_s);
        let token = format!("st=x&se=y&sig={}", state.signatures.len());
        state.signatures.insert(token.clone());
        return Answer::json(200, &json!({ "msft:expiry": expiry.to_rfc3339(), "token": token }));
    }
    file(state, request)
}

fn between<'a>(path: &'a str, start: &str, end: &str) -> Option<&'a str> {
    path.strip_prefix(start)?.strip_suffix(end)
}

fn token(state: &mut State, request: &Request) -> Answer {
    let form: HashMap<_, _> = pairs(&String::from_utf8_lossy(&request.body)).into_iter().collect();
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let known = match field("grant_type") {
        "password" => {
            state.password_grants += 1;
            field("username") == USER && field("password") == PASSWORD
        }
        "refresh_token" => {
            state.refresh_grants += 1;
            // Each serves once.
            state.refreshes.remove(field("refresh_token"))
        }
        _ => false,
    };
    if !known || field("client_id") != "cdse-public" {
        let text = json!({ "error": "invalid_grant", "error_description": "Invalid user credentials" });
        return Answer::json(401, &text);
    }
    let number = state.password_grants + state.refresh_grants;
    let (access, refresh) = (format!("access-{number}"), format!("refresh-{number}"));
    let life = Duration::from_secs(state.token_life_s);
    state.tokens.insert(access.clone(), Instant::now() + life);
    state.refreshes.insert(refresh.clone());
    let life = state.token_life_s;
    Answer::json(
        200,
        &json!({ "access_token": access, "expires_in": life, "refresh_expires_in": 6 * life, "refresh_token": refresh,
            "token_type": "Bearer", "not-before-policy": 0, "scope": "profile" }),
    )
}

fn refused(state: &State, request: &Request) -> Option<Answer> {
    let Some(token) = request.header("authorization").and_then(|text| text.strip_prefix("Bearer ")) else {
        return Some(Answer::code(401, "DAT-ZIP-604", "Token not found"));
    };
    match state.tokens.get(token) {
        None if token.starts_with("sh-") => {
            Some(Answer::code(401, "DAT-ZIP-609", "Token audience not allowed"))
        }
        Some(until) if *until > Instant::now() => None,
        _ => Some(Answer::code(401, "DAT-ZIP-109", "Token expired")),
    }
}

fn products(state: &mut State, request: &Request, here: &str) -> Answer {
    let filter = request.get("$filter").unwrap_or_default().to_owned();
    let number = |key| request.get(key).and_then(|text| text.parse::<usize>().ok());
    let (top, skip) = (number("$top").unwrap_or(20).min(state.page), number("$skip").unwrap_or(0));
    if skip > 10_000 {
        let detail = json!([{ "type": "less_than_equal", "loc": ["query", "$skip"],
            "msg": "Input should be less than or equal to 10000", "input": skip.to_string() }]);
        return Answer::json(422, &json!({ "detail": detail }));
    }
    let with_id = filter.strip_prefix("Id eq '").and_then(|rest| rest.strip_suffix('\'')).map(str::to_owned);
    let named = filter.strip_prefix("Name eq '").and_then(|rest| rest.strip_suffix('\'')).map(str::to_owned);
    let tile = filter.split("att/Name eq 'tileId'").nth(1).and_then(|rest| rest.split('\'').nth(1));
    let after = |key: &str| {
        let at = filter.find(key)? + key.len();
        chrono::DateTime::parse_from_rfc3339(filter[at..].split(' ').next()?).ok()
    };
    let (least, most) = (after("ContentDate/Start ge "), after("ContentDate/Start lt "));
    let level = if filter.contains("S2MSI1C") { "MSIL1C" } else { "MSIL2A" };
    let mut found = Vec::new();
    for product in &state.products {
        let parts: Vec<_> = product.name.split('_').collect();
        let start = chrono::NaiveDateTime::parse_from_str(parts[2], "%Y%m%dT%H%M%S").unwrap().and_utc();
        let taken = match (&named, &with_id) {
            (Some(name), _) => *name == format!("{}.SAFE", product.name),
            (None, Some(id)) => *id == product.id,
            (None, None) => {
                parts[1] == level
                    && tile.is_none_or(|tile| parts[5] == format!("T{tile}"))
                    && least.is_none_or(|least| start >= least)
                    && most.is_none_or(|most| start < most)
            }
        };
        if taken {
            found.push((start, product.clone()));
        }
    }
    found.sort_by_key(|(start, _)| *start);
    let count = found.len();
    let mut value = Vec::new();
    for (start, product) in found.into_iter().skip(skip).take(top) {
        let polls = state.polls.entry(product.id.clone()).or_default();
        *polls += 1;
        let online = product.offline_polls.is_some_and(|offline| *polls > offline);
        // Old records have 3 digits, new ones 6.
        let digits = if value.len() % 2 == 0 { "%Y-%m-%dT%H:%M:%S.%3fZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
        let date = start.format(digits).to_string();
        let checksum = match &product.md5 {
            Some(md5) => json!([{ "Value": md5, "Algorithm": "MD5", "ChecksumDate": date },
                { "Value": "00".repeat(32), "Algorithm": "BLAKE3", "ChecksumDate": date }]),
            None => json!([{}]),
        };
        value.push(json!({
            "@odata.mediaContentType": "application/octet-stream", "Id": product.id,
            "Name": format!("{}.SAFE", product.name), "ContentLength": product.archive.len() - 35, "Online": online,
            "S3Path": format!("/eodata/Sentinel-2/MSI/{}.SAFE", product.name), "Checksum": checksum,
            "ContentDate": { "Start": date, "End": date },
            "GeoFootprint": { "type": "Polygon", "coordinates": [[[-9, 29], [-8, 29], [-8, 30], [-9, 30], [-9, 29]]] },
            "Attributes": [
                { "@odata.type": "#OData.CSC.DoubleAttribute", "Name": "cloudCover", "Value": 3.5, "ValueType": "Double" },
                { "@odata.type": "#OData.CSC.StringAttribute", "Name": "processorVersion", "Value": "05.09" }
            ],
        }));
    }
    let mut answer = json!({ "@odata.context": "$metadata#Products(Attributes())", "value": value });
    if skip + top < count && skip + top <= 10_000 {
        let mut next = format!("{here}/catalogue/odata/v1/Products?%24skip={}", skip + top);
        for (key, value) in request.query.iter().filter(|(key, _)| key != "$skip") {
            let _ = write!(next, "&{}={}", encode(key), encode(value));
        }
        answer["@odata.nextLink"] = json!(next);
    }
    Answer::json(200, &answer)
}

fn download(state: &mut State, request: &Request, id: &str, active: usize) -> Answer {
    if request.method == "HEAD" {
        return Answer::bytes(405, "text/plain", Vec::new());
    }
    if let Some(answer) = refused(state, request) {
        return answer;
    }
    if active > 4 {
        return Answer::code(429, "DAT-ZIP-100", "Max session number 4 exceeded.");
    }
    let product = state.products.iter().find(|product| product.id == id && !state.gone.contains(id)).cloned();
    let Some(product) = product else {
        return Answer::code(404, "DAT-ZIP-001", "Product not found");
    };
    let fault = if state.faults.is_empty() {
        // A fraction of thousand, and one fault in turn.
        let fails = state.random() % 1000 < state.failures_of_1000;
        fails.then(|| FAULTS[state.random() % FAULTS.len()])
    } else {
        Some(state.faults.remove(0))
    };
    match fault {
        Some(Fault::Status(status)) => return Answer::bytes(status, "text/plain", b"try later".to_vec()),
        Some(Fault::TooMany) => return Answer::code(429, "DAT-ZIP-100", "Max session number 4 exceeded."),
        Some(Fault::Html) => {
            let page = b"<html><head><title>Maintenance</title></head></html>".to_vec();
            return Answer::bytes(200, "text/html", page);
        }
        Some(Fault::Json) => return Answer::code(200, "DAT-ZIP-500", "Internal trouble"),
        Some(Fault::TokenExpired) => {
            let token = request.header("authorization").unwrap_or_default().trim_start_matches("Bearer ");
            state.tokens_lost += usize::from(state.tokens.remove(token).is_some());
            return Answer::code(401, "DAT-ZIP-109", "Token expired");
        }
        _ => {}
    }
    if fault.is_none() {
        *state.served.entry(product.name.clone()).or_default() += 1;
    }
    let name = format!("attachment; filename={}.zip", product.name);
    let answer = ranged(state, request, product.archive).with("Content-Disposition", &name);
    Answer { fault, ..answer }
}

/// A file, or the range of it that is asked for.
fn ranged(state: &State, request: &Request, body: Arc<Vec<u8>>) -> Answer {
    let e_tag = format!("\"v{}\"", state.version);
    if request.header("if-match").is_some_and(|asked| asked != e_tag) {
        return Answer::bytes(412, "text/plain", Vec::new());
    }
    let size = body.len();
    let same = request.header("if-range").is_none_or(|asked| asked == e_tag);
    let range = request.header("range").filter(|_| same && !state.ignores_ranges).and_then(|text| {
        let (start, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let start = start.parse::<usize>().ok()?;
        Some((start, last.parse::<usize>().map_or(size, |last| (last + 1).min(size))))
    });
    let (status, range) = match range {
        Some((start, _)) if start >= size => return Answer::bytes(416, "text/plain", Vec::new()),
        Some(range) => (206, range),
        None => (200, (0, size)),
    };
    let mut headers = vec![("Content-Type".to_owned(), "application/octet-stream".to_owned())];
    if status == 206 {
        headers.push(("Content-Range".to_owned(), format!("bytes {}-{}/{size}", range.0, range.1 - 1)));
    }
    if !state.ignores_ranges {
        headers.push(("ETag".to_owned(), e_tag));
    }
    Answer { status, headers, body, range, fault: None }
}

fn file(state: &mut State, request: &Request) -> Answer {
    let Some(body) = state.files.get(&request.path).cloned() else {
        return Answer::json(404, &json!({ "message": "no such file" }));
    };
    if request.path.starts_with("/blob/") {
        let signed = request.query.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&");
        if !state.signatures.contains(&signed) {
            return Answer::bytes(403, "text/plain", b"AuthenticationFailed: signature not valid".to_vec());
        }
    }
    ranged(state, request, body)
}

/// Pages of STAC, with the next one as Earth Search links it (POST), or as a GET.
fn search(state: &mut State, request: &Request, here: &str) -> Answer {
    let body = request.json();
    let by_get = request.method == "GET";
    let next = if by_get {
        request.get("next").map(str::to_owned)
    } else {
        body["next"].as_str().map(str::to_owned)
    };
    let start = next.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let end = (start + state.page).min(state.features.len());
    let features = state.features.get(start..end).unwrap_or_default().to_vec();
    let mut links = vec![json!({ "rel": "root", "href": here })];
    // One more page is linked than there is: Earth Search does so.
    if !features.is_empty() {
        links.push(if request.path.starts_with("/pc/") {
            json!({ "rel": "next", "method": "GET", "href": format!("{here}/pc/search?next={end}") })
        } else {
            let mut body = body;
            body["next"] = json!(end.to_string());
            json!({ "rel": "next", "method": "POST", "href": format!("{here}/es/search"), "merge": false, "body": body })
        });
    }
    let page = json!({ "type": "FeatureCollection", "features": features, "links": links });
    Answer::json(200, &page)
}

/// A bucket of S3: lists of keys below a prefix, folder by folder, and objects; only for requests that are signed.
fn bucket(state: &mut State, request: &Request, key: &str) -> Answer {
    let signed = request.header("authorization").is_some_and(|text| {
        text.starts_with("AWS4-HMAC-SHA256 Credential=key/") && text.contains("/default/s3/aws4_request")
    });
    if !signed {
        let text = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        return Answer::bytes(403, "application/xml", text.into());
    }
    if !key.is_empty() {
        let name = format!("/eodata/{key}");
        return match state.files.get(&name).cloned() {
            Some(body) => ranged(state, request, body).with("Last-Modified", "Wed, 19 Feb 2020 14:00:00 GMT"),
            None => Answer::bytes(404, "application/xml", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        };
    }
    let prefix = request.get("prefix").unwrap_or_default();
    let (mut folders, mut objects) = (std::collections::BTreeSet::new(), String::new());
    for (name, body) in &state.files {
        let Some(rest) = name.strip_prefix("/eodata/").and_then(|key| key.strip_prefix(prefix)) else {
            continue;
        };
        match rest.split_once('/') {
            Some((folder, _)) => drop(folders.insert(format!("{prefix}{folder}/"))),
            None => {
                let _ = write!(
                    objects,
                    "<Contents><Key>{prefix}{rest}</Key><LastModified>2020-02-19T14:00:00.000Z</LastModified>\
                     <ETag>&quot;v{}&quot;</ETag><Size>{}</Size></Contents>",
                    state.version,
                    body.len()
                );
            }
        }
    }
    let folders: String = folders
        .iter()
        .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"))
        .collect();
    let list = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>eodata</Name><Prefix>{prefix}</Prefix>\
         <IsTruncated>false</IsTruncated>{objects}{folders}</ListBucketResult>"
    );
    Answer::bytes(200, "application/xml", list.into_bytes())
}

/// Orders of the Long Term Archive's interface.
fn order(state: &mut State, request: &Request, id: &str) -> Answer {
    if let Some(answer) = refused(state, request) {
        return answer;
    }
    state.orders.push(id.to_owned());
    let number = format!("{}", 9_000 + state.orders.len());
    state.order_states.insert(number.clone(), "queued".to_owned());
    Answer::json(201, &json!({ "Id": number, "Status": "queued", "Priority": 50 }))
}

/// The hub before CDSE: asking for an offline product orders it.
fn old_hub(state: &mut State, request: &Request, id: &str, asks_only: bool) -> Answer {
    if request.header("authorization").is_none() {
        return Answer::bytes(401, "text/plain", Vec::new());
    }
    let Some(product) = state.products.iter().find(|product| product.id == id).cloned() else {
        return Answer::bytes(404, "text/plain", b"InvalidKeyException".to_vec());
    };
    let polls = state.polls.entry(product.id.clone()).or_default();
    *polls += usize::from(asks_only);
    let online = product.offline_polls.is_some_and(|offline| *polls > offline);
    if asks_only {
        return Answer::bytes(200, "text/plain", online.to_string().into_bytes());
    }
    if online {
        return ranged(state, request, product.archive);
    }
    if state.orders.len() >= 20 {
        let text =
            "User 'me' offline products retrieval quota exceeded (20 fetches max) trying to fetch product";
        return Answer::bytes(403, "text/plain", Vec::new()).with("cause-message", text);
    }
    state.orders.push(id.to_owned());
    Answer::bytes(202, "text/plain", Vec::new())
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
