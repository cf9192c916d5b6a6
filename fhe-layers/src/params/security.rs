//! What the security of a ring and noise is taken to be.
//!
//! The table holds runs of the lattice-estimator; a combination that is not in it counts as 0 bits and is refused.
//! See `docs/parameters.md` for the command, the commit and the date.

/// What every instance must reach, classical.
pub const REQUIRED_BITS: u32 = 128;

/// One estimator run: RLWE with a uniform binary secret, unlimited samples, the cheapest attack found.
pub struct Estimate {
    /// Ring degree.
    pub n: usize,
    /// Modulus.
    pub q: u64,
    /// TUniform bound of the noise.
    pub noise_bound: u32,
    /// Classical bits.
    pub classical_bits: u32,
    /// Quantum bits.
    pub quantum_bits: u32,
}

/// Recorded runs.
pub const ESTIMATES: &[Estimate] = &[
    Estimate { n: 2048, q: super::sets::Q, noise_bound: 5, classical_bits: 140, quantum_bits: 132 },
    Estimate { n: 2048, q: super::sets::Q, noise_bound: 4, classical_bits: 137, quantum_bits: 130 },
];

fn runs(n: usize, q: u64, noise_bound: u32) -> impl Iterator<Item = &'static Estimate> {
    ESTIMATES.iter().filter(move |run| run.n == n && run.q == q && run.noise_bound <= noise_bound)
}

/// Classical bits of a recorded run whose noise is not larger, 0 when there is none. More noise is never easier.
pub fn estimated_bits(n: usize, q: u64, noise_bound: u32) -> u32 {
    runs(n, q, noise_bound).map(|run| run.classical_bits).max().unwrap_or(0)
}

/// Quantum bits of a recorded run whose noise is not larger, 0 when there is none.
pub fn quantum_bits(n: usize, q: u64, noise_bound: u32) -> u32 {
    runs(n, q, noise_bound).map(|run| run.quantum_bits).max().unwrap_or(0)
}
