//! What code is made for: a target triple, a CPU and its features; from them Cranelift's target and
//! the [`Machine`] that kernels are written for.

use crate::error::{ErrorKind, nearest};
use crate::machine::Machine;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use target_lexicon::{Architecture, BinaryFormat, Triple};

/// What code is made for.
pub struct Target {
    /// Cranelift's view of it.
    pub isa: OwnedTargetIsa,
    /// What kernels are written for: AVX-512 or AVX2 where the target has them, else Cranelift's
    /// vectors of four lanes, or single lanes where it has no vectors.
    pub machine: Machine,
    /// The CPU's name, as it was asked for; `native` is spelled out in the features only.
    pub cpu: String,
    /// The features that code may use, sorted.
    pub features: BTreeSet<&'static str>,
}

/// A feature of an architecture.
struct Feature {
    /// As compilers call it.
    name: &'static str,
    /// Cranelift's setting, if it has one.
    flag: Option<&'static str>,
    /// A feature without which there is not this one.
    needs: &'static [&'static str],
}

/// A named set of features.
struct Cpu {
    name: &'static str,
    features: &'static [&'static str],
}

struct Arch {
    name: &'static str,
    features: &'static [Feature],
    /// The first one is the default.
    cpus: &'static [Cpu],
}

const fn feature(
    name: &'static str,
    flag: &'static str,
    needs: &'static [&'static str],
) -> Feature {
    Feature { name, flag: Some(flag), needs }
}

/// AVX-512 BW, that Cranelift does not know.
const AVX512BW: Feature = Feature { name: "avx512bw", flag: None, needs: &["avx512f"] };

const X86: Arch = Arch {
    name: "x86_64",
    features: &[
        feature("sse3", "has_sse3", &[]),
        feature("ssse3", "has_ssse3", &["sse3"]),
        feature("sse4.1", "has_sse41", &["ssse3"]),
        feature("sse4.2", "has_sse42", &["sse4.1"]),
        feature("popcnt", "has_popcnt", &[]),
        feature("lzcnt", "has_lzcnt", &[]),
        feature("bmi1", "has_bmi1", &[]),
        feature("bmi2", "has_bmi2", &[]),
        feature("avx", "has_avx", &["sse4.2"]),
        feature("fma", "has_fma", &["avx"]),
        feature("avx2", "has_avx2", &["avx"]),
        feature("avx512f", "has_avx512f", &["avx2", "fma"]),
        AVX512BW,
        feature("avx512dq", "has_avx512dq", &["avx512f"]),
        feature("avx512vl", "has_avx512vl", &["avx512f"]),
    ],
    cpus: &[
        Cpu { name: "generic", features: &[] },
        Cpu { name: "x86-64", features: &[] },
        Cpu { name: "x86-64-v2", features: V2 },
        Cpu { name: "x86-64-v3", features: V3 },
        Cpu { name: "x86-64-v4", features: V4 },
    ],
};

const V2: &[&str] = &["sse4.2", "popcnt"];
const V3: &[&str] = &["avx2", "fma", "bmi1", "bmi2", "lzcnt", "popcnt"];
const V4: &[&str] = &["avx512bw", "avx512dq", "avx512vl", "bmi1", "bmi2", "lzcnt", "popcnt"];

const AARCH64: Arch = Arch {
    name: "aarch64",
    features: &[feature("lse", "has_lse", &[]), feature("fp16", "has_fp16", &[])],
    cpus: &[Cpu { name: "generic", features: &[] }],
};

const RISCV64: Arch = Arch {
    name: "riscv64",
    features: &[
        feature("m", "has_m", &[]),
        feature("a", "has_a", &[]),
        feature("f", "has_f", &[]),
        feature("d", "has_d", &["f"]),
        feature("zicsr", "has_zicsr", &[]),
        feature("zifencei", "has_zifencei", &[]),
        feature("v", "has_v", &["d", "zvl128b"]),
        feature("zvl32b", "has_zvl32b", &[]),
        feature("zvl64b", "has_zvl64b", &["zvl32b"]),
        feature("zvl128b", "has_zvl128b", &["zvl64b"]),
        feature("zba", "has_zba", &[]),
        feature("zbb", "has_zbb", &[]),
        feature("zbs", "has_zbs", &[]),
        feature("zfa", "has_zfa", &["f"]),
    ],
    cpus: &[
        Cpu { name: "generic", features: RV64GCV },
        Cpu { name: "rv64gcv", features: RV64GCV },
        Cpu { name: "rv64gc", features: RV64GC },
    ],
};

