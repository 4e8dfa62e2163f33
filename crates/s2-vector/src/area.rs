//! Areas on the WGS84 ellipsoid, in hectares.

use crate::Utm;
use geo::GeodesicArea;
use geo_types::{Coord, LineString, Polygon};

const SQUARE_METRES_PER_HECTARE: f64 = 10_000.0;

/// The area on the ellipsoid of a polygon in UTM metres, in hectares; edges are straight on the grid.
///
/// The one to use for polygons traced from a raster in UTM: pixel edges are straight there. The grid area is
/// up to 0.08 % too small on the central meridian and 0.2 % too large at the edge of a zone; here it is
/// divided, from place to place, by the square of the [scale](Utm::scale). The result is within 10⁻⁸ of the
/// true one up to 100 km across, anywhere in and near the zone (10⁻⁷ for single pixels, where the rounding of
/// coordinates shows).
///
/// Rings may run either way; holes are subtracted. A ring that crosses itself has no meaningful area.
///
/// # Examples
///
/// ```
/// use s2_vector::{Utm, area_ha_utm, geo_types::polygon};
///
/// let utm = Utm::from_epsg(32629)?;
/// let hectare = polygon![(x: 5e5, y: 0.), (x: 500_100., y: 0.), (x: 500_100., y: 100.), (x: 5e5, y: 100.)];
/// assert!((area_ha_utm(&hectare, utm) - 1.0 / 0.9996_f64.powi(2)).abs() < 1e-7);
/// # Ok::<(), s2_vector::Error>(())
/// ```
pub fn area_ha_utm(polygon: &Polygon<f64>, utm: Utm) -> f64 {
    area_ha(polygon, |ring| ring_area_utm(ring, utm))
}

/// The area on the ellipsoid of a polygon in WGS84 longitude and latitude, in hectares; edges are geodesics.
///
/// The one to use for polygons in degrees from anywhere (C. F. F. Karney, "Algorithms for geodesics", J.
/// Geodesy 87, 2013). It differs from [`area_ha_utm`] only in what lies between two vertices, at the edge of
/// a zone by 10⁻⁶ of the area for edges of 1 km and by 10⁻⁵ for 10 km.
///
/// Rings may run either way, must not contain half of the earth, and may cross the 180° meridian; holes are
/// subtracted.
pub fn area_ha_geodesic(polygon: &Polygon<f64>) -> f64 {
    area_ha(polygon, |ring| Polygon::new(ring.clone(), Vec::new()).geodesic_area_signed())
}

/// Exterior less holes, whatever way they run.
fn area_ha(polygon: &Polygon<f64>, ring_area: impl Fn(&LineString<f64>) -> f64) -> f64 {
    let holes: f64 = polygon.interiors().iter().map(|ring| ring_area(ring).abs()).sum();
    (ring_area(polygon.exterior()).abs() - holes) / SQUARE_METRES_PER_HECTARE
}

/// The signed area in square metres: each edge spans a triangle with the first vertex, and 1 / scale² is
/// integrated over it from the middles of its sides (exact for polynomials of the second degree, and 1 /
/// scale² is very nearly one).
fn ring_area_utm(ring: &LineString<f64>, utm: Utm) -> f64 {
    let Some(&apex) = ring.0.first() else { return 0.0 };
    let density = |a: Coord<f64>, b: Coord<f64>| {
        let middle = (a + b) / 2.0;
        let (lon, lat) = utm.inverse(middle.x, middle.y);
        utm.scale(lon, lat).powi(-2)
    };
    let triangles = ring.lines().map(|edge| {
        let (a, b) = (edge.start - apex, edge.end - apex);
        let grid_area = (a.x * b.y - a.y * b.x) / 2.0;
        let densities = density(apex, edge.start) + density(edge.start, edge.end) + density(edge.end, apex);
        grid_area * densities / 3.0
    });
    triangles.sum()
}
