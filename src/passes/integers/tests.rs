use super::*;
use crate::mir::verify::verify;
use crate::mir::{Builder, Output, Role};
use crate::passes::{Filtering, Level, run};

/// Integers that look random, in the range of their type.
fn noise(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let ty = Type::new(dtype, dims);
    let mut state = seed;
    let values: Vec<i64> = (0..ty.elements())
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            [0, 127, 128, 255].get((state >> 60) as usize).copied().unwrap_or((state >> 40) as i64)
        })
        .collect();
    Tensor::from_ints(ty, values)
}

/// `x - zero`, times a scale where there is one.
fn shift(b: &mut Builder, x: Value, zero: Value, scale: Option<Value>) -> Value {
    let mut e = Expr::new();
    let [x_of, zero_of] = [0, 1].map(|n| e.operand(n));
    let [x_of, zero_of] = [x_of, zero_of].map(|a| e.cast(DType::I32, a));
    let difference = e.binary(Binary::Sub, x_of, zero_of);
    if scale.is_some() {
        let number = e.cast(DType::F32, difference);
        let by = e.operand(2);
        e.binary(Binary::Mul, number, by);
    }
    let operands: Vec<Value> = [x, zero].into_iter().chain(scale).collect();
    b.map(e, &operands)
}

fn quantize(b: &mut Builder, x: Value, scale: f64, zero: i64, to: DType) -> Value {
    let mut e = Expr::new();
    let of = e.operand(0);
    let by = e.literal(DType::F32, scale);
    let quotient = e.binary(Binary::Div, of, by);
    let rounded = e.unary(Unary::Round, quotient);
    let zero = e.literal(DType::F32, zero as f64);
    let sum = e.binary(Binary::Add, rounded, zero);
    let (low, high) = if to == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let (low, high) = (e.literal(DType::F32, low), e.literal(DType::F32, high));
    let above = e.binary(Binary::Max, sum, low);
    let inside = e.binary(Binary::Min, above, high);
    e.cast(to, inside);
    b.map(e, &[x])
}

/// The graph as it is found, and after all passes, computes what it did; gives what the first of them made.
fn same(b: Builder, y: Value, inputs: &[Tensor], steps: f64) -> Graph {
    let graph = b.finish(vec![Output { name: "y".into(), value: y }]);
    verify(&graph).unwrap();
    let expected = eval::graph(&graph, inputs)[0].f64s();
    let found = find(graph, Dequantized::Integers, &Machine::AVX2);
    verify(&found).unwrap();
    for machine in [Machine::AVX2, Machine::AVX512, Machine::CLIF.scalar()] {
        let all = run(found.clone(), Level::Speed, Filtering::Auto, &machine);
        for graph in [&found, &all] {
            verify(graph).unwrap();
            let largest = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for (a, b) in expected.iter().zip(eval::graph(graph, inputs)[0].f64s()) {
                assert!((a - b).abs() <= steps.max(1e-5 * largest), "{a} {b}\n{graph}");
            }
        }
    }
    found
}

/// Products of bytes, and of other types.
fn count(graph: &Graph) -> (usize, usize) {
    let products = graph.nodes.values().filter(|n| matches!(n.op, Op::Contract(_) | Op::Conv(_)));
    let of = |n: &&Node| graph.ty(n.operands[1]).dtype == DType::I8;
    (products.clone().filter(of).count(), products.filter(|n| !of(n)).count())
}

