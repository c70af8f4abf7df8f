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

use super::pack::{panels_of, panels_of_dims};
use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::winograd::{Blocks, Filter, Matrices, Side, Winograd};
use crate::mir::{Contract, Conv, Graph, Literal, Node, Op, Value, Weights};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use cranelift_entity::SecondaryMap;
use std::collections::{BTreeMap, BTreeSet};

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

/// The weights at all points ([`transform`]), in panels.
fn transformed_panels(weights: &Tensor, axes: [Filter; 2], width: usize) -> Tensor {
    let ty = weights.ty().with_dims(panels_of_dims(transform_dims(weights, axes), width));
    Tensor::later(
        ty,
        &format!("filtered by {axes:?} in panels of {width}"),
        &[weights],
        move |of| panels_of(&transform(of[0], axes), width),
    )
}

/// The dimensions of what [`transform`] gives.
fn transform_dims(weights: &Tensor, axes: [Filter; 2]) -> [usize; 3] {
    let points = axes[0].points() * axes[1].points();
    let taps = axes[0].taps * axes[1].taps;
    let outputs = weights.dims().last().copied().unwrap_or(1);
    [points, weights.ty().elements() / (taps * outputs).max(1), outputs]
}

/// The weights `[planes.., taps.., C, K]`, with taps along two axes, at all points: `[points, planes * C, K]`.
fn transform(weights: &Tensor, axes: [Filter; 2]) -> Tensor {
    let matrices = axes.map(|axis| Matrices::new(axis).weights);
    let [first, second] = &matrices;
    let [.., channels, outputs] = *weights.dims() else { return weights.clone() };
    let taps = axes.map(|axis| axis.taps);
    let plane = taps[0] * taps[1];
    let values = weights.f32s();
    let dims = transform_dims(weights, axes);
    let inputs = dims[1];
    let mut out = vec![0f32; first.len() * second.len() * inputs * outputs];
    let sum = |to: &mut [f64], from: &[f64], factor: f64| {
        if factor != 0.0 {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
        }
    };
    // A row of output channels at a time.
    for input in 0..inputs {
        let (before, channel) = (input / channels * plane, input % channels);
        let tap = |t: usize| -> Vec<f64> {
            let at = ((before + t) * channels + channel) * outputs;
            values[at..at + outputs].iter().map(|&w| f64::from(w)).collect()
        };
        let all: Vec<Vec<f64>> = (0..plane).map(tap).collect();
        for (i, row) in first.iter().enumerate() {
            let mut along = vec![vec![0.0; outputs]; taps[1]];
            for (t, tap) in all.iter().enumerate() {
                sum(&mut along[t % taps[1]], tap, row[t / taps[1]]);
            }
            for (j, column) in second.iter().enumerate() {
                let mut point = vec![0.0; outputs];
                along.iter().zip(column).for_each(|(a, &factor)| sum(&mut point, a, factor));
                let at = ((i * second.len() + j) * inputs + input) * outputs;
                let to = out[at..at + outputs].iter_mut();
                to.zip(point).for_each(|(to, value)| *to = value as f32);
            }
        }
    }
    Tensor::from_f32s(dims, &out)
}

/// How much longer steps may take on one thread than one step that threads share better.
const EXCHANGED: f64 = 1.15;

/// How one convolution is done.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// How, along rows and columns.
    axes: [Filter; 2],
    /// Rows and columns of tiles that are done at a time: a band is as wide as the image.
    block: [usize; 2],
    /// Whether it is one step, else three for each band.
    whole: bool,
}

impl Plan {
    /// Points of a tile.
    fn points(&self) -> usize {
        self.axes.iter().map(|axis| axis.points()).product()
    }

    /// Cycles for a point of a tile: its share of the sums along both axes, a load, a store.
    fn each(&self) -> f64 {
        let sums = |axis: &Filter| match axis.stride {
            1 => axis.tile.max(axis.points().saturating_sub(2)) as f64 / 2.0,
            _ => axis.tile as f64 / 2.0,
        };
        self.axes.iter().map(sums).sum::<f64>() + 3.0
    }
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

