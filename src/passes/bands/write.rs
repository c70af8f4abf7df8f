//! Writing a region band by band.

use super::super::rewrite::Rewriter;
use super::rows::{Axis, Source, computed, sources};
use super::{Cut, Overlap, Region};
use crate::mir::{Expr, Graph, Node, Op, Side, Value, Winograd};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// Rows of one node in one band.
#[derive(Clone, Debug)]
struct Part {
    /// Those that users read.
    needed: Range<usize>,
    /// Those of them that are computed in this band, the last ones. May be none.
    computed: Range<usize>,
}

/// The nodes that a band needs.
type Band = BTreeMap<Value, Part>;

/// Which rows of which nodes each band needs, of at most so many.
fn plan(
    graph: &Graph,
    cut: &Cut,
    sources: &BTreeMap<Value, Vec<Source>>,
    most: usize,
) -> Vec<Band> {
    let Region { sink, nodes } = &cut.region;
    let count = cut.region.rows(graph);
    let mut bands: Vec<Band> = vec![];
    let mut start = 0;
    while start < count && bands.len() < most {
        let rows = start..(start + cut.height.max(1)).min(count);
        let rows = computed(graph, *sink, nodes[sink], rows);
        start = rows.end;
        let mut needs = BTreeMap::from([(*sink, rows)]);
        let mut band = Band::new();
        while let Some((value, need)) = needs.pop_last() {
            let axis = nodes[&value];
            let needed = computed(graph, value, axis, need);
            let before = bands.last().and_then(|band| band.get(&value));
            let known = before.map(|part| &part.needed).filter(|known| {
                let follows = known.start <= needed.start && needed.start < known.end;
                cut.overlap == Overlap::Kept && follows && !graph.nodes[value].op.is_view()
            });
            let end = needed.end.max(known.map_or(0, |known| known.end));
            let part = Part {
                needed: needed.start..end,
                computed: known.map_or(needed.start, |known| known.end)..end,
            };
            if !part.computed.is_empty() {
                for (&operand, source) in graph.nodes[value].operands.iter().zip(&sources[&value]) {
                    let (Some(axis), &Source::Rows(_, window)) = (nodes.get(&operand), source)
                    else {
                        continue;
                    };
                    let rows = window.of(&part.computed, axis.count(graph.ty(operand)));
                    if !rows.is_empty() {
                        let need = needs.entry(operand).or_insert(rows.clone());
                        *need = need.start.min(rows.start)..need.end.max(rows.end);
                    }
                }
            }
            band.insert(value, part);
        }
        bands.push(band);
    }
    bands
}

/// See [`Cut::ahead`].
pub(super) fn ahead(graph: &Graph, cut: &Cut, leaf: Value) -> Option<u64> {
    let Region { sink, nodes } = &cut.region;
    let bytes = |value: Value, axis: Axis| {
        let ty = graph.ty(value);
        let is_outermost = ty.dims[..axis.axis].iter().all(|&d| d == 1);
        is_outermost.then(|| ty.bytes() / axis.count(ty).max(1))
    };
    let all: BTreeMap<Value, Vec<Source>> = nodes
        .iter()
        .map(|(&value, &axis)| (value, sources(graph, value, axis).unwrap_or_default()))
        .collect();
    let readers = nodes.keys().filter(|&&value| graph.nodes[value].operands.contains(&leaf));
    let readers: Vec<Value> = readers.copied().collect();
    let row = bytes(*sink, nodes[sink])?;
    let (mut written, mut ahead) = (0, 0);
    for band in plan(graph, cut, &all, usize::MAX) {
        let end = band.get(sink).map_or(written, |part| part.needed.end * row);
        for reader in &readers {
            let Some(part) = band.get(reader).filter(|part| !part.computed.is_empty()) else {
                continue;
            };
            let operands = graph.nodes[*reader].operands.iter().zip(&all[reader]);
            for (_, source) in operands.filter(|(operand, _)| **operand == leaf) {
                let &Source::Rows(axis, window) = source else { return None };
                let rows = window.of(&part.computed, axis.count(graph.ty(leaf)));
                // Who reads it and writes there must not do both at once.
                let before = if reader == sink { end } else { written };
                let read = rows.start * bytes(leaf, axis)?;
                ahead = before.saturating_sub(read).max(ahead);
            }
        }
        written = end;
    }
    Some(ahead as u64)
}

