//! Web addresses: RFC 3986 with a scheme, with `www.`, or a bare host with a path (`example.org/in/ann`).

use regex::Regex;

use super::{Candidate, Recognizer, before, built_in};
use crate::detect::Entity;
use crate::lexicon::lexicon;

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
            // Nothing after the scheme or `www.`: not an address.
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

/// What an address says of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It names an account, leads to a profile, or has a person's data in its query.
    Person,
    /// Its host is a public one, and it says nothing of a person.
    Nothing,
    /// The host may be a person's.
    Unknown,
}

/// What an address says of a person, by its host, path and query.
pub(crate) fn told(address: &str) -> Told {
    let lower = address.to_lowercase();
    let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (account, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let host = host.split(':').next().unwrap_or_default();
    let host = host.strip_prefix("www.").unwrap_or(host);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.split('#').next().unwrap_or_default();
    let query = query.split('#').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let lists = lexicon();
    let marked = |segment: &&str| {
        let mail = segment.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
        mail || segment.len() > 2 && segment.starts_with(['@', '~']) && !segment[1..].contains('@')
    };
    let versioned =
        |segment: &str| segment.starts_with('v') && segment[1..].starts_with(|c: char| c.is_ascii_digit());
    let named = segments.windows(2).any(|pair| {
        let word = pair[1].chars().any(char::is_alphabetic) && !versioned(pair[1]) && !pair[1].contains('.');
        lists.profile_segments.contains(pair[0]) && word
    });
    let profile = lists.profile_hosts.contains(host)
        && segments.first().is_some_and(|first| !lists.public_segments.contains(first))
        && segments.len() <= 2;
    // "git@": the account of everybody.
    let account = account.is_some_and(|user| user != "git" && !user.is_empty());
    if account
        || named
        || profile
        || segments.iter().any(marked) && !is_package(host)
        || query.split(['&', ';']).any(is_personal)
    {
        return Told::Person;
    }
    let domains = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
    if std::iter::once(host).chain(domains).any(|domain| lists.public_hosts.contains(domain)) {
        return Told::Nothing;
    }
    Told::Unknown
}

/// Hosts of packages, in whose paths `@` is a scope.
fn is_package(host: &str) -> bool {
    [
        "npmjs.com",
        "unpkg.com",
        "jsdelivr.net",
        "esm.sh",
        "skypack.dev",
        "deno.land",
        "jsr.io",
        "packagist.org",
    ]
    .iter()
    .any(|known| host.ends_with(known))
}

/// Whether a parameter has a person's data: by its name, an address of mail, or a long number.
fn is_personal(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let plain = value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b' '));
    let named = lists_parameter(name) && value.len() >= 2;
    named || value.contains('@') && value.len() >= 5 || value.contains("%40") || plain && digits >= 7
}

fn lists_parameter(name: &str) -> bool {
    lexicon().personal_parameters.contains(name)
}

/// Whether an address after its scheme leads nowhere but to the machine it is used on (RFC 6761, RFC 1122).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_of_people_or_do_not() {
        for address in [
            "https://linkedin.com/in/ann-lee",
            "https://social.example/@ann?tab=posts",
            "https://example.com/u/ann_lee",
            "https://twitter.com/annlee",
            "https://shop.example/cart?email=x.y&step=2",
            "https://docs.rs/search?q=ann@example.org",
            "https://ann@git.example.net/repo",
            "https://api.example.net/call?to=4477009009",
            "https://people.example.edu/~alee/",
            "https://a.example/ann@example.org/x",
        ] {
            assert_eq!(told(address), Told::Person, "{address}");
        }
        for address in [
            "https://docs.rs/serde/latest/serde/",
            "https://github.com/rust-lang/rust/issues/1234",
            "https://img.shields.io/crates/v/serde.svg?style=flat",
            "https://www.npmjs.com/package/@types/node",
            "http://www.apache.org/licenses/LICENSE-2.0",
            "https://twitter.com/intent/tweet?text=hi",
        ] {
            assert_ne!(told(address), Told::Person, "{address}");
        }
        assert_eq!(told("https://docs.rs/serde"), Told::Nothing);
        assert_eq!(told("https://annlee.example/about"), Told::Unknown);
    }
}
