//! Numbers of two bytes (`f16`, `bf16`) are those of memory only: what is computed is computed in `f32`.
//!
//! A model of two-byte floats rounds after each operation. Here it does so where numbers are given or kept: inputs,
//! parameters, results, and what only moves such numbers (a cache of keys that grows, a table of words). All between
//! is in `f32`, like an expression in C whose evaluation has more precision than its type: nearer to what is
//! meant, and what all the other passes know. Constants become `f32` as well; where they are best read as what they
//! were, [`pack`](super::pack) makes them that again.

use super::rewrite::Rewriter;
use crate::mir::{Expr, Graph, Literal, Node, Op, Output, Scalar, Value};
use crate::types::DType;
use cranelift_entity::SecondaryMap;

/// See the module's text.
pub fn widen(graph: Graph) -> Graph {
    if graph.nodes.values().all(|node| !is_narrow(node.ty.dtype)) {
        return graph;
    }
    let nodes = graph.nodes.len();
    let mut w = Widener { r: Rewriter::new(&graph), other: SecondaryMap::with_capacity(nodes) };
    for (old, node) in &graph.nodes {
        let new = match kept(&graph, node, &w) {
            true => w.as_it_was(old),
            false => w.wide_node(old),
        };
        w.r.set(old, new);
    }
    // Inputs are what the caller knows; results are what is promised.
    for output in &graph.outputs {
        w.of_type(output.value, graph.ty(output.value).dtype);
    }
    let output = |o: &Output| {
        let value = w.known(o.value, graph.ty(o.value).dtype);
        Output { name: o.name.clone(), value }
    };
    let outputs = graph.outputs.iter().map(output).collect();
    Graph { outputs, ..w.r.finish() }
}

fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Whether a node's result stays what it is: of two bytes where it is given, or moved from where that is so.
fn kept(graph: &Graph, node: &Node, w: &Widener<'_>) -> bool {
    if !is_narrow(node.ty.dtype) {
        // It may read such numbers all the same.
        return node.operands.iter().all(|&v| !is_narrow(graph.ty(v).dtype));
    }
    let is_kept = |v: &Value| w.r.new.ty(w.r.get(*v)).dtype == node.ty.dtype;
    let moved = match &node.op {
        Op::Input { .. } | Op::Constant(_) => return true,
        Op::Reshape | Op::Permute(_) | Op::Slice { .. } | Op::Broadcast => &node.operands[..1],
        Op::Gather { .. } | Op::Pad { .. } | Op::Scatter { op: None } => &node.operands[..1],
        Op::Concat { .. } => &node.operands[..],
        Op::Map(_)
        | Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::Rows(_)
        | Op::Contract(_)
        | Op::Attention(_)
        | Op::Conv(_)
        | Op::Winograd(_)
        | Op::Pool(_)
        | Op::Scatter { op: Some(_) }
        | Op::Sort { .. }
        | Op::Scan(_) => return false,
    };
    moved.iter().any(is_kept)
}

struct Widener<'a> {
    r: Rewriter<'a>,
    /// Of what has become of an old value: the same numbers in the other type, where somebody has asked for them.
    other: SecondaryMap<Value, Option<Value>>,
}

