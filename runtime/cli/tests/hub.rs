//! Fetching from a Hugging Face hub, against one that is served here.
#![cfg(feature = "hub")]

mod client_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use client_support::{errors, sotto};
use serde_json::json;

/// The model's name on the hub.
const MODEL: &str = "owner/tiny";

/// The commit that its main branch points to.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The file that the hub of these tests spoils.
const LARGE: &str = "model.safetensors";

/// Files that a repository has and no client of ours needs.
const UNWANTED: &[&str] = &["README.md", "pytorch_model.bin"];

/// How the hub answers for [`LARGE`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// As it should.
    Well,
    /// Announces its length and closes in the middle.
    CutShort,
    /// Announces no length and closes in the middle.
    CutShortSilently,
    /// With an error page, after a good answer to HEAD.
    ErrorPage,
    /// Only for those who have the token.
    Locked,
}

/// A request that the hub saw.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    path: String,
    authorization: Option<String>,
}

/// A hub with one model.
struct Hub {
    address: String,
    manner: Arc<Mutex<Manner>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    files: Arc<BTreeMap<String, Vec<u8>>>,
}

impl Hub {
    fn start() -> Self {
        let source = tempfile::tempdir().unwrap();
        sotto_testing::tiny::Tiny::llama().write_directory(source.path());
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(source.path()).unwrap().map(Result::unwrap) {
            files.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        }
        for name in UNWANTED {
            files.insert((*name).to_owned(), vec![b'x'; 1000]);
        }
        files.insert("tiny.gguf".to_owned(), b"GGUF and so on".to_vec());
        assert!(files[LARGE].len() > 100_000 && files.contains_key("config.json"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            address: listener.local_addr().unwrap().to_string(),
            manner: Arc::new(Mutex::new(Manner::Well)),
            seen: Arc::default(),
            files: Arc::new(files),
        };
        let (manner, seen, files) = (Arc::clone(&hub.manner), Arc::clone(&hub.seen), Arc::clone(&hub.files));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, seen, files) = (*manner.lock().unwrap(), Arc::clone(&seen), Arc::clone(&files));
                // A client that hangs up early is its own affair.
                std::thread::spawn(move || serve(&stream, manner, &seen, &files).ok());
            }
        });
        hub
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Takes the requests seen so far.
    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(
    stream: &TcpStream,
    manner: Manner,
    seen: &Mutex<Vec<Seen>>,
    files: &BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(ToOwned::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut authorization = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.to_owned());
        }
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(Seen {
        method: method.clone(),
        path: path.clone(),
        authorization: authorization.clone(),
    });
    let tree = || {
        let entry = |(name, bytes): (&String, &Vec<u8>)| json!({ "type": "file", "oid": format!("{:040x}", bytes.len()), "size": bytes.len(), "path": name });
        json!(files.iter().map(entry).collect::<Vec<_>>())
    };
    let api = format!("/api/models/{MODEL}");
    let file = path.strip_prefix(&format!("/{MODEL}/resolve/{COMMIT}/"));
    let bytes = file.and_then(|file| files.get(file));
    if path.starts_with(&format!("{api}/revision/")) {
        answer(stream, "200 OK", &json!({ "id": MODEL, "sha": COMMIT }).to_string())
    } else if path.starts_with(&format!("{api}/tree/")) {
        answer(stream, "200 OK", &tree().to_string())
    } else if let (Some(file), Some(bytes)) = (file, bytes) {
        let spoiled = file == LARGE;
        if spoiled && manner == Manner::Locked && authorization.as_deref() != Some("Bearer opens-it") {
            return answer(stream, "401 Unauthorized", "");
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nETag: \"{:064x}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n",
            hash(file)
        );
        let length = format!("Content-Length: {}\r\n", bytes.len());
        let half = &bytes[..bytes.len() / 2];
        let mut stream = stream;
        match (method.as_str(), manner) {
            ("HEAD", _) => write!(stream, "{head}{length}\r\n"),
            (_, Manner::CutShort) if spoiled => {
                write!(stream, "{head}{length}\r\n")?;
                stream.write_all(half)
            }
            (_, Manner::CutShortSilently) if spoiled => {
                write!(stream, "{head}\r\n")?;
                stream.write_all(half)
            }
            (_, Manner::ErrorPage) if spoiled => answer(stream, "403 Forbidden", "<html>no</html>"),
            _ => {
                write!(stream, "{head}{length}\r\n")?;
                stream.write_all(bytes)
            }
        }
    } else {
        answer(stream, "404 Not Found", "")
    }
}

