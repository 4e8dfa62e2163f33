//! How the components of a tile are coded: the COD, COC, QCD and QCC markers (ISO/IEC 15444-1 A.6).

use crate::boxes::be;
use crate::codestream::{Codestream, Segment, marker, unsupported};
use crate::{Error, Result};

/// Coefficients are kept in words of 32 bits: a sign, and half of the last bit-plane.
const MAX_PLANES: u32 = 30;

/// What holds for all components of a tile (Table A.13).
#[derive(Clone, Debug)]
pub(crate) struct Coding {
    /// 0 LRCP, 1 RLCP, 2 RPCL, 3 PCRL, 4 CPRL.
    pub(crate) progression: u8,
    pub(crate) layers: u32,
    /// The first three components went through the reversible or irreversible colour transform (Annex G).
    pub(crate) colour_transform: bool,
    /// Packets may begin with a SOP marker, and their headers end with EPH.
    pub(crate) sop: bool,
    pub(crate) eph: bool,
    pub(crate) components: Vec<Component>,
}

/// How one component is coded (Tables A.20 and A.28).
#[derive(Clone, Debug, Default)]
pub(crate) struct Component {
    pub(crate) levels: u32,
    /// log2 of the width and height of code-blocks.
    pub(crate) block: (u32, u32),
    pub(crate) reset_contexts: bool,
    pub(crate) segmentation_symbols: bool,
    pub(crate) reversible: bool,
    /// log2 of the width and height of precincts, for each resolution.
    pub(crate) precincts: Vec<(u32, u32)>,
    guard_bits: u32,
    /// 0 none, 1 derived from LL, 2 expounded.
    quantisation: u8,
    /// Exponent and mantissa for each sub-band.
    steps: Vec<(u32, u32)>,
}

impl Coding {
    /// The coding of a tile. Unsupported are regions of interest, changes of progression, packed packet headers and the
    /// rarer styles of code-blocks.
    pub(crate) fn of(codestream: &Codestream<'_>, tile: usize) -> Result<Self> {
        let count = codestream.size.components.len();
        let mut coding = Self {
            progression: 0,
            layers: 0,
            colour_transform: false,
            sop: false,
            eph: false,
            components: vec![Component::default(); count],
        };
        // A.6: the tile's own segments win, and of the same header those for one component.
        for segments in
            [codestream.header.iter().collect(), codestream.tile_segments(tile).collect::<Vec<_>>()]
        {
            let of_one = |segment: &&Segment<'_>| matches!(segment.bytes[1], marker::COC | marker::QCC);
            let (single, default): (Vec<_>, Vec<_>) = segments.into_iter().partition(of_one);
            for segment in default.into_iter().chain(single) {
                coding.apply(segment)?;
            }
        }
        if coding
            .components
            .iter()
            .any(|c| (0..=c.levels).any(|r| (0..3).any(|b| c.planes(r, b) > MAX_PLANES)))
        {
            return Err(unsupported(&format!("more than {MAX_PLANES} bit-planes")));
        }
        if coding.colour_transform {
            // G.2: the three components are coded alike.
            match &coding.components[..] {
                [a, b, c, ..]
                    if [b, c].iter().all(|o| (o.reversible, o.levels) == (a.reversible, a.levels)) => {}
                _ => return Err(unsupported("a colour transform of components that are coded differently")),
            }
        }
        Ok(coding)
    }

