//! The sample types that an image decodes into.

/// A type that samples decode into: `u8`, `u16` or `i16`.
///
/// A 15-bit band fits `u16` and `i16`; samples with a sign need `i16`.
pub trait Sample: sealed::Sealed + Copy + Default + Send + Sync + 'static {}

impl Sample for u8 {}
impl Sample for u16 {}
impl Sample for i16 {}

pub(crate) mod sealed {
    #[expect(unnameable_types, reason = "that is what seals `Sample`")]
    pub trait Sealed: Copy + Sized {
        /// Bits of unsigned and of signed samples that fit.
        const BITS: (u8, u8);
        const NAME: &'static str;
        /// A value that fits.
        fn from_clamped(value: i32) -> Self;
    }

    macro_rules! sealed {
        ($($type:ident $bits:expr),*) => {$(
            impl Sealed for $type {
                const BITS: (u8, u8) = $bits;
                const NAME: &'static str = stringify!($type);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the caller clamps")]
                #[inline]
                fn from_clamped(value: i32) -> Self {
                    value as Self
                }
            }
        )*};
    }

    sealed!(u8(8, 0), u16(16, 0), i16(15, 16));
}
