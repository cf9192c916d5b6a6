//! The proxy: programs talk to it as to the provider, and the provider sees placeholders.
//!
//! | path | what |
//! |---|---|
//! | `POST /v1/chat/completions` | scrubs a request, forwards it, restores the answer, streamed or not |
//! | `GET /v1/models` | passed through |
//! | `POST /redact`, `/restore` | a text with placeholders, and back, in a session |
//! | `POST /check` | what `/redact` would do, without doing it |
//! | `GET /healthz`, `/metrics` | state and counters |
//! | `GET /` | the local web page |
//!
//! It fails closed: where detection fails or its canary comes back with wrong labels, nothing is forwarded.

mod api;
mod audit;
mod chat;
mod guard;
mod metrics;
mod page;
mod reply;
mod restoring;
mod scrub;
mod sessions;
mod sse;
mod stream;
mod upstream;
pub mod worker;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use worker::Worker;

/// Bytes of a request; the largest prompts of today's models stay well below.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// Requests under way.
const MAX_REQUESTS: usize = 256;

/// How to run a proxy.
pub struct ProxyOptions {
    /// Base address of the provider, e.g. `https://api.example.com/v1`.
    pub upstream: String,
    /// The provider's key.
    pub upstream_key: Option<Zeroizing<String>>,
    /// The key that programs have to show.
    pub key: Zeroizing<String>,
    /// File of the audit log.
    pub audit: Option<PathBuf>,
    /// Whether pictures, sound and files are sent as they are.
    pub allow_attachments: bool,
}

/// What all handlers share.
struct Shared {
    worker: Worker,
    upstream: upstream::Upstream,
    guard: guard::Guard,
    sessions: sessions::Sessions,
    audit: audit::Audit,
    metrics: metrics::Metrics,
    policy: String,
    room: tokio::sync::Semaphore,
    allow_attachments: bool,
}

/// Serves until `shutdown` is ready.
///
/// # Errors
/// If the options cannot be used, the listener is not on loopback, or it fails.
pub async fn run(
    listener: TcpListener,
    worker: Worker,
    options: ProxyOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let failed = |source| Error::Io { context: "listening".to_owned(), source };
    let address: SocketAddr = listener.local_addr().map_err(failed)?;
    if !address.ip().is_loopback() {
        return Err(Error::Usage("the proxy listens on loopback addresses only".to_owned()));
    }
    let shared = Arc::new(Shared {
        worker,
        upstream: upstream::Upstream::new(&options.upstream, options.upstream_key)?,
        guard: guard::Guard::new(address, &options.key),
        sessions: sessions::Sessions::default(),
        audit: audit::Audit::open(options.audit.as_deref())?,
        metrics: metrics::Metrics::new(),
        policy: page::policy(),
        room: tokio::sync::Semaphore::new(MAX_REQUESTS),
        allow_attachments: options.allow_attachments,
    });
    axum::serve(listener, router(shared)).with_graceful_shutdown(shutdown).await.map_err(failed)
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/models", get(chat::models))
        .route("/redact", post(api::redact))
        .route("/check", post(api::check))
        .route("/restore", post(api::restore))
        .route("/metrics", get(api::metrics))
        .route("/healthz", get(api::health))
        .route("/", get(api::page))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Lets a request in or refuses it: place first, then key. The page and the state of health need no key.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let open = request.method() == Method::GET && matches!(request.uri().path(), "/" | "/healthz");
    let checked = shared.guard.check_place(request.headers());
    let checked =
        if open { checked } else { checked.and_then(|()| shared.guard.check_key(request.headers())) };
    match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
