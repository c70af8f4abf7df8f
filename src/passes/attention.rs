//! Two products with a row program between them become one node: scores, softmax and weighted values.
//!
//! What is found is the structure: a product, whose epilogue scales and masks, read by a row program
//! alone, and that by a product alone. Between them the batch may be regrouped, and the row program may
//! mask the scores: what all its stages do to a score moves into the product. Neither right operand may
//! be known before the first run: weights are better off in panels. Where several heads share keys and
//! values (repeated by a broadcast), the heads get an axis of their own, so that nothing is repeated in
//! memory; of single queries, those heads are the rows. Where a mask is known, so are the keys that count.

use super::reach;
use super::rewrite::{Rewriter, merged};
use crate::mir::{
    Attention, Contract, Expr, Graph, Node, Op, Role, Rows, Scalar, Span, Value, Weights,
};
use crate::types::DType;
use cranelift_entity::SecondaryMap;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Operands of a masked product.
const MOST_OPERANDS: usize = 10;

/// See the module's text.
pub fn fuse(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut known: SecondaryMap<Value, bool> = SecondaryMap::new();
    for (value, node) in &graph.nodes {
        known[value] = !matches!(node.op, Op::Input { role: Role::Input, .. })
            && node.operands.iter().all(|&operand| known[operand]);
    }
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let found = Pattern::find(&graph, old, |value| uses[value] == 1);
        match found.filter(|p| !known[p.keys] && !known[p.values]) {
            Some(pattern) => pattern.rewrite(&mut r, old),
            None if node.op == Op::Reshape => {
                let of = r.get(node.operands[0]);
                let new = viewed(&mut r, of, &node.ty.dims);
                r.set(old, new);
            }
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

/// `value` with other dimensions, without a reshape of a reshape.
fn viewed(r: &mut Rewriter<'_>, value: Value, dims: &[usize]) -> Value {
    let node = &r.new.nodes[value];
    match node.op {
        Op::Reshape if node.ty.dims != dims => r.reshape(node.operands[0], dims),
        _ => r.reshape(value, dims),
    }
}

/// What attention consists of.
struct Pattern<'a> {
    graph: &'a Graph,
    queries: Value,
    keys: Value,
    values: Value,
    epilogue: Option<Expr>,
    /// Operands of the epilogue, with dimensions that broadcast to those of the scores.
    extra: Vec<(Value, Vec<usize>)>,
    rows: Rows,
    /// Dimensions of the scores, and whether the product has them as they are.
    scores: Vec<usize>,
    regrouped: bool,
    /// What is done to the results, with further operands.
    finish: Option<(&'a Expr, &'a [Value])>,
    /// The nodes that are replaced.
    nodes: [Value; 3],
}

impl<'a> Pattern<'a> {
    /// The pattern whose last product is `last`.
    fn find(graph: &'a Graph, last: Value, single: impl Fn(Value) -> bool) -> Option<Pattern<'a>> {
        // What a value is, apart from a regrouping of all its axes but the last.
        let source = |value: Value| {
            let node = &graph.nodes[value];
            let of = node.operands.first().copied();
            let of = of.filter(|&of| {
                node.op == Op::Reshape && graph.ty(of).dims.last() == node.ty.dims.last()
            });
            (of.is_none_or(&single) && single(value)).then(|| of.unwrap_or(value))
        };
        let (second, operands) = plain(graph, last)?;
        let (values, results) = (operands[1], &operands[2..]);
        let weights = source(operands[0])?;
        let Node { op: Op::Rows(rows), operands: masked, ty, .. } = &graph.nodes[weights] else {
            return None;
        };
        let reduced = rows.stages.last().is_none_or(|stage| stage.reduce.is_some());
        if reduced || ty.rank() < 2 || ty.dtype != DType::F32 {
            return None;
        }
        // Scores are as many as weights; a mask is in the same place of its own product at most once.
        let scored = masked.iter().enumerate().find_map(|(at, &value)| {
            let product = source(value).filter(|_| graph.ty(value) == ty)?;
            Some((at, product, plain(graph, product)?))
        });
        let (at, scores, (product, product_operands)) = scored?;
        let forms = [&ty.dims, &graph.ty(scores).dims];
        // Single queries of heads that share their keys are better off as rows of one product.
        let alone = ty.dims[ty.rank() - 2] == 1;
        let forms = if alone { [forms[1], forms[0]] } else { forms };
        let (extra, form) = forms.into_iter().find_map(|form| {
            let regroup = |from: &'a [usize]| {
                move |&value: &Value| Some((value, regrouped(&graph.ty(value).dims, from, form)?))
            };
            let own = product_operands[2..].iter().map(regroup(&graph.ty(scores).dims));
            let others = masked.iter().enumerate().filter(|&(i, _)| i != at).map(|(_, v)| v);
            let extra: Option<Vec<_>> = own.chain(others.map(regroup(&ty.dims))).collect();
            let batch = &form[..form.len().checked_sub(2)?];
            let fits = |value: Value| {
                let dims = &graph.ty(value).dims;
                let own: usize = dims[..dims.len() - 2].iter().product();
                own == 1 || own == batch.iter().product::<usize>()
            };
            Some((extra?, form)).filter(|_| fits(product_operands[1]) && fits(values))
        })?;
        let (epilogue, rows) = match masked.len() {
            1 => (product.epilogue.clone(), rows.clone()),
            operands => {
                let (mask, rows) = masking(rows, operands, at)?;
                let own = product_operands.len() - 2;
                (Some(after(product, own, &mask, operands, at)), rows)
            }
        };
        let dtype = |(value, _): &(Value, Vec<usize>)| graph.ty(*value).dtype;
        let dtypes: Vec<DType> = [DType::F32].into_iter().chain(extra.iter().map(dtype)).collect();
        let simple = epilogue.as_ref().is_none_or(|epilogue| {
            let types = epilogue.types(&dtypes).unwrap_or_default();
            types.last() == Some(&DType::F32)
                && types.iter().all(|ty| matches!(ty, DType::F32 | DType::Bool))
        });
        (simple && extra.len() + 3 <= MOST_OPERANDS).then(|| Pattern {
            graph,
            queries: product_operands[0],
            keys: product_operands[1],
            values,
            epilogue,
            extra,
            rows,
            scores: form.clone(),
            regrouped: *form != graph.ty(scores).dims || *form != graph.ty(weights).dims,
            finish: second.epilogue.as_ref().map(|finish| (finish, results)),
            nodes: [scores, weights, last],
        })
    }

    fn rewrite(&self, r: &mut Rewriter<'_>, old: Value) {
        let ty = self.graph.ty(old);
        let origins = self.nodes.iter().map(|&v| self.graph.nodes[v].origins.as_slice());
        let origins = merged(origins);
        let tail = |value: Value, from: usize| {
            let dims = &self.graph.ty(value).dims;
            dims[dims.len() - from..].to_vec()
        };
        let mut result = ty.clone();
        let rows = &self.scores[..self.scores.len() - 1];
        result.dims = [rows, &tail(old, 1)].concat();
        let batch = &self.scores[..self.scores.len() - 2];
        let queries = viewed(r, r.get(self.queries), &[rows, &tail(self.queries, 1)].concat());
        let [keys, values] = [self.keys, self.values].map(|value| {
            let (own, whole) = (&self.graph.ty(value).dims, [batch, &tail(value, 2)].concat());
            if own.iter().product::<usize>() == whole.iter().product::<usize>() {
                return viewed(r, r.get(value), &whole);
            }
            let one =
                viewed(r, r.get(value), &[&vec![1; batch.len()][..], &tail(value, 2)].concat());
            let (ty, origins) = (r.new.ty(one).with_dims(whole), r.new.nodes[one].origins.clone());
            r.push(Op::Broadcast, vec![one], ty, origins)
        });
        let mut operands = vec![queries, keys, values];
        operands.extend(self.extra.iter().map(|(value, dims)| viewed(r, r.get(*value), dims)));
        let groups = [self.keys, self.values].map(|value| self.repeated(value));
        if let [Some(keys), Some(values)] = groups
            && !self.regrouped
            && self.graph.ty(keys.split).dims[..keys.axis + 2]
                == self.graph.ty(values.split).dims[..values.axis + 2]
        {
            result.dims = self.ungroup(r, &mut operands, [keys, values]);
        }
        let spans = self.spans();
        let attention =
            Attention { epilogue: self.epilogue.clone(), rows: self.rows.clone(), spans };
        let new = r.push(Op::Attention(attention), operands, result, origins.clone());
        let mut new = r.reshape(new, &ty.dims);
        if let Some((finish, extra)) = self.finish {
            let operands = [new].into_iter().chain(extra.iter().map(|&v| r.get(v))).collect();
            new = r.push(Op::Map(finish.clone()), operands, ty.clone(), origins);
        }
        r.set(old, new);
    }

    /// See [`Attention::spans`].
    fn spans(&self) -> Vec<Span> {
        let [.., queries, keys] = self.scores[..] else { return vec![] };
        let Some(mask) = self.epilogue.as_ref().filter(|_| self.rows.softmax().is_some()) else {
            return vec![];
        };
        reach::spans(mask, queries, keys, |n| {
            let (value, dims) = &self.extra[n];
            let tensor = self.graph.constant(*value)?;
            let (batch, own) = dims.split_at(dims.len().saturating_sub(2));
            batch.iter().all(|&d| d == 1).then(|| reach::Mask::new(tensor, own))
        })
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

/// A product of f32 whose right operand is not in panels, and its operands.
fn plain(graph: &Graph, value: Value) -> Option<(&Contract, &[Value])> {
    match &graph.nodes[value] {
        Node { op: Op::Contract(c), operands, ty, .. } => {
            let fits = c.weights == Weights::Plain
                && ty.dtype == DType::F32
                && graph.ty(operands[0]).dtype == DType::F32
                && !ty.dims.contains(&0);
            fits.then_some((c, operands))
        }
        _ => None,
    }
}

/// Dimensions that broadcast to `to` as `dims` do to `from`, which has the same elements in other groups.
fn regrouped(dims: &[usize], from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let own = [&vec![1; from.len().checked_sub(dims.len())?], dims].concat();
    let (mut i, mut j, mut new) = (0, 0, vec![]);
    while i < from.len() || j < to.len() {
        let (first, start) = (i, j);
        let (mut left, mut right) = (1, 1);
        loop {
            // A group of either side has at least one axis, if there is one.
            if i < from.len() && (left < right || i == first) {
                left *= from[i];
                i += 1;
            } else if j < to.len() && (right < left || j == start) {
                right *= to[j];
                j += 1;
            } else if left == right {
                break;
            } else {
                return None;
            }
        }
        if own[first..i] == from[first..i] {
            new.extend_from_slice(&to[start..j]);
        } else if own[first..i].iter().all(|&d| d == 1) {
            new.extend(to[start..j].iter().map(|_| 1));
        } else {
            return None;
        }
    }
    Some(new)
}

/// What all stages of a row program do to an element of operand `at`, with the program's other operands,
/// and the program over the results; `None` where they do not do the same.
fn masking(rows: &Rows, operands: usize, at: usize) -> Option<(Expr, Rows)> {
    let (first, rest) = rows.stages.split_first()?;
    let mask = &first.expr;
    mask.nodes.contains(&Scalar::Operand(at as u32)).then_some(())?;
    // A first stage that is not reduced is the mask alone.
    let kept = if first.reduce.is_some() { &rows.stages[..] } else { rest };
    let gone = rows.stages.len() - kept.len();
    let mut stages = vec![];
    for stage in kept {
        let mut expr = Expr::new();
        let mut renamed: Vec<u32> = vec![];
        for (i, node) in stage.expr.nodes.iter().enumerate() {
            let stage_of = |n: u32| (n as usize).checked_sub(operands);
            renamed.push(match *node {
                _ if equal(&stage.expr, i, mask, mask.nodes.len() - 1) => expr.operand(0),
                Scalar::Operand(n) => match stage_of(n) {
                    Some(0) if gone == 1 => expr.operand(0),
                    Some(stage) => expr.operand(stage + 1 - gone),
                    // Read by what is the mask, or `None` further down.
                    None => expr.push(Scalar::Operand(u32::MAX)),
                },
                node => expr.push(node.with_args(|a| renamed[a as usize])),
            });
        }
        let expr = expr.returning(*renamed.last()?);
        let all_known = !expr.nodes.contains(&Scalar::Operand(u32::MAX));
        all_known.then(|| stages.push(crate::mir::Stage { expr, reduce: stage.reduce }))?;
    }
    Some((mask.clone(), Rows { stages, width: rows.width }))
}

/// Whether two nodes compute the same. Each pair is looked at once, however many ways lead there.
fn equal(a: &Expr, i: usize, b: &Expr, j: usize) -> bool {
    let (mut open, mut seen) = (vec![(i, j)], BTreeSet::new());
    while let Some((i, j)) = open.pop() {
        let (x, y) = (a.nodes[i], b.nodes[j]);
        if x.with_args(|_| 0) != y.with_args(|_| 0) {
            return false;
        }
        if seen.insert((i, j)) {
            let pairs = x.args().into_iter().zip(y.args());
            open.extend(pairs.map(|(i, j)| (i as usize, j as usize)));
        }
    }
    true
}

/// A product's epilogue and then `mask`, of whose `operands` one, `at`, is the result of that and the
/// others stand behind the product's `own` ones.
fn after(product: &Contract, own: usize, mask: &Expr, operands: usize, at: usize) -> Expr {
    let mut out = Expr::new();
    let sum = out.operand(0);
    let done = match &product.epilogue {
        None => sum,
        Some(first) => {
            let refs: Vec<u32> = (0..=own).map(|n| out.operand(n)).collect();
            out.inline(first, &refs)
        }
    };
    let operand = |n: usize| match n.cmp(&at) {
        Ordering::Less => out.operand(own + n + 1),
        Ordering::Equal => done,
        Ordering::Greater => out.operand(own + n),
    };
    let refs: Vec<u32> = (0..operands).map(operand).collect();
    let result = out.inline(mask, &refs);
    out.returning(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::Binary;

    /// A sum with itself, again and again, has more ways to its operand than can be followed.
    #[test]
    fn equal_masks_are_found_once() {
        let doubled = |times: usize| {
            let mut e = Expr::new();
            let first = e.operand(0);
            (0..times).fold(first, |sum, _| e.binary(Binary::Add, sum, sum));
            e
        };
        let (a, b) = (doubled(60), doubled(60));
        assert!(equal(&a, 60, &b, 60) && !equal(&a, 60, &b, 59));
    }
}
