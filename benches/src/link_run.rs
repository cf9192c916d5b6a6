//! `--bin chat --link`: prompts of several kinds over a real network, with drafts and without; and conversations that share
//! passes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sotto::estimate::{AssumedLink, estimate_here};
use sotto_client::{RoundsPreference, WirePreference};
use sotto_engine::embedded::{LocalModel, local_model};
use sotto_engine::fetch::ModelRef;
use sotto_engine::open::{BackendSpec, Chat, DraftSource, Model, OpenOptions};
use sotto_engine::session::{Answer, DraftLength, GenerateOptions};
use sotto_models::generate::sampler::SamplerConfig;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_storage::{Cache, NoProgress};

use crate::check::Checks;
use crate::kinds::{Kind, kinds};
use crate::link::{Link, emulate};
use crate::network::{Counts, Network, NetworkServer, Profile, Shape, command_in, self_program};

/// What to run.
#[derive(Clone, Debug)]
pub struct LinkBench {
    /// The model served.
    pub model: String,
    /// The link.
    pub link: Profile,
    /// Plan.
    pub plan: PlanKind,
    /// Tokens of an answer at most.
    pub tokens: usize,
    /// Where drafts come from.
    pub draft: DraftSource,
    /// How many.
    pub draft_length: DraftLength,
    /// Conversations at once through `sotto api`; the kinds are left out then.
    pub conversations: Option<usize>,
    /// Seed of the link and of the sampler.
    pub seed: u64,
    /// Kernel parameters for both sides, `NAME=VALUE`.
    pub kernel: Vec<String>,
}

/// What stays alive while something is measured.
struct Setup {
    network: Option<Network>,
    /// Dropped before the network.
    server: Option<NetworkServer>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.server = None;
    }
}

/// Runs the measurement.
///
/// # Errors
/// Whatever the network, the server or the model fails with.
pub fn run(bench: &LinkBench, checks: &mut Checks) -> anyhow::Result<Value> {
    let cache = Cache::from_env()?;
    let binding = sotto_protocol::binding::binding(64)?;
    let local = local_model(&ModelRef::parse(&bench.model)?, bench.plan, &binding, &cache, &NoProgress)?;
    let setup = setup(bench, &local)?;
    let mut report = json!({
        "model": local.name,
        "rounds": bench.plan,
        "link": bench.link,
        "network": if setup.network.is_some() { "kernel TCP between namespaces" } else { "relay of connections" },
        "draft": format!("{:?}", bench.draft),
        "draft_length": bench.draft_length.to_string(),
    });
    let measured = match bench.conversations {
        None => {
            let rows = of_kinds(bench, &local, &cache, &setup, checks)?;
            let estimate = estimated(bench, &local)?;
            // Of tokens that were decoded one by one, whatever was asked.
            let (tokens, seconds) =
                rows.iter().filter_map(|row| row.get("without")).fold((0.0, 0.0), |sum, row| {
                    let tokens = row["tokens"].as_f64().unwrap_or_default();
                    (sum.0 + tokens, sum.1 + tokens / row["tokens_per_s"].as_f64().unwrap_or(f64::INFINITY))
                });
            let ratio = estimate * seconds / tokens;
            checks.that(
                "sotto estimate is within 20 % of the tokens/s without drafts",
                (0.8..=1.25).contains(&ratio),
                format!("estimated {estimate:.3}, measured {:.3}", tokens / seconds),
            );
            json!({ "estimated_tokens_per_s": estimate, "kinds": rows })
        }
        Some(count) => shared(bench, count, &setup, checks)?,
    };
    if let (Value::Object(report), Value::Object(measured)) = (&mut report, measured) {
        report.extend(measured);
    }
    if let Some(network) = &setup.network {
        let of = |counts: &Counts| {
            let [packets, bytes, lost, dropped] =
                [&counts.packets, &counts.bytes, &counts.lost, &counts.dropped]
                    .map(|count| count.load(Ordering::Relaxed));
            json!({ "packets": packets, "bytes": bytes, "lost": lost, "dropped_by_queue": dropped })
        };
        report["carried"] = json!({ "up": of(&network.counts[0]), "down": of(&network.counts[1]) });
    }
    Ok(report)
}

fn setup(bench: &LinkBench, local: &LocalModel) -> anyhow::Result<Setup> {
    if !Network::is_possible() {
        eprintln!(
            "not root, or no TUN: a relay that ends connections stands for the link, without losses and jitter"
        );
        return Ok(Setup { network: None, server: None });
    }
    let network = Network::start(&bench.link, bench.seed)?;
    for setting in &bench.kernel {
        let (name, value) = setting.split_once('=').context("--kernel takes NAME=VALUE")?;
        network.client.set(name, value)?;
        network.server.set(name, value)?;
    }
    let directories = [local.directory.clone()];
    let server = NetworkServer::start(&network.server, &network.listen_address(), &directories)?;
    // Threads that are started from here on are the client's.
    network.client.enter()?;
    Ok(Setup { network: Some(network), server: Some(server) })
}

