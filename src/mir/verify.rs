//! What holds for every graph:
//!
//! 1. Operands come before their users; outputs and inputs exist; inputs are exactly the
//!    [`Op::Input`] nodes.
//! 2. Every kind has as many operands as it asks for, of the shapes and element types that it asks
//!    for, and the node's type is the one that follows.
//! 3. Windows, axes, permutations, slices and panels are in range.

use super::*;
use crate::types::{DType, broadcast};

/// Checks the graph.
///
/// # Errors
///
/// A line for each broken invariant.
pub fn verify(graph: &Graph) -> Result<(), Vec<String>> {
    let mut errors = vec![];
    for (value, node) in &graph.nodes {
        if node.operands.iter().any(|&o| o >= value) {
            errors.push(format!("{value} uses what is not defined before it"));
            continue;
        }
        let operands: Vec<&Type> = node.operands.iter().map(|&v| graph.ty(v)).collect();
        match result_type(&node.op, &operands, &node.ty) {
            Ok(ty) if ty == node.ty => {}
            Ok(ty) => {
                errors.push(format!("{value} = {} has type {}, and {ty} follows", node.op, node.ty))
            }
            Err(what) => {
                errors.push(format!("{value} = {}: {what}, of {}", node.op, list(&operands)))
            }
        }
    }
    let inputs: Vec<Value> = (graph.nodes.iter())
        .filter(|(_, n)| matches!(n.op, Op::Input { .. }))
        .map(|(v, _)| v)
        .collect();
    let mut listed = graph.inputs.clone();
    listed.sort_unstable();
    if listed != inputs {
        errors.push(format!("the inputs are {listed:?}, and the input nodes {inputs:?}"));
    }
    for output in &graph.outputs {
        if graph.nodes.get(output.value).is_none() {
            errors
                .push(format!("output {} is {}, which does not exist", output.name, output.value));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn list(types: &[&Type]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// The type that follows; `declared` is used where a kind leaves a choice (the dimensions of a
/// reshape, a slice or a broadcast).
fn result_type(op: &Op, operands: &[&Type], declared: &Type) -> Result<Type, String> {
    let count = match op {
        Op::Input { .. } | Op::Constant(_) => Some(0),
        Op::Map(_) | Op::Rows(_) | Op::Contract(_) | Op::Conv(_) | Op::Concat { .. } => None,
        Op::Attention(_) => None,
        Op::Winograd(Winograd { side: Side::Input { .. }, .. }) => Some(1),
        Op::Winograd(Winograd { side: Side::Output { .. } | Side::Both { .. }, .. }) => None,
        Op::Gather { .. } => Some(2),
        Op::Scatter { .. } => Some(3),
        Op::Sort { .. } | Op::Scan(_) => Some(1),
        Op::Reduce { .. } | Op::ArgReduce { .. } | Op::Pool(_) | Op::Pad { .. } => Some(1),
        Op::Reshape | Op::Permute(_) | Op::Slice { .. } | Op::Broadcast => Some(1),
    };
    if count.is_some_and(|n| n != operands.len()) {
        return Err(format!("{} operands", operands.len()));
    }
    match op {
        Op::Input { .. } => Ok(declared.clone()),
        Op::Constant(tensor) => Ok(tensor.ty().clone()),
        Op::Map(expr) => {
            let dtypes: Vec<_> = operands.iter().map(|t| t.dtype).collect();
            let dtype = expr.result_type(&dtypes).ok_or("the expression's types do not fit")?;
            Ok(Type::new(dtype, broadcast_all(operands)?))
        }
        Op::Reduce { op: _, axes } => {
            ensure(
                !axes.is_empty() && axes.windows(2).all(|w| w[0] < w[1]),
                "axes are not ascending",
            )?;
            keep(operands[0], axes, operands[0].dtype)
        }
        Op::ArgReduce { axis, .. } => {
            ensure(
                operands[0].dims.get(*axis).is_some_and(|&d| d > 0),
                "there is no element along the axis",
            )?;
            keep(operands[0], &[*axis], DType::I64)
        }
        Op::Rows(rows) => row_program(rows, operands, declared),
        Op::Contract(c) => contract(c, operands),
        Op::Attention(attention) => attended(attention, operands),
        Op::Conv(c) => conv(c, operands),
        Op::Winograd(w) => filtered(w, operands, declared),
        Op::Pool(p) => {
            let x = operands[0];
            ensure(x.rank() == p.window.len() + 2, "rank")?;
            spatial(x, &p.window, &p.strides, &p.dilations, x.dims[x.rank() - 1])
        }
        Op::Gather { axis } => {
            let (data, indices) = (operands[0], operands[1]);
            ensure(matches!(indices.dtype, DType::I32 | DType::I64), "indices are no i32 or i64")?;
            let extent = *data.dims.get(*axis).ok_or("axis is out of range")?;
            ensure(extent > 0 || indices.elements() == 0, "there is nothing to gather from")?;
            Ok(data
                .with_dims([&data.dims[..*axis], &indices.dims, &data.dims[*axis + 1..]].concat()))
        }
        Op::Scatter { op } => {
            let [data, indices, updates] = operands else { return Err("operands".into()) };
            ensure(matches!(indices.dtype, DType::I32 | DType::I64), "indices are no i32 or i64")?;
            let (&extent, rest) = data.dims.split_first().ok_or("rank")?;
            ensure(extent > 0 || indices.elements() == 0, "there is nothing to scatter to")?;
            let dims = [&indices.dims, rest].concat();
            ensure(**updates == Type::new(data.dtype, dims), "updates do not fit")?;
            ensure(op.is_none() || data.dtype != DType::Bool, "truth values are combined")?;
            Ok((*data).clone())
        }
        Op::Sort { count, .. } => {
            let mut ty = operands[0].with_dtype(DType::I64);
            let last = ty.dims.last_mut().ok_or("rank")?;
            ensure(*count > 0 && *count <= *last, "count")?;
            *last = *count;
            Ok(ty)
        }
        Op::Scan(scan) => {
            ensure(scan.axis < operands[0].rank(), "axis is out of range")?;
            ensure(operands[0].dtype != DType::Bool, "truth values are combined")?;
            Ok(operands[0].clone())
        }
        Op::Pad { low, high, interior, value } => {
            let mut ty = operands[0].clone();
            ensure([low, high, interior].iter().all(|p| p.len() == ty.rank()), "rank")?;
            ensure(value.dtype == ty.dtype, "the value has another element type")?;
            for (axis, d) in ty.dims.iter_mut().enumerate() {
                *d = *d + d.saturating_sub(1) * interior[axis] + low[axis] + high[axis];
            }
            Ok(ty)
        }
        Op::Concat { axis } => concat(*axis, operands),
        Op::Reshape => {
            ensure(operands[0].elements() == declared.elements(), "another number of elements")?;
            Ok(operands[0].with_dims(declared.dims.clone()))
        }
        Op::Permute(perm) => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            ensure(sorted.into_iter().eq(0..operands[0].rank()), "no permutation")?;
            Ok(operands[0].with_dims(perm.iter().map(|&p| operands[0].dims[p]).collect::<Vec<_>>()))
        }
        Op::Slice { starts, steps } => slice(starts, steps, operands[0], declared),
        Op::Broadcast => {
            let dims = broadcast(&operands[0].dims, &declared.dims);
            ensure(dims.as_ref() == Some(&declared.dims), "it does not broadcast")?;
            Ok(operands[0].with_dims(declared.dims.clone()))
        }
    }
}

fn broadcast_all(types: &[&Type]) -> Result<Vec<usize>, String> {
    types.iter().try_fold(vec![], |dims, t| {
        broadcast(&dims, &t.dims).ok_or("shapes do not broadcast".to_owned())
    })
}

fn keep(x: &Type, axes: &[usize], dtype: DType) -> Result<Type, String> {
    let mut ty = x.with_dtype(dtype);
    for &axis in axes {
        *ty.dims.get_mut(axis).ok_or("axis is out of range")? = 1;
    }
    Ok(ty)
}

fn row_program(rows: &Rows, operands: &[&Type], declared: &Type) -> Result<Type, String> {
    let mut dims = broadcast_all(operands)?;
    ensure(!rows.stages.is_empty(), "there is no stage")?;
    ensure(dims.last().is_some_and(|&d| d == rows.width || d == 1), "the row has another width")?;
    *dims.last_mut().ok_or("a domain has a row")? = rows.width;
    let mut dtypes: Vec<_> = operands.iter().map(|t| t.dtype).collect();
    for stage in &rows.stages {
        dtypes.push(stage.expr.result_type(&dtypes).ok_or("a stage's types do not fit")?);
    }
    if rows.stages.last().is_some_and(|s| s.reduce.is_some()) {
        *dims.last_mut().ok_or("a domain has a row")? = 1;
    }
    // Leading axes of extent 1 may be added by what was fused.
    let dtype = dtypes.last().copied().unwrap_or(declared.dtype);
    Ok(Type::new(dtype, dims))
}

fn finished(epilogue: Option<&Expr>, sums: Type, extra: &[&Type]) -> Result<Type, String> {
    let Some(expr) = epilogue else {
        return ensure(extra.is_empty(), "operands without an epilogue").map(|()| sums);
    };
    let dtypes: Vec<_> = [sums.dtype].into_iter().chain(extra.iter().map(|t| t.dtype)).collect();
    let dtype = expr.result_type(&dtypes).ok_or("the epilogue's types do not fit")?;
    let dims = extra.iter().try_fold(sums.dims.clone(), |d, t| {
        broadcast(&d, &t.dims).ok_or("the epilogue's shapes")
    })?;
    ensure(dims == sums.dims, "the epilogue makes it larger")?;
    Ok(Type::new(dtype, dims))
}

fn contract(c: &Contract, operands: &[&Type]) -> Result<Type, String> {
    let [a, b, extra @ ..] = operands else { return Err("less than two operands".into()) };
    ensure(a.rank() >= 2, "rank")?;
    let dtype = sums(a.dtype, b.dtype).ok_or("element types")?;
    let rank = a.rank();
    let (batch, m, k) = (&a.dims[..rank - 2], a.dims[rank - 2], a.dims[rank - 1]);
    let of_words = matches!(c.weights, Weights::Nibbles { .. });
    ensure((b.dtype == DType::I32 && a.dtype == DType::F32) == of_words, "words of numbers")?;
    let n = match c.weights {
        Weights::Nibbles { width, columns, blocks } => {
            ensure(rank == 2 && width > 0 && blocks.is_possible(), "blocks")?;
            let dims = [columns.div_ceil(width), blocks.words(k), width];
            ensure(b.dims == dims, "words do not fit A")?;
            columns
        }
        Weights::Plain => {
            ensure(
                b.rank() == rank && b.dims[..rank - 1] == *[batch, &[k]].concat(),
                "B does not fit A",
            )?;
            b.dims[rank - 1]
        }
        Weights::Panels { width, columns } => {
            ensure(width > 0, "panels without columns")?;
            let panels = columns.div_ceil(width);
            ensure(b.dims == [batch, &[panels, k, width]].concat(), "panels do not fit A")?;
            columns
        }
        Weights::Quads { width, columns, run } => {
            ensure(dtype == DType::I32 && width > 0 && run > 0 && run == k, "fours")?;
            let dims = [columns.div_ceil(width), quads::fours(run), width, 4];
            ensure(b.dims == [batch, &dims].concat(), "fours do not fit A")?;
            columns
        }
    };
    let sums = Type::new(dtype, [batch, &[m, n]].concat());
    finished(c.epilogue.as_ref(), sums, extra)
}

fn attended(attention: &Attention, operands: &[&Type]) -> Result<Type, String> {
    let [q, k, v, extra @ ..] = operands else { return Err("less than three operands".into()) };
    ensure([q, k, v].iter().all(|t| t.dtype == DType::F32), "element types")?;
    let product = Contract { epilogue: attention.epilogue.clone(), ..Contract::of(Weights::Plain) };
    let scores = contract(&product, &[&[*q, *k], extra].concat())?;
    let rows = row_program(&attention.rows, &[&scores], &scores)?;
    ensure(rows == scores && rows.dtype == DType::F32, "the rows are no rows of scores")?;
    let [.., queries, keys] = scores.dims[..] else { return Err("scores have two axes".into()) };
    let mut seen = 0;
    for span in &attention.spans {
        ensure(span.queries > seen, "spans are not in order")?;
        ensure(!span.keys.is_empty() && span.keys.end <= keys, "keys of a span")?;
        seen = span.queries;
    }
    let all = attention.spans.is_empty() || seen == queries && attention.rows.softmax().is_some();
    ensure(all, "spans of no softmax, or not of all queries")?;
    contract(&Contract::of(Weights::Plain), &[&rows, v])
}

fn conv(c: &Conv, operands: &[&Type]) -> Result<Type, String> {
    let [x, w, extra @ ..] = operands else { return Err("less than two operands".into()) };
    let spatial_axes = c.taps.len();
    ensure(x.rank() == spatial_axes + 2, "rank")?;
    let dtype = sums(x.dtype, w.dtype).filter(|_| w.dtype != DType::I32 || x.dtype == w.dtype);
    let dtype = dtype.ok_or("element types")?;
    let channels = x.dims[spatial_axes + 1];
    ensure(c.groups > 0 && channels % c.groups == 0, "groups")?;
    let per_group = channels / c.groups;
    let outputs = match c.weights {
        Weights::Plain => {
            ensure(w.rank() == spatial_axes + 2, "rank of W")?;
            ensure(
                w.dims[..spatial_axes] == c.taps && w.dims[spatial_axes] == per_group,
                "W does not fit X",
            )?;
            w.dims[spatial_axes + 1]
        }
        Weights::Panels { width, columns } => {
            let depth = c.taps.iter().product::<usize>() * per_group;
            ensure(
                width > 0 && w.dims == [c.groups, columns.div_ceil(width), depth, width],
                "panels do not fit X",
            )?;
            columns * c.groups
        }
        Weights::Quads { width, columns, run } => {
            let depth = c.taps.iter().product::<usize>() * per_group;
            ensure(dtype == DType::I32 && width > 0 && c.has_runs_of(run, per_group), "fours")?;
            let fours = depth / run * quads::fours(run);
            let dims = [c.groups, columns.div_ceil(width), fours, width, 4];
            ensure(w.dims == dims, "fours do not fit X")?;
            columns * c.groups
        }
        Weights::Nibbles { .. } => return Err("a convolution by words".into()),
    };
    ensure(outputs % c.groups == 0, "groups")?;
    let sums = spatial(x, &c.taps, &c.strides, &c.dilations, outputs)?.with_dtype(dtype);
    finished(c.epilogue.as_ref(), sums, extra)
}

/// A side of a convolution by minimal filtering.
fn filtered(w: &Winograd, operands: &[&Type], declared: &Type) -> Result<Type, String> {
    let Some((&first, extra)) = operands.split_first() else { return Err("no operands".into()) };
    ensure(first.dtype == DType::F32 && w.is_known(), "element type or tile")?;
    match &w.side {
        Side::Input { before, tiles } => {
            ensure(first.rank() == 4, "rank")?;
            ensure((0..2).all(|i| before[i] < w.axes[i].points()), "a tile of zeros")?;
            let count = first.dims[0] * tiles[0] * tiles[1];
            Ok(first.with_dims([w.points(), count, first.dims[3]]))
        }
        Side::Output { epilogue } => {
            ensure(first.rank() == 3 && declared.rank() == 4, "rank")?;
            let [n, h, width, k] = [0, 1, 2, 3].map(|axis| declared.dims[axis]);
            let count = n * w.tiles([h, width]).iter().product::<usize>();
            ensure(first.dims == [w.points(), count, k], "tiles")?;
            finished(epilogue.as_ref(), first.with_dims(declared.dims.clone()), extra)
        }
        Side::Both { before, parts, block, shares, width, epilogue } => {
            ensure(*parts > 0 && operands.len() > *parts, "parts")?;
            ensure(!block.contains(&0) && *shares > 0 && *width > 0, "blocks")?;
            ensure(declared.rank() == 4, "rank")?;
            ensure((0..2).all(|i| before[i] < w.axes[i].points()), "a tile of zeros")?;
            let (inputs, rest) = operands.split_at(*parts);
            let fits = |x: &&Type| {
                x.dtype == DType::F32
                    && x.rank() == 4
                    && x.dims[0] == declared.dims[0]
                    && x.dims[1..3] == first.dims[1..3]
            };
            ensure(inputs.iter().all(fits), "inputs")?;
            let channels = inputs.iter().map(|x| x.dims[3]).sum();
            let panels = declared.dims[3].div_ceil(*width);
            let expected = [w.points(), panels, channels, *width];
            ensure(rest[0].dtype == DType::F32 && rest[0].dims == expected, "weights")?;
            finished(epilogue.as_ref(), first.with_dims(declared.dims.clone()), &rest[1..])
        }
    }
}

fn spatial(
    x: &Type,
    window: &[usize],
    strides: &[usize],
    dilations: &[usize],
    channels: usize,
) -> Result<Type, String> {
    let all = window.iter().chain(strides).chain(dilations);
    ensure(
        strides.len() == window.len()
            && dilations.len() == window.len()
            && all.clone().all(|&n| n > 0),
        "windows",
    )?;
    let mut ty = x.clone();
    for i in 0..window.len() {
        ty.dims[i + 1] = windows(x.dims[i + 1], window[i], strides[i], dilations[i]);
    }
    ty.dims[window.len() + 1] = channels;
    Ok(ty)
}

fn concat(axis: usize, operands: &[&Type]) -> Result<Type, String> {
    let [first, rest @ ..] = operands else { return Err("no operands".into()) };
    ensure(axis < first.rank(), "axis is out of range")?;
    let mut ty = (*first).clone();
    for other in rest {
        let mut dims = other.dims.clone();
        ensure(
            dims.len() == ty.rank() && other.dtype == ty.dtype,
            "ranks or element types differ",
        )?;
        let extent = std::mem::replace(&mut dims[axis], first.dims[axis]);
        ensure(dims == first.dims, "dimensions differ")?;
        ty.dims[axis] += extent;
    }
    Ok(ty)
}

fn slice(starts: &[usize], steps: &[i64], x: &Type, declared: &Type) -> Result<Type, String> {
    ensure([starts.len(), steps.len(), declared.rank()].iter().all(|&n| n == x.rank()), "rank")?;
    for axis in 0..x.rank() {
        let (extent, count) = (x.dims[axis] as i64, declared.dims[axis] as i64);
        let last = starts[axis] as i64 + (count - 1) * steps[axis];
        let inside = count == 0
            || (0..extent).contains(&(starts[axis] as i64)) && (0..extent).contains(&last);
        ensure(inside && steps[axis] != 0, "it leaves the operand")?;
    }
    Ok(x.with_dims(declared.dims.clone()))
}
