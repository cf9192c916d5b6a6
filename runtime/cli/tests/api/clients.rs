//! The clients that people use, as their makers publish them. Skipped, with the reason, where they cannot be installed.
//!
//! `SOTTO_CLIENTS_PYTHON` names a Python that has them already.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::endpoint::Endpoint;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A Python that has the clients, or why there is none.
fn python(root: &Path) -> Result<PathBuf, String> {
    if let Some(python) = std::env::var_os("SOTTO_CLIENTS_PYTHON") {
        return Ok(python.into());
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(errors.lines().last().unwrap_or("no reason given").to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(root))?;
    let python = root.join("bin/python");
    let requirements = folder().join("requirements.txt");
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--timeout", "20", "-r"])
        .arg(requirements))?;
    Ok(python)
}

/// A folder where the npm clients are installed, or why there is none.
fn npm(root: &Path) -> Result<(), String> {
    for name in ["package.json", "calls.mjs"] {
        std::fs::copy(folder().join(name), root.join(name)).map_err(|error| error.to_string())?;
    }
    let arguments =
        ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-timeout", "20000"];
    let output =
        Command::new("npm").args(arguments).args(["--fetch-retries", "1"]).current_dir(root).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no reason").to_owned())
        }
        Err(error) => Err(format!("npm: {error}")),
    }
}

#[test]
fn published_npm_clients_make_their_common_calls() {
    let root = tempfile::tempdir().unwrap();
    if let Err(reason) = npm(root.path()) {
        eprintln!("skipped: the clients cannot be installed here: {reason}");
        return;
    }
    let endpoint = Endpoint::shared();
    let calls = Command::new("node")
        .args(["calls.mjs", &endpoint.base, endpoint.key()])
        .current_dir(root.path())
        .output();
    let calls = calls.unwrap();
    let report = String::from_utf8_lossy(&calls.stdout).into_owned();
    eprintln!("{report}");
    assert!(calls.status.success(), "{report}{}", String::from_utf8_lossy(&calls.stderr));
    assert!(report.lines().filter(|line| line.starts_with("ok ")).count() >= 12, "{report}");
}

#[test]
fn published_clients_make_their_common_calls() {
    let root = tempfile::tempdir().unwrap();
    let python = match python(root.path()) {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("skipped: the clients cannot be installed here: {reason}");
            return;
        }
    };
    let endpoint = Endpoint::shared();
    let calls =
        Command::new(python).arg(folder().join("calls.py")).args([&endpoint.base, endpoint.key()]).output();
    let calls = calls.unwrap();
    let report = String::from_utf8_lossy(&calls.stdout).into_owned();
    eprintln!("{report}");
    assert!(calls.status.success(), "{report}{}", String::from_utf8_lossy(&calls.stderr));
    assert!(report.lines().filter(|line| line.starts_with("ok ")).count() >= 21, "{report}");
}
