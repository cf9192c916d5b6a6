//! Peers that lie: whatever a client sends, the server goes on serving others; whatever a server sends, the client
//! ends with a clear error or goes on, and its traffic is the same.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::trust_support::garbage::{self, PATHS, near};
use crate::trust_support::model::{Judge, SmallModel, prompt, prompt_ids};
use crate::trust_support::process::{Chat, Said, ServerProcess, Setup};
use crate::trust_support::relay::{Act, Relay};
use crate::trust_support::{Length, by_length, length, row};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost::Message;
use runtime::connect_string::ConnectString;
use runtime::protocol::wire::catalogue_client::CatalogueClient;
use runtime::protocol::wire::{
    BlockRange, BodyReply, BodyRequest, CancelRequest, ClientPartChunk, CloseLeaseRequest,
    GetClientPartRequest, HelloReply, HelloRequest, ListModelsReply, ListModelsRequest, MaskPiece,
    OpenLeaseReply, OpenLeaseRequest, RaiseRequest, SubmitRequest,
};
use tonic::Status;
use tonic::transport::Channel;

/// A server and what a client of it knows.
struct Target {
    model: SmallModel,
    server: ServerProcess,
    connect: ConnectString,
    /// The same server for somebody else: what a hostile client uses up is its own.
    honest: ConnectString,
    cache: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Target {
    fn new() -> Self {
        let (model, state) = (SmallModel::new(), tempfile::tempdir().unwrap());
        let setup = Setup::new(&model.split, state.path());
        let [hostile, honest] = [setup.credential(), setup.credential()];
        let mut server = ServerProcess::start(&setup);
        server.wait_ready();
        let with = |credential| ConnectString { credential: Some(credential), ..server.connect.clone() };
        let (connect, honest) = (with(hostile), with(honest));
        Self { model, server, connect, honest, cache: tempfile::tempdir().unwrap(), state }
    }

    fn credential(&self) -> &str {
        self.connect.credential.as_deref().unwrap()
    }

    fn digest(&self) -> Bytes {
        Bytes::copy_from_slice(&self.connect.model.unwrap())
    }

    /// Whether an honest client is served as ever.
    fn serves(&self) -> bool {
        let said = Chat::start(&self.honest, self.cache.path(), "w2 w3 w4", 8).finish();
        Judge::new(&self.model.split).right(&[2, 3, 4], &said.tokens()) == 8
    }
}

/// Runs `test` on `cases` values, the same in every run; returns how many it passed.
fn drive<S: Strategy>(cases: usize, strategy: &S, mut test: impl FnMut(S::Value) -> bool) -> usize {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..cases).filter(|_| test(strategy.new_tree(&mut runner).unwrap().current())).count()
}

async fn connected(to: &ConnectString) -> Channel {
    runtime::tls::connect(&to.address, to.pin, Duration::from_secs(10)).await.unwrap()
}

async fn lease(channel: &Channel, target: &Target, body_tokens: u64, mask_slots: u64) -> Bytes {
    let message = OpenLeaseRequest { digest: target.digest(), body_tokens, mask_slots };
    let mut request = tonic::Request::new(message);
    let bearer = format!("Bearer {}", target.credential()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    CatalogueClient::new(channel.clone()).open_lease(request).await.unwrap().into_inner().lease
}

/// The good value, or any other.
fn either(good: Bytes) -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => Just(good.clone()), 2 => near(good), 1 => Just(Bytes::new())]
}

/// A small number, or an extreme one.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..5, Just(u64::MAX), Just(1 << 32), Just(u64::MAX / 64), any::<u64>()]
}

