//! The builder with a shell script in place of the compiler, and a whole Cargo project with an object that the C compiler made.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rlx_aot_build::{Builder, Error, Weights};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MANIFEST: &str = r#"{
  "name": "fake", "prefix": "fake", "abi": 1, "arena_size": 576, "arena_align": 64,
  "inputs": [
    {"name": "x", "dtype": "f32", "shape": [2, 3], "offset": 64, "bytes": 24},
    {"name": "negate", "dtype": "bool", "shape": [], "offset": 256, "bytes": 1}
  ],
  "outputs": [
    {"name": "y", "dtype": "f32", "shape": [2, 3], "offset": 192, "bytes": 24},
    {"name": "empty", "dtype": "f32", "shape": [0, 4], "offset": 320, "bytes": 0}
  ],
  "params": [{"name": "p", "dtype": "f32", "shape": [3], "offset": 128, "bytes": 12}],
  "weights_mode": "embedded", "weights_size": 128, "weights_offset": 0,
  "fingerprint": "001fa5ff00000000000000000000000000000000000000000000000000000000"
}"#;

/// A compiler that notes its arguments in `arguments`, and writes what `--emit` and `--depfile` ask for; `library` is the command
/// that makes the library `$lib`.
fn compiler(folder: &Path, library: &str) -> PathBuf {
    let script = format!(
        r#"#!/bin/sh
folder='{folder}'
printf '%s\n' "$@" > "$folder/arguments"
while [ $# -gt 0 ]; do
  case "$1" in
    --emit) case "$2" in
      lib=*) lib="${{2#lib=}}";;
      manifest=*) cp "$folder/manifest" "${{2#manifest=}}";;
      esac; shift;;
    --depfile) printf 'out: %s \\\n %s\n' model.onnx "$folder/more\ data.bin" > "$2"; shift;;
  esac
  shift
done
{library}
"#,
        folder = folder.display()
    );
    std::fs::write(folder.join("manifest"), MANIFEST).unwrap();
    write_program(&folder.join("compiler"), &script)
}

fn write_program(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// An empty folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn builder(folder: &Path) -> Builder {
    Builder::new("/models/fake-model.onnx").target("x86_64-unknown-linux-gnu").out_dir(folder)
}

#[test]
fn arguments_and_results() {
    let folder = folder("arguments");
    let compiled = builder(&folder)
        .program(compiler(&folder, "echo 'warning: slow' >&2"))
        .dim("batch", 1)
        .dim("length", 128)
        .cpu("x86-64-v3")
        .params("/models/p.safetensors")
        .weights(Weights::External)
        .flag("-O0")
        .compile_to()
        .unwrap();
    let path = |name: &str| folder.join(name);
    let arguments = std::fs::read_to_string(path("arguments")).unwrap();
    let expected = [
        "build",
        "/models/fake-model.onnx",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--prefix",
        "fake_model",
        "--quiet",
        "--cpu",
        "x86-64-v3",
        "--dim",
        "batch=1",
        "--dim",
        "length=128",
        "--params",
        "/models/p.safetensors",
        "--weights",
        "external",
        "--emit",
        &format!("lib={}", path("librlx_fake_model.a").display()),
        "--emit",
        &format!("manifest={}", path("fake_model.json").display()),
        "--emit",
        &format!("weights={}", path("fake_model.safetensors").display()),
        "--depfile",
        &path("fake_model.d").display().to_string(),
        "-O0",
    ];
    assert_eq!(arguments.lines().collect::<Vec<_>>(), expected);
    assert_eq!((&*compiled.prefix, &*compiled.library_name), ("fake_model", "rlx_fake_model"));
    assert_eq!(
        (compiled.library, compiled.manifest),
        (path("librlx_fake_model.a"), path("fake_model.json"))
    );
    assert_eq!(compiled.weights, Some(path("fake_model.safetensors")));
    let dependencies = [
        "/models/fake-model.onnx".into(),
        "model.onnx".into(),
        path("more data.bin"),
        path("compiler"),
    ];
    assert_eq!(compiled.dependencies, dependencies);
    assert_eq!(compiled.messages, "warning: slow\n");
    let module = std::fs::read_to_string(compiled.module).unwrap();
    for line in [
        "pub mod fake_model {",
        "    pub const X_SHAPE: [usize; 2] = [2, 3];",
        "        pub fn x_mut(&mut self) -> &mut [f32; 6] {",
        "        pub fn negate(&self) -> &[u8; 1] {",
        "        pub fn p_mut(&mut self) -> &mut [f32; 3] {",
        "        pub fn empty(&self) -> &[f32; 0] {",
        "/// | input | `negate` | bool | `[]` |",
    ] {
        assert!(module.lines().any(|other| other == line), "{line}\n{module}");
    }
    assert!(!module.contains("fn y_mut"), "{module}");
}