    /// The best plan, if it is better than none. What it keeps between its steps should fit into `room`
    /// bytes, or, where threads share it better as one step, into `slack` bytes.
    fn plan(&self, machine: &Machine, room: u64, slack: u64) -> Option<Plan> {
        let mut best: Option<(f64, Plan)> = None;
        // The more points, the more is lost by rounding.
        let rough = |axes: &[Filter; 2]| axes.iter().any(|a| a.stride == 1 && a.points() >= 8);
        let mut all: Vec<[Filter; 2]> = [4, 2, 6].iter().filter_map(|&t| self.axes(t)).collect();
        all.sort_by_key(rough);
        for axes in all {
            let [rows, columns] = self.tiles(axes);
            let bands = shares(rows).into_iter().flat_map(|rows| {
                let block = [rows, columns];
                [true, false].map(|whole| Plan { axes, block, whole })
            });
            let parts = shares(columns).into_iter().skip(1).map(|columns| {
                let block = [1, columns];
                Plan { axes, block, whole: true }
            });
            for plan in bands.chain(parts) {
                // The lowest bands must do if nothing fits.
                let fits = match plan.whole {
                    true => self.between(plan) <= room.max(slack),
                    false => self.between(plan) <= room || plan.block[0] == 1,
                };
                let cost = match plan.whole {
                    _ if !fits => continue,
                    true => self.cost_as_one(machine, plan),
                    // Much of what a thread reads then another has written.
                    false => Some(EXCHANGED * self.cost(machine, plan)),
                };
                let worth = if rough(&axes) { 0.85 } else { 1.0 };
                if let Some(cost) = cost
                    && best.is_none_or(|(least, _)| cost < least * worth)
                {
                    best = Some((cost, plan));
                }
            }
        }
        let worth = |(cost, plan): &(f64, Plan)| {
            let cost = if plan.whole { *cost } else { cost / EXCHANGED };
            cost < 0.92 * self.direct(machine)
        };
        best.filter(worth).map(|(_, plan)| plan)
    }

    /// Bytes that are kept between the transformations, at a time.
    fn between(&self, plan: Plan) -> u64 {
        let points = plan.points();
        let one = points * self.rows(plan) * (self.channels + self.outputs) * 4;
        let blocks = self.blocks(plan);
        blocks.map_or(one, |blocks| blocks.shares * blocks.elements() * 4) as u64
    }

    /// How it is cut as one step.
    fn blocks(&self, plan: Plan) -> Option<Blocks> {
        let side = self.both(plan, 1)?;
        Winograd { axes: plan.axes, side }.blocks(self.channels, &self.dims())
    }

    /// It as one step, with panels of so many columns.
    fn both(&self, plan: Plan, width: usize) -> Option<Side> {
        let parts = self.inputs.len() * self.planes();
        let (before, block) = (self.before, plan.block);
        let epilogue = self.conv.epilogue.clone();
        let shares = Winograd::SHARES;
        plan.whole.then_some(Side::Both { before, parts, block, shares, width, epilogue })
    }

    /// Tiles that are done at a time: rows of the products.
    fn rows(&self, plan: Plan) -> usize {
        let images = if plan.whole { 1 } else { self.images };
        images * plan.block[0] * plan.block[1]
    }

    /// Bytes from one row of the product's first operand to the next.
    fn distance(&self) -> u64 {
        4 * self.channels as u64
    }

    /// Cycles that the convolution takes as it is.
    fn direct(&self, machine: &Machine) -> f64 {
        let rows = (self.images * self.results[0]) as f64;
        let depth = (self.taps[0] * self.taps[1] * self.channels) as f64;
        let products =
            rows * machine.product(self.results[1], self.outputs, self.distance()) * depth;
        products.max(4.0 * depth * self.outputs as f64 / self.stream)
    }