/// Messages for `PATHS`, well-formed but of any content.
fn nonsense(lease: Bytes, digest: Bytes, keys: Bytes) -> impl Strategy<Value = (usize, Vec<Bytes>)> {
    let encode = |path: usize, message: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        message(&mut bytes);
        (path, vec![Bytes::from(bytes)])
    };
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let hello = (prop::collection::vec(any::<u32>(), 0..50), ".{0,80}").prop_map(move |(versions, agent)| {
        let message = HelloRequest { versions, agent };
        encode(0, &|out| message.encode(out).unwrap())
    });
    let part = either(digest.clone()).prop_map(move |digest| {
        let message = GetClientPartRequest { digest };
        encode(2, &|out| message.encode(out).unwrap())
    });
    let open =
        (either(digest.clone()), number(), number()).prop_map(move |(digest, body_tokens, mask_slots)| {
            let message = OpenLeaseRequest { digest, body_tokens, mask_slots };
            encode(3, &|out| message.encode(out).unwrap())
        });
    let close = near(lease.clone()).prop_map(move |lease| {
        let message = CloseLeaseRequest { lease };
        encode(4, &|out| message.encode(out).unwrap())
    });
    let ranges = prop::collection::vec((number(), number()), 0..6).prop_map(move |ranges| {
        let range = |(first, count)| BlockRange { first: small(first), count: small(count) };
        ranges.into_iter().map(range).collect::<Vec<_>>()
    });
    let id = Bytes::from_static(&[7; 16]);
    let submit =
        (either(lease.clone()), either(id.clone()), either(digest), either(keys), any::<i32>(), ranges);
    let submit = submit.prop_map(move |(lease, batch_id, digest, keys, priority, wanted)| {
        let message = SubmitRequest { lease, batch_id, digest, keys, priority, wanted };
        encode(6, &|out| message.encode(out).unwrap())
    });
    let cancel = (either(lease.clone()), either(id.clone())).prop_map(move |(lease, batch_id)| {
        let message = CancelRequest { lease, batch_id };
        encode(7, &|out| message.encode(out).unwrap())
    });
    let raise =
        (either(lease.clone()), either(id), any::<i32>()).prop_map(move |(lease, batch_id, priority)| {
            let message = RaiseRequest { lease, batch_id, priority };
            encode(8, &|out| message.encode(out).unwrap())
        });
    // The first round of the small model has 64 columns of 5 bytes.
    let bodies = prop_oneof![Just(vec![3; 320]), prop::collection::vec(any::<u8>(), 0..700)];
    let frame = (number(), number(), number(), bodies, either(lease));
    let stream = prop::collection::vec(frame, 1..6).prop_map(move |frames| {
        let frames = frames.into_iter().map(|(seq, round, tokens, bodies, lease)| {
            let (round, tokens, bodies) = (small(round), small(tokens), bodies.into());
            Bytes::from(BodyRequest { seq, round, tokens, bodies, lease }.encode_to_vec())
        });
        (9, frames.collect())
    });
    prop_oneof![
        1 => hello, 1 => part, 1 => open, 1 => close, 1 => submit, 1 => cancel, 1 => raise, 4 => stream
    ]
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_server_survives_whatever_clients_send() {
    let mut target = Target::new();
    assert!(target.serves());
    let warm = target.server.own_memory_kib();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connect = target.connect.clone();
    let credential = target.credential().to_owned();
    let cases = by_length(1000, 6000, 100_000);
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let mut rows = Vec::new();

    let passed = drive(cases / 10, &bytes, |bytes| runtime.block_on(garbage::below_tls(&connect, &bytes)));
    rows.push(("instead of TLS", passed, cases / 10));
    let frames = (any::<bool>(), prop_oneof![garbage::http_frames(), bytes]);
    let passed = drive(cases / 5, &frames, |(opening, bytes)| {
        runtime.block_on(garbage::below_http(&connect, opening, &bytes))
    });
    rows.push(("instead of HTTP/2", passed, cases / 5));

    // HTTP/2 as it should be, gRPC messages that lie about their length or ask for a compression nobody offered.
    let lengths = prop_oneof![Just(u32::MAX), Just(24 << 20), Just((24 << 20) + 1), 0_u32..100, any::<u32>()];
    let lies = (0..PATHS.len(), 0_u8..3, lengths, prop::collection::vec(any::<u8>(), 0..100));
    let passed = drive(cases / 10, &lies, |(path, flag, claimed, data)| {
        let request = garbage::lying_request(PATHS[path], &credential, flag, claimed, &data);
        runtime.block_on(garbage::below_http(&connect, true, &request))
    });
    rows.push(("gRPC lengths", passed, cases / 10));

    let (channel, lease) = runtime.block_on(async {
        let channel = connected(&connect).await;
        let lease = lease(&channel, &target, 4096, 64).await;
        (channel, lease)
    });
    let good: Vec<Bytes> = vec![
        HelloRequest { versions: vec![1], agent: "test".to_owned() }.encode_to_vec().into(),
        ListModelsRequest {}.encode_to_vec().into(),
        GetClientPartRequest { digest: target.digest() }.encode_to_vec().into(),
        CloseLeaseRequest { lease: lease.clone() }.encode_to_vec().into(),
        BodyRequest {
            seq: 1,
            tokens: 1,
            bodies: vec![9; 320].into(),
            lease: lease.clone(),
            ..BodyRequest::default()
        }
        .encode_to_vec()
        .into(),
    ];
    let messages = (0..PATHS.len(), prop::sample::select(good).prop_flat_map(near));
    let passed = drive(cases, &messages, |(path, message)| {
        runtime.block_on(garbage::call(&channel, PATHS[path], &credential, vec![message]))
    });
    rows.push(("damaged messages", passed, cases));

    let keys = Bytes::from(vec![0; 38_000]);
    let passed = drive(cases, &nonsense(lease, target.digest(), keys), |(path, messages)| {
        runtime.block_on(garbage::call(&channel, PATHS[path], &credential, messages))
    });
    rows.push(("well-formed nonsense", passed, cases));

    // Larger than any honest message.
    let passed = (0..8).filter(|path| {
        let message = Bytes::from(vec![0x0a; 26 << 20]);
        runtime.block_on(garbage::call(&channel, PATHS[path + 2], &credential, vec![message]))
    });
    rows.push(("over-size messages", passed.count(), 8));
    drop(channel);
    drop(runtime);

    let alive = target.server.runs() && !target.server.errors().contains("panicked");
    println!("{rows:?}; {}", target.server.errors());
    for (name, passed, tried) in rows {
        row("hostile frames without a crash", if alive { passed } else { 0 }, tried, name);
    }
    let same = target.serves() && target.server.wait_idle();
    row("honest clients served after hostile ones", usize::from(same), 1, "");
    let grown = target.server.own_memory_kib().saturating_sub(warm);
    row(
        "server holds nothing afterwards",
        usize::from(grown < 96 << 10),
        1,
        &format!("hostile clients: {grown} KiB more"),
    );
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust; waits half a minute"]
fn places_are_for_those_who_introduce_themselves() {
    if length() < Length::Short {
        return;
    }
    let target = Target::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let connect = target.connect.clone();
    let strangers = (0..8).map(|number| {
        let connect = connect.clone();
        runtime.spawn(async move { garbage::keeps_to_itself(&connect, number % 2 == 0).await })
    });
    let strangers: Vec<_> = strangers.collect();
    // One that has introduced itself stays for as long, with nothing to say.
    let channel = runtime.block_on(async {
        let channel = connected(&connect).await;
        lease(&channel, &target, 64, 0).await;
        channel
    });
    let ended = runtime.block_on(async {
        let mut ended = 0;
        for stranger in strangers {
            ended += usize::from(stranger.await.unwrap());
        }
        ended
    });
    row("server holds nothing afterwards", ended, 8, "connections of strangers");
    let open = target.server.metric("sotto_connections");
    assert_eq!(open, Some(1.0), "the acquaintance's connection, and no other");
    drop(channel);
    let same = target.serves() && target.server.wait_idle();
    row("honest clients served after hostile ones", usize::from(same), 1, "strangers");
}

/// A lie of the server, and the exit codes with which a client may end.
struct Lie {
    name: &'static str,
    codes: &'static [i32],
    tell: fn(&Relay),
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

fn models(edit: fn(&mut ListModelsReply)) -> impl Fn(&Relay) {
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
const LIES: &[Lie] = &[
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
    Lie { name: "an empty lease", codes: &[4], tell: |relay| granted(|reply| reply.body_tokens = 0)(relay) },
];

/// Lies that change nothing that a client may notice: it goes on as if nothing were.
const UNNOTICED: &[Lie] = &[
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
        name: "masks of ones",
        codes: &[0],
        tell: |relay| piece(|piece| piece.data = vec![0xff; piece.data.len()].into())(relay),
    },
    Lie {
        name: "a batch of another shape",
        codes: &[0],
        tell: |relay| {
            models(|reply| {
                reply.models[0].tau = u32::MAX;
                reply.models[0].mask_blocks = u32::MAX;
                reply.models[0].client_bytes = u64::MAX;
            })(relay);
        },
    },
    Lie {
        name: "a lease without end",
        codes: &[0],
        tell: |relay| granted(|reply| (reply.body_tokens, reply.expires_in_s) = (u64::MAX, 0))(relay),
    },
];

/// Tokens of an answer in the tests of lies.
const TOKENS: usize = 12;

/// Talks to the server while it tells `lie`; returns what came of it, and how many frames and bytes were sent.
fn talk(target: &Target, lie: &Lie, cache: &Path) -> (Said, usize, usize) {
    let relay = Relay::start(target.state.path(), &target.server.connect.address);
    (lie.tell)(&relay);
    let start = Instant::now();
    let connect = relay.connect(&target.server.connect, target.credential());
    let said = Chat::start(&connect, cache, &prompt(5, 70), TOKENS).finish();
    println!(
        "{}: {:?} after {:.1} s: {}",
        lie.name,
        said.code(),
        start.elapsed().as_secs_f64(),
        said.errors().trim()
    );
    let frames = relay.log.frames.lock().unwrap();
    (said, frames.len(), frames.iter().map(|frame| frame.bodies.len()).sum())
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_client_survives_whatever_its_server_says() {
    let target = Target::new();
    let mut good = 0;
    for lie in LIES {
        let cache = tempfile::tempdir().unwrap();
        let said = talk(&target, lie, cache.path()).0;
        let errors = said.errors();
        let clear = said.code().is_some_and(|code| lie.codes.contains(&code));
        let clear = clear && errors.contains("sotto: ") && !errors.contains("panicked");
        let clear = clear && !errors.trim().contains(char::is_control);
        assert!(!cache.path().join("../escaped").exists() && !cache.path().join("../../escaped").exists());
        good += usize::from(clear);
        if !clear {
            println!("{}: expected {:?}, got {:?}: {errors}", lie.name, lie.codes, said.code());
        }
    }
    row("lies of a server answered with a clear error", good, LIES.len(), "");
    assert!(target.serves());
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn what_a_client_sends_does_not_depend_on_what_it_decodes() {
    let target = Target::new();
    let honest = Lie { name: "the truth", codes: &[0], tell: |_| {} };
    let cache = tempfile::tempdir().unwrap();
    let (said, frames, bytes) = talk(&target, &honest, cache.path());
    let right = Judge::new(&target.model.split).right(&prompt_ids(&prompt(5, 70)), &said.tokens());
    assert_eq!((said.tokens().len(), right), (TOKENS, TOKENS));
    let mut good = 0;
    for lie in UNNOTICED {
        let (said, lied_frames, lied_bytes) = talk(&target, lie, tempfile::tempdir().unwrap().path());
        let same = said.code() == Some(0) && said.tokens().len() == TOKENS;
        good += usize::from(same && (lied_frames, lied_bytes) == (frames, bytes));
    }
    row("lies that leave the client's traffic as it was", good, UNNOTICED.len(), "");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust; waits for a client's patience to end"]
fn a_client_does_not_wait_for_ever() {
    if length() < Length::Short {
        return;
    }
    let target = Target::new();
    let silences: &[Lie] = &[
        Lie { name: "masks that never come", codes: &[10], tell: |relay| relay.on_piece(|_| Act::Stall) },
        Lie {
            name: "masks without end and content",
            codes: &[1, 3, 10],
            tell: |relay| {
                relay.on_piece(|_| {
                    Act::Change(Box::new(|piece| {
                        vec![MaskPiece { blocks: 0, data: Bytes::new(), ..piece }; 10_000]
                    }))
                });
            },
        },
        Lie { name: "a client part that stops", codes: &[3], tell: |relay| relay.on_chunk(|_| Act::Stall) },
        Lie { name: "a handshake without answer", codes: &[3], tell: |relay| relay.on_hello(|_| Act::Stall) },
        Lie { name: "a lease that never comes", codes: &[3], tell: |relay| relay.on_lease(|_| Act::Stall) },
    ];
    let good = silences.iter().filter(|lie| {
        let cache = tempfile::tempdir().unwrap();
        talk(&target, lie, cache.path()).0.code().is_some_and(|code| lie.codes.contains(&code))
    });
    row("lies of a server answered with a clear error", good.count(), silences.len(), "silence");
}
