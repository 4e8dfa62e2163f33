//! The product's folder: names, metadata and manifest of a Level-2A product of baseline 05.11.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ndarray::ArrayView2;
use rayon::prelude::*;
use sha3::{Digest as _, Sha3_256};

use super::jp2::{self, Layout};
use super::sensor::{OFFSET, Observation, QUANTIFICATION};
use super::spectra::BANDS;
use super::terrain::{SUN_AZIMUTH, SUN_ZENITH};

/// EPSG code of the scene: WGS84 / UTM zone 29N.
pub(super) const EPSG: u32 = 32629;
/// Outer corner of the scene's upper left pixel in metres: that of the real tile 29NPJ.
pub(super) const ORIGIN: [u32; 2] = [600_000, 900_000];

const TILE: &str = "T29NPJ";
const SENSING: &str = "20250116T110401";
const NAME: &str = "S2A_MSIL2A_20250116T110401_N0511_R080_T29NPJ_20250116T142003.SAFE";
const GRANULE: &str = "L2A_T29NPJ_A049984_20250116T111037";
const DATASTRIP_ID: &str = "S2A_OPER_MSI_L2A_DS_2APS_20250116T142003_S20250116T111037_N05.11";
const TILE_ID: &str = "S2A_OPER_MSI_L2A_TL_2APS_20250116T142003_A049984_T29NPJ_N05.11";
/// Names of the classes of the scene classification by number, as the metadata write them.
const CLASSES: [&str; 12] = [
    "SC_NODATA",
    "SC_SATURATED_DEFECTIVE",
    "SC_DARK_FEATURE_SHADOW",
    "SC_CLOUD_SHADOW",
    "SC_VEGETATION",
    "SC_NOT_VEGETATED",
    "SC_WATER",
    "SC_UNCLASSIFIED",
    "SC_CLOUD_MEDIUM_PROBA",
    "SC_CLOUD_HIGH_PROBA",
    "SC_THIN_CIRRUS",
    "SC_SNOW_ICE",
];
/// Central wavelength of the bands in nm with B10, by `bandId` (Sentinel-2A).
const WAVELENGTHS: [(&str, u32, f64); 13] = [
    ("B1", 60, 442.7),
    ("B2", 10, 492.7),
    ("B3", 10, 559.8),
    ("B4", 10, 664.6),
    ("B5", 20, 704.1),
    ("B6", 20, 740.5),
    ("B7", 20, 782.8),
    ("B8", 10, 832.8),
    ("B8A", 20, 864.7),
    ("B9", 60, 945.1),
    ("B10", 60, 1373.5),
    ("B11", 20, 1613.7),
    ("B12", 20, 2202.4),
];

