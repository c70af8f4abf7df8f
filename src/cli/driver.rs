//! The C program that runs what was compiled: built with the runtime, linked with the object, started
//! here or under an emulator. So a user's way is the one that is tested, and a crash is seen as one.

use super::progress::Progress;
use rlx_aot::codegen::{self, Object, Target, bundle};
use rlx_aot::compile::Compiled;
use rlx_aot::error::{Error, ErrorKind};
use rlx_aot::lir::Module;
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DRIVER: &str = include_str!("driver.c");

/// How the driver is built and started.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Args {
    /// The C compiler that builds and links the driver [default: $CC, else cc].
    #[arg(long, value_name = "CC")]
    pub(crate) cc: Option<String>,
    /// A program that starts the driver, with its arguments: "qemu-aarch64 -L /usr/aarch64-linux-gnu".
    #[arg(long, value_name = "COMMAND")]
    pub(crate) runner: Option<String>,
}

/// The threads of a run.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(skip)]
pub(crate) struct Threads {
    /// Threads that a run may use.
    #[arg(long = "threads", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) count: u32,
}

/// What a driver is built for.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) target: &'a Target,
    pub(crate) module: &'a Module,
    pub(crate) object: &'a Object,
}

impl<'a> From<&'a Compiled> for Parts<'a> {
    fn from(compiled: &'a Compiled) -> Parts<'a> {
        let Compiled { target, module, object, .. } = compiled;
        Parts { target, module, object }
    }
}

/// A driver for one model, in a folder that goes with it.
pub(crate) struct Driver {
    folder: tempfile::TempDir,
    runner: Vec<String>,
    big_endian: bool,
    weights: Option<PathBuf>,
    outputs: Vec<Type>,
}

