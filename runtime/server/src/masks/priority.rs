//! Who has precedence: work that somebody waits for, over work that can be done later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Work that somebody waits for counts as going on for this long: the client's share of a round trip lies in between.
const GOES_ON: Duration = Duration::from_millis(20);

/// Longest wait at a time: under constant load, what can be done later takes its turn all the same.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// How often the one that gives way looks again.
const POLL: Duration = Duration::from_millis(2);

/// When work was last done that somebody waits for: a prompt's bodies, or masks without which a pass cannot begin.
///
/// The lowest priority alone does not keep a thread out of the way. It shares caches and the memory's bandwidth with
/// the others, and where there are fewer cores than threads its turn comes in the middle of a round trip.
pub(crate) struct PriorityGate {
    start: Instant,
    /// Microseconds since `start`, plus 1; 0 for never.
    last: AtomicU64,
}

impl PriorityGate {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Such work begins or ends now.
    pub(crate) fn note_foreground(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last.store(now + 1, Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last > 0 && self.start.elapsed() < Duration::from_micros(last - 1) + GOES_ON
    }

    /// Waits until none goes on, [`LONGEST_WAIT`] at most.
    pub(crate) fn yield_to_foreground(&self) {
        let begin = Instant::now();
        while self.is_busy() && begin.elapsed() < LONGEST_WAIT {
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_others_but_not_for_ever() {
        let priority = PriorityGate::new();
        assert!(!priority.is_busy(), "nothing was ever done");
        priority.note_foreground();
        priority.yield_to_foreground();
        assert!(!priority.is_busy());
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    priority.note_foreground();
                    std::thread::yield_now();
                }
            });
            priority.yield_to_foreground();
            ended.store(true, Ordering::Relaxed);
        });
    }
}
