//! Axes that are merged to be reduced together stay apart.
//!
//! A normalization over groups of channels comes as a reshape `[N, C, H, W]` to `[N, G, C / G * H * W]`, maps and
//! reductions over the last axis, and a reshape back. Where the channels lie last before and behind it, the merge would
//! force another order upon the tensor for the sake of a sum that does not care. The maps are done in the
//! dimensions before the merge instead; a reduction is made over the axes that it takes as a whole, and then, of the
//! few sums that are left, over its part of the others. What stands for a merged row is repeated along it where that
//! is cut: as small as a vector of channels. No reshape of the whole tensor is left, and `layout` moves
//! permutations through.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Op, Reduction, Value};
use crate::tensor::Tensor;
use crate::types::DType;
use cranelift_entity::SecondaryMap;

/// See the module's text.
pub fn keep(graph: Graph) -> Graph {
    let (regions, member) = regions(&graph);
    let region = |value: Value| member[value].map(|at| &regions[at]).filter(|region| region.pays());
    let mut r = Rewriter::new(&graph);
    // Values of regions before the merge.
    let mut apart: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
    for (old, node) in &graph.nodes {
        let read = node.operands.first().copied();
        let whole = read.and_then(|first| apart[first]);
        let merge = match region(old) {
            Some(region) => &region.merge,
            None => match (read.and_then(region), whole) {
                (Some(region), Some(whole)) => {
                    let new = match &node.op {
                        Op::Reduce { op, axes } => {
                            reduced(&mut r, old, whole, &region.merge, *op, axes)
                        }
                        _ => whole,
                    };
                    r.set(old, new);
                    continue;
                }
                _ => {
                    r.copy(old);
                    continue;
                }
            },
        };
        let new = match &node.op {
            Op::Map(_) => {
                let operands = node.operands.iter().map(|&v| match apart[v] {
                    Some(value) => value,
                    None => {
                        let value = r.get(v);
                        before(&mut r, value, merge)
                    }
                });
                let operands = operands.collect();
                let ty = node.ty.with_dims(merge.from.clone());
                r.push(node.op.clone(), operands, ty, node.origins.clone())
            }
            _ => r.get(node.operands[0]),
        };
        apart[old] = Some(new);
    }
    r.finish()
}

/// A reshape, cut into the axes that both sides are made of.
struct Merge {
    from: Vec<usize>,
    /// Per axis of both: its extent, its place on the left and on the right.
    axes: Vec<(usize, usize, usize)>,
    /// Per axis on the right, whether it is made of axes that are no neighbours as they lie before.
    torn: Vec<bool>,
}

impl Merge {
    /// None where an extent on one side does not divide what it meets on the other. `order` is what the operand was
    /// permuted by.
    fn new(from: &[usize], to: &[usize], order: &[usize]) -> Option<Merge> {
        if from.contains(&0) {
            return None;
        }
        let mut axes = vec![];
        let (mut i, mut j) = (0, 0);
        let (mut left, mut right) = (*from.first()?, *to.first()?);
        loop {
            let extent = left.min(right);
            if left % extent != 0 || right % extent != 0 {
                return None;
            }
            axes.push((extent, i, j));
            (left, right) = (left / extent, right / extent);
            let (ends_left, ends_right) = (i + 1 == from.len(), j + 1 == to.len());
            match (left == 1 && !ends_left, right == 1 && !ends_right) {
                (false, false) => break,
                (more_left, more_right) => {
                    if more_left {
                        i += 1;
                        left = from[i];
                    }
                    if more_right {
                        j += 1;
                        right = to[j];
                    }
                }
            }
        }
        let mut lies: Vec<usize> = (0..from.len()).filter(|&axis| from[axis] > 1).collect();
        lies.sort_by_key(|&axis| order[axis]);
        let torn = (0..to.len()).map(|to| {
            let own: Vec<usize> =
                axes.iter().filter(|a| a.0 > 1 && a.2 == to).map(|a| a.1).collect();
            let together = |pair: &[usize]| lies.windows(2).any(|next| next == pair);
            !own.windows(2).all(together)
        });
        Some(Merge { from: from.to_vec(), torn: torn.collect(), axes })
    }

