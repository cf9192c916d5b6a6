//! Ctrl-C and SIGTERM in the client commands.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sotto_protocol::error::{Error, Result};

/// Exit code after an interrupt.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Exit code after SIGTERM.
pub const EXIT_TERMINATED: i32 = 143;

/// What ends a program that does not end at once.
type End = Box<dyn FnOnce() + Send>;

/// Turns Ctrl-C into a cancelled turn while one runs, and into the end of the process otherwise.
///
/// A second Ctrl-C during the same turn ends the process at once; so does SIGTERM. A server
/// started by this process notices that its parent is gone and ends too.
#[derive(Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    active: AtomicBool,
    cancelled: Arc<AtomicBool>,
    presses: AtomicUsize,
    end: Mutex<Option<End>>,
}

impl Interrupt {
    /// Installs the handler; call once per process.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the thread or the handler cannot be set up.
    pub fn install() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let watcher = Arc::clone(&shared);
        let failed = |source| Error::Io { context: "installing the Ctrl-C handler".to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        // Register before returning: an early Ctrl-C must not be lost.
        let signals = runtime.block_on(async { Signals::new() }).map_err(failed)?;
        std::thread::Builder::new()
            .name("sotto-signals".to_owned())
            .spawn(move || runtime.block_on(watcher.watch(signals)))
            .map_err(failed)?;
        Ok(Self { shared })
    }

    /// Begins a turn; Ctrl-C cancels it until the guard is dropped.
    pub fn turn(&self) -> Turn {
        self.shared.cancelled.store(false, Ordering::SeqCst);
        self.shared.presses.store(0, Ordering::SeqCst);
        self.shared.active.store(true, Ordering::SeqCst);
        Turn { shared: Arc::clone(&self.shared) }
    }

    /// Calls `end` at the next signal, in place of ending the process; one after that ends it.
    pub fn on_end(&self, end: impl FnOnce() + Send + 'static) {
        *self.shared.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(end));
    }

    /// The flag that a cancelled turn raises.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.cancelled)
    }
}

/// A turn under way.
pub struct Turn {
    shared: Arc<Shared>,
}

impl Turn {
    /// Whether Ctrl-C was pressed.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::SeqCst)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.active.store(false, Ordering::SeqCst);
    }
}

struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for a signal; true for Ctrl-C.
    async fn next(&mut self) -> bool {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await.is_ok()
    }
}

impl Shared {
    async fn watch(self: Arc<Self>, mut signals: Signals) {
        loop {
            let interrupt = signals.next().await;
            let first = self.presses.fetch_add(1, Ordering::SeqCst) == 0;
            if interrupt && first && self.active.load(Ordering::SeqCst) {
                self.cancelled.store(true, Ordering::SeqCst);
                continue;
            }
            match self.end.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(end) => end(),
                None => std::process::exit(if interrupt { EXIT_INTERRUPTED } else { EXIT_TERMINATED }),
            }
        }
    }
}
