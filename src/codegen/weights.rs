//! The weights' bytes: as they are embedded, and as a file beside the object.

use super::contract::Contract;
use crate::lir::{BufferKind, Module};
use crate::types::DType;
use std::borrow::Cow;
use std::io::{self, Read, Write};

/// The weights as they are in memory on the target, slack included.
pub(super) fn image(module: &Module, contract: &Contract, big_endian: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(contract.weights_size as usize);
    write_image(module, contract, big_endian, &mut bytes).expect("a vector takes everything");
    bytes
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
    write_image(module, contract, big_endian, to)
}

fn write_image(
    module: &Module,
    contract: &Contract,
    big_endian: bool,
    mut to: impl Write,
) -> io::Result<()> {
    let mut places: Vec<_> =
        module.plan.weights.iter().map(|(&buffer, &at)| (at, buffer)).collect();
    places.sort_unstable();
    let mut written = 0;
    for (at, buffer) in places {
        let BufferKind::Constant(tensor) = &module.buffers[buffer].kind else { continue };
        zeros(&mut to, at - written)?;
        let bytes = in_order(tensor.bytes(), tensor.ty().dtype, big_endian);
        to.write_all(&bytes)?;
        written = at + bytes.len() as u64;
    }
    zeros(&mut to, contract.weights_size - written)
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
