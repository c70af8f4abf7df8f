//! What holds for every kernel that reaches an emitter:
//!
//! 1. Every value is defined once, before its uses, in a block that encloses them.
//! 2. Every operation has operands of the types it asks for; lane counts are `1..=lanes`; 8-byte types
//!    and memory that vectors do not have are used where the machine has one lane.
//! 3. Every access lies inside its operand's bytes, for all values of `begin`, `end` and the loops'
//!    indices; every store goes to an operand that may be written.
//! 4. Operations that not every machine has are used where it has them.
//! 5. No index leaves `-2^40..2^40`, so none wraps; every loop runs for some `begin` and `end`.
//!
//! 3 is proved by interval arithmetic: an index is an interval, a pointer is an operand and an
//! interval of bytes. Loops need no fixed point, because their pointers advance by constants.

use super::*;
use cranelift_entity::SecondaryMap;

/// A kernel for which the invariants hold, and what is known of its indices.
#[derive(Debug)]
pub struct Checked<'a> {
    kernel: &'a Kernel,
    facts: SecondaryMap<Value, Fact>,
}

#[derive(Clone, Copy, Default, Debug)]
enum Fact {
    #[default]
    Vector,
    Index(Interval),
    /// Bytes from the start of an operand.
    Pointer(usize, Interval),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Interval {
    low: i64,
    high: i64,
}

impl Checked<'_> {
    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        self.kernel
    }

    /// Whether the loop's body runs at least once, whatever `begin` and `end` are.
    pub fn always_runs(&self, l: &Loop) -> bool {
        self.interval(l.from).high < self.interval(l.to).low
    }

    /// How often the body runs, when that does not depend on `begin` and `end`.
    pub fn trips(&self, l: &Loop) -> Option<i64> {
        let (from, to) = (self.interval(l.from), self.interval(l.to));
        (from.low == from.high && to.low == to.high).then_some(to.low - from.low)
    }

    fn interval(&self, scalar: Scalar) -> Interval {
        match scalar {
            Scalar::Constant(c) => Interval::exactly(c),
            Scalar::Value(v) => match self.facts[v] {
                Fact::Index(interval) => interval,
                // An error was reported for it.
                Fact::Vector | Fact::Pointer(..) => Interval::exactly(0),
            },
        }
    }
}

/// Checks the kernel; the errors name the statements by the values in them.
pub fn verify(kernel: &Kernel) -> Result<Checked<'_>, Vec<String>> {
    let facts = SecondaryMap::with_capacity(kernel.values.len());
    let checked = Checked { kernel, facts };
    let mut v = Verifier { checked, visible: SecondaryMap::new(), errors: vec![] };
    let extent = Interval { low: 0, high: kernel.range.extent };
    v.define(kernel.range.begin, Type::Index, Fact::Index(extent));
    v.define(kernel.range.end, Type::Index, Fact::Index(extent));
    for (i, operand) in kernel.operands.iter().enumerate() {
        v.define(operand.pointer, Type::Pointer, Fact::Pointer(i, Interval::exactly(0)));
    }
    v.block(&kernel.body);
    if v.errors.is_empty() { Ok(v.checked) } else { Err(v.errors) }
}

struct Verifier<'a> {
    checked: Checked<'a>,
    visible: SecondaryMap<Value, bool>,
    errors: Vec<String>,
}