impl Widener<'_> {
    /// The old value in a type.
    fn of_type(&mut self, old: Value, dtype: DType) -> Value {
        let new = self.r.get(old);
        if self.r.new.ty(new).dtype == dtype {
            return new;
        }
        if let Some(other) = self.other[old] {
            return other;
        }
        let node = &self.r.new.nodes[new];
        let (ty, origins) = (node.ty.with_dtype(dtype), node.origins.clone());
        let other = match &node.op {
            Op::Constant(tensor) if dtype == DType::F32 => {
                let op = Op::Constant(tensor.widened());
                self.r.push(op, vec![], ty, origins)
            }
            _ => {
                let mut e = Expr::new();
                let x = e.operand(0);
                e.cast(dtype, x);
                self.r.push(Op::Map(e), vec![new], ty, origins)
            }
        };
        self.other[old] = Some(other);
        other
    }

    /// The same, where it has been asked for.
    fn known(&self, old: Value, dtype: DType) -> Value {
        let new = self.r.get(old);
        match self.other[old] {
            Some(other) if self.r.new.ty(new).dtype != dtype => other,
            _ => new,
        }
    }

    /// The node with operands of the types that they had.
    fn as_it_was(&mut self, old: Value) -> Value {
        let Node { op, operands, ty, origins } = &self.r.old.nodes[old];
        let of = |w: &mut Self, v: Value| w.of_type(v, w.r.old.ty(v).dtype);
        let operands = operands.iter().map(|&v| of(self, v)).collect();
        self.r.push(op.clone(), operands, ty.clone(), origins.clone())
    }

    /// The node with `f32` in the place of two bytes.
    fn wide_node(&mut self, old: Value) -> Value {
        let Node { op, operands, ty, origins } = &self.r.old.nodes[old];
        let wide = |dtype: DType| if is_narrow(dtype) { DType::F32 } else { dtype };
        let of = |w: &mut Self, v: Value| w.of_type(v, wide(w.r.old.ty(v).dtype));
        let operands = operands.iter().map(|&v| of(self, v)).collect();
        let op = match op {
            Op::Map(expr) => Op::Map(wide_expr(expr)),
            Op::Pad { low, high, interior, value } => {
                let [low, high, interior] = [low, high, interior].map(Clone::clone);
                Op::Pad { low, high, interior, value: wide_literal(*value) }
            }
            op => op.clone(),
        };
        let ty = ty.with_dtype(wide(ty.dtype));
        self.r.push(op, operands, ty, origins.clone())
    }
}

fn wide_literal(literal: Literal) -> Literal {
    match is_narrow(literal.dtype) {
        true => Literal::from_f64(DType::F32, literal.f64()),
        false => literal,
    }
}

fn wide_expr(expr: &Expr) -> Expr {
    let wide = |node: &Scalar| match *node {
        Scalar::Literal(literal) => Scalar::Literal(wide_literal(literal)),
        Scalar::Cast(to, a) if is_narrow(to) => Scalar::Cast(DType::F32, a),
        node => node,
    };
    Expr { nodes: expr.nodes.iter().map(wide).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Builder, Role, eval, verify::verify};
    use crate::tensor::Tensor;
    use crate::types::Type;

    /// A cache that grows by what is computed, and a product that reads it.
    #[test]
    fn what_is_computed_is_wide() {
        for dtype in [DType::F16, DType::BF16] {
            let mut b = Builder::new("narrow");
            let x = b.input("x", Role::Input, Type::new(dtype, [2, 8]));
            let past = b.input("past", Role::Input, Type::new(dtype, [3, 8]));
            let noise = |dims: &[usize], seed| {
                let values = Tensor::noise(dims, seed).f64s();
                Tensor::from_f64s(Type::new(dtype, dims), values)
            };
            let weights = b.constant(noise(&[8, 8], 1));
            let y = b.contract(x, weights);
            let y = b.unary(crate::mir::Unary::Tanh, y);
            let all = b.concat(&[past, y], 0);
            let turned = b.permute(all, &[1, 0]);
            let scores = b.contract(y, turned);
            let output = |name: &str, value| Output { name: name.to_owned(), value };
            let outputs = vec![output("all", all), output("scores", scores), output("past", past)];
            let graph = crate::passes::dce::eliminate(b.finish(outputs));
            let inputs = [noise(&[2, 8], 2), noise(&[3, 8], 3)];
            let before = eval::graph(&graph, &inputs);
            let types: Vec<Type> =
                graph.outputs.iter().map(|o| graph.ty(o.value).clone()).collect();
            let graph = crate::passes::dce::eliminate(widen(graph));
            verify(&graph).unwrap();
            for (node, ty) in graph.outputs.iter().zip(&types) {
                assert_eq!(graph.ty(node.value), ty);
            }
            for node in graph.nodes.values() {
                let moves = !matches!(node.op, Op::Contract(_) | Op::Map(_));
                assert!(moves || !is_narrow(node.ty.dtype) || node.operands.len() == 1, "{graph}");
            }
            let precision = if dtype == DType::F16 { 2e-3 } else { 2e-2 };
            for (a, b) in before.iter().zip(eval::graph(&graph, &inputs)) {
                for (a, b) in a.f64s().into_iter().zip(b.f64s()) {
                    assert!((a - b).abs() <= precision * a.abs().max(1.0), "{a} {b}\n{graph}");
                }
            }
        }
    }
}
