//! ONNX models made here, right and wrong.

mod lists;
mod loops;

use super::proto::*;
use super::*;
use crate::front::{ReadOptions, read_bytes};
use crate::hir::{Limits, check};
use crate::tensor::Tensor;
use expect_test::{Expect, expect};
use proto::tensor_shape_proto::{Dimension, dimension::Value};

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

fn node(op: &str, input: &[&str], output: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        input: strings(input),
        output: strings(output),
        ..NodeProto::default()
    }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: 2, i: Some(i), ..AttributeProto::default() }
}

fn value(name: &str, elem_type: i32, dims: &[Option<Value>]) -> ValueInfoProto {
    let dim = dims.iter().map(|value| Dimension { value: value.clone() }).collect();
    let tensor = type_proto::Tensor { elem_type, shape: Some(TensorShapeProto { dim }) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(ty) }
}

fn f32s(name: &str, dims: &[i64]) -> ValueInfoProto {
    value(name, 1, &dims.iter().map(|&d| Some(Value::DimValue(d))).collect::<Vec<_>>())
}

fn weights(name: &str, dims: &[usize]) -> TensorProto {
    let ty = Type::new(DType::F32, dims);
    tensor::write(name, &Tensor::from_ints(ty.clone(), 0..ty.elements() as i64))
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.to_owned(), version }
}