/// Writes the product into `directory` and returns its folder. It is built beside its place and renamed when whole;
/// an older product of the same name is replaced.
///
/// # Errors
/// When a file cannot be written or `progress`, called before each band, asks to stop; then no product is left.
pub(super) fn write(
    directory: &Path,
    observation: &Observation,
    progress: &(dyn Fn(&str) -> Result<()> + Sync),
) -> Result<PathBuf> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create the folder {}", directory.display()))?;
    let product = directory.join(NAME);
    let unfinished = directory.join(format!(".{NAME}.part"));
    let replaced = directory.join(format!(".{NAME}.old"));
    for stale in [&unfinished, &replaced] {
        remove_folder(stale)?;
    }
    let done = write_files(&unfinished, observation, progress).and_then(|()| {
        if product.exists() {
            rename(&product, &replaced)?;
        }
        rename(&unfinished, &product)
    });
    match done {
        Ok(()) => remove_folder(&replaced).map(|()| product),
        Err(error) => {
            // What cannot be undone now is removed by the next run; the first error is the one to tell.
            if !product.exists() && replaced.exists() {
                let _ = rename(&replaced, &product);
            }
            let _ = remove_folder(&unfinished);
            Err(error)
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// A band file: its path in the product, samples and resolution.
struct Image<'a> {
    path: String,
    samples: ArrayView2<'a, u16>,
    resolution_m: u32,
    bits: u32,
}

fn write_files(
    folder: &Path,
    observation: &Observation,
    progress: &(dyn Fn(&str) -> Result<()> + Sync),
) -> Result<()> {
    let path = |name: &str, resolution: u32| {
        format!("GRANULE/{GRANULE}/IMG_DATA/R{resolution}m/{TILE}_{SENSING}_{name}_{resolution}m.jp2")
    };
    let bands = BANDS.iter().zip(&observation.bands).map(|(&(name, resolution_m), samples)| Image {
        path: path(name, resolution_m),
        samples: samples.view(),
        resolution_m,
        bits: 15,
    });
    let scl = Image { path: path("SCL", 20), samples: observation.scl.view(), resolution_m: 20, bits: 8 };
    let mut images: Vec<Image<'_>> = bands.chain([scl]).collect();
    images.sort_by(|a, b| (a.resolution_m, &a.path).cmp(&(b.resolution_m, &b.path)));
    let contents = Contents::of(&observation.scl);

    // Path in the product → (media type, size, checksum); sorted, so that the manifest is the same every time.
    let mut files: BTreeMap<String, (&str, usize, String)> = BTreeMap::new();
    let written: Vec<_> = images
        .par_iter()
        .map(|image| {
            progress(image.path.rsplit('/').next().unwrap_or(&image.path))?;
            let layout =
                Layout { resolution_m: image.resolution_m, bits: image.bits, origin: ORIGIN, epsg: EPSG };
            let bytes = jp2::encode(image.samples, &layout)
                .with_context(|| format!("cannot encode {}", image.path))?;
            let record = write_file(folder, &image.path, &bytes)?;
            Ok((image.path.clone(), ("application/octet-stream", record.0, record.1)))
        })
        .collect::<Result<_>>()?;
    files.extend(written);
    for (path, text) in [
        ("MTD_MSIL2A.xml".to_owned(), product_xml(&images, &contents)),
        (format!("GRANULE/{GRANULE}/MTD_TL.xml"), tile_xml(observation.bands[1].nrows(), &contents)),
    ] {
        let record = write_file(folder, &path, text.as_bytes())?;
        files.insert(path, ("text/xml", record.0, record.1));
    }
    write_file(folder, "manifest.safe", manifest(&files).as_bytes())?;
    Ok(())
}

/// Puts one value into all pixels of a layer of a product, for tests of scenes that cannot be used.
#[cfg(test)]
pub(crate) fn fill_layer(product: &Path, layer: &str, resolution_m: u32, pixels: usize, value: u16) {
    let path =
        format!("GRANULE/{GRANULE}/IMG_DATA/R{resolution_m}m/{TILE}_{SENSING}_{layer}_{resolution_m}m.jp2");
    let bits = if layer == "SCL" { 8 } else { 15 };
    let samples = ndarray::Array2::from_elem((pixels, pixels), value);
    let layout = Layout { resolution_m, bits, origin: ORIGIN, epsg: EPSG };
    fs::write(product.join(path), jp2::encode(samples.view(), &layout).unwrap()).unwrap();
}

/// Writes and syncs one file; its size and SHA3-256 in hexadecimal.
fn write_file(folder: &Path, path: &str, bytes: &[u8]) -> Result<(usize, String)> {
    let file = folder.join(path);
    let write = || {
        fs::create_dir_all(file.parent().unwrap_or(folder))?;
        let mut open = fs::File::create(&file)?;
        std::io::Write::write_all(&mut open, bytes)?;
        open.sync_all()
    };
    write().with_context(|| format!("cannot write {}", file.display()))?;
    let checksum = Sha3_256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes.len(), checksum))
}

/// Shares of the classes, in percent.
struct Contents {
    /// Of all pixels for class 0, of the valid ones for the others.
    percent: [f64; 12],
}

impl Contents {
    fn of(scl: &ndarray::Array2<u16>) -> Self {
        let mut counts = [0_u32; 12];
        for &class in scl {
            counts[usize::from(class)] += 1;
        }
        let total: u32 = counts.iter().sum();
        let valid = f64::from((total - counts[0]).max(1));
        let mut percent = counts.map(|count| 100.0 * f64::from(count) / valid);
        percent[0] = 100.0 * f64::from(counts[0]) / f64::from(total.max(1));
        Self { percent }
    }

    /// Cloud cover as the catalogue has it: classes 8, 9 and 10.
    fn cloudy(&self) -> f64 {
        self.percent[8..=10].iter().sum()
    }

