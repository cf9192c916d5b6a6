//! Detects copies of a process: forks, clones into other PID namespaces, restored snapshots.
//!
//! A pad encrypts one message. A copied process would encrypt a second one under the same pad, and the difference of the two
//! bodies would show both. [`ForkGuard`] detects copies that the kernel makes, [`Freshness`] those that a hypervisor or
//! checkpoint makes. Slots, sessions and noise generators hold them; programs may use them for secrets of their own.

use crate::error::{Error, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Where a fork finds zeros.
enum Page {
    /// A page that the kernel wipes in every child (`MADV_WIPEONFORK`, Linux 4.14).
    Wiped(&'static AtomicU64),
    /// No such page: only process ids are compared.
    Missing,
}

static PAGE: OnceLock<Page> = OnceLock::new();

/// The mark of this process: random, and zero again in a child until [`ForkGuard::new`] is called there.
fn page() -> &'static Page {
    PAGE.get_or_init(|| wiped_page().map_or(Page::Missing, Page::Wiped))
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a word of a map that is never unmapped")]
fn wiped_page() -> Option<&'static AtomicU64> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    let (len, access) = (size_of::<AtomicU64>(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new private map at an address of the kernel's choice touches no other memory.
    let address = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the advice concerns the new map only, which nothing refers to yet.
    if unsafe { madvise(address, len, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: as above; the map is given back whole.
        unsafe { munmap(address, len) }.ok();
        return None;
    }
    // SAFETY: the map is zeroed, page-aligned, at least eight bytes long, never unmapped, and accessed through this atomic
    // only. In a child the kernel maps a zeroed page at the same address.
    Some(unsafe { &*address.cast::<AtomicU64>() })
}

#[cfg(not(target_os = "linux"))]
fn wiped_page() -> Option<&'static AtomicU64> {
    None
}

/// Belongs to the process that made it.
///
/// [`ForkGuard::holds`] is false in every child process, also in one that has the same process id in another PID namespace.
#[derive(Clone, Copy)]
pub struct ForkGuard {
    mark: u64,
    process: u32,
}

impl ForkGuard {
    /// A guard of the current process.
    ///
    /// # Errors
    /// [`Error::Entropy`] when the operating system gives no randomness for the first guard of a process.
    pub fn new() -> Result<Self> {
        let process = std::process::id();
        let Page::Wiped(word) = page() else { return Ok(Self { mark: 0, process }) };
        if word.load(Ordering::Relaxed) == 0 {
            let mut mark = [0; 8];
            getrandom::fill(&mut mark).map_err(Error::Entropy)?;
            let mark = u64::from_le_bytes(mark) | 1;
            // Of several threads, the first sets the mark of all.
            word.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
        Ok(Self { mark: word.load(Ordering::Relaxed), process })
    }

    /// Whether this is the process that made the guard.
    pub fn holds(&self) -> bool {
        let unwiped = match page() {
            Page::Wiped(word) => word.load(Ordering::Relaxed) == self.mark,
            Page::Missing => true,
        };
        unwiped && self.process == std::process::id()
    }

    /// # Errors
    /// [`Error::Forked`] unless [`ForkGuard::holds`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.holds() { Ok(()) } else { Err(Error::Forked) }
    }

    /// What a copy with another mark and the same process id would hold: for tests.
    #[cfg(test)]
    pub(crate) fn of_a_copy(&self) -> Self {
        Self { mark: self.mark ^ 2, ..*self }
    }
}

/// Clocks may drift apart by this much, and by [`DRIFT_PER_MILLE`] of the time that passed: what slewing does.
const DRIFT: Duration = Duration::from_secs(2);
/// The kernel slews the wall clock by up to 0.5 ‰; twice that is allowed.
const DRIFT_PER_MILLE: u32 = 1;

/// A moment on two clocks, to detect that the machine was restored from a snapshot.
///
/// The wall clock is set to the true time after a restore, the boot clock continues where the snapshot was taken. When both
/// say that different times have passed, what was made before must not be used: another copy may have used it. A step of the
/// wall clock looks the same; that costs a batch and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    wall: SystemTime,
    boot: BootTime,
}

#[cfg(target_os = "linux")]
type BootTime = Duration;
#[cfg(not(target_os = "linux"))]
type BootTime = std::time::Instant;

/// The clock that counts suspended time, where there is one.
#[cfg(target_os = "linux")]
fn boot_time() -> BootTime {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(target_os = "linux")]
fn passed_since(boot: BootTime) -> Duration {
    boot_time().saturating_sub(boot)
}

#[cfg(not(target_os = "linux"))]
fn boot_time() -> BootTime {
    std::time::Instant::now()
}

#[cfg(not(target_os = "linux"))]
fn passed_since(boot: BootTime) -> Duration {
    boot.elapsed()
}

impl Freshness {
    /// Now.
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), boot: boot_time() }
    }

    /// Time since then on the boot clock.
    pub fn age(&self) -> Duration {
        passed_since(self.boot)
    }

    /// Whether the clocks agree on how long ago that was.
    pub fn clocks_agree(&self) -> bool {
        let (boot, now) = (passed_since(self.boot), SystemTime::now());
        agree(boot, now.duration_since(self.wall).ok())
    }

    /// Whether the clocks agree and no more than `max_age` has passed.
    pub fn holds(&self, max_age: Duration) -> bool {
        self.clocks_agree() && self.age() <= max_age
    }

    /// # Errors
    /// [`Error::Expired`] unless the clocks agree.
    pub(crate) fn check(&self) -> Result<()> {
        if self.clocks_agree() { Ok(()) } else { Err(Error::Expired) }
    }

    /// A moment whose wall clock is `wall` earlier than its boot clock says: for tests.
    #[cfg(test)]
    pub(crate) fn restored_after(&self, wall: Duration) -> Self {
        Self { wall: self.wall - wall, ..*self }
    }
}

/// Whether `wall` (`None`: the wall clock went back) is as long as `boot`, up to drift.
fn agree(boot: Duration, wall: Option<Duration>) -> bool {
    let allowed = DRIFT + boot / 1000 * DRIFT_PER_MILLE;
    match wall {
        Some(wall) => wall.abs_diff(boot) <= allowed,
        None => boot <= allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_part_are_noticed() {
        let seconds = Duration::from_secs;
        for (boot, wall, expected) in [
            (0, Some(0), true),
            (60, Some(61), true),
            (60, Some(120), false),
            (60, Some(10), false),
            (1, None, true),
            (60, None, false),
            (86_400, Some(86_480), true),
            (86_400, Some(86_500), false),
        ] {
            assert_eq!(agree(seconds(boot), wall.map(seconds)), expected, "{boot} {wall:?}");
        }
        let now = Freshness::now();
        assert!(now.holds(seconds(60)) && !now.restored_after(seconds(60)).holds(seconds(600)));
        assert!(!now.holds(Duration::ZERO) || now.age() == Duration::ZERO);
    }

    #[test]
    fn a_guard_holds_in_its_process_and_not_in_a_copy() {
        let guard = ForkGuard::new().unwrap();
        assert!(guard.holds());
        if matches!(page(), Page::Wiped(_)) {
            assert!(!guard.of_a_copy().holds());
        }
    }
}
