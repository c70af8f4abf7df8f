//! RLX's functions of one element.

use crate::error::{ErrorKind, nearest};
use crate::mir::expr::Ref;
use crate::mir::{Expr, Unary};
use crate::ops::formula::Formula;
use crate::ops::{Attrs, tools};
use crate::types::DType;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

/// A function: its name in RLX, its definition, and its expression.
#[derive(Clone, Copy)]
pub(super) struct Function {
    name: &'static str,
    apply: fn(f64) -> f64,
    expand: fn(&mut Formula, Ref) -> Ref,
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `log(1 + exp(-|x|))`, by which a relative of softplus does not overflow.
fn tail(f: &mut Formula, x: Ref) -> Ref {
    let size = f.abs(x);
    let turned = f.neg(size);
    let power = f.exp(turned);
    f.log_one_plus(power)
}

/// `clamp(x / 6 + 1 / 2, 0, 1)`.
fn expand_hard_sigmoid(f: &mut Formula, x: Ref) -> Ref {
    let sixth = f.scale(x, 1.0 / 6.0);
    let sum = f.offset(sixth, 0.5);
    let (zero, one) = (f.lit(0.0), f.lit(1.0));
    let low = f.max(sum, zero);
    f.min(low, one)
}

fn hard_sigmoid(x: f64) -> f64 {
    let y = x / 6.0 + 0.5;
    if y.is_nan() { y } else { y.clamp(0.0, 1.0) }
}

/// `x / 2 * (1 + gate)`.
fn gated(f: &mut Formula, x: Ref, gate: Ref) -> Ref {
    let (half, sum) = (f.scale(x, 0.5), f.offset(gate, 1.0));
    f.mul(half, sum)
}

macro_rules! functions {
    ($($name:ident $apply:expr, $expand:expr;)*) => {
        const FUNCTIONS: &[Function] = &[$(Function { name: stringify!($name), apply: $apply, expand: $expand }),*];
    };
}

functions! {
    Gelu |x| 0.5 * x * (1.0 + tools::erf(x * FRAC_1_SQRT_2)), |f, x| {
        let inner = f.scale(x, FRAC_1_SQRT_2);
        let gate = f.erf(inner);
        gated(f, x, gate)
    };
    GeluApprox |x| 0.5 * x * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3))).tanh()), |f, x| {
        let outer = FRAC_2_PI.sqrt();
        let square = f.mul(x, x);
        let scaled = f.scale(square, 0.044_715 * outer);
        let sum = f.offset(scaled, outer);
        let inner = f.mul(x, sum);
        let gate = f.tanh(inner);
        gated(f, x, gate)
    };
    Silu |x| x * sigmoid(x), |f, x| { let s = f.sigmoid(x); f.mul(x, s) };
    Relu |x| if x > 0.0 || x.is_nan() { x } else { 0.0 }, |f, x| { let zero = f.lit(0.0); f.max(x, zero) };
    Sigmoid sigmoid, |f, x| f.sigmoid(x);
    Tanh f64::tanh, |f, x| f.tanh(x);
    Exp f64::exp, |f, x| f.exp(x);
    Log f64::ln, |f, x| f.log(x);
    Sqrt f64::sqrt, |f, x| f.sqrt(x);
    Rsqrt |x| 1.0 / x.sqrt(), |f, x| { let (one, root) = (f.lit(1.0), f.sqrt(x)); f.div(one, root) };
    Neg |x| -x, |f, x| f.neg(x);
    Abs f64::abs, |f, x| f.abs(x);
    Sin f64::sin, |f, x| f.unary(Unary::Sin, x);
    Cos f64::cos, |f, x| f.unary(Unary::Cos, x);
    Tan f64::tan, |f, x| f.unary(Unary::Tan, x);
    Atan f64::atan, |f, x| f.unary(Unary::Atan, x);
    Recip |x| 1.0 / x, |f, x| { let one = f.lit(1.0); f.div(one, x) };
    Round f64::round_ties_even, |f, x| f.round(x);
    Floor f64::floor, |f, x| f.floor(x);
    Ceil f64::ceil, |f, x| f.unary(Unary::Ceil, x);
    Sign |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }, |f, x| f.unary(Unary::Sign, x);
    Softplus softplus, Formula::softplus;
    Elu |x| if x < 0.0 { x.exp_m1() } else { x }, |f, x| {
        let zero = f.lit(0.0);
        let low = f.min(x, zero);
        let below = f.exp_minus_one_below_zero(low);
        let negative = f.less(x, zero);
        f.select(negative, below, x)
    };
    Erf tools::erf, |f, x| f.erf(x);
    HardSwish |x| x * hard_sigmoid(x), |f, x| { let gate = expand_hard_sigmoid(f, x); f.mul(x, gate) };
    HardSigmoid hard_sigmoid, expand_hard_sigmoid;
    Mish |x| x * softplus(x).tanh(), |f, x| {
        let plus = f.softplus(x);
        let gate = f.tanh(plus);
        f.mul(x, gate)
    };
    Softsign |x| x / (1.0 + x.abs()), |f, x| {
        let size = f.abs(x);
        let sum = f.offset(size, 1.0);
        f.div(x, sum)
    };
    LogSigmoid |x| -softplus(-x), |f, x| {
        let (zero, tail) = (f.lit(0.0), tail(f, x));
        let low = f.min(x, zero);
        f.sub(low, tail)
    };
}

impl Function {
    /// The function of this name, if there is one.
    pub(super) fn named(name: &str) -> Option<Function> {
        FUNCTIONS.iter().find(|f| f.name == name).copied()
    }

    /// The function that attribute `activation` names, if it is there.
    pub(super) fn parse(attrs: &mut Attrs) -> Result<Option<Function>, ErrorKind> {
        let Some(name) = attrs.text("activation")? else { return Ok(None) };
        Function::named(&name).map(Some).ok_or_else(|| {
            let kind = ErrorKind::unsupported(format!("the activation \"{name}\" is not known"));
            match nearest(&name, FUNCTIONS.iter().map(|f| f.name)) {
                Some(near) => kind.help(format!("did you mean \"{near}\"?")),
                None => kind,
            }
        })
    }

    /// By its definition.
    pub(super) fn apply(self, x: f64) -> f64 {
        (self.apply)(x)
    }

    /// In an expression.
    pub(super) fn expand(self, f: &mut Formula, x: Ref) -> Ref {
        (self.expand)(f, x)
    }

    /// As an expression over one operand.
    pub(super) fn expr(self, dtype: DType) -> Expr {
        let mut f = Formula::new(dtype);
        let x = f.operand(0);
        let result = self.expand(&mut f, x);
        f.finish(result)
    }
}
