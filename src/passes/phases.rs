//! Convolutions over elements with zeros between them, which is what transposed convolutions are, by
//! phases: results that lie `s` apart, `s - 1` being the number of zeros, meet elements under the same
//! taps, every s-th, and zeros under the others. So there are `s` convolutions along an axis, each with
//! its taps, over the elements themselves, and their results interleave.
//!
//! Along the last axis they may be one convolution with `s` times as many channels, over the elements that
//! any of the phases meets, whose results lie where they belong: where that is no slower, as with few
//! channels.

use super::rewrite::{Rewriter, is_repeatable};
use crate::machine::Machine;
use crate::mir::{Conv, Graph, Literal, Node, Op, Value, Weights};
use crate::tensor::Tensor;
use crate::types::Type;
use bytes::Bytes;

/// See the module's text.
pub fn split(graph: Graph, machine: &Machine) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let Some(case) = Case::new(&graph, node, machine) else {
            r.copy(old);
            continue;
        };
        let new = case.write(&mut r, old);
        r.set(old, new);
    }
    r.finish()
}

/// One spatial axis.
#[derive(Debug)]
struct Axis {
    /// Distance of neighbouring elements.
    step: usize,
    taps: usize,
    results: usize,
    /// Zeros before and behind the elements that the phases need.
    border: [usize; 2],
    /// Results of each phase.
    each: usize,
    phases: Vec<Phase>,
}

/// Results `r`, `r + s`, ..
#[derive(Debug)]
struct Phase {
    /// The first tap that meets elements.
    first: usize,
    /// How many do.
    taps: usize,
    /// The bordered element that the first tap meets first.
    start: usize,
}

/// What all phases of an axis meet.
#[derive(Clone, Copy, Debug)]
struct Union {
    /// The first bordered element that one of them meets.
    start: usize,
    taps: usize,
}

impl Axis {
    fn union(&self) -> Option<Union> {
        let start = self.phases.iter().map(|phase| phase.start).min()?;
        let end = self.phases.iter().map(|phase| phase.start + phase.taps).max()?;
        Some(Union { start, taps: end - start })
    }

    /// `elements`, with `low` zeros before them; `None` where a phase meets none.
    fn new(elements: usize, step: usize, low: usize, taps: usize, results: usize) -> Option<Axis> {
        let each = results.div_ceil(step);
        let mut phases = vec![];
        let mut border = [0i64; 2];
        for phase in 0..step.min(results) {
            let first = (low as i64 - phase as i64).rem_euclid(step as i64);
            let met = taps.checked_sub(first as usize).filter(|&n| n > 0)?.div_ceil(step);
            // The element under the first tap; it may lie before the first.
            let start = (phase as i64 + first - low as i64) / step as i64;
            let end = start + (each + met - 1) as i64;
            border = [border[0].max(-start), border[1].max(end - elements as i64)];
            phases.push((first as usize, met, start));
        }
        let phase = |(first, taps, start): (usize, usize, i64)| Phase {
            first,
            taps,
            start: (start + border[0]) as usize,
        };
        let phases = phases.into_iter().map(phase).collect();
        let border = border.map(|n| n as usize);
        Some(Axis { step, taps, results, border, each, phases })
    }
}

/// A list about axes in another order of these.
fn reordered(list: &[usize], order: &[usize]) -> Vec<usize> {
    order.iter().map(|&axis| list[axis]).collect()
}

struct Case<'a> {
    node: &'a Node,
    conv: &'a Conv,
    weights: &'a Tensor,
    /// Without the zeros.
    input: Value,
    /// The order of its axes in which it is read.
    order: Vec<usize>,
    axes: Vec<Axis>,
    /// Of the last axis, where its phases are one convolution.
    union: Option<Union>,
}

