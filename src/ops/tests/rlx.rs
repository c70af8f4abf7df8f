//! Cases of RLX's operators.

use super::case::Case;
use super::text::read;

/// Cases of this file.
pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = TABLE.iter().map(|(node, operands)| read(node, operands)).collect();
    let functions = [
        "Gelu",
        "GeluApprox",
        "Silu",
        "Relu",
        "Sigmoid",
        "Tanh",
        "Exp",
        "Log",
        "Sqrt",
        "Rsqrt",
        "Neg",
        "Abs",
        "Sin",
        "Cos",
        "Tan",
        "Atan",
        "Recip",
        "Round",
        "Floor",
        "Ceil",
        "Sign",
        "Softplus",
        "Elu",
        "Erf",
        "HardSwish",
        "HardSigmoid",
        "Mish",
        "Softsign",
        "LogSigmoid",
    ];
    for name in functions {
        let x = "f32[8]=-30,-2.5,-0.5,0,0.25,1,1.5,20";
        cases.push(read(&format!("rlx:Elementwise steps=[{name}_i0]"), &[x]));
        let node = format!("rlx:MatMulBiasAct activation={name}");
        cases.push(read(&node, &["f32[2,3]=1,2,3,2,1,2", "f32[3,2]=1,2,1,1,2,1", "f32[2]=1,2"]));
    }
    for name in
        ["Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", "Eq", "Ne", "Lt", "Le", "Gt", "Ge"]
    {
        let node = format!("rlx:Elementwise steps=[{name}_i0_i1]");
        cases.push(read(&node, &["f32[2,3]=1,-2,5,4,0,7", "f32[3]=2,-2,3"]));
        cases.push(read(&node, &["i32[2,3]=1,-2,5,4,0,7", "i32[3]=2,-2,3"]));
    }
    for name in ["BitAnd", "BitOr", "BitXor", "Shl", "Shr"] {
        let node = format!("rlx:Elementwise steps=[{name}_i0_i1]");
        cases.push(read(&node, &["f32[3]=1,6,5", "f32[3]=2,1,3"]));
        cases.push(read(&node, &["i32[3]=1,-2,5", "i32[3]=2,33,3"]));
    }
    for layout in [
        ["f32[2,3,8]", "f32[2,5,4]", "f32[2,5,6]"],
        ["f32[2,3,4,2]", "f32[2,5,2,2]", "f32[2,5,2,3]"],
    ] {
        for mask in ["None", "Causal", "SlidingWindow window=1"] {
            let node = format!("rlx:Attention num_heads=4 head_dim=2 v_head_dim=3 mask={mask}");
            cases.push(read(&node, &layout));
            cases.push(read(&format!("{node} scale=0.3 softcap=0.5"), &layout));
        }
        let [q, k, v] = layout;
        let node = "rlx:Attention num_heads=4 head_dim=2 v_head_dim=3";
        let mask = "f32[2,5]=1,1,0,1,0,0,0,0,0,0";
        cases.push(read(&format!("{node} mask=Custom"), &[q, k, v, mask]));
        cases.push(read(&format!("{node} mask=Bias"), &[q, k, v, "f32[2,4,3,5]"]));
    }
    cases
}