    fn apply(&mut self, segment: &Segment<'_>) -> Result<()> {
        let bytes = &segment.bytes[..];
        let wide = usize::from(self.components.len() > 256);
        let mut known = || -> Option<Result<()>> {
            let index = |at: usize| usize::try_from(be(bytes.get(at..=at + wide)?)).ok();
            Some(match bytes[1] {
                marker::COD => {
                    let &[style, progression, l0, l1, transform] = bytes.get(4..)?.first_chunk()?;
                    self.progression = progression;
                    self.layers = u32::from(u16::from_be_bytes([l0, l1]));
                    self.colour_transform = transform != 0;
                    (self.sop, self.eph) = (style & 2 != 0, style & 4 != 0);
                    self.components.iter_mut().try_for_each(|c| c.style(style, &bytes[9..]))
                }
                marker::COC => {
                    let (&style, body) = bytes.get(5 + wide..)?.split_first()?;
                    self.components.get_mut(index(4)?)?.style(style, body)
                }
                marker::QCD => self.components.iter_mut().try_for_each(|c| c.quantise(&bytes[4..])),
                marker::QCC => self.components.get_mut(index(4)?)?.quantise(bytes.get(5 + wide..)?),
                marker::RGN => Err(unsupported("regions of interest (RGN marker)")),
                marker::POC => Err(unsupported("changes of progression order (POC marker)")),
                _ => Ok(()),
            })
        };
        known().unwrap_or_else(|| {
            let what = format!("marker ff{:02x} with values out of range", bytes[1]);
            Err(Error::Damaged { offset: segment.offset, what })
        })
    }
}

impl Component {
    /// Reads the part that COD and COC share. Their values have been checked with the headers.
    fn style(&mut self, style: u8, body: &[u8]) -> Result<()> {
        let Some((&[levels, width, height, block_style, transform], precincts)) = body.split_first_chunk()
        else {
            return Ok(());
        };
        self.levels = u32::from(levels);
        self.block = (u32::from(width) + 2, u32::from(height) + 2);
        self.reversible = transform == 1;
        self.reset_contexts = block_style & 0x02 != 0;
        self.segmentation_symbols = block_style & 0x20 != 0;
        self.precincts = if style & 1 == 0 {
            vec![(15, 15); usize::from(levels) + 1]
        } else {
            precincts.iter().map(|&p| (u32::from(p & 15), u32::from(p >> 4))).collect()
        };
        // Predictable termination (0x10) changes nothing for a decoder that does not look for errors.
        match block_style & !0x32 {
            0 => Ok(()),
            rare => Err(unsupported(&format!("code-block style {rare:#04x}"))),
        }
    }

    fn quantise(&mut self, body: &[u8]) -> Result<()> {
        let (&style, steps) = body.split_first().unwrap_or((&0, &[]));
        self.guard_bits = u32::from(style >> 5);
        self.quantisation = style & 31;
        self.steps = match self.quantisation {
            0 => steps.iter().map(|&step| (u32::from(step >> 3), 0)).collect(),
            1 | 2 => {
                let words = steps.as_chunks::<2>().0.iter().map(|&w| u32::from(u16::from_be_bytes(w)));
                words.map(|word| (word >> 11, word & 0x7ff)).collect()
            }
            other => return Err(unsupported(&format!("quantisation style {other}"))),
        };
        Ok(())
    }

    /// Exponent and mantissa of a sub-band (E-5): the first, second or third of its resolution.
    fn step(&self, resolution: u32, band: u32) -> (u32, u32) {
        let index = if resolution == 0 { 0 } else { 3 * (resolution - 1) + band + 1 };
        if self.quantisation == 1 {
            let (exponent, mantissa) = self.steps.first().copied().unwrap_or_default();
            (exponent.saturating_sub(resolution.saturating_sub(1)), mantissa)
        } else {
            // Too few are damage; the nearest one will do, as there is nothing to decode with them.
            self.steps.get(index as usize).or(self.steps.last()).copied().unwrap_or_default()
        }
    }

    /// Bit-planes of a sub-band (E-2).
    pub(crate) fn planes(&self, resolution: u32, band: u32) -> u32 {
        (self.guard_bits + self.step(resolution, band).0).saturating_sub(1)
    }

    /// Step size of a sub-band (E-3) for samples of so many bits.
    pub(crate) fn step_size(&self, resolution: u32, band: u32, bits: u8) -> f32 {
        let (exponent, mantissa) = self.step(resolution, band);
        // Table E.1: HL and LH gain one bit, HH two.
        let gain = if resolution == 0 { 0 } else { [1, 1, 2][band as usize] };
        #[expect(clippy::cast_precision_loss, reason = "11 bits")]
        let fraction = 1.0 + mantissa as f32 / 2048.0;
        fraction * 2_f32.powi(i32::from(bits) + gain - exponent.cast_signed())
    }
}
