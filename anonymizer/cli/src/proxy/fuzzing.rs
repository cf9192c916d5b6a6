//! What the fuzz targets drive of the proxy. Not part of the interface.

use serde_json::Value;

use super::protocol::Api;
use super::scrub::{TextField, Visitor};

pub use super::sse::{Broken, Event, Parser};

/// Shows the values of every text of a request to `each`; what it returns takes a text's place. The request is of the API
/// with this number, counted round. Whether the request may leave at all.
pub fn visit(api: usize, request: &mut Value, each: &mut dyn FnMut(String) -> Option<String>) -> bool {
    let shape = Api::ALL[api % Api::ALL.len()].request();
    let mut each = |field: TextField| each(field.value());
    Visitor::new(false, &mut each).request(request, shape).is_ok()
}
