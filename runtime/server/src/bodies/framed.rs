//! Bodies over the framed transport: one thread per stream, which reads, multiplies and writes.
//!
//! No task, queue or flow control lies between the socket and the product. A thread that waits for a frame sleeps in the
//! kernel and wakes every [`LOOK_AROUND`] to see whether the server drains.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use rustls::{ServerConnection, StreamOwned};
use tokio::sync::oneshot;

use crate::auth::admission::Place;
use crate::auth::credentials::CredentialId;
use crate::bodies::{Bodies, BodyStream, DRAIN_PATIENCE, malformed};
use crate::transport::connection_auth::ConnectionAuth;
use crate::transport::grpc_status::{refusal, status};
use crate::transport::strangers::StrangerPlace;
use sotto_protocol::eager::EagerSocket;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::framing::{FrameReader, Incoming, send};
use sotto_protocol::limits;
use sotto_protocol::wire::BodyRequest;

/// How often a thread that waits for a frame looks whether the server drains.
const LOOK_AROUND: Duration = Duration::from_millis(250);

/// A peer that takes nothing of a reply for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts the thread of one framed connection, after its handshake.
///
/// # Errors
/// [`Error::Io`] when the socket or the thread cannot be had; the connection is closed then.
pub(crate) fn start(
    bodies: &Arc<Bodies>,
    socket: TcpStream,
    tls: ServerConnection,
    held: Held,
) -> Result<()> {
    let failed = |source| Error::Io { context: "serve framed bodies".to_owned(), source };
    socket.set_nonblocking(false).map_err(failed)?;
    socket.set_read_timeout(Some(LOOK_AROUND)).map_err(failed)?;
    socket.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let bodies = Arc::clone(bodies);
    let serve = move || {
        let Held { _places, stranger } = held;
        let mut connection = StreamOwned::new(tls, EagerSocket::new(socket));
        let mut scratch = Vec::new();
        let mut reader = FrameReader::default();
        let outcome = introduced(&bodies, &mut reader, &mut connection, stranger).and_then(|first| {
            let Some((first, credential)) = first else { return Ok(()) };
            let mut stream = bodies.enter(ConnectionAuth::default(), credential)?;
            stream.serve(&runtime, first, &mut reader, &mut connection, &mut scratch)
        });
        if let Err(error) = outcome {
            bodies.common.metrics.refused.inc();
            // The peer may be gone already.
            send(&refusal(&status(&error)), true, &mut connection, &mut scratch).ok();
        }
        connection.conn.send_close_notify();
        connection.conn.complete_io(&mut connection.sock).ok();
    };
    std::thread::Builder::new().name("sotto-framed".to_owned()).spawn(serve).map(drop).map_err(failed)
}

/// What a framed connection holds while it lives.
pub(crate) struct Held {
    /// In the counts of the server and of the peer's address.
    pub(crate) _places: [Place; 2],
    /// A stranger's place, until a lease is shown, and what ends when it is evicted.
    pub(crate) stranger: (StrangerPlace, oneshot::Receiver<()>),
}

type Connection = StreamOwned<ServerConnection, EagerSocket>;

/// The first frame, which must show a lease, and whose it is; `None` if the peer left or was evicted before.
fn introduced(
    bodies: &Bodies,
    reader: &mut FrameReader,
    connection: &mut Connection,
    stranger: (StrangerPlace, oneshot::Receiver<()>),
) -> Result<Option<(BodyRequest, CredentialId)>> {
    let (_place, mut evicted) = stranger;
    let start = Instant::now();
    loop {
        match reader.read(connection, limits::STRANGER_BYTES) {
            Ok(Incoming::Message(bytes)) => {
                let frame = decode(bytes)?;
                let credential = bodies.common.accounts.verify(&frame.lease)?.lease().credential;
                return Ok(Some((frame, credential)));
            }
            Ok(Incoming::Pending) => {
                if !matches!(evicted.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                    return Ok(None);
                }
                if bodies.common.lifecycle.is_draining() {
                    return Err(Error::ShuttingDown);
                }
                if start.elapsed() >= limits::FIRST_FRAME_TIMEOUT {
                    return Err(Error::Cancelled);
                }
            }
            Ok(Incoming::Refusal(_)) => return Err(malformed("frame", "a BodyRequest", "a refusal")),
            Ok(Incoming::Closed) | Err(_) => return Ok(None),
        }
    }
}

fn decode(bytes: bytes::Bytes) -> Result<BodyRequest> {
    BodyRequest::decode(bytes).map_err(|_| malformed("frame", "a BodyRequest", "something else"))
}

impl BodyStream {
    /// Answers frames, `first` and those that follow, until the peer closes.
    fn serve(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        first: BodyRequest,
        reader: &mut FrameReader,
        connection: &mut Connection,
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let mut frame = Some(first);
        let (mut since, mut draining_since) = (Instant::now(), None);
        loop {
            if let Some(frame) = frame.take() {
                // A client that never pauses sends no gap to stop in; a pass begins with the first round, and one that has
                // begun is served to its end.
                if frame.round == 0 && *self.drain.borrow() {
                    return Err(Error::ShuttingDown);
                }
                let reply = runtime.block_on(self.answer(frame))?;
                if send(&reply, false, connection, scratch).is_err() {
                    return Ok(());
                }
                since = Instant::now();
            }
            match reader.read(connection, limits::MAX_REQUEST_BYTES) {
                Ok(Incoming::Message(bytes)) => frame = Some(decode(bytes)?),
                Ok(Incoming::Pending) => {
                    if *self.drain.borrow() {
                        // A pass under way sends its next frame earlier.
                        let start: Instant = *draining_since.get_or_insert_with(Instant::now);
                        if start.elapsed() >= DRAIN_PATIENCE {
                            return Err(Error::ShuttingDown);
                        }
                    }
                    // A frame that does not come to an end is a stalled peer's, however long its last one lies back.
                    let patience =
                        if reader.is_within() { limits::STALLED_READER_TIMEOUT } else { self.patience() };
                    if since.elapsed() >= patience {
                        return Err(Error::Cancelled);
                    }
                }
                Ok(Incoming::Refusal(_)) => return Err(malformed("frame", "a BodyRequest", "a refusal")),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    let got = error.to_string();
                    return Err(malformed(
                        "frame",
                        format!("up to {} bytes", limits::MAX_REQUEST_BYTES),
                        got,
                    ));
                }
                Ok(Incoming::Closed) | Err(_) => return Ok(()),
            }
        }
    }
}
