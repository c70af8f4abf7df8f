//! Loops and scans that are written out.

use super::*;

#[test]
fn loops() {
    let known = |name: &str, value: i64| node_with("Constant", name, int("value_int", value));
    fn node_with(op: &str, output: &str, attribute: AttributeProto) -> NodeProto {
        NodeProto { attribute: vec![attribute], ..node(op, &[], &[output]) }
    }
    // Each turn doubles what is carried on, and gives it.
    let body = |last: NodeProto| GraphProto {
        node: vec![last, node("Add", &["v", "v"], &["w"]), node("Neg", &["w"], &["r"])],
        input: ["i", "c", "v"].map(|name| f32s(name, &[])).to_vec(),
        output: ["d", "w", "r"].map(|name| f32s(name, &[])).to_vec(),
        ..GraphProto::default()
    };
    let of = |turns: NodeProto, last: NodeProto| {
        let other = if turns.output[0] == "n" { "m" } else { "n" };
        let graph = body(last).encode_to_vec();
        let body = AttributeProto { g: Some(graph.into()), r#type: 5, ..int("body", 0) };
        let node = NodeProto { attribute: vec![body], ..node("Loop", &["n", "", "x"], &["", "y"]) };
        let source = read_model(&model(&[f32s("x", &[2]), f32s(other, &[])], &[], &[turns, node]))?;
        let checked = check::check(source, &BTreeMap::new(), Limits::default())?;
        Ok::<_, Errors>(checked.ty(checked.graph().outputs[0]).to_string())
    };
    let on = || node("Identity", &["c"], &["d"]);
    assert_eq!(of(known("n", 3), on()).unwrap(), "f32[3, 2]");
    assert_eq!(of(known("n", 1 << 40), known("d", 0)).unwrap(), "f32[1, 2]");
    let class = |found: Result<String, Errors>| found.unwrap_err().class();
    assert_eq!(class(of(known("n", 1 << 40), on())), Class::Limit);
    assert_eq!(class(of(known("n", 0), on())), Class::Unsupported);
    assert_eq!(class(of(known("m", 3), on())), Class::Unsupported);
    assert_eq!(of(known("n", 3), node("Not", &["c"], &["d"])).unwrap(), "f32[1, 2]");
    assert_eq!(class(of(known("n", 3), node("Xor", &["c", "c"], &["d"]))), Class::Unsupported);
    // Turns behind the last one are left out of what is carried on, as long as there are so many at most.
    let until = |turns: NodeProto, results: [&str; 2]| {
        let nodes = vec![
            node("Add", &["v", "v"], &["w"]),
            node("ReduceMax", &["w"], &["largest"]),
            node("Less", &["largest", "limit"], &["d"]),
        ];
        let graph = GraphProto { node: nodes, ..body(on()) };
        let graph =
            GraphProto { output: ["d", "w", "w"].map(|name| f32s(name, &[])).to_vec(), ..graph };
        let body =
            AttributeProto { g: Some(graph.encode_to_vec().into()), r#type: 5, ..int("body", 0) };
        let node = NodeProto { attribute: vec![body], ..node("Loop", &["n", "", "x"], &results) };
        let limit = tensor::write("limit", &Tensor::from_f32s([], &[9.0]));
        let source = read_model(&model(&[f32s("x", &[2])], &[limit], &[turns, node]))?;
        let checked = check::check(source, &BTreeMap::new(), Limits::default())?;
        Ok::<_, Errors>(checked.ty(checked.graph().outputs[0]).to_string())
    };
    assert_eq!(until(known("n", 5), ["y", ""]).unwrap(), "f32[2]");
    assert_eq!(class(until(known("n", 5), ["", "y"])), Class::Unsupported);
    assert_eq!(class(until(known("n", 1 << 40), ["y", ""])), Class::Unsupported);
    // A loop of one turn around the last one, and so on.
    let around = |inner: NodeProto| {
        let mut graph = body(on());
        graph.node.push(inner);
        let body = AttributeProto { g: Some(graph.encode_to_vec().into()), ..int("body", 0) };
        NodeProto { attribute: vec![body], ..node("Loop", &["n", "", "x"], &["", "y"]) }
    };
    let inner = (0..1000).fold(node("Neg", &["v"], &["z"]), |inner, _| around(inner));
    let deep = read_model(&model(&[f32s("x", &[2])], &[], &[known("n", 1), inner]));
    assert_eq!(deep.unwrap_err().class(), Class::Limit);
}

/// How often a loop turns follows from shapes of inputs and from arithmetic with integers.
#[test]
fn turns_that_follow_from_shapes() {
    let body = GraphProto {
        node: vec![node("Add", &["v", "v"], &["w"]), node("Less", &["i", "last"], &["d"])],
        input: ["i", "c", "v"].map(|name| f32s(name, &[])).to_vec(),
        output: ["d", "w", "w"].map(|name| f32s(name, &[])).to_vec(),
        ..GraphProto::default()
    };
    let of = |dims: &[i64], last: Vec<NodeProto>| {
        let body = AttributeProto { g: Some(body.encode_to_vec().into()), ..int("body", 0) };
        let turns = [
            node("Identity", &["x"], &["same"]),
            node("Shape", &["same"], &["shape"]),
            NodeProto { attribute: vec![int("value_int", -1)], ..node("Constant", &[], &["back"]) },
            node("Gather", &["shape", "back"], &["count"]),
            node("Mul", &["count", "count"], &["n"]),
        ];
        let node = NodeProto { attribute: vec![body], ..node("Loop", &["n", "", "v"], &["", "y"]) };
        let nodes: Vec<NodeProto> = turns.into_iter().chain(last).chain([node]).collect();
        let source = read_model(&model(&[f32s("x", dims), f32s("v", &[2])], &[], &nodes))?;
        let checked = check::check(source, &BTreeMap::new(), Limits::default())?;
        Ok::<_, Errors>(checked.ty(checked.graph().outputs[0]).to_string())
    };
    let last = |op: &str, inputs: &[&str]| vec![node(op, inputs, &["last"])];
    assert_eq!(of(&[5, 3], last("Identity", &["n"])).unwrap(), "f32[9, 2]");
    // Whether it goes on is asked of the last turn: that of number 4 is still done.
    assert_eq!(of(&[5, 3], last("Add", &["count", "back"])).unwrap(), "f32[3, 2]");
    let two = last("Div", &["n", "count"]);
    assert_eq!(of(&[5, 4], two).unwrap(), "f32[5, 2]");
    assert_eq!(of(&[5, 4], last("Max", &["back", "count"])).unwrap(), "f32[5, 2]");
    // Of another shape, the columns of which were rows.
    let turned = |places: &[i64]| {
        let ints = AttributeProto { ints: places.to_vec(), r#type: 7, ..int("value_ints", 0) };
        let shape = NodeProto { attribute: vec![ints], ..node("Constant", &[], &["as"]) };
        let nodes = [
            shape,
            node("Reshape", &["x", "as"], &["r"]),
            node("Transpose", &["r"], &["t"]),
            node("Shape", &["t"], &["of"]),
            node("Gather", &["of", "back"], &["last"]),
        ];
        nodes.to_vec()
    };
    assert_eq!(of(&[5, 3], turned(&[0, -1])).unwrap(), "f32[6, 2]");
    assert_eq!(of(&[5, 3], turned(&[-1, 3])).unwrap_err().class(), Class::Unsupported);
    // What is not known, or not from two operands, is no number.
    for unknown in [last("Neg", &["n"]), last("Max", &["back", "back", "count"])] {
        assert_eq!(of(&[5, 3], unknown).unwrap_err().class(), Class::Unsupported);
    }
    assert_eq!(
        of(&[5, 1 << 20], last("Identity", &["n"])).unwrap_err().class(),
        Class::Unsupported
    );
}

#[test]
fn scans() {
    let ints = |name: &str, values: &[i64]| AttributeProto {
        name: name.to_owned(),
        ints: values.to_vec(),
        r#type: 7,
        ..AttributeProto::default()
    };
    // Carries sums on; gives them, and slices as they are.
    let graph = GraphProto {
        node: vec![node("Add", &["s", "p"], &["t"]), node("Identity", &["t"], &["r"])],
        input: ["s", "p"].map(|name| f32s(name, &[])).to_vec(),
        output: ["t", "r"].map(|name| f32s(name, &[])).to_vec(),
        ..GraphProto::default()
    };
    let of = |dims: &[i64], declared: Option<&[i64]>, attributes: &[AttributeProto]| {
        let body = AttributeProto { g: Some(graph.encode_to_vec().into()), ..int("body", 0) };
        let attribute = [&[body][..], attributes].concat();
        let nodes = [
            node("Sin", &["x"], &["m"]),
            NodeProto { attribute, ..node("Scan", &["s0", "m"], &["", "y"]) },
        ];
        let mut model = model(&[f32s("x", dims), f32s("s0", &[1])], &[], &nodes);
        let info = declared.map(|dims| f32s("m", dims));
        model.graph.as_mut().unwrap().value_info.extend(info);
        let source = read_model(&model)?;
        let checked = check::check(source, &BTreeMap::new(), Limits::default())?;
        Ok::<_, Errors>(checked.ty(checked.graph().outputs[0]).to_string())
    };
    let one = int("num_scan_inputs", 1);
    let is = |found: Result<String, Errors>, expected: &str| assert_eq!(found.unwrap(), expected);
    is(of(&[4, 5], Some(&[4, 5]), std::slice::from_ref(&one)), "f32[4, 5]");
    let last = [one.clone(), ints("scan_input_axes", &[-1])];
    is(of(&[4, 5], Some(&[4, 5]), &last), "f32[5, 4]");
    let columns = [ints("scan_output_axes", &[1]), ints("scan_output_directions", &[1])];
    is(of(&[4, 5], Some(&[4, 5]), &[&last[..], &columns].concat()), "f32[4, 5]");
    // A length that is only declared has to be the operand's.
    let class = |found: Result<String, Errors>| found.unwrap_err().class();
    assert_eq!(class(of(&[4, 5], Some(&[3, 5]), std::slice::from_ref(&one))), Class::Wrong);
    assert_eq!(class(of(&[4, 5], None, std::slice::from_ref(&one))), Class::Unsupported);
    assert_eq!(class(of(&[0, 5], Some(&[0, 5]), std::slice::from_ref(&one))), Class::Unsupported);
    assert_eq!(class(of(&[9999, 5], Some(&[9999, 5]), &[one])), Class::Limit);
    assert_eq!(class(of(&[4, 5], Some(&[4, 5]), &[])), Class::Wrong);
    // Operands of one and of four slices.
    let two = [int("num_scan_inputs", 2)];
    assert_eq!(class(of(&[4, 5], Some(&[4, 5]), &two)), Class::Wrong);
}
