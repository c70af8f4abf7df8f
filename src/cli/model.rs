//! What all commands that take a model have in common: which model, compiled how.

use super::params;
use super::progress::Progress;
use clap::ValueEnum;
use rlx_aot::codegen::WeightsMode;
use rlx_aot::compile::{self, Compiled, Options};
use rlx_aot::error::{ErrorKind, Errors};
use rlx_aot::fit;
use rlx_aot::front::{self, ReadOptions, Source};
use rlx_aot::lir;
use rlx_aot::lir::region::Region;
use rlx_aot::passes::integers::Dequantized;
use rlx_aot::passes::{Filtering, Level};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The model and how it is compiled.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Args {
    /// The model: ONNX, JSON of this project (`rlx-aot schema`), or a module or graph of RLX.
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// The value of a symbolic dimension; may be repeated.
    #[arg(long = "dim", value_name = "NAME=N")]
    pub(crate) dims: Vec<String>,
    /// Values of the model's parameters, as a safetensors file. [default: set at run time]
    #[arg(long, value_name = "FILE")]
    pub(crate) params: Option<PathBuf>,
    /// How many rows NonMaxSuppression gives in an ONNX model: rows of -1 behind those of the boxes that it chooses, or
    /// the ones with the highest scores. Without it, how many there are is known only at run time, which is refused.
    #[arg(long, value_name = "N")]
    selections: Option<usize>,
    /// 0: every operator by itself, as written; 1: everything that makes it fast.
    #[arg(short = 'O', value_name = "LEVEL", default_value = "1", default_missing_value = "1", num_args = 0..=1, value_parser = ["0", "1"])]
    level: String,
    /// Minimal filtering (Winograd) of convolutions with few taps: where it is faster, or nowhere.
    #[arg(long, value_enum, default_value_t = Winograd::Auto, value_name = "WHERE")]
    winograd: Winograd,
    /// Chains of steps that are computed in bands of rows, so that what lies between them is never there whole; and
    /// steps that are computed again where they are read late, so that what they make is not kept meanwhile.
    #[arg(long, value_enum, default_value_t = Bands::Auto, value_name = "WHERE")]
    bands: Bands,
    /// Products of numbers that DequantizeLinear has just made of 8-bit integers: sums of the integers where that
    /// is possible, or of the floats as written.
    #[arg(long, value_enum, default_value_t = Quantized::Auto, value_name = "HOW")]
    dequantized: Quantized,
    /// The machine to compile for, as a target triple. [default: this one]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// The processor: native, generic, a level such as x86-64-v3, or a name such as haswell, znver4, cortex-a72. Several,
    /// as x86-64-v2,x86-64-v3,x86-64-v4, make an object with as many versions of its kernels, which takes the best one
    /// that the processor can run. An unknown name prints all. [default: native here, generic elsewhere]
    #[arg(long, value_name = "CPU[,CPU...]")]
    cpu: Option<String>,
    /// Features of the processor that are added or taken away: +avx2,-fma. An unknown name prints all.
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    features: Option<String>,
    /// Where the weights are: in the object, in a slot of the arena, or in a file beside the object.
    #[arg(long, value_enum, default_value_t = Weights::Embed)]
    weights: Weights,
    /// What the names of all symbols start with. [default: from the output's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) prefix: Option<String>,
    /// Alignment of every slot and of the arena, a power of two.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    align: u64,
    /// Give every tensor bytes of its own (for debugging).
    #[arg(long)]
    no_reuse: bool,
    /// Let an output become an input of the next run: both are one buffer, which lives between runs and is zero at
    /// first (hidden states of a recurrent network, caches of a decoder). May be repeated.
    #[arg(long = "state", value_name = "INPUT=OUTPUT")]
    states: Vec<String>,
    /// As --state, for an output that is longer than the input along one axis (a decoder's present, which is its past
    /// and a row more): its last elements become the input of the next run, and are what the output is cut to. The
    /// rows that no run has filled yet are zero, and are the model's mask to leave out. May be repeated.
    #[arg(long = "window", value_name = "INPUT=OUTPUT")]
    windows: Vec<String>,
    /// Put parameters where another plan has those of the same names, so that both models (one that trains, one that
    /// infers) find them at the same bytes: the manifest, `lir-json` or `plan --json` of the other. To run both in
    /// one arena, build both with --no-prepare and embedded weights.
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    share_params: Option<PathBuf>,
    /// What has no slot in the arena but is the program's own memory, whose address is written into the arena: inputs,
    /// outputs, params. (Constants: --weights.)
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    outside: Vec<Outside>,
    /// A second, faster memory of this size (bytes, or with K, M): the most touched temporaries lie there, as many as
    /// fit. The program gives its address in the arena's context. It is of no value between runs; with ",keep" nobody
    /// else writes to it, and what was prepared from parameters may lie there too.
    #[arg(long, value_name = "NAME=BYTES[,keep]")]
    region: Option<String>,
    /// Let a run overwrite its inputs once it has read them: the arena is smaller, and inputs are set before every run.
    /// [default: inputs keep their values]
    #[arg(long)]
    pub(crate) overwrite_inputs: bool,
    /// Keep so many bytes free behind every input, output and state: no other tensor lies there while it is
    /// alive, and no step reads or writes them, so that a program that does is found (rlx_check_guards). [default: 0]
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    guard: u64,
    /// Give every tensor at least 4 bytes for each element, whatever its type, as RLX's uniform slots do (the
    /// tensor itself lies dense at its slot's start).
    #[arg(long)]
    uniform_slots: bool,
    /// The most bytes that the arena may have: 3400000, 256K, 3.3M (K is 1024). What does not fit is
    /// written over operands that are not needed any more, by one thread; then computed in bands of rows, and
    /// what waits is computed again, which costs time.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    max_arena: Option<u64>,
    /// Share no work among threads: where a result can be written over an operand that is not needed any more, row
    /// by row, the arena is smaller for it. [default: work that takes long is shared, and only the rest in so
    /// little room]
    #[arg(long)]
    no_threads: bool,
    /// Compute everything in every run, also what depends on parameters only. [default: that once, by <prefix>_prepare]
    #[arg(long)]
    no_prepare: bool,
    /// Make a new plan, or keep the one in the file (RLX modules have one).
    #[arg(long, value_enum, default_value_t = Plan::New)]
    plan: Plan,
    /// How many steps (looks at a tensor, about 80 ns each) the search for a smaller arena may take, where
    /// it is not known to be the smallest. [default: 1000000]
    #[arg(long, value_name = "STEPS")]
    pub(crate) plan_budget: Option<u64>,
}

