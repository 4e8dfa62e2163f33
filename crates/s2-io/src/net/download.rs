//! Files brought whole, checked, or brought on with where they stopped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use url::Url;

use super::http::{Ask, Failure, chain, not_json, shown};
use super::slots::{self, Slot};
use super::stac::address;
use super::{Account, Client, Error, Remote, Result};
use crate::{Checksum, Hasher};

/// Pieces that are received ahead of the disk, some 16 kB each: memory does not grow with the file.
const AHEAD: usize = 64;
/// How often a download looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(100);
/// What is read of a body that is not what was asked for.
const WRONG_BODY: usize = 64 << 10;
/// A signature is renewed so long before its end.
const SIGNATURE_MARGIN: Duration = Duration::from_secs(60);
/// Space that is left free on a disk.
const RESERVE: u64 = 64 << 20;
/// How often a file that is whole but wrong is fetched again.
const WRONG_TWICE: u32 = 2;

/// Brings files from services.
///
/// A file is written beside its target with `.part` at the end of its name, checked (length, checksum, and for archives
/// of products the checksum of every file in them), synced and renamed. What is at the target is therefore whole. A
/// download that was cut off goes on where it stopped if the service can do that, else it starts anew; another process
/// that wants the same file waits for it.
#[derive(Clone, Debug)]
pub struct Downloader {
    client: Client,
    account: Option<Account>,
    signatures: Arc<Mutex<HashMap<String, Signature>>>,
}

#[derive(Clone, Debug)]
struct Signature {
    text: String,
    until: Instant,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file that are there.
    pub received: u64,
    /// Bytes that it will have, where that is known.
    pub total: Option<u64>,
}

/// A file that is there and was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// Bytes that it has.
    pub bytes: u64,
    /// Whether it was there before.
    pub was_there: bool,
    /// The checksum that it was checked against; `None` when the catalogue gives none.
    pub checksum: Option<Checksum>,
}

/// What is remembered of a file that is not whole.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
struct Record {
    url: String,
    /// Tells this version of the file from others.
    validator: Option<String>,
}

/// A file that is being written.
struct Part<'a> {
    path: PathBuf,
    record_path: PathBuf,
    record: Record,
    file: File,
    length: u64,
    /// The most bytes that were there at once.
    reached: u64,
    hasher: Option<Hasher>,
    wrong: u32,
    remote: &'a Remote,
}

