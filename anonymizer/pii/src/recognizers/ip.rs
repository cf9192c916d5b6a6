//! IP addresses, versions 4 and 6: RFC 4291 section 2.2 and RFC 5952; parsed by the standard library.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use super::{Candidate, Recognizer, after, before, built_in, context};
use crate::detect::Entity;

const V4: &str = r"\d{1,3}(?:\.\d{1,3}){3}";
/// A run of groups and colons, with at least two colons; possibly a version 4 address at its end.
const V6: &str = r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*";

/// What is said of version numbers of four parts.
const VERSIONS: &[&str] = &[
    "version",
    "versions",
    "release",
    "build",
    "firmware",
    "update",
    "upgrade",
    "bootloader",
    "bios",
    "driver",
    "kernel",
    "plugin",
    "sdk",
];
/// How far before an address they are looked for, in bytes.
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
            let is_host = |address: Ipv4Addr| is_host(address, &text[range.end..]);
            if !joined
                && place.as_str().parse().is_ok_and(is_host)
                && !is_version()
                && !is_listed_version(text, &range)
            {
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

/// Whether an address can be a machine's: not "this network" (RFC 1122), loopback or a mask, and no block (`10.0.0.0/8`).
fn is_host(address: Ipv4Addr, behind: &str) -> bool {
    let [first, .., last] = address.octets();
    let block = last == 0 && behind.starts_with('/');
    !matches!(first, 0 | 127 | 255) && !block
}

/// Whether an address with small parts begins a line below a heading that announces versions.
fn is_listed_version(text: &str, range: &std::ops::Range<usize>) -> bool {
    let small = text[range.clone()].split('.').all(|part| part.len() <= 2);
    let begins = text[..range.start].trim_end_matches([' ', '-', '*', '#', '[', 'v']).ends_with('\n');
    let heading = text[..range.start].to_lowercase();
    small
        && begins
        && ["changelog", "change log", "release notes", "versions"].iter().any(|word| heading.contains(word))
}

/// Whether a fifth part follows: then it is no address.
fn continues(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next() == Some('.') && chars.next().is_some_and(|c| c.is_ascii_digit())
}
