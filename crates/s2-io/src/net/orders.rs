//! Products that a service keeps in an archive of its own: ordered once, waited for, across restarts.

use std::fmt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::RANGE;
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::http::{Ask, Body, Failure, shown};
use super::stac::address;
use super::{Account, Client, Credentials, Error, Item, OData, Result, slots};
use crate::write_atomic;

/// How long nothing is ordered after a service said that a quota is used up.
const QUOTA_WAIT: TimeDelta = TimeDelta::hours(1);

/// A list of products that have to be restored before they can be downloaded, in a file.
///
/// Several processes may work on one list: it is locked while it is changed, and each change is on disk before the next.
/// An order is noted before it is placed, so that no restart places it twice; what is not known to have arrived is left
/// in [`OrderState::Ordering`] and only waited for.
///
/// # Examples
///
/// ```no_run
/// use s2_io::net::{Account, Archive, Client, Credentials, OData, ProductOrders, RetryPolicy};
///
/// let client = Client::new(RetryPolicy::default())?;
/// let list = Archive::open("offline.json")?;
/// let catalogue = OData::new(&client);
/// let orders = ProductOrders::new(&client, &catalogue, Account::new(Credentials::find()?)?);
/// for entry in list.poll(&client, &orders)? {
///     println!("{:60} {}", entry.product, entry.state);
/// }
/// # Ok::<(), s2_io::net::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Archive {
    path: PathBuf,
}

/// How far a product is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// It is offline and was not asked for.
    Offline,
    /// It is being asked for; after a crash it is not known whether the order arrived.
    Ordering,
    /// The service, or its operator, was asked for it.
    Requested,
    /// The service is restoring it.
    Staging,
    /// It can be downloaded, for some days.
    Online,
    /// It is here.
    Downloaded,
    /// The service will not restore it.
    Failed,
}

impl fmt::Display for OrderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Offline => "offline",
            Self::Ordering => "ordering",
            Self::Requested => "requested",
            Self::Staging => "staging",
            Self::Online => "online",
            Self::Downloaded => "downloaded",
            Self::Failed => "failed",
        })
    }
}

/// A product of the list.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// Its name, without `.SAFE`.
    pub product: String,
    /// The catalogue's id.
    pub id: String,
    /// How far it is.
    pub state: OrderState,
    /// Since when.
    pub since: DateTime<Utc>,
    /// The service's number of the order.
    #[serde(default)]
    pub order: Option<String>,
    /// What the service said last, when it was not good.
    #[serde(default)]
    pub problem: Option<String>,
}

impl Entry {
    fn ended(&self) -> bool {
        matches!(self.state, OrderState::Online | OrderState::Downloaded | OrderState::Failed)
    }
}

#[derive(Default, Deserialize, Serialize)]
struct List {
    /// Nothing is ordered before.
    #[serde(default)]
    quota_until: Option<DateTime<Utc>>,
    products: Vec<Entry>,
}

/// What a service says of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It has the order, under this number.
    Requested(Option<String>),
    /// It works on it.
    Staging,
    /// The product can be downloaded.
    Online,
    /// It has too much to do; the order was not taken.
    Busy(String),
    /// The account may not order more for now; the order was not taken.
    Quota(String),
    /// It will not restore the product.
    Failed(String),
}

/// The way in which a service restores products.
pub trait OrderDriver {
    /// Orders a product that is offline. An error means that it is not known whether the order arrived, unless it is an
    /// [`Error::Refused`].
    ///
    /// # Errors
    ///
    /// What goes wrong with the service.
    fn order(&self, entry: &Entry) -> Result<Reply>;

    /// Asks how far it is.
    ///
    /// # Errors
    ///
    /// What goes wrong with the service.
    fn look(&self, entry: &Entry) -> Result<Reply>;
}

