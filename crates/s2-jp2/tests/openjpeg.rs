//! Files that `OpenJPEG` writes over a grid of parameters, decoded by both. Needs `opj_compress` and `opj_decompress`
//! (Debian: libopenjp2-tools), and says so where they are missing.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};
use s2_jp2::{Error, Image, Region, Sample, Window};

fn is_installed() -> bool {
    let found = ["opj_compress", "opj_decompress"]
        .into_iter()
        .all(|tool| Command::new(tool).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok());
    if !found {
        let _ = writeln!(std::io::stderr(), "skipped: opj_compress and opj_decompress are not installed");
    }
    found
}

/// Something like a picture: slopes, an edge, noise, and a flat corner.
fn picture(height: usize, width: usize, components: usize, bits: u32, signed: bool) -> Vec<i32> {
    let range = 1_u64 << bits;
    let mut state = 12_345_u64;
    let mut samples = Vec::with_capacity(components * height * width);
    for component in 0..components {
        for row in 0..height {
            for col in 0..width {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let noise = (state >> 40) % (range / 16).max(2);
                let slope =
                    range * (row + 2 * col + 7 * component) as u64 / (height + 2 * width + 30) as u64 / 2;
                let edge = if (row * 3 + col) % 53 < 20 { range / 3 } else { 0 };
                let value = if row < height / 5 && col < width / 3 { 0 } else { slope + edge + noise };
                let value = i64::try_from(value.min(range - 1)).unwrap();
                let shift = if signed { i64::try_from(range / 2).unwrap() } else { 0 };
                samples.push(i32::try_from(value - shift).unwrap());
            }
        }
    }
    samples
}

/// Raw samples of `OpenJPEG`, big-endian: one byte up to 8 bits, two above.
fn to_raw(samples: &[i32], bits: u32) -> Vec<u8> {
    let bytes = samples.iter().map(|sample| sample.to_be_bytes());
    bytes.flat_map(|b| if bits <= 8 { b[3..].to_vec() } else { b[2..].to_vec() }).collect()
}

/// What it writes is little-endian, and samples with a sign are cut to their bits.
fn from_raw(raw: &[u8], bits: u32, signed: bool) -> Vec<i32> {
    let unsigned: Vec<i32> = if bits <= 8 {
        raw.iter().map(|&b| i32::from(b)).collect()
    } else {
        raw.as_chunks::<2>().0.iter().map(|&w| i32::from(u16::from_le_bytes(w))).collect()
    };
    let shift = if signed { 32 - bits } else { 0 };
    unsigned.into_iter().map(|sample| sample << shift >> shift).collect()
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output().unwrap();
    if !output.status.success() {
        eprintln!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).into_os_string().into_string().unwrap()
}

fn decode(image: &Image<'_>, region: &Region) -> s2_jp2::Result<Vec<i32>> {
    fn typed<T: Sample + Into<i32>>(image: &Image<'_>, region: &Region) -> s2_jp2::Result<Vec<i32>> {
        let rows = image.components().len() * region.window.height;
        let mut out = vec![T::default(); rows.saturating_sub(1) * region.stride + region.window.width];
        image.decode_region(region, &mut out)?;
        Ok(out
            .chunks(region.stride)
            .flat_map(|row| row[..region.window.width].to_vec())
            .map(Into::into)
            .collect())
    }
    match image.components()[0] {
        component if component.signed => typed::<i16>(image, region),
        component if component.bits <= 8 => typed::<u8>(image, region),
        _ => typed::<u16>(image, region),
    }
}

/// A picture, how it is coded, and what is decoded.
#[derive(Clone, Debug)]
struct Case {
    height: usize,
    width: usize,
    components: usize,
    bits: u32,
    signed: bool,
    arguments: Vec<String>,
    reversible: bool,
    reduce: u32,
    window: [f64; 4],
}

