//! Wire forms: which halves travel when, and in how many bits.
//!
//! | form | up per feature | down per row, online | ahead | who can answer a body |
//! |---|---|---|---|---|
//! | [`WireForm::Full`] | 40 bits | 32 bits | 64 bits per row and token | any replica |
//! | [`WireForm::Lean`] | `B` | `R` | `S` bits per row and token, once per **session** | the worker that made the batch's masks |
//! | [`WireForm::Stateless`] | `B` | `R` | as lean, and 22 bits per row and token | any replica |
//!
//! # Calls, in order, in the session forms
//!
//! | when | client | on the wire | server |
//! |---|---|---|---|
//! | once per credential, model, plan | [`crate::SessionSeed::from_os`] | seed up, form | [`crate::ServerSession::new`] |
//! | | [`crate::SessionDownload`], then cache `packed_masks` and `hash` | shared masks and hash down | `PreparedModel::shared_masks`, [`crate::SharedMaskHasher`] |
//! | next start | [`crate::ClientSession::from_masks`] with the hash | seed up, hash down, compared | `PreparedModel::shared_masks_hash` (keep it next to the credential) |
//! | per batch | `Client::new_session_batch`, `Batch::keys` | keys and batch id up | [`crate::BatchIds::open`], [`crate::ExpandedKeys::for_session`], [`crate::WordsJob`] |
//! | | lean: nothing | *ready* down | `PreparedModel::mask_words` into [`crate::LeanBatch`] |
//! | | stateless: [`crate::MaskWords::read_all`], `Batch::accept_mask_words` | mask bodies down | `PreparedModel::mask_words`, `MaskWords::write` |
//! | | `Batch::into_slots` | | |
//! | per token and round | `Slot::encrypt_words`, `WordBody::write` | (batch, slot), body up | lean: `LeanBatch::claim` **before** computing |
//! | | [`crate::WordReply::from_bytes`], `PendingReply::decode_words` | reply down | [`crate::word_half`], `WordReply::write` |
//! | last answer acknowledged | | | `BatchWords::release`; whole batch: drop it and [`crate::BatchIds::bury`] |
//!
//! On [`crate::Error::SlotReused`] the server refuses, and the client drops all batches and secrets of the process.
//!
//! # What goes when the full form goes
//!
//! [`WireForm::Full`] is the first form and stays until the network code has moved to the other two. Then
//! [`crate::MaskBlock`], [`crate::Body`], [`crate::Reply`], [`crate::MaskJob`], [`crate::server::body_half()`],
//! `PreparedModel::mask_half`, `Client::new_batch`, `Batch::accept_masks`, `Slot::encrypt`, `PendingReply::decode` and their
//! `_exact` twins can be deleted with it; nothing of the other forms needs them.

use crate::error::{Error, Result};
use crate::params::{BODY_BITS, Params, REPLY_BITS};
use std::fmt;
use std::str::FromStr;

/// Bits of the server's wrapping arithmetic in the session forms: bodies are left-aligned in words of this size.
pub const WORD_BITS: u32 = 32;

/// Bits of `b'` that a server keeps per row and slot in the lean form: three bytes.
pub const KEPT_BITS: u32 = 24;

/// Bits of `b'` that travel ahead per row and slot in the stateless form.
pub const SENT_BITS: u32 = 22;

/// Word widths of a session form, in bits: body, reply, shared mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Widths {
    body: u32,
    reply: u32,
    shared: u32,
}

impl Widths {
    /// 30/20/28, the lean form's default with two gadget levels.
    pub const DEFAULT: Self = Self { body: 30, reply: 20, shared: 28 };
    /// 28/18/26: 8 % fewer bytes than the default, 2 bits less precision. The lean form's default with one gadget level,
    /// whose key switch is coarser anyway.
    pub const THRIFTY: Self = Self { body: 28, reply: 18, shared: 26 };
    /// 32/22/30: 2 bits more precision than the default; exact mode holds the most under it.
    pub const FINE: Self = Self { body: 32, reply: 22, shared: 30 };
    /// 28/20/26, the stateless form's default.
    pub const STATELESS: Self = Self { body: 28, reply: 20, shared: 26 };

