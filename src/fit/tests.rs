use super::*;
use crate::interp;
use crate::mir::{Binary, Builder, Output, Role, Unary, eval};
use crate::passes::{Filtering, Level, run};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Two blocks that widen an image, filter it and make it narrow again.
fn blocks(rows: usize, columns: usize) -> Graph {
    let mut b = Builder::new("blocks");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, rows, columns, 4]));
    let conv = |b: &mut Builder, x, taps: usize, groups: usize, outputs: usize| {
        let inputs = *b.dims(x).last().expect("it has channels");
        let w = b.constant(Tensor::noise(&[taps, taps, inputs / groups, outputs], outputs as u32));
        let border = taps / 2;
        let x = b.pad(x, &[0, border, border, 0], &[0, border, border, 0], 0.0);
        let y = b.conv(x, w, &[1, 1], &[1, 1], groups);
        b.binary_scalar(Binary::Max, y, 0.0)
    };
    let mut y = x;
    for _ in 0..2 {
        let wide = conv(&mut b, y, 1, 1, 24);
        let deep = conv(&mut b, wide, 3, 24, 24);
        let narrow = conv(&mut b, deep, 1, 1, 4);
        y = b.binary(Binary::Add, y, narrow);
    }
    let graph = b.finish(vec![Output { name: "y".into(), value: y }]);
    run(graph, Level::Speed, Filtering::Auto, &Machine::AVX2)
}

/// No result lies over an operand.
fn apart(module: Module, _: bool) -> Result<Module, ErrorKind> {
    Ok(module)
}

fn fitted(limit: u64) -> Result<Fitted, ErrorKind> {
    fit(blocks(23, 17), &lir::Options::default(), &Machine::AVX2, Bands::Off, Some(limit), &apart)
}

#[test]
fn less_than_half_will_do() {
    let plain = fitted(u64::MAX).expect("it fits");
    assert_eq!(plain.price, None);
    let size = plain.module.plan.arena_size;
    let input = Tensor::noise(&[1, 23, 17, 4], 7);
    let expected = eval::graph(&plain.graph, std::slice::from_ref(&input));
    for limit in [size, size * 3 / 4, size / 2, size * 2 / 5] {
        let found = fitted(limit).unwrap_or_else(|e| panic!("{limit} of {size}: {e:?}"));
        assert!(found.module.plan.arena_size <= limit);
        assert_eq!(lir::verify::verify(&found.module), Ok(()));
        assert_eq!(found.price.is_some(), limit < size);
        let again = fitted(limit).expect("it did");
        assert_eq!(found.module, again.module, "the same every time");
        let results = interp::arena::run(&found.module, std::slice::from_ref(&input), &[]);
        let results = results.expect("the plan holds");
        for (a, b) in expected.iter().zip(results) {
            for (a, b) in a.f64s().into_iter().zip(b.f64s()) {
                assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
            }
        }
    }
}

/// What does not fit into the cache is computed in bands unasked.
#[test]
fn smaller_for_nothing() {
    let machine = Machine { l2: 1 << 20, ..Machine::AVX2 };
    let graph = blocks(160, 144);
    let find = |bands: Bands| {
        let options = lir::Options::default();
        fit(graph.clone(), &options, &machine, bands, None, &apart).expect("there is no limit")
    };
    let plain = find(Bands::Off);
    assert_eq!(plain.price, None);
    let found = find(Bands::Auto);
    let sizes = [&found, &plain].map(|fitted| fitted.module.plan.arena_size);
    assert!(sizes[0] < sizes[1] * 3 / 4, "{sizes:?}");
    let price = found.price.expect("there are bands");
    assert!(price.time <= 1.0 && price.plain == sizes[1], "{price:?}");
    assert_eq!(lir::verify::verify(&found.module), Ok(()));
}

/// Before bands that cost time, results over operands are tried with those that cost none.
#[test]
fn over_operands_in_free_bands() {
    let machine = Machine { l2: 1 << 20, ..Machine::AVX2 };
    let options = lir::Options::default();
    let find = |limit, over: &Over<'_>| {
        fit(blocks(160, 144), &options, &machine, Bands::Auto, limit, over).expect("it can be had")
    };
    let free = find(None, &apart);
    let over = |mut module: Module, all: bool| {
        module.plan.arena_size -= if all { 128 } else { 0 };
        Ok(module)
    };
    let found = find(Some(free.module.plan.arena_size - 64), &over);
    assert_eq!(found.module.plan.arena_size, free.module.plan.arena_size - 128);
    assert_eq!(found.module.steps.len(), free.module.steps.len());
    assert_eq!(found.price.map(|p| p.regions), free.price.map(|p| p.regions));
}

#[test]
fn what_cannot_be_had_is_refused() {
    // The input and the output alone have more.
    let error = fitted(10_000).expect_err("it cannot be had");
    let text = format!("{error:?}");
    assert!(text.contains("the lowest that was found"), "{text}");
    assert!(text.contains("\\\"x\\\" (6272 bytes)"), "{text}");
    // What is offered instead can be had.
    let words = text.split("allow ").nth(1).and_then(|rest| rest.split(' ').next());
    let offered = words.and_then(|bytes| bytes.parse().ok()).expect("a size is offered");
    assert!(fitted(offered).is_ok(), "{text}");
}

