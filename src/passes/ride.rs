//! Products of many rows that are made while products of one row wait for their weights.
//!
//! A recurrence multiplies its state by the same matrix in each step: one row, for which all of the matrix comes from
//! the second-level cache (the carrier), while most multiply-adds are free. What the steps read besides are products of the
//! inputs with another matrix, a band of some steps at a time. The band of the steps to come does not depend
//! on the states: it is cut into strips of columns, each of which rides on a carrier of the band before
//! ([`Contract::rides`]). Only the first band is made ahead, unless another recurrence before it
//! has carriers that are free: then it rides on the last of these, as early as what it reads is there.
//!
//! The bands are found by what they are: products with the same constant matrix, and products of one row between
//! them that the later one does not depend on.

use super::pack::panels_of;
use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::{Contract, Graph, Node, Op, Value, Weights};
use crate::types::{DType, Type};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a line of the cache.
const LINE: u32 = 64;

/// Bytes of a vector, at least: shorter ones read fewer bytes for each product, and there is less to wait for.
const LEAST_BYTES: u32 = 32;

/// A carrier's matrix is so many times larger than the first-level cache, at least: of a smaller one much is there from
/// the step before, and would not be if other weights went by.
const STREAMED: u64 = 4;

/// What is not this part of the carriers' products, at least, is not worth a second band's room.
const LEAST: usize = 4;

/// Vectors of a carrier's tile, at least, beside that of the rider.
const VECTORS: usize = 4;

/// Registers for what is multiplied.
const FACTORS: usize = 3;

/// See the module's text.
pub fn cut(graph: Graph, machine: &Machine) -> Graph {
    let bands = bands(&graph, machine);
    if bands.is_empty() {
        return graph;
    }
    let lanes = machine.lanes as usize;
    let ridden: BTreeSet<Value> = bands.keys().map(|&band| graph.nodes[band].operands[1]).collect();
    // The matrices of the bands, in panels of one vector, and those of carriers.
    let mut matrices: BTreeMap<(Value, usize), Value> = BTreeMap::new();
    // Columns of the carriers' panels, where they are not what is best without riders.
    let mut narrow: BTreeMap<Value, usize> = BTreeMap::new();
    // For each carrier, which band rides on it with which of its panels; and the strips so far.
    let mut riders: BTreeMap<Value, (Value, [usize; 2])> = BTreeMap::new();
    let mut strips: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    let mut early: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for (band, Band { carriers, before }) in bands {
        let panels = graph.ty(band).dims[1].div_ceil(lanes);
        let work = |v: &Value| graph.ty(graph.nodes[*v].operands[1]).elements();
        let all: usize = carriers.iter().map(work).sum();
        let (mut done, mut from) = (0, 0);
        early.entry(carriers[0]).or_default().extend(before);
        for carrier in carriers {
            let matrix = graph.nodes[carrier].operands[1];
            let dims = [0, 1].map(|axis| graph.ty(matrix).dims[axis]);
            if let Some(width) = panel_beside(graph.ty(band).dims[0], dims, machine) {
                let known = narrow.entry(matrix).or_insert(width);
                *known = width.min(*known);
            }
            done += work(&carrier);
            let to = panels * done / all;
            if from < to {
                riders.insert(carrier, (band, [from, to]));
            }
            from = to;
        }
        strips.insert(band, vec![]);
    }
    let mut r = Rewriter::new(&graph);
    let mut written: BTreeSet<Value> = BTreeSet::new();
    for (old, node) in &graph.nodes {
        for value in early.remove(&old).into_iter().flatten() {
            if written.insert(value) {
                r.copy(value);
            }
        }
        let mut part = |r: &mut Rewriter<'_>, band: Value, panels: [usize; 2], rides: bool| {
            let matrix = graph.nodes[band].operands[1];
            let key = (matrix, lanes);
            let packed = *matrices.entry(key).or_insert_with(|| packed(r, matrix, lanes));
            strip(r, band, packed, panels, lanes, rides)
        };
        if let Some(&(band, panels)) = riders.get(&old) {
            let strip = part(&mut r, band, panels, true);
            strips.entry(band).or_default().push(strip);
        }
        // What does not ride has the same panels.
        let alone = product(&graph, node).filter(|&[rows, ..]| fits(rows, machine));
        if let Some([.., columns]) = alone.filter(|_| ridden.contains(&node.operands[1]))
            && !strips.contains_key(&old)
        {
            let new = part(&mut r, old, [0, columns.div_ceil(lanes)], false);
            r.set(old, new);
            continue;
        }
        let carrier = product(&graph, node).filter(|&[rows, ..]| rows == 1);
        let width = carrier.and_then(|_| narrow.get(&node.operands[1]));
        if let (Some([.., columns]), Some(&width), Op::Contract(contract)) =
            (carrier, width, &node.op)
        {
            let mut operands = r.operands(old);
            let key = (node.operands[1], width);
            let packed = matrices.entry(key).or_insert_with(|| packed(&mut r, key.0, width));
            operands[1] = *packed;
            let weights = Weights::Panels { width, columns };
            let op = Op::Contract(Contract { weights, ..contract.clone() });
            let new = r.push(op, operands, node.ty.clone(), node.origins.clone());
            r.set(old, new);
            continue;
        }
        if let Some(parts) = strips.remove(&old) {
            let new = r.push(Op::Concat { axis: 1 }, parts, node.ty.clone(), node.origins.clone());
            r.set(old, new);
        } else if written.insert(old) {
            r.copy(old);
        }
    }
    r.finish()
}

