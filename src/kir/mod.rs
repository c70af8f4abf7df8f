//! KIR: one kernel as a structured loop program over vectors.
//!
//! A kernel takes one pointer per operand and the range `begin..end` of its outermost loop. Shapes,
//! strides and tile sizes are constants in it; the number of lanes is a constant too.
//!
//! - Types: `Index` (64-bit signed), `Pointer`, and vectors of `lanes` elements: `F32`, `I32`,
//!   `Mask`. There are no scalar floats: a broadcast load and a reduction give vectors with all
//!   lanes equal. Where the machine has one lane, the 8-byte types `F64` and `I64` exist as well; where
//!   its lanes have eight bytes, vectors are of `F64` and `Mask` only.
//! - What memory holds is said by each access: narrow integers widen to `I32` when they are loaded
//!   and lose their high bits when they are stored. With more than one lane, memory holds `F32`, `F16`,
//!   `I32` and what is narrower, or `F64` alone.
//! - An address is a pointer plus a constant, in bytes. Pointers come from operands, from
//!   `Op::Offset` (pointer + index * constant) and from loops, which advance theirs by constants.
//! - An index may come from memory: `Op::LoadIndex` forces it into its extent.
//! - A tail is a constant number of lanes on a load, a store or `Op::First`. There are no mask
//!   operands.
//! - The only control flow is the loop. What happens sometimes is a loop of at most one iteration.
//! - Nothing traps, and nothing calls: what a machine lacks, the builder spells out.
//!
//! Values are numbered in order of definition and visible in the block that defines them and below.
//! An operand that may be written may be read back, too: statements happen in the order in which
//! they stand.

pub mod build;
mod order;
pub mod overlap;
pub mod print;
pub mod verify;

use crate::machine::Machine;
use cranelift_entity::{PrimaryMap, entity_impl};
pub use order::Order;

/// An SSA value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(u32);
entity_impl!(Value, "v");

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// A signed number of 64 bits, for loops and addresses.
    Index,
    /// A place in an operand.
    Pointer,
    /// A vector of 4-byte floats.
    F32,
    /// A vector of 4-byte integers, which wrap.
    I32,
    /// A vector of 8-byte floats; only where the machine has one lane, or lanes for them.
    F64,
    /// A vector of 8-byte integers, which wrap; only where the machine has one lane.
    I64,
    /// A vector of truth values.
    Mask,
}

/// What one element is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// A value of type `F32`.
    F32,
    /// A value of type `F64`.
    F64,
    /// Two bytes (binary16): `F32`, converted when it is loaded, and rounded to nearest even when it is
    /// stored. Only where the machine has it; see `kernels::math::half`.
    F16,
    /// A value of type `I32`. (Unsigned 32-bit numbers that matter as such are `U32`.)
    I32,
    /// A value of type `I64`; unsigned 64-bit numbers too, since the bits are the same.
    I64,
    /// One byte: `I32`, extended with its sign.
    I8,
    /// One byte: `I32`, extended with zeros.
    U8,
    /// Two bytes: `I32`, extended with its sign.
    I16,
    /// Two bytes: `I32`, extended with zeros.
    U16,
    /// Four bytes: `I64`, extended with zeros.
    U32,
}

/// A function `void f(const uint8_t *const *table, int64_t begin, int64_t end)`; `table` has one
/// pointer per operand.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The function's name, for listings.
    pub name: String,
    /// What it was written for.
    pub machine: Machine,
    /// In the order of the table.
    pub operands: Vec<Operand>,
    /// `begin` and `end`, each within `0..=extent`, `begin <= end`.
    pub range: Range,
    /// What it does.
    pub body: Block,
    /// The type of every value.
    pub values: PrimaryMap<Value, Type>,
}

/// An operand of which `bytes` bytes may be accessed.
#[derive(Clone, Debug)]
pub struct Operand {
    /// For listings.
    pub name: &'static str,
    /// Its first byte.
    pub pointer: Value,
    /// How many bytes there are.
    pub bytes: i64,
    /// What may be done to them.
    pub access: Access,
}

/// What may be done to an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// It is only read.
    Read,
    /// It may be written, and read back.
    Write,
}

