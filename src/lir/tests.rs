//! Plans of small graphs.

use super::stored::NEAR;
use super::*;
use crate::mir::{Builder, Output, Unary};
use crate::types::DType;

/// A value that is read at once, and again by a concatenation after so many wide ones; the concatenation.
fn waiting(between: usize) -> (mir::Graph, mir::Value) {
    let mut mir = Builder::new("m");
    let x = mir.input("x", Role::Input, Type::new(DType::F32, [64, 64]));
    let skip = mir.unary(Unary::Neg, x);
    let mut wide = mir.broadcast(skip, [8, 64, 64]);
    for _ in 0..between {
        wide = mir.unary(Unary::Exp, wide);
    }
    let sum = mir.reduce(Reduction::Sum, wide, &[0]);
    let sum = mir.reshape(sum, [64, 64]);
    let sum = mir.unary(Unary::Neg, sum);
    let all = mir.concat(&[skip, sum, sum], 1);
    let sum = mir.reduce(Reduction::Sum, all, &[1]);
    (mir.finish(vec![Output { name: "y".into(), value: sum }]), all)
}

/// A value that is read at once, and again by a concatenation much later.
#[test]
fn long_windows_are_weighed() {
    let (graph, _) = waiting(30);
    let order: Vec<_> = graph.nodes.keys().collect();
    let bound = |reach: usize| {
        let windows = Windows { reach, ..Windows::ALL };
        place::bound(&storage::assign(&graph, &order, &[], &Options::default(), &windows))
    };
    let module = lower(&graph, Options::default()).expect("it is small");
    assert!(bound(NEAR) < bound(usize::MAX));
    assert!(module.plan.bound <= bound(NEAR));
    assert_eq!(module.plan.arena_size, module.plan.bound);
}

/// The same where it is not much later: only what waits at the peak is copied.
#[test]
fn windows_are_given_up_where_most_is_alive() {
    let (graph, all) = waiting(1);
    let order: Vec<_> = graph.nodes.keys().collect();
    let bound = |apart: &[(mir::Value, usize)]| {
        let windows = Windows { apart: apart.iter().copied().collect(), ..Windows::ALL };
        place::bound(&storage::assign(&graph, &order, &[], &Options::default(), &windows))
    };
    let module = lower(&graph, Options::default()).expect("it is small");
    assert_eq!(bound(&[]) - bound(&[(all, 0)]), 2 * 64 * 64 * 4);
    assert_eq!(module.plan.bound, bound(&[(all, 0)]), "{module}");
    assert_eq!(verify::verify(&module), Ok(()));
}

/// The results of attention lie where its queries were: heads are views of both.
#[test]
fn attention_takes_the_place_of_its_queries() {
    let (queries, heads, depth) = (6, 4, 8);
    let mut mir = Builder::new("m");
    let mut project = |name: &str| {
        let x = mir.input(name, Role::Input, Type::new(DType::F32, [queries, heads * depth]));
        let x = mir.unary(Unary::Neg, x);
        let x = mir.reshape(x, [1, queries, heads, depth]);
        mir.permute(x, &[0, 2, 1, 3])
    };
    let [q, k, v] = ["q", "k", "v"].map(&mut project);
    let k = mir.permute(k, &[0, 1, 3, 2]);
    let scores = mir.contract(q, k);
    let max = mir.reduce(Reduction::Max, scores, &[3]);
    let exp = mir.binary(Binary::Sub, scores, max);
    let exp = mir.unary(Unary::Exp, exp);
    let sum = mir.reduce(Reduction::Sum, exp, &[3]);
    let weights = mir.binary(Binary::Div, exp, sum);
    let y = mir.contract(weights, v);
    let y = mir.permute(y, &[0, 2, 1, 3]);
    let y = mir.reshape(y, [queries, heads * depth]);
    let y = mir.reduce(Reduction::Sum, y, &[1]);
    let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
    let (level, off) = (crate::passes::Level::Speed, crate::passes::Filtering::Off);
    let graph = crate::passes::run(graph, level, off, &crate::machine::Machine::AVX2);
    let module = lower(&graph, Options::default()).expect("it is small");
    let mut steps = module.steps.values();
    let step = steps.find(|step| matches!(step.op, Op::Attention(_))).expect("there is one");
    assert!(step.operands[0].same(&step.result), "{module}");
}

/// Bands of a result, inside of a border, lie where the residual's were; what reads a row of another band
/// beforehand takes that away.
#[test]
fn residuals_wait_inside_borders() {
    let buffers = |crosses: bool| {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [8, 6]));
        let residual = mir.unary(Unary::Exp, x);
        let bands: Vec<_> = (0..4usize)
            .map(|band| {
                let from = 2 * if crosses { 3 - band } else { band };
                let rows = mir.slice(residual, &[2 * band, 0], &[2, 6], &[1, 1]);
                let other = mir.slice(residual, &[from, 0], &[2, 6], &[1, 1]);
                mir.binary(Binary::Sub, rows, other)
            })
            .collect();
        let all = mir.concat(&bands, 0);
        let wide = mir.pad(all, &[0, 1], &[1, 0], 0.0);
        let y = mir.reduce(Reduction::Sum, wide, &[1]);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        let module = lower(&graph, Options::default()).expect("it is small");
        assert_eq!(module.plan.arena_size, module.plan.bound);
        let wide = 9 * 7 * 4;
        module.buffers.values().filter(|info| info.bytes >= 8 * 6 * 4 && info.bytes <= wide).count()
    };
    // The input and one more.
    assert_eq!((buffers(false), buffers(true)), (2, 3));
}

