use super::*;
use crate::interp;
use crate::mir::{Binary, Builder, Output, Role, eval};
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

fn fitted(limit: u64) -> Result<Fitted, ErrorKind> {
    fit(blocks(23, 17), &lir::Options::default(), &Machine::AVX2, Bands::Off, Some(limit))
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
        fit(graph.clone(), &options, &machine, bands, None).expect("there is no limit")
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

#[test]
fn what_cannot_be_had_is_refused() {
    // The input and the output alone have more.
    let error = fitted(10_000).expect_err("it cannot be had");
    let text = format!("{error:?}");
    assert!(text.contains("the lowest that was found"), "{text}");
    assert!(text.contains("\\\"x\\\" (6272 bytes)"), "{text}");
}
