#![doc = include_str!("../README.md")]

mod affine;
mod area;
mod error;
mod files;
mod polygonize;
mod rasterize;
mod reproject;

pub use area::{area_ha_geodesic, area_ha_utm};
pub use error::{Error, Result};
pub use files::{Feature, FeatureCollection, read_geojson, write_geojson};
pub use geo_types;
pub use ndarray;
pub use polygonize::polygonize;
pub use rasterize::rasterize;
pub use reproject::{Utm, to_lonlat, to_utm};
pub use serde_json;
