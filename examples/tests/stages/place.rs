//! A work folder with products in it, and a Sen2Cor for it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use examples::scene::write_scene;
use s2_io::{Algorithm, Checksum};
use serde_json::Value;
use tempfile::TempDir;
use zip::CompressionMethod;

pub const L1C: &str = "S2A_MSIL1C_20250116T110401_N0511_R080_T29NPJ_20250116T130312";
pub const L2A: &str = "S2A_MSIL2A_20250116T110401_N0511_R080_T29NPJ_20250116T142003";
/// What the fake Sen2Cor calls its products, but for the last digit.
pub const MADE: &str = "S2A_MSIL2A_20250116T110401_N0511_R080_T29NPJ_20250117T00000";
/// An older product, of another tile.
pub const OTHER: &str = "S2B_MSIL1C_20200219T112111_N0500_R037_T29RKH_20230425T050621";

/// A synthetic L2A product, made once.
pub fn product() -> &'static Path {
    static PRODUCT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PRODUCT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let product = write_scene(folder.path(), 384, 1, &|_| Ok(())).unwrap().product;
        (folder, product)
    });
    path
}

/// All files below a folder, by path.
pub fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(tree(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

pub fn copy(from: &Path, to: &Path) {
    for file in tree(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

pub fn zip_product(product: &Path, archive: &Path, method: CompressionMethod) {
    let mut zip = zip::ZipWriter::new(File::create(archive).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for file in tree(product) {
        let name = file.strip_prefix(product.parent().unwrap()).unwrap();
        zip.start_file(name.to_str().unwrap(), options).unwrap();
        zip.write_all(&fs::read(&file).unwrap()).unwrap();
    }
    zip.finish().unwrap();
}

/// An L1C product that Sen2Cor would take, but for its images; with a manifest that verifies.
pub fn write_l1c(folder: &Path, name: &str) -> PathBuf {
    let parts: Vec<_> = name.split('_').collect();
    let (tile, baseline) = (parts[5], format!("{}.{}", &parts[3][1..3], &parts[3][3..]));
    let granule = format!("GRANULE/L1C_{tile}_A049984_20250116T111037");
    let image = format!("{granule}/IMG_DATA/{tile}_{}_B02", parts[2]);
    let offsets: String =
        (0..13).map(|id| format!("<RADIO_ADD_OFFSET band_id=\"{id}\">-1000</RADIO_ADD_OFFSET>")).collect();
    let safe = folder.join(format!("{name}.SAFE"));
    let mut manifest = String::new();
    for (file, text) in [
        (format!("{image}.jp2"), "image".to_owned()),
        ("DATASTRIP/DS_1/MTD_DS.xml".to_owned(), "<a/>".to_owned()),
        (
            "MTD_MSIL1C.xml".to_owned(),
            format!(
                "<a><PRODUCT_START_TIME>2025-01-16T11:04:01.024Z</PRODUCT_START_TIME>\
                 <PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL>\
                 <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><IMAGE_FILE>{image}</IMAGE_FILE>\
                 <QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>{offsets}</a>"
            ),
        ),
        (
            format!("{granule}/MTD_TL.xml"),
            format!(
                "<a><TILE_ID>S2A_OPER_MSI_L1C_TL_FAKE_20250116T130000_A049984_{tile}_N05.11</TILE_ID>\
                 <HORIZONTAL_CS_CODE>EPSG:32629</HORIZONTAL_CS_CODE></a>"
            ),
        ),
    ] {
        let sum = Checksum::of(Algorithm::Sha3_256, text.as_bytes()).unwrap().hex();
        manifest += &format!(
            "<dataObject><byteStream size=\"{}\"><fileLocation href=\"./{file}\"/>\
             <checksum checksumName=\"SHA3-256\">{sum}</checksum></byteStream></dataObject>",
            text.len()
        );
        fs::create_dir_all(safe.join(&file).parent().unwrap()).unwrap();
        fs::write(safe.join(&file), text).unwrap();
    }
    fs::write(safe.join("manifest.safe"), format!("<XFDU>{manifest}</XFDU>")).unwrap();
    safe
}

/// A work folder, and a Sen2Cor that copies the synthetic product, each time under another name.
pub struct Place {
    _folder: TempDir,
    pub work: PathBuf,
    pub sen2cor: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (work, sen2cor) = (folder.path().join("work"), folder.path().join("sen2cor"));
        for folder in [work.join("archive"), sen2cor.join("bin")] {
            fs::create_dir_all(folder).unwrap();
        }
        let script = format!(
            r#"#!/bin/sh
if [ "$1" = --help ]; then
    echo "Sentinel-2 Level 2A Processor (Sen2Cor). Version: 02.12.03, created: 2024.01.01"
    exit 0
fi
here=$(dirname "$0")
while [ $# -gt 0 ]; do
    case $1 in
    --output_dir) output=$2; shift 2 ;;
    *) shift ;;
    esac
done
echo "Progress[%]: 14.20 : PID-1, L2A_AtmCorr, elapsed time[s]: 0.100, total: 0:00:01"
count=$(cat "$here/count" 2>/dev/null || echo 0)
count=$((count + 1))
echo $count >"$here/count"
# The next run is not as slow.
[ -f "$here/slow" ] && rm "$here/slow" && sleep 20
name={MADE}$count.SAFE
cp -R "{product}" "$output/$name"
sed -i.old "s/{L2A}/$name/;s/.SAFE.SAFE/.SAFE/" "$output/$name/MTD_MSIL2A.xml"
rm "$output/$name/MTD_MSIL2A.xml.old"
# Sen2Cor brings all bands to 20 m.
cd "$output/$name"/GRANULE/*/IMG_DATA/R20m
for band in B02 B03 B04; do cp ./*_B05_20m.jp2 T29NPJ_20250116T110401_${{band}}_20m.jp2; done
[ -f "$here/fail" ] && echo "Traceback: no LUT" && exit 1
echo "Progress[%]: 100.00 : Application terminated successfully."
"#,
            product = product().display()
        );
        fs::write(sen2cor.join("L2A_Process.sh"), script).unwrap();
        // By another process: a file that is open for writing cannot be run.
        let target = sen2cor.join("bin/L2A_Process");
        for command in [
            Command::new("cp").arg(sen2cor.join("L2A_Process.sh")).arg(&target),
            Command::new("chmod").arg("755").arg(&target),
        ] {
            assert!(command.status().unwrap().success(), "{command:?}");
        }
        Self { _folder: folder, work, sen2cor }
    }

    pub fn with_l2a() -> Self {
        let place = Self::new();
        zip_product(product(), &place.path(&format!("archive/{L2A}.SAFE.zip")), CompressionMethod::Stored);
        place
    }

    pub fn with_l1c() -> Self {
        let place = Self::new();
        place.add_l1c(L1C);
        place
    }

    pub fn add_l1c(&self, name: &str) {
        let folder = tempfile::tempdir().unwrap();
        let product = write_l1c(folder.path(), name);
        let archive = self.path(&format!("archive/{name}.SAFE.zip"));
        zip_product(&product, &archive, CompressionMethod::Stored);
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.work.join(file)
    }

    pub fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepare"));
        command.args(["--device", "cpu", "--work"]).arg(&self.work);
        command.arg("--sen2cor").arg(&self.sen2cor).args(options);
        command
    }

    /// Prepares; what it says.
    pub fn prepare(&self, options: &[&str]) -> String {
        let output = self.command(options).output().unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        text
    }

    /// Prepares, and fails with exit code 1.
    pub fn fails(&self, options: &[&str]) -> String {
        let output = self.command(options).output().unwrap();
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    pub fn status(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_status")).arg(&self.work).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_status")).arg(&self.work).arg("--json").output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap()
    }

    /// The states of the stages of a product, in their order.
    pub fn states(&self, product: usize) -> Vec<String> {
        let json = self.json();
        let stages = json["products"][product]["stages"].as_array().unwrap();
        stages.iter().map(|stage| stage["state"].as_str().unwrap().to_owned()).collect()
    }

    /// What lies in a folder, hidden files as well.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn modified(&self, file: &str) -> SystemTime {
        fs::metadata(self.path(file)).unwrap().modified().unwrap()
    }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn touch(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}
