//! The online link: one bidirectional stream that carries a frame per round and brings its reply.
//!
//! The thread that runs the model drives the network itself, on a runtime of its own: a round trip
//! then wakes no other thread of the client. After a broken connection the link opens a new stream
//! and sends the *same bytes* again; it never sees a slot and could not encrypt anything anew.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fhe_layers::WireForm;
use prost::Message;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::accounting::{Accounting, Phase, Traffic};
use super::connection::{CONNECT_TIMEOUT, Connection};
use super::status::refused;
use super::target::Target;
use super::tls::{FramedConnection, connect_framed};
use sotto_protocol::error::{Error, Result};
use sotto_protocol::framing::{FrameReader, Incoming, send};
use sotto_protocol::limits::{MAX_LEASE_BODY_TOKENS, MAX_REPLY_BYTES};
use sotto_protocol::wire::{BodyReply, BodyRequest, Refusal, SlotRange};

/// How long a broken connection is retried before the pass fails.
pub(crate) const RECONNECT_FOR: Duration = Duration::from_secs(15);

/// Leases in a row that a server may refuse before that is its last word.
const LEASES_REFUSED: u32 = 3;

/// First pause between attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A reply that takes longer than this counts as a lost connection.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a wait for the server looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Longest wait for a server to take back what a lease did not use.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_millis(300);

/// Body tokens asked for per lease. Small enough that a crash costs little, large enough that
/// leases are rare.
const LEASE_TOKENS: u64 = 1024;

/// The body stream of one session.
pub(crate) struct BodyLink {
    runtime: Runtime,
    target: Arc<Target>,
    form: WireForm,
    stream: Option<OpenStream>,
    /// The server does not speak the framed transport.
    grpc_only: bool,
    lease: Option<Lease>,
    /// Tokens of the pass under way, to size a lease that replaces a refused one.
    pass_tokens: u64,
    seq: u64,
    accounting: Arc<Accounting>,
    /// Ends a wait when raised.
    cancelled: Arc<AtomicBool>,
}

/// How long an action is repeated, and how soon.
#[derive(Default)]
struct Backoff {
    first_failure: Option<Instant>,
    failures: u32,
    refused_leases: u32,
}

impl Backoff {
    /// How long to wait after a failure at `now`; `None` when it has been long enough.
    fn pause_after(&mut self, error: &Error, now: Instant) -> Option<Duration> {
        if matches!(error, Error::Lease(_)) && self.refused_leases < LEASES_REFUSED {
            // The server is there, however long it was away: it ended the lease meanwhile, and opens another.
            *self = Self { refused_leases: self.refused_leases + 1, ..Self::default() };
        }
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.failures));
        self.failures += 1;
        let start = *self.first_failure.get_or_insert(now);
        (now + pause <= start + RECONNECT_FOR).then_some(pause)
    }
}

struct Lease {
    bytes: Bytes,
    tokens_left: u64,
}

/// What carries the frames.
#[allow(clippy::large_enum_variant, reason = "one per session, and moved when it is opened")]
enum Transport {
    /// TLS and nothing else; see [`sotto_protocol::framing`].
    Framed(Box<Framed>),
    /// A gRPC stream, for servers and relays that speak nothing else.
    Grpc { connection: Connection, frames: mpsc::Sender<BodyRequest>, replies: Streaming<BodyReply> },
}

struct Framed {
    connection: FramedConnection,
    reader: FrameReader,
    scratch: Vec<u8>,
}

