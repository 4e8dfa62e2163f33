//! Windows of remote images: a small area for the price of the blocks that it touches.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, Axis};
use object_store::coalesce_ranges;

use super::{AssetKey, Downloader, Error, Item, Remote, Result};
use crate::remote::{GAP, HEAD, Ranges, RemoteFile, runtime};
use crate::safe::stack::{around, double};
use crate::{GeoTiff, Grid, Layer, Raster, Window};

/// Images that are read side by side: their requests overlap.
const LAYERS_AT_ONCE: usize = 4;

/// The images of an item, cloud optimized GeoTIFFs on a server, read window by window.
///
/// Opening an image is one request for its first 32 KiB; a window then costs the blocks that it touches, of which
/// neighbours come in one request.
///
/// # Examples
///
/// ```no_run
/// use s2_io::net::{Catalog, Client, Downloader, Query, RemoteProduct, RetryPolicy, Stac};
/// use s2_io::{Band, Layer, Level, Window};
/// # fn upsample_bilinear(dn: s2_io::ndarray::ArrayView2<'_, u16>) -> s2_io::ndarray::Array2<u16> { dn.to_owned() }
///
/// let client = Client::new(RetryPolicy::default())?;
/// let mut query = Query::new(Level::L2A, "2024-01-01".parse().unwrap(), "2024-01-31".parse().unwrap());
/// query.tiles = vec!["29RKH".to_owned()];
/// let items = Stac::earth_search(&client).search(&query)?;
/// let product = RemoteProduct::new(&Downloader::new(&client), &items[0]);
/// let window = Window { row: 388, col: 776, height: 572, width: 572 };
/// let stack = product.read_stack(&[Layer::Band(Band::B04), Layer::Scl], window, upsample_bilinear)?;
/// assert_eq!(stack.data.dim(), (2, 572, 572));
/// # Ok::<(), s2_io::net::Error>(())
/// ```
#[derive(Debug)]
pub struct RemoteProduct {
    downloader: Downloader,
    id: String,
    assets: BTreeMap<AssetKey, Remote>,
    opened: Mutex<BTreeMap<AssetKey, Arc<GeoTiff>>>,
}

impl RemoteProduct {
    /// The images of an item; nothing is asked for yet.
    #[must_use]
    pub fn new(downloader: &Downloader, item: &Item) -> Self {
        Self {
            downloader: downloader.clone(),
            id: item.id.clone(),
            assets: item.assets.clone(),
            opened: Mutex::default(),
        }
    }

    /// The grid of 10 m, read from the first image of that resolution: catalogues are wrong now and then.
    ///
    /// # Errors
    ///
    /// There is no such image, or it cannot be read.
    pub fn grid(&self) -> Result<Grid> {
        let key = self.assets.keys().find(|key| key.resolution_m == 10);
        let key = key.ok_or_else(|| Error::query(format!("{} has no image of 10 m", self.id)))?;
        Ok(*self.image(*key)?.grid())
    }

