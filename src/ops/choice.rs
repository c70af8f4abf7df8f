//! One of two branches.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The results of one of two branches. Readers write the nodes of both beside it: its operands are a condition, what
/// the first branch gives (where it is true), and what the second gives. Where the condition is known when the
/// model is compiled, only what is chosen is left ([`If::chosen`]); otherwise both are computed, which they can
/// be as nothing that they do is seen elsewhere, and must have equal types.
#[derive(Clone, Debug, PartialEq)]
pub struct If {
    results: usize,
}

impl If {
    /// Of these operands, those that are passed on under this condition.
    pub fn chosen<T: Copy>(&self, operands: &[T], condition: bool) -> Vec<T> {
        let from = if condition { 1 } else { 1 + self.results };
        operands.iter().copied().skip(from).take(self.results).collect()
    }

    /// The condition, where it is still among the operands.
    pub fn condition<T: Copy>(&self, operands: &[T]) -> Option<T> {
        operands.first().copied().filter(|_| operands.len() == 1 + 2 * self.results)
    }
}

impl Op for If {
    const NAME: &'static str = "If";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(If { results: attrs.outputs() })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        if inputs.len() == self.results {
            return (0..self.results).map(|i| inputs.ty(i).cloned()).collect();
        }
        inputs.arity(1 + 2 * self.results, 1 + 2 * self.results)?;
        let condition = inputs.ty(0)?;
        tools::dtype_in(condition, &[DType::Bool], &[DType::Bool])?;
        tools::single(condition, "the condition")?;
        let result = |i: usize| {
            let (first, second) = (inputs.ty(1 + i)?, inputs.ty(1 + self.results + i)?);
            if first == second {
                return Ok(first.clone());
            }
            let kind = ErrorKind::unsupported(format!(
                "the branches give {first} and {second}, and the condition is known only at run time"
            ));
            Err(kind.help("both are computed and one is chosen: they must have one type"))
        };
        (0..self.results).map(result).collect()
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        let chosen = match self.condition(inputs).flatten() {
            Some(condition) => self.chosen(inputs, condition.int_at(0) != 0),
            None => inputs.to_vec(),
        };
        chosen.into_iter().flatten().cloned().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(condition) = self.condition(inputs).flatten() else {
            return inputs.iter().copied().flatten().collect();
        };
        let condition = mir.reshape(condition, []);
        let branches = self.chosen(inputs, true).into_iter().zip(self.chosen(inputs, false));
        branches.filter_map(|(a, b)| Some(mir.select(condition, a?, b?))).collect()
    }
}

/// The second operand with as many axes of extent 1 behind its own that its first one is axis `axis` of the
/// first operand: how operators before version 7 of ONNX broadcast.
#[derive(Clone, Debug, PartialEq)]
pub struct Align {
    axis: i64,
}

impl Align {
    /// The dimensions of the result, with all of the first operand's axes behind `axis`.
    fn dims(&self, first: &Type, second: &Type) -> Result<Vec<usize>, ErrorKind> {
        if second.elements() == 1 {
            return Ok(vec![]);
        }
        let axis = tools::axis(self.axis, first.rank())?;
        let behind = (first.rank() - axis).checked_sub(second.rank()).ok_or_else(|| {
            let kind = ErrorKind::wrong(format!("{second} does not fit {first} from axis {axis} on"));
            kind.help("its extents must be those of the first operand's axes from there on")
        })?;
        Ok([&second.dims[..], &vec![1; behind]].concat())
    }
}

impl Op for Align {
    const NAME: &'static str = "rlx:Align";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Align { axis: attrs.int_or("axis", 0)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (first, second) = (inputs.ty(0)?, inputs.ty(1)?);
        Ok(vec![tools::sized(second.dtype, self.dims(first, second)?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let second = inputs[1].and_then(|x| x.reshaped(outputs[0].dims.clone()));
        second.into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        inputs[1].map(|x| mir.reshape(x, outputs[0].dims.clone())).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Class;
    use crate::ops::tests::{infer, infer_with, int};
    use crate::types::DType::*;

    #[test]
    fn types() {
        let choice = |a: &[usize], b: &[usize]| infer("If", &[(Bool, &[]), (F32, a), (F32, b)]);
        assert_eq!(choice(&[2], &[2]).expect("fits")[0].to_string(), "f32[2]");
        assert_eq!(choice(&[2], &[3]).expect_err("two types").class, Class::Unsupported);
        assert_eq!(infer("If", &[(F32, &[2])]).expect("chosen")[0].to_string(), "f32[2]");
        let align = |axis, a, b| infer_with("rlx:Align", &[("axis", int(axis))], &[(F32, a), (F32, b)]);
        assert_eq!(align(1, &[2, 3, 4], &[3]).expect("fits")[0].to_string(), "f32[3, 1]");
        assert_eq!(align(-1, &[2, 3, 4], &[4]).expect("fits")[0].to_string(), "f32[4]");
        assert_eq!(align(2, &[2, 3, 4], &[1, 1]).expect("a scalar")[0].to_string(), "f32[]");
        assert!(align(2, &[2, 3, 4], &[3, 4]).is_err() && align(3, &[2, 3, 4], &[4]).is_err());
    }
}
