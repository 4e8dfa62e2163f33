//! One block (tile or strip) of a TIFF: compression and predictors (TIFF 6.0 §8, §9, §13, §14; Technical Note 3).

use std::io;

use libdeflater::DecompressionError;
use ndarray::{ArrayViewMut1, ArrayViewMut3, Axis};
use weezl::{BitOrder, LzwStatus};

use super::sample::Sample;

/// No compression here packs tighter: deflate ends at 1032:1, LZW at 4096 bytes per 12 bits,
const MAX_RATIO: u64 = 2731;
/// and a block of Zstandard at 128 KiB in 4 bytes.
const MAX_RATIO_ZSTD: u64 = 32_768;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
    Zstd,
}

/// What a thread keeps for unpacking.
pub(super) struct Unpacker {
    /// The last block.
    bytes: Vec<u8>,
    deflate: libdeflater::Decompressor,
    zstd: io::Result<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            deflate: libdeflater::Decompressor::new(),
            zstd: zstd::bulk::Decompressor::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Predictor {
    None,
    /// Differences of neighbouring samples.
    Horizontal,
    /// Differences of the bytes of a row, most significant bytes first.
    Float,
}

impl Compression {
    /// Unpacks the `raw` bytes of a block, which is whole when it has `needed` bytes and never has more than
    /// `full`: the last strip may be short, or be filled up by its writer.
    pub(super) fn decompress<'a>(
        self,
        raw: &'a mut [u8],
        needed: usize,
        full: usize,
        unpacker: &'a mut Unpacker,
    ) -> Result<&'a mut [u8], String> {
        if self == Self::None {
            return check_length(raw, needed);
        }
        let max_ratio = if self == Self::Zstd { MAX_RATIO_ZSTD } else { MAX_RATIO };
        if needed as u64 > raw.len() as u64 * max_ratio {
            return Err(format!("{} bytes cannot hold {needed}", raw.len()));
        }
        let Unpacker { bytes, deflate, zstd } = unpacker;
        bytes.resize(full, 0);
        let length = match self {
            Self::None => unreachable!("returned above"),
            Self::Deflate => deflate.zlib_decompress(raw, bytes).map_err(|error| match error {
                DecompressionError::BadData => "its deflate stream is damaged".to_owned(),
                DecompressionError::InsufficientSpace => format!("it holds more than {full} bytes"),
            })?,
            Self::Lzw => unpack_lzw(raw, bytes)?,
            Self::PackBits => unpack_bits(raw, bytes),
            Self::Zstd => {
                let zstd = zstd.as_mut().map_err(|error| error.to_string())?;
                let length = zstd.decompress_to_buffer(raw, &mut bytes[..]);
                length.map_err(|error| format!("its zstd stream: {error}"))?
            }
        };
        check_length(&mut bytes[..length], needed)
    }
}

fn check_length(bytes: &mut [u8], needed: usize) -> Result<&mut [u8], String> {
    if bytes.len() < needed {
        return Err(format!("it holds {} bytes of {needed}", bytes.len()));
    }
    Ok(bytes)
}

fn unpack_lzw(mut raw: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut length = 0;
    loop {
        let step = decoder.decode_bytes(raw, &mut out[length..]);
        raw = &raw[step.consumed_in..];
        length += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) if length < out.len() => {}
            Ok(_) => return Ok(length),
            Err(_) => return Err("its LZW stream is damaged".to_owned()),
        }
    }
}

/// Stops where the input or the space ends.
fn unpack_bits(mut raw: &[u8], out: &mut [u8]) -> usize {
    let mut length = 0;
    while let [head, rest @ ..] = raw {
        let count = match head {
            128 => {
                raw = rest;
                continue;
            }
            0..128 => usize::from(*head) + 1,
            129.. => 257 - usize::from(*head),
        };
        let count = count.min(out.len() - length);
        let target = &mut out[length..length + count];
        if *head < 128 {
            let count = count.min(rest.len());
            target[..count].copy_from_slice(&rest[..count]);
            length += count;
            raw = &rest[count..];
        } else {
            let Some((value, rest)) = rest.split_first() else { return length };
            target.fill(*value);
            length += count;
            raw = rest;
        }
        if length == out.len() {
            break;
        }
    }
    length
}

/// How the samples lie in an unpacked block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    /// Columns of the block.
    pub(super) width: usize,
    /// Samples of a pixel that lie side by side: all bands, or one where bands are apart.
    pub(super) samples: usize,
    pub(super) predictor: Predictor,
    pub(super) big_endian: bool,
}

impl Packing {
    /// Bytes of one row of the block.
    fn row_bytes<T: Sample>(&self) -> usize {
        self.width * self.samples * size_of::<T>()
    }

