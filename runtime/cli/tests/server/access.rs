//! Who gets in and what it costs: credentials, digests, budgets, leases, over TLS on loopback.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::server_support::{Peer, config, plan, reason as reason_of, start, start_with, write_split};
use sha2::{Digest, Sha256};
use sotto_client::tls;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, reason};
use sotto_protocol::pin::CertificatePin;
use sotto_protocol::wire::{
    BodyRequest, CloseLeaseRequest, GetClientPartRequest, HealthRequest, HelloRequest, ListModelsRequest,
};
use sotto_server::auth::credentials::{Store, UNLIMITED};
use sotto_server::ops::state::CREDENTIALS_FILE;
use sotto_server::{FIRST_CREDENTIAL_BUDGET, Role, Server};
use tonic::Code;

fn hello() -> HelloRequest {
    HelloRequest { versions: vec![2], agent: "test".to_owned() }
}

#[tokio::test]
async fn the_catalogue_answers_and_sends_the_client_part_whole() {
    let running = start();
    let mut peer = Peer::new(running.server.connect_string()).await;
    let reply = peer.catalogue.hello(peer.authorized(hello())).await.unwrap().into_inner();
    assert_eq!((reply.version, reply.body_tokens_left), (2, UNLIMITED));
    let request = peer.authorized(ListModelsRequest {});
    let models = peer.catalogue.list_models(request).await.unwrap().into_inner().models;
    let model = &models[0];
    assert_eq!((models.len(), model.digest.as_ref()), (1, running.digest.as_slice()));
    assert_eq!((model.plan.as_str(), model.tau, model.rounds), ("plain", 64, 2));
    assert_eq!(model.mask_blocks, 120_u32.div_ceil(32));

    let request = peer.authorized(GetClientPartRequest { digest: model.digest.clone() });
    let mut chunks = peer.catalogue.get_client_part(request).await.unwrap().into_inner();
    let mut files: HashMap<String, Vec<u8>> = HashMap::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        let file = files.entry(chunk.file).or_default();
        assert_eq!(chunk.offset, file.len() as u64);
        file.extend_from_slice(&chunk.data);
        if chunk.last {
            assert_eq!(chunk.sha256.as_ref(), Sha256::digest(&file).as_slice());
            assert_eq!(chunk.size, file.len() as u64);
        }
    }
    let dir = running.dir.path().join("client/plain");
    assert_eq!(files.len(), 2);
    for (name, bytes) in files {
        assert!(std::fs::read(dir.join(name)).unwrap() == bytes);
    }
    let health = peer.catalogue.health(HealthRequest {}).await.unwrap().into_inner();
    assert!(health.live && !health.draining);
}

#[tokio::test]
async fn wrong_credentials_are_all_refused_alike() {
    let running = start();
    let string = running.server.connect_string();
    let right = string.credential.clone().unwrap();
    let (id, secret) = right.split_once('.').unwrap();
    let other_id = format!("{}.{secret}", "0".repeat(16));
    let other_secret = format!("{id}.{}", "A".repeat(43));
    for wrong in ["", "x.y", other_id.as_str(), &other_secret, &"z".repeat(5000)] {
        let mut peer = Peer::with_credential(string, wrong.to_owned()).await;
        let refused = [
            peer.catalogue.hello(peer.authorized(hello())).await.unwrap_err(),
            peer.catalogue.list_models(peer.authorized(ListModelsRequest {})).await.unwrap_err(),
            peer.lease(running.digest, 1, 0).await.unwrap_err(),
        ];
        for status in refused {
            assert_eq!((status.code(), reason_of(&status)), (Code::Unauthenticated, reason::CREDENTIAL));
            assert_eq!(status.message(), Error::Credential.to_string());
        }
    }
}

