//! The object's contract: what symbols it has, that it links with the runtime, alone, twice in one
//! program, as a static library and as a shared object; that it computes the right values with weights
//! in all three places, with threads and on big-endian machines, and touches nothing outside its
//! arena.
//!
//! The model is made by hand, with a kernel of two operands: `y = x * w + p`, and `z = y * w + p`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cranelift_entity::PrimaryMap;
use rlx_aot::codegen::program::KernelInfo;
use rlx_aot::codegen::{
    self, Contract, EmitOptions, Object, Target, WeightsMode, archive, bundle, header, inspect,
    manifest, module::clif_text, weights,
};
use rlx_aot::kernels;
use rlx_aot::kir::build::Builder;
use rlx_aot::lir::{
    self, Access, Buffer, BufferInfo, BufferKind, CONTEXT_BYTES, Io, Module, Op, Plan, Port,
    StepInfo,
};
use rlx_aot::machine::Machine;
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROWS: usize = 6;
const COLUMNS: usize = 5;
const ELEMENTS: usize = ROWS * COLUMNS;
const WARNINGS: &[&str] =
    &["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Werror"];

/// The model, for weights inside or outside the arena.
fn model(name: &str, weights_in_arena: bool) -> Module {
    let ty = Type::new(DType::F32, [ROWS, COLUMNS]);
    let mut buffers = PrimaryMap::new();
    let mut plan = Plan { arena_size: CONTEXT_BYTES, ..Plan::default() };
    plan.options.weights_in_arena = weights_in_arena;
    let mut buffer = |name: &str, kind: BufferKind| {
        let info = BufferInfo { name: name.to_owned(), bytes: ty.bytes() as u64, kind };
        let buffer: Buffer = buffers.push(info);
        if !matches!(buffers[buffer].kind, BufferKind::Constant(_)) {
            plan.slots.insert(buffer, plan.arena_size);
            plan.arena_size += 128;
        }
        buffer
    };
    let x = buffer("x", BufferKind::Input);
    let p = buffer("p", BufferKind::Parameter);
    let y = buffer("y", BufferKind::Temporary);
    let z = buffer("z", BufferKind::Output);
    let weights: Vec<f32> = (0..ELEMENTS).map(|i| i as f32 / 8.0).collect();
    let w = Tensor::from_f32s([ROWS, COLUMNS], &weights);
    let w = buffer("w", BufferKind::Constant(w));
    plan.weights.insert(w, 64);
    plan.weights_size = 192;
    if weights_in_arena {
        plan.weights_slot = Some(plan.arena_size);
        plan.arena_size += plan.weights_size;
    }
    let access = |buffer| Access::dense(buffer, &ty);
    let mut steps = PrimaryMap::new();
    for (from, to) in [(x, y), (y, z)] {
        steps.push(StepInfo {
            op: Op::Move,
            operands: vec![access(from), access(w), access(p)],
            result: access(to),
            scratch: None,
            origins: vec!["node".to_owned()],
        });
    }
    let port = |name: &str, buffer| Port { name: name.to_owned(), ty: ty.clone(), buffer };
    let io = Io {
        inputs: vec![port("x", x)],
        parameters: vec![port("p*/ \"p\"\n", p)],
        outputs: vec![port("z/0", z), port("z:0", z)],
        states: vec![],
    };
    Module { name: name.to_owned(), buffers, steps, io, plan }
}

/// A row of the result for each iteration.
fn kernel(machine: &Machine, name: &str) -> KernelInfo {
    let mut b = Builder::new(name, *machine, ROWS as i64);
    let bytes = (ELEMENTS * 4) as i64;
    let [x, w, p] = ["x", "w", "p"].map(|name| b.input(name, bytes));
    let y = b.output("y", bytes);
    let (begin, end) = (b.begin(), b.end());
    b.each(begin, end, &[], |b, rows| {
        let [x, w, p, y] = [x, w, p, y].map(|p| b.offset(p, rows.index, (COLUMNS * 4) as i64));
        let lanes = b.lanes();
        for column in (0..COLUMNS as i64).step_by(lanes as usize) {
            let count = lanes.min(COLUMNS as i64 - column) as u32;
            let [x, w, p] = [x, w, p].map(|p| b.load_first(p, column * 4, count));
            let product = b.mul(x, w);
            let sum = b.add(product, p);
            b.store_first(sum, y, column * 4, count);
        }
    });
    KernelInfo { kernel: b.finish(), grain: 2, work: i64::MAX }
}