    /// The elements of `Image_Content_QI` that both metadata files have.
    fn xml(&self) -> String {
        let land = 100.0 - self.percent[6];
        let mut lines = format!(
            "      <CLOUDY_PIXEL_OVER_LAND_PERCENTAGE>{:.6}</CLOUDY_PIXEL_OVER_LAND_PERCENTAGE>\n",
            100.0 * self.cloudy() / land.max(1e-9)
        );
        for (name, percent) in [
            "NODATA_PIXEL",
            "SATURATED_DEFECTIVE_PIXEL",
            "DARK_FEATURES",
            "CLOUD_SHADOW",
            "VEGETATION",
            "NOT_VEGETATED",
            "WATER",
            "UNCLASSIFIED",
            "MEDIUM_PROBA_CLOUDS",
            "HIGH_PROBA_CLOUDS",
            "THIN_CIRRUS",
            "SNOW_ICE",
        ]
        .iter()
        .zip(&self.percent)
        {
            lines += &format!("      <{name}_PERCENTAGE>{percent:.6}</{name}_PERCENTAGE>\n");
        }
        lines
    }
}

/// `MTD_MSIL2A.xml`.
fn product_xml(images: &[Image<'_>], contents: &Contents) -> String {
    let files: String = images
        .iter()
        .map(|image| {
            format!("            <IMAGE_FILE>{}</IMAGE_FILE>\n", image.path.trim_end_matches(".jp2"))
        })
        .collect();
    let offsets: String = (0..WAVELENGTHS.len())
        .map(|id| format!("        <BOA_ADD_OFFSET band_id=\"{id}\">{OFFSET}</BOA_ADD_OFFSET>\n"))
        .collect();
    let spectral: String = WAVELENGTHS
        .iter()
        .enumerate()
        .map(|(id, (name, resolution, wavelength))| {
            format!(
                "        <Spectral_Information bandId=\"{id}\" physicalBand=\"{name}\"><RESOLUTION>{resolution}</RESOLUTION>\
                 <Wavelength><CENTRAL unit=\"nm\">{wavelength}</CENTRAL></Wavelength></Spectral_Information>\n"
            )
        })
        .collect();
    let classes: String = CLASSES
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!(
                "        <Scene_Classification_ID><SCENE_CLASSIFICATION_TEXT>{name}</SCENE_CLASSIFICATION_TEXT>\
                 <SCENE_CLASSIFICATION_INDEX>{index}</SCENE_CLASSIFICATION_INDEX></Scene_Classification_ID>\n"
            )
        })
        .collect();
    let (cloudy, content) = (contents.cloudy(), contents.xml());
    format!(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- A synthetic scene: no satellite saw it. -->
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2025-01-16T11:04:01.024Z</PRODUCT_START_TIME>
      <PRODUCT_STOP_TIME>2025-01-16T11:04:01.024Z</PRODUCT_STOP_TIME>
      <PRODUCT_URI>{NAME}</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI2A</PRODUCT_TYPE>
      <PROCESSING_BASELINE>05.11</PROCESSING_BASELINE>
      <GENERATION_TIME>2025-01-16T14:20:03.000000Z</GENERATION_TIME>
      <Datatake datatakeIdentifier="GS2A_20250116T110401_049984_N05.11">
        <SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
        <DATATAKE_TYPE>INS-NOBS</DATATAKE_TYPE>
        <DATATAKE_SENSING_START>2025-01-16T11:04:01.024Z</DATATAKE_SENSING_START>
        <SENSING_ORBIT_NUMBER>80</SENSING_ORBIT_NUMBER>
        <SENSING_ORBIT_DIRECTION>DESCENDING</SENSING_ORBIT_DIRECTION>
      </Datatake>
      <Query_Options completeSingleTile="true"><PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT></Query_Options>
      <Product_Organisation>
        <Granule_List>
          <Granule datastripIdentifier="{DATASTRIP_ID}" granuleIdentifier="{TILE_ID}" imageFormat="JPEG2000">
{files}          </Granule>
        </Granule_List>
      </Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
      <Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
      <Image_Display_Order><RED_CHANNEL>3</RED_CHANNEL><GREEN_CHANNEL>2</GREEN_CHANNEL><BLUE_CHANNEL>1</BLUE_CHANNEL></Image_Display_Order>
      <QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">{QUANTIFICATION}</BOA_QUANTIFICATION_VALUE>
        <AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>
        <WVP_QUANTIFICATION_VALUE unit="cm">1000.0</WVP_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>
      <BOA_ADD_OFFSET_VALUES_LIST>
{offsets}      </BOA_ADD_OFFSET_VALUES_LIST>
      <Spectral_Information_List>
{spectral}      </Spectral_Information_List>
      <Scene_Classification_List>
{classes}      </Scene_Classification_List>
    </Product_Image_Characteristics>
  </n1:General_Info>
  <n1:Quality_Indicators_Info>
    <Cloud_Coverage_Assessment>{cloudy:.6}</Cloud_Coverage_Assessment>
    <Image_Content_QI>
{content}    </Image_Content_QI>
  </n1:Quality_Indicators_Info>
</n1:Level-2A_User_Product>
"#
    )
}

