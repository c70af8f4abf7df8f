//! Regions around the peak, and what each would need and cost.

use super::sketch::Sketcher;
use super::{Aim, Peak, Turn};
use crate::lir::Buffer;
use crate::machine::Machine;
use crate::mir::{Graph, Op, Role, Value};
use crate::passes::bands::{Axis, Cut, Overlap, Region};
use cranelift_entity::SecondaryMap;
use std::collections::{BTreeMap, BTreeSet};

/// How far is looked for regions.
struct Reach {
    /// So many nodes behind the peak's are tried as sinks.
    behind: usize,
    /// So many sinks are tried even if less is needed with one before.
    near: usize,
    /// A region begins at most so many nodes before the peak's.
    before: u32,
    /// So many nodes are in a region at most.
    nodes: usize,
    /// So many regions are measured at each time.
    measured: usize,
    /// So many regions that fit are compared.
    fitting: usize,
}

/// For an arena that was asked for.
const FAR: Reach =
    Reach { behind: 120, near: 4, before: 200, nodes: 400, measured: 40, fitting: 8 };

/// For one that is as small as it can be for nothing.
const NEAR: Reach = Reach { behind: 40, near: 4, before: 80, nodes: 140, measured: 10, fitting: 4 };

/// Numbers of bands that are tried.
const BANDS: [usize; 17] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192];

/// A cut, and what is expected of it.
struct Candidate {
    cut: Cut,
    /// Bytes that are alive at most while it is computed.
    bytes: u64,
    /// Cycles that it costs.
    cycles: f64,
}

/// Whether two cuts have nodes in common.
pub(super) fn meets(a: &Cut, b: &Cut) -> bool {
    a.region.nodes.keys().any(|value| b.region.nodes.contains_key(value))
}

/// What a turn knows before it looks at times.
pub(super) struct Scene<'a> {
    graph: &'a Graph,
    now: &'a Turn,
    machine: &'a Machine,
    uses: SecondaryMap<Value, u32>,
    /// The buffers in which a node of the model's graph lies, in one piece or several.
    buffers: SecondaryMap<Value, Vec<Buffer>>,
    /// How many nodes of the model's graph lie in each buffer, or have a part there.
    shares: SecondaryMap<Buffer, usize>,
    /// The nodes that depend on what is set for each run.
    varies: SecondaryMap<Value, bool>,
    /// The nodes that come from each of the model's.
    named: BTreeMap<&'a str, BTreeSet<Value>>,
    /// The nodes that were looked at in this turn.
    seen: BTreeSet<BTreeSet<Value>>,
    /// What was chosen in this turn.
    pub(super) taken: Vec<Cut>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(graph: &'a Graph, now: &'a Turn, machine: &'a Machine) -> Scene<'a> {
        let mut buffers: SecondaryMap<Value, Vec<Buffer>> = SecondaryMap::new();
        let mut shares: SecondaryMap<Buffer, usize> = SecondaryMap::new();
        for (new, buffer) in now.traces.iter() {
            if let (Some(old), &Some(buffer)) = (now.from[new], buffer)
                && !buffers[old].contains(&buffer)
            {
                buffers[old].push(buffer);
                shares[buffer] += 1;
            }
        }
        let mut varies: SecondaryMap<Value, bool> = SecondaryMap::new();
        let mut named: BTreeMap<&str, BTreeSet<Value>> = BTreeMap::new();
        for (value, node) in &graph.nodes {
            varies[value] = matches!(node.op, Op::Input { role: Role::Input, .. })
                || node.operands.iter().any(|&operand| varies[operand]);
            for &origin in &node.origins {
                named.entry(&graph.origins[origin]).or_default().insert(value);
            }
        }
        let (uses, seen, taken) = (graph.uses(), BTreeSet::new(), vec![]);
        Scene { graph, now, machine, uses, buffers, shares, varies, named, seen, taken }
    }

    /// Takes the cheapest cut with which no more than `goal` bytes should be alive around a time; where
    /// there is none, the one that needs the fewest. None that was tried before, and none that meets one
    /// which was taken. Whether the time was worth a look.
    pub(super) fn look(&mut self, peak: &Peak, aim: Aim, tried: &[Cut]) -> bool {
        let nodes = self.nodes(peak);
        let is_taken =
            |value: &Value| self.taken.iter().any(|cut| cut.region.nodes.contains_key(value));
        if nodes.is_empty() || nodes.iter().any(is_taken) || self.seen.contains(&nodes) {
            return false;
        }
        let around = Around {
            scene: self,
            total: peak.alive.iter().map(|(_, bytes)| bytes).sum(),
            alive: peak.alive.iter().copied().collect(),
            peak: &nodes,
            aim,
            reach: if aim.most.is_some() { NEAR } else { FAR },
        };
        let best = around.best(tried);
        self.seen.insert(nodes);
        self.taken.extend(best.map(|found| found.cut));
        true
    }

    /// The nodes that are computed at a time and those that they read, but for views.
    fn nodes(&self, peak: &Peak) -> BTreeSet<Value> {
        let mut nodes = BTreeSet::new();
        let Some(step) = peak.step.and_then(|step| self.now.module.steps.get(step)) else {
            return nodes;
        };
        let named = step.origins.iter().filter_map(|name| self.named.get(&name[..])).flatten();
        let mut found: Vec<Value> = named.copied().collect();
        if step.origins.is_empty() {
            let reads = |buffer: &Buffer| step.operands.iter().any(|a| a.buffer == *buffer);
            let all = self.graph.nodes.keys();
            found.extend(all.filter(|&value| self.buffers[value].iter().any(reads)));
        }
        for value in found {
            for &value in self.graph.nodes[value].operands.iter().chain([&value]) {
                let root = self.root(value);
                nodes.extend(self.is_computed(root).then_some(root));
            }
        }
        nodes
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
}

/// What is known about one time.
struct Around<'a> {
    scene: &'a Scene<'a>,
    /// Bytes that are alive.
    total: u64,
    /// Bytes of the buffers that are alive.
    alive: BTreeMap<Buffer, u64>,
    /// The nodes that are computed then, and those that they read.
    peak: &'a BTreeSet<Value>,
    aim: Aim,
    reach: Reach,
}

