//! A window of a reduced image is its part of the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use s2_jp2::{Image, Limits, Region, Window};

fuzz_target!(|input: (u8, [u8; 4], &[u8])| {
    let (reduce, [a, b, c, d], data) = input;
    let mut limits = Limits::default();
    (limits.max_samples, limits.max_tile_samples) = (1 << 16, 1 << 16);
    let Ok(image) = Image::parse_with_limits(data, &limits) else { return };
    let reduce = u32::from(reduce) % (image.levels() + 1);
    let (height, width) = image.reduced_shape(reduce);
    let components = image.components().len();
    let mut whole = vec![0_u16; components * height * width];
    if image.decode_reduced(reduce, &mut whole).is_err() {
        return;
    }
    let span = |a: u8, b: u8, length: usize| {
        let (start, end) = (usize::from(a.min(b)) * length / 255, usize::from(a.max(b)) * length / 255);
        (start, end - start)
    };
    let ((row, rows), (col, cols)) = (span(a, b, height), span(c, d, width));
    let window = Window { row, col, height: rows, width: cols };
    let mut part = vec![0_u16; components * rows * cols];
    image.decode_region(&Region { reduce, window, stride: cols }, &mut part).unwrap();
    for component in 0..components {
        for r in 0..rows {
            let expected = &whole[(component * height + row + r) * width + col..][..cols];
            assert_eq!(&part[(component * rows + r) * cols..][..cols], expected, "row {r}");
        }
    }
});