    /// Whether all parts of an axis on the left are among those on the right for which `is` holds.
    fn whole(&self, from: usize, is: impl Fn(usize) -> bool) -> bool {
        self.axes.iter().filter(|a| a.0 > 1 && a.1 == from).all(|a| is(a.2))
    }

    /// The extents on the left of what has those of `parts`, per axis of both.
    fn left(&self, parts: &[usize]) -> Vec<usize> {
        let mut dims = vec![1; self.from.len()];
        self.axes.iter().zip(parts).for_each(|(axis, part)| dims[axis.1] *= part);
        dims
    }
}

/// A reshape, the maps behind it, and what leaves them.
struct Region {
    merge: Merge,
    /// By what the operand of the reshape was permuted.
    order: Vec<usize>,
    /// Whether a reduction needs what is torn.
    reduces: bool,
    /// Whether some order of the axes is wanted of what is reshaped back.
    turned: bool,
    /// Whether it is read by something else than reductions and reshapes back.
    leaks: bool,
}

impl Region {
    fn pays(&self) -> bool {
        self.reduces && self.turned && !self.leaks
    }
}

/// The regions, and to which one a value belongs.
fn regions(graph: &Graph) -> (Vec<Region>, SecondaryMap<Value, Option<usize>>) {
    let turned = turned(graph);
    let mut regions: Vec<Region> = vec![];
    let mut member: SecondaryMap<Value, Option<usize>> = SecondaryMap::new();
    // By what a value was permuted, past what keeps the axes.
    let mut orders: SecondaryMap<Value, Option<Vec<usize>>> = SecondaryMap::new();
    for (value, node) in &graph.nodes {
        let own = node.operands.iter().find_map(|&v| member[v]);
        let dims = &node.ty.dims;
        match (&node.op, own) {
            (Op::Reshape, Some(at)) if *dims == regions[at].merge.from => {
                regions[at].turned |= turned[value];
                orders[value] = Some(regions[at].order.clone());
                continue;
            }
            (Op::Map(_), Some(at)) => {
                let fits = |&v: &Value| match member[v] {
                    Some(other) => other == at && graph.ty(v).dims == *dims,
                    None => graph.constant(v).is_some() || is_small(graph, v, &regions[at].merge),
                };
                if node.operands.iter().all(fits) {
                    member[value] = Some(at);
                    continue;
                }
            }
            (Op::Reduce { op, axes }, Some(at)) => {
                let rounds = matches!(node.ty.dtype, DType::F16 | DType::BF16);
                if !rounds || matches!(op, Reduction::Max | Reduction::Min) {
                    let torn = &regions[at].merge.torn;
                    let reduces = axes.iter().any(|&axis| torn[axis]);
                    regions[at].reduces |= reduces;
                    continue;
                }
            }
            _ => {}
        }
        for at in node.operands.iter().filter_map(|&v| member[v]) {
            regions[at].leaks = true;
        }
        orders[value] = match &node.op {
            Op::Permute(perm) => Some(perm.clone()),
            op if op.keeps_axes() => {
                let same = |v: &&Value| graph.ty(**v).rank() == dims.len();
                node.operands.iter().filter(same).find_map(|&v| orders[v].clone())
            }
            Op::Reshape => {
                let from = node.operands[0];
                let merge = orders[from].as_ref().and_then(|order| {
                    let merge = Merge::new(&graph.ty(from).dims, dims, order)?;
                    merge.torn.contains(&true).then(|| (merge, order.clone()))
                });
                if let Some((merge, order)) = merge {
                    member[value] = Some(regions.len());
                    regions.push(Region {
                        merge,
                        order,
                        reduces: false,
                        turned: false,
                        leaks: false,
                    });
                }
                None
            }
            _ => None,
        };
    }
    for output in &graph.outputs {
        if let Some(at) = member[output.value] {
            regions[at].leaks = true;
        }
    }
    (regions, member)
}

