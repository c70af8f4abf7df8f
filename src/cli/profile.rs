//! What each step of a model costs, in operations and bytes, and the table of where the time goes.

use super::calibrate::{Demand, Peaks};
use rlx_aot::lir::{Access, BufferKind, Module, Op, Side, StepInfo};
use rlx_aot::types::printable;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Floating-point (or integer) operations of a step: two for each multiply-add.
pub(crate) fn operations(step: &StepInfo) -> u64 {
    let elements = step.result.elements() as u64;
    let of = |i: usize| step.operands.get(i).map_or(0, |a| a.elements() as u64);
    match &step.op {
        Op::Contract(_) => 2 * elements * step.operands[0].dims.last().copied().unwrap_or(0) as u64,
        Op::Attention(a) => {
            let [depth, keys] = [0, 1].map(|i| step.operands[i].dims.last().copied().unwrap_or(0));
            let dims = &step.result.dims;
            let last = |n: usize| dims.len().checked_sub(n).map_or(1, |at| dims[at]);
            let (queries, width) = (last(2), last(1));
            let matrices = elements / (queries * width).max(1) as u64;
            let program: usize =
                a.rows.stages.iter().map(|s| s.expr.cost() + usize::from(s.reduce.is_some())).sum();
            matrices * a.pairs(queries, keys) as u64 * (2 * (width + depth) + program) as u64
        }
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
        // Both passes of a transformation, a few operations an element each.
        Op::Winograd(w) => match w.side {
            Side::Input { .. } | Side::Output { .. } => 4 * elements.max(of(0)),
            Side::Both { parts, .. } => {
                let last = |a: &Access| a.dims.last().copied().unwrap_or(0) as u64;
                let channels: u64 = step.operands[..parts].iter().map(last).sum();
                let [n, height, width] = [0, 1, 2].map(|axis| step.result.dims[axis]);
                let tiles = n * w.tiles([height, width]).iter().product::<usize>();
                let (points, outputs) = ((tiles * w.points()) as u64, last(&step.result));
                points * (2 * channels * outputs + 4 * (channels + outputs))
            }
        },
        Op::Pool(p) => elements * p.window.iter().product::<usize>() as u64,
        Op::Scatter { op: Some(_) } => of(2),
        Op::Sort { .. } | Op::Scan(_) => of(0),
        Op::Gather { .. } | Op::Scatter { op: None } | Op::Move | Op::Fill(_) => 0,
    }
}

/// What a step does at least: its operations, and every byte that it reads or writes once.
pub(crate) fn demand(module: &Module, step: &StepInfo) -> Demand {
    let written_bytes = size(&step.result);
    let mut demand = Demand { flops: operations(step), written_bytes, ..Demand::default() };
    for (i, access) in step.operands.iter().enumerate() {
        let bytes = match (&step.op, i) {
            // Of a table only the rows that are picked.
            (Op::Gather { .. }, 0) => written_bytes,
            _ => size(access),
        };
        match module.buffers[access.buffer].kind {
            BufferKind::Constant(_) => demand.constant_bytes += bytes,
            BufferKind::Input
            | BufferKind::Parameter
            | BufferKind::Output
            | BufferKind::State
            | BufferKind::Temporary => demand.read_bytes += bytes,
        }
    }
    demand
}

/// Bytes of the different elements that an access reaches.
fn size(access: &Access) -> u64 {
    let axes = access.dims.iter().zip(&access.strides).filter(|&(_, &stride)| stride != 0);
    let distinct = axes.map(|(&dim, _)| dim).product::<usize>();
    (if access.is_empty() { 0 } else { distinct * access.dtype.bytes() }) as u64
}

/// The kind of a step, in a word: where it makes a difference to what it costs, finer than its name.
pub(crate) fn kind(op: &Op) -> &'static str {
    if let Op::Rows(rows) = op
        && rows.stages.len() <= 1
    {
        "map"
    } else if let Op::Conv(conv) = op
        && conv.groups > 1
    {
        "conv/groups"
    } else {
        op.name()
    }
}

/// One step's line, or the sum of several.
#[derive(serde::Serialize, Clone, Debug)]
pub(crate) struct Row {
    pub(crate) step: usize,
    pub(crate) kind: &'static str,
    pub(crate) shape: String,
    pub(crate) us: f64,
    /// Microseconds that all threads together were at work in it.
    pub(crate) busy_us: f64,
    /// Of the time of all steps.
    pub(crate) share: f64,
    pub(crate) flops: u64,
    pub(crate) gflops: f64,
    pub(crate) bytes: u64,
    pub(crate) gbytes: f64,
    /// Microseconds that it takes at least on this machine.
    pub(crate) least_us: f64,
    /// That as a part of what it takes: 1 is as fast as the machine allows.
    pub(crate) peak: f64,
    pub(crate) nodes: String,
}

impl Row {
    /// Sets what follows from time, amounts and the time of all steps.
    fn rated(self, total: f64) -> Row {
        let part = |of: f64, all: f64| if all > 0.0 { of / all } else { 0.0 };
        Row {
            share: part(self.us, total),
            gflops: part(self.flops as f64, self.us * 1e3),
            gbytes: part(self.bytes as f64, self.us * 1e3),
            peak: part(self.least_us, self.us),
            ..self
        }
    }
}

