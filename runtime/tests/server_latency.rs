//! Measures the round trip of the body stream without any product; run by hand.

mod server_support;

use runtime::protocol::wire::BodyRequest;
use server_support::{Peer, start};
use tokio_stream::wrappers::ReceiverStream;

#[test]
#[ignore = "a measurement, not a test: cargo test --release -p runtime --test server_latency -- --ignored --nocapture"]
fn empty_round_trips() {
    let running = start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut peer = Peer::new(running.server.connect_string()).await;
        let lease = peer.lease(running.digest, 100, 0).await.unwrap().lease;
        let (frames, receiver) = tokio::sync::mpsc::channel(1);
        let first = BodyRequest { seq: 1, lease, ..BodyRequest::default() };
        frames.send(first).await.unwrap();
        let mut replies = peer.bodies.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        replies.message().await.unwrap().unwrap();
        let mut times: Vec<u128> = Vec::new();
        for seq in 2..20_000 {
            let start = std::time::Instant::now();
            frames.send(BodyRequest { seq, ..BodyRequest::default() }).await.unwrap();
            replies.message().await.unwrap().unwrap();
            times.push(start.elapsed().as_nanos() / 1000);
        }
        times.sort_unstable();
        let at = |share: f64| times[(share * times.len() as f64) as usize];
        println!("round trip us: p50 {} p90 {} p99 {}", at(0.5), at(0.9), at(0.99));
    });
    running.server.drain();
    running.server.join().unwrap();
}
