//! `rlx-aot verify`: results against recorded ones, or against the reference interpreter; of several threads, also
//! against one.

use super::compare::{Bounds, difference, error};
use super::progress::Progress;
use super::run::{Engine, Runner, ports};
use super::{Failure, Outcome, driver, inputs, model, output};
use rlx_aot::compile::Compiled;
use rlx_aot::error::{ErrorKind, Errors};
use rlx_aot::front;
use rlx_aot::tensor::Tensor;
use std::path::{Path, PathBuf};

/// Arguments of `rlx-aot verify`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    #[command(flatten)]
    driver: driver::Args,
    #[command(flatten)]
    threads: driver::Threads,
    /// A folder with `input_<i>.pb` and `output_<i>.pb` (or several such: `test_data_set_*`), or a
    /// `.io.json` file of RLX. Without it, the reference interpreter's results on seeded inputs count.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How far a value may be off, relative to what is expected.
    #[arg(long, value_name = "R", default_value_t = 1e-4)]
    rtol: f64,
    /// How far a value may be off besides.
    #[arg(long, value_name = "A", default_value_t = 1e-5)]
    atol: f64,
    /// What seeded inputs are made from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Run so many times, with the same inputs; states (--state) go on from run to run, and the last outputs count.
    /// [default: 1, and 3 for a model with states without --data]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: Option<u32>,
    /// What runs the model.
    #[arg(long, value_enum, default_value_t = Engine::Object)]
    engine: Engine,
}

/// Runs of a model with states, unless it is said how many.
const STATEFUL_STEPS: u32 = 3;

/// Recorded inputs (a value for each port) and outputs.
struct Record {
    name: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let progress = Progress::new(quiet);
    let compiled = args.model.compile(false, &progress)?;
    let stateful = !compiled.module.io.states.is_empty()
        && args.data.is_none()
        && !args.model.overwrite_inputs;
    let steps = args.steps.unwrap_or(if stateful { STATEFUL_STEPS } else { 1 });
    let records = match &args.data {
        Some(data) => recorded(&compiled, data)?,
        None => vec![reference(&compiled, args, steps, &progress)?],
    };
    let bounds = Bounds { relative: args.rtol, absolute: args.atol };
    let runner = Runner::new(&compiled, args.engine, args.threads, &args.driver, &progress)?;
    progress.phase("running");
    let threads = args.threads.count;
    let (mut wrong, mut worst) = (vec![], 0f64);
    for record in &records {
        let outputs = runner.run(&record.inputs, steps, threads)?;
        if threads > 1 {
            let by_one = runner.run(&record.inputs, steps, 1)?;
            let other = |(_, (got, one)): &(usize, (&Tensor, &Tensor))| got.bytes() != one.bytes();
            wrong.extend(outputs.iter().zip(&by_one).enumerate().filter(other).map(|(i, _)| {
                format!("output {i} of {}: {threads} threads give other bits than one", record.name)
            }));
        }
        if outputs.len() != record.outputs.len() {
            let (got, want) = (outputs.len(), record.outputs.len());
            wrong.push(format!("outputs of {}: {got} and not {want}", record.name));
        }
        for (i, (got, want)) in outputs.iter().zip(&record.outputs).enumerate() {
            if got.ty() == want.ty() {
                worst = worst.max(error(got, want));
            }
            let of = if records.len() > 1 { format!(" of {}", record.name) } else { String::new() };
            wrong.extend(
                difference(got, want, bounds).map(|what| format!("output {i}{of}: {what}")),
            );
        }
    }
    drop(progress);
    if !wrong.is_empty() {
        return Err(Failure::Mismatch(wrong));
    }
    if quiet {
        return Ok(());
    }
    let sets =
        if records.len() == 1 { String::new() } else { format!(" on {} data sets", records.len()) };
    let outputs = compiled.module.io.outputs.len();
    output::print(format!(
        "{outputs} outputs match{sets}; the largest error is {worst:.1e} of the largest value"
    ))
}

fn reference(
    compiled: &Compiled,
    args: &Args,
    steps: u32,
    progress: &Progress,
) -> Result<Record, Errors> {
    let inputs = inputs::collect(&ports(compiled), &[], args.seed)?;
    progress.phase("running the reference interpreter");
    let outputs = Runner::Reference(compiled).run(&inputs, steps, 1)?;
    Ok(Record { name: format!("seed {}", args.seed), inputs, outputs })
}

fn recorded(compiled: &Compiled, data: &Path) -> Result<Vec<Record>, Errors> {
    if data.is_file() {
        return Ok(vec![of_rlx(compiled, data)?]);
    }
    if data.join("output_0.pb").is_file() || data.join("input_0.pb").is_file() {
        return Ok(vec![of_onnx(compiled, data)?]);
    }
    let failed = |e: std::io::Error| ErrorKind::io(format!("{}: {e}", data.display()));
    let mut folders: Vec<PathBuf> = vec![];
    for entry in std::fs::read_dir(data).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.join("output_0.pb").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    if folders.is_empty() {
        let kind = ErrorKind::io(format!(
            "{}: there is no output_0.pb, nor a folder with one",
            data.display()
        ));
        return Err(kind
            .help("recorded data is input_<i>.pb and output_<i>.pb, as the ONNX project keeps it")
            .into());
    }
    folders.iter().map(|f| of_onnx(compiled, f)).collect()
}

fn of_onnx(compiled: &Compiled, folder: &Path) -> Result<Record, Errors> {
    let ports = ports(compiled);
    let read = |i: usize, port: &&rlx_aot::lir::Port| {
        front::read_tensor(&folder.join(format!("input_{i}.pb")), Some(&port.ty))
    };
    let inputs =
        ports.iter().enumerate().map(|(i, port)| read(i, port)).collect::<Result<_, _>>()?;
    let outputs = (0..compiled.module.io.outputs.len())
        .map(|i| front::read_tensor(&folder.join(format!("output_{i}.pb")), None))
        .collect::<Result<_, _>>()?;
    let name = folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Ok(Record { name, inputs, outputs })
}

fn of_rlx(compiled: &Compiled, file: &Path) -> Result<Record, Errors> {
    let record = front::rlx::read_record(file)?;
    let find = |list: &[(String, Tensor)], name: &str| {
        list.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone())
    };
    let mut inputs = vec![];
    for port in ports(compiled) {
        let value = find(&record.inputs, &port.name).or_else(|| find(&record.params, &port.name));
        inputs.push(value.ok_or_else(|| {
            ErrorKind::wrong(format!("{}: it has no \"{}\"", file.display(), port.name))
        })?);
    }
    let outputs = record.outputs.into_iter().map(|(_, t)| t).collect();
    Ok(Record { name: file.display().to_string(), inputs, outputs })
}
