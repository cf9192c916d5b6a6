//! Links by name.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use sotto::links::LinkProfile;

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shape {
    /// Delay of every packet.
    pub delay: Duration,
    /// Delay on top, uniform from 0 to this; packets stay in order.
    pub jitter: Duration,
    /// Bits per second, those of IP packets.
    pub bits_per_second: f64,
    /// Bytes that wait for the link at most; what comes then is dropped.
    pub queue_bytes: usize,
    /// Share of packets that are lost.
    pub loss: f64,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// From client to server.
    pub up: Shape,
    /// From server to client.
    pub down: Shape,
}

/// Smallest queue: some packets, whatever the rate.
const SMALLEST_QUEUE: f64 = 64_000.0;

impl Profile {
    fn new(link: &LinkProfile) -> Self {
        let side = |mbit: f64| Shape {
            delay: Duration::from_secs_f64(link.rtt_ms / 2e3),
            // As on a quiet line: a fiftieth of the round trip.
            jitter: Duration::from_secs_f64(link.rtt_ms / 50e3),
            bits_per_second: mbit * 1e6,
            // A router's buffer of 50 ms.
            queue_bytes: (mbit * 1e6 / 8.0 * 0.05).max(SMALLEST_QUEUE) as usize,
            loss: link.loss,
        };
        Self { name: link.name.to_owned(), up: side(link.up_mbit), down: side(link.down_mbit) }
    }

    /// The round trip without jitter and queues.
    pub fn round_trip(&self) -> Duration {
        self.up.delay + self.down.delay
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        name.parse().map(|link| Self::new(&link))
    }
}
