//! For tests: an operator's reference against its expansion, on cases that are written as text.

use super::{AnyOp, Attribute, Attrs, Operand, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::collections::BTreeMap;

/// Runs a node both ways. `node` is the operator's name, `@` and the version of the operator set if it
/// is not the newest, and attributes: `Conv @11 group=2 pads=[1,1] auto_pad=VALID`. Operands: `-` for one
/// left out, `f32[2,3]` for one with values between -1 and 1, `i64[2]=4,5` for one with these values, and
/// `const` before it for one that is known when the model is compiled.
///
/// Gives the reference's results.
#[track_caller]
pub fn agree(node: &str, operands: &[&str]) -> Vec<Tensor> {
    let operands: Vec<_> = operands.iter().enumerate().map(|(i, text)| operand(i, text)).collect();
    let (op, types) = infer(node, &operands).unwrap_or_else(|e| panic!("{node}: {e:?}"));
    let given: Vec<_> = operands.iter().map(|o| o.as_ref().map(|o| &o.0)).collect();
    let expected = op.reference(&given, &types);

    let mut builder = mir::Builder::new("case");
    let mut inputs = vec![];
    let mut value = |o: &Option<(Tensor, bool)>| {
        let (tensor, constant) = o.as_ref()?;
        if *constant {
            return Some(builder.constant(tensor.clone()));
        }
        inputs.push(tensor.clone());
        Some(builder.input(inputs.len().to_string(), mir::Role::Input, tensor.ty().clone()))
    };
    let values: Vec<_> = operands.iter().map(&mut value).collect();
    let results = op.expand(&mut builder, &values, &types);
    assert_eq!(expected.len(), results.len(), "{node}: number of results");
    for (i, &v) in results.iter().enumerate() {
        assert_eq!(builder.ty(v), &types[i], "{node}: type of result {i} in MIR");
        assert_eq!(expected[i].ty(), &types[i], "{node}: type of result {i} of the reference");
    }
    let outputs = results.iter().map(|&value| mir::Output { name: String::new(), value }).collect();
    let found = mir::eval::graph(&builder.finish(outputs), &inputs);
    for (i, (a, b)) in expected.iter().zip(&found).enumerate() {
        assert_close(&format!("{node}: result {i}"), op.tolerance(), a, b);
    }
    expected
}

/// The error of a node that does not fit.
#[track_caller]
pub fn refused(node: &str, operands: &[&str]) -> ErrorKind {
    let operands: Vec<_> = operands.iter().enumerate().map(|(i, text)| operand(i, text)).collect();
    match infer(node, &operands) {
        Err(error) => error,
        Ok((_, types)) => panic!("{node}: accepted, with results {types:?}"),
    }
}

fn infer(node: &str, operands: &[Option<(Tensor, bool)>]) -> Result<(AnyOp, Vec<Type>), ErrorKind> {
    let (name, mut attrs) = parse(node);
    let op = AnyOp::parse(&name, &mut attrs)?;
    let known = |o: &(Tensor, bool)| (o.0.ty().clone(), o.1.then(|| o.0.clone()));
    let known: Vec<_> = operands.iter().map(|o| o.as_ref().map(known)).collect();
    let operands = known
        .iter()
        .map(|o| o.as_ref().map(|(ty, constant)| Operand { ty, constant: constant.as_ref() }));
    let types = op.infer(&Operands::new(operands.collect()))?;
    Ok((op, types))
}

#[track_caller]
fn assert_close(what: &str, tolerance: Tolerance, expected: &Tensor, found: &Tensor) {
    let (a, b) = (expected.f64s(), found.f64s());
    let largest = a.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (&a, &b)) in a.iter().zip(&b).enumerate() {
        let slack = match tolerance {
            Tolerance::Exact => 0.0,
            Tolerance::Ulps(n) => f64::from(n) * a.abs() * f64::from(f32::EPSILON),
            Tolerance::Relative(r) => r * largest,
        };
        let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= slack;
        assert!(
            same,
            "{what}, element {i}: {a} by definition, {b} in MIR\n{expected:?}\n{found:?}"
        );
    }
}

fn parse(node: &str) -> (String, Attrs) {
    let mut words = node.split(' ').filter(|w| !w.is_empty());
    let name = words.next().expect("a name").to_owned();
    let (mut opset, mut values) = (24, BTreeMap::new());
    for word in words {
        match (word.strip_prefix('@'), word.split_once('=')) {
            (Some(version), _) => opset = version.parse().expect("a version"),
            (None, Some((name, text))) => _ = values.insert(name.to_owned(), attribute(text)),
            _ => panic!("what is {word}?"),
        }
    }
    (name, Attrs::new(values, opset, vec![true]))
}

fn attribute(text: &str) -> Attribute {
    if let Some(list) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let entries: Vec<_> = list.split(',').filter(|e| !e.is_empty()).collect();
        if let Ok(list) = entries.iter().map(|e| e.parse()).collect() {
            return Attribute::Ints(list);
        }
        return match entries.iter().map(|e| e.parse()).collect() {
            Ok(list) => Attribute::Floats(list),
            Err(_) => Attribute::Texts(entries.iter().map(|e| e.replace('_', " ")).collect()),
        };
    }
    match (text.parse(), text.parse()) {
        (Ok(int), _) => Attribute::Int(int),
        (_, Ok(float)) => Attribute::Float(float),
        _ => Attribute::Text(text.to_owned()),
    }
}

fn operand(seed: usize, text: &str) -> Option<(Tensor, bool)> {
    let (text, constant) = match text.strip_prefix("const ") {
        Some(text) => (text, true),
        None => (text, false),
    };
    if text == "-" {
        return None;
    }
    let (ty, values) = text.split_once('=').map_or((text, None), |(ty, list)| (ty, Some(list)));
    let (name, dims) = ty.split_once('[').expect("a type");
    let dims: Vec<usize> = dims
        .trim_end_matches(']')
        .split(',')
        .filter(|d| !d.is_empty())
        .map(|d| d.trim().parse().expect("a dimension"))
        .collect();
    let ty = Type::new(DType::from_name(name).expect("an element type"), dims);
    let values: Vec<f64> = match values {
        Some(list) => list.split(',').map(|v| v.trim().parse().expect("a number")).collect(),
        None => {
            let mut state = 0x9e37_79b9_u32.wrapping_mul(seed as u32 + 1);
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f64::from(state >> 8) / f64::from(1 << 23) - 1.0
            };
            (0..ty.elements()).map(|_| next()).collect()
        }
    };
    let values = values.into_iter().map(|v| match ty.dtype {
        DType::Bool => f64::from(u8::from(v > 0.0)),
        t if t.is_integer() && v.abs() <= 1.0 && v.fract() != 0.0 => (v * 100.0).trunc(),
        _ => v,
    });
    Some((Tensor::from_f64s(ty.clone(), values.collect::<Vec<_>>()), constant))
}
