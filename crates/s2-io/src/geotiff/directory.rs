//! A directory of a TIFF as it is written, classic or BigTIFF: tags with their values (TIFF 6.0 §2).

use std::io;

/// A tag with its values, little-endian.
pub(super) struct TagValue {
    pub(super) tag: u16,
    /// TIFF 6.0 §2 "Types": 2 ASCII, 3 SHORT, 4 LONG, 12 DOUBLE, 16 LONG8 (BigTIFF).
    kind: u16,
    count: usize,
    bytes: Vec<u8>,
}

impl TagValue {
    pub(super) fn short(tag: u16, values: &[u16]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { tag, kind: 3, count: values.len(), bytes }
    }

    pub(super) fn long(tag: u16, values: &[u32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { tag, kind: 4, count: values.len(), bytes }
    }

    pub(super) fn double(tag: u16, values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { tag, kind: 12, count: values.len(), bytes }
    }

    /// Positions or lengths in the file: LONG, in a BigTIFF LONG8.
    pub(super) fn offset(tag: u16, values: &[u64], is_big: bool) -> io::Result<Self> {
        if is_big {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            return Ok(Self { tag, kind: 16, count: values.len(), bytes });
        }
        let values: Result<Vec<_>, _> = values.iter().map(|value| u32::try_from(*value)).collect();
        Ok(Self::long(tag, &values.map_err(|_| io::Error::other("the file grows beyond 4 GiB"))?))
    }

    pub(super) fn ascii(tag: u16, text: &str) -> Self {
        let bytes = [text.as_bytes(), &[0]].concat();
        Self { tag, kind: 2, count: bytes.len(), bytes }
    }
}

/// Appends a directory and, behind it, the values that do not fit into its entries.
pub(super) fn push_directory(
    head: &mut Vec<u8>,
    tags: &[TagValue],
    is_last: bool,
    is_big: bool,
) -> io::Result<()> {
    // An offset has four bytes, in a BigTIFF eight; so has the count of an entry.
    let word = if is_big { 8 } else { 4 };
    let push_word = |to: &mut Vec<u8>, value: usize| {
        let bytes = (value as u64).to_le_bytes();
        to.extend_from_slice(&bytes[..word]);
        if bytes[word..].iter().any(|byte| *byte != 0) {
            return Err(io::Error::other("the directories grow beyond 4 GiB"));
        }
        Ok(())
    };
    let count_bytes = if is_big { 8 } else { 2 };
    let mut values_at = head.len() + count_bytes + tags.len() * (4 + 2 * word) + word;
    let mut values = Vec::new();
    head.extend_from_slice(&(tags.len() as u64).to_le_bytes()[..count_bytes]);
    for value in tags {
        head.extend_from_slice(&value.tag.to_le_bytes());
        head.extend_from_slice(&value.kind.to_le_bytes());
        push_word(head, value.count)?;
        if value.bytes.len() <= word {
            head.extend_from_slice(&value.bytes);
            head.resize(head.len() + word - value.bytes.len(), 0);
        } else {
            push_word(head, values_at)?;
            values.extend_from_slice(&value.bytes);
            // TIFF 6.0 §2: values begin on a word boundary.
            values.resize(values.len().next_multiple_of(8), 0);
            values_at += value.bytes.len().next_multiple_of(8);
        }
    }
    let next = if is_last { 0 } else { values_at };
    push_word(head, next)?;
    head.append(&mut values);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_beyond_four_gigabytes_need_a_big_tiff() {
        let offsets = [1 << 32];
        assert!(TagValue::offset(324, &offsets, false).is_err());
        assert_eq!(TagValue::offset(324, &offsets, true).unwrap().bytes, [0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
