//! The boxes of a JP2 file (ISO/IEC 15444-1 Annex I) and of its georeference (GMLJP2, `GeoJP2`).

use std::borrow::Cow;
use std::ops::Range;

use crate::source::Data;
use crate::{Error, Result};

const SIGNATURE: [u8; 12] = *b"\x00\x00\x00\x0cjP  \r\n\x87\n";
const CODESTREAM: [u8; 4] = *b"\xff\x4f\xff\x51";
/// Identifier of the `GeoJP2` box, a `GeoTIFF` of one pixel.
const GEOJP2: [u8; 16] = *b"\xb1\x4b\xf8\xbd\x08\x3d\x4b\x43\xa5\xae\x8c\xd7\xd5\xa6\xce\x03";
/// GMLJP2 needs three levels of boxes.
const MAX_DEPTH: usize = 8;
/// Bytes that tell what data are.
const HEAD: usize = 4096;

/// What the boxes of a file hold. `codestream` may end beyond the data when these are truncated.
pub(crate) struct Boxes<'a> {
    pub(crate) codestream: Range<usize>,
    pub(crate) gml: Option<Cow<'a, str>>,
    pub(crate) geojp2: Option<Cow<'a, [u8]>>,
}

impl<'a> Boxes<'a> {
    pub(crate) fn parse(data: Data<'a>) -> Result<Self> {
        let head = data.get(0..data.len().min(HEAD))?.unwrap_or_default();
        if starts_like(&head, &CODESTREAM) {
            return Ok(Self { codestream: 0..data.len(), gml: None, geojp2: None });
        }
        if !starts_like(&head, &SIGNATURE) {
            return Err(Error::NotJpeg2000 { found: looks_like(&head) });
        }
        let (mut codestream, mut gml, mut geojp2) = (None, None, None);
        let mut at = 0;
        while at < data.len() {
            let part = Box::read(data, at..data.len())?;
            at = part.body.end;
            if part.kind == *b"jp2c" {
                codestream.get_or_insert(part.body);
                continue;
            }
            if at > data.len() {
                return Err(truncated(data));
            }
            let identified = part.body.start + GEOJP2.len();
            match &part.kind {
                b"jp2h" => refuse_palette(data, part.body)?,
                b"asoc" if gml.is_none() => gml = find_gml(data, part.body, MAX_DEPTH)?,
                b"uuid"
                    if geojp2.is_none()
                        && identified <= at
                        && data.get(part.body.start..identified)?.is_some_and(|id| *id == GEOJP2) =>
                {
                    geojp2 = data.get(identified..at)?;
                }
                _ => {}
            }
        }
        Ok(Self { codestream: codestream.ok_or_else(|| truncated(data))?, gml, geojp2 })
    }
}

/// Header of a box: its four-letter type and where its content lies.
struct Box {
    kind: [u8; 4],
    body: Range<usize>,
}

impl Box {
    /// The box at the start of `range`. Its body may end beyond the data, but at the top level only.
    fn read(data: Data<'_>, range: Range<usize>) -> Result<Self> {
        let at = range.start;
        let bytes = |from: usize, to: usize| data.get(at + from..at + to)?.ok_or_else(|| truncated(data));
        let kind = bytes(4, 8)?.as_ref().try_into().unwrap_or_default();
        // I.4: 1 means that a 64-bit length follows the type, 0 that the box is the last one.
        let (header, length) = match be(&bytes(0, 4)?) {
            0 => (8, (range.end - at) as u64),
            1 => (16, be(&bytes(8, 16)?)),
            length => (8, length),
        };
        let end = usize::try_from(length).ok().filter(|&l| l >= header).and_then(|l| at.checked_add(l));
        let end =
            end.ok_or_else(|| Error::Damaged { offset: at, what: format!("a box of {length} bytes") })?;
        if end > range.end && range.end < data.len() {
            return Err(Error::Damaged {
                offset: at,
                what: "a box that leaves the box around it".to_owned(),
            });
        }
        Ok(Self { kind, body: at + header..end })
    }
}

/// Samples that are indices of colours would be taken for measurements.
fn refuse_palette(data: Data<'_>, header: Range<usize>) -> Result<()> {
    let mut at = header.start;
    while at < header.end {
        let part = Box::read(data, at..header.end)?;
        at = part.body.end;
        if part.kind == *b"pclr" {
            return Err(Error::Unsupported { feature: "a palette (pclr box)".to_owned() });
        }
    }
    Ok(())
}

/// The first XML box in nested association boxes. GMLJP2 holds exactly one instance document of that kind; schemas
/// would follow it.
fn find_gml(data: Data<'_>, range: Range<usize>, depth: usize) -> Result<Option<Cow<'_, str>>> {
    let mut at = range.start;
    while depth > 0 && at < range.end {
        let part = Box::read(data, at..range.end)?;
        at = part.body.end;
        if part.kind == *b"asoc" {
            if let Some(gml) = find_gml(data, part.body, depth - 1)? {
                return Ok(Some(gml));
            }
        } else if part.kind == *b"xml " {
            let offset = part.body.start;
            let text = data.get(part.body)?.ok_or_else(|| truncated(data))?;
            let not_utf8 = || Error::Damaged { offset, what: "a GML box that is not UTF-8".to_owned() };
            return Ok(Some(match text {
                Cow::Borrowed(text) => {
                    let text = std::str::from_utf8(text).map_err(|_| not_utf8())?;
                    Cow::Borrowed(text.trim_end_matches('\0'))
                }
                Cow::Owned(text) => {
                    let text = String::from_utf8(text).map_err(|_| not_utf8())?;
                    Cow::Owned(text.trim_end_matches('\0').to_owned())
                }
            }));
        }
    }
    Ok(None)
}

/// Big-endian number of up to 8 bytes.
pub(crate) fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn truncated(data: Data<'_>) -> Error {
    Error::Truncated { offset: data.len(), whole_tiles: 0, tiles: 0 }
}

/// Whether the data begin like this, as far as they go.
fn starts_like(data: &[u8], magic: &[u8]) -> bool {
    !data.is_empty() && data.iter().zip(magic).all(|(a, b)| a == b)
}

fn looks_like(data: &[u8]) -> String {
    let text = data.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let known: [(&[u8], &str); 9] = [
        (b"II*\0", "a TIFF"),
        (b"MM\0*", "a TIFF"),
        (b"II+\0", "a BigTIFF"),
        (b"MM\0+", "a BigTIFF"),
        (b"PK", "a zip archive"),
        (b"\x89PNG", "a PNG"),
        (b"\xff\xd8\xff", "a JPEG"),
        (b"<", "HTML or XML"),
        (b"{", "JSON"),
    ];
    if data.is_empty() {
        return "it is empty".to_owned();
    }
    if data.iter().all(|&byte| byte == 0) {
        return "it holds only zeros".to_owned();
    }
    match known
        .iter()
        .find(|(magic, _)| data.starts_with(magic) || (magic.len() == 1 && text.starts_with(magic)))
    {
        Some((_, name)) => format!("it looks like {name}"),
        None => format!("it begins with {:02x?}", &data[..data.len().min(8)]),
    }
}
