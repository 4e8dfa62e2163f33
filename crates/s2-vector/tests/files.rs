//! `GeoJSON` files: what is written is read back, what others write is read, what is wrong is refused.

use geo_types::{LineString, Polygon, polygon};
use s2_vector::serde_json::{Map, Value, json};
use s2_vector::{Error, Feature, FeatureCollection, read_geojson, write_geojson};
use std::{error::Error as _, fs};

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn square() -> Polygon<f64> {
    polygon![
        exterior: [(x: -9.0, y: 5.0), (x: -8.0, y: 5.0), (x: -8.0, y: 6.0), (x: -9.0, y: 6.0)],
        interiors: [[(x: -8.6, y: 5.4), (x: -8.6, y: 5.6), (x: -8.4, y: 5.6), (x: -8.4, y: 5.4)]],
    ]
}

fn feature(polygon: Polygon<f64>) -> Feature {
    Feature { polygon, properties: Map::from_iter([("area_ha".to_owned(), json!(12.5))]) }
}

fn collection(features: Vec<Feature>) -> FeatureCollection {
    FeatureCollection { features, metadata: Map::from_iter([("threshold".to_owned(), json!(0.35))]) }
}

/// What reading a file with this content gives.
fn read(content: &str) -> Result<FeatureCollection, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("truth.geojson");
    fs::write(&path, content).expect("written");
    read_geojson(path)
}

/// A file with one feature of this geometry.
fn with_geometry(geometry: Value) -> String {
    json!({
        "type": "FeatureCollection",
        "features": [{ "type": "Feature", "properties": { "name": "a" }, "geometry": geometry }],
    })
    .to_string()
}

#[test]
fn what_is_written_is_read_back_and_nothing_else_is_left_in_the_folder() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mines.geojson");
    for expected in [collection(vec![feature(square()); 3]), collection(vec![]), FeatureCollection::default()]
    {
        write_geojson(&path, &expected)?;
        assert_eq!(read_geojson(&path)?, expected);
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
    }
    Ok(())
}

#[test]
fn the_file_is_what_rfc_7946_says() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mines.geojson");
    // Clockwise outside, counter-clockwise inside, and with more digits than are written.
    let mut polygon = square();
    polygon.exterior_mut(|ring| ring.0.reverse());
    polygon.interiors_mut(|rings| rings[0].0.reverse());
    polygon.exterior_mut(|ring| ring.0[1].y = 5.999_999_996);
    write_geojson(&path, &collection(vec![feature(polygon)]))?;
    let found: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let expected = json!({
        "type": "FeatureCollection",
        "features": [{
            "type": "Feature",
            "geometry": { "type": "Polygon", "coordinates": [
                [[-9.0, 5.0], [-8.0, 5.0], [-8.0, 6.0], [-9.0, 6.0], [-9.0, 5.0]],
                [[-8.6, 5.4], [-8.6, 5.6], [-8.4, 5.6], [-8.4, 5.4], [-8.6, 5.4]],
            ] },
            "properties": { "area_ha": 12.5 },
        }],
        "metadata": { "threshold": 0.35 },
    });
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn the_parts_of_a_multi_polygon_become_features_with_the_same_properties() -> TestResult {
    let ring = json!([[1, 1], [2, 1], [2, 2], [1, 1]]);
    let other = json!([[3.5, 1, 250], [4, 1, 250], [4, 2, 250], [3.5, 1, 250]]);
    let found = read(&with_geometry(json!({ "type": "MultiPolygon", "coordinates": [[ring], [other]] })))?;
    let expected = [
        polygon![(x: 1., y: 1.), (x: 2., y: 1.), (x: 2., y: 2.)],
        polygon![(x: 3.5, y: 1.), (x: 4., y: 1.), (x: 4., y: 2.)],
    ];
    assert_eq!(
        found.features.iter().map(|feature| &feature.polygon).collect::<Vec<_>>(),
        expected.each_ref()
    );
    assert!(found.features.iter().all(|feature| feature.properties["name"] == "a"));
    assert!(found.metadata.is_empty());
    Ok(())
}

#[test]
fn an_old_file_may_name_longitude_and_latitude_but_no_other_system() -> TestResult {
    let file = |crs: Value| json!({ "type": "FeatureCollection", "crs": crs, "features": [] }).to_string();
    let named = |name: &str| file(json!({ "type": "name", "properties": { "name": name } }));
    for name in [
        "urn:ogc:def:crs:OGC:1.3:CRS84",
        "urn:ogc:def:crs:OGC::CRS84",
        "OGC:CRS84",
        "EPSG:4326",
        "epsg:4326",
        "urn:ogc:def:crs:EPSG::4326",
        "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
        "http://www.opengis.net/def/crs/EPSG/0/4326",
    ] {
        assert_eq!(read(&named(name))?, FeatureCollection::default(), "{name}");
    }
    for name in ["EPSG:32629", "urn:ogc:def:crs:EPSG::32629", "urn:ogc:def:crs:EPSG::3857", "4326", ""] {
        let error = read(&named(name)).expect_err("refused");
        assert!(matches!(&error, Error::UnsupportedCrs { crs, .. } if crs == name), "{name}: {error}");
        assert!(error.to_string().contains("ogr2ogr -t_srs EPSG:4326"), "{error}");
    }
    for crs in [Value::Null, json!({ "type": "link" }), json!("EPSG:4326")] {
        assert!(matches!(read(&file(crs.clone())), Err(Error::UnsupportedCrs { .. })), "{crs}");
    }
    Ok(())
}

