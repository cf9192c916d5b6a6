//! Links by name, for estimates and measurements.

use std::str::FromStr;

use serde::Serialize;

/// A link between a client and its server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LinkProfile {
    /// Its name.
    pub name: &'static str,
    /// Round trip, in milliseconds.
    pub rtt_ms: f64,
    /// Towards the server, in Mbit/s.
    pub up_mbit: f64,
    /// From the server, in Mbit/s.
    pub down_mbit: f64,
    /// Share of packets that are lost.
    pub loss: f64,
}

/// All of them.
pub const LINKS: &[LinkProfile] = &[
    LinkProfile { name: "lan", rtt_ms: 0.5, up_mbit: 1000.0, down_mbit: 1000.0, loss: 0.0 },
    LinkProfile { name: "metro", rtt_ms: 5.0, up_mbit: 200.0, down_mbit: 200.0, loss: 0.0 },
    LinkProfile { name: "country", rtt_ms: 20.0, up_mbit: 100.0, down_mbit: 100.0, loss: 0.0 },
    LinkProfile { name: "home", rtt_ms: 30.0, up_mbit: 40.0, down_mbit: 100.0, loss: 0.0 },
    LinkProfile { name: "ocean", rtt_ms: 80.0, up_mbit: 100.0, down_mbit: 100.0, loss: 0.001 },
];

impl FromStr for LinkProfile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        LINKS.iter().find(|link| link.name == text).copied().ok_or_else(|| {
            let names: Vec<&str> = LINKS.iter().map(|link| link.name).collect();
            format!("{text:?} is none of {}", names.join(", "))
        })
    }
}
