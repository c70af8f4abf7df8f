//! What has bytes of its own for the whole run: where it lies.
//!
//! From the arena's start: the context, pointers to what is outside of the arena, then what lives between runs (parameters, states, what the prologue has made
//! for the others, weights with a slot), then the inputs. Only behind all of them do buffers share bytes.
//!
//! Parameters may have to lie where another plan has them ([`Options::parameters`](super::Options::parameters)); the others fill
//! what is free between them. What does not live between runs may have to begin further behind
//! ([`Options::scratch`](super::Options::scratch)), where other models use the bytes between.

use super::liveness::{Range, ranges};
use super::room::room;
use super::{Buffer, BufferKind, CONTEXT_BYTES, Module, POINTER_BYTES};
use crate::error::{ErrorKind, nearest};
use cranelift_entity::SecondaryMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where another plan has a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fixed {
    /// Bytes from the arena's start.
    pub offset: u64,
    /// How many bytes the parameter has there.
    pub bytes: u64,
}

/// What lies still.
#[derive(Debug, Default)]
pub(super) struct Permanent {
    pub(super) slots: BTreeMap<Buffer, u64>,
    /// Where the pointers to what is outside are.
    pub(super) pointers: BTreeMap<Buffer, u64>,
    pub(super) weights_slot: Option<u64>,
    /// The end of what lives between runs.
    pub(super) kept: u64,
    /// The end of all.
    pub(super) end: u64,
}

/// Places what is alive always, for a plan whose weights have so many bytes.
pub(super) fn permanent(
    module: &Module,
    ranges: &SecondaryMap<Buffer, Option<Range>>,
    room: &SecondaryMap<Buffer, u64>,
    weights_size: u64,
) -> Permanent {
    let options = &module.plan.options;
    let align = options.alignment.max(1);
    let round = |bytes: u64| bytes.next_multiple_of(align);
    let last = u32::try_from(module.steps.len() + 1).unwrap_or(u32::MAX);
    let always = Range { first: 0, last };
    let mut found = Permanent::default();
    let mut taken = vec![(0, round(CONTEXT_BYTES))];
    let outside = |info: &super::BufferInfo| info.bytes > 0 && options.outside.has(&info.kind);
    let outside: Vec<Buffer> = module
        .buffers
        .iter()
        .filter(|(buffer, info)| outside(info) && ranges[*buffer].is_some())
        .map(|(buffer, _)| buffer)
        .collect();
    let fixed = fixed(module);
    for (&buffer, slot) in &fixed {
        taken.push((slot.offset, slot.offset + round(room[buffer])));
        found.slots.insert(buffer, slot.offset);
    }
    taken.sort_unstable();
    found.kept = taken.iter().map(|&(_, end)| end).max().unwrap_or(0);
    let pointers = outside.len() as u64 * POINTER_BYTES;
    let first = first_gap(&mut taken, round(pointers));
    found.kept = found.kept.max(first + round(pointers));
    let at = |(i, &buffer): (usize, &Buffer)| (buffer, first + i as u64 * POINTER_BYTES);
    found.pointers = outside.iter().enumerate().map(at).collect();
    let inside = |buffer: &Buffer| {
        !fixed.contains_key(buffer)
            && !found.pointers.contains_key(buffer)
            && !module.plan.fast.contains_key(buffer)
    };
    let free = module.buffers.iter().filter(|(buffer, _)| inside(buffer));
    let free = free.filter_map(|(buffer, info)| Some((buffer, info, ranges[buffer]?)));
    let still = |range: Range, size: u64| size == 0 || range == always;
    let still = free.filter(|&(buffer, _, range)| still(range, room[buffer]));
    let (inputs, kept): (Vec<_>, Vec<_>) =
        still.partition(|(_, info, _)| info.kind == BufferKind::Input);
    for (buffer, ..) in kept {
        let size = round(room[buffer]);
        let offset = first_gap(&mut taken, size);
        found.slots.insert(buffer, offset);
        found.kept = found.kept.max(offset + size);
    }
    if options.weights_in_arena {
        let offset = first_gap(&mut taken, weights_size);
        found.weights_slot = Some(offset);
        found.kept = found.kept.max(offset + weights_size);
    }
    if let Some(scratch) = options.scratch {
        // From here to there are other models.
        taken = vec![(0, round(scratch).max(found.kept))];
    }
    for (buffer, ..) in inputs {
        found.slots.insert(buffer, first_gap(&mut taken, round(room[buffer])));
    }
    found.end = taken.iter().map(|&(_, end)| end).max().unwrap_or(0);
    found
}

