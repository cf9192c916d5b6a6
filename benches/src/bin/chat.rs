//! Chat on SmolLM2-135M: encrypted against clear, with what starting and talking cost.

use std::process::ExitCode;
use std::time::Duration;

use benches::chat_run::{self, ChatBench};
use benches::check::Checks;
use benches::link::Link;
use benches::link_run::{self, LinkBench};
use benches::machine::Machine;
use benches::network::Profile;
use benches::output::{envelope, print_json};
use clap::Parser;
use sotto_engine::open::DraftSource;
use sotto_engine::session::DraftLength;
use sotto_models::split::plan::PlanKind;

/// Measures chat on SmolLM2-135M
#[derive(Parser)]
struct Args {
    /// Grouping of the round trips: plain or fused; fused over a link, else plain
    #[arg(long, value_parser = |text: &str| chat_run::parse_plan(text))]
    rounds: Option<PlanKind>,
    /// Tokens to decode per backend; over a link, tokens of an answer [default: 256, over a link 64]
    #[arg(long)]
    tokens: Option<usize>,
    /// Run prompts of several kinds over a link between two network namespaces: lan, metro, country, home or ocean
    #[arg(long)]
    link: Option<Profile>,
    /// With --link, drafts: ngram, off, or a model with the same tokenizer
    #[arg(long, default_value = "ngram", requires = "link")]
    draft: DraftSource,
    /// With --link, length of drafts: steady, auto or a number
    #[arg(long, default_value_t = DraftLength::Steady, requires = "link")]
    draft_length: DraftLength,
    /// With --link, this many conversations at once through `sotto api` against one
    #[arg(long, requires = "link")]
    conversations: Option<usize>,
    /// With --link, the model that is served
    #[arg(long, default_value = "smollm2-135m", requires = "link")]
    model: String,
    /// With --link, kernel parameters of both sides, such as net.ipv4.tcp_congestion_control=bbr; may be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "link")]
    kernel: Vec<String>,
    /// With --link, seed of its losses and jitter, and of the sampler
    #[arg(long, default_value_t = 1, requires = "link")]
    seed: u64,
    /// Round-trip time to add, in milliseconds
    #[arg(long, default_value_t = 0.0)]
    rtt_ms: f64,
    /// Link speed to emulate, in Mbit/s
    #[arg(long)]
    link_mbit: Option<f64>,
    /// Wire form: auto, lean, stateless, full, or lean:B/R/S
    #[arg(long, default_value = "auto")]
    wire: sotto_client::WirePreference,
    /// Leave out the start without tables
    #[arg(long)]
    no_cold: bool,
    /// Print one JSON object as the last line (always on)
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    // As a server in a child process, and as an endpoint in a namespace.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "serve" || argument == "api") {
        return Ok(sotto::main());
    }
    let args = Args::parse();
    let machine = Machine::detect(rayon::current_num_threads());
    let mut checks = Checks::new();
    if let Some(link) = args.link {
        let bench = LinkBench {
            model: args.model,
            link,
            plan: args.rounds.unwrap_or(PlanKind::Fused),
            tokens: args.tokens.unwrap_or(64),
            draft: args.draft,
            draft_length: args.draft_length,
            conversations: args.conversations,
            seed: args.seed,
            kernel: args.kernel,
        };
        let report = link_run::run(&bench, &mut checks)?;
        print_json(&envelope(&machine, &checks, &report)?)?;
        return Ok(if checks.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let slow = args.rtt_ms > 0.0 || args.link_mbit.is_some();
    let link = slow.then(|| Link {
        rtt: Duration::from_secs_f64(args.rtt_ms / 1e3),
        bits_per_second: args.link_mbit.map(|mbit| mbit * 1e6),
    });
    let bench = ChatBench {
        plan: args.rounds.unwrap_or(PlanKind::Plain),
        tokens: args.tokens.unwrap_or(256),
        link,
        cold: !args.no_cold,
        wire: args.wire,
    };
    let report = chat_run::run(&bench, &mut checks)?;
    print_json(&envelope(&machine, &checks, &report)?)?;
    Ok(if checks.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
