//! One number for everything that an object depends on: what has the same fingerprint is the same
//! object. It binds a file of weights to its object, and a build to its inputs.

use super::{BufferKind, Module};
use blake3::Hasher;
use serde::Serialize;

/// The fingerprint of a module and of what else an object depends on, as text: target, options,
/// version. It is the same on every host.
pub fn fingerprint(module: &Module, context: &str) -> [u8; 32] {
    let mut hasher = Hasher::new();
    add(&mut hasher, &(context, &module.name, &module.io, &module.plan));
    for step in module.steps.values() {
        add(&mut hasher, &(&step.op, &step.operands, &step.scratch, &step.result));
    }
    for (buffer, info) in &module.buffers {
        if let BufferKind::Constant(tensor) = &info.kind {
            add(&mut hasher, &(buffer, tensor.ty()));
            hasher.update(tensor.bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

/// JSON ends where it ends, so nothing is ambiguous.
fn add(hasher: &mut Hasher, part: &impl Serialize) {
    serde_json::to_writer(hasher, part).expect("a hash takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{BufferInfo, Io, Plan};
    use crate::tensor::Tensor;
    use cranelift_entity::PrimaryMap;

    #[test]
    fn everything_counts() {
        let module = |value: f32, offset: u64| {
            let kind = BufferKind::Constant(Tensor::from_f32s([1], &[value]));
            let mut buffers = PrimaryMap::new();
            let buffer = buffers.push(BufferInfo { name: "w".to_owned(), bytes: 4, kind });
            let plan = Plan { weights: [(buffer, offset)].into(), ..Plan::default() };
            let (name, steps, io) = ("m".to_owned(), PrimaryMap::new(), Io::default());
            Module { name, buffers, steps, io, plan }
        };
        let first = fingerprint(&module(1.0, 0), "a");
        assert_eq!(first, fingerprint(&module(1.0, 0), "a"));
        assert_ne!(first, fingerprint(&module(-1.0, 0), "a"));
        assert_ne!(first, fingerprint(&module(1.0, 64), "a"));
        assert_ne!(first, fingerprint(&module(1.0, 0), "b"));
    }
}