impl Verifier<'_> {
    fn block(&mut self, block: &Block) {
        for statement in block {
            match statement {
                Statement::Let(value, op) => {
                    let (ty, fact) = self.op(*value, op);
                    self.define(*value, ty, fact);
                }
                Statement::Store { value, memory, to, lanes } => {
                    self.expect(*value, memory.value());
                    let (elements, what) = (i64::from(*lanes), format!("the store of {value}"));
                    self.access(*to, *memory, elements, Access::Write, &what);
                    self.lanes(*lanes, *value);
                }
                Statement::Prefetch(at) => self.expect(at.pointer, Type::Pointer),
                Statement::Loop(l) => self.repeat(l),
            }
        }
    }

    fn repeat(&mut self, l: &Loop) {
        [l.from, l.to].into_iter().for_each(|bound| self.scalar(bound));
        let (from, to) = (self.checked.interval(l.from), self.checked.interval(l.to));
        let index = Interval { low: from.low, high: to.high - 1 };
        if index.high < index.low {
            return self.errors.push(format!("the loop over {} never runs", l.index));
        }
        let outside = self.visible.clone();
        self.define(l.index, Type::Index, Fact::Index(index));
        for p in &l.pointers {
            self.expect(p.start, Type::Pointer);
            let moved =
                Interval { low: 0, high: index.high - index.low } * Interval::exactly(p.step);
            let fact = self.moved(p.start, moved, p.value);
            self.define(p.value, Type::Pointer, fact);
        }
        for c in &l.carried {
            let ty = self.vector(c.start);
            self.define(c.value, ty, Fact::Vector);
        }
        self.block(&l.body);
        l.carried.iter().for_each(|c| self.expect(c.next, self.checked.kernel.values[c.start]));
        self.visible = outside;
        for c in &l.carried {
            self.define(c.result, self.checked.kernel.values[c.start], Fact::Vector);
        }
    }

    fn op(&mut self, value: Value, op: &Op) -> (Type, Fact) {
        let ty = match *op {
            Op::Index(op, a, b) => return self.index(value, op, a, b),
            Op::LoadIndex { from, memory, extent, .. } => {
                self.access(from, memory, 1, Access::Read, &format!("the load of {value}"));
                if !matches!(memory, Memory::I32 | Memory::I64) {
                    self.error(format!("{value} is an index and cannot come from {memory:?}"));
                }
                if extent < 1 {
                    self.error(format!("{value} is an index into nothing"));
                }
                let result = Interval { low: 0, high: extent - 1 };
                self.in_range(result, value);
                return (Type::Index, Fact::Index(result));
            }
            Op::Offset { pointer, index, scale } => {
                self.expect(pointer, Type::Pointer);
                self.scalar(index);
                let by = self.checked.interval(index) * Interval::exactly(scale);
                return (Type::Pointer, self.moved(pointer, by, value));
            }
            Op::F32(_) => Type::F32,
            Op::I32(_) | Op::LaneNumbers => Type::I32,
            Op::F64(_) => Type::F64,
            Op::I64(_) => Type::I64,
            Op::FromIndex(ty, index) => {
                self.scalar(index);
                if !ty.is_integer() {
                    self.error(format!("{value} is an index as {ty:?}"));
                }
                ty
            }
            Op::Load { from, memory, lanes } => {
                let (elements, what) = (i64::from(lanes), format!("the load of {value}"));
                self.access(from, memory, elements, Access::Read, &what);
                self.lanes(lanes, value);
                memory.value()
            }
            Op::Broadcast(from, memory) => {
                self.access(from, memory, 1, Access::Read, &format!("the load of {value}"));
                memory.value()
            }
            ref op => self.vector_op(value, op),
        };
        let machine = &self.checked.kernel.machine;
        if !ty.is_on(machine) {
            let name = machine.name;
            self.error(format!("{value} is {ty:?}, which {name} has no vectors of"));
        }
        (ty, Fact::Vector)
    }

    fn index(&mut self, value: Value, op: IndexOp, a: Value, b: Scalar) -> (Type, Fact) {
        self.expect(a, Type::Index);
        self.scalar(b);
        let (a, b) = (self.checked.interval(Scalar::Value(a)), self.checked.interval(b));
        let result = match op {
            IndexOp::Add => a + b,
            IndexOp::Mul => a * b,
            IndexOp::Min => Interval { low: a.low.min(b.low), high: a.high.min(b.high) },
            IndexOp::Max => Interval { low: a.low.max(b.low), high: a.high.max(b.high) },
            IndexOp::Div | IndexOp::Rem if a.low < 0 || b.low < 1 || b.low != b.high => {
                self.error(format!("{value} must divide what is not negative by a constant"));
                a
            }
            IndexOp::Div => Interval { low: a.low / b.low, high: a.high / b.low },
            IndexOp::Rem => Interval { low: 0, high: a.high.min(b.low - 1) },
        };
        self.in_range(result, value);
        (Type::Index, Fact::Index(result))
    }

    /// The type of what works on vectors only.
    fn vector_op(&mut self, value: Value, op: &Op) -> Type {
        let Machine {
            lanes: machine_lanes, scales, tables, fuses, rounds, half_floats, dots, ..
        } = self.checked.kernel.machine;
        match *op {
            Op::Unary(op, a) => {
                self.machine_has(rounds || !op.rounds(), value, &format!("{op:?}"));
                self.machine_has(half_floats || op != Unary::RoundF16, value, "RoundF16");
                let of = self.use_any(a);
                op.result(of).unwrap_or_else(|| {
                    self.error(format!("{value} is {op:?} of {a}, which is {of:?}"));
                    of
                })
            }
            Op::Binary(op, a, b) => {
                self.machine_has(scales || op != Binary::Scale, value, "Scale");
                let ty = self.same(a, b);
                if !op.takes(ty, machine_lanes) {
                    self.error(format!("{value} is {op:?} of {ty:?} with {machine_lanes} lanes"));
                }
                ty
            }
            Op::Shift(_, a, bits) => {
                let ty = self.use_any(a);
                if !ty.is_integer() || i64::from(bits) >= if ty == Type::I64 { 64 } else { 32 } {
                    self.error(format!("{value} shifts {ty:?} by {bits} bits"));
                }
                ty
            }
            Op::ShiftBy(_, a, b) => {
                self.machine_has(machine_lanes == 1, value, "ShiftBy");
                let ty = self.same(a, b);
                if !ty.is_integer() {
                    self.error(format!("{value} shifts {ty:?}"));
                }
                ty
            }
            Op::MulAdd(a, b, c) => {
                self.machine_has(fuses, value, "MulAdd");
                let ty = self.same(a, b);
                self.expect(c, ty);
                if !ty.is_float() {
                    self.error(format!("{value} is MulAdd of {ty:?}"));
                }
                ty
            }
            Op::Dot { left, right, sum } => {
                self.machine_has(dots, value, "Dot");
                [left, right, sum].into_iter().for_each(|v| self.expect(v, Type::I32));
                Type::I32
            }
            Op::Pairs(a, b) => {
                self.machine_has(machine_lanes > 1, value, "Pairs");
                [a, b].into_iter().for_each(|v| self.expect(v, Type::I32));
                Type::I32
            }
            Op::Bytes { of, .. } => {
                self.machine_has(machine_lanes > 1, value, "Bytes");
                self.expect(of, Type::I32);
                Type::I32
            }
            Op::Lookup(table, a) => {
                let places = tables as usize;
                let repeats = || (places..table.len()).all(|i| table[i] == table[i - places]);
                self.machine_has(tables > 0 && repeats(), value, "Lookup");
                self.expect(a, Type::I32);
                Type::I32
            }
            Op::Compare(_, a, b) => {
                let ty = self.same(a, b);
                if !ty.is_float() && !ty.is_integer() {
                    self.error(format!("{value} compares {ty:?}"));
                }
                Type::Mask
            }
            Op::Select(mask, a, b) => {
                self.expect(mask, Type::Mask);
                let ty = self.same(a, b);
                if ty == Type::Mask {
                    self.error(format!("{value} selects masks"));
                }
                ty
            }
            Op::First { value: a, rest: b, lanes } => {
                self.lanes(lanes, value);
                self.four_bytes(value, a, b)
            }
            Op::Reduce(_, a) if machine_lanes == 1 => self.vector(a),
            Op::Reduce(_, a) => self.four_bytes(value, a, a),
            Op::Shuffle { a, b, order } => {
                let outside = order.places().iter().any(|&at| u32::from(at) >= 2 * machine_lanes);
                if machine_lanes == 1 || order.lanes() != machine_lanes || outside {
                    self.error(format!(
                        "{value} takes lanes {order} of {machine_lanes} and as many"
                    ));
                }
                self.four_bytes(value, a, b)
            }
            Op::Index(..)
            | Op::LoadIndex { .. }
            | Op::Offset { .. }
            | Op::F32(_)
            | Op::I32(_)
            | Op::F64(_)
            | Op::I64(_)
            | Op::FromIndex(..)
            | Op::LaneNumbers
            | Op::Load { .. }
            | Op::Broadcast(..) => unreachable!("`op` takes these"),
        }
    }

    fn machine_has(&mut self, has: bool, value: Value, what: &str) {
        if !has {
            self.error(format!("{value}: this machine has no {what}"));
        }
    }

    fn error(&mut self, message: String) {
        self.errors.push(message);
    }

    /// The type of two vectors that must have the same.
    fn same(&mut self, a: Value, b: Value) -> Type {
        let ty = self.vector(a);
        self.expect(b, ty);
        ty
    }

    fn four_bytes(&mut self, value: Value, a: Value, b: Value) -> Type {
        let ty = self.same(a, b);
        if !matches!(ty, Type::F32 | Type::I32) {
            self.error(format!("{value} moves lanes of {ty:?}"));
        }
        ty
    }

    /// The heart of it: `low..high + size` inside the operand.
    fn access(&mut self, at: Address, memory: Memory, elements: i64, access: Access, what: &str) {
        self.expect(at.pointer, Type::Pointer);
        let machine = &self.checked.kernel.machine;
        let (lanes, takes) = (machine.lanes, memory.is_on(machine));
        if memory == Memory::F16 && !machine.half_floats {
            self.error(format!("{what} is of F16, which this machine does not convert"));
        }
        // An index is no vector.
        if !takes && (elements > 1 || !matches!(memory, Memory::I32 | Memory::I64)) {
            self.error(format!("{what} is of {memory:?} with {lanes} lanes"));
        }
        let Fact::Pointer(operand, base) = self.checked.facts[at.pointer] else {
            return;
        };
        let operand = &self.checked.kernel.operands[operand];
        let first = base.low + i64::from(at.offset);
        let end = base.high + i64::from(at.offset) + elements * memory.bytes();
        if first < 0 || end > operand.bytes {
            let Operand { name, bytes, .. } = operand;
            self.errors.push(format!(
                "{what} reaches bytes {first}..{end} of {name}, which has 0..{bytes}"
            ));
        }
        if access == Access::Write && operand.access == Access::Read {
            self.errors.push(format!("{what} writes to {}, which is only read", operand.name));
        }
    }

    fn moved(&mut self, pointer: Value, by: Interval, value: Value) -> Fact {
        let Fact::Pointer(operand, at) = self.checked.facts[pointer] else {
            return Fact::Vector;
        };
        self.in_range(at + by, value);
        Fact::Pointer(operand, at + by)
    }

    fn in_range(&mut self, interval: Interval, value: Value) {
        if interval.low <= -(1 << 40) || interval.high >= 1 << 40 {
            self.errors.push(format!("{value} may be as large as {interval:?}"));
        }
    }

    fn lanes(&mut self, lanes: u32, value: Value) {
        if lanes == 0 || lanes > self.checked.kernel.machine.lanes {
            self.errors.push(format!(
                "{value} has {lanes} lanes of {}",
                self.checked.kernel.machine.lanes
            ));
        }
    }

    fn scalar(&mut self, scalar: Scalar) {
        if let Scalar::Value(v) = scalar {
            self.expect(v, Type::Index);
        }
    }

    fn vector(&mut self, value: Value) -> Type {
        let ty = self.use_any(value);
        if matches!(ty, Type::Index | Type::Pointer) {
            self.errors.push(format!("{value} is {ty:?} and must be a vector"));
        }
        ty
    }

    fn expect(&mut self, value: Value, ty: Type) {
        let found = self.use_any(value);
        if found != ty {
            self.errors.push(format!("{value} is {found:?} and must be {ty:?}"));
        }
    }

    fn use_any(&mut self, value: Value) -> Type {
        if !self.visible[value] {
            self.errors.push(format!("{value} is used where it is not defined"));
        }
        self.checked.kernel.values[value]
    }

    fn define(&mut self, value: Value, ty: Type, fact: Fact) {
        if std::mem::replace(&mut self.visible[value], true) {
            self.errors.push(format!("{value} is defined twice"));
        }
        if self.checked.kernel.values[value] != ty {
            self.errors.push(format!(
                "{value} is declared {:?} and defined {ty:?}",
                self.checked.kernel.values[value]
            ));
        }
        self.checked.facts[value] = fact;
    }
}

