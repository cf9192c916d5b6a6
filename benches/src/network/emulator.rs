//! The link: packets from one device to the other, each at its time.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::namespaces::MTU;
use super::profile::{Profile, Shape};

/// What one direction carried.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that arrived.
    pub packets: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Packets that were lost as the profile says.
    pub lost: AtomicU64,
    /// Packets for which the queue had no room.
    pub dropped: AtomicU64,
}

/// Joins two devices; the threads live as long as the process.
///
/// # Errors
/// If a thread cannot be started.
pub(super) fn join(
    client: tun::Device,
    server: tun::Device,
    profile: &Profile,
    seed: u64,
) -> std::io::Result<[Arc<Counts>; 2]> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    Ok([
        direction("link-up", from_client, to_server, profile.up, seed)?,
        direction("link-down", from_server, to_client, profile.down, seed ^ 0x5eed)?,
    ])
}

/// When packets leave a link of limited rate.
pub(super) struct Line {
    shape: Shape,
    random: StdRng,
    /// When the link has sent everything so far.
    free: Instant,
    /// When the last packet arrives.
    last: Instant,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives then.
    Arrives(Instant),
    Lost,
    /// The queue is full.
    Dropped,
}

impl Line {
    pub(super) fn new(shape: Shape, seed: u64, now: Instant) -> Self {
        Self { shape, random: StdRng::seed_from_u64(seed), free: now, last: now }
    }

    /// A packet of `bytes` comes at `now`.
    pub(super) fn send(&mut self, bytes: usize, now: Instant) -> Fate {
        let of_bytes =
            |bytes: usize| Duration::from_secs_f64(bytes as f64 * 8.0 / self.shape.bits_per_second);
        let waiting = self.free.saturating_duration_since(now);
        if waiting + of_bytes(bytes) > of_bytes(self.shape.queue_bytes) {
            return Fate::Dropped;
        }
        self.free = self.free.max(now) + of_bytes(bytes);
        // Drawn for each packet, so that the fate of one does not depend on the profile's other figures.
        let (lost, jitter) = (self.random.random::<f64>() < self.shape.loss, self.random.random::<f64>());
        if lost {
            return Fate::Lost;
        }
        let due = self.free + self.shape.delay + self.shape.jitter.mul_f64(jitter);
        self.last = self.last.max(due);
        Fate::Arrives(self.last)
    }
}

/// Packets on their way, in the order of their arrival.
type OnTheWay = (Mutex<VecDeque<(Instant, Vec<u8>)>>, Condvar);

fn direction(
    name: &str,
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    shape: Shape,
    seed: u64,
) -> std::io::Result<Arc<Counts>> {
    let counts = Arc::new(Counts::default());
    let way: Arc<OnTheWay> = Arc::default();
    let (sending, arriving) = (Arc::clone(&way), way);
    let (counted, arrived) = (Arc::clone(&counts), Arc::clone(&counts));
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut line = Line::new(shape, seed, Instant::now());
        let mut packet = vec![0; usize::from(MTU) + 64];
        while let Ok(count @ 1..) = from.read(&mut packet) {
            match line.send(count, Instant::now()) {
                Fate::Arrives(due) => {
                    let mut queue = sending.0.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.push_back((due, packet[..count].to_vec()));
                    if queue.len() == 1 {
                        sending.1.notify_one();
                    }
                }
                Fate::Lost => drop(counted.lost.fetch_add(1, Ordering::Relaxed)),
                Fate::Dropped => drop(counted.dropped.fetch_add(1, Ordering::Relaxed)),
            }
        }
    })?;
    thread::Builder::new().name(format!("{name}-out")).spawn(move || {
        loop {
            let (due, packet) = {
                let mut queue = arriving.0.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    match queue.pop_front() {
                        Some(next) => break next,
                        None => queue = arriving.1.wait(queue).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A device that is down drops it, as a network would.
            if to.write_all(&packet).is_ok() {
                arrived.packets.fetch_add(1, Ordering::Relaxed);
                arrived.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
        }
    })?;
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            bits_per_second: 8e6,
            queue_bytes: 10_000,
            loss: 0.0,
        }
    }

    #[test]
    fn packets_wait_for_each_other_and_the_queue_is_bounded() {
        let start = Instant::now();
        let mut line = Line::new(shape(), 1, start);
        let ms = |count: u64| start + Duration::from_millis(count);
        // 1000 bytes at a megabyte per second: one millisecond each.
        for sent in 1..=10 {
            assert_eq!(line.send(1000, start), Fate::Arrives(ms(10 + sent)));
        }
        assert_eq!(line.send(1000, start), Fate::Dropped);
        assert_eq!(line.send(1000, ms(1)), Fate::Arrives(ms(21)), "one has left");
        assert_eq!(line.send(1000, ms(100)), Fate::Arrives(ms(111)), "an idle link");
    }

    #[test]
    fn losses_and_jitter_follow_from_the_seed_and_keep_the_order() {
        let start = Instant::now();
        let run = |seed| {
            let jittery =
                Shape { jitter: Duration::from_millis(5), loss: 0.1, bits_per_second: 1e9, ..shape() };
            let mut line = Line::new(jittery, seed, start);
            (0..2000)
                .map(|sent| line.send(100, start + Duration::from_micros(100 * sent)))
                .collect::<Vec<_>>()
        };
        let (first, again, other) = (run(7), run(7), run(8));
        assert!(first == again && first != other);
        let lost = first.iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((130..270).contains(&lost), "{lost} of 2000");
        let arrivals: Vec<Instant> = first
            .iter()
            .filter_map(|fate| match fate {
                Fate::Arrives(due) => Some(*due),
                _ => None,
            })
            .collect();
        assert!(arrivals.is_sorted());
    }
}
