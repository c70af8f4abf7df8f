//! Two products with a row program between them become one node: scores, softmax and weighted values.
//!
//! What is found is the structure: a product, whose epilogue scales and masks, read by a row program
//! alone, and that by a product alone. Neither right operand may be known before the first run:
//! weights are better off in panels. Where several heads share keys and values (repeated by a
//! broadcast), the heads get an axis of their own, so that nothing is repeated in memory; of single
//! queries, those heads are the rows.

use super::rewrite::{Rewriter, merged};
use crate::mir::{Attention, Expr, Graph, Node, Op, Role, Rows, Value, Weights};
use crate::types::DType;
use cranelift_entity::SecondaryMap;

/// See the module's text.
pub fn fuse(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut known: SecondaryMap<Value, bool> = SecondaryMap::new();
    for (value, node) in &graph.nodes {
        known[value] = !matches!(node.op, Op::Input { role: Role::Input, .. })
            && node.operands.iter().all(|&operand| known[operand]);
    }
    let mut r = Rewriter::new(&graph);
    for old in graph.nodes.keys() {
        let found = Pattern::find(&graph, old, |value| uses[value] == 1);
        match found.filter(|p| !known[p.keys] && !known[p.values]) {
            Some(pattern) => pattern.rewrite(&mut r, old),
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

/// What attention consists of.
struct Pattern<'a> {
    graph: &'a Graph,
    queries: Value,
    keys: Value,
    values: Value,
    epilogue: Option<&'a Expr>,
    extra: &'a [Value],
    rows: &'a Rows,
    /// What is done to the results, with further operands.
    finish: Option<(&'a Expr, &'a [Value])>,
    /// The nodes that are replaced.
    nodes: [Value; 3],
}

impl<'a> Pattern<'a> {
    /// The pattern whose last product is `last`.
    fn find(graph: &'a Graph, last: Value, single: impl Fn(Value) -> bool) -> Option<Pattern<'a>> {
        let plain = |value: Value| match &graph.nodes[value] {
            Node { op: Op::Contract(c), operands, ty, .. } => {
                let fits = c.weights == Weights::Plain
                    && ty.dtype == DType::F32
                    && graph.ty(operands[0]).dtype == DType::F32
                    && !ty.dims.contains(&0);
                fits.then_some((c, operands))
            }
            _ => None,
        };
        let (second, operands) = plain(last)?;
        let (weights, values, results) = (operands[0], operands[1], &operands[2..]);
        let Node { op: Op::Rows(rows), operands, ty, .. } = &graph.nodes[weights] else {
            return None;
        };
        let [scores] = operands[..] else { return None };
        let reduced = rows.stages.last().is_none_or(|stage| stage.reduce.is_some());
        if reduced || ty != graph.ty(scores) || !single(weights) || !single(scores) {
            return None;
        }
        let (product, operands) = plain(scores)?;
        Some(Pattern {
            graph,
            queries: operands[0],
            keys: operands[1],
            values,
            epilogue: product.epilogue.as_ref(),
            extra: &operands[2..],
            rows,
            finish: second.epilogue.as_ref().map(|finish| (finish, results)),
            nodes: [scores, weights, last],
        })
    }

    fn rewrite(&self, r: &mut Rewriter<'_>, old: Value) {
        let ty = self.graph.ty(old);
        let origins = self.nodes.iter().map(|&v| self.graph.nodes[v].origins.as_slice());
        let origins = merged(origins);
        let mut operands: Vec<Value> = [self.queries, self.keys, self.values]
            .iter()
            .chain(self.extra)
            .map(|&v| r.get(v))
            .collect();
        let mut result = ty.clone();
        let groups = [self.keys, self.values].map(|value| self.repeated(value));
        if let [Some(keys), Some(values)] = groups
            && self.graph.ty(keys.split).dims[..keys.axis + 2]
                == self.graph.ty(values.split).dims[..values.axis + 2]
        {
            result.dims = self.ungroup(r, &mut operands, [keys, values]);
        }
        let attention = Attention { epilogue: self.epilogue.cloned(), rows: self.rows.clone() };
        let new = r.push(Op::Attention(attention), operands, result, origins.clone());
        let mut new = r.reshape(new, &ty.dims);
        if let Some((finish, extra)) = self.finish {
            let operands = [new].into_iter().chain(extra.iter().map(|&v| r.get(v))).collect();
            new = r.push(Op::Map(finish.clone()), operands, ty.clone(), origins);
        }
        r.set(old, new);
    }

    /// Where a right operand is a reshape that joins the last axis of the batch with a repetition
    /// behind it.
    fn repeated(&self, value: Value) -> Option<Repeated> {
        let node = |value: Value| &self.graph.nodes[value];
        let rank = self.graph.ty(value).rank();
        let mut at = value;
        let swapped = match &node(at).op {
            Op::Permute(perm) => {
                let swap = (0..rank - 2).chain([rank - 1, rank - 2]);
                if !perm.iter().copied().eq(swap) {
                    return None;
                }
                at = node(at).operands[0];
                true
            }
            _ => false,
        };
        let (Op::Reshape, dims) = (&node(at).op, &self.graph.ty(at).dims) else { return None };
        let split = node(at).operands[0];
        let (from, axis) = (&self.graph.ty(split).dims, rank.checked_sub(3)?);
        let joins = from.len() == rank + 1
            && from[..axis] == dims[..axis]
            && from[axis] * from[axis + 1] == dims[axis]
            && from[axis + 2..] == dims[axis + 1..];
        let repeats = joins && repeats(self.graph, split, axis + 1);
        repeats.then_some(Repeated { split, axis, swapped })
    }

    /// Brings the operands to a batch in which the heads that share keys have an axis of their own, or
    /// are the rows; gives the result's dimensions.
    fn ungroup(
        &self,
        r: &mut Rewriter<'_>,
        operands: &mut [Value],
        sources: [Repeated; 2],
    ) -> Vec<usize> {
        let axis = sources[0].axis;
        let split = &self.graph.ty(sources[0].split).dims;
        let (shared, group) = (split[axis], split[axis + 1]);
        let rows = self.graph.ty(self.queries).dims[axis + 1];
        let as_rows = rows == 1;
        // [.., heads, rows, columns] as [.., shared, group, rows, columns], or without the rows.
        let split = |dims: &[usize]| -> Vec<usize> {
            let Some(heads) = dims.len().checked_sub(3) else { return dims.to_vec() };
            let both = if dims[heads] == 1 { [1, 1] } else { [shared, group] };
            let rest = if as_rows { &dims[heads + 2..] } else { &dims[heads + 1..] };
            [&dims[..heads], &both, rest].concat()
        };
        for (operand, source) in operands[1..3].iter_mut().zip(sources) {
            let mut from = r.get(source.split);
            if as_rows {
                from = r.narrow(from, axis + 1, 0, 1);
                let mut dims = r.new.ty(from).dims.clone();
                dims.remove(axis + 1);
                from = r.reshape(from, &dims);
            }
            let rank = r.new.ty(from).rank();
            let swap: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
            *operand = if source.swapped { r.permute(from, &swap) } else { from };
        }
        for i in (0..operands.len()).filter(|&i| i == 0 || i > 2) {
            let dims = split(&r.new.ty(operands[i]).dims);
            operands[i] = r.reshape(operands[i], &dims);
        }
        split(&self.graph.ty(self.nodes[2]).dims)
    }
}

/// A right operand whose heads are repetitions.
#[derive(Clone, Copy)]
struct Repeated {
    /// The operand with heads in two axes; that behind `axis` is the repetition.
    split: Value,
    axis: usize,
    /// Whether the operand shows its last two axes in each other's place.
    swapped: bool,
}

/// Whether a value is the same all along an axis.
fn repeats(graph: &Graph, value: Value, axis: usize) -> bool {
    let node = &graph.nodes[value];
    match &node.op {
        Op::Permute(perm) => repeats(graph, node.operands[0], perm[axis]),
        Op::Broadcast => {
            let from = &graph.ty(node.operands[0]).dims;
            match (axis + from.len()).checked_sub(node.ty.rank()) {
                Some(own) if from[own] > 1 => repeats(graph, node.operands[0], own),
                _ => true,
            }
        }
        _ => false,
    }
}
