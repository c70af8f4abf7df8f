use super::*;
use crate::mir::{
    Binary, Builder, Expr, Op, Output, Reduction, Role, Scalar, Unary, Value, Weights, eval,
};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The optimized graph, after comparing its results with those of the graph as it was written.
fn optimized(b: Builder, outputs: &[Value]) -> Graph {
    let output = |&value: &Value| Output { name: value.to_string(), value };
    let graph = b.finish(outputs.iter().map(output).collect());
    verify(&graph).unwrap();
    let inputs: Vec<Tensor> =
        graph.inputs.iter().map(|&v| Tensor::noise(&graph.ty(v).dims, 7)).collect();
    let before = eval::graph(&graph, &inputs);
    let graph = run(graph, Level::Speed, Filtering::Auto, &Machine::AVX2);
    verify(&graph).unwrap();
    for (a, b) in before.iter().zip(eval::graph(&graph, &inputs)) {
        for (a, b) in a.f64s().into_iter().zip(b.f64s()) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}\n{graph}");
        }
    }
    graph
}

fn count(graph: &Graph, is: impl Fn(&Op) -> bool) -> usize {
    graph.nodes.values().filter(|n| is(&n.op)).count()
}

/// One attention, and nothing else that computes.
fn expect_one_attention(graph: &Graph) {
    let is = |op: &Op| matches!(op, Op::Attention(_));
    assert_eq!(count(graph, is), 1, "{graph}");
    let other =
        |op: &Op| matches!(op, Op::Contract(_) | Op::Rows(_) | Op::Map(_) | Op::Reduce { .. });
    assert_eq!(count(graph, other), 0, "{graph}");
}

fn conv(b: &mut Builder, x: Value, weights: &[usize], seed: u32) -> Value {
    let w = b.constant(Tensor::noise(weights, seed));
    let bias = b.constant(Tensor::noise(&[weights[0], 1, 1], seed + 1));
    let x = b.channels_last(x);
    let x = b.pad(x, &[0, 1, 1, 0], &[0, 1, 1, 0], 0.0);
    let w = b.permute(w, &[2, 3, 1, 0]);
    let y = b.conv(x, w, &[1, 1], &[1, 1], 1);
    let y = b.channels_first(y);
    b.binary(Binary::Add, y, bias)
}

#[test]
fn filtered_in_steps_of_two() {
    let mut b = Builder::new("steps");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 31, 30, 40]));
    let w = b.constant(Tensor::noise(&[3, 3, 40, 48], 3));
    let x = b.pad(x, &[0, 1, 1, 0], &[0, 1, 0, 0], 0.0);
    let y = b.conv(x, w, &[2, 2], &[1, 1], 1);
    let graph = optimized(b, &[y]);
    let by_two = |op: &Op| matches!(op, Op::Winograd(w) if w.axes[0].stride == 2);
    assert!(count(&graph, by_two) > 0, "{graph}");
}

#[test]
fn filtered_plane_by_plane() {
    // Images, planes of the kernel and from one to the next, from a window to the next.
    let cases =
        [(1, 3, 1, [1, 1, 1]), (2, 3, 2, [2, 1, 1]), (1, 1, 1, [1, 2, 2]), (2, 2, 1, [2, 2, 2])];
    for (images, planes, apart, strides) in cases {
        let mut b = Builder::new("planes");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [images, 5, 20, 21, 24]));
        let y = b.input("y", Role::Input, Type::new(DType::F32, [images, 5, 20, 21, 16]));
        let w = b.constant(Tensor::noise(&[planes, 3, 3, 40, 48], 3));
        let x = b.concat(&[x, y], 4);
        let border = planes - 1;
        let x = b.pad(x, &[0, border, 1, 0, 0], &[0, 0, 1, 2, 0], 0.0);
        let y = b.conv(x, w, &strides, &[apart, 1, 1], 1);
        let dims = b.ty(y).dims.clone();
        let other = b.input("z", Role::Input, Type::new(DType::F32, dims.clone()));
        let scale = [dims[0], 1, 1, 1, dims[4]];
        let scale = b.input("s", Role::Input, Type::new(DType::F32, scale));
        let y = b.binary(Binary::Mul, y, scale);
        let y = b.binary(Binary::Add, y, other);
        let graph = optimized(b, &[y]);
        assert_eq!(count(&graph, |op| matches!(op, Op::Conv(_))), 0, "{graph}");
        let copies = |op: &Op| matches!(op, Op::Map(_));
        assert_eq!(count(&graph, copies), 0, "{graph}");
    }
}

