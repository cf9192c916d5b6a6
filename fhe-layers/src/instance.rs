//! What client and server agree on before anything is computed.

use crate::error::Result;
use crate::kernels::Isa;
use crate::layout::{Layout, RoundSpec};
use crate::params::Params;
use crate::random::xof::{Tag, Xof};
use crate::ring::Ring;
use crate::words::SessionSeed;

/// SHA-256 of the server part's manifest: weight hashes, split plan, tau, parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelDigest(pub [u8; 32]);

/// Parameters, shapes, digest and plan: everything that fixes the public masks `A` and `ka`.
///
/// One secret serves exactly one instance: the same secret under two layouts of the same `A` would reuse pads.
pub struct Instance {
    params: Params,
    layout: Layout,
    digest: ModelDigest,
    plan: String,
    ring: Ring,
    #[cfg(any(test, feature = "conformance"))]
    given: Option<GivenMasks>,
}

/// Masks that golden vectors give instead of deriving them, in natural NTT order.
#[cfg(any(test, feature = "conformance"))]
pub(crate) struct GivenMasks {
    /// `A` of round 0, `[polys][n]`.
    pub(crate) public: Vec<Vec<u64>>,
    /// `ka`, `[levels][n]`.
    pub(crate) key: Vec<Vec<u64>>,
    /// `pk_a`, `[n]`.
    pub(crate) session: Vec<u64>,
}

impl Instance {
    /// Checks the shapes and builds the transform, with the instruction set of [`Isa::active`].
    ///
    /// # Errors
    /// A shape or parameter that does not fit, or an instruction set that this processor lacks.
    pub fn new(params: Params, rounds: Vec<RoundSpec>, digest: ModelDigest, plan: &str) -> Result<Self> {
        Self::with_isa(params, rounds, digest, plan, Isa::active()?)
    }

    /// As [`Instance::new`] with a named instruction set.
    ///
    /// # Errors
    /// As [`Instance::new`].
    pub fn with_isa(
        params: Params,
        rounds: Vec<RoundSpec>,
        digest: ModelDigest,
        plan: &str,
        isa: Isa,
    ) -> Result<Self> {
        let layout = Layout::new(&params, rounds)?;
        let ring = Ring::new(&params, isa.require()?)?;
        Ok(Self {
            params,
            layout,
            digest,
            plan: plan.to_owned(),
            ring,
            #[cfg(any(test, feature = "conformance"))]
            given: None,
        })
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn give_masks(&mut self, given: GivenMasks) {
        self.given = Some(given);
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }
    /// The shapes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    /// The model digest.
    pub fn digest(&self) -> ModelDigest {
        self.digest
    }
    /// Name of the round plan.
    pub fn plan(&self) -> &str {
        &self.plan
    }
    /// The ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Public mask `A[round][poly]`, in natural NTT order, `[n]`.
    pub fn public_mask(&self, round: usize, poly: usize, out: &mut [u64]) {
        #[cfg(any(test, feature = "conformance"))]
        if let Some(given) = &self.given {
            return out.copy_from_slice(&given.public[poly]);
        }
        self.xof(Tag::PublicMask).word(round as u64).word(poly as u64).residues(self.params.q(), out);
    }

    /// Key-switch mask `ka[level]`, in natural NTT order, `[n]`.
    pub fn key_mask(&self, level: usize, out: &mut [u64]) {
        #[cfg(any(test, feature = "conformance"))]
        if let Some(given) = &self.given {
            return out.copy_from_slice(&given.key[level]);
        }
        self.xof(Tag::KeyMask).word(level as u64).residues(self.params.q(), out);
    }

    /// Mask `pk_a` of a session's public keys, in natural NTT order, `[n]`.
    pub(crate) fn session_key_mask(&self, seed: &SessionSeed, out: &mut [u64]) {
        #[cfg(any(test, feature = "conformance"))]
        if let Some(given) = &self.given {
            return out.copy_from_slice(&given.session);
        }
        self.xof(Tag::SessionKey).bytes(seed.bytes()).residues(self.params.q(), out);
    }

    fn xof(&self, tag: Tag) -> Xof {
        Xof::new(tag)
            .text(self.params.id())
            .word(self.params.tau() as u64)
            .text(&self.plan)
            .bytes(&self.digest.0)
    }
}
