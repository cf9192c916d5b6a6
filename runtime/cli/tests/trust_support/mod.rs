//! What the trust suite shares: real server processes, proxies in front of them, and proofs over what passed.
//!
//! | module | what |
//! |---|---|
//! | `model` | a small model of random weights at full parameters, and which answers are right |
//! | `process` | `sotto serve` and `sotto chat` as processes; their memory, descriptors, gauges |
//! | `link` | a TCP proxy that records, cuts and stalls |
//! | `relay` | a server in front of the server, with its certificate: sees and changes messages |
//! | `pads` | finds two messages under one pad among recorded bodies |
//! | `garbage` | peers that do not play by the rules |
//! | `image` | searches the memory of a process |
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod garbage;
pub(crate) mod image;
pub(crate) mod link;
pub(crate) mod model;
pub(crate) mod pads;
pub(crate) mod process;
pub(crate) mod relay;

/// How much time the suite may take, from `SOTTO_TRUST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Length {
    /// What continuous integration affords.
    Ci,
    /// A quarter of an hour for all.
    Short,
    /// As long as it takes.
    Full,
}

/// The length asked for; short when nothing is.
pub(crate) fn length() -> Length {
    match std::env::var("SOTTO_TRUST").as_deref() {
        Ok("ci") => Length::Ci,
        Ok("full") => Length::Full,
        _ => Length::Short,
    }
}

/// The wire form that clients use, from `SOTTO_TRUST_WIRE`. When none is named it is lean, and stateless where a server's
/// roles are apart.
pub(crate) fn wire() -> String {
    std::env::var("SOTTO_TRUST_WIRE").unwrap_or_else(|_| "auto".to_owned())
}

/// Chooses by length.
pub(crate) fn by_length<T>(ci: T, short: T, full: T) -> T {
    match length() {
        Length::Ci => ci,
        Length::Short => short,
        Length::Full => full,
    }
}

/// Reports `good` of `tried` for a row of the table that `cargo xtask trust` adds up, then insists on all.
pub(crate) fn row(name: &str, good: usize, tried: usize, note: &str) {
    println!("\nTRUST {name} {good}/{tried} {note}");
    assert!(tried > 0, "{name}: nothing was tried");
    assert_eq!(good, tried, "{name}: {note}");
}
