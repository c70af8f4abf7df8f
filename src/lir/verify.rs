//! What holds for every module that code is made from.
//!
//! 1. Every buffer, slot and port that is named exists, and every number fits in 64 signed bits.
//! 2. The accesses of a step have the dimensions and types that its kind asks for.
//! 3. Every element of every access lies inside its buffer.
//! 4. A step writes no constant, no input and no parameter, and no place twice.
//! 5. A step's result does not overlap its operands, unless both accesses are the same and the kind
//!    allows it ([`Op::in_place`]).
//! 6. What a step or an output reads, the caller or an earlier step has written; nothing of that is a
//!    step's scratch.
//! 7. Ports are whole buffers of the kind that they say.
//! 8. Every buffer that is used has an aligned slot inside the arena, behind the context; constants
//!    have theirs inside the weights. What the plan keeps for two that are alive at the same time
//!    ([`room`]) does not overlap.
//!    A tensor outside of the arena has a pointer in it, which nothing else overlaps.
//!    A second memory has the slots of temporaries that hold nothing between runs, likewise.
//!    What another plan has is where it says; what does not live between runs is behind the others'.
//! 9. The prologue's steps read nothing that changes between runs, and no later step writes what they
//!    wrote.

use super::StepInfo;
use super::liveness::ranges;
use super::room::room;
use super::{Access, Buffer, BufferKind, CONTEXT_BYTES, Module, Op, POINTER_BYTES, Port, Step};
use super::{Attention, Shares};
use crate::mir::{Contract, Conv, Pool, Rows, Side, Weights, Winograd, windows};
use crate::types::{DType, Type};
use cranelift_entity::{EntityRef, SecondaryMap};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Looks for broken invariants.
///
/// # Errors
///
/// A sentence for each that is found. Those after the first may follow from it.
pub fn verify(module: &Module) -> Result<(), Vec<String>> {
    let mut broken = vec![];
    names(module, &mut broken);
    // The rest takes them for granted.
    if broken.is_empty() {
        let mut written: SecondaryMap<Buffer, bool> = SecondaryMap::new();
        for (buffer, info) in &module.buffers {
            // What has no elements is never read.
            written[buffer] = info.bytes == 0
                || matches!(
                    info.kind,
                    BufferKind::Input
                        | BufferKind::Parameter
                        | BufferKind::State
                        | BufferKind::Constant(_)
                );
        }
        for (step, info) in &module.steps {
            if let Err(what) = shapes(info) {
                broken.push(format!("{step}: {what}"));
            }
            places(module, step, info, &written, &mut broken);
            written[info.result.buffer] = true;
        }
        phases(module, &mut broken);
        ports(module, &written, &mut broken);
        plan(module, &mut broken);
    }
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// Invariant 1.
fn names(module: &Module, broken: &mut Vec<String>) {
    const LIMIT: u64 = 1 << 60;
    let io = &module.io;
    let ports = [("input", &io.inputs), ("parameter", &io.parameters), ("output", &io.outputs)];
    let check = |broken: &mut Vec<String>, what: &dyn Display, buffer: Buffer, ty: Type| {
        if !module.buffers.is_valid(buffer) {
            broken.push(format!("{what}: there is no {buffer}"));
        } else if Type::try_new(ty.dtype, ty.dims).is_none() {
            broken.push(format!("{what}: the tensor is too large"));
        }
    };
    for (kind, port) in ports.iter().flat_map(|(kind, list)| list.iter().map(move |p| (kind, p))) {
        let what = format_args!("{kind} \"{}\"", port.name);
        check(broken, &what, port.buffer, port.ty.clone());
    }
    for (step, access) in module.steps.keys().flat_map(|s| module.accesses(s).map(move |a| (s, a)))
    {
        check(broken, &step, access.buffer, access.ty());
        let reach = |(&d, &s): (&usize, &i64)| (d as i128 - 1).max(0) * i128::from(s).abs();
        let reach: i128 = access.dims.iter().zip(&access.strides).map(reach).sum();
        if access.dims.len() != access.strides.len() {
            broken.push(format!("{step}: as many strides as dimensions in {}", access.buffer));
        } else if reach + i128::from(access.offset).abs() > i128::from(LIMIT) {
            broken.push(format!("{step}: an element of {} is out of reach", access.buffer));
        }
    }
    for (buffer, info) in &module.buffers {
        if info.bytes > LIMIT {
            broken.push(format!("{buffer} is too large"));
        }
    }
    let plan = &module.plan;
    for (&buffer, &offset) in
        plan.slots.iter().chain(&plan.weights).chain(&plan.fast).chain(&plan.pointers)
    {
        if !module.buffers.is_valid(buffer) || offset > LIMIT {
            broken.push(format!("the slot of {buffer} at {offset}"));
        }
    }
    let guard = plan.options.guard;
    let sizes =
        [plan.fast_size, plan.arena_size, plan.weights_size, plan.weights_slot.unwrap_or(0), guard];
    if sizes.iter().any(|&size| size > LIMIT) || !plan.options.alignment.is_power_of_two() {
        broken.push(format!("sizes {sizes:?} or alignment {}", plan.options.alignment));
    }
}

/// Invariant 2.
fn shapes(info: &StepInfo) -> Result<(), String> {
    let StepInfo { op, operands, scratch, result, .. } = info;
    let count = |n: usize| match operands.len() {
        have if have == n => Ok(()),
        have => Err(format!("{have} operands for {n}")),
    };
    let holds = |what: bool, text: &str| {
        if what { Ok(()) } else { Err(format!("{text}: {} to {result}", list(operands))) }
    };
    if !matches!(op, Op::Attention(_)) {
        holds(scratch.is_none(), "a scratch")?;
    }
    let all_of_one_type = |list: &[Access]| list.iter().all(|a| a.dtype == result.dtype);
    match op {
        Op::Rows(rows) => rows_shapes(rows, operands, result),
        Op::Reduce { axes, .. } => {
            count(1)?;
            let mut dims = operands[0].dims.clone();
            holds(axes.iter().all(|&axis| axis < dims.len()), "axes")?;
            axes.iter().for_each(|&axis| dims[axis] = 1);
            holds(dims == result.dims && all_of_one_type(operands), "reduced dimensions")
        }
        Op::ArgReduce { axis, .. } => {
            count(1)?;
            let mut dims = operands[0].dims.clone();
            *dims.get_mut(*axis).ok_or("an axis that is not there")? = 1;
            holds(dims == result.dims && result.dtype == DType::I64, "reduced dimensions")
        }
        Op::Contract(Contract { weights, epilogue, backwards: _ }) => {
            holds(operands.len() >= 2 && result.dims.len() >= 2, "a matrix product")?;
            let (a, b, rank) = (&operands[0].dims, &operands[1].dims, result.dims.len());
            let (batch, m, n) =
                (&result.dims[..rank - 2], result.dims[rank - 2], result.dims[rank - 1]);
            holds(a.len() == rank && a[..rank - 2] == *batch && a[rank - 2] == m, "rows")?;
            let k = a[rank - 1];
            let expected = match *weights {
                Weights::Plain => [batch, &[k, n]].concat(),
                Weights::Panels { width, columns } => {
                    holds(columns == n && width > 0, "columns")?;
                    [batch, &[n.div_ceil(width), k, width]].concat()
                }
            };
            holds(*b == expected, "the second operand")?;
            epilogue_shapes(epilogue.as_ref(), operands, result)
        }
        Op::Attention(attention) => {
            holds(operands.len() >= 3 && result.dims.len() >= 2, "attention")?;
            let scores = attention_shapes(attention, operands, result)?;
            let shares = Shares::of(&operands[0].dims, &operands[1].dims);
            let fits = |scratch: &Access| {
                scratch.dims == [shares.count, shares.elements()]
                    && scratch.is_dense()
                    && scratch.dtype == DType::F32
            };
            holds(scores && scratch.as_ref().is_some_and(fits), "attention with its scratch")
        }
        Op::Conv(conv) => conv_shapes(conv, operands, result),
        Op::Winograd(w) => winograd_shapes(w, operands, result),
        Op::Pool(Pool { window, strides, dilations, .. }) => {
            count(1)?;
            let spatial = spatial(&operands[0].dims, window, strides, dilations);
            holds(
                spatial.is_some_and(|(spatial, n, c)| {
                    [&[n], &spatial[..], &[c]].concat() == result.dims
                }) && all_of_one_type(operands),
                "windows",
            )
        }
        Op::Gather { axis } => {
            count(2)?;
            let (data, indices) = (&operands[0], &operands[1]);
            holds(*axis < data.dims.len(), "an axis that is not there")?;
            let dims = [&data.dims[..*axis], &indices.dims, &data.dims[axis + 1..]].concat();
            let index = matches!(indices.dtype, DType::I32 | DType::I64);
            holds(
                dims == result.dims && data.dtype == result.dtype && index,
                "gathered dimensions",
            )?;
            holds(result.is_empty() || data.dims[*axis] > 0, "nothing to gather from")
        }
        Op::Move => {
            count(1)?;
            holds(operands[0].dims == result.dims && all_of_one_type(operands), "moved dimensions")
        }
        Op::Fill(literal) => {
            count(0)?;
            holds(literal.dtype == result.dtype, "the value's type")
        }
    }
}

fn rows_shapes(rows: &Rows, operands: &[Access], result: &Access) -> Result<(), String> {
    let Some(last) = rows.stages.last() else { return Err("no stages".to_owned()) };
    let mut domain = result.dims.clone();
    match domain.last_mut() {
        Some(width) if *width == rows.width || last.reduce.is_some() && *width == 1 => {
            *width = rows.width;
        }
        width => return Err(format!("rows of {} in a result of {width:?}", rows.width)),
    }
    if let Some(other) = operands.iter().find(|a| a.dims != domain) {
        return Err(format!("{other} in a domain of {domain:?}"));
    }
    let mut types: Vec<DType> = operands.iter().map(|a| a.dtype).collect();
    for stage in &rows.stages {
        types.push(stage.expr.result_type(&types).ok_or("the types in a stage")?);
    }
    if types.last() != Some(&result.dtype) {
        return Err(format!("{:?} is stored as {}", types.last(), result.dtype));
    }
    Ok(())
}

/// Whether the operands and the result of attention fit.
fn attention_shapes(
    attention: &Attention,
    operands: &[Access],
    result: &Access,
) -> Result<bool, String> {
    let [q, k, v, extra @ ..] = operands else { return Ok(false) };
    let rank = result.dims.len();
    if [q, k, v].iter().any(|a| a.dims.len() != rank || a.dtype != DType::F32) {
        return Ok(false);
    }
    let (batch, m, e) = (&result.dims[..rank - 2], result.dims[rank - 2], result.dims[rank - 1]);
    let (n, d) = (k.dims[rank - 1], q.dims[rank - 1]);
    let fits = q.dims == [batch, &[m, d]].concat()
        && k.dims == [batch, &[d, n]].concat()
        && v.dims == [batch, &[n, e]].concat()
        && attention.rows.width == n;
    let scores = Access { dims: [batch, &[m, n]].concat(), ..result.clone() };
    finished_shapes(attention.epilogue.as_ref(), DType::F32, extra, &scores)?;
    rows_shapes(&attention.rows, std::slice::from_ref(&scores), &scores)?;
    Ok(fits && attention.rows.stages.last().is_some_and(|last| last.reduce.is_none()))
}

fn list(accesses: &[Access]) -> String {
    accesses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The spatial extents of a windowed result, and the first and last extent of its operand.
fn spatial(
    dims: &[usize],
    window: &[usize],
    strides: &[usize],
    dilations: &[usize],
) -> Option<(Vec<usize>, usize, usize)> {
    let (&batch, &channels) = (dims.first()?, dims.last()?);
    let inner = dims.get(1..dims.len() - 1)?;
    let rank = inner.len();
    let in_range = |list: &&[usize]| list.iter().all(|n| (1..=1 << 30).contains(n));
    let fits = [window, strides, dilations].iter().all(|l| l.len() == rank && in_range(l));
    let extent = |i: usize| windows(inner[i], window[i], strides[i], dilations[i]);
    fits.then(|| ((0..rank).map(extent).collect(), batch, channels))
}

fn conv_shapes(conv: &Conv, operands: &[Access], result: &Access) -> Result<(), String> {
    let Conv { taps, strides, dilations, groups, weights, epilogue } = conv;
    let (Some(x), Some(w), Some(&k)) = (operands.first(), operands.get(1), result.dims.last())
    else {
        return Err("a convolution has two operands".to_owned());
    };
    let Some((spatial, n, c)) = spatial(&x.dims, taps, strides, dilations) else {
        return Err(format!("windows of {taps:?} in {x}"));
    };
    if [&[n], &spatial[..], &[k]].concat() != result.dims
        || *groups == 0
        || k % groups != 0
        || c % groups != 0
    {
        return Err(format!("{result} from {x} with {groups} groups"));
    }
    let expected = match *weights {
        Weights::Plain => [&taps[..], &[c / groups, k]].concat(),
        Weights::Panels { width, columns } if width > 0 && columns == k / groups => {
            let all: usize = taps.iter().product();
            vec![*groups, columns.div_ceil(width), all * (c / groups), width]
        }
        Weights::Panels { .. } => return Err(format!("{weights} of {k} channels")),
    };
    if w.dims != expected {
        return Err(format!("weights {w}, not {expected:?}"));
    }
    epilogue_shapes(epilogue.as_ref(), operands, result)
}

fn winograd_shapes(w: &Winograd, operands: &[Access], result: &Access) -> Result<(), String> {
    let Some((first, extra)) = operands.split_first() else {
        return Err("a transformation has an operand".to_owned());
    };
    if first.dtype != DType::F32 || !matches!(w.tile, 2 | 4 | 6) {
        return Err(format!("tiles of {} in {first}", w.tile));
    }
    let points = w.points();
    let (transformed, image, tiles) = match &w.side {
        Side::Input { before, tiles } => {
            if !extra.is_empty() || before.iter().any(|&n| n >= points) {
                return Err(format!("{} operands, {before:?} before", operands.len()));
            }
            (result, first, Some(*tiles))
        }
        Side::Output { .. } => (first, result, None),
    };
    let [n, h, width, c] = image.dims[..] else {
        return Err(format!("{image} has no two spatial axes"));
    };
    let tiles = tiles.unwrap_or([h.div_ceil(w.tile), width.div_ceil(w.tile)]);
    if transformed.dims != [points * points, n * tiles[0] * tiles[1], c] {
        return Err(format!("{transformed} for {tiles:?} tiles of {image}"));
    }
    let epilogue = match &w.side {
        Side::Input { .. } => None,
        Side::Output { epilogue } => epilogue.as_ref(),
    };
    finished_shapes(epilogue, first.dtype, extra, result)
}

fn epilogue_shapes(
    epilogue: Option<&crate::mir::Expr>,
    operands: &[Access],
    result: &Access,
) -> Result<(), String> {
    if operands[0].dtype != operands[1].dtype {
        return Err(format!("{} and {} are multiplied", operands[0].dtype, operands[1].dtype));
    }
    finished_shapes(epilogue, operands[0].dtype, &operands[2..], result)
}

/// An epilogue after sums of this type, with its operands.
fn finished_shapes(
    epilogue: Option<&crate::mir::Expr>,
    sums: DType,
    extra: &[Access],
    result: &Access,
) -> Result<(), String> {
    if let Some(other) = extra.iter().find(|a| a.dims != result.dims) {
        return Err(format!("{other} in the epilogue of {result}"));
    }
    let types: Vec<DType> = [sums].into_iter().chain(extra.iter().map(|a| a.dtype)).collect();
    let ty = match epilogue {
        Some(expr) => expr.result_type(&types),
        None if !extra.is_empty() => return Err("operands of no epilogue".to_owned()),
        None => Some(types[0]),
    };
    match ty {
        Some(ty) if ty == result.dtype => Ok(()),
        ty => Err(format!("{ty:?} is stored as {}", result.dtype)),
    }
}

/// Invariants 3 to 6 for one step.
fn places(
    module: &Module,
    step: Step,
    info: &StepInfo,
    written: &SecondaryMap<Buffer, bool>,
    broken: &mut Vec<String>,
) {
    for access in module.accesses(step) {
        let Some((low, high)) = access.span() else { continue };
        let bytes = module.buffers[access.buffer].bytes;
        let end = (i128::from(high) + 1) * access.dtype.bytes() as i128;
        if low < 0 || end > i128::from(bytes) {
            broken.push(format!("{step}: {access} reaches {low}..={high} in {bytes} bytes"));
        }
    }
    let result = &info.result;
    match module.buffers[result.buffer].kind {
        BufferKind::Output | BufferKind::State | BufferKind::Temporary => {}
        BufferKind::Input | BufferKind::Parameter | BufferKind::Constant(_) => {
            broken.push(format!("{step}: {result} is read-only"));
        }
    }
    if let Some(scratch) = &info.scratch {
        let own = module.buffers[scratch.buffer].kind == BufferKind::Temporary
            && info.operands.iter().all(|operand| operand.buffer != scratch.buffer)
            && result.buffer != scratch.buffer
            && !written[scratch.buffer];
        if !own {
            broken.push(format!("{step}: {scratch} is no scratch"));
        }
    }
    if !writes_once(result) {
        broken.push(format!("{step}: {result} is written twice to one place"));
    }
    for (index, operand) in info.operands.iter().enumerate() {
        let in_place = info.op.in_place(index) && operand.same(result);
        if !in_place && operand.overlaps(result) {
            broken.push(format!("{step}: {result} overwrites {operand}"));
        }
        if !operand.is_empty() && !written[operand.buffer] {
            broken.push(format!("{step}: {operand} is read before it is written"));
        }
    }
}

/// Whether different indices reach different elements: each stride steps over all that the smaller
/// ones reach.
fn writes_once(access: &Access) -> bool {
    let axes = access.dims.iter().zip(&access.strides).filter(|&(&d, _)| d > 1);
    let mut axes: Vec<(i64, i64)> = axes.map(|(&d, s)| (s.abs(), d as i64)).collect();
    axes.sort_unstable();
    let mut reach = 0;
    access.is_empty()
        || axes.into_iter().all(|(stride, extent)| {
            let clear = stride > reach;
            reach += stride * (extent - 1);
            clear
        })
}

/// Invariant 9.
fn phases(module: &Module, broken: &mut Vec<String>) {
    let prologue = module.plan.prologue;
    if prologue > module.steps.len() {
        broken.push(format!("a prologue of {prologue} in {} steps", module.steps.len()));
        return;
    }
    let mut varies: SecondaryMap<Buffer, bool> = SecondaryMap::new();
    for (buffer, info) in &module.buffers {
        varies[buffer] = matches!(info.kind, BufferKind::Input | BufferKind::State);
    }
    let steps = || module.steps.iter();
    steps().skip(prologue).for_each(|(_, info)| varies[info.result.buffer] = true);
    for (step, access) in
        steps().take(prologue).flat_map(|(s, _)| module.accesses(s).map(move |a| (s, a)))
    {
        if varies[access.buffer] {
            broken.push(format!(
                "{step}: {access} changes between runs, but is used in the prologue"
            ));
        }
    }
}

/// Invariants 6 and 7 for the model's border.
fn ports(module: &Module, written: &SecondaryMap<Buffer, bool>, broken: &mut Vec<String>) {
    let mut check = |what: &str, port: &Port, kinds: &dyn Fn(&BufferKind) -> bool| {
        let info = &module.buffers[port.buffer];
        if !kinds(&info.kind) || info.bytes != port.ty.bytes() as u64 {
            broken.push(format!("{what} \"{}\" is not {}", port.name, port.buffer));
        }
        if !written[port.buffer] {
            broken.push(format!("{what} \"{}\" is never written", port.name));
        }
    };
    for port in &module.io.inputs {
        check("input", port, &|kind| matches!(kind, BufferKind::Input | BufferKind::State));
    }
    for port in &module.io.parameters {
        check("parameter", port, &|kind| *kind == BufferKind::Parameter);
    }
    for port in &module.io.outputs {
        check("output", port, &|kind| match kind {
            BufferKind::Input | BufferKind::Parameter | BufferKind::Output | BufferKind::State => {
                true
            }
            BufferKind::Temporary | BufferKind::Constant(_) => false,
        });
    }
}

/// Invariant 8.
fn plan(module: &Module, broken: &mut Vec<String>) {
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
        if in_region && (info.kind != BufferKind::Temporary || lives_on) {
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
type Slot = (u32, u32, u64, u64, Buffer);

/// Slots in one memory.
fn apart(mut slots: Vec<Slot>, broken: &mut Vec<String>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{Options, lower};
    use crate::mir::{Binary, Builder, Output, Role, Unary};
    use crate::tensor::Tensor;

    /// An input, a constant, two temporaries in one window each, a product and two outputs.
    fn module() -> Module {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [4, 32]));
        let w = mir.constant(Tensor::from_f32s([32], &[0.5; 32]));
        let a = mir.binary(Binary::Add, x, w);
        let b = mir.unary(Unary::Neg, x);
        let both = mir.concat(&[a, b], 1);
        let square = mir.reshape(both, [8, 32]);
        let other = mir.permute(square, &[1, 0]);
        let product = mir.contract(square, other);
        let y = mir.unary(Unary::Exp, product);
        let outputs = [("y", y), ("z", both)];
        let outputs = outputs.map(|(name, value)| Output { name: name.into(), value });
        let graph = mir.finish(outputs.into());
        lower(&graph, Options::default()).expect("it is small")
    }

    fn breaks(expected: &str, change: impl FnOnce(&mut Module)) {
        let mut broken = module();
        change(&mut broken);
        let found = verify(&broken).expect_err(expected).join("\n");
        assert!(found.contains(expected), "{found}\n{broken}");
    }

    fn step(module: &Module, wanted: impl Fn(&Op) -> bool) -> Step {
        let found = module.steps.iter().find(|(_, info)| wanted(&info.op)).map(|(step, _)| step);
        found.expect("a step of this kind")
    }

    fn contract(op: &Op) -> bool {
        matches!(op, Op::Contract(_))
    }

    #[test]
    fn sound() {
        let module = module();
        assert_eq!(verify(&module), Ok(()), "{module}");
    }

    #[test]
    fn names_that_mean_nothing() {
        breaks("there is no b99", |m| m.io.outputs[0].buffer = Buffer::new(99));
        breaks("as many strides", |m| {
            let s = step(m, contract);
            m.steps[s].result.strides.push(1);
        });
        breaks("out of reach", |m| {
            let s = step(m, contract);
            m.steps[s].result.strides[0] = i64::MAX;
        });
        breaks("too large", |m| {
            let s = step(m, contract);
            m.steps[s].result.dims = vec![usize::MAX, usize::MAX];
        });
        breaks("alignment", |m| m.plan.options.alignment = 0);
    }

    #[test]
    fn steps_that_do_not_fit() {
        breaks("2 operands for 1", |m| {
            let s = step(m, |op| *op == Op::Move);
            let again = m.steps[s].operands[0].clone();
            m.steps[s].operands.push(again);
        });
        breaks("rows", |m| {
            let s = step(m, contract);
            m.steps[s].result.dims[0] = 7;
        });
        breaks("stored as", |m| {
            let s = step(m, contract);
            m.steps[s].result.dtype = DType::I32;
        });
        breaks("rows of 1", |m| {
            let s = step(m, |op| matches!(op, Op::Rows(_)));
            let Op::Rows(rows) = &mut m.steps[s].op else { return };
            rows.width = 1;
        });
    }

    #[test]
    fn places_that_are_wrong() {
        breaks("reaches", |m| {
            let s = step(m, contract);
            m.steps[s].operands[0].offset = 1;
        });
        breaks("read-only", |m| {
            let s = Step::new(0);
            m.steps[s].result = Access { offset: 0, ..m.steps[s].operands[0].clone() };
        });
        breaks("twice to one place", |m| {
            let s = step(m, contract);
            m.steps[s].result.strides = vec![1, 1];
        });
        breaks("overwrites", |m| {
            let s = step(m, contract);
            let (rows, columns) = (8, 8);
            let operand = m.steps[s].operands[0].clone();
            m.steps[s].result =
                Access { dims: vec![rows, columns], strides: vec![32, 1], ..operand };
        });
        breaks("before it is written", |m| {
            let s = step(m, contract);
            let info = m.steps[s].clone();
            let steps: Vec<StepInfo> =
                std::iter::once(info).chain(m.steps.values().cloned()).collect();
            m.steps = steps.into_iter().collect();
        });
    }

    #[test]
    fn ports_that_are_wrong() {
        breaks("is not", |m| m.io.outputs[0].ty.dims[0] = 3);
        breaks("is not", |m| m.io.inputs[0].buffer = m.io.outputs[0].buffer);
        breaks("never written", |m| {
            m.steps.clear();
        });
    }

    #[test]
    fn plans_that_are_wrong() {
        breaks("has no slot", |m| m.plan.slots.clear());
        breaks("outside", |m| m.plan.arena_size = 128);
        breaks("outside", |m| m.plan.slots.values_mut().for_each(|o| *o -= 64));
        breaks("not aligned", |m| m.plan.slots.values_mut().for_each(|o| *o += 4));
        breaks("overlap while both are alive", |m| {
            m.plan.slots.values_mut().for_each(|o| *o = 64);
        });
        breaks("has no slot", |m| m.plan.weights.clear());
        breaks("outside of the arena", |m| m.plan.weights_slot = Some(0));
    }
    /// Every pair of slots that are needed at the same time, moved so that they share some bytes.
    #[test]
    fn slots_that_share_bytes() {
        use crate::lir::liveness::ranges;
        let sound = module();
        let (ranges, slots) = (ranges(&sound), &sound.plan.slots);
        let align = sound.plan.options.alignment;
        let mut pairs = 0;
        for (&a, &offset) in slots {
            for &b in slots.keys() {
                let sizes =
                    [a, b].map(|buffer| sound.buffers[buffer].bytes.next_multiple_of(align));
                let meet = matches!((ranges[a], ranges[b]), (Some(a), Some(b)) if a.meets(b));
                if a == b || !meet || sizes.contains(&0) {
                    continue;
                }
                pairs += 1;
                // From the first byte on, or only the last ones of `a`.
                for at in [offset, offset + sizes[0] - align] {
                    let mut moved = sound.clone();
                    moved.plan.slots.insert(b, at);
                    moved.plan.arena_size = moved.plan.arena_size.max(at + sizes[1]);
                    let found = verify(&moved).expect_err("they overlap").join("\n");
                    assert!(found.contains("overlap while both are alive"), "{found}\n{moved}");
                }
            }
        }
        assert!(pairs > 4, "{sound}");
    }

    /// A plan that was made for shorter lives: a value is read once more after its bytes were given away.
    #[test]
    fn lives_that_are_longer_than_planned() {
        let mut mir = Builder::new("m");
        let ty = Type::new(DType::F32, [64, 4]);
        let x = mir.input("x", Role::Input, ty.clone());
        // Products are not computed in place.
        let w = mir.input("w", Role::Input, Type::new(DType::F32, [4, 4]));
        let values = (0..5).fold(vec![x], |mut all, _| {
            all.push(mir.contract(all[all.len() - 1], w));
            all
        });
        let graph = mir.finish(vec![Output { name: "y".into(), value: values[5] }]);
        let sound = lower(&graph, Options::default()).expect("it is small");
        assert_eq!(verify(&sound), Ok(()));
        let results: Vec<Access> = sound.steps.values().map(|info| info.result.clone()).collect();
        // The second result lies elsewhere than the first; the third takes its place.
        let mut longer = sound.clone();
        longer.steps[Step::new(3)].operands[0] = results[0].clone();
        let found = verify(&longer).expect_err("the bytes were given away").join("\n");
        assert!(found.contains("overlap while both are alive"), "{found}\n{longer}");
    }
}
