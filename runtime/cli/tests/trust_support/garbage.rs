//! Peers that do not play by the rules: raw bytes at every layer, and messages of any content.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use proptest::prelude::*;
use sotto_client::tls;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::limits::INTRODUCTION_TIMEOUT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

/// Longest wait for a server to do away with nonsense.
const PATIENCE: Duration = Duration::from_secs(20);

/// The preface of HTTP/2 and an empty SETTINGS frame.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Every path of the protocol, and one that is not.
pub(crate) const PATHS: &[&str] = &[
    "/sotto.v1.Catalogue/Hello",
    "/sotto.v1.Catalogue/ListModels",
    "/sotto.v1.Catalogue/GetClientPart",
    "/sotto.v1.Catalogue/OpenLease",
    "/sotto.v1.Catalogue/CloseLease",
    "/sotto.v1.Catalogue/Health",
    "/sotto.v1.MaskJobs/Submit",
    "/sotto.v1.MaskJobs/Cancel",
    "/sotto.v1.MaskJobs/Raise",
    "/sotto.v1.Bodies/Stream",
    "/sotto.v1.Nothing/Nothing",
];

/// Passes bytes through as they are.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends `messages` to `path` as one stream, whatever their content, and reads what comes until the server ends it.
/// False if it does not within [`PATIENCE`].
pub(crate) async fn call(
    channel: &Channel,
    path: &'static str,
    credential: &str,
    messages: Vec<Bytes>,
) -> bool {
    let talk = async {
        let mut client = tonic::client::Grpc::new(channel.clone())
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(usize::MAX);
        if client.ready().await.is_err() {
            return;
        }
        let mut request = tonic::Request::new(tokio_stream::iter(messages));
        let value = format!("Bearer {credential}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        if let Ok(answers) = client.streaming(request, path, RawCodec).await {
            let mut answers = answers.into_inner();
            while let Ok(Some(_)) = answers.message().await {}
        }
    };
    tokio::time::timeout(PATIENCE, talk).await.is_ok()
}

/// Sends `bytes` instead of TLS. False if the server keeps the connection for longer than [`PATIENCE`].
pub(crate) async fn below_tls(to: &ConnectString, bytes: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(&to.address).await else { return false };
    stream.write_all(bytes).await.ok();
    stream.shutdown().await.ok();
    ends(&mut stream).await
}

/// Sends `bytes` within TLS instead of HTTP/2, or after its opening if `opening` is set.
pub(crate) async fn below_http(to: &ConnectString, opening: bool, bytes: &[u8]) -> bool {
    let Some(mut stream) = within_tls(to).await else { return false };
    if opening {
        stream.write_all(OPENING).await.ok();
    }
    stream.write_all(bytes).await.ok();
    stream.shutdown().await.ok();
    ends(&mut stream).await
}

async fn within_tls(to: &ConnectString) -> Option<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(&to.address).await.ok()?;
    let connector = tokio_rustls::TlsConnector::from(tls::client_config(to.pin).unwrap());
    let name = rustls::pki_types::ServerName::try_from("sotto").unwrap();
    connector.connect(name, stream).await.ok()
}

/// Says nothing within TLS, or nothing but pings after the opening of HTTP/2 if `opening` is set. False if the server
/// keeps the connection for longer than ten seconds more than it owes one that does not introduce itself.
pub(crate) async fn keeps_to_itself(to: &ConnectString, opening: bool) -> bool {
    let Some(mut stream) = within_tls(to).await else { return false };
    let talk = async {
        if opening {
            stream.write_all(OPENING).await.ok();
        }
        let mut heard = [0; 1024];
        loop {
            match tokio::time::timeout(Duration::from_secs(2), stream.read(&mut heard)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                Err(_) if opening => {
                    stream.write_all(&frame(6, 0, &[7; 8])).await.ok();
                }
                Err(_) => {}
            }
        }
    };
    tokio::time::timeout(INTRODUCTION_TIMEOUT + Duration::from_secs(10), talk).await.is_ok()
}

async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

/// An HTTP/2 request to `path` on stream 1 whose gRPC message claims `claimed` bytes and brings `data`.
pub(crate) fn lying_request(path: &str, credential: &str, flag: u8, claimed: u32, data: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let bearer = format!("Bearer {credential}");
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "sotto"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("authorization", &bearer),
    ] {
        // A literal header field without indexing; no string here has 127 bytes or more.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut out = frame(1, 4, &block);
    let mut message = vec![flag];
    message.extend_from_slice(&claimed.to_be_bytes());
    message.extend_from_slice(data);
    out.extend(frame(0, 1, &message));
    out
}

/// An HTTP/2 frame of stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// Some frames of HTTP/2 with any kind, flags, stream and content.
pub(crate) fn http_frames() -> impl Strategy<Value = Vec<u8>> {
    let one = (any::<u8>(), any::<u8>(), 0_u8..4, prop::collection::vec(any::<u8>(), 0..64));
    prop::collection::vec(one, 1..6).prop_map(|frames| {
        let mut out = Vec::new();
        for (kind, flags, stream, payload) in frames {
            let length = u8::try_from(payload.len()).unwrap();
            out.extend_from_slice(&[0, 0, length, kind % 12, flags, 0, 0, 0, stream]);
            out.extend(payload);
        }
        out
    })
}

/// Bytes that are `good` with a few changes, or nothing like it.
pub(crate) fn near(good: Bytes) -> impl Strategy<Value = Bytes> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = any::<prop::sample::Index>();
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    (changes, cut, noise, 0_u8..4).prop_map(move |(changes, cut, noise, way)| {
        let mut bytes = good.to_vec();
        for (at, value) in changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        match way {
            0 => bytes.truncate(cut.index(bytes.len() + 1)),
            1 => bytes.extend(noise),
            2 => bytes = noise,
            _ => {}
        }
        bytes.into()
    })
}
