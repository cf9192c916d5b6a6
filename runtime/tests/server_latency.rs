//! Measures round trips of the body stream over TLS on loopback; run by hand.

mod server_support;

use bytes::Bytes;
use models::split::plan::{PlanKind, PlanRound, SplitPlan};
use runtime::protocol::wire::BodyRequest;
use runtime::server::Role;
use server_support::{Peer, start_plan};
use tokio_stream::wrappers::ReceiverStream;

const ROUND_TRIPS: u64 = 4000;

/// Prints quantiles of round trips with `tokens` bodies of `round` each, and of the product within them.
async fn measure(peer: &mut Peer, digest: [u8; 32], label: &str, round: usize, tokens: u32, d_in: usize) {
    let lease = peer.lease(digest, 4096, 0).await.unwrap().lease;
    let (frames, receiver) = tokio::sync::mpsc::channel(1);
    frames.send(BodyRequest { seq: 1, lease, ..BodyRequest::default() }).await.unwrap();
    let mut replies = peer.bodies.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    replies.message().await.unwrap().unwrap();
    let bodies = Bytes::from(vec![1; d_in * 5 * tokens as usize]);
    let (mut times, mut products) = (Vec::new(), Vec::new());
    for seq in 2..ROUND_TRIPS / u64::from(tokens.max(1)) {
        let start = std::time::Instant::now();
        let frame = BodyRequest {
            seq,
            round: round as u32,
            tokens,
            bodies: bodies.clone(),
            ..BodyRequest::default()
        };
        frames.send(frame).await.unwrap();
        let reply = replies.message().await.unwrap().unwrap();
        times.push(start.elapsed().as_micros());
        products.push(u128::from(reply.compute_us));
    }
    times.sort_unstable();
    products.sort_unstable();
    let at = |sorted: &[u128], share: f64| sorted[(share * sorted.len() as f64) as usize];
    println!(
        "{label}: round trip us p50 {} p90 {} p99 {}; product p50 {} p90 {}",
        at(&times, 0.5),
        at(&times, 0.9),
        at(&times, 0.99),
        at(&products, 0.5),
        at(&products, 0.9)
    );
}

#[test]
#[ignore = "a measurement, not a test: cargo test --release -p runtime --test server_latency -- --ignored --nocapture"]
fn round_trips() {
    let rounds = vec![
        PlanRound::new("qkv", 576, [("qkv.w".to_owned(), 960, 0..576)]),
        PlanRound::new("gate_up", 576, [("gate_up.w".to_owned(), 3072, 0..576)]),
    ];
    let plan = SplitPlan { kind: PlanKind::Plain, rounds };
    let running = start_plan(&plan, |config| config.roles = vec![Role::Catalogue, Role::Body]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut peer = Peer::new(running.server.connect_string()).await;
        measure(&mut peer, running.digest, "empty", 0, 0, 0).await;
        measure(&mut peer, running.digest, "qkv, 1 token", 0, 1, 576).await;
        measure(&mut peer, running.digest, "gate_up, 1 token", 1, 1, 576).await;
        measure(&mut peer, running.digest, "gate_up, 64 tokens", 1, 64, 576).await;
    });
    drop(runtime);
    running.server.drain();
    running.server.join().unwrap();
}
