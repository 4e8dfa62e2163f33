//! The networks and their weights against PyTorch (`data/make_golden.py`).

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{filled, image, relative_error, uniform, values};
use safetensors::SafeTensors;
use unet_burn::burn::module::{Module, ModuleMapper, Param};
use unet_burn::burn::optim::GradientsParams;
use unet_burn::burn::tensor::{Device, Tensor, TensorData};
use unet_burn::{Bundle, Layout, Loss, Padding, Recipe, UNet, UNetConfig, UpConvolution};

/// PyTorch's numbers are made in f64; ours in f32 sum up to 9·48 products a layer and pass 17 layers, so that about
/// 17·√432·2⁻²⁴ = 2e-5 is the worst to expect if errors only grew, and rounding in both directions keeps it
/// below a half of that.
const TOLERANCE: f64 = 1e-5;

const LAYOUTS: [Layout; 4] = [Layout::AsmMap, Layout::Seed, Layout::Vanilla, Layout::Residual];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn data(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[derive(serde::Deserialize)]
struct Case {
    config: UNetConfig,
    parameters: usize,
    input: [usize; 4],
    output: [usize; 4],
    logits: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&data("networks.json")).unwrap()
}

#[test]
fn every_layout_gives_pytorchs_logits_on_the_cpu() {
    let device = Device::flex();
    let cases = cases();
    for Case { config, parameters, input, output, logits } in &cases {
        let model = filled(config, &device);
        assert_eq!(model.num_params(), *parameters, "{config:?}");
        let ours = model.forward(image(*input, &device)).unwrap();
        assert_eq!(ours.dims(), *output, "{config:?}");
        let error = relative_error(&values(ours), logits);
        println!("{:?} {:?} {:?}: relative error {error:.2e}", config.layout, config.padding, config.up);
        assert!(error <= TOLERANCE, "relative error {error} of {config:?}");
    }
    for layout in LAYOUTS {
        for (padding, up) in [Padding::Valid, Padding::Same]
            .into_iter()
            .flat_map(|padding| [(padding, UpConvolution::Upsample), (padding, UpConvolution::Transposed)])
        {
            let seen = |case: &Case| {
                (case.config.layout, case.config.padding, case.config.up) == (layout, padding, up)
            };
            assert!(cases.iter().any(seen), "{layout:?} with {padding:?} and {up:?}");
        }
    }
}

#[derive(serde::Deserialize)]
struct TrainingCase {
    config: UNetConfig,
    input: [usize; 4],
    loss: f64,
    logits: Vec<f64>,
    /// By the name of the weight: the norm of its gradient and the product with the noise of the name.
    gradients: BTreeMap<String, [f64; 2]>,
}

/// Puts gradients into the place of weights, so that they bear their names and lie in PyTorch's order.
struct Gradients(GradientsParams);

impl ModuleMapper for Gradients {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.remove::<D>(param.id) {
            Some(gradient) => param.map(|_| gradient),
            None => param,
        }
    }
}

