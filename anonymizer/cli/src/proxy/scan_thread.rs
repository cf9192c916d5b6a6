//! The thread that detects: it owns the model and scans the texts of all requests, those that wait together.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::detect::Span;
use crate::error::{Error, Result};
use crate::scan::{Health, Rules, Scan, ScanNow, Scanner};

/// Requests that may wait; more are refused.
const MAX_WAITING: usize = 256;
/// Bytes of texts from which no further short request joins a batch.
const BATCH_BYTES: usize = 16 << 10;
/// Bytes of the texts of a short request: about three passes of the model. Short ones go first, and between the passes of
/// long ones.
const SHORT_BYTES: usize = 2 << 10;
/// Silence of the detector's server after which waiting requests are refused.
const SILENCE: Duration = Duration::from_secs(4);
/// How often it is asked while requests wait.
const ASK_EVERY: Duration = Duration::from_millis(500);
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
pub struct ScanThread {
    jobs: mpsc::Sender<Job>,
    rules: Arc<Rules>,
    remembered: Arc<Mutex<Remembered>>,
    watch: Option<Arc<Watch>>,
}

impl ScanThread {
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
                let _ = opened.send(Ok(scanner.health()));
                work(scanner, receiver);
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name("detection".to_owned())
            .spawn(run)
            .map_err(|source| Error::io_of("starting a thread", source))?;
        let health = wait.recv().map_err(|_| Error::from(sotto_pii::Error::Unavailable))??;
        let watch = health.map(|health| Arc::new(Watch::new(health)));
        Ok(Self { jobs, rules, remembered: Arc::new(Mutex::new(Remembered::new())), watch })
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
            let (found, scanned) = self.wait(answer).await?;
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

    /// The answer of the thread, or the news that it will not come: a server that is gone or hangs keeps the thread
    /// waiting for much longer than anyone waits for a proxy.
    async fn wait(&self, mut answer: oneshot::Receiver<Scanned>) -> Scanned {
        let begun = Instant::now();
        loop {
            tokio::select! {
                answer = &mut answer => {
                    let ended = || Failure::Unavailable("detection ended while it was needed".to_owned());
                    return answer.unwrap_or_else(|_| Err(ended()));
                }
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            if self.watch.as_ref().is_some_and(|watch| watch.is_silent_since(begun)) {
                let seconds = SILENCE.as_secs();
                let reason = format!("the server of the detector has not answered for {seconds} seconds");
                return Err(Failure::Unavailable(reason));
            }
        }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn bytes(&self) -> usize {
        self.texts.iter().map(String::len).sum()
    }

    fn is_short(&self) -> bool {
        self.bytes() <= SHORT_BYTES
    }
}

fn work(mut scanner: Scanner, mut jobs: mpsc::Receiver<Job>) {
    let mut waiting: VecDeque<Job> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(job) = jobs.blocking_recv() else { return };
            waiting.push_back(job);
        }
        while let Ok(job) = jobs.try_recv() {
            waiting.push_back(job);
        }
        let batch = next_batch(&mut waiting);
        // A long scan makes way for short ones between its passes, and they for nobody.
        let mut between = |scan: &mut ScanNow<'_>| {
            while let Ok(job) = jobs.try_recv() {
                waiting.push_back(job);
            }
            let short: Vec<Job> = take_short(&mut waiting);
            if !short.is_empty() {
                answer(short, |texts| scan(texts));
            }
        };
        answer(batch, |texts| scanner.scan_in_turns(texts, &mut between));
    }
}

/// The short requests that wait, together, or else the first long one.
fn next_batch(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let short = take_short(waiting);
    if short.is_empty() { waiting.pop_front().into_iter().collect() } else { short }
}

fn take_short(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut short, mut bytes) = (Vec::new(), 0);
    let mut rest = VecDeque::with_capacity(waiting.len());
    for job in waiting.drain(..) {
        if job.is_short() && bytes < BATCH_BYTES {
            bytes += job.bytes();
            short.push(job);
        } else {
            rest.push_back(job);
        }
    }
    *waiting = rest;
    short
}