impl Archive {
    /// The list in a file, which is made when there is something to write. A lock file stands beside it.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is no such list.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let list = Self { path: path.into() };
        let folder = crate::store::folder_of(&list.path);
        std::fs::create_dir_all(folder).map_err(|source| Error::Io {
            what: "make",
            path: folder.to_owned(),
            source,
        })?;
        list.read().map(|_| list)
    }

    /// All products of the list, in the order in which they came.
    ///
    /// # Errors
    ///
    /// As [`Archive::open`].
    pub fn entries(&self) -> Result<Vec<Entry>> {
        Ok(self.read()?.products)
    }

    /// Puts a product on the list; one that is on it stays as it is.
    ///
    /// # Errors
    ///
    /// The list cannot be read or written.
    pub fn add(&self, client: &Client, item: &Item) -> Result<()> {
        self.change(client, |list| {
            if !list.products.iter().any(|entry| entry.product == item.product) {
                list.products.push(Entry {
                    product: item.product.clone(),
                    id: item.id.clone(),
                    state: if item.online { OrderState::Online } else { OrderState::Offline },
                    since: Utc::now(),
                    order: None,
                    problem: None,
                });
            }
        })
    }

    /// Notes that a product was downloaded, or why it cannot be.
    ///
    /// # Errors
    ///
    /// The list cannot be read or written.
    pub fn settle(&self, client: &Client, product: &str, outcome: Result<(), String>) -> Result<()> {
        self.change(client, |list| {
            if let Some(entry) = list.products.iter_mut().find(|entry| entry.product == product) {
                let state = if outcome.is_ok() { OrderState::Downloaded } else { OrderState::Failed };
                put(entry, state, outcome.err());
            }
        })
    }

    /// One round: asks for each product that is under way, then orders what is offline, until the service has enough.
    /// Returns all products of the list as they are then.
    ///
    /// # Errors
    ///
    /// The list cannot be read or written, or the run was cancelled. Failures of the service are noted in the list and
    /// do not end the round.
    pub fn poll(&self, client: &Client, driver: &dyn OrderDriver) -> Result<Vec<Entry>> {
        for entry in self.entries()? {
            if entry.ended() || entry.state == OrderState::Offline {
                continue;
            }
            let reply = driver.look(&entry);
            client.check()?;
            self.note(client, &entry, reply)?;
        }
        for entry in self.entries()? {
            if entry.state != OrderState::Offline || !self.claim(client, &entry.product)? {
                continue;
            }
            let reply = driver.order(&entry);
            let enough = matches!(reply, Ok(Reply::Busy(_) | Reply::Quota(_)));
            self.note(client, &entry, reply)?;
            client.check()?;
            if enough {
                break;
            }
        }
        self.entries()
    }

    /// Takes a product for ordering; no other process will.
    fn claim(&self, client: &Client, product: &str) -> Result<bool> {
        self.change(client, |list| {
            if list.quota_until.is_some_and(|until| until > Utc::now()) {
                return false;
            }
            let entry = list.products.iter_mut().find(|entry| entry.product == product);
            entry.filter(|entry| entry.state == OrderState::Offline).is_some_and(|entry| {
                put(entry, OrderState::Ordering, None);
                true
            })
        })
    }

    fn note(&self, client: &Client, asked: &Entry, reply: Result<Reply>) -> Result<()> {
        self.change(client, |list| {
            let Some(entry) = list.products.iter_mut().find(|entry| entry.product == asked.product) else {
                return;
            };
            // Another process may have been faster.
            if entry.ended() {
                return;
            }
            match reply {
                Ok(Reply::Requested(order)) => {
                    if entry.state == OrderState::Offline || entry.state == OrderState::Ordering {
                        put(entry, OrderState::Requested, None);
                    }
                    entry.order = order.or(entry.order.take());
                }
                Ok(Reply::Staging) => put(entry, OrderState::Staging, None),
                Ok(Reply::Online) => put(entry, OrderState::Online, None),
                Ok(Reply::Failed(problem)) => put(entry, OrderState::Failed, Some(problem)),
                Ok(Reply::Busy(problem)) => put(entry, OrderState::Offline, Some(problem)),
                Ok(Reply::Quota(problem)) => {
                    put(entry, OrderState::Offline, Some(problem));
                    list.quota_until = Some(Utc::now() + QUOTA_WAIT);
                }
                Err(Error::Refused { status, problem, url }) => {
                    // The order was read and not taken; a question that is refused changes nothing.
                    let text = format!("{url} answers {status}: {problem}");
                    let state =
                        if entry.state == OrderState::Ordering { OrderState::Failed } else { entry.state };
                    put(entry, state, Some(text));
                }
                Err(error) => entry.problem = Some(error.to_string()),
            }
        })
    }

    fn read(&self) -> Result<List> {
        let failed = |source| Error::Io { what: "read", path: self.path.clone(), source };
        match std::fs::read(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(List::default()),
            Err(error) => Err(failed(error)),
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                failed(std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    format!("no list of orders: {error}"),
                ))
            }),
        }
    }

    /// Changes the list; nobody else does meanwhile.
    fn change<T>(&self, client: &Client, change: impl FnOnce(&mut List) -> T) -> Result<T> {
        let mut lock = self.path.clone().into_os_string();
        lock.push(".lock");
        let _lock = slots::lock(client, Path::new(&lock))?;
        let mut list = self.read()?;
        let value = change(&mut list);
        let mut json = serde_json::to_vec_pretty(&list).unwrap_or_default();
        json.push(b'\n');
        write_atomic(&self.path, |file| std::io::Write::write_all(file, &json))?;
        Ok(value)
    }
}

