//! Regions around the peak, and what each would need and cost.

use super::change::{Change, limit};
use super::cost::{self, ENOUGH_SHARES};
use super::known::{Known, Sketched};
use super::sketch::Sketcher;
use super::{Aim, Search, Turn};
use crate::lir::liveness::{Lives, Peak};
use crate::lir::{Buffer, Step};
use crate::machine::Machine;
use crate::mir::winograd::Working;
use crate::mir::{Graph, Op, Origin, Role, Value};
use crate::passes::bands::{Axis, Cut, Overlap, Region, Sites};
use cranelift_entity::{EntityRef, SecondaryMap};
use std::cell::{Cell, LazyCell};
use std::collections::{BTreeMap, BTreeSet};

/// How far is looked for regions.
#[derive(Debug)]
pub(super) struct Reach {
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
    /// So many buffers are looked at that only wait for later steps.
    pub(super) idle: usize,
    /// So many nodes are computed again for one of them at most.
    pub(super) repeated: usize,
    /// That alone is to lower what is needed by one of so many parts at least.
    pub(super) part: u64,
}

impl Reach {
    /// For an arena that was asked for.
    pub(super) const FAR: Reach = Reach {
        behind: 120,
        near: 4,
        before: 200,
        nodes: 400,
        measured: 40,
        fitting: 8,
        idle: 64,
        repeated: 64,
        part: u64::MAX,
    };
    /// For one that is as small as it can be for nothing.
    pub(super) const NEAR: Reach = Reach {
        behind: 40,
        near: 4,
        before: 80,
        nodes: 140,
        measured: 10,
        fitting: 4,
        idle: 8,
        repeated: 12,
        part: 64,
    };
}

/// Numbers of bands that are tried.
const BANDS: [usize; 17] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192];

/// What becomes of rows that two bands need.
const WAYS: [Overlap; 2] = [Overlap::Kept, Overlap::Computed];

/// A change, and what is expected of it.
pub(super) struct Candidate {
    pub(super) change: Change,
    /// Bytes that are alive at most around the time.
    pub(super) bytes: u64,
    /// Cycles that it costs.
    pub(super) cycles: f64,
}

