//! The lean and stateless forms over TLS: right answers, slots that answer once, batches that stay dead.

use std::time::Duration;

use crate::model::{instance, params, product};
use crate::server_support::{Peer, Running, TAU, plan, reason as reason_of, start, start_with};
use bytes::Bytes;
use fhe_layers::{
    Batch, BatchWords, Client, ClientOptions, ClientSession, MaskWords, NoiseRng, SessionDownload,
    SessionSeed, Slot, WireForm, WordReply,
};
use sotto_protocol::error::reason;
use sotto_protocol::limits;
use sotto_protocol::wire::{
    BodyReply, BodyRequest, MaskPiece, OpenSessionRequest, SessionPiece, SlotRange, SubmitRequest,
};
use sotto_server::ServerConfig;
use tonic::{Code, Status};

/// A client's side of an open session.
struct Open {
    session: ClientSession,
    worker: Bytes,
    /// Bytes of masks that arrived.
    sent: usize,
}

fn request(lease: &Bytes, digest: [u8; 32], form: WireForm, seed: &SessionSeed) -> OpenSessionRequest {
    OpenSessionRequest {
        lease: lease.clone(),
        digest: digest.to_vec().into(),
        form: form.to_string(),
        seed: seed.bytes().to_vec().into(),
        known_hash: Bytes::new(),
    }
}

async fn session_pieces(peer: &mut Peer, request: OpenSessionRequest) -> Result<Vec<SessionPiece>, Status> {
    let mut stream = peer.masks.open_session(request).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await? {
        pieces.push(piece);
    }
    Ok(pieces)
}

async fn open(peer: &mut Peer, digest: [u8; 32], form: WireForm, seed: SessionSeed) -> Open {
    let lease = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let pieces = session_pieces(peer, request(&lease, digest, form, &seed)).await.unwrap();
    let mut download = SessionDownload::new(instance(digest), form, seed).unwrap();
    pieces.iter().for_each(|piece| download.accept(&piece.data).unwrap());
    let last = pieces.last().unwrap();
    assert!(last.last && last.size == pieces.iter().map(|piece| piece.data.len() as u64).sum::<u64>());
    let sent = download.progress().0;
    let session = download.finish(last.hash.as_ref().try_into().unwrap()).unwrap();
    Open { session, worker: last.worker.clone(), sent }
}

fn new_batch(open: &Open) -> Batch {
    let client = Client::new(open.session.instance().clone(), ClientOptions { cache_a: false });
    client.new_session_batch(&open.session).unwrap()
}

fn job(lease: &Bytes, id: u8, digest: [u8; 32], open: &Open, batch: &Batch) -> SubmitRequest {
    SubmitRequest {
        lease: lease.clone(),
        batch_id: vec![id; 16].into(),
        digest: digest.to_vec().into(),
        keys: batch.keys().to_bytes(&params()).into(),
        form: open.session.form().to_string(),
        seed: open.session.seed().bytes().to_vec().into(),
        worker: open.worker.clone(),
        ..SubmitRequest::default()
    }
}

async fn submit(peer: &mut Peer, job: SubmitRequest) -> Result<Vec<MaskPiece>, Status> {
    let mut stream = peer.masks.submit(job).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await? {
        pieces.push(piece);
    }
    assert_eq!(pieces.last().map(|piece| piece.blocks_left), Some(0));
    Ok(pieces)
}

/// Opens a session, makes batch `id` and returns its slots.
async fn slots(peer: &mut Peer, digest: [u8; 32], open: &Open, id: u8) -> Result<Vec<Slot>, Status> {
    let lease = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let mut batch = new_batch(open);
    for piece in submit(peer, job(&lease, id, digest, open, &batch)).await? {
        if open.session.form().keeps_words() {
            assert!(piece.data.is_empty(), "the words stay at the server");
        } else {
            let words = MaskWords::read_all(&params(), open.session.form(), &piece.data).unwrap();
            batch.accept_mask_words(piece.first_block as usize, &words).unwrap();
        }
    }
    Ok(batch.into_slots().unwrap())
}

fn named(id: u8, first: u32, count: u32) -> Vec<SlotRange> {
    vec![SlotRange { batch_id: vec![id; 16].into(), first, count }]
}

fn input(round: usize) -> Vec<f32> {
    (0..plan().rounds[round].d_in).map(|i| (i as f32 * 0.7 + round as f32).sin()).collect()
}

fn norm(round: usize) -> f64 {
    127.0 * (plan().rounds[round].d_in as f64).sqrt()
}

