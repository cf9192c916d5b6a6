//! Web addresses: RFC 3986 with a scheme, with `www.`, or a bare host with a path (`example.org/in/ann`).

use regex::Regex;

use super::{Candidate, Recognizer, before, built_in};
use crate::detect::Entity;

/// A scheme or `www.`, then everything up to white space, quotes, angle brackets or a backslash.
const FULL: &str = r#"(?i)\b(?:(?:https?|ftps?|sftp|ssh|git|wss?|ldaps?|smb)://|www\.)[^\s<>"'`{}|\\^\u{ab}\u{bb}\u{201c}\u{201d}\u{2018}\u{2019}]+"#;
/// A host under a common top-level domain, then a path.
const BARE: &str = r#"(?i)\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+(?:com|org|net|edu|gov|io|dev|app|me|co|uk|de|fr|es|it|nl|eu|us|ca|au|in|ch|at|be|info|biz|ai|ly|gl|tv|xyz|example)/[^\s<>"'`{}|\\^]+"#;

/// The recognizer of web addresses.
pub struct Url {
    full: Regex,
    bare: Regex,
}

impl Url {
    /// The recognizer.
    pub fn new() -> Self {
        Self { full: built_in(FULL), bare: built_in(BARE) }
    }
}

impl Default for Url {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Url {
    fn name(&self) -> &str {
        "url"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let mut push = |start: usize, address: &str, score, reason| {
            let end = start + trimmed(address).len();
            found.push(Candidate { range: start..end, label: Entity::Url.into(), score, reason });
        };
        for place in self.full.find_iter(text) {
            // Nothing behind the scheme or `www.`: not an address.
            let rest = place
                .as_str()
                .trim_start_matches(|c| c != '/' && c != '.')
                .trim_start_matches(['/', '.', ':']);
            if trimmed(rest).chars().any(char::is_alphanumeric) && !is_this_machine(rest) {
                push(place.start(), place.as_str(), 1.0, "web address with a scheme or www");
            }
        }
        for place in self.bare.find_iter(text) {
            // Part of a longer address, of an e-mail address or of a file's path.
            if !matches!(before(text, place.start()), Some('@' | '/' | '.' | '-' | ':' | '_')) {
                push(place.start(), place.as_str(), 0.9, "host name with a path");
            }
        }
    }
}

/// Whether an address behind its scheme leads nowhere but to the machine it is used on (RFC 6761, RFC 1122).
fn is_this_machine(rest: &str) -> bool {
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// An address without the punctuation of the sentence around it; brackets stay if they were opened inside.
fn trimmed(address: &str) -> &str {
    let mut address = address;
    while let Some(last) = address.chars().next_back() {
        let opened = |open: char| address.matches(open).count() >= address.matches(last).count();
        let belongs = match last {
            ')' => opened('('),
            ']' => opened('['),
            '.' | ',' | ';' | ':' | '!' | '?' | '*' | '\u{2026}' => false,
            _ => true,
        };
        if belongs {
            break;
        }
        address = &address[..address.len() - last.len_utf8()];
    }
    address
}
