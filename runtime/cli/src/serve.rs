//! `sotto serve`: arguments, signals, start-up output.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use sotto_models::split::plan::PlanKind;

use super::args::MAX_THREADS;
use super::output;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, Result};
use sotto_server::{Form, Role, Server, ServerConfig};

/// How prepared tables are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormChoice {
    /// NTT form if it fits into the memory that is free, else compact
    Auto,
    /// 31 KB per row, 16 KB with the light set: fastest
    Ntt,
    /// 8 KB per row, 6.5 KB with the light set: slower masks
    Compact,
}

/// Which plans of a split to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoundsToServe {
    /// Four round trips per transformer block
    Plain,
    /// Two round trips per transformer block
    Fused,
    /// Whatever the split has
    Both,
}

/// Arguments of `sotto serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Split to serve, as written by `sotto split`; may be given several times
    #[arg(long, env = "SOTTO_SPLIT", value_name = "DIR", required = true, value_delimiter = ',')]
    pub split: Vec<PathBuf>,

    /// Groupings of the round trips to serve, of those that the split has
    #[arg(long, env = "SOTTO_ROUNDS", value_enum, default_value_t = RoundsToServe::Both)]
    pub rounds: RoundsToServe,

    /// Address to listen on; port 0 takes a free one; may be given several times
    #[arg(
        long,
        env = "SOTTO_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:0",
        value_delimiter = ','
    )]
    pub listen: Vec<SocketAddr>,

    /// Services of this process: all, or a list of catalogue, mask and body
    #[arg(long, env = "SOTTO_ROLE", value_name = "ROLES", default_value = "all")]
    pub role: String,

    /// Memory form of the prepared tables
    #[arg(long, env = "SOTTO_FORM", value_enum, default_value_t = FormChoice::Auto)]
    pub form: FormChoice,

    /// Threads; all cores by default
    #[arg(long, env = "SOTTO_THREADS", value_name = "N")]
    pub threads: Option<usize>,

    /// Directory of credentials, certificate and signing key; without it they last as long as the process
    #[arg(long, env = "SOTTO_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Directory of the certificate and signing key that the processes of one server share, as written by `sotto keys`; read only
    #[arg(long, env = "SOTTO_KEYS", value_name = "DIR")]
    pub keys: Option<PathBuf>,

    /// Make a credential without limits that is valid for this process only
    #[arg(long, env = "SOTTO_EPHEMERAL_CREDENTIAL")]
    pub ephemeral_credential: bool,

    /// Address of /healthz, /readyz and /metrics (plain HTTP)
    #[arg(long, env = "SOTTO_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Address to print in the connect string, if clients reach this server under another one
    #[arg(long, env = "SOTTO_PUBLIC_ADDRESS", value_name = "HOST:PORT")]
    pub public_address: Option<String>,

    /// Where clients reach processes with role mask, if they run apart; may be given several times
    #[arg(long, env = "SOTTO_MASK_ADDRESS", value_name = "HOST:PORT", value_delimiter = ',')]
    pub mask_address: Vec<String>,

    /// Where clients reach processes with role body, if they run apart; may be given several times
    #[arg(long, env = "SOTTO_BODY_ADDRESS", value_name = "HOST:PORT", value_delimiter = ',')]
    pub body_address: Vec<String>,

    /// Memory for batches of the lean wire form, in MiB; an eighth of the free memory when absent
    #[arg(long, env = "SOTTO_BATCH_MEMORY", value_name = "MIB")]
    pub batch_memory: Option<u64>,

    /// Write the connect string to this file (mode 0600) once every model is loaded
    #[arg(long, env = "SOTTO_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// What to log on standard error: off, error, warn, info, debug or trace. No level logs what clients send
    #[arg(long, env = "SOTTO_LOG", value_name = "LEVEL", default_value = "info")]
    pub log: tracing::level_filters::LevelFilter,

    /// Print the credential in the connect string even where standard output is no terminal, such as a container's log
    #[arg(long, env = "SOTTO_PRINT_CREDENTIAL")]
    pub print_credential: bool,

    /// End when stdin does, which happens when the parent process ends in whatever way
    #[arg(long, env = "SOTTO_EXIT_WITH_PARENT")]
    pub exit_with_parent: bool,
}

impl ServeArgs {
    /// Resolves the arguments.
    ///
    /// # Errors
    /// [`Error::Usage`] on an unknown role or zero threads.
    pub fn to_config(&self) -> Result<ServerConfig> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = self.threads.unwrap_or(cores);
        if threads == 0 || threads as u64 > MAX_THREADS {
            return Err(Error::Usage(format!("--threads must be from 1 to {MAX_THREADS}, got {threads}")));
        }
        Ok(ServerConfig {
            splits: self.split.clone(),
            plans: match self.rounds {
                RoundsToServe::Plain => vec![PlanKind::Plain],
                RoundsToServe::Fused => vec![PlanKind::Fused],
                RoundsToServe::Both => Vec::new(),
            },
            listen: self.listen.clone(),
            roles: Role::parse_list(&self.role)?,
            form: match self.form {
                FormChoice::Auto => Form::Auto,
                FormChoice::Ntt => Form::Ntt,
                FormChoice::Compact => Form::Compact,
            },
            threads,
            state: self.state.clone(),
            keys: self.keys.clone(),
            ephemeral_credential: self.ephemeral_credential,
            metrics: self.metrics,
            public_address: self.public_address.clone(),
            mask_addresses: self.mask_address.clone(),
            body_addresses: self.body_address.clone(),
            batch_memory: self.batch_memory.map(|mebibytes| mebibytes << 20),
        })
    }
}

