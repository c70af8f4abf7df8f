//! `rlx-aot bench`: how fast a compiled model runs, and what it needs.

use super::calibrate::Peaks;
use super::driver::{self, Driver};
use super::output::{bytes, duration};
use super::profile::Row;
use super::progress::Progress;
use super::run::ports;
use super::{Outcome, calibrate, inputs, model, output, profile};
use rlx_aot::compile::Compiled;
use rlx_aot::error::{Error, ErrorKind, Errors};
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Arguments of `rlx-aot bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    #[command(flatten)]
    driver: driver::Args,
    #[command(flatten)]
    threads: driver::Threads,
    /// Pin each thread to a processor of its own.
    #[arg(long)]
    pin: bool,
    /// At least this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// At least so many runs.
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// Values of the inputs: lines of name, dtype, shape and raw little-endian file, separated by tabs.
    #[arg(long, value_name = "LIST")]
    inputs: Option<PathBuf>,
    /// What the inputs are made from otherwise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write the outputs' bytes to DIR/out_<i>.bin.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// Show where the time goes, step by step, beside what this machine can do at best (measured
    /// by a short calibration).
    #[arg(long)]
    profile: bool,
    /// Write the profile as a trace for Chrome's about:tracing or Perfetto.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let progress = Progress::new(quiet);
    if args.model.overwrite_inputs {
        let kind = ErrorKind::usage(
            "--overwrite-inputs: bench runs many times on inputs that it sets once",
        );
        return Err(kind.help("leave it away: the arena is larger, the code is the same").into());
    }
    let start = Instant::now();
    let profiled = args.profile || args.trace.is_some();
    let compiled = args.model.compile(profiled, &progress)?;
    let build_seconds = start.elapsed().as_secs_f64();
    let values = match &args.inputs {
        Some(list) => listed(&compiled, list)?,
        None => inputs::collect(&ports(&compiled), &[], args.seed)?,
    };
    let driver = Driver::build(&compiled, &args.driver, &progress)?;
    progress.phase("measuring");
    let words = [3.to_string(), args.runs.to_string(), args.seconds.to_string()];
    let threads = ["--threads".to_owned(), args.threads.count.to_string()];
    let pin = args.pin.then(|| "--pin".to_owned());
    let words: Vec<String> = words.into_iter().chain(threads).chain(pin).collect();
    let measured = driver::parsed(&driver.start("bench", &values, &words)?)?;
    if let Some(folder) = &args.out_dir {
        write_outputs(&driver.outputs()?, folder)?;
    }
    let profile = match profiled {
        true => Some(profile(&compiled, &driver, &values, &words, args, &progress)?),
        false => None,
    };
    if let (Some(path), Some((_, steps))) = (&args.trace, &profile) {
        let trace = profile::trace(&compiled.module.name, steps);
        output::write(path, |to| writeln!(to, "{trace}"))?;
    }
    drop(progress);
    let (contract, plan) = (&compiled.object.contract, &compiled.module.plan);
    let (weights, code) = (contract.weights_size, compiled.object.code_bytes);
    let operations: u64 = compiled.module.steps.values().map(profile::operations).sum();
    if args.json {
        let mut line = measured;
        let more = json!({
            "model": compiled.module.name, "threads": args.threads.count, "build_s": build_seconds,
            "compile_s": build_seconds, "arena_bytes": contract.arena_size, "bound_bytes": plan.bound,
            "weights_bytes": weights, "code_bytes": code, "operations": operations,
        });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
            if let Some((peaks, steps)) = profile {
                line.insert("peaks".into(), json!(peaks));
                line.insert("kinds".into(), json!(profile::kinds(&steps)));
                line.insert("steps".into(), json!(steps));
            }
        }
        return output::print(line);
    }
    let us = |key: &str| duration(measured[key].as_f64().unwrap_or(f64::NAN) / 1e6);
    let rate = operations as f64 / measured["median_us"].as_f64().unwrap_or(f64::NAN) / 1e3;
    output::print(format!(
        "latency   median {}, min {}, 10 % {}, 90 % {}, 99 % {}, {} runs, {} threads\nrate      {rate:.1} GFLOP/s\nbuild     {}\nmemory    arena {} (bound {}), weights {}, code {}",
        us("median_us"),
        us("min_us"),
        us("p10_us"),
        us("p90_us"),
        us("p99_us"),
        measured["runs"],
        args.threads.count,
        duration(build_seconds),
        bytes(contract.arena_size),
        bytes(plan.bound),
        bytes(weights),
        bytes(code),
    ))?;
    if let Some((peaks, steps)) = profile.filter(|_| args.profile) {
        output::print(format!("\n{}", profile::table(&steps, &peaks, args.threads.count, 20)))?;
    }
    Ok(())
}

/// What the machine can do, and a row for each step.
fn profile(
    compiled: &Compiled,
    driver: &Driver,
    values: &[Tensor],
    words: &[String],
    args: &Args,
    progress: &Progress,
) -> Result<(Peaks, Vec<Row>), Error> {
    let measured = driver::parsed(&driver.start("profile", values, words)?)?;
    let of = |key: &str| measured[key].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let times: Vec<(f64, f64)> = of("steps_us").zip(of("busy_us")).collect();
    let peaks = calibrate::measure(&compiled.target, args.threads.count, &args.driver, progress)?;
    let rows = profile::rows(&compiled.module, &times, &peaks);
    Ok((peaks, rows))
}

fn write_outputs(outputs: &[Tensor], folder: &Path) -> Result<(), ErrorKind> {
    std::fs::create_dir_all(folder)
        .map_err(|e| ErrorKind::io(format!("{}: {e}", folder.display())))?;
    for (i, tensor) in outputs.iter().enumerate() {
        output::write(&folder.join(format!("out_{i}.bin")), |to| to.write_all(tensor.bytes()))?;
    }
    Ok(())
}

/// The values that a list names, in the order of the ports.
fn listed(compiled: &Compiled, list: &Path) -> Result<Vec<Tensor>, Errors> {
    let failed = |path: &Path, e: std::io::Error| ErrorKind::io(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(list).map_err(|e| failed(list, e))?;
    let ports = ports(compiled);
    let mut values: Vec<Option<Tensor>> = vec![None; ports.len()];
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let wrong = |what: &str| ErrorKind::wrong(format!("{}: {what}: {line}", list.display()));
        let [name, dtype, shape, file] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(wrong("a line is not name, dtype, shape and file").into());
        };
        let Some(index) = ports.iter().position(|p| p.name == name) else {
            continue; // A reference of other runtimes' inputs may list what this model does not use.
        };
        let dtype = dtype_of(dtype).ok_or_else(|| wrong("an unknown dtype"))?;
        let dims =
            shape.split(['x', ',']).filter(|d| !d.is_empty()).map(|d| d.trim().parse::<usize>());
        let dims: Vec<usize> = dims.collect::<Result<_, _>>().map_err(|_| wrong("no shape"))?;
        let ty = Type::try_new(dtype, dims).ok_or_else(|| wrong("too large"))?;
        if ty != ports[index].ty {
            return Err(wrong(&format!("the model's input is {}", ports[index].ty)).into());
        }
        let file = list.parent().unwrap_or(Path::new(".")).join(file);
        let bytes = std::fs::read(&file).map_err(|e| failed(&file, e))?;
        values[index] = Some(
            Tensor::from_bytes(ty, bytes.into()).ok_or_else(|| wrong("another number of bytes"))?,
        );
    }
    let all = ports.iter().zip(values).map(|(port, value)| {
        value.ok_or_else(|| {
            ErrorKind::wrong(format!("{}: it has no \"{}\"", list.display(), port.name)).into()
        })
    });
    all.collect()
}

fn dtype_of(name: &str) -> Option<DType> {
    let short = name.replace("float", "f").replace("uint", "u").replace("int", "i");
    DType::from_name(&short)
}
