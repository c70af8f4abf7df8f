//! Drops what no output depends on. Inputs stay.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Value};
use cranelift_entity::SecondaryMap;

/// See the module's text.
pub fn eliminate(graph: Graph) -> Graph {
    let mut needed: SecondaryMap<Value, bool> = SecondaryMap::with_capacity(graph.nodes.len());
    graph
        .outputs
        .iter()
        .map(|o| o.value)
        .chain(graph.inputs.iter().copied())
        .for_each(|v| needed[v] = true);
    for (value, node) in graph.nodes.iter().rev() {
        if needed[value] {
            node.operands.iter().for_each(|&v| needed[v] = true);
        }
    }
    if graph.nodes.keys().all(|v| needed[v]) {
        return graph;
    }
    let mut r = Rewriter::new(&graph);
    for value in graph.nodes.keys().filter(|&v| needed[v]) {
        r.copy(value);
    }
    r.finish()
}
