//! The body half online: a frame in, a product, a frame out.
//!
//! A round trip passes through no queue and no second task: the task that reads a stream's frames multiplies small
//! products itself and yields the reply to the same connection. Larger products (prefill) go to the rayon pool, so
//! that a connection's thread is never held for more than [`INLINE_MULTIPLY_ADDS`].

pub(crate) mod executor;
pub(crate) mod framed;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fhe_layers::WireForm;
use futures::Stream;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status, Streaming};

use crate::Common;
use crate::auth::admission::{Bounded, PerCredential, Place};
use crate::auth::credentials::CredentialId;
use crate::auth::leases::MeteredLease;
use crate::bodies::executor::Weights;
use crate::masks::kept::{KeptBatches, NamedSlots};
use crate::masks::priority::PriorityGate;
use crate::models::registry::Model;
use crate::ops::config::ServerConfig;
use crate::transport::connection_auth::ConnectionAuth;
use crate::transport::grpc_status::status;
use crate::transport::listen::pool;
use sotto_protocol::BatchId;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::limits;
use sotto_protocol::wire::bodies_server;
use sotto_protocol::wire::{BodyReply, BodyRequest, SlotRange};

/// Products up to this many multiply-adds are computed on the connection's own thread: at 10 per nanosecond about
/// 0.4 ms, against some 20 us for a hand-off in each direction.
const INLINE_MULTIPLY_ADDS: usize = 4 << 20;

/// How long a draining server waits for a stream's next frame.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// Owner of the body streams and of the threads that multiply large frames.
pub(crate) struct Bodies {
    common: Common,
    priority: Arc<PriorityGate>,
    /// Words of lean batches, filled by the mask half.
    kept: Arc<KeptBatches>,
    forms: Vec<&'static str>,
    streams: Arc<Bounded>,
    streams_of: PerCredential,
    pool: rayon::ThreadPool,
    /// Products that wait for the pool or run on it.
    queued: Arc<AtomicUsize>,
}

impl Bodies {
    /// # Errors
    /// [`Error::Internal`] if the threads cannot be started.
    pub(crate) fn new(
        common: Common,
        priority: Arc<PriorityGate>,
        kept: Arc<KeptBatches>,
        config: &ServerConfig,
    ) -> Result<Self> {
        Ok(Self {
            common,
            priority,
            kept,
            forms: config.forms(),
            streams: Bounded::new("the list of body streams", limits::MAX_BODY_STREAMS),
            streams_of: PerCredential::new(
                "this credential's list of body streams",
                limits::MAX_BODY_STREAMS_PER_CREDENTIAL,
            ),
            pool: pool(config.threads, "sotto-body", None)?,
            queued: Arc::default(),
        })
    }

    /// Begins a stream of a peer that has introduced itself as `credential`.
    ///
    /// # Errors
    /// [`Error::Busy`] if there are too many.
    fn enter(self: &Arc<Self>, auth: ConnectionAuth, credential: CredentialId) -> Result<BodyStream> {
        let place_of = self.streams_of.enter(credential)?;
        let place = self.streams.enter()?;
        self.common.metrics.body_streams.inc();
        Ok(BodyStream {
            drain: self.common.lifecycle.drain_signal(),
            bodies: Arc::clone(self),
            auth,
            opened_by: Some((credential, place_of)),
            lease: None,
            form: WireForm::Full,
            named: Arc::default(),
            last_seq: None,
            _place: place,
        })
    }

    /// Whether a stream is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.streams.taken() > 0
    }
}

/// The gRPC service.
pub(crate) struct BodiesService(pub(crate) Arc<Bodies>);

