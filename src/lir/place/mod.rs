//! Byte offsets in one arena.
//!
//! What lives for the whole run is put side by side behind the context. The rest is placed one buffer
//! after the other, each into a gap between those it meets in time; the outcome depends on the order,
//! so several are tried and the best kept. If that is not as low as can be, a search goes on from there
//! (`exact`). The work is bounded by a count of steps, not by a clock, so that a plan does not depend
//! on the machine.

mod exact;

use super::liveness::{Range, ranges};
use super::room::room;
use super::{Buffer, BufferKind, CONTEXT_BYTES, Module};
use crate::error::ErrorKind;
use crate::types::MAX_BYTES;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Comparisons of two buffers that all attempts together may take.
const WORK: usize = 40_000_000;

/// Looks at an item that the search may take.
const SEARCH: u64 = 1_000_000;

/// A buffer to be placed. Sizes and offsets are multiples of the alignment.
#[derive(Clone, Copy, Debug)]
struct Item {
    size: u64,
    range: Range,
}

/// Fills in the module's plan.
///
/// # Errors
///
/// An arena or weights that are over the limit.
pub fn place(module: &mut Module) -> Result<(), ErrorKind> {
    let no_reuse = module.plan.options.no_reuse;
    let Problem { mut slots, weights, weights_size, weights_slot, base, items, buffers } =
        Problem::new(module);
    let unshared = base + items.iter().map(|item| item.size).sum::<u64>();
    let peak = if no_reuse { unshared - base } else { peak(&items) };
    let offsets = if no_reuse { side_by_side(&items) } else { best(&items, peak) };
    slots.extend(buffers.iter().zip(&offsets).map(|(&buffer, &offset)| (buffer, base + offset)));
    let arena_size = base + height(&items, &offsets);
    for (what, size) in [("arena", arena_size), ("weights", weights_size)] {
        if size > MAX_BYTES {
            return Err(ErrorKind::limit(format!("the {what} would have {size} bytes"))
                .help(format!("at most {MAX_BYTES}")));
        }
    }
    let plan = &mut module.plan;
    (plan.slots, plan.arena_size, plan.bound, plan.unshared) =
        (slots, arena_size, base + peak, unshared);
    (plan.weights, plan.weights_size, plan.weights_slot) = (weights, weights_size, weights_slot);
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
    problem.base + peak(&problem.items)
}

/// What is placed at once, and what is to be placed.
struct Problem {
    slots: BTreeMap<Buffer, u64>,
    weights: BTreeMap<Buffer, u64>,
    weights_size: u64,
    weights_slot: Option<u64>,
    /// The bytes before the first item.
    base: u64,
    items: Vec<Item>,
    /// Whose each item is.
    buffers: Vec<Buffer>,
}

impl Problem {
    fn new(module: &Module) -> Problem {
        let options = &module.plan.options;
        let round = |bytes: u64| bytes.next_multiple_of(options.alignment.max(1));
        let ranges = ranges(module);
        let room = room(module);
        let last = u32::try_from(module.steps.len() + 1).unwrap_or(u32::MAX);
        let mut weights = BTreeMap::new();
        let mut weights_size = 0;
        for (buffer, info) in &module.buffers {
            if let BufferKind::Constant(_) = info.kind {
                weights.insert(buffer, weights_size);
                weights_size += round(info.bytes);
            }
        }
        // What lives always, behind the context.
        let mut slots = BTreeMap::new();
        let mut base = round(CONTEXT_BYTES);
        let (mut items, mut buffers): (Vec<Item>, Vec<Buffer>) = (vec![], vec![]);
        for buffer in module.buffers.keys() {
            let Some(range) = ranges[buffer] else { continue };
            let size = round(room[buffer]);
            if size == 0 || range == (Range { first: 0, last }) {
                slots.insert(buffer, base);
                base += size;
            } else {
                items.push(Item { size, range });
                buffers.push(buffer);
            }
        }
        let weights_slot = options.weights_in_arena.then_some(base);
        if weights_slot.is_some() {
            base += weights_size;
        }
        Problem { slots, weights, weights_size, weights_slot, base, items, buffers }
    }
}

