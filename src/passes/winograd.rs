//! Convolutions of few taps, in steps of 1 or 2, by minimal filtering ([`mir::winograd`](crate::mir::winograd)): a
//! transformation of tiles of the input, a product of matrices for each point, and a transformation of
//! tiles of products, which applies the epilogue.
//!
//! One spatial axis is the columns of an image with one row. Of three the outermost may have any taps: what lies under
//! them are parts of the channels, and its results are images. If the others have one tap each they are one axis.
//!
//! Weights are transformed here, in 64 bits, and rounded once. A zero border around the input is left to
//! the transformation. The image is cut into bands of rows of tiles, one after the other, so that what lies
//! between the three stays in the cache, and needs little room that the model does not need elsewhere.
//!
//! All three are one step ([`Side::Both`]) where the weights stay in the cache for all blocks: threads
//! share blocks, and each reads what it wrote itself. Else they are three steps, and threads share the
//! weights.
//!
//! Which tiles and bands, and whether any, is decided by what the steps cost on the machine
//! ([`Case::cost`]): fewer products and more of everything else, weights above all.

mod plan;
mod room;
mod weights;
mod write;

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::winograd::Filter;
use crate::mir::{Conv, Graph, Node, Op, Value, Weights};
use crate::types::DType;
use cranelift_entity::SecondaryMap;
use room::Room;
use std::collections::BTreeMap;
use weights::transformed_panels;

/// See the module's text.
pub fn filter(graph: Graph, machine: &Machine) -> Graph {
    let mut r = Rewriter::new(&graph);
    let mut room = Room::new(&graph);
    let slack = room.most / 4;
    let uses = graph.uses();
    let stream = stream(&graph, machine);
    let mut transformed: BTreeMap<(Value, [Filter; 2], usize), Value> = BTreeMap::new();
    for (old, node) in &graph.nodes {
        let case = Case::new(&graph, &uses, node, stream);
        let plan = case.as_ref().and_then(|case| case.plan(machine, room.beside(old), slack));
        let (Some(case), Some(plan)) = (case, plan) else {
            r.copy(old);
            continue;
        };
        room.take(old, case.between(plan));
        let weights = node.operands[1];
        let tile = machine.tile(case.rows(plan), case.outputs, case.distance());
        let width = tile.vectors * machine.lanes as usize;
        let key = (weights, plan.axes, width);
        let constant = match (transformed.get(&key), graph.constant(weights)) {
            (Some(&known), _) => known,
            (None, Some(tensor)) => {
                let tensor = transformed_panels(tensor, plan.axes, width);
                let (ty, origins) = (tensor.ty().clone(), graph.nodes[weights].origins.clone());
                let new = r.push(Op::Constant(tensor), vec![], ty, origins);
                transformed.insert(key, new);
                new
            }
            (None, None) => {
                r.copy(old);
                continue;
            }
        };
        let new = case.write(&mut r, old, plan, (constant, width));
        r.set(old, new);
    }
    r.finish()
}

/// Bytes of weights that come in the time of a multiply-add: from near if a run finds all of them where the
/// one before it left them.
fn stream(graph: &Graph, machine: &Machine) -> f64 {
    let constants = graph.nodes.values().filter(|node| matches!(node.op, Op::Constant(_)));
    let all: u64 = constants.map(|node| node.ty.bytes() as u64).sum();
    // Transformed ones are longer, and there is more than weights.
    if all <= machine.l2 / 2 { 4.0 * machine.stream() } else { machine.stream() }
}

/// A convolution for which there is a plan.
struct Case<'a> {
    node: &'a Node,
    conv: &'a Conv,
    /// The input without its border: parts of its channels, which are transformed by themselves, so that
    /// they need not be brought together before.
    inputs: Vec<Value>,
    /// The axes of the convolution.
    form: Form,
    /// Zeros above and left of it.
    before: [usize; 2],
    /// Extent of the kernel and from one window to the next, along both axes.
    taps: [usize; 2],
    strides: [usize; 2],
    /// Done at once: all of the input's, or the planes of one of them.
    images: usize,
    /// Rows and columns of the input.
    extents: [usize; 2],
    /// Under all taps of the outermost axis, if there are three.
    channels: usize,
    /// Rows and columns of the result.
    results: [usize; 2],
    outputs: usize,
    /// See [`stream`].
    stream: f64,
}

/// How the axes of a convolution are images of rows and columns.
enum Form {
    /// As they are.
    Image,
    /// One spatial axis: there is one row.
    Line,
    /// Three spatial axes, the inner two of which are the columns.
    Columns,
    /// Three spatial axes: the outermost one is apart.
    Planes(Planes),
}

/// The outermost of three spatial axes.
struct Planes {
    taps: usize,
    stride: usize,
    dilation: usize,
    /// Zeros before and behind the input.
    border: [usize; 2],
    results: usize,
}

