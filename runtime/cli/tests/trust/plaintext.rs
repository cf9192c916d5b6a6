//! Nothing of a prompt in the server's memory, logs and files or in messages; no server weight at the client.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::client_support::smollm2;
use crate::trust_support::image::Needles;
use crate::trust_support::pads::{self, CHI_SQUARED_BOUND, Frame};
use crate::trust_support::process::{Chat, ServerProcess, Setup};
use crate::trust_support::relay::{Act, Relay};
use crate::trust_support::{by_length, row};
use sotto_models::split::{ClientPart, ServerPart};
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::wire::HelloRequest;
use sotto_protocol::wire::catalogue_client::CatalogueClient;

/// In the prompt and nowhere else.
const MARKER: &str = "zorblatt quixotry nine-four-one-seven kumquat sundae";

/// Put where the searches must find it.
const PLANTED: &str = "glimmerwick farthing two-six-eight-three walnut parfait";

/// Consecutive token ids that make up one pattern.
const IDS: usize = 6;

/// Bytes at the beginning of a row of weights that make up one pattern.
const ROW_BYTES: usize = 64;

/// Frame of the conversation at which memory is searched: after the prompt, in the middle of a token.
const SEARCH_AT: usize = 120 * 5 + 60;

/// The text, and its tokens as integers of 2, 4 and 8 bytes.
fn patterns(text: &str, ids: &[u32]) -> Vec<Vec<u8>> {
    assert!(ids.len() >= IDS, "{ids:?}");
    let words = text.split(' ').collect::<Vec<_>>();
    let mut patterns: Vec<Vec<u8>> = words.windows(2).map(|pair| pair.join(" ").into_bytes()).collect();
    for run in ids.windows(IDS) {
        patterns.push(run.iter().flat_map(|&id| u16::try_from(id).unwrap().to_le_bytes()).collect());
        patterns.push(run.iter().flat_map(|id| id.to_le_bytes()).collect());
        patterns.push(run.iter().flat_map(|&id| u64::from(id).to_le_bytes()).collect());
    }
    patterns
}

/// What the searches in the middle of the conversation found.
#[derive(Default)]
struct Findings {
    server: Found,
    server_bytes: u64,
    client: Found,
}

/// Which patterns were found, each kind by its own numbers.
#[derive(Default)]
struct Found {
    prompt: Vec<usize>,
    planted: Vec<usize>,
    weights: Vec<usize>,
}

/// Takes apart what was found of as many patterns of the prompt, of the planted text and of weights, in this order.
fn sorted(found: &[usize], [prompt, planted, weights]: [usize; 3]) -> Found {
    let between = |from: usize, count: usize| {
        found
            .iter()
            .filter(|&&number| (from..from + count).contains(&number))
            .map(|number| number - from)
            .collect()
    };
    Found {
        prompt: between(0, prompt),
        planted: between(prompt, planted),
        weights: between(prompt + planted, weights),
    }
}

/// Says hello through the relay with the planted text as the client's name.
fn plant_on_the_wire(connect: &ConnectString, credential: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let patience = std::time::Duration::from_secs(5);
        let channel = sotto_client::tls::connect(&connect.address, connect.pin, patience).await.unwrap();
        let mut hello = tonic::Request::new(HelloRequest { versions: vec![2], agent: PLANTED.to_owned() });
        hello.metadata_mut().insert("authorization", format!("Bearer {credential}").parse().unwrap());
        CatalogueClient::new(channel).hello(hello).await.unwrap();
    });
}

/// Rows of the server's weights, two of every matrix.
fn weight_rows(server: &Path) -> Vec<Vec<u8>> {
    let part = ServerPart::open(server).unwrap();
    let mut rows = Vec::new();
    for round in 0..part.plan().rounds.len() {
        for matrix in part.round(round).unwrap() {
            for row in [0, matrix.rows / 2] {
                let row = &matrix.weights[row * matrix.cols..][..ROW_BYTES];
                rows.push(row.iter().map(|weight| weight.cast_unsigned()).collect());
            }
        }
    }
    rows
}

