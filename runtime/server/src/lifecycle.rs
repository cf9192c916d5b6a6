//! Whether the server runs, drains or failed, and the threads that a stopping server waits for.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

use sotto_protocol::error::{Error, Result};

/// The state of the whole process: owned here, followed by every service.
pub(crate) struct Lifecycle {
    draining: watch::Sender<bool>,
    /// Threads that save and expand tables.
    background: Mutex<Vec<JoinHandle<()>>>,
    failure: Mutex<Option<Error>>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self { draining: watch::Sender::new(false), background: Mutex::default(), failure: Mutex::default() }
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Follows whether the server drains.
    pub(crate) fn drain_signal(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Refuses new work from now on.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Stops the server because of `error`; the first error is kept.
    pub(crate) fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.drain();
    }

    /// Adds a thread that [`Lifecycle::join`] waits for.
    pub(crate) fn keep(&self, thread: JoinHandle<()>) {
        self.background.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// Waits for the kept threads.
    ///
    /// # Errors
    /// The error that stopped the server, if one did.
    pub(crate) fn join(&self) -> Result<()> {
        let background = std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in background {
            if thread.join().is_err() {
                tracing::error!("saving or expanding tables panicked");
            }
        }
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_drains_and_is_reported() {
        let life = Lifecycle::new();
        let drain = life.drain_signal();
        assert!(!life.is_draining());
        life.fail(Error::Cancelled);
        life.fail(Error::NotReady);
        assert!(life.is_draining() && *drain.borrow());
        assert!(matches!(life.join(), Err(Error::Cancelled)));
        assert!(life.join().is_ok());
    }
}
