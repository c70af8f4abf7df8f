//! Convolutions of few channels, which fill no vector, compute several neighbouring results at once: the
//! channels of `s` results along the last spatial axis are those of one result of a convolution whose windows
//! are `s` times as far apart and long enough to hold all of theirs. It multiplies by zeros where a window of
//! one is not that of another, so this is for windows that have most of their elements in common.

use super::rewrite::{Rewriter, is_repeatable};
use crate::machine::Machine;
use crate::mir::{Conv, Graph, Node, Op, Value, Weights};
use crate::tensor::Tensor;
use crate::types::DType;

/// See the module's text.
pub fn join(graph: Graph, machine: &Machine) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        match Case::new(&graph, node, machine) {
            Some(case) => {
                let new = case.write(&mut r, old);
                r.set(old, new);
            }
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

struct Case<'a> {
    node: &'a Node,
    conv: &'a Conv,
    weights: &'a Tensor,
    /// Results at once.
    count: usize,
}

impl<'a> Case<'a> {
    /// `None` where one result at a time is as good.
    fn new(graph: &'a Graph, node: &'a Node, machine: &Machine) -> Option<Case<'a>> {
        let Op::Conv(conv) = &node.op else { return None };
        let weights = graph.constant(node.operands[1])?;
        let fits = conv.groups == 1
            && conv.weights == Weights::Plain
            && conv.dilations.last() == Some(&1)
            && weights.ty().dtype == DType::F32
            && node.ty.elements() > 0
            && node.operands[2..].iter().all(|&v| is_repeatable(graph, v));
        if !fits {
            return None;
        }
        let (&taps, &stride) = (conv.taps.last()?, conv.strides.last()?);
        let [.., channels, columns] = *weights.dims() else { return None };
        let [.., results, _] = node.ty.dims[..] else { return None };
        let time = |count: usize| {
            let (taps, stride) = (taps + (count - 1) * stride, stride * count);
            let distance = (channels * stride) as u64 * 4;
            taps as f64 * machine.product(results / count, columns * count, distance)
        };
        // What it gains must be worth the weights' zeros.
        const WORTH: f64 = 0.85;
        let most = machine.lanes as usize / columns.max(1);
        let count = (2..=most)
            .filter(|count| results.is_multiple_of(*count))
            .min_by(|&a, &b| time(a).total_cmp(&time(b)))?;
        (time(count) < WORTH * time(1)).then_some(Case { node, conv, weights, count })
    }

    fn write(&self, r: &mut Rewriter<'_>, old: Value) -> Value {
        let Case { node, conv, count, .. } = *self;
        let mut operands = r.operands(old);
        let weights = self.weights();
        let mut conv = Conv { ..conv.clone() };
        for (taps, stride) in conv.taps.last_mut().into_iter().zip(conv.strides.last_mut()) {
            (*taps, *stride) = (*taps + (count - 1) * *stride, *stride * count);
        }
        let ty = weights.ty().clone();
        let origins = r.old.nodes[node.operands[1]].origins.clone();
        operands[1] = r.push(Op::Constant(weights), vec![], ty, origins);
        for operand in &mut operands[2..] {
            *operand = r.repeated(*operand, count);
        }
        let mut dims = node.ty.dims.clone();
        if let [.., results, channels] = &mut dims[..] {
            (*results, *channels) = (*results / count, *channels * count);
        }
        let ty = node.ty.with_dims(dims);
        let all = r.push(Op::Conv(conv), operands, ty, node.origins.clone());
        r.reshape(all, &node.ty.dims)
    }

    /// `[taps.., channels, count * columns]`: those of each result moved to where its window begins.
    fn weights(&self) -> Tensor {
        let Case { conv, weights, count, .. } = *self;
        let (dims, rank) = (weights.dims(), weights.dims().len());
        let (taps, stride) = (dims[rank - 3], conv.strides.last().copied().unwrap_or(1));
        let (channels, columns) = (dims[rank - 2], dims[rank - 1]);
        let all = taps + (count - 1) * stride;
        let before: usize = dims[..rank - 3].iter().product();
        let from = weights.f32s();
        let mut to = vec![0f32; before * all * channels * count * columns];
        for row in 0..before * taps * channels {
            let (outer, tap, channel) =
                (row / channels / taps, row / channels % taps, row % channels);
            for result in 0..count {
                let place = (outer * all + tap + result * stride) * channels + channel;
                let at = (place * count + result) * columns;
                to[at..at + columns].copy_from_slice(&from[row * columns..][..columns]);
            }
        }
        let dims = [&dims[..rank - 3], &[all, channels, count * columns]].concat();
        Tensor::from_f32s(dims, &to)
    }
}
