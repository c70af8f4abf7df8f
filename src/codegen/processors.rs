//! What there is to name: architectures, their features and their processors.
//!
//! Features are those on which code depends, here or in Cranelift; a processor has more.

/// A feature of an architecture.
pub(super) struct Feature {
    /// As compilers call it.
    pub(super) name: &'static str,
    /// Cranelift's setting, if it has one.
    pub(super) flag: Option<&'static str>,
    /// Features without which there is not this one.
    pub(super) needs: &'static [&'static str],
}

/// Processors with the same features.
pub(super) struct Cpus {
    /// As compilers call them.
    pub(super) names: &'static [&'static str],
    /// What they have; what these need is had as well.
    pub(super) features: &'static [&'static str],
}

/// An architecture.
pub(super) struct Arch {
    pub(super) name: &'static str,
    pub(super) features: &'static [Feature],
    /// The first one is the default.
    pub(super) cpus: &'static [Cpus],
}

const fn feature(
    name: &'static str,
    flag: &'static str,
    needs: &'static [&'static str],
) -> Feature {
    Feature { name, flag: Some(flag), needs }
}

const fn cpus(names: &'static [&'static str], features: &'static [&'static str]) -> Cpus {
    Cpus { names, features }
}

/// AVX-512 BW, that Cranelift does not know.
const AVX512BW: Feature = Feature { name: "avx512bw", flag: None, needs: &["avx512f"] };

/// Products of bytes, that Cranelift does not know either.
const AVX512VNNI: Feature = Feature { name: "avx512vnni", flag: None, needs: &["avx512f"] };
const AVXVNNI: Feature = Feature { name: "avxvnni", flag: None, needs: &["avx2"] };

pub(super) const X86: Arch = Arch {
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
        AVX512VNNI,
        AVXVNNI,
    ],
    // The levels of the psABI, and the names of GCC and LLVM.
    cpus: &[
        cpus(&["generic", "x86-64", "nocona", "k8", "opteron", "athlon64"], &[]),
        cpus(&["k8-sse3", "opteron-sse3", "athlon64-sse3"], &["sse3"]),
        cpus(&["core2", "bonnell"], &["ssse3"]),
        cpus(&["penryn"], &["sse4.1"]),
        cpus(&["amdfam10", "barcelona"], &["sse3", "popcnt", "lzcnt"]),
        cpus(&["btver1"], &["ssse3", "popcnt", "lzcnt"]),
        cpus(
            &[
                "x86-64-v2",
                "nehalem",
                "westmere",
                "silvermont",
                "goldmont",
                "goldmont-plus",
                "tremont",
            ],
            &["sse4.2", "popcnt"],
        ),
        cpus(&["sandybridge", "ivybridge"], &["avx", "popcnt"]),
        cpus(&["bdver1"], &["avx", "popcnt", "lzcnt"]),
        cpus(&["btver2"], &["avx", "popcnt", "lzcnt", "bmi1"]),
        cpus(&["bdver2", "bdver3"], &["fma", "popcnt", "lzcnt", "bmi1"]),
        cpus(
            &[
                "x86-64-v3",
                "haswell",
                "broadwell",
                "skylake",
                "bdver4",
                "znver1",
                "znver2",
                "znver3",
            ],
            &["avx2", "fma", "bmi1", "bmi2", "lzcnt", "popcnt"],
        ),
        cpus(
            &[
                "gracemont",
                "alderlake",
                "raptorlake",
                "meteorlake",
                "arrowlake",
                "arrowlake-s",
                "lunarlake",
                "pantherlake",
                "sierraforest",
                "grandridge",
                "clearwaterforest",
            ],
            &["avxvnni", "fma", "bmi1", "bmi2", "lzcnt", "popcnt"],
        ),
        cpus(&["knl", "knm"], &["avx512f", "bmi1", "bmi2", "lzcnt", "popcnt"]),
        cpus(
            &["x86-64-v4", "skylake-avx512", "cannonlake"],
            &["avx512bw", "avx512dq", "avx512vl", "bmi1", "bmi2", "lzcnt", "popcnt"],
        ),
        cpus(
            &[
                "cascadelake",
                "cooperlake",
                "icelake-client",
                "icelake-server",
                "tigerlake",
                "rocketlake",
                "znver4",
            ],
            &["avx512bw", "avx512dq", "avx512vl", "avx512vnni", "bmi1", "bmi2", "lzcnt", "popcnt"],
        ),
        cpus(
            &[
                "sapphirerapids",
                "emeraldrapids",
                "graniterapids",
                "graniterapids-d",
                "diamondrapids",
                "znver5",
            ],
            &[
                "avx512bw",
                "avx512dq",
                "avx512vl",
                "avx512vnni",
                "avxvnni",
                "bmi1",
                "bmi2",
                "lzcnt",
                "popcnt",
            ],
        ),
    ],
};

