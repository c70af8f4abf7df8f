//! MIR by its definition: naive loops, 64-bit sums. Folds constants, and is what the arena interpreter
//! does at each step.

use super::*;
use crate::tensor::{push_f64, push_int, read_f64, read_int};
use crate::types::{DType, strides};
use cranelift_entity::SecondaryMap;

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
            Side::Input { before, tiles } => {
                winograd::input(w.tile, *before, *tiles, operands[0], ty)
            }
            Side::Output { epilogue: expr } => {
                let sums = winograd::output(w.tile, operands[0], ty);
                epilogue(expr.as_ref(), sums, &operands[1..], ty)
            }
        },
        Op::Pool(p) => pool(p, operands[0], ty),
        Op::Gather { axis } => gather(*axis, operands[0], operands[1], ty),
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

/// A number while it is computed with; which of the two follows from the element type.
#[derive(Clone, Copy, Debug)]
enum Number {
    Float(f64),
    Int(i64),
}

impl Number {
    fn read(dtype: DType, bytes: &[u8]) -> Number {
        if dtype.is_float() {
            Number::Float(read_f64(dtype, bytes))
        } else {
            Number::Int(read_int(dtype, bytes))
        }
    }

    fn at(tensor: &Tensor, index: usize) -> Number {
        Number::read(tensor.ty().dtype, tensor.element(index))
    }

    fn push(self, data: &mut Vec<u8>, dtype: DType) {
        match self {
            Number::Float(v) => push_f64(data, dtype, v),
            Number::Int(v) => push_int(data, dtype, v),
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Float(v) => v,
            Number::Int(v) => v as f64,
        }
    }

    fn int(self) -> i64 {
        match self {
            Number::Float(v) => v as i64,
            Number::Int(v) => v,
        }
    }

    /// As an element of this type holds it.
    fn rounded(self, dtype: DType) -> Number {
        match (self, dtype) {
            (Number::Float(v), DType::F32) => Number::Float(f64::from(v as f32)),
            (Number::Float(_), DType::F64) | (Number::Int(_), DType::I64) => self,
            _ => {
                let mut bytes = Vec::with_capacity(8);
                self.push(&mut bytes, dtype);
                Number::read(dtype, &bytes)
            }
        }
    }
}

/// An expression prepared for many elements of these types.
struct Evaluator<'a> {
    expr: &'a Expr,
    types: Vec<DType>,
    values: Vec<Number>,
}

impl<'a> Evaluator<'a> {
    fn new(expr: &'a Expr, operands: &[DType]) -> Evaluator<'a> {
        let types = expr.types(operands).expect("the graph is verified");
        Evaluator { expr, types, values: Vec::with_capacity(expr.nodes.len()) }
    }

    fn result_type(&self) -> DType {
        *self.types.last().expect("an expression is not empty")
    }

    fn run(&mut self, operand: impl Fn(usize) -> Number) -> Number {
        self.values.clear();
        for (i, node) in self.expr.nodes.iter().enumerate() {
            let v = |r: expr::Ref| self.values[r as usize];
            let value = match *node {
                Scalar::Operand(n) => operand(n as usize),
                Scalar::Literal(l) => Number::read(l.dtype, &l.bytes()),
                Scalar::Unary(op, a) => unary(op, v(a), self.types[i]),
                Scalar::Binary(op, a, b) => binary(op, v(a), v(b), self.types[i]),
                Scalar::Compare(op, a, b) => {
                    Number::Int(compare(op, v(a), v(b), self.types[a as usize]).into())
                }
                Scalar::Select(c, a, b) => {
                    if v(c).int() != 0 {
                        v(a)
                    } else {
                        v(b)
                    }
                }
                Scalar::Cast(to, a) => cast(to, v(a), self.types[a as usize]),
            };
            self.values.push(value.rounded(self.types[i]));
        }
        *self.values.last().expect("an expression is not empty")
    }
}

fn cast(to: DType, v: Number, from: DType) -> Number {
    match (v, to.is_float()) {
        (Number::Float(v), true) => Number::Float(v),
        (Number::Float(v), false) if to == DType::Bool => Number::Int((v != 0.0).into()),
        (Number::Float(v), false) if to == DType::U64 => Number::Int(v as u64 as i64),
        (Number::Float(v), false) => Number::Int(v as i64),
        (Number::Int(v), true) if from == DType::U64 => Number::Float(v as u64 as f64),
        (Number::Int(v), true) => Number::Float(v as f64),
        (Number::Int(v), false) if to == DType::Bool => Number::Int((v != 0).into()),
        (Number::Int(v), false) => Number::Int(v),
    }
}

fn unary(op: Unary, a: Number, dtype: DType) -> Number {
    let x = match (a, op) {
        (Number::Int(v), Unary::Neg) => return Number::Int(v.wrapping_neg()),
        (Number::Int(v), Unary::Abs) if dtype.is_signed() => return Number::Int(v.wrapping_abs()),
        (Number::Int(v), Unary::Abs) => return Number::Int(v),
        (Number::Int(v), Unary::Sign) if dtype.is_signed() => return Number::Int(v.signum()),
        (Number::Int(v), Unary::Sign) => return Number::Int((v != 0).into()),
        (Number::Int(v), Unary::Not) if dtype == DType::Bool => {
            return Number::Int((v == 0).into());
        }
        (Number::Int(v), Unary::Not) => return Number::Int(!v),
        (a, _) => a.float(),
    };
    Number::Float(match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x == 0.0 || x.is_nan() => x,
        Unary::Sign => x.signum(),
        Unary::Not => unreachable!("of integers only"),
        Unary::Sqrt => x.sqrt(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Tanh => x.tanh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::Erf => erf(x),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Trunc => x.trunc(),
    })
}

fn binary(op: Binary, a: Number, b: Number, dtype: DType) -> Number {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Number::Int(int_binary(op, a, b, dtype)),
        _ => Number::Float(float_binary(op, a.float(), b.float())),
    }
}

