//! Patches of labelled regions: random ones, or those of a grid.

use std::sync::Arc;

use anyhow::{Result, ensure};
use ndarray::{Array2, ArrayView2, Axis, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use s2_patches::{Dihedral, Window};
use unet_burn::{IGNORE_INDEX, Image, Patch, PatchSet, Photometric, UNetConfig};

use super::Source;

/// A rectangle of labelled pixels that patches may be cut for.
#[derive(Clone)]
pub struct Region {
    /// The image.
    pub source: Arc<dyn Source>,
    /// The part of it that counts.
    pub window: Window,
}

/// How random patches are drawn from the regions.
///
/// A part of the patches of each epoch lie at random around a pixel that is itself drawn from the positive ones
/// (class-balanced sampling); the others lie anywhere. All are turned and mirrored at random. Patch `index` of an
/// epoch is always the same one for a seed.
#[derive(Clone, Debug)]
pub struct Sampler {
    /// Patches of an epoch.
    pub len: usize,
    /// Seed of the places and augmentations.
    pub seed: u64,
    /// Part of the patches that contain a positive pixel for sure, 0 to 1.
    pub positive_share: f64,
    /// What is equally likely.
    pub draw: Draw,
    /// Largest summand of the bands in −1 to 1, for augmentation; 0 for none.
    pub brightness: f64,
    /// Largest change of the factor of the bands, for augmentation; 0 for none.
    pub contrast: f64,
}

impl Default for Sampler {
    /// 64 patches, half of them around positive pixels, regions equally likely, light unchanged.
    fn default() -> Self {
        Self { len: 64, seed: 0, positive_share: 0.5, draw: Draw::Region, brightness: 0.0, contrast: 0.0 }
    }
}

/// What is equally likely when a random patch is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Draw {
    /// Each region, then each pixel in it: small regions are seen as often as large ones.
    Region,
    /// Each pixel, in whatever region: regions count by their positive pixels, or by their area.
    Pixel,
}

/// Patches of some regions: random ones, another for each epoch and index, or those of a grid over all regions.
#[derive(Clone)]
pub struct Patches {
    regions: Vec<Region>,
    input: usize,
    output: usize,
    items: Items,
}

#[derive(Clone)]
enum Items {
    /// With the positive pixels of each region.
    Random(Sampler, Vec<Vec<(usize, usize)>>),
    /// Regions and parts of them.
    Grid(Vec<(usize, Window)>),
}

/// How a patch is changed for augmentation.
struct Change {
    turn: Dihedral,
    photometric: Photometric,
}

impl Patches {
    /// Random patches.
    pub fn random(regions: Vec<Region>, config: &UNetConfig, input: usize, sampler: Sampler) -> Result<Self> {
        let output = config.output_size(input)?;
        for Region { window, .. } in &regions {
            ensure!(
                window.height >= output && window.width >= output,
                "a region of {} x {} pixels is too small for the network's output of {output}: choose a smaller --window",
                window.height,
                window.width
            );
        }
        let Sampler { positive_share, brightness, contrast, .. } = sampler;
        ensure!((0.0..=1.0).contains(&positive_share), "--positive-share {positive_share} is not in 0 to 1");
        ensure!((0.0..=1.0).contains(&brightness), "--brightness {brightness} is not in 0 to 1");
        ensure!((0.0..1.0).contains(&contrast), "--contrast {contrast} is not in 0 to below 1");
        let positives = regions
            .iter()
            .map(|region| {
                let Window { row, col, height, width } = region.window;
                let truth = region.source.truth();
                let part = truth.slice(s![row..row + height, col..col + width]);
                part.indexed_iter()
                    .filter(|(_, class)| **class == 1)
                    .map(|((r, c), _)| (row + r, col + c))
                    .collect()
            })
            .collect();
        let patches = Self { regions, input, output, items: Items::Random(sampler, positives) };
        ensure!(
            positive_share == 0.0 || patches.any_positive(),
            "the training part holds no mine to draw patches around: --positive-share 0 draws them anywhere"
        );
        Ok(patches)
    }

    /// Whether a pixel of the regions is positive.
    #[must_use]
    pub fn any_positive(&self) -> bool {
        self.regions.iter().any(|Region { source, window: Window { row, col, height, width } }| {
            let truth = source.truth();
            truth.slice(s![*row..row + height, *col..col + width]).iter().any(|&class| class == 1)
        })
    }

    /// Side of the windows that the network sees.
    #[must_use]
    pub fn window(&self) -> usize {
        self.input
    }

