//! Training runs. burn's random numbers are one stream for the whole process, so the runs take turns.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::{Array2, Array3, Axis, s};
use unet_burn::burn::data::dataset::InMemDataset;
use unet_burn::burn::tensor::{Device, Distribution, Tensor};
use unet_burn::{
    Bundle, Checkpoints, Clipping, Criterion, Epoch, Error, Execution, IGNORE_INDEX, Image, Loss, Patch,
    PatchSet, Progress, Recipe, Schedule, Trained, TrainingConfig, TrainingRecord, UNetConfig, predict,
    train,
};

const SIZE: usize = 60;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tiny() -> UNetConfig {
    UNetConfig { in_channels: 2, levels: 2, filters: 4, dropout: 0.1, ..UNetConfig::default() }
}

/// A bright square on noise; the second channel says nothing.
fn patch(index: usize) -> Patch {
    let margin = (SIZE - tiny().output_size(SIZE).unwrap()) / 2;
    let noise = |channel: usize, row: usize, col: usize| {
        let hash = (row * 31 + col * 17 + channel * 7 + index * 101) * 2_654_435_761 % 4096;
        hash as f32 / 4096.0 - 0.5
    };
    let mut image = Array3::from_shape_fn((2, SIZE, SIZE), |(c, row, col)| 0.4 * noise(c, row, col));
    let mut truth = Array2::zeros((SIZE, SIZE));
    let (row, col) = (20 + (index * 5) % 12, 22 + (index * 7) % 10);
    image.slice_mut(s![0, row..row + 8, col..col + 8]).map_inplace(|value| *value += 1.0);
    truth.slice_mut(s![row..row + 8, col..col + 8]).fill(1_u8);
    let mut truth = truth.slice(s![margin..SIZE - margin, margin..SIZE - margin]).to_owned();
    truth[[0, 0]] = IGNORE_INDEX;
    Patch { name: format!("square {index}"), image: Image::Normalised(image), truth }
}

fn patches(count: usize) -> InMemDataset<Patch> {
    InMemDataset::new((0..count).map(patch).collect())
}

/// Other patches in each epoch, as augmentation makes them.
struct Augmented(usize);

impl PatchSet for Augmented {
    fn len(&self) -> usize {
        self.0
    }

    fn patch(&self, epoch: usize, index: usize) -> Result<Patch, Box<dyn StdError + Send + Sync>> {
        Ok(patch(epoch * 100 + index))
    }
}

fn config(epochs: usize) -> TrainingConfig {
    TrainingConfig { epochs, learning_rate: 5e-3, seed: 7, ..TrainingConfig::default() }
}

fn execute(
    config: &TrainingConfig,
    training: impl PatchSet + 'static,
    execution: Execution,
) -> Result<Trained, Error> {
    let device = Device::flex();
    device.seed(config.seed);
    let model = tiny().init(&device)?;
    train(model, config, training, patches(4), execution)
}

fn here() -> Execution {
    Execution::on(&Device::flex())
}

/// As [`here`], and interrupted within an epoch.
fn stopped_in(stop: usize) -> Execution {
    let execution = here();
    let interrupter = execution.interrupter.clone();
    let progress = move |progress: Progress<'_>| {
        if matches!(progress, Progress::Patches { epoch, .. } if epoch == stop) {
            interrupter.stop(Some("test"));
        }
    };
    Execution { progress: Box::new(progress), ..execution }
}

fn image(patch: &Patch) -> ndarray::Array4<f32> {
    match &patch.image {
        Image::Normalised(image) => image.clone().insert_axis(Axis(0)),
        Image::Raw(_) => unreachable!("these patches are ready"),
    }
}

/// Equal but for the last digit, which JSON may round.
fn assert_same(history: &[Epoch], expected: &[Epoch]) {
    assert_eq!(history.len(), expected.len(), "number of epochs");
    for (epoch, expected) in history.iter().zip(expected) {
        let values = |e: &Epoch| {
            [e.training_loss, e.validation_loss, e.score.unwrap(), e.threshold.unwrap(), e.learning_rate]
        };
        for (value, expected) in values(epoch).into_iter().zip(values(expected)) {
            assert!((value - expected).abs() <= 1e-14 * expected.abs(), "{epoch:?} is not {expected:?}");
        }
    }
}

