//! Addresses of crypto wallets: base58 with its checksum, bech32 (BIP 173, BIP 350), and Ethereum's with the checksum of
//! EIP-55.

use regex::Regex;
use sha2::Sha256;
use sha3::{Digest, Keccak256};

use super::{Candidate, Recognizer, built_in, context, stands_alone};
use crate::detect::Entity;

const BASE58: &str = r"[1-9A-HJ-NP-Za-km-z]{26,44}";
const BECH32: &str = r"(?i)\b(?:bc|tb|ltc|tltc|addr|stake|cosmos|osmo|bnb|terra|juno|kava|inj|celestia|sei|bitcoincash:q|lnbc[0-9a-z]{0,12})1?[02-9ac-hj-np-z]{20,120}";
const ETHEREUM: &str = r"0x[0-9a-fA-F]{40}";
const MONERO: &str = r"[48][1-9A-HJ-NP-Za-km-z]{94}";

const CONTEXT: &[&str] = &[
    "wallet",
    "address",
    "btc",
    "bitcoin",
    "eth",
    "ethereum",
    "usdt",
    "usdc",
    "crypto",
    "sol",
    "solana",
    "send",
    "donate",
    "donation",
    "donations",
    "tip",
    "deposit",
    "withdraw",
    "payout",
    "trx",
    "tron",
    "xrp",
    "ripple",
    "phantom",
    "metamask",
    "ledger",
    "billetera",
    "portefeuille",
    "кошелёк",
    "кошелек",
    "钱包",
    "錢包",
    "ウォレット",
    "지갑",
];
/// Code words for accounts of programs on a chain, whose addresses are no person's.
const CONTRACTS: &[&str] = &["contract", "contracts", "token", "router", "factory", "proxy", "deployed"];

/// The recognizer of wallets.
pub struct Wallet {
    base58: Regex,
    bech32: Regex,
    ethereum: Regex,
    monero: Regex,
}

impl Wallet {
    /// The recognizer.
    pub fn new() -> Self {
        Self {
            base58: built_in(BASE58),
            bech32: built_in(BECH32),
            ethereum: built_in(ETHEREUM),
            monero: built_in(MONERO),
        }
    }
}

impl Default for Wallet {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Wallet {
    fn name(&self) -> &str {
        "wallet"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let mut push = |range: std::ops::Range<usize>, score, reason| {
            if stands_alone(text, &range) {
                found.push(Candidate { range, label: Entity::CryptoWallet.into(), score, reason });
            }
        };
        for place in self.base58.find_iter(text) {
            let spoken_of = || context::near(text, &place.range(), CONTEXT);
            if is_base58_checked(place.as_str()) {
                push(place.range(), 1.0, "wallet address: base58 with its checksum");
            } else if is_key_of_32_bytes(place.as_str()) && spoken_of() {
                push(place.range(), 0.8, "form of a wallet address and words around it");
            }
        }
        for place in self.bech32.find_iter(text) {
            if bech32::decode(place.as_str()).is_ok() || is_cash_address(place.as_str()) {
                push(place.range(), 1.0, "wallet address: bech32 with its checksum");
            } else if context::near(text, &place.range(), CONTEXT) {
                push(place.range(), 0.8, "form of a wallet address and words around it");
            }
        }
        for place in self.ethereum.find_iter(text) {
            let value = &place.as_str()[2..];
            let mixed = value.bytes().any(|byte| byte.is_ascii_uppercase());
            let of_program = context::near(text, &place.range(), CONTRACTS);
            if mixed && is_ethereum_checked(value) && !of_program {
                push(place.range(), 1.0, "wallet address: Ethereum with its checksum");
            } else if !is_round(value) && !of_program && context::near(text, &place.range(), CONTEXT) {
                push(place.range(), 0.8, "form of a wallet address and words around it");
            }
        }
        for place in self.monero.find_iter(text) {
            push(place.range(), 0.9, "form of a Monero address");
        }
    }
}

/// Version bytes of Bitcoin, Litecoin, Dogecoin, Dash, Zcash and Tron; Ripple has its own alphabet.
fn is_base58_checked(value: &str) -> bool {
    let version = |bytes: Vec<u8>| match bytes.len() {
        21 => matches!(bytes[0], 0 | 5 | 48 | 50 | 30 | 22 | 76 | 16 | 65 | 111 | 196),
        22 => bytes[0] == 0x1c,
        _ => false,
    };
    let ripple = || {
        let decoded = bs58::decode(value).with_alphabet(bs58::Alphabet::RIPPLE).into_vec().ok();
        value.starts_with('r')
            && decoded.and_then(unchecked).is_some_and(|bytes| bytes.len() == 21 && bytes[0] == 0)
    };
    bs58::decode(value).into_vec().ok().and_then(unchecked).is_some_and(version) || ripple()
}

/// What precedes a checksum that fits: the first four bytes of the double hash.
fn unchecked(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let check = bytes.split_off(bytes.len().checked_sub(4)?);
    (Sha256::digest(Sha256::digest(&bytes))[..4] == check).then_some(bytes)
}

fn is_key_of_32_bytes(value: &str) -> bool {
    matches!(value.len(), 43 | 44)
        && value.bytes().any(|byte| byte.is_ascii_digit())
        && bs58::decode(value).into_vec().is_ok_and(|bytes| bytes.len() == 32)
}

fn is_cash_address(value: &str) -> bool {
    value.to_ascii_lowercase().starts_with("bitcoincash:") && value.len() == 54
}

/// EIP-55: the case of a letter is a bit of the hash of the address in lower case.
fn is_ethereum_checked(value: &str) -> bool {
    let hash = Keccak256::digest(value.to_ascii_lowercase());
    value.bytes().enumerate().all(|(index, byte)| {
        let nibble = hash[index / 2] >> (4 * (1 - index % 2)) & 0xf;
        !byte.is_ascii_alphabetic() || byte.is_ascii_uppercase() == (nibble >= 8)
    })
}

/// The zero address and the like.
fn is_round(value: &str) -> bool {
    let mut digits: Vec<u8> = value.bytes().collect();
    digits.sort_unstable();
    digits.dedup();
    digits.len() <= 3
}