fn open(bench: &LinkBench, local: &LocalModel, cache: &Cache, setup: &Setup) -> anyhow::Result<Chat> {
    let mut options = OpenOptions {
        rounds: RoundsPreference::Only(bench.plan),
        wire: WirePreference::Auto,
        pad_prompt: Some(1),
        pad_answer: Some(1),
        accept_change: Box::new(|_| true),
        ..OpenOptions::new(cache.clone())
    };
    let model = match &setup.server {
        Some(server) => {
            let spec = BackendSpec::Remote(Box::new(server.connect.clone()));
            Model::open(&ModelRef::parse(&bench.model)?, spec, options, &NoProgress)?
        }
        None => {
            let link = Link {
                rtt: bench.link.round_trip(),
                bits_per_second: Some(bench.link.up.bits_per_second.min(bench.link.down.bits_per_second)),
            };
            options.route = Some(Arc::new(move |address: &str| {
                emulate(address, link)
                    .map_err(|source| sotto_protocol::Error::Io { context: "link".to_owned(), source })
            }));
            Model::open_local(local, &BackendSpec::Embedded, options, &NoProgress)?
        }
    };
    Ok(model.into_chat()?)
}

/// The kinds in turn, each without drafts and with them.
fn of_kinds(
    bench: &LinkBench,
    local: &LocalModel,
    cache: &Cache,
    setup: &Setup,
    checks: &mut Checks,
) -> anyhow::Result<Vec<Value>> {
    let mut chat = open(bench, local, cache, setup)?;
    eprintln!("{}", chat.description);
    // The first pass waits for masks and warms what is cached.
    ask(&mut chat, &kinds()[0], &DraftSource::Off, bench, cache, 2)?;
    let (mut rows, mut ratios) = (Vec::new(), Vec::new());
    for kind in kinds() {
        let without = ask(&mut chat, &kind, &DraftSource::Off, bench, cache, bench.tokens)?;
        let with = match bench.draft {
            DraftSource::Off => None,
            ref draft => Some(ask(&mut chat, &kind, draft, bench, cache, bench.tokens)?),
        };
        let mut row = json!({ "kind": kind.name, "without": figures(&without) });
        if let Some(with) = with {
            let ratio = with.decode_tokens_per_s() / without.decode_tokens_per_s();
            row["with"] = figures(&with);
            row["speedup"] = ratio.into();
            row["same_text"] = (with.text == without.text).into();
            if kind.counted {
                ratios.push(ratio);
            }
            eprintln!(
                "{}: {:.2} tokens/s without, {:.2} with drafts: {ratio:.2} times",
                kind.name,
                without.decode_tokens_per_s(),
                with.decode_tokens_per_s()
            );
            checks.at_least(format!("speedup of {}", kind.name), ratio, bar(kind.name));
        }
        rows.push(row);
    }
    if !ratios.is_empty() {
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        checks.at_least("mean speedup", mean, 1.3);
        eprintln!("mean {mean:.2} times");
    }
    Ok(rows)
}

/// What `sotto estimate` says about tokens per second without drafts.
fn estimated(bench: &LinkBench, local: &LocalModel) -> anyhow::Result<f64> {
    let source = ModelSource::open(&local.source)?;
    let mbit = |shape: &Shape| shape.bits_per_second / 1e6;
    let link = AssumedLink {
        up_mbit: mbit(&bench.link.up),
        down_mbit: mbit(&bench.link.down),
        rtt_ms: bench.link.round_trip().as_secs_f64() * 1e3,
    };
    Ok(estimate_here(&source, bench.plan, link)?.tokens_per_s)
}

/// What drafts must reach on this kind.
fn bar(kind: &str) -> f64 {
    match kind {
        "edit code" | "quote" => 1.8,
        _ => 0.97,
    }
}

fn ask(
    chat: &mut Chat,
    kind: &Kind,
    draft: &DraftSource,
    bench: &LinkBench,
    cache: &Cache,
    tokens: usize,
) -> anyhow::Result<Answer> {
    chat.draft(draft, bench.draft_length, cache, &NoProgress)?;
    chat.session.clear();
    chat.session.push_user(kind.prompt.clone());
    let options = GenerateOptions {
        max_tokens: tokens,
        sampler: SamplerConfig { temperature: kind.temperature, ..SamplerConfig::default() },
        seed: bench.seed,
        ..GenerateOptions::default()
    };
    Ok(chat.session.answer(&options, &|| false, &mut |_| {})?)
}

