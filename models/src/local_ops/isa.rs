//! Small loops of the local operations, compiled for the machine's vector instructions.
//!
//! Candle's operations cost some microseconds each in dispatch and thread wake-ups, which for one decoded token is
//! several times the arithmetic. These are plain loops, written so that the compiler vectorizes them, compiled once
//! per instruction set and chosen at run time.

use crate::{Error, Result};
use std::sync::OnceLock;

/// Environment variable that overrides the detection, the one that the encrypted layer's kernels follow.
const ISA_VARIABLE: &str = "SOTTO_ISA";

/// Vector instructions the loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    /// What every machine of the target has.
    Portable,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The instruction set that `SOTTO_ISA` names (`scalar`, `avx2`, `avx512vnni`, `avx512`), or the best of this
    /// machine. The variable is read once per process.
    ///
    /// # Errors
    /// If the variable holds another word or names instructions that this machine lacks.
    pub(super) fn active() -> Result<Self> {
        static ACTIVE: OnceLock<std::result::Result<Isa, String>> = OnceLock::new();
        let chosen = ACTIVE.get_or_init(|| Self::named(std::env::var_os(ISA_VARIABLE).as_deref()));
        chosen.clone().map_err(|reason| Error::config(ISA_VARIABLE, reason))
    }

    fn named(name: Option<&std::ffi::OsStr>) -> std::result::Result<Self, String> {
        let Some(name) = name else { return Ok(Self::best()) };
        let wanted = match name.to_string_lossy().as_ref() {
            "scalar" => Self::Portable,
            #[cfg(target_arch = "x86_64")]
            "avx2" => Self::Avx2,
            // The loops here need only what both of these have.
            #[cfg(target_arch = "x86_64")]
            "avx512vnni" | "avx512" => Self::Avx512,
            other => return Err(format!("expected scalar, avx2, avx512vnni or avx512, got {other:?}")),
        };
        if Self::all().contains(&wanted) {
            Ok(wanted)
        } else {
            Err(format!("this processor does not have {}", name.to_string_lossy()))
        }
    }

    /// The best of this machine.
    fn best() -> Self {
        *Self::all().last().unwrap_or(&Self::Portable)
    }

    /// All of this machine, slowest first.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                all.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
            {
                all.push(Self::Avx512);
            }
        }
        all
    }
}

/// Defines `fn $name(isa, args...)` that runs `$body`, a function marked `#[inline(always)]`, compiled for `isa`.
macro_rules! compiled_for_each_isa {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "the arguments of the loop and the instruction set")]
        #[cfg_attr(
            target_arch = "x86_64",
            allow(unsafe_code, reason = "calls functions compiled for detected instructions")
        )]
        pub(super) fn $name(isa: $crate::local_ops::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $ty),*) {
                $body($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn avx512($($arg: $ty),*) {
                $body($($arg),*);
            }
            match isa {
                $crate::local_ops::isa::Isa::Portable => $body($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Isa::active` and `Isa::all` yield only what this machine was found to have.
                $crate::local_ops::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::local_ops::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(super) use compiled_for_each_isa;

/// Partial sums kept side by side, so that sums can be vectorized.
pub(super) const LANES: usize = 16;

/// `sum_i a[i] * b[i]`.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    rest + sums.iter().sum::<f32>()
}

/// `e^x` within 2 units in the last place for `x <= 88`; 0 below about -87.
///
/// Range reduction to `2^n e^r`, `|r| <= ln(2)/2`, and the Taylor series of `e^r` to the 7th power, whose remainder is
/// below `(ln(2)/2)^8 / 8! = 5e-9`. Branch-free, so loops over it vectorize.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with few enough bits that `n *` it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let series = 1.0
        + r * (1.0
            + r * (1.0 / 2.0
                + r * (1.0 / 6.0
                    + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))))));
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    series * f32::from_bits(exponent)
}

/// `tanh x`, within 4e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_the_instruction_set() {
        let named = |name: &str| Isa::named(Some(name.as_ref()));
        assert_eq!(named("scalar"), Ok(Isa::Portable));
        assert!(named("sse9").unwrap_err().contains("avx512vnni"));
        assert!(named("").is_err());
        #[cfg(target_arch = "x86_64")]
        for (name, isa) in [("avx2", Isa::Avx2), ("avx512", Isa::Avx512), ("avx512vnni", Isa::Avx512)] {
            assert_eq!(named(name).ok(), Isa::all().contains(&isa).then_some(isa), "{name}");
        }
        assert_eq!(Isa::named(None), Ok(Isa::best()));
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let (got, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((got - exact) / exact).abs() < 2.4e-7, "exp({x}) = {got}, not {exact}");
        }
        assert!(exp(-1e30) < 2e-38 && exp(f32::NEG_INFINITY) < 2e-38);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn tanh_is_exact_to_a_few_units() {
        for i in -60_000..60_000 {
            let x = i as f32 / 1000.0;
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 4e-7, "tanh({x})");
        }
    }

    #[test]
    fn dot_handles_every_length() {
        for length in 0..40 {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let expected: f32 = a.iter().map(|a| a * a).sum();
            assert_eq!(dot(&a, &a), expected);
        }
    }
}
