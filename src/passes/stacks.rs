//! Short rows side by side, of a few elements each, are stacked and then turned.
//!
//! A concatenation along the last axis is free where each part's step writes its window. Windows of one or a few
//! elements, strides apart, are written element by element, though. Parts one behind the other are written dense,
//! and all of them are brought into turn at once.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Op, Value};
use std::ops::RangeInclusive;

/// So many elements, at most, are short.
const SHORT: usize = 4;

/// Two parts are as soon written apart; more parts than these are no short rows together.
const PARTS: RangeInclusive<usize> = 3..=16;

/// Fewer rows are not worth it.
const ROWS: usize = 32;

/// See the module's text.
pub fn stack(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let stacked = match &node.op {
            Op::Concat { axis } if axis + 1 == node.ty.rank() => stacked(&mut r, old),
            _ => None,
        };
        match stacked {
            Some(new) => r.set(old, new),
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

fn stacked(r: &mut Rewriter<'_>, old: Value) -> Option<Value> {
    let node = &r.old.nodes[old];
    let operands = r.operands(old);
    let dims = r.new.ty(*operands.first()?).dims.clone();
    let (&short, outer) = dims.split_last()?;
    let same = operands.iter().all(|&part| r.new.ty(part).dims == dims);
    let fits = PARTS.contains(&operands.len()) && short <= SHORT && short.is_power_of_two();
    if !same || !fits || outer.iter().product::<usize>() < ROWS {
        return None;
    }
    let one = [&[1], &dims[..]].concat();
    let parts: Vec<Value> = operands.iter().map(|&part| r.reshape(part, &one)).collect();
    let ty = node.ty.with_dims([&[operands.len()], &dims[..]].concat());
    let all = r.push(Op::Concat { axis: 0 }, parts, ty, node.origins.clone());
    let rank = dims.len();
    let order: Vec<usize> = (1..rank).chain([0, rank]).collect();
    let turned = r.permute(all, &order);
    Some(r.reshape(turned, &node.ty.dims))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Builder, Output, Role, eval};
    use crate::tensor::Tensor;
    use crate::types::{DType, Type};

    fn concatenated(dims: &[usize], parts: usize) -> Graph {
        let mut b = Builder::new("stacks");
        let ty = Type::new(DType::F32, dims);
        let inputs: Vec<Value> =
            (0..parts).map(|i| b.input(format!("x{i}"), Role::Input, ty.clone())).collect();
        let all = b.concat(&inputs, dims.len() - 1);
        b.finish(vec![Output { name: "y".into(), value: all }])
    }

    #[test]
    fn what_is_stacked_is_the_same() {
        for (dims, parts, changes) in [
            (&[40, 1][..], 3, true),
            (&[5, 8, 2], 4, true),
            (&[5, 8, 3], 4, false),
            (&[4, 1], 4, false),
            (&[40, 1], 2, false),
            (&[40, 8], 2, false),
        ] {
            let graph = concatenated(dims, parts);
            let stacked = stack(graph.clone());
            let permutes = stacked.nodes.values().any(|n| matches!(n.op, Op::Permute(_)));
            assert_eq!(permutes, changes, "{dims:?}");
            let elements: usize = dims.iter().product();
            let input = |i: usize| {
                let values = (0..elements).map(|e| (e * parts + i) as f64);
                Tensor::from_f64s(Type::new(DType::F32, dims), values)
            };
            let inputs: Vec<Tensor> = (0..parts).map(input).collect();
            assert_eq!(eval::graph(&graph, &inputs), eval::graph(&stacked, &inputs));
        }
    }
}
