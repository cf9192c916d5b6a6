//! Which connections are introduced: those that showed a valid credential or lease. Others get little and not for long.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::time::Sleep;
use tonic::Extensions;

use crate::auth::credentials::CredentialId;
use crate::transport::strangers::StrangerPlace;
use sotto_protocol::limits::{INTRODUCTION_TIMEOUT, STRANGER_BYTES, STRANGER_CALLS};

/// Whether a connection has shown a valid credential or lease; its requests carry a copy.
#[derive(Clone, Default)]
pub(crate) struct ConnectionAuth(Arc<Introduction>);

#[derive(Default)]
struct Introduction {
    shown: AtomicBool,
    /// Calls under way that began before that.
    calls: AtomicUsize,
    peer: Mutex<Peer>,
}

#[derive(Default)]
struct Peer {
    credential: Option<CredentialId>,
    /// Held until the introduction.
    place: Option<StrangerPlace>,
}

impl ConnectionAuth {
    fn stranger(place: StrangerPlace) -> Self {
        let peer = Mutex::new(Peer { place: Some(place), ..Peer::default() });
        Self(Arc::new(Introduction { peer, ..Introduction::default() }))
    }

    /// Marks the connection of the request that these extensions belong to: it showed a valid credential or lease of
    /// `credential`.
    pub(crate) fn note_in(extensions: &Extensions, credential: CredentialId) {
        if let Some(auth) = extensions.get::<Self>() {
            auth.introduce(credential);
        }
    }

    /// Marks this connection as one of `credential`.
    pub(crate) fn introduce(&self, credential: CredentialId) {
        let mut peer = self.peer();
        peer.credential = Some(credential);
        // Before the place goes: giving it up looks like an eviction.
        self.0.shown.store(true, Ordering::SeqCst);
        peer.place = None;
    }

    /// The credential that was shown last.
    pub(crate) fn credential(&self) -> Option<CredentialId> {
        self.peer().credential
    }

    pub(crate) fn is_introduced(&self) -> bool {
        self.0.shown.load(Ordering::SeqCst)
    }

    /// Begins a call; `None` if a stranger has as many as it may.
    pub(crate) fn begin_call(&self) -> Option<StrangerCall> {
        let call = StrangerCall(Arc::clone(&self.0));
        let calls = self.0.calls.fetch_add(1, Ordering::SeqCst);
        (calls < STRANGER_CALLS || self.is_introduced()).then_some(call)
    }

    fn peer(&self) -> MutexGuard<'_, Peer> {
        self.0.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way.
pub(crate) struct StrangerCall(Arc<Introduction>);

impl Drop for StrangerCall {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Closes a connection that shows no credential or lease in time, sends much before, or is evicted.
///
/// Connections are bounded and HTTP/2 pings keep one alive: without this limit, silent peers could hold all of them.
pub(crate) struct Probation {
    pub(crate) auth: ConnectionAuth,
    end: Pin<Box<Sleep>>,
    evicted: oneshot::Receiver<()>,
    bytes_left: usize,
}

impl Probation {
    /// Starts the limits for a connection that was opened now.
    ///
    /// # Panics
    /// Outside a tokio runtime with a timer.
    pub(crate) fn new(place: StrangerPlace, evicted: oneshot::Receiver<()>) -> Self {
        let end = Box::pin(tokio::time::sleep(INTRODUCTION_TIMEOUT));
        Self { auth: ConnectionAuth::stranger(place), end, evicted, bytes_left: STRANGER_BYTES }
    }

    /// Counts bytes that the peer sent.
    pub(crate) fn note_received(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// Ready when the connection must be closed. Wakes the task that reads from it, even if the peer is silent.
    pub(crate) fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.auth.is_introduced() {
            return Poll::Pending;
        }
        let ended = self.bytes_left == 0
            || Pin::new(&mut self.evicted).poll(cx).is_ready()
            || self.end.as_mut().poll(cx).is_ready();
        // The introduction may have come between the two looks.
        if ended && !self.auth.is_introduced() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_authenticates_its_own_connection() {
        let (auth, mut extensions) = (ConnectionAuth::default(), Extensions::new());
        let who = CredentialId([1; 8]);
        ConnectionAuth::note_in(&extensions, who);
        assert!(!auth.is_introduced(), "the flag of another connection was set");
        extensions.insert(auth.clone());
        ConnectionAuth::note_in(&extensions, who);
        assert!(auth.is_introduced() && auth.credential() == Some(who));
    }

    #[test]
    fn a_stranger_makes_one_call_at_a_time() {
        let auth = ConnectionAuth::default();
        let first = auth.begin_call().unwrap();
        assert!(auth.begin_call().is_none());
        drop(first);
        let _second = auth.begin_call().unwrap();
        auth.introduce(CredentialId([1; 8]));
        let _third = auth.begin_call().unwrap();
    }
}
