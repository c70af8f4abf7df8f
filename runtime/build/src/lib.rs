//! Compiles models from `build.rs`, and gives each a typed Rust module.
//!
//! In `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! rlx-aot-runtime = "0.1"
//! [build-dependencies]
//! rlx-aot-build = "0.1"
//! ```
//!
//! In `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), rlx_aot_build::Error> {
//!     rlx_aot_build::compile("mlp.onnx")
//! }
//! ```
//!
//! In `src/main.rs`:
//!
//! ```text
//! rlx_aot_runtime::include_model!("mlp");
//!
//! fn main() -> Result<(), mlp::Error> {
//!     let mut model = mlp::Model::new()?;
//!     model.x_mut().copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
//!     model.run()?;
//!     println!("{:?}", model.y());
//!     Ok(())
//! }
//! ```
//!
//! The module has a method for each input, parameter and output of the model, typed and of its length, and constants for their
//! shapes. [`Builder`] has the options: symbolic dimensions, CPU, weights outside of the program.
//!
//! # The compiler
//!
//! The work is done by the program `rlx-aot`: the one that `RLX_AOT` names, else the one on `PATH`. `cargo install rlx-aot` gets it.
//! Nothing is downloaded, and no C compiler is needed. The code is for Cargo's target and for the features that the rest of the
//! program is compiled for: `RUSTFLAGS="-C target-cpu=native"` holds for the model too.
//!
//! # Environment
//!
//! | variable | |
//! | --- | --- |
//! | `RLX_AOT` | the program |
//! | `RLX_AOT_CPU` | the CPU, as `rlx-aot build --cpu` takes it, in place of the target's features |
//! | `RLX_AOT_FLAGS` | more arguments for `rlx-aot build`, separated by spaces |
//!
//! Of the last two, `RLX_AOT_CPU_<target>` (with `-` or `_`) comes first.

mod cargo;
mod generate;
mod json;
mod manifest;

use manifest::Manifest;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a model with the default options: [`Builder::compile`] of [`Builder::new`].
///
/// # Errors
/// As [`Builder::compile`].
pub fn compile(model: impl AsRef<Path>) -> Result<(), Error> {
    Builder::new(model).compile()
}

/// Where a model's weights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Weights {
    /// Into the program.
    #[default]
    Embed,
    /// Into a file beside the generated module, `WEIGHTS_FILE`, that the program binds at run time.
    External,
    /// As `External`, and from there into the arena.
    Arena,
}

/// A model to be compiled, and how.
#[derive(Clone, Debug)]
pub struct Builder {
    model: PathBuf,
    prefix: Option<String>,
    program: Option<PathBuf>,
    target: Option<String>,
    out_dir: Option<PathBuf>,
    cpu: Option<String>,
    dims: Vec<(String, u64)>,
    weights: Weights,
    params: Option<PathBuf>,
    flags: Vec<OsString>,
}

/// What [`Builder::compile_to`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compiled {
    /// Prefix of the model's symbols, and name of the module.
    pub prefix: String,
    /// Name of the static library, as a linker takes it.
    pub library_name: String,
    /// The static library.
    pub library: PathBuf,
    /// The generated Rust file.
    pub module: PathBuf,
    /// What the module was generated from: names, shapes and places as JSON.
    pub manifest: PathBuf,
    /// The weights file, if there is one.
    pub weights: Option<PathBuf>,
    /// Files that the result depends on: the model, what it refers to, and the compiler.
    pub dependencies: Vec<PathBuf>,
    /// What the compiler said, if anything.
    pub messages: String,
}

impl Builder {
    /// A model file; a relative path is relative to the package (where `Cargo.toml` is).
    pub fn new(model: impl AsRef<Path>) -> Builder {
        Builder {
            model: model.as_ref().to_owned(),
            prefix: None,
            program: None,
            target: None,
            out_dir: None,
            cpu: None,
            dims: Vec::new(),
            weights: Weights::Embed,
            params: None,
            flags: Vec::new(),
        }
    }

