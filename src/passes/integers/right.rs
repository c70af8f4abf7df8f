//! The second operand of a product of integers: bytes that are known, and what becomes of them.

use super::{Number, shifted, value_of};
use crate::mir::{Binary, Expr, Graph, Literal, Node, Op, Value, eval};
use crate::tensor::{Tensor, read_int};
use crate::types::{DType, Type};

/// The second operand: `(numbers - zero) * scale`, the numbers being bytes, or differences of them in `i32`. The scale has
/// their dimensions, or is a single one.
pub(super) struct Right {
    numbers: Tensor,
    zero: i64,
    pub(super) scale: Option<Tensor>,
}

/// The second operand, where all of it is known.
pub(super) fn right(graph: &Graph, value: Value) -> Option<Right> {
    let node = &graph.nodes[value];
    match &node.op {
        Op::Map(expr) => {
            let found = shifted(graph, node, expr)?;
            let operand = |n: usize| value_of(graph, node.operands[n]);
            let literal = |l: Literal| Tensor::from_f64s(Type::scalar(l.dtype), [l.f64()]);
            let number = |number: Number| match number {
                Number::Operand(n) => operand(n),
                Number::Literal(l) => Some(literal(l)),
            };
            let bytes = operand(found.bytes)?;
            let (numbers, zero) = match found.zero.map(number) {
                None => (bytes, 0),
                Some(zero) => match zero? {
                    zero if zero.splat().is_some() => (bytes, zero.int_at(0)),
                    zero => (differences(&bytes, &zero), 0),
                },
            };
            let scale = match found.scale {
                None => None,
                Some(scale) => {
                    let scale = number(scale)?;
                    Some(match scale.ty().elements() {
                        1 => scale.reshaped([])?,
                        _ => eval::op(&Op::Broadcast, &[&scale], &node.ty),
                    })
                }
            };
            Some(Right { numbers, zero, scale })
        }
        op if op.is_view() => {
            let Right { numbers, zero, scale } = right(graph, node.operands[0])?;
            let view =
                |tensor: &Tensor| eval::op(op, &[tensor], &node.ty.with_dtype(tensor.ty().dtype));
            let scale = scale.map(|s| if s.ty().rank() == 0 { s } else { view(&s) });
            Some(Right { numbers: view(&numbers), zero, scale })
        }
        _ => None,
    }
}

/// Bytes less zero points that are not all the same, in `i32`.
fn differences(bytes: &Tensor, zeros: &Tensor) -> Tensor {
    let mut e = Expr::new();
    let [byte, zero] = [0, 1].map(|n| e.operand(n)).map(|a| e.cast(DType::I32, a));
    e.binary(Binary::Sub, byte, zero);
    eval::op(&Op::Map(e), &[bytes, zeros], &bytes.ty().with_dtype(DType::I32))
}

/// The second operand as so many matrices of columns of so many elements.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    matrices: usize,
    depth: usize,
    columns: usize,
}

/// What each column has.
pub(super) struct Columns {
    lowest: Vec<i64>,
    highest: Vec<i64>,
    pub(super) totals: Vec<i64>,
}

/// Of all columns, matrix by matrix.
pub(super) fn columns_of(right: &Right, shape: &Shape) -> Columns {
    let Shape { matrices, depth, columns } = *shape;
    let all = matrices * columns;
    let (mut lowest, mut highest, mut totals) =
        (vec![i64::MAX; all], vec![i64::MIN; all], vec![0; all]);
    let dtype = right.numbers.ty().dtype;
    let mut numbers: Vec<i64> = Vec::with_capacity(columns);
    for (i, row) in right.numbers.bytes().chunks_exact(columns * dtype.bytes()).enumerate() {
        numbers.clear();
        match dtype {
            DType::U8 => numbers.extend(row.iter().map(|&b| i64::from(b) - right.zero)),
            DType::I8 => numbers.extend(row.iter().map(|&b| i64::from(b as i8) - right.zero)),
            _ => numbers
                .extend(row.chunks_exact(dtype.bytes()).map(|b| read_int(dtype, b) - right.zero)),
        }
        let of = i / depth * columns..(i / depth + 1) * columns;
        let each = lowest[of.clone()].iter_mut().zip(&mut highest[of.clone()]);
        for ((low, high), &v) in each.zip(&numbers) {
            (*low, *high) = ((*low).min(v), (*high).max(v));
        }
        totals[of].iter_mut().zip(&numbers).for_each(|(total, v)| *total += v);
    }
    Columns { lowest, highest, totals }
}

/// What is taken from each column, so that it has room in `i8`, besides the zero point; `None` if that is not
/// possible.
fn offsets_of(right: &Right, shape: &Shape) -> Option<Vec<i64>> {
    let range = match right.numbers.ty().dtype {
        DType::U8 => Some((0, 255)),
        DType::I8 => Some((-128, 127)),
        _ => None,
    };
    let has_room = |(low, high): (i64, i64)| low - right.zero >= -128 && high - right.zero <= 127;
    if range.is_some_and(has_room) {
        return Some(vec![0; shape.matrices * shape.columns]);
    }
    let Columns { lowest, highest, .. } = columns_of(right, shape);
    let offset = |(&low, &high): (&i64, &i64)| match () {
        () if high - low > 255 => None,
        () if high > 127 => Some(high - 127),
        () => Some((low + 128).min(0)),
    };
    lowest.iter().zip(&highest).map(offset).collect()
}

