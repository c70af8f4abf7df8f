//! Scalar expressions: what an element-wise kernel computes for one element.

use crate::tensor::{push_f64, push_int, read_f64, read_int};
use crate::types::DType;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// A scalar of some type, by its bits, so that it can be compared and hashed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Literal {
    /// Its type.
    pub dtype: DType,
    /// Its little-endian bytes, filled with zeros.
    pub bits: u64,
}

impl Literal {
    /// From its little-endian bytes.
    pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Literal {
        let mut bits = [0; 8];
        bits[..bytes.len()].copy_from_slice(bytes);
        Literal { dtype, bits: u64::from_le_bytes(bits) }
    }
    /// Its little-endian bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.bits.to_le_bytes()[..self.dtype.bytes()].to_vec()
    }
    /// A value of any type, converted from a float.
    pub fn from_f64(dtype: DType, value: f64) -> Literal {
        let mut bytes = vec![];
        push_f64(&mut bytes, dtype, value);
        Literal::from_bytes(dtype, &bytes)
    }
    /// A value of any type, converted from an integer.
    pub fn from_int(dtype: DType, value: i64) -> Literal {
        let mut bytes = vec![];
        push_int(&mut bytes, dtype, value);
        Literal::from_bytes(dtype, &bytes)
    }
    /// As a float.
    pub fn f64(self) -> f64 {
        read_f64(self.dtype, &self.bits.to_le_bytes())
    }
    /// As an integer.
    pub fn int(self) -> i64 {
        read_int(self.dtype, &self.bits.to_le_bytes())
    }
}

/// A node of an expression, as an index into [`Expr::nodes`].
pub type Ref = u32;

/// An expression: nodes in order, operands first; the last is the result.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Expr {
    /// Not empty.
    pub nodes: Vec<Scalar>,
}

/// One operation on scalars.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Scalar {
    /// An element of the n-th operand.
    Operand(u32),
    /// A constant.
    Literal(Literal),
    /// A function of one argument, of its type.
    Unary(Unary, Ref),
    /// A function of two arguments of one type, of that type.
    Binary(Binary, Ref, Ref),
    /// A comparison of two arguments of one type: `Bool`.
    Compare(Comparison, Ref, Ref),
    /// The second where the first (`Bool`) is true, else the third.
    Select(Ref, Ref, Ref),
    /// Conversion. Float to integer truncates (any value when it does not fit), integer to narrower
    /// integer wraps, float to float rounds to nearest even, to `Bool` is `!= 0`.
    Cast(DType, Ref),
}

/// Functions of one argument. Floats only, but for `Neg`, `Abs`, `Sign` (any number) and `Not` (bool;
/// integers bit by bit).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unary {
    Neg,
    Abs,
    /// -1, 0 or 1; NaN and zeros give themselves.
    Sign,
    Not,
    Sqrt,
    Exp,
    Log,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    Floor,
    Ceil,
    /// To the nearest integer, ties to even.
    Round,
    /// Towards zero.
    Trunc,
}

/// Functions of two arguments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Binary {
    /// Sum; integers wrap.
    Add,
    /// Difference; integers wrap.
    Sub,
    /// Product; integers wrap.
    Mul,
    /// Quotient; integers truncate, `x / 0` is 0, and the lowest value by -1 is itself.
    Div,
    /// Remainder with the sign of the dividend (C's `%` and `fmod`); an integer's by 0 is 0.
    Rem,
    /// Floats only; corner cases as in C's `pow`.
    Pow,
    /// The smaller; NaN if either is NaN.
    Min,
    /// The larger; NaN if either is NaN.
    Max,
    /// Booleans; integers bit by bit.
    And,
    /// Booleans; integers bit by bit.
    Or,
    /// Booleans; integers bit by bit.
    Xor,
    /// Integers: shift left; by the type's bits or more gives 0.
    Shl,
    /// Integers: shift right, with the sign for signed ones; by the type's bits or more as by all.
    Shr,
}

/// Comparisons. False when an argument is NaN, but for `NotEqual`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    /// Whether it holds of arguments in this order; `None`: one of them is NaN.
    pub fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessEqual => order.is_some_and(Ordering::is_le),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

