//! MIR by its definition: naive loops, 64-bit sums. Folds constants, and is what the arena interpreter
//! does at each step.

mod number;
mod products;

pub use number::erf;

use super::*;
use crate::tensor::{push_f64, push_int, read_f64, read_int};
use crate::types::{DType, strides};
use cranelift_entity::SecondaryMap;
use number::*;
use products::*;

/// The results for these values of the graph's inputs and parameters, in the order of `graph.inputs`.
pub fn graph(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut values: SecondaryMap<Value, Option<Tensor>> =
        SecondaryMap::with_capacity(graph.nodes.len());
    for (&value, tensor) in graph.inputs.iter().zip(inputs) {
        values[value] = Some(tensor.clone());
    }
    for (value, node) in &graph.nodes {
        if let Op::Input { .. } = node.op {
            continue;
        }
        let operands: Vec<&Tensor> = node
            .operands
            .iter()
            .map(|&v| values[v].as_ref().expect("operands come before users"))
            .collect();
        values[value] = Some(op(&node.op, &operands, &node.ty));
    }
    graph.outputs.iter().map(|o| values[o.value].clone().expect("outputs are computed")).collect()
}

/// The result of one node, whose type is `ty`.
///
/// # Panics
///
/// On [`Op::Input`], and where operands do not fit the kind.
pub fn op(op: &Op, operands: &[&Tensor], ty: &Type) -> Tensor {
    match op {
        Op::Input { .. } => unreachable!("inputs are given"),
        Op::Constant(tensor) => tensor.clone(),
        Op::Map(expr) => map(expr, operands, ty),
        Op::Reduce { op, axes } => reduce(*op, axes, operands[0], ty),
        Op::ArgReduce { largest, axis, last } => {
            arg_reduce(*largest, *axis, *last, operands[0], ty)
        }
        Op::Rows(program) => rows(program, operands, ty),
        Op::Contract(c) => {
            let sums = contract(c, operands[0], operands[1], ty);
            epilogue(c.epilogue.as_ref(), sums, &operands[2..], ty)
        }
        Op::Attention(attention) => attended(attention, operands, ty),
        Op::Conv(c) => {
            let sums = conv(c, operands[0], operands[1], ty);
            epilogue(c.epilogue.as_ref(), sums, &operands[2..], ty)
        }
        Op::Winograd(w) => match &w.side {
            Side::Input { before, tiles } => winograd::input(w, *before, *tiles, operands[0], ty),
            Side::Output { epilogue: expr } => {
                let sums = winograd::output(w, operands[0], ty);
                epilogue(expr.as_ref(), sums, &operands[1..], ty)
            }
            Side::Both { parts, epilogue: expr, .. } => {
                let sums = winograd::both(w, operands, ty);
                epilogue(expr.as_ref(), sums, &operands[parts + 1..], ty)
            }
        },
        Op::Pool(p) => pool(p, operands[0], ty),
        Op::Gather { axis } => gather(*axis, operands[0], operands[1], ty),
        Op::Scatter { op } => scatter(*op, operands, ty),
        Op::Sort { largest, count } => sort(*largest, *count, operands[0], ty),
        Op::Scan(s) => scan(s, operands[0], ty),
        Op::Pad { low, interior, value, .. } => pad(low, interior, *value, operands[0], ty),
        Op::Concat { axis } => concat(*axis, operands, ty),
        Op::Reshape => operands[0].reshaped(ty.dims.clone()).expect("as many elements"),
        Op::Permute(perm) => {
            let from = strides(operands[0].dims());
            let by: Vec<_> = perm.iter().map(|&p| from[p]).collect();
            operands[0].strided(&ty.dims[..], 0, &by)
        }
        Op::Slice { starts, steps } => {
            let from = strides(operands[0].dims());
            let first = starts.iter().zip(&from).map(|(&start, s)| start as i64 * s).sum();
            let by: Vec<_> = from.iter().zip(steps).map(|(s, step)| s * step).collect();
            operands[0].strided(&ty.dims[..], first, &by)
        }
        Op::Broadcast => {
            let by = broadcast_strides(operands[0].dims(), &ty.dims);
            operands[0].strided(&ty.dims[..], 0, &by)
        }
    }
}