fn model(input: &[ValueInfoProto], initializer: &[TensorProto], node: &[NodeProto]) -> ModelProto {
    let graph = GraphProto {
        name: "test".to_owned(),
        node: node.to_vec(),
        initializer: initializer.to_vec(),
        input: input.to_vec(),
        output: vec![ValueInfoProto { name: "y".to_owned(), r#type: None }],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![import("", 17)],
        ..ModelProto::default()
    }
}

/// A model with a bit of everything.
fn rich() -> ModelProto {
    let texts = AttributeProto {
        name: "auto_pad".to_owned(),
        r#type: 3,
        s: Some(Bytes::from_static(b"SAME_UPPER")),
        ..AttributeProto::default()
    };
    let strides = AttributeProto {
        name: "strides".to_owned(),
        r#type: 7,
        ints: vec![2, 2],
        ..AttributeProto::default()
    };
    let constant = AttributeProto {
        name: "value".to_owned(),
        r#type: 4,
        t: Some(Box::new(TensorProto {
            dims: vec![2],
            data_type: 7,
            int64_data: vec![1, -1],
            ..TensorProto::default()
        })),
        ..AttributeProto::default()
    };
    let call = NodeProto { domain: "local".to_owned(), ..node("Twice", &["r"], &["y"]) };
    let mut model = model(
        &[value(
            "x",
            1,
            &[Some(Value::DimParam("batch".to_owned())), Some(Value::DimValue(3)), None, None],
        )],
        &[weights("w", &[2, 3, 3, 3])],
        &[
            with(with(node("Conv", &["x", "w"], &["c"]), texts), strides),
            with(node("Constant", &[], &["shape"]), constant),
            node("Reshape", &["c", "shape"], &["r"]),
            call,
        ],
    );
    model.opset_import.push(import("local", 1));
    model.functions.push(FunctionProto {
        name: "Twice".to_owned(),
        domain: "local".to_owned(),
        input: strings(&["a"]),
        output: strings(&["b"]),
        node: vec![node("Add", &["a", "a"], &["t"]), node("Relu", &["t"], &["b"])],
        opset_import: vec![import("", 17)],
        ..FunctionProto::default()
    });
    model
}

fn read_model(model: &ModelProto) -> Result<Graph, Errors> {
    read_bytes("test.onnx", model.encode_to_vec().into(), &ReadOptions::default()).map(|s| s.graph)
}

/// The messages about a model.
fn refused(model: &ModelProto, expected: Expect) {
    expected
        .assert_eq(&read_model(model).map_or_else(|e| e.to_string(), |_| "accepted".to_owned()));
}

#[test]
fn weights_are_not_copied() {
    let file = Bytes::from(model(&[], &[weights("y", &[16])], &[]).encode_to_vec());
    let graph = read_bytes("test", file.clone(), &ReadOptions::default()).unwrap().graph;
    let tensor = graph.values[graph.outputs[0]].constant.clone().unwrap();
    assert!(file.as_ptr_range().contains(&tensor.bytes().as_ptr()));
    assert_eq!(tensor.f64s(), (0..16).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn functions_are_inlined() {
    let graph = read_model(&rich()).unwrap();
    let nodes = graph.nodes.values().map(|n| format!("{} {}", n.op.name(), n.name));
    expect![[r#"
        Conv c
        Constant shape
        Reshape r
        Add y/t
        Relu y/b"#]]
    .assert_eq(&nodes.collect::<Vec<_>>().join("\n"));
    let names: Vec<_> = graph.values.values().map(|v| v.name.as_str()).collect();
    expect![[r#"x, w, c, shape, r, y/t, y"#]].assert_eq(&names.join(", "));
    assert_eq!(graph.inputs.len(), 1);
    assert_eq!(graph.inputs[0].dims[0], Dim::Symbol("batch".to_owned()));
    assert_eq!(graph.inputs[0].dims[2], Dim::Unknown);
}

#[test]
fn functions_have_attributes_and_pass_operands_through() {
    let reference = AttributeProto {
        name: "axis".to_owned(),
        ref_attr_name: "along".to_owned(),
        ..AttributeProto::default()
    };
    let function = FunctionProto {
        name: "F".to_owned(),
        domain: "local".to_owned(),
        input: strings(&["a", "b"]),
        output: strings(&["s", "b"]),
        attribute: strings(&["along"]),
        node: vec![with(node("Softmax", &["a"], &["s"]), reference)],
        ..FunctionProto::default()
    };
    let call = |outputs: &[&str]| NodeProto {
        domain: "local".to_owned(),
        ..with(node("F", &["x", "x"], outputs), int("along", 0))
    };
    let mut model = model(&[f32s("x", &[2, 3])], &[], &[call(&["p", "q"]), call(&["y"])]);
    model.opset_import.push(import("local", 1));
    model.functions.push(function.clone());
    let graph = read_model(&model).unwrap();
    let nodes: Vec<_> = graph.nodes.values().map(|n| n.op.name()).collect();
    expect![[r#"
        Softmax
        Identity
        Softmax"#]]
    .assert_eq(&nodes.join("\n"));

    model.functions[0].attribute.clear();
    refused(
        &model,
        expect![[r#"
            error: the function "F" has no attribute "along"
             --> node "p" (F)

            error: the function "F" has no attribute "along"
             --> node "y" (F)"#]],
    );
    model.functions[0] = function;
    model.functions[0].node.push(call(&["z"]));
    model.functions[0].attribute = strings(&["along"]);
    refused(
        &model,
        expect![[r#"
        error: the function "F" calls itself
         --> node "p" (F)

        error: the function "F" calls itself
         --> node "y" (F)"#]],
    );
}

#[test]
fn encodings() {
    let read = |proto: TensorProto| tensor::read(&proto, &mut Folder::of(None));
    let proto = |data_type: i32| TensorProto { data_type, dims: vec![2], ..TensorProto::default() };
    let cases = [
        TensorProto { float_data: vec![1.0, -2.0], ..proto(1) },
        TensorProto { double_data: vec![1.0, -2.0], ..proto(11) },
        TensorProto { int64_data: vec![1, -2], ..proto(7) },
        TensorProto { int32_data: vec![1, -2], ..proto(6) },
        TensorProto { int32_data: vec![1, -2], ..proto(5) },
        TensorProto { int32_data: vec![1, -2], ..proto(3) },
        TensorProto { int32_data: vec![0x3c00, 0xc000], ..proto(10) },
        TensorProto { int32_data: vec![0x3f80, 0xc000], ..proto(16) },
        TensorProto { raw_data: Some(Bytes::from_static(&[1, 0xfe])), ..proto(3) },
    ];
    for case in cases {
        assert_eq!(read(case).unwrap().f64s(), [1.0, -2.0]);
    }
    let truth = TensorProto { raw_data: Some(Bytes::from_static(&[0, 7])), ..proto(9) };
    assert_eq!(read(truth).unwrap().bytes()[..], [0, 1]);
    let large = TensorProto { uint64_data: vec![1, u64::MAX], ..proto(13) };
    assert_eq!(read(large).unwrap().ints(), [1, -1]);

    let wrong = [
        TensorProto { float_data: vec![1.0], ..proto(1) },
        TensorProto { float_data: vec![1.0; 3], ..proto(1) },
        TensorProto { float_data: vec![1.0; 2], raw_data: Some(vec![0; 8].into()), ..proto(1) },
        TensorProto { raw_data: Some(vec![0; 7].into()), ..proto(1) },
        TensorProto { int64_data: vec![1, 2], ..proto(1) },
        TensorProto { int32_data: vec![1, 300], ..proto(2) },
        TensorProto { dims: vec![-1], ..proto(1) },
        TensorProto { dims: vec![1 << 32, 1 << 32], ..proto(1) },
        TensorProto { dims: vec![0, i64::MAX, i64::MAX], ..proto(1) },
        proto(0),
        proto(8),
        proto(14),
        proto(255),
        TensorProto { segment: Some(Bytes::new()), ..proto(1) },
        TensorProto { data_location: 1, ..proto(1) },
        TensorProto {
            data_location: 1,
            external_data: vec![StringStringEntryProto {
                key: "location".into(),
                value: "w".into(),
            }],
            ..proto(1)
        },
    ];
    let messages: Vec<_> = wrong.into_iter().map(|p| read(p).unwrap_err().to_string()).collect();
    expect![[r#"
        f32[2] needs 8 bytes, and the file has 4 for it
        f32[2] needs 8 bytes, and the file has 12 for it
        it has both float_data and raw_data
        f32[2] needs 8 bytes, and the file has 7 for it
        f32 elements are not stored as int64_data
        the element 300 does not fit in u8
        a dimension is negative: f32[-1]
        f32[4294967296, 4294967296] is too large
        f32[0, 9223372036854775807, 9223372036854775807] is too large
        the element type is not given
        the element type string
        the element type complex64
        there is no element type 255
        a tensor in segments
        its external data name no file
        the model refers to the file "w""#]]
    .assert_eq(&messages.join("\n"));
}

#[test]
fn all_errors_at_once() {
    let mut short = weights("short", &[4]);
    short.dims = vec![5];
    let subgraph = AttributeProto {
        name: "then_branch".to_owned(),
        r#type: 5,
        g: Some(Bytes::new()),
        ..AttributeProto::default()
    };
    refused(
        &model(
            &[f32s("x", &[2, 3]), value("s", 8, &[]), f32s("big", &[1 << 30, 1 << 30])],
            &[short],
            &[
                node("Matmul", &["x", "x"], &["a"]),
                node("Matmul", &["x", "a"], &["b"]),
                with(node("Softmax", &["x"], &["c"]), int("axes", 1)),
                with(node("If", &["x"], &["d"]), subgraph),
                node("Relu", &["missing"], &["e"]),
                NodeProto { domain: "com.acme".to_owned(), ..node("Relu", &["x"], &["f"]) },
                node("Add", &["short", "s"], &["y"]),
            ],
        ),
        expect![[r#"
            error: initializer "short": f32[5] needs 20 bytes, and the file has 16 for it

            unsupported: input "s": the element type string

            error: input "big": the tensor is too large

            error: "then_branch" gives 0 results for 1
             --> node "d" (If)"#]],
    );
}

#[test]
fn structure() {
    let x = || f32s("x", &[2]);
    refused(
        &model(
            &[x()],
            &[],
            &[
                node("Relu", &["b"], &["a"]),
                node("Relu", &["a"], &["b"]),
                node("Relu", &["x"], &["y"]),
            ],
        ),
        expect![[r#"
            error: the node needs its own result: a cycle
             --> node "a" (Relu)
              |  input 0: "b"  ?"#]],
    );
    refused(
        &model(&[x()], &[], &[node("Relu", &["x"], &["y"]), node("Neg", &["x"], &["y"])]),
        expect![[r#"
            error: "y" is defined twice
             --> node "y" (Neg)
              |  input 0: "x"  ?"#]],
    );
    refused(
        &model(&[x(), x()], &[], &[node("Relu", &["x"], &["y"])]),
        expect![[r#"error: "x" is defined twice"#]],
    );
    refused(
        &ModelProto { graph: None, ..model(&[], &[], &[]) },
        expect![[r#"
        error: the file has no graph
          = it is cut off, or not an ONNX model"#]],
    );
    let relu = || model(&[x()], &[], &[node("Relu", &["x"], &["y"])]);
    refused(
        &ModelProto { opset_import: vec![], ..relu() },
        expect![
            "error: the file does not say which version of the operators it uses (opset_import)"
        ],
    );
    refused(
        &ModelProto { opset_import: vec![import("", 0)], ..relu() },
        expect![[r#"error: "ai.onnx" has no version 0"#]],
    );
    refused(
        &ModelProto { opset_import: vec![import("", 99)], ..relu() },
        expect![[r#"
        unsupported: opset 99
          = the newest one that is known is 28"#]],
    );
    refused(
        &ModelProto { opset_import: vec![import("", 9), import("ai.onnx", 10)], ..relu() },
        expect![[r#"error: two versions of "ai.onnx" are imported: 9 and 10"#]],
    );
    refused(
        &ModelProto { training_info: vec![Bytes::new()], ..relu() },
        expect!["unsupported: training information"],
    );
    let spatial = with(node("LpPool", &["x"], &["y"]), int("spatial", 1));
    let old = model(&[x()], &[], &[spatial]);
    refused(
        &ModelProto { opset_import: vec![import("", 6)], ..old },
        expect![[r#"
            unsupported: LpPool: attribute "kernel_shape" is missing
             --> node "y" (LpPool)
              |  input 0: "x"  f32[2]
              = the model is of opset 6; convert it to 7 or later with onnx.version_converter"#]],
    );
    let sequence = TypeProto { value: Some(type_proto::Value::SequenceType(Bytes::new())) };
    let input = ValueInfoProto { name: "x".to_owned(), r#type: Some(sequence) };
    refused(
        &model(&[input], &[], &[node("Relu", &["x"], &["y"])]),
        expect![[r#"unsupported: input "x": a sequence"#]],
    );
}

#[test]
fn branches() {
    let branch = |name: &str, nodes: Vec<NodeProto>, result: &str| AttributeProto {
        name: name.to_owned(),
        r#type: 5,
        g: Some(
            GraphProto {
                node: nodes,
                output: vec![ValueInfoProto { name: result.to_owned(), r#type: None }],
                ..GraphProto::default()
            }
            .encode_to_vec()
            .into(),
        ),
        ..AttributeProto::default()
    };
    let then =
        branch("then_branch", vec![node("Relu", &["x"], &["a"]), node("Neg", &["a"], &["b"])], "b");
    let squeezed = || vec![node("Transpose", &["x"], &["a"]), node("MatMul", &["a", "x"], &["b"])];
    let otherwise = branch("else_branch", squeezed(), "b");
    let choice = with(with(node("If", &["c"], &["y"]), then), otherwise);
    let known =
        |holds: i64| tensor::write("c", &Tensor::from_ints(Type::scalar(DType::Bool), [holds]));
    let result = |model: &ModelProto| -> Result<(String, usize), Errors> {
        let source = read_model(model)?;
        let checked = check::check(source, &BTreeMap::new(), Limits::default())?;
        let y = checked.graph().outputs[0];
        Ok((checked.ty(y).to_string(), checked.graph().nodes.len()))
    };
    let of = |holds: i64| {
        result(&model(&[f32s("x", &[2, 3])], &[known(holds)], std::slice::from_ref(&choice)))
    };
    assert_eq!(of(0).unwrap(), ("f32[3, 3]".to_owned(), 3));
    assert_eq!(of(1).unwrap(), ("f32[2, 3]".to_owned(), 3));
    // With a condition that only the run knows, both have to have one type.
    let condition = value("c", 9, &[]);
    let open = |dims: &[i64]| {
        result(&model(&[f32s("x", dims), condition.clone()], &[], std::slice::from_ref(&choice)))
    };
    assert_eq!(open(&[3, 3]).unwrap(), ("f32[3, 3]".to_owned(), 5));
    assert_eq!(open(&[2, 3]).unwrap_err().class(), Class::Unsupported);
    let alone = with(node("If", &["c"], &["y"]), branch("then_branch", vec![], "x"));
    let alone = result(&model(&[f32s("x", &[2]), condition.clone()], &[], &[alone]));
    assert_eq!(alone.unwrap_err().class(), Class::Wrong);
    // A name that a branch defines itself is no other one's, whatever is called so around it.
    let own = |nodes| vec![branch("then_branch", nodes, "b"), branch("else_branch", vec![], "x")];
    let inner = vec![node("Transpose", &["x"], &["a"]), node("MatMul", &["x", "a"], &["b"])];
    let inner = own(inner).into_iter().fold(node("If", &["c"], &["b"]), with);
    let outer = own(vec![node("Relu", &["x"], &["a"]), inner]).into_iter();
    let outer = outer.fold(node("If", &["c"], &["y"]), with);
    let nested = result(&model(&[f32s("x", &[2, 3])], &[known(1)], &[outer]));
    assert_eq!(nested.unwrap(), ("f32[2, 2]".to_owned(), 5));
}

#[test]
fn fused_operators() {
    let one = |op: &str, inputs: &[(&str, &[i64])], attributes: Vec<AttributeProto>| {
        let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
        let node = NodeProto {
            domain: "com.microsoft".to_owned(),
            attribute: attributes,
            ..node(op, &names, &["y"])
        };
        let mut model =
            model(&inputs.iter().map(|(n, d)| f32s(n, d)).collect::<Vec<_>>(), &[], &[node]);
        model.opset_import.push(import("com.microsoft", 1));
        let source = read_model(&model)?;
        let checked = check::check(source, &BTreeMap::new(), Limits::default())?;
        Ok(checked.ty(checked.graph().outputs[0]).to_string())
    };
    let is = |found: Result<String, Errors>, expected: &str| assert_eq!(found.unwrap(), expected);
    let (x, row): (&[i64], &[i64]) = (&[2, 3, 8], &[8]);
    is(one("Gelu", &[("x", x)], vec![]), "f32[2, 3, 8]");
    is(one("FastGelu", &[("x", x), ("b", row)], vec![]), "f32[2, 3, 8]");
    let skip = one("SkipLayerNormalization", &[("x", x), ("s", x), ("g", row)], vec![]);
    is(skip, "f32[2, 3, 8]");
    let turned = vec![int("transB", 1)];
    is(one("FusedMatMul", &[("x", x), ("w", &[2, 5, 8])], turned), "f32[2, 3, 5]");
    let heads = || vec![int("num_heads", 2)];
    is(one("MultiHeadAttention", &[("x", x), ("k", x), ("v", x)], heads()), "f32[2, 3, 8]");
    is(one("Attention", &[("x", x), ("w", &[8, 24]), ("b", &[24])], heads()), "f32[2, 3, 8]");
    // What is not done says so by the node's own name.
    let masked = one(
        "MultiHeadAttention",
        &[("x", x), ("k", x), ("v", x), ("b", &[24]), ("m", &[2, 3])],
        heads(),
    );
    expect![[r#"
        unsupported: MultiHeadAttention: a padding mask (operand 4)
         --> node "y" (MultiHeadAttention)"#]]
    .assert_eq(&masked.unwrap_err().to_string());
    assert_eq!(
        one("Attention", &[("x", x), ("w", &[8, 24])], vec![]).unwrap_err().class(),
        Class::Wrong
    );
    // Neither is an attribute passed over that is misspelt, or of another type, nor are counts of keys
    // taken for a mask.
    let class = |found: Result<String, Errors>| found.unwrap_err().class();
    assert_eq!(class(one("QuickGelu", &[("x", x)], vec![int("alpha", 2)])), Class::Wrong);
    assert_eq!(class(one("Gelu", &[("x", x)], vec![int("axis", 2)])), Class::Wrong);
    let masked = |dims: &[i64]| {
        let operands = [("x", x), ("w", &[8, 24][..]), ("b", &[24]), ("m", dims)];
        one("Attention", &operands, heads())
    };
    is(masked(&[2, 3]), "f32[2, 3, 8]");
    is(masked(&[2, 1]), "f32[2, 3, 8]");
    assert_eq!(class(masked(&[2])), Class::Wrong);
    let most = [("K", i64::MAX), ("N", 1), ("block_size", 1 << 62)].map(|(name, i)| int(name, i));
    let bits = one("MatMulNBits", &[("x", x), ("w", x), ("s", row)], most.to_vec());
    assert_eq!(class(bits), Class::Unsupported);
    assert_eq!(one("Fuse", &[("x", x)], vec![]).unwrap_err().class(), Class::Unsupported);
    // All that are listed are known: what is wrong with them is another thing.
    for op in FUSED {
        if let Err(errors) = one(op, &[("x", x)], vec![]) {
            assert!(!errors.to_string().contains("is not known"), "{op}: {errors}");
        }
    }
}

#[test]
fn functions_are_bounded() {
    // Each function calls the next one twice: 2^30 nodes.
    let mut model = model(&[f32s("x", &[2])], &[], &[]);
    let call = |i: usize, input: &str, output: &str| NodeProto {
        domain: "local".to_owned(),
        ..node(&format!("F{i}"), &[input], &[output])
    };
    for i in 0..30 {
        model.functions.push(FunctionProto {
            name: format!("F{i}"),
            domain: "local".to_owned(),
            input: strings(&["a"]),
            output: strings(&["b"]),
            node: match i {
                29 => vec![node("Relu", &["a"], &["b"])],
                _ => vec![call(i + 1, "a", "t"), call(i + 1, "t", "b")],
            },
            ..FunctionProto::default()
        });
    }
    model.opset_import.push(import("local", 1));
    model.graph.as_mut().unwrap().node = vec![call(0, "x", "y")];
    let errors = read_model(&model).unwrap_err();
    assert_eq!(errors.class(), Class::Limit);
}

/// Whatever is in the bytes: an answer, and no panic. What is accepted is checked as well.
fn survives(data: Vec<u8>) {
    if let Ok(source) = read_bytes("fuzz", data.into(), &ReadOptions::default()) {
        let limits = Limits { folded_bytes: 1 << 16, folded_total: 1 << 18, ..Limits::default() };
        let bindings = [("batch", 2), ("x.2", 8), ("x.3", 8)].map(|(n, v)| (n.to_owned(), v));
        let _ = check::check(source.graph, &bindings.into(), limits);
    }
}

#[test]
fn damaged_files() {
    let whole = rich().encode_to_vec();
    for end in 0..whole.len() {
        survives(whole[..end].to_vec());
    }
    for at in 0..whole.len() {
        for mask in [0x01, 0x02, 0x08, 0x40, 0x80, 0xff] {
            let mut data = whole.clone();
            data[at] ^= mask;
            survives(data);
        }
    }
    // A linear congruential generator: random bytes, bytes put in and taken out, pieces repeated.
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below.max(1)
    };
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..random(200)).map(|_| random(256) as u8).collect();
        survives(noise.clone());
        let (at, from) = (random(whole.len()), random(whole.len()));
        let to = from + random(whole.len() - from);
        survives([&whole[..at], &noise[..noise.len() / 8], &whole[at..]].concat());
        survives([&whole[..at], &whole[from..to], &whole[at..]].concat());
        survives([&whole[..from], &whole[to..]].concat());
    }
}

#[test]
fn nesting_is_bounded() {
    // Messages of a graph in an attribute are not decoded at all; unknown groups are skipped with a limit.
    survives([0x0b].repeat(1 << 20));
    let mut nested = vec![];
    for _ in 0..200 {
        let mut outer = vec![0x3a];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.extend(nested);
        nested = outer;
    }
    survives(nested);
}

#[test]
fn crowds_are_refused() {
    // A graph of empty nodes, two bytes each.
    let nodes = [0x0a, 0x00].repeat((1 << 20) + 1);
    let mut data = vec![0x3a];
    prost::encoding::encode_varint(nodes.len() as u64, &mut data);
    data.extend(nodes);
    let errors = read_bytes("test", data.into(), &ReadOptions::default()).unwrap_err();
    assert_eq!(errors.class(), Class::Limit);
}