/// An element type, dimensions of A and B, whether zero points are known, scales.
#[test]
fn matrix_products() {
    let types = [DType::U8, DType::I8];
    let mut seed = 1;
    for (left, right) in types.into_iter().flat_map(|l| types.map(|r| (l, r))) {
        for (known, scaled, batch) in [
            (true, true, vec![]),
            (false, true, vec![]),
            (true, false, vec![2]),
            (false, false, vec![]),
        ] {
            for (k, n) in [(1, 3), (7, 16), (66, 5)] {
                seed += 1;
                let mut b = Builder::new("product");
                let dims = |tail: [usize; 2]| [&batch[..], &tail[..]].concat();
                let x = b.input("x", Role::Input, Type::new(left, dims([3, k])));
                let zero = noise(left, &[], seed + 5);
                let mut inputs = vec![noise(left, &dims([3, k]), seed)];
                let zero = if known {
                    b.constant(zero)
                } else {
                    inputs.push(zero);
                    b.input("zero", Role::Input, Type::scalar(left))
                };
                let scale = |b: &mut Builder, columns: usize| {
                    let all = (0..columns).map(|i| 0.01 + i as f64 / 64.0);
                    b.constant(Tensor::from_f64s(Type::new(DType::F32, [columns]), all))
                };
                let single = b.scalar(DType::F32, 0.02);
                let a = shift(&mut b, x, zero, scaled.then_some(single));
                let w = b.constant(noise(right, &dims([k, n]), seed + 1));
                let w_zero = b.constant(noise(right, &[n], seed + 2));
                let columns = scale(&mut b, n);
                let w = shift(&mut b, w, w_zero, scaled.then_some(columns));
                let y = b.contract(a, w);
                let graph = same(b, y, &inputs, 0.0);
                assert!(count(&graph).0 > 0 && count(&graph).1 == 0, "{graph}");
            }
        }
    }
}

#[test]
fn convolutions() {
    let mut seed = 100;
    for dtype in [DType::U8, DType::I8] {
        for (inside, outside, groups, taps) in [
            (3, 5, 1, [3, 3]),
            (4, 16, 1, [1, 1]),
            (6, 6, 6, [3, 2]),
            (8, 4, 2, [2, 3]),
            (1, 9, 1, [5, 4]),
        ] {
            seed += 1;
            let mut b = Builder::new("convolution");
            let dims = [1, inside, 6, 7];
            let x = b.input("x", Role::Input, Type::new(DType::F32, dims));
            let zero = if dtype == DType::U8 { 100 } else { -20 };
            let q = quantize(&mut b, x, 0.01, zero, dtype);
            let zero = b.scalar(dtype, zero as f64);
            let scale = b.scalar(DType::F32, 0.01);
            let a = shift(&mut b, q, zero, Some(scale));
            let a = b.channels_last(a);
            let a = b.pad(a, &[0, 1, 2, 0], &[0, 2, 1, 0], 0.0);
            let w = [&taps[..], &[inside / groups, outside]].concat();
            let w = b.constant(noise(DType::I8, &w, seed));
            let none = b.constant(Tensor::zeros(Type::new(DType::I8, [1])));
            let scales = (0..outside).map(|i| 0.001 + i as f64 / 4096.0);
            let scales = Tensor::from_f64s(Type::new(DType::F32, [outside]), scales);
            let scales = b.constant(scales);
            let w = shift(&mut b, w, none, Some(scales));
            let y = b.conv(a, w, &[1, 2], &[1, 1], groups);
            let bias = b.constant(Tensor::noise(&[outside], seed as u32));
            let y = b.binary(Binary::Add, y, bias);
            let y = b.channels_first(y);
            let y = quantize(&mut b, y, 0.02, 3, dtype);
            let input = Tensor::noise(&dims, seed as u32 + 1);
            // Between two integers floats may go another way.
            let graph = same(b, y, &[input], 1.0);
            assert_eq!(count(&graph), (1, 0), "{graph}");
        }
    }
}

/// A border of a zero point that the run knows.
#[test]
fn given_zero_points_are_padded() {
    for (dtype, groups, outputs) in [(DType::U8, 1, 3), (DType::I8, 2, 8), (DType::I8, 4, 4)] {
        let mut b = Builder::new("border");
        let x = b.input("x", Role::Input, Type::new(dtype, [1, 5, 6, 4]));
        let zero = b.input("zero", Role::Input, Type::scalar(dtype));
        let a = shift(&mut b, x, zero, None);
        let a = b.pad(a, &[0, 1, 0, 0], &[0, 2, 1, 0], 0.0);
        let w = b.constant(noise(DType::U8, &[3, 2, 4 / groups, outputs], 3));
        let w_zero = b.constant(noise(DType::U8, &[], 4));
        let w = shift(&mut b, w, w_zero, None);
        let y = b.conv(a, w, &[1, 1], &[1, 1], groups);
        let inputs = [noise(dtype, &[1, 5, 6, 4], 5), noise(dtype, &[], 9)];
        same(b, y, &inputs, 0.0);
    }
}

