//! Products of so great a depth that the second-level cache does not hold the rows beside a panel of the weights are
//! done in parts of the depth, one behind the other: each adds to the sums of the one before. Convolutions of
//! single elements are such products.
//!
//! What the epilogue adds to the sum is added by the first part, so that the sums may lie where a residual lay; the
//! last part does what is left of it.

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::expr::Ref;
use crate::mir::{Binary, Contract, Conv, Expr, Graph, Node, Op, Scalar, Value, Weights};
use crate::tensor::Tensor;
use crate::types::DType;
use std::collections::BTreeMap;
use std::ops::Range;

/// Operations that may be left for the last part. More of them are better done to sums that are stored, which is
/// not possible where the sums of the part before are.
const MOST_LEFT: usize = 6;

/// Parts begin at multiples of this, so that rows do so at lines.
const STEP: usize = 16;

/// See the module's text.
pub fn cut(graph: Graph, machine: &Machine) -> Graph {
    let mut r = Rewriter::new(&graph);
    let mut known = BTreeMap::new();
    for (old, node) in &graph.nodes {
        match Case::new(&graph, node, machine) {
            Some(case) => {
                let new = case.write(&mut r, old, &mut known);
                r.set(old, new);
            }
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

/// A product that is cut.
struct Case<'a> {
    node: &'a Node,
    weights: &'a Tensor,
    /// The epilogue's node that is the sum and what is added to it.
    sum: Ref,
    /// Depth of a part.
    depth: usize,
}

impl<'a> Case<'a> {
    /// `None` where one part is as good.
    fn new(graph: &'a Graph, node: &'a Node, machine: &Machine) -> Option<Case<'a>> {
        let (layout, epilogue) = match &node.op {
            Op::Contract(c) => (c.weights, &c.epilogue),
            // A product of all of an image's elements.
            Op::Conv(c) if c.groups == 1 && c.taps.iter().chain(&c.strides).all(|&n| n == 1) => {
                (c.weights, &c.epilogue)
            }
            _ => return None,
        };
        let weights = graph.constant(node.operands[1])?;
        let (left, right) = (graph.ty(node.operands[0]), weights.ty());
        let [one @ .., depth, columns] = &right.dims[..] else { return None };
        let floats = [left, right, &node.ty].iter().all(|ty| ty.dtype == DType::F32);
        if layout != Weights::Plain || !floats || one.iter().any(|&d| d != 1) {
            return None;
        }
        let rows = node.ty.elements() / columns.max(&1);
        let parts = machine.depths(rows, *columns, *depth);
        if parts < 2 || node.ty.elements() == 0 {
            return None;
        }
        let depth = depth.div_ceil(parts).next_multiple_of(STEP);
        let (sum, left) = match epilogue {
            None => (0, 0),
            Some(epilogue) => {
                let sum = added_to(epilogue)?;
                let left = epilogue.cost() - epilogue.clone().returning(sum).cost();
                (sum, left)
            }
        };
        (left <= MOST_LEFT).then_some(Case { node, weights, sum, depth })
    }

    fn write(
        &self,
        r: &mut Rewriter<'_>,
        old: Value,
        known: &mut BTreeMap<(Value, usize, usize), Value>,
    ) -> Value {
        let operands = r.operands(old);
        let [rows, weights] = [operands[0], operands[1]];
        let rest = &operands[2..];
        let dims = self.weights.dims();
        let axis = dims.len() - 2;
        let identity = Expr::identity();
        let epilogue = match &self.node.op {
            Op::Contract(Contract { epilogue, .. }) | Op::Conv(Conv { epilogue, .. }) => epilogue,
            _ => &None,
        };
        let epilogue = epilogue.as_ref().unwrap_or(&identity);
        let mut before = None;
        for start in (0..dims[axis]).step_by(self.depth) {
            let depth = self.depth.min(dims[axis] - start);
            let range = start..start + depth;
            let rows = r.narrow(rows, r.new.ty(rows).rank() - 1, start, depth);
            let weights = *known.entry((weights, start, depth)).or_insert_with(|| {
                let part = part(self.weights, range.clone());
                let (ty, origins) = (part.ty().clone(), r.new.nodes[weights].origins.clone());
                r.push(Op::Constant(part), vec![], ty, origins)
            });
            let (epilogue, added) = match before {
                None => (epilogue.clone().returning(self.sum), rest.to_vec()),
                Some(before) if range.end == dims[axis] => {
                    (self.last(epilogue, rest.len()), [rest, &[before]].concat())
                }
                Some(before) => (added(1), vec![before]),
            };
            let (epilogue, added) = compact(&epilogue, &added);
            let epilogue = Some(epilogue).filter(|e| *e != identity);
            let op = match &self.node.op {
                Op::Contract(c) => Op::Contract(Contract { epilogue, ..c.clone() }),
                Op::Conv(c) => Op::Conv(Conv { epilogue, ..c.clone() }),
                other => other.clone(),
            };
            let (ty, origins) = (self.node.ty.clone(), self.node.origins.clone());
            before = Some(r.push(op, [&[rows, weights], &added[..]].concat(), ty, origins));
        }
        before.unwrap_or(rows)
    }

    /// The epilogue of the last part: the sums of those before are the operand behind `rest` others.
    fn last(&self, epilogue: &Expr, rest: usize) -> Expr {
        let mut out = Expr::new();
        let sum = out.operand(0);
        let before = out.operand(rest + 1);
        let sum = out.binary(Binary::Add, sum, before);
        let mut new: Vec<Ref> = vec![];
        for (i, node) in epilogue.nodes.iter().enumerate() {
            let whole = i == self.sum as usize;
            new.push(if whole { sum } else { out.push(node.with_args(|a| new[a as usize])) });
        }
        let result = new.last().copied().unwrap_or(sum);
        out.returning(result)
    }
}

/// The sum and operand `n`.
fn added(n: usize) -> Expr {
    let mut out = Expr::new();
    let (sum, other) = (out.operand(0), out.operand(n));
    out.binary(Binary::Add, sum, other);
    out
}

/// The node of an epilogue that is the product's sum and as much as possible that is added to it; all else needs
/// no other way to the sum.
fn added_to(epilogue: &Expr) -> Option<Ref> {
    let index = |i: usize| u32::try_from(i).ok();
    let sum = epilogue.nodes.iter().position(|node| *node == Scalar::Operand(0))?;
    let mut at = index(sum)?;
    loop {
        let mut users = epilogue.nodes.iter().enumerate().filter(|(_, n)| n.args().contains(&at));
        let (Some((user, &Scalar::Binary(Binary::Add, a, b))), None) = (users.next(), users.next())
        else {
            return Some(at);
        };
        if a == b {
            return Some(at);
        }
        at = index(user)?;
    }
}

/// An epilogue without the operands that it does not read.
fn compact(epilogue: &Expr, operands: &[Value]) -> (Expr, Vec<Value>) {
    let reads = |n: u32| epilogue.nodes.contains(&Scalar::Operand(n));
    let count = u32::try_from(operands.len()).unwrap_or(u32::MAX);
    let read: Vec<u32> = (1..=count).filter(|&n| reads(n)).collect();
    let place = |n: u32| read.iter().take_while(|&&other| other < n).count() as u32 + 1;
    let renamed = epilogue.with_operands(|n| if n == 0 { 0 } else { place(n) });
    (renamed, read.iter().map(|&n| operands[n as usize - 1]).collect())
}

/// These rows of a matrix, with its dimensions of 1 before.
fn part(weights: &Tensor, rows: Range<usize>) -> Tensor {
    let (rank, mut ty) = (weights.dims().len(), weights.ty().clone());
    let row = ty.dims[rank - 1] * ty.dtype.bytes();
    ty.dims[rank - 2] = rows.len();
    Tensor::moved(ty.clone(), &format!("rows {rows:?}"), &[weights], move |of| {
        let bytes = of[0].bytes().slice(rows.start * row..rows.end * row);
        Tensor::from_bytes(ty, bytes).expect("rows have their bytes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Builder, Output, Role, eval, verify::verify};
    use crate::passes::{dce, epilogue};
    use crate::types::Type;

    /// How many products there are of one whose result this is done to, with the same results.
    fn parts(finish: impl Fn(&mut Builder, Value, Value) -> Value) -> usize {
        let mut b = Builder::new("deep");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 20, 250]));
        let residual = b.input("residual", Role::Input, Type::new(DType::F32, [1, 20, 200]));
        let weights = b.constant(Tensor::noise(&[250, 200], 1));
        let y = b.contract(x, weights);
        let y = finish(&mut b, y, residual);
        let graph = b.finish(vec![Output { name: "y".to_owned(), value: y }]);
        let graph = dce::eliminate(epilogue::fuse(graph));
        let inputs: Vec<Tensor> =
            graph.inputs.iter().map(|&v| Tensor::noise(&graph.ty(v).dims, 7)).collect();
        let before = eval::graph(&graph, &inputs);
        let graph = cut(graph, &Machine { l2: 64 << 10, ..Machine::AVX2 });
        verify(&graph).unwrap();
        for (a, b) in before.iter().zip(eval::graph(&graph, &inputs)) {
            for (a, b) in a.f64s().into_iter().zip(b.f64s()) {
                assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}\n{graph}");
            }
        }
        graph.nodes.values().filter(|node| matches!(node.op, Op::Contract(_))).count()
    }

    #[test]
    fn deep_products_are_cut() {
        assert_eq!(parts(|_, y, _| y), 2);
        assert_eq!(parts(|b, y, residual| b.binary(Binary::Add, residual, y)), 2);
        let rectified = |b: &mut Builder, y, residual| {
            let bias = b.constant(Tensor::noise(&[200], 2));
            let y = b.binary(Binary::Add, y, bias);
            let y = b.binary_scalar(Binary::Max, y, 0.0);
            b.binary(Binary::Mul, y, residual)
        };
        assert_eq!(parts(rectified), 2);
        // Twice the same sum is one, which is read once.
        assert_eq!(parts(|b, y, _| b.binary(Binary::Add, y, y)), 2);
    }

    #[test]
    fn long_epilogues_stay_whole() {
        let chain = |count: usize| {
            move |b: &mut Builder, y: Value, _: Value| {
                (0..count).fold(y, |y, i| match i % 2 {
                    0 => b.binary_scalar(Binary::Mul, y, 1.5),
                    _ => b.binary_scalar(Binary::Max, y, -0.5),
                })
            }
        };
        assert_eq!(parts(chain(MOST_LEFT)), 2);
        assert_eq!(parts(chain(MOST_LEFT + 1)), 1);
    }
}
