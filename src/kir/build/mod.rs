//! Writing kernels: one method per operation, one closure per loop.
//!
//! The builder writes down what it is told, and leaves finding mistakes to the verifier. Where the
//! machine lacks an operation, it writes others that do the same: `mul_add`, `round` and its kin.

mod across;
mod compound;

use super::*;
use std::collections::BTreeSet;

/// A kernel that is being written.
#[derive(Debug)]
pub struct Builder {
    kernel: Kernel,
    /// The blocks that are being written, the innermost last.
    open: Vec<Block>,
}

/// What the body of a loop sees.
#[derive(Debug)]
pub struct Iteration<'a> {
    /// The loop's index.
    pub index: Value,
    /// The pointers, in their order.
    pub pointers: &'a [Value],
    /// The carried values, in their order.
    pub carried: &'a [Value],
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Scalar::Constant(value)
    }
}

impl From<Value> for Scalar {
    fn from(value: Value) -> Self {
        Scalar::Value(value)
    }
}

/// Kernels as a whole, and loops.
impl Builder {
    /// Starts a kernel over `0..extent` (its outermost loop).
    pub fn new(name: impl Into<String>, machine: Machine, extent: i64) -> Self {
        let mut values = PrimaryMap::new();
        let (begin, end) = (values.push(Type::Index), values.push(Type::Index));
        let range = Range { begin, end, extent };
        let kernel =
            Kernel { name: name.into(), machine, operands: vec![], range, body: vec![], values };
        Builder { kernel, open: vec![vec![]] }
    }

    /// The kernel.
    pub fn finish(mut self) -> Kernel {
        self.kernel.body = self.open.pop().expect("the body is open until the end");
        self.kernel
    }

    /// What the kernel is written for.
    pub fn machine(&self) -> &Machine {
        &self.kernel.machine
    }

    /// Elements in a vector.
    pub fn lanes(&self) -> i64 {
        i64::from(self.kernel.machine.lanes)
    }

    /// The type of a value.
    pub fn type_of(&self, value: Value) -> Type {
        self.kernel.values[value]
    }

    /// The next operand, of `bytes` bytes that are read.
    pub fn input(&mut self, name: &'static str, bytes: i64) -> Value {
        self.operand(name, bytes, Access::Read)
    }

    /// The next operand, of `bytes` bytes that are written, and perhaps read.
    pub fn output(&mut self, name: &'static str, bytes: i64) -> Value {
        self.operand(name, bytes, Access::Write)
    }

    fn operand(&mut self, name: &'static str, bytes: i64, access: Access) -> Value {
        let pointer = self.kernel.values.push(Type::Pointer);
        self.kernel.operands.push(Operand { name, pointer, bytes, access });
        pointer
    }

    /// The first iteration of the kernel's range.
    pub fn begin(&self) -> Value {
        self.kernel.range.begin
    }

    /// The end of the kernel's range.
    pub fn end(&self) -> Value {
        self.kernel.range.end
    }

