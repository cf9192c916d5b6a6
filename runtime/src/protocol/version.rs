//! Version of the protocol and its negotiation.

/// The only version there is so far.
pub const PROTOCOL_VERSION: u32 = 1;

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
        assert_eq!(choose_version(&[7, 1, 0]), Some(1));
        assert_eq!(choose_version(&[2, 3]), None);
        assert_eq!(choose_version(&[]), None);
    }
}
