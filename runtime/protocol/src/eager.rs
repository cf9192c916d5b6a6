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

/// Most bytes sent after which an answer is looked for: a frame of one token, or of a few. Those of a prompt keep both sides' thread
/// pools busy for longer, and a thread that looks takes a core from them (first token of 64: 370 ms instead of 280).
const FEW_BYTES: usize = 32 << 10;

/// A blocking TCP socket. The first read after a short frame was sent looks for bytes for up to 300 us before it sleeps,
/// provided the last such wait was not longer than that. So a peer that is far away or pauses costs one such look, and one that
/// sends byte by byte, or was never answered, none.
#[derive(Debug)]
pub struct EagerSocket {
    socket: TcpStream,
    /// Bytes sent since the last read.
    sent: usize,
    /// The last wait for an answer was short.
    soon: bool,
}

impl EagerSocket {
    /// Wraps `socket`, which stays as it is otherwise: blocking, with its time-outs.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, sent: 0, soon: false }
    }

    /// What the kernel holds for this socket already; `None` if that is nothing.
    fn available(&self, out: &mut [u8]) -> std::io::Result<Option<usize>> {
        match rustix::net::recv(&self.socket, out, RecvFlags::DONTWAIT) {
            Ok((count, _)) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the next read looks before it sleeps.
    fn looks(&self) -> bool {
        self.soon && (1..=FEW_BYTES).contains(&self.sent)
    }

    /// The first read after something was sent: what it waits for is an answer.
    fn read_answer(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let look = self.looks();
        self.sent = 0;
        let start = Instant::now();
        while look && start.elapsed() < LOOK_FOR {
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

impl Read for EagerSocket {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.sent == 0 { self.socket.read(out) } else { self.read_answer(out) }
    }
}

impl Write for EagerSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.socket.write(bytes)?;
        self.sent = self.sent.saturating_add(count);
        Ok(count)
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
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        (EagerSocket::new(socket), peer)
    }

    #[test]
    fn bytes_come_through_awake_and_asleep() {
        let (mut socket, mut peer) = pair();
        let mut out = [0; 4];
        for (soon, sent, bytes) in [(false, 0, b"abcd"), (true, 9, b"efgh"), (true, FEW_BYTES + 1, b"ijkl")] {
            (socket.soon, socket.sent) = (soon, sent);
            peer.write_all(bytes).unwrap();
            socket.read_exact(&mut out).unwrap();
            assert_eq!((&out, socket.sent), (bytes, 0));
        }
        socket.write_all(b"back").unwrap();
        peer.read_exact(&mut out).unwrap();
        assert_eq!((&out, socket.sent), (b"back", 4), "the next read waits for an answer");
    }

    #[test]
    fn only_the_answer_to_a_short_frame_is_looked_for_and_once() {
        let (mut socket, mut peer) = pair();
        let mut out = [0; 4];
        assert!(!socket.looks(), "a peer that was sent nothing, as every stranger is");
        socket.soon = true;
        assert!(!socket.looks());
        socket.write_all(&[0; FEW_BYTES]).unwrap();
        assert!(socket.looks());
        peer.write_all(b"abcdefgh").unwrap();
        socket.read_exact(&mut out).unwrap();
        assert!(!socket.looks(), "the rest of what comes is not waited for awake");
        socket.read_exact(&mut out).unwrap();
        socket.write_all(&[0; FEW_BYTES + 1]).unwrap();
        assert!(!socket.looks(), "a frame of many tokens");
        socket.sent = 1;
        let kind = socket.read(&mut out).unwrap_err().kind();
        assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
        socket.write_all(b"next").unwrap();
        assert!(!socket.looks(), "a peer that let wait is slept for");
    }

    #[test]
    fn the_end_is_seen_awake_and_asleep() {
        for soon in [false, true] {
            let (mut socket, peer) = pair();
            drop(peer);
            (socket.soon, socket.sent) = (soon, 9);
            assert_eq!(socket.read(&mut [0; 4]).unwrap(), 0);
        }
    }
}