#[tonic::async_trait]
impl bodies_server::Bodies for BodiesService {
    type StreamStream = std::pin::Pin<Box<dyn Stream<Item = std::result::Result<BodyReply, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<BodyRequest>>,
    ) -> std::result::Result<Response<Self::StreamStream>, Status> {
        let auth: ConnectionAuth = request.extensions().get().cloned().unwrap_or_default();
        let let_in = || {
            // The places of body streams are for peers that have introduced themselves, with a lease in the metadata or
            // with a credential, and no credential takes them all.
            let credential = auth.credential().ok_or(Error::Lease("none was sent with the call"))?;
            self.0.enter(auth.clone(), credential)
        };
        let session = let_in().map_err(|error| {
            self.0.common.metrics.refused.inc();
            status(&error)
        })?;
        let replies = futures::stream::unfold(Some((request.into_inner(), session)), |state| async {
            let (mut frames, mut session) = state?;
            match session.next(&mut frames).await {
                Ok(Some(reply)) => Some((Ok(reply), Some((frames, session)))),
                Ok(None) => None,
                Err(error) => {
                    session.bodies.common.metrics.refused.inc();
                    Some((Err(status(&error)), None))
                }
            }
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// A lease in use on a stream.
struct Active {
    metered: Arc<MeteredLease>,
    model: Arc<Model>,
    weights: Arc<Weights>,
    _place: Place,
}

/// One body stream.
struct BodyStream {
    bodies: Arc<Bodies>,
    drain: watch::Receiver<bool>,
    auth: ConnectionAuth,
    /// Until the first lease: the credential that the connection showed, and its place.
    opened_by: Option<(CredentialId, Place)>,
    lease: Option<Active>,
    form: WireForm,
    /// Slots of the frame before, in the lean form.
    named: Arc<NamedSlots>,
    last_seq: Option<u64>,
    _place: Place,
}

impl Drop for BodyStream {
    fn drop(&mut self) {
        self.bodies.common.metrics.body_streams.dec();
    }
}

impl BodyStream {
    /// Reads a frame and answers it; `None` at the end of the stream.
    async fn next(&mut self, frames: &mut Streaming<BodyRequest>) -> Result<Option<BodyReply>> {
        let patience = self.patience();
        let frame = tokio::select! {
            biased;
            frame = frames.message() => match frame {
                Ok(Some(frame)) => frame,
                // The peer is gone or broke the framing; tonic has told it already.
                Ok(None) | Err(_) => return Ok(None),
            },
            error = idle(&mut self.drain, patience) => return Err(error),
        };
        self.answer(frame).await.map(Some)
    }

    /// How long the stream may wait for its next frame.
    fn patience(&self) -> Duration {
        if self.lease.is_some() { limits::BODY_STREAM_IDLE_TIMEOUT } else { limits::FIRST_FRAME_TIMEOUT }
    }

    /// Answers a frame.
    async fn answer(&mut self, frame: BodyRequest) -> Result<BodyReply> {
        if self.last_seq.is_some_and(|last| frame.seq <= last) {
            return Err(malformed("seq", "an increasing number", "one that does not increase"));
        }
        self.last_seq = Some(frame.seq);
        if !frame.lease.is_empty() {
            self.adopt(&frame.lease).await?;
        }
        if !frame.form.is_empty() {
            self.form = read_form(&frame.form, &self.bodies.forms)?;
        }
        if !frame.slots.is_empty() {
            self.name_slots(&frame.slots)?;
        }
        let active = self.lease.as_ref().ok_or(Error::Lease("none was sent"))?;
        if frame.tokens == 0 {
            if !frame.bodies.is_empty() {
                return Err(malformed("bodies", "none with tokens = 0", "some"));
            }
            return Ok(BodyReply { seq: frame.seq, ..BodyReply::default() });
        }
        let start = Instant::now();
        if frame.tokens > 1 {
            self.bodies.priority.note_foreground();
        }
        let replies = self.product(active, &frame).await.inspect_err(|error| {
            if matches!(error, Error::SlotReused) {
                self.bodies.common.metrics.slots_reused.inc();
            }
        })?;
        if frame.tokens > 1 {
            self.bodies.priority.note_foreground();
        }
        let spent = start.elapsed();
        self.bodies.common.metrics.body_frames.inc();
        self.bodies.common.metrics.body_tokens.inc_by(u64::from(frame.tokens));
        self.bodies.common.metrics.body_seconds.observe(spent.as_secs_f64());
        Ok(BodyReply { seq: frame.seq, replies, compute_us: spent.as_micros() as u32 })
    }

    /// Takes another lease into use.
    async fn adopt(&mut self, bytes: &[u8]) -> Result<()> {
        let metered = self.bodies.common.accounts.verify(bytes)?;
        let lease = metered.lease();
        let model = Arc::clone(self.bodies.common.models.find(&lease.digest)?);
        let credential = lease.credential;
        let before = match self.lease.take() {
            Some(old) => Some((old.metered.lease().credential, old._place)),
            None => self.opened_by.take(),
        };
        let place = match before {
            Some((same, place)) if same == credential => place,
            _ => self.bodies.streams_of.enter(credential)?,
        };
        let weights = model.weights().await?;
        self.auth.introduce(credential);
        self.lease = Some(Active { metered, model, weights, _place: place });
        Ok(())
    }

    /// Finds the slots of this frame and those that follow; answers under the ones before are acknowledged by it.
    fn name_slots(&mut self, ranges: &[SlotRange]) -> Result<()> {
        let active = self.lease.as_ref().ok_or(Error::Lease("none was sent"))?;
        let lease = active.metered.lease();
        if ranges.len() > limits::MAX_SLOT_RANGES {
            let (got, limit) = (ranges.len() as u64, limits::MAX_SLOT_RANGES as u64);
            return Err(Error::TooLong { field: "slots", got, limit });
        }
        let mut named = NamedSlots::default();
        for range in ranges {
            let batch = self.bodies.kept.find((lease.credential, BatchId::from_wire(&range.batch_id)?))?;
            if *batch.model() != lease.digest {
                return Err(Error::Lease("for another model"));
            }
            let (first, count) = (range.first as usize, range.count as usize);
            let within = first.saturating_add(count) <= active.model.info.tau;
            if count == 0 || !within || named.len() + count > limits::MAX_TOKENS_PER_BODY as usize {
                let expected = format!("slots below {}, one for each token", active.model.info.tau);
                return Err(malformed("slots", expected, format!("{count} from {first} on")));
            }
            named.push(batch, first, count);
        }
        self.named.acknowledge(&self.bodies.kept, &named);
        self.named = Arc::new(named);
        Ok(())
    }

    /// Checks, meters and multiplies.
    async fn product(&self, active: &Active, frame: &BodyRequest) -> Result<Bytes> {
        let (round, tokens) = (frame.round as usize, frame.tokens as usize);
        if frame.tokens > limits::MAX_TOKENS_PER_BODY {
            let (got, limit) = (u64::from(frame.tokens), u64::from(limits::MAX_TOKENS_PER_BODY));
            return Err(Error::TooLong { field: "tokens", got, limit });
        }
        let rounds = &active.model.info.rounds;
        let shape = rounds
            .get(round)
            .ok_or_else(|| malformed("round", format!("less than {}", rounds.len()), round.to_string()))?;
        let expected = active.weights.body_bytes(self.form, round) * tokens;
        if frame.bodies.len() != expected {
            let got = format!("{} bytes", frame.bodies.len());
            return Err(malformed("bodies", format!("{expected} bytes"), got));
        }
        active.metered.use_bodies(round, u64::from(frame.tokens))?;
        self.named.batches().iter().for_each(|batch| self.bodies.kept.touch(batch));
        if shape.weights.saturating_mul(tokens) <= INLINE_MULTIPLY_ADDS {
            return active.weights.answer(self.form, round, tokens, &frame.bodies, &self.named);
        }
        self.product_on_pool(Arc::clone(&active.weights), round, tokens, frame.bodies.clone()).await
    }

    async fn product_on_pool(
        &self,
        weights: Arc<Weights>,
        round: usize,
        tokens: usize,
        bodies: Bytes,
    ) -> Result<Bytes> {
        let ticket = QueuePermit::enter(&self.bodies.queued)?;
        let (sender, receiver) = oneshot::channel();
        let (form, named) = (self.form, Arc::clone(&self.named));
        self.bodies.pool.spawn(move || {
            let _ticket = ticket;
            // The stream was dropped while the product waited.
            if sender.is_closed() {
                return;
            }
            sender.send(weights.answer(form, round, tokens, &bodies, &named)).ok();
        });
        receiver.await.map_err(|_| Error::Internal("a body product panicked".to_owned()))?
    }
}

/// Ends when a stream without frames should: after a long time, or soon when the server drains. A pass under way sends
/// its next frame earlier.
async fn idle(drain: &mut watch::Receiver<bool>, patience: Duration) -> Error {
    let draining = async {
        drain.wait_for(|draining| *draining).await.ok();
        tokio::time::sleep(DRAIN_PATIENCE).await;
    };
    match tokio::time::timeout(patience, draining).await {
        Ok(()) => Error::ShuttingDown,
        Err(_) => Error::Cancelled,
    }
}

/// A product that waits for a core or runs.
struct QueuePermit(Arc<AtomicUsize>);

impl QueuePermit {
    fn enter(count: &Arc<AtomicUsize>) -> Result<Self> {
        let queued = Self(Arc::clone(count));
        if count.fetch_add(1, Ordering::Relaxed) >= limits::MAX_QUEUED_BODIES {
            let retry_after = Duration::from_millis(100);
            return Err(Error::Busy { what: "the queue of body products", retry_after });
        }
        Ok(queued)
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The wire form that a peer names, if it is one of those on offer.
///
/// # Errors
/// [`Error::Malformed`].
pub(crate) fn read_form(text: &str, offered: &[&str]) -> Result<WireForm> {
    let form = if text.len() <= limits::MAX_FORM_BYTES { text.parse::<WireForm>().ok() } else { None };
    form.filter(|form| offered.contains(&form.name()))
        .ok_or_else(|| malformed("form", format!("one of {}", offered.join(", ")), "another"))
}

fn malformed(field: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Error {
    Error::Malformed { field, expected: expected.into(), got: got.into() }
}
