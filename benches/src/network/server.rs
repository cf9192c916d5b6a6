//! Programs in a namespace.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use sotto_protocol::connect_string::ConnectString;

use super::Namespace;

/// Longest wait for a connect string.
const START: Duration = Duration::from_secs(60);

/// This program, whose `serve` and `api` subcommands are those of `sotto`.
///
/// # Errors
/// If its path is unknown.
pub fn self_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("finding the running program")
}

/// `program` in `namespace`.
pub fn command_in(namespace: &Namespace, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args([
        OsStr::new("netns"),
        OsStr::new("exec"),
        OsStr::new(namespace.name()),
        program.as_os_str(),
    ]);
    command
}

/// A server in a namespace; ends when dropped.
pub struct NetworkServer {
    child: Child,
    /// Where it is and how to recognize it.
    pub connect: ConnectString,
    /// The same as text, with its credential.
    pub connect_text: String,
}

impl NetworkServer {
    /// Serves the splits in `directories`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(namespace: &Namespace, listen: &str, directories: &[PathBuf]) -> anyhow::Result<Self> {
        let mut command = command_in(namespace, &self_program()?);
        command.arg("serve");
        for directory in directories {
            command.arg("--split").arg(directory);
        }
        command.args([
            "--listen",
            listen,
            "--ephemeral-credential",
            "--print-credential",
            "--exit-with-parent",
        ]);
        // Its standard error is this program's: what a server says belongs to the measurement.
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("ip netns exec")?;
        let (send, receive) = mpsc::channel();
        let stdout = child.stdout.take().context("the server's output")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(start) = line.find("sotto://") {
                    let end = line[start..].find(char::is_whitespace).map_or(line.len(), |end| start + end);
                    // Nobody waits any more once it was received.
                    let _ = send.send(line[start..end].to_owned());
                }
            }
        });
        let text = receive.recv_timeout(START).context("the server printed no connect string")?;
        Ok(Self { child, connect: text.parse()?, connect_text: text })
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for NetworkServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
