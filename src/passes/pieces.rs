//! Concatenations of which only pieces are read, none of them twice: each piece is a concatenation of its own. What
//! one layer of a recurrent model gives, step after step, is read by the next one a few steps at a time: the
//! steps need room until then, and not from the first to the last of all.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Op, Value};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// See the module's text.
pub fn cut(graph: Graph) -> Graph {
    let pieces = pieces(&graph);
    if pieces.is_empty() {
        return graph;
    }
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let Some((whole, operands)) = pieces.get(&old) else {
            r.copy(old);
            continue;
        };
        let whole = &graph.nodes[*whole];
        let parts: Vec<Value> =
            operands.clone().map(|index| r.get(whole.operands[index])).collect();
        let mut dims = whole.ty.dims.clone();
        dims[0] = parts.iter().map(|&part| r.new.ty(part).dims[0]).sum();
        let ty = whole.ty.with_dims(dims);
        let piece = r.push(Op::Concat { axis: 0 }, parts, ty, whole.origins.clone());
        let new = r.reshape(piece, &node.ty.dims);
        r.set(old, new);
    }
    r.finish()
}

/// The slices that are pieces: of which concatenation along its first axis, and which of its operands.
fn pieces(graph: &Graph) -> BTreeMap<Value, (Value, Range<usize>)> {
    // The concatenation that a value is, or is a reshape of that keeps the first axis.
    let mut whole: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
    let mut found: BTreeMap<Value, Vec<(Value, Range<usize>)>> = BTreeMap::new();
    let mut kept: SecondaryMap<Value, bool> = SecondaryMap::new();
    for (value, node) in &graph.nodes {
        for (index, &operand) in node.operands.iter().enumerate() {
            let Some(of) = whole[operand] else { continue };
            let first = graph.ty(operand).dims[0];
            match &node.op {
                Op::Reshape if node.ty.dims.first() == Some(&first) => whole[value] = Some(of),
                Op::Slice { starts, steps } if index == 0 => {
                    let all = node.ty.dims[1..] == graph.ty(operand).dims[1..];
                    let dense = steps.iter().all(|&step| step == 1);
                    let rows = starts[0]..starts[0] + node.ty.dims[0];
                    match operands(graph, of, &rows).filter(|_| all && dense) {
                        Some(operands) => found.entry(of).or_default().push((value, operands)),
                        None => kept[of] = true,
                    }
                }
                _ => kept[of] = true,
            }
        }
        if node.op == (Op::Concat { axis: 0 }) {
            whole[value] = Some(value);
        }
    }
    graph.outputs.iter().filter_map(|o| whole[o.value]).for_each(|of| kept[of] = true);
    let mut pieces = BTreeMap::new();
    for (of, mut slices) in found {
        slices.sort_by_key(|(_, operands)| operands.start);
        let apart = slices.windows(2).all(|pair| pair[0].1.end <= pair[1].1.start);
        if apart && !kept[of] {
            pieces.extend(slices.into_iter().map(|(slice, operands)| (slice, (of, operands))));
        }
    }
    pieces
}

/// The operands of a concatenation along its first axis that are exactly these rows.
fn operands(graph: &Graph, whole: Value, rows: &Range<usize>) -> Option<Range<usize>> {
    let mut bounds = vec![0];
    for &operand in &graph.nodes[whole].operands {
        bounds.push(bounds[bounds.len() - 1] + graph.ty(operand).dims[0]);
    }
    let at = |row: usize| bounds.binary_search(&row).ok();
    let (start, end) = (at(rows.start)?, at(rows.end)?);
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Binary, Builder, Output, Role, Unary, eval};
    use crate::tensor::Tensor;
    use crate::types::{DType, Type};

    /// Four rows one behind the other, of which these are read.
    fn read(rows: &[Range<usize>]) -> Vec<usize> {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [1, 8]));
        let number = |i: usize| Tensor::noise(&[1, 8], i as u32);
        let parts: Vec<Value> = (0..4)
            .map(|i| {
                let number = mir.constant(number(i));
                mir.binary(Binary::Add, x, number)
            })
            .collect();
        let whole = mir.concat(&parts, 0);
        let whole = mir.reshape(whole, [4, 2, 4]);
        let part = |mir: &mut Builder, rows: &Range<usize>| {
            let part = mir.narrow(whole, 0, rows.start, rows.len());
            mir.unary(Unary::Exp, part)
        };
        let outputs = rows
            .iter()
            .enumerate()
            .map(|(i, rows)| Output { name: format!("y{i}"), value: part(&mut mir, rows) });
        let outputs = outputs.collect();
        let graph = mir.finish(outputs);
        let inputs = [Tensor::noise(&[1, 8], 1)];
        let expected = eval::graph(&graph, &inputs);
        let graph = cut(graph);
        assert_eq!(eval::graph(&graph, &inputs), expected);
        let counts = graph.nodes.values().filter(|n| matches!(n.op, Op::Concat { .. }));
        counts.map(|node| node.operands.len()).collect()
    }

    #[test]
    fn pieces_stand_alone() {
        assert_eq!(read(&[0..2, 2..4]), [4, 2, 2]);
        assert_eq!(read(&[2..4, 0..1]), [4, 2, 1]);
        // What is read twice would be there twice.
        assert_eq!(read(&[0..3, 2..4]), [4]);
        assert_eq!(read(&[0..4, 0..2]), [4]);
    }
}