/// The same; a large result is computed when somebody asks for its bytes ([`Tensor::later`]).
pub fn later(kind: &Op, operands: &[&Tensor], ty: &Type) -> Tensor {
    if kind.is_view() {
        return op(kind, operands, ty);
    }
    let (how, own, of) = (format!("{kind:?}"), kind.clone(), ty.clone());
    let make = move |operands: &[&Tensor]| op(&own, operands, &of);
    match matches!(kind, Op::Concat { .. }) {
        true => Tensor::moved(ty.clone(), &how, operands, make),
        false => Tensor::later(ty.clone(), &how, operands, make),
    }
}

/// Strides by which a tensor of `dims` is read as one of `to`: 0 along axes that are repeated.
fn broadcast_strides(dims: &[usize], to: &[usize]) -> Vec<i64> {
    let (own, new) = (strides(dims), to.len() - dims.len());
    let stride = |axis: usize| match axis.checked_sub(new) {
        Some(old) if dims[old] == to[axis] => own[old],
        _ => 0,
    };
    (0..to.len()).map(stride).collect()
}

/// Calls `visit` with the flat indices, by each of these strides, of all elements of `dims`.
fn walk<const N: usize>(dims: &[usize], strides: [&[i64]; N], mut visit: impl FnMut([i64; N])) {
    if dims.contains(&0) {
        return;
    }
    let mut index = vec![0; dims.len()];
    let mut at = [0i64; N];
    loop {
        visit(at);
        let mut axis = dims.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            (0..N).for_each(|i| at[i] += strides[i][axis]);
            if index[axis] < dims[axis] {
                break;
            }
            (0..N).for_each(|i| at[i] -= strides[i][axis] * dims[axis] as i64);
            index[axis] = 0;
        }
    }
}

fn made(ty: &Type, data: Vec<u8>) -> Tensor {
    Tensor::from_bytes(ty.clone(), data.into()).expect("a kind makes what its type says")
}

fn map(expr: &Expr, operands: &[&Tensor], ty: &Type) -> Tensor {
    match map_of_bytes(expr, operands, ty) {
        Some(tensor) => tensor,
        None => map_by_elements(expr, operands, ty),
    }
}

/// A map of many bytes and of nothing else that is not the same everywhere has few results, which are looked up.
fn map_of_bytes(expr: &Expr, operands: &[&Tensor], ty: &Type) -> Option<Tensor> {
    const BYTES: usize = 256;
    let many = |&i: &usize| operands[i].ty().elements() > 1;
    let mut all = (0..operands.len()).filter(many);
    let bytes = all.next().filter(|&i| all.next().is_none() && operands[i].dims() == ty.dims)?;
    if operands[bytes].ty().dtype.bytes() != 1 || ty.elements() <= BYTES {
        return None;
    }
    let each = (0..=u8::MAX).collect::<Vec<u8>>();
    let each = Tensor::from_bytes(operands[bytes].ty().with_dims([BYTES]), each.into())?;
    let single = |i: usize| operands[i].reshaped([1]);
    let of = |i: usize| if i == bytes { Some(each.clone()) } else { single(i) };
    let table: Vec<Tensor> = (0..operands.len()).map(of).collect::<Option<_>>()?;
    let table = map_by_elements(expr, &table.iter().collect::<Vec<_>>(), &ty.with_dims([BYTES]));
    let mut data = Vec::with_capacity(ty.bytes());
    let found = operands[bytes].bytes().iter().map(|&byte| table.element(byte.into()));
    found.for_each(|element| data.extend_from_slice(element));
    Some(made(ty, data))
}

fn map_by_elements(expr: &Expr, operands: &[&Tensor], ty: &Type) -> Tensor {
    let dtypes: Vec<_> = operands.iter().map(|t| t.ty().dtype).collect();
    let mut evaluator = Evaluator::new(expr, &dtypes);
    let by: Vec<_> = operands.iter().map(|t| broadcast_strides(t.dims(), &ty.dims)).collect();
    let mut data = Vec::with_capacity(ty.bytes());
    let mut index = vec![0usize; ty.rank()];
    let mut at = vec![0i64; operands.len()];
    for _ in 0..ty.elements() {
        evaluator.run(|n| Number::at(operands[n], at[n] as usize)).push(&mut data, ty.dtype);
        for axis in (0..ty.rank()).rev() {
            index[axis] += 1;
            at.iter_mut().zip(&by).for_each(|(at, by)| *at += by[axis]);
            if index[axis] < ty.dims[axis] {
                break;
            }
            at.iter_mut().zip(&by).for_each(|(at, by)| *at -= by[axis] * ty.dims[axis] as i64);
            index[axis] = 0;
        }
    }
    made(ty, data)
}