/// The part of its outermost loop that one call of a kernel does.
#[derive(Clone, Debug)]
pub struct Range {
    /// The first iteration.
    pub begin: Value,
    /// The end, which is no iteration any more.
    pub end: Value,
    /// The end of the whole range; it begins at 0.
    pub extent: i64,
}

/// Statements in order.
pub type Block = Vec<Statement>;

/// What a kernel does.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Defines a value.
    Let(Value, Op),
    /// Stores the first `lanes` lanes.
    Store {
        /// What is stored.
        value: Value,
        /// What memory holds afterwards.
        memory: Memory,
        /// The first element.
        to: Address,
        /// How many elements.
        lanes: u32,
    },
    /// A hint that what lies there is read soon: it is brought into the second-level cache. It may
    /// lie anywhere, and emitters may leave it out.
    Prefetch(Address),
    /// Repeats a block.
    Loop(Box<Loop>),
}

/// `for index in from..to`, with pointers that advance by constants and values that are carried.
#[derive(Clone, Debug)]
pub struct Loop {
    /// Counts up by one; visible in the body.
    pub index: Value,
    /// Its first value.
    pub from: Scalar,
    /// Its end.
    pub to: Scalar,
    /// Pointers, visible in the body.
    pub pointers: Vec<Advance>,
    /// Values, visible in the body, and their last ones after the loop.
    pub carried: Vec<Carry>,
    /// What is repeated.
    pub body: Block,
}

/// `value` is `start` in the first iteration and `step` bytes more in each one after it.
#[derive(Clone, Debug)]
pub struct Advance {
    /// The pointer in the body.
    pub value: Value,
    /// The pointer before the loop.
    pub start: Value,
    /// Bytes.
    pub step: i64,
}

/// `value` is `start` in the first iteration and the last iteration's `next` after it; `result` is
/// what it is after the loop.
#[derive(Clone, Debug)]
pub struct Carry {
    /// In the body.
    pub value: Value,
    /// Before the loop.
    pub start: Value,
    /// Defined in the body (or before it).
    pub next: Value,
    /// After the loop.
    pub result: Value,
}

/// An index: known now, or when the kernel runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// Known now.
    Constant(i64),
    /// A value of type `Index`.
    Value(Value),
}

/// A place in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// A value of type `Pointer`.
    pub pointer: Value,
    /// Bytes from there.
    pub offset: i32,
}

