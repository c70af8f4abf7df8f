//! Weights that are there twice, as a table of rows (which a gather reads: the words of a language model) and
//! transposed (as the last product's matrix), are there once: a product of few rows reads the table as it is.

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::{Contract, Graph, Node, Op, Value, Weights};
use crate::tensor::Tensor;

/// See the module's text. Only what is larger than the second-level cache: from behind it both come as fast.
pub fn share(graph: Graph, machine: &Machine) -> Graph {
    let tables: Vec<(Value, &Tensor)> = tables(&graph)
        .filter_map(|table| Some((table, graph.constant(table)?)))
        .filter(|(_, tensor)| tensor.ty().bytes() as u64 > machine.l2)
        .collect();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        // A table that comes later is not there yet.
        let before = tables.iter().filter(|(table, _)| *table < old);
        let same = weights(&graph, node)
            .and_then(|weights| before.into_iter().find(|(_, table)| is_transpose(weights, table)));
        let Some(&(table, _)) = same else {
            r.copy(old);
            continue;
        };
        let mut operands = r.operands(old);
        operands[1] = r.permute(r.get(table), &[1, 0]);
        let new = r.push(node.op.clone(), operands, node.ty.clone(), node.origins.clone());
        r.set(old, new);
    }
    r.finish()
}

/// The matrices whose rows are gathered.
fn tables(graph: &Graph) -> impl Iterator<Item = Value> {
    let gathered = graph.nodes.values().filter(|node| matches!(node.op, Op::Gather { axis: 0 }));
    gathered.map(|node| node.operands[0])
}

/// The constant matrix of a product of few rows.
fn weights<'a>(graph: &'a Graph, node: &Node) -> Option<&'a Tensor> {
    let Op::Contract(Contract { weights: Weights::Plain, .. }) = node.op else { return None };
    let rows = node.ty.dims.iter().rev().skip(1).product::<usize>();
    let tensor = graph.constant(node.operands[1])?;
    (rows <= Contract::FEW_ROWS && tensor.dims().len() == 2).then_some(tensor)
}

/// Whether two matrices have the same bytes, one of them transposed.
fn is_transpose(a: &Tensor, b: &Tensor) -> bool {
    let ([depth, columns], [rows, width]) = (a.dims(), b.dims()) else { return false };
    if (depth, columns, a.ty().dtype) != (width, rows, b.ty().dtype) {
        return false;
    }
    // It may have been made of that table.
    if a.identity() == b.strided(a.dims(), 0, &[1, *width as i64]).identity() {
        return true;
    }
    match a.ty().dtype.bytes() {
        1 => are_transposed::<1>(a.bytes(), b.bytes(), *width),
        2 => are_transposed::<2>(a.bytes(), b.bytes(), *width),
        4 => are_transposed::<4>(a.bytes(), b.bytes(), *width),
        _ => are_transposed::<8>(a.bytes(), b.bytes(), *width),
    }
}

/// For elements of `N` bytes, of which a row of `b` has `width`.
fn are_transposed<const N: usize>(a: &[u8], b: &[u8], width: usize) -> bool {
    let (a, b) = (a.as_chunks::<N>().0, b.as_chunks::<N>().0);
    let columns = b.len() / width.max(1);
    // Lines of both, a few at a time, so that they are in the cache.
    const SIDE: usize = 16;
    (0..width).step_by(SIDE).all(|first| {
        let part = first..(first + SIDE).min(width);
        b.chunks_exact(width).enumerate().all(|(column, row)| {
            let line = a[first * columns + column..].iter().step_by(columns);
            row[part.clone()].iter().eq(line.take(part.len()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DType, Type};

    #[test]
    fn transposes_are_recognised() {
        let (rows, width) = (17, 33);
        for dtype in [DType::I8, DType::F16, DType::F32, DType::F64] {
            let number = |row: usize, k: usize| ((row * 7 + k * 3) % 101) as i64;
            let table = (0..rows).flat_map(|row| (0..width).map(move |k| number(row, k)));
            let table = Tensor::from_ints(Type::new(dtype, [rows, width]), table);
            let matrix = |last: i64| {
                let numbers = (0..width).flat_map(|k| (0..rows).map(move |row| number(row, k)));
                let numbers = numbers.take(rows * width - 1).chain([last]);
                Tensor::from_ints(Type::new(dtype, [width, rows]), numbers)
            };
            let last = number(rows - 1, width - 1);
            assert!(is_transpose(&matrix(last), &table), "{dtype:?}");
            assert!(!is_transpose(&matrix(last + 1), &table), "{dtype:?}");
            assert!(!is_transpose(&table, &table), "{dtype:?}");
        }
    }
}
