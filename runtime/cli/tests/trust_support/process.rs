//! `sotto serve` and `sotto chat` as processes, and what the kernel says about them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use sotto_protocol::connect_string::ConnectString;
use sotto_server::auth::credentials::{Store, UNLIMITED};
use sotto_server::ops::state::CREDENTIALS_FILE;
use sotto_testing::environment::isolated;

/// Longest wait for something that a process should do soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, shut off from the surroundings, started by shell commands if there are any.
pub(crate) fn sotto(prefix: &str) -> Command {
    let program = env!("CARGO_BIN_EXE_sotto");
    if prefix.is_empty() {
        return isolated(Command::new(program));
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{prefix}; exec \"$0\" \"$@\""), program]);
    isolated(shell)
}

/// How to run a server.
#[derive(Clone)]
pub(crate) struct Setup {
    /// The split to serve.
    pub(crate) split: PathBuf,
    /// State directory; processes that share it make up one server.
    pub(crate) state: PathBuf,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
    /// Shell commands before the program starts, for limits.
    pub(crate) prefix: String,
    /// Environment variables.
    pub(crate) environment: Vec<(String, String)>,
}

impl Setup {
    /// All roles in one process.
    pub(crate) fn new(split: &Path, state: &Path) -> Self {
        Self {
            split: split.to_owned(),
            state: state.to_owned(),
            arguments: vec!["--form".to_owned(), "compact".to_owned()],
            prefix: String::new(),
            environment: Vec::new(),
        }
    }

    /// With further arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Adds a credential without limits to the state directory.
    pub(crate) fn credential(&self) -> String {
        std::fs::create_dir_all(&self.state).unwrap();
        let store = Store::open(&self.state.join(CREDENTIALS_FILE)).unwrap();
        store.add("trust", UNLIMITED, UNLIMITED).unwrap().1
    }
}

/// A server that did not come up.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it said.
    pub(crate) errors: String,
}

/// A running server; killed and reaped when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    /// What it printed; with the credential of [`Setup::credential`] to be filled in.
    pub(crate) connect: ConnectString,
    metrics: String,
    log: tempfile::NamedTempFile,
}

impl ServerProcess {
    /// Starts a server and waits for its connect string.
    pub(crate) fn start(setup: &Setup) -> Self {
        Self::try_start(setup).unwrap_or_else(|ended| panic!("the server ended: {ended:?}"))
    }

    /// As [`ServerProcess::start`] where it may fail.
    pub(crate) fn try_start(setup: &Setup) -> Result<Self, Ended> {
        let log = tempfile::NamedTempFile::new().unwrap();
        let metrics = free_address();
        let mut child = sotto(&setup.prefix)
            .arg("serve")
            .arg("--split")
            .arg(&setup.split)
            .arg("--state")
            .arg(&setup.state)
            // Ends with this process at the latest, even where a hook of a proxy still holds it.
            .args(["--threads", "2", "--metrics", &metrics, "--exit-with-parent"])
            .stdin(Stdio::piped())
            .args(&setup.arguments)
            .envs(setup.environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match line.trim().parse() {
            Ok(connect) => Ok(Self { child, connect, metrics, log }),
            Err(_) => {
                let status = wait(&mut child).expect("a server that prints no connect string ends");
                Err(Ended { status, errors: std::fs::read_to_string(log.path()).unwrap() })
            }
        }
    }

    /// Waits until every model is loaded.
    pub(crate) fn wait_ready(&mut self) {
        let mut ready = false;
        eventually(|| {
            ready = http_get(&self.metrics, "/readyz").is_some_and(|text| text.contains("200 OK"));
            ready || !self.runs()
        });
        assert!(ready, "not ready: {}", self.errors());
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it does so within [`PATIENCE`].
    pub(crate) fn wait(&mut self) -> Option<ExitStatus> {
        wait(&mut self.child)
    }

    /// Its log so far.
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log.path()).unwrap()).into_owned()
    }

    /// A value of its metrics.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = http_get(&self.metrics, "/metrics")?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// Nobody is connected and nothing waits: what clients held has been let go.
    pub(crate) fn is_idle(&self) -> bool {
        ["sotto_connections", "sotto_body_streams", "sotto_mask_jobs"]
            .iter()
            .all(|name| self.metric(name) == Some(0.0))
    }

    /// Waits until [`ServerProcess::is_idle`].
    pub(crate) fn wait_idle(&self) -> bool {
        eventually(|| self.is_idle())
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    /// Resident memory that is the process's own, in KiB.
    pub(crate) fn own_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    eventually(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    status
}

/// Whether `holds` comes true within [`PATIENCE`].
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback address that was free a moment ago.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn http_get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A `sotto chat` that answers one prompt with a fixed number of tokens.
pub(crate) struct Chat {
    child: Child,
}

impl Chat {
    /// Starts it.
    pub(crate) fn start(connect: &ConnectString, cache: &Path, prompt: &str, tokens: usize) -> Self {
        Self::start_with("", connect, cache, prompt, tokens)
    }

    /// Starts it from a shell that sets limits first.
    pub(crate) fn start_with(
        prefix: &str,
        connect: &ConnectString,
        cache: &Path,
        prompt: &str,
        tokens: usize,
    ) -> Self {
        Self::start_saying(prefix, connect, cache, prompt, tokens, &["--ignore-eos"])
    }

    /// Starts it with further arguments, and without those that make every answer as long as it may be.
    pub(crate) fn start_saying(
        prefix: &str,
        connect: &ConnectString,
        cache: &Path,
        prompt: &str,
        tokens: usize,
        arguments: &[&str],
    ) -> Self {
        let wire = super::wire();
        let form = if arguments.contains(&"--wire") { &[][..] } else { &["--wire", &wire] };
        let child = sotto(prefix)
            .env("SOTTO_CACHE", cache)
            .args(["chat", "--quiet", "--json", "--temperature", "0"])
            .args(arguments)
            .args(form)
            .args(["--server", &connect.to_string(), "--prompt", prompt])
            .args(["--max-tokens", &tokens.to_string(), "--mask-timeout-s", "20"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it said in the end.
    pub(crate) fn finish(self) -> Said {
        Said(self.child.wait_with_output().unwrap())
    }
}

/// Output of a [`Chat`].
pub(crate) struct Said(Output);

impl Said {
    /// Exit code.
    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// Standard error.
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// The answer's tokens; fails the test if there is no answer.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        assert!(self.0.status.success(), "{:?}: {}", self.0.status, self.errors());
        let text = String::from_utf8_lossy(&self.0.stdout);
        let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let ids = report["token_ids"].as_array().unwrap();
        ids.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    }

    /// An error with this exit code, named in words and without a panic.
    pub(crate) fn is_clear_error(&self, code: i32, words: &str) -> bool {
        let errors = self.errors();
        let clear = self.code() == Some(code) && errors.contains(words) && !errors.contains("panicked");
        if !clear {
            eprintln!("expected {code} {words:?}, got {:?}: {errors}", self.0.status);
        }
        clear
    }
}
