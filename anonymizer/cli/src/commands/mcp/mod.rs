//! `anonymize mcp`: a server of the Model Context Protocol on standard input and output, with tools that redact, restore and
//! check texts.
//!
//! Messages are JSON-RPC 2.0, one per line. Both ways to begin are known: the handshake of the versions up to 2025-11-25
//! (`initialize`), and requests that name their version themselves, as from 2026-07-28 on (`server/discover`).

mod tools;

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc;

use serde_json::{Value, json};

use super::args::McpArgs;
use super::{files, scanner, vault_rules, write_out};
use crate::error::{Error, Result};
use tools::Tools;

/// Versions that begin with `initialize`, newest first.
const HANDSHAKE_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Versions that are named in every request.
const ENVELOPE_VERSIONS: [&str; 1] = ["2026-07-28"];
/// Where a request names its version.
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
/// Bytes of a message.
const MAX_BYTES: u64 = 16 << 20;
/// How long a client may keep the list of tools, which never changes.
const TTL_MS: u64 = 3_600_000;

const INSTRUCTIONS: &str = "Call `redact` on a text before it goes to another tool or service, and pass on the result. \
    Call `restore` on an answer that holds placeholders such as [GIVEN_NAME_1], and only to show it to the user: the \
    restored text holds personal data.";

/// Errors of JSON-RPC.
const PARSE: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const NO_METHOD: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const NO_VERSION: i64 = -32022;

/// A call of a tool that waits for its turn.
struct Call {
    id: Value,
    name: String,
    arguments: Value,
    is_envelope: bool,
}

