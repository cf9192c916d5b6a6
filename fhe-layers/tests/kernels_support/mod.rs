//! What the kernel tests share: the instruction sets to test and a stream of values full of edges.
#![allow(dead_code, reason = "each test binary uses its part")]

use fhe_layers::kernels::Isa;

/// The modulus of the shipped parameters.
pub(crate) const Q: u64 = 1125899906826241;

/// The instruction sets that this processor must pass with. On x86-64 servers of the last decade that includes AVX2;
/// a machine without it fails here rather than skip.
pub(crate) fn isas() -> Vec<Isa> {
    let found = Isa::supported();
    #[cfg(target_arch = "x86_64")]
    {
        assert!(found.contains(&Isa::Avx2), "the AVX2 kernels cannot be tested on this processor");
        let vnni = is_x86_feature_detected!("avx512vnni");
        assert_eq!(found.contains(&Isa::Avx512Vnni), vnni, "the VNNI kernels are untested on this processor");
        let ifma = vnni && is_x86_feature_detected!("avx512ifma");
        assert_eq!(found.contains(&Isa::Avx512), ifma, "the IFMA kernels are untested on this processor");
    }
    found
}

/// A seeded stream (splitmix64) whose values are edges one time in four.
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `len` words in `0..=limit`.
    pub(crate) fn words(&mut self, len: usize, limit: u64) -> Vec<u64> {
        let word = |random: u64, choice: u64| match choice % 8 {
            0 => limit,
            1 => 0,
            _ if limit == u64::MAX => random,
            _ => random % (limit + 1),
        };
        (0..len).map(|_| word(self.next(), self.next())).collect()
    }

    /// `len` weights, the extremes among them.
    pub(crate) fn weights(&mut self, len: usize) -> Vec<i8> {
        let weight = |random: u64| match random % 8 {
            0 => 127,
            1 => -127,
            _ => (random >> 8) as i8,
        };
        (0..len).map(|_| weight(self.next())).collect()
    }
}
