//! Checksums as manifests, catalogues and STAC assets write them.

use std::fmt;
use std::io::{self, Read};

use md5::Digest as _;

/// How a checksum is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// MD5, 128 bits: CDSE's archives and manifests before baseline 04.00.
    Md5,
    /// SHA-2 with 256 bits: assets of Earth Search.
    Sha256,
    /// SHA-3 with 256 bits: manifests since baseline 04.00, assets of CDSE.
    Sha3_256,
    /// BLAKE3 with 256 bits: CDSE's archives, beside MD5.
    Blake3,
}

impl Algorithm {
    /// Reads the names that manifests (`"SHA3-256"`) and catalogues (`"MD5"`, `"BLAKE3"`) write.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().replace('_', "-").as_str() {
            "MD5" => Some(Self::Md5),
            "SHA256" | "SHA-256" | "SHA2-256" => Some(Self::Sha256),
            "SHA3-256" => Some(Self::Sha3_256),
            "BLAKE3" => Some(Self::Blake3),
            _ => None,
        }
    }

    /// Length of its digests in bytes.
    #[must_use]
    pub fn digest_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 | Self::Sha3_256 | Self::Blake3 => 32,
        }
    }

    /// Starts a checksum.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Md5 => Hasher::Md5(Box::default()),
            Self::Sha256 => Hasher::Sha256(Box::default()),
            Self::Sha3_256 => Hasher::Sha3(Box::default()),
            Self::Blake3 => Hasher::Blake3(Box::default()),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha3_256 => "SHA3-256",
            Self::Blake3 => "BLAKE3",
        })
    }
}

/// A checksum: its algorithm and its digest.
///
/// # Examples
///
/// ```
/// use s2_io::{Algorithm, Checksum};
///
/// let given = Checksum::from_hex(Algorithm::Md5, "900150983CD24FB0D6963F7D28E17F72").unwrap();
/// let made = Checksum::of(Algorithm::Md5, &b"abc"[..])?;
/// assert_eq!(given, made);
/// assert_eq!(made.to_string(), "MD5 900150983cd24fb0d6963f7d28e17f72");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum {
    /// How it was made.
    pub algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Checksum {
    /// Reads hexadecimal digits of either case; `None` when they are none or not as many as the algorithm makes.
    #[must_use]
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Option<Self> {
        let digest = decode_hex(hex)?;
        (digest.len() == algorithm.digest_len()).then_some(Self { algorithm, digest })
    }

    /// Reads a multihash in hexadecimal digits, as the STAC file extension writes it: the code of the algorithm, the
    /// length, the digest. Where code and length disagree the length decides: CDSE labels digests of SHA3-256 of
    /// metadata as MD5. `None` for other algorithms.
    #[must_use]
    pub fn from_multihash(hex: &str) -> Option<Self> {
        let bytes = decode_hex(hex)?;
        let (algorithm, rest) = match &bytes[..] {
            [0xd5, 0x01, rest @ ..] => (Algorithm::Md5, rest),
            [0x12, rest @ ..] => (Algorithm::Sha256, rest),
            [0x16, rest @ ..] => (Algorithm::Sha3_256, rest),
            [0x1e, rest @ ..] => (Algorithm::Blake3, rest),
            _ => return None,
        };
        let (length, digest) = rest.split_first()?;
        if usize::from(*length) != digest.len() {
            return None;
        }
        let algorithm = match (algorithm, digest.len()) {
            (Algorithm::Md5, 32) => Algorithm::Sha3_256,
            (algorithm, length) if length == algorithm.digest_len() => algorithm,
            _ => return None,
        };
        Some(Self { algorithm, digest: digest.to_vec() })
    }

    /// Makes the checksum of what is left to read.
    ///
    /// # Errors
    ///
    /// What reading returned.
    pub fn of(algorithm: Algorithm, mut data: impl Read) -> io::Result<Self> {
        let mut hasher = algorithm.hasher();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match data.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(length) => hasher.update(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The digest in lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.hex())
    }
}

/// A checksum in the making.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Hasher {
    /// MD5.
    Md5(Box<md5::Md5>),
    /// SHA-256.
    Sha256(Box<sha2::Sha256>),
    /// SHA3-256.
    Sha3(Box<sha3::Sha3_256>),
    /// BLAKE3.
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha3(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// The checksum of all bytes that were added.
    #[must_use]
    pub fn finish(self) -> Checksum {
        match self {
            Self::Md5(hasher) => Checksum { algorithm: Algorithm::Md5, digest: hasher.finalize().to_vec() },
            Self::Sha256(hasher) => {
                Checksum { algorithm: Algorithm::Sha256, digest: hasher.finalize().to_vec() }
            }
            Self::Sha3(hasher) => {
                Checksum { algorithm: Algorithm::Sha3_256, digest: hasher.finalize().to_vec() }
            }
            Self::Blake3(hasher) => {
                Checksum { algorithm: Algorithm::Blake3, digest: hasher.finalize().as_bytes().to_vec() }
            }
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.trim().as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        // RFC 1321, FIPS 180-4, FIPS 202 and the test vectors of BLAKE3 for "abc" or the empty text.
        let known = [
            (Algorithm::Md5, "abc", "900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (Algorithm::Sha3_256, "abc", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
            (Algorithm::Blake3, "", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        ];
        for (algorithm, text, hex) in known {
            let made = Checksum::of(algorithm, text.as_bytes()).unwrap();
            assert_eq!((made.hex().as_str(), made.algorithm), (hex, algorithm));
            assert_eq!(Checksum::from_hex(algorithm, &hex.to_uppercase()), Some(made));
        }
    }

    #[test]
    fn a_multihash_tells_its_algorithm() {
        let digest = "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532";
        let read = |text: &str| Checksum::from_multihash(text).map(|sum| (sum.algorithm, sum.hex()));
        assert_eq!(read(&format!("1620{digest}")), Some((Algorithm::Sha3_256, digest.to_owned())));
        assert_eq!(read(&format!("1220{digest}")), Some((Algorithm::Sha256, digest.to_owned())));
        assert_eq!(
            read(&format!("d50110{}", &digest[..32])),
            Some((Algorithm::Md5, digest[..32].to_owned()))
        );
        // The code says MD5, the length SHA3-256: so CDSE labels its metadata files.
        assert_eq!(read(&format!("d50120{digest}")), Some((Algorithm::Sha3_256, digest.to_owned())));
        for text in ["", "16", "1620", "1620zz", "162", &format!("1621{digest}"), &format!("1320{digest}")] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