/// Appends the bands of a region, at most so many, and their result in the place of the sink. How many
/// nodes there are behind each band.
pub(super) fn bands(
    r: &mut Rewriter<'_>,
    from: &mut SecondaryMap<Value, Option<Value>>,
    cut: &Cut,
    most: usize,
) -> Vec<usize> {
    let graph = r.old;
    let Region { sink, nodes } = &cut.region;
    let sources: BTreeMap<Value, Vec<Source>> = nodes
        .iter()
        .map(|(&value, &axis)| (value, sources(graph, value, axis).unwrap_or_default()))
        .collect();
    let plan = plan(graph, cut, &sources, most);
    let mut last_read: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for (operand, user) in last_users(graph, &cut.region) {
        last_read.entry(user).or_default().push(operand);
    }
    let mut writer = Writer { r, from, cut, sources, parts: BTreeMap::new() };
    let (mut results, mut ends) = (vec![], vec![]);
    for (index, band) in plan.iter().enumerate() {
        for (&value, part) in band {
            writer.part(value, part);
            let Some(next) = plan.get(index + 1) else { continue };
            // As soon as a band has no more use for them, the rows for the next one are put aside.
            for &operand in last_read.get(&value).into_iter().flatten() {
                if let (Some(_), Some(next)) = (band.get(&operand), next.get(&operand)) {
                    writer.keep(operand, next);
                }
            }
        }
        for (&value, next) in plan.get(index + 1).into_iter().flatten() {
            writer.keep(value, next);
        }
        results.push(writer.parts[sink].0);
        ends.push(writer.r.new.nodes.len());
    }
    let Node { mut ty, origins, .. } = graph.nodes[*sink].clone();
    let whole = match results[..] {
        [only] => only,
        _ => {
            let axis = nodes[sink].axis;
            ty.dims[axis] = results.iter().map(|&part| writer.r.new.ty(part).dims[axis]).sum();
            let whole = writer.r.push(Op::Concat { axis }, results, ty, origins);
            writer.from[whole] = Some(*sink);
            whole
        }
    };
    writer.r.set(*sink, whole);
    ends
}

/// For every node of a region but the sink, the last one that reads it, through views or not.
fn last_users(graph: &Graph, region: &Region) -> BTreeMap<Value, Value> {
    let mut last: BTreeMap<Value, Value> = BTreeMap::new();
    for &value in region.nodes.keys().rev() {
        let node = &graph.nodes[value];
        let until = if node.op.is_view() { last.get(&value).copied() } else { None };
        let until = until.unwrap_or(value);
        for operand in node.operands.iter().filter(|v| region.nodes.contains_key(*v)) {
            let known = last.entry(*operand).or_insert(until);
            *known = until.max(*known);
        }
    }
    last
}

struct Writer<'r, 'g> {
    r: &'r mut Rewriter<'g>,
    from: &'r mut SecondaryMap<Value, Option<Value>>,
    cut: &'r Cut,
    sources: BTreeMap<Value, Vec<Source>>,
    /// What there is of every node, and which rows that is.
    parts: BTreeMap<Value, (Value, Range<usize>)>,
}

impl Writer<'_, '_> {
    fn push(&mut self, old: Value, op: Op, operands: Vec<Value>, rows: usize) -> Value {
        let node = &self.r.old.nodes[old];
        let axis = self.cut.region.nodes[&old];
        let mut ty = node.ty.clone();
        ty.dims[axis.axis] = rows * axis.unit;
        let new = self.r.push(op, operands, ty, node.origins.clone());
        self.from[new] = Some(old);
        new
    }

    /// Rows of a new value that has these rows of an old one.
    fn narrow(
        &mut self,
        value: Value,
        axis: Axis,
        has: &Range<usize>,
        rows: &Range<usize>,
    ) -> Value {
        let Axis { axis, unit } = axis;
        let old = self.from[value];
        let new = self.r.narrow(value, axis, (rows.start - has.start) * unit, rows.len() * unit);
        self.from[new] = old;
        new
    }

