//! Invariant 8: the plan against the lives of the buffers.

use super::*;

/// Invariant 8.
pub(super) fn plan(module: &Module, broken: &mut Vec<String>) {
    let plan = &module.plan;
    let ranges = ranges(module);
    let room = room(module);
    // What is alive always comes first: it is there before all else.
    let (mut slots, mut fast): (Vec<Slot>, Vec<Slot>) = (vec![], vec![]);
    for (buffer, info) in &module.buffers {
        let constant = matches!(info.kind, BufferKind::Constant(_));
        let in_region = plan.fast.contains_key(&buffer);
        if in_region && plan.slots.contains_key(&buffer) {
            broken.push(format!("{buffer} has two slots"));
        }
        let (place, size) = match info.kind {
            BufferKind::Constant(_) => (plan.weights.get(&buffer), plan.weights_size),
            _ if ranges[buffer].is_none() => continue,
            _ if in_region => (plan.fast.get(&buffer), plan.fast_size),
            _ => (plan.slots.get(&buffer), plan.arena_size),
        };
        if let Some(&at) = plan.pointers.get(&buffer) {
            if plan.slots.contains_key(&buffer) || !plan.options.outside.has(&info.kind) {
                broken.push(format!("{buffer} is outside, and should not be"));
            }
            if at < CONTEXT_BYTES || at + POINTER_BYTES > plan.arena_size || at % POINTER_BYTES != 0
            {
                broken.push(format!("the pointer to {buffer} at {at} is outside or not aligned"));
            }
            slots.push((0, u32::MAX, at, at + POINTER_BYTES, buffer));
            continue;
        }
        let Some(&offset) = place else {
            broken.push(format!("{buffer} has no slot"));
            continue;
        };
        let bytes = if constant { info.bytes } else { room[buffer] };
        let free_start = constant || in_region;
        if offset + bytes > size || !free_start && offset < CONTEXT_BYTES {
            broken.push(format!("{buffer} lies at {offset}, outside of {size}"));
        }
        if !offset.is_multiple_of(plan.options.alignment) {
            broken.push(format!("{buffer} at {offset} is not aligned"));
        }
        let lives_on = match info.kind {
            BufferKind::Input => false,
            BufferKind::Parameter | BufferKind::State | BufferKind::Constant(_) => true,
            BufferKind::Output | BufferKind::Temporary => {
                ranges[buffer].is_some_and(|range| range.first == 0)
            }
        };
        let keeps = plan.options.region.as_ref().is_some_and(|region| region.keeps);
        if in_region && (info.kind != BufferKind::Temporary || lives_on && !keeps) {
            broken.push(format!("{buffer} in the second memory is not a temporary"));
        }
        if !in_region
            && !lives_on
            && info.bytes > 0
            && plan.options.scratch.is_some_and(|s| offset < s)
        {
            broken.push(format!("{buffer} at {offset} is where other models are"));
        }
        if let Some(range) = ranges[buffer].filter(|_| info.bytes > 0) {
            let list = if in_region { &mut fast } else { &mut slots };
            list.push((range.first, range.last, offset, offset + bytes, buffer));
        }
    }
    for port in &module.io.parameters {
        let fixed = plan.options.parameters.get(&port.name);
        if fixed.is_some_and(|f| plan.slots.get(&port.buffer).is_some_and(|&o| o != f.offset)) {
            broken.push(format!("parameter \"{}\" is not where the other plan has it", port.name));
        }
    }
    if let Some(offset) = plan.weights_slot {
        let end = offset + plan.weights_size;
        if end > plan.arena_size || offset < CONTEXT_BYTES {
            broken.push(format!("the weights at {offset} are outside of the arena"));
        }
        if plan.weights_size > 0 {
            slots.push((0, u32::MAX, offset, end, Buffer::new(u32::MAX as usize - 1)));
        }
    }
    let mut constants: Vec<(u64, Buffer)> = plan.weights.iter().map(|(&b, &o)| (o, b)).collect();
    constants.retain(|&(_, buffer)| module.buffers[buffer].bytes > 0);
    constants.sort_unstable();
    for pair in constants.windows(2) {
        if pair[0].0 + module.buffers[pair[0].1].bytes > pair[1].0 {
            broken.push(format!("constants {} and {} overlap", pair[0].1, pair[1].1));
        }
    }
    let room = plan.options.region.as_ref().map_or(0, |region| region.bytes);
    if plan.fast_size > room {
        broken.push(format!(
            "{} used bytes are larger than the second memory of {room}",
            plan.fast_size
        ));
    }
    [slots, fast].into_iter().for_each(|slots| apart(slots, broken));
}

/// When a buffer is alive, first and last, where it begins and ends, and which it is.
pub(super) type Slot = (u32, u32, u64, u64, Buffer);

/// Slots in one memory.
pub(super) fn apart(mut slots: Vec<Slot>, broken: &mut Vec<String>) {
    // In the order of time, with what is alive by its offset: a new one may only meet its neighbours.
    slots.sort_unstable();
    let mut alive: BTreeMap<u64, (u64, Buffer)> = BTreeMap::new();
    let mut ends: BTreeSet<(u32, u64)> = BTreeSet::new();
    for (first, last, start, end, buffer) in slots {
        while let Some(&(over, offset)) = ends.first()
            && over < first
        {
            ends.pop_first();
            alive.remove(&offset);
        }
        let before = alive.range(..end).next_back().map(|(_, &slot)| slot);
        if let Some((_, other)) = before.filter(|&(its_end, _)| its_end > start) {
            broken.push(format!("{other} and {buffer} overlap while both are alive"));
            return;
        }
        alive.insert(start, (end, buffer));
        ends.insert((last, start));
    }
}