    /// Patches that together count each pixel of the regions once.
    ///
    /// Each region is cut into equal parts, so that all patches count for about as much; what a patch has beyond its part
    /// takes no part. `window` is the side of the inputs in pixels; it becomes up to half larger where that needs fewer
    /// pixels of input in all.
    ///
    /// # Errors
    ///
    /// When the network takes no input of that side.
    pub fn grid(regions: Vec<Region>, config: &UNetConfig, window: usize) -> Result<Self> {
        config.output_size(window)?;
        let count = |output: usize| {
            let parts = |region: &Region| {
                region.window.height.div_ceil(output) * region.window.width.div_ceil(output)
            };
            regions.iter().map(parts).sum::<usize>()
        };
        let (input, output) = (window..=window + window / 2)
            .filter_map(|input| config.output_size(input).ok().map(|output| (input, output)))
            .min_by_key(|&(input, output)| count(output) * input * input)
            .expect("the first fits");
        let parts = |first: usize, length: usize| {
            let part = length.div_ceil(length.div_ceil(output));
            (0..length).step_by(part).map(move |start| (first + start, part.min(length - start)))
        };
        let mut places = Vec::new();
        for (region, Region { window, .. }) in regions.iter().enumerate() {
            for (row, height) in parts(window.row, window.height) {
                for (col, width) in parts(window.col, window.width) {
                    places.push((region, Window { row, col, height, width }));
                }
            }
        }
        Ok(Self { regions, input, output, items: Items::Grid(places) })
    }

    /// The patch whose output begins where a part of a region does; only that part of it counts.
    fn cut(&self, (region, part): (usize, Window), change: &Change) -> Patch {
        let source = &self.regions[region].source;
        let Window { row, col, height, width } = part;
        let margin = (self.input - self.output) / 2;
        let mut image = source.image(
            row.cast_signed() - margin.cast_signed(),
            col.cast_signed() - margin.cast_signed(),
            self.input,
        );
        let turned = |map: ArrayView2<'_, u8>| {
            let map = change.turn.apply(map.insert_axis(Axis(0))).index_axis_move(Axis(0), 0);
            map.as_standard_layout().into_owned()
        };
        image.bands = change.turn.apply(image.bands.view()).as_standard_layout().into_owned();
        if let Some(classes) = &mut image.classes {
            classes.map = turned(classes.map.view());
        }
        image.photometric = change.photometric;
        let mut truth = Array2::from_elem((self.output, self.output), IGNORE_INDEX);
        truth
            .slice_mut(s![..height, ..width])
            .assign(&source.truth().slice(s![row..row + height, col..col + width]));
        Patch {
            name: format!("{} at row {row}, column {col}", source.name()),
            image: Image::Raw(image),
            truth: turned(truth.view()),
        }
    }

    /// A random place and change.
    fn draw(
        &self,
        sampler: &Sampler,
        positives: &[Vec<(usize, usize)>],
        epoch: usize,
        index: usize,
    ) -> ((usize, Window), Change) {
        // One stream for each patch of each epoch: the same patches whatever thread asks first.
        let mut rng = ChaCha8Rng::seed_from_u64(sampler.seed);
        rng.set_stream(((epoch - 1) * sampler.len + index) as u64);
        // The share is exact in each epoch, and its patches are spread over it.
        let up_to = |index: usize| (index as f64 * sampler.positive_share) as usize;
        let positive = up_to(index + 1) > up_to(index);
        let weights: Vec<usize> = self
            .regions
            .iter()
            .zip(positives)
            .map(|(region, positives)| {
                let pixels =
                    if positive { positives.len() } else { region.window.height * region.window.width };
                if sampler.draw == Draw::Pixel { pixels } else { pixels.min(1) }
            })
            .collect();
        let mut left = rng.random_range(0..weights.iter().sum::<usize>());
        let mut region = 0;
        while left >= weights[region] {
            left -= weights[region];
            region += 1;
        }
        let Window { row, col, height, width } = self.regions[region].window;
        let (last_row, last_col) = (row + height - self.output, col + width - self.output);
        let (row, col) = if positive {
            let (r, c) = positives[region][rng.random_range(0..positives[region].len())];
            let mut around = |pixel: usize, first: usize, last: usize| {
                (pixel.saturating_sub(rng.random_range(0..self.output))).clamp(first, last)
            };
            (around(r, row, last_row), around(c, col, last_col))
        } else {
            (rng.random_range(row..=last_row), rng.random_range(col..=last_col))
        };
        let turn = Dihedral::ALL[rng.random_range(0..Dihedral::ALL.len())];
        let mut within = |limit: f64| rng.random_range(-1.0..=1.0) * limit;
        let photometric =
            Photometric { contrast: 1.0 + within(sampler.contrast), brightness: within(sampler.brightness) };
        // As in the paper's library, half of the patches keep their light.
        let photometric = if rng.random_bool(0.5) { photometric } else { Photometric::default() };
        let part = Window { row, col, height: self.output, width: self.output };
        ((region, part), Change { turn, photometric })
    }
}