#[test]
fn every_layout_gives_pytorchs_gradients_in_training() {
    let device = Device::flex();
    let cases: Vec<TrainingCase> = serde_json::from_slice(&data("training.json")).unwrap();
    for layout in LAYOUTS {
        for padding in [Padding::Valid, Padding::Same] {
            let seen = |case: &TrainingCase| (case.config.layout, case.config.padding) == (layout, padding);
            assert!(cases.iter().any(seen), "{layout:?} with {padding:?}");
        }
    }
    for TrainingCase { config, input, loss, logits, gradients } in cases {
        let autodiff = device.clone().autodiff();
        let model = filled(&config, &device).to_device(&autodiff).train();
        let ours = model.forward(image(input, &autodiff)).unwrap();
        let truth = uniform("truth", logits.len()).map(|value| if value > 0.25 { 1.0 } else { 0.0 });
        let truth = TensorData::new(truth.collect::<Vec<f32>>(), ours.dims());
        let truth = Tensor::from_data(truth, &autodiff);
        let mean = Loss::default().forward(ours.clone(), truth.clone(), truth.ones_like()).mean();
        let found = GradientsParams::from_grads(mean.backward(), &model);
        let error = relative_error(&values(ours.inner()), &logits);
        assert!(error <= TOLERANCE, "logits: relative error {error} of {config:?}");
        let off = f64::from(mean.into_scalar::<f32>()) / loss - 1.0;
        assert!(off.abs() <= TOLERANCE, "loss: {off} of {config:?}");

        let stored = model.valid().map(&mut Gradients(found)).to_safetensors().unwrap();
        let stored = SafeTensors::deserialize(&stored).unwrap();
        let largest = gradients.values().map(|[norm, _]| *norm).fold(0.0, f64::max);
        let mut worst = 0.0_f64;
        for (name, [norm, product]) in &gradients {
            let values = stored.tensor(name).unwrap().data().chunks_exact(4);
            let values = values.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            let (mut square, mut dot) = (0.0, 0.0);
            for (value, noise) in values.clone().zip(uniform(name, values.len())) {
                square += value * value;
                dot += value * noise;
            }
            // As many layers forward and backward. A bias in front of a norm has no gradient: what is left of it is rounding.
            let allowed = 2.0 * TOLERANCE * norm + 0.1 * TOLERANCE * largest;
            let off = (square.sqrt() - norm).abs().max((dot - product).abs());
            worst = worst.max(off / allowed);
            assert!(off <= allowed, "{name}: off by {off} of {norm} in {config:?}");
        }
        println!("{:?} {:?}: {worst:.3} of what is allowed", config.layout, config.padding);
    }
}

/// The network of `seed.safetensors` and `seed.pt`.
fn small() -> UNetConfig {
    UNetConfig {
        in_channels: 1,
        levels: 1,
        filters: 2,
        padding: Padding::Same,
        up: UpConvolution::Transposed,
        ..UNetConfig::seed()
    }
}

#[test]
fn files_of_pytorch_give_the_weights_that_they_hold() {
    let device = Device::flex();
    let model = || small().init(&device).unwrap();
    let stored = |model: UNet| model.to_safetensors().unwrap();
    let expected = stored(filled(&small(), &device));
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let safetensors = model().load_safetensors(data("seed.safetensors"), &path("seed.safetensors")).unwrap();
    let pt = model().load_pytorch(&path("seed.pt")).unwrap();
    for bytes in [stored(safetensors), stored(pt)] {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.len(), expected.len(), "as many tensors");
        for (name, tensor) in expected.tensors() {
            let read = tensors.tensor(&name).unwrap();
            assert_eq!((read.shape(), read.data()), (tensor.shape(), tensor.data()), "{name}");
        }
    }
}

