//! Cases that are written as text.
//!
//! A node is the operator's name, `@` and the version of the operator set if it is not the newest, and
//! attributes: `Conv @11 group=2 pads=[1,1] auto_pad=VALID`; in texts of lists, `_` is a space. Operands: `-`
//! for one left out, `f32[2,3]` for one with values between -1 and 1, `i64[2]=4,5` for one with these values,
//! and `const` before it for one that is known when the model is compiled.

use super::case::{Case, case};
use crate::error::ErrorKind;
use crate::ops::{AnyOp, Attribute, Attrs, Operand, Operands};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::collections::BTreeMap;

/// The case of this node with these operands.
pub(super) fn read(node: &str, operands: &[&str]) -> Case {
    let (name, opset, attrs) = words(node);
    let start =
        attrs.into_iter().fold(case(&name).opset(opset), |c, (name, value)| c.attr(&name, value));
    operands.iter().enumerate().fold(start, |case, (i, text)| match operand(i, text) {
        None => case.none(),
        Some((tensor, true)) => case.known(tensor),
        Some((tensor, false)) => case.given(tensor),
    })
}

/// The results of a node by its operator's definition.
#[track_caller]
pub(crate) fn definition(node: &str, operands: &[&str]) -> Vec<Tensor> {
    let operands: Vec<_> = operands.iter().enumerate().map(|(i, text)| operand(i, text)).collect();
    let (op, types) = infer(node, &operands).unwrap_or_else(|e| panic!("{node}: {e:?}"));
    let given: Vec<_> = operands.iter().map(|o| o.as_ref().map(|o| &o.0)).collect();
    op.reference(&given, &types)
}

/// The error of a node that does not fit.
#[track_caller]
pub(crate) fn refused(node: &str, operands: &[&str]) -> ErrorKind {
    let operands: Vec<_> = operands.iter().enumerate().map(|(i, text)| operand(i, text)).collect();
    match infer(node, &operands) {
        Err(error) => error,
        Ok((_, types)) => panic!("{node}: accepted, with results {types:?}"),
    }
}

fn infer(node: &str, operands: &[Option<(Tensor, bool)>]) -> Result<(AnyOp, Vec<Type>), ErrorKind> {
    let (name, opset, attrs) = words(node);
    let op = AnyOp::parse(&name, &mut Attrs::new(attrs, opset, vec![true]))?;
    let known = |o: &(Tensor, bool)| (o.0.ty().clone(), o.1.then(|| o.0.clone()));
    let known: Vec<_> = operands.iter().map(|o| o.as_ref().map(known)).collect();
    let operands = known
        .iter()
        .map(|o| o.as_ref().map(|(ty, constant)| Operand { ty, constant: constant.as_ref() }));
    let types = op.infer(&Operands::new(operands.collect()))?;
    Ok((op, types))
}

fn words(node: &str) -> (String, i64, BTreeMap<String, Attribute>) {
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
    (name, opset, values)
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
