//! What is computed early and read late, and waits while most is alive: it may be computed again instead.

use super::candidates::{Around, Candidate, Scene};
use super::change::Change;
use super::cost;
use crate::lir::{Buffer, BufferKind, Step};
use crate::mir::{Op, Role, Value};
use crate::passes::bands::Again;
use cranelift_entity::EntityRef;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What is made of more nodes than this is not looked at.
const MANY: usize = 32;

impl Around<'_> {
    /// For each buffer that only waits for later steps: its values computed again just before these, wherever it would
    /// wait while much is alive; from what is there anyway, or with more and more of what they are made of.
    pub(super) fn again(&self) -> Vec<Candidate> {
        let scene = self.scene;
        let Some(time) = self.step.map(|step| step.index() + 1) else { return vec![] };
        let waits = |buffer: Buffer| {
            scene.now.module.buffers[buffer].kind == BufferKind::Temporary
                && scene.held[buffer].len() <= MANY
                && scene.touches[buffer].binary_search(&time).is_err()
        };
        let idle = self.alive.iter().filter(|&(&buffer, _)| waits(buffer));
        let mut idle: Vec<(u64, Buffer)> = idle.map(|(&buffer, &bytes)| (bytes, buffer)).collect();
        // What gives most comes first.
        idle.sort_unstable_by_key(|&(bytes, buffer)| (Reverse(bytes), buffer));
        let idle = idle.into_iter().take(self.aim.effort.reach.idle);
        idle.flat_map(|(bytes, buffer)| self.instead_of(buffer, bytes, time)).collect()
    }

    /// As [`Around::again`], of one buffer.
    fn instead_of(&self, buffer: Buffer, bytes: u64, time: usize) -> Vec<Candidate> {
        let scene = self.scene;
        let sums = &scene.lives.sums;
        let Some(now) = scene.site(time) else { return vec![] };
        let Some((mut nodes, _)) = self.waiting(buffer, now) else { return vec![] };
        // All the times between two uses at which too much is alive.
        let enough = self.aim.goal.max(self.total.saturating_sub(bytes));
        let (mut readers, mut gaps) = (vec![], vec![]);
        for ends in scene.touches[buffer].windows(2) {
            let gap = ends[0] + 1..ends[1];
            let highest = gap.clone().max_by_key(|&t| sums[t]);
            let highest = if gap.contains(&time) { Some(time) } else { highest };
            let Some(highest) = highest.filter(|&t| t == time || sums[t] > enough) else {
                continue;
            };
            let found = scene.site(highest).and_then(|site| self.waiting(buffer, site));
            if let Some((_, reader)) = found.filter(|(same, _)| *same == nodes) {
                readers.push(reader);
                gaps.push(gap);
            }
        }
        let most = sums.iter().copied().max().unwrap_or(0);
        let inside = gaps.iter().flat_map(|gap| &sums[gap.clone()]).copied().max().unwrap_or(0);
        let mut gaps = gaps.into_iter().peekable();
        let others = sums.iter().enumerate().filter(|&(t, _)| {
            while gaps.next_if(|gap| gap.end <= t).is_some() {}
            gaps.peek().is_none_or(|gap| t < gap.start)
        });
        let outside = others.map(|(_, &sum)| sum).max().unwrap_or(0);
        let times = readers.len() as f64;
        let mut cycles = times * nodes.iter().map(|&value| self.repeated(value)).sum::<f64>();
        let mut found = vec![];
        while cycles <= self.aim.most && nodes.len() <= self.aim.effort.reach.repeated {
            let missing = self.missing(&nodes, now);
            let more: u64 = missing.iter().map(|&(bytes, _)| bytes).sum();
            let lowered = outside.max(inside - bytes + more);
            let is_worth = lowered + most / self.aim.effort.reach.part <= most;
            if more < bytes && is_worth {
                let again = |&reader: &Value| {
                    Again::new(scene.graph, &scene.users, &scene.sites, nodes.clone(), reader)
                };
                let change = Change::Again(readers.iter().map(again).collect());
                found.push(Candidate { change, bytes: self.total - bytes + more, cycles });
            }
            // The largest of what is missing is made again, too.
            let largest = missing.into_iter().filter(|&(_, value)| self.may_repeat(value)).max();
            let Some((_, next)) = largest else { break };
            cycles += times * self.repeated(next);
            nodes.insert(next);
        }
        found
    }

    /// The values for which a buffer waits at a site, and the first that then reads one of them; `None` where they are
    /// read now, or cannot be computed again.
    fn waiting(&self, buffer: Buffer, now: Value) -> Option<(BTreeSet<Value>, Value)> {
        let scene = self.scene;
        let (mut nodes, mut reader) = (BTreeSet::new(), None);
        for &value in scene.held[buffer].iter().filter(|&&value| scene.sites.of(value) < now) {
            let next = match self.next_reader(value, now) {
                Next::Never => continue,
                Next::Now => return None,
                Next::Later(next) => next,
            };
            if !self.may_repeat(value) {
                return None;
            }
            reader = Some(reader.map_or(next, |reader: Value| reader.min(next)));
            nodes.insert(value);
        }
        reader.map(|reader| (nodes, reader))
    }

    /// Whether a node can be computed again: not what is made of others in bands, or once for all runs.
    fn may_repeat(&self, value: Value) -> bool {
        let scene = self.scene;
        let is_step = match &scene.graph.nodes[value].op {
            Op::Input { .. } | Op::Constant(_) => false,
            _ => scene.varies[value] || !scene.prepares,
        };
        is_step && !scene.sites.is_cut(value) && !scene.will_be_cut(value)
    }

    /// Cycles that it takes to compute a node again.
    fn repeated(&self, value: Value) -> f64 {
        cost::repeated(self.scene.graph, value, self.scene.machine, self.aim.threads())
    }

    /// What nodes read that is neither one of them nor alive now, with its bytes.
    fn missing(&self, nodes: &BTreeSet<Value>, now: Value) -> Vec<(u64, Value)> {
        let graph = self.scene.graph;
        let all = nodes.iter().flat_map(|&value| &graph.nodes[value].operands);
        let roots: BTreeSet<Value> = all.map(|&operand| self.scene.stored(operand)).collect();
        let is_missing = |value: &Value| {
            let stays = match &graph.nodes[self.scene.root(*value)].op {
                Op::Constant(_) | Op::Input { role: Role::Parameter, .. } => true,
                Op::Input { role: Role::Input, .. } if !graph.nodes[*value].op.is_view() => {
                    !self.scene.overwrites
                }
                _ => self.scene.prepares && !self.scene.varies[*value],
            };
            !stays && !nodes.contains(value) && matches!(self.next_reader(*value, now), Next::Never)
        };
        let bytes = |value: Value| (graph.ty(value).bytes() as u64, value);
        roots.into_iter().filter(is_missing).map(bytes).collect()
    }

    /// Who reads a stored value, or a view of it, from now on.
    fn next_reader(&self, value: Value, now: Value) -> Next {
        let scene = self.scene;
        let (mut open, mut next) = (vec![value], Next::Never);
        while let Some(value) = open.pop() {
            for &user in &scene.users[value] {
                if scene.stored(user) != user {
                    open.push(user);
                    continue;
                }
                let site = scene.sites.of(user);
                if site == now {
                    return Next::Now;
                }
                next = match next {
                    _ if site < now => next,
                    Next::Later(reader) => Next::Later(reader.min(site)),
                    Next::Never | Next::Now => Next::Later(site),
                };
            }
        }
        next
    }
}

/// When something is read from now on.
enum Next {
    Never,
    /// By what runs now.
    Now,
    /// By this one first.
    Later(Value),
}

impl Scene<'_> {
    /// Where the node is written whose step runs at a time.
    fn site(&self, time: usize) -> Option<Value> {
        let value = *self.now.traces.steps.get(Step::new(time.checked_sub(1)?))?;
        Some(self.sites.of(self.now.from[value]?))
    }
}
