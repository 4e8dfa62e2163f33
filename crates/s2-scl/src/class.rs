//! The twelve classes of the Level-2A scene classification (SCL).

use crate::{Error, Result};

/// A class of the Level-2A scene classification, with the number that SCL files store.
///
/// The numbers are those of the product specification and have never changed. The meaning of class 2 has:
/// see [`SceneClass::DarkArea`].
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SceneClass {
    /// 0: outside the swath, or lost. The bands have DN 0 here.
    NoData = 0,
    /// 1: saturated or defective detector.
    SaturatedOrDefective = 1,
    /// 2: dark area in products made before 2022-01-25, *topographic cast shadow* in those made since
    /// (processing baseline 04.00).
    ///
    /// A model trained on one meaning meets the other when it predicts across that date, and a reprocessed
    /// archive has the new meaning for old images.
    DarkArea = 2,
    /// 3: cloud shadow.
    CloudShadow = 3,
    /// 4: vegetation.
    Vegetation = 4,
    /// 5: not vegetated (bare soil, also built-up).
    NotVegetated = 5,
    /// 6: water.
    Water = 6,
    /// 7: unclassified; some documents say cloud of low probability.
    Unclassified = 7,
    /// 8: cloud of medium probability.
    CloudMediumProbability = 8,
    /// 9: cloud of high probability.
    CloudHighProbability = 9,
    /// 10: thin cirrus.
    ThinCirrus = 10,
    /// 11: snow or ice.
    Snow = 11,
}

impl SceneClass {
    /// How many classes there are: 12.
    pub const COUNT: usize = Self::ALL.len();

    /// All classes in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::NoData,
        Self::SaturatedOrDefective,
        Self::DarkArea,
        Self::CloudShadow,
        Self::Vegetation,
        Self::NotVegetated,
        Self::Water,
        Self::Unclassified,
        Self::CloudMediumProbability,
        Self::CloudHighProbability,
        Self::ThinCirrus,
        Self::Snow,
    ];

    /// The class in words, lower case, for legends and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoData => "no data",
            Self::SaturatedOrDefective => "saturated or defective",
            Self::DarkArea => "dark area",
            Self::CloudShadow => "cloud shadow",
            Self::Vegetation => "vegetation",
            Self::NotVegetated => "not vegetated",
            Self::Water => "water",
            Self::Unclassified => "unclassified",
            Self::CloudMediumProbability => "cloud, medium probability",
            Self::CloudHighProbability => "cloud, high probability",
            Self::ThinCirrus => "thin cirrus",
            Self::Snow => "snow or ice",
        }
    }

    /// The colour of the usual legend of `Sen2Cor`, as red, green, blue.
    pub const fn color(self) -> [u8; 3] {
        match self {
            Self::NoData => [0, 0, 0],
            Self::SaturatedOrDefective => [255, 0, 0],
            Self::DarkArea => [47, 47, 47],
            Self::CloudShadow => [100, 50, 0],
            Self::Vegetation => [0, 160, 0],
            Self::NotVegetated => [255, 230, 90],
            Self::Water => [0, 0, 255],
            Self::Unclassified => [128, 128, 128],
            Self::CloudMediumProbability => [192, 192, 192],
            Self::CloudHighProbability => [255, 255, 255],
            Self::ThinCirrus => [100, 200, 255],
            Self::Snow => [255, 150, 255],
        }
    }
}

impl TryFrom<u8> for SceneClass {
    type Error = Error;

    fn try_from(value: u8) -> Result<Self> {
        Self::ALL.get(usize::from(value)).copied().ok_or(Error::UnknownClass { value })
    }
}

impl From<SceneClass> for u8 {
    fn from(class: SceneClass) -> Self {
        class as Self
    }
}

impl core::fmt::Display for SceneClass {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}
