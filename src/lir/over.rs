//! Results over operands that die.
//!
//! A step that goes through its rows in the order of memory, or from the last one to the first, needs no room beside
//! its operand: what it writes may lie where rows were that it does not read again. So both are parts of one
//! buffer, a few rows apart. Which order a step's kernel keeps, and how many rows it reads before it writes, is for
//! the kernels to say ([`Clear`]); [`order`] says what any such order asks for, whatever the kernel is, and the verifier holds
//! every module to that.
//!
//! One thread computes such a step: shares of it have no order.

use super::liveness::{Range, ranges};
use super::{Access, Buffer, BufferInfo, BufferKind, Module, Op, Step, StepInfo, place, verify};
use crate::error::ErrorKind;
use crate::mir::{Contract, Conv, Pool};
use cranelift_entity::{EntityRef, PrimaryMap, SecondaryMap};
use std::collections::BTreeMap;

/// The arena is lower by at least one of so many parts, or all stays as it is.
const WORTH: u64 = 64;

/// So many results are put over operands, at most.
const MOST: usize = 256;

/// How far the lowest byte of a step's result may lie behind the lowest one of an operand in whose place it is
/// written, in bytes: at most so far, where rows are written in the order of memory, or at least so far, where the last row is
/// written first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clear {
    /// At most.
    pub at_most: i64,
    /// At least.
    pub at_least: i64,
}

impl Clear {
    /// Any distance.
    const ANY: Clear = Clear { at_most: i64::MAX, at_least: i64::MIN };

    /// What both allow, each in the same order.
    #[must_use]
    pub fn and(self, other: Clear) -> Clear {
        Clear {
            at_most: self.at_most.min(other.at_most),
            at_least: self.at_least.max(other.at_least),
        }
    }

    /// Whether this distance is one of them.
    pub fn allows(self, distance: i64) -> bool {
        distance <= self.at_most || distance >= self.at_least
    }
}

/// How a step's result may lie over an operand, given by its index, as far as that depends on kernels; `None` where it
/// may not, or where what that costs is not to be paid.
pub type Kernels<'a> = dyn Fn(&StepInfo, usize) -> Option<Clear> + 'a;

impl StepInfo {
    /// Whether the result lies over an operand, and is not just where that is: one thread computes it then, in order.
    pub fn is_over(&self) -> bool {
        (0..self.operands.len()).any(|operand| self.distance(operand).is_some())
    }

    /// How many bytes the result lies behind an operand that it is written over; `None` where it lies elsewhere, or
    /// just where the operand is.
    pub fn distance(&self, operand: usize) -> Option<i64> {
        let (operand, result) = (&self.operands[operand], &self.result);
        if operand.buffer != result.buffer || operand.same(result) || !operand.overlaps(result) {
            return None;
        }
        Some(lowest(result)? - lowest(operand)?)
    }
}

/// The first byte of what an access reaches, from the start of its buffer.
fn lowest(access: &Access) -> Option<i64> {
    Some(access.span()?.0 * access.dtype.bytes() as i64)
}

