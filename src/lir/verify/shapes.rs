//! Invariant 2: what each kind asks of its accesses.

use super::*;
use crate::mir::quads;

/// Invariant 2.
pub(super) fn shapes(info: &StepInfo) -> Result<(), String> {
    let StepInfo { op, operands, scratch, result, .. } = info;
    let count = |n: usize| match operands.len() {
        have if have == n => Ok(()),
        have => Err(format!("{have} operands for {n}")),
    };
    let holds = |what: bool, text: &str| {
        if what { Ok(()) } else { Err(format!("{text}: {} to {result}", list(operands))) }
    };
    let types: Vec<Type> = operands.iter().map(Access::ty).collect();
    let all_of_one_type = |list: &[Access]| list.iter().all(|a| a.dtype == result.dtype);
    match op {
        Op::Rows(rows) => rows_shapes(rows, operands, result),
        Op::Reduce { axes, .. } => {
            count(1)?;
            let mut dims = operands[0].dims.clone();
            holds(axes.iter().all(|&axis| axis < dims.len()), "axes")?;
            axes.iter().for_each(|&axis| dims[axis] = 1);
            holds(dims == result.dims && all_of_one_type(operands), "reduced dimensions")
        }
        Op::ArgReduce { axis, .. } => {
            count(1)?;
            let mut dims = operands[0].dims.clone();
            *dims.get_mut(*axis).ok_or("an axis that is not there")? = 1;
            holds(dims == result.dims && result.dtype == DType::I64, "reduced dimensions")
        }
        Op::Contract(Contract { weights, epilogue, backwards: _, rides: _ }) => {
            holds(operands.len() >= 2 && result.dims.len() >= 2, "a matrix product")?;
            let (a, b, rank) = (&operands[0].dims, &operands[1].dims, result.dims.len());
            let (batch, m, n) =
                (&result.dims[..rank - 2], result.dims[rank - 2], result.dims[rank - 1]);
            holds(a.len() == rank && a[..rank - 2] == *batch && a[rank - 2] == m, "rows")?;
            let k = a[rank - 1];
            let expected = match *weights {
                Weights::Plain => [batch, &[k, n]].concat(),
                Weights::Panels { width, columns } => {
                    holds(columns == n && width > 0, "columns")?;
                    [batch, &[n.div_ceil(width), k, width]].concat()
                }
                Weights::Nibbles { width, columns, blocks } => {
                    let possible = batch.is_empty() && blocks.is_possible();
                    holds(columns == n && width > 0 && possible, "columns")?;
                    holds(operands[0].dtype == DType::F32, "words of numbers")?;
                    vec![n.div_ceil(width), blocks.words(k), width]
                }
                Weights::Quads { width, columns, run } => {
                    holds(columns == n && width > 0 && run == k && run > 0, "columns")?;
                    [batch, &[n.div_ceil(width), quads::fours(run), width, 4]].concat()
                }
            };
            holds(b[..] == expected, "the second operand")?;
            epilogue_shapes(epilogue.as_ref(), operands, result)
        }
        Op::Attention(attention) => {
            holds(operands.len() >= 3 && result.dims.len() >= 2, "attention")?;
            let scores = attention_shapes(attention, operands, result)?;
            holds(scores, "attention")
        }
        Op::Conv(conv) => conv_shapes(conv, operands, result),
        Op::Winograd(w) => winograd_shapes(w, operands, result),
        Op::Pool(Pool { window, strides, dilations, .. }) => {
            count(1)?;
            let spatial = spatial(&operands[0].dims, window, strides, dilations);
            holds(
                spatial.is_some_and(|(spatial, n, c)| {
                    [&[n], &spatial[..], &[c]].concat() == result.dims[..]
                }) && all_of_one_type(operands),
                "windows",
            )
        }
        Op::Gather { axis, known } => {
            count(2)?;
            let (data, indices) = (&operands[0], &operands[1]);
            holds(*axis < data.dims.len(), "an axis that is not there")?;
            let dims = [&data.dims[..*axis], &indices.dims, &data.dims[axis + 1..]].concat();
            let index = matches!(indices.dtype, DType::I32 | DType::I64);
            holds(
                dims == result.dims[..] && data.dtype == result.dtype && index,
                "gathered dimensions",
            )?;
            let extent = data.dims[*axis];
            let fits = known.as_ref().is_none_or(|known| {
                known.len() == indices.elements()
                    && known.iter().all(|&place| (place as usize) < extent)
                    && *axis + 1 == data.dims.len()
            });
            holds(fits, "places that are known")?;
            holds(result.is_empty() || extent > 0, "nothing to gather from")
        }
        Op::Scatter { op } => {
            count(3)?;
            let (data, indices, updates) = (&operands[0], &operands[1], &operands[2]);
            holds(!data.dims.is_empty(), "a first axis")?;
            let index = matches!(indices.dtype, DType::I32 | DType::I64);
            let combined = op.is_none() || result.dtype != DType::Bool;
            let fits = updates.dims[..] == [&indices.dims, &data.dims[1..]].concat();
            let typed = data.dtype == result.dtype && updates.dtype == result.dtype;
            let fits = fits && typed && data.dims == result.dims && index && combined;
            holds(fits, "scattered dimensions")?;
            holds(updates.is_empty() || data.dims[0] > 0, "nothing to scatter to")
        }
        Op::Sort { count: wanted, .. } => {
            count(1)?;
            let mut dims = operands[0].dims.clone();
            let last = dims.last_mut().ok_or("a row that is not there")?;
            holds(*wanted > 0 && wanted <= last, "places of a row")?;
            *last = *wanted;
            holds(dims == result.dims && result.dtype == DType::I64, "sorted dimensions")
        }
        Op::Scan(scan) => {
            count(1)?;
            holds(scan.axis < result.dims.len(), "an axis that is not there")?;
            holds(
                operands[0].dims == result.dims && all_of_one_type(operands),
                "scanned dimensions",
            )
        }
        Op::Move => {
            count(1)?;
            holds(operands[0].dims == result.dims && all_of_one_type(operands), "moved dimensions")
        }
        Op::Fill(literal) => {
            count(0)?;
            holds(literal.dtype == result.dtype, "the value's type")
        }
    }?;
    // What it is made of is right by now.
    let fits = match (op.scratch(&types, &result.dims), scratch) {
        (Some(needed), Some(scratch)) => {
            scratch.dims[..] == needed && scratch.is_dense() && scratch.dtype == DType::F32
        }
        (needed, scratch) => needed.is_none() && scratch.is_none(),
    };
    holds(fits, "its scratch")
}

