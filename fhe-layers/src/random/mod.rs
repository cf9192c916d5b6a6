//! Public expansion ([`xof`]) and secret randomness ([`noise`]).

pub mod noise;
pub mod xof;
