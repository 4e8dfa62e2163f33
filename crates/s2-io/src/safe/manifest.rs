//! `manifest.safe`: the files of a product with their sizes and checksums (XFDU, CCSDS 661.0-B-1).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::source::is_inside;
use crate::xml::Element;
use crate::{Algorithm, Checksum, Error, Result};

pub(super) const NAME: &str = "manifest.safe";
/// Those of one tile have some 90 KB, those of old products with many granules some megabytes.
pub(super) const MAX_SIZE: u64 = 16 << 20;

/// A file that a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Path relative to the product, with `/` between its parts.
    pub(super) file: String,
    pub(super) size: u64,
    /// `None` where the manifest gives none, or one of an algorithm that is not known.
    pub(super) checksum: Option<Checksum>,
}

/// The files of a manifest, each once, in its order; `path` names it in errors.
pub(super) fn parse(path: &Path, document: &[u8]) -> Result<Vec<Listed>> {
    let wrong = |element: &str, value: Option<&str>| Error::Metadata {
        path: path.to_owned(),
        element: element.to_owned(),
        value: value.map(str::to_owned),
    };
    let root = Element::parse(path, document)?;
    let mut files: Vec<Listed> = Vec::new();
    let mut known = HashMap::new();
    for object in root.find_all("dataObject") {
        object.find("byteStream").ok_or_else(|| wrong("byteStream of a dataObject", None))?;
        for stream in object.find_all("byteStream") {
            let href = stream.find("fileLocation").and_then(|location| location.attribute("href"));
            let href = href.ok_or_else(|| wrong("href of a fileLocation", None))?;
            if !is_inside(href) {
                return Err(Error::UnsafePath { path: path.to_owned(), member: href.to_owned() });
            }
            let parts: Vec<_> = href.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            if parts.is_empty() {
                return Err(wrong("href of a fileLocation", Some(href)));
            }
            let size = stream.attribute("size").ok_or_else(|| wrong(&format!("size of {href}"), None))?;
            let listed = Listed {
                file: parts.join("/"),
                size: size.trim().parse().map_err(|_| wrong(&format!("size of {href}"), Some(size)))?,
                checksum: checksum(stream)
                    .map_err(|value| wrong(&format!("checksum of {href}"), Some(value)))?,
            };
            match known.entry(listed.file.clone()) {
                Entry::Vacant(place) => {
                    place.insert(files.len());
                    files.push(listed);
                }
                Entry::Occupied(place) if files[*place.get()] == listed => {}
                Entry::Occupied(_) => {
                    return Err(wrong("dataObject", Some(&format!("{href}, twice and differently"))));
                }
            }
        }
    }
    if files.is_empty() {
        return Err(wrong("dataObject", None));
    }
    Ok(files)
}

/// The first checksum of an algorithm that is known. What is not one of that algorithm comes back as the error.
fn checksum(stream: &Element) -> Result<Option<Checksum>, &str> {
    for element in stream.find_all("checksum") {
        if let Some(algorithm) = element.attribute("checksumName").and_then(Algorithm::from_name) {
            let hex = element.text.trim();
            return Checksum::from_hex(algorithm, hex).map(Some).ok_or(hex);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_objects(objects: &str) -> Result<Vec<Listed>, String> {
        let text = format!("<x:XFDU xmlns:x='u'><dataObjectSection>{objects}</dataObjectSection></x:XFDU>");
        parse(Path::new(NAME), text.as_bytes()).map_err(|error| error.to_string())
    }

    fn object(href: &str, size: &str, checksum: &str) -> String {
        format!(
            "<dataObject ID='a'><byteStream size='{size}'><fileLocation href='{href}' locatorType='URL'/>{checksum}\
             </byteStream></dataObject>"
        )
    }

    const MD5: &str = "<checksum checksumName='MD5'> 900150983CD24FB0D6963F7D28E17F72\n</checksum>";

    #[test]
    fn hrefs_sizes_and_checksums_are_read_in_order() {
        let unknown = "<checksum checksumName='CRC64'>00</checksum>";
        let objects = [
            object("./B/./x.jp2", " 12 ", MD5),
            object("a.xml", "0", unknown),
            object("b.xml", "1", &format!("{unknown}{MD5}")),
            object("B//x.jp2", "12", MD5),
        ];
        let files = parse_objects(&objects.concat()).unwrap();
        let md5 = Checksum::from_hex(Algorithm::Md5, "900150983cd24fb0d6963f7d28e17f72");
        let expected = [("B/x.jp2", 12, md5.clone()), ("a.xml", 0, None), ("b.xml", 1, md5)]
            .map(|(file, size, checksum)| Listed { file: file.to_owned(), size, checksum });
        assert_eq!(files, expected, "the same file twice counts once");
    }

    #[test]
    fn what_a_manifest_cannot_say_is_refused() {
        let bad_hex = "<checksum checksumName='SHA3-256'>12</checksum>";
        for (objects, message) in [
            (String::new(), "manifest.safe: dataObject is missing"),
            ("<dataObject/>".to_owned(), "manifest.safe: byteStream of a dataObject is missing"),
            (
                "<dataObject><byteStream size='1'/></dataObject>".to_owned(),
                "manifest.safe: href of a fileLocation is missing",
            ),
            (object("./", "1", MD5), "manifest.safe: href of a fileLocation cannot be \"./\""),
            (object("a", "-1", MD5), "manifest.safe: size of a cannot be \"-1\""),
            (object("a", "1", MD5).replace("size=", "length="), "manifest.safe: size of a is missing"),
            (object("a", "1", bad_hex), "manifest.safe: checksum of a cannot be \"12\""),
            (
                object("a", "1", MD5) + &object("./a", "2", MD5),
                "manifest.safe: dataObject cannot be \"./a, twice and differently\"",
            ),
        ] {
            assert_eq!(parse_objects(&objects).unwrap_err(), message);
        }
        for href in ["../a", "/a", "C:/a", "file:///a", "a/../../b", "\\a", "a\\..\\..\\b"] {
            let error = parse_objects(&object(href, "1", MD5)).unwrap_err();
            assert!(error.contains("leads out of the product"), "{href}: {error}");
        }
    }
}
