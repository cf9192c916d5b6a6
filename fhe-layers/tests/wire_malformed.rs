//! Decoders of what a peer sends: nothing panics, nothing foreign or out of range passes, what passes is what was sent.

mod layer_support;

use fhe_layers::kernels::Isa;
use fhe_layers::params::sets::n2048_q50_tau;
use fhe_layers::*;
use layer_support::Model;
use proptest::prelude::*;
use sotto_fuzz_bodies::fhe as fuzz_bodies;
use std::sync::OnceLock;

fn keys() -> &'static (Params, Vec<u8>) {
    static KEYS: OnceLock<(Params, Vec<u8>)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let model = Model::new(64, Isa::detect(), vec![(5, vec![(3, 0..5)])], 127);
        let params = model.instance.params().clone();
        let bytes = model.batch().keys().to_bytes(&params);
        (params, bytes)
    })
}

#[test]
fn keys_round_trip_within_their_size() {
    let (params, bytes) = keys();
    assert_eq!(bytes.len(), EvaluationKeys::byte_len(params));
    assert!(bytes.len() <= 42_000, "{} bytes", bytes.len());
    let again = EvaluationKeys::from_bytes(params, bytes).unwrap().to_bytes(params);
    assert!(again == *bytes);
}

#[test]
fn foreign_truncated_and_oversized_keys_are_refused() {
    let (params, bytes) = keys();
    for len in [0, 1, 7, 8, 20, bytes.len() - 1] {
        assert!(EvaluationKeys::from_bytes(params, &bytes[..len]).is_err(), "{len} bytes");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(EvaluationKeys::from_bytes(params, &longer), Err(Error::Mismatch { .. })));
    let changed = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        EvaluationKeys::from_bytes(params, &bytes).err()
    };
    assert!(matches!(changed(0, 0), Some(Error::Malformed { .. })), "magic");
    assert!(matches!(changed(4, 9), Some(Error::Foreign { of: "version", .. })), "version");
    assert!(matches!(changed(7, 255), Some(Error::Foreign { .. })), "length of the id");
    assert!(matches!(changed(9, b'x'), Some(Error::Foreign { .. })), "id");
    for tau in [8, 32, 128] {
        let other = n2048_q50_tau(tau).unwrap();
        let refused = EvaluationKeys::from_bytes(&other, bytes);
        assert!(matches!(refused.err(), Some(Error::Foreign { .. })), "tau {tau}");
    }
}

#[test]
fn words_not_below_q_are_refused() {
    let (params, bytes) = keys();
    let first = bytes.len() - 3 * (params.n() * 50).div_ceil(8);
    let mut all_ones = bytes.clone();
    all_ones[first..first + 7].fill(0xff);
    let refused = EvaluationKeys::from_bytes(params, &all_ones).err();
    assert_eq!(refused, Some(Error::WordOutOfRange { what: "keys", index: 0, limit: params.q() }));
    let body = Body::from_words(vec![0, (1 << 40) - 1, 1 << 40]);
    assert_eq!(body.err(), Some(Error::WordOutOfRange { what: "body", index: 2, limit: 1 << 40 }));
}

#[test]
fn golden_frames_are_unchanged() {
    let body = Body::from_words(vec![1, 0x01_0203_0405, (1 << 40) - 1]).unwrap();
    assert_eq!(body.to_bytes(), [1, 0, 0, 0, 0, 5, 4, 3, 2, 1, 255, 255, 255, 255, 255]);
    let reply = Reply::from_words(vec![1, 0x0102_0304]);
    assert_eq!(reply.to_bytes(), [1, 0, 0, 0, 4, 3, 2, 1]);
    let (params, bytes) = keys();
    assert_eq!(&bytes[..8], b"SKY1\x02\x00\x12\x00");
    assert_eq!(&bytes[8..26], params.id().as_bytes());
}

#[test]
fn golden_words_of_the_session_forms_are_unchanged() {
    let widths = Widths::DEFAULT;
    // 30 bits each, lowest bit first, the two bits after the last word zero.
    let body = WordBody::from_words(vec![1 << 2, 0x0304_0506 << 2, u32::MAX << 2], widths).unwrap();
    let bytes = [1, 0, 0, 128, 65, 1, 193, 240, 255, 255, 255, 3];
    assert_eq!(body.to_bytes(), bytes);
    assert!(WordBody::from_bytes(widths, 3, &bytes).unwrap() == body);
    let mut dirty = bytes;
    dirty[11] |= 1 << 2;
    assert!(matches!(WordBody::from_bytes(widths, 3, &dirty), Err(Error::Malformed { .. })));
    assert!(matches!(WordBody::from_bytes(widths, 4, &bytes), Err(Error::Mismatch { .. })));
    let wide = WordBody::from_words(vec![0, 2], widths);
    assert_eq!(wide.err(), Some(Error::WordOutOfRange { what: "body", index: 1, limit: 1 << 30 }));
    let reply = WordReply::from_bytes(widths, 3, &[0x21, 0x43, 0x65, 0x87, 0xa9, 0xcb, 0xed, 0x0f]).unwrap();
    assert_eq!(reply.words(), [0x54321 << 12, 0xa9876 << 12, 0xfedcb << 12]);
    assert_eq!(reply.to_bytes(), [0x21, 0x43, 0x65, 0x87, 0xa9, 0xcb, 0xed, 0x0f]);
    assert!(
        WordReply::from_bytes(widths, 3, &[0, 0, 0, 0, 0, 0, 0, 0x10]).is_err(),
        "a bit after the last word"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_bodies::keys(&bytes);
        fuzz_bodies::masks(&bytes);
        fuzz_bodies::body(&bytes);
        fuzz_bodies::reply(&bytes);
        fuzz_bodies::session_words(&bytes);
        fuzz_bodies::form(&bytes);
        fuzz_bodies::saved_tables(&bytes);
    }

    #[test]
    fn changed_keys_never_panic(at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        let (params, bytes) = keys();
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(keys) = EvaluationKeys::from_bytes(params, &bytes) {
            prop_assert!(keys.to_bytes(params) == bytes);
        }
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(EvaluationKeys::from_bytes(params, &bytes).is_err());
    }

    #[test]
    fn words_round_trip(words in prop::collection::vec(0u64..1 << 40, 0..70), replies in prop::collection::vec(any::<u32>(), 0..70)) {
        let body = Body::from_words(words.clone()).unwrap();
        prop_assert_eq!(body.to_bytes().len(), 5 * words.len());
        prop_assert!(Body::from_bytes(words.len(), &body.to_bytes()).unwrap() == body);
        prop_assert!(Body::from_bytes(words.len() + 1, &body.to_bytes()).is_err());
        let reply = Reply::from_words(replies.clone());
        prop_assert!(Reply::from_bytes(replies.len(), &reply.to_bytes()).unwrap() == reply);
        prop_assert!(Reply::from_bytes(replies.len() + 1, &reply.to_bytes()).is_err());
    }
}
