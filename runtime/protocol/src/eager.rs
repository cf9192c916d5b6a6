//! A socket whose reader stays awake while the other side is about to answer.
//!
//! A thread that sleeps in the kernel is woken some 30 to 50 us after its bytes arrived on a virtual machine whose core went
//! idle meanwhile. In a pass that happens twice per round trip, 120 times per token. A reader that looks again and again for a
//! few hundred microseconds pays nothing of it (`docs/benchmarks.md`, round trips).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

/// How long a read looks before it sleeps. Longer than the product of a token's largest round and the client's work
/// between two rounds on loopback, shorter than any round trip over a network.
const LOOK_FOR: Duration = Duration::from_micros(300);

/// A blocking TCP socket. Its reads look for bytes for up to 300 us before they sleep, provided the
/// last one did not have to wait longer than that; so a peer far away, or one that pauses, costs no more than one such look.
#[derive(Debug)]
pub struct EagerSocket {
    socket: TcpStream,
    /// The last wait was short.
    soon: bool,
}

impl EagerSocket {
    /// Wraps `socket`, which stays as it is otherwise: blocking, with its time-outs.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, soon: false }
    }

    /// What the kernel holds for this socket already; `None` if that is nothing.
    fn available(&self, out: &mut [u8]) -> std::io::Result<Option<usize>> {
        match rustix::net::recv(&self.socket, out, RecvFlags::DONTWAIT) {
            Ok((count, _)) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for EagerSocket {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let start = Instant::now();
        while self.soon && start.elapsed() < LOOK_FOR {
            if let Some(count) = self.available(out)? {
                return Ok(count);
            }
            std::hint::spin_loop();
        }
        let count = self.socket.read(out)?;
        self.soon = start.elapsed() < LOOK_FOR;
        Ok(count)
    }
}

impl Write for EagerSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}
