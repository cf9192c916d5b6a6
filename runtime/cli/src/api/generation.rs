//! The thread that owns the model: all requests under way share its passes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use sotto_engine::open::{Chat, SharedChat};
use sotto_engine::session::{Answer, Finish, GenerateOptions, Progress, TokenLogprob, conversations};
use sotto_http::error::ApiError;
use sotto_protocol::error::Error;
use tokio::sync::{mpsc as async_mpsc, oneshot};

use super::error::{refusal, shutting_down};
use super::metrics::Metrics;
use super::prompt::PromptBuilder;

/// Result of this module.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Requests under way or waiting; each holds its prompt in memory.
const MAX_REQUESTS: usize = 48;

/// What comes out of a request under way.
pub(super) enum Event {
    /// More text of answer `index`.
    Text { index: usize, text: String, tokens: Vec<TokenLogprob> },
    /// The end of answer `index`.
    Done { index: usize, answer: Box<Answer> },
    /// The end of all, early.
    Failed(ApiError),
}

/// What a request wants.
pub(super) struct Work {
    /// Tokens to continue, each for `answers` answers.
    pub(super) prompts: Vec<Vec<u32>>,
    /// Answers to each prompt.
    pub(super) answers: usize,
    /// How to generate.
    pub(super) options: GenerateOptions,
}

struct Job {
    number: u64,
    work: Work,
    events: async_mpsc::UnboundedSender<Event>,
    /// Requests of the endpoint that have not ended.
    open: Arc<AtomicUsize>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One answer of a request.
#[derive(Clone)]
struct Unit {
    job: Arc<Job>,
    index: usize,
}

impl Unit {
    fn prompt(&self) -> &[u32] {
        &self.job.work.prompts[self.index / self.job.work.answers]
    }

    fn options(&self) -> GenerateOptions {
        let options = &self.job.work.options;
        GenerateOptions { seed: options.seed.wrapping_add(self.index as u64), ..options.clone() }
    }

    fn is_left(&self) -> bool {
        self.job.events.is_closed()
    }

    fn send(&self, event: Event) {
        // The client may have left.
        let _ = self.job.events.send(event);
    }
}

/// Which requests the pass under way is for, and how to end it.
struct Current {
    /// Tokens of each request in the pass.
    pass: Mutex<HashMap<u64, usize>>,
    /// Ends a pass of the backend, whatever it waits for.
    cancelled: Arc<AtomicBool>,
}

impl Current {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, tokens: HashMap<u64, usize>) {
        let mut pass = self.lock();
        self.cancelled.store(false, Ordering::SeqCst);
        *pass = tokens;
    }

    fn end(&self) {
        self.lock().clear();
    }

