//! Where the bytes of an image come from.

use std::borrow::Cow;
#[cfg(any(unix, windows))]
use std::fs::File;
use std::io;
use std::ops::Range;

use crate::{Error, Result};

/// Bytes that are read piece by piece: a file, a range of one, or something on the network.
///
/// [`Image::open`](crate::Image::open) reads the headers, and decoding a window the tiles that it touches.
pub trait Source: Send + Sync {
    /// Number of bytes.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    fn length(&self) -> io::Result<u64>;

    /// Reads as many bytes as `buffer` holds, from `offset` on.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or there are fewer.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Reads several ranges. A source for which every read is a round trip merges neighbours and asks for the others
    /// side by side; here they are read one after the other.
    ///
    /// # Errors
    ///
    /// As [`read_exact_at`](Self::read_exact_at).
    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Vec<u8>>> {
        let read = |range: &Range<u64>| {
            let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
            let mut bytes = vec![0; length];
            self.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes)
        };
        ranges.iter().map(read).collect()
    }

    /// How many ranges a reader with many of them should ask for at once: 1 where a read costs next to nothing, so that
    /// its threads need not wait for each other.
    fn ranges_at_once(&self) -> usize {
        1
    }
}

#[cfg(any(unix, windows))]
impl Source for File {
    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    #[cfg(unix)]
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(self, buffer, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }
}

impl Source for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(start..).and_then(|bytes| bytes.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The bytes of an image.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    Slice(&'a [u8]),
    Source(&'a dyn Source, usize),
}

impl<'a> Data<'a> {
    pub(crate) fn open(source: &'a dyn Source) -> Result<Self> {
        let length = source.length().map_err(|source| Error::Read { offset: 0, source })?;
        Ok(Self::Source(source, usize::try_from(length).unwrap_or(usize::MAX)))
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::Slice(bytes) => bytes.len(),
            Self::Source(_, length) => length,
        }
    }

    /// These bytes, or `None` if they are not all there.
    pub(crate) fn get(self, range: Range<usize>) -> Result<Option<Cow<'a, [u8]>>> {
        if range.start > range.end || range.end > self.len() {
            return Ok(None);
        }
        match self {
            Self::Slice(bytes) => Ok(bytes.get(range).map(Cow::Borrowed)),
            Self::Source(source, _) => {
                let mut bytes = vec![0; range.len()];
                let read = source.read_exact_at(&mut bytes, range.start as u64);
                read.map_err(|source| Error::Read { offset: range.start, source })?;
                Ok(Some(Cow::Owned(bytes)))
            }
        }
    }
}
