//! Constant weights of products into panels: the order in which the kernel reads them.

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::{Contract, Conv, Graph, Op, Value, Weights, quads};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use bytes::Bytes;
use std::collections::BTreeMap;

/// See the module's text.
pub fn pack(graph: Graph, machine: &Machine) -> Graph {
    let mut r = Rewriter::new(&graph);
    let mut packed: BTreeMap<(Value, Shape), Value> = BTreeMap::new();
    for (old, node) in &graph.nodes {
        let shape = match &node.op {
            Op::Contract(c) if c.weights == Weights::Plain => contraction(&graph, node, machine),
            Op::Contract(Contract { weights: Weights::Nibbles { width, columns, .. }, .. })
                if width == columns =>
            {
                words(&graph, node, machine)
            }
            Op::Conv(c) if c.weights == Weights::Plain => convolution(&graph, c, node, machine),
            _ => None,
        };
        let weights = node.operands.get(1).copied();
        let (Some(shape), Some(weights)) = (shape, weights) else {
            r.copy(old);
            continue;
        };
        let packable = |t: &&Tensor| matches!(t.ty().dtype, DType::F32 | DType::I8 | DType::I32);
        let Some(tensor) = graph.constant(weights).filter(packable) else {
            r.copy(old);
            continue;
        };
        let blocks = match &node.op {
            Op::Contract(Contract { weights: Weights::Nibbles { blocks, .. }, .. }) => {
                Some(*blocks)
            }
            _ => None,
        };
        if tensor.ty().dtype == DType::I32 && blocks.is_none() {
            r.copy(old);
            continue;
        }
        // Bytes alone have sums of bytes.
        if tensor.ty().dtype == DType::I8 && shape.run.is_none() {
            r.copy(old);
            continue;
        }
        let narrow = halves(node, tensor, machine);
        let shape = Shape { narrow, ..shape };
        let constant = *packed.entry((weights, shape)).or_insert_with(|| {
            let tensor = match shape.narrow {
                Some(dtype) => &tensor.narrowed(dtype),
                None => tensor,
            };
            let mut tensor = packed_later(tensor, shape);
            if blocks.is_some() {
                let dims = tensor.dims()[1..].to_vec();
                tensor = tensor.reshaped(dims).expect("one matrix is a matrix");
            } else if let Op::Contract(_) = node.op {
                let dims =
                    [&graph.ty(weights).dims[..graph.ty(weights).rank() - 2], &tensor.dims()[1..]]
                        .concat();
                tensor = tensor.reshaped(dims).expect("batches are groups");
            }
            let (ty, origins) = (tensor.ty().clone(), graph.nodes[weights].origins.clone());
            r.push(Op::Constant(tensor), vec![], ty, origins)
        });
        let mut operands = r.operands(old);
        operands[1] = constant;
        let Shape { width, columns, run, .. } = shape;
        let layout = match (run, blocks) {
            (Some(run), _) => Weights::Quads { width, columns, run },
            (None, Some(blocks)) => Weights::Nibbles { width, columns, blocks },
            (None, None) => Weights::Panels { width, columns },
        };
        let op = match &node.op {
            Op::Contract(c) => Op::Contract(Contract { weights: layout, ..c.clone() }),
            Op::Conv(c) => Op::Conv(Conv { weights: layout, ..c.clone() }),
            other => other.clone(),
        };
        let new = r.push(op, operands, node.ty.clone(), node.origins.clone());
        r.set(old, new);
    }
    r.finish()
}

/// The type of two bytes in which weights of `f32` have all their numbers, where half of the bytes are read sooner.
fn halves(node: &crate::mir::Node, weights: &Tensor, machine: &Machine) -> Option<DType> {
    if weights.ty().dtype != DType::F32 || machine.lanes == 1 {
        return None;
    }
    let types: &[DType] =
        if machine.half_floats { &[DType::F16, DType::BF16] } else { &[DType::BF16] };
    weights.narrow(types).filter(|_| matches!(node.op, Op::Contract(_)))
}

/// Weights as `groups` matrices of `depth` by `columns`: element (g, k, n) of the constant is at
/// `g * group + k * row + n`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Shape {
    groups: usize,
    depth: usize,
    columns: usize,
    group: usize,
    row: usize,
    width: usize,
    /// Of bytes, which stand in fours.
    run: Option<usize>,
    /// Of `f32`, which become numbers of two bytes.
    narrow: Option<DType>,
}

impl Shape {
    /// Of matrices one behind the other.
    fn of([groups, depth, columns]: [usize; 3], width: usize) -> Shape {
        let (group, row, run, narrow) = (depth * columns, columns, None, None);
        Shape { groups, depth, columns, group, row, width, run, narrow }
    }

    /// The type of the panels.
    fn panels(&self, dtype: DType) -> Type {
        let count = self.columns.div_ceil(self.width);
        Type::new(dtype, [self.groups, count, self.depth, self.width])
    }
}

/// Whether a product is one of bytes in fours.
fn is_of_bytes(graph: &Graph, node: &crate::mir::Node) -> bool {
    let of = |index: usize| graph.ty(node.operands[index]).dtype;
    (of(0), of(1)) == (DType::U8, DType::I8)
}