#[test]
fn filtered_along_one_axis_and_with_few_taps() {
    // Spatial extents, taps and from a window to the next.
    let cases: [(&[usize], &[usize], &[usize]); 7] = [
        (&[70], &[3], &[1]),
        (&[71], &[2], &[1]),
        (&[75], &[4], &[2]),
        (&[9, 20], &[1, 3], &[1, 1]),
        (&[20, 20], &[2, 2], &[1, 1]),
        (&[22, 25], &[4, 4], &[2, 2]),
        (&[12, 6, 7], &[3, 1, 1], &[1, 1, 1]),
    ];
    for (extents, taps, strides) in cases {
        let mut b = Builder::new("axes");
        let dims = [&[2], extents, &[64]].concat();
        let x = b.input("x", Role::Input, Type::new(DType::F32, dims));
        let w = b.constant(Tensor::noise(&[taps, &[64, 64]].concat(), 3));
        let border: Vec<usize> = taps.iter().map(|taps| taps / 2).collect();
        let border = [&[0], &border[..], &[0]].concat();
        let x = b.pad(x, &border, &border, 0.0);
        let y = b.conv(x, w, strides, &vec![1; taps.len()], 1);
        let dims = b.ty(y).dims.clone();
        let other = b.input("z", Role::Input, Type::new(DType::F32, dims[1..].to_vec()));
        let y = b.binary(Binary::Add, y, other);
        let graph = optimized(b, &[y]);
        assert_eq!(count(&graph, |op| matches!(op, Op::Conv(_))), 0, "{graph}");
    }
}

#[test]
fn residual_block() {
    let mut b = Builder::new("block");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 3, 6, 5]));
    let first = conv(&mut b, x, &[8, 3, 3, 3], 1);
    let first = b.binary_scalar(Binary::Max, first, 0.0);
    let second = conv(&mut b, first, &[8, 8, 3, 3], 3);
    let sum = b.binary(Binary::Add, second, first);
    let sum = b.binary_scalar(Binary::Max, sum, 0.0);
    let mean = b.mean(sum, &[2, 3]);
    let flat = b.reshape(mean, [1, 8]);
    let w = b.constant(Tensor::noise(&[8, 10], 9));
    let y = b.contract(flat, w);
    let graph = optimized(b, &[y]);
    assert_eq!(count(&graph, |op| matches!(op, Op::Permute(_))), 1, "{graph}");
    // The mean's factor is in the weights.
    assert_eq!(count(&graph, |op| matches!(op, Op::Map(_))), 0, "{graph}");
    let panels =
        |op: &Op| matches!(op, Op::Conv(c) if c.weights != Weights::Plain && c.epilogue.is_some());
    assert_eq!(count(&graph, panels), 2, "{graph}");
}

#[test]
fn transformer_block() {
    let mut b = Builder::new("block");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 4, 6]));
    let w = b.constant(Tensor::noise(&[6, 6], 2));
    let projected = b.contract(x, w);
    let bias = b.constant(Tensor::noise(&[6], 3));
    let projected = b.binary(Binary::Add, bias, projected);
    let sum = b.binary(Binary::Add, projected, x);
    // Layer normalization.
    let mean = b.mean(sum, &[2]);
    let centered = b.binary(Binary::Sub, sum, mean);
    let square = b.binary(Binary::Mul, centered, centered);
    let variance = b.mean(square, &[2]);
    let variance = b.binary_scalar(Binary::Add, variance, 1e-5);
    let deviation = b.unary(Unary::Sqrt, variance);
    let normal = b.binary(Binary::Div, centered, deviation);
    let gamma = b.constant(Tensor::noise(&[6], 4));
    let normal = b.binary(Binary::Mul, normal, gamma);
    // Softmax of the scores.
    let keys = b.permute(normal, &[0, 2, 1]);
    let scores = b.contract(normal, keys);
    let scores = b.binary_scalar(Binary::Mul, scores, 0.4);
    let max = b.reduce(Reduction::Max, scores, &[2]);
    let shifted = b.binary(Binary::Sub, scores, max);
    let exp = b.unary(Unary::Exp, shifted);
    let total = b.reduce(Reduction::Sum, exp, &[2]);
    let y = b.binary(Binary::Div, exp, total);
    let graph = optimized(b, &[y]);
    assert_eq!(count(&graph, |op| matches!(op, Op::Rows(_))), 2, "{graph}");
    assert_eq!(count(&graph, |op| matches!(op, Op::Map(_) | Op::Reduce { .. })), 0, "{graph}");
}

