//! The bytes of every message, held against `golden/messages.txt`: a server and a client of one protocol version that
//! were built apart understand each other. `SOTTO_UPDATE_GOLDEN=1 cargo test --release -p sotto --test protocol_golden`
//! writes the file anew; it may change with the protocol's version only.

use std::path::PathBuf;

use prost::Message;
use sotto_protocol::wire::{
    BlockRange, BodyReply, BodyRequest, CancelRequest, ClientPartChunk, CloseLeaseReply, CloseLeaseRequest,
    GetClientPartRequest, HealthReply, HelloReply, HelloRequest, ListModelsReply, MaskPiece, ModelEntry,
    OpenLeaseReply, OpenLeaseRequest, OpenSessionRequest, Priority, RaiseRequest, Refusal, SessionPiece,
    SlotRange, SubmitRequest,
};

/// Every message that has fields, each field with a value of its own.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let (digest, lease, batch_id) = (vec![0xd1; 32], vec![0x1e; 4], vec![0xba; 16]);
    let needed = Priority::Needed.into();
    vec![
        (
            "HelloRequest",
            HelloRequest { versions: vec![1, 300], agent: "sotto 0.1.0".to_owned() }.encode_to_vec(),
        ),
        (
            "HelloReply",
            HelloReply {
                version: 1,
                agent: "sotto".to_owned(),
                mask_addresses: vec!["m:1".to_owned(), "m:2".to_owned()],
                body_addresses: vec!["b:3".to_owned()],
                mask_slots_left: 64,
                body_tokens_left: u64::MAX,
            }
            .encode_to_vec(),
        ),
        (
            "ListModelsReply",
            ListModelsReply {
                models: vec![ModelEntry {
                    name: "n".to_owned(),
                    digest: digest.clone().into(),
                    plan: "plain".to_owned(),
                    tau: 64,
                    params_id: "p".to_owned(),
                    rounds: 2,
                    mask_blocks: 3,
                    client_bytes: 4,
                    weight_bytes: 5,
                    table_bytes: 6,
                    architecture: "llama".to_owned(),
                    ready: true,
                    forms: vec!["lean".to_owned(), "full".to_owned()],
                }],
            }
            .encode_to_vec(),
        ),
        ("GetClientPartRequest", GetClientPartRequest { digest: digest.clone().into() }.encode_to_vec()),
        (
            "ClientPartChunk",
            ClientPartChunk {
                file: "f".to_owned(),
                size: 7,
                offset: 5,
                data: vec![0xda; 2].into(),
                last: true,
                sha256: vec![0x5a; 32].into(),
                files: 9,
            }
            .encode_to_vec(),
        ),
        (
            "OpenLeaseRequest",
            OpenLeaseRequest { digest: digest.clone().into(), body_tokens: 10, mask_slots: 128 }
                .encode_to_vec(),
        ),
        (
            "OpenLeaseReply",
            OpenLeaseReply {
                lease: lease.clone().into(),
                body_tokens: 11,
                mask_slots: 64,
                expires_in_s: 3600,
            }
            .encode_to_vec(),
        ),
        ("CloseLeaseRequest", CloseLeaseRequest { lease: lease.clone().into() }.encode_to_vec()),
        (
            "CloseLeaseReply",
            CloseLeaseReply { body_tokens_returned: 12, mask_slots_returned: 13 }.encode_to_vec(),
        ),
        ("HealthReply", HealthReply { live: true, ready: true, draining: true }.encode_to_vec()),
        (
            "OpenSessionRequest",
            OpenSessionRequest {
                lease: lease.clone().into(),
                digest: digest.clone().into(),
                form: "lean:30/20/28".to_owned(),
                seed: vec![0x5e; 32].into(),
                known_hash: vec![0x4a; 32].into(),
            }
            .encode_to_vec(),
        ),
        (
            "SessionPiece",
            SessionPiece {
                size: 22,
                offset: 23,
                data: vec![0x3b; 2].into(),
                last: true,
                hash: vec![0x4b; 32].into(),
                worker: vec![0x30; 16].into(),
            }
            .encode_to_vec(),
        ),
        (
            "SubmitRequest",
            SubmitRequest {
                lease: lease.clone().into(),
                batch_id: batch_id.clone().into(),
                digest: digest.into(),
                keys: vec![0x4e; 3].into(),
                priority: needed,
                wanted: vec![BlockRange { first: 14, count: 15 }],
                form: "stateless:28/20/26".to_owned(),
                seed: vec![0x5e; 32].into(),
                worker: vec![0x30; 16].into(),
            }
            .encode_to_vec(),
        ),
        (
            "MaskPiece",
            MaskPiece { first_block: 16, blocks: 17, data: vec![0x3a; 2].into(), blocks_left: 18 }
                .encode_to_vec(),
        ),
        (
            "CancelRequest",
            CancelRequest { lease: lease.clone().into(), batch_id: batch_id.clone().into() }.encode_to_vec(),
        ),
        (
            "RaiseRequest",
            RaiseRequest { lease: lease.clone().into(), batch_id: batch_id.clone().into(), priority: needed }
                .encode_to_vec(),
        ),
        (
            "BodyRequest",
            BodyRequest {
                seq: 19,
                round: 20,
                tokens: 1,
                bodies: vec![0xb0, 0xd1, 0xe5, 0, 1].into(),
                lease: lease.into(),
                form: "lean:30/20/28".to_owned(),
                slots: vec![SlotRange { batch_id: batch_id.into(), first: 24, count: 25 }],
            }
            .encode_to_vec(),
        ),
        (
            "BodyReply",
            BodyReply { seq: 19, replies: vec![1, 2, 3, 4].into(), compute_us: 21 }.encode_to_vec(),
        ),
        (
            "Refusal",
            Refusal { code: 26, reason: "busy".to_owned(), message: "m".to_owned(), retry_after_ms: 27 }
                .encode_to_vec(),
        ),
    ]
}

#[test]
fn messages_keep_their_bytes() {
    let lines: Vec<String> =
        messages().iter().map(|(name, bytes)| format!("{name} {}\n", hex::encode(bytes))).collect();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/messages.txt");
    if std::env::var_os("SOTTO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, lines.concat()).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap();
    for (got, expected) in lines.iter().zip(known.split_inclusive('\n')) {
        assert_eq!(got, expected);
    }
    assert_eq!(lines.len(), known.lines().count(), "messages");
}
