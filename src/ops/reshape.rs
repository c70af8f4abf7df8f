//! Other dimensions for the same elements, in the same order. Nothing is moved: results share their
//! operand's bytes.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::Type;

/// What `reference` is for all of them.
fn reshaped(inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
    inputs[0].and_then(|x| x.reshaped(outputs[0].dims.clone())).into_iter().collect()
}

/// What `expand` is for all of them.
fn reshape(mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
    inputs[0].map(|x| mir.reshape(x, outputs[0].dims.clone())).into_iter().collect()
}

/// The product of some extents, with a check.
fn product(dims: &[usize]) -> Result<usize, ErrorKind> {
    let product = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    product.ok_or_else(|| ErrorKind::limit(format!("the dimensions {dims:?} are too large")))
}

/// The dimensions given by the second operand. 0 keeps the operand's extent (without `allowzero`), one -1
/// takes what is left over.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    allowzero: bool,
}

impl Reshape {
    fn dims(&self, ty: &Type, shape: &[i64]) -> Result<Vec<usize>, ErrorKind> {
        let mut dims = vec![];
        let mut rest = None;
        for (axis, &d) in shape.iter().enumerate() {
            dims.push(match d {
                0 if !self.allowzero => *ty.dims.get(axis).ok_or_else(|| {
                    let message = format!("dimension {axis} is to be kept, and there is none");
                    ErrorKind::wrong(message).help("0 in a shape keeps the operand's dimension")
                })?,
                -1 if rest.is_none() => {
                    rest = Some(axis);
                    1
                }
                -1 => return Err(ErrorKind::wrong(format!("the shape {shape:?} has two -1"))),
                d => usize::try_from(d).map_err(|_| {
                    ErrorKind::wrong(format!("the shape {shape:?} has a dimension of {d}"))
                })?,
            });
        }
        let known = product(&dims)?;
        if let Some(axis) = rest {
            if known == 0 {
                let message = format!("the dimension for -1 in the shape {shape:?} is not determined");
                return Err(ErrorKind::wrong(message).help("another dimension is 0"));
            }
            dims[axis] = ty.elements() / known;
        }
        if product(&dims)? == ty.elements() {
            return Ok(dims);
        }
        let message = format!("{} elements do not fit the shape {shape:?}", ty.elements());
        Err(ErrorKind::wrong(message).help(format!("the operand is {ty}")))
    }
}

