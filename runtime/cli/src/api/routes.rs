//! Which path goes where, what the handlers share, and the small ones.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, OriginalUri, Path, Request, State as Extract};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE,
    VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sotto_engine::open::Chat;
use sotto_http::error::ApiError;
use sotto_http::guard::Guard;
use sotto_http::read::{self, Fields, token_ids};
use sotto_http::request_id;
use sotto_protocol::error::Error;

use super::encoder::Encoder;
use super::error::refusal;
use super::generation::GenerationThread;
use super::metrics::Metrics;
use super::prompt::PromptBuilder;
use super::{chat, completions, embeddings, messages, responses};
use crate::args::ApiArgs;

/// Result of this module.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Largest request body, in bytes; far more text than any context holds.
const MAX_BODY_BYTES: usize = 8 << 20;

/// The endpoints, for those who ask for another.
const ENDPOINTS: &str = "POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, /v1/embeddings, \
                         /tokenize and /detokenize; GET /v1/models, /health and /metrics";

/// What the handlers share.
pub(super) struct State {
    pub(super) thread: GenerationThread,
    pub(super) prompts: PromptBuilder,
    pub(super) encoder: Encoder,
    pub(super) model: String,
    pub(super) embedding_model: String,
    started: u64,
    metrics: Arc<Metrics>,
}

impl State {
    /// Starts the session's thread.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if no thread can be started.
    pub(super) fn new(mut opened: Chat, args: &ApiArgs, cancelled: Arc<AtomicBool>) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let (model, prompts) = (opened.name.clone(), PromptBuilder::new(&mut opened.session));
        Ok(Self {
            thread: GenerationThread::start(opened, cancelled, Arc::clone(&metrics))?,
            prompts,
            encoder: Encoder::new(&args.server, &args.embedding_model),
            model,
            embedding_model: args.embedding_model.clone(),
            started: now(),
            metrics,
        })
    }

    /// Whether a request means the chat model; one without a name does.
    ///
    /// # Errors
    /// 404 for any other name.
    pub(super) fn check_model(&self, name: Option<&str>) -> Result<(), ApiError> {
        match name {
            Some(name) if name != self.model => {
                Err(ApiError::unknown_model(name, &[&self.model, &self.embedding_model]))
            }
            _ => Ok(()),
        }
    }

    fn model_object(&self, id: &str) -> Value {
        let mut object = json!({ "id": id, "object": "model", "created": self.started, "owned_by": "sotto" });
        if id == self.model {
            object["context_length"] = self.prompts.context_length().into();
        }
        object
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Runs `work`, which reads and tokenizes, where it does not hold up other requests.
///
/// # Errors
/// What `work` refuses.
pub(super) async fn in_background<T: Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&State) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || work(&state))
        .await
        .map_err(|_| refusal(Error::Internal("reading the request panicked".to_owned())))?
}

/// All routes, guarded.
pub(super) fn router(state: Arc<State>, guard: Arc<Guard>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/messages", post(messages::messages))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(guard, check))
        .layer(from_fn(request_id::label))
        .with_state(state)
}

/// Lets a request through or refuses it; answers browsers that ask whether a page may ask.
async fn check(Extract(guard): Extract<Arc<Guard>>, request: Request<Body>, next: Next) -> Response {
    let headers = request.headers();
    let origin = guard.allowed_origin(headers).and_then(|origin| HeaderValue::from_str(origin).ok());
    let checked = guard.check_place(headers).and_then(|()| match request.uri().path() {
        "/health" => Ok(()),
        // A browser asks without the key.
        _ if request.method() == Method::OPTIONS && origin.is_some() => Ok(()),
        _ => guard.check_key(headers),
    });
    let mut response = match checked {
        Err(error) => error.into_response(),
        Ok(()) if request.method() == Method::OPTIONS && origin.is_some() => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(()) => next.run(request).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
        let allowed = "authorization, content-type, x-api-key, anthropic-version";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    }
    response
}

/// `GET /v1/models`.
async fn models(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    let data = [state.model_object(&state.model), state.model_object(&state.embedding_model)];
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/ID`.
async fn model(Extract(state): Extract<Arc<State>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    if id == state.model || id == state.embedding_model {
        Ok(Json(state.model_object(&id)))
    } else {
        Err(ApiError::unknown_model(&id, &[&state.model, &state.embedding_model]))
    }
}

/// `POST /tokenize`: `{"content": TEXT}` to `{"tokens": [...]}`.
async fn tokenize(Extract(state): Extract<Arc<State>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let tokens = in_background(&state, move |state| {
        let body = read::parse(&body)?;
        let fields = Fields::of_request(&body, &[])?;
        // llama.cpp's name, then vLLM's.
        let text = match fields.text("content")? {
            Some(text) => Some(text),
            None => fields.text("prompt")?,
        };
        state.prompts.encode(text.ok_or_else(|| ApiError::field("content", "must be a string"))?)
    })
    .await?;
    Ok(Json(json!({ "tokens": tokens, "count": tokens.len() })))
}

/// `POST /detokenize`: `{"tokens": [...]}` to `{"content": TEXT}`.
async fn detokenize(Extract(state): Extract<Arc<State>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let body = read::parse(&body)?;
    let tokens = Fields::of_request(&body, &[])?.list("tokens")?.and_then(token_ids);
    let tokens = tokens.ok_or_else(|| ApiError::field("tokens", "must be an array of token ids"))?;
    let content = state.prompts.decode(&tokens)?;
    Ok(Json(json!({ "content": content, "prompt": content })))
}

/// `GET /health`.
async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /metrics`.
async fn metrics(Extract(state): Extract<Arc<State>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], state.metrics.text())
}

/// Everything else.
async fn not_found(OriginalUri(uri): OriginalUri, method: Method) -> ApiError {
    let message = format!("There is no endpoint {method} {}. Available: {ENDPOINTS}.", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, message).with_code("unknown_url")
}
