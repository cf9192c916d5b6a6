//! Public expansion ([`xof`]) and secret randomness: of keys (`keys`), of bodies and masks ([`noise`]).

pub(crate) mod keys;
pub mod noise;
pub mod xof;
