//! Mask jobs and bodies with real parameters over TLS: right answers, idempotent jobs, roles in processes of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{instance, params, product};
use crate::server_support::{
    Peer, Running, TAU, config, plan, reason as reason_of, start, start_with, write_split,
};
use bytes::Bytes;
use fhe_layers::{Batch, Client, ClientOptions, MaskBlock, NoiseRng, Reply};
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::reason;
use sotto_protocol::limits;
use sotto_protocol::wire::{
    BlockRange, BodyRequest, CancelRequest, MaskPiece, Priority, RaiseRequest, SubmitRequest,
};
use sotto_server::{Role, Server, ServerConfig};

use sotto_protocol::METADATA_LEASE;
use sotto_protocol::binding::TABLES_FILE;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

fn new_batch(digest: [u8; 32]) -> Batch {
    Client::new(instance(digest), ClientOptions { cache_a: false }).new_batch().unwrap()
}

fn job(lease: &Bytes, id: u8, digest: [u8; 32], batch: &Batch) -> SubmitRequest {
    SubmitRequest {
        lease: lease.clone(),
        batch_id: vec![id; 16].into(),
        digest: digest.to_vec().into(),
        keys: batch.keys().to_bytes(&params()).into(),
        priority: Priority::Background.into(),
        wanted: Vec::new(),
        ..SubmitRequest::default()
    }
}

async fn pieces(peer: &mut Peer, job: SubmitRequest) -> Result<Vec<MaskPiece>, Status> {
    let mut stream = peer.masks.submit(job).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await? {
        pieces.push(piece);
    }
    assert_eq!(pieces.last().map(|piece| piece.blocks_left), Some(0));
    Ok(pieces)
}

/// The bytes of every block, by number.
fn blocks(pieces: &[MaskPiece]) -> Vec<(u32, Vec<u8>)> {
    let size = MaskBlock::byte_len(&params());
    let mut found = Vec::new();
    for piece in pieces {
        assert_eq!(piece.data.len(), piece.blocks as usize * size);
        found.extend((piece.first_block..).zip(piece.data.chunks_exact(size).map(<[u8]>::to_vec)));
    }
    found.sort();
    found
}

/// Runs one token through every round and checks the decoded results.
async fn check_round_trips(masks: &mut Peer, bodies: &mut Peer, lease: &Bytes, digest: [u8; 32]) {
    let mut batch = new_batch(digest);
    for piece in pieces(masks, job(lease, 77, digest, &batch)).await.unwrap() {
        let masks = MaskBlock::read_all(&params(), &piece.data).unwrap();
        batch.accept_masks(piece.first_block as usize, &masks).unwrap();
    }
    let mut slot = batch.into_slots().unwrap().swap_remove(5);
    let mut rng = NoiseRng::from_os().unwrap();
    for (round, spec) in plan().rounds.iter().enumerate() {
        let x: Vec<f32> = (0..spec.d_in).map(|i| (i as f32 * 0.7 + round as f32).sin()).collect();
        let norm = 127.0 * (spec.d_in as f64).sqrt();
        let (body, pending) = slot.encrypt(round, &x, norm, &mut rng).unwrap();
        let frame = BodyRequest {
            seq: 1,
            round: round as u32,
            tokens: 1,
            bodies: body.to_bytes().into(),
            lease: lease.clone(),
            ..BodyRequest::default()
        };
        let mut call = Request::new(tokio_stream::iter(vec![frame]));
        call.metadata_mut().insert_bin(METADATA_LEASE, MetadataValue::from_bytes(lease));
        let mut stream = bodies.bodies.stream(call).await.unwrap().into_inner();
        let reply = stream.message().await.unwrap().unwrap();
        let reply = Reply::from_bytes(spec.rows(), &reply.replies).unwrap();
        let mut out = vec![0.0; spec.rows()];
        pending.decode(&reply, &mut out).unwrap();
        for (got, expected) in out.iter().zip(product(round, &x)) {
            // The published norm is the largest possible, so the noise is some 2^-17 of it times |x|; this is 2^-11.
            let tolerance = norm * (spec.d_in as f64).sqrt() / 2048.0;
            assert!((f64::from(*got) - expected).abs() < tolerance, "{got} against {expected}");
        }
    }
}

#[tokio::test]
async fn masks_and_bodies_decode_to_the_product() {
    let running = start();
    let mut masks = Peer::new(running.server.connect_string()).await;
    let mut bodies = Peer::new(running.server.connect_string()).await;
    let lease = masks.lease(running.digest, 10, TAU as u64).await.unwrap().lease;
    check_round_trips(&mut masks, &mut bodies, &lease, running.digest).await;
}

