//! A synthetic Sentinel-2 scene with artisanal gold mines, written as a real Level-2A product.
//!
//! Forest and savanna of the Upper Guinean highlands in the dry season, invented from noise: hills, a river from west to
//! east with creeks and sand bars, fields, villages, laterite roads, burns, clouds with their shadows, and mines along
//! the water. Much looks like a mine in one pixel (sand, bare fields, laterite, trodden village ground) and differs in
//! place, shape or a band or two. A seed gives the same bytes, whatever the number of threads.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use geo_types::{LineString, Polygon};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use landscape::Landscape;
use sky::Sky;

mod jp2;
mod landscape;
mod mines;
mod noise;
mod safe;
mod sensor;
mod sky;
mod spectra;
mod stroke;
mod terrain;

/// A scene on disk and the truth about it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The `.SAFE` folder.
    pub product: PathBuf,
    /// Outlines of the mines in UTM metres, counter-clockwise, without holes or overlaps. None crosses the borders of
    /// the west, middle and east thirds of the scene; each third has some.
    pub truth: Vec<Polygon<f64>>,
    /// EPSG code of the coordinates.
    pub epsg: u32,
}

/// Makes the scene of a seed, `size` 10 m pixels wide and high, and writes its product into `directory`; an older
/// product of the same name is replaced. `progress` is called, from several threads, with the name of each step.
///
/// # Errors
/// When `size` is below 192 or no multiple of 6 (20 m and 60 m grids must fit), a file cannot be written, or `progress`
/// asks to stop. No unfinished product is left behind then.
pub fn write_scene(
    directory: &Path,
    size: usize,
    seed: u64,
    progress: &(dyn Fn(&str) -> Result<()> + Sync),
) -> Result<Scene> {
    ensure!(
        size >= 192 && size.is_multiple_of(6),
        "a scene of {size} pixels is not possible: choose a multiple of 6 from 192 up"
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    progress("terrain and mines")?;
    let landscape = Landscape::new(size, seed, &mut rng)?;
    progress("land cover")?;
    let ground = landscape.reflectance();
    progress("clouds and sensor")?;
    let sky = Sky::new(size, seed, &landscape.mines.distance, &mut rng);
    let observation = sensor::observe(&ground, &sky, seed);
    drop(ground);
    let product = safe::write(directory, &observation, progress)?;
    let truth = landscape.mines.mines.iter().map(|mine| to_polygon(&mine.outline)).collect();
    Ok(Scene { product, truth, epsg: safe::EPSG })
}

/// From pixels to UTM metres, to the decimetre.
fn to_polygon(outline: &[stroke::Point]) -> Polygon<f64> {
    let [left, top] = safe::ORIGIN.map(f64::from);
    let decimetres = |value: f64| (10.0 * value).round() / 10.0;
    let map = |&[x, y]: &stroke::Point| {
        (decimetres(left + 10.0 * f64::from(x)), decimetres(top - 10.0 * f64::from(y)))
    };
    // Clockwise in rows and columns is counter-clockwise on the map once the order is turned round.
    Polygon::new(LineString::from_iter(outline.iter().rev().map(map)), vec![])
}

#[cfg(test)]
pub(crate) use safe::fill_layer;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    const SIZE: usize = 192;

    fn quiet(_: &str) -> Result<()> {
        Ok(())
    }

    /// Every file below a folder with its bytes.
    fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(
                    contents(&path)
                        .into_iter()
                        .map(|(below, bytes)| (Path::new(path.file_name().unwrap()).join(below), bytes)),
                );
            } else {
                files.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
            }
        }
        files
    }

    #[test]
    fn a_seed_gives_the_same_bytes_on_one_thread_and_on_four() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let folder = folder.path().join(name);
            let scene = pool.install(|| write_scene(&folder, SIZE, seed, &quiet)).unwrap();
            (contents(&scene.product), scene.truth)
        };
        let one = write("one", 1, 5);
        assert_eq!(
            one.0.len(),
            12 + 1 + 3,
            "twelve bands, a classification, two metadata files and the manifest"
        );
        assert!(one == write("four", 4, 5), "the product or the truth depends on the number of threads");
        assert!(one != write("other", 4, 6), "another seed must give another scene");
    }

    #[test]
    fn each_third_holds_mines_and_none_crosses_its_borders() {
        for seed in 0..8 {
            let landscape = Landscape::new(SIZE, seed, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            let mut mines = [0; 3];
            for mine in &landscape.mines.mines {
                let thirds: Vec<usize> = (0..3)
                    .filter(|&third| {
                        let [west, east] = [third, third + 1].map(|border| (SIZE * border) as f32 / 3.0);
                        mine.outline.iter().all(|&[x, _]| x > west && x < east)
                    })
                    .collect();
                assert_eq!(thirds.len(), 1, "seed {seed}: a mine lies in the thirds {thirds:?}");
                mines[thirds[0]] += 1;
            }
            assert!(mines.iter().all(|&count| count > 0), "seed {seed}: {mines:?} mines");
            let share = landscape.mines.distance.iter().filter(|&&distance| distance < 0.0).count() as f64
                / (SIZE * SIZE) as f64;
            assert!((0.015..0.05).contains(&share), "seed {seed}: mines cover {share} of the scene");
        }
    }

    #[test]
    fn stopping_leaves_the_older_product_alone() {
        let folder = tempfile::tempdir().unwrap();
        let scene = write_scene(folder.path(), SIZE, 1, &quiet).unwrap();
        let before = contents(folder.path());
        let stop = |step: &str| if step.contains("B08") { anyhow::bail!("stopped") } else { Ok(()) };
        let error = write_scene(folder.path(), SIZE, 2, &stop).unwrap_err();
        assert_eq!(error.to_string(), "stopped", "the caller's own error comes back");
        assert!(scene.product.is_dir(), "the older product is gone");
        assert!(before == contents(folder.path()), "something changed in the folder");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 186, 1000] {
            let error = write_scene(folder.path(), size, 1, &quiet).unwrap_err();
            assert!(error.to_string().contains("multiple of 6"), "size {size}: {error}");
        }
    }
}