pub(super) fn run(args: &McpArgs) -> Result<()> {
    let rules = vault_rules(&args.detection, args.ignore_case)?;
    let (vault, key) = files::open_vault(&args.vault)?;
    let (calls, waiting) = mpsc::channel::<Call>();
    let own = args.clone();
    // The detector is opened and used on a thread of its own: the protocol is answered meanwhile.
    let worker = std::thread::Builder::new()
        .name("detection".to_owned())
        .spawn(move || work(&own, Tools::new(vault, key, rules), &waiting))
        .map_err(|source| Error::io_of("starting a thread", source))?;
    let mut input = BufReader::new(std::io::stdin().lock());
    loop {
        let mut line = Vec::new();
        let read = (&mut input)
            .take(MAX_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|source| Error::io_of("reading standard input", source))?;
        if read == 0 {
            break;
        }
        if read as u64 == MAX_BYTES && !line.ends_with(b"\n") {
            return Err(Error::input("standard input", format!("a message has more than {MAX_BYTES} bytes")));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match answer(&line) {
            Some(Reply::Now(message)) => write(&message)?,
            Some(Reply::Call(call)) => {
                calls.send(call).map_err(|_| Error::from(sotto_pii::Error::Unavailable))?;
            }
            None => {}
        }
    }
    drop(calls);
    worker.join().unwrap_or_else(|_| Err(sotto_pii::Error::Unavailable.into()))
}

fn work(args: &McpArgs, mut tools: Tools, calls: &mpsc::Receiver<Call>) -> Result<()> {
    // Only the first reason is known to the caller; the server stays, to tell it.
    let mut opened = scanner(&args.detection).map_err(|error| error.to_string());
    for Call { id, name, arguments, is_envelope } in calls {
        let result = match &mut opened {
            Ok(scanner) => {
                tools.call(&name, &arguments, scanner, &args.vault).map_err(|error| error.to_string())
            }
            Err(reason) => Err(format!("detection is not available: {reason}")),
        };
        let result = match result {
            Ok((text, structured)) => json!({
                "content": [{ "type": "text", "text": text }], "structuredContent": structured, "isError": false,
            }),
            Err(reason) => json!({ "content": [{ "type": "text", "text": reason }], "isError": true }),
        };
        write(&response(&id, result, is_envelope))?;
    }
    Ok(())
}

fn write(message: &Value) -> Result<()> {
    write_out(format!("{message}\n").as_bytes())
}

enum Reply {
    Now(Value),
    Call(Call),
}

/// What a message is answered with; notifications are not.
fn answer(line: &[u8]) -> Option<Reply> {
    let Ok(message) = serde_json::from_slice::<Value>(line) else {
        return Some(Reply::Now(failure(&Value::Null, PARSE, "not valid JSON", None)));
    };
    let id = message.get("id").cloned();
    let (Some(method), true) = (message["method"].as_str(), message["jsonrpc"] == "2.0") else {
        // An answer to a request of this server, which makes none, needs no answer.
        let is_answer = message.get("result").is_some() || message.get("error").is_some();
        let refuse = || {
            Reply::Now(failure(
                id.as_ref().unwrap_or(&Value::Null),
                INVALID_REQUEST,
                "no JSON-RPC 2.0 request",
                None,
            ))
        };
        return (!is_answer).then(refuse);
    };
    let id = id?;
    let params = &message["params"];
    let version = params["_meta"][VERSION_KEY].as_str();
    if let Some(version) = version
        && !ENVELOPE_VERSIONS.contains(&version)
    {
        let data = json!({ "supported": ENVELOPE_VERSIONS, "requested": version });
        return Some(Reply::Now(failure(&id, NO_VERSION, "protocol version not supported", Some(data))));
    }
    let is_envelope = version.is_some();
    let result = match method {
        "initialize" => initialized(params),
        "server/discover" => json!({
            "supportedVersions": ENVELOPE_VERSIONS, "capabilities": { "tools": {} }, "instructions": INSTRUCTIONS,
            "ttlMs": TTL_MS, "cacheScope": "public",
            "_meta": { "io.modelcontextprotocol/serverInfo": server_info() },
        }),
        "ping" => json!({}),
        "tools/list" => {
            let mut result = json!({ "tools": tools::list() });
            if is_envelope {
                result["ttlMs"] = TTL_MS.into();
                result["cacheScope"] = "public".into();
            }
            result
        }
        "tools/call" => {
            let Some(name) = params["name"].as_str().filter(|name| tools::NAMES.contains(name)) else {
                let message = format!("no such tool; there are {}", tools::NAMES.join(", "));
                return Some(Reply::Now(failure(&id, INVALID_PARAMS, &message, None)));
            };
            let call =
                Call { id, name: name.to_owned(), arguments: params["arguments"].clone(), is_envelope };
            return Some(Reply::Call(call));
        }
        _ => return Some(Reply::Now(failure(&id, NO_METHOD, "no such method", None))),
    };
    Some(Reply::Now(response(&id, result, is_envelope || method == "server/discover")))
}

/// The version that the client asks for, if it is known, or the newest with a handshake.
fn initialized(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version =
        HANDSHAKE_VERSIONS.into_iter().find(|version| *version == asked).unwrap_or(HANDSHAKE_VERSIONS[0]);
    json!({
        "protocolVersion": version, "capabilities": { "tools": { "listChanged": false } },
        "serverInfo": server_info(), "instructions": INSTRUCTIONS,
    })
}

fn server_info() -> Value {
    json!({ "name": "anonymize", "title": "Anonymizer", "version": env!("CARGO_PKG_VERSION") })
}

fn response(id: &Value, mut result: Value, is_envelope: bool) -> Value {
    if is_envelope {
        result["resultType"] = "complete".into();
    }
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn failure(id: &Value, code: i64, message: &str, data: Option<Value>) -> Value {
    let mut error = json!({ "code": code, "message": message });
    if let Some(data) = data {
        error["data"] = data;
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(message: &Value) -> Value {
        match answer(message.to_string().as_bytes()) {
            Some(Reply::Now(answer)) => answer,
            _ => panic!("no answer at once"),
        }
    }

    #[test]
    fn versions_are_negotiated() {
        let initialize = |version: &str| {
            now(
                &json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version}}),
            )
        };
        assert_eq!(initialize("2025-03-26")["result"]["protocolVersion"], "2025-03-26");
        assert_eq!(initialize("1999-01-01")["result"]["protocolVersion"], "2025-11-25");
        let with = |version: &str| json!({"_meta": {VERSION_KEY: version}});
        let listed =
            now(&json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list", "params": with("2026-07-28")}));
        assert_eq!(listed["result"]["resultType"], "complete");
        let refused =
            now(&json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list", "params": with("2099-01-01")}));
        assert_eq!(
            (refused["error"]["code"].as_i64(), &refused["error"]["data"]["supported"][0]),
            (Some(NO_VERSION), &json!("2026-07-28"))
        );
        let plain = now(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}));
        assert!(
            plain["result"].get("resultType").is_none()
                && plain["result"]["tools"].as_array().unwrap().len() == 3
        );
    }

    #[test]
    fn what_is_no_request_is_refused_and_notifications_are_not_answered() {
        assert!(answer(br#"{"jsonrpc": "2.0", "method": "notifications/initialized"}"#).is_none());
        assert!(answer(br#"{"jsonrpc": "2.0", "id": 1, "result": {}}"#).is_none());
        let code = |line: &[u8]| match answer(line) {
            Some(Reply::Now(answer)) => answer["error"]["code"].as_i64().unwrap(),
            _ => panic!("not refused"),
        };
        assert_eq!(code(b"{"), PARSE);
        assert_eq!(code(b"[]"), INVALID_REQUEST);
        assert_eq!(code(br#"{"jsonrpc": "2.0", "id": 1, "method": "resources/list"}"#), NO_METHOD);
        assert_eq!(
            code(br#"{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}}"#),
            INVALID_PARAMS
        );
    }
}
