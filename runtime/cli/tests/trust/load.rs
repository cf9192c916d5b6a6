//! Many clients at once: every one is served, in fair shares, with flat memory; what is too much is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::server_support::{Peer, reason as reason_of, write_split};
use crate::trust_support::model::{Judge, SmallModel, TAU, prompt, prompt_ids};
use crate::trust_support::pads::examine;
use crate::trust_support::process::{Chat, ServerProcess, Setup, eventually};
use crate::trust_support::relay::Relay;
use crate::trust_support::{by_length, row};
use bytes::Bytes;
use fhe_layers::{Client, ClientOptions};
use sotto_client::{Connected, RemoteOptions, connect};
use sotto_engine::backend::{Backend, BackendKind};
use sotto_engine::session::{GenerateOptions, Session};
use sotto_models::generate::sampler::SamplerConfig;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::split::plan::{PlanKind, PlanRound, SplitPlan};
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::reason;
use sotto_protocol::limits;
use sotto_protocol::wire::{BodyRequest, CancelRequest, Priority, SubmitRequest};
use sotto_protocol::{METADATA_LEASE, METADATA_RETRY_AFTER_MS};
use sotto_storage::{Cache, NoProgress};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

/// Clients at once.
const CLIENTS: usize = 32;

/// Clients whose every message is looked at.
const WATCHED: usize = 2;

/// Answers before a client leaves and comes back.
const ANSWERS_PER_VISIT: usize = 3;

/// Memory of its own that a server may have gained since it was warm, in KiB: the allocator's pools breathe.
const GROWTH_KIB: u64 = 48 << 10;

/// Memory for words of batches: all clients' live ones take a quarter of it.
const BATCH_MEMORY_MIB: u64 = 256;

const MIB: f64 = 1024.0 * 1024.0;

/// What a client got.
#[derive(Default)]
struct Served {
    /// Prompts and their answers; cancelled ones too.
    answers: Vec<(Vec<u32>, Vec<u32>)>,
    /// Tokens wanted of answers that were not cancelled.
    wanted: usize,
    /// Tokens received of them.
    received: usize,
    /// What went wrong.
    errors: Vec<String>,
}

fn session(to: &ConnectString, model: &SmallModel, cache: &Cache) -> sotto_protocol::Result<Session> {
    let options =
        RemoteOptions { client_directory: Some(model.client()), ..RemoteOptions::new(cache.clone()) };
    let Connected { backend, part, accounting, .. } =
        connect::<sotto_models::split::ClientPart>(to, options, &NoProgress)?;
    let decoder = part.causal_model(HeadPrecision::default())?;
    let template = Some(part.template()?);
    let backend = Backend::new(BackendKind::Remote(Box::new(backend)));
    Ok(Session::new(decoder, backend, part.tokenizer, template, accounting))
}

