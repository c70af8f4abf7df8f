use super::*;
use crate::compile;
use crate::lir::{self, lower};
use crate::mir::{Builder, Output, Reduction, Role, Unary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use serde_json::Value;

/// `y` of two windows side by side, and a chain that is computed in place.
fn module(name: &str) -> Module {
    let mut mir = Builder::new(name);
    let x = mir.input("x", Role::Input, Type::new(DType::F32, [8, 16]));
    let names = ["left", "right", "wide", "sum"];
    let mut origin = names.into_iter();
    let mut origin = |mir: &mut Builder| mir.set_origin(origin.next().unwrap_or("more"));
    origin(&mut mir);
    let left = mir.unary(Unary::Exp, x);
    origin(&mut mir);
    let right = mir.reduce(Reduction::Max, x, &[1]);
    let right = mir.broadcast(right, [8, 16]);
    let both = mir.concat(&[left, right], 1);
    origin(&mut mir);
    let wide = mir.broadcast(both, [4, 8, 32]);
    let wide = mir.unary(Unary::Neg, wide);
    origin(&mut mir);
    let y = mir.reduce(Reduction::Sum, wide, &[0]);
    let graph = mir.finish(vec![Output { name: name.into(), value: y }]);
    lower(&graph, lir::Options::default()).expect("it is small")
}

fn empty() -> Module {
    let graph = Builder::new("").finish(vec![]);
    lower(&graph, lir::Options::default()).expect("there is nothing")
}

fn with_code(module: &Module) -> Report {
    let options = compile::Options::default();
    let target = compile::target(&options).unwrap();
    let (program, object) = compile::emit(module, &options, &target).unwrap();
    Report::new(module, Some(Compiled { target: "t", program: &program, object: &object }))
}

#[test]
fn live_bytes_are_the_bound() {
    let report = with_code(&module("m"));
    let region = &report.regions[0];
    assert_eq!(region.live.len(), report.steps.len() + 2);
    assert_eq!(region.live.iter().max(), Some(&report.bound));
    assert_eq!(region.peak.bytes, report.bound);
    let held: u64 = region.peak.holders.iter().map(|h| h.bytes).sum();
    assert_eq!(held + region.reserved, report.bound);
    for (i, step) in report.steps.iter().enumerate() {
        assert_eq!(step.live, region.live[i + 1]);
    }
}

#[test]
fn code_adds_up() {
    let report = with_code(&module("m"));
    let code = report.code.expect("it was made");
    assert_eq!(code.calls + code.kernels.iter().map(|k| k.bytes).sum::<u64>(), code.bytes);
    assert!(code.kernels.iter().all(|k| k.bytes > 0 && !k.steps.is_empty()), "{code:?}");
    let of_operators: u64 = report.operators.iter().filter_map(|o| o.code).sum();
    assert_eq!(of_operators + code.calls, code.bytes);
}

#[test]
fn windows_are_contents() {
    let report = Report::new(&module("m"), None);
    let parts = report.buffers.iter().flat_map(|b| &b.contents).filter(|c| c.strided);
    let shown: Vec<_> = parts.map(|c| c.shown).collect();
    assert!(shown.contains(&(0, 512)) && shown.contains(&(512, 1024)), "{shown:?}\n{report:#?}");
}

#[test]
fn what_dies_under_a_result_is_gone() {
    let mut mir = Builder::new("m");
    let x = mir.input("x", Role::Input, Type::new(DType::F32, [16, 64]));
    let wide = mir.unary(Unary::Exp, x);
    let weights = mir.constant(Tensor::noise(&[64, 32], 1));
    let narrow = mir.contract(wide, weights);
    let weights = mir.constant(Tensor::noise(&[32, 16], 2));
    let y = mir.contract(narrow, weights);
    let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
    let apart = lower(&graph, lir::Options::default()).expect("it is small");
    let kernels = |info: &StepInfo, operand| lir::over::order(info, operand);
    let module = lir::over::overlap(&apart, &kernels).unwrap().expect("it is smaller");
    let report = Report::new(&module, None);
    let both = report.buffers.iter().find(|b| b.contents.len() == 2).expect("one over the other");
    let readers: Vec<&[usize]> = both.contents.iter().map(|c| &c.readers[..]).collect();
    assert_eq!(readers, [[1], [2]], "{module}");
}

/// Every field is in the schema, and nothing else is.
#[test]
fn schema_lists_the_fields() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect()
    };
    let check = |what: &str, schema: &Value, value: &Value| {
        let required = schema["required"].as_array().unwrap().iter();
        let required: BTreeSet<String> = required.map(|r| r.as_str().unwrap().to_owned()).collect();
        assert_eq!(keys(&schema["properties"]), required, "{what}");
        assert_eq!(keys(value), required, "{what}");
    };
    let value: Value = serde_json::from_str(&with_code(&module("m")).json()).unwrap();
    check("report", &schema, &value);
    let parts = [
        ("region", "/regions/0"),
        ("peak", "/regions/0/peak"),
        ("buffer", "/buffers/0"),
        ("content", "/buffers/0/contents/0"),
        ("step", "/steps/0"),
        ("operator", "/operators/0"),
        ("code", "/code"),
    ];
    for (name, pointer) in parts {
        check(name, &schema["$defs"][name], value.pointer(pointer).unwrap());
    }
    let peak = &schema["$defs"]["peak"]["properties"];
    check("holder", &peak["holders"]["items"], &value["regions"][0]["peak"]["holders"][0]);
    check("next", &peak["next"], &value["regions"][0]["peak"]["next"]);
    let kernels = &schema["$defs"]["code"]["properties"]["kernels"];
    check("kernel", &kernels["items"], &value["code"]["kernels"][0]);
}

