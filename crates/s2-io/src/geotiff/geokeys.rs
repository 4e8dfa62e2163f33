//! Where a GeoTIFF lies: affine transform and EPSG code (OGC 19-008, GeoTIFF 1.1).

use crate::Grid;

/// The transform of a raster without georeferencing, as GDAL reports it.
const IDENTITY: [f64; 6] = [0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

/// OGC 19-008 §7.1: ids of the geo keys used here.
const MODEL_TYPE: u16 = 1024;
const RASTER_TYPE: u16 = 1025;
const GEODETIC_CRS: u16 = 2048;
const PROJECTED_CRS: u16 = 3072;

const MODEL_PROJECTED: u16 = 1;
const MODEL_GEOGRAPHIC: u16 = 2;
const PIXEL_IS_AREA: u16 = 1;
const PIXEL_IS_POINT: u16 = 2;
/// A CRS that is spelled out key by key.
const USER_DEFINED: u16 = 32767;

/// The tags that place a raster; empty where the file has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct GeoTags {
    /// Tag 33550, `ModelPixelScale`.
    pub(super) pixel_scale: Vec<f64>,
    /// Tag 33922, `ModelTiepoint`.
    pub(super) tiepoints: Vec<f64>,
    /// Tag 34264, `ModelTransformation`: a 4 × 4 matrix by rows.
    pub(super) transformation: Vec<f64>,
    /// Tag 34735, `GeoKeyDirectory`.
    pub(super) key_directory: Vec<u16>,
}

impl GeoTags {
    /// The affine transform in GDAL's order.
    ///
    /// Scale and one tie point win over a matrix, as in GDAL; several tie points without a scale are ground
    /// control points, which are no transform. With `GTRasterTypeGeoKey` "pixel is point" the tags speak of
    /// the pixel's centre, and the result is moved to the corner by half a pixel.
    pub(super) fn transform(&self) -> [f64; 6] {
        let [x0, dx, rx, y0, ry, dy] = match (&*self.pixel_scale, &*self.tiepoints, &*self.transformation) {
            ([dx, dy, ..], [col, row, _, x, y, ..], _) if *dx != 0.0 && *dy != 0.0 => {
                let dy = -dy.abs();
                [x - col * dx, *dx, 0.0, y - row * dy, 0.0, dy]
            }
            (_, _, [dx, rx, _, x0, ry, dy, _, y0, ..]) => [*x0, *dx, *rx, *y0, *ry, *dy],
            _ => return IDENTITY,
        };
        let half = if self.key(RASTER_TYPE) == Some(PIXEL_IS_POINT) { 0.5 } else { 0.0 };
        [x0 - half * (dx + rx), dx, rx, y0 - half * (ry + dy), ry, dy]
    }

    /// The EPSG code of the map's CRS; `None` when it is absent or user-defined.
    pub(super) fn epsg(&self) -> Option<u32> {
        let id = match self.key(MODEL_TYPE) {
            Some(MODEL_GEOGRAPHIC) => GEODETIC_CRS,
            Some(MODEL_PROJECTED) => PROJECTED_CRS,
            None if self.key(PROJECTED_CRS).is_some() => PROJECTED_CRS,
            None => GEODETIC_CRS,
            Some(_) => return None,
        };
        self.key(id).filter(|code| *code != 0 && *code != USER_DEFINED).map(u32::from)
    }

    /// The value of a key that is stored in the directory itself.
    fn key(&self, id: u16) -> Option<u16> {
        let entries = self.key_directory.get(4..)?;
        entries.chunks_exact(4).find(|entry| entry[0] == id && entry[1] == 0).map(|entry| entry[3])
    }

