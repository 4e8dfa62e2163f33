//! The `OData` catalogue of the Copernicus Data Space.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use geo::{BoundingRect, CoordsIter, LineString, MultiPolygon};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::catalog::{Area, Catalog, Item, Query, Remote, rfc3339};
use super::http::{Ask, shown};
use super::stac::{address, footprint, time};
use super::{Client, Error, Result};
use crate::{Algorithm, Baseline, Checksum, Level, ProductName};

/// The most that a page may have, and that may be skipped.
const PAGE: usize = 1000;
const MOST_SKIPPED: usize = 10_000;
/// Longer outlines make addresses that servers refuse; then their box is asked for, and the rest left out here.
const MOST_CORNERS: usize = 100;

/// The catalogue of CDSE that tells which products are offline. It can be asked without an account.
#[derive(Clone, Debug)]
pub struct OData {
    client: Client,
    catalogue: String,
    download: String,
}

impl OData {
    /// The real one.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        // The catalogue hands downloads on to the other host; asked directly no header is lost on the way.
        let hosts = ["https://catalogue.dataspace.copernicus.eu", "https://download.dataspace.copernicus.eu"];
        Self::at(client, hosts[0], hosts[1])
    }

    /// The same service elsewhere: a mirror, or a server of a test. `/odata/v1/Products` comes behind both addresses.
    #[must_use]
    pub fn at(client: &Client, catalogue: &str, download: &str) -> Self {
        let products = |host: &str| format!("{}/odata/v1/Products", host.trim_end_matches('/'));
        Self { client: client.clone(), catalogue: products(catalogue), download: products(download) }
    }

    /// Looks one product up by its name, with or without `.SAFE`.
    ///
    /// # Errors
    ///
    /// What goes wrong with the service; [`Error::Query`] when the name is none.
    pub fn product(&self, name: &str) -> Result<Option<Item>> {
        let stem = name.strip_suffix(".SAFE").unwrap_or(name);
        stem.parse::<ProductName>().map_err(|error| Error::query(error.to_string()))?;
        let url = self.page(&format!("Name eq '{stem}.SAFE'"))?;
        let page: Page = self.client.json(&Ask::get(url))?;
        Ok(page.value.iter().find_map(|product| self.item(product)))
    }

    /// The address of its products.
    pub(super) fn products(&self) -> &str {
        &self.catalogue
    }

    /// Looks a product up that has this id.
    pub(super) fn by_id(&self, id: &str) -> Result<Option<Item>> {
        let page: Page = self.client.json(&Ask::get(self.page(&format!("Id eq '{id}'"))?))?;
        Ok(page.value.iter().find_map(|product| self.item(product)))
    }

    fn page(&self, filter: &str) -> Result<Url> {
        let mut url = address(&self.catalogue)?;
        url.query_pairs_mut()
            .append_pair("$filter", filter)
            .append_pair("$orderby", "ContentDate/Start asc")
            .append_pair("$top", &PAGE.to_string())
            .append_pair("$expand", "Attributes");
        Ok(url)
    }

    fn item(&self, product: &Product) -> Option<Item> {
        let stem = product.name.strip_suffix(".SAFE").unwrap_or(&product.name);
        let name: ProductName = stem.parse().ok()?;
        let attribute =
            |name: &str| product.attributes.iter().flatten().find(|attribute| attribute.name == name);
        let baseline = attribute("processorVersion").and_then(|attribute| attribute.value.as_str());
        let baseline: Option<Baseline> = name.baseline.or(baseline.and_then(|text| text.parse().ok()));
        let mut checksums: Vec<_> = product
            .checksum
            .iter()
            .flatten()
            .filter_map(|sum| {
                Checksum::from_hex(Algorithm::from_name(sum.algorithm.as_deref()?)?, sum.value.as_deref()?)
            })
            .collect();
        // MD5 covers the archive for sure, BLAKE3 perhaps.
        checksums.sort_by_key(|sum| sum.algorithm);
        Some(Item {
            id: product.id.clone(),
            product: stem.to_owned(),
            sensing_start: product.content_date.as_ref().and_then(|date| time(&date.start))?,
            cloud_cover: attribute("cloudCover").and_then(|attribute| attribute.value.as_f64()),
            footprint: product.footprint.as_ref().map_or_else(|| MultiPolygon(Vec::new()), footprint),
            online: product.online,
            archive: Some(Remote {
                size: product.content_length.filter(|size| *size > 0),
                checksums,
                ..Remote::new(format!("{}({})/$value", self.download, product.id))
            }),
            folder: product.s3_path.as_ref().map(|path| format!("s3:/{path}")),
            assets: BTreeMap::new(),
            offset: baseline.map(|baseline| if baseline >= Baseline::WITH_OFFSET { -1000 } else { 0 }),
            name: ProductName { baseline, ..name },
        })
    }
}