    /// The prefix of the model's symbols and the name of its module; by default the file's stem.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Builder {
        self.prefix = Some(prefix.into());
        self
    }

    /// Binds a symbolic dimension.
    pub fn dim(mut self, name: impl Into<String>, value: u64) -> Builder {
        self.dims.push((name.into(), value));
        self
    }

    /// Where the weights go; by default into the program.
    pub fn weights(mut self, weights: Weights) -> Builder {
        self.weights = weights;
        self
    }

    /// A safetensors file with values for the model's parameters, relative to the package.
    pub fn params(mut self, file: impl AsRef<Path>) -> Builder {
        self.params = Some(file.as_ref().to_owned());
        self
    }

    /// The CPU, as `rlx-aot build --cpu` takes it, in place of the features that Cargo compiles for.
    pub fn cpu(mut self, cpu: impl Into<String>) -> Builder {
        self.cpu = Some(cpu.into());
        self
    }

    /// One more argument for `rlx-aot build`.
    pub fn flag(mut self, flag: impl Into<OsString>) -> Builder {
        self.flags.push(flag.into());
        self
    }

    /// The target triple; by default Cargo's `TARGET`.
    pub fn target(mut self, triple: impl Into<String>) -> Builder {
        self.target = Some(triple.into());
        self
    }

    /// The folder for what is made; by default Cargo's `OUT_DIR`.
    pub fn out_dir(mut self, folder: impl AsRef<Path>) -> Builder {
        self.out_dir = Some(folder.as_ref().to_owned());
        self
    }

    /// The compiler, in place of `RLX_AOT` and `PATH`.
    pub fn program(mut self, program: impl AsRef<Path>) -> Builder {
        self.program = Some(program.as_ref().to_owned());
        self
    }

    /// Compiles from a build script: tells Cargo what to link and when to come again, and shows the compiler's
    /// diagnostics as Cargo's.
    ///
    /// # Errors
    /// Those of [`Builder::compile_to`]. They have been shown when this returns.
    pub fn compile(self) -> Result<(), Error> {
        let environment = cargo::Environment::default();
        let result = self.compile_in(&environment);
        print!("{}", cargo::instructions(&environment, &result));
        match &result {
            Ok(compiled) => eprint!("{}", compiled.messages),
            Err(Error::Failed { messages, .. }) => eprint!("{messages}"),
            Err(_) => {}
        }
        result.map(|_| ())
    }

    /// Compiles and says what was made; prints nothing.
    ///
    /// # Errors
    /// The compiler is not found or fails, a file cannot be written, or, outside of Cargo, the target or the folder is not given.
    pub fn compile_to(self) -> Result<Compiled, Error> {
        self.compile_in(&cargo::Environment::default())
    }

    fn compile_in(&self, environment: &cargo::Environment) -> Result<Compiled, Error> {
        let target = match &self.target {
            Some(target) => target.clone(),
            None => environment.require("TARGET")?,
        };
        let folder = match &self.out_dir {
            Some(folder) => folder.clone(),
            None => environment.require("OUT_DIR")?.into(),
        };
        let model = environment.in_package(&self.model);
        let prefix = match &self.prefix {
            Some(prefix) => prefix.clone(),
            None => prefix_of(&model),
        };
        let program = cargo::find_program(self.program.as_deref(), environment)?;
        // The library has a prefix of its own, lest a model `m` is taken for the mathematical library.
        let library_name = format!("rlx_{prefix}");
        let file = |suffix: &str| folder.join(format!("{prefix}{suffix}"));
        let library = folder.join(format!("lib{library_name}.a"));
        let (manifest, depfile, module) = (file(".json"), file(".d"), file(".rs"));
        let weights = (self.weights != Weights::Embed).then(|| file(".safetensors"));

        let mut command = Command::new(&program);
        command
            .arg("build")
            .arg(&model)
            .args(["--target", &target, "--prefix", &prefix, "--quiet"]);
        match self.cpu.clone().or_else(|| environment.for_target("RLX_AOT_CPU", &target)) {
            Some(cpu) => {
                command.args(["--cpu", &cpu]);
            }
            None => {
                let features = environment.get("CARGO_CFG_TARGET_FEATURE");
                let (cpu, features) = cargo::cpu(&target, features.as_deref().unwrap_or_default());
                command.args(["--cpu", cpu]);
                if !features.is_empty() {
                    command.args(["--features", &features]);
                }
            }
        }
        for (name, value) in &self.dims {
            command.args(["--dim", &format!("{name}={value}")]);
        }
        if let Some(params) = &self.params {
            command.arg("--params").arg(environment.in_package(params));
        }
        command.args(["--weights", self.weights.name()]);
        let emitted =
            [("lib", Some(&library)), ("manifest", Some(&manifest)), ("weights", weights.as_ref())];
        for (kind, path) in emitted {
            if let Some(path) = path {
                let mut argument = OsString::from(format!("{kind}="));
                argument.push(path);
                command.arg("--emit").arg(argument);
            }
        }
        command.arg("--depfile").arg(&depfile).args(&self.flags);
        if let Some(flags) = environment.for_target("RLX_AOT_FLAGS", &target) {
            command.args(flags.split_whitespace());
        }

        let output =
            command.output().map_err(|error| Error::Start { program: program.clone(), error })?;
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(Error::Failed {
                command: format!("{command:?}"),
                status: output.status,
                messages,
            });
        }
        let text = read(&manifest)?;
        let parsed = Manifest::parse(&text)
            .map_err(|reason| Error::Manifest { path: manifest.clone(), reason })?;
        let source = generate::module(&parsed, &prefix, &model, weights.as_deref());
        std::fs::write(&module, source)
            .map_err(|error| Error::File { path: module.clone(), error })?;
        let mut dependencies = vec![model];
        for dependency in cargo::parse_depfile(&read(&depfile)?) {
            if !dependencies.contains(&dependency) {
                dependencies.push(dependency);
            }
        }
        dependencies.push(program);
        Ok(Compiled {
            prefix,
            library_name,
            library,
            module,
            manifest,
            weights,
            dependencies,
            messages,
        })
    }
}

