//! Views: compositions become one, what changes nothing goes, what was split and stands together again
//! is whole, and element-wise work moves in front of reshapes, so that it meets the product that made
//! its operand.

use super::rewrite::{Rewriter, merged};
use crate::mir::{Expr, Graph, Op, Value};
use crate::types::{Type, broadcast};

/// See the module's text.
pub fn simplify(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let operands = r.operands(old);
        let new = match &node.op {
            Op::Reshape => reshape(&mut r, operands[0], &node.ty),
            Op::Permute(perm) => permute(&mut r, operands[0], perm),
            Op::Slice { steps, .. } => {
                let whole =
                    r.new.ty(operands[0]).dims == node.ty.dims && steps.iter().all(|&s| s == 1);
                if whole { operands[0] } else { r.copy(old) }
            }
            Op::Broadcast if r.new.ty(operands[0]).dims == node.ty.dims => operands[0],
            Op::Map(expr)
                if *expr == Expr::identity() && r.new.ty(operands[0]).dims == node.ty.dims =>
            {
                operands[0]
            }
            Op::Map(expr) => {
                let operands = without_broadcasts(&r.new, operands, &node.ty.dims);
                match before_reshape(&mut r, expr, &operands, old) {
                    Some(new) => new,
                    None => {
                        r.push(node.op.clone(), operands, node.ty.clone(), node.origins.clone())
                    }
                }
            }
            Op::Reduce { op, axes } => match rows_before_reshape(&mut r, operands[0], axes) {
                Some(source) => {
                    let mut ty = r.new.ty(source).clone();
                    let last = ty.rank() - 1;
                    ty.dims[last] = 1;
                    let op = Op::Reduce { op: *op, axes: vec![last] };
                    let reduced = r.push(op, vec![source], ty, node.origins.clone());
                    r.reshape(reduced, &node.ty.dims)
                }
                None => r.copy(old),
            },
            Op::Concat { axis } => {
                let parts = joined(&mut r, operands, *axis);
                match parts[..] {
                    [part] => part,
                    _ => r.push(node.op.clone(), parts, node.ty.clone(), node.origins.clone()),
                }
            }
            Op::Input { .. }
            | Op::Constant(_)
            | Op::ArgReduce { .. }
            | Op::Rows(_)
            | Op::Contract(_)
            | Op::Conv(_)
            | Op::Attention(_)
            | Op::Winograd(_)
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::Scan(_)
            | Op::Pad { .. }
            | Op::Broadcast => r.copy(old),
        };
        r.set(old, new);
    }
    r.finish()
}

fn reshape(r: &mut Rewriter<'_>, x: Value, ty: &Type) -> Value {
    let source = match r.new.nodes[x].op {
        Op::Reshape => r.new.nodes[x].operands[0],
        _ => x,
    };
    r.reshape(source, &ty.dims)
}

fn permute(r: &mut Rewriter<'_>, x: Value, perm: &[usize]) -> Value {
    let node = &r.new.nodes[x];
    let (source, perm) = match &node.op {
        Op::Permute(inner) => (node.operands[0], perm.iter().map(|&p| inner[p]).collect()),
        _ => (x, perm.to_vec()),
    };
    // An order of the axes that only moves those of extent 1 is a reshape.
    let dims = &r.new.ty(source).dims;
    let long: Vec<usize> = perm.iter().copied().filter(|&p| dims[p] != 1).collect();
    if long.is_sorted() {
        let dims: Vec<usize> = perm.iter().map(|&p| dims[p]).collect();
        let ty = r.new.ty(source).with_dims(dims);
        return reshape(r, source, &ty);
    }
    r.permute(source, &perm)
}

/// The operands of a concatenation, neighbouring slices of one value as one slice.
fn joined(r: &mut Rewriter<'_>, operands: Vec<Value>, axis: usize) -> Vec<Value> {
    let mut parts: Vec<Value> = vec![];
    for operand in operands {
        let both = parts.last().and_then(|&last| Some((section(r, last)?, section(r, operand)?)));
        match both {
            Some((first, second)) if first.continued_by(&second, axis) => {
                let Section { of, starts, dims } = first.with(&second, axis);
                parts.pop();
                parts.push(narrowed(r, of, starts, dims));
            }
            _ => parts.push(operand),
        }
    }
    parts
}

/// A slice without steps.
struct Section {
    of: Value,
    starts: Vec<usize>,
    dims: Vec<usize>,
}

impl Section {
    /// Whether `next` begins along `axis` where this one ends, and is the same along the other axes.
    fn continued_by(&self, next: &Section, axis: usize) -> bool {
        let mut starts = self.starts.clone();
        starts[axis] += self.dims[axis];
        self.of == next.of && starts == next.starts
    }

