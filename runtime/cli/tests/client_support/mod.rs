//! What the black-box tests of the client share: the program, and the model's split in the cache.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use sotto_engine::embedded::{LocalModel, local_model};
use sotto_engine::fetch::ModelRef;
use sotto_models::split::plan::PlanKind;
use sotto_storage::{Cache, NoProgress};
use sotto_testing::environment::isolated;
#[allow(unused_imports, reason = "each test file uses a part of this")]
pub(crate) use sotto_testing::program::{errors, json, with_input};

/// The program, shut off from the surroundings.
pub(crate) fn sotto() -> Command {
    isolated(Command::new(env!("CARGO_BIN_EXE_sotto")))
}

/// The default model, fetched and split.
pub(crate) fn smollm2() -> LocalModel {
    let binding = sotto_protocol::binding::binding(64).unwrap();
    let model = ModelRef::parse("smollm2-135m").unwrap();
    local_model(&model, PlanKind::Plain, &binding, &Cache::from_env().unwrap(), &NoProgress).unwrap()
}

/// `sotto serve` on a split, ended when dropped.
pub(crate) struct Serving {
    child: std::process::Child,
    /// With its credential.
    pub(crate) connect: String,
}

impl Serving {
    pub(crate) fn start(split: &Path) -> Self {
        let mut command = sotto();
        command
            .args([
                "serve",
                "--print-credential",
                "--listen",
                "127.0.0.1:0",
                "--ephemeral-credential",
                "--split",
            ])
            .arg(split);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(std::io::Result::ok);
        let connect = lines
            .filter_map(|line| line.find("sotto://").map(|start| line[start..].trim().to_owned()))
            .next();
        Self { child, connect: connect.unwrap() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Adds one to the first weight of every row of a matrix.
pub(crate) fn change_first_column(server: &Path, matrix: &str) {
    let path = server.join("weights.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
    let start = 8 + header + number(&index[matrix]["data_offsets"][0]);
    let (rows, columns) = (number(&index[matrix]["shape"][0]), number(&index[matrix]["shape"][1]));
    for row in 0..rows {
        let weight = &mut bytes[start + row * columns];
        *weight = weight.cast_signed().wrapping_add(1).cast_unsigned();
    }
    std::fs::write(&path, bytes).unwrap();
}