impl Catalog for OData {
    fn search(&self, query: &Query) -> Result<Vec<Item>> {
        let query = query.checked()?;
        let (mut start, end) = query.interval();
        let (mut items, mut seen) = (Vec::new(), HashSet::new());
        // The service skips at most 10,000: a longer answer goes on from its last date.
        loop {
            let mut url = self.page(&filter(&query, start, end))?;
            let (mut count, mut last) = (0, start);
            loop {
                let page: Page = self.client.json(&Ask::get(url.clone()))?;
                count += page.value.len();
                for product in &page.value {
                    last = last.max(
                        product.content_date.as_ref().and_then(|date| time(&date.start)).unwrap_or(last),
                    );
                    if !seen.insert(product.id.clone()) {
                        continue;
                    }
                    match self.item(product) {
                        Some(item) if query.takes(&item) => items.push(item),
                        Some(_) => {}
                        None => tracing::warn!(
                            "{}: {} is left out: no Sentinel-2 name or date",
                            shown(&url),
                            product.name
                        ),
                    }
                }
                match page.next.filter(|_| !page.value.is_empty()) {
                    Some(next) => {
                        url = url.join(&next).map_err(|error| Error::Answer {
                            url: shown(&url),
                            problem: format!("its next page has no address: {error}"),
                        })?;
                    }
                    None => break,
                }
            }
            if count < MOST_SKIPPED || last <= start {
                return Ok(items);
            }
            start = last;
        }
    }
}

/// The filter of a query, in the grammar of `OData`.
fn filter(query: &Query, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
    let attribute = |kind: &str, name: &str, test: &str| {
        format!(
            "Attributes/OData.CSC.{kind}Attribute/any(att:att/Name eq '{name}' and \
             att/OData.CSC.{kind}Attribute/Value {test})"
        )
    };
    let product_type = match query.level {
        Level::L1C => "eq 'S2MSI1C'",
        Level::L2A => "eq 'S2MSI2A'",
    };
    let mut parts = vec![
        "Collection/Name eq 'SENTINEL-2'".to_owned(),
        attribute("String", "productType", product_type),
        format!("ContentDate/Start ge {}", rfc3339(start)),
        format!("ContentDate/Start lt {}", rfc3339(end)),
    ];
    if let Some(area) = &query.area {
        parts.push(format!("OData.CSC.Intersects(area=geography'SRID=4326;{}')", wkt(area)));
    }
    if !query.tiles.is_empty() {
        let tiles: Vec<_> =
            query.tiles.iter().map(|tile| attribute("String", "tileId", &format!("eq '{tile}'"))).collect();
        parts.push(format!("({})", tiles.join(" or ")));
    }
    if let Some(most) = query.max_cloud {
        parts.push(attribute("Double", "cloudCover", &format!("le {most:.2}")));
    }
    if let Some(orbit) = query.relative_orbit {
        parts.push(attribute("Integer", "relativeOrbitNumber", &format!("eq {orbit}")));
    }
    parts.join(" and ")
}

/// An area in well-known text.
fn wkt(area: &Area) -> String {
    let bounds = area.bounding_rect().filter(|_| area.coords_count() > MOST_CORNERS);
    let area = bounds.map_or_else(|| area.clone(), |bounds| MultiPolygon(vec![bounds.to_polygon()]));
    let ring = |line: &LineString<f64>| {
        let points: Vec<_> = line.coords().map(|at| format!("{} {}", at.x, at.y)).collect();
        format!("({})", points.join(","))
    };
    let polygons: Vec<_> = area
        .iter()
        .map(|polygon| {
            let mut text = ring(polygon.exterior());
            for hole in polygon.interiors() {
                let _ = write!(text, ",{}", ring(hole));
            }
            text
        })
        .collect();
    match &polygons[..] {
        [one] => format!("POLYGON({one})"),
        all => format!("MULTIPOLYGON(({}))", all.join("),(")),
    }
}

#[derive(Deserialize)]
struct Page {
    value: Vec<Product>,
    #[serde(default, rename = "@odata.nextLink")]
    next: Option<String>,
}

/// What is needed of a product; catalogues of several years leave out, null or empty what they do not know.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Product {
    id: String,
    name: String,
    #[serde(default)]
    content_length: Option<u64>,
    #[serde(default, rename = "S3Path")]
    s3_path: Option<String>,
    #[serde(default = "yes")]
    online: bool,
    #[serde(default)]
    checksum: Option<Vec<Sum>>,
    #[serde(default)]
    content_date: Option<ContentDate>,
    #[serde(default, rename = "GeoFootprint")]
    footprint: Option<Value>,
    #[serde(default)]
    attributes: Option<Vec<Attribute>>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sum {
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    algorithm: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContentDate {
    start: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    name: String,
    #[serde(default)]
    value: Value,
}
