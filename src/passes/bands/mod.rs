//! Bands of rows: a chain of nodes is computed in several turns, each for some rows of its result, so that
//! no tensor between its inputs and its result is ever there as a whole.
//!
//! A [`Region`] is a node, its sink, and nodes before it that nothing else needs. For each band of the
//! sink's rows it follows, backwards, which rows of every other node are needed ([`rows`]). Windows of
//! convolutions reach beyond a band: the rows that two bands have in common are kept from one to the
//! next as copies ([`Overlap::Kept`]) or computed twice ([`Overlap::Computed`]). What comes from outside
//! of the region is read in place, row by row; the bands of the result are concatenated, which costs
//! nothing since each is written where it belongs. Weights are shared by all bands.
//!
//! In the same turn, nodes are computed once more before those that read them late ([`Again`]), so that
//! nothing is kept in between.
//!
//! What is worth it is decided elsewhere: both lower the memory that is needed and cost time.

mod again;
mod rows;
mod write;

pub use again::{Again, Sites};
pub use rows::Axis;

use super::rewrite::Rewriter;
use crate::mir::{Graph, Op, Output, Role, Value};
use cranelift_entity::SecondaryMap;
use rows::{Source, sources};
use std::collections::BTreeMap;

/// What becomes of rows that two bands need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Overlap {
    /// They are kept for the next band.
    Kept,
    /// They are computed again.
    Computed,
}

/// Nodes that can be computed in bands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Region {
    /// The node whose result is there as a whole.
    pub sink: Value,
    /// All nodes, the sink among them, and the axis along which each is cut.
    pub nodes: BTreeMap<Value, Axis>,
}

/// A region and how it is cut.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cut {
    /// Which nodes.
    pub region: Region,
    /// Rows of the sink in a band.
    pub height: usize,
    /// What is done at the borders of bands.
    pub overlap: Overlap,
}

impl Region {
    /// The largest region that ends in `sink` and is cut along `axis`, without the nodes that `outside`
    /// keeps out; `None` if the sink cannot be cut. `uses` are the graph's.
    pub fn new(
        graph: &Graph,
        uses: &SecondaryMap<Value, u32>,
        sink: Value,
        axis: Axis,
        outside: impl Fn(Value) -> bool,
    ) -> Option<Region> {
        let mut nodes = BTreeMap::new();
        // For what some node reads by rows, the axis and how often; `None` where that is contradictory.
        let mut wanted = BTreeMap::from([(sink, Some((axis, uses[sink])))]);
        while let Some((value, wish)) = wanted.pop_last() {
            let node = &graph.nodes[value];
            let Some((axis, count)) = wish else { continue };
            let inner = value == sink || count == uses[value] && !outside(value);
            if !inner || node.ty.elements() == 0 {
                continue;
            }
            let Some(sources) = sources(graph, value, axis) else { continue };
            nodes.insert(value, axis);
            for (&operand, source) in node.operands.iter().zip(sources) {
                let wish = match source {
                    Source::Whole => None,
                    Source::Rows(axis, _) => {
                        let known = wanted.get(&operand).copied().unwrap_or(Some((axis, 0)));
                        known.filter(|known| known.0 == axis).map(|(axis, n)| (axis, n + 1))
                    }
                };
                wanted.insert(operand, wish);
            }
        }
        nodes.contains_key(&sink).then_some(Region { sink, nodes })
    }

    /// The same without the nodes before `first`.
    #[must_use]
    pub fn from(&self, first: Value) -> Region {
        let nodes = self.nodes.range(first..).map(|(&value, &axis)| (value, axis)).collect();
        Region { sink: self.sink, nodes }
    }

    /// Rows of the sink.
    pub fn rows(&self, graph: &Graph) -> usize {
        self.nodes[&self.sink].count(graph.ty(self.sink))
    }

    /// What its nodes read that is no constant and none of them, ascending.
    pub fn leaves(&self, graph: &Graph) -> Vec<Value> {
        let all = self.nodes.keys().flat_map(|&v| graph.nodes[v].operands.iter().copied());
        let outer = |v: &Value| !self.nodes.contains_key(v) && graph.constant(*v).is_none();
        let mut leaves: Vec<Value> = all.filter(outer).collect();
        leaves.sort_unstable();
        leaves.dedup();
        leaves
    }
}

impl Cut {
    /// If the sink is to be written over an operand of the region's nodes, row by row while that is still read: the bytes
    /// before it that are needed so that no band's rows are written too early. `None` where the rows of either do not
    /// lie one behind the other.
    pub fn ahead(&self, graph: &Graph, leaf: Value) -> Option<u64> {
        write::ahead(graph, self, leaf)
    }
}

/// The graph with regions in bands and nodes that are computed again, and for each of its nodes the one that it
/// comes from. No two regions have a node in common.
pub fn split(
    graph: &Graph,
    cuts: &[Cut],
    again: &[Again],
) -> (Graph, SecondaryMap<Value, Option<Value>>) {
    let mut r = Rewriter::new(graph);
    let mut from: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
    let sites = Sites::new(cuts);
    let sinks: BTreeMap<Value, &Cut> = cuts.iter().map(|cut| (cut.region.sink, cut)).collect();
    let again = again::by_reader(again, &sites);
    for old in graph.nodes.keys() {
        for again in again.get(&old).into_iter().flatten() {
            again::write(&mut r, &mut from, again);
        }
        match sinks.get(&old) {
            Some(cut) => {
                write::bands(&mut r, &mut from, cut, usize::MAX);
            }
            None if sites.is_cut(old) => {}
            None => {
                let new = r.copy(old);
                from[new] = Some(old);
            }
        }
    }
    (r.finish(), from)
}

/// As [`split`] with the first bands of a region only, at most so many; with how many nodes there are
/// behind each of them.
pub fn preview(graph: &Graph, cut: &Cut, most: usize) -> (Graph, Vec<usize>) {
    let mut r = Rewriter::new(graph);
    let mut from = SecondaryMap::new();
    let mut ends = vec![];
    for old in graph.nodes.keys() {
        if old == cut.region.sink {
            ends = write::bands(&mut r, &mut from, cut, most);
        } else if !cut.region.nodes.contains_key(&old) {
            r.copy(old);
        }
    }
    (r.finish(), ends)
}

/// A region as a graph of its own: its leaves are inputs, its sink is the result. With the region's new
/// values.
pub fn alone(graph: &Graph, region: &Region) -> (Graph, Region) {
    let mut part = graph.skeleton();
    let nodes = region.nodes.keys().flat_map(|&v| graph.nodes[v].operands.iter().copied());
    let mut all: Vec<Value> = nodes.chain(region.nodes.keys().copied()).collect();
    all.sort_unstable();
    all.dedup();
    let mut values: BTreeMap<Value, Value> = BTreeMap::new();
    for old in all {
        let mut node = graph.nodes[old].clone();
        if region.nodes.contains_key(&old) {
            node.operands.iter_mut().for_each(|operand| *operand = values[operand]);
        } else if graph.constant(old).is_none() {
            node.operands.clear();
            node.op = Op::Input { name: old.to_string(), role: Role::Input };
        }
        let is_input = matches!(node.op, Op::Input { .. });
        let new = part.nodes.push(node);
        part.inputs.extend(is_input.then_some(new));
        values.insert(old, new);
    }
    let sink = values[&region.sink];
    part.outputs.push(Output { name: "sink".to_owned(), value: sink });
    let nodes = region.nodes.iter().map(|(old, &axis)| (values[old], axis)).collect();
    (part, Region { sink, nodes })
}

#[cfg(test)]
mod tests;
