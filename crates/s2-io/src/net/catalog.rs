//! What is looked for, what is found, and which of it is best.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, Utc};
use geo::{Area as _, BooleanOps, BoundingRect, Intersects, MultiPolygon, Rect, coord};

use super::{Error, Result};
use crate::{Checksum, Layer, Level, ProductName};

/// Polygons in degrees of longitude and latitude (WGS 84).
pub type Area = MultiPolygon<f64>;

/// What to look for. Products must meet all of it.
#[derive(Clone, Debug)]
pub struct Query {
    /// Products that touch this area.
    pub area: Option<Area>,
    /// MGRS tiles, such as `"29RKH"`; empty is any. A leading T is understood.
    pub tiles: Vec<String>,
    /// First day of sensing, UTC.
    pub from: NaiveDate,
    /// Last day of sensing, UTC, up to its end.
    pub to: NaiveDate,
    /// Processing level.
    pub level: Level,
    /// Most clouds, percent.
    pub max_cloud: Option<f64>,
    /// Relative orbit, 1 to 143.
    pub relative_orbit: Option<u16>,
}

impl Query {
    /// All products of a level and some days; set an area or tiles as well.
    #[must_use]
    pub fn new(level: Level, from: NaiveDate, to: NaiveDate) -> Self {
        Self { area: None, tiles: Vec::new(), from, to, level, max_cloud: None, relative_orbit: None }
    }

    /// The same, with what can be written in several ways in one of them; or what is wrong with it.
    pub(super) fn checked(&self) -> Result<Self> {
        let mut query = self.clone();
        if query.from > query.to {
            let problem = format!("the last day {} is before the first, {}", query.to, query.from);
            return Err(Error::query(problem));
        }
        for tile in &mut query.tiles {
            let upper = tile.to_ascii_uppercase();
            let id = upper.strip_prefix('T').unwrap_or(&upper);
            if crate::product::tile_id(&format!("T{id}")).is_none() {
                return Err(Error::query(format!("{tile:?} is not an MGRS tile such as 29RKH")));
            }
            *tile = id.to_owned();
        }
        if let Some(area) = &query.area {
            check_area(area)?;
        } else if query.tiles.is_empty() {
            return Err(Error::query("nothing says where: give an area or tiles"));
        }
        if query.max_cloud.is_some_and(|cloud| !(0.0..=100.0).contains(&cloud)) {
            return Err(Error::query("the most clouds are a percentage, 0 to 100"));
        }
        if query.relative_orbit.is_some_and(|orbit| !(1..=143).contains(&orbit)) {
            return Err(Error::query("relative orbits of Sentinel-2 are 1 to 143"));
        }
        Ok(query)
    }

    /// First instant, and the first one that is too late.
    pub(super) fn interval(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let end = self.to.checked_add_days(Days::new(1)).unwrap_or(self.to);
        (self.from.and_time(NaiveTime::MIN).and_utc(), end.and_time(NaiveTime::MIN).and_utc())
    }

    /// Whether an item meets it: services differ in what they understand of a query.
    pub(super) fn takes(&self, item: &Item) -> bool {
        let (start, end) = self.interval();
        (start..end).contains(&item.sensing_start)
            && item.name.level == self.level
            && (self.tiles.is_empty()
                || item.name.tile.as_ref().is_some_and(|tile| self.tiles.contains(tile)))
            && self.relative_orbit.is_none_or(|orbit| orbit == item.name.relative_orbit)
            && self.max_cloud.is_none_or(|most| item.cloud_cover.is_none_or(|cloud| cloud <= most))
            && self
                .area
                .as_ref()
                .is_none_or(|area| item.footprint.0.is_empty() || item.footprint.intersects(area))
    }
}

pub(super) fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A rectangle of west, south, east and north, in degrees.
///
/// # Errors
///
/// [`Error::Query`] when it is empty, leaves the Earth, or crosses the antimeridian.
pub fn area_of_bbox([west, south, east, north]: [f64; 4]) -> Result<Area> {
    if west - east > 180.0 && west <= 180.0 && east >= -180.0 {
        return Err(across_the_antimeridian());
    }
    if !(south < north && west < east) {
        let given = format!("{west},{south},{east},{north}");
        return Err(Error::query(format!(
            "the box {given} is empty: write west, south, east, north in degrees"
        )));
    }
    let area = MultiPolygon(vec![
        Rect::new(coord! { x: west, y: south }, coord! { x: east, y: north }).to_polygon(),
    ]);
    check_area(&area).map(|()| area)
}