const TABLE: &[(&str, &[&str])] = &[
    ("rlx:Elementwise steps=[Tanh_i0,Mul_s0_i1,Sigmoid_s1] modulus=[0,3]", &["f32[2,3]", "f32[3]"]),
    ("rlx:Elementwise steps=[Pow_i0_2,Sub_s0_i1]", &["f32[2,1]", "f32[3]"]),
    ("rlx:Elementwise steps=[Lt_i0_i1,Mul_s0_i0]", &["f32[2,3]", "f32[3]"]),
    ("rlx:Elementwise steps=[Where_i0_i1_i2]", &["f32[3]=0,1,-2", "f32[2,3]", "f32[]"]),
    ("rlx:Elementwise steps=[Where_i0_i1_0]", &["bool[3]", "f32[3]"]),
    ("rlx:Elementwise steps=[Cast:i32_i0,Add_s0_i1]", &["f32[3]=1.7,-2.5,3", "i32[3]"]),
    ("rlx:Norm", &["f32[2,3,4]", "f32[4]", "f32[4]"]),
    ("rlx:Norm rms=1", &["f32[2,3,4]", "f32[4]", "f32[4]"]),
    ("rlx:Norm rms=1", &["f32[2,3,4]", "f32[4]"]),
    ("rlx:Norm axis=1", &["f32[2,3,4,5]", "f32[3]", "f32[3]"]),
    ("rlx:Norm residual=1", &["f32[2,4]", "f32[2,4]", "f32[4]", "f32[4]"]),
    ("rlx:Norm residual=1 bias=1 rms=1", &["f32[2,4]", "f32[2,4]", "f32[4]", "f32[4]", "f32[4]"]),
    ("rlx:Norm ada=1", &["f32[2,3,4]", "f32[2,1,4]", "f32[2,1,4]"]),
    ("rlx:Norm ada=1 rms=1", &["f32[2,3,4]", "f32[4]", "f32[4]"]),
    ("rlx:MatMulBiasAct", &["f32[2,3,4]", "f32[4,5]", "f32[2,3,5]"]),
    ("rlx:LoraMatMul scale=0.5", &["f32[2,4]", "f32[4,3]", "f32[4,2]", "f32[2,3]"]),
    (
        "rlx:DotGeneral lhs_contracting=[1] rhs_contracting=[2] lhs_batch=[0] rhs_batch=[1]",
        &["f32[2,3,4]", "f32[5,2,3]"],
    ),
    ("rlx:DotGeneral lhs_contracting=[0,1] rhs_contracting=[1,0]", &["f32[2,3,4]", "f32[3,2]"]),
    ("rlx:SwiGlu", &["f32[2,6]"]),
    ("rlx:SwiGlu gate_first=1", &["f32[2,6]"]),
    (
        "rlx:ConvBiasAct strides=[2,1] padding=[1,1] dilations=[1,1] activation=Relu",
        &["f32[1,2,5,5]", "f32[3,2,3,3]", "f32[3]"],
    ),
    (
        "rlx:ConvBiasAct padding=[1,1] groups=2 residual=1",
        &["f32[1,2,4,4]", "f32[2,1,3,3]", "f32[2]", "f32[1,2,4,4]"],
    ),
    ("rlx:Attention num_heads=3 head_dim=2", &["f32[2,3,4,2]", "f32[2,3,5,2]", "f32[2,3,5,2]"]),
    ("rlx:Rope head_dim=4", &["f32[2,3,8]", "f32[3,2]", "f32[5,2]"]),
    ("rlx:Rope head_dim=6 n_rot=4 style=GptJ", &["f32[2,3,2,6]", "f32[3,2]", "f32[3,2]"]),
    (
        "rlx:AttentionBlock num_heads=2 head_dim=4",
        &["f32[2,3,5]", "f32[5,24]", "f32[8,6]", "f32[2,3]=1,1,0,1,0,1"],
    ),
    (
        "rlx:AttentionBlock num_heads=2 head_dim=4 has_bias=1 has_rope=1",
        &[
            "f32[2,3,5]",
            "f32[5,24]",
            "f32[8,6]",
            "f32[2,3]=1,1,0,1,0,1",
            "f32[24]",
            "f32[6]",
            "f32[3,2]",
            "f32[3,2]",
        ],
    ),
    ("rlx:Slice axis=1 start=1 len=2", &["f32[2,4]"]),
    ("rlx:Slice axis=1 start=3 len=2 step=-3", &["f32[2,4]"]),
    ("rlx:Reverse axes=[0,2]", &["f32[2,3,4]"]),
    ("rlx:Roll shifts=[1,-5,2] dims=[0,1,1]", &["f32[2,4]"]),
    ("rlx:KvAppend axis=1 pos=2", &["f32[2,4,3]", "f32[2,1,3]"]),
    ("rlx:KvAppend axis=1 pos=0", &["f32[2,4,3]", "f32[2,1,3]"]),
    ("rlx:Gather axis=0", &["f32[4,3]", "f32[2,2]=0,3,1.5,-1"]),
    ("rlx:Gather axis=1", &["f32[2,3,2]", "i64[2]=2,0"]),
];
