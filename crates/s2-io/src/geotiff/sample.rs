//! Sample types of a TIFF (`BitsPerSample` and `SampleFormat`).

use std::fmt;

/// The type of the samples in a GeoTIFF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SampleType {
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 16-bit signed integer.
    I16,
    /// 32-bit unsigned integer.
    U32,
    /// 32-bit signed integer.
    I32,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

impl SampleType {
    /// Bytes of one sample.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl fmt::Display for SampleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}

/// A type that a GeoTIFF's samples can have: `u8`, `u16`, `i16`, `u32`, `i32`, `f32`, `f64`.
///
/// Sealed: the set is that of [`SampleType`].
pub trait Sample: Encoding {
    /// The same type as a value.
    const TYPE: SampleType;
}

/// How a sample is stored and counted with; the private half of [`Sample`].
#[expect(unnameable_types, reason = "it seals `Sample`")]
pub trait Encoding: Copy + PartialEq + Default + fmt::Debug + Send + Sync + 'static {
    const IS_FLOAT: bool;
    fn from_le(bytes: &[u8]) -> Self;
    fn from_be(bytes: &[u8]) -> Self;
    fn write_le(self, bytes: &mut [u8]);
    fn write_be(self, bytes: &mut [u8]);
    /// Sum of the bit patterns, as predictor 2 counts.
    fn bits_add(self, other: Self) -> Self;
    /// Difference of the bit patterns.
    fn bits_sub(self, other: Self) -> Self;
    fn to_f64(self) -> f64;
    /// The nearest value of this type; halves are rounded away from zero.
    fn from_f64(value: f64) -> Self;
    /// The mean of up to four values; halves are rounded away from zero.
    fn mean(values: &[Self]) -> Self;
}

#[inline]
fn whole_mean(values: impl ExactSizeIterator<Item: Into<i64>>) -> i64 {
    let count = values.len() as u64;
    let sum: i64 = values.map(Into::into).sum();
    let magnitude = sum.unsigned_abs();
    // A shift where it can be one.
    let rounded = if count == 4 { (magnitude + 2) >> 2 } else { (2 * magnitude + count) / (2 * count) };
    if sum < 0 { -rounded.cast_signed() } else { rounded.cast_signed() }
}

#[inline]
#[expect(clippy::cast_precision_loss, reason = "four at most")]
fn real_mean(values: impl ExactSizeIterator<Item: Into<f64>>) -> f64 {
    let count = values.len() as f64;
    values.map(Into::into).sum::<f64>() / count
}

macro_rules! encoding {
    ($type:ident, $variant:ident, $bits:ident, $is_float:literal, $to_bits:expr, $from_bits:expr, $round:expr, $mean:ident) => {
        impl Sample for $type {
            const TYPE: SampleType = SampleType::$variant;
        }

        impl Encoding for $type {
            const IS_FLOAT: bool = $is_float;
            #[inline]
            fn from_le(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<Self>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
            #[inline]
            fn from_be(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<Self>()];
                array.copy_from_slice(bytes);
                Self::from_be_bytes(array)
            }
            #[inline]
            fn write_le(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn write_be(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_be_bytes());
            }
            #[inline]
            fn bits_add(self, other: Self) -> Self {
                $from_bits($to_bits(self).wrapping_add($to_bits(other)))
            }
            #[inline]
            fn bits_sub(self, other: Self) -> Self {
                $from_bits($to_bits(self).wrapping_sub($to_bits(other)))
            }
            #[inline]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline]
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "rounded first, and `as` saturates"
            )]
            fn from_f64(value: f64) -> Self {
                $round(value) as Self
            }
            #[inline]
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a mean lies among its values"
            )]
            fn mean(values: &[Self]) -> Self {
                $mean(values.iter().copied()) as Self
            }
        }
    };
}

encoding!(u8, U8, u8, false, u8::from, u8::from, f64::round, whole_mean);
encoding!(u16, U16, u16, false, u16::from, u16::from, f64::round, whole_mean);
encoding!(i16, I16, i16, false, i16::from, i16::from, f64::round, whole_mean);
encoding!(u32, U32, u32, false, u32::from, u32::from, f64::round, whole_mean);
encoding!(i32, I32, i32, false, i32::from, i32::from, f64::round, whole_mean);
encoding!(f32, F32, u32, true, f32::to_bits, f32::from_bits, f64::from, real_mean);
encoding!(f64, F64, u64, true, f64::to_bits, f64::from_bits, f64::from, real_mean);