#[test]
fn training_learns_is_repeatable_and_survives_its_bundle() {
    let _turn = alone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let progress = move |progress: Progress<'_>| {
        if let Progress::Epoch(epochs) = progress {
            record.lock().unwrap().push(*epochs.last().unwrap());
        }
    };
    let trained =
        execute(&config(12), patches(16), Execution { progress: Box::new(progress), ..here() }).unwrap();
    assert_eq!(trained.history, *seen.lock().unwrap(), "each epoch was reported once");
    assert_eq!(trained.history.len(), 12, "all epochs");
    let (first, best) = (trained.history[0], trained.history[trained.best_epoch - 1]);
    assert!(best.validation_loss < 0.5 * first.validation_loss, "{:?}", trained.history);
    assert!(trained.history.iter().all(|epoch| epoch.score <= best.score), "the best epoch is the best");
    let again = execute(&TrainingConfig { workers: 3, ..config(12) }, patches(16), here()).unwrap();
    assert_eq!(again.history, trained.history, "a seed gives the same losses, whatever the threads");

    // The score of the best epoch, once more from its weights: all probabilities sorted, every one a threshold.
    let device = Device::flex();
    let mut pixels: Vec<(f32, u8)> = Vec::new();
    for patch in (0..4).map(patch) {
        let probabilities = predict(&trained.model, image(&patch).view(), &device).unwrap();
        pixels.extend(
            probabilities.iter().copied().zip(patch.truth).filter(|(_, truth)| *truth != IGNORE_INDEX),
        );
    }
    pixels.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = pixels.iter().filter(|(_, truth)| *truth == 1).count() as f64;
    let (mut tp, mut best_anywhere, mut at_threshold) = (0.0, 0.0_f64, 0.0);
    for (count, (probability, truth)) in pixels.iter().enumerate() {
        tp += f64::from(*truth);
        let f05 = 1.25 * tp / (0.25 * positives + count as f64 + 1.0);
        best_anywhere = best_anywhere.max(f05);
        if f64::from(*probability) >= best.threshold.unwrap() {
            at_threshold = f05;
        }
    }
    let score = best.score.unwrap();
    assert!((score - at_threshold).abs() < 1e-9, "{score} {at_threshold}");
    assert!(score <= best_anywhere && score > best_anywhere - 0.01, "{score} of {best_anywhere}");

    let first_patch = patch(0);
    let probabilities = predict(&trained.model, image(&first_patch).view(), &device).unwrap();
    let mean = |class: u8| {
        let of_class = probabilities.iter().zip(&first_patch.truth).filter(|(_, truth)| **truth == class);
        let values: Vec<f32> = of_class.map(|(probability, _)| *probability).collect();
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
    let loaded_training = loaded.training.unwrap();
    assert_same(&loaded_training.history, &training.history);
    assert_eq!((loaded.recipe, loaded.threshold), (recipe.clone(), Some(0.4)), "JSON");
    assert_eq!(
        (loaded_training.config, loaded_training.best_epoch),
        (training.config, training.best_epoch),
        "JSON"
    );
    let after = predict(&loaded.model, image(&first_patch).view(), &device).unwrap();
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
}

#[test]
fn a_cosine_in_mixed_precision_goes_on_where_it_was() {
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = |name: &str, resume: bool| {
        Some(Checkpoints { folder: folder.path().join(name), resume, facts: BTreeMap::new() })
    };
    // In mixed precision, which keeps nothing from step to step.
    let config =
        TrainingConfig { schedule: Schedule::Cosine { floor: 1e-5 }, mixed_precision: true, ..config(4) };
    let whole =
        execute(&config, Augmented(11), Execution { checkpoints: checkpoints("whole", false), ..here() })
            .unwrap();
    let rates: Vec<f64> = whole.history.iter().map(|epoch| epoch.learning_rate).collect();
    assert!(rates.is_sorted_by(|a, b| a > b), "it falls: {rates:?}");

    let execution = Execution { checkpoints: checkpoints("cut", false), ..stopped_in(3) };
    let cut = execute(&config, Augmented(11), execution).unwrap();
    assert_same(&cut.history, &whole.history[..2]);
    let resumed =
        execute(&config, Augmented(11), Execution { checkpoints: checkpoints("cut", true), ..here() })
            .unwrap();
    assert_same(&resumed.history, &whole.history);

    // A longer one would have had other step sizes from the first epoch on.
    let longer = TrainingConfig { epochs: 5, ..config };
    let error =
        execute(&longer, Augmented(11), Execution { checkpoints: checkpoints("cut", true), ..here() })
            .unwrap_err();
    assert!(error.to_string().contains("belongs to another run"), "{error}");
}

