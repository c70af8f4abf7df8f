use super::*;
use crate::machine::Machine;
use crate::mir::{Binary, Builder, Reduction, Unary, eval, verify::verify};
use crate::passes::{Filtering, Level, run};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

fn tensor(dims: &[usize], seed: u32) -> Tensor {
    Tensor::noise(dims, seed.wrapping_mul(97).wrapping_add(11))
}

/// Cuts every value of the graph that can be cut, along every axis, and compares the results; how many
/// cuts there were, and how many nodes the largest region had.
fn check(graph: &Graph) -> (usize, usize) {
    check_from(graph, Value::from_u32(0))
}

/// The same with the sinks from one value on.
fn check_from(graph: &Graph, first: Value) -> (usize, usize) {
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|&v| tensor(&graph.ty(v).dims, 5)).collect();
    let expected = eval::graph(graph, &inputs);
    let (mut cuts, mut largest) = (0, 0);
    for sink in graph.nodes.keys().filter(|&sink| sink >= first) {
        let dims = graph.ty(sink).dims.clone();
        for axis in (0..dims.len()).filter(|&axis| dims[axis] > 1) {
            let axis = Axis { axis, unit: 1 };
            let Some(region) = Region::new(graph, &graph.uses(), sink, axis, |_| false) else {
                continue;
            };
            largest = largest.max(region.nodes.len());
            let rows = region.rows(graph);
            let (part, inner) = alone(graph, &region);
            assert_eq!(verify(&part), Ok(()), "{part}");
            assert_eq!(inner.nodes.len(), region.nodes.len());
            for overlap in [Overlap::Kept, Overlap::Computed] {
                for height in [1, 2, 3, rows.div_ceil(2)] {
                    let cut = Cut { region: region.clone(), height, overlap };
                    let (new, _) = split(graph, &[cut], &[]);
                    assert_eq!(verify(&new), Ok(()), "{new}");
                    let found = eval::graph(&new, &inputs);
                    for (a, b) in expected.iter().zip(&found) {
                        for (a, b) in a.f64s().into_iter().zip(b.f64s()) {
                            let close = (a - b).abs() <= 1e-5 * a.abs().max(1.0);
                            assert!(close, "{sink} by {height} {overlap:?}: {a} {b}\n{graph}{new}");
                        }
                    }
                    cuts += 1;
                }
            }
        }
    }
    (cuts, largest)
}

fn finish(b: Builder, value: Value) -> Graph {
    b.finish(vec![Output { name: "y".into(), value }])
}

struct Convolution {
    taps: usize,
    stride: usize,
    dilation: usize,
    border: [usize; 2],
    groups: usize,
}

fn conv(b: &mut Builder, x: Value, outputs: usize, c: &Convolution) -> Value {
    let inputs = *b.dims(x).last().expect("it has channels");
    let w = b.constant(tensor(&[c.taps, c.taps, inputs / c.groups, outputs], outputs as u32));
    let [low, high] = c.border;
    let x = b.pad(x, &[0, low, low, 0], &[0, high, high, 0], 0.0);
    let y = b.conv(x, w, &[c.stride; 2], &[c.dilation; 2], c.groups);
    b.binary_scalar(Binary::Max, y, -0.25)
}

#[test]
fn chains_of_convolutions() {
    let mut state = 3u32;
    let mut pick = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % n
    };
    for _ in 0..6 {
        let mut b = Builder::new("chain");
        let extents = [7 + pick(6), 5 + pick(3)];
        let mut x =
            b.input("x", Role::Input, Type::new(DType::F32, [1, extents[0], extents[1], 3]));
        for _ in 0..3 {
            let before = x;
            let channels = *b.dims(x).last().expect("it has channels");
            let depthwise = pick(3) == 0;
            let taps = [1, 3, 2][pick(3)];
            let dilation = if taps == 3 { 1 + pick(2) } else { 1 };
            let reach = (taps - 1) * dilation;
            let c = Convolution {
                taps,
                stride: 1 + pick(2),
                dilation,
                border: [reach / 2 + pick(2), reach - reach / 2 + pick(2)],
                groups: if depthwise { channels } else { 1 },
            };
            let outputs = if depthwise { channels } else { 2 + pick(3) };
            x = conv(&mut b, x, outputs, &c);
            if b.dims(x) == b.dims(before) {
                x = b.binary(Binary::Add, before, x);
            }
        }
        let graph = finish(b, x);
        for graph in [graph.clone(), run(graph, Level::Speed, Filtering::Off, &Machine::AVX2)] {
            let (cuts, largest) = check(&graph);
            assert!(cuts > 0 && largest > 3, "{cuts} {largest}\n{graph}");
        }
    }
}