/// Whether zeros come between elements.
fn zeros(op: &Op) -> bool {
    match op {
        Op::Pad { interior, .. } => interior.iter().any(|&n| n > 0),
        _ => false,
    }
}

/// Results between zeros are computed by phases, which meet no zeros.
#[test]
fn zeros_between_elements_are_skipped() {
    // Elements, distance, zeros before and behind, taps.
    let axes = [
        (5, 2, 1, 1, 2),
        (5, 2, 2, 2, 4),
        (4, 2, 1, 2, 3),
        (4, 3, 0, 3, 4),
        (6, 1, 1, 1, 3),
        (3, 4, 5, 3, 5),
    ];
    let build = |axes: &[(usize, usize, usize, usize, usize)], groups: usize| {
        let mut b = Builder::new("phases");
        let dims = |f: &dyn Fn(&(usize, usize, usize, usize, usize)) -> usize, ends: [usize; 2]| {
            let spatial = axes.iter().map(f);
            std::iter::once(ends[0]).chain(spatial).chain([ends[1]]).collect::<Vec<usize>>()
        };
        let x = b.input("x", Role::Input, Type::new(DType::F32, dims(&|a| a.0, [2, 4])));
        let (low, high) = (dims(&|a| a.2, [0, 0]), dims(&|a| a.3, [0, 0]));
        let x = b.pad_interior(x, &low, &high, &dims(&|a| a.1 - 1, [0, 0]), 0.0);
        let taps: Vec<usize> = axes.iter().map(|a| a.4).collect();
        let w = b.constant(Tensor::noise(&[&taps[..], &[4 / groups, 6]].concat(), 3));
        let y = b.conv(x, w, &vec![1; axes.len()], &vec![1; axes.len()], groups);
        let bias = b.constant(Tensor::noise(&[6], 4));
        let y = b.binary(Binary::Add, y, bias);
        let y = b.binary_scalar(Binary::Max, y, 0.0);
        optimized(b, &[y])
    };
    let convs = |graph: &Graph| count(graph, |op| matches!(op, Op::Conv(_)));
    let mut joined = 0;
    for (i, axis) in axes.iter().enumerate() {
        let graph = build(&[*axis], 1 + i % 2);
        assert_eq!(count(&graph, zeros), 0, "{graph}");
        // Those of the last axis may be one.
        joined += usize::from(convs(&graph) < axis.1);
        assert_eq!(count(&graph, |op| matches!(op, Op::Map(_))), 0, "{graph}");
        for other in &axes {
            let graph = build(&[*axis, *other], 1 + i % 2);
            assert_eq!(count(&graph, zeros), 0, "{graph}");
            joined += usize::from(convs(&graph) < axis.1 * other.1);
        }
    }
    assert!(joined > 0);
}

/// Zeros are skipped, too, where the axes are brought in order after they came between.
#[test]
fn zeros_between_elements_in_another_order() {
    let mut b = Builder::new("phases");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [7, 2, 4]));
    let x = b.pad_interior(x, &[3, 0, 0], &[3, 0, 0], &[1, 0, 0], 0.0);
    let x = b.permute(x, &[1, 0, 2]);
    let w = b.constant(Tensor::noise(&[4, 4, 1], 3));
    let y = b.conv(x, w, &[1], &[1], 1);
    let graph = optimized(b, &[y]);
    assert_eq!(count(&graph, zeros), 0, "{graph}");
    assert_eq!(count(&graph, |op| matches!(op, Op::Conv(_))), 1, "{graph}");
}

/// Each phase reads its own of what is added to the results.
#[test]
fn phases_with_residuals() {
    for (groups, channels, extents, residual) in [
        (1, 5, [3, 4], [6, 8, 5]),
        (1, 1, [3, 4], [6, 8, 1]),
        (2, 6, [3, 4], [6, 8, 6]),
        (1, 4, [5, 3], [10, 1, 4]),
        (1, 4, [5, 3], [1, 6, 1]),
    ] {
        let mut b = Builder::new("phases");
        let [h, w] = extents;
        let x = b.input("x", Role::Input, Type::new(DType::F32, [1, h, w, 4]));
        let x = b.pad_interior(x, &[0, 2, 2, 0], &[0, 2, 2, 0], &[0, 1, 1, 0], 0.0);
        let weights = b.constant(Tensor::noise(&[4, 4, 4 / groups, channels], 3));
        let y = b.conv(x, weights, &[1, 1], &[1, 1], groups);
        let more = b.input("more", Role::Input, Type::new(DType::F32, residual));
        let y = b.binary(Binary::Add, y, more);
        let graph = optimized(b, &[y]);
        assert_eq!(count(&graph, zeros), 0, "{graph}");
        assert_eq!(count(&graph, |op| matches!(op, Op::Map(_))), 0, "{graph}");
    }
}

