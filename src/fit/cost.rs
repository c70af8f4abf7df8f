//! What a graph costs in time, roughly: enough to choose between ways of computing the same.

use crate::machine::Machine;
use crate::mir::winograd::Blocks;
use crate::mir::{Filter, Graph, Node, Op, Side, Value, Weights};
use cranelift_entity::SecondaryMap;

/// Cycles that it takes to call a kernel and to get it going.
const CALL: f64 = 500.0;

/// Cycles that two threads lose for each step that they share. (Measured on Zen 4.)
const SHARED: f64 = 2500.0;

/// Whose time is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Threads {
    /// That of a run on one core.
    One,
    /// That of two threads, added up: they wait for one another at the end of each step, whose rows may not
    /// be even.
    Two,
    /// That of a run on one core, with what more of them would wait where the work has few shares: for an arena
    /// that is asked for.
    Any,
}

/// Shares of a step's work with which nobody is taken to wait.
pub(super) const ENOUGH_SHARES: usize = 4;

/// What it costs that a step has so few shares, as a part of its work: a quarter of what more threads wait.
fn waited(shares: usize) -> f64 {
    let shares = shares.clamp(1, ENOUGH_SHARES) as f64;
    (ENOUGH_SHARES as f64 / shares - 1.0) / 4.0
}

/// Channels of all parts of the input that is filtered.
fn channels(graph: &Graph, node: &Node) -> Option<usize> {
    let Op::Winograd(w) = &node.op else { return None };
    let parts = node.operands.get(..w.first_extra() - 1)?;
    Some(parts.iter().filter_map(|&x| graph.ty(x).dims.last()).sum())
}

/// The blocks that a node is computed in, each in working memory of a share; `None` where it has none.
pub(super) fn blocks(graph: &Graph, node: &Node) -> Option<Blocks> {
    let Op::Winograd(w) = &node.op else { return None };
    w.blocks(channels(graph, node)?, &node.ty.dims)
}

/// Into how many shares the work of a node can be cut at most; `None` where that is no matter.
fn shares(graph: &Graph, node: &Node) -> Option<usize> {
    blocks(graph, node).map(|blocks| blocks.shares)
}

/// Cycles of a node's own work, with what threads wait that find too few shares of it.
pub(super) fn shared_work(graph: &Graph, node: &Node, machine: &Machine) -> f64 {
    let work = work(graph, node, machine);
    work * (1.0 + shares(graph, node).map_or(0.0, waited))
}

/// Cycles for each byte that has left the second-level cache before it is read: most of the way is hidden behind
/// what is computed. (Measured on Zen 4.)
const FAR: f64 = 1.0 / 32.0;

/// Cycles of one run.
pub(super) fn cycles(graph: &Graph, machine: &Machine, threads: Threads) -> f64 {
    running(graph, machine, threads).last().copied().unwrap_or(0.0)
}

/// Cycles of one node that is computed once more, about: its operands may have left the cache.
pub(super) fn repeated(graph: &Graph, value: Value, machine: &Machine, threads: Threads) -> f64 {
    let node = &graph.nodes[value];
    let read: usize = node.operands.iter().map(|&operand| graph.ty(operand).bytes()).sum();
    let called = match threads {
        Threads::One | Threads::Any => CALL,
        Threads::Two => CALL + SHARED,
    };
    work(graph, node, machine) + read as f64 * FAR + called
}

/// Cycles of the first node, the first two, and so on, in the graph's order.
pub(super) fn running(graph: &Graph, machine: &Machine, threads: Threads) -> Vec<f64> {
    let mut meter = Meter { graph, machine, threads, touched: 0.0, last: SecondaryMap::new() };
    let steps = graph.nodes.keys();
    steps
        .scan(0.0, |sum, value| {
            *sum += meter.step(value);
            Some(*sum)
        })
        .collect()
}