/// Where the result may lie over an operand when it is computed place by place, in the order of its indices but for
/// the last axis, of which all is computed at once; `None` where steps of this kind may not lie over theirs.
pub fn order(info: &StepInfo, operand: usize) -> Option<Clear> {
    let result = &info.result;
    let x = info.operands.get(operand)?;
    // Of each axis of the result but the last: how far the window moves in the operand, and the bytes of the window.
    let size = x.dtype.bytes() as i64;
    let moved = |axis: usize, by: usize| x.strides[axis] * by as i64 * size;
    let reach = |axis: usize, count: usize, step: usize| {
        let last = x.strides[axis] * (count.checked_sub(1)? * step) as i64 * size;
        Some((last.min(0), last.max(0)))
    };
    let windows = |taps: &[usize], strides: &[usize], dilations: &[usize]| {
        let spatial = taps.len();
        let steps = (0..=spatial).map(|axis| match axis.checked_sub(1) {
            None => moved(0, 1),
            Some(i) => moved(axis, strides[i]),
        });
        let reaches = (0..spatial).map(|i| reach(i + 1, taps[i], dilations[i]));
        let reaches: Option<Vec<_>> =
            reaches.chain([reach(spatial + 1, x.dims[spatial + 1], 1)]).collect();
        Some((steps.collect::<Vec<i64>>(), reaches?))
    };
    let (steps, reaches) = match &info.op {
        Op::Contract(Contract { .. }) if operand == 0 => {
            let last = x.dims.len() - 1;
            ((0..last).map(|axis| moved(axis, 1)).collect(), vec![reach(last, x.dims[last], 1)?])
        }
        Op::Conv(Conv { taps, strides, dilations, .. }) if operand == 0 => {
            windows(taps, strides, dilations)?
        }
        Op::Pool(Pool { window, strides, dilations, .. }) => windows(window, strides, dilations)?,
        Op::Rows(_) | Op::Reduce { .. } | Op::ArgReduce { .. } | Op::Contract(_) => return None,
        Op::Attention(_) | Op::Conv(_) | Op::Winograd(_) | Op::Gather { .. } => return None,
        Op::Scatter { .. } | Op::Sort { .. } | Op::Scan(_) | Op::Move | Op::Fill(_) => return None,
    };
    let window = reaches.iter().fold((0, size), |all, one| (all.0 + one.0, all.1 + one.1));
    let (last, places) = result.dims.split_last()?;
    let width = result.dtype.bytes() as i64;
    let end = result.strides[places.len()] * (*last as i64 - 1) * width;
    let written = (end.min(0), end.max(0) + width);
    let axes = Access { dims: places[..].into(), strides: steps.into(), ..x.clone() };
    let (mut reads, mut writes) = (vec![], vec![]);
    Access { offset: x.offset * size, ..axes }.for_each(|at| reads.push(at));
    let strides = result.strides[..places.len()].to_vec();
    let axes = Access { dims: places[..].into(), strides: strides.into(), ..result.clone() };
    axes.for_each(|at| writes.push(at * width));
    let (x, result) = (lowest(x)?, lowest(result)?);
    let (mut clear, mut stored) = (Clear::ANY, None);
    for (read, write) in reads.into_iter().zip(writes) {
        let (read, write) = (read - x, write - result);
        if let Some((least, most)) = stored {
            clear = clear
                .and(Clear { at_most: read + window.0 - most, at_least: read + window.1 - least });
        }
        let (low, high) = (write + written.0, write + written.1);
        let (least, most) = stored.unwrap_or((low, high));
        stored = Some((least.min(low), most.max(high)));
    }
    Some(clear)
}

/// The same step with its rows from the last one to the first, where those are independent of each other.
fn turned(info: &StepInfo) -> Option<StepInfo> {
    let rows = info.result.dims.len().checked_sub(1)?;
    let alike = match &info.op {
        Op::Contract(_) => true,
        Op::Conv(conv) => {
            conv.taps.iter().chain(&conv.strides).all(|&one| one == 1) && conv.groups == 1
        }
        Op::Rows(_) | Op::Reduce { .. } | Op::ArgReduce { .. } | Op::Attention(_) => false,
        Op::Winograd(_) | Op::Pool(_) | Op::Gather { .. } | Op::Scatter { .. } => false,
        Op::Sort { .. } | Op::Scan(_) | Op::Move | Op::Fill(_) => false,
    };
    if !alike {
        return None;
    }
    let is_product = matches!(info.op, Op::Contract(_));
    let turn = |index: usize, access: &Access| {
        // Of the right operand of a product only the batch has rows; that of a convolution has none.
        let axes = match (index, is_product) {
            (1, true) => rows - 1,
            (1, false) => 0,
            _ => rows,
        };
        let mut access = access.clone();
        for axis in 0..axes {
            access.offset += access.strides[axis] * (access.dims[axis] as i64 - 1);
            access.strides[axis] = -access.strides[axis];
        }
        access
    };
    let operands = info.operands.iter().enumerate().map(|(i, access)| turn(i, access)).collect();
    Some(StepInfo { operands, result: turn(usize::MAX, &info.result), ..info.clone() })
}

/// The module with results over operands that die, where its arena is smaller for it; `None` where it would not be.
///
/// # Errors
///
/// As [`place::place`].
pub fn overlap(module: &Module, kernels: &Kernels<'_>) -> Result<Option<Module>, ErrorKind> {
    let options = &module.plan.options;
    let apart = options.no_reuse || options.uniform || options.region.is_some();
    if apart || !options.alias {
        return Ok(None);
    }
    let mut now = Groups::new(module);
    let mut lowest = (now.peak().0, None);
    for _ in 0..MOST {
        let (peak, time) = now.peak();
        if peak < lowest.0 {
            lowest = (peak, Some(now.clone()));
        }
        let Some(merge) = now.best_at(time, kernels) else { break };
        now.merge(merge);
    }
    let (peak, Some(found)) = lowest else { return Ok(None) };
    let size = module.plan.arena_size;
    if peak > size - size / WORTH {
        return Ok(None);
    }
    let mut over = found.module();
    place::place(&mut over)?;
    over.plan.unshared = module.plan.unshared;
    if over.plan.arena_size > size - size / WORTH {
        return Ok(None);
    }
    if cfg!(debug_assertions)
        && let Err(broken) = verify::verify(&over)
    {
        panic!("with results over operands: {}\n{over}", broken.join("\n"));
    }
    Ok(Some(over))
}

