//! `rlx-aot build`: a model to an object file, and what else is asked for.

use super::output::{bytes, duration};
use super::progress::Progress;
use super::{Outcome, model, output, together};
use rlx_aot::codegen::{archive, bundle};
use rlx_aot::compile::{Compiled, Options};
use rlx_aot::error::{Error, ErrorKind, nearest};
use rlx_aot::lir;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Arguments of `rlx-aot build`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) model: model::Args,
    /// More models that share one arena with the first.
    #[arg(value_name = "MODEL", requires = "shared_arena")]
    pub(crate) more: Vec<PathBuf>,
    /// Plan several models into one arena: parameters, states and what is prepared are each one's own, all else is shared,
    /// so that no two may run at the same time. Writes an object and a header for each and NAME.h for the arena into the
    /// folder that -o names. [default: shared]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "shared",
          conflicts_with_all = ["emit", "bundle", "depfile", "plan"])]
    pub(crate) shared_arena: Option<String>,
    /// The object file; the header goes beside it. The ending may choose another kind: .a, .so, .h, .s, .json. [default: MODEL's name with .o, in this folder]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What to write, each to the output's name with its own ending or to the file that is given:
    /// obj, header, manifest, lib, shared, asm, clif, kir, lir, lir-json, mir, weights. [default: obj,header]
    #[arg(long, value_name = "KIND[=FILE]", value_delimiter = ',')]
    emit: Vec<String>,
    /// Write object, header, runtime and a small program into this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "emit"])]
    bundle: Option<PathBuf>,
    /// Write what the object depends on, as a rule for make.
    #[arg(long, value_name = "FILE")]
    depfile: Option<PathBuf>,
    /// Add <prefix>_run_profiled, which times every step.
    #[arg(long)]
    pub(crate) profile: bool,
    /// The C compiler that links a shared library [default: $CC, else cc].
    #[arg(long, value_name = "CC")]
    cc: Option<String>,
    /// Print the manifest as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Something that can be written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Object,
    Header,
    Manifest,
    Library,
    Shared,
    Assembler,
    Clif,
    Kir,
    Lir,
    LirJson,
    Mir,
    Weights,
}

/// Names and endings of all kinds.
const KINDS: [(&str, &str, Kind); 12] = [
    ("obj", "o", Kind::Object),
    ("header", "h", Kind::Header),
    ("manifest", "manifest.json", Kind::Manifest),
    ("lib", "a", Kind::Library),
    ("shared", "so", Kind::Shared),
    ("asm", "s", Kind::Assembler),
    ("clif", "clif", Kind::Clif),
    ("kir", "kir", Kind::Kir),
    ("lir", "lir", Kind::Lir),
    ("lir-json", "lir.json", Kind::LirJson),
    ("mir", "mir", Kind::Mir),
    ("weights", "safetensors", Kind::Weights),
];

impl Kind {
    fn named(name: &str) -> Result<Kind, ErrorKind> {
        let found = KINDS.iter().find(|(n, ..)| *n == name);
        found.map(|&(.., kind)| kind).ok_or_else(|| {
            let names = || KINDS.iter().map(|&(n, ..)| n);
            let kind = ErrorKind::usage(format!("--emit {name}: there is no such kind"));
            match nearest(name, names()) {
                Some(near) => kind.help(format!("did you mean {near}?")),
                None => {
                    kind.help(format!("the kinds are {}", names().collect::<Vec<_>>().join(", ")))
                }
            }
        })
    }

