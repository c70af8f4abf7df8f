//! Cases of the operators of neural networks: matrix products, windows, normalizations, recurrences.

use super::case::Case;
use super::text::read;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Products of so many rows by 3 columns of numbers of four bits; in words of floats or of bytes, or without zero points.
fn of_bits(depth: usize, block: usize, zeros: Option<DType>) -> Case {
    let node = format!("com.microsoft:MatMulNBits K={depth} N=3 block_size={block}");
    let count = depth.div_ceil(block);
    let numbers = |dims: &[usize], from: i64| {
        let count: usize = dims.iter().product();
        let values = (0..count as i64).map(|i| (i * 37 + from) % 256);
        Tensor::from_ints(Type::new(DType::U8, dims), values.collect::<Vec<_>>())
    };
    let case = read(&node, &[&format!("f32[2,2,{depth}]")]);
    let case =
        case.known(numbers(&[3, count, block / 2], 240)).known(Tensor::noise(&[3 * count], 3));
    match zeros {
        None => case,
        Some(DType::U8) => case.known(numbers(&[3 * count.div_ceil(2)], 200)),
        Some(_) => case.known(Tensor::noise(&[3 * count], 5)).none().known(Tensor::noise(&[3], 6)),
    }
}

/// Cases of this file.
pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = TABLE.iter().map(|(node, operands)| read(node, operands)).collect();
    cases.push(of_bits(20, 16, None));
    cases.push(of_bits(32, 32, Some(DType::U8)));
    cases.push(of_bits(43, 16, Some(DType::F32)));
    for op in ["MaxPool", "AveragePool", "LpPool p=3", "AveragePool count_include_pad=1"] {
        let planes = [
            "kernel_shape=[2,3]",
            "kernel_shape=[3,3] strides=[2,2] pads=[1,0,1,2]",
            "kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] ceil_mode=1",
            "kernel_shape=[2,2] strides=[3,3] ceil_mode=1",
            "kernel_shape=[2,2] dilations=[2,3] strides=[1,2]",
            "kernel_shape=[3,2] strides=[2,2] auto_pad=SAME_UPPER",
            "kernel_shape=[3,2] strides=[2,2] auto_pad=SAME_LOWER",
            "kernel_shape=[3,2] auto_pad=VALID",
        ];
        cases.extend(planes.map(|rest| read(&format!("{op} {rest}"), &["f32[2,3,7,8]"])));
        cases.push(read(&format!("{op} kernel_shape=[3] strides=[2]"), &["f32[1,2,9]"]));
        let volume = format!("{op} kernel_shape=[2,1,2] ceil_mode=1 strides=[2,2,2]");
        cases.push(read(&volume, &["f32[1,2,3,4,5]"]));
    }
    for op in ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool p=1", "GlobalLpPool"] {
        cases.extend(["f32[2,3,4,5]", "f32[2,3,4]"].map(|x| read(op, &[x])));
    }
    for op in ["Softmax", "LogSoftmax", "Hardmax"] {
        let axes = ["", "axis=0", "axis=1", "@11", "@11 axis=0", "@11 axis=-1", "@11 axis=3"];
        cases.extend(axes.map(|rest| read(&format!("{op} {rest}"), &["f32[2,3,4]"])));
        cases.push(read(op, &["f32[2,3]=1,nan,2,-inf,-inf,-inf"]));
        cases.push(read(op, &["f32[3]=1000,1001,-1000"]));
    }
    for rest in ["", "storage_order=1 ceil_mode=1 pads=[1,1,1,0]", "dilations=[2,1] pads=[0,1,1,1]"]
    {
        let node = format!("MaxPool kernel_shape=[2,3] strides=[2,2] {rest}");
        cases.push(read(&node, &["f32[2,3,5,6]"]).results(2));
        cases.push(read(&node, &["i8[1,2,5,6]"]).results(2));
    }
    cases.push(
        read("SoftmaxCrossEntropyLoss", &["f32[2,3,4]", "i64[2,4]=0,1,2,0,1,2,0,1"]).results(2),
    );
    let variables = ["f32[2,3]", "f64[4]"];
    let lists = |count: usize| [&["f32[]=0.1", "i64[1]=3"][..], &variables.repeat(count)].concat();
    let training = "ai.onnx.preview.training";
    let [adagrad, adam, momentum] =
        ["Adagrad", "Adam", "Momentum"].map(|name| format!("{training}:{name}"));
    cases.push(
        read(&adagrad, &["f32[]=0.1", "i64[]=3", "f32[3]", "f32[3]", "f32[3]=0,1,2"]).results(2),
    );
    let first = [
        "f32[]=0.1",
        "i64[]=3",
        "f32[3]",
        "f64[2]",
        "f32[3]",
        "f64[2]",
        "f32[3]=0,1,2",
        "f64[2]=1,4",
    ];
    cases.push(
        read(&format!("{adagrad} norm_coefficient=0.01 decay_factor=0.1 epsilon=0.5"), &first)
            .results(4),
    );
    let operands = ["f64[]=0.5", "i64[]=0", "f32[2]", "f32[2]", "f32[2]", "f32[2]=0.1,2"];
    cases.push(read(&adam, &operands).results(3));
    let operands = ["f32[1]=0.1", "i64[]=7", "f64[3]", "f64[3]", "f64[3]", "f64[3]=0,1,2"];
    let node =
        format!("{adam} alpha=0.95 beta=0.9 norm_coefficient=0.1 norm_coefficient_post=0.01");
    cases.push(read(&node, &operands).results(3));
    for mode in ["standard", "nesterov"] {
        let node = format!("{momentum} norm_coefficient=0.1 alpha=0.9 beta=0.8 mode={mode}");
        cases.push(read(&node, &lists(3)).results(4));
    }
    let heads = "q_num_heads=4 kv_num_heads=2";
    for (rule, rest) in [
        ("linear", &["-"][..]),
        ("linear scale=0.5", &["f32[2,2,3,5]"]),
        ("gated", &["-", "f32[2,6,2]"]),
        ("gated", &["f16[2,2,3,5]", "f32[2,6,6]"]),
        ("delta", &["f32[2,2,3,5]", "-", "f32[2,6,1]"]),
        ("gated_delta", &["-", "f32[2,6,6]", "f32[2,6,2]"]),
    ] {
        let node = format!("LinearAttention {heads} update_rule={rule}");
        let operands = [&["f32[2,6,12]", "f32[2,6,6]", "f32[2,6,10]"], rest].concat();
        cases.push(read(&node, &operands).results(2));
    }
    let half =
        ["f16[1,1,12]", "f16[1,1,6]", "f16[1,1,2]", "f32[1,2,3,1]", "f16[1,1,2]", "f16[1,1,1]"];
    cases.push(read(&format!("LinearAttention {heads}"), &half).results(2));
    let none = ["f32[2,0,4]", "f32[2,0,2]", "f32[2,0,2]", "f32[2,2,1,1]"];
    cases.push(read(&format!("LinearAttention {heads} update_rule=linear"), &none).results(2));
    let none = ["f32[2,1,0]", "f32[2,1,0]", "f32[2,1,2]"];
    cases.push(read(&format!("LinearAttention {heads} update_rule=linear"), &none).results(2));
    let corners = "f32[1,1,8]=1,1,nan,nan,-inf,-inf,2,3";
    cases.push(read("MaxPool kernel_shape=[3] pads=[1,1]", &[corners]).results(2));
    cases.extend(recurrences());
    cases
}