/// The largest sum of sizes that are alive at one time: no placement is lower.
fn peak(items: &[Item]) -> u64 {
    let mut changes: Vec<(u32, bool, u64)> = vec![];
    for item in items {
        changes.push((item.range.first, true, item.size));
        changes.push((item.range.last + 1, false, item.size));
    }
    changes.sort_unstable();
    let (mut live, mut most) = (0, 0);
    for (_, starts, size) in changes {
        live = if starts { live + size } else { live - size };
        most = most.max(live);
    }
    most
}

fn height(items: &[Item], offsets: &[u64]) -> u64 {
    items.iter().zip(offsets).map(|(item, offset)| offset + item.size).max().unwrap_or(0)
}

fn side_by_side(items: &[Item]) -> Vec<u64> {
    let place = |next: &mut u64, item: &Item| {
        let offset = *next;
        *next += item.size;
        Some(offset)
    };
    items.iter().scan(0, place).collect()
}

/// The lowest of several placements, or the first that reaches the bound.
fn best(items: &[Item], bound: u64) -> Vec<u64> {
    let mut best = in_time(items);
    let mut lowest = height(items, &best);
    let Some(conflicts) = conflicts(items) else { return best };
    let attempt = WORK / (conflicts.iter().map(Vec::len).sum::<usize>() + items.len()).max(1);
    let attempts =
        orders(items, &conflicts).into_iter().flat_map(|o| [(o.clone(), false), (o, true)]);
    for (order, tight) in attempts.take(attempt.max(1)) {
        if lowest == bound {
            break;
        }
        let offsets = in_order(items, &conflicts, &order, tight);
        let height = height(items, &offsets);
        if height < lowest {
            (lowest, best) = (height, offsets);
        }
    }
    exact::improve(items, bound, lowest, SEARCH).unwrap_or(best)
}

/// Places in the order of time, each into the first free block that is large enough. Near-linear.
fn in_time(items: &[Item]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| (items[i].range.first, Reverse(items[i].size)));
    let mut offsets = vec![0; items.len()];
    let mut ends: BTreeSet<(u32, usize)> = BTreeSet::new();
    // Free blocks by offset; the last one has no end.
    let mut free: BTreeMap<u64, u64> = BTreeMap::from([(0, u64::MAX)]);
    for i in order {
        while let Some(&(last, j)) = ends.first()
            && last < items[i].range.first
        {
            ends.pop_first();
            release(&mut free, offsets[j], items[j].size);
        }
        let size = items[i].size;
        let block = free.iter().find(|&(offset, end)| end - offset >= size);
        let (&offset, &end) = block.expect("the last block has no end");
        free.remove(&offset);
        if offset + size < end {
            free.insert(offset + size, end);
        }
        offsets[i] = offset;
        ends.insert((items[i].range.last, i));
    }
    offsets
}

/// Gives a block back, joined with its free neighbours.
fn release(free: &mut BTreeMap<u64, u64>, offset: u64, size: u64) {
    let (mut start, mut end) = (offset, offset + size);
    if let Some((&before, &its_end)) = free.range(..offset).next_back()
        && its_end == offset
    {
        start = before;
    }
    if let Some(behind) = free.remove(&end) {
        end = behind;
    }
    free.insert(start, end);
}

/// For each item those that it meets in time; `None` when they are too many to look at.
fn conflicts(items: &[Item]) -> Option<Vec<Vec<u32>>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| items[i].range.first);
    let mut lists: Vec<Vec<u32>> = vec![vec![]; items.len()];
    let mut alive: BTreeSet<(u32, usize)> = BTreeSet::new();
    let mut count = 0;
    for i in order {
        while alive.first().is_some_and(|&(last, _)| last < items[i].range.first) {
            alive.pop_first();
        }
        count += alive.len();
        if count > WORK / 4 {
            return None;
        }
        for &(_, j) in &alive {
            lists[i].push(j as u32);
            lists[j].push(i as u32);
        }
        alive.insert((items[i].range.last, i));
    }
    Some(lists)
}

