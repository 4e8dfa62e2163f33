//! Catalogues and downloads against a server on loopback that answers, and fails, as the services do.
#![cfg(feature = "net")]

mod area;
mod catalog;
#[path = "../common/mod.rs"]
mod common;
mod download;
mod orders;
#[path = "../server/mod.rs"]
mod server;

use std::time::Duration;

use s2_io::Level;
use s2_io::net::{
    Account, Client, Credentials, Downloader, Error, Fetched, OData, Query, Remote, RetryPolicy,
};
use serde_json::{Value, json};
use server::{PASSWORD, Product, Server, USER, archive};
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

fn feature(name: &str, cloud: f64) -> Value {
    json!({ "type": "Feature", "id": name, "properties": {
        "datetime": "2020-02-19T11:21:11.024Z", "eo:cloud_cover": cloud, "s2:product_uri": format!("{name}.SAFE"),
        "s2:processing_baseline": "05.09", "grid:code": "MGRS-29RKH" },
        "geometry": { "type": "Polygon", "coordinates": [[[-9, 29], [-8, 29], [-8, 30], [-9, 30], [-9, 29]]] },
        "assets": {} })
}