#[tokio::test]
async fn a_job_is_idempotent_and_charged_once() {
    let running = start();
    let digest = running.digest;
    let mut peer = Peer::new(running.server.connect_string()).await;
    let lease = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let batch = new_batch(digest);
    let first = blocks(&pieces(&mut peer, job(&lease, 1, digest, &batch)).await.unwrap());
    assert_eq!(first.len(), 4);
    // The lease has room for one batch: that a retry passes shows that it is not charged again.
    let again = blocks(&pieces(&mut peer, job(&lease, 1, digest, &batch)).await.unwrap());
    assert!(first == again, "a retry must give the same bytes");
    let wanted = vec![BlockRange { first: 1, count: 1 }, BlockRange { first: 3, count: 1 }];
    let resumed = SubmitRequest { wanted, ..job(&lease, 1, digest, &batch) };
    let rest = blocks(&pieces(&mut peer, resumed).await.unwrap());
    assert!(rest == [first[1].clone(), first[3].clone()], "so must a resumed job");

    let status = pieces(&mut peer, job(&lease, 2, digest, &batch)).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::PermissionDenied, reason::LEASE));
    let status = pieces(&mut peer, job(&lease, 1, digest, &new_batch(digest))).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::AlreadyExists, reason::BATCH_CONFLICT));

    let more = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let other = blocks(&pieces(&mut peer, job(&more, 2, digest, &batch)).await.unwrap());
    assert!(first.iter().zip(&other).all(|(a, b)| a.1 != b.1), "another batch id, other randomness");
}

#[tokio::test]
async fn a_restart_gives_the_same_bytes_and_other_credentials_find_nothing() {
    let state = tempfile::tempdir().unwrap();
    let keep = |config: &mut ServerConfig| {
        config.state = Some(state.path().to_owned());
        config.ephemeral_credential = false;
    };
    let running = start_with(keep);
    let digest = running.digest;
    let string = running.server.connect_string().clone();
    let credential = string.credential.clone().unwrap();
    let mut peer = Peer::new(&string).await;
    let lease = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let batch = new_batch(digest);
    let first = blocks(&pieces(&mut peer, job(&lease, 1, digest, &batch)).await.unwrap());

    let store = sotto_server::auth::credentials::Store::open(&state.path().join("credentials.redb")).unwrap();
    let (_, other) = store.add("other", 64, 64).unwrap();
    let mut stranger = Peer::with_credential(&string, other).await;
    let strange = stranger.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let batch_id = Bytes::from(vec![1; 16]);
    let cancel = CancelRequest { lease: strange.clone(), batch_id: batch_id.clone() };
    let status = stranger.masks.cancel(cancel).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::NotFound, reason::NO_SUCH_BATCH));
    let raise = RaiseRequest { lease: strange.clone(), batch_id, priority: Priority::Needed.into() };
    assert_eq!(reason_of(&stranger.masks.raise(raise).await.unwrap_err()), reason::NO_SUCH_BATCH);
    let theirs = blocks(&pieces(&mut stranger, job(&strange, 1, digest, &batch)).await.unwrap());
    assert!(first != theirs, "the same id and keys under another credential are another job");

    drop((peer, stranger));
    let Running { server, dir, .. } = running;
    server.drain();
    tokio::task::spawn_blocking(move || server.join()).await.unwrap().unwrap();
    let mut again = config(dir.path());
    keep(&mut again);
    let server = Server::start(again).unwrap();
    let restarted = server.connect_string().clone();
    assert_eq!(restarted.pin, string.pin, "the certificate is kept");
    let mut peer = Peer::with_credential(&restarted, credential).await;
    let status = pieces(&mut peer, job(&lease, 1, digest, &batch)).await.unwrap_err();
    assert_eq!(reason_of(&status), reason::LEASE);
    // A lease without mask slots is enough: the batch was charged before the restart.
    let lease = peer.lease(digest, 1, 0).await.unwrap().lease;
    let second = blocks(&pieces(&mut peer, job(&lease, 1, digest, &batch)).await.unwrap());
    assert!(first == second, "the same bytes after a restart");
}

#[tokio::test]
async fn malformed_jobs_are_refused() {
    let running = start();
    let digest = running.digest;
    let mut peer = Peer::new(running.server.connect_string()).await;
    let lease = peer.lease(digest, 0, 2 * TAU as u64).await.unwrap().lease;
    let good = job(&lease, 1, digest, &new_batch(digest));
    let mut broken = good.keys.to_vec();
    let last = broken.len() - 8;
    broken[last..].fill(0xff);
    let ranges = |first, count| vec![BlockRange { first, count }];
    let cases = [
        (SubmitRequest { keys: good.keys.slice(1..), ..good.clone() }, "short keys"),
        (SubmitRequest { keys: broken.into(), ..good.clone() }, "key words out of range"),
        (SubmitRequest { keys: vec![0; 97 << 10].into(), ..good.clone() }, "over-long keys"),
        (SubmitRequest { batch_id: vec![1; 15].into(), ..good.clone() }, "short id"),
        (SubmitRequest { digest: vec![2; 32].into(), ..good.clone() }, "other model"),
        (SubmitRequest { lease: Bytes::new(), ..good.clone() }, "no lease"),
        (SubmitRequest { wanted: ranges(4, 1), ..good.clone() }, "blocks beyond the end"),
        (SubmitRequest { wanted: ranges(0, 0), ..good.clone() }, "an empty range"),
        (
            SubmitRequest { wanted: vec![BlockRange { first: 0, count: 1 }; 5000], ..good.clone() },
            "many ranges",
        ),
    ];
    for (case, name) in cases {
        let status = pieces(&mut peer, case).await.unwrap_err();
        let expected =
            if name == "other model" || name == "no lease" { reason::LEASE } else { reason::MALFORMED };
        assert_eq!(reason_of(&status), expected, "{name}: {status}");
    }
    // None of them was charged.
    pieces(&mut peer, good.clone()).await.unwrap();
    pieces(&mut peer, SubmitRequest { batch_id: vec![9; 16].into(), ..good }).await.unwrap();
}

