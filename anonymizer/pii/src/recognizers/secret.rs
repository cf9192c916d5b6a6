//! Secrets: keys with the prefixes that providers publish for secret scanning, private-key blocks (RFC 7468), JSON web
//! tokens (RFC 7519), passwords in connection strings, and random values assigned to names such as `api_key`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::{Regex, RegexSet};

use super::{Candidate, Recognizer, built_in, stands_alone};
use crate::detect::Entity;

/// Prefix forms, from the providers' documentation.
const KEYS: &[&str] = &[
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
    r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"glpat-[A-Za-z0-9_.-]{20,64}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
    r"xapp-[A-Za-z0-9-]{10,250}",
    r"[rsp]k_(?:live|test)_[A-Za-z0-9]{16,250}",
    r"whsec_[A-Za-z0-9+/]{24,64}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"ya29\.[A-Za-z0-9_-]{20,250}",
    r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-|or-v1-)?[A-Za-z0-9_-]{20,250}",
    r"gsk_[A-Za-z0-9]{40,64}",
    r"hf_[A-Za-z]{34}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{50,250}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    r"(?:dop|doo|dor)_v1_[a-f0-9]{64}",
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    r"key-[a-f0-9]{32}",
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",
    r"sq0(?:atp|csp)-[A-Za-z0-9_-]{22,43}",
    r"EAACEdEose0cBA[A-Za-z0-9]+",
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    r"SK[0-9a-f]{32}",
    r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",
    r"dapi[a-f0-9]{32}(?:-[0-9])?",
    r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,64}",
    r"hv[sbr]\.[A-Za-z0-9_-]{20,250}",
    r"glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}",
    r"lin_api_[A-Za-z0-9]{32,64}",
    r"ntn_[A-Za-z0-9]{40,64}",
    r"fig[du]_[A-Za-z0-9_-]{36,64}",
    r"nvapi-[A-Za-z0-9_-]{60,80}",
    r"r8_[A-Za-z0-9]{37}",
    r"(?:pplx|xai)-[A-Za-z0-9]{40,100}",
    r"tskey-[a-z]+-[A-Za-z0-9]+-[A-Za-z0-9]{20,64}",
    r"dp\.(?:pt|st|ct|scim|audit)\.[A-Za-z0-9_.-]{40,64}",
    r"sntry[su]_[A-Za-z0-9+/=_-]{40,400}",
    r"ph[cx]_[A-Za-z0-9]{40,64}",
    r"sbp_[a-f0-9]{40}",
    r"ATATT3[A-Za-z0-9_=-]{100,250}",
    r"NRAK-[A-Z0-9]{27}",
    r"lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}",
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",
    r"CFPAT-[A-Za-z0-9_-]{43}",
    r"EAA[A-Za-z0-9]{80,250}",
];

const JWT: &str = r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*";
const PRIVATE_KEY: &str = r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s:,\\.()-]*?(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|\z)";
/// `scheme://user:password@host`; the password alone is the secret.
const CONNECTION: &str = r#"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s:/?#\[\]@"'<>]*:([^\s:/?#@"'<>]+)@"#;
/// A telling name, then a value.
const ASSIGNED: &str = r#"(?i)\b(?:[a-z0-9]{1,20}[_-]){0,4}(?:api[_-]?key|secret(?:[_-]?key)?|access[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret|private[_-]?key)["']?\s{0,2}(?::|=|:=|=>)\s{0,2}["']?([A-Za-z0-9_+/=.~!@#$%^&*-]{8,250})"#;

/// Bits per character from which an assigned value passes for random.
const RANDOM_BITS: f64 = 3.0;

/// The recognizer of secrets.
pub struct Secrets {
    any: RegexSet,
    keys: Vec<Regex>,
    jwt: Regex,
    private_key: Regex,
    connection: Regex,
    assigned: Regex,
}

impl Secrets {
    /// The recognizer.
    ///
    /// # Panics
    /// If a pattern of this file is wrong.
    #[expect(clippy::expect_used, reason = "the patterns are constants")]
    pub fn new() -> Self {
        Self {
            any: RegexSet::new(KEYS).expect("patterns of this file"),
            keys: KEYS.iter().map(|pattern| built_in(pattern)).collect(),
            jwt: built_in(JWT),
            private_key: built_in(PRIVATE_KEY),
            connection: built_in(CONNECTION),
            assigned: built_in(ASSIGNED),
        }
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Secrets {
    fn name(&self) -> &str {
        "secret"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let mut push = |range, score, reason| {
            found.push(Candidate { range, label: Entity::Secret.into(), score, reason });
        };
        for index in self.any.matches(text) {
            for place in self.keys[index].find_iter(text).filter(|place| stands_alone(text, &place.range())) {
                push(place.range(), 1.0, "key with a provider's prefix");
            }
        }
        for place in self.jwt.find_iter(text).filter(|place| is_token(place.as_str())) {
            push(place.range(), 1.0, "JSON web token with a readable header");
        }
        for place in self.private_key.find_iter(text) {
            push(place.range(), 1.0, "private-key block");
        }
        for place in self.connection.captures_iter(text).filter_map(|groups| groups.get(1)) {
            push(place.range(), 0.95, "password in a connection string");
        }
        for place in self.assigned.captures_iter(text).filter_map(|groups| groups.get(1)) {
            if is_random(place.as_str()) {
                push(place.range(), 0.8, "random value assigned to a telling name");
            }
        }
    }
}

/// Whether the first part is the header of a token.
fn is_token(text: &str) -> bool {
    let header = text.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    header.is_some_and(|header| {
        header.get("alg").is_some() || header.get("typ").is_some() || header.get("enc").is_some()
    })
}

/// Whether a value looks drawn at random: letters and digits, and spread characters.
fn is_random(value: &str) -> bool {
    let letters = value.bytes().filter(u8::is_ascii_alphabetic).count();
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    letters >= 2
        && digits >= 2
        && bits_per_character(value) >= RANDOM_BITS.min((value.len() as f64).log2() - 0.5)
}

/// Shannon entropy of the characters.
fn bits_per_character(value: &str) -> f64 {
    let mut counts = [0u32; 256];
    value.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let length = value.len() as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / length;
            -share * share.log2()
        })
        .sum()
}
