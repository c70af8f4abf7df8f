//! Regions around the peak, and what each would need and cost.

use super::{Peak, Turn, cost};
use crate::lir::{BufferKind, StepInfo, schedule};
use crate::machine::Machine;
use crate::mir::{Graph, Op, Role, Value};
use crate::passes::bands::{Axis, Cut, Overlap, Region, alone, split};
use cranelift_entity::SecondaryMap;
use std::collections::{BTreeMap, BTreeSet};

/// So many nodes behind the peak's are tried as sinks.
const SINKS: usize = 40;

/// So many nodes before the peak's are tried as a region's first.
const STARTS: usize = 32;

/// So many regions are measured at each turn.
const MEASURED: usize = 60;

/// So many regions that fit are compared.
const FITTING: usize = 8;

/// Numbers of bands that are tried.
const BANDS: [usize; 17] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192];

/// A cut, what is expected of it.
pub(super) struct Candidate {
    pub(super) cut: Cut,
    /// Bytes that are alive at most while it is computed.
    pub(super) bytes: u64,
    /// Cycles that it costs.
    pub(super) cycles: f64,
}

/// Whether two cuts have nodes in common.
pub(super) fn meets(a: &Cut, b: &Cut) -> bool {
    a.region.nodes.keys().any(|value| b.region.nodes.contains_key(value))
}

/// The cheapest cut with which no more than `goal` bytes should be alive around the peak; where there is
/// none, the one that needs the fewest; `None` if no cut is expected to be of use.
pub(super) fn best(
    graph: &Graph,
    now: &Turn,
    peak: &Peak,
    machine: &Machine,
    goal: u64,
    tried: &[Cut],
) -> Option<Candidate> {
    let around = Around::new(graph, now, peak);
    let mut regions = around.regions();
    // What is there whole in any case comes first, then what is small.
    regions.retain(|(least, _)| *least < around.total);
    regions.sort_by_key(|(least, region)| ((*least).max(goal), region.nodes.len(), region.sink));
    let mut best: Option<Candidate> = None;
    let mut fitting = 0;
    for (_, region) in regions.into_iter().take(MEASURED) {
        if fitting >= FITTING {
            break;
        }
        for overlap in [Overlap::Kept, Overlap::Computed] {
            let Some(found) = around.measure(&region, overlap, machine, goal, tried) else {
                continue;
            };
            fitting += usize::from(found.bytes <= goal);
            let rank = |c: &Candidate| {
                let over = c.bytes.max(goal);
                (over, if over > goal { 0.0 } else { c.cycles })
            };
            let lower = |best: &Candidate| {
                let (a, b) = (rank(&found), rank(best));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).is_lt()
            };
            if best.as_ref().is_none_or(lower) {
                best = Some(found);
            }
        }
    }
    best
}

/// What is known about the peak.
struct Around<'a> {
    graph: &'a Graph,
    now: &'a Turn,
    /// Bytes that are alive.
    total: u64,
    /// Bytes of the buffers that are alive.
    alive: BTreeMap<crate::lir::Buffer, u64>,
    /// The buffers in which the node of the model's graph lies, in one piece or several.
    buffers: SecondaryMap<Value, Vec<crate::lir::Buffer>>,
    /// The nodes that are computed at the peak and those that they read, but for views.
    peak: BTreeSet<Value>,
    /// The nodes that depend on what is set for each run.
    varies: SecondaryMap<Value, bool>,
}

