//! Peers without a credential, in full numbers: they hold no place that a client needs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::server_support::{Peer, reason};
use crate::trust_support::model::{Judge, SmallModel};
use crate::trust_support::process::{Chat, ServerProcess, Setup};
use crate::trust_support::row;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::limits;
use sotto_protocol::wire::{BodyRequest, HealthRequest, SubmitRequest};
use tokio::net::{TcpSocket, TcpStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

const ATTACKS: &str = "attacks that got nothing";

struct Stage {
    model: SmallModel,
    server: ServerProcess,
    connect: ConnectString,
    cache: tempfile::TempDir,
    _state: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let (model, state) = (SmallModel::new(), tempfile::tempdir().unwrap());
        let setup = Setup::new(&model.split, state.path());
        let credential = setup.credential();
        let mut server = ServerProcess::start(&setup);
        server.wait_ready();
        let connect = ConnectString { credential: Some(credential), ..server.connect.clone() };
        Self { model, server, connect, cache: tempfile::tempdir().unwrap(), _state: state }
    }

    /// Whether a client that comes now is served.
    fn serves(&self) -> bool {
        let said = Chat::start(&self.connect, self.cache.path(), "w2 w3 w4", 8).finish();
        said.code() == Some(0) && Judge::new(&self.model.split).right(&[2, 3, 4], &said.tokens()) == 8
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A TCP connection from loopback address `number`, and no byte more.
async fn bare(to: SocketAddr, number: u32) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 1).to_bits() + number);
    socket.bind(SocketAddr::from((address, 0)))?;
    socket.connect(to).await
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn bare_connections_do_not_hold_the_server() {
    let stage = Stage::new();
    let to: SocketAddr = stage.connect.address.parse().unwrap();
    for (addresses, note) in [(1, "one address"), (200, "many addresses")] {
        let runtime = runtime();
        let held = runtime.block_on(async {
            let mut held = Vec::new();
            for number in 0..limits::MAX_CONNECTIONS as u32 + 100 {
                held.extend(bare(to, number % addresses).await);
            }
            // Those that the server does not want are closed by now.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let open = |stream: &TcpStream| {
                matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            };
            held.retain(open);
            held
        });
        let most = if addresses == 1 { limits::MAX_STRANGERS_PER_ADDRESS } else { limits::MAX_STRANGERS };
        println!("{} bare connections of {note} are open, {most} may", held.len());
        assert!(held.len() <= most && !held.is_empty());
        let note = format!("{} bare connections of {note}", limits::MAX_CONNECTIONS + 100);
        row(ATTACKS, usize::from(stage.serves()), 1, &note);
        drop(held);
    }
    assert!(stage.server.wait_idle());
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn connections_without_a_credential_hold_no_body_streams() {
    let stage = Stage::new();
    let streams = limits::MAX_STREAMS_PER_CONNECTION as usize;
    let connections = limits::MAX_BODY_STREAMS / streams;
    let runtime = runtime();
    let (held, refused) = runtime.block_on(async {
        let (mut held, mut peers, mut refused) = (Vec::new(), Vec::new(), 0);
        for _ in 0..connections {
            let peer = Peer::with_credential(&stage.connect, String::new()).await;
            for _ in 0..streams {
                let (frames, receiver) = tokio::sync::mpsc::channel::<BodyRequest>(1);
                let mut bodies = peer.bodies.clone();
                let opened = tokio::time::timeout(
                    Duration::from_secs(2),
                    bodies.stream(ReceiverStream::new(receiver)),
                );
                match opened.await {
                    Ok(Err(status)) if !reason(&status).is_empty() => refused += 1,
                    Ok(Ok(replies)) => {
                        let mut replies = replies.into_inner();
                        // Held, as long as the server lets it.
                        if let Ok(Some(Err(_))) =
                            tokio::time::timeout(Duration::from_millis(20), replies.next()).await
                        {
                            refused += 1;
                        }
                        held.push((frames, Some(replies)));
                    }
                    _ => held.push((frames, None)),
                }
            }
            peers.push(peer);
        }
        ((held, peers), refused)
    });
    let taken = stage.server.metric("sotto_body_streams");
    println!("{taken:?} body streams are open");
    row(ATTACKS, usize::from(taken == Some(0.0)), 1, "eight connections that open every body stream");
    assert_eq!(refused, connections * streams);
    row(ATTACKS, usize::from(stage.serves()), 1, "a client among them");
    drop(held);
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_stranger_sends_little() {
    let stage = Stage::new();
    let runtime = runtime();
    let (health, long) = runtime.block_on(async {
        let mut peer = Peer::with_credential(&stage.connect, String::new()).await;
        let health = peer.catalogue.health(HealthRequest {}).await;
        let request = SubmitRequest { keys: vec![0; 200 << 10].into(), ..SubmitRequest::default() };
        let long = tokio::time::timeout(Duration::from_secs(5), peer.masks.submit(request)).await;
        (health, long)
    });
    health.expect("a small call of a stranger is answered");
    // Not an answer to what was sent: the connection ends before the message does.
    let cut = long.is_ok_and(|answer| answer.is_err_and(|status| reason(&status).is_empty()));
    row(ATTACKS, usize::from(cut), 1, "a long message before the introduction");
}
