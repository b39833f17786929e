//! The instruction sets that ops are written for, and which of them this CPU has.

/// An instruction set, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust: the specification.
    Scalar,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 as above, with VNNI for int8.
    Avx512Vnni,
}

impl Isa {
    /// Every instruction set that this CPU can run, slowest first; never empty.
    pub fn available() -> &'static [Isa] {
        let all = &[Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni];
        let best = Isa::best();
        match best {
            Isa::Scalar => &all[..1],
            Isa::Avx2 => &all[..2],
            Isa::Avx512 => &all[..3],
            Isa::Avx512Vnni => all,
        }
    }

    /// The fastest instruction set of this CPU, detected at run time.
    #[cfg(target_arch = "x86_64")]
    pub fn best() -> Isa {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx2, avx512, avx512 && is_x86_feature_detected!("avx512vnni")) {
            (_, _, true) => Isa::Avx512Vnni,
            (_, true, _) => Isa::Avx512,
            (true, _, _) => Isa::Avx2,
            _ => Isa::Scalar,
        }
    }

    /// The fastest instruction set of this CPU, detected at run time.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn best() -> Isa {
        Isa::Scalar
    }
}
