//! Functions of two arguments, element by element, with broadcasting: arithmetic, comparisons and logic.
//! Each row of the table is an operator: the element types that it has, that of its result where it is
//! another, its tolerance, its definition on 64-bit floats and on integers, and its expansion.

use super::formula::Formula;
use super::tools::{self, FLOATS, INTEGERS, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::mir::expr::Ref;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// What every operator of two operands of one element type does with its operands' types.
fn infer_two(inputs: &Operands<'_>, dtypes: &[DType], to: Option<DType>) -> Result<Vec<Type>, ErrorKind> {
    inputs.arity(2, 2)?;
    let types = inputs.types()?;
    tools::dtype_in(types[0], dtypes, dtypes)?;
    let ty = tools::broadcast_types(&types)?;
    let dtype = to.unwrap_or(ty.dtype);
    Ok(vec![tools::sized(dtype, ty.dims)?])
}

/// Expands by one expression over two operands.
fn expand_two(
    mir: &mut mir::Builder,
    inputs: &[Option<mir::Value>],
    build: impl FnOnce(&mut Formula, Ref, Ref) -> Ref,
) -> Vec<mir::Value> {
    let &[Some(a), Some(b)] = inputs else { return vec![] };
    let mut f = Formula::new(mir.ty(a).dtype);
    let (x, y) = (f.operand(0), f.operand(1));
    let result = build(&mut f, x, y);
    vec![mir.map(f.finish(result), &[a, b])]
}

macro_rules! binary {
    ($($(#[$doc:meta])* $Name:ident $dtypes:expr, $to:expr, $tolerance:expr, $float:expr, $int:expr, $expand:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name;

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = $tolerance;

            fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name)
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                infer_two(inputs, &$dtypes, $to)
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let (float, int): (fn(f64, f64) -> f64, fn(i128, i128) -> i128) = ($float, $int);
                let &[Some(a), Some(b)] = inputs else { return vec![] };
                vec![tools::map_two(a, b, &outputs[0], float, int)]
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
                let build: fn(&mut Formula, Ref, Ref) -> Ref = $expand;
                expand_two(mir, inputs, build)
            }
        }
    )*};
}

/// Element types of logic.
const BOOL: [DType; 1] = [DType::Bool];
/// Element types that can be equal.
const ALL: [DType; 13] = DType::ALL;
/// The definition on floats of what is defined on integers and booleans only.
const NO_FLOATS: fn(f64, f64) -> f64 = |a, _| a;
/// Result of a comparison.
const TO_BOOL: Option<DType> = Some(DType::Bool);

binary! {
    /// Sum; integers wrap.
    Add NUMBERS, None, Tolerance::Exact, |a, b| a + b, |a, b| a + b, Formula::add;
    /// Difference; integers wrap.
    Sub NUMBERS, None, Tolerance::Exact, |a, b| a - b, |a, b| a - b, Formula::sub;
    /// Product; integers wrap.
    Mul NUMBERS, None, Tolerance::Exact, |a, b| a * b, i128::wrapping_mul, Formula::mul;
    /// Quotient. Integers truncate, by 0 it is 0, and the lowest value by -1 is itself.
    Div NUMBERS, None, Tolerance::Ulps(1), |a, b| a / b, |a, b| a.checked_div(b).unwrap_or(0), Formula::div;
    /// Whether both are equal; with NaN, not.
    Equal ALL, TO_BOOL, Tolerance::Exact, |a, b| f64::from(a == b), |a, b| i128::from(a == b), Formula::equal;
    /// Whether the first is greater; with NaN, not.
    Greater NUMBERS, TO_BOOL, Tolerance::Exact, |a, b| f64::from(a > b), |a, b| i128::from(a > b), Formula::greater;
    /// Whether the first is greater or equal; with NaN, not.
    GreaterOrEqual NUMBERS, TO_BOOL, Tolerance::Exact, |a, b| f64::from(a >= b), |a, b| i128::from(a >= b),
        Formula::greater_equal;
    /// Whether the first is less; with NaN, not.
    Less NUMBERS, TO_BOOL, Tolerance::Exact, |a, b| f64::from(a < b), |a, b| i128::from(a < b), Formula::less;
    /// Whether the first is less or equal; with NaN, not.
    LessOrEqual NUMBERS, TO_BOOL, Tolerance::Exact, |a, b| f64::from(a <= b), |a, b| i128::from(a <= b),
        Formula::less_equal;
    /// Both of two booleans.
    And BOOL, None, Tolerance::Exact, NO_FLOATS, |a, b| a & b, Formula::and;
    /// One of two booleans.
    Or BOOL, None, Tolerance::Exact, NO_FLOATS, |a, b| a | b, Formula::or;
    /// Exactly one of two booleans.
    Xor BOOL, None, Tolerance::Exact, NO_FLOATS, |a, b| a ^ b, Formula::xor;
    /// Both, bit by bit.
    BitwiseAnd INTEGERS, None, Tolerance::Exact, NO_FLOATS, |a, b| a & b, Formula::and;
    /// One of two, bit by bit.
    BitwiseOr INTEGERS, None, Tolerance::Exact, NO_FLOATS, |a, b| a | b, Formula::or;
    /// Exactly one of two, bit by bit.
    BitwiseXor INTEGERS, None, Tolerance::Exact, NO_FLOATS, |a, b| a ^ b, Formula::xor;
}

/// x from zero on, else slope times x; slope is broadcast to x, not x to slope.
#[derive(Clone, Debug, PartialEq)]
pub struct PRelu;

