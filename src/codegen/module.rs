//! Kernels and the functions that call them, as code in an object.

use super::contract::{self, Contract, WeightsMode};
use super::object::{Functions, Object};
use super::program::Program;
use super::run::{self, Entry, Symbols, Version};
use super::target::Target;
use super::{clif, parallel_map, x86};
use crate::error::ErrorKind;
use crate::kir;
use crate::kir::verify::{Checked, verify};
use crate::lir;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_codegen::{Context, ir};
use cranelift_entity::SecondaryMap;
use cranelift_module::{
    DataId, FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget, default_libcall_names,
};
use cranelift_object::{ObjectBuilder, ObjectModule};
use std::fmt::Write as _;

/// What may be chosen about an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmitOptions {
    /// Of every symbol; see [`super::contract::is_prefix`].
    pub prefix: String,
    /// Keep weights out of the object. (Whether they are in the arena is said by the plan.)
    pub external: bool,
    /// Of everything that the object depends on.
    pub fingerprint: [u8; 32],
    /// Add `<prefix>_run_profiled`.
    pub profile: bool,
    /// Add the assembler text to the result.
    pub listing: bool,
}

/// Weights that are addressed relative to the code are at most this long.
const MAX_EMBEDDED: u64 = 0x7000_0000;

/// Code that is aligned so starts at a cache line, and finds its constants aligned.
const KERNEL_ALIGN: u64 = 64;

/// Makes the object of a module and the program that was chosen for it.
///
/// # Errors
///
/// Weights that are too large to be embedded, a prefix that is none. That Cranelift refuses something
/// is a bug of ours.
pub fn emit(
    module: &lir::Module,
    program: &Program,
    options: &EmitOptions,
    target: &Target,
) -> Result<Object, ErrorKind> {
    let EmitOptions { prefix, external, fingerprint, profile, .. } = options;
    if !contract::is_prefix(prefix) {
        return Err(ErrorKind::usage(format!("\"{prefix}\" is no prefix for symbols"))
            .help("a prefix has letters, digits and underscores, a letter first, and is not rlx"));
    }
    let plan = &module.plan;
    let mut contract = Contract::new(module, prefix, *external, *fingerprint);
    if target.is_fat() {
        contract.versions = target.versions().map(|version| version.cpu.clone()).collect();
    }
    if contract.weights_mode == WeightsMode::Embedded && contract.weights_size > MAX_EMBEDDED {
        return Err(ErrorKind::limit(format!(
            "{} bytes of weights do not fit into an object file",
            contract.weights_size
        ))
        .help("keep them in a file beside it: --weights external"));
    }
    let isas = Isas::new(target)?;
    let Declared { mut code, jobs, run, prepare, weights } =
        declare(program, &contract, plan.prologue, *profile, target, &isas)?;
    let mut listing = options.listing.then(String::new);
    let mut sizes: Vec<u64> = vec![];
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let names = options.listing.then_some(names.as_slice());
    let compiled = parallel_map(&jobs, |job| compile(job, names));
    for (job, compiled) in jobs.iter().zip(compiled) {
        let compiled = compiled?;
        sizes.push(compiled.bytes.len() as u64);
        code.define_function_bytes(job.id, compiled.align, &compiled.bytes, &compiled.relocations)
            .map_err(bug)?;
        if let (Some(listing), Some(text)) = (&mut listing, compiled.listing) {
            let _ = writeln!(listing, "{}:\n{text}", job.name);
        }
    }
    let product = code.finish();
    let run = product.function_symbol(run);
    let prepare = prepare.map(|id| product.function_symbol(id));
    let weights = weights.map(|id| product.data_symbol(id));
    let big_endian = target.big_endian();
    let functions = Functions { run, prepare };
    let image =
        super::object::finish(product.object, &contract, functions, weights, module, big_endian)?;
    let (steps, kernels) = (module.steps.len(), program.kernels.len());
    let code_bytes = sizes.iter().sum();
    // The kernels are declared before the functions that call them.
    sizes.truncate(kernels);
    let (kernel_bytes, profile) = (sizes, *profile);
    Ok(Object { image, contract, profile, steps, kernels, kernel_bytes, code_bytes, listing })
}

/// The Cranelift IR of all functions that go through Cranelift, before it is optimized.
///
/// # Errors
///
/// As [`emit`].
pub fn clif_text(
    program: &Program,
    contract: &Contract,
    prologue: usize,
    profile: bool,
    target: &Target,
) -> Result<String, ErrorKind> {
    let mut text = String::new();
    let isas = Isas::new(target)?;
    for job in declare(program, contract, prologue, profile, target, &isas)?.jobs {
        let _ = match job.body.clif(job.isa)? {
            Some(function) => writeln!(text, "; {}\n{}", job.name, function.display()),
            None => writeln!(text, "; {} is made without Cranelift\n", job.name),
        };
    }
    Ok(text)
}

