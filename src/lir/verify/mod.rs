//! What holds for every module that code is made from.
//!
//! 1. Every buffer, slot and port that is named exists, and every number fits in 64 signed bits.
//! 2. The accesses of a step have the dimensions and types that its kind asks for.
//! 3. Every element of every access lies inside its buffer.
//! 4. A step writes no constant, no input and no parameter, and no place twice.
//! 5. A step's result does not overlap its operands, unless both accesses are the same and the kind
//!    allows it ([`Op::in_place`]), or no byte is written that a later place of the result is computed
//!    from ([`order`](super::over::order)).
//! 6. What a step or an output reads, the caller or an earlier step has written; nothing of that is a
//!    step's scratch.
//! 7. Ports are whole buffers of the kind that they say.
//! 8. Every buffer that is used has an aligned slot inside the arena, behind the context; constants
//!    have theirs inside the weights. What the plan keeps for two that are alive at the same time
//!    ([`room`]) does not overlap.
//!    A tensor outside of the arena has a pointer in it, which nothing else overlaps.
//!    A second memory has the slots of temporaries, likewise, and only if it keeps its bytes of such that hold
//!    something between runs.
//!    What another plan has is where it says; what does not live between runs is behind the others'.
//! 9. The prologue's steps read nothing that changes between runs, and no later step writes what they
//!    wrote.

mod plan;
mod shapes;

use super::Attention;
use super::StepInfo;
use super::liveness::ranges;
use super::over;
use super::room::room;
use super::{Access, Buffer, BufferKind, CONTEXT_BYTES, Module, Op, POINTER_BYTES, Port, Step};
use crate::mir::{Contract, Conv, Pool, Rows, Side, Weights, Winograd, windows};
use crate::types::{DType, Type};
use cranelift_entity::{EntityRef, SecondaryMap};
use plan::plan;
use shapes::shapes;
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
        let in_order = || {
            let distance = info.distance(index);
            distance.is_some_and(|d| over::order(info, index).is_some_and(|clear| clear.allows(d)))
        };
        if !in_place && operand.overlaps(result) && !in_order() {
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
            m.steps[s].result.dims = [usize::MAX; 2][..].into();
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
            m.steps[s].result.strides = [1, 1][..].into();
        });
        breaks("overwrites", |m| {
            let s = step(m, contract);
            let (rows, columns) = (8, 8);
            let operand = m.steps[s].operands[0].clone();
            // From the last row on: the first one is written over before it is read.
            m.steps[s].result = Access {
                dims: [rows, columns][..].into(),
                strides: [-32, 1][..].into(),
                offset: 7 * 32,
                ..operand
            };
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
