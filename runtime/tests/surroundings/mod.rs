//! Programs under test, shut off from what is set around them.

use std::process::{Command, Stdio};

/// What they see of the surroundings all the same: where models are kept, and which kernels to use.
const KEPT_VARIABLES: [&str; 2] = ["SOTTO_CACHE", "SOTTO_ISA"];

/// `command` with no other `SOTTO_*` variable of the surroundings, and with nothing on standard input.
pub(crate) fn shut_off(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SOTTO_") && !KEPT_VARIABLES.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}
