//! Functions of one float with attributes, element by element. Each row of the table is an operator: its
//! attributes with their defaults, its definition on 64-bit floats, and its expansion.

use super::formula::Formula;
use super::tools::{self, FLOATS, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::mir::expr::Ref;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

macro_rules! activation {
    ($($(#[$doc:meta])* $Name:ident { $($attribute:ident = $default:expr),* } $reference:expr, $expand:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name { $($attribute: f64),* }

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name { $($attribute: finite(attrs, stringify!($attribute), $default)?),* })
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                inputs.arity(1, 1)?;
                let ty = inputs.ty(0)?;
                tools::dtype_in(ty, &FLOATS, &FLOATS)?;
                Ok(vec![ty.clone()])
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let f: fn(&$Name, f64) -> f64 = $reference;
                let values = inputs[0].map_or(vec![], Tensor::f64s);
                vec![Tensor::from_f64s(outputs[0].clone(), values.into_iter().map(|x| f(self, x)))]
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
                let build: fn(&$Name, &mut Formula, Ref) -> Ref = $expand;
                inputs[0].map(|x| {
                    let mut f = Formula::new(mir.ty(x).dtype);
                    let operand = f.operand(0);
                    let result = build(self, &mut f, operand);
                    mir.map(f.finish(result), &[x])
                }).into_iter().collect()
            }
        }
    )*};
}

/// An attribute that must be a finite number.
fn finite(attrs: &mut Attrs, name: &'static str, default: f64) -> Result<f64, ErrorKind> {
    let value = attrs.float_or(name, default)?;
    if value.is_finite() {
        return Ok(value);
    }
    Err(ErrorKind::wrong(format!("attribute \"{name}\" is {value}, and must be finite")))
}

activation! {
    /// x from zero on, else alpha x.
    LeakyRelu { alpha = f64::from(0.01f32) }
        |op, x| if x < 0.0 { op.alpha * x } else { x },
        |op, f, x| {
            let (scaled, zero) = (f.scale(x, op.alpha), f.lit(0.0));
            let negative = f.less(x, zero);
            f.select(negative, scaled, x)
        };
    /// x above alpha, else 0; of NaN, 0.
    ThresholdedRelu { alpha = 1.0 }
        |op, x| if x > op.alpha { x } else { 0.0 },
        |op, f, x| {
            let (alpha, zero) = (f.lit(op.alpha), f.lit(0.0));
            let above = f.greater(x, alpha);
            f.select(above, x, zero)
        };
    /// x from zero on, else alpha (exp(x) - 1).
    Elu { alpha = 1.0 }
        |op, x| if x < 0.0 { op.alpha * x.exp_m1() } else { x },
        |op, f, x| {
            let low = f.exp_minus_one_below_zero(x);
            let (scaled, zero) = (f.scale(low, op.alpha), f.lit(0.0));
            let negative = f.less(x, zero);
            f.select(negative, scaled, x)
        };
    /// gamma x from zero on, else gamma alpha (exp(x) - 1).
    Selu { alpha = f64::from(1.673_263_2_f32), gamma = f64::from(1.050_701_f32) }
        |op, x| op.gamma * if x < 0.0 { op.alpha * x.exp_m1() } else { x },
        |op, f, x| {
            let low = f.exp_minus_one_below_zero(x);
            let (low, high) = (f.scale(low, op.gamma * op.alpha), f.scale(x, op.gamma));
            let zero = f.lit(0.0);
            let negative = f.less(x, zero);
            f.select(negative, low, high)
        };
    /// max(0, min(1, alpha x + beta)).
    HardSigmoid { alpha = f64::from(0.2f32), beta = 0.5 }
        |op, x| (op.alpha * x + op.beta).clamp(0.0, 1.0),
        |op, f, x| {
            let scaled = f.scale(x, op.alpha);
            let (shifted, zero, one) = (f.offset(scaled, op.beta), f.lit(0.0), f.lit(1.0));
            let below = f.min(shifted, one);
            f.max(below, zero)
        };
    /// x / (1 + exp(-alpha x)).
    Swish { alpha = 1.0 }
        |op, x| x / (1.0 + (-op.alpha * x).exp()),
        |op, f, x| {
            let scaled = f.scale(x, op.alpha);
            let gate = f.sigmoid(scaled);
            f.mul(x, gate)
        };
}

/// max(0, x) + min(0, alpha (exp(x / alpha) - 1)), for a positive alpha: x from zero on, else the second
/// term.
#[derive(Clone, Debug, PartialEq)]
pub struct Celu {
    alpha: f64,
}