/// Bytes, with a suffix or without.
fn size(text: &str) -> Result<u64, String> {
    let units = [("K", 10), ("M", 20), ("G", 30)];
    let upper = text.to_ascii_uppercase();
    let found = units.iter().find_map(|&(unit, bits)| Some((upper.strip_suffix(unit)?, bits)));
    let (number, bits) = found.unwrap_or((&upper, 0));
    let number = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    let bytes = number.map(|n| n * (1u64 << bits) as f64).filter(|n| *n < 9e18);
    bytes.map(|n| n as u64).ok_or_else(|| "a size is 3400000, 256K, 3.3M or 1G".to_owned())
}

/// Where the weights are.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Weights {
    /// In the object.
    Embed,
    /// In a slot of the arena; the runtime copies them in once.
    Arena,
    /// In a file that the runtime maps.
    External,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Outside {
    /// Bound anew where they change.
    Inputs,
    /// Written where the program wants them.
    Outputs,
    /// Parameters that are set at run time.
    Params,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Winograd {
    /// Where it is faster.
    Auto,
    /// Nowhere: sums are rounded as they are in direct convolutions.
    Off,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Bands {
    /// Where the arena is smaller for it and the run takes no longer.
    Auto,
    /// Only where --max-arena asks for it.
    Off,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Quantized {
    /// Sums of integers where that is faster.
    Auto,
    /// Exact sums of 8-bit products, scaled once.
    Integers,
    /// Floats, rounded at every step.
    Floats,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    New,
    Keep,
}

impl Args {
    /// Reads the model.
    ///
    /// # Errors
    ///
    /// As [`front::read`].
    pub(crate) fn read(&self, progress: &Progress) -> Result<Source, Errors> {
        progress.phase("reading");
        front::read(
            &self.model,
            &ReadOptions {
                params: self.params.clone(),
                keep_plan: self.plan == Plan::Keep,
                selections: self.selections,
            },
        )
    }

    /// The options; `stem` is what the prefix is made of where none is given.
    ///
    /// # Errors
    ///
    /// A value that is out of range.
    pub(crate) fn options(&self, stem: &str) -> Result<Options, ErrorKind> {
        let mut options =
            Options { prefix: rlx_aot::codegen::contract::prefix_of(stem), ..Options::default() };
        if let Some(prefix) = &self.prefix {
            if !rlx_aot::codegen::contract::is_prefix(prefix) {
                let kind = ErrorKind::usage(format!("the prefix \"{prefix}\" is no C identifier"));
                return Err(kind.help("letters, digits and underscores, not a digit first"));
            }
            options.prefix.clone_from(prefix);
        }
        if !self.align.is_power_of_two() || !(16..=1 << 20).contains(&self.align) {
            let kind = ErrorKind::usage(format!("--align {}", self.align));
            return Err(kind.help("it must be a power of two, at least 16 and at most 1048576"));
        }
        options.level = if self.level == "0" { Level::None } else { Level::Speed };
        options.dequantized = match self.dequantized {
            Quantized::Auto => Dequantized::Auto,
            Quantized::Integers => Dequantized::Integers,
            Quantized::Floats => Dequantized::Floats,
        };
        options.filtering = match self.winograd {
            Winograd::Auto => Filtering::Auto,
            Winograd::Off => Filtering::Off,
        };
        options.bands = match self.bands {
            Bands::Auto => fit::Bands::Auto,
            Bands::Off => fit::Bands::Off,
        };
        options.dims = self.bindings()?;
        options.plan.alignment = self.align;
        options.plan.no_reuse = self.no_reuse;
        options.max_arena = self.max_arena;
        options.threads = !self.no_threads;
        options.plan.prepare = !self.no_prepare;
        if self.guard > 1 << 30 {
            let kind = ErrorKind::usage(format!("--guard {}", self.guard));
            return Err(kind.help("at most 1073741824 bytes"));
        }
        let pair = |option: &str, text: &String| match text.split_once('=') {
            Some((input, output)) => Ok((input.to_owned(), output.to_owned())),
            None => {
                let kind = ErrorKind::usage(format!("--{option} {text} names no output"));
                Err(kind.help(format!("write --{option} INPUT=OUTPUT")))
            }
        };
        let pairs = |option: &str, list: &[String]| {
            list.iter().map(|text| pair(option, text)).collect::<Result<_, _>>()
        };
        options.plan.states = pairs("state", &self.states)?;
        options.windows = pairs("window", &self.windows)?;
        if let Some(path) = &self.share_params {
            options.plan.parameters = params::read(path)?;
        }
        let outside = |kind: Outside| self.outside.contains(&kind);
        options.plan.outside = lir::Outside {
            inputs: outside(Outside::Inputs),
            outputs: outside(Outside::Outputs),
            parameters: outside(Outside::Params),
        };
        options.plan.region = self.region.as_deref().map(region).transpose()?;
        options.plan.guard = self.guard;
        options.plan.overwrite_inputs = self.overwrite_inputs;
        options.plan.uniform = self.uniform_slots;
        options.plan.budget = self.plan_budget.unwrap_or(options.plan.budget);
        options.weights = match self.weights {
            Weights::Embed => WeightsMode::Embedded,
            Weights::Arena => WeightsMode::Arena,
            Weights::External => WeightsMode::External,
        };
        options.target.clone_from(&self.target);
        options.cpu.clone_from(&self.cpu);
        options.features.clone_from(&self.features);
        Ok(options)
    }

    fn bindings(&self) -> Result<BTreeMap<String, usize>, ErrorKind> {
        let mut bindings = BTreeMap::new();
        for text in &self.dims {
            let bound = text
                .split_once('=')
                .and_then(|(name, n)| Some((name, n.trim().parse::<usize>().ok()?)));
            let (name, n) = bound.ok_or_else(|| {
                ErrorKind::usage(format!("--dim {text} binds nothing")).help("write --dim batch=1")
            })?;
            if bindings.insert(name.trim().to_owned(), n).is_some_and(|old| old != n) {
                return Err(ErrorKind::usage(format!("--dim {name} has two values")));
            }
        }
        Ok(bindings)
    }

    /// The file's name without its ending.
    pub(crate) fn stem(&self) -> String {
        let name = self.model.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
        name.split('.').next().filter(|s| !s.is_empty()).unwrap_or("model").to_owned()
    }

    /// Reads and compiles, for running it here.
    ///
    /// # Errors
    ///
    /// All that is wrong with the model, and what is not supported.
    pub(crate) fn compile(&self, profile: bool, progress: &Progress) -> Result<Compiled, Errors> {
        let source = self.read(progress)?;
        let options = Options { profile, ..self.options(&self.stem())? };
        self.compiled(source, &options, progress)
    }

    /// Compiles what was read.
    ///
    /// # Errors
    ///
    /// As [`Args::compile`].
    pub(crate) fn compiled(
        &self,
        source: Source,
        options: &Options,
        progress: &Progress,
    ) -> Result<Compiled, Errors> {
        progress.phase("compiling");
        compile::compile(source, options).map_err(|e| e.in_file(&self.model.display().to_string()))
    }
}

/// The second memory that `NAME=BYTES[,keep]` means.
fn region(text: &str) -> Result<Region, ErrorKind> {
    let wrong = || ErrorKind::usage(format!("--region {text}")).help("write --region fast=256K");
    let (text, keeps) = match text.split_once(',') {
        Some((text, "keep")) => (text, true),
        Some(_) => return Err(wrong()),
        None => (text, false),
    };
    let (name, bytes) = text.split_once('=').ok_or_else(wrong)?;
    let bytes = size(bytes).ok().filter(|&bytes| bytes <= 1 << 40).ok_or_else(wrong)?;
    if !rlx_aot::codegen::contract::is_prefix(name) {
        return Err(wrong());
    }
    Ok(Region { name: name.to_owned(), bytes, keeps })
}
