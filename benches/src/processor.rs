//! Processor time of processes, as Linux counts it.

use std::time::{Duration, Instant};

/// How often [`wait_idle`] looks.
const LOOK: Duration = Duration::from_millis(500);

/// Ticks of processor time per look (of 1/100 s) below which a process is idle.
const IDLE_TICKS: u64 = 2;

/// Waits until the process with id `process` does next to nothing, at most `patience`; whether it came to that.
#[must_use]
pub fn wait_idle(process: &str, patience: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < patience {
        let Some(before) = ticks(process) else { return false };
        std::thread::sleep(LOOK);
        if ticks(process).is_some_and(|after| after - before <= IDLE_TICKS) {
            return true;
        }
    }
    false
}

/// User and system time so far, in ticks; `None` where the system does not tell.
fn ticks(process: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, in parentheses, may hold spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn work_is_counted() {
        let before = ticks("self").unwrap();
        let mut sum = 0u64;
        while ticks("self").unwrap() == before {
            (0..1_000_000).for_each(|i| sum = std::hint::black_box(sum.wrapping_add(i)));
        }
        assert_eq!(ticks("no such process"), None);
    }
}