fn across_the_antimeridian() -> Error {
    Error::query("the area crosses the antimeridian: ask for its parts east and west of 180° one by one")
}

fn check_area(area: &Area) -> Result<()> {
    let size = area.unsigned_area();
    let Some(bounds) = area.bounding_rect().filter(|_| size > 0.0) else {
        return Err(Error::query("the area is empty: it needs a polygon of at least three corners"));
    };
    let (least, most) = (bounds.min(), bounds.max());
    let whole = size.is_finite() && [least.x, least.y, most.x, most.y].iter().all(|value| value.is_finite());
    if !whole || least.x < -180.0 || most.x > 180.0 || least.y < -90.0 || most.y > 90.0 {
        return Err(Error::query(format!(
            "the area reaches from {}, {} to {}, {}: it must be in degrees of longitude (-180 to 180) and latitude \
             (-90 to 90)",
            least.x, least.y, most.x, most.y
        )));
    }
    if bounds.width() > 180.0 {
        return Err(across_the_antimeridian());
    }
    Ok(())
}

/// A product that a catalogue knows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Item {
    /// The catalogue's name for it.
    pub id: String,
    /// The product's name, without `.SAFE`.
    pub product: String,
    /// What that tells.
    pub name: ProductName,
    /// Start of sensing.
    pub sensing_start: DateTime<Utc>,
    /// Clouds in percent of the valid pixels.
    pub cloud_cover: Option<f64>,
    /// Where it has data; empty when the catalogue does not tell.
    pub footprint: Area,
    /// Whether it can be downloaded now.
    pub online: bool,
    /// The whole product as a zip archive.
    pub archive: Option<Remote>,
    /// Its folder in an object store, `s3://eodata/…/Name.SAFE`.
    pub folder: Option<String>,
    /// Its images, one by one.
    pub assets: BTreeMap<AssetKey, Remote>,
    /// What to add to the DN of the images in `assets` before they are divided by 10,000; `None` when the catalogue
    /// does not let one know.
    pub offset: Option<i32>,
}

impl Item {
    /// The part of an area that it covers, 0 to 1, measured in degrees.
    #[must_use]
    pub fn coverage(&self, area: &Area) -> f64 {
        self.footprint.intersection(area).unsigned_area() / area.unsigned_area()
    }
}

/// An image of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssetKey {
    /// Which.
    pub layer: Layer,
    /// Size of its pixels, metres.
    pub resolution_m: u32,
}

/// As products write it: `"B04_10m"`.
impl fmt::Display for AssetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}m", self.layer, self.resolution_m)
    }
}

/// A file of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub url: String,
    /// The address of the service that gives signatures for it (Planetary Computer).
    pub signed_by: Option<String>,
    /// Size in bytes. The catalogues' sizes of archives are about right, for progress and disk space only.
    pub size: Option<u64>,
    /// Checksums of the file, the most trustworthy first.
    pub checksums: Vec<Checksum>,
}

impl Remote {
    /// A file that anybody may read and of which nothing is known.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), signed_by: None, size: None, checksums: Vec::new() }
    }
}

/// A service that answers queries.
pub trait Catalog {
    /// All products that meet the query, page by page to the end.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] when the query cannot be asked, and what goes wrong with the service.
    fn search(&self, query: &Query) -> Result<Vec<Item>>;
}