fn answer(mut batch: Vec<Job>, scan: impl FnOnce(&[&str]) -> sotto_pii::Result<Scan>) {
    // Who has gone away meanwhile needs no answer.
    batch.retain(|job| !job.reply.is_closed());
    let texts: Vec<&str> = batch.iter().flat_map(|job| &job.texts).map(String::as_str).collect();
    if texts.is_empty() {
        return;
    }
    let outcome = scan(&texts).map_err(|error| match error {
        sotto_pii::Error::Untrusted => Failure::Untrusted,
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

/// Asks whether the detector's server is there while requests wait for it.
struct Watch {
    health: Health,
    /// When it last answered.
    answered: Mutex<Option<Instant>>,
    asking: AtomicBool,
}

impl Watch {
    fn new(health: Health) -> Self {
        Self { health, answered: Mutex::new(None), asking: AtomicBool::new(false) }
    }

    /// Whether the server has been silent for too long, for a request that waits since `begun`. Asks it again if its last
    /// answer is old.
    fn is_silent_since(self: &Arc<Self>, begun: Instant) -> bool {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = answered.map_or(begun, |answered| answered.max(begun)).elapsed();
        if quiet >= ASK_EVERY && !self.asking.swap(true, Ordering::AcqRel) {
            let watch = Arc::clone(self);
            // A thread of its own: a server that hangs keeps it, and there is only one.
            std::thread::spawn(move || {
                if (watch.health)() {
                    let mut answered = watch.answered.lock().unwrap_or_else(PoisonError::into_inner);
                    *answered = Some(Instant::now());
                }
                watch.asking.store(false, Ordering::Release);
            });
        }
        quiet >= SILENCE
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::detect::Detection;
    use crate::scan::{DetectNow, RecognizersOnly, TextDetector};

    fn job(bytes: usize) -> Job {
        Job { texts: vec!["x".repeat(bytes)], reply: oneshot::channel().0 }
    }

    #[test]
    fn short_requests_go_first_and_long_ones_one_by_one() {
        let mut waiting: VecDeque<Job> = [5000, 10, 9000, 20].map(job).into();
        let sizes = |batch: Vec<Job>| batch.iter().map(Job::bytes).collect::<Vec<_>>();
        assert_eq!(sizes(next_batch(&mut waiting)), [10, 20]);
        assert_eq!(sizes(next_batch(&mut waiting)), [5000]);
        assert_eq!(sizes(next_batch(&mut waiting)), [9000]);
        assert!(next_batch(&mut waiting).is_empty());
    }

    /// Says when it has begun a long text, and goes on when told.
    struct Slow(std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>);

    impl TextDetector for Slow {
        fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> sotto_pii::Result<Detection> {
            RecognizersOnly.detect(texts, recognized)
        }

        fn detect_in_turns(
            &mut self,
            texts: &[&str],
            recognized: &[Vec<Span>],
            between: &mut dyn FnMut(&mut DetectNow<'_>),
        ) -> sotto_pii::Result<Detection> {
            if texts[0].len() > SHORT_BYTES {
                self.0.send(()).expect("the test waits");
                self.1.recv().expect("the test goes on");
                between(&mut |texts, recognized| RecognizersOnly.detect(texts, recognized));
                self.1.recv().expect("the test goes on");
            }
            RecognizersOnly.detect(texts, recognized)
        }
    }

    #[tokio::test]
    async fn a_short_request_is_answered_while_a_long_one_is_scanned() {
        let rules = Arc::new(Rules::new(&Config::default()).unwrap());
        let own = Arc::clone(&rules);
        let (go, wait) = std::sync::mpsc::channel();
        let (begin, begun) = std::sync::mpsc::channel();
        let slow = Slow(begin, wait);
        let scans = ScanThread::start(rules, move || Ok(Scanner::new(own, Box::new(slow)))).unwrap();
        let long = {
            let scans = scans.clone();
            tokio::spawn(async move { scans.scan(&["x ".repeat(SHORT_BYTES)]).await })
        };
        tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
        let short = {
            let scans = scans.clone();
            tokio::spawn(async move { scans.scan(&["mail ann@example.org".to_owned()]).await })
        };
        while scans.jobs.capacity() == MAX_WAITING {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        assert_eq!(short.await.unwrap().unwrap().spans[0].len(), 1);
        assert!(!long.is_finished());
        go.send(()).unwrap();
        assert!(long.await.unwrap().is_ok());
    }

    #[test]
    fn a_silent_server_is_noticed_and_one_that_answers_is_waited_for() {
        let long_ago = Instant::now().checked_sub(SILENCE).expect("the machine is up that long");
        let dead = Arc::new(Watch::new(Arc::new(|| false)));
        assert!(dead.is_silent_since(long_ago) && !dead.is_silent_since(Instant::now()));
        let alive = Arc::new(Watch::new(Arc::new(|| true)));
        // It is asked now, and its answer counts from then on.
        alive.is_silent_since(long_ago);
        while alive.asking.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert!(!alive.is_silent_since(long_ago));
    }
}
