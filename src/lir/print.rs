//! The text form of a module.

use super::{Access, BufferKind, Module, Op};
use crate::mir;
use crate::types::printable;
use std::fmt::{self, Display, Formatter};

/// `b3 f32[8, 4]`; with strides in parentheses unless the tensor is dense, and with its offset unless
/// that is zero.
impl Display for Access {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.buffer, self.ty())?;
        if !self.is_dense() {
            let strides: Vec<String> = self.strides.iter().map(ToString::to_string).collect();
            write!(f, "({})", strides.join(", "))?;
        }
        match self.offset {
            0 => Ok(()),
            offset => write!(f, " at {offset}"),
        }
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shared = match self {
            Op::Rows(rows) => mir::Op::Rows(rows.clone()),
            Op::Reduce { op, axes } => mir::Op::Reduce { op: *op, axes: axes.clone() },
            Op::ArgReduce { largest, axis, last } => {
                mir::Op::ArgReduce { largest: *largest, axis: *axis, last: *last }
            }
            Op::Contract(contract) => mir::Op::Contract(contract.clone()),
            Op::Attention(attention) => mir::Op::Attention(attention.clone()),
            Op::Conv(conv) => mir::Op::Conv(conv.clone()),
            Op::Winograd(winograd) => mir::Op::Winograd(winograd.clone()),
            Op::Pool(pool) => mir::Op::Pool(pool.clone()),
            Op::Gather { axis, .. } => mir::Op::Gather { axis: *axis },
            Op::Scatter { op } => mir::Op::Scatter { op: *op },
            Op::Sort { largest, count } => mir::Op::Sort { largest: *largest, count: *count },
            Op::Scan(scan) => mir::Op::Scan(scan.clone()),
            Op::Move => return f.write_str("move"),
            Op::Fill(literal) => return write!(f, "fill with {}", literal.f64()),
        };
        shared.fmt(f)
    }
}

/// The buffers with their places, then the schedule, a line each.
impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        writeln!(f, "module {}", printable(&self.name))?;
        writeln!(f, "arena of {}, bound {}", plan.arena_size, plan.bound)?;
        if plan.fast_size > 0 {
            writeln!(f, "{} of {}", plan.region(), plan.fast_size)?;
        }
        for (buffer, info) in &self.buffers {
            let (kind, place, slot) = match info.kind {
                BufferKind::Input => ("input", "at", plan.slots.get(&buffer)),
                BufferKind::Parameter => ("parameter", "at", plan.slots.get(&buffer)),
                BufferKind::Output => ("output", "at", plan.slots.get(&buffer)),
                BufferKind::State => ("state", "at", plan.slots.get(&buffer)),
                BufferKind::Temporary => ("temporary", "at", plan.slots.get(&buffer)),
                BufferKind::Constant(_) => ("constant", "in weights at", plan.weights.get(&buffer)),
            };
            write!(f, "{buffer} = {kind} of {}", info.bytes)?;
            if let Some(at) = plan.pointers.get(&buffer) {
                write!(f, " outside, pointer at {at}")?;
            }
            if let Some(slot) = plan.fast.get(&buffer) {
                write!(f, " in {} at {slot}", plan.region())?;
            }
            if let Some(slot) = slot {
                write!(f, " {place} {slot}")?;
            }
            writeln!(f, "  ; {}", printable(&info.name))?;
        }
        for (step, info) in &self.steps {
            write!(f, "{step}: {} = {}", info.result, info.op)?;
            for (i, operand) in info.operands.iter().enumerate() {
                write!(f, "{}{operand}", if i > 0 { ", " } else { " of " })?;
            }
            if let Some(scratch) = &info.scratch {
                write!(f, " with {scratch}")?;
            }
            for (i, origin) in info.origins.iter().enumerate() {
                write!(f, "{}{}", if i > 0 { " + " } else { "  ; " }, printable(origin))?;
            }
            writeln!(f)?;
        }
        for port in &self.io.outputs {
            writeln!(f, "return {} as \"{}\"", port.buffer, printable(&port.name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::lir::{Options, lower};
    use crate::mir::{Builder, Output, Role, Unary};
    use crate::types::{DType, Type};

    #[test]
    fn text() {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [4, 8]));
        mir.set_origin("neg");
        let y = mir.unary(Unary::Neg, x);
        let y = mir.permute(y, &[1, 0]);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        let module = lower(&graph, Options::default()).expect("it is small");
        let text = module.to_string();
        assert!(text.contains("move of b1 f32[8, 4](1, 8)"), "{text}");
    }
}
