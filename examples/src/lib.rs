//! The steps that the programs are made of: each composes the crates, none knows an algorithm of its own.
//!
//! ```text
//! download: place and days ─► archive/*.SAFE.zip, or stacks of the area
//! stages:  archives ─► L1C ─► Sen2Cor ─► L2A ─► stacks, in a work folder
//! prepare: SAFE product ─► stack.tif (10 bands + SCL, u16) + statistics.json
//! train:   stacks or chips + truth ─► model/
//! predict: stack + model ─► probability.tif, mask.tif, mines.geojson
//! evaluate: truth + probability ─► scores
//! ```

pub mod cli;
pub mod device;
pub mod download;
pub mod evaluate;
pub mod input;
pub mod predict;
pub mod prepare;
pub mod quicklook;
pub mod scene;
pub mod stages;
pub mod status;
pub mod train;
pub mod work;