/// A matrix in panels of so many columns.
fn packed(r: &mut Rewriter<'_>, matrix: Value, width: usize) -> Value {
    let node = &r.old.nodes[matrix];
    let Op::Constant(tensor) = &node.op else { return r.get(matrix) };
    let [depth, columns] = [0, 1].map(|axis| tensor.dims()[axis]);
    let whole = tensor.reshaped([1, depth, columns]).expect("a matrix is one of one");
    let panels = panels_of(&whole, width);
    let panels = panels.reshaped(panels.dims()[1..].to_vec()).expect("one matrix is a matrix");
    r.push(Op::Constant(panels.clone()), vec![], panels.ty().clone(), node.origins.clone())
}

/// These panels of a band's columns.
fn strip(
    r: &mut Rewriter<'_>,
    band: Value,
    packed: Value,
    [from, to]: [usize; 2],
    lanes: usize,
    rides: bool,
) -> Value {
    let Node { op, ty, origins, .. } = &r.old.nodes[band];
    let Op::Contract(contract) = op else { return r.get(band) };
    let columns = from * lanes..ty.dims[1].min(to * lanes);
    let mut operands = r.operands(band);
    operands[1] = r.narrow(packed, 0, from, to - from);
    for operand in &mut operands[2..] {
        let dims = &r.new.ty(*operand).dims;
        let last = dims.len().wrapping_sub(1);
        if dims.last().is_some_and(|&d| d > 1) {
            *operand = r.narrow(*operand, last, columns.start, columns.len());
        }
    }
    let weights = Weights::Panels { width: lanes, columns: columns.len() };
    let op = Op::Contract(Contract { weights, rides, ..contract.clone() });
    r.push(op, operands, ty.with_dims([ty.dims[0], columns.len()]), origins.clone())
}

/// What rides, and on what.
struct Band {
    /// Products of one row, in order.
    carriers: Vec<Value>,
    /// What has to be there before the first of them and stands behind it: views, in order.
    before: Vec<Value>,
}