/// Taps that meet zeros only are left out.
#[test]
fn windows_in_borders_are_cut() {
    // Elements along both axes, distance of taps, groups, and the convolutions that are left.
    for (extents, dilation, groups, convs) in [
        ([10, 9], 12, 1, [1, 1]),
        // In rows, and in columns too.
        ([10, 9], 4, 1, [3, 9]),
        ([10, 9], 6, 2, [3, 9]),
        ([12, 40], 4, 1, [3, 9]),
        ([30, 40], 2, 1, [1, 1]),
    ] {
        let mut b = Builder::new("margins");
        let [h, w] = extents;
        let x = b.input("x", Role::Input, Type::new(DType::F32, [1, h, w, 4]));
        let border = [0, dilation, dilation, 0];
        let y = b.pad(x, &border, &border, 0.0);
        let weights = b.constant(Tensor::noise(&[3, 3, 4 / groups, 8], 3));
        let y = b.conv(y, weights, &[1, 1], &[dilation, dilation], groups);
        let more = b.input("more", Role::Input, Type::new(DType::F32, [1, h, w, 8]));
        let row = b.constant(Tensor::noise(&[w, 1], 5));
        let y = b.binary(Binary::Add, y, more);
        let y = b.binary(Binary::Mul, y, row);
        let graph = optimized(b, &[y]);
        let found = count(&graph, |op| matches!(op, Op::Conv(_)));
        assert!(convs.contains(&found), "{graph}");
    }
}

/// Few channels are computed for several results at once.
#[test]
fn few_channels_fill_vectors() {
    let cases = [
        (40, 9, 1, 1, true),
        (40, 9, 1, 3, true),
        (40, 9, 2, 1, true),
        // A prime number of results.
        (45, 9, 1, 1, false),
        (40, 1, 1, 1, false),
        (40, 9, 1, 16, false),
    ];
    for (width, taps, stride, channels, several) in cases {
        let mut b = Builder::new("few");
        let results = (width - taps) / stride + 1;
        let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 3, width, 5]));
        let w = b.constant(Tensor::noise(&[2, taps, 5, channels], 3));
        let y = b.conv(x, w, &[1, stride], &[1, 1], 1);
        let bias = b.constant(Tensor::noise(&[channels], 4));
        let y = b.binary(Binary::Add, y, bias);
        let graph = optimized(b, &[y]);
        let found = graph.nodes.values().find(|n| matches!(n.op, Op::Conv(_))).unwrap();
        assert_eq!(found.ty.dims[2] < results, several, "{graph}");
        assert_eq!(found.ty.dims[2] * found.ty.dims[3], results * channels, "{graph}");
    }
}

/// `x tanh(softplus(x))`, written out, takes one exponential.
#[test]
fn mish_is_a_fraction() {
    let mut b = Builder::new("mish");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 50]));
    let x = b.binary_scalar(Binary::Mul, x, 30.0);
    let plus = b.map(Expr::softplus(DType::F32), &[x]);
    let gate = b.unary(Unary::Tanh, plus);
    let y = b.binary(Binary::Mul, gate, x);
    let graph = optimized(b, &[y]);
    let functions: Vec<Unary> = (graph.nodes.values())
        .filter_map(|n| match &n.op {
            Op::Map(expr) => Some(expr.nodes.clone()),
            _ => None,
        })
        .flatten()
        .filter_map(|node| match node {
            Scalar::Unary(function, _) => Some(function),
            _ => None,
        })
        .collect();
    assert_eq!(functions, [Unary::Exp], "{graph}");
}

fn softmax(b: &mut Builder, x: Value) -> Value {
    let axis = b.dims(x).len() - 1;
    let max = b.reduce(Reduction::Max, x, &[axis]);
    let shifted = b.binary(Binary::Sub, x, max);
    let exp = b.unary(Unary::Exp, shifted);
    let total = b.reduce(Reduction::Sum, exp, &[axis]);
    b.binary(Binary::Div, exp, total)
}