const TABLE: &[(&str, &[&str])] = &[
    ("DFT", &["f32[2,5,3,1]"]),
    ("DFT onesided=1", &["f32[2,7,1]", "const i64[]=6"]),
    ("DFT inverse=1", &["f32[2,4,3,2]", "const i64[]=5", "const i64[]=-3"]),
    ("DFT", &["f64[4,3,2]", "-", "const i64[]=0"]),
    ("DFT inverse=1 onesided=1", &["f32[2,4,3,2]", "-", "const i64[]=1"]),
    ("DFT inverse=1 onesided=1", &["f32[2,4,3,2]", "const i64[]=7", "const i64[]=1"]),
    ("DFT inverse=1 onesided=1", &["f32[2,6,1]"]),
    ("DFT @17 onesided=1", &["f32[2,6,1]"]),
    ("DFT @17 axis=2 inverse=1", &["f32[2,2,4,2]"]),
    ("STFT", &["f32[2,16,1]", "const i64[]=3", "f32[6]"]),
    ("STFT onesided=0", &["f32[1,11,2]", "const i64[]=2", "-", "const i64[]=5"]),
    ("HannWindow", &["const i64[]=7"]),
    ("HannWindow periodic=0 output_datatype=11", &["const i64[]=8"]),
    ("HammingWindow periodic=0", &["const i64[]=1"]),
    ("HammingWindow", &["const i32[]=5"]),
    ("BlackmanWindow", &["const i64[]=6"]),
    ("BlackmanWindow periodic=0", &["const i64[]=9"]),
    (
        "MelWeightMatrix",
        &[
            "const i64[]=8",
            "const i32[]=16",
            "const i64[]=8192",
            "const f32[]=0",
            "const f64[]=4096",
        ],
    ),
    (
        "MelWeightMatrix output_datatype=11",
        &[
            "const i64[]=20",
            "const i64[]=33",
            "const i64[]=16000",
            "const f32[]=80",
            "const f32[]=7600",
        ],
    ),
    ("Det", &["f32[5,5]"]),
    ("Det", &["f64[2,3,4,4]"]),
    ("Det", &["f16[3,1,1]"]),
    ("Det", &["f32[2,0,0]"]),
    ("Det", &["f32[3,3]=0,2,1,0,0,3,4,1,nan"]),
    ("Det", &["f32[2,2,2]=0,0,0,1,1,2,2,4"]),
    ("CausalConvWithState", &["f32[2,3,7]", "f32[3,1,4]"]),
    ("CausalConvWithState activation=silu", &["f32[2,5,3]", "f32[5,1,5]", "f32[5]", "f32[2,5,4]"]),
    ("CausalConvWithState activation=swish", &["f16[1,3,2]", "f16[3,1,4]", "-", "f16[1,3,3]"]),
    ("CausalConvWithState", &["f64[1,4,6]", "f64[4,1,1]", "f64[4]", "f64[1,4,0]"]),
    ("CausalConvWithState", &["f32[2,3,0]", "f32[3,1,3]", "-", "f32[2,3,2]"]),
    ("CausalConvWithState", &["f32[2,0,4]", "f32[0,1,3]"]),
    (
        "RoiAlign output_height=3 output_width=2 sampling_ratio=2",
        &["f32[2,3,7,6]", "f32[2,4]=1,1,5,4,0,0,8,9", "i64[2]=1,0"],
    ),
    (
        "RoiAlign @10 output_height=2 output_width=3 sampling_ratio=3 spatial_scale=0.25",
        &["f64[1,2,5,9]", "f64[3,4]=4,4,20,30,-9,2,3,3,8,8,9,9", "i64[3]=0,0,0"],
    ),
    (
        "RoiAlign mode=max coordinate_transformation_mode=output_half_pixel sampling_ratio=1",
        &["f32[3,2,1,4]", "f32[2,4]=nan,0,2,1,0,0,1,1", "i64[2]=-1,2"],
    ),
    (
        "RoiAlign mode=max sampling_ratio=2 output_height=2",
        &["f16[1,1,4,4]", "f16[1,4]=0,0,3,3", "i64[1]=0"],
    ),
    ("RoiAlign sampling_ratio=2", &["f32[1,1,4,4]", "f32[0,4]", "i64[0]"]),
    ("DeformConv pads=[1,0,0,1]", &["f32[2,3,5,4]", "f32[4,3,2,3]", "f32[2,12,5,3]", "f32[4]"]),
    (
        "DeformConv group=2 offset_group=4 strides=[2,1] dilations=[1,2]",
        &["f32[1,8,6,5]", "f32[6,4,3,2]", "f32[1,48,2,3]", "-", "f32[1,24,2,3]"],
    ),
    ("DeformConv group=2", &["f64[1,2,9]", "f64[2,1,3]", "f64[1,3,7]", "f64[2]"]),
    ("DeformConv", &["f32[1,1,3,3,3]", "f32[2,1,2,2,2]", "f32[1,24,2,2,2]"]),
    ("DeformConv offset_group=2", &["f16[1,2,3,3]", "f16[1,2,1,1]", "f16[1,4,3,3]"]),
    ("DeformConv", &["f32[1,1,2,2]", "f32[1,1,1,1]", "f32[1,2,2,2]=nan,0,inf,1,0,-1,9,0.5"]),
    ("NegativeLogLikelihoodLoss", &["f32[3,5]", "i64[3]=1,0,4"]),
    ("NegativeLogLikelihoodLoss reduction=none", &["f64[2,3,2]", "i32[2,2]=2,0,-1,3", "f64[3]"]),
    ("NegativeLogLikelihoodLoss ignore_index=1", &["f32[4,3]", "i64[4]=2,1,1,0", "f32[3]=1,2,3"]),
    ("NegativeLogLikelihoodLoss ignore_index=1", &["f32[2,3]", "i64[2]=1,1"]),
    ("NegativeLogLikelihoodLoss reduction=sum", &["f32[2,3]=-inf,nan,1,nan,2,3", "i64[2]=0,2"]),
    ("SoftmaxCrossEntropyLoss", &["f32[3,5,2]", "i64[3,2]=1,0,4,3,2,2", "f32[5]=1,2,3,4,5"]),
    ("SoftmaxCrossEntropyLoss reduction=none ignore_index=-7", &["f16[3,4]", "i32[3]=-7,1,0"]),
    ("SoftmaxCrossEntropyLoss reduction=sum", &["f32[0,4]", "i64[0]"]),
    ("Conv", &["f32[1,3,5]", "f32[2,3,3]"]),
    ("Conv pads=[1,1,1,1]", &["f32[2,3,5,6]", "f32[4,3,3,3]", "f32[4]"]),
    (
        "Conv pads=[2,0,1,3] strides=[2,3] dilations=[2,1] group=2",
        &["f32[1,4,7,8]", "f32[6,2,3,2]"],
    ),
    ("Conv group=4 kernel_shape=[3,3] pads=[1,1,1,1]", &["f32[1,4,6,6]", "f32[4,1,3,3]", "f32[4]"]),
    ("Conv auto_pad=SAME_UPPER strides=[2,2]", &["f32[1,2,6,5]", "f32[3,2,3,4]"]),
    ("Conv auto_pad=SAME_LOWER strides=[2,2]", &["f32[1,2,6,5]", "f32[3,2,3,4]"]),
    ("Conv auto_pad=VALID strides=[2,2]", &["f32[1,2,6,5]", "f32[3,2,3,4]"]),
    ("Conv strides=[1,2,1] pads=[0,1,0,1,0,0]", &["f32[1,2,4,5,4]", "f32[3,2,2,3,2]", "f32[3]"]),
    ("ConvTranspose", &["f32[1,1,3,3]", "f32[1,2,3,3]"]),
    (
        "ConvTranspose strides=[3,2] output_padding=[1,1] pads=[1,2,0,1]",
        &["f32[1,2,3,3]", "f32[2,2,3,3]", "f32[2]"],
    ),
    ("ConvTranspose strides=[3,2] output_shape=[10,8]", &["f32[1,1,3,3]", "f32[1,2,3,3]"]),
    ("ConvTranspose strides=[2,2] auto_pad=SAME_UPPER", &["f32[1,1,3,3]", "f32[1,2,3,3]"]),
    ("ConvTranspose strides=[2,2] auto_pad=SAME_LOWER", &["f32[1,1,3,3]", "f32[1,2,3,3]"]),
    (
        "ConvTranspose group=2 dilations=[2,2] strides=[2,1]",
        &["f32[2,4,3,4]", "f32[4,3,2,3]", "f32[6]"],
    ),
    ("ConvTranspose pads=[3,3]", &["f32[1,1,9]", "f32[1,1,2]"]),
    ("ConvTranspose strides=[2,1,2]", &["f32[1,2,2,3,2]", "f32[2,1,3,2,2]"]),
    ("MaxPool kernel_shape=[2,2] pads=[1,1,1,1]", &["i8[1,1,4,4]"]),
    ("MaxPool kernel_shape=[2]", &["f32[1,1,4]=1,nan,-inf,-0"]),
    ("QuantizeLinear", &["f32[2,3,4]", "f32[]=0.013", "u8[]=100"]),
    ("QuantizeLinear", &["f32[2,3,4]", "f32[3]=0.01,0.02,0.003", "i8[3]=1,-2,100"]),
    ("QuantizeLinear axis=-1 output_dtype=4", &["f32[2,3]", "f32[3]=0.1,0.2,0.3"]),
    ("QuantizeLinear axis=0", &["f16[2,3]", "f16[2]=0.1,0.2", "i16[2]=3,-4"]),
    ("QuantizeLinear precision=1", &["f32[2,3]", "f16[]=0.1"]),
    ("QuantizeLinear", &["i32[2,3]", "f32[]=0.5", "i8[]=-3"]),
    (
        "QuantizeLinear block_size=2",
        &["f32[2,5]", "f32[2,3]=1,2,3,0.1,0.02,0.3", "u8[2,3]=1,2,3,4,5,6"],
    ),
    ("DequantizeLinear", &["u8[2,3,4]", "f32[3]=0.01,0.02,0.003", "u8[3]=1,20,255"]),
    ("DequantizeLinear axis=0", &["i32[3]", "f32[1]=0.01"]),
    ("DequantizeLinear axis=2", &["i8[2,1,4]", "f16[4]=0.5,0.2,0.1,3", "i8[4]=1,2,-3,-128"]),
    ("DequantizeLinear block_size=3", &["i16[2,4,2]", "f32[2,2,2]", "i16[2,2,2]"]),
    ("DequantizeLinear block_size=1000000000", &["i16[2,4,2]", "f32[2,1,2]", "i16[2,1,2]"]),
    ("DequantizeLinear axis=0", &["f16[2,3]", "f32[2]=0.5,3", "f16[2]=1,0"]),
    ("DequantizeLinear output_dtype=1", &["u16[3]", "f16[]=0.25"]),
    ("DynamicQuantizeLinear", &["f32[2,3]"]),
    ("DynamicQuantizeLinear", &["f32[3]=1,2,3"]),
    ("DynamicQuantizeLinear", &["f32[]=-2"]),
    ("MatMulInteger", &["u8[2,3]", "i8[3,4]"]),
    ("MatMulInteger", &["i8[2,5,3]", "u8[3,4]", "i8[5]=-128,127,0,1,2", "u8[4]=0,255,128,1"]),
    ("MatMulInteger", &["u8[2,5,3]", "u8[2,3,4]", "u8[2,5,1]", "u8[2,1,4]"]),
    ("MatMulInteger", &["u8[3]", "i8[3,2]", "u8[]=7", "i8[]=-3"]),
    ("MatMulInteger", &["u8[2,3]", "i8[3]", "u8[2]=7,8"]),
    ("ConvInteger", &["u8[1,2,5]", "i8[3,2,2]"]),
    (
        "ConvInteger pads=[1,0,1,2] strides=[2,1] group=2",
        &["i8[1,4,5,6]", "u8[6,2,3,2]", "i8[]=-3", "u8[6]=0,1,2,128,255,7"],
    ),
    (
        "QLinearMatMul",
        &[
            "u8[2,3]",
            "f32[]=0.1",
            "u8[]=3",
            "i8[3,4]",
            "f32[4]=1,0.5,0.25,2",
            "i8[4]=0,1,-2,3",
            "f32[]=7",
            "u8[]=128",
        ],
    ),
    (
        "QLinearMatMul",
        &[
            "i8[2,2,3]",
            "f16[2]=0.1,2",
            "i8[2]=3,4",
            "i8[2,3,4]",
            "f16[]=1",
            "i8[]=1",
            "f16[2]=7,9",
            "i8[2]=8,9",
        ],
    ),
    (
        "QLinearConv pads=[1,1,1,1]",
        &[
            "u8[2,3,5,6]",
            "f32[]=0.02",
            "u8[]=100",
            "i8[4,3,3,3]",
            "f32[4]=0.1,0.2,0.3,0.4",
            "i8[4]=0,0,1,-1",
            "f32[]=0.5",
            "i8[]=-3",
            "i32[4]=1000,-2000,3000,0",
        ],
    ),
    (
        "QLinearConv group=2",
        &[
            "i8[1,2,5]",
            "f32[1]=0.02",
            "i8[1]=1",
            "u8[2,1,2]",
            "f32[]=0.1",
            "u8[]=128",
            "f32[]=0.5",
            "u8[]=3",
        ],
    ),
    ("MatMul", &["f32[2,3]", "f32[3,4]"]),
    ("MatMul", &["f32[3]", "f32[3]"]),
    ("MatMul", &["f32[3]", "f32[2,3,4]"]),
    ("MatMul", &["f32[2,5,3]", "f32[3]"]),
    ("MatMul", &["f32[2,5,3]", "f32[3,4]"]),
    ("MatMul", &["f32[2,1,5,3]", "f32[4,3,2]"]),
    ("MatMul", &["f32[1,2,3]", "f32[1,1,1,3,2]"]),
    ("MatMul", &["i32[2,3]", "i32[3,2]"]),
    ("MatMul", &["f32[2,0]", "f32[0,2]"]),
    ("MatMul", &["f32[0,2]", "f32[2,2]"]),
    ("Gemm", &["f32[2,3]", "f32[3,4]"]),
    ("Gemm transA=1 alpha=0.5 beta=2.0", &["f32[3,2]", "f32[3,4]", "f32[4]"]),
    ("Gemm transB=1", &["f32[2,3]", "f32[4,3]", "f32[2,1]"]),
    ("Gemm transA=1 transB=1", &["f32[3,2]", "f32[4,3]", "f32[]"]),
    ("Gemm alpha=2 beta=-1", &["i32[2,3]", "i32[3,2]", "i32[1,2]"]),
    ("BatchNormalization", &["f32[2,3,4,5]", "f32[3]", "f32[3]", "f32[3]", "f32[3]=0.5,1,2"]),
    ("BatchNormalization @9", &["f32[2,3]", "f32[3]", "f32[3]", "f32[3]", "f32[3]=0.5,1,2"]),
    ("InstanceNormalization epsilon=0.01", &["f32[2,3,4,5]", "f32[3]", "f32[3]"]),
    ("GroupNormalization num_groups=2", &["f32[2,4,3,2]", "f32[4]", "f32[4]"]),
    ("GroupNormalization @18 num_groups=2", &["f32[2,4,3,2]", "f32[2]", "f32[2]"]),
    ("LayerNormalization", &["f32[2,3,4]", "f32[4]", "f32[4]"]),
    ("LayerNormalization axis=1", &["f32[2,3,4]", "f32[3,4]"]),
    ("LayerNormalization axis=-2 stash_type=1", &["f32[2,3,4]", "f32[2,1,1]", "f32[1]"]),
    ("RMSNormalization axis=1", &["f32[2,3,4]", "f32[3,4]"]),
    ("MeanVarianceNormalization", &["f32[2,3,4,5]"]),
    ("MeanVarianceNormalization axes=[1]", &["f32[2,3]"]),
    ("LRN size=3", &["f32[1,5,2,3]"]),
    ("LRN size=4 alpha=0.5 beta=0.5 bias=2", &["f32[2,5,2]"]),
    ("LpNormalization", &["f32[2,3]"]),
    ("LpNormalization p=1 axis=0", &["f32[2,3]=0,1,-2,0,3,4"]),
    ("Attention", &["f32[2,4,3,2]", "f32[2,2,5,2]", "f32[2,2,5,3]"]),
    (
        "Attention is_causal=1 softcap=0.5 scale=0.3",
        &["f32[2,2,3,2]", "f32[2,2,5,2]", "f32[2,2,5,3]", "f32[3,5]"],
    ),
    (
        "Attention q_num_heads=4 kv_num_heads=2 is_causal=1 qk_matmul_output_mode=3",
        &[
            "f32[2,3,8]",
            "f32[2,2,4]",
            "f32[2,2,6]",
            "bool[2,1,3,4]",
            "f32[2,2,3,2]",
            "f32[2,2,3,3]",
        ],
    ),
    (
        "Attention qk_matmul_output_mode=2",
        &["f32[1,1,3,2]", "f32[1,1,2,2]", "f32[1,1,2,2]", "bool[3,2]=0,0,1,0,1,1"],
    ),
    (
        "Attention is_causal=1 qk_matmul_output_mode=1 softcap=2.0",
        &["f32[2,2,3,2]", "f32[2,2,5,2]", "f32[2,2,5,2]", "-", "-", "-", "i64[2]=2,5"],
    ),
    (
        "Attention @25 left_window_size=1 right_window_size=0",
        &["f32[2,2,3,2]", "f32[2,2,5,2]", "f32[2,2,5,2]", "f32[3,3]", "-", "-", "i64[2]=4,5"],
    ),
    ("Attention @25 left_window_size=1", &["f32[1,1,3,2]", "f32[1,1,5,2]", "f32[1,1,5,2]"]),
    ("Attention is_causal=1", &["f16[1,2,3,4]", "f16[1,2,3,4]", "f16[1,2,3,4]", "f16[3,3]"]),
    // New positions behind a past of different lengths, and within a cache of a fixed length.
    (
        "com.microsoft:GroupQueryAttention num_heads=2 kv_num_heads=1",
        &["f32[2,3,8]", "f32[2,3,4]", "f32[2,3,4]", "-", "-", "i32[2]=2,7"],
    ),
    (
        "com.microsoft:GroupQueryAttention num_heads=2 kv_num_heads=1",
        &["f32[1,2,8]", "f32[1,2,4]", "f32[1,2,4]", "f32[1,1,5,4]", "f32[1,1,5,4]", "i32[1]=5"],
    ),
    (
        "com.microsoft:GroupQueryAttention num_heads=4 kv_num_heads=2",
        &[
            "f32[2,3,16]",
            "f32[2,3,8]",
            "f32[2,3,8]",
            "f32[2,2,4,4]",
            "f32[2,2,4,4]",
            "i32[2]=6,4",
            "const i32[1]=7",
        ],
    ),
    (
        "com.microsoft:GroupQueryAttention num_heads=2 kv_num_heads=1 do_rotary=1 local_window_size=3 softcap=2.0",
        &[
            "f32[2,1,16]",
            "-",
            "-",
            "f32[2,1,6,4]",
            "f32[2,1,6,4]",
            "i32[2]=5,2",
            "i32[1]=6",
            "f32[8,2]",
            "f32[8,2]",
            "-",
            "f32[1,2,1,6]",
        ],
    ),
    (
        "com.microsoft:GroupQueryAttention num_heads=2 kv_num_heads=2 do_rotary=1 rotary_interleaved=1 scale=0.5",
        &[
            "f32[1,3,12]",
            "f32[1,3,12]",
            "f32[1,3,12]",
            "-",
            "-",
            "i32[1]=2",
            "const i32[1]=3",
            "f32[8,2]",
            "f32[8,2]",
            "i64[1,3]=0,1,2",
        ],
    ),
    ("RotaryEmbedding", &["f32[2,2,3,4]", "f32[5,2]", "f32[5,2]", "i64[2,3]=0,4,2,1,1,3"]),
    ("RotaryEmbedding num_heads=2 interleaved=1", &["f32[2,3,8]", "f32[2,3,2]", "f32[2,3,2]"]),
    (
        "RotaryEmbedding num_heads=2 rotary_embedding_dim=2",
        &["f32[1,3,8]", "f32[4,1]", "f32[4,1]", "i64[1,3]=3,-1,9"],
    ),
    ("Resize", &["f32[1,2,3,4]", "-", "const f32[4]=1,1,2,2"]),
    ("Resize @10", &["f32[1,2,3,4]", "const f32[4]=1,1,2,1.5"]),
    ("Resize nearest_mode=ceil", &["i32[3,4]", "-", "-", "const i64[2]=5,3"]),
    ("Resize mode=linear", &["f32[1,2,3,4]", "-", "const f32[4]=1,1,2,0.6"]),
    ("Resize", &["f32[1,2,3,4]", "-", "const f32[4]=1,1,2,3"]),
    ("Resize mode=linear", &["f32[2,3,4,5]", "-", "const f32[4]=1,1,2,3"]),
    ("Resize mode=linear", &["f32[1,2,1,2]", "-", "const f32[4]=1,1,4,2"]),
    (
        "Resize mode=linear coordinate_transformation_mode=asymmetric",
        &["f32[1,2,5]", "-", "const f32[3]=1,1,2"],
    ),
    (
        "Resize mode=linear coordinate_transformation_mode=align_corners",
        &["f32[1,5,6,3]", "-", "-", "const i64[4]=1,10,11,3"],
    ),
    ("Resize mode=linear", &["f32[1,2,1,1]", "-", "-", "const i64[4]=1,2,5,3"]),
    ("Resize mode=cubic", &["f32[1,2,6,5]", "-", "const f32[4]=1,1,2,1"]),
    ("Resize mode=cubic exclude_outside=1", &["f32[1,1,4,4]", "-", "const f32[4]=1,1,1.7,0.8"]),
    ("Resize mode=cubic antialias=1 axes=[2]", &["f32[1,2,9]", "-", "-", "const i64[1]=4"]),
    (
        "Resize mode=linear antialias=1 coordinate_transformation_mode=half_pixel_symmetric",
        &["f32[9]", "-", "const f32[1]=0.3"],
    ),
    (
        "Resize mode=linear coordinate_transformation_mode=tf_crop_and_resize extrapolation_value=7",
        &["f32[4,4]", "const f32[4]=0.4,0.6,1.2,0.5", "-", "const i64[2]=3,3"],
    ),
    (
        "Resize axes=[1,2] keep_aspect_ratio_policy=not_larger",
        &["f32[1,4,6]", "-", "-", "const i64[2]=6,7"],
    ),
    ("Upsample @7 mode=linear scales=[1.0,2.0,1.5]", &["f32[1,3,4]"]),
    ("Upsample @9", &["f32[1,3,4]", "const f32[3]=1,2,2"]),
];