impl Around<'_> {
    fn best(&self, tried: &[Cut]) -> Option<Candidate> {
        let goal = self.aim.goal;
        let is_taken =
            |value: &Value| self.scene.taken.iter().any(|cut| cut.region.nodes.contains_key(value));
        let mut regions = self.regions();
        // What is there whole in any case comes first, then what is small.
        regions.retain(|(least, region)| *least < self.total && !region.nodes.keys().any(is_taken));
        regions
            .sort_by_key(|(least, region)| ((*least).max(goal), region.nodes.len(), region.sink));
        let mut best: Option<Candidate> = None;
        let mut fitting = 0;
        for (_, region) in regions.into_iter().take(self.reach.measured) {
            if fitting >= self.reach.fitting {
                break;
            }
            for overlap in [Overlap::Kept, Overlap::Computed] {
                let Some(found) = self.measure(&region, overlap, tried) else { continue };
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

    /// Regions with nodes of the peak inside, and what each needs at least, since it is there whole. Of
    /// those with the same sink, a longer one is worth a look only where that is less.
    fn regions(&self) -> Vec<(u64, Region)> {
        let mut regions: Vec<(u64, Region)> = vec![];
        let (Some(&first), Some(&last)) = (self.peak.first(), self.peak.last()) else {
            return regions;
        };
        let Scene { graph, varies, .. } = self.scene;
        let early = first.as_u32().saturating_sub(self.reach.before);
        let outside = |value: Value| !varies[value] || value.as_u32() < early;
        let behind = (first.as_u32()..graph.nodes.len() as u32).map(Value::from_u32);
        let sinks = behind.filter(|&value| {
            self.scene.is_computed(value) && !matches!(graph.nodes[value].op, Op::Pad { .. })
        });
        let sinks: Vec<Value> = sinks.collect();
        let count = sinks.partition_point(|&sink| sink <= last) + self.reach.behind;
        // The least that any sink before needs.
        let mut lowest = u64::MAX;
        for (index, sink) in sinks.into_iter().take(count).enumerate() {
            let dims = &graph.ty(sink).dims;
            let axes = (0..dims.len().saturating_sub(1)).filter(|&axis| dims[axis] > 1);
            let all = axes.filter_map(|axis| {
                Region::new(graph, &self.scene.uses, sink, Axis { axis, unit: 1 }, outside)
            });
            let found = all.map(|all| self.starts(&all)).find(|found| !found.is_empty());
            let found = found.unwrap_or_default();
            let least = found.iter().map(|(bytes, _)| *bytes).min().unwrap_or(u64::MAX);
            if index < self.reach.near || least < lowest {
                regions.extend(found);
            }
            lowest = lowest.min(least);
        }
        regions
    }

    /// The parts of a region that are worth a look, with what is there whole.
    fn starts(&self, all: &Region) -> Vec<(u64, Region)> {
        let mut found: Vec<(u64, Region)> = vec![];
        let mut near = false;
        let mut lowest = u64::MAX;
        let mut border = Border::new(self, all.sink);
        for &start in all.nodes.keys().rev().take(self.reach.nodes) {
            border.include(start);
            let node = &self.scene.graph.nodes[start];
            near |= start < all.sink && self.peak.contains(&start);
            let least = border.bytes();
            if !near || node.op.is_view() || least >= lowest {
                continue;
            }
            lowest = least;
            let region = all.from(start);
            let inside = |value: &Value| region.nodes.contains_key(value);
            // Cuts that there are already are replaced as a whole, or stay.
            let fits = |cut: &Cut| {
                let count = cut.region.nodes.keys().filter(|value| inside(value)).count();
                count == 0 || count == cut.region.nodes.len()
            };
            if self.scene.now.cuts.iter().all(fits) {
                found.push((least, region));
            }
        }
        found
    }

    /// The fewest bands with which a region meets the aim, else those with which it needs least.
    fn measure(&self, region: &Region, overlap: Overlap, tried: &[Cut]) -> Option<Candidate> {
        let Scene { graph, machine, .. } = self.scene;
        let mut border = Border::new(self, region.sink);
        region.nodes.keys().rev().for_each(|&value| border.include(value));
        let sketcher = Sketcher::new(graph, region, overlap, machine, self.aim.threads());
        let rows = region.rows(graph);
        let height = |&bands: &usize| match self.aim.most {
            None => rows.div_ceil(bands),
            // Two threads have the same.
            Some(_) => rows.div_ceil(bands).next_multiple_of(2),
        };
        let mut heights: Vec<usize> = BANDS.iter().map(height).collect();
        heights.dedup();
        heights.retain(|&height| height < rows);
        let mut best: Option<Candidate> = None;
        // The lower the bands, the less they need, if not always.
        let _ = heights.partition_point(|&height| {
            let cut = Cut { region: region.clone(), height, overlap };
            let sketch = sketcher.sketch(height);
            let found =
                Candidate { bytes: border.bytes() + sketch.inside, cycles: sketch.cycles, cut };
            let enough = match self.aim.most {
                None => found.bytes <= self.aim.goal,
                // What fits into the cache, or what it may cost.
                Some(most) => sketch.inside <= machine.l2 / 2 || sketch.cycles > most,
            };
            let cheap = self.aim.most.is_none_or(|most| found.cycles <= most);
            let is_better = best.as_ref().is_none_or(|best| enough || found.bytes < best.bytes);
            if is_better && cheap && found.bytes < self.total && !tried.contains(&found.cut) {
                best = Some(found);
            }
            !enough
        });
        best
    }
}

/// What is there whole around a region that grows from its sink.
struct Border<'a> {
    scene: &'a Scene<'a>,
    inside: BTreeSet<Value>,
    /// What the region reads, but for views, inputs and constants.
    leaves: BTreeSet<Value>,
    /// What is alive and has nothing to do with the region.
    alive: BTreeMap<Buffer, u64>,
    /// How many nodes outside lie in those of which some are inside.
    shares: BTreeMap<Buffer, usize>,
    sink: Value,
}

impl<'a> Border<'a> {
    fn new(around: &'a Around<'a>, sink: Value) -> Border<'a> {
        let (inside, leaves, shares) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Border { scene: around.scene, inside, leaves, alive: around.alive.clone(), shares, sink }
    }

    fn include(&mut self, value: Value) {
        let Border { scene, inside, leaves, alive, shares, .. } = self;
        inside.insert(value);
        leaves.remove(&value);
        for &buffer in &scene.buffers[value] {
            let left = shares.entry(buffer).or_insert(scene.shares[buffer]);
            *left -= 1;
            if *left == 0 {
                alive.remove(&buffer);
            }
        }
        for &operand in &scene.graph.nodes[value].operands {
            // A view of something inside is inside, or something else reads it too.
            let root = scene.root(operand);
            if scene.is_computed(root) && !inside.contains(&root) {
                leaves.insert(root);
            }
        }
    }

    fn bytes(&self) -> u64 {
        let Scene { graph, buffers, now, .. } = self.scene;
        let mut bytes = self.alive.values().sum::<u64>();
        // Unless others lie there too.
        if !buffers[self.sink].iter().any(|buffer| self.alive.contains_key(buffer)) {
            bytes += graph.ty(self.sink).bytes() as u64;
        }
        for &leaf in &self.leaves {
            let all = buffers[leaf].iter();
            // Those that are alive are counted.
            let all = all.filter(|buffer| !self.alive.contains_key(*buffer));
            bytes += all.map(|&buffer| now.module.buffers[buffer].bytes).max().unwrap_or(0);
        }
        bytes
    }
}
