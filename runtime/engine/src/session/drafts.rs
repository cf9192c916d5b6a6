//! Guesses of the next tokens, which one pass then checks.
//!
//! A pass of `k + 1` tokens costs one round of trips like a pass of one. Whatever the drafts are, the answer is the same:
//! each token is chosen from the model's own logits with the same sampler, and a draft only counts when it is the token
//! that was chosen. What the server sees is the number of tokens in each pass, so the length of drafts must not follow the
//! text without saying so; see [`DraftLength`].

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Longest draft.
pub const MAX_DRAFT: usize = 16;

/// Longest draft that is chosen without being asked for.
const LONGEST_CHOSEN: usize = 5;

/// Occurrences of the last two tokens that are looked at.
const CANDIDATES: usize = 64;

/// Passes before the first decision whether drafts pay, before the second, and between the later ones.
const FIRST_DECISION: usize = 6;
const SECOND_DECISION: usize = 8;
const DECISION_EVERY: usize = 16;

/// How many tokens are drafted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DraftLength {
    /// As many as the link is worth, chosen once per session, and the same in every pass that has any. A text begins without, unless a
    /// model drafts; whether they would pay, or still do, is decided after some 6 passes, some 8 more, and then every 16.
    #[default]
    Steady,
    /// As many as the text suggests, in every pass anew: tells the server where the text repeats itself.
    Auto,
    /// This many in every pass.
    Fixed(usize),
}

impl FromStr for DraftLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "steady" => Ok(Self::Steady),
            "auto" => Ok(Self::Auto),
            _ => match text.parse() {
                Ok(length) if length <= MAX_DRAFT => Ok(Self::Fixed(length)),
                _ => Err(format!("{text:?} is not steady, auto or a number from 0 to {MAX_DRAFT}")),
            },
        }
    }
}

impl fmt::Display for DraftLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady => f.write_str("steady"),
            Self::Auto => f.write_str("auto"),
            Self::Fixed(length) => write!(f, "{length}"),
        }
    }
}

/// What a pass costs over the link in use, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PassCost {
    /// Whatever it carries: the round trips.
    pub fixed: f64,
    /// For each token: its bytes and its arithmetic. 0 while nothing was measured.
    pub per_token: f64,
}

impl PassCost {
    /// Takes note of a pass of `tokens` that took `seconds` without the wait for masks.
    pub(crate) fn measure(&mut self, tokens: usize, seconds: f64) {
        let each = (seconds - self.fixed).max(0.0) / tokens as f64;
        // Of many tokens, one pass says it well; of few, what the rounds cost besides their trips is in it as well.
        let weight = if self.per_token == 0.0 { 1.0 } else { 0.2 };
        if tokens >= 8 || self.per_token == 0.0 {
            self.per_token += weight * (each - self.per_token);
        }
    }

    /// The cost of a draft, as a share of that of a pass without drafts.
    pub(crate) fn of_draft(&self) -> f64 {
        match self.fixed + self.per_token {
            whole if whole > 0.0 => self.per_token / whole,
            _ => 1.0,
        }
    }

    /// The length of drafts that pays best when each token of a draft is right with this `probability` if those before it
    /// were; 0 when none pays.
    pub(crate) fn best_length(&self, probability: f64) -> usize {
        let cost = self.of_draft();
        let gain = |length: usize| {
            let tokens: f64 = (0..=length).map(|right| probability.powi(right as i32)).sum();
            tokens / (1.0 + length as f64 * cost)
        };
        let best = (0..=LONGEST_CHOSEN).max_by(|&a, &b| gain(a).total_cmp(&gain(b))).unwrap_or(0);
        if gain(best) >= 1.15 { best } else { 0 }
    }
}

/// The share of drafted tokens that are right, before anything is known about a text.
pub(crate) const PRIOR_NGRAM: f64 = 0.6;
pub(crate) const PRIOR_MODEL: f64 = 0.85;

/// Looks the next tokens up in the text so far, and in what the model thought likely after single tokens.
#[derive(Default)]
pub(super) struct Lookup {
    text: Vec<u32>,
    /// Where two tokens follow each other: the place of the second one, in order.
    pairs: HashMap<(u32, u32), Vec<u32>>,
    /// The token last seen after one.
    after: HashMap<u32, u32>,
    /// The likeliest token after one, when the model last ran it.
    likely: HashMap<u32, u32>,
}

/// A draft and how much of it the text supports.
pub(super) struct Found {
    pub(super) tokens: Vec<u32>,
    /// So many of its first tokens follow two tokens or more that stood there before.
    pub(super) supported: usize,
}

