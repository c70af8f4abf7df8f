//! Cases of the operators of neural networks, one or two each: their files have more.

use super::case::{Case, case};
use super::{int, ints, text};
use crate::types::DType::*;

/// Cases of this file.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("MatMul").f32(&[2, 3, 4]).f32(&[4, 5]),
        case("MatMul").random(I32, &[3]).random(I32, &[3]),
        case("Gemm").attr("transB", int(1)).f32(&[3, 4]).f32(&[5, 4]).f32(&[5]),
        case("Conv")
            .attr("pads", ints(&[1, 0, 0, 2]))
            .f32(&[1, 4, 5, 6])
            .f32(&[6, 4, 3, 2])
            .f32(&[6]),
        case("Conv")
            .attr("group", int(2))
            .attr("strides", ints(&[2]))
            .f32(&[2, 4, 9])
            .f32(&[6, 2, 3]),
        case("ConvTranspose").attr("strides", ints(&[2, 3])).f32(&[1, 2, 3, 4]).f32(&[2, 5, 3, 2]),
        case("BatchNormalization").f32(&[2, 3, 4]).f32(&[3]).f32(&[3]).f32(&[3]).range(
            F32,
            &[3],
            0.5,
            2.0,
        ),
        case("GroupNormalization").attr("num_groups", int(2)).f32(&[2, 4, 3]).f32(&[4]).f32(&[4]),
        case("InstanceNormalization").f32(&[2, 3, 4]).f32(&[3]).f32(&[3]),
        case("LayerNormalization").f32(&[2, 3, 4]).f32(&[4]).f32(&[4]),
        case("MeanVarianceNormalization").f32(&[2, 3, 4, 5]),
        case("RMSNormalization").opset(23).f32(&[2, 3, 4]).f32(&[4]),
        case("LRN").attr("size", int(3)).f32(&[2, 5, 3, 2]),
        case("LpNormalization").attr("p", int(1)).f32(&[2, 5]),
        case("LpNormalization").f32(&[2, 5]),
        case("GlobalAveragePool").f32(&[2, 3, 4, 5]),
        case("GlobalMaxPool").f32(&[2, 3, 4, 5]),
        case("GlobalLpPool").f32(&[2, 3, 4, 5]),
    ];
    for name in ["AveragePool", "MaxPool", "LpPool"] {
        let pool = || case(name).attr("kernel_shape", ints(&[3, 2])).f32(&[1, 2, 6, 7]);
        cases.push(pool());
        cases.push(pool().attr("strides", ints(&[2, 2])).attr("auto_pad", text("SAME_UPPER")));
    }
    for name in ["Softmax", "LogSoftmax", "Hardmax"] {
        cases.push(case(name).f32(&[2, 3, 4]));
        cases.push(case(name).attr("axis", int(0)).f32(&[3, 4]));
        cases.push(case(name).opset(11).f32(&[2, 3, 4]));
    }
    for (name, gates) in [("RNN", 1), ("GRU", 3), ("LSTM", 4)] {
        let (steps, batch, inputs, hidden) = (3, 2, 4, 5);
        let recurrent =
            case(name).attr("hidden_size", int(5)).results(2).f32(&[steps, batch, inputs]);
        let recurrent =
            recurrent.f32(&[1, gates * hidden, inputs]).f32(&[1, gates * hidden, hidden]);
        cases.push(recurrent.clone());
        cases.push(recurrent.f32(&[1, 2 * gates * hidden]));
    }
    cases
}
