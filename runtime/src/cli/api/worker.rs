//! The thread that owns the session: one answer at a time, in the order of the requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use models::chat_template::Message;
use tokio::sync::mpsc as async_mpsc;

use crate::cli::open::Opened;
use crate::error::{Error, Result};
use crate::session::{Answer, Finish, GenerateOptions};

/// Requests that may wait; each holds its conversation in memory.
const MAX_WAITING: usize = 32;

/// What comes out of an answer under way.
pub(super) enum Event {
    /// More text.
    Text(String),
    /// The end.
    Done(Box<Answer>),
    /// The end, early.
    Failed(Error),
}

struct Job {
    number: u64,
    messages: Vec<Message>,
    options: GenerateOptions,
    events: async_mpsc::UnboundedSender<Event>,
}

/// Which request is being answered, and how to end that.
struct Current {
    /// Number of the request; `None` between two.
    number: Mutex<Option<u64>>,
    /// Ends a pass of the session's backend, whatever it waits for.
    cancelled: Arc<AtomicBool>,
}

impl Current {
    fn lock(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, number: u64) {
        let mut current = self.lock();
        self.cancelled.store(false, Ordering::SeqCst);
        *current = Some(number);
    }

    fn end(&self) {
        *self.lock() = None;
    }

    /// Cancels request `number`, if it is the one being answered.
    fn cancel(&self, number: u64) {
        let current = self.lock();
        if *current == Some(number) {
            self.cancelled.store(true, Ordering::SeqCst);
        }
    }
}

/// The events of one request. Dropping them cancels it, even while it waits for the server.
pub(super) struct Events {
    receiver: async_mpsc::UnboundedReceiver<Event>,
    number: u64,
    current: Arc<Current>,
}

impl Events {
    /// The next event; `None` behind the last.
    pub(super) async fn recv(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Before the request is looked up: one that has not begun must find its reader gone.
        self.receiver.close();
        self.current.cancel(self.number);
    }
}

/// Hands requests to the session's thread.
pub(super) struct Worker {
    jobs: mpsc::SyncSender<Job>,
    next: AtomicU64,
    current: Arc<Current>,
}

impl Worker {
    /// Starts the thread. `cancelled` is the flag that ends a pass of the session's backend.
    pub(super) fn start(opened: Opened, cancelled: Arc<AtomicBool>) -> Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel(MAX_WAITING);
        let current = Arc::new(Current { number: Mutex::default(), cancelled });
        let serving = Arc::clone(&current);
        std::thread::Builder::new()
            .name("sotto-session".to_owned())
            .spawn(move || serve(opened, &waiting, &serving))
            .map_err(|source| Error::Io { context: "starting the session thread".to_owned(), source })?;
        Ok(Self { jobs, next: AtomicU64::new(0), current })
    }

    /// Queues a request; dropping its events cancels it.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when too many wait.
    pub(super) fn submit(&self, messages: Vec<Message>, options: GenerateOptions) -> Result<Events> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = async_mpsc::unbounded_channel();
        match self.jobs.try_send(Job { number, messages, options, events }) {
            Ok(()) => Ok(Events { receiver, number, current: Arc::clone(&self.current) }),
            Err(mpsc::TrySendError::Full(_)) => {
                Err(Error::Busy { what: "the queue", retry_after: std::time::Duration::from_secs(5) })
            }
            Err(mpsc::TrySendError::Disconnected(_)) => {
                Err(Error::Internal("the session thread ended".to_owned()))
            }
        }
    }
}

fn serve(mut opened: Opened, waiting: &mpsc::Receiver<Job>, current: &Current) {
    while let Ok(job) = waiting.recv() {
        current.begin(job.number);
        let event = match answer(&mut opened, &job) {
            Ok(answer) => Event::Done(Box::new(answer)),
            Err(error) => Event::Failed(error),
        };
        current.end();
        // Whoever asked may be gone.
        let _ = job.events.send(event);
    }
}

fn answer(opened: &mut Opened, job: &Job) -> Result<Answer> {
    if job.events.is_closed() {
        return Err(Error::Cancelled);
    }
    opened.revive()?;
    let session = &mut opened.session;
    session.set_messages(job.messages.clone());
    let stop = || job.events.is_closed();
    let mut text = |piece: &str| {
        let _ = job.events.send(Event::Text(piece.to_owned()));
    };
    let answer = session.answer(&job.options, &stop, &mut text)?;
    if let Some(Err(error)) = opened.check_tally().map(|tally| tally.verdict()) {
        // For whoever runs this endpoint: what the answer's reader does next, the server may see.
        eprintln!("warning: {error}");
    }
    if answer.finish == Finish::Cancelled { Err(Error::Cancelled) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_leaves_cancels_its_own_request_only() {
        let current = Arc::new(Current { number: Mutex::default(), cancelled: Arc::default() });
        let events = |number| {
            let (sender, receiver) = async_mpsc::unbounded_channel();
            (sender, Events { receiver, number, current: Arc::clone(&current) })
        };
        let cancelled = || current.cancelled.load(Ordering::SeqCst);
        let ((_answering, first), (waiting, second)) = (events(1), events(2));
        current.begin(1);
        drop(second);
        assert!(waiting.is_closed() && !cancelled(), "the second had not begun");
        drop(first);
        assert!(cancelled());
        current.end();
        current.begin(3);
        assert!(!cancelled());
    }
}