    /// Copies the part of a block that starts at `row`, `col` to `out`, `[band, row, column]`, whose columns lie side by side.
    pub(super) fn unpack<T: Sample>(
        &self,
        bytes: &mut [u8],
        row: usize,
        col: usize,
        mut out: ArrayViewMut3<'_, T>,
    ) {
        let rows = bytes.chunks_exact_mut(self.row_bytes::<T>()).skip(row);
        if self.predictor != Predictor::Float && !self.big_endian {
            // The common case needs no row in between.
            let size = size_of::<T>();
            for (bytes, mut out) in rows.zip(out.axis_iter_mut(Axis(1))) {
                if self.samples == 1 {
                    // A step that the compiler knows: twice as fast.
                    let out = out.index_axis_mut(Axis(0), 0);
                    self.undo_prediction(bytes.chunks_exact(size).map(T::from_le), col, out);
                    continue;
                }
                for (band, out) in out.outer_iter_mut().enumerate() {
                    let pixels = bytes.chunks_exact(self.samples * size);
                    let stored = pixels.map(|pixel| T::from_le(&pixel[band * size..][..size]));
                    self.undo_prediction(stored, col, out);
                }
            }
            return;
        }
        let mut samples = vec![T::default(); self.width * self.samples];
        for (bytes, mut out) in rows.zip(out.axis_iter_mut(Axis(1))) {
            self.unpack_row(bytes, &mut samples);
            for (band, mut out) in out.axis_iter_mut(Axis(0)).enumerate() {
                let of_band = samples[col * self.samples + band..].iter().step_by(self.samples);
                out.iter_mut().zip(of_band).for_each(|(out, sample)| *out = *sample);
            }
        }
    }

    /// Copies the stored values of a band in a row, from a column on, to `out`, whose columns lie side by side.
    #[inline]
    fn undo_prediction<T: Sample>(
        &self,
        mut stored: impl Iterator<Item = T>,
        col: usize,
        out: ArrayViewMut1<'_, T>,
    ) {
        let out = out.into_slice().expect("columns lie side by side");
        if self.predictor == Predictor::None {
            out.iter_mut().zip(stored.skip(col)).for_each(|(out, sample)| *out = sample);
            return;
        }
        let mut sum = stored.by_ref().take(col).fold(T::default(), T::bits_add);
        for (out, difference) in out.iter_mut().zip(stored) {
            sum = sum.bits_add(difference);
            *out = sum;
        }
    }

    fn unpack_row<T: Sample>(&self, bytes: &mut [u8], samples: &mut [T]) {
        if self.predictor == Predictor::Float {
            for i in self.samples..bytes.len() {
                bytes[i] = bytes[i].wrapping_add(bytes[i - self.samples]);
            }
            let mut sample_bytes = [0; 8];
            let sample_bytes = &mut sample_bytes[..size_of::<T>()];
            for (i, sample) in samples.iter_mut().enumerate() {
                for (byte, plane) in
                    sample_bytes.iter_mut().zip(bytes.chunks_exact(self.width * self.samples))
                {
                    *byte = plane[i];
                }
                *sample = T::from_be(sample_bytes);
            }
            return;
        }
        let stored = bytes.chunks_exact(size_of::<T>());
        if self.big_endian {
            samples.iter_mut().zip(stored).for_each(|(sample, bytes)| *sample = T::from_be(bytes));
        } else {
            samples.iter_mut().zip(stored).for_each(|(sample, bytes)| *sample = T::from_le(bytes));
        }
        if self.predictor == Predictor::Horizontal {
            for i in self.samples..samples.len() {
                samples[i] = samples[i].bits_add(samples[i - self.samples]);
            }
        }
    }

    /// The bytes of a row of samples, little-endian; spoils `samples`.
    pub(super) fn pack_row<T: Sample>(&self, samples: &mut [T], bytes: &mut [u8]) {
        if self.predictor == Predictor::Float {
            let mut sample_bytes = [0; 8];
            let sample_bytes = &mut sample_bytes[..size_of::<T>()];
            for (i, sample) in samples.iter().enumerate() {
                sample.write_be(sample_bytes);
                for (byte, plane) in
                    sample_bytes.iter().zip(bytes.chunks_exact_mut(self.width * self.samples))
                {
                    plane[i] = *byte;
                }
            }
            for i in (self.samples..bytes.len()).rev() {
                bytes[i] = bytes[i].wrapping_sub(bytes[i - self.samples]);
            }
            return;
        }
        if self.predictor == Predictor::Horizontal {
            for i in (self.samples..samples.len()).rev() {
                samples[i] = samples[i].bits_sub(samples[i - self.samples]);
            }
        }
        for (sample, bytes) in samples.iter().zip(bytes.chunks_exact_mut(size_of::<T>())) {
            sample.write_le(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_bits_of_the_specification() {
        // The example of TIFF 6.0 §9, as Apple's Technical Note TN1023 gives it.
        let packed =
            [0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0xF7, 0xAA];
        let mut out = [0; 24];
        assert_eq!(unpack_bits(&packed, &mut out), 24);
        assert_eq!(
            out,
            [
                0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA, 0x80, 0x00, 0x2A, 0x22, 0xAA,
                0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA
            ]
        );
        for end in 0..packed.len() {
            assert!(unpack_bits(&packed[..end], &mut out) < 24, "cut at {end}");
        }
        assert_eq!(unpack_bits(&[0x81, 7], &mut [0; 3]), 3, "more than there is room for");
    }

    #[test]
    fn a_block_that_claims_too_much_is_refused_before_memory_is_taken() {
        let mut unpacker = Unpacker::new();
        for compression in [Compression::Deflate, Compression::Lzw, Compression::PackBits, Compression::Zstd]
        {
            let error = compression.decompress(&mut [0; 10], 1 << 40, 1 << 40, &mut unpacker).unwrap_err();
            assert_eq!(error, "10 bytes cannot hold 1099511627776");
        }
    }
}