impl Framed {
    fn exchange(&mut self, frame: &BodyRequest, cancelled: &AtomicBool) -> Result<BodyReply> {
        let lost = |error: std::io::Error| Error::Transport(error.to_string());
        // A send that fails means that the server closed; what it said before says why.
        let sent = send(frame, false, &mut self.connection, &mut self.scratch).map_err(lost);
        let start = Instant::now();
        loop {
            match self.reader.read(&mut self.connection, MAX_REPLY_BYTES).map_err(lost)? {
                Incoming::Message(bytes) => {
                    sent?;
                    return BodyReply::decode(bytes).map_err(|error| Error::Transport(error.to_string()));
                }
                Incoming::Refusal(bytes) => {
                    let refusal =
                        Refusal::decode(bytes).map_err(|error| Error::Transport(error.to_string()))?;
                    return Err(refused(&crate::status::of_refusal(refusal)));
                }
                Incoming::Closed => {
                    sent?;
                    return Err(Error::Transport("the server closed the stream".to_owned()));
                }
                Incoming::Pending if cancelled.load(Ordering::SeqCst) => return Err(Error::Cancelled),
                Incoming::Pending if start.elapsed() >= REPLY_TIMEOUT => {
                    return Err(Error::Transport(format!("no reply in {} s", REPLY_TIMEOUT.as_secs())));
                }
                Incoming::Pending => {}
            }
        }
    }
}

struct OpenStream {
    transport: Transport,
    /// Whether the server knows the current lease on this stream.
    lease_sent: bool,
    form_sent: bool,
    /// Named last.
    slots: Vec<SlotRange>,
}

