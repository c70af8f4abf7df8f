//! JSON models, right and wrong.

use super::*;
use crate::front::{ReadOptions, read_bytes};
use crate::hir::check;
use expect_test::{Expect, expect};

const MLP: &str = r#"{
  "format": "rlx-aot/1",
  "name": "mlp",
  "inputs": [{ "name": "x", "shape": ["batch", 2] }],
  "parameters": [
    { "name": "w", "shape": [2, 2], "data": [[1, 2], [3, 4]] },
    { "name": "b", "shape": [2], "base64": "AACAPwAAAMA=" }
  ],
  "nodes": [
    { "op": "Gemm", "inputs": ["x", "w", "b"], "outputs": ["h"], "attributes": { "alpha": 0.5 } },
    { "op": "Relu", "inputs": ["h"], "outputs": ["y"] }
  ],
  "outputs": ["y"]
}"#;

fn read_text(text: &str) -> Result<Graph, Errors> {
    let data = bytes::Bytes::copy_from_slice(text.as_bytes());
    read_bytes("model", data, &ReadOptions::default()).map(|s| s.graph)
}

fn refused(text: &str, expected: Expect) {
    expected.assert_eq(&read_text(text).map_or_else(|e| e.to_string(), |_| "accepted".to_owned()));
}

#[test]
fn a_model_runs() {
    let graph = read_text(MLP).unwrap();
    assert_eq!(graph.name, "mlp");
    let bindings = [("batch".to_owned(), 1)];
    let checked = check::check(graph, &bindings.into(), Default::default()).unwrap();
    let y = crate::interp::reference::run(&checked, &[Tensor::from_f32s([1, 2], &[2.0, 4.0])]);
    assert_eq!(y[0].f64s(), [8.0, 8.0]);
}

