//! Keeping the memory of a client to itself.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Leaves no core dump, and lets no other process of this user read the memory or attach: it holds prompts, answers and
/// keys. Swap is the system's: where it is not encrypted, it can hold what was in memory.
///
/// `SOTTO_DUMPABLE=1` leaves it out, for debugging.
pub(crate) fn seal_memory() {
    if std::env::var_os("SOTTO_DUMPABLE").is_some_and(|value| value == "1") {
        return;
    }
    // A system that refuses is one without these protections; there is nothing better to do than to go on.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
