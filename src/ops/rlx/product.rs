//! RLX's products, with what it fuses to them.

use super::function::Function;
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::ops::formula::Formula;
use crate::ops::{Attrs, Op, Operands, Tolerance, matmul, tools};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type, broadcast};

/// Operands lhs, rhs and bias: `act(lhs @ rhs + bias)`; the bias (or residual) broadcasts to the product.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulBiasAct {
    activation: Option<Function>,
}

/// Operands x, w, a, b: `x @ w + scale * ((x @ a) @ b)`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraMatMul {
    scale: f64,
}

/// The sum of products over the contracted axes: `[batch.., free axes of lhs.., free axes of rhs..]`, batch
/// axes in the order in which they are listed.
#[derive(Clone, Debug, PartialEq)]
pub struct DotGeneral {
    contracting: [Vec<usize>; 2],
    batch: [Vec<usize>; 2],
}

/// Over the halves of the last axis: `silu(gate) * up`. The first half is up, or gate with `gate_first`.
#[derive(Clone, Debug, PartialEq)]
pub struct FusedSwiGlu {
    gate_first: bool,
}

/// A tensor's values spread to `dims`.
fn spread(t: &Tensor, dims: &[usize]) -> Vec<f64> {
    let all = t.f64s();
    let mut values = vec![];
    for_each_index(dims, |index| values.push(all[tools::broadcast_index(index, t.dims())]));
    values
}

fn wide(ty: &Type) -> Type {
    ty.with_dtype(DType::F64)
}

impl Op for MatMulBiasAct {
    const NAME: &'static str = "rlx:MatMulBiasAct";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(MatMulBiasAct { activation: Function::parse(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let ty = matmul::product_type(inputs.ty(0)?, inputs.ty(1)?)?;
        tools::dtype_in(&ty, &tools::FLOATS, &tools::FLOATS)?;
        let bias = inputs.ty(2)?;
        if bias.dtype != ty.dtype || broadcast(&ty.dims, &bias.dims).is_none_or(|dims| dims != ty.dims) {
            let kind = ErrorKind::wrong(format!("the bias is {bias}"));
            return Err(kind.help(format!("it must broadcast to {ty}")));
        }
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(a), Some(b), Some(bias)] = inputs else { return vec![] };
        let sums = matmul::product(a, b, &wide(&outputs[0])).f64s();
        let sums = sums.into_iter().zip(spread(bias, &outputs[0].dims)).map(|(s, b)| s + b);
        let y = sums.map(|v| self.activation.map_or(v, |f| f.apply(v)));
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(a), Some(b), Some(bias)] = *inputs else { return vec![] };
        let y = matmul::expand_product(mir, a, b, &outputs[0]);
        let y = mir.binary(Binary::Add, y, bias);
        vec![match self.activation {
            Some(f) => mir.map(f.expr(outputs[0].dtype), &[y]),
            None => y,
        }]
    }
}

impl Op for LoraMatMul {
    const NAME: &'static str = "rlx:LoraMatMul";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let scale = attrs.float("scale")?;
        let scale = scale.ok_or_else(|| ErrorKind::wrong("attribute \"scale\" is missing"))?;
        Ok(LoraMatMul { scale })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(4, 4)?;
        let [x, w, a, b] = [inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?, inputs.ty(3)?];
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        let ty = matmul::product_type(x, w)?;
        let other = matmul::product_type(&matmul::product_type(x, a)?, b)?;
        match ty == other {
            true => Ok(vec![ty]),
            false => Err(ErrorKind::wrong(format!("the products differ: {ty} and {other}"))),
        }
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(w), Some(a), Some(b)] = inputs else { return vec![] };
        let Ok(low) = matmul::product_type(x.ty(), a.ty()) else { return vec![] };
        let low = matmul::product(x, a, &wide(&low));
        let low = matmul::product(&low, b, &wide(&outputs[0])).f64s();
        let full = matmul::product(x, w, &wide(&outputs[0])).f64s();
        let y = full.into_iter().zip(low).map(|(f, l)| f + self.scale * l);
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(w), Some(a), Some(b)] = *inputs else { return vec![] };
        let Ok(low) = matmul::product_type(mir.ty(x), mir.ty(a)) else { return vec![] };
        let low = matmul::expand_product(mir, x, a, &low);
        let low = mir.binary_scalar(Binary::Mul, low, self.scale);
        let low = matmul::expand_product(mir, low, b, &outputs[0]);
        let full = matmul::expand_product(mir, x, w, &outputs[0]);
        vec![mir.binary(Binary::Add, full, low)]
    }
}

impl DotGeneral {
    /// For each side, the axes in the order batch, free, contracted.
    fn order(&self, side: usize, rank: usize) -> Vec<usize> {
        let (batch, contracting) = (&self.batch[side], &self.contracting[side]);
        let free = (0..rank).filter(|a| !batch.contains(a) && !contracting.contains(a));
        batch.iter().copied().chain(free).chain(contracting.iter().copied()).collect()
    }

    /// For each side, how many elements batch, free and contracted axes have.
    fn sizes(&self, side: usize, dims: &[usize]) -> [usize; 3] {
        let order = self.order(side, dims.len());
        let (batch, contracting) = (self.batch[side].len(), self.contracting[side].len());
        let free = order.len() - contracting;
        [0..batch, batch..free, free..order.len()]
            .map(|part| order[part].iter().map(|&a| dims[a]).product())
    }
}

