//! Whole images, as far as they are small, and what is left of damaged ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use s2_jp2::{Image, Limits, Region, Window};

fuzz_target!(|data: &[u8]| {
    let mut limits = Limits::default();
    (limits.max_samples, limits.max_tile_samples) = (1 << 18, 1 << 18);
    let Ok((image, damage)) = Image::parse_damaged(data, &limits) else { return };
    let (height, width) = (image.height() as usize, image.width() as usize);
    let whole = Region { reduce: 0, window: Window { row: 0, col: 0, height, width }, stride: width };
    let mut rest = vec![0_u16; image.components().len() * height * width];
    let Ok(tiles) = image.decode_damaged(&whole, &mut rest) else { return };
    // Without damage, the strict way gives the same, and from a source as well.
    let source = data.to_vec();
    let strict = Image::open(&source, &limits);
    match strict {
        Ok(image) if damage.is_empty() => {
            let mut out = vec![0_u16; rest.len()];
            assert_eq!(image.decode(&mut out).is_ok(), tiles.is_empty());
            assert!(!tiles.is_empty() || out == rest);
        }
        Ok(_) => panic!("damage that the strict way does not see: {damage:?}"),
        // Missing tiles are found when they are decoded.
        Err(_) => assert!(!damage.is_empty() || !tiles.is_empty()),
    }
});