impl Downloader {
    /// For files that anybody may read.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), account: None, signatures: Arc::default() }
    }

    /// For files of the Copernicus Data Space as well.
    #[must_use]
    pub fn with_account(mut self, account: Account) -> Self {
        self.account = Some(account);
        self
    }

    /// The client that makes the requests.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Brings a file to `target`, unless it is there. The folder is made.
    ///
    /// `progress` is called for every piece that was written.
    ///
    /// # Errors
    ///
    /// The service cannot be reached or refuses; the product is offline; what came differs from what the catalogue
    /// promises; the disk is full or cannot be written. The part that was received stays for the next call, unless it was
    /// wrong.
    pub fn fetch(
        &self,
        remote: &Remote,
        target: &Path,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Fetched> {
        if let Some(there) = there(target) {
            return Ok(there);
        }
        let url = address(&remote.url)?;
        // Waiting for pieces is not allowed on a thread of an asynchronous runtime, which the caller's may be.
        std::thread::scope(|scope| {
            let fetch = || self.fetch_part(remote, &url, target, progress);
            scope.spawn(fetch).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn fetch_part(
        &self,
        remote: &Remote,
        url: &Url,
        target: &Path,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Fetched> {
        let mut part = match Part::open(&self.client, remote, target)? {
            Ok(part) => part,
            Err(there) => return Ok(there),
        };
        let checksum = self.client.again(url, || self.attempt(&mut part, url, target, progress))?;
        part.finish(target)?;
        Ok(Fetched { bytes: part.length, was_there: false, checksum })
    }

    /// Receives what is missing and checks the whole.
    fn attempt(
        &self,
        part: &mut Part<'_>,
        url: &Url,
        target: &Path,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Option<Checksum>, Failure> {
        let (ask, slot) = self.ask(part.remote, url)?;
        let ask = part.headers(ask);
        let response = self.client.send(&ask, true)?;
        let before = part.length;
        match response.status() {
            StatusCode::OK => part.restart()?,
            StatusCode::PARTIAL_CONTENT => {
                if range_start(response.headers()) != Some(part.length) {
                    part.restart()?;
                    return Err(Failure::again("it sends another part than was asked for"));
                }
            }
            StatusCode::ACCEPTED => {
                let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(Error::Offline { name }.into());
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                part.restart()?;
                return Err(Failure::again("it cannot go on where the download stopped"));
            }
            _ => return Err(self.refused(part.remote, url, response)),
        }
        let length = header(response.headers(), &CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let total = length.map(|length| part.length.saturating_add(length));
        space(&part.path, total.or(part.remote.size).unwrap_or(0).saturating_sub(part.length))?;
        if part.length == 0 {
            part.note(response.headers())?;
        }
        let outcome = self.receive(response, part, total, progress);
        drop(slot);
        let progress = part.length > part.reached.max(before);
        part.reached = part.reached.max(part.length);
        if let Err(Failure::Again { problem, wait, .. }) = outcome {
            return Err(Failure::Again { problem, wait, progress });
        }
        outcome?;
        if let Some(total) = total.filter(|total| *total != part.length) {
            let problem = format!("the connection ended after {} of {total} bytes", part.length);
            return Err(Failure::Again { problem, wait: Duration::ZERO, progress });
        }
        part.check(target)
    }

    /// Writes what comes.
    fn receive(
        &self,
        mut response: Response,
        part: &mut Part<'_>,
        total: Option<u64>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), Failure> {
        let runtime = crate::remote::runtime().map_err(|source| part.failed(source))?;
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let client = self.client.clone();
        runtime.spawn(async move {
            loop {
                let piece = match tokio::time::timeout(TICK, response.chunk()).await {
                    Ok(Ok(Some(bytes))) => Ok(bytes),
                    Ok(Ok(None)) => return,
                    Ok(Err(error)) if error.is_timeout() => Err(Failure::again("the connection stalled")),
                    Ok(Err(error)) => Err(Failure::again(format!("the connection broke: {}", chain(&error)))),
                    Err(_) => match client.check() {
                        Ok(()) => continue,
                        Err(error) => Err(error.into()),
                    },
                };
                let ends = piece.is_err();
                if sender.send(piece).await.is_err() || ends {
                    return;
                }
            }
        });
        let mut start = if part.length == 0 { Some(Vec::new()) } else { None };
        let mut file =
            BufWriter::with_capacity(1 << 20, part.file.try_clone().map_err(|source| part.failed(source))?);
        let mut outcome = Ok(());
        while let Some(piece) = receiver.blocking_recv() {
            self.client.check()?;
            let bytes = match piece {
                Ok(bytes) => bytes,
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            };
            if let Some(head) = &mut start {
                head.extend_from_slice(&bytes[..bytes.len().min(WRONG_BODY)]);
                match part.promises(head) {
                    Some(true) => start = None,
                    // Too short to tell yet, or wrong: then what comes says what went wrong.
                    _ if head.len() < WRONG_BODY && total.is_none_or(|total| total > head.len() as u64) => {}
                    _ => break,
                }
            }
            if let Some(hasher) = &mut part.hasher {
                hasher.update(&bytes);
            }
            file.write_all(&bytes).map_err(|source| part.failed(source))?;
            part.length += bytes.len() as u64;
            progress(Progress { received: part.length, total });
        }
        file.flush().map_err(|source| part.failed(source))?;
        if let Some(head) = start.filter(|head| part.promises(head) != Some(true) && outcome.is_ok()) {
            part.restart()?;
            return Err(wrong_body(&part.record.url, &head));
        }
        outcome
    }

    /// A request for a file, signed, and the connection of an account that it needs.
    fn ask(&self, remote: &Remote, url: &Url) -> Result<(Ask<'_>, Option<Slot>)> {
        let mut url = url.clone();
        if let Some(service) = &remote.signed_by {
            let signature = self.signature(service)?;
            let query = match url.query().filter(|query| !query.is_empty()) {
                Some(query) => format!("{query}&{signature}"),
                None => signature,
            };
            url.set_query(Some(&query));
        }
        let account = self.account.as_ref().filter(|account| account.trusts(&url));
        if self.account.is_none()
            && url.host_str().is_some_and(|host| host.ends_with("dataspace.copernicus.eu"))
        {
            let problem =
                "files of the Copernicus Data Space want an account: set CDSE_USERNAME and CDSE_PASSWORD";
            return Err(Error::credentials(problem));
        }
        let slot = account.map(|account| account.connection(&self.client)).transpose()?;
        Ok((Ask::get(url).for_account(account).header(ACCEPT_ENCODING, "identity"), slot))
    }

    /// A signature that lives for a while yet.
    fn signature(&self, service: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
            #[serde(rename = "msft:expiry")]
            expiry: DateTime<Utc>,
        }
        // The lock is held while one is fetched: others wait for that one.
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signature) = signatures.get(service).filter(|signature| signature.until > Instant::now())
        {
            return Ok(signature.text.clone());
        }
        let (answer, date) = self.client.json_at::<Answer>(&Ask::get(address(service)?))?;
        // By the server's clock: that of this machine may be wrong.
        let life = (answer.expiry - date.unwrap_or_else(Utc::now)).to_std().unwrap_or_default();
        let until = Instant::now() + life.saturating_sub(SIGNATURE_MARGIN.min(life / 4));
        signatures.insert(service.to_owned(), Signature { text: answer.token.clone(), until });
        Ok(answer.token)
    }

    /// A refusal; one of a signature gets a new one.
    fn refused(&self, remote: &Remote, url: &Url, response: Response) -> Failure {
        let status = response.status();
        let failure = self.client.judge(url, response);
        match (&remote.signed_by, failure) {
            (Some(service), Failure::Final(Error::Refused { problem, .. }))
                if status == StatusCode::FORBIDDEN =>
            {
                let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
                signatures.remove(service);
                Failure::again(format!("the signature is refused: {problem}"))
            }
            (_, failure) => failure,
        }
    }

    /// The bytes of a range, and the file's length and version.
    pub(super) fn range(
        &self,
        remote: &Remote,
        range: std::ops::Range<u64>,
        version: Option<&str>,
    ) -> Result<(Vec<u8>, u64, Option<String>)> {
        let url = address(&remote.url)?;
        self.client.again(&url, || {
            let (ask, _slot) = self.ask(remote, &url)?;
            let mut ask = ask.header(RANGE, &format!("bytes={}-{}", range.start, range.end - 1));
            if let Some(version) = version {
                ask = ask.header(IF_MATCH, version);
            }
            let response = self.client.send(&ask, true)?;
            let refuse = |problem: &str| {
                let status = response.status().as_u16();
                Failure::Final(Error::Refused { url: shown(&url), status, problem: problem.to_owned() })
            };
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {}
                StatusCode::OK => return Err(refuse("it sends whole files only, no ranges of them")),
                StatusCode::PRECONDITION_FAILED => return Err(refuse("the file was replaced meanwhile")),
                _ => return Err(self.refused(remote, &url, response)),
            }
            let (start, end, total) = content_range(response.headers())
                .ok_or_else(|| refuse("it does not say which range it sends"))?;
            let wanted = range.end.min(total);
            if (start, end) != (range.start, wanted) {
                return Err(refuse("it sends another range than was asked for"));
            }
            let e_tag =
                header(response.headers(), &ETAG).filter(|tag| !tag.starts_with("W/")).map(str::to_owned);
            let length = usize::try_from(end - start).unwrap_or(usize::MAX);
            let body = self.client.body(response, length)?;
            if body.len() == length {
                Ok((body, total, e_tag))
            } else {
                Err(Failure::again("the connection broke"))
            }
        })
    }
}

impl<'a> Part<'a> {
    /// Opens what is there of a file, or makes it; or the file itself, when another process has finished it.
    fn open(client: &Client, remote: &'a Remote, target: &Path) -> Result<Result<Self, Fetched>> {
        let path = with_ending(target, ".part");
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        let folder = crate::store::folder_of(target);
        std::fs::create_dir_all(folder).map_err(failed("make", folder))?;
        let file = loop {
            // A lock on the part keeps other processes away, until it is renamed.
            let lock = slots::lock(client, &path)?;
            if let Some(there) = there(target) {
                drop(std::fs::remove_file(&path));
                return Ok(Err(there));
            }
            // It may have been renamed and removed between opening and locking.
            if path.exists() {
                break lock;
            }
        };
        let record_path = with_ending(target, ".part.json");
        let record = std::fs::read(&record_path).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let mut url = address(&remote.url)?;
        url.set_query(None);
        let fresh = Record { url: url.to_string(), validator: None };
        let record: Record = record.filter(|record: &Record| record.url == fresh.url).unwrap_or(fresh);
        let mut part =
            Self { file, path, record_path, record, length: 0, reached: 0, hasher: None, wrong: 0, remote };
        part.resume()?;
        Ok(Ok(part))
    }

    /// Reads what is there, for its checksum.
    fn resume(&mut self) -> Result<()> {
        let read = || -> io::Result<(u64, Option<Hasher>)> {
            let mut file = File::open(&self.path)?;
            let mut hasher = self.remote.checksums.first().map(|sum| sum.algorithm.hasher());
            let (mut length, mut buffer) = (0, vec![0; 1 << 16]);
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    return Ok((length, hasher));
                }
                if let Some(hasher) = &mut hasher {
                    hasher.update(&buffer[..count]);
                }
                length += count as u64;
            }
        };
        (self.length, self.hasher) = read().map_err(|source| self.failed(source))?;
        self.reached = self.length;
        if self.length > 0 && self.record.validator.is_none() && self.remote.checksums.is_empty() {
            // Nothing would tell whether both parts belong together.
            return self.restart();
        }
        self.file.seek(SeekFrom::End(0)).map_err(|source| self.failed(source))?;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|source| self.failed(source))?;
        self.length = 0;
        self.hasher = self.remote.checksums.first().map(|sum| sum.algorithm.hasher());
        Ok(())
    }

    fn headers<'b>(&self, ask: Ask<'b>) -> Ask<'b> {
        if self.length == 0 {
            return ask;
        }
        let ask = ask.header(RANGE, &format!("bytes={}-", self.length));
        match &self.record.validator {
            Some(validator) => ask.header(IF_RANGE, validator),
            None => ask,
        }
    }

    /// Remembers which version of the file is received.
    fn note(&mut self, headers: &HeaderMap) -> Result<()> {
        let e_tag = header(headers, &ETAG).filter(|tag| !tag.starts_with("W/"));
        let validator = e_tag.or_else(|| header(headers, &LAST_MODIFIED)).map(str::to_owned);
        self.record.validator = validator;
        let json = serde_json::to_vec(&self.record).unwrap_or_default();
        Ok(crate::write_atomic(&self.record_path, |file| file.write_all(&json))?)
    }

    /// Whether a file that starts so is what its name promises; `None` when that cannot be told yet.
    fn promises(&self, start: &[u8]) -> Option<bool> {
        let name = self.path.to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".part").unwrap_or(&name);
        let starts: &[&[u8]] = match name.rsplit('.').next() {
            Some("zip") => &[b"PK\x03\x04"],
            Some("tif" | "tiff") => &[b"II*\0", b"II+\0", b"MM\0*", b"MM\0+"],
            Some("jp2") => &[b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"],
            _ => return Some(true),
        };
        if starts.iter().any(|magic| start.starts_with(magic)) {
            return Some(true);
        }
        starts.iter().all(|magic| !magic.starts_with(start)).then_some(false)
    }

    /// Checks a file that is whole.
    fn check(&mut self, target: &Path) -> Result<Option<Checksum>, Failure> {
        let hasher = match self.remote.checksums.first() {
            Some(sum) => self.hasher.replace(sum.algorithm.hasher()),
            None => None,
        };
        let made = hasher.map(Hasher::finish);
        let problem = match (self.remote.checksums.first(), &made) {
            (Some(promised), Some(made)) if promised != made => {
                Some(format!("its checksum is {made}, the catalogue says {promised}"))
            }
            _ => None,
        };
        let is_archive = target.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
        let problem = match problem {
            None if is_archive => crate::verify(&self.path).err().map(|error| error.to_string()),
            problem => problem,
        };
        let Some(problem) = problem else { return Ok(made) };
        self.restart()?;
        self.wrong += 1;
        if self.wrong < WRONG_TWICE {
            return Err(Failure::again(problem));
        }
        let problem = format!("{problem}; it came so {} times, ask for the product again later", self.wrong);
        Err(Error::Damaged { path: target.to_owned(), problem }.into())
    }

    /// Makes it the file that it was to be.
    fn finish(&self, target: &Path) -> Result<()> {
        let rename = || {
            self.file.sync_all()?;
            std::fs::rename(&self.path, target)?;
            drop(std::fs::remove_file(&self.record_path));
            // The rename is durable once the folder is.
            File::open(crate::store::folder_of(target)).and_then(|folder| folder.sync_all())
        };
        rename().map_err(|source| Error::Io { what: "finish", path: target.to_owned(), source })
    }

    fn failed(&self, source: io::Error) -> Error {
        let what = match source.kind() {
            io::ErrorKind::StorageFull => "write (what was received stays; free some space and go on)",
            _ => "write",
        };
        Error::Io { what, path: self.path.clone(), source }
    }
}