#[test]
fn residual_blocks() {
    let mut b = Builder::new("block");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 9, 7, 4]));
    let point = Convolution { taps: 1, stride: 1, dilation: 1, border: [0, 0], groups: 1 };
    let deep = Convolution { taps: 3, stride: 1, dilation: 1, border: [1, 1], groups: 12 };
    let mut y = x;
    for _ in 0..2 {
        let wide = conv(&mut b, y, 12, &point);
        let deep = conv(&mut b, wide, 12, &deep);
        let narrow = conv(&mut b, deep, 4, &point);
        y = b.binary(Binary::Add, y, narrow);
    }
    let graph = run(finish(b, y), Level::Speed, Filtering::Off, &Machine::AVX2);
    let (_, largest) = check(&graph);
    assert!(largest >= 8, "both blocks: {largest}\n{graph}");
}

#[test]
fn feed_forward_and_attention() {
    let mut b = Builder::new("encoder");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 7, 12]));
    let weight = |b: &mut Builder, from, to| {
        let w = b.constant(tensor(&[from, to], (from + to) as u32));
        b.broadcast(w, [1, from, to])
    };
    let [q, k, v] = [1, 2, 3].map(|_| {
        let w = weight(&mut b, 12, 12);
        let y = b.contract(x, w);
        let y = b.reshape(y, [1, 7, 3, 4]);
        b.permute(y, &[0, 2, 1, 3])
    });
    let k = b.permute(k, &[0, 1, 3, 2]);
    let scores = b.contract(q, k);
    let most = b.reduce(Reduction::Max, scores, &[3]);
    let shifted = b.binary(Binary::Sub, scores, most);
    let exp = b.unary(Unary::Exp, shifted);
    let total = b.reduce(Reduction::Sum, exp, &[3]);
    let weights = b.binary(Binary::Div, exp, total);
    let mixed = b.contract(weights, v);
    let mixed = b.permute(mixed, &[0, 2, 1, 3]);
    let mixed = b.reshape(mixed, [1, 7, 12]);
    let sum = b.binary(Binary::Add, mixed, x);
    let up = weight(&mut b, 12, 20);
    let wide = b.contract(sum, up);
    let wide = b.unary(Unary::Tanh, wide);
    let down = weight(&mut b, 20, 12);
    let narrow = b.contract(wide, down);
    let y = b.binary(Binary::Add, narrow, sum);
    let graph = finish(b, y);
    for graph in [graph.clone(), run(graph, Level::Speed, Filtering::Off, &Machine::AVX2)] {
        let (_, largest) = check(&graph);
        assert!(largest >= 5, "{largest}\n{graph}");
    }
}

#[test]
fn moved_and_joined() {
    let mut b = Builder::new("moved");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 9, 6]));
    let other = b.unary(Unary::Neg, x);
    let joined = b.concat(&[x, other, x], 1);
    let joined = b.unary(Unary::Abs, joined);
    let every = b.slice(joined, &[0, 1, 1], &[2, 12, 4], &[1, 2, 1]);
    let every = b.unary(Unary::Tanh, every);
    let halves = b.reshape(every, [2, 6, 8]);
    let halves = b.permute(halves, &[1, 0, 2]);
    let indices = b.constant(Tensor::from_i64s([5], &[3, 0, 5, 1, -1]));
    let picked = b.gather(halves, indices, 0);
    let picked = b.unary(Unary::Neg, picked);
    let image = b.reshape(picked, [1, 5, 4, 4]);
    let wide = b.pad_interior(image, &[0, 2, 0, 0], &[0, 1, 0, 0], &[0, 1, 1, 0], 0.5);
    let wide = b.unary(Unary::Abs, wide);
    let pooled = b.pool(Reduction::Max, wide, &[3, 2], &[2, 1], &[1, 1]);
    let y = b.reduce(Reduction::Sum, pooled, &[2]);
    let (cuts, _) = check(&finish(b, y));
    assert!(cuts > 20, "{cuts}");
}

