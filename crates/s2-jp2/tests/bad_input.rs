//! Broken and foreign data give errors that name the place, never panics and never invented samples.

use std::error::Error as _;
use std::path::PathBuf;

use proptest::prelude::*;
use s2_jp2::{Error, Image, Limits, Window};

fn read(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn message(data: &[u8]) -> String {
    Image::parse(data).unwrap_err().to_string()
}

/// Position of the first marker of this code.
fn find(data: &[u8], code: u8) -> usize {
    let start = data.windows(4).position(|bytes| bytes == b"\xff\x4f\xff\x51").unwrap();
    start + data[start..].windows(2).position(|bytes| bytes == [0xff, code]).unwrap()
}

#[test]
fn foreign_data_are_named() {
    let cases: [(&[u8], &str); 10] = [
        (b"", "it is empty"),
        (b"II*\0\x08\0\0\0", "it looks like a TIFF"),
        (b"MM\0*\0\0\0\x08", "it looks like a TIFF"),
        (b"II+\0\x08\0\0\0", "it looks like a BigTIFF"),
        (b"PK\x03\x04", "it looks like a zip archive"),
        (b"\xef\xbb\xbf<?xml version=\"1.0\"?>", "it looks like HTML or XML"),
        (b"\n<!DOCTYPE html>", "it looks like HTML or XML"),
        (b"{\"code\":\"DAT-ZIP-604\"}", "it looks like JSON"),
        (&[0; 100], "it holds only zeros"),
        (b"hello world", "it begins with [68, 65, 6c, 6c, 6f, 20, 77, 6f]"),
    ];
    for (data, found) in cases {
        assert_eq!(message(data), format!("not a JPEG 2000 file: {found}"));
    }
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    for name in ["b01_15bit_blocks4_tlm.jp2", "offset_tileparts.j2k", "nodata.jp2"] {
        let data = read(name);
        for end in 1..data.len() {
            match Image::parse(&data[..end]) {
                Err(Error::Truncated { offset, .. }) => assert_eq!(offset, end, "{name}: where the data end"),
                other => panic!("{name} cut at {end}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_truncated_file_tells_how_many_tiles_are_whole() {
    let data = read("b04_15bit_tiles32.jp2");
    let end = data.len() - 1;
    assert_eq!(
        message(&data[..end]),
        format!("truncated at byte {end}: 8 of 8 tiles are whole; get the file again")
    );
    let second_tile = find(&data, 0x90) + u32_at(&data, find(&data, 0x90) + 6);
    for (end, whole) in [(second_tile - 1, 0), (second_tile, 1), (second_tile + 5, 1), (second_tile + 20, 1)]
    {
        let expected = format!("truncated at byte {end}: {whole} of 8 tiles are whole; get the file again");
        assert_eq!(message(&data[..end]), expected);
    }
    assert_eq!(message(&data[..90]), "truncated at byte 90: the header is incomplete; get the file again");
}

fn u32_at(data: &[u8], at: usize) -> usize {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn a_tile_part_that_reaches_beyond_the_data_is_truncated() {
    let mut data = read("b04_15bit_tiles32.jp2");
    let length = find(&data, 0x90) + 6;
    data[length] = 0x7f;
    let end = data.len();
    assert_eq!(
        message(&data),
        format!("truncated at byte {end}: 0 of 8 tiles are whole; get the file again")
    );
}

#[test]
fn damaged_headers_are_located() {
    let data = read("b04_15bit_tiles32.jp2");
    let (siz, cod, sot, end) = (find(&data, 0x51), find(&data, 0x52), find(&data, 0x90), data.len());
    let change = |at: usize, bytes: &[u8]| {
        let mut data = data.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        message(&data)
    };
    let damaged = |at: usize, what: &str| format!("damaged at byte {at}: {what}; get the file again");
    for (message, expected) in [
        (change(siz + 2, &[0, 42]), damaged(siz, "a SIZ marker with the wrong length")),
        (change(siz + 6, &[0; 4]), damaged(siz, "a SIZ marker with no pixels")),
        (change(siz + 22, &[0; 4]), damaged(siz, "a SIZ marker with a first tile outside the image")),
        (change(cod + 5, &[5]), damaged(cod, "a coding style with an unknown progression order")),
        (change(cod + 6, &[0, 0]), damaged(cod, "a coding style with no quality layer")),
        (change(cod + 9, &[3]), damaged(cod, "a coding style with the wrong number of precinct sizes")),
        (change(cod + 10, &[9]), damaged(cod, "a coding style with values out of range")),
        (change(cod + 15, &[0x80]), damaged(cod, "a coding style with a precinct size of 1")),
        (change(sot, &[0, 0]), damaged(sot, "[00, 00] where a marker should be")),
        (change(sot + 2, &[0, 11]), damaged(sot, "a SOT marker of the wrong length")),
        (change(sot + 4, &[0, 9]), damaged(sot, "tile 9 of 8")),
        (change(sot + 6, &[0, 0, 0, 1]), damaged(sot, "a tile-part of 1 bytes")),
        (change(sot + 10, &[1]), damaged(sot, "tile-part 1 of tile 0 where 0 should be")),
        (change(sot + 11, &[2]), damaged(end, "the end, but tile 0 has 1 of 2 tile-parts")),
        (change(sot + 12, &[0xff, 0x52]), damaged(sot + 12, "a coding style with the wrong length")),
    ] {
        assert_eq!(message, expected);
    }
}

#[test]
fn unsupported_features_are_named() {
    let data = read("b04_15bit_tiles32.jp2");
    let (siz, cod, qcd) = (find(&data, 0x51), find(&data, 0x52), find(&data, 0x5c));
    let change = |at: usize, bytes: &[u8]| {
        let mut data = data.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        message(&data)
    };
    for (message, feature) in [
        (change(siz + 41, &[2]), "subsampled components".to_owned()),
        (change(siz + 40, &[37]), "38-bit samples".to_owned()),
        (change(cod + 12, &[0x40]), "high-throughput JPEG 2000 code-blocks".to_owned()),
        (change(qcd + 1, &[0x50]), "high-throughput JPEG 2000 (CAP marker)".to_owned()),
        (change(qcd + 1, &[0x60]), "packet headers in the main header (PPM marker)".to_owned()),
        (change(qcd + 1, &[0x74]), format!("marker ff74 in the main header at byte {qcd}")),
    ] {
        assert_eq!(message, format!("not supported: {feature}"));
    }
}

#[test]
fn features_of_tile_parts_are_named() {
    // The codestream without its boxes, which say how long it is.
    let data = read("b04_15bit_tiles32.jp2");
    let data = data[data.windows(4).position(|bytes| bytes == b"\xff\x4f\xff\x51").unwrap()..].to_vec();
    let tile_part = find(&data, 0x90);
    // A marker segment more in the first tile-part, whose length counts it.
    let with = |segment: &[u8]| {
        let mut data = data.clone();
        let length = u32::try_from(u32_at(&data, tile_part + 6) + segment.len()).unwrap();
        data[tile_part + 6..tile_part + 10].copy_from_slice(&length.to_be_bytes());
        data.splice(tile_part + 12..tile_part + 12, segment.iter().copied());
        Image::parse(&data).and_then(|image| image.decode(&mut [0_u16; 61 * 97]))
    };
    with(&[0xff, 0x64, 0, 4, 0, 1]).unwrap();
    let error = with(&[0xff, 0x61, 0, 3, 0]).unwrap_err();
    assert_eq!(error.to_string(), "not supported: packet headers in tile-part headers (PPT marker)");
}

#[test]
fn a_palette_is_refused() {
    let mut data = read("nodata.jp2");
    // Its colour specification, renamed.
    let colours = data.windows(4).position(|bytes| bytes == b"colr").unwrap();
    data[colours..colours + 4].copy_from_slice(b"pclr");
    assert_eq!(message(&data), "not supported: a palette (pclr box)");
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    let data = read("b04_15bit_tiles32.jp2");
    let error = Image::parse(&data).unwrap().decode(&mut [0_u8; 61 * 97]).unwrap_err();
    assert_eq!(error.to_string(), "15-bit unsigned samples do not fit u8");
    let mut signed = read("nodata.jp2");
    let depth = find(&signed, 0x51) + 40;
    signed[depth] |= 0x80;
    let error = Image::parse(&signed).unwrap().decode(&mut [0_u16; 400]).unwrap_err();
    assert_eq!(error.to_string(), "15-bit signed samples do not fit u16");
}

#[test]
fn windows_and_outputs_of_the_wrong_size_are_refused() {
    let data = read("b04_15bit_tiles32.jp2");
    let image = Image::parse(&data).unwrap();
    let error = image.decode(&mut [0_u16; 10]).unwrap_err();
    assert_eq!(error.to_string(), "the output holds 10 samples, 5917 are needed");
    let window = Window { row: 60, col: 90, height: 2, width: 7 };
    let error = image.decode_window(window, &mut [0_u16; 14]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "window of rows 60+2 and columns 90+7 leaves the image of 61 rows and 97 columns"
    );
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_any_memory_is_taken() {
    let mut data = read("b04_15bit_tiles32.jp2");
    let mut limits = Limits::default();
    limits.max_samples = 5916;
    let error = Image::parse_with_limits(&data, &limits).unwrap_err();
    assert_eq!(error.to_string(), "too large: 5917 samples, the limit is 5916");

    let siz = find(&data, 0x51);
    // 16 M × 64 pixels in one tile of 2^30.
    data[siz + 6..siz + 14].copy_from_slice(&[0x01, 0, 0, 0, 0, 0, 0, 64]);
    data[siz + 22..siz + 30].copy_from_slice(&[0x01, 0, 0, 0, 0, 0, 0, 64]);
    assert_eq!(message(&data), "too large: 1073741824 samples in a tile, the limit is 134217728");
    // 16 M × 8 pixels in code-blocks of 4 × 4.
    data[siz + 13] = 8;
    let cod = find(&data, 0x52);
    data[cod + 10..cod + 12].copy_from_slice(&[0, 0]);
    assert!(message(&data).ends_with(" code-blocks in a tile, the limit is 8388608"), "{}", message(&data));
}

#[test]
fn a_damaged_tile_is_named_with_its_cause() {
    let mut data = read("b04_15bit_tiles32.jp2");
    let second = find(&data, 0x90) + u32_at(&data, find(&data, 0x90) + 6);
    let body = second + data[second..].windows(2).position(|bytes| bytes == [0xff, 0x93]).unwrap() + 2;
    data[body..body + 40].fill(0xff);
    let image = Image::parse(&data).unwrap();
    let error = image.decode(&mut [0_u16; 61 * 97]).unwrap_err();
    let expected =
        format!("damaged: tile 1, whose data begin at byte {second}, cannot be decoded; get the file again");
    assert_eq!(error.to_string(), expected);
    assert!(error.source().is_some(), "the decoder's own words");
    // The first tile is whole.
    let window = Window { row: 0, col: 0, height: 32, width: 32 };
    image.decode_window(window, &mut [0_u16; 1024]).unwrap();
}

/// Parses and decodes data that may be broken; the answer does not matter, only that there is one.
fn survive(data: &[u8]) {
    if let Ok(image) = Image::parse(data) {
        let length = image.components().len() * (image.height() as usize * image.width() as usize);
        // A flipped bit can make the image huge; its tiles are still checked by a window.
        if length <= 1 << 22 {
            let _ = image.decode(&mut vec![0_u16; length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn flipped_bytes_never_panic(
        file in prop::sample::select(vec![
            "b01_15bit_blocks4_tlm.jp2",
            "offset_tileparts.j2k",
            "layers_16bit.jp2",
            "scl_8bit.jp2",
            "tci_irreversible.jp2",
            "nodata.jp2",
        ]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        header in any::<bool>(),
    ) {
        let mut data = read(file);
        let end = if header { data.len().min(250) } else { data.len() };
        for (index, value) in flips {
            data[index.index(end)] = value;
        }
        survive(&data);
    }
}