/// How a value comes about. Operations on vectors are lane by lane unless they say otherwise.
#[derive(Clone, Debug)]
pub enum Op {
    /// Arithmetic on indices.
    Index(IndexOp, Value, Scalar),
    /// An index from memory (`I32` or `I64`), forced into `0..extent`: where `wrap` is set, a
    /// negative one gets `extent` added first; then what is too small becomes 0, and what is too
    /// large `extent - 1`.
    LoadIndex {
        /// The element.
        from: Address,
        /// `I32` or `I64`.
        memory: Memory,
        /// How many indices there are; at least 1.
        extent: i64,
        /// Whether negative ones count from the end.
        wrap: bool,
    },
    /// `pointer + index * scale` bytes.
    Offset {
        /// Where to begin.
        pointer: Value,
        /// How many steps.
        index: Scalar,
        /// Bytes of a step.
        scale: i64,
    },
    /// A constant, in all lanes.
    F32(f32),
    /// A constant, in all lanes.
    I32(i32),
    /// A constant, in all lanes.
    F64(f64),
    /// A constant.
    I64(i64),
    /// An index in all lanes, as `I32` (its low bits) or `I64`.
    FromIndex(Type, Scalar),
    /// `I32`: the number of each lane, from 0.
    LaneNumbers,
    /// The first `lanes` elements from memory, the other lanes zero.
    Load {
        /// The first element.
        from: Address,
        /// What memory holds.
        memory: Memory,
        /// How many elements.
        lanes: u32,
    },
    /// One element from memory, in all lanes.
    Broadcast(Address, Memory),
    /// One operand.
    Unary(Unary, Value),
    /// Two operands of the same type.
    Binary(Binary, Value, Value),
    /// By a constant number of bits, less than the type has, of `I32` and `I64`.
    Shift(Shift, Value, u8),
    /// By as many bits as the second value's lanes say, modulo the type's bits. `I32` and `I64`, only
    /// where the machine has one lane.
    ShiftBy(Shift, Value, Value),
    /// `a * b + c` of floats, rounded once. Only where the machine has it; see
    /// `build::Builder::mul_add`.
    MulAdd(Value, Value, Value),
    /// `sum` plus four products, in each lane of `I32`: of the bytes of `left`, without signs, by those of
    /// `right`, with signs, in the order of memory. Sums wrap. Only where the machine has it; see
    /// `build::Builder::dot`.
    Dot {
        /// Bytes from 0 to 255.
        left: Value,
        /// Bytes from -128 to 127.
        right: Value,
        /// What is added to.
        sum: Value,
    },
    /// In each lane of `I32`, the sum of two products: of the low halves, and of the high halves, which are
    /// numbers of 16 bits with signs. Only with more than one lane.
    Pairs(Value, Value),
    /// Of each half of 16 bits of each lane of `I32`, one byte as a number of 16 bits. Only with more than one
    /// lane.
    Bytes {
        /// Where the bytes are.
        of: Value,
        /// The upper ones, else the lower ones.
        upper: bool,
        /// Whether they have signs.
        signed: bool,
    },
    /// `I32`: in each lane, of sixteen numbers the one at the place that the lowest four bits of the value's
    /// lane say. Only where the machine has tables; where they have eight places the numbers are those of
    /// eight, twice.
    Lookup([i32; 16], Value),
    /// Of floats (false when either is a NaN) or integers.
    Compare(Comparison, Value, Value),
    /// Lane by lane, the first value where the mask is set, else the second. (Masks are combined by
    /// `And`, `Or`, `Xor` and `Not`.)
    Select(Value, Value, Value),
    /// The first `lanes` lanes of `value`, the others from `rest`. `F32` or `I32`.
    First {
        /// For the first lanes.
        value: Value,
        /// For the others.
        rest: Value,
        /// How many come from `value`.
        lanes: u32,
    },
    /// Across the lanes, the result in all lanes. `F32` or `I32` (with one lane also `F64` and `I64`).
    Reduce(Reduction, Value),
    /// Lanes of two vectors of `F32` or `I32` in any order. Only with more than one lane.
    Shuffle {
        /// The first vector.
        a: Value,
        /// The second vector, whose lanes count on from those of the first. (It may be the same.)
        b: Value,
        /// Where each lane comes from.
        order: Order,
    },
}

/// Arithmetic on indices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexOp {
    /// The sum.
    Add,
    /// The product.
    Mul,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// The quotient of an index that is not negative by a constant above 0.
    Div,
    /// The remainder of the same.
    Rem,
}

/// What has one operand. The result has its type unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    /// Of floats (the other sign, for NaN and 0 too) and integers (which wrap).
    Neg,
    /// Without the sign, of floats and integers. The least integer stays as it is.
    Abs,
    /// Of masks and integers: all bits the other way.
    Not,
    /// Of floats.
    Sqrt,
    /// Of floats: to the nearest integer, ties to even. This and the next three keep the sign of a
    /// zero and are only where the machine rounds; see `build::Builder::round`.
    Round,
    /// Of floats: to an integer, downwards.
    Floor,
    /// Of floats: to an integer, upwards.
    Ceil,
    /// Of floats: to an integer, towards zero.
    Trunc,
    /// `F32` of `I32`; with one lane also of `F64` and `I64`. Rounds to nearest even.
    ToF32,
    /// `I32` of `F32`, towards zero: any value when the result does not fit; with one lane also of
    /// `F64` and (the low bits) of `I64`.
    ToI32,
    /// `F64` of `F32`, `I32` or `I64`. Only with one lane.
    ToF64,
    /// `I64` of `F32`, `F64` (towards zero, any value when it does not fit) or `I32`. Only with one
    /// lane.
    ToI64,
    /// `F32` to the nearest number of two bytes (binary16), ties to even. Only where the machine has
    /// it; see `kernels::math::half`.
    RoundF16,
    /// The bits of floats: `I32` of `F32`, `I64` of `F64`.
    ToBits,
    /// Floats from their bits: `F32` of `I32`, `F64` of `I64`.
    FromBits,
}

