//! Writing MIR: one method per kind, and the small compositions that operators share.
//!
//! Operands must fit (the operators' `infer` has seen to that): a misuse panics here with the kind's
//! name and the types, which is our bug.

use super::*;
use crate::types::{DType, broadcast};
use std::collections::BTreeSet;

/// Appends nodes to a graph.
#[derive(Debug, Default)]
pub struct Builder {
    graph: Graph,
    /// The model's node that is being expanded.
    origin: Option<Origin>,
}

impl Builder {
    /// Starts a graph with this name.
    pub fn new(name: impl Into<String>) -> Builder {
        Builder { graph: Graph { name: name.into(), ..Graph::default() }, origin: None }
    }

    /// From here on, nodes come from the model's node with this name.
    pub fn set_origin(&mut self, name: &str) {
        self.origin = Some(Arc::make_mut(&mut self.graph.origins).push(name.to_owned()));
    }

    /// The finished graph.
    pub fn finish(mut self, outputs: Vec<Output>) -> Graph {
        self.graph.outputs = outputs;
        self.graph
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> &Type {
        self.graph.ty(value)
    }

    /// Dimensions of a value.
    pub fn dims(&self, value: Value) -> Vec<usize> {
        self.ty(value).dims.clone()
    }

    /// The tensor, if the value is a constant.
    pub fn constant_of(&self, value: Value) -> Option<&Tensor> {
        self.graph.constant(value)
    }

    /// Whether all elements along `axis` are known to be equal: the extent is 1, or it was repeated along it.
    /// Only so many values are looked at.
    pub fn repeats(&self, value: Value, axis: usize) -> bool {
        const MOST: usize = 64;
        let mut seen = BTreeSet::from([(value, axis)]);
        let mut left = vec![(value, axis)];
        while let Some((value, axis)) = left.pop() {
            let Some(axes) = self.repeats_as(value, axis) else { return false };
            left.extend(axes.into_iter().filter(|&axis| seen.insert(axis)));
            if seen.len() > MOST {
                return false;
            }
        }
        true
    }

    /// The axes of operands along which all elements must be equal for those along this one to be.
    fn repeats_as(&self, value: Value, axis: usize) -> Option<Vec<(Value, usize)>> {
        let node = &self.graph.nodes[value];
        if node.ty.dims[axis] == 1 {
            return Some(vec![]);
        }
        // The axis of an operand that broadcasts.
        let aligned = |&operand: &Value| {
            let axis = (axis + self.ty(operand).rank()).checked_sub(node.ty.rank())?;
            Some((operand, axis))
        };
        match &node.op {
            Op::Broadcast | Op::Map(_) => Some(node.operands.iter().filter_map(aligned).collect()),
            Op::Reshape => {
                let own = &self.ty(node.operands[0]).dims;
                let behind =
                    |dims: &[usize], axis: usize| dims[axis + 1..].iter().product::<usize>();
                let same = |&a: &usize| {
                    own[a] == node.ty.dims[axis] && behind(own, a) == behind(&node.ty.dims, axis)
                };
                (0..own.len()).find(same).map(|a| vec![(node.operands[0], a)])
            }
            Op::Permute(perm) => Some(vec![(node.operands[0], perm[axis])]),
            Op::Constant(tensor) if node.ty.elements() > 0 => {
                let (extent, inner) =
                    (node.ty.dims[axis], node.ty.dims[axis + 1..].iter().product::<usize>());
                let run = inner * node.ty.dtype.bytes();
                let mut blocks = tensor.bytes().chunks_exact(extent * run);
                let equal =
                    blocks.all(|block| block.chunks_exact(run).all(|part| *part == block[..run]));
                equal.then(Vec::new)
            }
            Op::Slice { .. } | Op::Concat { .. } | Op::Pad { .. } | Op::Gather { .. } => None,
            Op::Input { .. } | Op::Constant(_) | Op::Reduce { .. } | Op::ArgReduce { .. } => None,
            Op::Rows(_) | Op::Contract(_) | Op::Attention(_) | Op::Conv(_) => None,
            Op::Winograd(_) | Op::Pool(_) | Op::Scatter { .. } | Op::Sort { .. } => None,
            Op::Scan(_) => None,
        }
    }

    fn push(&mut self, op: Op, operands: &[Value], ty: Type) -> Value {
        let origins = self.origin.into_iter().collect();
        self.graph.nodes.push(Node { op, operands: operands.to_vec(), ty, origins })
    }

    /// An input or parameter of the model.
    pub fn input(&mut self, name: impl Into<String>, role: Role, ty: Type) -> Value {
        let value = self.push(Op::Input { name: name.into(), role }, &[], ty);
        self.graph.inputs.push(value);
        value
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> Value {
        let ty = tensor.ty().clone();
        self.push(Op::Constant(tensor), &[], ty)
    }

    /// A constant scalar (of rank 0, so that it broadcasts with everything).
    pub fn scalar(&mut self, dtype: DType, value: f64) -> Value {
        self.constant(Tensor::from_f64s(Type::scalar(dtype), [value]))
    }

    /// An element-wise expression over operands that broadcast.
    pub fn map(&mut self, expr: Expr, operands: &[Value]) -> Value {
        let dims = self.broadcast_dims(operands);
        let dtypes: Vec<_> = operands.iter().map(|&v| self.ty(v).dtype).collect();
        let dtype =
            expr.result_type(&dtypes).unwrap_or_else(|| panic!("map of {dtypes:?}: {expr:?}"));
        self.push(Op::Map(expr), operands, Type::new(dtype, dims))
    }

    fn broadcast_dims(&self, operands: &[Value]) -> Vec<usize> {
        operands.iter().fold(vec![], |dims, &v| {
            let other = &self.ty(v).dims;
            broadcast(&dims, other).unwrap_or_else(|| panic!("map of {dims:?} and {other:?}"))
        })
    }

    /// `op(a)`, element by element.
    pub fn unary(&mut self, op: Unary, a: Value) -> Value {
        let mut e = Expr::new();
        let x = e.operand(0);
        e.unary(op, x);
        self.map(e, &[a])
    }

    /// `op(a, b)`, element by element, with broadcasting. Both of one element type.
    pub fn binary(&mut self, op: Binary, a: Value, b: Value) -> Value {
        let mut e = Expr::new();
        let (x, y) = (e.operand(0), e.operand(1));
        e.binary(op, x, y);
        self.map(e, &[a, b])
    }

    /// `op(a, b)` for a scalar constant `b` of `a`'s element type.
    pub fn binary_scalar(&mut self, op: Binary, a: Value, b: f64) -> Value {
        let mut e = Expr::new();
        let (x, y) = (e.operand(0), e.literal(self.ty(a).dtype, b));
        let result = e.binary(op, x, y);
        self.map(e.returning(result), &[a])
    }

    /// A comparison, with broadcasting.
    pub fn compare(&mut self, op: Comparison, a: Value, b: Value) -> Value {
        let mut e = Expr::new();
        let (x, y) = (e.operand(0), e.operand(1));
        e.compare(op, x, y);
        self.map(e, &[a, b])
    }

    /// `a` where `condition` holds, else `b`, with broadcasting.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        let mut e = Expr::new();
        let (c, x, y) = (e.operand(0), e.operand(1), e.operand(2));
        e.select(c, x, y);
        self.map(e, &[condition, a, b])
    }

    /// Conversion of the elements; nothing when they have that type.
    pub fn cast(&mut self, a: Value, to: DType) -> Value {
        if self.ty(a).dtype == to {
            return a;
        }
        let mut e = Expr::new();
        let x = e.operand(0);
        e.cast(to, x);
        self.map(e, &[a])
    }

    /// Reduction over `axes`, which stay with extent 1; over no axis, nothing.
    pub fn reduce(&mut self, op: Reduction, a: Value, axes: &[usize]) -> Value {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        axes.dedup();
        if axes.is_empty() {
            return a;
        }
        let mut ty = self.ty(a).clone();
        axes.iter().for_each(|&axis| ty.dims[axis] = 1);
        self.push(Op::Reduce { op, axes }, &[a], ty)
    }

    /// Mean over `axes`, which stay with extent 1. Floats.
    pub fn mean(&mut self, a: Value, axes: &[usize]) -> Value {
        let count: usize = axes.iter().map(|&axis| self.ty(a).dims[axis]).product();
        let sum = self.reduce(Reduction::Sum, a, axes);
        self.binary_scalar(Binary::Mul, sum, 1.0 / count as f64)
    }

    /// Index of the largest or smallest element along `axis`, which stays with extent 1.
    pub fn arg_reduce(&mut self, a: Value, largest: bool, axis: usize, last: bool) -> Value {
        let mut ty = self.ty(a).with_dtype(DType::I64);
        ty.dims[axis] = 1;
        self.push(Op::ArgReduce { largest, axis, last }, &[a], ty)
    }

    /// `[batch.., M, K] x [batch.., K, N]`; batch dimensions of the operands broadcast (views are put
    /// in). A `b` without batch dimensions takes those of `a` as rows.
    pub fn contract(&mut self, a: Value, b: Value) -> Value {
        let (a_dims, b_dims) = (self.dims(a), self.dims(b));
        let (ra, rb) = (a_dims.len(), b_dims.len());
        assert!(
            ra >= 2 && rb >= 2 && a_dims[ra - 1] == b_dims[rb - 2],
            "contraction of {a_dims:?} and {b_dims:?}"
        );
        let (m, k, n) = (a_dims[ra - 2], a_dims[ra - 1], b_dims[rb - 1]);
        if b_dims[..rb - 2].iter().all(|&d| d == 1) && ra >= rb && ra > 2 {
            let rows: usize = a_dims[..ra - 1].iter().product();
            let (a, b) = (self.reshape(a, [rows, k]), self.reshape(b, [k, n]));
            let product = self.contract(a, b);
            let mut dims = a_dims;
            dims[ra - 1] = n;
            return self.reshape(product, dims);
        }
        let batch =
            broadcast(&a_dims[..ra - 2], &b_dims[..rb - 2]).expect("batch dimensions broadcast");
        let with = |tail: [usize; 2]| [&batch[..], &tail[..]].concat();
        let (a, b) = (self.broadcast(a, with([m, k])), self.broadcast(b, with([k, n])));
        let sums = sums(self.ty(a).dtype, self.ty(b).dtype).expect("products have a type");
        let ty = Type::new(sums, with([m, n]));
        let op = Op::Contract(Contract::of(Weights::Plain));
        self.push(op, &[a, b], ty)
    }

    /// A matrix product, of a type that is known.
    pub fn product(&mut self, contract: Contract, a: Value, b: Value, ty: Type) -> Value {
        self.push(Op::Contract(contract), &[a, b], ty)
    }

    /// Convolution, channels last, without padding: `x [N, spatial.., C]`, `w [taps.., C / groups, K]`.
    pub fn conv(
        &mut self,
        x: Value,
        w: Value,
        strides: &[usize],
        dilations: &[usize],
        groups: usize,
    ) -> Value {
        let (mut ty, w_dims) = (self.ty(x).clone(), self.dims(w));
        let spatial = strides.len();
        let taps = w_dims[..spatial].to_vec();
        assert!(
            ty.rank() == spatial + 2 && w_dims.len() == spatial + 2,
            "convolution of {ty} by {w_dims:?}"
        );
        assert_eq!(
            ty.dims[spatial + 1],
            w_dims[spatial] * groups,
            "convolution of {ty} by {w_dims:?}"
        );
        for i in 0..spatial {
            ty.dims[i + 1] = windows(ty.dims[i + 1], taps[i], strides[i], dilations[i]);
        }
        ty.dims[spatial + 1] = w_dims[spatial + 1];
        ty.dtype = sums(ty.dtype, self.ty(w).dtype).expect("products have a type");
        let (strides, dilations) = (strides.to_vec(), dilations.to_vec());
        let conv =
            Conv { taps, strides, dilations, groups, weights: Weights::Plain, epilogue: None };
        self.push(Op::Conv(conv), &[x, w], ty)
    }

    /// Reduction over windows, channels last, without padding.
    pub fn pool(
        &mut self,
        op: Reduction,
        x: Value,
        window: &[usize],
        strides: &[usize],
        dilations: &[usize],
    ) -> Value {
        let mut ty = self.ty(x).clone();
        assert!(ty.rank() == window.len() + 2, "pool of {ty} with {window:?}");
        for i in 0..window.len() {
            ty.dims[i + 1] = windows(ty.dims[i + 1], window[i], strides[i], dilations[i]);
        }
        let [window, strides, dilations] = [window, strides, dilations].map(<[usize]>::to_vec);
        self.push(Op::Pool(Pool { op, window, strides, dilations }), &[x], ty)
    }

    /// `data[..axis] ++ indices ++ data[axis + 1..]`.
    pub fn gather(&mut self, data: Value, indices: Value, axis: usize) -> Value {
        let d = self.ty(data);
        let dims = [&d.dims[..axis], &self.ty(indices).dims, &d.dims[axis + 1..]].concat();
        let ty = d.with_dims(dims);
        self.push(Op::Gather { axis }, &[data, indices], ty)
    }

    /// The data with the slices along its first axis that the indices name replaced by the updates
    /// (`indices ++ data[1..]`), or combined with them, in order.
    pub fn scatter(
        &mut self,
        op: Option<Reduction>,
        data: Value,
        indices: Value,
        updates: Value,
    ) -> Value {
        let ty = self.ty(data).clone();
        self.push(Op::Scatter { op }, &[data, indices, updates], ty)
    }

    /// Places of the `count` largest or smallest elements of each row, the best one first.
    pub fn sort(&mut self, x: Value, largest: bool, count: usize) -> Value {
        let mut ty = self.ty(x).with_dtype(DType::I64);
        if let Some(last) = ty.dims.last_mut() {
            *last = count;
        }
        self.push(Op::Sort { largest, count }, &[x], ty)
    }

    /// Running reductions along an axis.
    pub fn scan(&mut self, x: Value, scan: Scan) -> Value {
        let ty = self.ty(x).clone();
        self.push(Op::Scan(scan), &[x], ty)
    }

    /// A border of `value`; nothing where there is none.
    pub fn pad(&mut self, x: Value, low: &[usize], high: &[usize], value: f64) -> Value {
        self.pad_interior(x, low, high, &vec![0; low.len()], value)
    }

    /// A border, and `interior` elements between neighbours.
    pub fn pad_interior(
        &mut self,
        x: Value,
        low: &[usize],
        high: &[usize],
        interior: &[usize],
        value: f64,
    ) -> Value {
        if [low, high, interior].iter().all(|p| p.iter().all(|&n| n == 0)) {
            return x;
        }
        let mut ty = self.ty(x).clone();
        for (axis, d) in ty.dims.iter_mut().enumerate() {
            *d = *d + d.saturating_sub(1) * interior[axis] + low[axis] + high[axis];
        }
        let value = Literal::from_f64(ty.dtype, value);
        let [low, high, interior] = [low, high, interior].map(<[usize]>::to_vec);
        self.push(Op::Pad { low, high, interior, value }, &[x], ty)
    }

    /// One behind the other along `axis`.
    pub fn concat(&mut self, values: &[Value], axis: usize) -> Value {
        if let &[only] = values {
            return only;
        }
        let mut ty = self.ty(values[0]).clone();
        ty.dims[axis] = values.iter().map(|&v| self.ty(v).dims[axis]).sum();
        self.push(Op::Concat { axis }, values, ty)
    }

    /// Other dimensions for the same elements; nothing when they are the same.
    pub fn reshape(&mut self, x: Value, dims: impl Into<Vec<usize>>) -> Value {
        let (ty, dims) = (self.ty(x), dims.into());
        if ty.dims == dims {
            return x;
        }
        assert_eq!(ty.elements(), dims.iter().product::<usize>(), "reshape of {ty} to {dims:?}");
        let ty = ty.with_dims(dims);
        self.push(Op::Reshape, &[x], ty)
    }

    /// Axis `i` of the result is axis `perm[i]` of `x`.
    pub fn permute(&mut self, x: Value, perm: &[usize]) -> Value {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return x;
        }
        let ty = self.ty(x);
        let ty = ty.with_dims(perm.iter().map(|&p| ty.dims[p]).collect::<Vec<_>>());
        self.push(Op::Permute(perm.to_vec()), &[x], ty)
    }