    /// Both as one.
    fn with(self, next: &Section, axis: usize) -> Section {
        let mut dims = self.dims;
        dims[axis] += next.dims[axis];
        Section { dims, ..self }
    }
}

fn section(r: &Rewriter<'_>, value: Value) -> Option<Section> {
    let node = &r.new.nodes[value];
    match &node.op {
        Op::Slice { starts, steps } if steps.iter().all(|&step| step == 1) => Some(Section {
            of: node.operands[0],
            starts: starts.clone(),
            dims: node.ty.dims.clone(),
        }),
        _ => None,
    }
}

/// Part of a value, or itself where that is all.
fn narrowed(r: &mut Rewriter<'_>, of: Value, starts: Vec<usize>, dims: Vec<usize>) -> Value {
    let node = &r.new.nodes[of];
    if node.ty.dims == dims {
        return of;
    }
    let (ty, origins, steps) =
        (node.ty.with_dims(dims), node.origins.clone(), vec![1; starts.len()]);
    r.push(Op::Slice { starts, steps }, vec![of], ty, origins)
}

/// The operands without broadcasts that the others make needless.
fn without_broadcasts(graph: &Graph, mut operands: Vec<Value>, dims: &[usize]) -> Vec<Value> {
    for i in 0..operands.len() {
        let node = &graph.nodes[operands[i]];
        if node.op != Op::Broadcast {
            continue;
        }
        let old = std::mem::replace(&mut operands[i], node.operands[0]);
        let left = operands.iter().try_fold(vec![], |d, &v| broadcast(&d, &graph.ty(v).dims));
        if left.as_deref() != Some(dims) {
            operands[i] = old;
        }
    }
    operands
}

/// `Map(Reshape(x), ..)` as `Reshape(Map(x, ..))`: where the reshape leaves the last axis alone, and
/// the other operands are as large as the result or broadcast along all axes but the last.
fn before_reshape(
    r: &mut Rewriter<'_>,
    expr: &Expr,
    operands: &[Value],
    old: Value,
) -> Option<Value> {
    let node = &r.old.nodes[old];
    let dims = &node.ty.dims;
    let last = *dims.last()?;
    let source = operands.iter().find_map(|&v| {
        let inner = &r.new.nodes[v];
        let kept = inner.op == Op::Reshape && inner.ty.dims == *dims;
        let source = *inner.operands.first()?;
        // Of a product, or of what was moved before: not of the model's own inputs.
        let made =
            !matches!(r.new.nodes[source].op, Op::Input { .. } | Op::Constant(_) | Op::Permute(_));
        (kept && made && r.new.ty(source).dims.last() == Some(&last)).then_some(source)
    })?;
    let target = r.new.ty(source).dims.clone();
    let mut moved = vec![];
    for &v in operands {
        let d = &r.new.ty(v).dims;
        let leading = d.len().saturating_sub(1);
        if d == dims {
            moved.push((v, target.clone()));
        } else if d[..leading] == dims[..dims.len() - 1] && d.last() == Some(&1) {
            let mut one_per_row = target.clone();
            *one_per_row.last_mut()? = 1;
            moved.push((v, one_per_row));
        } else if d[..leading].iter().all(|&d| d == 1)
            && d.last().is_none_or(|&d| d == last || d == 1)
        {
            moved.push((v, d.last().copied().into_iter().collect()));
        } else {
            return None;
        }
    }
    let mut new = vec![];
    for (v, dims) in moved {
        let ty = r.new.ty(v).with_dims(dims);
        new.push(reshape(r, v, &ty));
    }
    let ty = node.ty.with_dims(target);
    let origins = merged([node.origins.as_slice()]);
    let mapped = r.push(Op::Map(expr.clone()), new, ty, origins);
    Some(r.reshape(mapped, dims))
}

/// The reshape's operand, when `x` is a reshape that leaves the last axis alone and only that is
/// reduced.
fn rows_before_reshape(r: &mut Rewriter<'_>, x: Value, axes: &[usize]) -> Option<Value> {
    let node = &r.new.nodes[x];
    let last = node.ty.rank().checked_sub(1)?;
    if node.op != Op::Reshape || axes != [last] {
        return None;
    }
    let source = node.operands[0];
    let made =
        !matches!(r.new.nodes[source].op, Op::Input { .. } | Op::Constant(_) | Op::Permute(_));
    (made && r.new.ty(source).dims.last() == node.ty.dims.last()).then_some(source)
}