/// What has two operands of one type, and a result of that type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binary {
    /// Floats and integers.
    Add,
    /// Floats and integers.
    Sub,
    /// Floats and integers.
    Mul,
    /// Floats; integers where the machine has one lane: towards zero, `x / 0` is 0, and the least
    /// number by -1 is itself.
    Div,
    /// Integers, where the machine has one lane: `a - a / b * b`, so that `x rem 0` is `x`.
    Rem,
    /// `if a < b { a } else { b }`: for floats the second when either is a NaN.
    Min,
    /// `if b < a { a } else { b }`: for floats the second when either is a NaN.
    Max,
    /// Integers and masks.
    And,
    /// Integers and masks.
    Or,
    /// Integers and masks.
    Xor,
    /// `a * 2^b` of `F32`, for an integral `b`, rounded once. Only where the machine has it.
    Scale,
}

/// By which bits are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shift {
    /// Zeros come in from below.
    Left,
    /// The sign comes in from above.
    RightSigned,
    /// Zeros come in from above.
    RightUnsigned,
}

/// What gives masks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// `a == b`
    Equal,
    /// `a < b`
    Less,
    /// `a <= b`
    LessEqual,
}

/// What is done across lanes, in an order that depends on their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The product.
    Product,
    /// By `Binary::Min`: which NaN comes through is not defined.
    Min,
    /// By `Binary::Max`: the same.
    Max,
}

impl Type {
    /// Whether values are floats.
    pub fn is_float(self) -> bool {
        matches!(self, Type::F32 | Type::F64)
    }

    /// Whether values are vectors of integers.
    pub fn is_integer(self) -> bool {
        matches!(self, Type::I32 | Type::I64)
    }

    /// Whether the machine has values of this type.
    pub fn is_on(self, machine: &Machine) -> bool {
        match self {
            Type::Index | Type::Pointer | Type::Mask => true,
            Type::F32 | Type::I32 => !machine.doubles,
            Type::F64 => machine.doubles || machine.lanes == 1,
            Type::I64 => machine.lanes == 1,
        }
    }

    /// What memory holds when a value is stored as it is.
    pub fn memory(self) -> Option<Memory> {
        match self {
            Type::F32 => Some(Memory::F32),
            Type::I32 => Some(Memory::I32),
            Type::F64 => Some(Memory::F64),
            Type::I64 => Some(Memory::I64),
            Type::Index | Type::Pointer | Type::Mask => None,
        }
    }
}

impl Memory {
    /// The size of one element.
    pub fn bytes(self) -> i64 {
        match self {
            Memory::I8 | Memory::U8 => 1,
            Memory::I16 | Memory::U16 | Memory::F16 => 2,
            Memory::F32 | Memory::I32 | Memory::U32 => 4,
            Memory::F64 | Memory::I64 => 8,
        }
    }

    /// The type of what is loaded, and of what may be stored.
    pub fn value(self) -> Type {
        match self {
            Memory::F32 | Memory::F16 => Type::F32,
            Memory::F64 => Type::F64,
            Memory::I32 | Memory::I8 | Memory::U8 | Memory::I16 | Memory::U16 => Type::I32,
            Memory::I64 | Memory::U32 => Type::I64,
        }
    }

    /// Whether the machine loads and stores it.
    pub fn is_on(self, machine: &Machine) -> bool {
        self.value().is_on(machine)
    }
}

impl Unary {
    /// The type of the result for an operand's type, if it takes that.
    pub fn result(self, of: Type) -> Option<Type> {
        use Type::*;
        match (self, of) {
            (Unary::Neg | Unary::Abs, F32 | I32 | F64 | I64) => Some(of),
            (Unary::Not, Mask | I32 | I64) => Some(of),
            (Unary::Sqrt | Unary::Round | Unary::Floor, F32 | F64) => Some(of),
            (Unary::Ceil | Unary::Trunc, F32 | F64) => Some(of),
            (Unary::ToF32, I32 | F64 | I64) => Some(F32),
            (Unary::ToI32, F32 | F64 | I64) => Some(I32),
            (Unary::ToF64, F32 | I32 | I64) => Some(F64),
            (Unary::ToI64, F32 | F64 | I32) => Some(I64),
            (Unary::RoundF16, F32) => Some(F32),
            (Unary::ToBits, F32) => Some(I32),
            (Unary::ToBits, F64) => Some(I64),
            (Unary::FromBits, I32) => Some(F32),
            (Unary::FromBits, I64) => Some(F64),
            _ => None,
        }
    }

