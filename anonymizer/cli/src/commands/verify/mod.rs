//! `anonymize verify`: sends made-up values through a proxy to a throwaway provider on loopback, and looks for them in
//! what arrives there.

mod planted;
mod provider;

use std::collections::BTreeMap;

use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use self::planted::{Planted, planted};
use self::provider::{MARK, Provider};
use super::args::VerifyArgs;
use super::{proxy, write_out};
use crate::error::{Error, Result};
use crate::proxy::ProxyOptions;
use crate::proxy::scan_thread::ScanThread;

/// Requests under way at once.
const AT_ONCE: usize = 16;

/// Values of one type, by what became of them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Row {
    planted: usize,
    /// Nothing of them arrived.
    clean: usize,
    /// They arrived, whole or in part.
    leaked: usize,
    /// Those among the leaked that detection did not find, or not wholly.
    missed: usize,
    /// Answers that did not come back as they were sent.
    not_restored: usize,
}

enum Fate {
    Clean,
    Leaked,
    /// Leaked, because it was not found.
    Missed,
}

/// Rows by type and by language.
#[derive(Default)]
struct Rows {
    types: BTreeMap<&'static str, Row>,
    languages: BTreeMap<&'static str, Row>,
    all: Row,
}

impl Row {
    fn add(&mut self, fate: &Fate, restored: bool) {
        self.planted += 1;
        self.not_restored += usize::from(!restored);
        match fate {
            Fate::Clean => self.clean += 1,
            Fate::Leaked => self.leaked += 1,
            Fate::Missed => {
                self.leaked += 1;
                self.missed += 1;
            }
        }
    }
}

pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    let known: Vec<&str> = planted::languages().collect();
    if let Some(language) = args.languages.iter().find(|language| !known.contains(&language.as_str())) {
        return Err(Error::Usage(format!("--languages: no {language:?}; there are {}", known.join(", "))));
    }
    let rows = proxy::runtime()?.block_on(send_all(args, proxy::scan_thread(&args.detection)?))?;
    report(args, &rows)
}

async fn send_all(args: &VerifyArgs, scans: ScanThread) -> Result<Rows> {
    let provider = Provider::default();
    let upstream = provider.start().await?;
    let failed = |source| Error::io_of("listening", source);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let base = format!("http://{}", listener.local_addr().map_err(failed)?);
    let key = proxy::random_key();
    let options = ProxyOptions {
        upstream,
        upstream_key: None,
        key: key.clone(),
        keys: Vec::new(),
        audit: None,
        allow_attachments: false,
        hint: false,
        vault_rules: Default::default(),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async {
        // Whichever way the sender goes, it is time to stop.
        let _ = stopped.await;
    };
    let served = tokio::spawn(crate::proxy::run(listener, scans, options, stopped));
    let sender = Sender { client: reqwest::Client::new(), base, key, provider };
    let all: Vec<String> = planted::languages().map(str::to_owned).collect();
    let languages = if args.languages.is_empty() { &all } else { &args.languages };
    let planted = planted(args.values, args.seed, languages);
    let fates = futures::stream::iter(planted.iter().enumerate())
        .map(|(index, planted)| sender.send(index, planted))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    drop(sender);
    drop(stop);
    let ended = served.await.map_err(|_| sotto_pii::Error::Unavailable)?;
    let mut rows = Rows::default();
    for fate in fates {
        let (planted, fate, restored) = fate?;
        rows.types.entry(planted.entity.as_str()).or_default().add(&fate, restored);
        rows.languages.entry(planted.language).or_default().add(&fate, restored);
        rows.all.add(&fate, restored);
    }
    ended.map(|()| rows)
}

struct Sender {
    client: reqwest::Client,
    base: String,
    key: Zeroizing<String>,
    provider: Provider,
}

impl Sender {
    /// Sends a text; says what became of its value, and whether the answer came back as it was sent.
    async fn send<'a>(&self, index: usize, planted: &'a Planted) -> Result<(&'a Planted, Fate, bool)> {
        let mark = index.to_string();
        let session = format!("verify-{index}");
        let stream = index % 2 == 1;
        let checked =
            self.post("/check", &mark, &json!({ "text": planted.text, "session": session })).await?;
        let checked: Value =
            serde_json::from_str(&checked).map_err(|_| Error::Upstream("no JSON".to_owned()))?;
        let request = json!({
            "model": "verify", "stream": stream,
            "messages": [{ "role": "user", "content": planted.text }],
            "anonymizer": { "session": session },
        });
        let answer = self.post("/v1/chat/completions", &mark, &request).await?;
        let said = if stream { streamed(&answer) } else { whole(&answer) };
        let arrived =
            self.provider.seen(&mark).ok_or_else(|| Error::Upstream("nothing arrived".to_owned()))?;
        let fate = if !is_covered(planted, &checked) {
            Fate::Missed
        } else if arrived.contains(&planted.value) {
            Fate::Leaked
        } else {
            Fate::Clean
        };
        Ok((planted, fate, said == planted.text))
    }

    async fn post(&self, path: &str, mark: &str, body: &Value) -> Result<String> {
        let failed = |error: reqwest::Error| Error::Upstream(error.without_url().to_string());
        let request =
            self.client.post(format!("{}{path}", self.base)).bearer_auth(&*self.key).header(MARK, mark);
        let response = request.json(body).send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        if status.is_success() {
            return Ok(text);
        }
        let message = serde_json::from_str::<Value>(&text).unwrap_or_default();
        if message["error"]["code"] == "detection_untrusted" {
            return Err(sotto_pii::Error::Untrusted.into());
        }
        Err(Error::Upstream(format!("{status}: {}", message["error"]["message"])))
    }
}