    fn ending(self) -> &'static str {
        KINDS.iter().find(|&&(.., kind)| kind == self).map_or("out", |&(_, ending, _)| ending)
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    if let Some(name) = &args.shared_arena {
        return together::run(args, name, quiet);
    }
    let start = Instant::now();
    let progress = Progress::new(quiet || args.json);
    let default = PathBuf::from(format!("{}.o", args.model.stem()));
    let main = args.output.clone().unwrap_or(default);
    let wanted = wanted(args, &main)?;
    let name =
        main.file_name().map_or_else(|| args.model.stem(), |n| n.to_string_lossy().into_owned());
    let stem = match (&args.bundle, name.split('.').next()) {
        (None, Some(stem)) if !stem.is_empty() && stem != "-" => stem.to_owned(),
        _ => args.model.stem(),
    };
    if let Some((path, _)) = wanted.iter().find(|(p, _)| same(p, &args.model.model)) {
        return Err(
            ErrorKind::usage(format!("the output {} is the model itself", path.display())).into()
        );
    }
    let options = Options {
        profile: args.profile,
        listing: wanted.values().any(|&k| k == Kind::Assembler),
        ..args.model.options(&stem)?
    };
    let reading = Instant::now();
    let source = args.model.read(&progress)?;
    let reading = reading.elapsed();
    let compiled = args.model.compiled(source, &options, &progress)?;
    progress.phase("writing");
    match &args.bundle {
        Some(folder) => write_bundle(&compiled, folder)?,
        None => {
            for (path, &kind) in &wanted {
                write(&compiled, kind, path, args)?;
            }
            let asked = wanted.values().any(|&k| k == Kind::Weights);
            if let Some(write) = compiled.weights_file().filter(|_| !asked) {
                output::write(&main.with_extension("safetensors"), |to| write(to))?;
            }
        }
    }
    if let Some(path) = &args.depfile {
        let targets: Vec<String> = wanted.keys().map(|p| escaped(p)).collect();
        let files: Vec<String> = compiled.files.iter().map(|p| escaped(p)).collect();
        output::write(path, |to| writeln!(to, "{}: {}", targets.join(" "), files.join(" ")))?;
    }
    drop(progress);
    if args.json {
        return output::print(compiled.manifest());
    }
    if !quiet {
        let plan = &compiled.module.plan;
        let to = args.bundle.as_ref().unwrap_or(&main).display();
        eprintln!(
            "{to}: arena {} ({}), weights {}, code {}, in {} ({})",
            bytes(compiled.object.contract.arena_size),
            if plan.arena_size <= plan.bound {
                "optimal".to_owned()
            } else {
                format!("bound {}", bytes(plan.bound))
            },
            bytes(compiled.object.contract.weights_size),
            bytes(compiled.object.code_bytes),
            duration(start.elapsed().as_secs_f64()),
            output::times(reading, &compiled.times),
        );
        if let Some(price) = &compiled.price {
            eprintln!("{to}: {}", output::price(price));
        }
    }
    Ok(())
}

