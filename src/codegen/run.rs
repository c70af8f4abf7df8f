//! The functions that call the kernels, as Cranelift IR.
//!
//! `<prefix>_run(arena)` checks the arena, reads the context and calls the parts; a part fills the
//! operand table of each of its steps and calls the kernel, by the context's `parallel_for` where there
//! is one and the step is worth it. Parts have a bounded number of steps, so that no function grows
//! without bound.
//!
//! `<prefix>_run_profiled` does the same and reads a clock between the steps. `<prefix>_prepare` is there
//! when the schedule has a prologue: it calls the prologue's parts, the others do not, and notes in the
//! context that it has, without which they refuse to run.
//!
//! In a fat object each version of the target has parts of its own. Which ones are called is decided
//! by what the processor can do, which the first call notes in the context.

use super::contract::{Contract, Tensor, WeightsMode};
use super::program::{Call, Kernel, KernelInfo, Pointer, Program};
use crate::lir::Step;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self, AbiParam, FuncRef, InstBuilder, MemFlagsData, SigRef, StackSlot, StackSlotData,
    StackSlotKind, Value,
    types::{I32, I64},
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_entity::{EntityRef, SecondaryMap};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataId, FuncId, Module};

/// Steps of a part.
const PART: usize = 256;

/// `RLX_OK`, `RLX_E_NULL`, `RLX_E_ARENA_ALIGN`, `RLX_E_NO_WEIGHTS`, `RLX_E_NOT_PREPARED`,
/// `RLX_E_PROCESSOR`, `RLX_E_NO_REGION`, `RLX_E_REGION_ALIGN` and `RLX_E_NOT_BOUND` of `rlx_rt.h`.
const OK: i64 = 0;
const NULL: i64 = 1;
const MISALIGNED: i64 = 5;
const NO_WEIGHTS: i64 = 9;
const NOT_PREPARED: i64 = 19;
const PROCESSOR: i64 = 20;
const NO_REGION: i64 = 21;
const REGION_MISALIGNED: i64 = 23;
const NOT_BOUND: i64 = 24;

/// Where the context's fields are.
const CONTEXT_WEIGHTS: i32 = 0;
const CONTEXT_PARALLEL_FOR: i32 = 8;
const CONTEXT_ARGUMENT: i32 = 16;
const CONTEXT_PREPARED: i32 = 24;
const CONTEXT_PROCESSOR: i32 = 32;
pub(super) const CONTEXT_REGION: i32 = 40;

/// The arena is the caller's, but that it can be read at all is the caller's promise.
const FLAGS: MemFlagsData = MemFlagsData::trusted();

/// What the functions refer to.
pub(super) struct Symbols<'a> {
    /// The functions of the kernels.
    pub(super) kernels: &'a SecondaryMap<Kernel, Option<FuncId>>,
    /// The embedded weights.
    pub(super) weights: Option<DataId>,
    /// Of a fat object: the function that says what the processor can do.
    pub(super) processor: Option<FuncId>,
}

/// The parts of one version of the target.
pub(super) struct Version {
    /// What the processor must be able to do, as [`x86::cpuid`](super::x86::cpuid) says it.
    pub(super) needs: u64,
    pub(super) parts: Vec<FuncId>,
}

/// A function that a program calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// `<prefix>_prepare`.
    Prepare,
    /// `<prefix>_run`.
    Run,
    /// `<prefix>_run_profiled`.
    Profiled,
}

impl Entry {
    /// What its name ends with.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Entry::Prepare => "_prepare",
            Entry::Run => "_run",
            Entry::Profiled => "_run_profiled",
        }
    }
}

/// The steps of each part of an entry's, in a schedule whose first `prologue` steps are prepared.
pub(super) fn parts(program: &Program, entry: Entry, prologue: usize) -> Vec<Vec<Step>> {
    let called = program.calls.iter().filter(|(_, call)| call.is_some()).map(|(step, _)| step);
    let (first, rest): (Vec<Step>, Vec<Step>) = called.partition(|step| step.index() < prologue);
    let called = if entry == Entry::Prepare { first } else { rest };
    called.chunks(PART).map(<[Step]>::to_vec).collect()
}

