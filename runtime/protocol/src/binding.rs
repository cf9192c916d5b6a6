//! From a manifest to the instance of the cryptographic protocol that it names: the same on both sides.

use std::fmt;
use std::str::FromStr;

use fhe_layers::{Instance, MatrixSpec, ModelDigest, Params, PreparedModel, RoundSpec, Set, TableForm};
use sotto_models::split::ProtocolBinding;
use sotto_models::split::plan::SplitPlan;

use crate::error::{Error, Result};

/// Name of the prepared tables in a server part.
pub const TABLES_FILE: &str = "tables.bin";

/// Name of tables that are being written: one name, so that an interrupted write is written over.
pub const UNFINISHED_TABLES_FILE: &str = "tables.bin.part";

/// The parameter set that a split was made for.
///
/// # Errors
/// [`Error::Malformed`] for a set that this version does not know.
pub fn params(binding: &ProtocolBinding) -> Result<Params> {
    Ok(set(binding)?.params(binding.tau).map_err(fhe_layers::Error::from)?)
}

/// The named set that a split was made for.
///
/// # Errors
/// As [`params`].
pub fn set(binding: &ProtocolBinding) -> Result<Set> {
    if let Some(set) = Set::of_id(&binding.params_id, binding.tau) {
        return Ok(set);
    }
    let mut known = Vec::new();
    for set in Set::ALL {
        known.push(set.params(binding.tau).map_err(fhe_layers::Error::from)?.id().to_owned());
    }
    Err(Error::Malformed {
        field: "parameter set of the model",
        expected: known.join(" or "),
        got: binding.params_id.clone(),
    })
}

/// What a manifest records of the parameters of the default set for `tau`.
///
/// # Errors
/// [`Error::FheLayers`] for a tau without parameters.
pub fn binding(tau: usize) -> Result<ProtocolBinding> {
    binding_of(Set::Default, tau)
}

/// What a manifest records of the parameters of `set` for `tau`.
///
/// # Errors
/// [`Error::FheLayers`] for a tau without parameters.
pub fn binding_of(set: Set, tau: usize) -> Result<ProtocolBinding> {
    let params = set.params(tau).map_err(fhe_layers::Error::from)?;
    Ok(ProtocolBinding { tau, params_id: params.id().to_owned() })
}

/// The instance of the protocol that a plan, a binding and a digest name: the same on both sides.
///
/// # Errors
/// [`Error::Malformed`] for an unknown parameter set, [`Error::FheLayers`] for shapes that it does not allow.
pub fn instance(plan: &SplitPlan, binding: &ProtocolBinding, digest: [u8; 32]) -> Result<Instance> {
    let rounds = plan.rounds.iter().map(|round| RoundSpec {
        d_in: round.d_in,
        matrices: round
            .matrices
            .iter()
            .map(|matrix| MatrixSpec { rows: matrix.rows, columns: matrix.columns.clone() })
            .collect(),
    });
    Ok(Instance::new(params(binding)?, rounds.collect(), ModelDigest(digest), plan.kind.as_str())?)
}

/// Which parameter set a user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetPreference {
    /// For a split made here: the default set where this machine has the memory for its tables in the faster form, else
    /// the light one. At a server: whichever it offers first.
    #[default]
    Auto,
    /// This one.
    Only(Set),
}

impl SetPreference {
    /// The set to split for when `free` bytes of memory are available to the server (`None`: unknown, taken as enough).
    ///
    /// # Errors
    /// [`Error::FheLayers`] for a tau without parameters.
    pub fn choose(self, plan: &SplitPlan, tau: usize, free: Option<u64>) -> Result<Set> {
        match (self, free) {
            (Self::Only(set), _) => Ok(set),
            (Self::Auto, None) => Ok(Set::Default),
            (Self::Auto, Some(free)) => {
                let fits = server_bytes(plan, Set::Default, tau, TableForm::Ntt)? <= spendable(free);
                Ok(if fits { Set::Default } else { Set::Light })
            }
        }
    }
}

impl fmt::Display for SetPreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(set) => set.fmt(f),
        }
    }
}

impl FromStr for SetPreference {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text
                .parse()
                .map(Self::Only)
                .map_err(|_| format!("parameter set: expected auto, default or light, got {text}")),
        }
    }
}

/// What of `free` bytes of memory weights and tables may take: two thirds. The rest is for keys, batches and whatever else
/// runs.
pub fn spendable(free: u64) -> u64 {
    free / 3 * 2
}

/// Memory of a server's weights and tables, from the shapes alone.
///
/// # Errors
/// [`Error::FheLayers`] for a tau without parameters.
pub fn server_bytes(plan: &SplitPlan, set: Set, tau: usize, form: TableForm) -> Result<u64> {
    let params = set.params(tau).map_err(fhe_layers::Error::from)?;
    Ok(plan.weights() as u64 + PreparedModel::bytes_for(&params, plan.rows(), form))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_models::split::plan::{PlanKind, PlanRound};

    fn plan() -> SplitPlan {
        let round = PlanRound::new("r", 512, [("w".to_owned(), 2048, 0..512)]);
        SplitPlan { kind: PlanKind::Plain, rounds: vec![round] }
    }

    #[test]
    fn a_binding_names_its_set() {
        for set in Set::ALL {
            let named = binding_of(set, 64).unwrap();
            assert_eq!(super::set(&named).unwrap(), set);
            assert_eq!(params(&named).unwrap().id(), named.params_id);
            assert_eq!(set.to_string().parse(), Ok(SetPreference::Only(set)));
        }
        let unknown = ProtocolBinding { tau: 64, params_id: "n2048-q50-t5-tau128".to_owned() };
        let error = params(&unknown).unwrap_err().to_string();
        assert!(error.contains("n2048-q50-t5-tau64") && error.contains("n2048-q50-t4-l1-tau64"), "{error}");
    }

    #[test]
    fn short_memory_means_the_light_set() {
        let plan = plan();
        let needed = server_bytes(&plan, Set::Default, 64, TableForm::Ntt).unwrap();
        let choose = |wanted: SetPreference, free| wanted.choose(&plan, 64, free).unwrap();
        assert_eq!(choose(SetPreference::Auto, None), Set::Default);
        assert_eq!(choose(SetPreference::Auto, Some(needed * 3 / 2 + 3)), Set::Default);
        assert_eq!(choose(SetPreference::Auto, Some(needed * 3 / 2 - 3)), Set::Light);
        assert_eq!(choose(SetPreference::Only(Set::Default), Some(0)), Set::Default);
        assert_eq!(choose(SetPreference::Only(Set::Light), None), Set::Light);
    }

    #[test]
    fn light_tables_take_half() {
        let of = |set, form| server_bytes(&plan(), set, 64, form).unwrap() - plan().weights() as u64;
        // 64 blocks of 2048 coefficients: 9 bytes of mask and fold, and 31 rotations of 8-byte words per level.
        assert_eq!(of(Set::Default, TableForm::Ntt), 64 * 2048 * (9 + 31 * 2 * 8));
        assert_eq!(of(Set::Light, TableForm::Ntt), 64 * 2048 * (9 + 31 * 8));
        assert_eq!(of(Set::Light, TableForm::Compact), 64 * 2048 * (9 + 31 * 3));
        assert!(of(Set::Light, TableForm::Ntt) / 2048 <= 16_500, "bytes per row");
    }
}
