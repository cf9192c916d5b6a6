//! Errors of the crate. None of them carries plaintext or key bytes.

use crate::kernels::IsaError;
use std::fmt;
use std::sync::Arc;

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
    #[error("{name} must be {expected}, got {got}")]
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
    /// A count, index or parameter is outside its range.
    #[error("{what} must be {range}, got {got}")]
    OutOfRange {
        /// What was measured.
        what: &'static str,
        /// What is accepted.
        range: &'static str,
        /// What was given.
        got: u64,
    },
    /// A length or count is not the one that the layout or another argument fixes.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was measured.
        what: &'static str,
        /// What is required.
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
    /// The wall clock and the boot clock disagree: the machine may have been restored from a snapshot, with the batch.
    #[error(
        "this batch may be a copy: since it was made, the wall clock and the boot clock have run differently"
    )]
    Expired,
    /// A call for another wire form.
    #[error("wire form: expected {expected}, got {got}")]
    WrongForm {
        /// What the call is for.
        expected: &'static str,
        /// What the object has.
        got: &'static str,
    },
    /// A slot came back with another body: a copy of the client is alive.
    #[error("slot {slot} was used for round {round} with other bytes: a copy of the client may be alive")]
    SlotReused {
        /// The slot.
        slot: usize,
        /// The round.
        round: usize,
    },
    /// A slot's words were released after its last answer was acknowledged.
    #[error("slot {slot} has been released")]
    SlotReleased {
        /// The slot.
        slot: usize,
    },
    /// The batch's words were dropped; its id is dead for ever.
    #[error("this batch is no longer kept: it cannot be used again")]
    BatchDead,
    /// A mask block arrived twice.
    #[error("mask block {block} arrived twice")]
    DuplicateMask {
        /// The block.
        block: usize,
    },
    /// Slots or words were requested before all mask blocks had arrived.
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
        /// Exclusive limit, `q / (2 delta)`.
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
    #[error("no entropy from the operating system")]
    Entropy(#[source] getrandom::Error),
    /// Reading or writing tables failed, or there is no memory for them.
    #[error("tables: {0}")]
    Io(#[source] IoError),
}

/// An I/O error that can be cloned and compared, by kind and text.
#[derive(Debug, Clone)]
pub struct IoError(Arc<std::io::Error>);

impl PartialEq for IoError {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind() == other.0.kind() && self.0.to_string() == other.0.to_string()
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl From<std::io::Error> for IoError {
    fn from(error: std::io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.into())
    }
}

impl Error {
    pub(crate) fn check(what: &'static str, expected: usize, got: usize) -> Result<()> {
        if expected == got {
            return Ok(());
        }
        Err(Error::Mismatch { what, expected: expected as u64, got: got as u64 })
    }

    pub(crate) fn check_range(
        what: &'static str,
        range: &'static str,
        inside: bool,
        got: usize,
    ) -> Result<()> {
        if inside { Ok(()) } else { Err(Error::OutOfRange { what, range, got: got as u64 }) }
    }
}
