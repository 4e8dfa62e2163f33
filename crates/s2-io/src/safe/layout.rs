//! What the paths in a product tell: its level, its granule, and which image is which layer.

use std::collections::BTreeMap;

use super::metadata::Metadata;
use super::source::Source;
use super::{Layer, is_inside};
use crate::product::tile_id;
use crate::{Error, Level, Result};

#[derive(Debug)]
pub(super) struct ImageFile {
    /// Path in the product, from its metadata or, where these name none that exists, found by its name.
    pub(super) file: String,
    pub(super) exists: bool,
}

/// The level that the name of a product's metadata file tells; `None` for other files.
pub(crate) fn product_level(file: &str) -> Option<Level> {
    let name = file.to_ascii_lowercase();
    let old = |level: &str| name.contains(&format!("_mtd_saf{level}_")) && name.ends_with(".xml");
    match &*name {
        _ if name.contains('/') => None,
        "mtd_msil1c.xml" => Some(Level::L1C),
        "mtd_msil2a.xml" | "mtd_msil2ap.xml" => Some(Level::L2A),
        _ if old("l1c") => Some(Level::L1C),
        _ if old("l2a") => Some(Level::L2A),
        _ => None,
    }
}

/// The folder of the product's one granule and its metadata file. Where there is no `GRANULE` folder, as in some
/// copies, the tile metadata may lie beside those of the product.
pub(super) fn granule(source: &Source) -> Result<(String, String)> {
    let mut granules: Vec<_> = source
        .files()
        .iter()
        .filter_map(|file| Some(file.strip_prefix("GRANULE/")?.split_once('/')?.0.to_owned()))
        .collect();
    granules.dedup();
    let is_metadata = |file: &str| {
        let name = file.to_ascii_lowercase();
        let old = (name.contains("_mtd_l1c_tl_") || name.contains("_mtd_l2a_tl_")) && name.ends_with(".xml");
        name == "mtd_tl.xml" || (old && !name.contains('/'))
    };
    let folder = match &granules[..] {
        [] => String::new(),
        [granule] => format!("GRANULE/{granule}/"),
        _ => return Err(Error::Granules { path: source.path().to_owned(), granules }),
    };
    let file = source.files().iter().find(|file| file.strip_prefix(&folder).is_some_and(is_metadata));
    match file {
        Some(file) => Ok((folder, file.clone())),
        None if granules.is_empty() => Err(Error::Granules { path: source.path().to_owned(), granules }),
        None => {
            let reason = format!("no {folder}MTD_TL.xml in it");
            Err(Error::NotAProduct { path: source.path().to_owned(), reason })
        }
    }
}

/// The images of the granule: those that the metadata name, then those found by name.
pub(super) fn images(
    source: &Source,
    product: &Metadata,
    granule: &str,
    tile: &str,
) -> Result<BTreeMap<(Layer, u32), ImageFile>> {
    let mut images = BTreeMap::new();
    for name in ["IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A"] {
        for element in product.root.find_all(name) {
            let text = element.text.trim();
            let text = text.strip_prefix("./").unwrap_or(text);
            if !is_inside(text) {
                return Err(Error::UnsafePath { path: product.path.clone(), member: text.to_owned() });
            }
            let stem = text.strip_suffix(".jp2").unwrap_or(text);
            let Some(key) = layer(stem) else { continue };
            let file = if stem.contains('/') {
                format!("{stem}.jp2")
            } else if stem_parts(stem).find_map(tile_id).is_none_or(|found| found == tile) {
                // Old metadata name files without their folders.
                let same =
                    |file: &&String| file.starts_with(granule) && file.ends_with(&format!("/{stem}.jp2"));
                source
                    .files()
                    .iter()
                    .find(same)
                    .map_or(format!("{granule}IMG_DATA/{stem}.jp2"), String::clone)
            } else {
                continue;
            };
            // Metadata of old products name the images of all granules.
            if file.starts_with(granule) {
                let exists = source.files().binary_search(&file).is_ok();
                images.insert(key, ImageFile { file, exists });
            }
        }
    }
    for file in source.files() {
        let in_images = file.strip_prefix(granule).is_some_and(|rest| rest.starts_with("IMG_DATA/"));
        let Some(key) = file.strip_suffix(".jp2").filter(|_| in_images).and_then(layer) else { continue };
        let known = images.get(&key).is_some_and(|image| image.exists);
        if !known {
            images.insert(key, ImageFile { file: file.clone(), exists: true });
        }
    }
    Ok(images)
}

/// What the name of an image file says: band or scene classification, and resolution in metres.
fn layer(stem: &str) -> Option<(Layer, u32)> {
    let layer = stem_parts(stem).find_map(|part| match part {
        "SCL" => Some(Layer::Scl),
        // In file names bands have two digits: "B02", "B8A".
        _ if part.len() == 3 => part.parse().ok().map(Layer::Band),
        _ => None,
    })?;
    let named = stem_parts(stem).last()?.strip_suffix('m').and_then(|digits| digits.parse().ok());
    match (layer, named) {
        (_, Some(resolution_m)) => Some((layer, resolution_m)),
        (Layer::Band(band), None) => Some((layer, band.resolution_m())),
        (Layer::Scl, None) => None,
    }
}

/// The parts of a file's name without its folder and ending: `T29RKH`, `20200219T112111`, `B02`, `10m`.
pub(super) fn stem_parts(file: &str) -> impl Iterator<Item = &str> {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".jp2").unwrap_or(name).split('_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Band;

    #[test]
    fn image_names_of_all_formats_are_understood() {
        let b02 = Layer::Band(Band::B02);
        for (stem, expected) in [
            ("GRANULE/g/IMG_DATA/T31TDH_20180101T105441_B02", Some((b02, 10))),
            ("GRANULE/g/IMG_DATA/R60m/T29RKH_20200219T112111_B02_60m", Some((b02, 60))),
            ("L2A_T34VFJ_20180818T094031_B8A_20m", Some((Layer::Band(Band::B8A), 20))),
            (
                "S2A_OPER_MSI_L1C_TL_EPA__20160910T134133_A005359_T04MGV_B09",
                Some((Layer::Band(Band::B09), 60)),
            ),
            ("S2A_USER_SCL_L2A_TL_EPA__20160910T134133_A005359_T04MGV_20m", Some((Layer::Scl, 20))),
            ("T29RKH_20200219T112111_SCL_20m", Some((Layer::Scl, 20))),
            ("T29RKH_20200219T112111_TCI_10m", None),
            ("T29RKH_20200219T112111_AOT_20m", None),
            ("", None),
        ] {
            assert_eq!(layer(stem), expected, "{stem}");
        }
    }
}
