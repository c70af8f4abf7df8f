//! The way of a model from its file to an object, and what may be chosen on it.

mod over;

use crate::codegen::program::KernelInfo;
use crate::codegen::{self, EmitOptions, Object, Program, Target, WeightsMode};
use crate::error::{ErrorKind, Errors};
use crate::fit::{self, Bands, Fitted, Offer, Price};
use crate::front::Source;
use crate::front::rlx::{Plan, Slot};
use crate::hir::{self, Checked};
use crate::kernels::{self, KernelPlan};
use crate::machine::Machine;
use crate::passes::integers::{self, Dequantized};
use crate::passes::widen;
use crate::passes::{self, Filtering, Level};
use crate::{lir, lower, mir};
use over::Kernels;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// All that may be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much is done to make the model fast.
    pub level: Level,
    /// Which convolutions are done by minimal filtering.
    pub filtering: Filtering,
    /// Where chains of steps are computed in bands of rows, and steps again that are read late.
    pub bands: Bands,
    /// How products of what was dequantized are computed.
    pub dequantized: Dequantized,
    /// Values of symbolic dimensions.
    pub dims: BTreeMap<String, usize>,
    /// What may be spent on constants.
    pub limits: hir::Limits,
    /// Inputs, and outputs that are cut to their last elements, as many as the input has ([`hir::window`]). They are
    /// states of the plan as well.
    pub windows: Vec<(String, String)>,
    /// Of the plan. Whether the weights are in the arena follows from `weights`, and views are aliases
    /// unless `level` is [`Level::None`].
    pub plan: lir::Options,
    /// The most bytes that the arena may have ([`crate::codegen::contract::Contract::arena_size`]). What does not fit is
    /// computed in bands, at the cost of time.
    pub max_arena: Option<u64>,
    /// Where the weights are. (There may be none.)
    pub weights: WeightsMode,
    /// Whether threads may share the work. Where none do, results lie over operands that die wherever the arena is smaller
    /// for it ([`lir::over`]).
    pub threads: bool,
    /// The target triple; else this machine.
    pub target: Option<String>,
    /// The CPU; else `native` on this machine and `generic` elsewhere.
    pub cpu: Option<String>,
    /// Features that are added and removed: `+avx2,-fma`.
    pub features: Option<String>,
    /// Of every symbol.
    pub prefix: String,
    /// Add `<prefix>_run_profiled`.
    pub profile: bool,
    /// Keep the assembler text.
    pub listing: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            level: Level::Speed,
            filtering: Filtering::default(),
            bands: Bands::default(),
            dequantized: Dequantized::default(),
            dims: BTreeMap::new(),
            limits: hir::Limits::default(),
            windows: vec![],
            plan: lir::Options::default(),
            max_arena: None,
            weights: WeightsMode::Embedded,
            threads: true,
            target: None,
            cpu: None,
            features: None,
            prefix: "model".to_owned(),
            profile: false,
            listing: false,
        }
    }
}

/// How long it took, for people: nothing else depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// To find all types and to make the graph better.
    pub passes: Duration,
    /// To put its steps in order, some of them in bands, and to place what they need.
    pub planning: Duration,
}

/// A model at every stage of its way.
#[derive(Debug)]
pub struct Compiled {
    /// What it was made for.
    pub target: Target,
    /// The model as written, with types.
    pub checked: Checked,
    /// After all passes.
    pub mir: mir::Graph,
    /// Scheduled and placed.
    pub module: lir::Module,
    /// What it cost to fit into the arena that was asked for; `None` if nothing.
    pub price: Option<Price>,
    /// The kernels and their calls.
    pub program: Program,
    /// The object file.
    pub object: Object,
    /// All files that the model was read from.
    pub files: Vec<PathBuf>,
    /// How long it took to come to the plan.
    pub times: Times,
}

/// Compiles a model.
///
/// # Errors
///
/// All that is wrong with the model or the options, and what is not supported.
pub fn compile(source: Source, options: &Options) -> Result<Compiled, Errors> {
    Placed::new(source, options)?.compile(options)
}

/// A model before there is code for it.
#[derive(Debug)]
pub struct Placed {
    target: Target,
    checked: Checked,
    mir: mir::Graph,
    /// Scheduled and placed.
    pub module: lir::Module,
    price: Option<Price>,
    files: Vec<PathBuf>,
    times: Times,
}