fn put(entry: &mut Entry, state: OrderState, problem: Option<String>) {
    if entry.state != state {
        entry.since = Utc::now();
    }
    (entry.state, entry.problem) = (state, problem);
}

/// Orders by ESA's interface of Long Term Archives, which catalogues of `OData` offer beside their products
/// (`Products(id)/OData.CSC.Order`). Whether a product is online is read from the catalogue.
#[derive(Clone, Debug)]
pub struct ProductOrders {
    client: Client,
    catalogue: OData,
    account: Account,
}

impl ProductOrders {
    /// Orders at this catalogue for this account.
    #[must_use]
    pub fn new(client: &Client, catalogue: &OData, account: Account) -> Self {
        Self { client: client.clone(), catalogue: catalogue.clone(), account }
    }
}

impl OrderDriver for ProductOrders {
    fn order(&self, entry: &Entry) -> Result<Reply> {
        if self.catalogue.by_id(&entry.id)?.is_some_and(|item| item.online) {
            return Ok(Reply::Online);
        }
        let url = address(&format!("{}({})/OData.CSC.Order", self.catalogue.products(), entry.id))?;
        let ask =
            Ask::post(url.clone(), Body::Json(json!({ "Priority": 50 }))).for_account(Some(&self.account));
        let response = once(self.client.send(&ask, false), &url)?;
        if !response.status().is_success() {
            return not_taken(self.client.judge(&url, response));
        }
        // It was taken, even if its number is lost.
        let Ok(body) = self.client.body(response, 1 << 20) else { return Ok(Reply::Requested(None)) };
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let order = answer.get("value").unwrap_or(&answer).get("Id").map(|id| match id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Ok(Reply::Requested(order))
    }

    fn look(&self, entry: &Entry) -> Result<Reply> {
        if self.catalogue.by_id(&entry.id)?.is_some_and(|item| item.online) {
            return Ok(Reply::Online);
        }
        let Some(order) = &entry.order else { return Ok(Reply::Requested(None)) };
        let url = self.catalogue.products().replace("/Products", "/Orders");
        let mut url = address(&url)?;
        url.query_pairs_mut().append_pair("$filter", &format!("Id eq {order}"));
        let answer: Value = self.client.json(&Ask::get(url).for_account(Some(&self.account)))?;
        let status = answer.pointer("/value/0/Status").and_then(Value::as_str).unwrap_or_default();
        Ok(match status {
            "in_progress" | "completed" => Reply::Staging,
            "failed" | "cancelled" => Reply::Failed(format!("the order {order} is {status}")),
            _ => Reply::Requested(None),
        })
    }
}

/// Waits for products that somebody orders by hand: the Copernicus Data Space takes orders of archived products in its
/// Data Workspace only.
#[derive(Clone, Debug)]
pub struct WaitOnly {
    catalogue: OData,
}

impl WaitOnly {
    /// Asks this catalogue what is online.
    #[must_use]
    pub fn new(catalogue: &OData) -> Self {
        Self { catalogue: catalogue.clone() }
    }
}

impl OrderDriver for WaitOnly {
    fn order(&self, entry: &Entry) -> Result<Reply> {
        self.look(entry)
    }

