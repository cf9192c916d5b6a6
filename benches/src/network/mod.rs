//! A network to measure on: kernel TCP between two network namespaces, joined by a link with delay, rate, queue and loss.
//!
//! Each namespace has a TUN device, and the emulator carries packets from one to the other. Nothing ends connections on the
//! way, so what TCP makes of a link is in every figure. It needs root; without it [`crate::link`] relays bytes instead.

mod emulator;
mod namespaces;
mod profile;
mod server;

use std::sync::Arc;

use anyhow::Context;

pub use emulator::Counts;
pub use namespaces::Namespace;
pub use profile::{Profile, Shape};
pub use server::{NetworkServer, command_in, self_program};

/// Address of the client's side.
const CLIENT: &str = "10.77.0.1";

/// Address of the server's side.
const SERVER: &str = "10.77.0.2";

/// Two namespaces and the link between them; both go when this is dropped.
pub struct Network {
    /// Where the client runs.
    pub client: Namespace,
    /// Where the server runs.
    pub server: Namespace,
    /// What the link carried so far, towards the server and back.
    pub counts: [Arc<Counts>; 2],
}

impl Network {
    /// Whether this process may make namespaces and TUN devices.
    pub fn is_possible() -> bool {
        rustix::process::geteuid().is_root() && std::path::Path::new("/dev/net/tun").exists()
    }

    /// Makes the network; losses and jitter follow from `seed`.
    ///
    /// # Errors
    /// If `ip` fails or a device cannot be opened.
    pub fn start(profile: &Profile, seed: u64) -> anyhow::Result<Self> {
        let process = std::process::id();
        let client = Namespace::create(&format!("sotto-c{process}"))?;
        let server = Namespace::create(&format!("sotto-s{process}"))?;
        let up = client.open_tun(CLIENT, SERVER).context("the client's TUN device")?;
        let down = server.open_tun(SERVER, CLIENT).context("the server's TUN device")?;
        let counts = emulator::join(up, down, profile, seed)?;
        Ok(Self { client, server, counts })
    }

    /// The address at which a server of the server's namespace listens.
    pub fn listen_address(&self) -> String {
        format!("{SERVER}:0")
    }
}
