//! WGS84 longitude and latitude ↔ UTM, by Krüger's series to the sixth order in the third flattening (C. F.
//! F. Karney, "Transverse Mercator with an accuracy of a few nanometers", J. Geodesy 85, 2011,
//! arXiv:1002.1417).

use crate::{Error, Result};
use geo::MapCoords;
use geo_types::{Coord, Polygon};

/// WGS84, NIMA TR8350.2: semi-major axis in metres and flattening.
const A: f64 = 6_378_137.0;
const F: f64 = 1.0 / 298.257_223_563;
/// UTM, DMA TM8358.2: scale on the central meridian, false easting and southern false northing in metres.
const K0: f64 = 0.9996;
const FALSE_EASTING: f64 = 500_000.0;
const FALSE_NORTHING: f64 = 10_000_000.0;

/// The third flattening.
const N: f64 = F / (2.0 - F);
/// The squared first eccentricity.
const E2: f64 = F * (2.0 - F);

/// The radius of the circle whose circumference is that of a meridian.
const RECTIFYING_RADIUS: f64 = A / (1.0 + N) * (1.0 + N2 / 4.0 + N4 / 64.0 + N6 / 256.0);

const N2: f64 = N * N;
const N3: f64 = N2 * N;
const N4: f64 = N2 * N2;
const N5: f64 = N3 * N2;
const N6: f64 = N3 * N3;

/// Conformal sphere → ellipsoid (equation 35).
const ALPHA: [f64; 6] = [
    N / 2.0 - 2.0 / 3.0 * N2 + 5.0 / 16.0 * N3 + 41.0 / 180.0 * N4 - 127.0 / 288.0 * N5
        + 7891.0 / 37800.0 * N6,
    13.0 / 48.0 * N2 - 3.0 / 5.0 * N3 + 557.0 / 1440.0 * N4 + 281.0 / 630.0 * N5
        - 1_983_433.0 / 1_935_360.0 * N6,
    61.0 / 240.0 * N3 - 103.0 / 140.0 * N4 + 15061.0 / 26880.0 * N5 + 167_603.0 / 181_440.0 * N6,
    49561.0 / 161_280.0 * N4 - 179.0 / 168.0 * N5 + 6_601_661.0 / 7_257_600.0 * N6,
    34729.0 / 80640.0 * N5 - 3_418_889.0 / 1_995_840.0 * N6,
    212_378_941.0 / 319_334_400.0 * N6,
];

/// Ellipsoid → conformal sphere (equation 36).
const BETA: [f64; 6] = [
    N / 2.0 - 2.0 / 3.0 * N2 + 37.0 / 96.0 * N3 - 1.0 / 360.0 * N4 - 81.0 / 512.0 * N5
        + 96199.0 / 604_800.0 * N6,
    1.0 / 48.0 * N2 + 1.0 / 15.0 * N3 - 437.0 / 1440.0 * N4 + 46.0 / 105.0 * N5
        - 1_118_711.0 / 3_870_720.0 * N6,
    17.0 / 480.0 * N3 - 37.0 / 840.0 * N4 - 209.0 / 4480.0 * N5 + 5569.0 / 90720.0 * N6,
    4397.0 / 161_280.0 * N4 - 11.0 / 504.0 * N5 - 830_251.0 / 7_257_600.0 * N6,
    4583.0 / 161_280.0 * N5 - 108_847.0 / 3_991_680.0 * N6,
    20_648_693.0 / 638_668_800.0 * N6,
];

/// One zone of the Universal Transverse Mercator grid on WGS84.
///
/// Within 3.6° of the central meridian (a zone is 6° wide, Sentinel-2 tiles reach a little over its edge)
/// both directions agree with PROJ to 10 nm. The series itself is good to 5 nm within 3900 km of the central
/// meridian (Karney 2011); do not use it much further out.
///
/// # Examples
///
/// ```
/// use s2_vector::Utm;
///
/// let utm = Utm::from_epsg(32629)?; // zone 29, northern hemisphere
/// let (x, y) = utm.forward(-9.0, 0.0);
/// assert_eq!((x, y), (500_000.0, 0.0));
/// assert!(Utm::from_epsg(4326).is_err());
/// # Ok::<(), s2_vector::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Utm {
    /// 1 to 60.
    zone: u8,
    southern: bool,
}

impl Utm {
    /// The zone of an EPSG code.
    ///
    /// # Errors
    ///
    /// [`Error::NotUtm`] unless the code is 32601 to 32660 (northern) or 32701 to 32760 (southern).
    pub fn from_epsg(epsg: u32) -> Result<Self> {
        let zone = u8::try_from(epsg % 100).ok().filter(|zone| (1..=60).contains(zone));
        match (epsg / 100, zone) {
            (326, Some(zone)) => Ok(Self { zone, southern: false }),
            (327, Some(zone)) => Ok(Self { zone, southern: true }),
            _ => Err(Error::NotUtm { epsg }),
        }
    }

    /// The EPSG code.
    pub fn epsg(self) -> u32 {
        (if self.southern { 32700 } else { 32600 }) + u32::from(self.zone)
    }

