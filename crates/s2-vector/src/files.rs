//! `GeoJSON` files (RFC 7946): polygons in WGS84 longitude and latitude, with properties and metadata.

use crate::{Error, Result};
use geo::orient::{Direction, Orient};
use geo_types::{Coord, LineString, Polygon};
use geojson::{GeometryValue, JsonObject, PolygonType};
use serde_json::{Map, Value};
use std::{fs, io, io::Write, path::Path};

/// Coordinates are rounded to 1 / this, 8 decimals: 0.11 cm on the ground at most.
const COORDINATES_PER_DEGREE: f64 = 1e8;

/// The foreign member of the collection (RFC 7946 §6.1) that holds the metadata.
const METADATA: &str = "metadata";

/// A polygon in WGS84 longitude and latitude (degrees) with its properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// The polygon, with holes.
    pub polygon: Polygon<f64>,
    /// What is known about it, for example its area in hectares.
    pub properties: Map<String, Value>,
}

/// The content of a file: polygons, and what they have in common.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureCollection {
    /// The polygons, in the order of the file.
    pub features: Vec<Feature>,
    /// What holds for all of them, for example product, model and threshold.
    pub metadata: Map<String, Value>,
}

/// Writes polygons in longitude and latitude to a `GeoJSON` file that follows RFC 7946.
///
/// Coordinates have 8 decimals (0.11 cm on the ground at most). Rings are turned as the standard asks,
/// exteriors counter-clockwise and holes clockwise. The metadata become the member `metadata` of the
/// collection, which other programs ignore; it is left out when empty. A polygon across the 180° meridian is
/// not cut there.
///
/// The file is written beside the target under a temporary name, synced and renamed: a killed program leaves
/// the old file or the new one, never half of one.
///
/// # Errors
///
/// [`Error::BadFeature`] if a ring has fewer than three corners or leaves the range of longitude and latitude
/// (UTM metres: convert with [`to_lonlat`](crate::to_lonlat) first); [`Error::Write`] if the system refuses.
///
/// # Examples
///
/// ```
/// use s2_vector::{Feature, FeatureCollection, geo_types::polygon, read_geojson, serde_json::json, write_geojson};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("mines.geojson");
/// let mut mines = FeatureCollection::default();
/// mines.features.push(Feature {
///     polygon: polygon![(x: -9.0, y: 5.0), (x: -8.9, y: 5.0), (x: -8.9, y: 5.1)],
///     properties: json!({ "area_ha": 6130.4 }).as_object().cloned().unwrap_or_default(),
/// });
/// mines.metadata.insert("threshold".into(), json!(0.35));
/// write_geojson(&path, &mines)?;
/// assert_eq!(read_geojson(&path)?, mines);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_geojson(path: impl AsRef<Path>, collection: &FeatureCollection) -> Result<()> {
    let path = path.as_ref();
    let mut features = Vec::with_capacity(collection.features.len());
    for (index, Feature { polygon, properties }) in collection.features.iter().enumerate() {
        let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
        rings.into_iter().try_for_each(check_ring).map_err(|problem| bad_feature(path, index, problem))?;
        features.push(geojson::Feature {
            geometry: Some(GeometryValue::new_polygon(to_positions(polygon)).into()),
            properties: Some(properties.clone()),
            ..Default::default()
        });
    }
    let metadata = &collection.metadata;
    let foreign_members = (!metadata.is_empty())
        .then(|| JsonObject::from_iter([(METADATA.to_owned(), Value::Object(metadata.clone()))]));
    let collection = geojson::FeatureCollection { bbox: None, features, foreign_members };
    write_atomically(path, |file| Ok(serde_json::to_writer(file, &collection)?))
        .map_err(|source| Error::Write { path: path.into(), source })
}