/// Buffers that become one, with where each of them begins in it.
#[derive(Clone)]
struct Group {
    range: Range,
    low: i64,
    high: i64,
    members: Vec<(Buffer, i64)>,
}

impl Group {
    fn bytes(&self) -> u64 {
        (self.high - self.low).unsigned_abs()
    }
}

/// The buffers of a module in groups.
#[derive(Clone)]
struct Groups<'a> {
    module: &'a Module,
    /// `None` for those that became parts of others.
    groups: Vec<Option<Group>>,
    /// The group of each buffer, and where in that it begins.
    place: SecondaryMap<Buffer, Option<(usize, i64)>>,
    /// Whether a buffer may become a part of another.
    free: SecondaryMap<Buffer, bool>,
    /// Steps whose rows are taken from the last one on.
    turned: BTreeMap<Step, StepInfo>,
    align: i64,
}

/// That the groups of a step's operand and of its result become one.
struct Merge {
    step: Step,
    /// The step with its rows from the last one on, if it is to be.
    turned: Option<StepInfo>,
    /// The operand's group and the result's.
    groups: [usize; 2],
    /// From the start of the one to that of the other.
    shift: i64,
    bytes: u64,
}

impl<'a> Groups<'a> {
    fn new(module: &'a Module) -> Groups<'a> {
        let align = module.plan.options.alignment.max(64);
        let ranges = ranges(module);
        let room = super::room::room(module);
        let mut sizes: SecondaryMap<Buffer, Option<usize>> = SecondaryMap::new();
        let mut free: SecondaryMap<Buffer, bool> = SecondaryMap::new();
        for (buffer, info) in &module.buffers {
            free[buffer] = info.kind == BufferKind::Temporary && info.bytes > 0;
        }
        for access in module.steps.keys().flat_map(|step| module.accesses(step)) {
            let size = access.dtype.bytes();
            free[access.buffer] &= *sizes[access.buffer].get_or_insert(size) == size;
        }
        let (mut groups, mut place) = (vec![], SecondaryMap::new());
        for buffer in module.buffers.keys() {
            let Some(range) = ranges[buffer] else { continue };
            let high = room[buffer].next_multiple_of(align) as i64;
            place[buffer] = Some((groups.len(), 0));
            groups.push(Some(Group { range, low: 0, high, members: vec![(buffer, 0)] }));
        }
        let (turned, align) = (BTreeMap::new(), align as i64);
        Groups { module, groups, place, free, turned, align }
    }

    /// The most that is alive at one time, and the first such time.
    fn peak(&self) -> (u64, usize) {
        let mut changes = vec![(0u64, 0u64); self.module.steps.len() + 3];
        for group in self.groups.iter().flatten() {
            changes[group.range.first as usize].0 += group.bytes();
            changes[group.range.last as usize + 1].1 += group.bytes();
        }
        let mut now = 0;
        let mut peak = (0, 0);
        for (time, (more, less)) in changes.into_iter().enumerate() {
            now = now + more - less;
            if now > peak.0 {
                peak = (now, time);
            }
        }
        peak
    }

    /// What would need least of what is possible at a time.
    fn best_at(&self, time: usize, kernels: &Kernels<'_>) -> Option<Merge> {
        let step = Step::new(time.checked_sub(1)?);
        let info = self.module.steps.get(step)?;
        let rides =
            |step: usize| self.module.steps.get(Step::new(step)).is_some_and(StepInfo::rides);
        let (result, at) = self.place[info.result.buffer]?;
        let theirs = self.groups[result].as_ref()?;
        if !self.free[info.result.buffer]
            || theirs.range.first as usize != time
            || rides(step.index())
            || step.index().checked_sub(1).is_some_and(rides)
        {
            return None;
        }
        let mut best: Option<Merge> = None;
        for access in &info.operands {
            let Some((group, _)) = self.place[access.buffer] else { continue };
            let Some(mine) = &self.groups[group] else { continue };
            let size = access.dtype.bytes() == info.result.dtype.bytes();
            if !self.free[access.buffer]
                || group == result
                || mine.range.last as usize != time
                || !size
            {
                continue;
            }
            let variants = std::iter::once(None).chain(turned(info).map(Some));
            for turned in variants {
                let info = turned.as_ref().unwrap_or(info);
                let Some(shift) = self.shift(info, group, [mine, theirs], at, kernels) else {
                    continue;
                };
                let low = mine.low.min(theirs.low + shift);
                let bytes = (mine.high.max(theirs.high + shift) - low).unsigned_abs();
                if bytes < mine.bytes() + theirs.bytes()
                    && best.as_ref().is_none_or(|best| bytes < best.bytes)
                {
                    best = Some(Merge { step, turned, groups: [group, result], shift, bytes });
                }
            }
        }
        best
    }

    /// How far the result's group has to begin behind the operands', so that both need the fewest bytes.
    fn shift(
        &self,
        info: &StepInfo,
        group: usize,
        [mine, theirs]: [&Group; 2],
        at: i64,
        kernels: &Kernels<'_>,
    ) -> Option<i64> {
        let written = at + lowest(&info.result)?;
        let mut clear = Clear::ANY;
        for (index, operand) in info.operands.iter().enumerate() {
            let Some((_, at)) = self.place[operand.buffer].filter(|(other, _)| *other == group)
            else {
                continue;
            };
            let one = order(info, index)?.and(kernels(info, index)?);
            // Of the groups, where it is of the operand and the result.
            let between = at + lowest(operand)? - written;
            clear = clear.and(Clear {
                at_most: one.at_most.saturating_add(between),
                at_least: one.at_least.saturating_add(between),
            });
        }
        let align = self.align;
        let at_most = clear.at_most.div_euclid(align).saturating_mul(align);
        let at_least =
            clear.at_least.saturating_add(align - 1).div_euclid(align).saturating_mul(align);
        // From here on, for a while, the one is inside of the other.
        let (one, other) = (mine.low - theirs.low, mine.high - theirs.high);
        let first = one.min(other);
        let (below, above) = (at_most.min(first), at_least.max(first));
        let shifts = [below, above, below.saturating_sub(align), above.saturating_add(align)];
        let bytes = |shift: i64| {
            let low = mine.low.min(theirs.low.saturating_add(shift));
            mine.high.max(theirs.high.saturating_add(shift)).saturating_sub(low)
        };
        // Just where an operand is, it would be in place, which is for other steps.
        let is_same = |shift: i64| {
            let there = |operand: &&Access| {
                let place = self.place[operand.buffer].filter(|(other, _)| *other == group);
                let distance =
                    place.zip(lowest(operand)).map(|((_, at), low)| written + shift - at - low);
                distance == Some(0)
                    && operand.dims == info.result.dims
                    && operand.strides == info.result.strides
            };
            info.operands.iter().any(|operand| there(&operand))
        };
        shifts.into_iter().filter(|&shift| !is_same(shift)).min_by_key(|&shift| bytes(shift))
    }

    fn merge(&mut self, merge: Merge) {
        let Merge { step, turned, groups: [into, from], shift, bytes: _ } = merge;
        let Some(from) = self.groups[from].take() else { return };
        let Some(group) = &mut self.groups[into] else { return };
        group.range.last = group.range.last.max(from.range.last);
        group.low = group.low.min(from.low + shift);
        group.high = group.high.max(from.high + shift);
        for (buffer, at) in from.members {
            group.members.push((buffer, at + shift));
            self.place[buffer] = Some((into, at + shift));
        }
        self.turned.extend(turned.map(|info| (step, info)));
    }

    /// The module in which each group is one buffer.
    fn module(&self) -> Module {
        let mut module = self.module.clone();
        let mut buffers: PrimaryMap<Buffer, BufferInfo> = PrimaryMap::new();
        let mut of_group: BTreeMap<usize, Buffer> = BTreeMap::new();
        // For each buffer the one that it is now, and bytes from that one's start.
        let mut moved: SecondaryMap<Buffer, Option<(Buffer, i64)>> = SecondaryMap::new();
        for (buffer, info) in &self.module.buffers {
            let place = self.place[buffer];
            let place = place.and_then(|(at, shift)| Some((at, shift, self.groups[at].as_ref()?)));
            let Some((at, shift, group)) = place else {
                moved[buffer] = Some((buffers.push(info.clone()), 0));
                continue;
            };
            let new = *of_group.entry(at).or_insert_with(|| {
                if group.members.len() == 1 {
                    return buffers.push(info.clone());
                }
                let infos = group.members.iter().map(|&(b, _)| &self.module.buffers[b]);
                let name = infos.max_by_key(|info| info.bytes).map_or("", |info| &info.name);
                let (name, kind) = (name.to_owned(), BufferKind::Temporary);
                buffers.push(BufferInfo { name, bytes: group.bytes(), kind })
            });
            moved[buffer] = Some((new, shift - group.low));
        }
        for (step, info) in &self.turned {
            module.steps[*step] = info.clone();
        }
        let to = |access: &mut Access| {
            if let Some((buffer, by)) = moved[access.buffer] {
                access.buffer = buffer;
                access.offset += by / access.dtype.bytes() as i64;
            }
        };
        for info in module.steps.values_mut() {
            info.operands.iter_mut().chain(&mut info.scratch).for_each(to);
            to(&mut info.result);
        }
        let io = &mut module.io;
        let ports = [&mut io.inputs, &mut io.parameters, &mut io.outputs];
        for port in ports.into_iter().flatten() {
            port.buffer = moved[port.buffer].map_or(port.buffer, |(buffer, _)| buffer);
        }
        module.buffers = buffers;
        module
    }
}