/// Compares both decoders on a reduced image (or not), and a window of it.
fn check(case: &Case) -> TestCaseResult {
    let folder = tempfile::tempdir().unwrap();
    let (raw, coded, decoded) =
        (path(folder.path(), "in.raw"), path(folder.path(), "coded.jp2"), path(folder.path(), "out.rawl"));
    let &Case { height, width, components, bits, signed, reversible, reduce, .. } = case;
    let original = picture(height, width, components, bits, signed);
    std::fs::write(&raw, to_raw(&original, bits)).unwrap();
    let kind = if signed { 's' } else { 'u' };
    let format = format!("{width},{height},{components},{bits},{kind}");
    let mut arguments = vec!["-i", &raw, "-o", &coded, "-F", &format];
    arguments.extend(case.arguments.iter().map(|a| &a[..]));
    // More resolutions than the picture has pixels, say.
    prop_assume!(run("opj_compress", &arguments), "OpenJPEG refuses");
    // It spoils some files with tile-parts, as its own decoder shows.
    if case.arguments.contains(&"-TP".to_owned()) {
        prop_assume!(run("opj_decompress", &["-i", &coded, "-o", &decoded]), "OpenJPEG refuses");
        let theirs = from_raw(&std::fs::read(&decoded).unwrap(), bits, signed);
        prop_assume!(theirs == original, "spoilt by OpenJPEG");
    }
    let reduced = reduce.to_string();
    // Fewer resolutions.
    prop_assume!(run("opj_decompress", &["-i", &coded, "-o", &decoded, "-r", &reduced]), "OpenJPEG refuses");
    let data = std::fs::read(&coded).unwrap();
    let image = Image::parse(&data).unwrap_or_else(|e| panic!("{e}: {case:?}"));
    let theirs = from_raw(&std::fs::read(&decoded).unwrap(), bits, signed);
    let (height, width) = image.reduced_shape(reduce);
    let window = Window { row: 0, col: 0, height, width };
    let ours = decode(&image, &Region { reduce, window, stride: width + 3 }).unwrap();
    assert_eq!(ours.len(), theirs.len(), "{case:?}");
    let difference = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    // The irreversible transform is defined in real numbers, and both round. OpenJPEG also scales high bands by
    // 1.625732422 / 2 where 1 / K (F.3.8) is 1.625786 / 2: 3.3e-5 of their range, twice where two directions are high.
    let allowed = if reversible { 0 } else { 1 + (5 << bits >> 16) };
    assert!(difference <= allowed, "{difference}: {case:?}");

    let [top, left, bottom, right] = case.window;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to length")]
    #[expect(clippy::cast_precision_loss, reason = "small lengths")]
    let at = |share: f64, length: usize| (share * length as f64) as usize;
    let (row, col) = (at(top.min(bottom), height), at(left.min(right), width));
    let (end_row, end_col) = (at(top.max(bottom), height), at(left.max(right), width));
    let window = Window { row, col, height: end_row - row, width: end_col - col };
    if window.height * window.width == 0 {
        return Ok(());
    }
    let part = decode(&image, &Region { reduce, window, stride: window.width }).unwrap();
    let rows = (0..components).flat_map(|c| (row..end_row).map(move |r| (c * height + r) * width));
    let expected: Vec<_> = rows.flat_map(|start| ours[start + col..start + end_col].to_vec()).collect();
    assert!(part == expected, "window {window:?}: {case:?}");
    Ok(())
}

