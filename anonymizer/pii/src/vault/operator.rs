//! What stands for values of a type, where it is no placeholder.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::detect::{Entity, Label};

/// Bytes of a hash that are shown, in hexadecimal digits.
const HASH_DIGITS: usize = 16;

/// What becomes of the values of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    /// A placeholder stands for it, and it can be restored.
    #[default]
    Placeholder,
    /// Its letters and digits become asterisks.
    Mask,
    /// A keyed hash stands for it: equal values stay equal, and nobody without the key can find them by trying.
    Hash,
    /// It is taken out.
    Drop,
    /// A text that holds one is refused.
    Block,
    /// It stays.
    Keep,
}

/// Operators by type.
#[derive(Default)]
pub struct Operators {
    by_label: BTreeMap<Label, Operator>,
    key: Zeroizing<Vec<u8>>,
}

impl Operators {
    /// Operators by label, and the key of hashes. Without a key, a random one holds for this run.
    pub fn new(by_label: &BTreeMap<String, Operator>, key: Option<Zeroizing<Vec<u8>>>) -> Self {
        let canonical =
            |label: &String| Entity::from_label(label).map_or_else(|| Label::new(label.clone()), Label::from);
        Self {
            by_label: by_label.iter().map(|(label, operator)| (canonical(label), *operator)).collect(),
            key: key.unwrap_or_else(|| Zeroizing::new(rand::random::<[u8; 32]>().to_vec())),
        }
    }

    /// What becomes of values of a type.
    pub fn of(&self, label: &Label) -> Operator {
        self.by_label.get(label).copied().unwrap_or_default()
    }

    pub(super) fn apply(&self, operator: Operator, label: &Label, value: &str) -> String {
        match operator {
            Operator::Drop => String::new(),
            Operator::Hash => {
                let mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
                let outer = mac.chain_update(label.as_str()).chain_update([0]).chain_update(value).finalize();
                let outer = outer.into_bytes();
                let digits: String = outer.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{}:{}", label.as_str().to_lowercase(), &digits[..HASH_DIGITS])
            }
            _ => value.chars().map(|c| if c.is_alphanumeric() { '*' } else { c }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Vault, VaultRules};
    use super::*;
    use crate::detect::{Source, Span};
    use crate::error::Error;
    use std::sync::Arc;

    fn redact(operator: Operator, key: &[u8]) -> crate::error::Result<String> {
        let by_label = [("EMAIL_ADDRESS".to_owned(), operator)].into();
        let mut vault = Vault::new();
        let operators = Operators::new(&by_label, Some(Zeroizing::new(key.to_vec())));
        vault.follow(&VaultRules { ignore_case: false, operators: Arc::new(operators) });
        let span = Span { start: 3, end: 8, label: Entity::Email.into(), score: 1.0, source: Source::Model };
        Ok(vault.redact("to \u{e9}@b.c now", &[span])?.text)
    }

    #[test]
    fn each_operator_does_what_it_says() {
        assert_eq!(redact(Operator::Placeholder, b"k").unwrap(), "to [EMAIL_1] now");
        assert_eq!(redact(Operator::Mask, b"k").unwrap(), "to *@*.* now");
        assert_eq!(redact(Operator::Drop, b"k").unwrap(), "to  now");
        assert!(matches!(redact(Operator::Block, b"k"), Err(Error::Blocked { label }) if label == "EMAIL"));
        let hashed = redact(Operator::Hash, b"k").unwrap();
        // Python: hmac.new(b"k", b"EMAIL\0" + "\u{e9}@b.c".encode(), "sha256").hexdigest()[:16]
        assert_eq!(hashed, "to email:db19f8264642bdb4 now");
        assert_eq!(redact(Operator::Hash, b"k").unwrap(), hashed);
        assert_ne!(redact(Operator::Hash, b"other").unwrap(), hashed);
    }
}
