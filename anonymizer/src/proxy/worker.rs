//! The thread that detects: it owns the model and scans the texts of all requests, those that wait together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::detect::Span;
use crate::error::{Error, Result};
use crate::scan::{Rules, Scanner};

/// Requests that may wait; more are refused.
const MAX_WAITING: usize = 256;
/// Bytes of texts that are scanned together at most, unless one request alone is larger.
const BATCH_BYTES: usize = 64 << 10;
/// Scans that are remembered: the earlier messages of a conversation come back with every turn.
const MAX_REMEMBERED: usize = 8192;

/// Why there is no answer. In each case nothing may be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A canary came back with wrong labels.
    Untrusted,
    /// Detection failed or has ended.
    Unavailable(String),
    /// Too many requests wait.
    Busy,
}

/// Spans of the texts of a request, and what finding them took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Per text.
    pub spans: Vec<Vec<Span>>,
    /// Tokens scanned now; texts that were remembered do not count.
    pub tokens: usize,
    /// Waiting and scanning, in milliseconds.
    pub ms: f64,
}

/// Spans of each text, and the tokens that the model read.
type Scanned = Result<(Vec<Vec<Span>>, usize), Failure>;

struct Job {
    texts: Vec<String>,
    reply: oneshot::Sender<Scanned>,
}

/// The way to the thread. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    jobs: mpsc::Sender<Job>,
    rules: Arc<Rules>,
    remembered: Arc<Mutex<Remembered>>,
}

impl Worker {
    /// Starts the thread; `open` runs on it and makes the model.
    ///
    /// # Errors
    /// What `open` fails with.
    pub fn start(rules: Arc<Rules>, open: impl FnOnce() -> Result<Scanner> + Send + 'static) -> Result<Self> {
        let (jobs, receiver) = mpsc::channel(MAX_WAITING);
        let (opened, wait) = std::sync::mpsc::channel();
        let run = move || match open() {
            Ok(scanner) => {
                // The receiver waits below.
                let _ = opened.send(Ok(()));
                work(scanner, receiver);
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name("detection".to_owned())
            .spawn(run)
            .map_err(|source| Error::Io { context: "starting a thread".to_owned(), source })?;
        wait.recv().map_err(|_| Error::Unavailable)??;
        Ok(Self { jobs, rules, remembered: Arc::new(Mutex::new(Remembered::new())) })
    }

    /// The rules of scans.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Scans texts. Those that were scanned before are not scanned again.
    ///
    /// # Errors
    /// If nothing is known about the texts.
    pub async fn scan(&self, texts: &[String]) -> Result<Answer, Failure> {
        let start = Instant::now();
        let mut spans = self.remembered().recall(texts);
        let fresh: Vec<usize> = (0..texts.len()).filter(|&index| spans[index].is_none()).collect();
        let mut tokens = 0;
        if !fresh.is_empty() {
            let (reply, answer) = oneshot::channel();
            let job = Job { texts: fresh.iter().map(|&index| texts[index].clone()).collect(), reply };
            self.jobs.try_send(job).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Failure::Busy,
                mpsc::error::TrySendError::Closed(_) => {
                    Failure::Unavailable("detection has ended".to_owned())
                }
            })?;
            let ended = |_| Failure::Unavailable("detection ended while it was needed".to_owned());
            let (found, scanned) = answer.await.map_err(ended)??;
            tokens = scanned;
            let mut remembered = self.remembered();
            for (&index, found) in fresh.iter().zip(found) {
                remembered.keep(&texts[index], &found);
                spans[index] = Some(found);
            }
        }
        let spans = spans.into_iter().map(Option::unwrap_or_default).collect();
        Ok(Answer { spans, tokens, ms: start.elapsed().as_secs_f64() * 1e3 })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(mut scanner: Scanner, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        let mut size: usize = batch[0].texts.iter().map(String::len).sum();
        while size < BATCH_BYTES
            && let Ok(next) = jobs.try_recv()
        {
            size += next.texts.iter().map(String::len).sum::<usize>();
            batch.push(next);
        }
        // Whoever has gone away meanwhile needs no answer.
        batch.retain(|job| !job.reply.is_closed());
        answer(&mut scanner, batch);
    }
}

fn answer(scanner: &mut Scanner, batch: Vec<Job>) {
    let texts: Vec<&str> = batch.iter().flat_map(|job| &job.texts).map(String::as_str).collect();
    if texts.is_empty() {
        return;
    }
    let outcome = scanner.scan(&texts).map_err(|error| match error {
        Error::Untrusted => Failure::Untrusted,
        other => Failure::Unavailable(other.to_string()),
    });
    let total = texts.len();
    match outcome {
        Ok(scan) => {
            let mut spans = scan.spans.into_iter();
            for job in batch {
                let own: Vec<_> = spans.by_ref().take(job.texts.len()).collect();
                let tokens = scan.tokens * own.len() / total.max(1);
                let _ = job.reply.send(Ok((own, tokens)));
            }
        }
        Err(failure) => {
            tracing::warn!(texts = total, "detection failed: {failure:?}");
            for job in batch {
                let _ = job.reply.send(Err(failure.clone()));
            }
        }
    }
}

/// Spans of earlier texts, under a keyed digest: the texts themselves are not kept.
struct Remembered {
    key: [u8; 32],
    spans: HashMap<[u8; 32], Vec<Span>>,
    order: VecDeque<[u8; 32]>,
}

impl Remembered {
    fn new() -> Self {
        Self { key: rand::random(), spans: HashMap::new(), order: VecDeque::new() }
    }

    fn digest(&self, text: &str) -> [u8; 32] {
        Sha256::new().chain_update(self.key).chain_update(text).finalize().into()
    }

    fn recall(&self, texts: &[String]) -> Vec<Option<Vec<Span>>> {
        texts.iter().map(|text| self.spans.get(&self.digest(text)).cloned()).collect()
    }

    fn keep(&mut self, text: &str, spans: &[Span]) {
        let digest = self.digest(text);
        if self.spans.insert(digest, spans.to_vec()).is_none() {
            self.order.push_back(digest);
        }
        while self.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.spans.remove(&oldest);
            }
        }
    }
}