#[test]
fn an_interrupted_run_goes_on_as_if_nothing_had_happened() {
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = |name: &str, resume: bool| {
        let facts = [("window".to_owned(), SIZE.to_string())].into();
        Some(Checkpoints { folder: folder.path().join(name), resume, facts })
    };
    let config = TrainingConfig {
        schedule: Schedule::Plateau { patience: 1, factor: 0.5, floor: 0.0 },
        clipping: Some(Clipping::Norm(0.5)),
        accumulation: 2,
        batch_size: 3,
        workers: 2,
        learning_rate: 0.05,
        ..config(6)
    };
    let whole =
        execute(&config, Augmented(11), Execution { checkpoints: checkpoints("whole", false), ..here() })
            .unwrap();

    // Stopped within the fourth epoch.
    let execution = Execution { checkpoints: checkpoints("cut", false), ..stopped_in(4) };
    let cut = execute(&config, Augmented(11), execution).unwrap();
    assert!(cut.interrupted && !whole.interrupted, "one of them");
    assert_same(&cut.history, &whole.history[..3]);

    // Other weights and other random numbers on the way: the checkpoint decides.
    let device = Device::flex();
    device.seed(99);
    let _ = Tensor::<1>::random([1000], Distribution::Default, &device).into_data();
    let model = tiny().init(&device).unwrap();
    let told = Arc::new(Mutex::new(0));
    let tell = told.clone();
    let progress = move |progress: Progress<'_>| {
        if let Progress::Resumed(epochs) = progress {
            *tell.lock().unwrap() = epochs.len();
        }
    };
    let execution =
        Execution { checkpoints: checkpoints("cut", true), progress: Box::new(progress), ..here() };
    let resumed = train(model, &config, Augmented(11), patches(4), execution).unwrap();
    assert_eq!(*told.lock().unwrap(), 3, "it told where it goes on");
    assert_same(&resumed.history, &whole.history);
    assert_eq!(resumed.best_epoch, whole.best_epoch, "best epoch");
    let same = |a: &Trained, b: &Trained| values(a, |_| true) == values(b, |_| true);
    assert!(same(&resumed, &whole), "the best weights bit for bit");

    // A finished run gives its result again; a longer one goes on from it.
    let again =
        execute(&config, Augmented(11), Execution { checkpoints: checkpoints("cut", true), ..here() })
            .unwrap();
    assert_same(&again.history, &whole.history);
    assert!(same(&again, &whole), "nothing was trained");
    let longer = TrainingConfig { epochs: 7, ..config.clone() };
    let longer =
        execute(&longer, Augmented(11), Execution { checkpoints: checkpoints("cut", true), ..here() })
            .unwrap();
    assert_eq!(longer.history.len(), 7, "one more epoch");
    assert_same(&longer.history[..6], &whole.history);

    refused_checkpoints(&config, &folder.path().join("cut"));
}