fn epilogue(expr: Option<&Expr>, sums: Tensor, extra: &[&Tensor], ty: &Type) -> Tensor {
    match expr {
        None => sums,
        Some(expr) => map(expr, &[&[&sums][..], extra].concat(), ty),
    }
}

/// What a reduction starts from: its result for no elements.
pub fn identity(op: Reduction, dtype: DType) -> Literal {
    let (low, high) = match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            (Literal::from_f64(dtype, f64::NEG_INFINITY), Literal::from_f64(dtype, f64::INFINITY))
        }
        DType::I64 => (Literal::from_int(dtype, i64::MIN), Literal::from_int(dtype, i64::MAX)),
        DType::U64 => (Literal::from_int(dtype, 0), Literal::from_int(dtype, -1)),
        DType::Bool => (Literal::from_int(dtype, 0), Literal::from_int(dtype, 1)),
        DType::I8 | DType::I16 | DType::I32 => {
            let top = 1i64 << (8 * dtype.bytes() - 1);
            (Literal::from_int(dtype, -top), Literal::from_int(dtype, top - 1))
        }
        DType::U8 | DType::U16 | DType::U32 => {
            (Literal::from_int(dtype, 0), Literal::from_int(dtype, -1))
        }
    };
    match op {
        Reduction::Sum => Literal::from_int(dtype, 0),
        Reduction::Product => Literal::from_int(dtype, 1),
        Reduction::Max => low,
        Reduction::Min => high,
    }
}

fn start(op: Reduction, dtype: DType) -> Number {
    Number::read(dtype, &identity(op, dtype).bytes())
}

fn written(ty: &Type, numbers: Vec<Number>) -> Tensor {
    let mut data = Vec::with_capacity(ty.bytes());
    numbers.into_iter().for_each(|n| n.push(&mut data, ty.dtype));
    made(ty, data)
}

fn reduce(op: Reduction, axes: &[usize], x: &Tensor, ty: &Type) -> Tensor {
    let mut sums = vec![start(op, ty.dtype); ty.elements()];
    let mut to = strides(&ty.dims);
    axes.iter().for_each(|&axis| to[axis] = 0);
    let own = strides(x.dims());
    walk(x.dims(), [&own, &to], |[from, to]| {
        sums[to as usize] =
            binary(op.combine(), sums[to as usize], Number::at(x, from as usize), ty.dtype);
    });
    written(ty, sums)
}

fn arg_reduce(largest: bool, axis: usize, last: bool, x: &Tensor, ty: &Type) -> Tensor {
    let step = strides(x.dims())[axis];
    let mut from = strides(x.dims());
    from[axis] = 0;
    let dtype = x.ty().dtype;
    let op = if largest { Comparison::Greater } else { Comparison::Less };
    let is_nan = |n: Number| matches!(n, Number::Float(v) if v.is_nan());
    let mut data = Vec::with_capacity(ty.bytes());
    walk(&ty.dims, [&from], |[at]| {
        let element = |i: usize| Number::at(x, (at + i as i64 * step) as usize);
        let mut best = 0;
        for i in 1..x.dims()[axis] {
            let (a, b) = (element(i), element(best));
            let beats = !is_nan(b) && (is_nan(a) || compare(op, a, b, dtype));
            if beats || last && compare(Comparison::Equal, a, b, dtype) {
                best = i;
            }
        }
        data.extend((best as i64).to_le_bytes());
    });
    made(ty, data)
}

fn rows(program: &Rows, operands: &[&Tensor], ty: &Type) -> Tensor {
    let domain: Vec<usize> = [&ty.dims[..ty.rank() - 1], &[program.width]].concat();
    let mut values: Vec<Tensor> = operands.iter().map(|&t| t.clone()).collect();
    for stage in &program.stages {
        let refs: Vec<&Tensor> = values.iter().collect();
        let dtypes: Vec<_> = refs.iter().map(|t| t.ty().dtype).collect();
        let dtype = Evaluator::new(&stage.expr, &dtypes).result_type();
        let full = Type::new(dtype, domain.clone());
        let mut value = map(&stage.expr, &refs, &full);
        if let Some(op) = stage.reduce {
            let mut dims = domain.clone();
            *dims.last_mut().expect("a domain has a row") = 1;
            value = reduce(op, &[domain.len() - 1], &value, &Type::new(dtype, dims));
        }
        values.push(value);
    }
    values.pop().expect("a program is not empty")
}