impl BodyLink {
    /// A link to `target`; connects on first use. Raising `cancelled` ends whatever it waits for.
    pub(crate) fn new(
        target: Arc<Target>,
        form: WireForm,
        accounting: Arc<Accounting>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Io { context: "starting the network runtime".to_owned(), source })?;
        let (stream, lease) = (None, None);
        Ok(Self {
            runtime,
            target,
            form,
            stream,
            grpc_only: false,
            lease,
            pass_tokens: 0,
            seq: 0,
            accounting,
            cancelled,
        })
    }

    /// The wire form.
    pub(crate) fn form(&self) -> WireForm {
        self.form
    }

    /// Digest of the model that is served.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        self.target.digest()
    }

    /// Prepares a pass of `tokens`: makes sure that the lease covers it.
    ///
    /// # Errors
    ///
    /// [`Error::Budget`] when the credential cannot pay for it, or what opening a connection and a
    /// lease can fail with.
    pub(crate) fn begin_pass(&mut self, tokens: usize) -> Result<()> {
        self.pass_tokens = tokens as u64;
        if self.lease.as_ref().is_some_and(|lease| lease.tokens_left >= self.pass_tokens) {
            return Ok(());
        }
        self.retry(|link| link.renew_lease())
    }

    /// The pass is over: its tokens are spent.
    pub(crate) fn end_pass(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.tokens_left = lease.tokens_left.saturating_sub(self.pass_tokens);
        }
        self.pass_tokens = 0;
    }

    /// Sends `bodies` of `tokens` tokens for `round` and waits for the replies. `slots` names those of the tokens in the
    /// lean form, and is empty in the others.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] or [`Error::Connect`] when the server stays away for too long, its
    /// refusal, or [`Error::Cancelled`].
    pub(crate) fn exchange(
        &mut self,
        round: u32,
        tokens: u32,
        bodies: Bytes,
        slots: &[SlotRange],
    ) -> Result<Bytes> {
        let start = Instant::now();
        let reply = self.retry(|link| link.attempt(round, tokens, bodies.clone(), slots))?;
        self.accounting.add(Phase::Wait, start.elapsed());
        self.accounting.add(Phase::ServerBody, Duration::from_micros(u64::from(reply.compute_us)));
        self.accounting.add_round_trip();
        self.accounting.add_bytes(Traffic::Up, bodies.len());
        self.accounting.add_bytes(Traffic::Down, reply.replies.len());
        Ok(reply.replies)
    }

    /// Repeats `action` over fresh connections while the failure is one that a reconnect can cure.
    fn retry<T>(&mut self, mut action: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut backoff = Backoff::default();
        loop {
            let error = match action(self) {
                Ok(value) => {
                    self.accounting.note_answer();
                    return Ok(value);
                }
                Err(error) => error,
            };
            self.accounting.note_failure(&error);
            // With a reply outstanding, or broken: the next frame goes over another one.
            self.stream = None;
            if self.cancelled.load(Ordering::SeqCst) {
                return Err(Error::Cancelled);
            }
            let curable = match &error {
                Error::Lease(_) => {
                    self.lease = None;
                    true
                }
                Error::Connect { .. } => self.target.may_come_back(),
                // The server says "cancelled" when it ends a stream that was idle for long.
                Error::Transport(_) | Error::ShuttingDown | Error::Busy { .. } | Error::Cancelled => true,
                _ => false,
            };
            let pause = backoff.pause_after(&error, Instant::now());
            let Some(pause) = pause.filter(|_| curable && self.target.may_come_back()) else {
                return Err(self.target.explain(self.accounting.explain(error)));
            };
            tracing::debug!(%error, "connection lost, trying again");
            std::thread::sleep(pause);
        }
    }

    fn attempt(&mut self, round: u32, tokens: u32, bodies: Bytes, slots: &[SlotRange]) -> Result<BodyReply> {
        if self.lease.is_none() {
            self.renew_lease()?;
        }
        if self.stream.is_none() {
            self.open_stream()?;
        }
        let (Some(stream), Some(lease)) = (&mut self.stream, &self.lease) else {
            return Err(Error::Internal("no stream after opening one".to_owned()));
        };
        if let (Transport::Framed(framed), false) = (&mut stream.transport, stream.lease_sent) {
            // A server takes short frames only until it has seen a lease.
            self.seq += 1;
            let (lease, form) = (lease.bytes.clone(), self.form.to_string());
            let hello = BodyRequest { seq: self.seq, lease, form, ..BodyRequest::default() };
            framed.exchange(&hello, &self.cancelled)?;
            (stream.lease_sent, stream.form_sent) = (true, true);
        }
        self.seq += 1;
        let frame = BodyRequest {
            seq: self.seq,
            round,
            tokens,
            bodies,
            lease: if stream.lease_sent { Bytes::new() } else { lease.bytes.clone() },
            form: if stream.form_sent { String::new() } else { self.form.to_string() },
            // A server takes those of the frame before when none are named.
            slots: if stream.slots == slots { Vec::new() } else { slots.to_vec() },
        };
        (stream.lease_sent, stream.form_sent) = (true, true);
        stream.slots = slots.to_vec();
        let reply = match &mut stream.transport {
            Transport::Framed(framed) => framed.exchange(&frame, &self.cancelled)?,
            Transport::Grpc { frames, replies, .. } => {
                let answered = async {
                    // A send that fails means that the server closed the stream; its status says why.
                    let sent = frames.send(frame).await;
                    match replies.message().await {
                        Ok(Some(reply)) if sent.is_ok() => Ok(reply),
                        Ok(_) => Err(Error::Transport("the server closed the stream".to_owned())),
                        Err(status) => Err(refused(&status)),
                    }
                };
                self.runtime.block_on(in_time(&self.cancelled, answered))?
            }
        };
        if reply.seq != self.seq {
            return Err(Error::Malformed {
                field: "reply sequence number",
                expected: self.seq.to_string(),
                got: reply.seq.to_string(),
            });
        }
        Ok(reply)
    }

    fn open_stream(&mut self) -> Result<()> {
        let target = Arc::clone(&self.target);
        let (lease_sent, form_sent, slots) = (false, false, Vec::new());
        if !self.grpc_only {
            let opened = connect_framed(target.body_address(), target.pin(), CONNECT_TIMEOUT, CANCEL_POLL)?;
            if let Some(connection) = opened {
                let framed = Framed { connection, reader: FrameReader::default(), scratch: Vec::new() };
                let transport = Transport::Framed(Box::new(framed));
                self.stream = Some(OpenStream { transport, lease_sent, form_sent, slots });
                return Ok(());
            }
            self.grpc_only = true;
        }
        let cancelled = Arc::clone(&self.cancelled);
        let lease = self.lease.as_ref().map(|lease| lease.bytes.clone()).unwrap_or_default();
        self.stream = Some(self.runtime.block_on(async {
            let connection = Connection::open_bodies(&target).await?;
            let (frames, receiver) = mpsc::channel(1);
            let mut bodies = connection.bodies(&lease);
            let opened = async {
                let opened = bodies.stream(ReceiverStream::new(receiver)).await;
                Ok(opened.map_err(|status| refused(&status))?.into_inner())
            };
            let replies = in_time(&cancelled, opened).await?;
            let transport = Transport::Grpc { connection, frames, replies };
            Ok::<_, Error>(OpenStream { transport, lease_sent, form_sent, slots })
        })?);
        Ok(())
    }

    fn renew_lease(&mut self) -> Result<()> {
        let wanted = self.pass_tokens.clamp(LEASE_TOKENS, MAX_LEASE_BODY_TOKENS);
        let previous = self.lease.take();
        let (target, catalogue) = (Arc::clone(&self.target), self.catalogue());
        let reply = self.runtime.block_on(async {
            let connection = match catalogue {
                Some(connection) => connection,
                None => Connection::open(&target).await?,
            };
            if let Some(previous) = previous {
                // Giving back is a courtesy; a server that refuses changes nothing for this pass.
                let _ = connection.close_lease(previous.bytes).await;
            }
            connection.open_lease(target.digest(), wanted, 0).await
        })?;
        // Kept even if it is too small for this pass: it holds the rest of the budget, and a shorter pass may fit.
        self.lease = Some(Lease { bytes: reply.lease, tokens_left: reply.body_tokens });
        if let Some(stream) = &mut self.stream {
            stream.lease_sent = false;
        }
        if reply.body_tokens < self.pass_tokens {
            return Err(Error::Budget {
                counter: "body tokens",
                wanted: self.pass_tokens,
                left: reply.body_tokens,
            });
        }
        Ok(())
    }

    /// The stream's connection, if the catalogue is at its other end.
    fn catalogue(&self) -> Option<Connection> {
        match &self.stream.as_ref()?.transport {
            Transport::Grpc { connection, .. } if self.target.is_one_process() => Some(connection.clone()),
            _ => None,
        }
    }
}

