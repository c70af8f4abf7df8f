//! `rlx-aot plan`: how a model's tensors share one arena, as text, JSON, a picture and a page; and placement
//! problems in files.

mod compare;
mod problem;

use super::progress::Progress;
use super::{Outcome, model, output};
use compare::Comparison;
use rlx_aot::compile::{self, Options};
use rlx_aot::error::{Class, ErrorKind, Errors};
use rlx_aot::fit::Fitted;
use rlx_aot::front::Source;
use rlx_aot::hir::check::check;
use rlx_aot::lir::{Module, place};
use rlx_aot::placement::csv;
use rlx_aot::report::{Compiled, Report};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the file of a problem looks like.
const FORMAT: &str = "\
Placement problems: a MODEL whose name ends in .csv is a problem to be solved, with the columns of MiniMalloc.
The first line names the columns, in any order, each other line is a buffer:

  id         its name
  lower      when it comes to life, a whole number (or: start, begin)
  upper      the first time at which it is no longer alive (or: end, the last time at which it is)
  size       how many bytes it needs
  alignment  what its offset has to be a multiple of [default: 1]
  offset     where it has to lie; may be empty

Every buffer gets an offset, so that no two that are alive at the same time share bytes and the highest
end is as low as can be. -o writes the same lines with the offsets in the last column. Of the other options only
--json, --capacity and --plan-budget [default: 16000000] apply to problems.";

/// Arguments of `rlx-aot plan`.
#[derive(clap::Args, Debug)]
#[command(after_help = FORMAT)]
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
    /// Write the model's slots as a placement problem, which can be solved anew. - is standard output.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the placement of a problem. - is standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of a problem: a height that is low enough. It is an error if none so low is found.
    #[arg(long, value_name = "BYTES")]
    capacity: Option<u64>,
    /// Show the arena beside those of other ways to plan the model: with inputs kept and overwritten, greedily
    /// by size in the order of the file, and without reuse.
    #[arg(long)]
    compare: bool,
    /// Compile too, for the sizes of the kernels (--html does so where the model can be compiled).
    #[arg(long)]
    code: bool,
}

impl Args {
    /// Whether the options are those for a problem, or else for a model.
    fn applies(&self, is_problem: bool) -> Result<(), ErrorKind> {
        let of_models = [
            ("--html", self.html.is_some()),
            ("--svg", self.svg.is_some()),
            ("--csv", self.csv.is_some()),
            ("--code", self.code),
            ("--compare", self.compare),
        ];
        let of_problems = [("-o", self.output.is_some()), ("--capacity", self.capacity.is_some())];
        let (what, wrong) = if is_problem {
            ("problem", of_models.iter().find(|(_, given)| *given))
        } else {
            ("model", of_problems.iter().find(|(_, given)| *given))
        };
        wrong.map_or(Ok(()), |(name, _)| {
            let kind = ErrorKind::usage(format!("{name} does not apply to a {what}"));
            Err(kind.help("problems are files whose names end in .csv"))
        })
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let is_problem = args.model.model.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    args.applies(is_problem)?;
    let files = [&args.html, &args.svg, &args.csv, &args.output];
    let printed = files.iter().filter(|f| f.as_deref() == Some(Path::new("-"))).count();
    if printed + usize::from(args.json) > 1 {
        let kind = ErrorKind::usage("only one of --json and the files can be standard output");
        return Err(kind.help("give the others a file").into());
    }
    if is_problem {
        return problem::run(args, printed == 0, quiet);
    }
    let progress = Progress::new(quiet);
    let start = Instant::now();
    let source = args.model.read(&progress)?;
    let reading = start.elapsed();
    progress.phase("planning");
    let options = args.model.options(&args.model.stem())?;
    let in_file = |e: Errors| e.in_file(&args.model.model.display().to_string());
    let kept = source.plan.is_some();
    let compared = args.compare.then(|| source.clone());
    let (fitted, times) = compile::plan(source, &options).map_err(in_file)?;
    let offer = if kept { None } else { compile::offer(&fitted, &options).map_err(in_file)? };
    let Fitted { module, price, .. } = fitted;
    let comparison = compared.map(|source| compare(source, &module, &options).map_err(in_file));
    let comparison = comparison.transpose()?;
    let (mut report, left_out) = if args.code || args.html.is_some() {
        progress.phase("compiling");
        with_code(&module, &options, args.code).map_err(in_file)?
    } else {
        (Report::new(&module, None), None)
    };
    if let Some(offer) = offer {
        report.advise_smaller(offer.bytes, offer.time, offer.bands, &offer.again);
    }
    progress.phase("writing");
    for (file, text) in
        [(&args.html, Report::html as fn(&Report) -> String), (&args.svg, Report::svg)]
    {
        if let Some(path) = file {
            output::write(path, |to| to.write_all(text(&report).as_bytes()))?;
        }
    }
    if let Some(path) = &args.csv {
        let text = csv::write(&place::table(&module), None);
        output::write(path, |to| to.write_all(text.as_bytes()))?;
    }
    drop(progress);
    if !quiet {
        eprintln!("{}", output::times(reading, &times));
    }
    if let Some(price) = price.filter(|_| !quiet) {
        eprintln!("{}", output::price(&price));
    }
    if let Some(errors) = left_out.filter(|_| !quiet) {
        eprintln!("the page has no sizes of code, since the model has none yet:\n{errors}");
    }
    if let Some(comparison) = comparison.filter(|_| args.json || printed == 0) {
        return match args.json {
            true => output::print(json!(comparison)),
            false => output::print(comparison.text().trim_end()),
        };
    }
    match (args.json, printed) {
        (true, _) => output::print(report.json()),
        (false, 0) => output::print(report.text()),
        (false, _) => Ok(()),
    }
}

/// The plan of a model beside others.
fn compare(source: Source, module: &Module, options: &Options) -> Result<Comparison, Errors> {
    let checked = check(source.graph.clone(), &options.dims, options.limits)?;
    let other = if source.plan.is_some() {
        None
    } else {
        let mut options = options.clone();
        options.plan.overwrite_inputs = !options.plan.overwrite_inputs;
        // A limit that holds for one of them may be out of reach for the other, which is still a plan.
        options.max_arena = None;
        Some(compile::plan(source, &options)?.0.module)
    };
    Ok(Comparison::new(&checked, module, other.as_ref()))
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