/// Attention of some heads, several of which share keys, with scales and a mask.
#[test]
fn attention_is_one_node() {
    for (queries, heads, shared) in [(5, 4, 4), (5, 4, 2), (1, 4, 2), (1, 4, 4), (1, 4, 1)] {
        let (keys, depth) = (7, 6);
        let mut b = Builder::new("attention");
        let mut input = |name: &str, rows: usize, heads: usize| {
            let ty = Type::new(DType::F32, [2, rows, heads * depth]);
            let x = b.input(name, Role::Input, ty);
            let x = b.reshape(x, [2, rows, heads, depth]);
            b.permute(x, &[0, 2, 1, 3])
        };
        let q = input("q", queries, heads);
        let all = ["k", "v"].map(|name| input(name, keys, shared));
        let [k, v] = all.map(|x| {
            let group = heads / shared;
            if group == 1 {
                return x;
            }
            let x = b.reshape(x, [2, shared, 1, keys, depth]);
            let x = b.broadcast(x, [2, shared, group, keys, depth]);
            b.reshape(x, [2, heads, keys, depth])
        });
        let k = b.permute(k, &[0, 1, 3, 2]);
        let q = b.binary_scalar(Binary::Mul, q, 0.7);
        let scores = b.contract(q, k);
        let mask = b.input("mask", Role::Input, Type::new(DType::F32, [2, 1, queries, keys]));
        let scores = b.binary(Binary::Add, scores, mask);
        let weights = softmax(&mut b, scores);
        let y = b.contract(weights, v);
        let y = b.permute(y, &[0, 2, 1, 3]);
        let y = b.reshape(y, [2, queries, heads * depth]);
        let graph = optimized(b, &[y]);
        expect_one_attention(&graph);
    }
}

/// A product of rows that is seen in a batch: what is added to it there, of all extents.
#[test]
fn products_are_finished_behind_reshapes() {
    for (residual, fused) in
        [(&[1, 6, 8][..], true), (&[6, 1], true), (&[8], true), (&[], true), (&[2, 3, 8], false)]
    {
        let mut b = Builder::new("residual");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [6, 5]));
        let r = b.input("r", Role::Input, Type::new(DType::F32, residual));
        let w = b.constant(Tensor::noise(&[5, 8], 3));
        let y = b.contract(x, w);
        let dims = if fused { vec![1, 6, 8] } else { vec![2, 3, 8] };
        let y = b.reshape(y, dims.clone());
        let r = if fused { b.broadcast(r, dims) } else { b.reduce(Reduction::Sum, r, &[0]) };
        let y = b.binary(Binary::Add, y, r);
        let y = b.unary(Unary::Tanh, y);
        let graph = optimized(b, &[y]);
        let maps = count(&graph, |op| matches!(op, Op::Map(_)));
        assert_eq!(maps, usize::from(!fused), "{residual:?}\n{graph}");
    }
}

/// Heads in the batch of a product, in that of the next, in its rows; masks between them.
#[test]
fn attention_is_one_node_in_other_groups() {
    let (batch, heads, depth, keys) = (2, 3, 6, 7);
    // Whether heads are joined to the batch, share keys, and how scores are masked.
    let all = [(5, true, false), (5, false, true), (1, true, false), (1, false, true)];
    for (queries, joined, shared) in all {
        for (batch, select) in [(1, false), (1, true), (batch, true)] {
            let mut b = Builder::new("attention");
            let kept = if shared { 1 } else { heads };
            let mut input = |name: &str, rows: usize, heads: usize| {
                let ty = Type::new(DType::F32, [batch, rows, heads * depth]);
                let x = b.input(name, Role::Input, ty);
                let x = b.reshape(x, [batch, rows, heads, depth]);
                let x = b.permute(x, &[0, 2, 1, 3]);
                let matrices = [batch * heads, rows, depth];
                if joined { b.reshape(x, matrices) } else { x }
            };
            let q = input("q", queries, heads);
            let [k, v] = ["k", "v"].map(|name| input(name, keys, kept));
            let rank = b.dims(k).len();
            let swap: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
            let k = b.permute(k, &swap);
            let scores = b.contract(q, k);
            let slope = b.input("slope", Role::Input, Type::new(DType::F32, [heads, 1, keys]));
            let slope = if joined && batch > 1 {
                let slope = b.broadcast(slope, [batch, heads, 1, keys]);
                b.reshape(slope, [batch * heads, 1, keys])
            } else {
                slope
            };
            let scores = b.binary(Binary::Add, scores, slope);
            let scores = b.reshape(scores, [batch, heads, queries, keys]);
            let dims = [batch, 1, queries, keys];
            let scores = if select {
                let lower = (0..batch * queries * keys).map(|i| f64::from(i % 3 != 1));
                let mask = Tensor::from_f64s(Type::new(DType::Bool, dims), lower);
                let (mask, lowest) = (b.constant(mask), b.scalar(DType::F32, -1e9));
                b.select(mask, scores, lowest)
            } else {
                let mask = b.input("mask", Role::Input, Type::new(DType::F32, dims));
                b.binary(Binary::Add, scores, mask)
            };
            let weights = softmax(&mut b, scores);
            let weights = match joined {
                true => b.reshape(weights, [batch * heads, queries, keys]),
                false => weights,
            };
            let y = b.contract(weights, v);
            let y = b.reshape(y, [batch, heads, queries, depth]);
            let y = b.permute(y, &[0, 2, 1, 3]);
            let y = b.reshape(y, [batch, queries, heads * depth]);
            let graph = optimized(b, &[y]);
            expect_one_attention(&graph);
        }
    }
}

