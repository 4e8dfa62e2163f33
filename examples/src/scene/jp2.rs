//! JPEG 2000 files with the layout of real Sentinel-2 bands, written by the `OpenJPEG` encoder.
//!
//! The codestream is `OpenJPEG`'s; the boxes around it (ISO/IEC 15444-1 annex I, OGC GMLJP2 1.0) are ours. All the
//! `unsafe` code of the programs is in this file.
#![expect(unsafe_code, reason = "OpenJPEG is a C library without a safe encoder on crates.io")]

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use anyhow::{Context as _, Result, bail, ensure};
use ndarray::ArrayView2;
use openjpeg_sys as opj;

/// Where a band lies and how its samples are stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Pixel size in metres: 10, 20 or 60; chooses tiles, precincts and code-blocks as in real products.
    pub(super) resolution_m: u32,
    /// Bits per sample: 15 for reflectance, 8 for the scene classification.
    pub(super) bits: u32,
    /// Outer corner of the upper left pixel, metres.
    pub(super) origin: [u32; 2],
    /// EPSG code of the grid.
    pub(super) epsg: u32,
}

/// A JP2 file, losslessly coded, of one component.
///
/// # Errors
/// When a sample does not fit the layout's bits or `OpenJPEG` refuses (its own message is passed on).
pub(super) fn encode(samples: ArrayView2<'_, u16>, layout: &Layout) -> Result<Vec<u8>> {
    let (height, width) = samples.dim();
    let codestream = encode_codestream(samples, layout)?;
    let [height, width] = [u32::try_from(height)?, u32::try_from(width)?];
    let mut header = Vec::new();
    header.extend(height.to_be_bytes());
    header.extend(width.to_be_bytes());
    // One component; its bits less one; compression type 7; colour space known; no rights.
    header.extend([0, 1, u8::try_from(layout.bits - 1)?, 7, 0, 0]);
    // Colour by enumeration: 17 is greyscale.
    let colour = [1, 0, 0, 0, 0, 0, 17];
    let gml =
        [boxed(b"lbl ", b"gml.root-instance")?, boxed(b"xml ", grid_xml(height, width, layout).as_bytes())?];
    let gml = [boxed(b"lbl ", b"gml.data")?, boxed(b"asoc", &gml.concat())?];
    let file = [
        boxed(b"jP  ", b"\r\n\x87\n")?,
        boxed(b"ftyp", b"jp2 \0\0\0\0jp2 ")?,
        boxed(b"jp2h", &[boxed(b"ihdr", &header)?, boxed(b"colr", &colour)?].concat())?,
        boxed(b"asoc", &gml.concat())?,
        boxed(b"jp2c", &codestream)?,
    ];
    Ok(file.concat())
}

/// A box: length, type, content.
fn boxed(kind: &[u8; 4], content: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(content.len() + 8).context("a JP2 box of 4 GiB or more")?;
    Ok([&length.to_be_bytes()[..], kind, content].concat())
}

/// The grid in GML 3.1.1: its origin is the centre of the first pixel.
fn grid_xml(height: u32, width: u32, layout: &Layout) -> String {
    let Layout { resolution_m, origin: [left, top], epsg, .. } = *layout;
    let (x, y) = (left + resolution_m / 2, top - resolution_m / 2);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.opengis.net/gml http://schemas.opengis.net/gml/3.1.1/profiles/gmlJP2Profile/1.0.0/gmlJP2Profile.xsd">
 <gml:featureMember><gml:FeatureCollection><gml:featureMember><gml:RectifiedGridCoverage dimension="2" gml:id="grid">
  <gml:rectifiedGridDomain><gml:RectifiedGrid dimension="2">
   <gml:limits><gml:GridEnvelope><gml:low>1 1</gml:low><gml:high>{width} {height}</gml:high></gml:GridEnvelope></gml:limits>
   <gml:axisName>x</gml:axisName><gml:axisName>y</gml:axisName>
   <gml:origin><gml:Point gml:id="origin" srsName="urn:ogc:def:crs:EPSG::{epsg}"><gml:pos>{x} {y}</gml:pos></gml:Point></gml:origin>
   <gml:offsetVector srsName="urn:ogc:def:crs:EPSG::{epsg}">{resolution_m} 0</gml:offsetVector>
   <gml:offsetVector srsName="urn:ogc:def:crs:EPSG::{epsg}">0 -{resolution_m}</gml:offsetVector>
  </gml:RectifiedGrid></gml:rectifiedGridDomain>
 </gml:RectifiedGridCoverage></gml:featureMember></gml:FeatureCollection></gml:featureMember>
</gml:FeatureCollection>
"#
    )
}

