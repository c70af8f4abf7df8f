//! What code is made for: a target triple, a CPU and its features; from them Cranelift's target and
//! the [`Machine`] that kernels are written for.

use super::processors::{AARCH64, Arch, RISCV64, S390X, X86};
use crate::error::{ErrorKind, nearest};
use crate::machine::Machine;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use std::cmp::Reverse;
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
    /// Of a fat object, whose kernels are there in several versions: what the others are made for, the
    /// best first. This is the best of all, by whose machine layouts are chosen.
    pub lesser: Vec<Target>,
}

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
    /// host and `generic` elsewhere; several, with commas between them, are the versions of a fat object.
    /// `features` adds and removes: `+avx2,-fma`; what a feature needs comes with it, what needs a removed
    /// one goes with it.
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
        let version = |cpu: &str| {
            let features = arch.chosen(&triple, is_host, cpu, features)?;
            let isa = isa(triple.clone(), arch, &features)?;
            let machine = machine(isa.as_ref(), &features);
            Ok::<Target, ErrorKind>(Target {
                isa,
                machine,
                cpu: cpu.to_owned(),
                features,
                lesser: vec![],
            })
        };
        let mut versions = cpu.split(',').map(version).collect::<Result<Vec<_>, _>>()?;
        // What has all features of another is before it.
        versions.sort_by_key(|v| Reverse((v.machine.lanes, v.features.len())));
        versions.dedup_by(|a, b| a.features == b.features);
        if versions.len() > 1 && arch.name != X86.name {
            return Err(ErrorKind::unsupported(format!("several CPUs for {}", arch.name))
                .help("objects with several versions of their kernels are for x86_64 only"));
        }
        let lesser = versions.split_off(1);
        let best = versions.pop().ok_or_else(|| ErrorKind::bug("no version of a target"))?;
        Ok(Target { lesser, ..best })
    }

    /// The versions of its kernels that a fat object has, the best first; else this alone.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &Target> {
        std::iter::once(self).chain(&self.lesser)
    }

    /// Whether the object has several versions of its kernels.
    pub fn is_fat(&self) -> bool {
        !self.lesser.is_empty()
    }

    /// Cranelift's view of what every x86-64 processor can do: for what runs before a version is chosen.
    ///
    /// # Errors
    ///
    /// None that is not a bug of ours.
    pub(crate) fn least(&self) -> Result<OwnedTargetIsa, ErrorKind> {
        isa(self.triple().clone(), arch(self.triple())?, &BTreeSet::new())
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
        let features = |version: &Target| {
            version.features.iter().map(|f| format!("+{f}")).collect::<Vec<_>>().join(",")
        };
        let versions: Vec<_> = self.versions().map(features).collect();
        format!("{} {}", self.triple(), versions.join(" or ")).trim_end().to_owned()
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
            Machine { dots: has(&["avx512vnni"]), ..Machine::AVX512 }
        }
        Architecture::X86_64 if has(&["avx2", "fma"]) => {
            Machine { dots: has(&["avxvnni"]), ..Machine::AVX2 }
        }
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
    /// The features of a processor of this name, after these changes.
    fn chosen(
        &'static self,
        triple: &Triple,
        is_host: bool,
        cpu: &str,
        changes: Option<&str>,
    ) -> Result<BTreeSet<&'static str>, ErrorKind> {
        let mut set = BTreeSet::new();
        if cpu == "native" {
            if !is_host {
                let host = Triple::host().architecture;
                let kind = ErrorKind::usage(format!(
                    "the CPU \"native\" is this machine's ({host}), and the target is {triple}"
                ));
                return Err(kind.help(self.list_of("CPUs", self.cpu_names())));
            }
            self.native().into_iter().for_each(|name| self.add(&mut set, name));
        } else {
            let known = self.cpus_named(cpu).ok_or_else(|| {
                let names = || self.cpu_names().chain(["native"]);
                self.no_such("CPU", cpu, names())
            })?;
            known.features.iter().for_each(|name| self.add(&mut set, name));
        }
        for change in changes.iter().flat_map(|f| f.split(',')).filter(|c| !c.is_empty()) {
            match (change.strip_prefix('+'), change.strip_prefix('-')) {
                (Some(name), _) => self.add(&mut set, self.feature(name)?),
                (_, Some(name)) => self.remove(&mut set, self.feature(name)?),
                (None, None) => {
                    return Err(ErrorKind::usage(format!(
                        "feature \"{change}\" starts neither with + nor with -"
                    ))
                    .help(format!("write +{change} or -{change}")));
                }
            }
        }
        Ok(set)
    }

    fn feature(&self, name: &str) -> Result<&'static str, ErrorKind>
    where
        Self: 'static,
    {
        let known = self.feature_names().find(|&known| known == name);
        known.ok_or_else(|| self.no_such("feature", name, self.feature_names()))
    }

    /// The error, with what there is: the names, or the one that was probably meant before them.
    fn no_such(
        &self,
        what: &str,
        name: &str,
        names: impl Iterator<Item = &'static str>,
    ) -> ErrorKind {
        let names: Vec<_> = names.collect();
        let near = nearest(name, names.iter().copied());
        let near = near.map_or_else(String::new, |near| format!("did you mean \"{near}\"? "));
        ErrorKind::usage(format!("{} has no {what} \"{name}\"", self.name))
            .help(near + &self.list_of(&format!("{what}s"), names))
    }

    fn list_of(&self, what: &str, names: impl IntoIterator<Item = &'static str>) -> String {
        let names: Vec<_> = names.into_iter().collect();
        format!("the {what} of {} are {}", self.name, names.join(", "))
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
        "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avxvnni")
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
        let help = |cpu, features| {
            let error = Target::new(Some("x86_64"), Some(cpu), Some(features)).unwrap_err();
            error.help.unwrap_or_default()
        };
        assert!(
            help("hasvell", "").starts_with("did you mean \"haswell\"? the CPUs of x86_64 are")
        );
        assert!(help("x86-64-v3", "+avx3").starts_with("did you mean \"avx\"? the features of"));
        assert!(help("pentium", "").starts_with("the CPUs of x86_64 are generic, x86-64,"));
    }

    #[test]
    fn processors_are_known() {
        let dots = |machine| Machine { dots: true, ..machine };
        assert_eq!(x86("znver4", "").machine, dots(Machine::AVX512));
        assert_eq!(x86("znver4", "-avx512vnni").machine, Machine::AVX512);
        assert_eq!(x86("alderlake", "").machine, dots(Machine::AVX2));
        assert_eq!(x86("skylake-avx512", "").features, x86("x86-64-v4", "").features);
        assert_eq!(x86("knl", "").machine, Machine::AVX2);
        assert_eq!(x86("ivybridge", "").machine, x86("nehalem", "").machine);
        let neoverse = Target::new(Some("aarch64"), Some("neoverse-n1"), None).unwrap();
        assert!(neoverse.features.contains("lse"));
        // No name stands for two things, and every feature is one.
        for arch in [&X86, &AARCH64, &RISCV64, &S390X] {
            let names: Vec<_> = arch.cpu_names().chain(["native"]).collect();
            assert_eq!(BTreeSet::from_iter(&names).len(), names.len());
            for feature in arch.cpus.iter().flat_map(|c| c.features) {
                assert!(arch.feature_names().any(|name| name == *feature), "{feature}");
            }
        }
    }

    #[test]
    fn fat_targets_have_versions() {
        let fat = x86("x86-64-v2,x86-64-v4,haswell,x86-64-v3", "");
        let names: Vec<_> = fat.versions().map(|v| v.cpu.as_str()).collect();
        assert_eq!(names, ["x86-64-v4", "haswell", "x86-64-v2"]);
        assert_eq!(fat.machine, Machine::AVX512);
        assert!(fat.is_fat() && !x86("haswell,x86-64-v3", "").is_fat());
        assert!(x86("x86-64-v2,x86-64-v3", "-fma").versions().all(|v| !v.features.contains("fma")));
        let lines = [&fat, &x86("x86-64-v4", "")].map(Target::describe);
        assert_ne!(lines[0], lines[1]);
        assert!(Target::new(Some("aarch64"), Some("generic,neoverse-n1"), None).is_err());
        assert!(Target::new(Some("x86_64"), Some("x86-64-v2,"), None).is_err());
    }
}
