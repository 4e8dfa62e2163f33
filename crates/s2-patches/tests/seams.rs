//! Windows put together give what the whole scene gives at once, bit for bit.
//!
//! The network is a stand-in of one channel, written as slowly and plainly as possible, with random integer weights.
//! Integers modulo a prime make every sum exact, so equality needs no tolerance.

use proptest::prelude::*;
use s2_patches::ndarray::{Array2, Array3, Axis};
use s2_patches::{Dihedral, Geometry, WindowPlan, extract, stitch};

const PRIME: i64 = 1009;

/// A U-Net of one channel: two valid convolutions a block, pooling and upsampling by 2, cropped skips.
struct Net {
    geometry: Geometry,
    padded: bool,
    seed: u64,
}

impl Net {
    fn new(levels: usize, kernel: usize, padded: bool, seed: u64) -> Self {
        let geometry = Geometry::try_new(levels, kernel).expect("a small network");
        let geometry = if padded { geometry.with_padded_up_convolution() } else { geometry };
        Self { geometry, padded, seed }
    }

    /// Weights from 1 to 1008, fixed by seed, level and place in the network.
    fn weights(&self, level: usize, place: u64, size: usize) -> Array2<i64> {
        let mut state = self.seed ^ ((level as u64) << 32) ^ (place << 48);
        Array2::from_shape_simple_fn((size, size), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            1 + i64::try_from((state >> 33) % 1008).expect("small")
        })
    }

    fn block(&self, x: &Array2<i64>, level: usize, place: u64) -> Array2<i64> {
        let kernel = self.geometry.kernel();
        let x = conv(x, &self.weights(level, place, kernel));
        conv(&x, &self.weights(level, place + 1, kernel))
    }

    fn forward(&self, x: &Array2<i64>, level: usize) -> Array2<i64> {
        let skip = self.block(x, level, 0);
        if level == self.geometry.levels() {
            return skip;
        }
        let mut up = upsample(&self.forward(&pool(&skip), level + 1));
        if self.padded {
            // A row of zeros below, a column of zeros on the right, then a valid 2 × 2 convolution.
            let (height, width) = up.dim();
            let mut padded = Array2::zeros((height + 1, width + 1));
            for ((i, j), &value) in up.indexed_iter() {
                padded[[i, j]] = value;
            }
            up = conv(&padded, &self.weights(level, 2, 2));
        }
        let (top, left) = ((skip.nrows() - up.nrows()) / 2, (skip.ncols() - up.ncols()) / 2);
        let joined = Array2::from_shape_fn(up.dim(), |(i, j)| {
            (3 * up[[i, j]] + 5 * skip[[top + i, left + j]]).rem_euclid(PRIME)
        });
        self.block(&joined, level, 3)
    }

    fn patch(&self, scene: &Array3<i64>, row: isize, col: isize, size: usize) -> Array3<i64> {
        self.seen(Dihedral::Identity, scene, row, col, size)
    }

    /// The output for a patch that is turned before the network sees it, turned back.
    fn seen(&self, view: Dihedral, scene: &Array3<i64>, row: isize, col: isize, size: usize) -> Array3<i64> {
        let input = extract(scene.view(), row, col, size, size);
        let turned = view.apply(input.view()).index_axis_move(Axis(0), 0).to_owned();
        let output = self.forward(&turned, 0).insert_axis(Axis(0));
        view.inverse().apply(output.view()).to_owned()
    }

    /// The whole scene at once, in one large enough window.
    fn at_once(&self, scene: &Array3<i64>) -> Array3<i64> {
        let (_, height, width) = scene.dim();
        let margin = self.geometry.margin();
        let needed = 2 * margin + height.max(width) + self.geometry.spoiled();
        let start = -isize::try_from(margin).expect("small");
        let output = self.patch(scene, start, start, self.geometry.valid_input_at_least(needed));
        Array3::from_shape_fn((1, height, width), |(_, i, j)| output[[0, i, j]])
    }

    fn in_windows(&self, scene: &Array3<i64>, plan: &WindowPlan) -> Array3<i64> {
        self.in_turned_windows(Dihedral::Identity, scene, plan)
    }

    fn in_turned_windows(&self, view: Dihedral, scene: &Array3<i64>, plan: &WindowPlan) -> Array3<i64> {
        let mut map = Array3::from_elem(scene.dim(), -1);
        for window in plan.iter() {
            let patch = self.seen(view, scene, window.input_row, window.input_col, window.input_size);
            stitch(map.view_mut(), patch.view(), &window)
                .expect("the network returns what the geometry says");
        }
        map
    }
}