impl Interval {
    fn exactly(value: i64) -> Self {
        Interval { low: value, high: value }
    }
}

impl std::ops::Add for Interval {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Interval {
            low: self.low.saturating_add(other.low),
            high: self.high.saturating_add(other.high),
        }
    }
}

impl std::ops::Mul for Interval {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let [a, b] = [other.low, other.high]
            .map(|o| (self.low.saturating_mul(o), self.high.saturating_mul(o)));
        Interval { low: a.0.min(a.1).min(b.0).min(b.1), high: a.0.max(a.1).max(b.0).max(b.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::build::Builder;

    fn errors_on(
        machine: Machine,
        rows: i64,
        body: impl FnOnce(&mut Builder, Value, Value),
    ) -> String {
        let mut b = Builder::new("test", machine, rows);
        let (x, y) = (b.input("x", 160), b.output("y", 160));
        body(&mut b, x, y);
        verify(&b.finish()).err().unwrap_or_default().join("\n")
    }

    fn errors(rows: i64, body: impl FnOnce(&mut Builder, Value, Value)) -> String {
        errors_on(Machine::CLIF, rows, body)
    }

    /// Each row is ten elements; the last of four rows ends where the operand ends.
    fn rows(b: &mut Builder, x: Value, y: Value, step: i64) {
        let (begin, end) = (b.begin(), b.end());
        b.each(begin, end, &[], |b, it| {
            let [x, y] = [x, y].map(|p| b.offset(p, it.index, 40));
            b.each(0, 2, &[(x, step), (y, step)], |b, it| {
                let v = b.load(it.pointers[0], 8);
                b.store_first(v, it.pointers[1], 8, 4);
            });
        });
    }

    #[test]
    fn accesses_are_bounded() {
        assert_eq!(errors(4, |b, x, y| rows(b, x, y, 16)), "");
        let five_rows = errors(5, |b, x, y| rows(b, x, y, 16));
        assert!(five_rows.contains("reaches bytes 8..200 of x, which has 0..160"), "{five_rows}");
        let long_step = errors(4, |b, x, y| rows(b, x, y, 20));
        assert!(long_step.contains("reaches bytes 8..164 of y"), "{long_step}");
    }

    #[test]
    fn indices_from_memory_are_bounded() {
        let row = |extent| {
            errors(1, |b, x, y| {
                let i = b.load_index(Memory::I64, x, 0, extent, true);
                let from = b.offset(x, i, 16);
                let v = b.load(from, 0);
                b.store_first(v, y, 0, 4);
            })
        };
        assert_eq!(row(10), "");
        assert!(row(11).contains("reaches bytes 0..176 of x"), "{}", row(11));
        let quotient = |rows| {
            errors(rows, |b, x, y| {
                let (begin, end) = (b.begin(), b.end());
                b.each(begin, end, &[], |b, it| {
                    let i = b.index(IndexOp::Div, it.index, 3);
                    let j = b.index(IndexOp::Rem, it.index, 3);
                    let (from, to) = (b.offset(x, i, 16), b.offset(y, j, 16));
                    let v = b.load(from, 0);
                    b.store_first(v, to, 112, 4);
                });
            })
        };
        assert_eq!(quotient(30), "");
        assert!(quotient(31).contains("reaches bytes 0..176 of x"), "{}", quotient(31));
    }

    #[test]
    fn stores_go_to_outputs() {
        let error = errors(1, |b, x, _| {
            let v = b.load(x, 0);
            b.store_first(v, x, 0, 4);
        });
        assert!(error.contains("writes to x, which is only read"), "{error}");
    }

    #[test]
    fn types_and_scopes() {
        let error = errors(1, |b, x, _| _ = b.add(x, x));
        assert!(error.contains("v2 is Pointer and must be a vector"), "{error}");
        let error = errors(1, |b, x, y| {
            let mut inside = None;
            b.each(0, 1, &[], |b, _| inside = Some(b.load(x, 0)));
            b.store_first(inside.expect("the body is written"), y, 0, 4);
        });
        assert!(error.contains("is used where it is not defined"), "{error}");
    }

    #[test]
    fn machines_have_what_is_used() {
        let long = |b: &mut Builder, x, y| {
            let v = b.load_as(Memory::F64, x, 152, 1);
            b.store_first(v, y, 152, 1);
        };
        assert_eq!(errors_on(Machine::CLIF.scalar(), 1, long), "");
        let doubles = Machine::AVX512.doubles().expect("it has vectors of doubles");
        assert_eq!(errors_on(doubles, 1, long), "");
        assert!(errors(1, long).contains("has no vectors of"));
        let rounded = errors(1, |b, x, _| {
            let v = b.load(x, 0);
            b.unary(Unary::Floor, v);
        });
        assert!(rounded.contains("this machine has no Floor"), "{rounded}");
    }
}
