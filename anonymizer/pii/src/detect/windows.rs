//! Which tokens are classified together: long texts in overlapping windows, several windows per pass.

use std::ops::Range;

/// A window of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Index of the text.
    pub(super) text: usize,
    /// Its tokens, special tokens not counted.
    pub(super) tokens: Range<usize>,
}

/// Cuts texts of `lengths` tokens into windows of at most `size`, neighbours sharing `overlap` (less than `size`).
/// Every token is in a window; empty texts have none.
pub(super) fn plan(lengths: &[usize], size: usize, overlap: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    for (text, &length) in lengths.iter().enumerate() {
        let mut start = 0;
        while start < length {
            let end = (start + size).min(length);
            windows.push(Window { text, tokens: start..end });
            if end == length {
                break;
            }
            start = end - overlap;
        }
    }
    windows
}

/// Packs items of these sizes into passes of at most `room`, each item in one pass: largest first, into the first pass
/// with room left. Returns the items' indices per pass.
///
/// # Panics
/// If an item is larger than `room`.
pub(super) fn pack(sizes: &[usize], room: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(sizes[item]));
    let mut passes: Vec<(usize, Vec<usize>)> = Vec::new();
    // All passes before this one are full enough that no item fits any more.
    let mut first_open = 0;
    let smallest = sizes.iter().copied().min().unwrap_or(0);
    for item in order {
        let size = sizes[item];
        assert!(size <= room, "an item of {size} tokens in passes of {room}");
        while first_open < passes.len() && passes[first_open].0 + smallest > room {
            first_open += 1;
        }
        match passes[first_open..].iter_mut().find(|(used, _)| used + size <= room) {
            Some((used, items)) => {
                *used += size;
                items.push(item);
            }
            None => passes.push((size, vec![item])),
        }
    }
    passes.into_iter().map(|(_, items)| items).collect()
}

/// How far a token is from the nearest end of its window that is not also an end of its text.
pub(super) fn centrality(window: &Range<usize>, length: usize, token: usize) -> usize {
    let left = if window.start == 0 { usize::MAX } else { token - window.start };
    let right = if window.end == length { usize::MAX } else { window.end - 1 - token };
    left.min(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_text_is_one_window() {
        assert_eq!(plan(&[5, 0, 8], 8, 2).len(), 2);
        assert_eq!(centrality(&(0..5), 5, 4), usize::MAX);
        assert_eq!(centrality(&(6..14), 20, 12), 1);
    }

    proptest! {
        #[test]
        fn windows_cover_every_token_and_fit(length in 0usize..2000, size in 8usize..256, overlap in 0usize..8) {
            let windows = plan(&[length], size, overlap);
            let mut covered = 0;
            for window in &windows {
                prop_assert!(window.tokens.len() <= size);
                prop_assert!(window.tokens.start <= covered);
                prop_assert!(window.tokens.end > covered);
                covered = window.tokens.end;
            }
            prop_assert_eq!(covered, length);
        }

        #[test]
        fn passes_hold_every_item_once(sizes in proptest::collection::vec(1usize..=100, 0..60)) {
            let passes = pack(&sizes, 100);
            let mut seen: Vec<usize> = passes.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
            for pass in passes {
                prop_assert!(pass.iter().map(|&item| sizes[item]).sum::<usize>() <= 100);
            }
        }
    }
}