/// The files to write.
fn wanted(args: &Args, main: &Path) -> Result<BTreeMap<PathBuf, Kind>, ErrorKind> {
    let mut wanted = BTreeMap::new();
    if args.bundle.is_some() {
        return Ok(wanted);
    }
    if args.emit.is_empty() {
        let ending =
            main.extension().map_or_else(String::new, |e| e.to_string_lossy().into_owned());
        let kind =
            KINDS.iter().find(|&&(_, e, _)| e == ending).map_or(Kind::Object, |&(.., kind)| kind);
        wanted.insert(main.to_owned(), kind);
        if matches!(kind, Kind::Object | Kind::Library | Kind::Shared) && main.as_os_str() != "-" {
            wanted.insert(main.with_extension("h"), Kind::Header);
        }
    }
    for text in &args.emit {
        let (name, file) =
            text.split_once('=').map_or((text.as_str(), None), |(n, f)| (n, Some(f)));
        let kind = Kind::named(name)?;
        let path = file.map_or_else(|| main.with_extension(kind.ending()), PathBuf::from);
        if wanted.insert(path.clone(), kind).is_some_and(|other| other != kind) {
            return Err(ErrorKind::usage(format!(
                "two kinds of output would be written to {}",
                path.display()
            )));
        }
    }
    Ok(wanted)
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn write(compiled: &Compiled, kind: Kind, path: &Path, args: &Args) -> Result<(), Error> {
    let text = |text: String| output::write(path, |to| to.write_all(text.as_bytes()));
    match kind {
        Kind::Object => output::write(path, |to| compiled.object.write_to(to))?,
        Kind::Header => text(compiled.header())?,
        Kind::Manifest => text(format!("{:#}\n", compiled.manifest()))?,
        Kind::Library => {
            let archive = archive::archive(&compiled.object)?;
            output::write(path, |to| to.write_all(&archive))?;
        }
        Kind::Shared => shared(compiled, path, args)?,
        Kind::Assembler => text(compiled.object.listing.clone().unwrap_or_default())?,
        Kind::Clif => text(compiled.clif()?)?,
        Kind::Kir => text(compiled.program.to_string())?,
        Kind::Lir => text(compiled.module.to_string())?,
        Kind::LirJson => text(format!("{}\n", lir::json::to_json(&compiled.module, true)))?,
        Kind::Mir => text(compiled.mir.to_string())?,
        Kind::Weights => match compiled.weights_file() {
            Some(write) => output::write(path, |to| write(to))?,
            None => {
                let kind = ErrorKind::usage("--emit weights: the model has no weights file");
                return Err(kind
                    .help("its weights are in the object: add --weights external")
                    .into());
            }
        },
    }
    Ok(())
}

/// A shared library, by the C compiler.
fn shared(compiled: &Compiled, path: &Path, args: &Args) -> Result<(), Error> {
    let folder =
        tempfile::tempdir().map_err(|e| ErrorKind::io(format!("temporary folder: {e}")))?;
    let [from, to] = ["model.o", "model.so"].map(|name| folder.path().join(name));
    output::write(&from, |to| compiled.object.write_to(to))?;
    let cc =
        args.cc.clone().or_else(|| std::env::var("CC").ok()).unwrap_or_else(|| "cc".to_owned());
    let mut words = cc.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    command.args(words).args(["-shared", "-nostdlib", "-o"]).arg(&to).arg(&from);
    let result = command.output().map_err(|e| {
        let kind = ErrorKind::io(format!(
            "{cc} does not start ({e}), and a shared library needs a C compiler to link it"
        ));
        kind.help(
            "install one, name yours with --cc, or write an object or a static library instead",
        )
    })?;
    if !result.status.success() {
        let text = String::from_utf8_lossy(&result.stderr).trim_end().to_owned();
        return Err(ErrorKind::io(format!("{cc} could not link the library:\n{text}")).into());
    }
    let linked = std::fs::read(&to).map_err(|e| ErrorKind::io(format!("{}: {e}", to.display())))?;
    Ok(output::write(path, |to| to.write_all(&linked))?)
}

fn write_bundle(compiled: &Compiled, folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder)
        .map_err(|e| ErrorKind::io(format!("{}: {e}", folder.display())))?;
    let contract = &compiled.object.contract;
    let prefix = &contract.prefix;
    let weights = compiled.weights_file().map(|write| (format!("{prefix}.safetensors"), write));
    let name = weights.as_ref().map(|(name, _)| name.as_str());
    let texts = [
        (format!("{prefix}.h"), compiled.header()),
        ("rlx_rt.h".to_owned(), bundle::RUNTIME_HEADER.to_owned()),
        ("rlx_rt.c".to_owned(), bundle::RUNTIME_SOURCE.to_owned()),
        ("main.c".to_owned(), bundle::main_c(contract, name)),
    ];
    output::write(&folder.join(format!("{prefix}.o")), |to| compiled.object.write_to(to))?;
    for (name, text) in texts {
        output::write(&folder.join(name), |to| to.write_all(text.as_bytes()))?;
    }
    if let Some((name, write)) = &weights {
        output::write(&folder.join(name), |to| write(to))?;
    }
    Ok(())
}

/// A path as a word of a rule for make.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(' ', "\\ ").replace('$', "$$").replace('#', "\\#")
}