impl Weights {
    fn name(self) -> &'static str {
        match self {
            Weights::Embed => "embed",
            Weights::External => "external",
            Weights::Arena => "arena",
        }
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), error })
}

/// The prefix that a model file gets: its stem as an identifier.
fn prefix_of(model: &Path) -> String {
    let stem = model.file_stem().unwrap_or_default().to_string_lossy();
    let word: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) { word } else { format!("model_{word}") }
}

/// Why a model was not compiled. `Debug` prints the same text as `Display`, for `main` to return it.
#[non_exhaustive]
pub enum Error {
    /// A variable that Cargo sets is missing: this is no build script, and the builder was not told.
    Variable {
        /// Its name.
        name: &'static str,
    },
    /// There is no `rlx-aot`.
    NotFound {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// The compiler does not start.
    Start {
        /// The compiler.
        program: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The compiler refused the model, or failed.
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it said.
        messages: String,
    },
    /// A file cannot be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The compiler's manifest is not understood: compiler and this crate are of different versions.
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Variable { name } => {
                write!(
                    f,
                    "{name} is not set: outside of a build script, tell the builder the target and the folder"
                )
            }
            Error::NotFound { program } => write!(
                f,
                "the model compiler {} is not there; get it by `cargo install rlx-aot`, or set RLX_AOT to its path",
                program.display()
            ),
            Error::Start { program, error } => {
                write!(f, "{} does not start: {error}", program.display())
            }
            Error::Failed { command, status, messages } => {
                match messages.lines().find(|line| !line.is_empty()) {
                    Some(first) => write!(f, "{}", first.strip_prefix("error: ").unwrap_or(first)),
                    None => write!(f, "the model compiler failed ({status}): {command}"),
                }
            }
            Error::File { path, error } => write!(f, "{}: {error}", path.display()),
            Error::Manifest { path, reason } => write!(
                f,
                "{}: {reason}; rlx-aot and rlx-aot-build {} seem to be of different versions",
                path.display(),
                env!("CARGO_PKG_VERSION")
            ),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
