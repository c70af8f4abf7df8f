//! Softmax, normalizations and whatever else reduces rows becomes one row program.
//!
//! A cluster is grown from its last node towards its operands: element-wise nodes over one domain,
//! and reductions over its last axis, as long as everything that is absorbed is used inside only. A
//! cluster with a reduction in it becomes [`Op::Rows`].

use super::rewrite::{Rewriter, merged};
use crate::mir::{Expr, Graph, Op, Rows, Scalar, Stage, Unary, Value};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Operands of a program.
const MOST_OPERANDS: usize = 10;
/// Work that is rather done twice than kept in memory, see [`work`].
const CHEAP: usize = 3;

/// See the module's text.
pub fn fuse(graph: Graph) -> Graph {
    let mut users: SecondaryMap<Value, Vec<Value>> = SecondaryMap::new();
    for (value, node) in &graph.nodes {
        node.operands.iter().for_each(|&v| users[v].push(value));
    }
    let mut pinned: SecondaryMap<Value, bool> = SecondaryMap::new();
    graph.outputs.iter().for_each(|o| pinned[o.value] = true);

    // From the end, so that a cluster is as large as it can be.
    let mut taken: SecondaryMap<Value, bool> = SecondaryMap::new();
    let mut clusters: BTreeMap<Value, BTreeSet<Value>> = BTreeMap::new();
    for sink in graph.nodes.keys().rev() {
        if taken[sink] {
            continue;
        }
        let Some(domain) = domain(&graph, sink) else { continue };
        let cluster = grow(&graph, sink, &domain, |v, cluster| {
            !taken[v] && !pinned[v] && users[v].iter().all(|u| cluster.contains(u))
        });
        let reduces = cluster.iter().any(|&v| matches!(graph.nodes[v].op, Op::Reduce { .. }));
        if reduces && cluster.len() > 1 && external(&graph, &cluster).len() <= MOST_OPERANDS {
            cluster.iter().for_each(|&v| taken[v] = true);
            clusters.insert(sink, cluster);
        }
    }
    let mut r = Rewriter::new(&graph);
    for old in graph.nodes.keys() {
        match clusters.get(&old) {
            Some(cluster) => {
                let operands = external(&graph, cluster);
                let width = domain(&graph, old)
                    .and_then(|d| d.last().copied())
                    .expect("a cluster has a domain");
                let program = Rows { stages: stages(&graph, cluster, &operands), width };
                let origins = merged(cluster.iter().map(|&v| graph.nodes[v].origins.as_slice()));
                let operands = operands.into_iter().map(|v| r.get(v)).collect();
                let new = r.push(Op::Rows(program), operands, graph.ty(old).clone(), origins);
                r.set(old, new);
            }
            None if taken[old] => {}
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

/// The dimensions that a cluster with this sink ranges over.
fn domain(graph: &Graph, sink: Value) -> Option<Vec<usize>> {
    let node = &graph.nodes[sink];
    match &node.op {
        Op::Map(_) if node.ty.dims.last().is_some_and(|&d| d > 1) => Some(node.ty.dims.clone()),
        Op::Reduce { axes, .. } => {
            let x = &graph.ty(node.operands[0]).dims;
            (*axes == [x.len() - 1] && !x.contains(&0)).then(|| x.clone())
        }
        _ => None,
    }
}

fn grow(
    graph: &Graph,
    sink: Value,
    domain: &[usize],
    may: impl Fn(Value, &BTreeSet<Value>) -> bool,
) -> BTreeSet<Value> {
    let mut row = domain.to_vec();
    *row.last_mut().expect("a domain has a row") = 1;
    let fits = |v: Value| {
        let node = &graph.nodes[v];
        match &node.op {
            Op::Map(_) => node.ty.dims == *domain || node.ty.dims == row,
            Op::Reduce { axes, .. } => {
                *axes == [domain.len() - 1] && graph.ty(node.operands[0]).dims == *domain
            }
            _ => false,
        }
    };
    let mut cluster = BTreeSet::from([sink]);
    // All users of a value come after it: one walk in descending order sees every candidate when its
    // users are decided.
    let mut candidates: BTreeSet<Value> = graph.nodes[sink].operands.iter().copied().collect();
    while let Some(v) = candidates.pop_last() {
        if fits(v) && may(v, &cluster) {
            cluster.insert(v);
            candidates.extend(&graph.nodes[v].operands);
        }
    }
    cluster
}

/// What the cluster reads, in order of first use.
fn external(graph: &Graph, cluster: &BTreeSet<Value>) -> Vec<Value> {
    let mut found = vec![];
    for v in cluster.iter().flat_map(|&v| &graph.nodes[v].operands) {
        if !cluster.contains(v) && !found.contains(v) {
            found.push(*v);
        }
    }
    found
}

/// One stage per reduction, one per expression that is worth keeping, and the last.
fn stages(graph: &Graph, cluster: &BTreeSet<Value>, operands: &[Value]) -> Vec<Stage> {
    let mut inside: BTreeMap<Value, usize> = BTreeMap::new();
    for v in cluster.iter().flat_map(|&v| &graph.nodes[v].operands) {
        *inside.entry(*v).or_default() += 1;
    }
    let mut stages: Vec<Stage> = vec![];
    // What stands for a value: an expression over the operands and the stages so far.
    let mut meaning: BTreeMap<Value, Expr> = BTreeMap::new();
    let operand = |n: usize| Expr {
        nodes: vec![Scalar::Operand(u32::try_from(n).expect("operands are few"))],
    };
    for (i, &v) in operands.iter().enumerate() {
        meaning.insert(v, operand(i));
    }
    let sink = *cluster.last().expect("a cluster has a sink");
    for &v in cluster {
        let node = &graph.nodes[v];
        let mut expr = Expr::new();
        let mut refs = vec![];
        for o in &node.operands {
            let all: Vec<u32> =
                (0..operands.len() + stages.len()).map(|n| expr.operand(n)).collect();
            refs.push(expr.inline(&meaning[o], &all));
        }
        let (result, reduce) = match &node.op {
            Op::Map(body) => (expr.inline(body, &refs), None),
            Op::Reduce { op, .. } => (refs[0], Some(*op)),
            _ => unreachable!("clusters have maps and reductions"),
        };
        let expr = expr.returning(result);
        let kept = reduce.is_some() || v == sink || inside[&v] > 1 && work(&expr) > CHEAP;
        if kept {
            meaning.insert(v, operand(operands.len() + stages.len()));
            stages.push(Stage { expr, reduce });
        } else {
            meaning.insert(v, expr);
        }
    }
    stages
}

/// What an expression costs, in simple operations.
fn work(expr: &Expr) -> usize {
    let cost = |node: &Scalar| match node {
        Scalar::Operand(_) | Scalar::Literal(_) => 0,
        Scalar::Unary(
            Unary::Neg
            | Unary::Abs
            | Unary::Not
            | Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Trunc,
            _,
        ) => 1,
        Scalar::Unary(Unary::Sqrt, _) => 4,
        Scalar::Unary(..) => 12,
        Scalar::Binary(crate::mir::Binary::Pow, ..) => 30,
        Scalar::Binary(crate::mir::Binary::Div, ..) => 4,
        Scalar::Binary(..) | Scalar::Compare(..) | Scalar::Select(..) | Scalar::Cast(..) => 1,
    };
    expr.nodes.iter().map(cost).sum()
}
