//! Fat objects: each version of the kernels computes what the model means, the processor decides
//! which one runs, the weights are there once, and nothing is undefined.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rlx_aot::codegen::x86::cpuid;
use rlx_aot::codegen::{Object, WeightsMode, header, inspect, manifest};
use rlx_aot::compile::{self, Options};
use rlx_aot::lir;
use rlx_aot::mir::{self, Binary, Builder, Graph, Output, Reduction, Role, Unary, Value};
use rlx_aot::passes::{self, Filtering, Level};
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};
use std::path::{Path, PathBuf};
use std::process::Command;

const CPUS: &str = "x86-64-v2,x86-64-v3,x86-64-v4";

fn numbers(dims: &[usize], scale: f64) -> Tensor {
    let ty = Type::new(DType::F32, dims);
    let value = |i: usize| ((i * 7919 + 13) % 211) as f64 / 105.0 - 1.0;
    let values: Vec<f64> = (0..ty.elements()).map(|i| value(i) * scale).collect();
    Tensor::from_f64s(ty, values)
}

/// Convolutions of all kinds, products with odd extents, a softmax, and numbers of 64 bits.
fn graph() -> Graph {
    let mut b = Builder::new("m");
    let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 19, 23, 5]));
    let conv = |b: &mut Builder, x: Value, w: &[usize], groups: usize| {
        let inputs: usize = w[..3].iter().product();
        let w = b.constant(numbers(w, 2.0 / (inputs as f64).sqrt()));
        let padded = if b.dims(w)[0] > 1 { b.pad(x, &[0, 1, 1, 0], &[0, 1, 1, 0], 0.0) } else { x };
        let y = b.conv(padded, w, &[1, 1], &[1, 1], groups);
        let zero = b.scalar(DType::F32, 0.0);
        b.binary(Binary::Max, y, zero)
    };
    let x = conv(&mut b, x, &[3, 3, 5, 70], 1);
    let x = conv(&mut b, x, &[3, 3, 70, 52], 1);
    let x = conv(&mut b, x, &[3, 3, 1, 52], 52);
    let x = conv(&mut b, x, &[1, 1, 52, 37], 1);
    let rows = b.reshape(x, [19 * 23, 37]);
    let w = b.constant(numbers(&[37, 101], 0.5));
    let x = b.contract(rows, w);
    let most = b.reduce(Reduction::Max, x, &[1]);
    let less = b.binary(Binary::Sub, x, most);
    let e = b.unary(Unary::Exp, less);
    let sum = b.reduce(Reduction::Sum, e, &[1]);
    let softmax = b.binary(Binary::Div, e, sum);
    let mean = b.reduce(Reduction::Sum, x, &[0]);
    let w = b.constant(numbers(&[101, 150], 0.2));
    let one = b.contract(mean, w);
    let place = b.arg_reduce(one, true, 1, false);
    let outputs = [("softmax", softmax), ("one", one), ("place", place)];
    b.finish(outputs.map(|(name, value)| Output { name: name.into(), value }).into())
}

/// Of the graph, for these processors; and its module.
fn object(cpus: &str, weights: WeightsMode) -> (Options, lir::Module, Object) {
    let options = Options {
        target: Some("x86_64-unknown-linux-gnu".into()),
        cpu: Some(cpus.into()),
        prefix: "m".into(),
        weights,
        ..Options::default()
    };
    let target = compile::target(&options).unwrap();
    let graph = passes::run(graph(), Level::Speed, Filtering::Auto, &target.machine);
    let module = lir::lower(&graph, options.plan.clone()).unwrap();
    let (_, object) = compile::emit(&module, &options, &target).unwrap();
    (options, module, object)
}

