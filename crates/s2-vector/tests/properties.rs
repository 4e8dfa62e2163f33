//! What holds for any mask and any polygon, and slow obvious versions as judges of the fast ones.

use geo::{Contains, Validation, Winding};
use geo_types::{Coord, LineString, Point, Polygon, polygon};
use ndarray::{Array2, array};
use proptest::{prelude::*, test_runner::RngSeed};
use s2_vector::{Error, Utm, area_ha_geodesic, area_ha_utm, polygonize, rasterize, to_lonlat, to_utm};

const NORTH_UP: [f64; 6] = [600_000.0, 10.0, 0.0, 700_000.0, 0.0, -10.0];

fn masks() -> impl Strategy<Value = Array2<bool>> {
    (0..20_usize, 0..20_usize, 0.1..0.9).prop_flat_map(|(height, width, density)| {
        let pixels = prop::collection::vec(prop::bool::weighted(density), height * width);
        pixels.prop_map(move |pixels| Array2::from_shape_vec((height, width), pixels).expect("as many"))
    })
}

fn transforms() -> impl Strategy<Value = [f64; 6]> {
    let general = [-1e6..1e6, 1.0..30.0, -0.4..0.4, -1e6..1e6, -0.4..0.4, 1.0..30.0];
    prop_oneof![
        Just(NORTH_UP),
        (general, any::<[bool; 2]>()).prop_map(
            |([x0, dx, rx, y0, ry, dy], [mirror_x, mirror_y]): ([f64; 6], [bool; 2])| {
                [x0, if mirror_x { -dx } else { dx }, rx, y0, ry, if mirror_y { -dy } else { dy }]
            }
        ),
    ]
}

/// Labels 4-connected components one pixel after the other.
fn components(mask: &Array2<bool>) -> (Array2<usize>, usize) {
    let (height, width) = mask.dim();
    let mut labels = Array2::zeros((height, width));
    let mut count = 0;
    for first in ndarray::indices((height, width)) {
        if !mask[first] || labels[first] != 0 {
            continue;
        }
        count += 1;
        let mut stack = vec![first];
        while let Some((row, col)) = stack.pop() {
            if row < height && col < width && mask[(row, col)] && labels[(row, col)] == 0 {
                labels[(row, col)] = count;
                stack.extend([(row + 1, col), (row, col + 1)]);
                stack.extend(
                    [row.checked_sub(1).zip(Some(col)), Some(row).zip(col.checked_sub(1))].iter().flatten(),
                );
            }
        }
    }
    (labels, count)
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(2022),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rasterize_gives_back_the_mask_that_was_polygonized(mask in masks(), transform in transforms()) {
        let (height, width) = mask.dim();
        let polygons = polygonize(mask.view(), &transform);
        prop_assert_eq!(rasterize(&polygons, &transform, height, width).expect("valid input"), mask);
    }

    #[test]
    fn each_polygon_is_one_four_connected_component_in_the_order_of_first_pixels(mask in masks()) {
        let (height, width) = mask.dim();
        let (labels, count) = components(&mask);
        let polygons = polygonize(mask.view(), &NORTH_UP);
        prop_assert_eq!(polygons.len(), count);
        for (polygon, label) in polygons.iter().zip(1..) {
            let burnt = rasterize([polygon], &NORTH_UP, height, width).expect("valid input");
            prop_assert_eq!(burnt, labels.mapv(|other| other == label));
        }
    }

    #[test]
    fn traced_polygons_are_valid_without_needless_corners(mask in masks(), transform in transforms()) {
        let determinant = transform[1] * transform[5] - transform[2] * transform[4];
        for polygon in polygonize(mask.view(), &transform) {
            prop_assert!(polygon.is_valid(), "{:?}", polygon.validation_errors());
            prop_assert!(polygon.exterior().is_ccw());
            prop_assert!(polygon.interiors().iter().all(Winding::is_cw));
            for ring in std::iter::once(polygon.exterior()).chain(polygon.interiors()) {
                let corners = &ring.0[1..];
                for (i, &corner) in corners.iter().enumerate() {
                    let (before, after) = (ring.0[i], corners[(i + 1) % corners.len()]);
                    let (a, b) = (corner - before, after - corner);
                    // A right angle in pixels spans at least one pixel's area.
                    let turn = (a.x * b.y - a.y * b.x).abs();
                    prop_assert!(turn > 0.9 * determinant.abs(), "no corner at {corner:?}");
                }
            }
        }
    }

    #[test]
    fn a_mask_seen_through_another_memory_order_gives_the_same_polygons(mask in masks()) {
        let columns_first = Array2::from_shape_fn(mask.t().dim(), |(col, row)| mask[(row, col)]);
        prop_assert_eq!(polygonize(columns_first.t(), &NORTH_UP), polygonize(mask.view(), &NORTH_UP));
    }

    #[test]
    fn rasterize_agrees_with_asking_for_every_pixel_centre(
        corners in prop::collection::vec((-5.0..25.0, -5.0..25.0), 3..12),
        hole in prop::collection::vec((2.0..18.0, 2.0..18.0), 3..6),
    ) {
        // Stars around their mean, so that rings do not cross themselves. A hole may cross the exterior: both
        // rules count crossings then.
        let star = |corners: &[(f64, f64)]| -> LineString<f64> {
            let count = corners.len() as f64;
            let mean = corners.iter().fold((0.0, 0.0), |sum, c| (sum.0 + c.0 / count, sum.1 + c.1 / count));
            let mut corners = corners.to_vec();
            corners.sort_by(|a, b| {
                let angle = |c: &(f64, f64)| (c.1 - mean.1).atan2(c.0 - mean.0);
                angle(a).total_cmp(&angle(b))
            });
            corners.into_iter().collect()
        };
        let rings = [Polygon::new(star(&corners), vec![]), Polygon::new(star(&hole), vec![])];
        let both = Polygon::new(rings[0].exterior().clone(), vec![rings[1].exterior().clone()]);
        let mask = rasterize([&both], &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 20, 20).expect("valid input");
        for ((row, col), &burnt) in mask.indexed_iter() {
            let centre = Point::new(col as f64 + 0.5, row as f64 + 0.5);
            prop_assert_eq!(burnt, rings[0].contains(&centre) != rings[1].contains(&centre), "{:?}", centre);
        }
    }

    #[test]
    fn several_polygons_are_united(a in masks(), b in masks()) {
        let (height, width) = (20, 20);
        let polygons = [polygonize(a.view(), &NORTH_UP), polygonize(b.view(), &NORTH_UP)];
        let burn = |polygons: &[Polygon<f64>]| rasterize(polygons, &NORTH_UP, height, width).expect("valid input");
        let union = burn(&polygons[0]) | burn(&polygons[1]);
        prop_assert_eq!(burn(&polygons.concat()), union);
    }

    #[test]
    fn utm_there_and_back_is_the_same_place(
        zone in 1..=60_u32, southern in any::<bool>(), x in 160_000.0..840_000.0, y in 1_100_000.0..9_300_000.0,
    ) {
        let utm = Utm::from_epsg(if southern { 32700 } else { 32600 } + zone).expect("a zone");
        let (lon, lat) = utm.inverse(x, y);
        prop_assert!((-180.0..=180.0).contains(&lon) && (-90.0..=90.0).contains(&lat));
        let (x_again, y_again) = utm.forward(lon, lat);
        // 180 degrees are rounded to 3e-14 degrees, 3 nm; then as for one way.
        prop_assert!((x_again - x).hypot(y_again - y) < 2e-8, "({x_again}, {y_again})");
    }
}

