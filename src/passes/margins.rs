//! Convolutions whose windows lie in a border of zeros for a good part, as those with far apart taps do: cut
//! into pieces of the result that meet elements under the same taps, each a convolution with these alone over
//! the elements themselves. The last axis is left whole, in its border, where tiles of its pieces would be too
//! short.

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::{Conv, Graph, Literal, Node, Op, Value, Weights};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use bytes::Bytes;
use std::ops::Range;

/// Along an axis there are at most so many pieces.
const PIECES: usize = 5;

/// What is left of the work, at most, where the cuts are worth their steps.
const WORTH: f64 = 0.85;

/// See the module's text.
pub fn cut(graph: Graph, machine: &Machine) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        match Case::new(&graph, node, machine) {
            Some(case) => {
                let input = case.bordered(&mut r, old);
                let new = case.pieces(&mut r, old, input, &mut vec![]);
                r.set(old, new);
            }
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

/// Results along an axis that meet elements under the same taps.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    results: Range<usize>,
    /// Not empty.
    taps: Range<usize>,
    /// The elements of the input that they meet, without the border.
    elements: Range<usize>,
}

/// A spatial axis of a convolution over a bordered input.
struct Axis {
    elements: usize,
    /// Zeros before them.
    low: usize,
    taps: usize,
    stride: usize,
    dilation: usize,
    results: usize,
}

impl Axis {
    /// `None` where there are too many pieces, or one meets nothing.
    fn pieces(&self) -> Option<Vec<Piece>> {
        let mut pieces: Vec<Piece> = vec![];
        for result in 0..self.results {
            // Where a tap is, from the first element on.
            let place =
                |tap: usize| (result * self.stride + tap * self.dilation).checked_sub(self.low);
            let first = (0..self.taps).find(|&tap| place(tap).is_some())?;
            let met =
                (first..self.taps).filter(|&tap| place(tap).is_some_and(|p| p < self.elements));
            let taps = first..first + met.count();
            let elements = place(first)?..place(taps.end.checked_sub(1)?)? + 1;
            if taps.is_empty() || elements.end > self.elements {
                return None;
            }
            if let Some(last) = pieces.last_mut()
                && last.taps == taps
            {
                (last.results.end, last.elements.end) = (result + 1, elements.end);
            } else if pieces.len() == PIECES {
                return None;
            } else {
                pieces.push(Piece { results: result..result + 1, taps, elements });
            }
        }
        Some(pieces)
    }
}

struct Case<'a> {
    node: &'a Node,
    conv: &'a Conv,
    weights: &'a Tensor,
    /// Without its border.
    input: Value,
    /// Along the last spatial axis, where that is not cut.
    border: Option<[usize; 2]>,
    /// Per spatial axis.
    axes: Vec<Vec<Piece>>,
}

