//! The place of an extremum becomes two reductions: the extremum, and the first place of what equals it.
//! Vectors hold those, which they do not hold for places of 64 bits. Many rows are left to the kernel, which
//! searches them side by side.

use super::rewrite::Rewriter;
use crate::mir::{Binary, Comparison, Expr, Graph, Op, Reduction, Value};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Fewer elements are not worth the further steps.
const FEWEST: usize = 256;

/// So many rows fill vectors.
const MANY: usize = 16;

/// See the module's text.
pub fn reduce(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let new = match node.op {
            Op::ArgReduce { largest, axis, last: false } => {
                let op = if largest { Reduction::Max } else { Reduction::Min };
                first_place(&mut r, old, op, axis)
            }
            _ => None,
        };
        match new {
            Some(new) => r.set(old, new),
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

fn first_place(r: &mut Rewriter<'_>, old: Value, op: Reduction, axis: usize) -> Option<Value> {
    let node = &r.old.nodes[old];
    let x = r.get(node.operands[0]);
    let ty = r.new.ty(x).clone();
    let extent = ty.dims[axis];
    let none = i32::MAX;
    let fits = ty.dtype == DType::F32
        && ty.elements() >= FEWEST
        && node.ty.elements() < MANY
        && i32::try_from(extent).is_ok_and(|extent| (1..none).contains(&extent));
    fits.then_some(())?;
    let reduced = |dtype: DType| node.ty.with_dtype(dtype);
    let reduce = |op: Reduction| Op::Reduce { op, axes: vec![axis] };
    let best = r.push(reduce(op), vec![x], reduced(ty.dtype), node.origins.clone());
    let mut dims = vec![1; ty.rank() - axis];
    dims[0] = extent;
    let places = Tensor::from_f64s(Type::new(DType::I32, dims), (0..extent).map(|i| i as f64));
    let place_ty = places.ty().clone();
    let places = r.push(Op::Constant(places), vec![], place_ty, node.origins.clone());
    // Of numbers, one that is not a number is the largest and the smallest.
    let mut e = Expr::new();
    let (element, best_one, place) = (e.operand(0), e.operand(1), e.operand(2));
    let same = e.compare(Comparison::Equal, element, best_one);
    let nan = e.compare(Comparison::NotEqual, element, element);
    let is_best = e.binary(Binary::Or, same, nan);
    let none = e.literal(DType::I32, f64::from(none));
    let result = e.select(is_best, place, none);
    let map = Op::Map(e.returning(result));
    let ty = ty.with_dtype(DType::I32);
    let places = r.push(map, vec![x, best, places], ty, node.origins.clone());
    let first =
        r.push(reduce(Reduction::Min), vec![places], reduced(DType::I32), node.origins.clone());
    let mut e = Expr::new();
    let place = e.operand(0);
    e.cast(node.ty.dtype, place);
    Some(r.push(Op::Map(e), vec![first], node.ty.clone(), node.origins.clone()))
}
