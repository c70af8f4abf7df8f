//! The weights' bytes: as they are embedded, and as a file beside the object.

use super::contract::Contract;
use super::parallel_map;
use crate::lir::{Buffer, BufferKind, Module};
use crate::tensor::Tensor;
use crate::types::DType;
use std::borrow::Cow;
use std::io::{self, Read, Write};

/// The weights as they are in memory on the target, slack included; shared with the module, and never in one piece here.
#[derive(Debug)]
pub(super) struct Image {
    /// Where each constant begins, in their order.
    places: Vec<(u64, Tensor)>,
    size: u64,
    big_endian: bool,
}

impl Image {
    pub(super) fn new(module: &Module, contract: &Contract, big_endian: bool) -> Image {
        let constant = |(&buffer, &at): (&Buffer, &u64)| match &module.buffers[buffer].kind {
            BufferKind::Constant(tensor) => Some((at, tensor.clone())),
            BufferKind::Input
            | BufferKind::Parameter
            | BufferKind::Output
            | BufferKind::State
            | BufferKind::Temporary => None,
        };
        let mut places: Vec<_> = module.plan.weights.iter().filter_map(constant).collect();
        // Of those without bytes several may begin at one place.
        places.sort_by_key(|&(at, _)| at);
        Image { places, size: contract.weights_size, big_endian }
    }

    /// Writes all bytes.
    ///
    /// # Errors
    ///
    /// What `to` gives.
    pub(super) fn write(&self, mut to: impl Write) -> io::Result<()> {
        let mut written = 0;
        for (at, tensor) in &self.places {
            zeros(&mut to, at - written)?;
            let bytes = in_order(tensor.bytes(), tensor.ty().dtype, self.big_endian);
            to.write_all(&bytes)?;
            written = at + bytes.len() as u64;
        }
        zeros(&mut to, self.size - written)
    }
}

/// Makes the bytes of constants that are computed when they are asked for, several at a time.
pub fn make(module: &Module) {
    let all = module.plan.weights.keys().map(|&buffer| &module.buffers[buffer].kind);
    let constants = all.filter_map(|kind| match kind {
        BufferKind::Constant(tensor) => Some(tensor),
        BufferKind::Input
        | BufferKind::Parameter
        | BufferKind::Output
        | BufferKind::State
        | BufferKind::Temporary => None,
    });
    let constants: Vec<&Tensor> = constants.collect();
    parallel_map(&constants, |tensor| _ = tensor.bytes());
}

/// Writes the file of weights: safetensors with one `U8` tensor "weights", in whose metadata is the
/// model's fingerprint. The tensor begins at a multiple of 64 bytes, so that the map of the file is
/// aligned.
///
/// # Errors
///
/// What `to` gives.
pub fn write_file(
    module: &Module,
    contract: &Contract,
    big_endian: bool,
    mut to: impl Write,
) -> io::Result<()> {
    let (fingerprint, size) = (contract.fingerprint_hex(), contract.weights_size);
    let mut header = format!(
        "{{\"__metadata__\":{{\"fingerprint\":\"{fingerprint}\"}},\
         \"weights\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[0,{size}]}}}}"
    );
    let padding = (8 + header.len()).next_multiple_of(64) - 8 - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(header.as_bytes())?;
    Image::new(module, contract, big_endian).write(to)
}

fn zeros(to: &mut impl Write, count: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(count), to).map(|_| ())
}

/// Little-endian elements in the target's byte order.
fn in_order(bytes: &[u8], dtype: DType, big_endian: bool) -> Cow<'_, [u8]> {
    if !big_endian || dtype.bytes() == 1 {
        return Cow::Borrowed(bytes);
    }
    let swapped = bytes.chunks_exact(dtype.bytes()).flat_map(|element| element.iter().rev());
    Cow::Owned(swapped.copied().collect())
}