/// Layers with a normalization between them are no attention: their weights are better in panels.
#[test]
fn weights_are_no_keys() {
    let mut b = Builder::new("layers");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [5, 6]));
    let first = b.input("first", Role::Parameter, Type::new(DType::F32, [6, 8]));
    let second = b.constant(Tensor::noise(&[8, 6], 3));
    let x = b.contract(x, first);
    let x = softmax(&mut b, x);
    let y = b.contract(x, second);
    let graph = optimized(b, &[y]);
    assert_eq!(count(&graph, |op| matches!(op, Op::Contract(_))), 2, "{graph}");
}

/// Along any axis, with elements that equal each other and some that are no numbers.
#[test]
fn places_are_reductions() {
    for axis in 0..3 {
        let mut b = Builder::new("places");
        // Few rows: many are left to the kernel.
        let mut dims = [3; 3];
        dims[axis] = 100;
        let x = b.input("x", Role::Input, Type::new(DType::F32, dims));
        let x = b.binary_scalar(Binary::Mul, x, 4.0);
        let rounded = b.unary(Unary::Round, x);
        let some = b.binary_scalar(Binary::Add, x, 3.5);
        let some = b.unary(Unary::Sqrt, some);
        let outputs =
            [rounded, some].map(|x| [true, false].map(|up| b.arg_reduce(x, up, axis, false)));
        let last = b.arg_reduce(rounded, true, axis, true);
        let outputs = outputs.into_iter().flatten().chain([last]);
        let graph = optimized(b, &outputs.collect::<Vec<Value>>());
        assert_eq!(count(&graph, |op| matches!(op, Op::ArgReduce { .. })), 1, "{graph}");
    }
}

/// A recurrence reads its weights forwards and backwards.
#[test]
fn weights_are_read_in_turn() {
    let mut b = Builder::new("turns");
    let mut x = b.input("x", Role::Input, Type::new(DType::F32, [1, 128]));
    let w = b.constant(Tensor::noise(&[128, 128], 2));
    for _ in 0..3 {
        let y = b.contract(x, w);
        x = b.unary(Unary::Tanh, y);
    }
    let graph = optimized(b, &[x]);
    let turns = graph.nodes.values().filter_map(|node| match &node.op {
        Op::Contract(c) => Some(c.backwards),
        _ => None,
    });
    assert_eq!(turns.collect::<Vec<bool>>(), [false, true, false], "{graph}");
}

/// A table of words is the last product's matrix as well.
#[test]
fn a_table_is_there_once() {
    let graph = |rows: usize| {
        let mut b = Builder::new("tied");
        let words = b.input("words", Role::Input, Type::new(DType::I64, [rows]));
        let table = Tensor::noise(&[700, 500], 2);
        let values = table.f64s();
        let transposed = (0..500 * 700).map(|i| values[i % 700 * 500 + i / 700]);
        let matrix = Tensor::from_f64s(Type::new(DType::F32, [500, 700]), transposed);
        let [table, matrix] = [table, matrix].map(|t| b.constant(t));
        let x = b.gather(table, words, 0);
        let x = b.unary(Unary::Tanh, x);
        let y = b.contract(x, matrix);
        let output = Output { name: "y".to_owned(), value: y };
        run(b.finish(vec![output]), Level::Speed, Filtering::Auto, &Machine::AVX2)
    };
    let constants = |graph: &Graph| count(graph, |op| matches!(op, Op::Constant(_)));
    assert_eq!([1, 4, 5].map(|rows| constants(&graph(rows))), [1, 1, 2]);
}