/// Whether `value` has one element along something that is torn.
fn is_small(graph: &Graph, value: Value, merge: &Merge) -> bool {
    let dims = &graph.ty(value).dims;
    let new = merge.torn.len() - dims.len();
    let mut torn = (0..merge.torn.len()).filter(|&axis| merge.torn[axis]);
    torn.any(|axis| axis < new || dims[axis - new] == 1)
}

/// Whether a value is permuted, past what permutations are moved past.
fn turned(graph: &Graph) -> SecondaryMap<Value, bool> {
    let mut turned: SecondaryMap<Value, bool> = SecondaryMap::new();
    for (value, node) in graph.nodes.iter().rev() {
        let passes = node.op.keeps_axes() || matches!(node.op, Op::Reshape | Op::Gather { .. });
        if matches!(node.op, Op::Permute(_)) || passes && turned[value] {
            node.operands.iter().for_each(|&v| turned[v] = true);
        }
    }
    turned
}

/// The reduction `old` of a merged value, from what that was before.
fn reduced(
    r: &mut Rewriter<'_>,
    old: Value,
    value: Value,
    merge: &Merge,
    op: Reduction,
    axes: &[usize],
) -> Value {
    let node = &r.old.nodes[old];
    let is = |to: usize| axes.contains(&to);
    let whole: Vec<usize> = (0..merge.from.len())
        .filter(|&from| merge.from[from] > 1 && merge.whole(from, is))
        .collect();
    let mut ty = r.new.ty(value).clone();
    whole.iter().for_each(|&from| ty.dims[from] = 1);
    let push = |r: &mut Rewriter<'_>, value, axes: Vec<usize>, ty| match axes[..] {
        [] => value,
        _ => r.push(Op::Reduce { op, axes }, vec![value], ty, node.origins.clone()),
    };
    let sums = push(r, value, whole.clone(), ty);
    let parts: Vec<usize> =
        merge.axes.iter().map(|a| if whole.contains(&a.1) { 1 } else { a.0 }).collect();
    let left: Vec<usize> =
        (0..parts.len()).filter(|&at| parts[at] > 1 && is(merge.axes[at].2)).collect();
    let sums = r.reshape(sums, &parts);
    let mut ty = r.new.ty(sums).clone();
    left.iter().for_each(|&at| ty.dims[at] = 1);
    let sums = push(r, sums, left, ty);
    r.reshape(sums, &node.ty.dims)
}