/// `int32_t run(void *arena)`, and with `profiled` also `uint64_t (*now)(void *), void *argument,
/// uint64_t *nanoseconds`.
pub(super) fn run_signature(isa: &dyn TargetIsa, profiled: bool) -> ir::Signature {
    let mut signature = signature(isa, if profiled { 4 } else { 1 });
    signature.returns.push(AbiParam::new(I32).sext());
    signature
}

/// `void part(arena, weights, parallel_for, argument)`, and with `profiled` the same three.
pub(super) fn part_signature(isa: &dyn TargetIsa, profiled: bool) -> ir::Signature {
    signature(isa, if profiled { 7 } else { 4 })
}

/// `void kernel(table, begin, end)`.
pub(super) fn kernel_signature(isa: &dyn TargetIsa) -> ir::Signature {
    signature(isa, 3)
}

fn signature(isa: &dyn TargetIsa, parameters: usize) -> ir::Signature {
    let mut signature = ir::Signature::new(isa.default_call_conv());
    signature.params = vec![AbiParam::new(I64); parameters];
    signature
}

/// `uint64_t processor(void)`.
pub(super) fn processor_signature(isa: &dyn TargetIsa) -> ir::Signature {
    let mut signature = signature(isa, 0);
    signature.returns.push(AbiParam::new(I64));
    signature
}

/// The body of an entry, for one or several versions of the target.
pub(super) fn run_function(
    module: &mut impl Module,
    contract: &Contract,
    symbols: &Symbols<'_>,
    versions: &[Version],
    entry: Entry,
) -> ir::Function {
    let mut function = ir::Function::new();
    function.signature = run_signature(module.isa(), entry == Entry::Profiled);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let start = b.create_block();
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    let parameters = b.block_params(start).to_vec();
    let arena = parameters[0];
    return_if(&mut b, NULL, |b| b.ins().icmp_imm_s(IntCC::Equal, arena, 0));
    return_if(&mut b, MISALIGNED, |b| {
        let low = b.ins().band_imm_s(arena, contract.arena_align as i64 - 1);
        b.ins().icmp_imm_s(IntCC::NotEqual, low, 0)
    });
    let weights = match contract.weights_mode {
        WeightsMode::None => b.ins().iconst(I64, 0),
        WeightsMode::Arena => b.ins().iadd_imm_s(arena, contract.weights_offset as i64),
        WeightsMode::External => {
            let weights = b.ins().load(I64, FLAGS, arena, CONTEXT_WEIGHTS);
            return_if(&mut b, NO_WEIGHTS, |b| b.ins().icmp_imm_s(IntCC::Equal, weights, 0));
            weights
        }
        WeightsMode::Embedded => {
            let bound = b.ins().load(I64, FLAGS, arena, CONTEXT_WEIGHTS);
            let embedded = embedded_weights(&mut b, symbols);
            let none = b.ins().icmp_imm_s(IntCC::Equal, bound, 0);
            b.ins().select(none, embedded, bound)
        }
    };
    if contract.prepare && entry != Entry::Prepare {
        return_if(&mut b, NOT_PREPARED, |b| {
            let prepared = b.ins().load(I64, FLAGS, arena, CONTEXT_PREPARED);
            b.ins().icmp_imm_s(IntCC::Equal, prepared, 0)
        });
    }
    if contract.region_size > 0 {
        let region = b.ins().load(I64, FLAGS, arena, CONTEXT_REGION);
        return_if(&mut b, NO_REGION, |b| b.ins().icmp_imm_s(IntCC::Equal, region, 0));
        return_if(&mut b, REGION_MISALIGNED, |b| {
            let low = b.ins().band_imm_s(region, contract.arena_align as i64 - 1);
            b.ins().icmp_imm_s(IntCC::NotEqual, low, 0)
        });
    }
    // What is prepared depends on parameters only, and is no output outside.
    let bound = match entry {
        Entry::Prepare => vec![&contract.params],
        Entry::Run | Entry::Profiled => {
            vec![&contract.params, &contract.inputs, &contract.outputs]
        }
    };
    let bound = bound.into_iter().flatten().filter_map(Tensor::pointer);
    let mut missing: Option<Value> = None;
    for place in bound {
        let pointer = b.ins().load(I64, FLAGS, arena, place as i32);
        let null = b.ins().icmp_imm_s(IntCC::Equal, pointer, 0);
        missing = Some(missing.map_or(null, |all| b.ins().bor(all, null)));
    }
    if let Some(missing) = missing {
        return_if(&mut b, NOT_BOUND, |_| missing);
    }
    let parallel_for = b.ins().load(I64, FLAGS, arena, CONTEXT_PARALLEL_FOR);
    let argument = b.ins().load(I64, FLAGS, arena, CONTEXT_ARGUMENT);
    let mut arguments = vec![arena, weights, parallel_for, argument];
    arguments.extend(&parameters[1..]);
    let done = b.create_block();
    let processor = symbols.processor.map(|f| known_processor(module, &mut b, f, arena));
    for version in versions {
        let otherwise = processor.map(|processor| {
            let (this, otherwise) = (b.create_block(), b.create_block());
            let needs = b.ins().iconst(I64, version.needs as i64);
            let has = b.ins().band(processor, needs);
            let all = b.ins().icmp(IntCC::Equal, has, needs);
            b.ins().brif(all, this, &[], otherwise, &[]);
            b.switch_to_block(this);
            otherwise
        });
        for &part in &version.parts {
            let part = module.declare_func_in_func(part, b.func);
            b.ins().call(part, &arguments);
        }
        b.ins().jump(done, &[]);
        if let Some(otherwise) = otherwise {
            b.switch_to_block(otherwise);
        }
    }
    if processor.is_some() {
        let status = b.ins().iconst(I32, PROCESSOR);
        b.ins().return_(&[status]);
    }
    b.switch_to_block(done);
    if entry == Entry::Prepare {
        let yes = b.ins().iconst(I64, 1);
        b.ins().store(FLAGS, yes, arena, CONTEXT_PREPARED);
    }
    let ok = b.ins().iconst(I32, OK);
    b.ins().return_(&[ok]);
    b.seal_all_blocks();
    b.finalize(module.isa().frontend_config());
    function
}