impl Op for Celu {
    const NAME: &'static str = "Celu";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let alpha = finite(attrs, "alpha", 1.0)?;
        if alpha <= 0.0 {
            let message = format!("attribute \"alpha\" is {alpha}, and only positive ones are done");
            return Err(ErrorKind::unsupported(message));
        }
        Ok(Celu { alpha })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &FLOATS, &FLOATS)?;
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let celu = |x: f64| if x < 0.0 { self.alpha * (x / self.alpha).exp_m1() } else { x };
        let values = inputs[0].map_or(vec![], Tensor::f64s);
        vec![Tensor::from_f64s(outputs[0].clone(), values.into_iter().map(celu))]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let expanded = inputs[0].map(|x| {
            let mut f = Formula::new(mir.ty(x).dtype);
            let operand = f.operand(0);
            let scaled = f.scale(operand, 1.0 / self.alpha);
            let low = f.exp_minus_one_below_zero(scaled);
            let (low, zero) = (f.scale(low, self.alpha), f.lit(0.0));
            let negative = f.less(operand, zero);
            let result = f.select(negative, low, operand);
            mir.map(f.finish(result), &[x])
        });
        expanded.into_iter().collect()
    }
}

/// x (1 + erf(x / sqrt(2))) / 2, or with `approximate = "tanh"` x (1 + tanh(sqrt(2 / pi) (x + 0.044715
/// x^3))) / 2. Of minus infinity, NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Gelu {
    by_tanh: bool,
}

impl Op for Gelu {
    const NAME: &'static str = "Gelu";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Gelu { by_tanh: attrs.choice("approximate", &["none", "tanh"])? == 1 })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &FLOATS, &FLOATS)?;
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let gate = |x: f64| {
            if self.by_tanh {
                (std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x.powi(3))).tanh()
            } else {
                tools::erf(x / std::f64::consts::SQRT_2)
            }
        };
        let values = inputs[0].map_or(vec![], Tensor::f64s);
        let gelu = values.into_iter().map(|x| 0.5 * x * (1.0 + gate(x)));
        vec![Tensor::from_f64s(outputs[0].clone(), gelu)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let expanded = inputs[0].map(|x| {
            let mut f = Formula::new(mir.ty(x).dtype);
            let operand = f.operand(0);
            let gate = if self.by_tanh {
                // sqrt(2 / pi) x (1 + 0.044715 x^2).
                let outer = std::f64::consts::FRAC_2_PI.sqrt();
                let square = f.mul(operand, operand);
                let scaled = f.scale(square, 0.044_715 * outer);
                let sum = f.offset(scaled, outer);
                let inner = f.mul(operand, sum);
                f.tanh(inner)
            } else {
                let inner = f.scale(operand, std::f64::consts::FRAC_1_SQRT_2);
                f.erf(inner)
            };
            let (half, sum) = (f.scale(operand, 0.5), f.offset(gate, 1.0));
            let result = f.mul(half, sum);
            mir.map(f.finish(result), &[x])
        });
        expanded.into_iter().collect()
    }
}

/// x + bias below -lambd, x - bias above lambd, else 0; of NaN, 0. On integers computed in floats (of 64
/// bits where they have more than 16) and truncated.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrink {
    bias: f64,
    lambd: f64,
}

impl Op for Shrink {
    const NAME: &'static str = "Shrink";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Shrink { bias: finite(attrs, "bias", 0.0)?, lambd: finite(attrs, "lambd", 0.5)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &NUMBERS, &NUMBERS)?;
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let shrink = |x: f64| {
            if x < -self.lambd {
                x + self.bias
            } else if x > self.lambd {
                x - self.bias
            } else {
                0.0
            }
        };
        let values = inputs[0].map_or(vec![], Tensor::f64s);
        vec![Tensor::from_f64s(outputs[0].clone(), values.into_iter().map(shrink))]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let expanded = inputs[0].map(|x| {
            let dtype = mir.ty(x).dtype;
            let compute = match dtype {
                DType::I8 | DType::I16 | DType::U8 | DType::U16 => DType::F32,
                DType::I32 | DType::I64 | DType::U32 | DType::U64 => DType::F64,
                _ => dtype,
            };
            let x = mir.cast(x, compute);
            let mut f = Formula::new(compute);
            let operand = f.operand(0);
            let (low, high) = (f.offset(operand, self.bias), f.offset(operand, -self.bias));
            let (least, most, zero) = (f.lit(-self.lambd), f.lit(self.lambd), f.lit(0.0));
            let (below, above) = (f.less(operand, least), f.greater(operand, most));
            let rest = f.select(above, high, zero);
            let result = f.select(below, low, rest);
            let shrunk = mir.map(f.finish(result), &[x]);
            mir.cast(shrunk, dtype)
        });
        expanded.into_iter().collect()
    }
}
