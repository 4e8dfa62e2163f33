//! JPEG 2000 files as rasters: samples from `s2-jp2`, place from the georeference boxes.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use ndarray::Array3;
use s2_jp2::{Image, Limits, Source, Window};
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use crate::xml::Element;
use crate::{Error, Grid, Raster, Result};

/// The transform of a raster without place, as GDAL has it.
const NO_TRANSFORM: [f64; 6] = [0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

/// Reads a JPEG 2000 file with its place on the map.
///
/// The components of the file become the bands of the raster. The place comes from the `GeoJP2` box or else, as in
/// all files of ESA, from the GMLJP2 box; without either, positions are rows and columns. The file does not say
/// which value means nodata, so the raster has none. Tiles are decoded in parallel in the current rayon pool.
///
/// # Shapes
///
/// - raster: `[component, row, column]`
///
/// # Errors
///
/// When the file cannot be read, is damaged or no JPEG 2000, or its samples do not fit `T`.
pub fn read_jp2<T: s2_jp2::Sample>(path: impl AsRef<Path>) -> Result<Raster<T>> {
    read_file(path.as_ref(), None)
}

/// Reads a window of a JPEG 2000 file: of the file the tiles that it touches, of these the code-blocks that it needs.
/// Otherwise as [`read_jp2`].
///
/// # Errors
///
/// As [`read_jp2`], and when the window leaves the image.
pub fn read_jp2_window<T: s2_jp2::Sample>(path: impl AsRef<Path>, window: Window) -> Result<Raster<T>> {
    read_file(path.as_ref(), Some(window))
}

fn read_file<T: s2_jp2::Sample>(path: &Path, window: Option<Window>) -> Result<Raster<T>> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let image = open(path, &file)?;
    let grid = georeference(path, &image)?.unwrap_or(Grid {
        height: image.height() as usize,
        width: image.width() as usize,
        transform: NO_TRANSFORM,
        epsg: None,
    });
    decode(path, &image, &grid, window, None)
}

pub(crate) fn open<'a>(path: &Path, source: &'a dyn Source) -> Result<Image<'a>> {
    Image::open(source, &Limits::default()).map_err(|source| failed(path, source))
}

fn failed(path: &Path, error: s2_jp2::Error) -> Error {
    match error {
        s2_jp2::Error::Read { source, .. } => Error::Read { path: path.to_owned(), source },
        source => Error::Jp2 { path: path.to_owned(), source },
    }
}

/// Decodes the whole image, or a window of it, whose first pixel `grid` places.
pub(crate) fn decode<T: s2_jp2::Sample>(
    path: &Path,
    image: &Image<'_>,
    grid: &Grid,
    window: Option<Window>,
    nodata: Option<f64>,
) -> Result<Raster<T>> {
    let window = window.unwrap_or(Window { row: 0, col: 0, height: grid.height, width: grid.width });
    check_window(path, grid, window)?;
    let mut data = Array3::from_elem((image.components().len(), window.height, window.width), T::default());
    if let Some(samples) = data.as_slice_mut() {
        decode_into(path, image, window, samples)?;
    }
    Ok(Raster { data, grid: grid.window(window), nodata })
}

pub(crate) fn check_window(path: &Path, grid: &Grid, window: Window) -> Result<()> {
    if window.fits(grid.height, grid.width) {
        return Ok(());
    }
    let (height, width) = (grid.height, grid.width);
    Err(Error::WindowOutside { path: path.to_owned(), window, height, width })
}

/// Decodes a window into samples that lie row by row.
pub(crate) fn decode_into<T: s2_jp2::Sample>(
    path: &Path,
    image: &Image<'_>,
    window: Window,
    samples: &mut [T],
) -> Result<()> {
    image.decode_window(window, samples).map_err(|error| failed(path, error))
}