    /// Reads a window of layers of 10 and 20 m on the grid of 10 m; as [`Product::read_stack`](crate::Product::read_stack).
    ///
    /// # Shapes
    ///
    /// - `window`: in pixels of 10 m
    /// - `upsample`: from `[rows, columns]` to `[2 * rows, 2 * columns]`
    /// - raster: `[layer, row, column]`, DN as stored (see [`Item::offset`]) or classes, nodata 0
    ///
    /// # Errors
    ///
    /// A layer is missing or no GeoTIFF of whole numbers, the window leaves it, the grids do not fit together, or the
    /// service fails.
    ///
    /// # Panics
    ///
    /// When `upsample` returns another shape.
    pub fn read_stack(
        &self,
        layers: &[Layer],
        window: Window,
        upsample: impl Fn(ArrayView2<'_, u16>) -> Array2<u16> + Sync,
    ) -> Result<Raster<u16>> {
        let grid = self.grid()?;
        let mut data = Array3::default((layers.len(), window.height, window.width));
        for (layers, mut planes) in
            layers.chunks(LAYERS_AT_ONCE).zip(data.axis_chunks_iter_mut(Axis(0), LAYERS_AT_ONCE))
        {
            std::thread::scope(|scope| {
                let work = |(layer, plane)| {
                    let (grid, upsample) = (&grid, &upsample);
                    scope.spawn(move || self.read_layer(layer, grid, window, upsample, plane))
                };
                let threads: Vec<_> = layers.iter().copied().zip(planes.outer_iter_mut()).map(work).collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                // All are waited for, then the first failure counts.
                threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect::<Result<()>>()
            })?;
        }
        Ok(Raster { data, grid: grid.window(window), nodata: Some(0.0) })
    }

    fn read_layer(
        &self,
        layer: Layer,
        fine: &Grid,
        window: Window,
        upsample: &(impl Fn(ArrayView2<'_, u16>) -> Array2<u16> + Sync),
        mut out: ArrayViewMut2<'_, u16>,
    ) -> Result<()> {
        let at = |resolution_m| AssetKey { layer, resolution_m };
        if self.assets.contains_key(&at(10)) {
            let image = self.image(at(10))?;
            self.same_place(at(10), image.grid(), fine, 1)?;
            out.assign(&samples(&image, window)?.index_axis(Axis(0), 0));
            return Ok(());
        }
        let image = self.image(at(20))?;
        self.same_place(at(20), image.grid(), fine, 2)?;
        let coarse = around(window, image.grid());
        let dn = samples(&image, coarse)?;
        double(layer, dn.index_axis(Axis(0), 0), coarse, window, upsample, out.view_mut());
        Ok(())
    }

    /// Checks that an image lies on the grid of 10 m, or on that of 20 m over it.
    fn same_place(&self, key: AssetKey, grid: &Grid, fine: &Grid, factor: usize) -> Result<()> {
        let size = (fine.height.div_ceil(factor), fine.width.div_ceil(factor));
        let corner = |grid: &Grid| (grid.transform[0], grid.transform[3], grid.epsg);
        if (grid.height, grid.width) == size && corner(grid) == corner(fine) {
            return Ok(());
        }
        Err(Error::Answer {
            url: self.assets.get(&key).map_or_else(|| self.id.clone(), |remote| remote.url.clone()),
            problem: format!(
                "its {} x {} pixels do not lie over those of 10 m of {}",
                grid.height, grid.width, self.id
            ),
        })
    }

    fn image(&self, key: AssetKey) -> Result<Arc<GeoTiff>> {
        let known = || self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(image) = known() {
            return Ok(image);
        }
        let missing = || Error::query(format!("{} has no image {key}", self.id));
        let remote = self.assets.get(&key).ok_or_else(missing)?;
        let name = remote.url.split('?').next().unwrap_or_default();
        if Path::new(name).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jp2")) {
            let problem = format!(
                "{name} is JPEG 2000, of which no window can be read over a network for little: take the whole product"
            );
            return Err(Error::query(problem));
        }
        let image = GeoTiff::from_source(name, Arc::new(open(&self.downloader, remote)?))?;
        let image = Arc::new(image);
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&image));
        Ok(image)
    }
}

/// Opens a file for reading ranges of it.
fn open(downloader: &Downloader, remote: &Remote) -> Result<RemoteFile> {
    let (head, length, version) = downloader.range(remote, 0..HEAD, None)?;
    let ranges = HttpFile { downloader: downloader.clone(), remote: Arc::new(remote.clone()), version };
    Ok(RemoteFile::with(Box::new(ranges), length, head))
}

fn samples(image: &GeoTiff, window: Window) -> Result<Array3<u16>> {
    // SCL and masks have bytes.
    Ok(match image.sample_type() {
        crate::SampleType::U8 => image.read_window::<u8>(window)?.data.mapv(u16::from),
        _ => image.read_window::<u16>(window)?.data,
    })
}

struct HttpFile {
    downloader: Downloader,
    remote: Arc<Remote>,
    version: Option<String>,
}

impl fmt::Debug for HttpFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFile").field("url", &self.remote.url).finish_non_exhaustive()
    }
}

impl Ranges for HttpFile {
    fn get(&self, ranges: Vec<Range<u64>>) -> io::Result<Vec<Vec<u8>>> {
        let (downloader, remote, version) =
            (self.downloader.clone(), Arc::clone(&self.remote), self.version.clone());
        let work = async move {
            let one = |range: Range<u64>| {
                let (downloader, remote, version) =
                    (downloader.clone(), Arc::clone(&remote), version.clone());
                async move {
                    let work = move || downloader.range(&remote, range, version.as_deref());
                    match tokio::task::spawn_blocking(work).await {
                        Ok(Ok((bytes, ..))) => Ok(bytes.into()),
                        Ok(Err(error)) => Err(io::Error::other(error)),
                        Err(_) => Err(io::Error::other("the request was given up")),
                    }
                }
            };
            coalesce_ranges(&ranges, one, GAP).await
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        runtime()?.spawn(async move {
            let _ = sender.send(work.await);
        });
        let answers = receiver.recv().map_err(|_| io::Error::other("the request was given up"))??;
        Ok(answers.into_iter().map(Vec::from).collect())
    }
}
