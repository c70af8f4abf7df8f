//! `rlx-aot plan`: how a model's tensors share one arena, as text, JSON and a picture.

use super::progress::Progress;
use super::{Outcome, model, output};
use rlx_aot::compile::{self, Options};
use rlx_aot::error::{ErrorKind, Errors};
use rlx_aot::lir::Module;
use rlx_aot::report::{Compiled, Report};
use std::path::{Path, PathBuf};

/// Arguments of `rlx-aot plan`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Print the plan as JSON (`rlx-aot schema plan` describes it).
    #[arg(long)]
    json: bool,
    /// Write a picture of the arena over time. - is standard output.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compile too, for the sizes of the kernels.
    #[arg(long)]
    code: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let printed = args.svg.as_deref() == Some(Path::new("-"));
    if printed && args.json {
        let kind = ErrorKind::usage("only one of --json and --svg can be printed");
        return Err(kind.help("give the other a file").into());
    }
    let progress = Progress::new(quiet);
    let source = args.model.read(&progress)?;
    progress.phase("planning");
    let options = args.model.options(&args.model.stem())?;
    let in_file = |e: Errors| e.in_file(&args.model.model.display().to_string());
    let module = compile::plan(source, &options).map_err(in_file)?;
    let report = if args.code {
        progress.phase("compiling");
        with_code(&module, &options).map_err(in_file)?
    } else {
        Report::new(&module, None)
    };
    if let Some(path) = &args.svg {
        output::write(path, |to| to.write_all(report.svg().as_bytes()))?;
    }
    drop(progress);
    match (args.json, printed) {
        (true, _) => output::print(report.json()),
        (false, false) => output::print(report.text()),
        (false, true) => Ok(()),
    }
}

fn with_code(module: &Module, options: &Options) -> Result<Report, Errors> {
    let target = compile::target(options)?;
    let (program, object) = compile::emit(module, options, &target)?;
    let target = &target.describe();
    Ok(Report::new(module, Some(Compiled { target, program: &program, object: &object })))
}