#[tokio::test]
async fn versions_digests_and_pins_must_match() {
    let running = start();
    let string = running.server.connect_string();
    let mut peer = Peer::new(string).await;
    let request = peer.authorized(HelloRequest { versions: vec![1, 3], agent: String::new() });
    assert_eq!(reason_of(&peer.catalogue.hello(request).await.unwrap_err()), reason::VERSION);
    let request = peer.authorized(HelloRequest { versions: vec![2], agent: "x".repeat(65) });
    assert_eq!(reason_of(&peer.catalogue.hello(request).await.unwrap_err()), reason::MALFORMED);
    let status = peer.lease([9; 32], 1, 0).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::NotFound, reason::UNKNOWN_MODEL));
    let request = peer.authorized(GetClientPartRequest { digest: vec![1, 2, 3].into() });
    let status = peer.catalogue.get_client_part(request).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::InvalidArgument, reason::MALFORMED));

    let refused = tls::connect(&string.address, CertificatePin([1; 32]), Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(Error::Tls(_))), "{refused:?}");
    let nobody = tls::connect("127.0.0.1:1", string.pin, Duration::from_secs(5)).await;
    assert!(matches!(nobody, Err(Error::Connect { .. })), "{nobody:?}");
}

#[tokio::test]
async fn budgets_run_out_and_unused_leases_come_back() {
    let state = tempfile::tempdir().unwrap();
    let running = start_with(|config| {
        config.state = Some(state.path().to_owned());
        config.ephemeral_credential = false;
    });
    let string = running.server.connect_string();
    let mut first = Peer::new(string).await;
    let reply = first.catalogue.hello(first.authorized(hello())).await.unwrap().into_inner();
    assert_eq!(reply.mask_slots_left, FIRST_CREDENTIAL_BUDGET);

    let store = Store::open(&state.path().join(CREDENTIALS_FILE)).unwrap();
    let (id, text) = store.add("small", 100, 30).unwrap();
    let mut peer = Peer::with_credential(string, text).await;
    let lease = peer.lease(running.digest, 20, 64).await.unwrap();
    assert_eq!((lease.body_tokens, lease.mask_slots), (20, 64));
    let rest = peer.lease(running.digest, 20, 0).await.unwrap();
    assert_eq!(rest.body_tokens, 10);
    let status = peer.lease(running.digest, 20, 0).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::ResourceExhausted, reason::BUDGET));
    let status = peer.lease(running.digest, 0, 64).await.unwrap_err();
    assert_eq!(reason_of(&status), reason::BUDGET);

    let request = first.authorized(CloseLeaseRequest { lease: lease.lease.clone() });
    assert_eq!(reason_of(&first.catalogue.close_lease(request).await.unwrap_err()), reason::LEASE);
    let request = peer.authorized(CloseLeaseRequest { lease: lease.lease.clone() });
    let closed = peer.catalogue.close_lease(request).await.unwrap().into_inner();
    assert_eq!((closed.body_tokens_returned, closed.mask_slots_returned), (20, 64));
    let request = peer.authorized(CloseLeaseRequest { lease: lease.lease });
    assert_eq!(reason_of(&peer.catalogue.close_lease(request).await.unwrap_err()), reason::LEASE);

    store.revoke(id).unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(reason_of(&peer.lease(running.digest, 1, 0).await.unwrap_err()), reason::CREDENTIAL);
}

