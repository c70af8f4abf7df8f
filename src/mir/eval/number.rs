//! Numbers of every element type, and expressions over them.

use super::*;

/// A number while it is computed with; which of the two follows from the element type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Float(f64),
    Int(i64),
}

impl Number {
    pub(super) fn read(dtype: DType, bytes: &[u8]) -> Number {
        if dtype.is_float() {
            Number::Float(read_f64(dtype, bytes))
        } else {
            Number::Int(read_int(dtype, bytes))
        }
    }

    pub(super) fn at(tensor: &Tensor, index: usize) -> Number {
        Number::read(tensor.ty().dtype, tensor.element(index))
    }

    pub(super) fn push(self, data: &mut Vec<u8>, dtype: DType) {
        match self {
            Number::Float(v) => push_f64(data, dtype, v),
            Number::Int(v) => push_int(data, dtype, v),
        }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Number::Float(v) => v,
            Number::Int(v) => v as f64,
        }
    }

    pub(super) fn int(self) -> i64 {
        match self {
            Number::Float(v) => v as i64,
            Number::Int(v) => v,
        }
    }

    /// As an element of this type holds it.
    pub(super) fn rounded(self, dtype: DType) -> Number {
        match (self, dtype) {
            (Number::Float(v), DType::F32) => Number::Float(f64::from(v as f32)),
            (Number::Float(_), DType::F64) | (Number::Int(_), DType::I64) => self,
            _ => {
                let mut bytes = Vec::with_capacity(8);
                self.push(&mut bytes, dtype);
                Number::read(dtype, &bytes)
            }
        }
    }
}

/// An expression prepared for many elements of these types.
pub(super) struct Evaluator<'a> {
    pub(super) expr: &'a Expr,
    pub(super) types: Vec<DType>,
    pub(super) values: Vec<Number>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(expr: &'a Expr, operands: &[DType]) -> Evaluator<'a> {
        let types = expr.types(operands).expect("the graph is verified");
        Evaluator { expr, types, values: Vec::with_capacity(expr.nodes.len()) }
    }

    pub(super) fn result_type(&self) -> DType {
        *self.types.last().expect("an expression is not empty")
    }

    pub(super) fn run(&mut self, operand: impl Fn(usize) -> Number) -> Number {
        self.values.clear();
        for (i, node) in self.expr.nodes.iter().enumerate() {
            let v = |r: expr::Ref| self.values[r as usize];
            let value = match *node {
                Scalar::Operand(n) => operand(n as usize),
                Scalar::Literal(l) => Number::read(l.dtype, &l.bytes()),
                Scalar::Unary(op, a) => unary(op, v(a), self.types[i]),
                Scalar::Binary(op, a, b) => binary(op, v(a), v(b), self.types[i]),
                Scalar::Compare(op, a, b) => {
                    Number::Int(compare(op, v(a), v(b), self.types[a as usize]).into())
                }
                Scalar::Select(c, a, b) => {
                    if v(c).int() != 0 {
                        v(a)
                    } else {
                        v(b)
                    }
                }
                Scalar::Cast(to, a) => cast(to, v(a), self.types[a as usize]),
            };
            self.values.push(value.rounded(self.types[i]));
        }
        *self.values.last().expect("an expression is not empty")
    }
}

pub(super) fn cast(to: DType, v: Number, from: DType) -> Number {
    match (v, to.is_float()) {
        (Number::Float(v), true) => Number::Float(v),
        (Number::Float(v), false) if to == DType::Bool => Number::Int((v != 0.0).into()),
        (Number::Float(v), false) if to == DType::U64 => Number::Int(v as u64 as i64),
        (Number::Float(v), false) => Number::Int(v as i64),
        (Number::Int(v), true) if from == DType::U64 => Number::Float(v as u64 as f64),
        (Number::Int(v), true) => Number::Float(v as f64),
        (Number::Int(v), false) if to == DType::Bool => Number::Int((v != 0).into()),
        (Number::Int(v), false) => Number::Int(v),
    }
}

pub(super) fn unary(op: Unary, a: Number, dtype: DType) -> Number {
    let x = match (a, op) {
        (Number::Int(v), Unary::Neg) => return Number::Int(v.wrapping_neg()),
        (Number::Int(v), Unary::Abs) if dtype.is_signed() => return Number::Int(v.wrapping_abs()),
        (Number::Int(v), Unary::Abs) => return Number::Int(v),
        (Number::Int(v), Unary::Sign) if dtype.is_signed() => return Number::Int(v.signum()),
        (Number::Int(v), Unary::Sign) => return Number::Int((v != 0).into()),
        (Number::Int(v), Unary::Not) if dtype == DType::Bool => {
            return Number::Int((v == 0).into());
        }
        (Number::Int(v), Unary::Not) => return Number::Int(!v),
        (a, _) => a.float(),
    };
    Number::Float(match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x == 0.0 || x.is_nan() => x,
        Unary::Sign => x.signum(),
        Unary::Not => unreachable!("of integers only"),
        Unary::Sqrt => x.sqrt(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Tanh => x.tanh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::Erf => erf(x),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Trunc => x.trunc(),
    })
}

pub(super) fn binary(op: Binary, a: Number, b: Number, dtype: DType) -> Number {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Number::Int(int_binary(op, a, b, dtype)),
        _ => Number::Float(float_binary(op, a.float(), b.float())),
    }
}

pub(super) fn float_binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Rem => a % b,
        Binary::Pow => a.powf(b),
        Binary::Min | Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {
            unreachable!("of integers only")
        }
    }
}

pub(super) fn int_binary(op: Binary, a: i64, b: i64, dtype: DType) -> i64 {
    // Only in 64 bits does the sign make a difference: narrower ones are widened by their own rule.
    let unsigned = dtype == DType::U64;
    let less = if unsigned { (a as u64) < b as u64 } else { a < b };
    let bits = 8 * dtype.bytes() as i64;
    let shifted = b as u64 >= bits as u64;
    match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div | Binary::Rem if b == 0 => 0,
        Binary::Div if unsigned => (a as u64 / b as u64) as i64,
        Binary::Div => a.wrapping_div(b),
        Binary::Rem if unsigned => (a as u64 % b as u64) as i64,
        Binary::Rem => a.wrapping_rem(b),
        Binary::Min => {
            if less {
                a
            } else {
                b
            }
        }
        Binary::Max => {
            if less {
                b
            } else {
                a
            }
        }
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl if shifted => 0,
        Binary::Shl => a << b,
        Binary::Shr if shifted && a < 0 && !unsigned => -1,
        Binary::Shr if shifted => 0,
        Binary::Shr if unsigned => (a as u64 >> b) as i64,
        Binary::Shr => a >> b,
        Binary::Pow => unreachable!("of floats only"),
    }
}

pub(super) fn compare(op: Comparison, a: Number, b: Number, dtype: DType) -> bool {
    op.holds(match (a, b) {
        (Number::Int(a), Number::Int(b)) if dtype == DType::U64 => {
            Some((a as u64).cmp(&(b as u64)))
        }
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        _ => a.float().partial_cmp(&b.float()),
    })
}

/// The error function, to about 1e-15: its series near zero, a continued fraction of the complement
/// far from it (Abramowitz and Stegun, 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    if a < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while f64::abs(term) > 1e-17 * f64::abs(sum) {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum;
    }
    if a > 6.0 {
        return x.signum();
    }
    let tail = (1..=60).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (a + f));
    let complement = (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail);
    x.signum() * (1.0 - complement)
}