impl Placed {
    /// A model with its plan.
    ///
    /// # Errors
    ///
    /// As [`compile`].
    pub fn new(source: Source, options: &Options) -> Result<Placed, Errors> {
        let Source { graph, files, plan } = source;
        let target = target(options)?;
        let start = Instant::now();
        let checked = checked(graph, options)?;
        let (fitted, times) = lowered(&checked, plan.as_ref(), options, &target, start)?;
        let Fitted { graph: mir, module, price } = fitted;
        Ok(Placed { target, checked, mir, module, price, files, times })
    }

    /// With its code; `options` are those that it was placed with.
    ///
    /// # Errors
    ///
    /// As [`emit`].
    pub fn compile(self, options: &Options) -> Result<Compiled, Errors> {
        let Placed { target, checked, mir, module, price, files, times } = self;
        let (program, object) = emit(&module, options, &target)?;
        Ok(Compiled { target, checked, mir, module, price, program, object, files, times })
    }
}

/// The kernels of a module, and its object.
///
/// # Errors
///
/// What is not supported on the target, weights that are too large to be embedded, and a prefix that
/// is none.
pub fn emit(
    module: &lir::Module,
    options: &Options,
    target: &Target,
) -> Result<(Program, Object), Errors> {
    let machines: Vec<Machine> = target.versions().map(|version| version.machine).collect();
    let build = |steps: &[&lir::StepInfo], machine: &Machine, name: &str| {
        let KernelPlan { kernel, mut grain, work } = kernels::build(steps, machine, name)?;
        if !options.threads {
            grain = kernel.range.extent.max(1);
        }
        Ok(KernelInfo { kernel, grain, work })
    };
    codegen::weights::make(module);
    let program = codegen::select(module, &machines, kernels::abreast, kernels::key, build)?;
    let emit = EmitOptions {
        prefix: options.prefix.clone(),
        external: options.weights == WeightsMode::External,
        fingerprint: lir::fingerprint::fingerprint(module, &options.context(target)),
        profile: options.profile,
        listing: options.listing,
    };
    let object = codegen::emit(module, &program, &emit, target)?;
    Ok((program, object))
}

/// Only schedules and places.
///
/// # Errors
///
/// As [`compile`].
pub fn plan(source: Source, options: &Options) -> Result<(Fitted, Times), Errors> {
    let target = target(options)?;
    let start = Instant::now();
    let checked = checked(source.graph, options)?;
    Ok(lowered(&checked, source.plan.as_ref(), options, &target, start)?)
}

/// The graph with its types, outputs that are windows cut.
fn checked(graph: hir::Graph, options: &Options) -> Result<Checked, Errors> {
    let check = |graph| hir::check::check(graph, &options.dims, options.limits);
    let checked = check(graph)?;
    if options.windows.is_empty() {
        return Ok(checked);
    }
    check(hir::window::cut(&checked, &options.windows)?)
}

/// What half of the arena would cost, or what comes nearest to it ([`fit::offer()`]); `None` where a limit is asked for
/// already, and where bands of rows lower nothing.
///
/// # Errors
///
/// As [`compile`].
pub fn offer(fitted: &Fitted, options: &Options) -> Result<Option<Offer>, Errors> {
    if options.max_arena.is_some() || options.level == Level::None {
        return Ok(None);
    }
    let machine = target(options)?.machine;
    let goal = fitted.module.plan.arena_size / 2;
    Ok(fit::offer(fitted, &options.plan(), &machine, goal)?)
}

/// To a placed module; with the file's plan, every operator by itself, since the plan is of those. The passes began at
/// `start`.
fn lowered(
    checked: &Checked,
    plan: Option<&Plan>,
    options: &Options,
    target: &Target,
    start: Instant,
) -> Result<(Fitted, Times), ErrorKind> {
    let machine = &target.machine;
    let level = if plan.is_some() { Level::None } else { options.level };
    let mut mir = lower::expand(checked);
    if level != Level::None {
        mir = integers::find(widen::widen(mir), options.dequantized, machine);
    }
    let mir = passes::run(mir, level, options.filtering, machine);
    let passes = start.elapsed();
    let fitted = planned(mir, plan, level, options, target)?;
    Ok((fitted, Times { passes, planning: start.elapsed() - passes }))
}