/// What the processor can do: from the context, where the first call notes what `function` says.
fn known_processor(
    module: &mut impl Module,
    b: &mut FunctionBuilder<'_>,
    function: FuncId,
    arena: Value,
) -> Value {
    let (ask, known) = (b.create_block(), b.create_block());
    let answer = b.append_block_param(known, I64);
    let noted = b.ins().load(I64, FLAGS, arena, CONTEXT_PROCESSOR);
    b.ins().brif(noted, known, &[noted.into()], ask, &[]);
    b.switch_to_block(ask);
    b.set_cold_block(ask);
    let function = module.declare_func_in_func(function, b.func);
    let call = b.ins().call(function, &[]);
    let found = b.inst_results(call)[0];
    b.ins().store(FLAGS, found, arena, CONTEXT_PROCESSOR);
    b.ins().jump(known, &[found.into()]);
    b.switch_to_block(known);
    answer
}

fn return_if(
    b: &mut FunctionBuilder<'_>,
    status: i64,
    test: impl Fn(&mut FunctionBuilder<'_>) -> Value,
) {
    let (wrong, right) = (b.create_block(), b.create_block());
    let condition = test(b);
    b.ins().brif(condition, wrong, &[], right, &[]);
    b.switch_to_block(wrong);
    b.set_cold_block(wrong);
    let status = b.ins().iconst(I32, status);
    b.ins().return_(&[status]);
    b.switch_to_block(right);
}

/// The address of the embedded weights, which are in the same object.
fn embedded_weights(b: &mut FunctionBuilder<'_>, symbols: &Symbols<'_>) -> Value {
    let data = symbols.weights.expect("embedded weights have a symbol");
    let name = ir::UserExternalName { namespace: 1, index: data.as_u32() };
    let name = b.func.declare_imported_user_function(name);
    let symbol = b.create_global_value(ir::GlobalValueData::Symbol {
        name: ir::ExternalName::user(name),
        offset: 0.into(),
        colocated: true,
        tls: false,
    });
    b.ins().symbol_value(I64, symbol)
}

/// The body of a part, for the n-th version of the target.
pub(super) fn part_function(
    module: &mut impl Module,
    program: &Program,
    symbols: &Symbols<'_>,
    steps: &[Step],
    version: usize,
    profiled: bool,
) -> ir::Function {
    let mut function = ir::Function::new();
    function.signature = part_signature(module.isa(), profiled);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let parameters = b.block_params(entry).to_vec();
    let calls = || steps.iter().filter_map(|&step| Some((step, program.calls[step].as_ref()?)));
    let longest = calls().map(|(_, call)| call.table.len()).max().unwrap_or(0) as u32;
    let table =
        b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, longest * 8, 3));
    let parallel_for = signature(module.isa(), 5);
    let parallel_for = b.import_signature(parallel_for);
    let mut now = signature(module.isa(), 1);
    now.returns.push(AbiParam::new(I64));
    let now = b.import_signature(now);
    let in_region = |pointer: &Pointer| matches!(pointer, Pointer::Fast(_));
    // The entry has made sure that it is there.
    let region = match calls().any(|(_, call)| call.table.iter().any(in_region)) {
        true => b.ins().load(I64, FLAGS, parameters[0], CONTEXT_REGION),
        false => parameters[0],
    };
    let mut e = PartEmitter { b, parameters, region, table, parallel_for, now };
    let mut time = profiled.then(|| e.read_clock());
    for (step, call) in calls() {
        let kernel = call.kernels[version];
        let function = symbols.kernels[kernel].expect("every kernel is declared");
        let function = module.declare_func_in_func(function, e.b.func);
        e.call(&program.kernels[kernel], call, function);
        time = time.map(|before| e.add_time(step, before));
    }
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(module.isa().frontend_config());
    function
}

