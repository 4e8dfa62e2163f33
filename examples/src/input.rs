//! From a stack on disk to the channels of the network.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis, s};
use s2_io::{Band, GeoTiff};
use s2_normalize::{Definition, Statistics};
use s2_scl::SceneClass;
use unet_burn::Recipe;

/// Name of the class band of a stack.
pub const SCL: &str = "SCL";
/// Dataset item of a stack that names its product.
pub const PRODUCT: &str = "PRODUCT";
/// File names of the fixed contract.
pub const STACK: &str = "stack.tif";
/// See [`STACK`].
pub const STATISTICS: &str = "statistics.json";

/// A prepared scene: what `prepare` wrote.
#[derive(Debug)]
pub struct Scene {
    /// The ten bands and SCL.
    pub stack: GeoTiff,
    /// How to normalise them.
    pub statistics: Statistics,
}

impl Scene {
    /// Opens the folder that `prepare` wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(STACK);
        require_file(folder, STACK, "name a folder that prepare wrote")?;
        let stack = GeoTiff::open(&path)?;
        let statistics = Statistics::load(folder.join(STATISTICS))?;
        let expected = statistics.bands.iter().map(|band| band.band.as_str()).chain([SCL]);
        ensure!(
            expected.eq(stack.band_names().iter().map(String::as_str)),
            "{} holds the bands {}, but {STATISTICS} describes {} and {SCL}: run prepare again",
            path.display(),
            stack.band_names().join(" "),
            statistics.bands.iter().map(|band| band.band.as_str()).collect::<Vec<_>>().join(" "),
        );
        ensure!(
            stack.metadata().get(PRODUCT) == Some(&statistics.product),
            "{} was made from {}, but {STATISTICS} from {}: run prepare again",
            path.display(),
            stack.metadata().get(PRODUCT).map_or("an unnamed product", String::as_str),
            statistics.product,
        );
        for (index, band) in statistics.bands.iter().enumerate() {
            let (scale, offset) = stack.scale_offset(index);
            let quantification = f64::from(band.quantification);
            // The offset is applied once, from the statistics; the stack only has to agree.
            ensure!(
                (scale * quantification - 1.0).abs() < 1e-9
                    && (offset * quantification - f64::from(band.offset)).abs() < 1e-6,
                "{} has scale {scale} and offset {offset} for {}, but {STATISTICS} has {} and {}: run prepare again",
                path.display(),
                band.band,
                1.0 / quantification,
                f64::from(band.offset) / quantification,
            );
        }
        Ok(Self { stack, statistics })
    }

    /// What the channels of this scene are.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        let bands = self.statistics.bands.iter().map(|band| band.band.clone());
        let classes = SceneClass::ALL.iter().map(|&class| format!("{SCL}={}", class as u8));
        Recipe {
            channels: bands.chain(classes).collect(),
            resolution_m: self.stack.grid().transform[1].abs(),
            normalization: normalization(&self.statistics.definition),
        }
    }

    /// The network's channels for a part of the stack, `[band, row, column]` → `[channel, row, column]`: the
    /// bands in [-1, 1], then the scene classes one-hot.
    pub fn channels(&self, stack: ArrayView3<'_, u16>) -> Result<Array3<f32>> {
        let num_bands = self.statistics.bands.len();
        let (_, height, width) = stack.dim();
        let mut channels = Array3::zeros((num_bands + SceneClass::ALL.len(), height, width));
        for (band, (dn, out)) in
            self.statistics.bands.iter().zip(stack.outer_iter().zip(channels.outer_iter_mut()))
        {
            band.normalize_into(dn, out)?;
        }
        let scl = classes(stack.index_axis(Axis(0), num_bands));
        s2_scl::one_hot_into(scl.view(), channels.slice_mut(s![num_bands.., .., ..]))
            .context("the SCL band of the stack")?;
        Ok(channels)
    }
}

/// Scene classes of the last band of a stack; anything above 255 becomes 255, which is no class.
pub fn classes(scl: ArrayView2<'_, u16>) -> Array2<u8> {
    scl.mapv(|class| u8::try_from(class).unwrap_or(u8::MAX))
}

/// Where a pixel lacks data in any band: no pixel that the network could judge. `[band, row, column]` in DN.
pub fn no_data(bands: ArrayView3<'_, u16>) -> Array2<bool> {
    let mut found = Array2::default((bands.dim().1, bands.dim().2));
    for band in bands.outer_iter() {
        found.zip_mut_with(&band, |found, &dn| *found |= dn == 0);
    }
    found
}

/// Refuses a folder without a file, with what to do.
pub fn require_file(folder: &Path, name: &str, advice: &str) -> Result<()> {
    let path = folder.join(name);
    let there = match path.metadata() {
        Ok(metadata) => metadata.is_file(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => false,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    ensure!(there, "{} has no {name}: {advice}", folder.display());
    Ok(())
}

/// The normalisation in words, for the model bundle.
#[must_use]
pub fn normalization(definition: &Definition) -> String {
    let excluded: Vec<String> = definition.excluded_classes.iter().map(u8::to_string).collect();
    let excluded =
        if excluded.is_empty() { String::new() } else { format!(", SCL {} left out", excluded.join(" ")) };
    format!(
        "percentiles {} and {} ({:?}, DN 0 left out{excluded}) to -1 and 1, clipped",
        definition.low_percent, definition.high_percent, definition.method
    )
}

/// Bands of a recipe of reflectances only, such as `B02,B03,B04`.
pub fn parse_bands(list: &str) -> Result<Vec<Band>> {
    let bands: Vec<Band> = list
        .split(',')
        .map(|name| name.trim().parse::<Band>().with_context(|| format!("--bands {list}")))
        .collect::<Result<_>>()?;
    if bands.is_empty() {
        bail!("--bands is empty: name the bands of the chips, such as B02,B03,B04");
    }
    Ok(bands)
}
