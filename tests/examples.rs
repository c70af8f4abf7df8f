//! The examples, built and run as their readers do it, with the compiler of this build. Foreign targets take part where
//! their compilers and emulators are installed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

const COMPILER: &str = env!("CARGO_BIN_EXE_rlx-aot");
const TABLE: &str = "0 xor 0 = 0\n0 xor 1 = 1\n1 xor 0 = 1\n1 xor 1 = 0\n";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// An empty folder for what a test builds.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs a command that must succeed; what it prints.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// `make run` in an example.
fn make(name: &str, build: &Path, variables: &[String]) -> String {
    let build = format!("BUILD={}", build.display());
    let compiler = format!("RLX_AOT={COMPILER}");
    output(
        Command::new("make")
            .args(["-s", "-C"])
            .arg(example(name))
            .args([&build, &compiler])
            .args(variables),
    )
}

#[test]
fn c() {
    assert_eq!(make("c", &folder("c"), &[]), TABLE);
}

#[test]
fn rust() {
    let folder = folder("rust");
    let printed = output(
        Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--offline"])
            .current_dir(example("rust"))
            .env("RLX_AOT", COMPILER)
            .env("CARGO_TARGET_DIR", &folder),
    );
    assert_eq!(printed, TABLE);
}

#[test]
fn embedded() {
    let folder = folder("embedded");
    make("embedded", &folder, &[]);
    // Nothing but the kernel is under these programs.
    let headers = |program: &str| {
        let headers = output(Command::new("readelf").args(["-dlW"]).arg(folder.join(program)));
        assert!(!headers.contains("INTERP") && !headers.contains("NEEDED"), "{headers}");
        headers
    };
    headers("xor");
    // Code and weights, the fast memory, the arena: each where the linker's script says.
    let headers = headers("memories");
    let loaded: Vec<&str> = headers.lines().filter(|line| line.contains("LOAD ")).collect();
    let starts = ["0x0000000008000000", "0x0000000020000000", "0x0000000024000000"];
    assert!(
        loaded.len() == 3 && starts.iter().zip(loaded).all(|(start, line)| line.contains(start))
    );
}

#[test]
fn embedded_on_foreign_targets() {
    for (cross, target, emulator) in [
        ("aarch64-linux-gnu-", "aarch64-unknown-linux-gnu", "qemu-aarch64"),
        (
            "riscv64-linux-gnu-",
            "riscv64gc-unknown-linux-gnu",
            "qemu-riscv64 -cpu rv64,v=true,vlen=128,vext_spec=v1.0",
        ),
    ] {
        let program = emulator.split(' ').next().unwrap();
        if installed(&format!("{cross}gcc")) && installed(program) {
            let variables = [
                format!("CROSS={cross}"),
                format!("TARGET={target}"),
                format!("RUNNER={emulator}"),
            ];
            make("embedded", &folder(program), &variables);
        }
    }
}
