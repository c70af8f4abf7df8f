//! `rlx-aot plan`: how a model's tensors share one arena.

use super::progress::Progress;
use super::{Outcome, model, output};
use rlx_aot::lir::phase::{Phase, phases};
use rlx_aot::lir::{BufferKind, Module};
use serde_json::json;

/// Arguments of `rlx-aot plan`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let progress = Progress::new(quiet);
    let source = args.model.read(&progress)?;
    progress.phase("planning");
    let options = args.model.options(&args.model.stem())?;
    let module = rlx_aot::compile::plan(source, &options)
        .map_err(|e| e.in_file(&args.model.model.display().to_string()))?;
    drop(progress);
    if args.json { output::print(as_json(&module)) } else { output::print(module.report()) }
}

fn as_json(module: &Module) -> serde_json::Value {
    let plan = &module.plan;
    let phases = phases(module);
    let prepare = module.steps.keys().filter(|&step| phases[step] == Phase::Prepare).count();
    let slots = plan.slots.iter().map(|(&buffer, &offset)| {
        let info = &module.buffers[buffer];
        let kind = match info.kind {
            BufferKind::Input => "input",
            BufferKind::Parameter => "parameter",
            BufferKind::Output => "output",
            BufferKind::Temporary => "temporary",
            BufferKind::Constant(_) => "constant",
        };
        json!({ "buffer": buffer.to_string(), "name": info.name, "kind": kind, "offset": offset, "bytes": info.bytes })
    });
    json!({
        "model": module.name,
        "arena_size": plan.arena_size,
        "alignment": plan.options.alignment,
        "bound": plan.bound,
        "unshared": plan.unshared,
        "weights": plan.weights_size,
        "steps": module.steps.len(),
        "prepare_steps": prepare,
        "slots": slots.collect::<Vec<_>>(),
    })
}