#[test]
fn text_has_table_and_peak() {
    let text = Report::new(&module("m"), None).text();
    assert!(text.contains("\noffset  bytes  alive "), "{text}");
    assert!(text.contains("\n    64    512  always   input      f32[8, 16]     x"), "{text}");
    assert!(text.contains("\npeak of the arena: "), "{text}");
    assert!(text.contains("\nwhat would lower it\n- "), "{text}");
}

#[test]
fn names_are_harmless() {
    let name = "</script><!--<svg onload=\"alert(1)\">&'\u{1b}[31m{{data}}";
    let report = Report::new(&module(name), None);
    let svg = report.svg();
    assert!(!svg.contains("onload=\"") && !svg.contains("<!--") && !svg.contains('\u{1b}'));
    assert!(!report.text().contains('\u{1b}'));
    let page = report.html();
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("<!--") && !page.contains("<svg"));
}

#[test]
fn nothing_is_shown_too() {
    let report = Report::new(&empty(), None);
    assert!(report.buffers.is_empty() && report.steps.is_empty());
    assert_eq!(report.regions[0].live, [64, 64]);
    assert!(report.svg().ends_with("</svg>\n"));
    assert!(report.text().contains("peak of the arena: 64 bytes at start"), "{}", report.text());
}

/// What an option is said to give is what the plan with it has.
#[test]
fn advice_holds() {
    let mut mir = Builder::new("m");
    let ty = Type::new(DType::F32, [64]);
    let [x, other, w] = [("x", Role::Input), ("other", Role::Input), ("w", Role::Parameter)]
        .map(|(name, role)| mir.input(name, role, ty.clone()));
    let y = mir.binary(crate::mir::Binary::Add, x, other);
    let y = mir.binary(crate::mir::Binary::Mul, y, w);
    let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
    let with = |change: fn(&mut lir::Options)| {
        let mut options = lir::Options::default();
        change(&mut options);
        lower(&graph, options).expect("it is small")
    };
    let checks: [(&str, fn(&mut lir::Options)); 4] = [
        ("--overwrite-inputs", |o| o.overwrite_inputs = true),
        ("--outside inputs", |o| o.outside.inputs = true),
        ("--outside outputs", |o| o.outside.outputs = true),
        ("--outside params", |o| o.outside.parameters = true),
    ];
    let now = with(|_| {}).plan.arena_size;
    let advice = &Report::new(&with(|_| {}), None).regions[0].peak.advice;
    for (option, change) in checks {
        let size = with(change).plan.arena_size;
        let found = advice.iter().find(|text| text.contains(option));
        match found {
            Some(text) => assert!(text.ends_with(&format!(": {size} bytes.")), "{text} {size}"),
            None => assert!(size + now / 20 > now, "{option}: {size} of {now}, {advice:?}"),
        }
    }
    assert!(advice.iter().filter(|text| text.contains("these steps would need")).count() >= 2);
    let guarded = Report::new(&with(|o| o.guard = 512), None);
    let advice = guarded.regions[0].peak.advice.join("\n");
    assert!(advice.contains("Without --guard") && advice.contains(&format!(" {now} bytes.")));
}