struct PartEmitter<'a> {
    b: FunctionBuilder<'a>,
    /// Of the part's signature.
    parameters: Vec<Value>,
    /// Where the second memory is, if a call has an operand in it.
    region: Value,
    table: StackSlot,
    parallel_for: SigRef,
    now: SigRef,
}

impl PartEmitter<'_> {
    fn call(&mut self, plan: &KernelInfo, call: &Call, kernel: FuncRef) {
        for (i, pointer) in call.table.iter().enumerate() {
            let address = match *pointer {
                Pointer::Arena(offset) => self.b.ins().iadd_imm_s(self.parameters[0], offset),
                Pointer::Weights(offset) => self.b.ins().iadd_imm_s(self.parameters[1], offset),
                Pointer::Outside { pointer, offset } => {
                    let arena = self.parameters[0];
                    let start = self.b.ins().load(I64, FLAGS, arena, pointer as i32);
                    self.b.ins().iadd_imm_s(start, offset)
                }
                Pointer::Fast(offset) => self.b.ins().iadd_imm_s(self.region, offset),
            };
            self.b.ins().stack_store(I64, address, self.table, i as i32 * 8);
        }
        let extent = plan.kernel.range.extent;
        let table = self.b.ins().stack_addr(I64, self.table, 0);
        let extent_value = self.b.ins().iconst(I64, extent);
        let zero = self.b.ins().iconst(I64, 0);
        if plan.grain >= extent {
            self.b.ins().call(kernel, &[table, zero, extent_value]);
            return;
        }
        let [parallel, alone, done] = [(); 3].map(|()| self.b.create_block());
        let (parallel_for, argument) = (self.parameters[2], self.parameters[3]);
        self.b.ins().brif(parallel_for, parallel, &[], alone, &[]);
        self.b.switch_to_block(parallel);
        let body = self.b.ins().func_addr(I64, kernel);
        let grain = self.b.ins().iconst(I64, plan.grain);
        let arguments = [argument, body, table, extent_value, grain];
        self.b.ins().call_indirect(self.parallel_for, parallel_for, &arguments);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(alone);
        self.b.ins().call(kernel, &[table, zero, extent_value]);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
    }

    fn read_clock(&mut self) -> Value {
        let (now, argument) = (self.parameters[4], self.parameters[5]);
        let call = self.b.ins().call_indirect(self.now, now, &[argument]);
        self.b.inst_results(call)[0]
    }

    /// Adds what has passed since `before` to the step's time; gives the time now.
    fn add_time(&mut self, step: Step, before: Value) -> Value {
        let after = self.read_clock();
        let (nanoseconds, offset) = (self.parameters[6], step.as_u32() as i32 * 8);
        let passed = self.b.ins().isub(after, before);
        let sum = self.b.ins().load(I64, FLAGS, nanoseconds, offset);
        let sum = self.b.ins().iadd(sum, passed);
        self.b.ins().store(FLAGS, sum, nanoseconds, offset);
        after
    }
}