fn conv(x: &Array2<i64>, weights: &Array2<i64>) -> Array2<i64> {
    let size = weights.nrows();
    Array2::from_shape_fn((x.nrows() + 1 - size, x.ncols() + 1 - size), |(i, j)| {
        let sum: i64 = weights.indexed_iter().map(|((k, l), &weight)| weight * x[[i + k, j + l]]).sum();
        sum.rem_euclid(PRIME)
    })
}

fn pool(x: &Array2<i64>) -> Array2<i64> {
    assert!(x.nrows() % 2 == 0 && x.ncols() % 2 == 0, "pooling needs even sizes");
    Array2::from_shape_fn((x.nrows() / 2, x.ncols() / 2), |(i, j)| {
        x[[2 * i, 2 * j]].max(x[[2 * i, 2 * j + 1]]).max(x[[2 * i + 1, 2 * j]]).max(x[[2 * i + 1, 2 * j + 1]])
    })
}

fn upsample(x: &Array2<i64>) -> Array2<i64> {
    Array2::from_shape_fn((2 * x.nrows(), 2 * x.ncols()), |(i, j)| x[[i / 2, j / 2]])
}

fn scene(height: usize, width: usize, seed: u64) -> Array3<i64> {
    let mut state = seed;
    Array3::from_shape_simple_fn((1, height, width), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((state >> 33) % 1009).expect("small")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn windows_equal_the_whole_scene_whatever_their_size(
        levels in 1..=2_usize, kernel in prop::sample::select(vec![1_usize, 3, 5]), padded in any::<bool>(),
        height in 1..45_usize, width in 1..45_usize, more in 0..24_usize, seed in any::<u64>(),
    ) {
        let net = Net::new(levels, kernel, padded, seed);
        let geometry = net.geometry;
        let needed = 2 * geometry.margin() + geometry.spoiled() + geometry.step();
        let plan = WindowPlan::try_new(height, width, geometry, geometry.valid_input_at_least(needed + more))
            .expect("the size is large enough");
        let scene = scene(height, width, !seed);
        prop_assert_eq!(net.in_windows(&scene, &plan), net.at_once(&scene));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn windows_for_all_views_have_no_seams_in_any_of_them(
        levels in 1..=2_usize, kernel in prop::sample::select(vec![1_usize, 3]), padded in any::<bool>(),
        height in 1..45_usize, width in 1..45_usize, more in 0..24_usize, seed in any::<u64>(),
    ) {
        let net = Net::new(levels, kernel, padded, seed);
        let geometry = net.geometry;
        let plan = |size: usize| WindowPlan::for_all_views(height, width, geometry, size);
        let lost = geometry.spoiled().next_multiple_of(geometry.step()) + geometry.spoiled();
        let needed = 2 * geometry.margin() + lost;
        let windows = plan(geometry.valid_input_at_least(needed + geometry.step() + more))
            .expect("large enough");
        let whole = plan(geometry.valid_input_at_least(needed + height.max(width)))
            .expect("large enough");
        prop_assert_eq!(whole.len(), 1);
        let scene = scene(height, width, !seed);
        for view in Dihedral::ALL {
            let map = net.in_turned_windows(view, &scene, &windows);
            prop_assert_eq!(&map, &net.in_turned_windows(view, &scene, &whole), "{:?}", view);
        }
    }
}

/// A scene whose size is that of an output pools the same pixels when it is turned by itself.
#[test]
fn turned_windows_equal_the_turned_scene_at_once() {
    for (levels, height, width) in [(2, 28, 36), (1, 26, 22)] {
        let net = Net::new(levels, 3, true, 9);
        let scene = scene(height, width, 10);
        let size = net.geometry.valid_input_at_least(2 * net.geometry.margin() + 16);
        let plan = WindowPlan::for_all_views(height, width, net.geometry, size).expect("large enough");
        assert!(plan.len() > 1, "more than one window");
        for view in Dihedral::ALL {
            let turned = net.at_once(&view.apply(scene.view()).to_owned());
            let expected = view.inverse().apply(turned.view()).to_owned();
            assert_eq!(net.in_turned_windows(view, &scene, &plan), expected, "{view:?}, {levels} levels");
        }
    }
}

/// Windows that leave out nothing at the top would show seams in the turned views.
#[test]
fn the_first_rows_of_a_half_turn_are_spoiled() {
    let net = Net::new(2, 3, true, 7);
    let scene = scene(60, 60, 8);
    let margin = isize::try_from(net.geometry.margin()).expect("small");
    let (small, large) = (68, 100);
    let at = |size: usize| net.seen(Dihedral::Rotate180, &scene, -margin, -margin, size);
    // Both end at the same place, so that they pool the same pixels.
    let (part, whole) = (net.seen(Dihedral::Rotate180, &scene, 32 - margin, 32 - margin, small), at(large));
    let differs = |i: usize| (0..28).any(|j| part[[0, i, j]] != whole[[0, 32 + i, 32 + j]]);
    let spoiled = net.geometry.spoiled();
    assert!((0..spoiled).any(differs), "a row above the usable ones");
    assert!(
        (spoiled..28).all(|i| (spoiled..28).all(|j| part[[0, i, j]] == whole[[0, 32 + i, 32 + j]])),
        "usable"
    );
}

/// The released protocol is not seamless: a stride of 12 is no multiple of 8, so neighbours pool other pixels; and
/// 24, a multiple of 4, keeps rows that see padding. Only without padding does a stride that is a multiple do.
#[test]
fn contiguous_windows_do_not_equal_the_whole_scene() {
    for (levels, input, output, padded, seamless) in
        [(3, 100, 12, false, false), (2, 64, 24, true, false), (2, 64, 24, false, true)]
    {
        let net = Net::new(levels, 3, padded, 5);
        let scene = scene(60, 60, 6);
        let plan = WindowPlan::contiguous(60, 60, net.geometry, input).expect("a valid size");
        assert_eq!(plan.stride(), output, "{levels} levels");
        let equal = net.in_windows(&scene, &plan) == net.at_once(&scene);
        assert_eq!(equal, seamless, "stride {output}, {levels} levels, padded {padded}");
    }
}

/// With one row fewer left out the windows would no longer give the whole scene.
#[test]
fn the_first_spoiled_row_and_column_differ_and_the_one_before_does_not() {
    let net = Net::new(2, 3, true, 7);
    let scene = scene(60, 60, 8);
    let whole = net.at_once(&scene);
    let margin = isize::try_from(net.geometry.margin()).expect("small");
    let output = net.patch(&scene, -margin, -margin, 68);
    let good = output.dim().1 - net.geometry.spoiled();
    let differ = |row: usize, col: usize| output[[0, row, col]] != whole[[0, row, col]];
    assert!(
        (0..good).all(|row| (0..good).all(|col| !differ(row, col))),
        "the usable part is the whole scene's"
    );
    assert!((0..good).any(|i| differ(good, i)), "the first spoiled row");
    assert!((0..good).any(|i| differ(i, good)), "the first spoiled column");
}
