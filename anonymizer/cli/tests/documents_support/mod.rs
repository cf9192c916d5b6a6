//! A folder with files, and the program run in it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use sotto_testing::environment::isolated;

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = isolated(Command::new(env!("CARGO_BIN_EXE_anonymize")));
        command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn redact(&self, arguments: &[&str]) -> Output {
        self.run(&[&["redact", "--backend", "dense", "--quiet"], arguments].concat())
    }

    /// What is written to standard output.
    pub(crate) fn redacted(&self, arguments: &[&str]) -> String {
        let output = self.redact(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A mail with encoded words, charsets, both transfer encodings, and an attachment that cannot be read.
pub(crate) const MAIL: &str = "From: =?iso-8859-1?Q?Andr=E9?= <andre@example.org>\r\nTo: ann@example.org\r\nSubject: Call +44 7700 900923\r\n\
        MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"x\"\r\n\r\n--x\r\n\
        Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        Gr=FC=DFe an ann=40example.org\r\n--x\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        PHA+YW5uQGV4YW1wbGUub3JnPC9wPg==\r\n--x\r\nContent-Type: image/png; name=\"a.png\"\r\nContent-Transfer-Encoding: base64\r\n\r\n\
        iVBORw0KGgo=\r\n--x--\r\n";