fn gather(axis: usize, data: &Tensor, indices: &Tensor, ty: &Type) -> Tensor {
    let dims = data.dims();
    let size = ty.dtype.bytes();
    let (outer, extent) = (dims[..axis].iter().product::<usize>(), dims[axis]);
    let inner = dims[axis + 1..].iter().product::<usize>() * size;
    let indices = indices.ints();
    let mut out = Vec::with_capacity(ty.bytes());
    for o in 0..outer {
        for &i in &indices {
            let from = (o * extent + slice_at(i, extent)) * inner;
            out.extend_from_slice(&data.bytes()[from..from + inner]);
        }
    }
    made(ty, out)
}

/// The slice that an index names, of so many.
fn slice_at(index: i64, extent: usize) -> usize {
    let extent = extent as i64;
    let index = if index < 0 { index.saturating_add(extent) } else { index };
    index.clamp(0, extent - 1) as usize
}

fn scatter(op: Option<Reduction>, operands: &[&Tensor], ty: &Type) -> Tensor {
    let (size, inner) = (ty.dtype.bytes(), ty.dims[1..].iter().product::<usize>());
    let mut data = operands[0].bytes().to_vec();
    for (row, index) in operands[1].ints().into_iter().enumerate() {
        for i in 0..inner {
            let at = (slice_at(index, ty.dims[0]) * inner + i) * size;
            let update = operands[2].element(row * inner + i);
            let Some(op) = op else {
                data[at..at + size].copy_from_slice(update);
                continue;
            };
            let numbers = [&data[at..at + size], update].map(|b| Number::read(ty.dtype, b));
            let mut combined = Vec::with_capacity(size);
            binary(op.combine(), numbers[0], numbers[1], ty.dtype).push(&mut combined, ty.dtype);
            data[at..at + size].copy_from_slice(&combined);
        }
    }
    made(ty, data)
}

fn sort(largest: bool, count: usize, x: &Tensor, ty: &Type) -> Tensor {
    let width = x.dims().last().copied().unwrap_or(0);
    let dtype = x.ty().dtype;
    let is_nan = |n: Number| matches!(n, Number::Float(v) if v.is_nan());
    let mut data = Vec::with_capacity(ty.bytes());
    for row in 0..x.ty().elements() / width.max(1) {
        let numbers: Vec<Number> = (0..width).map(|i| Number::at(x, row * width + i)).collect();
        let order = |&a: &usize, &b: &usize| {
            let (a, b) = if largest { (b, a) } else { (a, b) };
            let (a, b) = (numbers[a], numbers[b]);
            is_nan(a).cmp(&is_nan(b)).then_with(|| {
                let above = compare(Comparison::Greater, a, b, dtype);
                above.cmp(&compare(Comparison::Less, a, b, dtype))
            })
        };
        let mut places: Vec<usize> = (0..width).collect();
        places.sort_by(order);
        places[..count].iter().for_each(|&place| data.extend((place as i64).to_le_bytes()));
    }
    made(ty, data)
}

fn scan(scan: &Scan, x: &Tensor, ty: &Type) -> Tensor {
    let (extent, step) = (ty.dims[scan.axis], strides(&ty.dims)[scan.axis] as usize);
    // Floats of two bytes are rounded at the end.
    let wide = if ty.dtype.is_float() && ty.dtype.bytes() == 2 { DType::F32 } else { ty.dtype };
    let mut results = vec![start(scan.op, wide); ty.elements()];
    for first in (0..ty.elements()).filter(|i| i / step.max(1) % extent == 0) {
        let mut running = start(scan.op, wide);
        for k in 0..extent {
            let at = first + if scan.reverse { extent - 1 - k } else { k } * step;
            let next = binary(scan.op.combine(), running, Number::at(x, at), wide);
            results[at] = if scan.exclusive { running } else { next };
            running = next;
        }
    }
    written(ty, results)
}