/// What `OpenJPEG` writes into: bytes and a position, as its TLM marker is filled in afterwards.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    position: usize,
}

/// Frees the objects of `OpenJPEG` on every way out.
struct Encoder {
    codec: *mut opj::opj_codec_t,
    image: *mut opj::opj_image_t,
    stream: *mut opj::opj_stream_t,
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: each pointer is null or owned by this value alone, and is used nowhere after this.
        unsafe {
            if !self.stream.is_null() {
                opj::opj_stream_destroy(self.stream);
            }
            if !self.codec.is_null() {
                opj::opj_destroy_codec(self.codec);
            }
            if !self.image.is_null() {
                opj::opj_image_destroy(self.image);
            }
        }
    }
}

fn encode_codestream(samples: ArrayView2<'_, u16>, layout: &Layout) -> Result<Vec<u8>> {
    let (height, width) = samples.dim();
    let [tile, precinct, code_block] = match layout.resolution_m {
        10 => [1024, 256, 64],
        20 => [640, 128, 64],
        60 => [192, 64, 4],
        other => bail!("no JPEG 2000 layout for {other} m"),
    };
    ensure!(height > 0 && width > 0, "cannot encode an image of {height} by {width} pixels");
    let largest = samples.iter().copied().max().unwrap_or(0);
    ensure!(u32::from(largest) < 1 << layout.bits, "sample {largest} does not fit {} bits", layout.bits);

    let mut parameters = MaybeUninit::zeroed();
    // SAFETY: all-zero bytes are valid for every field (integers, floats, null pointers, enums with a zero variant),
    // and the call only overwrites fields with values of their own types.
    let mut parameters: opj::opj_cparameters_t = unsafe {
        opj::opj_set_default_encoder_parameters(parameters.as_mut_ptr());
        parameters.assume_init()
    };
    parameters.tcp_numlayers = 1;
    parameters.cp_disto_alloc = 1;
    parameters.numresolution = 5;
    parameters.tile_size_on = 1;
    (parameters.cp_tdx, parameters.cp_tdy) = (tile, tile);
    (parameters.cblockw_init, parameters.cblockh_init) = (code_block, code_block);
    // Precincts of one size at all five resolutions.
    parameters.csty |= 1;
    parameters.res_spec = 5;
    parameters.prcw_init[..5].fill(precinct);
    parameters.prch_init[..5].fill(precinct);
    let mut component = opj::opj_image_cmptparm_t {
        dx: 1,
        dy: 1,
        w: u32::try_from(width)?,
        h: u32::try_from(height)?,
        x0: 0,
        y0: 0,
        prec: layout.bits,
        bpp: layout.bits,
        sgnd: 0,
    };

    // The C side keeps plain pointers to these two until `encoder`, declared after them, is dropped.
    let mut output = Output::default();
    let mut message = String::new();
    let output_pointer = ptr::from_mut(&mut output);
    let mut encoder = Encoder { codec: ptr::null_mut(), image: ptr::null_mut(), stream: ptr::null_mut() };

    // SAFETY: `component` is one element, as the count says. `opj_image_create` allocates `w * h` samples for the
    // component, which are all written, in bounds, after the null checks.
    unsafe {
        encoder.image = opj::opj_image_create(1, &raw mut component, opj::COLOR_SPACE::OPJ_CLRSPC_GRAY);
        ensure!(!encoder.image.is_null(), "OpenJPEG has no memory for {height} by {width} samples");
        (*encoder.image).x1 = component.w;
        (*encoder.image).y1 = component.h;
        let data = (*(*encoder.image).comps).data;
        ensure!(!data.is_null(), "OpenJPEG has no memory for {height} by {width} samples");
        for (index, &sample) in samples.iter().enumerate() {
            data.add(index).write(i32::from(sample));
        }
    }
    let options = [c"PLT=YES".as_ptr(), c"TLM=YES".as_ptr(), ptr::null()];
    // SAFETY: pointers passed are null-checked or to live locals; the option list ends in null; the callbacks have the
    // signatures that the header asks for and get back the pointers given here, which outlive the encoder and are not
    // touched by Rust between here and the last call.
    let done = unsafe {
        encoder.codec = opj::opj_create_compress(opj::CODEC_FORMAT::OPJ_CODEC_J2K);
        encoder.stream = opj::opj_stream_create(1 << 20, 0);
        ensure!(
            !encoder.codec.is_null() && !encoder.stream.is_null(),
            "OpenJPEG has no memory for an encoder"
        );
        let (codec, stream) = (encoder.codec, encoder.stream);
        opj::opj_set_error_handler(codec, Some(keep_message), ptr::from_mut(&mut message).cast());
        opj::opj_stream_set_user_data(stream, output_pointer.cast(), None);
        opj::opj_stream_set_write_function(stream, Some(write));
        opj::opj_stream_set_skip_function(stream, Some(skip));
        opj::opj_stream_set_seek_function(stream, Some(seek));
        opj::opj_setup_encoder(codec, &raw mut parameters, encoder.image) != 0
            && opj::opj_encoder_set_extra_options(codec, options.as_ptr()) != 0
            && opj::opj_start_compress(codec, encoder.image, stream) != 0
            && opj::opj_encode(codec, stream) != 0
            && opj::opj_end_compress(codec, stream) != 0
    };
    drop(encoder);
    ensure!(done, "OpenJPEG cannot encode the band: {}", message.trim());
    Ok(output.bytes)
}

