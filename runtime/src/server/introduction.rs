//! Which connections somebody vouches for: those that showed a credential or a lease.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::time::Sleep;
use tonic::Extensions;

use crate::limits::INTRODUCTION_TIMEOUT;

/// Whether a connection has introduced itself; its requests carry a copy.
#[derive(Clone, Default)]
pub(crate) struct Introduction(Arc<AtomicBool>);

impl Introduction {
    /// A request with these extensions showed a credential or a lease that holds.
    pub(crate) fn was_made(extensions: &Extensions) {
        if let Some(introduction) = extensions.get::<Self>() {
            introduction.make();
        }
    }

    /// The connection showed one.
    pub(crate) fn make(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a connection may go without an introduction.
///
/// Places are few, and pings alone keep a connection: without this, peers that have nothing to say could hold them all.
pub(crate) struct Probation {
    pub(crate) introduction: Introduction,
    end: Pin<Box<Sleep>>,
}

impl Probation {
    /// Of a connection that was opened now.
    ///
    /// # Panics
    /// Outside a tokio runtime with a timer.
    pub(crate) fn new() -> Self {
        let end = Box::pin(tokio::time::sleep(INTRODUCTION_TIMEOUT));
        Self { introduction: Introduction::default(), end }
    }

    /// Ready when the connection is to be ended. Whoever reads from it is woken then, however silent it is.
    pub(crate) fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.introduction.is_made() { Poll::Pending } else { self.end.as_mut().poll(cx) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_introduces_its_own_connection() {
        let (introduction, mut extensions) = (Introduction::default(), Extensions::new());
        Introduction::was_made(&extensions);
        assert!(!introduction.is_made(), "that was another connection's");
        extensions.insert(introduction.clone());
        Introduction::was_made(&extensions);
        assert!(introduction.is_made());
    }
}