    /// `[N, C, spatial..]` to `[N, spatial.., C]`.
    pub fn channels_last(&mut self, x: Value) -> Value {
        let rank = self.ty(x).rank();
        let perm: Vec<_> = std::iter::once(0).chain(2..rank).chain([1]).collect();
        self.permute(x, &perm)
    }

    /// `[N, spatial.., C]` to `[N, C, spatial..]`.
    pub fn channels_first(&mut self, x: Value) -> Value {
        let rank = self.ty(x).rank();
        let perm: Vec<_> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        self.permute(x, &perm)
    }

    /// `count` elements of every axis from `start` on in steps of `step`; all given per axis.
    pub fn slice(&mut self, x: Value, starts: &[usize], counts: &[usize], steps: &[i64]) -> Value {
        let ty = self.ty(x);
        if ty.dims == counts && steps.iter().all(|&s| s == 1) {
            return x;
        }
        let ty = ty.with_dims(counts);
        self.push(Op::Slice { starts: starts.to_vec(), steps: steps.to_vec() }, &[x], ty)
    }

    /// Elements `start..start + count` of one axis.
    pub fn narrow(&mut self, x: Value, axis: usize, start: usize, count: usize) -> Value {
        let mut counts = self.dims(x);
        let (mut starts, steps) = (vec![0; counts.len()], vec![1; counts.len()]);
        (starts[axis], counts[axis]) = (start, count);
        self.slice(x, &starts, &counts, &steps)
    }

    /// Repeated to `dims` by NumPy's rule; nothing when it has them.
    pub fn broadcast(&mut self, x: Value, dims: impl Into<Vec<usize>>) -> Value {
        let (ty, dims) = (self.ty(x), dims.into());
        if ty.dims == dims {
            return x;
        }
        assert_eq!(
            broadcast(&ty.dims, &dims).as_ref(),
            Some(&dims),
            "broadcast of {ty} to {dims:?}"
        );
        let ty = ty.with_dims(dims);
        self.push(Op::Broadcast, &[x], ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_is_looked_for_in_few_values() {
        let mut b = Builder::new("test");
        let row = b.input("x", Role::Input, Type::new(DType::I64, [4, 1]));
        let [mut x, mut y] = [row; 2].map(|row| b.broadcast(row, [4, 5]));
        assert!(b.repeats(x, 1) && !b.repeats(x, 0));
        // Twice as many ways with each step.
        for step in 0..100_000 {
            [x, y] = [Binary::Add, Binary::Mul].map(|op| b.binary(op, x, y));
            assert!(step != 9 || b.repeats(x, 1));
        }
        assert!(!b.repeats(x, 1));
    }
}