/// Batch normalization after a product, and what comes after it.
#[test]
fn scales_are_in_the_weights() {
    let mut b = Builder::new("scaled");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [5, 6]));
    let w = b.constant(Tensor::noise(&[6, 7], 2));
    let [bias, mean, scale, shift] = [3, 4, 5, 6].map(|seed| b.constant(Tensor::noise(&[7], seed)));
    let sum = b.contract(x, w);
    let y = b.binary(Binary::Add, sum, bias);
    let y = b.binary(Binary::Sub, y, mean);
    let y = b.binary(Binary::Mul, y, scale);
    let y = b.binary(Binary::Add, y, shift);
    let y = b.binary_scalar(Binary::Max, y, 0.0);
    let other = b.input("other", Role::Input, Type::new(DType::F32, [5, 7]));
    let y = b.binary(Binary::Add, y, other);
    let graph = optimized(b, &[y]);
    let products = graph.nodes.values().filter_map(|node| match &node.op {
        Op::Contract(c) => Some((node.operands.len(), c.epilogue.as_ref()?)),
        _ => None,
    });
    let products: Vec<(usize, &Expr)> = products.collect();
    let [(operands, epilogue)] = products[..] else { panic!("one product\n{graph}") };
    assert_eq!(operands, 4, "{graph}");
    let is = |node: &&Scalar| matches!(node, Scalar::Binary(Binary::Mul | Binary::Sub, ..));
    assert_eq!(epilogue.nodes.iter().filter(is).count(), 0, "{graph}");
}

/// Repetitions and reshapes of images with their channels in the second place.
#[test]
fn upsampling_keeps_channels_last() {
    let mut b = Builder::new("upsampled");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 3, 6, 5]));
    let small = conv(&mut b, x, &[8, 3, 3, 3], 1);
    let single = b.reshape(small, [1, 8, 6, 1, 5, 1]);
    let each = b.broadcast(single, [1, 8, 6, 2, 5, 2]);
    let large = b.reshape(each, [1, 8, 12, 10]);
    let places = b.constant(Tensor::from_i64s([3], &[11, 0, 4]));
    let rows = b.gather(large, places, 2);
    let y = conv(&mut b, rows, &[4, 8, 3, 3], 3);
    let flat = b.reshape(y, [1, 4, 30]);
    let y = b.permute(flat, &[0, 2, 1]);
    let graph = optimized(b, &[y]);
    assert_eq!(count(&graph, |op| matches!(op, Op::Permute(_))), 1, "{graph}");
}

/// Groups of channels that change places stay as they are.
#[test]
fn shuffled_channels() {
    let mut b = Builder::new("shuffled");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 3, 6, 5]));
    let y = conv(&mut b, x, &[8, 3, 3, 3], 1);
    let groups = b.reshape(y, [2, 2, 4, 6, 5]);
    let swapped = b.permute(groups, &[0, 2, 1, 3, 4]);
    let y = b.reshape(swapped, [2, 8, 6, 5]);
    let y = conv(&mut b, y, &[4, 8, 3, 3], 3);
    let y = b.reshape(y, [2, 4, 30, 1]);
    let graph = optimized(b, &[y]);
    let last = |op: &Op| matches!(op, Op::Permute(perm) if !perm.ends_with(&[perm.len() - 1]));
    assert_eq!(count(&graph, last), 2, "at the edges\n{graph}");
}