/// What has been touched, and when.
struct Meter<'a> {
    graph: &'a Graph,
    machine: &'a Machine,
    threads: Threads,
    /// Bytes that were read and written so far.
    touched: f64,
    /// How many they were when a value was touched for the last time, wherever its bytes lie.
    last: SecondaryMap<Value, Option<f64>>,
}

impl Meter<'_> {
    fn step(&mut self, value: Value) -> f64 {
        let node = &self.graph.nodes[value];
        match &node.op {
            Op::Input { .. } | Op::Constant(_) => return 0.0,
            // They lie where their operands do, the oldest of which says how far that is.
            op if op.is_view() => {
                self.last[value] = self.last[node.operands[0]];
                return 0.0;
            }
            Op::Concat { .. } | Op::Pad { .. } => {
                let all = node.operands.iter().filter_map(|&operand| self.last[operand]);
                self.last[value] = Some(all.fold(self.touched, f64::min));
                return match &node.op {
                    Op::Pad { .. } => {
                        let border = node.ty.bytes()
                            - self.graph.ty(node.operands[0]).bytes().min(node.ty.bytes());
                        border as f64 / f64::from(self.machine.vector_bytes()) + CALL
                    }
                    _ => 0.0,
                };
            }
            _ => {}
        }
        let mut waited = 0.0;
        for &operand in &node.operands {
            let bytes = self.graph.ty(operand).bytes() as f64;
            let apart = self.last[operand].map_or(0.0, |last| self.touched - last);
            if apart + bytes > self.machine.l2 as f64 * 0.75 && self.last[operand].is_some() {
                waited += match self.graph.constant(operand) {
                    // Nothing hides the weights of a few rows.
                    Some(_) => bytes / self.machine.stream() / self.machine.in_a_cycle(),
                    None => bytes * FAR,
                };
            }
            self.touched += bytes;
            self.last[operand] = Some(self.touched);
        }
        self.touched += node.ty.bytes() as f64;
        self.last[value] = Some(self.touched);
        let work = work(self.graph, node, self.machine);
        let shared = match self.threads {
            Threads::One => 0.0,
            Threads::Any => {
                shares(self.graph, node).map_or(0.0, |shares| work * self::waited(shares))
            }
            Threads::Two => {
                let dims = &node.ty.dims[..node.ty.dims.len().saturating_sub(2)];
                let rows = || dims.iter().product::<usize>().max(1);
                let parts = shares(self.graph, node).unwrap_or_else(rows) as f64;
                // One row more or less; what has one row is shared otherwise.
                let uneven = if parts > 1.0 && parts % 2.0 > 0.0 { work / parts } else { 0.0 };
                SHARED + uneven
            }
        };
        work + waited + CALL + shared
    }
}

/// Cycles of what a node computes.
pub(super) fn work(graph: &Graph, node: &Node, machine: &Machine) -> f64 {
    multiply_adds(graph, node, machine) / machine.in_a_cycle()
}

