//! Tensors that follow from attributes, shapes and few numbers.

use super::cast::element_type;
use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The value of its one attribute: `value` (a tensor), `value_float`, `value_floats`, `value_int` or
/// `value_ints`.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    value: Tensor,
}

impl Op for Constant {
    const NAME: &'static str = "Constant";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        for name in ["sparse_value", "value_string", "value_strings"] {
            if attrs.has(name) {
                return Err(ErrorKind::unsupported(format!("attribute \"{name}\"")));
            }
        }
        let floats = |dims: Vec<usize>, values: Vec<f64>| {
            Tensor::from_f64s(Type::new(DType::F32, dims), values)
        };
        let values = [
            attrs.tensor("value")?,
            attrs.float("value_float")?.map(|v| floats(vec![], vec![v])),
            attrs.floats("value_floats")?.map(|v| floats(vec![v.len()], v)),
            attrs.int("value_int")?.map(|v| Tensor::from_i64s([], &[v])),
            attrs.ints("value_ints")?.map(|v| Tensor::from_i64s([v.len()], &v)),
        ];
        let mut given = values.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(value), None) => Ok(Constant { value }),
            (None, _) => Err(ErrorKind::wrong("attribute \"value\" is missing")),
            (_, Some(_)) => Err(ErrorKind::wrong("more than one value is given")),
        }
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(0, 0)?;
        Ok(vec![self.value.ty().clone()])
    }

    fn reference(&self, _: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        vec![self.value.clone()]
    }

    fn expand(&self, mir: &mut mir::Builder, _: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        vec![mir.constant(self.value.clone())]
    }
}

/// A tensor of the shape that the operand gives, all elements equal to the one of `value` (0 of f32
/// without it).
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantOfShape {
    value: Tensor,
}

impl Op for ConstantOfShape {
    const NAME: &'static str = "ConstantOfShape";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let value = attrs.tensor("value")?;
        let value = value.unwrap_or_else(|| Tensor::from_f32s([], &[0.0]));
        tools::single(value.ty(), "attribute \"value\"")?;
        let scalar = value.reshaped([]).ok_or_else(|| ErrorKind::bug("one element is a scalar"))?;
        Ok(ConstantOfShape { value: scalar })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let shape = inputs.known(0, "the shape")?;
        let shape = shape.map_or(Ok(vec![]), |s| tools::int_list(s, "the shape"))?;
        Ok(vec![tools::sized(self.value.ty().dtype, tools::dims(&shape)?)?])
    }

    fn reference(&self, _: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        vec![tools::broadcast_to(&self.value, &outputs[0].dims)]
    }

    fn expand(&self, mir: &mut mir::Builder, _: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let scalar = mir.constant(self.value.clone());
        vec![mir.broadcast(scalar, outputs[0].dims.clone())]
    }
}

/// start + i delta, for as many i from 0 on as stay before the limit (all scalars known when the model
/// is compiled). Floats are computed in 64 bits, integers wrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Range;

const RANGES: [DType; 7] =
    [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I16, DType::I32, DType::I64];

