//! The proxy: programs talk to it as to the provider, and the provider sees placeholders.
//!
//! | path | what |
//! |---|---|
//! | `POST /v1/chat/completions`, `/v1/responses`, `/v1/completions`, `/v1/embeddings`, `/v1/moderations` (OpenAI), `/v1/messages` (Anthropic) | scrubs a request, forwards it, restores the answer, streamed or not |
//! | `GET /v1/models`, `/v1/models/ID` | passed through |
//! | `POST /redact`, `/restore` | a text with placeholders, and back, in a session |
//! | `POST /check` | what `/redact` would do, without doing it |
//! | `GET /healthz`, `/metrics` | state and counters |
//! | `GET /` | the local web page |
//!
//! The paths of the APIs count with and without `/v1` and a slash at their end.
//!
//! It fails closed: where detection fails or its canary comes back with wrong labels, nothing is forwarded. Answers are
//! not trusted either: they get only values whose placeholders stood in their request, and none in the target of a link
//! or picture.

pub mod access;
mod answers;
mod api;
mod audit;
mod conversations;
mod events;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod metrics;
mod page;
mod patience;
mod protocol;
mod reply;
pub mod scan_thread;
mod scrub;
mod sse;
mod stream;
mod upstream;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::vault::VaultRules;
use access::{Access, KeyPolicy};
use protocol::Api;
use scan_thread::ScanThread;

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
    /// Further keys, with what their holders may do.
    pub keys: Vec<KeyPolicy>,
    /// File of the audit log.
    pub audit: Option<PathBuf>,
    /// Whether pictures, sound and files are sent as they are.
    pub allow_attachments: bool,
    /// What vaults do with values.
    pub vault_rules: VaultRules,
    /// Whether a request with placeholders asks the model to keep them as they are.
    pub hint: bool,
}

/// What all handlers share.
struct Shared {
    scans: ScanThread,
    upstream: upstream::Upstream,
    guard: guard::Guard,
    audit: audit::Audit,
    metrics: metrics::Metrics,
    policy: String,
    room: tokio::sync::Semaphore,
}

/// Serves until `shutdown` is ready.
///
/// # Errors
/// If the options cannot be used, the listener is not on loopback, or it fails.
pub async fn run(
    listener: TcpListener,
    scans: ScanThread,
    options: ProxyOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let failed = |source| Error::io_of("listening", source);
    let address: SocketAddr = listener.local_addr().map_err(failed)?;
    if options.key.is_empty() {
        return Err(Error::Usage("the proxy needs a key that programs have to show".to_owned()));
    }
    if !address.ip().is_loopback() {
        return Err(Error::Usage("the proxy listens on loopback addresses only".to_owned()));
    }
    let default = KeyPolicy {
        name: String::new(),
        key: options.key,
        routes: None,
        allow_attachments: options.allow_attachments,
        hint: options.hint,
        vault_rules: options.vault_rules,
    };
    let keys = std::iter::once(default).chain(options.keys).map(|policy| Arc::new(Access::new(policy)));
    let shared = Arc::new(Shared {
        scans,
        upstream: upstream::Upstream::new(&options.upstream, options.upstream_key)?,
        guard: guard::Guard::new(address, keys.collect()),
        audit: audit::Audit::open(options.audit.as_deref())?,
        metrics: metrics::Metrics::new(),
        policy: page::policy(),
        room: tokio::sync::Semaphore::new(MAX_REQUESTS),
    });
    axum::serve(listener, router(shared)).with_graceful_shutdown(shutdown).await.map_err(failed)
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/redact", post(api::redact))
        .route("/check", post(api::check))
        .route("/restore", post(api::restore))
        .route("/metrics", get(api::metrics))
        .route("/healthz", get(api::health))
        .route("/", get(api::page))
        .fallback(provider)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Requests for the provider, under the paths of its API.
async fn provider(
    State(shared): State<Arc<Shared>>,
    Extension(access): Extension<Arc<Access>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Response {
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_prefix("/v1").unwrap_or(path);
    if let Some(api) = Api::ALL.into_iter().find(|api| api.path() == path) {
        return match method {
            Method::POST => forward::forward(shared, access, api, headers, bytes).await,
            _ => reply::wrong_method(path).into_response(),
        };
    }
    if method == Method::GET && is_models(path) {
        return forward::models(shared, path, &headers).await;
    }
    reply::not_found().into_response()
}

/// `/models`, or `/models/` and a name, which may hold slashes.
fn is_models(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@' | '+');
    path.strip_prefix("/models").is_some_and(|name| {
        let name_is_plain = name.len() <= 256 && name.chars().all(plain) && !name.contains("..");
        name.is_empty() || name.starts_with('/') && name_is_plain
    })
}

/// Lets a request in or refuses it: place first, then key. The page and the state of health need no key.
async fn admit(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let open = request.method() == Method::GET && matches!(request.uri().path(), "/" | "/healthz");
    if let Err(refusal) = shared.guard.check_place(request.headers()) {
        return refusal.into_response();
    }
    if open {
        return next.run(request).await;
    }
    let access = shared.guard.check_key(request.headers());
    match access.and_then(|access| access.check_route(request.uri().path()).map(|()| access)) {
        Ok(access) => {
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}
