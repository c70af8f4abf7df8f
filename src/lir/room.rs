//! How many bytes a plan keeps for each buffer: what placement gives it, and the verifier holds free.

use super::{Buffer, BufferKind, Module};
use cranelift_entity::SecondaryMap;

/// An element's slot where all elements have slots of one size.
const UNIFORM: u64 = 4;

/// The bytes that the plan keeps for each buffer in the arena, from its offset on:
///
/// - its own,
/// - or, with [`uniform`](super::Options::uniform), 4 for each of its elements, if that is more,
/// - and behind an input, an output or a state the [`guard`](super::Options::guard).
///
/// They are not rounded up to the alignment. What is outside of the arena ([`Outside`](super::Outside)) takes none there.
pub fn room(module: &Module) -> SecondaryMap<Buffer, u64> {
    let options = &module.plan.options;
    let mut room: SecondaryMap<Buffer, u64> = SecondaryMap::new();
    room.resize(module.buffers.len());
    module.buffers.iter().for_each(|(buffer, info)| room[buffer] = info.bytes);
    if options.uniform {
        let io = &module.io;
        let ports = io.inputs.iter().chain(&io.parameters).chain(&io.outputs);
        let ports = ports.map(|port| (port.buffer, port.ty.dtype));
        let accesses = module.steps.keys().flat_map(|step| module.accesses(step));
        for (buffer, dtype) in ports.chain(accesses.map(|access| (access.buffer, access.dtype))) {
            let bytes = module.buffers[buffer].bytes;
            let elements = bytes.div_ceil(dtype.bytes() as u64);
            room[buffer] = room[buffer].max(elements.saturating_mul(UNIFORM));
        }
    }
    for (buffer, info) in &module.buffers {
        let guarded = match info.kind {
            BufferKind::Input | BufferKind::State | BufferKind::Output => info.bytes > 0,
            BufferKind::Parameter | BufferKind::Temporary | BufferKind::Constant(_) => false,
        };
        if guarded {
            room[buffer] = room[buffer].saturating_add(options.guard);
        }
        if options.outside.has(&info.kind) {
            room[buffer] = 0;
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use crate::lir::verify::verify;
    use crate::lir::{Module, Options, lower};
    use crate::mir::{Builder, Output, Role, Unary};
    use crate::types::{DType, Type};

    fn module(options: Options) -> Module {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::U8, [100]));
        let wide = mir.cast(x, DType::F32);
        let wide = mir.unary(Unary::Exp, wide);
        let y = mir.cast(wide, DType::U8);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        lower(&graph, options).expect("it is small")
    }

    #[test]
    fn guards_are_free() {
        let plain = module(Options::default());
        let guarded = module(Options { guard: 64, ..Options::default() });
        assert_eq!(guarded.plan.arena_size, plain.plan.arena_size + 2 * 64);
        assert_eq!(guarded.plan.arena_size, guarded.plan.bound);
        let mut close = plain.clone();
        close.plan.options.guard = 64;
        let broken = verify(&close).expect_err("the slots are too close").join("; ");
        assert!(broken.contains("overlap") || broken.contains("outside"), "{broken}");
    }

    #[test]
    fn inputs_give_their_bytes_away() {
        let given = |is_output: bool| {
            let lowered = |overwrite_inputs| {
                let mut mir = Builder::new("m");
                let x = mir.input("x", Role::Input, Type::new(DType::F32, [100]));
                let wide = mir.cast(x, DType::F64);
                let exp = mir.unary(Unary::Exp, wide);
                let y = mir.cast(exp, DType::F32);
                let mut outputs = vec![Output { name: "y".into(), value: y }];
                outputs.extend(is_output.then(|| Output { name: "same".into(), value: x }));
                let options = Options { overwrite_inputs, alias: false, ..Options::default() };
                lower(&mir.finish(outputs), options).expect("it is small")
            };
            let module = lowered(true);
            assert_eq!(verify(&module), Ok(()));
            lowered(false).plan.arena_size - module.plan.arena_size
        };
        // The 400 bytes of x, in whole 64s; an input that is an output, too, stays.
        assert_eq!((given(false), given(true)), (448, 0));
    }

    #[test]
    fn slots_are_uniform() {
        let uniform = module(Options { uniform: true, ..Options::default() });
        let x = uniform.io.inputs[0].buffer;
        let next = uniform.plan.slots.iter().filter(|(b, _)| **b != x).map(|(_, o)| *o).min();
        assert!(next.is_some_and(|next| next >= uniform.plan.slots[&x] + 400), "{uniform}");
        assert_eq!(verify(&uniform), Ok(()));
    }
}
