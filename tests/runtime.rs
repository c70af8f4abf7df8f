//! The C runtime and the C driver, built by the C compiler as users build them, with models that are written by hand
//! (`runtime/tests/fake.c`): warnings are errors, the sanitizers watch, and nothing is left undefined in
//! freestanding objects. Foreign compilers, valgrind and emulators take part where they are installed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const WARNINGS: &[&str] = &[
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wpedantic",
    "-Wundef",
    "-Werror",
    "-Iruntime",
];
const WRAPS: &str = "-Wl,--wrap=aligned_alloc,--wrap=mmap,--wrap=pthread_create";
const API: &[&str] = &["runtime/rlx_rt.c", "runtime/tests/fake.c", "runtime/tests/api.c"];
const DRIVER: &[&str] = &["runtime/rlx_rt.c", "runtime/tests/fake.c", "src/cli/driver.c"];
const SANITIZERS: &[&str] =
    &["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// A foreign target: compiler, emulator, and the folder of its libraries.
const FOREIGN: &[(&str, &str, &str)] = &[
    ("aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"),
    ("riscv64-linux-gnu-gcc", "qemu-riscv64", "/usr/riscv64-linux-gnu"),
    ("s390x-linux-gnu-gcc", "qemu-s390x", "/usr/s390x-linux-gnu"),
];

fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Output {
    let program = program.as_ref();
    Command::new(program)
        .args(arguments)
        .current_dir(ROOT)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn expect_success(what: &str, output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{text}", output.status);
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runtime").join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Compiles with warnings as errors; the result is `folder/name`.
fn compile(compiler: &str, folder: &Path, name: &str, flags: &[&[&str]]) -> String {
    let target = folder.join(name).to_str().unwrap().to_owned();
    let mut arguments = flags.concat();
    arguments.extend_from_slice(&["-o", &target]);
    expect_success(&format!("{compiler} {name}"), &run(compiler, &arguments));
    target
}

fn compile_api(compiler: &str, folder: &Path, name: &str, flags: &[&str]) -> String {
    compile(compiler, folder, name, &[&["-std=c11"], WARNINGS, flags, API, &[WRAPS, "-lm"]])
}

fn compile_driver(compiler: &str, folder: &Path, name: &str, flags: &[&str]) -> String {
    compile(compiler, folder, name, &[&["-std=c11"], WARNINGS, flags, DRIVER])
}

#[test]
fn header_compiles_alone() {
    let folder = folder("header");
    for (suffix, compiler, standards) in
        [("c", "cc", &["c11", "c17", "c2x"][..]), ("cc", "c++", &["c++11", "c++17", "c++20"])]
    {
        let source = folder.join(format!("alone.{suffix}"));
        std::fs::write(&source, "#include \"rlx_rt.h\"\nRLX_ARENA(arena, 128, 64);\nvoid *use(void);\nvoid *use(void) { return arena; }\n")
            .unwrap();
        for standard in standards {
            for extra in ["-URLX_NONE", "-DRLX_RT_THREADS", "-DRLX_RT_FREESTANDING"] {
                let standard = format!("-std={standard}");
                let flags = ["-c", &standard, extra, source.to_str().unwrap()];
                compile(compiler, &folder, "alone.o", &[WARNINGS, &flags]);
            }
        }
    }
}

#[test]
fn freestanding_object_needs_nothing() {
    let folder = folder("freestanding");
    let foreign = FOREIGN.iter().map(|target| target.0).filter(|compiler| installed(compiler));
    for compiler in std::iter::once("cc").chain(foreign) {
        for level in ["-O0", "-Os", "-O2", "-O3"] {
            let flags = [
                "-std=c11",
                "-DRLX_RT_FREESTANDING",
                "-ffreestanding",
                "-nostdlib",
                "-c",
                level,
                "runtime/rlx_rt.c",
            ];
            let object =
                compile(compiler, &folder, &format!("{compiler}{level}.o"), &[WARNINGS, &flags]);
            let symbols = run("nm", &["-u", &object]);
            expect_success("nm", &symbols);
            assert_eq!(String::from_utf8_lossy(&symbols.stdout), "", "{compiler} {level}");
        }
    }
}

/// No name of the runtime can clash with a program's.
#[test]
fn symbols_have_the_prefix() {
    let folder = folder("symbols");
    for flags in [&["-DRLX_RT_THREADS"][..], &["-DRLX_RT_FREESTANDING"]] {
        let object = compile(
            "cc",
            &folder,
            "rlx_rt.o",
            &[&["-std=c11", "-c", "runtime/rlx_rt.c"], WARNINGS, flags],
        );
        let symbols = run("nm", &["-g", "--defined-only", &object]);
        expect_success("nm", &symbols);
        let text = String::from_utf8_lossy(&symbols.stdout);
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.split(' ').next_back()).collect();
        assert!(names.len() > 15 && names.iter().all(|name| name.starts_with("rlx_")), "{names:?}");
    }
}

#[test]
fn api_under_address_and_undefined_sanitizers() {
    let folder = folder("asan");
    let flags = [SANITIZERS, &["-DRLX_RT_THREADS", "-pthread"]].concat();
    let program = compile_api("cc", &folder, "api", &flags);
    expect_success("api", &run(program, &[folder.to_str().unwrap()]));
    let flags = [SANITIZERS, &["-DRLX_RT_FREESTANDING", "-ffreestanding"]].concat();
    let program = compile(
        "cc",
        &folder,
        "api_freestanding",
        &[&["-std=c11"], WARNINGS, &flags, API, &["-lm"]],
    );
    expect_success("api, freestanding", &run(program, &[]));
}

#[test]
fn api_under_thread_sanitizer() {
    let folder = folder("tsan");
    let program = compile_api(
        "cc",
        &folder,
        "api",
        &["-g", "-O1", "-fsanitize=thread", "-DRLX_RT_THREADS", "-pthread"],
    );
    expect_success("api", &run(program, &[folder.to_str().unwrap()]));
}

/// The Rust pool's test of what loops see, where a nightly compiler with the sanitizer's runtime is installed. The standard library
/// is not instrumented, so that only reports count that begin in this crate's code, and no test takes part whose threads meet
/// through the library's own locks.
#[test]
fn rust_pool_under_thread_sanitizer() {
    let nightly = |program: &str| {
        Command::new("rustup").args(["run", "nightly", program, "--version"]).output()
    };
    if !nightly("cargo").is_ok_and(|output| output.status.success()) {
        return;
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new("rustup")
        .args([
            "run",
            "nightly",
            "cargo",
            "test",
            "--quiet",
            "--offline",
            "--lib",
            "--target",
            &target,
            "loops_see_what_loops_before_them_wrote",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/rust"))
        .env("CARGO_TARGET_DIR", folder("rust-tsan"))
        .env("RUSTFLAGS", "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer")
        .env("TSAN_OPTIONS", "exitcode=0")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // Another nightly may not know the flags, or have no sanitizer.
    if !text.contains("test result") {
        return;
    }
    assert!(text.contains("1 passed"), "{text}");
    let ours = text.lines().filter(|line| line.trim_start().starts_with("#0 rlx_aot_runtime::"));
    assert_eq!(ours.count(), 0, "{text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn damaged_weights_files() {
    let folder = folder("damage");
    let flags = ["-std=c11", "runtime/tests/damage.c"];
    let program = compile("cc", &folder, "damage", &[WARNINGS, SANITIZERS, &flags]);
    expect_success("damage", &run(program, &[]));
}

#[test]
fn api_on_foreign_targets() {
    for &(compiler, emulator, libraries) in FOREIGN {
        if installed(compiler) && installed(emulator) {
            let folder = folder(emulator);
            let program = compile_api(compiler, &folder, "api", &["-O2"]);
            expect_success(
                emulator,
                &run(emulator, &["-L", libraries, &program, folder.to_str().unwrap()]),
            );
        }
    }
}

#[test]
fn api_and_driver_under_valgrind() {
    if !installed("valgrind") {
        return;
    }
    let folder = folder("valgrind");
    let valgrind = ["-q", "--error-exitcode=99", "--leak-check=full"];
    let api = compile_api("cc", &folder, "api", &["-g", "-O1"]);
    expect_success(
        "api",
        &run("valgrind", &[&valgrind[..], &[&api, folder.to_str().unwrap()]].concat()),
    );
    let driver = compile_driver(
        "cc",
        &folder,
        "driver",
        &["-g", "-O1", "-DRLX_RT_THREADS", "-pthread", "-DRLX_DRIVER_MODEL=fake_model"],
    );
    let case = Case::new(&folder, false);
    let arguments = ["run", &case.list, &case.out, "--threads", "2"];
    expect_success("driver", &run("valgrind", &[&valgrind[..], &[&driver], &arguments].concat()));
    case.check(false);
}

/// Files for the driver: the fake model's inputs and parameters in a byte order, and their list.
struct Case {
    list: String,
    out: String,
}

impl Case {
    fn new(folder: &Path, big_endian: bool) -> Case {
        let bytes = |values: &[f32]| -> Vec<u8> {
            values
                .iter()
                .flat_map(|v| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() })
                .collect()
        };
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        std::fs::write(path("x.bin"), bytes(&[1., 2., 3., 4., 5., 6.])).unwrap();
        std::fs::write(path("p.bin"), bytes(&[10., 20., 30.])).unwrap();
        std::fs::write(path("negate.bin"), [0]).unwrap();
        let list =
            format!("0\t{}\n2\t{}\nnegate\t{}", path("x.bin"), path("p.bin"), path("negate.bin"));
        std::fs::write(path("list.txt"), list).unwrap();
        let _ = std::fs::remove_dir_all(path("out"));
        std::fs::create_dir(path("out")).unwrap();
        Case { list: path("list.txt"), out: path("out") }
    }

    /// Checks the outputs that the driver wrote, and removes them.
    fn check(&self, big_endian: bool) {
        let read = |name: &str| {
            let path = Path::new(&self.out).join(name);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            bytes
        };
        let values: Vec<f32> = read("out_0.bin")
            .chunks_exact(4)
            .map(|b| b.try_into().unwrap())
            .map(|b| if big_endian { f32::from_be_bytes(b) } else { f32::from_le_bytes(b) })
            .collect();
        assert_eq!(values, [12., 26., 45., 18., 35., 60.]);
        assert!(read("out_1.bin").is_empty());
    }
}

#[test]
fn driver_runs_measures_and_profiles() {
    let folder = folder("driver");
    let case = Case::new(&folder, false);
    let (list, out) = (&case.list, &case.out);
    let flags = [
        SANITIZERS,
        &["-DRLX_RT_THREADS", "-pthread", "-DRLX_DRIVER_MODEL=fake_model"],
        &["-DRLX_DRIVER_PROFILE=fake_run_profiled", "-DRLX_DRIVER_STEPS=2"],
    ]
    .concat();
    let driver = compile_driver("cc", &folder, "driver", &flags);
    for options in [
        &[][..],
        &["--guard", "--repeat", "3"],
        &["--guard-start", "--threads", "3"],
        &["--fill", "0"],
        &["--guard", "--fill", "127"],
    ] {
        expect_success("run", &run(&driver, &[&["run", list, out], options].concat()));
        case.check(false);
    }
    let keys_of = |mode: &str| -> serde_json::Value {
        let output = run(&driver, &[mode, list, out, "2", "10", "0.001"]);
        expect_success(mode, &output);
        case.check(false);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let bench = keys_of("bench");
    for key in [
        "median_us",
        "min_us",
        "mean_us",
        "p10_us",
        "p90_us",
        "p99_us",
        "first_us",
        "runs",
        "arena_bytes",
    ] {
        assert!(bench[key].as_f64().unwrap() > 0.0, "{key}: {bench}");
    }
    assert!(bench["min_us"].as_f64() <= bench["p10_us"].as_f64(), "{bench}");
    assert!(bench["p10_us"].as_f64() <= bench["median_us"].as_f64(), "{bench}");
    assert!(bench["median_us"].as_f64() <= bench["p99_us"].as_f64(), "{bench}");
    let profile = keys_of("profile");
    for key in ["steps_us", "steps_min_us", "busy_us"] {
        assert_eq!(profile[key].as_array().unwrap().len(), 2, "{key}: {profile}");
    }
}

#[test]
fn driver_says_what_is_wrong() {
    let folder = folder("wrong");
    let case = Case::new(&folder, false);
    let (list, out) = (&case.list, &case.out);
    let driver = compile_driver(
        "cc",
        &folder,
        "driver",
        &[SANITIZERS, &["-DRLX_DRIVER_MODEL=fake_model"]].concat(),
    );
    let external = compile_driver(
        "cc",
        &folder,
        "external",
        &[SANITIZERS, &["-DRLX_DRIVER_MODEL=fake_external_model"]].concat(),
    );
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let file = |name: &str, text: &str| {
        std::fs::write(path(name), text).unwrap();
        path(name)
    };
    let x = path("x.bin");
    let unknown = file("unknown.txt", &format!("nobody\t{x}\n"));
    let far = file("far.txt", &format!("3\t{x}\n"));
    let short = file("short.txt", &format!("p\t{x}\n"));
    let few = file("few.txt", &format!("x\t{x}\n"));
    let no_tab = file("no_tab.txt", "x\n");
    let gone = file("gone.txt", "x\tno such file\n");
    let cases: &[(&str, &[&str], i32, &str)] = &[
        (&driver, &[], 2, "arguments are missing"),
        (&driver, &["walk", list, out], 2, "unknown mode"),
        (&driver, &["run", list, out, "--fast", "1"], 2, "unknown option"),
        (&driver, &["run", list, out, "--threads"], 2, "wants a value"),
        (&driver, &["run", list, out, "--threads", "2"], 2, "RLX_RT_THREADS"),
        (&driver, &["run", list, out, "--fill", "256"], 2, "out of range"),
        (&driver, &["bench", list, out, "1", "1", "-1"], 2, "SECONDS"),
        (&driver, &["bench", list, out, "-1", "1", "1"], 2, "out of range"),
        (&driver, &["profile", list, out, "1", "1", "0"], 2, "--profile"),
        (&driver, &["run", "no such list", out], 4, "no such list: No such file"),
        (&driver, &["run", &gone, out], 4, "no such file: No such file"),
        (&driver, &["run", list, "no such folder"], 4, "no such folder/out_0.bin"),
        (&driver, &["run", &unknown, out], 7, "nobody: no tensor has this name"),
        (&driver, &["run", &far, out], 7, "no tensor has this index"),
        (&driver, &["run", &short, out], 7, "x.bin has 24 bytes, the tensor \"p\" has 12"),
        (&driver, &["run", &few, out], 2, "no line for \"negate\""),
        (&driver, &["run", &no_tab, out], 2, "a line without a tab"),
        (&driver, &["run", list, out, "--weights", &x], 7, "takes no weights from outside"),
        (&external, &["run", list, out], 7, "waits for weights that are not bound"),
        (&external, &["run", list, out, "--weights", &x], 7, "x.bin: the weights file is damaged"),
        (
            &external,
            &["run", list, out, "--weights", "nowhere"],
            7,
            "nowhere: the file cannot be opened",
        ),
    ];
    for &(program, arguments, code, text) in cases {
        let output = run(program, arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(
            message.starts_with("error: ") && message.contains(text),
            "{arguments:?}: {message}"
        );
    }
}

#[test]
fn driver_on_foreign_targets() {
    for &(compiler, emulator, libraries) in FOREIGN {
        if installed(compiler) && installed(emulator) {
            let folder = folder(&format!("driver-{emulator}"));
            let big_endian = emulator == "qemu-s390x";
            let case = Case::new(&folder, big_endian);
            let flags = ["-O2", "-DRLX_RT_THREADS", "-pthread", "-DRLX_DRIVER_MODEL=fake_model"];
            let driver = compile_driver(compiler, &folder, "driver", &flags);
            let arguments = [
                "-L",
                libraries,
                &driver,
                "run",
                &case.list,
                &case.out,
                "--guard",
                "--threads",
                "2",
            ];
            expect_success(emulator, &run(emulator, &arguments));
            case.check(big_endian);
        }
    }
}