impl Lookup {
    /// Adds tokens to the text.
    pub(super) fn extend(&mut self, ids: &[u32]) {
        for &id in ids {
            if let Some(&last) = self.text.last() {
                self.pairs.entry((last, id)).or_default().push(self.text.len() as u32);
                self.after.insert(last, id);
            }
            self.text.push(id);
        }
    }

    /// Whether `tokens` begin with the text.
    pub(super) fn is_beginning_of(&self, tokens: &[u32]) -> bool {
        tokens.starts_with(&self.text)
    }

    /// Forgets the text, but not what the model thought likely.
    pub(super) fn restart(&mut self) {
        self.text.clear();
        self.pairs.clear();
        self.after.clear();
    }

    /// After `id`, the model thought `next` the likeliest.
    pub(super) fn note(&mut self, id: u32, next: u32) {
        self.likely.insert(id, next);
    }

    /// Exactly `length` tokens.
    pub(super) fn draft(&self, length: usize) -> Found {
        let mut text: Vec<u32> = self.text[self.text.len().saturating_sub(CANDIDATES)..].to_vec();
        let given = text.len();
        let (mut supported, mut unbroken) = (0, true);
        for _ in 0..length {
            let next = match self.repeated(&text) {
                Some(next) => {
                    supported += usize::from(unbroken);
                    next
                }
                None => {
                    unbroken = false;
                    let last = text.last().copied().unwrap_or_default();
                    let guess = self.likely.get(&last).or_else(|| self.after.get(&last));
                    guess.copied().unwrap_or(last)
                }
            };
            text.push(next);
        }
        Found { tokens: text.split_off(given), supported }
    }

    /// What followed the longest earlier occurrence of the end of `text`, two tokens at least; of equals the latest.
    fn repeated(&self, text: &[u32]) -> Option<u32> {
        let [.., a, b] = *text else { return None };
        let places = self.pairs.get(&(a, b))?;
        let mut best: Option<(usize, u32)> = None;
        for &place in places.iter().rev().take(CANDIDATES) {
            let place = place as usize;
            let Some(&next) = self.text.get(place + 1) else { continue };
            let common = self.text[..=place].iter().rev().zip(text.iter().rev());
            let length = common.take_while(|(a, b)| a == b).count();
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, next));
            }
        }
        best.map(|(_, next)| next)
    }
}

/// Whether drafts are sent, in sessions whose length of drafts is steady.
///
/// With drafts from the text, a text begins without: what would have been drafted is compared with the tokens that come, which
/// costs nothing and shows the server nothing. Drafts are sent once that comparison says that they pay, and until they no
/// longer do. A model's drafts are mostly right and cost work either way, so they are sent from the beginning.
#[derive(Default)]
pub(super) struct Worth {
    on: bool,
    /// Since the last decision: passes, made or imagined, and the drafted tokens that were right in them.
    passes: usize,
    accepted: usize,
    stretch: Stretch,
    /// Draft that was not sent, and how many of its tokens were right so far.
    shadow: Option<(Vec<u32>, usize)>,
}

/// Which decision comes next.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stretch {
    /// The first of a text.
    #[default]
    First,
    /// The one after the first.
    Second,
    Later,
}