/// A mask that is made of few numbers and added in several blocks, each of which has something wide that
/// cannot be computed by rows. With a chain that the mask is made by.
fn masked(blocks: usize, chain: usize) -> Graph {
    let mut b = Builder::new("masked");
    let mut x = b.input("x", Role::Input, Type::new(DType::F32, [64, 256]));
    let keep = b.input("keep", Role::Input, Type::new(DType::F32, [256]));
    let rows = b.constant(Tensor::noise(&[64, 1], 9));
    let keep = b.reshape(keep, [1, 256]);
    let mut mask = b.binary(Binary::Mul, rows, keep);
    (0..chain).for_each(|_| mask = b.unary(Unary::Sin, mask));
    let weights = [[512, 64], [64, 512]].map(|dims| b.constant(Tensor::noise(&dims, 5)));
    for _ in 0..blocks {
        let sum = b.binary(Binary::Add, x, mask);
        let wide = b.contract(weights[0], sum);
        let wide = b.binary_scalar(Binary::Max, wide, 0.0);
        x = b.contract(weights[1], wide);
    }
    b.finish(vec![Output { name: "y".into(), value: x }])
}

/// The plan holds, and what is computed is what the graph means.
fn check(graph: &Graph, found: &Fitted) {
    assert_eq!(lir::verify::verify(&found.module), Ok(()), "{}", found.module);
    let inputs: Vec<Tensor> =
        graph.inputs.iter().map(|&input| Tensor::noise(&graph.ty(input).dims, 7)).collect();
    let expected = eval::graph(graph, &inputs);
    let results = interp::arena::run(&found.module, &inputs, &[]).expect("the plan holds");
    for (a, b) in expected.iter().zip(results) {
        for (a, b) in a.f64s().into_iter().zip(b.f64s()) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{a} {b}");
        }
    }
}

/// What is computed from little is not kept, but computed again.
#[test]
fn masks_are_made_again() {
    let mask = 64 * 256 * 4;
    let options = lir::Options::default();
    for (blocks, chain) in [(1, 0), (3, 0), (2, 3)] {
        let graph = masked(blocks, chain);
        let find = |bands| {
            let found = fit(graph.clone(), &options, &Machine::AVX2, bands, None, &apart);
            found.expect("there is no limit")
        };
        let [plain, found] = [Bands::Off, Bands::Auto].map(find);
        check(&graph, &found);
        let sizes = [&plain, &found].map(|fitted| fitted.module.plan.arena_size);
        if blocks == 1 {
            // Nothing waits.
            assert_eq!(sizes[0], sizes[1]);
            continue;
        }
        assert!(sizes[1] + mask <= sizes[0], "{blocks} {chain}: {sizes:?}\n{}", found.module);
        let price = found.price.expect("something was done");
        assert_eq!(price.again, (blocks - 1) * (chain + 1), "{price:?}");
        assert!(price.regions == 0 && price.time < 1.02, "{price:?}");
    }
}

/// What is kept from the image to the end is computed from the image again, where an arena is asked for.
#[test]
fn skip_connections_are_computed_again() {
    let mut b = Builder::new("skips");
    let image = b.input("image", Role::Input, Type::new(DType::F32, [1, 16, 16, 2]));
    let conv = |b: &mut Builder, x, taps: usize, outputs: usize| {
        let inputs = *b.dims(x).last().expect("it has channels");
        let w = b.constant(Tensor::noise(&[taps, taps, inputs, outputs], outputs as u32));
        let border = taps / 2;
        let x = b.pad(x, &[0, border, border, 0], &[0, border, border, 0], 0.0);
        let y = b.conv(x, w, &[1, 1], &[1, 1], 1);
        b.binary_scalar(Binary::Max, y, 0.0)
    };
    let skip = conv(&mut b, image, 3, 12);
    let skip = conv(&mut b, skip, 1, 16);
    // All places depend on all others, and what is wide on few.
    let mut deep = b.reshape(skip, [256, 16]);
    for dims in [[64, 256], [16, 4], [2048, 64], [64, 2048], [256, 64]] {
        let weights = b.constant(Tensor::noise(&dims, 3));
        let (left, right) = if dims == [16, 4] { (deep, weights) } else { (weights, deep) };
        deep = b.contract(left, right);
    }
    let deep = b.reshape(deep, [1, 16, 16, 4]);
    let joined = b.concat(&[skip, deep], 3);
    let y = conv(&mut b, joined, 1, 2);
    let graph = b.finish(vec![Output { name: "y".into(), value: y }]);
    let options = lir::Options::default();
    let find = |limit| fit(graph.clone(), &options, &Machine::AVX2, Bands::Off, limit, &apart);
    let plain = find(None).expect("there is no limit");
    let limit = plain.module.plan.arena_size - 12_000;
    let found = find(Some(limit)).expect("less will do");
    check(&graph, &found);
    assert!(found.module.plan.arena_size <= limit);
    assert!(found.price.is_some_and(|price| price.again > 1), "{:?}", found.price);
}