    /// Whether it takes a machine that rounds.
    pub fn rounds(self) -> bool {
        matches!(self, Unary::Round | Unary::Floor | Unary::Ceil | Unary::Trunc)
    }
}

impl Binary {
    /// Whether the operands may change places.
    pub fn commutes(self) -> bool {
        use Binary::*;
        matches!(self, Add | Mul | And | Or | Xor)
    }

    /// Whether it takes operands of the type, on a machine with so many lanes.
    pub fn takes(self, ty: Type, lanes: u32) -> bool {
        use Binary::*;
        match self {
            Add | Sub | Mul | Min | Max => ty.is_float() || ty.is_integer(),
            Div => ty.is_float() || ty.is_integer() && lanes == 1,
            Rem => ty.is_integer() && lanes == 1,
            And | Or | Xor => ty.is_integer() || ty == Type::Mask,
            Scale => ty == Type::F32,
        }
    }
}

impl Reduction {
    /// The operation that combines two partial results.
    pub fn combine(self) -> Binary {
        match self {
            Reduction::Sum => Binary::Add,
            Reduction::Product => Binary::Mul,
            Reduction::Min => Binary::Min,
            Reduction::Max => Binary::Max,
        }
    }
}

impl Op {
    /// What it loads, if anything: the first element, and how many.
    pub fn loads(&self) -> Option<(Address, Memory, u32)> {
        match *self {
            Op::LoadIndex { from, memory, .. } | Op::Broadcast(from, memory) => {
                Some((from, memory, 1))
            }
            Op::Load { from, memory, lanes } => Some((from, memory, lanes)),
            Op::Index(..) | Op::Offset { .. } | Op::FromIndex(..) | Op::LaneNumbers => None,
            Op::F32(_) | Op::I32(_) | Op::F64(_) | Op::I64(_) => None,
            Op::Unary(..) | Op::Binary(..) | Op::Shift(..) | Op::ShiftBy(..) => None,
            Op::MulAdd(..) | Op::Dot { .. } | Op::Pairs(..) | Op::Bytes { .. } => None,
            Op::Lookup(..) | Op::Compare(..) | Op::Select(..) | Op::First { .. } => None,
            Op::Reduce(..) | Op::Shuffle { .. } => None,
        }
    }

    /// Calls `see` with every value that this operation reads.
    pub fn for_each_operand(&self, mut see: impl FnMut(Value)) {
        match *self {
            Op::F32(_) | Op::I32(_) | Op::F64(_) | Op::I64(_) | Op::LaneNumbers => {}
            Op::FromIndex(_, a) => {
                if let Scalar::Value(a) = a {
                    see(a);
                }
            }
            Op::Index(_, a, b) | Op::Offset { pointer: a, index: b, .. } => {
                see(a);
                if let Scalar::Value(b) = b {
                    see(b);
                }
            }
            Op::Load { from, .. } | Op::LoadIndex { from, .. } | Op::Broadcast(from, _) => {
                see(from.pointer);
            }
            Op::Unary(_, a) | Op::Shift(_, a, _) | Op::Lookup(_, a) | Op::Reduce(_, a) => see(a),
            Op::Bytes { of, .. } => see(of),
            Op::Pairs(a, b) => [a, b].into_iter().for_each(see),
            Op::Dot { left, right, sum } => [left, right, sum].into_iter().for_each(see),
            Op::Binary(_, a, b) | Op::Compare(_, a, b) | Op::ShiftBy(_, a, b) => {
                [a, b].into_iter().for_each(see);
            }
            Op::First { value: a, rest: b, .. } | Op::Shuffle { a, b, .. } => {
                [a, b].into_iter().for_each(see);
            }
            Op::MulAdd(a, b, c) | Op::Select(a, b, c) => [a, b, c].into_iter().for_each(see),
        }
    }
}