/// The connect string with its credential, in the state directory, if one was made at this start.
const CONNECT_STRING_FILE: &str = "connect-string";

/// Runs a server until SIGTERM, SIGINT or the parent's end; prints the connect string as the only line of stdout.
///
/// Unless stdout is a terminal or `--print-credential` is given, the line has no credential: container logs are kept and
/// shipped. The whole string is in the state directory then. The line comes as soon as the addresses are bound; calls that need a model wait until it is loaded.
///
/// # Errors
/// What starting or loading fails with.
pub fn run(args: &ServeArgs) -> Result<()> {
    log_to_stderr(args.log);
    let config = args.to_config()?;
    let state = config.state.clone();
    let server = Server::start(config)?;
    let line = format!("{}\n", server.connect_string());
    let shown = args.print_credential || std::io::stdout().is_terminal();
    let public = ConnectString { credential: None, ..server.connect_string().clone() };
    let printed = if shown { line.clone() } else { format!("{public}\n") };
    // Whoever waits for the line reads the file next.
    let kept = match !shown && server.connect_string().credential.is_some() {
        true => Some(keep_connect_string(args, &line)?),
        false => None,
    };
    output::write(&mut std::io::stdout().lock(), printed.as_bytes())?;
    if let Some(place) = kept {
        note!("the connect string with its credential {place}");
    }
    if server.connect_string().credential.is_none()
        && let Some(state) = state
    {
        note!(
            "For a client: sotto credential add --state {} --budget 100000 --server '{}'\n\
             It prints the whole connect string for `sotto chat --server`.",
            state.display(),
            server.connect_string()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "start a runtime".to_owned(), source })?;
    runtime.block_on(wait_for_end(args, &server, &line))?;
    server.drain();
    // A thread that reads stdin may still block; it does not hold up the process.
    runtime.shutdown_background();
    server.join()
}

/// Logs events of this program's crates, and none of the libraries below them, which know nothing of secrets.
fn log_to_stderr(level: tracing::level_filters::LevelFilter) {
    use tracing_subscriber::prelude::*;
    let ours = tracing_subscriber::filter::Targets::new().with_target("sotto", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // A program that embeds this command may have a log of its own.
    let _ = tracing_subscriber::registry().with(lines.with_filter(ours)).try_init();
}

/// Puts the connect string with its credential where the log's readers do not see it, and says where that is.
fn keep_connect_string(args: &ServeArgs, line: &str) -> Result<String> {
    Ok(match (&args.state, &args.ready_file) {
        (Some(state), _) => {
            let file = state.join(CONNECT_STRING_FILE);
            sotto_storage::write_private(&file, line.as_bytes())
                .map_err(|error| Error::io("write", &file, error))?;
            format!("is in {}", file.display())
        }
        (None, Some(file)) => format!("will be in {}", file.display()),
        (None, None) => "is not kept: use --state, --ready-file or --print-credential".to_owned(),
    })
}

/// Returns when the server should stop.
async fn wait_for_end(args: &ServeArgs, server: &Server, line: &str) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |source| Error::Io { context: "wait for signals".to_owned(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut drain = server.drain_signal();
    let mut announced = false;
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let stdin_closed = stdin_closed(args.exit_with_parent);
    tokio::pin!(stdin_closed);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = drain.wait_for(|draining| *draining) => return Ok(()),
            () = &mut stdin_closed => return Ok(()),
            _ = poll.tick(), if !announced => {
                if server.is_ready() {
                    announced = true;
                    if let Some(file) = &args.ready_file {
                        sotto_storage::write_private(file, line.as_bytes())
                            .map_err(|error| Error::io("write", file, error))?;
                    }
                    note!("ready: {}", describe(server));
                }
            }
        }
    }
}

fn describe(server: &Server) -> String {
    let models = server.models().iter().map(|model| {
        let info = &model.info;
        let megabytes = (info.weight_bytes() + model.table_bytes()) / 1_000_000;
        format!("{} ({}, tau {}, {megabytes} MB)", info.name, info.plan, info.tau)
    });
    models.collect::<Vec<_>>().join(", ")
}

/// Ends at the end of file of stdin if `watch`, else never. (The kernel's parent-death signal would come when the
/// parent's *thread* ends that started this process, so it is not used.)
async fn stdin_closed(watch: bool) {
    if !watch {
        return std::future::pending().await;
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
        sender.send(()).ok();
    });
    receiver.await.ok();
}