    /// Cycles that a plan takes.
    fn cost(&self, machine: &Machine, plan: Plan) -> f64 {
        let points = plan.points() as f64;
        let tiles = self.tiles(plan.axes);
        let bands = tiles[0].div_ceil(plan.block[0]) as f64;
        let rows = self.rows(plan);
        let vectors = |channels: usize| channels.div_ceil(machine.lanes as usize) as f64;
        let each = rows as f64 * points * plan.each();
        let transformations = each * (vectors(self.channels) + vectors(self.outputs));
        let products =
            points * machine.product(rows, self.outputs, self.distance()) * self.channels as f64;
        let weights = points * 4.0 * (self.channels * self.outputs) as f64;
        let between = self.between(plan) as f64;
        let l2 = machine.l2 as f64;
        // Weights that do not stay in the cache come anew for every band.
        let loads = if weights + between > l2 { bands } else { 1.0 };
        let loading = weights / self.stream;
        // Not all of their way is beside products.
        let loaded = products.max(loading) + 0.2 * loading;
        // What does not fit waits in a larger cache, which is not as far away as the weights.
        let spilled = if between > 0.75 * l2 { between / machine.stream() } else { 0.0 };
        const STEPS: f64 = 1000.0;
        let band = transformations + spilled + STEPS;
        bands * band + loads * loaded + (bands - loads) * products
    }

    /// Cycles that a plan of one step takes; `None` where there are too few blocks to share, or each
    /// would wait for the weights.
    fn cost_as_one(&self, machine: &Machine, plan: Plan) -> Option<f64> {
        let blocks = self.blocks(plan)?;
        let count = self.images * blocks.count[0] * blocks.count[1];
        let points = blocks.all as f64;
        let weights = points * 4.0 * (self.channels * self.outputs) as f64;
        let loading = weights / self.stream;
        // Weights that do not stay in the cache come anew for every block.
        let far = weights + 4.0 * blocks.elements() as f64 > 0.9 * machine.l2 as f64;
        let products = |tiles: usize| {
            let products = machine.product(tiles, self.outputs, self.distance());
            let products = points * products * self.channels as f64;
            if far { products.max(loading) + 0.2 * loading } else { products }
        };
        if count < 4 || far && products(self.rows(plan)) < 2.0 * loading {
            return None;
        }
        let vectors = |channels: usize| channels.div_ceil(machine.lanes as usize) as f64;
        let each = points * plan.each();
        let each = each * (vectors(self.channels) + vectors(self.outputs));
        let tiles = (blocks.tiles[0] * blocks.tiles[1]) as f64;
        const BLOCK: f64 = 100.0;
        let mut cost = tiles * each + BLOCK * blocks.count.iter().product::<usize>() as f64;
        cost += blocks.sizes().map(|(count, tiles)| count as f64 * products(tiles)).sum::<f64>();
        let cost = self.images as f64 * cost + if far { 0.0 } else { loading };
        // Two threads have as many blocks each; working memory is new to the cache.
        let uneven = (count.div_ceil(2) * 2) as f64 / count as f64 - 1.0;
        let memory = self.between(plan) as f64 / machine.l2 as f64;
        Some(cost * (1.0 + uneven / 4.0 + memory / 64.0))
    }

