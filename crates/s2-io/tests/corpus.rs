//! What the fuzzer found worth keeping (`fuzz/` in the repository) is read again: an answer, whatever it is.

use std::io::Write as _;
use std::path::Path;

use s2_io::{GeoTiff, SampleType};

#[test]
fn every_input_of_the_corpus_has_an_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/tiff");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        let _ = writeln!(std::io::stderr(), "skipped: {} is part of the repository only", folder.display());
        return;
    };
    let (mut inputs, mut whole) = (0, 0);
    for entry in entries {
        inputs += 1;
        let Ok(file) = GeoTiff::open(entry.unwrap().path()) else { continue };
        let file = file.with_max_bytes(1 << 20);
        whole += usize::from(match file.sample_type() {
            SampleType::U8 => file.read::<u8>().is_ok(),
            SampleType::U16 => file.read::<u16>().is_ok(),
            SampleType::I16 => file.read::<i16>().is_ok(),
            SampleType::U32 => file.read::<u32>().is_ok(),
            SampleType::I32 => file.read::<i32>().is_ok(),
            SampleType::F32 => file.read::<f32>().is_ok(),
            _ => file.read::<f64>().is_ok(),
        });
    }
    assert!(inputs > 100 && whole > 20, "{whole} of {inputs} read");
}
