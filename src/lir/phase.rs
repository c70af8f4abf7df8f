//! What is computed once, and what in every run.
//!
//! The steps that depend on parameters and constants only are the prologue: they come first in the
//! schedule, are a function of their own in the object, and what they make for the others lives always.
//! The rest is the steady state. A model without parameters has no prologue: what depends on constants
//! only is folded by the passes, and without them computed in every run.

use super::{Buffer, BufferInfo, BufferKind, Module, Options, Step, StepInfo};
use crate::mir::{self, Graph, Role, Value};
use cranelift_entity::{EntityRef, PrimaryMap, SecondaryMap};

/// When a step has to run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Phase {
    /// Once, after the parameters were set.
    Prologue,
    /// In every run.
    #[default]
    Steady,
}

/// The phase of every step.
pub fn phases(module: &Module) -> SecondaryMap<Step, Phase> {
    let mut phases = SecondaryMap::with_capacity(module.steps.len());
    for step in module.steps.keys() {
        let once = step.index() < module.plan.prologue;
        phases[step] = if once { Phase::Prologue } else { Phase::Steady };
    }
    phases
}

/// The values that are the same in every run; none if the graph has no parameters, or none are asked
/// for.
pub(super) fn invariants(graph: &Graph, options: &Options) -> SecondaryMap<Value, bool> {
    let parameter = |value: &Value| {
        matches!(graph.nodes[*value].op, mir::Op::Input { role: Role::Parameter, .. })
    };
    let mut invariant: SecondaryMap<Value, bool> = SecondaryMap::new();
    if options.prepare && graph.inputs.iter().any(parameter) {
        for (value, node) in &graph.nodes {
            invariant[value] = !matches!(node.op, mir::Op::Input { role: Role::Input, .. })
                && node.operands.iter().all(|&operand| invariant[operand]);
        }
    }
    invariant
}

/// The order with its invariants first.
pub(super) fn invariants_first(
    order: &[Value],
    invariant: &SecondaryMap<Value, bool>,
) -> Vec<Value> {
    let (mut first, rest): (Vec<_>, Vec<_>) = order.iter().partition(|&&value| invariant[value]);
    first.extend(rest);
    first
}

/// Brings the prologue's steps to the front, with something about each of them, and counts them.
///
/// Invariant: the steps of invariant values come before all others but for copies of what is never
/// overwritten, so that no step comes to read what another one has put there since.
pub(super) fn separate<T>(
    steps: &mut PrimaryMap<Step, StepInfo>,
    what: &mut PrimaryMap<Step, T>,
    buffers: &PrimaryMap<Buffer, BufferInfo>,
    options: &Options,
) -> usize {
    let parameters = reached(steps, buffers, |kind| *kind == BufferKind::Parameter);
    let varies = reached(steps, buffers, |kind| match kind {
        BufferKind::Input | BufferKind::State => true,
        // The program may bind other memory for it.
        BufferKind::Output => options.outside.outputs,
        BufferKind::Parameter | BufferKind::Temporary | BufferKind::Constant(_) => false,
    });
    let is_prologue = |info: &StepInfo| !varies[info.result.buffer];
    let worth = |info: &StepInfo| is_prologue(info) && parameters[info.result.buffer];
    if !options.prepare || !steps.values().any(worth) {
        return 0;
    }
    let all = std::mem::take(steps).into_iter().zip(std::mem::take(what));
    let all = all.map(|((_, info), (_, what))| (info, what));
    let (prologue, rest): (Vec<_>, Vec<_>) = all.partition(|(info, _)| is_prologue(info));
    let count = prologue.len();
    for (info, other) in prologue.into_iter().chain(rest) {
        steps.push(info);
        what.push(other);
    }
    count
}

/// The buffers of these kinds, and those that depend on one. A buffer depends as a whole: on what is
/// written to any part of it at any time.
pub(super) fn reached(
    steps: &PrimaryMap<Step, StepInfo>,
    buffers: &PrimaryMap<Buffer, BufferInfo>,
    from: impl Fn(&BufferKind) -> bool,
) -> SecondaryMap<Buffer, bool> {
    let mut reached: SecondaryMap<Buffer, bool> = SecondaryMap::with_capacity(buffers.len());
    buffers.iter().for_each(|(buffer, info)| reached[buffer] = from(&info.kind));
    loop {
        let mut changed = false;
        for info in steps.values() {
            let reads = info.operands.iter().any(|operand| reached[operand.buffer]);
            changed |= reads && !std::mem::replace(&mut reached[info.result.buffer], true);
        }
        if !changed {
            return reached;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::lower;
    use crate::mir::{Binary, Builder, Output};
    use crate::types::{DType, Type};

    fn module(options: Options) -> Module {
        let mut b = Builder::new("test");
        let ty = Type::new(DType::F32, [4]);
        let x = b.input("x", Role::Input, ty.clone());
        let w = b.input("w", Role::Parameter, ty);
        let y = b.binary(Binary::Add, x, w);
        let twice = b.binary_scalar(Binary::Mul, w, 2.0);
        let four = b.binary_scalar(Binary::Mul, twice, 2.0);
        let y = b.binary(Binary::Add, y, four);
        let graph = b.finish(vec![Output { name: "y".into(), value: y }]);
        lower(&graph, options).unwrap()
    }

    #[test]
    fn parameters_alone_prepare() {
        use Phase::{Prologue, Steady};
        for alias in [false, true] {
            let module = module(Options { alias, ..Options::default() });
            let phases = phases(&module);
            let found: Vec<Phase> = module.steps.keys().map(|step| phases[step]).collect();
            assert_eq!(found, [Prologue, Prologue, Steady, Steady], "{module}");
            assert_eq!(module.plan.prologue, 2);
            let module = self::module(Options { alias, prepare: false, ..Options::default() });
            assert_eq!(module.plan.prologue, 0, "{module}");
        }
    }
}