    /// The steps in the place of node `old`.
    fn write(
        &self,
        r: &mut Rewriter<'_>,
        old: Value,
        plan: Plan,
        weights: (Value, usize),
    ) -> Value {
        let inputs: Vec<Value> = self.inputs.iter().map(|&v| r.get(v)).collect();
        let extra: Vec<Value> = r.operands(old).split_off(2);
        let planes = match &self.form {
            Form::Image => return self.write_images(r, plan, inputs, weights, extra),
            Form::Line | Form::Columns => {
                let image = |r: &mut Rewriter<'_>, value: Value| self.image(r, value);
                let inputs = inputs.into_iter().map(|v| image(r, v)).collect();
                let extra = extra.into_iter().map(|v| image(r, v)).collect();
                let result = self.write_images(r, plan, inputs, weights, extra);
                return r.reshape(result, &self.node.ty.dims);
            }
            Form::Planes(planes) => planes,
        };
        let inputs: Vec<Value> = inputs.into_iter().map(|v| planes.bordered(r, v)).collect();
        let all = &self.node.ty;
        let mut results = vec![];
        for image in 0..all.dims[0] {
            let parts = planes.parts(r, &inputs, image);
            let extra = extra.iter().map(|&v| of_image(r, v, image, all.rank())).collect();
            let result = self.write_images(r, plan, parts, weights, extra);
            results.push(r.reshape(result, &[&[1], &all.dims[1..]].concat()));
        }
        match results[..] {
            [only] => only,
            _ => r.push(Op::Concat { axis: 0 }, results, all.clone(), self.node.origins.clone()),
        }
    }

    /// A value that is read along all axes of the convolution, as images; what is broadcast along them stays.
    fn image(&self, r: &mut Rewriter<'_>, value: Value) -> Value {
        let dims = r.new.ty(value).dims.clone();
        let dims = match (&self.form, &dims[..]) {
            (Form::Line, [n, columns, c]) => vec![*n, 1, *columns, *c],
            (Form::Columns, [outer @ .., one, two, c]) => [outer, &[one * two, *c]].concat(),
            _ => return value,
        };
        r.reshape(value, &dims)
    }

    /// The steps for [`Case::images`]: with these parts of the input, weights in panels of so many columns, and
    /// operands of the epilogue.
    fn write_images(
        &self,
        r: &mut Rewriter<'_>,
        plan: Plan,
        inputs: Vec<Value>,
        (weights, width): (Value, usize),
        extra: Vec<Value>,
    ) -> Value {
        let (axes, tiles) = (plan.axes, self.tiles(plan.axes));
        let (points, m) = (plan.points(), axes[0].tile);
        let origins = &self.node.origins;
        let result = self.node.ty.with_dims(self.dims());
        if let Some(side) = self.both(plan, width) {
            let op = Op::Winograd(Winograd { axes, side });
            let operands = [inputs, vec![weights], extra].concat();
            return r.push(op, operands, result, origins.clone());
        }
        let f32 = |dims: &[usize]| Type::new(DType::F32, dims.to_vec());
        let mut bands = vec![];
        for first in (0..tiles[0]).step_by(plan.block[0]) {
            let rows = plan.block[0].min(tiles[0] - first);
            let (start, end) = (first * m, ((first + rows) * m).min(self.results[0]));
            let above = start * axes[0].stride;
            let from = above.saturating_sub(self.before[0]);
            let to = (end - 1) * axes[0].stride + axes[0].taps;
            let to = to.saturating_sub(self.before[0]).min(self.extents[0]);
            let count = self.images * rows * tiles[1];
            let before = [self.before[0].saturating_sub(above), self.before[1]];
            let side = Side::Input { before, tiles: [rows, tiles[1]] };
            let op = Op::Winograd(Winograd { axes, side });
            let mut transformed = vec![];
            for &input in &inputs {
                let channels = r.new.ty(input).dims[3];
                let x = r.narrow(input, 1, from, to - from);
                let ty = f32(&[points, count, channels]);
                transformed.push(r.push(op.clone(), vec![x], ty, origins.clone()));
            }
            let x = match transformed[..] {
                [only] => only,
                _ => {
                    let ty = f32(&[points, count, self.channels]);
                    r.push(Op::Concat { axis: 2 }, transformed, ty, origins.clone())
                }
            };
            let layout = Weights::Panels { width, columns: self.outputs };
            let op = Op::Contract(Contract::of(layout));
            let products =
                r.push(op, vec![x, weights], f32(&[points, count, self.outputs]), origins.clone());
            let mut operands = vec![products];
            for &value in &extra {
                // Axes are counted from the last one.
                let dims = r.new.ty(value).dims.clone();
                let axis = (dims.len() + 1).checked_sub(4).filter(|&axis| dims[axis] != 1);
                operands.push(match axis {
                    Some(axis) => r.narrow(value, axis, start, end - start),
                    None => value,
                });
            }
            let side = Side::Output { epilogue: self.conv.epilogue.clone() };
            let op = Op::Winograd(Winograd { axes, side });
            let ty = f32(&[self.images, end - start, self.results[1], self.outputs]);
            bands.push(r.push(op, operands, ty, origins.clone()));
        }
        match bands[..] {
            [only] => only,
            _ => r.push(Op::Concat { axis: 1 }, bands, result, origins.clone()),
        }
    }
}