const RV64GC: &[&str] = &["m", "a", "d", "zicsr", "zifencei"];
const RV64GCV: &[&str] = &["m", "a", "d", "zicsr", "zifencei", "v"];

const S390X: Arch = Arch {
    name: "s390x",
    features: &[
        feature("miscellaneous-extensions-3", "has_mie3", &[]),
        feature("vector-enhancements-2", "has_vxrs_ext2", &[]),
    ],
    cpus: &[
        Cpu { name: "generic", features: &[] },
        Cpu { name: "z14", features: &[] },
        Cpu { name: "z15", features: &["miscellaneous-extensions-3", "vector-enhancements-2"] },
    ],
};

impl Target {
    /// The machine that this program runs on, with all its features.
    ///
    /// # Errors
    ///
    /// A host that there is no code for.
    pub fn host() -> Result<Target, ErrorKind> {
        Target::new(None, None, None)
    }

    /// The target of these names. Without a triple it is the host; without a CPU it is `native` on the
    /// host and `generic` elsewhere. `features` adds and removes: `+avx2,-fma`; what a feature needs
    /// comes with it, what needs a removed one goes with it.
    ///
    /// # Errors
    ///
    /// A name that there is not, and an architecture or a file format that there is no code for.
    pub fn new(
        triple: Option<&str>,
        cpu: Option<&str>,
        features: Option<&str>,
    ) -> Result<Target, ErrorKind> {
        let triple = triple.map_or_else(|| Ok(Triple::host()), parse_triple)?;
        let host = Triple::host();
        let is_host = triple.architecture == host.architecture
            && triple.operating_system == host.operating_system;
        let arch = arch(&triple)?;
        if triple.binary_format != BinaryFormat::Elf {
            return Err(ErrorKind::unsupported(format!(
                "objects for {triple} are {:?} files, and only ELF files are written",
                triple.binary_format
            ))
            .help(
                "ELF targets are, for example, x86_64-unknown-linux-gnu and aarch64-unknown-none",
            ));
        }
        let cpu = cpu.unwrap_or(if is_host { "native" } else { "generic" });
        let mut set = BTreeSet::new();
        if cpu == "native" {
            if !is_host {
                let host = host.architecture;
                return Err(ErrorKind::usage(format!(
                    "the CPU \"native\" is this machine's ({host}), and the target is {triple}"
                ))
                .help(format!(
                    "the CPUs of {} are {}",
                    arch.name,
                    arch.cpu_names()
                )));
            }
            arch.native().into_iter().for_each(|name| arch.add(&mut set, name));
        } else {
            let cpu = arch.cpus.iter().find(|c| c.name == cpu).ok_or_else(|| arch.no_cpu(cpu))?;
            cpu.features.iter().for_each(|name| arch.add(&mut set, name));
        }
        for change in features.iter().flat_map(|f| f.split(',')).filter(|c| !c.is_empty()) {
            match (change.strip_prefix('+'), change.strip_prefix('-')) {
                (Some(name), _) => arch.add(&mut set, arch.feature(name)?.name),
                (_, Some(name)) => arch.remove(&mut set, arch.feature(name)?.name),
                (None, None) => {
                    return Err(ErrorKind::usage(format!(
                        "feature \"{change}\" starts neither with + nor with -"
                    ))
                    .help(format!("write +{change} or -{change}")));
                }
            }
        }
        let isa = isa(triple, arch, &set)?;
        let machine = machine(isa.as_ref(), &set);
        Ok(Target { isa, machine, cpu: cpu.to_owned(), features: set })
    }

    /// The target triple.
    pub fn triple(&self) -> &Triple {
        self.isa.triple()
    }

    /// Whether the least significant byte of a number comes last.
    pub fn big_endian(&self) -> bool {
        self.machine.big_endian
    }

    /// Architecture, system and features in one line: equal lines get equal code.
    pub fn describe(&self) -> String {
        let features: Vec<_> = self.features.iter().map(|f| format!("+{f}")).collect();
        format!("{} {}", self.triple(), features.join(",")).trim_end().to_owned()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.describe()).field(&self.machine).finish()
    }
}

