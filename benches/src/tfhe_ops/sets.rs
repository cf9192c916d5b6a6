//! TFHE parameter sets, copied from the `tfhe` crate 1.8.2 so that its `shortint` feature need not be compiled.
//!
//! All are 128-bit secure by that crate's documentation (`tfhe/src/shortint/parameters/mod.rs`: "at least 128 bits of
//! security", lattice-estimator run by its CI), binary secrets, TUniform noise, native modulus `2^64`, key switch
//! before bootstrap. `MESSAGE_m_CARRY_c` looks up `m + c` bits under one padding bit.

/// One parameter set of the key-switch-then-bootstrap pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TfheSet {
    /// Name of the constant in the `tfhe` crate.
    pub name: &'static str,
    /// Bits a lookup distinguishes (message and carry).
    pub precision_bits: u32,
    /// log2 of the probability that one lookup errs at the largest noise the set admits.
    pub log2_p_fail: f64,
    /// Dimension `n` of the small LWE key.
    pub lwe_dimension: usize,
    /// GLWE dimension `k`.
    pub glwe_dimension: usize,
    /// Ring degree `N`.
    pub polynomial_size: usize,
    /// TUniform bound, log2, of the small LWE key's noise.
    pub lwe_noise_bound_log2: u32,
    /// TUniform bound, log2, of the GLWE key's noise.
    pub glwe_noise_bound_log2: u32,
    /// Base log of the bootstrap's gadget.
    pub pbs_base_log: usize,
    /// Levels of the bootstrap's gadget.
    pub pbs_level: usize,
    /// Base log of the key switch's gadget.
    pub ks_base_log: usize,
    /// Levels of the key switch's gadget.
    pub ks_level: usize,
    /// Whether the modulus switch removes the mean of its rounding error (`CenteredMeanNoiseReduction`).
    pub centered_modulus_switch: bool,
}

/// `V1_1_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M40` (p_fail 2^-57), `v1_1/classic/tuniform/p_fail_2_minus_40`.
pub const MESSAGE_2_2_2M40: TfheSet = TfheSet {
    name: "V1_1_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M40",
    precision_bits: 4,
    log2_p_fail: -57.015,
    lwe_dimension: 839,
    glwe_dimension: 1,
    polynomial_size: 2048,
    lwe_noise_bound_log2: 47,
    glwe_noise_bound_log2: 17,
    pbs_base_log: 23,
    pbs_level: 1,
    ks_base_log: 3,
    ks_level: 5,
    centered_modulus_switch: false,
};

/// `V1_4_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128`, `v1_4/classic/tuniform/p_fail_2_minus_128`, the crate's default.
pub const MESSAGE_2_2_2M128: TfheSet = TfheSet {
    name: "V1_4_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128",
    precision_bits: 4,
    log2_p_fail: -129.581,
    lwe_dimension: 918,
    glwe_dimension: 1,
    polynomial_size: 2048,
    lwe_noise_bound_log2: 45,
    glwe_noise_bound_log2: 17,
    pbs_base_log: 23,
    pbs_level: 1,
    ks_base_log: 4,
    ks_level: 4,
    centered_modulus_switch: true,
};

/// `V1_1_PARAM_MESSAGE_3_CARRY_3_KS_PBS_TUNIFORM_2M40` (p_fail 2^-50), `v1_1/classic/tuniform/p_fail_2_minus_40`.
pub const MESSAGE_3_3_2M40: TfheSet = TfheSet {
    name: "V1_1_PARAM_MESSAGE_3_CARRY_3_KS_PBS_TUNIFORM_2M40",
    precision_bits: 6,
    log2_p_fail: -50.002,
    lwe_dimension: 958,
    glwe_dimension: 1,
    polynomial_size: 8192,
    lwe_noise_bound_log2: 44,
    glwe_noise_bound_log2: 3,
    pbs_base_log: 15,
    pbs_level: 2,
    ks_base_log: 3,
    ks_level: 6,
    centered_modulus_switch: false,
};

