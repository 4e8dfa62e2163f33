//! Acquisition: from a place and some months to verified products on disk.
//!
//! [`Catalog`]s answer a [`Query`] with [`Item`]s; [`best`] leaves out what was processed again and sorts the rest.
//! A [`Downloader`] brings whole products or single files and checks them; [`RemoteProduct`] reads windows of remote cloud
//!
//! The calls block; the requests run on a thread of this crate, so that the calls also work inside of an asynchronous
//! runtime. A [`Client`] is shared by all of them: it holds the rules of waiting and trying again, and stops
//! everything that runs by [`Client::cancel`].
//!
//! # Examples
//!
//! ```no_run
//! use s2_io::Level;
//! use s2_io::net::{Catalog, Client, Downloader, Query, RetryPolicy, Stac, area_of_bbox, best};
//!
//! let client = Client::new(RetryPolicy::default())?;
//! let query = Query {
//!     area: Some(area_of_bbox([-2.3, 5.9, -2.1, 6.1])?),
//!     max_cloud: Some(20.0),
//!     ..Query::new(Level::L2A, "2024-01-01".parse().unwrap(), "2024-03-31".parse().unwrap())
//! };
//! let found = best(Stac::earth_search(&client).search(&query)?, query.area.as_ref());
//! let (_, red) = found[0].assets.iter().find(|(key, _)| key.to_string() == "B04_10m").unwrap();
//! Downloader::new(&client).fetch(red, "B04.tif".as_ref(), &|_| {})?;
//! # Ok::<(), s2_io::net::Error>(())
//! ```

mod account;
mod area;
mod catalog;
mod download;
mod error;
mod http;
mod objects;
mod odata;
mod orders;
mod slots;
mod stac;

pub use account::{Account, Credentials};
pub use area::RemoteProduct;
pub use catalog::{Area, AssetKey, Catalog, Item, Query, Remote, area_of_bbox, best};
pub use download::{Downloader, Fetched, Progress};
pub use error::{Error, Result};
pub use http::{Client, RetryPolicy};
pub use objects::{eodata, eodata_at};
pub use odata::OData;
pub use orders::{Archive, Entry, HubOrders, OrderDriver, OrderState, ProductOrders, Reply, WaitOnly};
pub use stac::Stac;