/// Sends frames over one stream and returns the replies until the first refusal.
async fn exchange(peer: &mut Peer, frames: Vec<BodyRequest>) -> (Vec<BodyReply>, Option<Status>) {
    let mut replies = Vec::new();
    let mut stream = match peer.bodies.stream(tokio_stream::iter(frames)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (replies, Some(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(reply)) => replies.push(reply),
            Ok(None) => return (replies, None),
            Err(status) => return (replies, Some(status)),
        }
    }
}

fn frame(lease: &Bytes, form: WireForm, round: usize, body: &Bytes, slots: Vec<SlotRange>) -> BodyRequest {
    static SEQ: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    BodyRequest {
        seq: SEQ.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        round: round as u32,
        tokens: 1,
        bodies: body.clone(),
        lease: lease.clone(),
        form: form.to_string(),
        slots,
    }
}

fn encrypt(slot: &mut Slot, round: usize) -> (Bytes, fhe_layers::PendingReply) {
    let mut rng = NoiseRng::from_os().unwrap();
    let (body, pending) = slot.encrypt_words(round, &input(round), norm(round), &mut rng).unwrap();
    (body.to_bytes().into(), pending)
}

fn forms() -> [WireForm; 2] {
    [WireForm::lean(&params()), WireForm::stateless()]
}

#[tokio::test]
async fn every_form_decodes_to_the_product() {
    let running = start();
    let digest = running.digest;
    let mut peer = Peer::new(running.server.connect_string()).await;
    for (id, form) in (1..).zip(forms()) {
        let open = open(&mut peer, digest, form, SessionSeed::from_os().unwrap()).await;
        let mut slot = slots(&mut peer, digest, &open, id).await.unwrap().swap_remove(5);
        let lease = peer.lease(digest, 10, 0).await.unwrap().lease;
        let mut pending = Vec::new();
        let frames: Vec<_> = (0..plan().rounds.len())
            .map(|round| {
                let (body, waiting) = encrypt(&mut slot, round);
                pending.push(waiting);
                // Named once: the frames that follow have the same slots.
                let slots = if form.keeps_words() && round == 0 { named(id, 5, 1) } else { Vec::new() };
                frame(&lease, form, round, &body, slots)
            })
            .collect();
        let (replies, refused) = exchange(&mut peer, frames).await;
        assert!(refused.is_none(), "{refused:?}");
        for (round, (reply, pending)) in replies.iter().zip(pending).enumerate() {
            let rows = plan().rounds[round].rows();
            let mut out = vec![0.0; rows];
            let words = WordReply::from_bytes(form.widths().unwrap(), rows, &reply.replies).unwrap();
            pending.decode_words(&words, &mut out).unwrap();
            for (got, expected) in out.iter().zip(product(round, &input(round))) {
                let tolerance = norm(round) * (plan().rounds[round].d_in as f64).sqrt() / 2048.0;
                assert!((f64::from(*got) - expected).abs() < tolerance, "{form}: {got} against {expected}");
            }
        }
    }
}

#[tokio::test]
async fn a_used_slot_repeats_its_answer_and_refuses_other_bytes() {
    let running = start();
    let digest = running.digest;
    let form = WireForm::lean(&params());
    let mut peer = Peer::new(running.server.connect_string()).await;
    let open = open(&mut peer, digest, form, SessionSeed::from_os().unwrap()).await;
    let mut made = slots(&mut peer, digest, &open, 1).await.unwrap();
    let lease = peer.lease(digest, 20, 0).await.unwrap().lease;
    let (body, _) = encrypt(&mut made[3], 0);
    let send = |body: &Bytes, slot: u32| vec![frame(&lease, form, 0, body, named(1, slot, 1))];
    let first = exchange(&mut peer, send(&body, 3)).await.0;
    let again = exchange(&mut peer, send(&body, 3)).await.0;
    assert_eq!(first[0].replies, again[0].replies, "a retry has the same answer");
    // A copy of the client would encrypt something else under the same slot.
    let (other, _) = encrypt(&mut made[4], 0);
    let (_, refused) = exchange(&mut peer, send(&other, 3)).await;
    let refused = refused.unwrap();
    assert_eq!((refused.code(), reason_of(&refused)), (Code::PermissionDenied, reason::SLOT_REUSED));
    // In its own slot it is as good as any.
    assert!(exchange(&mut peer, send(&other, 4)).await.1.is_none());
}

