//! The commands. Only here is anything printed: results on standard output, everything else on
//! standard error.

mod bench;
mod build;
mod calibrate;
mod compare;
mod demo;
mod driver;
mod inputs;
mod inspect;
mod model;
mod output;
mod params;
mod plan;
mod profile;
mod progress;
mod run;
mod together;
mod verify;

use clap::{Parser, Subcommand};
use rlx_aot::error::{Class, Error, ErrorKind, Errors};
use std::process::ExitCode;

/// Compiles trained models to native object files that any C or Rust program links.
///
/// `rlx-aot build model.onnx -o model.o` writes an object that exports `model_run(arena)`, and beside
/// it `model.h`. Nothing else is needed at run time: no interpreter, no framework, no heap.
#[derive(Parser, Debug)]
#[command(
    name = "rlx-aot",
    version,
    after_help = "Exit codes: 0 right, 1 wrong (an invalid model, a mismatch), 2 usage, 3 a valid model that is not supported, 4 files and other tools, 5 over a limit, 101 a bug of rlx-aot."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print results and errors only.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Compile a model to an object file, a header and more.
    Build(build::Args),
    /// Compile a model, run it once, print or write its outputs.
    Run(run::Args),
    /// Compare a model's results with recorded ones, or with the reference interpreter.
    Verify(verify::Args),
    /// Measure how fast a model runs, and what it needs.
    Bench(bench::Args),
    /// Show how a model's tensors share one arena.
    Plan(plan::Args),
    /// Show what is in a model, or in an object that was built.
    Inspect(inspect::Args),
    /// List the operators that are supported.
    Ops(inspect::OpsArgs),
    /// Print the JSON Schema of a format: of models as JSON, or of what `plan --json` prints.
    Schema {
        /// Of which format.
        #[arg(value_enum, default_value_t = Format::Model)]
        format: Format,
    },
    /// Build, link and run a small digit classifier.
    Demo(demo::Args),
}

/// A format of JSON.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    /// Models: `rlx-aot/1`.
    Model,
    /// Plans: `rlx-aot-plan/1`.
    Plan,
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something is wrong, as the errors say.
    Errors(Errors),
    /// Results differ: one line for each.
    Mismatch(Vec<String>),
    /// Nobody reads our output any more: nothing to say.
    Closed,
}

pub(crate) type Outcome = Result<(), Failure>;

impl From<Errors> for Failure {
    fn from(errors: Errors) -> Failure {
        Failure::Errors(errors)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Errors(error.into())
    }
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Failure {
        Failure::Errors(kind.into())
    }
}

/// Says what is wrong with the arguments, or helps. A model where a command should be is a beginner's mistake.
pub(crate) fn refuse(mut error: clap::Error) -> ExitCode {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
        && std::path::Path::new(name).is_file()
    {
        let tip = format!("to compile a model, write 'rlx-aot build {name}'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error.exit()
}

/// Runs the command; the exit code is that of the worst error.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let quiet = cli.quiet;
    let outcome = match cli.command {
        Command::Build(args) => build::run(&args, quiet),
        Command::Run(args) => run::run(&args, quiet),
        Command::Verify(args) => verify::run(&args, quiet),
        Command::Bench(args) => bench::run(&args, quiet),
        Command::Plan(args) => plan::run(&args, quiet),
        Command::Inspect(args) => inspect::run(&args, quiet),
        Command::Ops(args) => inspect::ops(&args),
        Command::Schema { format: Format::Model } => output::print(rlx_aot::front::json::schema()),
        Command::Schema { format: Format::Plan } => output::print(rlx_aot::report::SCHEMA),
        Command::Demo(args) => demo::run(&args, quiet),
    };
    match outcome {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Errors(errors)) => {
            eprintln!("{errors}");
            ExitCode::from(errors.class().exit_code())
        }
        Err(Failure::Mismatch(lines)) => {
            lines.iter().for_each(|line| eprintln!("mismatch: {line}"));
            ExitCode::from(Class::Wrong.exit_code())
        }
    }
}
