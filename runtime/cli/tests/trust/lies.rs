//! What servers that lie say.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::trust_support::relay::{Act, Relay};
use sotto_protocol::wire::{
    BodyReply, ClientPartChunk, HelloReply, ListModelsReply, MaskPiece, OpenLeaseReply,
};
use tonic::Status;

/// A lie of the server, and the exit codes with which a client may end.
pub(super) struct Lie {
    pub(super) name: &'static str,
    pub(super) codes: &'static [i32],
    pub(super) tell: fn(&Relay),
}

fn status(word: &'static str, text: &str) -> Status {
    let mut status = Status::resource_exhausted(text);
    status.metadata_mut().insert("sotto-reason", word.parse().unwrap());
    status.metadata_mut().insert("retry-after-ms", "18446744073709551615".parse().unwrap());
    status
}

fn reply(edit: fn(&mut BodyReply)) -> impl Fn(&Relay) {
    move |relay| {
        let seen = AtomicUsize::new(0);
        relay.on_body(
            move |_| {
                if seen.fetch_add(1, Ordering::Relaxed) < 50 { Act::Forward } else { Act::edit(edit) }
            },
        );
    }
}

fn piece(edit: fn(&mut MaskPiece)) -> impl Fn(&Relay) {
    move |relay| relay.on_piece(move |_| Act::edit(edit))
}

pub(super) fn models(edit: fn(&mut ListModelsReply)) -> impl Fn(&Relay) {
    move |relay| relay.on_models(move |_| Act::edit(edit))
}

fn granted(edit: fn(&mut OpenLeaseReply)) -> impl Fn(&Relay) {
    move |relay| relay.on_lease(move |_| Act::edit(edit))
}

fn hello(edit: fn(&mut HelloReply)) -> impl Fn(&Relay) {
    move |relay| relay.on_hello(move |_| Act::edit(edit))
}

fn chunk(edit: fn(&mut ClientPartChunk)) -> impl Fn(&Relay) {
    move |relay| relay.on_chunk(move |_| Act::edit(edit))
}