impl Op for DotGeneral {
    const NAME: &'static str = "rlx:DotGeneral";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let mut list = |name: &'static str| {
            crate::ops::window::bounded(name, 0, &attrs.ints(name)?.unwrap_or_default())
        };
        Ok(DotGeneral {
            contracting: [list("lhs_contracting")?, list("rhs_contracting")?],
            batch: [list("lhs_batch")?, list("rhs_batch")?],
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let types = [inputs.ty(0)?, inputs.ty(1)?];
        if types[0].dtype != types[1].dtype {
            return Err(ErrorKind::wrong(format!(
                "element types differ: {} and {}",
                types[0].dtype, types[1].dtype
            )));
        }
        tools::dtype_in(types[0], &tools::FLOATS, &tools::FLOATS)?;
        for (side, ty) in types.iter().enumerate() {
            let all: Vec<_> =
                self.batch[side].iter().chain(&self.contracting[side]).map(|&a| a as i64).collect();
            tools::axes(&all, ty.rank())?;
        }
        for (what, axes) in [("contracted", &self.contracting), ("batch", &self.batch)] {
            let dims = [0, 1].map(|s| axes[s].iter().map(|&a| types[s].dims[a]).collect::<Vec<_>>());
            if dims[0] != dims[1] {
                return Err(ErrorKind::wrong(format!(
                    "{what} extents differ: {:?} and {:?}",
                    dims[0], dims[1]
                )));
            }
        }
        let free = |side: usize| {
            let order = self.order(side, types[side].rank());
            let end = order.len() - self.contracting[side].len();
            let from = if side == 0 { 0 } else { self.batch[side].len() };
            order[from..end].iter().map(|&a| types[side].dims[a]).collect::<Vec<_>>()
        };
        Ok(vec![tools::sized(types[0].dtype, [free(0), free(1)].concat())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(a), Some(b)] = inputs else { return vec![] };
        let ordered = |side: usize, t: &Tensor| {
            let order = self.order(side, t.ty().rank());
            let dims: Vec<_> = order.iter().map(|&axis| t.dims()[axis]).collect();
            let (strides, all) = (t.ty().strides(), t.f64s());
            let mut values = Vec::with_capacity(all.len());
            for_each_index(&dims, |index| {
                let at: i64 = order.iter().zip(index).map(|(&a, &i)| strides[a] * i as i64).sum();
                values.push(all[at as usize]);
            });
            values
        };
        let [batch, m, k] = self.sizes(0, a.dims());
        let [_, n, _] = self.sizes(1, b.dims());
        let (a, b) = (ordered(0, a), ordered(1, b));
        let mut y = Vec::with_capacity(outputs[0].elements());
        for (i, j, l) in (0..batch).flat_map(|i| (0..m).flat_map(move |j| (0..n).map(move |l| (i, j, l)))) {
            let (row, column) = (&a[(i * m + j) * k..][..k], &b[(i * n + l) * k..][..k]);
            y.push(row.iter().zip(column).map(|(a, b)| a * b).sum());
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(a), Some(b)] = *inputs else { return vec![] };
        let (da, db) = (mir.dims(a), mir.dims(b));
        let [batch, m, k] = self.sizes(0, &da);
        let [_, n, _] = self.sizes(1, &db);
        let (a, b) = (mir.permute(a, &self.order(0, da.len())), mir.permute(b, &self.order(1, db.len())));
        let a = mir.reshape(a, [batch, m, k]);
        let b = mir.reshape(b, [batch, n, k]);
        let b = mir.permute(b, &[0, 2, 1]);
        let y = mir.contract(a, b);
        vec![mir.reshape(y, outputs[0].dims.clone())]
    }
}

impl Op for FusedSwiGlu {
    const NAME: &'static str = "rlx:SwiGlu";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(FusedSwiGlu { gate_first: attrs.flag("gate_first", false)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        match x.dims.split_last() {
            Some((last, rest)) if last % 2 == 0 => Ok(vec![x.with_dims([rest, &[last / 2]].concat())]),
            _ => Err(ErrorKind::wrong(format!("{x} has no two halves")).help("the last extent must be even")),
        }
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let half = x.dims()[x.ty().rank() - 1] / 2;
        let values = x.f64s();
        let mut y = Vec::with_capacity(outputs[0].elements());
        for row in values.chunks_exact((2 * half).max(1)) {
            let (low, high) = row.split_at(half);
            let (gate, up) = if self.gate_first { (low, high) } else { (high, low) };
            y.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u));
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let axis = outputs[0].rank() - 1;
        let half = outputs[0].dims[axis];
        let [low, high] = [0, half].map(|start| mir.narrow(x, axis, start, half));
        let (gate, up) = if self.gate_first { (low, high) } else { (high, low) };
        let mut f = Formula::new(outputs[0].dtype);
        let (g, u) = (f.operand(0), f.operand(1));
        let s = f.sigmoid(g);
        let silu = f.mul(g, s);
        let result = f.mul(silu, u);
        vec![mir.map(f.finish(result), &[gate, up])]
    }
}