    /// The reader of request `number` left. The pass ends if it was mostly for this one and others that left: what the
    /// rest has in it is run again, and costs less than waiting would.
    fn cancel(&self, number: u64) {
        let mut pass = self.lock();
        let whole: usize = pass.values().sum();
        if pass.remove(&number).is_some() {
            // Those that left before are in the sum no more, but were not half of the pass.
            let rest: usize = pass.values().sum();
            if 2 * rest < whole {
                self.cancelled.store(true, Ordering::SeqCst);
            }
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
    /// The next event; `None` after the last.
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

/// Ends all answers of a model, for good.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// Ends a pass of the backend, whatever it waits for.
    cancelled: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

impl Stop {
    /// The flag that ends a pass, to open the model with.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Ends the answers.
    pub(super) fn raise(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.cancelled.store(true, Ordering::SeqCst);
    }

    fn is_raised(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// What a thread tells when its model is open: what makes prompts, and the process of an embedded server.
pub(super) type Ready = oneshot::Receiver<Result<(PromptBuilder, Option<u32>)>>;

/// Hands requests to the model's thread.
pub(super) struct GenerationThread {
    jobs: mpsc::Sender<Job>,
    handle: std::thread::JoinHandle<()>,
    next: AtomicU64,
    open: Arc<AtomicUsize>,
    current: Arc<Current>,
    stop: Stop,
    metrics: Arc<Metrics>,
}

impl GenerationThread {
    /// Starts the thread, which opens its model: an embedded server ends with the thread that started it. The model must be
    /// opened with the flag of `stop`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if no thread can be started.
    pub(super) fn start(
        open: impl FnOnce() -> Result<Chat> + Send + 'static,
        stop: Stop,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Ready)> {
        let (jobs, waiting) = mpsc::channel();
        let (opened, ready) = oneshot::channel();
        let current = Arc::new(Current { pass: Mutex::default(), cancelled: stop.flag() });
        let (own, own_stop, own_metrics) = (Arc::clone(&current), stop.clone(), Arc::clone(&metrics));
        let serve = move || match open() {
            Err(error) => drop(opened.send(Err(error))),
            Ok(mut chat) => {
                let prompts = PromptBuilder::new(&mut chat.session);
                let process = chat.server_process_id();
                let mut scheduler = Scheduler {
                    chat: chat.into_shared(),
                    waiting: VecDeque::new(),
                    running: HashMap::new(),
                    next: 0,
                    current: own,
                    stop: own_stop,
                    metrics: own_metrics,
                };
                if opened.send(Ok((prompts, process))).is_ok() {
                    scheduler.serve(&waiting);
                }
            }
        };
        let handle = std::thread::Builder::new()
            .name("sotto-session".to_owned())
            .spawn(serve)
            .map_err(|source| Error::Io { context: "starting the session thread".to_owned(), source })?;
        let thread =
            Self { jobs, handle, next: AtomicU64::new(0), open: Arc::default(), current, stop, metrics };
        Ok((thread, ready))
    }

    /// Whether the thread has not ended.
    pub(super) fn is_running(&self) -> bool {
        !self.handle.is_finished()
    }

    /// Requests that have not ended.
    pub(super) fn open_requests(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether there are any.
    pub(super) fn is_busy(&self) -> bool {
        self.open_requests() > 0
    }

    /// Ends the thread when what is under way has ended, and waits for that.
    pub(super) fn end(self) {
        let Self { jobs, handle, .. } = self;
        drop(jobs);
        // A thread that panicked has ended as well.
        let _ = handle.join();
    }

    /// Queues a request; dropping its events cancels it.
    ///
    /// # Errors
    ///
    /// 503 when too many wait, or all is about to end.
    pub(super) fn submit(&self, work: Work) -> Result<Events, ApiError> {
        if self.stop.is_raised() {
            return Err(shutting_down());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = async_mpsc::unbounded_channel();
        if self.open.fetch_add(1, Ordering::SeqCst) >= MAX_REQUESTS {
            self.open.fetch_sub(1, Ordering::SeqCst);
            let retry_after = std::time::Duration::from_secs(5);
            return Err(refusal(Error::Busy { what: "the queue", retry_after }));
        }
        let job = Job { number, work, events, open: Arc::clone(&self.open) };
        self.metrics.waiting.inc();
        if self.jobs.send(job).is_err() {
            self.metrics.waiting.dec();
            return Err(super::error::thread_ended());
        }
        Ok(Events { receiver, number, current: Arc::clone(&self.current) })
    }
}

/// Lets requests join the passes in their order, and leave.
struct Scheduler {
    chat: SharedChat,
    waiting: VecDeque<Unit>,
    running: HashMap<u64, Unit>,
    /// Names the next conversation.
    next: u64,
    current: Arc<Current>,
    stop: Stop,
    metrics: Arc<Metrics>,
}

impl Scheduler {
    fn serve(&mut self, jobs: &mpsc::Receiver<Job>) {
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                match jobs.recv() {
                    Ok(job) => self.accept(job),
                    Err(_) => return,
                }
            }
            while let Ok(job) = jobs.try_recv() {
                self.accept(job);
            }
            if self.stop.is_raised() {
                self.fail_all(&shutting_down);
            }
            self.drop_left();
            self.join();
            self.pass();
        }
    }

    fn accept(&mut self, job: Job) {
        let job = Arc::new(job);
        let answers = job.work.prompts.len() * job.work.answers;
        self.waiting.extend((0..answers).map(|index| Unit { job: Arc::clone(&job), index }));
    }

    /// Ends the requests whose readers left.
    fn drop_left(&mut self) {
        let left: Vec<Arc<Job>> = self
            .waiting
            .iter()
            .chain(self.running.values())
            .filter(|unit| unit.is_left())
            .map(|unit| Arc::clone(&unit.job))
            .collect();
        for job in left {
            self.fail(&job, refusal(Error::Cancelled));
        }
    }

    /// Ends all requests early.
    fn fail_all(&mut self, error: &dyn Fn() -> ApiError) {
        let units = self.waiting.iter().chain(self.running.values());
        let jobs: Vec<Arc<Job>> = units.map(|unit| Arc::clone(&unit.job)).collect();
        for job in jobs {
            self.fail(&job, error());
        }
    }

    /// Ends a request early.
    fn fail(&mut self, job: &Arc<Job>, error: ApiError) {
        let before = self.waiting.len() + self.running.len();
        self.waiting.retain(|unit| !Arc::ptr_eq(&unit.job, job));
        let running: Vec<u64> = self.running.keys().copied().collect();
        for id in running {
            if self.running.get(&id).is_some_and(|unit| Arc::ptr_eq(&unit.job, job)) {
                self.running.remove(&id);
                self.chat.conversations.leave(id);
            }
        }
        if self.waiting.len() + self.running.len() == before {
            // It ended already.
            return;
        }
        match job.events.is_closed() {
            true => self.metrics.cancelled.inc(),
            false => self.metrics.failed.inc(),
        };
        self.metrics.waiting.dec();
        let _ = job.events.send(Event::Failed(error));
    }

    /// Lets those that wait join, the first first.
    fn join(&mut self) {
        let mut stay = VecDeque::new();
        while let Some(unit) = self.waiting.pop_front() {
            if !self.chat.conversations.has_room_for(unit.prompt()) {
                stay.push_back(unit);
                continue;
            }
            let id = self.next;
            self.next += 1;
            match self.chat.conversations.join(id, unit.prompt(), &unit.options()) {
                Ok(()) => {
                    self.running.insert(id, unit);
                }
                Err(error) => {
                    let job = Arc::clone(&unit.job);
                    stay.push_back(unit);
                    stay.append(&mut self.waiting);
                    self.waiting = std::mem::take(&mut stay);
                    self.fail(&job, refusal(error));
                }
            }
        }
        self.waiting = stay;
    }

    /// One pass of all that run.
    fn pass(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let mut tokens: HashMap<u64, usize> = HashMap::new();
        for (id, count) in self.chat.conversations.running() {
            if let Some(unit) = self.running.get(&id) {
                *tokens.entry(unit.job.number).or_default() += count;
            }
        }
        self.current.begin(tokens);
        if self.stop.is_raised() {
            // Raised before this pass was announced; the flag went down again.
            self.current.end();
            return;
        }
        // A reader that left before this pass was announced did not end it.
        if self.running.values().any(Unit::is_left) {
            self.current.end();
            return;
        }
        let running = &self.running;
        let mut ended = Vec::new();
        let outcome = self.chat.restart().and_then(|()| {
            self.chat.conversations.pass(&mut |id, event| {
                let Some(unit) = running.get(&id) else { return };
                match event {
                    conversations::Event::Progress(Progress::Text { text, tokens }) => {
                        let (text, tokens) = (text.to_owned(), tokens.to_vec());
                        unit.send(Event::Text { index: unit.index, text, tokens });
                    }
                    conversations::Event::Progress(Progress::Prompt { .. }) => {}
                    conversations::Event::Ended(result) => ended.push((id, result)),
                }
            })
        });
        self.current.end();
        for (id, result) in ended {
            let Some(unit) = self.running.remove(&id) else { continue };
            match result {
                Ok(answer) => self.finish(&unit, answer),
                Err(error) => {
                    let job = Arc::clone(&unit.job);
                    // Back among those of its request, which all end.
                    self.waiting.push_front(unit);
                    self.fail(&job, refusal(error));
                }
            }
        }
        match outcome {
            Ok(()) => {}
            Err(Error::Cancelled) if self.stop.is_raised() => {}
            Err(Error::Cancelled) if self.running.values().any(Unit::is_left) => self.drop_left(),
            Err(error) => {
                let error = refusal(error);
                let running: Vec<Arc<Job>> =
                    self.running.values().map(|unit| Arc::clone(&unit.job)).collect();
                for job in running {
                    self.fail(&job, error.clone());
                }
            }
        }
    }

    fn finish(&mut self, unit: &Unit, answer: Box<Answer>) {
        self.metrics.count(&answer);
        if answer.finish != Finish::Cancelled {
            unit.send(Event::Done { index: unit.index, answer });
        }
        if let Some(Err(error)) = self.chat.check_tally().map(|tally| tally.verdict()) {
            // For the operator of this endpoint: what the reader of the answer does next, the server may see.
            note!("warning: {error}");
        }
        let others = self.waiting.iter().chain(self.running.values());
        if !others.into_iter().any(|other| Arc::ptr_eq(&other.job, &unit.job)) {
            self.metrics.waiting.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_leaves_ends_a_pass_only_if_it_was_mostly_its_own() {
        let current = Arc::new(Current { pass: Mutex::default(), cancelled: Arc::default() });
        let events = |number| {
            let (sender, receiver) = async_mpsc::unbounded_channel();
            (sender, Events { receiver, number, current: Arc::clone(&current) })
        };
        let cancelled = || current.cancelled.load(Ordering::SeqCst);
        let ((_a, first), (waiting, second), (_c, third)) = (events(1), events(2), events(3));
        current.begin(HashMap::from([(1, 1), (3, 1)]));
        drop(second);
        assert!(waiting.is_closed() && !cancelled(), "the second was not in it");
        drop(first);
        assert!(!cancelled(), "the third still needs it");
        drop(third);
        assert!(cancelled());
        let (_d, prompt) = events(4);
        current.begin(HashMap::from([(4, 256), (5, 1), (6, 1)]));
        assert!(!cancelled());
        drop(prompt);
        assert!(cancelled(), "two tokens are sooner run again than waited for");
    }
}