/// What Cranelift makes functions for.
struct Isas<'a> {
    /// Each version of the target, the best first.
    versions: Vec<&'a dyn TargetIsa>,
    /// What runs before one is chosen: what every processor can do.
    least: Option<OwnedTargetIsa>,
}

impl<'a> Isas<'a> {
    fn new(target: &'a Target) -> Result<Isas<'a>, ErrorKind> {
        let least = if target.is_fat() { Some(target.least()?) } else { None };
        Ok(Isas { versions: target.versions().map(|v| v.isa.as_ref()).collect(), least })
    }

    fn first(&self) -> &dyn TargetIsa {
        self.least.as_deref().unwrap_or(self.versions[0])
    }
}

/// The functions of an object, declared, so that they can be compiled in any order.
struct Declared<'a> {
    code: ObjectModule,
    jobs: Vec<Job<'a>>,
    /// `<prefix>_run`.
    run: FuncId,
    /// `<prefix>_prepare`.
    prepare: Option<FuncId>,
    /// The embedded weights.
    weights: Option<DataId>,
}

fn declare<'a>(
    program: &'a Program,
    contract: &Contract,
    prologue: usize,
    profile: bool,
    target: &Target,
    isas: &'a Isas<'_>,
) -> Result<Declared<'a>, ErrorKind> {
    let isa = target.isa.as_ref();
    let builder =
        ObjectBuilder::new(target.isa.clone(), contract.prefix.as_str(), default_libcall_names())
            .map_err(bug)?;
    let mut code = ObjectModule::new(builder);
    let prefix = &contract.prefix;
    let mut kernels = SecondaryMap::new();
    let mut jobs = vec![];
    let least = program.least_versions();
    for (kernel, plan) in &program.kernels {
        let name = format!("{prefix}.{kernel:?}.{}", plan.kernel.name);
        let signature = run::kernel_signature(isa);
        let id = code.declare_function(&name, Linkage::Local, &signature).map_err(bug)?;
        kernels[kernel] = Some(id);
        jobs.push(Job {
            name,
            id,
            body: Body::of(&plan.kernel),
            isa: isas.versions[least[kernel]],
        });
    }
    let mut weights = None;
    if contract.weights_mode == WeightsMode::Embedded {
        let name = format!("{prefix}.weights");
        weights = Some(code.declare_data(&name, Linkage::Import, false, false).map_err(bug)?);
    }
    let mut processor = None;
    if target.is_fat() {
        let name = format!("{prefix}.processor");
        let signature = run::processor_signature(isa);
        let id = code.declare_function(&name, Linkage::Local, &signature).map_err(bug)?;
        jobs.push(Job { name, id, body: Body::Processor, isa: isas.first() });
        processor = Some(id);
    }
    let symbols = Symbols { kernels: &kernels, weights, processor };
    let (mut run, mut prepare) = (None, None);
    for entry in [Entry::Prepare, Entry::Run, Entry::Profiled] {
        let there = match entry {
            Entry::Prepare => contract.prepare,
            Entry::Run => true,
            Entry::Profiled => profile,
        };
        if !there {
            continue;
        }
        let (suffix, profiled) = (entry.suffix(), entry == Entry::Profiled);
        let mut versions = vec![];
        for (number, version) in target.versions().enumerate() {
            // `inspect` reads the names.
            let of = if target.is_fat() { format!("{}.", version.cpu) } else { String::new() };
            let mut parts = vec![];
            for (i, steps) in run::parts(program, entry, prologue).iter().enumerate() {
                let name = format!("{prefix}.{of}part{i}{suffix}");
                let signature = run::part_signature(isa, profiled);
                let id = code.declare_function(&name, Linkage::Local, &signature).map_err(bug)?;
                let body =
                    run::part_function(&mut code, program, &symbols, steps, number, profiled);
                let body = Body::Function(body.into());
                jobs.push(Job { name, id, body, isa: isas.versions[number] });
                parts.push(id);
            }
            let features = version.features.iter().copied();
            let needs = match target.is_fat() {
                true => x86::cpuid::bits(features).ok_or_else(|| bug("a feature without a bit"))?,
                false => 0,
            };
            versions.push(Version { needs, parts });
        }
        let name = format!("{prefix}{suffix}");
        let signature = run::run_signature(isa, profiled);
        let id = code.declare_function(&name, Linkage::Export, &signature).map_err(bug)?;
        let body = run::run_function(&mut code, contract, &symbols, &versions, entry);
        jobs.push(Job { name, id, body: Body::Function(body.into()), isa: isas.first() });
        match entry {
            Entry::Prepare => prepare = Some(id),
            Entry::Run => run = Some(id),
            Entry::Profiled => {}
        }
    }
    let (run, weights) = (run.ok_or_else(|| bug("nothing to run"))?, symbols.weights);
    Ok(Declared { code, jobs, run, prepare, weights })
}