/// `V1_4_PARAM_MESSAGE_3_CARRY_3_KS_PBS_TUNIFORM_2M128`, `v1_4/classic/tuniform/p_fail_2_minus_128`.
pub const MESSAGE_3_3_2M128: TfheSet = TfheSet {
    name: "V1_4_PARAM_MESSAGE_3_CARRY_3_KS_PBS_TUNIFORM_2M128",
    precision_bits: 6,
    log2_p_fail: -128.992,
    lwe_dimension: 1077,
    glwe_dimension: 1,
    polynomial_size: 8192,
    lwe_noise_bound_log2: 41,
    glwe_noise_bound_log2: 3,
    pbs_base_log: 15,
    pbs_level: 2,
    ks_base_log: 4,
    ks_level: 5,
    centered_modulus_switch: true,
};

/// `V1_1_PARAM_MESSAGE_4_CARRY_4_KS_PBS_TUNIFORM_2M40`, `v1_1/classic/tuniform/p_fail_2_minus_40`. Its 2^-128 sibling
/// has `N` = 65536 and three levels: a 7 GB key, left out.
pub const MESSAGE_4_4_2M40: TfheSet = TfheSet {
    name: "V1_1_PARAM_MESSAGE_4_CARRY_4_KS_PBS_TUNIFORM_2M40",
    precision_bits: 8,
    log2_p_fail: -41.009,
    lwe_dimension: 1077,
    glwe_dimension: 1,
    polynomial_size: 32_768,
    lwe_noise_bound_log2: 41,
    glwe_noise_bound_log2: 3,
    pbs_base_log: 15,
    pbs_level: 2,
    ks_base_log: 3,
    ks_level: 7,
    centered_modulus_switch: false,
};

impl TfheSet {
    /// log2 of the chance that one lookup of `bits` bits errs on a fresh input under this set.
    ///
    /// Rounding `n` mask words to `2N` steps gives, with a binary key, a variance of `(n/2 + 1)/12` steps squared
    /// (`n/4 + 1` parts once the mean is removed), the key switch `kN l B^2/12` times its noise; a box is `N / 2^bits`
    /// steps wide and errs beyond half of that. The tail is Gaussian's `2 Q(x)`, bounded by `exp(-x^2/2)`.
    #[must_use]
    pub fn log2_fresh_failure(&self, bits: u32) -> f64 {
        let n = self.lwe_dimension as f64;
        let keyed = if self.centered_modulus_switch { n / 4.0 } else { n / 2.0 };
        let rounding = (keyed + 1.0) / 12.0;
        let step = 2f64.powi(64) / (2.0 * self.polynomial_size as f64);
        // TUniform(b): variance (2^(2b+1) + 1)/6; signed digits of base B: (B^2 + 2)/12.
        let noise = (2f64.powi(2 * self.lwe_noise_bound_log2 as i32 + 1) + 1.0) / 6.0;
        let base = 2f64.powi(self.ks_base_log as i32);
        let products = (self.glwe_dimension * self.polynomial_size * self.ks_level) as f64;
        let key_switch = products * (base * base + 2.0) / 12.0 * noise / (step * step);
        let half_box = self.polynomial_size as f64 / 2f64.powi(bits as i32) / 2.0;
        -(half_box * half_box) / (2.0 * (rounding + key_switch)) * std::f64::consts::LOG2_E
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_bit_of_precision_costs_failures() {
        for set in
            [MESSAGE_2_2_2M40, MESSAGE_2_2_2M128, MESSAGE_3_3_2M40, MESSAGE_3_3_2M128, MESSAGE_4_4_2M40]
        {
            let published = set.log2_fresh_failure(set.precision_bits);
            // The published figure is for the largest noise a sum may bring, this one for a fresh input.
            assert!(published < 0.95 * set.log2_p_fail, "{}: {published}", set.name);
            assert!(set.log2_fresh_failure(set.precision_bits + 2) > -20.0, "{}", set.name);
        }
    }
}
