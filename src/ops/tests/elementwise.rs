//! Cases of element-wise operators and reductions.

use super::case::{Case, case};
use super::{int, ints, text};
use crate::ops::Attribute;
use crate::tensor::Tensor;
use crate::types::DType::{self, *};
use crate::types::Type;

const INTEGERS: [DType; 8] = [I8, I16, I32, I64, U8, U16, U32, U64];

/// A float attribute.
fn float(value: f64) -> Attribute {
    Attribute::Float(value)
}

/// A scalar that the compiler knows.
fn scalar(dtype: DType, value: f64) -> Tensor {
    Tensor::from_f64s(Type::scalar(dtype), [value])
}

/// Cases of this file.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    unary(&mut cases);
    activations(&mut cases);
    binary(&mut cases);
    choices(&mut cases);
    powers(&mut cases);
    reductions(&mut cases);
    sums_of_products(&mut cases);
    cases
}

fn unary(cases: &mut Vec<Case>) {
    let floats = [
        "Abs",
        "Neg",
        "Sign",
        "Reciprocal",
        "Sqrt",
        "Exp",
        "Log",
        "Floor",
        "Ceil",
        "Round",
        "Erf",
        "Sin",
        "Cos",
        "Tan",
        "Asin",
        "Acos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Acosh",
        "Atanh",
        "Tanh",
        "Sigmoid",
        "Relu",
        "HardSwish",
        "Softplus",
        "Softsign",
        "Mish",
        "LeakyRelu",
        "ThresholdedRelu",
        "Elu",
        "Selu",
        "HardSigmoid",
        "Swish",
        "Celu",
        "Gelu",
        "Shrink",
        "IsNaN",
        "IsInf",
        "Identity",
    ];
    for name in floats {
        cases.push(case(name).f32(&[3, 7]));
        cases.push(case(name).corners(F32, 0));
        cases.push(case(name).random(F64, &[2, 3]));
        cases.push(case(name).random(F16, &[2, 3]));
        cases.push(case(name).f32(&[]));
        cases.push(case(name).f32(&[2, 0]));
    }
    cases.extend(INTEGERS.map(|t| case("Abs").corners(t, 0)));
    cases.extend(INTEGERS.map(|t| case("Sign").corners(t, 0)));
    cases.extend(INTEGERS.map(|t| case("BitwiseNot").corners(t, 0)));
    cases.extend([I8, I16, I32, I64].map(|t| case("Neg").corners(t, 0)));
    cases.extend([I8, I16, I32, I64].map(|t| case("Relu").corners(t, 0)));
    cases.push(case("Not").corners(Bool, 0));
}

fn activations(cases: &mut Vec<Case>) {
    cases.extend([
        case("LeakyRelu").attr("alpha", float(-0.5)).f32(&[9]),
        case("ThresholdedRelu").attr("alpha", float(-1.5)).f32(&[9]),
        case("Elu").attr("alpha", float(2.0)).range(F32, &[9], -1e-4, 1e-4),
        case("Selu").attr("alpha", float(2.0)).attr("gamma", int(3)).f32(&[9]),
        case("Celu").attr("alpha", float(0.25)).f32(&[9]),
        case("HardSigmoid").attr("alpha", float(0.5)).attr("beta", float(0.6)).f32(&[9]),
        case("Swish").attr("alpha", float(1.702)).f32(&[9]),
        case("Gelu").attr("approximate", text("tanh")).f32(&[9]),
        case("Gelu").attr("approximate", text("tanh")).corners(F32, 0),
        case("Shrink").attr("bias", float(1.5)).attr("lambd", float(1.5)).f32(&[9]),
        case("Shrink").attr("bias", int(1)).attr("lambd", float(1.5)).random(I32, &[9]),
        case("IsInf").attr("detect_negative", int(0)).corners(F32, 0),
        case("IsInf").attr("detect_positive", int(0)).corners(F32, 0),
        case("IsInf")
            .attr("detect_positive", int(0))
            .attr("detect_negative", int(0))
            .corners(F32, 0),
    ]);
}