impl Worth {
    /// For a text that begins with drafts, or without.
    pub(super) fn beginning(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// Whether drafts are sent now.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Whether a draft that is not sent would be of use.
    pub(super) fn wants_shadow(&self) -> bool {
        !self.on && self.shadow.is_none()
    }

    /// Compares a draft with what comes instead of sending it.
    pub(super) fn shadow(&mut self, draft: Vec<u32>) {
        self.shadow = Some((draft, 0));
    }

    /// A token was chosen in a pass without drafts.
    pub(super) fn chosen(&mut self, id: u32) {
        let Some((draft, right)) = &mut self.shadow else { return };
        if draft.get(*right) == Some(&id) {
            *right += 1;
            return;
        }
        // The token that a pass would have chosen after the last right draft.
        self.accepted += *right;
        self.passes += 1;
        self.shadow = None;
    }

    /// A pass with drafts was made.
    pub(super) fn sent(&mut self, accepted: usize) {
        self.passes += 1;
        self.accepted += accepted;
    }

    /// At the end of a stretch: whether drafts are sent from now on, of which a pass has `length`, each at `cost` of a pass.
    pub(super) fn decide(&mut self, length: usize, cost: f64) {
        // Without drafts a pass is a token, so that the server sees no more of a text that repeats itself than of another.
        let done = if self.on { self.passes } else { self.passes + self.accepted };
        let stretch = match self.stretch {
            Stretch::First => FIRST_DECISION,
            Stretch::Second => SECOND_DECISION,
            Stretch::Later => DECISION_EVERY,
        };
        if done < stretch {
            return;
        }
        self.on = self.accepted as f64 > self.passes as f64 * length as f64 * cost;
        self.stretch = if self.stretch == Stretch::First { Stretch::Second } else { Stretch::Later };
        (self.passes, self.accepted, self.shadow) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(text: &[u32]) -> Lookup {
        let mut lookup = Lookup::default();
        lookup.extend(text);
        lookup
    }

    #[test]
    fn the_longest_repeat_wins_and_goes_on_into_the_draft() {
        // After 1 2 came 3 with the longer context, 9 with the shorter.
        let found = lookup(&[7, 1, 2, 3, 4, 8, 1, 2, 9, 5, 7, 1, 2]).draft(3);
        assert_eq!((found.tokens, found.supported), (vec![3, 4, 8], 3));
        // A period is continued beyond the end of the text.
        assert_eq!(lookup(&[1, 2, 1, 2, 1, 2]).draft(5).tokens, [1, 2, 1, 2, 1]);
    }

    #[test]
    fn one_token_is_no_match_but_fills_a_draft() {
        let mut lookup = lookup(&[5, 6, 9, 5]);
        let found = lookup.draft(2);
        assert_eq!((found.tokens, found.supported), (vec![6, 9], 0));
        lookup.note(5, 4);
        assert_eq!(lookup.draft(2).tokens, [4, 4]);
        assert_eq!(Lookup::default().draft(2).tokens.len(), 2);
    }

    #[test]
    fn lengths_follow_the_link() {
        let country = PassCost { fixed: 1.22, per_token: 0.08 };
        assert!((2..=4).contains(&country.best_length(PRIOR_NGRAM)));
        let loopback = PassCost { fixed: 0.01, per_token: 0.03 };
        assert_eq!(loopback.best_length(PRIOR_NGRAM), 0);
        assert_eq!(PassCost::default().best_length(PRIOR_NGRAM), 0);
    }

    /// Answers with `text` until drafts are sent (or `limit` tokens passed), each draft being 1 2 3; the number of tokens.
    fn tokens_until_on(worth: &mut Worth, text: &[u32], limit: usize) -> usize {
        for (token, id) in text.iter().cycle().take(limit).enumerate() {
            if worth.is_on() {
                return token;
            }
            if worth.wants_shadow() {
                worth.shadow(vec![1, 2, 3]);
            }
            worth.chosen(*id);
            worth.decide(3, 0.08);
        }
        limit
    }

    #[test]
    fn drafts_are_sent_once_they_would_have_been_right() {
        let mut worth = Worth::default();
        assert!(!worth.is_on(), "a text begins without drafts");
        let tokens = tokens_until_on(&mut worth, &[1, 2, 3, 9], 100);
        // Whole passes are imagined, so a decision may come up to a draft later.
        assert!((FIRST_DECISION..FIRST_DECISION + 4).contains(&tokens), "{tokens}");
    }

    #[test]
    fn a_text_may_begin_with_drafts_and_loses_them_if_they_are_wrong() {
        let mut worth = Worth::beginning(true);
        for _ in 0..FIRST_DECISION {
            assert!(worth.is_on());
            worth.sent(0);
            worth.decide(3, 0.08);
        }
        assert!(!worth.is_on());
    }

    #[test]
    fn no_draft_is_sent_for_a_text_that_never_repeats() {
        assert_eq!(tokens_until_on(&mut Worth::default(), &[9], 1000), 1000);
    }

    #[test]
    fn drafts_that_do_not_pay_are_left_out_until_they_would() {
        let mut worth = Worth::default();
        tokens_until_on(&mut worth, &[1, 2, 3, 9], 100);
        for _ in 0..SECOND_DECISION {
            assert!(worth.is_on());
            worth.sent(0);
            worth.decide(3, 0.08);
        }
        assert!(!worth.is_on());
        let tokens = tokens_until_on(&mut worth, &[1, 2, 3, 9], 100);
        assert!((DECISION_EVERY..DECISION_EVERY + 4).contains(&tokens), "{tokens}");
    }

    #[test]
    fn lengths_are_read() {
        assert_eq!("steady".parse(), Ok(DraftLength::Steady));
        assert_eq!("4".parse(), Ok(DraftLength::Fixed(4)));
        for bad in ["", "-1", "17", "k"] {
            assert!(bad.parse::<DraftLength>().is_err(), "{bad:?}");
        }
    }
}
