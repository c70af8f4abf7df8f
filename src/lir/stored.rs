//! The order and the windows with which a graph needs least.

use super::homes::Over;
use super::storage::{self, Asked, Windows};
use super::{Buffer, Module, Options, liveness, place, state};
use crate::error::ErrorKind;
use crate::mir;
use cranelift_entity::{EntityRef, SecondaryMap};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// So many times more windows are given up, those that wait when most is alive.
const APART: usize = 8;

/// So many values are looked at that may lie where later ones do.
const OFFERS: usize = 32;

/// A window that is written more than so many values before its user is a long-lived one.
pub(super) const NEAR: usize = 24;

/// The graph's steps in the best of these orders, with names or without.
pub(super) fn stored(
    graph: &mir::Graph,
    orders: &[Vec<mir::Value>],
    options: &Options,
    named: bool,
) -> Result<(Module, storage::Traces), ErrorKind> {
    let links = state::links(graph, options)?;
    let stored = |order: usize, windows: &Windows| {
        let (module, traces) =
            storage::traced(graph, &orders[order], &links, options, windows, named);
        let (windows, bound) = (windows.clone(), place::bound(&module));
        Stored { order, windows, bound, module, traces }
    };
    let mut asked = vec![];
    let first = (0..orders.len()).map(|order| {
        let stored = stored(order, &Windows::ALL);
        asked.push(stored.traces.asked);
        stored
    });
    // The first of the lowest, so that the model's own order wins where it is as good.
    let lowest = |all: &mut dyn Iterator<Item = Stored>| all.min_by_key(|stored| stored.bound);
    let no_order = || ErrorKind::bug("no schedule");
    let mut best = lowest(&mut { first }).ok_or_else(no_order)?;
    // With other windows those orders are not the same for which they matter.
    let others = |windows: Windows, matters: fn(&Asked) -> bool| {
        let others = (0..orders.len()).filter(|&order| matters(&asked[order]));
        lowest(&mut others.map(|order| stored(order, &windows)))
    };
    let has_windows =
        |node: &mir::Node| matches!(node.op, mir::Op::Concat { .. } | mir::Op::Pad { .. });
    if options.alias && graph.nodes.values().any(has_windows) {
        let late = others(Windows { wait: false, ..Windows::ALL }, |asked| asked.wait);
        if let Some(late) = late.filter(|late| late.bound < best.bound) {
            best = late;
        }
        // Copies into windows that wait for long are paid for by a good deal of memory only.
        let near = others(Windows { reach: NEAR, ..Windows::ALL }, |asked| asked.reach > NEAR);
        let most = best.bound - best.bound / 16;
        if let Some(near) = near.filter(|near| near.bound < most) {
            best = near;
        }
        // One by one where most is alive: more and more copies, that must be worth it all together.
        let mut now = Cow::Borrowed(&best);
        let (mut found, mut copied) = (None, 0);
        for _ in 0..APART {
            let waiting = now.waiting(graph);
            if waiting.is_empty() {
                break;
            }
            let bytes = |&(whole, index)| graph.ty(graph.nodes[whole].operands[index]).bytes();
            copied += waiting.iter().map(bytes).sum::<usize>() as u64;
            let mut windows = now.windows.clone();
            windows.apart.extend(waiting);
            let next = stored(now.order, &windows);
            if next.bound > now.bound {
                break;
            }
            if next.bound + (best.bound / 64).max(copied / 2) <= best.bound {
                found = Some(next.clone());
            }
            now = Cow::Owned(next);
        }
        best = found.unwrap_or(best);
        let over = best.over();
        if !over.is_empty() {
            let all = stored(best.order, &Windows { over, ..best.windows.clone() });
            if all.bound <= best.bound {
                best = all;
            }
        }
    }
    Ok((best.module, best.traces))
}

/// A graph's steps, without places.
#[derive(Clone)]
struct Stored {
    /// The order that they are in.
    order: usize,
    windows: Windows,
    bound: u64,
    module: Module,
    traces: storage::Traces,
}

impl Stored {
    /// The values for which less is alive where they lie in the place of a later concatenation, no two in that of the
    /// same one: one by one, or two of which one lies where the other does.
    fn over(&self) -> BTreeSet<mir::Value> {
        let offers: Vec<&Over> = self.traces.over.iter().take(OFFERS).collect();
        let together = Together::new(self);
        let (mut chosen, mut lowest) = (BTreeSet::new(), together.sums(&[]));
        for (index, offer) in offers.iter().enumerate() {
            let behind = offers[index + 1..].iter().filter(|other| other.joined == offer.value);
            let more = std::iter::once(None).chain(behind.map(|other| Some(other.value)));
            for more in more {
                let with = |o: &&&Over| {
                    chosen.contains(&o.value) || o.value == offer.value || Some(o.value) == more
                };
                let all: Vec<&Over> = offers.iter().filter(with).copied().collect();
                let sums = together.sums(&all);
                if sums < lowest {
                    lowest = sums;
                    chosen = all.iter().map(|offer| offer.value).collect();
                }
            }
        }
        chosen
    }