impl<'a> Case<'a> {
    /// `None` where the border is no great part of the work.
    fn new(graph: &'a Graph, node: &'a Node, machine: &Machine) -> Option<Case<'a>> {
        let Op::Conv(conv) = &node.op else { return None };
        let outer = &graph.nodes[node.operands[0]];
        let Op::Pad { low, high, interior, value } = &outer.op else { return None };
        let last = low.len() - 1;
        let weights = graph.constant(node.operands[1])?;
        let [.., inputs, outputs] = *weights.dims() else { return None };
        let fits = conv.weights == Weights::Plain
            && (conv.groups == 1 || inputs > 1)
            && weights.ty().dtype == DType::F32
            && value.f64() == 0.0
            && interior.iter().all(|&n| n == 0)
            && [0, last].iter().all(|&i| [low[i], high[i]] == [0; 2])
            && node.ty.elements() > 0;
        if !fits {
            return None;
        }
        let input = outer.operands[0];
        let dims = &graph.ty(input).dims;
        let axis = |i: usize| Axis {
            elements: dims[i + 1],
            low: low[i + 1],
            taps: conv.taps[i],
            stride: conv.strides[i],
            dilation: conv.dilations[i],
            results: node.ty.dims[i + 1],
        };
        let axes: Vec<Axis> = (0..conv.taps.len()).map(axis).collect();
        let mut cuts: Vec<Vec<Piece>> = axes.iter().map(Axis::pieces).collect::<Option<_>>()?;
        // The columns of a piece fill tiles less well than those of all of a row.
        let columns = outputs / conv.groups.max(1);
        let row = |results: usize| machine.product(results, columns, inputs as u64 * 4);
        let pieces = |axis: &Vec<Piece>| -> f64 {
            axis.iter().map(|piece| row(piece.results.len()) * piece.taps.len() as f64).sum()
        };
        let part = |(axis, pieces): (&Axis, &Vec<Piece>)| {
            let met: usize = pieces.iter().map(|p| p.results.len() * p.taps.len()).sum();
            met as f64 / (axis.results * axis.taps) as f64
        };
        let above: f64 = axes.iter().zip(&cuts).take(cuts.len() - 1).map(part).product();
        let (across, width) = (cuts.last().map(pieces)?, axes.last()?);
        let whole = row(width.results) * width.taps as f64;
        let mut border = None;
        if whole <= across {
            let (low, high) = (low[last - 1], high[last - 1]);
            border = Some([low, high]);
            let all = Piece {
                results: 0..width.results,
                taps: 0..width.taps,
                elements: 0..low + width.elements + high,
            };
            cuts.pop();
            cuts.push(vec![all]);
        }
        let better = above * whole.min(across) < WORTH * whole;
        better.then_some(Case { node, conv, weights, input, border, axes: cuts })
    }

    /// The input, bordered along the last axis where that is not cut.
    fn bordered(&self, r: &mut Rewriter<'_>, old: Value) -> Value {
        let input = r.get(self.input);
        let Some([low, high]) = self.border else { return input };
        let outer = &r.old.nodes[r.old.nodes[old].operands[0]];
        let (mut ty, origins) = (r.new.ty(input).clone(), outer.origins.clone());
        let at = ty.rank() - 2;
        ty.dims[at] += low + high;
        let along = |count: usize| -> Vec<usize> {
            (0..ty.rank()).map(|axis| if axis == at { count } else { 0 }).collect()
        };
        let value = Literal::from_f64(ty.dtype, 0.0);
        let op = Op::Pad { low: along(low), high: along(high), interior: along(0), value };
        r.push(op, vec![input], ty, origins)
    }

    /// The results of all pieces of the axes from `chosen.len()` on, for these pieces of those before.
    fn pieces(
        &self,
        r: &mut Rewriter<'_>,
        old: Value,
        input: Value,
        chosen: &mut Vec<usize>,
    ) -> Value {
        let at = chosen.len();
        let Some(pieces) = self.axes.get(at) else {
            return self.convolution(r, old, input, chosen);
        };
        let mut parts = vec![];
        for i in 0..pieces.len() {
            chosen.push(i);
            parts.push(self.pieces(r, old, input, chosen));
            chosen.pop();
        }
        if let [only] = parts[..] {
            return only;
        }
        let mut ty = r.new.ty(parts[0]).clone();
        ty.dims[at + 1] = self.node.ty.dims[at + 1];
        r.push(Op::Concat { axis: at + 1 }, parts, ty, self.node.origins.clone())
    }

    fn convolution(
        &self,
        r: &mut Rewriter<'_>,
        old: Value,
        input: Value,
        chosen: &[usize],
    ) -> Value {
        let pieces: Vec<&Piece> = self.axes.iter().zip(chosen).map(|(axis, &i)| &axis[i]).collect();
        let mut operands = r.operands(old);
        operands[0] = input;
        let mut dims = self.node.ty.dims.clone();
        for (axis, piece) in (1..).zip(&pieces) {
            let Range { start, end } = piece.elements;
            operands[0] = r.narrow(operands[0], axis, start, end - start);
            dims[axis] = piece.results.len();
            for operand in &mut operands[2..] {
                // Broadcast by NumPy's rule.
                let of = r.new.ty(*operand);
                let own = (axis + of.rank()).checked_sub(dims.len());
                if let Some(own) = own.filter(|&own| of.dims[own] > 1) {
                    *operand = r.narrow(*operand, own, piece.results.start, piece.results.len());
                }
            }
        }
        let weights = self.taps(&pieces);
        let ty = weights.ty().clone();
        let origins = r.old.nodes[self.node.operands[1]].origins.clone();
        operands[1] = r.push(Op::Constant(weights), vec![], ty, origins);
        let taps = pieces.iter().map(|piece| piece.taps.len()).collect();
        let op = Op::Conv(Conv { taps, ..self.conv.clone() });
        r.push(op, operands, self.node.ty.with_dims(dims), self.node.origins.clone())
    }

    /// The weights of these pieces' taps.
    fn taps(&self, pieces: &[&Piece]) -> Tensor {
        let (dims, spatial) = (self.weights.dims(), pieces.len());
        let ty = self.weights.ty();
        let size = dims[spatial..].iter().product::<usize>() * ty.dtype.bytes();
        let mut places = vec![0];
        for (piece, &taps) in pieces.iter().zip(&self.conv.taps) {
            places = (places.into_iter())
                .flat_map(|place| piece.taps.clone().map(move |tap| place * taps + tap))
                .collect();
        }
        let bytes = self.weights.bytes();
        let data: Vec<u8> =
            places.iter().flat_map(|&place| &bytes[place * size..][..size]).copied().collect();
        let taps = pieces.iter().map(|piece| piece.taps.len());
        let dims: Vec<usize> = taps.chain(dims[spatial..].iter().copied()).collect();
        Tensor::from_bytes(Type::new(ty.dtype, dims), Bytes::from(data))
            .expect("as many taps as places")
    }
}
