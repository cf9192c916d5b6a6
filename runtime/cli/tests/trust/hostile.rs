//! Peers that lie: whatever a client sends, the server goes on serving others; whatever a server sends, the client
//! ends with a clear error or goes on, and its traffic is the same.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::lies::{LIES, Lie, MASK_LIES, UNNOTICED, UNNOTICED_MASKS, models};
use crate::trust_support::garbage::{self, PATHS, near};
use crate::trust_support::model::{Judge, SmallModel, prompt, prompt_ids};
use crate::trust_support::process::{Chat, Said, ServerProcess, Setup, eventually};
use crate::trust_support::relay::{Act, Relay};
use crate::trust_support::{Length, by_length, length, row};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost::Message;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::wire::catalogue_client::CatalogueClient;
use sotto_protocol::wire::{
    BlockRange, BodyRequest, CancelRequest, CloseLeaseRequest, GetClientPartRequest, HelloRequest,
    ListModelsRequest, MaskPiece, OpenLeaseRequest, RaiseRequest, SlotRange, SubmitRequest,
};
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
        Self::of(SmallModel::new())
    }

    fn of(model: SmallModel) -> Self {
        let state = tempfile::tempdir().unwrap();
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
    sotto_client::tls::connect(&to.address, to.pin, Duration::from_secs(10)).await.unwrap()
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
        let message =
            SubmitRequest { lease, batch_id, digest, keys, priority, wanted, ..SubmitRequest::default() };
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
    let form = prop_oneof![
        Just(String::new()),
        Just("lean:30/20/28".to_owned()),
        Just("stateless".to_owned()),
        ".{0,40}"
    ];
    let slots = prop::collection::vec((number(), number()), 0..4);
    let frame = (number(), number(), number(), bodies, either(lease), form, slots);
    let stream = prop::collection::vec(frame, 1..6).prop_map(move |frames| {
        let frames = frames.into_iter().map(|(seq, round, tokens, bodies, lease, form, slots)| {
            let (round, tokens, bodies) = (small(round), small(tokens), bodies.into());
            let range = |(first, count)| SlotRange {
                batch_id: vec![7; 16].into(),
                first: small(first),
                count: small(count),
            };
            let slots = slots.into_iter().map(range).collect();
            Bytes::from(BodyRequest { seq, round, tokens, bodies, lease, form, slots }.encode_to_vec())
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
        HelloRequest { versions: vec![2], agent: "test".to_owned() }.encode_to_vec().into(),
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
    let target = Target::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let connect = target.connect.clone();
    // One that has introduced itself, and then has nothing to say.
    let channel = runtime.block_on(async {
        let channel = connected(&connect).await;
        lease(&channel, &target, 64, 0).await;
        channel
    });
    let strangers = (0..8).map(|number| {
        let connect = connect.clone();
        runtime.spawn(async move { garbage::keeps_to_itself(&connect, number % 2 == 0).await })
    });
    let strangers: Vec<_> = strangers.collect();
    let here = eventually(|| target.server.metric("sotto_connections") == Some(9.0));
    assert!(here, "the strangers did not get in, so nothing is tested");
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
    runtime.block_on(async { lease(&channel, &target, 64, 0).await });
    drop(channel);
    let same = target.serves() && target.server.wait_idle();
    row("honest clients served after hostile ones", usize::from(same), 1, "strangers");
}

/// Tokens of an answer in the tests of lies.
const TOKENS: usize = 12;

/// What came of a conversation with a server that lies.
struct Told {
    said: Said,
    /// Tokens that were sent in each round but the last, which may be a head that runs for some of them.
    traffic: Vec<u64>,
    /// Digests of the models whose masks were asked for.
    digests: Vec<Bytes>,
}

fn talk(target: &Target, lie: &Lie, wire: &str, cache: &Path) -> Told {
    talk_saying(target, lie, cache, &prompt(5, 70), &["--ignore-eos", "--wire", wire])
}

/// As [`talk`], with a prompt and further arguments.
fn talk_saying(target: &Target, lie: &Lie, cache: &Path, prompt: &str, arguments: &[&str]) -> Told {
    let relay = Relay::start(target.state.path(), &target.server.connect.address);
    (lie.tell)(&relay);
    let start = Instant::now();
    let connect = relay.connect(&target.server.connect, target.credential());
    let said = Chat::start_saying("", &connect, cache, prompt, TOKENS, arguments).finish();
    println!(
        "{}: {:?} after {:.1} s: {}",
        lie.name,
        said.code(),
        start.elapsed().as_secs_f64(),
        said.errors().trim()
    );
    let frames = relay.log.frames.lock().unwrap();
    // How a prompt is cut into passes follows the masks that have come.
    let mut traffic = Vec::new();
    for frame in frames.iter() {
        let round = frame.round as usize;
        traffic.resize(traffic.len().max(round + 1), 0);
        traffic[round] += u64::from(frame.tokens);
    }
    traffic.pop();
    let digests = relay.log.jobs.lock().unwrap().iter().map(|job| job.digest.clone()).collect();
    Told { said, traffic, digests }
}

const HONEST: Lie = Lie { name: "the truth", codes: &[0], tell: |_| {} };

const ATTACKS: &str = "attacks that got nothing";

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_client_survives_whatever_its_server_says() {
    let target = Target::new();
    let mut good = 0;
    let lean = LIES.iter().map(|lie| (lie, "lean"));
    // The form in which masks are sent, so that a server can lie about them.
    let full = LIES.iter().chain(MASK_LIES).map(|lie| (lie, "full"));
    let told: Vec<_> = lean.chain(full).collect();
    for (lie, wire) in &told {
        let cache = tempfile::tempdir().unwrap();
        let said = talk(&target, lie, wire, cache.path()).said;
        let errors = said.errors();
        let clear = said.code().is_some_and(|code| lie.codes.contains(&code));
        let clear = clear && errors.contains("sotto: ") && !errors.contains("panicked");
        let clear = clear && !errors.trim().contains(char::is_control);
        assert!(!cache.path().join("../escaped").exists() && !cache.path().join("../../escaped").exists());
        good += usize::from(clear);
        if !clear {
            println!("{} ({wire}): expected {:?}, got {:?}: {errors}", lie.name, lie.codes, said.code());
        }
    }
    row("lies of a server answered with a clear error", good, told.len(), "");
    assert!(target.serves());
}

/// Tokens that end an answer: a quarter of the vocabulary, so that where it ends depends on nearly every token.
const ENDS: [u32; 12] = [3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47];

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn what_a_client_sends_does_not_depend_on_what_it_decodes() {
    let target = Target::of(SmallModel::with(sotto_testing::tiny::TEMPLATE, &ENDS));
    let (mut good, mut tried, mut lengths) = (0, 0, Vec::new());
    for (seed, wire) in [(5, "full"), (6, "full"), (5, "lean"), (6, "lean")] {
        let prompt = prompt(seed, 70);
        let tell = |lie: &Lie| {
            let cache = tempfile::tempdir().unwrap();
            talk_saying(&target, lie, cache.path(), &prompt, &["--wire", wire])
        };
        let honest = tell(&HONEST);
        let said = honest.said.tokens();
        assert_eq!(Judge::new(&target.model.split).right(&prompt_ids(&prompt), &said), said.len());
        lengths.push(said.len());
        let masks = if wire == "full" { UNNOTICED_MASKS } else { &[] };
        for lie in UNNOTICED.iter().chain(masks) {
            let told = tell(lie);
            let ended = told.said.code() == Some(0);
            good += usize::from(ended && told.traffic == honest.traffic);
            tried += 1;
            if ended {
                lengths.push(told.said.tokens().len());
            }
        }
    }
    row("lies that leave the client's traffic as it was", good, tried, "");
    // The answers did end at different places, and without padding that is what the traffic would show.
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 1, "every answer has {lengths:?} tokens: nothing was hidden");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn the_length_of_an_answer_tells_a_lying_server_nothing() {
    let target = Target::of(SmallModel::with(sotto_testing::tiny::TEMPLATE, &ENDS));
    let cache = tempfile::tempdir().unwrap();
    let traffic = |prompt: &str, arguments: &[&str]| {
        talk_saying(&target, &HONEST, cache.path(), prompt, arguments).traffic
    };
    let prompts: Vec<String> = (1..6).map(|seed| prompt(seed, 20)).collect();
    let distinct = |arguments: &[&str]| {
        let all: HashSet<_> = prompts.iter().map(|prompt| traffic(prompt, arguments)).collect();
        all.len()
    };
    assert!(distinct(&["--pad-answer", "1"]) > 1, "unpadded answers are all of one length");
    row(ATTACKS, usize::from(distinct(&[]) == 1), 1, "an answer that ends where the text says");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_template_that_pads_by_the_text_tells_its_server_nothing() {
    let lying = "{% for m in messages %}{% if 'w7 ' in m.content %}{% for i in range(9) %}w9 {% endfor %}\
                 {% endif %}{{ m.content }} {% endfor %}";
    let target = Target::of(SmallModel::with(lying, &[1]));
    let cache = tempfile::tempdir().unwrap();
    let traffic = |prompt: &str, arguments: &[&str]| {
        talk_saying(&target, &HONEST, cache.path(), prompt, arguments).traffic
    };
    let secrets = ["w7 w3 w4 w5", "w8 w3 w4 w5"];
    for arguments in [&["--ignore-eos", "--pad-prompt", "1"][..], &["--ignore-eos"]] {
        let [yes, no] = secrets.map(|secret| traffic(secret, arguments));
        row(ATTACKS, usize::from(yes == no), 1, "a template that pads by the text");
    }
    // Prompts of different lengths, and what padding makes of them.
    let lengths = ["w2 w3 w4", "w2 w3 w4 w5 w6"];
    let [short, long] = lengths.map(|prompt| traffic(prompt, &["--ignore-eos", "--pad-prompt", "1"]));
    assert_ne!(short, long);
    let [short, long] = lengths.map(|prompt| traffic(prompt, &["--ignore-eos"]));
    row(ATTACKS, usize::from(short == long), 1, "lengths of prompts");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_pinned_model_is_insisted_on() {
    let target = Target::new();
    let cheaper = Lie {
        name: "a cheaper model of the pinned one's name",
        codes: &[0],
        tell: |relay| {
            models(|reply| {
                let mut cheaper = reply.models[0].clone();
                cheaper.digest = vec![1; 32].into();
                (cheaper.rounds, cheaper.weight_bytes) = (1, 1);
                reply.models.insert(0, cheaper);
            })(relay);
        },
    };
    let told = talk(&target, &cheaper, "auto", tempfile::tempdir().unwrap().path());
    let pinned = told.digests.iter().all(|digest| *digest == target.digest()) && !told.digests.is_empty();
    row(ATTACKS, usize::from(pinned && told.said.code() == Some(0)), 1, cheaper.name);
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn another_model_under_another_name_is_not_taken_for_a_new_one() {
    let first = Target::new();
    let cache = tempfile::tempdir().unwrap();
    let unpinned = |relay: &Relay| ConnectString {
        model: None,
        ..relay.connect(&first.server.connect, first.credential())
    };
    let relay = Relay::start(first.state.path(), &first.server.connect.address);
    let said = Chat::start(&unpinned(&relay), cache.path(), "w2 w3", 2).finish();
    assert_eq!(said.tokens().len(), 2);
    // The same certificate, another model, and a name that was never heard.
    let other = SmallModel::with(sotto_testing::tiny::TEMPLATE, &[1, 2]);
    let mut server = ServerProcess::start(&Setup::new(&other.split, first.state.path()));
    server.wait_ready();
    relay.retarget(&server.connect.address);
    models(|reply| reply.models[0].name = "new".to_owned())(&relay);
    let said = Chat::start(&unpinned(&relay), cache.path(), "w2 w3", 2).finish();
    let refused = said.is_clear_error(5, "--accept-changed-model");
    row(ATTACKS, usize::from(refused), 1, "another model under another name");
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
        talk(&target, lie, "full", cache.path()).said.code().is_some_and(|code| lie.codes.contains(&code))
    });
    row("lies of a server answered with a clear error", good.count(), silences.len(), "silence");
}
