//! Products in folders and archives, against GDAL and an independent reading of the metadata; and products that are
//! wrong in one point each.

mod common;

use std::fs;
use std::path::Path;

use common::copy::{Copy, GRANULE, write_zip};
use common::{SMALL, SMALL_IMAGES, chain, fnv1a, golden, own, shared};
use s2_io::{Band, Level, Product, Window};
use serde_json::json;

#[test]
fn the_small_product_is_read_as_gdal_reads_it() {
    let copy = Copy::new();
    for path in [copy.root.clone(), copy.zip(&format!("{SMALL}/"))] {
        let product = Product::open(&path).unwrap();
        assert_eq!(product.name(), SMALL.trim_end_matches(".SAFE"));
        assert_eq!((product.level(), product.tile()), (Level::L2A, "29RKH"));
        assert_eq!((product.quantification(), product.offset(Band::B04)), (10_000, -1000));
        assert_eq!(product.baseline().to_string(), "05.09");
        assert_eq!(product.sensing_start(), "2020-02-19T11:21:11.024Z");
        let bands: Vec<_> = product.bands().collect();
        let expected = [(Band::B01, 60), (Band::B04, 10), (Band::B05, 20), (Band::B08, 10), (Band::B8A, 20)];
        assert_eq!(bands, expected, "in the order of the bands");

        let golden = golden("small_golden.json");
        for (band, resolution_m) in bands {
            let raster = product.read_band(band, resolution_m).unwrap();
            assert_eq!(golden[&format!("{band}_{resolution_m}m")]["fnv1a"], fnv1a(&raster.data), "{band}");
            assert_eq!(raster.grid, product.grid(resolution_m).unwrap(), "{band}");
            assert_eq!(
                golden[&format!("{band}_{resolution_m}m")]["transform"],
                json!(raster.grid.transform),
                "{band}"
            );
            assert_eq!(raster.nodata, Some(0.0), "{band}");
        }
        for resolution_m in [20, 60] {
            let scl = product.read_scl(resolution_m).unwrap();
            assert_eq!(golden[&format!("SCL_{resolution_m}m")]["fnv1a"], fnv1a(&scl.data), "{resolution_m}");
        }
        let window = Window { row: 13, col: 20, height: 30, width: 9 };
        let part = product.read_band_window(Band::B08, 10, window).unwrap();
        let whole = product.read_band(Band::B08, 10).unwrap();
        assert_eq!(part.data, common::part(&whole.data, window));
        assert_eq!(part.grid, whole.grid.window(window));
    }
}

#[test]
fn images_that_the_metadata_do_not_name_are_found() {
    let copy = Copy::new().replace("MTD_MSIL2A.xml", "IMAGE_FILE", "SOMETHING");
    let images = copy.path(SMALL_IMAGES);
    fs::rename(copy.image("B04_10m"), images.join("R10m/L2A_T29RKH_20200219T112111_B04_10m.jp2")).unwrap();
    let product = Product::open(&copy.root).unwrap();
    assert_eq!(product.bands().count(), 5);
    product.read_band(Band::B04, 10).unwrap();
}