    /// The loop in its general form: `pointers` with their steps in bytes, `start` the carried
    /// values. The body returns the next carried values; the results are the last.
    pub fn fold(
        &mut self,
        from: impl Into<Scalar>,
        to: impl Into<Scalar>,
        pointers: &[(Value, i64)],
        start: &[Value],
        body: impl FnOnce(&mut Self, Iteration<'_>) -> Vec<Value>,
    ) -> Vec<Value> {
        let index = self.kernel.values.push(Type::Index);
        let moving: Vec<_> =
            pointers.iter().map(|_| self.kernel.values.push(Type::Pointer)).collect();
        let carried: Vec<_> =
            start.iter().map(|&v| self.kernel.values.push(self.kernel.values[v])).collect();
        self.open.push(vec![]);
        let next = body(self, Iteration { index, pointers: &moving, carried: &carried });
        let body = self.open.pop().expect("the body is open");
        assert_eq!(next.len(), start.len(), "a loop's body returns one value per carried value");
        let results: Vec<_> =
            start.iter().map(|&v| self.kernel.values.push(self.kernel.values[v])).collect();
        let pointers = (moving.iter().zip(pointers))
            .map(|(&value, &(start, step))| Advance { value, start, step })
            .collect();
        let carried = (0..start.len())
            .map(|i| Carry {
                value: carried[i],
                start: start[i],
                next: next[i],
                result: results[i],
            })
            .collect();
        let (from, to) = (from.into(), to.into());
        self.push(Statement::Loop(Box::new(Loop { index, from, to, pointers, carried, body })));
        results
    }

    /// A loop that carries pointers only.
    pub fn each(
        &mut self,
        from: impl Into<Scalar>,
        to: impl Into<Scalar>,
        pointers: &[(Value, i64)],
        body: impl FnOnce(&mut Self, Iteration<'_>),
    ) {
        self.fold(from, to, pointers, &[], |b, it| {
            body(b, it);
            vec![]
        });
    }

    /// A row of `elements` in vectors: `body` is written once for a loop over the whole vectors
    /// and, where something is left, once for the tail. It gets the pointers, the carried values and
    /// the number of lanes. Every pointer goes through 4-byte elements.
    pub fn fold_row(
        &mut self,
        elements: i64,
        pointers: &[Value],
        start: &[Value],
        body: impl FnMut(&mut Self, &[Value], &[Value], u32) -> Vec<Value>,
    ) -> Vec<Value> {
        let pointers: Vec<_> = pointers.iter().map(|&p| (p, 4)).collect();
        self.fold_row_by(elements, &pointers, start, body)
    }

    /// `fold_row` for elements of any size: each pointer has the bytes from one element to the next.
    pub fn fold_row_by(
        &mut self,
        elements: i64,
        pointers: &[(Value, i64)],
        start: &[Value],
        mut body: impl FnMut(&mut Self, &[Value], &[Value], u32) -> Vec<Value>,
    ) -> Vec<Value> {
        let (whole, left) = (elements / self.lanes(), elements % self.lanes());
        let lanes = self.kernel.machine.lanes;
        let moving: Vec<_> = pointers.iter().map(|&(p, by)| (p, by * self.lanes())).collect();
        let mut state = start.to_vec();
        if whole > 0 {
            state = self
                .fold(0, whole, &moving, &state, |b, it| body(b, it.pointers, it.carried, lanes));
        }
        if left > 0 {
            let ends: Vec<_> = moving.iter().map(|&(p, by)| self.offset(p, whole, by)).collect();
            state = body(self, &ends, &state, left as u32);
        }
        state
    }

    /// Writes a piece for each item, their statements in turn, of as many as fit into the registers: what one
    /// computes fills the time in which the others wait for their results. No piece may read what another
    /// one stores; loops are not taken apart.
    pub fn in_turn<T, R>(
        &mut self,
        items: &[T],
        mut write: impl FnMut(&mut Self, &T) -> R,
    ) -> Vec<R> {
        let (mut results, mut pieces) = (vec![], vec![]);
        for item in items {
            self.open.push(vec![]);
            results.push(write(self, item));
            pieces.push(self.open.pop().expect("the piece is open"));
        }
        let block = self.open.last_mut().expect("a block is open");
        if pieces.iter().flatten().any(|s| matches!(s, Statement::Loop(_))) {
            block.extend(pieces.into_iter().flatten());
            return results;
        }
        // What pieces have in common stands in the first that needs it.
        let defined = |s: &Statement| match s {
            Statement::Let(value, _) => Some(*value),
            Statement::Store { .. } | Statement::Prefetch(_) | Statement::Loop(_) => None,
        };
        let mut missing: BTreeSet<Value> = pieces.iter().flatten().filter_map(defined).collect();
        let most = pieces.iter().map(|piece| registers(piece)).max().unwrap_or(1).max(1);
        let at_once = (self.kernel.machine.registers as usize / most).max(1);
        // All groups have as many, but for one.
        let groups = pieces.len().div_ceil(at_once);
        let at_once = pieces.len().div_ceil(groups.max(1)).max(1);
        let mut pieces = pieces.into_iter().map(|piece| piece.into_iter().peekable()).peekable();
        while pieces.peek().is_some() {
            let mut group: Vec<_> = pieces.by_ref().take(at_once).collect();
            while group.iter_mut().any(|piece| piece.peek().is_some()) {
                for piece in &mut group {
                    if let Some(statement) = piece.next_if(|s| !needs(s, &missing)) {
                        defined(&statement).map(|value| missing.remove(&value));
                        block.push(statement);
                    }
                }
            }
        }
        results
    }

    /// How many pieces of long chains of operations are best written in turn.
    pub fn at_once(&self) -> i64 {
        (i64::from(self.kernel.machine.registers) / 4).clamp(1, 4)
    }

    fn push(&mut self, statement: Statement) {
        self.open.last_mut().expect("a block is open").push(statement);
    }

    fn define(&mut self, ty: Type, op: Op) -> Value {
        let value = self.kernel.values.push(ty);
        self.push(Statement::Let(value, op));
        value
    }
}

/// How many registers a piece without loops needs for what it computes, at a time and roughly: constants come
/// from memory.
fn registers(piece: &[Statement]) -> usize {
    let computed = |statement: &Statement| match statement {
        Statement::Let(_, Op::F32(_) | Op::I32(_) | Op::F64(_)) => None,
        Statement::Let(value, _) => Some(*value),
        Statement::Store { .. } | Statement::Prefetch(_) | Statement::Loop(_) => None,
    };
    let all: BTreeSet<Value> = piece.iter().filter_map(computed).collect();
    // Backwards: what is read later on.
    let (mut alive, mut most) = (BTreeSet::new(), 0);
    for statement in piece.iter().rev() {
        if let Some(value) = computed(statement) {
            most = most.max(alive.len());
            alive.remove(&value);
        }
        let mut read = |value| {
            if all.contains(&value) {
                alive.insert(value);
            }
        };
        match statement {
            Statement::Let(_, op) => op.for_each_operand(read),
            Statement::Store { value, .. } => read(*value),
            Statement::Prefetch(_) | Statement::Loop(_) => {}
        }
    }
    most
}

/// Whether a statement that is no loop reads one of these.
fn needs(statement: &Statement, values: &BTreeSet<Value>) -> bool {
    match statement {
        Statement::Let(_, op) => {
            let mut any = false;
            op.for_each_operand(|v| any |= values.contains(&v));
            any
        }
        Statement::Store { value, to, .. } => {
            [value, &to.pointer].iter().any(|v| values.contains(v))
        }
        Statement::Prefetch(at) => values.contains(&at.pointer),
        Statement::Loop(_) => false,
    }
}

/// Indices, pointers and memory. Offsets are in bytes.
impl Builder {
    /// Arithmetic on indices.
    pub fn index(&mut self, op: IndexOp, a: Value, b: impl Into<Scalar>) -> Value {
        self.define(Type::Index, Op::Index(op, a, b.into()))
    }

    /// `pointer + index * scale` bytes.
    pub fn offset(&mut self, pointer: Value, index: impl Into<Scalar>, scale: i64) -> Value {
        self.define(Type::Pointer, Op::Offset { pointer, index: index.into(), scale })
    }

    /// An index from `I32` or `I64` memory, forced into `0..extent`; see `Op::LoadIndex`.
    pub fn load_index(
        &mut self,
        memory: Memory,
        pointer: Value,
        offset: i64,
        extent: i64,
        wrap: bool,
    ) -> Value {
        let from = address(pointer, offset);
        self.define(Type::Index, Op::LoadIndex { from, memory, extent, wrap })
    }

    /// A vector of `F32`.
    pub fn load(&mut self, pointer: Value, offset: i64) -> Value {
        self.load_first(pointer, offset, self.kernel.machine.lanes)
    }

    /// The first `lanes` elements of a vector of `F32`; the other lanes are zero.
    pub fn load_first(&mut self, pointer: Value, offset: i64, lanes: u32) -> Value {
        self.load_as(Memory::F32, pointer, offset, lanes)
    }

    /// The same for elements of any kind.
    pub fn load_as(&mut self, memory: Memory, pointer: Value, offset: i64, lanes: u32) -> Value {
        self.define(memory.value(), Op::Load { from: address(pointer, offset), memory, lanes })
    }

    /// One element of `F32`, in all lanes.
    pub fn broadcast(&mut self, pointer: Value, offset: i64) -> Value {
        self.broadcast_as(Memory::F32, pointer, offset)
    }

    /// One element of any kind, in all lanes.
    pub fn broadcast_as(&mut self, memory: Memory, pointer: Value, offset: i64) -> Value {
        self.define(memory.value(), Op::Broadcast(address(pointer, offset), memory))
    }

    /// Stores the first `lanes` lanes as they are.
    pub fn store_first(&mut self, value: Value, pointer: Value, offset: i64, lanes: u32) {
        // For what cannot be stored, `F32` lets the verifier say so.
        let memory = self.type_of(value).memory().unwrap_or(Memory::F32);
        self.store_as(memory, value, pointer, offset, lanes);
    }

    /// Stores the first `lanes` lanes as elements of `memory`; narrow ones lose their high bits.
    pub fn store_as(
        &mut self,
        memory: Memory,
        value: Value,
        pointer: Value,
        offset: i64,
        lanes: u32,
    ) {
        self.push(Statement::Store { value, memory, to: address(pointer, offset), lanes });
    }

    /// Says that what lies there is read soon. It may lie outside its operand.
    pub fn prefetch(&mut self, pointer: Value, offset: i64) {
        self.push(Statement::Prefetch(address(pointer, offset)));
    }
}

/// Vectors, operation by operation.
impl Builder {
    /// A constant.
    pub fn f32(&mut self, value: f32) -> Value {
        self.define(Type::F32, Op::F32(value))
    }

    /// A constant.
    pub fn i32(&mut self, value: i32) -> Value {
        self.define(Type::I32, Op::I32(value))
    }

    /// A constant.
    pub fn f64(&mut self, value: f64) -> Value {
        self.define(Type::F64, Op::F64(value))
    }

    /// A constant.
    pub fn i64(&mut self, value: i64) -> Value {
        self.define(Type::I64, Op::I64(value))
    }

    /// A constant of a float type.
    pub fn float(&mut self, ty: Type, value: f64) -> Value {
        match ty {
            Type::F64 => self.f64(value),
            _ => self.f32(value as f32),
        }
    }

    /// A constant of an integer type.
    pub fn integer(&mut self, ty: Type, value: i64) -> Value {
        match ty {
            Type::I64 => self.i64(value),
            _ => self.i32(value as i32),
        }
    }

    /// An index in all lanes, as `I32` or `I64`.
    pub fn from_index(&mut self, ty: Type, index: impl Into<Scalar>) -> Value {
        self.define(ty, Op::FromIndex(ty, index.into()))
    }

    /// `I32`: 0, 1, 2, ...
    pub fn lane_numbers(&mut self) -> Value {
        self.define(Type::I32, Op::LaneNumbers)
    }

    /// An operation with one operand. (For rounding, `round` and its kin serve every machine.)
    pub fn unary(&mut self, op: Unary, a: Value) -> Value {
        let of = self.type_of(a);
        self.define(op.result(of).unwrap_or(of), Op::Unary(op, a))
    }

    /// An operation with two operands of one type.
    pub fn binary(&mut self, op: Binary, a: Value, b: Value) -> Value {
        self.define(self.type_of(a), Op::Binary(op, a, b))
    }

    /// `a + b`
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Add, a, b)
    }

