//! Which path goes where, what the handlers share, and the small ones.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, OriginalUri, Path, Request, State as Extract};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_ENCODING, CONTENT_TYPE, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sotto_http::error::ApiError;
use sotto_http::guard::Guard;
use sotto_http::read::{self, Fields, token_ids};
use sotto_http::request_id;
use sotto_protocol::error::Error;

use super::encoder::Encoder;
use super::error::refusal;
use super::metrics::Metrics;
use super::models::Models;
use super::predict::Predictors;
use super::{chat, completions, embeddings, messages, predict, rerank, responses};
use crate::args::ApiArgs;

/// Result of this module.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Largest request body, in bytes; far more text than any context holds.
const MAX_BODY_BYTES: usize = 8 << 20;

/// The endpoints, for those who ask for another.
const ENDPOINTS: &str = "POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, \
                         /v1/messages/count_tokens, /v1/embeddings, /v1/rerank, /v1/predict, /tokenize and /detokenize; \
                         GET /v1/models, /ps, /health and /metrics";

/// What the handlers share.
pub(super) struct State {
    pub(super) models: Arc<Models>,
    pub(super) encoder: Encoder,
    pub(super) embedding_model: String,
    pub(super) predictors: Predictors,
    started: u64,
    metrics: Arc<Metrics>,
}

impl State {
    /// The models that `args` name, none of them loaded; `first` is what requests call the first chat model, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for two models of one name.
    pub(super) fn new(args: &ApiArgs, first: Option<&str>) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let models = Models::new(args, first, Arc::clone(&metrics))?;
        let mut taken = models.names();
        taken.push(&args.embedding_model);
        let predictors = Predictors::new(args, &taken)?;
        Ok(Self {
            models: Arc::new(models),
            predictors,
            encoder: Encoder::new(args),
            embedding_model: args.embedding_model.clone(),
            started: now(),
            metrics,
        })
    }

    /// What requests call the model that is named at start: the chat model, a predictor, or the encoder.
    pub(super) fn first(&self) -> &str {
        let mut names = self.models.names().into_iter().chain(self.predictors.names());
        names.next().unwrap_or(&self.embedding_model)
    }

    fn names(&self) -> Vec<&str> {
        let mut names = self.models.names();
        names.push(&self.embedding_model);
        names.extend(self.predictors.names());
        names
    }

    fn model_object(&self, id: &str) -> Value {
        let mut object = json!({ "id": id, "object": "model", "created": self.started, "owned_by": "sotto" });
        if let Some(length) = self.models.context_length(id) {
            object["context_length"] = length.into();
        }
        if let (Some(object), Some(Value::Object(shape))) =
            (object.as_object_mut(), self.predictors.shape(id))
        {
            object.extend(shape.clone());
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
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
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
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/rerank", post(rerank::rerank))
        .route("/rerank", post(rerank::rerank))
        .route("/v1/predict", post(predict::predict))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/ps", get(status))
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
    let wanted_headers = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let to_private_network = headers.contains_key("access-control-request-private-network");
    let checked = guard.check_place(headers).and_then(|()| match request.uri().path() {
        "/health" => Ok(()),
        // A browser asks without the key.
        _ if request.method() == Method::OPTIONS && origin.is_some() => Ok(()),
        _ => guard.check_key(headers),
    });
    let checked = checked.and_then(|()| check_encoding(headers));
    let mut response = match checked {
        Err(error) => error.into_response_at(request.uri().path()),
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
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
        // Clients send headers of their own, each another; none of them decides anything here but the key.
        let usual = HeaderValue::from_static("authorization, content-type, x-api-key, anthropic-version");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted_headers.unwrap_or(usual));
        if to_private_network {
            headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
        }
    }
    response
}

/// Refuses bodies that are compressed.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let plain = |value: &HeaderValue| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let message = "the body must not be compressed: send it without Content-Encoding";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).with_code("unsupported_encoding"))
}

/// `GET /v1/models`.
async fn models(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    let data: Vec<Value> = state.names().into_iter().map(|name| state.model_object(name)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/ID`.
async fn model(Extract(state): Extract<Arc<State>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let names = state.names();
    if names.contains(&id.as_str()) {
        Ok(Json(state.model_object(&id)))
    } else {
        Err(ApiError::unknown_model(&id, &names))
    }
}

/// `GET /ps`: what is loaded.
async fn status(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    let mut models = state.models.status();
    models.push(json!({
        "name": state.embedding_model,
        "state": if state.encoder.is_open() { "loaded" } else { "not loaded" },
    }));
    models.extend(state.predictors.status());
    Json(json!({ "models": models }))
}

/// `POST /tokenize`: `{"content": TEXT}` to `{"tokens": [...]}`.
async fn tokenize(Extract(state): Extract<Arc<State>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let (model, text) = in_background(move || {
        let body = read::parse(&body)?;
        let fields = Fields::of_request(&body, &[])?;
        // llama.cpp's name, then vLLM's.
        let text = match fields.text("content")? {
            Some(text) => Some(text),
            None => fields.text("prompt")?,
        };
        let text = text.ok_or_else(|| ApiError::field("content", "must be a string"))?;
        Ok((fields.text("model")?.map(ToOwned::to_owned), text.to_owned()))
    })
    .await?;
    let model = state.models.get(model.as_deref()).await?;
    let tokens = in_background(move || model.prompts.encode(&text)).await?;
    Ok(Json(json!({ "tokens": tokens, "count": tokens.len() })))
}

/// `POST /detokenize`: `{"tokens": [...]}` to `{"content": TEXT}`.
async fn detokenize(Extract(state): Extract<Arc<State>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let body = read::parse(&body)?;
    let fields = Fields::of_request(&body, &[])?;
    let tokens = fields.list("tokens")?.and_then(token_ids);
    let tokens = tokens.ok_or_else(|| ApiError::field("tokens", "must be an array of token ids"))?;
    let content = state.models.get(fields.text("model")?).await?.prompts.decode(&tokens)?;
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