#[test]
fn what_is_no_whole_file_is_told_from_weights_of_another_network() {
    let model = || small().init(&Device::flex()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["seed.safetensors", "seed.pt"] {
        let whole = data(name);
        for length in [0, 5, whole.len() / 2, whole.len() - 1] {
            let cut = folder.path().join(name);
            fs::write(&cut, &whole[..length]).unwrap();
            let loaded = match name {
                "seed.pt" => model().load_pytorch(&cut),
                _ => model().load_safetensors(whole[..length].to_vec(), &cut),
            };
            let error = loaded.unwrap_err();
            assert!(
                matches!(error, unet_burn::Error::UnreadableWeights { .. }),
                "{name}, {length} bytes: {error}"
            );
        }
    }
}

#[test]
fn equal_weights_have_equal_bytes() {
    let device = Device::flex();
    let model =
        UNetConfig { in_channels: 3, levels: 2, filters: 4, ..UNetConfig::default() }.init(&device).unwrap();
    let bytes = model.to_safetensors().unwrap();
    for _ in 0..5 {
        assert!(model.to_safetensors().unwrap() == bytes, "each time");
    }
    let names = SafeTensors::deserialize(&bytes).unwrap().names().len();
    assert!(names > 20, "{names} tensors can be read");
}

#[test]
fn names_and_shapes_are_those_of_pytorch() {
    let ours = filled(&small(), &Device::flex()).to_safetensors().unwrap();
    let theirs = data("seed.safetensors");
    let (ours, theirs) =
        (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    let list = |tensors: &SafeTensors<'_>| {
        let mut list: Vec<_> = tensors
            .tensors()
            .into_iter()
            .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
            .map(|(name, tensor)| (name, tensor.shape().to_vec()))
            .collect();
        list.sort();
        list
    };
    assert_eq!(list(&ours), list(&theirs), "what PyTorch's `load_state_dict` takes");
}

/// PyTorch itself, where `S2_PYTHON` has it, reads what we wrote and computes the same with it.
#[test]
fn pytorch_reads_our_files() {
    const SIZE: usize = 52;
    let python = std::env::var_os("S2_PYTHON");
    let has_torch = |python: &OsString| {
        let imports = Command::new(python).args(["-c", "import numpy, safetensors, torch"]).output();
        imports.is_ok_and(|output| output.status.success())
    };
    let Some(python) = python.filter(has_torch) else {
        let _ = writeln!(std::io::stderr(), "skipped: S2_PYTHON names no python with torch and safetensors");
        return;
    };
    let device = Device::flex();
    for (layout, up) in
        LAYOUTS.into_iter().zip([UpConvolution::Upsample, UpConvolution::Transposed].repeat(2))
    {
        let config =
            UNetConfig { in_channels: 3, levels: 2, filters: 4, layout, up, ..UNetConfig::default() };
        let folder = tempfile::tempdir().unwrap();
        let model = config.init(&device).unwrap();
        let ours = values(model.forward(image([2, 3, SIZE, SIZE], &device)).unwrap());
        let recipe =
            Recipe { channels: vec!["B02".into(); 3], resolution_m: 10.0, normalization: "none".into() };
        Bundle { model, recipe, threshold: None, training: None }.save(folder.path()).unwrap();
        let done = Command::new(&python)
            .args([path("make_golden.py").as_os_str(), folder.path().as_os_str()])
            .arg(SIZE.to_string())
            .output()
            .unwrap();
        assert!(done.status.success(), "{config:?}: {}", String::from_utf8_lossy(&done.stderr));
        let theirs: Vec<f64> = serde_json::from_slice(&done.stdout).unwrap();
        let error = relative_error(&ours, &theirs);
        assert!(error <= TOLERANCE, "relative error {error} of {config:?}");
    }
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let device = Device::flex();
    let load = |config: UNetConfig| {
        let model = || config.init(&device).unwrap();
        let safetensors = model().load_safetensors(data("seed.safetensors"), Path::new("seed"));
        let pt = model().load_pytorch(&path("seed.pt"));
        [safetensors, pt].map(|outcome| outcome.unwrap_err().to_string())
    };
    let plain = UNetConfig { layout: Layout::Vanilla, ..small() };
    let wider = UNetConfig { filters: 3, ..small() };
    let deeper = UNetConfig { levels: 2, ..small() };
    let upsampling = UNetConfig { up: UpConvolution::Upsample, ..small() };
    let expected = [
        (plain, "the network has no bottleneck.first_norm.bias"),
        (wider, "encoder.0.convs.first.weight is [2, 1, 3, 3] in the file, but [3, 1, 3, 3] in the network"),
        (deeper, "bottleneck.first.weight is [4, 2, 3, 3] in the file, but [8, 4, 3, 3] in the network"),
        (upsampling, "decoder.0.up.weight is [4, 2, 2, 2] in the file, but [2, 4, 2, 2] in the network"),
    ];
    for (config, part) in expected {
        for message in load(config) {
            assert!(message.ends_with(&format!("do not fit the network: {part}")), "{message}");
        }
    }
    let plain = filled(&UNetConfig { layout: Layout::Vanilla, ..small() }, &device).to_safetensors().unwrap();
    let error = small().init(&device).unwrap().load_safetensors(plain, Path::new("plain")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights of plain do not fit the network: the file has no bottleneck.first_norm.bias",
        "missing"
    );
    let model = || small().init(&device).unwrap();
    let broken = model().load_safetensors(vec![1, 2, 3], Path::new("broken.safetensors")).unwrap_err();
    assert!(broken.to_string().contains("broken.safetensors"), "{broken}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.pt");
    let whole = data("seed.pt");
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 30] {
        fs::write(&file, &whole[..length]).unwrap();
        let broken = model().load_pytorch(&file).unwrap_err();
        assert!(broken.to_string().contains("broken.pt"), "{broken}");
    }
    let missing = model().load_pytorch(Path::new("missing.pt")).unwrap_err();
    assert!(missing.to_string().contains("missing.pt"), "{missing}");
}
