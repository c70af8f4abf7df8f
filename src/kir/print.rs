//! The text form, for listings and tests.

use super::*;
use std::fmt::{self, Display, Formatter};

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Range { begin, end, extent } = &self.range;
        writeln!(
            f,
            "kernel {} lanes {} range {begin}..{end} in 0..{extent}",
            self.name, self.machine.lanes
        )?;
        for Operand { name, pointer, bytes, access } in &self.operands {
            writeln!(f, "    {access:?} {pointer} {name} {bytes} bytes")?;
        }
        block(f, &self.body, 1)
    }
}

fn block(f: &mut Formatter<'_>, statements: &Block, depth: usize) -> fmt::Result {
    let indent = depth * 4;
    for statement in statements {
        write!(f, "{:indent$}", "")?;
        match statement {
            Statement::Let(value, op) => writeln!(f, "{value} = {op}")?,
            Statement::Store { value, memory, to, lanes } => {
                writeln!(f, "store {memory:?} {value} first {lanes} to {to}")?;
            }
            Statement::Prefetch(at) => writeln!(f, "prefetch {at}")?,
            Statement::Loop(l) => {
                write!(f, "for {} in {}..{}", l.index, l.from, l.to)?;
                for Advance { value, start, step } in &l.pointers {
                    write!(f, ", {value} = {start} step {step}")?;
                }
                for Carry { value, start, .. } in &l.carried {
                    write!(f, ", {value} = {start}")?;
                }
                writeln!(f, " {{")?;
                block(f, &l.body, depth + 1)?;
                write!(f, "{:indent$}}}", "")?;
                for Carry { next, result, .. } in &l.carried {
                    write!(f, " {result} = {next}")?;
                }
                writeln!(f)?;
            }
        }
    }
    Ok(())
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Op::Index(op, a, b) => write!(f, "{op:?} {a}, {b}"),
            Op::LoadIndex { from, memory, extent, wrap } => {
                let wrap = if *wrap { " wrap" } else { "" };
                write!(f, "index {memory:?} from {from} in 0..{extent}{wrap}")
            }
            Op::Offset { pointer, index, scale } => write!(f, "{pointer} + {index} * {scale}"),
            Op::F32(c) => write!(f, "f32 {c:?}"),
            Op::I32(c) => write!(f, "i32 {c}"),
            Op::F64(c) => write!(f, "f64 {c:?}"),
            Op::I64(c) => write!(f, "i64 {c}"),
            Op::FromIndex(ty, a) => write!(f, "{ty:?} of {a}"),
            Op::LaneNumbers => write!(f, "LaneNumbers"),
            Op::Load { from, memory, lanes } => {
                write!(f, "load {memory:?} first {lanes} from {from}")
            }
            Op::Broadcast(from, memory) => write!(f, "broadcast {memory:?} from {from}"),
            Op::Unary(op, a) => write!(f, "{op:?} {a}"),
            Op::Binary(op, a, b) => write!(f, "{op:?} {a}, {b}"),
            Op::Shift(op, a, bits) => write!(f, "{op:?} {a}, {bits}"),
            Op::ShiftBy(op, a, b) => write!(f, "{op:?} {a}, {b}"),
            Op::MulAdd(a, b, c) => write!(f, "MulAdd {a}, {b}, {c}"),
            Op::Dot { left, right, sum } => write!(f, "Dot {left}, {right}, {sum}"),
            Op::Pairs(a, b) => write!(f, "Pairs {a}, {b}"),
            Op::Bytes { of, upper, signed } => {
                let which = if *upper { "upper" } else { "lower" };
                let signs = if *signed { " signed" } else { "" };
                write!(f, "Bytes {of}, {which}{signs}")
            }
            Op::Lookup(table, a) => write!(f, "Lookup {a}, {table:?}"),
            Op::Compare(op, a, b) => write!(f, "{op:?} {a}, {b}"),
            Op::Select(mask, a, b) => write!(f, "Select {mask}, {a}, {b}"),
            Op::First { value, rest, lanes } => write!(f, "First {lanes} of {value}, rest {rest}"),
            Op::Reduce(op, a) => write!(f, "Reduce {op:?} {a}"),
            Op::Shuffle { a, b, order } => write!(f, "Shuffle {a}, {b}, {order}"),
        }
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Constant(c) => write!(f, "{c}"),
            Scalar::Value(v) => write!(f, "{v}"),
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "[{} + {}]", self.pointer, self.offset)
    }
}