fn succeed(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the model twice, on an arena that says that the processor can do what the first argument
/// says (0: nothing is known); prints the status and what the arena says then, and writes the outputs.
const MAIN: &str = r#"
#include "m.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static _Alignas(M_ARENA_ALIGN) unsigned char arena[M_ARENA_SIZE];
static void file(const char *name, const char *mode, size_t offset, size_t bytes) {
  FILE *f = fopen(name, mode);
  if (!f || (*mode == 'r' ? fread(arena + offset, 1, bytes, f) : fwrite(arena + offset, 1, bytes, f)) != bytes)
    exit(9);
  fclose(f);
}
int main(int count, char **arguments) {
  uint64_t processor = count > 1 ? strtoull(arguments[1], NULL, 16) : 0;
  memcpy(arena + 32, &processor, 8);
  file("x.bin", "rb", M_INPUT_X_OFFSET, M_INPUT_X_BYTES);
  int status = 0;
  for (int i = 0; i < 2; i++) {
    status |= m_run(arena);
    memset(&processor, 0, 8);
    memcpy(&processor, arena + 32, 8);
  }
  file("softmax.bin", "wb", M_OUTPUT_SOFTMAX_OFFSET, M_OUTPUT_SOFTMAX_BYTES);
  file("one.bin", "wb", M_OUTPUT_ONE_OFFSET, M_OUTPUT_ONE_BYTES);
  file("place.bin", "wb", M_OUTPUT_PLACE_OFFSET, M_OUTPUT_PLACE_BYTES);
  printf("%d %llx", status, (unsigned long long)processor);
  return 0;
}
"#;

struct Program {
    folder: PathBuf,
    expected: Vec<Tensor>,
}

impl Program {
    fn new(name: &str, cpus: &str) -> Program {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fat").join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let (_, _, object) = object(cpus, WeightsMode::Embedded);
        std::fs::write(folder.join("m.o"), object.to_bytes().unwrap()).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("m.h", &header::text(&object.contract, None));
        write("main.c", MAIN);
        let x = numbers(&[1, 19, 23, 5], 1.0);
        std::fs::write(folder.join("x.bin"), x.bytes()).unwrap();
        assert_eq!(succeed("nm", &["-u", "m.o"], &folder), "");
        succeed("cc", &["-std=c11", "-O1", "-static", "main.c", "m.o", "-o", "program"], &folder);
        Program { folder, expected: mir::eval::graph(&graph(), &[x]) }
    }

    /// Starts it; the status of the run, and what the arena says of the processor.
    fn run(&self, program: &str, arguments: &[&str]) -> (i32, u64) {
        let text = succeed(program, arguments, &self.folder);
        let (status, processor) = text.split_once(' ').unwrap();
        let status = status.parse().unwrap();
        if status == 0 {
            self.check(&format!("{program} {arguments:?}"));
        }
        (status, u64::from_str_radix(processor, 16).unwrap())
    }

    fn check(&self, context: &str) {
        for (name, expected) in ["softmax", "one", "place"].into_iter().zip(&self.expected) {
            let bytes = std::fs::read(self.folder.join(format!("{name}.bin"))).unwrap();
            let got = Tensor::from_bytes(expected.ty().clone(), bytes.into()).unwrap();
            for (i, (got, want)) in got.f64s().into_iter().zip(expected.f64s()).enumerate() {
                let close = (got - want).abs() <= 1e-5 + 1e-4 * want.abs();
                assert!(close, "{context}: {name}[{i}] is {got}, not {want}");
            }
        }
    }
}

fn bits(cpu: &str) -> u64 {
    let target = rlx_aot::codegen::Target::new(Some("x86_64"), Some(cpu), None).unwrap();
    cpuid::bits(target.features.iter().copied()).unwrap()
}

/// What the processor can do here, by Rust's own means.
fn here() -> u64 {
    bits("native")
}

#[test]
fn every_version_computes_the_same() {
    let program = Program::new("versions", CPUS);
    assert_eq!(program.run("./program", &[]), (0, here() | cpuid::KNOWN));
    let lacks_all = format!("{:x}", cpuid::KNOWN | 1);
    assert_eq!(program.run("./program", &[&lacks_all]).0, 20);
    for cpu in CPUS.split(',').filter(|cpu| bits(cpu) & here() == bits(cpu)) {
        let processor = bits(cpu) | cpuid::KNOWN;
        assert_eq!(program.run("./program", &[&format!("{processor:x}")]), (0, processor));
    }
}

#[test]
fn the_processor_decides() {
    if Command::new("qemu-x86_64").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no qemu-x86_64");
    }
    let program = Program::new("emulated", CPUS);
    let avx2 = bits("haswell") & !bits("nehalem");
    // The emulator makes these processors up: what it cannot do, they do not have.
    for (processor, status, has, lacks) in [
        ("core2duo", 20, bits("core2"), bits("nehalem") & !bits("core2")),
        ("Nehalem", 0, bits("nehalem"), avx2),
        ("Haswell", 0, bits("haswell"), bits("x86-64-v4") & !bits("haswell")),
        ("Haswell,-xsave", 0, bits("nehalem"), bits("sandybridge") & !bits("nehalem")),
    ] {
        let (got, says) = program.run("qemu-x86_64", &["-cpu", processor, "./program"]);
        assert_eq!(got, status, "{processor}");
        assert_eq!((says & has, says & lacks), (has, 0), "{processor}: {says:x}");
    }
}

#[test]
fn what_versions_share_is_there_once() {
    let (_, _, fat) = object(CPUS, WeightsMode::Embedded);
    let (_, _, best) = object("x86-64-v4", WeightsMode::Embedded);
    assert_eq!(fat.contract.weights_size, best.contract.weights_size);
    assert_eq!(fat.contract.arena_size, best.contract.arena_size);
    assert!(fat.kernels > best.kernels && fat.kernels < 3 * best.kernels, "{}", fat.kernels);
    assert_ne!(fat.contract.fingerprint, best.contract.fingerprint);
    // One that lacks what kernels do not use adds none.
    let (_, _, same) = object("x86-64-v4,x86-64-v3,haswell", WeightsMode::Embedded);
    let (_, _, two) = object("x86-64-v4,x86-64-v3", WeightsMode::Embedded);
    assert_eq!(same.kernels, two.kernels);
    let bytes = || object(CPUS, WeightsMode::Embedded).2.to_bytes().unwrap();
    assert!(bytes() == bytes(), "the same model gives the same bytes");
}

#[test]
fn versions_are_named() {
    let (options, _, object) = object(CPUS, WeightsMode::External);
    let target = compile::target(&options).unwrap();
    let manifest = manifest::object(&object, &target);
    assert_eq!(manifest["versions"], serde_json::json!(["x86-64-v4", "x86-64-v3", "x86-64-v2"]));
    assert_eq!(
        manifest["lesser_features"][1].as_array().unwrap().len(),
        bits("nehalem").count_ones() as usize
    );
    let found = inspect::inspect(&object.to_bytes().unwrap()).unwrap();
    assert_eq!(found[0], object.contract);
    let names = ["x86-64-v4", "x86-64-v3", "x86-64-v2"].map(str::to_owned);
    assert_eq!(found[0].versions, names);
    let header = header::text(&object.contract, None);
    assert!(header.contains("x86-64-v4, x86-64-v3 and x86-64-v2"), "{header}");
    assert!(header.contains("20: "), "{header}");
}
