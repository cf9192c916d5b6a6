//! Starting programs under test without the variables of the developer's environment.

use std::process::{Command, Stdio};

/// Variables that are passed on: where models are kept, and which kernels to use.
const KEPT_VARIABLES: [&str; 2] = ["SOTTO_CACHE", "SOTTO_ISA"];

/// `command` without the other `SOTTO_*` variables of this process, and with an empty standard input.
pub fn isolated(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SOTTO_") && !KEPT_VARIABLES.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}
