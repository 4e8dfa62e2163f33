//! Losses and their gradients against PyTorch (`data/make_golden.py`), and what they do with odd input.

use unet_burn::burn::tensor::{Device, Tensor, TensorData};
use unet_burn::{CrossEntropyLoss, FocalLoss, Loss, TverskyLoss};

#[derive(serde::Deserialize)]
struct Golden {
    inputs: Inputs,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Inputs {
    shape: [usize; 3],
    logits: Vec<f32>,
    truth: Vec<f32>,
    valid: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Case {
    loss: Loss,
    losses: Vec<f64>,
    gradients: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("data/losses.json")).unwrap()
}

/// Losses by image and their gradients by pixel.
fn run(loss: &Loss, inputs: &Inputs) -> (Vec<f32>, Vec<f32>) {
    let device = Device::flex().autodiff();
    let [batch, height, width] = inputs.shape;
    let map = |values: &[f32]| {
        Tensor::<4>::from_data(TensorData::new(values.to_vec(), [batch, 1, height, width]), &device)
    };
    let logits = map(&inputs.logits).require_grad();
    let losses = loss.forward(logits.clone(), map(&inputs.truth), map(&inputs.valid));
    assert_eq!(losses.dims(), [batch], "one loss an image");
    let gradients = logits.grad(&losses.clone().sum().backward()).unwrap();
    let read = |data: TensorData| data.try_to_vec::<f32>().unwrap();
    (read(losses.into_data()), read(gradients.into_data()))
}

fn of_regions(loss: &Loss) -> bool {
    match loss {
        Loss::Focal(_) | Loss::CrossEntropy(_) => false,
        Loss::Tversky(_) => true,
        Loss::Sum(losses) => losses.iter().any(|(_, loss)| of_regions(loss)),
    }
}

#[test]
fn losses_and_gradients_are_pytorchs() {
    let Golden { inputs, cases } = golden();
    assert_eq!(cases.len(), 12, "all cases are there");
    for case in cases {
        let (losses, gradients) = run(&case.loss, &inputs);
        // f32 against f64: some ten roundings of 6e-8; the exponent γ multiplies the relative error of the
        // discount, whose logarithm is up to 100. f32 ends at 1e-38. The gradient of a ratio is a difference of two
        // terms of the size of the largest pixel's, which may cancel: the same roundings of them stay.
        let largest = case.gradients.iter().fold(0.0_f64, |largest, gradient| largest.max(gradient.abs()));
        let smallest = if of_regions(&case.loss) { 5e-7 * largest } else { 1e-30 };
        for (what, ours, theirs) in [("loss", losses, &case.losses), ("gradient", gradients, &case.gradients)]
        {
            assert_eq!(ours.len(), theirs.len(), "as many");
            for (index, (&a, &b)) in ours.iter().zip(theirs).enumerate() {
                let difference = (f64::from(a) - b).abs();
                assert!(
                    difference <= smallest + 1e-5 * b.abs(),
                    "{what} {index} of {:?}: {a} and {b}",
                    case.loss
                );
            }
        }
    }
}

fn all() -> Vec<Loss> {
    let presets = [TverskyLoss::salehi2017(), TverskyLoss::abraham2018(), TverskyLoss::dice()];
    let mut losses = vec![FocalLoss::default().into(), Loss::from(CrossEntropyLoss::default())];
    losses.extend(presets.map(Loss::from));
    losses.push(TverskyLoss { exponent: 0.1, smooth: 0.0, ..TverskyLoss::dice() }.into());
    losses.push(Loss::Sum(losses.iter().map(|loss| (0.5, loss.clone())).collect()));
    losses
}

#[test]
fn logits_of_any_size_give_finite_losses_and_gradients() {
    let sizes = [0.0, 1e-30, 1.0, 20.0, 40.0, 88.0, 104.0, 1e3, 1e6, 1e30];
    for loss in all() {
        for size in sizes {
            for truth in [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]] {
                for logits in [[size, size], [size, -size], [-size, size], [-size, -size]] {
                    let inputs = Inputs {
                        shape: [1, 1, 2],
                        logits: logits.to_vec(),
                        truth: truth.to_vec(),
                        valid: vec![1.0, 1.0],
                    };
                    let (losses, gradients) = run(&loss, &inputs);
                    let finite = losses.iter().chain(&gradients).all(|value| value.is_finite());
                    assert!(finite, "{loss:?} of {logits:?}, truth {truth:?}: {losses:?}, {gradients:?}");
                }
            }
        }
    }
}