impl PatchSet for Patches {
    fn len(&self) -> usize {
        match &self.items {
            Items::Random(sampler, _) => sampler.len,
            Items::Grid(places) => places.len(),
        }
    }

    fn patch(&self, epoch: usize, index: usize) -> Result<Patch, Box<dyn std::error::Error + Send + Sync>> {
        let (place, change) = match &self.items {
            Items::Grid(places) => {
                let change = Change { turn: Dihedral::Identity, photometric: Photometric::default() };
                (places[index], change)
            }
            Items::Random(sampler, positives) => self.draw(sampler, positives, epoch, index),
        };
        Ok(self.cut(place, &change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Chip, whole};
    use ndarray::Array3;
    use s2_normalize::BandStatistics;
    use unet_burn::PackedBatch;
    use unet_burn::burn::tensor::Device;

    fn network() -> UNetConfig {
        UNetConfig { in_channels: 2, levels: 1, filters: 2, kernel: 3, dropout: 0.0, ..UNetConfig::default() }
    }

    const INPUT: usize = 20;
    const OUTPUT: usize = 4;

    /// A chip of two bands whose positives lie in one place.
    fn chip(name: &str, side: usize, positives: &[(usize, usize)]) -> Arc<Chip> {
        let dn = Array3::from_shape_fn((2, side, side), |(band, row, col)| {
            let dn = (row * 7919 + col * 104_729 + band * 31) % 3000;
            if dn % 50 == 0 { 0 } else { dn as u16 }
        });
        let band = |name: &str, low, high| BandStatistics {
            band: name.into(),
            low,
            high,
            count: 1,
            offset: -1000,
            quantification: 10_000,
        };
        let mut truth = Array2::zeros((side, side));
        positives.iter().for_each(|&place| truth[place] = 1);
        let bands = vec![band("B03", -0.0123, 0.1789), band("B04", 0.0311, 0.1432)];
        Arc::new(Chip { name: name.into(), dn, bands, truth })
    }

    fn regions() -> Vec<Region> {
        let many: Vec<_> = (0..30).map(|index| (10 + index / 6, 10 + index % 6)).collect();
        whole(&[chip("none", 60, &[]), chip("one", 40, &[(20, 22)]), chip("many", 40, &many)])
    }

    fn patches(sampler: Sampler) -> Patches {
        Patches::random(regions(), &network(), INPUT, sampler).unwrap()
    }

    /// Names and patches of an epoch.
    fn epoch(patches: &Patches, epoch: usize) -> Vec<Patch> {
        (0..patches.len()).map(|index| patches.patch(epoch, index).unwrap()).collect()
    }

    fn from<'a>(patches: &'a [Patch], name: &str) -> Vec<&'a Patch> {
        patches.iter().filter(|patch| patch.name.starts_with(name)).collect()
    }

    fn has_positive(patch: &Patch) -> bool {
        patch.truth.iter().any(|&class| class == 1)
    }

    #[test]
    fn the_share_of_patches_around_positives_is_kept() {
        for (share, least) in [(0.0, 0), (0.3, 120), (1.0, 400)] {
            let all = epoch(&patches(Sampler { len: 400, positive_share: share, ..Sampler::default() }), 1);
            let positive = all.iter().filter(|patch| has_positive(patch)).count();
            assert!(
                positive >= least && positive <= least + 60,
                "{positive} patches with a share of {share}"
            );
        }
    }

    #[test]
    fn regions_or_pixels_are_equally_likely() {
        let count = |draw: Draw, positive_share: f64| {
            let all = epoch(&patches(Sampler { len: 3100, draw, positive_share, ..Sampler::default() }), 1);
            ["none", "one", "many"].map(|name| from(&all, name).len())
        };
        let near = |count: usize, expected: usize| {
            // Five standard deviations of a binomial distribution.
            let room = 5.0 * (expected as f64 * (1.0 - expected as f64 / 3100.0)).sqrt();
            assert!((count as f64 - expected as f64).abs() <= room, "{count} is not {expected}");
        };
        let [none, one, many] = count(Draw::Region, 1.0);
        assert_eq!(none, 0, "no positive pixel");
        near(one, 1550);
        near(many, 1550);
        let [none, one, many] = count(Draw::Pixel, 1.0);
        assert_eq!(none, 0, "no positive pixel");
        near(one, 100); // 1 of 31 positive pixels
        near(many, 3000);
        for count in count(Draw::Region, 0.0) {
            near(count, 3100 / 3);
        }
        let [none, one, _] = count(Draw::Pixel, 0.0);
        near(none, 3100 * 36 / 68); // 60² of 60² + 2 · 40² pixels
        near(one, 3100 * 16 / 68);
    }

