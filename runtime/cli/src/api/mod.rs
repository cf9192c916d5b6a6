//! `sotto api`: the private model as an OpenAI-compatible endpoint on loopback.
//!
//! | path | what | where |
//! |---|---|---|
//! | `POST /v1/chat/completions` | answers in a conversation | `chat` |
//! | `POST /v1/completions` | continuations of a text | `completions` |
//! | `POST /v1/responses` | OpenAI's newer form | `responses` |
//! | `POST /v1/messages`, `/v1/messages/count_tokens` | Anthropic's form | `messages` |
//! | `POST /v1/embeddings` | sentence embeddings | `embeddings`, `encoder` |
//! | `POST /v1/rerank` | documents by their closeness to a query | `rerank`, `encoder` |
//! | `POST /v1/predict` | predictions of trees, linear models and networks | `predict` |
//! | `GET /v1/models`, `/v1/models/ID` | the models | `routes` |
//! | `POST /tokenize`, `/detokenize` | text to tokens and back | `routes` |
//! | `GET /ps`, `/health`, `/metrics` | for whoever watches this endpoint | `routes` |
//!
//! `models` loads and unloads the models. `prompt` turns a request into tokens, `generation` runs them on the one thread that
//! owns the model, all that are under way in the same passes.
//! Every request needs the key printed at start, but for `/health`. Requests of web pages are refused unless their origin is
//! allowed by name.

mod chat;
mod completions;
mod embeddings;
mod encoder;
mod error;
mod generation;
mod messages;
mod metrics;
mod models;
mod predict;
mod prompt;
mod rerank;
mod responses;
mod routes;
mod stream;
mod tools;

use std::future::IntoFuture;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::args::ApiArgs;
use super::interrupt::Interrupt;
use super::open::open;
use super::output;
use super::progress::Bars;
use generation::Stop;
use sotto_http::guard::Guard;
use sotto_protocol::error::{Error, Result};
use sotto_storage::Cache;

/// How long connections may take to end when the endpoint does.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs `sotto api` until Ctrl-C or SIGTERM; answers under way end with an error that says so.
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
    let bars = Bars::new(args.quiet);
    let (stop, before) = (Stop::default(), models::own_memory());
    let mut opened = None;
    if !args.no_chat {
        let mut chat = open(&args.server, &bars, stop.flag())?;
        let drafts = &args.drafts;
        chat.draft(&drafts.draft, drafts.draft_length, &Cache::from_env()?, &bars)?;
        note!("{}", chat.description);
        opened = Some(chat);
    }
    let key = (!args.no_key).then(|| key(args.api_key.as_deref()));
    let state = Arc::new(routes::State::new(args, opened.as_ref().map(|chat| chat.name.as_str()))?);
    let shown = key.as_ref().map_or("none needed", |key| key.as_str());
    output::line(
        out,
        &format!("base URL  http://{address}/v1\nAPI key   {shown}\nmodel     {}", state.first()),
    )?;
    let guard = Guard::new(address, key).allow_hosts(&args.allow_host).allow_origins(&args.allow_origin);
    let router = routes::router(Arc::clone(&state), Arc::new(guard));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(io("starting the network runtime"))?;
    let models = Arc::clone(&state.models);
    let (ended, end) = tokio::sync::oneshot::channel();
    interrupt.on_end(move || {
        // The endpoint may have ended by itself.
        let _ = ended.send(());
    });
    let served = runtime.block_on(async {
        if let Some(chat) = opened {
            let adopted = state.models.adopt_first(chat, stop, before).await;
            adopted.map_err(|error| std::io::Error::other(error.message().to_owned()))?;
        }
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (begin, begun) = tokio::sync::oneshot::channel::<()>();
        let graceful = async move {
            let _ = end.await;
            // Those that stream are told, so that their connections end.
            state.models.stop();
            let _ = begin.send(());
        };
        tokio::select! {
            served = axum::serve(listener, router).with_graceful_shutdown(graceful).into_future() => served,
            () = async {
                let _ = begun.await;
                tokio::time::sleep(PATIENCE).await;
            } => Ok(()),
        }
    });
    models.end();
    // What still runs, such as the download of a model, does not hold up the process.
    runtime.shutdown_background();
    served.map_err(io("serving"))
}

/// The key given, or 24 random bytes in hexadecimal, with the prefix that tools expect. An empty key is none given.
fn key(given: Option<&str>) -> Zeroizing<String> {
    match given.filter(|key| !key.trim().is_empty()) {
        Some(key) => Zeroizing::new(key.to_owned()),
        None => Zeroizing::new(format!("sk-sotto-{}", hex::encode(rand::random::<[u8; 24]>()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_key_does_not_open_the_endpoint() {
        for empty in [None, Some(""), Some("  ")] {
            assert!(key(empty).len() > 40, "{empty:?}");
        }
        assert_eq!(key(Some("k")).as_str(), "k");
    }
}