/// The bands that are worth it, in order.
fn bands(graph: &Graph, machine: &Machine) -> BTreeMap<Value, Band> {
    let mut found = BTreeMap::new();
    if machine.vector_bytes() < LEAST_BYTES {
        return found;
    }
    // What shorter vectors wait for is worth it only while it stays in the second-level cache. (Measured on Zen 4.)
    let most = if machine.vector_bytes() < LINE { machine.l2 / 2 } else { u64::MAX };
    // The last band of each matrix, and what may carry.
    let mut last: BTreeMap<Value, Value> = BTreeMap::new();
    let mut free: Vec<Value> = vec![];
    for (value, node) in &graph.nodes {
        let Some([rows, depth, columns]) = product(graph, node) else { continue };
        let matrix = node.operands[1];
        let bytes = graph.ty(matrix).bytes() as u64;
        if rows == 1 {
            free.extend((STREAMED * machine.l1..=most).contains(&bytes).then_some(value));
            continue;
        }
        let ridden = rows * depth * columns;
        let work = |v: &Value| graph.ty(graph.nodes[*v].operands[1]).elements();
        let mut carriers: Vec<Value> = match last.insert(matrix, value) {
            Some(earlier) => free.iter().copied().filter(|&v| v > earlier).collect(),
            // The first band may ride on what there is before it, of another recurrence: on the last ones.
            None => {
                let mut carried = 0;
                let last = free.iter().rev().take_while(|&v| {
                    let more = carried < ridden && views_behind(graph, node, *v).is_some();
                    carried += work(v);
                    more
                });
                last.copied().collect()
            }
        };
        carriers.sort_unstable();
        let Some(&first) = carriers.first() else { continue };
        let carried: usize = carriers.iter().map(work).sum();
        // The rows stay in the first-level cache, their sums in registers; what would not be hidden is made
        // faster in wider tiles.
        let near = (rows * depth * DType::F32.bytes()) as u64 <= machine.l1 / 2;
        let hidden = ridden <= 2 * carried && ridden * LEAST >= carried;
        if !near || !fits(rows, machine) || !hidden {
            continue;
        }
        if let Some(before) = views_behind(graph, node, first) {
            free.retain(|v| *v < first);
            found.insert(value, Band { carriers, before });
        }
    }
    found
}

/// Whether there are registers for as many sums and for those of a carrier.
fn fits(rows: usize, machine: &Machine) -> bool {
    rows + VECTORS + FACTORS <= machine.registers as usize
}

/// Columns of a panel that is one tile beside that of a rider of so many rows, where that is less than a product of
/// one row has by itself.
fn panel_beside(rows: usize, [depth, columns]: [usize; 2], machine: &Machine) -> Option<usize> {
    let free = (machine.registers as usize).checked_sub(rows + FACTORS)?;
    let distance = (depth * DType::F32.bytes()) as u64;
    let alone = machine.tile(1, columns, distance).vectors;
    let vectors = (1..=alone).rev().find(|&v| alone.is_multiple_of(v) && v <= free)?;
    (vectors < alone).then_some(vectors * machine.lanes as usize)
}

/// Rows, depth and columns of a matrix product with a constant.
fn product(graph: &Graph, node: &Node) -> Option<[usize; 3]> {
    let Op::Contract(Contract { weights: Weights::Plain, .. }) = &node.op else { return None };
    let [a, b] = [0, 1].map(|i| graph.ty(node.operands[i]));
    let all = a.dtype == DType::F32 && a.rank() == 2 && node.ty.dtype == DType::F32;
    let known = graph.constant(node.operands[1]).is_some();
    let dims = [a.dims.first()?, a.dims.last()?, b.dims.last()?].map(|&d| d);
    (all && known && *b == Type::new(DType::F32, [dims[1], dims[2]]) && dims[1] > 1).then_some(dims)
}