#[tokio::test]
async fn acknowledged_slots_are_freed_and_answer_no_more() {
    let running = start();
    let digest = running.digest;
    let form = WireForm::lean(&params());
    let mut peer = Peer::new(running.server.connect_string()).await;
    let open = open(&mut peer, digest, form, SessionSeed::from_os().unwrap()).await;
    let mut made = slots(&mut peer, digest, &open, 1).await.unwrap();
    let lease = peer.lease(digest, 20, 0).await.unwrap().lease;
    let ((first, _), (second, _)) = (encrypt(&mut made[0], 0), encrypt(&mut made[1], 0));
    let frames = vec![
        frame(&lease, form, 0, &first, named(1, 0, 1)),
        // Naming slot 1 acknowledges slot 0.
        frame(&lease, form, 0, &second, named(1, 1, 1)),
        frame(&lease, form, 0, &first, named(1, 0, 1)),
    ];
    let (replies, refused) = exchange(&mut peer, frames).await;
    assert_eq!(replies.len(), 2);
    assert_eq!(reason_of(&refused.unwrap()), reason::SLOT_REUSED);
}

/// Room for one batch of the test model, and a bit.
fn small_memory(digest: [u8; 32]) -> u64 {
    // A credential may take half of it.
    let bytes = BatchWords::bytes_of(&instance(digest)) as u64;
    (bytes + bytes / 2) * limits::KEPT_WORDS_CREDENTIAL_SHARE
}

#[tokio::test]
async fn an_evicted_batch_stays_dead() {
    let running = start_with(|config| config.batch_memory = Some(small_memory([0; 32])));
    let digest = running.digest;
    let form = WireForm::lean(&params());
    let mut peer = Peer::new(running.server.connect_string()).await;
    let open = open(&mut peer, digest, form, SessionSeed::from_os().unwrap()).await;
    let batch = new_batch(&open);
    let lease = peer.lease(digest, 20, 2 * TAU as u64).await.unwrap().lease;
    submit(&mut peer, job(&lease, 1, digest, &open, &batch)).await.unwrap();
    let other = new_batch(&open);
    let refused = submit(&mut peer, job(&lease, 2, digest, &open, &other)).await.unwrap_err();
    assert_eq!(reason_of(&refused), reason::BUSY, "a batch that was just used is not dropped");
    tokio::time::sleep(limits::KEPT_WORDS_IDLE + Duration::from_millis(100)).await;
    submit(&mut peer, job(&lease, 2, digest, &open, &other)).await.unwrap();
    // The first one is gone, for frames and for jobs, with these keys and with others.
    let (body, _) = encrypt(&mut batch.into_slots().unwrap()[0], 0);
    let (_, refused) = exchange(&mut peer, vec![frame(&lease, form, 0, &body, named(1, 0, 1))]).await;
    assert_eq!(reason_of(&refused.unwrap()), reason::BATCH_DEAD);
    let more = peer.lease(digest, 0, 2 * TAU as u64).await.unwrap().lease;
    for again in [new_batch(&open), new_batch(&open)] {
        let refused = submit(&mut peer, job(&more, 1, digest, &open, &again)).await.unwrap_err();
        assert_eq!(reason_of(&refused), reason::BATCH_DEAD);
    }
}

#[tokio::test]
async fn a_batch_belongs_to_one_run_of_one_worker() {
    let state = tempfile::tempdir().unwrap();
    let keep = |config: &mut ServerConfig| {
        config.state = Some(state.path().to_owned());
        config.ephemeral_credential = false;
    };
    let running = start_with(keep);
    let digest = running.digest;
    let string = running.server.connect_string().clone();
    let credential = string.credential.clone().unwrap();
    let form = WireForm::lean(&params());
    let seed = SessionSeed::from_os().unwrap();
    let mut peer = Peer::new(&string).await;
    let before = open(&mut peer, digest, form, seed).await;
    let batch = new_batch(&before);
    let lease = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    submit(&mut peer, job(&lease, 1, digest, &before, &batch)).await.unwrap();
    drop(peer);
    let Running { server, dir, .. } = running;
    server.drain();
    tokio::task::spawn_blocking(move || server.join()).await.unwrap().unwrap();
    // The same keys and state: another worker, as far as batches go.
    let mut config = crate::server_support::config(dir.path());
    keep(&mut config);
    let server = sotto_server::Server::start(config).unwrap();
    let mut peer = Peer::with_credential(server.connect_string(), credential).await;
    let after = open(&mut peer, digest, form, seed).await;
    assert_eq!(after.session.hash(), before.session.hash(), "the shared masks are the same");
    assert_ne!(after.worker, before.worker);
    let lease = peer.lease(digest, 20, 4 * TAU as u64).await.unwrap().lease;
    for (open, id) in [(&before, 1), (&before, 2)] {
        let refused = submit(&mut peer, job(&lease, id, digest, open, &batch)).await.unwrap_err();
        assert_eq!(reason_of(&refused), reason::BATCH_DEAD, "a charge that names another run, id {id}");
    }
    let (body, _) = encrypt(&mut batch.into_slots().unwrap()[0], 0);
    let (_, refused) = exchange(&mut peer, vec![frame(&lease, form, 0, &body, named(1, 0, 1))]).await;
    assert_eq!(reason_of(&refused.unwrap()), reason::BATCH_DEAD);
    submit(&mut peer, job(&lease, 3, digest, &after, &new_batch(&after))).await.unwrap();
}