impl Planes {
    /// An input within the zeros of this axis.
    fn bordered(&self, r: &mut Rewriter<'_>, input: Value) -> Value {
        let ty = r.new.ty(input);
        let rank = ty.rank();
        let axis = |extent: usize| {
            let mut border = vec![0; rank];
            border[1] = extent;
            border
        };
        let [low, high] = self.border.map(axis);
        if self.border == [0, 0] {
            return input;
        }
        let mut dims = ty.dims.clone();
        dims[1] += self.border[0] + self.border[1];
        let (ty, interior) = (ty.with_dims(dims), vec![0; rank]);
        let origins = r.new.nodes[input].origins.clone();
        let value = Literal::from_f64(ty.dtype, 0.0);
        r.push(Op::Pad { low, high, interior, value }, vec![input], ty, origins)
    }

    /// What lies under the taps of this axis in one image, `[results, H, W, C]` each: for each tap, all
    /// of the inputs.
    fn parts(&self, r: &mut Rewriter<'_>, inputs: &[Value], image: usize) -> Vec<Value> {
        let mut parts = vec![];
        for tap in 0..self.taps {
            for &input in inputs {
                let node = &r.new.nodes[input];
                let (mut dims, origins) = (node.ty.dims.clone(), node.origins.clone());
                let (mut starts, mut steps) = (vec![0; dims.len()], vec![1; dims.len()]);
                (starts[0], starts[1]) = (image, tap * self.dilation);
                steps[1] = self.stride as i64;
                (dims[0], dims[1]) = (1, self.results);
                let ty = node.ty.with_dims(dims.clone());
                let slice = r.push(Op::Slice { starts, steps }, vec![input], ty, origins);
                parts.push(r.reshape(slice, &dims[1..]));
            }
        }
        parts
    }
}

/// An operand of an epilogue whose result has so many axes, for one image without the axis of images.
fn of_image(r: &mut Rewriter<'_>, operand: Value, image: usize, rank: usize) -> Value {
    let dims = r.new.ty(operand).dims.clone();
    if dims.len() < rank {
        return operand;
    }
    let one = if dims[0] == 1 { operand } else { r.narrow(operand, 0, image, 1) };
    r.reshape(one, &dims[1..])
}

/// The largest of 1, 2, 3.. even shares of so many tiles, each size once, the largest first.
fn shares(tiles: usize) -> Vec<usize> {
    // No other size is between those of a number of shares and of the most that are as large.
    let next = |&size: &usize| (size > 1).then(|| tiles.div_ceil((tiles - 1) / (size - 1) + 1));
    std::iter::successors((tiles > 0).then_some(tiles), next).collect()
}

/// How much memory the values of a graph need in its own order, roughly: every value that has memory of its
/// own, from where it is computed to its last use. Others lie in their operands' (views, and what
/// has a border), or their operands in theirs (concatenations).
struct Room {
    /// Bytes that are alive at each node.
    alive: Vec<u64>,
    most: u64,
}

