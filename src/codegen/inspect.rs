//! The contract of an object file, read back from its descriptor.

use super::contract::{ABI_VERSION, Contract, Tensor, WeightsMode};
use super::object::{DESCRIPTOR_BYTES, STATE_BYTES, TENSOR_BYTES};
use crate::error::ErrorKind;
use crate::lir::state::State;
use crate::types::{DType, Type};
use object::ObjectKind;
use object::read::{File, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex};
use std::collections::BTreeMap;

/// Reads the descriptors of all models in an object file or a static library.
///
/// # Errors
///
/// A file that is neither, or has no descriptor, or one of another version.
pub fn inspect(file: &[u8]) -> Result<Vec<Contract>, ErrorKind> {
    let wrong = |e: object::Error| ErrorKind::wrong(format!("this is no object file: {e}"));
    let mut contracts = vec![];
    if let Ok(archive) = object::read::archive::ArchiveFile::parse(file) {
        for member in archive.members() {
            let data = member.and_then(|m| m.data(file)).map_err(wrong)?;
            contracts.extend(descriptors(&File::parse(data).map_err(wrong)?)?);
        }
    } else {
        contracts = descriptors(&File::parse(file).map_err(wrong)?)?;
    }
    if contracts.is_empty() {
        return Err(ErrorKind::wrong("there is no model in this object file")
            .help("an object of rlx-aot defines <prefix>_run and <prefix>_model"));
    }
    Ok(contracts)
}

fn descriptors(file: &File<'_>) -> Result<Vec<Contract>, ErrorKind> {
    if file.kind() != ObjectKind::Relocatable {
        return Err(ErrorKind::unsupported("the file is linked already")
            .help("what can be inspected is the object file or the static library before that"));
    }
    let mut contracts = vec![];
    for symbol in file.symbols().filter(|s| s.is_definition() && s.is_global()) {
        let Some(prefix) = symbol.name().ok().and_then(|n| n.strip_suffix("_model")) else {
            continue;
        };
        let Some(section) = symbol.section_index() else { continue };
        if file.symbols().any(|s| s.name() == Ok(&format!("{prefix}_run"))) {
            let reader = Reader::new(file)?;
            let mut contract =
                reader.contract(prefix, (section, symbol.address())).ok_or_else(|| {
                    ErrorKind::wrong(format!("the descriptor {prefix}_model is damaged"))
                })??;
            contract.versions = versions(file, prefix);
            contracts.push(contract);
        }
    }
    Ok(contracts)
}

/// The processors of a fat object's versions: each has functions `<prefix>.<processor>.part<n>_run`.
fn versions(file: &File<'_>, prefix: &str) -> Vec<String> {
    let symbols = file.symbols().filter_map(|symbol| symbol.name().ok());
    let parts = symbols.filter_map(|name| name.strip_suffix(".part0_run"));
    parts
        .filter_map(|name| Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_owned()))
        .collect()
}

/// A place in a section.
type Place = (SectionIndex, u64);

struct Reader<'a> {
    data: BTreeMap<usize, &'a [u8]>,
    /// What the pointer at a place points to.
    pointers: BTreeMap<(usize, u64), Place>,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn new(file: &File<'a>) -> Result<Reader<'a>, ErrorKind> {
        let big_endian = file.endianness() == object::Endianness::Big;
        let mut reader = Reader { data: BTreeMap::new(), pointers: BTreeMap::new(), big_endian };
        for section in file.sections() {
            let data = section.data().unwrap_or(&[]);
            reader.data.insert(section.index().0, data);
            for (at, relocation) in section.relocations() {
                let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
                let Ok(symbol) = file.symbol_by_index(symbol) else { continue };
                if let Some(target) = symbol.section_index() {
                    let offset = symbol.address().wrapping_add_signed(relocation.addend());
                    reader.pointers.insert((section.index().0, at), (target, offset));
                }
            }
        }
        Ok(reader)
    }

    fn bytes(&self, (section, at): Place, count: u64) -> Option<&'a [u8]> {
        let data = self.data.get(&section.0)?;
        data.get(usize::try_from(at).ok()?..)?.get(..usize::try_from(count).ok()?)
    }

    fn u32(&self, place: Place) -> Option<u32> {
        let bytes = self.bytes(place, 4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u64(&self, place: Place) -> Option<u64> {
        let bytes = self.bytes(place, 8)?.try_into().ok()?;
        Some(if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn pointer(&self, (section, at): Place) -> Option<Place> {
        self.pointers.get(&(section.0, at)).copied()
    }

    fn text(&self, pointer: Place) -> Option<String> {
        let (section, at) = self.pointer(pointer)?;
        let rest = self.data.get(&section.0)?.get(usize::try_from(at).ok()?..)?;
        let end = rest.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    /// `None` if it is damaged.
    fn contract(&self, prefix: &str, start: Place) -> Option<Result<Contract, ErrorKind>> {
        let at = |offset: u64| (start.0, start.1 + offset);
        let (abi, size) = (self.u32(at(0))?, self.u32(at(4))?);
        if abi != ABI_VERSION || u64::from(size) < DESCRIPTOR_BYTES {
            return Some(Err(ErrorKind::unsupported(format!(
                "{prefix}_model is of version {abi} of the ABI, and this is for {ABI_VERSION}"
            ))));
        }
        let tensors = |pointer: u64, count: u64| {
            let count = self.u32(at(count))?;
            let first = self.pointer(at(pointer));
            let tensor = |i| self.tensor((first?.0, first?.1 + i * TENSOR_BYTES));
            (0..u64::from(count)).map(tensor).collect::<Option<Vec<_>>>()
        };
        let first = self.pointer(at(144));
        let state = |i: u64| {
            let at = |field: u64| Some((first?.0, first?.1 + i * STATE_BYTES + field));
            let [input, output] = [self.u32(at(0)?)?, self.u32(at(4)?)?];
            Some(State { input: input as usize, output: output as usize })
        };
        let states = 0..u64::from(self.u32(at(152))?);
        let mode = self.u32(at(68))?;
        Some(Ok(Contract {
            prefix: prefix.to_owned(),
            name: self.text(at(8))?,
            arena_size: self.u64(at(16))?,
            arena_align: self.u64(at(24))?,
            inputs: tensors(32, 56)?,
            outputs: tensors(40, 60)?,
            params: tensors(48, 64)?,
            states: states.map(state).collect::<Option<_>>()?,
            weights_mode: *WeightsMode::ALL.get(mode as usize)?,
            weights_size: self.u64(at(80))?,
            weights_offset: self.u64(at(88))?,
            guard: self.u32(at(156))?,
            region_size: self.u64(at(160))?,
            fingerprint: self.bytes(at(96), 32)?.try_into().ok()?,
            prepare: self.pointer(at(136)).is_some(),
            versions: vec![],
            region_keeps: false,
            overwrites_inputs: false,
        }))
    }

    fn tensor(&self, start: Place) -> Option<Tensor> {
        let at = |offset: u64| (start.0, start.1 + offset);
        let rank = self.u32(at(16))?;
        let dims = self.pointer(at(8));
        let dim = |i: u64| usize::try_from(self.u64((dims?.0, dims?.1 + 8 * i))?).ok();
        let dims: Vec<usize> = (0..u64::from(rank)).map(dim).collect::<Option<_>>()?;
        let dtype = DType::from_onnx(self.u32(at(20))?)?;
        Type::try_new(dtype, dims.clone())?;
        let (offset, bytes) = (self.u64(at(24))?, self.u64(at(32))?);
        Some(Tensor { name: self.text(at(0))?, dtype, dims, offset, bytes })
    }
}
