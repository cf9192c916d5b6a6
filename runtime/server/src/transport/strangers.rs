//! Connections whose peer has not introduced itself yet: few, and the oldest goes when a new one comes.
//!
//! Refusing new strangers instead would let silent peers keep everyone out. A client shows its credential within a few
//! round trips, so it needs its place only for moments; a peer that stays silent loses it to the next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The strangers of a server.
pub(crate) struct Strangers {
    limit: usize,
    per_address: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// By arrival.
    places: BTreeMap<u64, Stranger>,
}

struct Stranger {
    address: IpAddr,
    /// Dropped to evict the connection.
    _stays: oneshot::Sender<()>,
}

/// A stranger's place; given up when dropped.
pub(crate) struct StrangerPlace {
    strangers: Arc<Strangers>,
    number: u64,
}

impl Strangers {
    pub(crate) fn new(limit: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { limit, per_address, waiting: Mutex::default() })
    }

    /// A place for a connection from `address`, and what ends when it is evicted. The oldest stranger of the address, or
    /// the oldest of all, makes room.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> (StrangerPlace, oneshot::Receiver<()>) {
        let address = network(address);
        let (stays, evicted) = oneshot::channel();
        let mut waiting = self.lock();
        let of_address = || waiting.places.iter().filter(|(_, stranger)| stranger.address == address);
        let oldest = if of_address().count() >= self.per_address {
            of_address().next().map(|(&number, _)| number)
        } else if waiting.places.len() >= self.limit {
            waiting.places.keys().next().copied()
        } else {
            None
        };
        if let Some(oldest) = oldest {
            waiting.places.remove(&oldest);
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.insert(number, Stranger { address, _stays: stays });
        drop(waiting);
        (StrangerPlace { strangers: Arc::clone(self), number }, evicted)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StrangerPlace {
    fn drop(&mut self) {
        self.strangers.lock().places.remove(&self.number);
    }
}

/// What counts as one address: a host in IPv4, a /64 in IPv6, where one host has many.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(evicted: &mut oneshot::Receiver<()>) -> bool {
        !matches!(evicted.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    #[test]
    fn the_oldest_makes_room() {
        let strangers = Strangers::new(3, 2);
        let enter = |address: &str| strangers.enter(address.parse().unwrap());
        let mut first = enter("10.0.0.1");
        let mut second = enter("10.0.0.2");
        let mut third = enter("10.0.0.2");
        let mut fourth = enter("10.0.0.2");
        assert!(is_evicted(&mut second.1) && !is_evicted(&mut first.1), "its own address makes room");
        let _fifth = enter("10.0.0.3");
        assert!(is_evicted(&mut first.1) && !is_evicted(&mut third.1), "then the oldest of all");
        drop(third);
        let _sixth = enter("10.0.0.4");
        assert!(!is_evicted(&mut fourth.1));
    }

    #[test]
    fn addresses_of_one_host_are_one() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::2:3") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1") && !same("10.0.0.1", "10.0.0.2"));
    }
}
