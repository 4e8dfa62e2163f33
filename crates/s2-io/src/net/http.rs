//! Requests: who may see a token, what is tried again, and how long one waits for it.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use super::{Account, Credentials, Error, Result};
use crate::remote::runtime;

/// Services name at most a few hops: the catalogue hands a download on to another host.
const MAX_REDIRECTS: usize = 10;
/// What is read of an answer that is an error.
const ERROR_BODY: usize = 64 << 10;
/// Answers of catalogues are some megabytes.
const MAX_JSON: usize = 64 << 20;
/// Nobody is waited for longer on his word: one service writes milliseconds where the standard has seconds.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// How soon a cancelled run ends.
const TICK: Duration = Duration::from_millis(50);
/// Clocks further apart than this spoil signatures and dates of expiry.
const CLOCK_TOLERANCE_S: i64 = 300;

/// How long to wait for an answer, and what to do when it is a failure that may pass.
///
/// The waits between two tries are random between zero and a limit that doubles from `first_wait` to `longest_wait`
/// ("full jitter"), so that many processes do not come back together.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Tries of one request; a download that got further starts to count anew.
    pub tries: u32,
    /// Limit of the first wait.
    pub first_wait: Duration,
    /// Limit of all waits.
    pub longest_wait: Duration,
    /// The least wait after a service said that this account has too many connections.
    pub busy_wait: Duration,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time without a byte after which a connection counts as dead.
    pub idle_timeout: Duration,
    /// Tries after failures that a whole run may use.
    pub run_retries: u32,
    /// Time that a whole run may take.
    pub run_time: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 8,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            busy_wait: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            run_retries: 10_000,
            run_time: None,
        }
    }
}

/// Makes requests for catalogues and downloads; clones share connections, budgets and [`Client::cancel`].
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    json: reqwest::Client,
    raw: reqwest::Client,
    policy: RetryPolicy,
    started: Instant,
    retries: AtomicU32,
    cancelled: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("policy", &self.shared.policy).finish_non_exhaustive()
    }
}

/// A request that can be made again.
#[derive(Clone)]
pub(super) struct Ask<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Body>,
    pub account: Option<&'a Account>,
    /// User name and password in every request: the way of old hubs. They go to no other host.
    pub basic: Option<&'a Credentials>,
}

#[derive(Clone)]
pub(super) enum Body {
    Json(serde_json::Value),
    Form(Vec<(&'static str, String)>),
}

impl<'a> Ask<'a> {
    pub(super) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None, account: None, basic: None }
    }

    pub(super) fn post(url: Url, body: Body) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(url) }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn for_account(mut self, account: Option<&'a Account>) -> Self {
        self.account = account;
        self
    }
}

/// Why one try failed.
pub(super) enum Failure {
    /// It may pass.
    Again {
        problem: String,
        /// The least time to wait.
        wait: Duration,
        /// Something was gained: the count of tries starts anew.
        progress: bool,
    },
    /// It will not.
    Final(Error),
}

impl Failure {
    pub(super) fn again(problem: impl Into<String>) -> Self {
        Self::Again { problem: problem.into(), wait: Duration::ZERO, progress: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Client {
    /// Starts a run: its budgets count from here.
    ///
    /// # Errors
    ///
    /// When the certificates of this system cannot be used.
    pub fn new(policy: RetryPolicy) -> Result<Self> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("s2-io/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .connect_timeout(policy.connect_timeout)
                .read_timeout(policy.idle_timeout)
        };
        let broken =
            |error: reqwest::Error| Error::query(format!("cannot start the HTTP client: {}", chain(&error)));
        let (json, raw) =
            (builder().build().map_err(broken)?, builder().no_gzip().http1_only().build().map_err(broken)?);
        let shared = Shared {
            json,
            raw,
            policy,
            started: Instant::now(),
            retries: AtomicU32::new(0),
            cancelled: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Ends everything that runs with this client and its clones, soon and with [`Error::Interrupted`]. What was
    /// received stays for the next run.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn policy(&self) -> &RetryPolicy {
        &self.shared.policy
    }

    /// Fails once the run was cancelled.
    pub(super) fn check(&self) -> Result<()> {
        if self.shared.cancelled.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Sleeps, but for a cancelled run.
    pub(super) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(TICK)),
            }
        }
    }

