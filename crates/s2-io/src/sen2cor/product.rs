//! The L2A product that a run has made: found, compared with the input, and complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Failure, Input};
use crate::xml::Element;
use crate::{Level, Product, ProductName};

/// The images that a product of a resolution must have, whatever the settings (Products Specification Document, L2A
/// image data; the same for all baselines since 02.05).
pub(super) const IMAGES: [(u32, &[&str]); 3] = [
    (10, &["B02", "B03", "B04", "B08"]),
    (20, &["B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12", "SCL"]),
    (60, &["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B09", "B11", "B12", "SCL"]),
];

/// Finds the one product in the work folder and checks that it is that of the input, and complete. Versions before 2.8
/// write it beside the input.
pub(super) fn find_output(
    folders: &[PathBuf],
    input: &Input,
    resolution_m: Option<u32>,
) -> Result<PathBuf, Failure> {
    let mut found = Vec::new();
    for path in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let name = path.file_name().to_string_lossy().into_owned();
        if name.starts_with("S2") && name.contains("_MSIL2A") && name.ends_with(".SAFE") {
            found.push((name, path.path()));
        }
    }
    found.sort();
    let (name, path) = match <[_; 1]>::try_from(found) {
        Ok([one]) => one,
        Err(none) if none.is_empty() => return Err(Failure::NoOutput),
        Err(several) => {
            return Err(Failure::SeveralOutputs {
                names: several.into_iter().map(|(name, _)| name).collect(),
            });
        }
    };
    let product = match Product::open(&path) {
        Ok(product) => product,
        Err(error) => return Err(Failure::Unreadable { error }),
    };
    if product.level() != Level::L2A {
        let problem = format!("the metadata of an {} product", product.level());
        return Err(Failure::Incomplete { name, problem });
    }
    // For an input with an old name Sen2Cor 2.8 makes a name of no known form; what can be compared then is less.
    let named = name.parse::<ProductName>().ok().filter(|_| input.name.tile.is_some());
    let same =
        |same: fn(&ProductName, &ProductName) -> bool| named.as_ref().is_none_or(|n| same(n, &input.name));
    let differs = [
        ("satellite", name.get(..3) == Some(&*input.name.satellite)),
        ("sensing time", same(|a, b| a.sensing_time == b.sensing_time)),
        ("orbit", same(|a, b| a.relative_orbit == b.relative_orbit)),
        ("tile", product.tile() == input.product.tile()),
    ];
    if let Some((differs, _)) = differs.into_iter().find(|(_, same)| !same) {
        return Err(Failure::OtherProduct { name, differs });
    }
    match lacking(&path, resolution_m) {
        Some(problem) => Err(Failure::Incomplete { name, problem }),
        None => Ok(path),
    }
}

/// What a product lacks of the images of a resolution.
fn lacking(product: &Path, resolution_m: Option<u32>) -> Option<String> {
    let mut sizes = BTreeMap::new();
    for granule in fs::read_dir(product.join("GRANULE")).into_iter().flatten().flatten() {
        images(&granule.path().join("IMG_DATA"), 2, &mut sizes);
    }
    if let Some((empty, _)) = sizes.iter().find(|(_, size)| **size == 0) {
        return Some(format!("an empty image, {empty}.jp2"));
    }
    let asked = |resolution| match resolution_m {
        Some(asked) => asked == resolution,
        None => resolution < 60,
    };
    for (resolution, layers) in IMAGES.into_iter().filter(|(resolution, _)| asked(*resolution)) {
        let of_resolution = format!("{resolution}m");
        for layer in layers {
            let has = |stem: &String| {
                let mut parts = stem.rsplit('_');
                parts.next() == Some(&of_resolution) && parts.any(|part| part == *layer)
            };
            if !sizes.keys().any(has) {
                return Some(format!("no {layer} at {resolution} m"));
            }
        }
        for stem in
            named_images(product).into_iter().filter(|stem| stem.ends_with(&format!("_{of_resolution}")))
        {
            if !sizes.contains_key(&stem) {
                return Some(format!("no {stem}.jp2, which its metadata name"));
            }
        }
    }
    None
}

/// The sizes of the images in a folder, by name without ending.
fn images(folder: &Path, depth: usize, sizes: &mut BTreeMap<String, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match (fs::metadata(&path), path.extension(), path.file_stem()) {
            (Ok(metadata), ..) if metadata.is_dir() && depth > 0 => images(&path, depth - 1, sizes),
            (Ok(metadata), Some(extension), Some(stem)) if extension == "jp2" => {
                sizes.insert(stem.to_string_lossy().into_owned(), metadata.len());
            }
            _ => {}
        }
    }
}

/// The images that the metadata of a product name, without folders and ending. That the metadata can be read was seen
/// when the product was opened; those of old products have other names and are left out. An elevation model is named
/// as well, but lies elsewhere.
fn named_images(product: &Path) -> Vec<String> {
    let path = product.join("MTD_MSIL2A.xml");
    let root = fs::read(&path).ok().and_then(|text| Element::parse(&path, &text).ok()).unwrap_or_default();
    let names =
        root.find_all("IMAGE_FILE").filter_map(|element| element.text.trim().split_once("/IMG_DATA/"));
    let stem = |(_, file): (&str, &str)| {
        let name = file.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".jp2").unwrap_or(name).to_owned()
    };
    names.map(stem).collect()
}