/// The first offset from which on so many bytes are free; takes them. What is taken is in the order of its offsets.
fn first_gap(taken: &mut Vec<(u64, u64)>, size: u64) -> u64 {
    if size == 0 {
        return taken.first().map_or(0, |&(_, end)| end);
    }
    let mut offset = 0;
    let mut at = taken.len();
    for (i, &(start, end)) in taken.iter().enumerate() {
        if offset + size <= start {
            at = i;
            break;
        }
        offset = offset.max(end);
    }
    match at.checked_sub(1).and_then(|before| taken.get_mut(before)) {
        Some((_, end)) if *end == offset => *end += size,
        _ => taken.insert(at, (offset, offset + size)),
    }
    offset
}

/// The parameters that another plan has too.
fn fixed(module: &Module) -> BTreeMap<Buffer, Fixed> {
    let known = &module.plan.options.parameters;
    let shared = |port: &super::Port| Some((port.buffer, *known.get(&port.name)?));
    module.io.parameters.iter().filter_map(shared).collect()
}

/// Whether the parameters can lie where the other plan has them.
///
/// # Errors
///
/// No parameter that both have, one of another size or alignment, and two that would overlap.
pub(super) fn check_fixed(module: &Module) -> Result<(), ErrorKind> {
    let options = &module.plan.options;
    if options.parameters.is_empty() {
        return Ok(());
    }
    if options.outside.parameters {
        let kind = ErrorKind::usage("parameters outside of the arena lie nowhere in it");
        return Err(kind.help("leave out one of --outside params and --share-params"));
    }
    let known: Vec<&str> = options.parameters.keys().map(String::as_str).collect();
    let fixed = fixed(module);
    if fixed.is_empty() {
        let names: Vec<&str> = module.io.parameters.iter().map(|p| p.name.as_str()).collect();
        let kind = ErrorKind::usage("the plans have no parameter in common");
        let near = names.iter().find_map(|n| Some((n, nearest(n, known.iter().copied())?)));
        return Err(match near {
            Some((name, other)) => {
                kind.help(format!("the model has \"{name}\", the other plan \"{other}\""))
            }
            None if names.is_empty() => {
                kind.help("the model has no parameters that are set at run time")
            }
            None => kind.help(format!("the other plan has \"{}\"", known.join("\", \""))),
        });
    }
    let (room, start) = (room(module), CONTEXT_BYTES.next_multiple_of(options.alignment.max(1)));
    let mut slots: Vec<(u64, u64, &str)> = vec![(0, start, "the context")];
    for port in &module.io.parameters {
        let Some(slot) = fixed.get(&port.buffer) else { continue };
        let (name, bytes) = (&port.name, port.ty.bytes() as u64);
        if bytes != slot.bytes {
            let kind = ErrorKind::wrong(format!(
                "the parameter \"{name}\" has {bytes} bytes, and {} in the other plan",
                slot.bytes
            ));
            return Err(
                kind.help(format!("it is {} here: both models must have it alike", port.ty))
            );
        }
        if !slot.offset.is_multiple_of(options.alignment.max(1)) {
            let (at, align) = (slot.offset, options.alignment);
            let kind = ErrorKind::usage(format!(
                "the parameter \"{name}\" lies at {at} in the other plan, which is not aligned to {align}"
            ));
            return Err(kind.help("take the --align of the other plan"));
        }
        slots.push((slot.offset, slot.offset.saturating_add(room[port.buffer]), name));
    }
    slots.sort_unstable();
    match slots.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => {
            let (one, other) = (pair[0].2, pair[1].2);
            let kind = ErrorKind::usage(format!(
                "\"{one}\" and \"{other}\" overlap where the other plan has them"
            ));
            Err(kind
                .help("with --uniform-slots here, the other plan must have been made with it too"))
        }
        None => Ok(()),
    }
}

/// Where several models lie in one arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shared {
    /// For each model, how far its arena begins behind the start of all.
    pub bases: Vec<u64>,
    /// Bytes of all, context and slots of each included.
    pub size: u64,
}

/// Places several models in one arena: what lives between runs has bytes of its own, all else shares those
/// behind it. So no two may run at the same time, and a run of one leaves nothing of the inputs and outputs of the others.
///
/// # Errors
///
/// An arena that is over the limit, and a second memory that keeps what several would put there.
pub fn share(modules: &mut [&mut Module]) -> Result<Shared, ErrorKind> {
    let keeps = |module: &&&mut Module| {
        module.plan.options.region.as_ref().is_some_and(|region| region.keeps)
    };
    if modules.len() > 1 && modules.iter().any(|module| keeps(&module)) {
        let kind = ErrorKind::usage("a second memory that is one model's between runs");
        return Err(kind.help("models that share an arena share the region too: leave out ,keep"));
    }
    let align = modules.iter().map(|module| module.plan.options.alignment).max().unwrap_or(1);
    let mut bases = vec![];
    let mut scratch = 0;
    for module in modules.iter() {
        bases.push(scratch);
        scratch += kept(module).next_multiple_of(align.max(1));
    }
    let mut size = 0;
    for (module, base) in modules.iter_mut().zip(&bases) {
        module.plan.options.scratch = Some(scratch - base);
        super::place::place(module)?;
        size = size.max(base + module.plan.arena_size);
    }
    Ok(Shared { bases, size })
}

