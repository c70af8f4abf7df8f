//! `rlx-aot run`: one run, by the object or by an interpreter.

use super::driver::{self, Driver};
use super::progress::Progress;
use super::{Outcome, inputs, model, output};
use clap::ValueEnum;
use rlx_aot::compile::Compiled;
use rlx_aot::error::{ErrorKind, Errors};
use rlx_aot::front::npy;
use rlx_aot::interp;
use rlx_aot::lir::Port;
use rlx_aot::tensor::Tensor;
use rlx_aot::types::DType;
use std::path::PathBuf;

/// Arguments of `rlx-aot run`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    #[command(flatten)]
    driver: driver::Args,
    #[command(flatten)]
    threads: driver::Threads,
    /// The value of an input or parameter (by name or number): .npy, .pb (TensorProto), or raw bytes. May be repeated; the others are random.
    #[arg(long = "input", short = 'i', value_name = "NAME=FILE")]
    inputs: Vec<String>,
    /// What random values are made from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Run so many times, with the same inputs; states (--state) go on from run to run. The outputs are the last ones.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Write the outputs to DIR/out_<i>.npy instead of printing them.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// Print the outputs as JSON.
    #[arg(long, conflicts_with = "out_dir")]
    json: bool,
    /// What runs the model.
    #[arg(long, value_enum, default_value_t = Engine::Object)]
    engine: Engine,
}

/// What runs a model.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    /// The operators' definitions.
    Reference,
    /// The plan, over an arena of poisoned bytes.
    Arena,
    /// The compiled object.
    Object,
}

/// Inputs and then parameters: what a run is given.
pub(crate) fn ports(compiled: &Compiled) -> Vec<&Port> {
    compiled.module.io.inputs.iter().chain(&compiled.module.io.parameters).collect()
}