impl Driver {
    /// Builds the driver.
    ///
    /// # Errors
    ///
    /// No C compiler, or one that fails.
    pub(crate) fn build<'a>(
        parts: impl Into<Parts<'a>>,
        args: &Args,
        progress: &Progress,
    ) -> Result<Driver, Error> {
        let Parts { target, module, object } = parts.into();
        let contract = &object.contract;
        progress.phase("linking the driver");
        let folder = tempfile::Builder::new().prefix("rlx-aot-").tempdir();
        let folder = folder.map_err(|e| ErrorKind::io(format!("temporary folder: {e}")))?;
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("driver.c", DRIVER),
            ("rlx_rt.c", bundle::RUNTIME_SOURCE),
            ("rlx_rt.h", bundle::RUNTIME_HEADER),
        ] {
            write(&at(name), text.as_bytes())?;
        }
        super::output::write(&at("model.o"), |to| object.write_to(to))?;
        let weights = contract.weights_mode.has_file().then(|| {
            let path = at("weights.safetensors");
            let write = |to: &mut dyn std::io::Write| {
                codegen::weights::write_file(module, contract, target.big_endian(), to)
            };
            super::output::write(&path, write).map(|()| path)
        });
        let weights = weights.transpose()?;
        let cc =
            args.cc.clone().or_else(|| std::env::var("CC").ok()).unwrap_or_else(|| "cc".to_owned());
        let mut words = cc.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("cc"));
        let prefix = &contract.prefix;
        command.args(words).args(["-std=gnu11", "-O1", "-pthread", "-DRLX_RT_THREADS"]);
        command.arg(format!("-DRLX_DRIVER_MODEL={prefix}_model"));
        if object.profile {
            command.arg(format!("-DRLX_DRIVER_PROFILE={prefix}_run_profiled"));
            command.arg(format!("-DRLX_DRIVER_STEPS={}", module.steps.len().max(1)));
        }
        command
            .args(["driver.c", "rlx_rt.c", "model.o", "-o", "driver"])
            .current_dir(folder.path());
        let foreign = is_foreign(target);
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let kind =
                    ErrorKind::io(format!("{cc} could not build the driver:\n{}", text.trim_end()));
                let kind = if foreign { kind.help(cross(target)) } else { kind };
                return Err(kind.into());
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let kind = ErrorKind::io(format!(
                    "there is no C compiler \"{cc}\", and running a model needs one"
                ));
                return Err(kind.help("install one (apt-get install gcc) or name yours: --cc clang; `build` needs none").into());
            }
            Err(e) => return Err(ErrorKind::io(format!("{cc}: {e}")).into()),
        }
        let runner =
            args.runner.iter().flat_map(|r| r.split_whitespace()).map(str::to_owned).collect();
        let outputs = module.io.outputs.iter().map(|p| p.ty.clone()).collect();
        Ok(Driver { folder, runner, big_endian: target.big_endian(), weights, outputs })
    }

    /// So many runs, one after the other: the outputs of the last for these values of the inputs and then the
    /// parameters. States are set for the first run only. The arena ends where memory ends, so that what reads
    /// or writes behind it is found.
    ///
    /// # Errors
    ///
    /// A driver that ends with a status, or crashes.
    pub(crate) fn run(
        &self,
        values: &[Tensor],
        runs: u32,
        threads: u32,
    ) -> Result<Vec<Tensor>, Error> {
        let flags = ["--guard", "--repeat", &runs.to_string(), "--threads", &threads.to_string()];
        self.start("run", values, &flags.map(str::to_owned))?;
        self.outputs()
    }

    /// What the driver prints in `mode`, with these arguments; its outputs are then in
    /// [`Driver::outputs`].
    ///
    /// # Errors
    ///
    /// As [`Driver::run`].
    pub(crate) fn start(
        &self,
        mode: &str,
        values: &[Tensor],
        arguments: &[String],
    ) -> Result<String, Error> {
        let at = |name: &str| self.folder.path().join(name);
        let mut list = String::new();
        for (i, value) in values.iter().enumerate() {
            let path = at(&format!("in_{i}.bin"));
            write(&path, &in_order(value.bytes(), value.ty().dtype, self.big_endian))?;
            list += &format!("{i}\t{}\n", path.display());
        }
        write(&at("list"), list.as_bytes())?;
        let driver = at("driver");
        let mut command = match self.runner.split_first() {
            Some((runner, rest)) => {
                let mut command = Command::new(runner);
                command.args(rest).arg(driver);
                command
            }
            None => Command::new(driver),
        };
        command.arg(mode).arg(at("list")).arg(self.folder.path()).args(arguments);
        if let Some(weights) = &self.weights {
            command.arg("--weights").arg(weights);
        }
        let output = command.output().map_err(|e| {
            let what = self.runner.first().map_or("the driver", String::as_str);
            let kind = ErrorKind::io(format!("{what} does not start: {e}"));
            kind.help("a model for another machine needs an emulator: --runner \"qemu-aarch64 -L /usr/aarch64-linux-gnu\"")
        })?;
        finished(&output)
    }

    /// What the last run computed.
    ///
    /// # Errors
    ///
    /// Files that are not there.
    pub(crate) fn outputs(&self) -> Result<Vec<Tensor>, Error> {
        let read = |(i, ty): (usize, &Type)| {
            let path = self.folder.path().join(format!("out_{i}.bin"));
            let bytes =
                std::fs::read(&path).map_err(|e| ErrorKind::io(format!("output {i}: {e}")))?;
            let bytes = in_order(&bytes, ty.dtype, self.big_endian);
            Tensor::from_bytes(ty.clone(), bytes.into())
                .ok_or_else(|| ErrorKind::bug(format!("output {i} is not as long as {ty}")).into())
        };
        self.outputs.iter().enumerate().map(read).collect()
    }
}

/// The JSON that a driver printed.
///
/// # Errors
///
/// A driver that printed something else.
pub(crate) fn parsed(text: &str) -> Result<serde_json::Value, ErrorKind> {
    serde_json::from_str(text)
        .map_err(|e| ErrorKind::bug(format!("the driver printed {text:?}: {e}")))
}

fn finished(output: &Output) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim_end().trim_start_matches("error: ");
    Err(match output.status.code() {
        Some(4) => ErrorKind::io(text.to_owned()).into(),
        Some(_) => ErrorKind::bug(format!("the driver ends with {}: {text}", output.status)).into(),
        None => {
            ErrorKind::bug(format!("the compiled model crashed: {} {text}", output.status)).into()
        }
    })
}

/// Bytes of little-endian elements in the target's order, or back.
pub(crate) fn in_order(bytes: &[u8], dtype: DType, big_endian: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if big_endian {
        bytes.chunks_exact_mut(dtype.bytes()).for_each(<[u8]>::reverse);
    }
    bytes
}

fn is_foreign(target: &Target) -> bool {
    Target::host().is_ok_and(|host| host.triple().architecture != target.triple().architecture)
}

fn cross(target: &Target) -> String {
    let architecture = target.triple().architecture;
    format!(
        "a driver for {} needs its compiler and an emulator: --cc {architecture}-linux-gnu-gcc --runner \"qemu-{architecture} -L /usr/{architecture}-linux-gnu\"",
        target.triple()
    )
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ErrorKind> {
    std::fs::write(path, bytes).map_err(|e| ErrorKind::io(format!("{}: {e}", path.display())))
}