/// Leaves one product of what was sensed once (the same satellite, time, orbit, tile and level): that of the highest
/// baseline, and of these the latest. The rest is sorted: those that cover more of the area first (by whole percent),
/// then those of fewer clouds, then the later ones. Coverage comes first because clouds are counted in the valid pixels
/// only, so that a sliver of a tile often has none.
#[must_use]
pub fn best(items: Vec<Item>, area: Option<&Area>) -> Vec<Item> {
    let mut kept: BTreeMap<_, Item> = BTreeMap::new();
    for item in items {
        let name = &item.name;
        let sensed = (
            name.satellite.clone(),
            name.sensing_time.clone(),
            name.relative_orbit,
            name.tile.clone(),
            name.level,
        );
        let version = |item: &Item| (item.name.baseline, item.name.discriminator.clone());
        match kept.entry(sensed) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(item)),
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                if version(entry.get()) < version(&item) {
                    entry.insert(item);
                }
            }
        }
    }
    let mut items: Vec<_> = kept
        .into_values()
        .map(|item| (area.map_or(100.0, |area| (100.0 * item.coverage(area)).round()), item))
        .collect();
    items.sort_by(|(a_covers, a), (b_covers, b)| {
        let cloud = |item: &Item| item.cloud_cover.unwrap_or(100.0);
        (b_covers.total_cmp(a_covers))
            .then(cloud(a).total_cmp(&cloud(b)))
            .then(b.sensing_start.cmp(&a.sensing_start))
    });
    items.into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn refused(change: impl FnOnce(&mut Query)) -> String {
        let mut query = Query::new(Level::L2A, day("2024-01-01"), day("2024-01-31"));
        query.area = Some(area_of_bbox([-2.0, 5.0, -1.0, 6.0]).unwrap());
        change(&mut query);
        query.checked().unwrap_err().to_string()
    }

    #[test]
    fn queries_that_cannot_be_asked_say_why() {
        assert!(refused(|query| query.area = Some(MultiPolygon(Vec::new()))).contains("area is empty"));
        assert!(refused(|query| query.area = None).contains("give an area or tiles"));
        assert!(
            refused(|query| query.tiles = vec!["29RK".to_owned()]).contains("\"29RK\" is not an MGRS tile")
        );
        assert!(refused(|query| query.to = day("2023-12-31")).contains("2023-12-31 is before the first"));
        assert!(refused(|query| query.max_cloud = Some(f64::NAN)).contains("0 to 100"));
        assert!(refused(|query| query.relative_orbit = Some(144)).contains("1 to 143"));
        let text = |bbox| area_of_bbox(bbox).unwrap_err().to_string();
        assert!(text([179.0, 5.0, -179.0, 6.0]).contains("antimeridian"));
        assert!(
            text([-179.0, 5.0, 179.0, 6.0]).contains("antimeridian"),
            "it may be meant as the other way round"
        );
        assert!(text([300_000.0, 5.0, 310_000.0, 6.0]).contains("in degrees"), "metres are no degrees");
        assert!(text([1.0, 6.0, 2.0, 5.0]).contains("write west, south, east, north"));
    }

    #[test]
    fn a_tile_may_have_its_t_and_the_last_day_is_whole() {
        let mut query = Query::new(Level::L2A, day("2024-02-28"), day("2024-02-29"));
        query.tiles = vec!["T29RKH".to_owned(), "29rkh".to_owned()];
        let query = query.checked().unwrap();
        assert_eq!(query.tiles, ["29RKH", "29RKH"]);
        let (start, end) = query.interval();
        assert_eq!(
            (rfc3339(start).as_str(), rfc3339(end).as_str()),
            ("2024-02-28T00:00:00.000Z", "2024-03-01T00:00:00.000Z")
        );
    }

    fn item(product: &str, cloud: f64, [west, east]: [f64; 2]) -> Item {
        let name: ProductName = product.parse().unwrap();
        Item {
            id: product.to_owned(),
            product: product.to_owned(),
            sensing_start: day("2020-02-19").and_time(NaiveTime::MIN).and_utc(),
            cloud_cover: Some(cloud),
            footprint: area_of_bbox([west, 5.0, east, 6.0]).unwrap(),
            online: true,
            archive: None,
            folder: None,
            assets: BTreeMap::new(),
            offset: None,
            name,
        }
    }

    #[test]
    fn what_was_processed_again_is_left_out_and_coverage_comes_before_clouds() {
        let area = area_of_bbox([0.0, 5.0, 10.0, 6.0]).unwrap();
        let name = |baseline, tile, made| format!("S2A_MSIL2A_20200219T112111_{baseline}_R037_{tile}_{made}");
        let items = vec![
            item(&name("N0214", "T29RKH", "20200219T140000"), 0.0, [0.0, 10.0]),
            item(&name("N0500", "T29RKH", "20230428T140000"), 30.0, [0.0, 10.0]),
            item(&name("N0500", "T29RKH", "20230427T140000"), 30.0, [0.0, 10.0]),
            item(&name("N0500", "T29RLH", "20230428T140000"), 20.0, [0.0, 10.0]),
            item(&name("N0500", "T29RMH", "20230428T140000"), 0.0, [0.0, 1.0]),
        ];
        assert!((items[4].coverage(&area) - 0.1).abs() < 1e-9, "a tenth is covered");
        let found: Vec<_> = best(items, Some(&area)).into_iter().map(|item| item.product).collect();
        assert_eq!(
            found,
            [
                name("N0500", "T29RLH", "20230428T140000"),
                name("N0500", "T29RKH", "20230428T140000"),
                name("N0500", "T29RMH", "20230428T140000"),
            ]
        );
    }
}
