//! Catalogues: long answers, pages, and recorded answers of the services.

use std::path::Path;
use std::sync::Arc;

use s2_io::net::{Catalog, Client, Item, OData, Query, Stac, area_of_bbox, best};
use s2_io::{Algorithm, Level};
use serde_json::Value;

use crate::common::shared;
use crate::server::Product;
use crate::{NAME, Site, feature, query};

#[test]
fn a_long_answer_of_odata_is_read_to_its_end() {
    let site = Site::new();
    {
        let mut state = site.server.lock();
        state.products.clear();
        for number in 0..10_700 {
            let (day, second) = (number / 3600, number % 3600);
            let sensed = format!("202001{:02}T10{:02}{:02}", day + 1, second / 60, second % 60);
            let name = format!("S2A_MSIL2A_{sensed}_N0509_R037_T29RKH_20200219T140000");
            state.products.push(Product::new(number, &name, Vec::from([0; 40])));
        }
    }
    let mut all = query(Level::L2A, "2020-01-01", "2020-01-31");
    all.tiles = vec!["29RKH".to_owned()];
    let found = site.odata().search(&all).unwrap();
    assert_eq!(found.len(), 10_700);
    assert!(site.server.count("Products") < 20, "thousand by thousand");
    // The last day is searched to its end.
    let mut first = query(Level::L2A, "2020-01-01", "2020-01-01");
    first.tiles = vec!["T29RKH".to_owned()];
    assert_eq!(site.odata().search(&first).unwrap().len(), 3600);
    first.tiles = vec!["29RKJ".to_owned()];
    assert_eq!(site.odata().search(&first).unwrap().len(), 0);
}