    #[test]
    fn an_epoch_is_the_same_whenever_it_is_asked_for() {
        let sampler = Sampler { len: 9, seed: 4, brightness: 0.2, contrast: 0.2, ..Sampler::default() };
        let text = |patches: &[Patch]| format!("{patches:?}");
        let (one, other) = (patches(sampler.clone()), patches(sampler));
        let third = epoch(&one, 3);
        assert_eq!(text(&third), text(&epoch(&other, 3)), "without the epochs before");
        assert_ne!(text(&third), text(&epoch(&one, 4)), "another epoch");
    }

    #[test]
    fn the_device_makes_of_the_counts_what_prediction_makes_of_them() {
        let chip = chip("chip", 40, &[]);
        let patches = Patches::grid(whole(std::slice::from_ref(&chip)), &network(), INPUT).unwrap();
        for index in [0, 5, patches.len() - 1] {
            let patch = patches.patch(1, index).unwrap();
            let (row, col) = match &patches.items {
                Items::Grid(places) => (places[index].1.row.cast_signed(), places[index].1.col.cast_signed()),
                Items::Random(..) => unreachable!("a grid"),
            };
            let margin = ((INPUT - OUTPUT) / 2).cast_signed();
            let expected = chip.channels(row - margin, col - margin, patches.input).unwrap();
            let batch = PackedBatch::try_new(&[patch]).unwrap().into_device(&Device::flex());
            let values = batch.images.into_data().try_to_vec::<f32>().unwrap();
            for (value, expected) in values.into_iter().zip(expected) {
                // Three roundings of at most 2 in f32 against one.
                assert!((value - expected).abs() < 5e-7, "{value} {expected}");
            }
        }
    }

    #[test]
    fn a_grid_counts_each_pixel_once_in_few_windows() {
        // Inputs of 20, 24 and 28 have outputs of 4, 8 and 12: a side of 21 takes 6, 3 or 2 of them.
        for (side, windows, output) in [(21, 4, 12), (16, 4, 8), (12, 1, 12), (3, 1, 4)] {
            let diagonal: Vec<_> = (0..side).map(|place| (place, place)).collect();
            let chip = chip("chip", side, &diagonal);
            let patches = Patches::grid(whole(std::slice::from_ref(&chip)), &network(), INPUT).unwrap();
            assert_eq!((patches.len(), patches.output), (windows, output), "side {side}");
            let truths = epoch(&patches, 1);
            let count = |class: u8| {
                truths.iter().flat_map(|patch| &patch.truth).filter(|&&truth| truth == class).count()
            };
            let parts =
                truths.iter().map(|patch| patch.truth.iter().filter(|&&truth| truth != IGNORE_INDEX).count());
            let (least, most) = (parts.clone().min().unwrap(), parts.max().unwrap());
            assert!(most <= least + 2 * output, "parts of {least} to {most} pixels");
            let expected = |class: u8| chip.truth.iter().filter(|&&truth| truth == class).count();
            assert_eq!([count(0), count(1)], [expected(0), expected(1)], "side {side}");
        }
    }

    #[test]
    fn light_changes_the_bands_of_half_of_the_patches_within_its_limits() {
        let sampler = Sampler { len: 1000, brightness: 0.2, contrast: 0.1, ..Sampler::default() };
        let light = |patch: &Patch| match &patch.image {
            Image::Raw(raw) => raw.photometric,
            Image::Normalised(_) => unreachable!("counts"),
        };
        let lights: Vec<_> = epoch(&patches(sampler), 1).iter().map(light).collect();
        let changed: Vec<_> = lights.iter().filter(|light| **light != Photometric::default()).collect();
        assert!((420..580).contains(&changed.len()), "{} of 1000", changed.len());
        let range = |value: fn(&Photometric) -> f64| {
            let values = || changed.iter().map(|light| value(light));
            (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max))
        };
        let (low, high) = range(|light| light.brightness);
        assert!((-0.2..-0.18).contains(&low) && high > 0.18 && high <= 0.2, "{low} {high}");
        let (low, high) = range(|light| light.contrast);
        assert!((0.9..0.91).contains(&low) && high > 1.09 && high <= 1.1, "{low} {high}");
        let unchanged = epoch(&patches(Sampler { len: 50, ..Sampler::default() }), 1);
        assert!(unchanged.iter().all(|patch| light(patch) == Photometric::default()), "none by default");
    }
}