#[tokio::test]
async fn body_streams_need_a_lease_of_this_run_and_well_formed_frames() {
    let running = start();
    let mut peer = Peer::new(running.server.connect_string()).await;
    let good = peer.lease(running.digest, 100, 0).await.unwrap().lease;
    let with_lease = |frame: BodyRequest| BodyRequest { lease: good.clone(), ..frame };
    let mut forged = good.to_vec();
    forged[60] ^= 1;
    let cases = [
        (vec![BodyRequest { seq: 1, ..BodyRequest::default() }], reason::LEASE),
        (vec![BodyRequest { seq: 1, lease: forged.into(), ..BodyRequest::default() }], reason::LEASE),
        (vec![BodyRequest { seq: 1, lease: vec![1; 3000].into(), ..BodyRequest::default() }], reason::LEASE),
        (
            vec![
                with_lease(BodyRequest { seq: 5, ..BodyRequest::default() }),
                BodyRequest { seq: 5, ..BodyRequest::default() },
            ],
            reason::MALFORMED,
        ),
        (vec![with_lease(BodyRequest { round: 2, tokens: 1, ..BodyRequest::default() })], reason::MALFORMED),
        (vec![with_lease(BodyRequest { tokens: 257, ..BodyRequest::default() })], reason::MALFORMED),
        (
            vec![with_lease(BodyRequest { tokens: 1, bodies: vec![0; 7].into(), ..BodyRequest::default() })],
            reason::MALFORMED,
        ),
        (
            vec![with_lease(BodyRequest { bodies: vec![0; 7].into(), ..BodyRequest::default() })],
            reason::MALFORMED,
        ),
    ];
    for (number, (frames, expected)) in cases.into_iter().enumerate() {
        let mut replies = peer.bodies.stream(tokio_stream::iter(frames)).await.unwrap().into_inner();
        let status = loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("case {number} ended without a refusal"),
                Err(status) => break status,
            }
        };
        assert_eq!(reason_of(&status), expected, "case {number}: {status}");
    }
    let too_long = BodyRequest { seq: 1, bodies: vec![0; 25 << 20].into(), ..BodyRequest::default() };
    let refused = match peer.bodies.stream(tokio_stream::iter(vec![too_long])).await {
        Err(_) => true,
        Ok(replies) => !matches!(replies.into_inner().message().await, Ok(Some(_))),
    };
    assert!(refused, "an over-long frame gets no answer");
    // The server is well after all that.
    peer.catalogue.hello(peer.authorized(hello())).await.unwrap();
}

#[test]
fn starting_fails_with_the_right_error() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Server::start(config(dir.path())).err().unwrap();
    assert!(matches!(missing, Error::NotASplit { .. }), "{missing}");
    write_split(dir.path(), &plan());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = config(dir.path());
    busy.listen = vec![taken.local_addr().unwrap()];
    let error = Server::start(busy).err().unwrap();
    assert!(matches!(error, Error::PortInUse { .. }) && sotto::exit::exit_code(&error) == 7, "{error}");
    assert!(matches!(Role::parse_list("mask,cook"), Err(Error::Usage(_))));
    assert_eq!(Role::parse_list("body,mask,body").unwrap(), vec![Role::Body, Role::Mask]);
}

/// Not a test of its own: the process that `budgets_survive_kill_9` kills.
#[test]
#[ignore = "runs as a child of budgets_survive_kill_9"]
fn child_server() {
    let (Some(split), Some(state)) = (std::env::var_os("TEST_SPLIT"), std::env::var_os("TEST_STATE")) else {
        return;
    };
    let mut config = config(Path::new(&split));
    config.state = Some(state.into());
    config.ephemeral_credential = false;
    let server = Server::start(config).unwrap();
    println!("\nconnect {}", server.connect_string());
    server.join().unwrap();
}

#[test]
fn budgets_survive_kill_9() {
    let (split, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let digest = write_split(split.path(), &plan());
    let (_, credential) =
        Store::open(&state.path().join(CREDENTIALS_FILE)).unwrap().add("a", 640, 1000).unwrap();
    let run = |then: &dyn Fn(&ConnectString)| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "access::child_server", "--ignored", "--nocapture"])
            .envs([("TEST_SPLIT", split.path()), ("TEST_STATE", state.path())])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("connect ").map(str::to_owned)).unwrap();
        then(&line.parse().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lease = std::cell::RefCell::new(bytes::Bytes::new());
    run(&|string| {
        runtime.block_on(async {
            let mut peer = Peer::with_credential(string, credential.clone()).await;
            *lease.borrow_mut() = peer.lease(digest, 900, 640).await.unwrap().lease;
        });
    });
    run(&|string| {
        runtime.block_on(async {
            let mut peer = Peer::with_credential(string, credential.clone()).await;
            let reply = peer.catalogue.hello(peer.authorized(hello())).await.unwrap().into_inner();
            assert_eq!((reply.body_tokens_left, reply.mask_slots_left), (100, 0));
            let frame = BodyRequest { seq: 1, lease: lease.borrow().clone(), ..BodyRequest::default() };
            let mut replies = peer.bodies.stream(tokio_stream::iter(vec![frame])).await.unwrap().into_inner();
            let status = replies.message().await.unwrap_err();
            assert_eq!(reason_of(&status), reason::LEASE, "the lease of the killed process is void");
        });
    });
}
