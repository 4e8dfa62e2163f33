//! A training run. A file of its own, since burn's seed is one for the whole process and tests run side by side.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, s};
use unet_burn::burn::data::dataset::InMemDataset;
use unet_burn::burn::tensor::Device;
use unet_burn::burn::train::Interrupter;
use unet_burn::{
    Bundle, Epoch, Error, IGNORE_INDEX, Patch, Progress, Recipe, TrainingConfig, TrainingRecord, UNetConfig,
    predict, train,
};

const SIZE: usize = 60;

fn tiny() -> UNetConfig {
    UNetConfig { in_channels: 2, levels: 2, filters: 4, dropout: 0.1, ..UNetConfig::default() }
}

/// Bright squares on noise; the second channel says nothing.
fn patches(count: u32) -> Vec<Patch> {
    let margin = (SIZE - tiny().output_size(SIZE).unwrap()) / 2;
    (0..count)
        .map(|index| {
            let noise = |channel: usize, row: usize, col: usize| {
                let hash = (row * 31 + col * 17 + channel * 7 + index as usize * 101) * 2_654_435_761 % 4096;
                hash as f32 / 4096.0 - 0.5
            };
            let mut image = Array3::from_shape_fn((2, SIZE, SIZE), |(c, row, col)| 0.4 * noise(c, row, col));
            let mut truth = Array2::zeros((SIZE, SIZE));
            let (row, col) = (20 + (index as usize * 5) % 12, 22 + (index as usize * 7) % 10);
            image.slice_mut(s![0, row..row + 8, col..col + 8]).map_inplace(|value| *value += 1.0);
            truth.slice_mut(s![row..row + 8, col..col + 8]).fill(1_u8);
            let mut truth = truth.slice(s![margin..SIZE - margin, margin..SIZE - margin]).to_owned();
            truth[[0, 0]] = IGNORE_INDEX;
            Patch { image, truth }
        })
        .collect()
}

fn run(seed: u64, epochs: usize) -> (unet_burn::Trained, Vec<Epoch>) {
    let device = Device::flex();
    device.seed(seed);
    let model = tiny().init(&device).unwrap();
    let config =
        TrainingConfig { epochs, batch_size: 4, learning_rate: 5e-3, seed, ..TrainingConfig::default() };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let trained = train(
        model,
        &config,
        InMemDataset::new(patches(16)),
        InMemDataset::new(patches(4)),
        &device,
        &Interrupter::new(),
        move |progress| {
            if let Progress::Epoch(epoch) = progress {
                record.lock().unwrap().push(epoch);
            }
        },
    )
    .unwrap();
    let seen = seen.lock().unwrap().clone();
    (trained, seen)
}

#[test]
fn training_learns_is_repeatable_and_survives_its_bundle() {
    let (trained, seen) = run(7, 12);
    assert_eq!(trained.history, seen, "each epoch was reported once");
    assert_eq!(trained.history.len(), 12, "all epochs");
    let (first, best) = (trained.history[0], trained.history[trained.best_epoch - 1]);
    assert!(best.validation_loss < 0.5 * first.validation_loss, "{:?}", trained.history);
    assert!(
        trained.history.iter().all(|epoch| epoch.validation_loss >= best.validation_loss),
        "the best epoch is the best"
    );
    let (again, _) = run(7, 12);
    assert_eq!(again.history, trained.history, "a seed gives the same losses");

    let device = Device::flex();
    let image = patches(1).remove(0).image.insert_axis(ndarray::Axis(0));
    let probabilities = predict(&trained.model, image.view(), &device).unwrap();
    let truth = &patches(1)[0].truth;
    let mean = |class: u8| {
        let values: Vec<f32> = probabilities
            .iter()
            .zip(truth)
            .filter(|(_, truth)| **truth == class)
            .map(|(probability, _)| *probability)
            .collect();
        values.iter().sum::<f32>() / values.len() as f32
    };
    assert!(mean(1) > mean(0) + 0.2, "mines are brighter: {} against {}", mean(1), mean(0));

    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        channels: vec!["B04".into(), "B08".into()],
        resolution_m: 10.0,
        normalization: "none".into(),
    };
    let training = TrainingRecord {
        config: TrainingConfig::default(),
        history: trained.history.clone(),
        best_epoch: trained.best_epoch,
        sources: vec!["made".into()],
        device: "cpu".into(),
    };
    let bundle = Bundle {
        model: trained.model,
        recipe: recipe.clone(),
        threshold: Some(0.4),
        training: Some(training.clone()),
    };
    bundle.save(folder.path()).unwrap();
    let loaded = Bundle::load(folder.path(), &device).unwrap();
    assert_eq!(
        (loaded.recipe, loaded.threshold, loaded.training),
        (recipe.clone(), Some(0.4), Some(training)),
        "JSON"
    );
    let after = predict(&loaded.model, image.view(), &device).unwrap();
    assert_eq!(after, probabilities, "the network came back bit for bit");

    let other = Recipe { channels: vec!["B04".into(), "B11".into()], ..recipe.clone() };
    assert_eq!(
        recipe.check(&other).unwrap_err().to_string(),
        "the model was trained on other input: the list of channels is B04 B11 here, but B04 B08 in the model",
        "another recipe"
    );

    let description = folder.path().join("model.json");
    let json = std::fs::read_to_string(&description).unwrap();
    std::fs::write(&description, json.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert!(matches!(Bundle::load(folder.path(), &device), Err(Error::Version { found: 2, .. })), "newer");
    std::fs::write(&description, &json[..json.len() / 2]).unwrap();
    assert!(matches!(Bundle::load(folder.path(), &device), Err(Error::Description { .. })), "cut off");
    std::fs::remove_file(&description).unwrap();
    assert!(matches!(Bundle::load(folder.path(), &device), Err(Error::Read { .. })), "missing");

    let broken = Patch { image: Array3::from_elem((2, SIZE, SIZE), f32::NAN), ..patches(1).remove(0) };
    let model = tiny().init(&device).unwrap();
    let error = train(
        model,
        &TrainingConfig { epochs: 3, batch_size: 1, ..TrainingConfig::default() },
        InMemDataset::new(vec![broken]),
        InMemDataset::new(patches(1)),
        &device,
        &Interrupter::new(),
        |_| {},
    )
    .unwrap_err();
    assert!(matches!(error, Error::Diverged { split: "training", epoch: 1, .. }), "{error}");

    let model = tiny().init(&device).unwrap();
    let empty = InMemDataset::new(Vec::<Patch>::new());
    let error = train(
        model,
        &TrainingConfig::default(),
        empty,
        InMemDataset::new(patches(1)),
        &device,
        &Interrupter::new(),
        |_| {},
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "the training set holds no patch", "empty");
}