/// The model with one parameter `p` of this type and with these fields.
fn parameter(dtype: &str, shape: &str, fields: &str) -> String {
    let parameter = format!(r#"{{"name": "p", "dtype": "{dtype}", "shape": {shape}, {fields}}}"#);
    format!(
        r#"{{"format": "rlx-aot/1", "parameters": [{parameter}], "nodes": [], "outputs": ["p"]}}"#
    )
}

#[test]
fn elements() {
    let value = |dtype: &str, shape: &str, data: &str| {
        let graph = read_text(&parameter(dtype, shape, &format!("\"data\": {data}"))).unwrap();
        graph.values[graph.outputs[0]].constant.clone().unwrap()
    };
    assert_eq!(value("f32", "[2]", "[0.5, \"-inf\"]").f64s(), [0.5, f64::NEG_INFINITY]);
    assert!(value("f16", "[]", "\"nan\"").f64s()[0].is_nan());
    assert_eq!(value("u64", "[1]", "[18446744073709551615]").ints(), [-1]);
    assert_eq!(value("i64", "[1]", "[-9223372036854775808]").ints(), [i64::MIN]);
    assert_eq!(value("bool", "[2, 2]", "[[true, false], [0, 1]]").ints(), [1, 0, 0, 1]);
    assert_eq!(value("i8", "[2, 2]", "[1, 2, 3, -128]").ints(), [1, 2, 3, -128]);
    assert_eq!(value("f32", "[0, 3]", "[]").dims(), [0, 3]);
    let wrong = [
        ("f32", "[2]", "\"data\": [1]"),
        ("f32", "[2, 2]", "\"data\": [[1, 2, 3, 4]]"),
        ("f32", "[2]", "\"data\": [1, [2]]"),
        ("f32", "[]", "\"data\": 1e39"),
        ("f32", "[]", "\"data\": 1e999"),
        ("f32", "[]", "\"data\": NaN"),
        ("f32", "[]", "\"data\": \"infinity\""),
        ("i8", "[]", "\"data\": 128"),
        ("u8", "[]", "\"data\": 1.0"),
        ("i64", "[]", "\"data\": 18446744073709551615"),
        ("bool", "[]", "\"data\": 2"),
        ("f32", "[1]", "\"base64\": \"AAA=\""),
        ("f32", "[1]", "\"base64\": \"*\""),
        ("f32", "[1]", "\"base64\": \"AAAAAA==\", \"data\": [1]"),
        ("f32", "[1]", "\"tensor\": \"w\""),
        ("f32", "[1]", "\"file\": \"w.safetensors\""),
        ("f32", "[\"n\"]", "\"data\": [1]"),
        ("f32", "[-1]", "\"data\": [1]"),
        ("f32", "[1099511627776, 1099511627776]", "\"data\": [1]"),
        ("f33", "[]", "\"data\": 1"),
        ("f32", "[]", "\"values\": 1"),
    ];
    let message = |(dtype, shape, fields): (&str, &str, &str)| {
        let error = read_text(&parameter(dtype, shape, fields)).unwrap_err();
        error.to_string().lines().next().unwrap_or_default().to_owned()
    };
    let messages: Vec<_> = wrong.into_iter().map(message).collect();
    expect![[r#"
        error: parameter "p": f32[2] needs 2 elements, and has one
        error: parameter "p": f32[2, 2] needs 4 elements, and has lists of [1, 4]
        error: lists of different lengths at line 1 column 99
        error: parameter "p": the element 1e39 does not fit in f32
        error: number out of range at line 1 column 95
        error: expected value at line 1 column 91
        error: invalid value: string "infinity", expected a number, true, false, "nan", "inf", "-inf", or a list of them at line 1 column 100
        error: parameter "p": the element 128 does not fit in i8
        error: parameter "p": the element 1.0 does not fit in u8
        error: parameter "p": the element 18446744073709551615 does not fit in i64
        error: parameter "p": the element 2 does not fit in bool
        error: parameter "p": f32[1] needs 4 bytes, and the file has 2 for it
        error: parameter "p": "base64" is not valid: Invalid symbol 42, offset 0.
        error: parameter "p": it has both "data" and "base64"
        error: parameter "p": it has "tensor" and no "file"
        error: parameter "p": the model refers to the file "w.safetensors"
        error: parameter "p": it has a value, and a symbolic dimension
        error: a dimension is a number, or the name of a symbolic one at line 1 column 82
        error: parameter "p": the tensor is too large
        error: unknown variant `f33`, expected one of `f32`, `f64`, `f16`, `bf16`, `i8`, `i16`, `i32`, `i64`, `u8`, `u16`, `u32`, `u64`, `bool` at line 1 column 67
        error: unknown field `values`, expected one of `name`, `dtype`, `shape`, `data`, `base64`, `file`, `tensor` at line 1 column 90"#]].assert_eq(&messages.join("\n"));
}

#[test]
fn wrong_models() {
    refused("{", expect!["error: EOF while parsing an object at line 1 column 1"]);
    refused("[1]", expect!["error: the file is a list in JSON, not a model"]);
    refused(
        "{\"weights\": 1}",
        expect![[r#"
        error: the file is JSON, and not a model
          = a model starts with {"format": "rlx-aot/1""#]],
    );
    refused(
        &MLP.replace("rlx-aot/1", "rlx-aot/2"),
        expect![[r#"
        unsupported: the format "rlx-aot/2"
          = this version reads "rlx-aot/1""#]],
    );
    refused(
        &MLP.replace("\"outputs\": [\"y\"]", "\"output\": [\"y\"]"),
        expect![
            "error: unknown field `output`, expected one of `op`, `name`, `inputs`, `outputs`, `attributes` at line 11 column 45"
        ],
    );
    refused(
        &MLP.replace("\"Gemm\"", "\"Gem\""),
        expect![[r#"
        unsupported: Gem: the operator "Gem" is not known
         --> node "h" (Gem)
          |  input 0: "x"  ?
          |  input 1: "w"  f32[2, 2]
          |  input 2: "b"  f32[2]
          = the nearest name is Gemm; `rlx-aot ops` lists all"#]],
    );
    refused(
        &MLP.replace("alpha", "aplha"),
        expect![[r#"
        error: the operator has no attribute "aplha"
         --> node "h" (Gemm)
          |  input 0: "x"  ?
          |  input 1: "w"  f32[2, 2]
          |  input 2: "b"  f32[2]
          = it has: alpha, beta, transA, transB"#]],
    );
    refused(
        &MLP.replace("\"alpha\": 0.5", "\"alpha\": 0.5, \"alpha\": 1"),
        expect![[r#"error: attribute "alpha" is given twice at line 10 column 102"#]],
    );
    refused(
        &MLP.replace("\"inputs\": [\"h\"]", "\"inputs\": [\"g\"]"),
        expect![[r#"
        error: nothing defines "g"
         --> node "y" (Relu)
          |  input 0: "g"  ?
          = did you mean "b"?"#]],
    );
    refused(
        &MLP.replace("\"outputs\": [\"h\"]", "\"outputs\": [\"x\"]"),
        expect![[r#"
        error: "x" is defined twice
         --> node "x" (Gemm)
          |  input 0: "x"  ?
          |  input 1: "w"  ?
          |  input 2: "b"  ?

        error: nothing defines "h"
         --> node "y" (Relu)
          |  input 0: "h"  ?
          = did you mean "b"?"#]],
    );
    refused(
        &MLP.replace("\"name\": \"mlp\"", "\"opset\": 99"),
        expect!["unsupported: opset 99; there are 1 to 28"],
    );
    let lists = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    refused(&lists, expect!["error: the file is a list in JSON, not a model"]);
    let deep = format!("\"data\": {lists}");
    refused(
        &parameter("f32", "[]", &deep),
        expect![[r#"
            error: recursion limit exceeded at line 1 column 215
              = lists may be nested 128 deep"#]],
    );
}

#[test]
fn attributes() {
    let node = |attributes: &str| {
        format!(
            r#"{{"format": "rlx-aot/1", "nodes": [{{"op": "Constant", "inputs": [], "outputs": ["y"],
            "attributes": {{{attributes}}}}}], "outputs": ["y"]}}"#
        )
    };
    for attributes in [
        r#""value_int": 3"#,
        r#""value_ints": [1, 2]"#,
        r#""value_float": 1"#,
        r#""value_floats": [1, 2.5]"#,
        r#""value": {"dtype": "u8", "shape": [2], "data": [1, 255]}"#,
    ] {
        let checked = check::check(
            read_text(&node(attributes)).unwrap(),
            &Default::default(),
            Default::default(),
        );
        assert_eq!(checked.unwrap().live(), []);
    }
    let wrong = [
        r#""value_int": 9223372036854775808"#,
        r#""value_ints": [1, "a"]"#,
        r#""value_ints": [1, 2.5]"#,
        r#""value": {"dtype": "u8", "shape": [3], "data": [1, 255]}"#,
        r#""value": {"dtype": "u8", "shape": [2], "data": [1, 255], "more": 1}"#,
        r#""value": null"#,
    ];
    let message = |text: &str| read_text(&node(text)).unwrap_err().to_string();
    expect![[r#"
        error: 9223372036854775808 is too large at line 2 column 59
        error: a list of different things at line 2 column 49
        error: attribute "value_ints" must be a list of integers, and is a list of floats
         --> node "y" (Constant)
        error: attribute "value": u8[3] needs 3 elements, and has 2
         --> node "y" (Constant)
          = write them as one list, or as lists in lists as the shape says
        error: unknown field `more`, expected one of `dtype`, `shape`, `data` at line 2 column 90
        error: invalid type: null, expected a number, a text, a list of numbers or of texts, or a tensor {dtype, shape, data} at line 2 column 40"#]].assert_eq(&wrong.map(message).join("\n"));
}

#[test]
fn the_schema_has_every_field() {
    let schema: serde_json::Value = serde_json::from_str(schema()).unwrap();
    let names = |object: &serde_json::Value| {
        assert_eq!(object["additionalProperties"], false);
        let names: Vec<_> = object["properties"].as_object().unwrap().keys().cloned().collect();
        names
    };
    // What serde knows, it lists when it meets another field.
    let known = |text: &str| {
        let message = serde_json::from_str::<Model>(text).err().unwrap().to_string();
        let (_, list) = message.split_once("expected one of ").unwrap();
        let list = list.split(" at line").next().unwrap();
        let mut names: Vec<_> = list.split(", ").map(|n| n.trim_matches('`').to_owned()).collect();
        names.sort();
        names
    };
    let properties = &schema["properties"];
    assert_eq!(names(&schema), known(r#"{"?": 1}"#));
    assert_eq!(names(&properties["inputs"]["items"]), known(r#"{"inputs": [{"?": 1}]}"#));
    assert_eq!(names(&properties["parameters"]["items"]), known(r#"{"parameters": [{"?": 1}]}"#));
    assert_eq!(names(&properties["nodes"]["items"]), known(r#"{"nodes": [{"?": 1}]}"#));
    let dtypes: Vec<_> = DType::ALL.iter().map(|t| serde_json::Value::from(t.name())).collect();
    assert_eq!(schema["$defs"]["dtype"]["enum"], serde_json::Value::from(dtypes));
    assert_eq!(properties["format"]["const"], FORMAT);
    assert_eq!(properties["opset"]["default"], DEFAULT_OPSET);
    assert_eq!(properties["opset"]["maximum"], crate::front::onnx::NEWEST_OPSET);
}

#[test]
fn damaged_text() {
    for end in 0..MLP.len() {
        assert!(read_text(&MLP[..end]).is_err());
    }
    for at in 0..MLP.len() {
        for with in ["\0", "\"", "[", "}", "-", "9e99", "\u{1b}", ","] {
            let _ = read_text(&[&MLP[..at], with, &MLP[at..]].concat());
            let _ = read_text(&[&MLP[..at], with, &MLP[at + 1..]].concat());
        }
    }
}