    /// Converts longitude and latitude in degrees to easting and northing in metres.
    ///
    /// Any longitude within 90° of the central meridian is taken, not only those of the zone, and either
    /// hemisphere: south of the equator, a northern zone gives negative northings.
    pub fn forward(self, lon: f64, lat: f64) -> (f64, f64) {
        let sphere = self.conformal(lon, lat);
        let (mut xi, mut eta) = (sphere.xi, sphere.eta);
        for (j, alpha) in (1..).zip(ALPHA) {
            let angle = 2.0 * f64::from(j);
            xi += alpha * (angle * sphere.xi).sin() * (angle * sphere.eta).cosh();
            eta += alpha * (angle * sphere.xi).cos() * (angle * sphere.eta).sinh();
        }
        let radius = K0 * RECTIFYING_RADIUS;
        (FALSE_EASTING + radius * eta, self.false_northing() + radius * xi)
    }

    /// Converts easting and northing in metres to longitude and latitude in degrees; the longitude lies in
    /// −180..=180.
    pub fn inverse(self, x: f64, y: f64) -> (f64, f64) {
        let radius = K0 * RECTIFYING_RADIUS;
        let (xi0, eta0) = ((y - self.false_northing()) / radius, (x - FALSE_EASTING) / radius);
        let (mut xi, mut eta) = (xi0, eta0);
        for (j, beta) in (1..).zip(BETA) {
            let angle = 2.0 * f64::from(j);
            xi -= beta * (angle * xi0).sin() * (angle * eta0).cosh();
            eta -= beta * (angle * xi0).cos() * (angle * eta0).sinh();
        }
        let conformal_tan = xi.sin() / eta.sinh().hypot(xi.cos());
        let lon = self.central_meridian() + eta.sinh().atan2(xi.cos()).to_degrees();
        (within_half_turn(lon), geodetic_tan(conformal_tan).atan().to_degrees())
    }

    /// The point scale: metres on the grid per metre on the ellipsoid, in every direction.
    ///
    /// 0.9996 on the central meridian, 1.001 at the edge of a zone on the equator. The grid area of something
    /// small divided by the squared scale is its area on the ellipsoid.
    pub fn scale(self, lon: f64, lat: f64) -> f64 {
        let sphere = self.conformal(lon, lat);
        let (mut p, mut q) = (1.0, 0.0);
        for (j, alpha) in (1..).zip(ALPHA) {
            let angle = 2.0 * f64::from(j);
            p += angle * alpha * (angle * sphere.xi).cos() * (angle * sphere.eta).cosh();
            q += angle * alpha * (angle * sphere.xi).sin() * (angle * sphere.eta).sinh();
        }
        let sin_lat = lat.to_radians().sin();
        let to_sphere = (1.0 - E2 * sin_lat * sin_lat).sqrt() / (lat.to_radians().cos() * sphere.stretch);
        K0 * RECTIFYING_RADIUS / A * p.hypot(q) * to_sphere
    }

    fn central_meridian(self) -> f64 {
        f64::from(self.zone) * 6.0 - 183.0
    }

    fn false_northing(self) -> f64 {
        if self.southern { FALSE_NORTHING } else { 0.0 }
    }

    /// Transverse Mercator on the conformal sphere of unit radius.
    fn conformal(self, lon: f64, lat: f64) -> Conformal {
        let (sin_lon, cos_lon) = within_half_turn(lon - self.central_meridian()).to_radians().sin_cos();
        let tan = conformal_tan(lat.to_radians().tan());
        let stretch = tan.hypot(cos_lon);
        Conformal { xi: tan.atan2(cos_lon), eta: (sin_lon / stretch).asinh(), stretch }
    }
}

struct Conformal {
    xi: f64,
    eta: f64,
    /// √(τ′² + cos² λ).
    stretch: f64,
}

/// The tangent of the conformal latitude from that of the geodetic one.
fn conformal_tan(tan: f64) -> f64 {
    let e = E2.sqrt();
    let sigma = (e * (e * tan / tan.hypot(1.0)).atanh()).sinh();
    tan * sigma.hypot(1.0) - sigma * tan.hypot(1.0)
}

/// The tangent of the geodetic latitude from that of the conformal one, by Newton's method.
fn geodetic_tan(conformal: f64) -> f64 {
    let mut tan = conformal;
    // Two steps reach the precision of f64 for the earth; the third is for safety.
    for _ in 0..3 {
        let reached = conformal_tan(tan);
        let slope = (1.0 + (1.0 - E2) * tan * tan) / ((1.0 - E2) * reached.hypot(1.0) * tan.hypot(1.0));
        tan += (conformal - reached) * slope;
    }
    tan
}

/// The same direction within −180..=180 degrees; unchanged, to the bit, if it lies there already.
fn within_half_turn(degrees: f64) -> f64 {
    if degrees.abs() <= 180.0 { degrees } else { (degrees + 180.0).rem_euclid(360.0) - 180.0 }
}

/// Converts a polygon from UTM metres to WGS84 longitude and latitude in degrees, vertex by vertex.
///
/// Edges stay straight between the vertices, in degrees now: within a zone, the middle of an edge of 1 km
/// moves by up to 2 cm at 40° of latitude and 4 cm at 60°, that of an edge ten times as long a hundred times
/// as much.
pub fn to_lonlat(polygon: &Polygon<f64>, utm: Utm) -> Polygon<f64> {
    polygon.map_coords(|Coord { x, y }| utm.inverse(x, y).into())
}

/// Converts a polygon from WGS84 longitude and latitude in degrees to UTM metres, vertex by vertex.
///
/// Edges stay straight between the vertices, in metres now, as in [`to_lonlat`].
pub fn to_utm(polygon: &Polygon<f64>, utm: Utm) -> Polygon<f64> {
    polygon.map_coords(|Coord { x, y }| utm.forward(x, y).into())
}