/// `aarch64` is short for `aarch64-unknown-linux-gnu`. Targets without a system take ELF files.
fn parse_triple(text: &str) -> Result<Triple, ErrorKind> {
    let text =
        if text.contains('-') { text.to_owned() } else { format!("{text}-unknown-linux-gnu") };
    let mut triple = Triple::from_str(&text).map_err(|error| {
        ErrorKind::usage(format!("\"{text}\" is no target: {error}"))
            .help("a target is written like x86_64-unknown-linux-gnu")
    })?;
    if triple.binary_format == BinaryFormat::Unknown {
        triple.binary_format = BinaryFormat::Elf;
    }
    Ok(triple)
}

fn arch(triple: &Triple) -> Result<&'static Arch, ErrorKind> {
    match triple.architecture {
        Architecture::X86_64 => Ok(&X86),
        Architecture::Aarch64(_) if !is_big_endian(triple) => Ok(&AARCH64),
        Architecture::Riscv64(_) => Ok(&RISCV64),
        Architecture::S390x => Ok(&S390X),
        other => {
            Err(ErrorKind::unsupported(format!("there is no code for the architecture {other}"))
                .help("there is for x86_64, aarch64, riscv64 and s390x"))
        }
    }
}

fn is_big_endian(triple: &Triple) -> bool {
    triple.endianness() == Ok(target_lexicon::Endianness::Big)
}

fn isa(
    triple: Triple,
    arch: &Arch,
    features: &BTreeSet<&str>,
) -> Result<OwnedTargetIsa, ErrorKind> {
    let bug = |error: &dyn fmt::Display| ErrorKind::bug(format!("target {}: {error}", arch.name));
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "speed"),
        ("is_pic", "true"),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
        // Debug builds of the compiler verify what they make.
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ] {
        flags.set(name, value).map_err(|e| bug(&e))?;
    }
    let mut builder = isa::lookup(triple).map_err(|e| bug(&e))?;
    for feature in arch.features {
        if let Some(flag) = feature.flag {
            let value = if features.contains(feature.name) { "true" } else { "false" };
            builder.set(flag, value).map_err(|e| bug(&e))?;
        }
    }
    builder.finish(settings::Flags::new(flags)).map_err(|e| bug(&e))
}

/// What kernels for this target are written for.
fn machine(isa: &dyn isa::TargetIsa, features: &BTreeSet<&str>) -> Machine {
    let has = |names: &[&str]| names.iter().all(|name| features.contains(name));
    let big_endian = is_big_endian(isa.triple());
    match isa.triple().architecture {
        Architecture::X86_64 if has(&["avx512f", "avx512bw", "avx512dq", "avx512vl"]) => {
            Machine::AVX512
        }
        Architecture::X86_64 if has(&["avx2", "fma"]) => Machine::AVX2,
        Architecture::X86_64 => {
            Machine { fuses: has(&["fma"]), rounds: has(&["sse4.1"]), ..Machine::CLIF }
        }
        Architecture::Riscv64(_) => {
            let machine = Machine {
                registers: 28,
                fuses: true,
                rounds: true,
                max_displacement: 2047,
                ..Machine::CLIF
            };
            if has(&["v"]) { machine } else { machine.scalar() }
        }
        // Displacements of vectors: 12 bits without a sign.
        _ => Machine {
            registers: 28,
            fuses: true,
            rounds: true,
            max_displacement: 4095,
            big_endian,
            ..Machine::CLIF
        },
    }
}

impl Arch {
    fn feature(&self, name: &str) -> Result<&'static Feature, ErrorKind>
    where
        Self: 'static,
    {
        let features: &'static [Feature] = self.features;
        features.iter().find(|f| f.name == name).ok_or_else(|| {
            let names: Vec<_> = features.iter().map(|f| f.name).collect();
            let near = nearest(name, names.iter().copied());
            let help = near.map_or_else(
                || format!("the features of {} are {}", self.name, names.join(", ")),
                |near| format!("did you mean \"{near}\"?"),
            );
            ErrorKind::usage(format!("{} has no feature \"{name}\"", self.name)).help(help)
        })
    }

    fn cpu_names(&self) -> String {
        self.cpus.iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
    }

    fn no_cpu(&self, name: &str) -> ErrorKind {
        ErrorKind::usage(format!("{} has no CPU \"{name}\"", self.name))
            .help(format!("the CPUs are {}, and native on this machine", self.cpu_names()))
    }

