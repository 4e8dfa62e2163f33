//! Real pixels of one scene under two processing baselines: one with an offset of 1000 DN, one without.

use std::io::Write as _;
use std::path::PathBuf;

use examples::input::{STATISTICS, Scene};
use examples::predict::{MASK, Options, POLYGONS, PROBABILITY, WindowSize, predict};
use examples::prepare::{NORMALISED, prepare};
use examples::{device, train};
use s2_io::{Band, GeoTiff};
use s2_normalize::Statistics;
use unet_burn::burn::tensor::Device;
use unet_burn::{Bundle, PredictorConfig, UNetConfig};

/// A folder of the test data, or a word that it is not here.
fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("S2_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {} is not here; set S2_TEST_DATA to the test data",
        path.display()
    );
    None
}

#[test]
fn two_baselines_of_a_scene_give_one_map() {
    let Some(folder) = data("mini_safe_29RKH") else { return };
    let product = |baseline: &str| {
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.to_string_lossy().contains(baseline)).unwrap()
    };
    let out = tempfile::tempdir().unwrap();
    let (old, new) = (out.path().join("old"), out.path().join("new"));
    prepare(&product("_N0214_"), &old, true, true).unwrap();
    prepare(&product("_N0509_"), &new, true, true).unwrap();

    let statistics = |folder: &PathBuf| Statistics::load(folder.join(STATISTICS)).unwrap();
    let (before, after) = (statistics(&old), statistics(&new));
    assert_eq!(after.bands[0].offset, -1000, "the newer product has an offset");
    for (a, b) in before.bands.iter().zip(&after.bands) {
        assert_eq!((a.low, a.high, a.count), (b.low, b.high, b.count), "{}", a.band);
    }
    let normalised =
        |folder: &PathBuf| GeoTiff::open(folder.join(NORMALISED)).unwrap().read::<f32>().unwrap();
    let (a, b) = (normalised(&old), normalised(&new));
    assert_eq!(a.data.dim(), (22, 1098, 1098), "ten bands and twelve classes");
    assert!(a == b, "the network's input is the same bit for bit");

    let device = device::open(device::DeviceChoice::Cpu).unwrap();
    device.device.seed(5);
    let scene = Scene::open(&old).unwrap();
    let network = UNetConfig { in_channels: 22, levels: 2, filters: 2, ..UNetConfig::default() };
    let model = network.init(&Device::flex()).unwrap();
    let bundle = Bundle { model, recipe: scene.recipe(), threshold: Some(0.01), training: None };
    let model = out.path().join("model");
    bundle.save(&model).unwrap();
    let options = Options { window: WindowSize::Pixels(380), batch: 1, views: PredictorConfig::default() };
    for folder in [&old, &new] {
        predict(folder, &model, &device, folder, options, None, true).unwrap();
    }
    let maps =
        |folder: &PathBuf| GeoTiff::open(folder.join(PROBABILITY)).unwrap().read::<f32>().unwrap().data;
    let bits = |folder: &PathBuf| maps(folder).mapv(f32::to_bits);
    assert!(bits(&old) == bits(&new), "the maps are the same bit for bit");
    for file in [MASK, POLYGONS] {
        assert!(old.join(file).is_file(), "{file} was written");
    }
}

#[test]
fn chips_of_real_mines_are_read_and_scaled() {
    let Some(folder) = data("tailings_brazil") else { return };
    let chips = train::ChipFolder::open(&folder, &[Band::B02, Band::B03, Band::B04]).unwrap();
    assert_eq!((chips.training.len(), chips.validation.len()), (76, 18), "the given split");
    let error = train::ChipFolder::open(&folder, &[Band::B02, Band::B03]).unwrap_err();
    assert!(format!("{error:#}").contains("has 3 bands, but --bands names 2"), "{error:#}");
}