#[tokio::test]
async fn shared_masks_are_sent_once_and_charged() {
    let running = start();
    let digest = running.digest;
    let form = WireForm::lean(&params());
    let seed = SessionSeed::from_os().unwrap();
    let mut peer = Peer::new(running.server.connect_string()).await;
    let first = open(&mut peer, digest, form, seed).await;
    assert_eq!(first.sent, ClientSession::mask_bytes(&instance(digest), form));
    let again = |hash: [u8; 32], lease: &Bytes| OpenSessionRequest {
        known_hash: hash.to_vec().into(),
        ..request(lease, digest, form, &seed)
    };
    let empty = peer.lease(digest, 1, 0).await.unwrap().lease;
    let confirmed = session_pieces(&mut peer, again(*first.session.hash(), &empty)).await.unwrap();
    assert!(confirmed.len() == 1 && confirmed[0].data.is_empty(), "what the client has is not sent again");
    assert_eq!(confirmed[0].hash, first.session.hash()[..]);
    let refused = session_pieces(&mut peer, again([9; 32], &empty)).await.unwrap_err();
    assert_eq!(reason_of(&refused), reason::LEASE, "masks cost mask slots");
    let lease = peer.lease(digest, 0, TAU as u64).await.unwrap().lease;
    let pieces = session_pieces(&mut peer, again([9; 32], &lease)).await.unwrap();
    let sent: usize = pieces.iter().map(|piece| piece.data.len()).sum();
    assert_eq!((sent, &pieces.last().unwrap().hash[..]), (first.sent, &first.session.hash()[..]));
    // Another seed, another session.
    let other = open(&mut peer, digest, form, SessionSeed::from_os().unwrap()).await;
    assert_ne!(other.session.hash(), first.session.hash());
}

#[tokio::test]
async fn malformed_sessions_and_slots_are_refused() {
    let running = start();
    let digest = running.digest;
    let form = WireForm::lean(&params());
    let mut peer = Peer::new(running.server.connect_string()).await;
    let lease = peer.lease(digest, 20, 2 * TAU as u64).await.unwrap().lease;
    let good = request(&lease, digest, form, &SessionSeed::from_bytes([1; 32]));
    for (case, name) in [
        (OpenSessionRequest { form: "full".to_owned(), ..good.clone() }, "a form without sessions"),
        (OpenSessionRequest { form: "lean:1/2/3".to_owned(), ..good.clone() }, "widths out of range"),
        (OpenSessionRequest { form: "x".repeat(99), ..good.clone() }, "a long form"),
        (OpenSessionRequest { seed: vec![1; 31].into(), ..good.clone() }, "a short seed"),
        (OpenSessionRequest { known_hash: vec![1; 3].into(), ..good.clone() }, "a short hash"),
    ] {
        let refused = session_pieces(&mut peer, case).await.unwrap_err();
        assert_eq!(reason_of(&refused), reason::MALFORMED, "{name}: {refused}");
    }
    let open = open(&mut peer, digest, form, SessionSeed::from_os().unwrap()).await;
    let batch = new_batch(&open);
    let foreign = SubmitRequest { seed: vec![3; 32].into(), ..job(&lease, 1, digest, &open, &batch) };
    let refused = submit(&mut peer, foreign).await.unwrap_err();
    assert_eq!(reason_of(&refused), reason::MALFORMED, "keys of another session");
    submit(&mut peer, job(&lease, 1, digest, &open, &batch)).await.unwrap();
    let (body, _) = encrypt(&mut batch.into_slots().unwrap()[0], 0);
    for (slots, word) in [
        (Vec::new(), reason::MALFORMED),
        (named(1, 0, 2), reason::MALFORMED),
        (named(1, 64, 1), reason::MALFORMED),
        (named(1, u32::MAX, 1), reason::MALFORMED),
        (named(1, 0, 0), reason::MALFORMED),
        (vec![named(1, 0, 1).remove(0); 300], reason::MALFORMED),
        (named(2, 0, 1), reason::BATCH_DEAD),
    ] {
        let (_, refused) = exchange(&mut peer, vec![frame(&lease, form, 0, &body, slots.clone())]).await;
        let refused = refused.expect("a refusal");
        assert_eq!(reason_of(&refused), word, "{slots:?}: {refused}");
    }
}