impl Op for Range {
    const NAME: &'static str = "Range";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        // The width in which 16-bit floats are summed up; ours is wider.
        attrs.ignore("stash_type");
        Ok(Range)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let types = inputs.types()?;
        let dtype = types[0].dtype;
        tools::dtype_in(types[0], &RANGES, &RANGES)?;
        for (i, ty) in types.iter().enumerate() {
            tools::single(ty, ["the start", "the limit", "the delta"][i])?;
        }
        let scalars: Vec<_> = types.iter().map(|ty| Type::scalar(ty.dtype)).collect();
        tools::broadcast_types(&scalars.iter().collect::<Vec<_>>())?;
        let known = [inputs.known(0, "the start")?, inputs.known(1, "the limit")?, inputs.known(2, "the delta")?];
        let [Some(start), Some(limit), Some(delta)] = known else {
            return Err(ErrorKind::wrong("an operand is left out"));
        };
        if delta.f64_at(0) == 0.0 {
            return Err(ErrorKind::wrong("the delta is 0"));
        }
        let count = if dtype.is_float() {
            ((limit.f64_at(0) - start.f64_at(0)) / delta.f64_at(0)).ceil().max(0.0) as usize
        } else {
            let [start, limit, delta] = [start, limit, delta].map(|x| i128::from(x.int_at(0)));
            let distance = (limit - start) * delta.signum();
            usize::try_from((distance + delta.abs() - 1).max(0) / delta.abs()).unwrap_or(usize::MAX)
        };
        Ok(vec![tools::sized(dtype, [count])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(start), _, Some(delta)] = inputs else { return vec![] };
        let ty = &outputs[0];
        if ty.dtype.is_float() {
            let (start, delta) = (start.f64_at(0), delta.f64_at(0));
            let values = (0..ty.dims[0]).map(|i| start + i as f64 * delta);
            return vec![Tensor::from_f64s(ty.clone(), values)];
        }
        let (start, delta) = (start.int_at(0), delta.int_at(0));
        let values = (0..ty.dims[0] as i64).map(|i| start.wrapping_add(i.wrapping_mul(delta)));
        vec![Tensor::from_ints(ty.clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(start), _, Some(delta)] = inputs else { return vec![] };
        let dtype = outputs[0].dtype;
        let positions = iota(mir, outputs[0].dims[0]);
        let wide = if dtype.is_float() { DType::F64 } else { DType::I64 };
        let (start, delta) = (mir.reshape(start, []), mir.reshape(delta, []));
        let [positions, start, delta] = [positions, start, delta].map(|v| mir.cast(v, wide));
        let offsets = mir.binary(Binary::Mul, positions, delta);
        let values = mir.binary(Binary::Add, offsets, start);
        vec![mir.cast(values, dtype)]
    }
}

/// 0, 1, 2 .. as i64, made of constants that stay small.
pub(super) fn iota(mir: &mut mir::Builder, count: usize) -> mir::Value {
    const WIDTH: usize = 1 << 16;
    if count <= WIDTH {
        let values: Vec<i64> = (0..count as i64).collect();
        return mir.constant(Tensor::from_i64s([count], &values));
    }
    let rows = count.div_ceil(WIDTH);
    let (high, low) = (iota(mir, rows), iota(mir, WIDTH));
    let high = mir.reshape(high, [rows, 1]);
    let high = mir.binary_scalar(Binary::Mul, high, WIDTH as f64);
    let sum = mir.binary(Binary::Add, high, low);
    let flat = mir.reshape(sum, [rows * WIDTH]);
    mir.narrow(flat, 0, 0, count)
}

/// Column minus row of every element of a matrix, as i64.
pub(super) fn diagonals(mir: &mut mir::Builder, rows: usize, columns: usize) -> mir::Value {
    let (row, column) = (iota(mir, rows), iota(mir, columns));
    let row = mir.reshape(row, [rows, 1]);
    mir.binary(Binary::Sub, column, row)
}

/// A matrix with the operand's shape: ones where column - row = k, zeros elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct EyeLike {
    dtype: Option<DType>,
    k: i64,
}

impl Op for EyeLike {
    const NAME: &'static str = "EyeLike";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let dtype = attrs.int("dtype")?.map(|n| element_type(n, "dtype")).transpose()?;
        Ok(EyeLike { dtype, k: attrs.int_or("k", 0)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        if ty.rank() != 2 {
            return Err(ErrorKind::wrong(format!("the operand is {ty}")).help("it must be a matrix"));
        }
        Ok(vec![tools::sized(self.dtype.unwrap_or(ty.dtype), ty.dims.clone())?])
    }

    fn reference(&self, _: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let (rows, columns) = (outputs[0].dims[0] as i64, outputs[0].dims[1] as i64);
        let indices = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
        let ones = indices.map(|(i, j)| i64::from(Some(j) == i.checked_add(self.k)));
        vec![Tensor::from_ints(outputs[0].clone(), ones)]
    }

    fn expand(&self, mir: &mut mir::Builder, _: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let distance = diagonals(mir, outputs[0].dims[0], outputs[0].dims[1]);
        let k = mir.constant(Tensor::from_i64s([], &[self.k]));
        let ones = mir.compare(Comparison::Equal, distance, k);
        vec![mir.cast(ones, outputs[0].dtype)]
    }
}

/// The upper triangle of matrices (of the last two axes), where column - row >= k, or with `upper = 0`
/// the lower one, where column - row <= k; zeros elsewhere. k is the second operand, 0 without it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trilu {
    upper: bool,
}