/// Appends an error text to the `String` behind `client_data`.
unsafe extern "C" fn keep_message(text: *const c_char, client_data: *mut c_void) {
    // SAFETY: OpenJPEG passes a terminated string and the pointer to the `String` registered with it.
    unsafe {
        let message = &mut *client_data.cast::<String>();
        message.push_str(&CStr::from_ptr(text).to_string_lossy());
    }
}

/// Writes `count` bytes at the position of the `Output` behind `user_data`.
unsafe extern "C" fn write(buffer: *mut c_void, count: usize, user_data: *mut c_void) -> usize {
    // SAFETY: OpenJPEG passes `count` readable bytes and the pointer to the `Output` registered with it.
    let (output, new) = unsafe {
        (
            &mut *user_data.cast::<Output>(),
            std::slice::from_raw_parts(buffer.cast::<u8>().cast_const(), count),
        )
    };
    let end = output.position + count;
    if output.bytes.len() < end {
        output.bytes.resize(end, 0);
    }
    output.bytes[output.position..end].copy_from_slice(new);
    output.position = end;
    count
}

/// Moves the position by `count` bytes; -1 tells `OpenJPEG` that it cannot.
unsafe extern "C" fn skip(count: i64, user_data: *mut c_void) -> i64 {
    // SAFETY: OpenJPEG passes the pointer to the `Output` registered with it.
    let output = unsafe { &mut *user_data.cast::<Output>() };
    match isize::try_from(count).ok().and_then(|count| output.position.checked_add_signed(count)) {
        Some(position) => {
            output.position = position;
            count
        }
        None => -1,
    }
}

/// Sets the position; 0 tells `OpenJPEG` that it cannot.
unsafe extern "C" fn seek(position: i64, user_data: *mut c_void) -> opj::OPJ_BOOL {
    // SAFETY: OpenJPEG passes the pointer to the `Output` registered with it.
    let output = unsafe { &mut *user_data.cast::<Output>() };
    match usize::try_from(position) {
        Ok(position) => {
            output.position = position;
            1
        }
        Err(_) => 0,
    }
}
