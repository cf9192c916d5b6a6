//! In place of the hub's client, whose transfer stack a first chat with a built-in model does not need.

use std::path::PathBuf;

use super::{FetchError, FetchProgress};

/// Says how to build a program that reaches a hub.
pub(super) fn fetch(
    id: &str,
    _revision: Option<&str>,
    _file: Option<&str>,
    _progress: &dyn FetchProgress,
) -> Result<PathBuf, FetchError> {
    let detail = "this program was built without access to a hub; build it with `--features hub`, as in `cargo run --release \
                  --features hub -- chat --model owner/name`, or give the path of a model";
    Err(FetchError::Hub { id: id.to_owned(), detail: detail.to_owned() })
}