fn binary(cases: &mut Vec<Case>) {
    let numbers = [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "PRelu",
        "Min",
        "Max",
    ];
    for name in numbers {
        cases.push(case(name).f32(&[2, 3, 4]).f32(&[3, 1]));
        cases.push(case(name).f32(&[2, 0]).f32(&[1]));
        cases.push(case(name).random(F64, &[]).random(F64, &[]));
        cases.push(case(name).random(BF16, &[5]).random(BF16, &[]));
        cases.push(case(name).corners(F32, 0).corners(F32, 1));
        cases.extend(INTEGERS.map(|t| case(name).corners(t, 0).corners(t, 1)));
    }
    for name in ["Sum", "Mean", "Min", "Max"] {
        cases.push(case(name).f32(&[3]));
        cases.push(case(name).f32(&[2, 3]).f32(&[1]).f32(&[2, 1]));
        cases.push(case(name).corners(F32, 0).corners(F32, 1));
    }
    for name in ["And", "Or", "Xor", "Equal"] {
        cases.push(case(name).corners(Bool, 0).corners(Bool, 1));
        cases.push(case(name).random(Bool, &[2, 1]).random(Bool, &[3]));
    }
    for name in ["BitwiseAnd", "BitwiseOr", "BitwiseXor"] {
        cases.extend(INTEGERS.map(|t| case(name).corners(t, 0).corners(t, 1)));
    }
    for direction in ["LEFT", "RIGHT"] {
        let shift =
            |t| case("BitShift").attr("direction", text(direction)).corners(t, 0).corners(t, 1);
        cases.extend([U8, U16, U32, U64].map(shift));
        let shift = case("BitShift").attr("direction", text(direction));
        cases.push(shift.random(I32, &[9]).range(I32, &[9], 0.0, 31.0));
    }
    for fmod in [0, 1] {
        let modulo = |t| case("Mod").opset(28).attr("fmod", int(fmod)).corners(t, 0).corners(t, 1);
        cases.extend(INTEGERS.map(modulo));
        cases.push(modulo(F32));
    }
    cases.push(case("SwiGLU").f32(&[2, 3]).f32(&[2, 3]));
    cases.push(case("SwiGLU").attr("alpha", float(0.5)).corners(F32, 0).corners(F32, 1));
}

fn choices(cases: &mut Vec<Case>) {
    cases.extend(
        DType::ALL.map(|t| case("Where").random(Bool, &[2, 1]).random(t, &[3]).random(t, &[])),
    );
    for (low, high) in [(-1.0, 2.0), (3.0, -3.0)] {
        cases
            .push(case("Clip").opset(6).attr("min", float(low)).attr("max", float(high)).f32(&[9]));
        cases.push(case("Clip").corners(F32, 0).known(scalar(F32, low)).given(scalar(F32, high)));
        cases.push(case("Clip").f32(&[9]).none().known(scalar(F32, high)));
        cases.push(case("Clip").f32(&[]).known(Tensor::from_f32s([1], &[low as f32])));
        let clip = |t| case("Clip").corners(t, 0).known(scalar(t, low)).given(scalar(t, high));
        cases.extend(INTEGERS.map(clip));
    }
    for to in DType::ALL {
        for from in DType::ALL {
            // What does not fit is any value, so the corners are for what cannot overflow.
            let cast = case("Cast").attr("to", int(i64::from(to.onnx())));
            let like = case("CastLike").random(from, &[3]).random(to, &[]);
            let fits = !from.is_float() || to.is_float() || to == Bool;
            cases.push(if fits { cast.corners(from, 0) } else { cast.range(from, &[9], 0.0, 4.0) });
            cases.push(if fits {
                like
            } else {
                case("CastLike").range(from, &[3], 0.0, 4.0).random(to, &[2])
            });
        }
    }
    cases.extend(DType::ALL.map(|t| case("Identity").random(t, &[2, 3])));
    cases.push(case("Dropout").results(2).f32(&[2, 3]));
    cases.push(case("Dropout").opset(7).attr("ratio", float(0.3)).results(2).f32(&[2, 3]));
    cases.push(case("Dropout").f32(&[2]).given(scalar(F32, 0.5)).known(scalar(Bool, 0.0)));
    cases.push(case("Dropout").f32(&[2]).known(scalar(F32, 0.0)).known(scalar(Bool, 1.0)));
}

fn powers(cases: &mut Vec<Case>) {
    for exponent in [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 7.0] {
        cases.push(case("Pow").corners(F32, 0).known(scalar(F32, exponent)));
        cases.push(case("Pow").f32(&[2]).known(Tensor::from_f32s([3, 1], &[exponent as f32; 3])));
        cases.push(case("Pow").random(I32, &[9]).known(scalar(I64, exponent.trunc())));
    }
    cases.push(case("Pow").corners(F32, 0).corners(F32, 1));
    cases.push(case("Pow").f32(&[2, 1]).random(I64, &[3]));
    cases.push(case("Pow").range(F64, &[2, 1], 0.0, 4.0).f32(&[3]));
    cases.push(case("Pow").random(I32, &[5, 1]).range(I8, &[9], -6.0, 9.0));
    cases.push(case("Pow").corners(I64, 0).range(U8, &[196], 0.0, 255.0));
    cases.push(case("Pow").corners(I32, 0).corners(I32, 1));
    let (bases, exponents) = (Tensor::from_i64s([5], &[1, 4, 9, 3, 7]), [4.0, 0.5, 1.5, 6.0, 0.0]);
    cases.push(case("Pow").given(bases).given(Tensor::from_f32s([5], &exponents)));
}