pub(super) fn rows_shapes(rows: &Rows, operands: &[Access], result: &Access) -> Result<(), String> {
    let Some(last) = rows.stages.last() else { return Err("no stages".to_owned()) };
    let mut domain = result.dims.clone();
    match domain.last_mut() {
        Some(width) if *width == rows.width || last.reduce.is_some() && *width == 1 => {
            *width = rows.width;
        }
        width => return Err(format!("rows of {} in a result of {width:?}", rows.width)),
    }
    if let Some(other) = operands.iter().find(|a| a.dims != domain) {
        return Err(format!("{other} in a domain of {domain:?}"));
    }
    let mut types: Vec<DType> = operands.iter().map(|a| a.dtype).collect();
    for stage in &rows.stages {
        types.push(stage.expr.result_type(&types).ok_or("the types in a stage")?);
    }
    if types.last() != Some(&result.dtype) {
        return Err(format!("{:?} is stored as {}", types.last(), result.dtype));
    }
    Ok(())
}

/// Whether the operands and the result of attention fit.
pub(super) fn attention_shapes(
    attention: &Attention,
    operands: &[Access],
    result: &Access,
) -> Result<bool, String> {
    let [q, k, v, extra @ ..] = operands else { return Ok(false) };
    let rank = result.dims.len();
    if [q, k, v].iter().any(|a| a.dims.len() != rank || a.dtype != DType::F32) {
        return Ok(false);
    }
    let (batch, m, e) = (&result.dims[..rank - 2], result.dims[rank - 2], result.dims[rank - 1]);
    let (n, d) = (k.dims[rank - 1], q.dims[rank - 1]);
    let fits = q.dims[..] == [batch, &[m, d]].concat()
        && k.dims[..] == [batch, &[d, n]].concat()
        && v.dims[..] == [batch, &[n, e]].concat()
        && attention.rows.width == n;
    let scores = Access { dims: [batch, &[m, n]].concat().into(), ..result.clone() };
    finished_shapes(attention.epilogue.as_ref(), DType::F32, extra, &scores)?;
    rows_shapes(&attention.rows, std::slice::from_ref(&scores), &scores)?;
    Ok(fits && attention.rows.stages.last().is_some_and(|last| last.reduce.is_none()))
}

