//! Small XML documents as trees, by local names: the namespace prefixes of the metadata vary.

use std::path::Path;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::{Error, Result};

/// The deepest metadata have ten levels.
const MAX_DEPTH: usize = 64;

/// An element with everything in it.
#[derive(Debug, Default)]
pub(crate) struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    /// Text directly in the element.
    pub(crate) text: String,
    children: Vec<Self>,
}

impl Element {
    /// The root of a document; `path` names it in errors.
    pub(crate) fn parse(path: &Path, document: &[u8]) -> Result<Self> {
        Self::parse_tree(document).map_err(|source| Error::Xml { path: path.to_owned(), source })
    }

    fn parse_tree(document: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut reader = Reader::from_str(std::str::from_utf8(document)?);
        // The element at the bottom holds the root.
        let mut open = vec![Self::default()];
        loop {
            let at = reader.buffer_position();
            match reader.read_event().map_err(|error| format!("byte {at}: {error}"))? {
                Event::Start(start) if open.len() > MAX_DEPTH => {
                    return Err(format!("byte {at}: {} lies too deep", start.local_name().as_ref()).into());
                }
                Event::Start(start) => open.push(Self::new(&start)?),
                Event::Empty(start) => last(&mut open).children.push(Self::new(&start)?),
                Event::End(_) => {
                    let element = open.pop().unwrap_or_default();
                    last(&mut open).children.push(element);
                }
                Event::Text(text) => last(&mut open).text.push_str(&text.into_inner()),
                Event::CData(text) => last(&mut open).text.push_str(&text.into_inner()),
                // A document that ends early leaves elements open.
                Event::Eof if open.len() > 1 => {
                    return Err(format!("it ends within {}", last(&mut open).name).into());
                }
                Event::Eof => {
                    return last(&mut open).children.pop().ok_or_else(|| "it holds no element".into());
                }
                // Entities, comments, declarations: nothing that is read here has any.
                _ => {}
            }
        }
    }

    fn new(start: &BytesStart<'_>) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut element = Self { name: start.local_name().as_ref().to_owned(), ..Self::default() };
        for attribute in start.attributes() {
            let attribute = attribute?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
            element.attributes.push((attribute.key.local_name().as_ref().to_owned(), value.into_owned()));
        }
        Ok(element)
    }

    /// The first element of this name inside this one.
    pub(crate) fn find(&self, name: &str) -> Option<&Self> {
        self.find_all(name).next()
    }

    /// All elements of this name inside this one, in the order of the document.
    pub(crate) fn find_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Self> {
        let mut open: Vec<_> = self.children.iter().rev().collect();
        std::iter::from_fn(move || {
            while let Some(element) = open.pop() {
                open.extend(element.children.iter().rev());
                if element.name == name {
                    return Some(element);
                }
            }
            None
        })
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }
}

/// The innermost open element; the outermost is never closed by a well-formed document.
fn last(open: &mut Vec<Element>) -> &mut Element {
    if open.is_empty() {
        open.push(Element::default());
    }
    let index = open.len() - 1;
    &mut open[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Element, String> {
        Element::parse_tree(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn elements_are_found_by_local_name_in_document_order() {
        let text = "<?xml version=\"1.0\"?><n1:a xmlns:n1='u'><b id='1'> x </b><c><n2:b n2:id='2'/></c><b id='3'/></n1:a>";
        let root = parse(text).unwrap();
        let ids: Vec<_> = root.find_all("b").map(|b| b.attribute("id").unwrap()).collect();
        assert_eq!((ids, &*root.find("b").unwrap().text), (vec!["1", "2", "3"], " x "));
        assert!(root.find("a").is_none(), "the root is not inside itself");
    }

    #[test]
    fn broken_documents_say_where() {
        for (text, message) in [
            ("", "it holds no element"),
            ("<a><b>", "it ends within b"),
            ("<a></b>", "byte 3: ill-formed document: expected `</a>`, but `</b>` was found"),
            (&"<a>".repeat(100), "byte 192: a lies too deep"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text:?}");
        }
        assert!(Element::parse_tree(b"\xff\xfe<a/>").is_err(), "not UTF-8");
    }
}
