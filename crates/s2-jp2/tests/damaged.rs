//! What is left of incomplete and damaged files.

use std::path::PathBuf;

use proptest::prelude::*;
use s2_jp2::{Error, Image, Limits, Region, Window};

fn read(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn whole(image: &Image<'_>) -> Region {
    let (height, width) = (image.height() as usize, image.width() as usize);
    Region { reduce: 0, window: Window { row: 0, col: 0, height, width }, stride: width }
}

/// The samples, 9999 where there are none, and everything that is wrong.
fn rest(data: &[u8]) -> (Vec<u16>, Vec<String>) {
    let (image, mut damage) = Image::parse_damaged(data, &Limits::default()).unwrap();
    let mut out = vec![9999; image.components().len() * (image.height() * image.width()) as usize];
    damage.extend(image.decode_damaged(&whole(&image), &mut out).unwrap());
    (out, damage.iter().map(Error::to_string).collect())
}

/// Where each tile-part begins.
fn tile_parts(data: &[u8]) -> Vec<usize> {
    (0..data.len() - 4).filter(|&at| data[at..at + 4] == [0xff, 0x90, 0, 10]).collect()
}

/// Whether the 32 × 32 tile of this number is the same in two images of 61 × 97.
fn same_tile(a: &[u16], b: &[u16], tile: usize) -> bool {
    let (rows, cols) =
        (tile / 4 * 32..(tile / 4 * 32 + 32).min(61), tile % 4 * 32..(tile % 4 * 32 + 32).min(97));
    rows.into_iter().all(|row| a[row * 97..][cols.clone()] == b[row * 97..][cols.clone()])
}

#[test]
fn a_whole_file_has_no_damage() {
    let data = read("b04_15bit_tiles32.jp2");
    let mut samples = vec![0; 61 * 97];
    Image::parse(&data).unwrap().decode(&mut samples).unwrap();
    assert_eq!(rest(&data), (samples, Vec::new()));
}

#[test]
fn tiles_before_the_cut_are_whole_and_those_after_it_are_left_as_they_are() {
    let data = read("b04_15bit_tiles32.jp2");
    let (samples, _) = rest(&data);
    let parts = tile_parts(&data);
    assert_eq!(parts.len(), 8, "tiles");
    for end in parts[0] + 2..data.len() - 2 {
        let (found, damage) = rest(&data[..end]);
        let complete = parts[1..].iter().filter(|&&part| part <= end).count();
        for tile in 0..complete {
            assert!(same_tile(&found, &samples, tile), "tile {tile} of a file cut at {end}");
        }
        for tile in complete + 1..8 {
            assert!(same_tile(&found, &vec![9999; 61 * 97], tile), "tile {tile} of a file cut at {end}");
        }
        let expected =
            format!("truncated at byte {end}: {complete} of 8 tiles are whole; get the file again");
        assert_eq!(damage[0], expected);
        assert!(damage.len() >= 8 - complete, "one for each tile: {damage:?}");
    }
}

#[test]
fn a_cut_tile_is_a_picture_with_less_detail() {
    let data = read("layers_16bit.jp2");
    let (samples, none) = rest(&data);
    assert!(none.is_empty(), "{none:?}");
    let start = *tile_parts(&data).last().unwrap();
    let error = |share: usize| {
        let (found, damage) = rest(&data[..start + (data.len() - start) * share / 100]);
        assert!(!damage.is_empty(), "{share} %");
        found.iter().zip(&samples).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
    };
    let errors = [30, 50, 70, 90].map(error);
    assert!(errors.is_sorted_by(|a, b| a >= b) && errors[3] < errors[0], "more data, less error: {errors:?}");
}

#[test]
fn a_damaged_tile_part_does_not_hide_those_after_it() {
    let mut data = read("b04_15bit_tiles32.jp2");
    let (samples, _) = rest(&data);
    let parts = tile_parts(&data);
    // The second names a tile that does not exist, the fifth claims to be huge.
    data[parts[1] + 5] = 200;
    data[parts[4] + 6] = 0x7f;
    let (found, damage) = rest(&data);
    for tile in [0, 2, 3, 5, 6, 7] {
        assert!(same_tile(&found, &samples, tile), "tile {tile}");
    }
    assert_eq!(damage[0], format!("damaged at byte {}: tile 200 of 8; get the file again", parts[1]));
    assert!(damage[1].starts_with("truncated at byte"), "{}", damage[1]);
    assert!(damage.iter().any(|d| d.starts_with("damaged: tile 1,")), "{damage:?}");
}

#[test]
fn without_a_main_header_there_is_nothing() {
    let data = read("b04_15bit_tiles32.jp2");
    let start = tile_parts(&data)[0];
    for end in [0, 50, start - 1] {
        Image::parse_damaged(&data[..end], &Limits::default()).unwrap_err();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn flipped_bytes_never_panic(
        file in prop::sample::select(vec!["b01_15bit_blocks4_tlm.jp2", "offset_tileparts.j2k", "layers_16bit.jp2"]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut data = read(file);
        for (index, value) in flips {
            let at = index.index(data.len());
            data[at] = value;
        }
        if let Ok((image, _)) = Image::parse_damaged(&data, &Limits::default()) {
            let length = image.components().len() * (image.height() as usize * image.width() as usize);
            if length <= 1 << 22 {
                let _ = image.decode_damaged(&whole(&image), &mut vec![0_u16; length]);
            }
        }
    }
}