    /// Checked widths: `body` in `24..=32`, `reply` in `14..=22` and `shared` in `20..=32`.
    ///
    /// Narrower bodies and replies leave no precision; a reply of more than 22 bits would show the rounding of `b'` to
    /// [`KEPT_BITS`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn new(body: u32, reply: u32, shared: u32) -> Result<Self> {
        Error::check_range("body bits", "24..=32", (24..=WORD_BITS).contains(&body), body as usize)?;
        Error::check_range("reply bits", "14..=22", (14..=22).contains(&reply), reply as usize)?;
        Error::check_range(
            "shared mask bits",
            "20..=32",
            (20..=WORD_BITS).contains(&shared),
            shared as usize,
        )?;
        Ok(Self { body, reply, shared })
    }

    /// The lean form's default widths for `params`.
    pub fn lean_default(params: &Params) -> Self {
        if params.levels() > 1 { Self::DEFAULT } else { Self::THRIFTY }
    }

    /// `B`: bits per feature and token, up.
    pub fn body(&self) -> u32 {
        self.body
    }

    /// `R`: bits per row and token, down.
    pub fn reply(&self) -> u32 {
        self.reply
    }

    /// `S`: bits per coefficient of the shared mask.
    pub fn shared(&self) -> u32 {
        self.shared
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.body, self.reply, self.shared)
    }
}

impl FromStr for Widths {
    type Err = String;

    /// `default`, `thrifty`, `fine` or `B/R/S`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "default" => return Ok(Self::DEFAULT),
            "thrifty" => return Ok(Self::THRIFTY),
            "fine" => return Ok(Self::FINE),
            _ => {}
        }
        let expected = || format!("widths: expected default, thrifty, fine or B/R/S, got {text}");
        let numbers = text.split('/').map(str::parse).collect::<std::result::Result<Vec<u32>, _>>();
        let numbers = numbers.map_err(|_| expected())?;
        let [body, reply, shared] = numbers[..] else { return Err(expected()) };
        Self::new(body, reply, shared).map_err(|error| error.to_string())
    }
}

/// How bodies, masks and replies travel; see the top of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireForm {
    /// Masks travel whole, ahead of every batch.
    Full,
    /// Shared masks once per session; `b'` stays at the server.
    Lean(Widths),
    /// Shared masks once per session; `b'` travels ahead of every batch.
    Stateless(Widths),
}

impl WireForm {
    /// The lean form with its default widths for `params`.
    pub fn lean(params: &Params) -> Self {
        Self::Lean(Widths::lean_default(params))
    }

    /// The stateless form with its default widths.
    pub fn stateless() -> Self {
        Self::Stateless(Widths::STATELESS)
    }

    /// Widths of a session form; `None` for [`WireForm::Full`].
    pub fn widths(&self) -> Option<Widths> {
        match self {
            Self::Full => None,
            Self::Lean(widths) | Self::Stateless(widths) => Some(*widths),
        }
    }

    /// Widths of a session form.
    ///
    /// # Errors
    /// [`Error::WrongForm`] for [`WireForm::Full`].
    pub(crate) fn session_widths(&self) -> Result<Widths> {
        self.widths().ok_or(Error::WrongForm { expected: "lean or stateless", got: "full" })
    }

    /// Whether the server keeps `b'`, so that only the worker that has it can answer.
    pub fn keeps_words(&self) -> bool {
        matches!(self, Self::Lean(_))
    }

