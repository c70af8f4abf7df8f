//! Sequences and optionals whose tensors are known, and constants of narrow types.

use super::*;

/// The type of the result `y` of these nodes, on `x`: f32[7, 2].
fn typed(nodes: &[NodeProto], initializers: &[TensorProto]) -> Result<String, Errors> {
    let source = read_model(&model(&[f32s("x", &[7, 2])], initializers, nodes))?;
    let checked = check::check(source, &BTreeMap::new(), Limits::default())?;
    Ok(checked.ty(checked.graph().outputs[0]).to_string())
}

fn number(name: &str, value: i64) -> TensorProto {
    tensor::write(name, &Tensor::from_i64s([], &[value]))
}

#[track_caller]
fn is(nodes: &[NodeProto], initializers: &[TensorProto], expected: &str) {
    match typed(nodes, initializers) {
        Ok(found) => assert_eq!(found, expected),
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn sequences() {
    let split = |more: &[&str]| node("SplitToSequence", &[&["x"], more].concat(), &["s"]);
    let numbers = [number("2", 2), number("-1", -1), number("3", 3), number("0", 0)];
    let at = |i: &str| node("SequenceAt", &["s", i], &["y"]);
    is(&[split(&["3"]), at("-1")], &numbers, "f32[1, 2]");
    is(&[split(&["3"]), at("0")], &numbers, "f32[3, 2]");
    is(&[with(split(&[]), int("keepdims", 0)), at("2")], &numbers, "f32[2]");
    is(&[split(&[]), at("2")], &numbers, "f32[1, 2]");
    let columns = with(split(&[]), int("axis", 1));
    let joined = |axis: i64, new: i64| {
        let concat = node("ConcatFromSequence", &["s"], &["y"]);
        with(with(concat, int("axis", axis)), int("new_axis", new))
    };
    is(&[columns.clone(), joined(0, 0)], &[], "f32[14, 1]");
    is(&[columns, joined(-1, 1)], &[], "f32[7, 1, 2]");
    let pieces = tensor::write("pieces", &Tensor::from_i64s([3], &[1, 4, 2]));
    is(&[split(&["pieces"]), at("-1")], &[pieces, number("-1", -1)], "f32[2, 2]");
    // Extents that follow from others.
    let rows = weights("w", &[5, 7]);
    let made = [
        node("MatMul", &["w", "x"], &["p"]),
        node("Add", &["p", "row"], &["q"]),
        node("Gelu", &["q"], &["r"]),
        node("SplitToSequence", &["r", "2"], &["s"]),
        at("-1"),
    ];
    is(&made, &[&numbers[..], &[rows, weights("row", &[2])]].concat(), "f32[1, 2]");
    // Put together, changed, and counted.
    let changed = [
        node("SequenceEmpty", &[], &["e"]),
        node("Transpose", &["x"], &["t"]),
        node("SequenceInsert", &["e", "x"], &["a"]),
        node("SequenceInsert", &["a", "t", "0"], &["b"]),
        node("SequenceConstruct", &["t", "x"], &["c"]),
        node("Identity", &["b"], &["s"]),
    ];
    is(&[&changed[..], &[at("0")]].concat(), &numbers, "f32[2, 7]");
    let erased =
        [node("SequenceErase", &["s", "0"], &["u"]), node("SequenceAt", &["u", "0"], &["y"])];
    is(&[&changed[..], &erased].concat(), &numbers, "f32[7, 2]");
    is(&[&changed[..], &[node("SequenceLength", &["s"], &["y"])]].concat(), &numbers, "i64[]");
    let class = |nodes: &[NodeProto]| typed(nodes, &numbers).unwrap_err().class();
    assert_eq!(class(&[split(&["3"]), at("3")]), Class::Wrong);
    assert_eq!(class(&[split(&["3"]), node("Relu", &["s"], &["y"])]), Class::Wrong);
    assert_eq!(class(&[split(&["0"]), at("0")]), Class::Wrong);
    assert_eq!(class(&[at("0")]), Class::Wrong);
    assert_eq!(class(&[node("SequenceConstruct", &["x"], &["y"])]), Class::Unsupported);
    let unknown = [split(&["3"]), node("ReduceMax", &["x"], &["i"]), at("i")];
    assert_eq!(class(&unknown), Class::Unsupported);
}

/// What cannot be given is said once, and is not wrong.
#[test]
fn sequences_from_outside() {
    let value = Some(type_proto::Value::SequenceType(Bytes::new()));
    let given = ValueInfoProto { name: "s".to_owned(), r#type: Some(TypeProto { value }) };
    let nodes = [node("SequenceLength", &["s"], &["l"]), node("SequenceAt", &["s", "l"], &["y"])];
    refused(&model(&[given], &[], &nodes), expect![[r#"unsupported: input "s": a sequence"#]]);
}

#[test]
fn bodies_over_sequences() {
    let graph = |name: &str, graph: GraphProto| AttributeProto {
        g: Some(graph.encode_to_vec().into()),
        r#type: 5,
        ..int(name, 0)
    };
    let body = GraphProto {
        node: vec![node("MatMul", &["p", "w"], &["r"])],
        input: vec![f32s("p", &[]), f32s("w", &[])],
        output: vec![f32s("r", &[])],
        ..GraphProto::default()
    };
    let all = [
        node("Transpose", &["x"], &["t"]),
        node("SequenceConstruct", &["x", "x"], &["s"]),
        with(node("SequenceMap", &["s", "t"], &["m"]), graph("body", body)),
        with(node("ConcatFromSequence", &["m"], &["y"]), int("axis", 1)),
    ];
    is(&all, &[], "f32[7, 14]");
    let mut uneven = all.clone();
    uneven[0] = node("SequenceConstruct", &["x"], &["t"]);
    assert_eq!(typed(&uneven, &[]).unwrap_err().class(), Class::Wrong);
    // A loop that appends to a sequence, as exporters write lists.
    let body = GraphProto {
        node: vec![node("SequenceInsert", &["l", "x"], &["m"]), node("Identity", &["c"], &["d"])],
        input: ["i", "c", "l"].map(|name| f32s(name, &[])).to_vec(),
        output: ["d", "m"].map(|name| f32s(name, &[])).to_vec(),
        ..GraphProto::default()
    };
    let all = [
        node("SequenceEmpty", &[], &["e"]),
        with(node("Loop", &["n", "", "e"], &["s"]), graph("body", body)),
        with(node("ConcatFromSequence", &["s"], &["y"]), int("axis", 0)),
    ];
    is(&all, &[number("n", 3)], "f32[21, 2]");
}

#[test]
fn optionals() {
    let has = |nodes: &[NodeProto]| {
        let all = [nodes, &[node("OptionalHasElement", &["o"], &["y"])]].concat();
        is(&all, &[], "bool[]");
    };
    has(&[node("Optional", &["x"], &["o"])]);
    has(&[node("Optional", &[], &["o"])]);
    is(
        &[node("Optional", &["x"], &["o"]), node("OptionalGetElement", &["o"], &["y"])],
        &[],
        "f32[7, 2]",
    );
    let nothing = [node("Optional", &[], &["o"]), node("OptionalGetElement", &["o"], &["y"])];
    assert_eq!(typed(&nothing, &[]).unwrap_err().class(), Class::Wrong);
}

#[test]
fn as_many_boxes_as_asked_for() {
    let inputs = [f32s("boxes", &[1, 9, 4]), f32s("scores", &[1, 2, 9])];
    let most = tensor::write("most", &Tensor::from_i64s([1], &[5]));
    let nodes = [node("NonMaxSuppression", &["boxes", "scores", "most"], &["y"])];
    let file = Bytes::from(model(&inputs, &[most], &nodes).encode_to_vec());
    let of = |selections: Option<usize>| {
        let options = ReadOptions { selections, ..ReadOptions::default() };
        let graph = read_bytes("test", file.clone(), &options)?.graph;
        let checked = check::check(graph, &BTreeMap::new(), Limits::default())?;
        Ok::<_, Errors>(checked.ty(checked.graph().outputs[0]).to_string())
    };
    assert_eq!(of(Some(7)).unwrap(), "i64[7, 3]");
    assert_eq!(of(None).unwrap_err().class(), Class::Unsupported);
    let file = Bytes::from(model(&inputs, &[], &[node("Abs", &["boxes"], &["y"])]).encode_to_vec());
    let options = ReadOptions { selections: Some(7), ..ReadOptions::default() };
    assert_eq!(read_bytes("test", file, &options).unwrap_err().class(), Class::Usage);
}

#[test]
fn narrow_constants() {
    let fours = TensorProto {
        name: "w".to_owned(),
        data_type: 22,
        dims: vec![7, 2],
        raw_data: Some(vec![0x7f; 7].into()),
        ..TensorProto::default()
    };
    let scale = tensor::write("scale", &Tensor::from_f32s([], &[0.5]));
    let dequantized = |input: &str| node("DequantizeLinear", &[input, "scale"], &["d"]);
    let sum = node("Add", &["d", "x"], &["y"]);
    let all = [fours.clone(), scale.clone()];
    is(&[dequantized("w"), sum.clone()], &all, "f32[7, 2]");
    let turned = [node("Transpose", &["w"], &["t"]), dequantized("t")];
    is(&[&turned[..], &[node("MatMul", &["x", "d"], &["y"])]].concat(), &all, "f32[7, 7]");
    is(&[with(node("Cast", &["w"], &["d"]), int("to", 1)), sum], &all, "f32[7, 2]");
    let unpacked = TensorProto { raw_data: None, int32_data: vec![0xff; 7], ..fours.clone() };
    assert_eq!(tensor::read(&unpacked, &mut Folder::of(None)).unwrap().ints(), [-1; 14]);
    let class = |nodes: &[NodeProto]| typed(nodes, &all).unwrap_err().class();
    assert_eq!(class(&[node("Add", &["w", "w"], &["y"])]), Class::Unsupported);
    assert_eq!(class(&[node("QuantizeLinear", &["x", "scale", "w"], &["y"])]), Class::Unsupported);
    assert_eq!(class(&[node("Identity", &["w"], &["y"])]), Class::Unsupported);
    let short = TensorProto { raw_data: Some(vec![0; 6].into()), ..fours };
    assert!(tensor::read(&short, &mut Folder::of(None)).is_err());
}
