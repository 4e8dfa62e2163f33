//! Boxes and marker segments: nothing is decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use s2_jp2::Image;

fuzz_target!(|data: &[u8]| {
    if let Ok(image) = Image::parse(data) {
        let _ = (image.gml(), image.geojp2(), image.components(), image.reduced_shape(image.levels()));
    }
});
