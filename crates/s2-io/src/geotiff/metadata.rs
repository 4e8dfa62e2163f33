//! The XML of tag 42112 (`GDAL_METADATA`): dataset items, band names, scale and offset.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use quick_xml::XmlVersion;
use quick_xml::escape::{escape, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

/// What GDAL says about a dataset and its bands beside the TIFF tags.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Metadata {
    /// Items of the dataset's default domain.
    pub(super) items: BTreeMap<String, String>,
    /// One name per band, empty where there is none.
    pub(super) band_names: Vec<String>,
    /// `(scale, offset)` of each band; `(1.0, 0.0)` where there is none.
    pub(super) scale_offset: Vec<(f64, f64)>,
}

impl Metadata {
    pub(super) fn new(num_bands: usize) -> Self {
        Self {
            items: BTreeMap::new(),
            band_names: vec![String::new(); num_bands],
            scale_offset: vec![(1.0, 0.0); num_bands],
        }
    }

    /// Reads the XML; items of other domains and of bands that the file does not have are left out.
    pub(super) fn parse(xml: &str, num_bands: usize) -> Result<Self, String> {
        let mut metadata = Self::new(num_bands);
        let mut reader = Reader::from_str(xml);
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) if start.name().as_ref() == "Item" => {
                    let text = reader.read_text(start.name()).map_err(|error| error.to_string())?;
                    let text = unescape(&text).map_err(|error| error.to_string())?;
                    // GDAL escapes values twice; a lone `&` comes from somebody who does it once.
                    metadata.insert(&start, &unescape(&text).unwrap_or(Cow::Borrowed(&*text)))?;
                }
                Event::Eof => return Ok(metadata),
                _ => {}
            }
        }
    }

    fn insert(&mut self, item: &BytesStart<'_>, text: &str) -> Result<(), String> {
        let (mut name, mut role, mut band, mut in_domain) =
            (String::new(), String::new(), None::<usize>, false);
        for attribute in item.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
            match attribute.key.as_ref() {
                "name" => name = value.into_owned(),
                "sample" => band = Some(value.parse().map_err(|_| format!("sample {value:?} is no number"))?),
                "role" => role = value.into_owned(),
                "domain" => in_domain = !value.is_empty(),
                _ => {}
            }
        }
        let number = || text.trim().parse::<f64>().map_err(|_| format!("{role} {text:?} is no number"));
        match band {
            None if !in_domain => {
                self.items.insert(name, text.to_owned());
            }
            Some(band) if band < self.band_names.len() => match role.as_str() {
                "description" => self.band_names[band] = text.to_owned(),
                "scale" => self.scale_offset[band].0 = number()?,
                "offset" => self.scale_offset[band].1 = number()?,
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// The XML, or `None` when there is nothing to say.
    pub(super) fn to_xml(&self) -> Option<String> {
        let mut lines = String::new();
        for (name, value) in &self.items {
            push(&mut lines, &format!("name=\"{}\"", escape(name.as_str())), value);
        }
        for (band, name) in self.band_names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            push(&mut lines, &format!("name=\"DESCRIPTION\" sample=\"{band}\" role=\"description\""), name);
        }
        for (band, (scale, offset)) in self.scale_offset.iter().enumerate() {
            if (*scale, *offset) != (1.0, 0.0) {
                push(
                    &mut lines,
                    &format!("name=\"OFFSET\" sample=\"{band}\" role=\"offset\""),
                    &offset.to_string(),
                );
                push(
                    &mut lines,
                    &format!("name=\"SCALE\" sample=\"{band}\" role=\"scale\""),
                    &scale.to_string(),
                );
            }
        }
        (!lines.is_empty()).then(|| format!("<GDALMetadata>\n{lines}</GDALMetadata>\n"))
    }
}

fn push(lines: &mut String, attributes: &str, text: &str) {
    writeln!(lines, "  <Item {attributes}>{}</Item>", escape(escape(text)))
        .expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_domains_and_foreign_bands_are_left_out() {
        let xml = r#"<GDALMetadata>
            <Item name="A">1 &lt; 2</Item>
            <Item name="LAYOUT" domain="IMAGE_STRUCTURE">COG</Item>
            <Item name="DESCRIPTION" sample="7" role="description">far</Item>
            <Item name="STATISTICS_MEAN" sample="0">12</Item>
            <Item name="DESCRIPTION" sample="1" role="description">B03</Item>
            <Item name="OFFSET" sample="0" role="offset">-0.1</Item>
            <Item name="EMPTY"/>
        </GDALMetadata>"#;
        let metadata = Metadata::parse(xml, 2).unwrap();
        assert_eq!(metadata.items, BTreeMap::from([("A".to_owned(), "1 < 2".to_owned())]));
        assert_eq!(metadata.band_names, ["", "B03"]);
        assert_eq!(metadata.scale_offset, [(1.0, -0.1), (1.0, 0.0)]);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut metadata = Metadata::new(2);
        assert_eq!(metadata.to_xml(), None, "nothing to say");
        metadata.items.insert("a \"b\" <c>".into(), "x & y\n".into());
        metadata.band_names[1] = "B8A é".into();
        metadata.scale_offset[0] = (1e-4, -0.1);
        let xml = metadata.to_xml().unwrap();
        assert_eq!(Metadata::parse(&xml, 2).unwrap(), metadata);
    }

    #[test]
    fn damaged_xml_is_an_error() {
        for xml in [
            "<GDALMetadata><Item name=\"a\">1",
            "<Item sample=\"x\"></Item>",
            "<Item sample=\"0\" role=\"scale\">ten</Item>",
            "<Item name=\"a\">&bad;</Item>",
        ] {
            assert!(Metadata::parse(xml, 1).is_err(), "{xml}");
        }
    }
}