/// To a placed module, of what the passes have made.
fn planned(
    mir: mir::Graph,
    plan: Option<&Plan>,
    level: Level,
    options: &Options,
    target: &Target,
) -> Result<Fitted, ErrorKind> {
    let machines: Vec<Machine> = target.versions().map(|version| version.machine).collect();
    let kernels = Kernels::new(&machines);
    let over = |module, all: bool| kernels.overlap(module, all || !options.threads);
    // Of the arena as the program sees it.
    let limit = options.max_arena.map(|bytes| bytes.saturating_sub(lir::SLACK_BYTES));
    let module = match plan {
        None if level == Level::None => lir::lower(&mir, options.plan())?,
        None => {
            let Options { bands, .. } = *options;
            return fit::fit(mir, &options.plan(), &target.machine, bands, limit, &over);
        }
        Some(plan) if plan.alignment < 16 => {
            let found = plan.alignment;
            let kind = ErrorKind::unsupported(format!("the plan in the file aligns to {found}"));
            return Err(kind.help("leave out --plan keep: it is then planned anew"));
        }
        Some(plan) => {
            let slot = |(node, slot): (&usize, &Slot)| {
                Some((plan.nodes.get(*node)?.name.clone(), (slot.offset, slot.size)))
            };
            // Views are in another tensor's slot, and are copied out of it here.
            let own = plan.slots.iter().filter(|(node, _)| !plan.views.contains_key(node));
            let slots = own.filter_map(slot).collect();
            let kept = lir::place::Kept { slots, arena_size: plan.arena_size };
            let options = lir::Options { alignment: plan.alignment, ..options.plan() };
            lir::lower_kept(&mir, options, &kept)?
        }
    };
    if let Some(limit) = limit.filter(|&limit| module.plan.arena_size > limit) {
        return Err(fit::refused(&module, limit));
    }
    Ok(Fitted { graph: mir, module, price: None })
}

/// The target of these options.
///
/// # Errors
///
/// As [`Target::new`].
pub fn target(options: &Options) -> Result<Target, ErrorKind> {
    let Options { target, cpu, features, .. } = options;
    Target::new(target.as_deref(), cpu.as_deref(), features.as_deref())
}

impl Options {
    fn plan(&self) -> lir::Options {
        lir::Options {
            weights_in_arena: self.weights == WeightsMode::Arena,
            alias: self.level != Level::None,
            states: self.plan.states.iter().chain(&self.windows).cloned().collect(),
            ..self.plan.clone()
        }
    }

    /// What changes the object besides the module.
    fn context(&self, target: &Target) -> String {
        let Options { prefix, filtering, bands, weights, profile, threads, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "rlx-aot {version} {} {prefix} {filtering:?} {bands:?} {weights} {profile} {threads}",
            target.describe()
        )
    }
}

impl Compiled {
    /// The C header.
    pub fn header(&self) -> String {
        let Object { contract, profile, steps, .. } = &self.object;
        codegen::header::text(contract, profile.then_some(*steps))
    }

    /// What the object promises and is made of, as JSON.
    pub fn manifest(&self) -> serde_json::Value {
        codegen::manifest::object(&self.object, &self.target)
    }

    /// Writes the file of weights, if the model waits for one.
    pub fn weights_file(&self) -> Option<impl Fn(&mut dyn io::Write) -> io::Result<()> + '_> {
        let contract = &self.object.contract;
        let big_endian = self.target.big_endian();
        contract.weights_mode.has_file().then_some(move |to: &mut dyn io::Write| {
            codegen::weights::write_file(&self.module, contract, big_endian, to)
        })
    }

    /// The Cranelift IR of all functions that go through Cranelift.
    ///
    /// # Errors
    ///
    /// As [`codegen::emit`].
    pub fn clif(&self) -> Result<String, ErrorKind> {
        let Object { contract, profile, .. } = &self.object;
        let prologue = self.module.plan.prologue;
        codegen::module::clif_text(&self.program, contract, prologue, *profile, &self.target)
    }
}