fn bug(error: impl std::fmt::Display) -> ErrorKind {
    ErrorKind::bug(format!("code generation: {error}"))
}

struct Job<'a> {
    name: String,
    id: FuncId,
    body: Body<'a>,
    isa: &'a dyn TargetIsa,
}

enum Body<'a> {
    /// More than the four lanes of Cranelift's vectors.
    Wide(&'a kir::Kernel),
    Narrow(&'a kir::Kernel),
    Function(Box<ir::Function>),
    /// Says what the processor can do.
    Processor,
}

impl<'a> Body<'a> {
    fn of(kernel: &'a kir::Kernel) -> Body<'a> {
        if kernel.machine.vector_bytes() > 16 { Body::Wide(kernel) } else { Body::Narrow(kernel) }
    }

    /// As Cranelift IR, if it goes through Cranelift.
    fn clif(&self, isa: &dyn TargetIsa) -> Result<Option<ir::Function>, ErrorKind> {
        Ok(match self {
            Body::Wide(_) | Body::Processor => None,
            Body::Narrow(kernel) => Some(clif::emit(&checked(kernel)?, isa)),
            Body::Function(function) => Some(ir::Function::clone(function)),
        })
    }
}

fn checked(kernel: &kir::Kernel) -> Result<Checked<'_>, ErrorKind> {
    verify(kernel).map_err(|errors| bug(errors.join("; ")))
}

struct Compiled {
    bytes: Vec<u8>,
    align: u64,
    relocations: Vec<ModuleReloc>,
    listing: Option<String>,
}

/// Makes the code of one function; with `names` (of all functions, by their numbers) its text too.
fn compile(job: &Job<'_>, names: Option<&[&str]>) -> Result<Compiled, ErrorKind> {
    let isa = job.isa;
    if let Body::Processor = &job.body {
        let bytes = x86::cpuid::function().map_err(bug)?;
        let listing = names.map(|names| disassemble(&bytes, &[], names));
        return Ok(Compiled { bytes, align: 16, relocations: vec![], listing });
    }
    if let Body::Wide(kernel) = &job.body {
        let emitted = x86::emit(&checked(kernel)?, false);
        let code = &emitted.bytes[..emitted.code];
        let listing = names.map(|names| disassemble(code, &[], names));
        let (bytes, relocations) = (emitted.bytes, vec![]);
        return Ok(Compiled { bytes, align: KERNEL_ALIGN, relocations, listing });
    }
    let function = job.body.clif(isa)?.ok_or_else(|| bug("the others have no IR"))?;
    let mut context = Context::for_function(function);
    let is_x86 = isa.triple().architecture == target_lexicon::Architecture::X86_64;
    context.set_disasm(names.is_some() && !is_x86);
    let failed =
        |e: &dyn std::fmt::Debug| ErrorKind::bug(format!("Cranelift, {}: {e:?}", job.name));
    context.compile(isa, &mut ControlPlane::default()).map_err(|e| failed(&e))?;
    let compiled = context.compiled_code().ok_or_else(|| failed(&"no code"))?;
    let relocations: Vec<_> = compiled
        .buffer
        .relocs()
        .iter()
        .map(|r| ModuleReloc::from_mach_reloc(r, &context.func, job.id))
        .collect();
    // The object needs nothing from outside.
    let library = relocations.iter().find(|r| matches!(r.name, ModuleRelocTarget::LibCall(_)));
    if let Some(call) = library {
        return Err(failed(&call.name));
    }
    let bytes = compiled.code_buffer().to_vec();
    let listing = names.map(|names| match &compiled.vcode {
        Some(text) => text.clone(),
        None => disassemble(&bytes, &relocations, names),
    });
    let align = u64::from(compiled.buffer.alignment).max(16);
    Ok(Compiled { bytes, align, relocations, listing })
}

/// x86-64 code as text, with the names of what it refers to.
fn disassemble(code: &[u8], relocations: &[ModuleReloc], names: &[&str]) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    for instruction in &mut Decoder::new(64, code, DecoderOptions::NONE) {
        let _ = write!(text, "  {:6x}  ", instruction.ip());
        formatter.format(&instruction, &mut text);
        let within = instruction.ip()..instruction.next_ip();
        for relocation in relocations.iter().filter(|r| within.contains(&u64::from(r.offset))) {
            let name = match relocation.name {
                ModuleRelocTarget::User { namespace: 0, index } => names[index as usize],
                _ => "weights",
            };
            let _ = write!(text, "  ; {name}");
        }
        text.push('\n');
    }
    text
}