impl Op for PRelu {
    const NAME: &'static str = "PRelu";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(PRelu)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let types = infer_two(inputs, &NUMBERS, None)?;
        one_way(inputs, &types[0])?;
        Ok(types)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(slope)] = inputs else { return vec![] };
        let float = |x: f64, slope: f64| if x < 0.0 { slope * x } else { x };
        let int = |x: i128, slope: i128| if x < 0 { slope * x } else { x };
        vec![tools::map_two(x, slope, &outputs[0], float, int)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        expand_two(mir, inputs, |f, x, slope| {
            let (scaled, zero) = (f.mul(x, slope), f.lit(0.0));
            let negative = f.less(x, zero);
            f.select(negative, scaled, x)
        })
    }
}

/// An error unless the first operand has the result's shape.
fn one_way(inputs: &Operands<'_>, result: &Type) -> Result<(), ErrorKind> {
    let (x, y) = (inputs.ty(0)?, inputs.ty(1)?);
    if x.dims == result.dims {
        return Ok(());
    }
    let message = format!("shape {:?} does not broadcast to {:?}", y.dims, x.dims);
    Err(ErrorKind::wrong(message).help("only the second operand is broadcast"))
}

/// a / (1 + exp(-alpha a)) b, for operands of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct SwiGLU {
    alpha: f64,
}

impl Op for SwiGLU {
    const NAME: &'static str = "SwiGLU";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(SwiGLU { alpha: attrs.float_or("alpha", 1.0)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let types = infer_two(inputs, &FLOATS, None)?;
        let (a, b) = (inputs.ty(0)?, inputs.ty(1)?);
        if a.dims != b.dims {
            return Err(ErrorKind::wrong(format!("shapes differ: {:?} and {:?}", a.dims, b.dims)));
        }
        Ok(types)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(a), Some(b)] = inputs else { return vec![] };
        let gated = |a: f64, b: f64| a / (1.0 + (-self.alpha * a).exp()) * b;
        vec![tools::map_two(a, b, &outputs[0], gated, |a, _| a)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        expand_two(mir, inputs, |f, a, b| {
            let scaled = f.scale(a, self.alpha);
            let gate = f.sigmoid(scaled);
            let gated = f.mul(a, gate);
            f.mul(gated, b)
        })
    }
}

/// Remainder. With `fmod` it has the sign of the dividend (C's `%` and `fmod`), without that of the
/// divisor: a - floor(a / b) b. Of integers by 0, 0; of floats by 0 and of infinities, NaN. Floats without
/// `fmod` are valid from operator set 28 on.
#[derive(Clone, Debug, PartialEq)]
pub struct Mod {
    truncates: bool,
    floats_floor: bool,
}

impl Op for Mod {
    const NAME: &'static str = "Mod";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Mod { truncates: attrs.flag("fmod", false)?, floats_floor: attrs.opset() >= 28 })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let types = infer_two(inputs, &NUMBERS, None)?;
        if types[0].dtype.is_float() && !self.truncates && !self.floats_floor {
            let kind = ErrorKind::wrong(format!("attribute \"fmod\" is 0 for {}", types[0].dtype));
            return Err(kind.help("floats need fmod = 1 before operator set 28"));
        }
        Ok(types)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(a), Some(b)] = inputs else { return vec![] };
        let float = |a: f64, b: f64| {
            let rest = a % b;
            match (self.truncates, rest == 0.0) {
                (true, _) => rest,
                (false, true) => 0.0f64.copysign(b),
                (false, false) if (rest < 0.0) != (b < 0.0) => rest + b,
                (false, false) => rest,
            }
        };
        let int = |a: i128, b: i128| {
            let rest = a.checked_rem(b).unwrap_or(0);
            if !self.truncates && rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        };
        vec![tools::map_two(a, b, &outputs[0], float, int)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        expand_two(mir, inputs, |f, a, b| {
            let rest = f.rem(a, b);
            let dtype = f.dtype();
            if self.truncates || !(dtype.is_float() || dtype.is_signed()) {
                return rest;
            }
            let zero = f.lit(0.0);
            let (low, flipped) = (f.less(rest, zero), f.less(b, zero));
            let (differ, whole) = (f.xor(low, flipped), f.equal(rest, zero));
            let (shifted, inexact) = (f.add(rest, b), f.not(whole));
            let adjusts = f.and(differ, inexact);
            f.select(adjusts, shifted, rest)
        })
    }
}

/// Shift of integers to the left or right, to the right with the sign for signed ones. By the type's bits
/// or more (as unsigned numbers) it is as by all: 0, or -1 for negative ones to the right.
#[derive(Clone, Debug, PartialEq)]
pub struct BitShift {
    left: bool,
}

impl Op for BitShift {
    const NAME: &'static str = "BitShift";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        if !attrs.has("direction") {
            return Err(ErrorKind::wrong("attribute \"direction\" is missing"));
        }
        Ok(BitShift { left: attrs.choice("direction", &["LEFT", "RIGHT"])? == 0 })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        infer_two(inputs, &INTEGERS, None)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(a), Some(b)] = inputs else { return vec![] };
        let shift = |a: i128, b: i128| {
            let by = if (0..64).contains(&b) { b as u32 } else { 64 };
            if self.left { a << by } else { a >> by }
        };
        vec![tools::map_two(a, b, &outputs[0], |a, _| a, shift)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        expand_two(mir, inputs, |f, a, b| if self.left { f.shl(a, b) } else { f.shr(a, b) })
    }
}