fn options(prefix: &str, external: bool) -> EmitOptions {
    EmitOptions {
        prefix: prefix.to_owned(),
        external,
        fingerprint: std::array::from_fn(|i| i as u8 * 3),
        profile: true,
        listing: true,
    }
}

fn emit(module: &Module, prefix: &str, external: bool, target: &Target) -> Object {
    let build = |_: &[&StepInfo], machine: &Machine, name: &str| Ok(kernel(machine, name));
    let machines: Vec<_> = target.versions().map(|version| version.machine).collect();
    let key = |steps: &[&StepInfo]| format!("{:?}", steps[0].op);
    let program = codegen::select(module, &machines, |_, _| false, key, build).unwrap();
    assert_eq!(program.kernels.len(), 1, "equal kernels are there once");
    assert!(program.to_string().contains("s0 s1"), "{program}");
    codegen::emit(module, &program, &options(prefix, external), target).unwrap()
}

fn expected(x: impl Fn(usize) -> f32, p: f32) -> Vec<f32> {
    let step = |i: usize, v: f32| v * (i as f32 / 8.0) + p;
    (0..ELEMENTS).map(|i| step(i, step(i, x(i)))).collect()
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn succeed(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = run(program, arguments, folder);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// A folder of the test's own with the runtime in it.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("rlx_rt.h"), bundle::RUNTIME_HEADER).unwrap();
    std::fs::write(path.join("rlx_rt.c"), bundle::RUNTIME_SOURCE).unwrap();
    path
}

fn write_object(folder: &Path, object: &Object) {
    let prefix = &object.contract.prefix;
    let mut file = std::fs::File::create(folder.join(format!("{prefix}.o"))).unwrap();
    object.write_to(&mut file).unwrap();
    let text = header::text(&object.contract, object.profile.then_some(object.steps));
    std::fs::write(folder.join(format!("{prefix}.h")), text).unwrap();
}

fn write_weights(folder: &Path, module: &Module, contract: &Contract, big_endian: bool) -> String {
    let path = folder.join(format!("{}.safetensors", contract.prefix));
    let file = std::fs::File::create(&path).unwrap();
    weights::write_file(module, contract, big_endian, file).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The prefix, where the C compiler and the emulator of each target are, and its CPUs.
const TARGETS: &[(&str, &str, &str, &str, &[&str])] = &[
    ("x86_64", "cc", "", "", &["x86-64", "x86-64-v2", "x86-64-v3", "native"]),
    ("aarch64", "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu", &["generic"]),
    (
        "riscv64",
        "riscv64-linux-gnu-gcc",
        "qemu-riscv64 -cpu rv64,v=true,vlen=128,vext_spec=v1.0",
        "/usr/riscv64-linux-gnu",
        &["generic", "rv64gc"],
    ),
    ("s390x", "s390x-linux-gnu-gcc", "qemu-s390x -cpu max", "/usr/s390x-linux-gnu", &["generic"]),
];

#[test]
fn symbols() {
    let folder = folder("symbols");
    for &(triple, _, _, _, cpus) in TARGETS {
        for cpu in cpus.iter().filter(|&&cpu| cpu != "native") {
            let target = Target::new(Some(triple), Some(cpu), None).unwrap();
            let object = emit(&model("m", false), "mlp", false, &target);
            write_object(&folder, &object);
            assert_eq!(succeed("nm", &["-u", "mlp.o"], &folder), "", "{triple} {cpu}");
            let text = succeed("nm", &["mlp.o"], &folder);
            let symbols: Vec<_> = text.lines().filter_map(|l| l.split_once(' ')).collect();
            let names = |kinds: &str| -> Vec<&str> {
                let found = symbols.iter().filter_map(|(_, s)| s.split_once(' '));
                found.filter(|(kind, _)| kinds.contains(kind)).map(|(_, name)| name).collect()
            };
            let mut exported = names("TRDWV");
            exported.sort_unstable();
            let mut exports = object.exports();
            exports.sort();
            assert_eq!(exported, exports, "{text}");
            assert_eq!(names("W"), ["run"], "{text}");
            let locals = names("trd");
            assert!(locals.iter().all(|n| n.starts_with("mlp.") || n.starts_with(".L")), "{text}");
        }
    }
    let sections = succeed("readelf", &["-SW", "mlp.o"], &folder);
    assert!(sections.contains(".note.GNU-stack"), "{sections}");
}

#[test]
fn equal_bytes() {
    let target = Target::new(Some("x86_64"), Some("x86-64-v3"), None).unwrap();
    let bytes = || emit(&model("m", false), "mlp", false, &target).to_bytes().unwrap();
    assert!(bytes() == bytes());
}

#[test]
fn contracts_are_read_back() {
    for (triple, cpu) in [("x86_64", "x86-64-v3"), ("s390x", "z14"), ("riscv64", "generic")] {
        let target = Target::new(Some(triple), Some(cpu), None).unwrap();
        for (in_arena, external) in [(false, false), (false, true), (true, false)] {
            let object = emit(&model("the model", in_arena), "mlp", external, &target);
            let bytes = object.to_bytes().unwrap();
            assert_eq!(inspect::inspect(&bytes).unwrap(), std::slice::from_ref(&object.contract));
            let library = archive::archive(&object).unwrap();
            assert_eq!(inspect::inspect(&library).unwrap(), std::slice::from_ref(&object.contract));
            let manifest = manifest::object(&object, &target);
            assert_eq!(manifest["inputs"][0]["shape"], serde_json::json!([ROWS, COLUMNS]));
            assert_eq!(manifest["cpu"], cpu);
            for length in (0..bytes.len()).step_by(97) {
                assert!(inspect::inspect(&bytes[..length]).is_err());
            }
        }
    }
    assert!(inspect::inspect(b"no object").is_err());
    assert!(inspect::inspect(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).is_err());
}

#[test]
fn headers_compile_alone() {
    let folder = folder("headers");
    let mut module = model("evil */ name ??/ \u{202e}\\", false);
    module.io.inputs.push(Port { name: "x".into(), ..module.io.inputs[0].clone() });
    module.io.inputs.push(Port { name: String::new(), ..module.io.inputs[0].clone() });
    module.io.inputs.push(Port { name: "x_1".into(), ..module.io.inputs[0].clone() });
    let object = emit(&module, "mlp", false, &Target::host().unwrap());
    write_object(&folder, &object);
    let text = std::fs::read_to_string(folder.join("mlp.h")).unwrap();
    let mut macros: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("#define ")).collect();
    let count = macros.len();
    macros.sort_unstable();
    macros.dedup_by_key(|m| m.split(' ').next().unwrap());
    assert_eq!(macros.len(), count, "{text}");
    let alone = "#include \"mlp.h\"\nint f(void *arena);\nint f(void *arena) { return mlp_run(arena) + MLP_INPUT_X_DIM_1 + MLP_OUTPUT_Z_0_BYTES; }\n";
    let with_runtime = "#include \"rlx_rt.h\"\n#include \"mlp.h\"\nconst void *g(void);\nconst void *g(void) { return &mlp_model; }\n";
    for (suffix, compiler, standards) in [
        ("c", "gcc", &["c99", "c11", "c17", "c2x"][..]),
        ("cc", "g++", &["c++98", "c++11", "c++17", "c++20"]),
        ("c", "clang", &["c99", "c11", "c17", "c2x"]),
        ("cc", "clang++", &["c++98", "c++11", "c++17", "c++20"]),
    ] {
        if !installed(compiler) {
            continue;
        }
        for standard in standards {
            for (name, source) in [("alone", alone), ("with_runtime", with_runtime)] {
                if name == "with_runtime" && matches!(*standard, "c99" | "c++98") {
                    continue;
                }
                let file = format!("{name}.{suffix}");
                std::fs::write(folder.join(&file), source).unwrap();
                let standard = format!("-std={standard}");
                let arguments = [WARNINGS, &[&standard, "-c", &file, "-o", "x.o"]].concat();
                succeed(compiler, &arguments, &folder);
            }
        }
    }
}

/// Runs the model with weights in every place, on every target that is installed, by the driver,
/// which puts guard pages behind and before the arena.
#[test]
fn values_on_all_targets() {
    let x = |i: usize| i as f32 - 7.5;
    for &(triple, cc, emulator, libraries, cpus) in TARGETS {
        let runner: Vec<&str> = emulator.split(' ').filter(|w| !w.is_empty()).collect();
        let host = cfg!(target_arch = "x86_64") && triple == "x86_64";
        if !host && (runner.is_empty() || !installed(cc) || !installed(runner[0])) {
            continue;
        }
        for cpu in cpus {
            let target = Target::new(Some(triple), Some(cpu), None).unwrap();
            for (in_arena, external) in [(false, false), (false, true), (true, false)] {
                let folder = folder(&format!("{triple}-{cpu}-{in_arena}-{external}"));
                let module = model("m", in_arena);
                let object = emit(&module, "mlp", external, &target);
                write_object(&folder, &object);
                let big_endian = target.big_endian();
                let bytes = |values: Vec<f32>| -> Vec<u8> {
                    let bytes = |v: f32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
                    values.into_iter().flat_map(bytes).collect()
                };
                std::fs::write(folder.join("x.bin"), bytes((0..ELEMENTS).map(x).collect()))
                    .unwrap();
                std::fs::write(folder.join("p.bin"), bytes(vec![0.5; ELEMENTS])).unwrap();
                std::fs::write(folder.join("list"), "0\tx.bin\n1\tp.bin\n").unwrap();
                let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/driver.c");
                let flags = "-O1 -std=gnu11 -pthread -I. -DRLX_RT_THREADS -DRLX_DRIVER_MODEL=mlp_model \
                     -DRLX_DRIVER_PROFILE=mlp_run_profiled -DRLX_DRIVER_STEPS=2";
                let mut arguments: Vec<&str> = flags.split_whitespace().collect();
                arguments.extend([driver, "rlx_rt.c", "mlp.o", "-o", "driver"]);
                succeed(cc, &arguments, &folder);
                let weights = write_weights(&folder, &module, &object.contract, big_endian);
                let has_file = object.contract.weights_mode.has_file();
                for options in [
                    &["run", "list", ".", "--guard"][..],
                    &["run", "list", ".", "--guard-start", "--threads", "2"],
                    &["run", "list", ".", "--threads", "3", "--repeat", "20"],
                    &["profile", "list", ".", "1", "3", "0"],
                ] {
                    let mut command = runner.clone();
                    if !runner.is_empty() {
                        command.extend(["-L", libraries]);
                    }
                    command.push("./driver");
                    command.extend(options);
                    if has_file {
                        command.extend(["--weights", &weights]);
                    }
                    let _ = std::fs::remove_file(folder.join("out_0.bin"));
                    succeed(command[0], &command[1..], &folder);
                    let found = std::fs::read(folder.join("out_0.bin")).unwrap();
                    assert!(found == bytes(expected(x, 0.5)), "{target:?} {options:?}");
                }
            }
        }
    }
}

/// What depends on a parameter only is a function of its own, without which there is no run.
#[test]
fn parameters_are_prepared_once() {
    use rlx_aot::mir::{Binary, Builder, Output, Role};
    let folder = folder("prepared");
    let mut mir = Builder::new("m");
    let ty = Type::new(DType::F32, [ELEMENTS]);
    let x = mir.input("x", Role::Input, ty.clone());
    let p = mir.input("p", Role::Parameter, ty);
    let square = mir.binary(Binary::Mul, p, p);
    let z = mir.binary(Binary::Add, x, square);
    let outputs = [("z", z), ("s", square)];
    let outputs = outputs.map(|(name, value)| Output { name: name.into(), value });
    let module = lir::lower(&mir.finish(outputs.into()), lir::Options::default()).unwrap();
    let target = Target::host().unwrap();
    let machines = [target.machine];
    let build = |steps: &[&StepInfo], machine: &Machine, name: &str| {
        let plan = kernels::build(steps, machine, name)?;
        Ok(KernelInfo { kernel: plan.kernel, grain: plan.grain, work: plan.work })
    };
    let program = codegen::select(&module, &machines, kernels::abreast, kernels::key, build);
    let object =
        codegen::emit(&module, &program.unwrap(), &options("mlp", false), &target).unwrap();
    assert!(object.exports().contains(&"mlp_prepare".to_owned()));
    write_object(&folder, &object);
    let source = r#"
#include "mlp.h"
#include "rlx_rt.h"
#include <string.h>
static _Alignas(MLP_ARENA_ALIGN) unsigned char arena[MLP_ARENA_SIZE];
static float *at(size_t offset) { return (float *)(void *)(arena + offset); }
int main(void) {
  float *x = at(MLP_INPUT_X_OFFSET), *p = at(MLP_PARAM_P_OFFSET);
  float *z = at(MLP_OUTPUT_Z_OFFSET), *s = at(MLP_OUTPUT_S_OFFSET);
  x[0] = 1;
  p[0] = 3;
  if (mlp_run(arena) != RLX_E_NOT_PREPARED || mlp_prepare(NULL) != RLX_E_NULL)
    return 1;
  if (mlp_prepare(arena) != 0 || mlp_run(arena) != 0 || z[0] != 10 || s[0] != 9)
    return 2;
  p[0] = 5;
  x[0] = 2;
  if (mlp_run(arena) != 0 || z[0] != 11 || mlp_prepare(arena) != 0 || mlp_run(arena) != 0)
    return 3;
  return z[0] == 27 && s[0] == 25 ? 0 : 4;
}
"#;
    std::fs::write(folder.join("main.c"), source).unwrap();
    let inputs = ["-std=c11", "-O1", "main.c", "mlp.o", "-o", "prepared"];
    succeed("cc", &[WARNINGS, &inputs].concat(), &folder);
    succeed("./prepared", &[], &folder);
}

/// Two models in one program, each in a thread of its own, without the runtime; what `run` is.
#[test]
fn two_models_in_two_threads() {
    let folder = folder("two");
    let target = Target::host().unwrap();
    for prefix in ["one", "two"] {
        write_object(&folder, &emit(&model(prefix, false), prefix, false, &target));
    }
    let source = r#"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "one.h"
#include "two.h"
int32_t run(void *arena);
static _Alignas(ONE_ARENA_ALIGN) unsigned char a[ONE_ARENA_SIZE];
static _Alignas(TWO_ARENA_ALIGN) unsigned char b[TWO_ARENA_SIZE];
static void set(unsigned char *arena, float x, float p) {
  for (size_t i = 0; i < ONE_INPUT_X_COUNT; i++) {
    memcpy(arena + ONE_INPUT_X_OFFSET + 4 * i, &x, 4);
    memcpy(arena + ONE_PARAM_P____P___OFFSET + 4 * i, &p, 4);
  }
}
static int check(const unsigned char *arena, float x, float p) {
  for (size_t i = 0; i < ONE_OUTPUT_Z_0_COUNT; i++) {
    float w = (float)i / 8, z;
    memcpy(&z, arena + ONE_OUTPUT_Z_0_OFFSET + 4 * i, 4);
    if (z != (x * w + p) * w + p)
      return 1;
  }
  return 0;
}
static void *first(void *unused) {
  for (int i = 0; i < 10000; i++)
    if (one_run(a) != 0)
      return unused;
  return a;
}
int main(void) {
  pthread_t thread;
  set(a, 2, 1);
  set(b, 3, -1);
  if (pthread_create(&thread, NULL, first, NULL) != 0)
    return 1;
  for (int i = 0; i < 10000; i++)
    if (two_run(b) != 0)
      return 2;
  void *result;
  pthread_join(thread, &result);
  if (result != a || check(a, 2, 1) || check(b, 3, -1))
    return 3;
  if (one_run(NULL) != 1 || one_run(a + 1) != 5 || run(a) != 0)
    return 4;
  return 0;
}
"#;
    std::fs::write(folder.join("main.c"), source).unwrap();
    let inputs = ["-std=c11", "-O1", "-pthread", "main.c", "one.o", "two.o", "-o", "two"];
    succeed("cc", &[WARNINGS, &inputs].concat(), &folder);
    succeed("./two", &[], &folder);
}

#[test]
fn libraries() {
    let folder = folder("libraries");
    let target = Target::host().unwrap();
    let object = emit(&model("m", false), "mlp", false, &target);
    write_object(&folder, &object);
    std::fs::write(folder.join("libmlp.a"), archive::archive(&object).unwrap()).unwrap();
    assert_eq!(succeed("ar", &["t", "libmlp.a"], &folder), "mlp.o\n");
    let main = "#include \"mlp.h\"\nstatic _Alignas(64) unsigned char arena[MLP_ARENA_SIZE];\nint main(void) { return mlp_run(arena); }\n";
    std::fs::write(folder.join("main.c"), main).unwrap();
    succeed("cc", &["main.c", "-L.", "-lmlp", "-o", "static"], &folder);
    succeed("./static", &[], &folder);
    succeed("cc", &["-static", "main.c", "mlp.o", "-o", "alone"], &folder);
    succeed("./alone", &[], &folder);
    // Every relocation fits into a shared object, and none is in its code.
    let flags = ["-shared", "-nostdlib", "-Wl,-z,text,--warn-shared-textrel,--fatal-warnings"];
    succeed("cc", &[&flags[..], &["mlp.o", "-o", "libshared.so"]].concat(), &folder);
    succeed("cc", &["main.c", "-L.", "-lshared", "-Wl,-rpath,.", "-o", "shared"], &folder);
    succeed("./shared", &[], &folder);
    let text = object.listing.as_ref().unwrap();
    assert!(text.contains("mlp_run:") && text.contains("mlp.k0.move"), "{text}");
    let build = |_: &[&StepInfo], machine: &Machine, name: &str| Ok(kernel(machine, name));
    let key = |_: &[&StepInfo]| String::new();
    let program =
        codegen::select(&model("m", false), &[target.machine], |_, _| false, key, build).unwrap();
    let text = clif_text(&program, &object.contract, 0, true, &target).unwrap();
    assert!(text.contains("k0") && text.contains("mlp_run_profiled"), "{text}");
}

#[test]
fn bundles_compile_as_they_are() {
    for external in [false, true] {
        let folder = folder(&format!("bundle-{external}"));
        let module = model("m", false);
        let object = emit(&module, "mlp", external, &Target::host().unwrap());
        write_object(&folder, &object);
        let file = external.then_some("mlp.safetensors");
        let main = bundle::main_c(&object.contract, file);
        std::fs::write(folder.join("main.c"), main).unwrap();
        write_weights(&folder, &module, &object.contract, false);
        let inputs = ["-std=c11", "-O2", "main.c", "rlx_rt.c", "mlp.o", "-o", "mlp"];
        succeed("cc", &[WARNINGS, &inputs].concat(), &folder);
        let printed = succeed("./mlp", &[], &folder);
        assert!(printed.starts_with("z/0: 0 0 0"), "{printed}");
    }
}

#[test]
fn external_weights_are_waited_for() {
    let folder = folder("missing");
    let module = model("m", false);
    let object = emit(&module, "mlp", true, &Target::host().unwrap());
    assert_eq!(object.contract.weights_mode, WeightsMode::External);
    write_object(&folder, &object);
    let main = "#include \"mlp.h\"\nstatic _Alignas(64) unsigned char arena[MLP_ARENA_SIZE];\nint main(void) { return mlp_run(arena) == 9 ? 0 : 1; }\n";
    std::fs::write(folder.join("main.c"), main).unwrap();
    succeed("cc", &["main.c", "mlp.o", "-o", "missing"], &folder);
    succeed("./missing", &[], &folder);
    assert!(!object.exports().contains(&"mlp_weights".to_owned()));
}