    /// Runs something asynchronous on the thread of this crate and waits for it, or until the run is cancelled.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let runtime = runtime().map_err(|error| Error::query(format!("cannot start a thread: {error}")))?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = runtime.spawn(async move {
            let _ = sender.send(work.await);
        });
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(value) => return Ok(value),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Error::Interrupted),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.check() {
                        task.abort();
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Tries until it works, a failure is final, or patience ends.
    pub(super) fn again<T>(&self, url: &Url, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let policy = self.policy();
        let mut tries = 0;
        loop {
            self.check()?;
            let (problem, least, progress) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { problem, wait, progress }) => (problem, wait, progress),
            };
            tries = if progress { 1 } else { tries + 1 };
            let url = shown(url);
            if tries >= policy.tries {
                return Err(Error::GaveUp { url, tries, problem });
            }
            if self.shared.retries.fetch_add(1, Ordering::Relaxed) >= policy.run_retries {
                return Err(Error::Budget { url, budget: "number of retries", problem });
            }
            let limit = policy.first_wait.saturating_mul(1 << (tries - 1).min(16)).min(policy.longest_wait);
            let wait = least.saturating_add(limit.mul_f64(fastrand::f64()));
            if policy.run_time.is_some_and(|time| self.shared.started.elapsed() + wait > time) {
                return Err(Error::Budget { url, budget: "time", problem });
            }
            tracing::warn!("{url}: {problem}; again in {:.1} s", wait.as_secs_f64());
            self.sleep(wait)?;
        }
    }

    /// Asks for JSON, again and again.
    pub(super) fn json<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<T> {
        Ok(self.json_at(ask)?.0)
    }

    /// The same with the server's time, where it tells.
    pub(super) fn json_at<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<(T, Option<DateTime<Utc>>)> {
        self.again(&ask.url, || {
            let response = self.send(ask, false)?;
            if !response.status().is_success() {
                return Err(self.judge(&ask.url, response));
            }
            let date = server_time(response.headers());
            let body = self.body(response, MAX_JSON)?;
            serde_json::from_slice(&body).map(|value| (value, date)).map_err(|error| {
                let problem = match not_json(&body) {
                    Some(problem) => return Failure::again(problem),
                    None => format!("{error}"),
                };
                Failure::Final(Error::Answer { url: shown(&ask.url), problem })
            })
        })
    }

    /// Makes one request and follows where it is sent; the token goes along only to hosts of its account. A token
    /// that is refused is renewed once.
    pub(super) fn send(&self, ask: &Ask<'_>, raw: bool) -> Result<Response, Failure> {
        let mut refused = None;
        loop {
            let token = ask.account.map(|account| account.token(self, refused.as_deref())).transpose()?;
            let response = self.send_with(ask, token.as_deref(), raw)?;
            let expired = response.status() == StatusCode::UNAUTHORIZED && token.is_some();
            if !expired || refused.is_some() {
                return Ok(response);
            }
            // The header may have been lost or the token be of the wrong kind: a new one does not help.
            let url = response.url().clone();
            let body = self.body(response, ERROR_BODY)?;
            if let Some(problem) = hopeless(&body) {
                return Err(Error::Refused { url: shown(&url), status: 401, problem }.into());
            }
            refused = token;
        }
    }

    fn send_with(&self, ask: &Ask<'_>, token: Option<&str>, raw: bool) -> Result<Response, Failure> {
        let client = if raw { &self.shared.raw } else { &self.shared.json };
        let (mut url, mut method, mut body) = (ask.url.clone(), ask.method.clone(), ask.body.clone());
        for _ in 0..MAX_REDIRECTS {
            let mut request = client.request(method.clone(), url.clone()).headers(ask.headers.clone());
            match &body {
                Some(Body::Json(value)) => request = request.json(value),
                Some(Body::Form(pairs)) => request = request.form(pairs),
                None => {}
            }
            if let (Some(token), Some(account)) = (token, ask.account)
                && account.trusts(&url)
            {
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| Error::credentials("the token that the service gave is no text"))?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            if let Some(credentials) = ask.basic.filter(|_| url.origin() == ask.url.origin()) {
                request = credentials.basic(request);
            }
            let response =
                self.wait(async move { request.send().await })?.map_err(|error| again_after(&error))?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = target.and_then(|target| url.join(target).ok());
            let next = next.filter(|next| matches!(next.scheme(), "http" | "https")).ok_or_else(|| {
                Error::Answer { url: shown(&url), problem: "it hands on, but not to where".to_owned() }
            })?;
            if matches!(response.status().as_u16(), 301..=303) && method == Method::POST {
                (method, body) = (Method::GET, None);
            }
            url = next;
        }
        Err(Error::Answer { url: shown(&ask.url), problem: "it hands on without end".to_owned() }.into())
    }

    /// Reads an answer up to a limit.
    pub(super) fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
        let read = async move {
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() >= limit {
                    break;
                }
            }
            Ok(body)
        };
        self.wait(read)?.map_err(|error: reqwest::Error| again_after(&error))
    }

    /// What an answer that is no success means.
    pub(super) fn judge(&self, asked: &Url, response: Response) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match self.body(response, ERROR_BODY) {
            Ok(body) => body,
            Err(failure) => return failure,
        };
        let url = shown(asked);
        let mut problem = hopeless(&body).unwrap_or_else(|| said(&headers, &body));
        if let Some(note) = clock_note(&headers).filter(|_| matches!(status.as_u16(), 400 | 401 | 403)) {
            problem = format!("{problem}; {note}");
        }
        let busy = code(&body).as_deref() == Some("DAT-ZIP-100") || problem.contains("concurrent flows");
        match status.as_u16() {
            403 if problem.contains("quota") => Failure::Final(Error::Refused {
                url,
                status: 403,
                problem: format!("{problem}; wait until the quota is free again"),
            }),
            408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=529 => Failure::Again {
                problem: format!("HTTP {}: {problem}", status.as_u16()),
                wait: if busy { self.policy().busy_wait } else { Duration::ZERO }.max(retry_after(&headers)),
                progress: false,
            },
            403 if busy => Failure::Again { problem, wait: self.policy().busy_wait, progress: false },
            status => Failure::Final(Error::Refused { url, status, problem }),
        }
    }
}