fn answer(mut stream: &TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// A number that tells file names apart.
fn hash(name: &str) -> u64 {
    name.bytes().fold(1, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

/// A machine with a home of its own.
struct Machine<'a> {
    hub: &'a Hub,
    home: tempfile::TempDir,
}

impl<'a> Machine<'a> {
    fn new(hub: &'a Hub) -> Self {
        Self { hub, home: tempfile::tempdir().unwrap() }
    }

    /// `sotto` on this machine, with no token and no variable of the surroundings.
    fn sotto(&self) -> Command {
        let mut command = sotto();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HF_") {
                command.env_remove(name);
            }
        }
        command
            .env("HF_ENDPOINT", format!("http://{}", self.hub.address))
            .env("HF_HOME", self.home.path())
            .env("SOTTO_CACHE", self.home.path().join("sotto"));
        command
    }

    fn fetch(&self, model: &str, variables: &[(&str, &str)]) -> Output {
        self.sotto()
            .args(["models", "fetch", model, "--quiet"])
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    /// The snapshot's directory in the hub's own cache.
    fn snapshot(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--tiny/snapshots").join(COMMIT)
    }

    /// Fails the test unless exactly the model's files are here, whole.
    fn check(&self, output: &Output) {
        assert!(output.status.success(), "{}", errors(output));
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(Path::new(printed.trim()), self.snapshot());
        for (name, bytes) in self.hub.files.iter() {
            let here = std::fs::read(self.snapshot().join(name));
            if UNWANTED.contains(&name.as_str()) || name == "tiny.gguf" {
                assert!(here.is_err(), "{name} was fetched for nothing");
            } else {
                assert_eq!(&here.unwrap(), bytes, "{name}");
            }
        }
    }
}

fn fails(output: &Output, words: &[&str]) {
    let errors = errors(output);
    assert_eq!(output.status.code(), Some(9), "{errors}");
    for word in words {
        assert!(errors.contains(word), "{word:?} is not in {errors}");
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

/// File contents that were asked for.
fn downloads(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.method == "GET" && seen.path.contains("/resolve/")).count()
}

#[test]
fn the_token_is_sent_and_the_cache_is_used() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    machine.check(&machine.fetch(MODEL, &[("HF_TOKEN", "opens-it")]));
    let seen = hub.seen();
    assert!(downloads(&seen) >= 3, "{seen:?}");
    for request in &seen {
        assert_eq!(request.authorization.as_deref(), Some("Bearer opens-it"), "{request:?}");
    }
    machine.check(&machine.fetch(MODEL, &[]));
    let seen = hub.seen();
    assert_eq!(downloads(&seen), 0, "everything was here: {seen:?}");
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
}

#[test]
fn offline_asks_nobody() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let offline = [("HF_HUB_OFFLINE", "1")];
    fails(&machine.fetch(MODEL, &offline), &[MODEL, "HF_HUB_OFFLINE"]);
    assert!(hub.seen().is_empty());
    machine.check(&machine.fetch(MODEL, &[("HF_HUB_OFFLINE", "0")]));
    assert!(!hub.seen().is_empty());
    machine.check(&machine.fetch(MODEL, &offline));
    fails(&machine.fetch("owner/tiny:tiny.gguf", &offline), &["tiny.gguf", "HF_HUB_OFFLINE"]);
    // What was fetched is a model: it can be split with nothing but the cache.
    let out = machine.home.path().join("split");
    let split = machine
        .sotto()
        .args(["split", MODEL, "--no-tables", "--quiet", "--out"])
        .arg(&out)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(split.status.success(), "{}", errors(&split));
    assert!(out.join("client/plain").is_dir() && out.join("server/plain").is_dir());
    assert!(hub.seen().is_empty());
}

#[test]
fn a_hub_out_of_reach_does_not_matter_when_the_model_is_here() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    machine.check(&machine.fetch(MODEL, &[]));
    // A port that nobody listens on any more.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let unreachable = [("HF_ENDPOINT", address.as_str())];
    machine.check(&machine.fetch(MODEL, &unreachable));
    let elsewhere = Machine::new(&hub);
    fails(&elsewhere.fetch(MODEL, &unreachable), &[MODEL]);
}

#[test]
fn a_download_cut_short_is_an_error_and_leaves_nothing_behind() {
    for manner in [Manner::CutShort, Manner::CutShortSilently, Manner::ErrorPage] {
        let hub = Hub::start();
        let machine = Machine::new(&hub);
        hub.set(manner);
        fails(&machine.fetch(MODEL, &[]), &[MODEL]);
        assert!(!machine.snapshot().join(LARGE).exists(), "{manner:?} left a broken file");
        hub.set(Manner::Well);
        machine.check(&machine.fetch(MODEL, &[]));
    }
}

#[test]
fn silence_about_the_length_is_noticed() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    hub.set(Manner::CutShortSilently);
    let whole = hub.files[LARGE].len();
    let expected = format!("{LARGE} has {} bytes, expected {whole}", whole / 2);
    fails(&machine.fetch(MODEL, &[]), &[&expected, "try again"]);
}

#[test]
fn refusals_say_what_to_do() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    hub.set(Manner::Locked);
    fails(&machine.fetch(MODEL, &[]), &[MODEL, "HF_TOKEN"]);
    machine.check(&machine.fetch(MODEL, &[("HF_TOKEN", "opens-it")]));
    fails(&machine.fetch("owner/nonesuch", &[]), &["owner/nonesuch", "spelling"]);
    fails(&machine.fetch("owner/tiny:nonesuch.gguf", &[]), &["no file nonesuch.gguf"]);
}

#[test]
fn one_file_of_a_repository_can_be_named() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let output = machine.fetch("owner/tiny@main:tiny.gguf", &[]);
    assert!(output.status.success(), "{}", errors(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(std::fs::read(printed.trim()).unwrap(), hub.files["tiny.gguf"]);
    assert_eq!(downloads(&hub.seen()), 1);
}