#[test]
fn old_metadata_that_name_files_without_folders_are_understood() {
    let copy = Copy::new();
    let old = "S2A_USER_MTD_SAFL2A_PDMC_20160910T174323_R071_V20160701T204642_20160701T204643.xml";
    let text = fs::read_to_string(copy.path("MTD_MSIL2A.xml")).unwrap();
    let text = ["R10m", "R20m", "R60m"]
        .iter()
        .fold(text, |text, folder| text.replace(&format!("{SMALL_IMAGES}/{folder}/"), ""))
        .replace("IMAGE_FILE", "IMAGE_ID_2A")
        .replace("PRODUCT_URI", "PRODUCT_URI_2A")
        .replace("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
        // An image of another granule.
        .replace(
            "<Granule imageFormat=\"JPEG2000\">",
            "<Granules><IMAGE_ID_2A>L2A_T30ABC_x_B02_10m</IMAGE_ID_2A></Granules><Granule>",
        );
    fs::write(copy.path(old), text).unwrap();
    fs::remove_file(copy.path("MTD_MSIL2A.xml")).unwrap();
    fs::rename(
        copy.path(&format!("{GRANULE}/MTD_TL.xml")),
        copy.path(&format!("{GRANULE}/S2A_USER_MTD_L2A_TL_EPA__20160910T134133_A005359_T29RKH.xml")),
    )
    .unwrap();
    let product = Product::open(&copy.root).unwrap();
    assert_eq!((product.bands().count(), product.quantification()), (5, 10_000));
    product.read_scl(20).unwrap();
    let error = product.read_band(Band::B02, 10).unwrap_err().to_string();
    assert!(error.contains("has no B02 at 10 m"), "{error}");
}

#[test]
fn metadata_equal_an_independent_reading() {
    let Some(data) = shared() else { return };
    let mut checked = 0;
    for (folder, expected) in golden("safe_golden.json") {
        let root = data.join(&folder);
        if !root.is_dir() {
            continue;
        }
        checked += 1;
        // Some lie in the layout of the cloud archive: they are given the layout of a product.
        let names: Vec<_> =
            expected["metadata"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let arranged = tempfile::tempdir().unwrap();
        let path = if names[0] == "product_metadata.xml" {
            fs::create_dir_all(arranged.path().join("GRANULE/g")).unwrap();
            fs::copy(root.join(names[0]), arranged.path().join("MTD_MSIL2A.xml")).unwrap();
            fs::copy(root.join(names[1]), arranged.path().join("GRANULE/g/MTD_TL.xml")).unwrap();
            arranged.path().to_owned()
        } else {
            root
        };
        let product = Product::open(&path).unwrap_or_else(|error| panic!("{folder}: {}", chain(&error)));
        assert_eq!(expected["level"], product.level().to_string(), "{folder}: level");
        assert_eq!(expected["baseline"], product.baseline().to_string(), "{folder}: baseline");
        assert_eq!(expected["tile"], product.tile(), "{folder}: tile");
        assert_eq!(expected["sensing_start"], product.sensing_start(), "{folder}: sensing start");
        assert_eq!(expected["quantification"], product.quantification(), "{folder}: quantification");
        assert_eq!(
            expected["offsets"],
            json!(Band::ALL.map(|band| product.offset(band))),
            "{folder}: offsets"
        );
        assert_eq!(expected["bands"], product.bands().count(), "{folder}: bands");
        for (resolution_m, grid) in expected["grids"].as_object().unwrap() {
            let found = product.grid(resolution_m.parse().unwrap()).unwrap();
            assert_eq!(grid["shape"], json!([found.height, found.width]), "{folder}: size");
            assert_eq!(grid["transform"], json!(found.transform), "{folder}: transform");
            assert_eq!(expected["epsg"], json!(found.epsg), "{folder}: EPSG");
        }
    }
    assert!(checked > 0, "no product of safe_golden.json is in {}", data.display());
}

#[test]
fn bands_of_real_products_equal_gdal() {
    let Some(data) = shared() else { return };
    let golden = golden("jp2_golden.json");
    let mut checked = 0;
    for folder in [
        "mini_safe_29RKH/S2A_MSIL2A_20200219T112111_N0214_R037_T29RKH_20200219T140000.SAFE",
        "mini_safe_29RKH/S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE",
        "safe_l1c_0206/S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911",
    ] {
        let Ok(product) = Product::open(data.join(folder)) else { continue };
        for (band, resolution_m) in product.bands() {
            let ending = match product.level() {
                Level::L1C => format!("_{band}.jp2"),
                Level::L2A => format!("_{band}_{resolution_m}m.jp2"),
            };
            let (_, expected) =
                golden.iter().find(|(f, _)| f.starts_with(folder) && f.ends_with(&ending)).unwrap();
            let raster = product.read_band(band, resolution_m).unwrap();
            assert_eq!(expected["fnv1a"], fnv1a(&raster.data), "{folder}: {band}");
            assert_eq!(expected["transform"], json!(raster.grid.transform), "{folder}: {band}");
            checked += 1;
        }
    }
    assert!(checked > 0, "no product is in {}", data.display());
}

#[test]
fn both_baselines_of_a_scene_give_the_same_reflectance() {
    let Some(data) = shared().map(|data| data.join("mini_safe_29RKH")).filter(|folder| folder.is_dir())
    else {
        return;
    };
    let open = |baseline: &str| Product::open(data.join(SMALL.replace("N0509", baseline))).unwrap();
    let (old, new) = (open("N0214"), open("N0509"));
    for (band, resolution_m) in old.bands() {
        let values = |product: &Product| {
            let offset = product.offset(band);
            let raster = product.read_band(band, resolution_m).unwrap();
            raster.data.mapv(|dn| (dn > 0).then(|| i32::from(dn) + offset))
        };
        assert_eq!(values(&old), values(&new), "{band}");
    }
    assert_eq!(old.read_scl(20).unwrap(), new.read_scl(20).unwrap());
}

#[test]
fn an_archive_without_top_folder_is_read() {
    let Some(data) = shared().map(|data| data.join("safe_l1c_0206")).filter(|folder| folder.is_dir()) else {
        return;
    };
    let name = "S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911";
    let (folder, zip) =
        (Product::open(data.join(name)).unwrap(), Product::open(data.join(format!("{name}.zip"))).unwrap());
    assert_eq!((zip.name(), zip.offset(Band::B01), zip.level()), (name, 0, Level::L1C));
    assert_eq!(zip.bands().collect::<Vec<_>>(), [(Band::B01, 60)]);
    assert_eq!(zip.read_band(Band::B01, 60).unwrap(), folder.read_band(Band::B01, 60).unwrap());
    let error = zip.read_band(Band::B02, 10).unwrap_err().to_string();
    let looked_for = "GRANULE/L1C_T31TDH_A013204_20180101T105435/IMG_DATA/T31TDH_20180101T105441_B02.jp2";
    assert_eq!(
        error,
        format!("{} has no B02 at 10 m; looked for {looked_for}", data.join(format!("{name}.zip")).display())
    );
}

#[test]
fn a_product_of_tiffs_named_jp2_says_so() {
    let Some(data) = shared() else { return };
    let root = data
        .join("gdal_fake_safe/autotest/gdrivers/data/sentinel2/fake_l1c_processing_baseline_5_09")
        .join("S2B_MSIL1C_20230823T095559_N0509_R122_T34UCF_20230823T120234.SAFE");
    if !root.is_dir() {
        return;
    }
    let error = chain(&Product::open(&root).unwrap().read_band(Band::B02, 10).unwrap_err());
    let file = "GRANULE/L1C_T34UCF_A033753_20230823T095553/IMG_DATA/T34UCF_20230823T095559_B02.jp2";
    let path = root.join(file);
    assert_eq!(
        error,
        format!("cannot decode {}: not a JPEG 2000 file: it looks like a TIFF", path.display())
    );
}

#[test]
fn a_product_without_offsets_is_refused_from_baseline_04_00_on() {
    let copy = Copy::new().replace("MTD_MSIL2A.xml", "BOA_ADD_OFFSET", "FORGOTTEN");
    let path = copy.path("MTD_MSIL2A.xml");
    let expected = format!(
        "{}: no radiometric offset of B01 at baseline 05.09, where one is required (04.00 and later); \
         get the metadata again, or make the product with Sen2Cor 2.10 or later",
        path.display()
    );
    assert_eq!(copy.open_error(), expected);
    // One band forgotten is no better.
    let copy = Copy::new().replace("MTD_MSIL2A.xml", "band_id=\"8\"", "band_id=\"7\"");
    assert!(copy.open_error().contains("no radiometric offset of B8A"), "{}", copy.open_error());
}

#[test]
fn a_product_without_offsets_before_baseline_04_00_has_none() {
    let copy = Copy::new()
        .replace("MTD_MSIL2A.xml", "BOA_ADD_OFFSET", "FORGOTTEN")
        .replace("MTD_MSIL2A.xml", "05.09", "03.01")
        .replace("MTD_MSIL2A.xml", "N0509", "N0301");
    let renamed = copy.root.with_file_name(SMALL.replace("N0509", "N0301"));
    fs::rename(&copy.root, &renamed).unwrap();
    assert_eq!(Product::open(renamed).unwrap().offset(Band::B04), 0);
}

#[test]
fn name_and_metadata_must_agree() {
    let copy = Copy::new().replace("MTD_MSIL2A.xml", "05.09", "04.00");
    let expected = format!(
        "{}: the metadata say baseline 04.00, the name {} says 05.09",
        copy.path("MTD_MSIL2A.xml").display(),
        SMALL.trim_end_matches(".SAFE")
    );
    assert_eq!(copy.open_error(), expected);

    let tile_metadata = format!("{GRANULE}/MTD_TL.xml");
    let copy = Copy::new().replace(&tile_metadata, "T29RKH", "T30ABC");
    let expected =
        format!("{} belongs to tile 30ABC, the product to tile 29RKH", copy.path(&tile_metadata).display());
    assert_eq!(copy.open_error(), expected);
}

#[test]
fn wrong_metadata_values_are_named() {
    let tile = format!("{GRANULE}/MTD_TL.xml");
    for (file, from, to, message) in [
        ("MTD_MSIL2A.xml", ">05.09<", ">five<", "PROCESSING_BASELINE cannot be \"five\""),
        ("MTD_MSIL2A.xml", "Level-2A<", "Level-3<", "PROCESSING_LEVEL cannot be \"Level-3\""),
        ("MTD_MSIL2A.xml", ">10000<", ">0<", "BOA_QUANTIFICATION_VALUE cannot be \"0\""),
        ("MTD_MSIL2A.xml", ">10000<", ">1.5<", "BOA_QUANTIFICATION_VALUE cannot be \"1.5\""),
        ("MTD_MSIL2A.xml", "BOA_QUANTIFICATION_VALUE", "X", "BOA_QUANTIFICATION_VALUE is missing"),
        ("MTD_MSIL2A.xml", "\"12\">-1000", "\"12\">many", "BOA_ADD_OFFSET cannot be \"many\""),
        ("MTD_MSIL2A.xml", "band_id=\"12\"", "band_id=\"13\"", "band_id of BOA_ADD_OFFSET cannot be \"13\""),
        ("MTD_MSIL2A.xml", "PRODUCT_START_TIME", "X", "PRODUCT_START_TIME is missing"),
        (&tile, "EPSG:32629", "somewhere", "HORIZONTAL_CS_CODE cannot be \"somewhere\""),
        (&tile, "<NROWS>48<", "<NROWS>-48<", "NROWS cannot be \"-48\""),
        (&tile, "<ULX>199980", "<ULX>west", "ULX cannot be \"west\""),
        (
            &tile,
            "_T29RKH_N05.09</TILE_ID>",
            "</TILE_ID>",
            "TILE_ID cannot be \"S2A_OPER_MSI_L2A_TL_TEST_20200219T140000_A024342\"",
        ),
    ] {
        let copy = Copy::new().replace(file, from, to);
        assert_eq!(copy.open_error(), format!("{}: {message}", copy.path(file).display()));
    }
    let copy = Copy::new().replace("MTD_MSIL2A.xml", "</n1:Level-2A_User_Product>", "");
    let expected = format!(
        "cannot parse {}: it ends within Level-2A_User_Product",
        copy.path("MTD_MSIL2A.xml").display()
    );
    assert_eq!(copy.open_error(), expected);
}

#[test]
fn a_missing_band_is_named_with_the_path_looked_for() {
    let copy = Copy::new();
    fs::remove_file(copy.image("B04_10m")).unwrap();
    let product = Product::open(&copy.root).unwrap();
    assert!(!product.bands().any(|(band, _)| band == Band::B04), "not listed");
    let root = copy.root.display();
    for (band, resolution_m, looked_for) in [
        (Band::B04, 10, format!("{SMALL_IMAGES}/R10m/T29RKH_20200219T112111_B04_10m.jp2")),
        (Band::B08, 20, "GRANULE/*/IMG_DATA/R20m/*_B08_20m.jp2".to_owned()),
    ] {
        let error = product.read_band(band, resolution_m).unwrap_err().to_string();
        assert_eq!(error, format!("{root} has no {band} at {resolution_m} m; looked for {looked_for}"));
    }
    let error = product.read_band(Band::B04, 30).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{} has no grid of 30 m", copy.path(&format!("{GRANULE}/MTD_TL.xml")).display())
    );
    let error = product.read_scl(10).unwrap_err().to_string();
    assert_eq!(error, format!("{root} has no SCL at 10 m; looked for GRANULE/*/IMG_DATA/R10m/*_SCL_10m.jp2"));
}

#[test]
fn a_band_of_another_tile_is_refused() {
    let copy = Copy::new().replace(
        "MTD_MSIL2A.xml",
        "R10m/T29RKH_20200219T112111_B04",
        "R10m/T30ABC_20200219T112111_B04",
    );
    let other = copy.path(&format!("{SMALL_IMAGES}/R10m/T30ABC_20200219T112111_B04_10m.jp2"));
    fs::rename(copy.image("B04_10m"), &other).unwrap();
    let product = Product::open(&copy.root).unwrap();
    let error = product.read_band(Band::B04, 10).unwrap_err().to_string();
    assert_eq!(error, format!("{} belongs to tile 30ABC, the product to tile 29RKH", other.display()));
}

#[test]
fn images_of_another_size_or_place_are_refused() {
    let copy = Copy::new();
    fs::copy(copy.image("SCL_60m"), copy.image("SCL_20m")).unwrap();
    fs::copy(copy.image("B8A_20m"), copy.image("B04_10m")).unwrap();
    let product = Product::open(&copy.root).unwrap();
    for (error, file, sizes) in [
        (product.read_scl(20).unwrap_err(), "SCL_20m", "8 rows and 8 columns, the product's grid 24 and 24"),
        (
            product.read_band(Band::B04, 10).unwrap_err(),
            "B04_10m",
            "24 rows and 24 columns, the product's grid 48 and 48",
        ),
    ] {
        assert_eq!(error.to_string(), format!("{} has {sizes}", copy.image(file).display()));
    }

    let tile = format!("{GRANULE}/MTD_TL.xml");
    for (from, to, place) in [
        ("EPSG:32629", "EPSG:32630", "[199980.0, 10.0, 0.0, 3400020.0, 0.0, -10.0] in EPSG Some(32630)"),
        ("<ULX>199980<", "<ULX>300000<", "[300000.0, 10.0, 0.0, 3400020.0, 0.0, -10.0] in EPSG Some(32629)"),
    ] {
        let copy = Copy::new().replace(&tile, from, to);
        let error = Product::open(&copy.root).unwrap().read_band(Band::B08, 10).unwrap_err().to_string();
        let expected = format!(
            "{} lies at [199980.0, 10.0, 0.0, 3400020.0, 0.0, -10.0] in EPSG Some(32629), the product's grid at {place}",
            copy.image("B08_10m").display()
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn an_image_of_several_components_is_no_band() {
    let copy = Copy::new().replace(
        &format!("{GRANULE}/MTD_TL.xml"),
        "<NROWS>48</NROWS><NCOLS>48<",
        "<NROWS>21</NROWS><NCOLS>30<",
    );
    fs::copy(own("rgb_geojp2.jp2"), copy.image("B04_10m")).unwrap();
    let error = chain(&Product::open(&copy.root).unwrap().read_band(Band::B04, 10).unwrap_err());
    let path = copy.image("B04_10m");
    assert_eq!(
        error,
        format!("cannot decode {}: not supported: an image of 3 components as B04", path.display())
    );
}

#[test]
fn a_truncated_band_is_refused() {
    let copy = Copy::new();
    let data = fs::read(copy.image("B04_10m")).unwrap();
    fs::write(copy.image("B04_10m"), &data[..2500]).unwrap();
    let error = chain(&Product::open(&copy.root).unwrap().read_band(Band::B04, 10).unwrap_err());
    let path = copy.image("B04_10m");
    let expected = "truncated at byte 2500: 7 of 9 tiles are whole; get the file again";
    assert_eq!(error, format!("cannot decode {}: {expected}", path.display()));
}

#[test]
fn several_granules_are_listed() {
    let copy = Copy::new();
    fs::create_dir(copy.path("GRANULE/L2A_T30ABC_A024342_20200219T112111")).unwrap();
    assert!(Product::open(&copy.root).is_ok(), "an empty folder is none");
    fs::write(copy.path("GRANULE/L2A_T30ABC_A024342_20200219T112111/MTD_TL.xml"), "<a/>").unwrap();
    let expected = format!(
        "{} has 2 granules, one is needed: L2A_T29RKH_A024342_20200219T112111, L2A_T30ABC_A024342_20200219T112111; \
         keep one in GRANULE/",
        copy.root.display()
    );
    assert_eq!(copy.open_error(), expected);
    fs::remove_dir_all(copy.path("GRANULE")).unwrap();
    assert_eq!(copy.open_error(), format!("{} has 0 granules, one is needed", copy.root.display()));
}

#[test]
fn folders_and_files_that_are_no_products_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| chain(&Product::open(path).unwrap_err());
    let name = folder.path().display();
    let none = format!("{name} is not a Sentinel-2 product: no MTD_MSIL1C.xml or MTD_MSIL2A.xml in it");
    assert_eq!(error(folder.path()), none);
    let file = folder.path().join("a.zip");
    fs::write(&file, "<html>").unwrap();
    let none =
        format!("{} is not a Sentinel-2 product: it is neither a folder nor a zip archive", file.display());
    assert_eq!(error(&file), none);
    let absent = folder.path().join("absent.SAFE");
    assert!(error(&absent).starts_with(&format!("cannot read {}: ", absent.display())), "{}", error(&absent));

    let copy = Copy::new();
    fs::remove_file(copy.path(&format!("{GRANULE}/MTD_TL.xml"))).unwrap();
    let expected =
        format!("{} is not a Sentinel-2 product: no {GRANULE}/MTD_TL.xml in it", copy.root.display());
    assert_eq!(copy.open_error(), expected);
}

#[test]
fn paths_that_lead_out_of_the_product_are_refused() {
    let copy = Copy::new();
    let path = copy.zip("../");
    let member = format!("../{GRANULE}/IMG_DATA/R10m/T29RKH_20200219T112111_B04_10m.jp2");
    let expected =
        format!("{}: refused, because the path {member:?} in it leads out of the product", path.display());
    assert_eq!(chain(&Product::open(&path).unwrap_err()), expected);
    for member in ["/etc/passwd", "A.SAFE/../../x", "..\\x"] {
        write_zip(&path, [("A.SAFE/MTD_MSIL2A.xml", b"<a/>".to_vec()), (member, Vec::new())]);
        let error = chain(&Product::open(&path).unwrap_err());
        let expected = format!(
            "{}: refused, because the path {member:?} in it leads out of the product",
            path.display()
        );
        assert_eq!(error, expected);
    }
    let copy = Copy::new().replace("MTD_MSIL2A.xml", "<IMAGE_FILE>GRANULE", "<IMAGE_FILE>../GRANULE");
    let error = copy.open_error();
    assert!(error.contains("/MTD_MSIL2A.xml: refused, because the path \"../GRANULE/"), "{error}");
}

#[test]
fn archives_that_are_broken_or_hold_no_single_product_are_refused() {
    let copy = Copy::new();
    let path = copy.zip(&format!("{SMALL}/"));
    let name = path.display();
    let data = fs::read(&path).unwrap();
    for end in [3, 1000, data.len() - 30] {
        fs::write(&path, &data[..end]).unwrap();
        let error = chain(&Product::open(&path).unwrap_err());
        let start = format!("cannot read the zip archive {name}; if it is damaged, get it again: ");
        assert!(error.starts_with(&start), "cut at {end}: {error}");
    }

    // A changed byte in a member is found by its checksum.
    let mut damaged = data.clone();
    let member = format!("{SMALL}/{SMALL_IMAGES}/R10m/T29RKH_20200219T112111_B08_10m.jp2");
    let at =
        data.windows(member.len()).position(|bytes| bytes == member.as_bytes()).unwrap() + member.len() + 500;
    damaged[at] ^= 1;
    fs::write(&path, damaged).unwrap();
    let product = Product::open(&path).unwrap();
    let error = chain(&product.read_band(Band::B08, 10).unwrap_err());
    let start = format!("cannot read the zip archive {}", path.join(&member).display());
    assert!(error.starts_with(&start), "{error}");

    write_zip(&path, [("readme.txt", Vec::new())]);
    let error = chain(&Product::open(&path).unwrap_err());
    assert_eq!(
        error,
        format!("{name} is not a Sentinel-2 product: no MTD_MSIL1C.xml or MTD_MSIL2A.xml in it")
    );
    write_zip(&path, [("A.SAFE/MTD_MSIL2A.xml", Vec::new()), ("B.SAFE/MTD_MSIL2A.xml", Vec::new())]);
    let error = chain(&Product::open(&path).unwrap_err());
    let expected = "it holds several: A.SAFE/, B.SAFE/; keep one in an archive";
    assert_eq!(error, format!("{name} is not a Sentinel-2 product: {expected}"));
}

#[test]
fn a_product_whose_metadata_have_no_granule_is_refused() {
    let Some(data) = shared() else { return };
    let root = data.join("safe_metadata/S2A_MSIL2A_20180721T053721_N0212_R062_T43MDV_20201011T181419.SAFE");
    if root.is_dir() {
        let error = chain(&Product::open(&root).unwrap_err());
        assert_eq!(error, format!("{} has 0 granules, one is needed", root.display()));
    }
}