/// The orders that are tried.
fn orders(items: &[Item], conflicts: &[Vec<u32>]) -> Vec<Vec<usize>> {
    let length = |i: usize| u64::from(items[i].range.last - items[i].range.first) + 1;
    let area = |i: usize| u128::from(items[i].size) * u128::from(length(i));
    // How much is alive with an item, at most.
    let crowd = |i: usize| {
        items[i].size + conflicts[i].iter().map(|&j| items[j as usize].size).sum::<u64>()
    };
    let crowds: Vec<u64> = (0..items.len()).map(crowd).collect();
    let all = || (0..items.len()).collect::<Vec<usize>>();
    let [mut size, mut lifetime, mut large, mut crowded, mut start, mut end] =
        std::array::from_fn(|_| all());
    size.sort_by_key(|&i| (Reverse(items[i].size), Reverse(length(i)), items[i].range.first));
    lifetime.sort_by_key(|&i| (Reverse(length(i)), Reverse(items[i].size), items[i].range.first));
    large.sort_by_key(|&i| (Reverse(area(i)), items[i].range.first));
    crowded.sort_by_key(|&i| (Reverse(crowds[i]), Reverse(items[i].size), items[i].range.first));
    start.sort_by_key(|&i| (items[i].range.first, Reverse(items[i].size)));
    end.sort_by_key(|&i| (Reverse(items[i].range.last), Reverse(items[i].size)));
    vec![size, large, lifetime, crowded, start, end]
}

/// Places in this order, each into the lowest gap that is large enough, or (`tight`) the smallest.
fn in_order(items: &[Item], conflicts: &[Vec<u32>], order: &[usize], tight: bool) -> Vec<u64> {
    let mut offsets: Vec<Option<u64>> = vec![None; items.len()];
    let mut taken: Vec<(u64, u64)> = vec![];
    for &i in order {
        taken.clear();
        for &j in &conflicts[i] {
            taken.extend(offsets[j as usize].map(|o| (o, o + items[j as usize].size)));
        }
        taken.sort_unstable();
        let size = items[i].size;
        let (mut free_from, mut found) = (0, None);
        for &(start, end) in &taken {
            let gap = start.saturating_sub(free_from);
            if gap >= size && found.is_none_or(|(smallest, _)| gap < smallest) {
                found = Some((gap, free_from));
                if !tight {
                    break;
                }
            }
            free_from = free_from.max(end);
        }
        offsets[i] = Some(found.map_or(free_from, |(_, offset)| offset));
    }
    offsets.into_iter().map(|o| o.unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn items(list: &[(u64, u32, u32)]) -> Vec<Item> {
        let item = |&(size, first, last)| Item { size, range: Range { first, last } };
        list.iter().map(item).collect()
    }

    pub(super) fn check(items: &[Item], offsets: &[u64]) {
        for (i, a) in items.iter().enumerate() {
            for (j, b) in items.iter().enumerate().take(i) {
                let apart = offsets[i] + a.size <= offsets[j] || offsets[j] + b.size <= offsets[i];
                assert!(apart || !a.range.meets(b.range), "{a:?} and {b:?} overlap");
            }
        }
    }

    #[test]
    fn chains_alternate() {
        let list = items(&[(64, 1, 2), (128, 2, 3), (64, 3, 4), (128, 4, 5)]);
        let bound = peak(&list);
        assert_eq!(bound, 192);
        let offsets = best(&list, bound);
        check(&list, &offsets);
        assert_eq!(height(&list, &offsets), bound);
    }

    /// Numbers that look random and are the same everywhere.
    pub(super) fn noise(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *state >> 33
    }

    #[test]
    fn random_plans_hold() {
        let mut state = 1;
        for _ in 0..200 {
            let count = 1 + noise(&mut state) % 40;
            let item = |_| {
                let first = (noise(&mut state) % 50) as u32;
                let last = first + (noise(&mut state) % 12) as u32;
                (64 * (1 + noise(&mut state) % 20), first, last)
            };
            let list = items(&(0..count).map(item).collect::<Vec<_>>());
            let offsets = best(&list, peak(&list));
            check(&list, &offsets);
            check(&list, &in_time(&list));
            check(&list, &side_by_side(&list));
        }
    }

    #[test]
    fn many_buffers_are_quick() {
        let mut state = 7;
        let item = |i: u64| {
            let first = i as u32;
            (64 * (1 + noise(&mut state) % 64), first, first + (noise(&mut state) % 20) as u32)
        };
        let list = items(&(0..20_000).map(item).collect::<Vec<_>>());
        let bound = peak(&list);
        let offsets = best(&list, bound);
        assert!(height(&list, &offsets) <= bound * 3 / 2);
        // All alive at once.
        let list = items(&(0..20_000).map(|i| (64, i, 20_000)).collect::<Vec<_>>());
        assert_eq!(height(&list, &best(&list, peak(&list))), peak(&list));
    }

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
