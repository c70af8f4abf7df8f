//! Kernels into one object, the object into a program, and the program run, here or under an emulator.

use crate::cases::Case;
use crate::data::Data;
use cranelift_codegen::ir::{AbiParam, types::I64};
use cranelift_codegen::isa::{self, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_module::{Linkage, Module};
use cranelift_object::{ObjectBuilder, ObjectModule};
use object::read::{Object, ObjectSymbol};
use rlx_aot::codegen::{clif, x86};
use rlx_aot::kir::verify::{Checked, verify};
use rlx_aot::kir::{Access, Kernel};
use rlx_aot::machine::Machine;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

pub(crate) struct Target {
    pub(crate) triple: &'static str,
    pub(crate) flags: &'static [&'static str],
    pub(crate) compiler: &'static str,
    /// What runs the program, if this machine does not.
    pub(crate) emulator: &'static [&'static str],
    /// Whether random kernels convert floats to integers. QEMU 7.2 fails an assertion where a vector
    /// instruction that does so comes first after a `vsetivli`, as it may where registers are spilled.
    pub(crate) converts: bool,
    /// Those with one and four lanes go through Cranelift.
    pub(crate) machines: Vec<Machine>,
}

/// Cranelift with fused multiply-add and rounding.
const MODERN: Machine = Machine { fuses: true, rounds: true, ..Machine::CLIF };

fn scalar_and(machine: Machine) -> Vec<Machine> {
    vec![machine.scalar(), machine]
}

