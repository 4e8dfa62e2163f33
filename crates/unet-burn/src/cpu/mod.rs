//! The network on the CPU: what burn's own backend for it, flex, computes slowly, computed as fast as the processor allows.
//!
//! flex convolves by copying the image once for each weight of the kernel, and takes gradients by the general definition:
//! a step of training costs it nine passes. Here convolutions and their gradients are one loop over packed planes
//! ([`conv`] and [`gradient`], cut by [`parts`], packed by [`planes`]), in ways that need fewer multiplications ([`way`]),
//! and dropout, pooling, concatenation and batch norm are one pass over the memory ([`layers`]). [`extension`] puts them
//! under flex, and [`tensors`] hands burn's tensors to it. Prediction takes the whole network row by row ([`stream`]).

mod conv;
mod extension;
mod gradient;
mod kernel;
mod layers;
mod memory;
mod parts;
mod planes;
mod stream;
mod tensors;
mod way;

use conv::Convolution;
use kernel::Instructions;
pub(crate) use memory::Release;
pub(crate) use stream::{Filter, Network, Step, Stream};
pub(crate) use tensors::{
    concat_cropped, convolve, drop_out, has, normalise, padding, pool, takes, up_convolve,
};

/// The instructions that the network uses on this processor: `portable`, `avx2` or `avx512`. Results of others differ in
/// their last bits.
///
/// They are the fastest that the processor has, unless the environment variable `UNET_BURN_INSTRUCTIONS` names others of
/// it: to get the values of another machine to the bit, or to compare times. It counts once, when the first is computed.
///
/// # Errors
///
/// [`Error::Instructions`](crate::Error::Instructions): the processor does not have those that are asked for. Who computes
/// all the same gets the fastest.
pub fn instructions() -> crate::Result<&'static str> {
    Ok(Instructions::chosen()?.name())
}