/// Channels in the second place of an input stay there: the convolution reads them in place, and
/// the copy into its border goes along the rows.
#[test]
fn images_are_not_transposed() {
    for border in [0, 1] {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [1, 3, 30, 20]));
        let x = mir.channels_last(x);
        let x = mir.pad(x, &[0, border, border, 0], &[0, border, border, 0], 0.0);
        let w = mir.input("w", Role::Parameter, Type::new(DType::F32, [3, 3, 3, 8]));
        let y = mir.conv(x, w, &[2, 2], &[1, 1], 1);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        let module = lower(&graph, Options::default()).expect("it is small");
        let moves = module.steps.values().filter(|step| step.op == Op::Move);
        let moves: Vec<&StepInfo> = moves.collect();
        assert_eq!(moves.len(), border, "{module}");
        for step in moves {
            assert_eq!(step.operands[0].strides.last(), Some(&1), "{module}");
            assert_eq!(step.result.strides.last(), Some(&1), "{module}");
        }
    }
}

/// A value of which several bands are made, each from its own rows and some around them, in the place of the whole;
/// nothing else is as large.
fn banded(rows: usize, height: usize, around: [usize; 2], early: bool) -> mir::Graph {
    let mut mir = Builder::new("m");
    let x = mir.input("x", Role::Input, Type::new(DType::F32, [rows, 1]));
    let wide = mir.broadcast(x, [rows, 64]);
    let whole = mir.unary(Unary::Exp, wide);
    let mut bands = vec![];
    if early {
        bands.push(mir.reduce(Reduction::Sum, whole, &[0]));
        bands[0] = mir.reshape(bands[0], [1, 64]);
    }
    for start in (0..rows).step_by(height) {
        let end = (start + height).min(rows);
        let (from, to) = (start.saturating_sub(around[0]), (end + around[1]).min(rows));
        let part = mir.slice(whole, &[from, 0], &[to - from, 64], &[1, 1]);
        let weights = mir.constant(Tensor::noise(&[end - start, to - from], start as u32 + 1));
        bands.push(mir.contract(weights, part));
    }
    let all = mir.concat(&bands, 0);
    let y = mir.reduce(Reduction::Sum, all, &[1]);
    mir.finish(vec![Output { name: "y".into(), value: y }])
}

/// Bands take the room of what they are made of while the rest of that is still read.
#[test]
fn bands_lie_where_their_operand_does() {
    let graph = banded(32, 4, [1, 1], false);
    let module = lower(&graph, Options::default()).expect("it is small");
    let sizes: Vec<u64> = module.buffers.values().map(|info| info.bytes).collect();
    // A band is written before a row that it was made of is read for the next one.
    let row = 64 * 4;
    assert!(sizes.contains(&((32 + 4 + 1) * row)), "{module}");
    assert_eq!(sizes.iter().filter(|&&bytes| bytes >= 32 * row).count(), 1, "{module}");
    assert_eq!(module.plan.arena_size, module.plan.bound);
    // Where each band is made of almost all, nothing is won.
    let module = lower(&banded(32, 4, [28, 28], false), Options::default()).expect("it is small");
    let large = module.buffers.values().filter(|info| info.bytes == 32 * row);
    assert_eq!(large.count(), 2, "{module}");
}

#[test]
fn bands_over_their_operands_hold() {
    let shapes = [(32, 4), (31, 4), (17, 5), (9, 1), (24, 12), (40, 7)];
    for ((rows, height), early) in shapes.into_iter().zip([false, true].into_iter().cycle()) {
        for around in [[0, 0], [1, 0], [0, 1], [1, 1], [3, 2], [0, 9], [9, 0]] {
            let graph = banded(rows, height, around, early);
            let input = [Tensor::noise(&[rows, 1], 5)];
            let expected = mir::eval::graph(&graph, &input)[0].f64s();
            let module = lower(&graph, Options::default()).expect("it is small");
            assert_eq!(verify::verify(&module), Ok(()), "{module}");
            let found = crate::interp::arena::run(&module, &input, &[]).expect("the plan holds");
            for (a, b) in expected.iter().zip(found[0].f64s()) {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{rows} {height} {around:?}");
            }
        }
    }
}

/// A concatenation of inputs, which is copied together, lies where one of bands of it does: not in the window of
/// what waits there since before.
#[test]
fn what_waits_is_not_written_over() {
    for (rows, height, last) in [(32, 4, true), (32, 4, false), (24, 5, true), (48, 3, true)] {
        let mut mir = Builder::new("m");
        let inputs = ["a", "b"]
            .map(|name| mir.input(name, Role::Input, Type::new(DType::F32, [rows / 2, 64])));
        let early = mir.binary(Binary::Mul, inputs[0], inputs[1]);
        let whole = mir.concat(&inputs, 0);
        let mut parts = vec![];
        for start in (0..rows).step_by(height) {
            let to = (start + height + 1).min(rows);
            let part = mir.slice(whole, &[start, 0], &[to - start, 64], &[1, 1]);
            let n = height.min(rows - start);
            let weights = mir.constant(Tensor::noise(&[n, to - start], start as u32 + 1));
            parts.push(mir.contract(weights, part));
        }
        parts.insert(if last { parts.len() } else { 0 }, early);
        let all = mir.concat(&parts, 0);
        let y = mir.reduce(Reduction::Sum, all, &[1]);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        let input = [5, 6].map(|seed| Tensor::noise(&[rows / 2, 64], seed));
        let expected = mir::eval::graph(&graph, &input)[0].f64s();
        let module = lower(&graph, Options::default()).expect("it is small");
        let found = crate::interp::arena::run(&module, &input, &[]).expect("the plan holds");
        for (a, b) in expected.iter().zip(found[0].f64s()) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{rows} {height} {last}\n{module}");
        }
    }
}