#[test]
#[ignore = "part of the trust suite: cargo xtask trust"]
fn a_prompt_is_nowhere_but_on_the_client_and_weights_nowhere_but_on_the_server() {
    let local = smollm2();
    let part = ClientPart::load(local.client_directory()).unwrap().part;
    let ids = |text: &str| part.tokenizer.encode_plain(&format!(" {text}")).unwrap();
    let [of_prompt, of_planted] = [MARKER, PLANTED].map(|text| patterns(text, &ids(text)));
    let of_weights = weight_rows(&local.server_directory());
    let [marked, planted, rows] = [&of_prompt, &of_planted, &of_weights].map(|all| Needles::new(all));
    // Together for what waits for the search: in this order.
    let everything = Needles::new(&[&*of_prompt, &of_planted, &of_weights].concat());

    let (state, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut setup = Setup::new(&local.directory, state.path());
    let variables =
        [("TMPDIR", files.path().to_str().unwrap()), ("PLANTED", PLANTED), ("SOTTO_LOG", "trace")];
    for (name, value) in variables {
        setup.environment.push((name.to_owned(), value.to_owned()));
    }
    let credential = setup.credential();
    let mut server = ServerProcess::start(&setup);
    server.wait_ready();
    let relay = Relay::start(state.path(), &server.connect.address);
    let cache = tempfile::tempdir().unwrap();
    let connect = relay.connect(&server.connect, &credential);

    // While the conversation runs: the server's memory, and the client's by the same search.
    let findings = Arc::new(Mutex::new(Findings::default()));
    let client_id = Arc::new(Mutex::new(0));
    relay.on_body({
        let (findings, client_id, server_id) = (Arc::clone(&findings), Arc::clone(&client_id), server.id());
        let counts = [of_prompt.len(), of_planted.len(), of_weights.len()];
        let mut frames = 0;
        move |_| {
            frames += 1;
            if frames == SEARCH_AT {
                let mut findings = findings.lock().unwrap();
                let (server, bytes) = everything.in_process(server_id);
                findings.server = sorted(&server, counts);
                findings.client = sorted(&everything.in_process(*client_id.lock().unwrap()).0, counts);
                findings.server_bytes = bytes;
            }
            Act::Forward
        }
    });
    let prompt = format!("Remember: {MARKER}. What is {MARKER}?");
    let chat = Chat::start(&connect, cache.path(), &prompt, by_length(12, 40, 200));
    *client_id.lock().unwrap() = chat.id();
    assert!(!chat.finish().tokens().is_empty());
    plant_on_the_wire(&connect, &credential);

    let findings = findings.lock().unwrap();
    println!("searched {} MB of the server's memory", findings.server_bytes >> 20);
    let texts = MARKER.split(' ').count() - 1;
    let (text, ids): (Vec<usize>, Vec<usize>) =
        findings.client.prompt.iter().partition(|&&number| number < texts);
    row(
        "searches that find what is there",
        usize::from(!text.is_empty()),
        1,
        "the prompt's text in the client's memory",
    );
    row(
        "searches that find what is there",
        usize::from(!ids.is_empty()),
        1,
        "the prompt's tokens in the client's memory",
    );
    row(
        "searches that find what is there",
        usize::from(!findings.server.planted.is_empty()),
        1,
        "a text planted in the server's memory",
    );
    leak_free("the server's memory in the middle of a token", &findings.server.prompt);
    leak_free("the server's memory afterwards", &marked.in_process(server.id()).0);

    // Logs and files of the server; the planted text must be found in a file too.
    std::fs::write(files.path().join("planted"), format!("...{PLANTED}...")).unwrap();
    row(
        "searches that find what is there",
        usize::from(!planted.below(files.path()).0.is_empty()),
        1,
        "a text planted in a file",
    );
    row(
        "searches that find what is there",
        usize::from(!planted.in_bytes(server.errors().as_bytes()).is_empty()),
        1,
        "a text planted in the server's log",
    );
    leak_free("the server's log", &marked.in_bytes(server.errors().as_bytes()));
    leak_free("the server's temporary files", &marked.below(files.path()).0);
    leak_free("the server's state directory", &marked.below(state.path()).0);

    // The messages within TLS; what TLS makes of them cannot fail a search.
    let messages = relay.log.bytes.lock().unwrap();
    assert!(messages.len() > 1 << 20, "too little was recorded to mean anything");
    row(
        "searches that find what is there",
        usize::from(!planted.in_bytes(&messages).is_empty()),
        1,
        "a text planted in a message",
    );
    leak_free("the messages within TLS", &marked.in_bytes(&messages));

    // Weights: every row looked for is in the server's memory, none in the client's memory and files.
    row(
        "searches that find what is there",
        findings.server.weights.len(),
        rows.count(),
        "rows of weights in the server's memory",
    );
    leak_free("weights in the client's memory", &findings.client.weights);
    leak_free("weights in the client's files", &rows.below(cache.path()).0);

    uniform(&relay.log.frames.lock().unwrap());
    assert_eq!(pads::examine(&relay.log.frames.lock().unwrap()).reused, 0);
}

fn leak_free(place: &str, found: &[usize]) {
    row("searches without a leak", usize::from(found.is_empty()), 1, &format!("{place} {found:?}"));
}

/// Bodies look like noise, and the test for that can tell.
fn uniform(frames: &[Frame]) {
    let (statistics, words) = pads::chi_squared(frames.iter().map(|frame| &*frame.bodies));
    println!("chi-squared over {words} words, by byte: {statistics:.0?}, bound {CHI_SQUARED_BOUND:.0}");
    assert!(words > 100_000);
    let passed = statistics.iter().filter(|&&value| value < CHI_SQUARED_BOUND).count();
    row("byte positions of bodies that are uniform", passed, statistics.len(), &format!("{words} words"));
    // The same number of bodies that a client forgot to encrypt: activations in fixed point.
    let clear: Vec<u8> = (0..words as i64)
        .flat_map(|i| ((i * 7919 % 2001 - 1000) << 14).to_le_bytes()[..5].to_vec())
        .collect();
    let (statistics, _) = pads::chi_squared(std::iter::once(&*clear));
    let caught = statistics.iter().any(|&value| value >= CHI_SQUARED_BOUND);
    row("searches that find what is there", usize::from(caught), 1, "bodies that are not encrypted");
}
