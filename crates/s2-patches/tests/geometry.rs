//! Closed formulas against a walk through the network, size by size.

use s2_patches::{Error, Geometry};

/// The output size by walking through the network; `None` where a size is odd or used up.
fn walk(input: usize, levels: usize, kernel: usize) -> Option<usize> {
    let block = |n: usize| n.checked_sub(2 * (kernel - 1)).filter(|&n| n > 0);
    let mut skips = Vec::new();
    let mut n = block(input)?;
    for _ in 0..levels {
        skips.push(n);
        if n % 2 != 0 {
            return None;
        }
        n = block(n / 2)?;
    }
    while let Some(skip) = skips.pop() {
        n *= 2;
        assert!(skip >= n && (skip - n) % 2 == 0, "the skip of {skip} is cropped to {n} at the centre");
        n = block(n)?;
    }
    Some(n)
}

#[test]
fn output_sizes_equal_a_walk_through_the_network() {
    for levels in 0..=4 {
        for kernel in [1, 3, 5, 7] {
            let geometry = Geometry::try_new(levels, kernel).expect("a usual network");
            let smallest = (0..).find(|&n| walk(n, levels, kernel).is_some());
            assert_eq!(Some(geometry.smallest_input()), smallest, "levels {levels}, kernel {kernel}");
            for input in 0..700 {
                let walked = walk(input, levels, kernel);
                assert_eq!(geometry.output_size(input).ok(), walked, "{levels} {kernel} {input}");
                if let Some(output) = walked {
                    assert_eq!(input - output, 2 * geometry.margin(), "{levels} {kernel} {input}");
                }
            }
        }
    }
}

#[test]
fn a_refused_size_comes_with_the_nearest_valid_ones() {
    for (levels, kernel) in [(4, 3), (4, 5), (3, 7), (1, 1), (0, 3)] {
        let geometry = Geometry::try_new(levels, kernel).expect("a usual network");
        for input in 0..700 {
            let below = (0..=input).rev().find(|&n| walk(n, levels, kernel).is_some());
            let above = (input..).find(|&n| walk(n, levels, kernel).is_some()).expect("sizes have no end");
            assert_eq!(geometry.valid_input_at_most(input), below, "{levels} {kernel} {input}");
            assert_eq!(geometry.valid_input_at_least(input), above, "{levels} {kernel} {input}");
            if above != input {
                let error = Error::InputSize { input, levels, kernel, below, above };
                assert_eq!(geometry.output_size(input), Err(error), "{levels} {kernel} {input}");
            }
        }
    }
}

#[test]
fn the_network_of_the_paper_takes_572_to_388_and_only_with_kernel_3() {
    let unet = |kernel| Geometry::try_new(4, kernel).expect("a usual network");
    assert_eq!(unet(3).output_size(572), Ok(388));
    assert_eq!((unet(3).step(), unet(3).margin()), (16, 92));
    // DESIGN: 3: n ≡ 12 mod 16, n − 184; 5: n ≡ 8, n − 368; 7: n ≡ 4, n − 552.
    for (kernel, residue, loss, smallest) in [(3, 12, 184, 188), (5, 8, 368, 376), (7, 4, 552, 564)] {
        assert_eq!(unet(kernel).smallest_input(), smallest, "kernel {kernel}");
        for input in smallest..1200 {
            let expected = (input % 16 == residue).then(|| input - loss);
            assert_eq!(unet(kernel).output_size(input).ok(), expected, "kernel {kernel}, input {input}");
        }
    }
    assert_eq!(
        unet(5).output_size(572).expect_err("572 is for kernel 3").to_string(),
        "input size 572 does not fit 4 poolings and kernel size 5: the nearest valid sizes are 568 and 584"
    );
    assert_eq!(
        unet(7).output_size(572).expect_err("572 is for kernel 3").to_string(),
        "input size 572 does not fit 4 poolings and kernel size 7: the nearest valid sizes are 564 and 580"
    );
    assert_eq!(
        unet(3).output_size(100).expect_err("too small").to_string(),
        "input size 100 does not fit 4 poolings and kernel size 3: the smallest valid size is 188"
    );
}

#[test]
fn networks_that_cannot_be_are_refused() {
    for kernel in [0, 2, 4, 257] {
        assert_eq!(Geometry::try_new(4, kernel), Err(Error::Kernel { kernel }), "kernel {kernel}");
    }
    assert_eq!(Geometry::try_new(17, 3), Err(Error::Levels { levels: 17 }));
    let largest = Geometry::try_new(16, 255).expect("the largest");
    assert!(largest.output_size(usize::MAX).is_err(), "sizes near the end of usize do not overflow");
}

/// Rows of the output that depend on padding, by carrying a flag for each row through the network.
fn flagged(input: usize, levels: usize, kernel: usize) -> Vec<bool> {
    let conv = |x: Vec<bool>| -> Vec<bool> { x.windows(kernel).map(|seen| seen.contains(&true)).collect() };
    let block = |x: Vec<bool>| conv(conv(x));
    let mut skips = Vec::new();
    let mut x = block(vec![false; input]);
    for _ in 0..levels {
        skips.push(x.clone());
        x = block(x.chunks(2).map(|pair| pair.contains(&true)).collect());
    }
    while let Some(skip) = skips.pop() {
        let mut up: Vec<bool> = x.into_iter().flat_map(|flag| [flag, flag]).collect();
        // The row of zeros that keeps the size of the 2 × 2 convolution.
        up.push(true);
        let up: Vec<bool> = up.windows(2).map(|seen| seen.contains(&true)).collect();
        let crop = (skip.len() - up.len()) / 2;
        x = block(up.iter().zip(&skip[crop..]).map(|(&up, &skip)| up || skip).collect());
    }
    x
}

#[test]
fn spoiled_rows_are_the_last_ones_that_see_padding() {
    for (levels, expected) in [(0, 0), (1, 1), (2, 3), (3, 7), (4, 15)] {
        for kernel in [1, 3, 5] {
            let geometry = Geometry::try_new(levels, kernel).expect("a usual network");
            assert_eq!(geometry.spoiled(), 0, "valid convolutions alone spoil nothing");
            let geometry = geometry.with_padded_up_convolution();
            assert_eq!(geometry.spoiled(), expected, "{levels} levels");
            let input = geometry.valid_input_at_least(geometry.smallest_input() + 40);
            let output = geometry.output_size(input).expect("a valid size");
            let flags: Vec<bool> = (0..output).map(|row| row >= output - expected).collect();
            assert_eq!(flagged(input, levels, kernel), flags, "{levels} levels, kernel {kernel}");
        }
    }
}
