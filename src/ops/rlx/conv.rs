//! RLX's convolution with what it fuses to it.

use super::function::Function;
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::ops::{Attribute, Attrs, Op, Operands, Tolerance, conv::Conv};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::collections::BTreeMap;

/// Operands x `[N, C, spatial..]`, w `[K, C / groups, taps..]`, bias `[K]` and, if `residual`, one of the
/// result's type: `act(conv(x, w) + bias + residual)`. The same padding at both ends.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvBiasAct {
    conv: Conv,
    activation: Option<Function>,
    residual: bool,
}

impl Op for ConvBiasAct {
    const NAME: &'static str = "rlx:ConvBiasAct";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let padding = attrs.ints("padding")?.unwrap_or_default();
        let own = [
            ("strides", Attribute::Ints(attrs.ints("strides")?.unwrap_or_default())),
            ("dilations", Attribute::Ints(attrs.ints("dilations")?.unwrap_or_default())),
            ("pads", Attribute::Ints([&padding[..], &padding].concat())),
            ("group", Attribute::Int(attrs.int_or("groups", 1)?)),
        ];
        let own: BTreeMap<_, _> = own.into_iter().map(|(name, v)| (name.to_owned(), v)).collect();
        Ok(ConvBiasAct {
            conv: Conv::parse(&mut Attrs::new(own, attrs.opset(), vec![true]))?,
            activation: Function::parse(attrs)?,
            residual: attrs.flag("residual", false)?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let count = 3 + usize::from(self.residual);
        inputs.arity(count, count)?;
        let types = self.conv.infer(&Operands::new(inputs.0[..3].to_vec()))?;
        match inputs.get(3).filter(|ty| **ty != types[0]) {
            Some(ty) => {
                Err(ErrorKind::wrong(format!("the residual is {ty}")).help(format!("it must be {}", types[0])))
            }
            None => Ok(types),
        }
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let wide = outputs[0].with_dtype(DType::F64);
        let Some(sums) = self.conv.reference(&inputs[..3], &[wide]).pop() else { return vec![] };
        let mut y = sums.f64s();
        if let Some(residual) = inputs.get(3).copied().flatten() {
            y.iter_mut().zip(residual.f64s()).for_each(|(v, r)| *v += r);
        }
        let y = y.into_iter().map(|v| self.activation.map_or(v, |f| f.apply(v)));
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let Some(mut y) = self.conv.expand(mir, &inputs[..3], outputs).pop() else { return vec![] };
        if let Some(residual) = inputs.get(3).copied().flatten() {
            y = mir.binary(Binary::Add, y, residual);
        }
        vec![match self.activation {
            Some(f) => mir.map(f.expr(outputs[0].dtype), &[y]),
            None => y,
        }]
    }
}