/// Rows of a reshape that are parts of its operand's.
#[test]
fn repeated_rows() {
    let mut b = Builder::new("upsampled");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 5, 4, 3]));
    let c = Convolution { taps: 3, stride: 1, dilation: 1, border: [1, 1], groups: 1 };
    let small = conv(&mut b, x, 4, &c);
    let single = b.reshape(small, [1, 5, 1, 4, 1, 4]);
    let each = b.broadcast(single, [1, 5, 2, 4, 3, 4]);
    let each = b.unary(Unary::Neg, each);
    let large = b.reshape(each, [1, 10, 12, 4]);
    let y = conv(&mut b, large, 2, &c);
    let graph = finish(b, y);
    for graph in [graph.clone(), run(graph, Level::Speed, Filtering::Off, &Machine::AVX2)] {
        let (_, largest) = check(&graph);
        assert!(largest >= 6, "both convolutions: {largest}\n{graph}");
    }
}

#[test]
fn minimal_filtering() {
    let mut b = Builder::new("filtered");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 13, 9, 16]));
    let c = Convolution { taps: 3, stride: 1, dilation: 1, border: [1, 1], groups: 1 };
    let y = conv(&mut b, x, 32, &c);
    let y = conv(&mut b, y, 32, &c);
    let graph = run(finish(b, y), Level::Speed, Filtering::Auto, &Machine::AVX2);
    assert!(graph.nodes.values().any(|node| matches!(node.op, Op::Winograd(_))), "{graph}");
    let last = Value::from_u32(graph.nodes.len() as u32 - 1);
    let (_, largest) = check_from(&graph, last);
    assert!(largest >= 6, "{largest}\n{graph}");
}

#[test]
fn minimal_filtering_plane_by_plane() {
    let mut b = Builder::new("planes");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 5, 8, 8, 16]));
    let mut y = x;
    for seed in 0..2 {
        let w = b.constant(tensor(&[3, 3, 3, 16, 16], seed));
        y = b.pad(y, &[0, 1, 1, 1, 0], &[0, 1, 1, 1, 0], 0.0);
        y = b.conv(y, w, &[1, 1, 1], &[1, 1, 1], 1);
    }
    let graph = run(finish(b, y), Level::Speed, Filtering::Auto, &Machine::AVX2);
    let planes = |node: &crate::mir::Node| matches!(node.op, Op::Winograd(_));
    assert!(graph.nodes.values().any(planes), "{graph}");
    let last = Value::from_u32(graph.nodes.len() as u32 - 2);
    assert!(check_from(&graph, last).0 > 0, "{graph}");
}

/// A result may be written over its operand as soon as no later band reads what was there.
#[test]
fn rows_are_written_behind_those_that_are_read() {
    let mut b = Builder::new("m");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 12, 10, 4]));
    let leaf = b.unary(Unary::Exp, x);
    let w = b.constant(Tensor::noise(&[3, 3, 4, 4], 3));
    let sink = b.conv(leaf, w, &[1, 1], &[1, 1], 1);
    let graph = b.finish(vec![Output { name: "y".into(), value: sink }]);
    let axis = Axis { axis: 1, unit: 1 };
    let region = Region::new(&graph, &graph.uses(), sink, axis, |value| value <= leaf);
    let region = region.expect("it has rows");
    let cut = |height| Cut { region: region.clone(), height, overlap: Overlap::Kept };
    // Rows of the operand have 160 bytes, those of the result 128. A band must not overwrite what it reads itself.
    assert_eq!(cut(5).ahead(&graph, leaf), Some(5 * 128));
    assert_eq!(cut(2).ahead(&graph, leaf), Some(2 * 128));
}
