//! A socket whose reader stays awake while the other side is about to answer.
//!
//! A thread that sleeps in the kernel is woken some 30 to 50 us after its bytes arrived on a virtual machine whose core went
//! idle meanwhile. In a pass that happens twice per round trip, 120 times per token. A reader that looks again and again for a
//! few hundred microseconds pays nothing of it (measurements: `docs/benchmarks.md`).

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
        self.soon = false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A socket as both sides use it, and its peer.
    fn pair() -> (EagerSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        (EagerSocket::new(socket), peer)
    }

    #[test]
    fn bytes_come_through_awake_or_asleep() {
        let (mut socket, mut peer) = pair();
        let mut out = [0; 4];
        for (soon, bytes) in [(false, b"abcd"), (true, b"efgh"), (false, b"ijkl")] {
            socket.soon = soon;
            peer.write_all(bytes).unwrap();
            socket.read_exact(&mut out).unwrap();
            assert_eq!(&out, bytes);
        }
        socket.write_all(b"back").unwrap();
        peer.read_exact(&mut out).unwrap();
        assert_eq!(&out, b"back");
    }

    #[test]
    fn a_long_wait_ends_in_the_time_out_and_is_not_looked_for_again() {
        let (mut socket, _peer) = pair();
        socket.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket.soon = true;
        let kind = socket.read(&mut [0; 4]).unwrap_err().kind();
        assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
        assert!(!socket.soon, "a peer that lets wait is slept for");
    }

    #[test]
    fn the_end_is_seen_awake_and_asleep() {
        for soon in [false, true] {
            let (mut socket, peer) = pair();
            drop(peer);
            socket.soon = soon;
            assert_eq!(socket.read(&mut [0; 4]).unwrap(), 0);
        }
    }
}
