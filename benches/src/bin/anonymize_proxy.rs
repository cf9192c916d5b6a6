//! `anonymize_proxy`: what the anonymizer's proxy adds to the first streamed token, beyond detection, and fifty streams
//! at once. `docs/anonymizer.md` has what it measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anonymizer::config::Config;
use anonymizer::detect::DetectOptions;
use anonymizer::model::{BackendChoice, ModelDetector, ModelOptions};
use anonymizer::proxy::scan_thread::ScanThread;
use anonymizer::proxy::{self, ProxyOptions};
use anonymizer::scan::{Rules, Scanner};
use anyhow::Context;
use benches::check::Checks;
use benches::machine::Machine;
use benches::output::{envelope, print_json};
use clap::Parser;
use serde_json::json;
use sotto_storage::NoProgress;

/// Measures the proxy with the real detection model, its linear layers in the clear, against its own provider.
#[derive(Parser)]
struct Args {
    /// Rounds of: straight to the provider, detection alone, through the proxy.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

const KEY: &str = "bench-key";
/// Time the provider takes to its first token.
const THINKING: Duration = Duration::from_millis(20);
/// Streams at once.
const STREAMS: usize = 50;
/// Tokens of an answer.
const ANSWER: usize = 20;

/// Most milliseconds that the proxy may add to the first token, in the median.
const ADDED_MS: f64 = 20.0;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = sotto::serve_if_asked() {
        return Ok(code);
    }
    let args = Args::parse();
    let provider = provide()?;
    let rules = Arc::new(Rules::new(&Config::default())?);
    let proxied = start_proxy(&rules, provider)?;
    let mut alone = Scanner::new(Arc::clone(&rules), Box::new(detector()?));
    let (mut added, mut direct) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let text = text(round);
        let straight = ask(provider, &text)?.first;
        let start = Instant::now();
        alone.scan(&[&text])?;
        let detection = start.elapsed();
        let through = ask(proxied, &text)?.first;
        direct.push(milliseconds(straight));
        added.push(milliseconds(through) - milliseconds(straight) - milliseconds(detection));
    }
    let whole = concurrent(proxied)?;
    let (added, direct) = (Spread::of(added), Spread::of(direct));
    let mut checks = Checks::new();
    checks.at_most("milliseconds added to the first token", added.median, ADDED_MS);
    checks.that("all concurrent streams came whole", whole == STREAMS, whole.to_string());
    let report = json!({
        "rounds": args.rounds, "added_ms_median": added.median, "added_ms_p95": added.high, "added_ms_worst": added.worst,
        "direct_ms_median": direct.median, "direct_ms_worst": direct.worst,
        "streams_whole": whole, "streams": STREAMS,
    });
    let machine = Machine::detect(std::thread::available_parallelism().map_or(1, usize::from));
    if args.json {
        print_json(&envelope(&machine, &checks, &report)?)?;
    } else {
        println!("{}\n{report:#}", machine.line());
    }
    checks.finish()?;
    Ok(ExitCode::SUCCESS)
}

struct Spread {
    median: f64,
    high: f64,
    worst: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            values.get(((values.len() - 1) as f64 * share) as usize).copied().unwrap_or(f64::NAN)
        };
        Self { median: at(0.5), high: at(0.95), worst: at(1.0) }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A text that no other round has.
fn text(round: usize) -> String {
    format!(
        "Please tell Beatriz Kowalski in Savannah that parcel {round} is here; mail b{round}@example.org."
    )
}

fn detector() -> anyhow::Result<ModelDetector> {
    let options = ModelOptions { backend: BackendChoice::Dense, ..ModelOptions::default() };
    Ok(ModelDetector::open(&options, DetectOptions::default(), &NoProgress)?)
}

fn start_proxy(rules: &Arc<Rules>, provider: SocketAddr) -> anyhow::Result<SocketAddr> {
    let (own, model) = (Arc::clone(rules), detector()?);
    let scans = ScanThread::start(Arc::clone(rules), move || Ok(Scanner::new(own, Box::new(model))))?;
    let options = ProxyOptions {
        upstream: format!("http://{provider}/v1"),
        upstream_key: None,
        key: KEY.to_owned().into(),
        audit: None,
        allow_attachments: false,
        hint: false,
        vault_rules: Default::default(),
        keys: Vec::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            proxy::run(listener, scans, options, std::future::pending()).await.map_err(anyhow::Error::from)
        })
    });
    Ok(address)
}

/// A provider that streams words after a while.
fn provide() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

fn answer(stream: TcpStream) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    let mut stream = stream;
    stream.set_nodelay(true)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    std::thread::sleep(THINKING);
    for word in 0..ANSWER {
        let chunk =
            json!({"id": "c", "choices": [{"index": 0, "delta": {"content": format!("word{word} ")}}]});
        stream.write_all(format!("data: {chunk}\n\n").as_bytes())?;
    }
    stream.write_all(b"data: [DONE]\n\n")?;
    Ok(())
}

struct Asked {
    first: Duration,
    words: usize,
}

/// Asks for a streamed answer; the time counts from the connection to the first content.
fn ask(address: SocketAddr, text: &str) -> anyhow::Result<Asked> {
    let body =
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": text}]}).to_string();
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes())?;
    let (mut first, mut words) = (None, 0);
    for line in BufReader::new(stream).lines() {
        let line = line?;
        words += line.matches("word").count();
        if words > 0 && first.is_none() {
            first = Some(start.elapsed());
        }
    }
    Ok(Asked { first: first.context("no content came")?, words })
}

/// How many of the concurrent streams came whole.
fn concurrent(address: SocketAddr) -> anyhow::Result<usize> {
    let streams: Vec<_> =
        (0..STREAMS).map(|stream| std::thread::spawn(move || ask(address, &text(10_000 + stream)))).collect();
    let mut whole = 0;
    for stream in streams {
        let asked = stream.join().map_err(|_| anyhow::anyhow!("a stream panicked"))??;
        whole += usize::from(asked.words == ANSWER);
    }
    Ok(whole)
}