/// `MTD_TL.xml` of a scene of `size` 10 m pixels.
fn tile_xml(size: usize, contents: &Contents) -> String {
    let [left, top] = ORIGIN;
    let geocoding: String = [10, 20, 60]
        .iter()
        .map(|resolution| {
            let count = size * 10 / resolution;
            format!(
                "      <Size resolution=\"{resolution}\"><NROWS>{count}</NROWS><NCOLS>{count}</NCOLS></Size>\n      \
                 <Geoposition resolution=\"{resolution}\"><ULX>{left}</ULX><ULY>{top}</ULY>\
                 <XDIM>{resolution}</XDIM><YDIM>-{resolution}</YDIM></Geoposition>\n"
            )
        })
        .collect();
    let (cloudy, content) = (contents.cloudy(), contents.xml());
    format!(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
  <n1:General_Info>
    <L1C_TILE_ID metadataLevel="Brief">S2A_OPER_MSI_L1C_TL_2APS_20250116T130312_A049984_T29NPJ_N05.11</L1C_TILE_ID>
    <TILE_ID metadataLevel="Brief">{TILE_ID}</TILE_ID>
    <DATASTRIP_ID metadataLevel="Standard">{DATASTRIP_ID}</DATASTRIP_ID>
    <SENSING_TIME metadataLevel="Standard">2025-01-16T11:10:37.512000Z</SENSING_TIME>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding metadataLevel="Brief">
      <HORIZONTAL_CS_NAME>WGS84 / UTM zone 29N</HORIZONTAL_CS_NAME>
      <HORIZONTAL_CS_CODE>EPSG:{EPSG}</HORIZONTAL_CS_CODE>
{geocoding}    </Tile_Geocoding>
    <Tile_Angles metadataLevel="Standard">
      <Mean_Sun_Angle>
        <ZENITH_ANGLE unit="deg">{SUN_ZENITH}</ZENITH_ANGLE>
        <AZIMUTH_ANGLE unit="deg">{SUN_AZIMUTH}</AZIMUTH_ANGLE>
      </Mean_Sun_Angle>
    </Tile_Angles>
  </n1:Geometric_Info>
  <n1:Quality_Indicators_Info metadataLevel="Standard">
    <Image_Content_QI>
      <CLOUDY_PIXEL_PERCENTAGE>{cloudy:.6}</CLOUDY_PIXEL_PERCENTAGE>
{content}    </Image_Content_QI>
  </n1:Quality_Indicators_Info>
</n1:Level-2A_Tile_ID>
"#
    )
}

/// `manifest.safe`: every other file with its size and SHA3-256.
fn manifest(files: &BTreeMap<String, (&str, usize, String)>) -> String {
    let objects: String = files
        .iter()
        .map(|(path, (media_type, size, checksum))| {
            let id = path.rsplit('/').next().unwrap_or(path).replace('.', "_");
            format!(
                "    <dataObject ID=\"{id}\">\n      <byteStream mimeType=\"{media_type}\" size=\"{size}\">\n        \
                 <fileLocation locatorType=\"URL\" href=\"./{path}\"/>\n        \
                 <checksum checksumName=\"SHA3-256\">{checksum}</checksum>\n      </byteStream>\n    </dataObject>\n"
            )
        })
        .collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" version="esa/safe/sentinel/sentinel-2/msi/archive_l2a_user_product">
  <informationPackageMap>
    <xfdu:contentUnit unitType="Product_Level-2A" textInfo="SENTINEL-2 MSI Level-2A User Product"/>
  </informationPackageMap>
  <dataObjectSection>
{objects}  </dataObjectSection>
</xfdu:XFDU>
"#
    )
}