impl Op for Reshape {
    const NAME: &'static str = "Reshape";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Reshape { allowzero: attrs.flag("allowzero", false)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, shape) = (inputs.ty(0)?, inputs.known(1, "the shape")?);
        let shape = shape.map_or(Ok(vec![]), |s| tools::int_list(s, "the shape"))?;
        Ok(vec![tools::sized(ty.dtype, self.dims(ty, &shape)?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        reshaped(inputs, outputs)
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        reshape(mir, inputs, outputs)
    }
}

/// A matrix: the axes before `axis` are the rows, the others the columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Flatten {
    axis: i64,
}

impl Op for Flatten {
    const NAME: &'static str = "Flatten";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Flatten { axis: attrs.int_or("axis", 1)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        let rank = ty.rank();
        let axis = if self.axis == rank as i64 { rank } else { tools::axis(self.axis, rank)? };
        let (rows, columns) = (product(&ty.dims[..axis])?, product(&ty.dims[axis..])?);
        Ok(vec![tools::sized(ty.dtype, [rows, columns])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        reshaped(inputs, outputs)
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        reshape(mir, inputs, outputs)
    }
}

/// The axes of `Squeeze` and `Unsqueeze`: an attribute before operator set 13, then the second operand.
fn parse_axes(attrs: &mut Attrs) -> Result<Option<Vec<i64>>, ErrorKind> {
    if attrs.opset() < 13 { attrs.ints("axes") } else { Ok(None) }
}

/// The axes, from where they are.
fn find_axes(attribute: Option<&Vec<i64>>, inputs: &Operands<'_>) -> Result<Option<Vec<i64>>, ErrorKind> {
    inputs.arity(1, if attribute.is_some() { 1 } else { 2 })?;
    match inputs.known(1, "the list of axes")? {
        Some(axes) => tools::int_list(axes, "the list of axes").map(Some),
        None => Ok(attribute.cloned()),
    }
}

/// Without the axes that are named, whose extents must be 1; if none are, without all such axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Squeeze {
    axes: Option<Vec<i64>>,
}

impl Op for Squeeze {
    const NAME: &'static str = "Squeeze";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Squeeze { axes: parse_axes(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let axes = find_axes(self.axes.as_ref(), inputs)?;
        let ty = inputs.ty(0)?;
        let axes = match axes {
            Some(axes) => tools::axes(&axes, ty.rank())?,
            None => (0..ty.rank()).filter(|&axis| ty.dims[axis] == 1).collect(),
        };
        if let Some(&axis) = axes.iter().find(|&&axis| ty.dims[axis] != 1) {
            let message = format!("axis {axis} has extent {}", ty.dims[axis]);
            return Err(ErrorKind::wrong(message).help("only axes of extent 1 can go"));
        }
        let kept = (0..ty.rank()).filter(|axis| !axes.contains(axis)).map(|axis| ty.dims[axis]);
        Ok(vec![tools::sized(ty.dtype, kept.collect::<Vec<_>>())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        reshaped(inputs, outputs)
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        reshape(mir, inputs, outputs)
    }
}

/// With new axes of extent 1, which the result has at the places that are named.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsqueeze {
    axes: Option<Vec<i64>>,
}

impl Op for Unsqueeze {
    const NAME: &'static str = "Unsqueeze";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Unsqueeze { axes: parse_axes(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let axes = find_axes(self.axes.as_ref(), inputs)?;
        let axes = axes.ok_or_else(|| ErrorKind::wrong("the axes are not given"))?;
        let ty = inputs.ty(0)?;
        let axes = tools::axes(&axes, ty.rank() + axes.len())?;
        let mut old = ty.dims.iter().copied();
        let place = |axis| if axes.contains(&axis) { Some(1) } else { old.next() };
        let dims: Vec<_> = (0..ty.rank() + axes.len()).filter_map(place).collect();
        Ok(vec![tools::sized(ty.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        reshaped(inputs, outputs)
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        reshape(mir, inputs, outputs)
    }
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::ops::tests::{Known, infer_known, infer_with, int, ints};
    use crate::types::DType::*;

    fn reshape(dims: &[usize], shape: &[i64], allowzero: i64) -> Result<String, ErrorKind> {
        let operands = [Known::Type(F32, dims), Known::Ints(shape)];
        infer_known("Reshape", 21, &[("allowzero", int(allowzero))], &operands).map(|t| t[0].to_string())
    }

    #[test]
    fn reshape_dims() {
        assert_eq!(reshape(&[2, 3, 4], &[0, -1], 0).expect("fits"), "f32[2, 12]");
        assert_eq!(reshape(&[2, 0], &[0, 5], 1).expect("fits"), "f32[0, 5]");
        assert_eq!(reshape(&[1], &[], 0).expect("fits"), "f32[]");
        assert!(reshape(&[2, 3], &[-1, -1], 0).is_err());
        assert!(reshape(&[2, 3], &[4, -1], 0).is_err());
        assert!(reshape(&[2, 3], &[2, 3, 0], 0).is_err());
        assert!(reshape(&[2, 0], &[0, -1], 1).is_err());
        assert!(reshape(&[2, 3], &[-2, -3], 0).is_err());
        assert!(reshape(&[2, 3], &[i64::MAX, i64::MAX], 0).is_err());
        assert!(reshape(&[2, 3], &[i64::MIN], 0).is_err());
    }

    #[test]
    fn axes() {
        let flatten = |axis, dims| {
            infer_with("Flatten", &[("axis", int(axis))], &[(F32, dims)]).map(|t| t[0].to_string())
        };
        assert_eq!(flatten(0, &[2, 3]).expect("fits"), "f32[1, 6]");
        assert_eq!(flatten(-1, &[2, 3, 4]).expect("fits"), "f32[6, 4]");
        assert_eq!(flatten(2, &[2, 3]).expect("fits"), "f32[6, 1]");
        assert!(flatten(3, &[2, 3]).is_err() && flatten(i64::MIN, &[2, 3]).is_err());
        let old = |name, axes: &[i64], dims| {
            let operands = [Known::Type(F32, dims)];
            infer_known(name, 11, &[("axes", ints(axes))], &operands).map(|t| t[0].to_string())
        };
        assert_eq!(old("Squeeze", &[0, -1], &[1, 2, 1]).expect("fits"), "f32[2]");
        assert_eq!(old("Unsqueeze", &[-1, 0], &[2]).expect("fits"), "f32[1, 2, 1]");
        assert!(old("Squeeze", &[1], &[1, 2]).is_err());
        assert!(old("Unsqueeze", &[0, 0], &[2]).is_err());
        assert!(infer_known("Unsqueeze", 13, &[], &[Known::Type(F32, &[2])]).is_err());
    }
}