    /// The tags of a grid, or what is wrong with its EPSG code.
    pub(super) fn of(grid: &Grid) -> Result<Self, String> {
        let mut tags = Self::default();
        let [x0, dx, rx, y0, ry, dy] = grid.transform;
        if (rx, ry) == (0.0, 0.0) && dx > 0.0 && dy < 0.0 {
            tags.pixel_scale = vec![dx, -dy, 0.0];
            tags.tiepoints = vec![0.0, 0.0, 0.0, x0, y0, 0.0];
        } else if grid.transform != IDENTITY {
            tags.transformation =
                vec![dx, rx, 0.0, x0, ry, dy, 0.0, y0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        }
        if let Some(epsg) = grid.epsg {
            let code = u16::try_from(epsg)
                .ok()
                .filter(|code| (1024..USER_DEFINED).contains(code))
                .ok_or_else(|| format!("EPSG:{epsg} does not fit into a GeoKey (1024 to 32766)"))?;
            let (model, id) = if is_geographic(epsg, grid) {
                (MODEL_GEOGRAPHIC, GEODETIC_CRS)
            } else {
                (MODEL_PROJECTED, PROJECTED_CRS)
            };
            // Version 1, revision 1.0, three keys, in ascending order; each value is in its place.
            tags.key_directory = [
                [1, 1, 0, 3],
                [MODEL_TYPE, 0, 1, model],
                [RASTER_TYPE, 0, 1, PIXEL_IS_AREA],
                [id, 0, 1, code],
            ]
            .concat();
        }
        Ok(tags)
    }
}

/// Whether an EPSG code means longitude and latitude.
///
/// The registry keeps geographic CRS among 4000–4999 (and a few newer ones elsewhere, which are taken as
/// projected here), together with a few projected ones: those are told apart by a raster that leaves the globe.
#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^32")]
fn is_geographic(epsg: u32, grid: &Grid) -> bool {
    let (height, width) = (grid.height as f64, grid.width as f64);
    let corners = [(0.0, 0.0), (0.0, width), (height, 0.0), (height, width)];
    (4000..5000).contains(&epsg)
        && corners.iter().all(|(row, col)| {
            let (x, y) = grid.position(*row, *col);
            x.abs() <= 361.0 && y.abs() <= 91.0
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[[u16; 4]]) -> Vec<u16> {
        [&[[1, 1, 0, 3]], keys].concat().concat()
    }

    #[test]
    fn a_grid_survives_its_tags() {
        for (transform, epsg) in [
            ([199_980.0, 10.0, 0.0, 3_400_020.0, 0.0, -10.0], Some(32629)),
            ([-57.5, 9e-5, 0.0, -6.25, 0.0, -9e-5], Some(4326)),
            ([500_000.0, 8.0, 6.0, 0.0, 6.0, -8.0], Some(32721)),
            ([1e6, 30.0, 0.0, 2e6, 0.0, 30.0], Some(3857)),
            (IDENTITY, None),
        ] {
            let grid = Grid { height: 7, width: 5, transform, epsg };
            let tags = GeoTags::of(&grid).unwrap();
            assert_eq!((tags.transform(), tags.epsg()), (transform, epsg));
        }
    }

    #[test]
    fn pixel_is_point_moves_the_corner_by_half_a_pixel() {
        let mut tags = GeoTags {
            pixel_scale: vec![10.0, 10.0, 0.0],
            tiepoints: vec![1.0, 2.0, 0.0, 115.0, 975.0, 0.0],
            key_directory: keys(&[[RASTER_TYPE, 0, 1, PIXEL_IS_AREA]]),
            ..GeoTags::default()
        };
        assert_eq!(tags.transform(), [105.0, 10.0, 0.0, 995.0, 0.0, -10.0], "tie point at column 1, row 2");
        tags.key_directory = keys(&[[RASTER_TYPE, 0, 1, PIXEL_IS_POINT]]);
        assert_eq!(tags.transform(), [100.0, 10.0, 0.0, 1000.0, 0.0, -10.0]);
    }

    #[test]
    fn ground_control_points_are_no_transform() {
        let tags = GeoTags { tiepoints: vec![1.0; 18], ..GeoTags::default() };
        assert_eq!(tags.transform(), IDENTITY);
    }

    #[test]
    fn a_user_defined_crs_has_no_epsg_code() {
        let epsg = |list: &[[u16; 4]]| GeoTags { key_directory: keys(list), ..GeoTags::default() }.epsg();
        assert_eq!(epsg(&[[MODEL_TYPE, 0, 1, 1], [2048, 0, 1, 4326], [3072, 0, 1, 32629]]), Some(32629));
        assert_eq!(epsg(&[[MODEL_TYPE, 0, 1, 1], [2048, 0, 1, 4326], [3072, 0, 1, USER_DEFINED]]), None);
        assert_eq!(epsg(&[[MODEL_TYPE, 0, 1, 2], [2048, 0, 1, 4326]]), Some(4326));
        assert_eq!(epsg(&[[MODEL_TYPE, 0, 1, 3], [2048, 0, 1, 4978]]), None, "geocentric");
        assert_eq!(epsg(&[[3072, 0, 1, 32629]]), Some(32629), "model type left out");
        assert_eq!(epsg(&[]), None);
        assert_eq!(GeoTags { key_directory: vec![1, 1], ..GeoTags::default() }.epsg(), None, "cut off");
    }

    #[test]
    fn codes_above_a_geokey_are_refused() {
        let grid = Grid { height: 1, width: 1, transform: IDENTITY, epsg: Some(102_008) };
        assert_eq!(GeoTags::of(&grid).unwrap_err(), "EPSG:102008 does not fit into a GeoKey (1024 to 32766)");
    }
}