/// For 4 steps of 2 sequences of 3 inputs, with a state of 5.
fn recurrences() -> Vec<Case> {
    let operands = |gates: usize, d: usize, batch_first: bool| {
        let rows = gates * 5;
        let state = if batch_first { format!("f32[2,{d},5]") } else { format!("f32[{d},2,5]") };
        vec![
            if batch_first { "f32[2,4,3]" } else { "f32[4,2,3]" }.to_owned(),
            format!("f32[{d},{rows},3]"),
            format!("f32[{d},{rows},5]"),
            format!("f32[{d},{}]", 2 * rows),
            "i32[2]=3,4".to_owned(),
            state.clone(),
            state,
            format!("f32[{d},15]"),
        ]
    };
    let mut cases = vec![];
    for (op, gates, all) in [
        ("RNN", 1, 6),
        ("RNN clip=0.5", 1, 6),
        ("GRU", 3, 6),
        ("GRU linear_before_reset=1", 3, 6),
        ("LSTM", 4, 8),
        ("LSTM input_forget=1 clip=0.3", 4, 8),
    ] {
        for (direction, count) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
            for layout in [0, 1] {
                let node = format!("{op} direction={direction} layout={layout} hidden_size=5");
                let operands = operands(gates, count, layout == 1);
                let operands: Vec<_> = operands.iter().map(String::as_str).collect();
                cases.extend([3, 4, all].map(|n| read(&node, &operands[..n])));
            }
        }
    }
    // More than a band of steps.
    for steps in [9, 13, 20] {
        let (x, node) = (format!("f32[{steps},2,3]"), "LSTM direction=bidirectional hidden_size=5");
        cases.push(read(node, &[&x, "f32[2,20,3]", "f32[2,20,5]", "f32[2,40]"]));
    }
    let operands = operands(1, 1, false);
    let operands: Vec<_> = operands.iter().map(String::as_str).collect();
    for name in [
        "relu",
        "Tanh",
        "Sigmoid",
        "Affine",
        "LeakyRelu",
        "ThresholdedRelu",
        "ScaledTanh",
        "HardSigmoid",
        "Elu",
        "Softsign",
        "Softplus",
    ] {
        let node = format!("RNN activations=[{name}]");
        cases.push(read(&node, &operands[..4]));
        let node = format!("{node} activation_alpha=[0.3] activation_beta=[0.4]");
        cases.push(read(&node, &operands[..4]));
    }
    cases
}
