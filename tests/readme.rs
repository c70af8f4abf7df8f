//! What the README promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rlx_aot::front::onnx::FUSED;
use rlx_aot::ops::AnyOp;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- generated: UPDATE_EXPECT=1 cargo test --test readme -->\n";
const END: &str = "<!-- end -->";

/// The operators by domain.
fn operators() -> String {
    let mut domains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in AnyOp::NAMES {
        let (domain, name) = name.split_once(':').unwrap_or(("ONNX", name));
        domains.entry(domain).or_default().push(name);
    }
    domains.entry("com.microsoft").or_default().extend(FUSED);
    let mut text = String::from("\n| domain | operators |\n| --- | --- |\n");
    for (domain, mut names) in domains {
        names.sort_unstable();
        text += &format!("| {domain} ({}) | {} |\n", names.len(), names.join(", "));
    }
    text + "\n"
}

#[test]
fn lists_the_operators() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", operators())).unwrap();
        return;
    }
    assert_eq!(found, operators(), "UPDATE_EXPECT=1 cargo test --test readme writes the list");
}

/// The block of the README's `language` that contains `word`.
fn block<'a>(readme: &'a str, language: &str, word: &str) -> &'a str {
    let fence = format!("```{language}\n");
    let mut blocks = readme.split(&fence).skip(1).map(|b| b.split("```").next().unwrap());
    blocks.find(|b| b.contains(word)).unwrap()
}

#[test]
fn first_program() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("xor.json"), block(&readme, "json", "xor")).unwrap();
    std::fs::write(folder.path().join("main.c"), block(&readme, "c", "xor_run")).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output =
            Command::new(program).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(env!("CARGO_BIN_EXE_rlx-aot"), &["build", "xor.json"]);
    run("cc", &["main.c", "xor.o", "-o", "xor"]);
    assert_eq!(run("./xor", &[]), "0 1 1 0\n");
}

#[test]
fn demo() {
    let output = Command::new(env!("CARGO_BIN_EXE_rlx-aot")).arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("350 of 360 held-out digits") && text.contains("offset  bytes  alive"),
        "{text}"
    );
}

#[test]
fn help_is_complete() {
    for command in ["build", "run", "verify", "bench", "plan", "inspect", "ops", "schema", "demo"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_rlx-aot")).args([command, "--help"]).output().unwrap();
        assert!(output.status.success(), "{command}");
    }
}
