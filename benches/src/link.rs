//! A slow link on loopback: a TCP proxy that delays and throttles each direction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes read at once; small enough that throttling is smooth.
const CHUNK_BYTES: usize = 16 << 10;

/// Chunks on their way per direction: more than any bandwidth-delay product measured here.
const CHUNKS_IN_FLIGHT: usize = 4096;

/// Properties of the link, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Round-trip time added.
    pub rtt: Duration,
    /// Speed limit in bits per second; unlimited when absent.
    pub bits_per_second: Option<f64>,
}

/// Starts a proxy in front of `address`; returns the proxy's address. It lives as long as the process.
///
/// # Errors
/// If no port can be had.
pub fn emulate(address: &str, link: Link) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = listener.local_addr()?.to_string();
    let address = address.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Err(error) = join(client, &address, link) {
                eprintln!("link: {error}");
            }
        }
    });
    Ok(own)
}

fn join(client: TcpStream, address: &str, link: Link) -> std::io::Result<()> {
    let server = TcpStream::connect(address)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    direction(client.try_clone()?, server.try_clone()?, link);
    direction(server, client, link);
    Ok(())
}

/// Carries bytes from one socket to the other, each chunk at its time.
fn direction(mut from: TcpStream, mut to: TcpStream, link: Link) {
    let (send, receive) = mpsc::sync_channel::<(Instant, Vec<u8>)>(CHUNKS_IN_FLIGHT);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        // The moment at which the link has sent everything so far.
        let mut free = Instant::now();
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let busy = link.bits_per_second.map_or(0.0, |bits| count as f64 * 8.0 / bits);
            free = free.max(Instant::now()) + Duration::from_secs_f64(busy);
            if send.send((free + link.rtt / 2, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receive {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other side may have closed already.
        let _ = to.shutdown(Shutdown::Write);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_whole_and_not_early() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut socket, _) = server.accept().unwrap();
            let mut bytes = vec![0; 100_000];
            socket.read_exact(&mut bytes).unwrap();
            socket.write_all(&bytes).unwrap();
        });
        let link = Link { rtt: Duration::from_millis(20), bits_per_second: Some(80e6) };
        let mut socket = TcpStream::connect(emulate(&address, link).unwrap()).unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        let start = Instant::now();
        socket.write_all(&sent).unwrap();
        let mut got = vec![0; sent.len()];
        socket.read_exact(&mut got).unwrap();
        assert_eq!(got, sent);
        // 20 ms of delay and 10 ms for the bytes in each direction; never less.
        assert!(start.elapsed() >= Duration::from_millis(30));
    }
}