/// A request that got no answer.
fn again_after(error: &reqwest::Error) -> Failure {
    Failure::again(if error.is_connect() {
        format!("cannot connect: {}", chain(error))
    } else if error.is_timeout() {
        "the connection stalled".to_owned()
    } else {
        chain(error)
    })
}

/// An error and what caused it, without the address: it may hold a signature.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = if text.is_empty() { error.to_string() } else { format!("{text}: {error}") };
        cause = error.source();
    }
    if text.is_empty() { "the connection broke".to_owned() } else { text }
}

/// An address for people: what follows `?`, and a password, may be secret.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

/// The error code of CDSE's download service.
fn code(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    value.get("code")?.as_str().map(str::to_owned)
}

/// Codes of CDSE's download service that only the user can do something about.
fn hopeless(body: &[u8]) -> Option<String> {
    let advice = match code(body)?.as_str() {
        "DAT-ZIP-604" => "it got no token (DAT-ZIP-604)",
        "DAT-ZIP-608" => {
            "this account may not download (DAT-ZIP-608): sign in once at dataspace.copernicus.eu and accept the terms"
        }
        "DAT-ZIP-609" => {
            "these credentials are of the wrong kind (DAT-ZIP-609): downloads want the user name and password of the \
             account, not an OAuth client of Sentinel Hub (sh-…)"
        }
        "DAT-ZIP-104" | "DAT-ZIP-111" => "it does not understand the address (this is a fault of s2-io)",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// What a service says in words.
fn said(headers: &HeaderMap, body: &[u8]) -> String {
    if let Some(cause) = headers.get("cause-message").and_then(|value| value.to_str().ok()) {
        return cause.to_owned();
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        let fields = ["message", "error_description", "description", "error", "detail", "code"];
        if let Some(text) = fields.iter().find_map(|field| match value.get(field)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Array(list) => Some(list.first()?.get("msg")?.as_str()?.to_owned()),
            serde_json::Value::Object(object) => Some(object.get("message")?.as_str()?.to_owned()),
            _ => None,
        }) {
            return one_line(&text);
        }
    }
    not_json(body).unwrap_or_else(|| match body {
        [] => "nothing else".to_owned(),
        body => one_line(&String::from_utf8_lossy(body)),
    })
}

/// Names a body that is a web page.
pub(super) fn not_json(body: &[u8]) -> Option<String> {
    let start = String::from_utf8_lossy(&body[..body.len().min(4096)]);
    let lower = start.to_ascii_lowercase();
    if !(lower.trim_start().starts_with("<!doctype") || lower.trim_start().starts_with("<html")) {
        return None;
    }
    let title = lower.find("<title>").and_then(|at| {
        let rest = &start[at + "<title>".len()..];
        rest.split('<').next()
    });
    Some(match title.map(str::trim).filter(|title| !title.is_empty()) {
        Some(title) => format!("a web page ({:?}) instead of data", one_line(title)),
        None => "a web page instead of data".to_owned(),
    })
}

fn one_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let value = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = value.trim().parse().ok().or_else(|| {
        let until = DateTime::parse_from_rfc2822(value).ok()?;
        u64::try_from((until.to_utc() - Utc::now()).num_seconds()).ok()
    });
    seconds.map_or(Duration::ZERO, Duration::from_secs).min(MAX_RETRY_AFTER)
}

/// The server's time, where it tells.
fn server_time(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(DateTime::parse_from_rfc2822(date).ok()?.to_utc())
}

fn clock_note(headers: &HeaderMap) -> Option<String> {
    let ahead = (Utc::now() - server_time(headers)?).num_seconds();
    let (minutes, side) = ((ahead.abs() + 30) / 60, if ahead > 0 { "ahead of" } else { "behind" });
    (ahead.abs() > CLOCK_TOLERANCE_S)
        .then(|| format!("the clock of this machine is {minutes} minutes {side} the server's: set it"))
}
