//! IP addresses, versions 4 and 6: RFC 4291 section 2.2 and RFC 5952; parsed by the standard library.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context};
use crate::detect::Entity;

const V4: &str = r"\d{1,3}(?:\.\d{1,3}){3}";
/// A run of groups and colons, with at least two colons; possibly a version 4 address at its end.
const V6: &str = r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*";

/// What is said of version numbers of four parts.
const VERSIONS: &[&str] = &["version", "versions", "release", "build", "firmware", "update", "upgrade"];
/// How far in front of an address they are looked for, in bytes.
const VERSION_REACH: usize = 32;

/// The recognizer of IP addresses.
pub struct IpAddress {
    v4: Regex,
    v6: Regex,
}

impl IpAddress {
    /// The recognizer.
    pub fn new() -> Self {
        Self { v4: built_in(V4), v6: built_in(V6) }
    }
}

impl Default for IpAddress {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for IpAddress {
    fn name(&self) -> &str {
        "ip"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for place in self.v4.find_iter(text) {
            let range = place.range();
            let joined = before(text, range.start)
                .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_'))
                || after(text, range.end).is_some_and(|c| c.is_alphanumeric() || c == '_')
                || continues(&text[range.end..]);
            // Versions have small parts.
            let is_version = || {
                range.len() <= 9
                    && place.as_str().split('.').all(|part| part.len() <= 2)
                    && context::in_front(text, &range, VERSIONS, VERSION_REACH)
            };
            if !joined && place.as_str().parse::<Ipv4Addr>().is_ok() && !is_version() {
                found.push(Candidate {
                    range,
                    label: Entity::IpAddress.into(),
                    score: 1.0,
                    reason: "IPv4 address",
                });
            }
        }
        for place in self.v6.find_iter(text) {
            let address = place.as_str().trim_end_matches('.');
            let trimmed = match address.strip_suffix(':') {
                Some(shorter) if !shorter.ends_with(':') => shorter,
                _ => address,
            };
            let range = place.start()..place.start() + trimmed.len();
            let joined = before(text, range.start)
                .is_some_and(|c| c.is_alphanumeric() || matches!(c, ':' | '.' | '_'))
                || after(text, place.end()).is_some_and(|c| c.is_alphanumeric() || c == '_');
            let holds = trimmed.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_unspecified());
            // "a::b" is a path in a program.
            let telling = trimmed.bytes().any(|byte| byte.is_ascii_digit());
            if !joined && holds && telling {
                found.push(Candidate {
                    range,
                    label: Entity::IpAddress.into(),
                    score: 1.0,
                    reason: "IPv6 address",
                });
            }
        }
    }
}

/// Whether a fifth part follows: then it is no address.
fn continues(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('.') && chars.next().is_some_and(|c| c.is_ascii_digit())
}