fn pad(low: &[usize], interior: &[usize], value: Literal, x: &Tensor, ty: &Type) -> Tensor {
    let size = ty.dtype.bytes();
    let mut data = value.bytes().repeat(ty.elements());
    let own = strides(x.dims());
    let all = strides(&ty.dims);
    let to: Vec<i64> = all.iter().zip(interior).map(|(s, &n)| s * (n as i64 + 1)).collect();
    let first: i64 = all.iter().zip(low).map(|(s, &n)| s * n as i64).sum();
    walk(x.dims(), [&own, &to], |[from, to]| {
        data[(first + to) as usize * size..][..size].copy_from_slice(x.element(from as usize));
    });
    made(ty, data)
}

fn concat(axis: usize, operands: &[&Tensor], ty: &Type) -> Tensor {
    let outer: usize = ty.dims[..axis].iter().product();
    let mut data = Vec::with_capacity(ty.bytes());
    for o in 0..outer {
        for operand in operands {
            let part = operand.bytes().len() / outer;
            data.extend_from_slice(&operand.bytes()[o * part..(o + 1) * part]);
        }
    }
    made(ty, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_bytes_are_looked_up() {
        let numbers = (0..600).map(|i| i * 7 - 300);
        let x = Tensor::from_ints(Type::new(DType::I8, [2, 300]), numbers);
        let scale = Tensor::from_f32s([1], &[0.37]);
        let mut e = Expr::new();
        let (byte, by) = (e.operand(0), e.operand(1));
        let number = e.cast(DType::F32, byte);
        e.binary(Binary::Mul, number, by);
        let ty = Type::new(DType::F32, [2, 300]);
        let found = map_of_bytes(&e, &[&x, &scale], &ty).expect("bytes and one number");
        assert_eq!(found, map_by_elements(&e, &[&x, &scale], &ty));
        let scales = Tensor::noise(&[300], 1);
        assert!(map_of_bytes(&e, &[&x, &scales], &ty).is_none());
    }

    #[test]
    fn error_function() {
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.5204998778130465),
            (2.0, 0.9953222650189527),
            (3.0, 0.9999779095030014),
            (-1.0, -0.8427007929497149),
        ] {
            assert!((erf(x) - y).abs() < 1e-15, "{x}: {} {y}", erf(x));
        }
    }

    #[test]
    fn grouped_convolution_in_panels() {
        let x = Tensor::from_f32s([1, 4, 4], &(0..16).map(|i| i as f32).collect::<Vec<_>>());
        let w = Tensor::from_f32s([2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
        let conv = |weights| {
            Op::Conv(Conv {
                taps: vec![2],
                strides: vec![1],
                dilations: vec![1],
                groups: 2,
                weights,
                epilogue: None,
            })
        };
        let ty = Type::new(DType::F32, [1, 3, 2]);
        let plain = op(&conv(Weights::Plain), &[&x, &w], &ty);
        // [groups 2, panels 1, depth 4, width 2], the second column filled.
        let (g0, g1) = ([1., 0., 3., 0., 5., 0., 7., 0.], [2., 0., 4., 0., 6., 0., 8., 0.]);
        let panels = Tensor::from_f32s([2, 1, 4, 2], &[g0, g1].concat());
        let packed = op(&conv(Weights::Panels { width: 2, columns: 1 }), &[&x, &panels], &ty);
        assert_eq!(plain, packed);
        assert_eq!(plain.f32s()[0], 0. * 1. + 1. * 3. + 4. * 5. + 5. * 7.);
    }

    #[test]
    fn softmax_rows() {
        let mut e = Expr::new();
        e.operand(0);
        let max = Stage { expr: e, reduce: Some(Reduction::Max) };
        let mut e = Expr::new();
        let (x, m) = (e.operand(0), e.operand(1));
        let d = e.binary(Binary::Sub, x, m);
        e.unary(Unary::Exp, d);
        let exp = Stage { expr: e, reduce: None };
        let sum =
            Stage { expr: Expr { nodes: vec![Scalar::Operand(2)] }, reduce: Some(Reduction::Sum) };
        let mut e = Expr::new();
        let (x, s) = (e.operand(2), e.operand(3));
        e.binary(Binary::Div, x, s);
        let rows = Rows { stages: vec![max, exp, sum, Stage { expr: e, reduce: None }], width: 3 };
        let x = Tensor::from_f32s([2, 3], &[0., 0., 0., 1., 2., 3.]);
        let y = op(&Op::Rows(rows), &[&x], x.ty()).f32s();
        assert!((y[0] - 1. / 3.).abs() < 1e-6 && (y[3..].iter().sum::<f32>() - 1.).abs() < 1e-6);
    }
}
