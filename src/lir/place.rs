//! Byte offsets in one arena.
//!
//! What lives for the whole run is put side by side behind the context, the rest as low as can be: here
//! the buffers become items of a [`placement`] problem, which is solved there.

use super::liveness::{Range, ranges};
use super::permanent::{Permanent, permanent};
use super::room::room;
use super::{Buffer, BufferKind, CONTEXT_BYTES, Module, POINTER_BYTES, region};
use crate::error::ErrorKind;
use crate::placement::csv::Table;
use crate::placement::{self, Effort, Item};
use crate::types::MAX_BYTES;
use std::collections::BTreeMap;

/// Fills in the module's plan.
///
/// # Errors
///
/// An arena or weights that are over the limit.
pub fn place(module: &mut Module) -> Result<(), ErrorKind> {
    let no_reuse = module.plan.options.no_reuse;
    let effort = Effort { steps: module.plan.options.budget, enough: 0 };
    // What is not in the second memory lies here.
    let (ranges, room) = (ranges(module), room(module));
    let fast = region::take(module, &ranges, &room);
    let size = |buffer: &Buffer| room[*buffer].next_multiple_of(module.plan.options.alignment);
    let fast_size = fast.iter().map(|(buffer, offset)| offset + size(buffer)).max().unwrap_or(0);
    (module.plan.fast, module.plan.fast_size) = (fast, fast_size);
    let Problem {
        pointers,
        mut slots,
        weights,
        weights_size,
        weights_slot,
        base,
        problem,
        buffers,
    } = Problem::new(module);
    let unshared = base + problem.items.iter().map(|item| item.size).sum::<u64>();
    let (offsets, bound) = if no_reuse {
        (side_by_side(&problem.items), unshared - base)
    } else {
        let solution = placement::solve(&problem, effort);
        (solution.offsets, solution.bound)
    };
    slots.extend(buffers.iter().zip(&offsets).map(|(&buffer, &offset)| (buffer, base + offset)));
    let arena_size = base + problem.height(&offsets);
    for (what, size) in [("arena", arena_size), ("weights", weights_size)] {
        if size > MAX_BYTES {
            return Err(ErrorKind::limit(format!("the {what} would have {size} bytes"))
                .help(format!("at most {MAX_BYTES}")));
        }
    }
    let plan = &mut module.plan;
    (plan.slots, plan.arena_size, plan.bound, plan.unshared) =
        (slots, arena_size, base + bound, unshared);
    (plan.weights, plan.weights_size, plan.weights_slot) = (weights, weights_size, weights_slot);
    plan.pointers = pointers;
    Ok(())
}

/// Slots that a model file brings along, by the names of its tensors.
#[derive(Clone, PartialEq, Debug)]
pub struct Kept {
    /// Offset and size of each, in bytes. The context is not counted: it comes before.
    pub slots: BTreeMap<String, (u64, u64)>,
    /// Bytes of the arena, without the context.
    pub arena_size: u64,
}

/// Fills in the module's plan with the slots in the file. What the file has no slot for, because it
/// comes from expanding an operator or is a view there, lies behind them.
///
/// # Errors
///
/// An arena that is over the limit.
pub fn keep(module: &mut Module, kept: &Kept) -> Result<(), ErrorKind> {
    place(module)?;
    let align = module.plan.options.alignment;
    let room = room(module);
    // Of an operator's buffers the last one is its result.
    let mut buffers: BTreeMap<&str, Buffer> = BTreeMap::new();
    for (buffer, info) in &module.buffers {
        let fits = |&(_, size): &(u64, u64)| info.bytes > 0 && info.bytes <= size;
        if module.plan.slots.contains_key(&buffer) && kept.slots.get(&info.name).is_some_and(fits) {
            buffers.insert(&info.name, buffer);
        }
    }
    let start = CONTEXT_BYTES.next_multiple_of(align);
    let mut end = (start + kept.arena_size).next_multiple_of(align);
    let kept: BTreeMap<Buffer, u64> =
        buffers.into_iter().map(|(name, buffer)| (buffer, start + kept.slots[name].0)).collect();
    let mut behind = |bytes: u64| {
        let offset = end;
        end += bytes.next_multiple_of(align);
        offset
    };
    for (buffer, slot) in &mut module.plan.slots {
        let offset = kept.get(buffer).copied();
        *slot = offset.unwrap_or_else(|| behind(room[*buffer]));
    }
    let weights_size = module.plan.weights_size;
    module.plan.weights_slot = module.plan.weights_slot.map(|_| behind(weights_size));
    module.plan.arena_size = end;
    if end > MAX_BYTES {
        return Err(ErrorKind::limit(format!("the arena would have {end} bytes")));
    }
    Ok(())
}

/// The largest sum of what is alive at one time, with the context: no arena for this schedule is
/// smaller.
pub fn bound(module: &Module) -> u64 {
    let problem = Problem::new(module);
    problem.base + problem.problem.bound()
}