/// The second operand in `i8`, less its zero point and an offset for each column, with which it has room there.
fn fitting(right: &Right, shape: &Shape, offsets: &[i64]) -> Tensor {
    let Right { numbers, zero, .. } = right;
    let (ty, zero, Shape { depth, columns, .. }) = (numbers.ty(), *zero, *shape);
    if ty.dtype == DType::I8 && zero == 0 && offsets.iter().all(|&o| o == 0) {
        return numbers.clone();
    }
    let all = Type::new(DType::I64, [offsets.len()]);
    let offsets = Tensor::from_ints(all, offsets.iter().copied());
    let how = format!("columns of {depth} less {zero} and");
    Tensor::later(ty.with_dtype(DType::I8), &how, &[numbers, &offsets], move |of| {
        let (size, offsets) = (of[0].ty().dtype.bytes(), of[1].ints());
        let mut data = Vec::with_capacity(of[0].ty().elements());
        for (i, row) in of[0].bytes().chunks_exact(columns * size).enumerate() {
            // The last eight bits are those of the difference.
            let less = offsets[i / depth * columns..].iter().map(|o| (zero + o) as u8);
            data.extend(row.iter().step_by(size).zip(less).map(|(b, less)| b.wrapping_sub(less)));
        }
        Tensor::from_bytes(of[0].ty().with_dtype(DType::I8), data.into())
            .expect("a byte for each number")
    })
}

/// What a product needs of its second operand.
pub(super) struct Plan {
    /// `i8`.
    pub(super) weights: Tensor,
    /// Weights of ones, and for each column what its elements are more than those of the weights.
    pub(super) offsets: Option<(Tensor, Tensor)>,
    pub(super) shape: Shape,
    /// Dimensions of columns, which broadcast to the result.
    pub(super) dims: Vec<usize>,
}

impl Plan {
    pub(super) fn new(node: &Node, right: &Right) -> Option<Plan> {
        let dims = right.numbers.dims();
        let (&columns, outer) = dims.split_last()?;
        // Matrices, elements of a column.
        let (matrices, depth, column_dims) = match &node.op {
            Op::Contract(_) => {
                let (&depth, batch) = outer.split_last()?;
                (batch.iter().product(), depth, [batch, &[1, columns]].concat())
            }
            _ => (1, outer.iter().product::<usize>(), vec![columns]),
        };
        // Sums of floats that become sums of integers must have room: of products of differences of bytes.
        let room = depth.checked_mul(255 * 255).is_some_and(|most| most < 1 << 31);
        if depth * columns == 0 || right.scale.is_some() && !room {
            return None;
        }
        let shape = Shape { matrices, depth, columns };
        let offsets = offsets_of(right, &shape)?;
        let ty = right.numbers.ty().with_dtype(DType::I8);
        let weights = fitting(right, &shape, &offsets);
        let some = offsets.iter().any(|&o| o != 0);
        let offsets = match (some, &node.op) {
            (false, _) => None,
            (true, Op::Conv(conv)) => {
                // One sum for each group, which is one for all columns, or for its own.
                let groups = conv.groups;
                let own = groups == 1 || groups == columns;
                let mut ones = ty.dims.clone();
                *ones.last_mut()? = groups;
                own.then_some((ones, offsets))
            }
            (true, _) => {
                let mut ones = ty.dims.clone();
                *ones.last_mut()? = 1;
                Some((ones, offsets))
            }
        };
        if some && offsets.is_none() {
            return None;
        }
        let offsets = offsets.map(|(ones, offsets)| {
            let ty = Type::new(DType::I8, ones);
            let count = ty.elements();
            let ones = Tensor::from_ints(ty, std::iter::repeat_n(1, count));
            (ones, Tensor::from_ints(Type::new(DType::I32, column_dims.clone()), offsets))
        });
        Some(Plan { weights, offsets, shape, dims: column_dims })
    }
}

/// The scales of columns, where each column has one.
pub(super) fn plan_scale(scale: &Tensor, dims: &[usize]) -> Option<Tensor> {
    if scale.ty().rank() == 0 {
        return Some(scale.clone());
    }
    let values = scale.f32s();
    let columns = *dims.last()?;
    let all: usize = dims.iter().product();
    let each = values.len() / all.max(1) * columns;
    let one = |i: usize| i / each.max(1) * each + i % columns;
    let same = values.iter().enumerate().all(|(i, &v)| v == values[one(i)]);
    let of_columns: Vec<f32> =
        (0..all).map(|column| values[column / columns * each + column % columns]).collect();
    same.then(|| Tensor::from_f32s(dims, &of_columns))
}