    /// The operands of concatenations that are written when most is alive, or before, where that makes room for
    /// more that comes later.
    fn waiting(&self, graph: &mir::Graph) -> Vec<(mir::Value, usize)> {
        let lives = liveness::Lives::new(&self.module);
        let time = lives.times[0];
        let alive = lives.at(time).alive;
        let alive: BTreeMap<Buffer, u64> = alive.into_iter().collect();
        let storage::Traces { buffers, steps, .. } = &self.traces;
        // Until when the steps of a value have written it.
        let mut until: SecondaryMap<mir::Value, usize> = SecondaryMap::new();
        steps.iter().for_each(|(step, &value)| until[value] = step.index() + 1);
        let mut waiting = vec![];
        for (whole, node) in &graph.nodes {
            let buffer = buffers[whole].filter(|buffer| alive.contains_key(buffer));
            let (mir::Op::Concat { .. }, Some(buffer)) = (&node.op, buffer) else { continue };
            // A view that is copied has steps of its own.
            let root = |mut value: mir::Value| {
                while until[value] == 0 && graph.nodes[value].op.is_view() {
                    value = graph.nodes[value].operands[0];
                }
                value
            };
            let there = |value: mir::Value| buffers[value] == Some(buffer) && until[value] > 0;
            let operands = node.operands.iter().map(|&operand| root(operand)).enumerate();
            let operands = operands.filter(|&(_, root)| !graph.nodes[root].rides());
            let (early, late): (Vec<_>, Vec<_>) =
                operands.partition(|&(_, root)| there(root) && until[root] <= time);
            let bytes: usize = early.iter().map(|&(_, root)| graph.ty(root).bytes()).sum();
            let later = |&(_, root)| until[if there(root) { root } else { whole }] > time;
            if late.iter().any(later) && (bytes as u64) < alive[&buffer] {
                waiting.extend(early.into_iter().map(|(index, _)| (whole, index)));
            }
        }
        waiting
    }
}

/// What is alive if values lie in the place of others.
struct Together<'a> {
    stored: &'a Stored,
    /// What is alive at each time as it is.
    sums: Vec<u64>,
    ranges: SecondaryMap<Buffer, Option<liveness::Range>>,
}

impl Together<'_> {
    fn new(stored: &Stored) -> Together<'_> {
        let sums = liveness::Lives::new(&stored.module).sums;
        Together { stored, sums, ranges: liveness::ranges(&stored.module) }
    }

    /// The bytes that are alive at all times, the most first, if these lie in the place of others: each behind those in
    /// whose place it lies.
    fn sums(&self, over: &[&Over]) -> Vec<u64> {
        let Together { stored: Stored { module, traces, .. }, .. } = *self;
        let mut sums = self.sums.clone();
        // What lies in the place of each, from when to when, and where in it.
        let mut groups: BTreeMap<Buffer, (liveness::Range, u64)> = BTreeMap::new();
        let mut places: BTreeMap<Buffer, (Buffer, u64)> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for Over { value, joined, ahead } in over {
            let [one, other] = [*value, *joined].map(|value| {
                let buffer = traces.buffers[value]?;
                Some((buffer, self.ranges[buffer]?, module.buffers[buffer].bytes))
            });
            let (Some((one, mine, bytes)), Some((other, theirs, all))) = (one, other) else {
                continue;
            };
            let (root, begin) = places.get(&other).copied().unwrap_or((other, 0));
            if !taken.insert(other) || root == one {
                continue;
            }
            let (range, room) = groups.entry(root).or_insert((theirs, all));
            let mut add = |range: &liveness::Range, bytes: u64, alive: bool| {
                let sums = &mut sums[range.first as usize..=range.last as usize];
                sums.iter_mut().for_each(|sum| match alive {
                    true => *sum += bytes,
                    false => *sum = sum.saturating_sub(bytes),
                });
            };
            add(range, *room, false);
            add(&mine, bytes, false);
            range.first = range.first.min(mine.first);
            range.last = range.last.max(mine.last);
            *room = (*room).max(begin + ahead + bytes);
            add(range, *room, true);
            places.insert(one, (root, begin + ahead));
        }
        sums.sort_unstable_by(|a, b| b.cmp(a));
        sums
    }
}
