//! Decoders of the protocol: nothing panics, and what passes means the same when written again.

use proptest::prelude::*;
use prost::Message;
use sotto_fuzz_bodies::runtime as fuzz_bodies;
use sotto_protocol::wire::{BlockRange, BodyRequest, HelloReply, ListModelsReply, ModelEntry, SubmitRequest};

/// Encoded messages that use every kind of field, each after the number that [`fuzz_bodies::frame`] knows it by.
fn sound() -> Vec<Vec<u8>> {
    let addresses = vec!["127.0.0.1:1".to_owned(), "[::1]:2".to_owned()];
    let hello =
        HelloReply { version: 2, agent: "a".to_owned(), mask_addresses: addresses, ..HelloReply::default() };
    let entry = ModelEntry {
        name: "m".to_owned(),
        digest: vec![1; 32].into(),
        tau: 64,
        ready: true,
        ..ModelEntry::default()
    };
    let wanted = vec![BlockRange { first: 3, count: u32::MAX }; 3];
    let submit = SubmitRequest { keys: vec![5; 60].into(), priority: -7, wanted, ..SubmitRequest::default() };
    let body = BodyRequest {
        seq: u64::MAX,
        round: 3,
        tokens: 2,
        bodies: vec![9; 40].into(),
        lease: vec![1; 9].into(),
        ..BodyRequest::default()
    };
    let list = ListModelsReply { models: vec![entry; 2] };
    let messages = [
        (1, hello.encode_to_vec()),
        (2, list.encode_to_vec()),
        (8, submit.encode_to_vec()),
        (12, body.encode_to_vec()),
    ];
    messages.into_iter().map(|(kind, bytes)| [vec![kind], bytes].concat()).collect()
}

const CONNECT: &str = "sotto://127.0.0.1:4711/?pin=0707070707070707070707070707070707070707070707070707070707070707&mask=[::1]:5&credential=00ff.abc-_";

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_bodies::frame(&bytes);
        fuzz_bodies::lease(&bytes);
        fuzz_bodies::connect_string(&bytes);
    }

    #[test]
    fn changed_messages(which in 0..4_usize, at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        let mut bytes = sound().swap_remove(which);
        let place = at.index(bytes.len());
        bytes[place] = value;
        fuzz_bodies::frame(&bytes);
        fuzz_bodies::frame(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn changed_connect_strings(at: prop::sample::Index, with in "[ -~]{0,3}") {
        let at = at.index(CONNECT.len());
        fuzz_bodies::connect_string(format!("{}{with}{}", &CONNECT[..at], &CONNECT[at..]).as_bytes());
        fuzz_bodies::connect_string(format!("{}{with}{}", &CONNECT[..at], &CONNECT[at + 1..]).as_bytes());
    }
}

#[test]
fn sound_messages_are_read() {
    for bytes in sound() {
        fuzz_bodies::frame(&bytes);
    }
    assert!(BodyRequest::decode(&sound()[3][1..]).is_ok_and(|body| body.bodies.len() == 40));
    fuzz_bodies::connect_string(CONNECT.as_bytes());
    assert!(CONNECT.parse::<sotto_protocol::connect_string::ConnectString>().is_ok());
}