fn contraction(graph: &Graph, node: &crate::mir::Node, machine: &Machine) -> Option<Shape> {
    let (a, b) = (&graph.ty(node.operands[0]).dims, &graph.ty(node.operands[1]).dims);
    let rank = b.len();
    let (rows, depth, columns) = (a[rank - 2], b[rank - 2], b[rank - 1]);
    let groups = b[..rank - 2].iter().product();
    let bytes = is_of_bytes(graph, node);
    // A single column is summed along its depth as it is: a panel would be mostly filling.
    if columns == 1 && !bytes {
        return None;
    }
    let (machine, size) = if bytes { (machine.of_bytes(), 1) } else { (*machine, 4) };
    let distance = depth as u64 * size;
    let width = machine.tile(rows, columns, distance).vectors * machine.lanes as usize;
    (depth * columns > 0).then_some(Shape {
        groups,
        depth,
        columns,
        group: depth * columns,
        row: columns,
        width,
        run: bytes.then_some(depth),
        narrow: None,
    })
}

/// The matrix of words of a product by numbers of four bits.
fn words(graph: &Graph, node: &crate::mir::Node, machine: &Machine) -> Option<Shape> {
    let (rows, b) = (graph.ty(node.operands[0]).dims[0], &graph.ty(node.operands[1]).dims);
    let (words, columns) = (b[1], b[2]);
    let distance = graph.ty(node.operands[0]).dims[1] as u64 * 4;
    let width = machine.of_blocks().tile(rows, columns, distance).vectors * machine.lanes as usize;
    (words * columns > 0).then_some(Shape::of([1, words, columns], width))
}

fn convolution(
    graph: &Graph,
    c: &Conv,
    node: &crate::mir::Node,
    machine: &Machine,
) -> Option<Shape> {
    let w = &graph.ty(node.operands[1]).dims;
    let (per_group, outputs) = (w[w.len() - 2], w[w.len() - 1]);
    let (depth, columns) =
        (c.taps.iter().product::<usize>() * per_group, outputs / c.groups.max(1));
    // Depthwise kernels run over the channels.
    let repeated = c.repeats(per_group * c.groups, outputs);
    let is_f32 = [0, 1].iter().all(|&i| graph.ty(node.operands[i]).dtype == DType::F32);
    let in_vectors = |n: usize| n == 1 || is_f32 && (machine.lanes as usize).is_multiple_of(n);
    if repeated.is_some_and(in_vectors) || depth * columns == 0 {
        return None;
    }
    // One row of tiles is one row of the result, or all of it where the rows continue each other.
    let dims = &node.ty.dims;
    let pointwise = c.taps.iter().chain(&c.strides).all(|&n| n == 1);
    let rows =
        if pointwise { dims[1..dims.len() - 1].iter().product() } else { dims[dims.len() - 2] };
    let channels = (per_group * c.groups) as u64;
    let bytes = is_of_bytes(graph, node);
    let (machine, size) = if bytes { (machine.of_bytes(), 1) } else { (*machine, 4) };
    let distance = channels * c.strides.last().map_or(1, |&s| s as u64) * size;
    // Taps side by side are one run, unless fours lose nothing.
    let all = c.taps.last().map_or(per_group, |&taps| taps * per_group);
    let together = per_group % 4 != 0 && c.has_runs_of(all, per_group);
    let run = bytes.then_some(if together { all } else { per_group });
    let width = machine.tile(rows, columns, distance).vectors * machine.lanes as usize;
    let (group, row, narrow) = (columns, outputs, None);
    Some(Shape { groups: c.groups, depth, columns, group, row, width, run, narrow })
}

/// Matrices `[groups, depth, columns]` in panels: `[groups, panels, depth, width]`.
pub(super) fn panels_of(matrices: &Tensor, width: usize) -> Tensor {
    panels(matrices, &Shape::of([0, 1, 2].map(|axis| matrices.dims()[axis]), width))
}

/// The dimensions of what [`panels_of`] gives.
pub(super) fn panels_of_dims(matrices: [usize; 3], width: usize) -> Vec<usize> {
    Shape::of(matrices, width).panels(DType::F32).dims
}

/// The panels, in fours where they are of bytes.
fn packed_later(weights: &Tensor, shape: Shape) -> Tensor {
    let ty = shape.panels(weights.ty().dtype);
    let ty = match shape.run {
        Some(run) => ty.with_dims(quads::packed_dims(&ty.dims, run)),
        None => ty,
    };
    Tensor::later(ty, &format!("panels {shape:?}"), &[weights], move |of| {
        let panels = panels(of[0], &shape);
        shape.run.map_or_else(|| panels.clone(), |run| quads::packed(&panels, run))
    })
}

/// `[groups, panels, depth, width]`, the last panel of each group filled with zeros.
fn panels(weights: &Tensor, s: &Shape) -> Tensor {
    let ty = s.panels(weights.ty().dtype);
    let count = ty.dims[1];
    let (from, size) = (weights.bytes(), ty.dtype.bytes());
    let mut data = Vec::with_capacity(ty.bytes());
    for group in 0..s.groups {
        for panel in 0..count {
            let first = panel * s.width;
            let columns = s.width.min(s.columns - first);
            for k in 0..s.depth {
                let at = (group * s.group + k * s.row + first) * size;
                data.extend_from_slice(&from[at..at + columns * size]);
                data.resize(data.len() + (s.width - columns) * size, 0);
            }
        }
    }
    Tensor::from_bytes(ty, Bytes::from(data)).expect("panels are as large as they are")
}