impl Scalar {
    /// The nodes that it reads.
    pub fn args(self) -> Vec<Ref> {
        match self {
            Scalar::Operand(_) | Scalar::Literal(_) => vec![],
            Scalar::Unary(_, a) | Scalar::Cast(_, a) => vec![a],
            Scalar::Binary(_, a, b) | Scalar::Compare(_, a, b) => vec![a, b],
            Scalar::Select(a, b, c) => vec![a, b, c],
        }
    }

    /// The same with every argument replaced.
    #[must_use]
    pub fn with_args(self, f: impl Fn(Ref) -> Ref) -> Scalar {
        match self {
            Scalar::Operand(_) | Scalar::Literal(_) => self,
            Scalar::Unary(op, a) => Scalar::Unary(op, f(a)),
            Scalar::Cast(ty, a) => Scalar::Cast(ty, f(a)),
            Scalar::Binary(op, a, b) => Scalar::Binary(op, f(a), f(b)),
            Scalar::Compare(op, a, b) => Scalar::Compare(op, f(a), f(b)),
            Scalar::Select(a, b, c) => Scalar::Select(f(a), f(b), f(c)),
        }
    }
}

impl Expr {
    /// An expression under construction.
    pub fn new() -> Expr {
        Expr::default()
    }

    /// Operand 0 as it is.
    pub fn identity() -> Expr {
        Expr { nodes: vec![Scalar::Operand(0)] }
    }

    /// `log(1 + exp(x))` of operand 0, without overflow: `max(x, 0) + log(1 + t)` with `t = exp(-|x|)`, and the
    /// logarithm by Kahan's correction for what `1 + t` loses.
    pub fn softplus(dtype: DType) -> Expr {
        let mut e = Expr::new();
        let x = e.operand(0);
        let size = e.unary(Unary::Abs, x);
        let turned = e.unary(Unary::Neg, size);
        let t = e.unary(Unary::Exp, turned);
        let tail = e.log_one_plus(dtype, t);
        let zero = e.literal(dtype, 0.0);
        let high = e.binary(Binary::Max, x, zero);
        e.binary(Binary::Add, high, tail);
        e
    }

    /// `log(1 + t)`, exact where `t` is small.
    pub fn log_one_plus(&mut self, dtype: DType, t: Ref) -> Ref {
        let one = self.literal(dtype, 1.0);
        let sum = self.binary(Binary::Add, one, t);
        let log = self.unary(Unary::Log, sum);
        let rounded = self.binary(Binary::Sub, sum, one);
        let product = self.binary(Binary::Mul, log, t);
        let quotient = self.binary(Binary::Div, product, rounded);
        let tiny = self.compare(Comparison::Equal, sum, one);
        self.select(tiny, t, quotient)
    }

    /// The node that stands for operand 0 of `pattern`, where `at` computes that.
    pub fn matches(&self, at: Ref, pattern: &Expr) -> Option<Ref> {
        let mut operand = None;
        let mut open = vec![(at, u32::try_from(pattern.nodes.len()).ok()?.checked_sub(1)?)];
        while let Some((at, of)) = open.pop() {
            let (own, wanted) = (self.nodes[at as usize], pattern.nodes[of as usize]);
            if wanted == Scalar::Operand(0) {
                if *operand.get_or_insert(at) != at {
                    return None;
                }
                continue;
            }
            if own.with_args(|_| 0) != wanted.with_args(|_| 0) {
                return None;
            }
            open.extend(own.args().into_iter().zip(wanted.args()));
        }
        operand
    }

    /// Appends a node (or finds an equal one).
    pub fn push(&mut self, node: Scalar) -> Ref {
        let found = self.nodes.iter().position(|n| *n == node);
        let index = found.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        u32::try_from(index).expect("expressions are small")
    }

    /// The n-th operand.
    pub fn operand(&mut self, n: usize) -> Ref {
        self.push(Scalar::Operand(u32::try_from(n).expect("operands are few")))
    }

    /// A constant.
    pub fn literal(&mut self, dtype: DType, value: f64) -> Ref {
        self.push(Scalar::Literal(Literal::from_f64(dtype, value)))
    }

    /// A function of one argument.
    pub fn unary(&mut self, op: Unary, a: Ref) -> Ref {
        self.push(Scalar::Unary(op, a))
    }

    /// A function of two arguments.
    pub fn binary(&mut self, op: Binary, a: Ref, b: Ref) -> Ref {
        self.push(Scalar::Binary(op, a, b))
    }

