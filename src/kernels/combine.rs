//! Reductions of elements to one: their beginning, their steps and their end.

use super::operations::{as_number, extremum_of_any, flip, in_pairs, wrap};
use crate::kir::build::Builder;
use crate::kir::{self, Value};
use crate::lir::{Binary, Reduction};
use crate::types::DType;

/// A reduction of elements of a type. Partial results are held as numbers: booleans as 0 and 1, `u64`
/// in the order of `i64` where the order matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Combine {
    op: Reduction,
    dtype: DType,
}

impl Combine {
    pub(super) fn new(op: Reduction, dtype: DType) -> Combine {
        Combine { op, dtype }
    }

    fn flips(self) -> bool {
        self.dtype == DType::U64 && matches!(self.op, Reduction::Max | Reduction::Min)
    }

    /// The partial result of nothing.
    pub(super) fn start(self, b: &mut Builder) -> Value {
        let (lowest, highest): (i64, i64) = match self.dtype {
            DType::I8 => (i8::MIN.into(), i8::MAX.into()),
            DType::I16 => (i16::MIN.into(), i16::MAX.into()),
            DType::I32 => (i32::MIN.into(), i32::MAX.into()),
            DType::U8 => (0, u8::MAX.into()),
            DType::U16 => (0, u16::MAX.into()),
            DType::U32 => (0, u32::MAX.into()),
            // In the order of `i64`.
            DType::I64 | DType::U64 => (i64::MIN, i64::MAX),
            DType::Bool => (0, 1),
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
                let ty = if self.dtype == DType::F64 { kir::Type::F64 } else { kir::Type::F32 };
                return match self.op {
                    Reduction::Sum => b.float(ty, 0.0),
                    Reduction::Product => b.float(ty, 1.0),
                    Reduction::Max => b.float(ty, f64::NEG_INFINITY),
                    Reduction::Min => b.float(ty, f64::INFINITY),
                };
            }
        };
        let value = match self.op {
            Reduction::Sum => 0,
            Reduction::Product => 1,
            Reduction::Max => lowest,
            Reduction::Min => highest,
        };
        match self.dtype {
            DType::U32 | DType::I64 | DType::U64 => b.i64(value),
            _ => b.i32(value as i32),
        }
    }

    /// An element as a partial result.
    pub(super) fn lift(self, b: &mut Builder, value: Value) -> Value {
        match self.dtype {
            DType::Bool => as_number(b, value),
            _ if self.flips() => flip(b, value),
            _ => value,
        }
    }

    /// Of two partial results.
    pub(super) fn join(self, b: &mut Builder, x: Value, y: Value) -> Value {
        match self.op {
            Reduction::Max | Reduction::Min if self.dtype.is_float() => {
                let op = if self.op == Reduction::Max { Binary::Max } else { Binary::Min };
                extremum_of_any(b, op, x, y)
            }
            _ => b.binary(self.numbers().combine(), x, y),
        }
    }

    /// What is done to the numbers: of booleans, a sum is whether any is true, a product whether all
    /// are.
    fn numbers(self) -> kir::Reduction {
        match self.op {
            Reduction::Sum if self.dtype == DType::Bool => kir::Reduction::Max,
            Reduction::Product if self.dtype == DType::Bool => kir::Reduction::Min,
            Reduction::Sum => kir::Reduction::Sum,
            Reduction::Product => kir::Reduction::Product,
            Reduction::Max => kir::Reduction::Max,
            Reduction::Min => kir::Reduction::Min,
        }
    }

    /// All partial results to one, and across its lanes.
    pub(super) fn across(self, b: &mut Builder, partial: &[Value]) -> Value {
        let joined = in_pairs(partial.to_vec(), |x, y| self.join(b, x, y));
        let all = b.reduce(self.numbers(), joined);
        let extremum = matches!(self.op, Reduction::Max | Reduction::Min);
        if b.lanes() == 1 || !extremum || !self.dtype.is_float() {
            return all;
        }
        // Whether a NaN comes through is not defined there: it is looked for.
        let number = b.equal(joined, joined);
        let (zero, one, nan) = (b.f32(0.0), b.f32(1.0), b.f32(f32::NAN));
        let flags = b.select(number, zero, one);
        let flag = b.reduce(kir::Reduction::Max, flags);
        let found = b.less(zero, flag);
        b.select(found, nan, all)
    }

    /// The element that a partial result is.
    pub(super) fn lower(self, b: &mut Builder, partial: Value) -> Value {
        match self.dtype {
            DType::Bool => {
                let zero = b.i32(0);
                b.less(zero, partial)
            }
            _ if self.flips() => flip(b, partial),
            dtype => wrap(b, dtype, partial),
        }
    }
}