/// Lies that a client must notice, or at least survive.
pub(super) const LIES: &[Lie] = &[
    Lie { name: "another sequence number", codes: &[1], tell: |relay| reply(|reply| reply.seq += 1)(relay) },
    Lie { name: "a short reply", codes: &[1], tell: |relay| reply(|reply| reply.replies.truncate(7))(relay) },
    Lie { name: "no reply", codes: &[1], tell: |relay| reply(|reply| reply.replies.clear())(relay) },
    Lie {
        name: "a long reply",
        codes: &[1],
        tell: |relay| reply(|reply| reply.replies = vec![1; 1 << 20].into())(relay),
    },
    Lie {
        name: "an over-long reply",
        codes: &[1, 3],
        tell: |relay| reply(|reply| reply.replies = vec![1; 42 << 20].into())(relay),
    },
    Lie {
        name: "two replies to one frame",
        codes: &[1],
        tell: |relay| relay.on_body(|_| Act::Change(Box::new(|reply| vec![reply.clone(), reply]))),
    },
    Lie {
        name: "an unknown refusal with control characters",
        codes: &[1],
        tell: |relay| relay.on_body(|_| Act::Refuse(status("dunno", "\u{1b}[2J\u{7}no"))),
    },
    Lie {
        name: "a budget that ends",
        codes: &[4],
        tell: |relay| relay.on_body(|_| Act::Refuse(status("budget", "no"))),
    },
    Lie {
        name: "busy for good",
        codes: &[4],
        tell: |relay| relay.on_body(|_| Act::Refuse(status("busy", "no"))),
    },
    Lie {
        name: "a file outside the directory",
        codes: &[1],
        tell: |relay| chunk(|chunk| chunk.file = "../../escaped".to_owned())(relay),
    },
    Lie {
        name: "a chunk at another place",
        codes: &[1],
        tell: |relay| chunk(|chunk| chunk.offset += 1)(relay),
    },
    Lie {
        name: "a file of another size",
        codes: &[1],
        tell: |relay| chunk(|chunk| chunk.size = u64::MAX)(relay),
    },
    Lie {
        name: "more files than there may be",
        codes: &[1],
        tell: |relay| chunk(|chunk| chunk.files = u32::MAX)(relay),
    },
    Lie {
        name: "a file that was changed",
        codes: &[1, 5],
        tell: |relay| chunk(|chunk| chunk.data = vec![b' '; chunk.data.len()].into())(relay),
    },
    Lie {
        name: "a wrong digest of the file",
        codes: &[5],
        tell: |relay| {
            chunk(|chunk| {
                if chunk.last {
                    chunk.sha256 = vec![1; 32].into()
                }
            })(relay)
        },
    },
    Lie { name: "no models", codes: &[2, 5], tell: |relay| models(|reply| reply.models.clear())(relay) },
    Lie {
        name: "a model of another digest",
        codes: &[5],
        tell: |relay| models(|reply| reply.models[0].digest = vec![1; 32].into())(relay),
    },
    Lie { name: "another version", codes: &[5], tell: |relay| hello(|reply| reply.version = 99)(relay) },
    Lie {
        name: "addresses that are none",
        codes: &[2],
        tell: |relay| hello(|reply| reply.body_addresses = vec!["\u{7}:x y".to_owned(); 9])(relay),
    },
    Lie {
        name: "more addresses than there may be",
        codes: &[1],
        tell: |relay| hello(|reply| reply.mask_addresses = vec!["127.0.0.1:1".to_owned(); 100_000])(relay),
    },
    Lie {
        name: "a listing with another tau",
        codes: &[1],
        tell: |relay| models(|reply| reply.models[0].tau = u32::MAX)(relay),
    },
    Lie {
        name: "a listing with another plan",
        codes: &[1],
        tell: |relay| models(|reply| reply.models[0].plan = "fused".to_owned())(relay),
    },
    Lie {
        name: "a listing with another name",
        codes: &[1],
        tell: |relay| models(|reply| reply.models[0].name = "a model that I trust".to_owned())(relay),
    },
    Lie { name: "an empty lease", codes: &[4], tell: |relay| granted(|reply| reply.body_tokens = 0)(relay) },
];

/// Lies about masks that are sent.
pub(super) const MASK_LIES: &[Lie] = &[
    Lie {
        name: "blocks that nobody asked for",
        codes: &[1],
        tell: |relay| piece(|piece| piece.first_block += 1_000_000)(relay),
    },
    Lie {
        name: "the same blocks again",
        codes: &[1],
        tell: |relay| piece(|piece| piece.first_block = 0)(relay),
    },
    Lie { name: "more blocks than data", codes: &[1], tell: |relay| piece(|piece| piece.blocks += 1)(relay) },
    Lie { name: "short masks", codes: &[1], tell: |relay| piece(|piece| piece.data.truncate(9))(relay) },
];

/// Lies that change nothing that a client may notice: it goes on as if nothing were, also where an answer made of garbage
/// ends somewhere else.
pub(super) const UNNOTICED: &[Lie] = &[
    Lie {
        name: "replies of ones",
        codes: &[0],
        tell: |relay| reply(|reply| reply.replies = vec![0xff; reply.replies.len()].into())(relay),
    },
    Lie {
        name: "replies of zeros",
        codes: &[0],
        tell: |relay| reply(|reply| reply.replies = vec![0; reply.replies.len()].into())(relay),
    },
    Lie {
        name: "a lease without end",
        codes: &[0],
        tell: |relay| granted(|reply| (reply.body_tokens, reply.expires_in_s) = (u64::MAX, 0))(relay),
    },
];

/// As [`UNNOTICED`], about masks that are sent.
pub(super) const UNNOTICED_MASKS: &[Lie] = &[Lie {
    name: "masks of ones",
    codes: &[0],
    tell: |relay| piece(|piece| piece.data = vec![0xff; piece.data.len()].into())(relay),
}];