/// What `answer` brings; a lost connection if it brings nothing within [`REPLY_TIMEOUT`], and
/// [`Error::Cancelled`] soon after `cancelled` was raised.
async fn in_time<T>(cancelled: &AtomicBool, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let start = Instant::now();
    let mut answer = pin!(answer);
    loop {
        if let Ok(answered) = tokio::time::timeout(CANCEL_POLL, &mut answer).await {
            return answered;
        }
        if cancelled.load(Ordering::SeqCst) {
            return Err(Error::Cancelled);
        }
        if start.elapsed() >= REPLY_TIMEOUT {
            return Err(Error::Transport(format!("no reply in {} s", REPLY_TIMEOUT.as_secs())));
        }
    }
}

impl Drop for BodyLink {
    fn drop(&mut self) {
        let catalogue = self.catalogue();
        let Some(lease) = self.lease.take().filter(|_| self.target.may_come_back()) else { return };
        // Give back what was not used, but do not make the user wait for a server that is gone.
        let target = Arc::clone(&self.target);
        let give_back = async {
            let connection = match catalogue {
                Some(connection) => connection,
                None => Connection::open(&target).await?,
            };
            connection.close_lease(lease.bytes).await
        };
        self.runtime.block_on(async {
            let _ = tokio::time::timeout(GIVE_BACK_TIMEOUT, give_back).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_lease_proves_that_the_server_is_back() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let (gone, lease) = (Error::Transport("gone".to_owned()), Error::Lease("ended"));
        assert_eq!(backoff.pause_after(&gone, start), Some(FIRST_PAUSE));
        assert_eq!(backoff.pause_after(&gone, start), Some(2 * FIRST_PAUSE));
        // Away for longer than it is looked for, and then there.
        let back = start + 5 * RECONNECT_FOR;
        for _ in 0..LEASES_REFUSED {
            assert_eq!(backoff.pause_after(&lease, back), Some(FIRST_PAUSE));
        }
        assert_eq!(backoff.pause_after(&lease, back + RECONNECT_FOR), None, "that is its last word");
        let mut backoff = Backoff::default();
        backoff.pause_after(&gone, start);
        assert_eq!(backoff.pause_after(&gone, back), None);
    }

    #[test]
    fn pauses_grow_to_the_longest() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let pauses: Vec<_> =
            (0..40).map(|_| backoff.pause_after(&Error::ShuttingDown, start).unwrap()).collect();
        assert!(pauses.is_sorted() && pauses[39] == LONGEST_PAUSE);
    }
}
