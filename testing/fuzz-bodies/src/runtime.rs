//! Bodies of the fuzz targets in `fuzz/`: what a decoder of this crate accepts means the same when written again.
//!
//! On the stable toolchain the property tests drive the same functions.

use prost::Message;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::wire::{
    BodyReply, BodyRequest, CancelRequest, ClientPartChunk, CloseLeaseRequest, GetClientPartRequest,
    HelloReply, HelloRequest, ListModelsReply, MaskPiece, OpenLeaseReply, OpenLeaseRequest, RaiseRequest,
    SubmitRequest,
};
use sotto_server::auth::credentials::{CredentialId, Grant};
use sotto_server::auth::leases::{LeaseBook, SigningKey};

/// Number of kinds of [`frame`].
pub(crate) const FRAMES: u8 = 14;

/// A message of the protocol, from either side; the first byte says which.
pub fn frame(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % FRAMES {
        0 => again::<HelloRequest>(bytes),
        1 => again::<HelloReply>(bytes),
        2 => again::<ListModelsReply>(bytes),
        3 => again::<GetClientPartRequest>(bytes),
        4 => again::<ClientPartChunk>(bytes),
        5 => again::<OpenLeaseRequest>(bytes),
        6 => again::<OpenLeaseReply>(bytes),
        7 => again::<CloseLeaseRequest>(bytes),
        8 => again::<SubmitRequest>(bytes),
        9 => again::<MaskPiece>(bytes),
        10 => again::<CancelRequest>(bytes),
        11 => again::<RaiseRequest>(bytes),
        12 => again::<BodyRequest>(bytes),
        _ => again::<BodyReply>(bytes),
    }
}

fn again<T: Message + Default + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = T::decode(bytes) {
        assert!(T::decode(message.encode_to_vec().as_slice()).is_ok_and(|again| again == message));
    }
}

/// A connect string, from a person or a file.
pub fn connect_string(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Few mutations get past the address and the pin, so each input is tried after a good beginning, too.
    let pin = "5a".repeat(32);
    connect_text(text);
    connect_text(&format!("sotto://host:7443/?pin={pin}&{text}"));
    connect_text(&format!("sotto://{text}/?pin={pin}"));
}

fn connect_text(text: &str) {
    if let Ok(connect) = text.parse::<ConnectString>() {
        assert_eq!(connect.to_string().parse::<ConnectString>().expect("what was printed"), connect);
    }
}

/// A lease, from a client: none is good that the server did not sign, and what one covers is covered once. The first bytes
/// are the grant and its holder, the others what the client does with it.
pub fn lease(bytes: &[u8]) {
    let key = SigningKey::new(zeroize::Zeroizing::new([7; 32]));
    let book = LeaseBook::new(&key, false);
    assert!(book.verify(bytes, None).is_err());
    let [a, b, c, d, who, steps @ ..] = bytes else { return };
    let number = |low: u8, high: u8| u64::from(u16::from_le_bytes([low, high]));
    let grant = Grant { body_tokens: number(*a, *b), mask_slots: number(*c, *d) };
    let holder = CredentialId([*who; 8]);
    let signed = book.open(holder, [*who; 32], grant).expect("a book with room");
    let lease = book.verify(&signed, Some(&[*who; 32])).expect("a lease of this book");
    assert!(book.verify(&signed, Some(&[!*who; 32])).is_err() && lease.lease().grant == grant);
    let (mut rounds, mut slots) = ([0_u64; 4], 0_u64);
    for step in steps.chunks_exact(4) {
        let [kind, at, low, high] = [step[0], step[1], step[2], step[3]];
        let count = number(low, high);
        match kind % 3 {
            0 => {
                let round = usize::from(at) % rounds.len();
                let covered = rounds[round] + count <= grant.body_tokens;
                assert_eq!(lease.use_bodies(round, count).is_ok(), covered);
                rounds[round] += if covered { count } else { 0 };
            }
            1 => {
                let covered = slots + count <= grant.mask_slots;
                assert_eq!(lease.use_masks(count).is_ok(), covered);
                slots += if covered { count } else { 0 };
            }
            _ => {
                let mut changed = signed.clone();
                let at = usize::from(at) % changed.len();
                changed[at] ^= low;
                changed.truncate(changed.len() - usize::from(high) % 3);
                assert_eq!(book.verify(&changed, None).is_ok(), changed == signed);
            }
        }
    }
    assert!(book.close(&signed, CredentialId([!*who; 8])).is_err());
    let unused = book.close(&signed, holder).expect("an open lease");
    let used = rounds.into_iter().max().unwrap_or_default();
    assert_eq!((unused.body_tokens, unused.mask_slots), (grant.body_tokens - used, grant.mask_slots - slots));
}
