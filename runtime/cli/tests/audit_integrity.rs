//! `--check-weights` with real processes, a real model and servers that lie.

mod client_support;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use client_support::{Serving, errors, json, sotto};
use fhe_layers::WireForm;
use sotto_client::Connected;
use sotto_client::{CheckTally, WeightCheck, WirePreference};
use sotto_engine::backend::{Backend, BackendKind, backend_error};
use sotto_engine::embedded::{Embedded, EmbeddedOptions, LocalModel, local_model};
use sotto_engine::fetch::ModelRef;
use sotto_models::split::plan::PlanKind;
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, NoProgress};

/// A small encoder with its split and prepared tables.
fn minilm() -> &'static LocalModel {
    static MODEL: OnceLock<LocalModel> = OnceLock::new();
    MODEL.get_or_init(|| {
        let cache = Cache::from_env().unwrap();
        let binding = sotto_protocol::binding::binding(64).unwrap();
        let model = ModelRef::parse("minilm").unwrap();
        prepared(local_model(&model, PlanKind::Plain, &binding, &cache, &NoProgress).unwrap())
    })
}

/// The model with its tables, prepared now if nobody did before.
fn prepared(local: LocalModel) -> LocalModel {
    let tables = local.server_directory().join("tables.bin");
    if !tables.is_file() {
        let entries = sotto_server::models::split_store::find(&local.directory).unwrap();
        sotto_server::models::split_store::prepare(&entries[0], 2, &|_| {}).unwrap();
    }
    // A server of another test may be the one that saves them.
    let saved = (0..6000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        tables.is_file()
    });
    assert!(saved, "nobody saved the tables");
    local
}

/// A copy of the encoder's split whose server part `change` may alter, file by file.
fn altered(change: impl Fn(&Path)) -> (tempfile::TempDir, LocalModel) {
    altered_copy(minilm(), change)
}

fn altered_copy(honest: &LocalModel, change: impl Fn(&Path)) -> (tempfile::TempDir, LocalModel) {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalModel { directory: dir.path().to_owned(), ..honest.clone() };
    for (from, to) in [
        (honest.client_directory(), local.client_directory()),
        (honest.server_directory(), local.server_directory()),
    ] {
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            // Tables of a large model are shared, unless they are what is altered.
            if file.metadata().unwrap().len() > 1 << 29 {
                std::os::unix::fs::symlink(file.path(), to.join(file.file_name())).unwrap();
            } else {
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            }
        }
    }
    change(&local.server_directory());
    (dir, local)
}