/// A checkpoint of seven epochs lies there.
fn refused_checkpoints(config: &TrainingConfig, folder: &Path) {
    let error = |config: &TrainingConfig, count: usize, resume: bool, window: usize| {
        let facts = [("window".to_owned(), window.to_string())].into();
        let checkpoints = Some(Checkpoints { folder: folder.into(), resume, facts });
        execute(config, Augmented(count), Execution { checkpoints, ..here() }).unwrap_err().to_string()
    };
    let path = folder.join("epoch-000007").display().to_string();
    assert_eq!(
        error(config, 11, false, SIZE),
        format!("{path} is the checkpoint of a run: resume it, or remove it"),
        "not overwritten"
    );
    let other = TrainingConfig { learning_rate: 0.04, ..config.clone() };
    let words = "belongs to another run: training.learning_rate is 0.04 here, but 0.05 there";
    assert_eq!(error(&other, 11, true, SIZE), format!("{path} {words}"), "other settings");
    let words = "belongs to another run: training_patches is 12 here, but 11 there";
    assert_eq!(error(config, 12, true, SIZE), format!("{path} {words}"), "other patches");
    let words = "belongs to another run: data.window is \"64\" here, but \"60\" there";
    assert_eq!(error(config, 11, true, 64), format!("{path} {words}"), "another window");
    let longer = TrainingConfig { epochs: 7, ..config.clone() };
    let config = &longer;

    let fewer = TrainingConfig { epochs: 6, ..config.clone() };
    let words = "epochs is 6: the checkpoint has more epochs than that";
    assert_eq!(error(&fewer, 11, true, SIZE), words, "nothing of it is thrown away");

    for (name, kept) in [("optimizer.bpk", 100), ("model.bpk", 0), ("best.bpk", 1000), ("state.json", 50)] {
        let file = folder.join("epoch-000007").join(name);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..kept]).unwrap();
        let text = error(config, 11, true, SIZE);
        assert!(text.contains(name) && text.contains("is no part of a checkpoint"), "{text}");
        std::fs::write(&file, bytes).unwrap();
    }
    // One that is too old to know of a setting: it has its default.
    let state = folder.join("epoch-000007/state.json");
    let mut older: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    older["run"]["training"].as_object_mut().unwrap().remove("mixed_precision").unwrap();
    std::fs::write(&state, older.to_string()).unwrap();
    let mixed = TrainingConfig { mixed_precision: true, ..config.clone() };
    let words = "belongs to another run: training.mixed_precision is true here, but false there";
    assert_eq!(error(&mixed, 11, true, SIZE), format!("{path} {words}"), "the default is another one");
    // One that knows of another setting: it may have changed what was learnt.
    let mut newer = older.clone();
    newer["run"]["training"]["momentum"] = 0.5.into();
    std::fs::write(&state, newer.to_string()).unwrap();
    let words = "belongs to another run: training.momentum is null here, but 0.5 there";
    assert_eq!(error(config, 11, true, SIZE), format!("{path} {words}"), "an unknown setting");
    std::fs::write(&state, older.to_string()).unwrap();
    let checkpoints = Checkpoints {
        folder: folder.into(),
        resume: true,
        facts: [("window".to_owned(), SIZE.to_string())].into(),
    };
    let execution = Execution { checkpoints: Some(checkpoints), ..here() };
    assert_eq!(execute(config, Augmented(11), execution).unwrap().history.len(), 7, "it goes on");

    std::fs::write(&state, r#"{"format": 9, "of": "another shape"}"#).unwrap();
    let text = error(config, 11, true, SIZE);
    assert!(text.contains("state.json") && text.contains('9'), "a newer format: {text}");
    assert!(!text.contains("is no part of a checkpoint"), "not a damaged one: {text}");
}

/// Patches of one image and different truths: whatever the batches, batch norm sees the same statistics.
fn one_image() -> InMemDataset<Patch> {
    InMemDataset::new((0..4).map(|index| Patch { image: patch(0).image, ..patch(index) }).collect())
}

/// The values of all tensors; the file itself has its metadata in any order.
fn values(trained: &Trained, wanted: impl Fn(&str) -> bool) -> Vec<f32> {
    let bytes = trained.model.to_safetensors().unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<_> = tensors.names().into_iter().filter(|name| wanted(name)).collect();
    names.sort_unstable();
    let values = |name: &&str| {
        let bytes = tensors.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>()
    };
    names.iter().flat_map(values).collect()
}

