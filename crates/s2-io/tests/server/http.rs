//! Requests and answers of HTTP, and how an answer goes wrong on its way.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::services::answer;
use super::{Fault, State};

pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
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

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    pub(super) fn header(&self, key: &str) -> Option<&str> {
        self.headers.get(key).map(String::as_str)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decode(k), decode(v))).collect()
}

pub(super) fn encode(text: &str) -> String {
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

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Arc<Vec<u8>>,
    /// Where the body begins and ends.
    pub(super) range: (usize, usize),
    pub(super) fault: Option<Fault>,
}

impl Answer {
    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::bytes(status, "application/json", value.to_string().into_bytes())
    }

    pub(super) fn bytes(status: u16, kind: &str, body: Vec<u8>) -> Self {
        let range = (0, body.len());
        let headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        Self { status, headers, body: Arc::new(body), range, fault: None }
    }

    pub(super) fn code(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "trace-id": "058222c4", "code": code, "message": message }))
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

pub(super) fn serve(stream: &TcpStream, state: &Mutex<State>, here: &str, connections: &AtomicUsize) {
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