/// Talks until `enough`: client by client another mixture of long prompts and long answers, some cancelled.
fn talk(number: usize, to: &ConnectString, model: &SmallModel, cache: &Cache, enough: &AtomicBool) -> Served {
    let mut served = Served::default();
    let mut turn = 0;
    'visits: while !enough.load(Ordering::Relaxed) {
        let mut session = match session(to, model, cache) {
            Ok(session) => session,
            Err(error) => {
                served.errors.push(error.to_string());
                break;
            }
        };
        for _ in 0..ANSWERS_PER_VISIT {
            turn += 1;
            let (words, tokens) = if number.is_multiple_of(4) { (150, 4) } else { (8, 24) };
            let text = prompt(number + 37 * turn, words);
            let cancel_after = if turn % 7 == 3 { 3 } else { usize::MAX };
            let options = GenerateOptions {
                max_tokens: tokens,
                sampler: SamplerConfig::default(),
                seed: 0,
                ignore_eos: true,
                ..GenerateOptions::default()
            };
            let count = std::cell::Cell::new(0);
            let cancelled = || {
                count.set(count.get() + 1);
                count.get() > cancel_after
            };
            session.clear();
            session.push_user(text.clone());
            match session.answer(&options, &cancelled, &mut |_| {}) {
                Ok(answer) => {
                    if cancel_after == usize::MAX {
                        served.wanted += tokens;
                        served.received += answer.token_ids.len();
                    }
                    served.answers.push((prompt_ids(&text), answer.token_ids));
                }
                Err(error) => {
                    served.errors.push(error.to_string());
                    break 'visits;
                }
            }
            if enough.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    served
}

/// Samples a server's memory for the time of `run`; returns the most that it had while it warmed up, in the first third, and
/// the most afterwards, in KiB. Words of batches are left out, at their peak: they have a budget of their own, and the
/// allocator keeps what it once got for them.
fn watch_memory(server: &ServerProcess, run: Duration) -> (u64, u64) {
    let start = Instant::now();
    let (mut warm, mut later, mut words) = (0, 0, 0);
    while start.elapsed() < run {
        std::thread::sleep(Duration::from_millis(500));
        words = words.max(server.metric("sotto_batches_kept_bytes").unwrap_or(0.0) as u64 >> 10);
        let now = server.own_memory_kib().saturating_sub(words);
        if start.elapsed() < run / 3 {
            warm = now.max(warm);
        } else {
            later = now.max(later);
        }
    }
    (warm, later)
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn many_clients_are_served_and_the_server_does_not_grow() {
    let model = SmallModel::new();
    let (state, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let memory = BATCH_MEMORY_MIB.to_string();
    let setup = Setup::new(&model.split, state.path()).with(&["--batch-memory", &memory]);
    let credentials: Vec<String> = (0..CLIENTS).map(|_| setup.credential()).collect();
    let mut server = ServerProcess::start(&setup);
    server.wait_ready();
    let relay = Relay::start(state.path(), &server.connect.address);
    let enough = AtomicBool::new(false);
    let run = Duration::from_secs(by_length(50, 180, 1800));
    let shared = Cache::at(cache.path());
    let connects: Vec<ConnectString> = credentials
        .iter()
        .enumerate()
        .map(|(number, credential)| {
            let direct = ConnectString { credential: Some(credential.clone()), ..server.connect.clone() };
            if number < WATCHED { relay.connect(&server.connect, credential) } else { direct }
        })
        .collect();
    let (served, (warm, later)) = std::thread::scope(|scope| {
        let (model, shared, enough) = (&model, &shared, &enough);
        let clients: Vec<_> = connects
            .iter()
            .enumerate()
            .map(|(number, to)| scope.spawn(move || talk(number, to, model, shared, enough)))
            .collect();
        let memory = watch_memory(&server, run);
        enough.store(true, Ordering::Relaxed);
        let served: Vec<Served> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (served, memory)
    });

    let errors: Vec<&String> = served.iter().flat_map(|client| &client.errors).collect();
    let good = served.iter().filter(|client| client.errors.is_empty() && !client.answers.is_empty()).count();
    row("clients served", good, CLIENTS, &format!("{} s, {errors:?}", run.as_secs()));
    let (received, wanted) =
        served.iter().fold((0, 0), |(a, b), client| (a + client.received, b + client.wanted));
    row(
        "tokens received under load",
        received,
        wanted,
        &format!("{} a second", wanted as u64 / run.as_secs()),
    );

    // Right answers, of every so many.
    let mut judge = Judge::new(&model.split);
    let answers = served.iter().flat_map(|client| &client.answers).step_by(by_length(4, 8, 40));
    let (mut right, mut judged) = (0, 0);
    for (prompt, answer) in answers {
        right += judge.right(prompt, answer);
        judged += answer.len();
    }
    row("tokens right", right, judged, "under load");

    // Shares among those that do the same.
    let talkers = served.iter().enumerate().filter(|(number, _)| number % 4 != 0 && *number >= WATCHED);
    let counts: Vec<usize> = talkers.map(|(_, client)| client.received).collect();
    let mean = counts.iter().sum::<usize>() / counts.len();
    let fair = counts.iter().filter(|&&count| 3 * count >= mean).count();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    row(
        "clients with a fair share",
        fair,
        counts.len(),
        &format!("{least} to {most} tokens, {mean} on average"),
    );

    let verdict = examine(&relay.log.frames.lock().unwrap());
    row("bodies under a pad of their own", verdict.distinct - verdict.reused, verdict.distinct, "under load");
    let flat = later <= warm + GROWTH_KIB;
    row(
        "server holds nothing afterwards",
        usize::from(flat),
        1,
        &format!("{warm} KiB when warm, then at most {later}"),
    );
    row("server holds nothing afterwards", usize::from(server.wait_idle()), 1, "after the load");
    // Clients that leave give their batches back unless the machine is too busy to hear of it; then the budget bounds them.
    let words = server.metric("sotto_batches_kept_bytes").unwrap();
    let batches = server.metric("sotto_batches_kept").unwrap();
    let note = format!("{words} bytes of {batches} batches after the load");
    row("server holds nothing afterwards", usize::from(words <= BATCH_MEMORY_MIB as f64 * MIB), 1, &note);
}

/// Rounds of many rows: a batch of their masks takes some half a second of a core.
fn large_plan() -> SplitPlan {
    let round = |i: usize| PlanRound::new(format!("r{i}"), 64, [(format!("r{i}.w"), 5120, 0..64)]);
    SplitPlan { kind: PlanKind::Plain, rounds: (0..12).map(round).collect() }
}

/// Evaluation keys of a fresh batch for `plan`.
fn keys(plan: &SplitPlan, digest: [u8; 32]) -> Bytes {
    let instance =
        sotto_protocol::binding::instance(plan, &sotto_protocol::binding::binding(TAU).unwrap(), digest)
            .unwrap();
    let params = instance.params().clone();
    let client = Client::new(Arc::new(instance), ClientOptions { cache_a: false });
    client.new_batch().unwrap().keys().to_bytes(&params).into()
}

/// A server with many rows, and what talking to it takes.
struct Large {
    server: ServerProcess,
    connect: ConnectString,
    digest: [u8; 32],
    keys: Bytes,
    _directories: (tempfile::TempDir, tempfile::TempDir),
}

impl Large {
    fn new() -> Self {
        let (split, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plan = large_plan();
        let digest = write_split(split.path(), &plan);
        let setup = Setup::new(split.path(), state.path());
        let credential = setup.credential();
        let mut server = ServerProcess::start(&setup);
        server.wait_ready();
        let connect = ConnectString { credential: Some(credential), ..server.connect.clone() };
        Self { server, connect, digest, keys: keys(&plan, digest), _directories: (split, state) }
    }

    fn job(&self, lease: &Bytes, id: u8) -> SubmitRequest {
        SubmitRequest {
            lease: lease.clone(),
            batch_id: vec![id; 16].into(),
            digest: self.digest.to_vec().into(),
            keys: self.keys.clone(),
            priority: Priority::Background.into(),
            wanted: Vec::new(),
            ..SubmitRequest::default()
        }
    }

    /// Milliseconds until the server works on nothing any more.
    fn until_free(&self) -> f64 {
        let start = Instant::now();
        let free = eventually(|| {
            let [jobs, streams] =
                ["sotto_mask_jobs", "sotto_body_streams"].map(|name| self.server.metric(name));
            jobs == Some(0.0) && streams == Some(0.0)
        });
        assert!(free, "work goes on for nobody");
        start.elapsed().as_secs_f64() * 1e3
    }
}

/// How a client lets go of its work.
#[derive(Clone, Copy)]
enum LettingGo {
    /// It asks for that.
    Cancel,
    /// It is gone.
    Vanish,
}

/// Begins several mask jobs and a prompt's body, lets go in the middle, and returns how long the server went on.
async fn let_go(large: &Large, how: LettingGo) -> f64 {
    let mut peer = Peer::new(&large.connect).await;
    let lease = peer.lease(large.digest, 1024, 8 * TAU as u64).await.unwrap().lease;
    let mut streams = Vec::new();
    for id in 0..8 {
        streams.push(peer.masks.submit(large.job(&lease, id)).await.unwrap().into_inner());
    }
    // All are under way.
    streams[0].message().await.unwrap().unwrap();
    let (frames, receiver) = tokio::sync::mpsc::channel(1);
    let replies = peer.bodies.stream(ReceiverStream::new(receiver)).await.unwrap();
    let bodies = Bytes::from(vec![1; 256 * 64 * 5]);
    frames
        .send(BodyRequest { seq: 1, tokens: 256, bodies, lease: lease.clone(), ..BodyRequest::default() })
        .await
        .unwrap();
    match how {
        LettingGo::Cancel => {
            drop((frames, replies));
            for id in 0..8_u8 {
                let request = CancelRequest { lease: lease.clone(), batch_id: vec![id; 16].into() };
                // One may have been finished just now.
                let _ = peer.masks.cancel(request).await;
            }
        }
        LettingGo::Vanish => drop((frames, replies, streams, peer)),
    }
    tokio::task::yield_now().await;
    tokio::task::block_in_place(|| large.until_free())
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn cancelled_work_is_not_done() {
    let large = Large::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut times = Vec::new();
    for how in [LettingGo::Cancel, LettingGo::Vanish] {
        for _ in 0..by_length(3, 5, 20) {
            times.push(runtime.block_on(async { let_go(&large, how).await }));
        }
    }
    let busy = large.server.metric("sotto_mask_busy_seconds_total");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(busy, large.server.metric("sotto_mask_busy_seconds_total"), "masks are computed for nobody");
    let within = times.iter().filter(|&&ms| ms < 100.0).count();
    let most = times.iter().copied().fold(0.0, f64::max);
    times.sort_by(f64::total_cmp);
    let note =
        format!("median {:.0} ms, at most {most:.0} ms, {within} within 100 ms", times[times.len() / 2]);
    // The machine may be busy with other things: what must hold is that the work ends long before it is done.
    row("cancels that freed the server", times.iter().filter(|&&ms| ms < 1500.0).count(), times.len(), &note);
}

/// A refusal that says what to do: busy, and when to come back.
fn is_busy(status: &Status) -> bool {
    let when =
        status.metadata().get(METADATA_RETRY_AFTER_MS).and_then(|value| value.to_str().ok()?.parse().ok());
    reason_of(status) == reason::BUSY && when.is_some_and(|ms: u64| (1..=60_000).contains(&ms))
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn too_much_is_refused_and_others_are_served() {
    let model = SmallModel::new();
    let (state, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let setup = Setup::new(&model.split, state.path());
    let [greedy, modest] = [setup.credential(), setup.credential()];
    let mut server = ServerProcess::start(&setup);
    server.wait_ready();
    let before = server.own_memory_kib();
    let to = |credential: &String| ConnectString {
        credential: Some(credential.clone()),
        ..server.connect.clone()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let held = runtime.block_on(async {
        let digest = server.connect.model.unwrap();
        let (mut refused, mut expected, mut held) = (0, 0, Vec::new());
        let mut peer = Peer::new(&to(&greedy)).await;
        let lease = peer.lease(digest, 4096, 0).await.unwrap().lease;
        // Body streams: so many per credential.
        let most = limits::MAX_BODY_STREAMS_PER_CREDENTIAL;
        for number in 0..most + 40 {
            if number % 16 == 0 {
                peer = Peer::new(&to(&greedy)).await;
            }
            let (frames, receiver) = tokio::sync::mpsc::channel(1);
            frames
                .send(BodyRequest { seq: 1, lease: lease.clone(), ..BodyRequest::default() })
                .await
                .unwrap();
            expected += usize::from(number >= most);
            // A new connection is known by the lease that comes with its first call.
            let mut call = Request::new(ReceiverStream::new(receiver));
            call.metadata_mut().insert_bin(METADATA_LEASE, MetadataValue::from_bytes(&lease));
            let outcome = match peer.bodies.stream(call).await {
                Ok(replies) => {
                    let mut replies = replies.into_inner();
                    replies.message().await.map(|_| held.push((frames, replies, peer.bodies.clone())))
                }
                Err(status) => Err(status),
            };
            refused += usize::from(outcome.is_err_and(|status| is_busy(&status)));
        }
        // Leases: so many per credential, some of which are open already.
        for _ in 0..limits::MAX_LEASES_PER_CREDENTIAL + 20 {
            if let Err(status) = peer.lease(digest, 1, 0).await {
                refused += usize::from(is_busy(&status));
            }
        }
        expected += 21;
        row("refusals that say when to come back", refused, expected, "");
        held
    });
    let said = Chat::start(&to(&modest), cache.path(), "w2 w3", 40).finish();
    let right = Judge::new(&model.split).right(&[2, 3], &said.tokens());
    row("tokens right", right, 40, "beside greedy clients");
    row("clients served", usize::from(said.code() == Some(0)), 1, "beside greedy clients");
    drop(held);
    drop(runtime);
    row("server holds nothing afterwards", usize::from(server.wait_idle()), 1, "greedy clients");
    let grown = server.own_memory_kib().saturating_sub(before);
    row(
        "server holds nothing afterwards",
        usize::from(grown < 64 << 10),
        1,
        &format!("greedy clients: {grown} KiB more"),
    );
}
