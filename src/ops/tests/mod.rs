//! What the tests of operators share, and the comparison of each operator's two definitions: on small
//! random cases, `reference` against `expand` evaluated as MIR, at the operator's tolerance.

mod case;
mod elementwise;
mod movement;
mod neural;
mod rlx;
mod text;

use super::{AnyOp, Attribute, Attrs, DEFAULT_OPSET, Operand, Operands};
use crate::error::ErrorKind;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use case::Case;
pub(crate) use text::{definition, refused};

/// The cases of all operators.
fn cases() -> Vec<Case> {
    [elementwise::cases(), movement::cases(), neural::cases(), rlx::cases()].concat()
}

#[test]
fn expansions_agree_with_references() {
    let mut failures = vec![];
    for case in cases() {
        failures.extend(case.run().err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_operator_has_a_case() {
    let cases = cases();
    let missing: Vec<_> =
        AnyOp::NAMES.iter().filter(|&&name| cases.iter().all(|c| c.name != name)).collect();
    assert!(missing.is_empty(), "operators without a case: {missing:?}");
}

/// What a test says about an operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known<'a> {
    /// Its type only.
    Type(DType, &'a [usize]),
    /// It is a list of i64, known when the model is compiled.
    Ints(&'a [i64]),
    /// Its value, known when the model is compiled.
    Tensor(&'a Tensor),
}

/// An attribute.
pub(crate) fn int(value: i64) -> Attribute {
    Attribute::Int(value)
}
/// An attribute.
pub(crate) fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}
/// An attribute.
pub(crate) fn text(value: &str) -> Attribute {
    Attribute::Text(value.to_owned())
}

/// The operator with these attributes and `results` results.
pub(crate) fn parse(
    name: &str,
    opset: i64,
    attrs: &[(&str, Attribute)],
    results: usize,
) -> Result<AnyOp, ErrorKind> {
    let values = attrs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    AnyOp::parse(name, &mut Attrs::new(values, opset, vec![true; results]))
}

/// The types of the results of a node with one result.
pub(crate) fn infer_known(
    name: &str,
    opset: i64,
    attrs: &[(&str, Attribute)],
    operands: &[Known<'_>],
) -> Result<Vec<Type>, ErrorKind> {
    let op = parse(name, opset, attrs, 1)?;
    let lists: Vec<_> = operands
        .iter()
        .map(|known| match known {
            Known::Type(dtype, dims) => Some((Type::new(*dtype, *dims), None)),
            Known::Ints(list) => {
                let tensor = Tensor::from_i64s([list.len()], list);
                Some((tensor.ty().clone(), Some(tensor)))
            }
            Known::Tensor(tensor) => Some((tensor.ty().clone(), Some((*tensor).clone()))),
        })
        .collect();
    op.infer(&Operands::new(
        lists
            .iter()
            .map(|known| {
                known.as_ref().map(|(ty, constant)| Operand { ty, constant: constant.as_ref() })
            })
            .collect(),
    ))
}

/// The same for operands of which the types are known only.
pub(crate) fn infer_with(
    name: &str,
    attrs: &[(&str, Attribute)],
    operands: &[(DType, &[usize])],
) -> Result<Vec<Type>, ErrorKind> {
    let operands: Vec<_> = operands.iter().map(|&(dtype, dims)| Known::Type(dtype, dims)).collect();
    infer_known(name, DEFAULT_OPSET, attrs, &operands)
}

/// The same without attributes.
pub(crate) fn infer(name: &str, operands: &[(DType, &[usize])]) -> Result<Vec<Type>, ErrorKind> {
    infer_with(name, &[], operands)
}