/// What a node needs that stands behind `first`, in order; `None` where something of it is computed.
fn views_behind(graph: &Graph, node: &Node, first: Value) -> Option<Vec<Value>> {
    let mut open = node.operands.clone();
    let mut found = BTreeSet::new();
    while let Some(value) = open.pop() {
        if value < first || !found.insert(value) {
            continue;
        }
        let node = &graph.nodes[value];
        let free = matches!(node.op, Op::Constant(_) | Op::Concat { .. });
        if !free && !node.op.is_view() {
            return None;
        }
        open.extend(&node.operands);
    }
    Some(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Builder, Output, Role, Unary, eval};
    use crate::tensor::Tensor;

    /// A chain of states of `units`, each of which adds a row of products of the inputs, which are made in bands of
    /// `band` rows: what rides, as columns of the strips.
    fn riding(units: usize, steps: usize, band: usize, machine: &Machine) -> Vec<usize> {
        let mut b = Builder::new("chain");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [steps, 60]));
        let mut h = b.input("h", Role::Input, Type::new(DType::F32, [1, units]));
        let w = b.constant(Tensor::noise(&[60, units], 1));
        let u = b.constant(Tensor::noise(&[units, units], 2));
        for first in (0..steps).step_by(band) {
            let count = band.min(steps - first);
            let rows = b.narrow(x, 0, first, count);
            let rows = b.contract(rows, w);
            for row in 0..count {
                let row = b.narrow(rows, 0, row, 1);
                let own = b.contract(h, u);
                let sum = b.binary(crate::mir::Binary::Add, own, row);
                h = b.unary(Unary::Tanh, sum);
            }
        }
        let graph = b.finish(vec![Output { name: "y".to_owned(), value: h }]);
        let inputs = [[steps, 60], [1, units]].map(|dims| Tensor::noise(&dims, 3));
        let expected = eval::graph(&graph, &inputs);
        let graph = cut(graph, machine);
        assert_eq!(crate::mir::verify::verify(&graph), Ok(()), "{graph}");
        assert_eq!(eval::graph(&graph, &inputs), expected);
        let strips = graph.nodes.values().filter_map(|node| match &node.op {
            Op::Contract(c) if c.rides => Some(node.ty.dims[1]),
            _ => None,
        });
        strips.collect()
    }

    #[test]
    fn strips_are_even() {
        assert_eq!(riding(192, 16, 8, &Machine::AVX512), [16, 32].repeat(4));
        assert_eq!(riding(192, 15, 8, &Machine::AVX512), [16, 32].repeat(4));
        assert_eq!(riding(192, 16, 8, &Machine::AVX2), [24; 8]);
        // The last panel is not full.
        assert_eq!(riding(188, 24, 12, &Machine::AVX512), [[16; 11].as_slice(), &[12]].concat());
        // More steps than panels.
        assert_eq!(riding(188, 26, 13, &Machine::AVX512).iter().sum::<usize>(), 188);
    }

    /// The first band of a second layer rides on the last carriers of the first one.
    #[test]
    fn layers_follow_each_other() {
        let (units, steps, band) = (192, 16, 8);
        let mut b = Builder::new("layers");
        let mut x = b.input("x", Role::Input, Type::new(DType::F32, [steps, units]));
        let zeros = b.constant(Tensor::zeros(Type::new(DType::F32, [1, units])));
        for layer in 0..2 {
            let [w, u] = [0, 1].map(|i| b.constant(Tensor::noise(&[units, units], 2 * layer + i)));
            let (mut h, mut all) = (zeros, vec![]);
            for first in (0..steps).step_by(band) {
                let rows: Vec<Value> = match layer {
                    0 => vec![b.narrow(x, 0, first, band)],
                    _ => (first..first + band).map(|row| b.narrow(x, 0, row, 1)).collect(),
                };
                let rows = if rows.len() > 1 { b.concat(&rows, 0) } else { rows[0] };
                let rows = b.contract(rows, w);
                for row in 0..band {
                    let row = b.narrow(rows, 0, row, 1);
                    let own = b.contract(h, u);
                    let sum = b.binary(crate::mir::Binary::Add, own, row);
                    h = b.unary(Unary::Tanh, sum);
                    all.push(h);
                }
            }
            x = b.concat(&all, 0);
        }
        let graph = b.finish(vec![Output { name: "y".to_owned(), value: x }]);
        let graph = super::super::pieces::cut(graph);
        let inputs = [Tensor::noise(&[steps, units], 3)];
        let expected = eval::graph(&graph, &inputs);
        let graph = cut(graph, &Machine::AVX512);
        assert_eq!(crate::mir::verify::verify(&graph), Ok(()), "{graph}");
        assert_eq!(eval::graph(&graph, &inputs), expected);
        let ahead = graph.nodes.values().filter(|node| match &node.op {
            Op::Contract(c) => !c.rides && node.ty.dims[0] == band,
            _ => false,
        });
        assert_eq!(ahead.count(), 1, "{graph}");
    }

    #[test]
    fn only_where_it_pays() {
        // A matrix in the first-level cache is there at once.
        assert!(riding(64, 16, 8, &Machine::AVX512).is_empty());
        // Too many sums.
        assert!(riding(192, 60, 30, &Machine::AVX512).is_empty());
        assert!(riding(192, 40, 10, &Machine::AVX2).is_empty());
        // One band is needed at once.
        assert!(riding(192, 8, 8, &Machine::AVX512).is_empty());
        // Too little to hide.
        assert!(riding(400, 16, 8, &Machine::AVX512).is_empty());
    }
}