fn there(target: &Path) -> Option<Fetched> {
    let found = std::fs::metadata(target).ok()?;
    Some(Fetched { bytes: found.len(), was_there: true, checksum: None })
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// A body that is something else than a file: an error in JSON, or a web page, with the status of success.
fn wrong_body(url: &str, head: &[u8]) -> Failure {
    if head.is_empty() {
        return Failure::again("it sends nothing");
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(head).ok();
    let message = json.as_ref().and_then(|json| json.get("message")).and_then(serde_json::Value::as_str);
    Failure::again(match (not_json(head), message) {
        (Some(page), _) => page,
        (None, Some(message)) => format!("it sends a message instead of the file: {message}"),
        (None, None) => format!("what {url} sends is not the kind of file that its name promises"),
    })
}

/// Checks that a disk has room.
pub(super) fn space(path: &Path, needed: u64) -> Result<()> {
    let folder = crate::store::folder_of(path);
    let needed = needed.saturating_add(RESERVE);
    match crate::stage::free_bytes(folder)? {
        Some(free) if free < needed => {
            Err(crate::Error::NoSpace { path: folder.to_owned(), needed, free }.into())
        }
        _ => Ok(()),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Start, end and the file's length of `Content-Range: bytes 0-99/1000`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let (range, total) = header(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last): (u64, u64) = (start.trim().parse().ok()?, last.trim().parse().ok()?);
    (start <= last).then_some((start, last.checked_add(1)?, total.trim().parse().ok()?))
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    content_range(headers).map(|(start, ..)| start)
}