    /// `lean`, `stateless` or `full`, without widths.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lean(_) => "lean",
            Self::Stateless(_) => "stateless",
        }
    }

    /// Bits of a body word.
    pub fn body_bits(&self) -> u32 {
        self.widths().map_or(BODY_BITS, |widths| widths.body)
    }

    /// Bits of a reply word.
    pub fn reply_bits(&self) -> u32 {
        self.widths().map_or(REPLY_BITS, |widths| widths.reply)
    }

    /// Bits to which `b'` is rounded when it is kept or sent ahead; in the full form it is a mask word.
    pub fn mask_body_bits(&self) -> u32 {
        match self {
            Self::Full => crate::params::MASK_WORD_BITS,
            Self::Lean(_) => KEPT_BITS,
            Self::Stateless(_) => SENT_BITS,
        }
    }

    /// Bytes of a body of `d_in` features.
    pub fn body_bytes(&self, d_in: usize) -> usize {
        (d_in * self.body_bits() as usize).div_ceil(8)
    }

    /// Bytes of a reply of `rows` rows.
    pub fn reply_bytes(&self, rows: usize) -> usize {
        (rows * self.reply_bits() as usize).div_ceil(8)
    }

    /// Bytes per mask block that a session downloads once; 0 in the full form.
    pub fn session_block_bytes(&self, params: &Params) -> usize {
        self.widths().map_or(0, |widths| (params.n() * widths.shared as usize).div_ceil(8))
    }

    /// Bytes per mask block that travel down ahead of every batch; 0 in the lean form.
    pub fn batch_block_bytes(&self, params: &Params) -> usize {
        match self {
            Self::Full => crate::MaskBlock::byte_len(params),
            Self::Lean(_) => 0,
            Self::Stateless(_) => (params.n() * SENT_BITS as usize).div_ceil(8),
        }
    }

    /// Bytes that a server keeps per row and slot until the slot is answered: 3 in the lean form, else 0.
    pub fn kept_bytes_per_row(&self) -> usize {
        if self.keeps_words() { KEPT_BITS as usize / 8 } else { 0 }
    }
}

impl fmt::Display for WireForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.widths() {
            None => f.write_str(self.name()),
            Some(widths) => write!(f, "{}:{widths}", self.name()),
        }
    }
}

impl FromStr for WireForm {
    type Err = String;

    /// `full`, `lean`, `stateless`, or one of the latter with widths: `lean:30/20/28`, `lean:fine`. Without widths `lean` has
    /// those of the default parameter set; [`WireForm::lean`] chooses by set.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, widths) = text.split_once(':').map_or((text, None), |(name, widths)| (name, Some(widths)));
        let widths = widths.map(str::parse).transpose()?;
        match (name, widths) {
            ("full", None) => Ok(Self::Full),
            ("lean", widths) => Ok(Self::Lean(widths.unwrap_or(Widths::DEFAULT))),
            ("stateless", widths) => Ok(Self::Stateless(widths.unwrap_or(Widths::STATELESS))),
            _ => Err(format!(
                "wire form: expected lean, stateless or full, with widths as in lean:30/20/28, got {text}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_widths_round_trip_as_text() {
        for form in [
            WireForm::Full,
            WireForm::Lean(Widths::DEFAULT),
            WireForm::Lean(Widths::FINE),
            WireForm::Stateless(Widths::STATELESS),
        ] {
            assert_eq!(form.to_string().parse(), Ok(form));
        }
        assert_eq!("lean:thrifty".parse(), Ok(WireForm::Lean(Widths::THRIFTY)));
        for bad in
            ["", "leaner", "full:28/18/26", "lean:28/18", "lean:28/18/26/1", "lean:0/18/26", "lean:28/23/26"]
        {
            assert!(bad.parse::<WireForm>().is_err(), "{bad}");
        }
    }

    #[test]
    fn widths_outside_their_ranges_are_refused() {
        for (body, reply, shared) in
            [(23, 20, 28), (33, 20, 28), (30, 13, 28), (30, 23, 28), (30, 20, 19), (30, 20, 33)]
        {
            assert!(
                matches!(Widths::new(body, reply, shared), Err(Error::OutOfRange { .. })),
                "{body}/{reply}/{shared}"
            );
        }
        assert_eq!(Widths::new(30, 20, 28), Ok(Widths::DEFAULT));
    }

    #[test]
    fn bytes_are_those_of_the_design() {
        let params = Params::n2048_q50(64).unwrap();
        // SmolLM2-135M: 97,920 features and 155,520 rows per token.
        let per_token = |form: WireForm| {
            let blocks = 155_520usize.div_ceil(params.phi());
            let ahead = (blocks * form.batch_block_bytes(&params)) as f64 / params.tau() as f64;
            (form.body_bytes(97_920) + form.reply_bytes(155_520)) as f64 / 1e6 + ahead / 1e6
        };
        for (form, megabytes) in [
            (WireForm::Full, 2.356),
            (WireForm::Lean(Widths::DEFAULT), 0.756),
            (WireForm::Lean(Widths::THRIFTY), 0.693),
            (WireForm::stateless(), 1.159),
        ] {
            assert!((per_token(form) - megabytes).abs() < 0.001, "{form}: {:.4}", per_token(form));
        }
    }
}