#[test]
fn a_feature_that_is_no_polygon_in_degrees_is_refused_with_its_number() {
    let polygon = |ring: Value| json!({ "type": "Polygon", "coordinates": [ring] });
    for (geometry, problem) in [
        (Value::Null, "has no geometry"),
        (json!({ "type": "Point", "coordinates": [1, 2] }), "is a Point"),
        (json!({ "type": "GeometryCollection", "geometries": [] }), "is a GeometryCollection"),
        (json!({ "type": "Polygon", "coordinates": [] }), "without rings"),
        (polygon(json!([])), "ring of 0 positions"),
        (polygon(json!([[1, 1], [2, 2], [1, 1]])), "ring of 3 positions"),
        (polygon(json!([[600_000, 5e5], [600_010, 5e5], [600_010, 500_010]])), "(600000, 500000)"),
        (polygon(json!([[1, 1], [2], [2, 2], [1, 1]])), "fewer than two numbers"),
        (polygon(json!([[1, 1], [2, 91], [2, 2], [1, 1]])), "(2, 91)"),
    ] {
        let error = read(&with_geometry(geometry.clone())).expect_err("refused");
        assert!(matches!(error, Error::BadFeature { index: 0, .. }), "{geometry}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("truth.geojson: feature 0 ") && text.contains(problem), "{text}");
    }
}

#[test]
fn a_file_that_is_no_feature_collection_is_refused() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mines.geojson");
    write_geojson(&path, &collection(vec![feature(square())]))?;
    let whole = fs::read(&path)?;
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length])?;
        let error = read_geojson(&path).expect_err("truncated");
        assert!(matches!(error, Error::NotGeoJson { .. }), "{length} bytes: {error}");
        assert!(error.source().is_some(), "{length} bytes: the parser's words");
    }
    for content in [
        "II*\0",
        "[]",
        r#"{"type": "Feature", "properties": {}, "geometry": null}"#,
        r#"{"type": "FeatureCollection"}"#,
        r#"{"type": "FeatureCollection", "features": [{"type": "Polygon", "coordinates": []}]}"#,
        r#"{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry":
            {"type": "Polygon", "coordinates": [[[1e999, 2], [2, 3], [4, 5], [1, 2]]]}}]}"#,
    ] {
        let error = read(content).expect_err("refused");
        assert!(matches!(error, Error::NotGeoJson { .. }), "{content}: {error}");
    }
    Ok(())
}

#[test]
fn a_missing_file_is_named() {
    let error = read_geojson("no/such/file.geojson").expect_err("missing");
    assert!(matches!(error, Error::Read { .. }), "{error:?}");
    assert_eq!(error.to_string(), "cannot read no/such/file.geojson");
}

#[test]
fn what_cannot_be_written_leaves_the_old_file_as_it_was() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mines.geojson");
    let old = collection(vec![feature(square())]);
    write_geojson(&path, &old)?;
    let metres = polygon![(x: 6e5, y: 5e5), (x: 6.1e5, y: 5e5), (x: 6.1e5, y: 5.1e5)];
    let empty = Polygon::new(LineString::new(Vec::new()), Vec::new());
    let nan = polygon![(x: 1.0, y: f64::NAN), (x: 2., y: 1.), (x: 2., y: 2.)];
    for bad in [metres, empty, nan] {
        let error =
            write_geojson(&path, &collection(vec![feature(square()), feature(bad)])).expect_err("refused");
        assert!(matches!(error, Error::BadFeature { index: 1, .. }), "{error:?}");
        assert_eq!(read_geojson(&path)?, old);
    }
    // A folder in the way of the file: the rename fails.
    let in_the_way = folder.path().join("folder");
    fs::create_dir(&in_the_way)?;
    assert!(matches!(write_geojson(&in_the_way, &old), Err(Error::Write { .. })));
    assert!(matches!(
        write_geojson(folder.path().join("no/such/folder/a.geojson"), &old),
        Err(Error::Write { .. })
    ));
    assert!(matches!(write_geojson("..", &old), Err(Error::Write { .. })));
    assert_eq!(fs::read_dir(folder.path())?.count(), 2);
    Ok(())
}

#[cfg(unix)]
#[test]
fn the_file_has_the_permissions_of_any_other_new_file() -> TestResult {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    let (ours, plain) = (folder.path().join("a.geojson"), folder.path().join("plain"));
    write_geojson(&ours, &FeatureCollection::default())?;
    fs::write(&plain, "")?;
    assert_eq!(fs::metadata(ours)?.permissions().mode(), fs::metadata(plain)?.permissions().mode());
    Ok(())
}
