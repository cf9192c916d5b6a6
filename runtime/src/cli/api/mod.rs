//! `sotto api`: the private model as an OpenAI-compatible endpoint on loopback.
//!
//! | path | what |
//! |---|---|
//! | `POST /v1/chat/completions` | answers, at once or streamed |
//! | `GET /v1/models` | the model |
//! | `POST /v1/embeddings` | sentence embeddings |
//!
//! Every request needs the key printed at start. Requests that a web page could cause (a foreign
//! `Host` or `Origin`) are refused, and no CORS header is ever sent.

mod embed;
mod guard;
mod handlers;
mod wire;
mod worker;

use std::io::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::args::ApiArgs;
use super::interrupt::Interrupt;
use super::open::open;
use super::output;
use super::progress::Bars;
use crate::error::{Error, Result};

/// Largest request body, in bytes; far more text than any context holds.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Runs `sotto api` until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// [`Error::Usage`] for an address that is not loopback, [`Error::PortInUse`], or as `sotto chat`.
pub fn run(args: &ApiArgs, out: &mut dyn Write) -> Result<()> {
    if !args.listen.ip().is_loopback() {
        return Err(Error::Usage(format!(
            "{} is not a loopback address; this endpoint sees your texts in clear and stays on this machine",
            args.listen
        )));
    }
    let io = |context: &str| {
        let context = context.to_owned();
        move |source| Error::Io { context, source }
    };
    // Bind first: a taken port should not cost a minute of preparation.
    let listener = std::net::TcpListener::bind(args.listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::PortInUse { address: args.listen.to_string() },
        _ => Error::Io { context: format!("listening on {}", args.listen), source: error },
    })?;
    listener.set_nonblocking(true).map_err(io("listening"))?;
    let address = listener.local_addr().map_err(io("listening"))?;
    let interrupt = Interrupt::install()?;
    let opened = open(&args.server, &Bars::new(args.quiet), interrupt.flag())?;
    let key = args.api_key.clone().unwrap_or_else(random_key);
    let name = opened.name.clone();
    eprintln!("{}", opened.description);
    output::line(out, &format!("base URL  http://{address}/v1\nAPI key   {key}\nmodel     {name}"))?;
    let worker = worker::Worker::start(opened, interrupt.flag())?;
    let embedder = embed::Embedder::new(&args.server, &args.embedding_model);
    let state = Arc::new(handlers::State {
        worker,
        embedder,
        model: name,
        embedding_model: args.embedding_model.clone(),
    });
    let guard = Arc::new(guard::Guard::new(address, key));
    let router = Router::new()
        .route("/v1/models", get(handlers::models))
        .route("/v1/chat/completions", post(handlers::chat_completions))
        .route("/v1/embeddings", post(handlers::embeddings))
        .fallback(handlers::not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(guard, guard::check))
        .with_state(state);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(io("starting the network runtime"))?;
    runtime
        .block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router).await
        })
        .map_err(io("serving"))
}

/// 24 random bytes, hexadecimal, with the prefix that tools expect of a key.
fn random_key() -> String {
    format!("sk-sotto-{}", hex::encode(rand::random::<[u8; 24]>()))
}
