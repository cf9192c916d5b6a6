//! The framed transport of bodies: length, then a message, over TLS with its own ALPN name on the same port.
//!
//! It carries the messages of `Bodies.Stream` and nothing else. A round trip of one token is one write and one read on each
//! side; HTTP/2 adds headers, flow control and two hand-overs between tasks. A frame is 4 bytes, little-endian, and that many
//! bytes of a message. In the server's direction the length's upper bit says that the message is a
//! [`crate::wire::Refusal`], after which the server closes.

use std::io::{ErrorKind, Read, Write};

use bytes::Bytes;
use prost::Message;

/// ALPN name of the framed transport.
pub const ALPN_BODIES: &[u8] = b"sotto-bodies/2";

/// Bit of a length that marks a refusal.
const REFUSAL: u32 = 1 << 31;

/// Bytes that are made room for before they have arrived; a longer frame grows as it comes.
const FIRST_ROOM: usize = 64 << 10;

/// A frame on its way in.
#[derive(Default)]
pub struct FrameReader {
    head: [u8; 4],
    /// Bytes of `head` that are here.
    head_len: usize,
    body: Vec<u8>,
}

/// What [`FrameReader::read`] brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Message(Bytes),
    /// A refusal.
    Refusal(Bytes),
    /// Nothing yet: the read timed out. What is here so far is kept.
    Pending,
    /// The other side closed between two frames.
    Closed,
}

impl FrameReader {
    /// Whether a part of a frame is here.
    pub fn is_within(&self) -> bool {
        self.head_len > 0
    }

    /// Reads on until a frame of up to `limit` bytes is whole or the read times out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] for a longer one, [`ErrorKind::UnexpectedEof`] for an end within a frame, and what reading
    /// fails with.
    pub fn read(&mut self, from: &mut impl Read, limit: usize) -> std::io::Result<Incoming> {
        while self.head_len < self.head.len() {
            match from.read(&mut self.head[self.head_len..]) {
                Ok(0) if self.head_len == 0 => return Ok(Incoming::Closed),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.head_len += count,
                Err(error) if is_timeout(&error) => return Ok(Incoming::Pending),
                // A peer that leaves without saying so closes all the same.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof && self.head_len == 0 => {
                    return Ok(Incoming::Closed);
                }
                Err(error) => return Err(error),
            }
        }
        let word = u32::from_le_bytes(self.head);
        let length = (word & !REFUSAL) as usize;
        if length > limit {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "a frame over the limit"));
        }
        let mut filled = self.body.len();
        loop {
            if filled == length {
                break;
            }
            if self.body.len() == filled {
                self.body.resize(length.min((2 * filled).max(FIRST_ROOM)), 0);
            }
            let read = from.read(&mut self.body[filled..]);
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if is_timeout(&error) => {
                    self.body.truncate(filled);
                    return Ok(Incoming::Pending);
                }
                Err(error) => return Err(error),
            }
        }
        self.head_len = 0;
        let bytes = Bytes::from(std::mem::take(&mut self.body));
        Ok(if word & REFUSAL == 0 { Incoming::Message(bytes) } else { Incoming::Refusal(bytes) })
    }
}

/// Appends `message` as a frame.
pub fn append(message: &impl Message, refusal: bool, out: &mut Vec<u8>) {
    let length = message.encoded_len() as u32 | if refusal { REFUSAL } else { 0 };
    out.extend_from_slice(&length.to_le_bytes());
    // A vector grows.
    let _ = message.encode(out);
}

/// Sends `message` as a frame, in as few writes as the transport makes of it.
///
/// # Errors
/// What writing fails with.
pub fn send(
    message: &impl Message,
    refusal: bool,
    to: &mut impl Write,
    scratch: &mut Vec<u8>,
) -> std::io::Result<()> {
    scratch.clear();
    append(message, refusal, scratch);
    to.write_all(scratch)?;
    to.flush()
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{BodyReply, Refusal};

    /// Hands out `bytes` in pieces of `size`, with a timeout before each.
    struct Slow<'a> {
        bytes: &'a [u8],
        size: usize,
        timeout: bool,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.timeout = !self.timeout;
            if self.timeout {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = self.size.min(out.len()).min(self.bytes.len());
            out[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    fn next(reader: &mut FrameReader, from: &mut Slow<'_>) -> std::io::Result<Incoming> {
        loop {
            match reader.read(from, 200_000)? {
                Incoming::Pending => {}
                other => return Ok(other),
            }
        }
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let reply = BodyReply { seq: 7, replies: vec![9; 150_000].into(), compute_us: 3 };
        let refusal = Refusal { code: 5, reason: "busy".to_owned(), ..Refusal::default() };
        let mut sent = Vec::new();
        append(&reply, false, &mut sent);
        append(&BodyReply::default(), false, &mut sent);
        append(&refusal, true, &mut sent);
        for size in [1000, 4096, 1 << 20] {
            let (mut reader, mut from) =
                (FrameReader::default(), Slow { bytes: &sent, size, timeout: false });
            let expected = [
                Incoming::Message(reply.encode_to_vec().into()),
                Incoming::Message(Bytes::new()),
                Incoming::Refusal(refusal.encode_to_vec().into()),
                Incoming::Closed,
            ];
            for expected in expected {
                assert!(next(&mut reader, &mut from).unwrap() == expected, "in pieces of {size}");
            }
        }
        let cut = Slow { bytes: &sent[..sent.len() - 1], size: 1 << 20, timeout: false };
        let (mut reader, mut from) = (FrameReader::default(), cut);
        let end = (0..4).map(|_| next(&mut reader, &mut from)).find_map(Result::err).unwrap();
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
        let long = [0xff, 0xff, 0xff, 0x7f];
        let refused = next(&mut FrameReader::default(), &mut Slow { bytes: &long, size: 9, timeout: false });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
