//! Values of GDAL, PROJ and shapely, made by `data/make_golden.py`.

use geo::{Area, BoundingRect, Euclidean, Length};
use geo_types::{LineString, Polygon};
use ndarray::Array2;
use s2_vector::{Utm, area_ha_geodesic, area_ha_utm, polygonize, rasterize, to_lonlat};
use serde_json::Value;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The lines of a CSV file of numbers, without the header.
fn numbers<const COLUMNS: usize>(csv: &str) -> Vec<[f64; COLUMNS]> {
    let row = |line: &str| {
        let values: Vec<f64> = line.split(',').map(|value| value.parse().expect("a number")).collect();
        values.try_into().expect("the columns of the header")
    };
    csv.lines().skip(1).map(row).collect()
}

fn epsg(value: f64) -> u32 {
    format!("{value}").parse().expect("a whole number")
}

fn transform(case: &Value) -> [f64; 6] {
    serde_json::from_value(case["transform"].clone()).expect("six numbers")
}

fn mask(case: &Value) -> Array2<bool> {
    let rows: Vec<&str> = case["mask"].as_array().expect("rows").iter().filter_map(Value::as_str).collect();
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(row, col)| rows[row].as_bytes()[col] == b'#')
}

#[test]
fn utm_agrees_with_proj_to_ten_nanometres() -> TestResult {
    // One unit in the last place of a northing is 1.9 nm; both sides sum a dozen terms of that size.
    const TOLERANCE_M: f64 = 1e-8;
    let metres_per_degree = 111_320.0;
    let rows = numbers::<10>(include_str!("data/utm.csv"));
    assert_eq!(rows.len(), 240);
    let (mut worst_forward, mut worst_inverse, mut worst_scale) = (0.0_f64, 0.0_f64, 0.0_f64);
    for [code, lon, lat, x, y, scale, inverse_x, inverse_y, inverse_lon, inverse_lat] in rows {
        let utm = Utm::from_epsg(epsg(code))?;
        assert_eq!(utm.epsg(), epsg(code));
        let found = utm.forward(lon, lat);
        worst_forward = worst_forward.max((found.0 - x).hypot(found.1 - y));
        worst_scale = worst_scale.max((utm.scale(lon, lat) / scale - 1.0).abs());
        let found = utm.inverse(inverse_x, inverse_y);
        let east = (found.0 - inverse_lon) * inverse_lat.to_radians().cos() * metres_per_degree;
        worst_inverse = worst_inverse.max(east.hypot((found.1 - inverse_lat) * metres_per_degree));
    }
    println!("worst: forward {worst_forward:e} m, inverse {worst_inverse:e} m, scale {worst_scale:e}");
    assert!(worst_forward < TOLERANCE_M, "forward is {worst_forward} m off");
    assert!(worst_inverse < TOLERANCE_M, "inverse is {worst_inverse} m off");
    // PROJ differentiates numerically with steps of 1e-5 rad: good to about 1e-10.
    assert!(worst_scale < 1e-9, "scale is {worst_scale} off");
    Ok(())
}

#[test]
fn rasterize_equals_gdal_also_for_centres_on_edges() -> TestResult {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/rasterize.json"))?;
    assert!(cases.len() > 40, "{} cases", cases.len());
    for case in &cases {
        let polygons: Vec<Vec<Vec<[f64; 2]>>> = serde_json::from_value(case["polygons"].clone())?;
        let polygons: Vec<Polygon<f64>> = polygons
            .into_iter()
            .map(|rings| {
                let mut rings = rings.into_iter().map(LineString::from);
                Polygon::new(rings.next().expect("an exterior"), rings.collect())
            })
            .collect();
        let expected = mask(case);
        let (height, width) = expected.dim();
        let found = rasterize(&polygons, &transform(case), height, width)?;
        assert_eq!(found, expected, "{}", case["name"]);
    }
    Ok(())
}

#[test]
fn polygonize_equals_gdal() -> TestResult {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/polygonize.json"))?;
    assert!(cases.len() > 8, "{} cases", cases.len());
    for case in &cases {
        let expected: Vec<[f64; 6]> = serde_json::from_value(case["area_length_bounds"].clone())?;
        let mut found: Vec<[f64; 6]> = polygonize(mask(case).view(), &transform(case))
            .iter()
            .map(|polygon| {
                let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
                let length = rings.map(|ring| Euclidean.length(ring)).sum();
                let bounds = polygon.bounding_rect().expect("corners");
                let (min, max) = (bounds.min(), bounds.max());
                [polygon.signed_area(), length, min.x, min.y, max.x, max.y]
            })
            .collect();
        found.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
        // Whole numbers below 2^53: exact on both sides.
        assert_eq!(found, expected, "{}", case["name"]);
    }
    Ok(())
}

#[test]
fn areas_agree_with_geodesics() -> TestResult {
    let rows = numbers::<5>(include_str!("data/areas.csv"));
    assert_eq!(rows.len(), 64);
    let (mut worst_utm, mut worst_geodesic) = (0.0_f64, 0.0_f64);
    for [code, x, y, size, expected_ha] in rows {
        let utm = Utm::from_epsg(epsg(code))?;
        let ring = |corners: &[(f64, f64)]| -> LineString<f64> {
            corners.iter().map(|&(right, up)| (x + right * size, y + up * size)).collect()
        };
        let polygon = Polygon::new(
            ring(&[(0., 0.), (1., 0.), (1., 0.5), (0.5, 0.5), (0.5, 1.), (0., 1.)]),
            vec![ring(&[(0.1, 0.1), (0.1, 0.4), (0.4, 0.4), (0.4, 0.1)])],
        );
        let utm_error = (area_ha_utm(&polygon, utm) / expected_ha - 1.0).abs();
        let geodesic_error = (area_ha_geodesic(&to_lonlat(&polygon, utm)) / expected_ha - 1.0).abs();
        // The golden coordinates are rounded to 2 nm; on 10 m, each of ten corners adds up to 2e-10 · 10 / 6.
        let rounding = 1e-6 / size;
        // On the grid a geodesic has the curvature (distance from the central meridian) / R² at most, and
        // encloses curvature · length³ / 12 with its chord: over the edges that run north, size³ · 1.3 / 12
        // of size² · 0.66.
        let bent = 440e3 / 6.37e6_f64.powi(2) * size / 6.0;
        let place = format!("EPSG:{code}, x {x}, y {y}, {size} m");
        assert!(utm_error < 1e-8 + rounding, "{place}: area_ha_utm is {utm_error:e} off");
        assert!(
            geodesic_error < 1e-8 + rounding + bent,
            "{place}: area_ha_geodesic is {geodesic_error:e} off"
        );
        worst_utm = worst_utm.max(utm_error);
        worst_geodesic = worst_geodesic.max(geodesic_error);
    }
    println!("worst relative error: utm {worst_utm:e}, geodesic of long edges {worst_geodesic:e}");
    Ok(())
}