/// The same in multiply-adds of a vector.
fn multiply_adds(graph: &Graph, node: &Node, machine: &Machine) -> f64 {
    let lanes = f64::from(machine.lanes);
    let results = node.ty.elements() as f64;
    let read = |index: usize| {
        node.operands.get(index).map_or(0.0, |&operand| graph.ty(operand).elements() as f64)
    };
    let columns = *node.ty.dims.last().unwrap_or(&1);
    let (outer, last) = node.ty.dims.split_at(node.ty.dims.len().saturating_sub(2));
    let outer: usize = outer.iter().product();
    let rows = *last.first().unwrap_or(&1);
    let distance = |depth: usize| 4 * depth as u64;
    // Four bytes of each element, from and to the second-level cache.
    let moved = |elements: f64| elements / lanes;
    match &node.op {
        Op::Input { .. } | Op::Constant(_) => 0.0,
        Op::Contract(c) => {
            let depth = *graph.ty(node.operands[0]).dims.last().unwrap_or(&1);
            // Few rows have the weights read for little work.
            let weights = if c.weights == Weights::Plain { 0.0 } else { moved(read(1)) };
            let product = machine.product(rows, columns, distance(depth));
            (outer * depth) as f64 * product + weights
        }
        Op::Attention(attention) => {
            let columns = |index: usize| *graph.ty(node.operands[index]).dims.last().unwrap_or(&1);
            let (depth, keys, width) = (columns(0), columns(1), columns(2).max(1));
            let stages = &attention.rows.stages;
            let each: usize = stages.iter().map(|stage| stage.expr.nodes.len() + 1).sum();
            let scores = results / width as f64 * keys as f64;
            (scores * (depth + each) as f64 + results * keys as f64) / lanes
        }
        Op::Conv(c) => {
            let channels = *graph.ty(node.operands[0]).dims.last().unwrap_or(&1);
            let taps: usize = c.taps.iter().product();
            if c.groups > 1 {
                let each = (taps * channels / c.groups) as f64;
                return 2.0 * results * each / lanes + moved(read(1));
            }
            // A matrix product, of all rows of an image at once where each tap is one element.
            let whole = taps == 1 && c.strides.iter().all(|&stride| stride == 1);
            let (outer, rows) = if whole { (1, outer * rows) } else { (outer, rows) };
            let product = machine.product(rows, columns, distance(channels));
            (outer * taps * channels) as f64 * product + moved(read(1))
        }
        Op::Pool(p) => results * p.window.iter().product::<usize>() as f64 / lanes,
        Op::Map(expr) => results * expr.nodes.len() as f64 / lanes,
        Op::Rows(rows) => {
            let each: usize = rows.stages.iter().map(|stage| stage.expr.nodes.len() + 1).sum();
            let domain = results.max(read(0));
            domain * each as f64 / lanes
        }
        Op::Winograd(w) => {
            let all =
                |of: &dyn Fn(&Filter) -> usize| w.axes.iter().map(of).product::<usize>() as f64;
            let mean = w.axes.iter().map(|axis| axis.tile as f64 / 2.0).sum::<f64>();
            let sides = |inputs: f64| (results + inputs) * (mean + 3.0) / lanes;
            match w.side {
                Side::Input { .. } | Side::Output { .. } => sides(read(0)),
                Side::Both { parts, .. } => {
                    let inputs: f64 = (0..parts).map(read).sum();
                    // Of a result.
                    let points = all(&|axis| axis.points()) / all(&|axis| axis.tile);
                    sides(inputs) * points + products(graph, node, machine) + moved(read(parts))
                }
            }
        }
        Op::Reduce { .. } | Op::ArgReduce { .. } => moved(read(0)),
        Op::Gather { .. } => moved(2.0 * results),
        Op::Scan(_) => moved(read(0)),
        Op::Scatter { .. } => moved(results + 2.0 * read(2)),
        // A network of comparisons over runs.
        Op::Sort { count, .. } => {
            let bits = count.next_power_of_two().max(32).ilog2() as f64;
            read(0) * bits * (bits + 1.0) * 2.0 / lanes
        }
        // Their operands are mostly written where they belong.
        Op::Pad { .. } | Op::Concat { .. } => 0.0,
        Op::Reshape | Op::Permute(_) | Op::Slice { .. } | Op::Broadcast => 0.0,
    }
}

/// Multiply-adds of the products of a convolution by minimal filtering, block by block.
fn products(graph: &Graph, node: &Node, machine: &Machine) -> f64 {
    /// To begin with a block.
    const BLOCK: f64 = 100.0;
    let (Some(blocks), Some(channels)) = (blocks(graph, node), channels(graph, node)) else {
        return 0.0;
    };
    let [images, .., outputs] = node.ty.dims[..] else { return 0.0 };
    let depth = (blocks.all * channels) as f64;
    let each = |(count, tiles)| {
        let product = machine.product(tiles, outputs, 4 * channels as u64);
        count as f64 * (depth * product + BLOCK)
    };
    images as f64 * blocks.sizes().map(each).sum::<f64>()
}
