//! Bodies of the fuzz targets in `fuzz/`: what a decoder of this crate accepts means the same when written again.
//!
//! The targets include this file; on the stable toolchain the property tests drive the same functions.
#![allow(dead_code, reason = "each target uses its part")]

use prost::Message;
use runtime::connect_string::ConnectString;
use runtime::protocol::wire::{
    BodyReply, BodyRequest, CancelRequest, ClientPartChunk, CloseLeaseRequest, GetClientPartRequest,
    HelloReply, HelloRequest, ListModelsReply, MaskPiece, OpenLeaseReply, OpenLeaseRequest, RaiseRequest,
    SubmitRequest,
};
use runtime::server::leases::{LeaseBook, SigningKey};

/// Number of kinds of [`frame`].
pub(crate) const FRAMES: u8 = 14;

/// A message of the protocol, from either side; the first byte says which.
pub(crate) fn frame(bytes: &[u8]) {
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
pub(crate) fn connect_string(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(connect) = text.parse::<ConnectString>() {
        assert_eq!(connect.to_string().parse::<ConnectString>().expect("what was printed"), connect);
    }
}

/// A lease, from a client: none is good that the server did not sign.
pub(crate) fn lease(bytes: &[u8]) {
    let key = SigningKey::new(zeroize::Zeroizing::new([7; 32]));
    assert!(LeaseBook::new(&key, false).verify(bytes, None).is_err());
}
