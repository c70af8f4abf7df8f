//! `rlx-aot build --shared-arena`: several models in one arena.

use super::output::{bytes, duration};
use super::progress::Progress;
use super::{Outcome, build, output};
use rlx_aot::codegen::{contract, header};
use rlx_aot::compile::{Compiled, Options, Placed};
use rlx_aot::error::{ErrorKind, Errors};
use rlx_aot::front::Source;
use rlx_aot::lir::permanent::{self, Shared};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Builds all models for an arena that is called `name`.
pub(crate) fn run(args: &build::Args, name: &str, quiet: bool) -> Outcome {
    let start = Instant::now();
    let progress = Progress::new(quiet || args.json);
    if !contract::is_prefix(name) {
        let kind = ErrorKind::usage(format!("--shared-arena={name}: it is no C identifier"));
        return Err(kind.help("letters, digits and underscores, not a digit first").into());
    }
    let paths: Vec<PathBuf> = [&args.model.model].into_iter().chain(&args.more).cloned().collect();
    let prefixes = prefixes(args, &paths)?;
    if prefixes.iter().any(|prefix| prefix == name) {
        let kind = ErrorKind::usage(format!("the arena and a model are both called {name}"));
        return Err(kind.help("give the arena another name: --shared-arena=NAME").into());
    }
    let mut models = vec![];
    let mut states = BTreeSet::new();
    for (path, prefix) in paths.iter().zip(prefixes) {
        let mut one = args.model.clone();
        (one.model, one.prefix) = (path.clone(), None);
        let source = one.read(&progress)?;
        let mut options = Options { profile: args.profile, ..one.options(&prefix)? };
        // A state is of the models that have its input.
        let inputs = inputs(&source);
        options.plan.states.retain(|(input, _)| inputs.contains(input));
        options.windows.retain(|(input, _)| inputs.contains(input));
        states.extend(options.plan.states.iter().chain(&options.windows).cloned());
        models.push((path, source, options));
    }
    let mut plain = args.model.clone();
    plain.prefix = None;
    let plain = plain.options("model")?;
    let mut asked = plain.plan.states.into_iter().chain(plain.windows);
    let missing = asked.find(|state| !states.contains(state));
    if let Some((input, to)) = missing {
        let kind =
            ErrorKind::usage(format!("state {input}={to}: no model has an input \"{input}\""));
        return Err(kind.into());
    }
    progress.phase("compiling");
    let (compiled, shared, alone) = compile(models)?;
    progress.phase("writing");
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from("."));
    // Each model asks for a little more than its plan.
    let ends = compiled.iter().zip(&shared.bases).map(|(c, b)| b + c.object.contract.arena_size);
    let size = ends.max().unwrap_or(shared.size);
    let contracts = compiled.iter().map(|c| &c.object.contract);
    let contracts: Vec<_> = contracts.zip(shared.bases.iter().copied()).collect();
    let text = header::shared(name, &contracts, size);
    write(&compiled, &folder, name, &text)?;
    drop(progress);
    if args.json {
        let models = compiled.iter().zip(&shared.bases).map(|(compiled, base)| {
            let mut manifest = compiled.manifest();
            manifest["base"] = json!(base);
            manifest
        });
        let models: Vec<_> = models.collect();
        return output::print(json!({ "name": name, "arena_size": size, "models": models }));
    }
    if !quiet {
        eprintln!(
            "{}: {} models in one arena of {} (in one for each: {}), in {}",
            folder.display(),
            compiled.len(),
            bytes(size),
            bytes(alone),
            duration(start.elapsed().as_secs_f64()),
        );
    }
    Ok(())
}

/// The models, placed together; and how many bytes they would need each by itself.
fn compile(
    models: Vec<(&PathBuf, Source, Options)>,
) -> Result<(Vec<Compiled>, Shared, u64), Errors> {
    let mut placed = vec![];
    for (path, source, options) in models {
        let in_file = |e: Errors| e.in_file(&path.display().to_string());
        placed.push((path, Placed::new(source, &options).map_err(in_file)?, options));
    }
    let alone = placed.iter().map(|(_, placed, _)| placed.module.plan.arena_size).sum();
    let mut modules: Vec<_> = placed.iter_mut().map(|(_, placed, _)| &mut placed.module).collect();
    let shared = permanent::share(&mut modules)?;
    let compiled = placed.into_iter().map(|(path, placed, options)| {
        placed.compile(&options).map_err(|e| e.in_file(&path.display().to_string()))
    });
    Ok((compiled.collect::<Result<_, _>>()?, shared, alone))
}

fn inputs(source: &Source) -> BTreeSet<String> {
    let graph = &source.graph;
    graph.inputs.iter().map(|input| graph.values[input.value].name.clone()).collect()
}

/// A prefix for each model, all different.
fn prefixes(args: &build::Args, paths: &[PathBuf]) -> Result<Vec<String>, ErrorKind> {
    let prefixes: Vec<String> = match &args.model.prefix {
        Some(list) => list.split(',').map(str::to_owned).collect(),
        None => {
            let stem = |path: &PathBuf| {
                let name = path.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
                contract::prefix_of(name.split('.').next().unwrap_or("model"))
            };
            paths.iter().map(stem).collect()
        }
    };
    if prefixes.len() != paths.len() {
        let (given, asked) = (prefixes.len(), paths.len());
        let kind = ErrorKind::usage(format!("--prefix names {given} for {asked} models"));
        return Err(kind.help("write one for each, in their order: --prefix a,b"));
    }
    if let Some(wrong) = prefixes.iter().find(|prefix| !contract::is_prefix(prefix)) {
        let kind = ErrorKind::usage(format!("the prefix \"{wrong}\" is no C identifier"));
        return Err(kind.help("letters, digits and underscores, not a digit first"));
    }
    let upper = |prefix: &String| prefix.to_uppercase();
    let different: BTreeSet<String> = prefixes.iter().map(upper).collect();
    if different.len() != prefixes.len() {
        let kind = ErrorKind::usage(format!("two models have one prefix: {}", prefixes.join(", ")));
        return Err(kind.help("name them, in their order: --prefix a,b"));
    }
    Ok(prefixes)
}

fn write(compiled: &[Compiled], folder: &Path, name: &str, header: &str) -> Result<(), ErrorKind> {
    std::fs::create_dir_all(folder)
        .map_err(|e| ErrorKind::io(format!("{}: {e}", folder.display())))?;
    let text = |file: String, text: &str| {
        output::write(&folder.join(file), |to| to.write_all(text.as_bytes()))
    };
    for compiled in compiled {
        let prefix = &compiled.object.contract.prefix;
        let at = |ending: &str| folder.join(format!("{prefix}.{ending}"));
        output::write(&at("o"), |to| compiled.object.write_to(to))?;
        text(format!("{prefix}.h"), &compiled.header())?;
        if let Some(write) = compiled.weights_file() {
            output::write(&at("safetensors"), |to| write(to))?;
        }
    }
    text(format!("{name}.h"), header)
}