#[test]
fn what_goes_wrong() {
    let folder = folder("wrong");
    let missing = builder(&folder).program("/nowhere/rlx-aot").compile_to().unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }));
    assert!(missing.to_string().contains("cargo install rlx-aot"), "{missing}");

    let text = "echo 'error: inner dimensions differ' >&2; echo ' --> node \"a\"' >&2; exit 1";
    let failed = builder(&folder).program(compiler(&folder, text)).compile_to().unwrap_err();
    assert!(matches!(&failed, Error::Failed { messages, .. } if messages.lines().count() == 2));
    assert_eq!(failed.to_string(), "inner dimensions differ");
    let silent = builder(&folder).program(compiler(&folder, "exit 7")).compile_to().unwrap_err();
    assert!(silent.to_string().contains("exit status: 7"), "{silent}");

    let program = write_program(&folder.join("idle"), "#!/bin/sh\n");
    let nothing = builder(&folder.join("other")).program(&program).compile_to().unwrap_err();
    assert!(matches!(nothing, Error::File { .. }), "{nothing}");
    let program = write_program(&folder.join("no program"), "");
    let start = builder(&folder).program(&program).compile_to();
    assert!(matches!(start, Err(Error::Start { .. })), "{start:?}");

    for (from, to, text) in [
        ("\"abi\": 1", "\"abi\": 2", "ABI version 2"),
        ("\"bool\"", "\"string\"", "not an element type"),
        ("\"shape\": [3]", "\"shape\": 3", "not an array"),
        ("[2, 3]", "[4294967296, 4294967296]", "out of range"),
        ("001f", "001g", "fingerprint"),
        ("\"params\"", "\"parameters\"", "there is no \"params\""),
        ("\"embedded\"", "\"somewhere\"", "not a place for weights"),
        ("576,", "576", "not the JSON that is expected"),
    ] {
        let program = compiler(&folder, "");
        std::fs::write(folder.join("manifest"), MANIFEST.replace(from, to)).unwrap();
        let error = builder(&folder).program(program).compile_to().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// `cargo run` in the project, with the compiler.
fn cargo_run(project: &Path, compiler: &Path) -> Output {
    Command::new(env!("CARGO"))
        .args(["run", "--offline", "--quiet"])
        .current_dir(project)
        .env("RLX_AOT", compiler)
        .env("CARGO_TARGET_DIR", project.join("target"))
        .output()
        .unwrap()
}

#[test]
fn cargo_project() {
    let project = folder("project");
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let crates = runtime.display();
    std::fs::create_dir(project.join("src")).unwrap();
    let files = [
        (
            "Cargo.toml",
            format!(
                "[package]\nname = \"project\"\nedition = \"2024\"\n[workspace]\n\
                 [dependencies]\nrlx-aot-runtime = {{ path = \"{crates}/rust\" }}\n\
                 [build-dependencies]\nrlx-aot-build = {{ path = \"{crates}/build\" }}\n"
            ),
        ),
        (
            "build.rs",
            "fn main() -> Result<(), rlx_aot_build::Error> {\n    rlx_aot_build::compile(\"fake.onnx\")\n}\n".into(),
        ),
        (
            "src/main.rs",
            r#"#![deny(warnings)]
//! A test.
rlx_aot_runtime::include_model!("fake");

fn main() -> Result<(), fake::Error> {
    let mut model = fake::Model::new()?;
    *model.x_mut() = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    *model.p_mut() = [10.0, 20.0, 30.0];
    model.run()?;
    println!("{} {:?} {:?}", fake::NAME, fake::Y_SHAPE, model.y());
    Ok(())
}
"#
            .into(),
        ),
        ("fake.onnx", String::new()),
    ];
    for (name, text) in files {
        std::fs::write(project.join(name), text).unwrap();
    }
    let library = format!(
        "cc -std=c11 -O1 -c -I{crates} {crates}/tests/fake.c -o \"$folder/fake.o\" && ar rcs \"$lib\" \"$folder/fake.o\""
    );
    let good = compiler(&project, &library);
    let output = cargo_run(&project, &good);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "fake [2, 3] [12.0, 26.0, 45.0, 18.0, 35.0, 60.0]\n",
        "{errors}"
    );

    // The compiler's diagnostics become Cargo's.
    let text =
        "echo 'error: unknown operator \"Conf\"' >&2; echo ' --> node \"a\" (Conf)' >&2; exit 3";
    let bad = write_program(&project.join("bad"), &format!("#!/bin/sh\n{text}\n"));
    let output = cargo_run(&project, &bad);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("error: project@0.0.0: unknown operator \"Conf\""), "{errors}");
    assert!(errors.contains("node \"a\" (Conf)"), "{errors}");

    let output = cargo_run(&project, Path::new("/nowhere/rlx-aot"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("error: project@0.0.0: the model compiler /nowhere/rlx-aot is not there"),
        "{errors}"
    );
}
