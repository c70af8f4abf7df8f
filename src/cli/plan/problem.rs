//! Placement problems in files: `rlx-aot plan problem.csv`.

use super::Args;
use crate::cli::progress::Progress;
use crate::cli::{Outcome, output};
use rlx_aot::error::{Error, ErrorKind, Errors};
use rlx_aot::placement::csv::{self, Table};
use rlx_aot::placement::{self, Effort, Solution};
use serde::Serialize;

/// Steps of the search where nothing else is asked for.
const BUDGET: u64 = 16_000_000;

/// A placement as JSON.
#[derive(Serialize)]
struct Json<'a> {
    format: &'static str,
    height: u64,
    bound: u64,
    optimal: bool,
    steps: u64,
    buffers: Vec<Buffer<'a>>,
}

/// A row of the problem with its offset.
#[derive(Serialize)]
struct Buffer<'a> {
    id: &'a str,
    lower: i64,
    upper: i64,
    size: u64,
    offset: u64,
}

/// Solves the problem, writes and prints the answer.
pub(super) fn run(args: &Args, print: bool, quiet: bool) -> Outcome {
    let path = &args.model.model;
    let name = path.display().to_string();
    let progress = Progress::new(quiet || args.json);
    progress.phase("reading");
    let in_file = |kind: ErrorKind| Errors::from(Error::from(kind).in_file(&name));
    let bytes =
        std::fs::read(path).map_err(|e| ErrorKind::io(format!("{}: {e}", path.display())))?;
    let text =
        String::from_utf8(bytes).map_err(|_| in_file(ErrorKind::wrong("the file is no text")))?;
    let table = csv::read(&text).map_err(|errors| errors.in_file(&name))?;
    fixed_apart(&table).map_err(in_file)?;
    progress.phase("placing");
    let steps = args.model.plan_budget.unwrap_or(BUDGET);
    let effort = Effort { steps, enough: args.capacity.unwrap_or(0) };
    let solution = placement::solve(&table.problem, effort);
    if let Err(clash) = table.problem.check(&solution.offsets) {
        return Err(in_file(ErrorKind::bug(format!("the placement is wrong: {clash}"))).into());
    }
    if let Some(path) = &args.output {
        let text = csv::write(&table, Some(&solution.offsets));
        output::write(path, |to| to.write_all(text.as_bytes()))?;
    }
    drop(progress);
    if args.json {
        output::print(json(&table, &solution)?)?;
    } else if print {
        output::print(verdict(&table, &solution))?;
    }
    match args.capacity {
        Some(capacity) if solution.height > capacity => {
            let message = format!("no placement of at most {capacity} bytes was found");
            let kind = ErrorKind::limit(message);
            Err(in_file(if solution.bound > capacity {
                kind.help(format!(
                    "there is none: the lowest has at least {} bytes",
                    solution.bound
                ))
            } else {
                kind.help("there may be one: a larger --plan-budget searches for longer")
            })
            .into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether what is fixed does not clash already.
fn fixed_apart(table: &Table) -> Result<(), ErrorKind> {
    let fixed = table.problem.fixed();
    let items = fixed.iter().map(|&i| table.problem.items[i]).collect::<Vec<_>>();
    let offsets: Vec<u64> = items.iter().filter_map(|item| item.fixed).collect();
    let clash = |i: usize| &table.ids[fixed[i]];
    match (placement::Problem { items }).check(&offsets) {
        Ok(()) => Ok(()),
        Err(placement::Clash::Overlap(a, b)) => Err(ErrorKind::wrong(format!(
            "buffers \"{}\" and \"{}\" are fixed where they share bytes while both are alive",
            clash(a),
            clash(b)
        ))),
        Err(other) => Err(ErrorKind::bug(other.to_string())),
    }
}

fn verdict(table: &Table, solution: &Solution) -> String {
    let Solution { height, bound, steps, .. } = solution;
    let verdict = if solution.is_optimal() {
        "optimal".to_owned()
    } else {
        let above = 100.0 * (height - bound) as f64 / (*bound).max(1) as f64;
        format!("at most {above:.2} % above the lowest")
    };
    let count = table.ids.len();
    format!("buffers  {count}\nheight   {height} ({verdict})\nbound    {bound}\nsteps    {steps}\n")
}

fn json(table: &Table, solution: &Solution) -> Result<String, ErrorKind> {
    let rows = table.ids.iter().zip(&table.problem.items).zip(&solution.offsets);
    let buffers = rows.map(|((id, item), &offset)| {
        let (lower, upper, size) = (item.lower, item.upper, item.size);
        Buffer { id, lower, upper, size, offset }
    });
    let json = Json {
        format: "rlx-aot-placement/1",
        height: solution.height,
        bound: solution.bound,
        optimal: solution.is_optimal(),
        steps: solution.steps,
        buffers: buffers.collect(),
    };
    serde_json::to_string(&json).map_err(|e| ErrorKind::bug(e.to_string()))
}