    /// `a - b`
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Sub, a, b)
    }

    /// `a * b`
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Mul, a, b)
    }

    /// `a / b`
    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Div, a, b)
    }

    /// `if a < b { a } else { b }`
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Min, a, b)
    }

    /// `if b < a { a } else { b }`
    pub fn max(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Max, a, b)
    }

    /// `a & b`
    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::And, a, b)
    }

    /// `a | b`
    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Or, a, b)
    }

    /// `!a` of masks and integers
    pub fn not(&mut self, a: Value) -> Value {
        self.unary(Unary::Not, a)
    }

    /// `-a`
    pub fn neg(&mut self, a: Value) -> Value {
        self.unary(Unary::Neg, a)
    }

    /// `|a|`
    pub fn abs(&mut self, a: Value) -> Value {
        self.unary(Unary::Abs, a)
    }

    /// The square root.
    pub fn sqrt(&mut self, a: Value) -> Value {
        self.unary(Unary::Sqrt, a)
    }

    /// By a constant number of bits.
    pub fn shift(&mut self, op: Shift, a: Value, bits: u8) -> Value {
        self.define(self.type_of(a), Op::Shift(op, a, bits))
    }

    /// Of eight or sixteen numbers the one at the place that the lowest three or four bits say; where the machine has
    /// tables with so many places.
    pub fn lookup<const N: usize>(&mut self, table: [i32; N], place: Value) -> Value {
        let table = std::array::from_fn(|i| table[i % N]);
        self.define(Type::I32, Op::Lookup(table, place))
    }

    /// By a number of bits that is known when the kernel runs.
    pub fn shift_by(&mut self, op: Shift, a: Value, bits: Value) -> Value {
        self.define(self.type_of(a), Op::ShiftBy(op, a, bits))
    }

    /// The mask of a comparison.
    pub fn compare(&mut self, op: Comparison, a: Value, b: Value) -> Value {
        self.define(Type::Mask, Op::Compare(op, a, b))
    }

    /// `a == b`
    pub fn equal(&mut self, a: Value, b: Value) -> Value {
        self.compare(Comparison::Equal, a, b)
    }

    /// `a < b`
    pub fn less(&mut self, a: Value, b: Value) -> Value {
        self.compare(Comparison::Less, a, b)
    }

    /// `a <= b`
    pub fn less_equal(&mut self, a: Value, b: Value) -> Value {
        self.compare(Comparison::LessEqual, a, b)
    }

    /// `mask ? a : b`
    pub fn select(&mut self, mask: Value, a: Value, b: Value) -> Value {
        self.define(self.type_of(a), Op::Select(mask, a, b))
    }

    /// The first `lanes` lanes of `value`, the others from `rest`.
    pub fn first(&mut self, value: Value, rest: Value, lanes: u32) -> Value {
        if lanes == self.kernel.machine.lanes {
            return value;
        }
        self.define(self.type_of(value), Op::First { value, rest, lanes })
    }

    /// Across the lanes, the result in all lanes.
    pub fn reduce(&mut self, op: Reduction, a: Value) -> Value {
        if self.kernel.machine.lanes == 1 {
            return a;
        }
        self.define(self.type_of(a), Op::Reduce(op, a))
    }
}

fn address(pointer: Value, offset: i64) -> Address {
    Address { pointer, offset: i32::try_from(offset).expect("an offset fits in an address") }
}
