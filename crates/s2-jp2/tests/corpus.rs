//! What the fuzzer found worth keeping (`fuzz/` in the repository) is decoded again: an answer, whatever it is.

use std::io::Write as _;
use std::path::Path;

use s2_jp2::{Image, Limits, Region, Window};

#[test]
fn every_input_of_the_corpus_has_an_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/codestream");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        let _ = writeln!(std::io::stderr(), "skipped: {} is part of the repository only", folder.display());
        return;
    };
    let mut limits = Limits::default();
    (limits.max_samples, limits.max_tile_samples) = (1 << 18, 1 << 18);
    let (mut inputs, mut decoded) = (0, 0);
    for entry in entries {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        inputs += 1;
        let Ok((image, _)) = Image::parse_damaged(&data, &limits) else { continue };
        let (height, width) = (image.height() as usize, image.width() as usize);
        let region = Region { reduce: 0, window: Window { row: 0, col: 0, height, width }, stride: width };
        let mut samples = vec![0_i16; image.components().len() * height * width];
        decoded += usize::from(image.decode_damaged(&region, &mut samples).is_ok());
    }
    assert!(inputs > 100 && decoded > 50, "{decoded} of {inputs} decoded");
}