fn cases() -> impl Strategy<Value = Case> {
    let size = (1..150_usize, 1..150_usize);
    let depth = (2..=16_u32, any::<bool>(), prop::sample::select(vec![1_usize, 1, 3, 4]));
    let structure = (
        1..=6_u32,
        (2..=6_u32, 2..=6_u32),
        prop::option::of((5..=8_u32, 5..=8_u32)),
        prop::option::of((20..160_u32, 20..160_u32)),
        prop::sample::select(vec!["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"]),
    );
    let coding = (
        prop::sample::select(vec!["", "1", "8,2,1", "30,10", "60"]),
        prop::bool::weighted(0.3),
        prop::sample::select(vec!["", "-PLT", "-TLM", "-SOP", "-EPH", "-SOP -EPH", "-PLT -TLM"]),
        prop::sample::select(vec!["", "", "R", "L", "C"]),
        // Termination, bypass and causal contexts are the fallback's.
        prop::sample::select(vec![0, 0, 0, 2, 32, 34]),
        (0..40_u32, 0..40_u32, prop::bool::weighted(0.3)),
    );
    let window = prop::array::uniform4(0.0..=1.0_f64);
    (size, depth, structure, coding, 0..4_u32, window).prop_map(
        |((height, width), (bits, signed, components), structure, coding, reduce, window)| {
            let (resolutions, block, precinct, tile, progression) = structure;
            let (rates, irreversible, markers, parts, mode, (x, y, shifted)) = coding;
            // OpenJPEG codes no 9/7 of one bit, nor signed samples of so few.
            let bits = bits.max(if signed || irreversible { 4 } else { 2 });
            let mut arguments: Vec<String> = vec!["-n".into(), resolutions.to_string()];
            // A code-block has 4096 samples at most.
            let block = (1_u32 << block.0, 1_u32 << block.1);
            arguments.extend(["-b".into(), format!("{},{}", block.0, block.1)]);
            arguments.extend(["-p".into(), progression.into()]);
            if let Some((w, h)) = precinct {
                arguments.extend(["-c".into(), format!("[{},{}]", 1 << w, 1 << h)]);
            }
            if let Some((w, h)) = tile {
                arguments.extend(["-t".into(), format!("{w},{h}")]);
                if shifted {
                    arguments.extend(["-T".into(), format!("{},{}", x.min(y), x.min(y))]);
                }
            }
            if shifted {
                arguments.extend(["-d".into(), format!("{x},{y}")]);
            }
            if !rates.is_empty() {
                arguments.extend(["-r".into(), rates.into()]);
            }
            if irreversible {
                arguments.push("-I".into());
            }
            arguments.extend(markers.split_whitespace().map(String::from));
            if !parts.is_empty() && rates.is_empty() && !irreversible {
                arguments.extend(["-TP".into(), parts.into()]);
            }
            if mode > 0 {
                arguments.extend(["-M".into(), mode.to_string()]);
            }
            Case {
                height,
                width,
                components,
                bits,
                signed,
                arguments,
                reduce,
                window,
                reversible: !irreversible,
            }
        },
    )
}

#[test]
fn any_parameters_give_what_openjpeg_gives() {
    if !is_installed() {
        return;
    }
    let config = ProptestConfig {
        max_shrink_iters: 60,
        max_global_rejects: 2000,
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    };
    TestRunner::new(config).run(&cases(), |case| check(&case)).unwrap();
}

/// What only the fallback decodes, and what is refused by name without it.
#[test]
fn rare_styles_are_decoded_by_the_fallback_or_refused() {
    if !is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (raw, coded) = (path(folder.path(), "in.raw"), path(folder.path(), "coded.j2k"));
    let original = picture(70, 90, 1, 12, false);
    std::fs::write(&raw, to_raw(&original, 12)).unwrap();
    for (arguments, feature) in [
        (vec!["-M", "1"], "code-block style 0x01"),
        (vec!["-M", "4"], "code-block style 0x04"),
        (vec!["-M", "8"], "code-block style 0x08"),
        (vec!["-ROI", "c=0,U=3"], "regions of interest (RGN marker)"),
        (vec!["-POC", "T1=0,0,1,3,1,CPRL/T1=3,0,1,6,1,CPRL"], "changes of progression order (POC marker)"),
    ] {
        let mut all = vec!["-i", &raw, "-o", &coded, "-F", "90,70,1,12,u"];
        all.extend(&arguments);
        assert!(run("opj_compress", &all), "{arguments:?}");
        let data = std::fs::read(&coded).unwrap();
        let image = Image::parse(&data).unwrap();
        let window = Window { row: 5, col: 7, height: 30, width: 40 };
        let part = decode(&image, &Region { reduce: 0, window, stride: 40 });
        let refused = |result: s2_jp2::Result<_>| match result {
            Err(Error::Unsupported { feature: found }) => assert_eq!(found, feature),
            other => panic!("{arguments:?}: {other:?}"),
        };
        let smaller = Window { row: 0, col: 0, height: 35, width: 45 };
        refused(decode(&image, &Region { reduce: 1, window: smaller, stride: 45 }));
        if cfg!(feature = "hayro") {
            let expected: Vec<_> = (5..35).flat_map(|r| original[r * 90 + 7..][..40].to_vec()).collect();
            match part {
                Ok(part) => assert!(part == expected, "{arguments:?}"),
                // The fallback knows no regions of interest either.
                Err(error) => assert!(feature.contains("RGN"), "{arguments:?}: {error}"),
            }
        } else {
            refused(part);
        }
    }
}
