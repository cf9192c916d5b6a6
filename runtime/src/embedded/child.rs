//! The child process that serves.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::LocalModel;
use crate::client::{Connected, RemoteOptions, RoundsPreference, connect_alive};
use crate::connect_string::ConnectString;
use crate::error::{Error, Result};
use crate::fetch::{Cache, FetchProgress, NoProgress};

/// Longest wait for the child's connect string; it comes before tables are prepared.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time the child gets to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Time the child gets to finish saving its tables.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Lines of the child's error output that are kept for messages.
const KEPT_LINES: usize = 20;

/// Finds another way to an address, for instance through a proxy that emulates a slow link.
pub type Route = Arc<dyn Fn(&str) -> Result<String> + Send + Sync>;

/// How to run an embedded server and connect to it.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Program whose `serve` subcommand runs the server; the running one when absent.
    pub program: Option<PathBuf>,
    /// Another way to the server's address, if not the direct one.
    pub route: Option<Route>,
    /// The cache.
    pub cache: Cache,
    /// Ends a pass when raised.
    pub cancelled: Arc<AtomicBool>,
    /// Longest wait for slots without a sign of progress.
    pub mask_timeout: Duration,
}

impl EmbeddedOptions {
    /// The running program, directly reached, slots waited for up to two minutes without a sign of progress.
    pub fn new(cache: Cache) -> Self {
        Self {
            program: None,
            route: None,
            cache,
            cancelled: Arc::default(),
            mask_timeout: Duration::from_secs(120),
        }
    }
}

/// A server that runs as a child of this process.
pub struct Embedded {
    local: LocalModel,
    options: EmbeddedOptions,
    process: Arc<Mutex<Process>>,
}

impl Embedded {
    /// Starts a server for `local` and connects to it. Call this from a thread that lives as long as
    /// the server is to run: the kernel ends the child when that thread does.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] with the end of the child's error output when it does not come up.
    pub fn start(
        local: &LocalModel,
        options: EmbeddedOptions,
        progress: &dyn FetchProgress,
    ) -> Result<(Self, Connected)> {
        let (process, connected) = launch(local, &options, progress)?;
        Ok((Self { local: local.clone(), options, process }, connected))
    }

    /// Starts the server again if it has ended; connects to the new one.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn revive(&mut self) -> Result<Option<Connected>> {
        if lock(&self.process).ended().is_none() {
            return Ok(None);
        }
        let (process, connected) = launch(&self.local, &self.options, &NoProgress)?;
        self.process = process;
        Ok(Some(connected))
    }

    /// Process id of the server.
    pub fn process_id(&self) -> u32 {
        lock(&self.process).child.id()
    }
}

fn lock(process: &Mutex<Process>) -> std::sync::MutexGuard<'_, Process> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

fn launch(
    local: &LocalModel,
    options: &EmbeddedOptions,
    progress: &dyn FetchProgress,
) -> Result<(Arc<Mutex<Process>>, Connected)> {
    let (process, mut connect) = Process::spawn(local, options.program.as_deref())?;
    if let Some(route) = &options.route {
        connect.address = route(&connect.address)?;
    }
    let process = Arc::new(Mutex::new(process));
    let watched = Arc::downgrade(&process);
    let liveness = Arc::new(move || watched.upgrade().and_then(|process| lock(&process).ended()));
    let client_options = RemoteOptions {
        rounds: RoundsPreference::Only(local.plan),
        client_directory: Some(local.client_directory()),
        cancelled: Arc::clone(&options.cancelled),
        mask_timeout: options.mask_timeout,
        ..RemoteOptions::new(options.cache.clone())
    };
    let connected = connect_alive(&connect, client_options, Some(liveness), progress)?;
    Ok((process, connected))
}

/// Command line of the child.
fn arguments(local: &LocalModel) -> Vec<OsString> {
    vec![
        "serve".into(),
        "--split".into(),
        local.directory.clone().into(),
        "--listen".into(),
        "127.0.0.1:0".into(),
        "--ephemeral-credential".into(),
        "--exit-with-parent".into(),
    ]
}

/// Variables that the child may see; all other `SOTTO_*` are meant for this process.
const KEPT_VARIABLES: &[&str] = &["SOTTO_CACHE", "SOTTO_ISA", "SOTTO_THREADS", "SOTTO_FORM"];

/// Whether a variable of this process is not for the child.
fn is_private(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("SOTTO_") && !KEPT_VARIABLES.contains(&name))
}

/// The child, its pipes and what it said.
struct Process {
    child: Child,
    /// The child ends when this pipe closes, however this process ends.
    stdin: Option<ChildStdin>,
    /// Exists while the child saves the tables it prepared.
    unfinished_tables: PathBuf,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    fn spawn(local: &LocalModel, program: Option<&Path>) -> Result<(Self, ConnectString)> {
        let exe = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()
                .map_err(|source| Error::Io { context: "finding the running program".to_owned(), source })?,
        };
        let mut command = Command::new(&exe);
        command.args(arguments(local));
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_private(name)) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C belongs to the conversation, not to the server.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .spawn()
            .map_err(|source| Error::Io { context: format!("starting {}", exe.display()), source })?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            listen(stderr, move |line| keep(&said, line));
        }
        let (send, receive) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            listen(stdout, move |line| {
                if let Some(start) = line.find("sotto://") {
                    // The receiver is gone once the string was received.
                    let _ = send.send(line[start..].trim().to_owned());
                }
            });
        }
        let stdin = child.stdin.take();
        let unfinished_tables = local.unfinished_tables();
        let mut process = Self { child, stdin, unfinished_tables, said };
        let connect = process.wait_for_string(&receive)?;
        Ok((process, connect.parse()?))
    }

    fn wait_for_string(&mut self, receive: &mpsc::Receiver<String>) -> Result<String> {
        let start = Instant::now();
        loop {
            match receive.recv_timeout(Duration::from_millis(20)) {
                Ok(text) => return Ok(text),
                Err(_) => {
                    let late = start.elapsed() > START_TIMEOUT;
                    let reason = self.ended().or_else(|| {
                        late.then(|| format!("no connect string within {} s", START_TIMEOUT.as_secs()))
                    });
                    if let Some(reason) = reason {
                        return Err(Error::Connect { address: "the embedded server".to_owned(), reason });
                    }
                }
            }
        }
    }

    /// Why the child ended, or `None` while it runs.
    fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.obituary(status)),
            Err(error) => Some(format!("its state is unknown: {error}")),
        }
    }

    fn obituary(&self, status: ExitStatus) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = said.iter().rev().find(|line| !line.trim().is_empty());
        match last {
            Some(line) => format!("the embedded server ended ({status}): {line}"),
            None => format!("the embedded server ended ({status})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Closing the pipe asks the child to end; what it computes is of no use to anybody now, but the tables that it
        // is saving make the next start faster.
        let patience = if self.unfinished_tables.exists() { SAVE_TIMEOUT } else { STOP_TIMEOUT };
        drop(self.stdin.take());
        let start = Instant::now();
        while start.elapsed() < patience {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => break,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls `each` with every line of `stream` until it ends, on a thread of its own.
fn listen(stream: impl Read + Send + 'static, each: impl Fn(String) + Send + 'static) {
    let reader = BufReader::new(stream);
    let spawned = std::thread::Builder::new().name("sotto-child".to_owned()).spawn(move || {
        for line in reader.lines() {
            let Ok(line) = line else { return };
            each(line);
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "cannot follow the embedded server's output");
    }
}

fn keep(said: &Mutex<VecDeque<String>>, line: String) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() == KEPT_LINES {
        said.pop_front();
    }
    said.push_back(line);
}
