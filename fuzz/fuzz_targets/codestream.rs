//! Whole images, as far as they are small.
#![no_main]

use libfuzzer_sys::fuzz_target;
use s2_jp2::{Image, Limits};

fuzz_target!(|data: &[u8]| {
    let mut limits = Limits::default();
    (limits.max_samples, limits.max_tile_samples) = (1 << 18, 1 << 18);
    if let Ok(image) = Image::parse_with_limits(data, &limits) {
        let length = image.components().len() * (image.height() * image.width()) as usize;
        let _ = image.decode(&mut vec![0_u16; length]);
        let _ = image.decode(&mut vec![0_i16; length]);
    }
});