/// What becomes an integer without being rounded is cut towards zero; differences of bytes wrap as such.
#[test]
fn conversions_stay_what_they_are() {
    let mut b = Builder::new("cut");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 3]));
    let mut e = Expr::new();
    let x_of = e.operand(0);
    let [zero, low, high] = [0.0, -128.0, 127.0].map(|v| e.literal(DType::F32, v));
    let sum = e.binary(Binary::Add, x_of, zero);
    let above = e.binary(Binary::Max, sum, low);
    let inside = e.binary(Binary::Min, above, high);
    e.cast(DType::I8, inside);
    let q = b.map(e, &[x]);
    let none = b.scalar(DType::I8, 0.0);
    let a = shift(&mut b, q, none, None);
    let w = b.constant(noise(DType::I8, &[3, 4], 3));
    let w = shift(&mut b, w, none, None);
    let y = b.contract(a, w);
    let x = Tensor::from_f32s([2, 3], &[-0.5, -3.7, 2.9, 200.5, -200.0, 0.4]);
    same(b, y, &[x], 0.0);

    let mut b = Builder::new("wrap");
    let x = b.input("x", Role::Input, Type::new(DType::U8, [2, 3]));
    let zero = b.scalar(DType::U8, 100.0);
    let mut e = Expr::new();
    let [x_of, zero_of] = [0, 1].map(|n| e.operand(n));
    let difference = e.binary(Binary::Sub, x_of, zero_of);
    e.cast(DType::I32, difference);
    let a = b.map(e, &[x, zero]);
    let w = b.constant(noise(DType::I8, &[3, 4], 3));
    let none = b.scalar(DType::I8, 0.0);
    let w = shift(&mut b, w, none, None);
    let y = b.contract(a, w);
    same(b, y, &[noise(DType::U8, &[2, 3], 1)], 0.0);
}

#[test]
fn sums_that_are_long_or_unknown_stay() {
    let mut b = Builder::new("other");
    let x = b.input("x", Role::Input, Type::new(DType::U8, [2, 3]));
    let w = b.input("w", Role::Input, Type::new(DType::I8, [3, 4]));
    let (zero, w_zero) = (b.scalar(DType::U8, 3.0), b.scalar(DType::I8, 0.0));
    let a = shift(&mut b, x, zero, None);
    let w = shift(&mut b, w, w_zero, None);
    let y = b.contract(a, w);
    let inputs = [noise(DType::U8, &[2, 3], 1), noise(DType::I8, &[3, 4], 2)];
    assert_eq!(count(&same(b, y, &inputs, 0.0)), (0, 1));
}

#[test]
fn floats_stay_floats() {
    let mut b = Builder::new("floats");
    let x = b.input("x", Role::Input, Type::new(DType::U8, [2, 3]));
    let (zero, scale) = (b.scalar(DType::U8, 3.0), b.scalar(DType::F32, 0.5));
    let a = shift(&mut b, x, zero, Some(scale));
    let w = b.constant(noise(DType::I8, &[3, 4], 2));
    let zero = b.scalar(DType::I8, 1.0);
    let w = shift(&mut b, w, zero, Some(scale));
    let y = b.contract(a, w);
    let graph = b.finish(vec![Output { name: "y".into(), value: y }]);
    let dots = Machine { dots: true, ..Machine::AVX2 };
    assert_eq!(count(&find(graph.clone(), Dequantized::Auto, &dots)), (1, 0));
    let graph = find(graph, Dequantized::Floats, &dots);
    assert_eq!(count(&graph), (0, 1));
    let known =
        |n: &Node| matches!(n.op, Op::Contract(_)) && graph.constant(n.operands[1]).is_some();
    assert!(graph.nodes.values().any(known), "{graph}");
}
