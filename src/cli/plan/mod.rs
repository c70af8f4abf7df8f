//! `rlx-aot plan`: how a model's tensors share one arena, as text, JSON, a picture and a page.

use super::progress::Progress;
use super::{Outcome, model, output};
use rlx_aot::compile::{self, Options};
use rlx_aot::error::{Class, ErrorKind, Errors};
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
    /// Write a page that shows the plan in a browser: one file that loads nothing. - is standard output.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a picture of the arena over time. - is standard output.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compile too, for the sizes of the kernels (--html does so where the model can be compiled).
    #[arg(long)]
    code: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let files = [&args.html, &args.svg];
    let printed = files.iter().filter(|f| f.as_deref() == Some(Path::new("-"))).count();
    if printed + usize::from(args.json) > 1 {
        let kind = ErrorKind::usage("only one of --json, --html and --svg can be printed");
        return Err(kind.help("give the others a file").into());
    }
    let progress = Progress::new(quiet);
    let source = args.model.read(&progress)?;
    progress.phase("planning");
    let options = args.model.options(&args.model.stem())?;
    let in_file = |e: Errors| e.in_file(&args.model.model.display().to_string());
    let module = compile::plan(source, &options).map_err(in_file)?;
    let (report, left_out) = if args.code || args.html.is_some() {
        progress.phase("compiling");
        with_code(&module, &options, args.code).map_err(in_file)?
    } else {
        (Report::new(&module, None), None)
    };
    progress.phase("writing");
    for (file, text) in
        [(&args.html, Report::html as fn(&Report) -> String), (&args.svg, Report::svg)]
    {
        if let Some(path) = file {
            output::write(path, |to| to.write_all(text(&report).as_bytes()))?;
        }
    }
    drop(progress);
    if let Some(errors) = left_out.filter(|_| !quiet) {
        eprintln!("the page has no sizes of code, since the model has none yet:\n{errors}");
    }
    match (args.json, printed) {
        (true, _) => output::print(report.json()),
        (false, 0) => output::print(report.text()),
        (false, _) => Ok(()),
    }
}

/// The report with the code's sizes. Unless code is a must, a model that cannot be compiled yet has a
/// report too; then with the reasons.
fn with_code(
    module: &Module,
    options: &Options,
    must: bool,
) -> Result<(Report, Option<Errors>), Errors> {
    let target = compile::target(options)?;
    match compile::emit(module, options, &target) {
        Ok((program, object)) => {
            let target = &target.describe();
            let code = Compiled { target, program: &program, object: &object };
            Ok((Report::new(module, Some(code)), None))
        }
        Err(errors) if !must && matches!(errors.class(), Class::Unsupported | Class::Limit) => {
            Ok((Report::new(module, None), Some(errors)))
        }
        Err(errors) => Err(errors),
    }
}