fn float_binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Rem => a % b,
        Binary::Pow => a.powf(b),
        Binary::Min | Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr => {
            unreachable!("of integers only")
        }
    }
}

fn int_binary(op: Binary, a: i64, b: i64, dtype: DType) -> i64 {
    // Only in 64 bits does the sign make a difference: narrower ones are widened by their own rule.
    let unsigned = dtype == DType::U64;
    let less = if unsigned { (a as u64) < b as u64 } else { a < b };
    let bits = 8 * dtype.bytes() as i64;
    let shifted = b as u64 >= bits as u64;
    match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div | Binary::Rem if b == 0 => 0,
        Binary::Div if unsigned => (a as u64 / b as u64) as i64,
        Binary::Div => a.wrapping_div(b),
        Binary::Rem if unsigned => (a as u64 % b as u64) as i64,
        Binary::Rem => a.wrapping_rem(b),
        Binary::Min => {
            if less {
                a
            } else {
                b
            }
        }
        Binary::Max => {
            if less {
                b
            } else {
                a
            }
        }
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl if shifted => 0,
        Binary::Shl => a << b,
        Binary::Shr if shifted && a < 0 && !unsigned => -1,
        Binary::Shr if shifted => 0,
        Binary::Shr if unsigned => (a as u64 >> b) as i64,
        Binary::Shr => a >> b,
        Binary::Pow => unreachable!("of floats only"),
    }
}

fn compare(op: Comparison, a: Number, b: Number, dtype: DType) -> bool {
    use std::cmp::Ordering::*;
    let order = match (a, b) {
        (Number::Int(a), Number::Int(b)) if dtype == DType::U64 => {
            Some((a as u64).cmp(&(b as u64)))
        }
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        _ => a.float().partial_cmp(&b.float()),
    };
    match op {
        Comparison::Equal => order == Some(Equal),
        Comparison::NotEqual => order != Some(Equal),
        Comparison::Less => order == Some(Less),
        Comparison::LessEqual => matches!(order, Some(Less | Equal)),
        Comparison::Greater => order == Some(Greater),
        Comparison::GreaterEqual => matches!(order, Some(Greater | Equal)),
    }
}

/// The error function, to about 1e-15: its series near zero, a continued fraction of the complement
/// far from it (Abramowitz and Stegun, 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    if a < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while f64::abs(term) > 1e-17 * f64::abs(sum) {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum;
    }
    if a > 6.0 {
        return x.signum();
    }
    let tail = (1..=60).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (a + f));
    let complement = (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail);
    x.signum() * (1.0 - complement)
}

