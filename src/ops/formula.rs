//! Writing scalar expressions over one element type, for the expansions of element-wise operators.

use crate::mir::expr::Ref;
use crate::mir::{Binary, Comparison, Expr, Unary};
use crate::types::DType;

/// An expression under construction whose operands and literals have one element type.
#[derive(Debug)]
pub struct Formula {
    expr: Expr,
    dtype: DType,
}

macro_rules! shorthands {
    ($($name:ident($($arg:ident),*) $kind:ident $op:expr;)*) => {$(
        #[doc = concat!("`", stringify!($op), "`.")]
        pub fn $name(&mut self, $($arg: Ref),*) -> Ref {
            self.expr.$kind($op, $($arg),*)
        }
    )*};
}

impl Formula {
    /// Over elements of this type.
    pub fn new(dtype: DType) -> Formula {
        Formula { expr: Expr::new(), dtype }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The n-th operand.
    pub fn operand(&mut self, n: usize) -> Ref {
        self.expr.operand(n)
    }

    /// A constant of the element type.
    pub fn lit(&mut self, value: f64) -> Ref {
        self.expr.literal(self.dtype, value)
    }

    /// A conversion.
    pub fn cast(&mut self, to: DType, a: Ref) -> Ref {
        self.expr.cast(to, a)
    }

    /// Constants and [`Formula::lit`] have this type from here on.
    pub fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    shorthands! {
        neg(a) unary Unary::Neg;
        abs(a) unary Unary::Abs;
        not(a) unary Unary::Not;
        sqrt(a) unary Unary::Sqrt;
        exp(a) unary Unary::Exp;
        log(a) unary Unary::Log;
        tanh(a) unary Unary::Tanh;
        erf(a) unary Unary::Erf;
        sigmoid(a) unary Unary::Sigmoid;
        round(a) unary Unary::Round;
        floor(a) unary Unary::Floor;
        trunc(a) unary Unary::Trunc;
        add(a, b) binary Binary::Add;
        sub(a, b) binary Binary::Sub;
        mul(a, b) binary Binary::Mul;
        div(a, b) binary Binary::Div;
        rem(a, b) binary Binary::Rem;
        pow(a, b) binary Binary::Pow;
        min(a, b) binary Binary::Min;
        max(a, b) binary Binary::Max;
        and(a, b) binary Binary::And;
        or(a, b) binary Binary::Or;
        xor(a, b) binary Binary::Xor;
        shl(a, b) binary Binary::Shl;
        shr(a, b) binary Binary::Shr;
        equal(a, b) compare Comparison::Equal;
        not_equal(a, b) compare Comparison::NotEqual;
        less(a, b) compare Comparison::Less;
        less_equal(a, b) compare Comparison::LessEqual;
        greater(a, b) compare Comparison::Greater;
        greater_equal(a, b) compare Comparison::GreaterEqual;
    }

    /// Any function of one argument.
    pub fn unary(&mut self, op: Unary, a: Ref) -> Ref {
        self.expr.unary(op, a)
    }

    /// `a` where `condition` holds, else `b`.
    pub fn select(&mut self, condition: Ref, a: Ref, b: Ref) -> Ref {
        self.expr.select(condition, a, b)
    }

    /// `a * factor`.
    pub fn scale(&mut self, a: Ref, factor: f64) -> Ref {
        let factor = self.lit(factor);
        self.mul(a, factor)
    }

    /// `a + term`.
    pub fn offset(&mut self, a: Ref, term: f64) -> Ref {
        let term = self.lit(term);
        self.add(a, term)
    }

    /// `exp(x) - 1` for `x <= 0`, without cancellation near 0: with t = tanh(x / 2), it is 2 t / (1 - t).
    pub fn exp_minus_one_below_zero(&mut self, x: Ref) -> Ref {
        let half = self.scale(x, 0.5);
        let t = self.tanh(half);
        let (twice, one) = (self.add(t, t), self.lit(1.0));
        let rest = self.sub(one, t);
        self.div(twice, rest)
    }

    /// `log(1 + t)` for `t` from 0 to 1: what 1 + t loses by rounding, a factor t / ((1 + t) - 1) gives
    /// back (Kahan; in Higham, Accuracy and Stability of Numerical Algorithms, 1.14.1).
    pub fn log_one_plus(&mut self, t: Ref) -> Ref {
        self.expr.log_one_plus(self.dtype, t)
    }

    /// `log(1 + exp(x))`, without overflow.
    pub fn softplus(&mut self, x: Ref) -> Ref {
        self.expr.inline(&Expr::softplus(self.dtype), &[x])
    }

    /// The expression with this result, beside others.
    pub fn copy(&self, result: Ref) -> Expr {
        self.expr.clone().returning(result)
    }

    /// The expression with this result.
    pub fn finish(self, result: Ref) -> Expr {
        self.expr.returning(result)
    }
}
