//! The body half online: a frame in, a product, a frame out.
//!
//! A round trip passes through no queue and no second task: the task that reads a stream's frames multiplies small
//! products itself and yields the reply to the same connection. Larger products (prefill) go to the rayon pool, so
//! that a connection's thread is never held for more than [`INLINE_MULTIPLY_ADDS`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::admission::Place;
use super::engine::Weights;
use super::introduction::Introduction;
use super::leases::MeteredLease;
use super::refusal::status;
use super::registry::Model;
use crate::error::{Error, Result};
use crate::limits;
use crate::protocol::wire::bodies_server::Bodies;
use crate::protocol::wire::{BodyReply, BodyRequest};

/// Products up to this many multiply-adds are computed on the connection's own thread: at 10 per nanosecond about
/// 0.4 ms, against some 20 us for a hand-off in each direction.
const INLINE_MULTIPLY_ADDS: usize = 4 << 20;

/// How long a draining server waits for a stream's next frame.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// The gRPC service.
pub(crate) struct BodiesService {
    shared: Arc<Shared>,
    pool: Arc<rayon::ThreadPool>,
    queued: Arc<AtomicUsize>,
}

impl BodiesService {
    pub(crate) fn new(shared: Arc<Shared>, pool: Arc<rayon::ThreadPool>) -> Self {
        Self { shared, pool, queued: Arc::default() }
    }
}

#[tonic::async_trait]
impl Bodies for BodiesService {
    type StreamStream = std::pin::Pin<Box<dyn Stream<Item = std::result::Result<BodyReply, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<BodyRequest>>,
    ) -> std::result::Result<Response<Self::StreamStream>, Status> {
        let place = self.shared.body_streams.enter().map_err(|error| status(&error))?;
        self.shared.metrics.body_streams.inc();
        let session = Session {
            shared: Arc::clone(&self.shared),
            pool: Arc::clone(&self.pool),
            queued: Arc::clone(&self.queued),
            drain: self.shared.drain_signal(),
            introduction: request.extensions().get().cloned().unwrap_or_default(),
            lease: None,
            last_seq: None,
            _place: place,
        };
        let replies = futures::stream::unfold(Some((request.into_inner(), session)), |state| async {
            let (mut frames, mut session) = state?;
            match session.next(&mut frames).await {
                Ok(Some(reply)) => Some((Ok(reply), Some((frames, session)))),
                Ok(None) => None,
                Err(error) => {
                    session.shared.metrics.refused.inc();
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
struct Session {
    shared: Arc<Shared>,
    pool: Arc<rayon::ThreadPool>,
    queued: Arc<AtomicUsize>,
    drain: watch::Receiver<bool>,
    introduction: Introduction,
    lease: Option<Active>,
    last_seq: Option<u64>,
    _place: Place,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.metrics.body_streams.dec();
    }
}

impl Session {
    /// Reads a frame and answers it; `None` at the end of the stream.
    async fn next(&mut self, frames: &mut Streaming<BodyRequest>) -> Result<Option<BodyReply>> {
        let patience =
            if self.lease.is_some() { limits::BODY_STREAM_IDLE_TIMEOUT } else { limits::FIRST_FRAME_TIMEOUT };
        let frame = tokio::select! {
            biased;
            frame = frames.message() => match frame {
                Ok(Some(frame)) => frame,
                // The peer is gone or broke the framing; tonic has told it already.
                Ok(None) | Err(_) => return Ok(None),
            },
            error = idle(&mut self.drain, patience) => return Err(error),
        };
        if self.last_seq.is_some_and(|last| frame.seq <= last) {
            return Err(malformed("seq", "an increasing number", "one that does not increase"));
        }
        self.last_seq = Some(frame.seq);
        if !frame.lease.is_empty() {
            self.adopt(&frame.lease).await?;
        }
        let active = self.lease.as_ref().ok_or(Error::Lease("none was sent"))?;
        if frame.tokens == 0 {
            if !frame.bodies.is_empty() {
                return Err(malformed("bodies", "none with tokens = 0", "some"));
            }
            return Ok(Some(BodyReply { seq: frame.seq, ..BodyReply::default() }));
        }
        let start = Instant::now();
        if frame.tokens > 1 {
            self.shared.foreground.mark();
        }
        let replies = self.product(active, &frame).await?;
        if frame.tokens > 1 {
            self.shared.foreground.mark();
        }
        let spent = start.elapsed();
        self.shared.metrics.body_frames.inc();
        self.shared.metrics.body_tokens.inc_by(u64::from(frame.tokens));
        self.shared.metrics.body_seconds.observe(spent.as_secs_f64());
        Ok(Some(BodyReply { seq: frame.seq, replies, compute_us: spent.as_micros() as u32 }))
    }

    /// Takes another lease into use.
    async fn adopt(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > limits::MAX_LEASE_BYTES {
            return Err(Error::Lease("malformed"));
        }
        let metered = self.shared.leases.verify(bytes, None)?;
        let lease = metered.lease();
        let model = Arc::clone(self.shared.registry.find(&lease.digest)?);
        let credential = lease.credential;
        let same = self.lease.as_ref().is_some_and(|old| old.metered.lease().credential == credential);
        let place = match self.lease.take() {
            Some(old) if same => old._place,
            _ => self.shared.body_streams_of.enter(credential)?,
        };
        let weights = model.weights().await?;
        self.introduction.make();
        self.lease = Some(Active { metered, model, weights, _place: place });
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
        let expected = active.weights.body_bytes(round) * tokens;
        if frame.bodies.len() != expected {
            let got = format!("{} bytes", frame.bodies.len());
            return Err(malformed("bodies", format!("{expected} bytes"), got));
        }
        active.metered.use_bodies(round, u64::from(frame.tokens))?;
        if shape.weights.saturating_mul(tokens) <= INLINE_MULTIPLY_ADDS {
            return active.weights.bodies(round, tokens, &frame.bodies);
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
        let ticket = Queued::enter(&self.queued)?;
        let (sender, receiver) = oneshot::channel();
        self.pool.spawn(move || {
            let _ticket = ticket;
            // The stream was dropped while the product waited.
            if sender.is_closed() {
                return;
            }
            sender.send(weights.bodies(round, tokens, &bodies)).ok();
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
struct Queued(Arc<AtomicUsize>);

impl Queued {
    fn enter(count: &Arc<AtomicUsize>) -> Result<Self> {
        let queued = Self(Arc::clone(count));
        if count.fetch_add(1, Ordering::Relaxed) >= limits::MAX_QUEUED_BODIES {
            let retry_after = Duration::from_millis(100);
            return Err(Error::Busy { what: "the queue of body products", retry_after });
        }
        Ok(queued)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn malformed(field: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Error {
    Error::Malformed { field, expected: expected.into(), got: got.into() }
}