/// A row for each step, in the order of the schedule: of each, how long it took and how long all threads
/// together were at work in it.
pub(crate) fn rows(module: &Module, times: &[(f64, f64)], peaks: &Peaks) -> Vec<Row> {
    let total: f64 = times.iter().map(|(us, _)| us).sum();
    let row = |((i, step), &(us, busy_us)): ((usize, &StepInfo), &(f64, f64))| {
        let demand = demand(module, step);
        Row {
            step: i,
            kind: kind(&step.op),
            shape: step.result.ty().to_string(),
            us,
            busy_us,
            share: 0.0,
            flops: demand.flops,
            gflops: 0.0,
            bytes: demand.constant_bytes + demand.read_bytes + demand.written_bytes,
            gbytes: 0.0,
            least_us: peaks.least_us(&demand, module.plan.weights_size),
            peak: 0.0,
            nodes: step.origins.iter().map(|n| printable(n)).collect::<Vec<_>>().join(" + "),
        }
        .rated(total)
    };
    module.steps.values().enumerate().zip(times).map(row).collect()
}

/// The sums by kind, the slowest first; their `step` is how many steps there are.
pub(crate) fn kinds(rows: &[Row]) -> Vec<Row> {
    let mut kinds: BTreeMap<&str, Row> = BTreeMap::new();
    for row in rows {
        let none = || Row {
            step: 0,
            us: 0.0,
            busy_us: 0.0,
            flops: 0,
            bytes: 0,
            least_us: 0.0,
            ..row.clone()
        };
        let sum = kinds.entry(row.kind).or_insert_with(none);
        sum.step += 1;
        sum.us += row.us;
        sum.busy_us += row.busy_us;
        sum.flops += row.flops;
        sum.bytes += row.bytes;
        sum.least_us += row.least_us;
    }
    let total = rows.iter().map(|row| row.us).sum();
    let mut kinds: Vec<Row> = kinds.into_values().map(|row| row.rated(total)).collect();
    kinds.sort_by(|a, b| b.us.total_cmp(&a.us));
    kinds
}

/// The table (of several threads, with how many of them were at work): what the machine can do, the slowest steps, and the sums by kind.
pub(crate) fn table(rows: &[Row], peaks: &Peaks, threads: u32, most: usize) -> String {
    let plural = if threads == 1 { "" } else { "s" };
    let mut text = format!("peaks of {threads} thread{plural}: {:.1} GFLOP/s", peaks.gflops);
    for level in &peaks.levels {
        let (read, write) = (level.read_gbytes, level.write_gbytes);
        text += &format!("; {} {read:.1} GB/s read, {write:.1} written", level.name);
    }
    let several = threads > 1;
    let heading = if several { format!(" {:>7}", "threads") } else { String::new() };
    text += &format!(
        "\n\n{:>4}  {:<11} {:>9} {:>6}{heading} {:>9} {:>8} {:>9} {:>7} {:>6}  {:<24} nodes\n",
        "step", "kind", "us", "share", "MFLOP", "GFLOP/s", "kB", "GB/s", "peak", "result"
    );
    let figures = |r: &Row| {
        let at_work = if r.us > 0.0 { r.busy_us / r.us } else { 0.0 };
        let at_work = if several { format!(" {at_work:>7.2}") } else { String::new() };
        format!(
            "{:<11} {:>9.2} {:>5.1}%{at_work} {:>9.3} {:>8.1} {:>9.1} {:>7.1} {:>5.1}%",
            r.kind,
            r.us,
            100.0 * r.share,
            r.flops as f64 / 1e6,
            r.gflops,
            r.bytes as f64 / 1e3,
            r.gbytes,
            100.0 * r.peak,
        )
    };
    let mut slowest: Vec<&Row> = rows.iter().collect();
    slowest.sort_by(|a, b| b.us.total_cmp(&a.us));
    for r in slowest.iter().take(most) {
        let nodes: String = if r.nodes.chars().count() > 60 {
            r.nodes.chars().take(57).chain("...".chars()).collect()
        } else {
            r.nodes.clone()
        };
        text += &format!("{:>4}  {}  {:<24} {nodes}\n", r.step, figures(r), r.shape);
    }
    if rows.len() > most {
        text += &format!("... {} more steps; --json lists all\n", rows.len() - most);
    }
    text += "\nby kind:\n";
    for r in &kinds(rows) {
        text += &format!("{:>4}  {}\n", r.step, figures(r));
    }
    text
}

/// The steps of one run as a trace for Chrome's `about:tracing` or Perfetto (complete events of the
/// Trace Event Format), one after the other.
pub(crate) fn trace(model: &str, rows: &[Row]) -> Value {
    let mut at = 0.0;
    let event = |row: &Row| {
        let start = at;
        at += row.us;
        let name = if row.nodes.is_empty() { row.kind } else { &row.nodes };
        json!({
            "name": name, "cat": row.kind, "ph": "X", "ts": start, "dur": row.us, "pid": 1, "tid": 1,
            "args": {
                "step": row.step, "busy_us": row.busy_us, "result": row.shape, "share": row.share, "flops": row.flops,
                "gflops": row.gflops, "bytes": row.bytes, "gbytes": row.gbytes,
                "least_us": row.least_us, "peak": row.peak,
            },
        })
    };
    let named = json!({
        "name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": { "name": printable(model) },
    });
    let mut events = vec![named];
    events.extend(rows.iter().map(event));
    json!({ "traceEvents": events, "displayTimeUnit": "ns" })
}
