//! Installing a peer and talking to its Python driver: one JSON request per line, one JSON answer per line.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::shapes::cache_dir;

/// Another library: its pinned packages and its driver.
#[derive(Debug)]
pub struct Peer {
    /// Name in the report.
    pub name: &'static str,
    /// pip requirements.
    pub requirements: &'static [&'static str],
    /// Driver in `benches/peers/`.
    pub driver: &'static str,
    /// Whether it multiplies encrypted vectors (or else decodes in clear).
    pub multiplies: bool,
    /// Name of the Python environment: one of its own where its requirements contradict those of others.
    pub environment: &'static str,
}

/// The peers.
pub static PEERS: &[&Peer] = &[
    &Peer {
        name: "concrete-ml-extensions",
        requirements: &["concrete-ml-extensions==0.2.0", "numpy==2.4.6"],
        driver: "concrete_ml_extensions_driver.py",
        multiplies: true,
        environment: "venv",
    },
    &Peer {
        name: "TenSEAL (CKKS)",
        requirements: &["tenseal==0.3.18", "numpy==2.4.6"],
        driver: "tenseal_driver.py",
        multiplies: true,
        environment: "venv",
    },
    &Peer {
        // llama-cpp-python ships no wheel; xllamacpp packs the same llama.cpp prebuilt.
        name: "llama.cpp (xllamacpp)",
        requirements: &["xllamacpp==2026.10.11549"],
        driver: "llama_cpp_driver.py",
        multiplies: false,
        environment: "venv",
    },
];

/// Trains the models of `--bin classical`.
pub static CLASSICAL: Peer = Peer {
    name: "scikit-learn, XGBoost, LightGBM",
    requirements: &[
        "xgboost-cpu==3.2.0",
        "lightgbm==4.7.0",
        "scikit-learn==1.9.1",
        "skl2onnx==1.20.0",
        "rdata==1.1.0",
    ],
    driver: "classical_driver.py",
    multiplies: false,
    environment: "venv",
};

/// Concrete ML's own trees and linear models under TFHE, beside `--bin classical`.
pub static CONCRETE_ML: Peer = Peer {
    name: "Concrete ML",
    requirements: &["concrete-ml==1.9.0", "rdata==1.1.0"],
    driver: "concrete_ml_driver.py",
    multiplies: false,
    environment: "venv-concrete-ml",
};

fn environment(peer: &Peer) -> anyhow::Result<PathBuf> {
    Ok(cache_dir()?.join("peers").join(peer.environment))
}

/// Installs `peer` into the throwaway environment, wheels only.
///
/// # Errors
/// If python or pip fails.
pub fn install(peer: &Peer) -> anyhow::Result<()> {
    let environment = environment(peer)?;
    let python = environment.join("bin").join("python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "-q", "--only-binary=:all:"]).args(peer.requirements);
    run(&mut pip).with_context(|| format!("pip install {}", peer.requirements.join(" ")))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status()?;
    anyhow::ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// A driver at work; ends with this value.
pub struct Driver {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts `peer`'s driver and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started or does not come up.
    pub fn start(peer: &Peer) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(peer.driver);
        let mut child = Command::new(environment(peer)?.join("bin").join("python"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the driver")?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("no pipe from the driver")?);
        let mut driver = Self { child, requests, answers };
        driver.answer()?;
        Ok(driver)
    }

    /// Sends `request` and waits for its answer.
    ///
    /// # Errors
    /// If the driver ended, or answered that it failed.
    pub fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        let pipe = self.requests.as_mut().context("the driver was told to quit")?;
        writeln!(pipe, "{request}")?;
        self.answer()
    }

    /// The next line that is an answer; what a library prints besides is passed over.
    fn answer(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            anyhow::ensure!(self.answers.read_line(&mut line)? > 0, "the driver ended");
            let Ok(answer @ Value::Object(_)) = serde_json::from_str(&line) else { continue };
            let failure = answer["error"].as_str();
            anyhow::ensure!(answer["ok"] == true, "{}", failure.unwrap_or("the driver failed"));
            return Ok(answer);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.requests.take() {
            // A driver that is gone already cannot be told; it is reaped below either way.
            let _ = writeln!(pipe, "{}", json!({"op": "quit"}));
        }
        let _ = self.child.wait();
    }
}