/// Bytes before the first shared one that belong to nobody here.
pub fn gaps(module: &Module) -> u64 {
    let (ranges, room) = (ranges(module), room(module));
    let align = module.plan.options.alignment.max(1);
    let still = permanent(module, &ranges, &room, module.plan.weights_size);
    let weights = if still.weights_slot.is_some() { module.plan.weights_size } else { 0 };
    let slots = still.slots.keys().map(|&buffer| room[buffer].next_multiple_of(align));
    let taken = CONTEXT_BYTES.next_multiple_of(align) + weights + slots.sum::<u64>();
    still.end.saturating_sub(taken)
}

/// Bytes from the arena's start, of which some live between runs.
fn kept(module: &Module) -> u64 {
    permanent(module, &ranges(module), &room(module), module.plan.weights_size).kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::verify::verify;
    use crate::lir::{Options, lower};
    use crate::mir::{Binary, Builder, Output, Reduction, Role, Unary};
    use crate::types::{DType, Type};

    /// A sum over `x * w` and `v`, with a wide value between.
    fn module(name: &str, elements: usize, options: Options) -> Result<Module, ErrorKind> {
        let mut mir = Builder::new(name);
        let ty = Type::new(DType::F32, [elements]);
        let x = mir.input("x", Role::Input, ty.clone());
        let w = mir.input("w", Role::Parameter, ty.clone());
        let v = mir.input(format!("{name}.v"), Role::Parameter, ty);
        let once = mir.unary(Unary::Exp, v);
        let y = mir.binary(Binary::Mul, x, w);
        let y = mir.binary(Binary::Add, y, once);
        let wide = mir.broadcast(y, [8, elements]);
        let wide = mir.unary(Unary::Exp, wide);
        let y = mir.reduce(Reduction::Sum, wide, &[0]);
        lower(&mir.finish(vec![Output { name: "y".into(), value: y }]), options)
    }

    fn parameters(list: &[(&str, u64, u64)]) -> Options {
        let fixed =
            list.iter().map(|&(name, offset, bytes)| (name.to_owned(), Fixed { offset, bytes }));
        Options { parameters: fixed.collect(), ..Options::default() }
    }

    #[test]
    fn parameters_lie_where_they_did() {
        for offset in [64, 128, 256, 1024] {
            let module =
                module("m", 32, parameters(&[("w", offset, 128), ("other", 0, 7)])).unwrap();
            assert_eq!(module.plan.slots[&module.io.parameters[0].buffer], offset);
            assert_eq!(verify(&module), Ok(()), "{module}");
        }
    }

    #[test]
    fn parameters_that_cannot_are_errors() {
        let says = |options: Options, text: &str| {
            let error = module("m", 32, options).expect_err(text);
            assert!(format!("{} {:?}", error.message, error.help).contains(text), "{error}");
        };
        says(parameters(&[("u", 64, 128)]), "no parameter in common");
        says(parameters(&[("w", 64, 64)]), "128 bytes, and 64 in the other plan");
        says(parameters(&[("w", 72, 128)]), "not aligned to 64");
        says(parameters(&[("w", 0, 128)]), "the context");
        says(parameters(&[("w", 64, 128), ("m.v", 128, 128)]), "overlap");
    }

    #[test]
    fn models_share_what_they_do_not_keep() {
        let mut one = module("one", 32, Options::default()).unwrap();
        let mut two = module("two", 64, Options::default()).unwrap();
        let (alone, bound) = ([&one, &two].map(|m| m.plan.arena_size), two.plan.bound);
        let shared = share(&mut [&mut one, &mut two]).unwrap();
        // The parameters and what was prepared: three tensors each, and the context.
        let kept = [64 + 3 * 128, 64 + 3 * 256];
        assert_eq!(shared.bases, [0, kept[0]]);
        assert_eq!(shared.size, (kept[0] + alone[0]).max(kept[0] + bound));
        assert!(shared.size < alone[0] + alone[1]);
        for module in [&one, &two] {
            assert_eq!(verify(module), Ok(()), "{module}");
            let scratch = module.plan.options.scratch.unwrap();
            assert!(module.plan.slots[&module.io.inputs[0].buffer] >= scratch);
        }
    }
}
