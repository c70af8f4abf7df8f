//! What RLX printed, and what is wrong with other files.

use super::*;
use crate::front::{ReadOptions, read, read_bytes};
use crate::hir::check;
use expect_test::{Expect, expect};
use std::path::Path;

const MODELS: [&str; 5] = ["attn_prims", "cnn", "elemwise", "encoder", "mlp"];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rlx"))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

#[test]
fn outputs_are_those_of_rlx() {
    for model in MODELS {
        let record = read_record(&folder().join(format!("{model}.io.json"))).unwrap();
        let set: BTreeMap<_, _> = record.inputs.into_iter().chain(record.params).collect();
        for kind in ["graph", "lir", "region.lir"] {
            let path = folder().join(format!("{model}.{kind}.json"));
            if !path.exists() {
                continue;
            }
            let options = ReadOptions { keep_plan: kind != "graph", ..ReadOptions::default() };
            let source =
                read(&path, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(source.plan.is_some(), options.keep_plan);
            let checked =
                check::check(source.graph, &Default::default(), Default::default()).unwrap();
            let graph = checked.graph();
            let input = |i: &crate::hir::Input| set[&graph.values[i.value].name].clone();
            let inputs: Vec<_> = graph.inputs.iter().map(input).collect();
            let outputs = crate::interp::reference::run(&checked, &inputs);
            assert_eq!(outputs.len(), record.outputs.len());
            for (found, (_, expected)) in outputs.iter().zip(&record.outputs) {
                assert_eq!(found.ty(), expected.ty());
                let scale = expected.f64s().iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                for (found, expected) in found.f64s().iter().zip(expected.f64s()) {
                    assert!((found - expected).abs() <= 1e-4 * scale, "{}", path.display());
                }
            }
        }
    }
}

/// The messages about a file after a change, with its plan.
fn refused(name: &str, change: impl FnOnce(&mut Value), expected: Expect) {
    let mut value = json(name);
    change(&mut value);
    let options = ReadOptions { keep_plan: true, ..ReadOptions::default() };
    let read = read_bytes(name, value.to_string().into(), &options);
    expected.assert_eq(&read.map_or_else(|e| e.to_string(), |_| "accepted".to_owned()));
}

#[test]
fn wrong_plans() {
    let buffers =
        |key: &'static str, value: Value| move |file: &mut Value| file["buffers"][key] = value;
    refused(
        "mlp.graph.json",
        |_| {},
        expect![[r#"
            error: the model has no plan that could be kept
              = only lowered RLX modules have one"#]],
    );
    refused(
        "mlp.lir.json",
        buffers("arena_size", 64.into()),
        expect![[r#"
            error: plan: node 0 "x" has 256 bytes at 6144, and the arena has 64

            error: plan: node 1 "w1" has 2048 bytes at 0, and the arena has 64

            error: plan: node 2 "b1" has 128 bytes at 7424, and the arena has 64

            error: plan: node 3 "ln_g" has 128 bytes at 7680, and the arena has 64

            error: plan: node 4 "ln_b" has 128 bytes at 7936, and the arena has 64

            error: plan: node 5 "w2" has 2048 bytes at 2176, and the arena has 64

            error: plan: node 6 "b2" has 64 bytes at 8192, and the arena has 64

            error: plan: node 7 "w3" has 640 bytes at 4352, and the arena has 64

            error: plan: node 8 "b3" has 40 bytes at 8384, and the arena has 64

            error: plan: node 9 "n9" has 512 bytes at 5120, and the arena has 64

            error: plan: node 10 "n10" has 512 bytes at 5632, and the arena has 64

            error: plan: node 11 "n11" has 256 bytes at 6528, and the arena has 64

            error: plan: node 12 "n12" has 256 bytes at 6784, and the arena has 64

            error: plan: node 13 "n13" has 160 bytes at 7040, and the arena has 64

            error: plan: node 14 "output" has 160 bytes at 7232, and the arena has 64"#]],
    );
    refused(
        "mlp.lir.json",
        buffers("alignment", 48.into()),
        expect!["error: plan: the alignment is 48, not a power of two"],
    );
    refused(
        "mlp.lir.json",
        buffers("schedule", vec![10, 9, 9].into()),
        expect![[r#"
            error: plan: node 10 "n10" runs before its operand, node 9 "n9"

            error: plan: node 9 "n9" runs twice

            error: plan: node 11 "n11" is not in the schedule

            error: plan: node 12 "n12" is not in the schedule

            error: plan: node 13 "n13" is not in the schedule

            error: plan: node 14 "output" is not in the schedule"#]],
    );
    refused(
        "mlp.lir.json",
        buffers("schedule", vec![99].into()),
        expect!["error: plan: there is no node 99"],
    );
    let slot = |node: &'static str, offset: u64, size: u64| {
        move |file: &mut Value| {
            file["buffers"]["assignments"][node] =
                serde_json::json!({"offset": offset, "size": size});
        }
    };
    refused(
        "mlp.lir.json",
        slot("10", 0, 512),
        expect![[
            r#"error: plan: node 1 "w1" (0..2048) and node 10 "n10" (0..512) overlap and are alive at once"#
        ]],
    );
    refused(
        "mlp.lir.json",
        slot("10", 4, 512),
        expect![[r#"error: plan: node 10 "n10" is at 4, which is not aligned to 64"#]],
    );
    refused(
        "mlp.lir.json",
        slot("10", u64::MAX - 63, 512),
        expect![[
            r#"error: plan: node 10 "n10" has 512 bytes at 18446744073709551552, and the arena has 8552"#
        ]],
    );
    refused(
        "mlp.lir.json",
        slot("10", 0, 4),
        expect![[r#"error: plan: node 10 "n10" has 512 bytes, and a slot of 4"#]],
    );
    refused("mlp.lir.json", slot("77", 0, 4), expect!["error: plan: there is no node 77"]);
    refused(
        "mlp.lir.json",
        |file| _ = file["buffers"]["assignments"].as_object_mut().unwrap().remove("10"),
        expect![[r#"error: plan: node 10 "n10" has no slot"#]],
    );
    let view = |root: usize, byte_offset: u64| {
        move |file: &mut Value| {
            file["buffers"]["view_aliases"]["11"] =
                serde_json::json!({"root": root, "byte_offset": byte_offset});
        }
    };
    refused(
        "cnn.lir.json",
        view(11, 0),
        expect![[r#"error: plan: node 11 "n11" is a view of itself"#]],
    );
    refused(
        "cnn.lir.json",
        view(10, 4),
        expect![[
            r#"error: plan: node 11 "n11" has 1024 bytes at 4 of node 10 "n10", which has 1024"#
        ]],
    );
    refused(
        "cnn.lir.json",
        view(9, 64),
        expect![[
            r#"error: plan: node 11 "n11" is at 32640, and as a view of node 9 "n9" must be at 23360"#
        ]],
    );
}

#[test]
fn wrong_graphs() {
    let node = |index: usize, key: &'static str, value: Value| {
        move |file: &mut Value| file["nodes"][index][key] = value
    };
    let graph = |change: &dyn Fn(&mut Value), expected: Expect| {
        let mut value = json("mlp.graph.json");
        change(&mut value);
        let read = read_bytes("mlp", value.to_string().into(), &ReadOptions::default());
        expected.assert_eq(&read.map_or_else(|e| e.to_string(), |_| "accepted".to_owned()));
    };
    graph(&|v| node(9, "id", 8.into())(v), expect!["error: the node at 9 has the id 8"]);
    graph(
        &|v| node(9, "inputs", vec![0, 99].into())(v),
        expect!["error: node 9 has the operand 99, which is no node"],
    );
    graph(
        &|v| node(9, "op", "MatMull".into())(v),
        expect![[r#"
            unsupported: MatMull: RLX's operator "MatMull"
             --> node "n9" (MatMull)
              |  input 0: "x"  f32[4, 16]
              |  input 1: "w1"  f32[16, 32]
              = the nearest one that is known is MatMul"#]],
    );
    graph(
        &|v| node(9, "op", serde_json::json!({"LayerNorm": {"axis": 1}}))(v),
        expect![[r#"
            error: LayerNorm has no field "eps"
             --> node "n9" (LayerNorm)
              |  input 0: "x"  f32[4, 16]
              |  input 1: "w1"  f32[16, 32]"#]],
    );
    graph(
        &|v| node(9, "op", serde_json::json!({"Transpose": {"perm": [0], "new": 1}}))(v),
        expect![[r#"
            unsupported: Transpose: Transpose has the field "new"
             --> node "n9" (Transpose)
              |  input 0: "x"  f32[4, 16]
              |  input 1: "w1"  f32[16, 32]
              = it is not of RLX 0.2.2 to 0.2.19"#]],
    );
    graph(
        &|v| node(9, "op", serde_json::json!({"Activation": "Reluu"}))(v),
        expect![[r#"
            unsupported: Activation: step 0: "Reluu" is not known
             --> node "n9" (Activation)
              |  input 0: "x"  f32[4, 16]
              |  input 1: "w1"  f32[16, 32]"#]],
    );
    graph(
        &|v| node(0, "op", serde_json::json!({"Constant": {"data": vec![0; 300]}}))(v),
        expect![[r#"
            error: constant: f32[4, 16] needs 256 bytes, and the file has 300 for it
             --> node "x" (Constant)"#]],
    );
    graph(&|v| v["outputs"] = vec![99].into(), expect!["error: the output 99 is no node"]);
    graph(
        &|v| v["nodes"][9]["shape"]["dtype"] = "C64".into(),
        expect![[r#"
            unsupported: MatMul: the element type C64
             --> node "n9" (MatMul)
              |  input 0: "x"  f32[4, 16]
              |  input 1: "w1"  f32[16, 32]"#]],
    );
    graph(
        &|v| v["nodes"][1]["op"]["Param"]["name"] = "x".into(),
        expect![[r#"error: "x" is defined twice"#]],
    );
}

#[test]
fn types_are_held_against_the_file() {
    let mut value = json("mlp.graph.json");
    value["nodes"][9]["shape"]["dims"][1]["Static"] = 31.into();
    let source = read_bytes("mlp", value.to_string().into(), &ReadOptions::default()).unwrap();
    let errors = check::check(source.graph, &Default::default(), Default::default()).unwrap_err();
    expect![[r#"
        error: the result is f32[4, 32], and declared f32[4, 31]
         --> node "n9" (MatMul)
          |  input 0: "x"  f32[4, 16]
          |  input 1: "w1"  f32[16, 32]"#]]
    .assert_eq(&errors.to_string());
}

#[test]
fn damaged_files() {
    let text = std::fs::read_to_string(folder().join("elemwise.region.lir.json")).unwrap();
    let options = ReadOptions { keep_plan: true, ..ReadOptions::default() };
    let survives = |text: String| _ = read_bytes("fuzz", text.into(), &options);
    for end in (0..text.len()).step_by(7) {
        survives(text[..end].to_owned());
    }
    for at in (0..text.len()).step_by(3) {
        for with in ["9", "-", "\"", "null", "[", "{}"] {
            survives([&text[..at], with, &text[at + 1..]].concat());
        }
    }
}
