//! What each step of a model costs, in operations and bytes, and the table of where the time goes.

use rlx_aot::lir::{Module, Op, StepInfo};
use rlx_aot::types::printable;

/// Floating-point (or integer) operations of a step: two for each multiply-add.
pub(crate) fn operations(step: &StepInfo) -> u64 {
    let elements = step.result.elements() as u64;
    let of = |i: usize| step.operands.get(i).map_or(0, |a| a.elements() as u64);
    match &step.op {
        Op::Contract(_) => 2 * elements * step.operands[0].dims.last().copied().unwrap_or(0) as u64,
        Op::Conv(c) => {
            let channels = step.operands[0].dims.last().copied().unwrap_or(0) / c.groups.max(1);
            2 * elements * (c.taps.iter().product::<usize>() * channels) as u64
        }
        Op::Rows(rows) => {
            let domain = step.operands.iter().map(|a| a.elements()).max().unwrap_or(0) as u64;
            let per_element =
                |s: &rlx_aot::mir::Stage| s.expr.cost() + usize::from(s.reduce.is_some());
            domain.max(elements) * rows.stages.iter().map(per_element).sum::<usize>() as u64
        }
        Op::Reduce { .. } | Op::ArgReduce { .. } => of(0),
        Op::Pool(p) => elements * p.window.iter().product::<usize>() as u64,
        Op::Gather { .. } | Op::Move | Op::Fill(_) => 0,
    }
}

/// Bytes that a step reads and writes, each once.
pub(crate) fn traffic(step: &StepInfo) -> u64 {
    let size = |a: &rlx_aot::lir::Access| {
        let distinct = a
            .dims
            .iter()
            .zip(&a.strides)
            .filter(|&(_, &s)| s != 0)
            .map(|(&d, _)| d)
            .product::<usize>();
        (if a.is_empty() { 0 } else { distinct * a.dtype.bytes() }) as u64
    };
    let read = step.operands.iter().enumerate().map(|(i, a)| match (&step.op, i) {
        // Of a table only the rows that are picked.
        (Op::Gather { .. }, 0) => size(&step.result),
        _ => size(a),
    });
    read.sum::<u64>() + size(&step.result)
}

/// The kind of a step, in a word.
pub(crate) fn kind(op: &Op) -> &'static str {
    match op {
        Op::Rows(rows) if rows.stages.len() > 1 => "rows",
        Op::Rows(_) => "map",
        Op::Reduce { .. } => "reduce",
        Op::ArgReduce { .. } => "argreduce",
        Op::Contract(_) => "contract",
        Op::Conv(c) if c.groups > 1 => "conv/groups",
        Op::Conv(_) => "conv",
        Op::Pool(_) => "pool",
        Op::Gather { .. } => "gather",
        Op::Move => "move",
        Op::Fill(_) => "fill",
    }
}

/// One step's line.
#[derive(serde::Serialize)]
pub(crate) struct Row {
    step: usize,
    kind: &'static str,
    shape: String,
    us: f64,
    share: f64,
    gflops: f64,
    gbytes: f64,
    nodes: String,
}

/// A row for each step, the slowest first.
pub(crate) fn rows(module: &Module, times: &[f64]) -> Vec<Row> {
    let total: f64 = times.iter().sum();
    let row = |((i, step), &us): ((usize, &StepInfo), &f64)| {
        let per_second = |n: u64| if us > 0.0 { n as f64 / us / 1e3 } else { 0.0 };
        Row {
            step: i,
            kind: kind(&step.op),
            shape: step.result.ty().to_string(),
            us,
            share: if total > 0.0 { us / total } else { 0.0 },
            gflops: per_second(operations(step)),
            gbytes: per_second(traffic(step)),
            nodes: step.origins.iter().map(|n| printable(n)).collect::<Vec<_>>().join(" + "),
        }
    };
    let mut rows: Vec<Row> = module.steps.values().enumerate().zip(times).map(row).collect();
    rows.sort_by(|a, b| b.us.total_cmp(&a.us));
    rows
}

/// The table: the slowest steps, then the sums by kind.
pub(crate) fn table(rows: &[Row], most: usize) -> String {
    let mut text = format!(
        "{:>4}  {:<11} {:>9} {:>6} {:>8} {:>7}  {:<24} nodes\n",
        "step", "kind", "us", "share", "GFLOP/s", "GB/s", "result"
    );
    for r in rows.iter().take(most) {
        let nodes: String = if r.nodes.chars().count() > 60 {
            r.nodes.chars().take(57).chain("...".chars()).collect()
        } else {
            r.nodes.clone()
        };
        text += &format!(
            "{:>4}  {:<11} {:>9.2} {:>5.1}% {:>8.1} {:>7.1}  {:<24} {}\n",
            r.step,
            r.kind,
            r.us,
            100.0 * r.share,
            r.gflops,
            r.gbytes,
            r.shape,
            nodes
        );
    }
    if rows.len() > most {
        text += &format!("... {} more steps; --json lists all\n", rows.len() - most);
    }
    let mut kinds: std::collections::BTreeMap<&str, (usize, f64, f64)> =
        std::collections::BTreeMap::new();
    for r in rows {
        let sum = kinds.entry(r.kind).or_default();
        *sum = (sum.0 + 1, sum.1 + r.us, sum.2 + r.share);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    text += "\nkind         steps        us  share\n";
    for (kind, (steps, us, share)) in kinds {
        text += &format!("{kind:<11} {steps:>6} {us:>9.2} {:>5.1}%\n", 100.0 * share);
    }
    text
}
