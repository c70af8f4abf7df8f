//! The object file: the descriptor, the weights, the weak `run`, and how it is written.

use super::contract::{ABI_VERSION, Contract, Tensor, WEIGHTS_ALIGN, WeightsMode};
use super::weights;
use crate::error::ErrorKind;
use crate::lir;
use object::write::{
    Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection, WritableBuffer,
};
use object::{
    RelocationEncoding, RelocationFlags, RelocationKind, SymbolFlags, SymbolKind, SymbolScope,
};
use std::io;

/// An object file that is ready to be written.
#[derive(Debug)]
pub struct Object {
    pub(super) image: Image,
    /// What it promises.
    pub contract: Contract,
    /// Whether it has `<prefix>_run_profiled`.
    pub profile: bool,
    /// Steps of the schedule.
    pub steps: usize,
    /// Different kernels that they call.
    pub kernels: usize,
    /// Bytes of each of them with its constants, in the program's order.
    pub kernel_bytes: Vec<u64>,
    /// Bytes of all functions with their constants.
    pub code_bytes: u64,
    /// The assembler text, if it was asked for.
    pub listing: Option<String>,
}

impl Object {
    /// Writes the file, without a copy of the weights.
    ///
    /// # Errors
    ///
    /// What `to` gives.
    pub fn write_to(&self, to: impl io::Write) -> io::Result<()> {
        let Image { object, weights } = &self.image;
        let mut stream =
            Stream { to, length: 0, result: Ok(()), weights: weights.as_ref(), object };
        object.emit(&mut stream).map_err(|error| io::Error::other(error.to_string()))?;
        stream.result?;
        stream.to.flush()
    }

    /// The names of all symbols that other objects see.
    pub fn exports(&self) -> Vec<String> {
        let embedded = self.contract.weights_mode == WeightsMode::Embedded;
        let suffixes = [
            ("_run", true),
            ("_prepare", self.contract.prepare),
            ("_run_profiled", self.profile),
            ("_model", true),
            ("_weights", embedded),
        ];
        let there = suffixes.into_iter().filter(|(_, there)| *there);
        let prefixed = there.map(|(suffix, _)| format!("{}{suffix}", self.contract.prefix));
        prefixed.chain(["run".to_owned()]).collect()
    }

    /// The file's bytes.
    ///
    /// # Errors
    ///
    /// What cannot be represented in the format: a bug of ours.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ErrorKind> {
        let mut bytes = vec![];
        self.write_to(&mut bytes)
            .map_err(|error| ErrorKind::bug(format!("object file: {error}")))?;
        Ok(bytes)
    }
}

/// An object file whose weights are still with the module.
#[derive(Debug)]
pub(super) struct Image {
    object: object::write::Object<'static>,
    /// What is written in place of the zeros that fill this section.
    weights: Option<(SectionId, weights::Image)>,
}

/// Where an object file is written to.
struct Stream<'a, W> {
    to: W,
    length: usize,
    result: io::Result<()>,
    object: &'a object::write::Object<'static>,
    weights: Option<&'a (SectionId, weights::Image)>,
}

impl<W: io::Write> WritableBuffer for Stream<'_, W> {
    fn len(&self) -> usize {
        self.length
    }

    fn reserve(&mut self, _: usize) -> Result<(), ()> {
        Ok(())
    }

    fn resize(&mut self, length: usize) {
        let zeros = [0; 1024];
        while self.length < length {
            self.write_bytes(&zeros[..(length - self.length).min(zeros.len())]);
        }
    }

    fn write_bytes(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if self.result.is_ok() {
            // The zeros are known by their address.
            self.result = match self.weights {
                Some((section, image))
                    if std::ptr::eq(bytes, self.object.section(*section).data()) =>
                {
                    image.write(&mut self.to)
                }
                _ => self.to.write_all(bytes),
            };
        }
    }
}

/// The functions that the descriptor points to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Functions {
    pub(super) run: SymbolId,
    pub(super) prepare: Option<SymbolId>,
}

/// Adds to the functions what else is in the object.
pub(super) fn finish(
    mut image: object::write::Object<'static>,
    contract: &Contract,
    functions: Functions,
    weights: Option<SymbolId>,
    module: &lir::Module,
    big_endian: bool,
) -> Result<Image, ErrorKind> {
    let prefix = &contract.prefix;
    // A program with one model need not know its prefix.
    let Symbol { value, size, kind, scope, section, .. } = *image.symbol(functions.run);
    let (name, flags) = (b"run".to_vec(), SymbolFlags::None);
    image.add_symbol(Symbol { name, value, size, kind, scope, weak: true, section, flags });
    let weights = weights.map(|local| {
        let section = image.section_id(StandardSection::ReadOnlyData);
        // Zeros that nobody touches cost no memory.
        let zeros = vec![0; contract.weights_size as usize];
        image.set_section_data(section, zeros, WEIGHTS_ALIGN);
        // The code refers to a local symbol, so that a shared object can be made of it.
        let symbol = image.symbol_mut(local);
        (symbol.scope, symbol.kind) = (SymbolScope::Compilation, SymbolKind::Data);
        image.set_symbol_data(local, section, 0, contract.weights_size);
        export(&mut image, &format!("{prefix}_weights"), section, 0, contract.weights_size);
        section
    });
    let descriptor = Descriptor::new(contract, big_endian);
    let section = image.section_id(StandardSection::ReadOnlyDataWithRel);
    image.set_section_data(section, descriptor.bytes, 16);
    for (at, pointee) in descriptor.pointers {
        let (target, addend) = match pointee {
            Pointee::Here(offset) => (section, offset),
            Pointee::Run => function(&image, functions.run)?,
            Pointee::Prepare => match functions.prepare {
                Some(prepare) => function(&image, prepare)?,
                None => continue,
            },
            Pointee::Weights => match weights {
                Some(section) => (section, 0),
                None => continue,
            },
        };
        let symbol = image.section_symbol(target);
        let flags = RelocationFlags::Generic {
            kind: RelocationKind::Absolute,
            encoding: RelocationEncoding::Generic,
            size: 64,
        };
        let relocation = Relocation { offset: at, symbol, addend: addend as i64, flags };
        image
            .add_relocation(section, relocation)
            .map_err(|error| ErrorKind::bug(format!("object file: {error}")))?;
    }
    export(&mut image, &format!("{prefix}_model"), section, 0, DESCRIPTOR_BYTES);
    let weights =
        weights.map(|section| (section, weights::Image::new(module, contract, big_endian)));
    Ok(Image { object: image, weights })
}

