//! Files in object stores and on HTTP servers, read range by range.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, coalesce_ranges};
use s2_jp2::Source;
use tokio::runtime::{Builder, Runtime};

/// The first request reads so much: the directories of a COG of a tile with overviews.
pub(crate) const HEAD: u64 = 32 << 10;
/// Ranges this close together are one request: it costs less to read on than to ask again.
pub(crate) const GAP: u64 = 32 << 10;
/// Ranges that a reader asks for at once, so that there is something to merge.
const AT_ONCE: usize = 16;

/// A file in an object store or on an HTTP server, of which ranges are read: a [`Source`] for
/// [`GeoTiff::from_source`](crate::GeoTiff::from_source) and [`s2_jp2::Image::open`].
///
/// Opening it is one request, which brings the start of the file along: for a cloud optimized GeoTIFF its directories.
/// A window then costs the blocks that it touches; blocks that lie close together are one request, up to ten requests
/// run side by side. A file that is replaced meanwhile is an error where the store tells (`ETag`).
///
/// Its requests run on a thread of this crate, so it can be used inside and outside of an asynchronous runtime; as every
/// [`Source`] it blocks the caller.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use object_store::memory::InMemory;
/// use object_store::{ObjectStoreExt, path::Path};
/// use s2_io::{RemoteFile, Source};
///
/// let store = Arc::new(InMemory::new());
/// let path = Path::from("tiles/29RKH.bin");
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(store.put(&path, vec![7; 100_000].into()))?;
/// let file = RemoteFile::open(store, &path)?;
/// assert_eq!(file.length()?, 100_000);
/// assert_eq!(file.read_ranges(&[5..7, 99_999..100_000])?, [vec![7, 7], vec![7]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RemoteFile {
    ranges: Box<dyn Ranges>,
    length: u64,
    head: Vec<u8>,
    /// Where the last small read lay, and what is around it: directories are read by many of them.
    page: Mutex<(u64, Vec<u8>)>,
}

/// Where the ranges of a file come from.
pub(crate) trait Ranges: fmt::Debug + Send + Sync {
    /// The bytes of ranges that lie in the file, in their order, for as few requests as is sensible.
    fn get(&self, ranges: Vec<Range<u64>>) -> io::Result<Vec<Vec<u8>>>;
}

impl RemoteFile {
    /// Asks for the start of a file, which also tells its length.
    ///
    /// # Errors
    ///
    /// There is no such file, it is empty, or the store cannot be reached.
    pub fn open(store: Arc<dyn ObjectStore>, path: &Path) -> io::Result<Self> {
        let range = Some(GetRange::Bounded(0..HEAD));
        let (asked, at) = (Arc::clone(&store), path.clone());
        let (meta, head) = wait(async move {
            let answer = asked.get_opts(&at, GetOptions { range, ..GetOptions::default() }).await?;
            let meta = answer.meta.clone();
            Ok((meta, answer.bytes().await?))
        })?;
        let ranges = StoredFile { store, path: path.clone(), e_tag: meta.e_tag };
        Ok(Self::with(Box::new(ranges), meta.size, head.into()))
    }

    /// A file of which the start was read.
    pub(crate) fn with(ranges: Box<dyn Ranges>, length: u64, head: Vec<u8>) -> Self {
        Self { ranges, length, head, page: Mutex::default() }
    }

    /// Checks that a range lies in the file.
    fn check(&self, range: &Range<u64>) -> io::Result<()> {
        if range.start <= range.end && range.end <= self.length {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[derive(Debug)]
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    e_tag: Option<String>,
}

impl Ranges for StoredFile {
    fn get(&self, ranges: Vec<Range<u64>>) -> io::Result<Vec<Vec<u8>>> {
        let (store, path, if_match) = (Arc::clone(&self.store), self.path.clone(), self.e_tag.clone());
        let answers = wait(async move {
            let one = |range: Range<u64>| {
                let (store, path, if_match) = (Arc::clone(&store), path.clone(), if_match.clone());
                async move {
                    let range = Some(GetRange::Bounded(range));
                    let options = GetOptions { range, if_match, ..GetOptions::default() };
                    store.get_opts(&path, options).await?.bytes().await
                }
            };
            coalesce_ranges(&ranges, one, GAP).await
        })?;
        Ok(answers.into_iter().map(Vec::from).collect())
    }
}

impl Source for RemoteFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset.saturating_add(buffer.len() as u64);
        self.check(&range)?;
        let inside = |from: u64, bytes: &[u8]| {
            let start = usize::try_from(offset.checked_sub(from)?).ok()?;
            bytes.get(start..)?.get(..buffer.len()).map(<[u8]>::to_vec)
        };
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match inside(0, &self.head).or_else(|| inside(page.0, &page.1)) {
            Some(bytes) => bytes,
            None => {
                let whole = offset..range.end.max(offset.saturating_add(GAP)).min(self.length);
                let answer = self.ranges.get(vec![whole])?;
                let bytes = answer.into_iter().next().unwrap_or_default();
                let wanted = bytes.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
                *page = (offset, bytes);
                wanted
            }
        };
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Vec<u8>>> {
        ranges.iter().try_for_each(|range| self.check(range))?;
        let wanted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        let mut answers = if wanted.is_empty() { Vec::new() } else { self.ranges.get(wanted)? }.into_iter();
        let answer = |range: &Range<u64>| {
            let bytes = if range.is_empty() { Vec::new() } else { answers.next().unwrap_or_default() };
            if bytes.len() as u64 == range.end - range.start {
                Ok(bytes)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        };
        ranges.iter().map(answer).collect()
    }

    fn ranges_at_once(&self) -> usize {
        AT_ONCE
    }
}

/// The thread that runs the requests of this crate.
pub(crate) fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let start = || Builder::new_multi_thread().worker_threads(1).thread_name("s2-io").enable_all().build();
    RUNTIME.get_or_init(start).as_ref().map_err(|error| io::Error::other(error.to_string()))
}

/// Runs a request on the thread of this crate and waits for its answer.
pub(crate) fn wait<T: Send + 'static>(
    request: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    runtime()?.spawn(async move { sender.send(request.await) });
    let answer = receiver.recv().map_err(|_| io::Error::other("the request was given up"))?;
    answer.map_err(|error| match error {
        object_store::Error::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, error),
        error => io::Error::other(error),
    })
}