/// The whole arena as a placement problem: the context, weights that have a slot, and the buffers by their
/// handles; without what lies in the second memory. Its lowest height is the size of the arena. What another plan or a shared arena has moved is
/// fixed.
pub fn table(module: &Module) -> Table {
    let round = |bytes: u64| bytes.next_multiple_of(module.plan.options.alignment.max(1));
    let end = i64::from(last(module)) + 1;
    let mut table = Table::default();
    let mut row = |id: String, item: Item| {
        table.ids.push(id);
        table.problem.items.push(item);
    };
    row("context".to_owned(), Item::new(round(CONTEXT_BYTES), 0, end));
    if module.plan.weights_slot.is_some() {
        row("weights".to_owned(), Item::new(module.plan.weights_size, 0, end));
    }
    let (ranges, room) = (ranges(module), room(module));
    let options = &module.plan.options;
    let still = options.scratch.is_some() || !options.parameters.is_empty();
    let pointers = module.plan.pointers.len() as u64 * POINTER_BYTES;
    if pointers > 0 {
        row("pointers".to_owned(), Item::new(round(pointers), 0, end));
    }
    let elsewhere = |buffer: &Buffer| {
        module.plan.fast.contains_key(buffer) || module.plan.pointers.contains_key(buffer)
    };
    for buffer in module.buffers.keys().filter(|buffer| !elsewhere(buffer)) {
        if let Some(range) = ranges[buffer] {
            let always = still && range == (Range { first: 0, last: last(module) });
            let fixed = module.plan.slots.get(&buffer).copied().filter(|_| always);
            row(buffer.to_string(), Item { fixed, ..range.item(round(room[buffer])) });
        }
    }
    table
}

/// The time behind the last step.
fn last(module: &Module) -> u32 {
    u32::try_from(module.steps.len() + 1).unwrap_or(u32::MAX)
}

/// What is placed at once, and what is to be placed.
struct Problem {
    pointers: BTreeMap<Buffer, u64>,
    slots: BTreeMap<Buffer, u64>,
    weights: BTreeMap<Buffer, u64>,
    weights_size: u64,
    weights_slot: Option<u64>,
    /// The bytes before the first item.
    base: u64,
    /// Its sizes are multiples of the alignment.
    problem: placement::Problem,
    /// Whose each item is.
    buffers: Vec<Buffer>,
}

impl Problem {
    fn new(module: &Module) -> Problem {
        let options = &module.plan.options;
        let round = |bytes: u64| bytes.next_multiple_of(options.alignment.max(1));
        let (ranges, room) = (ranges(module), room(module));
        let mut weights = BTreeMap::new();
        let mut weights_size = 0;
        for (buffer, info) in &module.buffers {
            if let BufferKind::Constant(_) = info.kind {
                weights.insert(buffer, weights_size);
                weights_size += round(info.bytes);
            }
        }
        let still = permanent(module, &ranges, &room, weights_size);
        let Permanent { slots, pointers, weights_slot, kept: _, end: base } = still;
        let (mut items, mut buffers): (Vec<Item>, Vec<Buffer>) = (vec![], vec![]);
        let elsewhere = |buffer: &Buffer| {
            slots.contains_key(buffer)
                || pointers.contains_key(buffer)
                || module.plan.fast.contains_key(buffer)
        };
        for buffer in module.buffers.keys().filter(|buffer| !elsewhere(buffer)) {
            let Some(range) = ranges[buffer] else { continue };
            items.push(range.item(round(room[buffer])));
            buffers.push(buffer);
        }
        let problem = placement::Problem { items };
        Problem { pointers, slots, weights, weights_size, weights_slot, base, problem, buffers }
    }
}

fn side_by_side(items: &[Item]) -> Vec<u64> {
    let place = |next: &mut u64, item: &Item| {
        let offset = *next;
        *next += item.size;
        Some(offset)
    };
    items.iter().scan(0, place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_kept() {
        use crate::lir::{Options, lower_kept};
        use crate::mir::{Builder, Output, Role, Unary};
        use crate::types::{DType, Type};

        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [16]));
        mir.set_origin("a");
        let a = mir.unary(Unary::Exp, x);
        mir.set_origin("b");
        let b = mir.unary(Unary::Neg, a);
        let b = mir.unary(Unary::Sqrt, b);
        let graph = mir.finish(vec![Output { name: "b".to_owned(), value: b }]);
        let lowered = |a: u64| {
            let slots = [("x", 128), ("a", a), ("b", 0)];
            let slots = slots.map(|(name, offset)| (name.to_owned(), (offset, 64))).into();
            lower_kept(&graph, Options::default(), &Kept { slots, arena_size: 192 })
        };
        let module = lowered(64).unwrap();
        let slot = |name: &str| {
            let found = module.buffers.iter().filter(|(_, info)| info.name == name);
            let slots: Vec<_> = found.map(|(buffer, _)| module.plan.slots[&buffer]).collect();
            slots
        };
        assert_eq!((slot("x"), slot("a")), (vec![192], vec![128]));
        // What comes before the result of "b" lies behind.
        assert_eq!(slot("b"), [256, 64]);
        assert_eq!(module.plan.arena_size, 320);
        assert!(lowered(128).is_err(), "x and a are alive at the same time");
    }
}
