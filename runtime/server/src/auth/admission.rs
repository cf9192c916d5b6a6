//! Bounded counts of what peers can hold open.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::auth::credentials::CredentialId;
use sotto_protocol::error::{Error, Result};

/// A count with a limit; a [`Place`] is taken until it is dropped.
pub(crate) struct Bounded {
    what: &'static str,
    limit: usize,
    taken: AtomicUsize,
}

impl Bounded {
    pub(crate) fn new(what: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self { what, limit, taken: AtomicUsize::new(0) })
    }

    /// # Errors
    /// [`Error::Busy`] if every place is taken.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Place> {
        let place = Place(Arc::clone(self));
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.limit {
            Ok(place)
        } else {
            // Dropping `place` takes the count back.
            Err(Error::Busy { what: self.what, retry_after: Duration::from_millis(200) })
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// One place of a [`Bounded`].
pub(crate) struct Place(Arc<Bounded>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A [`Bounded`] for each credential.
pub(crate) type PerCredential = PerKey<CredentialId>;

/// A [`Bounded`] for each key that has places taken.
pub(crate) struct PerKey<K> {
    what: &'static str,
    limit: usize,
    counts: Mutex<HashMap<K, Arc<Bounded>>>,
}

impl<K: Eq + Hash> PerKey<K> {
    pub(crate) fn new(what: &'static str, limit: usize) -> Self {
        Self { what, limit, counts: Mutex::default() }
    }

    /// # Errors
    /// [`Error::Busy`] if every place of this key is taken.
    pub(crate) fn enter(&self, key: K) -> Result<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|_, bounded| bounded.taken() > 0);
        counts.entry(key).or_insert_with(|| Bounded::new(self.what, self.limit)).enter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let per = PerCredential::new("streams", 1);
        let first = per.enter(CredentialId([1; 8])).unwrap();
        assert!(matches!(per.enter(CredentialId([1; 8])), Err(Error::Busy { .. })));
        let _other = per.enter(CredentialId([2; 8])).unwrap();
        drop(first);
        per.enter(CredentialId([1; 8])).unwrap();
    }
}
