//! The order of the steps.

use crate::mir::{Graph, Value};

/// The values in the order in which they are computed.
pub fn schedule(graph: &Graph) -> Vec<Value> {
    graph.nodes.keys().collect()
}