fn map(expr: &Expr, operands: &[&Tensor], ty: &Type) -> Tensor {
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

fn combine(op: Reduction) -> Binary {
    match op {
        Reduction::Sum => Binary::Add,
        Reduction::Product => Binary::Mul,
        Reduction::Max => Binary::Max,
        Reduction::Min => Binary::Min,
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
            binary(combine(op), sums[to as usize], Number::at(x, from as usize), ty.dtype);
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

/// One row of sums per visit: `sums += x * row` over 64-bit floats or wrapping integers.
fn contract(c: &Contract, a: &Tensor, b: &Tensor, ty: &Type) -> Tensor {
    let rank = ty.rank();
    let (m, n, k) = (ty.dims[rank - 2], ty.dims[rank - 1], a.dims()[rank - 1]);
    let batch: usize = ty.dims[..rank - 2].iter().product();
    let columns = Columns::new(c.weights, n, k);
    let accumulate = Accumulator::new(a, b, ty.dtype);
    let mut out = Vec::with_capacity(ty.bytes());
    for group in 0..batch {
        for row in 0..m {
            let taps = (0..k).map(|i| ((group * m + row) * k + i, i));
            accumulate.row(n, taps, |i| (group, i), &columns, &mut out);
        }
    }
    made(&accumulate.ty(ty), out)
}

fn attended(attention: &Attention, operands: &[&Tensor], ty: &Type) -> Tensor {
    let product = Contract { weights: Weights::Plain, epilogue: None, backwards: false };
    let mut scores = ty.clone();
    *scores.dims.last_mut().expect("scores have columns") =
        *operands[1].dims().last().expect("there is a column for each key");
    let sums = contract(&product, operands[0], operands[1], &scores);
    let sums = epilogue(attention.epilogue.as_ref(), sums, &operands[3..], &scores);
    let weights = rows(&attention.rows, &[&sums], &scores);
    contract(&product, &weights, operands[2], ty)
}

fn conv(c: &Conv, x: &Tensor, w: &Tensor, ty: &Type) -> Tensor {
    let spatial = c.taps.len();
    let (channels, outputs) = (x.dims()[spatial + 1], ty.dims[spatial + 1]);
    let (per_group, columns_per_group) = (channels / c.groups, outputs / c.groups);
    let taps: usize = c.taps.iter().product();
    let depth = taps * per_group;
    let grouped_plain = c.weights == Weights::Plain;
    let columns = Columns::new(c.weights, columns_per_group, depth);
    let own = strides(x.dims());
    // Offsets of the taps in X, in W's order.
    let mut offsets = vec![];
    let by: Vec<i64> = (0..spatial).map(|i| own[i + 1] * c.dilations[i] as i64).collect();
    walk(&c.taps, [&by], |[at]| offsets.push(at));
    let mut first: Vec<i64> = (0..spatial + 1)
        .map(|i| if i == 0 { own[0] } else { own[i] * c.strides[i - 1] as i64 })
        .collect();
    first.truncate(spatial + 1);
    let accumulate = Accumulator::new(x, w, ty.dtype);
    let mut out = Vec::with_capacity(ty.bytes());
    walk(&ty.dims[..spatial + 1], [&first], |[at]| {
        for group in 0..c.groups {
            let channel = (group * per_group) as i64;
            let places = offsets.iter().enumerate().flat_map(|(tap, offset)| {
                (0..per_group)
                    .map(move |i| ((at + offset + channel) as usize + i, tap * per_group + i))
            });
            if grouped_plain {
                // W's rows hold the columns of all groups.
                let rows = Columns { panels: None, columns: outputs, depth };
                accumulate.row_from(
                    columns_per_group,
                    group * columns_per_group,
                    places,
                    |i| (0, i),
                    &rows,
                    &mut out,
                );
            } else {
                accumulate.row(columns_per_group, places, |i| (group, i), &columns, &mut out);
            }
        }
    });
    made(&accumulate.ty(ty), out)
}

/// Where element (k, n) of a group of B is.
struct Columns {
    panels: Option<usize>,
    columns: usize,
    depth: usize,
}

impl Columns {
    fn new(weights: Weights, columns: usize, depth: usize) -> Columns {
        let panels = match weights {
            Weights::Plain => None,
            Weights::Panels { width, .. } => Some(width),
        };
        Columns { panels, columns, depth }
    }

    fn index(&self, group: usize, k: usize, n: usize) -> usize {
        match self.panels {
            None => (group * self.depth + k) * self.columns + n,
            Some(width) => {
                let panels = self.columns.div_ceil(width);
                ((group * panels + n / width) * self.depth + k) * width + n % width
            }
        }
    }
}

struct Accumulator {
    dtype: DType,
    floats: Option<(Vec<f64>, Vec<f64>)>,
    ints: Option<(Vec<i64>, Vec<i64>)>,
}

impl Accumulator {
    fn new(a: &Tensor, b: &Tensor, _: DType) -> Accumulator {
        let dtype = a.ty().dtype;
        let floats = dtype.is_float().then(|| (a.f64s(), b.f64s()));
        let ints = (!dtype.is_float()).then(|| (a.ints(), b.ints()));
        Accumulator { dtype, floats, ints }
    }

    /// Type of the sums, before an epilogue that may convert.
    fn ty(&self, result: &Type) -> Type {
        result.with_dtype(self.dtype)
    }

    fn row(
        &self,
        n: usize,
        taps: impl Iterator<Item = (usize, usize)>,
        place: impl Fn(usize) -> (usize, usize),
        columns: &Columns,
        out: &mut Vec<u8>,
    ) {
        self.row_from(n, 0, taps, place, columns, out);
    }

    /// `n` columns from `first` on: for every (index in A, k), `sums += a * B[k]`.
    fn row_from(
        &self,
        n: usize,
        first: usize,
        taps: impl Iterator<Item = (usize, usize)>,
        place: impl Fn(usize) -> (usize, usize),
        columns: &Columns,
        out: &mut Vec<u8>,
    ) {
        let width = columns.panels.unwrap_or(n).max(1);
        if let Some((a, b)) = &self.floats {
            let mut sums = vec![0f64; n];
            for (at, k) in taps {
                let (group, k) = place(k);
                for part in (0..n).step_by(width) {
                    let from = columns.index(group, k, first + part);
                    let end = n.min(part + width);
                    let row = &b[from..from + end - part];
                    sums[part..end].iter_mut().zip(row).for_each(|(sum, b)| *sum += a[at] * b);
                }
            }
            sums.into_iter().for_each(|v| push_f64(out, self.dtype, v));
        } else if let Some((a, b)) = &self.ints {
            let mut sums = vec![0i64; n];
            for (at, k) in taps {
                let (group, k) = place(k);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum =
                        sum.wrapping_add(a[at].wrapping_mul(b[columns.index(group, k, first + i)]));
                }
            }
            sums.into_iter().for_each(|v| push_int(out, self.dtype, v));
        }
    }
}

fn pool(p: &Pool, x: &Tensor, ty: &Type) -> Tensor {
    let spatial = p.window.len();
    let own = strides(x.dims());
    let by: Vec<i64> = (0..spatial).map(|i| own[i + 1] * p.dilations[i] as i64).collect();
    let mut offsets = vec![];
    walk(&p.window, [&by], |[at]| offsets.push(at));
    let mut first = own.clone();
    (0..spatial).for_each(|i| first[i + 1] *= p.strides[i] as i64);
    let mut data = Vec::with_capacity(ty.bytes());
    walk(&ty.dims, [&first], |[at]| {
        let all = offsets.iter().map(|offset| Number::at(x, (at + offset) as usize));
        all.fold(start(p.op, ty.dtype), |a, b| binary(combine(p.op), a, b, ty.dtype))
            .push(&mut data, ty.dtype);
    });
    made(ty, data)
}

fn gather(axis: usize, data: &Tensor, indices: &Tensor, ty: &Type) -> Tensor {
    let dims = data.dims();
    let size = ty.dtype.bytes();
    let (outer, extent) = (dims[..axis].iter().product::<usize>(), dims[axis] as i64);
    let inner = dims[axis + 1..].iter().product::<usize>() * size;
    let indices = indices.ints();
    let mut out = Vec::with_capacity(ty.bytes());
    for o in 0..outer {
        for &i in &indices {
            let i = if i < 0 { i.saturating_add(extent) } else { i }.clamp(0, extent - 1);
            let from = (o * extent as usize + i as usize) * inner;
            out.extend_from_slice(&data.bytes()[from..from + inner]);
        }
    }
    made(ty, out)
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
