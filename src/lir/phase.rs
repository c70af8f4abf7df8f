//! When each step has to run: once for all runs, or in every one.

use super::{Buffer, BufferKind, Module, Step};
use cranelift_entity::SecondaryMap;

/// When a step has to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// It depends on parameters and constants only: its result is the same in every run. (A program
    /// may compute it once if it keeps the result's bytes; the plan does not promise that it does.)
    Prepare,
    /// It depends on an input.
    #[default]
    Run,
}

/// The phase of every step.
pub fn phases(module: &Module) -> SecondaryMap<Step, Phase> {
    // A buffer varies as a whole: if an input is written to a part of it, or to it at another time.
    let mut varies: SecondaryMap<Buffer, bool> = SecondaryMap::with_capacity(module.buffers.len());
    for (buffer, info) in &module.buffers {
        varies[buffer] = info.kind == BufferKind::Input;
    }
    loop {
        let mut changed = false;
        for info in module.steps.values() {
            let reads = info.operands.iter().any(|operand| varies[operand.buffer]);
            changed |= reads && !std::mem::replace(&mut varies[info.result.buffer], true);
        }
        if !changed {
            break;
        }
    }
    let mut phases = SecondaryMap::with_capacity(module.steps.len());
    for (step, info) in &module.steps {
        let run = varies[info.result.buffer];
        phases[step] = if run { Phase::Run } else { Phase::Prepare };
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{Options, lower};
    use crate::mir::{Binary, Builder, Output, Role};
    use crate::types::{DType, Type};

    #[test]
    fn parameters_alone_prepare() {
        let mut b = Builder::new("test");
        let ty = Type::new(DType::F32, [4]);
        let x = b.input("x", Role::Input, ty.clone());
        let w = b.input("w", Role::Parameter, ty);
        let twice = b.binary_scalar(Binary::Mul, w, 2.0);
        let y = b.binary(Binary::Add, x, twice);
        let graph = b.finish(vec![Output { name: "y".into(), value: y }]);
        let options = Options { alias: false, ..Options::default() };
        let module = lower(&graph, options).unwrap();
        let phases = phases(&module);
        let found: Vec<Phase> = module.steps.keys().map(|step| phases[step]).collect();
        assert_eq!(found, [Phase::Prepare, Phase::Run], "{module}");
    }
}
