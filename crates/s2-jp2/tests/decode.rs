//! Decoded samples against GDAL's, and windows against the whole image.

use std::path::PathBuf;

use proptest::prelude::*;
use s2_jp2::{Image, Limits, Source, Window};

const FILES: [&str; 8] = [
    "b01_15bit_blocks4_tlm.jp2",
    "b04_15bit_tiles32.jp2",
    "layers_16bit.jp2",
    "nodata.jp2",
    "offset_tileparts.j2k",
    "scl_8bit.jp2",
    "tci_3components.jp2",
    "tci_irreversible.jp2",
];

fn read(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn decode(image: &Image<'_>) -> Vec<u16> {
    let mut out = vec![u16::MAX; image.components().len() * (image.height() * image.width()) as usize];
    image.decode(&mut out).unwrap();
    out
}

/// FNV-1a over whole samples, as in `make_fixtures.py`.
fn fnv1a(samples: impl IntoIterator<Item = u16>) -> String {
    let hash = samples.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, sample| {
        (hash ^ u64::from(sample)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[test]
fn every_sample_equals_gdal() {
    let golden: serde_json::Value = serde_json::from_slice(&read("golden.json")).unwrap();
    assert_eq!(golden.as_object().unwrap().len(), FILES.len(), "every file has golden values");
    for name in FILES {
        let (data, expected) = (read(name), &golden[name]);
        let image = Image::parse(&data).unwrap();
        let bits = image.components()[0].bits;
        let shape = [image.components().len(), image.height() as usize, image.width() as usize];
        assert_eq!(expected["shape"], serde_json::json!(shape), "{name}: shape");
        assert_eq!(expected["bits"], bits, "{name}: bits");
        if name == "tci_irreversible.jp2" {
            continue;
        }
        assert_eq!(expected["fnv1a"], fnv1a(decode(&image)), "{name}: samples as u16");
        if bits == 8 {
            let mut out = vec![0_u8; shape.iter().product()];
            image.decode(&mut out).unwrap();
            assert_eq!(expected["fnv1a"], fnv1a(out.into_iter().map(u16::from)), "{name}: samples as u8");
        }
    }
}

/// The irreversible transforms are defined in real numbers: decoders may differ where a value lies near the middle
/// between two integers, by 1 and rarely.
#[test]
fn irreversible_samples_are_at_most_one_from_gdal() {
    let data = read("tci_irreversible.jp2");
    let (ours, gdal) = (decode(&Image::parse(&data).unwrap()), read("tci_irreversible.gdal.raw"));
    assert_eq!(ours.len(), gdal.len());
    let differences: Vec<_> = ours
        .iter()
        .zip(gdal)
        .map(|(&a, b)| a.abs_diff(u16::from(b)))
        .filter(|&difference| difference > 0)
        .collect();
    assert!(differences.iter().all(|&difference| difference == 1), "{differences:?}");
    assert!(differences.len() * 1000 <= ours.len(), "{} of {}", differences.len(), ours.len());
}

#[test]
fn georeference_boxes_are_found() {
    let data = read("b04_15bit_tiles32.jp2");
    let image = Image::parse(&data).unwrap();
    let gml = image.gml().unwrap();
    assert!(
        gml.starts_with("<?xml") && gml.ends_with("</gml:FeatureCollection>"),
        "the whole document: {gml}"
    );
    for name in ["tci_3components.jp2", "offset_tileparts.j2k"] {
        let data = read(name);
        let image = Image::parse(&data).unwrap();
        assert_eq!(image.gml().is_some(), name.ends_with("jp2"), "{name}: raw codestreams have no boxes");
        assert_eq!(image.geojp2(), None, "{name}");
    }
}

#[test]
fn a_geojp2_box_is_found_before_and_after_the_codestream() {
    let id = b"\xb1\x4b\xf8\xbd\x08\x3d\x4b\x43\xa5\xae\x8c\xd7\xd5\xa6\xce\x03";
    let mut uuid = b"\x00\x00\x00\x1cuuid".to_vec();
    uuid.extend_from_slice(id);
    uuid.extend_from_slice(b"II*\0");
    let data = read("nodata.jp2");
    let codestream = data.windows(4).position(|bytes| bytes == b"jp2c").unwrap() - 4;
    let before = [&data[..codestream], &uuid, &data[codestream..]].concat();
    let after = [&data[..], &uuid].concat();
    assert_eq!(Image::parse(&before).unwrap().geojp2(), Some(&b"II*\0"[..]), "before");
    // A codestream box of length 0 reaches to the end of the file.
    match data[codestream..codestream + 4] {
        [0, 0, 0, 0] => assert_eq!(Image::parse(&after).unwrap().geojp2(), None, "inside the last box"),
        _ => assert_eq!(Image::parse(&after).unwrap().geojp2(), Some(&b"II*\0"[..]), "after"),
    }
}

#[test]
fn sizes_come_from_the_codestream() {
    let data = read("offset_tileparts.j2k");
    let image = Image::parse(&data).unwrap();
    assert_eq!((image.height(), image.width(), image.tile_height(), image.tile_width()), (45, 38, 16, 16));
    assert!(!image.components()[0].signed, "unsigned");
}

#[test]
fn a_file_gives_what_its_bytes_give() {
    for name in FILES {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let file = std::fs::File::open(path).unwrap();
        let (opened, data) = (Image::open(&file, &Limits::default()).unwrap(), read(name));
        let parsed = Image::parse(&data).unwrap();
        assert_eq!(opened.gml(), parsed.gml(), "{name}");
        assert_eq!(decode(&opened), decode(&parsed), "{name}");
    }
}

/// A source that remembers how much was read.
struct Counted<'a>(&'a [u8], std::sync::atomic::AtomicUsize);

impl Source for Counted<'_> {
    fn length(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.1.fetch_add(buffer.len(), std::sync::atomic::Ordering::Relaxed);
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[start..][..buffer.len()]);
        Ok(())
    }
}

#[test]
fn a_window_reads_the_tiles_that_it_touches_and_no_others() {
    let data = read("b04_15bit_tiles32.jp2");
    let source = Counted(&data, 0.into());
    let image = Image::open(&source, &Limits::default()).unwrap();
    let read = || source.1.load(std::sync::atomic::Ordering::Relaxed);
    let headers = read();
    let window = Window { row: 3, col: 40, height: 20, width: 10 };
    image.decode_window(window, &mut [0_u16; 200]).unwrap();
    let one_tile = read() - headers;
    image.decode(&mut [0_u16; 61 * 97]).unwrap();
    let all_tiles = read() - headers - one_tile;
    assert!(
        0 < one_tile && one_tile * 4 < all_tiles,
        "{one_tile} of {all_tiles} bytes, {headers} of headers"
    );
    assert!(headers + all_tiles <= data.len() + 8192, "nothing is read twice but the first bytes");
}

#[test]
fn one_thread_gives_what_many_give() {
    let data = read("b04_15bit_tiles32.jp2");
    let image = Image::parse(&data).unwrap();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    assert_eq!(pool(1).install(|| decode(&image)), pool(4).install(|| decode(&image)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_window_equals_its_part_of_the_whole(
        file in 0..FILES.len(),
        [top, left, bottom, right] in prop::array::uniform4(0.0..=1.0_f64),
    ) {
        let data = read(FILES[file]);
        let image = Image::parse(&data).unwrap();
        let (height, width) = (image.height() as usize, image.width() as usize);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to length")]
        #[expect(clippy::cast_precision_loss, reason = "small lengths")]
        let at = |share: f64, length: usize| (share * length as f64) as usize;
        let (row, end_row) = (at(top.min(bottom), height), at(top.max(bottom), height));
        let (col, end_col) = (at(left.min(right), width), at(left.max(right), width));
        let window = Window { row, col, height: end_row - row, width: end_col - col };

        let whole = decode(&image);
        let expected: Vec<_> = (0..image.components().len())
            .flat_map(|component| (row..end_row).map(move |r| component * height * width + r * width))
            .flat_map(|start| whole[start + col..start + end_col].to_vec())
            .collect();
        let mut out = vec![u16::MAX; expected.len()];
        image.decode_window(window, &mut out).unwrap();
        prop_assert_eq!(out, expected, "{} {:?}", FILES[file], window);
    }
}
