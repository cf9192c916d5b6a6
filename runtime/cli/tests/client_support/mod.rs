//! What the black-box tests of the client share: the program, and the model's split in the cache.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::process::Command;

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
