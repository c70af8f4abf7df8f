//! What Cargo tells a build script, and what a build script tells Cargo.

use crate::{Compiled, Error};
use std::cell::RefCell;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The environment, which remembers what was asked of it: whatever was read makes Cargo come again when it changes.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    read: RefCell<Vec<String>>,
}

impl Environment {
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.read.borrow_mut().push(name.to_owned());
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    pub(crate) fn require(&self, name: &'static str) -> Result<String, Error> {
        // Cargo's own variables need no watching.
        std::env::var(name).map_err(|_| Error::Variable { name })
    }

    /// `NAME_<target>`, with the target's dashes or without, before `NAME`.
    pub(crate) fn for_target(&self, name: &str, target: &str) -> Option<String> {
        let dashes = self.get(&format!("{name}_{target}"));
        let underscores = self.get(&format!("{name}_{}", target.replace('-', "_")));
        dashes.or(underscores).or_else(|| self.get(name))
    }

    /// A path of the package.
    pub(crate) fn in_package(&self, path: &Path) -> PathBuf {
        match std::env::var_os("CARGO_MANIFEST_DIR") {
            Some(package) => Path::new(&package).join(path),
            None => path.to_owned(),
        }
    }
}

/// The compiler: the builder's, else `RLX_AOT`'s, else the one on `PATH`.
pub(crate) fn find_program(
    chosen: Option<&Path>,
    environment: &Environment,
) -> Result<PathBuf, Error> {
    let name = match chosen {
        Some(program) => program.to_owned(),
        None => environment.get("RLX_AOT").map_or_else(|| PathBuf::from("rlx-aot"), PathBuf::from),
    };
    if name.components().count() > 1 {
        return if name.is_file() { Ok(name) } else { Err(Error::NotFound { program: name }) };
    }
    let file_name = format!("{}{}", name.display(), std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| {
            folder.join(if name.extension().is_some() {
                name.as_os_str()
            } else {
                file_name.as_ref()
            })
        })
        .find(|candidate| candidate.is_file())
        .ok_or(Error::NotFound { program: name })
}

/// The CPU and the features, as `rlx-aot` takes them, for what rustc compiles for (`CARGO_CFG_TARGET_FEATURE`). Names that make no
/// difference to it are left out.
pub(crate) fn cpu(target: &str, features: &str) -> (&'static str, String) {
    let has: Vec<&str> = features.split(',').collect();
    let architecture = target.split('-').next().unwrap_or_default();
    let (cpu, known): (&str, &[&str]) = match architecture {
        "x86_64" => (
            "x86-64",
            &[
                "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi1", "bmi2", "avx",
                "fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl",
            ],
        ),
        "aarch64" => ("generic", &["lse", "fp16"]),
        // `generic` has vectors.
        arch if arch.starts_with("riscv64") => ("rv64gc", &["v", "zba", "zbb", "zbs", "zfa"]),
        "s390x" => ("generic", &["miscellaneous-extensions-3", "vector-enhancements-2"]),
        _ => ("generic", &[]),
    };
    let used: Vec<String> =
        known.iter().filter(|name| has.contains(name)).map(|name| format!("+{name}")).collect();
    (cpu, used.join(","))
}

/// The files that a depfile names, in Makefile syntax: `target: file file \` with `\ `, `\#` and `$$` for what they hide.
pub(crate) fn parse_depfile(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    for line in text.lines() {
        let Some((_, rest)) = line.split_once(": ") else { continue };
        let mut file = String::new();
        let mut chars = rest.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, chars.peek()) {
                ('\\', Some(&next @ (' ' | '#' | '\\'))) | ('$', Some(&next @ '$')) => {
                    chars.next();
                    file.push(next);
                }
                (' ' | '\t', _) => {
                    if !file.is_empty() {
                        files.push(PathBuf::from(std::mem::take(&mut file)));
                    }
                }
                _ => file.push(c),
            }
        }
        if !file.is_empty() {
            files.push(PathBuf::from(file));
        }
    }
    files
}

/// The lines for Cargo: when to come again, what to link, and what is wrong.
pub(crate) fn instructions(environment: &Environment, result: &Result<Compiled, Error>) -> String {
    let mut lines = String::new();
    let mut tell = |key: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "cargo::{key}={value}");
    };
    for name in environment.read.borrow().iter().filter(|name| !name.starts_with("CARGO_")) {
        tell("rerun-if-env-changed", name);
    }
    match result {
        Ok(compiled) => {
            for path in &compiled.dependencies {
                tell("rerun-if-changed", &path.display().to_string());
            }
            for warning in diagnostics(&compiled.messages, "warning") {
                tell("warning", warning);
            }
            if let Some(folder) = compiled.library.parent() {
                tell("rustc-link-search", &format!("native={}", folder.display()));
            }
            tell("rustc-link-lib", &format!("static={}", compiled.library_name));
        }
        Err(error) => {
            let messages = match error {
                Error::Failed { messages, .. } => messages.as_str(),
                _ => "",
            };
            let found = diagnostics(messages, "error");
            if found.is_empty() {
                tell("error", &error.to_string().replace('\n', " "));
            }
            for line in found {
                tell("error", line);
            }
        }
    }
    lines
}

/// The first line of every diagnostic of a kind, and the line that says where.
fn diagnostics<'a>(messages: &'a str, kind: &str) -> Vec<&'a str> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in messages.lines() {
        let head = line.strip_prefix(kind).is_some_and(|rest| rest.starts_with([':', '[']));
        if head {
            lines.push(line.split_once(": ").map_or(line, |(_, text)| text));
        } else if inside && line.trim_start().starts_with("-->") {
            lines.push(line);
        }
        inside = head;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_targets() {
        let cases = [
            ("x86_64-unknown-linux-gnu", "fxsr,sse,sse2", ("x86-64", "")),
            (
                "x86_64-unknown-linux-gnu",
                "avx,avx2,fma,sse4.2",
                ("x86-64", "+sse4.2,+avx,+fma,+avx2"),
            ),
            ("aarch64-unknown-linux-gnu", "neon,lse", ("generic", "+lse")),
            ("riscv64gc-unknown-linux-gnu", "a,c,d,f,m", ("rv64gc", "")),
            ("riscv64gc-unknown-linux-gnu", "a,c,d,f,m,v", ("rv64gc", "+v")),
            ("s390x-unknown-linux-gnu", "", ("generic", "")),
        ];
        for (target, features, (cpu_name, list)) in cases {
            assert_eq!(cpu(target, features), (cpu_name, list.to_owned()), "{target} {features}");
        }
    }

    #[test]
    fn depfiles() {
        let text = "out/libm.a out/m.json: /a/model.onnx \\\n  /a/with\\ space.bin /a/\\#1 /a/$$x\n\n/a/model.onnx:\n";
        let files: Vec<PathBuf> = ["/a/model.onnx", "/a/with space.bin", "/a/#1", "/a/$x"]
            .iter()
            .map(PathBuf::from)
            .collect();
        assert_eq!(parse_depfile(text), files);
        assert!(parse_depfile("").is_empty());
    }

    #[test]
    fn diagnostics_with_their_places() {
        let text = "error: inner dimensions differ\n --> node \"a\" (MatMul)\n  |  input 0\nwarning: slow\nerror[E3]: b: c\n";
        assert_eq!(
            diagnostics(text, "error"),
            ["inner dimensions differ", " --> node \"a\" (MatMul)", "b: c"]
        );
        assert_eq!(diagnostics(text, "warning"), ["slow"]);
    }
}