#[test]
fn ignored_pixels_and_empty_images_teach_nothing() {
    let inputs = |ignored: f32| Inputs {
        shape: [2, 1, 3],
        logits: vec![2.0, -1.0, ignored, ignored, 3.0, 100.0],
        truth: vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        valid: vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0],
    };
    for loss in all() {
        let (losses, gradients) = run(&loss, &inputs(-7.0));
        assert_eq!((losses.clone(), gradients.clone()), run(&loss, &inputs(90.0)), "{loss:?}");
        assert!(losses[0] > 0.0 && gradients[0] < 0.0 && gradients[1] > 0.0, "{loss:?}: {gradients:?}");
        assert_eq!((losses[1], &gradients[2..]), (0.0, &[0.0; 4][..]), "{loss:?}");
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let values = |logit: f32| Inputs {
        shape: [1, 2, 2],
        logits: vec![0.7, logit, -0.3, 1.9],
        truth: vec![1.0, 1.0, 0.0, 0.0],
        valid: vec![1.0; 4],
    };
    for loss in all() {
        let step = 0.05;
        let slope =
            (run(&loss, &values(-0.4 + step)).0[0] - run(&loss, &values(-0.4 - step)).0[0]) / (2.0 * step);
        let gradient = run(&loss, &values(-0.4)).1[1];
        // The third derivative of these losses is below 2: 2·step²/6 = 8e-4.
        assert!((slope - gradient).abs() < 8e-4, "{loss:?}: {slope} and {gradient}");
    }
}

#[test]
fn a_loss_is_read_back_from_its_json() {
    for loss in all() {
        let json = serde_json::to_string(&loss).unwrap();
        assert_eq!(serde_json::from_str::<Loss>(&json).unwrap(), loss, "{json}");
    }
    let json = serde_json::to_string(&Loss::default()).unwrap();
    assert_eq!(json, r#"{"focal":{"alpha":0.25,"gamma":2.0}}"#, "its form");
    let bare: Loss = serde_json::from_str(r#"{"alpha":0.5,"gamma":1}"#).unwrap();
    assert_eq!(bare, FocalLoss { alpha: 0.5, gamma: 1.0 }.into(), "as the first bundles have it");
    assert!(serde_json::from_str::<Loss>(r#"{"hinge":{}}"#).is_err(), "unknown");
}

#[test]
fn numbers_outside_their_range_are_refused() {
    let tversky = TverskyLoss::dice();
    let refused: [(Loss, &str); 9] = [
        (FocalLoss { alpha: 1.5, gamma: 2.0 }.into(), "alpha is 1.5: it has to be in [0, 1]"),
        (FocalLoss { alpha: 0.5, gamma: -1.0 }.into(), "gamma is -1: it has to be 0 or more"),
        (CrossEntropyLoss { positive_weight: 0.0 }.into(), "positive_weight is 0: it has to be above 0"),
        (TverskyLoss { fp_weight: -1.0, ..tversky }.into(), "fp_weight is -1: it has to be 0 or more"),
        (TverskyLoss { smooth: f64::NAN, ..tversky }.into(), "smooth is NaN: it has to be 0 or more"),
        (TverskyLoss { exponent: 0.0, ..tversky }.into(), "exponent is 0: it has to be above 0"),
        (
            TverskyLoss { fp_weight: 0.0, fn_weight: 0.0, ..tversky }.into(),
            "fp_weight + fn_weight is 0: one of them has to be above 0",
        ),
        (Loss::Sum(vec![]), "number of losses in a sum is 0: it has to be 1 or more"),
        (
            Loss::Sum(vec![(1.0, Loss::default()), (-0.5, tversky.into())]),
            "weight of a loss in a sum is -0.5: it has to be 0 or more",
        ),
    ];
    for (loss, message) in refused {
        assert_eq!(loss.check().unwrap_err().to_string(), message, "{loss:?}");
    }
    all().iter().for_each(|loss| loss.check().unwrap());
}