impl Op for Trilu {
    const NAME: &'static str = "Trilu";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Trilu { upper: attrs.flag("upper", true)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 2)?;
        let ty = inputs.ty(0)?;
        if ty.rank() < 2 {
            return Err(ErrorKind::wrong(format!("the operand is {ty}")).help("it must have two axes"));
        }
        if let Some(k) = inputs.get(1) {
            tools::dtype_in(tools::single(k, "the diagonal")?, &[DType::I64], &[DType::I64])?;
        }
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let (Some(x), ty) = (inputs[0], &outputs[0]) else { return vec![] };
        let k = inputs.get(1).copied().flatten().map_or(0, |k| k.int_at(0));
        let columns = ty.dims[ty.rank() - 1].max(1);
        let rows = ty.dims[ty.rank() - 2].max(1);
        let mut data = x.bytes().to_vec();
        for (i, element) in data.chunks_exact_mut(ty.dtype.bytes()).enumerate() {
            let distance = (i % columns) as i64 - (i / columns % rows) as i64;
            if if self.upper { distance < k } else { distance > k } {
                element.fill(0);
            }
        }
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let (ty, rank) = (&outputs[0], outputs[0].rank());
        // In 32 bits, which no axis leaves: a diagonal further off is as good as the next one outside.
        let dims = &ty.dims[rank - 2..];
        let [row, column] = [dims[0], dims[1]].map(|extent| {
            let positions = iota(mir, extent);
            mir.cast(positions, DType::I32)
        });
        let row = mir.reshape(row, [dims[0], 1]);
        let distance = mir.binary(Binary::Sub, column, row);
        let k = match inputs.get(1).copied().flatten() {
            Some(k) => {
                let k = mir.reshape(k, []);
                let [least, most] =
                    [-(dims[0] as f64), dims[1] as f64].map(|k| mir.scalar(DType::I64, k));
                let k = mir.binary(Binary::Max, k, least);
                let k = mir.binary(Binary::Min, k, most);
                mir.cast(k, DType::I32)
            }
            None => mir.scalar(DType::I32, 0.0),
        };
        let comparison = if self.upper { Comparison::GreaterEqual } else { Comparison::LessEqual };
        let kept = mir.compare(comparison, distance, k);
        let zero = mir.scalar(ty.dtype, 0.0);
        vec![mir.select(kept, x, zero)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{Known, infer_known, infer_with, int, ints};
    use crate::tensor::Tensor;
    use crate::types::DType::*;

    #[test]
    fn constants() {
        let constant = |attrs: &[_]| infer_with("Constant", attrs, &[]);
        assert_eq!(constant(&[("value_ints", ints(&[1, 2]))]).expect("fits")[0].to_string(), "i64[2]");
        assert!(constant(&[]).is_err());
        assert!(constant(&[("value_int", int(1)), ("value_ints", ints(&[1]))]).is_err());
        let shape = |dims: &[i64]| infer_known("ConstantOfShape", 21, &[], &[Known::Ints(dims)]);
        assert_eq!(shape(&[]).expect("fits")[0].to_string(), "f32[]");
        assert!(shape(&[-1]).is_err());
        assert!(shape(&[i64::MAX, 4]).is_err());
    }

    #[test]
    fn range() {
        let range = |start: i64, limit, delta| {
            let scalars = [start, limit, delta].map(|v| Tensor::from_i64s([], &[v]));
            let operands = scalars.each_ref().map(Known::Tensor);
            infer_known("Range", 21, &[], &operands).map(|t| t[0].dims[0])
        };
        assert_eq!(range(3, 9, 3).ok(), Some(2));
        assert_eq!(range(10, 4, -2).ok(), Some(3));
        assert_eq!(range(4, 10, -2).ok(), Some(0));
        assert_eq!(range(0, 1, i64::MAX).ok(), Some(1));
        assert!(range(0, 1, 0).is_err());
        assert!(range(i64::MIN, i64::MAX, 1).is_err());
    }

    #[test]
    fn matrices() {
        let eye = |dims| infer_with("EyeLike", &[("dtype", int(7))], &[(F32, dims)]);
        assert_eq!(eye(&[2, 3]).expect("fits")[0].to_string(), "i64[2, 3]");
        assert!(eye(&[2]).is_err());
        assert!(infer_with("Trilu", &[], &[(F32, &[2])]).is_err());
        assert!(infer_with("Trilu", &[], &[(F32, &[2, 2]), (I32, &[])]).is_err());
    }
}