    fn look(&self, entry: &Entry) -> Result<Reply> {
        match self.catalogue.by_id(&entry.id)? {
            Some(item) if item.online => Ok(Reply::Online),
            Some(_) => Ok(Reply::Requested(None)),
            None => Ok(Reply::Failed("the catalogue does not know it any more".to_owned())),
        }
    }
}

/// Hubs of the old kind (`DHuS`), where asking for an offline product orders it.
#[derive(Clone, Debug)]
pub struct HubOrders {
    client: Client,
    base: String,
    credentials: Credentials,
}

impl HubOrders {
    /// Orders at the hub with this address, to which `/odata/v1/Products` is added.
    #[must_use]
    pub fn new(client: &Client, base: &str, credentials: Credentials) -> Self {
        let base = format!("{}/odata/v1/Products", base.trim_end_matches('/'));
        Self { client: client.clone(), base, credentials }
    }

    /// Asks once, whatever the answer is.
    fn get(&self, entry: &Entry, what: &str) -> Result<(Url, Response)> {
        let url = address(&format!("{}('{}')/{what}", self.base, entry.id))?;
        // Two bytes: the product itself is brought later.
        let ask = Ask { basic: Some(&self.credentials), ..Ask::get(url.clone()) }.header(RANGE, "bytes=0-1");
        once(self.client.send(&ask, true), &url).map(|response| (url, response))
    }

    fn online(&self, entry: &Entry) -> Result<bool> {
        let (url, response) = self.get(entry, "Online/$value")?;
        if !response.status().is_success() {
            return Err(finally(self.client.judge(&url, response), &url));
        }
        let body = once(self.client.body(response, 1 << 10), &url)?;
        Ok(body.trim_ascii() == b"true")
    }
}

impl OrderDriver for HubOrders {
    fn order(&self, entry: &Entry) -> Result<Reply> {
        if self.online(entry)? {
            return Ok(Reply::Online);
        }
        let (url, response) = self.get(entry, "$value")?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Reply::Online),
            StatusCode::ACCEPTED => Ok(Reply::Requested(None)),
            _ => not_taken(self.client.judge(&url, response)),
        }
    }

    /// Asking for the product itself would count as one more order against the quota.
    fn look(&self, entry: &Entry) -> Result<Reply> {
        Ok(if self.online(entry)? { Reply::Online } else { Reply::Requested(None) })
    }
}

/// An order is placed once: a second one could count twice.
fn once<T>(answer: Result<T, Failure>, url: &Url) -> Result<T> {
    answer.map_err(|failure| finally(failure, url))
}

fn finally(failure: Failure, url: &Url) -> Error {
    match failure {
        Failure::Final(error) => error,
        Failure::Again { problem, .. } => Error::GaveUp { url: shown(url), tries: 1, problem },
    }
}

/// What it means when a service does not take an order.
fn not_taken(failure: Failure) -> Result<Reply> {
    match failure {
        Failure::Again { problem, .. } => Ok(Reply::Busy(problem)),
        Failure::Final(Error::Refused { status: 403, problem, .. }) if problem.contains("quota") => {
            Ok(Reply::Quota(problem))
        }
        Failure::Final(error) => Err(error),
    }
}
