//! Bands and scene classification of a product on one grid of 10 m, against a textbook.

mod common;

use std::fs;
use std::io::Write;

use common::copy::{Copy, GRANULE, files};
use common::{SMALL, chain, own};
use proptest::prelude::*;
use s2_io::ndarray::{Array2, ArrayView2, Axis};
use s2_io::{Band, Layer, Product, Window};

/// Bilinear doubling as in a textbook: 9, 3, 3 and 1 sixteenths of the four nearest pixels.
fn double(dn: ArrayView2<'_, u16>) -> Array2<u16> {
    let (height, width) = dn.dim();
    let beside = |place: usize, size: usize| {
        let neighbour = if place.is_multiple_of(2) { (place / 2).saturating_sub(1) } else { place / 2 + 1 };
        (place / 2, neighbour.min(size - 1))
    };
    Array2::from_shape_fn((2 * height, 2 * width), |(row, col)| {
        let ((row, other_row), (col, other_col)) = (beside(row, height), beside(col, width));
        let at = |row, col| u32::from(dn[(row, col)]);
        let sum =
            9 * at(row, col) + 3 * at(row, other_col) + 3 * at(other_row, col) + at(other_row, other_col);
        u16::try_from((sum + 8) / 16).unwrap()
    })
}

const LAYERS: [Layer; 4] =
    [Layer::Band(Band::B04), Layer::Band(Band::B05), Layer::Scl, Layer::Band(Band::B8A)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_window_of_a_stack_is_its_part_of_the_whole_layers(
        (row, height) in (0..48_usize).prop_flat_map(|row| (Just(row), 0..=48 - row)),
        (col, width) in (0..48_usize).prop_flat_map(|col| (Just(col), 0..=48 - col)),
    ) {
        let product = Product::open(own(SMALL)).unwrap();
        let window = Window { row, col, height, width };
        let stack = product.read_stack(&LAYERS, Some(window), double).unwrap();
        let grid = product.grid(10).unwrap();
        prop_assert_eq!(stack.grid, grid.window(window));
        prop_assert_eq!(stack.nodata, Some(0.0));
        for (layer, read) in LAYERS.into_iter().zip(stack.data.outer_iter()) {
            let whole = match layer {
                Layer::Band(Band::B04) => product.read_band(Band::B04, 10).unwrap().data,
                Layer::Band(band) => {
                    double(product.read_band(band, 20).unwrap().data.index_axis(Axis(0), 0)).insert_axis(Axis(0))
                }
                Layer::Scl => {
                    let scl = product.read_scl(20).unwrap().data;
                    Array2::from_shape_fn((48, 48), |(row, col)| scl[(0, row / 2, col / 2)].into()).insert_axis(Axis(0))
                }
            };
            let expected = common::part(&whole, window);
            prop_assert_eq!(read, expected.index_axis(Axis(0), 0), "{}", layer);
        }
    }
}

#[test]
fn a_whole_stack_is_its_window_and_names_what_is_missing() {
    let product = Product::open(own(SMALL)).unwrap();
    let all = Window { row: 0, col: 0, height: 48, width: 48 };
    let stack = product.read_stack(&LAYERS, None, double).unwrap();
    assert_eq!(stack, product.read_stack(&LAYERS, Some(all), double).unwrap());
    let mut turned = Array2::zeros((48, 48)).reversed_axes();
    for (layer, expected) in LAYERS.into_iter().zip(stack.data.outer_iter()) {
        product.read_at_10m(layer, all, double, turned.view_mut()).unwrap();
        assert_eq!(turned, expected, "{layer} into columns");
    }
    let error = product.read_stack(&[Layer::Band(Band::B11)], None, double).unwrap_err();
    assert!(error.to_string().contains("has no B11 at 20 m"), "{error}");
    let outside = Window { row: 40, ..all };
    let error = product.read_stack(&LAYERS, Some(outside), double).unwrap_err();
    assert!(error.to_string().starts_with("rows 40 to 88 and columns 0 to 48 leave"), "{error}");
}

#[test]
fn grids_that_do_not_fit_together_are_refused() {
    let file = format!("{GRANULE}/MTD_TL.xml");
    let copy = Copy::new().replace(&file, "<NROWS>48</NROWS>", "<NROWS>50</NROWS>");
    let product = Product::open(&copy.root).unwrap();
    let error = product.read_stack(&[Layer::Scl], None, double).unwrap_err();
    let expected = "MTD_TL.xml: the size at 20 m, where that at 10 m is 50 x 48, cannot be \"24 x 24\"";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn a_stored_member_of_an_archive_is_read_like_a_file() {
    let copy = Copy::new();
    let path = copy.root.with_extension("SAFE.zip");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for file in files(&copy.root) {
        zip.start_file(&file, stored).unwrap();
        zip.write_all(&fs::read(copy.path(&file)).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    let (folder, archive) = (Product::open(&copy.root).unwrap(), Product::open(&path).unwrap());
    assert_eq!(
        archive.read_stack(&LAYERS, None, double).unwrap(),
        folder.read_stack(&LAYERS, None, double).unwrap()
    );
    // The archive is cut while the product is open: one error with the member's name.
    let image = copy.image("B04_10m");
    let bytes = fs::read(&path).unwrap();
    let inside = fs::read(&image).unwrap();
    let start = bytes.windows(inside.len()).position(|window| window == inside).expect("it is stored");
    let mut damaged = bytes.clone();
    damaged[start + inside.len() / 2..start + inside.len()].fill(0xFF);
    fs::write(&path, damaged).unwrap();
    let error = chain(&archive.read_band(Band::B04, 10).unwrap_err());
    assert!(error.contains("B04_10m.jp2"), "{error}");
}
