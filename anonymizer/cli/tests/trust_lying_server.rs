//! A server whose detector sees nothing but the canary sentences: it has to be refused before a text is believed clean.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::process::{Child, Command, Stdio};

use anonymizer::detect::DetectOptions;
use anonymizer::model::{MODEL, ModelDetector, ModelOptions, TAU, local};
use anonymizer::scan::TextDetector;
use candle_core::Tensor;
use sotto_models::local_ops::embedding::Embedding;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::split;
use sotto_storage::{Cache, NoProgress};

const TEXT: &str = "Patient Rosamund Thackeray of Oldham was seen by Dr Emeka Nwachukwu.";

/// The sentences by which the detector notices accidents; they are public.
const CANARIES: [&str; 6] = [
    "My name is Alex Rivera.",
    "Please call Maria Lopez in Denver.",
    "She lives at 42 Oak Street in Boston.",
    "I am David Miller from Chicago.",
    "Send it to Laura Schmidt, Texas 78701.",
    "Ask Thomas Baker for the key.",
];

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves a split; returns the connect string.
fn serve(directory: &std::path::Path) -> (Server, String) {
    let mut command = sotto_testing::environment::isolated(Command::new(env!("CARGO_BIN_EXE_anonymize")));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--ephemeral-credential", "--print-credential", "--split"])
        .arg(directory);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let server = Server(child);
    let told = lines.map(|line| line.unwrap()).find_map(|line| {
        let at = line.find("sotto://")?;
        Some(line[at..].split_whitespace().next()?.to_owned())
    });
    (server, told.expect("a connect string"))
}

/// A split of the model in which every word but those of the canaries is embedded as "the".
fn blinded(directory: &std::path::Path) {
    let honest = local(MODEL, TAU, &Cache::from_env().unwrap(), &NoProgress).unwrap();
    let source = ModelSource::open(&honest.source).unwrap();
    let mut parts = split(&source, PlanKind::Plain, |_| {}).unwrap();
    let tokenizer = source.tokenizer.text_tokenizer();
    let mut known: BTreeMap<u32, ()> = BTreeMap::new();
    for sentence in CANARIES {
        known.extend(tokenizer.encode(sentence, true).unwrap().get_ids().iter().map(|id| (*id, ())));
    }
    let the = tokenizer.token_to_id("the").unwrap();
    let embeddings = parts.client.embedding.range(0..parts.client.embedding.vocab_size().unwrap()).unwrap();
    let rows = embeddings.dims()[0];
    let picked: Vec<u32> =
        (0..rows as u32).map(|id| if known.contains_key(&id) { id } else { the }).collect();
    let picked = Tensor::new(picked, embeddings.device()).unwrap();
    parts.client.embedding = Embedding::Float(embeddings.index_select(&picked, 0).unwrap());
    parts.write(directory, &sotto_protocol::binding::binding(TAU).unwrap()).unwrap();
}

fn open(connect: &str, trust_server: bool) -> anonymizer::Result<ModelDetector> {
    let options = ModelOptions { server: Some(connect.to_owned()), trust_server, ..ModelOptions::default() };
    ModelDetector::open(&options, DetectOptions::default(), &NoProgress)
}

fn finds(detector: &mut ModelDetector) -> usize {
    detector.detect(&[TEXT], &[Vec::new()]).unwrap().spans[0].len()
}

#[test]
fn trust_a_lying_detector_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    blinded(directory.path());
    let (_server, connect) = serve(directory.path());
    let refused = open(&connect, false).map(|_| ()).unwrap_err().to_string();
    let lies = [("refused".to_owned(), refused.contains("not the model"))];
    // That it is a lie which the canaries do not notice: believed, the server sees to it that nothing is found.
    let mut believed = open(&connect, true).unwrap();
    assert_eq!(finds(&mut believed), 0, "the canaries held, and the text looked clean");
    drop(believed);

    let honest = local(MODEL, TAU, &Cache::from_env().unwrap(), &NoProgress).unwrap();
    let (_server, connect) = serve(&honest.directory);
    let found = finds(&mut open(&connect, false).unwrap());
    assert!(found >= 4, "an honest server is accepted and finds {found}");
    let good = lies.iter().filter(|(_, good)| *good).count();
    println!("\nTRUST lying detectors refused {good}/{}", lies.len());
    assert_eq!(good, lies.len(), "{refused}");
}