/// A model on an engine.
pub(crate) enum Runner<'a> {
    /// On [`Engine::Reference`].
    Reference(&'a Compiled),
    /// On [`Engine::Arena`].
    Arena(&'a Compiled),
    /// On [`Engine::Object`].
    Object(&'a Compiled, Box<Driver>),
}

impl<'a> Runner<'a> {
    /// A runner for so many threads.
    ///
    /// # Errors
    ///
    /// What the engine cannot do, or a driver that cannot be built.
    pub(crate) fn new(
        compiled: &'a Compiled,
        engine: Engine,
        threads: driver::Threads,
        driver: &driver::Args,
        progress: &Progress,
    ) -> Result<Runner<'a>, Errors> {
        if threads.count > 1 && engine != Engine::Object {
            let kind = ErrorKind::usage("--threads: the interpreters run on one");
            return Err(kind.help("--engine object has threads").into());
        }
        Ok(match engine {
            Engine::Reference => Runner::Reference(compiled),
            Engine::Arena => Runner::Arena(compiled),
            Engine::Object => {
                Runner::Object(compiled, Box::new(Driver::build(compiled, driver, progress)?))
            }
        })
    }

    /// The outputs for these values of [`ports`], after so many runs: in each but the first, states have the
    /// values that their outputs had in the last one. Only objects have several threads.
    ///
    /// # Errors
    ///
    /// What the engine cannot do.
    pub(crate) fn run(
        &self,
        values: &[Tensor],
        steps: u32,
        threads: u32,
    ) -> Result<Vec<Tensor>, Errors> {
        let (Runner::Reference(compiled) | Runner::Arena(compiled) | Runner::Object(compiled, _)) =
            self;
        if steps > 1 && compiled.module.plan.options.overwrite_inputs {
            let kind = ErrorKind::usage(
                "--overwrite-inputs: several steps take the inputs that are set before the first",
            );
            return Err(kind.help("one step, or inputs that keep their values").into());
        }
        let io = &compiled.module.io;
        Ok(match self {
            Runner::Reference(compiled) => {
                let mut values = values.to_vec();
                let mut outputs = vec![];
                for _ in 0..steps {
                    let ordered = in_model_order(compiled, &values);
                    outputs = interp::reference::run(&compiled.checked, &ordered);
                    for state in &io.states {
                        values[state.input] = outputs[state.output].clone();
                    }
                }
                outputs
            }
            Runner::Arena(compiled) => {
                let (inputs, parameters) = values.split_at(io.inputs.len());
                let is_state = |index: usize| io.states.iter().any(|state| state.input == index);
                let fed = inputs.iter().enumerate().filter(|(index, _)| !is_state(*index));
                let fed: Vec<Tensor> = fed.map(|(_, tensor)| tensor.clone()).collect();
                let mut session = interp::arena::Session::new(&compiled.module, parameters)?;
                let first = session.run(inputs)?;
                (1..steps).try_fold(first, |_, _| session.next(&fed))?
            }
            Runner::Object(_, driver) => driver.run(values, steps, threads)?,
        })
    }
}

/// The values in the order in which the model lists inputs and parameters together.
fn in_model_order(compiled: &Compiled, values: &[Tensor]) -> Vec<Tensor> {
    let (inputs, parameters) = values.split_at(compiled.module.io.inputs.len());
    let (mut inputs, mut parameters) = (inputs.iter(), parameters.iter());
    let graph = compiled.checked.graph();
    let next =
        |i: &rlx_aot::hir::Input| if i.parameter { parameters.next() } else { inputs.next() };
    graph.inputs.iter().map(next).map(|v| v.expect("a value for every input").clone()).collect()
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let progress = Progress::new(quiet);
    let compiled = args.model.compile(false, &progress)?;
    let values = inputs::collect(&ports(&compiled), &args.inputs, args.seed)?;
    let runner = Runner::new(&compiled, args.engine, args.threads, &args.driver, &progress)?;
    progress.phase("running");
    let outputs = runner.run(&values, args.steps, args.threads.count)?;
    drop(progress);
    let named = || compiled.module.io.outputs.iter().zip(&outputs);
    if let Some(folder) = &args.out_dir {
        let failed = |e: std::io::Error| ErrorKind::io(format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        for (i, tensor) in outputs.iter().enumerate() {
            let path = folder.join(format!("out_{i}.npy"));
            output::write(&path, |to| to.write_all(&npy::write(tensor)))?;
        }
        return Ok(());
    }
    if args.json {
        let list: Vec<_> = named().map(|(port, t)| as_json(&port.name, t)).collect();
        return output::print(serde_json::json!({ "outputs": list }));
    }
    named().try_for_each(|(port, t)| output::print(as_text(&port.name, t)))
}

fn as_json(name: &str, t: &Tensor) -> serde_json::Value {
    let number = |i: usize| match t.ty().dtype {
        DType::U64 => serde_json::json!(t.int_at(i) as u64),
        d if !d.is_float() => serde_json::json!(t.int_at(i)),
        _ => match t.f64_at(i) {
            v if v.is_finite() => serde_json::json!(v),
            v => serde_json::json!(v.to_string()),
        },
    };
    let data: Vec<_> = (0..t.ty().elements()).map(number).collect();
    serde_json::json!({ "name": name, "dtype": t.ty().dtype.name(), "shape": t.dims(), "data": data })
}

fn as_text(name: &str, t: &Tensor) -> String {
    const SHOWN: usize = 64;
    let number = |i: usize| match t.ty().dtype {
        DType::F32 => format!("{}", t.f64_at(i) as f32),
        d if d.is_float() => format!("{}", t.f64_at(i)),
        DType::U64 => format!("{}", t.int_at(i) as u64),
        _ => format!("{}", t.int_at(i)),
    };
    let all = t.ty().elements();
    let mut text: Vec<String> = (0..all.min(SHOWN)).map(number).collect();
    if all > SHOWN {
        text.push(format!("... ({} more; --out-dir writes all)", all - SHOWN));
    }
    format!("{}: {}\n  {}", rlx_aot::types::printable(name), t.ty(), text.join(" "))
}