    /// A comparison.
    pub fn compare(&mut self, op: Comparison, a: Ref, b: Ref) -> Ref {
        self.push(Scalar::Compare(op, a, b))
    }

    /// A choice.
    pub fn select(&mut self, condition: Ref, a: Ref, b: Ref) -> Ref {
        self.push(Scalar::Select(condition, a, b))
    }

    /// A conversion.
    pub fn cast(&mut self, to: DType, a: Ref) -> Ref {
        self.push(Scalar::Cast(to, a))
    }

    /// The expression that ends with `result` (which [`Expr::push`] may have found in the middle):
    /// what does not lead to it is dropped.
    #[must_use]
    pub fn returning(self, result: Ref) -> Expr {
        let mut needed = vec![false; self.nodes.len()];
        needed[result as usize] = true;
        for i in (0..=result as usize).rev() {
            if needed[i] {
                self.nodes[i].args().into_iter().for_each(|a| needed[a as usize] = true);
            }
        }
        let mut out = Expr::default();
        let mut renamed = vec![0; self.nodes.len()];
        for i in (0..=result as usize).filter(|&i| needed[i]) {
            renamed[i] = u32::try_from(out.nodes.len()).expect("expressions are small");
            out.nodes.push(self.nodes[i].with_args(|a| renamed[a as usize]));
        }
        out
    }

    /// Appends `other`, its operands replaced by nodes of this expression; gives its result.
    pub fn inline(&mut self, other: &Expr, operands: &[Ref]) -> Ref {
        let mut renamed: Vec<Ref> = vec![];
        for node in &other.nodes {
            let at = match *node {
                Scalar::Operand(n) => operands[n as usize],
                node => self.push(node.with_args(|a| renamed[a as usize])),
            };
            renamed.push(at);
        }
        *renamed.last().expect("an expression is not empty")
    }

    /// The same expression with its operands renumbered.
    #[must_use]
    pub fn with_operands(&self, f: impl Fn(u32) -> u32) -> Expr {
        let rename = |node: &Scalar| match *node {
            Scalar::Operand(n) => Scalar::Operand(f(n)),
            node => node,
        };
        Expr { nodes: self.nodes.iter().map(rename).collect() }
    }

    /// Type of every node, given those of the operands; `None` where the rules of [`Scalar`] are
    /// broken.
    pub fn types(&self, operands: &[DType]) -> Option<Vec<DType>> {
        let mut types: Vec<DType> = vec![];
        for node in &self.nodes {
            let ty = |r: Ref| types.get(r as usize).copied();
            types.push(match *node {
                Scalar::Operand(n) => *operands.get(n as usize)?,
                Scalar::Literal(l) => l.dtype,
                Scalar::Unary(op, a) => {
                    let a = ty(a)?;
                    let fits = match op {
                        Unary::Neg | Unary::Abs | Unary::Sign => a != DType::Bool,
                        Unary::Not => !a.is_float(),
                        _ => a.is_float(),
                    };
                    fits.then_some(a)?
                }
                Scalar::Binary(op, a, b) => {
                    let a = (ty(a)? == ty(b)?).then_some(ty(a)?)?;
                    let fits = match op {
                        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Rem => {
                            a != DType::Bool
                        }
                        Binary::Min | Binary::Max => true,
                        Binary::Pow => a.is_float(),
                        Binary::And | Binary::Or | Binary::Xor => !a.is_float(),
                        Binary::Shl | Binary::Shr => a.is_integer(),
                    };
                    fits.then_some(a)?
                }
                Scalar::Compare(_, a, b) => (ty(a)? == ty(b)?).then_some(DType::Bool)?,
                Scalar::Select(c, a, b) => {
                    (ty(c)? == DType::Bool && ty(a)? == ty(b)?).then_some(ty(a)?)?
                }
                Scalar::Cast(to, a) => ty(a).map(|_| to)?,
            });
        }
        Some(types)
    }

    /// Type of the result.
    pub fn result_type(&self, operands: &[DType]) -> Option<DType> {
        self.types(operands)?.last().copied()
    }

    /// How many operations it takes (operands and literals are free).
    pub fn cost(&self) -> usize {
        self.nodes.iter().filter(|n| !matches!(n, Scalar::Operand(_) | Scalar::Literal(_))).count()
    }
}