/// What broadcasts to the merged dimensions as what broadcasts to those before.
fn before(r: &mut Rewriter<'_>, value: Value, merge: &Merge) -> Value {
    let ty = r.new.ty(value).clone();
    let new = merge.torn.len() - ty.rank();
    let has = |to: usize| to >= new && ty.dims[to - new] > 1;
    let parts: Vec<usize> = merge.axes.iter().map(|a| if has(a.2) { a.0 } else { 1 }).collect();
    // An axis on the left of which it has some parts only gets the others.
    let some = |from: usize| merge.axes.iter().any(|a| a.0 > 1 && a.1 == from && has(a.2));
    let full: Vec<usize> = merge.axes.iter().map(|a| if some(a.1) { a.0 } else { 1 }).collect();
    let dims = merge.left(&full);
    if parts == full {
        let ty = ty.with_dims(dims.clone());
        let constant = r.new.constant(value).map(|tensor| tensor.bytes().clone());
        return match constant.and_then(|bytes| Tensor::from_bytes(ty.clone(), bytes)) {
            Some(tensor) => {
                let origins = r.new.nodes[value].origins.clone();
                r.push(Op::Constant(tensor), vec![], ty, origins)
            }
            None => r.reshape(value, &dims),
        };
    }
    let origins = r.new.nodes[value].origins.clone();
    let value = r.reshape(value, &parts);
    let value = r.push(Op::Broadcast, vec![value], ty.with_dims(full), origins);
    r.reshape(value, &dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Binary, Builder, Output, Role, Value, eval};
    use crate::types::Type;

    /// What is written behind a turned picture `[2, 6, 4, 5]`, before and after: the results are the same. True where
    /// nothing is left of the whole picture in merged dimensions.
    fn is_apart(write: impl Fn(&mut Builder, Value) -> Value, back: bool) -> bool {
        let mut b = Builder::new("apart");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 4, 5, 6]));
        let x = b.channels_first(x);
        let y = write(&mut b, x);
        let value = if back { b.channels_last(y) } else { y };
        let graph = b.finish(vec![Output { name: "y".into(), value }]);
        let inputs = [Tensor::noise(&[2, 4, 5, 6], 7)];
        let before = eval::graph(&graph, &inputs);
        let graph = super::super::dce::eliminate(keep(graph));
        crate::mir::verify::verify(&graph).unwrap();
        let after = eval::graph(&graph, &inputs);
        for (a, b) in before[0].f64s().into_iter().zip(after[0].f64s()) {
            assert!((a - b).abs() <= 1e-5, "{a} {b}\n{graph}");
        }
        let mut nodes = graph.nodes.values();
        !nodes.any(|n| matches!(n.op, Op::Reshape) && n.ty.elements() == 240)
    }

    /// `(x - mean) * scale` along the last axis of `x` in these dimensions.
    fn centered(dims: &[usize], scale: &[usize]) -> impl Fn(&mut Builder, Value) -> Value {
        move |b, x| {
            let from = b.dims(x);
            let x = b.reshape(x, dims);
            let mean = b.mean(x, &[dims.len() - 1]);
            let y = b.binary(Binary::Sub, x, mean);
            let scale = b.constant(Tensor::noise(scale, 3));
            let y = b.binary(Binary::Mul, y, scale);
            b.reshape(y, from)
        }
    }

    #[test]
    fn what_is_torn_stays_apart() {
        // Groups of channels, all of them, channels by themselves with a part of the picture, and both in one.
        assert!(is_apart(centered(&[2, 3, 40], &[1, 3, 1]), true));
        assert!(is_apart(centered(&[2, 3, 40], &[3, 40]), true));
        assert!(is_apart(centered(&[2, 1, 120], &[120]), true));
        assert!(is_apart(centered(&[2, 120], &[2, 1]), true));
        assert!(is_apart(centered(&[1, 2, 1, 3, 40], &[1]), true));
        assert!(is_apart(centered(&[240], &[240]), true));
        assert!(is_apart(centered(&[6, 40], &[6, 1]), true));
    }

    #[test]
    fn what_is_not_torn_or_not_wanted_is_left() {
        assert!(!is_apart(centered(&[2, 3, 40], &[1, 3, 1]), false));
        assert!(!is_apart(centered(&[2, 6, 20], &[6, 1]), true));
        assert!(!is_apart(centered(&[16, 15], &[1]), true));
    }

    #[test]
    fn what_is_read_by_others_is_left() {
        let scanned = |b: &mut Builder, x: Value| {
            let from = b.dims(x);
            let x = b.reshape(x, [2, 3, 40]);
            let sorted = b.sort(x, true, 1);
            let sorted = b.cast(sorted, DType::F32);
            let mean = b.mean(x, &[2]);
            let mean = b.binary(Binary::Add, mean, sorted);
            let y = b.binary(Binary::Sub, x, mean);
            b.reshape(y, from)
        };
        assert!(!is_apart(scanned, true));
    }

    #[test]
    fn what_is_reduced_may_have_several_results() {
        let both = |b: &mut Builder, x: Value| {
            let from = b.dims(x);
            let x = b.reshape(x, [2, 2, 60]);
            let high = b.reduce(Reduction::Max, x, &[1, 2]);
            let low = b.reduce(Reduction::Min, x, &[2]);
            let [high, low] = [high, low].map(|extreme| b.binary(Binary::Sub, x, extreme));
            let [high, low] = [high, low].map(|y| b.reshape(y, from.clone()));
            b.binary(Binary::Mul, high, low)
        };
        assert!(is_apart(both, true));
    }
}