/// What a turn knows before it looks at times.
pub(super) struct Scene<'a> {
    pub(super) graph: &'a Graph,
    pub(super) now: &'a Turn,
    pub(super) lives: &'a Lives,
    pub(super) machine: &'a Machine,
    known: &'a Known,
    written: &'a Cell<usize>,
    uses: SecondaryMap<Value, u32>,
    /// The nodes that read each.
    pub(super) users: SecondaryMap<Value, Vec<Value>>,
    /// Where each is written.
    pub(super) sites: Sites,
    /// Whether what depends on parameters only is computed once for all runs.
    pub(super) prepares: bool,
    /// Whether inputs give their bytes away.
    pub(super) overwrites: bool,
    /// The buffers in which a node of the model's graph lies, in one piece or several.
    buffers: SecondaryMap<Value, Vec<Buffer>>,
    /// How many nodes of the model's graph lie in each buffer, or have a part there.
    shares: SecondaryMap<Buffer, usize>,
    /// The nodes that are stored in each buffer, or have a part there: no views of others.
    pub(super) held: SecondaryMap<Buffer, Vec<Value>>,
    /// The times at which each buffer is read or written, ascending.
    pub(super) touches: SecondaryMap<Buffer, Vec<usize>>,
    /// The nodes that depend on what is set for each run.
    pub(super) varies: SecondaryMap<Value, bool>,
    /// The nodes that come from each of the model's.
    named: BTreeMap<Origin, Vec<Value>>,
    /// The nodes that were looked at in this turn.
    seen: BTreeSet<BTreeSet<Value>>,
    /// What was chosen in this turn.
    pub(super) taken: Vec<Change>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(search: &'a Search<'a>, now: &'a Turn, lives: &'a Lives) -> Scene<'a> {
        let Search { graph, machine, written, options, known, over: _ } = search;
        let mut buffers: SecondaryMap<Value, Vec<Buffer>> = SecondaryMap::new();
        let mut shares: SecondaryMap<Buffer, usize> = SecondaryMap::new();
        for (new, buffer) in now.traces.buffers.iter() {
            if let (Some(old), &Some(buffer)) = (now.from[new], buffer)
                && !buffers[old].contains(&buffer)
            {
                buffers[old].push(buffer);
                shares[buffer] += 1;
            }
        }
        let mut varies: SecondaryMap<Value, bool> = SecondaryMap::new();
        let mut named: BTreeMap<Origin, Vec<Value>> = BTreeMap::new();
        let mut users: SecondaryMap<Value, Vec<Value>> = SecondaryMap::new();
        let mut prepares = false;
        for (value, node) in &graph.nodes {
            node.operands.iter().for_each(|&operand| users[operand].push(value));
            prepares |= matches!(node.op, Op::Input { role: Role::Parameter, .. });
            varies[value] = matches!(node.op, Op::Input { role: Role::Input, .. })
                || node.operands.iter().any(|&operand| varies[operand]);
            for &origin in &node.origins {
                named.entry(origin).or_default().push(value);
            }
        }
        let mut held: SecondaryMap<Buffer, Vec<Value>> = SecondaryMap::new();
        for value in graph.nodes.keys().filter(|&value| stored(graph, &buffers, value) == value) {
            buffers[value].iter().for_each(|&buffer| held[buffer].push(value));
        }
        let mut touches: SecondaryMap<Buffer, Vec<usize>> = SecondaryMap::new();
        for (step, info) in &now.module.steps {
            let time = step.index() + 1;
            for access in info.accesses() {
                let times = &mut touches[access.buffer];
                times.extend((times.last() != Some(&time)).then_some(time));
            }
        }
        Scene {
            graph,
            now,
            lives,
            machine,
            known,
            written,
            uses: graph.uses(),
            users,
            sites: Sites::new(&now.changes.cuts),
            prepares: prepares && options.prepare,
            overwrites: options.overwrite_inputs,
            buffers,
            shares,
            held,
            touches,
            varies,
            named,
            seen: BTreeSet::new(),
            taken: vec![],
        }
    }

    /// Takes the cheapest change with which no more than `goal` bytes should be alive around a time; where
    /// there is none, the one that needs the fewest. None that was tried before, and none that meets one
    /// which was taken. Whether the time was worth a look.
    pub(super) fn look(&mut self, peak: &Peak, aim: Aim, tried: &[Change]) -> bool {
        let nodes = self.nodes(peak);
        if nodes.is_empty()
            || nodes.iter().any(|value| self.is_taken(value))
            || self.seen.contains(&nodes)
        {
            return false;
        }
        let around = Around {
            scene: self,
            total: peak.alive.iter().map(|(_, bytes)| bytes).sum(),
            alive: peak.alive.iter().copied().collect(),
            peak: &nodes,
            step: peak.step,
            aim,
        };
        let best = around.best(tried);
        self.seen.insert(nodes);
        self.taken.extend(best.map(|found| found.change));
        true
    }

    /// Whether a change that was taken has to do with a node.
    fn is_taken(&self, value: &Value) -> bool {
        self.taken.iter().any(|change| match change {
            Change::Cut(cut) => cut.region.nodes.contains_key(value),
            Change::Working(other, _) => other == value,
            Change::Again(all) => all.iter().any(|again| again.nodes.contains(value)),
        })
    }

    /// Whether a node is in bands by a change that was taken.
    pub(super) fn will_be_cut(&self, value: Value) -> bool {
        self.taken.iter().any(|change| match change {
            Change::Cut(cut) => cut.region.nodes.contains_key(&value),
            Change::Working(..) | Change::Again(_) => false,
        })
    }

    /// The node that a value is seen in: itself, unless it is a view that is not copied.
    pub(super) fn stored(&self, value: Value) -> Value {
        stored(self.graph, &self.buffers, value)
    }

    /// The nodes that are computed at a time and those that they read, but for views.
    fn nodes(&self, peak: &Peak) -> BTreeSet<Value> {
        let mut nodes = BTreeSet::new();
        let found = peak.step.and_then(|step| {
            Some((self.now.module.steps.get(step)?, *self.now.traces.steps.get(step)?))
        });
        let Some((step, value)) = found else { return nodes };
        let origins = &self.now.graph.nodes[value].origins;
        let named = origins.iter().filter_map(|origin| self.named.get(origin)).flatten();
        let mut found: Vec<Value> = named.copied().collect();
        if origins.is_empty() {
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

    pub(super) fn root(&self, mut value: Value) -> Value {
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

/// See [`Scene::stored`].
fn stored(graph: &Graph, buffers: &SecondaryMap<Value, Vec<Buffer>>, mut value: Value) -> Value {
    while graph.nodes[value].op.is_view() {
        let operand = graph.nodes[value].operands[0];
        if !buffers[value].iter().all(|buffer| buffers[operand].contains(buffer)) {
            break;
        }
        value = operand;
    }
    value
}

/// What is known about one time.
pub(super) struct Around<'a> {
    pub(super) scene: &'a Scene<'a>,
    /// Bytes that are alive.
    pub(super) total: u64,
    /// Bytes of the buffers that are alive.
    pub(super) alive: BTreeMap<Buffer, u64>,
    /// The nodes that are computed then, and those that they read.
    peak: &'a BTreeSet<Value>,
    /// The step that runs then.
    pub(super) step: Option<Step>,
    pub(super) aim: Aim,
}

impl Around<'_> {
    fn best(&self, tried: &[Change]) -> Option<Candidate> {
        let goal = self.aim.goal;
        let is_taken = |value: &Value| self.scene.is_taken(value);
        let mut regions = self.regions();
        // What is there whole in any case comes first, then what is small.
        regions.retain(|(least, region)| *least < self.total && !region.nodes.keys().any(is_taken));
        regions
            .sort_by_key(|(least, region)| ((*least).max(goal), region.nodes.len(), region.sink));
        let rank = |c: &Candidate| {
            let over = c.bytes.max(goal);
            (over, if over > goal { 0.0 } else { c.cycles })
        };
        let lower = |a: &Candidate, b: &Candidate| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        };
        let single = self.working().into_iter().chain(self.again());
        let single = single.filter(|found| !tried.contains(&found.change));
        let mut best: Option<Candidate> = single.min_by(&lower);
        let mut fitting = usize::from(best.as_ref().is_some_and(|best| best.bytes <= goal));
        for (_, region) in regions.into_iter().take(self.aim.effort.reach.measured) {
            let over = self.scene.written.get() > self.aim.effort.written;
            if over || fitting >= self.aim.effort.reach.fitting {
                break;
            }
            // For what nobody asked for, the other way is looked at for the best region only.
            let ways = if self.aim.free { &WAYS[..1] } else { &WAYS };
            for &overlap in ways {
                let Some(found) = self.measure(&region, overlap, tried) else { continue };
                fitting += usize::from(found.bytes <= goal);
                if best.as_ref().is_none_or(|best| lower(&found, best).is_lt()) {
                    best = Some(found);
                }
            }
        }
        if self.aim.free
            && let Some(Change::Cut(cut)) = best.as_ref().map(|best| &best.change)
            && let Some(found) = self.measure(&cut.region, Overlap::Computed, tried)
            && best.as_ref().is_none_or(|best| lower(&found, best).is_lt())
        {
            best = Some(found);
        }
        best
    }

    /// Less working memory for the step: fewer shares of it, or smaller blocks.
    fn working(&self) -> Vec<Candidate> {
        let Scene { now, machine, .. } = self.scene;
        let found = self.step.and_then(|step| {
            let value = *now.traces.steps.get(step)?;
            let scratch = now.module.steps.get(step)?.scratch.as_ref()?;
            Some((value, now.from[value]?, *self.alive.get(&scratch.buffer)?))
        });
        let Some((value, old, all)) = found else { return vec![] };
        let node = &now.graph.nodes[value];
        let Some(blocks) = cost::blocks(&now.graph, node) else { return vec![] };
        let before = cost::shared_work(&now.graph, node, machine);
        let least = if self.aim.free { ENOUGH_SHARES } else { 1 };
        let halves =
            std::iter::successors(Some(blocks.shares), |&n| (n > 1).then(|| n.div_ceil(2)));
        let halves: Vec<usize> = halves.filter(|&n| n == blocks.shares || n >= least).collect();
        let all_tiles = blocks.block[0] * blocks.block[1];
        let fewest = if self.aim.bold { 1 } else { all_tiles };
        let mut sizes: Vec<usize> = (fewest..=all_tiles).rev().collect();
        let of = |most: Working| {
            let mut node = node.clone();
            limit(&mut node, most);
            node
        };
        let block = |tiles: usize| {
            let node = of(Working { tiles, ..Working::ALL });
            cost::blocks(&now.graph, &node).map(|blocks| blocks.block)
        };
        sizes.dedup_by_key(|tiles| block(*tiles));
        let all_limits = sizes
            .iter()
            .flat_map(|&tiles| halves.iter().map(move |&shares| Working { shares, tiles }));
        let candidate = |most: Working| {
            let node = of(most);
            let blocks = cost::blocks(&now.graph, &node)?;
            let bytes = blocks.shares as u64 * blocks.elements() as u64 * 4;
            let cycles = cost::shared_work(&now.graph, &node, machine) - before;
            (bytes < all && cycles <= self.aim.most).then(|| Candidate {
                change: Change::Working(old, most),
                bytes: self.total - all + bytes,
                cycles,
            })
        };
        all_limits.filter_map(candidate).collect()
    }

    /// Regions with nodes of the peak inside, and what each needs at least, since it is there whole. Of
    /// those with the same sink, a longer one is worth a look only where that is less.
    fn regions(&self) -> Vec<(u64, Region)> {
        let mut regions: Vec<(u64, Region)> = vec![];
        let (Some(&first), Some(&last)) = (self.peak.first(), self.peak.last()) else {
            return regions;
        };
        let Scene { graph, varies, .. } = self.scene;
        let early = first.as_u32().saturating_sub(self.aim.effort.reach.before);
        let outside = |value: Value| !varies[value] || value.as_u32() < early;
        let behind = (first.as_u32()..graph.nodes.len() as u32).map(Value::from_u32);
        let sinks = behind.filter(|&value| {
            self.scene.is_computed(value) && !matches!(graph.nodes[value].op, Op::Pad { .. })
        });
        let sinks: Vec<Value> = sinks.collect();
        let count = sinks.partition_point(|&sink| sink <= last) + self.aim.effort.reach.behind;
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
            if index < self.aim.effort.reach.near || least < lowest {
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
        for &start in all.nodes.keys().rev().take(self.aim.effort.reach.nodes) {
            border.include(start);
            // One node alone may give back what it reads.
            near |= self.peak.contains(&start) && (start < all.sink || border.dying().is_some());
            let least = border.bytes();
            if !near || least >= lowest {
                continue;
            }
            let region = all.from(start);
            let inside = |value: &Value| region.nodes.contains_key(value);
            // Cuts that there are already are replaced as a whole, or stay.
            let fits = |cut: &Cut| {
                let count = cut.region.nodes.keys().filter(|value| inside(value)).count();
                count == 0 || count == cut.region.nodes.len()
            };
            if self.scene.now.changes.cuts.iter().all(fits) {
                lowest = least;
                found.push((least, region));
            }
        }
        found
    }

    /// The fewest bands with which a region meets the aim, else those with which it needs least.
    fn measure(&self, region: &Region, overlap: Overlap, tried: &[Change]) -> Option<Candidate> {
        let Scene { graph, machine, known, .. } = self.scene;
        let mut border = Border::new(self, region.sink);
        region.nodes.keys().rev().for_each(|&value| border.include(value));
        let (whole, dying) = (border.whole(), border.dying());
        let changes = &self.scene.now.changes;
        let threads = self.aim.threads();
        let sketcher =
            LazyCell::new(|| Sketcher::new(graph, region, overlap, changes, machine, threads));
        let limits = changes.working.iter().filter(|(value, _)| region.nodes.contains_key(value));
        let limits: Vec<(Value, Working)> = limits.map(|(&value, &most)| (value, most)).collect();
        let rows = region.rows(graph);
        let height = |&bands: &usize| match self.aim.free {
            false => rows.div_ceil(bands),
            // Two threads have the same.
            true => rows.div_ceil(bands).next_multiple_of(2),
        };
        let mut heights: Vec<usize> = BANDS.iter().map(height).collect();
        heights.dedup();
        heights.retain(|&height| height < rows);
        let mut best: Option<Candidate> = None;
        // The lower the bands, the less they need, if not always.
        let _ = heights.partition_point(|&height| {
            let cut = Cut { region: region.clone(), height, overlap };
            let of = Sketched { cut: cut.clone(), limits: limits.clone(), threads };
            let sketch = known.sketch(of, || sketcher.sketch(height));
            self.scene.written.update(|written| written + sketch.written);
            let over = dying.and_then(|leaf| border.over(leaf, cut.ahead(graph, leaf)?));
            let bytes = whole + sketch.inside - over.unwrap_or(0);
            let cycles = sketch.cycles;
            let found = Candidate { change: Change::Cut(cut), bytes, cycles };
            let cheap = found.cycles <= self.aim.most;
            let enough = match self.aim.free {
                false => found.bytes <= self.aim.goal,
                // What fits into the cache.
                true => sketch.inside <= machine.l2 / 2,
            } || !cheap;
            let is_better = best.as_ref().is_none_or(|best| enough || found.bytes < best.bytes);
            if is_better && cheap && found.bytes < self.total && !tried.contains(&found.change) {
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
    /// See [`Aim::bold`].
    bold: bool,
}

impl<'a> Border<'a> {
    fn new(around: &'a Around<'a>, sink: Value) -> Border<'a> {
        let (inside, leaves, shares) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let scene = around.scene;
        let mut alive = around.alive.clone();
        // The working memory of the step that runs: all regions have it inside.
        let step = around.step.and_then(|step| scene.now.module.steps.get(step));
        let scratch = step.and_then(|info| info.scratch.as_ref());
        scratch.and_then(|access| alive.remove(&access.buffer));
        Border { scene, inside, leaves, alive, shares, sink, bold: around.aim.bold }
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

    /// The least that may be needed.
    fn bytes(&self) -> u64 {
        self.whole() - self.dying().and_then(|leaf| self.over(leaf, 0)).unwrap_or(0)
    }

    /// Bytes that are gained where the sink is written over a leaf, behind so many bytes; `None` where that is too
    /// little.
    fn over(&self, leaf: Value, ahead: u64) -> Option<u64> {
        let [leaf, sink] = [leaf, self.sink].map(|value| self.scene.graph.ty(value).bytes() as u64);
        (leaf + sink).checked_sub(sink.max(ahead + leaf)).filter(|&won| won >= leaf.min(sink) / 4)
    }

    /// The last leaf that nothing reads behind the region, if the sink may lie there.
    fn dying(&self) -> Option<Value> {
        let Scene { graph, buffers, users, .. } = self.scene;
        if !self.bold {
            return None;
        }
        let is_joined =
            |&user: &Value| matches!(graph.nodes[user].op, Op::Concat { .. } | Op::Pad { .. });
        if buffers[self.sink].iter().any(|buffer| self.alive.contains_key(buffer))
            || users[self.sink].is_empty()
            || users[self.sink].iter().any(is_joined)
        {
            return None;
        }
        let size = |value: Value| graph.ty(value).dtype.bytes();
        let fits = |&leaf: &Value| {
            buffers[leaf].len() == 1 && size(leaf) == size(self.sink) && self.dies(leaf)
        };
        self.leaves.iter().copied().rev().find(fits)
    }

    /// Whether nothing behind the region reads a value or a view of it.
    fn dies(&self, value: Value) -> bool {
        let Scene { graph, users, .. } = self.scene;
        let is_over = |&user: &Value| match graph.nodes[user].op.is_view() {
            true => self.inside.contains(&user) || self.dies(user),
            false => user < self.sink || self.inside.contains(&user),
        };
        users[value].iter().all(is_over) && graph.outputs.iter().all(|o| o.value != value)
    }

    /// With room for the leaves and the sink.
    fn whole(&self) -> u64 {
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
