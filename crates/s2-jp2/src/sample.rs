//! The sample types that an image decodes into.

/// A type that samples decode into: `u8` or `u16`.
///
/// Unsigned samples of up to as many bits fit; a 15-bit band needs `u16`.
pub trait Sample: sealed::Sealed + Copy + Default + Send + Sync + 'static {}

impl Sample for u8 {}
impl Sample for u16 {}

pub(crate) mod sealed {
    #[expect(unnameable_types, reason = "that is what seals `Sample`")]
    pub trait Sealed: Copy + Sized {
        const BITS: u8;
        const NAME: &'static str;
        /// Rounds to the nearest integer, ties to even as `OpenJPEG` does, and clamps to `0..=max`.
        fn from_decoded(value: f32, max: f32) -> Self;
    }

    impl Sealed for u8 {
        const BITS: Self = 8;
        const NAME: &'static str = "u8";
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=max < 256"
        )]
        fn from_decoded(value: f32, max: f32) -> Self {
            value.round_ties_even().clamp(0.0, max) as Self
        }
    }

    impl Sealed for u16 {
        const BITS: u8 = 16;
        const NAME: &'static str = "u16";
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=max < 65536"
        )]
        fn from_decoded(value: f32, max: f32) -> Self {
            value.round_ties_even().clamp(0.0, max) as Self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sealed::Sealed;

    #[test]
    fn decoded_values_are_rounded_and_clamped() {
        assert_eq!(u16::from_decoded(32_767.6, 32_767.0), 32_767, "15 bit");
        assert_eq!(u16::from_decoded(-3.0, 32_767.0), 0, "below zero");
        assert_eq!(u8::from_decoded(2.5, 255.0), 2, "ties go to even");
        assert_eq!(u8::from_decoded(f32::NAN, 255.0), 0, "not a number");
        assert_eq!(u8::from_decoded(f32::INFINITY, 255.0), 255, "infinite");
    }
}