#[test]
fn a_component_that_touches_itself_at_a_corner_becomes_a_valid_ring_and_a_hole() {
    let mask = array![[true, true, true], [true, false, true], [true, true, false]];
    let polygons = polygonize(mask.view(), &[0.0, 1.0, 0.0, 0.0, 0.0, -1.0]);
    let expected = Polygon::new(
        [(0., 0.), (0., -3.), (2., -3.), (2., -2.), (3., -2.), (3., 0.)].into_iter().collect(),
        vec![[(2., -1.), (2., -2.), (1., -2.), (1., -1.)].into_iter().collect()],
    );
    assert_eq!(polygons, [expected]);
    assert!(polygons[0].is_valid());
}

#[test]
fn an_empty_mask_has_no_polygon() {
    assert_eq!(polygonize(Array2::from_elem((0, 5), true).view(), &NORTH_UP), []);
    assert_eq!(polygonize(Array2::from_elem((5, 0), true).view(), &NORTH_UP), []);
    assert_eq!(polygonize(Array2::from_elem((5, 5), false).view(), &NORTH_UP), []);
}

#[test]
fn no_polygons_burn_nothing() -> Result<(), Error> {
    assert_eq!(rasterize([], &NORTH_UP, 2, 3)?, Array2::from_elem((2, 3), false));
    let empty = Polygon::new(LineString::new(Vec::new()), Vec::new());
    assert_eq!(rasterize([&empty], &NORTH_UP, 2, 3)?, Array2::from_elem((2, 3), false));
    assert_eq!(rasterize([&empty], &NORTH_UP, 0, 0)?.len(), 0);
    Ok(())
}

