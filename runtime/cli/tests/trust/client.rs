//! What a client leaves behind: budgets, leases, its cache, and a server that no longer answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::trust_support::link::Link;
use crate::trust_support::model::SmallModel;
use crate::trust_support::process::{ServerProcess, Setup, eventually};
use crate::trust_support::relay::{Act, Relay};
use sha2::{Digest, Sha256};
use sotto_client::{Connected, RemoteOptions, connect};
use sotto_engine::backend::{Backend, BackendKind};
use sotto_engine::session::run_pass;
use sotto_models::linear::LinearBackend;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::split::ClientPart;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::Error;
use sotto_protocol::wire::ClientPartChunk;
use sotto_server::auth::credentials::{Store, UNLIMITED};
use sotto_server::ops::state::CREDENTIALS_FILE;
use sotto_storage::{Cache, NoProgress};

/// A server, a credential with a budget of body tokens, and an empty cache.
struct Stage {
    server: ServerProcess,
    connect: ConnectString,
    state: tempfile::TempDir,
    cache: tempfile::TempDir,
    _model: SmallModel,
}

impl Stage {
    fn new(body_tokens: u64) -> Self {
        let (model, state) = (SmallModel::new(), tempfile::tempdir().unwrap());
        let setup = Setup::new(&model.split, state.path());
        let credential = store(state.path()).add("test", UNLIMITED, body_tokens).unwrap().1;
        let mut server = ServerProcess::start(&setup);
        server.wait_ready();
        let connect = ConnectString { credential: Some(credential), ..server.connect.clone() };
        Self { server, connect, state, cache: tempfile::tempdir().unwrap(), _model: model }
    }

    fn options(&self) -> RemoteOptions {
        RemoteOptions::new(Cache::at(self.cache.path()))
    }

    fn connected(&self) -> Connected {
        connect(&self.connect, self.options(), &NoProgress).unwrap()
    }

    fn charged(&self) -> u64 {
        store(self.state.path()).list().unwrap()[0].1.body_tokens.charged
    }
}

fn store(state: &Path) -> Store {
    Store::open(&state.join(CREDENTIALS_FILE)).unwrap()
}

fn own(error: sotto_models::Error) -> Error {
    sotto_engine::backend::backend_error(error)
}

#[test]
fn a_prompt_too_long_for_the_budget_leaves_it_to_a_shorter_one() {
    let stage = Stage::new(100);
    let mut backend = stage.connected().backend;
    let refused = own(backend.begin_pass(200).unwrap_err());
    assert!(matches!(refused, Error::Budget { wanted: 200, left: 100, .. }), "{refused}");
    backend.end_pass();
    backend.begin_pass(50).unwrap();
    backend.end_pass();
}

#[test]
fn a_client_that_sent_nothing_gives_its_lease_back() {
    let stage = Stage::new(5000);
    let mut connected = stage.connected();
    connected.backend.begin_pass(10).unwrap();
    connected.backend.end_pass();
    assert!(stage.charged() > 0);
    drop(connected);
    eventually(|| stage.charged() == 0);
    assert_eq!(stage.charged(), 0);
}

#[test]
fn cancelling_ends_a_pass_that_a_stalled_server_holds_up() {
    let stage = Stage::new(UNLIMITED);
    let link = Link::start(&stage.connect.address);
    let through = ConnectString { address: link.address.clone(), ..stage.connect.clone() };
    let cancelled = Arc::new(AtomicBool::new(false));
    let options = RemoteOptions { cancelled: Arc::clone(&cancelled), ..stage.options() };
    let connected: Connected = connect(&through, options, &NoProgress).unwrap();
    let mut model = connected.part.causal_model(HeadPrecision::default()).unwrap();
    let mut backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
    run_pass(&mut *model, &mut backend, &[2, 3], &connected.accounting).unwrap();
    link.staller()();
    let pressed = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancelled.store(true, Ordering::SeqCst);
        Instant::now()
    });
    let ended = run_pass(&mut *model, &mut backend, &[4], &connected.accounting).unwrap_err();
    let waited = pressed.join().unwrap().elapsed();
    assert!(matches!(ended, Error::Cancelled), "{ended}");
    assert!(waited < Duration::from_secs(3), "cancelled, and then waited {waited:?}");
}

#[test]
fn a_client_part_that_does_not_fit_its_digest_does_not_stay_in_the_cache() {
    let mut stage = Stage::new(UNLIMITED);
    let relay = Relay::start(stage.state.path(), &stage.connect.address);
    // A chunk that is right by its own hash, and wrong by the one that the digest covers.
    relay.on_chunk(|chunk| {
        if !chunk.last || chunk.offset > 0 || chunk.file != "tokenizer.json" {
            return Act::Forward;
        }
        Act::edit(|chunk: &mut ClientPartChunk| {
            let mut data = chunk.data.to_vec();
            data.push(b' ');
            chunk.size += 1;
            chunk.sha256 = Sha256::digest(&data).to_vec().into();
            chunk.data = data.into();
        })
    });
    let lying = relay.connect(&stage.server.connect, stage.connect.credential.as_deref().unwrap());
    let refused = connect::<ClientPart>(&lying, stage.options(), &NoProgress).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("tokenizer.json"), "{refused}");
    drop(stage.connected());
    assert!(stage.server.runs());
}