fn whole(answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
}

fn streamed(answer: &str) -> String {
    let chunks =
        answer.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    chunks
        .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Whether the spans cover every character of the value that is not white space.
fn is_covered(planted: &Planted, checked: &Value) -> bool {
    let Some(byte) = planted.text.find(&planted.value) else { return false };
    let start = planted.text[..byte].chars().count();
    let bounds = |span: &Value| Some((span["start"].as_u64()? as usize, span["end"].as_u64()? as usize));
    let spans: Vec<(usize, usize)> =
        checked["spans"].as_array().into_iter().flatten().filter_map(bounds).collect();
    let covered = |at: usize| spans.iter().any(|&(from, to)| from <= at && at < to);
    planted.value.chars().enumerate().all(|(at, c)| c.is_whitespace() || covered(start + at))
}

fn report(args: &VerifyArgs, rows: &Rows) -> Result<()> {
    let all = &rows.all;
    let mut out = String::new();
    for (head, rows) in [("type", &rows.types), ("language", &rows.languages)] {
        out.push_str(&format!(
            "{head:<20} {:>7} {:>6} {:>6} {:>6}  verdict\n",
            "planted", "clean", "leaked", "missed"
        ));
        for (label, row) in rows {
            out.push_str(&line(label, row));
        }
        out.push('\n');
    }
    out.push_str(&line("all", all));
    if args.json {
        out = format!("{}\n", json!({ "types": rows.types, "languages": rows.languages, "all": all }));
    }
    write_out(out.as_bytes())?;
    if all.leaked > 0 || all.not_restored > 0 {
        return Err(Error::Leak(format!(
            "{} of {} values leaked ({} were not found), {} answers were not restored",
            all.leaked, all.planted, all.missed, all.not_restored
        )));
    }
    Ok(())
}

fn line(label: &str, row: &Row) -> String {
    let verdict = match (row.leaked, row.not_restored) {
        (0, 0) => "clean",
        (0, _) => "NOT RESTORED",
        _ => "LEAK",
    };
    format!(
        "{label:<20} {:>7} {:>6} {:>6} {:>6}  {verdict}\n",
        row.planted, row.clean, row.leaked, row.missed
    )
}