impl<'a> Around<'a> {
    fn new(graph: &'a Graph, now: &'a Turn, peak: &Peak) -> Around<'a> {
        let mut buffers: SecondaryMap<Value, Vec<_>> = SecondaryMap::new();
        let mut nodes: BTreeSet<Value> = BTreeSet::new();
        let step = peak.step.and_then(|step| now.module.steps.get(step));
        for (new, node) in &now.graph.nodes {
            let Some(old) = now.from[new] else { continue };
            if let Some(buffer) = now.traces[new]
                && !buffers[old].contains(&buffer)
            {
                buffers[old].push(buffer);
            }
            let origins = &now.graph.origins;
            let is_at = |step: &StepInfo| match step.origins[..] {
                [] => step.operands.iter().any(|a| now.traces[new] == Some(a.buffer)),
                _ => node.origins.iter().any(|&o| step.origins.contains(&origins[o])),
            };
            if step.is_some_and(is_at) {
                nodes.insert(old);
            }
        }
        let mut varies: SecondaryMap<Value, bool> = SecondaryMap::new();
        for (value, node) in &graph.nodes {
            varies[value] = matches!(node.op, Op::Input { role: Role::Input, .. })
                || node.operands.iter().any(|&operand| varies[operand]);
        }
        let mut around = Around {
            graph,
            now,
            total: peak.alive.iter().map(|(_, bytes)| bytes).sum(),
            alive: peak.alive.iter().copied().collect(),
            buffers,
            peak: BTreeSet::new(),
            varies,
        };
        for &value in &nodes {
            let node = &graph.nodes[value];
            for value in node.operands.iter().copied().chain([value]) {
                let root = around.root(value);
                around.peak.extend(around.is_computed(root).then_some(root));
            }
        }
        around
    }

    fn root(&self, mut value: Value) -> Value {
        while self.graph.nodes[value].op.is_view() {
            value = self.graph.nodes[value].operands[0];
        }
        value
    }

    fn is_computed(&self, value: Value) -> bool {
        let op = &self.graph.nodes[value].op;
        self.varies[value] && !op.is_view() && !matches!(op, Op::Input { .. })
    }

    /// Regions with nodes of the peak inside, and what each needs at least, since it is there whole.
    fn regions(&self) -> Vec<(u64, Region)> {
        let mut regions: Vec<(u64, Region)> = vec![];
        let (Some(&first), Some(&last)) = (self.peak.first(), self.peak.last()) else {
            return regions;
        };
        let behind = self.graph.nodes.keys().filter(|&value| value >= first);
        let sinks = behind.filter(|&value| {
            self.is_computed(value) && !matches!(self.graph.nodes[value].op, Op::Pad { .. })
        });
        let sinks: Vec<Value> = sinks.collect();
        let count = sinks.partition_point(|&sink| sink <= last) + SINKS;
        for sink in sinks.into_iter().take(count) {
            let dims = &self.graph.ty(sink).dims;
            let axes = (0..dims.len().saturating_sub(1)).filter(|&axis| dims[axis] > 1);
            for axis in axes {
                let axis = Axis { axis, unit: 1 };
                let outside = |value: Value| !self.varies[value];
                let Some(all) = Region::new(self.graph, sink, axis, outside) else { continue };
                let starts = all
                    .nodes
                    .keys()
                    .rev()
                    .filter(|&&value| value < sink && !self.graph.nodes[value].op.is_view());
                let mut starts: Vec<Value> = starts.copied().collect();
                let near = starts.iter().position(|value| self.peak.contains(value));
                let Some(near) = near else { continue };
                starts.drain(..near);
                starts.truncate(STARTS);
                for start in starts {
                    let region = all.from(start);
                    let whole = |cut: &Cut| {
                        cut.region.nodes.keys().all(|value| region.nodes.contains_key(value))
                    };
                    let apart = |cut: &Cut| {
                        !cut.region.nodes.keys().any(|value| region.nodes.contains_key(value))
                    };
                    if self.now.cuts.iter().all(|cut| whole(cut) || apart(cut)) {
                        regions.push((self.outside(&region), region));
                    }
                }
                break;
            }
        }
        regions
    }

    /// Bytes that are alive around a region, its leaves and its sink among them.
    fn outside(&self, region: &Region) -> u64 {
        let mut alive = self.alive.clone();
        for value in region.nodes.keys() {
            alive.retain(|buffer, _| !self.buffers[*value].contains(buffer));
        }
        let mut bytes = self.graph.ty(region.sink).bytes() as u64;
        let leaves: BTreeSet<Value> =
            region.leaves(self.graph).into_iter().map(|leaf| self.root(leaf)).collect();
        for leaf in leaves {
            let mut own = 0;
            for buffer in &self.buffers[leaf] {
                own = own.max(self.now.module.buffers[*buffer].bytes);
                if self.now.module.buffers[*buffer].kind == BufferKind::Input {
                    own = 0;
                } else {
                    alive.remove(buffer);
                }
            }
            bytes += own;
        }
        bytes + alive.values().sum::<u64>()
    }

    /// The fewest bands with which a region meets the goal, else those with which it needs least.
    fn measure(
        &self,
        region: &Region,
        overlap: Overlap,
        machine: &Machine,
        goal: u64,
        tried: &[Cut],
    ) -> Option<Candidate> {
        let (part, inner) = alone(self.graph, region);
        let outside = self.outside(region) - self.graph.ty(region.sink).bytes() as u64;
        let plain = cost::cycles(&part, machine);
        let rows = region.rows(self.graph);
        let mut best: Option<Candidate> = None;
        let mut worse = 0;
        let mut heights: Vec<usize> = BANDS.iter().map(|&bands| rows.div_ceil(bands)).collect();
        heights.dedup();
        for height in heights.into_iter().filter(|&height| height < rows) {
            let cut = Cut { region: region.clone(), height, overlap };
            if tried.contains(&cut) {
                continue;
            }
            let (banded, _) = split(&part, &[Cut { region: inner.clone(), height, overlap }]);
            let bytes = outside + schedule::estimate(&banded);
            let cycles = cost::cycles(&banded, machine) - plain;
            let is_better = best.as_ref().is_none_or(|best| bytes < best.bytes);
            worse = if is_better { 0 } else { worse + 1 };
            if is_better && bytes < self.total {
                best = Some(Candidate { cut, bytes, cycles });
            }
            if bytes <= goal || worse > 2 {
                break;
            }
        }
        best
    }
}
