//! STAC catalogues (spatio-temporal asset catalogs, API 1.0): Earth Search, Planetary Computer, CDSE.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Duration, Utc};
use geo::{Coord, LineString, MultiPolygon, Polygon};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::catalog::{Area, AssetKey, Catalog, Item, Query, Remote, rfc3339};
use super::http::{Ask, Body, shown};
use super::{Client, Error, Result};
use crate::{Band, Baseline, Checksum, Layer, Level, ProductName};

/// Earth Search fails on pages of more than some hundred items.
const PAGE: usize = 100;

/// A STAC API.
#[derive(Clone, Debug)]
pub struct Stac {
    client: Client,
    root: String,
    provider: Provider,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Provider {
    EarthSearch { collection: &'static str },
    PlanetaryComputer { signatures: String },
    Cdse,
}

impl Stac {
    /// Element 84's Earth Search: L2A as cloud optimized GeoTIFFs, for anybody.
    #[must_use]
    pub fn earth_search(client: &Client) -> Self {
        let provider = Provider::EarthSearch { collection: "sentinel-2-l2a" };
        Self::of(client, "https://earth-search.aws.element84.com/v1", provider)
    }

    /// Its "Collection 1": products of baseline 05.00 and later, with checksums.
    #[must_use]
    pub fn earth_search_c1(client: &Client) -> Self {
        let provider = Provider::EarthSearch { collection: "sentinel-2-c1-l2a" };
        Self::of(client, "https://earth-search.aws.element84.com/v1", provider)
    }

    /// Microsoft's Planetary Computer: L2A as cloud optimized GeoTIFFs, for anybody; their addresses are signed.
    #[must_use]
    pub fn planetary_computer(client: &Client) -> Self {
        let signatures = "https://planetarycomputer.microsoft.com/api/sas/v1/token".to_owned();
        let provider = Provider::PlanetaryComputer { signatures };
        Self::of(client, "https://planetarycomputer.microsoft.com/api/stac/v1", provider)
    }

    /// The Copernicus Data Space: L1C and L2A as archives and JPEG 2000 images; files want an account.
    #[must_use]
    pub fn cdse(client: &Client) -> Self {
        Self::of(client, "https://stac.dataspace.copernicus.eu/v1", Provider::Cdse)
    }

    /// The same service elsewhere: a mirror, or a server of a test. Signatures of Planetary Computer are asked for at
    /// `root` with `/sas/token` behind it.
    #[must_use]
    pub fn at(mut self, root: &str) -> Self {
        root.trim_end_matches('/').clone_into(&mut self.root);
        if let Provider::PlanetaryComputer { signatures } = &mut self.provider {
            *signatures = format!("{}/sas/token", self.root);
        }
        self
    }

    fn of(client: &Client, root: &str, provider: Provider) -> Self {
        Self { client: client.clone(), root: root.to_owned(), provider }
    }

    fn collection(&self, level: Level) -> Result<&'static str> {
        match (&self.provider, level) {
            (Provider::EarthSearch { collection }, Level::L2A) => Ok(collection),
            (Provider::PlanetaryComputer { .. } | Provider::Cdse, Level::L2A) => Ok("sentinel-2-l2a"),
            (Provider::Cdse, Level::L1C) => Ok("sentinel-2-l1c"),
            (_, Level::L1C) => {
                Err(Error::query("this catalogue offers no L1C products to anybody: ask cdse"))
            }
        }
    }

    fn item(&self, feature: &Feature) -> Option<Item> {
        let properties = &feature.properties;
        let text = |key: &str| properties.get(key).and_then(Value::as_str);
        let product = text("s2:product_uri").unwrap_or(&feature.id);
        let product = product.strip_suffix(".SAFE").unwrap_or(product);
        let name: ProductName = product.parse().ok()?;
        let baseline = text("s2:processing_baseline").or(text("processing:version"));
        let baseline = baseline.and_then(|text| text.parse().ok()).or(name.baseline);
        let sensing_start = DateTime::parse_from_rfc3339(text("datetime")?).ok()?.to_utc();
        let assets =
            feature.assets.iter().filter_map(|(key, asset)| Some((key_of(key, asset)?, self.remote(asset)?)));
        let archive = (self.provider == Provider::Cdse).then(|| feature.assets.get("Product")).flatten();
        Some(Item {
            id: feature.id.clone(),
            product: product.to_owned(),
            sensing_start,
            cloud_cover: properties.get("eo:cloud_cover").and_then(Value::as_f64),
            footprint: feature.geometry.as_ref().map_or_else(|| MultiPolygon(Vec::new()), footprint),
            online: !matches!(text("order:status"), Some("orderable" | "ordered" | "shipping")),
            archive: archive.and_then(|asset| self.remote(asset)),
            folder: feature.folder(product),
            assets: assets.collect(),
            offset: offset(&self.provider, properties, baseline),
            name: ProductName { baseline, ..name },
        })
    }

    fn remote(&self, asset: &Asset) -> Option<Remote> {
        let https = asset.alternate.get("https").map(|other| other.href.as_str());
        let url = Some(asset.href.as_str()).filter(|href| href.starts_with("http")).or(https)?;
        let signed_by = match &self.provider {
            Provider::PlanetaryComputer { signatures } => {
                let parsed = Url::parse(url).ok()?;
                let account = parsed.host_str()?.split('.').next()?.to_owned();
                let container = parsed.path_segments()?.next()?.to_owned();
                Some(format!("{signatures}/{account}/{container}"))
            }
            _ => None,
        };
        let checksums = asset.checksum.iter().filter_map(|hex| Checksum::from_multihash(hex));
        Some(Remote { url: url.to_owned(), signed_by, size: asset.size, checksums: checksums.collect() })
    }
}

impl Catalog for Stac {
    fn search(&self, query: &Query) -> Result<Vec<Item>> {
        let query = query.checked()?;
        let (start, end) = query.interval();
        let mut body = json!({
            "collections": [self.collection(query.level)?],
            "datetime": format!("{}/{}", rfc3339(start), rfc3339(end - Duration::milliseconds(1))),
            "limit": PAGE,
        });
        if let Some(area) = &query.area {
            body["intersects"] = geometry(area);
        }
        let mut filter = serde_json::Map::new();
        if let Some(most) = query.max_cloud {
            filter.insert("eo:cloud_cover".into(), json!({ "lte": most }));
        }
        if !query.tiles.is_empty() {
            let (field, prefix) = match self.provider {
                Provider::PlanetaryComputer { .. } => ("s2:mgrs_tile", ""),
                _ => ("grid:code", "MGRS-"),
            };
            let tiles: Vec<_> = query.tiles.iter().map(|tile| format!("{prefix}{tile}")).collect();
            filter.insert(field.into(), json!({ "in": tiles }));
        }
        if !filter.is_empty() {
            body["query"] = Value::Object(filter);
        }
        let url = address(&format!("{}/search", self.root))?;
        let mut next = Some(Ask::post(url, Body::Json(body)));
        let (mut items, mut seen) = (Vec::new(), HashSet::new());
        while let Some(ask) = next {
            let page: Page = self.client.json(&ask)?;
            if page.features.is_empty() {
                break;
            }
            let before = seen.len();
            for feature in &page.features {
                if !seen.insert(feature.id.clone()) {
                    continue;
                }
                match self.item(feature) {
                    Some(item) if query.takes(&item) => items.push(item),
                    Some(_) => {}
                    None => tracing::warn!(
                        "{}: {} is left out: no Sentinel-2 name or date",
                        shown(&ask.url),
                        feature.id
                    ),
                }
            }
            if seen.len() == before {
                let problem = "its pages repeat without end".to_owned();
                return Err(Error::Answer { url: shown(&ask.url), problem });
            }
            next =
                page.links.iter().find(|link| link.rel == "next").map(|link| link.ask(&ask)).transpose()?;
        }
        Ok(items)
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    features: Vec<Feature>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    rel: String,
    href: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    merge: bool,
}

impl Link {
    /// The request for the next page, as the link describes it (STAC API, item search: paging).
    fn ask(&self, last: &Ask<'_>) -> Result<Ask<'static>> {
        let url = last.url.join(&self.href).map_err(|error| Error::Answer {
            url: shown(&last.url),
            problem: format!("its next page has no address: {error}"),
        })?;
        if !self.method.as_deref().is_some_and(|method| method.eq_ignore_ascii_case("post")) {
            return Ok(Ask::get(url));
        }
        let mut body = match &last.body {
            Some(Body::Json(body)) if self.merge => body.clone(),
            _ => json!({}),
        };
        if let (Some(body), Some(Value::Object(more))) = (body.as_object_mut(), &self.body) {
            body.extend(more.clone());
        }
        Ok(Ask { method: Method::POST, ..Ask::post(url, Body::Json(body)) })
    }
}

#[derive(Deserialize)]
struct Feature {
    id: String,
    #[serde(default)]
    geometry: Option<Value>,
    #[serde(default)]
    properties: BTreeMap<String, Value>,
    #[serde(default)]
    assets: BTreeMap<String, Asset>,
}

impl Feature {
    /// The product's folder, of which CDSE's assets name files.
    fn folder(&self, product: &str) -> Option<String> {
        let name = format!("/{product}.SAFE/");
        self.assets.values().find_map(|asset| {
            let end = asset.href.starts_with("s3://").then(|| asset.href.find(&name)).flatten()?;
            Some(asset.href[..end + name.len() - 1].to_owned())
        })
    }
}

#[derive(Deserialize)]
struct Asset {
    href: String,
    #[serde(default, rename = "type")]
    media: Option<String>,
    #[serde(default, rename = "file:size")]
    size: Option<u64>,
    #[serde(default, rename = "file:checksum")]
    checksum: Option<String>,
    #[serde(default)]
    alternate: BTreeMap<String, Alternate>,
}

#[derive(Deserialize)]
struct Alternate {
    #[serde(default)]
    href: String,
}

/// Which image an asset is. Earth Search names them by colour, Planetary Computer by band, CDSE by band and
/// resolution; the band's own resolution serves where none is named.
fn key_of(key: &str, asset: &Asset) -> Option<AssetKey> {
    if !asset.media.as_deref().is_some_and(|media| media.starts_with("image/")) {
        return None;
    }
    let (name, resolution) = match key.rsplit_once('_') {
        Some((name, resolution)) => (name, Some(resolution.strip_suffix('m')?.parse().ok()?)),
        None => (key, None),
    };
    let band = match name {
        "scl" | "SCL" => {
            return Some(AssetKey { layer: Layer::Scl, resolution_m: resolution.unwrap_or(20) });
        }
        "coastal" => Band::B01,
        "blue" => Band::B02,
        "green" => Band::B03,
        "red" => Band::B04,
        "rededge1" => Band::B05,
        "rededge2" => Band::B06,
        "rededge3" => Band::B07,
        "nir" => Band::B08,
        "nir08" => Band::B8A,
        "nir09" => Band::B09,
        "cirrus" => Band::B10,
        "swir16" => Band::B11,
        "swir22" => Band::B12,
        name => name.parse().ok()?,
    };
    Some(AssetKey { layer: Layer::Band(band), resolution_m: resolution.unwrap_or(band.resolution_m()) })
}

/// What is still to be added to DN. Earth Search has subtracted the offset from some of its images already, and says so
/// in a property of its own, which counts more than the offset that it gives beside it.
fn offset(
    provider: &Provider,
    properties: &BTreeMap<String, Value>,
    baseline: Option<Baseline>,
) -> Option<i32> {
    let applied = properties.get("earthsearch:boa_offset_applied").and_then(Value::as_bool);
    match provider {
        Provider::EarthSearch { .. } if applied == Some(true) => Some(0),
        _ => baseline.map(|baseline| if baseline >= Baseline::WITH_OFFSET { -1000 } else { 0 }),
    }
}

/// A polygon or several of GeoJSON; empty for anything else.
pub(super) fn footprint(geometry: &Value) -> Area {
    let ring = |ring: &Value| -> Option<LineString<f64>> {
        let point = |point: &Value| Some(Coord { x: point.get(0)?.as_f64()?, y: point.get(1)?.as_f64()? });
        ring.as_array()?.iter().map(point).collect::<Option<Vec<_>>>().map(LineString)
    };
    let polygon = |polygon: &Value| -> Option<Polygon<f64>> {
        let mut rings = polygon.as_array()?.iter().map(ring).collect::<Option<Vec<_>>>()?.into_iter();
        Some(Polygon::new(rings.next()?, rings.collect()))
    };
    let coordinates = geometry.get("coordinates");
    let polygons = match (geometry.get("type").and_then(Value::as_str), coordinates) {
        (Some("Polygon"), Some(rings)) => polygon(rings).map(|polygon| vec![polygon]),
        (Some("MultiPolygon"), Some(Value::Array(list))) => list.iter().map(polygon).collect(),
        _ => None,
    };
    MultiPolygon(polygons.unwrap_or_default())
}

/// An area in GeoJSON.
fn geometry(area: &Area) -> Value {
    let ring = |ring: &LineString<f64>| ring.coords().map(|at| json!([at.x, at.y])).collect::<Vec<_>>();
    let polygon = |polygon: &Polygon<f64>| {
        let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
        Value::Array(rings.map(|line| Value::Array(ring(line))).collect())
    };
    match &area.0[..] {
        [one] => json!({ "type": "Polygon", "coordinates": polygon(one) }),
        all => json!({ "type": "MultiPolygon", "coordinates": all.iter().map(polygon).collect::<Vec<_>>() }),
    }
}

pub(super) fn address(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|error| Error::query(format!("{text:?} is no address: {error}")))?;
    if matches!(url.scheme(), "http" | "https") {
        return Ok(url);
    }
    Err(Error::query(format!("{text:?} is not the address of a web server")))
}

/// Times of catalogues: any number of digits behind the second.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}