impl<'a> Case<'a> {
    fn new(
        graph: &'a Graph,
        uses: &SecondaryMap<Value, u32>,
        node: &'a Node,
        stream: f64,
    ) -> Option<Case<'a>> {
        let Op::Conv(conv) = &node.op else { return None };
        let f32s = node.operands.iter().all(|&v| graph.ty(v).dtype == DType::F32);
        let fits = conv.groups == 1
            && conv.weights == Weights::Plain
            && f32s
            && node.ty.dtype == DType::F32
            && node.ty.elements() > 0;
        let columns =
            matches!(conv.taps[..], [taps, 1, 1] if taps > 1) && conv.strides[1..] == [1, 1];
        // What is said of each spatial axis, of rows and columns.
        let both = |all: &[usize], none: usize| match *all {
            [columns] => Some([none, columns]),
            [rows, one, two] if columns => (one == none && two == none).then_some([rows, none]),
            [rows, columns] | [_, rows, columns] => Some([rows, columns]),
            _ => None,
        };
        let (taps, strides) = (both(&conv.taps, 1)?, both(&conv.strides, 1)?);
        let axis = |i: usize| Filter { tile: 2, taps: taps[i], stride: strides[i] };
        let known = |i: usize| axis(i).is_known() || taps[i] == 1 && strides[i] == 1;
        let near = columns || conv.dilations.iter().rev().take(2).all(|&n| n == 1);
        let near = near && (!columns || conv.dilations[0] == 1);
        if !fits || !near || !(0..2).all(known) || taps == [1, 1] {
            return None;
        }
        let rank = node.ty.rank();
        let outer = usize::from(conv.taps.len() == 3 && !columns);
        let (mut input, mut before, mut border) = (node.operands[0], [0, 0], [0, 0]);
        let padded = &graph.nodes[input];
        if let Op::Pad { low, high, interior, value } = &padded.op
            && value.f64() == 0.0
            && interior.iter().all(|&n| n == 0)
            && [low, high].iter().all(|p| p[0] == 0 && p[rank - 1] == 0)
            && let Some([above, behind]) = both(&low[1..rank - 1], 0)
                .zip(both(&high[1..rank - 1], 0))
                .map(|(low, high)| [low, high])
            && [above, behind].iter().all(|p| (0..2).all(|i| p[i] < taps[i]))
        {
            (input, before) = (padded.operands[0], above);
            border = [low, high].map(|zeros| zeros[1..1 + outer].iter().sum());
        }
        let dims = &graph.ty(input).dims;
        if dims.contains(&0) {
            return None;
        }
        let parts = &graph.nodes[input];
        let inputs = match &parts.op {
            // (In a border they are together.)
            &Op::Concat { axis } if axis == rank - 1 && uses[input] == 1 && border == [0, 0] => {
                parts.operands.clone()
            }
            _ => vec![input],
        };
        let spatial = |dims: &[usize]| match columns {
            true => [dims[1], dims[2] * dims[3]],
            false if rank == 3 => [1, dims[1]],
            false => [dims[rank - 3], dims[rank - 2]],
        };
        let form = match rank {
            3 => Form::Line,
            5 if columns => Form::Columns,
            5 => Form::Planes(Planes {
                taps: conv.taps[0],
                stride: conv.strides[0],
                dilation: conv.dilations[0],
                border,
                results: node.ty.dims[1],
            }),
            _ => Form::Image,
        };
        // Operands of the epilogue are the same for all columns, or not for any two axes of them.
        let alike = |&value: &Value| {
            let all = &graph.ty(value).dims;
            let Some(first) = all.len().checked_sub(3) else { return true };
            let axes = &all[first..];
            axes[..2] == [1, 1] || axes[..2] == node.ty.dims[2..4]
        };
        let short = |value: &Value| graph.ty(*value).rank() == 2 && graph.ty(*value).dims[0] > 1;
        if columns && !node.operands[2..].iter().all(|v| alike(v) && !short(v)) {
            return None;
        }
        let (images, planes) = match &form {
            Form::Planes(planes) => (planes.results, planes.taps),
            Form::Image | Form::Line | Form::Columns => (node.ty.dims[0], 1),
        };
        Some(Case {
            node,
            conv,
            inputs,
            before,
            taps,
            strides,
            images,
            extents: spatial(dims),
            channels: dims[rank - 1] * planes,
            form,
            results: spatial(&node.ty.dims),
            outputs: node.ty.dims[rank - 1],
            stream,
        })
    }

    /// How many parts the input has for each that there is.
    fn planes(&self) -> usize {
        match &self.form {
            Form::Planes(planes) => planes.taps,
            Form::Image | Form::Line | Form::Columns => 1,
        }
    }

    /// Dimensions of what is done at once.
    fn dims(&self) -> [usize; 4] {
        [self.images, self.results[0], self.results[1], self.outputs]
    }

    /// With tiles of this extent, where there are matrices for it.
    fn axes(&self, tile: usize) -> Option<[Filter; 2]> {
        let axes = [0, 1].map(|i| {
            let (taps, stride) = (self.taps[i], self.strides[i]);
            Filter { tile: if taps == 1 { 1 } else { tile }, taps, stride }
        });
        axes.iter().all(|axis| axis.is_known()).then_some(axes)
    }

    /// Rows and columns of tiles.
    fn tiles(&self, axes: [Filter; 2]) -> [usize; 2] {
        [0, 1].map(|i| axes[i].tiles(self.results[i]))
    }
}