impl<'a> Case<'a> {
    fn new(graph: &'a Graph, node: &'a Node, machine: &Machine) -> Option<Case<'a>> {
        let Op::Conv(conv) = &node.op else { return None };
        let mut outer = &graph.nodes[node.operands[0]];
        let mut order: Vec<usize> = (0..outer.ty.rank()).collect();
        if let Op::Permute(perm) = &outer.op {
            (order, outer) = (perm.clone(), &graph.nodes[outer.operands[0]]);
        }
        let Op::Pad { low, high, interior, value } = &outer.op else { return None };
        let [low, high, interior] = [low, high, interior].map(|list| reordered(list, &order));
        let (input, last) = (outer.operands[0], interior.len() - 1);
        let dims = reordered(&graph.ty(input).dims, &order);
        let plain = conv.strides.iter().chain(&conv.dilations).all(|&n| n == 1)
            && conv.weights == Weights::Plain
            && value.f64() == 0.0
            && interior.iter().any(|&n| n > 0)
            && [0, last].iter().all(|&i| [low[i], high[i], interior[i]] == [0; 3])
            && !dims.contains(&0)
            && node.ty.elements() > 0;
        if !plain {
            return None;
        }
        let weights = graph.constant(node.operands[1])?;
        let axis = |i: usize| {
            let results = node.ty.dims[i + 1];
            Axis::new(dims[i + 1], interior[i + 1] + 1, low[i + 1], conv.taps[i], results)
        };
        let axes: Vec<Axis> = (0..conv.taps.len()).map(axis).collect::<Option<_>>()?;
        // What an epilogue reads is the same along an axis that is split, or each phase reads its own.
        let readable = node.operands[2..].iter().all(|&v| {
            let dims = &graph.ty(v).dims;
            let mut extents = dims.iter().rev().skip(1).zip(axes.iter().rev());
            extents.all(|(&extent, axis)| {
                let even = axis.results.is_multiple_of(axis.step) && axis.phases.len() == axis.step;
                axis.step == 1 || extent == 1 || even
            })
        });
        let mut case = Case { node, conv, weights, input, order, axes, union: None };
        // In a union, that of neighbouring results lies one behind the other.
        let joins = |&v: &Value| {
            is_repeatable(graph, v) || graph.ty(v).dims.iter().rev().eq(node.ty.dims.iter().rev())
        };
        let repeatable = conv.groups == 1 && node.operands[2..].iter().all(joins);
        case.union = case.best_union(machine).filter(|_| repeatable);
        readable.then_some(case)
    }

    /// What the phases of the last axis meet, if one convolution over that is no slower than theirs.
    fn best_union(&self, machine: &Machine) -> Option<Union> {
        let axis = self.axes.last().filter(|axis| axis.phases.len() > 1)?;
        let union = axis.union()?;
        let [.., channels, columns] = *self.weights.dims() else { return None };
        let time = |columns: usize, taps: usize| {
            taps as f64 * machine.product(axis.each, columns, channels as u64 * 4)
        };
        let apart: f64 = axis.phases.iter().map(|phase| time(columns, phase.taps)).sum();
        (time(columns * axis.phases.len(), union.taps) <= apart).then_some(union)
    }

    fn write(&self, r: &mut Rewriter<'_>, old: Value) -> Value {
        let operands = r.operands(old);
        let input = r.get(self.input);
        let mut input = r.permute(input, &self.order);
        if self.axes.iter().any(|axis| axis.border != [0, 0]) {
            let side = |end: usize| -> Vec<usize> {
                let spatial = self.axes.iter().map(|axis| axis.border[end]);
                std::iter::once(0).chain(spatial).chain([0]).collect()
            };
            let (low, high) = (side(0), side(1));
            let mut ty = r.new.ty(input).clone();
            for (i, extent) in ty.dims.iter_mut().enumerate() {
                *extent += low[i] + high[i];
            }
            let interior = vec![0; low.len()];
            let value = Literal::from_f64(ty.dtype, 0.0);
            let op = Op::Pad { low, high, interior, value };
            input = r.push(op, vec![input], ty, self.node.origins.clone());
        }
        let mut result = self.phases(r, input, &operands, &mut vec![]);
        for (i, axis) in self.axes.iter().enumerate() {
            result = r.narrow(result, i + 1, 0, axis.results);
        }
        result
    }

    /// The results of all phases of the axes from `chosen.len()` on, for these phases of those before.
    fn phases(
        &self,
        r: &mut Rewriter<'_>,
        input: Value,
        operands: &[Value],
        chosen: &mut Vec<usize>,
    ) -> Value {
        let at = chosen.len();
        let Some(axis) = self.axes.get(at) else {
            return self.convolution(r, input, operands, chosen, None);
        };
        if let Some(union) = self.union
            && at + 1 == self.axes.len()
        {
            let x = r.narrow(input, at + 1, union.start, axis.each + union.taps - 1);
            let all = self.convolution(r, x, operands, chosen, Some(union));
            let mut dims = r.new.ty(all).dims.clone();
            dims[at + 1] *= axis.phases.len();
            dims[at + 2] /= axis.phases.len();
            return r.reshape(all, &dims);
        }
        let mut parts: Vec<Value> = vec![];
        for (i, phase) in axis.phases.iter().enumerate() {
            let x = r.narrow(input, at + 1, phase.start, axis.each + phase.taps - 1);
            chosen.push(i);
            let part = self.phases(r, x, operands, chosen);
            chosen.pop();
            let mut dims = r.new.ty(part).dims.clone();
            dims.insert(at + 2, 1);
            parts.push(r.reshape(part, &dims));
        }
        let mut ty = r.new.ty(parts[0]).clone();
        ty.dims[at + 2] = parts.len();
        let mut dims = ty.dims.clone();
        let count = dims.remove(at + 2);
        dims[at + 1] *= count;
        let joined = match parts[..] {
            [only] => only,
            _ => r.push(Op::Concat { axis: at + 2 }, parts, ty, self.node.origins.clone()),
        };
        r.reshape(joined, &dims)
    }

    fn convolution(
        &self,
        r: &mut Rewriter<'_>,
        input: Value,
        operands: &[Value],
        chosen: &[usize],
        union: Option<Union>,
    ) -> Value {
        let phases: Vec<&Phase> =
            self.axes.iter().zip(chosen).map(|(axis, &phase)| &axis.phases[phase]).collect();
        let weights = self.taps(&phases, union);
        let taps = phases.iter().map(|phase| phase.taps);
        let taps = taps.chain(union.map(|union| union.taps)).collect();
        let origins = self.node.origins.clone();
        let constant = r.push(
            Op::Constant(weights.clone()),
            vec![],
            weights.ty().clone(),
            r.old.nodes[self.node.operands[1]].origins.clone(),
        );
        let mut dims = self.node.ty.dims.clone();
        for (i, axis) in self.axes.iter().enumerate() {
            dims[i + 1] = axis.each;
        }
        let mut all = vec![input, constant];
        let times = self.axes.last().filter(|_| union.is_some()).map_or(1, |a| a.phases.len());
        for &operand in &operands[2..] {
            let own = self.own(r, operand, chosen);
            all.push(match times {
                1 => own,
                _ if r.new.ty(own).dims.iter().rev().nth(1).is_some_and(|&d| d > 1) => {
                    let mut dims = r.new.ty(own).dims.clone();
                    if let [.., results, channels] = &mut dims[..] {
                        (*results, *channels) = (*results / times, *channels * times);
                    }
                    r.reshape(own, &dims)
                }
                _ => r.repeated(own, times),
            });
        }
        if let Some(channels) = dims.last_mut() {
            *channels *= times;
        }
        let ty = self.node.ty.with_dims(dims);
        r.push(Op::Conv(Conv { taps, ..self.conv.clone() }), all, ty, origins)
    }

    /// What these phases read of an operand of the epilogue.
    fn own(&self, r: &mut Rewriter<'_>, operand: Value, chosen: &[usize]) -> Value {
        let (ty, origins) = (r.new.ty(operand), r.new.nodes[operand].origins.clone());
        let (mut starts, mut steps) = (vec![0; ty.rank()], vec![1; ty.rank()]);
        let mut dims = ty.dims.clone();
        for (i, (axis, &phase)) in self.axes.iter().zip(chosen).enumerate() {
            let Some(at) = (ty.rank() + i + 1).checked_sub(self.node.ty.rank()) else { continue };
            if dims[at] > 1 && axis.step > 1 {
                (starts[at], steps[at], dims[at]) = (phase, axis.step as i64, axis.each);
            }
        }
        if dims == ty.dims {
            return operand;
        }
        let ty = ty.with_dims(dims);
        r.push(Op::Slice { starts, steps }, vec![operand], ty, origins)
    }

    /// The weights of the taps that meet elements, those of all phases of the last axis side by side where
    /// it has a union.
    fn taps(&self, phases: &[&Phase], union: Option<Union>) -> Tensor {
        let spatial = self.axes.len();
        let dims = self.weights.dims();
        let element = self.weights.ty().dtype.bytes();
        let row = dims[spatial + 1] * element;
        let size = dims[spatial] * row;
        let mut places = vec![0];
        for (axis, phase) in self.axes.iter().zip(phases) {
            let tap = |i: usize| phase.first + i * axis.step;
            places = (places.into_iter())
                .flat_map(|place| (0..phase.taps).map(move |i| place * axis.taps + tap(i)))
                .collect();
        }
        let bytes = self.weights.bytes();
        let taps = phases.iter().map(|phase| phase.taps);
        let (data, dims): (Vec<u8>, Vec<usize>) = match union.zip(self.axes.last()) {
            None => (
                places.iter().flat_map(|&place| &bytes[place * size..][..size]).copied().collect(),
                taps.chain(dims[spatial..].iter().copied()).collect(),
            ),
            Some((union, axis)) => {
                let mut data = vec![];
                for place in places {
                    for (tap, channel) in
                        (0..union.taps).flat_map(|t| (0..dims[spatial]).map(move |c| (t, c)))
                    {
                        for phase in &axis.phases {
                            let own = (union.start + tap).checked_sub(phase.start);
                            match own.filter(|&own| own < phase.taps) {
                                Some(own) => {
                                    let at = place * axis.taps + phase.first + own * axis.step;
                                    data.extend_from_slice(
                                        &bytes[at * size + channel * row..][..row],
                                    );
                                }
                                None => data.resize(data.len() + row, 0),
                            }
                        }
                    }
                }
                let columns = dims[spatial + 1] * axis.phases.len();
                (data, taps.chain([union.taps, dims[spatial], columns]).collect())
            }
        };
        let ty = Type::new(self.weights.ty().dtype, dims);
        Tensor::from_bytes(ty, Bytes::from(data)).expect("as many taps as there are places")
    }
}