/// Where the image lies, if it says so.
pub(crate) fn georeference(path: &Path, image: &Image<'_>) -> Result<Option<Grid>> {
    let placed = match (image.geojp2(), image.gml()) {
        // GDAL's order: numbers of the `GeoJP2` box are binary, those of GML rounded to text.
        (Some(tiff), _) => Some(from_geojp2(path, tiff)?),
        (None, Some(gml)) => from_gml(path, gml)?,
        (None, None) => None,
    };
    let (height, width) = (image.height() as usize, image.width() as usize);
    Ok(placed.map(|(transform, epsg)| Grid { height, width, transform, epsg }))
}

/// The `RectifiedGrid` of GMLJP2 (OGC 05-047r3). Its origin is the centre of the first pixel.
fn from_gml(path: &Path, gml: &str) -> Result<Option<([f64; 6], Option<u32>)>> {
    let root = Element::parse(path, gml.as_bytes())?;
    let Some(grid) = root.find("RectifiedGrid") else { return Ok(None) };
    let pair = |element: Option<&Element>, name: &str| {
        let text = element.map(|element| element.text.trim()).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(x)), Some(Ok(y)), None) if x.is_finite() && y.is_finite() => Ok((x, y)),
            _ => Err(Error::Metadata {
                path: path.to_owned(),
                element: format!("{name} of the GMLJP2 box"),
                value: element.map(|_| text.to_owned()),
            }),
        }
    };
    let mut vectors = grid.find_all("offsetVector");
    let (x, y) = pair(grid.find("pos"), "pos")?;
    let (dx, ry) = pair(vectors.next(), "offsetVector")?;
    let (rx, dy) = pair(vectors.next(), "offsetVector")?;
    // "urn:ogc:def:crs:EPSG::32629"
    let epsg = grid
        .find("Point")
        .and_then(|point| point.attribute("srsName"))
        .filter(|name| name.contains("EPSG"))
        .and_then(|name| name.rsplit([':', '/', '#']).next()?.parse().ok());
    Ok(Some(([x - (dx + rx) / 2.0, dx, rx, y - (ry + dy) / 2.0, ry, dy], epsg)))
}

/// The `GeoTIFF` of one pixel in a `GeoJP2` box (OGC 19-008): scale, tie point and EPSG code.
fn from_geojp2(path: &Path, tiff: &[u8]) -> Result<([f64; 6], Option<u32>)> {
    let wrong = |value: String| Error::Metadata {
        path: path.to_owned(),
        element: "the GeoJP2 box".to_owned(),
        value: Some(value),
    };
    let mut decoder = Decoder::new(Cursor::new(tiff)).map_err(|error| wrong(error.to_string()))?;
    let mut doubles = |tag| decoder.find_tag(tag).ok().flatten().and_then(|value| value.into_f64_vec().ok());
    let scale = doubles(Tag::ModelPixelScaleTag).unwrap_or_default();
    let tie_point = doubles(Tag::ModelTiepointTag).unwrap_or_default();
    let ([dx, dy, ..], [col, row, _, x, y, _]) = (&scale[..], &tie_point[..]) else {
        return Err(wrong(format!("scale {scale:?} and tie point {tie_point:?}")));
    };
    let keys =
        decoder.find_tag(Tag::GeoKeyDirectoryTag).ok().flatten().and_then(|value| value.into_u16_vec().ok());
    let keys = keys.unwrap_or_default();
    let key = |id: u16| {
        keys.as_chunks::<4>().0.iter().skip(1).find(|key| key[0] == id && key[1] == 0).map(|key| key[3])
    };
    // §7.1: ProjectedCRSGeoKey, GeodeticCRSGeoKey (32767 is user-defined), GTRasterTypeGeoKey (2 is pixel centre).
    let epsg = key(3072).or(key(2048)).filter(|&code| code != 32_767).map(u32::from);
    let half = if key(1025) == Some(2) { 0.5 } else { 0.0 };
    Ok(([x - (col + half) * dx, *dx, 0.0, y + (row + half) * dy, 0.0, -dy], epsg))
}
