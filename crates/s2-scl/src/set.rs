//! A set of scene classes.

use crate::SceneClass;

/// A set of [`SceneClass`]es, two bytes small.
///
/// ```
/// use s2_scl::{ClassSet, SceneClass};
///
/// const CLOUD: ClassSet =
///     ClassSet::of(&[SceneClass::CloudMediumProbability, SceneClass::CloudHighProbability]);
/// assert!(CLOUD.contains(9) && !CLOUD.contains(6));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClassSet(u16);

impl ClassSet {
    /// What percentiles of reflectance leave out: no data (0), saturated or defective (1), clouds of medium
    /// (8) and high (9) probability.
    ///
    /// Couttenier et al. 2022 (doi:10.1371/journal.pone.0267963) name 1, 8 and 9; 0 is added because pixels
    /// without data have no reflectance.
    pub const PERCENTILE_EXCLUDED: Self = Self::of(&[
        SceneClass::NoData,
        SceneClass::SaturatedOrDefective,
        SceneClass::CloudMediumProbability,
        SceneClass::CloudHighProbability,
    ]);

    /// The set of these classes.
    pub const fn of(classes: &[SceneClass]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < classes.len() {
            bits |= 1 << classes[i] as u16;
            i += 1;
        }
        Self(bits)
    }

    /// Whether the class of this number is in the set. Numbers above 11 are in no set.
    pub const fn contains(self, value: u8) -> bool {
        value < 16 && self.0 & (1 << value) != 0
    }

    /// The classes in the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = SceneClass> {
        SceneClass::ALL.into_iter().filter(move |&class| self.contains(class.into()))
    }
}

impl FromIterator<SceneClass> for ClassSet {
    fn from_iter<I: IntoIterator<Item = SceneClass>>(classes: I) -> Self {
        classes.into_iter().fold(Self::default(), |set, class| Self(set.0 | Self::of(&[class]).0))
    }
}

impl core::fmt::Debug for ClassSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