fn figures(answer: &Answer) -> Value {
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    json!({
        "tokens_per_s": answer.decode_tokens_per_s(),
        "tokens": answer.decode_tokens,
        "passes": answer.decode_passes,
        "tokens_per_pass": share(answer.decode_tokens, answer.decode_passes),
        "drafted": answer.drafted_tokens,
        "accepted": answer.accepted_tokens,
        "acceptance": share(answer.accepted_tokens, answer.drafted_tokens),
        "prompt_tokens": answer.prompt_tokens,
        "time_to_first_token_ms": answer.time_to_first_token_ms,
        "bytes": answer.cost.bytes,
        "ms_per_pass": share(answer.decode_ms as usize, answer.decode_passes),
    })
}

/// `sotto api` in the client's namespace; killed on drop.
struct Api {
    child: Child,
    base: String,
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_api(bench: &LinkBench, setup: &Setup) -> anyhow::Result<Api> {
    let (Some(network), Some(server)) = (&setup.network, &setup.server) else {
        anyhow::bail!("--conversations needs root: the endpoint is a process in a namespace of its own");
    };
    let mut command = command_in(&network.client, &self_program()?);
    command.args([
        "api",
        "--listen",
        "127.0.0.1:0",
        "--no-key",
        "--quiet",
        "--pad-prompt",
        "1",
        "--pad-answer",
        "1",
    ]);
    command.args(["--rounds", bench.plan.as_str(), "--draft-length", &bench.draft_length.to_string()]);
    command.args([
        "--draft",
        match bench.draft {
            DraftSource::Off => "off",
            _ => "ngram",
        },
    ]);
    command.env("SOTTO_SERVER", &server.connect_text);
    let mut child = command.stdout(Stdio::piped()).spawn().context("ip netns exec")?;
    let stdout = child.stdout.take().context("the endpoint's output")?;
    let mut api = Api { child, base: String::new() };
    // All that it prints is read: it ends when nobody takes the rest.
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some((_, url)) = line.split_once("base URL  ") {
            api.base = url.trim().to_owned();
        }
        if line.starts_with("model ") {
            return Ok(api);
        }
    }
    anyhow::bail!("the endpoint ended at once")
}

/// Tokens per second of one conversation and of `count` at once, twice in turn.
fn shared(bench: &LinkBench, count: usize, setup: &Setup, checks: &mut Checks) -> anyhow::Result<Value> {
    let api = start_api(bench, setup)?;
    converse(&api, 1, 2)?;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        one.push(converse(&api, 1, bench.tokens)?);
        many.push(converse(&api, count, bench.tokens)?);
    }
    let rate = |runs: &[(usize, f64)]| {
        runs.iter().map(|run| run.0).sum::<usize>() as f64 / runs.iter().map(|run| run.1).sum::<f64>()
    };
    let ratio = rate(&many) / rate(&one);
    checks.at_least("conversations at once, times the tokens/s of one", ratio, 5.0);
    eprintln!(
        "one: {:.2} tokens/s; {count} at once: {:.2} tokens/s, {ratio:.2} times",
        rate(&one),
        rate(&many)
    );
    Ok(json!({
        "conversations": count,
        "one_tokens_per_s": rate(&one),
        "together_tokens_per_s": rate(&many),
        "ratio": ratio,
        "seconds": { "one": one.iter().map(|run| run.1).collect::<Vec<_>>(),
            "together": many.iter().map(|run| run.1).collect::<Vec<_>>() },
    }))
}

/// `count` requests at once; their tokens, and the seconds from the first one's start to the last one's end.
fn converse(api: &Api, count: usize, tokens: usize) -> anyhow::Result<(usize, f64)> {
    let topics = ["tea", "the sea", "bread", "clocks", "bees", "snow", "maps", "bridges"];
    let start = Instant::now();
    let answers: Vec<anyhow::Result<usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let body = json!({
                    "messages": [{ "role": "user", "content": format!("Tell me about {}.", topics[number % topics.len()]) }],
                    "max_tokens": tokens,
                    "temperature": 0,
                });
                let url = format!("{}/chat/completions", api.base);
                scope.spawn(move || -> anyhow::Result<usize> {
                    let client = reqwest::blocking::Client::builder().timeout(None).no_proxy().build()?;
                    let response = client.post(url).json(&body).send()?;
                    let answer: Value = response.json()?;
                    let count = answer["usage"]["completion_tokens"].as_u64();
                    Ok(usize::try_from(count.with_context(|| answer.to_string())?)?)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a request panicked"))))
            .collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let tokens: usize = answers.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().sum();
    ensure!(tokens > 0, "no tokens");
    Ok((tokens, seconds))
}
