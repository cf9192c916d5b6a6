//! Errors of the crate. None of them carries plaintext or key bytes.

use crate::kernels::IsaError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why parameters were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// The combination is below the security that this crate accepts.
    #[error("insecure parameters: {estimated_bits} bits estimated, {required_bits} required")]
    Insecure {
        /// Estimated classical security.
        estimated_bits: u32,
        /// What is required.
        required_bits: u32,
    },
    /// A value outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    OutOfRange {
        /// Which parameter.
        name: &'static str,
        /// What is accepted.
        expected: &'static str,
        /// What was given.
        got: u64,
    },
    /// The modulus has no transform of this length.
    #[error("no negacyclic transform of length {n} modulo {q}")]
    NoTransform {
        /// Ring degree.
        n: usize,
        /// Modulus.
        q: u64,
    },
}

/// What can go wrong in the encrypted layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Parameters were refused.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The requested instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A length, count or index is not what the layout says.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was measured.
        what: &'static str,
        /// What the layout asks for.
        expected: u64,
        /// What was given.
        got: u64,
    },
    /// A word from a peer or a file is out of range.
    #[error("{what}: word {index} is not below {limit}")]
    WordOutOfRange {
        /// Which sequence.
        what: &'static str,
        /// Position of the first bad word.
        index: usize,
        /// The exclusive limit.
        limit: u64,
    },
    /// A weight outside [-127, 127].
    #[error("round {round}, matrix {matrix}: weight {index} is -128, expected -127..=127")]
    WeightOutOfRange {
        /// Round.
        round: usize,
        /// Matrix of the round.
        matrix: usize,
        /// Position of the weight, row-major.
        index: usize,
    },
    /// A pad would have encrypted a second message.
    #[error("round {round} of this slot was used before: a pad encrypts one message")]
    PadUsed {
        /// The round.
        round: usize,
    },
    /// The process forked: its copy of the pads must not be used.
    #[error("this process is a fork of the one that made the batch: its pads must not be used")]
    Forked,
    /// A mask block arrived twice.
    #[error("mask block {block} arrived twice")]
    DuplicateMask {
        /// The block.
        block: usize,
    },
    /// Slots were asked for before all masks had arrived.
    #[error("masks: {missing} blocks are still missing")]
    MasksMissing {
        /// How many.
        missing: usize,
    },
    /// Exact mode cannot hold results that large.
    #[error("exact mode: |Wx| may reach {got}, must stay below {limit}")]
    ExactOverflow {
        /// Largest possible result.
        got: u64,
        /// Exclusive limit, `q / (2 phi delta)`.
        limit: u64,
    },
    /// A published row norm is negative or not finite.
    #[error("row norm: expected a finite number that is not negative")]
    NotANorm,
    /// Exact mode was given an integer that does not fit; the body sent was that of zeros.
    #[error("exact mode: an input was beyond the limit")]
    ExactInput,
    /// A serialized form is malformed.
    #[error("{what}: {problem}")]
    Malformed {
        /// Which form.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A serialized form belongs to other parameters, another model or another version.
    #[error("{what}: made for another {of}")]
    Foreign {
        /// Which form.
        what: &'static str,
        /// What differs: version, parameters, digest.
        of: &'static str,
    },
    /// Work was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The operating system gave no randomness.
    #[error("no entropy: {0}")]
    Entropy(String),
    /// Reading or writing tables failed.
    #[error("tables: {0}")]
    Io(String),
}

impl Error {
    pub(crate) fn check(what: &'static str, expected: usize, got: usize) -> Result<()> {
        if expected == got {
            return Ok(());
        }
        Err(Error::Mismatch { what, expected: expected as u64, got: got as u64 })
    }
}