/// Channels become rows and columns, these become channels again, and all of it one row.
#[test]
fn channels_go_where_they_lie() {
    let mut b = Builder::new("pixels");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 3, 6, 4]));
    let y = conv(&mut b, x, &[12, 3, 3, 3], 1);
    let y = b.binary_scalar(Binary::Max, y, 0.0);
    let parts = b.reshape(y, [1, 3, 2, 2, 6, 4]);
    let parts = b.permute(parts, &[0, 1, 4, 2, 5, 3]);
    let y = b.reshape(parts, [1, 3, 12, 8]);
    let y = conv(&mut b, y, &[4, 3, 3, 3], 3);
    let parts = b.reshape(y, [1, 4, 4, 3, 4, 2]);
    let parts = b.permute(parts, &[0, 1, 3, 5, 2, 4]);
    let y = b.reshape(parts, [1, 24, 4, 4]);
    let y = conv(&mut b, y, &[5, 24, 3, 3], 5);
    let flat = b.reshape(y, [1, 80]);
    let w = b.constant(Tensor::noise(&[80, 10], 9));
    let y = b.contract(flat, w);
    let graph = optimized(b, &[y]);
    let last = |op: &Op| matches!(op, Op::Permute(perm) if !perm.ends_with(&[perm.len() - 1]));
    assert_eq!(count(&graph, last), 1, "at the input\n{graph}");
}

/// Pixels become larger images without a copy: each row is written where it belongs.
#[test]
fn larger_images_are_written_where_they_lie() {
    for (channels, parts, convs) in [(32, 2, 3), (16, 4, 5), (5, 2, 2)] {
        let mut b = Builder::new("larger");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 6, 5, 3]));
        let w = b.constant(Tensor::noise(&[1, 1, 3, channels * parts * parts], 3));
        let bias = b.constant(Tensor::noise(&[channels * parts * parts], 4));
        let y = b.conv(x, w, &[1, 1], &[1, 1], 1);
        let y = b.binary(Binary::Add, y, bias);
        let apart = b.reshape(y, [2, 6, 5, parts, parts, channels]);
        let apart = b.permute(apart, &[0, 1, 3, 2, 4, 5]);
        let y = b.reshape(apart, [2, 6 * parts, 5 * parts, channels]);
        let w = b.constant(Tensor::noise(&[1, 1, channels, 4], 5));
        let y = b.conv(y, w, &[1, 1], &[1, 1], 1);
        let graph = optimized(b, &[y]);
        let is = |op: &Op| matches!(op, Op::Conv(_) | Op::Contract(_));
        assert_eq!(count(&graph, is), convs, "{graph}");
    }
}

/// What others read too is there once, and without rows there are no parts.
#[test]
fn channels_that_are_read_as_they_are_stay() {
    for (rows, channels, apart) in [(6, 32, [6, 2, 16]), (0, 33, [0, 2, 99])] {
        let mut b = Builder::new("kept");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [rows, 3]));
        let w = b.constant(Tensor::noise(&[3, channels], 3));
        let product = b.contract(x, w);
        let parts = b.reshape(product, apart);
        let y = b.permute(parts, &[1, 0, 2]);
        let outputs = if rows > 0 { vec![y, product] } else { vec![y] };
        let graph = optimized(b, &outputs);
        assert_eq!(count(&graph, |op| matches!(op, Op::Contract(_))), 1, "{graph}");
    }
}

/// A head of one class is a product of a matrix with a vector.
#[test]
fn one_channel_of_results() {
    let mut b = Builder::new("head");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 7, 5, 12]));
    let other = b.input("other", Role::Input, Type::new(DType::F32, [2, 7, 5, 1]));
    let w = b.constant(Tensor::noise(&[1, 1, 12, 1], 3));
    let bias = b.constant(Tensor::noise(&[1], 4));
    let y = b.conv(x, w, &[1, 1], &[1, 1], 1);
    let y = b.binary(Binary::Add, y, bias);
    let y = b.binary(Binary::Mul, y, other);
    let y = b.channels_first(y);
    let graph = optimized(b, &[y]);
    let is = |op: &Op| matches!(op, Op::Contract(c) if c.epilogue.is_some());
    let others = |op: &Op| matches!(op, Op::Conv(_) | Op::Map(_));
    assert_eq!((count(&graph, is), count(&graph, others)), (1, 0), "{graph}");
}

/// What was split and is concatenated again is whole.
#[test]
fn split_and_joined() {
    let mut b = Builder::new("joined");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [3, 12]));
    let [first, second, third] = [0, 4, 8].map(|start| b.narrow(x, 1, start, 4));
    let other = b.unary(Unary::Exp, third);
    let all = b.concat(&[first, second, third, other], 1);
    let some = b.concat(&[first, second, other, third, first], 1);
    let graph = optimized(b, &[all, some]);
    let concats = graph.nodes.values().filter(|n| matches!(n.op, Op::Concat { .. }));
    assert_eq!(concats.map(|n| n.operands.len()).collect::<Vec<_>>(), [2, 4], "{graph}");
}
