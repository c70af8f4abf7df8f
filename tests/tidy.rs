//! The rules of the source tree: which module may name which, where `unsafe` may stand.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The layers. `main` and `cli` may name everything; only they print.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("machine", &[]),
    ("tensor", &["types"]),
    ("error", &["types"]),
    ("mir", &["tensor", "types"]),
    ("ops", &["error", "mir", "tensor", "types"]),
    ("hir", &["error", "ops", "tensor", "types"]),
    ("front", &["error", "hir", "ops", "tensor", "types"]),
    ("lower", &["hir", "mir", "ops", "types"]),
    ("passes", &["machine", "mir", "tensor", "types"]),
    ("placement", &["error"]),
    ("lir", &["error", "mir", "placement", "tensor", "types"]),
    ("fit", &["error", "lir", "machine", "mir", "passes"]),
    ("kir", &["machine", "types"]),
    ("kernels", &["error", "kir", "lir", "machine", "tensor", "types"]),
    ("codegen", &["error", "kir", "lir", "machine", "tensor", "types"]),
    ("interp", &["error", "hir", "lir", "mir", "ops", "tensor", "types"]),
    ("report", &["codegen", "lir", "types"]),
    (
        "compile",
        &[
            "codegen", "error", "fit", "front", "hir", "kernels", "lir", "lower", "machine", "mir",
            "passes", "report",
        ],
    ),
];

fn visit(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|e| e == "rs") {
            see(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

fn sources(see: &mut impl FnMut(&Path, &str)) {
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), see);
}

fn module(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn modules_name_only_what_they_may() {
    let allowed: BTreeMap<_, _> = MAY_NAME.iter().copied().collect();
    let mut bad = vec![];
    sources(&mut |path, text| {
        let module = module(path);
        let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs");
        if is_test || matches!(&module[..], "lib" | "main" | "cli") {
            return;
        }
        let Some(allowed) = allowed.get(&module[..]) else {
            return bad
                .push(format!("{}: the module \"{module}\" is not in the table", path.display()));
        };
        // Tests may name what they like.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let used: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !used.is_empty() && used != module && !allowed.contains(&&used[..]) {
                    bad.push(format!("{}: \"{module}\" may not name \"{used}\"", path.display()));
                }
            }
        }
    });
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn only_the_command_line_prints() {
    let mut bad = vec![];
    sources(&mut |path, text| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let prints =
            ["println!", "eprintln!", "print!(", "dbg!("].iter().any(|word| code.contains(word));
        if prints && !matches!(&module(path)[..], "main" | "cli") {
            bad.push(path.display().to_string());
        }
    });
    assert!(bad.is_empty(), "these print: {bad:?}");
}

#[test]
fn one_file_maps_memory() {
    let mut unsafe_files = vec![];
    sources(&mut |path, text| {
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        if code.into_iter().any(|l| l.contains("unsafe {")) {
            unsafe_files.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    });
    assert_eq!(unsafe_files, ["file.rs"], "memory maps are unsafe, and nothing else is");
}
