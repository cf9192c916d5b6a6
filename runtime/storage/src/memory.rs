//! How much memory is free on this machine, and how much a process has.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// Bytes that this process may still use: the least of the system's available memory and of what its control group
/// and its own limits leave. `None` where none of them can be read.
pub fn available_bytes() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let number = |name: &str| {
        std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?.trim().parse::<u64>().ok()
    };
    let group = number("memory.max").map(|max| max.saturating_sub(number("memory.current").unwrap_or(0)));
    [system, group, limits_leave()].into_iter().flatten().min()
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident bytes now, mapped files included.
    pub resident_bytes: u64,
    /// Largest resident bytes so far.
    pub peak_bytes: u64,
    /// Resident bytes that mirror no file: what the system cannot take back.
    pub anonymous_bytes: u64,
}

impl ProcessMemory {
    /// Memory of the process `id`; `None` where it cannot be read.
    pub fn of(id: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{id}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        Some(Self {
            resident_bytes: kilobytes(status, "VmRSS:")?,
            peak_bytes: kilobytes(status, "VmHWM:")?,
            anonymous_bytes: kilobytes(status, "RssAnon:")?,
        })
    }
}

/// What the process's limits on its address space and on its data leave, if it has such limits.
fn limits_leave() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let left = |resource, name| Some(getrlimit(resource).current?.saturating_sub(kilobytes(&status, name)?));
    [left(Resource::As, "VmSize:"), left(Resource::Data, "VmData:")].into_iter().flatten().min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn mem_available(text: &str) -> Option<u64> {
    kilobytes(text, "MemAvailable:")
}

/// The value of `name` in the kernel's tables, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:   12345 kB\n"), Some(12345 * 1024));
        assert_eq!(mem_available("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn memory_of_a_process_is_read() {
        let text = "VmHWM:\t  30 kB\nVmRSS:\t  20 kB\nRssAnon:\t  5 kB\n";
        let expected =
            ProcessMemory { resident_bytes: 20 << 10, peak_bytes: 30 << 10, anonymous_bytes: 5 << 10 };
        assert_eq!(ProcessMemory::parse(text), Some(expected));
        assert!(ProcessMemory::of(std::process::id()).is_some_and(|own| own.peak_bytes >= 1 << 20));
    }
}