    /// What of a node a band needs, made of what was kept and what is computed now.
    fn part(&mut self, value: Value, part: &Part) {
        let axis = self.cut.region.nodes[&value];
        let kept = self.parts.remove(&value).filter(|_| part.needed.start < part.computed.start);
        let whole = if part.computed.is_empty() {
            kept.map(|(kept, _)| kept)
        } else {
            let new = self.compute(value, &part.computed);
            Some(match kept {
                Some((kept, _)) => {
                    let op = Op::Concat { axis: axis.axis };
                    self.push(value, op, vec![kept, new], part.needed.len())
                }
                None => new,
            })
        };
        let whole = whole.expect("what is not computed was kept");
        self.parts.insert(value, (whole, part.needed.clone()));
    }

    /// Puts the rows aside that the next band needs too.
    fn keep(&mut self, value: Value, next: &Part) {
        let Some((whole, has)) = self.parts.get(&value).cloned() else { return };
        let rows = next.needed.start..next.computed.start;
        if rows.is_empty() || has == rows {
            return;
        }
        let axis = self.cut.region.nodes[&value];
        let narrow = self.narrow(whole, axis, &has, &rows);
        let kept = if next.computed.is_empty() {
            narrow
        } else {
            let mut copy = Expr::new();
            copy.operand(0);
            self.push(value, Op::Map(copy), vec![narrow], rows.len())
        };
        self.parts.insert(value, (kept, rows));
    }

    /// Rows of a node, from the rows of its operands.
    fn compute(&mut self, value: Value, rows: &Range<usize>) -> Value {
        let graph = self.r.old;
        let node = &graph.nodes[value];
        let axis = self.cut.region.nodes[&value];
        let mut operands = vec![];
        // Of the first operand.
        let mut read = 0..0;
        for (index, &operand) in node.operands.iter().enumerate() {
            let Some(&source) = self.sources[&value].get(index) else { continue };
            let Source::Rows(at, window) = source else {
                operands.push(self.r.get(operand));
                continue;
            };
            let count = at.count(graph.ty(operand));
            let needed = window.of(rows, count);
            if index == 0 {
                read = needed.clone();
            }
            // A concatenation's operand that has no part in these rows.
            if needed.is_empty() {
                continue;
            }
            let (from, has) = match self.parts.get(&operand) {
                Some(part) => part.clone(),
                None => (self.r.get(operand), 0..count),
            };
            operands.push(self.narrow(from, at, &has, &needed));
        }
        let op = match (&node.op, &operands[..]) {
            (Op::Concat { axis: along }, &[only]) if *along == axis.axis => return only,
            _ => adapted(node, axis, rows, &read),
        };
        self.push(value, op, operands, rows.len())
    }
}

/// What computes some rows of a node from rows `read` of its first operand.
fn adapted(node: &Node, axis: Axis, rows: &Range<usize>, read: &Range<usize>) -> Op {
    let mut op = node.op.clone();
    match &mut op {
        // All of the border is along other axes where rows are longer than one element.
        Op::Pad { low, high, interior, .. } if axis.unit == 1 => {
            let at = axis.axis;
            let (before, block) = (low[at], interior[at] + 1);
            low[at] = (before + read.start * block).saturating_sub(rows.start);
            high[at] =
                rows.end.saturating_sub(before + read.end.max(1).saturating_sub(1) * block + 1);
        }
        Op::Slice { starts, .. } => starts[axis.axis] = 0,
        // Matrices are all alike.
        Op::Attention(attention) if axis.axis + 2 == node.ty.rank() => {
            attention.narrow(rows.start * axis.unit..rows.end * axis.unit);
        }
        Op::Winograd(Winograd { axes, side: Side::Input { before, tiles } }) => {
            before[0] = before[0].saturating_sub(rows.start * axes[0].step());
            tiles[0] = rows.len();
        }
        Op::Winograd(Winograd { axes, side: Side::Both { before, .. } }) if axis.axis == 1 => {
            before[0] = before[0].saturating_sub(rows.start * axes[0].stride);
        }
        Op::Input { .. }
        | Op::Constant(_)
        | Op::Map(_)
        | Op::Pad { .. }
        | Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::Rows(_)
        | Op::Contract(_)
        | Op::Attention(_)
        | Op::Conv(_)
        | Op::Winograd(Winograd { side: Side::Both { .. } | Side::Output { .. }, .. })
        | Op::Pool(_)
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::Sort { .. }
        | Op::Scan(_)
        | Op::Concat { .. }
        | Op::Reshape
        | Op::Permute(_)
        | Op::Broadcast => {}
    }
    op
}
