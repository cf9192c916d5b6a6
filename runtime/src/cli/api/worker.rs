//! The thread that owns the session: one answer at a time, in the order of the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

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
    messages: Vec<Message>,
    options: GenerateOptions,
    events: async_mpsc::UnboundedSender<Event>,
}

/// Hands requests to the session's thread.
pub(super) struct Worker {
    jobs: mpsc::SyncSender<Job>,
}

impl Worker {
    /// Starts the thread. `cancelled` is the flag that ends a pass of the session's backend.
    pub(super) fn start(opened: Opened, cancelled: Arc<AtomicBool>) -> Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel(MAX_WAITING);
        std::thread::Builder::new()
            .name("sotto-session".to_owned())
            .spawn(move || serve(opened, &waiting, &cancelled))
            .map_err(|source| Error::Io { context: "starting the session thread".to_owned(), source })?;
        Ok(Self { jobs })
    }

    /// Queues a request; its events come out of the receiver. Dropping the receiver cancels it.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when too many wait.
    pub(super) fn submit(
        &self,
        messages: Vec<Message>,
        options: GenerateOptions,
    ) -> Result<async_mpsc::UnboundedReceiver<Event>> {
        let (events, receiver) = async_mpsc::unbounded_channel();
        match self.jobs.try_send(Job { messages, options, events }) {
            Ok(()) => Ok(receiver),
            Err(mpsc::TrySendError::Full(_)) => {
                Err(Error::Busy { what: "the queue", retry_after: std::time::Duration::from_secs(5) })
            }
            Err(mpsc::TrySendError::Disconnected(_)) => {
                Err(Error::Internal("the session thread ended".to_owned()))
            }
        }
    }
}

fn serve(mut opened: Opened, waiting: &mpsc::Receiver<Job>, cancelled: &Arc<AtomicBool>) {
    while let Ok(job) = waiting.recv() {
        cancelled.store(false, Ordering::SeqCst);
        let event = match answer(&mut opened, &job) {
            Ok(answer) => Event::Done(Box::new(answer)),
            Err(error) => Event::Failed(error),
        };
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