pub(super) fn list(accesses: &[Access]) -> String {
    accesses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The spatial extents of a windowed result, and the first and last extent of its operand.
pub(super) fn spatial(
    dims: &[usize],
    window: &[usize],
    strides: &[usize],
    dilations: &[usize],
) -> Option<(Vec<usize>, usize, usize)> {
    let (&batch, &channels) = (dims.first()?, dims.last()?);
    let inner = dims.get(1..dims.len() - 1)?;
    let rank = inner.len();
    let in_range = |list: &&[usize]| list.iter().all(|n| (1..=1 << 30).contains(n));
    let fits = [window, strides, dilations].iter().all(|l| l.len() == rank && in_range(l));
    let extent = |i: usize| windows(inner[i], window[i], strides[i], dilations[i]);
    fits.then(|| ((0..rank).map(extent).collect(), batch, channels))
}

pub(super) fn conv_shapes(conv: &Conv, operands: &[Access], result: &Access) -> Result<(), String> {
    let Conv { taps, strides, dilations, groups, weights, epilogue } = conv;
    let (Some(x), Some(w), Some(&k)) = (operands.first(), operands.get(1), result.dims.last())
    else {
        return Err("a convolution has two operands".to_owned());
    };
    let Some((spatial, n, c)) = spatial(&x.dims, taps, strides, dilations) else {
        return Err(format!("windows of {taps:?} in {x}"));
    };
    if [&[n], &spatial[..], &[k]].concat() != result.dims[..]
        || *groups == 0
        || k % groups != 0
        || c % groups != 0
    {
        return Err(format!("{result} from {x} with {groups} groups"));
    }
    let expected = match *weights {
        Weights::Plain => [&taps[..], &[c / groups, k]].concat(),
        Weights::Panels { width, columns } if width > 0 && columns == k / groups => {
            let all: usize = taps.iter().product();
            vec![*groups, columns.div_ceil(width), all * (c / groups), width]
        }
        Weights::Quads { width, columns, run }
            if width > 0 && columns == k / groups && conv.has_runs_of(run, c / groups) =>
        {
            let all = taps.iter().product::<usize>() * (c / groups);
            let fours = all / run * quads::fours(run);
            vec![*groups, columns.div_ceil(width), fours, width, 4]
        }
        Weights::Panels { .. } | Weights::Quads { .. } | Weights::Nibbles { .. } => {
            return Err(format!("{weights} of {k} channels"));
        }
    };
    if w.dims[..] != expected {
        return Err(format!("weights {w}, not {expected:?}"));
    }
    epilogue_shapes(epilogue.as_ref(), operands, result)
}

pub(super) fn winograd_shapes(
    w: &Winograd,
    operands: &[Access],
    result: &Access,
) -> Result<(), String> {
    let Some((first, extra)) = operands.split_first() else {
        return Err("a transformation has an operand".to_owned());
    };
    if first.dtype != DType::F32 || !w.is_known() {
        return Err(format!("tiles of {:?} in {first}", w.axes));
    }
    let points = w.points();
    let outside = |before: &[usize; 2]| (0..2).any(|i| before[i] >= w.axes[i].points());
    if let Side::Both { before, parts, block, shares, width, epilogue } = &w.side {
        let (Some(inputs), Some(weights), [n, _, _, k]) =
            (operands.get(..*parts), operands.get(*parts), &result.dims[..])
        else {
            return Err(format!("{} operands for {parts} parts to {result}", operands.len()));
        };
        let alike = inputs.iter().all(|x| {
            x.dtype == DType::F32
                && x.dims.len() == 4
                && x.dims[0] == *n
                && x.dims[1..3] == first.dims[1..3]
        });
        if !alike || *parts == 0 || *shares == 0 || block.contains(&0) || outside(before) {
            return Err(format!("{before:?} before, blocks of {block:?}: {}", list(inputs)));
        }
        let channels = inputs.iter().map(|x| x.dims[3]).sum();
        let fits = |w: usize| weights.dims[..] == [points, k.div_ceil(w), channels, w];
        if *width == 0 || !fits(*width) || weights.dtype != DType::F32 {
            return Err(format!("weights {weights} in panels of {width}"));
        }
        return finished_shapes(epilogue.as_ref(), DType::F32, &operands[parts + 1..], result);
    }
    let (transformed, image, tiles) = match &w.side {
        Side::Input { before, tiles } => {
            if !extra.is_empty() || outside(before) {
                return Err(format!("{} operands, {before:?} before", operands.len()));
            }
            (result, first, Some(*tiles))
        }
        Side::Output { .. } | Side::Both { .. } => (first, result, None),
    };
    let [n, h, width, c] = image.dims[..] else {
        return Err(format!("{image} has no two spatial axes"));
    };
    let tiles = tiles.unwrap_or_else(|| w.tiles([h, width]));
    if transformed.dims[..] != [points, n * tiles[0] * tiles[1], c] {
        return Err(format!("{transformed} for {tiles:?} tiles of {image}"));
    }
    let epilogue = match &w.side {
        Side::Input { .. } => None,
        Side::Output { epilogue } | Side::Both { epilogue, .. } => epilogue.as_ref(),
    };
    finished_shapes(epilogue, first.dtype, extra, result)
}

pub(super) fn epilogue_shapes(
    epilogue: Option<&crate::mir::Expr>,
    operands: &[Access],
    result: &Access,
) -> Result<(), String> {
    let Some(sums) = crate::mir::sums(operands[0].dtype, operands[1].dtype) else {
        return Err(format!("{} and {} are multiplied", operands[0].dtype, operands[1].dtype));
    };
    finished_shapes(epilogue, sums, &operands[2..], result)
}

/// An epilogue after sums of this type, with its operands.
pub(super) fn finished_shapes(
    epilogue: Option<&crate::mir::Expr>,
    sums: DType,
    extra: &[Access],
    result: &Access,
) -> Result<(), String> {
    if let Some(other) = extra.iter().find(|a| a.dims != result.dims) {
        return Err(format!("{other} in the epilogue of {result}"));
    }
    let types: Vec<DType> = [sums].into_iter().chain(extra.iter().map(|a| a.dtype)).collect();
    let ty = match epilogue {
        Some(expr) => expr.result_type(&types),
        None if !extra.is_empty() => return Err("operands of no epilogue".to_owned()),
        None => Some(types[0]),
    };
    match ty {
        Some(ty) if ty == result.dtype => Ok(()),
        ty => Err(format!("{ty:?} is stored as {}", result.dtype)),
    }
}