/// Reads the polygons of a `GeoJSON` file in longitude and latitude.
///
/// Each polygon of a `MultiPolygon` becomes a feature of its own, with the same properties. Heights are
/// dropped. Rings keep their direction; one that is not closed is closed. The metadata are those of
/// [`write_geojson`], empty if there are none; other members of the collection and identifiers of features
/// are left out. A `crs` member, as files from before RFC 7946 have it, may name EPSG:4326 or CRS84 and is
/// refused otherwise.
///
/// # Errors
///
/// [`Error::Read`] if the system refuses; [`Error::NotGeoJson`] if the file is no `FeatureCollection`;
/// [`Error::UnsupportedCrs`] as above; [`Error::BadFeature`] for a feature that is no polygon, a ring with
/// fewer than three corners, and coordinates outside the range of longitude and latitude.
pub fn read_geojson(path: impl AsRef<Path>) -> Result<FeatureCollection> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let collection: geojson::FeatureCollection =
        serde_json::from_slice(&bytes).map_err(|source| Error::NotGeoJson { path: path.into(), source })?;
    let mut members = collection.foreign_members.unwrap_or_default();
    check_crs(path, members.get("crs"))?;

    let mut features = Vec::with_capacity(collection.features.len());
    for (index, feature) in collection.features.into_iter().enumerate() {
        let bad = |problem: String| bad_feature(path, index, problem);
        let properties = feature.properties.unwrap_or_default();
        let polygons = match feature.geometry.map(|geometry| geometry.value) {
            Some(GeometryValue::Polygon { coordinates }) => vec![coordinates],
            Some(GeometryValue::MultiPolygon { coordinates }) => coordinates,
            Some(other) => {
                return Err(bad(format!(
                    "is a {}; only Polygon and MultiPolygon are read",
                    other.type_name()
                )));
            }
            None => return Err(bad("has no geometry; remove it from the file".into())),
        };
        for positions in polygons {
            let polygon = to_polygon(&positions).map_err(bad)?;
            features.push(Feature { polygon, properties: properties.clone() });
        }
    }
    let metadata = match members.remove(METADATA) {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    Ok(FeatureCollection { features, metadata })
}

fn bad_feature(path: &Path, index: usize, problem: String) -> Error {
    Error::BadFeature { path: path.into(), index, problem }
}

/// Refuses a `crs` member (`GeoJSON` 2008 §3) other than longitude and latitude on WGS84.
fn check_crs(path: &Path, crs: Option<&Value>) -> Result<()> {
    let Some(crs) = crs else { return Ok(()) };
    let name = crs.pointer("/properties/name").and_then(Value::as_str);
    // `EPSG:4326`, `urn:ogc:def:crs:EPSG::4326`, `urn:ogc:def:crs:OGC:1.3:CRS84`, `http://…/OGC/1.3/CRS84`
    let mut parts = name.unwrap_or_default().rsplit([':', '/']);
    let code = parts.next().unwrap_or_default();
    if code == "CRS84" || (code == "4326" && parts.any(|part| part.eq_ignore_ascii_case("EPSG"))) {
        return Ok(());
    }
    Err(Error::UnsupportedCrs { path: path.into(), crs: name.map_or_else(|| crs.to_string(), str::to_owned) })
}

/// What is wrong with a closed ring, as the end of a sentence.
fn check_ring(ring: &LineString<f64>) -> Result<(), String> {
    let off_earth = |p: &&Coord<f64>| !((-180.0..=180.0).contains(&p.x) && (-90.0..=90.0).contains(&p.y));
    if let Some(Coord { x, y }) = ring.coords().find(off_earth) {
        return Err(format!(
            "has the position ({x}, {y}), which is no longitude and latitude in degrees; convert it to EPSG:4326 first"
        ));
    }
    // RFC 7946 §3.1.6
    if ring.0.len() < 4 {
        return Err(format!("has a ring of {} positions; a closed ring has at least 4", ring.0.len()));
    }
    Ok(())
}

fn to_polygon(positions: &PolygonType) -> Result<Polygon<f64>, String> {
    let mut rings = positions.iter().map(|ring| {
        let coordinates = ring.iter().map(|position| match *position.as_slice() {
            [x, y, ..] => Ok(Coord { x, y }),
            _ => Err("has a position of fewer than two numbers"),
        });
        let mut ring: LineString<f64> = coordinates.collect::<Result<_, _>>()?;
        ring.close();
        check_ring(&ring).map(|()| ring)
    });
    let exterior = rings.next().ok_or("has a polygon without rings; remove it from the file")??;
    Ok(Polygon::new(exterior, rings.collect::<Result<_, _>>()?))
}

fn to_positions(polygon: &Polygon<f64>) -> PolygonType {
    let round = |degrees: f64| (degrees * COORDINATES_PER_DEGREE).round() / COORDINATES_PER_DEGREE;
    let polygon = polygon.orient(Direction::Default);
    let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
    rings.map(|ring| ring.coords().map(|p| (round(p.x), round(p.y)).into()).collect()).collect()
}

/// Gives `path` its new content at once or not at all.
fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?);
    name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary).map(io::BufWriter::new).and_then(|mut file| {
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // Nothing to add where this fails too: the first cause is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}
