//! `sotto ps`: what a running `sotto api` has loaded.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::args::PsArgs;
use super::output;
use sotto_protocol::error::{Error, Result};

/// How long the endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Asks the endpoint and prints what it says.
///
/// # Errors
/// [`Error::Connect`] if nothing answers; [`Error::Usage`] for a wrong key or another program.
pub fn run(args: &PsArgs, out: &mut dyn Write) -> Result<()> {
    let status = ask(args.listen, args.api_key.as_deref())?;
    if args.json {
        return output::line(out, &status.to_string());
    }
    let models = status["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = models.iter().map(row);
    let header = ["MODEL", "STATE", "MEMORY", "REQUESTS", "UNUSED"].map(ToOwned::to_owned);
    let table: Vec<[String; 5]> = std::iter::once(header).chain(rows).collect();
    output::line(out, &aligned(&table))
}

fn ask(address: SocketAddr, key: Option<&str>) -> Result<Value> {
    let unreachable = |source: std::io::Error| Error::Connect {
        address: address.to_string(),
        reason: format!("{source}; is `sotto api` running there?"),
    };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(unreachable)?;
    let mut answer = Vec::new();
    let key = key.map(|key| format!("Authorization: Bearer {}\r\n", key.trim())).unwrap_or_default();
    let request = format!("GET /ps HTTP/1.0\r\nHost: {address}\r\n{key}\r\n");
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .and_then(|()| stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer))
        .map_err(unreachable)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&*text, ""));
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status == "401" {
        let message =
            "wrong or missing API key; give the one that `sotto api` printed: --api-key, or SOTTO_API_KEY";
        return Err(Error::Usage(message.to_owned()));
    }
    let parsed = serde_json::from_str::<Value>(body).ok().filter(|value| value["models"].is_array());
    parsed.filter(|_| status == "200").ok_or_else(|| Error::Usage(format!("{address} is no `sotto api`")))
}

fn row(model: &Value) -> [String; 5] {
    let text = |name: &str| model[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| model[name].as_u64();
    let memory = number("memory_bytes").filter(|bytes| *bytes > 0);
    [
        text("name"),
        text("state"),
        memory.map_or_else(String::new, |bytes| format!("{} MiB", bytes >> 20)),
        number("requests").map_or_else(String::new, |count| count.to_string()),
        number("unused_s").map_or_else(String::new, |seconds| format!("{seconds} s")),
    ]
}

/// Columns as wide as their widest entry.
fn aligned(table: &[[String; 5]]) -> String {
    let widths: [usize; 5] =
        std::array::from_fn(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 5]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [
            row(&json!({ "name": "a", "state": "not loaded", "memory_bytes": 0, "requests": 0 })),
            row(
                &json!({ "name": "long", "state": "loaded", "memory_bytes": 5 << 20, "requests": 2, "unused_s": 7 }),
            ),
        ];
        assert_eq!(aligned(&rows), "a     not loaded         0\nlong  loaded      5 MiB  2  7 s");
    }
}
