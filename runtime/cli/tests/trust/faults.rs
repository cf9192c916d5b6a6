//! Faults between real processes: the conversation goes on, or ends with a clear error; no pad hides two messages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::trust_support::model::{Judge, SmallModel, prompt, prompt_ids};
use crate::trust_support::pads::{self, examine};
use crate::trust_support::process::{Chat, Said, ServerProcess, Setup, eventually};
use crate::trust_support::relay::{Act, Relay};
use crate::trust_support::{Length, by_length, length, row, wire};

/// Tokens of an answer in these tests: several batches of masks.
const TOKENS: usize = 150;

/// A split, a state directory with a credential, and a server reached through a relay.
struct Stage {
    model: SmallModel,
    setup: Setup,
    credential: String,
    server: Arc<Mutex<ServerProcess>>,
    relay: Relay,
    cache: tempfile::TempDir,
    _state: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(|setup| setup)
    }

    fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let (model, state) = (SmallModel::new(), tempfile::tempdir().unwrap());
        let setup = change(Setup::new(&model.split, state.path()));
        let credential = setup.credential();
        let mut server = ServerProcess::start(&setup);
        server.wait_ready();
        let relay = Relay::start(state.path(), &server.connect.address);
        let server = Arc::new(Mutex::new(server));
        let cache = tempfile::tempdir().unwrap();
        Self { model, setup, credential, server, relay, cache, _state: state }
    }

    fn chat(&self, prompt: &str, tokens: usize) -> Chat {
        let connect = self.relay.connect(&self.server.lock().unwrap().connect, &self.credential);
        Chat::start(&connect, self.cache.path(), prompt, tokens)
    }

    /// Runs a chat to its end and checks all that must hold after a fault that a conversation survives.
    fn survives(&self, fault: &str) {
        let prompt = prompt(fault.len(), 70);
        let said = self.chat(&prompt, TOKENS).finish();
        self.check_survived(fault, &prompt, &said);
    }

    fn check_survived(&self, fault: &str, prompt: &str, said: &Said) {
        let tokens = said.tokens();
        let right = Judge::new(&self.model.split).right(&prompt_ids(prompt), &tokens);
        row("tokens right", right, TOKENS, fault);
        self.check_pads(fault);
        let idle = self.server.lock().unwrap().wait_idle();
        row("server holds nothing afterwards", usize::from(idle), 1, fault);
        row("faults survived", 1, 1, fault);
    }

    /// No pad hid two messages, among all that reached the relay.
    fn check_pads(&self, fault: &str) {
        let frames = self.relay.log.frames.lock().unwrap();
        let verdict = examine(&frames);
        println!("{fault}: {verdict:?}");
        row("bodies under a pad of their own", verdict.distinct - verdict.reused, verdict.distinct, fault);
        // Each batch has keys of its own, and slots for 64 tokens.
        let jobs = self.relay.log.jobs.lock().unwrap();
        let mut ids: Vec<_> = jobs.iter().map(|job| (&job.batch_id, &job.keys)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut keys: Vec<_> = ids.iter().map(|(_, keys)| *keys).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut batches: Vec<_> = ids.iter().map(|(batch, _)| *batch).collect();
        batches.dedup();
        assert!(batches.len() == ids.len() && keys.len() == ids.len(), "one batch, one set of keys");
        assert!(verdict.tokens <= ids.len() * crate::trust_support::model::TAU, "more tokens than slots");
    }

    /// Kills the server and starts it again, as a hook of the relay does it.
    fn restarter(&self) -> impl Fn() + Send + use<> {
        let (server, setup, retarget) =
            (Arc::clone(&self.server), self.setup.clone(), self.relay.retargeter());
        move || {
            let mut server = server.lock().unwrap();
            server.kill();
            *server = ServerProcess::start(&setup);
            retarget(&server.connect.address);
        }
    }
}

/// Calls `then` for the frames of these numbers, counted from one.
fn at<T, A>(
    numbers: Vec<usize>,
    mut then: impl FnMut() -> Act<A> + Send + 'static,
) -> impl FnMut(&T) -> Act<A> + Send + 'static {
    let seen = AtomicUsize::new(0);
    move |_| {
        let number = seen.fetch_add(1, Ordering::Relaxed) + 1;
        if numbers.contains(&number) { then() } else { Act::Forward }
    }
}

