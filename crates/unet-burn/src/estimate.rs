//! The memory that a network needs, from the sizes of its maps.

use crate::{Padding, Result, UNetConfig};

/// A convolution of 3 × 3 (or as large as the kernels are), in values for one patch.
struct Convolution {
    input: u64,
    output: u64,
    /// Of the skip connections that wait meanwhile.
    waiting: u64,
}

/// All of them, from input to output.
fn convolutions(config: &UNetConfig, size: usize) -> Result<Vec<Convolution>> {
    config.output_size(size)?;
    let values = |channels: usize, size: usize| channels as u64 * (size as u64).pow(2);
    let (mut size, mut channels) = (size, config.in_channels);
    let (mut all, mut waiting) = (Vec::new(), 0);
    let mut block = |waiting: u64, channels: usize, filters: usize, size: &mut usize| {
        for channels in [channels, filters] {
            let input = values(channels, *size);
            *size -= if config.padding == Padding::Valid { config.kernel - 1 } else { 0 };
            all.push(Convolution { input, output: values(filters, *size), waiting });
        }
    };
    let mut skips = Vec::new();
    for level in 0..config.levels {
        let filters = config.filters << level;
        block(waiting, channels, filters, &mut size);
        skips.push(values(filters, size));
        waiting += values(filters, size);
        (size, channels) = (size / 2, filters);
    }
    block(waiting, channels, config.filters << config.levels, &mut size);
    for level in (0..config.levels).rev() {
        let filters = config.filters << level;
        size *= 2;
        waiting -= skips.pop().unwrap_or(0);
        block(waiting, 2 * filters, filters, &mut size);
    }
    Ok(all)
}

/// Memory that prediction needs at most for the maps between the layers, in bytes: an estimate for one patch of
/// `size` × `size` in single precision.
///
/// Counted are the skip connections that wait, and input and output of the convolution that needs most, twice,
/// because a device lays them out anew for its kernels. Weights are not counted; a batch of `n` needs `n` times as much.
/// On the CPU, where most networks go row by row and patch by patch, it is less.
///
/// # Errors
///
/// [`Error::InvalidSize`](crate::Error::InvalidSize) for a size that the network does not take.
pub fn prediction_bytes(config: &UNetConfig, size: usize) -> Result<u64> {
    let values = |conv: &Convolution| conv.waiting + 2 * (conv.input + conv.output);
    let most = convolutions(config, size)?.iter().map(values).max();
    Ok(most.unwrap_or(0) * size_of::<f32>() as u64)
}

/// Memory that a step of training needs for the maps between the layers and their gradients, in bytes: an estimate for one
/// patch of `size` × `size` in single precision.
///
/// Counted are input and output of every convolution, which are kept for the way back, the outputs once more where a norm
/// follows, and a half of all that for pooling, dropout and the gradients. Weights are not counted, of which training keeps
/// four (with their gradients and Adam's two means); a batch of `n` needs `n` times as much. Seen on the CPU (Linux), for
/// 22 channels of 572 × 572: 370 MB a patch with 16 filters, where this says 374, 690 with 32, where it says 705, and 280 MB
/// for the process beside them.
///
/// # Errors
///
/// [`Error::InvalidSize`](crate::Error::InvalidSize) for a size that the network does not take.
pub fn training_bytes(config: &UNetConfig, size: usize) -> Result<u64> {
    let norms = u64::from(config.norm_after_convolutions());
    let values = |conv: &Convolution| conv.input + (1 + norms) * conv.output;
    let all: u64 = convolutions(config, size)?.iter().map(values).sum();
    Ok(all * size_of::<f32>() as u64 * 3 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn estimates_are_sums_by_hand() {
        // One level, kernel 3, 20 × 20 with 2 channels: 18 and 16 at the top (4 filters), 8 → 6 and 4 below (8 filters), 8 → 6
        // and 4 above. The second convolution at the top holds most: 4 · 18² + 4 · 16² values, twice, in 4 bytes each.
        let config = UNetConfig { in_channels: 2, levels: 1, filters: 4, ..UNetConfig::default() };
        assert_eq!(prediction_bytes(&config, 20).unwrap(), (4 * 18 * 18 + 4 * 16 * 16) * 2 * 4);
        let input: u64 = 2 * 20 * 20 + 4 * 18 * 18 + 4 * 8 * 8 + 8 * 6 * 6 + 8 * 8 * 8 + 4 * 6 * 6;
        let output: u64 = 4 * 18 * 18 + 4 * 16 * 16 + 8 * 6 * 6 + 8 * 4 * 4 + 4 * 6 * 6 + 4 * 4 * 4;
        assert_eq!(training_bytes(&config, 20).unwrap(), (input + output) * 6);
        let seed = UNetConfig { in_channels: 2, levels: 1, filters: 4, ..UNetConfig::seed() };
        assert_eq!(training_bytes(&seed, 20).unwrap(), (input + 2 * output) * 6, "with norms");
        // Wide inputs: the first convolution.
        let wide = UNetConfig { in_channels: 30, ..config };
        assert_eq!(prediction_bytes(&wide, 20).unwrap(), (30 * 20 * 20 + 4 * 18 * 18) * 2 * 4);
        for bytes in [prediction_bytes, training_bytes] {
            assert!(matches!(bytes(&wide, 21), Err(Error::InvalidSize { .. })));
        }
    }
}