impl Target {
    /// This machine with all that it has; nothing if it is no x86-64.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn host() -> Option<Target> {
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
            return None;
        }
        let mut machines = scalar_and(MODERN);
        machines.push(Machine::AVX2);
        let has_wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        machines.extend(has_wide.then_some(Machine::AVX512));
        let wide_dots = has_wide && is_x86_feature_detected!("avx512vnni");
        machines.extend(wide_dots.then_some(Machine { dots: true, ..Machine::AVX512 }));
        let has_dots = is_x86_feature_detected!("avxvnni");
        machines.extend(has_dots.then_some(Machine { dots: true, ..Machine::AVX2 }));
        machines.extend(machines.clone().into_iter().filter_map(Machine::doubles));
        let flags =
            &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_avx", "has_avx2", "has_fma"];
        Some(Target { flags, machines, ..Target::baseline()? })
    }

    /// This machine as if it had nothing that some x86-64 has not.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn baseline() -> Option<Target> {
        Some(Target {
            triple: "x86_64-unknown-linux-gnu",
            flags: &[],
            compiler: "cc",
            emulator: &[],
            converts: true,
            machines: scalar_and(Machine::CLIF),
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn host() -> Option<Target> {
        None
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn baseline() -> Option<Target> {
        None
    }

    pub(crate) fn aarch64() -> Target {
        Target {
            triple: "aarch64-unknown-linux-gnu",
            flags: &[],
            compiler: "aarch64-linux-gnu-gcc",
            emulator: &["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
            converts: true,
            machines: scalar_and(MODERN),
        }
    }

    pub(crate) fn riscv64() -> Target {
        const CPU: &str = "rv64,v=true,vlen=128,vext_spec=v1.0";
        Target {
            triple: "riscv64gc-unknown-linux-gnu",
            flags: &["has_m", "has_a", "has_f", "has_d", "has_v", "has_zvl128b"],
            compiler: "riscv64-linux-gnu-gcc",
            emulator: &["qemu-riscv64", "-cpu", CPU, "-L", "/usr/riscv64-linux-gnu"],
            converts: false,
            // Vectors are rounded by way of integers there, with a change of the rounding mode.
            machines: scalar_and(Machine { rounds: false, max_displacement: 2047, ..MODERN }),
        }
    }

    pub(crate) fn s390x() -> Target {
        Target {
            triple: "s390x-unknown-linux-gnu",
            flags: &[],
            compiler: "s390x-linux-gnu-gcc",
            emulator: &["qemu-s390x", "-cpu", "max", "-L", "/usr/s390x-linux-gnu"],
            converts: true,
            machines: scalar_and(Machine { big_endian: true, ..MODERN }),
        }
    }

    /// What is missing to build and run programs.
    pub(crate) fn missing(&self) -> Option<&str> {
        let mut tools = self.emulator.first().into_iter().chain([&self.compiler]);
        tools.find(|tool| Command::new(tool).arg("--version").output().is_err()).copied()
    }

    fn isa(&self) -> OwnedTargetIsa {
        let mut shared = settings::builder();
        shared.set("opt_level", "speed").expect("a known flag");
        shared.set("is_pic", "true").expect("a known flag");
        let mut builder = isa::lookup(self.triple.parse().expect("a triple")).expect("a target");
        for flag in self.flags {
            builder.enable(flag).expect("a known flag");
        }
        builder.finish(settings::Flags::new(shared)).expect("flags that fit")
    }
}

/// What a case left in the operands that it writes, on one machine.
pub(crate) struct Outcome<'a> {
    pub(crate) case: &'a Case,
    pub(crate) machine: Machine,
    pub(crate) results: Vec<Data>,
}

/// Compiles every case for every machine of the target, and runs them in one program.
pub(crate) fn run<'a>(target: &Target, cases: &'a [Case]) -> Vec<Outcome<'a>> {
    let directory = tempfile::tempdir().expect("a directory");
    let isa = target.isa();
    let name = cranelift_module::default_libcall_names();
    let object = ObjectBuilder::new(isa.clone(), "kernels", name).expect("an object");
    let mut module = ObjectModule::new(object);
    let mut runs = vec![];
    let (mut inputs, mut header) = (vec![], Header::default());
    for case in cases {
        for &machine in target.machines.iter().filter(|m| case.takes(m)) {
            let kernel = (case.kernel)(machine);
            let checked = verify(&kernel).unwrap_or_else(|e| panic!("{kernel}\n{}", e.join("\n")));
            let operands = (case.operands)(machine);
            for (operand, data) in kernel.operands.iter().zip(&operands) {
                let bytes = data.bytes(machine.big_endian);
                assert_eq!(bytes.len() as i64, operand.bytes, "{}: {}", case.name, operand.name);
                inputs.extend(bytes);
            }
            if case.tight {
                shrink(case, &kernel);
            }
            add(&checked, isa.as_ref(), &mut module, &format!("k{}", header.kernels));
            header.add(&kernel);
            runs.push((case, kernel, operands));
        }
    }
    let bytes = module.finish().emit().expect("an object");
    let file = object::File::parse(&bytes[..]).expect("the object");
    for symbol in file.symbols().filter(|s| s.is_undefined()) {
        let name = symbol.name().expect("a name");
        assert!(name.is_empty(), "{}: the object needs {name}", target.triple);
    }
    fs::write(directory.path().join("kernels.o"), bytes).expect("it is written");
    fs::write(directory.path().join("kernels.h"), header.text()).expect("it is written");
    fs::write(directory.path().join("inputs"), inputs).expect("it is written");
    let outputs = link_and_run(target, directory.path(), &runs);
    let mut rest = &outputs[..];
    let outcomes = runs.iter().map(|(case, kernel, operands)| {
        let written = kernel.operands.iter().zip(operands);
        let written = written.filter(|(operand, _)| operand.access == Access::Write);
        let results = written.map(|(operand, like)| {
            let (bytes, others) = rest.split_at(operand.bytes as usize);
            rest = others;
            Data::from_bytes(like, bytes, kernel.machine.big_endian)
        });
        Outcome { case, machine: kernel.machine, results: results.collect() }
    });
    outcomes.collect()
}

/// The verifier proves exactly what is so: with one byte less in any operand, it refuses the kernel.
fn shrink(case: &Case, kernel: &Kernel) {
    for (i, operand) in kernel.operands.iter().enumerate() {
        // Panels end with a filling that not every kernel reads.
        if operand.name == "panels" {
            continue;
        }
        let mut short = kernel.clone();
        short.operands[i].bytes -= 1;
        assert!(verify(&short).is_err(), "{}: a short {} is accepted", case.name, operand.name);
    }
}