pub(super) const AARCH64: Arch = Arch {
    name: "aarch64",
    features: &[feature("lse", "has_lse", &[]), feature("fp16", "has_fp16", &[])],
    cpus: &[
        cpus(
            &["generic", "cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"],
            &[],
        ),
        cpus(&["thunderx2t99", "carmel"], &["lse"]),
        cpus(
            &[
                "cortex-a55",
                "cortex-a75",
                "cortex-a76",
                "cortex-a77",
                "cortex-a78",
                "cortex-a78c",
                "cortex-a510",
                "cortex-a520",
                "cortex-a710",
                "cortex-a715",
                "cortex-a720",
                "cortex-a725",
                "cortex-x1",
                "cortex-x2",
                "cortex-x3",
                "cortex-x4",
                "cortex-x925",
                "neoverse-e1",
                "neoverse-n1",
                "neoverse-n2",
                "neoverse-n3",
                "neoverse-v1",
                "neoverse-v2",
                "neoverse-v3",
                "apple-a12",
                "apple-a13",
                "apple-a14",
                "apple-a15",
                "apple-a16",
                "apple-m1",
                "apple-m2",
                "apple-m3",
                "apple-m4",
                "ampere1",
                "ampere1a",
                "a64fx",
                "grace",
                "oryon-1",
                "tsv110",
            ],
            &["lse", "fp16"],
        ),
    ],
};

pub(super) const RISCV64: Arch = Arch {
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
        cpus(&["generic", "rv64gcv"], &["m", "a", "d", "zicsr", "zifencei", "v"]),
        // (C910 and its like have vectors of another specification.)
        cpus(
            &["rv64gc", "sifive-s76", "sifive-u54", "thead-c906", "thead-c910"],
            &["m", "a", "d", "zicsr", "zifencei"],
        ),
        cpus(&["sifive-u74"], &["m", "a", "d", "zicsr", "zifencei", "zba", "zbb"]),
        cpus(
            &["rva22u64", "sifive-p450", "veyron-v1", "xiangshan-nanhu"],
            &["m", "a", "d", "zicsr", "zifencei", "zba", "zbb", "zbs"],
        ),
        cpus(
            &["rva22u64-v", "sifive-p670", "sifive-x280", "spacemit-x60"],
            &["m", "a", "d", "zicsr", "zifencei", "zba", "zbb", "zbs", "v"],
        ),
        cpus(&["rva23u64"], &["m", "a", "d", "zicsr", "zifencei", "zba", "zbb", "zbs", "zfa", "v"]),
    ],
};

pub(super) const S390X: Arch = Arch {
    name: "s390x",
    features: &[
        feature("miscellaneous-extensions-3", "has_mie3", &[]),
        feature("vector-enhancements-2", "has_vxrs_ext2", &[]),
    ],
    cpus: &[
        cpus(&["generic", "z14", "arch12"], &[]),
        cpus(
            &["z15", "arch13", "z16", "arch14", "z17", "arch15"],
            &["miscellaneous-extensions-3", "vector-enhancements-2"],
        ),
    ],
};

impl Arch {
    /// The processors of this name, if there are any.
    pub(super) fn cpus_named(&self, name: &str) -> Option<&'static Cpus>
    where
        Self: 'static,
    {
        let all: &'static [Cpus] = self.cpus;
        all.iter().find(|cpus| cpus.names.contains(&name))
    }

    /// All names of processors.
    pub(super) fn cpu_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let all: &'static [Cpus] = self.cpus;
        all.iter().flat_map(|cpus| cpus.names).copied()
    }

    /// All names of features.
    pub(super) fn feature_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let all: &'static [Feature] = self.features;
        all.iter().map(|feature| feature.name)
    }
}
