//! A second, faster memory: which buffers lie there.
//!
//! A region is small, and what is touched most belongs there. None of the model's border takes part (inputs, outputs,
//! parameters and states are found at offsets in the arena), and of the rest what was prepared for all runs only where
//! the region keeps its bytes between them: else the memory is free between runs. Each buffer is worth the bytes that all steps of a run read and write in it, and
//! costs its bytes for as long as it is alive. Those that are worth most for what they cost are taken first, as far as all that were taken can be
//! placed; a second attempt takes those that are worth most, whatever they cost, and the better one counts.

use super::liveness::Range;
use super::{Access, Buffer, BufferKind, Module, SLACK_BYTES};
use crate::placement::{self, Effort, Item, Problem};
use cranelift_entity::SecondaryMap;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A second memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Region {
    /// What it is called.
    pub name: String,
    /// How many bytes it has, those behind the last buffer included that may be read
    /// ([`SLACK_BYTES`](super::SLACK_BYTES)).
    pub bytes: u64,
    /// Whether the memory is the model's own also between runs, so that what was prepared may lie there.
    #[serde(default)]
    pub keeps: bool,
}

/// So often all that was taken is placed anew, to make room for one more.
const ATTEMPTS: usize = 200;

/// Looks at an item that each such placement may take.
const EFFORT: Effort = Effort { steps: 20_000, enough: 0 };

/// Items that were taken into a region, by their indices, and for each its offset.
struct Taken {
    items: Vec<usize>,
    offsets: Vec<u64>,
}

/// Which buffers lie in the module's region, and where; none if it has no region.
pub(super) fn take(
    module: &Module,
    ranges: &SecondaryMap<Buffer, Option<Range>>,
    room: &SecondaryMap<Buffer, u64>,
) -> BTreeMap<Buffer, u64> {
    let options = &module.plan.options;
    let Some(region) = &options.region else { return BTreeMap::new() };
    let capacity = region.bytes.saturating_sub(SLACK_BYTES);
    let heat = heat(module);
    let (mut buffers, mut items) = (vec![], vec![]);
    for (buffer, info) in &module.buffers {
        let Some(range) = ranges[buffer] else { continue };
        let size = room[buffer].next_multiple_of(options.alignment.max(1));
        let free = info.kind == BufferKind::Temporary && (region.keeps || range.first > 0);
        if free && (1..=capacity).contains(&size) && heat[buffer] > 0 {
            buffers.push(buffer);
            items.push(range.item(size));
        }
    }
    let cost =
        |i: usize| u128::from(items[i].size) * u128::from(items[i].lower.abs_diff(items[i].upper));
    let worth = |i: usize| heat[buffers[i]];
    let mut cheap: Vec<usize> = (0..items.len()).collect();
    let mut hot = cheap.clone();
    // Fractions that are scaled, so that they are whole numbers.
    cheap.sort_by_key(|&i| (Reverse((u128::from(worth(i)) << 40) / cost(i).max(1)), i));
    hot.sort_by_key(|&i| (Reverse(worth(i)), i));
    let [cheap, hot] = [cheap, hot].map(|order| fill(&items, &order, capacity));
    let all = |taken: &Taken| taken.items.iter().map(|&i| worth(i)).sum::<u64>();
    let taken = if all(&hot) > all(&cheap) { hot } else { cheap };
    taken.items.iter().map(|&i| buffers[i]).zip(taken.offsets).collect()
}

/// The bytes that the steps of a run read and write in each buffer.
pub fn heat(module: &Module) -> SecondaryMap<Buffer, u64> {
    let mut heat: SecondaryMap<Buffer, u64> = SecondaryMap::new();
    heat.resize(module.buffers.len());
    for step in module.steps.keys().skip(module.plan.prologue) {
        for access in module.accesses(step) {
            heat[access.buffer] += touched(access);
        }
    }
    heat
}

/// Bytes of the different elements that an access reaches.
fn touched(access: &Access) -> u64 {
    let axes = access.dims.iter().zip(&access.strides);
    let extents = axes.map(|(&dim, &stride)| if stride == 0 { dim.min(1) } else { dim });
    (extents.product::<usize>() * access.dtype.bytes()) as u64
}

