//! Prepared scenes as sources of patches.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use s2_io::{Algorithm, Checksum};
use s2_patches::{Split, Window, check_split, extract};
use s2_scl::SceneClass;
use unet_burn::{Classes, IGNORE_INDEX, Photometric, RawImage, Scale};

use super::{Region, Source, scale};
use crate::evaluate::Truth;
use crate::input::{Scene, classes, no_data};

/// A prepared scene.
#[derive(Debug)]
pub struct SceneSource {
    scene: Scene,
    stack: Array3<u16>,
    scales: Vec<Scale>,
    truth: Array2<u8>,
}

impl SceneSource {
    /// Reads the stack into memory. Pixels without data or without truth take no part.
    pub fn new(scene: Scene, truth: &Truth) -> Result<Self> {
        let stack = scene.stack.read::<u16>()?.data;
        let classes = ndarray::Zip::from(&truth.mines)
            .and(&truth.valid)
            .and(&no_data(stack.slice(s![..-1, .., ..])))
            .map_collect(
                |&mine, &valid, &no_data| if valid && !no_data { u8::from(mine) } else { IGNORE_INDEX },
            );
        let scales = scene.statistics.bands.iter().map(scale).collect();
        Ok(Self { scene, stack, scales, truth: classes })
    }

    /// SHA-256 of the truth.
    pub fn truth_checksum(&self) -> Result<String> {
        let bytes: Vec<u8> = self.truth.iter().copied().collect();
        Ok(Checksum::of(Algorithm::Sha256, bytes.as_slice())?.to_string())
    }

    /// The scene itself.
    #[must_use]
    pub fn scene(&self) -> &Scene {
        &self.scene
    }
}

impl Source for SceneSource {
    fn name(&self) -> &str {
        &self.scene.statistics.product
    }

    fn size(&self) -> (usize, usize) {
        self.truth.dim()
    }

    fn image(&self, row: isize, col: isize, size: usize) -> RawImage {
        let stack = extract(self.stack.view(), row, col, size, size);
        let num_bands = self.scales.len();
        RawImage {
            bands: stack.slice(s![..num_bands, .., ..]).to_owned(),
            scales: self.scales.clone(),
            classes: Some(Classes {
                map: classes(stack.index_axis(Axis(0), num_bands)),
                one_hot: SceneClass::ALL.iter().map(|&class| class as u8).collect(),
            }),
            photometric: Photometric::default(),
        }
    }

    fn truth(&self) -> ArrayView2<'_, u8> {
        self.truth.view()
    }
}

/// Columns of a scene from west to east in three strips: 50 % training, 20 % validation, 30 % test, each
/// `gap` pixels from the next.
#[must_use]
pub fn strips(width: usize, gap: usize) -> [Range<usize>; 3] {
    let usable = width.saturating_sub(2 * gap);
    let (training, validation) = (usable / 2, usable / 5);
    let second = training + gap;
    let third = second + validation + gap;
    [0..training, second..second + validation, third..width]
}

/// The three strips of a scene as regions, refused when the input footprints of two of them touch.
pub fn scene_regions(
    source: &Arc<SceneSource>,
    strips: &[Range<usize>; 3],
    margin: usize,
) -> Result<[Region; 3]> {
    let (height, width) = source.size();
    let windows =
        strips.each_ref().map(|strip| Window { row: 0, col: strip.start, height, width: strip.len() });
    let footprint = |window: &Window| {
        let first = window.col.saturating_sub(margin);
        let last = (window.col + window.width + margin).min(width);
        Window { row: 0, col: first, height, width: last - first }
    };
    let names = ["training", "validation", "test"];
    let footprints = windows.each_ref().map(|window| [footprint(window)]);
    let splits = std::array::from_fn::<_, 3, _>(|i| Split { name: names[i], footprints: &footprints[i] });
    check_split(&splits)?;
    Ok(windows.map(|window| Region { source: source.clone(), window }))
}