#[test]
fn the_proof_about_pads_can_fail() {
    let stage = Stage::new();
    assert_eq!(stage.chat(&prompt(1, 5), 20).finish().tokens().len(), 20);
    let mut frames = stage.relay.log.frames.lock().unwrap().clone();
    let clean = examine(&frames);
    assert!(clean.reused == 0 && clean.distinct > 200, "{clean:?}");
    // The first body of the last frame.
    let mut again = frames.last().unwrap().clone();
    again.bodies = again.bodies.slice(..again.bodies.len() / again.tokens as usize);
    again.tokens = 1;
    // What a second message under the same pad looks like: other activations, each far below the modulus.
    again.bodies =
        pads::under_the_same_pad(&again.bodies, again.bits, |i| (i as i64 * 7919 % 2001 - 1000) << 14).into();
    frames.push(again);
    assert_eq!(examine(&frames).reused, 1);
}

#[test]
fn a_batch_leaves_no_lease_open() {
    let stage = Stage::new();
    assert_eq!(stage.chat(&prompt(2, 5), 400).finish().tokens().len(), 400);
    // Some six batches were used; those being made when the client left had no chance to close theirs.
    let (jobs, open) =
        (stage.relay.log.jobs.lock().unwrap().len(), stage.relay.log.leases.lock().unwrap().len());
    assert!(jobs > 6 && open <= 3, "{open} leases are open after {jobs} batches");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_server_killed_and_restarted_in_the_middle_of_a_token() {
    let stage = Stage::new();
    let restart = stage.restarter();
    let times = by_length(vec![150], vec![150, 700], (1..12).map(|i| i * 150 + i).collect());
    stage.relay.on_body(at(times, move || {
        restart();
        Act::Forward
    }));
    stage.survives("server killed and restarted mid-token");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_connection_cut_between_request_and_reply() {
    let stage = Stage::new();
    let cuts = by_length(vec![20, 21, 400], vec![20, 21, 22, 400, 900, 901], (10..800).step_by(40).collect());
    let count = cuts.len();
    stage.relay.on_body(at(cuts, || Act::CutAfter));
    stage.survives("connection cut between request and reply");
    let verdict = examine(&stage.relay.log.frames.lock().unwrap());
    assert!(verdict.repeated >= count, "the same bytes were to be sent again: {verdict:?}");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_connection_cut_before_the_request() {
    let stage = Stage::new();
    stage.relay.on_body(at(vec![30, 300], || Act::CutBefore));
    stage.survives("connection cut before the request arrives");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn an_idle_stream_ended_by_the_server() {
    let stage = Stage::new();
    let ended = || {
        let mut status = tonic::Status::cancelled("idle");
        status.metadata_mut().insert("sotto-reason", "cancelled".parse().unwrap());
        Act::Refuse(status)
    };
    stage.relay.on_body(at(vec![100], ended));
    stage.survives("idle stream ended by the server");
}

/// A server's refusal with this stable word.
fn refusal<A>(word: &'static str) -> Act<A> {
    let mut status = tonic::Status::not_found("refused by the test");
    status.metadata_mut().insert("sotto-reason", word.parse().unwrap());
    Act::Refuse(status)
}

#[test]
fn an_evicted_batch_loses_no_token() {
    if ["full", "stateless"].contains(&wire().as_str()) {
        // Servers keep no words of a batch in these forms.
        return;
    }
    let stage = Stage::new();
    // In the prompt, in the middle of a token, and twice in a row.
    stage.relay.on_body(at(vec![2, 200, 201, 500], || refusal("batch-dead")));
    stage.survives("batches evicted by the server");
}

#[test]
fn a_reused_slot_ends_the_client_at_once() {
    let stage = Stage::new();
    stage.relay.on_body(at(vec![100], || refusal("slot-reused")));
    let said = stage.chat(&prompt(3, 5), TOKENS).finish();
    assert!(said.is_clear_error(5, "a copy of this program"));
    let frames = stage.relay.log.frames.lock().unwrap();
    assert_eq!(frames.len(), 100, "nothing is sent after the alarm");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_slow_link() {
    let stage = Stage::new();
    stage.relay.link.slow(Duration::from_millis(2));
    stage.survives("slow link");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust; takes the client's patience, a minute"]
fn a_server_that_stalls_once() {
    if length() < Length::Short {
        return;
    }
    let stage = Stage::new();
    stage.relay.on_body(at(vec![100], || Act::Stall));
    stage.survives("server stalls in the middle of a token");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust; waits for the keep-alive of the transport"]
fn a_link_that_stalls_for_good() {
    if length() < Length::Full {
        return;
    }
    let stage = Stage::new();
    let link = stage.relay.link.staller();
    stage.relay.on_body(at(vec![100], move || {
        link();
        Act::Forward
    }));
    let said = stage.chat(&prompt(3, 20), TOKENS).finish();
    let clear = said.is_clear_error(3, "connection lost") || said.is_clear_error(3, "cannot reach");
    row("faults survived", usize::from(clear), 1, "link stalls for good: a clear error");
    stage.check_pads("link stalls for good");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_server_that_stays_away() {
    if length() < Length::Short {
        return;
    }
    let stage = Stage::new();
    let server = Arc::clone(&stage.server);
    stage.relay.on_body(at(vec![100], move || {
        server.lock().unwrap().kill();
        Act::Forward
    }));
    let said = stage.chat(&prompt(4, 20), TOKENS).finish();
    row("faults survived", usize::from(said.is_clear_error(3, "")), 1, "server gone for good: a clear error");
    stage.check_pads("server gone for good");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn clients_that_stall_or_vanish_take_nobody_with_them() {
    let stage = Stage::new();
    // After a first conversation: what the server opens once and keeps is open then.
    assert_eq!(stage.chat("w2 w3", 5).finish().tokens().len(), 5);
    assert!(stage.server.lock().unwrap().wait_idle());
    let idle = stage.server.lock().unwrap().descriptors();
    let address = stage.server.lock().unwrap().connect.address.clone();
    // Some never begin TLS, some vanish in the middle of an answer.
    let silent: Vec<_> = (0..32).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    for seed in 0..4 {
        let stopped = stage.chat(&prompt(seed, 30), 2000);
        assert!(eventually(|| stage.relay.log.frames.lock().unwrap().len() > 20 * (seed + 1)));
        // Stopped, then killed: the connection stays open for a while with nobody at its other end.
        assert!(Command::new("kill").args(["-STOP", &stopped.id().to_string()]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(100));
        stopped.kill();
    }
    stage.survives("stalled and vanished clients");
    drop(silent);
    let server = stage.server.lock().unwrap();
    // A connection that never began TLS is in no gauge, only among the descriptors.
    let closed = server.wait_idle() && eventually(|| server.descriptors() <= idle + 2);
    let note =
        format!("{idle} descriptors before, {} after stalled and vanished clients", server.descriptors());
    row("server holds nothing afterwards", usize::from(closed), 1, &note);
}

/// A server in several processes: the catalogue, and `count` of another role, each with a relay of its own.
struct Roles {
    stage: Stage,
    replicas: Vec<Arc<Mutex<ServerProcess>>>,
    relays: Vec<Relay>,
}

impl Roles {
    /// The catalogue with every role but `role`; that one in processes of its own.
    fn start(role: &str, rest: &str, count: usize) -> Self {
        let (model, state) = (SmallModel::new(), tempfile::tempdir().unwrap());
        let base = Setup::new(&model.split, state.path());
        let credential = base.credential();
        let (mut replicas, mut relays) = (Vec::new(), Vec::new());
        let mut arguments = vec!["--role".to_owned(), rest.to_owned()];
        // One after the other: the first prepares and saves the tables that the others read.
        for _ in 0..count {
            let mut replica = ServerProcess::start(&base.clone().with(&["--role", role]));
            replica.wait_ready();
            let relay = Relay::start(state.path(), &replica.connect.address);
            arguments.extend([format!("--{role}-address"), relay.link.address.clone()]);
            relays.push(relay);
            replicas.push(Arc::new(Mutex::new(replica)));
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let setup = base.with(&arguments);
        let mut server = ServerProcess::start(&setup);
        server.wait_ready();
        let relay = Relay::start(state.path(), &server.connect.address);
        let (server, cache) = (Arc::new(Mutex::new(server)), tempfile::tempdir().unwrap());
        let stage = Stage { model, setup, credential, server, relay, cache, _state: state };
        Self { stage, replicas, relays }
    }

    /// As [`Stage::survives`], over what all processes saw together.
    fn survives(&self, fault: &str) {
        let prompt = prompt(fault.len(), 70);
        let said = self.stage.chat(&prompt, TOKENS).finish();
        let (frames, jobs) = (&self.stage.relay.log.frames, &self.stage.relay.log.jobs);
        for relay in &self.relays {
            frames.lock().unwrap().extend(relay.log.frames.lock().unwrap().drain(..));
            jobs.lock().unwrap().extend(relay.log.jobs.lock().unwrap().drain(..));
        }
        self.stage.check_survived(fault, &prompt, &said);
    }
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_body_replica_lost_while_another_remains() {
    let roles = Roles::start("body", "catalogue,mask", 2);
    for (relay, replica) in roles.relays.iter().zip(&roles.replicas) {
        // Whichever the client uses; the other one must stay.
        let (replica, others) = (Arc::clone(replica), roles.replicas.clone());
        relay.on_body(at(vec![200], move || {
            if others.iter().all(|other| Arc::ptr_eq(other, &replica) || other.lock().unwrap().runs()) {
                replica.lock().unwrap().kill();
            }
            Act::Forward
        }));
    }
    roles.survives("body replica lost while another remains");
    let running = roles.replicas.iter().filter(|replica| replica.lock().unwrap().runs()).count();
    assert_eq!(running, 1, "one replica was to be lost, one to remain");
}

/// Loses the worker at the other end of `relay` before it can pass on the last piece of a batch that has several, the first
/// time this comes up. The earlier ones have had time to arrive: what a broken connection holds is lost.
fn lose_mid_batch(relay: &Relay, lost: Arc<AtomicUsize>, lose: impl Fn() + Send + 'static) {
    relay.on_piece(move |piece| {
        let last = piece.first_block > 0 && piece.blocks_left == 0;
        if last && lost.fetch_add(1, Ordering::Relaxed) == 0 {
            lose();
            return Act::CutAfter;
        }
        Act::Forward
    });
}

/// Some job was submitted again for the blocks that were still missing.
fn resumed(relay: &Relay) -> bool {
    relay.log.jobs.lock().unwrap().iter().any(|job| !job.wanted.is_empty())
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_mask_worker_lost_in_the_middle_of_a_batch() {
    let roles = Roles::start("mask", "catalogue,body", 2);
    let lost = Arc::new(AtomicUsize::new(0));
    for (relay, replica) in roles.relays.iter().zip(&roles.replicas) {
        let replica = Arc::clone(replica);
        lose_mid_batch(relay, Arc::clone(&lost), move || replica.lock().unwrap().kill());
    }
    roles.survives("mask worker lost mid-batch while another remains");
    let running = roles.replicas.iter().filter(|replica| replica.lock().unwrap().runs()).count();
    assert_eq!(running, 1, "one worker was to be lost, one to remain");
    assert!(resumed(&roles.stage.relay), "the other worker was to compute the missing blocks");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn the_only_mask_worker_restarted_in_the_middle_of_a_batch() {
    let stage = Stage::new();
    lose_mid_batch(&stage.relay, Arc::default(), stage.restarter());
    stage.survives("the server restarted in the middle of a batch of masks");
    let kept_here = ["full", "stateless"].contains(&wire().as_str());
    assert_eq!(resumed(&stage.relay), kept_here, "masks that arrived are kept; words at the server are not");
}

/// A library that shifts the clock of the wall, and only that, by the seconds that a file holds.
fn clock_shifter(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    let code = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    int r = syscall(SYS_clock_gettime, id, t);
    if (r == 0 && id == CLOCK_REALTIME) {
        FILE *f = fopen(getenv("CLOCK_SHIFT"), "r");
        long s = 0;
        if (f) { if (fscanf(f, "%ld", &s) != 1) s = 0; fclose(f); }
        t->tv_sec += s;
    }
    return r;
}
"#;
    std::fs::write(&source, code).unwrap();
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.unwrap().success(), "a C compiler is needed, as for the build");
    library
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_clock_that_jumps() {
    let directory = tempfile::tempdir().unwrap();
    let (library, shift) = (clock_shifter(directory.path()), directory.path().join("shift"));
    std::fs::write(&shift, "0").unwrap();
    let stage = Stage::with(|mut setup| {
        setup.environment.push(("LD_PRELOAD".to_owned(), library.display().to_string()));
        setup.environment.push(("CLOCK_SHIFT".to_owned(), shift.display().to_string()));
        setup
    });
    // Two days ahead, then two days back: further than any lease lives.
    let mut jumps = ["172800", "-172800"].into_iter();
    stage.relay.on_body(at(vec![300, 3000], move || {
        std::fs::write(&shift, jumps.next().unwrap()).unwrap();
        Act::Forward
    }));
    stage.survives("clock jumps two days ahead and back");
    assert!(stage.relay.log.frames.lock().unwrap().len() > 3000, "both jumps were to happen");
}

/// Shell command that lets no file grow beyond this many blocks of 512 bytes.
fn small_files(blocks: usize) -> String {
    format!("ulimit -f {blocks}")
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_full_disk() {
    let stage = Stage::new();
    let connect = stage.relay.connect(&stage.server.lock().unwrap().connect, &stage.credential);
    let client = Chat::start_with(&small_files(4), &connect, stage.cache.path(), "w2 w3", 5).finish();
    row(
        "faults survived",
        usize::from(client.is_clear_error(8, "no space left")),
        1,
        "disk full under the client",
    );

    let (state, model) = (tempfile::tempdir().unwrap(), SmallModel::new());
    let mut setup = Setup::new(&model.split, state.path());
    setup.prefix = small_files(1);
    let ended = ServerProcess::try_start(&setup).err().expect("no state directory can be written");
    let clear = ended.status.code() == Some(8) && ended.errors.contains("no space left");
    row(
        "faults survived",
        usize::from(clear),
        1,
        &format!("disk full at the server's start: {}", ended.errors),
    );

    // Room for the state directory but not for the tables: they are not saved, and serve all the same.
    let state = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(&model.split, state.path());
    let credential = setup.credential();
    setup.prefix = small_files(16_384);
    let tables = model.split.join("server/plain").join(sotto_protocol::binding::TABLES_FILE);
    let mut server = ServerProcess::start(&setup);
    server.wait_ready();
    let relay = Relay::start(state.path(), &server.connect.address);
    let connect = relay.connect(&server.connect, &credential);
    let said = Chat::start(&connect, stage.cache.path(), "w2 w3", 20).finish();
    let right = Judge::new(&model.split).right(&[2, 3], &said.tokens());
    assert!(!tables.exists(), "the tables were to be too long for the disk");
    row("tokens right", right, 20, "disk full while the tables are saved");
    row("faults survived", 1, 1, "disk full while the tables are saved");
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn too_little_memory() {
    let model = SmallModel::new();
    let (state, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // 145 MB of expanded tables do not fit, 36 MB of compact ones do: the server must see that by itself.
    let mut setup = Setup::new(&model.split, state.path());
    setup.arguments = vec!["--form".to_owned(), "auto".to_owned()];
    setup.prefix = "ulimit -d 140000".to_owned();
    let credential = setup.credential();
    let mut server = ServerProcess::start(&setup);
    server.wait_ready();
    let relay = Relay::start(state.path(), &server.connect.address);
    let connect = relay.connect(&server.connect, &credential);
    let said = Chat::start(&connect, cache.path(), "w2 w3", 100).finish();
    let right = Judge::new(&model.split).right(&[2, 3], &said.tokens());
    row("tokens right", right, 100, "server within a memory limit");
    row("faults survived", usize::from(server.runs()), 1, "server within a memory limit");
    server.kill();

    // What does not fit in spite of that leaves the tables compact, or ends the process, which says why and reaches the
    // client as a clear error: it depends on which allocation comes first.
    setup.arguments = vec!["--form".to_owned(), "ntt".to_owned()];
    setup.prefix = "ulimit -d 100000".to_owned();
    let mut server = ServerProcess::start(&setup);
    relay.retarget(&server.connect.address);
    let said = Chat::start(&connect, cache.path(), "w2 w3", 200).finish();
    let (good, note) = if said.code() == Some(0) {
        (
            server.runs() && Judge::new(&model.split).right(&[2, 3], &said.tokens()) == 200,
            "it serves".to_owned(),
        )
    } else {
        let status = server.wait().expect("a client that fails without a server that ended");
        let errors = server.errors();
        let named =
            ["memory allocation of", "Cannot allocate memory"].iter().any(|words| errors.contains(words));
        (!status.success() && named && said.is_clear_error(3, ""), format!("{status}, {}", errors.trim()))
    };
    row("faults survived", usize::from(good), 1, &format!("server beyond its memory limit: {note}"));
}