/// Takes items in this order, each if there is still a placement that is not higher than `capacity`.
fn fill(items: &[Item], order: &[usize], capacity: u64) -> Taken {
    let mut taken = Taken { items: vec![], offsets: vec![] };
    let mut attempts = ATTEMPTS;
    for &i in order {
        let met = |&(j, _): &(usize, u64)| items[j].meets(&items[i]);
        let placed = taken.items.iter().copied().zip(taken.offsets.iter().copied());
        let mut others: Vec<(u64, u64)> =
            placed.filter(met).map(|(j, offset)| (offset, offset + items[j].size)).collect();
        others.sort_unstable();
        let mut offset = 0;
        for (start, end) in others {
            if offset + items[i].size <= start {
                break;
            }
            offset = offset.max(end);
        }
        if offset + items[i].size <= capacity {
            taken.items.push(i);
            taken.offsets.push(offset);
            continue;
        }
        // Where it does not fit beside the others as they lie, all may be moved.
        let all = taken.items.iter().chain([&i]).map(|&j| items[j]).collect();
        let problem = Problem { items: all };
        if attempts == 0 || problem.bound() > capacity {
            continue;
        }
        attempts -= 1;
        let solution = placement::solve(&problem, EFFORT);
        if solution.height <= capacity {
            taken.items.push(i);
            taken.offsets = solution.offsets;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::verify::verify;
    use crate::lir::{Options, lower};
    use crate::mir::{Binary, Builder, Output, Reduction, Role, Unary};
    use crate::types::{DType, Type};

    /// Rows that are used twice, between wide values.
    fn module(bytes: u64) -> Module {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [64]));
        let row = mir.unary(Unary::Exp, x);
        let wide = mir.broadcast(row, [32, 64]);
        let wide = mir.unary(Unary::Neg, wide);
        let most = mir.reduce(Reduction::Max, wide, &[0]);
        let sum = mir.reduce(Reduction::Sum, wide, &[0]);
        let y = mir.binary(Binary::Add, most, sum);
        let rows = mir.broadcast(row, [1, 64]);
        let y = mir.binary(Binary::Mul, y, rows);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        let region = Some(Region { name: "fast".to_owned(), bytes, keeps: false });
        lower(&graph, Options { region, ..Options::default() }).expect("it is small")
    }

    #[test]
    fn small_regions_hold_less() {
        let plain = module(0);
        assert!(plain.plan.fast.is_empty() && plain.plan.fast_size == 0, "{plain}");
        let mut held = 0;
        for bytes in [64 + 256, 64 + 512, 64 + 1024, 1 << 20] {
            let module = module(bytes);
            assert_eq!(verify(&module), Ok(()), "{module}");
            let now: u64 = module.plan.fast.keys().map(|&b| heat(&module)[b]).sum();
            assert!(now >= held && module.plan.fast_size + 64 <= bytes, "{module}");
            assert!(module.plan.arena_size <= plain.plan.arena_size);
            held = now;
        }
        let temporaries = plain.buffers.values().filter(|b| b.kind == BufferKind::Temporary);
        assert_eq!(module(1 << 20).plan.fast.len(), temporaries.count());
    }

    /// What is prepared for all runs lies in the region only if nobody else writes to it between them.
    #[test]
    fn prepared_buffers_need_a_region_that_keeps() {
        let lowered = |keeps: bool| {
            let mut mir = Builder::new("m");
            let ty = Type::new(DType::F32, [64]);
            let [x, w] = [("x", Role::Input), ("w", Role::Parameter)]
                .map(|(name, role)| mir.input(name, role, ty.clone()));
            let once = mir.unary(Unary::Exp, w);
            let y = mir.binary(Binary::Mul, x, once);
            let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
            let region = Some(Region { name: "fast".to_owned(), bytes: 1 << 10, keeps });
            lower(&graph, Options { region, ..Options::default() }).expect("it is small")
        };
        let mut kept = lowered(true);
        assert_eq!((kept.plan.fast.len(), kept.plan.fast_size), (1, 256), "{kept}");
        let plain = lowered(false);
        assert!(plain.plan.fast.is_empty());
        assert_eq!(plain.plan.arena_size, kept.plan.arena_size + 256);
        kept.plan.options.region.iter_mut().for_each(|region| region.keeps = false);
        let found = verify(&kept).expect_err("it is of no value between runs").join("; ");
        assert!(found.contains("not a temporary"), "{found}");
    }

    #[test]
    fn regions_are_verified() {
        let breaks = |text: &str, change: fn(&mut Module)| {
            let mut broken = module(1 << 20);
            change(&mut broken);
            let found = verify(&broken).expect_err(text).join("; ");
            assert!(found.contains(text), "{found}\n{broken}");
        };
        breaks("overlap", |m| m.plan.fast.values_mut().for_each(|o| *o = 0));
        breaks("not aligned", |m| m.plan.fast.values_mut().for_each(|o| *o += 4));
        breaks("outside", |m| m.plan.fast_size = 64);
        breaks("has no slot", |m| m.plan.fast.clear());
        breaks("two slots", |m| {
            let first = m.plan.fast.keys().next().copied();
            m.plan.slots.extend(first.map(|b| (b, 64)));
        });
        breaks("larger than", |m| m.plan.options.region.iter_mut().for_each(|r| r.bytes = 64));
        breaks("not a temporary", |m| {
            let x = m.io.inputs[0].buffer;
            m.plan.fast.insert(x, m.plan.slots[&x]);
            m.plan.slots.remove(&x);
        });
    }

    #[test]
    fn hot_items_move_aside_for_hotter_ones() {
        // The first two leave a gap in the middle that the third does not fit into.
        let items = [(2, 0, 2), (2, 1, 4), (3, 3, 5), (9, 0, 9)];
        let items = items.map(|(size, lower, upper)| Item::new(size, lower, upper));
        let taken = fill(&items, &[0, 1, 2, 3], 5);
        assert_eq!(taken.items, [0, 1, 2]);
        let chosen: Vec<Item> = taken.items.iter().map(|&i| items[i]).collect();
        let problem = Problem { items: chosen };
        assert_eq!(problem.check(&taken.offsets), Ok(()));
        assert!(problem.height(&taken.offsets) <= 5);
    }
}