#[tokio::test]
async fn a_paid_batch_is_not_computed_for_free_without_end() {
    let running = start();
    let digest = running.digest;
    let mut peer = Peer::new(running.server.connect_string()).await;
    let lease = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let batch = new_batch(digest);
    let mut computed = 0;
    let refused = loop {
        match pieces(&mut peer, job(&lease, 1, digest, &batch)).await {
            Ok(_) => computed += 1,
            Err(status) => break status,
        }
        assert!(computed < 100, "the same batch is computed again and again");
    };
    assert_eq!((computed, reason_of(&refused)), (limits::MAX_BATCH_REPEATS, reason::BUDGET));
    let nothing = peer.lease(digest, 0, 0).await.unwrap_err();
    assert_eq!(reason_of(&nothing), reason::MALFORMED, "a lease over nothing");
}

#[tokio::test]
async fn roles_in_servers_of_their_own_share_leases() {
    let (split, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let digest = write_split(split.path(), &plan());
    let role = |role: Role, split: &Path| {
        let mut config = config(split);
        config.roles = vec![role];
        config.state = Some(state.path().to_owned());
        config
    };
    let masks = Server::start(role(Role::Mask, split.path())).unwrap();
    let bodies = Server::start(role(Role::Body, split.path())).unwrap();
    let mut config = role(Role::Catalogue, split.path());
    config.mask_addresses = vec![masks.connect_string().address.clone()];
    config.body_addresses = vec![bodies.connect_string().address.clone()];
    let catalogue = Server::start(config).unwrap();
    let string = catalogue.connect_string();
    let mut front = Peer::new(string).await;
    let lease = front.lease(digest, 10, TAU as u64).await.unwrap().lease;
    let at = |address: &str| ConnectString { address: address.to_owned(), ..string.clone() };
    let mut mask_peer = Peer::new(&at(&string.mask_addresses[0])).await;
    let mut body_peer = Peer::new(&at(&string.body_addresses[0])).await;
    let frame = BodyRequest { seq: 1, lease: lease.clone(), ..BodyRequest::default() };
    let stranger = body_peer.bodies.stream(tokio_stream::iter(vec![frame.clone()])).await.unwrap_err();
    assert_eq!(reason_of(&stranger), reason::LEASE, "a stream is opened under a lease in the metadata");
    check_round_trips(&mut mask_peer, &mut body_peer, &lease, digest).await;
    let status = front.bodies.stream(tokio_stream::iter(vec![frame])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "the catalogue alone answers no bodies");
}

/// A split whose tables a server has prepared and saved, and their path.
async fn saved_tables() -> (tempfile::TempDir, PathBuf) {
    let Running { server, dir, .. } = start();
    ready(&server).await;
    server.drain();
    server.join().unwrap();
    let tables = dir.path().join("server/plain").join(TABLES_FILE);
    (dir, tables)
}

async fn ready(server: &Server) {
    while !server.is_ready() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_tables_are_prepared_again() {
    let (dir, tables) = saved_tables().await;
    let whole = std::fs::read(&tables).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for damaged in [changed.as_slice(), &whole[..whole.len() / 2], b"", b"no tables at all"] {
        std::fs::write(&tables, damaged).unwrap();
        let server = Server::start(config(dir.path())).unwrap();
        ready(&server).await;
        server.drain();
        server.join().unwrap();
        assert_eq!(std::fs::read(&tables).unwrap(), whole, "after {} bytes", damaged.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_weights_make_no_tables() {
    let (dir, tables) = saved_tables().await;
    let weights = dir.path().join("server/plain/weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // The last weight, with another value that weights may have.
    let last = bytes.last_mut().unwrap();
    *last = if *last == 1 { 2 } else { 1 };
    std::fs::write(&weights, bytes).unwrap();
    std::fs::remove_file(&tables).unwrap();
    let error = Server::start(config(dir.path())).unwrap().join().unwrap_err();
    assert!(error.to_string().contains("weights.safetensors"), "{error}");
    assert!(!tables.exists(), "tables of damaged weights would outlive them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_version_are_prepared_again() {
    let (dir, tables) = saved_tables().await;
    let saved = std::fs::read(&tables).unwrap();
    let mut older = saved.clone();
    // The version follows the four bytes of the magic.
    older[4] -= 1;
    std::fs::write(&tables, older).unwrap();
    let server = Server::start(config(dir.path())).unwrap();
    ready(&server).await;
    server.drain();
    server.join().unwrap();
    assert!(std::fs::read(&tables).unwrap() == saved, "the same tables are saved again");
}