fn reductions(cases: &mut Vec<Case>) {
    let floats = [
        "ReduceSum",
        "ReduceMean",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMin",
    ];
    for name in floats {
        let low = if name == "ReduceLogSum" { 0.5 } else { -4.0 };
        for dims in [&[2, 3, 4][..], &[], &[3, 0], &[0, 3]] {
            let all = case(name).range(F32, dims, low, 4.0);
            cases.push(all.clone());
            cases.push(all.clone().none());
            cases.push(all.clone().attr("keepdims", int(0)).list(&[]));
            cases.push(all.attr("noop_with_empty_axes", int(1)));
            let last = case(name).range(F32, dims, low, 4.0);
            if !dims.is_empty() {
                cases.push(last.clone().list(&[-1]));
                cases.push(last.attr("keepdims", int(0)).list(&[0]));
            }
        }
        let old = case(name).opset(11).attr("axes", ints(&[0, -1]));
        cases.push(old.range(F64, &[2, 3, 2], low, 4.0));
        cases.push(case(name).corners(F32, 0).none());
        cases.push(case(name).range(F16, &[2, 3], low, 4.0).list(&[1]));
        if !matches!(name, "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp") {
            cases.extend([I32, I64, U32, U64].map(|t| case(name).random(t, &[2, 3]).list(&[0])));
            cases.push(case(name).corners(I32, 0));
            cases.push(case(name).random(I64, &[2, 0]).list(&[1]));
        }
    }
    for name in ["ReduceMax", "ReduceMin"] {
        cases.push(case(name).random(Bool, &[3, 4]).list(&[0]));
        cases.push(case(name).random(Bool, &[3, 0]).list(&[1]));
        cases.extend(INTEGERS.map(|t| case(name).corners(t, 0)));
    }
    for name in ["ArgMax", "ArgMin"] {
        for last in [0, 1] {
            let place = || case(name).attr("select_last_index", int(last));
            cases.push(place().range(I32, &[3, 5, 2], 0.0, 2.0).attr("axis", int(1)));
            cases.push(
                place()
                    .range(I64, &[3, 5], 0.0, 2.0)
                    .attr("axis", int(-1))
                    .attr("keepdims", int(0)),
            );
            cases.push(place().corners(F32, 0));
            cases.push(place().f32(&[3, 5]));
            cases.push(place().f32(&[3, 0]));
        }
        cases.extend(INTEGERS.map(|t| case(name).corners(t, 0)));
    }
}

fn sums_of_products(cases: &mut Vec<Case>) {
    let equations: [(&str, &[&[usize]]); 18] = [
        ("bij, bjk -> bik", &[&[2, 3, 4], &[2, 4, 5]]),
        ("ij,jk", &[&[3, 4], &[4, 5]]),
        ("ij->ji", &[&[3, 4]]),
        ("ij->", &[&[3, 4]]),
        ("ii->i", &[&[3, 3]]),
        ("ii", &[&[3, 3]]),
        ("...ii->...i", &[&[2, 3, 3]]),
        ("iji->j", &[&[3, 2, 3]]),
        ("i,j->ij", &[&[3], &[4]]),
        ("i,i", &[&[3], &[3]]),
        ("...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 2]]),
        ("i...,...i", &[&[3, 2], &[2, 3]]),
        ("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 5]]),
        ("ab,cd,ac,bd->", &[&[2, 3], &[4, 5], &[2, 4], &[3, 5]]),
        ("bhqd,bhkd->bhqk", &[&[1, 2, 3, 4], &[1, 2, 5, 4]]),
        ("ij,kj->jik", &[&[2, 3], &[4, 3]]),
        ("ij,jk->ik", &[&[2, 0], &[0, 3]]),
        (",i->i", &[&[], &[3]]),
    ];
    for (equation, operands) in equations {
        let sum = || case("Einsum").attr("equation", text(equation));
        cases.push(operands.iter().fold(sum(), |case, dims| case.f32(dims)));
        cases.push(operands.iter().fold(sum(), |case, dims| case.random(I32, dims)));
    }
}
