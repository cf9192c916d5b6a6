//! Which instruction set a kernel uses, decided at run time.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// Environment variable that overrides [`Isa::detect`] in [`Isa::active`].
pub const ISA_VARIABLE: &str = "SOTTO_ISA";

/// An instruction set that the kernels are written for, from slowest to fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust; runs everywhere.
    Scalar,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI, such as Cascade Lake: products of bytes are as fast as can be, residues
    /// are multiplied in doubles.
    Avx512Vnni,
    /// The same with IFMA, which multiplies residues.
    Avx512,
}

/// Why an instruction set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The name is none of `scalar`, `avx2`, `avx512vnni`, `avx512`.
    #[error("unknown instruction set {got:?}: expected scalar, avx2, avx512vnni or avx512")]
    Unknown {
        /// The name as given.
        got: String,
    },
    /// This processor does not have it.
    #[error("instruction set {requested} is not supported by this processor (best: {best})")]
    Unsupported {
        /// What was requested.
        requested: Isa,
        /// What [`Isa::detect`] found.
        best: Isa,
    },
}

impl Isa {
    /// All variants, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Avx2, Isa::Avx512Vnni, Isa::Avx512];

    /// The fastest instruction set of this processor.
    pub fn detect() -> Isa {
        *Isa::ALL.iter().rev().find(|isa| isa.is_supported()).unwrap_or(&Isa::Scalar)
    }

    /// All instruction sets of this processor, slowest first.
    pub fn supported() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_supported()).collect()
    }

    /// Whether this processor can run it.
    #[inline]
    pub fn is_supported(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Isa::Avx512Vnni.is_supported() && is_x86_feature_detected!("avx512ifma"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Checks that this processor can run it.
    ///
    /// # Errors
    /// [`IsaError::Unsupported`] if it cannot.
    pub fn require(self) -> Result<Isa, IsaError> {
        if self.is_supported() {
            Ok(self)
        } else {
            Err(IsaError::Unsupported { requested: self, best: Isa::detect() })
        }
    }

    /// The instruction set named by the environment variable `SOTTO_ISA` (`scalar`, `avx2`, `avx512vnni` or
    /// `avx512`), or else the fastest one. The variable is read once per process.
    ///
    /// # Errors
    /// [`IsaError`] if the variable holds another word or names what this processor lacks.
    pub fn active() -> Result<Isa, IsaError> {
        static ACTIVE: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        ACTIVE.get_or_init(|| Isa::from_override(std::env::var_os(ISA_VARIABLE).as_deref())).clone()
    }

    fn from_override(value: Option<&std::ffi::OsStr>) -> Result<Isa, IsaError> {
        match value {
            None => Ok(Isa::detect()),
            Some(name) => name.to_string_lossy().parse::<Isa>()?.require(),
        }
    }

    /// Guard before every vector kernel: what makes the call sound.
    #[inline]
    pub(crate) fn assert_supported(self) {
        assert!(self.is_supported(), "instruction set {self} is not supported by this processor");
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Isa, IsaError> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| IsaError::Unknown { got: name.to_owned() })
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512 => "avx512",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_overrides_are_checked() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>(), Ok(isa));
        }
        assert_eq!(Isa::from_override(None), Ok(Isa::detect()));
        assert_eq!(Isa::from_override(Some("scalar".as_ref())), Ok(Isa::Scalar));
        assert_eq!(Isa::from_override(Some("sse9".as_ref())), Err(IsaError::Unknown { got: "sse9".into() }));
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_supported()) {
            assert_eq!(isa.require(), Err(IsaError::Unsupported { requested: isa, best: Isa::detect() }));
        }
    }
}