/// Where a function is.
fn function(
    image: &object::write::Object<'_>,
    symbol: SymbolId,
) -> Result<(SectionId, u64), ErrorKind> {
    let symbol = image.symbol(symbol);
    let section = symbol.section.id();
    Ok((section.ok_or_else(|| ErrorKind::bug("a function is not defined"))?, symbol.value))
}

fn export(
    image: &mut object::write::Object<'_>,
    name: &str,
    section: SectionId,
    value: u64,
    size: u64,
) {
    image.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size,
        kind: SymbolKind::Data,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
}

/// `sizeof(rlx_model)` and `sizeof(rlx_tensor)`.
pub(super) const DESCRIPTOR_BYTES: u64 = 168;
pub(super) const TENSOR_BYTES: u64 = 40;
/// `sizeof(rlx_state)`.
pub(super) const STATE_BYTES: u64 = 8;

/// The descriptor, the tensors that it points to, their dimensions, the states and all names.
struct Descriptor {
    big_endian: bool,
    bytes: Vec<u8>,
    /// Where a pointer is, and to what.
    pointers: Vec<(u64, Pointee)>,
}

enum Pointee {
    /// Bytes from the descriptor's start.
    Here(u64),
    Run,
    Prepare,
    Weights,
}

impl Descriptor {
    fn new(contract: &Contract, big_endian: bool) -> Descriptor {
        let lists = [&contract.inputs, &contract.outputs, &contract.params];
        let mut d = Descriptor { big_endian, bytes: vec![], pointers: vec![] };
        // What is pointed to lies behind the fixed part: tensors, dimensions, states, names.
        let mut tensors = DESCRIPTOR_BYTES;
        let mut dims = tensors + TENSOR_BYTES * lists.iter().map(|l| l.len() as u64).sum::<u64>();
        let ranks = lists.iter().flat_map(|l| l.iter()).map(|t| t.dims.len() as u64);
        let states = dims + 8 * ranks.sum::<u64>();
        let mut names = states + STATE_BYTES * contract.states.len() as u64;
        let mut name = |d: &mut Descriptor, text: &str| {
            d.pointer(Pointee::Here(names));
            names += text.len() as u64 + 1;
        };
        d.u32(ABI_VERSION);
        d.u32(DESCRIPTOR_BYTES as u32);
        name(&mut d, &c_string(&contract.name));
        d.u64(contract.arena_size);
        d.u64(contract.arena_align);
        for list in lists {
            d.pointer(Pointee::Here(tensors));
            tensors += TENSOR_BYTES * list.len() as u64;
        }
        lists.iter().for_each(|list| d.u32(list.len() as u32));
        d.u32(contract.weights_mode as u32);
        d.pointer(Pointee::Weights);
        d.u64(contract.weights_size);
        d.u64(contract.weights_offset);
        d.bytes.extend(contract.fingerprint);
        d.pointer(Pointee::Run);
        d.pointer(Pointee::Prepare);
        d.pointer(Pointee::Here(states));
        d.u32(contract.states.len() as u32);
        d.u32(contract.guard);
        d.u64(contract.region_size);
        for tensor in lists.into_iter().flatten() {
            let Tensor { dtype, offset, bytes, .. } = tensor;
            name(&mut d, &c_string(&tensor.name));
            d.pointer(Pointee::Here(dims));
            dims += 8 * tensor.dims.len() as u64;
            d.u32(tensor.dims.len() as u32);
            d.u32(dtype.onnx());
            d.u64(*offset);
            d.u64(*bytes);
        }
        let tensors = || lists.into_iter().flatten();
        tensors().flat_map(|t| &t.dims).for_each(|&dim| d.u64(dim as u64));
        for state in &contract.states {
            d.u32(state.input as u32);
            d.u32(state.output as u32);
        }
        for text in std::iter::once(&contract.name).chain(tensors().map(|t| &t.name)) {
            d.bytes.extend(c_string(text).bytes());
            d.bytes.push(0);
        }
        d
    }

    fn u32(&mut self, value: u32) {
        let bytes = if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes.extend(bytes);
    }

    fn u64(&mut self, value: u64) {
        let bytes = if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        self.bytes.extend(bytes);
    }

    fn pointer(&mut self, to: Pointee) {
        self.pointers.push((self.bytes.len() as u64, to));
        self.u64(0);
    }
}

/// The text without zero bytes, which end a string in C.
fn c_string(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