/// The largest difference of two weights; the running statistics of batch norm move once for each batch.
fn largest_difference(a: &Trained, b: &Trained) -> f32 {
    let weights = |trained: &Trained| values(trained, |name| !name.contains("running"));
    let (a, b) = (weights(a), weights(b));
    assert!(a.len() == b.len() && a.iter().chain(&b).all(|weight| weight.is_finite()), "numbers");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn clipping_cuts_gradients_off() {
    let _turn = alone();
    let trained = |clipping: Option<Clipping>| {
        execute(&TrainingConfig { clipping, ..config(1) }, one_image(), here()).unwrap()
    };
    let free = trained(None);
    let [value, norm] = [Clipping::Value(1e-12), Clipping::Norm(1e-12)].map(|limit| trained(Some(limit)));
    // Adam divides by the gradient plus 1e-7: where that is cut to 1e-12, a weight moves by 1e-5 of the step size 5e-3.
    let moved = largest_difference(&free, &value);
    assert!(moved > 2e-3, "without a limit weights move by the step size: {moved}");
    let moved = largest_difference(&value, &norm);
    assert!(moved < 1e-6, "below either limit they do not: {moved}");
}

#[test]
fn half_batches_and_two_devices_take_the_step_of_a_whole_batch() {
    let _turn = alone();
    let device = Device::flex();
    let step = |batch_size: usize, accumulation: usize, devices: usize| {
        // The limit cuts most gradients off: a sum instead of a mean would be cut elsewhere.
        let config = TrainingConfig {
            batch_size,
            accumulation,
            clipping: Some(Clipping::Value(1e-6)),
            criterion: Criterion::Loss,
            ..config(1)
        };
        device.seed(3);
        let model = UNetConfig { dropout: 0.0, ..tiny() }.init(&device).unwrap();
        let execution = Execution { devices: vec![device.clone(); devices], ..here() };
        train(model, &config, one_image(), patches(1), execution).unwrap()
    };
    let whole = step(4, 1, 1);
    // The gradients agree to 1e-9. Adam divides them by themselves and ε = 1e-7, so that a weight whose gradient is
    // near zero moves by up to 5e-3 · 1e-9 / 1e-7 more or less, out of 5e-3.
    let tolerance = 5e-5;
    let accumulated = largest_difference(&step(2, 2, 1), &whole);
    assert!(accumulated < tolerance, "two half batches: {accumulated}");
    let quarters = largest_difference(&step(1, 4, 1), &whole);
    assert!(quarters < tolerance, "four quarters: {quarters}");
    let distributed = largest_difference(&step(2, 1, 2), &whole);
    assert!(distributed < tolerance, "two devices: {distributed}");
    let two_steps = largest_difference(&step(2, 1, 1), &whole);
    assert!(two_steps > 1e-3, "two steps are something else: {two_steps}");
}

#[test]
fn mixed_precision_learns_the_same_to_its_digits() {
    let _turn = alone();
    let device = Device::flex();
    let run = |mixed: bool, size: f64| {
        let loss = Loss::Sum(vec![(size, Loss::default())]);
        let config = TrainingConfig { mixed_precision: mixed, loss, criterion: Criterion::Loss, ..config(6) };
        device.seed(3);
        let model = UNetConfig { dropout: 0.0, ..tiny() }.init(&device).unwrap();
        train(model, &config, patches(12), patches(4), here()).unwrap().history
    };
    // Gradients of any size: the first is the usual one, the others are larger and smaller than what halves hold.
    for size in [1.0, 1e6, 1e-6] {
        let (single, mixed) = (run(false, size), run(true, size));
        let off = |epoch: usize| (mixed[epoch].training_loss / single[epoch].training_loss - 1.0).abs();
        // Three steps of which the first sees the same weights; then the paths part, as those of two seeds do.
        assert!(off(0) > 0.0 && off(0) < 0.01, "another precision: {mixed:?} {single:?}");
        assert!(
            off(5) < 0.3 && mixed[5].training_loss < 0.5 * mixed[0].training_loss,
            "{mixed:?} {single:?}"
        );
        assert_eq!(run(true, size), mixed, "repeatable");
    }
}

#[test]
fn networks_of_several_classes_are_not_trained() {
    let device = Device::flex();
    let model = UNetConfig { num_classes: 2, ..tiny() }.init(&device).unwrap();
    let error = train(model, &config(1), patches(1), patches(1), here()).unwrap_err();
    let words =
        "num_classes is 2: training and prediction take networks of one logit a pixel: it has to be 1";
    assert_eq!(error.to_string(), words);
}

#[test]
fn a_run_without_progress_stops_early_with_its_best_weights() {
    let _turn = alone();
    // A step size that throws the weights about.
    let config =
        TrainingConfig { patience: Some(2), learning_rate: 0.3, criterion: Criterion::Iou, ..config(40) };
    let trained = execute(&config, patches(8), here()).unwrap();
    assert_eq!(trained.history.len(), trained.best_epoch + 2, "{:?}", trained.history);
    assert!(trained.history.len() < 40 && !trained.interrupted, "it stopped by itself");
    let best = trained.history[trained.best_epoch - 1];
    assert!(trained.history.iter().all(|epoch| epoch.score <= best.score), "by IoU");
}

#[test]
fn bad_patches_and_settings_are_refused_by_name() {
    let _turn = alone();
    let with = |change: fn(&mut Patch)| {
        let mut all: Vec<_> = (0..6).map(patch).collect();
        change(&mut all[4]);
        let config = TrainingConfig { batch_size: 2, ..config(2) };
        execute(&config, InMemDataset::new(all), here()).unwrap_err().to_string()
    };
    let not_a_number = |patch: &mut Patch| {
        patch.image = Image::Normalised(Array3::from_elem((2, SIZE, SIZE), f32::NAN));
    };
    assert_eq!(with(not_a_number), "square 4 cannot be learned from: channel 0 at row 0, column 0 is NaN");
    assert_eq!(
        with(|patch| patch.truth[[3, 5]] = 9),
        "square 4 cannot be learned from: the truth at row 3, column 5 is 9: it has to be 0, 1 or 255"
    );
    let error = with(|patch| patch.image = Image::Normalised(Array3::zeros((2, SIZE + 4, SIZE))));
    assert!(error.starts_with("square 4 cannot be learned from: its image (2, 64, 60)"), "{error}");

    let error = execute(&config(1), InMemDataset::new(Vec::<Patch>::new()), here()).unwrap_err();
    assert_eq!(error.to_string(), "the training set holds no patch", "empty");
    let small = Patch { image: Image::Normalised(Array3::zeros((2, 61, 61))), ..patch(0) };
    let error = execute(&config(1), InMemDataset::new(vec![small]), here()).unwrap_err();
    assert!(error.to_string().starts_with("61 is no valid input size"), "{error}");
    let thick = Patch { image: Image::Normalised(Array3::zeros((3, SIZE, SIZE))), ..patch(0) };
    let error = execute(&config(1), InMemDataset::new(vec![thick]), here()).unwrap_err();
    assert!(matches!(error, Error::InputShape { in_channels: 2, .. }), "{error}");
    let impossible = TrainingConfig { clipping: Some(Clipping::Norm(0.0)), ..config(1) };
    let error = execute(&impossible, patches(1), here()).unwrap_err();
    assert_eq!(error.to_string(), "clipping is 0: it has to be positive");

    // Finite input, and a step size that lets the weights overflow.
    let wild = TrainingConfig { learning_rate: 1e30, ..config(9) };
    let error = execute(&wild, patches(8), here()).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    // A loss that stays a number, and is far beyond what it began with.
    struct Glaring;
    impl PatchSet for Glaring {
        fn len(&self) -> usize {
            8
        }

        fn patch(&self, epoch: usize, index: usize) -> Result<Patch, Box<dyn StdError + Send + Sync>> {
            let light = if epoch > 3 { 1e4 } else { 1.0 };
            let dark = patch(index);
            Ok(Patch { image: Image::Normalised(image(&dark).index_axis_move(Axis(0), 0) * light), ..dark })
        }
    }
    let error = execute(&config(9), Glaring, here()).unwrap_err();
    assert!(matches!(error, Error::Diverged { split: "training", epoch: 4, .. }), "{error}");
    assert!(error.to_string().starts_with("the training loss became "), "{error}");

    let unread = |index: usize| -> Result<Patch, Box<dyn StdError + Send + Sync>> {
        if index == 3 { Err("the disk is gone".into()) } else { Ok(patch(index)) }
    };
    struct Files<F>(F);
    impl<F: Fn(usize) -> Result<Patch, Box<dyn StdError + Send + Sync>> + Send + Sync> PatchSet for Files<F> {
        fn len(&self) -> usize {
            5
        }

        fn patch(&self, _: usize, index: usize) -> Result<Patch, Box<dyn StdError + Send + Sync>> {
            (self.0)(index)
        }
    }
    let error = execute(&config(1), Files(unread), here()).unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert_eq!(
        (error.to_string(), cause),
        ("cannot read patch 3 of its set".into(), "the disk is gone".into())
    );
}
