//! The published numbers, and a training run.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, Array4, s};
use unet_burn::burn::data::dataset::InMemDataset;
use unet_burn::burn::module::Module;
use unet_burn::burn::tensor::{Device, Tensor};
use unet_burn::burn::train::Interrupter;
use unet_burn::{
    Bundle, Epoch, Error, FocalLoss, IGNORE_INDEX, Patch, Progress, Recipe, TrainingConfig, TrainingRecord,
    UNetConfig, predict, train,
};

/// 4,480 of them are running statistics of batch norm; burn counts these too.
#[test]
fn the_released_network_has_the_published_number_of_parameters() {
    let device = Device::flex();
    for (in_channels, published) in [(24, 31_052_801), (22, 31_051_649)] {
        let model = UNetConfig { in_channels, ..UNetConfig::default() }.init(&device).unwrap();
        assert_eq!(model.num_params(), published, "{in_channels} channels");
        let stored = model.to_safetensors().unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&stored).unwrap();
        let total: usize =
            tensors.tensors().iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum();
        assert_eq!(total, published, "in the file of {in_channels} channels");
    }
}

#[test]
fn a_window_of_572_gives_388() {
    let device = Device::flex();
    let model = UNetConfig { in_channels: 2, filters: 1, ..UNetConfig::default() }.init(&device).unwrap();
    let logits = model.forward(Tensor::zeros([1, 2, 572, 572], &device)).unwrap();
    assert_eq!(logits.dims(), [1, 1, 388, 388], "Ronneberger 2015, figure 1");
}

#[test]
fn an_input_that_does_not_fit_is_refused() {
    let device = Device::flex();
    let model = UNetConfig { in_channels: 2, filters: 1, ..UNetConfig::default() }.init(&device).unwrap();
    let wrong_size = predict(&model, Array4::zeros((1, 2, 190, 190)).view(), &device).unwrap_err();
    assert_eq!(
        wrong_size.to_string(),
        "190 is no valid input size for 4 levels and kernel 3: use 188 or 204",
        "size"
    );
    let wrong_channels = predict(&model, Array4::zeros((1, 3, 188, 188)).view(), &device).unwrap_err();
    assert!(matches!(wrong_channels, Error::InputShape { in_channels: 2, .. }), "{wrong_channels}");
}

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

// burn's seed is one for the process, so runs that are compared share a test.
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

#[test]
fn ignored_pixels_do_not_change_the_loss() {
    let device = Device::flex();
    let logits = Tensor::<4>::from_floats([[[[2.0, -1.0]]], [[[3.0, 3.0]]]], &device);
    let truth = Tensor::<4>::from_floats([[[[1.0, 0.0]]], [[[0.0, 0.0]]]], &device);
    let valid = Tensor::<4>::from_floats([[[[1.0, 0.0]]], [[[0.0, 0.0]]]], &device);
    let loss = FocalLoss::default().forward(logits, truth, valid).into_data().try_to_vec::<f32>().unwrap();
    let p = 1.0 / (1.0 + (-2.0_f32).exp());
    let expected = -0.25 * (1.0 - p).powi(2) * p.ln();
    assert!((loss[0] - expected).abs() < 1e-7, "{} and {expected}", loss[0]);
    assert_eq!(loss[1], 0.0, "nothing valid");
}
