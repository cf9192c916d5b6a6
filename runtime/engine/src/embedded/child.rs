//! The child process that serves.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::LocalModel;
use sotto_client::{Connected, RemoteOptions, RoundsPreference, WirePreference, connect_alive};
use sotto_models::split::LinearPart;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, FetchProgress, NoProgress};

/// Longest wait for the child's connect string; it comes before tables are prepared.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time the child gets to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// A child that saves its tables has as long as it takes, unless nothing more is written for this long.
const SAVE_STALL: Duration = Duration::from_secs(60);

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
    /// Wire form.
    pub wire: WirePreference,
    /// Replies will be checked.
    pub check_weights: bool,
    /// Further arguments of `serve`.
    pub serve_arguments: Vec<OsString>,
    /// Hears how far the server is with saving its tables, when this program ends before that.
    pub saving: Arc<dyn FetchProgress>,
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
            wire: WirePreference::Auto,
            check_weights: false,
            serve_arguments: Vec::new(),
            saving: Arc::new(NoProgress),
        }
    }
}

/// A server that runs as a child of this process.
pub struct Embedded {
    local: LocalModel,
    options: EmbeddedOptions,
    process: Arc<Mutex<Process>>,
    pulse: Pulse,
}

/// Tells whether an embedded server answers, also after it was started again. It may be asked from any thread.
#[derive(Clone)]
pub struct Pulse(Arc<Mutex<(Weak<Mutex<Process>>, String)>>);

impl Pulse {
    fn new(process: &Arc<Mutex<Process>>, connect: String) -> Self {
        Self(Arc::new(Mutex::new((Arc::downgrade(process), connect))))
    }

    fn set(&self, process: &Arc<Mutex<Process>>, connect: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::downgrade(process), connect);
    }

    /// Whether the server answers. One that has ended counts as if it did: it will be started again. Waits as long as
    /// a connection does: a process that is stopped accepts connections and says nothing.
    pub fn answers(&self) -> bool {
        let (process, connect) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let runs = process.upgrade().is_some_and(|process| lock(&process).ended().is_none());
        !runs || sotto_client::probe(&connect).is_ok()
    }
}

impl Embedded {
    /// Starts a server for `local` and connects to it. Call this from a thread that lives as long as
    /// the server is to run: the kernel ends the child when that thread does.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] with the end of the child's error output when it does not come up.
    pub fn start<P: LinearPart>(
        local: &LocalModel,
        options: EmbeddedOptions,
        progress: &dyn FetchProgress,
    ) -> Result<(Self, Connected<P>)> {
        let (process, connected, connect) = launch(local, &options, progress)?;
        let pulse = Pulse::new(&process, connect);
        Ok((Self { local: local.clone(), options, process, pulse }, connected))
    }

    /// Starts the server again if it has ended; connects to the new one.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn restart<P: LinearPart>(&mut self) -> Result<Option<Connected<P>>> {
        if lock(&self.process).ended().is_none() {
            return Ok(None);
        }
        let (process, connected, connect) = launch(&self.local, &self.options, &NoProgress)?;
        self.pulse.set(&process, connect);
        self.process = process;
        Ok(Some(connected))
    }

    /// Tells whether the server answers.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Process id of the server.
    pub fn process_id(&self) -> u32 {
        lock(&self.process).child.id()
    }
}

fn lock(process: &Mutex<Process>) -> std::sync::MutexGuard<'_, Process> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

fn launch<P: LinearPart>(
    local: &LocalModel,
    options: &EmbeddedOptions,
    progress: &dyn FetchProgress,
) -> Result<(Arc<Mutex<Process>>, Connected<P>, String)> {
    let (process, mut connect) = Process::spawn(local, options)?;
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
        wire: options.wire,
        check_weights: options.check_weights,
        ..RemoteOptions::new(options.cache.clone())
    };
    let connected = connect_alive(&connect, client_options, Some(liveness), progress)?;
    Ok((process, connected, connect.to_string()))
}

/// Command line of the child.
fn arguments(local: &LocalModel, further: &[OsString]) -> Vec<OsString> {
    let mut arguments = vec![
        "serve".into(),
        "--split".into(),
        local.directory.clone().into(),
        "--listen".into(),
        "127.0.0.1:0".into(),
        "--ephemeral-credential".into(),
        // Into a pipe that this process holds.
        "--print-credential".into(),
        "--exit-with-parent".into(),
    ];
    arguments.extend_from_slice(further);
    arguments
}

/// Variables that the child may see; all other `SOTTO_*` are meant for this process.
const KEPT_VARIABLES: &[&str] =
    &["SOTTO_CACHE", "SOTTO_ISA", "SOTTO_THREADS", "SOTTO_FORM", "SOTTO_BATCH_MEMORY"];

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
    /// Bytes of all of them.
    table_bytes: Option<u64>,
    saving: Arc<dyn FetchProgress>,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    fn spawn(local: &LocalModel, options: &EmbeddedOptions) -> Result<(Self, ConnectString)> {
        let exe = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|source| Error::Io { context: "finding the running program".to_owned(), source })?,
        };
        let mut command = Command::new(&exe);
        command.args(arguments(local, &options.serve_arguments));
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
        let table_bytes = local.saved_bytes().ok();
        let saving = Arc::clone(&options.saving);
        let mut process = Self { child, stdin, unfinished_tables, table_bytes, saving, said };
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
            Ok(Some(status)) => Some(self.exit_report(status)),
            Err(error) => Some(format!("its state is unknown: {error}")),
        }
    }

    fn exit_report(&self, status: ExitStatus) -> String {
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
        drop(self.stdin.take());
        let child = &mut self.child;
        let mut ended = || !matches!(child.try_wait(), Ok(None));
        let written = || std::fs::metadata(&self.unfinished_tables).ok().map(|meta| meta.len());
        if written().is_some() {
            self.saving.begin("saving the tables for the next start", self.table_bytes, true);
            wait_while_it_grows(&mut ended, &written, &*self.saving, SAVE_STALL);
            self.saving.end();
        }
        let start = Instant::now();
        while start.elapsed() < STOP_TIMEOUT && !ended() {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often a child that is to end is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Returns when the child has `ended`, when nothing is being `written` any more, or when what is written has not grown for
/// `stall`.
fn wait_while_it_grows(
    ended: &mut dyn FnMut() -> bool,
    written: &dyn Fn() -> Option<u64>,
    progress: &dyn FetchProgress,
    stall: Duration,
) {
    let (mut last, mut grown) = (0, Instant::now());
    while !ended() && grown.elapsed() < stall {
        let Some(bytes) = written() else { return };
        if bytes != last {
            (last, grown) = (bytes, Instant::now());
            progress.position(bytes);
        }
        std::thread::sleep(POLL);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_slow_disk_has_all_the_time_it_takes_and_a_dead_one_does_not() {
        let stall = Duration::from_millis(200);
        let (start, ended) = (Instant::now(), Cell::new(false));
        // Grows every 50 ms for a second, five times the longest pause, and is then complete.
        let written = || {
            let steps = start.elapsed().as_millis() / 50;
            ended.set(steps >= 20);
            (steps < 20).then_some(steps as u64 + 1)
        };
        wait_while_it_grows(&mut || ended.get(), &written, &NoProgress, stall);
        assert!(ended.get(), "given up while it was written");
        let start = Instant::now();
        wait_while_it_grows(&mut || false, &|| Some(7), &NoProgress, stall);
        assert!(start.elapsed() >= stall, "given up before the pause was long enough");
    }
}