    /// Adds the feature and all that it needs.
    fn add(&self, set: &mut BTreeSet<&'static str>, name: &'static str) {
        if set.insert(name) {
            let needs = self.features.iter().filter(|f| f.name == name).flat_map(|f| f.needs);
            needs.for_each(|needed| self.add(set, needed));
        }
    }

    /// Removes the feature and all that need it.
    fn remove(&self, set: &mut BTreeSet<&'static str>, name: &str) {
        set.remove(name);
        for user in self.features.iter().filter(|f| f.needs.contains(&name)) {
            self.remove(set, user.name);
        }
    }

    /// The features of this machine, if it is of this architecture.
    fn native(&self) -> Vec<&'static str> {
        let found = self.features.iter().map(|f| f.name).filter(|name| is_native(name));
        match self.name {
            "x86_64" => found.collect(),
            // What other hosts have beyond their generic CPU is found out by Cranelift.
            _ => self.native_by_cranelift(),
        }
    }

    fn native_by_cranelift(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.cpus[0].features.to_vec();
        if let Ok(isa) = cranelift_native::builder()
            .and_then(|b| b.finish(settings::Flags::new(settings::builder())).map_err(|_| ""))
        {
            let flags = isa.isa_flags();
            let set =
                |flag| flags.iter().any(|f| Some(f.name) == flag && f.as_bool() == Some(true));
            names.extend(self.features.iter().filter(|f| set(f.flag)).map(|f| f.name));
        }
        names
    }
}

#[cfg(target_arch = "x86_64")]
fn is_native(feature: &str) -> bool {
    macro_rules! detect {
        ($($name:tt)*) => {
            match feature {
                $($name => std::is_x86_feature_detected!($name),)*
                _ => false,
            }
        };
    }
    detect!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "avx" "fma" "avx2"
        "avx512f" "avx512bw" "avx512dq" "avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_native(_: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    fn x86(cpu: &str, features: &str) -> Target {
        Target::new(Some("x86_64-unknown-linux-gnu"), Some(cpu), Some(features)).unwrap()
    }

    #[test]
    fn features_bring_what_they_need() {
        assert_eq!(x86("x86-64-v4", "").machine, Machine::AVX512);
        assert_eq!(x86("x86-64-v3", "").machine, Machine::AVX2);
        assert_eq!(x86("x86-64-v4", "-avx512bw").machine, Machine::AVX2);
        assert_eq!(x86("x86-64-v4", "-avx2").machine.lanes, 4);
        assert!(x86("x86-64-v4", "-avx2").machine.fuses);
        assert!(!x86("x86-64", "").machine.rounds);
        assert!(x86("x86-64", "+avx512bw").features.contains("sse4.1"));
    }

    #[test]
    fn targets_have_machines() {
        for (name, lanes) in [("aarch64", 4), ("riscv64", 4), ("s390x", 4), ("x86_64", 4)] {
            let target = Target::new(Some(name), Some("generic"), None).unwrap();
            assert_eq!(target.machine.lanes, lanes, "{target:?}");
            assert_eq!(target.big_endian(), name == "s390x");
        }
        let scalar = Target::new(Some("riscv64gc-unknown-linux-gnu"), Some("rv64gc"), None);
        assert_eq!(scalar.unwrap().machine.lanes, 1);
        assert!(Target::new(Some("aarch64-linux-gnu"), None, None).is_ok());
        assert!(Target::new(Some("aarch64-unknown-none"), None, None).is_ok());
        assert!(Target::host().is_ok());
    }

    #[test]
    fn unknown_names() {
        let class = |triple, cpu, features| Target::new(triple, cpu, features).unwrap_err().class;
        assert_eq!(class(Some("pdp11-dec-unix"), None, None), Class::Usage);
        assert_eq!(class(Some("i686-unknown-linux-gnu"), None, None), Class::Unsupported);
        assert_eq!(class(Some("x86_64-pc-windows-msvc"), None, None), Class::Unsupported);
        assert_eq!(class(Some("x86_64"), Some("x86-64-v9"), None), Class::Usage);
        assert_eq!(class(Some("x86_64"), None, Some("+avx3")), Class::Usage);
        assert_eq!(class(Some("x86_64"), None, Some("avx2")), Class::Usage);
        assert_eq!(class(Some("s390x"), Some("native"), None), Class::Usage);
    }
}
