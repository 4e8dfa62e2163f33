//! The boxes of a JP2 file (ISO/IEC 15444-1 Annex I) and of its georeference (GMLJP2, `GeoJP2`).

use std::ops::Range;

use crate::{Error, Result};

const SIGNATURE: [u8; 12] = *b"\x00\x00\x00\x0cjP  \r\n\x87\n";
const CODESTREAM: [u8; 4] = *b"\xff\x4f\xff\x51";
/// Identifier of the `GeoJP2` box, a `GeoTIFF` of one pixel.
const GEOJP2: [u8; 16] = *b"\xb1\x4b\xf8\xbd\x08\x3d\x4b\x43\xa5\xae\x8c\xd7\xd5\xa6\xce\x03";
/// GMLJP2 needs three levels of boxes.
const MAX_DEPTH: usize = 8;

/// What the boxes of a file hold. `codestream` may end beyond the data when these are truncated.
pub(crate) struct Boxes<'a> {
    pub(crate) codestream: Range<usize>,
    pub(crate) gml: Option<&'a str>,
    pub(crate) geojp2: Option<&'a [u8]>,
}

impl<'a> Boxes<'a> {
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self> {
        if starts_like(data, &CODESTREAM) {
            return Ok(Self { codestream: 0..data.len(), gml: None, geojp2: None });
        }
        if !starts_like(data, &SIGNATURE) {
            return Err(Error::NotJpeg2000 { found: looks_like(data) });
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
            let body = data.get(part.body.clone()).ok_or_else(|| truncated(data))?;
            match &part.kind {
                b"asoc" if gml.is_none() => gml = find_gml(data, part.body, MAX_DEPTH)?,
                b"uuid" if body.starts_with(&GEOJP2) => geojp2 = geojp2.or(Some(&body[GEOJP2.len()..])),
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
    fn read(data: &[u8], range: Range<usize>) -> Result<Self> {
        let at = range.start;
        let bytes = |from: usize, to: usize| data.get(at + from..at + to).ok_or_else(|| truncated(data));
        let kind = bytes(4, 8)?.try_into().unwrap_or_default();
        // I.4: 1 means that a 64-bit length follows the type, 0 that the box is the last one.
        let (header, length) = match be(bytes(0, 4)?) {
            0 => (8, (range.end - at) as u64),
            1 => (16, be(bytes(8, 16)?)),
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

/// The first XML box in nested association boxes. GMLJP2 holds exactly one instance document of that kind; schemas
/// would follow it.
fn find_gml(data: &[u8], range: Range<usize>, depth: usize) -> Result<Option<&str>> {
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
            let text = data.get(part.body).ok_or_else(|| truncated(data))?;
            let text = std::str::from_utf8(text)
                .map_err(|_| Error::Damaged { offset, what: "a GML box that is not UTF-8".to_owned() })?;
            return Ok(Some(text.trim_end_matches('\0')));
        }
    }
    Ok(None)
}

/// Big-endian number of up to 8 bytes.
pub(crate) fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn truncated(data: &[u8]) -> Error {
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
