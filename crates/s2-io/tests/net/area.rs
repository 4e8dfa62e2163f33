//! Windows of remote images: the same pixels, for the bytes of the blocks that they touch.

use std::sync::Arc;

use ndarray::s;
use s2_io::net::{Catalog, Downloader, Query, RemoteProduct, Stac};
use s2_io::{Band, Layer, Level, Window, ndarray};
use serde_json::json;

use crate::server::{cog, noise};
use crate::{NAME, Site, common, feature, query};

#[test]
fn a_window_costs_the_blocks_that_it_touches() {
    const FINE: usize = 5120;
    let site = Site::new();
    site.server.lock().ignores_ranges = false;
    let mut item = feature(NAME, 1.0);
    let mut bands = Vec::new();
    let mut layers = Vec::new();
    for (number, band) in Band::TEN_AND_TWENTY.into_iter().enumerate() {
        let resolution = band.resolution_m() as usize;
        let mut noise = noise(number as u64);
        let size = FINE * 10 / resolution;
        let (data, bytes) = cog(site.folder.path(), 699_960.0, resolution as f64, size, || 1 + noise());
        let path = format!("/blob/sentinel2-l2/{band}.tif");
        item["assets"][band.name()] = json!({ "href": site.server.at(&path), "type": "image/tiff; application=geotiff; profile=cloud-optimized" });
        site.server.lock().files.insert(path, Arc::new(bytes));
        bands.push((resolution, data));
        layers.push(Layer::Band(band));
    }
    site.server.lock().features = vec![item];
    let stac = Stac::planetary_computer(&site.client).at(&site.server.at("/pc"));
    let all = Query { tiles: vec!["29RKH".to_owned()], ..query(Level::L2A, "2020-02-01", "2020-02-29") };
    let items = stac.search(&all).unwrap();
    let product = RemoteProduct::new(&Downloader::new(&site.client), &items[0]);
    assert_eq!(product.grid().unwrap().height, FINE);

    // The clock of this machine is an hour late: signatures live by the server's.
    site.server.lock().clock_ahead = 3600;
    let window = Window { row: 1111, col: 2222, height: 1450, width: 1450 };
    site.server.lock().bytes = 0;
    let repeat = |dn: ndarray::ArrayView2<'_, u16>| {
        ndarray::Array2::from_shape_fn((2 * dn.nrows(), 2 * dn.ncols()), |(row, col)| dn[[row / 2, col / 2]])
    };
    let stack = product.read_stack(&layers, window, repeat).unwrap();
    let moved = site.server.lock().bytes;
    let mut touched = 0;
    for (number, (resolution, data)) in bands.iter().enumerate() {
        let factor = resolution / 10;
        let expected = ndarray::Array2::from_shape_fn((1450, 1450), |(row, col)| {
            data[[0, (window.row + row) / factor, (window.col + col) / factor]]
        });
        assert_eq!(stack.data.slice(s![number, .., ..]), expected, "{}", layers[number]);
        // Blocks of 512 x 512; those of 20 m with one pixel around.
        let blocks = |start: usize, size: usize| (start + size).div_ceil(512) - start / 512;
        let (row, col, size) = (window.row / factor, window.col / factor, 1450 / factor);
        touched += blocks(row, size) * blocks(col, size) * 512 * 512 * 12 / 8;
    }
    let ratio = moved as f64 / touched as f64;
    assert!(ratio < 1.3, "{moved} bytes for {touched} in the blocks: {ratio:.2}");
    println!("{moved} bytes moved, {touched} in the touched blocks: {ratio:.2}");

    // A signature that the service takes back is replaced.
    site.server.lock().signatures.clear();
    product.read_stack(&layers[..1], Window { row: 3000, ..window }, repeat).unwrap();
    // A file that is replaced is not mixed with its old directory.
    site.server.lock().version = 1;
    let error = product.read_stack(&layers[..1], Window { row: 0, ..window }, repeat).unwrap_err();
    let text = common::chain(&error);
    assert!(text.contains("replaced meanwhile"), "{text}");
}
