//! Resident memory of processes, as Linux counts it.

/// Largest resident size of a process (`"self"` or an id) so far, or since [`forget_peak`]; `None` where the system
/// does not tell.
#[must_use]
pub fn peak_bytes(process: &str) -> Option<u64> {
    field(process, "VmHWM:")
}

/// Resident size of a process now.
#[must_use]
pub fn resident_bytes(process: &str) -> Option<u64> {
    field(process, "VmRSS:")
}

/// Starts the peak of a process anew from its present size. Where that is not allowed, the old peak stays.
pub fn forget_peak(process: &str) {
    if let Err(error) = std::fs::write(format!("/proc/{process}/clear_refs"), "5") {
        eprintln!("memory: the peak so far stays in the figures: {error}");
    }
}

fn field(process: &str, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
