//! A long reduction over axes before those that are kept is made of those of a few parts: threads share them, and each
//! reads the rows that it has written. (Cut by what is kept, every thread would read all rows, half of which another one's
//! cache holds.) How many parts there are depends on shapes only, so that the result does not depend on the threads.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Node, Op, Value};
use crate::types::Type;
use std::ops::Range;

/// Fewer elements are reduced in less time than threads need to meet.
const FEWEST: usize = 1 << 15;

/// At most so many parts, each of at least so many rows.
const PARTS: usize = 8;
const ROWS: usize = 16;

/// See the module's text.
pub fn split(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        match split_one(&mut r, node) {
            Some(new) => r.set(old, new),
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

fn split_one(r: &mut Rewriter<'_>, node: &Node) -> Option<Value> {
    let Op::Reduce { op, axes } = &node.op else { return None };
    let x = r.get(node.operands[0]);
    let ty = r.new.ty(x).clone();
    let reduced = neighbours(axes)?;
    let [before, rows, columns] = [0..reduced.start, reduced.clone(), reduced.end..ty.rank()]
        .map(|axes| ty.dims[axes].iter().product());
    let parts = parts(rows)?;
    let few: bool = ty.elements() < FEWEST || before >= PARTS;
    if few || columns == 1 {
        return None;
    }
    let mut push = |op: Op, from: Value, dims: [usize; 4]| {
        r.push(op, vec![from], Type::new(ty.dtype, dims), node.origins.clone())
    };
    let reduce = |axis: usize| Op::Reduce { op: *op, axes: vec![axis] };
    let whole = push(Op::Reshape, x, [before, parts, rows / parts, columns]);
    let of_parts = push(reduce(2), whole, [before, parts, 1, columns]);
    let of_all = push(reduce(1), of_parts, [before, 1, 1, columns]);
    Some(r.push(Op::Reshape, vec![of_all], node.ty.clone(), node.origins.clone()))
}

/// The axes, if each lies behind the one before it.
fn neighbours(axes: &[usize]) -> Option<Range<usize>> {
    let (&first, &last) = (axes.first()?, axes.last()?);
    axes.iter().copied().eq(first..=last).then_some(first..last + 1)
}

/// The most parts of so many rows that are equal and not too small; `None` if there is only one.
fn parts(rows: usize) -> Option<usize> {
    (2..=PARTS)
        .rev()
        .find(|parts| parts % 2 == 0 && rows.is_multiple_of(*parts) && rows / parts >= ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::build::Builder;
    use crate::mir::{Output, Reduction, Role, verify::verify};
    use crate::types::DType;

    fn split_sum(dims: &[usize], axes: &[usize]) -> Graph {
        let mut b = Builder::new("sum");
        let x = b.input("x", Role::Input, Type::new(DType::F32, dims.to_vec()));
        let sum = b.reduce(Reduction::Sum, x, axes);
        let graph = split(b.finish(vec![Output { name: "y".into(), value: sum }]));
        verify(&graph).expect("the graph is right");
        graph
    }

    fn reductions(dims: &[usize], axes: &[usize]) -> Vec<Vec<usize>> {
        let graph = split_sum(dims, axes);
        let nodes = graph.nodes.values().filter(|node| matches!(node.op, Op::Reduce { .. }));
        nodes.map(|node| node.ty.dims.clone()).collect()
    }

    #[test]
    fn long_ones_are_split() {
        assert_eq!(reductions(&[1, 56, 56, 96], &[1, 2]), [vec![1, 8, 1, 96], vec![1, 1, 1, 96]]);
        assert_eq!(
            reductions(&[2, 14, 14, 480], &[1, 2]),
            [vec![2, 4, 1, 480], vec![2, 1, 1, 480]]
        );
        assert_eq!(reductions(&[3000, 40], &[0]), [vec![1, 8, 1, 40], vec![1, 1, 1, 40]]);
    }

    #[test]
    fn others_stay() {
        let whole: [(&[usize], &[usize]); 6] = [
            (&[1, 7, 7, 1280], &[1, 2]), // in odd numbers
            (&[1, 28, 28, 32], &[1, 2]), // short
            (&[8, 28, 28, 64], &[1, 2]), // many
            (&[64, 4096], &[1]),         // along
            (&[56, 96, 56], &[0, 2]),    // apart
            (&[1, 16, 4096], &[1]),      // few rows
        ];
        for (dims, axes) in whole {
            assert_eq!(reductions(dims, axes).len(), 1, "{dims:?} over {axes:?}");
        }
    }
}