/// Adds one to one weight of a matrix: the last byte of its row-major data.
fn change_one_weight(server: &Path, matrix: &str) {
    let path = server.join("weights.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let end = index[matrix]["data_offsets"][1].as_u64().unwrap() as usize;
    let weight = &mut bytes[8 + header + end - 1];
    *weight = (*weight).cast_signed().wrapping_add(if *weight == 127 { -1 } else { 1 }).cast_unsigned();
    std::fs::write(&path, bytes).unwrap();
}

struct Client {
    connected: Connected,
    _server: Embedded,
}

fn client_of(local: &LocalModel) -> Client {
    let options = EmbeddedOptions {
        program: Some(env!("CARGO_BIN_EXE_sotto").into()),
        wire: WirePreference::Exactly(WireForm::stateless()),
        ..EmbeddedOptions::new(Cache::from_env().unwrap())
    };
    let (server, mut connected) = Embedded::start(local, options, &NoProgress).unwrap();
    let check = Arc::new(WeightCheck::of_split(&minilm().server_directory()).unwrap());
    connected.backend.check_weights(check).unwrap();
    Client { connected, _server: server }
}

/// Embeds a sentence twice; the outcomes, the tally and the last round that was sent.
fn embed_twice(client: Client) -> ([Result<()>; 2], CheckTally, String) {
    let Client { connected, _server } = client;
    let encoder = connected.part.encoder().unwrap();
    let ids = connected.part.tokenizer.encode("The mountain looked smaller on paper.").unwrap();
    let mut backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
    let mut embed = || {
        let pass = sotto_models::linear::run_pass(&mut backend, ids.len(), |backend| {
            encoder.embed(&[&ids], backend)
        });
        pass.map(|_| ()).map_err(backend_error)
    };
    let outcomes = [embed(), embed()];
    let BackendKind::Remote(remote) = backend.kind() else { unreachable!() };
    let last = remote.last_body().unwrap().round.clone();
    (outcomes, remote.check_tally().unwrap(), last)
}

fn round_names() -> Vec<String> {
    let part = sotto_models::split::ServerPart::open(minilm().server_directory()).unwrap();
    part.plan().rounds.iter().map(|round| round.name.clone()).collect()
}

#[test]
fn an_honest_server_passes() {
    let (outcomes, tally, last) = embed_twice(client_of(minilm()));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(tally.replies > 200 && tally.wrong_values == 0, "{tally:?}");
    assert_eq!(Some(&last), round_names().last());
}

#[test]
fn one_changed_weight_ends_the_session_in_its_round() {
    let part = sotto_models::split::ServerPart::open(minilm().server_directory()).unwrap();
    let round = &part.plan().rounds[part.plan().rounds.len() / 2];
    let (_dir, lying) = altered(|server| change_one_weight(server, &round.matrices[0].name));
    let (outcomes, tally, last) = embed_twice(client_of(&lying));
    for outcome in &outcomes {
        assert!(
            matches!(outcome, Err(Error::WrongWeights { round: caught }) if *caught == round.name),
            "{outcome:?}"
        );
    }
    // Nothing was sent after the wrong reply, and nothing in a second pass.
    assert_eq!(last, round.name);
    assert_eq!(tally.wrong_values, 0);
}

#[test]
fn wrong_masks_are_noticed_and_change_nothing_that_is_sent() {
    // Two blocks of the prepared tables change places: each is well-formed, and wrong for its rows.
    let (_dir, lying) = altered(|server| {
        let path = server.join("tables.bin");
        let mut bytes = std::fs::read(&path).unwrap();
        let instance_rows = minilm_rows();
        let blocks = instance_rows.div_ceil(32);
        let size = (bytes.len() - bytes.len() % blocks) / blocks;
        let first = bytes.len() - blocks * size;
        let (low, high) = bytes[first..].split_at_mut(size);
        low[..size].swap_with_slice(&mut high[..size]);
        std::fs::write(&path, bytes).unwrap();
    });
    let (outcomes, tally, last) = embed_twice(client_of(&lying));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(tally.wrong_values > 0, "{tally:?}");
    let (_, honest, honest_last) = embed_twice(client_of(minilm()));
    assert_eq!((tally.replies, last), (honest.replies, honest_last));
}

fn minilm_rows() -> usize {
    sotto_models::split::ServerPart::open(minilm().server_directory()).unwrap().plan().rows()
}

#[test]
fn vectors_come_from_the_pinned_weights_only() {
    let damaged = altered(|server| change_one_weight(server, &first_matrix()));
    assert!(matches!(WeightCheck::of_split(&damaged.1.server_directory()), Err(Error::Models(_))));
    let other = altered(|server| {
        let path = server.join("manifest.json");
        let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        manifest["model"] = "another".into();
        std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    });
    let check = Arc::new(WeightCheck::of_split(&other.1.server_directory()).unwrap());
    let mut client = client_of(minilm());
    let refused = client.connected.backend.check_weights(check);
    assert!(matches!(refused, Err(Error::Digest { .. })), "{refused:?}");
}

#[test]
fn a_lying_server_elsewhere_is_named_and_left() {
    let (_dir, lying) = altered_copy(&prepared(client_support::smollm2()), |server| {
        change_one_weight(server, "blk.17.ffn_down")
    });
    let server = Serving::start(&lying.directory);
    let output = sotto()
        .args(["audit", "integrity", "--tokens", "4", "--json", "--quiet", "--server"])
        .arg(&server.connect)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", errors(&output));
    let report = json(&output);
    assert_eq!(report["wrong_reply_in_round"], "blk.17.down");
    assert_eq!((&report["tokens"], &report["wrong_values"]), (&0.into(), &0.into()));
    assert!(errors(&output).contains("blk.17.down"));
    // A client that does not check notices nothing.
    let output = sotto()
        .args(["chat", "--prompt", "Hello", "--max-tokens", "2", "--quiet", "--server"])
        .arg(&server.connect)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
}

fn first_matrix() -> String {
    let part = sotto_models::split::ServerPart::open(minilm().server_directory()).unwrap();
    part.plan().rounds[0].matrices[0].name.clone()
}

#[test]
fn a_checked_chat_answers_the_same_and_counts_what_it_checked() {
    let ask = |more: &[&str]| {
        let output = sotto()
            .args(["chat", "--max-tokens", "4", "--temperature", "0", "--json", "--quiet"])
            // Whether drafts are sent follows the measured time of a pass, and with them the bytes that are compared.
            .args(["--draft", "off"])
            .args(["--prompt", "What is the capital of France?"])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        json(&output)
    };
    let (plain, checked) = (ask(&["--wire", "stateless"]), ask(&["--check-weights"]));
    assert!(plain["replies_checked"].is_null());
    assert_eq!(plain["token_ids"], checked["token_ids"]);
    assert_eq!(plain["bytes"]["up"], checked["bytes"]["up"]);
    assert_eq!(checked["wrong_values"], 0);
    // 120 rounds for each of four passes; the prompt's carry many tokens.
    assert!(checked["replies_checked"].as_u64().unwrap() > 480 * 2, "{}", checked["replies_checked"]);
}

#[test]
fn the_audit_reports_what_it_checked_and_needs_a_server() {
    let output = sotto().args(["audit", "integrity", "--tokens", "2", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let report = json(&output);
    assert_eq!((&report["tokens"], &report["wrong_values"]), (&2.into(), &0.into()));
    assert!(report["wrong_reply_in_round"].is_null());
    assert!(report["replies_checked"].as_u64().unwrap() > 240);
    let output = sotto().args(["audit", "integrity", "--backend", "int8"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("--check-weights"));
}