#[test]
fn a_catalogue_that_answers_with_a_web_page_gives_one_line() {
    let site = Site::new();
    site.server.lock().maintenance = true;
    let mut all = query(Level::L2A, "2020-01-01", "2020-01-31");
    all.tiles = vec!["29RKH".to_owned()];
    for error in [
        site.odata().search(&all).unwrap_err(),
        Stac::earth_search(&site.client).at(&site.server.at("/es")).search(&all).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("a web page (\"Scheduled maintenance\") instead of data"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn pages_of_stac_are_followed_to_the_end() {
    let site = Site::new();
    for tile in 0..25 {
        let name = NAME.replace("29RKH", &format!("29R{}H", char::from(b'A' + tile)));
        site.server.lock().features.push(feature(&name, f64::from(tile)));
    }
    site.server.lock().page = 10;
    let mut all = query(Level::L2A, "2020-02-01", "2020-02-29");
    all.area = Some(area_of_bbox([-8.6, 29.2, -8.5, 29.3]).unwrap());
    for (stac, path) in [
        (Stac::earth_search(&site.client), "/es"),
        (Stac::planetary_computer(&site.client), "/pc"),
        (Stac::cdse(&site.client), "/cdse"),
    ] {
        let stac = stac.at(&site.server.at(path));
        assert_eq!(stac.search(&all).unwrap().len(), 25, "{path}");
        // What the service does not filter is filtered here.
        let few = Query { max_cloud: Some(5.0), ..all.clone() };
        assert_eq!(stac.search(&few).unwrap().len(), 6, "{path}");
        let orbit = Query { relative_orbit: Some(38), ..all.clone() };
        assert_eq!(stac.search(&orbit).unwrap().len(), 0, "{path}");
        let elsewhere = area_of_bbox([1.0, 1.0, 2.0, 2.0]).unwrap();
        assert_eq!(stac.search(&Query { area: Some(elsewhere), ..all.clone() }).unwrap().len(), 0, "{path}");
    }
    let l1c = query(Level::L1C, "2020-02-01", "2020-02-29");
    let l1c = Query { tiles: vec!["29RKH".to_owned()], ..l1c };
    let text = Stac::earth_search(&site.client).search(&l1c).unwrap_err().to_string();
    assert!(text.contains("ask cdse"), "{text}");
}

/// Serves recorded answers of a STAC catalogue.
fn recorded(stac: impl Fn(&Client) -> Stac, path: &Path) -> Vec<Item> {
    let site = Site::new();
    let answer: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let features = answer["features"].as_array().cloned().unwrap_or_else(|| vec![answer.clone()]);
    site.server.lock().features = features;
    let stac = stac(&site.client).at(&site.server.at("/es"));
    let world = area_of_bbox([-89.0, -80.0, 89.0, 80.0]).unwrap();
    let west = area_of_bbox([-179.0, -80.0, -1.0, 80.0]).unwrap();
    let mut items = Vec::new();
    for area in [world, west] {
        let all = Query { area: Some(area), ..query(Level::L2A, "2015-01-01", "2030-01-01") };
        items.extend(stac.search(&all).unwrap());
    }
    items.sort_by(|a, b| a.id.cmp(&b.id));
    items.dedup_by(|a, b| a.id == b.id);
    items
}

#[test]
fn recorded_answers_of_catalogues_are_understood() {
    let Some(folder) = shared() else { return };
    let folder = folder.join("api_fixtures");
    let urls = |item: &Item| item.assets.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let images = "B01_60m B02_10m B03_10m B04_10m B05_20m B06_20m B07_20m B08_10m B8A_20m B09_60m B11_20m B12_20m SCL_20m";

    let items = recorded(
        Stac::earth_search_c1,
        &folder.join("rustac/crates/server/data/sentinel-2/item-collection.json"),
    );
    assert_eq!(items.len(), 10);
    let item = items.iter().find(|item| item.id == "S2A_T13TDE_20240422T174753_L2A").unwrap();
    assert_eq!(item.product, "S2A_MSIL2A_20240422T173911_N0510_R098_T13TDE_20240423T004950");
    assert_eq!((urls(item).as_str(), item.offset, item.cloud_cover), (images, Some(-1000), Some(81.344_962)));
    let red = item.assets.iter().find(|(key, _)| key.to_string() == "B04_10m").unwrap().1;
    assert_eq!((red.size, red.checksums[0].algorithm), (Some(50_135_369), Algorithm::Sha256));
    assert!(red.url.ends_with("S2A_T13TDE_20240422T174753_L2A/B04.tif"), "{}", red.url);

    let items =
        recorded(Stac::planetary_computer, &folder.join("rustac/crates/core/data/two-sentinel-2-items.json"));
    assert_eq!(items.len(), 2);
    assert_eq!((urls(&items[0]).as_str(), items[0].offset), (images, Some(-1000)));
    let signed = items[0].assets.values().next().unwrap().signed_by.clone().unwrap();
    assert!(signed.ends_with("/sas/token/sentinel2l2a01/sentinel2-l2"), "{signed}");
    let old = folder.join("odc_stac_planetary/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json");
    let old = recorded(Stac::planetary_computer, &old);
    assert_eq!((old[0].offset, old[0].name.baseline.unwrap().to_string().as_str()), (Some(0), "02.12"));

    // The pixels of Earth Search's first collection have lost their offset, whatever is written beside them.
    let cassette = std::fs::read_to_string(
        folder.join("pystac_client_vcr/test_item_search/test_multiple_collections.yaml"),
    );
    let cassette = cassette.unwrap();
    assert!(cassette.contains("\"earthsearch:boa_offset_applied\":true"), "the recording has the flag");

    let site = Site::new();
    let answer = std::fs::read(folder.join("eodag/provider_responses/cop_dataspace_search.json")).unwrap();
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    answer["@odata.nextLink"] = Value::Null;
    site.server
        .lock()
        .files
        .insert("/recorded/odata/v1/Products".into(), Arc::new(answer.to_string().into_bytes()));
    let odata =
        OData::at(&site.client, &site.server.at("/recorded"), "https://download.dataspace.copernicus.eu");
    let all = Query { tiles: vec!["54PXA".to_owned()], ..query(Level::L1C, "2020-08-08", "2020-08-08") };
    let items = odata.search(&all).unwrap();
    let item = items.iter().find(|item| item.id == "05edf2bb-d103-49f1-a677-9e474138d84f").unwrap();
    assert_eq!(item.product, "S2A_MSIL1C_20200808T010311_N0500_R045_T54PXA_20230413T212505");
    assert!(
        item.online && item.cloud_cover.is_some_and(|cloud| (cloud - 95.136_736).abs() < 1e-5),
        "{item:?}"
    );
    let archive = item.archive.as_ref().unwrap();
    assert_eq!(
        archive.checksums.iter().map(|sum| sum.algorithm).collect::<Vec<_>>(),
        [Algorithm::Md5, Algorithm::Blake3]
    );
    assert!(
        archive.url.starts_with("https://download.dataspace.copernicus.eu/odata/v1/Products(05edf2bb"),
        "{archive:?}"
    );
    assert_eq!(item.footprint.0.len(), 1, "the footprint is read");
    assert_eq!(best(items.clone(), None).len(), best(items, all.area.as_ref()).len());
}
