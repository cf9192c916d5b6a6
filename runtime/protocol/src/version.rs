//! Version of the protocol and its negotiation.

/// Version 2: wire forms and sessions, and another scale of the hint. Version 1 is no longer spoken.
pub const PROTOCOL_VERSION: u32 = 2;

/// Versions this build speaks, ascending.
const SUPPORTED: &[u32] = &[PROTOCOL_VERSION];

/// The largest version of `offered` that this build speaks too.
pub fn choose_version(offered: &[u32]) -> Option<u32> {
    offered.iter().copied().filter(|version| SUPPORTED.contains(version)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_common_version_wins() {
        assert_eq!(choose_version(&[7, 2, 1]), Some(2));
        assert_eq!(choose_version(&[1, 3]), None);
        assert_eq!(choose_version(&[]), None);
    }
}