#[test]
fn a_singular_transform_is_refused() {
    let polygon = polygon![(x: 0., y: 0.), (x: 1., y: 0.), (x: 1., y: 1.)];
    for transform in [
        [0.0; 6],
        [0., 1., 2., 0., 2., 4.],
        [0., 10., 0., 0., 0., f64::NAN],
        [f64::INFINITY, 1., 0., 0., 0., 1.],
    ] {
        let result = rasterize([&polygon], &transform, 2, 2);
        assert!(matches!(result, Err(Error::SingularTransform { .. })), "{transform:?}: {result:?}");
    }
}

#[test]
fn a_position_that_is_not_finite_is_refused_by_the_number_of_its_polygon_and_has_no_area() {
    let good = polygon![(x: 0., y: 0.), (x: 1., y: 0.), (x: 1., y: 1.)];
    for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let bad = polygon![(x: 0., y: 0.), (x: x, y: 0.), (x: 1., y: 1.)];
        let result = rasterize([&good, &bad], &NORTH_UP, 2, 2);
        assert!(matches!(result, Err(Error::NotFinite { index: 1, .. })), "{result:?}");
        let utm = Utm::from_epsg(32629).expect("a zone");
        assert!(!area_ha_utm(&bad, utm).is_finite() && !area_ha_geodesic(&bad).is_finite(), "no area");
    }
}

#[test]
fn polygons_far_outside_and_of_huge_size_are_cut_off() -> Result<(), Error> {
    let transform = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0];
    let huge =
        polygon![(x: -1e300, y: -1e300), (x: 1e300, y: -1e300), (x: 1e300, y: 1e300), (x: -1e300, y: 1e300)];
    assert!(rasterize([&huge], &transform, 3, 4)?.iter().all(|&pixel| pixel));
    let far = polygon![(x: 1e18, y: 1e18), (x: 2e18, y: 1e18), (x: 2e18, y: 2e18)];
    assert!(rasterize([&far], &transform, 3, 4)?.iter().all(|&pixel| !pixel));
    Ok(())
}

#[test]
fn epsg_codes_other_than_utm_on_wgs84_are_refused() {
    for epsg in [0, 4326, 3857, 32600, 32661, 32700, 32761, 25832, 132_629] {
        assert!(
            matches!(Utm::from_epsg(epsg), Err(Error::NotUtm { epsg: found }) if found == epsg),
            "{epsg}"
        );
    }
    for epsg in (32601..=32660).chain(32701..=32760) {
        assert_eq!(Utm::from_epsg(epsg).expect("a zone").epsg(), epsg);
    }
}

#[test]
fn polygons_are_converted_with_their_holes() -> Result<(), Error> {
    let utm = Utm::from_epsg(32701)?;
    let mut expected = polygon![
        exterior: [(x: 5e5, y: 9e6), (x: 6e5, y: 9e6), (x: 6e5, y: 9.1e6)],
        interiors: [[(x: 5.5e5, y: 9.01e6), (x: 5.6e5, y: 9.01e6), (x: 5.6e5, y: 9.02e6)]],
    ];
    let lonlat = to_lonlat(&expected, utm);
    let found = to_utm(&lonlat, utm);
    let close = |a: &Coord<f64>, b: &Coord<f64>| (a.x - b.x).hypot(a.y - b.y) < 2e-8;
    assert_eq!(lonlat.interiors().len(), 1);
    assert!(found.exterior().coords().zip(expected.exterior().coords()).all(|(a, b)| close(a, b)));
    assert!(found.interiors()[0].coords().zip(expected.interiors()[0].coords()).all(|(a, b)| close(a, b)));
    // Zone 1 ends at −174°; what lies west of −180° comes back from the east.
    expected = to_lonlat(&polygon![(x: 1e5, y: 9e6), (x: 1.1e5, y: 9e6), (x: 1.1e5, y: 9.1e6)], utm);
    assert!(expected.exterior().coords().all(|p| p.x > 179.0 && p.x <= 180.0), "{expected:?}");
    Ok(())
}

#[test]
fn the_geodesic_area_is_the_same_across_the_180_degree_meridian() {
    let here = polygon![(x: 9.9, y: 5.), (x: 10.1, y: 5.), (x: 10.1, y: 5.1), (x: 9.9, y: 5.1)];
    let there = polygon![(x: 179.9, y: 5.), (x: -179.9, y: 5.), (x: -179.9, y: 5.1), (x: 179.9, y: 5.1)];
    let (here, there) = (area_ha_geodesic(&here), area_ha_geodesic(&there));
    // Differences of longitudes are rounded to 3e-14 of 0.2 degrees.
    assert!(here > 24_000.0 && (here / there - 1.0).abs() < 1e-12, "{here} and {there}");
}