impl Room {
    fn new(graph: &Graph) -> Room {
        let count = graph.nodes.len();
        // The values whose memory each one has.
        let mut roots: Vec<BTreeSet<usize>> = Vec::with_capacity(count);
        let mut last: Vec<usize> = (0..count).collect();
        let shares = |op: &Op| op.is_view() || matches!(op, Op::Pad { .. } | Op::Concat { .. });
        for (at, node) in graph.nodes.values().enumerate() {
            let operands = node.operands.iter().map(|v| &roots[v.as_u32() as usize]);
            let operands: BTreeSet<usize> = operands.flatten().copied().collect();
            operands.iter().for_each(|&root| last[root] = at);
            roots.push(if shares(&node.op) { operands } else { BTreeSet::from([at]) });
        }
        for output in &graph.outputs {
            roots[output.value.as_u32() as usize].iter().for_each(|&root| last[root] = count);
        }
        let in_place = |at: usize| {
            let node = &graph.nodes[Value::from_u32(at as u32)];
            let operands = match &node.op {
                Op::Map(_) | Op::Rows(_) => &node.operands[..],
                Op::Contract(_) | Op::Conv(_) => node.operands.get(2..).unwrap_or_default(),
                _ => &[],
            };
            operands.iter().any(|&v| {
                let at_once = roots[v.as_u32() as usize].iter().all(|&root| last[root] == at);
                let temporary = !matches!(graph.nodes[v].op, Op::Input { .. } | Op::Constant(_));
                at_once && temporary && graph.ty(v).bytes() == node.ty.bytes()
            })
        };
        let mut change = vec![0i64; count + 2];
        for (at, node) in graph.nodes.values().enumerate() {
            let (bytes, from, to) = match &node.op {
                Op::Constant(_) => continue,
                Op::Input { .. } => (node.ty.bytes(), 0, count),
                op if shares(op) => continue,
                // It may lie where an operand does that nobody needs any more.
                _ if in_place(at) => (node.ty.bytes(), (at + 1).min(last[at]), last[at]),
                _ => (node.ty.bytes(), at, last[at]),
            };
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX >> 16);
            change[from] = change[from].saturating_add(bytes);
            change[to + 1] = change[to + 1].saturating_sub(bytes);
        }
        let mut now = 0i64;
        let sums = change.iter().map(|c| {
            now = now.saturating_add(*c);
            now.max(0) as u64
        });
        let alive: Vec<u64> = sums.collect();
        let most = alive.iter().copied().max().unwrap_or(0);
        Room { alive, most }
    }

    /// What may be used beside the operands and the result of a node without needing more than another
    /// node does.
    fn beside(&self, value: Value) -> u64 {
        self.most - self.alive[value.as_u32() as usize]
    }

    /// So many bytes are used beside a node, so that nodes after it may need as much.
    fn take(&mut self, value: Value, bytes: u64) {
        self.most = self.most.max(self.alive[value.as_u32() as usize].saturating_add(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_each_size() {
        for tiles in 0..300usize {
            let mut all: Vec<usize> = (1..=tiles).map(|parts| tiles.div_ceil(parts)).collect();
            all.dedup();
            assert_eq!(shares(tiles), all, "{tiles}");
        }
        assert!(shares(1 << 30).len() < 1 << 17);
    }

    #[test]
    fn weights_are_transformed() {
        let values: Vec<f32> = (0..9 * 6).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
        let weights = Tensor::from_f32s([3, 3, 2, 3], &values);
        let axis = Filter { tile: 4, taps: 3, stride: 1 };
        let transformed = transform(&weights, [axis; 2]).f32s();
        let matrix = Matrices::new(axis).weights;
        for (c, k) in (0..2).flat_map(|c| (0..3).map(move |k| (c, k))) {
            let tap = |i: usize, j: usize| f64::from(values[((i * 3 + j) * 2 + c) * 3 + k]);
            let block: Vec<Vec<f64>> =
                (0..3).map(|i| (0..3).map(|j| tap(i, j)).collect()).collect();
            let expected = crate::mir::winograd::both_axes([&matrix, &matrix], &block).concat();
            for (point, expected) in expected.into_iter().enumerate() {
                let found = f64::from(transformed[(point * 2 + c) * 3 + k]);
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }
}