fn add(checked: &Checked<'_>, isa: &dyn TargetIsa, module: &mut ObjectModule, name: &str) {
    let kernel = checked.kernel();
    let mut context = module.make_context();
    context.func.signature.params = vec![AbiParam::new(I64); 3];
    let signature = &context.func.signature;
    let id = module.declare_function(name, Linkage::Export, signature).expect("a new name");
    if kernel.machine.vector_bytes() <= 16 {
        context.func = clif::emit(checked, isa);
        if let Err(error) = module.define_function(id, &mut context) {
            panic!("{error:?}\n{kernel}\n{}", context.func);
        }
        return;
    }
    let emitted = x86::emit(checked, true);
    module.define_function_bytes(id, 64, &emitted.bytes, &[]).expect("bytes are bytes");
}

#[derive(Default)]
struct Header {
    kernels: usize,
    operands: usize,
    largest: i64,
    prototypes: String,
    rows: String,
}

impl Header {
    fn add(&mut self, kernel: &Kernel) {
        let name = format!("k{}", self.kernels);
        self.kernels += 1;
        self.operands = self.operands.max(kernel.operands.len());
        let bytes: Vec<_> = kernel.operands.iter().map(|o| o.bytes).collect();
        self.largest = self.largest.max(bytes.iter().copied().max().unwrap_or(0));
        let written = kernel.operands.iter().enumerate().map(|(i, operand)| match operand.access {
            Access::Read => 0,
            Access::Write => 1u64 << i,
        });
        let written: u64 = written.sum();
        let bytes: Vec<_> = bytes.iter().map(i64::to_string).collect();
        let (count, extent) = (bytes.len(), kernel.range.extent);
        writeln!(self.prototypes, "kernel_function {name};").expect("a string takes it");
        let row = format!("{{{name}, {count}, {extent}, {written}u, {{{}}}}},", bytes.join(", "));
        writeln!(self.rows, "\t{row}").expect("a string takes it");
    }

    fn text(&self) -> String {
        let Header { kernels, operands, largest, prototypes, rows } = self;
        format!(
            "enum {{ KERNELS = {kernels}, OPERANDS = {operands}, LARGEST = {largest} }};\n\
             typedef void kernel_function(const uint8_t *const *table, int64_t begin, int64_t end);\n\
             struct kernel {{\n\tkernel_function *function;\n\tint operands;\n\tint64_t extent;\n\
             \tuint64_t written;\n\tint64_t bytes[OPERANDS];\n}};\n\
             {prototypes}static const struct kernel kernels[] = {{\n{rows}}};\n"
        )
    }
}

fn link_and_run(target: &Target, directory: &Path, runs: &[(&Case, Kernel, Vec<Data>)]) -> Vec<u8> {
    fs::write(directory.join("driver.c"), include_str!("driver.c")).expect("it is written");
    let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-O1"];
    let linked = Command::new(target.compiler)
        .current_dir(directory)
        .args(flags)
        .args(["-o", "driver", "driver.c", "kernels.o"])
        .output()
        .expect("there is a C compiler");
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    let program = directory.join("driver");
    let mut command = match target.emulator {
        [] => Command::new(&program),
        [emulator, arguments @ ..] => {
            let mut command = Command::new(emulator);
            command.args(arguments).arg(&program);
            command
        }
    };
    let ran = command.current_dir(directory).args(["inputs", "outputs"]).output();
    let ran = ran.expect("it starts");
    let outputs = fs::read(directory.join("outputs")).unwrap_or_default();
    if !ran.status.success() {
        let mut left = outputs.len() as i64;
        let failed = runs.iter().find(|(_, kernel, _)| {
            let written = kernel.operands.iter().filter(|o| o.access == Access::Write);
            left -= written.map(|o| o.bytes).sum::<i64>();
            left < 0
        });
        let name = failed.map_or("the last", |(case, ..)| &case.name);
        let message = String::from_utf8_lossy(&ran.stderr);
        panic!("{}: {} in {name}\n{message}", target.triple, ran.status);
    }
    outputs
}
